//! Restore against the emulator: the same bytes and the same machine, and nothing left of a failure.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod chains;
mod integrity;
mod killed;
#[path = "../support/mod.rs"]
mod support;

use azure_vm_fd::notice::Severity;
use azure_vm_fd::restore::{Disposition, Error, Restore};
use mock_server::{Action, Fault, Scenario};
use support::{SavedFile, World, ledger, run, scenario, small};

/// A world in which `ledger01` was saved, and its files.
async fn saved(scenario: Scenario) -> (World, Vec<SavedFile>) {
    let world = World::new(scenario).await;
    let files = world.back_up(run(1)).await;
    world.take_notices();
    (world, files)
}

/// What exists, for comparison.
pub(crate) fn inventory(world: &World) -> (Vec<String>, Vec<String>, Vec<String>) {
    let state = world.state();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    (
        sorted(
            state
                .virtual_machines
                .iter()
                .map(|vm| vm.name.clone())
                .collect(),
        ),
        sorted(state.disks.iter().map(|disk| disk.name.clone()).collect()),
        sorted(
            state
                .network_interfaces
                .iter()
                .map(|nic| nic.name.clone())
                .collect(),
        ),
    )
}

/// The restore fails, and leaves neither resources nor access nor local files.
pub(crate) async fn assert_leaves_nothing(world: &World, files: &[SavedFile]) -> Error {
    let before = inventory(world);
    let error = world.restore(files, "copy").await.unwrap_err();
    assert_eq!(inventory(world), before, "{error}");
    assert!(!world.staging_dir().exists());
    world.assert_settled();
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_machine_has_the_same_bytes_and_settings() {
    let (world, files) = saved(scenario().vm(ledger())).await;
    // The guest goes on writing; the image is of the time of the snapshot.
    let digests: Vec<_> = ["ledger-os", "ledger-data-a", "ledger-data-b"]
        .map(|disk| world.emulator.disk_digest(disk).unwrap())
        .into();
    world
        .emulator
        .guest_write("ledger-os", 4096, b"after the snapshot")
        .unwrap();

    let restored = world.restore(&files, "copy").await.unwrap();
    assert_eq!(restored.name, "copy");

    let state = world.state();
    let old = state.vm("ledger01").unwrap();
    let new = state.vm("copy").unwrap();
    assert_eq!(new.id, restored.id);
    let made = [
        &new.os_disk.name,
        &new.data_disks[&0].name,
        &new.data_disks[&5].name,
    ];
    for (disk, digest) in made.iter().zip(&digests) {
        assert_eq!(&world.emulator.disk_digest(disk).unwrap(), digest, "{disk}");
    }
    assert_eq!(
        (
            &new.location,
            &new.zones,
            &new.tags,
            &new.vm_size,
            &new.resource_group
        ),
        (
            &old.location,
            &old.zones,
            &old.tags,
            &old.vm_size,
            &old.resource_group
        )
    );
    assert_eq!(new.os_disk.caching, old.os_disk.caching);
    for lun in [0, 5] {
        assert_eq!(new.data_disks[&lun].caching, old.data_disks[&lun].caching);
    }
    for (new, old) in made
        .iter()
        .zip(["ledger-os", "ledger-data-a", "ledger-data-b"])
    {
        let (new, old) = (state.disk(new).unwrap(), state.disk(old).unwrap());
        assert_eq!(
            (&new.sku, &new.zones, new.size_bytes),
            (&old.sku, &old.zones, old.size_bytes)
        );
        assert_eq!(
            new.resource["properties"]["osType"],
            old.resource["properties"]["osType"]
        );
        assert_ne!(new.unique_id, old.unique_id);
    }
    // The old machine still has its address, so the new one gets another, and says so.
    assert_eq!(new.network_interfaces.len(), 1);
    let notices = world.take_notices();
    assert!(
        notices[&Severity::Warning]
            .iter()
            .any(|text| text.contains("10.0.0.10")),
        "{notices:?}"
    );
    assert_eq!(notices.get(&Severity::Error), None);
    assert!(!world.staging_dir().exists());
    assert_eq!(
        state.snapshots.len(),
        3,
        "a restore leaves the snapshots alone"
    );
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_may_come_in_any_order_and_under_a_folder() {
    let (world, mut files) = saved(scenario().vm(ledger())).await;
    files.reverse();
    for file in &mut files {
        file.path = format!("/tmp/bacula-restores{}", file.path);
        file.blocks.reverse();
    }
    world.restore(&files, "copy").await.unwrap();
    let state = world.state();
    let made = &state.vm("copy").unwrap().data_disks[&5].name;
    assert_eq!(
        world.emulator.disk_digest(made).unwrap(),
        world.emulator.disk_digest("ledger-data-b").unwrap()
    );
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_runs_the_newer_is_restored_in_either_order() {
    let (world, older) = saved(scenario().vm(small("ledger01"))).await;
    world
        .emulator
        .guest_write("ledger01-os", 9 << 20, b"only in the newer image")
        .unwrap();
    let newer = world.back_up(run(2)).await;
    let digest = world.emulator.disk_digest("ledger01-os").unwrap();
    for (name, first, second) in [("one", &older, &newer), ("two", &newer, &older)] {
        let files: Vec<_> = first.iter().chain(second).cloned().collect();
        world.restore(&files, name).await.unwrap();
        let state = world.state();
        let made = &state.vm(name).unwrap().os_disk.name;
        assert_eq!(world.emulator.disk_digest(made).unwrap(), digest);
    }
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_name_is_refused_before_any_transfer() {
    let (world, files) = saved(scenario().vm(ledger()).vm(small("copy"))).await;
    let files: Vec<_> = files.into_iter().skip(4).collect();
    world.emulator.reset_counters();
    let error = assert_leaves_nothing(&world, &files).await;
    assert!(
        matches!(&error, Error::NameTaken { name, .. } if name == "copy"),
        "{error}"
    );
    assert_eq!(
        world.emulator.counters().requests("Disks_CreateOrUpdate"),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_each_step_leave_nothing() {
    let (world, files) = saved(scenario().vm(ledger())).await;
    let failed = |code: &str| Action::FailOperation {
        code: code.into(),
        message: "as the test wants".into(),
    };
    let faults = [
        Fault::new(
            "Disks_CreateOrUpdate",
            Action::error(409, "OperationNotAllowed"),
        )
        .nth(2),
        Fault::new("Disks_CreateOrUpdate", failed("InternalExecutionError")).nth(3),
        Fault::new(
            "Disks_GrantAccess",
            Action::error(403, "AuthorizationFailed"),
        )
        .nth(1),
        Fault::new("Blob_PutPage", Action::error(400, "InvalidInput")).nth(5),
        Fault::new(
            "NetworkInterfaces_CreateOrUpdate",
            Action::error(400, "SubnetIsFull"),
        ),
        Fault::new(
            "VirtualMachines_CreateOrUpdate",
            Action::error(409, "SkuNotAvailable"),
        ),
        Fault::new("VirtualMachines_CreateOrUpdate", failed("AllocationFailed")),
    ];
    for fault in faults {
        world.emulator.clear_faults();
        world.emulator.fault(fault.clone());
        let error = assert_leaves_nothing(&world, &files).await;
        assert!(!error.is_cancelled(), "{fault:?}: {error}");
        let notices = world.take_notices();
        assert_eq!(
            notices.get(&Severity::Error),
            None,
            "{fault:?}: all was removed"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_removed_is_named() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    world.emulator.fault(Fault::new(
        "NetworkInterfaces_CreateOrUpdate",
        Action::error(400, "SubnetIsFull"),
    ));
    world.emulator.fault(Fault::new(
        "Disks_Delete",
        Action::error(409, "ScopeLocked"),
    ));
    world.restore(&files, "copy").await.unwrap_err();
    let left = world
        .state()
        .disks
        .iter()
        .find(|disk| disk.name.starts_with("copy"))
        .map(|disk| disk.name.clone())
        .unwrap();
    let errors = &world.take_notices()[&Severity::Error];
    assert!(errors.iter().any(|text| text.contains(&left)), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_an_upload_leaves_nothing() {
    let (world, files) = saved(scenario().vm(ledger())).await;
    let before = inventory(&world);
    world.emulator.fault(
        Fault::new(
            "Blob_PutPage",
            Action::Delay {
                milliseconds: 60_000,
            },
        )
        .from(4),
    );
    let cancel = world.cancel.clone();
    let (result, ()) = tokio::join!(world.restore(&files, "copy"), async {
        while world.emulator.counters().requests("Blob_PutPage") < 4 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        cancel.cancel();
    });
    assert!(result.unwrap_err().is_cancelled());
    assert_eq!(inventory(&world), before);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_is_found_before_any_transfer() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    let azure = world.azure_with_secret("wrong");
    let error = world.restore_with(azure, &files, "copy").await.unwrap_err();
    assert!(matches!(error, Error::Azure { .. }), "{error}");
    assert!(!world.staging_dir().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_sets_of_files_are_refused_by_name() {
    let (world, files) = saved(scenario().vm(ledger())).await;

    let without_image: Vec<_> = files[..4].to_vec();
    let error = assert_leaves_nothing(&world, &without_image).await;
    let missing = files[4].path.rsplit('/').next().unwrap();
    assert!(error.to_string().contains(missing), "{error}");

    let without_document: Vec<_> = files[2..].to_vec();
    let error = assert_leaves_nothing(&world, &without_document).await;
    assert!(error.to_string().contains("_conf"), "{error}");

    let mut cut = files.clone();
    cut[3].blocks.pop();
    let error = assert_leaves_nothing(&world, &cut).await;
    assert!(error.to_string().contains("not complete"), "{error}");

    let mut resized = files.clone();
    resized[3].size += 512;
    let error = assert_leaves_nothing(&world, &resized).await;
    assert!(error.to_string().contains("not complete"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_two_machines_are_refused_with_both_uuids() {
    let (world, files) = saved(scenario().vm(small("a")).vm(small("b"))).await;
    let error = assert_leaves_nothing(&world, &files).await;
    let state = world.state();
    for name in ["a", "b"] {
        let uuid = &state.vm(name).unwrap().vm_id;
        assert!(error.to_string().contains(uuid.as_str()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_this_release_cannot_follow_are_refused() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    for (from, to, reason) in [
        ("\"format\": 1", "\"format\": 2", "format 2"),
        (
            "\"content\": \"full\"",
            "\"content\": {\"delta\": {\"baseEpoch\": 5, \"baseJob\": \"j\", \"cleared\": \"\"}}",
            "5_conf did not come",
        ),
        (
            "\"content\": \"full\"",
            "\"content\": {\"delta\": {\"baseEpoch\": 9999999999, \"baseJob\": \"j\", \"cleared\": \"\"}}",
            "not before",
        ),
        ("\"vmUuid\": \"", "\"vmUuid\": \"x", "virtual machine x"),
        ("{\n", "[\n", "not a document"),
    ] {
        let mut changed = files.clone();
        let text = String::from_utf8(changed[1].blocks[0].1.clone()).unwrap();
        let text = text.replacen(from, to, 1);
        changed[1].size = text.len() as u64;
        changed[1].blocks[0].1 = text.into_bytes();
        let error = assert_leaves_nothing(&world, &changed).await;
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_files_and_misplaced_data_are_refused() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    let options = world.restore_options("copy");
    let mut restore = Restore::new(world.azure(), options, world.notices.clone());
    assert!(matches!(
        restore.begin_entry("/etc/passwd", 1).await,
        Err(Error::Entry { .. })
    ));
    assert!(restore.write(0, b"x").is_err());
    assert_eq!(
        restore.begin_entry(&files[0].path, 0).await.unwrap(),
        Disposition::Skip
    );
    let image = &files[2];
    restore.begin_entry(&image.path, image.size).await.unwrap();
    assert!(restore.write(image.size, b"x").is_err());
    restore.abandon().await;
    assert!(!world.staging_dir().exists());

    let before = inventory(&world);
    let newer = files[1].path.replacen("_conf", "9_conf", 1);
    let options = world.restore_options("copy");
    let mut restore = Restore::new(world.azure(), options, world.notices.clone());
    support::receive(&mut restore, &files).await.unwrap();
    restore.begin_entry(&newer, 10).await.unwrap();
    let error = restore.complete().await.unwrap_err();
    assert!(error.to_string().contains("not ended"), "{error}");
    assert_eq!(inventory(&world), before);
}

/// The name is taken between the last look and the request: the machine of somebody else is not touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_takes_the_name_meanwhile_is_left_alone() {
    let (world, files) = saved(scenario().vm(small("ledger01")).vm(small("copy"))).await;
    let files: Vec<_> = files
        .into_iter()
        .filter(|file| {
            file.path
                .contains(&world.state().vm("ledger01").unwrap().vm_id)
        })
        .collect();
    // Both looks find nothing.
    world.emulator.fault(Fault {
        path_contains: Some("/virtualMachines/copy".into()),
        ..Fault::new(
            "VirtualMachines_Get",
            Action::error(404, "ResourceNotFound"),
        )
        .first(2)
    });
    let error = assert_leaves_nothing(&world, &files).await;
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");
}

/// The answer to the request that made the machine is lost, and the repeated one finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_does_not_cost_the_machine() {
    let (world, files) = saved(scenario().vm(small("ledger01"))).await;
    world
        .emulator
        .fault(Fault::new("VirtualMachines_CreateOrUpdate", Action::LostAnswer).nth(1));
    let restored = world.restore(&files, "copy").await.unwrap();
    assert_eq!(world.state().vm("copy").unwrap().id, restored.id);
    assert_eq!(
        world
            .emulator
            .counters()
            .requests("VirtualMachines_CreateOrUpdate"),
        2
    );
}
