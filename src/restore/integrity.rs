//! Whether the bytes that came are those that were saved, before anything is made of them.

use super::chain::Chain;
use super::documents::Documents;
use super::saved::{SavedContent, SavedImage, SavedRun};
use super::staging::{StagedImage, Staging};
use crate::digests::Digests;
use crate::notice::{Notices, some_of};
use crate::pipeline::ZeroBlocks;

/// What helps when bytes are not those that were saved.
const ADVICE: &str = "nothing was created; restore from another copy of the job, or an earlier point in time, for which the \
                      files of this run are left out";

/// Checks the documents and images that `chains` need, as far as they came: what is missing is said elsewhere. Images without
/// digests are named in a warning.
///
/// # Errors
///
/// What differs, and what to do.
pub(super) fn check(
    staging: &Staging,
    documents: &Documents,
    chains: &[Chain],
    notices: &Notices,
) -> Result<(), String> {
    let mut faults = Vec::new();
    let mut unchecked = Vec::new();
    for (&epoch, run) in documents.runs() {
        let Ok(run) = run else { continue };
        let needed: Vec<_> = chains
            .iter()
            .flat_map(Chain::images)
            .filter(|image| run.images.iter().any(|known| known.file == image.file))
            .collect();
        match documents.digests(epoch) {
            _ if needed.is_empty() => {}
            None => match documents.undecided(epoch) {
                Some(reason) => return Err(reason),
                None => unchecked.extend(needed.into_iter().map(SavedImage::label)),
            },
            Some(Err(reason)) => {
                return Err(format!(
                    "the digests {epoch}_digests cannot be used: {reason}; restore from another copy of the job, or leave \
                     this file out to restore without a check of the images' bytes"
                ));
            }
            Some(Ok(digests)) => {
                check_run(epoch, run, digests)?;
                for image in needed {
                    if let Some(staged) = staging.image(&image.file)
                        && staged.fault().is_none()
                        && let Err(fault) = compare(image, staged, digests)
                    {
                        faults.push(format!("{}: {fault}", image.label()));
                    }
                }
            }
        }
    }
    if !faults.is_empty() {
        return Err(format!("{}; {ADVICE}", faults.join("; ")));
    }
    if !unchecked.is_empty() {
        notices.warning(format!(
            "cannot check whether all bytes are those that were saved, because no digests came (mark the files that end in \
             _digests, too; releases before them made none): {}",
            some_of(unchecked.into_iter())
        ));
    }
    Ok(())
}

/// Whether `digests` are those of `run`.
fn check_run(epoch: u64, run: &SavedRun, digests: &Digests) -> Result<(), String> {
    if digests.job != run.job {
        return Err(format!(
            "the configuration document {epoch}_conf came from job {} and the digests {epoch}_digests from job {}; mark the \
             files of one job",
            run.job, digests.job
        ));
    }
    if digests.conf_sha256 != run.digest {
        return Err(format!(
            "the configuration document {epoch}_conf is not the one that job {} saved; {ADVICE}",
            run.job
        ));
    }
    Ok(())
}

/// Whether `staged` is what `digests` say of `saved`.
///
/// # Errors
///
/// What differs.
pub(super) fn compare(
    saved: &SavedImage,
    staged: &StagedImage,
    digests: &Digests,
) -> Result<(), String> {
    let Some(known) = digests.image(&saved.file) else {
        return Err("the digests of its job do not name it".into());
    };
    if known.size_bytes != staged.size() {
        return Err(format!(
            "it came with {} bytes, and was saved with {}",
            staged.size(),
            known.size_bytes
        ));
    }
    let zeros = match saved.content {
        SavedContent::Full => ZeroBlocks::Skip,
        SavedContent::Delta { .. } => ZeroBlocks::Keep,
    };
    let differences = staged
        .segments(zeros)
        .differences(&known.segments, known.size_bytes);
    if differences.is_empty() {
        return Ok(());
    }
    let ranges = differences.into_iter().map(|range| range.to_string());
    Err(format!(
        "the bytes that came are not those that were saved, in {}",
        some_of(ranges)
    ))
}
