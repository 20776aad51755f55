//! What changes cost, and that long lists of them count in full.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Generation, JOB, RESTORED, RestoreRequest, can_mount, on_both_generations,
};
use mock_server::{Change, Disk, GIB, KIB, MIB, Scenario, Snapshot, TIB, Vm};

on_both_generations!(
    long_lists_of_written_and_cleared_ranges_count_in_full,
    an_incremental_costs_what_changed_and_not_the_size_of_the_disk,
    five_hundred_gib_discarded_cost_less_than_a_kib_and_read_as_zeros,
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

/// What the guest discards.
const DISCARDED: Range<u64> = 100 * GIB..600 * GIB;

fn five_hundred_gib_discarded_cost_less_than_a_kib_and_read_as_zeros(
    generation: Generation,
) -> Result<()> {
    let Range { start, end } = DISCARDED;
    // The Full has something within the range, at both ends of it too, and something right beside it.
    let disk = [start - MIB, start, start + 250 * GIB, end - MIB, end]
        .iter()
        .zip(2..)
        .fold(
            Disk::new("web-os", TIB).pattern(1, MIB, MIB),
            |disk, (&at, seed)| disk.pattern(seed, at, MIB),
        );
    let is_restored = can_mount();
    let bench = Bench::start_with(generation, one_vm(disk), "vm=web", |config| {
        // Room for all of the disk, of which a restore uses next to nothing.
        config.ram_working_directory = is_restored.then_some(2 << 20);
    })?;
    let emulator = bench.cloud.emulator();
    let full = bench.full()?;
    ensure!(full.bytes > 6 * MIB, "{}", full.log);
    // Nobody wants to read 500 GiB here: the base is taken anew, under its name, when the disk is full.
    let base = bench.cloud.state().snapshots.pop().context("no base")?;
    emulator.change(&Change::DeleteSnapshot {
        snapshot: base.name.clone(),
    })?;
    emulator.guest_pattern("web-os", 9, start, end - start)?;
    emulator.change(&Change::CreateSnapshot(Snapshot {
        name: base.name,
        disk: "web-os".into(),
        resource_group: Some("rg".into()),
        tags: base.tags,
    }))?;
    emulator.guest_discard("web-os", start, end - start)?;
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
    if is_restored {
        restores_as_it_is(&bench, &[full.id, discarded.id])?;
    } else {
        println!("not restored: this user may not mount a file system that has room for it");
    }
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

/// The restored disk has nothing allocated in the discarded range, and elsewhere the bytes of the saved one. What neither
/// has allocated is zeros, and need not be read.
fn restores_as_it_is(bench: &Bench, jobs: &[u32]) -> Result<()> {
    let report = bench.sandbox.restore(&RestoreRequest {
        jobs: jobs.to_vec(),
        ..RestoreRequest::named(RESTORED)
    })?;
    let report = report.clean()?;
    let emulator = bench.cloud.emulator();
    let state = bench.cloud.state();
    let restored = &state.vm(RESTORED).context("no VM")?.os_disk.id;
    let is_outside =
        |range: &Range<u64>| range.end <= DISCARDED.start || range.start >= DISCARDED.end;
    let [expected, found] = [
        emulator.disk_extents("web-os")?,
        emulator.disk_extents(restored)?,
    ];
    println!("allocated: {found:?}");
    ensure!(
        emulator.disk_size(restored)? == TIB && found.iter().all(is_outside),
        "{found:?}\n{}",
        report.log
    );
    let allocated: Vec<_> = expected.into_iter().chain(found).collect();
    let bytes: u64 = allocated.iter().map(|range| range.end - range.start).sum();
    ensure!(bytes < 16 * MIB, "{allocated:?}\n{}", report.log);
    let read = |disk: &str, range: &Range<u64>| {
        emulator.disk_read(disk, range.start, range.end - range.start)
    };
    for range in &allocated {
        ensure!(
            read(restored, range)? == read("web-os", range)?,
            "{range:?} differs\n{}",
            report.log
        );
    }
    Ok(())
}
