//! The two requests behind access: `beginGetAccess` and `endGetAccess`, and what their answers leave open.

use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::access::Access;
use super::arm::Subject;
use super::disk::disk_state;
use super::generated::disks::{self, AccessLevel, AccessUri, DiskState, GrantAccessData};
use super::operation::Finished;
use super::{Azure, Error, ErrorKind, ResourceId, SasUrl};
use crate::notice::with_causes;

const SNAPSHOTS: &str = "Microsoft.Compute/snapshots";

/// What can be opened and closed.
pub(super) struct Door {
    pub(super) azure: Azure,
    pub(super) target: ResourceId,
    pub(super) access: Access,
    pub(super) duration: Duration,
    /// Held during a renewal: there is never more than one, and none beside giving back.
    pub(super) renewal: AsyncMutex<()>,
}

impl Door {
    pub(super) async fn close_if_open(&self) -> Result<(), Error> {
        let resource = if self.target.is_type(SNAPSHOTS) {
            self.azure.snapshot(&self.target).await?
        } else {
            self.azure.disk(&self.target).await?
        };
        match disk_state(&resource) {
            Some(DiskState::ActiveSas | DiskState::ActiveSasFrozen) => {
                tracing::debug!(target_id = %self.target, "closes access that is open");
                self.azure.revoke(&self.target).await
            }
            None
            | Some(
                DiskState::Unattached
                | DiskState::Attached
                | DiskState::Reserved
                | DiskState::Frozen
                | DiskState::ReadyToUpload
                | DiskState::ActiveUpload
                | DiskState::Other(_),
            ) => Ok(()),
        }
    }

    pub(super) async fn open(&self) -> Result<(SasUrl, Instant), NotOpened> {
        let asked = Instant::now();
        let subject = Subject::new("grant access to", &self.target);
        let finished = match self.begin(subject).await {
            // The answer to an earlier attempt was lost, and what it opened is now in the way.
            Err(NotOpened {
                error,
                accepted: false,
            }) if error.kind() == ErrorKind::Conflict
                && error.is_repeated()
                && self.access == Access::Read =>
            {
                self.azure.revoke(&self.target).await?;
                self.begin(subject).await?
            }
            other => other?,
        };
        let url = self
            .result(subject, finished)
            .await
            .map_err(NotOpened::accepted)?;
        // The service counts from later than this, so this end is on the safe side.
        Ok((url, asked + self.duration))
    }

    async fn begin(&self, subject: Subject<'_>) -> Result<Finished, NotOpened> {
        let seconds = u32::try_from(self.duration.as_secs()).unwrap_or(u32::MAX);
        let body = GrantAccessData {
            access: Some(match self.access {
                Access::Read => AccessLevel::Read,
                Access::Write => AccessLevel::Write,
            }),
            duration_in_seconds: Some(seconds),
            ..GrantAccessData::default()
        };
        let build = if self.target.is_type(SNAPSHOTS) {
            disks::snapshots_grant_access
        } else {
            disks::disks_grant_access
        };
        let call = build(
            self.azure.endpoint(),
            &self.azure.versions,
            self.target.subscription(),
            self.target.resource_group(),
            self.target.name(),
            &body,
        );
        let accepted = self.azure.begin(subject, call).await?;
        let finished = self.azure.finish(subject, accepted).await;
        finished.map_err(NotOpened::accepted)
    }

    /// The SAS is in the status (`properties.output`), in the answer at once, or at the `Location`.
    async fn result(&self, subject: Subject<'_>, finished: Finished) -> Result<SasUrl, Error> {
        if let Some(url) = access_sas(subject, finished.output)? {
            return Ok(url);
        }
        if let Some(location) = finished.location {
            let answer = self.azure.follow(subject, &location, &[200], true).await?;
            if let Some(url) = access_sas(subject, subject.json(&answer)?)? {
                return Ok(url);
            }
        }
        Err(subject.invalid("access was granted, but no accessSAS came with it"))
    }

    /// Closes access when no caller is left to be told.
    pub(super) async fn give_back(&self) {
        let _no_renewal = self.renewal.lock().await;
        if let Err(error) = self.azure.for_cleanup().revoke(&self.target).await {
            self.azure.sender.notices().error(format!(
                "revoke access to {}: {}; access stays open until it expires",
                self.target,
                with_causes(&error)
            ));
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("target", &self.target)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

fn access_sas(subject: Subject<'_>, value: serde_json::Value) -> Result<Option<SasUrl>, Error> {
    if value.is_null() {
        return Ok(None);
    }
    let result: AccessUri = subject.decode(value)?;
    result
        .access_sas
        .map(|secret| {
            SasUrl::parse(secret.expose()).map_err(|error| {
                subject.invalid(format!("the accessSAS is none: {}", error.message()))
            })
        })
        .transpose()
}

/// Access was not obtained.
pub(super) struct NotOpened {
    pub(super) error: Error,
    /// Azure had accepted the request: whatever went wrong then, it may be open by now, or soon.
    pub(super) accepted: bool,
}

impl From<Error> for NotOpened {
    fn from(error: Error) -> Self {
        Self {
            error,
            accepted: false,
        }
    }
}

impl NotOpened {
    fn accepted(error: Error) -> Self {
        Self {
            error,
            accepted: true,
        }
    }
}

impl Azure {
    /// `endGetAccess`, waited for; succeeds if nothing is open, or the target does not exist.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn revoke(&self, target: &ResourceId) -> Result<(), Error> {
        let build = if target.is_type(SNAPSHOTS) {
            disks::snapshots_revoke_access
        } else {
            disks::disks_revoke_access
        };
        let call = build(
            self.endpoint(),
            &self.versions,
            target.subscription(),
            target.resource_group(),
            target.name(),
        );
        self.delete(Subject::new("revoke access to", target), call)
            .await
    }
}
