//! The Azure client against the emulator: what the wire means, and what becomes of its faults.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use azure_vm_fd::azure::{
    Access, Azure, AzureConfig, Defect, Endpoints, Error, ErrorKind, PageBlob, ResourceId,
};
use azure_vm_fd::range::ByteRange;
use azure_vm_fd::range_list::RangeList;
use azure_vm_fd::secret::Secret;
use azure_vm_fd::vhd;
use bytes::Bytes;
use mock_server::{
    Action, ByteSize, Config, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_SUBSCRIPTION,
    DEFAULT_TENANT, Disk, Emulator, Fault, MIB, OperationPolicy, Scenario, Vm,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const GROUP: &str = "rg1";
const DISK_SIZE: u64 = 64 * MIB;
const HOUR: Duration = Duration::from_secs(3600);

struct World {
    emulator: Emulator,
    azure: Azure,
    cancel: CancellationToken,
}

impl World {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    /// One VM with a disk of 64 MiB that holds 20 ranges of 8 KiB, one each MiB.
    async fn with(config: Config) -> Self {
        let disk = Disk::new("web-os", DISK_SIZE)
            .in_group(GROUP)
            .ranges(7, MIB, 20, 8192, MIB);
        let scenario = Scenario::new().vm(Vm::new(GROUP, "web", disk));
        let emulator = Emulator::start(Config { scenario, ..config })
            .await
            .expect("the emulator starts");
        let cancel = CancellationToken::new();
        let azure = Azure::new(config_for(emulator.http_url()), cancel.clone()).expect("client");
        Self {
            emulator,
            azure,
            cancel,
        }
    }

    fn fault(&self, operation: &str, action: Action) {
        self.emulator.fault(Fault::new(operation, action).first(1));
    }

    async fn snapshot(&self, name: &str) -> ResourceId {
        let id = snapshot_id(name);
        self.azure
            .create_snapshot(&id, &snapshot_body())
            .await
            .expect("snapshot");
        id
    }

    fn assert_nothing_is_open(&self) {
        let grants = self.emulator.state().grants;
        assert!(grants.is_empty(), "{grants:?}");
        assert_eq!(self.emulator.unmodelled(), Vec::<String>::new());
    }
}

fn config_for(url: &str) -> AzureConfig {
    let url: url::Url = url.parse().expect("a URL");
    AzureConfig {
        tenant_id: DEFAULT_TENANT.into(),
        application_id: DEFAULT_CLIENT_ID.into(),
        application_secret: Secret::new(DEFAULT_CLIENT_SECRET.into()),
        subscription_id: DEFAULT_SUBSCRIPTION.into(),
        endpoints: Endpoints {
            authority: url.clone(),
            arm: url,
            ..Endpoints::of_cloud("AzureCloud").expect("known")
        },
        ca_file: None,
        allow_http: true,
        concurrency: 8,
    }
}

fn id(kind: &str, name: &str) -> ResourceId {
    ResourceId::new(
        DEFAULT_SUBSCRIPTION,
        GROUP,
        &format!("Microsoft.Compute/{kind}"),
        name,
    )
}

fn snapshot_id(name: &str) -> ResourceId {
    id("snapshots", name)
}

fn snapshot_body() -> Value {
    json!({
        "location": "westeurope",
        "tags": {"azure-vm-fd:job": "test"},
        "properties": {
            "incremental": true,
            "creationData": {"createOption": "Copy", "sourceResourceId": id("disks", "web-os").as_str()},
        },
    })
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).expect("not empty")
}

async fn read(blob: &PageBlob, range: ByteRange) -> Result<Vec<u8>, Error> {
    Ok(blob.read(range).await?.concat())
}

#[tokio::test]
async fn lists_come_whole_and_resources_as_they_are() {
    let config = Config {
        arm_page_size: 1,
        ..Config::default()
    };
    let world = World::with(config).await;
    let mut scenario = Scenario::new();
    for number in 0..3 {
        let disk = Disk::new(&format!("os-{number}"), MIB);
        scenario = scenario.vm(Vm::new(GROUP, &format!("vm-{number}"), disk).tag("n", "1"));
    }
    world.emulator.load(&scenario).expect("loads");
    let listed = world.azure.virtual_machines().await.expect("listed");
    let mut names: Vec<_> = listed.iter().filter_map(|vm| vm["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["vm-0", "vm-1", "vm-2"]);

    let vm = ResourceId::parse(listed[0]["id"].as_str().expect("an id")).expect("parses");
    let read = world
        .azure
        .virtual_machine_with_instance_view(&vm)
        .await
        .expect("read");
    assert!(read["properties"]["instanceView"]["statuses"].is_array());
    assert_eq!(read["tags"]["n"], "1");
    let found = world
        .azure
        .find_virtual_machine(GROUP, "VM-1")
        .await
        .expect("asked");
    assert_eq!(found.expect("found")["name"], "vm-1");
    let found = world
        .azure
        .find_virtual_machine(GROUP, "vm-9")
        .await
        .expect("asked");
    assert_eq!(found, None);
    let error = world
        .azure
        .disk(&id("disks", "none"))
        .await
        .expect_err("missing");
    assert!(error.is_not_found() && error.code().is_some(), "{error}");
}

#[tokio::test]
async fn a_snapshot_is_made_read_and_removed() {
    let config = Config {
        page_range_limit: 3,
        background_copy_step: Some(50.0),
        operations: OperationPolicy {
            polls_in_progress: 2,
            signature_len: 20_000,
            ..OperationPolicy::default()
        },
        ..Config::default()
    };
    let world = World::with(config).await;
    let snapshot = world.snapshot("s1").await;
    world
        .emulator
        .guest_pattern("web-os", 9, 0, 4 * MIB)
        .expect("written");

    let grant = world
        .azure
        .grant(&snapshot, Access::Read, HOUR)
        .await
        .expect("granted");
    let blob = grant.page_blob();
    assert_eq!(blob.content_length().await.expect("size"), DISK_SIZE + 512);
    let listed = blob.page_ranges().await.expect("listed");
    let data: Vec<_> = listed
        .written
        .iter()
        .filter(|range| range.start() < DISK_SIZE)
        .map(|range| range.start()..range.end())
        .collect();
    assert_eq!(data, world.emulator.disk_extents("s1").expect("extents"));
    assert!(listed.cleared.is_empty());
    for part in [
        range(MIB, MIB + 8192),
        range(0, 512),
        range(3 * MIB - 4096, 3 * MIB + 4096),
    ] {
        let expected = world.emulator.disk_read("s1", part.start(), part.len());
        assert_eq!(
            read(&blob, part).await.expect("read"),
            expected.expect("bytes")
        );
    }
    let beyond = range(DISK_SIZE, DISK_SIZE + 1024);
    assert!(blob.read(beyond).await.is_err());

    grant.revoke().await.expect("revoked");
    world.assert_nothing_is_open();
    world
        .azure
        .delete_snapshot(&snapshot)
        .await
        .expect("deleted");
    world
        .azure
        .delete_snapshot(&snapshot)
        .await
        .expect("gone already");
    assert!(world.azure.snapshots().await.expect("listed").is_empty());
}

#[tokio::test]
async fn a_difference_has_both_kinds_of_range() {
    let world = World::new().await;
    let base = world.snapshot("base").await;
    world
        .emulator
        .guest_pattern("web-os", 1, 40 * MIB, 65_536)
        .expect("written");
    world
        .emulator
        .guest_discard("web-os", 2 * MIB, 8192)
        .expect("discarded");
    let target = world.snapshot("target").await;
    let base = world
        .azure
        .grant(&base, Access::Read, HOUR)
        .await
        .expect("granted");
    let target = world
        .azure
        .grant(&target, Access::Read, HOUR)
        .await
        .expect("granted");
    let changed = target
        .page_blob()
        .page_list_diff(&base.page_blob())
        .collect()
        .await
        .expect("listed");
    let of_the_disk = |ranges: &RangeList| -> Vec<_> {
        let of_the_disk = ranges.iter().filter(|range| range.start() < DISK_SIZE);
        of_the_disk.collect()
    };
    assert_eq!(
        of_the_disk(&changed.written),
        [range(40 * MIB, 40 * MIB + 65_536)]
    );
    assert_eq!(
        of_the_disk(&changed.cleared),
        [range(2 * MIB, 2 * MIB + 8192)]
    );
    // The wrong way round there is no difference to be had.
    let error = base
        .page_blob()
        .page_list_diff(&target.page_blob())
        .collect()
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::DiffUnavailable, "{error}");
    target.revoke().await.expect("revoked");
    base.revoke().await.expect("revoked");
    world.assert_nothing_is_open();
}

#[tokio::test]
async fn a_disk_is_uploaded() {
    let world = World::new().await;
    let disk = id("disks", "restored");
    let body = json!({
        "location": "westeurope",
        "sku": {"name": "Standard_LRS"},
        "properties": {"creationData": {"createOption": "Upload", "uploadSizeBytes": DISK_SIZE + 512}},
    });
    let made = world
        .azure
        .create_upload_disk(&disk, &body)
        .await
        .expect("created");
    assert_eq!(made["properties"]["diskState"], "ReadyToUpload");
    let grant = world
        .azure
        .grant(&disk, Access::Write, HOUR)
        .await
        .expect("granted");
    let blob = grant.page_blob();
    assert_eq!(blob.content_length().await.expect("size"), DISK_SIZE + 512);
    let data = Bytes::from(vec![0xA5; 4 << 20]);
    world.fault("Blob_PutPage", Action::LostAnswer);
    blob.write(8 * MIB, data.clone()).await.expect("written");
    for (offset, data) in [
        (1, data.slice(..512)),
        (0, data.slice(..100)),
        (0, Bytes::new()),
        (0, Bytes::from(vec![1; (4 << 20) + 512])),
    ] {
        let error = blob.write(offset, data).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
    let footer = vhd::fixed_footer(DISK_SIZE, uuid::Uuid::from_u128(1), SystemTime::now());
    blob.write(DISK_SIZE, Bytes::copy_from_slice(&footer))
        .await
        .expect("written");
    assert!(blob.repeats() >= 1);
    grant.revoke().await.expect("revoked");
    assert_eq!(
        world
            .emulator
            .disk_read("restored", 8 * MIB - 1, 3)
            .expect("bytes"),
        [0, 0xA5, 0xA5]
    );
    world.azure.delete_disk(&disk).await.expect("deleted");
    world.assert_nothing_is_open();
}

#[tokio::test]
async fn spoilt_answers_are_fetched_again_whole() {
    let world = World::new().await;
    let snapshot = world.snapshot("s1").await;
    let grant = world
        .azure
        .grant(&snapshot, Access::Read, HOUR)
        .await
        .expect("granted");
    let blob = grant.page_blob();
    let part = range(MIB, 2 * MIB);
    let expected = world
        .emulator
        .disk_read("s1", part.start(), part.len())
        .expect("bytes");
    for action in [
        Action::Reset,
        Action::LostAnswer,
        Action::CutBody {
            after: ByteSize(100_000),
        },
        Action::ShortBody { by: ByteSize(512) },
        Action::WrongContentRange { by: ByteSize(512) },
        Action::OtherRange { by: ByteSize(512) },
        Action::Throttle { retry_after: None },
        Action::RevokeSas,
        Action::ExpireSas,
    ] {
        let described = format!("{action:?}");
        world.fault("Blob_Get", action);
        let bytes = read(&blob, part).await;
        assert!(bytes.expect(&described) == expected, "{described}");
    }
    grant.revoke().await.expect("revoked");
    world.assert_nothing_is_open();
}

/// An explanation that is longer than what was asked for must not hide the refusal.
#[tokio::test]
async fn long_refusals_of_short_reads_are_understood() {
    let world = World::new().await;
    let snapshot = world.snapshot("s1").await;
    let grant = world
        .azure
        .grant(&snapshot, Access::Read, HOUR)
        .await
        .expect("granted");
    let page = format!(
        "<html><title>502 Bad Gateway</title>{}</html>",
        "x".repeat(5000)
    );
    world.fault(
        "Blob_Get",
        Action::Status {
            status: 502,
            code: None,
            body: Some(page),
            retry_after: None,
        },
    );
    assert_eq!(
        read(&grant.page_blob(), range(0, 512))
            .await
            .expect("read")
            .len(),
        512
    );
    grant.revoke().await.expect("revoked");
}

#[tokio::test]
async fn answers_that_stay_wrong_are_errors() {
    let world = World::new().await;
    let snapshot = world.snapshot("s1").await;
    let grant = world
        .azure
        .grant(&snapshot, Access::Read, HOUR)
        .await
        .expect("granted");
    let short = Action::ShortBody { by: ByteSize(512) };
    world.emulator.fault(Fault::new("Blob_Get", short));
    let error = grant
        .page_blob()
        .read(range(0, 4096))
        .await
        .expect_err("short");
    assert_eq!(error.kind(), ErrorKind::InvalidAnswer, "{error}");
    assert_eq!(
        error.defect(),
        Some(&Defect::WrongLength {
            expected: 4096,
            actual: 3584
        })
    );
    let text = error.to_string();
    assert!(
        text.starts_with("read bytes 0..4096 of 127.0.0.1:"),
        "{text}"
    );
    assert!(!text.contains("sig"), "{text}");
    grant.revoke().await.expect("revoked");
}

#[tokio::test]
async fn lost_answers_make_nothing_twice() {
    let world = World::new().await;
    world.fault("Snapshots_CreateOrUpdate", Action::LostAnswer);
    let snapshot = world.snapshot("s1").await;
    assert_eq!(world.emulator.state().snapshots.len(), 1);
    world.fault("Snapshots_GrantAccess", Action::LostAnswer);
    let grant = world
        .azure
        .grant(&snapshot, Access::Read, HOUR)
        .await
        .expect("granted");
    assert_eq!(
        read(&grant.page_blob(), range(0, 512))
            .await
            .expect("read")
            .len(),
        512
    );
    assert_eq!(world.emulator.state().grants.len(), 1);
    world.fault("Snapshots_RevokeAccess", Action::LostAnswer);
    grant.revoke().await.expect("revoked");
    world.assert_nothing_is_open();
    world.fault("Snapshots_Delete", Action::LostAnswer);
    world
        .azure
        .delete_snapshot(&snapshot)
        .await
        .expect("deleted");
    assert!(world.emulator.state().snapshots.is_empty());
}

#[tokio::test]
async fn an_expired_token_is_replaced_under_way() {
    let world = World::new().await;
    world.azure.login().await.expect("good credentials");
    world.azure.virtual_machines().await.expect("listed");
    assert_eq!(world.emulator.counters().requests("Token"), 1);
    // The client does not see this clock: to it the token is fresh, and the service refuses it.
    world.emulator.advance_clock(2 * HOUR);
    world.azure.virtual_machines().await.expect("listed");
    assert_eq!(world.emulator.counters().requests("Token"), 2);
}

#[tokio::test]
async fn wrong_credentials_are_explained() {
    let world = World::new().await;
    let good = config_for(world.emulator.http_url());
    for (config, expected) in [
        (
            AzureConfig {
                application_secret: Secret::new("wr0ng".into()),
                ..good.clone()
            },
            "AADSTS7000215",
        ),
        (
            AzureConfig {
                tenant_id: "00000000-0000-4000-8000-000000000001".into(),
                ..good.clone()
            },
            "AADSTS90002",
        ),
        (
            AzureConfig {
                application_id: "00000000-0000-4000-8000-000000000001".into(),
                ..good.clone()
            },
            "AADSTS700016",
        ),
    ] {
        let azure = Azure::new(config, CancellationToken::new()).expect("client");
        let error = azure.login().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        let text = error.to_string();
        assert!(text.contains(expected) && !text.contains("wr0ng"), "{text}");
    }
}

#[tokio::test]
async fn certificates_are_checked_and_private_ones_accepted_by_file() {
    let world = World::new().await;
    let strict = AzureConfig {
        allow_http: false,
        ..config_for(world.emulator.https_url())
    };
    let azure = Azure::new(strict.clone(), CancellationToken::new()).expect("client");
    let error = azure.login().await.expect_err("untrusted");
    assert_eq!(
        (error.kind(), error.attempts()),
        (ErrorKind::Certificate, 1)
    );
    assert!(error.to_string().contains("ca_file"), "{error}");

    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(world.emulator.ca_pem().as_bytes())
        .expect("written");
    let trusting = AzureConfig {
        ca_file: Some(file.path().to_owned()),
        ..strict
    };
    let azure = Azure::new(trusting, CancellationToken::new()).expect("client");
    assert_eq!(azure.virtual_machines().await.expect("listed").len(), 1);
    let snapshot = snapshot_id("s1");
    azure
        .create_snapshot(&snapshot, &snapshot_body())
        .await
        .expect("snapshot");
    let grant = azure
        .grant(&snapshot, Access::Read, HOUR)
        .await
        .expect("granted");
    assert_eq!(
        read(&grant.page_blob(), range(0, 512))
            .await
            .expect("read")
            .len(),
        512
    );
    grant.revoke().await.expect("revoked");
}

#[tokio::test]
async fn refusals_say_what_is_missing() {
    let world = World::new().await;
    world.fault(
        "Snapshots_CreateOrUpdate",
        Action::FailOperation {
            code: "InternalExecutionError".into(),
            message: "An internal execution error occurred.".into(),
        },
    );
    let snapshot = snapshot_id("s1");
    let error = world
        .azure
        .create_snapshot(&snapshot, &snapshot_body())
        .await
        .expect_err("failed");
    assert_eq!(error.kind(), ErrorKind::OperationFailed);
    assert_eq!(error.code(), Some("InternalExecutionError"));
    assert!(
        error
            .to_string()
            .starts_with(&format!("create snapshot {snapshot}: ")),
        "{error}"
    );

    world.fault(
        "VirtualMachines_ListAll",
        Action::Status {
            status: 403,
            code: Some("AuthorizationFailed".into()),
            body: None,
            retry_after: None,
        },
    );
    let error = world.azure.virtual_machines().await.expect_err("refused");
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Forbidden, Some(403))
    );
    let text = error.to_string();
    for part in ["list virtual machines", "AuthorizationFailed"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn cancelling_ends_a_wait_and_what_is_open_is_given_back() {
    let world = World::new().await;
    let snapshot = world.snapshot("s1").await;
    let grant = world
        .azure
        .grant(&snapshot, Access::Read, HOUR)
        .await
        .expect("granted");
    world.fault("Disks_CreateOrUpdate", Action::NeverEnding);
    let disk = id("disks", "never");
    let body = json!({
        "location": "westeurope",
        "properties": {"creationData": {"createOption": "Upload", "uploadSizeBytes": DISK_SIZE + 512}},
    });
    let cancelling = async {
        while world.emulator.counters().requests("Disks_CreateOrUpdate") == 0 {
            tokio::task::yield_now().await;
        }
        world.cancel.cancel();
    };
    let (result, ()) = tokio::join!(world.azure.create_upload_disk(&disk, &body), cancelling);
    assert!(result.expect_err("cancelled").is_cancelled());
    assert!(
        world
            .azure
            .virtual_machines()
            .await
            .expect_err("over")
            .is_cancelled()
    );
    grant.revoke().await.expect("revoked");
    world.assert_nothing_is_open();
    world
        .azure
        .for_cleanup()
        .delete_snapshot(&snapshot)
        .await
        .expect("deleted");
    assert!(world.emulator.state().snapshots.is_empty());
}
