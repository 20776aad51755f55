//! What is remembered of the runs of one job on one VM, and which of their snapshots can go.
//!
//! Every good run is recorded with its level and the run that it names as its predecessor, so that a base can be found
//! for any level. No event proves a run final: the Director may still call a run failed that ended well here. A run is
//! proven only when a later run names it as the one it builds on.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Level;
use super::tags::OurSnapshot;
use crate::azure::ResourceId;

/// Whose runs follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChainKey {
    /// The File Daemon's name.
    pub(super) client: String,
    /// The job's name.
    pub(super) job: String,
    /// UUID of the VM.
    pub(super) vm: String,
}

/// The recorded runs of one job on one VM, oldest first.
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
    /// Seconds since 1970.
    pub(super) started: u64,
    /// Unique name of the run that it builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<String>,
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

impl RunRecord {
    pub(super) fn holds(&self, snapshot: &ResourceId) -> bool {
        self.snapshots
            .iter()
            .any(|known| known.id.eq_ignore_ascii_case(snapshot.as_str()))
    }
}

impl Chain {
    pub(super) fn new(key: ChainKey) -> Self {
        Self {
            key,
            runs: Vec::new(),
        }
    }

    /// The base of a disk in a run that builds on `previous`; why there is none.
    pub(super) fn base(&self, previous: &str, disk: &str) -> Result<Base, String> {
        let run = self
            .runs
            .iter()
            .find(|run| run.job == previous)
            .ok_or_else(|| format!("run {previous}, which it builds on, is not known here"))?;
        run.snapshots
            .iter()
            .find(|snapshot| snapshot.disk.eq_ignore_ascii_case(disk))
            .and_then(|snapshot| ResourceId::parse(&snapshot.id))
            .map(|snapshot| Base {
                job: run.job.clone(),
                epoch: run.epoch,
                snapshot,
            })
            .ok_or_else(|| format!("run {previous}, which it builds on, did not save this disk"))
    }

    /// Adds a run; one of the same name is replaced.
    pub(super) fn record(&mut self, run: RunRecord) {
        self.runs.retain(|known| known.job != run.job);
        let at = self
            .runs
            .partition_point(|known| (known.started, known.epoch) <= (run.started, run.epoch));
        self.runs.insert(at, run);
    }

    /// Adds a snapshot that is known by its tags only (the tracker file was lost, or the job comes from another
    /// daemon). Whether its run ended well is unknown; it counts as a recorded run that nothing has proven.
    pub(super) fn adopt(&mut self, snapshot: &OurSnapshot) {
        let tags = &snapshot.tags;
        let record = SnapshotRecord {
            id: snapshot.id.as_str().to_owned(),
            disk: tags.disk.clone(),
        };
        match self.runs.iter_mut().find(|run| run.job == tags.job) {
            Some(run) => run.snapshots.push(record),
            None => self.record(RunRecord {
                job: tags.job.clone(),
                level: tags.level,
                started: tags.started,
                previous: tags.previous.clone(),
                epoch: tags.epoch,
                snapshots: vec![record],
            }),
        }
    }

    /// The runs whose snapshots no later run can need. `named` is the run that the present one builds on, by the
    /// Director's word.
    ///
    /// Kept are
    /// * the newest run and the one before it: the newest may still be called failed, and then the Director builds on
    ///   the one before;
    /// * the newest Full and the Full before it, for the same reason: a Differential builds on a Full;
    /// * the newest run that a later one has proven.
    ///
    /// A chain of Fulls names no predecessors, so nothing in it is ever proven and the first two rules decide. Should
    /// more runs in a row be called failed than these rules foresee, the next run finds no base and saves the disk in
    /// full: more bytes, never wrong ones.
    pub(super) fn surplus(&self, named: Option<&str>) -> Vec<RunRecord> {
        let proven: HashSet<&str> = self
            .runs
            .iter()
            .filter_map(|run| run.previous.as_deref())
            .chain(named)
            .collect();
        let newest_first = || self.runs.iter().rev();
        let keep: HashSet<&str> = newest_first()
            .take(2)
            .chain(
                newest_first()
                    .filter(|run| run.level == Level::Full)
                    .take(2),
            )
            .chain(
                newest_first()
                    .filter(|run| proven.contains(run.job.as_str()))
                    .take(1),
            )
            .map(|run| run.job.as_str())
            .collect();
        self.runs
            .iter()
            .filter(|run| !keep.contains(run.job.as_str()))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(runs: &[(&str, Level, Option<&str>)]) -> Chain {
        let mut chain = Chain::new(ChainKey {
            client: "fd".into(),
            job: "job".into(),
            vm: "vm".into(),
        });
        for (at, &(job, level, previous)) in (1..).zip(runs) {
            chain.record(RunRecord {
                job: job.into(),
                level,
                started: at,
                previous: previous.map(str::to_owned),
                epoch: at,
                snapshots: Vec::new(),
            });
        }
        chain
    }

    fn surplus(chain: &Chain, named: Option<&str>) -> Vec<String> {
        chain
            .surplus(named)
            .into_iter()
            .map(|run| run.job)
            .collect()
    }

    use Level::{Differential as D, Full as F, Incremental as I};

    #[test]
    fn of_fulls_the_newest_two_stay() {
        assert!(surplus(&chain(&[("a", F, None)]), None).is_empty());
        assert!(surplus(&chain(&[("a", F, None), ("b", F, None)]), None).is_empty());
        assert_eq!(
            surplus(
                &chain(&[("a", F, None), ("b", F, None), ("c", F, None)]),
                None
            ),
            ["a"]
        );
    }

    #[test]
    fn the_full_of_a_long_chain_stays() {
        let chain = chain(&[
            ("a", F, None),
            ("b", I, Some("a")),
            ("c", I, Some("b")),
            ("d", D, Some("c")),
            ("e", I, Some("d")),
        ]);
        // e and d are the newest, a is the only Full; d is proven.
        assert_eq!(surplus(&chain, None), ["b", "c"]);
    }

    #[test]
    fn the_run_that_the_director_names_stays() {
        let chain = chain(&[
            ("a", F, None),
            ("b", I, Some("a")),
            ("c", I, Some("b")),
            ("d", I, Some("b")),
            ("e", I, Some("b")),
        ]);
        // c and d were called failed: the Director keeps naming b.
        assert_eq!(surplus(&chain, Some("b")), ["c"]);
    }

    #[test]
    fn a_run_is_recorded_once_and_in_order() {
        let mut chain = chain(&[("a", F, None), ("b", F, None)]);
        let mut late = chain.runs[0].clone();
        late.epoch = 9;
        chain.record(late);
        let order: Vec<_> = chain
            .runs
            .iter()
            .map(|run| (run.job.as_str(), run.epoch))
            .collect();
        assert_eq!(order, [("a", 9), ("b", 2)]);
    }
}
