//! Saves a VM with real Bacula daemons against the emulator, loses it, brings it back and compares every byte.
#![allow(
    clippy::print_stdout,
    reason = "a program whose purpose is to tell what happens"
)]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use bacula_bench::{
    Cloud, Finding, JobDefinition, JobReport, Ledger, RestoreRequest, Sandbox, SandboxConfig,
    VmShape, compare_vms, leftovers, mebibytes, plugin,
};

/// Name of the restored VM.
const NEW_NAME: &str = "ledger01-restored";

fn main() -> ExitCode {
    let started = Instant::now();
    match run() {
        Ok(0) => {
            println!(
                "\nAll as it should be, in {:.0} s.",
                started.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Ok(differences) => {
            println!("\n{differences} DIFFERENCES, see above.");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells the story; returns how many things are not as they should be.
fn run() -> Result<usize> {
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::create(directory.path(), 2)?;
    let cloud = Cloud::start(ledger.scenario())?;
    let emulator = cloud.emulator();
    println!(
        "Azure emulator   {} and {}",
        emulator.https_url(),
        emulator.http_url()
    );
    println!("Virtual machine  {}", Ledger::NAME);
    for disk in cloud.state().disks {
        println!(
            "    {:20} {:6.0} MiB, {:7.1} MiB allocated",
            disk.name,
            mebibytes(disk.size_bytes),
            mebibytes(disk.allocated_bytes)
        );
    }
    let mut sandbox = Sandbox::start(&SandboxConfig {
        jobs: vec![JobDefinition::plugin(
            "azure",
            &cloud.plugin_command(&format!("vm={}", Ledger::NAME)),
        )],
        plugin: Some(plugin()?),
        ..SandboxConfig::default()
    })?;
    let result = tell(&ledger, &cloud, &sandbox);
    if !matches!(result, Ok(0)) {
        println!("\nThe daemons' logs are in {}", sandbox.keep().display());
    }
    result
}

fn tell(ledger: &Ledger, cloud: &Cloud, sandbox: &Sandbox) -> Result<usize> {
    let mut differences = 0;
    let saved = VmShape::of(cloud, Ledger::NAME)?;
    let snapshots = 1 + ledger.data.len();

    println!("\n1. Full backup by Bacula");
    let backup = sandbox.backup("azure", "Full")?;
    show_job(&backup);
    ensure!(backup.is_clean(), "the backup did not end well");
    let read = cloud.emulator().counters().of("Blob_Get").bytes_out;
    println!(
        "    {} files, {:.1} MiB saved, {:.1} MiB read from Azure, {:.1} s",
        backup.files,
        mebibytes(backup.bytes),
        mebibytes(read),
        backup.elapsed.as_secs_f64()
    );
    for file in sandbox.files(backup.id)? {
        println!("    {file}");
    }

    println!("\n2. The VM, its disks and its network interface are deleted");
    cloud.delete_vm(Ledger::NAME)?;
    println!("  Left in Azure after the backup");
    differences += show(&leftovers(cloud, sandbox, snapshots)?);

    println!("\n3. Restore by Bacula as {NEW_NAME}");
    let restore = sandbox.restore(&RestoreRequest {
        jobs: vec![backup.id],
        plugin_options: vec![("new_hostname".into(), NEW_NAME.into())],
        ..RestoreRequest::default()
    })?;
    show_job(&restore);
    ensure!(restore.is_clean(), "the restore did not end well");

    println!("\n4. What came back");
    println!("  Disks against the guest's own");
    differences += show(&ledger.compare_disks(cloud, NEW_NAME)?);
    println!("  The VM against the saved one");
    differences += show(&compare_vms(&saved, &VmShape::of(cloud, NEW_NAME)?));
    println!("  Left after the restore");
    differences += show(&leftovers(cloud, sandbox, snapshots)?);
    Ok(differences)
}

/// The plugin's lines and the result from a job log.
fn show_job(report: &JobReport) {
    for line in report.log.lines() {
        let line = line.trim();
        let wanted = ["azure-vm:", "Termination:", "Error:", "Fatal error:"];
        if wanted.iter().any(|word| line.contains(word)) {
            // `bench-fd JobId 1: azure-vm: …` says who twice.
            println!(
                "    | {}",
                line.split_once("azure-vm: ").map_or(line, |(_, text)| text)
            );
        }
    }
}

fn show(findings: &[Finding]) -> usize {
    for finding in findings {
        let mark = if finding.good { "ok " } else { "BAD" };
        println!("    {mark} {:17} {}", finding.subject, finding.text);
    }
    findings.iter().filter(|finding| !finding.good).count()
}
