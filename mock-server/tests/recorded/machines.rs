//! Machines of the emulator that look like recorded ones.
use mock_server::{AttachedDisk, ByteSize, Disk, GIB, NetworkInterface, PowerState, Scenario, Vm};
use serde_json::{Value, json};

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

/// The part of an id that follows `name`.
fn part(id: &str, name: &str) -> String {
    let mut parts = id.split('/');
    parts
        .find(|part| part.eq_ignore_ascii_case(name))
        .and_then(|_| parts.next())
        .unwrap()
        .to_owned()
}

/// Scenario with these machines.
pub(crate) fn scenario(vms: &[Value]) -> Scenario {
    vms.iter()
        .fold(Scenario::new(), |scenario, vm| scenario.vm(machine(vm)))
}

/// A machine with the same names, disks, interfaces and settings. Its disks are managed ones in any case.
fn machine(recorded: &Value) -> Vm {
    let properties = &recorded["properties"];
    let storage = &properties["storageProfile"];
    let mut os_disk = attached(&storage["osDisk"]);
    os_disk.disk.os_type = text(storage, "/osDisk/osType").map(str::to_owned);
    let data = storage["dataDisks"].as_array().unwrap().iter();
    let interfaces = properties["networkProfile"]["networkInterfaces"].as_array();
    let mut vm = Vm {
        name: text(recorded, "/name").unwrap().to_owned(),
        resource_group: Some(part(text(recorded, "/id").unwrap(), "resourceGroups")),
        location: text(recorded, "/location").map(str::to_owned),
        vm_size: text(properties, "/hardwareProfile/vmSize").map(str::to_owned),
        zone: text(recorded, "/zones/0").map(str::to_owned),
        os_disk,
        data_disks: data.map(attached).collect(),
        network_interfaces: interfaces
            .unwrap()
            .iter()
            .map(|interface| NetworkInterface {
                name: text(interface, "/id")
                    .unwrap()
                    .rsplit('/')
                    .next()
                    .unwrap()
                    .to_owned(),
                ..NetworkInterface::default()
            })
            .collect(),
        identity: recorded.get("identity").cloned(),
        power_state: match text(properties, "/instanceView/statuses/1/code") {
            Some("PowerState/deallocated") => PowerState::Deallocated,
            _ => PowerState::Running,
        },
        ..Vm::default()
    };
    for (name, value) in recorded["tags"].as_object().unwrap() {
        vm = vm.tag(name, value.as_str().unwrap());
    }
    let image = json!({ "imageReference": storage["imageReference"] });
    vm.properties.insert("storageProfile".into(), image);
    for name in ["osProfile", "availabilitySet"] {
        if let Some(value) = properties.get(name) {
            vm.properties.insert(name.into(), value.clone());
        }
    }
    vm
}

fn attached(recorded: &Value) -> AttachedDisk {
    let size = recorded["diskSizeGB"].as_u64().unwrap() * GIB;
    AttachedDisk {
        disk: Disk {
            size: ByteSize(size),
            sku: text(recorded, "/managedDisk/storageAccountType").map(str::to_owned),
            ..Disk::new(text(recorded, "/name").unwrap(), size)
        },
        lun: recorded["lun"].as_u64().map(|lun| lun.try_into().unwrap()),
        caching: text(recorded, "/caching").map(str::to_owned),
        delete_option: None,
    }
}
