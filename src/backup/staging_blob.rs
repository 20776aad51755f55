//! The way through a storage account (`transfer=blob`): Azure copies each snapshot to a page blob, access to the snapshot is
//! given back, and the image is read from the blob, which goes when the disk is done.
//!
//! What to read is listed on the snapshot before it is closed: a copy does not carry the history that a difference needs,
//! and what is allocated is the snapshot's business, not the copy's. A blob lives for one disk of one run. Its name
//! begins with what is the same for all runs of a chain, and its metadata names the run: what a dead run left is
//! found by the next one.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::exported::ExportedImage;
use super::marks::OtherRuns;
use super::run::Context;
use super::snapshot_set::OpenSnapshot;
use super::tags::{chain_name, short_hash};
use super::{Error, Run};
use crate::azure::blob_copy::{BlobCopy, CopyStatus};
use crate::azure::connection_string::ConnectionString;
use crate::azure::{self, Azure, Container, ErrorKind, PageBlob};
use crate::notice::{Notices, with_causes};
use crate::pipeline::ReadPlan;
use crate::quantity::{ByteSize, Rate};

/// Container of all blobs of ours in a storage account.
pub const STAGING_CONTAINER: &str = "bacula-azure-vm";

/// Metadata of a blob: the run's unique name, and the File Daemon's name.
const JOB: &str = "bacula_azure_vm_job";
const CLIENT: &str = "bacula_azure_vm_client";

/// A copy in the background is given up by Azure itself after two weeks ("Copy Blob"); nothing renews access meanwhile,
/// since nobody here uses it.
pub(super) const ACCESS_DURATION: Duration = Duration::from_secs(15 * 24 * 3600);

/// Largest page blob, in bytes ("Scalability and performance targets for Blob storage").
const MAX_BLOB: u64 = 8 << 40;

/// Waits between two looks at a copy; small disks are copied in seconds, large ones take hours.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A copy of which nothing has come for so long, waits counted, is given up: a copy that moves may take days, one that does not
/// would keep its job and an open snapshot for two weeks.
const STALLED: Duration = Duration::from_secs(6 * 3600);

/// Long enough not to fill a job log, short enough to see that a long copy moves.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Where the copies of a run go.
#[derive(Clone, Debug)]
pub(super) struct StagingContainer {
    account: ConnectionString,
    client: String,
    job: String,
}

impl StagingContainer {
    /// Makes the container if need be, which also shows whether the account opens.
    ///
    /// # Errors
    ///
    /// The account cannot be reached or used; nothing was made in the subscription yet.
    pub(super) async fn open(
        azure: &Azure,
        account: &ConnectionString,
        run: &Run,
    ) -> Result<Self, Error> {
        let staging = Self {
            account: account.clone(),
            client: run.client.clone(),
            job: run.job.clone(),
        };
        let opened = match staging.container(azure) {
            Ok(container) => container.ensure().await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(()) => Ok(staging),
            Err(source) => {
                let refused = matches!(
                    source.kind(),
                    ErrorKind::Forbidden | ErrorKind::Unauthorized
                );
                let advice = if refused {
                    "; check the key in connection_key, and the firewall of the account"
                } else {
                    ""
                };
                let action = format!(
                    "use container {STAGING_CONTAINER} of {account} (transfer=blob){advice}"
                );
                Err(Error::azure(action, source))
            }
        }
    }

    /// The container, over the connections and with the cancellation of `azure`.
    fn container(&self, azure: &Azure) -> Result<Container, azure::Error> {
        azure.container(&self.account, STAGING_CONTAINER)
    }

    /// What the names of all blobs of this chain begin with.
    fn prefix(&self) -> String {
        let chain = short_hash(&[&*self.client, chain_name(&self.job)].join("\n"));
        format!("{chain}/")
    }

    /// Deletes what earlier runs of this chain left; `others` names those that are under way, other Plugin lines of this
    /// job among them. A failure is a notice: it does not keep the run from saving.
    ///
    /// # Errors
    ///
    /// Cancelled.
    pub(super) async fn clear_debris(
        &self,
        azure: &Azure,
        others: &OtherRuns,
        notices: &Notices,
    ) -> Result<(), Error> {
        let cleared = self.try_clear_debris(azure, others, notices).await;
        match cleared {
            Err(error) if error.is_cancelled() => return Err(Error::Cancelled),
            Err(error) => notices.warning(format!(
                "list blobs to delete what earlier runs may have left: {}",
                with_causes(&error)
            )),
            Ok(()) => {}
        }
        Ok(())
    }

    async fn try_clear_debris(
        &self,
        azure: &Azure,
        others: &OtherRuns,
        notices: &Notices,
    ) -> Result<(), azure::Error> {
        let container = self.container(azure)?;
        for listed in container.list(&self.prefix()).await? {
            let ours = listed.metadata(CLIENT) == Some(&*self.client);
            let dead = listed
                .metadata(JOB)
                .is_some_and(|job| !others.is_alive(job));
            if ours && dead {
                notices.info(format!(
                    "deleting blob {} in {container}, which an earlier run of this job left",
                    listed.name
                ));
                discard(&container.blob(&listed.name)?, notices).await;
            }
        }
        Ok(())
    }

    /// Has the snapshot copied, gives access to it back, and makes `plan` read from the copy. The copy is held by the
    /// snapshot, to be deleted in every outcome.
    ///
    /// # Errors
    ///
    /// Azure's refusal; a copy that failed, or that is not the image of the disk.
    pub(super) async fn redirect(
        &self,
        context: &Context,
        snapshot: &OpenSnapshot,
        plan: ReadPlan,
    ) -> Result<ReadPlan, Error> {
        let disk = &snapshot.disk;
        if disk.size >= MAX_BLOB {
            return Err(Error::Unsavable {
                what: disk.label(),
                reason: format!(
                    "it has {}, and a page blob holds less: transfer=direct saves such a disk",
                    ByteSize(disk.size)
                ),
            });
        }
        let failed = |source| Error::azure(format!("copy {} to a blob", disk.label()), source);
        let container = self.container(&context.azure).map_err(failed)?;
        let name = format!("{}{}.vhd", self.prefix(), snapshot.id.name());
        let blob = container.blob(&name).map_err(failed)?;
        // From here on there may be a blob, whatever happens.
        snapshot.held.keep_copy(blob.clone());
        let metadata = [(JOB, &*self.job), (CLIENT, &*self.client)];
        let begun = blob
            .start_copy(&snapshot.blob, &metadata)
            .await
            .map_err(failed)?;
        wait(context, &blob, begun, snapshot).await?;
        snapshot.held.revoke(&snapshot.id, &context.notices).await;

        let what = format!("{}, copied to blob {blob}", disk.label());
        let image = ExportedImage::open(blob, what, Some(disk.size)).await?;
        Ok(plan.read_from(image.source()))
    }
}

/// Waits until the copy is done, and tells how far it is.
async fn wait(
    context: &Context,
    blob: &PageBlob,
    begun: BlobCopy,
    snapshot: &OpenSnapshot,
) -> Result<(), Error> {
    let (label, total) = (snapshot.disk.label(), snapshot.disk.size);
    let started = Instant::now();
    let (mut reported, mut pause) = (started, FIRST_WAIT);
    let mut progress = Progress::default();
    let (id, mut copy) = (begun.id.clone(), begun);
    loop {
        let failure = match copy.status {
            CopyStatus::Pending => None,
            CopyStatus::Success if copy.id == id => {
                context.notices.info(format!(
                    "{label}: copied to blob {blob} in {:.0} s",
                    started.elapsed().as_secs_f64()
                ));
                return Ok(());
            }
            CopyStatus::Success => Some("somebody else copied to this blob".to_owned()),
            CopyStatus::Aborted => Some("somebody ended it".to_owned()),
            CopyStatus::Failed => Some(format!(
                "Azure says: {}",
                copy.description.as_deref().unwrap_or("no reason")
            )),
        };
        if let Some(reason) = failure {
            return Err(Error::Unsavable {
                what: label,
                reason: format!("the copy of its snapshot to blob {blob} failed: {reason}"),
            });
        }
        let copied = copy.copied.unwrap_or(0).min(total);
        if progress.is_stalled(copied, pause) {
            return Err(Error::Unsavable {
                what: label,
                reason: format!(
                    "the copy of its snapshot to blob {blob} has not moved for {} h; it stands at {} of {}",
                    STALLED.as_secs() / 3600,
                    ByteSize(copied),
                    ByteSize(total)
                ),
            });
        }
        if reported.elapsed() >= PROGRESS_INTERVAL {
            reported = Instant::now();
            context.notices.info(format!(
                "{label}: {} of {} copied to blob {blob}, {}",
                ByteSize(copied),
                ByteSize(total),
                Rate::new(copied, started.elapsed()),
            ));
        }
        let cancel = context.azure.cancellation();
        if cancel.run_until_cancelled(sleep(pause)).await.is_none() {
            return Err(Error::Cancelled);
        }
        pause = (pause * 2).min(LONGEST_WAIT);
        copy = blob
            .copy_state()
            .await
            .map_err(|source| Error::azure(format!("copy {label} to a blob"), source))?;
    }
}

/// How far a copy has come.
#[derive(Debug, Default)]
struct Progress {
    copied: u64,
    /// Waits since it came as far.
    still: Duration,
}

impl Progress {
    /// Whether it has stood still too long at `copied` bytes, if one more `pause` is waited.
    fn is_stalled(&mut self, copied: u64, pause: Duration) -> bool {
        if copied > self.copied {
            *self = Self {
                copied,
                still: Duration::ZERO,
            };
        }
        self.still += pause;
        self.still > STALLED
    }
}

/// Deletes a blob, and ends a copy to it. A failure is an error notice, since what stays is billed.
pub(super) async fn discard(blob: &PageBlob, notices: &Notices) {
    if let Err(error) = blob.discard().await {
        notices.error(format!(
            "delete blob {blob}: {}; a later run of this job tries again",
            with_causes(&error)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_copy_that_does_not_move_is_given_up() {
        let mut progress = Progress::default();
        for copied in 0..10 {
            assert!(!progress.is_stalled(copied, Duration::from_secs(6 * 3600)));
        }
        assert!(progress.is_stalled(9, LONGEST_WAIT));
        assert!(!progress.is_stalled(10, LONGEST_WAIT));
    }
}
