//! The committed output is what the generator writes today, and the README lists what it is written from.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use arm_specs::document::Document;

#[test]
fn output_is_current() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = package.join("../src/azure/generated");
    let files = arm_specs::generate(&package.join("specs")).unwrap();
    for file in &files {
        let committed = fs::read_to_string(folder.join(&file.name)).unwrap_or_default();
        assert!(
            committed == file.content,
            "{} is not what arm-specs writes: run `cargo run -p arm-specs`",
            file.name
        );
    }
    let expected: BTreeSet<_> = files.into_iter().map(|file| file.name).collect();
    let present: BTreeSet<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(present, expected, "a file that no document stands for");
}

#[test]
fn the_readme_lists_every_document() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(package.join("README.md")).unwrap();
    for entry in package.join("specs").read_dir().unwrap() {
        let document = Document::read(&entry.unwrap().path()).unwrap();
        let (module, info) = (&document.module, &document.content.info);
        let start = format!("| `{module}.json` | `{module}` | {} |", info.version);
        let end = format!("| {} |", info.checked);
        assert!(
            readme
                .lines()
                .any(|line| line.starts_with(&start) && line.ends_with(&end)),
            "README.md has no row {start} ... {end}"
        );
    }
}
