//! Jobs by way of `bconsole`, results from the catalog.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::daemon::Generation;
use crate::sandbox::{CLIENT, RESTORE_JOB, Sandbox};

/// Longest time a job may take, unless the caller sets another: a hang must end a test, not the day.
const JOB_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How long a job's last lines may take to reach the catalog after the job has ended.
const LOG_LIMIT: Duration = Duration::from_secs(10);

/// How a job ended, as the catalog tells it.
#[derive(Clone, Debug)]
pub struct JobReport {
    /// Catalog number.
    pub id: u32,
    /// Unique name.
    pub name: String,
    /// Letter of the level: `F`, `I`, `D`.
    pub level: char,
    /// Letter: `T` OK, `E` error, `f` fatal, `A` cancelled, `I` incomplete.
    pub status: char,
    /// Errors counted; an OK job with errors is "OK -- with warnings".
    pub errors: u32,
    /// Files saved or restored.
    pub files: u32,
    /// Bytes saved or restored.
    pub bytes: u64,
    /// The job log.
    pub log: String,
    /// From the request to the end.
    pub elapsed: Duration,
}

impl JobReport {
    /// Whether the job ended OK without any error counted.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.status == 'T' && self.errors == 0
    }

    /// The job itself, if it ended OK without any error counted.
    ///
    /// # Errors
    ///
    /// It did not; with the job log.
    pub fn clean(self) -> Result<Self> {
        ensure!(
            self.is_clean(),
            "job {} did not end well:\n{}",
            self.id,
            self.log
        );
        Ok(self)
    }

    /// What the log says that compression by the File Daemon has saved: `None`, or a part in percent and a ratio.
    #[must_use]
    pub fn compression(&self) -> Option<&str> {
        let mut lines = self.log.lines();
        lines.find_map(|line| Some(line.trim().strip_prefix("Software Compression:")?.trim()))
    }

    /// Lines of the log that contain `needle`.
    #[must_use]
    pub fn lines_with(&self, needle: &str) -> Vec<&str> {
        self.log
            .lines()
            .filter(|line| line.contains(needle))
            .collect()
    }
}

/// What to restore, and how.
#[derive(Clone, Debug, Default)]
pub struct RestoreRequest {
    /// Jobs to restore from, in this order.
    pub jobs: Vec<u32>,
    /// Further words of the `restore` command, such as `where=/tmp`; with no jobs, how they are selected.
    pub arguments: String,
    /// Values for the plugin's restore options, by name.
    pub plugin_options: Vec<(String, String)>,
}

impl RestoreRequest {
    /// A restore of a VM under this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            plugin_options: vec![("new_hostname".into(), name.into())],
            ..Self::default()
        }
    }
}

/// A command of the console itself. It shows what it reads, and reads it when what came before is answered.
const LAST: &str = "@echo all is answered";

/// How long the console may take to end when it has said everything. One of 15.0 in some thousands takes a minute: it waits for a thread
/// that has missed its call (`stop_watchdog`).
const LEAVE: Duration = Duration::from_millis(200);

/// What the console said.
struct Answers {
    text: String,
    /// Else it ended before the last command.
    are_complete: bool,
}

fn read_answers(output: &mut BufReader<ChildStdout>) -> Result<Answers> {
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        if output.read_until(b'\n', &mut line)? == 0 {
            return Ok(Answers {
                text,
                are_complete: false,
            });
        }
        let line = String::from_utf8_lossy(&line);
        if let Some((prompt, _)) = line.split_once(LAST) {
            text.push_str(prompt);
            return Ok(Answers {
                text,
                are_complete: true,
            });
        }
        text.push_str(&line);
    }
}

/// Lets a console end, or ends it.
fn end(child: &mut Child) -> Result<()> {
    let asked = Instant::now();
    while asked.elapsed() < LEAVE {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

impl Sandbox {
    /// Sends `commands` to `bconsole` and returns what it says.
    ///
    /// # Errors
    ///
    /// `bconsole` cannot be run, is not answered to the end, or takes longer than `limit`.
    pub fn console(&self, commands: &str, limit: Duration) -> Result<String> {
        let mut child = Command::new(self.programs.path("bconsole"))
            .arg("-n")
            .arg("-c")
            .arg(self.root().join("bconsole.conf"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start bconsole")?;
        let mut input = child.stdin.take().context("bconsole has no input")?;
        let output = child.stdout.take().context("bconsole has no output")?;
        let mut output = BufReader::new(output);
        // The commands are short: they fit into the pipe before the first answer is read.
        writeln!(input, "{}\n{LAST}", commands.trim_end())?;
        drop(input);
        let (said, answers) = mpsc::channel();
        thread::spawn(move || {
            drop(said.send(read_answers(&mut output)));
            // It takes its leave.
            io::copy(&mut output, &mut io::sink())
        });
        let in_time = answers.recv_timeout(limit);
        end(&mut child)?;
        // Of one that is gone all is heard that it said.
        let answers = in_time.or_else(|_| answers.recv())??;
        ensure!(
            answers.are_complete,
            "bconsole did not come to the end of its commands in {limit:?}:\n{}",
            answers.text
        );
        Ok(answers.text)
    }

    /// Runs a backup job and waits for its end. `level` is Bacula's word: `Full`, `Incremental`, `Differential`.
    ///
    /// # Errors
    ///
    /// The job cannot be started or does not end in time. A job that *fails* is a report.
    pub fn backup(&self, job: &str, level: &str) -> Result<JobReport> {
        let started = Instant::now();
        let id = self.start_backup(job, level)?;
        self.wait(id, started)
    }

    /// Starts a backup job without waiting for its end; returns its number.
    ///
    /// # Errors
    ///
    /// The job cannot be started.
    pub fn start_backup(&self, job: &str, level: &str) -> Result<u32> {
        self.start_job(&format!("run job=\"{job}\" level={level} yes\n"))
    }

    /// Says something to `bconsole` that it answers at once.
    ///
    /// # Errors
    ///
    /// See [`Sandbox::console`].
    pub fn ask(&self, commands: &str) -> Result<String> {
        self.console(&format!("{commands}\n"), Duration::from_secs(60))
    }

    /// Cancels a running job and waits for its end; the report's time starts with the cancel.
    ///
    /// # Errors
    ///
    /// The console fails, or the job does not end in time.
    pub fn cancel(&self, id: u32) -> Result<JobReport> {
        let started = Instant::now();
        self.console(&format!("cancel jobid={id} yes\n"), Duration::from_secs(60))?;
        self.wait(id, started)
    }

    /// The jobs that run in the File Daemon, with the bytes that each has handed over so far.
    ///
    /// # Errors
    ///
    /// See [`Sandbox::console`].
    pub fn running(&self) -> Result<BTreeMap<u32, u64>> {
        let text = self.ask(&format!("status client={CLIENT} running"))?;
        let mut jobs = BTreeMap::new();
        let mut job = None;
        for line in text.lines().map(str::trim) {
            // `JobId 7 Job web.2026-01-01_00.00.00_03 is running.`, and behind it `Files=2 Bytes=1,048,576 AveBytes/sec=...`
            if let Some(rest) = line.strip_prefix("JobId ") {
                job = rest.split(' ').next().and_then(|id| id.parse().ok());
            } else if let Some((_, rest)) = line.split_once(" Bytes=")
                && let Some(id) = job.take()
            {
                let bytes = rest.split(' ').next().unwrap_or_default();
                jobs.insert(id, bytes.replace(',', "").parse()?);
            }
        }
        Ok(jobs)
    }

    /// Runs a restore of everything in the given jobs and waits for its end.
    ///
    /// # Errors
    ///
    /// The job cannot be started or does not end in time. A job that *fails* is a report.
    pub fn restore(&self, request: &RestoreRequest) -> Result<JobReport> {
        let started = Instant::now();
        let id = self.start_restore(request)?;
        self.wait(id, started)
    }

    /// Starts a restore without waiting for its end; returns its number.
    ///
    /// # Errors
    ///
    /// The job cannot be started.
    pub fn start_restore(&self, request: &RestoreRequest) -> Result<u32> {
        let ids: Vec<String> = request.jobs.iter().map(ToString::to_string).collect();
        let jobs = if ids.is_empty() {
            String::new()
        } else {
            format!("jobid={}", ids.join(","))
        };
        let restore = format!(
            "restore {jobs} client={CLIENT} restorejob={RESTORE_JOB} {} all done",
            request.arguments
        );
        if request.plugin_options.is_empty() {
            return self.start_job(&format!("{restore} yes\n"));
        }
        let mut dialogue = format!("{restore}\nmod\n13\n");
        let options = self.plugin_options(&format!("{dialogue}mod\n"))?;
        for (name, value) in &request.plugin_options {
            let choice = options
                .get(name)
                .with_context(|| format!("set plugin option {name}: offered are {options:?}"))?;
            dialogue += &match choice {
                Some(number) => format!("mod\n{number}\n{value}\n"),
                None => format!("mod\n{value}\n"),
            };
        }
        dialogue += "yes\nyes\n";
        self.start_job(&dialogue)
    }

    /// The restore options by name, with their numbers in the menu; a single option is chosen without a menu.
    fn plugin_options(&self, dialogue: &str) -> Result<BTreeMap<String, Option<u32>>> {
        let text = self.console(dialogue, Duration::from_secs(30))?;
        let (_, menu) = text
            .rsplit_once("Use above plugin configuration?")
            .with_context(|| format!("no plugin options offered:\n{text}"))?;
        let first_word = |text: &str| text.split_whitespace().next().map(str::to_owned);
        Ok(menu
            .lines()
            .filter_map(|line| {
                let (label, rest) = line.split_once(':')?;
                match label.trim() {
                    // `Automatically selected : new_hostname (New name …)`
                    "Automatically selected" => Some((first_word(rest)?, None)),
                    // `   1: new_hostname (New name …)`
                    number => Some((first_word(rest)?, Some(number.parse().ok()?))),
                }
            })
            .collect())
    }

    /// Starts a job by these commands and waits for its end.
    ///
    /// # Errors
    ///
    /// The job cannot be started or does not end in time. A job that *fails* is a report.
    pub fn run(&self, commands: &str) -> Result<JobReport> {
        let started = Instant::now();
        let id = self.start_job(commands)?;
        self.wait(id, started)
    }

    /// Starts a job by these commands; returns its number.
    ///
    /// # Errors
    ///
    /// The job cannot be started.
    pub fn start_job(&self, commands: &str) -> Result<u32> {
        let answer = self.console(commands, Duration::from_secs(60))?;
        let (_, id) = answer
            .lines()
            .find_map(|line| line.split_once("Job queued. JobId="))
            .with_context(|| format!("start a job:\n{answer}"))?;
        Ok(id.trim().parse()?)
    }

    /// Waits for the end of a job that was started at `started`.
    ///
    /// # Errors
    ///
    /// It does not end in time.
    pub fn wait(&self, id: u32, started: Instant) -> Result<JobReport> {
        self.console(
            &format!("wait jobid={id} timeout={}\n", JOB_LIMIT.as_secs()),
            JOB_LIMIT + Duration::from_secs(10),
        )?;
        let elapsed = started.elapsed();
        let row = self.job_row(id)?;
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
        let status = text("JobStatus")
            .chars()
            .next()
            .context("job without status")?;
        if matches!(status, 'C' | 'R' | 'B') {
            bail!(
                "job {id} has not ended after {JOB_LIMIT:?} (status {status})\n{}",
                self.job_log(id)?
            );
        }
        Ok(JobReport {
            id,
            name: text("Job").to_owned(),
            level: text("Level").chars().next().unwrap_or_default(),
            status,
            errors: u32::try_from(number("JobErrors"))?,
            files: u32::try_from(number("JobFiles"))?,
            bytes: number("JobBytes"),
            log: self.complete_job_log(id)?,
            elapsed,
        })
    }

    /// The log up to its last line, which the Director writes after it has set the job's status.
    fn complete_job_log(&self, id: u32) -> Result<String> {
        let asked = Instant::now();
        loop {
            let log = self.job_log(id)?;
            if log.contains("Termination:") || asked.elapsed() > LOG_LIMIT {
                return Ok(log);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn job_row(&self, id: u32) -> Result<Value> {
        self.query(&format!("SELECT * FROM Job WHERE JobId = {id}"))?
            .into_iter()
            .next()
            .with_context(|| format!("job {id} is not in the catalog"))
    }

    fn job_log(&self, id: u32) -> Result<String> {
        let rows = self.query(&format!(
            "SELECT LogText FROM Log WHERE JobId = {id} ORDER BY LogId"
        ))?;
        Ok(rows
            .iter()
            .filter_map(|row| row.get("LogText").and_then(Value::as_str))
            // 9.6.7 with SQLite stores one backslash too many at the end of each record.
            .map(|text| text.trim_end_matches('\\'))
            .collect())
    }

    /// Names of the files that a job has in the catalog, in file-index order.
    ///
    /// # Errors
    ///
    /// The catalog cannot be read.
    pub fn files(&self, id: u32) -> Result<Vec<String>> {
        let (name, join) = match self.programs.generation() {
            Generation::V9_6 => (
                "Filename.Name",
                "JOIN Filename ON Filename.FilenameId = File.FilenameId",
            ),
            Generation::V15_0 => ("File.Filename", ""),
        };
        let rows = self.query(&format!(
            "SELECT Path.Path || {name} AS Name FROM File \
             JOIN Path ON Path.PathId = File.PathId {join} \
             WHERE File.JobId = {id} ORDER BY File.FileIndex"
        ))?;
        Ok(rows
            .iter()
            .filter_map(|row| Some(row.get("Name")?.as_str()?.to_owned()))
            .collect())
    }

    /// The files of a job with the signatures that the catalog has of them, in base64 without padding.
    ///
    /// # Errors
    ///
    /// The catalog cannot be read.
    pub fn signatures(&self, id: u32) -> Result<Vec<(String, String)>> {
        let rows = self.query(&format!(
            "SELECT MD5 FROM File WHERE JobId = {id} ORDER BY FileIndex"
        ))?;
        let signatures = rows
            .iter()
            .map(|row| row.get("MD5").and_then(Value::as_str))
            .map(|signature| signature.unwrap_or_default().to_owned());
        Ok(self.files(id)?.into_iter().zip(signatures).collect())
    }

    /// Name of the volume that a job was written to.
    ///
    /// # Errors
    ///
    /// The job is on no volume, or on several.
    pub fn volume(&self, id: u32) -> Result<String> {
        let rows = self.query(&format!(
            "SELECT DISTINCT VolumeName FROM JobMedia JOIN Media \
             ON Media.MediaId = JobMedia.MediaId WHERE JobMedia.JobId = {id}"
        ))?;
        ensure!(rows.len() == 1, "job {id} is on {} volumes", rows.len());
        Ok(rows
            .first()
            .and_then(|row| row.get("VolumeName")?.as_str())
            .context("volume without name")?
            .to_owned())
    }

    /// The whole catalog as SQL text.
    ///
    /// # Errors
    ///
    /// The catalog cannot be read.
    pub fn catalog_dump(&self) -> Result<String> {
        self.sqlite(&[".dump"])
    }

    /// Rows of the catalog.
    ///
    /// # Errors
    ///
    /// The catalog cannot be read.
    pub fn query(&self, sql: &str) -> Result<Vec<Value>> {
        let text = self.sqlite(&[".mode json", sql])?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_str(&text).with_context(|| format!("read the answer to {sql}"))
    }

    fn sqlite(&self, commands: &[&str]) -> Result<String> {
        let output = Command::new("sqlite3")
            .args(["-readonly", "-cmd", ".timeout 10000"])
            .arg(self.root().join("dir/bacula.db"))
            .args(commands)
            .output()
            .context("run sqlite3")?;
        ensure!(
            output.status.success(),
            "read the catalog: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
