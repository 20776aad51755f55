//! What the File Daemon's CPU has to do for a disk in Azure, beside the same bytes in a local raw file: `make bench`.
//!
//! Each job saves the same content through the real File Daemon to a Storage Daemon on this machine, once with Bacula's own
//! `File = …` and with the plugin, which is given HTTPS, as in Azure, and plain HTTP, to tell what encryption costs.
//! `--runs N` takes N of each (3), in turn; `--write` puts the table into `docs/performance.md`.
#![allow(
    clippy::print_stdout,
    reason = "a program whose purpose is to tell what it measures"
)]

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bacula_bench::{Cloud, Generation, JobDefinition, Sandbox, SandboxConfig, plugin, workspace};
use mock_server::{Disk, GIB, KIB, MIB, Scenario, Vm};

#[path = "../../../../benches/transfer/document.rs"]
mod document;

const NAME: &str = "vm";
/// Bytes of content, in extents of this size with holes of this size between them: few, since reading a hole costs the
/// local job something and ours nothing.
const CONTENT: u64 = GIB;
const EXTENT: u64 = 16 * MIB;
const HOLE: u64 = 256 * KIB;
/// Times the CPU of the local job that ours may take.
const TARGET: f64 = 1.25;

/// What the Options of a `FileSet` ask of the File Daemon.
const OPTIONS: [(&str, &str); 4] = [
    ("nothing", ""),
    ("MD5", "signature = MD5"),
    ("LZO", "compression = LZO"),
    ("MD5, LZO", "signature = MD5; compression = LZO"),
];

/// Where the bytes come from.
const SOURCES: [&str; 3] = ["file", "https", "http"];

/// Seconds of CPU by source.
type Costs = [Vec<f64>; SOURCES.len()];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let runs = arguments
        .iter()
        .position(|argument| argument == "--runs")
        .and_then(|at| arguments.get(at + 1))
        .map_or(Ok(3), |text| text.parse::<usize>())?
        .max(1);
    let directory = tempfile::tempdir()?;
    let image = directory.path().join("disk.raw");
    let size = make_image(&image)?;

    let mut rows = Vec::new();
    println!(
        "{:14} {:>12} {:>10} {:>10} {:>10}",
        "", "local file", "HTTPS", "HTTP", "ratios"
    );
    for (name, generation) in [("9.6", Generation::V9_6), ("15.0", Generation::V15_0)] {
        let costs = measure(generation, &image, size, runs)?;
        for ((options, _), costs) in OPTIONS.iter().zip(costs) {
            let [file, https, http] = costs.map(|seconds| median(&seconds));
            let row = [
                format!("{name}, {options}"),
                format!("{file:.2} s"),
                format!("{https:.2} s"),
                format!("{http:.2} s"),
                judged(https / file),
                judged(http / file),
            ];
            println!(
                "{:14} {:>12} {:>10} {:>10}   {}, {}",
                row[0], row[1], row[2], row[3], row[4], row[5]
            );
            rows.push(format!("| {} |\n", row.join(" | ")));
        }
    }
    if arguments.iter().any(|argument| argument == "--write") {
        let text = format!(
            "| Bacula, options | local file | azure-vm, HTTPS | azure-vm, HTTP | HTTPS at most {TARGET} x | HTTP at most {TARGET} x |\n\
             | --- | --- | --- | --- | --- | --- |\n{}\nSeconds of CPU of the File Daemon per GiB, medians of {runs} runs on {}.",
            rows.concat(),
            document::machine()
        );
        document::replace(
            &workspace().join("docs/performance.md"),
            "file-daemon",
            &text,
        )?;
    }
    Ok(())
}

fn judged(ratio: f64) -> String {
    let word = if ratio <= TARGET { "yes" } else { "no" };
    format!("{word} ({ratio:.2})")
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Half of every block cannot be compressed, the other half well. Returns the size.
fn make_image(path: &Path) -> Result<u64> {
    let mut random = File::open("/dev/urandom")?;
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut extent = vec![0; usize::try_from(EXTENT)?];
    let mut at = 0;
    for _ in 0..CONTENT / EXTENT {
        for (number, block) in extent.chunks_exact_mut(64 << 10).enumerate() {
            let (noise, text) = block.split_at_mut(32 << 10);
            random.read_exact(noise)?;
            let line = format!("{number:08} 10.1.0.17 GET /ledger/entries 200\n");
            for (target, byte) in text.iter_mut().zip(line.bytes().cycle()) {
                *target = byte;
            }
        }
        file.write_all_at(&extent, at)?;
        at += EXTENT + HOLE;
    }
    file.set_len(at)?;
    // What is still to be written to disk would disturb the first jobs.
    file.sync_all()?;
    Ok(at)
}

/// The File Daemon's CPU by options and source.
fn measure(
    generation: Generation,
    image: &Path,
    size: u64,
    runs: usize,
) -> Result<[Costs; OPTIONS.len()]> {
    let disk = Disk::new("disk", size).file(image, 0);
    let cloud = Cloud::start(Scenario::new().vm(Vm::new("rg", NAME, disk)))?;
    let http = cloud.emulator().http_url();
    let plain = cloud.write_config(
        "http.conf",
        &[("authority", Some(http)), ("arm_endpoint", Some(http))],
    )?;
    let mut jobs = Vec::new();
    for (at, (_, options)) in OPTIONS.iter().enumerate() {
        let commands = [
            // Without this, holes are read and sent as zeros.
            (
                format!("sparse = yes; {options}"),
                JobDefinition::files("file", image),
            ),
            (
                (*options).to_owned(),
                JobDefinition::plugin("https", &cloud.plugin_command(&format!("vm={NAME}"))),
            ),
            (
                (*options).to_owned(),
                JobDefinition::plugin(
                    "http",
                    &format!(
                        "azure-vm: config={} allow_http=yes vm={NAME}",
                        plain.display()
                    ),
                ),
            ),
        ];
        jobs.extend(commands.map(|(options, job)| JobDefinition {
            name: format!("{}-{at}", job.name),
            options,
            ..job
        }));
    }
    let sandbox = Sandbox::start(&SandboxConfig {
        generation,
        jobs,
        plugin: Some(plugin()?),
        ..SandboxConfig::default()
    })?;
    let mut costs: [Costs; OPTIONS.len()] = Default::default();
    for _ in 0..runs {
        for (at, costs) in costs.iter_mut().enumerate() {
            for (source, costs) in SOURCES.iter().zip(costs) {
                costs.push(job(&sandbox, &format!("{source}-{at}"))?);
            }
        }
    }
    Ok(costs)
}

/// Seconds of CPU that the File Daemon spends on a Full.
fn job(sandbox: &Sandbox, name: &str) -> Result<f64> {
    let before = sandbox.file_daemon_cpu()?;
    let report = sandbox.backup(name, "Full")?.clean()?;
    let after = sandbox.file_daemon_cpu()?;
    ensure!(
        report.bytes > CONTENT / 3,
        "{name}: not all was saved:\n{}",
        report.log
    );
    // A GiB each: they would fill the disk.
    fs::remove_file(sandbox.volume_directory().join(sandbox.volume(report.id)?))?;
    Ok((after - before).as_secs_f64())
}
