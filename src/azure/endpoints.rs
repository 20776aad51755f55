//! The clouds and their addresses.
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
    /// e.g. `core.windows.net`.
    pub storage_suffix: String,
}

impl Endpoints {
    /// By the cloud's name (`AzureCloud`, `AzureUSGovernment`, `AzureChinaCloud`, `AzureBleuCloud`), in any case.
    #[must_use]
    pub fn of_cloud(name: &str) -> Option<Self> {
        let _ = name;
        unimplemented!()
    }
}
