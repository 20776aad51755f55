//! What others do to VMs, disks and snapshots between two runs of a client.
mod common;

use common::Azure;
use http::Method;
use mock_server::{ByteSize, Change, Config, Disk, Error, MIB, Scenario, Snapshot, TIB, Vm};
use serde_json::json;

async fn start(scenario: Scenario) -> Azure {
    Azure::start(Config {
        scenario,
        ..Config::default()
    })
    .await
}

fn web() -> Vm {
    Vm::new(
        "rg1",
        "web",
        Disk::new("web-os", 32 * MIB).pattern(1, 0, MIB),
    )
    .data_disk(0, Disk::new("web-data", 24 * MIB).pattern(2, 0, MIB))
}

fn snapshot(name: &str, disk: &str) -> Change {
    Change::CreateSnapshot(Snapshot {
        name: name.to_owned(),
        disk: disk.to_owned(),
        ..Snapshot::default()
    })
}

fn grow(disk: &str, size: u64) -> Change {
    Change::GrowDisk {
        disk: disk.to_owned(),
        size: ByteSize(size),
    }
}

fn attach(lun: u32, disk: &str) -> Change {
    Change::AttachDisk {
        vm: "web".to_owned(),
        lun,
        disk: disk.to_owned(),
    }
}

fn detach(lun: u32) -> Change {
    Change::DetachDisk {
        vm: "web".to_owned(),
        lun,
    }
}

#[tokio::test]
async fn disks_come_grow_move_and_go() {
    let azure = start(Scenario::new().vm(web())).await;
    let emulator = &azure.emulator;
    let change = |change: Change| emulator.change(&change);

    change(snapshot("before", "web-data")).unwrap();
    let before = emulator.disk_digest("before").unwrap();
    assert_eq!(before, emulator.disk_digest("web-data").unwrap());
    change(grow("web-data", 30 * MIB)).unwrap();
    assert_eq!(emulator.disk_size("web-data").unwrap(), 30 * MIB);
    assert_eq!(emulator.disk_size("before").unwrap(), 24 * MIB);
    assert_eq!(before, emulator.disk_digest("before").unwrap());
    let rest = emulator.disk_read("web-data", 24 * MIB, 6 * MIB).unwrap();
    assert!(rest.iter().all(|byte| *byte == 0));

    // Another disk at the same LUN.
    change(Change::CreateDisk(Box::new(
        Disk::new("other", 20 * MIB)
            .in_group("rg1")
            .pattern(3, 0, MIB),
    )))
    .unwrap();
    change(detach(0)).unwrap();
    change(attach(0, "other")).unwrap();
    let state = emulator.state();
    let vm = state.vm("web").unwrap();
    assert_eq!(vm.data_disks[&0].name, "other");
    assert_eq!(
        state.disk("other").unwrap().managed_by.as_ref(),
        Some(&vm.id)
    );
    assert_eq!(state.disk("web-data").unwrap().disk_state, "Unattached");

    for refused in [
        grow("web-os", 16 * MIB),
        grow("web-os", 32 * MIB + 512),
        attach(0, "web-data"),
        attach(64, "web-data"),
        attach(1, "other"),
        attach(1, "before"),
        attach(1, "nothing"),
        detach(1),
        Change::DeleteDisk {
            disk: "other".to_owned(),
        },
        Change::DeleteDisk {
            disk: "before".to_owned(),
        },
        Change::DeleteSnapshot {
            snapshot: "web-data".to_owned(),
        },
        snapshot("before", "other"),
    ] {
        let result = change(refused.clone());
        assert!(
            matches!(result, Err(Error::Change { .. } | Error::NoSuchDisk(_))),
            "{refused:?}: {result:?}"
        );
    }
    assert_eq!(before, emulator.disk_digest("before").unwrap());
    change(Change::DeleteDisk {
        disk: "web-data".to_owned(),
    })
    .unwrap();
    change(Change::DeleteSnapshot {
        snapshot: "before".to_owned(),
    })
    .unwrap();
    assert!(emulator.state().snapshots.is_empty());
}

#[tokio::test]
async fn a_vm_is_renamed_deleted_and_made_again() {
    let azure = start(Scenario::new().vm(web())).await;
    let emulator = &azure.emulator;
    let id = emulator.state().vm("web").unwrap().vm_id.clone();
    emulator
        .change(&Change::RenameVm {
            vm: "web".to_owned(),
            name: "shop".to_owned(),
        })
        .unwrap();
    let state = emulator.state();
    let vm = state.vm("shop").unwrap();
    assert_eq!(vm.vm_id, id);
    for disk in ["web-os", "web-data"] {
        assert_eq!(state.disk(disk).unwrap().managed_by.as_ref(), Some(&vm.id));
    }
    assert_eq!(
        state.network_interfaces[0].virtual_machine.as_ref(),
        Some(&vm.id)
    );

    // Half a VM is none: the second disk's name is taken by the first VM's.
    let clash = Vm::new("rg1", "clash", Disk::new("clash-os", 32 * MIB))
        .data_disk(0, Disk::new("web-data", 24 * MIB));
    let result = emulator.change(&Change::CreateVm(Box::new(clash)));
    assert!(matches!(result, Err(Error::Change { .. })), "{result:?}");
    assert!(emulator.state().disk("clash-os").is_none());

    emulator
        .change(&Change::DeleteVm {
            vm: "shop".to_owned(),
            with_resources: false,
        })
        .unwrap();
    assert_eq!(emulator.state().disks.len(), 2);
    emulator
        .change(&Change::CreateVm(Box::new(Vm::new(
            "rg1",
            "shop",
            Disk::new("shop-os", 32 * MIB),
        ))))
        .unwrap();
    emulator
        .change(&Change::DeleteVm {
            vm: "shop".to_owned(),
            with_resources: true,
        })
        .unwrap();
    let state = emulator.state();
    assert_eq!((state.disks.len(), state.virtual_machines.len()), (2, 0));
    assert_eq!(state.network_interfaces.len(), 1, "that of the first VM");
}

/// The rules of the difference between two snapshots of one disk.
#[tokio::test]
async fn a_difference_needs_the_same_disk_on_one_side_of_4_tib() {
    let azure = start(
        Scenario::new()
            .disk(Disk::new("small", 24 * MIB).in_group("rg1"))
            .disk(Disk::new("large", 4 * TIB).in_group("rg1")),
    )
    .await;
    let emulator = &azure.emulator;
    for disk in ["small", "large"] {
        emulator
            .change(&snapshot(&format!("{disk}-1"), disk))
            .unwrap();
        let size = emulator.disk_size(disk).unwrap() + MIB;
        emulator.change(&grow(disk, size)).unwrap();
        emulator.guest_write(disk, size - 512, &[7; 512]).unwrap();
        emulator
            .change(&snapshot(&format!("{disk}-2"), disk))
            .unwrap();
    }
    let grant = async |name: &str| {
        let path = format!("resourceGroups/rg1/providers/Microsoft.Compute/snapshots/{name}");
        azure.grant(&path, "Read").await
    };
    let (now, before) = (grant("small-2").await, grant("small-1").await);
    assert_eq!(
        azure.ranges(&now, Some(&before), 100).await,
        [
            // The footer has moved.
            ("ClearRange".to_owned(), 24 * MIB, 24 * MIB + 512),
            ("PageRange".to_owned(), 25 * MIB - 512, 25 * MIB + 512),
        ]
    );
    // A part of the difference, cut where it ends.
    let part = format!("bytes={}-{}", 24 * MIB, 25 * MIB - 1);
    let headers = [
        ("x-ms-previous-snapshot-url", before.as_str()),
        ("x-ms-range", part.as_str()),
    ];
    let answer = azure
        .blob(Method::GET, &now, "&comp=pagelist", &headers, "")
        .await
        .expect(200)
        .text();
    for (kind, start, end) in [
        ("ClearRange", 24 * MIB, 24 * MIB + 512),
        ("PageRange", 25 * MIB - 512, 25 * MIB),
    ] {
        let last = end - 1;
        let range = format!("<{kind}><Start>{start}</Start><End>{last}</End></{kind}>");
        assert!(answer.contains(&range), "{answer}");
    }
    for (now, before, status, code) in [
        (
            "large-2",
            "large-1",
            409,
            "PreviousSnapshotOperationNotSupported",
        ),
        ("small-1", "small-2", 400, "PreviousSnapshotCannotBeNewer"),
        ("small-2", "large-1", 409, "PreviousSnapshotNotFound"),
    ] {
        let (now, before) = (grant(now).await, grant(before).await);
        let headers = [("x-ms-previous-snapshot-url", before.as_str())];
        let answer = azure
            .blob(Method::GET, &now, "&comp=pagelist", &headers, "")
            .await
            .expect(status);
        assert_eq!(answer.header("x-ms-error-code"), Some(code));
    }
    assert!(emulator.unmodelled().is_empty());
}

#[tokio::test]
async fn the_control_interface_takes_one_or_several() {
    let azure = start(Scenario::new().vm(web())).await;
    let url = format!("{}/_emulator/changes", azure.emulator.http_url());
    let post = async |body: serde_json::Value| {
        azure
            .send(Method::POST, &url, &[], body.to_string())
            .await
            .unwrap()
    };
    post(json!({ "growDisk": { "disk": "web-data", "size": "25MiB" } }))
        .await
        .expect(204);
    post(json!([
        { "createSnapshot": { "name": "theirs", "disk": "web-os", "tags": { "owner": "somebody" } } },
        { "createDisk": { "name": "more", "resourceGroup": "rg1", "size": "20MiB" } },
        { "attachDisk": { "vm": "web", "lun": 7, "disk": "more" } },
        { "renameVm": { "vm": "web", "name": "shop" } },
    ]))
    .await
    .expect(204);
    let state = azure.emulator.state();
    assert_eq!(state.disk("web-data").unwrap().size_bytes, 25 * MIB);
    assert_eq!(state.snapshots[0].tags["owner"], "somebody");
    assert_eq!(state.vm("shop").unwrap().data_disks[&7].name, "more");

    let answer = post(json!({ "deleteVm": { "vm": "web" } }))
        .await
        .expect(404);
    assert!(answer.text().contains("virtual machine web"));
    let answer = post(json!({ "detachDisk": { "vm": "shop", "lun": 1 } })).await;
    assert!(answer.expect(400).text().contains("there is no disk"));
    post(json!({ "explode": {} })).await.expect(400);
}
