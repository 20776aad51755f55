//! Failure tried thousands of times: every kind of request of a backup and of a restore times every fault, and random
//! schedules of several faults.
//!
//! The library is the real one, and so are its sockets; only its clock runs ahead (`hours`). What is allowed: the job
//! succeeds with identical bytes, or it fails with one clear message; in both nothing of ours is left that no message
//! names, and no message tells a secret; the next job works, and then nothing of ours is left at all (`verdict`). A try
//! counts only if its fault was felt, as the emulator tells, and no kind of request may get lost (`required`).
//!
//! The ordinary test takes a sample. `TORTURE=1` takes all cells and a thousand schedules (`make torture`);
//! `TORTURE_CELL=<part of a name>` takes those cells, `TORTURE_SEED=<n>` repeats one schedule.
#![allow(clippy::print_stdout, reason = "tests show what they measured")]

mod hours;
mod matrix;
mod required;
mod scene;
#[path = "../support/mod.rs"]
mod support;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Instant;

use matrix::{Cell, FAILED, Kind, NOT_FIRED, Place, SUCCEEDED, WRONG};
use scene::{Played, Saved, Scene, Try, Way};

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
static REHEARSED: LazyLock<(Saved, Vec<Kind>)> = LazyLock::new(rehearse);

fn rehearse() -> (Saved, Vec<Kind>) {
    let mut saved = Saved::default();
    let mut kinds = Vec::new();
    for scene in Scene::ALL {
        let mut rehearsal = Try::new(scene, Way::Plain);
        rehearsal.prepare(&saved);
        let outcome = rehearsal.act(&saved);
        assert_eq!(
            outcome.is_ok(),
            scene != Scene::Cancelled,
            "{scene:?}: {outcome:?}"
        );
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
    required::assert_all(&kinds);
    (saved, kinds)
}

fn try_cell(cell: &Cell, saved: &Saved) -> Result<Played, String> {
    Try::new(cell.kind.scene, cell.trouble.way).play(vec![cell.fault()], saved)
}

/// Of a hundred cells, and of a hundred schedules, so many may not fire, since requests vary in number, and answers in their bodies.
const MAY_NOT_FIRE: usize = 2;
/// So many more of a sample, which is less than a hundred.
const UNLUCKY: usize = 3;

#[test]
fn every_request_times_every_fault() {
    let began = Instant::now();
    let (saved, kinds) = &*REHEARSED;
    let (mut cells, left_out) = matrix::cells(kinds);
    let all = cells.len();
    let picked = env::var("TORTURE_CELL").ok();
    let is_whole = picked.is_none() && env::var_os("TORTURE").is_some();
    if let Some(part) = &picked {
        cells.retain(|cell| cell.name().contains(part));
    } else if !is_whole {
        sample(&mut cells);
    }
    let outcomes = side_by_side(&cells, |cell| {
        let outcome = try_cell(cell, saved);
        if picked.is_some() || outcome.is_err() {
            println!("{}: {outcome:?}", cell.name());
        }
        outcome
    });
    let mut letters = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut fired = BTreeSet::new();
    let mut not_fired = Vec::new();
    for (cell, outcome) in cells.iter().zip(&outcomes) {
        let letter = match outcome {
            Ok(played) if !played.has_fired() => {
                not_fired.push(cell);
                NOT_FIRED
            }
            Ok(played) => {
                fired.insert(cell.pair());
                match played.has_succeeded() {
                    true => SUCCEEDED,
                    false => FAILED,
                }
            }
            Err(reason) => {
                wrong.push(format!("{}: {reason}", cell.name()));
                WRONG
            }
        };
        letters.insert(cell.name(), letter);
    }
    matrix::print(kinds, &letters);
    let count = |wanted| letters.values().filter(|&&letter| letter == wanted).count();
    println!(
        "{} of {all} cells in {:.0} s: {} succeeded, {} failed cleanly, {} wrong, {} did not fire; \
         {left_out} pairs make no sense",
        cells.len(),
        began.elapsed().as_secs_f64(),
        count(SUCCEEDED),
        count(FAILED),
        wrong.len(),
        not_fired.len(),
    );
    assert!(
        wrong.is_empty(),
        "{} cells:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // The first request always comes, and in the whole matrix some request of each pair.
    let silent = not_fired.iter().filter(|cell| {
        matches!(cell.place, Place::First | Place::Always)
            || is_whole && !fired.contains(&cell.pair())
    });
    let silent: Vec<_> = silent.map(|cell| cell.name()).collect();
    assert!(silent.is_empty(), "not fired:\n{}", silent.join("\n"));
    let unlucky = if is_whole { 0 } else { UNLUCKY };
    let may_not_fire = cells.len() * MAY_NOT_FIRE / 100 + unlucky;
    assert!(
        picked.is_some() || not_fired.len() <= may_not_fire,
        "{} cells did not fire",
        not_fired.len()
    );
}

/// Seeds of the ordinary test, the same ones each time. They draw every scene and every way.
const FEW: Range<u64> = 1..13;
/// How many are drawn for the long one.
const MANY: usize = 1000;

#[test]
fn several_faults_in_one_job() {
    let began = Instant::now();
    let (saved, kinds) = &*REHEARSED;
    let seeds: Vec<u64> = match (seed(), env::var_os("TORTURE")) {
        (Some(seed), _) => vec![seed],
        (None, Some(_)) => (0..MANY).map(|_| fastrand::u64(..1_000_000)).collect(),
        (None, None) => FEW.collect(),
    };
    let outcomes = side_by_side(&seeds, |seed| {
        let mut rng = fastrand::Rng::with_seed(*seed);
        let scene = Scene::ALL[rng.usize(..Scene::ALL.len())];
        let way = Way::ALL[rng.usize(..Way::ALL.len())];
        let cells = matrix::schedule(&mut rng, scene, way, kinds);
        let faults = cells.iter().map(Cell::fault).collect();
        let outcome = Try::new(scene, way).play(faults, saved);
        let told: Vec<_> = cells.iter().map(Cell::told).collect();
        let line = format!(
            "TORTURE_SEED={seed}: {scene:?}, {way:?}, {}: {outcome:?}",
            told.join(", ")
        );
        if outcome.is_err() || !FEW.eq(seeds.iter().copied()) {
            println!("{line}");
        }
        (outcome, line)
    });
    let lines = |wanted: fn(&Result<Played, String>) -> bool| -> Vec<&str> {
        let wanted = outcomes.iter().filter(|(outcome, _)| wanted(outcome));
        wanted.map(|(_, line)| line.as_str()).collect()
    };
    let wrong = lines(Result::is_err);
    let succeeded = lines(|outcome| outcome.as_ref().is_ok_and(Played::has_succeeded)).len();
    let silent = lines(|outcome| outcome.as_ref().is_ok_and(|played| !played.has_fired()));
    println!(
        "{} schedules in {:.0} s: {succeeded} succeeded, {} failed cleanly, {} wrong; in {} of them no fault fired",
        seeds.len(),
        began.elapsed().as_secs_f64(),
        seeds.len() - succeeded - wrong.len(),
        wrong.len(),
        silent.len(),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Of a cancelled job, for one, the number of requests varies. Of the few of the ordinary test, none may be silent.
    assert!(
        silent.len() <= seeds.len() * MAY_NOT_FIRE / 100,
        "no fault fired:\n{}",
        silent.join("\n")
    );
}

fn seed() -> Option<u64> {
    env::var("TORTURE_SEED").ok()?.parse().ok()
}

/// Keeps so many that each kind and each trouble is there: the same ones each time (of one toolchain), also where a scene has made a request more.
fn sample(cells: &mut Vec<Cell>) {
    cells.sort_by_cached_key(|cell| {
        let mut hasher = DefaultHasher::new();
        cell.name().hash(&mut hasher);
        hasher.finish()
    });
    let (mut kinds, mut troubles) = (BTreeSet::new(), BTreeSet::new());
    cells.retain(|cell| {
        let kind = kinds.insert((cell.kind.scene, cell.kind.operation.clone()));
        troubles.insert(cell.trouble.name) || kind
    });
}
