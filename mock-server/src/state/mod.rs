//! The pure state: what exists and which rules hold. It knows no HTTP; time and settings come from outside.
mod change;
pub(crate) mod content;
mod disk;
mod fill;
pub(crate) mod grant;
pub(crate) mod network;
pub(crate) mod operation;
mod public_ip;
pub(crate) mod resource_id;
mod seed;
mod show;
mod snapshot;
pub(crate) mod storage;
pub(crate) mod vm;
mod vm_show;
pub(crate) mod volume;

use self::{
    grant::Grant, network::Network, operation::Operation, storage::Account, vm::Vm, volume::Volume,
};
use crate::{
    Config, Error, OperationPolicy, Scenario,
    clock::Instant,
    scenario::{Subscription, Tenant},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use self::content::{Source, Spool};

/// What does not change while the emulator runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) operations: OperationPolicy,
    pub(crate) arm_page_size: usize,
    pub(crate) page_range_limit: usize,
    pub(crate) token_lifetime: Duration,
    pub(crate) enforce_snapshot_rate: bool,
    pub(crate) background_copy_step: Option<f64>,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            operations: config.operations.clone(),
            arm_page_size: config.arm_page_size.max(1),
            page_range_limit: config.page_range_limit.clamp(1, 10_000),
            token_lifetime: config.token_lifetime,
            enforce_snapshot_rate: config.enforce_snapshot_rate,
            background_copy_step: config.background_copy_step,
        }
    }
}

/// A resource group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) subscription: String,
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) tags: serde_json::Map<String, serde_json::Value>,
}

impl Group {
    pub(crate) fn id(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}",
            self.subscription, self.name
        )
    }
}

/// Everything that exists. Maps are keyed by lower-case ids.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    /// Signs tokens and access signatures.
    pub(crate) key: Vec<u8>,
    /// The time of the request at hand.
    pub(crate) now: Instant,
    /// Seconds by which it is ahead of the client's.
    pub(crate) skew: i64,
    /// Tokens that ran out before their time.
    pub(crate) expired_tokens: BTreeSet<String>,
    /// Signatures of storage accounts that were withdrawn, or ran out before their time.
    pub(crate) ended_signatures: BTreeSet<String>,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) volumes: BTreeMap<String, Volume>,
    pub(crate) vms: BTreeMap<String, Vm>,
    pub(crate) network: Network,
    /// By path on the data endpoint.
    pub(crate) grants: BTreeMap<String, Grant>,
    pub(crate) operations: BTreeMap<String, Operation>,
    /// Storage accounts by name.
    pub(crate) accounts: BTreeMap<String, Account>,
    /// Ids of operations that have not ended, oldest first.
    running: Vec<String>,
}

impl World {
    /// A world as the scenario describes it. `key` signs tokens and access signatures.
    pub(crate) fn new(
        settings: Settings,
        key: Vec<u8>,
        now: Instant,
        scenario: &Scenario,
    ) -> Result<Self, Error> {
        let mut world = Self {
            settings,
            skew: 0,
            expired_tokens: BTreeSet::new(),
            ended_signatures: BTreeSet::new(),
            key,
            now,
            tenants: Vec::new(),
            subscriptions: Vec::new(),
            groups: BTreeMap::new(),
            volumes: BTreeMap::new(),
            vms: BTreeMap::new(),
            network: Network::default(),
            grants: BTreeMap::new(),
            operations: BTreeMap::new(),
            accounts: BTreeMap::new(),
            running: Vec::new(),
        };
        world.seed(scenario)?;
        Ok(world)
    }

    /// Moves to the time of a new request.
    pub(crate) fn arrive(&mut self, now: Instant) {
        self.now = now;
        self.settle();
        self.settle_copies();
    }

    pub(crate) fn group(&self, subscription: &str, name: &str) -> Option<&Group> {
        self.groups.get(&group_key(subscription, name))
    }

    /// The disk or snapshot of this id or of this unambiguous name.
    fn volume_key(&self, disk: &str) -> Result<String, Error> {
        let key = disk.to_ascii_lowercase();
        if self.volumes.contains_key(&key) {
            return Ok(key);
        }
        let mut named = self
            .volumes
            .iter()
            .filter(|(_, volume)| volume.id.name.eq_ignore_ascii_case(disk));
        match (named.next(), named.next()) {
            (Some((key, _)), None) => Ok(key.clone()),
            (None, _) | (Some(_), Some(_)) => Err(Error::NoSuchDisk(disk.to_owned())),
        }
    }

    pub(crate) fn find_volume(&self, disk: &str) -> Result<&Volume, Error> {
        Ok(&self.volumes[&self.volume_key(disk)?])
    }

    /// The disk for writing as its guest would, after checking the range.
    pub(crate) fn guest_access(
        &mut self,
        disk: &str,
        offset: u64,
        len: u64,
    ) -> Result<&mut Volume, Error> {
        let key = self.volume_key(disk)?;
        check_range(&self.volumes[&key], offset, len)?;
        self.volumes
            .get_mut(&key)
            .filter(|volume| !volume.is_snapshot())
            .ok_or_else(|| Error::NoSuchDisk(disk.to_owned()))
    }
}

/// That a range lies in the data of a disk.
pub(crate) fn check_range(volume: &Volume, offset: u64, len: u64) -> Result<(), Error> {
    let size = volume.size();
    if offset.checked_add(len).is_some_and(|end| end <= size) {
        return Ok(());
    }
    Err(Error::OutOfRange {
        disk: volume.id.to_string(),
        offset,
        len,
        size,
    })
}

/// Writes bytes at any offset: the pages at the edges keep what is not written.
pub(crate) fn write_bytes(
    volume: &mut Volume,
    spool: &Spool,
    offset: u64,
    data: &[u8],
) -> std::io::Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    let end = offset + u64::try_from(data.len()).unwrap_or(u64::MAX);
    let pages = offset / content::PAGE * content::PAGE..end.next_multiple_of(content::PAGE);
    let mut bytes = vec![0; usize::try_from(pages.end - pages.start).unwrap_or(usize::MAX)];
    let skip = usize::try_from(offset - pages.start).unwrap_or(0);
    if bytes.len() != data.len() {
        volume.content.read(pages.start, &mut bytes)?;
    }
    bytes[skip..skip + data.len()].copy_from_slice(data);
    let source = spool.keep(bytes.into())?;
    volume.content.write(pages, source);
    Ok(())
}

/// Writes generated bytes.
pub(crate) fn write_pattern(volume: &mut Volume, seed: u64, range: Range<u64>) {
    volume.content.write(range, Source::Pattern(seed));
}

pub(crate) fn group_key(subscription: &str, name: &str) -> String {
    format!("{subscription}/{name}").to_ascii_lowercase()
}
