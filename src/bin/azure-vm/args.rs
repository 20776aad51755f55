//! What stands on the command line.
//!
//! Parameters that the plugin knows have the plugin's names here (`resource_group` is `--resource-group`) and take the
//! plugin's way: [`Parameters::settings`] hands them to `config`, which alone decides what is right.

use std::convert::Infallible;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use azure_vm_fd::config::{DEFAULT_CONFIG_FILE, Settings, TransferSettings, groups_of_pairs};
use azure_vm_fd::notice::Severity;
use azure_vm_fd::secret::Secret;
use clap::{ArgAction, Parser, Subcommand};

use crate::failure::Failure;
use crate::output::Output;

/// Back up and restore Azure VMs as raw disk images, without a Director.
///
/// Access values come from the configuration file of the plugin, from options, and the secret from the file or from
/// the environment variable `AZURE_VM_APPLICATION_SECRET`.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 partly saved; 4 login refused or rights missing;
/// 130 cancelled.
#[derive(Debug, Parser)]
#[command(name = "azure-vm", version, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) parameters: Parameters,

    /// Write one JSON document to standard output and nothing else.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Test login, rights and endpoints, and say what is missing.
    Check,
    /// List the VMs of the subscription and their disks.
    List,
    /// Show what a backup would save, and why; changes nothing.
    Plan(SelectionArgs),
    /// Save VMs to a folder.
    Backup(BackupArgs),
    /// Build a VM from a folder that `backup` or `bextract` filled.
    Restore(RestoreArgs),
    /// Answer what `.query` in bconsole answers.
    Query(QueryArgs),
    /// List the snapshots that jobs keep in Azure.
    Snapshots(SnapshotArgs),
    /// Delete snapshots that jobs have left in Azure.
    Prune(PruneArgs),
    /// Fetch one disk image by SAS URL.
    Pull(PullArgs),
    /// Upload one raw disk image to an upload disk by SAS URL.
    Push(PushArgs),
}

/// Parameters of the plugin that every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct Parameters {
    /// Configuration file of the plugin.
    #[arg(long, global = true, value_name = "FILE", env = "AZURE_VM_CONFIG")]
    config: Option<PathBuf>,

    /// Group of the configuration file; the first one without it.
    #[arg(long, global = true, value_name = "NAME")]
    group: Option<String>,

    /// Tenant of the service principal.
    #[arg(long, global = true, value_name = "ID")]
    tenant_id: Option<String>,

    /// Subscription that is worked on.
    #[arg(long, global = true, value_name = "ID")]
    subscription_id: Option<String>,

    /// Client id of the service principal.
    #[arg(long, global = true, value_name = "ID")]
    application_id: Option<String>,

    /// `AzureCloud`, `AzureUSGovernment`, `AzureChinaCloud` or `AzureBleuCloud`.
    #[arg(long, global = true, value_name = "NAME")]
    cloud: Option<String>,

    /// Resource Manager endpoint, instead of the cloud's.
    #[arg(long, global = true, value_name = "URL")]
    arm_endpoint: Option<String>,

    /// Token endpoint, instead of the cloud's.
    #[arg(long, global = true, value_name = "URL")]
    authority: Option<String>,

    /// Further trusted roots, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Accept plain HTTP on loopback addresses (an emulator).
    #[arg(long, global = true)]
    pub(crate) allow_http: bool,

    /// Bytes in flight, such as 64M.
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) memory: Option<String>,

    /// Requests in flight per disk.
    #[arg(long, global = true, value_name = "N")]
    pub(crate) concurrency: Option<String>,

    /// Trace to standard error: 1 steps, 2 requests, 3 to 9 also what the libraries report.
    #[arg(long, global = true, value_name = "0-9", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(crate) debug: u8,

    /// Any other parameter of the plugin; may be repeated.
    #[arg(short = 'p', long = "parameter", global = true, value_name = "KEY=VALUE", action = ArgAction::Append)]
    others: Vec<String>,
}

/// Which VMs.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct SelectionArgs {
    /// Exactly this VM.
    #[arg(long, value_name = "NAME")]
    vm: Option<String>,

    /// Names that qualify: a Java regular expression for the whole name.
    #[arg(long, value_name = "REGEX")]
    include: Option<String>,

    /// Names that do not qualify: a Java regular expression for the whole name.
    #[arg(long, value_name = "REGEX")]
    exclude: Option<String>,

    /// Only VMs of this resource group.
    #[arg(long, value_name = "NAME")]
    resource_group: Option<String>,
}

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// Folder that receives `@azure-vm/...`; made if missing. Nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,

    /// Stop at the first VM that fails.
    #[arg(long)]
    pub(crate) abort_on_error: bool,

    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
}

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// Folder that holds `@azure-vm/...`, at any depth.
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,

    /// Name of the new VM; the saved name without it.
    #[arg(long, value_name = "NAME")]
    pub(crate) new_hostname: Option<String>,

    /// Read each disk back after its upload and compare it with the staged image it came from (checked against `_digests` before).
    #[arg(long)]
    pub(crate) verify: bool,

    /// VM to restore, by UUID or by saved name, where the folder holds several.
    #[arg(long, value_name = "NAME|UUID")]
    pub(crate) vm: Option<String>,

    /// Run to restore, by the number that its file names begin with; the newest without it.
    #[arg(long, value_name = "EPOCH")]
    pub(crate) epoch: Option<u64>,

    /// Folder for local copies of the images; the folder for temporary files without it.
    #[arg(long, value_name = "DIR")]
    pub(crate) staging: Option<PathBuf>,
}

/// Arguments of `query`.
#[derive(Debug, clap::Args)]
pub(crate) struct QueryArgs {
    /// `CONNECTION`, `VM`, `GROUP`, `VERSION`, `SNAPSHOT` or `DISK`, in any case.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// `SNAPSHOT`: working directory of the File Daemon, where the tracker is.
    #[arg(long, value_name = "DIR", default_value = "/opt/bacula/working")]
    pub(crate) working_directory: PathBuf,
}

/// Which snapshots; all conditions that are given must hold.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct SnapshotArgs {
    /// Of this job, or of this run by its unique name. A `*` at the end stands for anything.
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,

    /// Of this File Daemon, by its name. A `*` at the end stands for anything.
    #[arg(long, value_name = "NAME")]
    pub(crate) client: Option<String>,

    /// Of runs that began longer ago than this, such as `12h` or `30d`.
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
}

/// Arguments of `prune`.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) selection: SnapshotArgs,

    /// Delete them. Without it they are only shown.
    #[arg(long)]
    pub(crate) yes: bool,

    /// Also those that somebody holds access to: a run that was killed, or one that is under way and would fail.
    #[arg(long)]
    pub(crate) in_use: bool,
}

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// SAS URL of the snapshot or disk; `-` reads it from standard input. May stand in the environment instead.
    #[arg(value_name = "SAS", env = "AZURE_VM_SAS", hide_env_values = true, value_parser = secret)]
    pub(crate) sas: Secret,

    /// New sparse raw file; `-` writes to standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,

    /// SAS URL of an earlier snapshot of the same disk: fetch only what changed since. Needs --base-file. `-` reads it
    /// from standard input, on the line after the other URL.
    #[arg(long, value_name = "SAS", env = "AZURE_VM_BASE_SAS", hide_env_values = true, value_parser = secret, requires = "base_file")]
    pub(crate) base: Option<Secret>,

    /// Raw image of that earlier snapshot; the new file is a copy of it with the changes applied.
    #[arg(long, value_name = "FILE", requires = "base")]
    pub(crate) base_file: Option<PathBuf>,
}

/// Arguments of `push`.
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// SAS URL of an upload disk; `-` reads it from standard input.
    #[arg(value_name = "SAS", env = "AZURE_VM_SAS", hide_env_values = true, value_parser = secret)]
    pub(crate) sas: Secret,

    /// Raw disk image; its size is that of the disk (`uploadSizeBytes` less 512).
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
}

/// Parameters of the plugin, as key and value.
pub(crate) type Pairs = Vec<(&'static str, String)>;

/// Parameters that no argument may carry.
const SECRETS: [&str; 2] = ["application_secret", "connection_key"];

/// Where the secret of the service principal may stand: an option would show it in the process list.
const SECRET_VARIABLE: &str = "AZURE_VM_APPLICATION_SECRET";

impl Command {
    /// As typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::List => "list",
            Self::Plan(_) => "plan",
            Self::Backup(_) => "backup",
            Self::Restore(_) => "restore",
            Self::Query(_) => "query",
            Self::Snapshots(_) => "snapshots",
            Self::Prune(_) => "prune",
            Self::Pull(_) => "pull",
            Self::Push(_) => "push",
        }
    }
}

impl Parameters {
    /// The settings that these options, the parameters of a command and the configuration file make.
    ///
    /// # Errors
    ///
    /// A secret among the arguments; everything that `config` refuses.
    pub(crate) fn settings(
        &self,
        command: Pairs,
        output: &mut Output,
    ) -> Result<Settings, Failure> {
        let secret = env::var(SECRET_VARIABLE)
            .ok()
            .filter(|secret| !secret.is_empty());
        let pairs = self.all_pairs(command, secret)?;
        let settings = Settings::from_pairs(pairs, Path::new(DEFAULT_CONFIG_FILE))?;
        for warning in &settings.warnings {
            output.message(Severity::Warning, warning.clone());
        }
        Ok(settings)
    }

    /// The groups of the configuration file that [`Parameters::settings`] would read.
    ///
    /// # Errors
    ///
    /// A secret among the arguments; a file that cannot be read or parsed, or that is named and does not exist.
    pub(crate) fn groups(&self) -> Result<Vec<String>, Failure> {
        let pairs = self.all_pairs(Pairs::new(), None)?;
        Ok(groups_of_pairs(pairs, Path::new(DEFAULT_CONFIG_FILE))?)
    }

    /// The settings of a transfer by SAS: these options alone, since the configuration file is about credentials.
    ///
    /// # Errors
    ///
    /// As for [`Parameters::settings`].
    pub(crate) fn transfer_settings(
        &self,
        output: &mut Output,
    ) -> Result<TransferSettings, Failure> {
        let pairs = self.all_pairs(Pairs::new(), None)?;
        let settings = TransferSettings::from_pairs(pairs)?;
        for warning in &settings.warnings {
            output.message(Severity::Warning, warning.clone());
        }
        Ok(settings)
    }

    fn all_pairs(
        &self,
        command: Pairs,
        secret: Option<String>,
    ) -> Result<Vec<(String, Secret)>, Failure> {
        let mut pairs = self.pairs();
        pairs.extend(command);
        let mut pairs: Vec<_> = pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Secret::new(value)))
            .collect();
        for other in &self.others {
            let Some((key, value)) = other.split_once('=') else {
                return Err(Failure::usage(format!(
                    "parameter {other}: write it as key=value"
                )));
            };
            if SECRETS
                .iter()
                .any(|secret| key.eq_ignore_ascii_case(secret))
            {
                return Err(Failure::usage(format!(
                    "parameter {key}: the process list would show it; put it into the configuration file, or the application secret into the environment variable {SECRET_VARIABLE}"
                )));
            }
            pairs.push((key.to_owned(), Secret::new(value.to_owned())));
        }
        pairs.extend(secret.map(|secret| ("application_secret".to_owned(), Secret::new(secret))));
        Ok(pairs)
    }

    fn pairs(&self) -> Pairs {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        given([
            ("config", path(&self.config)),
            ("group", self.group.clone()),
            ("tenant_id", self.tenant_id.clone()),
            ("subscription_id", self.subscription_id.clone()),
            ("application_id", self.application_id.clone()),
            ("cloud", self.cloud.clone()),
            ("arm_endpoint", self.arm_endpoint.clone()),
            ("authority", self.authority.clone()),
            ("ca_file", path(&self.ca_file)),
            ("allow_http", self.allow_http.then(|| "yes".to_owned())),
            ("memory", self.memory.clone()),
            ("concurrency", self.concurrency.clone()),
        ])
    }
}

impl SelectionArgs {
    /// As parameters of the plugin.
    pub(crate) fn pairs(&self) -> Pairs {
        given([
            ("vm", self.vm.clone()),
            ("include", self.include.clone()),
            ("exclude", self.exclude.clone()),
            ("resource_group", self.resource_group.clone()),
        ])
    }
}

impl BackupArgs {
    /// As parameters of the plugin.
    pub(crate) fn pairs(&self) -> Pairs {
        let mut pairs = self.selection.pairs();
        pairs.extend(given([(
            "abort_on_error",
            self.abort_on_error.then(|| "1".to_owned()),
        )]));
        pairs
    }
}

impl RestoreArgs {
    /// As parameters of the plugin.
    pub(crate) fn pairs(&self) -> Pairs {
        given([
            ("new_hostname", self.new_hostname.clone()),
            ("verify", self.verify.then(|| "yes".to_owned())),
        ])
    }
}

fn given<const N: usize>(pairs: [(&'static str, Option<String>); N]) -> Pairs {
    pairs
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// A number and one of `m`, `h`, `d`, `w`.
fn age(text: &str) -> Result<Duration, String> {
    let seconds = text.char_indices().next_back().and_then(|(at, unit)| {
        let unit = match unit {
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            'w' => 7 * 24 * 60 * 60,
            _ => return None,
        };
        text[..at].parse::<u64>().ok()?.checked_mul(unit)
    });
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "write a number and m, h, d or w, such as 30d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Args {
        Args::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn options_become_parameters() {
        let args = parse(
            "azure-vm backup --to /d --group lab --vm ledger01 --allow-http -p transfer=direct --abort-on-error",
        );
        let Command::Backup(backup) = args.command else {
            panic!("not a backup");
        };
        let pairs = args
            .parameters
            .all_pairs(backup.pairs(), Some("s=1".to_owned()))
            .unwrap();
        let shown: Vec<_> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={}", value.expose()))
            .collect();
        assert_eq!(
            shown,
            [
                "group=lab",
                "allow_http=yes",
                "vm=ledger01",
                "abort_on_error=1",
                "transfer=direct",
                "application_secret=s=1",
            ]
        );
    }

    #[test]
    fn secrets_in_arguments_are_refused() {
        for secret in ["application_secret=x1y", "Connection_Key=x1y"] {
            let line = format!("azure-vm check -p {secret}");
            let failure = parse(&line)
                .parameters
                .all_pairs(Pairs::new(), None)
                .unwrap_err();
            assert!(failure.text.contains("process list"));
            assert!(!failure.text.contains("x1y"));
        }
    }

    #[test]
    fn ages_have_a_unit() {
        assert_eq!(age("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(age("2w"), age("14d"));
        for wrong in [
            "",
            "d",
            "30",
            "-1d",
            "1.5h",
            "99999999999999999999d",
            "3 d",
            "5ü",
        ] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn debug_shows_no_sas() {
        let args = parse("azure-vm pull https://h/a?sig=hidden --to x");
        assert!(!format!("{args:?}").contains("hidden"));
    }
}
