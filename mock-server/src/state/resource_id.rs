//! Resource ids: the service keeps the case that the creator used and compares without it.
use std::fmt;

/// What kind of resource an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    VirtualMachine,
    Disk,
    Snapshot,
    NetworkInterface,
    PublicIpAddress,
    VirtualNetwork,
    NetworkSecurityGroup,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::VirtualMachine,
        Self::Disk,
        Self::Snapshot,
        Self::NetworkInterface,
        Self::PublicIpAddress,
        Self::VirtualNetwork,
        Self::NetworkSecurityGroup,
    ];

    /// Provider and type, e.g. `Microsoft.Compute/disks`.
    pub(crate) fn resource_type(self) -> &'static str {
        match self {
            Self::VirtualMachine => "Microsoft.Compute/virtualMachines",
            Self::Disk => "Microsoft.Compute/disks",
            Self::Snapshot => "Microsoft.Compute/snapshots",
            Self::NetworkInterface => "Microsoft.Network/networkInterfaces",
            Self::PublicIpAddress => "Microsoft.Network/publicIPAddresses",
            Self::VirtualNetwork => "Microsoft.Network/virtualNetworks",
            Self::NetworkSecurityGroup => "Microsoft.Network/networkSecurityGroups",
        }
    }
}

/// The id of a resource in a resource group.
#[derive(Clone, Debug)]
pub(crate) struct ResourceId {
    pub(crate) subscription: String,
    pub(crate) group: String,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl ResourceId {
    pub(crate) fn new(subscription: &str, group: &str, kind: Kind, name: &str) -> Self {
        Self {
            subscription: subscription.to_owned(),
            group: group.to_owned(),
            kind,
            name: name.to_owned(),
        }
    }

    /// An id as text, in any case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.strip_prefix('/')?.split('/').collect();
        let [
            subscriptions,
            subscription,
            groups,
            group,
            providers,
            provider,
            kind,
            name,
        ] = parts[..]
        else {
            return None;
        };
        let fixed = subscriptions.eq_ignore_ascii_case("subscriptions")
            && groups.eq_ignore_ascii_case("resourceGroups")
            && providers.eq_ignore_ascii_case("providers");
        let wanted = format!("{provider}/{kind}");
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.resource_type().eq_ignore_ascii_case(&wanted))?;
        (fixed && !subscription.is_empty() && !group.is_empty() && !name.is_empty())
            .then(|| Self::new(subscription, group, kind, name))
    }

    /// The same for every spelling of the id.
    pub(crate) fn key(&self) -> String {
        self.to_string().to_ascii_lowercase()
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            subscription,
            group,
            kind,
            name,
        } = self;
        let kind = kind.resource_type();
        write!(
            f,
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/{kind}/{name}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_decide() {
        let text = "/subscriptions/S/RESOURCEGROUPS/Rg/providers/microsoft.compute/DISKS/D";
        let id = ResourceId::parse(text).unwrap();
        assert_eq!(id.kind, Kind::Disk);
        assert_eq!(
            id.to_string(),
            "/subscriptions/S/resourceGroups/Rg/providers/Microsoft.Compute/disks/D"
        );
        assert_eq!(id.key(), text.to_ascii_lowercase());
        for wrong in [
            "",
            "/",
            "/subscriptions/S/resourceGroups/R",
            &format!("{text}/x"),
            &text[1..],
        ] {
            assert!(ResourceId::parse(wrong).is_none(), "{wrong}");
        }
    }
}
