//! Which images make a disk: the base links from its image in the newest run back to a full one.
//!
//! Images may have come in any order, from any jobs, and more of them than needed; a base may be older than the image
//! just before. Only the links decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::saved::{SavedContent, SavedImage, SavedRun, when};

/// The runs whose documents came, by epoch; why one cannot be used.
pub(super) type Runs = BTreeMap<u64, Result<SavedRun, String>>;

/// The images of one disk.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) full: Arc<SavedImage>,
    /// What is applied to it, in this order.
    pub(super) changes: Vec<Arc<SavedImage>>,
}

impl Chain {
    /// The chain that ends with `newest`.
    ///
    /// # Errors
    ///
    /// Which link is missing, and why.
    pub(super) fn new(runs: &Runs, newest: &Arc<SavedImage>) -> Result<Self, String> {
        let mut changes = Vec::new();
        let mut image = newest;
        while let SavedContent::Delta {
            base_epoch,
            base_job,
            ..
        } = &image.content
        {
            changes.push(Arc::clone(image));
            image = base_of(runs, image, *base_epoch, base_job)
                .ok_or_else(|| missing_link(runs, image, *base_epoch, base_job))?;
        }
        changes.reverse();
        Ok(Self {
            full: Arc::clone(image),
            changes,
        })
    }

    /// All images, oldest first.
    pub(super) fn images(&self) -> impl Iterator<Item = &SavedImage> {
        [&self.full]
            .into_iter()
            .chain(&self.changes)
            .map(|image| &**image)
    }
}

/// The images from `newest` back to a full one, as far as they are known.
pub(super) fn links<'a>(
    runs: &'a Runs,
    newest: &'a Arc<SavedImage>,
) -> impl Iterator<Item = &'a Arc<SavedImage>> {
    std::iter::successors(Some(newest), |image| match &image.content {
        SavedContent::Full => None,
        SavedContent::Delta {
            base_epoch,
            base_job,
            ..
        } => base_of(runs, image, *base_epoch, base_job),
    })
}

/// Ends, since a base is always older: see `saved`. The job counts too, since two File Daemons may have saved the virtual
/// machine in the same second.
fn base_of<'a>(
    runs: &'a Runs,
    image: &SavedImage,
    base_epoch: u64,
    base_job: &str,
) -> Option<&'a Arc<SavedImage>> {
    let run = runs.get(&base_epoch)?.as_ref().ok()?;
    run.image_of(&image.disk_unique_id)
        .filter(|_| run.job == base_job)
        .filter(|base| base.size <= image.size)
}

/// Why `base_of` found nothing.
fn missing_link(runs: &Runs, image: &SavedImage, base_epoch: u64, base_job: &str) -> String {
    let needs = format!(
        "{} holds the changes since job {base_job} ({})",
        image.label(),
        when(base_epoch)
    );
    match runs.get(&base_epoch) {
        None => format!(
            "{needs}, whose configuration document {base_epoch}_conf did not come; mark all files that begin with \
             {base_epoch}_, too"
        ),
        Some(Err(reason)) => {
            format!(
                "{needs}, whose configuration document {base_epoch}_conf cannot be used: {reason}"
            )
        }
        Some(Ok(run)) if run.job != base_job => format!(
            "{needs}, and {base_epoch}_conf came from job {}, which saved this virtual machine in the same second; mark the \
             files of job {base_job} instead",
            run.job
        ),
        Some(Ok(run)) => match run.image_of(&image.disk_unique_id) {
            None => {
                format!("{needs}, which did not save this disk; restore another point in time")
            }
            Some(base) => format!(
                "{needs}, but {} is of a disk of {} bytes and this one of {}: a managed disk never shrinks; restore \
                 another point in time",
                base.label(),
                base.size,
                image.size
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::saved::tests::{delta, document};
    use super::*;

    /// Runs of a VM with an OS disk `u`: epoch and base (0 for a full image).
    fn runs(of: &[(u64, u64)]) -> Runs {
        of.iter()
            .map(|&(epoch, base)| {
                let content = if base == 0 {
                    json!("full")
                } else {
                    delta(base)
                };
                let document = document(epoch, &[("osdisk", json!("os"), "u", content)]);
                (epoch, SavedRun::new(&document, b""))
            })
            .collect()
    }

    fn chain_of(runs: &Runs, epoch: u64) -> Result<Vec<u64>, String> {
        let newest = &runs[&epoch].as_ref().unwrap().images[0];
        let epoch_of =
            |image: &SavedImage| -> u64 { image.file.split_once('_').unwrap().0.parse().unwrap() };
        let chain = Chain::new(runs, newest)?;
        assert_eq!(epoch_of(chain.images().last().unwrap()), epoch);
        Ok(chain.images().map(epoch_of).collect())
    }

    #[test]
    fn links_decide_and_not_the_neighbourhood() {
        // F I I D I F(allback) I
        let runs = runs(&[(1, 0), (2, 1), (3, 2), (4, 1), (5, 4), (6, 0), (7, 6)]);
        assert_eq!(chain_of(&runs, 1).unwrap(), [1]);
        assert_eq!(chain_of(&runs, 3).unwrap(), [1, 2, 3]);
        assert_eq!(chain_of(&runs, 5).unwrap(), [1, 4, 5]);
        assert_eq!(chain_of(&runs, 7).unwrap(), [6, 7]);
    }

    #[test]
    fn a_missing_link_is_named() {
        let mut runs = runs(&[(1, 0), (3, 2), (4, 3)]);
        let reason = chain_of(&runs, 4).unwrap_err();
        for part in [
            "3_osdisk", "saved-u", "job-3", "job-2", "2_conf", "00:00:02",
        ] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        runs.insert(2, Err("it is damaged".into()));
        assert!(chain_of(&runs, 4).unwrap_err().contains("it is damaged"));

        let other = document(2, &[("osdisk", json!("os"), "other", json!("full"))]);
        runs.insert(2, SavedRun::new(&other, b""));
        let reason = chain_of(&runs, 4).unwrap_err();
        assert!(reason.contains("did not save this disk"), "{reason}");

        // Another File Daemon saved the same disk in the same second.
        let mut foreign = document(2, &[("osdisk", json!("os"), "u", json!("full"))]);
        foreign.job = "job-x".into();
        runs.insert(2, SavedRun::new(&foreign, b""));
        let reason = chain_of(&runs, 4).unwrap_err();
        assert!(
            reason.contains("came from job job-x") && reason.contains("files of job job-2"),
            "{reason}"
        );

        let mut larger = document(2, &[("osdisk", json!("os"), "u", json!("full"))]);
        larger.images[0].size_bytes *= 2;
        runs.insert(2, SavedRun::new(&larger, b""));
        let reason = chain_of(&runs, 4).unwrap_err();
        assert!(reason.contains("never shrinks"), "{reason}");
        assert_eq!(
            links(&runs, &runs[&4].as_ref().unwrap().images[0]).count(),
            2
        );
    }
}
