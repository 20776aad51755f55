//! What dead predecessors of a run left behind: found by tags and marks, and cleared before the run begins.

use super::chain::ChainKey;
use super::run::Context;
use super::tags::{OurSnapshot, chain_name};
use super::{Error, snapshot_set};
use crate::azure::ResourceId;
use crate::notice::with_causes;

/// What becomes of a snapshot of this chain that is there when a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Of a recorded run: a later one may need it.
    Keep,
    /// Of a run that died, or of an earlier attempt at this very run.
    Clear,
    /// Of a run that is under way, perhaps another Plugin line of this job.
    Leave,
    /// Of a run that nobody here knows: the tracker was lost, or the job comes from another daemon.
    Adopt,
}

fn fate(job: &str, present: &str, recorded: bool, dead: bool, alive: bool) -> Fate {
    if alive {
        Fate::Leave
    } else if job == present {
        // The mark of this run is ours, and no other Plugin line is at work under its name.
        Fate::Clear
    } else if recorded {
        Fate::Keep
    } else if dead {
        Fate::Clear
    } else {
        Fate::Adopt
    }
}

/// Deletes what dead runs of this chain left, gives back access that nobody uses, and takes into the tracker what it
/// does not know. Snapshots of other jobs, other daemons and other people are not touched.
///
/// # Errors
///
/// Cancelled, or the tracker cannot be used. That Azure cannot be asked or refuses is a notice: it does not keep the
/// run from saving.
pub(super) async fn clear(context: &Context) -> Result<(), Error> {
    let Context {
        azure,
        run,
        notices,
        tracker,
        ..
    } = context;
    let others = tracker.other_runs(run).await?;
    let listed = match azure.snapshots().await {
        Ok(listed) => listed,
        Err(error) if error.is_cancelled() => return Err(Error::Cancelled),
        Err(error) => {
            notices.warning(format!(
                "list snapshots to clear what earlier runs may have left: {}",
                with_causes(&error)
            ));
            return Ok(());
        }
    };
    let ours: Vec<OurSnapshot> = listed
        .iter()
        .filter_map(OurSnapshot::from_listed)
        .filter(|snapshot| {
            snapshot.tags.client == run.client && snapshot.tags.chain == chain_name(&run.job)
        })
        .collect();
    let state = tracker.read(notices).await?;

    let mut clear: Vec<ResourceId> = Vec::new();
    let mut close: Vec<ResourceId> = Vec::new();
    let mut adopt: Vec<OurSnapshot> = Vec::new();
    for snapshot in ours {
        let tags = &snapshot.tags;
        let recorded = state
            .chain(&context.chain_key(&tags.vm))
            .is_some_and(|chain| {
                chain
                    .runs
                    .iter()
                    .any(|known| known.job == tags.job && known.holds(&snapshot.id))
            });
        let dead = others.dead.iter().any(|mark| mark.job == tags.job);
        let fate = fate(
            &tags.job,
            &run.job,
            recorded,
            dead,
            others.alive.contains(&tags.job),
        );
        match fate {
            Fate::Clear => clear.push(snapshot.id),
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

    if !adopt.is_empty() {
        notices.info(format!(
            "{} snapshots of earlier runs of this job were not in the tracker and are taken into it by their tags",
            adopt.len()
        ));
        tracker
            .update(notices, |state| {
                for snapshot in &adopt {
                    let key: ChainKey = context.chain_key(&snapshot.tags.vm);
                    state.chain_mut(&key).adopt(snapshot);
                }
            })
            .await?;
    }
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
            "deleting {} snapshots of earlier runs of this job that did not end",
            clear.len()
        ));
    }
    if snapshot_set::delete(azure, &clear, notices).await {
        for mark in others.dead {
            mark.remove()?;
        }
    }
    if azure.cancellation().is_cancelled() {
        return Err(Error::Cancelled);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_dead_is_cleared() {
        assert_eq!(fate("now", "now", false, false, false), Fate::Clear);
        assert_eq!(fate("now", "now", false, false, true), Fate::Leave);
        assert_eq!(fate("now", "now", true, false, true), Fate::Leave);
        assert_eq!(fate("a", "now", true, true, false), Fate::Keep);
        assert_eq!(fate("a", "now", false, true, false), Fate::Clear);
        assert_eq!(fate("a", "now", false, false, true), Fate::Leave);
        assert_eq!(fate("a", "now", false, false, false), Fate::Adopt);
    }
}
