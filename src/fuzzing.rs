//! What is fuzzed: one function per format that comes from outside. Each takes any bytes and panics if a promise of the reader
//! does not hold; that it returns at all is one of them.
//!
//! `fuzz/` runs them under libFuzzer (`make fuzz`); the test below runs each on its corpus and on mutations of it. Nothing of
//! this is in a shipped object: it is there in tests and with the feature `fuzzing` only.

#![allow(clippy::missing_panics_doc, reason = "a panic is the finding")]

pub use crate::azure::fuzzing::{arm_answer, connection_string, page_list};
pub use crate::backup::fuzzing::tracker_file;
pub use crate::config::fuzzing::{config_file, java_regex, plugin_command};
pub use crate::ffi::fuzzing::host_packets;
pub use crate::restore::fuzzing::conf_document;

use std::time::{Duration, UNIX_EPOCH};

use uuid::Uuid;

use crate::vhd::{fixed_footer, parse_fixed_footer};

/// Stands where a secret is, or where one may have been put by mistake; base64, so that it passes for a key.
pub(crate) const SECRET: &str = "c2VjcmV0LW9mLWEtZnV6emVyLTAwMDE=";

/// The footer of an exported image.
pub fn vhd_footer(data: &[u8]) {
    let mut footer = [0; 512];
    let len = data.len().min(512);
    footer[..len].copy_from_slice(&data[..len]);
    let read = parse_fixed_footer(&footer);
    if len < 8 {
        assert!(read.is_err(), "a cookie is missing");
    }
    let Ok(size) = read else { return };
    // One byte more or less is noticed.
    for at in 0..512 {
        let mut damaged = footer;
        damaged[at] = damaged[at].wrapping_add(1);
        assert_ne!(parse_fixed_footer(&damaged), Ok(size), "byte {at}");
    }
    let ours = fixed_footer(size, Uuid::nil(), UNIX_EPOCH + Duration::from_secs(1 << 30));
    assert_eq!(parse_fixed_footer(&ours), Ok(size));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use fastrand::Rng;

    use super::*;

    /// Its name, its body, and how many mutations are tried.
    type Target = (&'static str, fn(&[u8]), usize);

    const TARGETS: [Target; 10] = [
        ("plugin_command", plugin_command, 400),
        ("config_file", config_file, 400),
        ("connection_string", connection_string, 400),
        ("java_regex", java_regex, 150),
        ("page_list", page_list, 400),
        ("arm_answer", arm_answer, 200),
        ("conf_document", conf_document, 300),
        ("tracker_file", tracker_file, 300),
        ("host_packets", host_packets, 400),
        ("vhd_footer", vhd_footer, 200),
    ];
    /// Longest mutation, in bytes.
    const LONGEST: usize = 16 * 1024;

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let mut paths: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    /// One to four changes such as line noise, a bad editor or an attacker make.
    fn mutation(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut data = corpus[rng.usize(..corpus.len())].clone();
        for _ in 0..rng.usize(1..5) {
            let at = rng.usize(..=data.len());
            let end = (at + rng.usize(..40)).min(data.len());
            match rng.u8(..8) {
                0 if at < data.len() => data[at] ^= 1 << rng.u8(..8),
                1 if at < data.len() => data[at] = rng.u8(..),
                2 => data.truncate(at),
                3 => drop(data.drain(at..end)),
                4 => {
                    let piece = data[at..end].to_vec();
                    data.splice(at..at, piece);
                }
                5 => {
                    let piece = data[at..end].repeat(rng.usize(1..200));
                    data.splice(at..at, piece);
                }
                6 => {
                    let other = &corpus[rng.usize(..corpus.len())];
                    data.truncate(at);
                    data.extend_from_slice(&other[rng.usize(..=other.len())..]);
                }
                _ => data.insert(
                    at,
                    *rng.choice(b"\0\n\r\t \"'\\=;:<>&/[]{}()9-.%\xff").unwrap(),
                ),
            }
            data.truncate(LONGEST);
        }
        data
    }

    /// A finding prints its target and its bytes: put them into the corpus.
    #[test]
    fn no_input_breaks_a_promise_of_its_reader() {
        let mut findings = Vec::new();
        for (target, run, mutations) in TARGETS {
            let corpus = corpus(target);
            assert!(
                (10..=60).contains(&corpus.len()),
                "{target} has {} seeds",
                corpus.len()
            );
            let mut rng = Rng::with_seed(7);
            let mutations: Vec<_> = (0..mutations)
                .map(|_| mutation(&mut rng, &corpus))
                .collect();
            for data in corpus.iter().chain(&mutations) {
                if std::panic::catch_unwind(|| run(data)).is_err() {
                    findings.push(format!("{target}: b\"{}\"", data.escape_ascii()));
                    break;
                }
            }
        }
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn every_target_is_fuzzed_with_its_corpus() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let names = |path: &str, end: &str| {
            let entries = fs::read_dir(folder.join(path)).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .map(|name| name.trim_end_matches(end).to_owned())
                .collect();
            names.sort();
            names
        };
        let mut targets: Vec<_> = TARGETS
            .iter()
            .map(|(name, ..)| (*name).to_owned())
            .collect();
        targets.sort();
        assert_eq!(names("corpus", ""), targets);
        assert_eq!(names("targets", ".rs"), targets);
    }
}
