//! `NamePattern` against Java itself: the same patterns and names go to `java.util.regex`, and no verdict may differ. What
//! Java takes and we refuse must be one of the refusals listed here; what Java refuses, we refuse.
//!
//! Needs a JDK (`make test` installs one); without it the test says that it was skipped. `AZURE_VM_REGEX_SEED` takes
//! another seed for the random part than the usual one, `AZURE_VM_REGEX_ROUNDS` makes it longer.

mod corpus;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::{Write as _, stderr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use azure_vm_fd::config::{NamePattern, PatternError};

/// What we refuse although Java takes it, by how the message begins.
const REFUSALS: [&str; 29] = [
    // Java takes these for something that nobody means.
    "back-reference to a group that does not end before it",
    "quantifier { follows a quantifier",
    "nothing to repeat before {",
    "nothing stands before &&",
    "nothing stands behind &&",
    "put what stands behind && into one pair of brackets",
    "a negation behind && needs brackets",
    "a range ends in [",
    "a range ends in &",
    "a blank or comment stands within a construct",
    // Java versions differ.
    "Java versions differ in a negated class",
    "Java versions differ in \\p{",
    // Not supported.
    "back-references to a group in a look-around",
    "back-references in a look-behind are",
    "back-references with the flag i are",
    "look-arounds and atomic groups in a look-behind are",
    "possessive repetitions, and those of groups, are not supported in a look-behind",
    "a look-behind must not look back without limit, or over more than",
    "characters beyond ASCII with the flags i and u",
    "property \\p{",
    "escape \\X is not supported",
    "escape \\N is not supported",
    "\\b{...} is not supported",
    "\\v before a minus sign",
    "\\c needs an ASCII character",
    "a range ends in a set",
    "there is no such character",
    "what follows (? is neither a group",
    "groups and classes are nested too deeply",
];

/// What one pattern and its names come to.
#[derive(Default)]
struct Tally {
    pairs: usize,
    matched: usize,
    refused_by_both: usize,
    undecided: BTreeMap<&'static str, usize>,
    refused_by_us: BTreeMap<&'static str, usize>,
    differences: Vec<String>,
}

impl Tally {
    fn compare(&mut self, pattern: &str, names: &[String], java: &str) {
        let ours = match NamePattern::new(pattern) {
            Ok(ours) => ours,
            Err(_) if java == "refused" => {
                self.refused_by_both += 1;
                return;
            }
            Err(error) => {
                self.refusal(pattern, &error);
                return;
            }
        };
        if java == "refused" {
            self.differences
                .push(format!("{pattern:?}: Java refuses it, we do not"));
            return;
        }
        assert_eq!(java.len(), names.len(), "{pattern:?}: {java}");
        for (name, verdict) in names.iter().zip(java.chars()) {
            self.pairs += 1;
            match (ours.matches(name), verdict) {
                (Ok(matched), 'y' | 'n') if matched == (verdict == 'y') => {
                    self.matched += usize::from(matched);
                    assert!(!matched || ours.is_found_in(name), "{pattern:?} {name:?}");
                }
                (Ok(_), 't') => *self.undecided.entry("too long for Java").or_default() += 1,
                (Ok(_), verdict) => self
                    .differences
                    .push(format!("{pattern:?} {name:?}: Java says {verdict}")),
                (Err(error), _) => *self.undecided.entry(error.problem).or_default() += 1,
            }
        }
    }

    fn refusal(&mut self, pattern: &str, error: &PatternError) {
        let class = match error {
            PatternError::Refused { problem, .. } => REFUSALS
                .into_iter()
                .find(|class| problem.starts_with(class)),
            PatternError::TooLarge { problem, .. } => Some(*problem),
        };
        match class {
            Some(class) => *self.refused_by_us.entry(class).or_default() += 1,
            None => self
                .differences
                .push(format!("{pattern:?}: Java takes it, we say: {error}")),
        }
    }
}

#[test]
fn verdicts_are_those_of_java() {
    if Command::new("javac").arg("-version").output().is_err() {
        // Not println, which the harness would keep for itself.
        writeln!(
            stderr(),
            "skipped: verdicts_are_those_of_java (no JDK; make test installs one)"
        )
        .expect("write to stderr");
        return;
    }
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("AZURE_VM_REGEX_SEED").unwrap_or(1);
    let rounds = number("AZURE_VM_REGEX_ROUNDS").unwrap_or(4000);
    let mut questions = corpus::systematic();
    questions.extend(corpus::random(seed, rounds));

    let (version, answers) = ask_java(&questions);
    let mut tally = Tally::default();
    for ((pattern, names), java) in questions.iter().zip(&answers) {
        tally.compare(pattern, names, java);
    }
    let mut report = format!(
        "Java {version}, seed {seed}: {} patterns, {} of them refused by both; {} pairs, {} of them match\n",
        questions.len(),
        tally.refused_by_both,
        tally.pairs,
        tally.matched
    );
    for (title, classes) in [
        ("patterns refused by us only", &tally.refused_by_us),
        ("pairs without a verdict", &tally.undecided),
    ] {
        writeln!(report, "{title}:").expect("a String takes everything");
        for (class, count) in classes {
            writeln!(report, "  {count:6} {class}").expect("a String takes everything");
        }
    }
    println!("{report}");
    assert!(
        tally.differences.is_empty(),
        "{report}\n{} differences:\n{}",
        tally.differences.len(),
        tally.differences[..tally.differences.len().min(40)].join("\n")
    );
    assert!(tally.pairs > 10_000 && tally.matched > 2_000, "{report}");
}

/// One virtual machine answers all questions: its version, and a line for each pattern.
fn ask_java(questions: &[(String, Vec<String>)]) -> (String, Vec<String>) {
    let mut lines = String::new();
    for (pattern, names) in questions {
        let words: Vec<_> = std::iter::once(pattern)
            .chain(names)
            .map(|word| hex(word))
            .collect();
        lines.push_str(&words.join(" "));
        lines.push('\n');
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java_regex/Oracle.java");
    let mut java = Command::new("java")
        .args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Xss4m"])
        .arg(source)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start java");
    let mut stdin = java.stdin.take().expect("stdin is piped");
    let writer = thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = java.wait_with_output().expect("wait for java");
    writer.join().expect("join").expect("write to java");
    assert!(output.status.success(), "java ended with {}", output.status);
    let text = String::from_utf8(output.stdout).expect("java answers in ASCII");
    let mut answers = text.lines().map(str::to_owned);
    let version = answers.next().expect("the version comes first");
    let answers: Vec<_> = answers.collect();
    assert_eq!(answers.len(), questions.len());
    (version, answers)
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
