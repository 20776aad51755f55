//! Access to the bytes of disks and snapshots: where the SAS is, and that it is used as it is.

use std::time::Duration;

use azure_vm_fd::azure::{Access, Error, ErrorKind, PageBlob};
use serde_json::json;

use crate::clock;
use crate::recording::{Exchange, exchanges};
use crate::service::Service;

const HOUR: Duration = Duration::from_secs(3600);
const SIZE: u64 = 1_073_742_336;

/// The blob behind a SAS; it answers to the whole signed address only.
fn blob(sas: &str) -> (String, Exchange) {
    let address = sas.strip_prefix("https://").unwrap();
    let (host, target) = address.split_at(address.find('/').unwrap());
    let answer = Exchange {
        headers: vec![
            ("Content-Length".into(), SIZE.to_string()),
            ("x-ms-blob-type".into(), "PageBlob".into()),
        ],
        body: String::new(),
        ..Exchange::made("HEAD", target, 200, &json!(null))
    };
    (host.to_owned(), answer)
}

async fn length(service: &Service, blob: &PageBlob) -> Result<u64, Error> {
    clock::run(service, blob.content_length()).await
}

/// `properties.output` of the status; and access is given back.
#[tokio::test(start_paused = true)]
async fn the_sas_is_in_the_status() {
    let recorded = exchanges("snapshot-access");
    let status = recorded[4].json();
    let (host, head) = blob(
        status["properties"]["output"]["accessSAS"]
            .as_str()
            .unwrap(),
    );
    let mut steps = vec![recorded[2].clone()];
    steps.extend_from_slice(&recorded[3..5]);
    steps.push(head);
    steps.extend_from_slice(&recorded[7..9]);
    let service = Service::start(steps, &[&host]).await;
    let azure = service.azure();
    let id = recorded[3].resource();
    let duration = Duration::from_secs(600);
    let grant = clock::run(&service, azure.grant(&id, Access::Read, duration))
        .await
        .unwrap();
    assert_eq!(service.seen()[1].json(), recorded[3].sent_json());
    assert_eq!(length(&service, &grant.page_blob()).await.unwrap(), SIZE);
    clock::run(&service, grant.revoke()).await.unwrap();
    service.assert_used_up();
}

#[tokio::test(start_paused = true)]
async fn the_sas_of_an_older_service_is_in_the_status_too() {
    let started = exchanges("disk-access").remove(0);
    let status = exchanges("snapshot-access-2018").remove(0);
    let sas = status.json();
    let (host, head) = blob(sas["properties"]["output"]["accessSAS"].as_str().unwrap());
    assert!(host.ends_with(".blob.core.windows.net"), "{host}");
    let steps = vec![
        started.clone(),
        Exchange::made("GET", started.resource().as_str(), 200, &json!({})),
        status.at("GET", started.link("azure-asyncoperation")),
        head,
    ];
    let service = Service::start(steps, &[&host]).await;
    let azure = service.azure();
    let grant = clock::run(
        &service,
        azure.grant(&started.resource(), Access::Read, HOUR),
    )
    .await
    .unwrap();
    assert_eq!(length(&service, &grant.page_blob()).await.unwrap(), SIZE);
    service.assert_used_up();
}

/// A status without output: then the answer at `Location` has it.
#[tokio::test(start_paused = true)]
async fn the_sas_is_at_the_location() {
    let recorded = exchanges("snapshot-access");
    let result = &recorded[5];
    let (host, head) = blob(result.json()["accessSAS"].as_str().unwrap());
    let steps = vec![
        recorded[2].clone(),
        recorded[3].clone(),
        recorded[8].at("GET", recorded[3].link("azure-asyncoperation")),
        result.clone(),
        head,
    ];
    let service = Service::start(steps, &[&host]).await;
    let azure = service.azure();
    let grant = clock::run(
        &service,
        azure.grant(&recorded[3].resource(), Access::Read, HOUR),
    )
    .await
    .unwrap();
    assert_eq!(length(&service, &grant.page_blob()).await.unwrap(), SIZE);
    service.assert_used_up();
}

/// 200 with three SAS at once: of disk, guest state and metadata.
#[tokio::test(start_paused = true)]
async fn the_sas_is_in_the_first_answer() {
    let recorded = exchanges("access-to-guest-state").remove(0);
    let (host, head) = blob(recorded.json()["accessSAS"].as_str().unwrap());
    assert!(head.target.contains("&st=2025-05-29T18:02:34Z&"));
    let steps = vec![
        Exchange::made("GET", recorded.resource().as_str(), 200, &json!({})),
        recorded.clone(),
        head,
    ];
    let service = Service::start(steps, &[&host]).await;
    let azure = service.azure();
    let grant = clock::run(
        &service,
        azure.grant(&recorded.resource(), Access::Read, HOUR),
    )
    .await
    .unwrap();
    assert_eq!(length(&service, &grant.page_blob()).await.unwrap(), SIZE);
    service.assert_used_up();
}

/// `diskState` `ActiveSAS`: somebody else's access, or that of a run that was killed.
#[tokio::test(start_paused = true)]
async fn access_that_is_open_is_closed_first() {
    let recorded = exchanges("snapshot-access");
    assert_eq!(recorded[6].json()["properties"]["diskState"], "ActiveSAS");
    let steps = [6, 7, 8, 3, 4].map(|at| recorded[at].clone()).to_vec();
    let order: Vec<_> = steps.iter().map(|one| one.path().to_owned()).collect();
    let service = Service::start(steps, &[]).await;
    let azure = service.azure();
    let grant = clock::run(
        &service,
        azure.grant(&recorded[3].resource(), Access::Read, HOUR),
    )
    .await
    .unwrap();
    let seen: Vec<_> = service
        .seen()
        .iter()
        .map(|seen| seen.target.split('?').next().unwrap().to_owned())
        .collect();
    assert_eq!(seen, order);
    clock::run(&service, grant.revoke()).await.unwrap();
}

/// The source of this recording put a word in place of the SAS. What was opened is given back.
#[tokio::test(start_paused = true)]
async fn a_sas_that_is_none_is_refused_and_given_back() {
    let recorded = exchanges("disk-access");
    let mut steps = recorded.clone();
    // The results at `Location`, which the client need not read.
    steps.retain(|one| !one.target.contains("monitor=true"));
    let disk = Exchange::made("GET", recorded[0].resource().as_str(), 200, &json!({}));
    steps.push(disk);
    let service = Service::start(steps, &[]).await;
    let azure = service.azure();
    let id = recorded[0].resource();
    let error = clock::run(
        &service,
        azure.grant(&id, Access::Read, Duration::from_secs(100)),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidAnswer, "{error}");
    assert!(!error.to_string().contains("PLACEHOLDER"), "{error}");
    assert_eq!(service.seen()[1].json(), recorded[0].sent_json());
    service.assert_used_up();
}
