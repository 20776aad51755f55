//! Many jobs in one File Daemon, of all kinds and endings: it holds no more at the end than after the first few.
//!
//! `LEAK_ROUNDS=<n>` asks for that many rounds (`make torture-daemons`: 200 jobs that back up or restore, of which the first 65 are
//! the warm-up, and 120 listings).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Generation, HANG, JOB, Moment, RESTORED, RestoreRequest, Use, leftovers, mebibytes,
    number, on_both_generations,
};
use mock_server::{Action, Disk, Fault, MIB, Scenario, Vm};

/// Rounds of a short run. A third of all rounds, or the first, is the warm-up.
const ROUNDS: u64 = 3;

/// Jobs of a round that back up or restore.
const JOBS: u64 = 5;

/// Jobs of a round that only list.
const LISTINGS: u64 = 3;

/// Snapshots after each round, of the only disk: those of the Incremental and of the Full that it builds on, which the next one may
/// build on as well. The next Full of a good end, and the Incremental that names it, let both go.
const SNAPSHOTS: usize = 2;

/// What the allocator may keep after the warm-up. A job that leaked one of its buffers would need more in a few rounds.
const GROWTH: u64 = 4 * MIB;

on_both_generations!(a_file_daemon_holds_no_more_after_many_jobs);

fn a_file_daemon_holds_no_more_after_many_jobs(generation: Generation) -> Result<()> {
    let rounds = number("LEAK_ROUNDS")?.unwrap_or(ROUNDS);
    let disk = |name: &str, seed| Disk::new(name, 24 * MIB).pattern(seed, MIB, 4 * MIB);
    let world = Scenario::new().vm(Vm::new("rg", "web", disk("web-os", 1)));
    let bench = Bench::start_with(generation, world, "vm=web", |config| {
        // Else glibc spreads what short-lived threads take over many arenas, and that looks like a leak.
        let one_arena = ("MALLOC_ARENA_MAX".to_owned(), "1".to_owned());
        config.environment.push(one_arena);
    })?;
    let warm_up = 1.max(rounds / 3);
    let mut warm = None;
    let mut end = bench.sandbox.file_daemon_use()?;
    for number in 1..=rounds {
        round(&bench)?;
        end = at_rest(&bench, warm)?;
        println!(
            "after {} jobs and {} listings: {:.1} MiB resident, {} threads, {} descriptors, {} of them sockets",
            number * JOBS,
            number * LISTINGS,
            mebibytes(end.resident),
            end.threads,
            end.descriptors,
            end.sockets
        );
        // Memory comes to rest a little later than the rest.
        if number == warm_up {
            warm = Some(end);
        }
    }
    let warm = warm.context("no warm-up")?;
    println!(
        "resident after the warm-up of {warm_up} of {rounds} rounds {:.1} MiB, at the end {:.1} MiB",
        mebibytes(warm.resident),
        mebibytes(end.resident),
    );
    ensure!(
        end.resident < warm.resident + GROWTH,
        "resident memory grew"
    );
    let findings = leftovers(&bench.cloud, &bench.sandbox, SNAPSHOTS)?;
    ensure!(findings.iter().all(|finding| finding.good), "{findings:#?}");
    Ok(())
}

/// What it holds when nothing is left of the jobs; no more than `before`.
fn at_rest(bench: &Bench, before: Option<Use>) -> Result<Use> {
    let asked = Instant::now();
    // The daemon takes ten seconds to leave a cancelled backup.
    while !bench.sandbox.running()?.is_empty() {
        ensure!(asked.elapsed() < HANG, "jobs run");
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut last = bench.sandbox.file_daemon_use()?;
    let mut still = 0;
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = bench.sandbox.file_daemon_use()?;
        let is_still = (now.threads, now.descriptors) == (last.threads, last.descriptors);
        still = if is_still { still + 1 } else { 0 };
        last = now;
        let fits = before.is_none_or(|before| {
            now.threads <= before.threads && now.descriptors <= before.descriptors
        });
        // The daemon keeps threads for further connections for two seconds.
        if still >= 25 && fits {
            return Ok(now);
        }
        ensure!(asked.elapsed() < HANG, "{now:?} instead of {before:?}");
    }
}

/// Five jobs: one that is cancelled, two good backups, one that fails, one restore; and three listings.
fn round(bench: &Bench) -> Result<()> {
    let Bench { sandbox, cloud } = bench;
    let emulator = cloud.emulator();
    // The first is the footer.
    let moment = Moment::Read(2);
    bench.hold_at(moment);
    let id = sandbox.start_backup(JOB, "Full")?;
    ensure!(bench.wait_for(id, moment)?, "nothing was read");
    emulator.clear_faults();
    let cancelled = sandbox.cancel(id)?;
    ensure!(cancelled.status == 'A', "{}", cancelled.log);
    let full = bench.full()?;
    emulator.guest_pattern("web-os", full.id.into(), 9 * MIB, MIB)?;
    let next = sandbox.backup(JOB, "Incremental")?.clean()?;
    emulator.fault(Fault::new("Blob_Get", Action::error(404, "BlobNotFound")).from(2));
    let failed = sandbox.backup(JOB, "Full")?;
    emulator.clear_faults();
    ensure!(failed.status == 'f', "{}", failed.log);
    sandbox
        .restore(&RestoreRequest {
            jobs: vec![full.id, next.id],
            ..RestoreRequest::named(RESTORED)
        })?
        .clean()?;
    ensure!(cloud.digests(RESTORED)? == cloud.digests("web")?);
    cloud.delete_vm(RESTORED)?;
    ensure!(sandbox.list(JOB)?.vms() == ["web"]);
    for path in ["/", "/vm"] {
        let command = cloud.plugin_command("").replace('"', "\\\"");
        sandbox.ask(&format!(
            ".ls client=bench-fd plugin=\"{command}\" path={path}"
        ))?;
    }
    Ok(())
}
