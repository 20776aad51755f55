//! A whole Full backup and restore as a client sees it, with bytes as the oracle.
mod common;

use common::{Azure, COMPUTE, DISKS, NETWORK, disk_id, footer};
use http::Method;
use mock_server::{Config, DEFAULT_SUBSCRIPTION, Disk, KIB, MIB, PowerState, Scenario, Vm};
use serde_json::json;

const GROUP: &str = "rg1";

fn world() -> Scenario {
    let os = Disk::new("web-os", 64 * MIB)
        .pattern(1, 0, MIB)
        .zeros(2 * MIB, 64 * KIB)
        .pattern(2, 64 * MIB - 512, 512);
    let data = Disk::new("web-data", 32 * MIB)
        .ranges(3, 0, 20, 4096, MIB)
        .sku("StandardSSD_LRS");
    Scenario::new().vm(Vm::new(GROUP, "web", os)
        .data_disk_cached(5, "ReadOnly", data)
        .zone("1")
        .tag("env", "prod"))
}

async fn start() -> Azure {
    Azure::start(Config {
        scenario: world(),
        arm_page_size: 2,
        ..Config::default()
    })
    .await
}

/// Copies an image into a new disk, as a restore does.
async fn copy(
    azure: &Azure,
    source: &str,
    size: u64,
    name: &str,
    wrong_footer: bool,
) -> serde_json::Value {
    let path = format!("resourceGroups/{GROUP}/providers/Microsoft.Compute/disks/{name}");
    let body = json!({
        "location": "West Europe", "sku": { "name": "Premium_LRS" }, "zones": ["1"],
        "properties": {
            "osType": "Linux",
            "creationData": { "createOption": "Upload", "uploadSizeBytes": size + 512 },
        },
    });
    Azure::succeeded(
        &azure
            .finish(Method::PUT, &format!("{path}?{DISKS}"), Some(body))
            .await,
    );
    let shown = azure
        .get(&format!("{path}?{DISKS}"))
        .await
        .expect(200)
        .json();
    assert_eq!(shown["properties"]["diskState"], "ReadyToUpload");
    assert!(shown["properties"].get("diskSizeGB").is_none());
    assert!(shown["properties"].get("diskSizeBytes").is_none());
    let target = azure.grant(&path, "Write").await;
    let head = azure
        .blob(Method::HEAD, &target, "", &[], "")
        .await
        .expect(200);
    assert_eq!(
        head.header("content-length"),
        Some((size + 512).to_string().as_str())
    );
    for (kind, start, end) in azure.ranges(source, None, 7).await {
        assert_eq!(kind, "PageRange");
        let end = end.min(size);
        if start < end {
            let bytes = azure.read(source, start, end).await;
            azure.write(&target, start, bytes).await.expect(201);
        }
    }
    let mut last = footer(size);
    last[70] ^= u8::from(wrong_footer);
    azure.write(&target, size, last.into()).await.expect(201);
    let ended = azure.revoke(&path).await;
    azure
        .blob(Method::HEAD, &target, "", &[], "")
        .await
        .expect(403);
    ended
}

#[tokio::test]
async fn full_backup_and_restore() {
    let azure = start().await;
    let mut restored = Vec::new();
    for (disk, size, caching) in [
        ("web-os", 64 * MIB, "ReadWrite"),
        ("web-data", 32 * MIB, "ReadOnly"),
    ] {
        let before = azure.emulator.disk_digest(disk).unwrap();
        let snapshot = azure.snapshot(GROUP, &format!("s-{disk}"), disk).await;
        // What the guest does after the snapshot is not in it.
        azure.emulator.guest_write(disk, 700, b"later").unwrap();
        let sas = azure.grant(&snapshot, "Read").await;
        let head = azure
            .blob(Method::HEAD, &sas, "", &[], "")
            .await
            .expect(200);
        assert_eq!(
            head.header("content-length"),
            Some((size + 512).to_string().as_str())
        );
        let name = format!("{disk}-restored");
        Azure::succeeded(&copy(&azure, &sas, size, &name, false).await);
        assert_eq!(azure.emulator.disk_digest(&name).unwrap(), before);
        assert_ne!(azure.emulator.disk_digest(disk).unwrap(), before);
        Azure::succeeded(&azure.revoke(&snapshot).await);
        azure
            .finish(Method::DELETE, &format!("{snapshot}?{DISKS}"), None)
            .await;
        restored.push((name, caching));
    }
    assert!(azure.emulator.state().snapshots.is_empty());
    assert!(azure.emulator.state().grants.is_empty());

    let nic =
        format!("resourceGroups/{GROUP}/providers/Microsoft.Network/networkInterfaces/new-nic");
    let subnet = format!(
        "/subscriptions/{DEFAULT_SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Network/virtualNetworks/vnet-{GROUP}/subnets/default"
    );
    let body = json!({ "location": "westeurope", "properties": { "ipConfigurations": [{
        "name": "a", "properties": { "subnet": { "id": subnet } },
    }]}});
    let answer = azure
        .arm(Method::PUT, &format!("{nic}?{NETWORK}"), Some(body))
        .await
        .expect(201);
    assert!(answer.header("azure-asyncoperation").is_some());
    assert!(answer.header("location").is_none());
    assert_eq!(
        answer.json()["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"],
        "10.0.0.5"
    );

    let vm = format!("resourceGroups/{GROUP}/providers/Microsoft.Compute/virtualMachines/web-2");
    let body = json!({
        "location": "westeurope", "zones": ["1"], "tags": { "env": "prod" },
        "properties": {
            "hardwareProfile": { "vmSize": "Standard_D2s_v5" },
            "storageProfile": {
                "osDisk": {
                    "osType": "Linux", "createOption": "Attach", "caching": restored[0].1,
                    "managedDisk": { "id": disk_id(GROUP, &restored[0].0) },
                },
                "dataDisks": [{
                    "lun": 5, "createOption": "Attach", "caching": restored[1].1,
                    "managedDisk": { "id": disk_id(&GROUP.to_uppercase(), &restored[1].0) },
                }],
            },
            "networkProfile": { "networkInterfaces": [{ "id": format!("/subscriptions/{DEFAULT_SUBSCRIPTION}/{nic}") }] },
        },
    });
    let answer = azure
        .arm(Method::PUT, &format!("{vm}?{COMPUTE}"), Some(body))
        .await
        .expect(201);
    assert!(answer.header("location").is_none());
    assert_eq!(answer.json()["properties"]["provisioningState"], "Creating");
    let status = azure
        .get(answer.header("azure-asyncoperation").unwrap())
        .await
        .expect(200)
        .json();
    Azure::succeeded(&status);
    let state = azure.emulator.state();
    let vm = state.vm("web-2").unwrap();
    assert_eq!(vm.os_disk.name, "web-os-restored");
    assert_eq!(vm.data_disks[&5].name, "web-data-restored");
    assert_eq!(vm.data_disks[&5].caching, "ReadOnly");
    assert_eq!(vm.power_state, PowerState::Running);
    assert_eq!(vm.tags["env"], "prod");
    assert_eq!(
        state.disk("web-os-restored").unwrap().disk_state,
        "Attached"
    );
    assert_eq!(
        state.disk("web-os-restored").unwrap().managed_by.as_deref(),
        Some(vm.id.as_str())
    );
    assert_eq!(azure.emulator.unmodelled(), Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_footer_fails_the_disk() {
    let azure = start().await;
    let snapshot = azure.snapshot(GROUP, "s", "web-os").await;
    let sas = azure.grant(&snapshot, "Read").await;
    let ended = copy(&azure, &sas, 64 * MIB, "broken", true).await;
    assert_eq!(ended["status"], "Failed");
    assert!(
        ended["error"]["message"]
            .as_str()
            .unwrap()
            .contains("checksum"),
        "{ended}"
    );
    assert_eq!(
        azure
            .emulator
            .state()
            .disk("broken")
            .unwrap()
            .provisioning_state,
        "Failed"
    );
}

#[tokio::test]
async fn a_difference_is_what_changed() {
    let azure = start().await;
    let first = azure.snapshot(GROUP, "s1", "web-os").await;
    azure
        .emulator
        .guest_write("web-os", 5 * MIB + 100, &[7; 1000])
        .unwrap();
    azure.emulator.guest_discard("web-os", 4096, 8192).unwrap();
    let second = azure.snapshot(GROUP, "s2", "web-os").await;
    let (base, target) = (
        azure.grant(&first, "Read").await,
        azure.grant(&second, "Read").await,
    );
    let page = |kind: &str, start: u64, end: u64| (kind.to_owned(), start, end);
    let want = vec![
        page("ClearRange", 4096, 12_288),
        page("PageRange", 5 * MIB, 5 * MIB + 1536),
    ];
    assert_eq!(azure.ranges(&target, Some(&base), 1).await, want);
    let headers = [("x-ms-previous-snapshot-url", target.as_str())];
    let answer = azure
        .blob(Method::GET, &base, "&comp=pagelist", &headers, "")
        .await
        .expect(400);
    assert_eq!(
        answer.header("x-ms-error-code"),
        Some("PreviousSnapshotCannotBeNewer")
    );
    let query = format!("&comp=pagelist&prevsnapshot={}", "https%3A%2F%2Fx");
    let answer = azure
        .blob(Method::GET, &target, &query, &[], "")
        .await
        .expect(400);
    assert_eq!(
        answer.header("x-ms-error-code"),
        Some("InvalidQueryParameterValue")
    );
    let old = [
        ("x-ms-version", "2018-03-28"),
        ("x-ms-previous-snapshot-url", base.as_str()),
    ];
    let answer = azure
        .send(Method::GET, &format!("{target}&comp=pagelist"), &old, "")
        .await
        .unwrap()
        .expect(409);
    assert_eq!(
        answer.header("x-ms-error-code"),
        Some("FeatureVersionMismatch")
    );
    azure.revoke(&first).await;
    let headers = [("x-ms-previous-snapshot-url", base.as_str())];
    azure
        .blob(Method::GET, &target, "&comp=pagelist", &headers, "")
        .await
        .expect(403);
}
