//! What a run would save, before there is one.

use std::time::SystemTime;

use futures_util::{StreamExt, stream};

use super::chain::{Chain, ChainKey};
use super::run::{base, listed, seconds};
use super::select::{Listed, select};
use super::tags::chain_name;
use super::tracker::State;
use super::{Backup, Error, Level, Run, debris, digests, export};
use crate::azure::Azure;
use crate::catalog;
use crate::config::Selection;
use crate::document::Slot;
use crate::notice::{Notices, with_causes};
use crate::private_folder::PrivateFolder;

/// VMs whose configuration is read at the same time for a plan: two or more requests each, far below Azure's limits.
const PLANS_AT_ONCE: usize = 8;

/// What a run would save of one VM, by listing alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmPlan {
    /// The VM's name.
    pub name: String,
    /// Its resource group.
    pub resource_group: String,
    /// Its UUID, lower case with dashes; empty if Azure's list gives none.
    pub uuid: String,
    /// The entries a run would write, in their order.
    pub entries: Vec<PlannedEntry>,
    /// The disks behind the images, in the same order.
    pub disks: Vec<PlannedDisk>,
    /// Why the VM could not be saved; then `entries` is empty.
    pub refusal: Option<String>,
}

/// One file that a run would write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEntry {
    /// Catalog name; the epoch in it is the present time.
    pub path: String,
    /// Size in bytes: of an image the disk's size, an upper bound of what would be sent.
    pub size: u64,
}

/// One disk that a run would save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDisk {
    /// The managed disk's name.
    pub name: String,
    /// Where it sits.
    pub slot: Slot,
    /// Size in bytes.
    pub size: u64,
    /// e.g. `Premium_LRS`; empty if Azure named none.
    pub sku: String,
    /// What would be saved of it, and why: `level Full`, `changes since run ...`, or why there are none to be had.
    pub reason: String,
}

impl Backup {
    /// What a run would save of `selection`, by the tracker in the folder `state`, if there is one. Reads only: no snapshot, no access,
    /// no state.
    ///
    /// # Errors
    ///
    /// Nothing selected, a named VM missing, Azure's refusal. A single VM that cannot be saved is a
    /// [`VmPlan::refusal`], not an error.
    pub async fn plan(
        azure: &Azure,
        run: &Run,
        selection: &Selection,
        state: Option<&PrivateFolder>,
        notices: &Notices,
    ) -> Result<Vec<VmPlan>, Error> {
        let selected = select(listed(azure).await?, selection, notices)?;
        let chain = planned_chain(azure, run, state, notices).await?;
        let epoch = seconds(SystemTime::now());
        let mut plans = stream::iter(selected)
            .map(|vm| plan_vm(azure, &chain, run, epoch, vm))
            .buffered(PLANS_AT_ONCE);
        let mut planned = Vec::new();
        while let Some(plan) = plans.next().await {
            planned.push(plan?);
        }
        Ok(planned)
    }
}

/// The chain as a run would find it, by tracker and tags; nothing is written.
async fn planned_chain(
    azure: &Azure,
    run: &Run,
    state: Option<&PrivateFolder>,
    notices: &Notices,
) -> Result<Chain, Error> {
    // An estimate has a job name of its own; that of the run it would build on tells the job.
    let name = run.previous.as_deref().unwrap_or(&run.job);
    let key = ChainKey {
        client: run.client.clone(),
        job: chain_name(name).to_owned(),
    };
    if run.level == Level::Full {
        return Ok(Chain::new(key));
    }
    let state = state.map_or_else(|| Ok(State::default()), State::peek);
    let state = state.unwrap_or_else(|error| {
        notices.warning(with_causes(&error));
        State::default()
    });
    let mut chain = state.chain(&key);
    let listed = azure
        .snapshots()
        .await
        .map_err(|source| Error::azure("list snapshots", source))?;
    for snapshot in debris::of_chain(&listed, &chain, run) {
        if snapshot.is_unsaved {
            chain.forget(std::slice::from_ref(&snapshot.id));
        } else if !chain.holds(&snapshot.id) {
            chain.adopt(&snapshot);
        }
    }
    Ok(chain)
}

async fn plan_vm(
    azure: &Azure,
    chain: &Chain,
    run: &Run,
    epoch: u64,
    vm: Listed,
) -> Result<VmPlan, Error> {
    let mut plan = VmPlan {
        name: vm.name().to_owned(),
        resource_group: vm.resource_group().to_owned(),
        uuid: String::new(),
        entries: Vec::new(),
        disks: Vec::new(),
        refusal: None,
    };
    let candidate = match vm.candidate() {
        Ok(candidate) => candidate,
        Err(error) => {
            plan.refusal = Some(with_causes(&error));
            return Ok(plan);
        }
    };
    plan.uuid.clone_from(&candidate.uuid);
    let export = match export::read(azure, candidate).await {
        Ok(export) => export,
        Err(error) if error.is_cancelled() => return Err(Error::Cancelled),
        Err(error) => {
            plan.refusal = Some(with_causes(&error));
            return Ok(plan);
        }
    };
    let mut entry = |path, size| plan.entries.push(PlannedEntry { path, size });
    entry(catalog::label(&candidate.uuid, &candidate.name), 0);
    entry(
        catalog::document(&candidate.uuid, epoch),
        export.document_size(candidate, run, epoch),
    );
    for (position, disk) in export.disks.iter().enumerate() {
        let file = catalog::image_file(epoch, position.checked_sub(1));
        entry(catalog::image(&candidate.uuid, &file), disk.size);
    }
    entry(
        catalog::digests(&candidate.uuid, epoch),
        digests::most_bytes(export.disks.iter().map(|disk| disk.size)),
    );
    plan.disks = export
        .disks
        .iter()
        .map(|disk| PlannedDisk {
            name: disk.name().to_owned(),
            slot: disk.slot,
            size: disk.size,
            sku: disk.sku().to_owned(),
            reason: match base(chain, run, &candidate.uuid, &disk.unique_id) {
                Ok(None) => "level Full".to_owned(),
                Ok(Some(base)) => format!("changes since run {}", base.job),
                Err(reason) => format!("no changes to be had: {reason}"),
            },
        })
        .collect();
    Ok(plan)
}
