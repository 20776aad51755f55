//! What a restore keeps, what it refuses, and what it leaves when it goes wrong.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bacula_bench::{
    Bench, Generation, JOB, RESTORED, RestoreRequest, leftovers, on_both_generations,
};
use mock_server::{
    Action, Disk, Fault, Link, MIB, NetworkInterface, NetworkSecurityGroup, Scenario, Vm,
};
use serde_json::{Map, Value, json};

on_both_generations!(
    a_vm_is_found_by_its_name_and_marked_by_its_uuid,
    settings_come_back_and_what_cannot_is_told,
    a_name_that_is_taken_is_refused_before_any_transfer,
    a_restore_that_fails_or_is_cancelled_leaves_nothing,
    debug_9_keeps_the_local_disks,
);

const HANG: Duration = Duration::from_secs(120);

fn world() -> Scenario {
    let disk = |name: &str, seed| Disk::new(name, 24 * MIB).pattern(seed, MIB, 4 * MIB);
    Scenario::new().vm(Vm::new("rg", "web", disk("web-os", 1)).data_disk(3, disk("web-data", 2)))
}

/// As a person does it, of a job that saved two VMs.
fn a_vm_is_found_by_its_name_and_marked_by_its_uuid(generation: Generation) -> Result<()> {
    let other = Vm::new(
        "rg",
        "other",
        Disk::new("other-os", 24 * MIB).pattern(9, 0, MIB),
    );
    let bench = Bench::start(generation, world().vm(other), "include=.*")?;
    let backup = bench.full()?;
    let expected = bench.cloud.digests("web")?;
    bench.cloud.delete_vm("web")?;
    let select = format!(
        "restore jobid={} client=bench-fd restorejob=restore\ncd @azure-vm\n",
        backup.id
    );
    let listing = bench.sandbox.ask(&format!("{select}ls\nquit"))?;
    let label = |name: &str| {
        let end = format!("_{name}.name");
        let words = listing.split_whitespace();
        words.filter_map(|word| word.strip_suffix(&end)).next_back()
    };
    let uuid = label("web").with_context(|| listing.clone())?;
    ensure!(
        label("other").is_some_and(|other| other != uuid),
        "{listing}"
    );
    ensure!(listing.contains(&format!("{uuid}/")), "{listing}");
    let marking = format!("{select}mark {uuid}*\n");
    let marked = bench.sandbox.ask(&format!("{marking}quit"))?;
    // Label, document, two images and digests; the folder counts in one of the generations.
    ensure!(
        ["5 files marked", "6 files marked"]
            .iter()
            .any(|text| marked.contains(text)),
        "{marked}"
    );
    let report = bench
        .sandbox
        .run(&format!("{marking}done\nyes\n"))?
        .clean()?;
    ensure!(bench.cloud.digests("web")? == expected, "{}", report.log);
    ensure!(bench.cloud.state().virtual_machines.len() == 2);
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

fn properties(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// A VM with everything that Azure lets one have, beside what the VM of `round_trip.rs` has.
fn rich() -> Scenario {
    let id = |kind: &str, name: &str| {
        format!(
            "/subscriptions/{}/resourceGroups/rg/providers/{kind}/{name}",
            mock_server::DEFAULT_SUBSCRIPTION
        )
    };
    let mut os = Disk::new("web-os", 24 * MIB).pattern(1, MIB, MIB);
    os.os_type = Some("Windows".into());
    os.hyper_v_generation = Some("V2".into());
    os.properties = properties(json!({
        "securityProfile": { "securityType": "TrustedLaunch" },
        "encryption": {
            "type": "EncryptionAtRestWithCustomerKey",
            "diskEncryptionSetId": id("Microsoft.Compute/diskEncryptionSets", "keys"),
        },
    }));
    let mut nic = NetworkInterface::new("web-nic", "vnet/app").static_address("10.2.0.40");
    nic.network_security_group = Some("nsg".into());
    nic.enable_accelerated_networking = true;
    nic.enable_ip_forwarding = true;
    let second = NetworkInterface::new("web-nic-2", "vnet/back");
    let data = Disk::new("web-data", 24 * MIB).sku("StandardSSD_LRS");
    let mut vm = Vm::new("rg", "web", os)
        .size("Standard_E4s_v5")
        .tag("owner", "book keeping")
        .data_disk_cached(5, "ReadOnly", data)
        .nic(nic)
        .nic(second);
    vm.identity = Some(
        json!({ "type": "SystemAssigned, UserAssigned", "userAssignedIdentities":
        { id("Microsoft.ManagedIdentity/userAssignedIdentities", "reader"): {} } }),
    );
    vm.plan = Some(json!({ "name": "basic", "product": "appliance", "publisher": "contoso" }));
    vm.properties = properties(json!({
        "licenseType": "Windows_Server",
        "securityProfile": { "securityType": "TrustedLaunch", "encryptionAtHost": true,
            "uefiSettings": { "secureBootEnabled": true, "vTpmEnabled": true } },
        "diagnosticsProfile": { "bootDiagnostics": { "enabled": true } },
        "availabilitySet": { "id": id("Microsoft.Compute/availabilitySets", "two-racks") },
    }));
    let mut world = Scenario::new()
        .network(
            "rg",
            "vnet",
            &[("app", "10.2.0.0/24"), ("back", "10.2.1.0/24")],
        )
        .vm(vm);
    world.network_security_groups.push(NetworkSecurityGroup {
        name: "nsg".into(),
        resource_group: Some("rg".into()),
        ..NetworkSecurityGroup::default()
    });
    world
}

/// What must be the same in a restored VM, by its name.
fn settings(bench: &Bench, name: &str) -> Result<BTreeMap<String, Value>> {
    let state = bench.cloud.state();
    let vm = state.vm(name).context("no VM")?;
    let mut found = BTreeMap::new();
    let mut take = |what: &str, resource: &Value, pointers: &[&str]| {
        for pointer in pointers {
            let value = resource.pointer(pointer).cloned().unwrap_or_default();
            found.insert(format!("{what}{pointer}"), value);
        }
    };
    take(
        "vm",
        &vm.resource,
        &[
            "/location",
            "/zones",
            "/tags",
            "/plan",
            "/identity/type",
            "/properties/hardwareProfile/vmSize",
            "/properties/licenseType",
            "/properties/securityProfile",
            "/properties/diagnosticsProfile",
            "/properties/availabilitySet/id",
            "/properties/storageProfile/osDisk/osType",
            "/properties/storageProfile/osDisk/caching",
            "/properties/storageProfile/dataDisks/0/lun",
            "/properties/storageProfile/dataDisks/0/caching",
        ],
    );
    let identities = vm.resource.pointer("/identity/userAssignedIdentities");
    let identities = identities
        .and_then(Value::as_object)
        .context("no identities")?;
    take(
        "identities",
        &json!(identities.keys().collect::<Vec<_>>()),
        &[""],
    );
    for (number, id) in vm.network_interfaces.iter().enumerate() {
        let nic = state
            .network_interfaces
            .iter()
            .find(|nic| nic.id.eq_ignore_ascii_case(id));
        take(
            &format!("interface {number}"),
            &nic.context("no interface")?.resource,
            &[
                "/properties/enableAcceleratedNetworking",
                "/properties/enableIPForwarding",
                "/properties/networkSecurityGroup/id",
                "/properties/ipConfigurations/0/properties/subnet/id",
                "/properties/ipConfigurations/0/properties/privateIPAllocationMethod",
            ],
        );
        take(
            &format!("interface {number} of the VM"),
            &vm.resource["properties"]["networkProfile"]["networkInterfaces"][number],
            &["/properties/primary"],
        );
    }
    for disk in std::iter::once(&vm.os_disk).chain(vm.data_disks.values()) {
        let disk = state
            .disks
            .iter()
            .find(|other| other.id.eq_ignore_ascii_case(&disk.id));
        let disk = disk.context("no disk")?;
        let slot = if disk.resource.pointer("/properties/osType").is_some() {
            "os"
        } else {
            "data"
        };
        take(
            slot,
            &disk.resource,
            &[
                "/sku/name",
                "/properties/osType",
                "/properties/hyperVGeneration",
                "/properties/securityProfile/securityType",
                "/properties/encryption/diskEncryptionSetId",
                "/properties/diskSizeBytes",
            ],
        );
    }
    Ok(found)
}

fn ensure_same(saved: &BTreeMap<String, Value>, restored: &BTreeMap<String, Value>) -> Result<()> {
    for (what, value) in saved {
        let found = restored.get(what).unwrap_or(&Value::Null);
        ensure!(found == value, "{what} is {found}, and was {value}");
    }
    ensure!(saved.len() == restored.len());
    Ok(())
}

fn settings_come_back_and_what_cannot_is_told(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, rich(), "vm=web")?;
    let saved = settings(&bench, "web")?;
    ensure!(
        saved["vm/properties/licenseType"] == "Windows_Server",
        "{saved:?}"
    );
    let backup = bench.full()?;
    let restore = || -> Result<_> {
        let report = bench.sandbox.restore(&RestoreRequest {
            jobs: vec![backup.id],
            ..RestoreRequest::named(RESTORED)
        })?;
        report.clean()
    };
    // While the old VM has its address, the new one has another, and that is told.
    let report = restore()?;
    let mut restored = settings(&bench, RESTORED)?;
    let method = "interface 0/properties/ipConfigurations/0/properties/privateIPAllocationMethod";
    ensure!(
        restored[method] == "Dynamic" && saved[method] == "Static",
        "{restored:?}"
    );
    restored.insert(method.to_owned(), saved[method].clone());
    ensure_same(&saved, &restored)?;
    for warning in [
        "the private address 10.2.0.40 is in use, the new interface has a dynamic one",
        "the new virtual machine has a system-assigned identity of its own",
    ] {
        let lines = report.lines_with(warning);
        ensure!(
            lines.len() == 1 && lines[0].contains("Warning: azure-vm: "),
            "{}",
            report.log
        );
    }
    bench.cloud.delete_vm(RESTORED)?;
    // Without it everything comes back.
    bench.cloud.delete_vm("web")?;
    let report = restore()?;
    ensure_same(&saved, &settings(&bench, RESTORED)?)?;
    ensure!(report.lines_with("is in use").is_empty(), "{}", report.log);
    ensure!(bench.cloud.emulator().unmodelled().is_empty());
    Ok(())
}

fn a_name_that_is_taken_is_refused_before_any_transfer(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, world(), "vm=web")?;
    let backup = bench.full()?;
    let emulator = bench.cloud.emulator();
    emulator.guest_write("web-os", 0, b"written after the backup")?;
    let before = bench.cloud.digests("web")?;
    emulator.reset_counters();
    // Without new_hostname the saved name counts.
    let report = bench.sandbox.restore(&RestoreRequest {
        jobs: vec![backup.id],
        ..RestoreRequest::default()
    })?;
    ensure!(matches!(report.status, 'f' | 'E'), "{}", report.log);
    ensure!(
        report
            .lines_with("create virtual machine web in resource group rg: the name is taken")
            .len()
            == 1,
        "{}",
        report.log
    );
    let counters = emulator.counters();
    let changing = counters.operations.keys().filter(|name| {
        [
            "CreateOrUpdate",
            "GrantAccess",
            "PutPage",
            "Delete",
            "Update",
        ]
        .iter()
        .any(|verb| name.ends_with(verb))
    });
    ensure!(changing.count() == 0, "{counters:#?}");
    ensure!(
        bench.cloud.digests("web")? == before,
        "what exists was overwritten"
    );
    expect_nothing_left(&bench)?;
    Ok(())
}

fn expect_nothing_left(bench: &Bench) -> Result<()> {
    let findings = leftovers(&bench.cloud, &bench.sandbox, 2)?;
    let bad: Vec<_> = findings.iter().filter(|finding| !finding.good).collect();
    ensure!(bad.is_empty(), "left behind: {bad:#?}");
    ensure!(bench.cloud.state().vm(RESTORED).is_none());
    Ok(())
}

fn a_restore_that_fails_or_is_cancelled_leaves_nothing(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, world(), "vm=web")?;
    let backup = bench.full()?;
    let expected = bench.cloud.digests("web")?;
    let emulator = bench.cloud.emulator();
    let request = RestoreRequest {
        jobs: vec![backup.id],
        ..RestoreRequest::named(RESTORED)
    };
    emulator.fault(Fault::new("Blob_PutPage", Action::error(400, "InvalidInput")).from(2));
    let report = bench.sandbox.restore(&request)?;
    emulator.clear_faults();
    ensure!(
        matches!(report.status, 'f' | 'E') && report.log.contains("InvalidInput"),
        "{}",
        report.log
    );
    expect_nothing_left(&bench)?;

    // Slow enough that the upload is surely under way.
    emulator.reset_counters();
    emulator.fault(Fault::new(
        "Blob_PutPage",
        Action::delay(Duration::from_secs(600)),
    ));
    emulator.set_link(Link {
        latency: Duration::from_millis(20),
        bandwidth: None,
    });
    let started = Instant::now();
    let id = bench.sandbox.start_restore(&request)?;
    while emulator.counters().requests("Blob_PutPage") == 0 {
        ensure!(started.elapsed() < HANG, "nothing was uploaded");
        std::thread::sleep(Duration::from_millis(50));
    }
    let report = bench.sandbox.cancel(id)?;
    emulator.clear_faults();
    ensure!(
        report.status == 'A',
        "status {}\n{}",
        report.status,
        report.log
    );
    // The Director does not wait for the File Daemon.
    let cancelled = Instant::now();
    while let Err(left) = expect_nothing_left(&bench) {
        ensure!(cancelled.elapsed() < HANG, "{left}\n{}", report.log);
        std::thread::sleep(Duration::from_millis(100));
    }
    emulator.set_link(Link::default());
    bench.restore_equals(&[backup.id], &expected)?;
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}

fn debug_9_keeps_the_local_disks(generation: Generation) -> Result<()> {
    let bench = Bench::start(generation, world(), "vm=web")?;
    let emulator = bench.cloud.emulator();
    let full = bench.full()?;
    emulator.guest_write("web-data", 10 * MIB, b"changed")?;
    let next = bench.sandbox.backup(JOB, "Incremental")?.clean()?;
    // Together the options have a length that 9.6 with SQLite does not lose.
    let name = format!("{RESTORED}-x");
    let mut request = RestoreRequest {
        jobs: vec![full.id, next.id],
        ..RestoreRequest::named(&name)
    };
    request.plugin_options.push(("debug".into(), "9".into()));
    let report = bench.sandbox.restore(&request)?.clean()?;
    ensure!(bench.cloud.digests(&name)? == bench.cloud.digests("web")?);
    let folder = bench
        .sandbox
        .file_daemon_directory()
        .join(format!("azure-vm/restore/{}", report.id));
    let mut kept = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| report.log.clone())? {
        kept.push(fs::read(entry?.path())?);
    }
    for disk in ["web-os", "web-data"] {
        let bytes = emulator.disk_read(disk, 0, 24 * MIB)?;
        ensure!(
            kept.contains(&bytes),
            "{disk} was not kept as it is\n{}",
            report.log
        );
    }
    ensure!(emulator.unmodelled().is_empty());
    Ok(())
}
