//! Virtual machines.

use serde_json::Value;

use super::arm::Subject;
use super::generated::compute::{self, VirtualMachine};
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

    /// Creates a virtual machine and waits until it is there; returns it as read afterwards. Repeating it with the same
    /// body is harmless; one that exists already is changed.
    ///
    /// # Errors
    ///
    /// Azure's refusal, of the request or of the operation.
    pub async fn create_virtual_machine(
        &self,
        id: &ResourceId,
        body: &Value,
    ) -> Result<Value, Error> {
        let subject = Subject::new("create virtual machine", id);
        let body: VirtualMachine = subject.encode(body)?;
        let call = compute::virtual_machines_create_or_update(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
            None,
            &body,
        );
        self.run(subject, call).await?;
        self.virtual_machine(id).await
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
