//! The command lines that are measured: ours, and what else a user would take.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::Result;

use crate::content::MIB;
use crate::process::ServerProcess;

/// A signature that this server does not look at.
const SAS: &str = "?sv=2021-12-02&sr=b&sig=made-up";
/// Where the image is that is read, and the earlier snapshot of it.
const IMAGE: &str = "/read/image";
const EARLIER: &str = "/read/earlier";

/// Bytes of the budget of one transfer with so many requests under way: what keeps the memory within its target.
fn memory(requests: usize) -> String {
    format!("{}M", (requests / 2).clamp(16, 32))
}

fn azure_vm(server: &ServerProcess, command: &str, blob: &str, requests: usize) -> Vec<String> {
    let url = server.url(&format!("{blob}{SAS}"));
    let ca = server.ca().display().to_string();
    let (requests, memory) = (requests.to_string(), memory(requests));
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
        &memory,
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

/// `azure-vm pull --base` of what changed; `older` is an image of the earlier snapshot.
pub(crate) fn pull_changes(
    server: &ServerProcess,
    older: &Path,
    to: &Path,
    requests: usize,
) -> Vec<String> {
    let mut command = pull(server, to, requests);
    let base = server.url(&format!("{EARLIER}{SAS}"));
    command.extend(["--base".into(), base]);
    command.extend(["--base-file".into(), older.display().to_string()]);
    command
}

/// `azure-vm push` of a raw image.
pub(crate) fn push(server: &ServerProcess, from: &Path, requests: usize) -> Vec<String> {
    let mut command = azure_vm(server, "push", "/upload/image", requests);
    command.extend(["--from".into(), from.display().to_string()]);
    command
}

/// `curl -Z` with the ranges handed to it, at most 4 MiB each: no list, no order, no checks. The floor.
pub(crate) fn curl(
    server: &ServerProcess,
    ranges: &[Range<u64>],
    connections: usize,
) -> Result<Vec<String>> {
    let (url, ca) = (server.url(IMAGE), server.ca());
    let mut transfers = Vec::new();
    for range in ranges {
        let starts = (range.start..range.end).step_by(usize::try_from(4 * MIB)?);
        transfers.extend(starts.map(|start| {
            let last = range.end.min(start + 4 * MIB) - 1;
            format!(
                "url = \"{url}\"\nrange = \"{start}-{last}\"\noutput = \"/dev/null\"\ncacert = \"{}\"\nsilent\nfail\n",
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
