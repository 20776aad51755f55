//! Our folders below the File Daemon's working directory, and the files in them: for the daemon's user alone.
//!
//! Others may be able to write into the working directory itself: Debian's belongs to the user of Director and Storage Daemon,
//! while the File Daemon is root. So a folder is never a symbolic link, belongs to us, and nobody else may write into it; and
//! it stays open while it is in use. Its files are reached through the open folder ([`PrivateFolder::at`]), so that whoever puts
//! something else in its place meanwhile leads nobody astray.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc::{ELOOP, O_DIRECTORY, O_NOFOLLOW};
use nix::unistd::geteuid;

const LINK: &str = "it is a symbolic link, and none is followed here";

/// A folder that only this user may write into; open.
#[derive(Clone, Debug)]
pub(crate) struct PrivateFolder {
    path: PathBuf,
    handle: Arc<File>,
}

impl PrivateFolder {
    /// Opens `path`; it and its parents are made, mode 0700, if they do not exist.
    ///
    /// # Errors
    ///
    /// It cannot be made, is no folder or a symbolic link, belongs to somebody else, or others may write into it.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            // What is there instead, `open` tells.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Self::open(path),
        }
    }

    /// Opens `path`, which exists.
    ///
    /// # Errors
    ///
    /// As for [`PrivateFolder::make`].
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(O_DIRECTORY | O_NOFOLLOW)
            .open(path)
            .map_err(|error| match path.symlink_metadata() {
                Ok(found) if found.is_symlink() => io::Error::other(LINK),
                Ok(_) | Err(_) => error,
            })?;
        let metadata = handle.metadata()?;
        let (owner, user) = (metadata.uid(), geteuid().as_raw());
        if owner != user {
            return Err(io::Error::other(format!(
                "it belongs to user {owner}, and not to user {user}, as whom this process runs"
            )));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(io::Error::other(format!(
                "others may write into it (mode {:04o}): see that nobody did, then give it mode 0700",
                metadata.mode() & 0o7777
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            handle: Arc::new(handle),
        })
    }

    /// Opens the folder `name` in it.
    ///
    /// # Errors
    ///
    /// As for [`PrivateFolder::make`].
    pub(crate) fn open_child(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        let path = self.path.join(&name);
        let child = Self::open(&self.at(name))?;
        Ok(Self { path, ..child })
    }

    /// The folder as people know it, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where `name` in it is, as long as this value lives: through the open folder, whatever bears its name by now.
    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.handle.as_raw_fd().to_string())
            .join(name)
    }

    /// A file in it.
    pub(crate) fn file(&self, name: impl Into<OsString>) -> PrivateFile {
        PrivateFile {
            folder: self.clone(),
            name: name.into(),
        }
    }

    /// What was made, renamed or removed in it is on disk when this returns.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// A file in a [`PrivateFolder`], which it keeps open; whether it exists is another question.
#[derive(Clone, Debug)]
pub(crate) struct PrivateFile {
    folder: PrivateFolder,
    name: OsString,
}

impl PrivateFile {
    /// Another one in the same folder.
    pub(crate) fn sibling(&self, name: impl Into<OsString>) -> Self {
        self.folder.file(name)
    }

    /// The file as people know it, for messages.
    pub(crate) fn shown(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// As [`open_file`].
    ///
    /// # Errors
    ///
    /// As for [`open_file`].
    pub(crate) fn open(&self, options: &mut OpenOptions) -> io::Result<File> {
        open_file(options, &self.folder.at(&self.name))
    }

    /// Gives it the name of `other`.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(crate) fn rename(&self, other: &Self) -> io::Result<()> {
        let (folder, new) = (&self.folder, &other.folder);
        fs::rename(folder.at(&self.name), new.at(&other.name))
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_file(self.folder.at(&self.name))
    }
}

/// Opens a file as `options` say; mode 0600 if it is made, and never through a symbolic link.
///
/// # Errors
///
/// It is a symbolic link, or the system refuses.
pub(crate) fn open_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let opened = options.mode(0o600).custom_flags(O_NOFOLLOW).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(ELOOP) => io::Error::other(LINK),
        _ => error,
    })
}

/// Reads a file of at most `largest` bytes; `None` if it is larger.
///
/// # Errors
///
/// The system refuses.
pub(crate) fn read_at_most(file: &File, largest: u64) -> io::Result<Option<Vec<u8>>> {
    if file.metadata()?.len() > largest {
        return Ok(None);
    }
    // It may grow meanwhile.
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= largest).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn refused(path: &Path) -> String {
        PrivateFolder::make(path).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_is_ours_alone_or_refused() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let folder = PrivateFolder::make(&at("a/b")).unwrap();
        for dir in [at("a"), at("a/b")] {
            assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o700);
        }
        PrivateFolder::make(folder.path()).unwrap();

        symlink(at("a/b"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        for name in ["link", "dangling"] {
            assert_eq!(refused(&at(name)), LINK);
        }
        assert!(!at("nowhere").exists());
        fs::write(at("file"), "").unwrap();
        assert!(refused(&at("file")).contains("Not a directory"));
        for (mode, writable) in [(0o720, true), (0o702, true), (0o755, false)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            match PrivateFolder::make(folder.path()) {
                Ok(_) => assert!(!writable, "{mode:o}"),
                Err(error) => assert!(
                    writable && error.to_string().starts_with("others may write into it"),
                    "{mode:o}: {error}"
                ),
            }
        }
        // The root folder is nobody's but root's, and root may be given away.
        if geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(12345), None).unwrap();
            assert!(refused(folder.path()).starts_with("it belongs to user 12345"));
        } else {
            assert!(refused(Path::new("/")).starts_with("it belongs to user 0"));
        }
    }

    #[test]
    fn what_takes_its_name_meanwhile_leads_nowhere() {
        let place = tempfile::tempdir().unwrap();
        let (ours, away) = (place.path().join("ours"), place.path().join("away"));
        let elsewhere = place.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let folder = PrivateFolder::make(&ours).unwrap();
        fs::rename(&ours, &away).unwrap();
        symlink(&elsewhere, &ours).unwrap();
        let mut options = OpenOptions::new();
        let file = open_file(options.write(true).create(true), &folder.at("file"));
        file.unwrap().write_all(b"text").unwrap();
        folder.sync().unwrap();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        let written = away.join("file");
        assert_eq!(fs::read(&written).unwrap(), b"text");
        assert_eq!(written.metadata().unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn of_what_is_too_large_nothing_is_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(7).unwrap();
        let read = |largest| read_at_most(&file, largest).unwrap();
        assert_eq!(read(6), None);
        assert_eq!(read(7), Some(vec![0; 7]));
        // It has no length that could be asked for.
        let endless = File::open("/dev/zero").unwrap();
        assert_eq!(read_at_most(&endless, 1000).unwrap(), None);
    }

    #[test]
    fn files_are_not_opened_through_links() {
        let place = tempfile::tempdir().unwrap();
        let (target, link) = (place.path().join("target"), place.path().join("link"));
        symlink(&target, &link).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let open = || {
            open_file(&mut options.clone(), &link)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(open(), LINK);
        assert!(!target.exists());
        fs::write(&target, "x").unwrap();
        assert_eq!(open(), LINK);
    }
}
