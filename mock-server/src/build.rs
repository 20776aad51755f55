//! Building a scenario in a few lines of Rust.
use crate::scenario::{
    AttachedDisk, Content, Disk, NetworkInterface, PowerState, ResourceGroup, Scenario, Snapshot,
    StorageAccount, Subnet, VirtualNetwork, Vm,
};
use crate::size::ByteSize;
use std::path::PathBuf;

impl Scenario {
    /// An empty world with the default tenant, principal and subscription.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a VM.
    #[must_use]
    pub fn vm(mut self, vm: Vm) -> Self {
        self.virtual_machines.push(vm);
        self
    }

    /// Adds a disk that belongs to no VM.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Adds a resource group.
    #[must_use]
    pub fn resource_group(mut self, name: &str, location: &str) -> Self {
        self.resource_groups.push(ResourceGroup {
            name: name.to_owned(),
            location: Some(location.to_owned()),
            ..ResourceGroup::default()
        });
        self
    }

    /// Adds a snapshot of one of the scenario's disks.
    #[must_use]
    pub fn snapshot(mut self, snapshot: Snapshot) -> Self {
        self.snapshots.push(snapshot);
        self
    }

    /// Adds a storage account with the default key.
    #[must_use]
    pub fn storage_account(mut self, name: &str) -> Self {
        self.storage_accounts.push(StorageAccount {
            name: name.to_owned(),
            ..StorageAccount::default()
        });
        self
    }

    /// Adds a network with its subnets (name, prefix).
    #[must_use]
    pub fn network(mut self, group: &str, name: &str, subnets: &[(&str, &str)]) -> Self {
        self.virtual_networks.push(VirtualNetwork {
            name: name.to_owned(),
            resource_group: Some(group.to_owned()),
            subnets: subnets
                .iter()
                .map(|(name, prefix)| Subnet {
                    name: (*name).to_owned(),
                    address_prefix: (*prefix).to_owned(),
                })
                .collect(),
            ..VirtualNetwork::default()
        });
        self
    }
}

impl Vm {
    /// A running VM of the default size with its OS disk.
    #[must_use]
    pub fn new(group: &str, name: &str, os_disk: Disk) -> Self {
        Self {
            name: name.to_owned(),
            resource_group: Some(group.to_owned()),
            os_disk: AttachedDisk {
                disk: os_disk,
                ..AttachedDisk::default()
            },
            ..Self::default()
        }
    }

    /// Attaches a data disk without host caching.
    #[must_use]
    pub fn data_disk(self, lun: u32, disk: Disk) -> Self {
        self.data_disk_cached(lun, "None", disk)
    }

    /// Attaches a data disk with host caching `None`, `ReadOnly` or `ReadWrite`.
    #[must_use]
    pub fn data_disk_cached(mut self, lun: u32, caching: &str, disk: Disk) -> Self {
        self.data_disks.push(AttachedDisk {
            disk,
            lun: Some(lun),
            caching: Some(caching.to_owned()),
            delete_option: None,
        });
        self
    }

    /// Adds an interface; the first is the primary one.
    #[must_use]
    pub fn nic(mut self, nic: NetworkInterface) -> Self {
        self.network_interfaces.push(nic);
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the availability zone of VM and disks.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.to_owned());
        self
    }

    /// Sets the size, e.g. `Standard_D4s_v5`.
    #[must_use]
    pub fn size(mut self, size: &str) -> Self {
        self.vm_size = Some(size.to_owned());
        self
    }

    /// Sets the VM id.
    #[must_use]
    pub fn vm_id(mut self, id: &str) -> Self {
        self.vm_id = Some(id.to_owned());
        self
    }

    /// Sets the power state.
    #[must_use]
    pub fn power_state(mut self, state: PowerState) -> Self {
        self.power_state = state;
        self
    }
}

impl NetworkInterface {
    /// An interface on `network/subnet` of the VM's resource group.
    #[must_use]
    pub fn new(name: &str, subnet: &str) -> Self {
        Self {
            name: name.to_owned(),
            subnet: Some(subnet.to_owned()),
            ..Self::default()
        }
    }

    /// Gives it a static private address.
    #[must_use]
    pub fn static_address(mut self, address: &str) -> Self {
        self.private_ip_address = Some(address.to_owned());
        self
    }
}

impl Disk {
    /// A disk of `size` bytes of which nothing is allocated.
    #[must_use]
    pub fn new(name: &str, size: u64) -> Self {
        Self {
            name: name.to_owned(),
            size: ByteSize(size),
            ..Self::default()
        }
    }

    /// Sets the resource group.
    #[must_use]
    pub fn in_group(mut self, group: &str) -> Self {
        self.resource_group = Some(group.to_owned());
        self
    }

    /// Sets the unique id.
    #[must_use]
    pub fn unique_id(mut self, id: &str) -> Self {
        self.unique_id = Some(id.to_owned());
        self
    }

    /// Sets the SKU, e.g. `StandardSSD_LRS`.
    #[must_use]
    pub fn sku(mut self, sku: &str) -> Self {
        self.sku = Some(sku.to_owned());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Fills a range with generated bytes.
    #[must_use]
    pub fn pattern(mut self, seed: u64, offset: u64, length: u64) -> Self {
        self.content.push(Content::Pattern {
            seed,
            offset: offset.into(),
            length: length.into(),
        });
        self
    }

    /// Fills a range with written zeros.
    #[must_use]
    pub fn zeros(mut self, offset: u64, length: u64) -> Self {
        self.content.push(Content::Zeros {
            offset: offset.into(),
            length: length.into(),
        });
        self
    }

    /// Fills `count` ranges of `length` bytes, one each `stride` bytes from `offset` on.
    #[must_use]
    pub fn ranges(mut self, seed: u64, offset: u64, count: u64, length: u64, stride: u64) -> Self {
        self.content.push(Content::Ranges {
            seed,
            offset: offset.into(),
            count,
            length: length.into(),
            stride: stride.into(),
        });
        self
    }

    /// Puts a local file's bytes at `offset`.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, offset: u64) -> Self {
        self.content.push(Content::File {
            path: path.into(),
            offset: offset.into(),
        });
        self
    }
}
