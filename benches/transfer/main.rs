//! Whole programs against a page-blob server: `azure-vm pull` and `push` beside what else a user would take.
//!
//! `cargo bench --bench transfer` prints medians and ratios of one run; `-- --runs N` takes N of each (5; of slow ones 3 at
//! most), in turn, `--only TEXT` the rows with this text in their names, and `--write` puts the table into
//! `docs/performance.md`. Ratios count: server and client share the machine's cores, so the seconds are those of this
//! machine.
#![allow(
    clippy::print_stdout,
    reason = "a benchmark is there to print, and its processes talk by their output"
)]

mod contenders;
mod content;
mod document;
mod measure;
mod process;
mod server;
mod table;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use contenders::Contender;
use content::{ALLOCATED, CHANGED, DISK};
use measure::Cost;
use process::ServerProcess;
use server::{Behaviour, Counts};
use table::{Table, Target, Unit};

/// Bytes per second and connection of a distant service that caps them.
const CAP: u64 = 60_000_000;
/// Milliseconds that a distant service takes to answer.
const DISTANCE: u64 = 20;
/// Runs of a program that takes long.
const FEW: usize = 3;

/// Where changes are put, in the server's folder.
const NEWER: &str = "newer";

/// What `concurrency` and `memory` (MiB) are tried with: one of them at a time differs from the default.
const SETTINGS: [(usize, u64); 9] = [
    (4, 64),
    (8, 64),
    (16, 64),
    (32, 64),
    (64, 64),
    (16, 8),
    (16, 16),
    (16, 32),
    (16, 128),
];

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");

/// What one contender needed for one row.
#[derive(Clone)]
struct Account {
    contender: Contender,
    /// Medians.
    cost: Cost,
    /// Bytes that were read, at most.
    moved: u64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--serve") => server::run(serde_json::from_str(arguments.get(1).context("how?")?)?),
        Some("--measure") => measure::child(&arguments[1..]),
        _ => Bench::new(&arguments)?.run(),
    }
}

/// What is asked for on the command line, and who is there.
struct Bench {
    /// How often each program runs.
    runs: usize,
    /// Rows without this text in their names are left out.
    only: String,
    /// Whether the table goes into the document.
    write: bool,
    /// With their versions.
    contenders: Vec<(Contender, String)>,
}

impl Bench {
    fn new(arguments: &[String]) -> Result<Self> {
        let value = |option| {
            let at = arguments.iter().position(|argument| argument == option)?;
            arguments.get(at + 1)
        };
        let mut contenders = Vec::new();
        for contender in Contender::ALL {
            match contender.version() {
                Some(version) => contenders.push((contender, version)),
                None => println!("{} is not there (benches/peers/install)", contender.name()),
            }
        }
        Ok(Self {
            runs: value("--runs")
                .map_or(Ok(5), |text| text.parse::<usize>())?
                .max(1),
            only: value("--only").cloned().unwrap_or_default(),
            write: arguments.iter().any(|argument| argument == "--write"),
            contenders,
        })
    }

    fn run(&self) -> Result<()> {
        let near = Behaviour::default();
        let tls = Behaviour {
            tls: true,
            ..Behaviour::default()
        };
        let distant = Behaviour {
            latency: DISTANCE,
            ..Behaviour::default()
        };
        let capped = Behaviour {
            tls: true,
            bandwidth: CAP,
            ..distant
        };
        let (cpu, wall) = (
            |account: &Account| account.cost.cpu,
            |account: &Account| account.cost.wall,
        );
        let memory = |account: &Account| account.cost.memory;
        let mut table = Table::default();
        Table::print_head();

        let name = "CPU per GiB, HTTP";
        if self.wants(name) {
            check_bytes(&ServerProcess::start(&near)?)?;
        }
        let http = self.read(name, &near, 16)?;
        let targets = [Target::Of(1.15, Contender::Curl)];
        table.add(name, Unit::Seconds, &targets, &http, cpu);

        let name = "CPU per GiB, HTTPS";
        let https = self.read(name, &tls, 16)?;
        let targets = [Target::Of(0.85, Contender::Curl)];
        table.add(name, Unit::Seconds, &targets, &https, cpu);

        let name = "wall, 20 ms";
        let latency = self.read(name, &distant, 64)?;
        let targets = [
            Target::Of(0.9, Contender::Curl),
            Target::Of(0.12, Contender::Azcopy),
        ];
        table.add(name, Unit::Seconds, &targets, &latency, wall);

        let name = "wall, TLS, 20 ms, 60 MB/s each";
        let slow = self.read(name, &capped, 64)?;
        let targets = [Target::Of(0.95, Contender::Curl)];
        table.add(name, Unit::Seconds, &targets, &slow, wall);

        let few = [http.as_slice(), &https].concat();
        let many = [latency.as_slice(), &slow].concat();
        for (name, accounts, limit) in [
            ("peak memory, 16 connections", &few, 40.0),
            ("peak memory, 64 connections", &many, 56.0),
        ] {
            table.add(
                name,
                Unit::Megabytes,
                &[Target::AtMost(limit)],
                accounts,
                memory,
            );
        }
        let all = [few, many].concat();
        let moved = |account: &Account| account.moved as f64 / ALLOCATED as f64;
        let targets = [Target::AtMost(1.02)];
        table.add(
            "bytes moved / allocated",
            Unit::Times,
            &targets,
            &all,
            moved,
        );

        let name = "wall, changed ranges, 20 ms";
        let changed = self.changes(name, &distant, 64)?;
        let targets = [Target::Of(0.8, Contender::Curl)];
        table.add(name, Unit::Seconds, &targets, &changed, wall);

        let name = "wall, upload, 20 ms";
        let upload = self.upload(name, &distant, 64)?;
        let targets = [Target::Of(0.85, Contender::RustSdk)];
        table.add(name, Unit::Seconds, &targets, &upload, wall);
        let targets = [Target::AtMost(48.0)];
        table.add(
            "peak memory, upload",
            Unit::Megabytes,
            &targets,
            &upload,
            memory,
        );

        let curves = self.curves(&[&distant, &capped])?;
        if self.write {
            let text = format!("{}\n{}", table.markdown(), self.about());
            document::replace(Path::new(DOCUMENT), "transfer", &text)?;
            document::replace(Path::new(DOCUMENT), "curves", &curves)?;
        }
        Ok(())
    }

    /// What the settings of `azure-vm` bring, per mode: time, CPU time, memory. Rows of a table.
    fn curves(&self, modes: &[&Behaviour]) -> Result<String> {
        let mut text = String::from(
            "| `concurrency` | `memory` | 20 ms | CPU | resident | TLS, 20 ms, 60 MB/s each | CPU | resident |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        if !self.wants("curves") {
            return Ok(text);
        }
        let servers = modes.iter().map(|mode| ServerProcess::start(mode));
        let servers: Vec<_> = servers.collect::<Result<_>>()?;
        for (requests, memory) in SETTINGS {
            let mut line = format!("| {requests} | {memory}M |");
            for server in &servers {
                let command = contenders::pull_within(server, requests, memory);
                let costs = (0..self.runs.min(FEW))
                    .map(|_| Ok(measured(server, &command, |_| true)?.0))
                    .collect::<Result<Vec<_>>>()?;
                let Cost { wall, cpu, memory } = measure::medians(costs.into_iter());
                write!(line, " {wall:.2} s | {cpu:.2} s | {memory:.0} MB |")?;
            }
            println!("{line}");
            text = text + &line + "\n";
        }
        Ok(text)
    }

    fn wants(&self, row: &str) -> bool {
        row.contains(&self.only)
    }

    /// Who and what was measured, below the table.
    fn about(&self) -> String {
        let versions = self.contenders.iter();
        let versions: Vec<String> = versions
            .map(|(contender, version)| format!("{} {version}", contender.name()))
            .collect();
        format!(
            "Medians of {} runs ({} of azcopy and the Python SDK) on {}; {}.",
            self.runs,
            self.runs.min(FEW),
            document::machine(),
            versions.join(", ")
        )
    }

    /// The whole image.
    fn read(&self, name: &str, behaviour: &Behaviour, requests: usize) -> Result<Vec<Account>> {
        let enough = |counts: &Counts| counts.bytes_out >= ALLOCATED;
        self.row(name, behaviour, enough, |server, contender| {
            contender.pull(server, requests).map(Some)
        })
    }

    /// What changed since an earlier snapshot, whose image is a hole here: copying it is not what is measured.
    fn changes(&self, name: &str, behaviour: &Behaviour, requests: usize) -> Result<Vec<Account>> {
        let enough = |counts: &Counts| counts.bytes_out >= CHANGED;
        self.row(name, behaviour, enough, |server, contender| {
            let older = server.folder().join("older");
            File::create(&older)?.set_len(DISK)?;
            contender.pull_changes(server, &older, &server.folder().join(NEWER), requests)
        })
    }

    /// An upload of the allocated part, compared by the server as it comes.
    fn upload(&self, name: &str, behaviour: &Behaviour, requests: usize) -> Result<Vec<Account>> {
        let image = tempfile::NamedTempFile::with_suffix(".raw")?;
        if self.wants(name) {
            content::write(image.as_file())?;
        }
        let right = |counts: &Counts| counts.wrong_writes == 0 && counts.bytes_in >= ALLOCATED;
        self.row(name, behaviour, right, |server, contender| {
            Ok(contender.push(server, image.path(), requests))
        })
    }

    /// Runs the contenders in turn against a server of their own. A peer that fails is named and left out.
    fn row(
        &self,
        name: &str,
        behaviour: &Behaviour,
        right: impl Fn(&Counts) -> bool,
        command: impl Fn(&ServerProcess, Contender) -> Result<Option<Vec<String>>>,
    ) -> Result<Vec<Account>> {
        if !self.wants(name) {
            return Ok(Vec::new());
        }
        let server = ServerProcess::start(behaviour)?;
        let mut entrants = Vec::new();
        for &(contender, _) in &self.contenders {
            if let Some(command) = command(&server, contender)? {
                entrants.push((contender, command, Vec::new()));
            }
        }
        for round in 0..self.runs {
            let mut failed = Vec::new();
            for (contender, command, runs) in &mut entrants {
                if contender.is_slow() && round >= FEW {
                    continue;
                }
                match measured(&server, command, &right) {
                    Ok(run) => runs.push(run),
                    Err(error) if *contender == Contender::AzureVm => return Err(error),
                    Err(error) => {
                        println!("{name}: {} fails: {error}", contender.name());
                        failed.push(*contender);
                    }
                }
            }
            entrants.retain(|(contender, ..)| !failed.contains(contender));
        }
        let accounts = entrants.into_iter().map(|(contender, _, runs)| Account {
            contender,
            cost: measure::medians(runs.iter().map(|(cost, _)| *cost)),
            moved: runs
                .iter()
                .map(|(_, counts)| counts.bytes_out)
                .max()
                .unwrap_or(0),
        });
        Ok(accounts.collect())
    }
}

/// One run of one program, which must have moved what is right.
fn measured(
    server: &ServerProcess,
    command: &[String],
    right: impl Fn(&Counts) -> bool,
) -> Result<(Cost, Counts)> {
    drop(fs::remove_file(server.folder().join(NEWER)));
    server.counts()?;
    let cost = measure::run(command)?;
    let counts = server.counts()?;
    ensure!(
        right(&counts),
        "{command:?} did not do its work: {counts:?}"
    );
    Ok((cost, counts))
}

/// A pulled image must be right before it may be fast.
fn check_bytes(server: &ServerProcess) -> Result<()> {
    let path = server.folder().join(NEWER);
    measure::run(&contenders::pull(server, &path, 16))?;
    let file = File::open(&path)?;
    ensure!(file.metadata()?.len() == DISK, "the image has another size");
    let mut buffer = vec![0; 1 << 20];
    for start in (0..DISK).step_by(buffer.len()) {
        file.read_exact_at(&mut buffer, start)?;
        ensure!(
            content::matches(&content::extents(), start, &buffer),
            "other bytes behind {start}"
        );
    }
    Ok(())
}
