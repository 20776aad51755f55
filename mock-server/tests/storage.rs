//! Storage accounts: who may, what becomes of containers, blobs and copies, and the shapes of refusals.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use common::{Answer, Azure, BLOB_VERSION};
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use mock_server::{
    Action, Config, DEFAULT_STORAGE_KEY, Disk, Fault, KIB, MIB, OperationPolicy, Scenario,
    StorageAccount,
};
use sha2::Sha256;
use std::{collections::BTreeMap, time::Duration};

const SNAPSHOT: &str = "resourceGroups/rg1/providers/Microsoft.Compute/snapshots/s1";

async fn start(operations: OperationPolicy) -> Azure {
    let mut disk = Disk::new("d1", MIB)
        .pattern(1, 0, 64 * KIB)
        .pattern(2, 512 * KIB, 4 * KIB);
    disk.resource_group = Some("rg1".into());
    let azure = Azure::start(Config {
        scenario: Scenario::new().disk(disk).storage_account("stage"),
        operations,
        arm_page_size: 2,
        ..Config::default()
    })
    .await;
    azure.snapshot("rg1", "s1", "d1").await;
    azure
}

fn hmac(text: &str) -> String {
    let key = STANDARD.decode(DEFAULT_STORAGE_KEY).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The time in the form of HTTP, by the system's own `date`.
fn http_date() -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A request to `/stage/<path>` with Shared Key.
async fn signed(
    azure: &Azure,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    signed_at(azure, method, path, headers, body, &http_date()).await
}

async fn signed_at(
    azure: &Azure,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
    date: &str,
) -> Answer {
    let body = body.into();
    let length = body.len().to_string();
    let mut all = vec![("x-ms-date", date), ("x-ms-version", BLOB_VERSION)];
    all.extend_from_slice(headers);
    let mut canonical: Vec<_> = all
        .iter()
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    canonical.sort();
    let (resource, query) = path.split_once('?').unwrap_or((path, ""));
    let parameters: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let mut text = format!(
        "{method}\n\n\n{}\n\n\n\n\n\n\n\n\n{}/stage/stage/{resource}",
        if body.is_empty() { "" } else { &length },
        canonical.concat()
    );
    for (name, value) in parameters {
        text.push_str(&format!("\n{name}:{value}"));
    }
    let authorization = format!("SharedKey stage:{}", hmac(&text));
    all.push(("authorization", &authorization));
    if method == Method::PUT {
        all.push(("content-length", &length));
    }
    let url = format!("{}/stage/{path}", azure.emulator.http_url());
    azure.send(method, &url, &all, body).await.unwrap()
}

/// The query of an account SAS that ends in 2099.
fn account_sas(services: &str, types: &str, permissions: &str) -> String {
    let (version, expiry) = ("2022-11-02", "2099-01-01T00:00:00Z");
    let text = format!("stage\n{permissions}\n{services}\n{types}\n\n{expiry}\n\n\n{version}\n\n");
    format!(
        "sv={version}&ss={services}&srt={types}&sp={permissions}&se={expiry}&sig={}",
        encode(&hmac(&text))
    )
}

/// The query of a service SAS of a container (`c`) or blob (`b`).
fn service_sas(kind: &str, resource: &str, permissions: &str, expiry: &str) -> String {
    let version = "2020-12-06";
    let text = format!(
        "{permissions}\n\n{expiry}\n/blob/stage/{resource}\n\n\n\n{version}\n{kind}\n\n\n\n\n\n\n"
    );
    format!(
        "sv={version}&sr={kind}&sp={permissions}&se={expiry}&sig={}",
        encode(&hmac(&text))
    )
}

async fn with_sas(azure: &Azure, method: Method, path: &str, sas: &str) -> Answer {
    let joint = if path.contains('?') { '&' } else { '?' };
    let url = format!("{}/stage/{path}{joint}{sas}", azure.emulator.http_url());
    azure
        .send(method, &url, &[("x-ms-version", BLOB_VERSION)], "")
        .await
        .unwrap()
}

async fn container(azure: &Azure) {
    signed(azure, Method::PUT, "box?restype=container", &[], "")
        .await
        .expect(201);
}

async fn blob(azure: &Azure, name: &str, len: u64) {
    let len = len.to_string();
    let headers = [
        ("x-ms-blob-type", "PageBlob"),
        ("x-ms-blob-content-length", len.as_str()),
        ("x-ms-meta-job", "j.1"),
    ];
    signed(azure, Method::PUT, &format!("box/{name}"), &headers, "")
        .await
        .expect(201);
}

#[track_caller]
fn refused(answer: Answer, status: u16, code: &str) {
    let answer = answer.expect(status);
    assert_eq!(answer.header("x-ms-error-code"), Some(code));
    assert!(answer.header("x-ms-request-id").is_some());
    assert!(
        answer.body.is_empty() || answer.text().contains(&format!("<Code>{code}</Code>")),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn containers_and_page_blobs_live_and_die() {
    let azure = start(OperationPolicy::default()).await;
    refused(
        signed(&azure, Method::PUT, "Bad_Name?restype=container", &[], "").await,
        400,
        "InvalidResourceName",
    );
    refused(
        signed(&azure, Method::HEAD, "box/a", &[], "").await,
        404,
        "ContainerNotFound",
    );
    container(&azure).await;
    refused(
        signed(&azure, Method::PUT, "box?restype=container", &[], "").await,
        409,
        "ContainerAlreadyExists",
    );
    signed(&azure, Method::HEAD, "box?restype=container", &[], "")
        .await
        .expect(200);
    refused(
        signed(&azure, Method::GET, "box/a", &[], "").await,
        404,
        "BlobNotFound",
    );
    for name in ["run/a", "run/b%20c", "run/d", "other"] {
        blob(&azure, name, 8192).await;
    }
    let write = [
        ("x-ms-page-write", "update"),
        ("x-ms-range", "bytes=1024-2047"),
    ];
    signed(
        &azure,
        Method::PUT,
        "box/run/a?comp=page",
        &write,
        vec![7; 1024],
    )
    .await
    .expect(201);
    let clear = [
        ("x-ms-page-write", "clear"),
        ("x-ms-range", "bytes=1536-2047"),
    ];
    signed(&azure, Method::PUT, "box/run/a?comp=page", &clear, "")
        .await
        .expect(201);
    let beyond = [
        ("x-ms-page-write", "update"),
        ("x-ms-range", "bytes=8192-8703"),
    ];
    refused(
        signed(
            &azure,
            Method::PUT,
            "box/run/a?comp=page",
            &beyond,
            vec![7; 512],
        )
        .await,
        416,
        "InvalidPageRange",
    );
    let list = signed(&azure, Method::GET, "box/run/a?comp=pagelist", &[], "")
        .await
        .expect(200);
    assert!(
        list.text()
            .contains("<PageList><PageRange><Start>1024</Start><End>1535</End></PageRange>"),
        "{}",
        list.text()
    );
    let read = signed(
        &azure,
        Method::GET,
        "box/run/a",
        &[("x-ms-range", "bytes=1000-1535")],
        "",
    )
    .await
    .expect(206);
    assert_eq!(read.header("content-range"), Some("bytes 1000-1535/8192"));
    assert_eq!(&read.body[..24], [0; 24]);
    assert_eq!(&read.body[24..], [7; 512]);
    let head = signed(&azure, Method::HEAD, "box/run/a", &[], "")
        .await
        .expect(200);
    assert_eq!(head.header("content-length"), Some("8192"));
    assert_eq!(head.header("x-ms-blob-type"), Some("PageBlob"));
    assert_eq!(head.header("x-ms-meta-job"), Some("j.1"));
    assert_eq!(head.header("x-ms-copy-id"), None);

    let first = "box?restype=container&comp=list&prefix=run/&include=metadata";
    let page = signed(&azure, Method::GET, first, &[], "")
        .await
        .expect(200)
        .text();
    assert_eq!(page.matches("<Blob>").count(), 2, "{page}");
    assert!(page.contains("<Name>run/a</Name>") && page.contains("<job>j.1</job>"));
    let marker = page.split_once("<NextMarker>").unwrap().1;
    let marker = encode(marker.split_once('<').unwrap().0);
    let second = format!("{first}&marker={marker}");
    let page = signed(&azure, Method::GET, &second, &[], "")
        .await
        .expect(200)
        .text();
    assert_eq!(page.matches("<Blob>").count(), 1, "{page}");
    assert!(page.contains("<Name>run/d</Name>") && page.contains("<NextMarker />"));

    signed(&azure, Method::DELETE, "box/run/a", &[], "")
        .await
        .expect(202);
    refused(
        signed(&azure, Method::DELETE, "box/run/a", &[], "").await,
        404,
        "BlobNotFound",
    );
    assert_eq!(azure.emulator.state().blobs("stage").len(), 3);
    signed(&azure, Method::DELETE, "box?restype=container", &[], "")
        .await
        .expect(202);
    assert!(
        azure.emulator.state().storage_accounts[0]
            .containers
            .is_empty()
    );
    assert!(azure.emulator.unmodelled().is_empty());
}

#[tokio::test]
async fn a_key_must_sign_what_is_sent_when_it_is_sent() {
    let azure = start(OperationPolicy::default()).await;
    container(&azure).await;
    let url = format!("{}/stage/box?restype=container", azure.emulator.http_url());
    let version = ("x-ms-version", BLOB_VERSION);
    let send = |headers: Vec<(&'static str, &'static str)>| {
        let (azure, url) = (&azure, url.clone());
        async move { azure.send(Method::GET, &url, &headers, "").await.unwrap() }
    };
    refused(send(vec![]).await, 400, "MissingRequiredHeader");
    refused(
        send(vec![version]).await,
        401,
        "NoAuthenticationInformation",
    );
    refused(
        send(vec![version, ("authorization", "SharedKey stage:AAAA")]).await,
        403,
        "AuthenticationFailed",
    );
    refused(
        signed_at(
            &azure,
            Method::HEAD,
            "box?restype=container",
            &[],
            "",
            "Mon, 23 Nov 2015 09:10:11 GMT",
        )
        .await,
        403,
        "AuthenticationFailed",
    );
    // The same account under a host name of its own.
    let (host, path) = ("stage.blob.localhost", "/box?restype=container");
    let date = http_date();
    let text = format!(
        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{BLOB_VERSION}\n/stage/box\nrestype:container"
    );
    let authorization = format!("SharedKey stage:{}", hmac(&text));
    let headers = [
        ("host", host),
        ("x-ms-date", &*date),
        version,
        ("authorization", &*authorization),
    ];
    let url = format!("{}{path}", azure.emulator.http_url());
    azure
        .send(Method::GET, &url, &headers, "")
        .await
        .unwrap()
        .expect(200);
}

#[tokio::test]
async fn signatures_open_what_they_say_and_no_more() {
    let azure = start(OperationPolicy::default()).await;
    container(&azure).await;
    blob(&azure, "a", 512).await;
    let head = |path: &'static str, sas: String| {
        let azure = &azure;
        async move { with_sas(azure, Method::HEAD, path, &sas).await }
    };
    let denied = "AuthorizationPermissionMismatch";
    head("box/a", account_sas("b", "o", "r")).await.expect(200);
    refused(head("box/a", account_sas("b", "o", "w")).await, 403, denied);
    refused(
        head("box/a", account_sas("b", "c", "r")).await,
        403,
        "AuthorizationResourceTypeMismatch",
    );
    refused(
        head("box/a", account_sas("q", "o", "r")).await,
        403,
        "AuthorizationServiceMismatch",
    );
    let forged = account_sas("b", "o", "r").replace("sp=r", "sp=rwd");
    refused(head("box/a", forged).await, 403, "AuthenticationFailed");
    let make = "second?restype=container";
    let sas = account_sas("b", "c", "c");
    with_sas(&azure, Method::PUT, make, &sas).await.expect(201);

    let year = "2099-01-01T00:00:00Z";
    head("box/a", service_sas("b", "box/a", "r", year))
        .await
        .expect(200);
    head("box/a", service_sas("c", "box", "r", year))
        .await
        .expect(200);
    refused(
        head("box/a", service_sas("b", "box/b", "r", year)).await,
        403,
        "AuthenticationFailed",
    );
    refused(
        head(
            "box/a",
            service_sas("b", "box/a", "r", "2020-01-01T00:00:00Z"),
        )
        .await,
        403,
        "AuthenticationFailed",
    );
    let string = azure.emulator.signed_connection_string("stage", year);
    let (_, sas) = string.split_once("SharedAccessSignature=").unwrap();
    head("box/a", sas.to_owned()).await.expect(200);
    let list = "box?restype=container&comp=list";
    let sas = service_sas("c", "box", "l", year);
    with_sas(&azure, Method::GET, list, &sas).await.expect(200);
    let ends = Fault::new("Container_ListBlobs", Action::ExpireSas).nth(1);
    azure.emulator.fault(ends);
    for _ in 0..2 {
        let answer = with_sas(&azure, Method::GET, list, &sas).await;
        refused(answer, 403, "AuthenticationFailed");
    }
    let sas = service_sas("c", "box", "r", year);
    refused(with_sas(&azure, Method::GET, list, &sas).await, 403, denied);
    let sas = service_sas("c", "box", "d", year);
    with_sas(&azure, Method::DELETE, "box/a", &sas)
        .await
        .expect(202);
    assert!(azure.emulator.unmodelled().is_empty());
}

async fn start_copy(azure: &Azure, source: &str) -> Answer {
    let headers = [("x-ms-copy-source", source), ("x-ms-meta-job", "j.2")];
    signed(azure, Method::PUT, "box/copy", &headers, "").await
}

async fn copy_status(azure: &Azure) -> (String, Answer) {
    let head = signed(azure, Method::HEAD, "box/copy", &[], "")
        .await
        .expect(200);
    (head.header("x-ms-copy-status").unwrap().to_owned(), head)
}

#[tokio::test]
async fn a_snapshot_is_copied_while_nobody_waits() {
    let azure = start(OperationPolicy {
        polls_in_progress: 2,
        ..OperationPolicy::default()
    })
    .await;
    container(&azure).await;
    let source = azure.grant(SNAPSHOT, "Read").await;
    let begun = start_copy(&azure, &source).await.expect(202);
    assert_eq!(begun.header("x-ms-copy-status"), Some("pending"));
    let id = begun.header("x-ms-copy-id").unwrap().to_owned();
    let busy = "PendingCopyOperation";
    refused(start_copy(&azure, &source).await, 409, busy);
    refused(
        signed(&azure, Method::DELETE, "box/copy", &[], "").await,
        409,
        busy,
    );
    let progress = |head: &Answer| head.header("x-ms-copy-progress").unwrap().to_owned();
    let (status, head) = copy_status(&azure).await;
    assert_eq!((&*status, &*progress(&head)), ("pending", "0/1049088"));
    let (status, head) = copy_status(&azure).await;
    assert_eq!((&*status, &*progress(&head)), ("pending", "349696/1049088"));
    let (status, head) = copy_status(&azure).await;
    assert_eq!(
        (&*status, &*progress(&head)),
        ("success", "1049088/1049088")
    );
    assert_eq!(head.header("x-ms-copy-id"), Some(&*id));
    assert_eq!(head.header("x-ms-meta-job"), Some("j.2"));
    let shown = head.header("x-ms-copy-source").unwrap();
    assert!(
        source.starts_with(shown) && !shown.contains("sig"),
        "{shown}"
    );
    azure.revoke(SNAPSHOT).await;

    // The data, its holes and the VHD footer.
    let image = signed(&azure, Method::GET, "box/copy", &[], "")
        .await
        .expect(200)
        .body;
    assert_eq!(
        &image[..1 << 20],
        azure.emulator.disk_read("d1", 0, MIB).unwrap()
    );
    assert_eq!(&image[1 << 20..][..8], b"conectix");
    let list = signed(&azure, Method::GET, "box/copy?comp=pagelist", &[], "")
        .await
        .expect(200);
    assert_eq!(
        list.text().matches("<PageRange>").count(),
        3,
        "{}",
        list.text()
    );
    refused(
        signed(
            &azure,
            Method::PUT,
            &format!("box/copy?comp=copy&copyid={id}"),
            &[("x-ms-copy-action", "abort")],
            "",
        )
        .await,
        409,
        "NoPendingCopyOperation",
    );
    assert!(azure.emulator.unmodelled().is_empty());
}

#[tokio::test]
async fn a_copy_ends_early_when_it_is_aborted_or_its_source_is_closed() {
    let azure = start(OperationPolicy::default()).await;
    container(&azure).await;
    refused(
        start_copy(
            &azure,
            &format!("{}/md-none/x/abcd?sig=x", azure.emulator.http_url()),
        )
        .await,
        403,
        "CannotVerifyCopySource",
    );
    let source = azure.grant(SNAPSHOT, "Read").await;
    azure
        .emulator
        .fault(Fault::new("StorageBlob_StartCopy", Action::NeverEnding));
    let id = start_copy(&azure, &source).await.expect(202);
    let id = id.header("x-ms-copy-id").unwrap().to_owned();
    let abort = |id: String| {
        let azure = &azure;
        async move {
            let path = format!("box/copy?comp=copy&copyid={id}");
            signed(
                azure,
                Method::PUT,
                &path,
                &[("x-ms-copy-action", "abort")],
                "",
            )
            .await
        }
    };
    refused(abort("another".into()).await, 409, "CopyIdMismatch");
    abort(id).await.expect(204);
    let (status, head) = copy_status(&azure).await;
    assert_eq!(
        (&*status, head.header("content-length")),
        ("aborted", Some("0"))
    );

    start_copy(&azure, &source).await.expect(202);
    azure.revoke(SNAPSHOT).await;
    let (status, head) = copy_status(&azure).await;
    assert_eq!(status, "failed");
    assert!(
        head.header("x-ms-copy-status-description")
            .unwrap()
            .contains("403")
    );
    let unverified = "CannotVerifyCopySource";
    refused(start_copy(&azure, &source).await, 403, unverified);

    azure.emulator.clear_faults();
    azure
        .emulator
        .fault(Fault::new("StorageBlob_StartCopy", Action::RevokeSas).nth(1));
    let source = azure.grant(SNAPSHOT, "Read").await;
    refused(start_copy(&azure, &source).await, 403, unverified);
    assert_eq!(azure.emulator.faults()[0].fired, 1);

    azure.emulator.clear_faults();
    let failure = Action::FailOperation {
        code: "500 InternalError".into(),
        message: "Copy failed.".into(),
    };
    azure
        .emulator
        .fault(Fault::new("StorageBlob_StartCopy", failure));
    let source = azure.grant(SNAPSHOT, "Read").await;
    start_copy(&azure, &source).await.expect(202);
    let (status, head) = copy_status(&azure).await;
    assert_eq!(status, "failed");
    let description = head.header("x-ms-copy-status-description");
    assert_eq!(description, Some("500 InternalError \"Copy failed.\""));
    azure.revoke(SNAPSHOT).await;

    azure.emulator.clear_faults();
    azure
        .emulator
        .fault(Fault::new("StorageBlob_StartCopy", Action::NeverEnding));
    let source = azure.grant(SNAPSHOT, "Read").await;
    start_copy(&azure, &source).await.expect(202);
    azure.emulator.advance_clock(Duration::from_secs(3601));
    assert_eq!(copy_status(&azure).await.0, "failed", "the access ran out");
    assert!(azure.emulator.unmodelled().is_empty());
}

#[tokio::test]
async fn blobs_are_copied_within_an_account() {
    let azure = start(OperationPolicy::default()).await;
    container(&azure).await;
    blob(&azure, "a", 1024).await;
    let write = [
        ("x-ms-page-write", "update"),
        ("x-ms-range", "bytes=512-1023"),
    ];
    signed(&azure, Method::PUT, "box/a?comp=page", &write, vec![9; 512])
        .await
        .expect(201);
    let source = format!("{}/stage/box/a", azure.emulator.http_url());
    start_copy(&azure, &source).await.expect(202);
    let copy = signed(&azure, Method::GET, "box/copy", &[], "")
        .await
        .expect(200);
    assert_eq!(&copy.body[512..], [9; 512]);
    let missing = format!("{}/stage/box/none", azure.emulator.http_url());
    refused(
        start_copy(&azure, &missing).await,
        404,
        "CannotVerifyCopySource",
    );
}

#[tokio::test]
async fn what_is_not_modelled_says_so_and_bad_scenarios_are_refused() {
    let azure = start(OperationPolicy::default()).await;
    container(&azure).await;
    let lease = signed(&azure, Method::PUT, "box/a?comp=lease", &[], "").await;
    assert_eq!(lease.status, 501);
    let block = [
        ("x-ms-blob-type", "BlockBlob"),
        ("x-ms-blob-content-length", "0"),
    ];
    assert_eq!(
        signed(&azure, Method::PUT, "box/a", &block, "")
            .await
            .status,
        501
    );
    assert!(azure.emulator.unmodelled().len() == 2);
    for (name, key) in [("Upper", ""), ("ab", ""), ("good", "no base64!")] {
        let mut scenario = Scenario::new();
        scenario.storage_accounts.push(StorageAccount {
            name: name.into(),
            keys: [key]
                .iter()
                .filter(|key| !key.is_empty())
                .map(|&key| key.into())
                .collect(),
        });
        assert!(azure.emulator.load(&scenario).is_err(), "{name}");
    }
}
