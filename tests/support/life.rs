//! What happens to a VM between and during its backups: its guest writes and discards, its administrator changes disks
//! and names, and somebody deletes or makes snapshots.

use std::collections::BTreeMap;
use std::ops::Range;

use fastrand::Rng;
use mock_server::{ByteSize, Change, Disk, Emulator, KIB, MIB, Snapshot};

/// Azure's smallest upload.
const MIN_DISK: u64 = 20 * MIB;
const MAX_DISK: u64 = 26 * MIB;
const MAX_DATA_DISKS: usize = 3;
/// What the names of our tags begin with.
pub(crate) const TAG: &str = "bacula-azure-vm:";

/// The disks of the VM at one time: `None` is the OS disk's place.
pub(crate) type Disks = BTreeMap<Option<u32>, DiskState>;

/// A disk at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskState {
    pub(crate) unique_id: String,
    pub(crate) size: u64,
    /// Of all its bytes.
    pub(crate) digest: String,
}

/// The VM and everybody who has to do with it.
pub(crate) struct Life<'a> {
    emulator: &'a Emulator,
    rng: Rng,
    pub(crate) vm: String,
    /// Data disks by LUN; the names are unique.
    attached: BTreeMap<u32, String>,
    detached: Vec<String>,
    /// Snapshots of others with the digest of their bytes.
    foreign: BTreeMap<String, String>,
    /// Numbers for names.
    made: u32,
}

impl<'a> Life<'a> {
    /// Of the emulator's only VM.
    pub(crate) fn new(emulator: &'a Emulator, rng: Rng) -> Self {
        let state = emulator.state();
        let vm = &state.virtual_machines[0];
        let attached = vm
            .data_disks
            .iter()
            .map(|(lun, disk)| (*lun, disk.name.clone()))
            .collect();
        Self {
            emulator,
            rng,
            vm: vm.name.clone(),
            attached,
            detached: Vec::new(),
            foreign: BTreeMap::new(),
            made: 0,
        }
    }

    fn change(&self, change: &Change) {
        if let Err(error) = self.emulator.change(change) {
            panic!("{change:?}: {error}");
        }
    }

    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}-{}", self.made)
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    /// The names of the VM's disks.
    fn disks(&self) -> Vec<String> {
        let state = self.emulator.state();
        let os = state.vm(&self.vm).expect("the VM").os_disk.name.clone();
        std::iter::once(os)
            .chain(self.attached.values().cloned())
            .collect()
    }

    /// Sizes and digests of all disks, read from the emulator.
    pub(crate) fn look(&self) -> Disks {
        disks_of(self.emulator, &self.vm)
    }

    /// A while in the life of the guest.
    pub(crate) fn guest_works(&mut self) {
        for disk in self.disks() {
            for _ in 0..self.rng.u8(..5) {
                self.guest_step(&disk);
            }
        }
    }

    fn guest_step(&mut self, disk: &str) {
        let emulator = self.emulator;
        let size = emulator.disk_size(disk).expect("size");
        let result = match self.rng.u8(..12) {
            // Unaligned, within a page or over several.
            0..=3 => {
                let range = self.range(size, 1, 70 * KIB);
                let data: Vec<u8> = range.clone().map(|_| self.rng.u8(..)).collect();
                emulator.guest_write(disk, range.start, &data)
            }
            4 | 5 => {
                let range = self.pages(size, MIB);
                let seed = self.rng.u64(..);
                emulator.guest_pattern(disk, seed, range.start, range.end - range.start)
            }
            // Zeros that are written, over data perhaps.
            6 => {
                let range = self.range(size, 512, 300 * KIB);
                let zeros = vec![0; usize::try_from(range.end - range.start).expect("small")];
                emulator.guest_write(disk, range.start, &zeros)
            }
            // The same bytes again.
            7 => {
                let range = self.range(size, 1, 200 * KIB);
                let len = range.end - range.start;
                let data = emulator.disk_read(disk, range.start, len).expect("read");
                emulator.guest_write(disk, range.start, &data)
            }
            // The last bytes of the disk.
            8 => {
                let len = self.rng.usize(1..3000);
                let data = vec![self.rng.u8(..); len];
                emulator.guest_write(disk, size - len as u64, &data)
            }
            9 => emulator.guest_discard(disk, size - 4096, 4096),
            _ => {
                let range = self.range(size, 512, 5 * MIB);
                emulator.guest_discard(disk, range.start, range.end - range.start)
            }
        };
        result.unwrap_or_else(|error| panic!("guest of {disk}: {error}"));
    }

    /// A range of `min..=max` bytes at any place.
    fn range(&mut self, size: u64, min: u64, max: u64) -> Range<u64> {
        let len = self.rng.u64(min..=max);
        let start = self.rng.u64(..=size - len);
        start..start + len
    }

    /// A range of at most `max` bytes in whole pages.
    fn pages(&mut self, size: u64, max: u64) -> Range<u64> {
        let range = self.range(size / 512, 1, max / 512);
        range.start * 512..range.end * 512
    }

    /// What an administrator does now and then.
    pub(crate) fn administrator_works(&mut self) {
        if self.chance(12) {
            let disk = self.any(&self.disks());
            let size = self.emulator.disk_size(&disk).expect("size");
            if size < MAX_DISK {
                let size = ByteSize(size + self.rng.u64(1..=2) * MIB);
                self.change(&Change::GrowDisk { disk, size });
            }
        }
        if self.chance(10) && self.attached.len() < MAX_DATA_DISKS {
            let lun = self.free_lun();
            let disk = self.free_disk();
            self.attach(lun, disk);
        }
        if self.chance(6) {
            self.detach_any();
        }
        // Another disk at the same LUN.
        if self.chance(10)
            && let Some(lun) = self.detach_any()
        {
            let disk = self.free_disk();
            self.attach(lun, disk);
        }
        if self.chance(7) {
            let (vm, name) = (self.vm.clone(), self.name("web"));
            self.vm.clone_from(&name);
            self.change(&Change::RenameVm { vm, name });
        }
        if self.chance(10) {
            self.make_foreign_snapshot();
        }
    }

    fn any(&mut self, names: &[String]) -> String {
        names[self.rng.usize(..names.len())].clone()
    }

    fn free_lun(&mut self) -> u32 {
        loop {
            let lun = self.rng.u32(..64);
            if !self.attached.contains_key(&lun) {
                return lun;
            }
        }
    }

    /// A disk that is not attached: one of those that were detached, or a new one.
    fn free_disk(&mut self) -> String {
        if !self.detached.is_empty() && self.rng.bool() {
            let at = self.rng.usize(..self.detached.len());
            return self.detached.swap_remove(at);
        }
        let name = self.name("data");
        let seed = self.rng.u64(..);
        let disk = Disk::new(&name, MIN_DISK)
            .in_group("rg1")
            .unique_id(&format!("00000000-0000-4000-9000-{:012}", self.made))
            .pattern(seed, 0, 256 * KIB);
        self.change(&Change::CreateDisk(Box::new(disk)));
        name
    }

    fn attach(&mut self, lun: u32, disk: String) {
        self.change(&Change::AttachDisk {
            vm: self.vm.clone(),
            lun,
            disk: disk.clone(),
        });
        self.attached.insert(lun, disk);
    }

    /// Detaches a data disk, if there is one; its LUN.
    fn detach_any(&mut self) -> Option<u32> {
        let luns: Vec<u32> = self.attached.keys().copied().collect();
        let lun = *luns.get(self.rng.usize(..luns.len().max(1)))?;
        self.change(&Change::DetachDisk {
            vm: self.vm.clone(),
            lun,
        });
        self.detached.extend(self.attached.remove(&lun));
        Some(lun)
    }

    /// A snapshot without tags, or with tags of somebody else's.
    fn make_foreign_snapshot(&mut self) {
        let disk = self.any(&self.disks());
        let name = self.name("theirs");
        let mut tags = BTreeMap::new();
        if self.rng.bool() {
            tags.insert("made-by".to_owned(), "another product".to_owned());
            tags.insert("bacula-azure-vmx:chain".to_owned(), "nightly-a".to_owned());
        }
        self.change(&Change::CreateSnapshot(Snapshot {
            name: name.clone(),
            disk,
            resource_group: None,
            tags,
        }));
        let digest = self.emulator.disk_digest(&name).expect("digest");
        self.foreign.insert(name, digest);
    }

    /// Somebody deletes a snapshot of ours.
    pub(crate) fn somebody_deletes_a_snapshot(&mut self) {
        let state = self.emulator.state();
        // In an order that the names, which depend on the time, have no part in.
        let mut ours: Vec<_> = state
            .snapshots
            .into_iter()
            .filter(|snapshot| snapshot.tags.keys().any(|tag| tag.starts_with(TAG)))
            .map(|snapshot| {
                let tag = |name: &str| snapshot.tags.get(&format!("{TAG}{name}")).cloned();
                (tag("job"), tag("disk"), snapshot.id)
            })
            .collect();
        ours.sort();
        if !ours.is_empty() {
            let at = self.rng.usize(..ours.len());
            let snapshot = ours.swap_remove(at).2;
            self.change(&Change::DeleteSnapshot { snapshot });
        }
    }

    /// Snapshots of others are as they were.
    pub(crate) fn assert_foreign_untouched(&self) {
        for (name, digest) in &self.foreign {
            let now = self.emulator.disk_digest(name);
            assert_eq!(now.as_ref().ok(), Some(digest), "{name}: {now:?}");
        }
    }
}

/// Sizes and digests of the disks of a VM.
pub(crate) fn disks_of(emulator: &Emulator, vm: &str) -> Disks {
    let state = emulator.state();
    let vm = state.vm(vm).unwrap_or_else(|| panic!("no VM {vm}"));
    let data = vm
        .data_disks
        .iter()
        .map(|(lun, disk)| (Some(*lun), &disk.id));
    std::iter::once((None, &vm.os_disk.id))
        .chain(data)
        .map(|(lun, id)| {
            let disk = state
                .disks
                .iter()
                .find(|disk| disk.id.eq_ignore_ascii_case(id))
                .expect("an attached disk exists");
            let state = DiskState {
                unique_id: disk.unique_id.clone(),
                size: disk.size_bytes,
                digest: emulator.disk_digest(id).expect("digest"),
            };
            (lun, state)
        })
        .collect()
}
