//! `list`: the VMs of the subscription and their disks.

use azure_vm_fd::azure::{Azure, Error, ResourceId};
use azure_vm_fd::inventory::{AttachedDisk, ManagedDisks};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::args::{Pairs, Parameters};
use crate::failure::{Failure, Status};
use crate::output::{Output, Report, human};
use crate::plan::slot;

/// VMs asked for their power state at a time: far below the reads that Azure allows a subscription ("Compute throttling
/// limits": 8,000 a minute).
const PARALLEL_READS: usize = 8;

/// The JSON document.
#[derive(Serialize)]
struct List {
    vms: Vec<Vm>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Vm {
    name: String,
    uuid: Option<String>,
    resource_group: String,
    location: Option<String>,
    /// `running`, `deallocated`, ...; null where Azure does not say.
    power_state: Option<String>,
    size: Option<String>,
    disks: Vec<AttachedDisk>,
}

pub(crate) async fn run(
    parameters: &Parameters,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let settings = parameters.settings(Pairs::new(), output)?;
    let azure = Azure::new(settings.azure, cancel)?;
    let ids: Vec<_> = azure
        .virtual_machines()
        .await?
        .iter()
        .filter_map(id)
        .collect();
    let resources = read_all(&azure, ids).await?;
    let disks = ManagedDisks::new(azure.disks().await?);
    let mut vms: Vec<_> = resources
        .iter()
        .filter_map(|(id, vm)| Some(Vm::new(id, vm.as_ref()?, &disks)))
        .collect();
    vms.sort_by(|a, b| (&a.name, &a.resource_group).cmp(&(&b.name, &b.resource_group)));
    for vm in &vms {
        vm.print(output);
    }
    Report::new(Status::Ok, &List { vms })
}

/// The VMs with their run-time state; `None` for one that was deleted meanwhile.
async fn read_all(
    azure: &Azure,
    ids: Vec<ResourceId>,
) -> Result<Vec<(ResourceId, Option<Value>)>, Error> {
    stream::iter(ids)
        .map(|id| async move {
            match azure.virtual_machine_with_instance_view(&id).await {
                Ok(vm) => Ok((id, Some(vm))),
                Err(error) if error.is_not_found() => Ok((id, None)),
                Err(error) => Err(error),
            }
        })
        .buffered(PARALLEL_READS)
        .try_collect()
        .await
}

impl Vm {
    fn new(id: &ResourceId, vm: &Value, disks: &ManagedDisks) -> Self {
        Self {
            name: id.name().to_owned(),
            uuid: owned(vm, "/properties/vmId").map(|uuid| uuid.to_ascii_lowercase()),
            resource_group: id.resource_group().to_owned(),
            location: owned(vm, "/location"),
            power_state: power_state(vm),
            size: owned(vm, "/properties/hardwareProfile/vmSize"),
            disks: disks.of_vm(vm),
        }
    }

    fn print(&self, output: &mut Output) {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
        output.line(format!(
            "{}  {}  {}  {}  {}",
            self.name,
            self.resource_group,
            shown(&self.location),
            shown(&self.power_state),
            shown(&self.size)
        ));
        for disk in &self.disks {
            output.line(format!(
                "  {:8} {}  {}  {}",
                slot(disk.slot),
                disk.name,
                disk.size_bytes.map_or_else(|| "?".to_owned(), human),
                shown(&disk.sku)
            ));
        }
    }
}

/// The word after `PowerState/` among the states of the instance view.
fn power_state(vm: &Value) -> Option<String> {
    let statuses = vm
        .pointer("/properties/instanceView/statuses")?
        .as_array()?;
    statuses
        .iter()
        .filter_map(|status| status["code"].as_str()?.strip_prefix("PowerState/"))
        .map(str::to_owned)
        .next()
}

fn id(vm: &Value) -> Option<ResourceId> {
    ResourceId::parse(text(vm, "/id")?)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

fn owned(value: &Value, pointer: &str) -> Option<String> {
    text(value, pointer).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_vm_is_shown_as_the_list_and_its_instance_view_tell() {
        let vm = json!({
            "location": "westeurope",
            "properties": {
                "vmId": "3D1F0C52-7A44-4E0E-9A53-8B1D6C2F9E10",
                "hardwareProfile": { "vmSize": "Standard_B2s" },
                "instanceView": { "statuses": [
                    { "code": "ProvisioningState/succeeded" },
                    { "code": "PowerState/deallocated" },
                ] },
            },
        });
        let id = ResourceId::new("s", "g", "Microsoft.Compute/virtualMachines", "v");
        let vm = Vm::new(&id, &vm, &ManagedDisks::new(Vec::new()));
        assert_eq!(vm.power_state.as_deref(), Some("deallocated"));
        assert_eq!(
            vm.uuid.as_deref(),
            Some("3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10")
        );
        assert_eq!((vm.name.as_str(), vm.resource_group.as_str()), ("v", "g"));
    }
}
