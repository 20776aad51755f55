//! Eight jobs at once in one File Daemon, each of a VM with four disks, while Azure throttles, resets and fails.
//!
//! `LOAD_MIB=<n>` makes each disk hold that much, and compares the bytes of all jobs (`make torture-daemons`).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, HANG, JobDefinition, RESTORED, RestoreRequest, Use, leftovers,
    mebibytes, number, on_both_generations,
};
use mock_server::{Action, Disk, Fault, Link, MIB, Scenario, Vm};

const JOBS: u64 = 8;
const DISKS: u64 = 4;

/// Bytes that a job may hold of what it reads.
const MEMORY: u64 = 16 * MIB;

/// What a job takes besides, and what the daemon does.
const BESIDE: u64 = 12 * MIB;

/// Requests under way per disk, as connections; a job reads ahead into its next disk, and asks Resource Manager meanwhile.
const CONNECTIONS: u64 = 8 * 3;

/// Bytes per second of each connection. A run takes 50 s with it, four times what a request waits that fails four times in a row:
/// Bacula gets no byte behind it in that time, so chance would decide who is left behind.
fn bandwidth() -> u64 {
    (len() / 64).min(MIB / 2)
}

/// How many times as long as the first job the last one may take. If each waited for the one before, it would be eight times.
const FAIR: u32 = 4;

/// What of its bytes each other job must have read when the first ends.
const SHARE: f64 = 1.0 / FAIR as f64;

/// Jobs of a short run whose bytes are restored; of a long one it is all of them.
const RESTORES: u64 = 3;

on_both_generations!(eight_jobs_share_a_daemon_that_azure_throttles);

/// Bytes that each disk holds.
fn len() -> u64 {
    number("LOAD_MIB").ok().flatten().unwrap_or(8) * MIB
}

fn vm(job: u64) -> Vm {
    let len = len();
    let disk = |number| {
        let name = format!("vm{job}-{number}");
        Disk::new(&name, len + 24 * MIB).pattern(job * 10 + number, 512, len)
    };
    (1..DISKS).fold(Vm::new("rg", &format!("vm{job}"), disk(0)), |vm, number| {
        vm.data_disk(u32::try_from(number).unwrap_or(0), disk(number))
    })
}

fn eight_jobs_share_a_daemon_that_azure_throttles(generation: Generation) -> Result<()> {
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
    bench.sandbox.reset_file_daemon_peak()?;
    let before = bench.sandbox.file_daemon_use()?;
    let ids = start_together(&bench)?;
    let started = Instant::now();
    let Watched {
        most,
        behind,
        first,
        last,
    } = watch(&bench, &ids)?;
    for &id in &ids {
        let report = bench.sandbox.wait(id, started)?;
        ensure!(report.status == 'T', "{}", report.log);
    }
    let emulator = bench.cloud.emulator();
    emulator.clear_faults();
    emulator.set_link(Link::default());
    let peak = bench.sandbox.file_daemon_memory()?.peak;
    println!(
        "{JOBS} jobs at once: the first ended after {:.1} s, the last after {:.1} s; the others had read {behind:.2?} of their \
         bytes when the first ended; resident {:.1} -> {:.1} MiB, sockets {} -> {}, threads {} -> {}; {} requests",
        first.as_secs_f64(),
        last.as_secs_f64(),
        mebibytes(before.resident),
        mebibytes(peak),
        before.sockets,
        most.sockets,
        before.threads,
        most.threads,
        emulator.counters().all_requests(),
    );
    ensure!(
        behind.iter().all(|&share| share >= SHARE) && last < first * FAIR,
        "a job was left behind"
    );
    ensure!(peak < before.resident + JOBS * (MEMORY + BESIDE), "memory");
    ensure!(
        most.sockets < before.sockets + usize::try_from(JOBS * (CONNECTIONS + 4))?,
        "connections"
    );
    let restores = match number("LOAD_MIB")? {
        Some(_) => JOBS,
        None => RESTORES,
    };
    let restoring = Instant::now();
    for (job, &id) in (0..restores).zip(&ids) {
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
    println!(
        "{restores} jobs restored and compared in {:.1} s",
        restoring.elapsed().as_secs_f64()
    );
    let findings = leftovers(&bench.cloud, &bench.sandbox, usize::try_from(JOBS * DISKS)?)?;
    ensure!(findings.iter().all(|finding| finding.good), "{findings:#?}");
    Ok(())
}

/// Starts all jobs, and lets none read before each of them is about to list what its disks hold; returns them when all have
/// listed, and Azure begins to fail.
fn start_together(bench: &Bench) -> Result<Vec<u32>> {
    let emulator = bench.cloud.emulator();
    let list = "Blob_GetPageRanges";
    let never = Action::delay(Duration::from_secs(3600));
    emulator.fault(Fault::new(list, never));
    let ids = (0..JOBS)
        .map(|job| bench.sandbox.start_backup(&format!("load{job}"), "Full"))
        .collect::<Result<_>>()?;
    let wait = |what, is_there: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !is_there() {
            ensure!(started.elapsed() < HANG, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    wait("not all jobs came to their disks", &|| {
        emulator.counters().requests(list) >= JOBS * DISKS
    })?;
    emulator.set_link(Link {
        latency: Duration::ZERO,
        bandwidth: Some(bandwidth()),
    });
    emulator.clear_faults();
    // They ask again.
    emulator.cut_connections();
    wait("not all jobs have listed their disks", &|| {
        let listed = emulator.counters().of(list).statuses.get(&200).copied();
        listed.is_some_and(|listed| listed >= JOBS * DISKS)
    })?;
    for (number, (operation, action, of)) in (1..).zip([
        ("Blob_*", Action::Throttle { retry_after: None }, 0.03),
        ("Blob_*", Action::Reset, 0.02),
        ("Blob_*", Action::status(500), 0.01),
        ("*", Action::Throttle { retry_after: None }, 0.02),
        ("*", Action::Reset, 0.01),
    ]) {
        emulator.fault(Fault::new(operation, action).probability(of, number));
    }
    Ok(ids)
}

/// What was seen until all jobs had ended.
struct Watched {
    /// The most that the daemon held.
    most: Use,
    /// What of its bytes each other job had read when the first ended.
    behind: Vec<f64>,
    /// When the first ended, and the last.
    first: Duration,
    last: Duration,
}

fn watch(bench: &Bench, ids: &[u32]) -> Result<Watched> {
    let started = Instant::now();
    let mut most = bench.sandbox.file_daemon_use()?;
    let mut ended = None;
    loop {
        let running = bench.sandbox.running()?;
        let now = bench.sandbox.file_daemon_use()?;
        most.sockets = most.sockets.max(now.sockets);
        most.threads = most.threads.max(now.threads);
        if ended.is_none() && running.len() < ids.len() {
            let whole = DISKS * len();
            let shares = running.values().map(|&bytes| bytes as f64 / whole as f64);
            ended = Some((started.elapsed(), shares.collect()));
        }
        if running.is_empty() {
            let (first, behind) = ended.context("no job ran")?;
            let last = started.elapsed();
            return Ok(Watched {
                most,
                behind,
                first,
                last,
            });
        }
        ensure!(started.elapsed() < 3 * HANG, "a deadlock? {now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
