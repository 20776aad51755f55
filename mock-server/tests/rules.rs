//! The service's rules and the shapes of its refusals.
mod common;

use common::{Azure, COMPUTE, DISKS, NETWORK, disk_id, snapshot_body};
use http::Method;
use mock_server::{
    Change, Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_SUBSCRIPTION, DEFAULT_TENANT,
    Disk, MIB, NetworkInterface, OperationPolicy, Principal, Scenario, TIB, Tenant, Vm,
};
use serde_json::{Value, json};
use std::time::Duration;

const COMPUTE_PATH: &str = "resourceGroups/rg1/providers/Microsoft.Compute";

async fn start(scenario: Scenario) -> Azure {
    Azure::start(Config {
        scenario,
        arm_page_size: 2,
        ..Config::default()
    })
    .await
}

fn vm(name: &str) -> Vm {
    Vm::new(
        "rg1",
        name,
        Disk::new(&format!("{name}-os"), 32 * MIB).pattern(1, 0, MIB),
    )
}

#[tokio::test]
async fn tokens_are_checked() {
    let azure = start(Scenario::new()).await;
    let cases = [
        (DEFAULT_TENANT, DEFAULT_CLIENT_ID, "wrong", 401, 7_000_215),
        (
            DEFAULT_TENANT,
            "c1a5b0f4-0000-4d19-8a77-90be12cd34ef",
            "x",
            400,
            700_016,
        ),
        (
            "7e0a3c52-0000-4b8e-9c24-5f1d2a3b4c5d",
            DEFAULT_CLIENT_ID,
            DEFAULT_CLIENT_SECRET,
            400,
            90_002,
        ),
        (
            "nonsense",
            DEFAULT_CLIENT_ID,
            DEFAULT_CLIENT_SECRET,
            400,
            900_023,
        ),
    ];
    for (tenant, id, secret, status, number) in cases {
        let body = azure.login(tenant, id, secret).await.expect(status).json();
        assert_eq!(body["error_codes"], json!([number]));
        assert!(
            body["error_description"]
                .as_str()
                .unwrap()
                .starts_with(&format!("AADSTS{number}: "))
        );
    }
    let url = format!(
        "{}/subscriptions?api-version=2022-12-01",
        azure.emulator.http_url()
    );
    let answer = azure
        .send(Method::GET, &url, &[], "")
        .await
        .unwrap()
        .expect(401);
    assert_eq!(answer.code(), "AuthenticationFailed");
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .starts_with("Bearer authorization_uri=")
    );
    let forged = [("authorization", "Bearer a.b.c")];
    let answer = azure
        .send(Method::GET, &url, &forged, "")
        .await
        .unwrap()
        .expect(401);
    assert_eq!(answer.code(), "InvalidAuthenticationToken");
    azure.get(&url).await.expect(200);
    azure.emulator.advance_clock(Duration::from_secs(3600));
    assert_eq!(
        azure.get(&url).await.expect(401).code(),
        "ExpiredAuthenticationToken"
    );
}

#[tokio::test]
async fn requests_are_checked() {
    let azure = start(Scenario::new().vm(vm("a"))).await;
    let path = format!("{COMPUTE_PATH}/disks/a-os");
    assert_eq!(
        azure.get(&path).await.expect(400).code(),
        "MissingApiVersionParameter"
    );
    let answer = azure
        .get(&format!("{path}?api-version=yesterday"))
        .await
        .expect(400);
    assert_eq!(answer.code(), "InvalidApiVersionParameter");
    let mixed = path
        .replace("resourceGroups", "RESOURCEGROUPS")
        .replace("a-os", "A-OS");
    let answer = azure.get(&format!("{mixed}?{DISKS}")).await.expect(200);
    assert_eq!(answer.json()["id"], disk_id("rg1", "a-os"));
    for header in [
        "x-ms-request-id",
        "x-ms-correlation-request-id",
        "x-ms-ratelimit-remaining-subscription-reads",
        "x-ms-ratelimit-remaining-resource",
    ] {
        assert!(answer.header(header).is_some(), "{header}");
    }
    let answer = azure
        .get(&format!("{COMPUTE_PATH}/disks/none?{DISKS}"))
        .await
        .expect(404);
    assert_eq!(answer.code(), "ResourceNotFound");
    assert_eq!(answer.header("x-ms-failure-cause"), Some("gateway"));
    let answer = azure
        .get(&format!(
            "resourceGroups/none/providers/Microsoft.Compute/disks/x?{DISKS}"
        ))
        .await;
    assert_eq!(answer.expect(404).code(), "ResourceGroupNotFound");
    assert!(azure.emulator.unmodelled().is_empty());
    azure
        .get(&format!("{path}?{DISKS}&$expand=everything"))
        .await
        .expect(501);
    azure
        .get(&format!("providers/Microsoft.Compute/galleries?{DISKS}"))
        .await
        .expect(501);
    azure
        .send(
            Method::GET,
            &format!("{}/", azure.emulator.http_url()),
            &[],
            "",
        )
        .await
        .unwrap()
        .expect(501);
    assert_eq!(azure.emulator.unmodelled().len(), 3);
}

#[tokio::test]
async fn rights_are_checked() {
    let principal = |id: &str, denied: &[&str]| Principal {
        client_id: id.to_owned(),
        client_secret: DEFAULT_CLIENT_SECRET.to_owned(),
        subscriptions: None,
        denied_actions: denied.iter().map(|action| (*action).to_owned()).collect(),
    };
    let scenario = Scenario {
        tenants: vec![Tenant {
            id: DEFAULT_TENANT.to_owned(),
            principals: vec![principal(
                DEFAULT_CLIENT_ID,
                &["Microsoft.Compute/snapshots/write"],
            )],
        }],
        ..Scenario::new().vm(vm("a"))
    };
    let azure = start(scenario).await;
    let path = format!("{COMPUTE_PATH}/snapshots/s?{DISKS}");
    let answer = azure
        .arm(Method::PUT, &path, Some(snapshot_body("rg1", "a-os")))
        .await
        .expect(403);
    assert_eq!(answer.code(), "AuthorizationFailed");
    assert!(answer.text().contains("Microsoft.Compute/snapshots/write"));
}

#[tokio::test]
async fn lists_are_paged() {
    let scenario = (0..5).fold(Scenario::new(), |world, n| world.vm(vm(&format!("vm{n}"))));
    let azure = start(scenario).await;
    let mut next = Some(format!(
        "providers/Microsoft.Compute/virtualMachines?{COMPUTE}"
    ));
    let (mut names, mut pages) = (Vec::new(), 0);
    while let Some(url) = next {
        let page = azure.get(&url).await.expect(200).json();
        names.extend(
            page["value"]
                .as_array()
                .unwrap()
                .iter()
                .map(|vm| vm["name"].clone()),
        );
        next = page["nextLink"].as_str().map(str::to_owned);
        assert!(
            next.as_ref()
                .is_none_or(|url| url.starts_with(azure.emulator.http_url()))
        );
        pages += 1;
    }
    assert_eq!(pages, 3);
    assert_eq!(names, ["vm0", "vm1", "vm2", "vm3", "vm4"]);

    // What goes meanwhile hides nothing.
    let first = format!("providers/Microsoft.Compute/virtualMachines?{COMPUTE}");
    let page = azure.get(&first).await.json();
    let vm = "vm0".into();
    let with_resources = true;
    let delete = Change::DeleteVm { vm, with_resources };
    azure.emulator.change(&delete).unwrap();
    let page = azure.get(page["nextLink"].as_str().unwrap()).await.json();
    assert_eq!(page["value"][0]["name"], "vm2");
}

#[tokio::test]
async fn five_of_a_family_and_no_delete_under_access() {
    let azure = start(Scenario::new().vm(vm("a")).vm(vm("b"))).await;
    let mut snapshots = Vec::new();
    for n in 0..6 {
        snapshots.push(azure.snapshot("rg1", &format!("s{n}"), "a-os").await);
    }
    let mut urls = Vec::new();
    for snapshot in &snapshots[..5] {
        urls.push(azure.grant(snapshot, "Read").await);
    }
    let body = || Some(json!({ "access": "Read", "durationInSeconds": 60 }));
    let sixth = format!("{}/beginGetAccess?{DISKS}", snapshots[5]);
    let answer = azure.arm(Method::POST, &sixth, body()).await.expect(409);
    assert_eq!(answer.code(), "OperationNotAllowed");
    // The same again is no sixth one, and another family is free.
    assert_eq!(azure.grant(&snapshots[0], "Read").await, urls[0]);
    let other = azure.snapshot("rg1", "other", "b-os").await;
    azure.grant(&other, "Read").await;
    azure
        .arm(Method::DELETE, &format!("{}?{DISKS}", snapshots[0]), None)
        .await
        .expect(409);
    azure.revoke(&snapshots[0]).await;
    azure
        .arm(Method::DELETE, &format!("{}?{DISKS}", snapshots[0]), None)
        .await
        .expect(202);
    azure.arm(Method::POST, &sixth, body()).await.expect(202);
    assert_eq!(azure.emulator.state().grants.len(), 6);
    azure
        .blob(Method::HEAD, &urls[1], "", &[], "")
        .await
        .expect(200);
    azure.emulator.advance_clock(Duration::from_secs(3601));
    azure
        .blob(Method::HEAD, &urls[1], "", &[], "")
        .await
        .expect(403);
    assert!(azure.emulator.state().grants.is_empty());
}

#[tokio::test]
async fn disks_are_refused_with_reasons() {
    let azure = start(
        Scenario::new()
            .vm(vm("a"))
            .disk(Disk::new("free", 32 * MIB).in_group("rg1")),
    )
    .await;
    let put = async |name: &str, creation: Value| {
        let body = json!({ "location": "westeurope", "properties": { "creationData": creation } });
        azure
            .arm(
                Method::PUT,
                &format!("{COMPUTE_PATH}/disks/{name}?{DISKS}"),
                Some(body),
            )
            .await
    };
    for size in [0, 20 * MIB, 20 * MIB + 1024, 20 * MIB + 1536, 33 * TIB] {
        let answer = put(
            "d",
            json!({ "createOption": "Upload", "uploadSizeBytes": size }),
        )
        .await
        .expect(400);
        assert_eq!(
            answer.json()["error"]["target"],
            "disk.creationData.uploadSizeBytes"
        );
    }
    put(
        "a%20b",
        json!({ "createOption": "Upload", "uploadSizeBytes": 20 * MIB + 512 }),
    )
    .await
    .expect(400);
    put(
        &"x".repeat(81),
        json!({ "createOption": "Upload", "uploadSizeBytes": 20 * MIB + 512 }),
    )
    .await
    .expect(400);
    put(
        "up",
        json!({ "createOption": "Upload", "uploadSizeBytes": 20 * MIB + 512 }),
    )
    .await
    .expect(202);
    azure
        .arm(
            Method::DELETE,
            &format!("{COMPUTE_PATH}/disks/a-os?{DISKS}"),
            None,
        )
        .await
        .expect(409);
    let grant = async |name: &str, body: Value| {
        azure
            .arm(
                Method::POST,
                &format!("{COMPUTE_PATH}/disks/{name}/beginGetAccess?{DISKS}"),
                Some(body),
            )
            .await
    };
    grant("a-os", json!({ "access": "Read", "durationInSeconds": 60 }))
        .await
        .expect(409);
    grant(
        "free",
        json!({ "access": "Write", "durationInSeconds": 60 }),
    )
    .await
    .expect(409);
    grant(
        "free",
        json!({ "access": "Read", "durationInSeconds": 5_184_001 }),
    )
    .await
    .expect(400);
    grant(
        "free",
        json!({ "access": "Read", "durationInSeconds": 5_184_000 }),
    )
    .await
    .expect(202);
    let missing = snapshot_body("rg1", "none");
    azure
        .arm(
            Method::PUT,
            &format!("{COMPUTE_PATH}/snapshots/s?{DISKS}"),
            Some(missing),
        )
        .await
        .expect(404);
    azure
        .arm(
            Method::DELETE,
            &format!("{COMPUTE_PATH}/disks/never?{DISKS}"),
            None,
        )
        .await
        .expect(204);
}

fn vm_body(os: &str, data: &Value, nic: &str) -> Value {
    json!({
        "location": "westeurope",
        "properties": {
            "hardwareProfile": { "vmSize": "Standard_B1s" },
            "storageProfile": {
                "osDisk": { "osType": "Linux", "createOption": "Attach", "managedDisk": { "id": disk_id("rg1", os) } },
                "dataDisks": data,
            },
            "networkProfile": { "networkInterfaces": [{
                "id": format!("/subscriptions/{DEFAULT_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Network/networkInterfaces/{nic}"),
            }]},
        },
    })
}

#[tokio::test]
async fn machines_are_refused_with_reasons() {
    let free = |name: &str| Disk::new(name, 32 * MIB).in_group("rg1");
    let mut zonal = free("zonal");
    zonal.zone = Some("2".to_owned());
    let mut nic = NetworkInterface::new("nic", "net/a");
    nic.resource_group = Some("rg1".to_owned());
    let scenario = Scenario {
        network_interfaces: vec![nic],
        ..Scenario::new()
            .network("rg1", "net", &[("a", "10.1.0.0/24")])
            .vm(vm("a"))
            .disk(free("os"))
            .disk(free("d1"))
            .disk(zonal)
    };
    let azure = start(scenario).await;
    let put = async |body: Value| {
        azure
            .arm(
                Method::PUT,
                &format!("{COMPUTE_PATH}/virtualMachines/new?{COMPUTE}"),
                Some(body),
            )
            .await
    };
    let data = |lun: u32, disk: &str| json!({ "lun": lun, "createOption": "Attach", "managedDisk": { "id": disk_id("rg1", disk) } });
    let mut with_profile = vm_body("os", &json!([]), "nic");
    with_profile["properties"]["osProfile"] = json!({ "computerName": "x" });
    assert_eq!(
        put(with_profile).await.expect(400).json()["error"]["target"],
        "osProfile"
    );
    assert_eq!(
        put(vm_body("a-os", &json!([]), "nic"))
            .await
            .expect(409)
            .code(),
        "ConflictingUserInput"
    );
    assert_eq!(
        put(vm_body("os", &json!([]), "a-nic"))
            .await
            .expect(400)
            .code(),
        "NicInUse"
    );
    assert_eq!(
        put(vm_body("os", &json!([]), "none"))
            .await
            .expect(400)
            .code(),
        "InvalidResourceReference"
    );
    assert_eq!(
        put(vm_body("none", &json!([]), "nic"))
            .await
            .expect(404)
            .code(),
        "NotFound"
    );
    put(vm_body("os", &json!([data(0, "zonal")]), "nic"))
        .await
        .expect(400);
    put(vm_body("os", &json!([data(64, "d1")]), "nic"))
        .await
        .expect(400);
    put(vm_body("os", &json!([data(1, "os")]), "nic"))
        .await
        .expect(400);
    put(vm_body("os", &json!([data(1, "d1")]), "nic"))
        .await
        .expect(201);
    // A second PUT changes: the data disk leaves.
    put(vm_body("os", &json!([]), "nic")).await.expect(200);
    assert_eq!(
        azure.emulator.state().disk("d1").unwrap().disk_state,
        "Unattached"
    );
    let nic_path = "resourceGroups/rg1/providers/Microsoft.Network/networkInterfaces/nic";
    let answer = azure
        .arm(Method::DELETE, &format!("{nic_path}?{NETWORK}"), None)
        .await
        .expect(400);
    assert_eq!(answer.code(), "NicInUse");
    let machine = format!("{COMPUTE_PATH}/virtualMachines/new?{COMPUTE}");
    let answer = azure.arm(Method::DELETE, &machine, None).await.expect(202);
    assert!(answer.header("location").is_some() && answer.header("azure-asyncoperation").is_some());
    assert_eq!(
        azure.emulator.state().disk("os").unwrap().disk_state,
        "Unattached"
    );
    let answer = azure
        .arm(Method::DELETE, &format!("{nic_path}?{NETWORK}"), None)
        .await;
    answer.expect(202);
    let nic = |address: &str, subnet: &str| {
        json!({ "location": "westeurope", "properties": { "ipConfigurations": [{
            "name": "ip", "properties": {
                "privateIPAllocationMethod": "Static", "privateIPAddress": address,
                "subnet": { "id": format!("/subscriptions/{DEFAULT_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Network/virtualNetworks/{subnet}") },
            },
        }]}})
    };
    let put = async |name: &str, body: Value| {
        azure.arm(Method::PUT, &format!("resourceGroups/rg1/providers/Microsoft.Network/networkInterfaces/{name}?{NETWORK}"), Some(body)).await
    };
    put("n1", nic("10.1.0.9", "net/subnets/a"))
        .await
        .expect(201);
    assert_eq!(
        put("n2", nic("10.1.0.9", "net/subnets/a"))
            .await
            .expect(400)
            .code(),
        "PrivateIPAddressIsAllocated"
    );
    assert_eq!(
        put("n2", nic("10.2.0.9", "net/subnets/a"))
            .await
            .expect(400)
            .code(),
        "PrivateIPAddressNotInSubnet"
    );
    assert_eq!(
        put("n2", nic("10.1.0.8", "net/subnets/b"))
            .await
            .expect(400)
            .code(),
        "InvalidResourceReference"
    );
}

#[tokio::test]
async fn operations_take_their_time_when_told_so() {
    let config = Config {
        scenario: Scenario::new().vm(vm("a")),
        operations: OperationPolicy {
            polls_in_progress: 2,
            ..OperationPolicy::default()
        },
        background_copy_step: Some(50.0),
        ..Config::default()
    };
    let azure = Azure::start(config).await;
    let path = format!("{COMPUTE_PATH}/snapshots/s");
    let first = azure
        .arm(
            Method::PUT,
            &format!("{path}?{DISKS}"),
            Some(snapshot_body("rg1", "a-os")),
        )
        .await
        .expect(202);
    assert_eq!(first.json()["properties"]["provisioningState"], "Updating");
    assert_eq!(first.header("retry-after"), Some("0"));
    let by_operation = first.header("azure-asyncoperation").unwrap();
    let by_location = first.header("location").unwrap();
    assert!(by_operation.len() > 3000 && by_location.contains("monitor=true"));
    assert_eq!(azure.emulator.state().running_operations.len(), 1);
    assert_eq!(
        azure.get(by_operation).await.expect(200).json()["status"],
        "InProgress"
    );
    azure.get(by_location).await.expect(202);
    let done = azure.get(by_operation).await.expect(200).json();
    Azure::succeeded(&done);
    assert!(
        done["properties"]["output"]["properties"]
            .get("completionPercent")
            .is_none()
    );
    assert_eq!(azure.get(by_location).await.expect(200).json()["name"], "s");
    azure
        .get(&by_operation[..by_operation.len() - 10])
        .await
        .expect(403);
    let grant = format!("{path}/beginGetAccess?{DISKS}");
    let body = || Some(json!({ "access": "Read", "durationInSeconds": 60 }));
    azure.arm(Method::POST, &grant, body()).await.expect(409);
    for percent in ["0.0", "50.0", "100.0"] {
        let answer = azure.get(&format!("{path}?{DISKS}")).await.expect(200);
        assert!(
            answer
                .text()
                .contains(&format!("\"completionPercent\": {percent},")),
            "{}",
            answer.text()
        );
    }
    azure.arm(Method::POST, &grant, body()).await.expect(202);
}

#[tokio::test]
async fn the_data_endpoint_is_strict() {
    let azure = start(Scenario::new().vm(vm("a"))).await;
    let snapshot = azure.snapshot("rg1", "s", "a-os").await;
    let sas = azure.grant(&snapshot, "Read").await;
    let end = 32 * MIB + 512;
    let code =
        async |method: Method, url: &str, query: &str, headers: &[(&str, &str)], status: u16| {
            let answer = azure
                .blob(method, url, query, headers, "")
                .await
                .expect(status);
            answer
                .header("x-ms-error-code")
                .unwrap_or_default()
                .to_owned()
        };
    let past = format!("bytes={end}-{}", end + 511);
    assert_eq!(
        code(Method::GET, &sas, "", &[("x-ms-range", &past)], 416).await,
        "InvalidRange"
    );
    let crossing = format!("bytes={}-{}", end - 512, end + 511);
    let answer = azure
        .blob(Method::GET, &sas, "", &[("Range", &crossing)], "")
        .await
        .expect(206);
    assert_eq!(answer.body.len(), 512);
    assert_eq!(&answer.body[..8], b"conectix");
    let bearer = [("authorization", "Bearer x")];
    assert_eq!(
        code(Method::GET, &sas, "", &bearer, 403).await,
        "AuthenticationFailed"
    );
    assert_eq!(
        code(Method::GET, &sas, "", &[("if-match", "*")], 400).await,
        "UnsupportedHeader"
    );
    let forged = sas.replace("sig=", "sig=A");
    assert_eq!(
        code(Method::GET, &forged, "", &[], 403).await,
        "AuthenticationFailed"
    );
    let write = [("x-ms-page-write", "update"), ("x-ms-range", "bytes=0-511")];
    assert_eq!(
        code(Method::PUT, &sas, "&comp=page", &write, 403).await,
        "AuthorizationPermissionMismatch"
    );
    code(Method::GET, &sas, "&comp=pagelist&marker=zzz", &[], 400).await;
    azure
        .blob(Method::DELETE, &sas, "", &[], "")
        .await
        .expect(501);

    let creation = json!({ "createOption": "Upload", "uploadSizeBytes": 20 * MIB + 512 });
    let body = json!({ "location": "westeurope", "properties": { "creationData": creation } });
    let disk = format!("{COMPUTE_PATH}/disks/up");
    azure
        .finish(Method::PUT, &format!("{disk}?{DISKS}"), Some(body))
        .await;
    let sas = azure.grant(&disk, "Write").await;
    let put = async |range: &str, len: u64, status: u16| {
        let headers = [("x-ms-page-write", "update"), ("x-ms-range", range)];
        let body = vec![1; usize::try_from(len).unwrap()];
        azure
            .blob(Method::PUT, &sas, "&comp=page", &headers, body)
            .await
            .expect(status);
    };
    put("bytes=0-510", 511, 416).await;
    put("bytes=1-512", 512, 416).await;
    put(
        &format!("bytes={}-{}", 20 * MIB + 512, 20 * MIB + 1023),
        512,
        416,
    )
    .await;
    put("bytes=0-1023", 512, 400).await;
    put(&format!("bytes=0-{}", 4 * MIB + 511), 4 * MIB + 512, 413).await;
    put(&format!("bytes=0-{}", 4 * MIB - 1), 4 * MIB, 201).await;
    let clear = [
        ("x-ms-page-write", "clear"),
        ("x-ms-range", "bytes=512-1048575"),
    ];
    azure
        .blob(Method::PUT, &sas, "&comp=page", &clear, "")
        .await
        .expect(201);
    let page = |start: u64, end: u64| ("PageRange".to_owned(), start, end);
    assert_eq!(
        azure.ranges(&sas, None, 10).await,
        [page(0, 512), page(MIB, 4 * MIB)]
    );
    azure
        .arm(Method::DELETE, &format!("{disk}?{DISKS}"), None)
        .await
        .expect(409);
}

#[tokio::test]
async fn a_large_sparse_disk_is_listed_in_pages() {
    let disk = Disk::new("huge", 4 * TIB).ranges(9, MIB, 100_000, 512, 40 * MIB);
    let azure = start(Scenario::new().vm(Vm::new("rg1", "v", disk))).await;
    let snapshot = azure.snapshot("rg1", "s", "huge").await;
    let sas = azure.grant(&snapshot, "Read").await;
    azure.emulator.reset_counters();
    let ranges = azure.ranges(&sas, None, 50_000).await;
    assert_eq!(azure.emulator.counters().requests("Blob_GetPageRanges"), 11);
    assert_eq!(ranges.len(), 100_001);
    assert!(
        ranges
            .iter()
            .take(100_000)
            .enumerate()
            .all(|(n, (_, start, end))| {
                *start == MIB + n as u64 * 40 * MIB && *end == start + 512
            })
    );
    assert_eq!(ranges[100_000].1, 4 * TIB);
}
