//! Programs of other packages: `sfdisk`, `mke2fs`, `qemu-img`, …

use std::env;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// A command whose program is also looked for in the administrator's folders, which an ordinary user's `PATH` lacks.
pub(crate) fn tool(name: &str) -> Command {
    let mut path = env::var("PATH").unwrap_or_default();
    path.push_str(":/usr/sbin:/sbin");
    let mut command = Command::new(name);
    command.env("PATH", path);
    command
}

/// Runs a command to its end and returns what it printed on both outputs.
///
/// # Errors
///
/// It cannot be started or does not end well; with what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("run {name}; is it installed? `make deps` does it"))?;
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "{name} ended with {status}: {text}");
    Ok(text)
}
