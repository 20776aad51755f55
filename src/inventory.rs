//! Which disks VMs have, by the lists of a subscription alone: no request per VM or disk. For listings, not for backups:
//! what cannot be told from a list is left open.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

use crate::document::Slot;
use crate::json;

/// A disk of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedDisk {
    /// Its name.
    pub name: String,
    /// Where it sits.
    pub slot: Slot,
    /// `None` if it is not a managed disk, or not one that the caller may see.
    pub size_bytes: Option<u64>,
    /// e.g. `Premium_LRS`.
    pub sku: Option<String>,
}

/// The managed disks of a subscription, by id.
#[derive(Debug)]
pub struct ManagedDisks(HashMap<String, Value>);

impl ManagedDisks {
    /// Of the elements of a disk list.
    #[must_use]
    pub fn new(listed: Vec<Value>) -> Self {
        let by_id = listed.into_iter().filter_map(|disk| {
            // Azure spells one id in several ways.
            let id = json::text(&disk, "/id")?.to_ascii_lowercase();
            Some((id, disk))
        });
        Self(by_id.collect())
    }

    /// The disks of a VM resource: the OS disk, then the data disks in LUN order. A VM has sizes of its disks only while
    /// it is allocated, so they are taken from the disks.
    #[must_use]
    pub fn of_vm(&self, vm: &Value) -> Vec<AttachedDisk> {
        let profile = &vm["properties"]["storageProfile"];
        let data = json::elements(profile, "/dataDisks").iter();
        let mut disks: Vec<_> = data
            .filter_map(|disk| {
                let lun = disk["lun"].as_u64()?.try_into().ok()?;
                Some(self.attached(Slot::Data(lun), disk))
            })
            .collect();
        disks.push(self.attached(Slot::Os, &profile["osDisk"]));
        disks.sort_by_key(|disk| disk.slot);
        disks
    }

    fn attached(&self, slot: Slot, attached: &Value) -> AttachedDisk {
        let disk = json::text(attached, "/managedDisk/id")
            .and_then(|id| self.0.get(&id.to_ascii_lowercase()))
            .unwrap_or(&Value::Null);
        AttachedDisk {
            name: json::text(disk, "/name")
                .or_else(|| json::text(attached, "/name"))
                .unwrap_or_default()
                .to_owned(),
            slot,
            size_bytes: json::integer(disk, "/properties/diskSizeBytes"),
            sku: json::text(disk, "/sku/name").map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn disks_come_in_lun_order_with_sizes_of_the_disk_list() {
        let id = |name: &str| {
            format!("/subscriptions/s/resourceGroups/G/providers/Microsoft.Compute/disks/{name}")
        };
        let vm = json!({ "properties": { "storageProfile": {
            "osDisk": { "name": "os", "managedDisk": { "id": id("OS") } },
            "dataDisks": [
                { "lun": 5, "name": "five", "managedDisk": { "id": id("five") } },
                { "lun": 0, "name": "zero", "vhd": { "uri": "https://account/zero.vhd" } },
            ],
        } } });
        let disks = ManagedDisks::new(vec![json!({
            "id": id("os"),
            "name": "os",
            "sku": { "name": "Premium_LRS" },
            "properties": { "diskSizeBytes": 1024 },
        })]);
        let shown: Vec<_> = disks
            .of_vm(&vm)
            .into_iter()
            .map(|disk| (disk.slot, disk.name, disk.size_bytes, disk.sku))
            .collect();
        assert_eq!(
            shown,
            [
                (
                    Slot::Os,
                    "os".into(),
                    Some(1024),
                    Some("Premium_LRS".into())
                ),
                (Slot::Data(0), "zero".into(), None, None),
                (Slot::Data(5), "five".into(), None, None),
            ]
        );
    }
}
