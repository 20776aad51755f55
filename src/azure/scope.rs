//! The places that resources live in: the subscription and its resource groups.

use serde_json::Value;

use super::arm::Subject;
use super::generated::{resources, subscriptions};
use super::{Azure, Error};

impl Azure {
    /// The subscription.
    ///
    /// # Errors
    ///
    /// Azure's refusal; a subscription without any right of the application does not exist for it.
    pub async fn subscription(&self) -> Result<Value, Error> {
        let id = self.subscription_id();
        let call = subscriptions::subscriptions_get(self.endpoint(), &self.versions, id);
        self.read(Subject::new("read subscription", &id), call)
            .await
    }

    /// A resource group.
    ///
    /// # Errors
    ///
    /// Azure's refusal.
    pub async fn resource_group(&self, name: &str) -> Result<Value, Error> {
        let call = resources::resource_groups_get(
            self.endpoint(),
            &self.versions,
            self.subscription_id(),
            name,
        );
        self.read(Subject::new("read resource group", &name), call)
            .await
    }

    /// All resource groups of the subscription, every page of the list.
    ///
    /// # Errors
    ///
    /// Azure's refusal; a list that is not complete.
    pub async fn resource_groups(&self) -> Result<Vec<Value>, Error> {
        let id = self.subscription_id();
        let call = resources::resource_groups_list(self.endpoint(), &self.versions, id);
        let subject = Subject::new("list resource groups of subscription", &id);
        self.list(subject, call).await
    }
}
