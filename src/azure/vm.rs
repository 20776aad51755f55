//! Virtual machines.

use serde_json::Value;

use super::arm::Subject;
use super::generated::compute::{self, VirtualMachine};
use super::readiness::{Readiness, provisioning_failure, provisioning_state};
use super::{Azure, Error, ResourceId};

impl Azure {
    /// All virtual machines of the subscription, every page of the list.
    ///
    /// # Errors
    ///
    /// Azure's refusal; a list that is not complete.
    pub async fn virtual_machines(&self) -> Result<Vec<Value>, Error> {
        let subscription = self.subscription_id();
        let call =
            compute::virtual_machines_list_all(self.endpoint(), &self.versions, subscription, None);
        let subject = Subject::new("list virtual machines of subscription", &subscription);
        self.list(subject, call).await
    }

    /// A virtual machine.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn virtual_machine(&self, id: &ResourceId) -> Result<Value, Error> {
        self.read_virtual_machine(id, None).await
    }

    /// A virtual machine with its run-time state (`properties.instanceView`).
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn virtual_machine_with_instance_view(
        &self,
        id: &ResourceId,
    ) -> Result<Value, Error> {
        self.read_virtual_machine(id, Some("instanceView")).await
    }

    /// The virtual machine of that name, if the resource group has one.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn find_virtual_machine(
        &self,
        resource_group: &str,
        name: &str,
    ) -> Result<Option<Value>, Error> {
        let id = ResourceId::new(
            self.subscription_id(),
            resource_group,
            "Microsoft.Compute/virtualMachines",
            name,
        );
        match self.virtual_machine(&id).await {
            Ok(vm) => Ok(Some(vm)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_virtual_machine(
        &self,
        id: &ResourceId,
        expand: Option<&str>,
    ) -> Result<Value, Error> {
        let call = compute::virtual_machines_get(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
            expand,
        );
        self.read(Subject::new("read virtual machine", id), call)
            .await
    }

    /// Creates a virtual machine of existing disks and waits until it is there; returns it as read last. One that exists
    /// already is left alone (`If-None-Match: *`).
    ///
    /// # Errors
    ///
    /// Azure's refusal, of the request or of the operation; status 412 if the name is taken. [`Error::may_be_done`] tells
    /// whether there may be a machine.
    pub async fn create_virtual_machine(
        &self,
        id: &ResourceId,
        wanted: &Value,
    ) -> Result<Value, Error> {
        let subject = Subject::new("create virtual machine", id);
        let body: VirtualMachine = subject.encode(wanted)?;
        let call = compute::virtual_machines_create_or_update(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
            Some("*"),
            &body,
        );
        match self.begin(subject, call).await {
            Ok(accepted) => {
                let finished = self.finish(subject, accepted).await;
                drop(finished.map_err(Error::of_accepted)?);
            }
            // Perhaps made by an earlier attempt whose answer was lost: then it has the disk that it was to have.
            Err(error) if error.status() == Some(412) && error.is_repeated() => {
                let found = self.virtual_machine(id).await.map_err(Error::of_accepted)?;
                if os_disk(&found).is_none_or(|disk| Some(disk) != os_disk(wanted)) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        self.wait_until_ready(
            subject,
            || self.virtual_machine(id),
            provisioning,
            &mut |_percent| {},
        )
        .await
        .map_err(Error::of_accepted)
    }

    /// Deletes a virtual machine and waits until it is gone; one that does not exist is gone already.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn delete_virtual_machine(&self, id: &ResourceId) -> Result<(), Error> {
        let call = compute::virtual_machines_delete(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
        );
        self.delete(Subject::new("delete virtual machine", id), call)
            .await
    }
}

/// The id of the managed OS disk, in lower case.
fn os_disk(vm: &Value) -> Option<String> {
    let id = vm.pointer("/properties/storageProfile/osDisk/managedDisk/id")?;
    Some(id.as_str()?.to_ascii_lowercase())
}

/// A new machine may be changed at once, by a policy of the subscription; that passes.
fn provisioning(vm: &Value) -> Readiness {
    if let Some(failure) = provisioning_failure(vm) {
        return failure;
    }
    match provisioning_state(vm) {
        Some(state) if state.eq_ignore_ascii_case("succeeded") => Readiness::Ready,
        state => Readiness::Pending {
            state: format!(
                "in provisioning state {}",
                state.as_deref().unwrap_or("(none)")
            ),
            percent: None,
        },
    }
}
