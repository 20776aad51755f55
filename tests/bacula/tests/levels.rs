//! Levels and chains as the Director drives them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Generation, JOB, JobDefinition, JobReport, RESTORED, RestoreRequest, mebibytes,
    on_both_generations,
};
use mock_server::{Action, Disk, Fault, GIB, Link, MIB, Scenario, Vm};

on_both_generations!(
    changes_are_saved_and_every_point_in_time_comes_back,
    a_lost_base_is_a_full_image_with_warnings_and_the_next_run_builds_on_it,
    failed_and_cancelled_runs_are_never_a_base,
    a_differential_that_the_director_makes_of_an_incremental_builds_on_the_full,
    a_run_that_waited_behind_a_full_builds_on_nothing,
);

/// What a Full saves at least: the patterns of [`world`].
const FULL: u64 = 24 * MIB;

/// Longest wait for something that comes at once.
const HANG: Duration = Duration::from_secs(120);

/// What a run of [`write`] may save at most.
const CHANGES: u64 = 4 * MIB;

fn world() -> Scenario {
    let os = Disk::new("web-os", GIB).pattern(1, 0, 16 * MIB);
    let data = Disk::new("web-data", GIB).pattern(2, 100 * MIB, 8 * MIB);
    Scenario::new().vm(Vm::new("rg", "web", os).data_disk(3, data))
}

/// The guest writes on both disks, somewhere else in each round.
fn write(bench: &Bench, round: u64) -> Result<()> {
    let emulator = bench.cloud.emulator();
    emulator.guest_pattern("web-os", 100 + round, round * 3 * MIB + 512, MIB)?;
    emulator.guest_pattern("web-data", 200 + round, 200 * MIB + round * 512, 4096)?;
    Ok(())
}

/// A run of [`JOB`] at a level, which must end well and as this level; its report and what the disks held.
fn run(bench: &Bench, level: &str) -> Result<(JobReport, Vec<String>)> {
    run_as(bench, &format!("level={level}"), level)
}

fn run_as(bench: &Bench, arguments: &str, level: &str) -> Result<(JobReport, Vec<String>)> {
    let disks = bench.cloud.digests("web")?;
    let report = bench
        .sandbox
        .run(&format!("run job={JOB} {arguments} yes\n"))?;
    println!(
        "{}: level {}, {} files, {:.1} MiB, {:.1} s",
        report.id,
        report.level,
        report.files,
        mebibytes(report.bytes),
        report.elapsed.as_secs_f64()
    );
    ensure!(report.is_clean(), "{}", report.log);
    ensure!(level.starts_with(report.level), "{}", report.log);
    ensure!(report.files == 6, "{}", report.log);
    let is_full = report.bytes >= FULL;
    ensure!(
        is_full == (level == "Full"),
        "{} bytes\n{}",
        report.bytes,
        report.log
    );
    ensure!(
        is_full || report.bytes <= CHANGES,
        "{} bytes\n{}",
        report.bytes,
        report.log
    );
    Ok((report, disks))
}

fn changes_are_saved_and_every_point_in_time_comes_back(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, world(), "vm=web")?;
    let (full, at_full) = run(&bench, "Full")?;
    write(&bench, 1)?;
    let (first, at_first) = run(&bench, "Incremental")?;
    write(&bench, 2)?;
    bench
        .cloud
        .emulator()
        .guest_discard("web-os", 2 * MIB, 5 * MIB)?;
    let (differential, at_differential) = run(&bench, "Differential")?;
    write(&bench, 3)?;
    let (last, at_last) = run(&bench, "Incremental")?;

    let base = differential.name.clone();
    let [full, first, differential, last] =
        [full, first, differential, last].map(|report| report.id);
    bench.restore_equals(&[full], &at_full)?;
    bench.restore_equals(&[full, first], &at_first)?;
    bench.restore_equals(&[full, differential], &at_differential)?;
    // Newest first, and with a run that is not on the path.
    let report = bench.restore_equals(&[last, differential, first, full], &at_last)?;
    ensure!(!report.lines_with("skipped").is_empty(), "{}", report.log);
    ensure!(
        report.lines_with("where=").len() == 1,
        "not one note about where=:\n{}",
        report.log
    );
    // As the Director selects them: by time, and the newest.
    let before = start_time(&bench, differential)?;
    let report = bench.sandbox.restore(&RestoreRequest {
        arguments: format!("fileset={JOB} before=\"{before}\" select"),
        ..RestoreRequest::named(RESTORED)
    })?;
    ensure!(report.is_clean(), "{}", report.log);
    ensure!(bench.cloud.digests(RESTORED)? == at_first, "{}", report.log);
    bench.cloud.delete_vm(RESTORED)?;
    let report = bench.sandbox.restore(&RestoreRequest {
        arguments: format!("fileset={JOB} select current"),
        ..RestoreRequest::named(RESTORED)
    })?;
    ensure!(report.is_clean(), "{}", report.log);
    ensure!(bench.cloud.digests(RESTORED)? == at_last, "{}", report.log);
    bench.cloud.delete_vm(RESTORED)?;
    // Without what they build on, the images that are there lead nowhere.
    let emulator = bench.cloud.emulator();
    emulator.reset_counters();
    let report = bench.sandbox.restore(&RestoreRequest {
        jobs: vec![last],
        ..RestoreRequest::named(RESTORED)
    })?;
    ensure!(matches!(report.status, 'f' | 'E'), "{}", report.log);
    let epoch = epoch(&bench, differential)?;
    let said = report.lines_with("holds the changes since");
    ensure!(!said.is_empty(), "{}", report.log);
    println!("{}", said[0]);
    for part in [
        format!("since job {base} "),
        format!("{epoch}_conf did not come"),
        format!("mark all files that begin with {epoch}_"),
    ] {
        ensure!(
            said[0].contains(&part),
            "{part} is not said: {}",
            report.log
        );
    }
    let created = emulator.counters().requests("Disks_CreateOrUpdate");
    let state = bench.cloud.state();
    ensure!(
        created == 0 && state.vm(RESTORED).is_none() && state.disks.len() == 2,
        "{created} disks were created\n{}",
        report.log
    );
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

/// What the names of a job's images begin with.
fn epoch(bench: &Bench, job: u32) -> Result<String> {
    let files = bench.sandbox.files(job)?;
    let mut names = files.iter().filter_map(|file| file.rsplit('/').next());
    let epoch = names.find_map(|name| name.strip_suffix("_conf"));
    Ok(epoch.context("no document")?.to_owned())
}

fn start_time(bench: &Bench, job: u32) -> Result<String> {
    let rows = bench
        .sandbox
        .query(&format!("SELECT StartTime FROM Job WHERE JobId = {job}"))?;
    let row = rows.first().context("job without start time")?;
    let time = row.get("StartTime").and_then(|time| time.as_str());
    Ok(time.context("job without start time")?.to_owned())
}

fn a_lost_base_is_a_full_image_with_warnings_and_the_next_run_builds_on_it(
    generation: Generation,
) -> Result<()> {
    let bench = Bench::start_with(generation, world(), "vm=web", |config| {
        let strict = config.jobs[0].clone();
        let include = strict.include.replace("vm=web", "vm=web fallback=no");
        config.jobs.push(JobDefinition {
            name: "strict".into(),
            include,
            ..strict
        });
    })?;
    let sandbox = &bench.sandbox;
    ensure!(sandbox.backup("strict", "Full")?.is_clean());
    let (_, at_full) = run(&bench, "Full")?;
    bench.cloud.delete_snapshots()?;
    write(&bench, 1)?;
    let at_fallback = bench.cloud.digests("web")?;
    let fallback = sandbox.backup(JOB, "Incremental")?;
    ensure!(
        fallback.status == 'T' && fallback.errors > 0 && fallback.level == 'I',
        "{}",
        fallback.log
    );
    ensure!(
        fallback.log.contains("Backup OK -- with warnings"),
        "{}",
        fallback.log
    );
    ensure!(
        fallback.lines_with("is saved as a full image").len() == 2,
        "{}",
        fallback.log
    );
    ensure!(fallback.bytes >= FULL, "{}", fallback.log);
    write(&bench, 2)?;
    let (next, at_next) = run(&bench, "Incremental")?;
    ensure!(at_full != at_fallback && at_fallback != at_next);
    // The images before the fallback need not be there.
    bench.restore_equals(&[fallback.id, next.id], &at_next)?;

    let strict = sandbox.backup("strict", "Incremental")?;
    ensure!(strict.status == 'f', "{}", strict.log);
    ensure!(
        !strict.lines_with("fallback=no").is_empty(),
        "{}",
        strict.log
    );
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

fn failed_and_cancelled_runs_are_never_a_base(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, world(), "vm=web")?;
    let emulator = bench.cloud.emulator();
    let (full, _) = run(&bench, "Full")?;
    write(&bench, 1)?;
    emulator.fault(Fault::new("Blob_Get", Action::error(404, "BlobNotFound")));
    let failed = bench.sandbox.backup(JOB, "Incremental")?;
    emulator.clear_faults();
    ensure!(failed.status == 'f', "{}", failed.log);
    write(&bench, 2)?;
    emulator.fault(Fault::new(
        "Blob_Get",
        Action::delay(std::time::Duration::from_secs(600)),
    ));
    let id = bench.sandbox.start_backup(JOB, "Incremental")?;
    while emulator.counters().of("Blob_Get").requests == 0 || emulator.state().grants.is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let cancelled = bench.sandbox.cancel(id)?;
    emulator.clear_faults();
    ensure!(cancelled.status == 'A', "{}", cancelled.log);
    write(&bench, 3)?;
    // What the dead runs had made is gone, once the next one is over; this one holds the changes of all three rounds.
    let (incremental, at_incremental) = run(&bench, "Incremental")?;
    bench.restore_equals(&[full.id, incremental.id], &at_incremental)?;
    ensure!(
        bench.cloud.state().snapshots.len() == 4,
        "two disks, two runs"
    );
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

/// The Director sends level D and the name of the last Incremental: a difference to that run would lose data.
fn a_differential_that_the_director_makes_of_an_incremental_builds_on_the_full(
    generation: Generation,
) -> Result<()> {
    let bench = Bench::start_with(generation, world(), "vm=web", |config| {
        config.jobs[0].directives = "Max Diff Interval = 1 second".into();
    })?;
    let (full, _) = run(&bench, "Full")?;
    write(&bench, 1)?;
    let (_, _) = run(&bench, "Differential")?;
    write(&bench, 2)?;
    // Older than a second by now.
    let (upgraded, at_upgraded) = run_as(&bench, "level=Incremental", "Differential")?;
    bench.restore_equals(&[full.id, upgraded.id], &at_upgraded)?;
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

/// The Director names the run to build on when it queues a job. One that waits behind a Full of its own is restored
/// together with that Full, and without what it names.
fn a_run_that_waited_behind_a_full_builds_on_nothing(generation: Generation) -> Result<()> {
    let bench = Bench::start_with(generation, world(), "vm=web", |config| {
        config.jobs[0].directives = "Maximum Concurrent Jobs = 1".into();
    })?;
    let emulator = bench.cloud.emulator();
    run(&bench, "Full")?;
    write(&bench, 1)?;
    run(&bench, "Incremental")?;
    let disks = bench.cloud.digests("web")?;
    // Slow enough that the second job is surely queued while the first one reads.
    emulator.reset_counters();
    emulator.set_link(Link {
        latency: Duration::from_millis(20),
        bandwidth: Some(MIB / 4),
    });
    let started = Instant::now();
    let full = bench.sandbox.start_backup(JOB, "Full")?;
    while emulator.counters().of("Blob_Get").bytes_out == 0 {
        ensure!(started.elapsed() < HANG, "no byte was read");
        std::thread::sleep(Duration::from_millis(50));
    }
    let waiting = bench.sandbox.start_backup(JOB, "Incremental")?;
    emulator.set_link(Link::default());
    let full = bench.sandbox.wait(full, started)?;
    ensure!(full.is_clean() && full.level == 'F', "{}", full.log);
    let waited = bench.sandbox.wait(waiting, started)?;
    ensure!(
        waited.status == 'T' && waited.level == 'I' && waited.errors > 0,
        "{}",
        waited.log
    );
    let lines = waited.lines_with("is newer than run");
    ensure!(
        lines.len() == 2 && lines.iter().all(|line| line.contains(&full.name)),
        "{}",
        waited.log
    );
    ensure!(waited.bytes >= FULL, "{}", waited.log);
    bench.restore_equals(&[full.id, waited.id], &disks)?;
    write(&bench, 2)?;
    let (next, at_next) = run(&bench, "Incremental")?;
    bench.restore_equals(&[full.id, waited.id, next.id], &at_next)?;
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}
