//! Bytes that are not those that were saved: found and named before anything is created.

use azure_vm_fd::document::Document;
use azure_vm_fd::notice::{Notices, Severity};
use azure_vm_fd::range::ByteRange;
use azure_vm_fd::restore::{Error, Restore};
use mock_server::{Action, Fault, MIB};

use super::support::{SavedFile, World, ledger, receive, run, scenario, small};
use super::{assert_leaves_nothing, inventory, saved};

/// The file of this role: `conf`, `osdisk`, `digests`.
fn at(files: &[SavedFile], role: &str) -> usize {
    let is_it = |file: &SavedFile| file.path.ends_with(&format!("_{role}"));
    files.iter().position(is_it).unwrap()
}

/// Name of the file without its folder.
fn name(file: &SavedFile) -> &str {
    file.path.rsplit('/').next().unwrap()
}

/// The segment of a disk of `size` bytes that `offset` lies in, all of whose neighbours are whole.
fn segment(offset: u64, size: u64) -> String {
    let start = offset - offset % (16 * MIB);
    let range = ByteRange::new(start, (start + 16 * MIB).min(size)).unwrap();
    range.to_string()
}

/// The restore is refused, nothing is left, and the message has all `parts`.
async fn refused(world: &World, files: &[SavedFile], parts: &[&str]) {
    let error = assert_leaves_nothing(world, files).await;
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        world.emulator.counters().requests("Disks_CreateOrUpdate"),
        0,
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_on_the_volume_is_named_and_nothing_is_created() {
    let (world, files) = saved(scenario().vm(ledger())).await;
    let document: Document =
        serde_json::from_slice(&files[at(&files, "conf")].blocks[0].1).unwrap();
    let places = ["OS disk", "LUN 0", "LUN 5"];
    for (role, place) in ["osdisk", "0", "1"].into_iter().zip(places) {
        let image = at(&files, role);
        let size = files[image].size;
        // The first block, one in the middle, the last one; a lone bit each.
        let count = files[image].blocks.len();
        for block in [0, count / 2, count - 1] {
            let mut changed = files.clone();
            let (offset, bytes) = &mut changed[image].blocks[block];
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            let place_of_byte = segment(*offset + middle as u64, size);
            // The order of the files does not matter.
            if block == 0 {
                changed.reverse();
            }
            let image = name(&files[image]);
            let parts = ["ledger01", image, place, &document.job, &place_of_byte];
            refused(&world, &changed, &parts).await;
        }
    }
    // Untouched, they make the machine, and there is nothing to be warned of.
    world.take_notices();
    world.restore(&files, "copy").await.unwrap();
    let warnings = &world.take_notices()[&Severity::Warning];
    assert!(
        !warnings.iter().any(|text| text.contains("digests")),
        "{warnings:?}"
    );
}

/// The blocks of an image file, with their offsets.
type Blocks = Vec<(u64, Vec<u8>)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_that_moved_or_are_lost_or_new_are_found() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    let image = at(&files, "osdisk");
    let changed = |change: fn(&mut Blocks)| {
        let mut changed = files.clone();
        change(&mut changed[image].blocks);
        changed
    };
    let (lost, moved) = (
        changed(|blocks| {
            blocks.remove(1);
        }),
        changed(|blocks| blocks[1].0 += 512),
    );
    // As much as the document allows, but for the last block.
    let new = changed(|blocks| {
        let (offset, bytes) = blocks.remove(1);
        let last = blocks.len() - 1;
        blocks.insert(last, (offset + 4 * MIB, bytes));
    });
    for files in [lost, moved, new] {
        refused(&world, &files, &["0..16777216", name(&files[image])]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_digests_the_restore_goes_on_with_a_warning() {
    let (world, mut files) = saved(scenario().vm(ledger())).await;
    files.remove(at(&files, "digests"));
    world.restore(&files, "copy").await.unwrap();
    let warnings = &world.take_notices()[&Severity::Warning];
    let about: Vec<_> = warnings
        .iter()
        .filter(|text| text.contains("_digests"))
        .collect();
    assert_eq!(about.len(), 1, "{warnings:?}");
    for role in ["osdisk", "0", "1"] {
        let image = name(&files[at(&files, role)]);
        assert!(about[0].contains(image), "{about:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digests_that_cannot_be_trusted_are_refused() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    let digests = at(&files, "digests");
    let of = name(&files[digests]).to_owned();
    let changed = |change: &dyn Fn(&mut SavedFile)| {
        let mut changed = files.clone();
        change(&mut changed[digests]);
        changed
    };
    let flipped = changed(&|file| file.blocks[0].1[100] ^= 1);
    refused(
        &world,
        &flipped,
        &[&of, "it is damaged", "leave this file out"],
    )
    .await;
    let short = changed(&|file| {
        file.blocks[0].1.pop();
    });
    refused(&world, &short, &[&of, "bytes came"]).await;
    let newer = changed(&|file| {
        let text = String::from_utf8(file.blocks[0].1.clone()).unwrap();
        file.blocks[0].1 = text
            .replacen("\"format\":1", "\"format\":9", 1)
            .into_bytes();
    });
    refused(&world, &newer, &[&of, "format 9"]).await;
    for document in ["digests", "conf"] {
        let mut endless = files.clone();
        endless[at(&files, document)].size = 16 * MIB + 1;
        let error = assert_leaves_nothing(&world, &endless).await;
        assert!(error.to_string().contains("larger than any"), "{error}");
    }

    // A document that still can be read, and says something else.
    let mut other = files.clone();
    let conf = at(&files, "conf");
    let text = String::from_utf8(other[conf].blocks[0].1.clone()).unwrap();
    let changed = text.replacen("westeurope", "westeuropa", 1);
    assert_ne!(changed, text);
    other[conf].blocks[0].1 = changed.into_bytes();
    refused(&world, &other, &[name(&files[conf]), "is not the one"]).await;
}

/// A job and its copy come together, and one of them is damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_copy_takes_the_place_of_a_damaged_image() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    let image = at(&files, "osdisk");
    let mut damaged = files.clone();
    damaged[image].blocks[0].1[0] ^= 1;
    let both: Vec<_> = damaged.iter().chain(&files).cloned().collect();
    world.restore(&both, "copy").await.unwrap();
    let made = &world.state().vm("copy").unwrap().os_disk.name.clone();
    assert_eq!(
        world.emulator.disk_digest(made).unwrap(),
        world.emulator.disk_digest("ledger01-os").unwrap()
    );
}

/// In whatever order they come, the configuration document counts of which the digests tell, also if it is an older one of a chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_copy_takes_the_place_of_a_damaged_document() {
    let (mut world, full) = saved(scenario().vm(small("ledger01"))).await;
    let mut next = run(2);
    next.level = azure_vm_fd::backup::Level::Incremental;
    next.previous = Some(run(1).job);
    let changes = world.back_up(next).await;
    let chain: Vec<_> = full.iter().chain(&changes).cloned().collect();
    for (number, part) in [&full, &changes].into_iter().enumerate() {
        let good = &part[at(part, "conf")];
        let digests = &part[at(part, "digests")];
        let mut damaged = good.clone();
        let text = String::from_utf8(good.blocks[0].1.clone()).unwrap();
        damaged.blocks[0].1 = text.replace("Standard_", "Standart_").into_bytes();
        assert_ne!(damaged.blocks, good.blocks);
        let mut others = chain.clone();
        others.retain(|file| file.path != good.path && file.path != digests.path);
        for (order, documents) in [
            [&damaged, digests, good],
            [&damaged, good, digests],
            [good, &damaged, digests],
            [digests, &damaged, good],
            [digests, good, &damaged],
        ]
        .into_iter()
        .enumerate()
        {
            let files: Vec<_> = documents.into_iter().chain(&others).cloned().collect();
            // Another job.
            world.notices = Notices::default();
            let name = format!("copy-{number}-{order}");
            world.restore(&files, &name).await.unwrap();
            let state = world.state();
            let [old, new] = ["ledger01", &name].map(|name| state.vm(name).unwrap());
            assert_eq!(new.vm_size, old.vm_size, "{name}");
            let warnings = &world.take_notices()[&Severity::Warning];
            let told = |text: &&String| text.contains("came with different contents");
            assert_eq!(
                warnings.iter().filter(told).count(),
                1,
                "{name}: {warnings:?}"
            );
        }
        // Neither of two is the one.
        let mut worse = damaged.clone();
        let text = String::from_utf8(damaged.blocks[0].1.clone()).unwrap();
        worse.blocks[0].1 = text.replace("Standart_", "Standarr_").into_bytes();
        let files: Vec<_> = [&damaged, &worse, digests]
            .into_iter()
            .chain(&others)
            .cloned()
            .collect();
        world.emulator.reset_counters();
        refused(&world, &files, &[name(good), "is not the one"]).await;
    }
}

/// Of a chain, each image has the digests of its own run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_in_every_link_of_a_chain() {
    let (world, full) = saved(scenario().vm(small("ledger01"))).await;
    world
        .emulator
        .guest_write("ledger01-os", 9 << 20, &[0x5a; 8192])
        .unwrap();
    world
        .emulator
        .guest_write("ledger01-os", 3 << 20, &[0; 4096])
        .unwrap();
    let mut next = run(2);
    next.level = azure_vm_fd::backup::Level::Incremental;
    next.previous = Some(run(1).job);
    let changes = world.back_up(next).await;
    let digest = world.emulator.disk_digest("ledger01-os").unwrap();
    let chain: Vec<_> = full.iter().chain(&changes).cloned().collect();
    for part in [&full, &changes] {
        let path = &part[at(part, "osdisk")].path;
        let image = chain.iter().position(|file| file.path == *path).unwrap();
        let mut damaged = chain.clone();
        damaged[image].blocks[0].1[17] ^= 0x80;
        refused(&world, &damaged, &[name(&chain[image]), "0..16777216"]).await;
    }
    world.restore(&chain, "copy").await.unwrap();
    let made = &world.state().vm("copy").unwrap().os_disk.name.clone();
    assert_eq!(world.emulator.disk_digest(made).unwrap(), digest);
}

/// The machine is restored as `copy`, with each disk read back.
async fn verified(world: &World, files: &[SavedFile]) -> Result<(), Error> {
    let mut options = world.restore_options("copy");
    options.verify = true;
    let mut restore = Restore::new(world.azure(), options, world.notices.clone());
    receive(&mut restore, files).await?;
    restore.complete().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_that_are_read_back_are_those_that_were_saved() {
    let (world, files) = saved(scenario().vm(ledger())).await;
    verified(&world, &files).await.unwrap();
    let infos = &world.take_notices()[&Severity::Info];
    let read = infos.iter().filter(|text| text.contains("read back"));
    assert_eq!(read.count(), 3, "{infos:?}");
    world.assert_settled();
}

/// What the service says to be allocated is not what was uploaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_a_disk_has_lost_is_named_and_all_is_removed() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    let before = inventory(&world);
    let nothing = Action::Status {
        status: 200,
        code: None,
        body: Some("<PageList/>".into()),
        retry_after: None,
    };
    world
        .emulator
        .fault(Fault::new("Blob_GetPageRanges", nothing));
    let error = verified(&world, &files).await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    for part in ["copy-os-", "OS disk", "0..16777216"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(inventory(&world), before);
    world.assert_settled();
}

/// Somebody writes to the disk between its upload and its reading; what is read is the disk as it was when it was opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_that_changed_in_azure_is_named_and_all_is_removed() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    let before = inventory(&world);
    world.emulator.fault(Fault::new(
        "Disks_RevokeAccess",
        Action::Delay { milliseconds: 1000 },
    ));
    world.emulator.reset_counters();
    let (result, ()) = tokio::join!(verified(&world, &files), async {
        while world.emulator.counters().requests("Disks_RevokeAccess") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let state = world.state();
        let mut disks = state.disks.iter().map(|disk| &disk.name);
        let made = disks.find(|name| name.starts_with("copy-os-")).unwrap();
        let bytes = world.emulator.disk_read(made, 2 * MIB, 1).unwrap();
        world
            .emulator
            .guest_write(made, 2 * MIB, &[!bytes[0]])
            .unwrap();
    });
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    assert!(error.to_string().contains("0..16777216"), "{error}");
    assert_eq!(inventory(&world), before);
    world.assert_settled();
}
