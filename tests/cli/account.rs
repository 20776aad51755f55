//! The way through a storage account.

use std::fs;

use mock_server::Scenario;

use super::cloud::{Cloud, ledger, saved};

const ACCOUNT: &str = "stage";

/// A cloud with an account, and options that lead through it; `key` is what stands in the file.
async fn through_account(spoil: impl Fn(String) -> String) -> (Cloud, Vec<String>) {
    let cloud = Cloud::of(Scenario::new().vm(ledger()).storage_account(ACCOUNT)).await;
    let file = cloud.path("connection_key");
    fs::write(&file, spoil(cloud.emulator.connection_string(ACCOUNT))).unwrap();
    let options = [
        "-p".to_owned(),
        "transfer=blob".to_owned(),
        "-p".to_owned(),
        format!("connection_key_file={}", file.display()),
    ];
    (cloud, options.into())
}

fn with<'a>(args: &[&'a str], options: &'a [String]) -> Vec<&'a str> {
    let options = options.iter().map(String::as_str);
    args.iter().copied().chain(options).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_tested_and_used_and_left_clean() {
    let (cloud, options) = through_account(|key| key).await;
    let run = cloud.run(&with(&["check"], &options));
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    let line = "ok       storage account: bacula-azure-vm of storage account stage can be written";
    assert!(run.stdout.contains(line), "{}", run.stdout);
    let to = cloud.path("to");
    let run = cloud.run(&with(&["backup", "--to", to.to_str().unwrap()], &options));
    assert_eq!(run.code, 0, "{}", run.stderr);
    cloud.assert_same_bytes(&saved(&to, "_osdisk"), "ledger01-os");
    let counters = cloud.emulator.counters();
    assert!(counters.of("StorageBlob_Get").bytes_out > counters.of("Blob_Get").bytes_out);
    assert!(cloud.emulator.state().blobs(ACCOUNT).is_empty());
    cloud.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_told_without_the_key() {
    let (cloud, options) =
        through_account(|key| key.replace("AccountKey=", "AccountKey=QUJD")).await;
    let run = cloud.run(&with(&["check"], &options));
    assert_eq!(run.code, 4, "{} {}", run.stdout, run.stderr);
    assert!(
        run.stdout.contains("MISSING  storage account:"),
        "{}",
        run.stdout
    );
    let to = cloud.path("to");
    let backup = cloud.run(&with(&["backup", "--to", to.to_str().unwrap()], &options));
    assert_ne!(backup.code, 0);
    assert!(
        backup.stderr.contains("connection_key"),
        "{}",
        backup.stderr
    );
    for text in [run.stdout, run.stderr, backup.stdout, backup.stderr] {
        assert!(!text.contains("QUJD"), "{text}");
    }
    let made = cloud
        .emulator
        .counters()
        .requests("Snapshots_CreateOrUpdate");
    assert_eq!(made, 0);
    cloud.assert_clean();
}
