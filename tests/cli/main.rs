//! The command line as people and scripts use it: the built program against an emulator in this process.

#![allow(
    clippy::unwrap_used,
    reason = "a panic in a helper of a test is a failed test"
)]

mod account;
mod cloud;
mod jobs;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mock_server::{
    Action, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_TENANT, Disk, Fault, KIB, Link, MIB,
    Principal, Scenario, Tenant, Vm,
};
use serde_json::{Value, json};

use self::cloud::{Cloud, Run, UUID, is_empty, ledger, saved};

#[tokio::test(flavor = "multi_thread")]
async fn check_says_that_all_is_well() {
    let cloud = Cloud::start().await;
    let run = cloud.run(&["check"]);
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    assert!(run.stdout.contains("ok       login"), "{}", run.stdout);
    let (code, document) = cloud.run_json(&["check"]);
    assert_eq!((code, &document["status"]), (0, &json!("ok")));
    let checks = document["checks"].as_array().unwrap();
    for check in checks {
        assert_ne!(check["result"], "missing", "{check}");
    }
    let rights = "rights for backup in resource group accounts";
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == rights && check["result"] == "ok"),
        "{checks:?}"
    );
    cloud.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_missing_rights() {
    let write = "Microsoft.Compute/snapshots/write";
    let scenario = Scenario {
        tenants: vec![Tenant {
            id: DEFAULT_TENANT.to_owned(),
            principals: vec![Principal {
                client_id: DEFAULT_CLIENT_ID.to_owned(),
                client_secret: DEFAULT_CLIENT_SECRET.to_owned(),
                subscriptions: None,
                denied_actions: vec![write.to_owned()],
            }],
        }],
        ..Scenario::new().vm(ledger())
    };
    let cloud = Cloud::of(scenario).await;
    let (code, document) = cloud.run_json(&["check"]);
    assert_eq!((code, &document["status"]), (4, &json!("refused")));
    let missing: Vec<_> = document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["result"] == "missing")
        .collect();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0]["detail"], write);

    // What it warned of comes true, as a failure of its own kind.
    let to = cloud.path("to");
    let run = cloud.run(&["backup", "--to", to.to_str().unwrap()]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains(write), "{}", run.stderr);
    assert!(is_empty(&to));
    cloud.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_credentials_have_their_own_exit_code() {
    let cloud = Cloud::start().await;
    for (tenant, secret, said) in [
        (
            DEFAULT_TENANT,
            "wrong-secret",
            "application secret is wrong",
        ),
        (
            "00000000-1111-2222-3333-444444444444",
            DEFAULT_CLIENT_SECRET,
            "does not exist in this cloud",
        ),
    ] {
        cloud.configure(tenant, secret);
        for command in ["check", "list", "plan"] {
            let run = cloud.run(&[command]);
            assert_eq!(run.code, 4, "{command} {} {}", run.stdout, run.stderr);
            let output = format!("{}{}", run.stdout, run.stderr);
            assert!(output.contains(said), "{output}");
            assert!(!output.contains("wrong-secret"), "{output}");
        }
    }
    let run = Run::of(
        cloud
            .command(&["check"])
            .env("AZURE_VM_APPLICATION_SECRET", "also-wrong")
            .output()
            .unwrap(),
    );
    assert_eq!(run.code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_may_come_from_the_environment_only() {
    let cloud = Cloud::start().await;
    cloud.configure(DEFAULT_TENANT, "wrong-secret");
    let run = Run::of(
        cloud
            .command(&["check"])
            .env("AZURE_VM_APPLICATION_SECRET", DEFAULT_CLIENT_SECRET)
            .output()
            .unwrap(),
    );
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    let run = cloud.run(&["check", "-p", "application_secret=x"]);
    assert_eq!(run.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told_before_anything_is_asked() {
    let cloud = Cloud::start().await;
    for (args, said) in [
        (&["backup"][..], "--to"),
        (&["frobnicate"], "frobnicate"),
        (&["plan", "-p", "secret_id=x"], "application_secret"),
        (&["plan", "--include", "("], "include"),
        (&["list", "--group", "nowhere"], "nowhere"),
        (&["list", "--memory", "lots"], "memory"),
    ] {
        let run = cloud.run(args);
        assert_eq!(run.code, 2, "{args:?} {}", run.stderr);
        assert!(run.stderr.contains(said), "{args:?} {}", run.stderr);
    }
    assert!(cloud.emulator.counters().operations.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_not_there_is_told_in_bounded_time() {
    let cloud = Cloud::start().await;
    let begun = Instant::now();
    // Port 1 of this machine: nothing listens there.
    let nowhere = "http://127.0.0.1:1/";
    let run = cloud.run(&["check", "--authority", nowhere]);
    assert_eq!(run.code, 1, "{} {}", run.stdout, run.stderr);
    assert!(run.stdout.contains("127.0.0.1:1"), "{}", run.stdout);
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn list_and_plan_show_everything_and_change_nothing() {
    let cloud = Cloud::start().await;
    let (code, document) = cloud.run_json(&["list"]);
    assert_eq!(code, 0, "{document}");
    let vm = &document["vms"][0];
    assert_eq!(vm["name"], "ledger01");
    assert_eq!(vm["uuid"], UUID);
    assert_eq!(vm["resourceGroup"], "accounts");
    assert_eq!(vm["powerState"], "running");
    let disks: Vec<_> = vm["disks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|disk| json!([disk["name"], disk["slot"], disk["sizeBytes"]]))
        .collect();
    let expected = [
        json!(["ledger01-os", "os", 64 * MIB]),
        json!(["ledger01-zero", { "data": 0 }, 20 * MIB]),
        json!(["ledger01-five", { "data": 5 }, 32 * MIB]),
    ];
    assert_eq!(disks, expected);

    let (code, document) = cloud.run_json(&["plan"]);
    assert_eq!(code, 0, "{document}");
    assert_eq!(document["sizeBytes"], 116 * MIB);
    assert_eq!(document["vms"][0]["uuid"], UUID);
    assert_eq!(document["vms"][0]["disks"].as_array().unwrap().len(), 3);
    assert_eq!(document["vms"][0]["disks"][0]["content"], "full");
    assert_eq!(document["vms"][0]["files"].as_array().unwrap().len(), 6);
    let run = cloud.run(&["plan", "--vm", "ledger01"]);
    assert!(run.stdout.contains("lun 5"), "{}", run.stdout);

    let counters = cloud.emulator.counters();
    for changing in [
        "Snapshots_CreateOrUpdate",
        "Snapshots_GrantAccess",
        "Disks_GrantAccess",
    ] {
        assert_eq!(counters.requests(changing), 0, "{changing}");
    }

    let run = cloud.run(&["plan", "--vm", "nobody"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("nobody"), "{}", run.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_goes_to_a_folder_and_comes_back() {
    let cloud = Cloud::start().await;
    let to = cloud.path("saved");
    let (code, document) = cloud.run_json(&["backup", "--to", to.to_str().unwrap()]);
    assert_eq!(code, 0, "{document}");
    assert_eq!(document["vms"][0]["name"], "ledger01");
    assert_eq!(document["vms"][0]["files"].as_array().unwrap().len(), 6);
    cloud.assert_clean();

    let disks = [
        ("_osdisk", "ledger01-os"),
        ("_0", "ledger01-zero"),
        ("_1", "ledger01-five"),
    ];
    for (ending, disk) in disks {
        let file = saved(&to, ending);
        cloud.assert_same_bytes(&file, disk);
        let meta = file.metadata().unwrap();
        assert_eq!(meta.mode() & 0o777, 0o600);
        assert!(meta.blocks() * 512 < 8 * MIB, "{disk} is sparse");
    }
    let name = to.join(format!("@azure-vm/{UUID}_ledger01.name"));
    assert_eq!(fs::read(name).unwrap(), b"");

    let staging = cloud.path("staging");
    fs::create_dir(&staging).unwrap();
    let restore = |args: &[&str]| {
        let mut all = vec!["restore", "--from", to.to_str().unwrap()];
        all.extend(["--staging", staging.to_str().unwrap()]);
        all.extend(args);
        cloud.run_json(&all)
    };
    // The VM is still there: refused before anything is made.
    let (code, document) = restore(&[]);
    assert_eq!(code, 1, "{document}");
    assert!(document["error"].as_str().unwrap().contains("ledger01"));
    assert_eq!(cloud.emulator.state().disks.len(), 3);

    let (code, document) = restore(&["--new-hostname", "ledger02"]);
    assert_eq!(code, 0, "{document}");
    assert_eq!(document["name"], "ledger02");
    assert_eq!(document["savedUuid"], UUID);
    cloud.assert_clean();
    assert!(is_empty(&staging));
    let state = cloud.emulator.state();
    let (old, new) = (state.vm("ledger01").unwrap(), state.vm("ledger02").unwrap());
    assert_eq!(new.vm_size, old.vm_size);
    cloud.assert_same_bytes(&saved(&to, "_osdisk"), &new.os_disk.id);
    assert_eq!(
        new.data_disks.keys().collect::<Vec<_>>(),
        old.data_disks.keys().collect::<Vec<_>>()
    );
    cloud.assert_same_bytes(&saved(&to, "_0"), &new.data_disks[&0].id);
    cloud.assert_same_bytes(&saved(&to, "_1"), &new.data_disks[&5].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_vm_does_not_stop_the_others() {
    let other = Vm::new(
        "accounts",
        "web01",
        Disk::new("web01-os", 20 * MIB).pattern(9, 0, MIB),
    );
    let cloud = Cloud::of(Scenario::new().vm(ledger()).vm(other)).await;
    let fault = Fault::new(
        "Snapshots_CreateOrUpdate",
        Action::FailOperation {
            code: "InternalExecutionError".to_owned(),
            message: "made to fail".to_owned(),
        },
    );
    cloud.emulator.fault(fault.nth(1));
    let to = cloud.path("to");
    let (code, document) = cloud.run_json(&["backup", "--to", to.to_str().unwrap()]);
    assert_eq!(
        (code, &document["status"]),
        (3, &json!("partial")),
        "{document}"
    );
    assert_eq!(document["vms"].as_array().unwrap().len(), 1);
    let errors = document["messages"].as_array().unwrap();
    assert!(
        errors.iter().any(|message| message["severity"] == "error"
            && message["text"].as_str().unwrap().contains("made to fail")),
        "{errors:?}"
    );
    cloud.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_breaks_off_is_not_kept() {
    let other = Vm::new(
        "accounts",
        "web01",
        Disk::new("web01-os", 20 * MIB).pattern(9, 0, MIB),
    );
    let cloud = Cloud::of(Scenario::new().vm(ledger()).vm(other)).await;
    // Not found is not worth a second attempt; the 20th read is in the middle of a disk of the first VM.
    let fault = Fault::new("Blob_Get", Action::status(404));
    cloud.emulator.fault(fault.nth(20));
    let to = cloud.path("to");
    let args = ["backup", "--to", to.to_str().unwrap()];
    let (code, document) = cloud.run_json(&args);
    assert_eq!(
        (code, &document["status"]),
        (3, &json!("partial")),
        "{document}"
    );
    let names: Vec<_> = document["vms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vm| &vm["name"])
        .collect();
    assert_eq!(names, ["web01"]);
    assert!(!to.join("@azure-vm").join(UUID).exists());
    cloud.assert_clean();

    cloud.emulator.clear_faults();
    let fault = Fault::new("Blob_Get", Action::status(404));
    cloud.emulator.fault(fault.nth(20));
    let to = cloud.path("abort");
    let (code, document) =
        cloud.run_json(&["backup", "--to", to.to_str().unwrap(), "--abort-on-error"]);
    assert_eq!(
        (code, &document["status"]),
        (1, &json!("failed")),
        "{document}"
    );
    assert!(is_empty(&to));
    cloud.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_leaves_nothing() {
    let cloud = Cloud::start().await;
    let to = cloud.path("saved");
    let run = cloud.run(&["backup", "--to", to.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let before = cloud.emulator.state();
    let staging = cloud.path("staging");
    fs::create_dir(&staging).unwrap();
    cloud.emulator.set_link(Link {
        latency: Duration::from_millis(150),
        ..Link::default()
    });
    let mut args = vec![
        "restore",
        "--new-hostname",
        "ledger02",
        "--concurrency",
        "1",
        "--json",
    ];
    args.extend([
        "--from",
        to.to_str().unwrap(),
        "--staging",
        staging.to_str().unwrap(),
    ]);
    let run = cloud.interrupt(&args, "Blob_PutPage", 3);
    assert_eq!(run.code, 130, "{} {}", run.stdout, run.stderr);
    assert!(is_empty(&staging));
    cloud.assert_clean();
    let after = cloud.emulator.state();
    assert_eq!(after.disks.len(), before.disks.len());
    assert_eq!(
        after.network_interfaces.len(),
        before.network_interfaces.len()
    );
    assert_eq!(after.virtual_machines.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_leaves_nothing() {
    let cloud = Cloud::start().await;
    cloud.emulator.set_link(Link {
        latency: Duration::from_millis(150),
        ..Link::default()
    });
    let to = cloud.path("to");
    let mut args = vec!["backup", "--concurrency", "1", "--json"];
    args.extend(["--to", to.to_str().unwrap()]);
    // Head and footer of three images come first.
    let run = cloud.interrupt(&args, "Blob_Get", 9);
    assert_eq!(run.code, 130, "{} {}", run.stdout, run.stderr);
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["status"], "cancelled");
    assert!(is_empty(&to));
    cloud.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_folder_is_told_and_left_empty() {
    let cloud = Cloud::start().await;
    let to = cloud.path("to");
    // A limit on the size of files stands for a full disk.
    let command = cloud.command(&["backup", "--to", to.to_str().unwrap()]);
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let run = Run::of(output);
    assert_eq!(run.code, 1, "{} {}", run.stdout, run.stderr);
    assert!(run.stderr.contains("_osdisk"), "{}", run.stderr);
    assert!(is_empty(&to));
    cloud.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_whole_and_by_difference() {
    let cloud = Cloud::start().await;
    let first = cloud.snapshot("ledger01-os", "first");
    cloud
        .emulator
        .guest_write("ledger01-os", 20 * MIB + 100, b"written later")
        .unwrap();
    cloud
        .emulator
        .guest_discard("ledger01-os", MIB, MIB)
        .unwrap();
    let second = cloud.snapshot("ledger01-os", "second");

    let (a, b) = (cloud.path("a.raw"), cloud.path("b.raw"));
    let run = Run::of(
        cloud
            .command(&["pull", "--allow-http", "--to", a.to_str().unwrap()])
            .env("AZURE_VM_SAS", &first)
            .output()
            .unwrap(),
    );
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    cloud.assert_same_bytes(&a, "first");

    cloud.emulator.reset_counters();
    let args = ["pull", "-", "--allow-http", "--base", "-", "--json"];
    let paths = [
        "--base-file",
        a.to_str().unwrap(),
        "--to",
        b.to_str().unwrap(),
    ];
    let run = cloud.run_with_input(
        &[&args[..], &paths].concat(),
        &format!("{second}\n{first}\n"),
    );
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    cloud.assert_same_bytes(&b, "second");
    cloud.assert_same_bytes(&a, "first");
    let read = cloud.emulator.counters().of("Blob_Get").bytes_out;
    assert!(
        (512..128 * KIB).contains(&read),
        "{read} bytes read for a change of 13"
    );

    // To standard output, the image and nothing else.
    let output = cloud
        .command(&["pull", "--allow-http", "--to", "-"])
        .env("AZURE_VM_SAS", &second)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == fs::read(&b).unwrap());

    // What exists is not overwritten; nothing is left of a failure.
    let run = Run::of(
        cloud
            .command(&["pull", "--allow-http", "--to", a.to_str().unwrap()])
            .env("AZURE_VM_SAS", &second)
            .output()
            .unwrap(),
    );
    assert_eq!(run.code, 1);
    cloud.assert_same_bytes(&a, "first");
    let run = cloud.run(&[
        "pull",
        "--allow-http",
        "--json",
        "--to",
        "-",
        "http://127.0.0.1:1/x?sig=y",
    ]);
    assert_eq!(run.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_to_an_upload_disk() {
    let cloud = Cloud::start().await;
    let size = 24 * MIB;
    let image = cloud.path("image.raw");
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    bytes[700..9000].fill(7);
    *bytes.last_mut().unwrap() = 1;
    fs::write(&image, &bytes).unwrap();

    let sas = cloud.upload_disk("pushed", size);
    let push = |sas: &str| {
        let args = [
            "push",
            "--allow-http",
            "--json",
            "--from",
            image.to_str().unwrap(),
        ];
        Run::of(
            cloud
                .command(&args)
                .env("AZURE_VM_SAS", sas)
                .output()
                .unwrap(),
        )
    };
    let run = push(&sas);
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    // The emulator checks the footer here.
    cloud.post("disks/pushed/endGetAccess", "");
    cloud.assert_same_bytes(&image, "pushed");
    let written = cloud
        .emulator
        .counters()
        .of("PageBlob_UploadPages")
        .bytes_in;
    assert!(
        written < 2 * 4 * MIB,
        "{written} bytes written for one of 24 MiB"
    );

    let other = cloud.upload_disk("other", size + MIB);
    let run = push(&other);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains(&size.to_string()), "{}", run.stderr);
}
