//! What the shared object shows to the world.

use std::process::Command;

use crate::library;

fn output(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .arg(library::path())
        .output()
        .unwrap_or_else(|error| panic!("run {tool} (package binutils): {error}"));
    assert!(output.status.success(), "{tool}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn exactly_two_symbols_are_exported() {
    let listing = output("nm", &["-D", "--defined-only"]);
    let mut names: Vec<_> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["loadPlugin", "unloadPlugin"]);
}

/// On SIGTERM the daemon unloads the library under running jobs.
#[test]
fn the_library_stays_mapped() {
    let dynamic = output("readelf", &["--dynamic", "--wide"]);
    let flags = dynamic
        .lines()
        .find(|line| line.contains("(FLAGS_1)"))
        .expect("flags");
    assert!(flags.contains("NODELETE"), "{flags}");
}
