//! `PKI Encryption` of the File Daemon: nothing readable is ever stored by a job that claims to encrypt.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Generation, JOB, on_both_generations};
use mock_server::{Disk, GIB, Scenario, Vm};

on_both_generations!(
    a_file_daemon_that_encrypts_is_refused_and_nothing_readable_is_stored,
    encryption_that_a_command_switches_on_is_seen,
);

/// What the guest's disk holds and no volume may.
const MARK: &[u8] = b"the quick brown fox signs the ledger";

fn a_file_daemon_that_encrypts_is_refused_and_nothing_readable_is_stored(
    generation: Generation,
) -> Result<()> {
    refused(generation, "PKI Encryption = yes")
}

fn encryption_that_a_command_switches_on_is_seen(generation: Generation) -> Result<()> {
    refused(generation, "@|\"echo PKI Encryption = yes\"")
}

fn refused(generation: Generation, directive: &str) -> Result<()> {
    let keys = tempfile::tempdir()?;
    let pair = key_pair(keys.path())?;
    let world = Scenario::new().vm(Vm::new("rg", "web", Disk::new("web-os", GIB)));
    let bench = Bench::start_with(generation, world, "vm=web", |config| {
        config.file_daemon =
            format!("PKI Signatures = yes; PKI Keypair = \"{pair}\"\n  {directive}");
    })?;
    bench.cloud.emulator().guest_write("web-os", 4096, MARK)?;
    let report = bench.sandbox.backup(JOB, "Full")?;
    ensure!(report.status == 'f', "{}", report.log);
    let lines = report.lines_with("PKI Encryption");
    ensure!(lines.len() == 1, "not one clear line:\n{}", report.log);
    ensure!(
        lines[0].contains("azure-vm: ") && lines[0].contains("bacula-fd.conf"),
        "{}",
        lines[0]
    );
    for entry in fs::read_dir(bench.sandbox.volume_directory())? {
        let volume = fs::read(entry?.path())?;
        ensure!(
            !volume.windows(MARK.len()).any(|window| window == MARK),
            "the guest's data is readable on the volume"
        );
    }
    // Nothing was asked of Azure.
    ensure!(
        bench.cloud.state().snapshots.is_empty(),
        "snapshots are left"
    );
    ensure!(
        bench
            .cloud
            .emulator()
            .counters()
            .requests("Snapshots_CreateOrUpdate")
            == 0,
        "a snapshot was made"
    );
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

/// A self-signed certificate with its key in one PEM file, as Bacula wants it.
fn key_pair(directory: &Path) -> Result<String> {
    let [key, certificate, pair] =
        ["key.pem", "certificate.pem", "pair.pem"].map(|name| directory.join(name));
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=bench",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .context("run openssl; is it installed? `make deps` does it")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(&pair, [fs::read(&key)?, fs::read(&certificate)?].concat())?;
    Ok(pair.display().to_string())
}
