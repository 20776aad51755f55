//! Files on their way to a folder.
//!
//! The files of a VM, or a single image, appear together and complete, or not at all: they are written under temporary names, and named only
//! when the last one is on disk. Nothing that exists is overwritten. Files are readable by their owner only, since they
//! hold the disks of a machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use azure_vm_fd::range::ByteRange;
use azure_vm_fd::restore::clear_range;
use tempfile::NamedTempFile;

use crate::failure::Failure;

/// Files that belong together; dropped uncommitted, they and the folders made for them vanish.
pub(crate) struct IncomingFiles {
    files: Vec<(NamedTempFile, PathBuf)>,
    made: MadeFolders,
}

/// A file that is being filled.
pub(crate) struct Incoming<'a> {
    file: &'a File,
    path: &'a Path,
}

/// Folders made on the way, outermost first; those still empty are removed on drop.
#[derive(Default)]
struct MadeFolders(Vec<PathBuf>);

impl IncomingFiles {
    pub(crate) fn new() -> Self {
        Self {
            files: Vec::new(),
            made: MadeFolders::default(),
        }
    }

    /// Begins the file that will be `path`, sparse and `size` bytes long.
    ///
    /// # Errors
    ///
    /// `path` exists; the folder or the file cannot be made.
    pub(crate) fn create(&mut self, path: PathBuf, size: u64) -> Result<Incoming<'_>, Failure> {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::failed(format!(
                "create file {}: it exists, and nothing is overwritten; choose another folder",
                path.display()
            )));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        self.made.ensure(folder)?;
        let file = tempfile::Builder::new()
            .prefix(".")
            .suffix(".partial")
            .tempfile_in(folder)
            .map_err(|error| Failure::local("create a file in", folder, &error))?;
        file.as_file()
            .set_len(size)
            .map_err(|error| Failure::local("set the size of file", &path, &error))?;
        self.files.push((file, path));
        let (file, path) = &self.files[self.files.len() - 1];
        Ok(Incoming {
            file: file.as_file(),
            path,
        })
    }

    /// Makes all files durable, then gives them their names.
    ///
    /// # Errors
    ///
    /// The disk is full; a name was taken meanwhile. No file is left then.
    pub(crate) fn commit(mut self) -> Result<Vec<PathBuf>, Failure> {
        for (file, path) in &self.files {
            file.as_file()
                .sync_all()
                .map_err(|error| Failure::local("write file", path, &error))?;
        }
        let mut named = Vec::new();
        for (file, path) in self.files.drain(..) {
            match file.persist_noclobber(&path) {
                Ok(_) => named.push(path),
                Err(error) => {
                    for path in &named {
                        drop(fs::remove_file(path));
                    }
                    return Err(Failure::local("name file", &path, &error.error));
                }
            }
        }
        sync_folders(&named)?;
        Ok(named)
    }
}

impl Incoming<'_> {
    /// Writes `data` at `offset` bytes.
    ///
    /// # Errors
    ///
    /// The disk is full or broken.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all_at(data, offset)
            .map_err(|error| Failure::local("write file", self.path, &error))
    }

    /// Makes `range` read as zeros: a hole, or zeros where the file system knows no holes.
    ///
    /// # Errors
    ///
    /// The disk is full or broken.
    pub(crate) fn clear(&self, range: ByteRange) -> Result<(), Failure> {
        clear_range(self.file, range)
            .map_err(|error| Failure::local("write file", self.path, &error))
    }
}

impl MadeFolders {
    fn ensure(&mut self, folder: &Path) -> Result<(), Failure> {
        let missing: Vec<_> = folder
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .map(Path::to_owned)
            .collect();
        for path in missing.into_iter().rev() {
            match fs::create_dir(&path) {
                Ok(()) => self.0.push(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::local("create folder", &path, &error)),
            }
        }
        Ok(())
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // Fails, as it should, on a folder that holds something by now.
            drop(fs::remove_dir(path));
        }
    }
}

/// A name is durable once its folder is.
fn sync_folders(files: &[PathBuf]) -> Result<(), Failure> {
    let mut folders: Vec<_> = files.iter().filter_map(|path| path.parent()).collect();
    folders.dedup();
    for folder in folders {
        File::open(folder)
            .and_then(|opened| opened.sync_all())
            .map_err(|error| Failure::local("write folder", folder, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_together_at_commit() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("x/y/a"), dir.path().join("x/b"));
        let mut vm = IncomingFiles::new();
        vm.create(a.clone(), 4).unwrap().write(1, b"hi").unwrap();
        vm.create(b.clone(), 0).unwrap();
        assert!(!a.exists() && !b.exists());
        vm.commit().unwrap();
        assert_eq!(fs::read(&a).unwrap(), b"\0hi\0");
        assert_eq!(fs::read(&b).unwrap(), b"");
        assert_eq!(
            fs::read_dir(dir.path().join("x")).unwrap().count(),
            2,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_dropped_vm_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut vm = IncomingFiles::new();
        vm.create(dir.path().join("x/y/a"), 4).unwrap();
        drop(vm);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn existing_files_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let mut vm = IncomingFiles::new();
        vm.create(a.clone(), 1).unwrap();
        vm.create(b.clone(), 1).unwrap();
        fs::write(&b, "mine").unwrap();
        assert!(vm.create(b.clone(), 1).is_err());
        let error = vm.commit().unwrap_err();
        assert!(error.text.contains("name file"), "{}", error.text);
        assert_eq!(fs::read(&b).unwrap(), b"mine");
        assert!(!a.exists(), "the other file of the VM is gone as well");
    }
}
