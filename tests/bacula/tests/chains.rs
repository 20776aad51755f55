//! Random runs of a job on real daemons while its VM changes; some of the points in time come back, byte by byte.
//!
//! `CHAIN_SEED=<n>` repeats a run. Many more rounds go through the C entry points alone, in `tests/host_abi/chain.rs`.

#[path = "../../support/life.rs"]
#[allow(dead_code, reason = "the other test uses the rest")]
mod life;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Generation, JOB, JobReport, Moment, RESTORED, RestoreRequest, on_both_generations,
};
use fastrand::Rng;
use life::{Disks, Life, TAG, disks_of};
use mock_server::{Action, Change, Disk, Fault, MIB, Scenario, Vm};

const ROUNDS: u32 = 8;
const RESTORES: usize = 3;
/// Longest time from a cancel until the plugin has given back what it held.
const CLEAN_LIMIT: Duration = Duration::from_secs(30);

on_both_generations!(points_in_time_of_random_runs_come_back);

/// A good run.
struct Run {
    job: u32,
    level: &'static str,
    disks: Disks,
}

fn points_in_time_of_random_runs_come_back(generation: Generation) -> Result<()> {
    let seed = match std::env::var("CHAIN_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => fastrand::u64(..1_000_000),
    };
    // In time for a panic, too.
    println!("CHAIN_SEED={seed}");
    play(generation, seed).with_context(|| format!("repeat with CHAIN_SEED={seed}"))
}

fn play(generation: Generation, seed: u64) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let os = Disk::new("web-os", 24 * MIB).pattern(1, 0, 2 * MIB);
    let data = Disk::new("web-data", 20 * MIB).pattern(2, 5 * MIB, MIB + 512);
    let scenario = Scenario::new().vm(Vm::new("rg1", "web", os).data_disk(3, data));
    let bench = Bench::start(generation, scenario, "include=.*")?;
    let emulator = bench.cloud.emulator();
    let mut life = Life::new(emulator, rng.fork());
    let mut good: Vec<Run> = Vec::new();
    for _ in 0..ROUNDS {
        life.guest_works();
        life.administrator_works();
        let asked = ["Full", "Differential", "Incremental", "Incremental"][rng.usize(..4)];
        let level = if good.is_empty() { "Full" } else { asked };
        let disks = life.look();
        let held = our_snapshots(&bench);
        let report = match rng.u8(..8) {
            0 => cancelled(&bench, asked, disks.len())?,
            1 => {
                let refusal = Action::error(404, "BlobNotFound");
                emulator.fault(Fault::new("Blob_Get", refusal).from(rng.u64(1..6)));
                let report = bench.sandbox.backup(JOB, asked)?;
                emulator.clear_faults();
                report
            }
            _ => bench.sandbox.backup(JOB, asked)?,
        };
        println!(
            "job {}: {level}, status {}, {} errors, {} bytes",
            report.id, report.status, report.errors, report.bytes
        );
        settled(&bench, &report, &held)?;
        life.assert_foreign_untouched();
        if report.status == 'T' {
            good.push(Run {
                job: report.id,
                level,
                disks,
            });
        }
    }
    ensure!(!good.is_empty(), "no run was good");
    for _ in 0..RESTORES {
        restore(&bench, &good, rng.usize(..good.len()), rng.bool())?;
    }
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

/// A run that is cancelled in the middle of an image, if it reads one.
fn cancelled(bench: &Bench, level: &str, disks: usize) -> Result<JobReport> {
    // Before the images come the footers of all disks.
    let moment = Moment::Read(u64::try_from(disks)? + 1);
    bench.hold_at(moment);
    let id = bench.sandbox.start_backup(JOB, level)?;
    let in_time = bench.wait_for(id, moment)?;
    let asked = Instant::now();
    if in_time {
        bench.sandbox.ask(&format!("cancel jobid={id} yes"))?;
    }
    bench.cloud.emulator().clear_faults();
    let report = bench.sandbox.wait(id, asked)?;
    let expected = if in_time { 'A' } else { 'T' };
    ensure!(report.status == expected, "{}", report.log);
    Ok(report)
}

/// Waits until nothing is open and a run that was not good has left no snapshot beside those that were `held`: the
/// Director does not wait for that after a cancel.
fn settled(bench: &Bench, report: &JobReport, held: &[String]) -> Result<()> {
    let asked = Instant::now();
    loop {
        let open = bench.cloud.state().grants;
        let mut left = our_snapshots(bench);
        left.retain(|snapshot| report.status != 'T' && !held.contains(snapshot));
        if open.is_empty() && left.is_empty() {
            return Ok(());
        }
        ensure!(
            asked.elapsed() < CLEAN_LIMIT,
            "left behind: {open:?}, {left:?}\n{}",
            report.log
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn our_snapshots(bench: &Bench) -> Vec<String> {
    let snapshots = bench.cloud.state().snapshots.into_iter();
    snapshots
        .filter(|snapshot| snapshot.tags.keys().any(|tag| tag.starts_with(TAG)))
        .map(|snapshot| snapshot.id)
        .collect()
}

/// What the Director restores for the time of a run: the last Full, the last Differential since, the Incrementals since.
fn restore_set(good: &[Run], at: usize) -> Vec<u32> {
    let last =
        |level: &str, from: usize| (from..=at).rev().find(|&place| good[place].level == level);
    let full = last("Full", 0).unwrap_or_default();
    let differential = last("Differential", full);
    let start = differential.unwrap_or(full);
    let incrementals = (start..=at).filter(|&place| good[place].level == "Incremental");
    std::iter::once(full)
        .chain(differential)
        .chain(incrementals)
        .map(|place| good[place].job)
        .collect()
}

fn restore(bench: &Bench, good: &[Run], at: usize, newest_first: bool) -> Result<()> {
    let mut jobs = restore_set(good, at);
    if newest_first {
        jobs.reverse();
    }
    println!("restore of job {} from {jobs:?}", good[at].job);
    let report = bench.sandbox.restore(&RestoreRequest {
        jobs,
        ..RestoreRequest::named(RESTORED)
    })?;
    ensure!(report.is_clean(), "the restore failed:\n{}", report.log);
    let content = |disks: Disks| -> Vec<_> {
        let disks = disks.into_iter();
        disks
            .map(|(lun, disk)| (lun, disk.size, disk.digest))
            .collect()
    };
    let restored = content(disks_of(bench.cloud.emulator(), RESTORED));
    let saved = content(good[at].disks.clone());
    ensure!(
        restored == saved,
        "{restored:?}, saved {saved:?}\n{}",
        report.log
    );
    bench.cloud.emulator().change(&Change::DeleteVm {
        vm: RESTORED.into(),
        with_resources: true,
    })?;
    Ok(())
}
