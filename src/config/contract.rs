//! The contract on where values come from, over any split of any parameters between Plugin line and configuration file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{Error, Settings};
use crate::secret::Secret;

/// Parameters whose values are free text.
const TEXTS: [&str; 7] = [
    "tenant_id",
    "subscription_id",
    "application_id",
    "application_secret",
    "vm",
    "resource_group",
    "ca_file",
];
/// The others, with values that are valid.
const CHOICES: [(&str, &[&str]); 12] = [
    (
        "connection_key",
        &[
            "DefaultEndpointsProtocol=https;AccountName=prodstage;AccountKey=ZXhhbXBsZQ==;EndpointSuffix=core.windows.net",
            "BlobEndpoint=https://a.example/b;SharedAccessSignature=sv=1&sig=x%3D",
        ],
    ),
    ("abort_on_error", &["0", "1"]),
    ("debug", &["0", "3", "9"]),
    ("include", &["(.*)web(.*)", "a=b", r"\Qa;#\E", "(?!x).*"]),
    ("exclude", &["^old(.*)", "[a-z&&[^b]]+", "\"?"]),
    ("new_hostname", &["ledger-02", "a.b_c"]),
    ("fallback", &["yes", "no"]),
    ("verify", &["yes", "no"]),
    ("memory", &["4M", "1G"]),
    ("concurrency", &["1", "64"]),
    ("cloud", &["AzureCloud", "AzureChinaCloud"]),
    ("transfer", &["direct"]),
];

/// A parameter with what stands in the Plugin line and in the file.
#[derive(Clone, Debug)]
struct Given {
    name: &'static str,
    line: Option<String>,
    file: Option<String>,
}

/// What a secret may look like: anything that can be printed, blanks within.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[!-~]([ -~]{0,24}[!-~])?",
        "[~#'\"\\\\;=,äß😀]{1,8}",
        "[a-z]{1,8}",
    ]
}

fn value(index: usize) -> BoxedStrategy<String> {
    match CHOICES.get(index.wrapping_sub(TEXTS.len())) {
        Some((_, values)) => proptest::sample::select(*values)
            .prop_map(str::to_owned)
            .boxed(),
        None => text().boxed(),
    }
}

/// Any parameters; those that are mandatory in at least one place.
fn everything() -> impl Strategy<Value = Vec<Given>> {
    let one = |index: usize| {
        let name = match CHOICES.get(index.wrapping_sub(TEXTS.len())) {
            Some((name, _)) => name,
            None => TEXTS[index],
        };
        (value(index), value(index), 0..4_u8).prop_map(move |(line, file, places)| {
            let mandatory = index < 4 && places == 0;
            // What the line cannot hold stands in the file.
            let fits = in_line(name, &line).is_some();
            Given {
                name,
                file: (places & 1 != 0 || mandatory || places != 0 && !fits).then_some(file),
                line: (places & 2 != 0 && fits).then_some(line),
            }
        })
    };
    (0..TEXTS.len() + CHOICES.len())
        .map(one)
        .collect::<Vec<_>>()
        .prop_shuffle()
}

/// An item of the Plugin line, as the documentation says to write it; `None` if the value belongs into the file.
fn in_line(name: &str, value: &str) -> Option<String> {
    if value.contains(char::is_whitespace) {
        (!value.contains('"')).then(|| format!("{name}=\"{value}\""))
    } else {
        (!value.starts_with('"')).then(|| format!("{name}={value}"))
    }
}

fn written(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("azure-vm.conf");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Everything that settings say, but for warnings.
fn told(settings: Settings) -> String {
    let secret = settings.azure.application_secret.expose().to_owned();
    let silent = Settings {
        warnings: Vec::new(),
        ..settings
    };
    format!("{secret} {silent:?}")
}

/// Settings of these values alone.
fn directly<'a>(values: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Settings, Error> {
    let pairs = values.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned())));
    Settings::from_pairs(pairs, Path::new("/nonexistent/azure-vm.conf"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_line_beats_the_group_key_by_key(
        given in everything(),
        group in "[A-Za-z0-9._#;=-]([A-Za-z0-9 ._#;=-]{0,8}[A-Za-z0-9._#;=-])?",
        first in any::<bool>(),
        windows in any::<bool>(),
        blanks in vec(prop::sample::select(vec!["", " ", "\t", "  "]), 8),
    ) {
        let dir = TempDir::new().unwrap();
        let end = if windows { "\r\n" } else { "\n" };
        let blank = |at: usize| blanks[at % blanks.len()];
        let mut file = format!("; first{end}");
        let other = format!("[other]{end}tenant_id = wrong{end}debug = 7{end}");
        if !first {
            file.push_str(&other);
        }
        file.push_str(&format!("[{group}]{end}"));
        let mut line = "azure-vm:".to_owned();
        for (at, Given { name, line: in_the_line, file: in_the_file }) in given.iter().enumerate() {
            if let Some(value) = in_the_file {
                let name = if at % 2 == 0 { name.to_uppercase() } else { (*name).to_owned() };
                file.push_str(&format!(
                    "{}{name}{}={}{value}{}{end}", blank(at), blank(at + 1), blank(at + 2), blank(at + 3)
                ));
            }
            if let Some(value) = in_the_line {
                line.push_str(&format!(" {}{}", blank(at), in_line(name, value).unwrap()));
            }
        }
        if first {
            file.push_str(&other);
        } else {
            line.push_str(&format!(" group=\"{group}\""));
        }
        let path = written(&dir, &file);
        let settings = Settings::from_command(&line, &path);
        let values = given.iter().filter_map(|given| {
            given.line.as_ref().or(given.file.as_ref()).map(|value| (given.name, value.as_str()))
        });
        let want = directly(values).expect("valid values");
        prop_assert_eq!(told(settings.unwrap_or_else(|error| panic!("{error}\n{line}\n{file}"))), told(want));
    }
}

#[test]
fn a_secret_file_takes_the_place_of_its_secret_on_its_level() {
    let dir = TempDir::new().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "from-file\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.display();
    let ids = "tenant_id=t\nsubscription_id=s\napplication_id=a\n";
    let settings = |in_line: &str, in_file: &str| {
        let path = written(&dir, &format!("[g]\n{ids}{in_file}\n"));
        Settings::from_command(&format!("azure-vm: {in_line}"), &path)
    };
    let from_file = format!("application_secret_file={secret}");
    let missing = "application_secret_file=/nonexistent/secret";
    for (in_line, in_file, want) in [
        (from_file.as_str(), "", "from-file"),
        ("", from_file.as_str(), "from-file"),
        (from_file.as_str(), "application_secret=direct", "from-file"),
        ("application_secret=direct", from_file.as_str(), "direct"),
        // What is beaten is not even read.
        ("application_secret=direct", missing, "direct"),
        (from_file.as_str(), missing, "from-file"),
    ] {
        let settings = settings(in_line, in_file).unwrap();
        assert_eq!(settings.azure.application_secret.expose(), want);
        let warned = settings.warnings.join("\n");
        assert_eq!(
            warned.contains("stands in the Plugin line"),
            want == "direct",
            "{warned}"
        );
    }
    let both = format!("{from_file} application_secret=direct");
    assert_eq!(
        settings(&both, "").unwrap_err().problems(),
        ["application_secret and application_secret_file are both given: leave one out"]
    );
    assert_eq!(
        settings(missing, "").unwrap_err().problems(),
        ["parameter application_secret_file: read /nonexistent/secret: there is no such file"]
    );
    // The content of a key file is checked like a key, and never shown.
    let key = format!("connection_key_file={secret}");
    let error = settings("application_secret=x", &key)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("parameter connection_key: ") && !error.contains("from-file"),
        "{error}"
    );

    fs::set_permissions(dir.path().join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = settings(&from_file, "").unwrap().warnings;
    assert!(
        warnings[0].contains("secret of application_secret_file is readable by everybody"),
        "{warnings:?}"
    );
}
