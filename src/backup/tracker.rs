//! The state folder: the tracker file and the marks of running runs.
//!
//! ```text
//! <state_dir>/tracker.json    epochs and chains; replaced atomically under a lock
//! <state_dir>/tracker.lock    held while the file is read, changed and replaced, also by other processes
//! <state_dir>/<hash>.run      one per Plugin line of a run and its subscription; locked as long as its process lives
//! ```
//!
//! A mark whose lock is free belongs to a run that died (kill -9, power loss), or failed and could not give everything back; its
//! snapshots in the subscription of the mark are debris. Of a run that is recorded it says nothing any more: what that did not save,
//! and could not delete, says so itself by a tag. Marks come and go under the lock of the tracker file, so whoever holds one is seen.
//! What is known by neither file is not: then the folder was lost or the job comes from another daemon, and the tags of the snapshots
//! decide. Folder and files are private to the daemon's user.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::chain::{Chain, ChainKey};
use super::tags::{chain_name, short_hash};
use super::{Error, Level, Run};
use crate::document::END_OF_DATES;
use crate::notice::Notices;
use crate::private_folder::{PrivateFolder, open_file, read_at_most};

const VERSION: u32 = 1;
const FILE: &str = "tracker.json";
const LOCK: &str = "tracker.lock";
/// What is going to replace the file. One name, so that a process that dies over it leaves no more than one.
const NEXT: &str = "tracker.next.json";
/// What a file that cannot be understood is renamed to.
const DAMAGED: &str = "tracker.damaged.json";
/// Most bytes of the file; a larger one is damaged. The four snapshots of a disk take about 2 KiB, so this is the size of a hundred
/// thousand disks.
const LARGEST: u64 = 256 << 20;
/// Most bytes of a mark: names of jobs and clients have 127 characters (`MAX_NAME_LENGTH` of Bacula).
const LARGEST_MARK: u64 = 64 << 10;
/// The lock is held for the time of one small file's replacement; another holder that takes longer is stuck.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The tracker of one state folder.
#[derive(Clone, Debug)]
pub(super) struct Tracker {
    folder: PrivateFolder,
}

/// What the tracker file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// Last epoch used in file names, by the UUID of the VM.
    epochs: BTreeMap<String, u64>,
    chains: Vec<Chain>,
}

/// Why the text of a tracker file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it has version {0}, written by a newer release; this one knows version {VERSION}")]
    Newer(u32),
    #[error("it is damaged; the next backup rebuilds it from the tags of the snapshots")]
    Damaged,
}

/// The one member that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            epochs: BTreeMap::new(),
            chains: Vec::new(),
        }
    }
}

impl State {
    /// An epoch for the files of a VM: the present time, but larger than any used before.
    pub(super) fn reserve_epoch(&mut self, vm: &str, now: u64) -> u64 {
        let last = self.epochs.entry(vm.to_owned()).or_default();
        *last = now.max(*last + 1);
        *last
    }

    /// Takes note of an epoch that was used, by whomever: the file may have been lost, or another daemon, whose clock is
    /// ahead, may have had the job.
    pub(super) fn note_epoch(&mut self, vm: &str, used: u64) {
        let last = self.epochs.entry(vm.to_owned()).or_default();
        *last = used.max(*last);
    }

    /// The state in `folder`, without a lock, since the file is replaced as a whole; the default if there is none.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is damaged, or was written by a newer release.
    pub(super) fn peek(folder: &PrivateFolder) -> Result<Self, Error> {
        let shown = folder.path().join(FILE);
        let failed = |source| Error::tracker("read tracker file", &shown, source);
        match read_state(&folder.at(FILE)) {
            Ok(state) => state.map_err(|reason| failed(io::Error::other(reason))),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(failed(source)),
        }
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        if let Ok(Version { version }) = serde_json::from_slice(text)
            && version > VERSION
        {
            return Err(Unreadable::Newer(version));
        }
        serde_json::from_slice::<Self>(text)
            .ok()
            .filter(|state| state.version == VERSION && state.has_dates())
            .ok_or(Unreadable::Damaged)
    }

    /// Whether all times can be ones, so that there is room for later ones.
    fn has_dates(&self) -> bool {
        let runs = self.chains.iter().flat_map(|chain| &chain.runs);
        let started = runs.map(|run| &run.started);
        let mut times = self.epochs.values().chain(started);
        times.all(|&time| time < END_OF_DATES)
    }

    pub(super) fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The chain of `key`; an empty one if there is none.
    pub(super) fn chain(&self, key: &ChainKey) -> Chain {
        let known = self.chains.iter().find(|chain| chain.key == *key);
        known.cloned().unwrap_or_else(|| Chain::new(key.clone()))
    }

    /// The chain of `key`, begun if there is none.
    pub(super) fn chain_mut(&mut self, key: &ChainKey) -> &mut Chain {
        let at = self
            .chains
            .iter()
            .position(|chain| chain.key == *key)
            .unwrap_or_else(|| {
                self.chains.push(Chain::new(key.clone()));
                self.chains.len() - 1
            });
        &mut self.chains[at]
    }
}

impl Tracker {
    pub(super) fn new(folder: PrivateFolder) -> Self {
        Self { folder }
    }

    /// The present state.
    pub(super) async fn read(&self, notices: &Notices) -> Result<State, Error> {
        let _lock = self.lock().await?;
        self.load(notices)
    }

    /// Reads, changes and replaces the file; no other job comes in between, in whatever process.
    pub(super) async fn update<T>(
        &self,
        notices: &Notices,
        change: impl FnOnce(&mut State) -> T,
    ) -> Result<T, Error> {
        let _lock = self.lock().await?;
        let mut state = self.load(notices)?;
        let result = change(&mut state);
        self.store(&state)?;
        Ok(result)
    }

    async fn lock(&self) -> Result<File, Error> {
        let failed = |source| self.failed("lock tracker file", LOCK, source);
        let file = self.open_or_make(LOCK).map_err(failed)?;
        let give_up = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                    sleep(LOCK_PAUSE).await;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(failed(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "another process has held it for 30 s",
                    )));
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }

    /// A file that cannot be understood is set aside: the tags of the snapshots tell the same. One of a newer version
    /// is left alone.
    fn load(&self, notices: &Notices) -> Result<State, Error> {
        let failed = |source| self.failed("read tracker file", FILE, source);
        match read_state(&self.folder.at(FILE)) {
            Ok(Ok(state)) => return Ok(state),
            Ok(Err(newer @ Unreadable::Newer(_))) => return Err(failed(io::Error::other(newer))),
            Ok(Err(Unreadable::Damaged)) => {}
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                return Ok(State::default());
            }
            Err(source) => return Err(failed(source)),
        }
        fs::rename(self.folder.at(FILE), self.folder.at(DAMAGED))
            .map_err(|source| self.failed("set aside tracker file", FILE, source))?;
        notices.warning(format!(
            "tracker file {} is damaged and was moved to {}; it is rebuilt from the tags of the snapshots",
            self.shown(FILE).display(),
            self.shown(DAMAGED).display()
        ));
        Ok(State::default())
    }

    fn store(&self, state: &State) -> Result<(), Error> {
        let failed = |source| self.failed("replace tracker file", FILE, source);
        let next = self.folder.at(NEXT);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut file = open_file(&mut options, &next).map_err(failed)?;
        let mut write = || {
            // In one piece: the serializer writes token by token.
            file.write_all(&serde_json::to_vec_pretty(state)?)?;
            file.sync_all()?;
            fs::rename(&next, self.folder.at(FILE))?;
            self.folder.sync()
        };
        write().map_err(|source| {
            // It takes up room where there may be none.
            fs::remove_file(&next).ok();
            failed(source)
        })
    }

    /// A file of the folder as people know it.
    fn shown(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    fn failed(&self, action: &'static str, name: &str, source: io::Error) -> Error {
        Error::tracker(action, &self.shown(name), source)
    }

    fn open_or_make(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        open_file(&mut options, &self.folder.at(name))
    }

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

/// What the tracker file at `path` holds.
fn read_state(path: &Path) -> io::Result<Result<State, Unreadable>> {
    let file = open_file(OpenOptions::new().read(true), path)?;
    let text = read_at_most(&file, LARGEST)?;
    Ok(text
        .ok_or(Unreadable::Damaged)
        .and_then(|text| State::parse(&text)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const HERE: &str = "75a0c7aa-4a0d-4cd1-8f0d-9d1b1a6d6a5e";

    impl Tracker {
        /// In a folder that is made if there is none.
        fn open(dir: &Path) -> io::Result<Self> {
            PrivateFolder::make(dir).map(Self::new)
        }

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
    async fn state_survives_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a");
        let notices = Notices::default();
        let tracker = Tracker::open(&dir).unwrap();
        let first = tracker
            .update(&notices, |state| state.reserve_epoch("vm", 100))
            .await
            .unwrap();
        let again = Tracker::open(&dir)
            .unwrap()
            .update(&notices, |state| state.reserve_epoch("vm", 50))
            .await
            .unwrap();
        assert_eq!((first, again), (100, 101));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("tracker.json")), 0o600);
        assert_eq!(mode(&dir.join("tracker.lock")), 0o600);
    }

    #[tokio::test]
    async fn what_a_dead_process_left_of_the_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::open(folder.path()).unwrap();
        let notices = Notices::default();
        let update = async || {
            let update = tracker.update(&notices, |state| state.reserve_epoch("vm", 0));
            update.await
        };
        let names = || {
            let files = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
            names.sort();
            names
        };
        // Killed in the midst of a longer one.
        fs::write(tracker.shown(NEXT), "x".repeat(1 << 16)).unwrap();
        assert_eq!(update().await.unwrap(), 1);
        assert_eq!(tracker.read(&notices).await.unwrap().epochs["vm"], 1);
        assert_eq!(names(), [FILE, LOCK]);

        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        symlink(elsewhere.path(), tracker.shown(NEXT)).unwrap();
        let refused = crate::notice::with_causes(&update().await.unwrap_err());
        assert!(refused.contains("symbolic link"), "{refused}");
        assert_eq!(elsewhere.path().metadata().unwrap().len(), 0);

        // A file that cannot be replaced leaves no half one.
        fs::remove_file(tracker.shown(NEXT)).unwrap();
        fs::remove_file(tracker.shown(FILE)).unwrap();
        fs::create_dir(tracker.shown(FILE)).unwrap();
        assert!(tracker.store(&State::default()).is_err());
        assert_eq!(names(), [FILE, LOCK]);
    }

    #[tokio::test]
    async fn concurrent_updates_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::open(folder.path()).unwrap();
        let notices = Notices::default();
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (tracker, notices) = (tracker.clone(), notices.clone());
                tokio::spawn(async move {
                    tracker
                        .update(&notices, |state| state.reserve_epoch("vm", 0))
                        .await
                })
            })
            .collect();
        let mut epochs = Vec::new();
        for task in tasks {
            epochs.push(task.await.unwrap().unwrap());
        }
        epochs.sort_unstable();
        assert_eq!(epochs, (1..=20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_and_a_newer_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::open(folder.path()).unwrap();
        let notices = Notices::default();
        fs::write(tracker.shown(FILE), "{ half").unwrap();
        assert_eq!(tracker.read(&notices).await.unwrap(), State::default());
        assert!(notices.pop().is_some());
        assert!(folder.path().join("tracker.damaged.json").exists());

        let edited = r#"{"version":1,"epochs":{"vm":18446744073709551615},"chains":[]}"#;
        fs::write(tracker.shown(FILE), edited).unwrap();
        assert_eq!(tracker.read(&notices).await.unwrap(), State::default());

        // Its holes take no room, and would take all memory.
        let large = File::create(tracker.shown(FILE)).unwrap();
        large.set_len(1 << 40).unwrap();
        assert!(State::peek(&tracker.folder).is_err());
        assert_eq!(tracker.read(&notices).await.unwrap(), State::default());
        assert!(!tracker.shown(FILE).exists());

        fs::write(tracker.shown(FILE), r#"{"version":2,"runs":[]}"#).unwrap();
        assert!(tracker.read(&notices).await.is_err());
        assert!(tracker.shown(FILE).exists());
    }

    #[tokio::test]
    async fn nothing_is_read_or_written_through_a_link() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        let refused = |error: Error| {
            let text = crate::notice::with_causes(&error);
            assert!(text.contains("symbolic link"), "{text}");
        };
        let notices = Notices::default();
        let run = run("job");
        for name in [FILE, NEXT, LOCK, &mark_name(&run, HERE)] {
            let tracker = Tracker::open(&at(&format!("of {name}"))).unwrap();
            symlink(at("elsewhere/x"), tracker.shown(name)).unwrap();
            if name == FILE || name == NEXT {
                if name == FILE {
                    refused(State::peek(&tracker.folder).unwrap_err());
                }
                let update = tracker.update(&notices, |state| state.reserve_epoch("vm", 1));
                refused(update.await.unwrap_err());
            } else {
                refused(tracker.mark(&run, HERE).await.unwrap_err());
            }
            assert!(tracker.shown(name).is_symlink(), "{name}");
        }
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
