//! What an administrator asks about jobs, and clears up after them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use mock_server::{Action, DEFAULT_CLIENT_SECRET, DEFAULT_TENANT, Fault};
use serde_json::{Value, json};

use crate::cloud::{Cloud, Run, UUID};

const DAY: u64 = 24 * 60 * 60;

fn answer(run: &Run) -> Vec<&str> {
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[0], "info=Query", "{}", run.stderr);
    lines[1..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_give_the_answers_of_a_console() {
    let cloud = Cloud::start().await;
    let run = cloud.run(&["query", "vm"]);
    assert_eq!((run.code, answer(&run)), (0, vec!["VM=ledger01"]));
    let run = cloud.run(&["query", "GROUP"]);
    assert_eq!((run.code, answer(&run)), (0, vec!["GROUP=emulator"]));
    let run = cloud.run(&["query", "Connection"]);
    assert_eq!((run.code, answer(&run)), (0, vec!["CONNECTION=OK"]));
    let (code, document) = cloud.run_json(&["query", "DISK"]);
    assert_eq!(code, 0);
    assert_eq!(
        document["answer"][3],
        "DISK=ledger01-five vm=ledger01 slot=5 size=33554432 sku=Premium_LRS"
    );
    let run = cloud.run(&["query", "colour"]);
    assert_eq!(run.code, 2);
    assert_eq!(
        answer(&run)[0],
        "Query not recognized, possible value={CONNECTION, VM}"
    );

    let tools = cloud.path("tools");
    fs::create_dir(&tools).unwrap();
    let azcopy = tools.join("azcopy");
    fs::write(&azcopy, "#!/bin/sh\necho azcopy version 10.24.0\n").unwrap();
    fs::set_permissions(&azcopy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = cloud.command(&["query", "version"]);
    let run = Run::of(command.env("PATH", &tools).output().unwrap());
    assert_eq!(
        answer(&run)[..4],
        [
            "azure-cli=not installed",
            "azure-cli-core=not installed",
            "azure-cli-telemetry=not installed",
            "azcopy=10.24.0",
        ]
    );

    // A wrong folder must not look like a daemon without snapshots.
    let run = cloud.run(&["query", "SNAPSHOT", "--working-directory", "/nonexistent"]);
    assert_eq!(run.code, 1);
    assert!(answer(&run)[0].starts_with("error=read folder /nonexistent/azure-vm"));
    fs::create_dir_all(cloud.path("work/azure-vm")).unwrap();
    let work = cloud.path("work");
    let run = cloud.run(&[
        "query",
        "SNAPSHOT",
        "--working-directory",
        work.to_str().unwrap(),
    ]);
    assert_eq!((run.code, answer(&run)), (0, vec![]));

    // `-p` names the file for every question, as `--config` does.
    let lab = cloud.path("lab.conf");
    fs::write(&lab, "[lab]\nbanana = 1\n").unwrap();
    fs::set_permissions(&lab, fs::Permissions::from_mode(0o600)).unwrap();
    let lab = format!("config={}", lab.display());
    let run = cloud.run(&["query", "GROUP", "-p", &lab]);
    assert_eq!((run.code, answer(&run)), (0, vec!["GROUP=lab"]));
    let run = cloud.run(&["query", "CONNECTION", "-p", &lab]);
    assert_eq!((run.code, answer(&run)), (2, vec!["CONNECTION=NOK"]));
    let run = cloud.run(&["query", "VM", "-p", &lab]);
    assert_eq!(run.code, 2);
    assert!(answer(&run)[0].starts_with("error=unknown parameter banana"));
    let run = cloud.run(&["query", "GROUP", "-p", "config=/nonexistent"]);
    assert_eq!(run.code, 2);
    assert!(answer(&run)[0].starts_with("error=read configuration file /nonexistent: "));

    cloud.configure(DEFAULT_TENANT, "wrong-secret");
    let run = cloud.run(&["query", "connection"]);
    assert_eq!((run.code, answer(&run)), (4, vec!["CONNECTION=NOK"]));
    let run = cloud.run(&["query", "vm"]);
    assert_eq!(run.code, 4);
    assert!(answer(&run)[0].starts_with("error="), "{}", run.stdout);
    cloud.assert_clean();
}

/// Snapshots of two jobs and of a killed `azure-vm backup`, and one of somebody else.
fn leave_snapshots(cloud: &Cloud) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let tags = |job: &str, run: &str, client: &str, age: u64| {
        json!({
            "bacula-azure-vm:client": client,
            "bacula-azure-vm:chain": job,
            "bacula-azure-vm:job": run,
            "bacula-azure-vm:level": "Incremental",
            "bacula-azure-vm:started": (now - age).to_string(),
            "bacula-azure-vm:vm": UUID,
            "bacula-azure-vm:vm-name": "ledger01",
            "bacula-azure-vm:epoch": (now - age).to_string(),
            "bacula-azure-vm:disk": "x",
            "bacula-azure-vm:slot": "os",
        })
    };
    let old = tags("web", "web.2026-01-01_00.00.00_01", "a-fd", 40 * DAY);
    cloud.take_snapshot("ledger01-os", "web-old", &old);
    let new = tags("web", "web.2026-02-01_00.00.00_01", "b-fd", 9 * DAY);
    cloud.take_snapshot("ledger01-os", "web-new", &new);
    let killed = tags("azure-vm.0f", "azure-vm.0f", "host", 3 * DAY);
    cloud.take_snapshot("ledger01-zero", "killed", &killed);
    cloud.grant("snapshots/killed", "Read");
    cloud.take_snapshot("ledger01-os", "foreign", &json!({ "owner": "finance" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_listed_and_pruned_and_foreign_ones_are_not() {
    let cloud = Cloud::start().await;
    leave_snapshots(&cloud);
    let left = || {
        let mut names: Vec<_> = cloud
            .emulator
            .state()
            .snapshots
            .iter()
            .map(|snapshot| snapshot.name.clone())
            .collect();
        names.sort();
        names.join(" ")
    };
    let names = |document: &Value, key: &str| {
        let list = document[key].as_array().unwrap().iter();
        list.map(|snapshot| snapshot["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let all = "foreign killed web-new web-old";

    let (code, document) = cloud.run_json(&["snapshots"]);
    assert_eq!(code, 0, "{document}");
    assert_eq!(
        names(&document, "snapshots"),
        ["web-old", "web-new", "killed"]
    );
    let first = &document["snapshots"][0];
    assert_eq!(first["vm"], "ledger01");
    assert_eq!(first["disk"], "ledger01-os");
    assert_eq!(first["job"], "web");
    assert_eq!(first["level"], "Incremental");
    assert_eq!(first["sizeBytes"], 64 << 20);
    assert_eq!(first["ageSeconds"].as_u64().unwrap() / DAY, 40);
    let (_, document) = cloud.run_json(&["snapshots", "--client", "b-*"]);
    assert_eq!(names(&document, "snapshots"), ["web-new"]);

    // Nothing without a selection, and nothing without --yes.
    assert_eq!(cloud.run(&["prune", "--yes"]).code, 2);
    assert_eq!(
        cloud.run(&["prune", "--older-than", "soon", "--yes"]).code,
        2
    );
    let selected = ["prune", "--job", "web", "--older-than", "30d"];
    let (code, document) = cloud.run_json(&selected);
    assert_eq!((code, &document["dryRun"]), (0, &json!(true)));
    assert_eq!(names(&document, "snapshots"), ["web-old"]);
    assert_eq!(left(), all);
    let run = cloud.run(&[&selected[..], &["--yes"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("deleted web-old"), "{}", run.stdout);
    assert!(
        run.stderr.contains("saves the disks in full"),
        "{}",
        run.stderr
    );
    assert_eq!(left(), "foreign killed web-new");

    // Somebody may be reading what is open.
    let selected = ["prune", "--job", "azure-vm.*", "--yes"];
    let (code, document) = cloud.run_json(&selected);
    assert_eq!(code, 0);
    assert_eq!(names(&document, "inUse"), ["killed"]);
    assert_eq!(left(), "foreign killed web-new");
    let (code, document) = cloud.run_json(&[&selected[..], &["--in-use"]].concat());
    assert_eq!(
        (code, names(&document, "snapshots")),
        (0, vec!["killed".to_owned()])
    );
    let (_, document) = cloud.run_json(&["prune", "--job", "*", "--client", "*", "--yes"]);
    assert_eq!(names(&document, "snapshots"), ["web-new"]);
    assert_eq!(left(), "foreign");
    assert!(cloud.emulator.state().grants.is_empty());
    assert_eq!(cloud.emulator.unmodelled(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_azure_does_not_delete_is_told() {
    let cloud = Cloud::start().await;
    leave_snapshots(&cloud);
    let locked = Action::Status {
        status: 409,
        code: Some("ScopeLocked".to_owned()),
        body: None,
        retry_after: None,
    };
    cloud.emulator.fault(Fault::new("Snapshots_Delete", locked));
    let run = cloud.run(&["prune", "--job", "web", "--yes"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("delete snapshot web-old"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("ScopeLocked"), "{}", run.stderr);
    assert_eq!(cloud.emulator.state().snapshots.len(), 4);
    assert_eq!(cloud.emulator.unmodelled(), Vec::<String>::new());
}

/// [`Run::of`] looks for secrets in whatever is shown.
#[tokio::test(flavor = "multi_thread")]
async fn each_level_of_debug_shows_more_and_none_a_secret() {
    let cloud = Cloud::start().await;
    let ca = cloud.path("ca.pem");
    fs::write(&ca, cloud.emulator.ca_pem()).unwrap();
    let heard = |level: &str| {
        let to = cloud.path(level);
        let url = cloud.emulator.https_url();
        let mut command = cloud.command(&["backup", "--to", to.to_str().unwrap()]);
        command.args(["--debug", level, "--ca-file", ca.to_str().unwrap()]);
        command.args(["--arm-endpoint", url, "--authority", url]);
        let run = Run::of(command.output().unwrap());
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(!run.stderr.contains(DEFAULT_CLIENT_SECRET));
        // Steps, requests, libraries.
        let targets = [
            "azure_vm_fd",
            "azure_vm_fd::azure::retry",
            "rustls",
            "hyper_util",
        ];
        targets.map(|target| {
            run.stderr
                .lines()
                .any(|line| line.contains(&format!(" {target}:")))
        })
    };
    assert_eq!(heard("1"), [true, false, false, false]);
    assert_eq!(heard("2"), [true, true, false, false]);
    assert_eq!(heard("9"), [true, true, true, true]);
    cloud.assert_clean();
}
