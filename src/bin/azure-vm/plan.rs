//! `plan`: what a backup would save, and why. Reads only.

use azure_vm_fd::azure::Azure;
use azure_vm_fd::backup::{Backup, VmPlan};
use azure_vm_fd::document::Slot;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{Parameters, SelectionArgs};
use crate::backup::this_run;
use crate::failure::{Failure, Status};
use crate::output::{Output, Report, human};

/// The JSON document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    /// Upper bound of what would be read, in bytes: how much of a disk is allocated only its snapshot tells.
    size_bytes: u64,
    vms: Vec<PlannedVm>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlannedVm {
    name: String,
    resource_group: String,
    uuid: String,
    refusal: Option<String>,
    disks: Vec<Disk>,
    files: Vec<PlannedFile>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Disk {
    name: String,
    slot: Slot,
    size_bytes: u64,
    sku: String,
    content: &'static str,
    base: Option<String>,
    reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlannedFile {
    path: String,
    size_bytes: u64,
}

pub(crate) async fn run(
    parameters: &Parameters,
    selection: &SelectionArgs,
    cancel: CancellationToken,
    output: &mut Output,
) -> Result<Report, Failure> {
    let settings = parameters.settings(selection.pairs(), output)?;
    let azure = Azure::new(settings.azure, cancel)?;
    let (run, selection) = (this_run(), &settings.selection);
    let plans = Backup::plan(&azure, &run, selection, None, &output.notices()).await?;
    output.drain();
    let plan = Plan::new(plans);
    plan.print(output);
    let savable = plan.vms.iter().filter(|vm| vm.refusal.is_none()).count();
    let status = match savable {
        0 => Status::Failed,
        n if n < plan.vms.len() => Status::Partial,
        _ => Status::Ok,
    };
    Report::new(status, &plan)
}

impl Plan {
    fn new(plans: Vec<VmPlan>) -> Self {
        let vms: Vec<_> = plans.into_iter().map(PlannedVm::new).collect();
        let size_bytes = vms
            .iter()
            .filter(|vm| vm.refusal.is_none())
            .flat_map(|vm| &vm.disks)
            .map(|disk| disk.size_bytes)
            .sum();
        Self { size_bytes, vms }
    }

    fn print(&self, output: &mut Output) {
        for vm in &self.vms {
            output.line(format!(
                "{} (resource group {}, uuid {})",
                vm.name, vm.resource_group, vm.uuid
            ));
            if let Some(refusal) = &vm.refusal {
                output.line(format!("  cannot be saved: {refusal}"));
            }
            for disk in &vm.disks {
                output.line(format!(
                    "  {:8} {}  {}  {}  {}: {}",
                    slot(disk.slot),
                    disk.name,
                    human(disk.size_bytes),
                    disk.sku,
                    disk.content,
                    disk.reason
                ));
            }
        }
        output.line(format!(
            "at most {} in {} VM(s); only the allocated part is read, and only a snapshot tells how much that is",
            human(self.size_bytes),
            self.vms.len()
        ));
    }
}

impl PlannedVm {
    fn new(plan: VmPlan) -> Self {
        Self {
            name: plan.name,
            resource_group: plan.resource_group,
            uuid: plan.uuid,
            refusal: plan.refusal,
            disks: plan
                .disks
                .into_iter()
                .map(|disk| Disk {
                    name: disk.name,
                    slot: disk.slot,
                    size_bytes: disk.size,
                    sku: disk.sku,
                    // `azure-vm backup` leaves no snapshots behind, so there is never a base.
                    content: "full",
                    base: None,
                    reason: disk.reason,
                })
                .collect(),
            files: plan
                .entries
                .into_iter()
                .map(|entry| PlannedFile {
                    path: entry.path,
                    size_bytes: entry.size,
                })
                .collect(),
        }
    }
}

/// The slot as the tables show it.
pub(crate) fn slot(slot: Slot) -> String {
    match slot {
        Slot::Os => "os disk".to_owned(),
        Slot::Data(lun) => format!("lun {lun}"),
    }
}
