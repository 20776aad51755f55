//! The clouds and their addresses.
//!
//! Checked against the cloud table of Azure CLI 2.91.0 (`core/cloud.py`). The German cloud is gone. Addresses of data
//! (`md-….blob.…`) are never derived from the storage suffix: they come with each grant.

use std::net::IpAddr;

use url::Url;

/// Addresses of one cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Where tokens come from, e.g. `https://login.microsoftonline.com/`.
    pub authority: Url,
    /// Azure Resource Manager, e.g. `https://management.azure.com/`.
    pub arm: Url,
    /// What tokens are for, e.g. `https://management.azure.com/`.
    pub audience: String,
    /// End of storage account host names, e.g. `core.windows.net`.
    pub storage_suffix: String,
}

struct Cloud {
    name: &'static str,
    authority: &'static str,
    arm: &'static str,
    audience: &'static str,
    storage_suffix: &'static str,
}

const CLOUDS: [Cloud; 4] = [
    Cloud {
        name: "AzureCloud",
        authority: "https://login.microsoftonline.com/",
        arm: "https://management.azure.com/",
        audience: "https://management.azure.com/",
        storage_suffix: "core.windows.net",
    },
    Cloud {
        name: "AzureUSGovernment",
        authority: "https://login.microsoftonline.us/",
        arm: "https://management.usgovcloudapi.net/",
        audience: "https://management.core.usgovcloudapi.net/",
        storage_suffix: "core.usgovcloudapi.net",
    },
    Cloud {
        name: "AzureChinaCloud",
        authority: "https://login.chinacloudapi.cn/",
        arm: "https://management.chinacloudapi.cn/",
        audience: "https://management.core.chinacloudapi.cn/",
        storage_suffix: "core.chinacloudapi.cn",
    },
    Cloud {
        name: "AzureBleuCloud",
        authority: "https://login.sovcloud-identity.fr/",
        arm: "https://management.sovcloud-api.fr/",
        audience: "https://management.sovcloud-api.fr/",
        storage_suffix: "core.sovcloud-api.fr",
    },
];

impl Endpoints {
    /// By the cloud's name (`AzureCloud`, `AzureUSGovernment`, `AzureChinaCloud`, `AzureBleuCloud`), in any case.
    #[must_use]
    pub fn of_cloud(name: &str) -> Option<Self> {
        let cloud = CLOUDS.iter().find(|c| c.name.eq_ignore_ascii_case(name))?;
        Some(Self {
            authority: Url::parse(cloud.authority).ok()?,
            arm: Url::parse(cloud.arm).ok()?,
            audience: cloud.audience.to_owned(),
            storage_suffix: cloud.storage_suffix.to_owned(),
        })
    }

    /// Names of the known clouds, for messages.
    pub fn cloud_names() -> impl Iterator<Item = &'static str> {
        CLOUDS.iter().map(|cloud| cloud.name)
    }
}

/// Whether the host of a URL is this machine itself: the only place where plain HTTP is acceptable.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_few_names() {
        for host in ["localhost", "127.8.9.1", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn every_cloud_is_found_in_any_case() {
        for name in Endpoints::cloud_names() {
            let cloud = Endpoints::of_cloud(&name.to_uppercase()).expect(name);
            assert_eq!(cloud.arm.scheme(), "https");
            assert_eq!(cloud.authority.path(), "/");
        }
        let china = Endpoints::of_cloud("azurechinacloud").expect("known");
        assert_eq!(china.arm.host_str(), Some("management.chinacloudapi.cn"));
        assert_eq!(Endpoints::of_cloud("AzureGermanCloud"), None);
    }
}
