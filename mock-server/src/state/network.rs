//! Interfaces, addresses and the networks they live in.
use super::{
    World,
    resource_id::{Kind, ResourceId},
};
use crate::arm::{body::Body, error::ArmError};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// All network resources, keyed by lower-case id.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) networks: BTreeMap<String, VirtualNetwork>,
    /// By key of `<network>/subnets/<name>`.
    pub(crate) subnets: BTreeMap<String, Subnet>,
    pub(crate) security_groups: BTreeMap<String, Simple>,
    pub(crate) public_ips: BTreeMap<String, PublicIp>,
    pub(crate) nics: BTreeMap<String, Nic>,
}

/// A resource of which only existence matters.
#[derive(Debug)]
pub(crate) struct Simple {
    pub(crate) id: ResourceId,
    pub(crate) location: String,
}

#[derive(Debug)]
pub(crate) struct VirtualNetwork {
    pub(crate) id: ResourceId,
    pub(crate) location: String,
}

#[derive(Debug)]
pub(crate) struct Subnet {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) prefix: Prefix,
}

/// An IPv4 range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    base: u32,
    bits: u32,
}

impl Prefix {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let bits = bits.parse().ok().filter(|bits| (1..=29).contains(bits))?;
        let base = u32::from(address.parse::<Ipv4Addr>().ok()?);
        (base.trailing_zeros() >= 32 - bits).then_some(Self { base, bits })
    }

    fn size(self) -> u32 {
        1 << (32 - self.bits)
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address)
            .checked_sub(self.base)
            .is_some_and(|at| at < self.size())
    }

    /// Addresses that Azure gives away: the first four and the last of a subnet are its own.
    fn usable(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.base + 4..self.base + self.size() - 1).map(Ipv4Addr::from)
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

/// A public address.
#[derive(Debug)]
pub(crate) struct PublicIp {
    pub(crate) id: ResourceId,
    pub(crate) location: String,
    pub(crate) tags: Map<String, Value>,
    pub(crate) zones: Vec<String>,
    pub(crate) sku: Value,
    pub(crate) properties: Map<String, Value>,
    pub(crate) address: String,
    pub(crate) guid: String,
}

/// A network interface.
#[derive(Debug)]
pub(crate) struct Nic {
    pub(crate) id: ResourceId,
    pub(crate) location: String,
    pub(crate) tags: Map<String, Value>,
    pub(crate) configurations: Vec<IpConfiguration>,
    /// Other members of `properties`, as given.
    pub(crate) extra: Map<String, Value>,
    pub(crate) guid: String,
    pub(crate) etag: String,
    /// Known once a VM uses it.
    pub(crate) mac: Option<String>,
    /// Key of the VM that uses it.
    pub(crate) vm: Option<String>,
    pub(crate) primary: bool,
}

/// An address of an interface.
#[derive(Debug)]
pub(crate) struct IpConfiguration {
    pub(super) name: String,
    address: Ipv4Addr,
    is_static: bool,
    primary: bool,
    /// Key of the subnet.
    subnet: String,
    /// Key of the public address.
    pub(super) public_ip: Option<String>,
    /// Other members of its `properties`, as given.
    extra: Map<String, Value>,
}

/// Members that the service computes; a client's values for them are refused or ignored.
const READ_ONLY: [&str; 9] = [
    "provisioningState",
    "resourceGuid",
    "macAddress",
    "virtualMachine",
    "primary",
    "hostedWorkloads",
    "tapConfigurations",
    "vnetEncryptionSupported",
    "defaultOutboundConnectivityEnabled",
];

impl World {
    /// PUT of an interface: its new form, and whether it is new.
    pub(crate) fn put_nic(
        &mut self,
        id: ResourceId,
        body: &Body<'_>,
    ) -> Result<(Value, bool), ArmError> {
        let key = id.key();
        let location = body.location()?;
        let configurations = body.array("properties.ipConfigurations")?;
        if configurations.is_empty() {
            return Err(ArmError::new(
                400,
                "NetworkInterfaceMustHaveAtLeastOneIpConfiguration",
                format!("Network Interface {id} must have one or more IP configurations."),
            ));
        }
        let mut parsed: Vec<IpConfiguration> = Vec::new();
        for value in configurations {
            let configuration = self.ip_configuration(&id, value, &parsed)?;
            if parsed
                .iter()
                .any(|other| other.name.eq_ignore_ascii_case(&configuration.name))
            {
                return Err(ArmError::new(
                    400,
                    "InvalidRequestFormat",
                    format!("IP configuration {} is named twice.", configuration.name),
                ));
            }
            parsed.push(configuration);
        }
        if parsed
            .iter()
            .filter(|configuration| configuration.primary)
            .count()
            != 1
        {
            if parsed.len() > 1 {
                return Err(ArmError::new(
                    400,
                    "NetworkInterfaceMustHaveOnePrimaryIpConfiguration",
                    format!(
                        "Network Interface {id} must have exactly one primary IP configuration."
                    ),
                ));
            }
            parsed[0].primary = true;
        }
        let mut extra = body.object("properties")?.clone();
        extra.retain(|name, _| name != "ipConfigurations" && !READ_ONLY.contains(&name.as_str()));
        self.check_reference(&id, &extra, "networkSecurityGroup", |network, key| {
            network.security_groups.contains_key(key)
        })?;
        let old = self.network.nics.remove(&key);
        let is_new = old.is_none();
        let nic = Nic {
            location,
            tags: body.tags()?,
            configurations: parsed,
            extra,
            etag: uuid::Uuid::new_v4().to_string(),
            guid: old
                .as_ref()
                .map_or_else(|| uuid::Uuid::new_v4().to_string(), |nic| nic.guid.clone()),
            mac: old.as_ref().and_then(|nic| nic.mac.clone()),
            vm: old.as_ref().and_then(|nic| nic.vm.clone()),
            primary: old.as_ref().is_some_and(|nic| nic.primary),
            id: old.map_or(id, |nic| nic.id),
        };
        let shown = self.show_nic(&nic);
        self.network.nics.insert(key, nic);
        Ok((shown, is_new))
    }

    fn ip_configuration(
        &self,
        nic: &ResourceId,
        value: &Value,
        earlier: &[IpConfiguration],
    ) -> Result<IpConfiguration, ArmError> {
        let body = Body::new(value)?;
        let name = body.text("name")?.to_owned();
        let full = format!("{nic}/ipConfigurations/{name}");
        let subnet_id = body.text("properties.subnet.id")?;
        let subnet_key = subnet_id.to_ascii_lowercase();
        let Some(subnet) = self.network.subnets.get(&subnet_key) else {
            return Err(missing_reference(subnet_id, nic));
        };
        let properties = body.object("properties")?;
        let taken = |address: Ipv4Addr| {
            let others = self
                .network
                .nics
                .iter()
                .filter(|(key, _)| **key != nic.key());
            others
                .flat_map(|(_, other)| other.configurations.iter().map(move |c| (&other.id, c)))
                .find(|(_, c)| c.subnet == subnet_key && c.address == address)
                .map(|(owner, c)| format!("{owner}/ipConfigurations/{}", c.name))
                .or_else(|| {
                    let own = earlier
                        .iter()
                        .find(|c| c.subnet == subnet_key && c.address == address);
                    own.map(|c| format!("{nic}/ipConfigurations/{}", c.name))
                })
        };
        let method = body
            .optional_text("properties.privateIPAllocationMethod")?
            .unwrap_or("Dynamic");
        let is_static = match method {
            "Static" => true,
            "Dynamic" => false,
            other => {
                return Err(ArmError::new(
                    400,
                    "InvalidRequestFormat",
                    format!(
                        "privateIPAllocationMethod '{other}' of {full} is neither Static nor Dynamic."
                    ),
                ));
            }
        };
        let address = if is_static {
            let text = body.text("properties.privateIPAddress")?;
            let address: Option<Ipv4Addr> = text.parse().ok();
            let address = address.filter(|address| subnet.prefix.contains(*address)).ok_or_else(|| {
                ArmError::new(
                    400,
                    "PrivateIPAddressNotInSubnet",
                    format!("Private static IP address {text} does not belong to the range of subnet prefix {}.", subnet.prefix),
                )
            })?;
            if subnet.prefix.usable().all(|usable| usable != address) {
                return Err(ArmError::new(
                    400,
                    "PrivateIPAddressInReservedRange",
                    format!(
                        "Private IP address {address} falls within reserved IP range of subnet prefix {}.",
                        subnet.prefix
                    ),
                ));
            }
            if let Some(owner) = taken(address) {
                return Err(ArmError::new(
                    400,
                    "PrivateIPAddressIsAllocated",
                    format!(
                        "IP configuration {full} is using the private IP address {address} which is already allocated to resource {owner}."
                    ),
                ));
            }
            address
        } else {
            let known = self.network.nics.get(&nic.key()).and_then(|old| {
                old.configurations
                    .iter()
                    .find(|c| c.name == name && c.subnet == subnet_key)
            });
            let free = || {
                subnet
                    .prefix
                    .usable()
                    .find(|address| taken(*address).is_none())
            };
            known.map(|c| c.address).or_else(free).ok_or_else(|| {
                ArmError::new(
                    400,
                    "SubnetIsFull",
                    format!("Subnet {} has no free address.", subnet.id),
                )
            })?
        };
        let public_ip = body.optional_text("properties.publicIPAddress.id")?;
        if let Some(text) = public_ip {
            let key = text.to_ascii_lowercase();
            if !self.network.public_ips.contains_key(&key) {
                return Err(missing_reference(text, nic));
            }
            if let Some(owner) = self.public_ip_user(&key)
                && !owner
                    .to_ascii_lowercase()
                    .starts_with(&format!("{}/", nic.key()))
            {
                return Err(ArmError::new(
                    400,
                    "PublicIPAddressInUse",
                    format!(
                        "Resource {full} is referencing public IP address {text} that is already allocated to resource {owner}."
                    ),
                ));
            }
        }
        let mut extra = properties.clone();
        extra.retain(|name, _| {
            !matches!(
                name.as_str(),
                "privateIPAddress"
                    | "privateIPAllocationMethod"
                    | "primary"
                    | "subnet"
                    | "publicIPAddress"
                    | "provisioningState"
            )
        });
        Ok(IpConfiguration {
            name,
            address,
            is_static,
            primary: body.flag("properties.primary")?.unwrap_or(false),
            subnet: subnet_key,
            public_ip: public_ip.map(str::to_ascii_lowercase),
            extra,
        })
    }

    fn check_reference(
        &self,
        from: &ResourceId,
        properties: &Map<String, Value>,
        member: &str,
        exists: impl Fn(&Network, &str) -> bool,
    ) -> Result<(), ArmError> {
        let Some(id) = properties
            .get(member)
            .and_then(|value| value.get("id"))
            .and_then(Value::as_str)
        else {
            return Ok(());
        };
        if exists(&self.network, &id.to_ascii_lowercase()) {
            return Ok(());
        }
        Err(missing_reference(id, from))
    }

    /// Deletes an interface; `false` if there is none.
    pub(crate) fn delete_nic(&mut self, key: &str) -> Result<bool, ArmError> {
        let Some(nic) = self.network.nics.get(key) else {
            return Ok(false);
        };
        if let Some(vm) = nic.vm.as_ref().and_then(|vm| self.vms.get(vm)) {
            return Err(ArmError::new(
                400,
                "NicInUse",
                format!(
                    "Network Interface {} is used by existing resource {}. In order to delete the network interface, it must be dissociated from the resource.",
                    nic.id, vm.id
                ),
            ));
        }
        self.network.nics.remove(key);
        Ok(true)
    }

    pub(crate) fn show_nic(&self, nic: &Nic) -> Value {
        let etag = format!("W/\"{}\"", nic.etag);
        let configurations: Vec<Value> = nic
            .configurations
            .iter()
            .map(|c| {
                let mut properties = Map::new();
                properties.insert("provisioningState".to_owned(), json!("Succeeded"));
                properties.insert("privateIPAddress".to_owned(), json!(c.address.to_string()));
                let method = if c.is_static { "Static" } else { "Dynamic" };
                properties.insert("privateIPAllocationMethod".to_owned(), json!(method));
                if let Some(ip) = c
                    .public_ip
                    .as_ref()
                    .and_then(|key| self.network.public_ips.get(key))
                {
                    properties.insert(
                        "publicIPAddress".to_owned(),
                        json!({ "id": ip.id.to_string() }),
                    );
                }
                if let Some(subnet) = self.network.subnets.get(&c.subnet) {
                    properties.insert("subnet".to_owned(), json!({ "id": subnet.id }));
                }
                properties.insert("primary".to_owned(), json!(c.primary));
                properties.insert("privateIPAddressVersion".to_owned(), json!("IPv4"));
                properties.extend(c.extra.clone());
                json!({
                    "name": c.name,
                    "id": format!("{}/ipConfigurations/{}", nic.id, c.name),
                    "etag": etag,
                    "type": "Microsoft.Network/networkInterfaces/ipConfigurations",
                    "properties": properties,
                })
            })
            .collect();
        let mut properties = Map::new();
        let mut put = |name: &str, value: Value| {
            properties.insert(name.to_owned(), value);
        };
        put("provisioningState", json!("Succeeded"));
        put("resourceGuid", json!(nic.guid));
        put("ipConfigurations", json!(configurations));
        let mut dns = json!({
            "dnsServers": [],
            "appliedDnsServers": [],
            "internalDomainNameSuffix": "emulator.bx.internal.cloudapp.net",
        });
        if let (Some(dns), Some(Value::Object(given))) =
            (dns.as_object_mut(), nic.extra.get("dnsSettings"))
        {
            for (name, value) in given {
                if name != "appliedDnsServers" && name != "internalDomainNameSuffix" {
                    dns.insert(name.clone(), value.clone());
                }
            }
        }
        put("dnsSettings", dns);
        if let Some(mac) = &nic.mac {
            put("macAddress", json!(mac));
        }
        put("enableAcceleratedNetworking", json!(false));
        put("enableIPForwarding", json!(false));
        for (name, value) in &nic.extra {
            if name != "dnsSettings" {
                put(name, value.clone());
            }
        }
        if let Some(vm) = nic.vm.as_ref().and_then(|key| self.vms.get(key)) {
            put("primary", json!(nic.primary));
            put("virtualMachine", json!({ "id": vm.id.to_string() }));
        }
        put("hostedWorkloads", json!([]));
        put("tapConfigurations", json!([]));
        put("nicType", json!("Standard"));
        json!({
            "name": nic.id.name,
            "id": nic.id.to_string(),
            "etag": etag,
            "location": nic.location,
            "tags": nic.tags,
            "properties": properties,
            "type": nic.id.kind.resource_type(),
        })
    }

    pub(crate) fn show_subnet(subnet: &Subnet) -> Value {
        json!({
            "name": subnet.name,
            "id": subnet.id,
            "properties": {
                "provisioningState": "Succeeded",
                "addressPrefix": subnet.prefix.to_string(),
                "privateEndpointNetworkPolicies": "Disabled",
                "privateLinkServiceNetworkPolicies": "Enabled",
            },
            "type": "Microsoft.Network/virtualNetworks/subnets",
        })
    }

    pub(crate) fn show_network(&self, network: &VirtualNetwork) -> Value {
        let stem = format!("{}/subnets/", network.id.key());
        let subnets: Vec<Value> = self
            .network
            .subnets
            .iter()
            .filter(|(key, _)| key.starts_with(&stem))
            .map(|(_, subnet)| Self::show_subnet(subnet))
            .collect();
        json!({
            "name": network.id.name,
            "id": network.id.to_string(),
            "location": network.location,
            "properties": { "provisioningState": "Succeeded", "subnets": subnets },
            "type": Kind::VirtualNetwork.resource_type(),
        })
    }
}

fn missing_reference(id: &str, from: &ResourceId) -> ArmError {
    ArmError::new(
        400,
        "InvalidResourceReference",
        format!(
            "Resource {id} referenced by resource {from} was not found. Please make sure that the referenced resource exists, and that both resources are in the same region."
        ),
    )
}
