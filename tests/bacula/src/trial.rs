//! Plugin lines on trial: what the Director, the File Daemon and the plugin together make of them. An estimate is the
//! quickest way to see it: it needs no Storage Daemon, and makes nothing.

use anyhow::{Result, ensure};
use mock_server::{DEFAULT_CLIENT_SECRET, StateView};

use crate::bench::Bench;
use crate::cloud::Cloud;
use crate::daemon::Generation;
use crate::sandbox::{JobDefinition, Sandbox};

/// What `estimate ... listing` shows of a job.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Everything.
    pub text: String,
}

impl Sandbox {
    /// Lists what a Full of `job` would save.
    ///
    /// # Errors
    ///
    /// See [`Sandbox::console`]. A refusal is a listing.
    pub fn list(&self, job: &str) -> Result<Listing> {
        let text = self.ask(&format!("estimate job={job} level=Full listing"))?;
        Ok(Listing { text })
    }
}

impl Listing {
    /// Names of the VMs that would be saved, sorted.
    #[must_use]
    pub fn vms(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .text
            .lines()
            .filter(|line| line.contains("/@azure-vm/"))
            .filter_map(|line| Some(line.trim_end().strip_suffix(".name")?.split_once('_')?.1))
            .collect();
        names.sort_unstable();
        names
    }

    /// What the plugin says, without its prefix.
    #[must_use]
    pub fn messages(&self) -> Vec<&str> {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix("azure-vm: "))
            .collect()
    }
}

/// A plugin command, and what must come of it.
#[derive(Clone, Debug)]
pub struct Trial {
    command: String,
    outcome: Outcome,
    said: Vec<String>,
    hidden: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Selects(Vec<String>),
    /// Before anything is asked of Azure.
    Refused,
    /// Because of what Azure answers.
    Fails,
}

impl Trial {
    fn new(command: &str, outcome: Outcome) -> Self {
        Self {
            command: command.to_owned(),
            outcome,
            said: Vec::new(),
            hidden: None,
        }
    }

    /// It selects these VMs, and nothing else is said than what [`Trial::says`] adds.
    #[must_use]
    pub fn selects(command: &str, vms: &[&str]) -> Self {
        let vms = vms.iter().map(|&name| name.to_owned()).collect();
        Self::new(command, Outcome::Selects(vms))
    }

    /// It is refused before anything is asked of Azure.
    #[must_use]
    pub fn refused(command: &str, reason: &str) -> Self {
        Self::new(command, Outcome::Refused).says(reason)
    }

    /// What Azure answers makes it fail.
    #[must_use]
    pub fn fails(command: &str, reason: &str) -> Self {
        Self::new(command, Outcome::Fails).says(reason)
    }

    /// A message with this part comes, too.
    #[must_use]
    pub fn says(mut self, part: &str) -> Self {
        self.said.push(part.to_owned());
        self
    }

    /// No message shows this.
    #[must_use]
    pub fn hides(mut self, text: &str) -> Self {
        self.hidden = Some(text.to_owned());
        self
    }
}

/// Lets the daemons list what each of the commands selects.
///
/// # Errors
///
/// Something else comes of a command than its trial says, a message is missing or one too many, or a listing made
/// something in Azure.
pub fn try_all(generation: Generation, cloud: Cloud, trials: &[Trial]) -> Result<()> {
    let name = |number: usize| format!("trial-{number}");
    let jobs = trials.iter().enumerate();
    let jobs = jobs.map(|(number, trial)| JobDefinition::plugin(&name(number), &trial.command));
    let bench = Bench::start_jobs(generation, cloud, jobs.collect(), |_| {})?;
    let emulator = bench.cloud.emulator();
    for (number, trial) in trials.iter().enumerate() {
        emulator.reset_counters();
        let listing = bench.sandbox.list(&name(number))?;
        let asked = !emulator.counters().operations.is_empty();
        let expected: &[String] = match &trial.outcome {
            Outcome::Selects(vms) => vms,
            Outcome::Refused | Outcome::Fails => &[],
        };
        ensure!(
            listing.vms() == expected && asked == (trial.outcome != Outcome::Refused),
            "{trial:?}: {:?}, Azure asked: {asked}\n{}",
            listing.vms(),
            listing.text
        );
        let messages = listing.messages();
        let expected = |message: &&str| trial.said.iter().any(|part| message.contains(part));
        let missing = |part: &&String| !messages.iter().any(|message| message.contains(*part));
        ensure!(
            messages.iter().all(expected) && !trial.said.iter().any(|part| missing(&part)),
            "{trial:?}: not these messages: {messages:#?}\n{}",
            listing.text
        );
        let hidden = trial.hidden.as_deref().unwrap_or(DEFAULT_CLIENT_SECRET);
        ensure!(
            !listing.text.contains(hidden),
            "{trial:?}\n{}",
            listing.text
        );
    }
    let StateView {
        snapshots, grants, ..
    } = bench.cloud.state();
    ensure!(snapshots.is_empty() && grants.is_empty());
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}
