//! The configuration file: groups of `key = value` lines.
//!
//! The ini parser is run without quotes and escapes. It is more generous than the rules of this file all the same (`:`
//! separates too, a backslash at the end of a line swallows the line's end, a line without `=` swallows the next one), so
//! every line is checked for its form first, and lines that it would read differently are written so that it cannot.

use std::path::Path;

use ini::{Ini, ParseOption};
use zeroize::Zeroizing;

use super::Error;
use super::private_file::{self, PrivateText};
use crate::secret::Secret;

/// More than this is no configuration file of ours.
const LARGEST_FILE: u64 = 1024 * 1024;

/// A parsed configuration file.
#[derive(Debug)]
pub(super) struct ConfigFile {
    groups: Vec<Group>,
    /// Everybody on this host may read it.
    pub(super) world_readable: bool,
}

/// One complete set of parameters.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    /// In file order, names as written.
    pub(super) pairs: Vec<(String, Secret)>,
}

impl ConfigFile {
    /// The group of that name or, without a name, the first; `None` if there is none.
    pub(super) fn into_group(self, name: Option<&str>) -> Option<Group> {
        self.groups
            .into_iter()
            .find(|group| name.is_none_or(|name| group.name == name))
    }

    pub(super) fn group_names(&self) -> Vec<String> {
        self.groups.iter().map(|group| group.name.clone()).collect()
    }
}

/// Reads a configuration file; `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<ConfigFile>, Error> {
    let failed = |reason: String| {
        Error::from(format!(
            "read configuration file {}: {reason}",
            path.display()
        ))
    };
    let Some(PrivateText {
        text,
        world_readable,
    }) = private_file::read(path, LARGEST_FILE).map_err(failed)?
    else {
        return Ok(None);
    };
    let groups = parse(&text).map_err(failed)?;
    Ok(Some(ConfigFile {
        groups,
        world_readable,
    }))
}

/// The groups of a text; the error is what is wrong and in which line, without the line's content.
pub(super) fn parse(text: &str) -> Result<Vec<Group>, String> {
    let text = normalize(text)?;
    let option = ParseOption {
        enabled_quote: false,
        enabled_escape: false,
        enabled_indented_mutiline_value: false,
        enabled_preserve_key_leading_whitespace: false,
    };
    let mut ini = Ini::load_from_str_opt(&text, option)
        .map_err(|error| format!("line {}: {}", error.line, error.msg))?;
    let mut groups: Vec<Group> = Vec::new();
    for (name, properties) in ini.iter_mut() {
        // Lines before the first group were refused; this is the parser's own empty group.
        let Some(name) = name else { continue };
        if groups.iter().any(|group| group.name == name) {
            return Err(format!("group [{name}] stands more than once"));
        }
        // Taken and not copied, so that it is wiped.
        let pair = |(key, value): (&str, &mut String)| {
            let value = Secret::new(std::mem::take(value));
            (key.to_owned(), value)
        };
        groups.push(Group {
            name: name.to_owned(),
            pairs: properties.iter_mut().map(pair).collect(),
        });
    }
    Ok(groups)
}

/// Checks the form of every line and leaves only what the parser reads as we do, at the same line numbers.
fn normalize(text: &str) -> Result<Zeroizing<String>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Each line grows by no more than two characters.
    let mut normal = Zeroizing::new(String::with_capacity(text.len() * 3 + 2));
    let mut in_group = false;
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line).trim();
        let wrong = |what: &str| Err(format!("line {number}: {what}"));
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return wrong("control character");
        }
        if line.is_empty() || line.starts_with([';', '#']) {
            // Nothing to keep but the line's number.
        } else if let Some(name) = line.strip_prefix('[') {
            let Some(name) = name.strip_suffix(']') else {
                return wrong("a group is written as [name], with nothing behind it");
            };
            if name.trim().is_empty() || name.contains(['[', ']', '\\']) {
                return wrong("the name of a group is empty or contains a bracket or backslash");
            }
            in_group = true;
            normal.push_str(line);
        } else {
            let Some((key, value)) = line.split_once('=') else {
                return wrong("expected key = value, [group], or a comment");
            };
            let (key, value) = (key.trim_end(), value.trim_start());
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if key.is_empty() || !key.chars().all(plain) {
                return wrong("what stands before the = is not the name of a parameter");
            }
            if !in_group {
                return wrong("stands before the first [group]");
            }
            normal.push_str(key);
            normal.push('=');
            normal.push_str(value);
            if value.ends_with('\\') {
                // The parser drops the blank again, and does not join the next line.
                normal.push(' ');
            }
        }
        normal.push('\n');
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn flat(text: &str) -> Vec<(String, String, String)> {
        let triple = |group: &Group| {
            let pairs = group
                .pairs
                .iter()
                .map(|(key, value)| (group.name.clone(), key.clone(), value.expose().to_owned()));
            pairs.collect::<Vec<_>>()
        };
        let groups = parse(text).expect(text);
        groups.iter().flat_map(triple).collect()
    }

    fn value(line: &str) -> String {
        let text = format!("[g]\n{line}\nlast = 1\n");
        match flat(&text).as_slice() {
            [(_, key, value), (_, last, one)] => {
                assert_eq!(
                    (key.as_str(), last.as_str(), one.as_str()),
                    ("k", "last", "1")
                );
                value.clone()
            }
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn groups_keep_their_order_and_pairs() {
        let text =
            "\u{feff}; comment\r\n[b]\r\nx = 1\r\n\r\n  # comment\r\n[ a ]\r\n Y=2\r\nx=3\r\nx=4";
        let want = [
            ("b", "x", "1"),
            ("a", "Y", "2"),
            ("a", "x", "3"),
            ("a", "x", "4"),
        ]
        .map(|(group, key, value)| (group.to_owned(), key.to_owned(), value.to_owned()));
        assert_eq!(flat(text), want);
        assert_eq!(flat(""), []);
        assert_eq!(parse("[a]\n[b]").unwrap().len(), 2);
    }

    #[test]
    fn values_are_taken_as_they_are() {
        let table = [
            (
                "k = DefaultEndpointsProtocol=https;AccountKey=Zg==;EndpointSuffix=x",
                "DefaultEndpointsProtocol=https;AccountKey=Zg==;EndpointSuffix=x",
            ),
            ("k=a#b;c : d", "a#b;c : d"),
            ("k = # no comment", "# no comment"),
            ("k = ; no comment", "; no comment"),
            ("k =  'quoted'", "'quoted'"),
            ("k = \"half", "\"half"),
            (r"k = C:\new\table", r"C:\new\table"),
            (r"k = ends with \", r"ends with \"),
            (r"k = ends with \\", r"ends with \\"),
            (r"k = (.*)\.old\d+$", r"(.*)\.old\d+$"),
            ("k = =x", "=x"),
            ("k == x", "= x"),
            ("k =", ""),
            ("  k\t=\tv \t", "v"),
            ("k = [v]", "[v]"),
            ("k = http://127.0.0.1:80/", "http://127.0.0.1:80/"),
        ];
        for (line, want) in table {
            assert_eq!(value(line), want, "{line}");
            assert_eq!(value(&format!("{line}\r")), want, "{line} with CRLF");
        }
    }

    #[test]
    fn malformed_lines_are_refused_by_number_without_their_content() {
        let table = [
            ("[g]\nhunter2", 2),
            ("hunter2 = 1\n[g]", 1),
            ("[g]\nhunter2: 1", 2),
            ("[g]\n\n[hunter2", 3),
            ("[g] hunter2", 1),
            ("[]", 1),
            ("[g]\nkey: hunter2 = 1", 2),
            ("[g]\n = hunter2", 2),
            ("[g]\nk = hunter2\0", 2),
            ("[g]\nk = a\rhunter2", 2),
        ];
        for (text, line) in table {
            let error = parse(text).expect_err(text);
            assert!(
                error.starts_with(&format!("line {line}: ")),
                "{text:?}: {error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(
            parse("[g]\n[h]\n[g]").unwrap_err(),
            "group [g] stands more than once"
        );
    }

    #[test]
    fn only_a_missing_file_is_no_file() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("azure-vm.conf");
        assert!(read(&path).unwrap().is_none());
        assert!(
            read(dir.path())
                .unwrap_err()
                .to_string()
                .ends_with("it is not a regular file")
        );
        fs::write(&path, b"[g]\nk = \xff").unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .ends_with("it is not UTF-8 text")
        );
        fs::write(&path, vec![b'\n'; 1024 * 1024 + 1]).unwrap();
        assert!(read(&path).is_err());
        fs::write(&path, "[g]\nk = v").unwrap();
        assert!(read(&path).unwrap().is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_printable_value_survives(text in "[!-~]([ -~]{0,40}[!-~])?") {
            prop_assert_eq!(value(&format!("k = {text}")), text.clone());
            prop_assert_eq!(value(&format!("k={text}\t\r")), text);
        }
    }
}
