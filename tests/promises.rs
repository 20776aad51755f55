//! The table of promises, `docs/PROMISES.md`: every test that it names exists, its numbers are complete, and each row is a
//! point of its subject. The tests of `docs/SEMANTICS.md` exist, too, and each of its sentences names one.

#![allow(
    clippy::unwrap_used,
    reason = "a panic in a helper of a test is a failed test"
)]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

const PROMISES: &str = "docs/PROMISES.md";

/// Where tests with real daemons are; those without name no generation.
const DAEMON_TESTS: &str = "tests/bacula/tests/";

/// The list of those that run on both generations.
const ON_BOTH: &str = "\non_both_generations!(";

struct Row {
    number: usize,
    tests: Vec<String>,
    daemons: String,
}

#[test]
fn every_promise_names_tests_that_exist() {
    let rows = rows_of(&read(PROMISES));
    assert!(rows.len() > 100, "{} rows", rows.len());
    let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=rows.len()).collect::<Vec<_>>());

    let mut sources = Sources::default();
    for Row {
        number,
        tests,
        daemons,
    } in &rows
    {
        for test in tests {
            sources.assert_has(test, &format!("row {number}"));
        }
        let with_daemons: Vec<_> = tests
            .iter()
            .filter(|test| test.starts_with(DAEMON_TESTS))
            .map(|test| read(test.split("::").next().unwrap()))
            .filter(|source| source.contains("Generation"))
            .map(|source| source.contains(ON_BOTH))
            .collect();
        let allowed: &[&str] = match (with_daemons.is_empty(), with_daemons.contains(&true)) {
            (true, _) => &[""],
            (false, true) => &["9.6, 15"],
            (false, false) => &["9.6", "15", "9.6, 15"],
        };
        assert!(
            allowed.contains(&daemons.as_str()),
            "row {number}: daemons {daemons:?}, not one of {allowed:?}"
        );
    }
    let without: Vec<_> = rows.iter().filter(|row| row.daemons.is_empty()).collect();
    let without: Vec<_> = without.iter().map(|row| row.number).collect();
    assert_eq!(
        excused(),
        without,
        "the introduction says why a row has no daemons"
    );
}

/// A point without a row, and a row that is no point, would be a gap that nobody sees.
#[test]
fn every_subject_is_covered_point_by_point() {
    let text = read(PROMISES);
    let last = rows_of(&text).len();
    for section in text.split("\n## ").skip(1) {
        let (title, rest) = section.split_once("\n\n").unwrap();
        let (points, table) = rest.split_once("\n\n").unwrap();
        let points = points.strip_prefix("Covers: ");
        let points = points.unwrap_or_else(|| panic!("{title}: what does it cover?"));
        let mut named = HashSet::new();
        for point in points.split(';') {
            let keepers: Vec<_> = point
                .split('(')
                .skip(1)
                .flat_map(|part| part.split(')').next().unwrap().split(','))
                .map(str::trim)
                .collect();
            assert!(!keepers.is_empty(), "{title}: no row for: {point}");
            for keeper in keepers {
                if let Ok(number) = keeper.parse() {
                    assert!((1..=last).contains(&number), "{title}: {point}");
                    named.insert(number);
                } else {
                    read(keeper);
                }
            }
        }
        for Row { number, .. } in rows_of(table) {
            assert!(named.contains(&number), "{title}: row {number} is no point");
        }
    }
}

#[test]
fn every_sentence_on_faults_names_tests_that_exist() {
    let text = read("docs/SEMANTICS.md");
    let mut sources = Sources::default();
    let (_, sections) = text.split_once("\n## ").unwrap();
    let mut count = 0;
    for section in sections.split("\n## ") {
        let (title, items) = section.split_once("\n\n").unwrap();
        let (before, items) = items.split_once("- ").unwrap();
        assert_eq!(before, "", "{title}: a sentence that is no list item");
        for item in items.split("\n- ") {
            let tests: Vec<_> = quoted(item).filter(|word| word.contains("::")).collect();
            assert!(!tests.is_empty(), "{title}: no test for: {item}");
            for test in tests {
                sources.assert_has(test, title);
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count} sentences");
}

/// A test that only seems to be one is not found.
#[test]
fn functions_are_not_tests() {
    let names = tests_of(
        "#[test]\nfn one() {}\n\n    #[tokio::test(start_paused = true)]\n    async fn two() {}\n\n\
         #[test]\n#[ignore = \"slow\"]\nfn three() {}\n\nfn helper() {}\n// #[test]\nfn four() {}\n\non_both_generations!(\n    five,\n    six\n);\n",
    );
    let known = ["one", "two", "three", "five", "six"];
    assert_eq!(names, known.map(str::to_owned).into());
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows_of(table: &str) -> Vec<Row> {
    let cells = table.lines().filter_map(|line| {
        let cells: Vec<_> = line
            .strip_prefix("| ")?
            .split(" |")
            .map(str::trim)
            .collect();
        Some((cells[0].parse().ok()?, line, cells))
    });
    cells
        .map(|(number, line, cells)| {
            let &[_, promise, tests, daemons, ""] = cells.as_slice() else {
                panic!("row {number} has not four cells: {line}");
            };
            assert!(!promise.is_empty(), "row {number}");
            let names: Vec<_> = quoted(tests).map(str::to_owned).collect();
            assert!(!names.is_empty(), "row {number} names no test");
            Row {
                number,
                tests: names,
                daemons: daemons.to_owned(),
            }
        })
        .collect()
}

/// The rows for which the introduction says why they have no test with daemons: the numbers that its list items begin
/// with.
fn excused() -> Vec<usize> {
    let table = read(PROMISES);
    let introduction = table.split("\n## ").next().unwrap();
    let items = introduction
        .lines()
        .filter_map(|line| line.strip_prefix("- "));
    let mut numbers: Vec<_> = items
        .flat_map(|item| {
            let words = item.split([' ', ':']).filter(|word| *word != "and");
            words.map_while(|word| word.parse().ok())
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The tests of files, read once.
#[derive(Default)]
struct Sources(HashMap<String, HashSet<String>>);

impl Sources {
    /// `test` is `file::name`.
    fn assert_has(&mut self, test: &str, place: &str) {
        let (file, name) = test
            .split_once("::")
            .unwrap_or_else(|| panic!("{place}: {test} is no file::name"));
        let known = self.0.entry(file.to_owned());
        let known = known.or_insert_with(|| tests_of(&read(file)));
        assert!(known.contains(name), "{place}: {file} has no test {name}");
    }
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn read(file: &str) -> String {
    let path = root().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The functions that stand right behind an attribute that makes them tests, or in a list that does.
fn tests_of(source: &str) -> HashSet<String> {
    let mut names: HashSet<_> = source
        .split(ON_BOTH)
        .skip(1)
        .flat_map(|list| list.split(')').next().unwrap().split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(name) = line
            .strip_prefix("async ")
            .unwrap_or(line)
            .strip_prefix("fn ")
        {
            let name = name.split(['(', '<']).next().unwrap();
            if std::mem::take(&mut is_test) {
                names.insert(name.to_owned());
            }
        } else if !(line.is_empty()
            || line.starts_with("#[")
            || line.starts_with("//")
            || line.ends_with(")]"))
        {
            is_test = false;
        }
    }
    names
}
