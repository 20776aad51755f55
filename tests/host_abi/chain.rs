//! Thirty random runs of two jobs on one VM, of every level and with every ending, while guest, administrator and others
//! do what they do; then each point in time that the Director could restore comes back, and is compared byte by byte.
//!
//! `CHAIN_SEED=<n>` replays one seed, `CHAIN_SEEDS=<n>` runs that many new ones.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "shown if the test fails: what happened, and how to repeat it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use fastrand::Rng;
use mock_server::{Action, Change, Disk, Fault, KIB, MIB, Scenario, Vm, When};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::director::{Catalog, RunRow, Started};
use crate::host::RC_OK;
use crate::jobs::{
    Stored, begin_backup_at, end_backup, end_restore, restore_files, restore_options, start_as,
    store_files_while,
};
use crate::life::{DiskState, Disks, Life, TAG, disks_of};
use crate::numbers::{ALL, ERROR, FATAL, Numbers};

/// Seeds that every run of the tests takes, one for each interface at least.
const SEEDS: [u64; 4] = [1, 2, 3, 4];
const ROUNDS: i32 = 30;
/// Snapshots of one disk that a chain may hold: last good Full, last good run, and one that nothing has confirmed yet.
const KEPT: usize = 3;
/// After a Full, or behind one that may have been called failed, the one before it is there, too.
const KEPT_AFTER_FULL: usize = 4;

#[test]
fn every_point_in_time_of_random_chains_comes_back() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let seeds = match (number("CHAIN_SEED"), number("CHAIN_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).map(|_| fastrand::u64(..1_000_000)).collect(),
        (None, None) => SEEDS.into(),
    };
    let mut of_fixed = Tally::default();
    for seed in &seeds {
        let _replay = Replay(*seed);
        let tally = Story::of(*seed);
        println!("seed {seed}: {tally}");
        if SEEDS.contains(seed) {
            of_fixed.add(&tally);
        }
    }
    if SEEDS.iter().all(|seed| seeds.contains(seed)) {
        of_fixed.assert_covers_all();
    }
}

/// What happened, so that it can be told, and that nothing proves itself by not happening.
#[derive(Debug, Default)]
struct Tally {
    deltas: usize,
    fulls_instead: usize,
    /// Another disk at a LUN than in the run before.
    swapped: usize,
    cancelled: usize,
    failed: usize,
    restored: usize,
    /// Points in time that were restored from more than one run.
    restored_chains: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.deltas += other.deltas;
        self.fulls_instead += other.fulls_instead;
        self.swapped += other.swapped;
        self.cancelled += other.cancelled;
        self.failed += other.failed;
        self.restored += other.restored;
        self.restored_chains += other.restored_chains;
    }

    fn assert_covers_all(&self) {
        let Self {
            deltas,
            fulls_instead,
            swapped,
            cancelled,
            failed,
            restored,
            restored_chains,
        } = *self;
        let all = [
            deltas,
            fulls_instead,
            swapped,
            cancelled,
            failed,
            restored,
            restored_chains,
        ];
        assert!(all.iter().all(|&count| count > 0), "{self:?}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} changes, {} full images in their place, {} disks swapped, {} runs cancelled, {} failed, {} points in time \
             restored, {} of them from several runs",
            self.deltas,
            self.fulls_instead,
            self.swapped,
            self.cancelled,
            self.failed,
            self.restored,
            self.restored_chains
        )
    }
}

/// Says how to run the test again if it fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "failed with seed {0}; again: CHAIN_SEED={0} cargo test --test host_abi random_chains",
                self.0
            );
        }
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Good,
    /// Well for us; the Director calls it failed afterwards.
    FailedLater,
    /// Cancelled when so many blocks of images have been read.
    Cancelled(usize),
    /// The host stops reading then.
    HostFailed(usize),
    /// The daemon ends then, without a further call than `freePlugin`.
    DaemonEnded(usize),
    /// The n-th request for data is refused for good.
    AzureFailed(u64),
}

/// What the test knows of a run that it let end well.
struct Facts {
    epoch: u64,
    disks: Disks,
    /// Names by the disks' unique ids.
    snapshots: BTreeMap<String, String>,
}

struct Chain {
    catalog: Catalog,
    facts: BTreeMap<String, Facts>,
    /// The state folder was lost once, and with it links between runs.
    state_lost: bool,
    /// A run was recorded without what it builds on, since a run that the Director may restore instead was newer.
    cut: bool,
    /// Whether the last run that ended well for us tells which run it builds on.
    proves: bool,
}

/// Everything of one seed.
struct Story<'a> {
    cloud: &'a Cloud,
    numbers: &'static Numbers,
    rng: Rng,
    life: Life<'a>,
    chains: [Chain; 2],
    job_id: i32,
    last_epoch: u64,
    tally: Tally,
}

impl Story<'_> {
    /// Plays one seed; what it came to.
    fn of(seed: u64) -> Tally {
        let mut rng = Rng::with_seed(seed);
        let numbers = &ALL[usize::try_from(seed).expect("small") % ALL.len()];
        let os = Disk::new("web-os", 24 * MIB)
            .unique_id("00000000-0000-4000-8000-000000000001")
            .pattern(1, 0, 700 * KIB)
            .pattern(2, 20 * MIB + 512, 300 * KIB);
        let data = Disk::new("web-data", 20 * MIB)
            .unique_id("00000000-0000-4000-8000-000000000002")
            .pattern(3, 5 * MIB, 200 * KIB + 512);
        let vm = Vm::new("rg1", "web", os)
            .data_disk(3, data)
            .vm_id("00000000-0000-4000-8000-000000000003");
        let cloud = Cloud::with(Scenario::new().vm(vm));
        let chain = |job: &str| Chain {
            catalog: Catalog::new(job),
            facts: BTreeMap::new(),
            state_lost: false,
            cut: false,
            proves: false,
        };
        let mut story = Story {
            cloud: &cloud,
            numbers,
            life: Life::new(&cloud.emulator, rng.fork()),
            rng,
            chains: [chain("nightly-a"), chain("weekly.b")],
            job_id: 0,
            last_epoch: 0,
            tally: Tally::default(),
        };
        for _ in 0..ROUNDS {
            story.round();
        }
        story.restore_everything();
        let tally = story.tally;
        assert!(tally.deltas > 0, "no changes were saved as changes");
        assert!(tally.restored > 0, "nothing was restored");
        tally
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    /// Some time passes, then a run of either job.
    fn round(&mut self) {
        self.life.guest_works();
        self.life.administrator_works();
        if self.chance(7) {
            self.life.somebody_deletes_a_snapshot();
        }
        if self.chance(7) {
            self.lose_state();
        }
        let which = self.rng.usize(..2);
        let wanted = ['F', 'D', 'D', 'I', 'I', 'I', 'I'][self.rng.usize(..7)];
        let upgraded = self.chance(15);
        self.job_id += 1;
        let started = self.chains[which]
            .catalog
            .start(self.job_id, wanted, upgraded);
        let ending = self.ending();
        self.run(which, &started, ending);
        // Stopped, or failed at the very end: again, with the same number and name.
        if ending != Ending::Good && self.chance(25) {
            self.life.guest_works();
            self.run(which, &started, Ending::Good);
        }
    }

    fn ending(&mut self) -> Ending {
        let blocks = self.rng.usize(1..60);
        match self.rng.u8(..20) {
            0..=11 => Ending::Good,
            12 | 13 => Ending::FailedLater,
            14 | 15 => Ending::Cancelled(blocks),
            16 => Ending::HostFailed(blocks),
            17 => Ending::DaemonEnded(blocks),
            _ => Ending::AzureFailed(self.rng.u64(1..12)),
        }
    }

    /// The state folder, or the tracker file in it, is lost.
    fn lose_state(&mut self) {
        let folder = self.cloud.working_dir().join("azure-vm");
        if self.rng.bool() {
            std::fs::remove_dir_all(folder).ok();
        } else {
            std::fs::remove_file(folder.join("tracker.json")).ok();
        }
        for chain in &mut self.chains {
            chain.state_lost = true;
        }
    }

    fn run(&mut self, which: usize, started: &Started, ending: Ending) {
        let cloud = self.cloud;
        let what = format!("{started:?}, {ending:?}");
        println!("{what}");
        if let Ending::AzureFailed(nth) = ending {
            cloud.emulator.fault(Fault {
                operation: "Blob_Get".to_owned(),
                path_contains: None,
                when: When::From(nth),
                action: Action::Status {
                    status: 404,
                    code: Some("BlobNotFound".to_owned()),
                    body: None,
                    retry_after: None,
                },
            });
        }
        // Nobody writes from here on until all snapshots are taken.
        let disks = self.life.look();
        let alive = self.our_snapshots();
        let mut job = start_as(self.numbers, cloud, self.job_id, &started.name);
        if let Some(previous) = &started.previous {
            job.set_text(self.numbers.previous, previous);
        }
        let begun = begin_backup_at(&mut job, started.level, &cloud.command("include=.*"));
        let guest_works_at = self.rng.usize(1..20);
        let life = &mut self.life;
        let files = store_files_while(&mut job, self.numbers.buffer(), |job, blocks| {
            if blocks == guest_works_at {
                life.guest_works();
            }
            match ending {
                Ending::Cancelled(at) if blocks == at => {
                    assert_eq!(job.canceller().cancel(), RC_OK)
                }
                Ending::HostFailed(at) | Ending::DaemonEnded(at) if blocks == at => {
                    return ControlFlow::Break(());
                }
                Ending::Good
                | Ending::FailedLater
                | Ending::Cancelled(_)
                | Ending::HostFailed(_)
                | Ending::DaemonEnded(_)
                | Ending::AzureFailed(_) => {}
            }
            ControlFlow::Continue(())
        });
        let mut messages = job.messages();
        let is_fatal =
            |messages: &[(usize, String)]| messages.iter().any(|(class, _)| *class == FATAL);
        let (seen_by_us, mut status) = match ending {
            Ending::AzureFailed(_) if begun != RC_OK || is_fatal(&messages) => ('f', 'f'),
            Ending::Good | Ending::AzureFailed(_) => ('T', 'T'),
            Ending::FailedLater => ('T', 'f'),
            Ending::Cancelled(_) => ('A', 'A'),
            Ending::HostFailed(_) | Ending::DaemonEnded(_) => ('f', 'f'),
        };
        if !matches!(ending, Ending::DaemonEnded(_)) {
            if let Ending::Cancelled(_) = ending {
                // It may come after the last block.
                job.canceller().cancel();
            }
            end_backup(&mut job, seen_by_us);
            messages.extend(job.messages());
        }
        job.end();
        cloud.emulator.clear_faults();
        if is_fatal(&messages) {
            assert!(
                status != 'T' || matches!(ending, Ending::AzureFailed(_)),
                "{what}: {messages:#?}"
            );
            status = 'f';
        }
        let ended_well = seen_by_us == 'T' && !is_fatal(&messages);
        self.tally.cancelled += usize::from(status == 'A');
        self.tally.failed += usize::from(status == 'f');

        cloud.assert_idle();
        self.life.assert_foreign_untouched();
        let now = self.our_snapshots();
        let of_run: BTreeSet<_> = now.difference(&alive).cloned().collect();
        if ended_well {
            let is_undisturbed = !matches!(ending, Ending::AzureFailed(_));
            let alive = is_undisturbed.then_some(&alive);
            let facts = self.examine(which, started, &files, &disks, alive, &messages);
            let recorded: BTreeSet<_> = facts.snapshots.values().cloned().collect();
            assert_eq!(of_run, recorded, "{what}: {messages:#?}");
            self.chains[which].facts.insert(started.name.clone(), facts);
            let has_rival = self.has_rival(which, started);
            self.chains[which].cut |= has_rival;
            self.chains[which].proves = started.level != 'F' && !has_rival;
        } else {
            assert_eq!(of_run, BTreeSet::new(), "{what}: {messages:#?}");
        }
        self.chains[which]
            .catalog
            .enter(started.clone(), status, files);
        self.assert_snapshots_are_bounded(which, &what);
    }

    /// The run's document against the disks of that moment, and each image against what it must build on: `alive` are
    /// our snapshots when the run began, unless something hindered it.
    fn examine(
        &mut self,
        which: usize,
        started: &Started,
        files: &[Stored],
        disks: &Disks,
        alive: Option<&BTreeSet<String>>,
        messages: &[(usize, String)],
    ) -> Facts {
        let document = document(files);
        let epoch = document["epoch"].as_u64().expect("epoch");
        assert!(epoch > self.last_epoch, "{epoch} after {}", self.last_epoch);
        self.last_epoch = epoch;
        assert_eq!(document["vmName"], self.life.vm.as_str());
        let images = document["images"].as_array().expect("images");
        assert_eq!(images.len(), disks.len());
        // Options, name, conf, images, digests.
        assert_eq!(files.len(), 4 + disks.len());
        let mut snapshots = BTreeMap::new();
        let mut instead = 0;
        for (image, (lun, disk)) in images.iter().zip(disks) {
            let place = image["slot"]["data"].as_u64();
            assert_eq!(place, lun.map(u64::from), "{image}");
            assert_eq!(image["diskUniqueId"], disk.unique_id.as_str(), "{image}");
            assert_eq!(image["sizeBytes"], disk.size, "{image}");
            let base = image["content"]["delta"]["baseEpoch"].as_u64();
            if let Some(expected) =
                alive.and_then(|alive| self.expected_base(which, started, &disk.unique_id, alive))
            {
                assert_eq!(base, Some(expected), "{started:?}: {image}, {messages:#?}");
            }
            match (started.level, base) {
                ('F', base) => assert_eq!(base, None),
                (_, Some(_)) => self.tally.deltas += 1,
                (_, None) => instead += 1,
            }
            let snapshot = image["snapshot"].as_str().expect("snapshot").to_owned();
            snapshots.insert(disk.unique_id.clone(), snapshot);
        }
        let errors = messages.iter().filter(|(class, _)| *class == ERROR).count();
        assert_eq!(errors > 0, instead > 0, "{started:?}: {messages:#?}");
        self.tally.fulls_instead += instead;
        self.tally.swapped += self.swapped_since_last(which, disks);
        Facts {
            epoch,
            disks: disks.clone(),
            snapshots,
        }
    }

    /// How many LUNs have another disk than in the chain's last run.
    fn swapped_since_last(&self, which: usize, disks: &Disks) -> usize {
        let runs = self.chains[which].facts.values();
        let Some(last) = runs.max_by_key(|facts| facts.epoch) else {
            return 0;
        };
        let is_other = |(lun, disk): &(&Option<u32>, &DiskState)| {
            let before = last.disks.get(lun);
            before.is_some_and(|before| before.unique_id != disk.unique_id)
        };
        disks.iter().filter(is_other).count()
    }

    /// The epoch that an image must build on; `None` where the test does not know.
    fn expected_base(
        &self,
        which: usize,
        started: &Started,
        disk: &str,
        alive: &BTreeSet<String>,
    ) -> Option<u64> {
        let chain = &self.chains[which];
        let previous = chain.catalog.run(started.previous.as_deref()?)?;
        if self.has_rival(which, started) {
            return None;
        }
        let base = match started.level {
            'I' => previous,
            // Without the state folder the way from an Incremental to its Full may be lost.
            _ if previous.level != 'F' && (chain.state_lost || chain.cut) => return None,
            _ => full_of(&chain.catalog, previous),
        };
        let facts = chain.facts.get(&base.name)?;
        let snapshot = facts.snapshots.get(disk)?;
        alive.contains(snapshot).then_some(facts.epoch)
    }

    /// Whether a run ended well for us that is newer than the one that the Director names, and that the Director restores
    /// instead if it was good: the two cannot be told from a run that was queued too early.
    fn has_rival(&self, which: usize, started: &Started) -> bool {
        let chain = &self.chains[which];
        let Some(previous) = &started.previous else {
            return false;
        };
        let Some(named) = chain.facts.get(previous) else {
            return false;
        };
        chain.facts.iter().any(|(name, facts)| {
            let level = chain.catalog.run(name).map(|run| run.level);
            facts.epoch > named.epoch
                && *name != started.name
                && (level == Some('F') || level == Some('D') && started.level == 'I')
        })
    }

    /// Names of all snapshots that carry our tags.
    fn our_snapshots(&self) -> BTreeSet<String> {
        let state = self.cloud.emulator.state();
        let ours = state
            .snapshots
            .into_iter()
            .filter(|snapshot| snapshot.tags.keys().any(|tag| tag.starts_with(TAG)));
        ours.map(|snapshot| snapshot.name).collect()
    }

    fn assert_snapshots_are_bounded(&self, which: usize, what: &str) {
        let job = self.chains[which].catalog.job();
        let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for snapshot in self.cloud.emulator.state().snapshots {
            let tag = |name: &str| snapshot.tags.get(&format!("{TAG}{name}")).cloned();
            if tag("chain").as_deref() == Some(job) {
                let disk = tag("disk").expect("disk");
                held.entry(disk).or_default().push(tag("job").expect("job"));
            }
        }
        let allowed = if self.chains[which].proves {
            KEPT
        } else {
            KEPT_AFTER_FULL
        };
        for (disk, runs) in held {
            assert!(runs.len() <= allowed, "{what}: {disk} of {runs:?}");
        }
    }

    /// Every point in time of both jobs.
    fn restore_everything(&mut self) {
        let places: Vec<(usize, usize)> = self
            .chains
            .iter()
            .enumerate()
            .flat_map(|(which, chain)| chain.catalog.good().map(move |(at, _)| (which, at)))
            .collect();
        for (which, at) in places {
            self.restore(which, at);
        }
    }

    fn restore(&mut self, which: usize, at: usize) {
        let (newest_first, too_much) = (self.rng.bool(), self.rng.u8(..5) == 0);
        let catalog = &self.chains[which].catalog;
        let mut runs = if too_much {
            let until = catalog.good().filter(|(place, _)| *place <= at);
            until.map(|(_, run)| run).collect()
        } else {
            catalog.restore_set(at)
        };
        if newest_first {
            runs.reverse();
        }
        let is_chain = catalog.restore_set(at).len() > 1;
        let names: Vec<_> = runs.iter().map(|run| (run.level, &run.name)).collect();
        let target = &catalog.runs[at];
        let what = format!("restore of {} from {names:?}", target.name);
        println!("{what}");
        let files: Vec<Stored> = runs.iter().flat_map(|run| run.files.clone()).collect();

        let cloud = self.cloud;
        let disks_before = cloud.emulator.state().disks.len();
        let command = cloud.command("include=.*");
        let mut job = start_as(self.numbers, cloud, 1000, "restore.2026-02-01_00.00.00_01");
        let options = "new_hostname=\"restored\"\n";
        restore_options(&mut job, &command, options, options.len());
        restore_files(&mut job, &command, &files);
        end_restore(&mut job, 'T');
        let messages = job.messages();
        job.end();
        assert!(
            messages.iter().all(|(class, _)| *class > ERROR),
            "{what}: {messages:#?}"
        );
        cloud.assert_idle();
        let content = |disks: &Disks| -> Vec<_> {
            disks
                .iter()
                .map(|(lun, disk)| (*lun, disk.size, disk.digest.clone()))
                .collect()
        };
        let restored = disks_of(&cloud.emulator, "restored");
        let saved = &self.chains[which].facts[&target.name].disks;
        assert_eq!(content(&restored), content(saved), "{what}: {messages:#?}");
        cloud
            .emulator
            .change(&Change::DeleteVm {
                vm: "restored".to_owned(),
                with_resources: true,
            })
            .expect("delete the restored VM");
        assert_eq!(cloud.emulator.state().disks.len(), disks_before, "{what}");
        self.tally.restored += 1;
        self.tally.restored_chains += usize::from(is_chain);
    }
}

/// The Full at the end of the links that begin at `run`.
fn full_of<'a>(catalog: &'a Catalog, mut run: &'a RunRow) -> &'a RunRow {
    while run.level != 'F' {
        let previous = run.previous.as_deref().expect("only a Full has none");
        run = catalog.run(previous).expect("it is in the catalog");
    }
    run
}

/// The configuration document among the files of a run.
fn document(files: &[Stored]) -> Value {
    let file = files
        .iter()
        .find(|file| file.saved.name.ends_with("_conf"))
        .expect("a document");
    let text: Vec<u8> = file
        .blocks
        .iter()
        .flat_map(|(_, data)| data.clone())
        .collect();
    serde_json::from_slice(&text).expect("JSON")
}
