//! What exists when the emulator starts: the scenario file, and the same as Rust values.
//!
//! Everything has a default that a small test can live with: a resource group that is only named is made, a VM without
//! interfaces gets one, a scenario without tenants has the one of [`crate::DEFAULT_TENANT`]. Members that are not
//! known are refused, so that a misspelt one cannot pass for a default.
use crate::size::ByteSize;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::PathBuf};

/// A whole world. Loading one replaces everything that existed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Scenario {
    /// Directories with their principals; empty means the default tenant and principal.
    pub tenants: Vec<Tenant>,
    /// Empty means one subscription, [`crate::DEFAULT_SUBSCRIPTION`], of the first tenant.
    pub subscriptions: Vec<Subscription>,
    /// Groups that are only named elsewhere need not be listed.
    pub resource_groups: Vec<ResourceGroup>,
    /// Networks that interfaces may join.
    pub virtual_networks: Vec<VirtualNetwork>,
    /// Security groups that interfaces may name.
    pub network_security_groups: Vec<NetworkSecurityGroup>,
    /// Public addresses that interfaces may name.
    #[serde(rename = "publicIPAddresses")]
    pub public_ip_addresses: Vec<PublicIpAddress>,
    /// Interfaces that belong to no VM.
    pub network_interfaces: Vec<NetworkInterface>,
    /// Disks that belong to no VM.
    pub disks: Vec<Disk>,
    /// Snapshots that exist from the beginning, of disks of this scenario.
    pub snapshots: Vec<Snapshot>,
    /// Virtual machines with their disks and interfaces.
    pub virtual_machines: Vec<Vm>,
    /// Storage accounts, empty at the beginning.
    pub storage_accounts: Vec<StorageAccount>,
}

/// A directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// A GUID.
    pub id: String,
    /// Who may ask for tokens.
    pub principals: Vec<Principal>,
}

/// A service principal.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Principal {
    /// Application (client) id, a GUID.
    pub client_id: String,
    /// The secret's value.
    pub client_secret: String,
    /// Subscriptions this principal may see; absent means all of its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Vec<String>>,
    /// Actions refused to this principal with 403 `AuthorizationFailed`, e.g. `Microsoft.Compute/snapshots/write`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_actions: Vec<String>,
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Principal")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// A subscription.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subscription {
    /// A GUID.
    pub id: String,
    /// Shown in listings.
    #[serde(default)]
    pub display_name: String,
    /// Absent: the first tenant.
    #[serde(default)]
    pub tenant_id: Option<String>,
}

/// A resource group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceGroup {
    /// Case is kept, but never decides.
    pub name: String,
    /// Region; absent: [`crate::DEFAULT_LOCATION`].
    #[serde(default)]
    pub location: Option<String>,
    /// Absent: the first subscription.
    #[serde(default)]
    pub subscription: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A virtual network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualNetwork {
    /// Name.
    pub name: String,
    /// Absent: [`crate::DEFAULT_RESOURCE_GROUP`].
    #[serde(default)]
    pub resource_group: Option<String>,
    /// Absent: that of the resource group.
    #[serde(default)]
    pub location: Option<String>,
    /// Absent: the first.
    #[serde(default)]
    pub subscription: Option<String>,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
}

/// A subnet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subnet {
    /// Name.
    pub name: String,
    /// IPv4 range such as `10.0.0.0/24`.
    pub address_prefix: String,
}

/// A network security group. Its rules are not modelled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSecurityGroup {
    /// Name.
    pub name: String,
    /// Absent: [`crate::DEFAULT_RESOURCE_GROUP`].
    #[serde(default)]
    pub resource_group: Option<String>,
    /// Absent: that of the resource group.
    #[serde(default)]
    pub location: Option<String>,
    /// Absent: the first.
    #[serde(default)]
    pub subscription: Option<String>,
}

/// A public IP address.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicIpAddress {
    /// Name.
    pub name: String,
    /// Absent: [`crate::DEFAULT_RESOURCE_GROUP`].
    #[serde(default)]
    pub resource_group: Option<String>,
    /// Absent: that of the resource group.
    #[serde(default)]
    pub location: Option<String>,
    /// Absent: the first.
    #[serde(default)]
    pub subscription: Option<String>,
    /// Absent: one is invented.
    #[serde(default)]
    pub ip_address: Option<String>,
    /// Availability zones.
    #[serde(default)]
    pub zones: Vec<String>,
}

/// A network interface.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkInterface {
    /// Name.
    pub name: String,
    /// Absent: that of the VM around it, else [`crate::DEFAULT_RESOURCE_GROUP`].
    #[serde(default)]
    pub resource_group: Option<String>,
    /// Absent: that of the resource group.
    #[serde(default)]
    pub location: Option<String>,
    /// Absent: that of the VM around it, else the first.
    #[serde(default)]
    pub subscription: Option<String>,
    /// `network/subnet` of the same resource group, or a full id; absent: `vnet-<group>/default`, made if missing.
    #[serde(default)]
    pub subnet: Option<String>,
    /// A static private address; absent: dynamic.
    #[serde(default, rename = "privateIPAddress")]
    pub private_ip_address: Option<String>,
    /// Name in the same resource group, or a full id.
    #[serde(default, rename = "publicIPAddress")]
    pub public_ip_address: Option<String>,
    /// Name in the same resource group, or a full id.
    #[serde(default)]
    pub network_security_group: Option<String>,
    /// Accelerated networking.
    #[serde(default)]
    pub enable_accelerated_networking: bool,
    /// IP forwarding.
    #[serde(default, rename = "enableIPForwarding")]
    pub enable_ip_forwarding: bool,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A managed disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disk {
    /// Name.
    pub name: String,
    /// Absent: that of the VM around it, else [`crate::DEFAULT_RESOURCE_GROUP`].
    #[serde(default)]
    pub resource_group: Option<String>,
    /// Absent: that of the resource group.
    #[serde(default)]
    pub location: Option<String>,
    /// Absent: that of the VM around it, else the first.
    #[serde(default)]
    pub subscription: Option<String>,
    /// Size in bytes, a multiple of 1 MiB.
    pub size: ByteSize,
    /// Absent: `Premium_LRS`.
    #[serde(default)]
    pub sku: Option<String>,
    /// Availability zone; absent: that of the VM around it.
    #[serde(default)]
    pub zone: Option<String>,
    /// `Linux` or `Windows` for an OS disk.
    #[serde(default)]
    pub os_type: Option<String>,
    /// `V1` or `V2`.
    #[serde(default)]
    pub hyper_v_generation: Option<String>,
    /// 512 or 4096; absent: 512.
    #[serde(default)]
    pub logical_sector_size: Option<u32>,
    /// Absent: a new GUID.
    #[serde(default)]
    pub unique_id: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Written in this order; what is not written is not allocated.
    #[serde(default)]
    pub content: Vec<Content>,
    /// Further members of `properties`, e.g. `networkAccessPolicy`, `purchasePlan`.
    #[serde(default)]
    pub properties: Map<String, Value>,
}

/// A piece of a disk's content. Offsets and lengths are multiples of 512 bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Content {
    /// Generated bytes that take no memory (see [`crate::pattern`]).
    Pattern {
        /// Another seed gives other bytes.
        seed: u64,
        /// Disk offset.
        offset: ByteSize,
        /// Length.
        length: ByteSize,
    },
    /// Zeros that were written: allocated, unlike what was never written.
    Zeros {
        /// Disk offset.
        offset: ByteSize,
        /// Length.
        length: ByteSize,
    },
    /// A local file; blocks of 64 KiB that hold only zeros stay unallocated.
    File {
        /// Path of the file. It must not change while the emulator runs.
        path: PathBuf,
        /// Disk offset of its first byte.
        #[serde(default)]
        offset: ByteSize,
    },
    /// Many pieces of generated bytes at equal distances.
    Ranges {
        /// Another seed gives other bytes.
        seed: u64,
        /// Disk offset of the first piece.
        #[serde(default)]
        offset: ByteSize,
        /// How many pieces.
        count: u64,
        /// Length of each.
        length: ByteSize,
        /// From the start of one to the start of the next.
        stride: ByteSize,
    },
}

/// A snapshot that exists from the beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// Name.
    pub name: String,
    /// Name of the source disk in this scenario.
    pub disk: String,
    /// Absent: that of the disk.
    #[serde(default)]
    pub resource_group: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A disk in a VM's slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttachedDisk {
    /// The disk.
    pub disk: Disk,
    /// LUN of a data disk; absent for the OS disk.
    #[serde(default)]
    pub lun: Option<u32>,
    /// `None`, `ReadOnly` or `ReadWrite`; absent: `ReadWrite` for the OS disk, `None` for data disks.
    #[serde(default)]
    pub caching: Option<String>,
    /// `Detach` or `Delete`; absent: `Detach`.
    #[serde(default)]
    pub delete_option: Option<String>,
}

/// An ordinary storage account.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageAccount {
    /// 3 to 24 lower-case letters and digits.
    pub name: String,
    /// Keys in base64, each of which opens it; empty: [`crate::DEFAULT_STORAGE_KEY`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl std::fmt::Debug for StorageAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageAccount")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a VM does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PowerState {
    /// `PowerState/running`
    #[default]
    Running,
    /// `PowerState/stopped`
    Stopped,
    /// `PowerState/deallocated`
    Deallocated,
}

impl PowerState {
    /// As in `PowerState/<name>`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Deallocated => "deallocated",
        }
    }
}

/// A virtual machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Vm {
    /// Name.
    pub name: String,
    /// Absent: [`crate::DEFAULT_RESOURCE_GROUP`].
    #[serde(default)]
    pub resource_group: Option<String>,
    /// Absent: that of the resource group.
    #[serde(default)]
    pub location: Option<String>,
    /// Absent: the first.
    #[serde(default)]
    pub subscription: Option<String>,
    /// A GUID; absent: a new one.
    #[serde(default)]
    pub vm_id: Option<String>,
    /// Absent: `Standard_D2s_v5`.
    #[serde(default)]
    pub vm_size: Option<String>,
    /// Availability zone.
    #[serde(default)]
    pub zone: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// OS disk.
    pub os_disk: AttachedDisk,
    /// Data disks, each with its LUN.
    #[serde(default)]
    pub data_disks: Vec<AttachedDisk>,
    /// Its interfaces, the first being primary; empty: one named `<vm>-nic`.
    #[serde(default)]
    pub network_interfaces: Vec<NetworkInterface>,
    /// Power state.
    #[serde(default)]
    pub power_state: PowerState,
    /// `identity` as in Azure's VM resource.
    #[serde(default)]
    pub identity: Option<Value>,
    /// `plan` as in Azure's VM resource.
    #[serde(default)]
    pub plan: Option<Value>,
    /// Further members of `properties`, e.g. `diagnosticsProfile`, `licenseType`, `securityProfile`.
    #[serde(default)]
    pub properties: Map<String, Value>,
}
