//! What a restore left whose process was killed, or that could not remove it, and what the next job does about it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use azure_vm_fd::notice::Severity;
use azure_vm_fd::restore::{Options, Restore, clear_debris};
use mock_server::{Action, Change, DEFAULT_SUBSCRIPTION, Fault};

use crate::support::{GROUP, World, receive, scenario, small};
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
    dead_folder_of(world, "16", ids)
}

fn dead_folder_of(world: &World, job: &str, ids: &[String]) -> PathBuf {
    let folder = world.staging_dir().with_file_name(job);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("1_osdisk"), "bytes").unwrap();
    let lines = ids.iter().map(|id| format!("{id:?}\n"));
    fs::write(folder.join("in-use"), lines.collect::<String>()).unwrap();
    folder
}

/// A disk of a subscription in which no job of these tests works.
fn elsewhere() -> String {
    "/subscriptions/elsewhere/resourceGroups/g/providers/Microsoft.Compute/disks/lost-os".into()
}

async fn clear(world: &World) -> Vec<String> {
    clear_debris(&world.azure(), &world.restores(), &world.notices).await;
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
    world
        .emulator
        .fault(Fault::new(CREATE, provisioning_fails()));
    world.restore(&files, "copy").await.unwrap_err();
    world
}

const CREATE: &str = "VirtualMachines_CreateOrUpdate";

fn provisioning_fails() -> Action {
    Action::FailOperation {
        code: "OSProvisioningTimedOut".into(),
        message: "OS provisioning did not finish in time.".into(),
    }
}

/// Until such a request has come.
async fn asked(world: &World, operation: &str) {
    while world.emulator.counters().requests(operation) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn errors(world: &World) -> Vec<String> {
    let errors = world.take_notices().remove(&Severity::Error);
    errors.unwrap_or_default()
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
    let world = fail(&[CREATE, "NetworkInterfaces_Delete", "Disks_Delete"]).await;
    let errors = errors(&world);
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

/// The number of a job comes again: the Director lost its catalog.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_works_beside_the_folder_of_a_dead_one_of_its_number() {
    let (world, files) = saved(scenario().vm(small("web"))).await;
    let folder = dead_folder_of(&world, "17", &[elsewhere()]);
    assert_eq!(folder, world.staging_dir());
    let journal = fs::read(folder.join("in-use")).unwrap();
    world.restore(&files, "copy").await.unwrap();
    assert_eq!(fs::read(folder.join("in-use")).unwrap(), journal);
    let folders = fs::read_dir(folder.parent().unwrap()).unwrap();
    assert_eq!(folders.count(), 1, "its own is gone");
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_another_subscription_is_named_once_and_waits() {
    let (world, ids) = made().await;
    let before = inventory(&world);
    let folder = dead_folder(&world, &[elsewhere()]);
    let cleared = dead_folder_of(&world, "15", &ids[..1]);
    let warnings = clear(&world).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["subscription elsewhere", "lost-os", "restore/16"] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
    assert_eq!(inventory(&world), before);
    assert!(folder.join("in-use").exists() && !folder.join("1_osdisk").exists());
    assert!(!cleared.exists(), "others are not kept from being cleared");
    // Another Plugin line of the same job.
    assert_eq!(clear(&world).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_cannot_be_read_are_counted_and_the_others_heeded() {
    let (world, ids) = made().await;
    delete_vm(&world);
    let interface = ids.iter().find(|id| id.contains("networkInterfaces"));
    let interface = interface.unwrap();
    let folder = dead_folder(&world, &[]);
    let text = format!("\"/subscriptions/cut{interface:?}\n{interface:?}\n\0\0\n\"no id\"\n\n");
    fs::write(folder.join("in-use"), text).unwrap();
    let warnings = clear(&world).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let file = folder.join("in-use").display().to_string();
    for part in [&*file, "cannot be read: 3"] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
    let (_, _, interfaces) = inventory(&world);
    let name = interface.rsplit('/').next().unwrap();
    assert!(
        !interfaces.iter().any(|known| known == name),
        "{interfaces:?}"
    );
    assert!(folder.join("in-use").exists(), "somebody wants to look");

    fs::write(folder.join("in-use"), " ".repeat(2 << 20)).unwrap();
    let warnings = clear(&world).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("it is larger than"), "{warnings:?}");
}

/// Somebody makes a machine of a disk that was left, and keeps the disk when the machine is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_somebody_has_used_is_never_removed() {
    let refused = [CREATE, "Disks_Delete", "NetworkInterfaces_Delete"];
    // There never was a machine of the restore, or it has removed it.
    for refused in [&refused[..], &refused[1..]] {
        for is_seen_in_use in [true, false] {
            let world = fail(refused).await;
            world.take_notices();
            let left = left(&world);
            let state = world.state();
            let is_disk = |name: &&String| state.disk(name).is_some();
            let disk = left.iter().find(is_disk).unwrap().clone();
            let id = state.disk(&disk).unwrap().id.clone();
            let change = |change: Change| {
                world.emulator.advance_clock(Duration::from_secs(60));
                world.emulator.change(&change).unwrap();
            };
            let (vm, lun) = ("web".to_owned(), 7);
            change(Change::AttachDisk {
                vm: vm.clone(),
                lun,
                disk: disk.clone(),
            });
            world.emulator.clear_faults();
            if is_seen_in_use {
                refuse(&world, "NetworkInterfaces_Delete");
                let warnings = clear(&world).await;
                let says = |text: &String| {
                    text.contains(&disk) && text.ends_with("/virtualMachines/web uses it")
                };
                assert!(warnings.iter().any(says), "{warnings:?}");
                let mark = fs::read_to_string(world.staging_dir().join("in-use")).unwrap();
                assert!(mark.contains(&format!("{{\"gone\":\"{id}\"}}")), "{mark}");
            }
            change(Change::DetachDisk { vm, lun });
            world.emulator.clear_faults();
            let warnings = clear(&world).await;
            assert_eq!(warnings.len(), usize::from(!is_seen_in_use));
            let told = "a virtual machine has used it since";
            assert!(warnings.iter().all(|text| text.ends_with(told)));
            assert_eq!(self::left(&world), [disk]);
            assert!(!world.staging_dir().exists());
            world.assert_settled();
        }
    }
}

/// The job is cancelled while nobody knows whether the machine is being made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_may_come_yet_is_named() {
    for refused in [&["Disks_Delete", "NetworkInterfaces_Delete"][..], &[]] {
        let (world, files) = saved(scenario().vm(small("web"))).await;
        for operation in refused {
            refuse(&world, operation);
        }
        world.emulator.fault(Fault::new(CREATE, Action::Reset));
        let cancel = world.cancel.child_token();
        let azure = world.azure().with_cancellation(cancel.clone());
        let (restored, ()) = tokio::join!(world.restore_with(azure, &files, "copy"), async {
            asked(&world, CREATE).await;
            cancel.cancel();
        });
        assert!(restored.unwrap_err().is_cancelled());
        let (errors, left) = (errors(&world), left(&world));
        if refused.is_empty() {
            // Without its OS disk no machine can come.
            assert_eq!((errors, left), (Vec::new(), Vec::new()));
            assert!(!world.staging_dir().exists());
            continue;
        }
        assert_eq!((errors.len(), left.len()), (3, 2), "{errors:?}");
        assert!(
            errors[0].contains("remove virtual machine copy "),
            "{errors:?}"
        );
        for error in errors {
            assert!(error.contains("delete it yourself"), "{error}");
        }
        world.emulator.clear_faults();
        let warnings = clear(&world).await;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for name in ["it made virtual machine copy", &left[0], &left[1]] {
            assert!(warnings[0].contains(name), "{name}: {warnings:?}");
        }
        assert_eq!(self::left(&world), left);
        assert!(!world.staging_dir().exists());
    }
}

/// Whatever has gone wrong before: nobody else would know of this machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_was_taken_for_gone_is_named() {
    let (world, ids) = made().await;
    let before = inventory(&world);
    let folder = dead_folder(&world, &ids);
    let vm = ids.last().unwrap();
    let mark = folder.join("in-use");
    let text = fs::read_to_string(&mark).unwrap();
    fs::write(&mark, format!("{text}{{\"gone\":\"{vm}\"}}\n")).unwrap();
    let warnings = clear(&world).await;
    assert_eq!(warnings.len(), 2, "a disk and an interface: {warnings:?}");
    for warning in warnings {
        let named = warning.to_lowercase().contains(&vm.to_lowercase());
        assert!(named, "{warning}");
    }
    assert_eq!(inventory(&world), before);
    assert!(!folder.exists());
}

/// No job touches it, so it does not matter where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_in_another_subscription_is_named_like_any() {
    let (world, _) = made().await;
    let vm = elsewhere().replace("disks/lost-os", "virtualMachines/lost");
    let folder = dead_folder(&world, &[elsewhere(), vm]);
    let warnings = clear(&world).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["it made virtual machine lost ", "lost-os", "or delete them"] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
    assert!(!folder.exists());
}

/// The clean-up is cut off, as by the limit for it, when the machine could not be removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_up_that_is_cut_off_promises_nothing_that_no_job_does() {
    let (world, files) = saved(scenario().vm(small("web"))).await;
    refuse(&world, "VirtualMachines_Delete");
    world
        .emulator
        .fault(Fault::new(CREATE, provisioning_fails()));
    let milliseconds = 60_000;
    let endless = Action::Delay { milliseconds };
    let delete = "NetworkInterfaces_Delete";
    world.emulator.fault(Fault::new(delete, endless));
    tokio::select! {
        restored = world.restore(&files, "copy") => panic!("{restored:?}"),
        () = asked(&world, delete) => {}
    }
    let errors = errors(&world);
    assert_eq!(errors.len(), 3, "{errors:?}");
    let reasons = ["AuthorizationFailed", "gave up waiting", "gave up waiting"];
    let kinds = ["virtual machine", "network interface", "disk"];
    // First what was made last.
    for ((error, reason), kind) in errors.iter().zip(reasons).zip(kinds) {
        assert!(error.starts_with(&format!("remove {kind} copy")), "{error}");
        assert!(error.contains(reason), "{error}");
        assert!(error.contains("delete it yourself"), "{error}");
    }
}

/// As by the command line: no job looks into its folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_next_job_removes_is_left_to_the_user() {
    let (world, files) = saved(scenario().vm(small("web"))).await;
    for operation in [CREATE, "Disks_Delete"] {
        refuse(&world, operation);
    }
    let options = Options {
        has_next_job: false,
        ..world.restore_options("copy")
    };
    let mut restore = Restore::new(world.azure(), options, world.notices.clone());
    receive(&mut restore, &files).await.unwrap();
    restore.complete().await.unwrap_err();
    let errors = errors(&world);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("delete it yourself"), "{errors:?}");
    assert!(!errors[0].contains("next job"), "{errors:?}");
}

/// What several dead restores have left costs a job the time of one, and all of its Plugin lines one warning for each thing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_are_cleared_side_by_side_and_things_named_once() {
    let (world, ids) = made().await;
    for job in ["14", "15"] {
        dead_folder_of(&world, job, &[format!("{}-{job}", ids[0])]);
    }
    let milliseconds = 500;
    let slow = Action::Delay { milliseconds };
    world.emulator.fault(Fault::new("Disks_Get", slow));
    let locked = Action::error(409, "ScopeLocked");
    world.emulator.fault(Fault::new("Disks_Delete", locked));
    world.emulator.reset_counters();
    let warnings = clear(&world).await;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let counters = world.emulator.counters();
    assert_eq!(counters.of("Disks_Get").most_in_flight, 2);
    assert_eq!(clear(&world).await, Vec::<String>::new());
    assert_eq!(world.emulator.counters().requests("Disks_Delete"), 4);
}
