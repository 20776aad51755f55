//! Chains of runs against the emulator: which run each disk builds on, and which snapshots stay.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use azure_vm_fd::backup::{self, Backup, Error, Level, Options, Outcome, Run, known_snapshots};
use azure_vm_fd::config::Selection;
use azure_vm_fd::document::{Document, ImageContent, Slot};
use azure_vm_fd::notice::Severity;
use azure_vm_fd::private_folder::PrivateFolder;
use mock_server::{
    Action, Change, DEFAULT_SUBSCRIPTION, Disk, Fault, MIB, Snapshot, Subscription, Vm,
};
use support::{GROUP, SavedFile, World, bases, read_vm, run, scenario, small};

use Level::{Differential as D, Full as F, Incremental as I};

/// A run of `level` that builds on another, as the Director names it.
fn next(number: u32, level: Level, previous: u32) -> Run {
    Run {
        level,
        previous: Some(run(previous).job),
        ..run(number)
    }
}

/// What a daemon named `client` is told: each has a state folder of its own.
fn options(world: &World, client: &str) -> Options {
    Options {
        state: PrivateFolder::make(&state_dir(world, client)).unwrap(),
        ..world.options()
    }
}

fn state_dir(world: &World, client: &str) -> PathBuf {
    world.folder.path().join(client)
}

async fn begin(world: &World, run: Run) -> Result<Backup, Error> {
    let options = options(world, &run.client);
    Backup::begin(world.azure(), run, options, world.notices.clone()).await
}

async fn read(backup: &mut Backup) -> Vec<SavedFile> {
    let mut files = Vec::new();
    while let Some(vm) = backup.next_vm().await.unwrap() {
        files.extend(read_vm(vm).await.unwrap());
    }
    files
}

/// A whole run; of each image the run that it builds on, by the name of its disk.
async fn save(world: &World, run: Run) -> BTreeMap<String, Option<String>> {
    let mut backup = begin(world, run).await.unwrap();
    let files = read(&mut backup).await;
    backup.finish(Outcome::Good).await.unwrap();
    bases(&files)
}

/// A run of the VM `a` alone; the run that its disk builds on.
async fn base(world: &World, run: Run) -> Option<String> {
    save(world, run).await["a-os"].clone()
}

fn job(number: u32) -> Option<String> {
    Some(run(number).job)
}

/// Unique names of the runs that have snapshots.
fn left(world: &World) -> BTreeSet<String> {
    let state = world.state();
    let tags = state.snapshots.iter().map(|snapshot| &snapshot.tags);
    tags.filter_map(|tags| tags.get("bacula-azure-vm:job").cloned())
        .collect()
}

fn runs(numbers: &[u32]) -> BTreeSet<String> {
    numbers.iter().map(|&number| run(number).job).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_level_builds_on_what_the_director_restores_with_it() {
    let world = World::new(scenario().vm(small("a"))).await;
    assert_eq!(base(&world, run(1)).await, None);
    assert_eq!(base(&world, next(2, I, 1)).await, job(1));
    assert_eq!(base(&world, next(3, I, 2)).await, job(2));
    assert_eq!(left(&world), runs(&[1, 2, 3]));
    assert_eq!(base(&world, next(4, D, 1)).await, job(1));
    assert_eq!(base(&world, next(5, I, 4)).await, job(4));
    assert_eq!(left(&world), runs(&[1, 4, 5]));
    // An Incremental that the Director made a Differential still names the last Incremental.
    assert_eq!(base(&world, next(6, D, 5)).await, job(1));
    assert_eq!(base(&world, next(7, I, 6)).await, job(6));
    // A name that nobody knows: that of a copy.
    assert_eq!(base(&world, next(8, I, 90)).await, None);
    assert_eq!(base(&world, next(9, D, 8)).await, None);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_called_failed_afterwards_is_no_base() {
    let world = World::new(scenario().vm(small("a"))).await;
    base(&world, run(1)).await;
    base(&world, next(2, I, 1)).await;
    base(&world, next(3, I, 2)).await;
    assert_eq!(base(&world, next(4, I, 2)).await, job(2));
    assert_eq!(left(&world), runs(&[1, 2, 4]));
    // A Full that was called failed.
    base(&world, run(5)).await;
    assert_eq!(left(&world), runs(&[1, 2, 4, 5]));
    // Or this run was queued before the Full ended, and is restored together with it: nobody can tell.
    assert_eq!(base(&world, next(6, I, 4)).await, None);
    assert_eq!(base(&world, next(7, I, 6)).await, job(6));
    assert_eq!(left(&world), runs(&[6, 7]));
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_tracker_the_tags_tell_the_same() {
    let world = World::new(scenario().vm(small("a"))).await;
    let lose = || fs::remove_dir_all(state_dir(&world, "prod-fd")).unwrap();
    base(&world, run(1)).await;
    base(&world, next(2, I, 1)).await;
    base(&world, next(3, I, 2)).await;
    lose();
    assert_eq!(base(&world, next(4, I, 3)).await, job(3));
    assert_eq!(left(&world), runs(&[1, 3, 4]));
    lose();
    // The links between 4 and its Full are gone with the snapshots of 2: each run tells its Full.
    assert_eq!(base(&world, next(5, D, 4)).await, job(1));
    assert_eq!(left(&world), runs(&[1, 4, 5]));
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_takes_its_chain_to_another_daemon() {
    let world = World::new(scenario().vm(small("a"))).await;
    let on = |client: &str, run: Run| Run {
        client: client.into(),
        ..run
    };
    // The same job name at another Director.
    save(&world, on("third-fd", run(50))).await;
    base(&world, run(1)).await;
    base(&world, next(2, I, 1)).await;
    assert_eq!(base(&world, on("new-fd", next(3, I, 2))).await, job(2));
    assert_eq!(base(&world, on("new-fd", next(4, I, 3))).await, job(3));
    assert_eq!(left(&world), runs(&[50, 1, 3, 4]), "taken over, so pruned");
    assert_eq!(base(&world, on("new-fd", next(5, D, 1))).await, job(1));
    // And back: its tracker still tells of runs that are pruned.
    assert_eq!(base(&world, next(6, I, 5)).await, job(5));
    assert_eq!(left(&world), runs(&[50, 1, 5, 6]));
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_jobs_on_one_vm_have_a_chain_each() {
    let world = World::new(scenario().vm(small("a"))).await;
    let other = |run: Run| Run {
        job: run.job.replace("AzureVMs", "Weekly"),
        previous: run
            .previous
            .map(|previous| previous.replace("AzureVMs", "Weekly")),
        ..run
    };
    base(&world, run(1)).await;
    base(&world, other(run(2))).await;
    base(&world, next(3, I, 1)).await;
    let weekly = |number| Some(other(run(number)).job);
    assert_eq!(base(&world, other(next(4, I, 2))).await, weekly(2));
    assert_eq!(base(&world, next(5, I, 3)).await, job(3));
    assert_eq!(base(&world, other(next(6, I, 4))).await, weekly(4));
    let mut expected = runs(&[1, 3, 5]);
    expected.extend([2, 4, 6].map(|number| other(run(number)).job));
    assert_eq!(left(&world), expected);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_plugin_lines_may_save_one_vm() {
    let world = World::new(scenario().vm(small("a"))).await;
    let both = async |run: Run| {
        let mut first = begin(&world, run.clone()).await.unwrap();
        let mut files = read(&mut first).await;
        let mut second = begin(&world, Run { line: 1, ..run }).await.unwrap();
        files.extend(read(&mut second).await);
        first.finish(Outcome::Good).await.unwrap();
        second.finish(Outcome::Good).await.unwrap();
        files
    };
    both(run(1)).await;
    let known = known_snapshots(&options(&world, "prod-fd").state).unwrap();
    assert_eq!(known.len(), 2, "{known:?}");
    let newest = known.iter().map(|known| known.epoch).max().unwrap();
    for known in &known {
        let facts = (&*known.job, known.level, &*known.vm_name, &*known.disk_name);
        assert_eq!(facts, (&*run(1).job, F, "a", "a-os"));
        assert_eq!((known.slot, known.size), (Slot::Os, 20 * MIB));
        assert_eq!((&*known.client, &*known.chain), ("prod-fd", "AzureVMs"));
        assert!(known.created > 1_700_000_000, "{known:?}");
    }
    for file in both(next(2, I, 1)).await {
        if file.path.ends_with("_conf") {
            let document: Document = serde_json::from_slice(&file.blocks[0].1).unwrap();
            let ImageContent::Delta { base_epoch, .. } = document.images[0].content else {
                panic!("a full image");
            };
            assert_eq!(base_epoch, newest);
        }
    }
    both(next(3, I, 2)).await;
    both(next(4, I, 3)).await;
    assert_eq!(left(&world), runs(&[1, 3, 4]));
    assert_eq!(world.state().snapshots.len(), 6);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_made_again_under_its_name_replaces_the_first_attempt() {
    let world = World::new(scenario().vm(small("a"))).await;
    base(&world, run(1)).await;
    base(&world, next(2, I, 1)).await;
    let tracked = || fs::read_to_string(state_dir(&world, "prod-fd").join("tracker.json")).unwrap();
    assert!(tracked().contains(&run(2).job));
    let again = begin(&world, next(2, I, 1)).await.unwrap();
    assert!(!tracked().contains(&run(2).job));
    assert_eq!(left(&world), runs(&[1]));
    again.finish(Outcome::Bad).await.unwrap();
    assert_eq!(base(&world, next(2, I, 1)).await, job(1));
    assert_eq!(base(&world, next(3, I, 2)).await, job(2));
    assert_eq!(world.state().snapshots.len(), 3);
    world.assert_settled();
}

/// One Plugin line saves a, the other b and c in another subscription, of which the second attempt leaves out c.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_clears_what_the_first_attempt_left_in_its_subscription() {
    const OTHER: &str = "0f3c1b52-3b1c-4f7e-9c55-8a5b7a0e2d11";
    let mut scenario = scenario().vm(small("a"));
    for name in ["b", "c"] {
        let mut vm = small(name);
        vm.subscription = Some(OTHER.into());
        scenario = scenario.vm(vm);
    }
    scenario.subscriptions = [DEFAULT_SUBSCRIPTION, OTHER]
        .map(|id| Subscription {
            id: id.into(),
            display_name: String::new(),
            tenant_id: None,
        })
        .into();
    let world = World::new(scenario).await;
    let line = async |run: &Run, line, vm: Option<&str>| {
        let subscription = [DEFAULT_SUBSCRIPTION, OTHER][usize::from(line > 0)];
        let mut options = options(&world, &run.client);
        options.selection.vm = vm.map(str::to_owned);
        let run = Run {
            line,
            ..run.clone()
        };
        let azure = world.azure_of(subscription);
        let begun = Backup::begin(azure, run, options, world.notices.clone());
        let mut backup = begun.await.unwrap();
        let files = read(&mut backup).await;
        (backup, bases(&files))
    };
    // Both lines; ended unless it dies.
    let job_of = async |run: Run, second: Option<&str>, dies: bool| {
        let (first, mut bases) = line(&run, 0, None).await;
        let (second, more) = line(&run, 1, second).await;
        bases.extend(more);
        if !dies {
            first.finish(Outcome::Good).await.unwrap();
            second.finish(Outcome::Good).await.unwrap();
        }
        bases
    };
    let expected = |a, b, c| {
        let names = ["a-os", "b-os", "c-os"].map(str::to_owned);
        names.into_iter().zip([a, b, c]).collect::<BTreeMap<_, _>>()
    };
    let disks = || world.state().snapshots.len();

    job_of(run(1), None, true).await;
    assert_eq!(disks(), 3);
    job_of(run(1), Some("b"), false).await;
    assert_eq!(disks(), 2);
    // Good here, and not for the Director, which begins it again.
    let bases = job_of(next(2, I, 1), None, false).await;
    assert_eq!(bases, expected(job(1), job(1), None));
    let (first, _) = line(&next(2, I, 1), 0, None).await;
    assert_eq!(disks(), 3);
    let (second, _) = line(&next(2, I, 1), 1, Some("b")).await;
    first.finish(Outcome::Good).await.unwrap();
    second.finish(Outcome::Good).await.unwrap();
    assert_eq!(disks(), 4);
    let bases = job_of(next(3, I, 2), None, false).await;
    assert_eq!(bases, expected(job(2), job(2), None));
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_vm_that_is_gone_nothing_stays() {
    let world = World::new(scenario().vm(small("a")).vm(small("b"))).await;
    save(&world, run(1)).await;
    save(&world, next(2, I, 1)).await;
    assert_eq!(world.state().snapshots.len(), 4);
    let delete = |vm: &str, with_resources| {
        let vm = vm.to_owned();
        let gone = Change::DeleteVm { vm, with_resources };
        world.emulator.change(&gone).unwrap();
    };
    delete("b", false);
    // Perhaps the VM may just not be seen any more.
    let refused = Action::error(403, "AuthorizationFailed");
    let hidden = Fault::new("Disks_Get", refused).path_contains("b-os");
    world.emulator.fault(hidden);
    let bases = save(&world, next(3, I, 2)).await;
    assert_eq!(bases, BTreeMap::from([("a-os".to_owned(), job(2))]));
    assert_eq!(world.state().snapshots.len(), 3 + 2);
    world.emulator.clear_faults();
    save(&world, next(4, I, 3)).await;
    assert_eq!(world.state().snapshots.len(), 3);
    delete("a", true);
    // It was the last one: the job fails, and leaves nothing behind either.
    let error = begin(&world, next(5, I, 4)).await.unwrap_err();
    assert!(matches!(error, Error::Selection(_)), "{error}");
    assert!(world.state().snapshots.is_empty());
    let known = known_snapshots(&options(&world, "prod-fd").state).unwrap();
    assert!(known.is_empty(), "{known:?}");
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_comes_later_or_goes_is_followed_by_itself() {
    let vm = Vm::new(GROUP, "a", Disk::new("a-os", 20 * MIB).pattern(7, MIB, MIB));
    let world = World::new(scenario().vm(vm)).await;
    save(&world, run(1)).await;
    let disk = Disk::new("late", 20 * MIB).pattern(8, MIB, MIB);
    let change = |change| world.emulator.change(&change).unwrap();
    change(Change::CreateDisk(Box::new(Disk {
        resource_group: Some(GROUP.into()),
        ..disk
    })));
    let (vm, lun) = (|| "a".to_owned(), 3);
    change(Change::AttachDisk {
        vm: vm(),
        lun,
        disk: "late".into(),
    });
    let bases = save(&world, next(2, I, 1)).await;
    assert_eq!((&bases["a-os"], &bases["late"]), (&job(1), &None));
    let bases = save(&world, next(3, I, 2)).await;
    assert_eq!((&bases["a-os"], &bases["late"]), (&job(2), &job(2)));
    change(Change::DetachDisk { vm: vm(), lun });
    for number in 4..6 {
        save(&world, next(number, I, number - 1)).await;
    }
    let state = world.state();
    let late = state.snapshots.iter().filter(|snapshot| {
        snapshot
            .tags
            .get("bacula-azure-vm:slot")
            .map(String::as_str)
            == Some("3")
    });
    assert_eq!(late.count(), 0);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_runs_leave_few_snapshots_and_touch_no_others() {
    let by_hand = Snapshot {
        name: "by-hand".into(),
        disk: "a-os".into(),
        ..Snapshot::default()
    };
    let world = World::new(scenario().vm(small("a")).snapshot(by_hand)).await;
    let mut full = 1;
    for number in 1..=30 {
        // Every fifth run is called failed afterwards.
        let good = |number: u32| !number.is_multiple_of(5);
        let last = (1..number).rev().find(|&earlier| good(earlier));
        let level = match number % 10 {
            1 => F,
            6 => D,
            _ => I,
        };
        let run = match (level, last) {
            (I, Some(last)) => next(number, I, last),
            (D, _) => next(number, D, full),
            (F | I, _) => {
                full = number;
                run(number)
            }
        };
        let expected = match level {
            F => None,
            D => job(full),
            I => last.and_then(job),
        };
        assert_eq!(base(&world, run).await, expected, "run {number}");
        let most = if level == F { 4 } else { 3 };
        let left = left(&world);
        assert!(left.len() <= most, "run {number}: {left:?}");
        assert_eq!(world.state().snapshots.len(), left.len() + 1);
    }
    let state = world.state();
    assert!(
        state
            .snapshots
            .iter()
            .any(|snapshot| snapshot.name == "by-hand")
    );
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_job_does_not_wait_for_the_vm_prepared_ahead() {
    let world = World::new(scenario().vm(small("a")).vm(small("b"))).await;
    world.emulator.fault(
        Fault::new(
            "Snapshots_CreateOrUpdate",
            Action::Delay {
                milliseconds: 24 * 3_600_000,
            },
        )
        .nth(2),
    );
    let mut backup = begin(&world, run(1)).await.unwrap();
    let mut vm = backup.next_vm().await.unwrap().unwrap();
    // With the last image in hand the next VM is prepared.
    while let Some(entry) = vm.next_entry() {
        drop(entry);
    }
    while world
        .emulator
        .counters()
        .requests("Snapshots_CreateOrUpdate")
        < 2
    {
        tokio::task::yield_now().await;
    }
    vm.close().await;
    backup.finish(Outcome::Bad).await.unwrap();
    assert!(world.state().snapshots.is_empty());
    world.assert_settled();
}

/// Each point in time needs the runs that its own builds on, whatever began and ended meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_another_one_overtakes_says_what_it_builds_on() {
    let world = World::new(scenario().vm(small("a"))).await;
    base(&world, run(1)).await;
    for (level, by, is_told) in [
        (I, F, true),
        (D, F, true),
        (I, D, true),
        (D, D, false),
        (I, I, false),
    ] {
        // Each pair after a Full of its own, as if there were no other job.
        fs::remove_dir_all(state_dir(&world, "prod-fd")).unwrap();
        for snapshot in world.state().snapshots {
            let name = snapshot.name;
            world
                .emulator
                .change(&Change::DeleteSnapshot { snapshot: name })
                .unwrap();
        }
        base(&world, run(1)).await;
        let mut slow = begin(&world, next(2, level, 1)).await.unwrap();
        let files = read(&mut slow).await;
        assert_eq!(bases(&files)["a-os"], job(1));
        let other = if by == F { run(3) } else { next(3, by, 1) };
        let mut under_way = begin(&world, other).await.unwrap();
        read(&mut under_way).await;
        under_way.finish(Outcome::Good).await.unwrap();
        world.take_notices();
        slow.finish(Outcome::Good).await.unwrap();
        let notices = world.take_notices();
        let warnings = notices.get(&Severity::Warning).into_iter().flatten();
        let told: Vec<_> = warnings.filter(|text| text.contains("under way")).collect();
        assert_eq!(
            told.len(),
            usize::from(is_told),
            "{level} {by}: {notices:?}"
        );
        for text in told {
            assert!(
                text.contains(&run(1).job) && text.contains(&run(3).job),
                "{text}"
            );
        }
    }
    world.assert_settled();
}

/// What ends later replaces nothing of a run that ended before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_before_another_one_is_not_overtaken() {
    let world = World::new(scenario().vm(small("a"))).await;
    base(&world, run(1)).await;
    let mut first = begin(&world, next(2, I, 1)).await.unwrap();
    read(&mut first).await;
    let full = begin(&world, run(3)).await.unwrap();
    first.finish(Outcome::Good).await.unwrap();
    full.finish(Outcome::Bad).await.unwrap();
    let notices = world.take_notices();
    assert!(!notices.contains_key(&Severity::Warning), "{notices:?}");
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_what_each_disk_would_build_on() {
    let world = World::new(scenario().vm(small("a"))).await;
    let plan = async |run: Run, client: &str| {
        let run = Run {
            // An estimate has a name of its own.
            job: "-Console-.2026-11-23_10.00.00_01".into(),
            client: client.into(),
            ..run
        };
        let state = PrivateFolder::open(&state_dir(&world, client)).ok();
        let all = Selection::default();
        let plans = Backup::plan(&world.azure(), &run, &all, state.as_ref(), &world.notices).await;
        let plans: Vec<backup::VmPlan> = plans.unwrap();
        plans[0].disks[0].reason.clone()
    };
    base(&world, run(1)).await;
    base(&world, next(2, I, 1)).await;
    assert_eq!(plan(run(3), "prod-fd").await, "level Full");
    let changes = |number| format!("changes since run {}", run(number).job);
    assert_eq!(plan(next(3, I, 2), "prod-fd").await, changes(2));
    assert_eq!(plan(next(3, D, 2), "prod-fd").await, changes(1));
    let unknown = plan(next(3, I, 90), "prod-fd").await;
    assert!(unknown.contains("not known here"), "{unknown}");
    // By the tags alone, on a daemon that has no state.
    assert_eq!(plan(next(3, I, 2), "new-fd").await, changes(2));
    assert!(!state_dir(&world, "new-fd").exists());
    world.assert_settled();
}
