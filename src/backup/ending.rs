//! The end of a run: what it saved is recorded, or taken back; and what no later run can need goes.

use std::sync::Arc;

use futures_util::future::join_all;

use super::chain::RunRecord;
use super::run::Context;
use super::vm::SavedVm;
use super::{Backup, Error, Outcome, snapshot_set};
use crate::azure::ResourceId;

impl Backup {
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
