//! What is remembered of the runs of one job, and which of them is the base of a disk.
//!
//! Every good run is recorded with its level and the run that the Director had it build on. From the run that the
//! Director names, these links lead back over exactly the runs that it restores together: the Incrementals, the last
//! Differential before them, the last Full. That is the *lineage*. A base is taken from it and from nowhere else, so it
//! is always restored together with what builds on it, and it is never newer than the run that the Director names.
//!
//! A name that is not recorded has no lineage. It may be that of a copy, or of a Virtual Full, which the Director names
//! instead of the run that was copied. The time that comes with the name (`since`) would be no help: nothing proves that
//! no Full lies between a recorded run and that time (another File Daemon may have run the job meanwhile), clocks are
//! set, and runs of one job may overlap. What is built on a wrong guess cannot be restored; a full image always can.

use serde::{Deserialize, Serialize};

use super::Level;
use super::snapshot_set::OpenSnapshot;
use super::tags::{OurSnapshot, seconds_of};
use crate::azure::ResourceId;
use crate::document::Slot;

/// Whose runs follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChainKey {
    /// The File Daemon's name.
    pub(super) client: String,
    /// The job's name.
    pub(super) job: String,
}

/// The recorded runs of one job, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chain {
    #[serde(flatten)]
    pub(super) key: ChainKey,
    pub(super) runs: Vec<RunRecord>,
}

/// A run that ended well, as far as could be known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunRecord {
    /// Unique name.
    pub(super) job: String,
    pub(super) level: Level,
    /// Seconds since 1970; later than those of all runs that were recorded when it began.
    pub(super) started: u64,
    /// Unique name of the run that it builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<String>,
    /// Unique name of the Full at the end of its lineage, if that was known; of a Full itself `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) full: Option<String>,
    /// What it saved and has still snapshots of. Two Plugin lines may save one VM, under two epochs.
    pub(super) vms: Vec<VmRecord>,
}

/// The snapshots of one VM in one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VmRecord {
    pub(super) uuid: String,
    /// Its name at that time.
    pub(super) name: String,
    /// Seconds since 1970 in the names of the VM's files.
    pub(super) epoch: u64,
    pub(super) snapshots: Vec<SnapshotRecord>,
}

/// The snapshot of one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    /// Resource id.
    pub(super) id: String,
    /// `properties.uniqueId` of the disk.
    pub(super) disk: String,
    /// The disk's name.
    pub(super) name: String,
    pub(super) slot: Slot,
    /// Size of the disk in bytes.
    pub(super) size: u64,
    /// Seconds since 1970, by Azure's clock.
    pub(super) created: u64,
}

/// The earlier image of a disk that its changes are computed against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// Unique name of the run that made it.
    pub(super) job: String,
    /// Seconds since 1970 in the name of its file.
    pub(super) epoch: u64,
    /// The snapshot that it was read from.
    pub(super) snapshot: ResourceId,
}

impl SnapshotRecord {
    /// Of a run whose files of the VM have `epoch` in their names.
    pub(super) fn new(open: &OpenSnapshot, epoch: u64) -> Self {
        Self {
            id: open.id.as_str().to_owned(),
            disk: open.disk.unique_id.clone(),
            name: open.disk.name().to_owned(),
            slot: open.disk.slot,
            size: open.disk.size,
            created: seconds_of(&open.created).unwrap_or(epoch),
        }
    }
}

impl RunRecord {
    /// All its snapshots.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = &SnapshotRecord> {
        self.vms.iter().flat_map(|vm| &vm.snapshots)
    }

    /// Its newest snapshot of a disk of a VM.
    fn base(&self, vm: &str, disk: &str) -> Option<Base> {
        self.vms
            .iter()
            .filter(|saved| saved.uuid == vm)
            .filter_map(|saved| {
                let snapshot = saved
                    .snapshots
                    .iter()
                    .find(|snapshot| snapshot.disk.eq_ignore_ascii_case(disk))?;
                Some(Base {
                    job: self.job.clone(),
                    epoch: saved.epoch,
                    snapshot: ResourceId::parse(&snapshot.id)?,
                })
            })
            .max_by_key(|base| base.epoch)
    }

    fn add(&mut self, vm: VmRecord) {
        let known = self
            .vms
            .iter_mut()
            .find(|known| known.uuid == vm.uuid && known.epoch == vm.epoch);
        match known {
            Some(known) => known.snapshots.extend(vm.snapshots),
            None => self.vms.push(vm),
        }
    }
}

impl Chain {
    pub(super) fn new(key: ChainKey) -> Self {
        Self {
            key,
            runs: Vec::new(),
        }
    }

    pub(super) fn run(&self, job: &str) -> Option<&RunRecord> {
        self.runs.iter().find(|run| run.job == job)
    }

    /// The run named, and the recorded runs that the Director restores together with it, newest first. Runs that are
    /// not recorded any more are skipped, for each run tells its Full. Empty if the run is not known.
    fn lineage(&self, job: &str) -> Vec<&RunRecord> {
        let recorded = |name: &Option<String>| name.as_deref().and_then(|name| self.run(name));
        let mut lineage: Vec<&RunRecord> = Vec::new();
        let mut next = self.run(job);
        while let Some(run) = next {
            lineage.push(run);
            next = match run.level {
                Level::Full => None,
                Level::Incremental => recorded(&run.previous).or_else(|| recorded(&run.full)),
                Level::Differential => recorded(&run.full),
            }
            // A link leads back in time: else the file is damaged, and this would not end.
            .filter(|next| next.started < run.started);
        }
        lineage
    }

    /// The Full at the end of the lineage of a run that builds on `previous`; `None` if it is not known.
    ///
    /// The run that the Director names for a Differential need not be a Full: an Incremental that it made a Differential
    /// (Max Diff Interval) still names the last Incremental.
    pub(super) fn full_of(&self, level: Level, previous: Option<&str>) -> Option<&str> {
        if level == Level::Full {
            return None;
        }
        let named = self.run(previous?)?;
        match named.level {
            Level::Full => Some(&named.job),
            Level::Incremental | Level::Differential => named.full.as_deref(),
        }
    }

    /// A recorded run that the Director, if it called it good, restores in place of what a run of `level` would build on
    /// that names `previous`: a later Full, and for an Incremental a later Differential.
    ///
    /// The name is given when a job is queued, not when it begins. A job that waited behind a Full of its own names a run
    /// from before that Full. So does one after a Full that was called failed, and nothing tells the two apart.
    pub(super) fn rival(&self, level: Level, previous: &str) -> Option<&RunRecord> {
        let named = self.run(previous)?;
        let replaces = |run: &&RunRecord| match level {
            Level::Full => false,
            Level::Differential => run.level == Level::Full,
            Level::Incremental => run.level != Level::Incremental,
        };
        self.runs
            .iter()
            .rev()
            .take_while(|run| run.started > named.started)
            .find(replaces)
    }

    /// The base of a disk in a run of `level` that builds on `previous`: its newest snapshot in the lineage; at level
    /// Differential, that of the Full alone. None if the run has a [`rival`](Self::rival).
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn base(
        &self,
        level: Level,
        previous: &str,
        vm: &str,
        disk: &str,
    ) -> Result<Base, String> {
        let lineage = self.lineage(previous);
        if lineage.is_empty() {
            return Err(format!(
                "run {previous}, which it builds on, is not known here"
            ));
        }
        if let Some(rival) = self.rival(level, previous) {
            return Err(format!(
                "run {}, level {}, is newer than run {previous}, which the Director names: either it was called failed, or this \
                 run was queued before it ended, and is restored together with it and not with {previous}",
                rival.job,
                rival.level.as_str()
            ));
        }
        let usable = |run: &&&RunRecord| level == Level::Incremental || run.level == Level::Full;
        lineage
            .iter()
            .filter(usable)
            .find_map(|run| run.base(vm, disk))
            .ok_or_else(|| match (level, self.full_of(level, Some(previous))) {
                (Level::Differential, None) => {
                    format!("the Full that run {previous} builds on is not known here")
                }
                (Level::Differential, Some(full)) => {
                    format!("the last Full, run {full}, has no snapshot of this disk")
                }
                (Level::Full | Level::Incremental, _) => {
                    format!("run {previous} and those before it have no snapshot of this disk")
                }
            })
    }

    /// Adds a run, or to a run what another of its Plugin lines saved.
    pub(super) fn record(&mut self, run: RunRecord) {
        if let Some(known) = self.runs.iter_mut().find(|known| known.job == run.job) {
            run.vms.into_iter().for_each(|vm| known.add(vm));
            return;
        }
        let at = self
            .runs
            .partition_point(|known| known.started <= run.started);
        self.runs.insert(at, run);
    }

    /// Adds a snapshot that is known by its tags only (the tracker file was lost, or the job comes from another
    /// daemon). Whether its run ended well is unknown: as for every run, the Director's naming it decides.
    pub(super) fn adopt(&mut self, snapshot: &OurSnapshot) {
        let tags = &snapshot.tags;
        self.record(RunRecord {
            job: tags.job.clone(),
            level: tags.level,
            started: tags.started,
            previous: tags.previous.clone(),
            full: tags.full.clone(),
            vms: vec![VmRecord {
                uuid: tags.vm.clone(),
                name: tags.vm_name.clone(),
                epoch: tags.epoch,
                snapshots: vec![SnapshotRecord {
                    id: snapshot.id.as_str().to_owned(),
                    disk: tags.disk.clone(),
                    name: snapshot
                        .source
                        .as_ref()
                        .map_or(&*tags.disk, ResourceId::name)
                        .to_owned(),
                    slot: tags.slot,
                    size: snapshot.size,
                    created: snapshot.created,
                }],
            }],
        });
    }

    pub(super) fn holds(&self, snapshot: &ResourceId) -> bool {
        self.runs
            .iter()
            .flat_map(RunRecord::snapshots)
            .any(|known| known.id.eq_ignore_ascii_case(snapshot.as_str()))
    }

    /// All recorded snapshots of a run.
    pub(super) fn snapshots_of(&self, job: &str) -> Vec<ResourceId> {
        let runs = self.runs.iter().filter(|run| run.job == job);
        runs.flat_map(RunRecord::snapshots)
            .filter_map(|snapshot| ResourceId::parse(&snapshot.id))
            .collect()
    }

    /// Forgets snapshots that are gone, and the run that they are of: no later one is built on it, or links to it.
    pub(super) fn withdraw(&mut self, job: &str, gone: &[ResourceId]) {
        self.forget(gone);
        self.runs
            .retain(|run| run.job != job || !run.vms.is_empty());
    }

    /// Forgets snapshots that are gone. Their runs stay as links.
    pub(super) fn forget(&mut self, gone: &[ResourceId]) {
        for run in &mut self.runs {
            for vm in &mut run.vms {
                vm.snapshots.retain(|known| {
                    !gone
                        .iter()
                        .any(|id| known.id.eq_ignore_ascii_case(id.as_str()))
                });
            }
            run.vms.retain(|vm| !vm.snapshots.is_empty());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::Level::{Differential as D, Full as F, Incremental as I};
    use super::*;

    /// A run that saved `disks` of the VM `vm`.
    pub(in crate::backup) fn record(
        chain: &mut Chain,
        job: &str,
        level: Level,
        previous: Option<&str>,
        disks: &[&str],
    ) {
        let started = chain.runs.last().map_or(1, |run| run.started + 1);
        let snapshots = disks.iter().map(|disk| SnapshotRecord {
            id: id(job, disk).as_str().to_owned(),
            disk: (*disk).to_owned(),
            name: format!("disk-{disk}"),
            slot: Slot::Os,
            size: 512,
            created: started,
        });
        chain.record(RunRecord {
            job: job.into(),
            level,
            started,
            previous: previous.map(str::to_owned),
            full: chain.full_of(level, previous).map(str::to_owned),
            vms: vec![VmRecord {
                uuid: "vm".into(),
                name: "name".into(),
                epoch: started,
                snapshots: snapshots.collect(),
            }],
        });
    }

    pub(in crate::backup) fn id(job: &str, disk: &str) -> ResourceId {
        ResourceId::new(
            "s",
            "g",
            "Microsoft.Compute/snapshots",
            &format!("{job}-{disk}"),
        )
    }

    pub(in crate::backup) fn empty() -> Chain {
        Chain::new(ChainKey {
            client: "fd".into(),
            job: "job".into(),
        })
    }

    fn chain(runs: &[(&str, Level, Option<&str>)]) -> Chain {
        let mut chain = empty();
        for &(job, level, previous) in runs {
            record(&mut chain, job, level, previous, &["a"]);
        }
        chain
    }

    fn base(chain: &Chain, level: Level, previous: &str) -> Option<String> {
        Some(chain.base(level, previous, "vm", "A").ok()?.job)
    }

    const LONG: &[(&str, Level, Option<&str>)] = &[
        ("f", F, None),
        ("i1", I, Some("f")),
        ("i2", I, Some("i1")),
        ("d", D, Some("f")),
        ("i3", I, Some("d")),
        // An Incremental that the Director made a Differential.
        ("e", D, Some("i3")),
        ("i4", I, Some("e")),
    ];

    #[test]
    fn the_base_is_the_run_that_the_director_names() {
        for (number, (job, ..)) in LONG.iter().enumerate() {
            let chain = chain(&LONG[..=number]);
            assert_eq!(base(&chain, I, job).as_deref(), Some(*job));
            assert_eq!(base(&chain, D, job).as_deref(), Some("f"));
        }
        let chain = chain(LONG);
        let unknown = chain.base(I, "copy", "vm", "a").unwrap_err();
        assert!(unknown.contains("copy"), "{unknown}");
    }

    #[test]
    fn the_lineage_is_what_the_director_restores() {
        let chain = chain(LONG);
        let lineage = |job| -> Vec<_> {
            let runs = chain.lineage(job);
            runs.iter().map(|run| run.job.as_str()).collect()
        };
        assert_eq!(lineage("i2"), ["i2", "i1", "f"]);
        assert_eq!(lineage("i3"), ["i3", "d", "f"]);
        assert_eq!(lineage("i4"), ["i4", "e", "f"]);
        assert_eq!(lineage("f"), ["f"]);
    }

    #[test]
    fn nothing_is_built_on_beside_a_newer_full_or_differential() {
        let mut chain = chain(LONG);
        assert_eq!(chain.rival(I, "i4"), None);
        // Queued while the Full was under way, or the Full was called failed.
        record(&mut chain, "f2", F, None, &["a"]);
        for (level, named) in [(I, "i4"), (D, "f"), (D, "i4")] {
            let reason = chain.base(level, named, "vm", "a").unwrap_err();
            assert!(reason.contains("f2") && reason.contains(named), "{reason}");
        }
        assert_eq!(base(&chain, I, "f2").as_deref(), Some("f2"));
        // A Differential is in the way of Incrementals only.
        record(&mut chain, "d2", D, Some("f2"), &["a"]);
        assert_eq!(base(&chain, D, "f2").as_deref(), Some("f2"));
        assert_eq!(base(&chain, I, "f2"), None);
        record(&mut chain, "i5", I, Some("d2"), &["a"]);
        record(&mut chain, "i6", I, Some("i5"), &["a"]);
        assert_eq!(base(&chain, I, "i5").as_deref(), Some("i5"));
    }

    #[test]
    fn a_run_that_did_not_save_a_disk_still_links() {
        let mut chain = chain(&[("f", F, None), ("i1", I, Some("f"))]);
        record(&mut chain, "i2", I, Some("i1"), &["b"]);
        assert_eq!(base(&chain, I, "i2").as_deref(), Some("i1"));
        // It is not recorded any more: its Full is.
        chain.runs.retain(|run| run.job != "i1");
        assert_eq!(base(&chain, I, "i2").as_deref(), Some("f"));
        chain.forget(&[id("f", "a")]);
        assert_eq!(base(&chain, I, "i2"), None);
        assert!(chain.base(I, "i2", "other", "b").is_err());
    }

    #[test]
    fn a_differential_needs_a_known_full() {
        let mut chain = empty();
        record(&mut chain, "i", I, Some("unknown"), &["a"]);
        assert_eq!(base(&chain, I, "i").as_deref(), Some("i"));
        let reason = chain.base(D, "i", "vm", "a").unwrap_err();
        assert!(reason.contains("Full"), "{reason}");
    }

    #[test]
    fn of_two_lines_the_newest_epoch_is_the_base_and_both_are_kept() {
        let mut chain = chain(&[("f", F, None)]);
        let mut second = chain.runs[0].clone();
        second.vms[0].epoch = 9;
        second.vms[0].snapshots[0].id = id("f", "second").as_str().to_owned();
        chain.record(second);
        assert_eq!(chain.runs.len(), 1);
        let base = chain.base(I, "f", "vm", "a").unwrap();
        assert_eq!((base.epoch, base.snapshot), (9, id("f", "second")));
        assert!(chain.holds(&id("f", "a")) && chain.holds(&id("f", "second")));
    }

    #[test]
    fn a_damaged_file_ends_no_walk() {
        let mut chain = chain(&[("f", F, None), ("i", I, Some("f"))]);
        chain.runs[1].previous = Some("i".into());
        assert_eq!(chain.lineage("i").len(), 1);
    }
}
