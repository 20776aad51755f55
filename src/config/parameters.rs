//! The parameters of the plugin: their names, what people write instead, and a set of given values.

use std::collections::BTreeMap;
use std::fmt;

use super::Error;
use super::values::debug_level;
use crate::secret::Secret;

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Parameter {
    TenantId,
    SubscriptionId,
    ApplicationId,
    ApplicationSecret,
    ApplicationSecretFile,
    ConnectionKey,
    ConnectionKeyFile,
    AbortOnError,
    Debug,
    Group,
    Config,
    Vm,
    Include,
    Exclude,
    ResourceGroup,
    NewHostname,
    Verify,
    Transfer,
    Fallback,
    Memory,
    Concurrency,
    Cloud,
    ArmEndpoint,
    Authority,
    CaFile,
    AllowHttp,
}

/// Each parameter with its name and with names that other tools, and people, give to the same thing.
pub(super) const NAMES: [(Parameter, &str, &[&str]); 26] = [
    (
        Parameter::TenantId,
        "tenant_id",
        &["tenant", "directory", "directory_id"],
    ),
    (
        Parameter::SubscriptionId,
        "subscription_id",
        &["subscription", "sub", "sub_id"],
    ),
    (
        Parameter::ApplicationId,
        "application_id",
        &[
            "application",
            "app",
            "app_id",
            "appid",
            "client_id",
            "clientid",
        ],
    ),
    (
        Parameter::ApplicationSecret,
        "application_secret",
        &[
            "app_secret",
            "client_secret",
            "password",
            "secret",
            "secret_id",
            "secret_key",
        ],
    ),
    (
        Parameter::ApplicationSecretFile,
        "application_secret_file",
        &[
            "app_secret_file",
            "client_secret_file",
            "password_file",
            "secret_file",
        ],
    ),
    (
        Parameter::ConnectionKey,
        "connection_key",
        &[
            "connection",
            "connection_string",
            "storage_key",
            "account_key",
        ],
    ),
    (
        Parameter::ConnectionKeyFile,
        "connection_key_file",
        &["connection_file", "connection_string_file"],
    ),
    (Parameter::AbortOnError, "abort_on_error", &["abort"]),
    (Parameter::Debug, "debug", &["trace", "verbose"]),
    (Parameter::Group, "group", &["profile", "section"]),
    (
        Parameter::Config,
        "config",
        &["conf", "config_file", "configuration", "configuration_file"],
    ),
    (
        Parameter::Vm,
        "vm",
        &[
            "guest",
            "host",
            "machine",
            "name",
            "server",
            "virtual_machine",
            "vm_name",
            "vms",
        ],
    ),
    (
        Parameter::Include,
        "include",
        &["vm_include", "include_vm", "regex"],
    ),
    (Parameter::Exclude, "exclude", &["vm_exclude", "exclude_vm"]),
    (
        Parameter::ResourceGroup,
        "resource_group",
        &["rg", "resourcegroup"],
    ),
    (
        Parameter::NewHostname,
        "new_hostname",
        &["hostname", "new_name", "new_host", "restore_name"],
    ),
    (Parameter::Verify, "verify", &["compare", "read_back"]),
    (Parameter::Transfer, "transfer", &["mode", "transport"]),
    (Parameter::Fallback, "fallback", &["full_fallback"]),
    (Parameter::Memory, "memory", &["max_memory", "mem"]),
    (
        Parameter::Concurrency,
        "concurrency",
        &["parallel", "parallelism", "threads", "workers"],
    ),
    (
        Parameter::Cloud,
        "cloud",
        &["environment", "azure_environment"],
    ),
    (
        Parameter::ArmEndpoint,
        "arm_endpoint",
        &["endpoint", "management_endpoint", "resource_manager"],
    ),
    (
        Parameter::Authority,
        "authority",
        &["authority_host", "login_endpoint"],
    ),
    (
        Parameter::CaFile,
        "ca_file",
        &["ca", "ca_bundle", "cacert", "certificate"],
    ),
    (Parameter::AllowHttp, "allow_http", &["http", "insecure"]),
];

impl Parameter {
    /// Each secret, and the parameter that names a file with it instead.
    pub(super) const SECRETS: [(Self, Self); 2] = [
        (Self::ApplicationSecret, Self::ApplicationSecretFile),
        (Self::ConnectionKey, Self::ConnectionKeyFile),
    ];

    /// The other way to give the same.
    fn twin(self) -> Option<Self> {
        Self::SECRETS
            .into_iter()
            .find_map(|(secret, file)| match self {
                key if key == secret => Some(file),
                key if key == file => Some(secret),
                _ => None,
            })
    }

    /// By its name, in any case.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let known = |(_, known, _): &&(Self, &str, &[&str])| known.eq_ignore_ascii_case(name);
        NAMES.iter().find(known).map(|(key, ..)| *key)
    }

    /// What somebody who wrote `name` may have meant.
    pub(super) fn likely(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase().replace('-', "_");
        let exact = NAMES
            .iter()
            .find(|(_, known, others)| *known == name || others.contains(&name.as_str()));
        if let Some((key, ..)) = exact {
            return Some(*key);
        }
        NAMES
            .iter()
            .map(|(key, known, _)| (strsim::damerau_levenshtein(&name, known), *key, *known))
            // A short name is soon another one.
            .filter(|(distance, _, known)| *distance <= known.len().div_ceil(4).min(3))
            .min_by_key(|(distance, ..)| *distance)
            .map(|(_, key, _)| key)
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(key, ..)| key == self);
        f.write_str(name.map_or("", |(_, name, _)| name))
    }
}

/// More than this of a kind is not said: it would bury what matters.
const MOST_FINDINGS: usize = 50;

/// What was found wrong or worth saying so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<String>,
    warnings: Vec<String>,
    /// As far as it is known.
    debug: u8,
}

impl Findings {
    pub(super) fn problem(&mut self, problem: String) {
        if self.problems.len() < MOST_FINDINGS {
            self.problems.push(problem);
        }
    }

    pub(super) fn warning(&mut self, warning: String) {
        if self.warnings.len() < MOST_FINDINGS {
            self.warnings.push(warning);
        }
    }

    /// Takes note of how much is to be traced, even if something is wrong.
    pub(super) fn note_debug(&mut self, values: &Values) {
        let level = values.get(Parameter::Debug).map(debug_level);
        self.debug = level.and_then(Result::ok).unwrap_or(0);
    }

    /// The warnings, if nothing is wrong.
    pub(super) fn into_warnings(self) -> Result<Vec<String>, Error> {
        if self.problems.is_empty() {
            Ok(self.warnings)
        } else {
            Err(Error {
                problems: self.problems,
                debug: self.debug,
            })
        }
    }

    /// All problems, this one last.
    pub(super) fn into_error(mut self, last: Error) -> Error {
        self.problems.extend(last.problems);
        Error {
            problems: self.problems,
            debug: self.debug,
        }
    }
}

/// Given values, one per parameter. All are kept as secrets, so that none can be printed by accident.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<Parameter, Secret>);

impl Values {
    pub(super) fn get(&self, key: Parameter) -> Option<&str> {
        self.0.get(&key).map(Secret::expose)
    }

    /// Takes from `lower` what is not given here, in whatever way.
    pub(super) fn or(mut self, mut lower: Self) -> Self {
        for key in self.0.keys() {
            lower.0.remove(key);
            if let Some(twin) = key.twin() {
                lower.0.remove(&twin);
            }
        }
        self.0.append(&mut lower.0);
        self
    }

    /// Whether it is given, in whatever way.
    pub(super) fn has(&self, key: Parameter) -> bool {
        self.0.contains_key(&key) || key.twin().is_some_and(|twin| self.0.contains_key(&twin))
    }

    pub(super) fn insert(&mut self, key: Parameter, value: Secret) {
        self.0.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: Parameter) -> Option<Secret> {
        self.0.remove(&key)
    }
}

/// Checks names and takes the last value of each. `place` ends the messages: empty, or such as ` in group [x] of FILE`.
pub(super) fn collect(
    pairs: impl IntoIterator<Item = (String, Secret)>,
    place: &str,
    findings: &mut Findings,
) -> Values {
    let mut values = Values::default();
    for (name, value) in pairs {
        let Some(key) = Parameter::of_name(&name) else {
            findings.problem(unknown(&name, place));
            continue;
        };
        let text = value.expose();
        if text.is_empty() {
            findings.problem(format!(
                "parameter {key}{place} has no value: give one or leave the parameter out"
            ));
        } else if text.contains(char::is_control) {
            findings.problem(format!(
                "parameter {key}{place} contains a control character"
            ));
        } else if text.contains(char::REPLACEMENT_CHARACTER) {
            findings.problem(format!("parameter {key}{place} is not UTF-8 text"));
        } else if ['"', '\'']
            .iter()
            .any(|quote| text.len() > 1 && text.starts_with(*quote) && text.ends_with(*quote))
        {
            findings.warning(format!(
                "the quotes around the value of parameter {key}{place} are taken as part of it"
            ));
        }
        if values.0.insert(key, value).is_some() {
            findings.warning(format!(
                "parameter {key}{place} is given more than once: the last value counts"
            ));
        }
    }
    for (secret, file) in Parameter::SECRETS {
        if values.get(secret).is_some() && values.get(file).is_some() {
            findings.problem(format!(
                "{secret} and {file} are both given{place}: leave one out"
            ));
        }
    }
    values
}

/// What to say about a name that is none. It may be a piece of a secret, such as one that was wrapped, so it is shown only
/// if it resembles a name, or consists of what names consist of.
fn unknown(name: &str, place: &str) -> String {
    let made_of = |plain: fn(char) -> bool| name.len() <= 40 && name.chars().all(plain);
    let likely = made_of(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        .then(|| Parameter::likely(name))
        .flatten();
    match likely {
        Some(key) => format!("unknown parameter {name}{place}: did you mean {key}?"),
        None if made_of(|c| c.is_ascii_lowercase() || c == '_') => {
            let names: Vec<_> = NAMES.iter().map(|(_, name, _)| *name).collect();
            format!(
                "unknown parameter {name}{place}: possible are {}",
                names.join(", ")
            )
        }
        None => format!(
            "an item{place} does not begin with the name of a parameter (values contain no blanks and stand on one line)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_in_the_table_once() {
        for (key, name, others) in NAMES {
            assert_eq!(key.to_string(), name);
            assert_eq!(Parameter::of_name(&name.to_uppercase()), Some(key));
            for other in others {
                assert_eq!(
                    Parameter::of_name(other),
                    None,
                    "{other} is a name of its own"
                );
                assert_eq!(Parameter::likely(other), Some(key), "{other} stands twice");
            }
        }
        // The last variant proves that the table has all of them.
        assert_eq!(NAMES.len(), Parameter::AllowHttp as usize + 1);
    }

    #[test]
    fn what_was_meant_is_found() {
        let table = [
            ("secret_id", Some(Parameter::ApplicationSecret)),
            ("client_secret", Some(Parameter::ApplicationSecret)),
            ("Client_ID", Some(Parameter::ApplicationId)),
            ("tenant", Some(Parameter::TenantId)),
            ("tenent_id", Some(Parameter::TenantId)),
            ("tenant-id", Some(Parameter::TenantId)),
            ("subscription", Some(Parameter::SubscriptionId)),
            ("inclde", Some(Parameter::Include)),
            ("exlcude", Some(Parameter::Exclude)),
            ("vms", Some(Parameter::Vm)),
            ("abort_on_eror", Some(Parameter::AbortOnError)),
            ("banana", None),
            ("x", None),
        ];
        for (name, key) in table {
            assert_eq!(Parameter::likely(name), key, "{name}");
        }
    }

    /// The second line of a secret that was wrapped has a `=` where base64 ends.
    #[test]
    fn a_name_is_shown_only_if_it_looks_like_one() {
        for (name, shown) in [
            ("banana", true),
            ("Tenant-ID", true),
            ("application.secret", true),
            ("ZXhhbXBsZQ", false),
            ("zxhhbxbsz2", false),
            ("p8Q~example-secret_1", false),
            ("hunter2", false),
        ] {
            let said = unknown(name, " in group [g] of f");
            assert_eq!(said.contains(name), shown, "{said}");
        }
    }

    #[test]
    fn values_are_not_printed() {
        let pairs = [("application_secret", "hunter2"), ("vm", "hunter3")]
            .map(|(key, value)| (key.to_owned(), Secret::new(value.to_owned())));
        let values = collect(pairs, "", &mut Findings::default());
        assert_eq!(values.get(Parameter::Vm), Some("hunter3"));
        assert!(!format!("{values:?}").contains("hunter"));
    }
}
