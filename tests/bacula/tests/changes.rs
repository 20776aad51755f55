//! What changes cost, and that long lists of them count in full.

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Generation, JOB, on_both_generations};
use mock_server::{Change, Disk, GIB, KIB, MIB, Scenario, Snapshot, TIB, Vm};

on_both_generations!(
    long_lists_of_written_and_cleared_ranges_count_in_full,
    an_incremental_costs_what_changed_and_not_the_size_of_the_disk,
    five_hundred_gib_discarded_cost_less_than_a_kib,
);

/// More than a page of Azure's lists holds.
const RANGES: u64 = 11_000;

const STRIDE: u64 = 8 * KIB;

fn one_vm(disk: Disk) -> Scenario {
    Scenario::new().vm(Vm::new("rg", "web", disk.in_group("rg")))
}

fn long_lists_of_written_and_cleared_ranges_count_in_full(generation: Generation) -> Result<()> {
    let disk = Disk::new("web-os", 100 * MIB).ranges(1, 0, RANGES, 512, STRIDE);
    let bench = Bench::start(generation, one_vm(disk), "vm=web")?;
    let emulator = bench.cloud.emulator();
    let full = bench.full()?;
    ensure!(full.bytes >= RANGES * 512, "{}", full.log);
    // Every second range is discarded; beside the others something is written, which leaves gaps between all of them.
    for number in 0..RANGES {
        let at = number * STRIDE;
        if number % 2 == 0 {
            emulator.guest_discard("web-os", at, 512)?;
        } else {
            emulator.guest_pattern("web-os", number, at + 2 * KIB, 512)?;
        }
    }
    let expected = bench.cloud.digests("web")?;
    let lists = || emulator.counters().requests("Blob_GetPageRangesDiff");
    let next = bench.sandbox.backup(JOB, "Incremental")?.clean()?;
    ensure!(lists() >= 2, "all on one page");
    let written = RANGES / 2 * 512;
    ensure!(
        (written..written + MIB).contains(&next.bytes),
        "{} bytes\n{}",
        next.bytes,
        next.log
    );
    bench.restore_equals(&[full.id, next.id], &expected)?;
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

fn an_incremental_costs_what_changed_and_not_the_size_of_the_disk(
    generation: Generation,
) -> Result<()> {
    const PIECES: u64 = 64;
    const PIECE: u64 = 128 * KIB;
    let changed = PIECES * PIECE;
    let mut costs = Vec::new();
    for size in [GIB, TIB] {
        let disk = Disk::new("web-os", size).pattern(1, MIB, MIB);
        let bench = Bench::start(generation, one_vm(disk), "vm=web")?;
        let emulator = bench.cloud.emulator();
        bench.full()?;
        for piece in 0..PIECES {
            let at = piece * (size / PIECES) + PIECE;
            emulator.guest_pattern("web-os", piece, at, PIECE)?;
        }
        emulator.reset_counters();
        let report = bench.sandbox.backup(JOB, "Incremental")?.clean()?;
        let read = emulator.counters().of("Blob_Get");
        println!(
            "{size} bytes: {} read, {} sent, {:?}",
            read.bytes_out, report.bytes, report.elapsed
        );
        ensure!(
            read.bytes_out * 100 <= changed * 105 && report.bytes >= changed,
            "{} bytes read\n{}",
            read.bytes_out,
            report.log
        );
        costs.push((
            read.requests,
            emulator.counters().requests("Blob_GetPageRangesDiff"),
        ));
        ensure!(emulator.unmodelled().is_empty());
    }
    ensure!(costs[0] == costs[1], "requests: {costs:?}");
    Ok(())
}

fn five_hundred_gib_discarded_cost_less_than_a_kib(generation: Generation) -> Result<()> {
    let disk = Disk::new("web-os", TIB).pattern(1, MIB, MIB);
    let bench = Bench::start(generation, one_vm(disk), "vm=web")?;
    let emulator = bench.cloud.emulator();
    bench.full()?;
    // Nobody wants to read 500 GiB here: the base is taken anew, under its name, when the disk is full.
    let base = bench.cloud.state().snapshots.pop().context("no base")?;
    emulator.change(&Change::DeleteSnapshot {
        snapshot: base.name.clone(),
    })?;
    emulator.guest_pattern("web-os", 2, 100 * GIB, 500 * GIB)?;
    emulator.change(&Change::CreateSnapshot(Snapshot {
        name: base.name,
        disk: "web-os".into(),
        resource_group: Some("rg".into()),
        tags: base.tags,
    }))?;
    emulator.guest_discard("web-os", 100 * GIB, 500 * GIB)?;
    let discarded = bench.sandbox.backup(JOB, "Incremental")?.clean()?;
    let unchanged = bench.sandbox.backup(JOB, "Incremental")?.clean()?;
    println!(
        "{} bytes with the discard, {} without",
        discarded.bytes, unchanged.bytes
    );
    ensure!(
        discarded.bytes < unchanged.bytes + 1024,
        "{} bytes, and {} without\n{}",
        discarded.bytes,
        unchanged.bytes,
        discarded.log
    );
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}
