//! Backup against the emulator: what is saved, what is left, what a failure leaves.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use azure_vm_fd::backup::{self, Backup, Content, Error, Level, Outcome, Run};
use azure_vm_fd::config::{NamePattern, Selection};
use azure_vm_fd::document::Document;
use azure_vm_fd::notice::Severity;
use mock_server::{Action, Fault, Snapshot, SnapshotView};
use support::{World, bases, ledger, read_vm, run, scenario, small};

/// The file names of a run with the epoch taken out.
fn names(files: &[support::SavedFile]) -> Vec<String> {
    files
        .iter()
        .map(|file| {
            let name = file.path.rsplit('/').next().unwrap();
            match name.split_once('_') {
                Some((epoch, role)) if epoch.bytes().all(|b| b.is_ascii_digit()) => role.to_owned(),
                _ => name[36..].to_owned(),
            }
        })
        .collect()
}

/// How many runs are marked as running, dead or alive.
fn marks(world: &World) -> usize {
    let files = fs::read_dir(world.state_dir()).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "run"))
        .count()
}

/// An Incremental that builds on another run.
fn incremental(number: u32, previous: u32) -> Run {
    Run {
        level: Level::Incremental,
        previous: Some(run(previous).job),
        ..run(number)
    }
}

/// The answer of Azure where a lock forbids to delete.
fn lock_snapshots(world: &World) {
    let refused = Action::error(409, "ScopeLocked");
    let locked = Fault::new("Snapshots_Delete", refused);
    world.emulator.fault(locked);
}

/// As if a disk had lost it.
fn damage_tracker(world: &World) {
    fs::write(world.state_dir().join("tracker.json"), "{ half").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_run_saves_every_byte_and_leaves_its_snapshots_only() {
    let world = World::new(scenario().vm(ledger())).await;
    let files = world.back_up(run(1)).await;

    assert_eq!(
        names(&files),
        ["_ledger01.name", "conf", "osdisk", "0", "1", "digests"]
    );
    for (file, disk) in files[2..5]
        .iter()
        .zip(["ledger-os", "ledger-data-a", "ledger-data-b"])
    {
        let size = world.emulator.disk_size(disk).unwrap();
        assert_eq!(file.size, size);
        assert!(
            file.content() == world.emulator.disk_read(disk, 0, size).unwrap(),
            "{disk}"
        );
        let (offset, last) = file.blocks.last().unwrap();
        assert_eq!(
            offset + last.len() as u64,
            size,
            "the last block ends the disk"
        );
    }
    // 5 MiB, one sector's block, the last block; the zeros that were written are not sent.
    assert!(
        files[2].sent() < (5 << 20) + 3 * 65536,
        "{}",
        files[2].sent()
    );

    let document: Document = serde_json::from_slice(&files[1].blocks[0].1).unwrap();
    assert_eq!(document.vm_name, "ledger01");
    assert_eq!(files[1].size, files[1].blocks[0].1.len() as u64);
    let luns: Vec<_> = document
        .images
        .iter()
        .map(|image| image.slot.to_string())
        .collect();
    assert_eq!(luns, ["OS disk", "LUN 0", "LUN 5"]);
    let text = String::from_utf8(files[1].blocks[0].1.clone()).unwrap();
    assert!(!text.contains("sig="), "no SAS in the document");

    let state = world.state();
    assert_eq!(state.snapshots.len(), 3);
    for image in &document.images {
        let snapshot = state
            .snapshots
            .iter()
            .find(|s| s.name == image.snapshot)
            .unwrap();
        assert_eq!(snapshot.tags["bacula-azure-vm:job"], run(1).job);
        assert_eq!(snapshot.tags["bacula-azure-vm:disk"], image.disk_unique_id);
        assert_eq!(snapshot.resource_group, support::GROUP);
    }
    world.assert_settled();
    let notices = world.take_notices();
    assert_eq!(notices.get(&Severity::Error), None, "{notices:?}");
    assert_eq!(
        notices[&Severity::Info].len(),
        4,
        "what is saved, and a line per disk: {notices:?}"
    );
    assert!(notices[&Severity::Info][2].contains("ledger-data-a (LUN 0)"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fulls_the_newest_two_runs_keep_their_snapshots() {
    let world = World::new(scenario().vm(ledger())).await;
    let mut epochs = Vec::new();
    for number in 1..=4 {
        let files = world.back_up(run(number)).await;
        epochs.push(files[1].path.rsplit('/').next().unwrap().to_owned());
    }
    let mut jobs: Vec<_> = world
        .state()
        .snapshots
        .iter()
        .map(|snapshot| snapshot.tags["bacula-azure-vm:job"].clone())
        .collect();
    jobs.sort();
    jobs.dedup();
    assert_eq!(jobs, [run(3).job, run(4).job]);
    assert_eq!(world.state().snapshots.len(), 6);
    // Four runs within a second or two: the epochs still differ and grow.
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_a_chain_leaves_nothing() {
    let world = World::new(scenario().vm(ledger())).await;
    let mut run = run(1);
    run.keep_snapshots = false;
    world.back_up(run).await;
    assert!(world.state().snapshots.is_empty());
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_run_leaves_nothing_and_is_no_base() {
    let world = World::new(scenario().vm(ledger())).await;
    let mut backup = world.begin(run(1)).await.unwrap();
    let mut vm = backup.next_vm().await.unwrap().unwrap();
    // Half way into the OS disk.
    while let Some(entry) = vm.next_entry() {
        if let Content::Image(mut image) = entry.content {
            image.read_block(&mut [0; 4096]).await.unwrap();
            break;
        }
    }
    vm.close().await;
    backup.finish(Outcome::Bad).await.unwrap();
    assert!(world.state().snapshots.is_empty());
    world.assert_settled();
    let tracker = fs::read_to_string(world.state_dir().join("tracker.json")).unwrap();
    assert!(!tracker.contains(&run(1).job), "{tracker}");
}

/// As if another Plugin line of its job had failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_recorded_and_ends_as_a_bad_one_leaves_nothing() {
    for is_locked in [false, true] {
        let world = World::new(scenario().vm(small("a"))).await;
        world.back_up(run(1)).await;
        let kept = world.state().snapshots[0].name.clone();
        let mut backup = world.begin(incremental(2, 1)).await.unwrap();
        while let Some(vm) = backup.next_vm().await.unwrap() {
            read_vm(vm).await.unwrap();
        }
        backup.record().await.unwrap();
        if is_locked {
            lock_snapshots(&world);
        }
        backup.finish(Outcome::Bad).await.unwrap();
        let tracker = fs::read_to_string(world.state_dir().join("tracker.json")).unwrap();
        assert!(!tracker.contains(&run(2).job), "{tracker}");
        assert_eq!(marks(&world), 0);
        world.emulator.clear_faults();
        let files = world.back_up(incremental(3, 1)).await;
        let on_first = BTreeMap::from([("a-os".to_owned(), Some(run(1).job))]);
        assert_eq!(bases(&files), on_first);
        let state = world.state();
        let names: Vec<_> = state.snapshots.iter().map(|s| s.name.as_str()).collect();
        assert!(names.len() == 2 && names.contains(&&*kept), "{names:?}");
        world.assert_settled();
    }
}

/// Who may not make a snapshot may not look for it either: that says nothing against the other machines of the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_nobody_may_make_fails_its_machine_only() {
    let world = World::new(scenario().vm(small("a")).vm(small("b"))).await;
    let refused = || Action::error(403, "AuthorizationFailed");
    let making = Fault::new("Snapshots_CreateOrUpdate", refused()).nth(1);
    world.emulator.fault(making);
    world
        .emulator
        .fault(Fault::new("Snapshots_Delete", refused()));
    let files = world.back_up(run(1)).await;
    assert_eq!(names(&files), ["_b.name", "conf", "osdisk", "digests"]);
    assert_eq!(world.emulator.counters().requests("Snapshots_Delete"), 0);
    let errors = world.take_notices().remove(&Severity::Error).unwrap();
    assert!(
        errors.len() == 1 && errors[0].contains("not saved"),
        "{errors:?}"
    );
    assert_eq!(marks(&world), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_vms_follow_each_other() {
    let world = World::new(scenario().vm(small("b")).vm(ledger()).vm(small("a"))).await;
    let files = world.back_up(run(1)).await;
    let labels: Vec<_> = names(&files)
        .into_iter()
        .filter(|name| name.starts_with('_'))
        .collect();
    assert_eq!(labels, ["_a.name", "_b.name", "_ledger01.name"]);
    for (at, disk) in [(2, "a-os"), (6, "b-os"), (10, "ledger-os")] {
        let size = world.emulator.disk_size(disk).unwrap();
        assert!(
            files[at].content() == world.emulator.disk_read(disk, 0, size).unwrap(),
            "{disk}"
        );
    }
    assert_eq!(world.state().snapshots.len(), 5);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_cannot_be_saved_does_not_stop_the_others() {
    let world = World::new(scenario().vm(small("a")).vm(ledger())).await;
    world.emulator.fault(
        Fault::new(
            "Snapshots_GrantAccess",
            Action::error(403, "AuthorizationFailed"),
        )
        .nth(2),
    );
    let files = world.back_up(run(1)).await;
    assert_eq!(names(&files), ["_a.name", "conf", "osdisk", "digests"]);
    let errors = &world.take_notices()[&Severity::Error];
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].contains("ledger01") && errors[0].contains(support::GROUP),
        "{errors:?}"
    );
    // Of the failed VM nothing is left.
    assert_eq!(world.state().snapshots.len(), 1);
    world.assert_settled();
}

/// Only what is selected has to be listed with all that a backup needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_listed_without_its_uuid_is_an_error_of_that_vm() {
    let world = World::new(scenario().vm(small("a").vm_id("?")).vm(small("b"))).await;
    let begin = |change: fn(&mut backup::Options)| {
        let mut options = world.options();
        change(&mut options);
        Backup::begin(world.azure(), run(1), options, world.notices.clone())
    };
    let mut backup = begin(|options| options.selection.vm = Some("b".into()))
        .await
        .unwrap();
    assert!(backup.next_vm().await.unwrap().is_some());
    backup.finish(Outcome::Bad).await.unwrap();
    let notices = world.take_notices();
    assert!(!notices.contains_key(&Severity::Error), "{notices:?}");

    let mut backup = begin(|options| options.abort_on_error = true)
        .await
        .unwrap();
    assert!(matches!(
        backup.next_vm().await,
        Err(Error::Unsavable { .. })
    ));
    backup.finish(Outcome::Bad).await.unwrap();

    let files = world.back_up(run(2)).await;
    assert_eq!(names(&files), ["_b.name", "conf", "osdisk", "digests"]);
    let errors = &world.take_notices()[&Severity::Error];
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].contains("virtual machine a ") && errors[0].contains("properties.vmId"),
        "{errors:?}"
    );
    let plan = Backup::plan(
        &world.azure(),
        &run(3),
        &Selection::default(),
        None,
        &world.notices,
    )
    .await
    .unwrap();
    assert!(plan[0].refusal.is_some() && plan[1].refusal.is_none());
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abort_on_error_stops_at_the_first_failure() {
    let world = World::new(scenario().vm(small("a")).vm(small("b"))).await;
    world.emulator.fault(
        Fault::new(
            "Snapshots_CreateOrUpdate",
            Action::error(409, "OperationNotAllowed"),
        )
        .first(1),
    );
    let mut options = world.options();
    options.abort_on_error = true;
    let mut backup = Backup::begin(world.azure(), run(1), options, world.notices.clone())
        .await
        .unwrap();
    assert!(matches!(backup.next_vm().await, Err(Error::Azure { .. })));
    backup.finish(Outcome::Bad).await.unwrap();
    assert!(world.state().snapshots.is_empty());
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_saves_nothing_is_an_error() {
    let world = World::new(scenario().vm(small("a"))).await;
    world.emulator.fault(Fault::new(
        "Snapshots_CreateOrUpdate",
        Action::error(403, "AuthorizationFailed"),
    ));
    let mut backup = world.begin(run(1)).await.unwrap();
    assert!(backup.next_vm().await.unwrap().is_none());
    let error = backup.finish(Outcome::Good).await.unwrap_err();
    assert!(
        matches!(error, Error::NothingSaved { selected: 1 }),
        "{error}"
    );
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_an_error_before_anything_is_made() {
    let world = World::new(scenario().vm(small("a"))).await;
    let mut options = world.options();
    options.selection.vm = Some("missing".into());
    let error = Backup::begin(world.azure(), run(1), options, world.notices.clone())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");

    let mut options = world.options();
    options.selection.include = Some(NamePattern::new("A").unwrap());
    let error = Backup::begin(world.azure(), run(1), options, world.notices.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Selection(_)), "{error}");
    assert_eq!(
        world
            .emulator
            .counters()
            .requests("Snapshots_CreateOrUpdate"),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_for_good_fails_the_image() {
    let world = World::new(scenario().vm(ledger())).await;
    world
        .emulator
        .fault(Fault::new("Blob_Get", Action::error(400, "InvalidInput")).from(12));
    let mut backup = world.begin(run(1)).await.unwrap();
    let vm = backup.next_vm().await.unwrap().unwrap();
    let error = read_vm(vm).await.unwrap_err();
    assert!(matches!(error, Error::Image { .. }), "{error}");
    assert!(!error.is_cancelled());
    backup.finish(Outcome::Bad).await.unwrap();
    assert!(world.state().snapshots.is_empty());
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_gives_everything_back() {
    let world = World::new(scenario().vm(ledger()).vm(small("z"))).await;
    let mut backup = world.begin(run(1)).await.unwrap();
    let mut vm = backup.next_vm().await.unwrap().unwrap();
    let error = loop {
        let entry = vm.next_entry().unwrap();
        if let Content::Image(mut image) = entry.content {
            image.read_block(&mut [0; 4096]).await.unwrap();
            world.cancel.cancel();
            // What is here already may still be delivered.
            let mut buffer = vec![0; 65536];
            break loop {
                match image.read_block(&mut buffer).await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the image came to its end"),
                    Err(error) => break error,
                }
            };
        }
    };
    assert!(error.is_cancelled(), "{error}");
    vm.close().await;
    backup.finish(Outcome::Bad).await.unwrap();
    assert!(world.state().snapshots.is_empty());
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debris_of_a_dead_run_is_cleared_and_foreign_snapshots_are_not() {
    let world = World::new(scenario().vm(ledger()).snapshot(Snapshot {
        name: "by-hand".into(),
        disk: "ledger-os".into(),
        ..Snapshot::default()
    }))
    .await;
    world.back_up(run(1)).await;

    // A run that dies between its snapshots and its end: nobody closes or finishes anything.
    let mut backup = world.begin(run(2)).await.unwrap();
    let vm = backup.next_vm().await.unwrap().unwrap();
    drop((vm, backup));
    assert_eq!(world.state().snapshots.len(), 1 + 3 + 3);

    let of = |number| {
        let state = world.state();
        let of_run = state
            .snapshots
            .iter()
            .filter(|s| s.tags.get("bacula-azure-vm:job") == Some(&run(number).job));
        of_run.count()
    };
    // As long as they cannot be looked for, the mark of the dead run goes on telling of them.
    let refusal = Action::error(403, "AuthorizationFailed");
    world
        .emulator
        .fault(Fault::new("Snapshots_List", refusal).nth(1));
    world.back_up(run(3)).await;
    assert_eq!((of(1), of(2), of(3)), (3, 3, 3));
    assert_eq!(marks(&world), 1);

    world.back_up(run(4)).await;
    assert_eq!((of(1), of(2), of(3), of(4)), (0, 0, 3, 3));
    assert_eq!(marks(&world), 0);
    let state = world.state();
    let by_hand = |snapshot: &SnapshotView| snapshot.name == "by-hand";
    assert!(state.snapshots.iter().any(by_hand));
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tracker_is_rebuilt_from_tags() {
    let world = World::new(scenario().vm(ledger())).await;
    world.back_up(run(1)).await;
    fs::remove_dir_all(world.state_dir()).unwrap();
    world.back_up(run(2)).await;
    assert_eq!(world.state().snapshots.len(), 6, "not deleted on a guess");
    world.back_up(run(3)).await;
    assert_eq!(
        world.state().snapshots.len(),
        6,
        "the oldest run is pruned as if never lost"
    );
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_job_has_a_chain_of_its_own() {
    let world = World::new(scenario().vm(small("a"))).await;
    let mut other = run(1);
    other.job = "Other.2026-11-23_09.05.00_01".into();
    world.back_up(other).await;
    for number in 1..=3 {
        world.back_up(run(number)).await;
    }
    assert_eq!(world.state().snapshots.len(), 1 + 2);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_without_a_base_saves_everything_and_says_so() {
    let world = World::new(scenario().vm(ledger())).await;
    world.back_up(run(1)).await;
    world.take_notices();
    let mut incremental = run(2);
    incremental.level = Level::Incremental;
    incremental.previous = Some(run(9).job);
    let files = world.back_up(incremental).await;
    let size = files[2].size;
    assert!(files[2].content() == world.emulator.disk_read("ledger-os", 0, size).unwrap());
    let errors = &world.take_notices()[&Severity::Error];
    assert_eq!(errors.len(), 3, "one per disk: {errors:?}");
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_reads_only() {
    let world = World::new(scenario().vm(ledger()).vm(small("a"))).await;
    let plans = Backup::plan(
        &world.azure(),
        &run(1),
        &Selection::default(),
        None,
        &world.notices,
    )
    .await
    .unwrap();
    let names: Vec<_> = plans.iter().map(|plan| plan.name.as_str()).collect();
    assert_eq!(names, ["a", "ledger01"]);
    assert_eq!(plans[1].entries.len(), 6);
    assert_eq!(plans[1].entries[2].size, 64 << 20);
    assert_eq!(plans[1].disks[2].slot.to_string(), "LUN 5");
    assert!(!world.state_dir().exists());
    let counters = world.emulator.counters();
    for operation in [
        "Snapshots_CreateOrUpdate",
        "Snapshots_GrantAccess",
        "Disks_GrantAccess",
    ] {
        assert_eq!(counters.requests(operation), 0);
    }

    // The sizes are those of the files of a run; of the document all but what its snapshots add, of the digests as many as there
    // can be.
    let files = world.back_up(run(1)).await;
    let planned = plans.iter().flat_map(|plan| &plan.entries);
    for (planned, file) in planned.zip(&files) {
        let near = if planned.path.ends_with("_digests") {
            file.size..=file.size + 1024
        } else {
            file.size.saturating_sub(63)..=file.size + 63
        };
        assert!(near.contains(&planned.size), "{planned:?}: {}", file.size);
    }
    world.assert_settled();
}

/// What a failed run could not delete is debris for the next one, and never a base.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_that_a_failed_preparation_leaves_are_cleared_by_the_next_run() {
    let world = World::new(scenario().vm(small("a"))).await;
    let fault = |operation, status, code| {
        let refused = Action::error(status, code);
        world.emulator.fault(Fault::new(operation, refused));
    };
    fault("Snapshots_GrantAccess", 403, "AuthorizationFailed");
    fault("Snapshots_Delete", 409, "ScopeLocked");
    let mut backup = world.begin(run(1)).await.unwrap();
    assert!(backup.next_vm().await.unwrap().is_none());
    backup.finish(Outcome::Bad).await.unwrap();
    let left = world.state().snapshots[0].name.clone();
    world.emulator.clear_faults();
    world.back_up(run(2)).await;
    let names: Vec<_> = world
        .state()
        .snapshots
        .iter()
        .map(|known| known.name.clone())
        .collect();
    assert!(names.len() == 1 && !names.contains(&left), "{names:?}");
    world.assert_settled();
}

/// That there is no token for its deletion does not say that a snapshot is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_404_of_the_token_service_hides_no_snapshot() {
    let world = World::new(scenario().vm(small("a"))).await;
    let mut backup = world.begin(run(1)).await.unwrap();
    let not_found = Action::error(404, "ResourceNotFound");
    for (operation, action) in [
        (
            "Snapshots_GrantAccess",
            Action::error(403, "AuthorizationFailed"),
        ),
        ("Snapshots_Delete", Action::ExpireToken),
        ("Token", not_found),
    ] {
        world.emulator.fault(Fault::new(operation, action));
    }
    assert!(backup.next_vm().await.unwrap().is_none());
    backup.finish(Outcome::Bad).await.unwrap();
    let left = &world.state().snapshots[0].name;
    let errors = world.take_notices().remove(&Severity::Error).unwrap();
    let named = |error: &String| error.contains(&format!("delete snapshot {left}"));
    assert!(errors.iter().any(named), "{errors:?}");
    assert_eq!(marks(&world), 1);
}

/// A good run of the VMs a and b, of which it saves only b, and can neither delete nor forget the snapshot of a: the name of that.
async fn saves_b_only(world: &World) -> String {
    let refused = Action::error(403, "AuthorizationFailed");
    let opening = Fault::new("Snapshots_GrantAccess", refused).nth(1);
    world.emulator.fault(opening);
    lock_snapshots(world);
    let files = world.back_up(run(1)).await;
    assert_eq!(names(&files), ["_b.name", "conf", "osdisk", "digests"]);
    let state = world.state();
    let of_a = state.snapshots.iter().find(|s| s.source.ends_with("a-os"));
    of_a.unwrap().name.clone()
}

/// That its image is on no volume must not be known to the lost tracker alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_good_run_did_not_save_is_no_base_whatever_is_lost() {
    for (loss, is_locked) in [
        ("nothing", false),
        ("folder", false),
        ("folder", true),
        ("daemon", false),
        ("daemon", true),
    ] {
        let world = World::new(scenario().vm(small("a")).vm(small("b"))).await;
        let left = saves_b_only(&world).await;
        assert_eq!(marks(&world), 0);
        if !is_locked {
            world.emulator.clear_faults();
        }
        let mut next = incremental(2, 1);
        match loss {
            "folder" => fs::remove_dir_all(world.state_dir()).unwrap(),
            "daemon" => {
                fs::remove_dir_all(world.state_dir()).unwrap();
                next.client = "new-fd".into();
            }
            _ => {}
        }
        let (azure, options) = (world.azure(), world.options());
        let (all, state) = (&options.selection, Some(&options.state));
        let plan = Backup::plan(&azure, &next, all, state, &world.notices)
            .await
            .unwrap();
        let reason = &plan[0].disks[0].reason;
        assert!(reason.contains("no snapshot of this disk"), "{reason}");

        let full = ("a-os".to_owned(), None);
        let expected = |of_b| BTreeMap::from([full.clone(), ("b-os".to_owned(), Some(of_b))]);
        let files = world.back_up(next.clone()).await;
        assert_eq!(bases(&files), expected(run(1).job), "{loss} {is_locked}");
        let is_left = || world.state().snapshots.iter().any(|s| s.name == left);
        assert_eq!(is_left(), is_locked, "{loss}");

        world.emulator.clear_faults();
        let third = Run {
            client: next.client,
            ..incremental(3, 2)
        };
        let files = world.back_up(third).await;
        let mut expected = expected(run(2).job);
        expected.insert("a-os".into(), Some(run(2).job));
        assert_eq!(bases(&files), expected, "{loss} {is_locked}");
        // What a former daemon keeps stays with it.
        assert_eq!(is_left(), loss == "daemon" && is_locked);
        world.assert_settled();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_cannot_tell_what_it_did_not_save_is_no_good_run() {
    let world = World::new(scenario().vm(small("a")).vm(small("b"))).await;
    let refuse = |operation, nth| {
        let refused = Action::error(403, "AuthorizationFailed");
        world
            .emulator
            .fault(Fault::new(operation, refused).nth(nth));
    };
    refuse("Snapshots_GrantAccess", 1);
    refuse("Snapshots_Update", 1);
    let locked = Action::error(409, "ScopeLocked");
    // Of the snapshot of a; that of b can be deleted.
    let locked = Fault::new("Snapshots_Delete", locked).first(2);
    world.emulator.fault(locked);
    let mut backup = world.begin(run(1)).await.unwrap();
    while let Some(vm) = backup.next_vm().await.unwrap() {
        read_vm(vm).await.unwrap();
    }
    let error = backup.finish(Outcome::Good).await.unwrap_err().to_string();
    let left = world.state().snapshots;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].source.ends_with("a-os"));
    assert!(
        error.contains("as not saved") && error.contains(&left[0].name),
        "{error}"
    );
    let errors = &world.take_notices()[&Severity::Error];
    assert!(
        errors.len() == 3 && errors.iter().any(|text| text.contains("as not saved")),
        "{errors:?}"
    );
    let tracker = fs::read_to_string(world.state_dir().join("tracker.json")).unwrap();
    assert!(!tracker.contains(&run(1).job), "{tracker}");
    // The mark tells of it, as after any bad run.
    assert_eq!(marks(&world), 1);
    world.back_up(run(2)).await;
    let names = world.state().snapshots.into_iter().map(|s| s.name);
    assert!(!names.collect::<Vec<_>>().contains(&left[0].name));
    assert_eq!(marks(&world), 0);
    world.assert_settled();
}

/// What bears the name of a good run and is not of it: its first attempt had a, the second had not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_attempt_left_is_no_base_of_the_next_one() {
    let world = World::new(scenario().vm(small("a")).vm(small("b"))).await;
    lock_snapshots(&world);
    let mut first = world.begin(run(1)).await.unwrap();
    first.next_vm().await.unwrap().unwrap().close().await;
    first.finish(Outcome::Bad).await.unwrap();
    assert_eq!((world.state().snapshots.len(), marks(&world)), (1, 1));

    let again = || {
        let mut options = world.options();
        options.selection.vm = Some("b".into());
        Backup::begin(world.azure(), run(1), options, world.notices.clone())
    };
    let refused = Action::error(403, "AuthorizationFailed");
    let listing = Fault::new("Snapshots_List", refused).nth(1);
    world.emulator.fault(listing);
    let error = again().await.unwrap_err().to_string();
    assert!(error.contains("earlier attempt"), "{error}");
    assert_eq!(marks(&world), 1);

    let mut second = again().await.unwrap();
    let vm = second.next_vm().await.unwrap().unwrap();
    read_vm(vm).await.unwrap();
    second.finish(Outcome::Good).await.unwrap();
    assert_eq!((world.state().snapshots.len(), marks(&world)), (2, 0));

    world.emulator.clear_faults();
    fs::remove_dir_all(world.state_dir()).unwrap();
    let bases = bases(&world.back_up(incremental(2, 1)).await);
    assert_eq!((&bases["a-os"], &bases["b-os"]), (&None, &Some(run(1).job)));
    world.assert_settled();
}

/// Whatever a good run could not look for or delete, its mark says nothing against its own snapshots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_tracker_costs_no_base() {
    let world = World::new(scenario().vm(small("a"))).await;
    world.back_up(run(1)).await;
    let refused = Action::error(403, "AuthorizationFailed");
    let listing = Fault::new("Snapshots_List", refused).nth(1);
    world.emulator.fault(listing);
    world.back_up(incremental(2, 1)).await;
    let next = async |number| {
        damage_tracker(&world);
        let files = world.back_up(incremental(number, number - 1)).await;
        assert_eq!(bases(&files)["a-os"], Some(run(number - 1).job));
    };
    next(3).await;

    // A run that dies, and whose snapshot cannot be deleted.
    let mut dead = world.begin(run(40)).await.unwrap();
    let vm = dead.next_vm().await.unwrap().unwrap();
    drop((vm, dead));
    lock_snapshots(&world);
    next(4).await;
    next(5).await;
    assert_eq!(marks(&world), 1);
    world.emulator.clear_faults();
    next(6).await;
    assert_eq!(marks(&world), 0);
    world.assert_settled();
}
