//! Whole programs against a page-blob server: `azure-vm pull` and `push` beside the floor, `curl -Z`.
//!
//! `cargo bench --bench transfer` prints medians and ratios of one run; `-- --runs N` takes N of each (5), in turn, and
//! `--only TEXT` the rows with this text in their names. Ratios count: server and client share the machine's cores, so the
//! seconds are those of this machine.
#![allow(
    clippy::print_stdout,
    reason = "a benchmark is there to print, and its processes talk by their output"
)]

mod contenders;
mod content;
mod measure;
mod process;
mod server;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use content::{ALLOCATED, CHANGED, DISK};
use measure::Cost;
use process::ServerProcess;
use server::{Behaviour, Counts};

/// Bytes per second and connection of a distant service that caps them.
const CAP: u64 = 60_000_000;
/// Milliseconds that a distant service takes to answer.
const DISTANCE: u64 = 20;

/// What is compared.
#[derive(Clone, Copy)]
enum Measure {
    Cpu,
    Wall,
}

/// One row of the table: ours against the floor.
struct Row {
    name: &'static str,
    measure: Measure,
    /// Largest ratio that is good enough.
    target: f64,
    floor: Vec<String>,
    ours: Vec<String>,
    /// Bytes that must have been moved at least.
    bytes: u64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--serve") => server::run(serde_json::from_str(arguments.get(1).context("how?")?)?),
        Some("--measure") => measure::child(&arguments[1..]),
        _ => bench(&arguments),
    }
}

/// What is asked for on the command line.
struct Options {
    /// How often each program runs.
    runs: usize,
    /// Rows without this text in their names are left out.
    only: String,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let value = |option| {
            let at = arguments.iter().position(|argument| argument == option)?;
            arguments.get(at + 1)
        };
        Ok(Self {
            runs: value("--runs")
                .map_or(Ok(5), |text| text.parse::<usize>())?
                .max(1),
            only: value("--only").cloned().unwrap_or_default(),
        })
    }

    fn wants(&self, row: &str) -> bool {
        row.contains(&self.only)
    }
}

fn bench(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let distant = Behaviour {
        latency: DISTANCE,
        ..Behaviour::default()
    };
    println!(
        "{:34} {:>9} {:>9} {:>6}  {:>6}   {:>9} {:>9}",
        "", "curl -Z", "azure-vm", "ratio", "target", "memory", "requests"
    );
    mode(&Behaviour::default(), &options, |server| {
        let name = "CPU, HTTP";
        if options.wants(name) {
            check_bytes(server)?;
        }
        Ok(vec![read(name, Measure::Cpu, 1.15, server, 16)?])
    })?;
    let tls = Behaviour {
        tls: true,
        ..Behaviour::default()
    };
    mode(&tls, &options, |server| {
        Ok(vec![read("CPU, HTTPS", Measure::Cpu, 0.85, server, 16)?])
    })?;
    mode(&distant, &options, |server| {
        Ok(vec![
            read("wall, 20 ms", Measure::Wall, 0.9, server, 64)?,
            changes("wall, changes, 20 ms", 0.8, server)?,
        ])
    })?;
    let capped = Behaviour {
        tls: true,
        bandwidth: CAP,
        ..distant
    };
    mode(&capped, &options, |server| {
        let name = "wall, TLS, 20 ms, 60 MB/s each";
        Ok(vec![read(name, Measure::Wall, 0.95, server, 64)?])
    })?;
    let name = "wall, upload, 20 ms";
    if options.wants(name) {
        upload(name, options.runs)?;
    }
    Ok(())
}

/// The whole image, to where it costs nothing to put it.
fn read(
    name: &'static str,
    measure: Measure,
    target: f64,
    server: &ServerProcess,
    requests: usize,
) -> Result<Row> {
    Ok(Row {
        name,
        measure,
        target,
        floor: contenders::curl(server, &content::extents(), requests)?,
        ours: contenders::pull(server, Path::new("-"), requests),
        bytes: ALLOCATED,
    })
}

/// What changed since an earlier snapshot, whose image is a hole here: copying it is not what is measured.
fn changes(name: &'static str, target: f64, server: &ServerProcess) -> Result<Row> {
    let older = server.folder().join("older");
    File::create(&older)?.set_len(DISK)?;
    let newer = server.folder().join("newer");
    Ok(Row {
        name,
        measure: Measure::Wall,
        target,
        floor: contenders::curl(server, &content::changes(), 64)?,
        ours: contenders::pull_changes(server, &older, &newer, 64),
        bytes: CHANGED,
    })
}

/// Runs the rows of one kind of server, the contenders in turn.
fn mode(
    behaviour: &Behaviour,
    options: &Options,
    rows: impl FnOnce(&ServerProcess) -> Result<Vec<Row>>,
) -> Result<()> {
    let server = ServerProcess::start(behaviour)?;
    for row in rows(&server)? {
        if !options.wants(row.name) {
            continue;
        }
        let (mut floor, mut ours) = (Vec::new(), Vec::new());
        let mut counts = Counts::default();
        for _ in 0..options.runs {
            floor.push(measured(&server, &row.floor, row.bytes)?.0);
            let (cost, asked) = measured(&server, &row.ours, row.bytes)?;
            ours.push(cost);
            counts = asked;
        }
        let (floor, ours) = (medians(&floor), medians(&ours));
        let of = |cost: &Cost| match row.measure {
            Measure::Cpu => cost.cpu,
            Measure::Wall => cost.wall,
        };
        println!(
            "{:34} {:7.2} s {:7.2} s {:6.2}  {:6.2}   {:5.0} MiB {:9}",
            row.name,
            of(&floor),
            of(&ours),
            of(&ours) / of(&floor),
            row.target,
            ours.memory,
            counts.requests
        );
    }
    Ok(())
}

fn measured(server: &ServerProcess, command: &[String], bytes: u64) -> Result<(Cost, Counts)> {
    drop(fs::remove_file(server.folder().join("newer")));
    server.counts()?;
    let cost = measure::run(command)?;
    let counts = server.counts()?;
    // No byte twice, none left out: the footer and its check are all that comes on top.
    ensure!(
        (bytes..bytes + bytes / 50).contains(&counts.bytes_out),
        "{}: {} bytes were read, {bytes} are needed",
        command[0],
        counts.bytes_out
    );
    Ok((cost, counts))
}

/// A pulled image must be right before it may be fast.
fn check_bytes(server: &ServerProcess) -> Result<()> {
    let path = server.folder().join("image");
    measure::run(&contenders::pull(server, &path, 16))?;
    let file = File::open(&path)?;
    ensure!(file.metadata()?.len() == DISK, "the image has another size");
    let mut buffer = vec![0; 1 << 20];
    for extent in content::extents() {
        for start in (extent.start..extent.end).step_by(buffer.len()) {
            let len = usize::try_from(extent.end - start)?.min(buffer.len());
            file.read_exact_at(&mut buffer[..len], start)?;
            ensure!(
                content::matches(start, &buffer[..len]),
                "other bytes at {start}"
            );
        }
    }
    Ok(fs::remove_file(path)?)
}

/// An upload of the allocated part, compared by the server as it comes. There is no floor for it here.
fn upload(name: &str, runs: usize) -> Result<()> {
    let server = ServerProcess::start(&Behaviour {
        latency: DISTANCE,
        ..Behaviour::default()
    })?;
    let path = server.folder().join("raw");
    let file = File::create(&path)?;
    file.set_len(DISK)?;
    for extent in content::extents() {
        let mut at = extent.start;
        for slice in content::bytes(extent) {
            file.write_all_at(&slice, at)?;
            at += slice.len() as u64;
        }
    }
    let command = contenders::push(&server, &path, 16);
    let mut costs = Vec::new();
    for _ in 0..runs {
        server.counts()?;
        costs.push(measure::run(&command)?);
        let counts = server.counts()?;
        ensure!(
            counts.wrong_writes == 0 && counts.bytes_in >= ALLOCATED,
            "{} writes were wrong, {} bytes came",
            counts.wrong_writes,
            counts.bytes_in
        );
    }
    let cost = medians(&costs);
    println!(
        "{:34} {:9} {:7.2} s {:6}  {:6}   {:5.0} MiB",
        name, "", cost.wall, "", "", cost.memory
    );
    Ok(())
}

fn medians(costs: &[Cost]) -> Cost {
    let median = |of: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Cost {
        wall: median(|cost| cost.wall),
        cpu: median(|cost| cost.cpu),
        memory: median(|cost| cost.memory),
    }
}
