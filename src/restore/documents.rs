//! The documents of runs that came, and which of them count.
//!
//! A job and its copy may be restored together, so a document may come twice, and be damaged in one of them. One that cannot
//! be read gives way to one that can. Of configuration documents that differ the one counts of which the digests of the run
//! tell; they are sealed, and may come before or after. Reading documents is left to `saved` and `digests`.

use std::collections::BTreeMap;

use super::chain::Runs;
use super::saved::SavedRun;
use crate::digests::Digests;
use crate::document::Document;
use crate::notice::Notices;

/// Configuration documents of a run that are kept beside the first: nobody has more copies of a job.
const MOST_RIVALS: usize = 8;

/// What came, by the epoch of its run.
#[derive(Debug, Default)]
pub(super) struct Documents {
    runs: Runs,
    digests: BTreeMap<u64, Result<Digests, String>>,
    /// Those that differ from the one in `runs`, as long as nothing tells which of them was saved.
    rivals: BTreeMap<u64, Vec<(SavedRun, Document)>>,
}

impl Documents {
    /// The runs whose configuration documents came; why one cannot be used.
    pub(super) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The digests of a run, or why they cannot be used; `None` if none came.
    pub(super) fn digests(&self, epoch: u64) -> Option<Result<&Digests, &str>> {
        let known = self.digests.get(&epoch)?;
        Some(known.as_ref().map_err(String::as_str))
    }

    /// Takes what came as the configuration document of a run; the document that counts for it from now on, if that is
    /// another than before.
    pub(super) fn take_configuration(
        &mut self,
        path: &str,
        epoch: u64,
        parsed: Result<(SavedRun, Document), String>,
        notices: &Notices,
    ) -> Option<Document> {
        match (self.runs.get(&epoch), parsed) {
            // The good one that came before counts.
            (Some(Ok(_)), Err(_)) => None,
            (Some(Ok(known)), Ok((run, _))) if known.digest == run.digest => None,
            (Some(Ok(_)), Ok(rival)) => {
                let rivals = self.rivals.entry(epoch).or_default();
                if rivals.len() < MOST_RIVALS {
                    rivals.push(rival);
                }
                self.decide(epoch, notices)
            }
            (_, Ok((run, document))) => {
                self.runs.insert(epoch, Ok(run));
                Some(document)
            }
            (_, Err(reason)) => {
                notices.warning(format!("read configuration document {path}: {reason}"));
                self.runs.insert(epoch, Err(reason));
                None
            }
        }
    }

    /// Takes what came as the digests of a run; the configuration document that counts for it from now on, if that is
    /// another than before.
    ///
    /// # Errors
    ///
    /// Digests of another content came before, and both are what somebody saved.
    pub(super) fn take_digests(
        &mut self,
        path: &str,
        epoch: u64,
        parsed: Result<Digests, String>,
        notices: &Notices,
    ) -> Result<Option<Document>, String> {
        match (self.digests.get(&epoch), parsed) {
            // The good ones that came before count.
            (Some(Ok(_)), Err(_)) => Ok(None),
            (Some(Ok(known)), Ok(digests)) if *known == digests => Ok(None),
            (Some(Ok(known)), Ok(digests)) => Err(format!(
                "it came from job {} and, with another content, from job {}: two File Daemons saved this virtual machine in \
                 the same second; restore one of the jobs at a time",
                known.job, digests.job
            )),
            (_, Ok(digests)) => {
                self.digests.insert(epoch, Ok(digests));
                Ok(self.decide(epoch, notices))
            }
            (_, Err(reason)) => {
                notices.warning(format!("read digests {path}: {reason}"));
                self.digests.insert(epoch, Err(reason));
                Ok(None)
            }
        }
    }

    /// Why it cannot be told which configuration document of a run counts; `None` if it can.
    pub(super) fn undecided(&self, epoch: u64) -> Option<String> {
        let known = self.runs.get(&epoch)?.as_ref().ok()?;
        let (rival, _) = self.rivals.get(&epoch)?.first()?;
        Some(format!(
            "the configuration document {epoch}_conf came from job {} and, with another content, from job {}: two File Daemons \
             saved this virtual machine in the same second, or it is damaged in one of the copies; mark the files that end in \
             _digests, too, or restore one of the jobs at a time",
            known.job, rival.job
        ))
    }

    /// Of configuration documents that differ, the one that was saved takes its place, if it can be told.
    fn decide(&mut self, epoch: u64, notices: &Notices) -> Option<Document> {
        let digests = self.digests.get(&epoch)?.as_ref().ok()?;
        let known = self.runs.get(&epoch)?.as_ref().ok()?;
        let rivals = self.rivals.get(&epoch)?;
        let is_saved = |run: &SavedRun| run.digest == digests.conf_sha256;
        let better = rivals.iter().position(|(run, _)| is_saved(run));
        if better.is_none() && !is_saved(known) {
            return None;
        }
        notices.warning_once(format!(
            "the configuration document {epoch}_conf came with different contents; what counts is the one that job {} saved, by its \
             digests: the others are damaged, or another job's",
            digests.job
        ));
        let mut rivals = self.rivals.remove(&epoch)?;
        let (run, document) = rivals.swap_remove(better?);
        self.runs.insert(epoch, Ok(run));
        Some(document)
    }
}
