//! What exists, for tests and for people: the answer of `GET /_emulator/state`.
use crate::scenario::PowerState;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Everything that exists, each list sorted by id.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateView {
    /// Ids of all resource groups.
    pub resource_groups: Vec<String>,
    /// Virtual machines.
    pub virtual_machines: Vec<VmView>,
    /// Managed disks.
    pub disks: Vec<DiskView>,
    /// Snapshots.
    pub snapshots: Vec<SnapshotView>,
    /// Network interfaces.
    pub network_interfaces: Vec<NicView>,
    /// Public addresses, as Azure shows them.
    pub public_ip_addresses: Vec<Value>,
    /// Access that is neither revoked nor expired.
    pub grants: Vec<GrantView>,
    /// Long-running operations that have not ended.
    pub running_operations: Vec<OperationView>,
    /// Storage accounts with what is in them.
    pub storage_accounts: Vec<StorageAccountView>,
}

/// A virtual machine.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VmView {
    /// Resource id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Resource group.
    pub resource_group: String,
    /// Region.
    pub location: String,
    /// Availability zones.
    pub zones: Vec<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// VM id.
    pub vm_id: String,
    /// Size.
    pub vm_size: String,
    /// Power state.
    pub power_state: PowerState,
    /// OS disk.
    pub os_disk: AttachedDiskView,
    /// Data disks by LUN.
    pub data_disks: BTreeMap<u32, AttachedDiskView>,
    /// Ids of its interfaces, in order.
    pub network_interfaces: Vec<String>,
    /// As GET answers it.
    pub resource: Value,
}

/// A disk in a VM's slot.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedDiskView {
    /// Resource id of the disk.
    pub id: String,
    /// Name of the disk.
    pub name: String,
    /// Host caching.
    pub caching: String,
}

/// A managed disk.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskView {
    /// Resource id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Resource group.
    pub resource_group: String,
    /// Size of its data; 0 while an upload has not begun.
    pub size_bytes: u64,
    /// Bytes that were written and not discarded.
    pub allocated_bytes: u64,
    /// `Unattached`, `Attached`, `ReadyToUpload`, ...
    pub disk_state: String,
    /// `Succeeded`, `Failed`, ...
    pub provisioning_state: String,
    /// Unique id.
    pub unique_id: String,
    /// SKU name.
    pub sku: String,
    /// Availability zones.
    pub zones: Vec<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// VM it is attached to.
    pub managed_by: Option<String>,
    /// As GET answers it.
    pub resource: Value,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotView {
    /// Resource id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Resource group.
    pub resource_group: String,
    /// Id of the disk it was taken of.
    pub source: String,
    /// Size of its data.
    pub size_bytes: u64,
    /// Bytes that were allocated when it was taken.
    pub allocated_bytes: u64,
    /// `Unattached` or `ActiveSAS`.
    pub disk_state: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// As GET answers it.
    pub resource: Value,
}

/// A network interface.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NicView {
    /// Resource id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Resource group.
    pub resource_group: String,
    /// VM that uses it.
    pub virtual_machine: Option<String>,
    /// As GET answers it.
    pub resource: Value,
}

/// Access to a disk's or snapshot's data. The SAS itself is not shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantView {
    /// Id of the disk or snapshot.
    pub resource: String,
    /// `Read` or `Write`.
    pub access: String,
    /// When it ends by itself, ISO 8601.
    pub expires: String,
}

/// A long-running operation.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationView {
    /// Operation id.
    pub id: String,
    /// Name of the request that began it, e.g. `Disks_CreateOrUpdate`.
    pub operation: String,
    /// Resource it works on.
    pub resource: String,
}

/// A storage account. Its keys are not shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageAccountView {
    /// Name.
    pub name: String,
    /// Its containers.
    pub containers: Vec<ContainerView>,
}

/// A container.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// Name.
    pub name: String,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// Its blobs.
    pub blobs: Vec<BlobView>,
}

/// A page blob.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobView {
    /// Name.
    pub name: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Bytes that were written and not cleared.
    pub allocated_bytes: u64,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// `pending`, `success`, ... of the copy that made it, if one did.
    pub copy_status: Option<&'static str>,
    /// When it was last changed, ISO 8601.
    pub modified: String,
}

impl StateView {
    /// The blobs of a storage account, of all its containers.
    #[must_use]
    pub fn blobs(&self, account: &str) -> Vec<&BlobView> {
        self.storage_accounts
            .iter()
            .filter(|known| known.name == account)
            .flat_map(|known| &known.containers)
            .flat_map(|container| &container.blobs)
            .collect()
    }

    /// The VM of this name, in any resource group.
    #[must_use]
    pub fn vm(&self, name: &str) -> Option<&VmView> {
        self.virtual_machines
            .iter()
            .find(|vm| vm.name.eq_ignore_ascii_case(name))
    }

    /// The disk of this name, in any resource group.
    #[must_use]
    pub fn disk(&self, name: &str) -> Option<&DiskView> {
        self.disks
            .iter()
            .find(|disk| disk.name.eq_ignore_ascii_case(name))
    }
}
