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
    let main = fs::read_to_string(tests.join("main.rs"))?;
    for file in fs::read_dir(&tests)? {
        let path = file?.path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .context("a name")?;
        ensure!(
            name == "main" || main.contains(&format!("\nmod {name};\n")),
            "main.rs does not have {name}"
        );
    }
    Ok(())
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
