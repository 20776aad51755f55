//! Hours in milliseconds: the library runs on a clock that stands still while somebody works, and jumps while all wait.
//!
//! Tokio's paused clock would jump whenever the runtime has nothing to do, also while an answer is on its way through a
//! real socket. So it is kept from that, and moved by hand: only when the library's thread sleeps and the emulator answers
//! nobody, for a moment, and in steps that grow as long as nothing happens; before a large one, and on a busy machine before
//! any, both have shown that nothing waits in their sockets. The emulator's clock goes along.

use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
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
/// A longer step, and any on a busy machine, waits for so many quiet moments, and makes sure.
const LARGE_STEP: Duration = Duration::from_secs(5);
const MOMENTS: u32 = 2;
/// How often the library's thread looks at its sockets before a step.
const LOOKS: usize = 4;

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
                    // What has come meanwhile, and was not looked at yet, comes first.
                    let before = requests(&world);
                    for _ in 0..LOOKS {
                        tokio::task::yield_now().await;
                    }
                    if requests(&world) == before && !is_answering(&world) {
                        world.emulator.advance_clock(step);
                        tokio::time::advance(step).await;
                    }
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

fn requests(world: &World) -> u64 {
    let operations = world.emulator.counters().operations;
    operations.values().map(|of| of.requests).sum()
}

fn is_answering(world: &World) -> bool {
    world.emulator.counters().being_answered > 0
}

/// Waits until the emulator has answered one more question: then it has also seen what was asked for before. Whether it has;
/// nobody is answered where nobody listens.
fn has_answered(world: &World) -> bool {
    let address = world.emulator.http_url().trim_start_matches("http://");
    let Ok(mut stream) = TcpStream::connect(address) else {
        return true;
    };
    let question = b"GET /_emulator/ready HTTP/1.1\r\nHost: emulator\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(question).is_ok() && stream.read_to_end(&mut answer).is_ok()
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
        let requests = requests(world);
        if requests != answered {
            answered = requests;
            step = FIRST_STEP;
        }
        let is_quiet = || {
            pulse.asleep.load(SeqCst) && pulse.woken.load(SeqCst) == woken && !is_answering(world)
        };
        let quiet = is_quiet();
        moments = if quiet { moments + 1 } else { 0 };
        let is_sure = || moments >= MOMENTS && has_answered(world) && is_quiet();
        if quiet && (step < LARGE_STEP && !busy || is_sure()) {
            moments = 0;
            if steps.blocking_send(step).is_err() {
                return;
            }
            step = step.saturating_mul(4).min(LONGEST_STEP);
        }
    }
}
