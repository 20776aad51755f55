//! A cancel from the console at any moment: the job ends at once, and everything is given back.
//!
//! `CANCEL_SEED=<n>` repeats a run, `CANCELS=<n>` asks for that many cancels per generation (`make torture-daemons`). Only those
//! count that came in the middle of a job: a moment that a job did not reach is drawn again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, JOB, JobDefinition, JobReport, Moment, RESTORED, RestoreRequest,
    leftovers, number, on_both_generations,
};
use fastrand::Rng;
use mock_server::{Disk, KIB, MIB, Scenario, Vm};

on_both_generations!(a_cancel_ends_a_job_promptly_and_everything_is_given_back);

/// Cancels of a short run: one of each kind of work.
const CANCELS: u64 = 3;

/// Moments that may be drawn for each cancel.
const DRAWS: u64 = 4;

/// From the cancel to the end of the job, and until nothing of it is left.
const PROMPT: Duration = Duration::from_secs(5);

/// What a short run allows besides, which shares its machine with all other tests: of the time that is measured, the start of two
/// consoles and what the Director does are not ours. A long run is held to [`PROMPT`] with all that in it.
const GRACE: Duration = Duration::from_secs(2);

/// Bytes of images that a restore stages.
const STAGED: u64 = 16 * MIB;

/// The job that runs undisturbed. One of its own, so that a cancelled one finds no snapshots that it would let go at its end.
const MEASURED: &str = "measured";

/// What is cancelled.
#[derive(Clone, Copy, Debug)]
enum Work {
    Backup(&'static str),
    Restore,
}

/// What is cancelled one after the other.
const WORKS: [Work; 4] = [
    Work::Backup("Incremental"),
    Work::Restore,
    Work::Backup("Full"),
    Work::Restore,
];

/// Requests of the undisturbed jobs: the moments to choose from.
#[derive(Debug)]
struct Lengths {
    full: u64,
    incremental: u64,
    restore: u64,
}

fn a_cancel_ends_a_job_promptly_and_everything_is_given_back(generation: Generation) -> Result<()> {
    let seed = number("CANCEL_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let long = number("CANCELS")?;
    let limit = match long {
        Some(_) => PROMPT,
        None => PROMPT + GRACE,
    };
    let cancels = long.unwrap_or(CANCELS);
    println!("{cancels} cancels of seed {seed}");
    play(generation, seed, cancels, limit)
        .with_context(|| format!("repeat with CANCEL_SEED={seed}"))
}

fn play(generation: Generation, seed: u64, cancels: u64, limit: Duration) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let disk = |name: &str, seed| Disk::new(name, 24 * MIB).pattern(seed, MIB, 8 * MIB);
    let world = Scenario::new()
        .vm(Vm::new("rg", "web", disk("web-os", 1)).data_disk(3, disk("web-data", 2)));
    let cloud = Cloud::start(world)?;
    let command = cloud.plugin_command("vm=web");
    let jobs = [JOB, MEASURED].map(|job| JobDefinition::plugin(job, &command));
    let bench = Bench::start_jobs(generation, cloud, jobs.into(), |_| {})?;
    let full = bench.full()?.id;
    let expected = bench.cloud.digests("web")?;
    let lengths = measure(&bench, full)?;
    println!("{lengths:?}");
    let mut times = Vec::new();
    let mut draws = 0;
    for (number, work) in (0..cancels).zip(WORKS.into_iter().cycle()) {
        let last = draws + DRAWS;
        let took = loop {
            ensure!(
                draws < last,
                "{number}: {work:?} ended before {DRAWS} times"
            );
            draws += 1;
            let moment = choose(&mut rng, &lengths, work);
            if matches!(work, Work::Backup(_)) {
                guest_works(&bench, rng.u64(..))?;
            }
            let what = format!("{number}: {work:?} at {moment:?}");
            match cancel(&bench, full, work, moment, limit).context(what.clone())? {
                Some(took) => {
                    println!("{what}: {:.1} s", took.as_secs_f64());
                    break took;
                }
                None => println!("{what}: it ended before"),
            }
        };
        times.push(took);
    }
    let slowest = times.iter().max().copied().unwrap_or_default();
    println!(
        "{} cancels in the middle of a job, and {} moments that came too late; the slowest took {:.1} s",
        times.len(),
        draws - cancels,
        slowest.as_secs_f64(),
    );
    bench.restore_equals(&[full], &expected)?;
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

/// Lets each kind of job run undisturbed, and counts its requests.
fn measure(bench: &Bench, full: u32) -> Result<Lengths> {
    let emulator = bench.cloud.emulator();
    let backup = |level| -> Result<u64> {
        guest_works(bench, 0)?;
        emulator.reset_counters();
        bench.sandbox.backup(MEASURED, level)?.clean()?;
        Ok(emulator.counters().all_requests())
    };
    backup("Full")?;
    let lengths = Lengths {
        incremental: backup("Incremental")?,
        full: backup("Full")?,
        restore: {
            emulator.reset_counters();
            bench.sandbox.restore(&restore_of(full))?.clean()?;
            emulator.counters().all_requests()
        },
    };
    bench.cloud.delete_vm(RESTORED)?;
    Ok(lengths)
}

fn choose(rng: &mut Rng, lengths: &Lengths, work: Work) -> Moment {
    let requests = match work {
        Work::Backup("Full") => lengths.full,
        Work::Backup(_) => lengths.incremental,
        Work::Restore if rng.u8(..4) == 0 => return Moment::Staged(rng.u64(..STAGED)),
        Work::Restore => lengths.restore,
    };
    Moment::Request(rng.u64(1..=requests))
}

fn restore_of(full: u32) -> RestoreRequest {
    RestoreRequest {
        jobs: vec![full],
        ..RestoreRequest::named(RESTORED)
    }
}

/// Changes always the same places, so that an Incremental always has the same length.
fn guest_works(bench: &Bench, seed: u64) -> Result<()> {
    for disk in ["web-os", "web-data"] {
        for place in 0..4 {
            let at = (2 + 3 * place) * MIB;
            let emulator = bench.cloud.emulator();
            emulator.guest_pattern(disk, seed ^ place, at, 256 * KIB)?;
        }
    }
    Ok(())
}

/// Time from the cancel until the job has ended and nothing of it is left; `None` if it had ended before.
fn cancel(
    bench: &Bench,
    full: u32,
    work: Work,
    moment: Moment,
    limit: Duration,
) -> Result<Option<Duration>> {
    let emulator = bench.cloud.emulator();
    let bases = snapshots(bench);
    let started = Instant::now();
    bench.hold_at(moment);
    let id = match work {
        Work::Backup(level) => bench.sandbox.start_backup(JOB, level)?,
        Work::Restore => bench.sandbox.start_restore(&restore_of(full))?,
    };
    let in_time = bench.wait_for(id, moment)?;
    if !in_time || !matches!(moment, Moment::Staged(_)) {
        // What is asked for from now on is answered; what was asked for before is not.
        emulator.clear_faults();
    }
    if !in_time {
        let report = bench.sandbox.wait(id, started)?;
        return after_the_end(bench, work, report);
    }
    let cancelled = Instant::now();
    bench.sandbox.ask(&format!("cancel jobid={id} yes"))?;
    // What stood behind the staging until now asks for nothing any more.
    emulator.clear_faults();
    let report = bench.sandbox.wait(id, cancelled)?;
    let ended = cancelled.elapsed();
    ensure!(
        report.status == 'A',
        "status {}\n{}",
        report.status,
        report.log
    );
    // The Director does not wait for the File Daemon.
    while let Err(left) = nothing_left(bench, &bases) {
        ensure!(
            cancelled.elapsed() <= limit,
            "not prompt: {left:#}, {:?}\n{}",
            emulator.counters(),
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
    ensure!(took <= limit, "not prompt: {took:?}\n{}", report.log);
    Ok(Some(took))
}

/// A job that came to its end has ended well.
fn after_the_end(bench: &Bench, work: Work, report: JobReport) -> Result<Option<Duration>> {
    report.clean()?;
    if matches!(work, Work::Restore) {
        bench.cloud.delete_vm(RESTORED)?;
    }
    Ok(None)
}

/// Ids of all snapshots.
fn snapshots(bench: &Bench) -> BTreeSet<String> {
    let snapshots = bench.cloud.state().snapshots;
    snapshots.into_iter().map(|snapshot| snapshot.id).collect()
}

/// Nothing is there of a job, and of those before it there are still these `bases`.
fn nothing_left(bench: &Bench, bases: &BTreeSet<String>) -> Result<()> {
    let findings = leftovers(&bench.cloud, &bench.sandbox, bases.len())?;
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
