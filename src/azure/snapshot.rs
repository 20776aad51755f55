//! Snapshots of managed disks.

use std::collections::BTreeMap;

use serde_json::Value;

use super::arm::Subject;
use super::generated::disks::{self, Snapshot, SnapshotAccessState, SnapshotUpdate};
use super::readiness::{Readiness, provisioning_failure, provisioning_state};
use super::redact::clean;
use super::{Azure, Error, ResourceId};

impl Azure {
    /// All snapshots of the subscription, every page of the list; the service offers no filter.
    ///
    /// # Errors
    ///
    /// Azure's refusal; a list that is not complete.
    pub async fn snapshots(&self) -> Result<Vec<Value>, Error> {
        let subscription = self.subscription_id();
        let call = disks::snapshots_list(self.endpoint(), &self.versions, subscription);
        let subject = Subject::new("list snapshots of subscription", &subscription);
        self.list(subject, call).await
    }

    /// A snapshot.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn snapshot(&self, id: &ResourceId) -> Result<Value, Error> {
        let call = disks::snapshots_get(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
        );
        self.read(Subject::new("read snapshot", id), call).await
    }

    /// Creates a snapshot and waits until its bytes can be read; returns it as read last. Repeating it with the same
    /// body is harmless; under the same name with another source it is refused.
    ///
    /// # Errors
    ///
    /// Azure's refusal, of the request or of the operation; a snapshot that does not become readable.
    pub async fn create_snapshot(&self, id: &ResourceId, body: &Value) -> Result<Value, Error> {
        let subject = Subject::new("create snapshot", id);
        let body: Snapshot = subject.encode(body)?;
        let call = disks::snapshots_create_or_update(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
            &body,
        );
        let mut accepted = self.begin(subject, call).await?;
        if let Some(delay) = accepted.first_look() {
            self.sender.pause(delay, subject.operation, id).await?;
            // The snapshot tells all that its operation would; not why it failed.
            match self.snapshot(id).await {
                Ok(snapshot) if readability(&snapshot) == Readiness::Ready => return Ok(snapshot),
                Err(error) if error.is_cancelled() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        self.finish(subject, accepted).await?;
        self.wait_snapshot_readable(id, |_percent| {}).await
    }

    /// Waits until the bytes of a snapshot can be read. Snapshots of Premium SSD v2 and Ultra disks are copied in the
    /// background first, which takes minutes to hours; `progress` hears each new percentage. Gives up when an hour
    /// (five minutes in the view for clean-up) passed without any.
    ///
    /// # Errors
    ///
    /// Azure's refusal; a copy that failed or stands still.
    pub async fn wait_snapshot_readable(
        &self,
        id: &ResourceId,
        mut progress: impl FnMut(f64) + Send,
    ) -> Result<Value, Error> {
        let subject = Subject::new("wait for snapshot", id);
        self.wait_until_ready(subject, || self.snapshot(id), readability, &mut progress)
            .await
    }

    /// Replaces the tags of a snapshot.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn update_snapshot_tags(
        &self,
        id: &ResourceId,
        tags: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let body = SnapshotUpdate {
            tags: Some(tags),
            ..SnapshotUpdate::default()
        };
        let call = disks::snapshots_update(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
            &body,
        );
        self.run(Subject::new("change tags of snapshot", id), call)
            .await
            .map(|_finished| ())
    }

    /// Deletes a snapshot and waits until it is gone; one that does not exist is gone already. Access to it must have
    /// been revoked.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn delete_snapshot(&self, id: &ResourceId) -> Result<(), Error> {
        let call = disks::snapshots_delete(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
        );
        self.delete(Subject::new("delete snapshot", id), call).await
    }
}

/// Why the bytes of a snapshot cannot be read now; `None` if they can.
#[must_use]
pub fn unreadable(snapshot: &Value) -> Option<String> {
    match readability(snapshot) {
        Readiness::Ready => None,
        Readiness::Pending { state, .. } => Some(state),
        Readiness::Never(reason) => Some(reason),
    }
}

/// Readable means provisioned, copied, and not reserved for instant access, which allows no download ("Instant access
/// snapshots for Azure managed disks").
fn readability(snapshot: &Value) -> Readiness {
    if let Some(failure) = provisioning_failure(snapshot) {
        return failure;
    }
    if let Some(error) = snapshot.pointer("/properties/copyCompletionError")
        && !error.is_null()
    {
        let part = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
        return Readiness::Never(format!(
            "its background copy failed: {} {}",
            clean(part("errorCode")),
            clean(part("errorMessage"))
        ));
    }
    let percent = snapshot
        .pointer("/properties/completionPercent")
        .and_then(Value::as_f64);
    let pending = |state: String| Readiness::Pending { state, percent };
    match provisioning_state(snapshot) {
        Some(state) if state.eq_ignore_ascii_case("succeeded") => {}
        Some(state) => return pending(format!("in provisioning state {state}")),
        None => return pending("without a provisioning state".into()),
    }
    if let Some(percent) = percent.filter(|&percent| percent < 100.0) {
        return pending(format!("copied to {percent} %"));
    }
    let access = snapshot
        .pointer("/properties/snapshotAccessState")
        .and_then(Value::as_str)
        .map(|state| SnapshotAccessState::from(state.to_owned()));
    match access {
        Some(state @ (SnapshotAccessState::Pending | SnapshotAccessState::InstantAccess)) => {
            pending(format!("in access state {}", clean(state.as_str())))
        }
        None
        | Some(
            SnapshotAccessState::Unknown
            | SnapshotAccessState::Available
            | SnapshotAccessState::AvailableWithInstantAccess
            | SnapshotAccessState::Other(_),
        ) => Readiness::Ready,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judge(properties: Value) -> Readiness {
        readability(&json!({ "properties": properties }))
    }

    #[test]
    fn succeeded_is_not_yet_readable() {
        let pending = |readiness| matches!(readiness, Readiness::Pending { .. });
        assert!(pending(judge(json!({"provisioningState": "Updating"}))));
        assert!(pending(judge(json!({}))));
        assert!(pending(judge(
            json!({"provisioningState": "Succeeded", "completionPercent": 0.0})
        )));
        assert!(pending(judge(
            json!({"provisioningState": "Succeeded", "snapshotAccessState": "Pending"})
        )));
        assert!(pending(judge(
            json!({"provisioningState": "Succeeded", "completionPercent": 100.0,
                   "snapshotAccessState": "InstantAccess"})
        )));
    }

    #[test]
    fn complete_snapshots_are_readable() {
        for properties in [
            json!({"provisioningState": "Succeeded"}),
            json!({"provisioningState": "Succeeded", "completionPercent": 100.0}),
            json!({"provisioningState": "Succeeded", "completionPercent": 100,
                   "snapshotAccessState": "AvailableWithInstantAccess", "copyCompletionError": null}),
        ] {
            assert_eq!(judge(properties), Readiness::Ready);
        }
    }

    #[test]
    fn failed_copies_do_not_become_readable() {
        let never = |readiness| matches!(readiness, Readiness::Never(_));
        assert!(never(judge(json!({"provisioningState": "Failed"}))));
        assert!(never(judge(json!({"provisioningState": "Succeeded",
            "copyCompletionError": {"errorCode": "CopySourceNotFound", "errorMessage": "gone"}}))));
    }
}
