//! Managed disks.

use serde_json::Value;

use super::arm::Subject;
use super::generated::disks::{self, Disk, DiskState};
use super::readiness::{Readiness, provisioning_failure};
use super::{Azure, Error, ResourceId};

impl Azure {
    /// All managed disks of the subscription, every page of the list.
    ///
    /// # Errors
    ///
    /// Azure's refusal; a list that is not complete.
    pub async fn disks(&self) -> Result<Vec<Value>, Error> {
        let subscription = self.subscription_id();
        let call = disks::disks_list(self.endpoint(), &self.versions, subscription);
        let subject = Subject::new("list disks of subscription", &subscription);
        self.list(subject, call).await
    }

    /// A managed disk.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn disk(&self, id: &ResourceId) -> Result<Value, Error> {
        let call = disks::disks_get(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
        );
        self.read(Subject::new("read disk", id), call).await
    }

    /// Creates a disk that is to be uploaded (`createOption: Upload`) and waits until it is ready for that, judged on
    /// the disk itself; returns it. Repeating it with the same body is harmless.
    ///
    /// # Errors
    ///
    /// Azure's refusal, of the request or of the operation; a disk that is in another state afterwards.
    pub async fn create_upload_disk(&self, id: &ResourceId, body: &Value) -> Result<Value, Error> {
        let subject = Subject::new("create disk", id);
        let body: Disk = subject.encode(body)?;
        let call = disks::disks_create_or_update(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
            &body,
        );
        self.run(subject, call).await?;
        self.wait_until_ready(
            subject,
            || self.disk(id),
            upload_readiness,
            &mut |_percent| {},
        )
        .await
    }

    /// Deletes a disk and waits until it is gone; one that does not exist is gone already. Access to it must have been
    /// revoked.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn delete_disk(&self, id: &ResourceId) -> Result<(), Error> {
        let call = disks::disks_delete(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
        );
        self.delete(Subject::new("delete disk", id), call).await
    }
}

/// `properties.diskState` of a disk or snapshot, if Azure gives one.
pub(super) fn disk_state(resource: &Value) -> Option<DiskState> {
    let state = resource.pointer("/properties/diskState")?.as_str()?;
    Some(DiskState::from(state.to_owned()))
}

fn upload_readiness(disk: &Value) -> Readiness {
    if let Some(failure) = provisioning_failure(disk) {
        return failure;
    }
    match disk_state(disk) {
        Some(DiskState::ReadyToUpload) => Readiness::Ready,
        None => Readiness::Pending {
            state: "without a state".into(),
            percent: None,
        },
        Some(state @ (DiskState::Unattached | DiskState::Other(_))) => Readiness::Pending {
            state: format!("in state {}", state.as_str()),
            percent: None,
        },
        Some(
            state @ (DiskState::Attached
            | DiskState::Reserved
            | DiskState::Frozen
            | DiskState::ActiveSas
            | DiskState::ActiveSasFrozen
            | DiskState::ActiveUpload),
        ) => Readiness::Never(format!(
            "a disk of this name is in use already (state {})",
            state.as_str()
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ready_to_upload_is_ready() {
        let judge = |properties: Value| upload_readiness(&json!({ "properties": properties }));
        // A fresh upload disk has neither diskSizeGB nor diskSizeBytes (recorded, API version 2023-04-02).
        assert_eq!(
            judge(json!({"diskState": "ReadyToUpload"})),
            Readiness::Ready
        );
        assert!(matches!(judge(json!({})), Readiness::Pending { .. }));
        assert!(matches!(
            judge(json!({"diskState": "Attached"})),
            Readiness::Never(_)
        ));
        assert!(matches!(
            judge(json!({"diskState": "ReadyToUpload", "provisioningState": "Failed"})),
            Readiness::Never(_)
        ));
    }
}
