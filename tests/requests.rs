//! What a backup asks of Azure, request by request, and what overlaps. `docs/performance.md` shows the table and says what
//! each request is for.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "tests show what they measured")]

mod support;

use std::collections::BTreeMap;

use azure_vm_fd::backup::{Level, Run};
use mock_server::{Config, Disk, KIB, MIB, NetworkInterface, OperationPolicy, Vm};
use support::{GROUP, World, run, scenario};

/// Requests by operation.
type Requests = BTreeMap<String, u64>;

/// A VM with an OS disk, a data disk and a network interface.
fn pair(name: &str) -> Vm {
    let disk = |role| Disk::new(&format!("{name}-{role}"), 20 * MIB).pattern(7, MIB, MIB);
    Vm::new(GROUP, name, disk("os"))
        .data_disk_cached(0, "None", disk("data"))
        .nic(NetworkInterface::new(&format!("{name}-nic"), "vnet/subnet-a"))
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_asks_for_nothing_that_could_be_saved() {
    let (one, two) = tokio::join!(
        requests_of_an_incremental(&["a"]),
        requests_of_an_incremental(&["a", "b"])
    );
    println!("| operation | 1 VM | each further VM |\n| --- | --- | --- |");
    for (name, requests) in &one {
        println!("| `{name}` | {requests} | {} |", two[name] - requests);
    }
    let marginal: Requests = two
        .iter()
        .map(|(name, requests)| (name.clone(), requests - one.get(name).unwrap_or(&0)))
        .collect();
    println!("{one:?}\n{marginal:?}");
}
