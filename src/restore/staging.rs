//! The local folder of a restore: a file per image, private to the daemon's user, gone when the restore ends.
//!
//! An image that is known to be full becomes a sparse raw disk at once. All others are kept as blocks until
//! [`assemble`](super::assemble) knows what they apply to.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::PathBuf;

use nix::sys::statvfs::statvfs;

use super::Error;
use super::blocks::BlockWriter;
use super::sparse::clear_range;
use super::stale::{Mark, remove_images};
use crate::digests::{ImageHasher, Segments};
use crate::notice::Notices;
use crate::pipeline::ZeroBlocks;
use crate::private_folder::{PrivateFile, PrivateFolder};
use crate::range::ByteRange;

/// The staged images. Dropping it removes them; the folder with its mark stays as long as that names something in Azure.
#[derive(Debug)]
pub(super) struct Staging {
    /// The folder that holds those of all restores.
    parent: PrivateFolder,
    /// What the folder shall be called in it. If something has that name, it is made beside it: see [`Made`].
    name: OsString,
    keep: bool,
    notices: Notices,
    /// There once the folder was made.
    made: Option<Made>,
    /// By the last component of the catalog name, which begins with the epoch.
    images: BTreeMap<String, StagedImage>,
}

#[derive(Debug)]
struct Made {
    /// What the folder is called in it.
    name: OsString,
    folder: PrivateFolder,
    /// Says that the folder is in use.
    mark: Mark,
}

/// How an image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A sparse file like the disk.
    Disk,
    /// Block after block.
    Blocks,
}

/// An image on local disk.
#[derive(Debug)]
pub(super) struct StagedImage {
    file: PrivateFile,
    data: Data,
    /// Bytes of the disk.
    size: u64,
    /// End of the data that came last on the disk.
    end: u64,
    /// Of what came.
    hasher: ImageHasher,
    state: State,
}

/// The bytes of an image.
#[derive(Debug)]
pub(super) enum Data {
    Disk(RawDisk),
    Blocks(BlockWriter),
}

#[derive(Debug)]
enum State {
    Incoming,
    Complete,
    /// Why it is not.
    Incomplete(String),
}

/// A sparse local file with the bytes of a disk.
#[derive(Debug)]
pub(super) struct RawDisk {
    place: PrivateFile,
    file: File,
    size: u64,
}

impl Staging {
    /// Nothing is created before the first image.
    pub(super) fn new(parent: PrivateFolder, name: &str, keep: bool, notices: Notices) -> Self {
        Self {
            parent,
            name: name.into(),
            keep,
            notices,
            made: None,
            images: BTreeMap::new(),
        }
    }

    /// Says that the folder is in use, if there is one.
    pub(super) fn mark(&self) -> Option<&Mark> {
        self.made.as_ref().map(|made| &made.mark)
    }

    /// Checks that `needed` bytes are free where the folder is, or will be.
    ///
    /// # Errors
    ///
    /// [`Error::Space`].
    pub(super) fn check_space(&self, needed: u64) -> Result<(), Error> {
        let free = statvfs(&self.parent.at(""))
            .map_err(|errno| Error::local("read free space of", &self.shown(), errno.into()))?;
        let available = free.blocks_available().saturating_mul(free.fragment_size());
        if available < needed {
            return Err(Error::Space {
                dir: self.shown(),
                needed,
                available,
            });
        }
        Ok(())
    }

    /// The folder as people know it, if it is not made beside that.
    fn shown(&self) -> PathBuf {
        self.parent.path().join(&self.name)
    }

    /// Begins an image of `size` bytes; an incomplete one of this name is forgotten.
    ///
    /// # Errors
    ///
    /// A file or folder that cannot be made.
    pub(super) fn begin(&mut self, name: &str, size: u64, form: Form) -> Result<(), Error> {
        let folder = self.make_dir()?;
        self.discard(name);
        let (file, data) = match form {
            Form::Disk => {
                let file = folder.file(name);
                let disk = RawDisk::create(file.clone(), size)?;
                (file, Data::Disk(disk))
            }
            Form::Blocks => {
                let file = folder.file(format!("{name}.blocks"));
                let blocks = BlockWriter::new(create_file(&file)?);
                (file, Data::Blocks(blocks))
            }
        };
        let image = StagedImage {
            file,
            data,
            size,
            end: 0,
            hasher: ImageHasher::new(size),
            state: State::Incoming,
        };
        self.images.insert(name.to_owned(), image);
        Ok(())
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

    /// Takes an image out; its file stays.
    pub(super) fn take(&mut self, name: &str) -> Option<StagedImage> {
        self.images.remove(name)
    }

    /// Removes an image and its file.
    pub(super) fn discard(&mut self, name: &str) {
        if let Some(image) = self.images.remove(name)
            && let Err(error) = image.file.remove()
        {
            self.notices.error(format!(
                "remove staging file {}: {error}",
                image.file.shown().display()
            ));
        }
    }

    fn make_dir(&mut self) -> Result<PrivateFolder, Error> {
        if let Some(made) = &self.made {
            return Ok(made.folder.clone());
        }
        let failed = |source| Error::local("create staging folder", &self.shown(), source);
        let name = make_beside(&self.parent, &self.name).map_err(failed)?;
        let opened = self.parent.open_child(&name);
        match opened.and_then(|folder| Ok((Mark::set(&folder)?, folder))) {
            Ok((mark, folder)) => {
                self.made = Some(Made {
                    name,
                    folder: folder.clone(),
                    mark,
                });
                Ok(folder)
            }
            Err(error) => {
                let error = failed(error);
                // Empty, or it fails and says so with the error.
                drop(fs::remove_dir(self.parent.at(&name)));
                Err(error)
            }
        }
    }
}

/// Makes the folder `name`, or where something has that name `<name>-2`, and so on; says which. What is there is not used: it is
/// another restore's, was kept, or tells what a dead one has made. Numbers of jobs come again when the catalog is lost.
fn make_beside(parent: &PrivateFolder, name: &OsStr) -> io::Result<OsString> {
    let mut free = name.to_owned();
    let mut number = 1_u32;
    loop {
        match DirBuilder::new().mode(0o700).create(parent.at(&free)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| free),
        }
        number += 1;
        free = name.to_owned();
        free.push(format!("-{number}"));
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let Some(made) = self.made.take() else {
            return;
        };
        let shown = made.folder.path().display();
        let leaves_debris = made.mark.names_something();
        if self.keep {
            let until = match leaves_debris {
                true => ", until the next job clears what this restore has left",
                false => "",
            };
            if !leaves_debris {
                made.mark.remove();
            }
            self.notices
                .info(format!("staged images are kept in {shown}{until}"));
            return;
        }
        // The folder was made here, for nobody else.
        let removed = match leaves_debris {
            true => remove_images(&made.folder).map(|_| ()),
            false => fs::remove_dir_all(self.parent.at(&made.name)),
        };
        if let Err(error) = removed {
            self.notices
                .error(format!("remove staging folder {shown}: {error}"));
        }
    }
}

impl StagedImage {
    /// Bytes of the disk.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that came.
    pub(super) fn received(&self) -> u64 {
        self.hasher.taken()
    }

    /// Digests of what came.
    pub(super) fn segments(&self, zeros: ZeroBlocks) -> Segments {
        self.hasher.segments(zeros)
    }

    /// Why it cannot be used; `None` if it came to its end: its last block ends at the disk's end, and the host said
    /// that it is all.
    pub(super) fn fault(&self) -> Option<&str> {
        match &self.state {
            State::Incoming => Some("it was not ended"),
            State::Complete => None,
            State::Incomplete(reason) => Some(reason),
        }
    }

    /// # Errors
    ///
    /// Data beyond the end, a full disk.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let failed = |source| Error::local("write staging file", &self.file.shown(), source);
        let end = end_of(offset, data, self.size).map_err(failed)?;
        match &mut self.data {
            Data::Disk(disk) => disk.write(offset, data)?,
            Data::Blocks(blocks) => blocks.write(offset, data).map_err(failed)?,
        }
        self.end = self.end.max(end);
        self.hasher.update(offset, data);
        Ok(())
    }

    /// The last data came; whether that is all there must be, [`StagedImage::fault`] tells.
    ///
    /// # Errors
    ///
    /// A full disk.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        if let Data::Blocks(blocks) = &mut self.data {
            blocks
                .flush()
                .map_err(|source| Error::local("write staging file", &self.file.shown(), source))?;
        }
        // The last block of a disk is always sent.
        self.state = if self.end == self.size {
            State::Complete
        } else {
            State::Incomplete(format!(
                "its data ends at {} of {} bytes: the image on the volume is not complete",
                self.end, self.size
            ))
        };
        Ok(())
    }

    /// The file and the bytes in it.
    pub(super) fn into_parts(self) -> (PrivateFile, Data) {
        (self.file, self.data)
    }
}

impl RawDisk {
    /// A disk of zeros.
    ///
    /// # Errors
    ///
    /// A file that cannot be made, or that is there already.
    pub(super) fn create(place: PrivateFile, size: u64) -> Result<Self, Error> {
        let file = create_file(&place)?;
        let mut disk = Self {
            place,
            file,
            size: 0,
        };
        disk.grow(size)?;
        Ok(disk)
    }

    /// # Errors
    ///
    /// Data beyond the end, a full disk.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        end_of(offset, data, self.size)
            .and_then(|_end| self.file.write_all_at(data, offset))
            .map_err(|source| self.failed("write staging file", source))
    }

    /// Makes a range read as zeros.
    ///
    /// # Errors
    ///
    /// Beyond the end, a full disk.
    pub(super) fn clear(&self, range: ByteRange) -> Result<(), Error> {
        if range.end() > self.size {
            return Err(self.failed(
                "clear",
                io::Error::other(format!("{range} reaches beyond the end at {}", self.size)),
            ));
        }
        clear_range(&self.file, range)
            .map_err(|source| self.failed("clear a range of staging file", source))
    }

    /// Adds zeros at the end; never cuts.
    ///
    /// # Errors
    ///
    /// A size that the file system cannot do.
    pub(super) fn grow(&mut self, size: u64) -> Result<(), Error> {
        if size > self.size {
            self.file
                .set_len(size)
                .map_err(|source| self.failed("set the size of staging file", source))?;
            self.size = size;
        }
        Ok(())
    }

    /// # Errors
    ///
    /// A folder that cannot be written.
    pub(super) fn rename(&mut self, place: PrivateFile) -> Result<(), Error> {
        let renamed = self.place.rename(&place);
        renamed.map_err(|source| self.failed("rename staging file", source))?;
        self.place = place;
        Ok(())
    }

    /// Bytes of the disk.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// For reading.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::local(action, &self.place.shown(), source)
    }
}

/// Where `data` ends, if that is on the disk.
fn end_of(offset: u64, data: &[u8], size: u64) -> io::Result<u64> {
    u64::try_from(data.len())
        .ok()
        .and_then(|len| offset.checked_add(len))
        .filter(|&end| end <= size)
        .ok_or_else(|| {
            io::Error::other(format!(
                "{} bytes at {offset} reach beyond the image's end at {size}",
                data.len()
            ))
        })
}

fn create_file(file: &PrivateFile) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    let opened = file.open(&mut options);
    opened.map_err(|source| Error::local("create staging file", &file.shown(), source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::azure::ResourceId;

    /// Of the restore `name`, whose folder is made in `parent`.
    fn staging(parent: &Path, name: &str, keep: bool) -> Staging {
        let parent = PrivateFolder::open(parent).unwrap();
        Staging::new(parent, name, keep, Notices::default())
    }

    #[test]
    fn files_are_private_sparse_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("7");
        let mut staging = staging(folder.path(), "7", false);
        assert!(!dir.exists());
        staging.begin("1_osdisk", 1 << 40, Form::Disk).unwrap();
        staging.begin("2_osdisk", 1 << 40, Form::Blocks).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let modes =
            [&dir, &dir.join("1_osdisk"), &dir.join("2_osdisk.blocks")].map(|path| mode(path));
        assert_eq!(modes, [0o700, 0o600, 0o600]);
        drop(staging);
        assert!(!dir.exists());
    }

    #[test]
    fn images_can_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("7");
        let mut kept = staging(folder.path(), "7", true);
        kept.begin("1_osdisk", 512, Form::Disk).unwrap();
        drop(kept);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "the mark is gone");
        assert!(dir.join("1_osdisk").exists());
        staging(folder.path(), "8", false)
            .begin("1_osdisk", 512, Form::Disk)
            .unwrap();
        assert!(dir.exists(), "what was kept is not taken for debris");
    }

    #[test]
    fn a_folder_stays_as_long_as_its_mark_names_something() {
        let folder = tempfile::tempdir().unwrap();
        let id = ResourceId::new("s", "g", "Microsoft.Compute/disks", "d");
        for (number, keep, files) in [("1", false, 1), ("2", true, 2)] {
            let dir = folder.path().join(number);
            let mut left = staging(folder.path(), number, keep);
            left.begin("1_osdisk", 512, Form::Disk).unwrap();
            left.mark().unwrap().note(&id).unwrap();
            drop(left);
            assert_eq!(fs::read_dir(&dir).unwrap().count(), files);
            assert_eq!(dir.join("1_osdisk").exists(), keep);
        }
        let dir = folder.path().join("3");
        let mut good = staging(folder.path(), "3", false);
        good.begin("1_osdisk", 512, Form::Disk).unwrap();
        good.mark().unwrap().note(&id).unwrap();
        good.mark().unwrap().clear().unwrap();
        drop(good);
        assert!(!dir.exists());
    }

    #[test]
    fn an_image_is_complete_only_with_its_last_block() {
        let folder = tempfile::tempdir().unwrap();
        let mut staging = staging(folder.path(), "7", false);
        for form in [Form::Disk, Form::Blocks] {
            staging.begin("1_osdisk", 4096, form).unwrap();
            let image = staging.image_mut("1_osdisk").unwrap();
            let fault = |image: &mut StagedImage| {
                image.finish().unwrap();
                image.fault().map(ToOwned::to_owned)
            };
            assert!(image.fault().unwrap().contains("not ended"));
            assert!(fault(image).unwrap().contains("ends at 0 of 4096"));
            image.write(512, &[1; 512]).unwrap();
            assert!(fault(image).unwrap().contains("ends at 1024"));
            image.write(3584, &[1; 512]).unwrap();
            assert_eq!(fault(image), None);
            assert!(image.write(4096, &[1]).is_err());
            assert!(image.write(u64::MAX, &[1]).is_err());
        }
    }

    #[test]
    fn a_raw_disk_grows_and_is_cleared_within_its_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let place = PrivateFolder::open(folder.path()).unwrap();
        let mut disk = RawDisk::create(place.file("a"), 1 << 20).unwrap();
        disk.write(0, &[1; 1 << 20]).unwrap();
        disk.grow(512).unwrap();
        assert_eq!(disk.size(), 1 << 20, "never cut");
        disk.grow(2 << 20).unwrap();
        let range = |start, end| ByteRange::new(start, end).unwrap();
        disk.clear(range(512, (2 << 20) - 512)).unwrap();
        assert!(disk.clear(range(512, (2 << 20) + 1)).is_err());
        assert!(disk.write(2 << 20, &[1]).is_err());
        disk.rename(place.file("b")).unwrap();
        let mut expected = vec![0; 2 << 20];
        expected[..512].fill(1);
        assert!(fs::read(folder.path().join("b")).unwrap() == expected);
    }

    /// What has the name of the folder is left as it is, and the folder is made beside it.
    #[test]
    fn nothing_that_exists_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("7")).unwrap();
        fs::write(at("7-2"), "").unwrap();
        symlink("/nonexistent", at("7-3")).unwrap();
        let mut beside = staging(folder.path(), "7", false);
        beside.begin("1_osdisk", 512, Form::Disk).unwrap();
        assert!(at("7-4/1_osdisk").exists());
        drop(beside);
        assert!(!at("7-4").exists() && at("7-2").exists() && at("7-3").is_symlink());
        assert_eq!(fs::read_dir(at("7")).unwrap().count(), 0);
    }

    /// Whoever exchanges the state folder, or the folder of restores in it, does not choose what is written and removed: neither before
    /// the first image, nor after it.
    #[test]
    fn nothing_is_written_or_removed_elsewhere() {
        for (exchanged, is_made) in [("ours", false), ("ours", true), ("ours/restore", true)] {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            let state = PrivateFolder::make(&at("ours")).unwrap();
            let parent = state.make_child("restore").unwrap();
            let mut staging = Staging::new(parent, "7", false, Notices::default());
            if is_made {
                staging.begin("1_osdisk", 512, Form::Disk).unwrap();
            }
            // Both ways, whichever is exchanged.
            fs::create_dir_all(at("victim/restore/7")).unwrap();
            fs::create_dir(at("victim/7")).unwrap();
            fs::rename(at(exchanged), at("away")).unwrap();
            symlink(at("victim"), at(exchanged)).unwrap();

            staging.begin("2_osdisk", 512, Form::Blocks).unwrap();
            staging.check_space(1).unwrap();
            let away = match exchanged {
                "ours" => at("away/restore/7"),
                _ => at("away/7"),
            };
            assert!(away.join("2_osdisk.blocks").exists());
            let untouched = || {
                for (name, files) in [
                    ("victim/restore", 1),
                    ("victim/restore/7", 0),
                    ("victim/7", 0),
                ] {
                    let count = fs::read_dir(at(name)).unwrap().count();
                    assert_eq!(count, files, "{name} when {exchanged} is exchanged");
                }
            };
            untouched();
            drop(staging);
            assert!(!away.exists());
            untouched();
        }
    }

    #[test]
    fn too_little_space_is_said_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let staging = staging(folder.path(), "7", false);
        assert!(staging.check_space(1).is_ok());
        let error = staging.check_space(u64::MAX).unwrap_err();
        assert!(
            matches!(
                &error,
                Error::Space {
                    dir,
                    needed: u64::MAX,
                    ..
                } if *dir == folder.path().join("7")
            ),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
