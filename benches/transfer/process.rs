//! The server as a process of its own, so that its cost is not counted with anybody's.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::server::{Behaviour, Counts, Ready};

/// A running server with a folder for files; both go when it is dropped.
pub(crate) struct ServerProcess {
    process: Child,
    ready: Ready,
    tls: bool,
    folder: tempfile::TempDir,
}

impl ServerProcess {
    pub(crate) fn start(behaviour: &Behaviour) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg(serde_json::to_string(behaviour)?)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let ready: Ready = serde_json::from_str(&line).context("the server did not start")?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("ca.pem"), &ready.ca_pem)?;
        Ok(Self {
            process,
            ready,
            tls: behaviour.tls,
            folder,
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.ready.port)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What was asked since the last call.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--cacert"])
            .arg(self.ca())
            .arg(self.url("/counts"))
            .output()
            .context("run curl")?;
        serde_json::from_slice(&output.stdout).context("read the server's counts")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It runs until it is ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
