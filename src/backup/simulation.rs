//! A Director against the rules of [`chain`](super::chain) and [`retention`](super::retention): random levels, verdicts
//! after the end of a run, upgrades, reruns, lost trackers, moves to another daemon, disks that fail within a run and leave a
//! snapshot. What the Director restores is the oracle: every base must be in it, down to a full image.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::chain::tests::{empty, id};
use super::chain::{Chain, ChainKey, RunRecord};
use super::debris::{Facts, Fate, of_chain};
use super::tags::tests::tags;
use super::tags::{OurSnapshot, SnapshotTags, as_unsaved, is_unsaved};
use super::{Level, Run};
use crate::azure::ResourceId;
use crate::document::Slot;

const DISKS: [&str; 3] = ["a", "b", "c"];
const CLIENTS: [&str; 2] = ["fd-1", "fd-2"];
/// In the names of snapshots without an image.
const LEFT: &str = "-left-";

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Good,
    /// Well, as far as can be known here; the Director calls it failed afterwards.
    CalledFailed,
    /// Like that, and it is made again under the same name.
    MadeAgain,
    /// It fails or is cancelled, and is made again under the same name.
    BadThenGood,
    /// It fails or is cancelled: nothing is recorded.
    Bad,
}

/// One run, as a user and fate want it.
#[derive(Clone, Debug)]
struct Step {
    level: Level,
    /// Makes an Incremental a Differential that names the last good run.
    upgraded: bool,
    /// The Director queued it before the run before it ended, and named its predecessor then.
    queued: bool,
    /// Which of [`DISKS`] it saves; never none.
    disks: [bool; 3],
    /// A disk of which there is a snapshot and no image, and for how many further runs that snapshot cannot be deleted.
    left: Option<(&'static str, usize)>,
    end: End,
    tracker_lost: bool,
    client: usize,
}

fn steps(moves: bool) -> impl Strategy<Value = Vec<Step>> {
    let level = prop_oneof![
        2 => Just(Level::Full),
        6 => Just(Level::Incremental),
        2 => Just(Level::Differential),
    ];
    let end = prop_oneof![
        6 => Just(End::Good),
        3 => Just(End::CalledFailed),
        1 => Just(End::MadeAgain),
        1 => Just(End::BadThenGood),
        1 => Just(End::Bad),
    ];
    let rarely = || prop::bool::weighted(if moves { 0.1 } else { 0.0 });
    let disks = prop::array::uniform3(prop::bool::weighted(0.85));
    let step = (
        level,
        prop::bool::weighted(0.15),
        // A job that waits keeps its daemon; what another one saved meanwhile cannot be known to it.
        prop::bool::weighted(if moves { 0.0 } else { 0.15 }),
        disks,
        prop::option::weighted(0.2, (prop::sample::select(DISKS[1..].to_vec()), 0..4_usize)),
        end,
        rarely(),
        rarely(),
    )
        .prop_map(
            |(level, upgraded, queued, mut disks, left, end, tracker_lost, moved)| {
                for (disk, saved) in DISKS.iter().zip(&mut disks) {
                    *saved &= left.is_none_or(|(left, _)| left != *disk);
                }
                disks[0] |= !(disks[1] || disks[2]);
                Step {
                    level,
                    upgraded,
                    queued,
                    disks,
                    left,
                    end,
                    tracker_lost,
                    client: usize::from(moved),
                }
            },
        );
    prop::collection::vec(step, 1..24)
}

/// A job in the Director's catalog.
#[derive(Clone, Debug)]
struct Job {
    name: String,
    level: Level,
    good: bool,
    /// The image of each disk that it saved: the run that it builds on, `None` if it is full.
    images: BTreeMap<&'static str, Option<String>>,
}

#[derive(Debug, Default)]
struct Director {
    jobs: Vec<Job>,
}

impl Director {
    fn last_good(&self, level: Option<Level>) -> Option<&Job> {
        let wanted = |job: &&Job| job.good && level.is_none_or(|level| job.level == level);
        self.jobs.iter().rev().find(wanted)
    }

    /// Level and previous run of the next run.
    fn next(&self, step: &Step) -> (Level, Option<String>) {
        if step.queued {
            let mut before = self.jobs.clone();
            before.pop();
            let step = Step {
                queued: false,
                ..step.clone()
            };
            return Self { jobs: before }.next(&step);
        }
        let Some(full) = self.last_good(Some(Level::Full)) else {
            return (Level::Full, None);
        };
        let last = self.last_good(None).map(|job| job.name.clone());
        match step.level {
            Level::Full => (Level::Full, None),
            Level::Differential => (Level::Differential, Some(full.name.clone())),
            Level::Incremental if step.upgraded => (Level::Differential, last),
            Level::Incremental => (Level::Incremental, last),
        }
    }

    /// What is restored together with a run of `level` made now, oldest first, without that run.
    fn restored(&self, level: Level) -> Vec<&Job> {
        let good: Vec<_> = self.jobs.iter().filter(|job| job.good).collect();
        let newest = |level| good.iter().rposition(|job| job.level == level);
        let Some(full) = newest(Level::Full).filter(|_| level != Level::Full) else {
            return Vec::new();
        };
        let mut restored = vec![good[full]];
        if level == Level::Incremental {
            let differential = newest(Level::Differential).filter(|&at| at > full);
            restored.extend(&good[differential.unwrap_or(full + 1)..]);
        }
        restored
    }
}

/// Everything there is: the Director, Azure, and the trackers of two daemons.
struct World {
    director: Director,
    /// Snapshots as Azure lists them, by name.
    azure: BTreeMap<String, Value>,
    /// Those of them that cannot be deleted, and for how many runs.
    locks: BTreeMap<String, usize>,
    chains: [Chain; 2],
    /// Runs whose marks stayed with each daemon.
    dead: [BTreeSet<String>; 2],
    /// Whether some link may have been lost.
    forgetful: bool,
    /// Recorded runs that were called failed since the last good one.
    failures: usize,
    /// Those of them that were Fulls.
    failed_fulls: usize,
    /// Two Fulls in a row were called failed: the Full before them is not kept then.
    full_lost: bool,
    /// A run since the last good Full had a rival, or named an early run: what it builds on, or those between, are not recorded.
    cut: bool,
    /// The present run was queued early: what it names is not the newest.
    queued: bool,
    /// Seconds since 1970.
    now: u64,
    /// Seconds by which the clock of the second daemon is slow.
    behind: u64,
    /// Both daemons have run the job.
    moved: bool,
}

impl World {
    fn new(behind: u64) -> Self {
        let mut world = Self {
            director: Director::default(),
            azure: BTreeMap::new(),
            locks: BTreeMap::new(),
            chains: CLIENTS.map(new_chain),
            dead: <[BTreeSet<String>; 2]>::default(),
            forgetful: false,
            failures: 0,
            failed_fulls: 0,
            full_lost: false,
            cut: false,
            queued: false,
            now: 1_000_000,
            behind,
            moved: false,
        };
        // Others, whose chain has another name or whose runs are nobody's.
        for (chain, client) in [("Other", "fd-1"), ("Job", "fd-9")] {
            let tags = SnapshotTags {
                chain: chain.into(),
                client: client.into(),
                ..tags()
            };
            world.put(&id(chain, client), &tags);
        }
        world
    }

    fn put(&mut self, id: &ResourceId, tags: &SnapshotTags) {
        let listed = json!({
            "id": id.as_str(),
            "tags": tags.to_json(),
            "properties": { "diskSizeBytes": 512, "timeCreated": "2026-11-23T09:00:00Z" },
        });
        self.azure.insert(id.name().to_owned(), listed);
    }

    fn has(&self, job: &str, disk: &str) -> bool {
        self.azure.contains_key(id(job, disk).name())
    }

    /// Deletes a snapshot if Azure lets it.
    fn delete(&mut self, id: &ResourceId) -> bool {
        let is_free = !self.locks.contains_key(id.name());
        if is_free {
            self.azure.remove(id.name());
        }
        is_free
    }

    /// What a run does before it saves.
    fn begin(&mut self, run: &Run, client: usize) -> Result<(), TestCaseError> {
        let listed: Vec<_> = self.azure.values().cloned().collect();
        let azure = &self.azure;
        let chain = &mut self.chains[client];
        chain.runs.retain(|known| known.job != run.job);
        let vanished: Vec<_> = chain
            .runs
            .iter()
            .flat_map(RunRecord::snapshots)
            .filter_map(|snapshot| ResourceId::parse(&snapshot.id))
            .filter(|id| !azure.contains_key(id.name()))
            .collect();
        chain.forget(&vanished);
        let mut clear = Vec::new();
        for snapshot in of_chain(&listed, chain, run) {
            let tags = &snapshot.tags;
            let facts = Facts {
                alive: false,
                present: tags.job == run.job,
                unsaved: snapshot.is_unsaved,
                recorded: chain.holds(&snapshot.id),
                dead: self.dead[client].contains(&tags.job),
            };
            match facts.fate() {
                Fate::Keep | Fate::Leave => {}
                Fate::Clear => clear.push(snapshot.id),
                Fate::Adopt => chain.adopt(&snapshot),
            }
        }
        chain.forget(&clear);
        let gone = clear.iter().filter(|id| self.delete(id)).count();
        if gone == clear.len() {
            self.dead[client].clear();
        }
        // Of what this daemon left, that is there which cannot be deleted, or of which nobody knows any more that it is debris.
        let chain = &self.chains[client];
        for snapshot in self.azure.values().filter_map(OurSnapshot::from_listed) {
            let is_recorded = chain.holds(&snapshot.id);
            prop_assert!(!(is_recorded && snapshot.is_unsaved));
            let is_ours = snapshot.tags.client == CLIENTS[client];
            let may_stay = is_recorded || self.locks.contains_key(snapshot.id.name());
            prop_assert!(!is_ours || !is_left(&snapshot.id) || may_stay);
        }
        Ok(())
    }

    /// A snapshot without an image that cannot be deleted when its run ends.
    fn leave(&mut self, run: &Run, client: usize, attempt: usize, disk: &str, runs: usize) {
        let id = id(&run.job, &format!("{disk}{LEFT}{attempt}"));
        let tags = SnapshotTags {
            disk: disk.into(),
            ..self.tags(run, client)
        };
        self.put(&id, &tags);
        self.locks.insert(id.name().to_owned(), runs + 1);
    }

    fn step(&mut self, number: usize, step: &Step) -> Result<(), TestCaseError> {
        let client = step.client;
        self.now += 60;
        if step.tracker_lost {
            self.chains[client] = new_chain(CLIENTS[client]);
            self.dead[client].clear();
        }
        self.locks.retain(|_, runs| {
            *runs -= 1;
            *runs > 0
        });
        self.moved |= client != 0;
        self.forgetful |= step.tracker_lost || self.moved;
        self.queued = step.queued;
        let (level, previous) = self.director.next(step);
        let run = Run {
            job: format!("Job.2026-11-23_{:02}.{:02}.00_01", number / 60, number % 60),
            line: 0,
            client: CLIENTS[client].into(),
            level,
            previous,
            keep_snapshots: true,
        };
        let attempts = match step.end {
            End::Good | End::CalledFailed | End::Bad => 1,
            End::MadeAgain | End::BadThenGood => 2,
        };
        for attempt in 1..=attempts {
            self.begin(&run, client)?;
            let mut images = BTreeMap::new();
            for (disk, _) in DISKS
                .into_iter()
                .zip(step.disks)
                .filter(|&(_, saved)| saved)
            {
                images.insert(disk, self.base(&run, client, disk)?);
            }
            let job = Job {
                name: run.job.clone(),
                level,
                good: step.end == End::Good || attempt == 2,
                images,
            };
            if let Some((disk, runs)) = step.left {
                self.leave(&run, client, attempt, disk, runs);
            }
            if step.end == End::Bad || (step.end == End::BadThenGood && attempt == 1) {
                self.dead[client].insert(run.job.clone());
            } else {
                self.record(&run, client, &job);
                self.check_bound(&run, client)?;
                self.count(&job);
            }
            self.director.jobs.retain(|known| known.name != job.name);
            self.director.jobs.push(job);
        }
        prop_assert!(self.azure.contains_key(id("Other", "fd-1").name()));
        prop_assert!(self.azure.contains_key(id("Job", "fd-9").name()));
        Ok(())
    }

    fn count(&mut self, job: &Job) {
        let is_full = job.level == Level::Full;
        if job.good {
            self.failures = 0;
            self.failed_fulls = 0;
            self.full_lost &= !is_full;
            self.cut &= !is_full;
        } else {
            self.failures += 1;
            self.failed_fulls += usize::from(is_full);
            self.full_lost |= self.failed_fulls > 1;
        }
    }

    /// The base of a disk, checked against what the Director restores.
    fn base(
        &self,
        run: &Run,
        client: usize,
        disk: &'static str,
    ) -> Result<Option<String>, TestCaseError> {
        let Some(previous) = &run.previous else {
            return Ok(None);
        };
        let base = self.chains[client].base(run.level, previous, "vm", disk);
        let restored = self.director.restored(run.level);
        let full = restored.first().map(|job| job.name.as_str());
        let has_rival = self.has_rival(run, client);
        let Ok(base) = base else {
            // Nothing that would have served is there.
            let unknown = self.forgetful || self.cut || self.queued || has_rival;
            if !unknown {
                for job in &restored {
                    prop_assert!(!self.has(&job.name, disk), "{} {disk}", job.name);
                }
            }
            let saved = restored
                .first()
                .is_some_and(|job| job.images.contains_key(disk));
            prop_assert!(
                unknown || !saved || self.full_lost,
                "no base of {disk} in {}, although {full:?} saved it",
                run.job
            );
            return Ok(None);
        };
        prop_assert!(!has_rival);
        prop_assert!(self.has(&base.job, disk), "{} is gone", base.job);
        // The image, and all that it builds on, comes back with the run.
        let mut next = Some(base.job.clone());
        while let Some(name) = next {
            let Some(job) = restored.iter().find(|job| job.name == name) else {
                let names: Vec<_> = restored.iter().map(|job| &job.name).collect();
                return Err(TestCaseError::fail(format!(
                    "{} builds on {name}, restored are {names:?}",
                    run.job
                )));
            };
            prop_assert!(job.images.contains_key(disk));
            next = job.images[disk].clone();
        }
        // It is the best one there is.
        if run.level == Level::Incremental && self.has(previous, disk) {
            prop_assert_eq!(&base.job, previous);
        }
        let last = self.director.last_good(None);
        let exact =
            last.is_some_and(|last| last.name == *previous && last.images.contains_key(disk));
        if run.level == Level::Incremental && exact && self.failures <= 1 && !self.forgetful {
            prop_assert_eq!(&base.job, previous);
        }
        Ok(Some(base.job))
    }

    fn has_rival(&self, run: &Run, client: usize) -> bool {
        let previous = run.previous.as_deref();
        previous.is_some_and(|previous| self.chains[client].rival(run.level, previous).is_some())
    }

    fn record(&mut self, run: &Run, client: usize, job: &Job) {
        // A run that was queued early also seems to disprove what ended meanwhile, which costs bytes if it is called failed.
        self.cut |= self.has_rival(run, client) || self.queued;
        // What is there under its name now, and could not be deleted, is not saved.
        for (_, left) in self.azure.range_mut(run.job.clone()..) {
            if left["tags"]["bacula-azure-vm:job"] == run.job {
                left["tags"] = json!(as_unsaved(left));
            }
        }
        let own = self.tags(run, client);
        for disk in job.images.keys() {
            let tags = SnapshotTags {
                disk: (*disk).into(),
                ..own.clone()
            };
            self.put(&id(&run.job, disk), &tags);
        }
        let made = self.azure.range(run.job.clone()..);
        let made: Vec<_> = made
            .take_while(|(name, _)| name.starts_with(&run.job))
            .filter(|(_, listed)| !is_unsaved(listed))
            .filter_map(|(_, listed)| OurSnapshot::from_listed(listed))
            .collect();
        let chain = &mut self.chains[client];
        made.iter().for_each(|snapshot| chain.adopt(snapshot));
        let mut gone = chain.surplus(&run.job).concat();
        gone.retain(|id| self.delete(id));
        self.chains[client].settle(&run.job, &gone);
        self.dead[client].remove(&run.job);
    }

    /// Of the snapshots of a run; which disk it is, is another question.
    fn tags(&self, run: &Run, client: usize) -> SnapshotTags {
        let has_rival = self.has_rival(run, client);
        let previous = run.previous.clone().filter(|_| !has_rival);
        let chain = &self.chains[client];
        let clock = self.now - if client == 0 { 0 } else { self.behind };
        let started = chain
            .runs
            .last()
            .map_or(clock, |last| clock.max(last.started + 1));
        SnapshotTags {
            client: run.client.clone(),
            chain: "Job".into(),
            job: run.job.clone(),
            level: run.level,
            started,
            full: chain
                .full_of(run.level, previous.as_deref())
                .map(str::to_owned),
            previous,
            vm: "vm".into(),
            vm_name: "name".into(),
            epoch: started,
            disk: String::new(),
            slot: Slot::Os,
        }
    }

    fn check_bound(&self, run: &Run, client: usize) -> Result<(), TestCaseError> {
        let chain = &self.chains[client];
        let proves = chain
            .run(&run.job)
            .and_then(|recorded| recorded.previous.as_ref())
            .is_some_and(|name| chain.run(name).is_some());
        // Where clocks differ, the runs of two daemons are not in the order of their making until one names the run before it.
        let disorder = usize::from(self.moved && self.behind > 0);
        let most = if proves { 3 } else { 4 + disorder };
        // What the other one keeps meanwhile.
        let elsewhere = if self.moved { 4 + disorder } else { 0 };
        for disk in DISKS {
            // What was left, and is not known to be debris any more, comes on top until it is pruned.
            let kept = chain.runs.iter().flat_map(RunRecord::snapshots);
            let kept = kept.filter(|snapshot| !snapshot.id.contains(LEFT));
            let count = kept.filter(|snapshot| snapshot.disk == disk).count();
            prop_assert!(count <= most, "{count} of {disk} after {run:?}");
            let billed = self.azure.values().filter_map(OurSnapshot::from_listed);
            let ours =
                |tags: &SnapshotTags| tags.chain == "Job" && CLIENTS.contains(&&*tags.client);
            let count = billed
                .filter(|snapshot| ours(&snapshot.tags) && snapshot.tags.disk == disk)
                .filter(|snapshot| !is_left(&snapshot.id))
                .count();
            prop_assert!(
                count <= most + elsewhere,
                "{count} of {disk} in Azure after {run:?}"
            );
        }
        // Neither do records without snapshots pile up.
        let links = chain.runs.iter().filter(|run| run.vms.is_empty()).count();
        prop_assert!(links <= self.director.jobs.len());
        Ok(())
    }
}

fn is_left(id: &ResourceId) -> bool {
    id.name().contains(LEFT)
}

fn new_chain(client: &str) -> Chain {
    Chain {
        key: ChainKey {
            client: client.into(),
            job: "Job".into(),
        },
        ..empty()
    }
}

fn simulate(steps: &[Step], behind: u64) -> Result<(), TestCaseError> {
    let mut world = World::new(behind);
    for (number, step) in steps.iter().enumerate() {
        world.step(number, step)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_base_is_found_and_restored_with_what_builds_on_it(steps in steps(false)) {
        simulate(&steps, 0)?;
    }

    #[test]
    fn lost_trackers_and_moves_cost_bytes_and_never_a_restore(
        steps in steps(true),
        behind in prop_oneof![Just(0), 0..3600_u64],
    ) {
        simulate(&steps, behind)?;
    }
}

/// A job goes to a daemon whose clock is four minutes slow and comes back: the runs of both seem to have taken turns.
#[test]
fn clocks_that_differ_cost_one_snapshot_for_one_run() {
    use Level::{Differential as D, Full as F, Incremental as I};
    let runs = [
        (F, 0),
        (I, 0),
        (I, 0),
        (D, 0),
        (F, 1),
        (I, 1),
        (I, 1),
        (I, 0),
        (I, 0),
    ];
    let steps = runs.map(|(level, client)| Step {
        level,
        upgraded: false,
        queued: false,
        disks: [true, false, false],
        left: None,
        end: End::Good,
        tracker_lost: false,
        client,
    });
    let mut world = World::new(240);
    let kept = steps.iter().enumerate().map(|(number, step)| {
        world
            .step(number, step)
            .expect("the run is as it should be");
        let runs = &world.chains[0].runs;
        runs.iter().flat_map(RunRecord::snapshots).count()
    });
    let kept: Vec<_> = kept.collect();
    assert_eq!(kept[kept.len() - 2..], [5, 2]);
}
