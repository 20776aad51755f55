//! The network interfaces of the new VM.
//!
//! They are always new ones: the saved VM, or somebody else, may still use the old. Subnet, security groups, address
//! method and settings come back; what only one interface can hold (a public address, a place behind a load balancer)
//! is named to the user instead of taken away from whoever has it.

use serde_json::Value;

use crate::azure::generated::network::NETWORK_INTERFACE_READ_ONLY;
use crate::azure::{Azure, Error as AzureError, ResourceId, read_only};
use crate::json;
use crate::notice::Notices;

/// References of an IP configuration that are not repeated, with their names for people.
const EXCLUSIVE: [(&str, &str); 6] = [
    ("publicIPAddress", "public IP address"),
    ("loadBalancerBackendAddressPools", "load balancer pool"),
    ("loadBalancerInboundNatRules", "load balancer NAT rule"),
    (
        "applicationGatewayBackendAddressPools",
        "application gateway pool",
    ),
    ("gatewayLoadBalancer", "gateway load balancer"),
    ("virtualNetworkTaps", "virtual network tap"),
];

/// Codes with which the network service refuses a static private address.
const ADDRESS_TAKEN: [&str; 3] = [
    "PrivateIPAddressInUse",
    "PrivateIPAddressIsAllocated",
    "PrivateIPAddressIsBeingAllocated",
];

/// `<vm>-nic<number>-<suffix>`: at most 80 characters, as a VM's name has at most 64.
pub(super) fn name(vm: &str, number: usize, suffix: &str) -> String {
    format!("{vm}-nic{number}-{suffix}")
}

/// The body of a new interface like the saved one; what it will not have goes to `notes`.
pub(super) fn body(saved: &Value, notes: &mut Vec<String>) -> Value {
    let saved_name = json::text(saved, "/name").unwrap_or("(unnamed)");
    let mut body = saved.clone();
    read_only::remove(&mut body, NETWORK_INTERFACE_READ_ONLY);
    if let Some(label) = json::text(saved, "/properties/dnsSettings/internalDnsNameLabel") {
        notes.push(format!(
            "network interface {saved_name}: the DNS label {label} is not given to the new interface, as a label is \
             unique in its network"
        ));
        read_only::remove(&mut body, &["/properties/dnsSettings/internalDnsNameLabel"]);
    }
    let configurations = body
        .pointer_mut("/properties/ipConfigurations")
        .and_then(Value::as_array_mut);
    for configuration in configurations.into_iter().flatten() {
        let name = json::text(configuration, "/name")
            .unwrap_or("(unnamed)")
            .to_owned();
        let Some(properties) = configuration
            .get_mut("properties")
            .and_then(Value::as_object_mut)
        else {
            continue;
        };
        for (member, what) in EXCLUSIVE {
            for id in properties.shift_remove(member).iter().flat_map(referenced) {
                notes.push(format!(
                    "network interface {saved_name}, IP configuration {name}: {what} {id} is not attached to the new \
                     interface; attach it yourself if it is free"
                ));
            }
        }
        let is_static = properties
            .get("privateIPAllocationMethod")
            .and_then(Value::as_str)
            .is_some_and(|method| method.eq_ignore_ascii_case("Static"));
        if !is_static {
            properties.shift_remove("privateIPAddress");
        }
        // A subnet or group is named by its id; a whole resource would be an attempt to change it.
        for member in ["subnet", "applicationSecurityGroups"] {
            if let Some(reference) = properties.get_mut(member) {
                reduce_to_ids(reference);
            }
        }
    }
    if let Some(group) = body.pointer_mut("/properties/networkSecurityGroup") {
        reduce_to_ids(group);
    }
    body
}

/// Makes the interface. A static address that is taken becomes a dynamic one, with a warning.
///
/// # Errors
///
/// Azure's refusal.
pub(super) async fn create(
    azure: &Azure,
    id: &ResourceId,
    body: &Value,
    notices: &Notices,
) -> Result<(), AzureError> {
    let error = match azure.create_network_interface(id, body).await {
        Ok(_created) => return Ok(()),
        Err(error) => error,
    };
    let taken = error.code().is_some_and(|code| {
        ADDRESS_TAKEN
            .iter()
            .any(|known| known.eq_ignore_ascii_case(code))
    });
    let (body, given_up) = with_dynamic_addresses(body);
    if !taken || given_up.is_empty() {
        return Err(error);
    }
    azure.create_network_interface(id, &body).await?;
    notices.warning(format!(
        "network interface {}: the private address {} is in use, the new interface has a dynamic one",
        id.name(),
        given_up.join(", ")
    ));
    Ok(())
}

/// The body with dynamic addresses throughout, and the static ones that it had.
fn with_dynamic_addresses(body: &Value) -> (Value, Vec<String>) {
    let mut body = body.clone();
    let mut given_up = Vec::new();
    let configurations = body
        .pointer_mut("/properties/ipConfigurations")
        .and_then(Value::as_array_mut);
    for configuration in configurations.into_iter().flatten() {
        if let Some(properties) = configuration
            .get_mut("properties")
            .and_then(Value::as_object_mut)
            && let Some(Value::String(address)) = properties.shift_remove("privateIPAddress")
        {
            properties.insert("privateIPAllocationMethod".into(), "Dynamic".into());
            given_up.push(address);
        }
    }
    (body, given_up)
}

/// The ids in a reference or a list of them.
fn referenced(reference: &Value) -> Vec<String> {
    let list = match reference {
        Value::Array(list) => list.as_slice(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            std::slice::from_ref(reference)
        }
    };
    list.iter()
        .filter_map(|one| json::text(one, "/id"))
        .map(str::to_owned)
        .collect()
}

fn reduce_to_ids(reference: &mut Value) {
    match reference {
        Value::Array(list) => list.iter_mut().for_each(reduce_to_ids),
        Value::Object(members) => members.retain(|name, _| name == "id"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn saved() -> Value {
        json!({
            "id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkInterfaces/old",
            "name": "old", "type": "x", "etag": "e", "location": "westeurope", "tags": { "a": "b" },
            "properties": {
                "provisioningState": "Succeeded", "macAddress": "00", "primary": true, "resourceGuid": "r",
                "virtualMachine": { "id": "v" },
                "enableAcceleratedNetworking": true, "enableIPForwarding": true, "futureSwitch": 7,
                "networkSecurityGroup": { "id": "/nsg", "location": "x" },
                "dnsSettings": { "dnsServers": ["10.0.0.1"], "appliedDnsServers": ["10.0.0.1"], "internalDnsNameLabel": "l" },
                "ipConfigurations": [
                    { "name": "one", "id": "i", "etag": "e", "properties": {
                        "provisioningState": "Succeeded", "privateIPAddress": "10.0.0.4",
                        "privateIPAllocationMethod": "Static", "subnet": { "id": "/subnet", "properties": {} },
                        "publicIPAddress": { "id": "/pip" }, "primary": true,
                        "loadBalancerBackendAddressPools": [{ "id": "/pool" }],
                        "applicationSecurityGroups": [{ "id": "/asg" }] } },
                    { "name": "two", "properties": {
                        "privateIPAddress": "10.0.0.5", "privateIPAllocationMethod": "Dynamic",
                        "subnet": { "id": "/subnet" } } },
                ],
            },
        })
    }

    #[test]
    fn what_can_be_kept_is_kept_and_the_rest_is_named() {
        let mut notes = Vec::new();
        assert_eq!(
            body(&saved(), &mut notes),
            json!({
                "location": "westeurope", "tags": { "a": "b" },
                "properties": {
                    "enableAcceleratedNetworking": true, "enableIPForwarding": true, "futureSwitch": 7,
                    "networkSecurityGroup": { "id": "/nsg" },
                    "dnsSettings": { "dnsServers": ["10.0.0.1"] },
                    "ipConfigurations": [
                        { "name": "one", "properties": {
                            "privateIPAddress": "10.0.0.4", "privateIPAllocationMethod": "Static",
                            "subnet": { "id": "/subnet" }, "primary": true,
                            "applicationSecurityGroups": [{ "id": "/asg" }] } },
                        { "name": "two", "properties": {
                            "privateIPAllocationMethod": "Dynamic", "subnet": { "id": "/subnet" } } },
                    ],
                },
            })
        );
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("/pip")));
        assert!(notes.iter().any(|note| note.contains("/pool")));
    }

    #[test]
    fn static_addresses_can_be_given_up() {
        let (dynamic, given_up) = with_dynamic_addresses(&body(&saved(), &mut Vec::new()));
        assert_eq!(given_up, ["10.0.0.4"]);
        let configurations = json::elements(&dynamic, "/properties/ipConfigurations");
        assert!(configurations.iter().all(|one| {
            json::text(one, "/properties/privateIPAllocationMethod") == Some("Dynamic")
                && json::text(one, "/properties/privateIPAddress").is_none()
        }));
    }

    #[test]
    fn names_fit_for_the_longest_vm() {
        assert!(name(&"v".repeat(64), 31, "0123abcd").len() <= 80);
    }
}
