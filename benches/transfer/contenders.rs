//! Who is compared, and their command lines: ours, and what else a user would take.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::content::MIB;
use crate::process::ServerProcess;
use crate::server::{CREATED, DISK_READY, EARLIER, IMAGE};

/// A signature that this server does not look at.
const SAS: &str = "?sv=2021-12-02&sr=b&sig=made-up";
/// Takes what is read at no cost.
const NOWHERE: &str = "/dev/null";

/// Where `benches/peers/install` puts its programs.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers");
const PYTHON_PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/python_sdk.py");

/// A program that does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The floor: ranges handed to it, no list, no order, no checks.
    Curl,
    Azcopy,
    RustSdk,
    PythonSdk,
    AzureVm,
}

impl Contender {
    pub(crate) const ALL: [Self; 5] = [
        Self::Curl,
        Self::Azcopy,
        Self::RustSdk,
        Self::PythonSdk,
        Self::AzureVm,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl -Z",
            Self::Azcopy => "azcopy",
            Self::RustSdk => "Rust SDK",
            Self::PythonSdk => "Python SDK",
            Self::AzureVm => "azure-vm",
        }
    }

    fn program(self) -> PathBuf {
        let peers = Path::new(PEERS);
        match self {
            Self::Curl => "curl".into(),
            Self::Azcopy => peers.join("azcopy/azcopy"),
            Self::RustSdk => peers.join("rust-sdk/release/rust-sdk"),
            Self::PythonSdk => peers.join("sdk/bin/python"),
            Self::AzureVm => env!("CARGO_BIN_EXE_azure-vm").into(),
        }
    }

    /// Its version as it tells it; none: it is not there.
    pub(crate) fn version(self) -> Option<String> {
        let mut command = Command::new(self.program());
        match self {
            Self::RustSdk => command.arg("version"),
            Self::PythonSdk => command.args([PYTHON_PEER, "version"]),
            Self::Curl | Self::Azcopy | Self::AzureVm => command.arg("--version"),
        };
        let output = command
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // `curl 7.88.1 (…) …`, `azcopy version 10.32.2`, `azure-vm 0.1.0`, or the number alone.
        let mut words = text.split_whitespace();
        let number = words.find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
        Some(number.to_owned())
    }

    /// Whether a run of it takes so long that few of them must do.
    pub(crate) fn is_slow(self) -> bool {
        matches!(self, Self::Azcopy | Self::PythonSdk)
    }

    /// The whole image, to where it costs nothing to put it.
    pub(crate) fn pull(self, server: &ServerProcess, requests: usize) -> Result<Vec<String>> {
        match self {
            Self::Curl => curl(server, &crate::content::extents(), requests),
            Self::AzureVm => Ok(pull(server, Path::new("-"), requests)),
            Self::Azcopy => {
                let url = server.url(&format!("{IMAGE}{SAS}"));
                let arguments = [&url, NOWHERE, "--from-to=BlobLocal", "--check-md5=NoCheck"];
                Ok(azcopy(server, requests, &arguments))
            }
            Self::RustSdk | Self::PythonSdk => {
                Ok(self.sdk(server, "pull", IMAGE, Path::new(NOWHERE), requests))
            }
        }
    }

    /// What changed since the earlier snapshot, to a file; none: it cannot. `older` is an image of the earlier snapshot.
    pub(crate) fn pull_changes(
        self,
        server: &ServerProcess,
        older: &Path,
        newer: &Path,
        requests: usize,
    ) -> Result<Option<Vec<String>>> {
        let earlier = server.url(&format!("{EARLIER}{SAS}"));
        Ok(match self {
            Self::Curl => Some(curl(server, &crate::content::changes(), requests)?),
            Self::Azcopy | Self::RustSdk => None,
            Self::PythonSdk => {
                let mut command = self.sdk(server, "changes", IMAGE, newer, requests);
                command.push(earlier);
                Some(command)
            }
            Self::AzureVm => {
                let mut command = pull(server, newer, requests);
                command.extend(["--base".into(), earlier]);
                command.extend(["--base-file".into(), older.display().to_string()]);
                Some(command)
            }
        })
    }

    /// An upload of a raw image; none: there is nothing to compare with.
    pub(crate) fn push(
        self,
        server: &ServerProcess,
        from: &Path,
        requests: usize,
    ) -> Option<Vec<String>> {
        match self {
            Self::Curl => None,
            Self::Azcopy => {
                let url = server.url(&format!("{CREATED}{SAS}"));
                let from = from.display().to_string();
                Some(azcopy(
                    server,
                    requests,
                    &[&from, &url, "--from-to=LocalBlob"],
                ))
            }
            Self::RustSdk | Self::PythonSdk => {
                Some(self.sdk(server, "push", CREATED, from, requests))
            }
            Self::AzureVm => {
                let mut command = azure_vm(server, "push", DISK_READY, requests);
                command.extend(["--from".into(), from.display().to_string()]);
                Some(command)
            }
        }
    }

    /// Our program on top of one of Azure's libraries. They take further authorities from the environment.
    fn sdk(
        self,
        server: &ServerProcess,
        command: &str,
        blob: &str,
        file: &Path,
        requests: usize,
    ) -> Vec<String> {
        let mut words = vec![
            "env".to_owned(),
            format!("SSL_CERT_FILE={}", server.ca().display()),
            self.program().display().to_string(),
        ];
        if self == Self::PythonSdk {
            words.push(PYTHON_PEER.into());
        }
        words.extend([
            command.to_owned(),
            server.url(&format!("{blob}{SAS}")),
            file.display().to_string(),
            requests.to_string(),
        ]);
        words
    }
}

/// Bytes of the budget of one transfer with so many requests under way: what keeps the memory within its target.
fn memory(requests: usize) -> String {
    format!("{}M", (requests / 2).clamp(8, 16))
}

fn azure_vm(server: &ServerProcess, command: &str, blob: &str, requests: usize) -> Vec<String> {
    azure_vm_within(server, command, blob, requests, &memory(requests))
}

fn azure_vm_within(
    server: &ServerProcess,
    command: &str,
    blob: &str,
    requests: usize,
    memory: &str,
) -> Vec<String> {
    let url = server.url(&format!("{blob}{SAS}"));
    let ca = server.ca().display().to_string();
    let requests = requests.to_string();
    [
        env!("CARGO_BIN_EXE_azure-vm"),
        command,
        &url,
        "--allow-http",
        "--ca-file",
        &ca,
        "--concurrency",
        &requests,
        "--memory",
        memory,
    ]
    .map(str::to_owned)
    .into()
}

/// `azure-vm pull` of the whole image; `-` is standard output.
pub(crate) fn pull(server: &ServerProcess, to: &Path, requests: usize) -> Vec<String> {
    let mut command = azure_vm(server, "pull", IMAGE, requests);
    command.extend(["--to".into(), to.display().to_string()]);
    command
}

/// `azure-vm pull` of the whole image to nowhere, with so many requests under way and so many MiB of `memory`.
pub(crate) fn pull_within(server: &ServerProcess, requests: usize, memory: u64) -> Vec<String> {
    let memory = format!("{memory}M");
    let mut command = azure_vm_within(server, "pull", IMAGE, requests, &memory);
    command.extend(["--to".into(), "-".into()]);
    command
}

/// `azcopy copy`, with everything that it writes beside the data in a folder that goes with the server.
fn azcopy(server: &ServerProcess, requests: usize, arguments: &[&str]) -> Vec<String> {
    let folder = server.folder().join("azcopy");
    let mut words = vec![
        "env".to_owned(),
        format!("SSL_CERT_FILE={}", server.ca().display()),
        format!("AZCOPY_LOG_LOCATION={}", folder.display()),
        format!("AZCOPY_JOB_PLAN_LOCATION={}", folder.display()),
        format!("AZCOPY_CONCURRENCY_VALUE={requests}"),
        Contender::Azcopy.program().display().to_string(),
        "copy".to_owned(),
    ];
    words.extend(arguments.iter().copied().map(str::to_owned));
    words.extend(
        // Of 1, 2, 4 and 8 MiB (its own choice) this block size was the best for it: blocks that hold nothing are left
        // out, all others are moved whole.
        "--block-size-mb 1 --blob-type PageBlob --log-level NONE --output-level quiet --skip-version-check"
            .split(' ')
            .map(str::to_owned),
    );
    words
}

/// `curl -Z` with the ranges handed to it, at most 4 MiB each.
fn curl(server: &ServerProcess, ranges: &[Range<u64>], connections: usize) -> Result<Vec<String>> {
    let (url, ca) = (server.url(IMAGE), server.ca());
    let mut transfers = Vec::new();
    for range in ranges {
        let starts = (range.start..range.end).step_by(usize::try_from(4 * MIB)?);
        transfers.extend(starts.map(|start| {
            let last = range.end.min(start + 4 * MIB) - 1;
            format!(
                "url = \"{url}\"\nrange = \"{start}-{last}\"\noutput = \"{NOWHERE}\"\ncacert = \"{}\"\nsilent\nfail\n",
                ca.display()
            )
        }));
    }
    let file = server.folder().join(format!("{}.curl", ranges.len()));
    fs::write(&file, transfers.join("next\n"))?;
    let (connections, file) = (connections.to_string(), file.display().to_string());
    Ok([
        "curl",
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        &connections,
        "--config",
        &file,
    ]
    .map(str::to_owned)
    .into())
}
