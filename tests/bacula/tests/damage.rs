//! A byte that changed in a volume file: the restore says where, and makes nothing in Azure.

use std::fs;

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Generation, JobReport, RESTORED, RestoreRequest, leftovers, on_both_generations,
};
use mock_server::{Disk, MIB, Scenario, Vm};

on_both_generations!(
    a_byte_that_changed_in_a_volume_is_named_and_azure_is_left_alone,
    what_the_storage_daemon_finds_makes_no_machine_either,
);

/// Where on the data disk a byte changes, of 24 MiB.
const PLACE: u64 = 21 * MIB + 12_345;

/// The part of the disk that has a digest of its own.
const PART: &str = "16777216..25165824";

/// Bytes around the place by which it is found in the volume file.
const AROUND: usize = 32;

/// What comes before the checksum of a block of the volume, or changes both, the Storage Daemon does not notice.
fn a_byte_that_changed_in_a_volume_is_named_and_azure_is_left_alone(
    generation: Generation,
) -> Result<()> {
    let (report, image) = restore_damaged(generation, "Block Checksum = no")?;
    let said = report.lines_with("the bytes that came are not those that were saved");
    ensure!(said.len() == 1 && report.status == 'f', "{}", report.log);
    for part in [
        "Fatal error: azure-vm: ",
        "web",
        "web-data",
        "LUN 3",
        &image,
        PART,
    ] {
        ensure!(said[0].contains(part), "{part} is not said: {}", said[0]);
    }
    println!("{}", said[0]);
    Ok(())
}

fn what_the_storage_daemon_finds_makes_no_machine_either(generation: Generation) -> Result<()> {
    let (report, image) = restore_damaged(generation, "")?;
    let [found, said] = [
        "Block checksum mismatch",
        "the image on the volume is not complete",
    ]
    .map(|text| report.lines_with(text).into_iter().next_back());
    found.context("the Storage Daemon found nothing")?;
    let said = said.context(report.log.clone())?;
    for part in ["Fatal error: azure-vm: ", "web", "LUN 3", &image] {
        ensure!(said.contains(part), "{part} is not said: {said}");
    }
    println!("{said}");
    ensure!(report.status == 'f', "{}", report.log);
    Ok(())
}

/// Saves a machine, changes a byte in the volume file and restores: the report, and the name of the image whose byte it is.
/// Nothing may be made in Azure.
fn restore_damaged(generation: Generation, device: &str) -> Result<(JobReport, String)> {
    let disk = |name: &str, seed| Disk::new(name, 24 * MIB).pattern(seed, 20 * MIB, 2 * MIB);
    let world = Scenario::new()
        .vm(Vm::new("rg", "web", disk("web-os", 1)).data_disk(3, disk("web-data", 2)));
    let bench = Bench::start_with(generation, world, "vm=web", |config| {
        config.device = device.to_owned();
    })?;
    let full = bench.full()?;
    let files = bench.sandbox.files(full.id)?;
    let image = files
        .iter()
        .find_map(|file| file.rsplit('/').next().filter(|name| name.ends_with("_0")));
    let image = image.context("no image of the data disk")?.to_owned();
    flip(&bench, full.id, "web-data", PLACE)?;
    let emulator = bench.cloud.emulator();
    emulator.reset_counters();
    let report = bench.sandbox.restore(&RestoreRequest {
        jobs: vec![full.id],
        ..RestoreRequest::named(RESTORED)
    })?;
    let state = bench.cloud.state();
    ensure!(
        emulator.counters().requests("Disks_CreateOrUpdate") == 0
            && state.virtual_machines.len() == 1
            && state.disks.len() == 2,
        "something was made\n{}",
        report.log
    );
    let findings = leftovers(&bench.cloud, &bench.sandbox, 2)?;
    ensure!(findings.iter().all(|finding| finding.good), "{findings:#?}");
    Ok((report, image))
}

/// Changes a bit of the disk's byte at this place, in the volume that the job is on.
pub(crate) fn flip(bench: &Bench, job: u32, disk: &str, place: u64) -> Result<()> {
    let around = bench
        .cloud
        .emulator()
        .disk_read(disk, place, AROUND as u64)?;
    let volume = bench
        .sandbox
        .volume_directory()
        .join(bench.sandbox.volume(job)?);
    let mut bytes = fs::read(&volume)?;
    let mut found = bytes
        .windows(AROUND)
        .enumerate()
        .filter(|(_, part)| *part == around);
    let (at, _) = found.next().context("the byte is not on the volume")?;
    ensure!(found.next().is_none(), "it is there twice");
    bytes[at] ^= 1;
    fs::write(&volume, bytes)?;
    Ok(())
}
