//! What earlier runs left behind: found by tags and marks, and cleared before the run begins.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use super::chain::{Chain, RunRecord};
use super::run::Context;
use super::tags::OurSnapshot;
use super::{Error, Level, Run, snapshot_set};
use crate::azure::{Azure, ResourceId};
use crate::json;
use crate::notice::{some_of, with_causes};

/// What becomes of a snapshot of this chain that is there when a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Of a recorded run: a later one may need it.
    Keep,
    /// Of a run that died, of an earlier attempt at this very run, or of a virtual machine that a good run did not save.
    Clear,
    /// Of a run that is under way, perhaps another Plugin line of this job.
    Leave,
    /// Of a run that nobody here knows: the tracker was lost, or the job comes from another daemon.
    Adopt,
}

/// What is known of a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Its run is under way in this subscription.
    pub(super) alive: bool,
    /// Its run has the name of the present one.
    pub(super) present: bool,
    /// It says itself that its image is in no backup.
    pub(super) unsaved: bool,
    pub(super) recorded: bool,
    /// Its run died in this subscription, or failed and could not give it back.
    pub(super) dead: bool,
}

impl Facts {
    pub(super) fn fate(self) -> Fate {
        if self.alive {
            Fate::Leave
        } else if self.present || self.unsaved {
            // The mark of the present run is ours, and no other Plugin line is at work under its name. What is not saved may be
            // recorded by a daemon that found it before the run that made it came to its end on another one.
            Fate::Clear
        } else if self.recorded {
            Fate::Keep
        } else if self.dead {
            Fate::Clear
        } else {
            Fate::Adopt
        }
    }
}

/// What a run finds when it begins.
#[derive(Debug)]
pub(super) struct Found {
    /// Snapshots of an earlier attempt at this very run that could not be deleted.
    pub(super) of_earlier_attempt: Vec<ResourceId>,
    /// A run under way that keeps this one from building on anything: see [`OtherRuns::rival`](super::marks::OtherRuns::rival).
    pub(super) rival: Option<(String, Level)>,
    /// All snapshots of the subscription as they were listed; none if they could not be.
    pub(super) snapshots: Vec<Value>,
}

/// Of listed snapshots those of `chain`: made by this daemon, or recorded here, or made by a daemon that had the job
/// before. That is one under whose tags alone the run that the Director names is found, or the Full of that run. What is
/// open there may belong to a run under way; a later run looks again.
pub(super) fn of_chain(listed: &[Value], chain: &Chain, run: &Run) -> Vec<OurSnapshot> {
    let mut snapshots: Vec<_> = listed
        .iter()
        .filter_map(OurSnapshot::from_listed)
        .filter(|snapshot| snapshot.tags.chain == chain.key.job)
        .collect();
    let former = former_client(&snapshots, chain, run.previous.as_deref());
    snapshots.retain(|snapshot| {
        let client = &snapshot.tags.client;
        *client == chain.key.client
            || chain.holds(&snapshot.id)
            || (former.as_ref() == Some(client)
                && !snapshot.has_access
                && snapshot.tags.job != run.job)
    });
    snapshots
}

/// The other daemon that had the job before. Two Directors may use the same names, so what is known here comes first,
/// and what is found under the tags of several daemons is nobody's.
fn former_client(
    snapshots: &[OurSnapshot],
    chain: &Chain,
    previous: Option<&str>,
) -> Option<String> {
    let mut name = previous?.to_owned();
    // The run, then its Full.
    for _ in 0..2 {
        let of_run = || snapshots.iter().filter(|known| known.tags.job == name);
        let clients: BTreeSet<_> = of_run().map(|known| &known.tags.client).collect();
        let full = if let Some(known) = chain.run(&name) {
            known.full.clone()
        } else if clients.contains(&chain.key.client) {
            of_run().find_map(|known| known.tags.full.clone())
        } else {
            return match clients.len() {
                1 => clients.first().map(|&client| client.clone()),
                _ => None,
            };
        };
        name = full?;
    }
    None
}

/// Deletes what dead runs of this chain left, and what is left of VMs that are gone, for which they must not be among
/// `vms`, the UUIDs of all VMs that the subscription lists; gives back access that nobody uses; takes into the tracker what it does not know, and out of it
/// what is not there any more. Snapshots of other jobs, other daemons and other people are not touched. `had_attempt` tells that
/// an earlier attempt at this very run may have left something.
///
/// # Errors
///
/// Cancelled, or the tracker cannot be used. That Azure cannot be asked or refuses is a notice: it does not keep the
/// run from saving, unless there was an earlier attempt: what that left would pass for what this one saves.
pub(super) async fn clear(
    context: &Context,
    vms: &HashSet<&str>,
    had_attempt: bool,
) -> Result<Found, Error> {
    let Context {
        azure,
        run,
        notices,
        tracker,
        ..
    } = context;
    let others = tracker.other_runs(run, azure.subscription_id()).await?;
    let rival = others.rival(run);
    let chain = context.recorded().await?;
    // An earlier attempt at this very run that ended well here, and not for the Director.
    let earlier = chain.run(&run.job).filter(|_| !others.is_alive(&run.job));
    let others = others.within(azure.subscription_id());
    let listed = match azure.snapshots().await {
        Ok(listed) => Some(listed),
        Err(error) if error.is_cancelled() => return Err(Error::Cancelled),
        Err(error) if had_attempt || others.is_dead(&run.job) => {
            let action = "list snapshots that an earlier attempt at this run may have left";
            return Err(Error::azure(action, error));
        }
        Err(error) => {
            notices.warning(format!(
                "list snapshots to clear what earlier runs may have left: {}",
                with_causes(&error)
            ));
            None
        }
    };

    let mut clear: Vec<ResourceId> = Vec::new();
    let mut of_earlier_attempt: Vec<ResourceId> = Vec::new();
    let mut close: Vec<ResourceId> = Vec::new();
    let mut adopt: Vec<OurSnapshot> = Vec::new();
    for snapshot in of_chain(listed.as_deref().unwrap_or_default(), &chain, run) {
        let tags = &snapshot.tags;
        let facts = Facts {
            alive: others.is_alive(&tags.job),
            present: tags.job == run.job,
            unsaved: snapshot.is_unsaved,
            recorded: chain.holds(&snapshot.id),
            dead: others.is_dead(&tags.job),
        };
        let mut fate = facts.fate();
        if matches!(fate, Fate::Keep | Fate::Adopt)
            && !vms.contains(tags.vm.as_str())
            && is_orphan(azure, &snapshot).await
        {
            fate = Fate::Clear;
        }
        match fate {
            Fate::Clear => {
                if facts.present {
                    of_earlier_attempt.push(snapshot.id.clone());
                }
                clear.push(snapshot.id);
            }
            Fate::Leave => {}
            Fate::Keep | Fate::Adopt => {
                if snapshot.has_access {
                    close.push(snapshot.id.clone());
                }
                if fate == Fate::Adopt {
                    adopt.push(snapshot);
                }
            }
        }
    }
    // In all subscriptions, for what a line left that is no more would be a base otherwise.
    if let Some(earlier) = earlier {
        let recorded: Vec<_> = ids(earlier).filter(|id| !clear.contains(id)).collect();
        of_earlier_attempt.extend_from_slice(&recorded);
        clear.extend(recorded);
    }
    let (disks, vanished): (Vec<_>, Vec<_>) = listed
        .iter()
        .flat_map(|listed| vanished(&chain, listed, azure.subscription_id()))
        .unzip();

    if !adopt.is_empty() {
        notices.info(format!(
            "taking {} of earlier runs of this job into the tracker, by their tags",
            snapshots(adopt.len())
        ));
    }
    if !vanished.is_empty() {
        notices.warning(format!(
            "snapshots of earlier runs of this job are not there any more: of {}",
            counted(&disks)
        ));
    }
    tracker
        .update(notices, |state| {
            let ours = listed.iter().flatten().filter_map(OurSnapshot::from_listed);
            for OurSnapshot { tags, .. } in ours {
                state.note_epoch(&tags.vm, tags.epoch);
            }
            let recorded = state.chain_mut(&chain.key);
            if earlier.is_some() {
                recorded.runs.retain(|known| known.job != run.job);
            }
            recorded.forget(&clear);
            recorded.forget(&vanished);
            for snapshot in &adopt {
                recorded.adopt(snapshot);
            }
        })
        .await?;
    for id in &close {
        if let Err(error) = azure.revoke(id).await {
            notices.warning(format!(
                "revoke access left open on snapshot {}: {}",
                id.name(),
                with_causes(&error)
            ));
        }
    }
    if !clear.is_empty() {
        notices.info(format!(
            "deleting {} of earlier runs of this job: of runs that did not end, or of virtual machines that are not there \
             any more",
            snapshots(clear.len())
        ));
    }
    // Without a list nobody knows what the dead have left; their marks must go on telling.
    let left = snapshot_set::delete(azure, &clear, notices).await;
    if left.is_empty() && listed.is_some() {
        for mark in others.dead {
            mark.remove().await?;
        }
    }
    of_earlier_attempt.retain(|id| left.contains(id));
    if azure.cancellation().is_cancelled() {
        return Err(Error::Cancelled);
    }
    Ok(Found {
        of_earlier_attempt,
        rival,
        snapshots: listed.unwrap_or_default(),
    })
}

/// Whether the disk of a snapshot whose VM is not listed is gone, or belongs to nobody: then nothing will ever be built
/// on it. Azure leaves out of its lists what one may not read, so the list alone proves nothing.
async fn is_orphan(azure: &Azure, snapshot: &OurSnapshot) -> bool {
    let Some(disk) = &snapshot.source else {
        return false;
    };
    match azure.disk(disk).await {
        Ok(disk) => {
            let unique_id = json::text(&disk, "/properties/uniqueId");
            json::text(&disk, "/properties/diskState") == Some("Unattached")
                || unique_id.is_some_and(|id| !id.eq_ignore_ascii_case(&snapshot.tags.disk))
        }
        Err(error) => error.is_not_found(),
    }
}

fn ids(run: &RunRecord) -> impl Iterator<Item = ResourceId> {
    run.snapshots()
        .filter_map(|snapshot| ResourceId::parse(&snapshot.id))
}

/// Recorded snapshots of this subscription that are not listed, with the names of their disks.
fn vanished<'a>(
    chain: &'a Chain,
    listed: &[Value],
    subscription: &str,
) -> Vec<(&'a str, ResourceId)> {
    let there: HashSet<_> = listed
        .iter()
        .filter_map(|snapshot| Some(json::text(snapshot, "/id")?.to_ascii_lowercase()))
        .collect();
    chain
        .runs
        .iter()
        .flat_map(RunRecord::snapshots)
        .filter_map(|snapshot| Some((&*snapshot.name, ResourceId::parse(&snapshot.id)?)))
        .filter(|(_, id)| id.is_in(subscription))
        .filter(|(_, id)| !there.contains(&id.as_str().to_ascii_lowercase()))
        .collect()
}

/// `1 snapshot`, `2 snapshots`.
fn snapshots(count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} snapshot{plural}")
}

/// Each name once, with how often it is there: `data-a (2), os (1)`.
fn counted(names: &[&str]) -> String {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_insert(0) += 1;
    }
    let counted = counts
        .iter()
        .map(|(name, count)| format!("{name} ({count})"));
    some_of(counted)
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::{empty, record};
    use super::super::tags::SnapshotTags;
    use super::super::tags::tests::tags;
    use super::*;

    #[test]
    fn numbers_are_said_in_words_that_fit() {
        assert_eq!([snapshots(1), snapshots(2)], ["1 snapshot", "2 snapshots"]);
        assert_eq!(counted(&["os", "data", "os"]), "data (1), os (2)");
    }

    #[test]
    fn only_what_is_surely_of_no_use_is_cleared() {
        let facts = Facts::default();
        let (alive, recorded, dead) = (true, true, true);
        let present = true;
        let fate = |facts: Facts| facts.fate();
        assert_eq!(fate(Facts { present, ..facts }), Fate::Clear);
        assert_eq!(
            fate(Facts {
                present,
                recorded,
                ..facts
            }),
            Fate::Clear
        );
        assert_eq!(
            fate(Facts {
                present,
                alive,
                ..facts
            }),
            Fate::Leave
        );
        assert_eq!(
            fate(Facts {
                present,
                alive,
                recorded,
                ..facts
            }),
            Fate::Leave
        );
        assert_eq!(
            fate(Facts {
                recorded,
                dead,
                ..facts
            }),
            Fate::Keep
        );
        assert_eq!(fate(Facts { dead, ..facts }), Fate::Clear);
        let unsaved = true;
        assert_eq!(
            fate(Facts {
                unsaved,
                recorded,
                ..facts
            }),
            Fate::Clear
        );
        assert_eq!(
            fate(Facts {
                unsaved,
                alive,
                ..facts
            }),
            Fate::Leave
        );
        assert_eq!(fate(Facts { alive, ..facts }), Fate::Leave);
        assert_eq!(fate(facts), Fate::Adopt);
    }

    fn snapshot(client: &str, job: &str, full: Option<&str>) -> OurSnapshot {
        OurSnapshot {
            id: super::super::chain::tests::id(job, client),
            tags: SnapshotTags {
                client: client.into(),
                job: job.into(),
                full: full.map(str::to_owned),
                ..tags()
            },
            source: None,
            size: 512,
            created: 1,
            has_access: false,
            is_unsaved: false,
        }
    }

    #[test]
    fn a_job_takes_its_chain_along_and_nobody_elses() {
        let chain = empty();
        let former =
            |chain: &Chain, snapshots: &[OurSnapshot]| former_client(snapshots, chain, Some("p"));
        let elsewhere = [snapshot("old", "p", Some("f")), snapshot("old", "f", None)];
        assert_eq!(former(&chain, &elsewhere).as_deref(), Some("old"));
        // The run itself is ours already, its Full is not.
        let moved = [snapshot("fd", "p", Some("f")), snapshot("old", "f", None)];
        assert_eq!(former(&chain, &moved).as_deref(), Some("old"));
        let two = [snapshot("old", "p", None), snapshot("older", "p", None)];
        assert_eq!(former(&chain, &two), None);
        let own = [snapshot("fd", "p", None), snapshot("old", "p", None)];
        assert_eq!(former(&chain, &own), None);
        assert_eq!(former(&chain, &[snapshot("old", "q", None)]), None);
        let mut known = empty();
        record(&mut known, "p", Level::Full, None, &["a"]);
        assert_eq!(former(&known, &elsewhere), None);
    }
}
