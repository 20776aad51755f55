//! What `debug` shows: in a file per job, `<WorkingDir>/azure-vm/azure-vm_<jobid>_<pid>.log`, or on standard error.
//!
//! The file is made only when `debug` is above 0, readable by the File Daemon's user alone. It belongs to the job: a
//! subscriber of its own, set on the job's threads, so that jobs side by side do not mix and nothing process-wide is
//! touched. Standard error is for the command line, which has the process to itself.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use regex::bytes::Regex;
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;

/// Everything below this crate is traced under this name.
const OWN_TARGET: &str = "azure_vm_fd";

/// Opens the debug file of `job_id` in `state_dir` (made if it does not exist) for `level`, 1 to 9.
///
/// # Errors
///
/// The path, and why it cannot be used.
pub(crate) fn open(
    state_dir: &Path,
    job_id: i32,
    level: u8,
) -> Result<Dispatch, (PathBuf, io::Error)> {
    make_private_dir(state_dir).map_err(|error| (state_dir.to_owned(), error))?;
    let path = state_dir.join(format!("azure-vm_{job_id}_{}.log", std::process::id()));
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| (path, error))?;
    Ok(dispatch(file, level))
}

/// Shows on standard error what `level`, 1 to 9, asks for.
#[must_use]
pub fn to_stderr(level: u8) -> Dispatch {
    dispatch(io::stderr(), level)
}

fn dispatch(writer: impl Write + Send + 'static, level: u8) -> Dispatch {
    let layer = fmt::layer()
        .with_ansi(false)
        .with_thread_names(true)
        .with_writer(Mutex::new(Redacting(writer)))
        .with_filter(filter(level));
    Dispatch::new(registry().with(layer))
}

/// Makes `dir` and its parents; `dir` itself for its owner alone.
fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// `1`: debug messages; `2`: also trace messages; from `3` on what the libraries report, too. Of those never the trace
/// level: HTTP libraries show heads and bodies there.
fn filter(level: u8) -> Targets {
    let own = if level < 2 {
        LevelFilter::DEBUG
    } else {
        LevelFilter::TRACE
    };
    let libraries = if level < 3 {
        LevelFilter::OFF
    } else {
        LevelFilter::DEBUG
    };
    Targets::new()
        .with_default(libraries)
        .with_target(OWN_TARGET, own)
}

/// Secrets that may stand in a text as it goes over the wire: the value after each of these names.
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?i)(\bsig=|\bbearer\s+|client_secret=|application_secret\s*=\s*|accountkey=|"#,
        r#"sharedkey(?:lite)?\s+[a-z0-9]+:|(?:access_token|client_secret|accesssas)\\?"\s*:\s*\\?")"#,
        r#"[^\s&;"\\]+"#
    ))
    .expect("a constant expression")
});

/// A second guard behind types that cannot be printed: masks what looks like a secret.
#[derive(Debug)]
struct Redacting<W>(W);

impl<W: Write> Write for Redacting<W> {
    /// One call is one event, so nothing to be masked is split.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0
            .write_all(&SECRET.replace_all(event, &b"${1}***"[..]))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn logged(level: u8) -> String {
        let dir = tempfile::tempdir().expect("folder");
        let state_dir = dir.path().join("azure-vm");
        let dispatch = open(&state_dir, 12, level).expect("open");
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::warn!("own warning");
            tracing::debug!("own debug");
            tracing::trace!("own trace");
            tracing::debug!(target: "hyper::client", "library debug");
            tracing::trace!(target: "hyper::client", "library trace");
            tracing::warn!(
                "GET /disk?sv=2&sig=AbC%2F1 with Bearer eyJ.x.y and {{\"accessSAS\": \"https://x\"}}"
            );
        });
        let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        let file = state_dir.join(format!("azure-vm_12_{}.log", std::process::id()));
        assert_eq!((mode(&state_dir), mode(&file)), (0o700, 0o600));
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
            ]
            .map(|line| text.contains(line))
        };
        assert_eq!(seen(1), [true, true, false, false, false]);
        assert_eq!(seen(2), [true, true, true, false, false]);
        assert_eq!(seen(3), [true, true, true, true, false]);
        assert_eq!(seen(9), [true, true, true, true, false]);
    }

    #[test]
    fn what_looks_like_a_secret_is_masked() {
        let text = logged(9);
        assert!(text.contains("sig=*** with Bearer *** and"), "{text}");
        for secret in ["AbC", "eyJ", "https://x"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
