//! How many requests of one image run side by side.
//!
//! More requests help as long as latency is what is waited for, and cost memory and the service's patience once the pipe is
//! full. Which of the two holds is measured: a round lasts until as many requests ended as may run side by side, and its rate is
//! compared with that of another number. First the number doubles as long as that pays; then, every now and then, a little more and a little
//! less are tried, and the fewest are kept that are as fast. A service that says "too many" halves it at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Requests at the beginning: as many as usually fill a gigabit or ten, and no burst.
const FIRST: usize = 16;
/// Never fewer, unless the service asks for it: one that is stuck shall not stop the others.
const FEWEST: usize = 4;
/// Rounds between two trials.
const CALM: u32 = 16;
/// Twice as many requests shall bring so much more.
const DOUBLING_PAYS: f64 = 1.2;
/// A few more shall bring so much more.
const MORE_PAYS: f64 = 1.08;
/// Fewer shall bring so much at least.
const FEWER_SUFFICE: f64 = 0.97;

/// The requests of one image.
#[derive(Debug)]
pub(super) struct Window {
    state: Mutex<State>,
    freed: Notify,
    most: usize,
}

/// The right to run one request; goes back when dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Window>);

#[derive(Debug)]
struct State {
    limit: usize,
    running: usize,
    round: Round,
    phase: Phase,
}

/// A stretch of time in which `left` more requests are awaited.
#[derive(Debug)]
struct Round {
    began: Instant,
    left: usize,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Doubling; the rate before, which is 0 at first.
    Growing { before: f64 },
    /// The usual rate, rounds until the next trial, and whether that is one of more.
    Steady { usual: f64, calm: u32, up: bool },
    /// Another number is tried: `old` was as fast as `usual`. One round passes until it shows.
    Trying {
        old: usize,
        usual: f64,
        settled: bool,
    },
    /// After a refusal: one more each round, up to the number before.
    Recovering { goal: usize },
}

impl Window {
    /// Up to `most` requests.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let most = most.max(1);
        let limit = FIRST.min(most);
        Arc::new(Self {
            state: Mutex::new(State {
                limit,
                running: 0,
                round: Round::of(limit),
                phase: Phase::Growing { before: 0.0 },
            }),
            freed: Notify::new(),
            most,
        })
    }

    /// Waits for a slot. One task at a time may wait.
    pub(super) async fn enter(self: &Arc<Self>) -> Slot {
        loop {
            {
                let mut state = self.state();
                if state.running < state.limit {
                    state.running += 1;
                    return Slot(Arc::clone(self));
                }
            }
            self.freed.notified().await;
        }
    }

    /// The service refused a request because there are too many of them. Those that were on their way by then are
    /// refused for the same reason: one round counts once.
    pub(super) fn throttled(&self) {
        let mut state = self.state();
        let goal = match state.phase {
            Phase::Recovering { goal } if state.round.bytes == 0 => goal,
            Phase::Recovering { .. }
            | Phase::Growing { .. }
            | Phase::Steady { .. }
            | Phase::Trying { .. } => {
                let goal = state.limit;
                state.limit = (goal / 2).max(1);
                goal
            }
        };
        state.phase = Phase::Recovering { goal };
        state.round = Round::of(state.limit);
    }

    #[cfg(test)]
    pub(super) fn limit(&self) -> usize {
        self.state().limit
    }

    fn ended(&self, bytes: u64) {
        let mut state = self.state();
        state.round.bytes += bytes;
        state.round.left = state.round.left.saturating_sub(1);
        if state.round.left > 0 {
            return;
        }
        let elapsed = state.round.began.elapsed().max(Duration::from_micros(1));
        // Far below 2^52 bytes in a round.
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no such precision")]
        let rate = state.round.bytes as f64 / elapsed.as_secs_f64();
        state.next(rate, self.most);
        state.round = Round::of(state.limit);
        drop(state);
        self.freed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// After a round: what the next one tries.
    fn next(&mut self, rate: f64, most: usize) {
        let steady = |usual, up| Phase::Steady {
            usual,
            calm: CALM,
            up,
        };
        let fewest = FEWEST.min(most);
        self.phase = match self.phase {
            Phase::Growing { before } if rate < before * DOUBLING_PAYS => {
                self.limit = (self.limit / 2).max(fewest);
                steady(rate, false)
            }
            Phase::Growing { .. } if self.limit == most => steady(rate, false),
            Phase::Growing { .. } => {
                self.limit = (self.limit * 2).min(most);
                Phase::Growing { before: rate }
            }
            Phase::Steady { usual, calm: 0, up } => {
                let old = self.limit;
                self.limit = if up {
                    (old + old.div_ceil(4)).min(most)
                } else {
                    (old - old / 4).max(fewest)
                };
                if self.limit == old {
                    steady(usual, !up)
                } else {
                    Phase::Trying {
                        old,
                        usual,
                        settled: false,
                    }
                }
            }
            Phase::Steady { usual, calm, up } => Phase::Steady {
                usual: usual + (rate - usual) / 4.0,
                calm: calm - 1,
                up,
            },
            Phase::Trying {
                old,
                usual,
                settled: false,
            } => Phase::Trying {
                old,
                usual,
                settled: true,
            },
            Phase::Trying { old, usual, .. } => {
                let more = self.limit > old;
                let pays = if more { MORE_PAYS } else { FEWER_SUFFICE };
                if rate >= usual * pays {
                    // Once more in the same direction, soon.
                    Phase::Steady {
                        usual: rate,
                        calm: 1,
                        up: more,
                    }
                } else {
                    self.limit = old;
                    steady(usual, !more)
                }
            }
            Phase::Recovering { goal } if self.limit >= goal => steady(rate, true),
            Phase::Recovering { goal } => {
                self.limit = (self.limit + 1).min(most);
                Phase::Recovering { goal }
            }
        };
    }
}

impl Round {
    fn of(requests: usize) -> Self {
        Self {
            began: Instant::now(),
            left: requests,
            bytes: 0,
        }
    }
}

impl Slot {
    /// The request ended well with so many bytes.
    pub(super) fn ended(self, bytes: u64) {
        self.0.ended(bytes);
    }

    /// See [`Window::throttled`].
    pub(super) fn throttled(&self) {
        self.0.throttled();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state().running -= 1;
        self.0.freed.notify_one();
    }
}
