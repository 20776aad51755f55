//! The local folder of a restore: one sparse file per image, private to the daemon's user, gone when the restore ends.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;
use nix::sys::statvfs::statvfs;

use super::Error;
use crate::notice::Notices;

/// The staged images. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Staging {
    dir: PathBuf,
    keep: bool,
    notices: Notices,
    /// Whether the folder was made here.
    made: bool,
    /// By the last component of the catalog name, which begins with the epoch.
    images: BTreeMap<String, StagedImage>,
}

/// An image on local disk.
#[derive(Debug)]
pub(super) struct StagedImage {
    path: PathBuf,
    file: File,
    /// Bytes of the disk.
    size: u64,
    /// End of the data that came last on the disk.
    end: u64,
    complete: bool,
}

impl Staging {
    /// Nothing is created before the first image.
    pub(super) fn new(dir: PathBuf, keep: bool, notices: Notices) -> Self {
        Self {
            dir,
            keep,
            notices,
            made: false,
            images: BTreeMap::new(),
        }
    }

    /// Checks that `needed` bytes are free where the folder is, or will be.
    ///
    /// # Errors
    ///
    /// [`Error::Space`].
    pub(super) fn check_space(&self, needed: u64) -> Result<(), Error> {
        // The nearest ancestor that exists is on the file system that counts.
        let existing = self
            .dir
            .ancestors()
            .find(|dir| dir.exists())
            .unwrap_or(Path::new("/"));
        let free = statvfs(existing).map_err(|errno| self.failed("read free space of", errno))?;
        let available = free.blocks_available().saturating_mul(free.fragment_size());
        if available < needed {
            return Err(Error::Space {
                dir: self.dir.clone(),
                needed,
                available,
            });
        }
        Ok(())
    }

    /// Begins an image of `size` bytes, all zeros so far.
    ///
    /// # Errors
    ///
    /// A file or folder that cannot be made, or that is there already.
    pub(super) fn begin(&mut self, name: &str, size: u64) -> Result<(), Error> {
        self.make_dir()?;
        let path = self.dir.join(name);
        let failed = |source| Error::local("create staging file", &path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(O_NOFOLLOW)
            .open(&path)
            .map_err(failed)?;
        let length = file.set_len(size);
        let image = StagedImage {
            path: path.clone(),
            file,
            size,
            end: 0,
            complete: false,
        };
        // Held from here on, so that it is removed whatever follows.
        self.images.insert(name.to_owned(), image);
        length.map_err(failed)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.images.keys().map(String::as_str)
    }

    pub(super) fn image(&self, name: &str) -> Option<&StagedImage> {
        self.images.get(name)
    }

    pub(super) fn image_mut(&mut self, name: &str) -> Option<&mut StagedImage> {
        self.images.get_mut(name)
    }

    /// Removes the images that `keep` does not want; their names.
    pub(super) fn discard(&mut self, mut keep: impl FnMut(&str) -> bool) -> Vec<String> {
        let unwanted: Vec<_> = self
            .images
            .keys()
            .filter(|name| !keep(name))
            .cloned()
            .collect();
        for name in &unwanted {
            if let Some(image) = self.images.remove(name) {
                self.remove(&image);
            }
        }
        unwanted
    }

    fn make_dir(&mut self) -> Result<(), Error> {
        if self.made {
            return Ok(());
        }
        let failed = |source| Error::local("create staging folder", &self.dir, source);
        if let Some(parent) = self.dir.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(failed)?;
        }
        // Not recursive: the folder of another restore, or one that somebody else made, is not used.
        DirBuilder::new()
            .mode(0o700)
            .create(&self.dir)
            .map_err(failed)?;
        self.made = true;
        Ok(())
    }

    fn remove(&self, image: &StagedImage) {
        if let Err(error) = fs::remove_file(&image.path) {
            self.notices.error(format!(
                "remove staging file {}: {error}",
                image.path.display()
            ));
        }
    }

    fn failed(&self, action: &'static str, errno: nix::errno::Errno) -> Error {
        Error::local(action, &self.dir, errno.into())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.made {
            return;
        }
        if self.keep {
            self.notices
                .info(format!("staged images are kept in {}", self.dir.display()));
            return;
        }
        for image in self.images.values() {
            self.remove(image);
        }
        if let Err(error) = fs::remove_dir(&self.dir) {
            self.notices.error(format!(
                "remove staging folder {}: {error}",
                self.dir.display()
            ));
        }
    }
}

impl StagedImage {
    /// Bytes of the disk.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the image came to its end: its last block ends at the disk's end, and the host said that it is all.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// # Errors
    ///
    /// Data beyond the end, a full disk.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let failed = |source| Error::local("write staging file", &self.path, source);
        let end = u64::try_from(data.len())
            .ok()
            .and_then(|len| offset.checked_add(len))
            .filter(|&end| end <= self.size)
            .ok_or_else(|| {
                failed(io::Error::other(format!(
                    "{} bytes at {offset} reach beyond the image's end at {}",
                    data.len(),
                    self.size
                )))
            })?;
        self.file.write_all_at(data, offset).map_err(failed)?;
        self.end = self.end.max(end);
        Ok(())
    }

    /// # Errors
    ///
    /// The last block of the disk, which is always sent, did not come: where the data ended.
    pub(super) fn finish(&mut self) -> Result<(), u64> {
        self.complete = self.end == self.size;
        if self.complete { Ok(()) } else { Err(self.end) }
    }

    /// A handle of its own for reading.
    ///
    /// # Errors
    ///
    /// No more file descriptors.
    pub(super) fn reader(&self) -> Result<File, Error> {
        self.file
            .try_clone()
            .map_err(|source| Error::local("open staging file", &self.path, source))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn staging(dir: &Path, keep: bool) -> Staging {
        Staging::new(dir.to_owned(), keep, Notices::default())
    }

    #[test]
    fn files_are_private_sparse_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/7");
        let mut staging = staging(&dir, false);
        assert!(!dir.exists());
        staging.begin("1_osdisk", 1 << 40).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("1_osdisk"))), (0o700, 0o600));
        drop(staging);
        assert!(!dir.exists());
        assert!(folder.path().join("a").exists());
    }

    #[test]
    fn images_can_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("7");
        staging(&dir, true).begin("1_osdisk", 512).unwrap();
        assert!(dir.join("1_osdisk").exists());
    }

    #[test]
    fn an_image_is_complete_only_with_its_last_block() {
        let folder = tempfile::tempdir().unwrap();
        let mut staging = staging(&folder.path().join("7"), false);
        staging.begin("1_osdisk", 4096).unwrap();
        let image = staging.image_mut("1_osdisk").unwrap();
        assert_eq!(image.finish(), Err(0));
        image.write(512, &[1; 512]).unwrap();
        assert_eq!(image.finish(), Err(1024));
        image.write(3584, &[1; 512]).unwrap();
        assert_eq!(image.finish(), Ok(()));
        assert!(image.write(4096, &[1]).is_err());
        assert!(image.write(u64::MAX, &[1]).is_err());
    }

    #[test]
    fn nothing_that_exists_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("7");
        fs::create_dir(&dir).unwrap();
        assert!(staging(&dir, false).begin("1_osdisk", 512).is_err());
        assert!(dir.exists(), "it is somebody else's");

        let link = folder.path().join("8");
        symlink("/nonexistent", &link).unwrap();
        assert!(staging(&link, false).begin("1_osdisk", 512).is_err());
    }

    #[test]
    fn too_little_space_is_said_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let staging = staging(&folder.path().join("not/yet/there"), false);
        assert!(staging.check_space(1).is_ok());
        let error = staging.check_space(u64::MAX).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Space {
                    needed: u64::MAX,
                    ..
                }
            ),
            "{error}"
        );
    }
}
