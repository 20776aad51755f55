//! What `debug` shows: in a file per job, `<WorkingDir>/azure-vm/azure-vm_<jobid>_<pid>.log`, or on standard error.
//!
//! From level 3 on the libraries speak, too: hyper through tracing, rustls through a bridge from `log`. The file stops
//! growing at 1 GiB; what a person must know is in the job log in any case.
//!
//! The file is made only when `debug` is above 0, readable by the File Daemon's user alone. It belongs to the job: a
//! subscriber of its own, set on the job's threads, so that jobs side by side do not mix and nothing process-wide is
//! touched. Standard error is for the command line, which has the process to itself.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, Once};

use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_log::LogTracer;
use tracing_log::log::LevelFilter as LogLevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;

use crate::private_folder::PrivateFolder;
use crate::secret::mask;

/// The first level at which libraries are heard.
const LIBRARIES: u8 = 3;

/// Everything below this crate is traced under this name.
const OWN_TARGET: &str = "azure_vm_fd";

/// At `debug=2` a job leaves some hundred bytes per request, so this is millions of them: nobody reads more, and the
/// folder is the one where a restore stages its images.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The last line of a file that was full.
const FULL: &str = "the debug file ends here: it has reached its largest size\n";

/// Opens the debug file of `job_id` in `folder` for `level`, 1 to 9.
///
/// # Errors
///
/// The path, and why it cannot be used.
pub(crate) fn open(
    folder: &PrivateFolder,
    job_id: i32,
    level: u8,
) -> Result<Dispatch, (PathBuf, io::Error)> {
    let place = folder.file(format!("azure-vm_{job_id}_{}.log", std::process::id()));
    let file = place
        .open(OpenOptions::new().create(true).append(true))
        .map_err(|error| (place.shown(), error))?;
    Ok(dispatch(file, MAX_FILE_BYTES, level))
}

/// Shows on standard error what `level`, 1 to 9, asks for.
#[must_use]
pub fn to_stderr(level: u8) -> Dispatch {
    dispatch(io::stderr(), u64::MAX, level)
}

fn dispatch(writer: impl Write + Send + 'static, limit: u64, level: u8) -> Dispatch {
    if level >= LIBRARIES {
        hear_log();
    }
    let layer = fmt::layer()
        .with_ansi(false)
        .with_thread_names(true)
        .with_writer(Mutex::new(Redacting {
            writer,
            left: limit,
        }))
        .with_filter(filter(level));
    Dispatch::new(registry().with(layer))
}

/// Takes what libraries say through the crate `log` to the present thread's subscriber. The logger is this library's own:
/// the host and other plugins have none, or another copy.
fn hear_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let bridge = LogTracer::builder().with_max_level(LogLevelFilter::Debug);
        // Fails only if there is a logger already, and nobody else makes one.
        drop(bridge.init());
    });
}

/// `1`: debug messages; `2`: also trace messages; from `3` on what the libraries report, too. Of those never the trace
/// level: HTTP libraries show heads and bodies there.
fn filter(level: u8) -> Targets {
    let own = if level < 2 {
        LevelFilter::DEBUG
    } else {
        LevelFilter::TRACE
    };
    let libraries = if level < LIBRARIES {
        LevelFilter::OFF
    } else {
        LevelFilter::DEBUG
    };
    Targets::new()
        .with_default(libraries)
        .with_target(OWN_TARGET, own)
}

/// A second guard behind types that cannot be printed: masks what looks like a secret. Also keeps count.
#[derive(Debug)]
struct Redacting<W> {
    writer: W,
    /// Bytes that may still be written.
    left: u64,
}

impl<W: Write> Write for Redacting<W> {
    /// One call is one event, so nothing to be masked is split.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if self.left > 0 {
            let masked = mask(event);
            let left = self.left.checked_sub(masked.len() as u64);
            self.left = left.unwrap_or(0);
            match left {
                Some(_) => self.writer.write_all(&masked)?,
                None => self.writer.write_all(FULL.as_bytes())?,
            }
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn logged(level: u8) -> String {
        let dir = tempfile::tempdir().expect("folder");
        let folder = PrivateFolder::open(dir.path()).expect("ours");
        let dispatch = open(&folder, 12, level).expect("open");
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::warn!("own warning");
            tracing::debug!("own debug");
            tracing::trace!("own trace");
            tracing::debug!(target: "hyper::client", "library debug");
            tracing::trace!(target: "hyper::client", "library trace");
            tracing_log::log::debug!(target: "rustls::client", "logged debug");
            tracing_log::log::trace!(target: "rustls::client", "logged trace");
            tracing::warn!(
                "GET /disk?sv=2&sig=AbC%2F1 with Bearer eyJ.x.y and {{\"accessSAS\": \"https://x\"}}"
            );
        });
        let file = dir
            .path()
            .join(format!("azure-vm_12_{}.log", std::process::id()));
        let mode = fs::metadata(&file).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::read_to_string(file).expect("read")
    }

    #[test]
    fn levels_follow_the_contract() {
        let seen = |level| {
            let text = logged(level);
            [
                "own warning",
                "own debug",
                "own trace",
                "library debug",
                "library trace",
                "logged debug",
                "logged trace",
            ]
            .map(|line| text.contains(line))
        };
        assert_eq!(seen(1), [true, true, false, false, false, false, false]);
        assert_eq!(seen(2), [true, true, true, false, false, false, false]);
        assert_eq!(seen(3), [true, true, true, true, false, true, false]);
        assert_eq!(seen(9), [true, true, true, true, false, true, false]);
    }

    #[test]
    fn what_looks_like_a_secret_is_masked() {
        let text = logged(9);
        assert!(text.contains("sig=*** with Bearer *** and"), "{text}");
        for secret in ["AbC", "eyJ", "https://x"] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().expect("folder");
        let at = |name: &str| dir.path().join(name);
        let own = format!("azure-vm_12_{}.log", std::process::id());
        fs::create_dir(at("elsewhere")).expect("make");
        let folder = PrivateFolder::make(&at("azure-vm")).expect("make");
        symlink(at("elsewhere/x"), at("azure-vm").join(&own)).expect("link");
        let (path, error) = open(&folder, 12, 9).expect_err("refused");
        assert_eq!(path, at("azure-vm").join(&own));
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert_eq!(fs::read_dir(at("elsewhere")).expect("list").count(), 0);
    }

    #[test]
    fn a_file_stops_growing() {
        let mut file = Redacting {
            writer: Vec::new(),
            left: 10,
        };
        for line in ["one\n", "two\n", "three\n", "4\n"] {
            assert_eq!(file.write(line.as_bytes()).expect("taken"), line.len());
        }
        assert_eq!(file.writer, format!("one\ntwo\n{FULL}").as_bytes());
    }
}
