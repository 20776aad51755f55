//! The tracker file: what is known of each job's chain of snapshots.
//!
//! ```text
//! <state_dir>/tracker.json    epochs and chains; replaced atomically under a lock
//! <state_dir>/tracker.lock    held while the file is read, changed and replaced, also by other processes
//! ```
//!
//! What neither this file nor the [marks](super::marks) beside it know was saved by another daemon, or the folder was lost: the tags of
//! the snapshots decide then. Folder and files are private to the daemon's user.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::Error;
use super::chain::{Chain, ChainKey};
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
/// The lock is held for the time of one small file's replacement; another holder that takes longer is stuck.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The tracker of one state folder.
#[derive(Clone, Debug)]
pub(super) struct Tracker {
    pub(super) folder: PrivateFolder,
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

    pub(super) async fn lock(&self) -> Result<File, Error> {
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
    pub(super) fn shown(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn failed(&self, action: &'static str, name: &str, source: io::Error) -> Error {
        Error::tracker(action, &self.shown(name), source)
    }

    pub(super) fn open_or_make(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        open_file(&mut options, &self.folder.at(name))
    }
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

    impl Tracker {
        /// In a folder that is made if there is none.
        pub(in crate::backup) fn open(dir: &Path) -> io::Result<Self> {
            PrivateFolder::make(dir).map(Self::new)
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
        for name in [FILE, NEXT, LOCK] {
            let tracker = Tracker::open(&at(&format!("of {name}"))).unwrap();
            symlink(at("elsewhere/x"), tracker.shown(name)).unwrap();
            if name == FILE {
                refused(State::peek(&tracker.folder).unwrap_err());
            }
            let update = tracker.update(&notices, |state| state.reserve_epoch("vm", 1));
            refused(update.await.unwrap_err());
            assert!(tracker.shown(name).is_symlink(), "{name}");
        }
        assert_eq!(fs::read_dir(at("elsewhere")).unwrap().count(), 0);
    }
}
