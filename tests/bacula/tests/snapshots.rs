//! What a chain of jobs keeps in Azure and on the File Daemon's host, whatever happens to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Generation, JOB, JobReport, on_both_generations};
use mock_server::{Action, Disk, Fault, Link, MIB, Scenario, Snapshot, Vm};

on_both_generations!(
    thirty_jobs_leave_few_snapshots_and_touch_no_others,
    a_disk_is_snapshotted_opened_listed_read_and_closed,
    what_a_killed_file_daemon_left_is_cleared_by_the_next_job,
    answers_that_are_lost_make_nothing_twice,
);

/// What the names of our tags begin with.
const TAG: &str = "bacula-azure-vm:";

/// The File Daemon's directory has one folder of ours.
const STATE: &str = "azure-vm";

/// Snapshots of a disk that a chain keeps: of the newest two runs and of the Full that they build on.
const MOST: usize = 3;

/// A Full names nobody: until a run names it, those before it stay as they were.
const MOST_AFTER_FULL: usize = 4;

const HANG: Duration = Duration::from_secs(120);

fn world() -> Scenario {
    let disk = |name: &str, seed| Disk::new(name, 24 * MIB).pattern(seed, 0, 2 * MIB);
    Scenario::new().vm(Vm::new("rg", "web", disk("web-os", 1)).data_disk(3, disk("web-data", 2)))
}

/// The guest writes on both disks.
fn write(bench: &Bench, round: u64) -> Result<()> {
    let emulator = bench.cloud.emulator();
    emulator.guest_pattern("web-os", 100 + round, round % 20 * MIB + 512, 4096)?;
    emulator.guest_pattern("web-data", 200 + round, round * 512, 512)?;
    Ok(())
}

/// Our snapshots by the disk that they were taken of.
fn ours(bench: &Bench) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for snapshot in bench.cloud.state().snapshots {
        if snapshot.tags.keys().any(|tag| tag.starts_with(TAG)) {
            *counts.entry(snapshot.source).or_default() += 1;
        }
    }
    counts
}

/// The run's time in the names of its files, which must stand in their order.
fn epoch(bench: &Bench, report: &JobReport) -> Result<u64> {
    let files = bench.sandbox.files(report.id)?;
    let [label, rest @ ..] = files.as_slice() else {
        anyhow::bail!("no files\n{}", report.log);
    };
    let folder = label.strip_suffix("_web.name").context("a label first")?;
    let epoch = rest
        .first()
        .and_then(|name| {
            name.strip_prefix(&format!("{folder}/"))?
                .strip_suffix("_conf")
        })
        .with_context(|| format!("{files:?}"))?;
    let expected =
        ["conf", "osdisk", "0", "digests"].map(|what| format!("{folder}/{epoch}_{what}"));
    ensure!(rest == expected, "{files:?}");
    Ok(epoch.parse()?)
}

fn thirty_jobs_leave_few_snapshots_and_touch_no_others(generation: Generation) -> Result<()> {
    let foreign = [
        ("by-hand", "web-os", None),
        ("theirs", "web-data", Some("bacula-azure-vmx:job")),
    ];
    let world = foreign.iter().fold(world(), |world, (name, disk, tag)| {
        world.snapshot(Snapshot {
            name: (*name).to_owned(),
            disk: (*disk).to_owned(),
            resource_group: None,
            tags: tag
                .iter()
                .map(|tag| ((*tag).to_owned(), JOB.to_owned()))
                .collect(),
        })
    });
    let bench = Bench::start(generation, world, "vm=web")?;
    let emulator = bench.cloud.emulator();
    let before = foreign.map(|(name, ..)| emulator.disk_digest(name));
    let state = bench.sandbox.file_daemon_directory().join(STATE);
    let tracker = state.join("tracker.json");
    let mut last = 0;
    let mut held: Option<(File, String)> = None;
    // What the Director would restore.
    let mut jobs: Vec<u32> = Vec::new();
    let levels = [
        "Full",
        "Incremental",
        "Incremental",
        "Differential",
        "Incremental",
        "Full",
        "Differential",
        "Incremental",
        "Differential",
        "Incremental",
    ];
    for round in 0..30_u16 {
        let level = levels[usize::from(round) % levels.len()];
        write(&bench, round.into())?;
        if round == 14 {
            // The tags tell the same.
            fs::remove_dir_all(&state)?;
        }
        let report = bench.sandbox.backup(JOB, level)?.clean()?;
        ensure!(level.starts_with(report.level), "{}", report.log);
        ensure!(
            (report.bytes > 4 * MIB) == (level == "Full"),
            "{} bytes\n{}",
            report.bytes,
            report.log
        );
        // All files of a run have one time, later than any before, though several runs take less than a second.
        let epoch = epoch(&bench, &report)?;
        ensure!(epoch > last, "{epoch} after {last}\n{}", report.log);
        last = epoch;
        match level {
            "Full" => jobs.clear(),
            "Differential" => jobs.truncate(1),
            _ => {}
        }
        jobs.push(report.id);
        let counts = ours(&bench);
        let most = if level == "Full" {
            MOST_AFTER_FULL
        } else {
            MOST
        };
        ensure!(
            counts.len() == 2 && counts.values().all(|&count| count <= most),
            "after {level} in round {round}: {counts:?}\n{}",
            report.log
        );
        // Private, and never written in place.
        for (path, mode) in [(&state, 0o700), (&tracker, 0o600)] {
            let found = fs::metadata(path)?.mode() & 0o777;
            ensure!(found == mode, "{}: {found:o}", path.display());
        }
        // Whoever reads it meanwhile reads the old one to its end.
        if let Some((mut file, before)) = held.take() {
            let now = fs::read_to_string(&tracker)?;
            let mut still = String::new();
            file.read_to_string(&mut still)?;
            ensure!(
                still == before && now != before,
                "the tracker was written in place"
            );
        }
        held = Some((File::open(&tracker)?, fs::read_to_string(&tracker)?));
    }
    for snapshot in bench.cloud.state().snapshots {
        let incremental = snapshot.resource.pointer("/properties/incremental");
        ensure!(incremental == Some(&true.into()), "{}", snapshot.resource);
    }
    for ((name, ..), before) in foreign.iter().zip(before) {
        ensure!(emulator.disk_digest(name)? == before?, "{name} was changed");
    }
    bench.restore_equals(&jobs, &bench.cloud.digests("web")?)?;
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

/// Nothing is copied and no storage account exists; see `transfer_blob.rs` for the other way.
fn a_disk_is_snapshotted_opened_listed_read_and_closed(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, world(), "vm=web")?;
    let emulator = bench.cloud.emulator();
    for (level, list, opened) in [
        ("Full", "Blob_GetPageRanges", 2),
        ("Incremental", "Blob_GetPageRangesDiff", 4),
    ] {
        emulator.reset_counters();
        bench.sandbox.backup(JOB, level)?.clean()?;
        let counters = emulator.counters();
        for (operation, expected) in [
            ("Snapshots_CreateOrUpdate", 2),
            // Also the base, for the time of the listing.
            ("Snapshots_GrantAccess", opened),
            ("Snapshots_RevokeAccess", opened),
            (list, 2),
        ] {
            let found = counters.requests(operation);
            ensure!(
                found == expected,
                "{level}: {operation} was asked {found} times: {counters:#?}"
            );
        }
        ensure!(counters.requests("Blob_Get") >= 2, "{counters:#?}");
        // The guest is left alone, and so are its disks.
        let touching = counters.operations.keys().filter(|name| {
            name.starts_with("Disks_") && *name != "Disks_Get"
                || name.starts_with("VirtualMachines_")
                    && !["VirtualMachines_ListAll", "VirtualMachines_Get"].contains(&name.as_str())
        });
        ensure!(touching.count() == 0, "{counters:#?}");
        ensure!(bench.cloud.state().grants.is_empty(), "access is left");
    }
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

fn what_a_killed_file_daemon_left_is_cleared_by_the_next_job(generation: Generation) -> Result<()> {
    let mut bench = Bench::start(generation, world(), "vm=web")?;
    let full = bench.full()?;
    bench
        .cloud
        .emulator()
        .guest_pattern("web-os", 7, 8 * MIB, 8 * MIB)?;
    // Slow enough that the job is surely in mid-image when its daemon dies.
    bench.cloud.emulator().reset_counters();
    bench.cloud.emulator().set_link(Link {
        latency: Duration::from_millis(20),
        bandwidth: Some(MIB / 4),
    });
    let started = Instant::now();
    let id = bench.sandbox.start_backup(JOB, "Incremental")?;
    // More than the footers.
    while bench.cloud.emulator().counters().of("Blob_Get").bytes_out < 64 * 1024 {
        ensure!(started.elapsed() < HANG, "no byte was read");
        std::thread::sleep(Duration::from_millis(20));
    }
    bench.sandbox.crash_file_daemon()?;
    bench.cloud.emulator().set_link(Link::default());
    // The Director may take minutes to notice by itself.
    let dead = bench.sandbox.cancel(id)?;
    ensure!(dead.status != 'T', "{}", dead.log);
    let state = bench.cloud.state();
    ensure!(
        !state.grants.is_empty() && state.snapshots.len() == 4,
        "nothing was left to clear"
    );

    let next = bench.sandbox.backup(JOB, "Incremental")?.clean()?;
    ensure!(
        next.log
            .contains("deleting 2 snapshots of earlier runs of this job"),
        "{}",
        next.log
    );
    let state = bench.cloud.state();
    ensure!(
        state.grants.is_empty() && state.snapshots.len() == 4,
        "{:?}, {} snapshots\n{}",
        state.grants,
        state.snapshots.len(),
        next.log
    );
    bench.restore_equals(&[full.id, next.id], &bench.cloud.digests("web")?)?;
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

fn answers_that_are_lost_make_nothing_twice(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, world(), "vm=web")?;
    let emulator = bench.cloud.emulator();
    let expected = bench.cloud.digests("web")?;
    emulator.fault(Fault::new("Snapshots_CreateOrUpdate", Action::LostAnswer).first(2));
    let report = bench.full()?;
    emulator.clear_faults();
    ensure!(
        emulator.counters().requests("Snapshots_CreateOrUpdate") > 2,
        "no answer was lost"
    );
    ensure!(bench.cloud.state().snapshots.len() == 2, "{}", report.log);
    for operation in [
        "Disks_CreateOrUpdate",
        "NetworkInterfaces_CreateOrUpdate",
        "VirtualMachines_CreateOrUpdate",
    ] {
        emulator.fault(Fault::new(operation, Action::LostAnswer).first(1));
    }
    bench.restore_equals(&[report.id], &expected)?;
    ensure!(
        bench.cloud.state().disks.len() == 2 && bench.cloud.state().network_interfaces.len() == 1
    );
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}
