//! Which snapshots can go, once a run is recorded.
//!
//! No event proves a run final: the Director may still call a run failed that ended well here, and then the next run
//! builds on an earlier one. Proof comes with the next run, which names the one it builds on.

use std::collections::HashSet;

use super::Level;
use super::chain::{Chain, RunRecord};
use crate::azure::ResourceId;

/// Fulls that name nobody prove nothing. Of a job that makes no other runs so many stay.
const UNPROVEN_FULLS: usize = 2;

impl Chain {
    /// The recorded runs that the run after `present` may build on, newest first, by what `present` itself tells:
    ///
    /// * An Incremental names the newest good run: all between the two were called failed. So does an Incremental that
    ///   was made a Differential, which shows when it names no Full.
    /// * A Differential names the newest good Full: other Fulls since then, and what builds on them, were called failed.
    /// * A Full names nobody, and a name that is not recorded tells nothing.
    ///
    /// In the last two cases everything counts back to the newest run that was ever named.
    fn candidates(&self, present: usize) -> Vec<&RunRecord> {
        let run = &self.runs[present];
        let before = || self.runs[..present].iter().rev();
        let named = run
            .previous
            .as_ref()
            .and_then(|previous| before().find(|known| known.job == *previous));
        let full = match named {
            Some(full) if run.level == Level::Differential && full.level == Level::Full => {
                Some(&full.job)
            }
            Some(named) => return vec![run, named],
            None => None,
        };
        let on_another_full = |known: &RunRecord| {
            let its_full = match known.level {
                Level::Full => Some(&known.job),
                Level::Incremental | Level::Differential => known.full.as_ref(),
            };
            full.is_some() && its_full.is_some() && its_full != full
        };
        let ever_named: HashSet<_> = self
            .runs
            .iter()
            .filter_map(|known| known.previous.as_ref())
            .collect();
        let mut candidates = vec![run];
        let mut fulls = usize::from(run.level == Level::Full);
        for known in before().filter(|known| !on_another_full(known)) {
            fulls += usize::from(known.level == Level::Full);
            if fulls > UNPROVEN_FULLS {
                break;
            }
            candidates.push(known);
            if ever_named.contains(&known.job) {
                break;
            }
        }
        candidates
    }

    /// The runs before `present` that keep their snapshots: the newest candidate, for `present` may be called failed;
    /// after a Full also the oldest, which was ever named, for that one may have been called failed as well; and the
    /// Full of each.
    fn kept(&self, present: usize) -> HashSet<&str> {
        let run = &self.runs[present];
        let candidates = self.candidates(present);
        let oldest = candidates.last().filter(|_| run.full.is_none());
        candidates
            .iter()
            .take(2)
            .chain(oldest)
            .flat_map(|run| [Some(run.job.as_str()), run.full.as_deref()])
            .flatten()
            .collect()
    }

    /// The snapshots that no run after `present` can need, by run. Runs newer than `present` are left alone, and so is
    /// everything if it is not recorded.
    pub(super) fn surplus(&self, present: &str) -> Vec<Vec<ResourceId>> {
        let Some(present) = self.runs.iter().position(|run| run.job == present) else {
            return Vec::new();
        };
        let kept = self.kept(present);
        self.runs[..present]
            .iter()
            .filter(|run| !kept.contains(run.job.as_str()))
            .map(|run| {
                run.snapshots()
                    .filter_map(|snapshot| ResourceId::parse(&snapshot.id))
                    .collect::<Vec<_>>()
            })
            .filter(|snapshots| !snapshots.is_empty())
            .collect()
    }

    /// Forgets snapshots that are gone, and the runs before `present` that have none left and that the Director cannot
    /// name any more.
    pub(super) fn settle(&mut self, present: &str, gone: &[ResourceId]) {
        self.forget(gone);
        let Some(at) = self.runs.iter().position(|run| run.job == present) else {
            return;
        };
        let needed: HashSet<String> = self
            .candidates(at)
            .into_iter()
            .chain(&self.runs[at..])
            .map(|run| run.job.clone())
            .collect();
        self.runs
            .retain(|run| !run.vms.is_empty() || needed.contains(&run.job));
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::{empty, record};
    use super::Level::{Differential as D, Full as F, Incremental as I};
    use super::*;

    /// Records the runs one after the other, each pruned as a job does it; the runs that have snapshots in the end.
    fn left(runs: &[(&str, Level, Option<&str>)]) -> Vec<String> {
        let mut chain = empty();
        for &(job, level, previous) in runs {
            record(&mut chain, job, level, previous, &["a"]);
            let gone = chain.surplus(job).concat();
            chain.settle(job, &gone);
        }
        let kept = chain.runs.iter().filter(|run| !run.vms.is_empty());
        kept.map(|run| run.job.clone()).collect()
    }

    #[test]
    fn of_fulls_the_newest_two_stay() {
        assert_eq!(left(&[("a", F, None)]), ["a"]);
        assert_eq!(left(&[("a", F, None), ("b", F, None)]), ["a", "b"]);
        assert_eq!(
            left(&[("a", F, None), ("b", F, None), ("c", F, None)]),
            ["b", "c"]
        );
    }

    #[test]
    fn full_last_good_and_present_stay() {
        let mut runs = vec![
            ("f", F, None),
            ("i1", I, Some("f")),
            ("i2", I, Some("i1")),
            ("d", D, Some("f")),
        ];
        assert_eq!(left(&runs), ["f", "i2", "d"]);
        runs.push(("i3", I, Some("d")));
        assert_eq!(left(&runs), ["f", "d", "i3"]);
        runs.push(("e", D, Some("i3")));
        assert_eq!(left(&runs), ["f", "i3", "e"]);
    }

    #[test]
    fn what_was_called_failed_goes() {
        let mut runs = vec![
            ("a", F, None),
            ("b", I, Some("a")),
            ("c", I, Some("b")),
            ("d", I, Some("b")),
        ];
        assert_eq!(left(&runs), ["a", "b", "d"]);
        runs.push(("f", F, None));
        assert_eq!(left(&runs), ["a", "b", "d", "f"]);
        // Both the Full and the run before it were called failed.
        runs.push(("e", I, Some("b")));
        assert_eq!(left(&runs), ["a", "b", "e"]);
    }

    #[test]
    fn a_full_that_is_not_proven_replaces_nothing() {
        let mut runs = vec![
            ("f1", F, None),
            ("i1", I, Some("f1")),
            ("i2", I, Some("i1")),
        ];
        runs.push(("f2", F, None));
        assert_eq!(left(&runs), ["f1", "i1", "i2", "f2"]);
        let mut proven = runs.clone();
        proven.push(("i3", I, Some("f2")));
        assert_eq!(left(&proven), ["f2", "i3"]);
        // A second Full, and the first one was called failed.
        runs.push(("f3", F, None));
        assert_eq!(left(&runs), ["f1", "i1", "f2", "f3"]);
        runs.push(("f4", F, None));
        assert_eq!(left(&runs), ["f3", "f4"]);
    }

    #[test]
    fn a_full_called_failed_goes_with_what_builds_on_it() {
        let runs = [
            ("f1", F, None),
            ("i1", I, Some("f1")),
            ("f2", F, None),
            ("d", D, Some("f1")),
        ];
        assert_eq!(left(&runs), ["f1", "i1", "d"]);
    }

    #[test]
    fn an_unknown_name_proves_nothing() {
        let runs = [
            ("f", F, None),
            ("i1", I, Some("f")),
            ("i2", I, Some("i1")),
            ("x", I, Some("copy")),
        ];
        assert_eq!(left(&runs), ["f", "i1", "i2", "x"]);
    }
}
