//! One run: its VMs one after the other.

use std::collections::VecDeque;
use std::panic;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::chain::{Base, Chain, ChainKey};
use super::difference::KnownBases;
use super::marks::RunMark;
use super::select::{Listed, select};
use super::staging_blob::{self, StagingContainer};
use super::tags::chain_name;
use super::tracker::Tracker;
use super::vm::{PreparedVm, SavedVm, VmBackup};
use super::{Error, Level, Options, Run, debris, snapshot_set};
use crate::azure::{Azure, ResourceId};
use crate::config::Transfer;
use crate::notice::{Notices, some_of, with_causes};
use crate::pipeline::ReadQueue;

/// What all parts of a run share.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) azure: Azure,
    pub(super) run: Run,
    pub(super) options: Options,
    pub(super) notices: Notices,
    pub(super) tracker: Tracker,
    /// The earlier runs of the job, as known when this one began, after the debris was cleared.
    pub(super) chain: Arc<Chain>,
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

    pub(super) fn unsaved(&self) -> Vec<ResourceId> {
        let unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        unsaved.clone()
    }

    /// The chain as the tracker has it now.
    pub(super) async fn recorded(&self) -> Result<Chain, Error> {
        let state = self.tracker.read(&self.notices).await?;
        Ok(state.chain(&self.chain.key))
    }
}

pub(super) fn base(chain: &Chain, run: &Run, vm: &str, disk: &str) -> Result<Option<Base>, String> {
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
    pub(super) context: Arc<Context>,
    waiting: VecDeque<Listed>,
    /// The next VM, prepared while the last image of the present one is read.
    ahead: Option<Ahead>,
    pub(super) vms: Vec<Arc<SavedVm>>,
    pub(super) selected: usize,
    pub(super) mark: RunMark,
    /// Whether [`Backup::record`] has entered the run into the chain, or there is none to enter it into.
    pub(super) is_recorded: bool,
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

    /// Ends the preparation of the next VM. What it made belongs to the run.
    pub(super) async fn end_ahead(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            ahead.stop.cancel();
            if let Some(Ok(prepared)) = joined(ahead.task).await {
                self.vms.push(prepared.vm);
            }
        }
    }
}

/// All VMs of the subscription.
pub(super) async fn listed(azure: &Azure) -> Result<Vec<Listed>, Error> {
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
