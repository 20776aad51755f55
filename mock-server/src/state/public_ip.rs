//! Public addresses.
use super::{World, network::PublicIp, resource_id::ResourceId};
use crate::arm::{body::Body, error::ArmError};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, net::Ipv4Addr};

impl World {
    /// PUT of a public address: its new form, and whether it is new.
    pub(crate) fn put_public_ip(
        &mut self,
        id: ResourceId,
        body: &Body<'_>,
    ) -> Result<(Value, bool), ArmError> {
        let key = id.key();
        let location = body.location()?;
        let mut properties = if body.has("properties") {
            body.object("properties")?.clone()
        } else {
            Map::new()
        };
        properties.retain(|name, _| {
            !matches!(
                name.as_str(),
                "provisioningState" | "resourceGuid" | "ipAddress" | "ipConfiguration"
            )
        });
        let used: BTreeSet<&str> = self
            .network
            .public_ips
            .values()
            .map(|ip| ip.address.as_str())
            .collect();
        let free = (1..=u32::from(u16::MAX)).map(|at| Ipv4Addr::from(0xCB00_7100 + at).to_string());
        let old = self.network.public_ips.get(&key);
        let address = old
            .map(|old| old.address.clone())
            .or_else(|| {
                free.into_iter()
                    .find(|address| !used.contains(address.as_str()))
            })
            .ok_or_else(|| ArmError::unmodelled("more than 65535 public addresses"))?;
        let is_new = old.is_none();
        let ip = PublicIp {
            guid: old.map_or_else(|| uuid::Uuid::new_v4().to_string(), |old| old.guid.clone()),
            id: old.map_or(id, |old| old.id.clone()),
            location,
            tags: body.tags()?,
            zones: body.zones()?,
            sku: body
                .value("sku")
                .cloned()
                .unwrap_or_else(|| json!({ "name": "Standard" })),
            properties,
            address,
        };
        let shown = self.show_public_ip(&ip);
        self.network.public_ips.insert(key, ip);
        Ok((shown, is_new))
    }

    /// Deletes a public address; `false` if there is none.
    pub(crate) fn delete_public_ip(&mut self, key: &str) -> Result<bool, ArmError> {
        if let Some(owner) = self.public_ip_user(key) {
            return Err(ArmError::new(
                400,
                "PublicIPAddressCannotBeDeleted",
                format!(
                    "Public IP address {key} can not be deleted since it is still allocated to resource {owner}."
                ),
            ));
        }
        Ok(self.network.public_ips.remove(key).is_some())
    }

    pub(crate) fn show_public_ip(&self, ip: &PublicIp) -> Value {
        let mut properties = Map::new();
        let mut put = |name: &str, value: Value| {
            properties.insert(name.to_owned(), value);
        };
        put("provisioningState", json!("Succeeded"));
        put("resourceGuid", json!(ip.guid));
        put("ipAddress", json!(ip.address));
        put("publicIPAddressVersion", json!("IPv4"));
        put("publicIPAllocationMethod", json!("Static"));
        put("idleTimeoutInMinutes", json!(4));
        put("ipTags", json!([]));
        for (name, value) in &ip.properties {
            put(name, value.clone());
        }
        if let Some(user) = self.public_ip_user(&ip.id.key()) {
            put("ipConfiguration", json!({ "id": user }));
        }
        let mut out = json!({
            "name": ip.id.name,
            "id": ip.id.to_string(),
            "etag": format!("W/\"{}\"", ip.guid),
            "location": ip.location,
            "tags": ip.tags,
            "properties": properties,
            "type": ip.id.kind.resource_type(),
            "sku": ip.sku,
        });
        if let (Some(out), false) = (out.as_object_mut(), ip.zones.is_empty()) {
            out.insert("zones".to_owned(), json!(ip.zones));
        }
        out
    }

    /// The IP configuration that uses a public address.
    pub(crate) fn public_ip_user(&self, key: &str) -> Option<String> {
        self.network.nics.values().find_map(|nic| {
            let used = nic
                .configurations
                .iter()
                .find(|c| c.public_ip.as_deref() == Some(key));
            used.map(|c| format!("{}/ipConfigurations/{}", nic.id, c.name))
        })
    }
}
