//! The samples of the README are what they say. Those of other languages are tried by `tests/peers/quick_start.py`.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use bytes::Bytes;
use http::{Request, request::Builder};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mock_server::{
    Action, ByteSize, Change, Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET,
    DEFAULT_STORAGE_KEY, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, Disk, Emulator, Fault, GIB, MIB,
    Scenario, Vm,
};
use serde_json::{Value, json};

const README: &str = include_str!("../README.md");

fn blocks(language: &str) -> Vec<&'static str> {
    let fenced = README.split("```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .collect()
}

/// A program that makes two snapshots, and nothing else of interest.
async fn what_is_tested(endpoint: &str) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let send = async |request: Builder, body: String| {
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let answer = client.request(request).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&text).unwrap()
    };
    let login = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", DEFAULT_CLIENT_ID)
        .append_pair("client_secret", DEFAULT_CLIENT_SECRET)
        .append_pair("scope", "https://management.azure.com/.default")
        .finish();
    let request = Request::post(format!("{endpoint}/{DEFAULT_TENANT}/oauth2/v2.0/token"))
        .header("content-type", "application/x-www-form-urlencoded");
    let token = send(request, login).await;
    let group = format!(
        "/subscriptions/{DEFAULT_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute"
    );
    for name in ["monday", "tuesday"] {
        let source = json!({ "createOption": "Copy", "sourceResourceId": format!("{group}/disks/web-01-data") });
        let body = json!({ "location": "westeurope", "properties": { "incremental": true, "creationData": source } });
        let url = format!("{endpoint}{group}/snapshots/{name}?api-version=2025-01-02");
        let request = Request::put(url)
            .header(
                "authorization",
                format!("Bearer {}", token["access_token"].as_str().unwrap()),
            )
            .header("content-type", "application/json");
        send(request, body.to_string()).await;
    }
}

#[tokio::test]
async fn the_rust_sample_runs() -> Result<(), mock_server::Error> {
    // As in the README:
    let emulator = Emulator::start(Config::default()).await?; // or Emulator::start_blocking(&config)
    let data = Disk::new("web-01-data", 8 * GIB);
    let os = Disk::new("web-01-os", 30 * GIB).pattern(1, 0, 64 * MIB);
    let vm = Vm::new("rg1", "web-01", os).data_disk(5, data);
    emulator.load(&Scenario::new().vm(vm.zone("1").tag("env", "prod")))?;
    emulator.guest_write("web-01-data", 4096, b"bytes")?; // by name if unique, else by resource id
    emulator.change(&Change::GrowDisk {
        disk: "web-01-data".into(),
        size: ByteSize(9 * GIB),
    })?;
    emulator.fault(Fault::new("Blob_Get", Action::Reset).nth(3));
    what_is_tested(emulator.http_url()).await;
    assert_eq!(emulator.counters().requests("Snapshots_CreateOrUpdate"), 2);
    assert!(emulator.state().grants.is_empty());
    assert!(emulator.unmodelled().is_empty()); // every test should end so
    // Until here.
    let own = include_str!("readme.rs");
    let (_, rest) = own.split_once("    // As in the README:\n").unwrap();
    let (sample, _) = rest.split_once("    // Until here.\n").unwrap();
    let lines = sample
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap());
    let sample: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert_eq!(blocks("rust"), [sample]);
    Ok(())
}

#[tokio::test]
async fn the_scenario_is_accepted() -> Result<(), mock_server::Error> {
    let image = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme-os.img");
    std::fs::write(&image, vec![7; 65536]).unwrap();
    let sample = blocks("json")[0]
        .replace("/srv/os.img", image.to_str().unwrap())
        .replace("<base64>", DEFAULT_STORAGE_KEY)
        .replace("<guid>", "00000000-0000-4000-8000-000000000001");
    let scenario: Scenario = serde_json::from_str(&sample).unwrap();
    let emulator = Emulator::start(Config {
        scenario,
        ..Config::default()
    })
    .await?;
    let state = emulator.state();
    let disks: Vec<_> = state.disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(disks, ["free", "web-01-data", "web-01-os"]);
    Ok(())
}

#[test]
fn the_fault_is_understood() {
    let fault: Fault = serde_json::from_str(blocks("json")[1]).unwrap();
    assert_eq!(
        serde_json::to_value(fault).unwrap()["when"],
        json!({ "nth": 3 })
    );
}
