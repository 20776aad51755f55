//! `.query`: answers as a console gets them.

use crate::cloud::Cloud;
use crate::host::Job;
use crate::jobs::{backup, start};
use crate::numbers::{ALL, Numbers};

/// Daemons of version 11 and later have the function.
fn with_queries() -> impl Iterator<Item = &'static Numbers> {
    ALL.iter().filter(|numbers| numbers.version > 14)
}

/// The lines behind the first, which is fixed, of an answer that ends as a console expects it.
fn ask(job: &mut Job, name: &str, command: &str) -> Vec<String> {
    let answer = job.query(name, command);
    // A message would stand in front of the answer at the console.
    assert_eq!(job.messages(), []);
    let lines = answer.strip_prefix("info=Query\n").expect("the first line");
    assert!(
        answer.ends_with('\n') && !answer.contains("\n\n"),
        "{answer:?}"
    );
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn questions_are_answered() {
    for numbers in with_queries() {
        let cloud = Cloud::start();
        let mut job = start(numbers, &cloud, 0);
        let good = cloud.command("");
        // The warning about a secret in the Plugin line has no place in an answer.
        let bad = cloud.command("application_secret=nonsense");
        assert_eq!(ask(&mut job, "connection", &good), ["CONNECTION=OK"]);
        assert_eq!(ask(&mut job, "CONNECTION", &bad), ["CONNECTION=NOK"]);
        let incomplete = format!("{} tenant_id=", cloud.command(""));
        assert_eq!(ask(&mut job, "Connection", &incomplete), ["CONNECTION=NOK"]);
        // What is selected does not matter.
        let selecting = cloud.command("vm=none include=x exclude=(.*)");
        assert_eq!(ask(&mut job, "VM", &selecting), ["VM=web-01"]);
        let refused = ask(&mut job, "vm", &bad);
        assert!(
            refused.len() == 1 && refused[0].starts_with("error="),
            "{refused:?}"
        );
        assert!(!refused[0].contains("nonsense"), "{refused:?}");
        assert_eq!(
            ask(&mut job, "DISK", &good),
            [
                "DISK=web-01-os vm=web-01 slot=os size=67108864 sku=Premium_LRS",
                "DISK=web-01-data vm=web-01 slot=0 size=33554432 sku=Premium_LRS",
                "DISK=web-01-empty vm=web-01 slot=5 size=25165824 sku=Premium_LRS",
            ]
        );
        let versions = ask(&mut job, "VERSION", &good);
        let keys: Vec<_> = versions
            .iter()
            .map(|line| line.split_once('=').expect("a key and a value"))
            .collect();
        let expected = [
            "azure-cli",
            "azure-cli-core",
            "azure-cli-telemetry",
            "azcopy",
            "azure-vm-fd",
        ];
        assert_eq!(
            keys.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
            expected
        );
        assert!(keys.iter().all(|(_, value)| !value.is_empty()), "{keys:?}");
        assert_eq!(
            ask(&mut job, "COLOUR", &good),
            [
                "Query not recognized, possible value={CONNECTION, VM}",
                "info=GROUP, VERSION, SNAPSHOT and DISK are known, too",
            ]
        );
        assert_eq!(
            ask(&mut job, "SNAPSHOT", &good),
            [""; 0],
            "nothing was saved yet"
        );
        job.end();
        cloud.assert_clean(0);
    }
}

#[test]
fn groups_are_listed_without_a_request() {
    for numbers in with_queries() {
        let cloud = Cloud::start();
        let mut job = start(numbers, &cloud, 0);
        let file = cloud.dir.path().join("groups.conf");
        std::fs::write(&file, "[zeta]\ntenant_id = t\n[Alpha]\n[mid-dle]\n").expect("write");
        let command = format!("azure-vm: config={}", file.display());
        assert_eq!(
            ask(&mut job, "GROUP", &command),
            ["GROUP=zeta", "GROUP=Alpha", "GROUP=mid-dle"]
        );
        let nowhere = ask(&mut job, "GROUP", "azure-vm: config=/nonexistent");
        assert!(
            nowhere[0].starts_with("error=read configuration file"),
            "{nowhere:?}"
        );
        job.end();
        assert!(cloud.emulator.counters().operations.is_empty());
        cloud.assert_clean(0);
    }
}

#[test]
fn snapshots_are_those_of_the_tracker() {
    let cloud = Cloud::start();
    let numbers = with_queries().last().expect("one");
    let command = cloud.command("vm=web-01");
    backup(numbers, &cloud, &command);
    let mut job = start(numbers, &cloud, 0);
    let lines = ask(&mut job, "SNAPSHOT", &command);
    assert_eq!(lines.len(), 3, "{lines:?}");
    let state = cloud.emulator.state();
    for (disk, slot, size) in [
        ("web-01-os", "os", 67_108_864_u64),
        ("web-01-data", "0", 33_554_432),
        ("web-01-empty", "5", 25_165_824),
    ] {
        let line = lines
            .iter()
            .find(|line| line.contains(&format!(" disk={disk} ")))
            .expect(disk);
        let name = line.split([' ', '=']).nth(1).expect("a name");
        assert!(
            state.snapshots.iter().any(|snapshot| snapshot.name == name),
            "{line}"
        );
        assert!(
            line.starts_with(&format!(
                "SNAPSHOT={name} vm=web-01 disk={disk} slot={slot} level=Full age="
            )),
            "{line}"
        );
        assert!(
            line.ends_with(&format!(" size={size} job=test.2026-01-01_00.00.00_01")),
            "{line}"
        );
    }
    // The tracker knows all of it: wrong access values do not matter.
    let unreachable = cloud.command("vm=web-01 application_secret=nonsense");
    assert_eq!(ask(&mut job, "SNAPSHOT", &unreachable).len(), 3);
    job.end();
    cloud.assert_clean(3);
}
