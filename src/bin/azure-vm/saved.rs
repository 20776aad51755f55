//! A folder that holds saved VMs: from `backup --to`, or what `bextract` and the `bls` family of tools left.
//!
//! Files are recognised by `@azure-vm/` in their path, whatever stands before it: tools of Bacula put the catalog name
//! below a folder of the user's choice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use azure_vm_fd::document::{Document, FORMAT, ImageContent};

use crate::failure::Failure;

/// The part of a path that all names of the plugin share.
const MARK: &str = "@azure-vm";

/// One run of one VM, as found.
#[derive(Debug)]
pub(crate) struct SavedVm {
    /// The document, for names and sizes; the core reads it again from its bytes.
    pub(crate) document: Document,
    /// Where it is.
    pub(crate) document_path: PathBuf,
    /// Catalog name of the document.
    pub(crate) document_name: String,
    /// The images, in the document's order.
    pub(crate) images: Vec<SavedImage>,
    /// Their digests, if the folder has them: where they are, and their catalog name.
    pub(crate) digests: Option<(PathBuf, String)>,
}

/// One image file.
#[derive(Debug)]
pub(crate) struct SavedImage {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Catalog name.
    pub(crate) name: String,
    /// Size in bytes, as the document has it; the file is as long.
    pub(crate) size: u64,
}

/// The configuration documents below a folder, by VM and epoch.
type Documents = BTreeMap<String, BTreeMap<u64, PathBuf>>;

impl SavedVm {
    /// Finds the run to restore below `folder`: of the VM `vm` (name or UUID; the only one without it), the run of
    /// `epoch` (the newest without it).
    ///
    /// # Errors
    ///
    /// Nothing there, or several VMs to choose from; a document that cannot be read; an image that is missing, has
    /// another size, or holds changes only.
    pub(crate) fn find(
        folder: &Path,
        vm: Option<&str>,
        epoch: Option<u64>,
    ) -> Result<Self, Failure> {
        let folder = folder
            .canonicalize()
            .map_err(|error| Failure::local("read folder", folder, &error))?;
        let mut found = Documents::new();
        collect(&folder, &mut found)?;
        let (uuid, runs) = choose_vm(&folder, found, vm)?;
        let epoch = match epoch {
            Some(epoch) => epoch,
            None => runs.keys().next_back().copied().unwrap_or_default(),
        };
        let Some(path) = runs.get(&epoch) else {
            let known: Vec<_> = runs.keys().map(u64::to_string).collect();
            return Err(Failure::usage(format!(
                "find run {epoch} of VM {uuid} in {}: there is only {}",
                folder.display(),
                known.join(", ")
            )));
        };
        Self::open(&uuid, path)
    }

    fn open(uuid: &str, path: &Path) -> Result<Self, Failure> {
        let document = read_document(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let images = document
            .images
            .iter()
            .map(|record| {
                let path = folder.join(&record.file);
                match record.content {
                    ImageContent::Full => {}
                    // A plain file cannot tell "written with zeros" from "not written".
                    ImageContent::Delta { .. } => {
                        return Err(Failure::failed(format!(
                            "restore image {}: it holds changes only, and a file on disk does not say which; restore this run with Bacula and the plugin, or choose a full run with --epoch",
                            path.display()
                        )));
                    }
                }
                let len = fs::metadata(&path)
                    .map_err(|error| Failure::local("read image", &path, &error))?
                    .len();
                if len != record.size_bytes {
                    return Err(Failure::failed(format!(
                        "read image {}: it has {len} bytes, the disk had {}; the file is incomplete or of another run",
                        path.display(),
                        record.size_bytes
                    )));
                }
                Ok(SavedImage {
                    path,
                    name: format!("/{MARK}/{uuid}/{}", record.file),
                    size: record.size_bytes,
                })
            })
            .collect::<Result<_, _>>()?;
        let digests = format!("{}_digests", document.epoch);
        let digests_path = folder.join(&digests);
        Ok(Self {
            digests: digests_path
                .exists()
                .then(|| (digests_path, format!("/{MARK}/{uuid}/{digests}"))),
            document_name: format!("/{MARK}/{uuid}/{}_conf", document.epoch),
            document_path: path.to_owned(),
            document,
            images,
        })
    }
}

/// Looks for documents in `folder` and below; symbolic links are not followed.
fn collect(folder: &Path, found: &mut Documents) -> Result<(), Failure> {
    let entries =
        fs::read_dir(folder).map_err(|error| Failure::local("read folder", folder, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Failure::local("read folder", folder, &error))?;
        let path = entry.path();
        let kind = entry
            .file_type()
            .map_err(|error| Failure::local("read folder", folder, &error))?;
        if kind.is_dir() {
            collect(&path, found)?;
        } else if let Some((uuid, epoch)) = document_key(&path) {
            found.entry(uuid).or_default().insert(epoch, path);
        }
    }
    Ok(())
}

/// UUID and epoch of `.../@azure-vm/<uuid>/<epoch>_conf`.
fn document_key(path: &Path) -> Option<(String, u64)> {
    let epoch = path.file_name()?.to_str()?.strip_suffix("_conf")?;
    let uuid = path.parent()?;
    if uuid.parent()?.file_name()? != MARK {
        return None;
    }
    Some((uuid.file_name()?.to_str()?.to_owned(), epoch.parse().ok()?))
}

fn choose_vm(
    folder: &Path,
    mut found: Documents,
    vm: Option<&str>,
) -> Result<(String, BTreeMap<u64, PathBuf>), Failure> {
    if let Some(vm) = vm {
        retain_vm(&mut found, vm)?;
    }
    let several = found.len() > 1;
    match (found.pop_last(), vm) {
        (Some(only), _) if !several => Ok(only),
        (Some(last), _) => {
            found.extend([last]);
            let mut names = Vec::new();
            for (uuid, runs) in &found {
                names.push(format!("{} ({uuid})", name_of(runs)?.unwrap_or_default()));
            }
            Err(Failure::usage(format!(
                "choose a VM of {}: it holds {}; name one with --vm",
                folder.display(),
                names.join(", ")
            )))
        }
        (None, Some(vm)) => Err(Failure::failed(format!(
            "find VM {vm} in {}: there is no saved VM of this name or UUID",
            folder.display()
        ))),
        (None, None) => Err(Failure::failed(format!(
            "find a saved VM in {}: there is no {MARK}/<uuid>/<epoch>_conf in it or below",
            folder.display()
        ))),
    }
}

/// Keeps the VM of this UUID, or those that had this name when they were last saved.
fn retain_vm(found: &mut Documents, vm: &str) -> Result<(), Failure> {
    if let Some(runs) = found.remove(&vm.to_lowercase()) {
        *found = BTreeMap::from([(vm.to_lowercase(), runs)]);
        return Ok(());
    }
    let mut named = Documents::new();
    for (uuid, runs) in std::mem::take(found) {
        if name_of(&runs)?.as_deref() == Some(vm) {
            named.insert(uuid, runs);
        }
    }
    *found = named;
    Ok(())
}

/// The name that a VM had in its newest run.
fn name_of(runs: &BTreeMap<u64, PathBuf>) -> Result<Option<String>, Failure> {
    let newest = runs.values().next_back();
    newest
        .map(|path| Ok(read_document(path)?.vm_name))
        .transpose()
}

fn read_document(path: &Path) -> Result<Document, Failure> {
    let bytes = fs::read(path)
        .map_err(|error| Failure::local("read configuration document", path, &error))?;
    let document: Document = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::failed(format!(
            "read configuration document {}: {error}",
            path.display()
        ))
    })?;
    if document.format != FORMAT {
        return Err(Failure::failed(format!(
            "read configuration document {}: its format is {}, this version knows {FORMAT}",
            path.display(),
            document.format
        )));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const UUID: &str = "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10";

    /// A folder as `bextract` leaves it, with one VM of one 3 MiB disk.
    fn saved(root: &Path, uuid: &str, epoch: u64, name: &str, content: &ImageContent) -> PathBuf {
        let folder = root.join("some/where/@azure-vm").join(uuid);
        fs::create_dir_all(&folder).unwrap();
        let image = File::create(folder.join(format!("{epoch}_osdisk"))).unwrap();
        image.set_len(3 << 20).unwrap();
        let document = serde_json::json!({
            "format": FORMAT, "creator": "test", "job": "j", "level": "Full", "epoch": epoch, "vmUuid": uuid, "vmName": name,
            "virtualMachine": {}, "networkInterfaces": [],
            "images": [{
                "file": format!("{epoch}_osdisk"), "slot": "os", "diskUniqueId": "u", "sizeBytes": 3 << 20,
                "sectorSize": 512, "dataBytes": 0, "content": content, "snapshot": "s", "snapshotTime": "t", "disk": {},
            }],
        });
        fs::write(folder.join(format!("{epoch}_conf")), document.to_string()).unwrap();
        folder
    }

    #[test]
    fn the_newest_run_is_found_below_any_prefix() {
        let root = tempfile::tempdir().unwrap();
        saved(root.path(), UUID, 100, "ledger01", &ImageContent::Full);
        let folder = saved(root.path(), UUID, 1000, "ledger01", &ImageContent::Full);
        for from in [root.path(), &folder] {
            let vm = SavedVm::find(from, None, None).unwrap();
            assert_eq!(vm.document.epoch, 1000);
            assert_eq!(vm.document_name, format!("/@azure-vm/{UUID}/1000_conf"));
            assert_eq!(vm.images[0].name, format!("/@azure-vm/{UUID}/1000_osdisk"));
        }
        let older = SavedVm::find(root.path(), Some("ledger01"), Some(100)).unwrap();
        assert_eq!(older.document.epoch, 100);
        let error = SavedVm::find(root.path(), None, Some(5)).unwrap_err();
        assert!(error.text.contains("100, 1000"), "{}", error.text);
    }

    #[test]
    fn of_several_vms_one_must_be_named() {
        let root = tempfile::tempdir().unwrap();
        saved(root.path(), UUID, 1, "ledger01", &ImageContent::Full);
        saved(root.path(), "0000", 2, "web01", &ImageContent::Full);
        let error = SavedVm::find(root.path(), None, None).unwrap_err();
        assert!(
            error.text.contains(&format!("ledger01 ({UUID})")),
            "{}",
            error.text
        );
        assert!(error.text.contains("web01 (0000)"), "{}", error.text);
        for vm in ["web01", "0000"] {
            let found = SavedVm::find(root.path(), Some(vm), None).unwrap();
            assert_eq!(found.document.vm_name, "web01");
        }
        assert!(SavedVm::find(root.path(), Some("web02"), None).is_err());
    }

    #[test]
    fn incomplete_runs_are_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(SavedVm::find(root.path(), None, None).is_err());
        let folder = saved(root.path(), UUID, 1, "ledger01", &ImageContent::Full);
        let image = folder.join("1_osdisk");
        File::options()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(4096)
            .unwrap();
        let error = SavedVm::find(root.path(), None, None).unwrap_err();
        assert!(error.text.contains("4096") && error.text.contains("3145728"));
        fs::remove_file(image).unwrap();
        assert!(SavedVm::find(root.path(), None, None).is_err());
    }

    #[test]
    fn changes_alone_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let delta = ImageContent::Delta {
            base_epoch: 1,
            base_job: "j".into(),
            cleared: Vec::new(),
        };
        saved(root.path(), UUID, 2, "ledger01", &delta);
        let error = SavedVm::find(root.path(), None, None).unwrap_err();
        assert!(error.text.contains("changes only"), "{}", error.text);
    }
}
