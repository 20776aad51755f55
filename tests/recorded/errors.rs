//! Refusals in all their recorded forms: what kind they are, what Azure said, and whether another attempt is made.

use std::collections::BTreeMap;
use std::time::Duration;

use azure_vm_fd::azure::{Azure, Error, ErrorKind, ResourceId};
use serde_json::json;

use crate::clock;
use crate::recording::{Exchange, exchanges};
use crate::service::Service;

/// Attempts of a job at what may pass (`RetryPolicy::JOB`).
const PATIENT: u32 = 12;

struct Expected {
    kind: ErrorKind,
    code: Option<&'static str>,
    /// Beginning of the text.
    message: &'static str,
    attempts: u32,
}

fn expect(
    kind: ErrorKind,
    code: impl Into<Option<&'static str>>,
    message: &'static str,
    attempts: u32,
) -> Expected {
    Expected {
        kind,
        code: code.into(),
        message,
        attempts,
    }
}

/// In the order of the recording, but for the operations at its end (`operations.rs`).
fn zoo() -> Vec<Expected> {
    use ErrorKind::{
        Conflict, Forbidden, NotFound, Refused, Service, Throttled, Timeout, Unauthorized,
    };
    vec![
        expect(
            Conflict,
            "OperationNotAllowed",
            "Billing Profile change is not allowed. For more information, see https://aka.ms/low-priority/errormessages.; Billing Profile change is not allowed when the VM 'chashvm' is currently allocated.",
            1,
        ),
        expect(
            Conflict,
            "OperationNotAllowed",
            "Updating proximity placement group of VM chashvm is not allowed",
            1,
        ),
        expect(
            Conflict,
            "PropertyChangeNotAllowed",
            "Changing property 'priority' is not allowed.",
            1,
        ),
        expect(
            Conflict,
            "PropertyChangeNotAllowed",
            "Changing property 'priority' is not allowed.",
            1,
        ),
        expect(
            Conflict,
            "OperationNotAllowed",
            "Operation results in exceeding quota limits of Core. Maximum allowed: 100, Current in use: 56",
            1,
        ),
        expect(
            NotFound,
            "ResourceNotFound",
            "The Resource 'Microsoft.Compute/virtualMachines/javavm/extensions/ManagedIdentityExtensionForLinux' under resource group '56535a07b46448e' was not found.",
            1,
        ),
        expect(
            NotFound,
            "ResourceGroupNotFound",
            "Resource group 'vmbdtest8793' could not be found.",
            1,
        ),
        expect(
            NotFound,
            "ResourceNotFound",
            "The Resource 'Microsoft.Network/networkInterfaces/primary-nic-cfg' under resource group 'rgcovs46558701' was not found.",
            1,
        ),
        expect(
            Forbidden,
            "AuthorizationFailed",
            "The client '9c776d20-14a6-4ede-b35d-bdf4b5e2bd75' with object id '9c776d20-14a6-4ede-b35d-bdf4b5e2bd75' does not have authorization to perform action 'microsoft.insights/eventtypes/values/read'",
            1,
        ),
        expect(
            Forbidden,
            "LinkedAuthorizationFailed",
            "The client has permission to perform action 'Microsoft.Network/virtualNetworks/subnets/join/action'",
            1,
        ),
        expect(
            Conflict,
            "MissingSubscriptionRegistration",
            "The subscription is not registered to use namespace 'Microsoft.DomainRegistration'.",
            1,
        ),
        expect(
            Refused,
            "InvalidParameter",
            "Required parameter 'adminUsername' is missing (null).",
            1,
        ),
        expect(
            Refused,
            "PrincipalNotFound",
            "Principal cd4447e3e29a4b099ee6daff5a4ac3e4 does not exist in the directory",
            1,
        ),
        // A token that is not accepted is replaced once.
        expect(
            Unauthorized,
            None,
            "Unauthorized, without an explanation",
            2,
        ),
        expect(
            Unauthorized,
            "Unauthorized",
            "AKV10022: Invalid audience.",
            2,
        ),
        expect(
            Conflict,
            "PreconditionFailed",
            "The Zone www.contoso-307.com has been modified (etag mismatch).",
            1,
        ),
        expect(
            Service,
            "InternalServerError",
            "An error occurred.",
            PATIENT,
        ),
        expect(
            Service,
            "InternalServerError",
            "An error occurred.",
            PATIENT,
        ),
        expect(
            Service,
            None,
            "Service Unavailable, without an explanation",
            PATIENT,
        ),
        expect(
            Service,
            None,
            "Service Unavailable, without an explanation",
            PATIENT,
        ),
        expect(
            Timeout,
            "ResourceReadFailed",
            "Policy required full resource content to evaluate the request.",
            PATIENT,
        ),
        expect(
            Timeout,
            "GatewayTimeout",
            "The gateway did not receive a response from 'Microsoft.ContainerRegistry' within the specified time period.",
            PATIENT,
        ),
        expect(
            Throttled,
            "429",
            "Cannot acquire exclusive lock to create, update or delete this site. Retry the request later.",
            PATIENT,
        ),
    ]
}

/// A request of ours with the method of the recorded one, and where it goes.
fn target(method: &str) -> ResourceId {
    let kind = match method {
        "PUT" => "Microsoft.Network/networkInterfaces",
        _ => "Microsoft.Compute/snapshots",
    };
    ResourceId::new("5ab5c21b-0e52-4a6f-9d3c-7788990011aa", "rg", kind, "any")
}

async fn ask(azure: &Azure, method: &str) -> Result<(), Error> {
    let id = target(method);
    match method {
        "GET" => azure.snapshot(&id).await.map(|_read| ()),
        "PUT" => {
            let body = json!({"location": "westeurope", "properties": {}});
            azure.create_network_interface(&id, &body).await.map(|_| ())
        }
        "PATCH" => azure.update_snapshot_tags(&id, BTreeMap::new()).await,
        "POST" => azure.revoke(&id).await,
        "DELETE" => azure.delete_snapshot(&id).await,
        other => panic!("{other}"),
    }
}

fn path(method: &str) -> String {
    let action = if method == "POST" {
        "/endGetAccess"
    } else {
        ""
    };
    format!("{}{action}", target(method))
}

#[tokio::test(start_paused = true)]
async fn every_recorded_refusal_is_understood() {
    let mut recorded = exchanges("errors");
    recorded.truncate(23);
    let zoo = zoo();
    assert_eq!(recorded.len(), zoo.len());
    for (number, (refusal, expected)) in recorded.iter().zip(&zoo).enumerate() {
        let method = refusal.method.as_str();
        let service = Service::start(vec![refusal.at(method, &path(method))], &[]).await;
        let azure = service.azure();
        let outcome = clock::run(&service, ask(&azure, method)).await;
        let seen = service.seen().len();
        if method == "DELETE" && expected.kind == ErrorKind::NotFound {
            // What is not there is deleted.
            outcome.unwrap();
            assert_eq!(seen, 1);
            continue;
        }
        let error = outcome.unwrap_err();
        let found = (error.kind(), error.code(), error.status(), error.attempts());
        let wanted = (
            expected.kind,
            expected.code,
            Some(refusal.status),
            expected.attempts,
        );
        assert_eq!(found, wanted, "{number}: {error}");
        assert!(
            error.message().starts_with(expected.message),
            "{number}: {error}"
        );
        assert_eq!(seen, usize::try_from(error.attempts()).unwrap());
        let request_id = refusal
            .headers
            .iter()
            .find(|(name, _)| name == "x-ms-request-id")
            .map(|(_, id)| id.as_str());
        assert_eq!(error.request_id(), request_id, "{number}");
        service.assert_nothing_else_was_asked();
    }
}

/// Two header lines of one name, `Retry-After: 1200`, a flat body with a JSON document in a text.
#[tokio::test(start_paused = true)]
async fn throttling_is_waited_out_by_a_job_and_not_by_a_clean_up() {
    let refusal = exchanges("throttled").remove(0);
    assert_eq!(refusal.headers[0].0, refusal.headers[1].0);
    let service = Service::start(vec![refusal.clone()], &[]).await;
    let azure = service.azure().for_cleanup();
    let error = clock::run(&service, azure.virtual_machines())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.code(), error.attempts()),
        (ErrorKind::Throttled, Some("OperationNotAllowed"), 1)
    );
    assert_eq!(
        error.message(),
        "The server rejected the request because too many requests have been received for this subscription.; \
         HighCostGet30Min; to be repeated after 1200 s"
    );

    let list = exchanges("vms-of-subscription").remove(0);
    let list = Exchange {
        origin: refusal.origin.clone(),
        ..list.at("GET", &refusal.target)
    };
    let service = Service::start(vec![refusal, list], &[]).await;
    let azure = service.azure();
    let vms = clock::run(&service, azure.virtual_machines())
        .await
        .unwrap();
    assert_eq!(vms.len(), 6);
    let seen = service.seen();
    let waited = seen[1].at - seen[0].at;
    assert!(
        // Up to a tenth more, so that not all come back together.
        Duration::from_secs(1200) <= waited && waited < Duration::from_secs(1330),
        "{waited:?}"
    );
    service.assert_used_up();
}
