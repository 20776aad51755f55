//! Plugin command, configuration file and defaults become one validated [`Settings`].
use crate::azure::AzureConfig;
use crate::pipeline::Limits;
use std::path::{Path, PathBuf};

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
    /// 0 to 9.
    pub debug: u8,
    /// Name of the restored VM.
    pub new_hostname: Option<String>,
    /// Memory and parallelism.
    pub limits: Limits,
    /// What the user should hear about: values given twice, a file readable by everybody, a secret in the Plugin line.
    pub warnings: Vec<String>,
}

/// Which VMs of the subscription are saved.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Literal name.
    pub vm: Option<String>,
    /// Whole-name pattern.
    pub include: Option<NamePattern>,
    /// Whole-name pattern.
    pub exclude: Option<NamePattern>,
    /// Only VMs of this group (extension).
    pub resource_group: Option<String>,
}

/// A regular expression in Java's syntax that must match a whole name.
#[derive(Clone, Debug)]
pub struct NamePattern {}

impl NamePattern {
    /// Whether the whole `name` matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let _ = name;
        unimplemented!()
    }
    /// Whether some part of `name` matches: a hint for users who expected a search.
    #[must_use]
    pub fn is_found_in(&self, name: &str) -> bool {
        let _ = name;
        unimplemented!()
    }
    /// As the user wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        unimplemented!()
    }
}

/// Bad input: what, where, what to do. May carry several lines.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Settings {
    /// Reads a plugin command (with or without the `azure-vm:` prefix) and the configuration file. `config_file` is the default path.
    /// # Errors
    /// Everything that is wrong, at once where possible; no value of a secret is shown.
    pub fn from_command(command: &str, config_file: &Path) -> Result<Self, Error> {
        let _ = (command, config_file);
        unimplemented!()
    }
}

/// The groups of a configuration file, in file order.
/// # Errors
/// A file that cannot be read or parsed.
pub fn groups(config_file: &Path) -> Result<Vec<String>, Error> {
    let _: PathBuf = config_file.into();
    unimplemented!()
}
