//! Disks and VMs that change between two runs of a job, and the causes for which a disk is saved in full.

use std::fs;

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Generation, JOB, JobReport, on_both_generations};
use mock_server::{Action, ByteSize, Change, Disk, Fault, GIB, MIB, Scenario, TIB, Vm};

on_both_generations!(
    disks_that_change_between_runs_are_saved_rightly,
    vms_that_come_and_go_between_runs_are_followed,
    every_cause_of_a_full_image_is_told_and_costs_that_disk_only,
);

/// What every disk holds at first, which only a full image saves again.
const CONTENT: u64 = 2 * MIB;

fn disk(name: &str, seed: u64) -> Disk {
    Disk::new(name, 24 * MIB)
        .in_group("rg")
        .pattern(seed, 0, CONTENT)
}

fn change(bench: &Bench, changes: impl IntoIterator<Item = Change>) -> Result<()> {
    for change in changes {
        let result = bench.cloud.emulator().change(&change);
        result.with_context(|| format!("{change:?}"))?;
    }
    Ok(())
}

/// Names of the files without their folder and time.
fn files(bench: &Bench, report: &JobReport) -> Result<Vec<String>> {
    let names = bench.sandbox.files(report.id)?;
    Ok(names
        .iter()
        .filter_map(|name| Some(name.rsplit_once('_')?.1.to_owned()))
        .collect())
}

/// An Incremental in which exactly these disks were saved in full, each with one error that says so.
fn incremental(bench: &Bench, in_full: &[&str]) -> Result<JobReport> {
    let report = bench.sandbox.backup(JOB, "Incremental")?;
    let lines = report.lines_with("is saved as a full image");
    ensure!(
        report.status == 'T'
            && report.level == 'I'
            && lines.len() == in_full.len()
            && usize::try_from(report.errors)? == in_full.len()
            && in_full.iter().all(|disk| lines
                .iter()
                .any(|line| line.contains(&format!("disk {disk} ("))
                    && line.contains("Error: azure-vm: "))),
        "status {}, {} errors, expected full images of {in_full:?}\n{}",
        report.status,
        report.errors,
        report.log
    );
    let status = if in_full.is_empty() {
        "Backup OK"
    } else {
        "Backup OK -- with warnings"
    };
    ensure!(
        report
            .lines_with("Termination:")
            .iter()
            .any(|line| line.trim_end().ends_with(status)),
        "{}",
        report.log
    );
    let images = in_full.len() as u64;
    ensure!(
        (images * CONTENT..images * CONTENT + MIB).contains(&report.bytes),
        "{} bytes\n{}",
        report.bytes,
        report.log
    );
    Ok(report)
}

fn disks_that_change_between_runs_are_saved_rightly(generation: Generation) -> Result<()> {
    let vm = Vm::new("rg", "web", disk("web-os", 1)).data_disk(7, disk("seven", 2));
    let bench = Bench::start(
        generation,
        Scenario::new()
            .vm(vm)
            .disk(disk("two", 3))
            .disk(disk("other", 4)),
        "include=web.*",
    )?;
    let emulator = bench.cloud.emulator();
    let full = bench.full()?;
    ensure!(files(&bench, &full)? == ["web.name", "conf", "osdisk", "0", "digests"]);

    // One more disk, before the other in LUN order; the OS disk grows, and its guest uses that.
    change(
        &bench,
        [
            Change::AttachDisk {
                vm: "web".into(),
                lun: 2,
                disk: "two".into(),
            },
            Change::GrowDisk {
                disk: "web-os".into(),
                size: ByteSize(30 * MIB),
            },
        ],
    )?;
    emulator.guest_write("web-os", 30 * MIB - 100, b"at the new end")?;
    emulator.guest_write("seven", 5 * MIB, b"changed")?;
    let at_second = bench.cloud.digests("web")?;
    let second = incremental(&bench, &["two"])?;
    ensure!(files(&bench, &second)? == ["web.name", "conf", "osdisk", "0", "1", "digests"]);

    // Another disk at the same LUN, full of other bytes: patched with the old one's changes it would be neither. And
    // another name for the VM.
    emulator.guest_write("two", 6 * MIB, b"changed")?;
    change(
        &bench,
        [
            Change::DetachDisk {
                vm: "web".into(),
                lun: 7,
            },
            Change::AttachDisk {
                vm: "web".into(),
                lun: 7,
                disk: "other".into(),
            },
            Change::RenameVm {
                vm: "web".into(),
                name: "web2".into(),
            },
        ],
    )?;
    let at_third = bench.cloud.digests("web2")?;
    let third = incremental(&bench, &["other"])?;
    ensure!(files(&bench, &third)? == ["web2.name", "conf", "osdisk", "0", "1", "digests"]);
    let folder = |report: &JobReport| -> Result<String> {
        let files = bench.sandbox.files(report.id)?;
        let label = files.first().and_then(|name| name.split_once('_'));
        Ok(label.context("no label")?.0.to_owned())
    };
    ensure!(
        folder(&third)? == folder(&full)?,
        "the UUID changed with the name"
    );

    // One disk less.
    emulator.guest_write("other", 7 * MIB, b"changed")?;
    change(
        &bench,
        [Change::DetachDisk {
            vm: "web2".into(),
            lun: 2,
        }],
    )?;
    let at_fourth = bench.cloud.digests("web2")?;
    let fourth = incremental(&bench, &[])?;
    ensure!(files(&bench, &fourth)? == ["web2.name", "conf", "osdisk", "0", "digests"]);

    bench.restore_equals(&[full.id, second.id], &at_second)?;
    bench.restore_equals(&[full.id, second.id, third.id], &at_third)?;
    let jobs = [full.id, second.id, third.id, fourth.id];
    bench.restore_equals(&jobs, &at_fourth)?;
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

fn vms_that_come_and_go_between_runs_are_followed(generation: Generation) -> Result<()> {
    let vm = |name: &str, seed| Vm::new("rg", name, disk(&format!("{name}-os"), seed));
    let world = Scenario::new().vm(vm("stays", 1)).vm(vm("goes", 2));
    let bench = Bench::start(generation, world, "include=.*")?;
    let full = bench.full()?;
    ensure!(files(&bench, &full)?.len() == 8);
    bench.cloud.delete_vm("goes")?;
    change(&bench, [Change::CreateVm(Box::new(vm("comes", 3)))])?;
    let next = incremental(&bench, &["comes-os"])?;
    ensure!(
        files(&bench, &next)?
            == [
                "comes.name",
                "conf",
                "osdisk",
                "digests",
                "stays.name",
                "conf",
                "osdisk",
                "digests"
            ]
    );
    // Of the one that is gone nothing stays, not even in Azure.
    let state = bench.cloud.state();
    let sources: Vec<_> = state
        .snapshots
        .iter()
        .map(|snapshot| &snapshot.source)
        .collect();
    ensure!(
        sources.len() == 3 && !sources.iter().any(|source| source.ends_with("goes-os")),
        "{sources:?}\n{}",
        next.log
    );
    let last = incremental(&bench, &[])?;
    ensure!(files(&bench, &last)?.len() == 8, "{}", last.log);
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

fn every_cause_of_a_full_image_is_told_and_costs_that_disk_only(
    generation: Generation,
) -> Result<()> {
    let vm = Vm::new("rg", "web", disk("web-os", 1))
        .data_disk(0, disk("gone", 2))
        .data_disk(1, disk("refused", 3))
        .data_disk(2, disk("large", 4));
    let bench = Bench::start(generation, Scenario::new().vm(vm), "vm=web")?;
    let emulator = bench.cloud.emulator();
    bench.full()?;
    let base = |disk: &str| -> Result<String> {
        let snapshots = bench.cloud.state().snapshots;
        let of_disk = snapshots
            .iter()
            .filter(|snapshot| snapshot.source.ends_with(disk));
        let names = of_disk.map(|snapshot| snapshot.name.clone());
        names.max().context("no base")
    };
    // Base gone, access refused, and more than Azure compares; the fourth disk goes on.
    change(
        &bench,
        [
            Change::DeleteSnapshot {
                snapshot: base("gone")?,
            },
            Change::GrowDisk {
                disk: "large".into(),
                size: ByteSize(4 * TIB + GIB),
            },
        ],
    )?;
    let refusal = Action::error(403, "AuthorizationFailed");
    emulator.fault(Fault::new("Snapshots_GrantAccess", refusal).path_contains(&base("refused")?));
    let report = incremental(&bench, &["gone", "refused", "large"])?;
    emulator.clear_faults();
    for (disk, reason) in [
        ("gone", "no snapshot of this disk"),
        ("refused", "AuthorizationFailed"),
        ("large", "4 TiB"),
    ] {
        ensure!(
            report
                .lines_with(reason)
                .iter()
                .any(|line| line.contains(&format!("disk {disk} ("))),
            "{disk}: not {reason}\n{}",
            report.log
        );
    }
    change(
        &bench,
        [Change::DetachDisk {
            vm: "web".into(),
            lun: 2,
        }],
    )?;
    // The next run builds on those images.
    incremental(&bench, &[])?;
    // The list itself is refused.
    emulator.fault(Fault::new(
        "Blob_GetPageRangesDiff",
        Action::error(409, "PreviousSnapshotNotFound"),
    ));
    incremental(&bench, &["web-os", "gone", "refused"])?;
    emulator.clear_faults();
    // Neither tracker nor snapshots.
    let tracker = bench
        .sandbox
        .file_daemon_directory()
        .join("azure-vm/tracker.json");
    fs::write(tracker, "not a tracker")?;
    bench.cloud.delete_snapshots()?;
    incremental(&bench, &["web-os", "gone", "refused"])?;
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}
