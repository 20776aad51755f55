//! Eight jobs at once in one File Daemon, each of a VM with four disks, while Azure throttles, resets and fails.
//!
//! `LOAD_MIB=<n>` makes each disk hold that much (`make torture-daemons`).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, HANG, JobDefinition, RESTORED, RestoreRequest, leftovers, mebibytes,
    number,
};
use mock_server::{Action, Disk, Fault, MIB, Scenario, Vm};

const JOBS: u64 = 8;
const DISKS: u64 = 4;

/// Bytes that a job may hold of what it reads.
const MEMORY: u64 = 16 * MIB;

/// What a job takes besides, and what the daemon does.
const BESIDE: u64 = 12 * MIB;

/// Requests under way per disk, as connections; a job reads ahead into its next disk, and asks Resource Manager meanwhile.
const CONNECTIONS: u64 = 8 * 3;

#[test]
fn eight_jobs_share_a_daemon_that_azure_throttles() -> Result<()> {
    load(Generation::V15_0)
}

#[test]
#[ignore = "long; make torture-daemons"]
fn so_they_do_on_9_6() -> Result<()> {
    load(Generation::V9_6)
}

fn vm(job: u64) -> Vm {
    let len = number("LOAD_MIB").ok().flatten().unwrap_or(4) * MIB;
    let disk = |number| {
        let name = format!("vm{job}-{number}");
        Disk::new(&name, len + 24 * MIB).pattern(job * 10 + number, 512, len)
    };
    (1..DISKS).fold(Vm::new("rg", &format!("vm{job}"), disk(0)), |vm, number| {
        vm.data_disk(u32::try_from(number).unwrap_or(0), disk(number))
    })
}

fn load(generation: Generation) -> Result<()> {
    let world = (0..JOBS).fold(Scenario::new(), |world, job| world.vm(vm(job)));
    let cloud = Cloud::start(world)?;
    let jobs = (0..JOBS).map(|job| {
        let line = cloud.plugin_command(&format!("vm=vm{job} memory=16M concurrency=8"));
        let job = JobDefinition::plugin(&format!("load{job}"), &line);
        // Blocks of several jobs on one volume, or each waits for the device.
        job.with("Pool = mixed")
    });
    let jobs = jobs.collect();
    let bench = Bench::start_jobs(generation, cloud, jobs, |config| {
        config.director =
            "Pool { Name = mixed; Storage = bench-sd; Label Format = \"mixed-\"; Pool Type = Backup
  AutoPrune = no; Recycle = no }\n"
                .into();
    })?;
    let emulator = bench.cloud.emulator();
    for (number, (operation, action, of)) in (1..).zip([
        ("Blob_*", Action::Throttle { retry_after: None }, 0.03),
        ("Blob_*", Action::Reset, 0.02),
        ("Blob_*", Action::status(500), 0.01),
        ("*", Action::Throttle { retry_after: None }, 0.02),
        ("*", Action::Reset, 0.01),
    ]) {
        emulator.fault(Fault::new(operation, action).probability(of, number));
    }
    bench.sandbox.reset_file_daemon_peak()?;
    let before = bench.sandbox.file_daemon_use()?;
    let started = Instant::now();
    let ids: Vec<_> = (0..JOBS)
        .map(|job| bench.sandbox.start_backup(&format!("load{job}"), "Full"))
        .collect::<Result<_>>()?;
    let (mut most, mut at_once) = (before, 0);
    loop {
        let running = bench
            .sandbox
            .query("SELECT JobId FROM Job WHERE Type = 'B' AND JobStatus IN ('C', 'R')")?;
        at_once = at_once.max(running.len());
        let now = bench.sandbox.file_daemon_use()?;
        most.sockets = most.sockets.max(now.sockets);
        most.threads = most.threads.max(now.threads);
        if running.is_empty() && started.elapsed() > Duration::from_secs(2) {
            break;
        }
        ensure!(started.elapsed() < 3 * HANG, "a deadlock? {now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut ends = Vec::new();
    for &id in &ids {
        let report = bench.sandbox.wait(id, started)?;
        ensure!(report.status == 'T', "{}", report.log);
        ends.push(report);
    }
    let peak = bench.sandbox.file_daemon_memory()?.peak;
    println!(
        "{} jobs at once in {:.1} s: resident {:.1} -> {:.1} MiB, sockets {} -> {}, threads {} -> {}; {} requests",
        at_once,
        started.elapsed().as_secs_f64(),
        mebibytes(before.resident),
        mebibytes(peak),
        before.sockets,
        most.sockets,
        before.threads,
        most.threads,
        emulator.counters().all_requests(),
    );
    emulator.clear_faults();
    // None waited for the others to end.
    let waited = bench.sandbox.query(
        "SELECT JobId FROM Job WHERE StartTime > (SELECT min(EndTime) FROM Job WHERE Type = 'B')",
    )?;
    ensure!(
        at_once >= 4 && waited.is_empty(),
        "{at_once} jobs at once, {waited:?} waited"
    );
    ensure!(peak < before.resident + JOBS * (MEMORY + BESIDE), "memory");
    ensure!(
        most.sockets < before.sockets + usize::try_from(JOBS * (CONNECTIONS + 4))?,
        "connections"
    );
    // What was saved side by side comes back alone; 9.6 wants its data in order.
    let restored = if generation == Generation::V15_0 {
        2
    } else {
        1
    };
    for (job, &id) in ids.iter().enumerate().take(restored) {
        let report = bench.sandbox.restore(&RestoreRequest {
            jobs: vec![id],
            ..RestoreRequest::named(RESTORED)
        })?;
        let report = report.clean().with_context(|| format!("vm{job}"))?;
        ensure!(
            bench.cloud.digests(RESTORED)? == bench.cloud.digests(&format!("vm{job}"))?,
            "other bytes\n{}",
            report.log
        );
        bench.cloud.delete_vm(RESTORED)?;
    }
    let findings = leftovers(&bench.cloud, &bench.sandbox, usize::try_from(JOBS * DISKS)?)?;
    ensure!(findings.iter().all(|finding| finding.good), "{findings:#?}");
    Ok(())
}
