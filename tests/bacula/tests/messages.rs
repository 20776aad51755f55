//! Job log and debug file: what they say, and to whom.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result, ensure};
use bacula_bench::{Bench, Cloud, Generation, JobDefinition, JobReport, on_both_generations};
use mock_server::{DEFAULT_CLIENT_SECRET, Disk, MIB, Scenario, Vm};

on_both_generations!(debug_levels_are_those_of_the_documentation_and_messages_have_their_prefix);

fn debug_levels_are_those_of_the_documentation_and_messages_have_their_prefix(
    generation: Generation,
) -> Result<()> {
    let os = Disk::new("web-os", 24 * MIB).pattern(1, 0, MIB);
    // Sectors of 4096 bytes cannot be saved: an error in every job.
    let mut bad = Disk::new("bad-os", 24 * MIB);
    bad.logical_sector_size = Some(4096);
    let world = Scenario::new()
        .vm(Vm::new("rg", "web", os))
        .vm(Vm::new("rg", "bad", bad));
    let cloud = Cloud::start(world)?;
    let levels = ["0", "1", "2", "3"];
    let jobs = levels.map(|level| {
        let parameters = format!("application_secret={DEFAULT_CLIENT_SECRET} debug={level}");
        JobDefinition::plugin(
            &format!("debug-{level}"),
            &cloud.plugin_command(&parameters),
        )
    });
    let bench = Bench::start_jobs(generation, cloud, jobs.into(), |_| {})?;
    let folder = bench.sandbox.file_daemon_directory().join("azure-vm");
    let pid = bench.sandbox.file_daemon_pid();
    for level in levels {
        let report = bench.sandbox.backup(&format!("debug-{level}"), "Full")?;
        ensure!(report.status == 'T' && report.errors == 1, "{}", report.log);
        ensure_prefixes(&report)?;
        // The warning is of the first call, the error of a later one. Both are in the job log in any case.
        let said = [
            "application_secret stands in the Plugin line",
            "virtual machine bad",
        ];
        for (part, class) in said.iter().zip(["Warning", "Error"]) {
            let lines = report.lines_with(part);
            ensure!(
                lines
                    .iter()
                    .any(|line| line.contains(&format!("{class}: azure-vm: "))),
                "{class}: {part}\n{}",
                report.log
            );
        }
        let path = folder.join(format!("azure-vm_{}_{pid}.log", report.id));
        if level == "0" {
            let logs = fs::read_dir(&folder)?.filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                name.ends_with(".log").then_some(name)
            });
            ensure!(logs.count() == 0, "a debug file that nobody asked for");
            continue;
        }
        let mode = fs::metadata(&path)
            .with_context(|| path.display().to_string())?
            .mode();
        ensure!(mode & 0o777 == 0o600, "{mode:o}");
        let text = fs::read_to_string(&path)?;
        for part in said {
            ensure!(text.contains(part), "debug={level}: not {part}\n{text}");
        }
        let has = |what: &str| text.lines().any(|line| line.contains(what));
        let found = [
            has(" DEBUG "),
            has(" TRACE "),
            has(" hyper") || has(" rustls"),
        ];
        let expected = [true, level >= "2", level >= "3"];
        ensure!(found == expected, "debug={level}: {found:?}\n{text}");
        ensure!(!text.contains(DEFAULT_CLIENT_SECRET));
    }
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

/// Of the lines that come from the File Daemon only its connection to the Storage Daemon is its own.
fn ensure_prefixes(report: &JobReport) -> Result<()> {
    let mut lines = 0;
    for line in report.lines_with("bench-fd JobId") {
        let (_, text) = line.split_once(": ").context("no text")?;
        let text = ["Warning: ", "Error: ", "Fatal error: "]
            .iter()
            .find_map(|class| text.strip_prefix(class))
            .unwrap_or(text);
        ensure!(
            text.starts_with("azure-vm: ") || text.starts_with("Connected to Storage"),
            "{line}"
        );
        lines += usize::from(text.starts_with("azure-vm: "));
    }
    ensure!(lines >= 5, "{}", report.log);
    Ok(())
}
