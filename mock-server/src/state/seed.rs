//! From a scenario to a world, with every contradiction named.
use super::{
    Group, World,
    content::Content,
    fill::fill,
    group_key,
    network::{Prefix, Simple, Subnet, VirtualNetwork},
    resource_id::{Kind, ResourceId},
    storage::Account,
    vm::{Slot, Vm},
    volume::{Role, Upload, Volume},
};
use crate::{
    DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_LOCATION, DEFAULT_RESOURCE_GROUP,
    DEFAULT_STORAGE_KEY, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, Error, Scenario,
    arm::{body::Body, error::ArmError},
    scenario::{self, AttachedDisk, Disk, NetworkInterface, Principal, Subscription, Tenant},
    size::MIB,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where a resource of the scenario is put.
struct Place {
    subscription: String,
    group: String,
    location: String,
}

impl Place {
    fn id(&self, kind: Kind, name: &str) -> ResourceId {
        ResourceId::new(&self.subscription, &self.group, kind, name)
    }
}

impl World {
    pub(super) fn seed(&mut self, scenario: &Scenario) -> Result<(), Error> {
        self.seed_directory(scenario)?;
        for group in &scenario.resource_groups {
            let at = format!("resourceGroups[{}]", group.name);
            let place = self.place(
                &at,
                group.subscription.as_deref(),
                Some(&group.name),
                group.location.as_deref(),
            )?;
            if let Some(known) = self
                .groups
                .get_mut(&group_key(&place.subscription, &group.name))
            {
                known.location = group
                    .location
                    .clone()
                    .unwrap_or_else(|| DEFAULT_LOCATION.to_owned());
                known.tags = tags(&group.tags);
            }
        }
        self.seed_network(scenario)?;
        for disk in &scenario.disks {
            self.seed_free_disk(&format!("disks[{}]", disk.name), disk)?;
        }
        for vm in &scenario.virtual_machines {
            self.seed_vm(vm)?;
        }
        for nic in &scenario.network_interfaces {
            let at = format!("networkInterfaces[{}]", nic.name);
            let place = self.place(
                &at,
                nic.subscription.as_deref(),
                nic.resource_group.as_deref(),
                nic.location.as_deref(),
            )?;
            self.seed_nic(&at, nic, &place)?;
        }
        for snapshot in &scenario.snapshots {
            self.seed_snapshot(snapshot)?;
        }
        self.seed_accounts(scenario)
    }

    fn seed_accounts(&mut self, scenario: &Scenario) -> Result<(), Error> {
        for account in &scenario.storage_accounts {
            let at = format!("storageAccounts[{}]", account.name);
            let valid = (3..=24).contains(&account.name.len())
                && account
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            // The path of Resource Manager begins so.
            if !valid || account.name == "subscriptions" {
                return Err(problem(
                    format!("{at}.name"),
                    "it is not 3 to 24 lower-case letters and digits",
                ));
            }
            let keys = match &account.keys[..] {
                [] => vec![DEFAULT_STORAGE_KEY.to_owned()],
                keys => keys.to_vec(),
            };
            let decoded: Result<Vec<_>, _> = keys.iter().map(|key| STANDARD.decode(key)).collect();
            let keys = decoded.map_err(|_broken| problem(format!("{at}.keys"), "not base64"))?;
            let empty = Account {
                keys,
                containers: BTreeMap::new(),
            };
            if self.accounts.insert(account.name.clone(), empty).is_some() {
                return Err(problem(at, "there are two of this name"));
            }
        }
        Ok(())
    }

    fn seed_directory(&mut self, scenario: &Scenario) -> Result<(), Error> {
        self.tenants = scenario.tenants.clone();
        if self.tenants.is_empty() {
            self.tenants.push(Tenant {
                id: DEFAULT_TENANT.to_owned(),
                principals: vec![Principal {
                    client_id: DEFAULT_CLIENT_ID.to_owned(),
                    client_secret: DEFAULT_CLIENT_SECRET.to_owned(),
                    subscriptions: None,
                    denied_actions: Vec::new(),
                }],
            });
        }
        for tenant in &self.tenants {
            if uuid::Uuid::parse_str(&tenant.id).is_err() {
                return Err(problem(
                    format!("tenants[{}].id", tenant.id),
                    "it is not a GUID",
                ));
            }
        }
        self.subscriptions = scenario.subscriptions.clone();
        if self.subscriptions.is_empty() {
            self.subscriptions.push(Subscription {
                id: DEFAULT_SUBSCRIPTION.to_owned(),
                display_name: "Emulator".to_owned(),
                tenant_id: None,
            });
        }
        let first = self.tenants[0].id.clone();
        for subscription in &mut self.subscriptions {
            let tenant = subscription.tenant_id.get_or_insert_with(|| first.clone());
            let tenant = tenant.clone();
            if !self
                .tenants
                .iter()
                .any(|known| known.id.eq_ignore_ascii_case(&tenant))
            {
                return Err(problem(
                    format!("subscriptions[{}].tenantId", subscription.id),
                    format!("there is no tenant {tenant}"),
                ));
            }
        }
        Ok(())
    }

    /// Resolves defaults and makes the resource group if it is only named.
    fn place(
        &mut self,
        at: &str,
        subscription: Option<&str>,
        group: Option<&str>,
        location: Option<&str>,
    ) -> Result<Place, Error> {
        let subscription = subscription.unwrap_or(&self.subscriptions[0].id).to_owned();
        if !self
            .subscriptions
            .iter()
            .any(|known| known.id.eq_ignore_ascii_case(&subscription))
        {
            return Err(problem(
                format!("{at}.subscription"),
                format!("there is no subscription {subscription}"),
            ));
        }
        let name = group.unwrap_or(DEFAULT_RESOURCE_GROUP);
        let group = self
            .groups
            .entry(group_key(&subscription, name))
            .or_insert_with(|| Group {
                subscription: subscription.clone(),
                name: name.to_owned(),
                location: DEFAULT_LOCATION.to_owned(),
                tags: Map::new(),
            });
        Ok(Place {
            group: group.name.clone(),
            location: location
                .unwrap_or(&group.location)
                .replace(' ', "")
                .to_ascii_lowercase(),
            subscription,
        })
    }

    fn seed_network(&mut self, scenario: &Scenario) -> Result<(), Error> {
        for network in &scenario.virtual_networks {
            let at = format!("virtualNetworks[{}]", network.name);
            let place = self.place(
                &at,
                network.subscription.as_deref(),
                network.resource_group.as_deref(),
                network.location.as_deref(),
            )?;
            let id = place.id(Kind::VirtualNetwork, &network.name);
            for subnet in &network.subnets {
                let prefix = Prefix::parse(&subnet.address_prefix).ok_or_else(|| {
                    problem(
                        format!("{at}.subnets[{}].addressPrefix", subnet.name),
                        format!(
                            "'{}' is not an IPv4 range such as 10.0.0.0/24, of at most 29 bits",
                            subnet.address_prefix
                        ),
                    )
                })?;
                self.add_subnet(&id, &subnet.name, prefix);
            }
            let network = VirtualNetwork {
                location: place.location,
                id,
            };
            self.network.networks.insert(network.id.key(), network);
        }
        for group in &scenario.network_security_groups {
            let at = format!("networkSecurityGroups[{}]", group.name);
            let place = self.place(
                &at,
                group.subscription.as_deref(),
                group.resource_group.as_deref(),
                group.location.as_deref(),
            )?;
            let id = place.id(Kind::NetworkSecurityGroup, &group.name);
            self.network.security_groups.insert(
                id.key(),
                Simple {
                    id,
                    location: place.location,
                },
            );
        }
        for ip in &scenario.public_ip_addresses {
            let at = format!("publicIPAddresses[{}]", ip.name);
            let place = self.place(
                &at,
                ip.subscription.as_deref(),
                ip.resource_group.as_deref(),
                ip.location.as_deref(),
            )?;
            let id = place.id(Kind::PublicIpAddress, &ip.name);
            let key = id.key();
            let body = json!({ "location": place.location, "zones": ip.zones });
            self.put_public_ip(id, &body_of(&at, &body)?)
                .map_err(|error| refused(&at, &error))?;
            if let (Some(address), Some(known)) =
                (&ip.ip_address, self.network.public_ips.get_mut(&key))
            {
                known.address.clone_from(address);
            }
        }
        Ok(())
    }

    fn add_subnet(&mut self, network: &ResourceId, name: &str, prefix: Prefix) {
        let id = format!("{network}/subnets/{name}");
        let subnet = Subnet {
            name: name.to_owned(),
            prefix,
            id,
        };
        self.network
            .subnets
            .insert(subnet.id.to_ascii_lowercase(), subnet);
    }

    fn seed_nic(
        &mut self,
        at: &str,
        nic: &NetworkInterface,
        place: &Place,
    ) -> Result<String, Error> {
        let subnet = match &nic.subnet {
            Some(id) if id.starts_with('/') => id.clone(),
            Some(path) => {
                let (network, subnet) = path.split_once('/').ok_or_else(|| {
                    problem(
                        format!("{at}.subnet"),
                        format!("'{path}' is neither network/subnet nor an id"),
                    )
                })?;
                format!(
                    "{}/subnets/{subnet}",
                    place.id(Kind::VirtualNetwork, network)
                )
            }
            None => {
                let id = place.id(Kind::VirtualNetwork, &format!("vnet-{}", place.group));
                if !self.network.networks.contains_key(&id.key()) {
                    let prefix = Prefix::parse("10.0.0.0/16").expect("the prefix is valid");
                    self.add_subnet(&id, "default", prefix);
                    let location = place.location.clone();
                    self.network.networks.insert(
                        id.key(),
                        VirtualNetwork {
                            id: id.clone(),
                            location,
                        },
                    );
                }
                format!("{id}/subnets/default")
            }
        };
        let reference = |text: &str, kind: Kind| {
            if text.starts_with('/') {
                text.to_owned()
            } else {
                place.id(kind, text).to_string()
            }
        };
        let mut configuration = json!({
            "privateIPAllocationMethod": if nic.private_ip_address.is_some() { "Static" } else { "Dynamic" },
            "subnet": { "id": subnet },
            "primary": true,
        });
        if let Some(address) = &nic.private_ip_address {
            configuration["privateIPAddress"] = json!(address);
        }
        if let Some(ip) = &nic.public_ip_address {
            configuration["publicIPAddress"] =
                json!({ "id": reference(ip, Kind::PublicIpAddress) });
        }
        let mut properties = json!({
            "ipConfigurations": [{ "name": "ipconfig1", "properties": configuration }],
            "enableAcceleratedNetworking": nic.enable_accelerated_networking,
            "enableIPForwarding": nic.enable_ip_forwarding,
        });
        if let Some(group) = &nic.network_security_group {
            properties["networkSecurityGroup"] =
                json!({ "id": reference(group, Kind::NetworkSecurityGroup) });
        }
        let body =
            json!({ "location": place.location, "tags": nic.tags, "properties": properties });
        let id = place.id(Kind::NetworkInterface, &nic.name);
        let key = id.key();
        if self.network.nics.contains_key(&key) {
            return Err(problem(
                at.to_owned(),
                "the name is used twice in this resource group",
            ));
        }
        self.put_nic(id, &body_of(at, &body)?)
            .map_err(|error| refused(at, &error))?;
        Ok(key)
    }

    /// A disk that belongs to no VM.
    pub(super) fn seed_free_disk(&mut self, at: &str, disk: &Disk) -> Result<(), Error> {
        let place = self.place(
            at,
            disk.subscription.as_deref(),
            disk.resource_group.as_deref(),
            disk.location.as_deref(),
        )?;
        self.seed_disk(at, disk, &place, disk.zone.as_deref(), None)?;
        Ok(())
    }

    fn seed_disk(
        &mut self,
        at: &str,
        disk: &Disk,
        place: &Place,
        zone: Option<&str>,
        os_type: Option<&str>,
    ) -> Result<String, Error> {
        let size = disk.size.0;
        if size == 0 || !size.is_multiple_of(MIB) {
            return Err(problem(
                format!("{at}.size"),
                format!("{size} bytes are not a multiple of 1 MiB"),
            ));
        }
        let sector = disk.logical_sector_size.unwrap_or(512);
        if !matches!(sector, 512 | 4096) {
            return Err(problem(
                format!("{at}.logicalSectorSize"),
                format!("{sector} is neither 512 nor 4096"),
            ));
        }
        let id = place.id(Kind::Disk, &disk.name);
        let key = id.key();
        if self.volumes.contains_key(&key) {
            return Err(problem(
                at.to_owned(),
                "the name is used twice in this resource group",
            ));
        }
        let mut content = Content::new(size);
        for (number, piece) in disk.content.iter().enumerate() {
            fill(&mut content, piece, &format!("{at}.content[{number}]"))?;
        }
        let mut extra = disk.properties.clone();
        if let Some(os_type) = disk.os_type.as_deref().or(os_type) {
            extra.insert("osType".to_owned(), json!(os_type));
        }
        if let Some(generation) = disk.hyper_v_generation.as_deref().or(os_type.map(|_| "V2")) {
            extra.insert("hyperVGeneration".to_owned(), json!(generation));
        }
        let mut creation = Map::new();
        creation.insert("createOption".to_owned(), json!("Empty"));
        if disk.logical_sector_size.is_some() {
            creation.insert("logicalSectorSize".to_owned(), json!(sector));
        }
        let volume = Volume {
            id,
            location: place.location.clone(),
            tags: tags(&disk.tags),
            zones: zone.into_iter().map(str::to_owned).collect(),
            sku: disk.sku.clone().unwrap_or_else(|| "Premium_LRS".to_owned()),
            creation,
            extra,
            unique_id: disk
                .unique_id
                .clone()
                .unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            created: self.now,
            provisioning: "Succeeded",
            content,
            role: Role::Disk {
                owner: None,
                upload: Upload::None,
            },
            grant: None,
            uploaded_footer: None,
        };
        self.volumes.insert(key.clone(), volume);
        Ok(key)
    }

    pub(super) fn seed_vm(&mut self, vm: &scenario::Vm) -> Result<(), Error> {
        let at = format!("virtualMachines[{}]", vm.name);
        let place = self.place(
            &at,
            vm.subscription.as_deref(),
            vm.resource_group.as_deref(),
            vm.location.as_deref(),
        )?;
        let id = place.id(Kind::VirtualMachine, &vm.name);
        let key = id.key();
        if self.vms.contains_key(&key) {
            return Err(problem(at, "the name is used twice in this resource group"));
        }
        let os_disk = self.seed_slot(&format!("{at}.osDisk"), &vm.os_disk, &place, vm, true)?;
        let mut data_disks = BTreeMap::new();
        for (number, disk) in vm.data_disks.iter().enumerate() {
            let at = format!("{at}.dataDisks[{number}]");
            let lun = disk
                .lun
                .filter(|lun| *lun < 64)
                .ok_or_else(|| problem(format!("{at}.lun"), "a data disk needs a LUN in 0..=63"))?;
            let slot = self.seed_slot(&at, disk, &place, vm, false)?;
            if data_disks.insert(u64::from(lun), slot).is_some() {
                return Err(problem(
                    format!("{at}.lun"),
                    format!("LUN {lun} is used twice"),
                ));
            }
        }
        let only = [NetworkInterface {
            name: format!("{}-nic", vm.name),
            ..NetworkInterface::default()
        }];
        let interfaces = if vm.network_interfaces.is_empty() {
            &only[..]
        } else {
            &vm.network_interfaces
        };
        let mut nics = Vec::new();
        for nic in interfaces {
            let at = format!("{at}.networkInterfaces[{}]", nic.name);
            let place = self.place(
                &at,
                nic.subscription.as_deref().or(Some(&place.subscription)),
                nic.resource_group.as_deref().or(Some(&place.group)),
                nic.location.as_deref().or(Some(&place.location)),
            )?;
            nics.push(self.seed_nic(&at, nic, &place)?);
        }
        let mut properties = Map::new();
        let size = vm.vm_size.as_deref().unwrap_or("Standard_D2s_v5");
        properties.insert("hardwareProfile".to_owned(), json!({ "vmSize": size }));
        properties.insert(
            "storageProfile".to_owned(),
            json!({ "imageReference": {
                "publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server",
                "version": "latest", "exactVersion": "24.04.202511010",
            }}),
        );
        properties.insert(
            "osProfile".to_owned(),
            json!({
                "computerName": vm.name,
                "adminUsername": "azureuser",
                "linuxConfiguration": { "disablePasswordAuthentication": true, "provisionVMAgent": true },
                "secrets": [],
                "allowExtensionOperations": true,
                "requireGuestProvisionSignal": true,
            }),
        );
        properties.extend(vm.properties.clone());
        let mut top = Map::new();
        for (name, value) in [("identity", &vm.identity), ("plan", &vm.plan)] {
            if let Some(value) = value {
                top.insert(name.to_owned(), value.clone());
            }
        }
        let record = Vm {
            id,
            location: place.location,
            tags: tags(&vm.tags),
            zones: vm.zone.iter().cloned().collect(),
            top,
            properties,
            vm_id: vm
                .vm_id
                .clone()
                .unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            created: self.now,
            os_disk,
            data_disks,
            nics,
            power: vm.power_state,
            provisioning: "Succeeded",
        };
        self.insert_vm(key, record);
        Ok(())
    }

    fn seed_slot(
        &mut self,
        at: &str,
        attached: &AttachedDisk,
        vm_place: &Place,
        vm: &scenario::Vm,
        is_os: bool,
    ) -> Result<Slot, Error> {
        let disk = &attached.disk;
        let place = self.place(
            at,
            disk.subscription
                .as_deref()
                .or(Some(&vm_place.subscription)),
            disk.resource_group.as_deref().or(Some(&vm_place.group)),
            disk.location.as_deref().or(Some(&vm_place.location)),
        )?;
        let zone = disk.zone.as_deref().or(vm.zone.as_deref());
        let key = self.seed_disk(at, disk, &place, zone, is_os.then_some("Linux"))?;
        let default = if is_os { "ReadWrite" } else { "None" };
        let caching = attached.caching.as_deref().unwrap_or(default);
        if !matches!(caching, "None" | "ReadOnly" | "ReadWrite") {
            return Err(problem(
                format!("{at}.caching"),
                format!("'{caching}' is not None, ReadOnly or ReadWrite"),
            ));
        }
        let delete_option = attached.delete_option.as_deref().unwrap_or("Detach");
        if !matches!(delete_option, "Detach" | "Delete") {
            return Err(problem(
                format!("{at}.deleteOption"),
                format!("'{delete_option}' is not Detach or Delete"),
            ));
        }
        Ok(Slot {
            disk: key,
            caching: caching.to_owned(),
            delete_option: delete_option.to_owned(),
            create_option: if is_os { "FromImage" } else { "Attach" }.to_owned(),
            extra: Map::new(),
        })
    }

    pub(super) fn seed_snapshot(&mut self, snapshot: &scenario::Snapshot) -> Result<(), Error> {
        let at = format!("snapshots[{}]", snapshot.name);
        let source = self
            .find_volume(&snapshot.disk)
            .map_err(|error| problem(format!("{at}.disk"), error.to_string()))?;
        let group = snapshot
            .resource_group
            .clone()
            .unwrap_or_else(|| source.id.group.clone());
        let (subscription, location) = (source.id.subscription.clone(), source.location.clone());
        let place = self.place(&at, Some(&subscription), Some(&group), Some(&location))?;
        let id = place.id(Kind::Snapshot, &snapshot.name);
        let key = id.key();
        if self.volumes.contains_key(&key) {
            return Err(problem(at, "the name is used twice in this resource group"));
        }
        let source = self.find_volume(&snapshot.disk)?;
        let made = self
            .snapshot_of(source, id, &location)
            .map_err(|error| refused(&at, &error))?;
        let made = Volume {
            tags: tags(&snapshot.tags),
            provisioning: "Succeeded",
            ..made
        };
        self.volumes.insert(key, made);
        Ok(())
    }
}

fn tags(tags: &BTreeMap<String, String>) -> Map<String, Value> {
    tags.iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect()
}

fn body_of<'a>(at: &str, value: &'a Value) -> Result<Body<'a>, Error> {
    Body::new(value).map_err(|error| refused(at, &error))
}

fn refused(at: &str, error: &ArmError) -> Error {
    problem(at.to_owned(), error.message())
}

pub(super) fn problem(at: String, problem: impl Into<String>) -> Error {
    Error::Scenario {
        at,
        problem: problem.into(),
    }
}
