//! Our folders below the File Daemon's working directory, and the files in them: for the daemon's user alone.
//!
//! Others may be able to write into the working directory itself: Debian's belongs to the user of Director and Storage Daemon,
//! while the File Daemon is root. So a folder is never a symbolic link, belongs to us, and nobody else may write into it; and
//! it stays open while it is in use. What is in it, files and folders, is reached through the open folder (`at`), so that
//! whoever puts something else in its place meanwhile leads nobody astray. A path is resolved once, for the outermost folder:
//! code that works in a folder takes a [`PrivateFolder`].

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

/// A folder that is no symbolic link, and that only this user may write into; open.
#[derive(Clone, Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    handle: Arc<File>,
}

impl PrivateFolder {
    /// Opens `path`; it is made, mode 0700, if it does not exist. What its parents are is up to the caller.
    ///
    /// # Errors
    ///
    /// It cannot be made, is no folder or a symbolic link, belongs to somebody else, or others may write into it.
    pub fn make(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
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
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = Self::open_to_read(path)?;
        let metadata = folder.handle.metadata()?;
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
        Ok(folder)
    }

    /// Opens `path`; `None` if nothing is there.
    ///
    /// # Errors
    ///
    /// As for [`PrivateFolder::open`].
    pub(crate) fn find(path: &Path) -> io::Result<Option<Self>> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Opens `path`, whoever may write into it: for somebody who only shows what another user's daemon keeps there.
    ///
    /// # Errors
    ///
    /// It is no folder or a symbolic link, or the system refuses.
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(O_DIRECTORY | O_NOFOLLOW)
            .open(path)
            .map_err(|error| match path.symlink_metadata() {
                Ok(found) if found.is_symlink() => io::Error::other(LINK),
                Ok(_) | Err(_) => error,
            })?;
        Ok(Self {
            path: path.to_owned(),
            handle: Arc::new(handle),
        })
    }

    /// Opens the folder `name` in it, which is made if it does not exist.
    ///
    /// # Errors
    ///
    /// As for [`PrivateFolder::make`].
    pub(crate) fn make_child(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        self.child(name, Self::make)
    }

    /// Opens the folder `name` in it, which exists.
    ///
    /// # Errors
    ///
    /// As for [`PrivateFolder::make`].
    pub(crate) fn open_child(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        self.child(name, Self::open)
    }

    fn child(
        &self,
        name: impl AsRef<Path>,
        open: impl FnOnce(&Path) -> io::Result<Self>,
    ) -> io::Result<Self> {
        let child = open(&self.at(&name))?;
        Ok(Self {
            path: self.path.join(name),
            ..child
        })
    }

    /// The folder as people know it, for messages.
    pub fn path(&self) -> &Path {
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

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn a_folder_is_ours_alone_or_refused() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        assert!(PrivateFolder::find(&at("a")).unwrap().is_none());
        let folder = PrivateFolder::make(&at("a")).unwrap();
        assert_eq!(mode(folder.path()), 0o700);
        PrivateFolder::make(folder.path()).unwrap();
        PrivateFolder::find(folder.path()).unwrap().unwrap();

        symlink(at("a"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        for name in ["link", "dangling"] {
            assert_eq!(refused(&at(name)), LINK);
            for open in [PrivateFolder::open, PrivateFolder::open_to_read] {
                assert_eq!(open(&at(name)).unwrap_err().to_string(), LINK);
            }
            let found = PrivateFolder::find(&at(name));
            assert_eq!(found.unwrap_err().to_string(), LINK);
        }
        assert!(!at("nowhere").exists());
        fs::write(at("file"), "").unwrap();
        assert!(refused(&at("file")).contains("Not a directory"));
        // Nobody's word is taken for what would have to be made on the way.
        assert!(refused(&at("nowhere/a")).contains("No such file"));
        assert!(!at("nowhere").exists());
        for (mode, writable) in [(0o720, true), (0o702, true), (0o755, false)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            match PrivateFolder::make(folder.path()) {
                Ok(_) => assert!(!writable, "{mode:o}"),
                Err(error) => assert!(
                    writable && error.to_string().starts_with("others may write into it"),
                    "{mode:o}: {error}"
                ),
            }
            PrivateFolder::open_to_read(folder.path()).unwrap();
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
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        let folder = PrivateFolder::make(&at("ours")).unwrap();
        fs::rename(at("ours"), at("away")).unwrap();
        symlink(at("elsewhere"), at("ours")).unwrap();

        let mut options = OpenOptions::new();
        let file = folder.file("file");
        let opened = file.open(options.write(true).create(true));
        opened.unwrap().write_all(b"text").unwrap();
        folder.sync().unwrap();
        let child = folder.make_child("child").unwrap();
        // People know it by the name that it had.
        assert_eq!(child.path(), at("ours/child"));
        let mut options = OpenOptions::new();
        let inner = child.file("inner");
        inner.open(options.write(true).create_new(true)).unwrap();
        assert_eq!(fs::read(at("away/file")).unwrap(), b"text");
        let made = ["away/file", "away/child", "away/child/inner"].map(|name| mode(&at(name)));
        assert_eq!(made, [0o600, 0o700, 0o600]);

        // The same names there are not meant.
        fs::create_dir(at("elsewhere/child")).unwrap();
        fs::write(at("elsewhere/file"), "").unwrap();
        folder
            .open_child("child")
            .unwrap()
            .file("inner")
            .remove()
            .unwrap();
        file.rename(&file.sibling("renamed")).unwrap();
        assert!(!at("away/child/inner").exists() && at("away/renamed").exists());
        assert!(at("elsewhere/file").exists() && !at("elsewhere/renamed").exists());
        assert_eq!(fs::read_dir(at("elsewhere/child")).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_in_it_is_no_link_either() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        let folder = PrivateFolder::make(&at("ours")).unwrap();
        symlink(at("elsewhere"), at("ours/link")).unwrap();
        for child in [folder.make_child("link"), folder.open_child("link")] {
            assert_eq!(child.unwrap_err().to_string(), LINK);
        }
        let absent = folder.open_child("absent").unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
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
