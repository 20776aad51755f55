//! Files come in: the configuration document into memory, images into the staging folder, everything checked as early as
//! it can be.

use uuid::Uuid;

use super::plan::{Plan, check_images};
use super::staging::Staging;
use super::{Disposition, Error, Options, RestoredVm, build};
use crate::azure::Azure;
use crate::catalog::CatalogName;
use crate::document::{Document, FORMAT};
use crate::notice::Notices;

/// Largest configuration document in bytes. A VM with 64 data disks comes to about 200 KiB.
const LARGEST_DOCUMENT: u64 = 16 * 1024 * 1024;

/// A running restore.
#[derive(Debug)]
pub struct Restore {
    azure: Azure,
    options: Options,
    notices: Notices,
    staging: Staging,
    /// Whose files these are.
    vm: Option<Uuid>,
    current: Option<Current>,
    /// The newest document that came, and what it leads to.
    planned: Option<Planned>,
}

/// The file that is being received.
#[derive(Debug)]
enum Current {
    Document {
        path: String,
        epoch: u64,
        size: u64,
        text: Vec<u8>,
    },
    Image {
        path: String,
        file: String,
    },
}

#[derive(Debug)]
struct Planned {
    document: Document,
    plan: Plan,
}

impl Restore {
    /// Nothing is created yet, neither in Azure nor on disk.
    #[must_use]
    pub fn new(azure: Azure, options: Options, notices: Notices) -> Self {
        Self {
            staging: Staging::new(
                options.staging_dir.clone(),
                options.keep_staging,
                notices.clone(),
            ),
            azure,
            options,
            notices,
            vm: None,
            current: None,
            planned: None,
        }
    }

    /// A file comes: catalog name (any prefix before `/@azure-vm/` ignored) and its size in bytes as in the catalog.
    ///
    /// # Errors
    ///
    /// A file that does not belong to this restore; too little space; local storage that fails.
    #[expect(
        clippy::unused_async,
        reason = "part of the interface: another staging may have to wait here"
    )]
    pub async fn begin_entry(&mut self, path: &str, size: u64) -> Result<Disposition, Error> {
        let refuse = |reason: &str| {
            Err(Error::Entry {
                path: path.to_owned(),
                reason: reason.to_owned(),
            })
        };
        if self.current.is_some() {
            return refuse("the file before it was not ended");
        }
        let Some(name) = CatalogName::parse(path) else {
            return refuse("it is not a file of this plugin");
        };
        let vm = *self.vm.get_or_insert(name.vm());
        if vm != name.vm() {
            return Err(Error::TwoVms {
                first: vm.hyphenated().to_string(),
                second: name.vm().hyphenated().to_string(),
            });
        }
        match name {
            CatalogName::Label { .. } => Ok(Disposition::Skip),
            CatalogName::Document { epoch, .. } => {
                let known = self.planned.as_ref().map(|planned| planned.document.epoch);
                if known.is_some_and(|known| epoch <= known) {
                    self.note_skipped(path);
                    return Ok(Disposition::Skip);
                }
                if size > LARGEST_DOCUMENT {
                    return refuse("it is larger than any configuration document");
                }
                self.current = Some(Current::Document {
                    path: path.to_owned(),
                    epoch,
                    size,
                    text: Vec::new(),
                });
                Ok(Disposition::Receive)
            }
            CatalogName::Image { epoch, file, .. } => {
                if let Some(Planned { document, .. }) = &self.planned {
                    if epoch < document.epoch {
                        self.note_skipped(path);
                        return Ok(Disposition::Skip);
                    }
                    // An image of a newer run waits for the newer document.
                    if epoch == document.epoch {
                        check_size(document, path, &file, size)?;
                    }
                }
                if self.staging.image(&file).is_some() {
                    return refuse("it came twice");
                }
                self.staging.check_space(self.missing_bytes(&file, size))?;
                self.staging.begin(&file, size)?;
                self.current = Some(Current::Image {
                    path: path.to_owned(),
                    file,
                });
                Ok(Disposition::Receive)
            }
        }
    }

    /// Data of the current file at its offset in bytes, in any order; blocks the caller on local disk I/O.
    ///
    /// # Errors
    ///
    /// No current file; beyond its end; disk full.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        match &mut self.current {
            None => Err(Error::Entry {
                path: "(none)".into(),
                reason: "data came without a file".into(),
            }),
            Some(Current::Document {
                path, size, text, ..
            }) => {
                let room = size.saturating_sub(text.len() as u64);
                if offset != text.len() as u64 || data.len() as u64 > room {
                    return Err(Error::Document {
                        path: path.clone(),
                        reason: format!(
                            "{} bytes came for offset {offset}, after {} of {size} bytes",
                            data.len(),
                            text.len()
                        ),
                    });
                }
                text.extend_from_slice(data);
                Ok(())
            }
            Some(Current::Image { path, file }) => match self.staging.image_mut(file) {
                Some(image) => image.write(offset, data),
                None => Err(Error::Entry {
                    path: path.clone(),
                    reason: "it is not staged any more".into(),
                }),
            },
        }
    }

    /// The current file is complete. After the configuration document: checks that the VM can be built, that its new
    /// name is free and that the local folder has room for its images.
    ///
    /// # Errors
    ///
    /// It is not what it should be; one of the checks failed.
    pub async fn end_entry(&mut self) -> Result<(), Error> {
        match self.current.take() {
            // A file that was skipped.
            None => Ok(()),
            Some(Current::Document {
                path,
                epoch,
                size,
                text,
            }) => {
                if text.len() as u64 != size {
                    return Err(Error::Document {
                        path,
                        reason: format!("{} of {size} bytes came", text.len()),
                    });
                }
                self.take_document(&path, epoch, &text).await
            }
            Some(Current::Image { path, file }) => {
                let Some(image) = self.staging.image_mut(&file) else {
                    return Ok(());
                };
                image.finish().map_err(|end| Error::Entry {
                    path,
                    reason: format!(
                        "its data ends at {end} of {} bytes: the image on the volume is not complete",
                        image.size()
                    ),
                })
            }
        }
    }

    /// All files came: disks, NICs, VM. Whatever was created is removed again on failure, the local files in any case
    /// (unless `keep_staging`). What could not be removed, and what the new VM could not be given, are notices.
    ///
    /// # Errors
    ///
    /// Anything missing or refused.
    pub async fn complete(self) -> Result<RestoredVm, Error> {
        let Some(Planned { document, plan }) = &self.planned else {
            let vm = self
                .vm
                .map_or("(unknown)".into(), |vm| vm.hyphenated().to_string());
            return Err(Error::Incomplete {
                vm,
                reason: "no configuration document came; mark the file that ends in _conf, too"
                    .into(),
            });
        };
        if let Some(Current::Document { path, .. } | Current::Image { path, .. }) = &self.current {
            return Err(Error::Entry {
                path: path.clone(),
                reason: "it was not ended".into(),
            });
        }
        let missing: Vec<_> = plan
            .disks
            .iter()
            .map(|disk| disk.file.as_str())
            .filter(|file| {
                !self
                    .staging
                    .image(file)
                    .is_some_and(|image| image.is_complete())
            })
            .collect();
        if !missing.is_empty() {
            return Err(Error::Incomplete {
                vm: document.vm_name.clone(),
                reason: format!(
                    "its images {} did not come, or not completely; mark all files that begin with {}",
                    missing.join(", "),
                    document.vm_uuid
                ),
            });
        }
        let unknown: Vec<_> = self
            .staging
            .names()
            .filter(|name| plan.disks.iter().all(|disk| disk.file != *name))
            .collect();
        if !unknown.is_empty() {
            return Err(Error::Incomplete {
                vm: document.vm_name.clone(),
                reason: format!(
                    "the configuration document of the images {} did not come; mark it too, or leave them out",
                    unknown.join(", ")
                ),
            });
        }
        build::vm(
            &self.azure,
            plan,
            &self.staging,
            self.options.limits,
            &self.notices,
        )
        .await
    }

    /// The job failed or was cancelled: local files go (unless `keep_staging`).
    #[expect(
        clippy::unused_async,
        reason = "part of the interface: another staging may have to wait here"
    )]
    pub async fn abandon(self) {
        drop(self.staging);
    }

    async fn take_document(&mut self, path: &str, epoch: u64, text: &[u8]) -> Result<(), Error> {
        let document = parse_document(text)
            .and_then(|document| {
                let vm = self.vm.map(|vm| vm.hyphenated().to_string());
                if Some(&document.vm_uuid) != vm.as_ref() || document.epoch != epoch {
                    return Err(format!(
                        "it is that of virtual machine {} at {}",
                        document.vm_uuid, document.epoch
                    ));
                }
                check_images(&document.images)?;
                Ok(document)
            })
            .map_err(|reason| Error::Document {
                path: path.to_owned(),
                reason,
            })?;
        let suffix = Uuid::new_v4().simple().to_string();
        let plan = Plan::new(
            &document,
            self.options.new_hostname.as_deref(),
            self.azure.subscription_id(),
            &suffix[..8],
        )?;
        // What came before its document is checked now; what belongs to older runs is not needed any more.
        let current = format!("{epoch}_");
        for disk in &plan.disks {
            if let Some(image) = self.staging.image(&disk.file)
                && image.size() != disk.size
            {
                return Err(size_mismatch(&disk.file, image.size(), disk.size));
            }
        }
        for file in self
            .staging
            .discard(|file| epoch_of(file) > epoch || file.starts_with(&current))
        {
            self.note_skipped(&file);
        }
        self.planned = Some(Planned { document, plan });
        self.staging.check_space(self.missing_bytes("", 0))?;
        self.check_target().await
    }

    /// Bytes that are still to be staged: the image `file` of `size` bytes, and what the document names beyond it.
    fn missing_bytes(&self, file: &str, size: u64) -> u64 {
        let others = self.planned.iter().flat_map(|planned| &planned.plan.disks);
        others
            .filter(|disk| disk.file != file && self.staging.image(&disk.file).is_none())
            .fold(size, |sum, disk| sum.saturating_add(disk.size))
    }

    /// The group must be there and the name free, now rather than after hours of transfer.
    async fn check_target(&self) -> Result<(), Error> {
        let Some(Planned { plan, .. }) = &self.planned else {
            return Ok(());
        };
        let group = plan.vm.resource_group();
        self.azure
            .resource_group(group)
            .await
            .map_err(|source| Error::azure(format!("read resource group {group}"), source))?;
        build::check_name(&self.azure, plan).await
    }

    fn note_skipped(&self, file: &str) {
        self.notices.info(format!(
            "{file} is not needed: the files of a newer run are restored"
        ));
    }
}

fn parse_document(text: &[u8]) -> Result<Document, String> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(text)
        .map_err(|error| format!("it is not a document of ours: {error}"))?;
    if format != FORMAT {
        return Err(format!(
            "it has format {format}, this release reads format {FORMAT}; restore it with the release that wrote it"
        ));
    }
    serde_json::from_slice(text).map_err(|error| format!("it is damaged: {error}"))
}

fn check_size(document: &Document, path: &str, file: &str, size: u64) -> Result<(), Error> {
    match document.images.iter().find(|image| image.file == file) {
        None => Err(Error::Entry {
            path: path.to_owned(),
            reason: format!(
                "the configuration document of {} does not name it",
                document.epoch
            ),
        }),
        Some(image) if image.size_bytes != size => Err(size_mismatch(path, size, image.size_bytes)),
        Some(_) => Ok(()),
    }
}

fn size_mismatch(path: &str, found: u64, expected: u64) -> Error {
    Error::Entry {
        path: path.to_owned(),
        reason: format!("it has {found} bytes, the disk had {expected}"),
    }
}

/// Of the names that [`CatalogName`] lets through.
fn epoch_of(file: &str) -> u64 {
    file.split_once('_')
        .and_then(|(epoch, _)| epoch.parse().ok())
        .unwrap_or_default()
}
