//! A cancel from the console at any moment: the job ends at once, and everything is given back.
//!
//! `CANCEL_SEED=<n>` repeats a run, `CANCELS=<n>` asks for that many moments per generation (`make torture-daemons`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Generation, JOB, Moment, RESTORED, RestoreRequest, leftovers, number,
    on_both_generations,
};
use fastrand::Rng;
use mock_server::{Disk, MIB, Scenario, Vm};

on_both_generations!(a_cancel_ends_a_job_promptly_and_everything_is_given_back);

/// Moments of a short run.
const CANCELS: u64 = 3;

/// From the cancel to the end of the job, and until nothing of it is left.
const PROMPT: Duration = Duration::from_secs(5);

/// What a busy machine may add: on each way several programs are started and wait for their turn. How often it was needed is
/// printed.
const GRACE: Duration = Duration::from_secs(2);

/// Bytes of images that a restore stages.
const STAGED: u64 = 16 * MIB;

/// Snapshots of the last good backup.
const SNAPSHOTS: usize = 2;

fn a_cancel_ends_a_job_promptly_and_everything_is_given_back(generation: Generation) -> Result<()> {
    let seed = number("CANCEL_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let cancels = number("CANCELS")?.unwrap_or(CANCELS);
    println!("{cancels} moments of seed {seed}");
    play(generation, seed, cancels).with_context(|| format!("repeat with CANCEL_SEED={seed}"))
}

fn play(generation: Generation, seed: u64, cancels: u64) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let disk = |name: &str, seed| Disk::new(name, 24 * MIB).pattern(seed, MIB, 8 * MIB);
    let world = Scenario::new()
        .vm(Vm::new("rg", "web", disk("web-os", 1)).data_disk(3, disk("web-data", 2)));
    let bench = Bench::start(generation, world, "vm=web")?;
    let emulator = bench.cloud.emulator();
    let full = bench.full()?.id;
    let backup = emulator.counters().all_requests();
    let expected = bench.cloud.digests("web")?;
    emulator.reset_counters();
    bench.restore_equals(&[full], &expected)?;
    let restore = emulator.counters().all_requests();
    let mut times = Vec::new();
    for number in 0..cancels {
        let is_backup = number % 2 == 0;
        let moment = match is_backup {
            true => Moment::Request(rng.u64(1..=backup)),
            false if rng.u8(..4) == 0 => Moment::Staged(rng.u64(..STAGED)),
            false => Moment::Request(rng.u64(1..=restore)),
        };
        let what = format!(
            "{number}: {} at {moment:?}",
            if is_backup { "backup" } else { "restore" }
        );
        let took = cancel(&bench, full, is_backup, moment).context(what.clone())?;
        println!("{what}: {:.1} s", took.as_secs_f64());
        times.push(took);
    }
    let slowest = times.iter().max().copied().unwrap_or_default();
    let late = times.iter().filter(|&&took| took > PROMPT).count();
    println!(
        "the slowest of {} took {:.1} s; more than {} s took {late}",
        times.len(),
        slowest.as_secs_f64(),
        PROMPT.as_secs()
    );
    bench.restore_equals(&[full], &expected)?;
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

/// Time from the cancel until the job has ended and nothing of it is left.
fn cancel(bench: &Bench, full: u32, is_backup: bool, moment: Moment) -> Result<Duration> {
    let emulator = bench.cloud.emulator();
    let bases = snapshots(bench);
    bench.hold_at(moment);
    let id = if is_backup {
        // An Incremental: what it builds on must stay.
        bench.sandbox.start_backup(JOB, "Incremental")?
    } else {
        bench.sandbox.start_restore(&RestoreRequest {
            jobs: vec![full],
            ..RestoreRequest::named(RESTORED)
        })?
    };
    let in_time = bench.wait_for(id, moment)?;
    // What is asked for from now on is answered; what was asked for before is not.
    emulator.clear_faults();
    if !in_time {
        println!("    it ended before");
    }
    let cancelled = Instant::now();
    bench.sandbox.ask(&format!("cancel jobid={id} yes"))?;
    let report = bench.sandbox.wait(id, cancelled)?;
    let ended = cancelled.elapsed();
    if report.status == 'T' {
        // It was over before the cancel came.
        ensure!(!in_time, "the cancel was not heard\n{}", report.log);
        return after_the_end(bench, is_backup);
    }
    ensure!(
        report.status == 'A',
        "status {}\n{}",
        report.status,
        report.log
    );
    // The Director does not wait for the File Daemon.
    let mut told = false;
    while let Err(left) = nothing_left(bench, &bases) {
        if cancelled.elapsed() > PROMPT && !std::mem::replace(&mut told, true) {
            println!(
                "    not prompt: {left:#}, {:?}",
                bench.cloud.emulator().counters()
            );
        }
        ensure!(
            cancelled.elapsed() < PROMPT + GRACE,
            "{left:#}\n{}",
            report.log
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = cancelled.elapsed();
    println!(
        "    job ended after {:.1} s, clean after {:.1} s",
        ended.as_secs_f64(),
        took.as_secs_f64()
    );
    Ok(took)
}

fn after_the_end(bench: &Bench, is_backup: bool) -> Result<Duration> {
    if !is_backup {
        bench.cloud.delete_vm(RESTORED)?;
    }
    Ok(Duration::ZERO)
}

/// Ids of all snapshots.
fn snapshots(bench: &Bench) -> BTreeSet<String> {
    let snapshots = bench.cloud.state().snapshots;
    snapshots.into_iter().map(|snapshot| snapshot.id).collect()
}

/// Nothing is there of a job, and of those before it there are still these `bases`.
fn nothing_left(bench: &Bench, bases: &BTreeSet<String>) -> Result<()> {
    let findings = leftovers(&bench.cloud, &bench.sandbox, SNAPSHOTS)?;
    let bad: Vec<_> = findings.iter().filter(|finding| !finding.good).collect();
    ensure!(bad.is_empty(), "left behind: {bad:#?}");
    let now = snapshots(bench);
    ensure!(
        now == *bases,
        "other snapshots: {now:?} instead of {bases:?}"
    );
    ensure!(
        bench.cloud.state().vm(RESTORED).is_none(),
        "the VM is there"
    );
    Ok(())
}
