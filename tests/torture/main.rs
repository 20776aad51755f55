//! Failure tried thousands of times: every kind of request of a backup and of a restore times every fault, and random
//! schedules of several faults.
//!
//! The library is the real one, and so are its sockets; only its clock runs ahead (`hours`). What is allowed: the job
//! succeeds with identical bytes, or it fails with one clear message; in both nothing of ours is left that no message
//! names, and no message tells a secret; the next job works, and then nothing of ours is left at all (`verdict`).
//!
//! The ordinary test takes a sample. `TORTURE=1` takes all cells and a thousand schedules (`make torture`);
//! `TORTURE_CELL=<part of a name>` takes those cells, `TORTURE_SEED=<n>` repeats one schedule.
#![allow(clippy::print_stdout, reason = "tests show what they measured")]

mod hours;
mod matrix;
mod scene;
#[path = "../support/mod.rs"]
mod support;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use matrix::{Cell, Kind};
use scene::{Saved, Scene, Try};
use verdict::Ending;

/// Tries at the same time: most of the time of one goes by in waiting.
const TRIES_AT_ONCE: usize = 8;

/// Runs `work` on each of `items`; what it says, in the order of the items.
fn side_by_side<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..TRIES_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, SeqCst);
                    let Some(item) = items.get(number) else {
                        return;
                    };
                    let result = work(item);
                    done.lock().expect("no panic").insert(number, result);
                }
            });
        }
    });
    done.into_inner().expect("no panic").into_values().collect()
}

/// What a restore gets, and the kinds of requests of all scenes, without a fault.
fn rehearse() -> (Saved, Vec<Kind>) {
    let mut saved = Saved::default();
    let mut kinds = Vec::new();
    for scene in Scene::ALL {
        let mut rehearsal = Try::new(scene, false);
        rehearsal.prepare(&saved);
        assert_eq!(rehearsal.act(&saved), Ok(()), "{scene:?}");
        let counted = rehearsal.take_counters();
        let without = scene.is_after_death().then(|| {
            assert_eq!(rehearsal.act_again(&saved), Ok(()), "{scene:?}");
            rehearsal.take_counters()
        });
        kinds.extend(matrix::kinds(scene, &counted, without.as_ref()));
        if scene == Scene::Backup {
            saved = rehearsal.saved();
        }
    }
    (saved, kinds)
}

fn try_cell(cell: &Cell, saved: &Saved) -> Result<Ending, String> {
    Try::new(cell.kind.scene, cell.trouble.tls).play(vec![cell.fault()], saved)
}

#[test]
fn every_request_times_every_fault() {
    let began = Instant::now();
    let (saved, kinds) = rehearse();
    let (mut cells, left_out) = matrix::cells(&kinds);
    let all = cells.len();
    if let Ok(part) = env::var("TORTURE_CELL") {
        cells.retain(|cell| cell.name().contains(&part));
    } else if env::var_os("TORTURE").is_none() {
        sample(&mut cells);
    }
    let outcomes = side_by_side(&cells, |cell| {
        let outcome = try_cell(cell, &saved);
        if env::var_os("TORTURE_CELL").is_some() || outcome.is_err() {
            println!("{}: {outcome:?}", cell.name());
        }
        outcome
    });
    let mut letters = BTreeMap::new();
    let mut wrong = Vec::new();
    for (cell, outcome) in cells.iter().zip(&outcomes) {
        let letter = match outcome {
            Ok(Ending::Succeeded) => 'S',
            Ok(Ending::Failed(_)) => 'F',
            Err(reason) => {
                wrong.push(format!("{}: {reason}", cell.name()));
                '!'
            }
        };
        letters.insert(cell.name(), letter);
    }
    matrix::print(&kinds, &letters);
    let count = |wanted| letters.values().filter(|&&letter| letter == wanted).count();
    println!(
        "{} of {all} cells in {:.0} s: {} succeeded, {} failed cleanly, {} wrong; {left_out} pairs make no sense",
        cells.len(),
        began.elapsed().as_secs_f64(),
        count('S'),
        count('F'),
        wrong.len(),
    );
    assert!(all >= 500, "{all} cells");
    assert!(
        wrong.is_empty(),
        "{} cells:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Schedules of the ordinary test.
const FEW: usize = 12;
const MANY: usize = 1000;

#[test]
fn several_faults_in_one_job() {
    let began = Instant::now();
    let (saved, kinds) = rehearse();
    let seeds: Vec<u64> = match seed() {
        Some(seed) => vec![seed],
        None => {
            let many = if env::var_os("TORTURE").is_some() {
                MANY
            } else {
                FEW
            };
            (0..many).map(|_| fastrand::u64(..1_000_000)).collect()
        }
    };
    let outcomes = side_by_side(&seeds, |seed| {
        let mut rng = fastrand::Rng::with_seed(*seed);
        let scene = Scene::ALL[rng.usize(..Scene::ALL.len())];
        let cells = matrix::schedule(&mut rng, scene, &kinds);
        let faults = cells.iter().map(Cell::fault).collect();
        let outcome = Try::new(scene, false).play(faults, &saved);
        let told: Vec<_> = cells.iter().map(Cell::told).collect();
        let line = format!(
            "TORTURE_SEED={seed}: {scene:?}, {}: {outcome:?}",
            told.join(", ")
        );
        if outcome.is_err() || seeds.len() != FEW {
            println!("{line}");
        }
        (outcome, line)
    });
    let count = |wanted: fn(&Result<Ending, String>) -> bool| {
        outcomes
            .iter()
            .filter(|(outcome, _)| wanted(outcome))
            .count()
    };
    println!(
        "{} schedules in {:.0} s: {} succeeded, {} failed cleanly, {} wrong",
        seeds.len(),
        began.elapsed().as_secs_f64(),
        count(|outcome| matches!(outcome, Ok(Ending::Succeeded))),
        count(|outcome| matches!(outcome, Ok(Ending::Failed(_)))),
        count(Result::is_err),
    );
    let wrong: Vec<_> = outcomes
        .iter()
        .filter(|(outcome, _)| outcome.is_err())
        .collect();
    let lines: Vec<_> = wrong.iter().map(|(_, line)| line.as_str()).collect();
    assert!(wrong.is_empty(), "{}", lines.join("\n"));
}

fn seed() -> Option<u64> {
    env::var("TORTURE_SEED").ok()?.parse().ok()
}

/// Keeps so many that each kind and each trouble is there.
fn sample(cells: &mut Vec<Cell>) {
    let seed = seed().unwrap_or_else(|| fastrand::u64(..100_000));
    println!("TORTURE_SEED={seed}");
    fastrand::Rng::with_seed(seed).shuffle(cells);
    let (mut kinds, mut troubles) = (BTreeSet::new(), BTreeSet::new());
    cells.retain(|cell| {
        let kind = kinds.insert((cell.kind.scene, cell.kind.operation.clone()));
        troubles.insert(cell.trouble.name) || kind
    });
}
