//! The plugin as a guest in the File Daemon's process.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Generation, JOB, on_both_generations};
use mock_server::{Disk, Link, MIB, Scenario, Vm};

on_both_generations!(no_thread_of_the_plugin_takes_the_daemons_signals_or_stays);

const HANG: Duration = Duration::from_secs(120);

/// All signals but SIGKILL and SIGSTOP, which nobody can block, and the two that glibc keeps for itself (32 and 33).
const ALL: u64 = !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32);

/// The masks of blocked signals of the plugin's threads.
fn masks(bench: &Bench) -> Result<Vec<u64>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", bench.sandbox.file_daemon_pid()))?;
    let mut masks = Vec::new();
    for task in tasks {
        // A thread may go while it is looked at.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).context("no such field")
        };
        if field("Name:")? == "azure-vm" {
            masks.push(u64::from_str_radix(field("SigBlk:")?, 16)?);
        }
    }
    Ok(masks)
}

fn no_thread_of_the_plugin_takes_the_daemons_signals_or_stays(
    generation: Generation,
) -> Result<()> {
    let os = Disk::new("web-os", 64 * MIB).pattern(1, 0, 32 * MIB);
    let world = Scenario::new().vm(Vm::new("rg", "web", os));
    let bench = Bench::start(generation, world, "vm=web")?;
    ensure!(masks(&bench)?.is_empty(), "threads before there is a job");
    bench.cloud.emulator().set_link(Link {
        latency: Duration::from_millis(20),
        bandwidth: Some(MIB / 4),
    });
    let started = Instant::now();
    let id = bench.sandbox.start_backup(JOB, "Full")?;
    while bench.cloud.emulator().counters().of("Blob_Get").bytes_out < MIB {
        ensure!(started.elapsed() < HANG, "nothing was read");
        std::thread::sleep(Duration::from_millis(50));
    }
    let found = masks(&bench)?;
    ensure!(!found.is_empty(), "no thread in the middle of a job");
    for mask in found {
        ensure!(mask & ALL == ALL, "blocked are {mask:016x} only");
    }
    bench.cloud.emulator().set_link(Link::default());
    bench.sandbox.wait(id, started)?.clean()?;
    while !masks(&bench)?.is_empty() {
        ensure!(started.elapsed() < HANG, "threads that outlive their job");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
