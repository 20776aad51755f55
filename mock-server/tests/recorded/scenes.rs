//! What each recording presupposes, and which of its requests the emulator is asked. A request that it does not model is replaced by
//! the nearest one that it does, or left out with the reason.
use crate::{
    common::snapshot_body,
    machines,
    play::{Play, Played, compute, config, polling},
    recording::exchanges,
};
use http::Method;
use mock_server::{
    Action, Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT,
    Disk, Fault, GIB, NetworkInterface, NetworkSecurityGroup, OperationPolicy, Principal,
    PublicIpAddress, RetryAfter, Scenario, Tenant, Vm,
};
use serde_json::{Value, json};

fn list(name: &str) -> Vec<Value> {
    let body = exchanges(name)[0].json();
    body["value"].as_array().unwrap().clone()
}

/// The machines of a subscription, those of a resource group, and a list that is throttled.
pub(crate) async fn lists() -> Played {
    let mut found = Played::default();
    for name in ["vms-of-subscription", "vms-of-group"] {
        let scenario = machines::scenario(&list(name));
        let mut play = Play::start(name, config(scenario, 0)).await;
        play.send(0).await;
        found = found.and(play.end());
    }
    let mut play = Play::start("throttled", Config::default()).await;
    let throttle = Action::Throttle {
        retry_after: Some(RetryAfter::Seconds(1200)),
    };
    let fault = Fault::new("VirtualMachines_ListAll", throttle);
    play.azure.emulator.fault(fault);
    play.send(0).await;
    found.and(play.end())
}

/// Unmanaged disks are not modelled: the machines here have managed ones of the same names.
pub(crate) async fn instance_views() -> Played {
    let mut found = Played::default();
    for name in ["vm-deallocated", "vm-running"] {
        let scenario = machines::scenario(&[exchanges(name)[0].json()]);
        let mut play = Play::start(name, config(scenario, 0)).await;
        play.send(0).await;
        found = found.and(play.end());
    }
    found
}

pub(crate) async fn zone_and_identities() -> Played {
    let name = "vm-zone-and-identities";
    let vms: Vec<_> = exchanges(name).iter().map(|one| one.json()).collect();
    let mut play = Play::start(name, config(machines::scenario(&vms), 0)).await;
    play.send(0).await;
    play.send(1).await;
    play.end()
}

pub(crate) async fn upload() -> Played {
    let scenario = Scenario::new().resource_group("rgfluentchash-2254", "westcentralus");
    let mut play = Play::start("disk-upload", config(scenario, 0)).await;
    for number in 0..7 {
        play.send(number).await;
    }
    play.end()
}

/// The request that began it was not recorded.
pub(crate) async fn ready_to_upload() -> Played {
    let group = "cli_test_vm_disk_upload_000001";
    let scenario = Scenario::new().resource_group(group, "westus");
    let mut play = Play::start("disk-ready-to-upload", config(scenario, 0)).await;
    let body = json!({
        "location": "westus", "sku": { "name": "Premium_LRS" },
        "properties": { "creationData": { "createOption": "Upload", "uploadSizeBytes": 21_474_836_992_u64 } },
    });
    let path = compute(group, "disks", "disk1");
    let link = play.begin(Method::PUT, &path, body).await;
    play.send_instead(0, Method::GET, &link, None).await;
    play.send(1).await;
    play.end()
}

fn free_disk(group: &str, name: &str, location: &str, size: u64) -> Scenario {
    let disk = Disk {
        location: Some(location.into()),
        ..Disk::new(name, size).in_group(group).sku("Standard_LRS")
    };
    Scenario::new().resource_group(group, location).disk(disk)
}

pub(crate) async fn disk_access() -> Played {
    let scenario = free_disk(
        "rgfluentchash-1224",
        "md-empty-6f784724d",
        "westcentralus",
        100 * GIB,
    );
    let mut play = Play::start("disk-access", config(scenario, 0)).await;
    for number in 0..6 {
        play.send(number).await;
    }
    play.end()
}

/// Empty snapshots are not modelled: this one is of a disk. The result of 2018 is one of such a snapshot, too.
pub(crate) async fn snapshot_access() -> Played {
    let group = "test_snapshot_access_000001";
    let scenario = free_disk(group, "disk", "westus", GIB);
    let mut play = Play::start("snapshot-access", config(scenario, 0)).await;
    let path = compute(group, "snapshots", "snapshot");
    let mut body = snapshot_body(group, "disk");
    body["location"] = "westus".into();
    body["tags"] = json!({});
    body["sku"] = json!({ "name": "Standard_LRS" });
    body["properties"]["hyperVGeneration"] = "V1".into();
    let first = play
        .send_instead(0, Method::PUT, &path, Some(&body))
        .await
        .expect(202);
    let link = polling(&first);
    play.send_instead(1, Method::GET, &link, None).await;
    for number in 2..11 {
        play.send(number).await;
    }
    let found = play.end();

    let mut play = Play::start(
        "snapshot-access-2018",
        config(free_disk(group, "disk", "westus", GIB), 0),
    )
    .await;
    play.prepare(Method::PUT, &path, Some(body)).await;
    let path = path.replace("?", "/beginGetAccess?");
    let body = json!({ "access": "Read", "durationInSeconds": 600 });
    let link = play.begin(Method::POST, &path, body).await;
    play.send_instead(0, Method::GET, &link, None).await;
    found.and(play.end())
}

/// Guest state is not modelled: the grant here is of the disk alone.
pub(crate) async fn results_at_once() -> Played {
    let config = Config {
        scenario: free_disk("myResourceGroup", "myDisk", "westus", GIB),
        operations: OperationPolicy {
            results_at_once: true,
            ..OperationPolicy::default()
        },
        ..Config::default()
    };
    let mut play = Play::start("access-to-guest-state", config).await;
    let mut body = play.recorded[0].sent_json();
    let path = play.recorded[0].target().to_owned();
    let members = body.as_object_mut().unwrap();
    members.remove("getSecureVMGuestStateSAS").unwrap();
    play.send_instead(0, Method::POST, &path, Some(&body)).await;
    play.end()
}

/// Full snapshots are not modelled: the first one here is incremental.
pub(crate) async fn snapshots() -> Played {
    let scenario = Scenario::new().resource_group("rgfluentchash-4728", "westcentralus");
    let mut play = Play::start("disk-and-snapshots", config(scenario, 0)).await;
    for number in 0..3 {
        play.send(number).await;
    }
    let mut body = play.recorded[3].sent_json();
    body["properties"]["incremental"] = true.into();
    let path = play.recorded[3].target().to_owned();
    play.send_instead(3, Method::PUT, &path, Some(&body)).await;
    for number in 4..12 {
        play.send(number).await;
    }
    play.end()
}

/// `CopyStart` is not modelled: the second snapshot here is of a disk whose snapshots are copied in the background.
pub(crate) async fn background_copy() -> Played {
    let name = "snapshot-copied-in-background";
    let group = "cli_test_completion_percent1_000001";
    let scenario = free_disk(group, "disk1", "westus", 200 * GIB);
    let mut play = Play::start(name, config(scenario, 1)).await;
    play.send(0).await;
    play.send(1).await;
    let found = play.end();

    let group = "cli_test_completion_percent2_000002";
    let config = Config {
        background_copy_step: Some(10.0),
        ..config(free_disk(group, "disk1", "eastus", 200 * GIB), 1)
    };
    let mut play = Play::start(name, config).await;
    let path = compute(group, "snapshots", "snapb");
    let mut body = snapshot_body(group, "disk1");
    body["location"] = "eastus".into();
    body["tags"] = json!({});
    let link = play.begin(Method::PUT, &path, body).await;
    play.send_instead(2, Method::GET, &link, None).await;
    play.send_instead(3, Method::GET, &link, None).await;
    play.send(4).await;
    found.and(play.end())
}

/// Machines of images are not modelled: only the second one is made, of an existing disk. Its deletion was asked for three times
/// while it was under way; once is enough here.
pub(crate) async fn interface_and_machine() -> Played {
    let group = "rgfluentchash-8841";
    let mut scenario = free_disk(group, "dsk-22b02430c", "eastus", 30 * GIB)
        .network(group, "vnet57d76787c4c4", &[("subnet1", "10.0.0.0/28")])
        .network(group, "vnet82061985ce55", &[("subnet1", "10.0.0.0/28")]);
    for network in &mut scenario.virtual_networks {
        network.location = Some("eastus".into());
    }
    let mut play = Play::start("interface-and-vm", config(scenario, 1)).await;
    // Of neither interface's operation the status was recorded, but of two others.
    for (put, status) in [(1, 0), (16, 15)] {
        let first = play.send(put).await;
        let link = polling(&first);
        play.azure.get(&play.url(&link)).await.expect(200);
        play.send_instead(status, Method::GET, &link, None).await;
        play.send(put + 1).await;
    }
    for number in [4, 18, 19, 9, 10, 11, 13, 14] {
        play.send(number).await;
    }
    play.end()
}

/// The list of a scale set's interfaces is not modelled.
pub(crate) async fn interface_and_address() -> Played {
    let (group, zoned) = ("rg71925", "rgzoned9068");
    let interface = NetworkInterface {
        public_ip_address: Some("pip97d547296b".into()),
        network_security_group: Some("nsg49965".into()),
        enable_ip_forwarding: true,
        resource_group: Some(group.into()),
        location: Some("westus".into()),
        ..NetworkInterface::new("ni18950", "vnete8d18070af7f/subnet1")
    };
    let address = |name: &str, group: &str, zones: &[&str]| PublicIpAddress {
        name: name.into(),
        resource_group: Some(group.into()),
        location: Some(
            if zones.is_empty() {
                "westus"
            } else {
                "eastus2"
            }
            .into(),
        ),
        zones: zones.iter().map(|&zone| zone.to_owned()).collect(),
        ..PublicIpAddress::default()
    };
    let mut without = Scenario::new()
        .resource_group(group, "westus")
        .resource_group(zoned, "eastus2")
        .network(group, "vnete8d18070af7f", &[("subnet1", "10.0.0.0/28")]);
    without.public_ip_addresses = vec![
        address("pip97d547296b", group, &[]),
        address("pip8623", zoned, &["1"]),
    ];
    without.network_security_groups = vec![NetworkSecurityGroup {
        name: "nsg49965".into(),
        resource_group: Some(group.into()),
        ..NetworkSecurityGroup::default()
    }];
    let mut with = without.clone();
    without.network_interfaces = vec![interface.clone()];
    let vm = Vm::new(group, "vme1072861e3", Disk::new("os", GIB));
    with = with.vm(vm.nic(interface));
    let mut play = Play::start("interface-and-address", config(without, 0)).await;
    play.send(0).await;
    play.azure.emulator.load(&with).unwrap();
    play.send(1).await;
    play.send(2).await;
    play.end()
}

/// Refusals that the emulator knows, each by the nearest request that it models. The others are of providers and rules that it does
/// not model, and one form (capitals) of a provider that the product never asks.
pub(crate) async fn refusals() -> Played {
    let group = "rg";
    let mut scenario = free_disk(group, "disk", "westus", GIB)
        .resource_group("56535a07b46448e", "westus")
        .resource_group("rgcovs46558701", "westus");
    scenario.tenants = vec![Tenant {
        id: DEFAULT_TENANT.into(),
        principals: vec![Principal {
            client_id: DEFAULT_CLIENT_ID.into(),
            client_secret: DEFAULT_CLIENT_SECRET.into(),
            subscriptions: None,
            denied_actions: vec!["Microsoft.Compute/virtualMachines/read".into()],
        }],
    }];
    let mut play = Play::start("errors", config(scenario, 0)).await;
    // Not allowed in this state.
    let access = json!({ "access": "Write", "durationInSeconds": 600 });
    let disk = compute(group, "disks", "disk");
    let grant = disk.replace('?', "/beginGetAccess?");
    play.send_instead(1, Method::POST, &grant, Some(&access))
        .await;
    // Not there: the resource, the resource group.
    let missing = compute("56535a07b46448e", "disks", "javavm");
    play.send_instead(5, Method::GET, &missing, None).await;
    let missing = compute("vmbdtest8793", "disks", "stgbnc7102");
    play.send_instead(6, Method::DELETE, &missing, None).await;
    play.send(7).await;
    // Not permitted.
    let vms = format!(
        "/subscriptions/{DEFAULT_SUBSCRIPTION}/providers/Microsoft.Compute/virtualMachines?api-version=2024-11-01"
    );
    play.send_instead(8, Method::GET, &vms, None).await;
    // A parameter that is missing.
    let body = json!({ "location": "westus", "properties": { "creationData": { "createOption": "Empty" } } });
    let new = compute(group, "disks", "new");
    play.send_instead(11, Method::PUT, &new, Some(&body)).await;
    // A provider that fails, or does not answer in time.
    for (number, status, code) in [
        (16, 500, "InternalServerError"),
        (21, 504, "GatewayTimeout"),
    ] {
        let fails = Action::Status {
            status,
            code: Some(code.into()),
            body: None,
            retry_after: None,
        };
        play.azure.emulator.clear_faults();
        play.azure
            .emulator
            .fault(Fault::new("Disks_GrantAccess", fails));
        play.send_instead(number, Method::POST, &grant, Some(&access))
            .await;
    }
    play.end()
}

/// HTTP 200, status `Failed`.
pub(crate) async fn failed_operations() -> Played {
    let group = "rg";
    let mut play = Play::start("errors", config(free_disk(group, "disk", "westus", GIB), 0)).await;
    for number in [23, 24, 25] {
        let recorded = play.recorded[number].json();
        let text = |name: &str| recorded["error"][name].as_str().unwrap().to_owned();
        play.azure.emulator.clear_faults();
        play.azure.emulator.fault(Fault::new(
            "Snapshots_CreateOrUpdate",
            Action::FailOperation {
                code: text("code"),
                message: text("message"),
            },
        ));
        let mut body = snapshot_body(group, "disk");
        body["location"] = "westus".into();
        let path = compute(group, "snapshots", &format!("s{number}"));
        let link = play.begin(Method::PUT, &path, body).await;
        let answer = play.send_instead(number, Method::GET, &link, None).await;
        assert_eq!(answer.json()["error"], recorded["error"]);
    }
    play.end()
}
