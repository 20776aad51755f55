//! Files come in: configuration documents and digests into memory, images into the staging folder. They may come in any order, from
//! any number of runs, and some of them twice; which ones count is decided at the end. What cannot work is found as early
//! as it can be.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::build::Terms;
use super::chain::{Chain, links};
use super::debris::clear_debris;
use super::documents::Documents;
use super::plan::Plan;
use super::saved::{SavedContent, SavedImage, SavedRun, parse, when};
use super::staging::{Form, Staging};
use super::undo::Undo;
use super::{Disposition, Error, Options, RestoredVm, assemble, build, integrity};
use crate::azure::Azure;
use crate::catalog::CatalogName;
use crate::digests::Digests;
use crate::document::Document;
use crate::notice::{Notices, with_causes};

/// Largest document in bytes. The configuration of a VM with 64 data disks comes to about 200 KiB; its digests, if all of
/// them are full and large, to 13 MiB.
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
    documents: Documents,
    /// The newest run that came, and what it leads to.
    planned: Option<Planned>,
    /// Files that came before, complete.
    repeated: BTreeSet<String>,
}

/// The file that is being received.
#[derive(Debug)]
enum Current {
    Document {
        kind: DocumentKind,
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

#[derive(Clone, Copy, Debug)]
enum DocumentKind {
    Configuration,
    Digests,
}

#[derive(Debug)]
struct Planned {
    epoch: u64,
    vm_name: String,
    /// Or why the machine cannot be made where this run saved it, whatever happens meanwhile.
    plan: Result<Plan, Error>,
    /// Whether its resource group was there, and its name free.
    has_place: bool,
}

impl Restore {
    /// Nothing is created yet, neither in Azure nor on disk.
    #[must_use]
    pub fn new(azure: Azure, options: Options, notices: Notices) -> Self {
        Self {
            staging: Staging::new(
                options.restores.clone(),
                &options.staging_name,
                options.keep_staging,
                notices.clone(),
            ),
            azure: azure.with_notices(notices.clone()),
            options,
            notices,
            vm: None,
            current: None,
            documents: Documents::default(),
            planned: None,
            repeated: BTreeSet::new(),
        }
    }

    /// A file comes: catalog name (any prefix before `/@azure-vm/` ignored) and its size in bytes as in the catalog. Before the
    /// first one goes what dead restores left.
    ///
    /// # Errors
    ///
    /// A file that does not belong to this restore; too little space; local storage that fails.
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
        if self.vm.is_none() {
            clear_debris(&self.azure, &self.options.restores, &self.notices).await;
        }
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
                if size > LARGEST_DOCUMENT {
                    return refuse("it is larger than any configuration document");
                }
                Ok(self.begin_document(DocumentKind::Configuration, path, epoch, size))
            }
            CatalogName::Digests { epoch, .. } => {
                if size > LARGEST_DOCUMENT {
                    return refuse(
                        "it is larger than any digests; leave it out to restore without a check of the images' bytes",
                    );
                }
                Ok(self.begin_document(DocumentKind::Digests, path, epoch, size))
            }
            CatalogName::Image { epoch, file, .. } => {
                if self.is_good(epoch, &file) {
                    self.repeated.insert(file);
                    return Ok(Disposition::Skip);
                }
                let known = self.saved_image(epoch, &file);
                let form = match known.map(|image| &image.content) {
                    Some(SavedContent::Full) => Form::Disk,
                    Some(SavedContent::Delta { .. }) | None => Form::Blocks,
                };
                let own = known.map_or(0, staged_bytes);
                self.staging
                    .check_space(own.saturating_add(self.missing_bytes(&file)))?;
                self.staging.begin(&file, size, form)?;
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

    /// The current file is complete. After the configuration document of a run that is newer than those before: checks
    /// that the VM can be built, that its new name is free and that the local folder has room for its images.
    ///
    /// A file that is not what it should be may turn out not to be needed, or come again: it is a warning here.
    ///
    /// # Errors
    ///
    /// One of the checks failed; local storage failed.
    pub async fn end_entry(&mut self) -> Result<(), Error> {
        match self.current.take() {
            // A file that was skipped.
            None => Ok(()),
            Some(Current::Document {
                kind,
                path,
                epoch,
                size,
                text,
            }) => match kind {
                DocumentKind::Configuration => self.take_document(&path, epoch, size, &text).await,
                DocumentKind::Digests => self.take_digests(&path, epoch, size, &text).await,
            },
            Some(Current::Image { path, file }) => {
                let Some(image) = self.staging.image_mut(&file) else {
                    return Ok(());
                };
                image.finish()?;
                if let Some(reason) = image.fault() {
                    self.notices.warning(format!("receive {path}: {reason}"));
                }
                Ok(())
            }
        }
    }

    /// All files came: local disks, then disks, NICs and VM in Azure. Whatever was created is removed again on failure,
    /// the local files in any case (unless `keep_staging`). What could not be removed, what was not needed, and what the
    /// new VM could not be given, are notices.
    ///
    /// # Errors
    ///
    /// Anything missing or refused.
    pub async fn complete(mut self) -> Result<RestoredVm, Error> {
        if let Some(Current::Document { path, .. } | Current::Image { path, .. }) = &self.current {
            return Err(Error::Entry {
                path: path.clone(),
                reason: "it was not ended".into(),
            });
        }
        let chains = self.chains()?;
        let Some(Planned {
            epoch,
            vm_name,
            plan,
            has_place,
        }) = self.planned.take()
        else {
            return Err(self.no_document());
        };
        let plan = plan?;
        if !has_place {
            // It may have been made meanwhile.
            build::check_group(&self.azure, &plan).await?;
            build::check_name(&self.azure, &plan).await?;
        }
        if let Some(Ok(run)) = self.documents.runs().get(&epoch) {
            self.notices.info(format!(
                "restoring virtual machine {vm_name} as job {} saved it ({}), under the name {}",
                run.job,
                when(epoch),
                plan.vm.name()
            ));
        }
        self.note_unneeded(&chains);
        integrity::check(&self.staging, &self.documents, &chains, &self.notices).map_err(
            |reason| Error::Damaged {
                vm: vm_name.clone(),
                reason,
            },
        )?;
        let parts =
            assemble::take(&mut self.staging, chains).map_err(|faults| Error::Incomplete {
                vm: vm_name.clone(),
                reason: format!(
                    "{}; mark all files of these jobs that begin with the UUID",
                    faults.join("; ")
                ),
            })?;
        let unneeded: Vec<_> = self.staging.names().map(ToOwned::to_owned).collect();
        for file in unneeded {
            self.staging.discard(&file);
        }
        let disks = assemble::disks(parts, self.azure.cancellation(), &self.notices).await?;
        let terms = Terms {
            limits: self.options.limits,
            verify: self.options.verify,
        };
        let mark = self.staging.mark();
        let undo = Undo::new(mark, self.options.has_next_job, self.notices.clone());
        build::vm(&self.azure, &plan, disks, undo, terms, &self.notices).await
    }

    /// The job failed or was cancelled: local files go (unless `keep_staging`).
    #[expect(
        clippy::unused_async,
        reason = "part of the interface: another staging may have to wait here"
    )]
    pub async fn abandon(self) {
        drop(self.staging);
    }

    /// The chains of the newest run, in the order of its images.
    fn chains(&self) -> Result<Vec<Chain>, Error> {
        let (Some((&epoch, newest)), Some(planned)) =
            (self.documents.runs().last_key_value(), &self.planned)
        else {
            return Err(self.no_document());
        };
        let incomplete = |reason| Error::Incomplete {
            vm: planned.vm_name.clone(),
            reason,
        };
        let run = newest.as_ref().map_err(|reason| {
            incomplete(format!(
                "the configuration document {epoch}_conf of its newest run cannot be used: {reason}; leave the files of \
                 this run out to restore an earlier one"
            ))
        })?;
        let newer: Vec<_> = self
            .staging
            .names()
            .filter(|file| epoch_of(file) > epoch)
            .collect();
        if !newer.is_empty() {
            return Err(incomplete(format!(
                "the configuration document of the images {} did not come; mark the file of the same number that ends in _conf, \
                 too, or leave them out",
                newer.join(", ")
            )));
        }
        let runs = self.documents.runs();
        let chains = run.images.iter().map(|image| Chain::new(runs, image));
        chains.collect::<Result<_, _>>().map_err(incomplete)
    }

    fn no_document(&self) -> Error {
        let unusable = self.documents.runs().iter().filter_map(|(epoch, run)| {
            let reason = run.as_ref().err()?;
            Some(format!("{epoch}_conf cannot be used: {reason}"))
        });
        let unusable: Vec<_> = unusable.collect();
        Error::Incomplete {
            vm: self
                .vm
                .map_or("(unknown)".into(), |vm| vm.hyphenated().to_string()),
            reason: if unusable.is_empty() {
                "no configuration document came; mark the file that ends in _conf, too".into()
            } else {
                unusable.join("; ")
            },
        }
    }

    /// One note for everything that the newest run does not need, one for what came twice.
    fn note_unneeded(&self, chains: &[Chain]) {
        let needed: BTreeSet<_> = chains
            .iter()
            .flat_map(Chain::images)
            .map(|image| image.file.as_str())
            .collect();
        let unneeded: Vec<_> = self
            .staging
            .names()
            .filter(|file| !needed.contains(file))
            .collect();
        if !unneeded.is_empty() {
            self.notices.info(format!(
                "not needed for the newest run that was marked, and skipped: {}",
                unneeded.join(", ")
            ));
        }
        if !self.repeated.is_empty() {
            let repeated: Vec<_> = self.repeated.iter().map(String::as_str).collect();
            self.notices.info(format!(
                "came more than once (a job and its copy?), and was taken once: {}",
                repeated.join(", ")
            ));
        }
    }

    async fn take_document(
        &mut self,
        path: &str,
        epoch: u64,
        size: u64,
        text: &[u8],
    ) -> Result<(), Error> {
        let parsed = self.vm_of_whole(text, size).and_then(|vm| {
            let document = parse(text, &vm, epoch)?;
            Ok((SavedRun::new(&document, text)?, document))
        });
        match self
            .documents
            .take_configuration(path, epoch, parsed, &self.notices)
        {
            Some(document) => self.consider(epoch, document).await,
            None => Ok(()),
        }
    }

    /// What is to be made is what the newest run saved, of those that came so far.
    async fn consider(&mut self, epoch: u64, document: Document) -> Result<(), Error> {
        let planned = self.planned.as_ref();
        if planned.is_some_and(|planned| planned.epoch > epoch) {
            return self.staging.check_space(self.missing_bytes(""));
        }
        let suffix = Uuid::new_v4().simple().to_string();
        let plan = match Plan::new(
            &document,
            self.options.new_hostname.as_deref(),
            self.azure.subscription_id(),
            &suffix[..8],
        ) {
            Err(elsewhere @ Error::Elsewhere { .. }) if !self.options.one_run => Err(elsewhere),
            plan => Ok(plan?),
        };
        self.planned = Some(Planned {
            epoch,
            vm_name: document.vm_name,
            plan,
            has_place: false,
        });
        self.staging.check_space(self.missing_bytes(""))?;
        self.check_target().await
    }

    fn begin_document(
        &mut self,
        kind: DocumentKind,
        path: &str,
        epoch: u64,
        size: u64,
    ) -> Disposition {
        self.current = Some(Current::Document {
            kind,
            path: path.to_owned(),
            epoch,
            size,
            text: Vec::new(),
        });
        Disposition::Receive
    }

    /// The UUID of the VM whose document `text` is, if all `size` bytes of it came.
    fn vm_of_whole(&self, text: &[u8], size: u64) -> Result<String, String> {
        if text.len() as u64 != size {
            return Err(format!("{} of {size} bytes came", text.len()));
        }
        let vm = self.vm.map(|vm| vm.hyphenated().to_string());
        Ok(vm.unwrap_or_default())
    }

    /// Digests that cannot be used may turn out not to be needed, or come again.
    async fn take_digests(
        &mut self,
        path: &str,
        epoch: u64,
        size: u64,
        text: &[u8],
    ) -> Result<(), Error> {
        let parsed = self
            .vm_of_whole(text, size)
            .and_then(|vm| Digests::parse(text, &vm, epoch));
        let taken = self
            .documents
            .take_digests(path, epoch, parsed, &self.notices);
        match taken {
            Ok(Some(document)) => self.consider(epoch, document).await,
            Ok(None) => Ok(()),
            Err(reason) => Err(Error::Document {
                path: path.to_owned(),
                reason,
            }),
        }
    }

    /// Whether an image is there that need not come again, as far as is known.
    fn is_good(&self, epoch: u64, file: &str) -> bool {
        self.staging.image(file).is_some_and(|staged| {
            let saved = self.saved_image(epoch, file);
            let digests = self.documents.digests(epoch).and_then(Result::ok);
            let is_damaged = saved.zip(digests).is_some_and(|(saved, digests)| {
                integrity::compare(saved, staged, digests).is_err()
            });
            staged.fault().is_none() && !is_damaged
        })
    }

    /// What the document of its run says of an image.
    fn saved_image(&self, epoch: u64, file: &str) -> Option<&SavedImage> {
        let run = self.documents.runs().get(&epoch)?.as_ref().ok()?;
        run.images
            .iter()
            .find(|image| image.file == file)
            .map(|image| &**image)
    }

    /// Bytes that are still to be staged for the newest run that came, as far as is known; `file` not counted.
    fn missing_bytes(&self, file: &str) -> u64 {
        let runs = self.documents.runs();
        let newest = self.planned.as_ref().and_then(|planned| {
            let run = runs.get(&planned.epoch)?;
            run.as_ref().ok()
        });
        newest
            .iter()
            .flat_map(|run| &run.images)
            .flat_map(|image| links(runs, image))
            .filter(|image| image.file != file && self.staging.image(&image.file).is_none())
            .fold(0, |sum, image| sum.saturating_add(staged_bytes(image)))
    }

    /// The group must be there and the name free, now rather than after hours of transfer. That the place is gone may not
    /// matter: the group can be made meanwhile, a virtual machine can be moved, and a newer run may follow that was saved elsewhere.
    async fn check_target(&mut self) -> Result<(), Error> {
        let Some(planned) = &mut self.planned else {
            return Ok(());
        };
        let (reason, unless) = match &planned.plan {
            Ok(plan) => match build::check_group(&self.azure, plan).await {
                Ok(()) => {
                    build::check_name(&self.azure, plan).await?;
                    planned.has_place = true;
                    return Ok(());
                }
                Err(error) if self.options.one_run || !is_gone(&error) => return Err(error),
                Err(gone) => (
                    with_causes(&gone),
                    "it is there when all files have come, or ",
                ),
            },
            Err(elsewhere) => (with_causes(elsewhere), ""),
        };
        self.notices.warning(format!(
            "{reason}; the restore will fail, unless {unless}files of a newer run follow that was saved elsewhere"
        ));
        Ok(())
    }
}

/// Without a right in it, a group that is gone is like one that is closed.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Azure { source, .. } if matches!(source.status(), Some(403 | 404)))
}

/// Bytes that an image takes locally, at most.
fn staged_bytes(image: &SavedImage) -> u64 {
    match image.content {
        SavedContent::Full => image.size,
        SavedContent::Delta { .. } => image.data_bytes,
    }
}

/// Of the names that [`CatalogName`] lets through.
fn epoch_of(file: &str) -> u64 {
    file.split_once('_')
        .and_then(|(epoch, _)| epoch.parse().ok())
        .unwrap_or_default()
}
