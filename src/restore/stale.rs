//! Staging folders of restores that died (power loss, `kill -9`): recognised by a mark that nobody holds any more.
//!
//! A folder in use has a locked mark in it; the system takes the lock away when its process ends. A folder without a
//! mark is not ours to remove: its images were kept on purpose, or somebody else made it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;

use crate::notice::Notices;

const NAME: &str = "in-use";

/// Says that a folder is in use.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

impl Mark {
    /// Marks `folder`, which has no mark.
    ///
    /// # Errors
    ///
    /// The file system refuses, or has no locks.
    pub(super) fn set(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        // Appears locked, so that nobody takes it for a dead one in between.
        let hidden = folder.join(format!(".{NAME}"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(O_NOFOLLOW)
            .open(&hidden)?;
        let marked = file
            .try_lock()
            .map_err(io::Error::from)
            .and_then(|()| fs::rename(&hidden, &path));
        if let Err(error) = marked {
            drop(fs::remove_file(&hidden));
            return Err(error);
        }
        Ok(Self { path, _file: file })
    }

    /// The folder stays, and is not in use any more.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("remove {}: {error}", self.path.display());
        }
    }
}

/// Removes the folders below `parent` whose restore died. What cannot be removed is a warning: it does not keep a
/// restore from going on.
pub(super) fn remove_folders(parent: &Path, notices: &Notices) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for folder in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if !is_dead(&folder) {
            continue;
        }
        let shown = folder.display();
        match fs::remove_dir_all(&folder) {
            Ok(()) => notices.info(format!(
                "local images of a restore that ended without a clean-up are removed: {shown}"
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => notices.warning(format!(
                "remove {shown}, which a dead restore has left: {error}"
            )),
        }
    }
}

fn is_dead(folder: &Path) -> bool {
    let mark = OpenOptions::new()
        .read(true)
        .custom_flags(O_NOFOLLOW)
        .open(folder.join(NAME));
    mark.is_ok_and(|mark| mark.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_the_dead_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = parent.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("1_osdisk"), "bytes").unwrap();
            folder
        };
        let (alive, dead, kept, foreign) =
            (folder("1"), folder("2"), folder("3"), folder("foreign"));
        let held = Mark::set(&alive).unwrap();
        drop(Mark::set(&dead).unwrap());
        Mark::set(&kept).unwrap().remove();
        let notices = Notices::default();
        remove_folders(parent.path(), &notices);
        assert!(alive.exists() && kept.exists() && foreign.exists());
        assert!(!dead.exists());
        let notice = notices.pop().unwrap();
        assert!(notice.text.contains(&dead.display().to_string()));
        assert_eq!(notices.pop(), None);
        assert!(Mark::set(&alive).is_ok_and(|_second| !is_dead(&kept)));
        drop(held);
    }
}
