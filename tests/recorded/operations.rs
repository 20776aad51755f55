//! Long-running operations of the compute and the network provider.

use azure_vm_fd::azure::ErrorKind;
use serde_json::json;

use crate::clock;
use crate::recording::{Exchange, exchanges};
use crate::service::Service;

/// `status`, given at the address that `started` names.
fn status_of(started: &Exchange, status: &Exchange) -> Exchange {
    status.at("GET", started.link("azure-asyncoperation"))
}

#[tokio::test(start_paused = true)]
async fn an_interface_is_made() {
    let recorded = exchanges("interface-and-vm");
    // Of the operations that were started here no status was recorded, of another one it was.
    let (put, get, status) = (&recorded[1], &recorded[2], &recorded[0]);
    let service = Service::start(vec![put.clone(), status_of(put, status), get.clone()], &[]).await;
    let azure = service.azure();
    let made = clock::run(
        &service,
        azure.create_network_interface(&put.resource(), &put.sent_json()),
    )
    .await
    .unwrap();
    assert_eq!(made.to_string(), get.json().to_string());
    assert_eq!(service.seen()[0].json(), put.sent_json());
    service.assert_used_up();
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_made_of_an_existing_disk() {
    let recorded = exchanges("interface-and-vm");
    let (put, get) = (&recorded[4], &recorded[9]);
    let steps = [put, &recorded[18], &recorded[19], get].map(Clone::clone);
    let service = Service::start(steps.to_vec(), &[]).await;
    let azure = service.azure();
    let made = clock::run(
        &service,
        azure.create_virtual_machine(&put.resource(), &put.sent_json()),
    )
    .await
    .unwrap();
    assert_eq!(made.to_string(), get.json().to_string());
    assert_eq!(
        made["properties"]["storageProfile"]["osDisk"]["name"],
        "dsk-22b02430c"
    );
    let seen = service.seen();
    assert_eq!(seen[0].json(), put.sent_json());
    // `Retry-After: 10`.
    let wait = (seen[1].at - seen[0].at).as_secs_f64();
    assert!((10.0..13.0).contains(&wait), "{wait}");
    service.assert_used_up();
}

/// The answers ask for 10 s, then for 30 s, then for nothing.
#[tokio::test(start_paused = true)]
async fn a_machine_is_deleted_at_the_pace_that_azure_asks_for() {
    let recorded = exchanges("interface-and-vm");
    let service = Service::start(recorded[10..14].to_vec(), &[]).await;
    let id = recorded[10].resource();
    clock::run(&service, service.azure().delete_virtual_machine(&id))
        .await
        .unwrap();
    let seen = service.seen();
    let waits: Vec<_> = seen
        .windows(2)
        .map(|pair| (pair[1].at - pair[0].at).as_secs_f64())
        .collect();
    for (wait, asked) in waits.iter().zip([10.0, 30.0, 1.0]) {
        assert!((asked..asked + 3.0).contains(wait), "{waits:?}");
    }
    assert_eq!(waits.len(), 3);
    service.assert_used_up();
}

/// HTTP 200, status `Failed`.
#[tokio::test(start_paused = true)]
async fn failed_operations_are_errors_with_azures_code() {
    let failed = exchanges("errors").split_off(23);
    let accepted = &exchanges("disk-upload")[4];
    let expected = [
        (
            "InvalidParameter",
            "Disks or snapshot cannot be resized down.",
            "92228bc1-1ee5-490f-b6d0-fa0a7c14a9ed",
        ),
        (
            "InternalExecutionError",
            "An internal execution error occurred.",
            "0ccff3de-7892-437c-8cda-8d33d46a320b",
        ),
        (
            "InvalidParameter",
            "Disks or snapshot cannot be resized down.",
            "ac984df2-b5a3-443f-9571-69432ced7cbc",
        ),
    ];
    assert_eq!(failed.len(), expected.len());
    for (status, (code, message, request_id)) in failed.iter().zip(expected) {
        let steps = vec![accepted.clone(), status_of(accepted, status)];
        let service = Service::start(steps, &[]).await;
        let azure = service.azure();
        let error = clock::run(&service, azure.delete_disk(&accepted.resource()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OperationFailed);
        assert_eq!(error.code(), Some(code));
        assert_eq!(
            error.message(),
            format!("the operation ended as Failed: {message}")
        );
        assert_eq!(error.request_id(), Some(request_id));
        service.assert_used_up();
    }
}

/// Without `Azure-AsyncOperation` the client polls by `Location`, whose last answer is 200 with no body.
#[tokio::test(start_paused = true)]
async fn operations_end_at_their_location_as_well() {
    for (name, delete, last) in [("disk-upload", 4, 6), ("interface-and-vm", 10, 14)] {
        let recorded = exchanges(name);
        let mut accepted = recorded[delete].clone();
        accepted
            .headers
            .retain(|(name, _)| name != "Azure-AsyncOperation");
        let steps = vec![
            accepted.clone(),
            Exchange::made("GET", accepted.link("location"), 202, &json!(null)),
            recorded[last].clone(),
        ];
        let service = Service::start(steps, &[]).await;
        let azure = service.azure();
        let id = accepted.resource();
        let deleted = async {
            match name {
                "disk-upload" => azure.delete_disk(&id).await,
                _ => azure.delete_virtual_machine(&id).await,
            }
        };
        clock::run(&service, deleted).await.unwrap();
        service.assert_used_up();
    }
}
