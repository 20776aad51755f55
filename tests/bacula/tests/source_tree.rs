//! What the product is made of: no foreign Azure client, no second TLS stack, `unsafe` at the C interface only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bacula_bench::{plugin, workspace};

#[test]
fn no_azure_sdk_reqwest_or_openssl() -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--edges", "all"])
        .args([
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--offline",
            "--locked",
        ])
        .current_dir(workspace())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        names.contains(&"hyper"),
        "the tree is not the product's:\n{text}"
    );
    let banned: Vec<&&str> = names
        .iter()
        .filter(|name| {
            // The SDK's crates are called azure_… (older generations azure_sdk_… and azure_mgmt_…) and typespec….
            name.starts_with("azure_")
                || name.starts_with("typespec")
                // Not by prefix: `openssl-probe` of rustls-native-certs only knows where certificates lie.
                || ["boring", "boring-sys", "native-tls", "openssl", "openssl-sys", "reqwest"]
                    .contains(*name)
        })
        .collect();
    assert!(banned.is_empty(), "{banned:?}");
    Ok(())
}

#[test]
fn unsafety_stays_in_ffi() -> Result<()> {
    let mut allowed = Vec::new();
    for root in ["src", "arm-specs", "mock-server", "tests/bacula"] {
        for file in rust_files(&workspace().join(root))? {
            let name = file.strip_prefix(workspace())?.to_path_buf();
            if name.starts_with("src/ffi") {
                continue;
            }
            let text = fs::read_to_string(&file)?;
            for keyword in ["{", "fn", "impl", "extern", "trait", "("] {
                // Written in two parts, so that this file does not find itself.
                let pattern = format!("{} {keyword}", "unsafe");
                assert!(!text.contains(&pattern), "{}: {pattern}", name.display());
            }
            if text.contains(concat!("unsafe", "_code")) {
                allowed.push(name);
            }
        }
    }
    // The one place where the lint is lifted: the module declaration of `ffi`.
    assert_eq!(allowed, [PathBuf::from("src/lib.rs")]);
    Ok(())
}

#[test]
fn the_plugin_exports_two_symbols() -> Result<()> {
    let output = Command::new("nm")
        .args(["--dynamic", "--defined-only", "--format=just-symbols"])
        .arg(plugin()?)
        .output()
        .context("run nm")?;
    ensure!(output.status.success(), "nm ended with {}", output.status);
    let mut symbols: Vec<String> = String::from_utf8(output.stdout)?
        .lines()
        .map(str::to_owned)
        .collect();
    symbols.sort();
    assert_eq!(symbols, ["loadPlugin", "unloadPlugin"]);
    Ok(())
}

#[test]
fn every_file_of_tests_is_part_of_the_program() -> Result<()> {
    let tests = workspace().join("tests/bacula/tests");
    let left_out = left_out(&tests, "main.rs")?;
    ensure!(left_out.is_empty(), "no module has {left_out:?}");
    Ok(())
}

#[test]
fn a_file_of_no_module_is_found_in_every_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("known/deep"))?;
    for (name, text) in [
        ("main.rs", "mod alone;\nmod known;\n"),
        ("alone.rs", ""),
        ("known/mod.rs", "//! Text.\n\nmod deep;\nmod used;\n"),
        ("known/used.rs", ""),
        ("known/deep/mod.rs", ""),
    ] {
        fs::write(at(name), text)?;
    }
    assert_eq!(left_out(folder.path(), "main.rs")?, Vec::<PathBuf>::new());
    let lost = ["known/deep/lost.rs", "known/lost.rs", "lost.rs"].map(at);
    for file in &lost {
        fs::write(file, "")?;
    }
    let mut found = left_out(folder.path(), "main.rs")?;
    found.sort();
    assert_eq!(found, lost);
    Ok(())
}

/// What lies below `directory`, and is no module of the file `root` in it, or of a `mod.rs` below.
fn left_out(directory: &Path, root: &str) -> Result<Vec<PathBuf>> {
    let modules = fs::read_to_string(directory.join(root))
        .with_context(|| format!("read {root} in {}", directory.display()))?;
    let is_module = |name: &str| modules.lines().any(|line| line == format!("mod {name};"));
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if path.ends_with(root) {
            continue;
        }
        if !name.is_some_and(is_module) {
            found.push(path);
        } else if path.is_dir() {
            found.extend(left_out(&path, "mod.rs")?);
        }
    }
    Ok(found)
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}
