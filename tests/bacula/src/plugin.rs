//! Where the plugin under test is.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::workspace;

/// The plugin's shared object, built if it is not up to date; `AZURE_VM_FD_PLUGIN` names another one.
///
/// # Errors
///
/// It does not build.
pub fn plugin() -> Result<PathBuf> {
    if let Some(path) = env::var_os("AZURE_VM_FD_PLUGIN") {
        return Ok(path.into());
    }
    // Cargo says where the file is, whatever target directory or profile is configured.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--lib", "-p", "azure-vm-fd"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    ensure!(
        output.status.success(),
        "build the plugin: cargo ended with {}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            message.pointer("/target/name").and_then(Value::as_str) == Some("azure_vm_fd")
        })
        .filter_map(|message| {
            let files = message.get("filenames")?.as_array()?.iter();
            files
                .filter_map(Value::as_str)
                .find(|name| name.ends_with(".so"))
                .map(PathBuf::from)
        })
        .next_back()
        .context("build the plugin: cargo named no shared object")
}
