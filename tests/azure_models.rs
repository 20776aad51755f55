//! The generated models: what Azure says comes back unchanged, and what only Azure says is taken out of a new resource.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use azure_vm_fd::azure::generated::compute::{
    DiskCreateOptionTypes, VIRTUAL_MACHINE_READ_ONLY, VirtualMachine,
};
use azure_vm_fd::azure::generated::disks::{
    AccessLevel, AccessUri, CreationData, DISK_READ_ONLY, Disk, DiskCreateOption, DiskList,
    DiskState, GrantAccessData, Snapshot, SnapshotProperties,
};
use azure_vm_fd::azure::generated::network::{NETWORK_INTERFACE_READ_ONLY, NetworkInterface};
use azure_vm_fd::azure::read_only;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Members that no document names sit on every level; ids come in every casing, enumerations with values of tomorrow.
fn virtual_machine() -> Value {
    json!({
        "name": "web",
        "id": "/subscriptions/s/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/web",
        "type": "microsoft.compute/virtualmachines",
        "location": "westeurope",
        "tags": {"owner": "ops", "empty": ""},
        "zones": ["2"],
        "etag": "\"7\"",
        "identity": {
            "type": "SystemAssigned, UserAssigned",
            "principalId": "p", "tenantId": "t",
            "userAssignedIdentities": {"/SUBSCRIPTIONS/s/x": {"principalId": "p", "clientId": "c"}},
            "newMember": [1, 2]
        },
        "plan": {"name": "n", "publisher": "p", "product": "q"},
        "newMember": {"a": null},
        "properties": {
            "vmId": "98f6aa47-7ef0-4a36-90bc-d8957c9f0033",
            "provisioningState": "Succeeded",
            "hardwareProfile": {"vmSize": "Standard_D2s_v3", "vmSizeProperties": {"vCPUsAvailable": 1}},
            "storageProfile": {
                "imageReference": {"publisher": "p", "exactVersion": "1.2.3"},
                "osDisk": {
                    "osType": "Linux", "name": "web_os", "createOption": "FromImage", "caching": "ReadWrite",
                    "managedDisk": {"id": "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/disks/web_os"},
                    "deleteOption": "Evaporate"
                },
                "dataDisks": [{
                    "lun": 5, "name": "d5", "createOption": "Attach", "caching": "None",
                    "diskIOPSReadWrite": 500, "toBeDetached": false, "newMember": 1.5
                }],
                "diskControllerType": "SCSI"
            },
            "osProfile": {"computerName": "web", "linuxConfiguration": {"provisionVMAgent": true}},
            "securityProfile": {"uefiSettings": {"secureBootEnabled": true}},
            "networkProfile": {
                "networkInterfaces": [{"id": "/x/NIC", "properties": {"primary": true, "newMember": "n"}}],
                "networkApiVersion": "2022-11-01"
            },
            "instanceView": {"statuses": [{"code": "PowerState/running", "level": "Info"}]},
            "userData": "eA=="
        },
        "resources": [{"id": "/x/extension"}]
    })
}

fn disk() -> Value {
    json!({
        "name": "web_os",
        "location": "westeurope",
        "managedBy": "/subscriptions/s/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/web",
        "sku": {"name": "PremiumV3_LRS", "tier": "Premium"},
        "properties": {
            "osType": "Linux",
            "creationData": {"createOption": "FromDream", "sourceUniqueId": "u", "dream": {"depth": 3}},
            "diskSizeGB": 30,
            "diskSizeBytes": 32_213_303_296_u64,
            "diskIOPSReadWrite": 120,
            "burstingEnabled": "true",
            "completionPercent": 100.0,
            "encryption": {"type": "EncryptionAtRestWithPlatformKey"},
            "timeCreated": "2019-10-23T05:13:54.1234567-07:00",
            "uniqueId": "04edf645-da44-41ee-9920-b0677ec17605",
            "diskState": "Hibernating",
            "LastOwnershipUpdateTime": "2023-11-06T08:48:01.2914481+00:00"
        }
    })
}

fn network_interface() -> Value {
    json!({
        "name": "web-nic", "location": "westeurope", "etag": "W/\"1\"", "kind": "Regular",
        "properties": {
            "provisioningState": "Succeeded", "resourceGuid": "g", "macAddress": "00-0D-3A-00-00-01", "primary": true,
            "virtualMachine": {"id": "/x/web"},
            "ipConfigurations": [{
                "name": "first", "id": "/x/web-nic/ipConfigurations/first", "etag": "W/\"1\"", "type": "t",
                "properties": {
                    "provisioningState": "Succeeded", "privateIPAddress": "10.0.0.4",
                    "privateIPAllocationMethod": "Dynamic", "privateIPAddressVersion": "IPv4", "primary": true,
                    "subnet": {"id": "/x/subnets/default"},
                    "publicIPAddress": {"id": "/x/publicIPAddresses/web", "properties": {"deleteOption": "Detach"}}
                }
            }],
            "dnsSettings": {"dnsServers": [], "appliedDnsServers": [], "internalDomainNameSuffix": "x.net"},
            "enableAcceleratedNetworking": false, "enableIPForwarding": true, "nicType": "Standard"
        }
    })
}

/// Through the model and back.
fn round_trip<T: DeserializeOwned + Serialize>(value: &Value) -> (T, Value) {
    let model: T = serde_json::from_value(value.clone()).unwrap();
    let back = serde_json::to_value(&model).unwrap();
    (model, back)
}

#[test]
fn resources_survive_a_round_trip() {
    let (vm, back) = round_trip::<VirtualMachine>(&virtual_machine());
    assert_eq!(back, virtual_machine());
    let storage = vm.properties.unwrap().storage_profile.unwrap();
    let os_disk = storage.os_disk.unwrap();
    assert_eq!(
        os_disk.create_option,
        Some(DiskCreateOptionTypes::FromImage)
    );
    assert_eq!(os_disk.delete_option.unwrap().as_str(), "Evaporate");
    assert_eq!(storage.data_disks.unwrap()[0].lun, Some(5));

    let (model, back) = round_trip::<Disk>(&disk());
    assert_eq!(back, disk());
    let properties = model.properties.unwrap();
    assert_eq!(properties.disk_size_bytes, Some(32_213_303_296));
    assert_eq!(
        properties.disk_state,
        Some(DiskState::Other("Hibernating".into()))
    );
    assert_eq!(properties.completion_percent.unwrap().as_f64(), Some(100.0));

    let (_, back) = round_trip::<NetworkInterface>(&network_interface());
    assert_eq!(back, network_interface());
}

#[test]
fn numbers_keep_their_form() {
    for percent in [json!(0.0), json!(0), json!(99.5), json!(100)] {
        let value = json!({"properties": {"completionPercent": percent, "burstingEnabled": false}});
        assert_eq!(
            round_trip::<Snapshot>(&value).1.to_string(),
            value.to_string()
        );
    }
    let negative = json!({"properties": {"diskSizeBytes": -1}});
    serde_json::from_value::<Disk>(negative).unwrap_err();
}

#[test]
fn null_means_absent() {
    let page: DiskList = serde_json::from_value(json!({
        "value": [{"tags": null, "zones": null, "properties": {"diskSizeBytes": null, "tier": null, "new": null}}],
        "nextLink": null
    }))
    .unwrap();
    assert_eq!(page.next_link, None);
    assert_eq!(
        serde_json::to_value(&page.value.unwrap()[0]).unwrap(),
        json!({"properties": {"new": null}})
    );
}

#[test]
fn read_only_members_are_taken_out() {
    let mut vm = virtual_machine();
    read_only::remove(&mut vm, VIRTUAL_MACHINE_READ_ONLY);
    assert_eq!(
        vm["identity"]["userAssignedIdentities"],
        json!({"/SUBSCRIPTIONS/s/x": {}})
    );
    for pointer in [
        "/id",
        "/etag",
        "/resources",
        "/properties/vmId",
        "/properties/instanceView",
        "/properties/storageProfile/dataDisks/0/diskIOPSReadWrite",
    ] {
        assert_eq!(vm.pointer(pointer), None, "{pointer}");
    }
    assert_eq!(
        vm["properties"]["userData"], "eA==",
        "an unknown member stays"
    );
    assert_eq!(vm["plan"], virtual_machine()["plan"]);

    let mut disk = disk();
    read_only::remove(&mut disk, DISK_READ_ONLY);
    assert_eq!(
        disk,
        json!({
            "location": "westeurope",
            "sku": {"name": "PremiumV3_LRS"},
            "properties": {
                "osType": "Linux",
                "creationData": {"createOption": "FromDream", "dream": {"depth": 3}},
                "diskSizeGB": 30,
                "diskIOPSReadWrite": 120,
                "burstingEnabled": "true",
                "encryption": {"type": "EncryptionAtRestWithPlatformKey"}
            }
        })
    );

    let mut nic = network_interface();
    read_only::remove(&mut nic, NETWORK_INTERFACE_READ_ONLY);
    assert_eq!(
        nic,
        json!({
            "location": "westeurope", "kind": "Regular",
            "properties": {
                "ipConfigurations": [{
                    "name": "first",
                    "properties": {
                        "privateIPAddress": "10.0.0.4", "privateIPAllocationMethod": "Dynamic",
                        "privateIPAddressVersion": "IPv4", "primary": true,
                        "subnet": {"id": "/x/subnets/default"},
                        "publicIPAddress": {"id": "/x/publicIPAddresses/web", "properties": {"deleteOption": "Detach"}}
                    }
                }],
                "dnsSettings": {"dnsServers": []},
                "enableAcceleratedNetworking": false, "enableIPForwarding": true, "nicType": "Standard"
            }
        })
    );
}

#[test]
fn requests_carry_only_what_is_filled_in() {
    let snapshot = Snapshot {
        location: Some("westeurope".into()),
        properties: Some(SnapshotProperties {
            creation_data: Some(CreationData {
                create_option: Some(DiskCreateOption::Copy),
                source_resource_id: Some("/x/disks/web_os".into()),
                ..CreationData::default()
            }),
            incremental: Some(true),
            ..SnapshotProperties::default()
        }),
        ..Snapshot::default()
    };
    assert_eq!(
        serde_json::to_value(&snapshot).unwrap(),
        json!({
            "location": "westeurope",
            "properties": {
                "creationData": {"createOption": "Copy", "sourceResourceId": "/x/disks/web_os"},
                "incremental": true
            }
        })
    );
    let grant = GrantAccessData {
        access: Some(AccessLevel::Read),
        duration_in_seconds: Some(3600),
        ..GrantAccessData::default()
    };
    assert_eq!(
        serde_json::to_value(&grant).unwrap(),
        json!({"access": "Read", "durationInSeconds": 3600})
    );
}

#[test]
fn a_sas_is_read_but_never_shown() {
    let access: AccessUri = serde_json::from_value(json!({
        "accessSAS": "https://md-x.blob.core.windows.net/c/abcd?sig=geheim",
        "securityDataAccessSAS": null,
        "tomorrowsAccessSAS": "https://md-x.blob.core.windows.net/c/abcd?sig=geheim"
    }))
    .unwrap();
    assert!(!format!("{access:?}").contains("geheim"));
    assert!(access.access_sas.unwrap().expose().ends_with("?sig=geheim"));
    assert!(access.security_data_access_sas.is_none());
}
