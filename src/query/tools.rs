//! Which versions of Azure CLI and AzCopy this host has. They are asked, never used.
//!
//! A tool is a foreign program on the host of a File Daemon: it gets a few harmless variables and none of the
//! environment's secrets, a process group of its own, a folder for what it wants to write, a limit of time and a limit of
//! output; and whatever it started ends with the question.

use std::ffi::OsStr;
use std::io;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::process_group::ProcessGroup;

/// `az` is a large Python program: seconds on a slow host.
const LIMIT: Duration = Duration::from_secs(30);

/// Far more than a list of versions has.
const MAX_OUTPUT_BYTES: u64 = 64 * 1024;

const NOT_INSTALLED: &str = "not installed";

/// The keys of an answer and their values; `path` is where the tools are looked for.
pub(super) async fn versions(path: &OsStr) -> [(&'static str, String); 4] {
    let (az, azcopy) = tokio::join!(
        output("az", &["version", "--output", "json"], path),
        output("azcopy", &["--version"], path),
    );
    let [cli, core, telemetry] = ["azure-cli", "azure-cli-core", "azure-cli-telemetry"]
        .map(|key| (key, value(&az, |text| member(text, key))));
    [
        cli,
        core,
        telemetry,
        ("azcopy", value(&azcopy, azcopy_version)),
    ]
}

/// What a tool said; `None` if there is no such tool; or why it said nothing.
type Output = Result<Option<String>, String>;

fn value(output: &Output, version: impl Fn(&str) -> Option<String>) -> String {
    match output {
        Ok(None) => NOT_INSTALLED.to_owned(),
        Ok(Some(text)) => version(text).unwrap_or_else(|| "unknown: not understood".to_owned()),
        Err(reason) => format!("unknown: {reason}"),
    }
}

/// A version of the JSON that `az version` prints.
fn member(text: &str, key: &str) -> Option<String> {
    let versions: Value = serde_json::from_str(text).ok()?;
    word(versions[key].as_str()?)
}

/// `azcopy version 10.24.0`, perhaps among advertisements of a newer one.
fn azcopy_version(text: &str) -> Option<String> {
    text.lines()
        .find_map(|line| word(line.trim().strip_prefix("azcopy version ")?))
}

fn word(text: &str) -> Option<String> {
    text.split_whitespace().next().map(str::to_owned)
}

async fn output(program: &str, args: &[&str], path: &OsStr) -> Output {
    let failed = |error: io::Error| format!("{program}: {error}");
    let scratch = tempfile::tempdir().map_err(failed)?;
    let mut group = match start(program, args, path, &scratch) {
        Ok(group) => group,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match timeout(LIMIT, group.output(MAX_OUTPUT_BYTES)).await {
        Ok(Ok(bytes)) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Ok(Err(error)) => Err(failed(error)),
        Err(_elapsed) => Err(format!("{program}: no answer in {} s", LIMIT.as_secs())),
    }
}

fn start(
    program: &str,
    args: &[&str],
    path: &OsStr,
    scratch: &TempDir,
) -> io::Result<ProcessGroup> {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8")
        .env("AZURE_CORE_COLLECT_TELEMETRY", "no");
    // Python finds what was installed for its user there.
    if let Some(home) = std::env::var_os("HOME") {
        command.env("HOME", home);
    }
    for variable in [
        "AZURE_CONFIG_DIR",
        "AZCOPY_LOG_LOCATION",
        "AZCOPY_JOB_PLAN_LOCATION",
    ] {
        command.env(variable, scratch.path());
    }
    ProcessGroup::start(command.current_dir("/"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A folder with these programs, and the path on which they are found.
    fn tools(scripts: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in scripts {
            let file = folder.path().join(name);
            // By another process: a program that is open for writing cannot be run, and a child that a test beside this one starts
            // just then has for a moment what is open here.
            let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
            let mut writer = Command::new("/bin/sh");
            writer.args(["-c", write]).arg(&file).arg(script);
            assert!(writer.status().unwrap().success());
        }
        folder
    }

    async fn answered(folder: &TempDir) -> Vec<String> {
        let path = folder.path().as_os_str();
        let versions = versions(path).await;
        versions
            .map(|(key, value)| format!("{key}={value}"))
            .to_vec()
    }

    #[tokio::test]
    async fn versions_are_what_the_tools_say() {
        let folder = tools(&[
            (
                "az",
                r#"test "$*" = "version --output json" || exit 1
                echo '{"azure-cli": "2.61.0", "azure-cli-core": "2.61.1", "azure-cli-telemetry": "1.1.0", "extensions": {}}'"#,
            ),
            (
                "azcopy",
                "echo 'INFO: a newer version 10.99.0 is available'; echo \"azcopy version 10.24.0\"",
            ),
        ]);
        assert_eq!(
            answered(&folder).await,
            [
                "azure-cli=2.61.0",
                "azure-cli-core=2.61.1",
                "azure-cli-telemetry=1.1.0",
                "azcopy=10.24.0",
            ]
        );
    }

    #[tokio::test]
    async fn tools_that_are_not_there_or_say_nonsense() {
        let folder = tools(&[("azcopy", "echo nonsense")]);
        assert_eq!(
            answered(&folder).await,
            [
                "azure-cli=not installed",
                "azure-cli-core=not installed",
                "azure-cli-telemetry=not installed",
                "azcopy=unknown: not understood",
            ]
        );
    }

    #[tokio::test]
    async fn a_tool_sees_no_environment_and_cannot_say_too_much() {
        // Cargo sets variables for its tests; the tool must not see them.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        let folder = tools(&[(
            "azcopy",
            "case \"$(export -p)\" in *CARGO*) exit 1;; esac\n\
             read line && exit 1\nwhile :; do echo azcopy version 1; done",
        )]);
        assert_eq!(answered(&folder).await[3], "azcopy=1");
    }

    /// The clock is paused: it goes on as soon as everything waits.
    #[tokio::test(start_paused = true)]
    async fn a_tool_that_hangs_is_ended_with_all_it_started() {
        // It finds no program on its path, so it starts itself.
        let script = "test \"$1\" = hang || \"$0\" hang &\nwhile :; do /bin/sleep 1; done";
        let folder = tools(&[("az", script)]);
        let answer = answered(&folder).await;
        assert_eq!(answer[0], "azure-cli=unknown: az: no answer in 30 s");
        // Killed is not gone at once. The folder is unlike any other, and both carry it in their command lines.
        let gone = (0..12_000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            !is_in_a_command_line(folder.path())
        });
        assert!(gone, "a process is left");
    }

    fn is_in_a_command_line(folder: &Path) -> bool {
        fs::read_dir("/proc").unwrap().any(|process| {
            fs::read_to_string(process.unwrap().path().join("cmdline"))
                .is_ok_and(|line| line.contains(folder.to_str().unwrap()))
        })
    }
}
