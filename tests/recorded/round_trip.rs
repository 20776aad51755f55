//! What a recorded resource has, comes back: members that no model names, spelling and order included.

use azure_vm_fd::azure::generated::compute::VirtualMachine;
use azure_vm_fd::azure::generated::disks::{Disk, Snapshot};
use azure_vm_fd::azure::generated::network::NetworkInterface;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clock;
use crate::recording::exchanges;
use crate::service::Service;

/// All recordings with resources in their answers.
const WITH_RESOURCES: [&str; 11] = [
    "disk-and-snapshots",
    "disk-ready-to-upload",
    "disk-upload",
    "interface-and-address",
    "interface-and-vm",
    "snapshot-access",
    "snapshot-copied-in-background",
    "vm-deallocated",
    "vm-running",
    "vm-zone-and-identities",
    "vms-of-group",
];

fn round_trip<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
    let model: T = serde_json::from_value(value.clone()).unwrap();
    serde_json::to_value(model).unwrap()
}

/// Every resource in a document, however deep: the resource, lists of them, and the output of an operation.
fn resources(value: &Value) -> Vec<&Value> {
    if value.get("properties").is_some_and(Value::is_object) {
        if let Some(output) = value.pointer("/properties/output") {
            return resources(output);
        }
        return vec![value];
    }
    let list = value.get("value").and_then(Value::as_array);
    list.into_iter().flatten().flat_map(resources).collect()
}

#[test]
fn resources_survive_their_models() {
    let mut met = Vec::new();
    for name in WITH_RESOURCES.into_iter().chain(["vms-of-subscription"]) {
        for exchange in exchanges(name) {
            if exchange.body.is_empty() {
                continue;
            }
            let body = exchange.json();
            for resource in resources(&body) {
                // The first answer to the creation of a disk or snapshot says less than its address.
                let kind = resource.get("type").or(resource.get("id"));
                let kind = kind.and_then(Value::as_str).unwrap_or(exchange.path());
                let kind = kind.to_ascii_lowercase();
                let back = if kind.ends_with("/virtualmachines") {
                    met.push("vm");
                    round_trip::<VirtualMachine>(resource)
                } else if kind.contains("networkinterfaces") {
                    met.push("interface");
                    round_trip::<NetworkInterface>(resource)
                } else if kind.contains("snapshots") {
                    met.push("snapshot");
                    round_trip::<Snapshot>(resource)
                } else if kind.contains("publicipaddresses") {
                    // The client keeps addresses as references only.
                    continue;
                } else {
                    met.push("disk");
                    round_trip::<Disk>(resource)
                };
                assert_eq!(&back, resource, "{name}");
            }
        }
    }
    let count = |kind: &str| met.iter().filter(|met| **met == kind).count();
    let counts = ["vm", "interface", "snapshot", "disk"].map(count);
    assert_eq!(counts, [16, 10, 14, 12], "{met:?}");
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_was_read_is_written_whole() {
    let recorded = exchanges("interface-and-address");
    let get = &recorded[1];
    let mut put = get.at("PUT", &get.target);
    put.headers.clear();
    let service = Service::start(vec![get.clone(), put], &[]).await;
    let azure = service.azure();
    let id = get.resource();
    let mut body = clock::run(&service, azure.network_interface(&id))
        .await
        .unwrap();
    assert_eq!(body.to_string(), get.json().to_string());
    let configuration = &body["properties"]["ipConfigurations"][0]["properties"];
    let address = configuration["publicIPAddress"]["id"].as_str().unwrap();
    assert!(address.ends_with("/publicIPAddresses/pip97d547296b"));
    // A member that no document of the client's API version names.
    assert_eq!(configuration["isInUseWithService"], false);
    body["tags"]["checked"] = "yes".into();
    clock::run(&service, azure.create_network_interface(&id, &body))
        .await
        .unwrap();
    let sent = service.seen()[1].json();
    assert_eq!(sent, body);
    assert_eq!(
        sent["properties"]["virtualNetworkTapProvisioningState"],
        "NotProvisioned"
    );
}

#[tokio::test(start_paused = true)]
async fn zones_and_identities_that_were_read_are_written_whole() {
    for get in exchanges("vm-zone-and-identities") {
        let mut put = get.at("PUT", &get.target);
        put.status = 201;
        let service = Service::start(vec![get.clone(), put], &[]).await;
        let azure = service.azure();
        let id = get.resource();
        let mut body = clock::run(&service, azure.virtual_machine(&id))
            .await
            .unwrap();
        body["tags"]["checked"] = "yes".into();
        clock::run(&service, azure.create_virtual_machine(&id, &body))
            .await
            .unwrap();
        let sent = service.seen()[1].json();
        assert_eq!(sent, body);
        assert_eq!(
            sent.get("zones"),
            get.json().get("zones"),
            "the zone of the machine"
        );
        assert_eq!(sent.get("identity"), get.json().get("identity"));
    }
}
