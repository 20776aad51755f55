//! Faults, counters, TLS and the control interface.
mod common;

use common::{Azure, COMPUTE, DISKS, snapshot_body};
use http::Method;
use http_body_util::{BodyExt, Empty};
use mock_server::{
    Action, Config, Disk, Emulator, Fault, Link, MIB, RetryAfter, Scenario, Vm, pattern,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio_rustls::{TlsConnector, rustls};

const SNAPSHOT: &str = "resourceGroups/rg1/providers/Microsoft.Compute/snapshots/s";

async fn start() -> (Azure, String) {
    let disk = Disk::new("os", 32 * MIB).pattern(1, 0, 8 * MIB);
    let scenario = Scenario::new().vm(Vm::new("rg1", "vm", disk));
    let azure = Azure::start(Config {
        scenario,
        ..Config::default()
    })
    .await;
    let snapshot = azure.snapshot("rg1", "s", "os").await;
    let sas = azure.grant(&snapshot, "Read").await;
    (azure, sas)
}

const WHOLE: [(&str, &str); 2] = [
    ("x-ms-version", "2025-11-05"),
    ("x-ms-range", "bytes=0-1048575"),
];

#[tokio::test]
async fn statuses_and_throttling() {
    let (azure, sas) = start().await;
    let fault =
        |operation: &str, action| azure.emulator.fault(Fault::new(operation, action).nth(1));
    let list = format!("providers/Microsoft.Compute/virtualMachines?{COMPUTE}");
    fault(
        "VirtualMachines_ListAll",
        Action::Throttle {
            retry_after: Some(RetryAfter::Seconds(7)),
        },
    );
    let answer = azure.get(&list).await.expect(429);
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(answer.json()["code"], "OperationNotAllowed");
    assert_eq!(answer.json()["details"][0]["code"], "TooManyRequests");
    azure.get(&list).await.expect(200);
    fault(
        "VirtualMachines_*",
        Action::Status {
            status: 503,
            code: None,
            body: Some(String::new()),
            retry_after: Some(RetryAfter::DateInSeconds(2)),
        },
    );
    let answer = azure.get(&list).await.expect(503);
    assert!(answer.body.is_empty() && answer.header("retry-after").unwrap().ends_with(" GMT"));
    fault("Blob_Get", Action::Throttle { retry_after: None });
    let answer = azure.blob(Method::GET, &sas, "", &[], "").await.expect(503);
    assert_eq!(answer.header("x-ms-error-code"), Some("ServerBusy"));
    fault("Token", Action::status(500));
    azure.login("x", "y", "z").await.expect(500);
}

#[tokio::test]
async fn connections_break() {
    let (azure, sas) = start().await;
    let get = || azure.send(Method::GET, &sas, &WHOLE, "");
    azure
        .emulator
        .fault(Fault::new("Blob_Get", Action::Reset).nth(1));
    // The client may repeat on a fresh connection by itself; a fault that stays cannot be missed.
    azure.emulator.clear_faults();
    azure.emulator.fault(Fault::new("Blob_Get", Action::Reset));
    assert!(get().await.is_err());
    azure.emulator.clear_faults();
    azure.emulator.reset_counters();
    azure.emulator.fault(Fault::new(
        "Blob_Get",
        Action::CutBody { after: 1000.into() },
    ));
    assert!(get().await.is_err());
    assert_eq!(azure.emulator.counters().of("Blob_Get").bytes_out, 1000);
    azure.emulator.clear_faults();
    azure
        .emulator
        .fault(Fault::new("Blob_Get", Action::Stall { after: 1000.into() }));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), get())
            .await
            .is_err()
    );
    azure.emulator.clear_faults();
    azure
        .emulator
        .fault(Fault::new("Blob_Get", Action::ShortBody { by: 512.into() }));
    let answer = get().await.unwrap().expect(206);
    assert_eq!(answer.body.len(), 1_048_576 - 512);
    assert!(
        answer
            .header("content-range")
            .unwrap()
            .starts_with("bytes 0-1048575/")
    );
    azure.emulator.clear_faults();
    azure.emulator.fault(Fault::new(
        "Blob_Get",
        Action::WrongContentRange { by: 512.into() },
    ));
    assert!(
        get()
            .await
            .unwrap()
            .header("content-range")
            .unwrap()
            .starts_with("bytes 512-1049087/")
    );
    azure.emulator.clear_faults();
    assert_eq!(get().await.unwrap().body, pattern::bytes(1, 0, 1 << 20));
    azure
        .emulator
        .fault(Fault::new("Blob_Get", Action::RevokeSas).nth(1));
    azure
        .send(Method::GET, &sas, &WHOLE, "")
        .await
        .unwrap()
        .expect(403);
    get().await.unwrap().expect(403);
}

#[tokio::test]
async fn nobody_gets_through_for_a_time() {
    let (azure, sas) = start().await;
    let get = || azure.send(Method::GET, &sas, &WHOLE, "");
    let refuse = Action::Refuse { seconds: 60 };
    azure.emulator.fault(Fault::new("Blob_Get", refuse).nth(1));
    assert!(get().await.is_err());
    let port = |url: &str| -> u16 { url.rsplit(':').next().unwrap().parse().unwrap() };
    for url in [azure.emulator.http_url(), azure.emulator.https_url()] {
        let refused = tokio::net::TcpStream::connect(("127.0.0.1", port(url))).await;
        assert_eq!(
            refused.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    }
    // On the emulator's clock it is over.
    azure.emulator.advance_clock(Duration::from_secs(61));
    let again = async {
        while get().await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .unwrap();
    azure.emulator.clear_faults();
    azure
        .emulator
        .fault(Fault::new("Blob_Get", Action::OtherRange { by: 4096.into() }).nth(1));
    let other = get().await.unwrap().expect(206);
    assert!(
        other
            .header("content-range")
            .unwrap()
            .starts_with("bytes 4096-1052671/")
    );
    assert_eq!(other.body, pattern::bytes(1, 4096, 1 << 20));
    azure.emulator.clear_faults();
    azure.emulator.fault(Fault::new(
        "Blob_Get",
        Action::OtherRange { by: 512.into() },
    ));
    let footer = format!("bytes={}-{}", 32 * MIB, 32 * MIB + 511);
    let headers = [("x-ms-version", "2025-11-05"), ("x-ms-range", &*footer)];
    let before = azure.send(Method::GET, &sas, &headers, "").await.unwrap();
    assert!(
        before
            .header("content-range")
            .unwrap()
            .starts_with(&format!("bytes {}-{}/", 32 * MIB - 512, 32 * MIB - 1))
    );
    assert_eq!(before.body, vec![0; 512]);
}

#[tokio::test]
async fn only_what_is_felt_has_fired() {
    let (azure, sas) = start().await;
    let fired = || -> Vec<u64> {
        let faults = azure.emulator.faults();
        faults.into_iter().map(|of| of.fired).collect()
    };
    let list = format!("providers/Microsoft.Compute/virtualMachines?{COMPUTE}");
    let ignore = |name: &str| Action::Ignore { name: name.into() };
    let cannot_be_felt = [
        // The body of a HEAD is not sent.
        ("Blob_GetProperties", Action::ShortBody { by: 1.into() }),
        ("Blob_GetProperties", Action::CutBody { after: 0.into() }),
        ("Blob_GetPageRanges", Action::Stall { after: MIB.into() }),
        ("Blob_Get", Action::UntrustedCertificate { seconds: 1 }),
        ("Blob_Get", Action::ExpireToken),
        ("Blob_Get", Action::NeverEnding),
        (
            "Blob_Get",
            Action::OtherRange {
                by: (64 * MIB).into(),
            },
        ),
        ("Blob_Get", ignore("maxresults")),
        ("VirtualMachines_ListAll", Action::RevokeSas),
        (
            "VirtualMachines_ListAll",
            Action::WrongContentRange { by: 512.into() },
        ),
        ("LookUp", Action::Reset),
    ];
    for (operation, action) in cannot_be_felt {
        azure.emulator.clear_faults();
        let told = format!("{action:?} of {operation}");
        azure.emulator.fault(Fault::new(operation, action));
        azure.send(Method::HEAD, &sas, &WHOLE[..1], "").await.ok();
        azure.send(Method::GET, &sas, &WHOLE, "").await.ok();
        let ranges = format!("{sas}&comp=pagelist");
        azure.send(Method::GET, &ranges, &WHOLE[..1], "").await.ok();
        azure.get(&list).await;
        azure.emulator.look_up("localhost").unwrap();
        assert_eq!(fired(), [0], "{told}");
    }
    azure.emulator.clear_faults();
    // The first that has a body to cut.
    let cut = Action::CutBody { after: 10.into() };
    azure.emulator.fault(Fault::new("Blob_*", cut).nth(1));
    for method in [Method::HEAD, Method::GET, Method::GET] {
        azure.send(method, &sas, &WHOLE, "").await.ok();
    }
    assert_eq!(fired(), [1]);
    azure.emulator.clear_faults();
    let gets = |action| azure.emulator.fault(Fault::new("Blob_Get", action).nth(2));
    gets(ignore("x-ms-range"));
    // Of two that are due at the same request the first wins.
    gets(Action::Reset);
    azure
        .emulator
        .fault(Fault::new("Blob_*", Action::delay(Duration::ZERO)));
    for _ in 0..3 {
        azure.send(Method::GET, &sas, &WHOLE, "").await.unwrap();
    }
    assert_eq!(fired(), [1, 0, 2]);
}

#[tokio::test]
async fn credentials_change_and_clocks_differ() {
    let (azure, _) = start().await;
    let list = format!("providers/Microsoft.Compute/virtualMachines?{COMPUTE}");
    let fault = |action| {
        azure
            .emulator
            .fault(Fault::new("VirtualMachines_ListAll", action).nth(1))
    };
    fault(Action::SkewClock { seconds: -1200 });
    let date = |answer: &common::Answer| answer.header("date").unwrap().to_owned();
    let (skewed, right) = (
        azure.get(&list).await.expect(200),
        azure.get(&list).await.expect(200),
    );
    assert_ne!(date(&skewed)[..22], date(&right)[..22]);
    azure.emulator.clear_faults();
    fault(Action::RotateSecret { to: "new".into() });
    let refused = azure.get(&list).await.expect(401);
    assert_eq!(
        refused.json()["error"]["code"],
        "ExpiredAuthenticationToken"
    );
    azure.get(&list).await.expect(401);
    let login = |secret| {
        azure.login(
            mock_server::DEFAULT_TENANT,
            mock_server::DEFAULT_CLIENT_ID,
            secret,
        )
    };
    login(mock_server::DEFAULT_CLIENT_SECRET).await.expect(401);
    login("new").await.expect(200);
    let change = mock_server::Change::SetSecret {
        client_id: mock_server::DEFAULT_CLIENT_ID.into(),
        secret: mock_server::DEFAULT_CLIENT_SECRET.into(),
    };
    azure.emulator.change(&change).unwrap();
    login(mock_server::DEFAULT_CLIENT_SECRET).await.expect(200);
}

#[tokio::test]
async fn operations_fail_or_never_end_and_answers_get_lost() {
    let (azure, _) = start().await;
    let fault = |action| {
        azure
            .emulator
            .fault(Fault::new("Snapshots_CreateOrUpdate", action).nth(1))
    };
    let put = |name: &str| format!("{}{name}?{DISKS}", &SNAPSHOT[..SNAPSHOT.len() - 1]);
    fault(Action::FailOperation {
        code: "InternalExecutionError".to_owned(),
        message: "told so".to_owned(),
    });
    let status = azure
        .finish(
            Method::PUT,
            &put("failed"),
            Some(snapshot_body("rg1", "os")),
        )
        .await;
    assert_eq!(status["status"], "Failed");
    assert_eq!(status["error"]["code"], "InternalExecutionError");
    azure.emulator.clear_faults();
    fault(Action::NeverEnding);
    let first = azure
        .arm(
            Method::PUT,
            &put("endless"),
            Some(snapshot_body("rg1", "os")),
        )
        .await
        .expect(202);
    let url = first.header("azure-asyncoperation").unwrap();
    for _ in 0..3 {
        assert_eq!(azure.get(url).await.json()["status"], "InProgress");
    }
    azure.emulator.release_operations();
    assert_eq!(azure.get(url).await.json()["status"], "Succeeded");
    azure.emulator.clear_faults();
    azure
        .emulator
        .fault(Fault::new("Snapshots_CreateOrUpdate", Action::LostAnswer));
    let bearer = format!("Bearer {}", azure.token);
    let url = format!(
        "{}/subscriptions/{}/{}",
        azure.emulator.http_url(),
        mock_server::DEFAULT_SUBSCRIPTION,
        put("lost")
    );
    let headers = [("authorization", bearer.as_str())];
    let lost = azure
        .send(
            Method::PUT,
            &url,
            &headers,
            snapshot_body("rg1", "os").to_string(),
        )
        .await;
    assert!(lost.is_err());
    assert!(
        azure
            .emulator
            .state()
            .snapshots
            .iter()
            .any(|snapshot| snapshot.name == "lost")
    );
}

#[tokio::test]
async fn names_are_forgotten_for_a_time() {
    let (azure, sas) = start().await;
    let known = || azure.emulator.look_up("md-1.blob.example");
    assert!(known().unwrap().is_loopback());
    let forget = || Action::ForgetNames { seconds: 60 };
    azure
        .emulator
        .fault(Fault::new("Blob_Get", forget()).nth(1));
    azure.emulator.fault(Fault::new("LookUp", forget()).nth(2));
    let get = || azure.send(Method::GET, &sas, &WHOLE, "");
    assert!(get().await.is_err());
    assert!(known().is_err());
    azure.emulator.advance_clock(Duration::from_secs(61));
    assert!(known().is_err(), "the second question since");
    azure.emulator.advance_clock(Duration::from_secs(61));
    assert!(known().is_ok());
    // Who has the address is served.
    get().await.unwrap().expect(206);
    let counted = azure.emulator.counters().of("LookUp");
    assert_eq!(counted.requests, 4);
}

#[tokio::test]
async fn requests_in_flight_are_counted_and_slowed() {
    let (azure, sas) = start().await;
    azure.emulator.set_link(Link {
        // All are under way before the first is answered.
        latency: Duration::from_secs(2),
        bandwidth: None,
    });
    azure.emulator.reset_counters();
    let began = std::time::Instant::now();
    let reads = (0..8).map(|_| azure.send(Method::GET, &sas, &WHOLE, ""));
    for answer in futures_util::future::join_all(reads).await {
        answer.unwrap().expect(206);
    }
    assert!(began.elapsed() >= Duration::from_secs(2));
    let counters = azure.emulator.counters().of("Blob_Get");
    assert_eq!(
        (
            counters.requests,
            counters.bytes_out,
            counters.most_in_flight
        ),
        (8, 8 * MIB, 8)
    );
}

#[tokio::test]
async fn tls_with_its_own_authority() {
    let (azure, _) = start().await;
    let emulator = &azure.emulator;
    let mut roots = rustls::RootCertStore::empty();
    let pem = emulator.ca_pem().to_owned();
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
    roots.add(der.into()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let port: u16 = emulator
        .https_url()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    for name in ["localhost", "127.0.0.1", "management.localhost"] {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .unwrap();
        let server = rustls_pki_types::ServerName::try_from(name).unwrap();
        let stream = connector.connect(server, stream).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let driver = tokio::spawn(connection);
        let request = http::Request::get(format!(
            "/{}/v2.0/.well-known/openid-configuration",
            mock_server::DEFAULT_TENANT
        ))
        .header("host", format!("{name}:{port}"))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let body: Value =
            serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes())
                .unwrap();
        // URLs lead back to the listener and name that the client used.
        assert!(
            body["token_endpoint"]
                .as_str()
                .unwrap()
                .starts_with(&format!("https://{name}:{port}/"))
        );
        drop(sender);
        driver.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_control_interface_does_what_the_library_does() {
    let (azure, _) = start().await;
    let control = async |method: Method, path: &str, body: &str| {
        let url = format!("{}/_emulator/{path}", azure.emulator.http_url());
        azure
            .send(method, &url, &[], body.to_owned())
            .await
            .unwrap()
    };
    control(Method::PUT, "disks/content?disk=os&offset=100", "hello")
        .await
        .expect(204);
    assert_eq!(
        control(Method::GET, "disks/content?disk=os&offset=100&length=5", "")
            .await
            .text(),
        "hello"
    );
    control(
        Method::POST,
        "disks/pattern?disk=os",
        r#"{"seed":5,"offset":"16MiB","length":"1MiB"}"#,
    )
    .await
    .expect(204);
    control(
        Method::POST,
        "disks/discard?disk=os",
        r#"{"offset":0,"length":"8MiB"}"#,
    )
    .await
    .expect(204);
    let extents = control(Method::GET, "disks/extents?disk=os", "")
        .await
        .expect(200)
        .json();
    assert_eq!(extents, json!([{ "offset": 16 * MIB, "length": MIB }]));
    let digest = control(Method::GET, "disks/digest?disk=os", "")
        .await
        .expect(200)
        .json();
    assert_eq!(digest["sha256"], azure.emulator.disk_digest("os").unwrap());
    control(
        Method::POST,
        "faults",
        r#"{"operation":"Disks_Get","when":{"nth":1},"action":{"status":{"status":500}}}"#,
    )
    .await
    .expect(204);
    control(
        Method::POST,
        "faults",
        r#"[{"operation":"Disks_Get","action":"reset"}]"#,
    )
    .await
    .expect(204);
    let faults = control(Method::GET, "faults", "").await.json();
    assert_eq!(faults.as_array().unwrap().len(), 2);
    let second =
        json!({ "operation": "Disks_Get", "when": "always", "action": "reset", "fired": 0 });
    assert_eq!(faults[1], second);
    control(Method::DELETE, "faults", "").await.expect(204);
    let counters = control(Method::GET, "counters", "").await.json();
    assert_eq!(
        counters["operations"]["Snapshots_CreateOrUpdate"]["requests"],
        1
    );
    let wrong = r#"{"virtualMachines":[{"name":"v","osDisk":{"disk":{"name":"d","size":"1GiB","colour":"red"}}}]}"#;
    let answer = control(Method::PUT, "scenario", wrong).await.expect(400);
    assert!(
        answer.text().contains("unknown field `colour`"),
        "{}",
        answer.text()
    );
    let wrong =
        r#"{"virtualMachines":[{"name":"v","osDisk":{"disk":{"name":"d","size":"1000000B"}}}]}"#;
    let answer = control(Method::PUT, "scenario", wrong).await.expect(400);
    assert!(
        answer.text().contains("virtualMachines[v].osDisk.size"),
        "{}",
        answer.text()
    );
    assert_eq!(
        azure.emulator.state().virtual_machines[0].name,
        "vm",
        "nothing was replaced"
    );
    control(
        Method::PUT,
        "scenario",
        r#"{"disks":[{"name":"only","size":"1GiB"}]}"#,
    )
    .await
    .expect(204);
    let state = control(Method::GET, "state", "").await.json();
    assert_eq!(state["disks"][0]["name"], "only");
    assert_eq!(state["virtualMachines"], json!([]));
    control(Method::GET, "nothing", "").await.expect(404);
}

#[test]
fn it_starts_and_stops_without_a_runtime() {
    let emulator = Emulator::start_blocking(&Config::default()).unwrap();
    let port = emulator
        .http_url()
        .rsplit(':')
        .next()
        .unwrap()
        .parse::<u16>()
        .unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    drop(emulator);
    let taken = Config {
        http_port: 1,
        listen: [203, 0, 113, 1].into(),
        ..Config::default()
    };
    let error = Emulator::start_blocking(&taken).unwrap_err();
    assert_eq!(error.to_string(), "listen on 203.0.113.1:1");
}

#[tokio::test]
async fn connections_are_cut_and_new_ones_accepted() {
    let (azure, sas) = start().await;
    let hang = Action::delay(Duration::from_secs(600));
    azure.emulator.fault(Fault::new("Blob_Get", hang).nth(1));
    let emulator = &azure.emulator;
    let cut = async {
        while emulator.counters().requests("Blob_Get") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        emulator.cut_connections();
    };
    let get = || azure.send(Method::GET, &sas, &WHOLE, "");
    let (answer, ()) = tokio::join!(get(), cut);
    // Or the client has repeated it on a fresh connection by itself.
    assert!(answer.is_err() || emulator.counters().requests("Blob_Get") == 2);
    assert_eq!(get().await.unwrap().status, 206);
}
