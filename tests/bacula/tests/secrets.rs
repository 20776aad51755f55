//! No secret, token or access signature reaches anything that is kept: job log, debug file, catalog, volume.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use bacula_bench::{Bench, Generation, RestoreRequest, on_both_generations};
use mock_server::{DEFAULT_CLIENT_SECRET, Disk, GIB, MIB, Scenario, Vm};

on_both_generations!(nothing_that_is_kept_holds_a_secret);

fn nothing_that_is_kept_holds_a_secret(generation: Generation) -> Result<()> {
    let os = Disk::new("web-os", GIB).pattern(1, 0, 4 * MIB);
    let world = Scenario::new().vm(Vm::new("rg", "web", os));
    let bench = Bench::start(generation, world, "vm=web debug=9")?;
    let backup = bench.full()?;
    bench.cloud.delete_vm("web")?;
    let restore = bench.sandbox.restore(&RestoreRequest {
        jobs: vec![backup.id],
        ..RestoreRequest::default()
    })?;
    ensure!(restore.is_clean(), "the restore failed:\n{}", restore.log);

    let debug_files = contents(&bench.sandbox.file_daemon_directory().join("azure-vm"))?;
    ensure!(
        debug_files
            .iter()
            .any(|(name, text)| name.ends_with(".log") && !text.is_empty()),
        "no debug file was written"
    );
    let mut kept = vec![
        ("log of the backup".to_owned(), backup.log.into_bytes()),
        ("log of the restore".to_owned(), restore.log.into_bytes()),
        (
            "catalog".to_owned(),
            bench.sandbox.catalog_dump()?.into_bytes(),
        ),
    ];
    kept.extend(debug_files);
    kept.extend(contents(&bench.sandbox.volume_directory())?);
    kept.extend(contents(&bench.sandbox.root().join("log"))?);
    for (name, bytes) in &kept {
        for secret in secrets() {
            ensure!(
                !contains(bytes, secret.as_bytes()),
                "{name} holds {secret:?}"
            );
        }
    }
    // What was searched for would be found: the configuration file holds the secret.
    let config = fs::read(bench.cloud.config_file())?;
    ensure!(
        contains(&config, secrets()[0].as_bytes()),
        "the search finds nothing"
    );
    Ok(())
}

/// The client secret in all forms that it travels in, and what every token and SAS of the emulator begins with.
fn secrets() -> Vec<String> {
    let encoded = DEFAULT_CLIENT_SECRET
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
        .replace('&', "%26");
    vec![
        DEFAULT_CLIENT_SECRET.to_owned(),
        encoded.clone(),
        encoded.replace('~', "%7E"),
        "Bearer ey".to_owned(),
        "&sig=".to_owned(),
    ]
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Names and contents of the files below a folder; disk images (larger than 64 MiB) are the guest's business.
fn contents(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            files.extend(contents(&entry.path())?);
        } else if metadata.len() <= 64 * MIB {
            files.push((
                entry.path().to_string_lossy().into_owned(),
                fs::read(entry.path())?,
            ));
        }
    }
    Ok(files)
}
