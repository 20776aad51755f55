//! What goes wrong ends the job with one clear line, in bounded time, and leaves nothing behind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, JOB, JobDefinition, JobReport, RestoreRequest, Sandbox,
    SandboxConfig, can_mount, leftovers, on_both_generations, plugin,
};
use mock_server::{Action, Disk, Fault, GIB, Link, MIB, Scenario, Vm};

on_both_generations!(
    a_hopeless_backup_fails_with_one_clear_line,
    a_disk_that_azure_refuses_fails_the_restore,
    a_full_local_disk_fails_the_restore_before_azure_is_touched,
    a_read_that_fails_for_good_in_mid_image_is_fatal,
    a_cancelled_backup_ends_promptly_and_leaves_nothing
);

/// Longest time that a hopeless job may take: the retries of an endpoint that may come back are part of it.
const FAILURE_LIMIT: Duration = Duration::from_secs(180);

/// Longest time from a cancel to the job's end: access and snapshots are given back in it.
const CANCEL_LIMIT: Duration = Duration::from_secs(15);

fn world() -> Scenario {
    let os = Disk::new("web-os", GIB).pattern(1, 0, 4 * MIB);
    Scenario::new().vm(Vm::new("rg", "web", os))
}

/// A backup that must fail, and the words that its one line must contain.
struct Case {
    name: &'static str,
    changes: &'static [(&'static str, Option<&'static str>)],
    parameters: &'static str,
    words: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "wrong-secret",
        changes: &[("application_secret", Some("not-the-secret"))],
        parameters: "vm=web",
        words: &["secret is wrong", "AADSTS7000215"],
    },
    Case {
        name: "unknown-tenant",
        changes: &[("tenant_id", Some("99999999-0000-4000-8000-000000000009"))],
        parameters: "vm=web",
        words: &["tenant", "99999999-0000-4000-8000-000000000009"],
    },
    Case {
        name: "unreachable-endpoint",
        // Port 9 (discard) of the loopback address: refused at once on any usual machine.
        changes: &[("authority", Some("https://127.0.0.1:9"))],
        parameters: "vm=web",
        words: &["127.0.0.1:9"],
    },
    Case {
        name: "untrusted-certificate",
        changes: &[("ca_file", None)],
        parameters: "vm=web",
        words: &["certificate", "ca_file"],
    },
    Case {
        name: "missing-parameter",
        changes: &[("application_secret", None), ("tenant_id", None)],
        parameters: "vm=web",
        words: &["application_secret", "tenant_id"],
    },
    Case {
        name: "unknown-parameter",
        changes: &[],
        parameters: "vm=web secret_id=x",
        words: &["secret_id", "application_secret"],
    },
    Case {
        name: "missing-vm",
        changes: &[],
        parameters: "vm=wep",
        words: &["wep"],
    },
    Case {
        name: "empty-selection",
        changes: &[],
        parameters: "include=wep(.*)",
        words: &["none of 1 virtual machines passes include=wep(.*)"],
    },
];

fn a_hopeless_backup_fails_with_one_clear_line(generation: Generation) -> Result<()> {
    let cloud = Cloud::start(world())?;
    let jobs = CASES
        .iter()
        .map(|case| {
            let config = cloud.write_config(&format!("{}.conf", case.name), case.changes)?;
            let command = format!("azure-vm: config={} {}", config.display(), case.parameters);
            Ok(JobDefinition::plugin(case.name, &command))
        })
        .collect::<Result<Vec<_>>>()?;
    let sandbox = Sandbox::start(&SandboxConfig {
        generation,
        jobs,
        plugin: Some(plugin()?),
        ..SandboxConfig::default()
    })?;
    for case in CASES {
        let report = sandbox.backup(case.name, "Full")?;
        expect_failure(case.name, &report, case.words)?;
        expect_nothing_left(&cloud, &sandbox, 0)?;
    }
    Ok(())
}

fn a_disk_that_azure_refuses_fails_the_restore(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, world(), "vm=web")?;
    let backup = bench.full()?;
    bench.cloud.delete_vm("web")?;
    let request = RestoreRequest {
        jobs: vec![backup.id],
        ..RestoreRequest::default()
    };
    let refusals = [
        ("refused", Action::error(409, "OperationNotAllowed")),
        (
            "failed",
            Action::FailOperation {
                code: "AllocationFailed".into(),
                message: "No capacity in the zone.".into(),
            },
        ),
    ];
    let words = ["OperationNotAllowed", "AllocationFailed"];
    for ((name, action), word) in refusals.into_iter().zip(words) {
        let emulator = bench.cloud.emulator();
        emulator.fault(Fault::new("Disks_CreateOrUpdate", action));
        let report = bench.sandbox.restore(&request)?;
        emulator.clear_faults();
        expect_failure(name, &report, &["disk", word])?;
        expect_nothing_left(&bench.cloud, &bench.sandbox, 1)?;
    }
    // Nothing that was left stands in the way of the next attempt.
    let report = bench.sandbox.restore(&request)?;
    ensure!(report.is_clean(), "the restore failed:\n{}", report.log);
    Ok(())
}

fn a_full_local_disk_fails_the_restore_before_azure_is_touched(
    generation: Generation,
) -> Result<()> {
    if !can_mount() {
        println!("skipped: this user may not mount a small file system");
        return Ok(());
    }
    let bench = Bench::start_with(generation, world(), "vm=web", |config| {
        config.ram_working_directory = Some(64);
    })?;
    let backup = bench.full()?;
    bench.cloud.delete_vm("web")?;
    bench.cloud.emulator().reset_counters();
    let report = bench.sandbox.restore(&RestoreRequest {
        jobs: vec![backup.id],
        ..RestoreRequest::default()
    })?;
    expect_failure("full local disk", &report, &["bytes needed", "free"])?;
    expect_nothing_left(&bench.cloud, &bench.sandbox, 1)?;
    let created = bench
        .cloud
        .emulator()
        .counters()
        .requests("Disks_CreateOrUpdate");
    ensure!(created == 0, "{created} disks were created");
    Ok(())
}

fn a_read_that_fails_for_good_in_mid_image_is_fatal(generation: Generation) -> Result<()> {
    let os = Disk::new("web-os", GIB).pattern(1, 0, 256 * MIB);
    let bench = Bench::start(
        generation,
        Scenario::new().vm(Vm::new("rg", "web", os)),
        "vm=web",
    )?;
    let emulator = bench.cloud.emulator();
    emulator.fault(Fault::new("Blob_Get", Action::error(404, "BlobNotFound")).from(30));
    let report = bench.sandbox.backup(JOB, "Full")?;
    ensure!(
        report.status == 'f',
        "a truncated image must not become a base: {}",
        report.log
    );
    expect_failure("failed read", &report, &["web-os", "BlobNotFound"])?;
    expect_nothing_left(&bench.cloud, &bench.sandbox, 0)
}

fn a_cancelled_backup_ends_promptly_and_leaves_nothing(generation: Generation) -> Result<()> {
    let os = Disk::new("web-os", GIB).pattern(1, 0, 512 * MIB);
    let bench = Bench::start(
        generation,
        Scenario::new().vm(Vm::new("rg", "web", os)),
        "vm=web",
    )?;
    let emulator = bench.cloud.emulator();
    // Slow enough that the job is surely in mid-image when it is cancelled.
    emulator.set_link(Link {
        latency: Duration::from_millis(20),
        bandwidth: Some(MIB / 4),
    });
    let id = bench.sandbox.start_backup(JOB, "Full")?;
    let asked = Instant::now();
    while emulator.counters().of("Blob_Get").bytes_out == 0 {
        ensure!(asked.elapsed() < FAILURE_LIMIT, "no byte was read");
        std::thread::sleep(Duration::from_millis(50));
    }
    let report = bench.sandbox.cancel(id)?;
    println!(
        "cancelled: {:.1} s, status {}",
        report.elapsed.as_secs_f64(),
        report.status
    );
    ensure!(
        report.status == 'A',
        "status {}\n{}",
        report.status,
        report.log
    );
    // The Director does not wait for the File Daemon, which gives back access and snapshots meanwhile.
    let cancelled = Instant::now();
    while let Err(left) = expect_nothing_left(&bench.cloud, &bench.sandbox, 0) {
        ensure!(cancelled.elapsed() < CANCEL_LIMIT, "{left}\n{}", report.log);
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("clean after {:.1} s", cancelled.elapsed().as_secs_f64());
    Ok(())
}

/// The job must have failed with exactly one line of ours that counts as an error and contains all `words`.
fn expect_failure(name: &str, report: &JobReport, words: &[&str]) -> Result<()> {
    let lines: Vec<&str> = report
        .log
        .lines()
        .filter(|line| line.contains("azure-vm: "))
        .filter(|line| line.contains("Error:") || line.contains("Fatal error:"))
        .collect();
    println!(
        "{name}: {:.1} s, status {}",
        report.elapsed.as_secs_f64(),
        report.status
    );
    for line in &lines {
        println!("    {line}");
    }
    ensure!(
        matches!(report.status, 'f' | 'E'),
        "{name}: status {}\n{}",
        report.status,
        report.log
    );
    let line = lines
        .first()
        .with_context(|| format!("{name}: no line\n{}", report.log))?;
    ensure!(lines.len() == 1, "{name}: not one line\n{}", report.log);
    for word in words {
        ensure!(
            line.contains(word),
            "{name}: {word} is not in the line\n{}",
            report.log
        );
    }
    ensure!(
        report.elapsed < FAILURE_LIMIT,
        "{name}: took {:?}",
        report.elapsed
    );
    Ok(())
}

fn expect_nothing_left(cloud: &Cloud, sandbox: &Sandbox, snapshots: usize) -> Result<()> {
    let bad: Vec<_> = leftovers(cloud, sandbox, snapshots)?
        .into_iter()
        .filter(|finding| !finding.good)
        .collect();
    ensure!(bad.is_empty(), "left behind: {bad:#?}");
    Ok(())
}
