//! Writes `docs/JOBLOGS.md`: the job logs of a Full, an Incremental, a fallback and a restore, from real Bacula daemons
//! against the emulator.
#![allow(
    clippy::print_stdout,
    reason = "a program whose purpose is to tell what happens"
)]

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Cloud, Generation, JobDefinition, JobReport, RestoreRequest, Sandbox, SandboxConfig,
    USUAL_CONFIGURATION, plugin, workspace,
};
use mock_server::{
    Change, DEFAULT_CLIENT_SECRET, DEFAULT_STORAGE_KEY, Disk, GIB, KIB, Link, MIB,
    NetworkInterface, Scenario, Vm,
};

const DOCUMENT: &str = "docs/JOBLOGS.md";
const GROUP: &str = "rg-ledger";
const NAME: &str = "ledger01";
const NEW_NAME: &str = "ledger01-restored";
const OS: &str = "ledger01-os";
/// The disk that loses its snapshots.
const DATA: &str = "ledger01-data";
const LOGS: &str = "ledger01-logs";
const JOB: &str = "azure-ledger";

/// So that times and rates look like those of a network. Per connection.
const LINK: Link = Link {
    latency: Duration::from_millis(10),
    bandwidth: Some(8 * MIB),
};

const INTRODUCTION: &str = "\
# Job logs

Four jobs of one virtual machine, one after the other: a Full, an Incremental, an Incremental that had to save one disk in full, and a
restore from all three. These are the logs as the Director keeps them, of real daemons of Bacula 15.0. In place of Azure stands the
[emulator](../mock-server/README.md) with a slowed-down network, so that times and rates say nothing about Azure; the disks are large and
hold little. `make joblogs` runs the jobs again and rewrites this page. It puts usual folders and ports in place of those of the run
and changes nothing else.

Lines with `azure-vm:` are the plugin's, the rest is Bacula's. A line with `Error:` in a job that ended `OK -- with warnings` asks to be
read; [Troubleshooting](TROUBLESHOOTING.md) tells what to do.
";

const FULL: &str = "\
One line per disk: its size; what Azure has allocated of it; what was read and what of that was sent to the Storage Daemon, without blocks
of zeros; time and rate; how much of the time was spent waiting for Azure. A small disk is read ahead while the one before it is sent, so
its own time can be next to nothing. The seventh file of Bacula's count is the template of the restore options.";

const INCREMENTAL: &str = "\
Each disk names the run that its changes build on, here the Full. `written` was read and sent; `cleared` (the guest discarded it) is only
noted, and costs nothing.";

const FALLBACK: &str = "\
Before this run somebody deleted the snapshots of one disk. Its changes cannot be told any more, so it is saved in full, which the `Error:`
line says and why. The other two disks are not affected. The job is good, and its status shows that something was unusual.";

const RESTORE: &str = "\
The virtual machine was deleted and comes back under another name. Per disk one line says which images it is made of: those of the disk
that was saved in full before its last run are skipped. Then come the uploads, with the names of the new disks, in the order in which
they end, and the new virtual machine.";

/// A section of the document.
struct Section {
    title: &'static str,
    text: &'static str,
    log: String,
}

fn main() -> ExitCode {
    let started = Instant::now();
    match run() {
        Ok(()) => {
            println!(
                "{DOCUMENT} is written, in {:.0} s",
                started.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let cloud = Cloud::start(world())?;
    cloud.emulator().set_link(LINK);
    let sandbox = Sandbox::start(&SandboxConfig {
        generation: Generation::V15_0,
        jobs: vec![JobDefinition::plugin(
            JOB,
            &cloud.plugin_command(&format!("vm={NAME}")),
        )],
        plugin: Some(plugin()?),
        ..SandboxConfig::default()
    })?;
    let mut document = INTRODUCTION.to_owned();
    for Section { title, text, log } in tell(&cloud, &sandbox)? {
        let log = neutral(&log, &cloud, &sandbox)?;
        write!(
            document,
            "\n## {title}\n\n{text}\n\n```\n{}\n```\n",
            log.trim_end()
        )?;
    }
    fs::write(workspace().join(DOCUMENT), document).with_context(|| format!("write {DOCUMENT}"))
}

/// A small server: large disks with little on them.
fn world() -> Scenario {
    let os = Disk::new(OS, 30 * GIB)
        .pattern(1, 0, 64 * MIB)
        .ranges(2, GIB, 250, 64 * KIB, 100 * MIB)
        .zeros(28 * GIB, 16 * MIB);
    let data = Disk::new(DATA, 8 * GIB).pattern(3, 0, 48 * MIB);
    let logs = Disk::new(LOGS, 4 * GIB)
        .sku("StandardSSD_LRS")
        .pattern(4, MIB, 12 * MIB);
    let nic = NetworkInterface::new("ledger01-nic", "vnet-ledger/app").static_address("10.1.0.17");
    Scenario::new()
        .resource_group(GROUP, "westeurope")
        .network(GROUP, "vnet-ledger", &[("app", "10.1.0.0/24")])
        .vm(Vm::new(GROUP, NAME, os)
            .size("Standard_D2s_v5")
            .zone("1")
            .data_disk(0, data)
            .data_disk(5, logs)
            .nic(nic))
}

/// Runs the jobs; each must end as its section says.
fn tell(cloud: &Cloud, sandbox: &Sandbox) -> Result<[Section; 4]> {
    let full = sandbox.backup(JOB, "Full")?.clean()?;
    told(&full);

    work(cloud, 1)?;
    let incremental = sandbox.backup(JOB, "Incremental")?.clean()?;
    told(&incremental);

    delete_snapshots_of(cloud, DATA)?;
    work(cloud, 2)?;
    let fallback = sandbox.backup(JOB, "Incremental")?;
    ensure!(
        fallback.status == 'T' && fallback.log.contains("Backup OK -- with warnings"),
        "the job did not end with warnings:\n{}",
        fallback.log
    );
    ensure!(
        fallback.lines_with("is saved as a full image").len() == 1,
        "not one disk is saved in full:\n{}",
        fallback.log
    );
    told(&fallback);

    cloud.delete_vm(NAME)?;
    let restore = sandbox
        .restore(&RestoreRequest {
            jobs: vec![full.id, incremental.id, fallback.id],
            ..RestoreRequest::named(NEW_NAME)
        })?
        .clean()?;
    ensure!(
        cloud.state().vm(NEW_NAME).is_some(),
        "no VM {NEW_NAME} was made:\n{}",
        restore.log
    );
    told(&restore);
    ensure!(
        cloud.emulator().unmodelled().is_empty(),
        "the emulator did not know all requests"
    );

    Ok([
        Section {
            title: "Full",
            text: FULL,
            log: full.log,
        },
        Section {
            title: "Incremental",
            text: INCREMENTAL,
            log: incremental.log,
        },
        Section {
            title: "Incremental with a fallback",
            text: FALLBACK,
            log: fallback.log,
        },
        Section {
            title: "Restore",
            text: RESTORE,
            log: restore.log,
        },
    ])
}

fn told(job: &JobReport) {
    println!(
        "job {}: status {}, {} errors, {:.1} s",
        job.id,
        job.status,
        job.errors,
        job.elapsed.as_secs_f64()
    );
}

/// The guest writes on all disks, somewhere else in each round, and discards on one.
fn work(cloud: &Cloud, round: u64) -> Result<()> {
    let emulator = cloud.emulator();
    emulator.guest_pattern(OS, 10 + round, 2 * GIB + round * 5 * MIB, 3 * MIB)?;
    emulator.guest_pattern(DATA, 20 + round, round * 20 * MIB, 8 * MIB)?;
    emulator.guest_pattern(LOGS, 30 + round, (12 + round) * MIB, MIB)?;
    emulator.guest_discard(OS, round * 8 * MIB, 4 * MIB)?;
    Ok(())
}

/// Somebody wants to save money.
fn delete_snapshots_of(cloud: &Cloud, disk: &str) -> Result<()> {
    let suffix = format!("/{disk}");
    let state = cloud.state();
    let snapshots = state.snapshots.into_iter();
    for snapshot in snapshots.filter(|snapshot| snapshot.source.ends_with(&suffix)) {
        cloud.emulator().change(&Change::DeleteSnapshot {
            snapshot: snapshot.name,
        })?;
    }
    Ok(())
}

/// The log without what differs from machine to machine and means nothing to a reader.
///
/// # Errors
///
/// Something is left that must not be published.
fn neutral(log: &str, cloud: &Cloud, sandbox: &Sandbox) -> Result<String> {
    let root = sandbox.root();
    let mut log: String = log.lines().map(|line| usual_port(line) + "\n").collect();
    for (path, usual) in [
        (cloud.config_file(), USUAL_CONFIGURATION),
        (sandbox.file_daemon_directory(), "/opt/bacula/working"),
        (root.join("restored"), "/tmp/bacula-restores"),
        (root.to_owned(), "/opt/bacula"),
    ] {
        log = log.replace(&*path.to_string_lossy(), usual);
    }
    for secret in [DEFAULT_CLIENT_SECRET, DEFAULT_STORAGE_KEY, "sig=", "Bearer"] {
        ensure!(!log.contains(secret), "a secret is in a job log");
    }
    Ok(log)
}

/// `Connected to Storage "bench-sd" at 127.0.0.1:21744 with TLS`, with Bacula's own port.
fn usual_port(line: &str) -> String {
    const ADDRESS: &str = " at 127.0.0.1:";
    let Some((before, after)) = line.split_once(ADDRESS) else {
        return line.to_owned();
    };
    let port = if before.contains("Client") {
        9102
    } else {
        9103
    };
    let rest = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
    format!("{before}{ADDRESS}{port}{rest}")
}
