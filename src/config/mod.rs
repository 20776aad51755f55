//! Plugin command, configuration file and defaults become one validated [`Settings`].
//!
//! [`Settings::from_command`] reads the items of a plugin command (`command`), the chosen group of the configuration file
//! (`file`), lets the former win key by key (`settings`), and checks every value (`values`); both sources know the same
//! parameters (`parameters`). VM names are chosen by [`Selection`] with [`NamePattern`]s in Java's syntax. Nothing here makes a
//! request. Values of parameters never appear in messages, but for those that are no secret.

mod command;
#[cfg(test)]
mod contract;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod java_regex;
mod parameters;
mod pattern;
mod private_file;
mod selection;
mod settings;
mod values;

use std::path::{Path, PathBuf};

pub use self::pattern::{MatchError, NamePattern, PatternError};
pub use self::selection::{Choice, Selection};

use crate::azure::AzureConfig;
use crate::azure::connection_string::ConnectionString;
use crate::pipeline::Limits;
use crate::secret::Secret;

use self::parameters::{Findings, Parameter};

/// Where values of a plugin command are given, in messages.
const PLUGIN_LINE: &str = "in the FileSet's Plugin line";
/// Where values of the command line are given; an option would show a secret to everybody on the host.
const COMMAND_LINE: &str = "on the command line (a secret in the environment or in a file)";

/// Where the configuration file is, unless `config=` says otherwise.
pub const DEFAULT_CONFIG_FILE: &str = "/opt/bacula/etc/azure-vm.conf";

/// What a job is told, merged and checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How to reach Azure.
    pub azure: AzureConfig,
    /// Which VMs.
    pub selection: Selection,
    /// Stop at the first failed VM.
    pub abort_on_error: bool,
    /// Save a disk in full, with a notice, when its changes cannot be had; else the job fails.
    pub fallback: bool,
    /// 0 to 9.
    pub debug: u8,
    /// Name of the restored VM.
    pub new_hostname: Option<String>,
    /// Read restored disks back and compare them.
    pub verify: bool,
    /// Memory and parallelism.
    pub limits: Limits,
    /// Which way the bytes of a snapshot take.
    pub transfer: Transfer,
    /// What the user should hear about: values given twice, a file readable by everybody, a secret in the Plugin line.
    pub warnings: Vec<String>,
}

/// Which way the bytes of a snapshot take in a backup.
#[derive(Clone, Debug)]
pub enum Transfer {
    /// They are read from the snapshot.
    Direct,
    /// Azure copies the snapshot to a blob of this storage account first, and they are read from there.
    Blob(ConnectionString),
}

/// Everything that is wrong with a configuration; shows no secret.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct Error {
    problems: Vec<String>,
    debug: u8,
}

impl Error {
    /// What is wrong, where, and what to do: one sentence each.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The `debug` that was given, by which these problems are to be traced as well; 0 if it could not be read.
    #[must_use]
    pub fn debug(&self) -> u8 {
        self.debug
    }
}

impl From<String> for Error {
    fn from(problem: String) -> Self {
        Self {
            problems: vec![problem],
            debug: 0,
        }
    }
}

impl Settings {
    /// Reads a plugin command (with or without the `azure-vm:` prefix) and the configuration file. `config_file` is the
    /// path of the latter if the command names none.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once where possible; no value of a secret is shown.
    pub fn from_command(command: &str, config_file: &Path) -> Result<Self, Error> {
        let mut findings = Findings::default();
        let given = command::parse(command, &mut findings);
        for (key, file) in Parameter::SECRETS {
            if given.get(key).is_some() {
                findings.warning(format!(
                    "{key} stands in the Plugin line, which is stored in the catalog and on the volumes: better put it into the configuration file {}, or name a file that holds it with {file}",
                    config_file.display()
                ));
            }
        }
        settings::merge(given, PLUGIN_LINE, config_file, findings)
    }

    /// Reads the plugin command that was stored with files, for their restore. What was `entered` for the restore beats
    /// it; and with an entered `group` or `config` the stored access values do not count: they are those of the backup's
    /// time and place.
    ///
    /// # Errors
    ///
    /// As for [`Settings::from_command`].
    pub fn from_stored_command(
        command: &str,
        entered: impl IntoIterator<Item = (String, Secret)>,
        config_file: &Path,
    ) -> Result<Self, Error> {
        let mut findings = Findings::default();
        let mut stored = command::parse(command, &mut findings);
        let entered = parameters::collect(entered, " in the restore options", &mut findings);
        if entered.get(Parameter::Group).is_some() || entered.get(Parameter::Config).is_some() {
            for key in [
                Parameter::TenantId,
                Parameter::SubscriptionId,
                Parameter::ApplicationId,
                Parameter::ApplicationSecret,
                Parameter::ApplicationSecretFile,
                Parameter::ConnectionKey,
                Parameter::ConnectionKeyFile,
                Parameter::Group,
            ] {
                stored.remove(key);
            }
        }
        settings::merge(entered.or(stored), PLUGIN_LINE, config_file, findings)
    }

    /// The same for parameters that were taken apart elsewhere, such as options of the command line.
    ///
    /// # Errors
    ///
    /// As for [`Settings::from_command`].
    pub fn from_pairs(
        pairs: impl IntoIterator<Item = (String, Secret)>,
        config_file: &Path,
    ) -> Result<Self, Error> {
        let mut findings = Findings::default();
        let given = parameters::collect(pairs, "", &mut findings);
        settings::merge(given, COMMAND_LINE, config_file, findings)
    }
}

/// What a transfer by SAS needs: no credentials.
#[derive(Clone, Debug)]
pub struct TransferSettings {
    /// A PEM file with further trusted roots.
    pub ca_file: Option<PathBuf>,
    /// Accept `http://` on loopback addresses.
    pub allow_http: bool,
    /// Memory and parallelism.
    pub limits: Limits,
    /// What the user should hear about.
    pub warnings: Vec<String>,
}

impl TransferSettings {
    /// Takes parameters as [`Settings::from_pairs`] does; there is no configuration file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, Secret)>) -> Result<Self, Error> {
        let mut findings = Findings::default();
        let given = parameters::collect(pairs, "", &mut findings);
        settings::transfer(given, findings)
    }
}

/// The groups of the configuration file that a plugin command works with: that of its `config` parameter or, without
/// one, `config_file`; in file order, none if there is no such file. Other parameters need not be complete.
///
/// # Errors
///
/// An unusable command; a file that cannot be read or parsed, or that `config` names and that does not exist.
pub fn groups_of_command(command: &str, config_file: &Path) -> Result<Vec<String>, Error> {
    let mut findings = Findings::default();
    let given = command::parse(command, &mut findings);
    settings::group_names(&given, config_file, findings)
}

/// The same for parameters that were taken apart elsewhere, as in [`Settings::from_pairs`].
///
/// # Errors
///
/// As for [`groups_of_command`].
pub fn groups_of_pairs(
    pairs: impl IntoIterator<Item = (String, Secret)>,
    config_file: &Path,
) -> Result<Vec<String>, Error> {
    let mut findings = Findings::default();
    let given = parameters::collect(pairs, "", &mut findings);
    settings::group_names(&given, config_file, findings)
}
