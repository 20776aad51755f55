//! From given values to settings: which file and group count, what is missing, what each value means.

use std::path::{Path, PathBuf};

use super::file::{self, ConfigFile};
use super::parameters::{Findings, Parameter, Values, collect};
use super::{Error, Selection, Settings, Transfer, TransferSettings, private_file, values};
use crate::azure::connection_string::ConnectionString;
use crate::azure::{AzureConfig, Endpoints};
use crate::pipeline::Limits;
use crate::secret::Secret;

/// Everything that a job needs, whatever it does.
const MANDATORY: [Parameter; 4] = [
    Parameter::TenantId,
    Parameter::SubscriptionId,
    Parameter::ApplicationId,
    Parameter::ApplicationSecret,
];

/// Bytes in flight per job, unless `memory` says otherwise: the default concurrency times the largest chunk.
const DEFAULT_MEMORY: u64 = 64 * values::MIB;
/// Requests in flight per disk, unless `concurrency` says otherwise.
const DEFAULT_CONCURRENCY: usize = 16;

/// Makes settings of what was given and of the configuration file, whose path is `default` if the values name none.
/// `origin` says where the former were given, such as `in the FileSet's Plugin line`.
pub(super) fn merge(
    mut given: Values,
    origin: &str,
    default: &Path,
    mut findings: Findings,
) -> Result<Settings, Error> {
    findings.note_debug(&given);
    let file = match config_file(&given, default) {
        Ok(file) => file,
        Err(error) => return Err(findings.into_error(error)),
    };
    let path = config_path(&given, default);
    let group = match group(&given, file, &path, &mut findings) {
        Ok(group) => group,
        Err(error) => return Err(findings.into_error(error)),
    };
    let place = group.place;
    given = given.or(group.values);
    findings.note_debug(&given);

    // Any other value of `transfer` is reported as what it is.
    let through_blob = given.get(Parameter::Transfer) == Some("blob");
    let mandatory = MANDATORY
        .into_iter()
        .chain(through_blob.then_some(Parameter::ConnectionKey));
    let missing = mandatory.filter(|key| !given.has(*key));
    let missing: Vec<_> = missing.map(|key| key.to_string()).collect();
    if !missing.is_empty() {
        findings.problem(format!(
            "missing {}: give {} {origin} or {place}",
            missing.join(", "),
            if missing.len() == 1 { "it" } else { "them" },
        ));
    }
    read_secrets(&mut given, &mut findings);
    let mut reader = Reader { given, findings };
    let settings = reader.settings();
    let warnings = reader.findings.into_warnings()?;
    Ok(Settings {
        warnings,
        ..settings
    })
}

/// Of the values given, those that a transfer by SAS needs; the others must be right as well.
pub(super) fn transfer(given: Values, findings: Findings) -> Result<TransferSettings, Error> {
    let mut reader = Reader { given, findings };
    let Settings { azure, limits, .. } = reader.settings();
    Ok(TransferSettings {
        ca_file: azure.ca_file,
        allow_http: azure.allow_http,
        limits,
        warnings: reader.findings.into_warnings()?,
    })
}

/// Puts what secret files hold in the place of their paths.
fn read_secrets(given: &mut Values, findings: &mut Findings) {
    for (secret, file) in Parameter::SECRETS {
        let Some(path) = given.remove(file) else {
            continue;
        };
        let path = path.expose();
        if !Path::new(path).is_absolute() {
            // It may be the secret itself.
            findings.problem(format!(
                "parameter {file}: its value is no absolute path: give the path from the root on, as in /opt/bacula/etc/secret"
            ));
            continue;
        }
        match private_file::read_secret(Path::new(path)) {
            Ok((text, world_readable)) => {
                if world_readable {
                    findings.warning(format!(
                        "the file {path} of {file} is readable by everybody on this host: better make it readable by the user of the File Daemon only (chmod 600)"
                    ));
                }
                given.insert(secret, text);
            }
            Err(problem) => findings.problem(format!("parameter {file}: read {path}: {problem}")),
        }
    }
}

/// The configuration file that `given` works with; `None` if there is none and none is named.
fn config_file(given: &Values, default: &Path) -> Result<Option<ConfigFile>, Error> {
    let path = config_path(given, default);
    let file = file::read(&path)?;
    if file.is_none() && given.get(Parameter::Config).is_some() {
        return Err(Error::from(format!(
            "read configuration file {}: there is no such file",
            path.display()
        )));
    }
    Ok(file)
}

/// The groups of the configuration file that `given` works with.
pub(super) fn group_names(
    given: &Values,
    default: &Path,
    findings: Findings,
) -> Result<Vec<String>, Error> {
    let file = config_file(given, default)?;
    findings.into_warnings()?;
    Ok(file.map_or_else(Vec::new, |file| file.group_names()))
}

fn config_path(given: &Values, default: &Path) -> PathBuf {
    given
        .get(Parameter::Config)
        .map_or(default, Path::new)
        .to_owned()
}

/// What a group gives.
struct GroupValues {
    values: Values,
    /// Where a missing value should stand.
    place: String,
}

fn group(
    given: &Values,
    file: Option<ConfigFile>,
    path: &Path,
    findings: &mut Findings,
) -> Result<GroupValues, Error> {
    let wanted = given.get(Parameter::Group);
    let path = path.display();
    let Some(file) = file else {
        return match wanted {
            Some(name) => Err(Error::from(format!(
                "group={name}: there is no configuration file {path}"
            ))),
            None => Ok(GroupValues {
                values: Values::default(),
                place: format!("in a group of the configuration file {path}, which does not exist"),
            }),
        };
    };
    if file.world_readable {
        findings.warning(format!(
            "the configuration file {path} is readable by everybody on this host: better make it readable by the user of the File Daemon only (chmod 600)"
        ));
    }
    let names = file.group_names();
    let Some(group) = file.into_group(wanted) else {
        return match wanted {
            Some(name) => Err(Error::from(format!(
                "group={name}: the configuration file {path} has no such group, only: {}",
                names.join(", ")
            ))),
            None => Ok(GroupValues {
                values: Values::default(),
                place: format!("in a group of the configuration file {path}, which has none"),
            }),
        };
    };
    let mut values = collect(
        group.pairs,
        &format!(" in group [{}] of {path}", group.name),
        findings,
    );
    for key in [Parameter::Group, Parameter::Config] {
        if values.remove(key).is_some() {
            findings.warning(format!(
                "parameter {key} in group [{}] of {path} has no effect: it says where values are, so it counts in the Plugin line only",
                group.name
            ));
        }
    }
    Ok(GroupValues {
        values,
        place: format!("in group [{}] of {path}", group.name),
    })
}

/// Gives each value its meaning. What cannot be understood is noted, and replaced by a default that nobody will see.
struct Reader {
    given: Values,
    findings: Findings,
}

impl Reader {
    fn settings(&mut self) -> Settings {
        let allow_http = self
            .value(Parameter::AllowHttp, values::yes_or_no)
            .unwrap_or(false);
        // Its form counts also where the direct transfer has no use for it.
        let account = self.value(Parameter::ConnectionKey, |text| {
            ConnectionString::parse(text).map_err(|error| error.to_string())
        });
        let through_blob = self.value(Parameter::Transfer, values::transfer);
        let transfer = match (through_blob, account) {
            (Some(true), Some(account)) => Transfer::Blob(account),
            // Without an account, what is missing was noted.
            (Some(true), None) | (Some(false) | None, _) => Transfer::Direct,
        };
        let memory = self
            .value(Parameter::Memory, values::size)
            .unwrap_or(DEFAULT_MEMORY);
        let concurrency = self
            .value(Parameter::Concurrency, values::concurrency)
            .unwrap_or(DEFAULT_CONCURRENCY);
        Settings {
            azure: AzureConfig {
                tenant_id: self.text(Parameter::TenantId),
                application_id: self.text(Parameter::ApplicationId),
                application_secret: Secret::new(self.text(Parameter::ApplicationSecret)),
                subscription_id: self.text(Parameter::SubscriptionId),
                endpoints: self.endpoints(allow_http),
                ca_file: self.given.get(Parameter::CaFile).map(PathBuf::from),
                allow_http,
                concurrency,
            },
            selection: Selection {
                vm: self.given.get(Parameter::Vm).map(ToOwned::to_owned),
                include: self.value(Parameter::Include, values::pattern),
                exclude: self.value(Parameter::Exclude, values::pattern),
                resource_group: self
                    .given
                    .get(Parameter::ResourceGroup)
                    .map(ToOwned::to_owned),
            },
            abort_on_error: self
                .value(Parameter::AbortOnError, values::zero_or_one)
                .unwrap_or(false),
            fallback: self
                .value(Parameter::Fallback, values::yes_or_no)
                .unwrap_or(true),
            debug: self
                .value(Parameter::Debug, values::debug_level)
                .unwrap_or(0),
            new_hostname: self.value(Parameter::NewHostname, values::vm_name),
            verify: self
                .value(Parameter::Verify, values::yes_or_no)
                .unwrap_or(false),
            limits: Limits {
                memory,
                concurrency,
                chunk: values::chunk(memory),
            },
            transfer,
            warnings: Vec::new(),
        }
    }

    fn value<T>(&mut self, key: Parameter, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.given.get(key)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.findings.problem(format!("parameter {key}: {problem}"));
                None
            }
        }
    }

    fn text(&self, key: Parameter) -> String {
        self.given.get(key).unwrap_or_default().to_owned()
    }

    fn endpoints(&mut self, allow_http: bool) -> Endpoints {
        let mut endpoints = self
            .value(Parameter::Cloud, values::cloud)
            .or_else(|| Endpoints::of_cloud(DEFAULT_CLOUD))
            .expect("the default cloud is in the table of clouds");
        if let Some(url) = self.value(Parameter::ArmEndpoint, |text| {
            values::endpoint(text, allow_http)
        }) {
            endpoints.arm = url;
        }
        if let Some(url) = self.value(Parameter::Authority, |text| {
            values::endpoint(text, allow_http)
        }) {
            endpoints.authority = url;
        }
        endpoints
    }
}

const DEFAULT_CLOUD: &str = "AzureCloud";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::config::values::MIB;
    use crate::config::{groups_of_command, groups_of_pairs};

    const ACCESS: &str =
        "tenant_id=t subscription_id=s application_id=a application_secret=hunter2";

    const FILE: &str = "
[production]
tenant_id = file-t
Subscription_ID = file-s
application_id = file-a
application_secret = p~example-secret-1
connection_key = DefaultEndpointsProtocol=https;AccountName=prodstage;AccountKey=ZXhhbXBsZQ==;EndpointSuffix=core.windows.net
concurrency = 4

[laboratory]
tenant_id = lab-t
subscription_id = lab-s
application_id = lab-a
application_secret = p~example-secret-2
";

    /// A folder with a configuration file that only its owner can read.
    fn folder(text: &str) -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("azure-vm.conf");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (dir, path)
    }

    fn without_file(command: &str) -> Result<Settings, Error> {
        Settings::from_command(command, Path::new("/nonexistent/azure-vm.conf"))
    }

    /// Settings of a complete command with these further parameters.
    fn with(parameters: &str) -> Result<Settings, Error> {
        without_file(&format!("azure-vm: {ACCESS} {parameters}"))
    }

    fn problem(result: Result<Settings, Error>) -> String {
        result.expect_err("refused").to_string()
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let settings = with("").unwrap();
        assert_eq!(settings.azure.tenant_id, "t");
        assert_eq!(settings.azure.subscription_id, "s");
        assert_eq!(settings.azure.application_id, "a");
        assert_eq!(settings.azure.application_secret.expose(), "hunter2");
        assert_eq!(
            Some(settings.azure.endpoints),
            Endpoints::of_cloud("AzureCloud")
        );
        assert!(!settings.azure.allow_http && !settings.abort_on_error);
        assert_eq!((settings.debug, settings.azure.concurrency), (0, 16));
        assert_eq!((settings.new_hostname, settings.verify), (None, false));
        assert!(settings.selection.choose("anything").unwrap().is_chosen());
        let limits = Limits {
            memory: 64 * MIB,
            concurrency: 16,
            chunk: 4 * MIB,
        };
        assert_eq!(settings.limits, limits);
    }

    #[test]
    fn the_first_group_counts_unless_one_is_named() {
        let (_dir, path) = folder(FILE);
        let tenant = |command| {
            Settings::from_command(command, &path)
                .unwrap()
                .azure
                .tenant_id
        };
        assert_eq!(tenant("azure-vm:"), "file-t");
        assert_eq!(tenant("azure-vm: group=laboratory"), "lab-t");
        assert_eq!(
            problem(Settings::from_command("group=Laboratory", &path)),
            format!(
                "group=Laboratory: the configuration file {} has no such group, only: production, laboratory",
                path.display()
            )
        );
        assert_eq!(
            problem(without_file(&format!("{ACCESS} group=x"))),
            "group=x: there is no configuration file /nonexistent/azure-vm.conf"
        );
    }

    #[test]
    fn the_fileset_wins_key_by_key() {
        let (_dir, path) = folder(FILE);
        let command = "tenant_id=mine concurrency=8 application_secret=other";
        let settings = Settings::from_command(command, &path).unwrap();
        assert_eq!(settings.azure.tenant_id, "mine");
        assert_eq!(settings.azure.subscription_id, "file-s");
        assert_eq!(settings.azure.application_secret.expose(), "other");
        assert_eq!(settings.limits.concurrency, 8);
    }

    #[test]
    fn what_is_entered_for_a_restore_wins() {
        let (_dir, path) = folder(FILE);
        let restored = |command: &str, entered: &[(&str, &str)]| {
            let entered = entered
                .iter()
                .map(|(key, value)| ((*key).to_owned(), Secret::new((*value).to_owned())));
            Settings::from_stored_command(command, entered, &path)
        };
        let stored = "azure-vm: tenant_id=old application_secret=old-secret concurrency=8";
        // As at the time of the backup, but for what the file says now.
        let azure = restored(stored, &[]).unwrap().azure;
        assert_eq!(
            (azure.tenant_id.as_str(), azure.subscription_id.as_str()),
            ("old", "file-s")
        );
        let entered = [("group", "laboratory"), ("new_hostname", "copy")];
        let settings = restored(stored, &entered).unwrap();
        assert_eq!(settings.azure.tenant_id, "lab-t");
        assert_eq!(
            settings.azure.application_secret.expose(),
            "p~example-secret-2"
        );
        assert_eq!(settings.new_hostname.as_deref(), Some("copy"));
        assert_eq!(settings.limits.concurrency, 8, "no access value");
        // The group of the backup's time is not known here.
        let moved = "azure-vm: group=elsewhere new_hostname=stored application_secret_file=/nonexistent/s connection_key_file=/nonexistent/k";
        assert!(problem(restored(moved, &[])).contains("no such group"));
        let azure = restored(moved, &[("group", "production")]).unwrap().azure;
        assert_eq!(azure.application_secret.expose(), "p~example-secret-1");
        let error = problem(restored(moved, &[("group", "production"), ("debug", "10")]));
        assert!(error.contains("10 is not a number"), "{error}");
    }

    #[test]
    fn a_file_that_is_named_or_exists_must_be_usable() {
        let (dir, path) = folder(FILE);
        let command = format!("azure-vm: config={}", path.display());
        assert_eq!(without_file(&command).unwrap().azure.tenant_id, "file-t");
        let missing = dir.path().join("missing");
        assert_eq!(
            problem(with(&format!("config={}", missing.display()))),
            format!(
                "read configuration file {}: there is no such file",
                missing.display()
            )
        );
        assert!(Settings::from_command(ACCESS, dir.path()).is_err());
        fs::write(&path, "application_secret = hunter2").unwrap();
        let error = problem(Settings::from_command(ACCESS, &path));
        assert!(
            error.ends_with("line 1: stands before the first [group]"),
            "{error}"
        );
    }

    #[test]
    fn everything_that_is_missing_or_wrong_is_named_at_once() {
        let error =
            without_file("azure-vm: application_id=a secret_id=hunter2 debug=10 transfer=blob");
        assert_eq!(
            error.unwrap_err().problems(),
            [
                "unknown parameter secret_id: did you mean application_secret?",
                "missing tenant_id, subscription_id, application_secret, connection_key: give them in the FileSet's Plugin line or in a group of the configuration file /nonexistent/azure-vm.conf, which does not exist",
                "parameter debug: 10 is not a number from 0 to 9",
            ]
        );
        let (_dir, path) = folder("[only]\ntenant_id = t\nclient_secret = hunter2\n");
        let error = Settings::from_command("subscription_id=s application_id=a", &path);
        let place = format!("in group [only] of {}", path.display());
        assert_eq!(
            error.unwrap_err().problems(),
            [
                format!(
                    "unknown parameter client_secret {place}: did you mean application_secret?"
                ),
                format!(
                    "missing application_secret: give it in the FileSet's Plugin line or {place}"
                ),
            ]
        );
    }

    #[test]
    fn what_is_wrong_does_not_hide_debug() {
        let (_dir, path) = folder(&format!("{FILE}debug = 3\nbanana = 1\n"));
        for (command, level) in [
            ("azure-vm: banana=1 debug=2", 2),
            ("azure-vm: debug=2 group=elsewhere", 2),
            ("azure-vm: debug=2 config=/nonexistent", 2),
            ("azure-vm: group=laboratory", 3),
            ("azure-vm: debug=10", 0),
            ("azure-vm: banana=1", 0),
        ] {
            let error = Settings::from_command(command, &path).unwrap_err();
            assert_eq!(error.debug(), level, "{command}");
        }
    }

    #[test]
    fn what_the_user_should_hear_is_said() {
        let (_dir, path) = folder(FILE);
        assert!(
            Settings::from_command("", &path)
                .unwrap()
                .warnings
                .is_empty()
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let command = "azure-vm: application_secret=hunter2 debug=1 debug=2";
        let warnings = Settings::from_command(command, &path)
            .unwrap()
            .warnings
            .join("\n");
        for part in [
            "debug is given more than once",
            "application_secret stands in the Plugin line",
            "is readable by everybody",
        ] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
        let pair = |key: &str, value: &str| (key.to_owned(), Secret::new(value.to_owned()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let settings = Settings::from_pairs([pair("application_secret", "a b")], &path).unwrap();
        assert_eq!(settings.azure.application_secret.expose(), "a b");
        assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
        let error = Settings::from_pairs([pair("transfer", "blob")], Path::new("/nonexistent"));
        let error = problem(error);
        assert!(error.contains("on the command line"), "{error}");
        assert!(!error.contains("Plugin line"), "{error}");
    }

    #[test]
    fn parameters_about_the_file_have_no_effect_in_it() {
        let (_dir, path) = folder(&format!("{FILE}group = production\nconfig = /x\n"));
        let settings = Settings::from_command("group=laboratory", &path).unwrap();
        assert_eq!(settings.azure.tenant_id, "lab-t");
        assert_eq!(settings.warnings.len(), 2);
    }

    #[test]
    fn values_are_understood() {
        assert!(with("abort_on_error").unwrap().abort_on_error);
        assert!(with("abort_on_error=1").unwrap().abort_on_error);
        assert!(!with("abort_on_error=0").unwrap().abort_on_error);
        assert_eq!(with("debug=9").unwrap().debug, 9);
        let key = "connection_key=AccountName=abc;AccountKey=ZXhhbXBsZQ==";
        let transfer = |text: &str| with(&format!("{text} {key}")).unwrap().transfer;
        assert!(matches!(transfer("transfer=direct"), Transfer::Direct));
        assert!(matches!(transfer(""), Transfer::Direct));
        assert!(
            matches!(transfer("transfer=blob"), Transfer::Blob(account) if account.account() == "abc")
        );
        for (text, bytes) in [
            ("4M", 4 * MIB),
            ("8192k", 8 * MIB),
            ("4G", 4096 * MIB),
            ("67108864", 64 * MIB),
        ] {
            assert_eq!(
                with(&format!("memory={text}")).unwrap().limits.memory,
                bytes
            );
        }
        assert_eq!(with("concurrency=64").unwrap().azure.concurrency, 64);
        let name = with("new_hostname=ledger-01.new_1").unwrap().new_hostname;
        assert_eq!(name.as_deref(), Some("ledger-01.new_1"));
        let selection = with("vm=a include=b(.*) exclude=(.*)c resource_group=g")
            .unwrap()
            .selection;
        assert!(
            selection.choose("a").unwrap().is_chosen()
                && selection.choose("bd").unwrap().is_chosen()
        );
        assert!(
            !selection.choose("bc").unwrap().is_chosen()
                && !selection.choose("d").unwrap().is_chosen()
        );
        assert_eq!(selection.resource_group.as_deref(), Some("g"));
        let cloud = with("cloud=azurechinacloud ca_file=/etc/ca.pem")
            .unwrap()
            .azure;
        assert_eq!(
            Some(cloud.endpoints),
            Endpoints::of_cloud("AzureChinaCloud")
        );
        assert_eq!(cloud.ca_file, Some(PathBuf::from("/etc/ca.pem")));
    }

    #[test]
    fn endpoints_can_be_given_and_stay_safe() {
        let azure = with(
            "arm_endpoint=https://arm.example:8443/x authority=http://127.0.0.1:81 allow_http=yes",
        )
        .unwrap()
        .azure;
        assert_eq!(azure.endpoints.arm.as_str(), "https://arm.example:8443/x/");
        assert_eq!(azure.endpoints.authority.as_str(), "http://127.0.0.1:81/");
        assert!(azure.allow_http);
        for loopback in ["http://localhost", "http://[::1]:80", "http://127.9.9.9/"] {
            assert!(with(&format!("authority={loopback} allow_http=1")).is_ok());
            assert!(
                problem(with(&format!("authority={loopback}"))).contains("needs allow_http=yes")
            );
        }
        for refused in [
            "http://login.example",
            "http://localhost.example",
            "https://user:hunter3@login.example",
            "https://login.example?sig=hunter3",
            "ftp://127.0.0.1",
            "login.example",
        ] {
            let error = problem(with(&format!("authority={refused} allow_http=yes")));
            assert!(error.starts_with("parameter authority: "), "{error}");
            assert!(!error.contains("hunter3"), "{error}");
        }
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for (parameter, part) in [
            ("abort_on_error=2", "2 is neither 0 nor 1"),
            ("debug=+1", "+1 is not a number from 0 to 9"),
            ("transfer=blob", "missing connection_key: give it"),
            ("transfer=x", "possible are direct and blob"),
            ("memory=3M", "not from 4M to 4G"),
            ("memory=5G", "not from 4M to 4G"),
            ("memory=64MB", "not a size such as 64M"),
            ("memory=99999999999999G", "not a size such as 64M"),
            ("memory=M", "not a size such as 64M"),
            ("concurrency=0", "not a number from 1 to 64"),
            ("concurrency=65", "not a number from 1 to 64"),
            ("cloud=AzureGermanCloud", "possible are AzureCloud, "),
            ("allow_http=maybe", "neither yes nor no"),
            (
                "include=(a",
                "regular expression (a: parenthesis is not closed",
            ),
            ("exclude=a(?<=b*)", "a look-behind must not look back"),
            ("connection_key=hunter2", "parameter connection_key: "),
            ("new_hostname=a/b", "not a name that Azure accepts"),
            ("new_hostname=_a", "not a name that Azure accepts"),
            ("new_hostname=a-", "not a name that Azure accepts"),
        ] {
            let error = problem(with(parameter));
            assert!(error.contains(part), "{parameter}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(with(&format!("new_hostname={}", "a".repeat(64))).is_ok());
        assert!(with(&format!("new_hostname={}", "a".repeat(65))).is_err());
    }

    #[test]
    fn groups_are_listed_without_complete_settings() {
        let (dir, path) = folder(FILE);
        let nowhere = Path::new("/nonexistent");
        let groups = |file| groups_of_command("azure-vm:", file);
        assert_eq!(groups(&path).unwrap(), ["production", "laboratory"]);
        assert!(groups(nowhere).unwrap().is_empty());
        assert!(groups(dir.path()).is_err());
        let command = format!("azure-vm: config={}", path.display());
        assert_eq!(groups_of_command(&command, nowhere).unwrap().len(), 2);
        let pair = |file: &Path| {
            let value = Secret::new(file.display().to_string());
            [("config".to_owned(), value)]
        };
        assert_eq!(groups_of_pairs(pair(&path), nowhere).unwrap().len(), 2);
        assert!(groups_of_pairs(pair(nowhere), &path).is_err());
        assert!(groups_of_command("config=/nonexistent", &path).is_err());
        assert!(groups_of_command("azure-vm: banana=1", &path).is_err());
    }

    /// A secret that was put where its file should be named.
    #[test]
    fn what_is_no_path_to_a_secret_is_not_shown() {
        for parameter in [
            "connection_key_file=DefaultEndpointsProtocol=https;AccountName=abc;AccountKey=ZXhhbXBsZQ==",
            "connection_key_file=ZXhhbXBsZQ/x",
        ] {
            let error = problem(with(parameter));
            assert!(!error.contains("ZXhhbXBsZQ"), "{error}");
            assert!(
                error.starts_with("parameter connection_key_file: its value is no absolute path"),
                "{error}"
            );
        }
        let access = "tenant_id=t subscription_id=s application_id=a";
        let error = problem(without_file(&format!(
            "{access} application_secret_file=hunter2"
        )));
        assert!(
            error.starts_with("parameter application_secret_file: ") && !error.contains("hunter2"),
            "{error}"
        );
        let error = problem(with("connection_key_file=/nonexistent/key"));
        assert!(
            error.contains("read /nonexistent/key: there is no such file"),
            "{error}"
        );
    }

    #[test]
    fn no_secret_is_printed() {
        let (_dir, path) = folder(FILE);
        let settings = Settings::from_command("azure-vm:", &path).unwrap();
        let printed = format!("{settings:?}");
        assert!(!printed.contains("example-secret") && !printed.contains("ZXhhbXBsZQ"));
    }
}
