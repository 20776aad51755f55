//! The saved image needs no plugin: what `bextract` writes is the guest's disk.

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Generation, Ledger, check_file_system, compare_images, on_both_generations,
};

on_both_generations!(bextract_gives_the_guests_disk);

fn bextract_gives_the_guests_disk(generation: Generation) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::create(directory.path(), 1)?;
    let mut bench = Bench::start(
        generation,
        ledger.scenario(),
        &format!("vm={}", Ledger::NAME),
    )?;
    let backup = bench.full()?;
    let volume = bench.sandbox.volume(backup.id)?;
    let guests = [
        ("_osdisk", &ledger.os),
        ("_0", &ledger.data[0].1),
        ("_1", &ledger.data[1].1),
    ];
    for (suffix, guest) in guests {
        let files = bench.sandbox.files(backup.id)?;
        let file = files
            .iter()
            .find(|file| file.ends_with(suffix))
            .with_context(|| format!("no {suffix} in {files:?}"))?;
        let target = tempfile::tempdir()?;
        let image = bench.sandbox.bextract(&volume, file, target.path())?;
        let size = image.metadata()?.len();
        ensure!(
            size == guest.size(),
            "{file} has {size} bytes instead of {}",
            guest.size()
        );
        println!("{file}: {}", compare_images(guest.path(), &image)?.trim());
        if suffix == "_osdisk" {
            println!("{}", check_file_system(&image)?.trim());
        }
    }
    Ok(())
}
