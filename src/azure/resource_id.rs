//! ARM resource ids.
//!
//! They are compared without regard to case: the service itself mixes `resourceGroups/RG` and `RESOURCEGROUPS/rg` in
//! ids of one resource. The spelling that was given is kept and sent.

use std::fmt;
use std::hash::{Hash, Hasher};

/// Id of a resource in a resource group: `/subscriptions/S/resourceGroups/G/providers/P/T/N[/T/N…]`.
#[derive(Clone)]
pub struct ResourceId {
    text: String,
}

impl ResourceId {
    /// Takes an id apart; `None` unless it is exactly of the form above, with no empty component.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('/')?.split('/');
        let mut literal = |expected: &str| {
            let found = parts.next()?;
            found.eq_ignore_ascii_case(expected).then_some(())?;
            parts.next().filter(|value| is_component(value))
        };
        literal("subscriptions")?;
        literal("resourceGroups")?;
        literal("providers")?;
        let types_and_names: Vec<&str> = parts.collect();
        let valid = !types_and_names.is_empty()
            && types_and_names.len().is_multiple_of(2)
            && types_and_names.iter().all(|part| is_component(part));
        valid.then(|| Self {
            text: text.to_owned(),
        })
    }

    /// Builds one, e.g. `new(subscription, group, "Microsoft.Compute/disks", name)`. The parts must be free of `/`.
    #[must_use]
    pub fn new(subscription: &str, resource_group: &str, resource_type: &str, name: &str) -> Self {
        Self {
            text: format!(
                "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/{resource_type}/{name}"
            ),
        }
    }

    /// The whole id, as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Subscription, as given.
    #[must_use]
    pub fn subscription(&self) -> &str {
        self.component(1)
    }

    /// Whether it is of this subscription, in whatever case that is written.
    #[must_use]
    pub fn is_in(&self, subscription: &str) -> bool {
        self.subscription().eq_ignore_ascii_case(subscription)
    }

    /// Resource group, as given.
    #[must_use]
    pub fn resource_group(&self) -> &str {
        self.component(3)
    }

    /// Last component, as given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text
            .rsplit_once('/')
            .map_or(&self.text, |(_, name)| name)
    }

    /// Whether the resource is of `resource_type` (`Microsoft.Compute/disks`), in any case.
    #[must_use]
    pub fn is_type(&self, resource_type: &str) -> bool {
        let mut expected = resource_type.split('/');
        let provider = expected.next().unwrap_or_default();
        if !self.component(5).eq_ignore_ascii_case(provider) {
            return false;
        }
        let types = self.text[1..].split('/').skip(6).step_by(2);
        types
            .map(str::to_ascii_lowercase)
            .eq(expected.map(str::to_ascii_lowercase))
    }

    fn component(&self, index: usize) -> &str {
        self.text[1..].split('/').nth(index).unwrap_or_default()
    }
}

/// No control characters and nothing that would end the path of a URL.
fn is_component(text: &str) -> bool {
    !text.is_empty()
        && !matches!(text, "." | "..")
        && !text
            .chars()
            .any(|c| c.is_control() || matches!(c, '?' | '#' | '%' | '\\'))
}

impl PartialEq for ResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.text.eq_ignore_ascii_case(&other.text)
    }
}

impl Eq for ResourceId {}

impl Hash for ResourceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.text.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const DISK: &str =
        "/subscriptions/S/resourceGroups/My_Group.(1)/providers/Microsoft.Compute/disks/data-01";

    #[test]
    fn parts_keep_their_spelling() {
        let id = ResourceId::parse(DISK).expect("valid");
        assert_eq!(id.subscription(), "S");
        assert_eq!(id.resource_group(), "My_Group.(1)");
        assert_eq!(id.name(), "data-01");
        assert_eq!(id.as_str(), DISK);
        assert_eq!(
            id,
            ResourceId::new("S", "My_Group.(1)", "Microsoft.Compute/disks", "data-01")
        );
    }

    #[test]
    fn equality_and_hash_ignore_case() {
        let mut set = HashSet::new();
        set.insert(ResourceId::parse(DISK).expect("valid"));
        assert!(set.contains(&ResourceId::parse(&DISK.to_uppercase()).expect("valid")));
        assert!(set.contains(&ResourceId::parse(&DISK.to_lowercase()).expect("valid")));
    }

    #[test]
    fn types_may_be_nested() {
        let subnet = ResourceId::parse(
            "/subscriptions/s/resourcegroups/g/providers/microsoft.network/virtualNetworks/v/subnets/n",
        )
        .expect("valid");
        assert!(subnet.is_type("Microsoft.Network/virtualNetworks/subnets"));
        assert!(!subnet.is_type("Microsoft.Network/virtualNetworks"));
        assert!(
            ResourceId::parse(DISK)
                .expect("valid")
                .is_type("microsoft.compute/DISKS")
        );
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "/",
            "subscriptions/S/resourceGroups/G/providers/P/T/N",
            "/subscriptions/S",
            "/subscriptions/S/resourceGroups/G",
            "/subscriptions/S/resourceGroups/G/providers/P",
            "/subscriptions/S/resourceGroups/G/providers/P/T",
            "/subscriptions/S/resourceGroups/G/providers/P/T/",
            "/subscriptions/S/resourceGroups/G/providers/P/T/N/",
            "/subscriptions//resourceGroups/G/providers/P/T/N",
            "/subscriptions/S/groups/G/providers/P/T/N",
            "/subscriptions/S/resourceGroups/G/providers/P/T/N?x=1",
            "/subscriptions/S/resourceGroups/../providers/P/T/N",
            "/subscriptions/S/resourceGroups/G/providers/P/T/N/U",
        ] {
            assert!(ResourceId::parse(text).is_none(), "{text}");
        }
    }
}
