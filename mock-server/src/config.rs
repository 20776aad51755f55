//! How the emulator listens and how fast it is. What exists in it is the [`Scenario`]'s business.
use crate::scenario::Scenario;
use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

/// Tenant of a scenario that names none.
pub const DEFAULT_TENANT: &str = "7e0a3c52-6d1f-4b8e-9c24-5f1d2a3b4c5d";
/// Client id of the default tenant's principal.
pub const DEFAULT_CLIENT_ID: &str = "c1a5b0f4-2e63-4d19-8a77-90be12cd34ef";
/// Secret of the default tenant's principal. Deliberately with characters that need care in forms and files.
pub const DEFAULT_CLIENT_SECRET: &str = "em8Q~lator+secret/with=odd&chars";
/// Key of a storage account of a scenario that gives it none, base64.
pub const DEFAULT_STORAGE_KEY: &str =
    "ZW11bGF0b3Igc3RvcmFnZSBhY2NvdW50IGtleSwgbm90IG9mIGFueSByZWFsIGFjY291bnQhISE=";
/// Subscription of a scenario that names none.
pub const DEFAULT_SUBSCRIPTION: &str = "5ab5c21b-0e52-4a6f-9d3c-7788990011aa";
/// Region of a resource group that names none.
pub const DEFAULT_LOCATION: &str = "westeurope";
/// Resource group of a resource that names none.
pub const DEFAULT_RESOURCE_GROUP: &str = "rg-emulator";

/// Start parameters. `Config::default()` listens on free loopback ports and answers at once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of both listeners.
    pub listen: IpAddr,
    /// Plain HTTP port; 0 takes a free one.
    pub http_port: u16,
    /// HTTPS port; 0 takes a free one.
    pub https_port: u16,
    /// What exists at the start.
    pub scenario: Scenario,
    /// Entries of one page of an ARM list, at least 1.
    pub arm_page_size: usize,
    /// Ranges of one page of Get Page Ranges, 1..=10 000 (the service's cap).
    pub page_range_limit: usize,
    /// How long-running operations proceed.
    pub operations: OperationPolicy,
    /// Validity of access tokens.
    pub token_lifetime: Duration,
    /// Slows all requests down.
    pub link: Link,
    /// Refuse an eighth snapshot of a disk within five minutes, as Azure does.
    pub enforce_snapshot_rate: bool,
    /// Snapshots start at `completionPercent` 0.0 and gain this much with each GET of them, as snapshots of Premium SSD
    /// v2 and Ultra disks do; `None`: complete at once and the member is absent.
    pub background_copy_step: Option<f64>,
    /// Directory for what clients and guests write; `None` keeps it in memory.
    pub spool_dir: Option<PathBuf>,
}

/// How long-running operations proceed. An operation is done when enough time has passed and it was asked often enough.
#[derive(Clone, Debug)]
pub struct OperationPolicy {
    /// Polls (of either URL, or GETs of the resource) that still find it in progress.
    pub polls_in_progress: u32,
    /// Least running time on the emulator's clock.
    pub duration: Duration,
    /// `Retry-After` of the first answer and of polls, in seconds; `None` leaves the header out.
    pub retry_after: Option<u32>,
    /// Operations on disks and snapshots that have ended by then answer 200 with their result in place of 202 and
    /// polling URLs, as the service may: tests need not wait for polls.
    pub results_at_once: bool,
    /// Length of the signature parameters of polling URLs in characters; about 3 000 in recordings of 2023.
    pub signature_len: usize,
}

/// What the network does to every request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Wait before each answer.
    pub latency: Duration,
    /// Bytes per second in each direction of each connection; `None`: as fast as it goes.
    pub bandwidth: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            http_port: 0,
            https_port: 0,
            scenario: Scenario::default(),
            arm_page_size: 100,
            page_range_limit: 10_000,
            operations: OperationPolicy::default(),
            token_lifetime: Duration::from_secs(3599),
            link: Link::default(),
            enforce_snapshot_rate: false,
            background_copy_step: None,
            spool_dir: None,
        }
    }
}

impl Default for OperationPolicy {
    fn default() -> Self {
        Self {
            polls_in_progress: 0,
            duration: Duration::ZERO,
            retry_after: Some(0),
            results_at_once: false,
            signature_len: 3000,
        }
    }
}
