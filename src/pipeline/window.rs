//! How many requests of one image run side by side.
//!
//! More requests help as long as latency is what is waited for, and cost memory and the service's patience once the pipe is
//! full. Which of the two holds is measured: a round lasts until as many requests ended as may run side by side, and its rate
//! is compared with that of another number. It begins with as many as are allowed; every now and then a few more or a few less
//! are tried, and the fewest are kept that are as fast. A service that says "too many" halves the number at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Never fewer, unless the service asks for it: one that is stuck shall not stop the others.
const FEWEST: usize = 4;
/// Rounds between two trials.
const CALM: u32 = 16;
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
    /// The first round shows how fast it usually is.
    Beginning,
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
        Arc::new(Self {
            state: Mutex::new(State {
                limit: most,
                running: 0,
                round: Round::of(most),
                phase: Phase::Beginning,
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
            | Phase::Beginning
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
        tracing::trace!(rate, limit = state.limit, phase = ?state.phase, "measured a round of requests");
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
            Phase::Beginning => steady(rate, false),
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A service that takes `latency` to answer, and sends `pipe` bytes per second in all.
    struct Service {
        latency: Duration,
        pipe: f64,
        busy_until: Mutex<Instant>,
    }

    impl Service {
        fn new(latency: u64, pipe: f64) -> Arc<Self> {
            Arc::new(Self {
                latency: Duration::from_millis(latency),
                pipe,
                busy_until: Mutex::new(Instant::now()),
            })
        }

        async fn answer(&self) {
            let until = {
                let mut busy = self.busy_until.lock().unwrap();
                let begins = (*busy).max(Instant::now() + self.latency);
                *busy = begins + Duration::from_secs_f64(1_048_576.0 / self.pipe);
                *busy
            };
            tokio::time::sleep_until(until).await;
        }
    }

    /// Sends `requests` of 1 MiB each through the window; the largest and the last number side by side.
    async fn send(window: &Arc<Window>, service: &Arc<Service>, requests: usize) -> usize {
        for _ in 0..requests {
            let slot = window.enter().await;
            let service = Arc::clone(service);
            tokio::spawn(async move {
                service.answer().await;
                slot.ended(MIB);
            });
        }
        window.limit()
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_stay_where_latency_is_what_is_waited_for() {
        let window = Window::new(64);
        let service = Service::new(50, 100e9);
        let last = send(&window, &service, 20_000).await;
        assert!(last > 48, "{last} requests");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_pipe_needs_few_requests() {
        let window = Window::new(64);
        let service = Service::new(1, 1e9);
        let last = send(&window, &service, 20_000).await;
        assert!(last <= 8, "{last} requests");
    }

    #[tokio::test(start_paused = true)]
    async fn they_rise_again_when_latency_does() {
        let window = Window::new(64);
        let last = send(&window, &Service::new(1, 1e9), 20_000).await;
        let later = send(&window, &Service::new(100, 100e9), 20_000).await;
        assert!(later >= last * 4, "{last} requests, later {later}");
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_them_once_a_round_and_passes() {
        let window = Window::new(32);
        let service = Service::new(50, 100e9);
        send(&window, &service, 100).await;
        let slots = [window.enter().await, window.enter().await];
        let before = window.limit();
        slots.iter().for_each(Slot::throttled);
        assert_eq!(window.limit(), before / 2);
        drop(slots);
        let after = send(&window, &service, 2000).await;
        assert!(after >= before - 1, "{before} requests, later {after}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_waits_for_another_one_to_go() {
        let window = Window::new(1);
        let first = window.enter().await;
        let short = Duration::from_secs(1);
        assert!(tokio::time::timeout(short, window.enter()).await.is_err());
        drop(first);
        assert!(tokio::time::timeout(short, window.enter()).await.is_ok());
    }
}
