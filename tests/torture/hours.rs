//! Hours in milliseconds: the library runs on a clock that stands still while somebody works, and jumps while all wait.
//!
//! Tokio's paused clock would jump whenever the runtime has nothing to do, also while an answer is on its way through a
//! real socket. So it is kept from that, and moved by hand: only when the library's thread sleeps and the emulator answers
//! nobody, for a moment, and in steps that grow as long as nothing happens. The emulator's clock goes along.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::support::World;

/// Nothing may happen for so long, in real time, before the clock moves.
const QUIET: Duration = Duration::from_micros(700);
/// Who sleeps longer than this is kept waiting by others, and so may be the emulator.
const BUSY: Duration = Duration::from_millis(2);
const FIRST_STEP: Duration = Duration::from_millis(20);
/// Below every time-out of the library but that of a new connection.
const LONGEST_STEP: Duration = Duration::from_secs(25);
/// A longer step waits for so many quiet moments.
const LARGE_STEP: Duration = Duration::from_secs(5);
const MOMENTS: u32 = 4;

/// What the library's thread does.
#[derive(Default)]
struct Pulse {
    asleep: AtomicBool,
    woken: AtomicU64,
    done: AtomicBool,
}

/// Runs `work` to its end on a thread and a clock of its own.
pub(crate) fn hasten<F, T>(world: &Arc<World>, work: F) -> T
where
    F: Future<Output = T>,
{
    let pulse = Arc::new(Pulse::default());
    let (falls_asleep, wakes) = (Arc::clone(&pulse), Arc::clone(&pulse));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .on_thread_park(move || falls_asleep.asleep.store(true, SeqCst))
        .on_thread_unpark(move || {
            wakes.asleep.store(false, SeqCst);
            wakes.woken.fetch_add(1, SeqCst);
        })
        .build()
        .expect("a runtime");
    let result = runtime.block_on(async {
        let (steps, mut next) = mpsc::channel(1);
        // As long as such a task runs, the clock does not move by itself.
        let watch = tokio::task::spawn_blocking({
            let (pulse, world) = (Arc::clone(&pulse), Arc::clone(world));
            move || watch(&pulse, &world, &steps)
        });
        let pace = tokio::spawn({
            let world = Arc::clone(world);
            async move {
                while let Some(step) = next.recv().await {
                    world.emulator.advance_clock(step);
                    tokio::time::advance(step).await;
                }
            }
        });
        let result = work.await;
        pulse.done.store(true, SeqCst);
        pace.abort();
        watch.await.expect("watched to the end");
        result
    });
    runtime.shutdown_background();
    result
}

/// Orders a step whenever all wait.
fn watch(pulse: &Pulse, world: &World, steps: &mpsc::Sender<Duration>) {
    let mut step = FIRST_STEP;
    // What wakes the library when it is not a step.
    let mut answered = 0;
    let mut moments = 0;
    while !pulse.done.load(SeqCst) {
        let woken = pulse.woken.load(SeqCst);
        let asleep = Instant::now();
        thread::sleep(QUIET);
        let busy = asleep.elapsed() > BUSY;
        let counters = world.emulator.counters();
        let requests = counters
            .operations
            .values()
            .map(|of| of.requests)
            .sum::<u64>();
        if requests != answered {
            answered = requests;
            step = FIRST_STEP;
        }
        let quiet = pulse.asleep.load(SeqCst)
            && pulse.woken.load(SeqCst) == woken
            && counters.being_answered == 0
            && !busy;
        moments = if quiet { moments + 1 } else { 0 };
        if quiet && (step < LARGE_STEP || moments >= MOMENTS) {
            moments = 0;
            if steps.blocking_send(step).is_err() {
                return;
            }
            step = step.saturating_mul(2).min(LONGEST_STEP);
        }
    }
}
