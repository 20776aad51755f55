//! Moments of a job, chosen by its progress: a seed finds the same ones again.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mock_server::{Action, Fault};

use crate::bench::Bench;

/// Whatever takes longer hangs.
pub const HANG: Duration = Duration::from_secs(120);

/// What a restore asks for when all its images are staged.
const BEHIND_STAGING: &str = "Disks_CreateOrUpdate";

/// A moment of a job.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// After this request of all that the emulator counts took effect, before its answer.
    Request(u64),
    /// When so many ranges of blobs have been asked for, footers among them, before the answer to the last.
    Read(u64),
    /// When more than this many bytes of images are in the working directory, or all of them.
    Staged(u64),
}

/// A number that the environment gives.
///
/// # Errors
///
/// It is none.
pub fn number(name: &str) -> Result<Option<u64>> {
    let text = env::var(name).ok();
    let number = text.map(|text| text.parse()).transpose();
    number.with_context(|| format!("read {name}"))
}

impl Bench {
    /// Counts from zero, and lets Azure stand still from the moment on, or from what follows it.
    pub fn hold_at(&self, moment: Moment) {
        let emulator = self.cloud.emulator();
        emulator.reset_counters();
        let never = Action::delay(Duration::from_secs(3600));
        emulator.fault(match moment {
            Moment::Request(number) => Fault::new("*", never).from(number),
            Moment::Read(number) => Fault::new("Blob_Get", never).from(number),
            Moment::Staged(_) => Fault::new(BEHIND_STAGING, never),
        });
    }

    /// Waits until the job is there; `false` if it ended before.
    ///
    /// # Errors
    ///
    /// It hangs.
    pub fn wait_for(&self, job: u32, moment: Moment) -> Result<bool> {
        let started = Instant::now();
        let mut asked = Instant::now();
        loop {
            let is_there = match moment {
                Moment::Request(number) => {
                    self.cloud.emulator().counters().all_requests() >= number
                }
                Moment::Read(number) => {
                    self.cloud.emulator().counters().requests("Blob_Get") >= number
                }
                Moment::Staged(bytes) => {
                    let folder = self.sandbox.file_daemon_directory();
                    bytes_below(&folder.join("azure-vm/restore")) > bytes
                        || self.cloud.emulator().counters().requests(BEHIND_STAGING) > 0
                }
            };
            if is_there {
                return Ok(true);
            }
            if asked.elapsed() > Duration::from_millis(200) {
                asked = Instant::now();
                let ended = format!(
                    "SELECT JobId FROM Job WHERE JobId = {job} AND JobStatus NOT IN ('C', 'R')"
                );
                if !self.sandbox.query(&ended)?.is_empty() {
                    return Ok(false);
                }
            }
            ensure!(started.elapsed() < HANG, "{moment:?} did not come");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Bytes that the files below a folder take; a file may go while it is looked at.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
