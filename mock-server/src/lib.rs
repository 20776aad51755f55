//! An emulator of Azure for programs that back up and restore virtual machines: token endpoint, Resource Manager and the
//! page blobs behind managed disks, with state, rules and faults.
//!
//! It uses nothing of the client's code: a shared type would hide a shared mistake.
//!
//! ```no_run
//! # async fn demo() -> Result<(), mock_server::Error> {
//! use mock_server::{Config, Disk, Emulator, GIB, MIB, Scenario, Vm};
//!
//! let emulator = Emulator::start(Config::default()).await?;
//! let os = Disk::new("web-01-os", 30 * GIB).pattern(1, 0, 64 * MIB);
//! let data = Disk::new("web-01-data", 8 * GIB).ranges(2, 0, 1000, 4096, MIB);
//! emulator.load(&Scenario::new().vm(Vm::new("rg1", "web-01", os).data_disk(5, data)))?;
//! emulator.guest_write("web-01-data", 12_345, b"written by the guest")?;
//! # Ok(())
//! # }
//! ```
mod account;
mod arm;
mod blob;
mod build;
mod change;
mod clock;
mod config;
mod control;
mod effect;
mod emulator;
mod error;
mod faults;
mod footer;
mod front;
mod message;
mod metadata;
mod observer;
mod outage;
pub mod pattern;
mod scenario;
mod secrets;
mod service;
mod size;
mod state;
mod sync;
mod token;
mod view;

pub use change::Change;
pub use config::{
    Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_LOCATION, DEFAULT_RESOURCE_GROUP,
    DEFAULT_STORAGE_KEY, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, Link, OperationPolicy,
};
pub use emulator::Emulator;
pub use error::Error;
pub use faults::{Action, Fault, FaultView, RetryAfter, When};
pub use observer::{Counters, OperationCounters};
pub use scenario::{
    AttachedDisk, Content, Disk, NetworkInterface, NetworkSecurityGroup, PowerState, Principal,
    PublicIpAddress, ResourceGroup, Scenario, Snapshot, StorageAccount, Subnet, Subscription,
    Tenant, VirtualNetwork, Vm,
};
pub use secrets::{SecretKind, Sighting};
pub use size::{ByteSize, GIB, KIB, MIB, TIB};
pub use view::{
    AttachedDiskView, BlobView, ContainerView, DiskView, GrantView, NicView, OperationView,
    SnapshotView, StateView, StorageAccountView, VmView,
};

/// Every action that a request of the emulator may need; for [`Principal::denied_actions`]. Some come more than once.
pub fn actions() -> impl Iterator<Item = &'static str> {
    arm::actions()
}
