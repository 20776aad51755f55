//! Whole programs against a page-blob server: `azure-vm pull` and `push` beside what else a user would take.
//!
//! `cargo bench --bench transfer [-- --runs N] [--only WORD]` prints medians and ratios; `--write FILE` puts the table into the document.

mod content;
mod measure;
mod server;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use content::{GIB, MIB};
use measure::Cost;
use server::{Behaviour, Counts, Ready};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--serve") => server::run(serde_json::from_str(&arguments[1])?),
        Some("--measure") => measure::child(&arguments[1..]),
        _ => bench(&arguments),
    }
}

/// A running server; ended when dropped.
struct Server {
    process: Child,
    ready: Ready,
    behaviour: Behaviour,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(behaviour: &Behaviour) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg(serde_json::to_string(behaviour)?)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let ready: Ready = serde_json::from_str(&line)?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("ca.pem"), &ready.ca_pem)?;
        Ok(Self {
            process,
            ready,
            behaviour: behaviour.clone(),
            folder,
        })
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.behaviour.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.ready.port)
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What was asked since the last call.
    fn counts(&self) -> Result<Counts> {
        let output = Command::new("curl")
            .args(["-s", "--cacert"])
            .arg(self.ca())
            .arg(self.url("/counts"))
            .output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

const SAS: &str = "?sv=2021-12-02&sr=b&sig=made-up";

/// `azure-vm pull` of the whole image.
fn pull(server: &Server, to: &Path, connections: usize) -> Vec<String> {
    let mut command = vec![env!("CARGO_BIN_EXE_azure-vm").to_owned()];
    command.extend(["pull".into(), server.url(&format!("/read/image{SAS}"))]);
    command.extend(["--to".into(), to.display().to_string()]);
    command.extend(["--concurrency".into(), connections.to_string()]);
    command.push("--allow-http".into());
    command.extend(["--ca-file".into(), server.ca().display().to_string()]);
    command
}

/// `curl -Z` with the ranges handed to it, each at most 4 MiB.
fn curl(
    server: &Server,
    name: &str,
    ranges: &[std::ops::Range<u64>],
    connections: usize,
) -> Result<Vec<String>> {
    let mut text = String::new();
    let mut count = 0;
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + 4 * MIB);
            if count > 0 {
                text += "next\n";
            }
            text += &format!(
                "url = \"{}\"\nrange = \"{start}-{}\"\noutput = \"/dev/null\"\ncacert = \"{}\"\nsilent\nshow-error\nfail\n",
                server.url("/read/image"),
                end - 1,
                server.ca().display(),
            );
            start = end;
            count += 1;
        }
    }
    let file = server.folder.path().join(format!("{name}.curl"));
    fs::write(&file, text)?;
    Ok([
        "curl",
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        &connections.to_string(),
        "--config",
        &file.display().to_string(),
    ]
    .map(str::to_owned)
    .to_vec())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn medians(costs: &[Cost]) -> Cost {
    Cost {
        wall: median(costs.iter().map(|cost| cost.wall)),
        cpu: median(costs.iter().map(|cost| cost.cpu)),
        memory: median(costs.iter().map(|cost| cost.memory)),
    }
}

fn bench(arguments: &[String]) -> Result<()> {
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let runs: usize = value("--runs").map_or(Ok(5), |text| text.parse())?;
    let modes = [
        ("http", Behaviour::default()),
        (
            "https",
            Behaviour {
                tls: true,
                ..Behaviour::default()
            },
        ),
        (
            "20 ms",
            Behaviour {
                latency: 20,
                ..Behaviour::default()
            },
        ),
        (
            "tls + 20 ms + 60 MB/s",
            Behaviour {
                tls: true,
                latency: 20,
                bandwidth: 60_000_000,
            },
        ),
    ];
    for (mode, behaviour) in modes {
        let server = Server::start(&behaviour)?;
        let file = server.folder.path().join("image");
        let mut table: Vec<(String, Vec<Cost>, Counts)> = Vec::new();
        let extents = content::extents();
        for run in 0..runs {
            let commands = [
                ("curl 16", curl(&server, "c16", &extents, 16)?),
                ("curl 64", curl(&server, "c64", &extents, 64)?),
                ("pull 16 > /dev/null", pull(&server, Path::new("-"), 16)),
                ("pull 64 > /dev/null", pull(&server, Path::new("-"), 64)),
                ("pull 16 file", pull(&server, &file, 16)),
            ];
            for (number, (name, command)) in commands.into_iter().enumerate() {
                let cost = measure::run(&command)?;
                let counts = server.counts()?;
                ensure!(
                    counts.bytes_out >= GIB,
                    "{name} read {} bytes only",
                    counts.bytes_out
                );
                drop(fs::remove_file(&file));
                if run == 0 {
                    table.push((name.to_owned(), vec![cost], counts));
                } else {
                    table[number].1.push(cost);
                }
            }
        }
        for (name, costs, counts) in &table {
            let cost = medians(costs);
            println!(
                "{mode:22} {name:22} wall {:6.2} s  cpu {:6.2} s  {:6.1} MiB   {} requests, {} connections, {:.3} x",
                cost.wall,
                cost.cpu,
                cost.memory,
                counts.requests,
                counts.connections,
                counts.bytes_out as f64 / GIB as f64
            );
        }
    }
    Ok(())
}
