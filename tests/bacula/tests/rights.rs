//! What the daemons need on their host and in Azure: the documented roles, no tool of Azure's, the way through a proxy.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Cloud, Generation, JOB, JobDefinition, RESTORED, RestoreRequest, on_both_generations,
    workspace,
};
use mock_server::{
    DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_TENANT, Disk, MIB, Principal, Scenario,
    Tenant, Vm, actions,
};
use serde_json::Value;

on_both_generations!(
    the_documented_roles_suffice_and_credentials_are_those_of_the_restore,
    no_tool_of_azure_is_used_and_versions_are_only_asked_for,
    a_proxy_is_that_of_the_environment,
);

fn world() -> Scenario {
    let disk = |name: &str, seed| Disk::new(name, 24 * MIB).pattern(seed, MIB, MIB);
    Scenario::new().vm(Vm::new("rg", "web", disk("web-os", 1)).data_disk(3, disk("web-data", 2)))
}

/// The actions of a role in docs/.
fn role(file: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(workspace().join("docs").join(file))?;
    let role: Value = serde_json::from_str(&text)?;
    let actions = role["Actions"].as_array().context("no actions")?;
    Ok(actions
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect())
}

/// A principal that may do these things, and nothing else.
fn principal(client_id: &str, client_secret: &str, allowed: &[String]) -> Principal {
    let denied: BTreeSet<_> = actions()
        .filter(|action| {
            !allowed
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(action))
        })
        .map(str::to_owned)
        .collect();
    Principal {
        client_id: client_id.to_owned(),
        client_secret: client_secret.to_owned(),
        subscriptions: None,
        denied_actions: denied.into_iter().collect(),
    }
}

fn the_documented_roles_suffice_and_credentials_are_those_of_the_restore(
    generation: Generation,
) -> Result<()> {
    let backup = role("role-backup.json")?;
    let restore = [backup.clone(), role("role-restore.json")?].concat();
    let mut world = world();
    world.tenants = vec![Tenant {
        id: DEFAULT_TENANT.to_owned(),
        principals: vec![
            principal("saver", "saves-1", &backup),
            principal("restorer", "restores-2", &restore),
            // The bench's own, and the plugin's no longer.
            principal(
                DEFAULT_CLIENT_ID,
                DEFAULT_CLIENT_SECRET,
                &actions().map(str::to_owned).collect::<Vec<_>>(),
            ),
        ],
    }];
    let mut bench = Bench::start(generation, world, "vm=web")?;
    let log_in_as = |bench: &Bench, id, secret| {
        let changes = [
            ("application_id", Some(id)),
            ("application_secret", Some(secret)),
        ];
        bench.cloud.write_config("azure-vm.conf", &changes)
    };
    log_in_as(&bench, "saver", "saves-1")?;
    let full = bench.full()?;
    let mut jobs = vec![full.id];
    // A third run also deletes snapshots.
    for round in 0..2 {
        bench
            .cloud
            .emulator()
            .guest_pattern("web-os", 7, (3 + round) * MIB, 4096)?;
        jobs.push(bench.sandbox.backup(JOB, "Incremental")?.clean()?.id);
    }
    let expected = bench.cloud.digests("web")?;
    let request = RestoreRequest {
        jobs: jobs.clone(),
        ..RestoreRequest::named(RESTORED)
    };
    let refused = bench.sandbox.restore(&request)?;
    ensure!(
        matches!(refused.status, 'f' | 'E')
            && refused.log.contains("Microsoft.Compute/disks/write"),
        "{}",
        refused.log
    );
    ensure!(bench.cloud.state().disks.len() == 2, "{}", refused.log);
    // What counts are the values of now, here with neither tracker nor snapshots, on a File Daemon that knows nothing.
    log_in_as(&bench, "restorer", "restores-2")?;
    bench.sandbox.replace_file_daemon(generation)?;
    bench.cloud.delete_snapshots()?;
    bench.restore_equals(&jobs, &expected)?;
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

/// Secret of the File Daemon's environment that no tool may see.
const HIDDEN: &str = "hunter2-of-the-environment";

/// A tool that says `answer`, and leaves a file with its environment when it is called.
fn tool(folder: &Path, name: &str, answer: &str) -> Result<()> {
    let called = folder.join(format!("{name}.called"));
    let path = folder.join(name);
    let script = format!(
        "#!/bin/sh\n/usr/bin/env >> {}\necho '{answer}'\n",
        called.display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn no_tool_of_azure_is_used_and_versions_are_only_asked_for(generation: Generation) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    tool(
        folder,
        "az",
        r#"{ "azure-cli": "2.61.0", "azure-cli-core": "2.61.0", "azure-cli-telemetry": "1.1.0", "extensions": {} }"#,
    )?;
    tool(folder, "azcopy", "azcopy version 10.24.0")?;
    let path = std::env::var("PATH")?;
    let bench = Bench::start_with(generation, world(), "vm=web", |config| {
        config.environment = vec![
            ("PATH".into(), format!("{}:{path}", folder.display())),
            ("AZURE_CLIENT_SECRET".into(), HIDDEN.into()),
        ];
    })?;
    let called = |name: &str| folder.join(format!("{name}.called"));
    let backup = bench.full()?;
    bench.restore_equals(&[backup.id], &bench.cloud.digests("web")?)?;
    for name in ["az", "azcopy"] {
        ensure!(!called(name).exists(), "{name} was called by a job");
    }
    if generation == Generation::V9_6 {
        // It has no queries.
        return Ok(());
    }
    let ask = || {
        let command = bench.cloud.plugin_command("");
        let query = format!(".query plugin=\"{command}\" client=bench-fd parameter=VERSION\n");
        bench.sandbox.console(&query, Duration::from_secs(60))
    };
    let text = ask()?;
    let expected = "info=Query\nazure-cli=2.61.0\nazure-cli-core=2.61.0\nazure-cli-telemetry=1.1.0\nazcopy=10.24.0\n";
    ensure!(text.contains(expected), "{text}");
    for name in ["az", "azcopy"] {
        let environment = fs::read_to_string(called(name))?;
        ensure!(!environment.contains(HIDDEN), "{name} sees {environment}");
        fs::remove_file(folder.join(name))?;
    }
    // Whether this machine has tools of its own is not for this test to say.
    if !["az", "azcopy"].iter().any(|name| {
        path.split(':')
            .any(|folder| Path::new(folder).join(name).exists())
    }) {
        let text = ask()?;
        for key in [
            "azure-cli",
            "azure-cli-core",
            "azure-cli-telemetry",
            "azcopy",
        ] {
            ensure!(text.contains(&format!("\n{key}=not installed\n")), "{text}");
        }
    }
    Ok(())
}

/// A proxy that lets nobody through; it tells of what it was asked for.
fn strict_proxy() -> Result<(u16, Receiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (asked, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            // Told before it is answered: whoever has the answer finds what was told. The test may be gone by now, and so may
            // whoever asks.
            if asked.send(head.join("\n")).is_err() {
                return;
            }
            drop(stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    Ok((port, requests))
}

fn a_proxy_is_that_of_the_environment(generation: Generation) -> Result<()> {
    let (port, requests) = strict_proxy()?;
    let cloud = Cloud::start(world())?;
    let near = JobDefinition::plugin("near", &cloud.plugin_command(""));
    // These names exist nowhere.
    let elsewhere = |name: &str| -> Result<JobDefinition> {
        let url = format!("https://login.{name}.invalid");
        let config = cloud.write_config(&format!("{name}.conf"), &[("authority", Some(&url))])?;
        Ok(JobDefinition::plugin(
            name,
            &format!("azure-vm: config={}", config.display()),
        ))
    };
    let jobs = vec![near, elsewhere("far")?, elsewhere("exempt")?];
    let bench = Bench::start_jobs(generation, cloud, jobs, |config| {
        config.environment = vec![
            (
                "HTTPS_PROXY".into(),
                format!("http://user:{HIDDEN}@127.0.0.1:{port}"),
            ),
            ("NO_PROXY".into(), ".exempt.invalid".into()),
        ];
    })?;
    // This machine itself is never reached through it.
    let listing = bench.sandbox.list("near")?;
    ensure!(
        listing.vms() == ["web"] && requests.try_recv().is_err(),
        "{}",
        listing.text
    );
    let listing = bench.sandbox.list("far")?;
    let head = requests.try_recv().with_context(|| listing.text.clone())?;
    ensure!(
        head.starts_with("CONNECT login.far.invalid:443 HTTP/1.1\n"),
        "{head}"
    );
    ensure!(
        head.to_lowercase()
            .contains("\nproxy-authorization: basic "),
        "{head}"
    );
    ensure!(
        listing.vms().is_empty()
            && listing.text.contains("proxy")
            && !listing.text.contains(HIDDEN),
        "{}",
        listing.text
    );
    while requests.try_recv().is_ok() {}
    let listing = bench.sandbox.list("exempt")?;
    ensure!(
        listing.vms().is_empty() && requests.try_recv().is_err(),
        "{}",
        listing.text
    );
    Ok(())
}
