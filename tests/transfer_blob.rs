//! `transfer=blob` against the emulator: the same bytes by another way, and nothing left on it.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use azure_vm_fd::azure::connection_string::ConnectionString;
use azure_vm_fd::backup::{Backup, Error, Level, Outcome, Run};
use azure_vm_fd::config::Transfer;
use azure_vm_fd::notice::{Severity, with_causes};
use mock_server::{Action, Config, Emulator, Fault, OperationPolicy, Scenario};
use support::{SavedFile, World, ledger, read_vm, run, scenario, small};

const ACCOUNT: &str = "stage";

async fn world(scenario: Scenario) -> World {
    World::new(scenario.storage_account(ACCOUNT)).await
}

async fn begin(world: &World, run: Run) -> Result<Backup, Error> {
    let account = world.emulator.connection_string(ACCOUNT);
    begin_with(world, run, &account).await
}

async fn begin_with(world: &World, run: Run, account: &str) -> Result<Backup, Error> {
    let mut options = world.options();
    options.transfer = Transfer::Blob(ConnectionString::parse(account).unwrap());
    Backup::begin(world.azure(), run, options, world.notices.clone()).await
}

/// A whole run through the blob.
async fn back_up(world: &World, run: Run) -> Vec<SavedFile> {
    let mut backup = begin(world, run).await.unwrap();
    let mut files = Vec::new();
    while let Some(vm) = backup.next_vm().await.unwrap() {
        files.extend(read_vm(vm).await.unwrap());
    }
    backup.finish(Outcome::Good).await.unwrap();
    files
}

fn assert_no_blob(world: &World) {
    let state = world.state();
    assert!(
        state.blobs(ACCOUNT).is_empty(),
        "{:?}",
        state.blobs(ACCOUNT)
    );
    world.assert_settled();
}

fn incremental(number: u32, previous: u32) -> Run {
    Run {
        level: Level::Incremental,
        previous: Some(run(previous).job),
        ..run(number)
    }
}

/// The images of a VM, which stand between the documents.
fn images(files: &[SavedFile]) -> &[SavedFile] {
    &files[2..files.len() - 1]
}

/// Whether the images are the same, block by block; names carry epochs, which differ.
fn same_images(one: &[SavedFile], other: &[SavedFile]) -> bool {
    one.len() == other.len()
        && images(one)
            .iter()
            .zip(images(other))
            .all(|(one, other)| (one.size, &one.blocks) == (other.size, &other.blocks))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_and_incremental_are_the_same_as_the_direct_ones() {
    let world = world(scenario().vm(ledger())).await;
    let full = back_up(&world, run(1)).await;
    let bytes_of_snapshots = world.emulator.counters().of("Blob_Get").bytes_out;
    // The footer of each image, nothing else.
    assert_eq!(bytes_of_snapshots, 3 * 512);
    let mut other = run(1);
    other.job = "Direct.2026-11-23_09.05.00_01".into();
    assert!(same_images(&full, &world.back_up(other).await));

    world
        .emulator
        .guest_write("ledger-os", 12_345, b"changed")
        .unwrap();
    world
        .emulator
        .guest_discard("ledger-data-a", 0, 8 << 20)
        .unwrap();
    let mut delta = incremental(2, 1);
    let changed = back_up(&world, delta.clone()).await;
    delta.job = "Direct.2026-11-23_09.06.00_02".into();
    delta.previous = Some("Direct.2026-11-23_09.05.00_01".into());
    let direct = world.back_up(delta).await;
    assert!(same_images(&changed, &direct));
    let sent: u64 = images(&changed).iter().map(SavedFile::sent).sum();
    assert!(sent <= 512 * 2 + 512 * 2, "a delta: {sent}");
    let notices = world.take_notices();
    assert_eq!(notices.get(&Severity::Error), None, "{notices:?}");
    let containers = &world.state().storage_accounts[0].containers;
    assert_eq!(containers[0].name, "bacula-azure-vm");
    assert_no_blob(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_takes_its_time_is_waited_for() {
    let mut world = world(Scenario::new()).await;
    world.emulator = Emulator::start(Config {
        scenario: scenario().vm(small("a")).storage_account(ACCOUNT),
        operations: OperationPolicy {
            polls_in_progress: 1,
            ..OperationPolicy::default()
        },
        ..Config::default()
    })
    .await
    .unwrap();
    let files = back_up(&world, run(1)).await;
    let expected = world.emulator.disk_read("a-os", 0, files[2].size).unwrap();
    assert!(files[2].content() == expected);
    let looks = world
        .emulator
        .counters()
        .requests("StorageBlob_GetProperties");
    assert!(looks >= 2, "one finds it pending: {looks}");
    assert_no_blob(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_vms_go_through_it_one_after_the_other() {
    let world = world(scenario().vm(small("a")).vm(ledger()).vm(small("z"))).await;
    let files = back_up(&world, run(1)).await;
    for (file, disk) in files.iter().filter(|file| file.size > 1 << 20).zip([
        "a-os",
        "ledger-os",
        "ledger-data-a",
        "ledger-data-b",
        "z-os",
    ]) {
        let expected = world.emulator.disk_read(disk, 0, file.size).unwrap();
        assert!(file.content() == expected, "{disk}");
    }
    assert_no_blob(&world);
}

/// Nothing is read from the blob while the snapshot is open: as long as it cannot be closed, everything waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_to_the_snapshot_is_given_back_before_the_blob_is_read() {
    let world = world(scenario().vm(small("a"))).await;
    world.emulator.fault(Fault::new(
        "Snapshots_RevokeAccess",
        Action::error(503, "ServiceUnavailable"),
    ));
    let watching = async {
        let requests = |operation| world.emulator.counters().requests(operation);
        while requests("Snapshots_RevokeAccess") < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(requests("StorageBlob_StartCopy"), 1);
        assert_eq!(requests("StorageBlob_Get"), 0);
        assert_eq!(world.state().blobs(ACCOUNT)[0].copy_status, Some("success"));
        world.emulator.clear_faults();
    };
    let (files, ()) = tokio::join!(back_up(&world, run(1)), watching);
    let expected = world.emulator.disk_read("a-os", 0, files[2].size).unwrap();
    assert!(files[2].content() == expected);
    assert_no_blob(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_ends_the_copy_and_deletes_the_blob() {
    let world = world(scenario().vm(ledger())).await;
    world
        .emulator
        .fault(Fault::new("StorageBlob_StartCopy", Action::NeverEnding));
    let mut backup = begin(&world, run(1)).await.unwrap();
    let preparing = async {
        let outcome = backup.next_vm().await;
        assert!(outcome.is_err_and(|error| error.is_cancelled()));
    };
    let watching = async {
        while world
            .emulator
            .counters()
            .requests("StorageBlob_GetProperties")
            < 3
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.state().blobs(ACCOUNT).len(), 3, "all disks at a time");
        world.cancel.cancel();
    };
    tokio::join!(preparing, watching);
    backup.finish(Outcome::Bad).await.unwrap();
    assert_eq!(
        world.emulator.counters().requests("StorageBlob_AbortCopy"),
        3
    );
    assert!(world.state().snapshots.is_empty());
    assert_no_blob(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_copy_is_the_failure_of_its_vm() {
    let world = world(scenario().vm(ledger()).vm(small("z"))).await;
    let failure = Action::FailOperation {
        code: "500 InternalError".into(),
        message: "Copy failed when reading the source.".into(),
    };
    world
        .emulator
        .fault(Fault::new("StorageBlob_StartCopy", failure).nth(2));
    let files = back_up(&world, run(1)).await;
    assert_eq!(files.len(), 4, "name, conf, disk and digests of the other");
    let errors = &world.take_notices()[&Severity::Error];
    assert_eq!(errors.len(), 1, "{errors:?}");
    for part in [
        "virtual machine ledger01",
        "the copy of its snapshot to blob",
        "InternalError",
    ] {
        assert!(errors[0].contains(part), "{part}: {errors:?}");
    }
    assert_eq!(world.state().snapshots.len(), 1, "of the good one");
    assert_no_blob(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_leaves_no_blob() {
    let world = world(scenario().vm(ledger())).await;
    // After the footers of three images.
    world
        .emulator
        .fault(Fault::new("StorageBlob_Get", Action::error(400, "InvalidInput")).from(4));
    let mut backup = begin(&world, run(1)).await.unwrap();
    let vm = backup.next_vm().await.unwrap().unwrap();
    assert!(world.state().grants.is_empty(), "closed before it is read");
    let error = read_vm(vm).await.unwrap_err();
    assert!(matches!(error, Error::Image { .. }), "{error}");
    backup.finish(Outcome::Bad).await.unwrap();
    assert!(world.state().snapshots.is_empty());
    assert_no_blob(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_begins_no_second_copy() {
    let world = world(scenario().vm(small("a"))).await;
    for operation in [
        "Container_Create",
        "StorageBlob_StartCopy",
        "StorageBlob_Delete",
    ] {
        world
            .emulator
            .fault(Fault::new(operation, Action::LostAnswer).nth(1));
    }
    let files = back_up(&world, run(1)).await;
    let expected = world.emulator.disk_read("a-os", 0, files[2].size).unwrap();
    assert!(files[2].content() == expected);
    assert_no_blob(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_refused_before_anything_is_made() {
    let world = world(scenario().vm(small("a"))).await;
    let good = world.emulator.connection_string(ACCOUNT);
    let wrong = good.replace("AccountKey=", "AccountKey=QUJD");
    let error = with_causes(&begin_with(&world, run(1), &wrong).await.unwrap_err());
    assert!(error.contains("check the key in connection_key"), "{error}");
    assert!(error.contains("storage account stage"), "{error}");
    assert!(error.contains("AuthenticationFailed"), "{error}");
    assert!(!error.contains("QUJD"), "{error}");
    let counters = world.emulator.counters();
    assert_eq!(counters.requests("Snapshots_CreateOrUpdate"), 0);
    assert_no_blob(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debris_of_a_dead_run_is_cleared_and_other_blobs_are_not() {
    let world = world(scenario().vm(ledger())).await;
    // A run that dies while its images wait in the account: nobody closes or finishes anything.
    let mut backup = begin(&world, run(1)).await.unwrap();
    let vm = backup.next_vm().await.unwrap().unwrap();
    assert_eq!(world.state().blobs(ACCOUNT).len(), 3);
    // One of another job is alive all the time.
    let mut other = run(1);
    other.job = "Other.2026-11-23_09.05.00_01".into();
    let mut second = begin(&world, other).await.unwrap();
    let other_vm = second.next_vm().await.unwrap().unwrap();
    drop((vm, backup));
    assert_eq!(world.state().blobs(ACCOUNT).len(), 6);

    back_up(&world, run(2)).await;
    assert_eq!(world.state().blobs(ACCOUNT).len(), 3, "the other job's");
    let files = read_vm(other_vm).await.unwrap();
    let size = files[2].size;
    assert!(files[2].content() == world.emulator.disk_read("ledger-os", 0, size).unwrap());
    second.finish(Outcome::Good).await.unwrap();
    assert_no_blob(&world);
}
