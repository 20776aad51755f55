//! Full backup, loss of the VM, restore: every byte and every property is back, and nothing else.

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Finding, Generation, JobReport, Ledger, RestoreRequest, SandboxConfig, VmShape,
    check_vhd_footer, compare_vms, leftovers, on_both_generations,
};

use crate::features::{SHA1, expect_signed_and_compressed};

on_both_generations!(
    a_vm_comes_back_under_a_new_name,
    compression_and_large_blocks_change_nothing
);

const NEW_NAME: &str = "ledger02";

fn a_vm_comes_back_under_a_new_name(generation: Generation) -> Result<()> {
    round_trip(generation, |_| {}).map(drop)
}

fn compression_and_large_blocks_change_nothing(generation: Generation) -> Result<()> {
    let (bench, backup) = round_trip(generation, |config| {
        config.file_daemon = "Maximum Network Buffer Size = 524288".into();
        for job in &mut config.jobs {
            job.options = "signature = SHA1; compression = LZO".into();
        }
    })?;
    expect_signed_and_compressed(&bench, &backup, SHA1)
}

/// The daemons and the backup, for more to be looked at.
fn round_trip(
    generation: Generation,
    change: impl FnOnce(&mut SandboxConfig),
) -> Result<(Bench, JobReport)> {
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::create(directory.path(), 1)?;
    let vm = format!("vm={}", Ledger::NAME);
    let bench = Bench::start_with(generation, ledger.scenario(), &vm, change)?;
    let Bench { sandbox, cloud } = &bench;
    let saved = VmShape::of(cloud, Ledger::NAME)?;

    let backup = bench.full()?;
    let files = sandbox.files(backup.id)?;
    assert_eq!(files.len(), 6, "{files:#?}");
    cloud.delete_vm(Ledger::NAME)?;
    expect_good(&leftovers(cloud, sandbox, 3)?)?;

    let restore = sandbox.restore(&RestoreRequest {
        jobs: vec![backup.id],
        plugin_options: vec![("new_hostname".into(), NEW_NAME.into())],
        ..RestoreRequest::default()
    })?;
    ensure!(restore.is_clean(), "the restore failed:\n{}", restore.log);
    expect_good(&ledger.compare_disks(cloud, NEW_NAME)?)?;
    expect_valid_footers(cloud)?;
    expect_good(&compare_vms(&saved, &VmShape::of(cloud, NEW_NAME)?))?;
    expect_good(&leftovers(cloud, sandbox, 3)?)?;
    Ok((bench, backup))
}

/// The emulator refuses a wrong footer; this is what another program says to those that we uploaded.
fn expect_valid_footers(cloud: &Cloud) -> Result<()> {
    let state = cloud.state();
    let disks: Vec<_> = state
        .disks
        .iter()
        .filter(|disk| disk.managed_by.is_some())
        .collect();
    ensure!(disks.len() == 3, "{} disks", disks.len());
    for disk in disks {
        let footer = cloud.emulator().uploaded_footer(&disk.id)?;
        let footer = footer.with_context(|| format!("{} was not uploaded", disk.name))?;
        check_vhd_footer(&footer, disk.size_bytes)?;
        println!(
            "{}: qemu-img sees a VHD of {} bytes",
            disk.name, disk.size_bytes
        );
    }
    Ok(())
}

fn expect_good(findings: &[Finding]) -> Result<()> {
    for Finding { subject, text, .. } in findings {
        println!("{subject}: {text}");
    }
    let bad: Vec<&Finding> = findings.iter().filter(|finding| !finding.good).collect();
    ensure!(bad.is_empty(), "{bad:#?}");
    Ok(())
}
