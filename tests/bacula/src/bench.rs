//! Emulator and daemons together, as most tests need them.

use anyhow::{Result, ensure};
use mock_server::Scenario;

use crate::cloud::Cloud;
use crate::console::{JobReport, RestoreRequest};
use crate::daemon::Generation;
use crate::plugin::plugin;
use crate::sandbox::{JobDefinition, Sandbox, SandboxConfig};

/// Name of the job that [`Bench::start`] defines.
pub const JOB: &str = "azure";

/// Name of restored VMs. Its length is one with which 9.6 with SQLite does not lose the restore options.
pub const RESTORED: &str = "restored";

/// A world in the emulator and private daemons with the plugin.
#[derive(Debug)]
pub struct Bench {
    /// The daemons; stopped before the emulator.
    pub sandbox: Sandbox,
    /// The emulator.
    pub cloud: Cloud,
}

impl Bench {
    /// Starts both, with one job [`JOB`] that has these plugin parameters beside the configuration file.
    ///
    /// # Errors
    ///
    /// See [`Cloud::start`] and [`Sandbox::start`].
    pub fn start(generation: Generation, scenario: Scenario, parameters: &str) -> Result<Self> {
        Self::start_with(generation, scenario, parameters, |_| {})
    }

    /// Like [`Bench::start`], with changes to the daemons' configuration.
    ///
    /// # Errors
    ///
    /// See [`Cloud::start`] and [`Sandbox::start`].
    pub fn start_with(
        generation: Generation,
        scenario: Scenario,
        parameters: &str,
        change: impl FnOnce(&mut SandboxConfig),
    ) -> Result<Self> {
        let cloud = Cloud::start(scenario)?;
        let job = JobDefinition::plugin(JOB, &cloud.plugin_command(parameters));
        Self::start_jobs(generation, cloud, vec![job], change)
    }

    /// Starts daemons with these jobs beside an emulator that is there already.
    ///
    /// # Errors
    ///
    /// See [`Sandbox::start`].
    pub fn start_jobs(
        generation: Generation,
        cloud: Cloud,
        jobs: Vec<JobDefinition>,
        change: impl FnOnce(&mut SandboxConfig),
    ) -> Result<Self> {
        let mut config = SandboxConfig {
            generation,
            jobs,
            plugin: Some(plugin()?),
            ..SandboxConfig::default()
        };
        change(&mut config);
        Ok(Self {
            sandbox: Sandbox::start(&config)?,
            cloud,
        })
    }

    /// A Full of [`JOB`] that must end without any error.
    ///
    /// # Errors
    ///
    /// It does not; with the job log.
    pub fn full(&self) -> Result<JobReport> {
        let report = self.sandbox.backup(JOB, "Full")?;
        ensure!(report.is_clean(), "the backup failed:\n{}", report.log);
        Ok(report)
    }

    /// Restores these jobs as a VM of another name and compares its disks with `expected` ([`Cloud::digests`]); the VM
    /// is deleted afterwards.
    ///
    /// # Errors
    ///
    /// The restore is not clean, or a disk differs; with the job log.
    pub fn restore_equals(&self, jobs: &[u32], expected: &[String]) -> Result<JobReport> {
        let report = self.sandbox.restore(&RestoreRequest {
            jobs: jobs.to_vec(),
            ..RestoreRequest::named(RESTORED)
        })?;
        ensure!(
            report.is_clean(),
            "the restore of {jobs:?} failed:\n{}",
            report.log
        );
        let restored = self.cloud.digests(RESTORED)?;
        ensure!(
            restored == expected,
            "the disks restored from {jobs:?} differ: {restored:?} instead of {expected:?}\n{}",
            report.log
        );
        self.cloud.delete_vm(RESTORED)?;
        Ok(report)
    }
}
