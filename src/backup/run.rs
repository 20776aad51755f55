//! One run: its VMs one after the other, and what is recorded or given back at its end.

use std::collections::VecDeque;
use std::panic;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::chain::{Base, Chain, ChainKey, RunRecord};
use super::difference::KnownBases;
use super::select::{Listed, select};
use super::staging_blob::{self, StagingContainer};
use super::tags::chain_name;
use super::tracker::{RunMark, State, Tracker};
use super::vm::{PreparedVm, SavedVm, VmBackup};
use super::{
    Error, Level, Options, Outcome, PlannedDisk, PlannedEntry, Run, VmPlan, debris, digests,
    export, snapshot_set,
};
use crate::azure::{Azure, ResourceId};
use crate::catalog;
use crate::config::{Selection, Transfer};
use crate::notice::{Notices, some_of, with_causes};
use crate::pipeline::ReadQueue;
use crate::private_folder::PrivateFolder;

/// VMs whose configuration is read at the same time for a plan: two or more requests each, far below Azure's limits.
const PLANS_AT_ONCE: usize = 8;

/// What all parts of a run share.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) azure: Azure,
    pub(super) run: Run,
    pub(super) options: Options,
    pub(super) notices: Notices,
    pub(super) tracker: Tracker,
    /// The earlier runs of the job, as known when this one began, after the debris was cleared.
    chain: Arc<Chain>,
    /// What was listed of their snapshots.
    pub(super) bases: Arc<KnownBases>,
    /// A run of the job under way that keeps this one from building on anything, and its level.
    rival: Option<(String, Level)>,
    /// All reading of the run: one budget, images in the order in which they are sent.
    pub(super) queue: ReadQueue,
    /// Where the snapshots are copied to before they are read, if they are.
    pub(super) staging: Option<StagingContainer>,
    /// When the run began, in seconds since 1970; later than all of `chain`, whatever the clock says.
    pub(super) started: u64,
    /// Snapshots under the name of the run whose images are in no backup, and that could not be deleted.
    unsaved: Arc<Mutex<Vec<ResourceId>>>,
}

impl Context {
    /// What the changes of a disk are computed against: `None` at level Full.
    ///
    /// # Errors
    ///
    /// Why there is no base, for the notice: the disk is then saved in full, or the run fails.
    pub(super) fn base(&self, vm: &str, disk: &str) -> Result<Option<Base>, String> {
        if let Some((job, level)) = &self.rival {
            return Err(format!(
                "run {job} of this job, level {}, began before it and is still under way, so what the Director restores \
                 before this run is not known (Maximum Concurrent Jobs = 1 in the Job resource prevents this)",
                level.as_str()
            ));
        }
        base(&self.chain, &self.run, vm, disk)
    }

    /// How long access to a snapshot is asked for at a time.
    pub(super) fn access_duration(&self) -> Duration {
        match self.staging {
            None => snapshot_set::ACCESS_DURATION,
            Some(_) => staging_blob::ACCESS_DURATION,
        }
    }

    /// Unique name of the run that this one builds on, as far as the Director's word for it holds: not beside or behind a
    /// rival.
    pub(super) fn previous(&self) -> Option<&str> {
        let previous = self.run.previous.as_deref()?;
        let has_rival =
            self.rival.is_some() || self.chain.rival(self.run.level, previous).is_some();
        (!has_rival).then_some(previous)
    }

    /// Unique name of the last Full before this run, if it is not one itself and that is known.
    pub(super) fn full(&self) -> Option<&str> {
        self.chain.full_of(self.run.level, self.previous())
    }

    /// Takes note of snapshots that are not saved and could not be deleted.
    pub(super) fn note_unsaved(&self, left: Vec<ResourceId>) {
        let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        unsaved.extend(left);
    }

    fn unsaved(&self) -> Vec<ResourceId> {
        let unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        unsaved.clone()
    }

    /// The chain as the tracker has it now.
    pub(super) async fn recorded(&self) -> Result<Chain, Error> {
        let state = self.tracker.read(&self.notices).await?;
        Ok(state.chain(&self.chain.key))
    }
}

fn base(chain: &Chain, run: &Run, vm: &str, disk: &str) -> Result<Option<Base>, String> {
    if run.level == Level::Full {
        return Ok(None);
    }
    let previous = run
        .previous
        .as_deref()
        .ok_or("the Director names no run that it builds on")?;
    chain.base(run.level, previous, vm, disk).map(Some)
}

/// A running backup.
#[derive(Debug)]
pub struct Backup {
    context: Arc<Context>,
    waiting: VecDeque<Listed>,
    /// The next VM, prepared while the last image of the present one is read.
    ahead: Option<Ahead>,
    vms: Vec<Arc<SavedVm>>,
    selected: usize,
    mark: RunMark,
    /// Whether [`Backup::record`] has entered the run into the chain, or there is none to enter it into.
    is_recorded: bool,
}

/// A VM being prepared in the background.
#[derive(Debug)]
struct Ahead {
    vm: Listed,
    /// Ends the preparation, and the wait for the present VM's last image before it. A child of the job's.
    stop: CancellationToken,
    task: AbortOnDropHandle<Option<Result<PreparedVm, Error>>>,
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

    /// Lists and selects the VMs, and clears the debris of dead predecessors of this job.
    ///
    /// # Errors
    ///
    /// Nothing selected, a named VM missing, a tracker file that cannot be written, Azure's refusal, a storage account that
    /// cannot be used.
    pub async fn begin(
        azure: Azure,
        run: Run,
        options: Options,
        notices: Notices,
    ) -> Result<Self, Error> {
        let azure = azure.with_notices(notices.clone());
        let listed = listed(&azure).await?;
        let staging = match &options.transfer {
            Transfer::Direct => None,
            Transfer::Blob(account) => Some(StagingContainer::open(&azure, account, &run).await?),
        };
        let tracker = Tracker::new(options.state.clone());
        let mark = tracker.mark(&run, azure.subscription_id()).await?;
        let queue = ReadQueue::new(options.limits, azure.cancellation());
        let chain = Chain::new(ChainKey {
            client: run.client.clone(),
            job: chain_name(&run.job).to_owned(),
        });
        let mut context = Context {
            azure,
            run,
            options,
            notices,
            tracker,
            chain: Arc::new(chain),
            bases: Arc::default(),
            rival: None,
            queue,
            staging,
            started: seconds(SystemTime::now()),
            unsaved: Arc::default(),
        };
        let vms = listed.iter().filter_map(|vm| vm.candidate().ok());
        let vms = vms.map(|vm| vm.uuid.as_str()).collect();
        let found = debris::clear(&context, &vms, mark.had_attempt).await?;
        context.note_unsaved(found.of_earlier_attempt);
        context.rival = found.rival;
        let selection = &context.options.selection;
        let selected = match select(listed, selection, &context.notices) {
            Ok(selected) => selected,
            Err(error) => {
                if context.unsaved().is_empty() {
                    mark.remove().await?;
                }
                return Err(error);
            }
        };
        if let Some(staging) = &context.staging {
            let Context {
                azure,
                run,
                tracker,
                notices,
                ..
            } = &context;
            let others = tracker.other_runs(run, azure.subscription_id()).await?;
            staging.clear_debris(azure, &others, notices).await?;
        }
        context.chain = Arc::new(context.recorded().await?);
        if context.run.level != Level::Full {
            let bases = KnownBases::new(&context.chain, &found.snapshots);
            context.bases = Arc::new(bases);
        }
        drop(found.snapshots);
        if let Some(newest) = context.chain.runs.last() {
            context.started = context.started.max(newest.started + 1);
        }
        let context = Arc::new(context);
        let names = selected.iter().map(Listed::name);
        context.notices.info(announcement(context.run.level, names));
        Ok(Self {
            context,
            selected: selected.len(),
            waiting: selected.into(),
            ahead: None,
            vms: Vec::new(),
            mark,
            is_recorded: false,
        })
    }

    /// Prepares the next VM: configuration, snapshots, access, page lists; `None` after the last. A VM that fails here
    /// is reported as an error notice and skipped, unless `abort_on_error`; what it held was given back.
    ///
    /// # Errors
    ///
    /// The run must stop: `abort_on_error`, or cancelled.
    pub async fn next_vm(&mut self) -> Result<Option<VmBackup>, Error> {
        loop {
            let (vm, prepared) = match self.ahead.take() {
                Some(ahead) => match joined(ahead.task).await {
                    Some(prepared) => (ahead.vm, prepared),
                    // Not begun: the present VM never came to its last image.
                    None => {
                        let prepared = prepare(&self.context, &ahead.vm).await;
                        (ahead.vm, prepared)
                    }
                },
                None => match self.waiting.pop_front() {
                    Some(vm) => {
                        let prepared = prepare(&self.context, &vm).await;
                        (vm, prepared)
                    }
                    None => return Ok(None),
                },
            };
            match prepared {
                Ok(prepared) => {
                    self.vms.push(Arc::clone(&prepared.vm));
                    let at_last_image = CancellationToken::new();
                    self.prepare_ahead(&at_last_image);
                    return Ok(Some(VmBackup::new(
                        Arc::clone(&self.context),
                        prepared,
                        at_last_image,
                    )));
                }
                Err(error) if error.is_cancelled() => return Err(Error::Cancelled),
                Err(error @ Error::NoChanges { .. }) => return Err(error),
                Err(error) if self.context.options.abort_on_error => return Err(error),
                Err(error) => self.context.notices.error(format!(
                    "virtual machine {} (resource group {}) is not saved: {}",
                    vm.name(),
                    vm.resource_group(),
                    with_causes(&error)
                )),
            }
        }
    }

    /// The first half of a good end, on which depends whether later runs may build on this one: records what was saved, once
    /// nothing is left under the name of the run that could pass for it. What is given back comes in
    /// [`finish`](Self::finish); that may take long, and a good run shall not be forgotten over it.
    ///
    /// # Errors
    ///
    /// No VM could be saved; the run could not be recorded; a snapshot of what is not saved stays and says nothing of it. The
    /// run must then end as a bad one.
    pub async fn record(&mut self) -> Result<(), Error> {
        if self.is_recorded {
            return Ok(());
        }
        self.end_ahead().await;
        let context = Arc::clone(&self.context);
        let (saved, lost): (Vec<_>, Vec<_>) =
            self.vms.iter().cloned().partition(|vm| vm.is_complete());
        for vm in &lost {
            context.notices.error(format!(
                "virtual machine {} (resource group {}) is not saved: not all of its images were read",
                vm.candidate.name, vm.candidate.resource_group
            ));
        }
        if saved.is_empty() {
            return Err(Error::NothingSaved {
                selected: self.selected,
            });
        }
        if context.run.keep_snapshots {
            self.remove(&lost).await;
            let Context { azure, notices, .. } = &*context;
            if azure.cancellation().is_cancelled() {
                return Err(Error::Cancelled);
            }
            snapshot_set::mark_unsaved(&azure.for_cleanup(), &context.unsaved(), notices).await?;
            self.vms = saved;
            self.enter().await?;
            self.is_recorded = true;
            return self.mark.cover_nothing(&context.run).await;
        }
        self.is_recorded = true;
        Ok(())
    }

    /// Removes the snapshots that no run after a good one can need, and all of a bad one, also if it was recorded, or of one that is
    /// cancelled before this has ended; a good run is [recorded](Self::record) first, if it is not yet. What cannot be given back is
    /// reported as an error notice.
    ///
    /// # Errors
    ///
    /// As for [`record`](Self::record), and the tracker cannot be used.
    pub async fn finish(mut self, outcome: Outcome) -> Result<(), Error> {
        let recorded = match outcome {
            Outcome::Good => self.record().await,
            Outcome::Bad => Ok(()),
        };
        self.end_ahead().await;
        let context = Arc::clone(&self.context);
        if self.is_recorded && context.run.keep_snapshots {
            self.give_back(&self.vms).await;
            let is_lost = || outcome == Outcome::Bad || context.azure.cancellation().is_cancelled();
            let mut ended = Ok(());
            if !is_lost() {
                ended = self.prune().await;
            }
            if is_lost() {
                ended = self.withdraw().await;
            }
            self.mark.remove().await?;
            return recorded.and(ended);
        }
        self.remove(&self.vms).await;
        if context.unsaved().is_empty() {
            self.mark.remove().await?;
        }
        recorded
    }

    /// Ends the preparation of the next VM. What it made belongs to the run.
    async fn end_ahead(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            ahead.stop.cancel();
            if let Some(Ok(prepared)) = joined(ahead.task).await {
                self.vms.push(prepared.vm);
            }
        }
    }

    async fn give_back(&self, vms: &[Arc<SavedVm>]) {
        let notices = &self.context.notices;
        join_all(vms.iter().map(|vm| vm.give_back_all(notices))).await;
    }

    /// Gives back what is held of VMs that are not saved, and deletes their snapshots.
    async fn remove(&self, vms: &[Arc<SavedVm>]) {
        let Context { azure, notices, .. } = &*self.context;
        self.give_back(vms).await;
        let left = snapshot_set::delete(&azure.for_cleanup(), &snapshots_of(vms), notices).await;
        self.context.note_unsaved(left);
    }

    /// Prepares the next VM as soon as the present one reads its last image, so that its first chunks are there when
    /// they are needed; not earlier, since a snapshot should be as young as it can be.
    fn prepare_ahead(&mut self, at_last_image: &CancellationToken) {
        let Some(vm) = self.waiting.pop_front() else {
            return;
        };
        let stop = self.context.azure.cancellation().child_token();
        let context = Context {
            azure: self.context.azure.with_cancellation(stop.clone()),
            ..(*self.context).clone()
        };
        let task = tokio::spawn({
            let vm = vm.clone();
            let (stop, at_last_image) = (stop.clone(), at_last_image.clone());
            async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return None,
                    () = at_last_image.cancelled() => {}
                }
                Some(prepare(&context, &vm).await)
            }
        });
        self.ahead = Some(Ahead {
            vm,
            stop,
            task: AbortOnDropHandle::new(task),
        });
    }

    /// Enters the run into the chain.
    async fn enter(&self) -> Result<(), Error> {
        let Context {
            run,
            tracker,
            notices,
            ..
        } = &*self.context;
        let record = RunRecord {
            job: run.job.clone(),
            level: run.level,
            started: self.context.started,
            previous: self.context.previous().map(str::to_owned),
            full: self.context.full().map(str::to_owned),
            vms: self.vms.iter().map(|vm| vm.record()).collect(),
        };
        let key = &self.context.chain.key;
        let has_changes = self.vms.iter().any(|vm| vm.has_changes);
        let overtaken = tracker
            .update(notices, |state| {
                let chain = state.chain_mut(key);
                let overtaken = has_changes
                    .then_some(record.previous.as_deref())
                    .flatten()
                    .and_then(|previous| {
                        Some(overtaken(chain.rival(run.level, previous)?, previous))
                    });
                chain.record(record);
                overtaken
            })
            .await?;
        if let Some(overtaken) = overtaken {
            notices.warning(overtaken);
        }
        Ok(())
    }

    /// Deletes what is recorded of this run, also what earlier Plugin lines have saved in this subscription: the Director calls it
    /// failed or cancelled, so nothing will build on it. What cannot be deleted is marked as not saved, for a later run to delete;
    /// what cannot be marked either stays recorded, and is surplus then.
    async fn withdraw(&self) -> Result<(), Error> {
        let context = &*self.context;
        let Context { azure, notices, .. } = context;
        let job = &context.run.job;
        let mut gone = context.recorded().await?.snapshots_of(job);
        gone.retain(|id| id.is_in(azure.subscription_id()));
        let hasty = azure.for_cleanup();
        let left = snapshot_set::delete(&hasty, &gone, notices).await;
        if snapshot_set::mark_unsaved(&hasty, &left, notices)
            .await
            .is_err()
        {
            gone.retain(|id| !left.contains(id));
        }
        context
            .tracker
            .update(notices, |state| {
                state.chain_mut(&context.chain.key).withdraw(job, &gone);
            })
            .await
    }

    /// Deletes the snapshots of earlier runs that no later run can need. What cannot be deleted stays recorded and is
    /// tried again by the next run; so does what another Plugin line made in another subscription.
    async fn prune(&self) -> Result<(), Error> {
        let context = &*self.context;
        let Context { azure, notices, .. } = context;
        let present = &context.run.job;
        let mut gone = Vec::new();
        for mut surplus in context.recorded().await?.surplus(present) {
            surplus.retain(|id| id.is_in(azure.subscription_id()));
            let left = snapshot_set::delete(azure, &surplus, notices).await;
            surplus.retain(|id| !left.contains(id));
            gone.append(&mut surplus);
        }
        context
            .tracker
            .update(notices, |state| {
                state.chain_mut(&context.chain.key).settle(present, &gone);
            })
            .await
    }
}

/// All VMs of the subscription.
async fn listed(azure: &Azure) -> Result<Vec<Listed>, Error> {
    let listed = azure
        .virtual_machines()
        .await
        .map_err(|source| Error::azure("list virtual machines", source))?;
    Ok(listed.iter().map(Listed::new).collect())
}

/// What is listed too poorly to be saved is an error of that VM, like any other that its preparation may meet.
async fn prepare(context: &Context, vm: &Listed) -> Result<PreparedVm, Error> {
    PreparedVm::prepare(context, vm.candidate()?).await
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

fn snapshots_of(vms: &[Arc<SavedVm>]) -> Vec<ResourceId> {
    vms.iter()
        .flat_map(|vm| vm.disks.iter())
        .map(|disk| disk.snapshot.clone())
        .collect()
}

/// Of a run that builds on `previous`, and of `rival`, which was not there when it began.
fn overtaken(rival: &RunRecord, previous: &str) -> String {
    format!(
        "run {} of this job, level {}, began and ended while this run was under way, which builds on run {previous} nevertheless: \
         to restore this point in time, take run {previous}, those that it builds on, and this one \
         (Maximum Concurrent Jobs = 1 in the Job resource prevents this)",
        rival.job,
        rival.level.as_str()
    )
}

/// The result of a task that nobody aborts; a panic in it goes on here.
async fn joined<T>(task: AbortOnDropHandle<Option<Result<T, Error>>>) -> Option<Result<T, Error>> {
    match task.await {
        Ok(result) => result,
        Err(failure) => match failure.try_into_panic() {
            Ok(reason) => panic::resume_unwind(reason),
            // The runtime is shutting down.
            Err(_) => Some(Err(Error::Cancelled)),
        },
    }
}

/// Whole seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}

/// The first line of a run: what is going to be saved.
fn announcement<'a>(level: Level, names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let plural = if count == 1 { "" } else { "s" };
    format!(
        "{level} backup of {count} virtual machine{plural}: {}",
        some_of(names.map(str::to_owned))
    )
}
