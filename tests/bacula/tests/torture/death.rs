//! Daemons and connections that die in the middle of a job: the next job works, clears what the dead one left, and a restore
//! gives the same bytes.
//!
//! A moment is a request that the emulator counts, or bytes that lie in the File Daemon's working directory.
//! `DEATH_SEED=<n>` repeats a run, `DEATHS=<n>` asks for that many deaths per generation (`make torture-daemons`). Only those
//! count that came in the middle of a job: a moment that a job did not reach is drawn again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Generation, HANG, JOB, Moment, RESTORED, RestoreRequest, leftovers, number,
    on_both_generations,
};
use fastrand::Rng;
use mock_server::{Disk, MIB, Scenario, Vm};
use serde_json::Value;

on_both_generations!(the_next_job_clears_what_the_dead_one_left);

/// Deaths of a short run: one of each of the victims.
const DEATHS: u64 = 4;

/// Moments that may be drawn for each death.
const DRAWS: u64 = 4;

/// The name for a second VM; of the same length as [`RESTORED`], for the same reason.
const BESIDE: &str = "anotherx";

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    FileDaemon,
    StorageDaemon,
    /// All connections to Azure.
    Connections,
}

/// Who dies one after the other.
const VICTIMS: [Victim; 4] = [
    Victim::FileDaemon,
    Victim::StorageDaemon,
    Victim::FileDaemon,
    Victim::Connections,
];

/// In the middle of what.
#[derive(Clone, Copy, Debug)]
enum Work {
    Backup(&'static str),
    Restore,
}

/// Requests of the undisturbed jobs: the moments to choose from.
#[derive(Debug)]
struct Lengths {
    full: u64,
    incremental: u64,
    restore: u64,
}

const STAGED: u64 = 16 * MIB;

fn the_next_job_clears_what_the_dead_one_left(generation: Generation) -> Result<()> {
    let seed = number("DEATH_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let deaths = number("DEATHS")?.unwrap_or(DEATHS);
    println!("{deaths} deaths of seed {seed}");
    play(generation, seed, deaths).with_context(|| format!("repeat with DEATH_SEED={seed}"))
}

fn play(generation: Generation, seed: u64, deaths: u64) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let disk = |name: &str, seed| Disk::new(name, 24 * MIB).pattern(seed, MIB, 8 * MIB);
    let world = Scenario::new()
        .vm(Vm::new("rg", "web", disk("web-os", 1)).data_disk(3, disk("web-data", 2)));
    let mut bench = Bench::start(generation, world, "vm=web")?;
    // What the Director would restore.
    let mut jobs = Vec::new();
    let lengths = measure(&bench, &mut rng, &mut jobs)?;
    println!("{lengths:?}");
    let mut hits = BTreeMap::<_, u64>::new();
    let mut draws = 0;
    for (number, victim) in (0..deaths).zip(VICTIMS.into_iter().cycle()) {
        let last = draws + DRAWS;
        loop {
            ensure!(
                draws < last,
                "{number}: the jobs ended before {DRAWS} times"
            );
            draws += 1;
            let (work, moment) = choose(&mut rng, &lengths, victim);
            let what = format!("{number}: {victim:?} in {work:?} at {moment:?}");
            println!("{what}");
            if death(&mut bench, &mut rng, &mut jobs, victim, work, moment).context(what)? {
                break;
            }
            println!("    it ended before");
        }
        *hits.entry(victim).or_default() += 1;
    }
    println!(
        "in the middle of a job died {hits:?}; {} moments came too late",
        draws - deaths
    );
    let all = [
        Victim::FileDaemon,
        Victim::StorageDaemon,
        Victim::Connections,
    ];
    ensure!(deaths < DEATHS || all.iter().all(|victim| hits.contains_key(victim)));
    // The images of all jobs that went well are in it.
    restore_equals(&bench, RESTORED, &jobs)?;
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

/// Lets each kind of job run undisturbed, and counts its requests.
fn measure(bench: &Bench, rng: &mut Rng, jobs: &mut Vec<u32>) -> Result<Lengths> {
    let emulator = bench.cloud.emulator();
    emulator.reset_counters();
    jobs.push(bench.full()?.id);
    let full = emulator.counters().all_requests();
    guest_works(bench, rng)?;
    emulator.reset_counters();
    jobs.push(bench.sandbox.backup(JOB, "Incremental")?.clean()?.id);
    let incremental = emulator.counters().all_requests();
    emulator.reset_counters();
    restore_as(bench, RESTORED, jobs)?;
    let restore = emulator.counters().all_requests();
    bench.cloud.delete_vm(RESTORED)?;
    Ok(Lengths {
        full,
        incremental,
        restore,
    })
}

fn choose(rng: &mut Rng, lengths: &Lengths, victim: Victim) -> (Work, Moment) {
    let (work, requests) = match rng.u8(..4) {
        0 => (Work::Backup("Full"), lengths.full),
        1 => (Work::Backup("Incremental"), lengths.incremental),
        _ => (Work::Restore, lengths.restore),
    };
    // While a restore stages, it may have no connection to lose; a request that is not answered has one.
    let may_stage = matches!(work, Work::Restore) && victim != Victim::Connections;
    let moment = match may_stage && rng.u8(..4) == 0 {
        true => Moment::Staged(rng.u64(..STAGED)),
        false => Moment::Request(rng.u64(1..=requests)),
    };
    (work, moment)
}

/// Whether it came in the middle of the job.
fn death(
    bench: &mut Bench,
    rng: &mut Rng,
    jobs: &mut Vec<u32>,
    victim: Victim,
    work: Work,
    moment: Moment,
) -> Result<bool> {
    if matches!(work, Work::Backup(_)) {
        guest_works(bench, rng)?;
    }
    bench.hold_at(moment);
    let started = Instant::now();
    let id = match work {
        Work::Backup(level) => bench.sandbox.start_backup(JOB, level)?,
        Work::Restore => bench.sandbox.start_restore(&RestoreRequest {
            jobs: jobs.clone(),
            ..RestoreRequest::named(RESTORED)
        })?,
    };
    if !bench.wait_for(id, moment)? {
        bench.cloud.emulator().clear_faults();
        bench.sandbox.wait(id, started)?.clean()?;
        match work {
            Work::Backup(level) => keep(jobs, level, id),
            Work::Restore => bench.cloud.delete_vm(RESTORED)?,
        }
        return Ok(false);
    }
    match victim {
        Victim::FileDaemon => bench.sandbox.crash_file_daemon()?,
        Victim::StorageDaemon => bench.sandbox.crash_storage_daemon()?,
        Victim::Connections => {}
    }
    let emulator = bench.cloud.emulator();
    emulator.clear_faults();
    // For those who live, the answers that were held back do not come any more.
    emulator.cut_connections();
    // The Director may take minutes to notice that a File Daemon died; the next job does not wait for that.
    let mut log = String::new();
    if victim != Victim::FileDaemon {
        let died = Instant::now();
        let report = bench.sandbox.wait(id, started)?;
        let took = died.elapsed();
        println!("    status {}, {:.1} s", report.status, took.as_secs_f64());
        ensure!(took < HANG, "the job hung\n{}", report.log);
        ensure!(
            victim != Victim::Connections || report.is_clean(),
            "a request was not repeated\n{}",
            report.log
        );
        if let (Work::Backup(level), 'T') = (work, report.status) {
            keep(jobs, level, id);
        }
        log = report.log;
    }
    let restored = bench.cloud.state().vm(RESTORED).is_some();
    next_job(bench, rng, jobs, work, restored).context(log)?;
    Ok(true)
}

/// Adds a job that went well to those that the Director would restore.
fn keep(jobs: &mut Vec<u32>, level: &str, id: u32) {
    if level == "Full" {
        jobs.clear();
    }
    jobs.push(id);
}

/// The next job of this File Daemon, and what there is afterwards.
fn next_job(
    bench: &Bench,
    rng: &mut Rng,
    jobs: &mut Vec<u32>,
    work: Work,
    restored: bool,
) -> Result<()> {
    // A restore does not look for snapshots.
    if matches!(work, Work::Backup(_)) || rng.bool() {
        guest_works(bench, rng)?;
        let next = bench.sandbox.backup(JOB, "Incremental")?.clean()?;
        jobs.push(next.id);
        println!(
            "    next: a backup of {} bytes, {:.1} s",
            next.bytes,
            next.elapsed.as_secs_f64()
        );
        clean(bench, &next.log)?;
    } else {
        restore_equals(bench, if restored { BESIDE } else { RESTORED }, jobs)?;
    }
    // Whoever has a virtual machine keeps it, though its restore died.
    ensure!(bench.cloud.state().vm(RESTORED).is_some() == restored);
    if restored {
        bench.cloud.delete_vm(RESTORED)?;
    }
    Ok(())
}

fn restore_equals(bench: &Bench, name: &str, jobs: &[u32]) -> Result<()> {
    let log = restore_as(bench, name, jobs)?;
    clean(bench, &log)?;
    ensure!(
        bench.cloud.digests(name)? == bench.cloud.digests("web")?,
        "other bytes came back from {jobs:?}\n{log}"
    );
    bench.cloud.delete_vm(name)
}

fn guest_works(bench: &Bench, rng: &mut Rng) -> Result<()> {
    let emulator = bench.cloud.emulator();
    for disk in ["web-os", "web-data"] {
        let at = rng.u64(..20 * MIB) / 512 * 512;
        let len = rng.u64(1..MIB) / 512 * 512 + 512;
        emulator.guest_pattern(disk, rng.u64(..), at, len)?;
    }
    Ok(())
}

fn restore_as(bench: &Bench, name: &str, jobs: &[u32]) -> Result<String> {
    let report = bench.sandbox.restore(&RestoreRequest {
        jobs: jobs.to_vec(),
        ..RestoreRequest::named(name)
    })?;
    println!("    restored in {:.1} s", report.elapsed.as_secs_f64());
    Ok(report.clean()?.log)
}

/// Nothing is left but the snapshots that the tracker knows.
fn clean(bench: &Bench, log: &str) -> Result<()> {
    let state = bench.sandbox.file_daemon_directory().join("azure-vm");
    let tracker: Value = serde_json::from_slice(&fs::read(state.join("tracker.json"))?)?;
    let mut tracked = BTreeSet::new();
    snapshot_ids(&tracker, &mut tracked);
    let there = bench.cloud.state().snapshots.into_iter();
    let there: BTreeSet<_> = there.map(|snapshot| snapshot.id.to_lowercase()).collect();
    ensure!(
        there == tracked,
        "there are {there:?}, tracked are {tracked:?}\n{log}"
    );
    let findings = leftovers(&bench.cloud, &bench.sandbox, there.len())?;
    let bad: Vec<_> = findings.iter().filter(|finding| !finding.good).collect();
    ensure!(bad.is_empty(), "left behind: {bad:#?}\n{log}");
    for entry in fs::read_dir(&state)? {
        let name = entry?.file_name();
        ensure!(
            !name.to_string_lossy().ends_with(".run"),
            "the mark of a dead run is left\n{log}"
        );
    }
    Ok(())
}

/// All ids of snapshots in the tracker, in lower case.
fn snapshot_ids(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.to_lowercase().contains("/snapshots/") => {
            found.insert(text.to_lowercase());
        }
        Value::Array(values) => values.iter().for_each(|value| snapshot_ids(value, found)),
        Value::Object(values) => values.values().for_each(|value| snapshot_ids(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
