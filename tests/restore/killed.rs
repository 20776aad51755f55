//! What a restore left whose process was killed, or that could not remove it, and what the next job does about it.

use std::fs;
use std::path::PathBuf;

use azure_vm_fd::notice::Severity;
use azure_vm_fd::restore::clear_debris;
use mock_server::{Action, Change, DEFAULT_SUBSCRIPTION, Fault};

use crate::support::{GROUP, World, scenario, small};
use crate::{inventory, saved};

/// The ids of what a restore of `small` under the name `copy` made, in its order.
async fn made() -> (World, Vec<String>) {
    let (world, files) = saved(scenario().vm(small("web"))).await;
    world.restore(&files, "copy").await.unwrap();
    let vm = world.state().vm("copy").unwrap().clone();
    let disks = std::iter::once(vm.os_disk).chain(vm.data_disks.into_values());
    let ids = disks.map(|disk| disk.id).chain(vm.network_interfaces);
    let ids = ids.chain([vm.id]).collect();
    world.take_notices();
    (world, ids)
}

/// The folder of a restore that died after it had noted these.
fn dead_folder(world: &World, ids: &[String]) -> PathBuf {
    let folder = world.staging_dir().with_file_name("16");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("1_osdisk"), "bytes").unwrap();
    let lines = ids.iter().map(|id| format!("{id:?}\n"));
    fs::write(folder.join("in-use"), lines.collect::<String>()).unwrap();
    folder
}

async fn clear(world: &World) -> Vec<String> {
    let folder = world.staging_dir();
    clear_debris(&world.azure(), folder.parent().unwrap(), &world.notices).await;
    let mut notices = world.take_notices();
    assert_eq!(notices.get(&Severity::Error), None);
    notices.remove(&Severity::Warning).unwrap_or_default()
}

/// Takes the machine away as its owner would, who keeps the disks.
fn delete_vm(world: &World) {
    let vm = "copy".into();
    let with_resources = false;
    let change = Change::DeleteVm { vm, with_resources };
    world.emulator.change(&change).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_restore_made_is_cleared_and_a_machine_stays() {
    let (world, ids) = made().await;
    let before = inventory(&world);
    let folder = dead_folder(&world, &ids);
    let warnings = clear(&world).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let text = "when it made virtual machine copy in resource group";
    assert!(warnings[0].contains(text), "{warnings:?}");
    assert_eq!(inventory(&world), before);
    assert!(!folder.exists());

    // Its disks are in use, whatever is noted.
    let without_vm = &ids[..ids.len() - 1];
    dead_folder(&world, without_vm);
    assert_eq!(clear(&world).await, Vec::<String>::new());
    assert_eq!(inventory(&world), before);

    // The machine was there, and its owner has kept disks and interfaces.
    delete_vm(&world);
    let kept = inventory(&world);
    let folder = dead_folder(&world, &ids);
    assert_eq!(clear(&world).await.len(), 1);
    assert_eq!(inventory(&world), kept);
    assert!(!folder.exists());

    // Disks that were attached once are kept even if no machine is noted.
    dead_folder(&world, without_vm);
    assert_eq!(clear(&world).await, Vec::<String>::new());
    assert_eq!(inventory(&world).1, kept.1);
    world.assert_settled();
}

fn refuse(world: &World, operation: &str) {
    let refusal = Action::error(403, "AuthorizationFailed");
    world.emulator.fault(Fault::new(operation, refusal));
}

/// Restores `small` under the name `copy`; what was made comes to nothing.
async fn fail(refused: &[&str]) -> World {
    let (world, files) = saved(scenario().vm(small("web"))).await;
    for operation in refused {
        refuse(&world, operation);
    }
    let failure = Action::FailOperation {
        code: "OSProvisioningTimedOut".into(),
        message: "OS provisioning did not finish in time.".into(),
    };
    let create = "VirtualMachines_CreateOrUpdate";
    world.emulator.fault(Fault::new(create, failure));
    world.restore(&files, "copy").await.unwrap_err();
    world
}

/// Names of what a restore under the name `copy` made.
fn left(world: &World) -> Vec<String> {
    let (machines, disks, interfaces) = inventory(world);
    let names = [machines, disks, interfaces].concat();
    let made = |name: &String| name.contains("copy");
    names.into_iter().filter(made).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_cleared_is_named_and_tried_again() {
    let world = fail(&[
        "VirtualMachines_CreateOrUpdate",
        "NetworkInterfaces_Delete",
        "Disks_Delete",
    ])
    .await;
    let errors = world.take_notices().remove(&Severity::Error).unwrap();
    assert_eq!(errors.len(), left(&world).len(), "{errors:?}");
    assert!(errors.len() > 1, "{errors:?}");
    for error in errors {
        assert!(error.contains("the next job of this File Daemon tries again"));
    }
    // Of the local folder nothing is left but what tells the next job.
    let folder = world.staging_dir();
    let files: Vec<_> = fs::read_dir(&folder).unwrap().flatten().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    fs::write(folder.join("1_osdisk"), "bytes").unwrap();
    world.emulator.clear_faults();
    refuse(&world, "Disks_Delete");
    let warnings = clear(&world).await;
    assert!(!warnings.is_empty());
    for warning in warnings {
        assert!(warning.contains("remove disk copy-"), "{warning}");
        assert!(warning.contains("AuthorizationFailed"), "{warning}");
    }
    assert!(folder.join("in-use").exists() && !folder.join("1_osdisk").exists());

    world.emulator.clear_faults();
    assert_eq!(clear(&world).await, Vec::<String>::new());
    assert!(!folder.exists());
    assert_eq!(left(&world), Vec::<String>::new());
    world.assert_settled();
}

/// Its disks were attached once, and to nothing but the machine that the restore has removed itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_of_a_machine_that_was_removed_again_are_cleared() {
    let world = fail(&["Disks_Delete"]).await;
    assert!(world.state().vm("copy").is_none());
    assert!(!left(&world).is_empty());
    world.take_notices();

    world.emulator.clear_faults();
    assert_eq!(clear(&world).await, Vec::<String>::new());
    assert_eq!(left(&world), Vec::<String>::new());
    assert!(!world.staging_dir().exists());
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_could_not_be_removed_stays_and_is_named() {
    let world = fail(&["VirtualMachines_Delete"]).await;
    for error in world.take_notices().remove(&Severity::Error).unwrap() {
        assert!(error.contains("delete it yourself if it is there"));
    }
    world.emulator.clear_faults();
    let before = left(&world);
    let warnings = clear(&world).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for name in &before {
        assert!(warnings[0].contains(name.as_str()), "{name}: {warnings:?}");
    }
    assert_eq!(left(&world), before);
    assert!(!world.staging_dir().exists());
    assert_eq!(clear(&world).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_found_is_surely_not_there() {
    let world = fail(&["Disks_Delete", "NetworkInterfaces_Delete"]).await;
    assert!(left(&world).len() > 1);
    world.take_notices();
    world.emulator.clear_faults();
    let absent = || Action::error(404, "ResourceNotFound");
    for operation in ["Disks_Get", "NetworkInterfaces_Get"] {
        world.emulator.fault(Fault::new(operation, absent()));
    }
    assert_eq!(clear(&world).await, Vec::<String>::new());
    assert_eq!(left(&world), Vec::<String>::new());
    assert!(!world.staging_dir().exists());

    // Also where one may not make sure of it.
    world.emulator.clear_faults();
    let id = |kind: &str| {
        format!(
            "/subscriptions/{DEFAULT_SUBSCRIPTION}/resourceGroups/{GROUP}/providers/{kind}/copy-gone"
        )
    };
    let kinds = [
        "Microsoft.Compute/disks",
        "Microsoft.Network/networkInterfaces",
    ];
    let folder = dead_folder(&world, &kinds.map(id));
    refuse(&world, "Disks_Delete");
    refuse(&world, "NetworkInterfaces_Delete");
    assert_eq!(clear(&world).await, Vec::<String>::new());
    assert!(!folder.exists());
    world.assert_settled();
}
