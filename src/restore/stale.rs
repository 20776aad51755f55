//! Staging folders of restores that died (power loss, `kill -9`) or left something: recognised by a mark that nobody holds any more.
//!
//! A folder in use has a locked mark in it; the system takes the lock away when its process ends. The mark also names what
//! the restore makes in Azure, noted before it is made, and struck out when it is removed, or found to be somebody's: nothing
//! there tells it from what others make. So the folder of a restore that failed, and could not remove all that it had made, stays with its mark and is
//! like that of a dead one. A folder without a mark is not ours to remove: its images were kept on purpose, or somebody else
//! made it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::azure::ResourceId;
use crate::private_folder::{PrivateFile, PrivateFolder, read_at_most};

const NAME: &str = "in-use";

/// Most bytes of a mark. A machine has at most 65 disks and 8 interfaces, whose ids have fewer than 1000 bytes each.
const LARGEST: u64 = 1 << 20;

/// Says that a folder is in use, and what its restore makes.
#[derive(Debug)]
pub(super) struct Mark {
    place: PrivateFile,
    /// Locked as long as it is open.
    file: File,
}

impl Mark {
    /// Marks `folder`, which has no mark.
    ///
    /// # Errors
    ///
    /// The file system refuses, or has no locks.
    pub(super) fn set(folder: &PrivateFolder) -> io::Result<Self> {
        let place = folder.file(NAME);
        // Appears locked, so that nobody takes it for a dead one in between.
        let hidden = folder.file(format!(".{NAME}"));
        let mut options = OpenOptions::new();
        let file = hidden.open(options.read(true).append(true).create_new(true))?;
        let marked = file
            .try_lock()
            .map_err(io::Error::from)
            .and_then(|()| hidden.rename(&place));
        if let Err(error) = marked {
            drop(hidden.remove());
            return Err(error);
        }
        Ok(Self { place, file })
    }

    /// Takes over the one in `folder`; `None` if there is none, or somebody holds it.
    fn take(folder: &PrivateFolder) -> Option<Self> {
        let place = folder.file(NAME);
        let file = place
            .open(OpenOptions::new().read(true).append(true))
            .ok()?;
        file.try_lock().ok()?;
        Some(Self { place, file })
    }

    /// Notes a resource that is about to be made; on disk when this returns.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(super) fn note(&self, id: &ResourceId) -> io::Result<()> {
        self.add(&Line::Made(id.as_str().to_owned()))
    }

    /// Notes that the machine which had the disk was deleted: `at`, as Azure writes it, the disk last changed hands. On disk when
    /// this returns.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(super) fn note_freed(&self, disk: &ResourceId, at: &str) -> io::Result<()> {
        self.add(&Line::Freed {
            freed: disk.as_str().to_owned(),
            at: at.to_owned(),
        })
    }

    /// Notes that a resource is not there any more, was never made, or is somebody's by now; on disk when this returns.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(super) fn strike(&self, id: &ResourceId) -> io::Result<()> {
        self.add(&Line::Gone {
            gone: id.as_str().to_owned(),
        })
    }

    /// Forgets all: what was made stays.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_data()
    }

    /// Whether something that was made is still there, as far as is noted. What cannot be read may say so.
    pub(super) fn names_something(&self) -> bool {
        let read = Noted::read(&self.file);
        read.map_or(true, |noted| noted.names_something())
    }

    /// Takes away a last line that was cut off, so that the next one does not grow together with it: what it was about was not
    /// asked for yet.
    fn cut_unfinished(&self) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        if let Some(text) = read_at_most(file, LARGEST)? {
            self.file.set_len(finished(&text).len() as u64)?;
        }
        Ok(())
    }

    fn add(&self, line: &Line) -> io::Result<()> {
        let line = serde_json::to_string(line)? + "\n";
        (&self.file).write_all(line.as_bytes())?;
        self.file.sync_data()
    }

    /// The folder stays, and is not in use any more.
    pub(super) fn remove(self) {
        if let Err(error) = self.place.remove() {
            tracing::warn!("remove {}: {error}", self.place.shown().display());
        }
    }
}

/// A line of a mark. One that was cut off, or grew together with the next, must not be read as another name: so it is JSON.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Line {
    /// The id of what is about to be made.
    Made(String),
    Freed {
        /// The id of a disk.
        freed: String,
        /// Its `LastOwnershipUpdateTime`.
        at: String,
    },
    Gone {
        /// The id of what was made before.
        gone: String,
    },
}

/// What a mark says.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// What the restore made, or was about to make, in this order, and has not removed.
    pub(super) made: Vec<ResourceId>,
    /// What it has removed, or what is somebody's.
    pub(super) gone: Vec<ResourceId>,
    /// Disks of a machine that it has deleted, and when that was.
    freed: Vec<(ResourceId, String)>,
    /// What of the mark cannot be read: the file is damaged.
    pub(super) damage: Option<String>,
}

impl Noted {
    fn read(mut file: &File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let Some(text) = read_at_most(file, LARGEST)? else {
            return Ok(Self {
                damage: Some(format!("it is larger than {LARGEST} bytes")),
                ..Self::default()
            });
        };
        let (mut noted, mut unreadable) = (Self::default(), 0);
        for line in finished(&text).split(|&byte| byte == b'\n') {
            if !line.is_empty() && noted.take(line).is_none() {
                unreadable += 1;
            }
        }
        noted.damage = (unreadable > 0).then(|| format!("lines that cannot be read: {unreadable}"));
        Ok(noted)
    }

    fn take(&mut self, line: &[u8]) -> Option<()> {
        match serde_json::from_slice(line).ok()? {
            Line::Made(id) => self.made.push(ResourceId::parse(&id)?),
            Line::Freed { freed, at } => self.freed.push((ResourceId::parse(&freed)?, at)),
            Line::Gone { gone } => {
                let id = ResourceId::parse(&gone)?;
                self.made.retain(|made| *made != id);
                self.gone.push(id);
            }
        }
        Some(())
    }

    /// When the disk was freed from the machine that the restore has deleted, as Azure writes it.
    pub(super) fn freed_at(&self, disk: &ResourceId) -> Option<&str> {
        let known = self.freed.iter().rev().find(|(id, _)| id == disk);
        known.map(|(_, at)| &**at)
    }

    fn names_something(&self) -> bool {
        !self.made.is_empty() || self.damage.is_some()
    }
}

/// The lines that have an end.
fn finished(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| byte == b'\n');
    &text[..end.map_or(0, |end| end + 1)]
}

/// A folder whose restore died, or left something in Azure.
#[derive(Debug)]
pub(super) struct DeadFolder {
    pub(super) path: PathBuf,
    pub(super) noted: Noted,
    parent: PrivateFolder,
    name: OsString,
    folder: PrivateFolder,
    /// Locked, so that nobody else clears up, too.
    mark: Mark,
}

impl DeadFolder {
    /// `None` if it is not a folder of ours, there is no mark, or somebody holds it.
    fn take(parent: &PrivateFolder, name: OsString) -> Option<Self> {
        let folder = parent.open_child(&name).ok()?;
        let mark = Mark::take(&folder)?;
        mark.cut_unfinished().ok()?;
        Some(Self {
            path: folder.path().to_owned(),
            noted: Noted::read(&mark.file).ok()?,
            parent: parent.clone(),
            name,
            folder,
            mark,
        })
    }

    /// The file that names what the restore made, as people know it.
    pub(super) fn shown_mark(&self) -> PathBuf {
        self.mark.place.shown()
    }

    /// Notes that nothing is to be done about a resource any more; on disk when this returns.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(super) fn strike(&self, id: &ResourceId) -> io::Result<()> {
        self.mark.strike(id)
    }

    /// Removes the images, and leaves the mark; says whether there were any.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(super) fn remove_images(&self) -> io::Result<bool> {
        remove_images(&self.folder)
    }

    /// Removes it: nothing of the restore is left.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(self.parent.at(&self.name))
    }
}

/// Removes what is in the folder but its mark; says whether there was anything.
///
/// # Errors
///
/// The file system refuses.
pub(super) fn remove_images(folder: &PrivateFolder) -> io::Result<bool> {
    let mut found = false;
    for entry in fs::read_dir(folder.at(""))? {
        let name = entry?.file_name();
        if name != NAME {
            folder.file(name).remove()?;
            found = true;
        }
    }
    Ok(found)
}

/// The folders in `parent` whose restore died or left something.
pub(super) fn dead_folders(parent: &PrivateFolder) -> Vec<DeadFolder> {
    let entries = fs::read_dir(parent.at("")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    names
        .filter_map(|name| DeadFolder::take(parent, name))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_folders_of_the_dead_are_found_with_what_they_made() {
        let place = tempfile::tempdir().unwrap();
        let parent = PrivateFolder::open(place.path()).unwrap();
        let folder = |name: &str| {
            let folder = parent.make_child(name).unwrap();
            fs::write(folder.path().join("1_osdisk"), "bytes").unwrap();
            folder
        };
        let (alive, dead, kept) = (folder("1"), folder("2"), folder("3"));
        folder("foreign");
        let held = Mark::set(&alive).unwrap();
        let died = Mark::set(&dead).unwrap();
        let id = |name| ResourceId::new("s", "g", "Microsoft.Compute/disks", name);
        let made = ["a", "b"].map(id);
        for id in &made {
            died.note(id).unwrap();
        }
        died.note(&id("gone")).unwrap();
        died.strike(&id("gone")).unwrap();
        for at in ["then", "later"] {
            died.note_freed(&made[0], at).unwrap();
        }
        // Cut off in the middle of a name; then another one was noted.
        let cut = "\"/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/web";
        (&died.file).write_all(cut.as_bytes()).unwrap();
        died.note(&made[0]).unwrap();
        (&died.file).write_all(cut.as_bytes()).unwrap();
        drop(died);
        Mark::set(&kept).unwrap().remove();

        let mut found = dead_folders(&parent);
        let found = found.pop().filter(|_| found.is_empty()).unwrap();
        let dead = dead.path();
        assert_eq!((&*found.path, &*found.noted.made), (dead, &made[..]));
        assert_eq!(found.noted.gone, [id("gone")]);
        assert_eq!(found.noted.freed_at(&made[0]), Some("later"));
        assert_eq!(found.noted.freed_at(&made[1]), None);
        let damage = found.noted.damage.as_deref();
        assert_eq!(damage, Some("lines that cannot be read: 1"));
        assert!(dead_folders(&parent).is_empty(), "it is held");
        assert!(found.remove_images().unwrap());
        assert!(!found.remove_images().unwrap() && dead.join(NAME).exists());
        // Not lost in the line that was cut off.
        found.strike(&made[0]).unwrap();
        assert_eq!(Noted::read(&found.mark.file).unwrap().made, made[1..]);
        found.remove().unwrap();
        assert!(!dead.exists() && alive.path().join("1_osdisk").exists());
        drop(held);
        assert_eq!(dead_folders(&parent).len(), 1);
    }

    #[test]
    fn a_mark_names_what_is_left() {
        let place = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::open(place.path()).unwrap();
        let mark = Mark::set(&folder).unwrap();
        assert!(!mark.names_something());
        let [a, b] = ["a", "b"].map(|name| ResourceId::new("s", "g", "t/disks", name));
        mark.note(&a).unwrap();
        mark.note(&b).unwrap();
        mark.strike(&b).unwrap();
        assert!(mark.names_something());
        mark.strike(&a).unwrap();
        assert!(!mark.names_something());
        mark.note(&a).unwrap();
        mark.clear().unwrap();
        assert!(!mark.names_something());
        mark.note(&b).unwrap();
        assert_eq!(Noted::read(&mark.file).unwrap().made, [b]);
    }

    /// Neither the images of others are removed, nor what a link leads to.
    #[test]
    fn folders_that_are_not_ours_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let dead = |name: &str| {
            let parent = PrivateFolder::make(&at(name)).unwrap();
            let folder = parent.make_child("7").unwrap();
            fs::write(folder.path().join(NAME), "").unwrap();
            parent
        };
        let victim = dead("victim");
        let restores = PrivateFolder::make(&at("restore")).unwrap();
        symlink(at("victim/7"), at("restore/7")).unwrap();
        assert!(dead_folders(&restores).is_empty());

        let dead = dead_folders(&victim).pop().unwrap();
        fs::rename(at("victim"), at("away")).unwrap();
        let other = PrivateFolder::make(&at("victim")).unwrap();
        fs::write(
            other.make_child("7").unwrap().path().join("1_osdisk"),
            "bytes",
        )
        .unwrap();
        assert!(!dead.remove_images().unwrap());
        dead.remove().unwrap();
        assert!(at("victim/7/1_osdisk").exists() && !at("away/7").exists());
    }

    /// Also if they are put there after the folder was opened, and hold what a dead restore leaves.
    #[test]
    fn dead_folders_elsewhere_are_not_found_through_a_link() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for state in ["ours", "elsewhere"] {
            let state = PrivateFolder::make(&at(state)).unwrap();
            let folder = state
                .make_child("restore")
                .unwrap()
                .make_child("7")
                .unwrap();
            for file in [NAME, "1_osdisk"] {
                fs::write(folder.path().join(file), "").unwrap();
            }
        }
        let state = PrivateFolder::open(&at("ours")).unwrap();
        fs::rename(at("ours"), at("away")).unwrap();
        symlink(at("elsewhere"), at("ours")).unwrap();
        let restores = state.open_child("restore").unwrap();
        for dead in dead_folders(&restores) {
            assert!(dead.remove_images().unwrap());
            dead.remove().unwrap();
        }
        assert!(at("elsewhere/restore/7/1_osdisk").exists() && !at("away/restore/7").exists());
    }
}
