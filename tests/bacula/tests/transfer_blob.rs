//! Full and Incremental through a storage account, and the restore of both.

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Generation, JOB, RestoreRequest, on_both_generations};
use mock_server::{Disk, MIB, Scenario, Vm};

on_both_generations!(changes_come_back_that_went_through_a_storage_account);

const ACCOUNT: &str = "stage";

fn changes_come_back_that_went_through_a_storage_account(generation: Generation) -> Result<()> {
    let os = Disk::new("web-os", 24 * MIB).pattern(1, 0, 6 * MIB);
    let data = Disk::new("web-data", 20 * MIB).pattern(2, 5 * MIB, MIB + 512);
    let scenario = Scenario::new()
        .vm(Vm::new("rg1", "web", os).data_disk(3, data))
        .storage_account(ACCOUNT);
    let bench = Bench::start(generation, scenario, "vm=web transfer=blob")?;
    let emulator = bench.cloud.emulator();

    let full = bench.full()?;
    ensure!(full.log.contains("copied to blob"), "{}", full.log);
    nothing_left(&bench)?;
    emulator.guest_write("web-os", 12_345, &[0xa5; 70_000])?;
    emulator.guest_discard("web-os", 4 * MIB, MIB)?;
    emulator.guest_write("web-data", 19 * MIB, b"at the end")?;
    let saved = [
        emulator.disk_digest("web-os")?,
        emulator.disk_digest("web-data")?,
    ];
    let changes = bench.sandbox.backup(JOB, "Incremental")?;
    ensure!(changes.is_clean(), "{}", changes.log);
    ensure!(
        changes.bytes < MIB,
        "{} bytes are no changes",
        changes.bytes
    );
    nothing_left(&bench)?;
    // What was read of the snapshots themselves are their footers.
    let direct = emulator.counters().of("Blob_Get").bytes_out;
    ensure!(direct < 64 * 1024, "{direct} bytes were read of snapshots");

    let restore = bench.sandbox.restore(&RestoreRequest {
        jobs: vec![full.id, changes.id],
        ..RestoreRequest::named("web02")
    })?;
    ensure!(restore.is_clean(), "the restore failed:\n{}", restore.log);
    let state = bench.cloud.state();
    let vm = state.vm("web02").context("no VM was made")?;
    let restored = [
        emulator.disk_digest(&vm.os_disk.id)?,
        emulator.disk_digest(&vm.data_disks[&3].id)?,
    ];
    ensure!(restored == saved, "other bytes came back");
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

/// No blob, and no open snapshot.
fn nothing_left(bench: &Bench) -> Result<()> {
    let state = bench.cloud.state();
    let blobs = state.blobs(ACCOUNT);
    ensure!(blobs.is_empty(), "blobs are left: {blobs:?}");
    ensure!(
        state.grants.is_empty(),
        "access is left: {:?}",
        state.grants
    );
    Ok(())
}
