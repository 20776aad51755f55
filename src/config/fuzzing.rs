//! Fuzz targets of what a user writes.

#![allow(clippy::missing_panics_doc, reason = "a panic is the finding")]

use super::NamePattern;
use super::parameters::{Findings, NAMES, Parameter, Values};
use super::{command, file};
use crate::fuzzing::SECRET;

/// Longest text of all that is said about one input, in bytes.
const MOST_SAID: usize = 64 * 1024;

/// The plugin command.
pub fn plugin_command(data: &[u8]) {
    // The host's text is checked before it gets here.
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (values, said) = read_command(text);
    for line in &said {
        assert!(!line.is_empty());
    }
    assert!(said.iter().map(String::len).sum::<usize>() < MOST_SAID);
    // Each value can be written again.
    for (key, name, _) in NAMES {
        let Some(value) = values.get(key) else {
            continue;
        };
        let again = if value.contains(char::is_whitespace) {
            format!("azure-vm: {name}=\"{value}\"")
        } else {
            format!("azure-vm: {name}={value}")
        };
        assert_eq!(read_command(&again).0.get(key), Some(value), "{again:?}");
    }
    if text.contains(SECRET.trim_end_matches('=')) {
        return;
    }
    // A secret is taken whatever stands before it, and nothing tells it.
    let (values, said) = read_command(&format!("{text} application_secret={SECRET}"));
    assert_eq!(values.get(Parameter::ApplicationSecret), Some(SECRET));
    assert!(!said.concat().contains(SECRET));
    assert!(!format!("{values:?}").contains(SECRET));
    // Nor where it stands by mistake.
    for misplaced in [
        format!("{text} {SECRET}"),
        format!("{text} {SECRET}={SECRET}"),
        format!("azure-vm: {SECRET} {text}"),
    ] {
        assert!(!read_command(&misplaced).1.concat().contains(SECRET));
    }
}

fn read_command(text: &str) -> (Values, Vec<String>) {
    let mut findings = Findings::default();
    let values = command::parse(text, &mut findings);
    match findings.into_warnings() {
        Ok(warnings) => (values, warnings),
        Err(error) => (values, error.problems().to_vec()),
    }
}

/// The configuration file.
pub fn config_file(data: &[u8]) {
    // As it is read from the disk.
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match file::parse(text) {
        Ok(groups) => {
            let mut written = String::new();
            for group in &groups {
                written.push_str(&format!("[{}]\n", group.name));
                for (key, value) in &group.pairs {
                    written.push_str(&format!("{key} = {}\n", value.expose()));
                }
            }
            let again = file::parse(&written).expect("what was read can be read");
            assert_eq!(again.len(), groups.len(), "{written:?}");
            for (one, other) in groups.iter().zip(&again) {
                assert_eq!(one.name, other.name);
                let pairs = |group: &file::Group| {
                    let pairs = group.pairs.iter();
                    pairs
                        .map(|(key, value)| (key.clone(), value.expose().to_owned()))
                        .collect::<Vec<_>>()
                };
                assert_eq!(pairs(one), pairs(other), "{written:?}");
            }
        }
        Err(problem) => {
            let in_line = problem.starts_with("line ") && problem.contains(": ");
            assert!(in_line || problem.starts_with("group ["), "{problem}");
            assert!(problem.len() < text.len() + 200, "{problem}");
        }
    }
    // The name of a group is shown, whatever it is.
    if text.contains(SECRET.trim_end_matches('=')) {
        return;
    }
    // A value stays what it is, whatever stands before it, and nothing tells it.
    let told = |text: &str| match file::parse(text) {
        Ok(groups) => format!("{groups:?}"),
        Err(problem) => problem,
    };
    for text in [
        format!("{text}\n[last]\napplication_secret = {SECRET}\n"),
        format!("{text}\napplication_secret = {SECRET}"),
        format!("{text}\n{SECRET}\n"),
        format!("[a]\n{SECRET}: 1\n{text}"),
    ] {
        assert!(!told(&text).contains(SECRET), "{text:?}");
    }
    if let Ok(groups) = file::parse(&format!("{text}\n[last]\nsecret = {SECRET}\n")) {
        let (_, value) = groups
            .last()
            .and_then(|group| group.pairs.last())
            .expect("the last line");
        assert_eq!(value.expose(), SECRET);
    }
}

/// A regular expression on the first line, names on the others.
pub fn java_regex(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (expression, names) = text.split_once('\n').unwrap_or((&text, "web01"));
    let pattern = match NamePattern::new(expression) {
        Ok(pattern) => pattern,
        Err(error) => {
            let text = error.to_string();
            let problem = text.strip_prefix(&format!("regular expression {expression}: "));
            let problem = problem.expect("names the expression");
            assert!(!problem.is_empty() && problem.len() < 400 + expression.len());
            return;
        }
    };
    assert_eq!(pattern.to_string(), expression);
    let anywhere = NamePattern::new(&pattern.anywhere());
    for name in names
        .split('\n')
        .take(4)
        .map(|name| name.trim_end_matches('\r'))
    {
        // Longer ones are none of Azure.
        let name = &name[..name.floor_char_boundary(64)];
        match pattern.matches(name) {
            Ok(_) => {}
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(expression) && text.contains(name));
            }
        }
        let one_line = !name.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
        if one_line
            && pattern.is_found_in(name)
            && let Ok(anywhere) = &anywhere
        {
            assert_ne!(
                anywhere.matches(name),
                Ok(false),
                "{expression:?} in {name:?}"
            );
        }
    }
}
