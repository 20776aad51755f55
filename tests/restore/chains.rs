//! Chains of changes: every point in time comes back, whatever was marked and in whatever order it comes; a missing
//! link is refused by name.

use std::collections::BTreeMap;
use std::fs;

use azure_vm_fd::backup::{Level, Run};
use azure_vm_fd::digests::Digests;
use azure_vm_fd::notice::{Severity, with_causes};
use azure_vm_fd::restore::{Error, Restore};
use mock_server::{
    Action, Change, DEFAULT_SUBSCRIPTION, Disk, Fault, KIB, MIB, NetworkInterface, Vm,
};
use sha2::{Digest as _, Sha256};

use super::support::{self, GROUP, SavedFile, World, run, scenario};
use super::{assert_leaves_nothing, inventory};

/// What a run saved: its files, and the bytes that the disks had.
struct Point {
    files: Vec<SavedFile>,
    digests: BTreeMap<String, String>,
}

impl Point {
    /// Its file with this role: `conf`, `osdisk`, `0`.
    fn file(&self, role: &str) -> usize {
        let is_it = |file: &SavedFile| file.path.ends_with(&format!("_{role}"));
        self.files.iter().position(is_it).unwrap()
    }

    fn name(&self, role: &str) -> String {
        let path = &self.files[self.file(role)].path;
        path.rsplit('/').next().unwrap().to_owned()
    }
}

fn vm() -> Vm {
    let os = Disk::new("db-os", 20 * MIB).pattern(1, MIB, 4 * MIB);
    let data = Disk::new("db-data", 24 * MIB).pattern(2, 0, 6 * MIB);
    Vm::new(GROUP, "db", os)
        .data_disk_cached(0, "None", data)
        .nic(NetworkInterface::new("db-nic", "vnet/subnet-a"))
}

async fn world() -> World {
    World::new(scenario().vm(vm())).await
}

fn level(number: u32, level: Level, previous: u32) -> Run {
    Run {
        level,
        previous: Some(run(previous).job),
        ..run(number)
    }
}

fn incremental(number: u32, previous: u32) -> Run {
    level(number, Level::Incremental, previous)
}

/// The digests of a VM's disks, by place.
fn digests(world: &World, vm: &str) -> BTreeMap<String, String> {
    let state = world.state();
    let vm = state.vm(vm).unwrap();
    let data = vm
        .data_disks
        .iter()
        .map(|(lun, disk)| (lun.to_string(), &disk.name));
    [("os".to_owned(), &vm.os_disk.name)]
        .into_iter()
        .chain(data)
        .map(|(place, disk)| (place, world.emulator.disk_digest(disk).unwrap()))
        .collect()
}

async fn point(world: &World, run: Run) -> Point {
    let files = world.back_up(run).await;
    Point {
        files,
        digests: digests(world, "db"),
    }
}

fn files<'a>(points: impl IntoIterator<Item = &'a Point>) -> Vec<SavedFile> {
    points
        .into_iter()
        .flat_map(|point| point.files.clone())
        .collect()
}

/// Writes something else into a document, and returns the digest of what it is then.
fn replace(document: &mut SavedFile, from: &str, to: &str) -> String {
    let text = String::from_utf8(document.blocks[0].1.clone()).unwrap();
    let changed = text.replace(from, to).into_bytes();
    document.size = changed.len() as u64;
    let digest = Sha256::digest(&changed);
    document.blocks[0].1 = changed;
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A chain of three, each with other changes: Full, Incremental, Incremental.
async fn three() -> (World, [Point; 3]) {
    let world = world().await;
    let emulator = &world.emulator;
    let one = point(&world, run(1)).await;
    emulator
        .guest_pattern("db-os", 10, 2 * MIB, 64 * KIB)
        .unwrap();
    emulator.guest_discard("db-data", MIB, 2 * MIB).unwrap();
    let two = point(&world, incremental(2, 1)).await;
    emulator.guest_pattern("db-os", 11, 9 * MIB, MIB).unwrap();
    emulator.guest_pattern("db-data", 12, MIB, 512).unwrap();
    let three = point(&world, incremental(3, 2)).await;
    world.take_notices();
    (world, [one, two, three])
}

async fn assert_restores(world: &World, files: &[SavedFile], expected: &Point, name: &str) {
    if let Err(error) = world.restore(files, name).await {
        panic!("{name}: {}", with_causes(&error));
    }
    assert_eq!(digests(world, name), expected.digests, "{name}");
    assert!(!world.staging_dir().exists());
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_point_in_time_comes_back_in_any_order_of_jobs() {
    let world = world().await;
    let emulator = &world.emulator;
    let attach = |lun, disk: &str| {
        let new = Disk::new(disk, 20 * MIB).pattern(77, 0, MIB);
        emulator.change(&Change::CreateDisk(Box::new(new))).unwrap();
        emulator
            .change(&Change::AttachDisk {
                vm: "db".into(),
                lun,
                disk: disk.into(),
            })
            .unwrap();
    };
    let detach = |lun| {
        let vm = "db".into();
        emulator.change(&Change::DetachDisk { vm, lun }).unwrap();
    };
    let mut points = vec![point(&world, run(1)).await];

    // Written, written with zeros, discarded; on the edge of blocks and inside of them.
    let before = emulator.disk_read("db-os", 3 * MIB, MIB).unwrap();
    emulator.guest_pattern("db-os", 10, 3 * MIB, MIB).unwrap();
    emulator
        .guest_write("db-os", 2 * MIB, &[0; 200_000])
        .unwrap();
    emulator
        .guest_discard("db-os", MIB + 512, 300 * KIB)
        .unwrap();
    emulator.guest_discard("db-data", 4 * MIB, 2 * MIB).unwrap();
    points.push(point(&world, incremental(2, 1)).await);

    // A page that was changed is changed back: the Differential may not even list it.
    emulator.guest_write("db-os", 3 * MIB, &before).unwrap();
    emulator
        .guest_pattern("db-data", 11, 5 * MIB, 4 * KIB)
        .unwrap();
    points.push(point(&world, level(3, Level::Differential, 1)).await);

    // A disk grows, and is written where it was not before; its last sector is in the middle now.
    emulator
        .change(&Change::GrowDisk {
            disk: "db-data".into(),
            size: (32 * MIB).into(),
        })
        .unwrap();
    emulator
        .guest_pattern("db-data", 12, 27 * MIB, MIB)
        .unwrap();
    emulator
        .guest_write("db-os", 10 * MIB, b"after the Differential")
        .unwrap();
    points.push(point(&world, incremental(4, 3)).await);

    // Nobody knows the run that this one should build on: full images inside the job.
    emulator.guest_pattern("db-os", 13, 0, 4 * KIB).unwrap();
    points.push(point(&world, incremental(5, 99)).await);

    // Another disk on the same LUN.
    detach(0);
    attach(0, "db-other");
    emulator
        .guest_write("db-os", 11 * MIB, b"with the other disk")
        .unwrap();
    points.push(point(&world, incremental(6, 5)).await);

    // One disk goes, one comes.
    detach(0);
    attach(3, "db-third");
    points.push(point(&world, incremental(7, 6)).await);

    emulator.guest_discard("db-third", 0, 512 * KIB).unwrap();
    points.push(point(&world, incremental(8, 7)).await);
    world.take_notices();

    for (number, expected) in points.iter().enumerate() {
        let marked = &points[..=number];
        assert_restores(
            &world,
            &files(marked),
            expected,
            &format!("oldest-{number}"),
        )
        .await;
        let backward = files(marked.iter().rev());
        assert_restores(&world, &backward, expected, &format!("newest-{number}")).await;
    }
    // The documents last, the blocks backward.
    let mut scattered = files(&points);
    scattered.sort_by_key(|file| (file.path.ends_with("_conf"), file.path.len() % 3));
    for file in scattered
        .iter_mut()
        .filter(|file| !file.path.ends_with("_conf"))
    {
        file.blocks.reverse();
    }
    world.take_notices();
    assert_restores(&world, &scattered, &points[7], "scattered").await;
    let notices = &world.take_notices()[&Severity::Info];
    let skipped: Vec<_> = notices
        .iter()
        .filter(|text| text.contains("not needed"))
        .collect();
    assert_eq!(skipped.len(), 1, "{notices:?}");
    let begin = format!(
        "restoring virtual machine db as job {} saved it (",
        run(8).job
    );
    assert!(notices[0].starts_with(&begin), "{notices:?}");
    assert!(notices[0].ends_with("under the name scattered"));
    // One line per disk, in the order of the images.
    let disks: Vec<_> = notices
        .iter()
        .filter_map(|text| text.split_once(": full image ")?.0.split(' ').nth(1))
        .collect();
    assert_eq!(disks, ["db-os", "db-third"], "{notices:?}");
    for (point, needed) in [(0, false), (3, false), (4, true), (7, true)] {
        let file = points[point].name("osdisk");
        assert_eq!(!skipped[0].contains(&file), needed, "{file}: {skipped:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_link_is_refused_by_name() {
    let (world, points) = three().await;
    world.emulator.reset_counters();
    let refused = async |files: Vec<SavedFile>, names: &[&str]| {
        let error = assert_leaves_nothing(&world, &files).await.to_string();
        for name in names {
            assert!(error.contains(name), "{name}: {error}");
        }
        let created = world.emulator.counters().requests("Disks_CreateOrUpdate");
        assert_eq!(created, 0);
    };
    let without = |number: usize, role: &str| {
        let gone = points[number].name(role);
        let mut files = files(&points);
        files.retain(|file| !file.path.ends_with(&gone));
        files
    };
    let job = |number: u32| run(number).job;
    let [one, two, three] = &points;

    // The document of the link, an image of it, the whole run.
    let conf = two.name("conf");
    refused(
        without(1, "conf"),
        &[&three.name("osdisk"), "db-os", &job(3), &conf],
    )
    .await;
    refused(
        without(1, "0"),
        &[&two.name("0"), "db-data", &job(2), "did not come"],
    )
    .await;
    let conf = one.name("conf");
    refused(
        files([two, three]),
        &[&two.name("osdisk"), "db-os", &job(2), &conf],
    )
    .await;
    refused(
        without(2, "conf"),
        &[&three.name("osdisk"), &three.name("0"), "_conf"],
    )
    .await;
    // Cut short on the volume.
    let mut cut = files(&points);
    let at = one.files.len() + two.file("osdisk");
    cut[at].blocks.pop();
    refused(
        cut,
        &[&two.name("osdisk"), "db-os", &job(2), "not complete"],
    )
    .await;
    // A document that cannot be read.
    let mut damaged = files(&points);
    let at = one.files.len() + two.file("conf");
    damaged[at].blocks[0].1[0] = b'[';
    refused(damaged, &[&two.name("conf"), "not a document"]).await;
    // A base that is larger than what builds on it.
    let mut shrunk = files(&points);
    let document = &mut shrunk[one.file("conf")];
    let text = String::from_utf8(document.blocks[0].1.clone()).unwrap();
    let text = text.replacen("\"sizeBytes\": 20971520", "\"sizeBytes\": 41943040", 1);
    document.blocks[0].1 = text.into_bytes();
    refused(shrunk, &[&one.name("osdisk"), "db-os", "never shrinks"]).await;

    assert_restores(&world, &files([one, two]), two, "earlier").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_needed_may_be_incomplete() {
    let (world, points) = three().await;
    let last = point(&world, level(4, Level::Differential, 1)).await;
    world.take_notices();
    let mut marked = files(&points);
    let at = points[0].files.len() + points[1].file("osdisk");
    marked[at].blocks.pop();
    // Of the run in between only the images came.
    let conf = points[2].name("conf");
    marked.retain(|file| !file.path.ends_with(&conf));
    marked.extend(last.files.clone());
    assert_restores(&world, &marked, &last, "copy").await;
    let notices = world.take_notices();
    let about = |severity, part: &str| {
        let found = notices[&severity].iter().filter(|text| text.contains(part));
        found.cloned().collect::<Vec<_>>()
    };
    assert_eq!(
        about(Severity::Warning, "not complete").len(),
        1,
        "{notices:?}"
    );
    let skipped = about(Severity::Info, "not needed");
    assert_eq!(skipped.len(), 1, "{notices:?}");
    for point in &points[1..] {
        assert!(skipped[0].contains(&point.name("osdisk")), "{skipped:?}");
    }
    assert!(!skipped[0].contains(&last.name("osdisk")));
    assert_eq!(notices.get(&Severity::Error), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_and_its_copy_are_one() {
    let (world, points) = three().await;
    let mut twice = files(points.iter().chain(points.iter().rev()));
    assert_restores(&world, &twice, &points[2], "both").await;
    let notices = &world.take_notices()[&Severity::Info];
    let repeated = notices
        .iter()
        .filter(|text| text.contains("more than once"));
    assert_eq!(repeated.count(), 1, "{notices:?}");

    // The original is damaged, the copy is not.
    for role in ["conf", "osdisk"] {
        twice[points[0].file(role)].blocks.pop();
    }
    assert_restores(&world, &twice, &points[2], "mended").await;

    // Not a copy, but another daemon's run of the same second; with its digests, or none.
    let mut other = points[0].files.clone();
    let conf = replace(&mut other[points[0].file("conf")], &run(1).job, &run(8).job);
    let file = &mut other[points[0].file("digests")];
    let vm_uuid = world.state().vm("db").unwrap().vm_id.clone();
    let (epoch, _) = file
        .path
        .rsplit_once('/')
        .unwrap()
        .1
        .split_once('_')
        .unwrap();
    let text = &mut file.blocks[0].1;
    let mut digests = Digests::parse(text, &vm_uuid, epoch.parse().unwrap()).unwrap();
    digests.job = run(8).job;
    digests.conf_sha256 = conf;
    *text = digests.to_bytes().unwrap();
    other.extend(points[0].files.clone());
    let mut without = other.clone();
    without.retain(|file| !file.path.ends_with("_digests"));
    for files in [other, without] {
        let error = assert_leaves_nothing(&world, &files).await.to_string();
        for job in [1, 8] {
            assert!(error.contains(&run(job).job), "{error}");
        }
    }
}

/// The machine was moved after the Full: what is gone of its old place does not matter for a newer run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_place_of_the_newest_run_matters() {
    let (world, points) = three().await;
    let elsewhere = DEFAULT_SUBSCRIPTION.replace('5', "6");
    for (number, (here, gone)) in [(GROUP, "rg-gone"), (DEFAULT_SUBSCRIPTION, &elsewhere)]
        .into_iter()
        .enumerate()
    {
        let mut marked = files(&points);
        // With its digests the document would be taken for damaged.
        marked.remove(points[0].file("digests"));
        let full = points[0].file("conf");
        replace(&mut marked[full], here, gone);
        world.take_notices();
        let name = format!("copy-{number}");
        assert_restores(&world, &marked, &points[2], &name).await;
        let told =
            |text: &String| text.contains(gone) && text.contains("files of a newer run follow");
        let warnings = &world.take_notices()[&Severity::Warning];
        assert!(warnings.iter().any(told), "{warnings:?}");
        marked.reverse();
        assert_restores(&world, &marked, &points[2], &format!("{name}-reversed")).await;

        marked.reverse();
        marked.truncate(points[0].files.len() - 1);
        let error = assert_leaves_nothing(&world, &marked).await;
        assert!(error.to_string().contains(gone), "{error}");
    }
}

/// What stands in the way of a document is said when it comes, also if another one would take its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_first_document_asks_for_must_be_possible() {
    let (world, points) = three().await;
    let other = Vm::new("rg-old", "copy", Disk::new("other-os", 20 * MIB));
    let change = Change::CreateVm(Box::new(other));
    world.emulator.change(&change).unwrap();
    let conf = points[0].file("conf");

    // The name is free where the newest run saved the machine, but not where the Full did.
    let mut marked = files(&points);
    marked.remove(points[0].file("digests"));
    replace(&mut marked[conf], GROUP, "rg-old");
    let error = assert_leaves_nothing(&world, &marked).await;
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");
    assert_restores(&world, &marked, &points[2], "another").await;

    // The good document of the copy would count.
    let mut damaged = points[0].files.clone();
    replace(&mut damaged[conf], "/subscriptions/", "/subscribtions/");
    let both = [damaged, points[0].files.clone()].concat();
    let error = assert_leaves_nothing(&world, &both).await;
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert_restores(&world, &points[0].files, &points[0], "copied").await;
}

/// The Full alone, after a disaster: whoever follows the warning, and makes the group while files come, gets the machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_made_meanwhile_is_found() {
    let (world, [full, ..]) = three().await;
    let gone = || Fault::new("ResourceGroups_Get", Action::status(404));
    let begin = |options| Restore::new(world.azure(), options, world.notices.clone());
    world.emulator.fault(gone());
    let mut restore = begin(world.restore_options("copy"));
    support::receive(&mut restore, &full.files).await.unwrap();
    let warnings = world.take_notices().remove(&Severity::Warning).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in [GROUP, "make an empty one", "when all files have come"] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
    world.emulator.clear_faults();
    restore.complete().await.unwrap();
    assert_eq!(digests(&world, "copy"), full.digests);

    // The name was not looked for before.
    world.emulator.fault(gone());
    let mut restore = begin(world.restore_options("copy"));
    support::receive(&mut restore, &full.files).await.unwrap();
    world.emulator.clear_faults();
    let error = restore.complete().await.unwrap_err();
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");

    // It stays away.
    world.emulator.fault(gone());
    let error = assert_leaves_nothing(&world, &full.files).await;
    assert!(error.to_string().contains("make an empty one"), "{error}");

    // Where nothing else can come, there is nothing to wait for.
    let mut options = world.restore_options("alone");
    options.one_run = true;
    let mut restore = begin(options);
    let error = support::receive(&mut restore, &full.files).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("make an empty one"), "{error}");
    restore.abandon().await;
    assert!(!world.staging_dir().exists());
    world.assert_settled();
}

/// Another daemon restores: it has neither the tracker nor, as time went by, any snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_tracker_nor_snapshots_are_needed() {
    let (world, points) = three().await;
    for snapshot in world.state().snapshots {
        let snapshot = snapshot.name;
        world
            .emulator
            .change(&Change::DeleteSnapshot { snapshot })
            .unwrap();
    }
    fs::remove_dir_all(world.state_dir()).unwrap();
    world.emulator.reset_counters();
    assert_restores(&world, &files(&points), &points[2], "copy").await;
    for operation in ["Snapshots_List", "Snapshots_Get", "Snapshots_GrantAccess"] {
        assert_eq!(world.emulator.counters().requests(operation), 0);
    }
}

/// `debug=9`: the local disks as they were put together, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_disks_can_be_kept() {
    let (world, points) = three().await;
    let mut options = world.restore_options("copy");
    options.keep_staging = true;
    let mut restore = Restore::new(world.azure(), options, world.notices.clone());
    support::receive(&mut restore, &files(&points))
        .await
        .unwrap();
    restore.complete().await.unwrap();
    let mut kept: Vec<_> = fs::read_dir(world.staging_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, [points[2].name("0"), points[2].name("osdisk")]);
    for (role, disk) in [("osdisk", "db-os"), ("0", "db-data")] {
        let bytes = fs::read(world.staging_dir().join(points[2].name(role))).unwrap();
        let size = world.emulator.disk_size(disk).unwrap();
        assert!(
            bytes == world.emulator.disk_read(disk, 0, size).unwrap(),
            "{disk}"
        );
    }
    world.assert_settled();
}

/// Local storage fails while the disks are put together: nothing was made in Azure by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_local_file_is_noticed_before_anything_is_created() {
    let (world, points) = three().await;
    let before = inventory(&world);
    let options = world.restore_options("copy");
    let mut restore = Restore::new(world.azure(), options, world.notices.clone());
    support::receive(&mut restore, &files(&points))
        .await
        .unwrap();
    let changes = world
        .staging_dir()
        .join(format!("{}.blocks", points[1].name("osdisk")));
    let file = fs::File::options().write(true).open(&changes).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let error = restore.complete().await.unwrap_err();
    assert!(
        error.to_string().contains(&changes.display().to_string()),
        "{error}"
    );
    assert_eq!(inventory(&world), before);
    assert!(!world.staging_dir().exists());
    world.assert_settled();
}
