//! Cost follows what is allocated: bytes read from Azure, and the File Daemon's memory.

use anyhow::{Result, ensure};
use bacula_bench::{Bench, Generation, mebibytes};
use mock_server::{Disk, GIB, MIB, Scenario, TIB, Vm};

/// How much the File Daemon may grow during a job.
const GROWTH_LIMIT: u64 = 128 * MIB;

#[test]
fn a_gibibyte_on_64_gibibytes() -> Result<()> {
    // 1024 pieces of 1 MiB, none of them where a request would naturally begin.
    let disk = Disk::new("big", 64 * GIB).ranges(1, 123 * 512, 1024, MIB, 63 * MIB + 512);
    measure(Generation::V9_6, disk)
}

#[test]
fn a_hundred_thousand_ranges_on_4_tebibytes() -> Result<()> {
    let disk = Disk::new("huge", 4 * TIB).ranges(2, 4096, 100_000, 4096, 41 * MIB);
    measure(Generation::V15_0, disk)
}

fn measure(generation: Generation, disk: Disk) -> Result<()> {
    let bench = Bench::start(
        generation,
        Scenario::new().vm(Vm::new("rg", "vm", disk)),
        "vm=vm",
    )?;
    let allocated = bench.cloud.state().disks[0].allocated_bytes;
    bench.sandbox.reset_file_daemon_peak()?;
    let before = bench.sandbox.file_daemon_memory()?;

    let report = bench.full()?;

    let after = bench.sandbox.file_daemon_memory()?;
    let counters = bench.cloud.emulator().counters();
    let read = counters.of("Blob_Get").bytes_out;
    let growth = after.peak - before.resident;
    println!(
        "{:.1} MiB allocated, {:.1} MiB read in {} requests, {:.1} MiB saved, {:.1} s; File Daemon {:.1} -> {:.1} MiB \
         (peak)",
        mebibytes(allocated),
        mebibytes(read),
        counters.requests("Blob_Get"),
        mebibytes(report.bytes),
        report.elapsed.as_secs_f64(),
        mebibytes(before.resident),
        mebibytes(after.peak),
    );
    ensure!(read >= allocated, "read less than is allocated");
    ensure!(
        read * 100 <= allocated * 102,
        "read more than 1.02 of what is allocated"
    );
    ensure!(
        growth < GROWTH_LIMIT,
        "the File Daemon grew by {growth} bytes"
    );
    Ok(())
}
