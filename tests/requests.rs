//! What a backup asks of Azure, request by request, and what overlaps. `docs/performance.md` shows the table and says what
//! each request is for.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "tests show what they measured")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use azure_vm_fd::backup::{Content, DiskImage, Level, Outcome, Run, VmBackup};
use mock_server::{Action, Config, Disk, Fault, KIB, MIB, NetworkInterface, OperationPolicy, Vm};
use support::{GROUP, World, run, scenario, small};

/// Requests by operation.
type Requests = BTreeMap<String, u64>;

/// A VM with an OS disk, a data disk and a network interface.
fn pair(name: &str) -> Vm {
    let disk = |role| Disk::new(&format!("{name}-{role}"), 20 * MIB).pattern(7, MIB, MIB);
    Vm::new(GROUP, name, disk("os"))
        .data_disk_cached(0, "None", disk("data"))
        .nic(NetworkInterface::new(
            &format!("{name}-nic"),
            "vnet/subnet-a",
        ))
}

fn incremental(number: u32) -> Run {
    Run {
        level: Level::Incremental,
        previous: Some(run(number - 1).job),
        ..run(number)
    }
}

/// What the fourth run asks: the first from which on each run deletes as many snapshots as it takes.
async fn requests_of_an_incremental(vms: &[&str]) -> Requests {
    let at_once = OperationPolicy {
        results_at_once: true,
        ..OperationPolicy::default()
    };
    let world = World::with(Config {
        scenario: vms
            .iter()
            .fold(scenario(), |scenario, name| scenario.vm(pair(name))),
        operations: at_once,
        ..Config::default()
    })
    .await;
    world.back_up(run(1)).await;
    for number in 2..=4 {
        for name in vms {
            for role in ["os", "data"] {
                let disk = format!("{name}-{role}");
                let written = world.emulator.guest_pattern(&disk, 100, 4 * MIB, 64 * KIB);
                written.unwrap();
            }
        }
        if number == 4 {
            // As Azure does: each operation is accepted, and done when one first looks.
            world.emulator.set_operations(OperationPolicy::default());
            world.emulator.reset_counters();
        }
        world.back_up(incremental(number)).await;
    }
    world.assert_settled();
    assert_eq!(world.state().snapshots.len(), vms.len() * 2 * 3);
    let counters = world.emulator.counters().operations;
    counters
        .into_iter()
        .map(|(name, counters)| (name, counters.requests))
        .collect()
}

/// Operation, requests for one VM, requests for each further one.
const TABLE: [(&str, u64, u64); 15] = [
    ("Token", 1, 0),
    ("VirtualMachines_ListAll", 1, 0),
    ("Snapshots_List", 1, 0),
    ("VirtualMachines_Get", 1, 1),
    ("Disks_Get", 2, 2),
    ("NetworkInterfaces_Get", 1, 1),
    ("Snapshots_CreateOrUpdate", 2, 2),
    ("Snapshots_Get", 2, 2),
    ("Snapshots_GrantAccess", 4, 4),
    ("Snapshots_RevokeAccess", 4, 4),
    ("Snapshots_Delete", 2, 2),
    // One look at each operation but the creation of snapshots, whose end the snapshot tells itself.
    ("DiskOperations_Get", 10, 10),
    ("Blob_GetPageRangesDiff", 2, 2),
    // Whether that is a difference: a service that does not heed the base must be noticed.
    ("Blob_GetPageRanges", 2, 2),
    // Footer, changes and last sector of each disk.
    ("Blob_Get", 6, 6),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_asks_for_nothing_that_could_be_saved() {
    let (one, two) = tokio::join!(
        requests_of_an_incremental(&["a"]),
        requests_of_an_incremental(&["a", "b"])
    );
    println!("| operation | 1 VM | each further VM |\n| --- | --- | --- |");
    for (name, _, _) in TABLE {
        let further = two.get(name).zip(one.get(name)).map(|(two, one)| two - one);
        println!("| `{name}` | {:?} | {further:?} |", one.get(name));
    }
    let expected = |vms: u64| -> Requests {
        TABLE
            .iter()
            .map(|(name, first, further)| ((*name).to_owned(), first + further * (vms - 1)))
            .collect()
    };
    assert_eq!(one, expected(1));
    assert_eq!(two, expected(2));
}

/// Waits for what is on its way; a bound only against hanging.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// The next image, its first block read; entries before it are passed by.
async fn begin_image(vm: &mut VmBackup) -> Box<DiskImage> {
    loop {
        if let Content::Image(mut image) = vm.next_entry().unwrap().content {
            assert!(image.read_block(&mut [0; 4096]).await.unwrap().is_some());
            return image;
        }
    }
}

async fn end_image(mut image: Box<DiskImage>) {
    let mut buffer = vec![0; 64 * 1024];
    while image.read_block(&mut buffer).await.unwrap().is_some() {}
    image.finish().await.unwrap();
}

impl World {
    fn has_snapshot_of(&self, disk: &str) -> bool {
        let state = self.state();
        state
            .snapshots
            .iter()
            .any(|snapshot| snapshot.source.ends_with(disk))
    }

    fn read(&self) -> u64 {
        self.emulator.counters().of("Blob_Get").bytes_out
    }
}

/// One VM ahead and no more: snapshots shall be young.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_vm_is_opened_and_its_first_bytes_are_read_while_the_last_disk_drains() {
    let world = World::new(scenario().vm(pair("a")).vm(small("b")).vm(small("c"))).await;
    let mut backup = world.begin(run(1)).await.unwrap();
    let mut a = backup.next_vm().await.unwrap().unwrap();

    let image = begin_image(&mut a).await;
    // Of two disks with 1 MiB each, and of their footers and last sectors.
    let both = 2 * MIB + 4 * 512;
    until("the second disk is read beside the first", || {
        world.read() == both
    })
    .await;
    assert!(!world.has_snapshot_of("b-os"), "too early");
    end_image(image).await;

    let image = begin_image(&mut a).await;
    until("b has a snapshot", || world.has_snapshot_of("b-os")).await;
    let b = 2 * MIB + 2 * 512;
    until("b is read", || world.read() == both + b).await;
    assert!(!world.has_snapshot_of("c-os"), "two ahead");
    end_image(image).await;
    a.close().await;

    let mut b = backup.next_vm().await.unwrap().unwrap();
    end_image(begin_image(&mut b).await).await;
    b.close().await;
    let mut c = backup.next_vm().await.unwrap().unwrap();
    end_image(begin_image(&mut c).await).await;
    c.close().await;
    backup.finish(Outcome::Good).await.unwrap();
    world.assert_settled();
}

/// Access that Azure is slow to take back does not hold up the next disk, and the run does not end before it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_is_given_back_while_the_next_disk_is_read() {
    let world = World::new(scenario().vm(pair("a"))).await;
    world.emulator.fault(Fault::new(
        "Snapshots_RevokeAccess",
        Action::error(503, "ServiceUnavailable"),
    ));
    let mut backup = world.begin(run(1)).await.unwrap();
    let mut vm = backup.next_vm().await.unwrap().unwrap();
    for _ in 0..2 {
        end_image(begin_image(&mut vm).await).await;
    }
    vm.close().await;
    until("it is tried", || {
        world.emulator.counters().requests("Snapshots_RevokeAccess") >= 2
    })
    .await;
    assert_eq!(world.state().grants.len(), 2);
    world.emulator.clear_faults();
    backup.finish(Outcome::Good).await.unwrap();
    world.assert_settled();
}
