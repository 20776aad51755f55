//! The VM of the demo and of the round-trip tests, and the check that a restored VM equals it.

use std::path::Path;

use anyhow::{Context, Result};
use mock_server::{
    AttachedDisk, Disk, GIB, KIB, MIB, NetworkInterface, NetworkSecurityGroup, Scenario, Vm, VmView,
};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::compare::{CloudDisk, compare};
use crate::guest_disk::GuestDisk;
use crate::sandbox::Sandbox;

/// Resource group of the VM.
const GROUP: &str = "rg-ledger";

/// A VM with an OS disk that holds a partition table and a file system, and data disks on LUNs 0 and 5.
#[derive(Debug)]
pub struct Ledger {
    /// What the OS disk holds.
    pub os: GuestDisk,
    /// What the data disks hold, with their LUNs.
    pub data: [(u32, GuestDisk); 2],
}

/// A finding of a comparison.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// What was found.
    pub text: String,
    /// Whether it is as it should be.
    pub good: bool,
}

impl Ledger {
    /// The VM's name.
    pub const NAME: &str = "ledger01";

    /// Makes the guest's disks as files in `directory`; `scale` 1 is small and quick, the demo takes more.
    ///
    /// # Errors
    ///
    /// A tool is missing, or the disk is full.
    pub fn create(directory: &Path, scale: u64) -> Result<Self> {
        let os =
            GuestDisk::with_file_system(&directory.join("os.raw"), scale * GIB, scale * 24 * MIB)?;
        let first = GuestDisk::empty(&directory.join("lun0.raw"), scale * 2 * GIB)?;
        // A long run, pieces that lie across the borders of requests, single sectors, and the very last one.
        first.write_pattern(10, 0..scale * 16 * MIB)?;
        for number in 0..50 {
            let start = GIB + number * 7 * MIB + number * 512;
            first.write_pattern(11, start..start + 40 * KIB + 512)?;
        }
        first.write_pattern(12, first.size() - 512..first.size())?;
        // A disk that ends in a hole: the image must still get its full size.
        let second = GuestDisk::empty(&directory.join("lun5.raw"), scale * GIB)?;
        second.write_pattern(13, 100 * MIB + 4 * KIB..(100 + 8 * scale) * MIB)?;
        Ok(Self {
            os,
            data: [(0, first), (5, second)],
        })
    }

    /// The world in which this VM runs.
    #[must_use]
    pub fn scenario(&self) -> Scenario {
        let disk = |name: &str, guest: &GuestDisk| {
            Disk::new(&format!("{}-{name}", Self::NAME), guest.size())
                .file(guest.path(), 0)
                .tag("cost-centre", "4711")
        };
        let [(first_lun, first), (second_lun, second)] = &self.data;
        let mut os_disk = disk("os", &self.os);
        os_disk.os_type = Some("Linux".into());
        os_disk.hyper_v_generation = Some("V2".into());
        let mut nic =
            NetworkInterface::new("ledger01-nic", "vnet-ledger/app").static_address("10.1.0.17");
        nic.network_security_group = Some("nsg-ledger".into());
        let mut vm = Vm::new(GROUP, Self::NAME, os_disk)
            .size("Standard_D2s_v5")
            .zone("1")
            .tag("environment", "demo")
            .tag("owner", "book keeping")
            .data_disk_cached(*first_lun, "None", disk("data-0", first))
            .data_disk_cached(
                *second_lun,
                "ReadOnly",
                disk("data-5", second).sku("StandardSSD_LRS"),
            )
            .nic(nic);
        vm.os_disk = AttachedDisk {
            caching: Some("ReadWrite".into()),
            ..vm.os_disk
        };
        let mut scenario = Scenario::new()
            .resource_group(GROUP, "westeurope")
            .network(GROUP, "vnet-ledger", &[("app", "10.1.0.0/24")])
            .vm(vm);
        scenario.network_security_groups.push(NetworkSecurityGroup {
            name: "nsg-ledger".into(),
            resource_group: Some(GROUP.into()),
            ..NetworkSecurityGroup::default()
        });
        scenario
    }

    /// Compares every disk of the VM `name` with what the guest held.
    ///
    /// # Errors
    ///
    /// There is no such VM, or the emulator cannot be read. A difference is a finding.
    pub fn compare_disks(&self, cloud: &Cloud, name: &str) -> Result<Vec<Finding>> {
        let state = cloud.state();
        let vm = state
            .vm(name)
            .with_context(|| format!("VM {name} does not exist"))?;
        let mut pairs = vec![("OS disk".to_owned(), &self.os, Some(&vm.os_disk))];
        for (lun, guest) in &self.data {
            pairs.push((format!("LUN {lun}"), guest, vm.data_disks.get(lun)));
        }
        Ok(pairs
            .into_iter()
            .map(|(subject, guest, disk)| {
                let result = disk.context("no such disk").and_then(|disk| {
                    let disk = CloudDisk {
                        emulator: cloud.emulator(),
                        disk: &disk.id,
                    };
                    compare(guest, &disk)
                });
                Finding {
                    subject,
                    good: result.is_ok(),
                    text: match result {
                        Ok(compared) => format!(
                            "identical: {} MiB, of which {:.1} MiB are not holes",
                            guest.size() / MIB,
                            mebibytes(compared)
                        ),
                        Err(error) => format!("{error:#}"),
                    },
                }
            })
            .collect())
    }
}

/// Bytes as MiB, for people.
#[must_use]
#[allow(
    clippy::cast_precision_loss,
    reason = "shown with one digit after the point"
)]
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

/// Compares what can be seen of two VMs apart from their disks' bytes.
#[must_use]
pub fn compare_vms(saved: &VmShape, restored: &VmShape) -> Vec<Finding> {
    saved
        .0
        .iter()
        .map(|(subject, expected)| {
            let found = restored
                .0
                .iter()
                .find(|(name, _)| name == subject)
                .map(|(_, value)| value.as_str())
                .unwrap_or("nothing");
            Finding {
                subject: (*subject).to_owned(),
                good: found == expected,
                text: if found == expected {
                    found.to_owned()
                } else {
                    format!("{found}, but it was {expected}")
                },
            }
        })
        .collect()
}

/// What a restored VM must have in common with the saved one.
#[derive(Clone, Debug)]
pub struct VmShape(Vec<(&'static str, String)>);

impl VmShape {
    /// How a VM looks now.
    ///
    /// # Errors
    ///
    /// There is no such VM, or it names interfaces or disks that do not exist.
    pub fn of(cloud: &Cloud, name: &str) -> Result<Self> {
        let state = cloud.state();
        let vm = state
            .vm(name)
            .with_context(|| format!("VM {name} does not exist"))?;
        let nic = vm
            .network_interfaces
            .first()
            .and_then(|id| {
                state
                    .network_interfaces
                    .iter()
                    .find(|nic| nic.id.eq_ignore_ascii_case(id))
            })
            .context("no network interface")?;
        let address = nic
            .resource
            .pointer("/properties/ipConfigurations/0/properties")
            .context("no IP configuration")?;
        let text = |value: &Value, pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or("none")
                .to_lowercase()
        };
        let disks = |what: &dyn Fn(&mock_server::DiskView) -> String| -> Result<String> {
            slots(vm)
                .map(|(slot, attached)| {
                    let disk = state
                        .disks
                        .iter()
                        .find(|disk| disk.id.eq_ignore_ascii_case(&attached.id));
                    let disk =
                        disk.with_context(|| format!("disk {} does not exist", attached.id))?;
                    Ok(format!("{slot} {}", what(disk)))
                })
                .collect::<Result<Vec<_>>>()
                .map(|parts| parts.join(", "))
        };
        let caching: Vec<String> = slots(vm)
            .map(|(slot, disk)| format!("{slot} {}", disk.caching))
            .collect();
        Ok(Self(vec![
            ("size", vm.vm_size.clone()),
            ("region", vm.location.clone()),
            ("zone", vm.zones.join(",")),
            ("tags", format!("{:?}", vm.tags)),
            ("interfaces", vm.network_interfaces.len().to_string()),
            ("subnet", text(address, "/subnet/id")),
            (
                "address",
                format!(
                    "{} {}",
                    text(address, "/privateIPAllocationMethod"),
                    text(address, "/privateIPAddress")
                ),
            ),
            (
                "security group",
                text(&nic.resource, "/properties/networkSecurityGroup/id"),
            ),
            (
                "LUNs",
                format!("{:?}", vm.data_disks.keys().collect::<Vec<_>>()),
            ),
            ("caching", caching.join(", ")),
            ("disk types", disks(&|disk| disk.sku.clone())?),
            (
                "disk sizes",
                disks(&|disk| format!("{} MiB", disk.size_bytes / MIB))?,
            ),
            ("disk zones", disks(&|disk| disk.zones.join("+"))?),
            ("disk tags", disks(&|disk| format!("{:?}", disk.tags))?),
            (
                "OS",
                disks(&|disk| {
                    format!(
                        "{} {}",
                        text(&disk.resource, "/properties/osType"),
                        text(&disk.resource, "/properties/hyperVGeneration")
                    )
                })?,
            ),
        ]))
    }
}

fn slots(vm: &VmView) -> impl Iterator<Item = (String, &mock_server::AttachedDiskView)> {
    let data = vm
        .data_disks
        .iter()
        .map(|(lun, disk)| (lun.to_string(), disk));
    std::iter::once(("os".to_owned(), &vm.os_disk)).chain(data)
}

/// Looks for anything that backup or restore should have taken away: active access, running operations, disks and
/// interfaces of no VM, more snapshots than `snapshots`, images or temporary files in the File Daemon's directory.
///
/// # Errors
///
/// The directory cannot be read.
pub fn leftovers(cloud: &Cloud, sandbox: &Sandbox, snapshots: usize) -> Result<Vec<Finding>> {
    let state = cloud.state();
    let list = |subject: &str, found: Vec<String>| Finding {
        subject: subject.to_owned(),
        good: found.is_empty(),
        text: if found.is_empty() {
            "none".to_owned()
        } else {
            found.join(", ")
        },
    };
    let untagged = state
        .snapshots
        .iter()
        .filter(|snapshot| {
            !snapshot
                .tags
                .keys()
                .any(|tag| tag.starts_with("bacula-azure-vm:"))
        })
        .map(|snapshot| snapshot.id.clone())
        .collect();
    let files = files_below(&sandbox.file_daemon_directory())?
        .into_iter()
        .filter(|(path, size)| path.contains("/restore/") || *size > MIB)
        .map(|(path, size)| format!("{path} ({size} bytes)"))
        .collect();
    Ok(vec![
        list(
            "active access",
            state
                .grants
                .iter()
                .map(|grant| grant.resource.clone())
                .collect(),
        ),
        list(
            "running operations",
            state
                .running_operations
                .iter()
                .map(|op| op.operation.clone())
                .collect(),
        ),
        list(
            "stray disks",
            state
                .disks
                .iter()
                .filter(|disk| disk.managed_by.is_none())
                .map(|disk| disk.id.clone())
                .collect(),
        ),
        list(
            "stray interfaces",
            state
                .network_interfaces
                .iter()
                .filter(|nic| nic.virtual_machine.is_none())
                .map(|nic| nic.id.clone())
                .collect(),
        ),
        Finding {
            subject: "snapshots".to_owned(),
            good: state.snapshots.len() == snapshots,
            text: format!(
                "{} (one per disk of the last good run: {snapshots})",
                state.snapshots.len()
            ),
        },
        list("foreign snapshots", untagged),
        list("unknown requests", cloud.emulator().unmodelled()),
        list("local images", files),
    ])
}

/// Files below a folder with their sizes.
fn files_below(directory: &Path) -> Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push((entry.path().to_string_lossy().into_owned(), metadata.len()));
        }
    }
    Ok(files)
}
