//! Virtual machines: lists, power states, where their disks are.

use std::process::{Command, Output, Stdio};

use azure_vm_fd::azure::ResourceId;
use azure_vm_fd::backup::{Backup, Level, Run};
use azure_vm_fd::config::Selection;
use azure_vm_fd::document::Slot;
use azure_vm_fd::inventory::ManagedDisks;
use azure_vm_fd::notice::Notices;
use serde_json::{Value, json};

use crate::recording::{Exchange, exchanges};
use crate::service::Service;

const VMS: &str = "providers/Microsoft.Compute/virtualMachines";

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap()
}

/// The list of a subscription that holds just this machine, asked for by itself as well.
fn listed_alone(recorded: &Exchange) -> Vec<Exchange> {
    let subscription = recorded.subscription();
    let list = |kind: &str, items: Value| {
        let target = format!("/subscriptions/{subscription}/providers/Microsoft.Compute/{kind}");
        Exchange::made("GET", &target, 200, &json!({ "value": items }))
    };
    vec![
        recorded.clone(),
        list("virtualMachines", json!([recorded.json()])),
        list("disks", json!([])),
        list("snapshots", json!([])),
    ]
}

/// The disks of each machine as the product lists them: machine, OS disk, data disks with their LUNs.
fn disks(vms: &[Value]) -> Vec<(&str, Vec<String>)> {
    let unknown = ManagedDisks::new(Vec::new());
    vms.iter()
        .map(|vm| {
            let disks = unknown.of_vm(vm).into_iter();
            let shown = disks.map(|disk| match disk.slot {
                Slot::Os => disk.name,
                Slot::Data(lun) => format!("{lun}: {}", disk.name),
            });
            (text(vm, "/name"), shown.collect())
        })
        .collect()
}

#[tokio::test]
async fn the_list_of_a_subscription_has_every_machine_as_it_came() {
    let recorded = exchanges("vms-of-subscription");
    let service = Service::start(recorded.clone(), &[]).await;
    let vms = service.azure().virtual_machines().await.unwrap();
    // Text, so that the order of members counts.
    assert_eq!(
        serde_json::to_string(&vms).unwrap(),
        recorded[0].json()["value"].to_string()
    );
    let found: Vec<_> = vms
        .iter()
        .map(|vm| (text(vm, "/name"), text(vm, "/properties/vmId")))
        .collect();
    assert_eq!(
        found,
        [
            ("vma6e2878463", "98f6aa47-7ef0-4a36-90bc-d8957c9f0033"),
            ("laksjdf", "2085b01f-2a4b-4709-a708-b7ce96880df7"),
            ("lskdjier", "107718ed-19d8-4132-94f2-501d3b172104"),
            ("jmonitorvm1086717", "94b0bcef-0030-4649-bf8b-3238b17b6306"),
            ("jmonitorvm297092a", "22435d26-eb20-48d8-851d-588f37797fbb"),
            ("debl12uoils", "e35e8914-70db-49db-ba71-bdd45b72eb22"),
        ]
    );
    let disks = disks(&vms);
    assert_eq!(
        disks[0].1,
        [
            "vma6e2878463_OsDisk_1_5e1fcc1694cf4ff8a343e09b5fb4f5da",
            "1: dsk604043125e",
        ]
    );
    assert_eq!(disks[1].1.len(), 1);
    assert_eq!(
        disks[5].1,
        [
            "debl12uoils_OsDisk_1_b5b8e096f9df4ef29e75ebe93e7fea40",
            "0: datadiskutil",
        ]
    );
    service.assert_used_up();
}

/// A list writes resource groups in capitals, the machine's disks and interfaces in small letters.
#[tokio::test]
async fn ids_in_another_case_are_the_same() {
    let recorded = exchanges("vms-of-subscription");
    let vms = recorded[0].json();
    for vm in vms["value"].as_array().unwrap() {
        let id = ResourceId::parse(text(vm, "/id")).unwrap();
        let disk = text(vm, "/properties/storageProfile/osDisk/managedDisk/id");
        let disk = ResourceId::parse(disk).unwrap();
        assert_ne!(id.resource_group(), disk.resource_group());
        let sibling = ResourceId::new(
            id.subscription(),
            id.resource_group(),
            "Microsoft.Compute/disks",
            disk.name(),
        );
        assert_eq!(sibling, disk);
        assert!(disk.is_type("microsoft.compute/DISKS"));
        // A disk that a list names in capitals is the one in the machine.
        let listed = json!({
            "id": sibling.as_str().to_uppercase(), "name": "as listed",
            "properties": { "diskSizeBytes": 4096 }, "sku": { "name": "Standard_LRS" },
        });
        let os = &ManagedDisks::new(vec![listed]).of_vm(vm)[0];
        assert_eq!((os.name.as_str(), os.size_bytes), ("as listed", Some(4096)));
    }
}

#[tokio::test]
async fn data_disks_have_their_luns() {
    let recorded = exchanges("vms-of-group");
    let target = format!("/subscriptions/{}/{VMS}", recorded[0].subscription());
    let service = Service::start(vec![recorded[0].at("GET", &target)], &[]).await;
    let vms = service.azure().virtual_machines().await.unwrap();
    assert_eq!(
        disks(&vms),
        [
            (
                "lvmb83733287ac3c8252",
                vec!["lvmb83733287ac3c8252_OsDisk_1_f904188d738a4494bba0024af81cbb46".to_owned()]
            ),
            (
                "wvm55733871c3a277e88",
                vec![
                    "wvm55733871c3a277e88_OsDisk_1_b9ea6eecbf1c4e4485bd5174cdebe715".to_owned(),
                    "0: dsk-07f768849421787d2".to_owned(),
                    "1: dsk-43b0452760f97196d".to_owned(),
                    "2: wvm55733871c3a277e88_disk4_909d28dd99fa4b429d10a93325869290".to_owned(),
                    "3: wvm55733871c3a277e88_disk5_ce2b919ac7a54537bfcab4568ab877c8".to_owned(),
                ]
            ),
        ]
    );
}

#[tokio::test]
async fn a_machine_is_read_as_it_came() {
    for name in ["vm-deallocated", "vm-running"] {
        let recorded = exchanges(name);
        let service = Service::start(recorded.clone(), &[]).await;
        let id = recorded[0].resource();
        let read = service
            .azure()
            .virtual_machine_with_instance_view(&id)
            .await
            .unwrap();
        assert_eq!(read.to_string(), recorded[0].json().to_string());
        service.assert_used_up();
    }
}

#[tokio::test]
async fn zones_and_identities_are_read_as_they_came() {
    let recorded = exchanges("vm-zone-and-identities");
    let service = Service::start(recorded.clone(), &[]).await;
    for one in &recorded {
        let read = service
            .azure()
            .virtual_machine(&one.resource())
            .await
            .unwrap();
        assert_eq!(read.to_string(), one.json().to_string());
    }
    service.assert_used_up();
}

#[tokio::test]
async fn unmanaged_disks_are_refused_by_name() {
    for (name, disk) in [
        ("vm-deallocated", "disk-1 (LUN 1)"),
        ("vm-running", "wvmdd9833811d08bc-data-disk-0 (LUN 0)"),
    ] {
        let recorded = exchanges(name);
        let service = Service::start(listed_alone(&recorded[0]), &[]).await;
        let run = Run {
            job: "AzureVMs.2026-11-23_09.05.00_01".into(),
            line: 0,
            client: "prod-fd".into(),
            level: Level::Full,
            previous: None,
            keep_snapshots: true,
        };
        let notices = Notices::default();
        let plans = Backup::plan(
            &service.azure(),
            &run,
            &Selection::default(),
            None,
            &notices,
        )
        .await
        .unwrap();
        let vm = recorded[0].json();
        assert_eq!(plans[0].name, text(&vm, "/name"));
        assert_eq!(plans[0].uuid, text(&vm, "/properties/vmId"));
        let refusal = plans[0].refusal.as_deref().unwrap();
        let expected = format!("its disk {disk} is unmanaged, a page blob");
        assert!(refusal.contains(&expected), "{refusal}");
        service.assert_nothing_else_was_asked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_power_states_and_disks() {
    for (name, power_state, size, disks) in [
        (
            "vm-deallocated",
            "deallocated",
            "Standard_D3_v2",
            vec!["vm-719027-os-disk", "disk-1", "disk-2"],
        ),
        (
            "vm-running",
            "running",
            "Standard_D3_v2",
            vec!["wvmdd9833811d08bc-os-disk", "wvmdd9833811d08bc-data-disk-0"],
        ),
    ] {
        let recorded = exchanges(name);
        let service = Service::start(listed_alone(&recorded[0]), &[]).await;
        let output = list(&service).await;
        let shown: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let vm = &shown["vms"][0];
        assert_eq!(vm["powerState"], power_state, "{shown}");
        assert_eq!(vm["size"], size);
        assert_eq!(vm["uuid"], recorded[0].json()["properties"]["vmId"]);
        let names = vm["disks"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|disk| disk["name"].as_str().unwrap()).collect();
        assert_eq!(names, disks);
        service.assert_nothing_else_was_asked();
    }
}

/// `azure-vm list --json` against the service.
async fn list(service: &Service) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("azure-vm.conf");
    std::fs::write(&file, service.configuration()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_azure-vm"));
    command
        .args(["list", "--json", "--config"])
        .arg(file)
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}
