//! The bench itself: private daemons save and restore ordinary files.

use std::fs;

use anyhow::Result;
use bacula_bench::{
    Generation, JobDefinition, RestoreRequest, Sandbox, SandboxConfig, on_both_generations,
};

on_both_generations!(ordinary_files_make_the_round_trip);

fn ordinary_files_make_the_round_trip(generation: Generation) -> Result<()> {
    let source = tempfile::tempdir()?;
    let file = source.path().join("file");
    fs::write(&file, "content")?;
    let mut sandbox = Sandbox::start(&SandboxConfig {
        generation,
        jobs: vec![JobDefinition::files("files", source.path())],
        ..SandboxConfig::default()
    })?;

    let backup = sandbox.backup("files", "Full")?;
    assert!(backup.is_clean(), "{backup:#?}");
    let name = file.to_string_lossy().into_owned();
    assert!(sandbox.files(backup.id)?.contains(&name));

    let restore = sandbox.restore(&RestoreRequest {
        jobs: vec![backup.id],
        ..RestoreRequest::default()
    })?;
    assert!(restore.is_clean(), "{restore:#?}");
    let restored = sandbox.root().join("restored").join(&name[1..]);
    assert_eq!(fs::read_to_string(restored)?, "content");

    let target = tempfile::tempdir()?;
    let volume = sandbox.volume(backup.id)?;
    let extracted = sandbox.bextract(&volume, &name, target.path())?;
    assert_eq!(fs::read_to_string(extracted)?, "content");
    Ok(())
}
