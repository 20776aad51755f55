//! Disks and snapshots: made, awaited, deleted.

use std::time::Duration;

use azure_vm_fd::azure::snapshot::unreadable;
use azure_vm_fd::azure::{ErrorKind, ResourceId};
use serde_json::json;

use crate::clock;
use crate::recording::{Exchange, exchanges};
use crate::service::Service;

/// Waits between the requests so far, in seconds.
fn waits(service: &Service) -> Vec<f64> {
    let seen = service.seen();
    seen.windows(2)
        .map(|pair| (pair[1].at - pair[0].at).as_secs_f64())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_upload_disk_is_made_and_deleted() {
    let recorded = exchanges("disk-upload");
    // The last request was another client's: ours asks one of the two polling addresses.
    let service = Service::start(recorded[..6].to_vec(), &[]).await;
    let azure = service.azure();
    let id = recorded[0].resource();
    let body = recorded[0].sent_json();
    let made = clock::run(&service, azure.create_upload_disk(&id, &body))
        .await
        .unwrap();
    assert_eq!(made.to_string(), recorded[2].json().to_string());
    assert_eq!(made["properties"]["diskState"], "ReadyToUpload");
    assert_eq!(made["properties"].get("diskSizeGB"), None);
    assert_eq!(service.seen()[0].json(), body);
    // `Retry-After: 2`.
    let wait = waits(&service)[0];
    assert!((2.0..5.0).contains(&wait), "{wait}");
    // Read again, as recorded.
    assert_eq!(clock::run(&service, azure.disk(&id)).await.unwrap(), made);

    clock::run(&service, azure.delete_disk(&id)).await.unwrap();
    let requests = service.requests();
    assert!(requests[4].starts_with("DELETE "), "{requests:#?}");
    assert_eq!(service.seen()[5].target, recorded[5].target);
    service.assert_used_up();
}

/// API version 2023-04-02: neither `diskSizeGB` nor `diskSizeBytes` before there is content.
#[tokio::test(start_paused = true)]
async fn a_disk_without_a_size_is_ready_to_upload() {
    let recorded = exchanges("disk-ready-to-upload");
    let status = &recorded[0];
    let disk = &recorded[1];
    let accepted = Exchange {
        headers: vec![(
            "Azure-AsyncOperation".into(),
            format!("{}{}", status.origin, status.target),
        )],
        ..Exchange::made("PUT", &disk.target, 202, &json!({}))
    };
    let service = Service::start(vec![accepted, status.clone(), disk.clone()], &[]).await;
    let body = json!({
        "location": "westus", "sku": {"name": "Premium_LRS"},
        "properties": {"creationData": {"createOption": "Upload", "uploadSizeBytes": 21_474_836_992_u64}},
    });
    let azure = service.azure();
    let made = clock::run(&service, azure.create_upload_disk(&disk.resource(), &body))
        .await
        .unwrap();
    assert_eq!(made, disk.json());
    assert_eq!(made["properties"].get("diskSizeBytes"), None);
    service.assert_used_up();
}

#[tokio::test(start_paused = true)]
async fn snapshots_full_and_incremental_are_made() {
    let recorded = exchanges("disk-and-snapshots");
    let service = Service::start(recorded.clone(), &[]).await;
    let azure = service.azure();
    // A full one, then an incremental one: PUT, GET; the status, which was recorded in between, need not be asked for.
    for (first, incremental) in [(3, false), (9, true)] {
        let put = &recorded[first];
        let made = clock::run(
            &service,
            azure.create_snapshot(&put.resource(), &put.sent_json()),
        )
        .await
        .unwrap();
        assert_eq!(made.to_string(), recorded[first + 2].json().to_string());
        assert_eq!(made["properties"]["incremental"], incremental);
        assert_eq!(
            made["properties"]["creationData"]["sourceUniqueId"],
            "27422bc8-78f8-4a1c-b210-54592b21038f"
        );
        let seen = service.seen();
        let [.., sent, _] = seen.as_slice() else {
            panic!("{seen:?}")
        };
        assert_eq!(sent.json(), put.sent_json());
    }
    for (read, size) in [(2, 107_374_182_400_u64), (8, 322_122_547_200)] {
        let disk = clock::run(&service, azure.disk(&recorded[read].resource()))
            .await
            .unwrap();
        assert_eq!(disk.to_string(), recorded[read].json().to_string());
        assert_eq!(disk["properties"]["diskSizeBytes"], size);
    }
    service.assert_nothing_else_was_asked();
}

/// 3 KB of signature come back byte for byte: to any other address the service has no answer.
#[tokio::test(start_paused = true)]
async fn long_polling_addresses_come_back_whole() {
    let recorded = exchanges("snapshot-copied-in-background");
    let [put, in_progress, _, succeeded, _] = recorded.as_slice() else {
        panic!()
    };
    let link = put.link("azure-asyncoperation");
    assert!(link.len() > 3000 && link == in_progress.target);
    let mut ready = put.json();
    ready["properties"]["provisioningState"] = "Succeeded".into();
    let service = Service::start(
        vec![
            put.clone(),
            Exchange::made("GET", &put.target, 200, &put.json()),
            in_progress.clone(),
            succeeded.at("GET", link),
            Exchange::made("GET", &put.target, 200, &ready),
        ],
        &[],
    )
    .await;
    let azure = service.azure();
    let made = clock::run(
        &service,
        azure.create_snapshot(&put.resource(), &put.sent_json()),
    )
    .await
    .unwrap();
    assert_eq!(made, ready);
    let seen = service.seen();
    assert_eq!([&seen[2].target, &seen[3].target], [link, link]);
    service.assert_used_up();
}

/// `Succeeded` with `completionPercent` 0.0 is not yet to be read.
#[tokio::test(start_paused = true)]
async fn what_is_copied_in_the_background_is_waited_for() {
    let recorded = exchanges("snapshot-copied-in-background");
    let copying = &recorded[4];
    assert_eq!(unreadable(&copying.json()).unwrap(), "copied to 0 %");

    let complete = copying
        .clone()
        .replacing("\"completionPercent\": 0.0", "\"completionPercent\": 100.0");
    let service = Service::start(vec![copying.clone(), complete.clone()], &[]).await;
    let mut heard = Vec::new();
    let id: ResourceId = copying.resource();
    let azure = service.azure();
    let wait = azure.wait_snapshot_readable(&id, |percent| heard.push(percent));
    let read = clock::run(&service, wait).await.unwrap();
    assert_eq!(read, complete.json());
    assert_eq!(unreadable(&read), None);
    assert_eq!(heard, [0.0]);
    service.assert_used_up();
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_stands_still_is_given_up() {
    let recorded = exchanges("snapshot-copied-in-background");
    let service = Service::start(vec![recorded[4].clone()], &[]).await;
    let azure = service.azure().for_cleanup();
    let id = recorded[4].resource();
    let began = tokio::time::Instant::now();
    let error = clock::run(&service, azure.wait_snapshot_readable(&id, |_| {}))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("copied to 0 %"), "{error}");
    // The patience of the view for clean-up is five minutes, less the wait that would have ended after it.
    let waited = began.elapsed();
    assert!(
        Duration::from_secs(240) < waited && waited < Duration::from_secs(310),
        "{waited:?}"
    );
}
