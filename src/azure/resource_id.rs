//! ARM resource ids: compared without regard to case.

/// `/subscriptions/S/resourceGroups/G/providers/P/T/N`.
#[derive(Clone, Debug)]
pub struct ResourceId {
    text: String,
}

impl ResourceId {
    /// Checks the form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self {
            text: text.to_owned(),
        })
    }
    /// Builds one, e.g. `new(sub, group, "Microsoft.Compute/disks", name)`.
    #[must_use]
    pub fn new(subscription: &str, resource_group: &str, resource_type: &str, name: &str) -> Self {
        let _ = (subscription, resource_group, resource_type, name);
        unimplemented!()
    }
    /// As given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// Resource group, as given.
    #[must_use]
    pub fn resource_group(&self) -> &str {
        unimplemented!()
    }
    /// Last component.
    #[must_use]
    pub fn name(&self) -> &str {
        unimplemented!()
    }
}
