//! Network interfaces.

use serde_json::Value;

use super::arm::Subject;
use super::generated::network::{self, NetworkInterface};
use super::{Azure, Error, ResourceId};

impl Azure {
    /// A network interface.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn network_interface(&self, id: &ResourceId) -> Result<Value, Error> {
        let call = network::network_interfaces_get(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
        );
        self.read(Subject::new("read network interface", id), call)
            .await
    }

    /// Creates a network interface and waits until it is there; returns it as read afterwards. Repeating it with the
    /// same body is harmless; one that exists already is changed.
    ///
    /// # Errors
    ///
    /// Azure's refusal, of the request or of the operation.
    pub async fn create_network_interface(
        &self,
        id: &ResourceId,
        body: &Value,
    ) -> Result<Value, Error> {
        let subject = Subject::new("create network interface", id);
        let body: NetworkInterface = subject.encode(body)?;
        let call = network::network_interfaces_create_or_update(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
            &body,
        );
        self.run(subject, call).await?;
        self.network_interface(id).await
    }

    /// Deletes a network interface and waits until it is gone; one that does not exist is gone already.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn delete_network_interface(&self, id: &ResourceId) -> Result<(), Error> {
        let call = network::network_interfaces_delete(
            self.endpoint(),
            &self.versions,
            id.subscription(),
            id.resource_group(),
            id.name(),
        );
        self.delete(Subject::new("delete network interface", id), call)
            .await
    }
}
