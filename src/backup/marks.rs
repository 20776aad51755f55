//! The marks of running runs: who is at work, and what the dead left.
//!
//! ```text
//! <state_dir>/<hash>.run      one per Plugin line of a run and its subscription; locked as long as its process lives
//! ```
//!
//! A mark whose lock is free belongs to a run that died (kill -9, power loss), or failed and could not give everything back; its
//! snapshots in the subscription of the mark are debris. Of a run that is recorded it says nothing any more: what that did not save,
//! and could not delete, says so itself by a tag. Marks come and go under the lock of the tracker file, so whoever holds one is seen.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tags::{chain_name, short_hash};
use super::tracker::Tracker;
use super::{Error, Level, Run};
use crate::private_folder::{open_file, read_at_most};

/// Most bytes of a mark: names of jobs and clients have 127 characters (`MAX_NAME_LENGTH` of Bacula).
const LARGEST_MARK: u64 = 64 << 10;

impl Tracker {
    /// Marks `run` as running, in a subscription.
    pub(super) async fn mark(&self, run: &Run, subscription: &str) -> Result<RunMark, Error> {
        // Whoever looks for dead runs locks their marks for a moment; this one must not meet that.
        let _lock = self.lock().await?;
        let name = mark_name(run, subscription);
        let failed = |source| self.failed("mark run as running in", &name, source);
        let file = self.open_or_make(&name).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(failed(io::Error::other(format!(
                    "a run named {} is under way",
                    run.job
                ))));
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut mark = RunMark {
            job: run.job.clone(),
            subscription: subscription.to_owned(),
            had_attempt: file.metadata().map_err(failed)?.len() > 0,
            tracker: self.clone(),
            name: name.clone().into(),
            file,
        };
        mark.write(run, false).map_err(failed)?;
        Ok(mark)
    }

    /// The marks of other runs of the same chain as `run`, which works in `subscription`; other Plugin lines of the same job are
    /// among them.
    pub(super) async fn other_runs(
        &self,
        run: &Run,
        subscription: &str,
    ) -> Result<OtherRuns, Error> {
        let _lock = self.lock().await?;
        let own = mark_name(run, subscription);
        let failed = |source| self.failed("list state folder", "", source);
        let mut runs = OtherRuns::default();
        for entry in fs::read_dir(self.folder.at("")).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let is_mark = Path::new(&name).extension() == Some(OsStr::new("run"));
            if !is_mark || name == *own {
                continue;
            }
            // A mark that vanishes meanwhile belonged to a run that ended; one that is not readable or written only
            // half belongs to a run that created nothing yet.
            let path = self.folder.at(&name);
            let Ok(file) = open_file(OpenOptions::new().read(true), &path) else {
                continue;
            };
            let is_dead = file.try_lock().is_ok();
            let Ok(Some(text)) = read_at_most(&file, LARGEST_MARK) else {
                continue;
            };
            let Ok(text) = serde_json::from_slice(&text) else {
                continue;
            };
            let MarkText {
                client,
                job,
                level,
                subscription,
                covers_nothing,
            } = text;
            if client != run.client || chain_name(&job) != chain_name(&run.job) {
                continue;
            }
            if is_dead && covers_nothing {
                // Its run was recorded, and did not come to remove it.
                remove(&path).map_err(|source| {
                    Error::tracker("remove mark of run", &self.shown(&name), source)
                })?;
            } else if is_dead {
                let mark = RunMark {
                    job,
                    subscription,
                    had_attempt: true,
                    tracker: self.clone(),
                    name,
                    file,
                };
                runs.dead.push(mark);
            } else {
                runs.alive.push(AliveRun {
                    job,
                    level,
                    subscription,
                });
            }
        }
        Ok(runs)
    }
}

/// Runs that are marked as running.
#[derive(Debug, Default)]
pub(super) struct OtherRuns {
    /// Marks of runs whose process is gone; held now, so that nobody else clears them too.
    pub(super) dead: Vec<RunMark>,
    alive: Vec<AliveRun>,
}

/// A run that is under way.
#[derive(Debug)]
struct AliveRun {
    /// Unique name.
    job: String,
    level: Level,
    subscription: String,
}

impl OtherRuns {
    /// Those that work in a subscription. The Plugin lines of a job may work in several: what one does in its own says nothing of
    /// what an earlier attempt left in another one.
    pub(super) fn within(mut self, subscription: &str) -> Self {
        let is_here = |other: &str| other.eq_ignore_ascii_case(subscription);
        self.dead.retain(|mark| is_here(&mark.subscription));
        self.alive.retain(|run| is_here(&run.subscription));
        self
    }

    /// Whether a run of this unique name is under way.
    pub(super) fn is_alive(&self, job: &str) -> bool {
        self.alive.iter().any(|alive| alive.job == job)
    }

    /// Whether a run of this unique name died.
    pub(super) fn is_dead(&self, job: &str) -> bool {
        self.dead.iter().any(|mark| mark.job == job)
    }

    /// A run under way that `present`, which began later, cannot build on, but that the Director restores before
    /// `present` and instead of what `present` builds on, if it ends well.
    /// Its unique name and level.
    pub(super) fn rival(&self, present: &Run) -> Option<(String, Level)> {
        let replaces = |run: &&AliveRun| {
            run.job != present.job
                && match present.level {
                    Level::Full => false,
                    Level::Differential => run.level == Level::Full,
                    Level::Incremental => run.level != Level::Incremental,
                }
        };
        let rival = self.alive.iter().find(replaces)?;
        Some((rival.job.clone(), rival.level))
    }
}

#[derive(Serialize, Deserialize)]
struct MarkText {
    client: String,
    job: String,
    level: Level,
    /// Where its snapshots are.
    subscription: String,
    /// The run is recorded: none of its snapshots is debris because of this mark.
    covers_nothing: bool,
}

/// The mark of a run. Dropping it frees the lock and leaves the file: the run counts as dead.
#[derive(Debug)]
pub(super) struct RunMark {
    /// The run's unique name.
    job: String,
    /// Where its snapshots are.
    subscription: String,
    /// It was there before: an earlier attempt at the run did not come to its end.
    pub(super) had_attempt: bool,
    tracker: Tracker,
    name: OsString,
    /// Locked.
    file: File,
}

impl RunMark {
    /// The run is recorded, and still under way until it removes its mark.
    pub(super) async fn cover_nothing(&mut self, run: &Run) -> Result<(), Error> {
        let _lock = self.tracker.lock().await?;
        self.write(run, true).map_err(|source| {
            let shown = self.tracker.shown(&self.name);
            Error::tracker("change mark of run", &shown, source)
        })
    }

    /// Nothing of the run is left to be cleared.
    pub(super) async fn remove(self) -> Result<(), Error> {
        // Else a run of this name that begins now might lock a file that is not seen by its name any more.
        let _lock = self.tracker.lock().await?;
        remove(&self.tracker.folder.at(&self.name)).map_err(|source| {
            let shown = self.tracker.shown(&self.name);
            Error::tracker("remove mark of run", &shown, source)
        })
    }

    fn write(&mut self, run: &Run, covers_nothing: bool) -> io::Result<()> {
        let mut text = serde_json::to_vec(&MarkText {
            client: run.client.clone(),
            job: run.job.clone(),
            level: run.level,
            subscription: self.subscription.clone(),
            covers_nothing,
        })?;
        // Over what was there, up to its end: at no time is there less than a mark.
        let before = usize::try_from(self.file.metadata()?.len()).map_err(io::Error::other)?;
        text.resize(text.len().max(before), b' ');
        self.file.write_all_at(&text, 0)?;
        self.file.sync_all()
    }
}

/// Removes a mark; one that is not there is gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Also of its subscription: a line that works in another one in the next attempt must not hide what it left.
fn mark_name(run: &Run, subscription: &str) -> String {
    let line = run.line.to_string();
    let subscription = subscription.to_ascii_lowercase();
    let identity = [&*run.client, &run.job, &line, &subscription].join("\n");
    format!("{}.run", short_hash(&identity))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::super::tracker::LOCK_PAUSE;
    use super::*;

    const HERE: &str = "75a0c7aa-4a0d-4cd1-8f0d-9d1b1a6d6a5e";

    impl Tracker {
        async fn others(&self, run: &Run) -> OtherRuns {
            self.other_runs(run, HERE).await.unwrap()
        }
    }

    fn run(job: &str) -> Run {
        Run {
            job: job.into(),
            line: 0,
            client: "fd".into(),
            level: Level::Full,
            previous: None,
            keep_snapshots: true,
        }
    }

    #[tokio::test]
    async fn no_mark_is_made_through_a_link() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        let tracker = Tracker::open(&at("state")).unwrap();
        let run = run("job");
        let mark = tracker.shown(mark_name(&run, HERE));
        symlink(at("elsewhere/x"), &mark).unwrap();
        let refused = tracker.mark(&run, HERE).await.unwrap_err();
        let refused = crate::notice::with_causes(&refused);
        assert!(refused.contains("symbolic link"), "{refused}");
        assert!(mark.is_symlink());
        assert_eq!(fs::read_dir(at("elsewhere")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn dead_and_living_runs_of_the_same_chain_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::open(folder.path()).unwrap();
        drop(
            tracker
                .mark(&run("job.2026-01-01_00.00.00_01"), HERE)
                .await
                .unwrap(),
        );
        drop(
            tracker
                .mark(&run("other.2026-01-01_00.00.00_01"), HERE)
                .await
                .unwrap(),
        );
        let _alive = tracker
            .mark(&run("job.2026-01-01_00.00.00_02"), HERE)
            .await
            .unwrap();
        let ended = tracker
            .mark(&run("job.2026-01-01_00.00.00_03"), HERE)
            .await
            .unwrap();
        ended.remove().await.unwrap();
        let mut recorded = tracker
            .mark(&run("job.2026-01-01_00.00.00_05"), HERE)
            .await
            .unwrap();
        recorded
            .cover_nothing(&run("job.2026-01-01_00.00.00_05"))
            .await
            .unwrap();
        let padded = tracker
            .mark(&run("job.2026-01-01_00.00.00_04"), HERE)
            .await
            .unwrap();
        // Still JSON, and far larger than any mark.
        let blanks = " ".repeat(1 << 20);
        let mut options = OpenOptions::new();
        let file = options.append(true).open(tracker.shown(&padded.name));
        file.unwrap().write_all(blanks.as_bytes()).unwrap();
        drop(padded);

        let present = run("job.2026-01-02_00.00.00_01");
        let _own = tracker.mark(&present, HERE).await.unwrap();
        let found = tracker.others(&present).await;
        let dead: Vec<_> = found.dead.iter().map(|mark| mark.job.as_str()).collect();
        assert_eq!(dead, ["job.2026-01-01_00.00.00_01"]);
        let mut alive: Vec<_> = found.alive.iter().map(|run| run.job.as_str()).collect();
        alive.sort_unstable();
        let both = ["job.2026-01-01_00.00.00_02", "job.2026-01-01_00.00.00_05"];
        assert_eq!(alive, both);
        assert!(both.iter().all(|job| found.is_alive(job)));
        let rival = |level| {
            found.rival(&Run {
                level,
                ..present.clone()
            })
        };
        assert_eq!(rival(Level::Full), None);
        for level in [Level::Differential, Level::Incremental] {
            let (job, its_level) = rival(level).unwrap();
            assert!(both.contains(&&*job) && its_level == Level::Full, "{job}");
        }
        // While it is held, nobody else takes it for dead.
        assert!(tracker.others(&present).await.dead.is_empty());
        // Of a run that was recorded nothing is debris, and its mark of no use.
        let name = recorded.name.clone();
        drop(recorded);
        assert!(tracker.others(&present).await.dead.is_empty());
        assert!(!tracker.shown(name).exists());
    }

    #[tokio::test]
    async fn what_is_known_of_a_run_is_known_for_a_subscription() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::open(folder.path()).unwrap();
        let elsewhere = "0f3c1b52-3b1c-4f7e-9c55-8a5b7a0e2d11";
        drop(tracker.mark(&run("job"), HERE).await.unwrap());
        // The same line of the next attempt, in another subscription.
        let alive = tracker.mark(&run("job"), elsewhere).await.unwrap();
        assert!(!alive.had_attempt);
        let line = Run {
            line: 1,
            ..run("job")
        };
        for (subscription, is_dead) in [(HERE.to_uppercase(), true), (elsewhere.into(), false)] {
            let found = tracker.others(&line).await.within(&subscription);
            assert_eq!(found.is_dead("job"), is_dead, "{subscription}");
            assert_eq!(found.is_alive("job"), !is_dead, "{subscription}");
        }
    }

    #[tokio::test]
    async fn a_mark_that_somebody_holds_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::open(folder.path()).unwrap();
        let ended = tracker.mark(&run("job"), HERE).await.unwrap();
        assert!(!ended.had_attempt);
        let path = tracker.shown(&ended.name);
        // A run of this name that begins now has the file open, and is about to lock it.
        let beginning = tracker.lock().await.unwrap();
        let mut removal = Box::pin(ended.remove());
        let waits = tokio::time::timeout(LOCK_PAUSE * 2, &mut removal).await;
        assert!(waits.is_err() && path.exists());
        drop(beginning);
        removal.await.unwrap();
        assert!(!path.exists());

        drop(tracker.mark(&run("job"), HERE).await.unwrap());
        let again = tracker.mark(&run("job"), HERE).await.unwrap();
        assert!(again.had_attempt && path.exists());
        let other = Run {
            line: 1,
            ..run("job")
        };
        assert!(tracker.others(&other).await.is_alive("job"));
    }

    #[tokio::test]
    async fn a_run_cannot_be_under_way_twice() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::open(folder.path()).unwrap();
        let _first = tracker.mark(&run("job"), HERE).await.unwrap();
        assert!(tracker.mark(&run("job"), HERE).await.is_err());
        let second_line = Run {
            line: 1,
            ..run("job")
        };
        let _second = tracker.mark(&second_line, HERE).await.unwrap();
        let found = tracker.others(&second_line).await;
        assert!(found.is_alive("job") && found.dead.is_empty());
        // Another Plugin line of the same run.
        let present = Run {
            level: Level::Incremental,
            ..second_line
        };
        assert_eq!(found.rival(&present), None);
    }
}
