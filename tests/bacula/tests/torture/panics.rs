//! A panic in the plugin while another job of the same daemon runs: one job fails with one message, and that is all.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, HANG, JOB, JobDefinition, JobReport, Moment, RESTORED,
    RestoreRequest, leftovers, number, on_both_generations,
};
use mock_server::{Disk, MIB, Scenario, Vm};

on_both_generations!(a_panic_fails_one_job_and_the_daemon_and_the_others_live);

/// The job beside the one that fails.
const OTHER: &str = "other";

/// Of Fulls that no later run has named so many keep their snapshots, one of the only disk of each of the two VMs.
const KEPT: usize = 2;

/// Functions with calls of theirs that pass before, and whether it is a restore. The first three make a short run.
const POINTS: [(&str, u32, bool); 8] = [
    ("pluginIO", 20, false),
    ("handlePluginEvent", 4, false),
    ("newPlugin", 0, false),
    // On 15.0 the Director takes up to a minute and a half to end a restore that fails in the midst of its files, whatever it fails
    // of: the File Daemon has ended it at once, but leaves its connection to the Storage Daemon open and unread until the Director
    // comes back to it, which waits for the Storage Daemon, which waits to send the rest. Nothing of ours is held meanwhile.
    ("createFile", 2, true),
    ("startBackupFile", 2, false),
    ("endBackupFile", 1, false),
    ("pluginIO", 20, true),
    ("freePlugin", 0, false),
];

fn a_panic_fails_one_job_and_the_daemon_and_the_others_live(generation: Generation) -> Result<()> {
    let points = number("PANICS")?.unwrap_or(3);
    let disk = |name: &str, seed| Disk::new(name, 24 * MIB).pattern(seed, MIB, 8 * MIB);
    let world = Scenario::new()
        .vm(Vm::new("rg", "web", disk("web-os", 1)))
        .vm(Vm::new("rg", "other", disk("other-os", 2)));
    let cloud = Cloud::start(world)?;
    let jobs = vec![
        JobDefinition::plugin(JOB, &cloud.plugin_command("vm=web")),
        // Onto a device of its own.
        JobDefinition::plugin(OTHER, &cloud.plugin_command("vm=other")).with("Pool = copies"),
    ];
    let bench = Bench::start_jobs(generation, cloud, jobs, |_| {})?;
    let pid = bench.sandbox.file_daemon_pid();
    let full = bench.full()?;
    // Good Fulls of either job.
    let (mut fulls, mut others) = (1, 0);
    for (function, passes, is_restore) in POINTS.into_iter().take(usize::try_from(points)?) {
        let report = panic_in(&bench, full.id, function, passes, is_restore)
            .with_context(|| format!("{function} after {passes}, restore: {is_restore}"))?;
        fulls += usize::from(report.status == 'T' && !is_restore);
        others += 1;
        nothing_left(&bench, KEPT.min(fulls) + KEPT.min(others)).context(report.log)?;
    }
    ensure!(bench.sandbox.file_daemon_pid() == pid);
    bench.restore_equals(&[full.id], &bench.cloud.digests("web")?)?;
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

fn panic_in(
    bench: &Bench,
    full: u32,
    function: &str,
    passes: u32,
    is_restore: bool,
) -> Result<JobReport> {
    let emulator = bench.cloud.emulator();
    // It gets no answer, and is under way all the while.
    let moment = Moment::Read(2);
    bench.hold_at(moment);
    let started = Instant::now();
    let other = bench.sandbox.start_backup(OTHER, "Full")?;
    ensure!(bench.wait_for(other, moment)?, "nothing was read");
    emulator.clear_faults();
    let file = bench.sandbox.file_daemon_directory().join("azure-vm/panic");
    // Jobs are numbered one after the other.
    fs::write(&file, format!("{function} {} {passes}", other + 1))?;
    let report = if is_restore {
        bench.sandbox.restore(&RestoreRequest {
            jobs: vec![full],
            ..RestoreRequest::named(RESTORED)
        })?
    } else {
        bench.sandbox.backup(JOB, "Full")?
    };
    ensure!(
        report.id == other + 1 && !file.exists(),
        "no panic\n{}",
        report.log
    );
    println!("{function} after {passes}: status {}", report.status);
    judge(function, &report)?;
    // It asks again.
    emulator.cut_connections();
    let beside = bench.sandbox.wait(other, started)?.clean()?;
    ensure!(
        beside.elapsed > report.elapsed,
        "the other job was over before"
    );
    Ok(report)
}

fn nothing_left(bench: &Bench, snapshots: usize) -> Result<()> {
    let since = Instant::now();
    loop {
        let findings = leftovers(&bench.cloud, &bench.sandbox, snapshots)?;
        let bad: Vec<_> = findings.iter().filter(|finding| !finding.good).collect();
        if bad.is_empty() {
            return Ok(());
        }
        ensure!(since.elapsed() < HANG, "left behind: {bad:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn judge(function: &str, report: &JobReport) -> Result<()> {
    let said = report.lines_with("internal error, please report it");
    // After the end there is nobody to hear it, and the job has ended well.
    let is_good = function == "freePlugin";
    ensure!(said.len() == usize::from(!is_good), "{}", report.log);
    ensure!((report.status == 'T') == is_good, "{}", report.log);
    Ok(())
}
