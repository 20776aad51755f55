//! A thousand virtual machines against Azure's limits: real runs, retries and waits, in virtual time.
//!
//! Each job is an Incremental of its share of the machines, all jobs at the same time, and the machines have changed so
//! little that requests are all that counts. `cargo test --lib throttling -- --ignored --nocapture` prints the table of
//! `docs/performance.md`.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use super::tags::SnapshotTags;
use super::{Backup, Content, Error, Level, Options, Outcome, Run};
use crate::azure::Azure;
use crate::azure::throttled::{
    Account, Ceiling, Subscription, resource_id, snapshot, unique_id, virtual_machine,
};
use crate::config::{Selection, Transfer};
use crate::document::Slot;
use crate::notice::{Notices, Severity};
use crate::pipeline::Limits;
use crate::private_folder::PrivateFolder;

/// How long each job took, and what the service saw.
struct Night {
    jobs: Vec<Duration>,
    account: Account,
}

impl Night {
    fn shortest(&self) -> Duration {
        self.jobs.iter().copied().min().unwrap_or_default()
    }

    fn longest(&self) -> Duration {
        self.jobs.iter().copied().max().unwrap_or_default()
    }

    fn refusals(&self) -> u64 {
        self.account.throttled.values().sum()
    }

    fn accepted(&self) -> u64 {
        self.account.accepted.values().sum()
    }
}

fn group(job: usize) -> String {
    format!("group-{job}")
}

/// The run of a job: 0 is its Full, the others are Incrementals.
fn run(job: usize, number: u32) -> Run {
    let name = |number: u32| format!("Azure{job}.2026-11-2{number}_21.00.00_{job:02}");
    Run {
        job: name(number),
        line: 0,
        client: "prod-fd".into(),
        level: match number {
            0 => Level::Full,
            _ => Level::Incremental,
        },
        previous: number.checked_sub(1).map(name),
        keep_snapshots: true,
    }
}

/// The snapshots that three runs have left of a machine.
fn snapshots(job: usize, vm: &Value) -> Vec<Value> {
    let group = group(job);
    let name = vm["name"].as_str().unwrap();
    let mut snapshots = Vec::new();
    for number in 0..3 {
        let Run {
            job: unique,
            level,
            client,
            previous,
            ..
        } = run(job, number);
        for (role, slot) in [("os", Slot::Os), ("data", Slot::Data(0))] {
            let disk = resource_id(&group, "Microsoft.Compute/disks", &format!("{name}-{role}"));
            let day = 1_795_000_000 + u64::from(number) * 86_400;
            let tags = SnapshotTags {
                client: client.clone(),
                chain: format!("Azure{job}"),
                job: unique.clone(),
                level,
                started: day,
                previous: previous.clone(),
                full: (number > 0).then(|| run(job, 0).job),
                vm: vm["properties"]["vmId"].as_str().unwrap().to_owned(),
                vm_name: name.to_owned(),
                epoch: day,
                disk: unique_id(&disk),
                slot,
            };
            let id = resource_id(&group, "Microsoft.Compute/snapshots", &tags.snapshot_name());
            let created = format!("2026-11-2{number}T21:00:00+00:00");
            snapshots.push(snapshot(&disk, &id, &tags.to_json(), &created));
        }
    }
    snapshots
}

/// All machines once, by so many jobs at the same time.
async fn night(ceiling: Ceiling, machines: usize, jobs: usize) -> Night {
    // All jobs run on this thread, so that the same seed makes the same night.
    fastrand::seed(7);
    let mut vms = Vec::new();
    let mut left = Vec::new();
    for number in 0..machines {
        let job = number % jobs;
        let vm = virtual_machine(&group(job), number);
        left.extend(snapshots(job, &vm));
        vms.push(vm);
    }
    let subscription = Subscription::new(ceiling, &vms, left);
    let jobs = (0..jobs).map(|number| job(subscription.azure(), number, machines / jobs));
    let jobs = join_all(jobs).await;
    Night {
        jobs,
        account: subscription.account(),
    }
}

/// How long one job takes; it must save everything.
async fn job(azure: Azure, number: usize, machines: usize) -> Duration {
    let state = tempfile::tempdir().unwrap();
    let notices = Notices::default();
    let options = Options {
        selection: Selection {
            resource_group: Some(group(number)),
            ..Selection::default()
        },
        abort_on_error: false,
        fallback: false,
        limits: Limits {
            memory: 8 << 20,
            concurrency: 4,
            chunk: 1 << 20,
        },
        transfer: Transfer::Direct,
        state: PrivateFolder::open(state.path()).unwrap(),
    };
    let began = Instant::now();
    let saved = save(azure, run(number, 3), options, &notices).await;
    let spent = began.elapsed();
    let mut errors = Vec::new();
    while let Some(notice) = notices.pop() {
        if notice.severity == Severity::Error {
            errors.push(notice.text);
        }
    }
    assert_eq!(saved.unwrap(), machines, "job {number}: {errors:?}");
    assert!(errors.is_empty(), "job {number}: {errors:?}");
    spent
}

async fn save(azure: Azure, run: Run, options: Options, notices: &Notices) -> Result<usize, Error> {
    let mut backup = Backup::begin(azure, run, options, notices.clone()).await?;
    let mut saved = 0;
    let mut buffer = vec![0; 64 << 10];
    while let Some(mut vm) = backup.next_vm().await? {
        while let Some(entry) = vm.next_entry() {
            if let Content::Image(mut image) = entry.content {
                while image.read_block(&mut buffer).await?.is_some() {}
                image.finish().await?;
            }
        }
        vm.close().await;
        saved += 1;
    }
    backup.finish(Outcome::Good).await?;
    Ok(saved)
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_machines_none_is_left_behind() {
    let night = night(Ceiling::High, 1000, 20).await;
    let account = &night.account;
    // Its share of the lists comes on top of what `tests/requests.rs` counts.
    assert!(night.accepted() < 28_500, "{account:?}");
    // 10 000 requests that open, close or take snapshots, of which 8000 are allowed in half an hour.
    assert!(
        night.longest() < Duration::from_secs(45 * 60),
        "{account:?}"
    );
    assert!(night.longest() < night.shortest() * 2, "{:?}", night.jobs);
    assert!(
        account.longest_wait < Duration::from_secs(30 * 60),
        "{account:?}"
    );
    // No storm: fewer refusals than answers.
    assert!(night.refusals() < night.accepted(), "{account:?}");
    assert!(account.worst_second < 200, "{account:?}");
}

#[tokio::test(start_paused = true)]
#[ignore = "prints the table of docs/performance.md; takes minutes"]
async fn table() {
    println!(
        "| snapshots in 3; 30 min | jobs at once | all done | shortest job | requests per VM | refused | most in a second | longest wait |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for ceiling in [Ceiling::High, Ceiling::Low] {
        for jobs in [1, 4, 10, 20, 50, 100] {
            let night = night(ceiling, 1000, jobs).await;
            println!(
                "| {ceiling:?} | {jobs} | {:.0} min | {:.0} min | {:.1} | {} | {} | {:.0} s |",
                night.longest().as_secs_f64() / 60.0,
                night.shortest().as_secs_f64() / 60.0,
                night.accepted() as f64 / 1000.0,
                night.refusals(),
                night.account.worst_second,
                night.account.longest_wait.as_secs_f64(),
            );
        }
    }
}
