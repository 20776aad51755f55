//! Disks as a guest would have them: sparse raw files, one with a partition table and a file system, others with
//! patterned contents that show any misplaced byte.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use mock_server::{KIB, MIB, pattern};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use serde_json::Value;

use crate::tool::{run, tool};

/// Where the partition starts: 1 MiB, as installers put it.
const PARTITION_OFFSET: u64 = MIB;

/// A sparse raw disk image in a file.
#[derive(Debug)]
pub struct GuestDisk {
    path: PathBuf,
    file: File,
    size: u64,
}

impl GuestDisk {
    /// An empty disk of `size` bytes.
    ///
    /// # Errors
    ///
    /// The file cannot be created.
    pub fn empty(path: &Path, size: u64) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .with_context(|| format!("create {}", path.display()))?;
        file.set_len(size)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            size,
        })
    }

    /// A disk with a GPT and one ext4 file system, filled with `content_bytes` of files beside a small system tree.
    ///
    /// # Errors
    ///
    /// A tool is missing or refuses.
    pub fn with_file_system(path: &Path, size: u64, content_bytes: u64) -> Result<Self> {
        let disk = Self::empty(path, size)?;
        let mut sfdisk = tool("sfdisk")
            .arg("-q")
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("run sfdisk; is it installed? `make deps` does it")?;
        let mut script = sfdisk.stdin.take().context("sfdisk has no input")?;
        script.write_all(
            format!(
                "label: gpt\nstart={}, type=linux, name=root\n",
                PARTITION_OFFSET / 512
            )
            .as_bytes(),
        )?;
        drop(script);
        ensure!(
            sfdisk.wait()?.success(),
            "write the partition table of {}",
            path.display()
        );

        let tree = tempfile::tempdir()?;
        write_tree(tree.path(), content_bytes)?;
        // The partition ends before the backup table in the disk's last 33 sectors; a whole MiB keeps it simple.
        let file_system_kib = (size - PARTITION_OFFSET - MIB) / KIB;
        run(tool("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-L", "root", "-d"])
            .arg(tree.path())
            .args(["-E", &format!("offset={PARTITION_OFFSET}")])
            .arg(path)
            .arg(format!("{file_system_kib}k")))?;
        Ok(disk)
    }

    /// The image file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The open image file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Fills a range with the pattern of `seed`.
    ///
    /// # Errors
    ///
    /// Out of bounds, or the file cannot be written.
    pub fn write_pattern(&self, seed: u64, range: Range<u64>) -> Result<()> {
        ensure!(
            range.end <= self.size,
            "write {range:?}: the disk ends at {}",
            self.size
        );
        let mut buffer = vec![0; usize::try_from(MIB)?];
        let mut offset = range.start;
        while offset < range.end {
            let len = usize::try_from((range.end - offset).min(MIB))?;
            let block = &mut buffer[..len];
            pattern::fill(seed, offset, block);
            self.file.write_all_at(block, offset)?;
            offset += len as u64;
        }
        Ok(())
    }

    /// The allocated ranges of the file, ascending; the rest is zeros.
    ///
    /// # Errors
    ///
    /// The file system cannot tell.
    pub fn extents(&self) -> Result<Vec<Range<u64>>> {
        let mut extents = Vec::new();
        let mut position = 0;
        while let Some(data) = self.next_data(position)? {
            position = data.end;
            extents.push(data);
        }
        Ok(extents)
    }

    /// The next allocated range at or after `position`.
    fn next_data(&self, position: u64) -> Result<Option<Range<u64>>> {
        let seek = |offset: u64, whence| {
            lseek(
                &self.file,
                i64::try_from(offset).unwrap_or(i64::MAX),
                whence,
            )
        };
        let start = match seek(position, Whence::SeekData) {
            Ok(offset) => u64::try_from(offset)?,
            // Nothing but a hole up to the end.
            Err(Errno::ENXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = u64::try_from(seek(start, Whence::SeekHole)?)?;
        Ok(Some(start..end.min(self.size)))
    }
}

/// Checks the file system of an image made by [`GuestDisk::with_file_system`] without changing anything.
///
/// # Errors
///
/// The check finds anything; with its output.
pub fn check_file_system(image: &Path) -> Result<String> {
    run(tool("fsck.ext4")
        .arg("-fn")
        .arg(format!("{}?offset={PARTITION_OFFSET}", image.display())))
}

/// Checks that two raw images hold the same bytes, with `qemu-img compare`.
///
/// # Errors
///
/// They differ; with its output.
pub fn compare_images(one: &Path, other: &Path) -> Result<String> {
    run(tool("qemu-img")
        .args(["compare", "-f", "raw", "-F", "raw"])
        .arg(one)
        .arg(other))
}

/// Checks that `qemu-img` takes a fixed VHD with this footer for a disk of `size` bytes.
///
/// # Errors
///
/// It refuses, or sees another size; with its output.
pub fn check_vhd_footer(footer: &[u8], size: u64) -> Result<String> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("disk.vhd");
    let vhd = GuestDisk::empty(&path, size + footer.len() as u64)?;
    vhd.file.write_all_at(footer, size)?;
    let account = run(tool("qemu-img")
        .args(["info", "-f", "vpc", "--output", "json"])
        .arg(&path))?;
    let seen: Value = serde_json::from_str(&account)?;
    ensure!(
        seen.get("virtual-size").and_then(Value::as_u64) == Some(size),
        "qemu-img sees another size than {size}: {account}"
    );
    Ok(account)
}

/// A small system tree with the shapes that file systems store differently: short, long, sparse and empty files, links,
/// many entries in one directory.
fn write_tree(root: &Path, content_bytes: u64) -> Result<()> {
    for directory in ["etc", "var/lib/ledger", "var/log", "home/user", "boot"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("etc/hostname"), "ledger01\n")?;
    fs::write(root.join("var/log/empty"), "")?;
    std::os::unix::fs::symlink("hostname", root.join("etc/name"))?;
    for number in 0..300 {
        fs::write(
            root.join(format!("home/user/note-{number:03}")),
            format!("note {number}\n").repeat(number),
        )?;
    }
    let sparse = GuestDisk::empty(&root.join("var/lib/ledger/sparse"), 64 * MIB)?;
    sparse.write_pattern(3, 20 * MIB..20 * MIB + 777)?;
    let book = GuestDisk::empty(&root.join("var/lib/ledger/book"), content_bytes)?;
    book.write_pattern(4, 0..content_bytes)
}

#[cfg(test)]
mod tests {
    use mock_server::GIB;

    use super::*;

    #[test]
    fn extents_are_the_allocated_ranges() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let disk = GuestDisk::empty(&directory.path().join("disk"), GIB)?;
        disk.write_pattern(1, 512 * MIB..513 * MIB)?;
        disk.write_pattern(2, GIB - 4096..GIB)?;
        assert_eq!(disk.extents()?, [512 * MIB..513 * MIB, GIB - 4096..GIB]);
        let mut block = vec![0; 4096];
        disk.file().read_exact_at(&mut block, 512 * MIB + 8)?;
        assert_eq!(block, pattern::bytes(1, 512 * MIB + 8, 4096));
        Ok(())
    }

    #[test]
    fn file_system_is_clean_and_a_change_is_found() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let disk = GuestDisk::with_file_system(&directory.path().join("one"), 256 * MIB, 8 * MIB)?;
        check_file_system(disk.path())?;
        let copy = directory.path().join("two");
        fs::copy(disk.path(), &copy)?;
        compare_images(disk.path(), &copy)?;
        disk.write_pattern(1, MIB..MIB + 64 * KIB)?;
        assert!(check_file_system(disk.path()).is_err());
        assert!(compare_images(disk.path(), &copy).is_err());
        Ok(())
    }
}
