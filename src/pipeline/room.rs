//! The memory of a queue of reads, given out in the order in which its bytes will be consumed.
//!
//! A request is charged for what has arrived, not for what it asked for: between the two lie the latency of the service and
//! the speed of a connection, and all that time its bytes are in nobody's memory. So many large requests are under way within
//! a small budget. What arrives and finds no room stays in the connection, whose sender then stops.
//!
//! The request at the front is the one whose bytes are consumed next. A part of the budget, enough for one request, is left to
//! it alone, so it always finds room, and with it the others in their turn.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::intake::Intake;

use super::window::Slot;

/// What the bytes of a request cost at least, in bytes: their bookkeeping and the smallest piece of a body. Until the first of
/// them arrive, a request costs nothing: the buffers of connections are not in this account; what bounds them is the number of
/// requests under way.
pub(super) const LEAST_CHARGE: u64 = 8 * 1024;

/// How long a request with a body under way waits for room. Services close connections that nobody reads from, so one
/// that would wait longer is better given up and made again later.
const PATIENCE: Duration = Duration::from_secs(10);

/// The memory of one queue of reads.
#[derive(Debug)]
pub(super) struct Room {
    state: Mutex<State>,
    capacity: u64,
    /// What is left to the request at the front.
    reserve: u64,
    /// Requests under way at most: each has a connection with buffers of its own.
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes held by all shares.
    used: u64,
    /// What all shares will hold once their requests are complete.
    expected: u64,
    /// Requests that are not complete.
    under_way: usize,
    next: u64,
    /// By position in the queue; the first is the front.
    shares: BTreeMap<u64, Account>,
    waiting: BTreeMap<u64, (u64, Waker)>,
    /// Waits in [`Room::enter`].
    entering: Option<Waker>,
}

#[derive(Debug)]
struct Account {
    expected: u64,
    held: u64,
    complete: bool,
}

/// What one request holds; goes back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    position: u64,
}

impl Room {
    /// `capacity` bytes, for requests that hold up to `largest` bytes each, `most` of them under way.
    pub(super) fn new(capacity: u64, largest: u64, most: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            capacity,
            reserve: largest + LEAST_CHARGE,
            most,
        })
    }

    /// The last place in the queue, for a request that will hold `len` bytes. As long as the front is awaited, more may be
    /// requested than there is room for, even if there is none now: until it arrives, the front has made some. If the front waits
    /// for its consumer instead, only what will find room is requested.
    ///
    /// One task at a time may wait.
    pub(super) async fn enter(self: &Arc<Self>, len: u64) -> Share {
        let len = len.max(LEAST_CHARGE);
        poll_fn(|context| {
            let mut state = self.state();
            if !self.is_open(&state, len) {
                state.entering = Some(context.waker().clone());
                return Poll::Pending;
            }
            state.entering = None;
            let position = state.next;
            state.next += 1;
            let account = Account {
                expected: len,
                held: 0,
                complete: false,
            };
            state.expected += account.expected;
            state.under_way += 1;
            state.shares.insert(position, account);
            Poll::Ready(Share {
                room: Arc::clone(self),
                position,
            })
        })
        .await
    }

    fn is_open(&self, state: &State, len: u64) -> bool {
        let Some((_, front)) = state.shares.first_key_value() else {
            return true;
        };
        let shared = self.capacity.saturating_sub(self.reserve);
        let fits = !front.complete || state.expected + len <= shared;
        fits && state.under_way < self.most
    }

    /// Whether `bytes` more may be held at `position`.
    fn admits(&self, state: &State, position: u64, bytes: u64) -> bool {
        let first = |key: Option<&u64>| key.is_none_or(|&first| position <= first);
        first(state.shares.keys().next())
            || first(state.waiting.keys().next())
                && state.used + bytes <= self.capacity.saturating_sub(self.reserve)
    }

    /// Wakes who comes next, after something was given back or given out.
    fn wake(&self, state: &mut State) {
        if let Some((&position, (bytes, waker))) = state.waiting.first_key_value()
            && self.admits(state, position, *bytes)
        {
            waker.wake_by_ref();
        }
        if let Some(waker) = state.entering.take() {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Waits until `bytes` more may be held, and takes them.
    ///
    /// # Cancellation
    ///
    /// Dropping the future gives up the place among those who wait, and nothing else.
    pub(super) async fn grow(&self, bytes: u64) {
        let waiting = Waiting(self);
        poll_fn(|context| {
            let mut state = self.room.state();
            let bytes = bytes + state.least(self.position);
            if !self.room.admits(&state, self.position, bytes) {
                let waker = context.waker().clone();
                state.waiting.insert(self.position, (bytes, waker));
                return Poll::Pending;
            }
            state.change(self.position, |account| account.held += bytes);
            Poll::Ready(())
        })
        .await;
        drop(waiting);
    }

    /// Takes `bytes` more, whether or not there is room.
    fn take(&self, bytes: u64) {
        let mut state = self.room.state();
        let bytes = bytes + state.least(self.position);
        state.change(self.position, |account| account.held += bytes);
    }

    /// Gives back all but `bytes` and the least charge.
    fn shrink_to(&self, bytes: u64) {
        let mut state = self.room.state();
        state.change(self.position, |account| {
            account.held = account.held.min(LEAST_CHARGE + bytes);
        });
        self.room.wake(&mut state);
    }

    /// Nothing more will come. Called once.
    pub(super) fn complete(&self) {
        let mut state = self.room.state();
        state.change(self.position, |account| {
            account.complete = true;
            account.held = account.held.max(LEAST_CHARGE);
            account.expected = account.held;
        });
        state.under_way -= 1;
        self.room.wake(&mut state);
    }
}

impl State {
    /// What the first bytes of a request cost beyond themselves.
    fn least(&self, position: u64) -> u64 {
        let is_first = |account: &Account| account.held == 0;
        u64::from(self.shares.get(&position).is_some_and(is_first)) * LEAST_CHARGE
    }

    /// Changes an account, and the sums with it.
    fn change(&mut self, position: u64, change: impl FnOnce(&mut Account)) {
        let Some(account) = self.shares.get_mut(&position) else {
            return;
        };
        let (held, expected) = (account.held, account.expected);
        change(account);
        account.expected = account.expected.max(account.held);
        self.used = self.used - held + account.held;
        self.expected = self.expected - expected + account.expected;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.room.state();
        if let Some(account) = state.shares.remove(&self.position) {
            state.used -= account.held;
            state.expected -= account.expected;
            state.under_way -= usize::from(!account.complete);
        }
        self.room.wake(&mut state);
    }
}

/// A place among those who wait; given up when dropped.
struct Waiting<'a>(&'a Share);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.room.state();
        state.waiting.remove(&self.0.position);
        // The next one may have been behind this one only.
        self.0.room.wake(&mut state);
    }
}

/// How one request takes its share: as bytes arrive, or in advance.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    share: &'a Share,
    slot: &'a Slot,
    /// Bytes of room that every attempt has from the beginning.
    advance: u64,
    /// Bytes that the present attempt was admitted.
    admitted: AtomicU64,
    stalled: Notify,
}

impl<'a> Admission<'a> {
    /// Takes room as bytes arrive, and is [`stalled`](Self::stalled) if there is none for long.
    pub(super) fn on_arrival(share: &'a Share, slot: &'a Slot) -> Self {
        Self {
            share,
            slot,
            advance: 0,
            admitted: AtomicU64::new(0),
            stalled: Notify::new(),
        }
    }

    /// Takes room for `bytes` first.
    pub(super) async fn in_advance(share: &'a Share, slot: &'a Slot, bytes: u64) -> Self {
        share.shrink_to(0);
        share.grow(bytes).await;
        Self {
            advance: bytes,
            ..Self::on_arrival(share, slot)
        }
    }

    /// Done when room was waited for too long: then the request should be given up.
    pub(super) async fn stalled(&self) {
        self.stalled.notified().await;
    }
}

impl Intake for Admission<'_> {
    fn restart(&self) {
        self.admitted.store(0, Ordering::Relaxed);
        self.share.shrink_to(self.advance);
    }

    fn admit(&self, bytes: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let before = self.admitted.fetch_add(bytes, Ordering::Relaxed);
            let excess = (before + bytes).saturating_sub(self.advance).min(bytes);
            if self.advance > 0 {
                // Memory takes somewhat more than the bytes; who has room for these does not wait a second time.
                self.share.take(excess);
                return;
            }
            if timeout(PATIENCE, self.share.grow(excess)).await.is_err() {
                self.stalled.notify_one();
                // The other side drops this future.
                pending::<()>().await;
            }
        })
    }

    fn throttled(&self) {
        self.slot.throttled();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::pipeline::window::Window;

    const MIB: u64 = 1 << 20;

    impl Room {
        fn used(&self) -> u64 {
            self.state().used
        }
    }

    /// Room for 8 MiB in requests of 1 MiB.
    fn room() -> Arc<Room> {
        Room::new(8 * MIB, MIB, 64)
    }

    #[tokio::test]
    async fn what_is_requested_costs_little_and_what_arrives_costs_all() {
        let room = room();
        let mut shares = Vec::new();
        for _ in 0..64 {
            shares.push(room.enter(MIB).await);
        }
        assert_eq!(room.used(), 0);
        for _ in 0..2 {
            shares[0].grow(MIB / 2).await;
        }
        assert_eq!(room.used(), LEAST_CHARGE + MIB);
        drop(shares);
        assert_eq!(room.used(), 0);
    }

    #[tokio::test]
    async fn the_front_always_finds_room_and_nothing_exceeds_the_capacity() {
        let room = room();
        let mut shares = Vec::new();
        for _ in 0..16 {
            shares.push(room.enter(MIB).await);
        }
        // All but the front take what they can get.
        let mut waiting = Vec::new();
        for share in &shares[1..] {
            let mut grow = Box::pin(share.grow(MIB));
            if (&mut grow).now_or_never().is_none() {
                waiting.push(grow);
            }
        }
        assert!(!waiting.is_empty());
        assert!(shares[0].grow(MIB).now_or_never().is_some());
        assert!(room.used() <= 8 * MIB, "{}", room.used());
    }

    #[tokio::test]
    async fn room_is_given_out_in_order() {
        let room = room();
        let mut shares = Vec::new();
        for _ in 0..12 {
            shares.push(room.enter(MIB).await);
        }
        for share in &shares[..7] {
            share.grow(MIB - 16 * LEAST_CHARGE).await;
        }
        let last = shares.pop().unwrap();
        let ninth = shares.remove(8);
        let front = shares.remove(0);
        let mut behind = Box::pin(last.grow(MIB));
        assert!((&mut behind).now_or_never().is_none());
        let mut before = Box::pin(ninth.grow(MIB));
        assert!((&mut before).now_or_never().is_none());
        // There is room for both now, and yet the one that asked first is not served before the one in front of it.
        drop(front);
        assert!((&mut behind).now_or_never().is_none());
        assert!((&mut before).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_slow_consumer_is_not_flooded() {
        let room = room();
        let front = room.enter(MIB).await;
        front.grow(MIB).await;
        front.complete();
        let mut more = Vec::new();
        while let Some(share) = room.enter(MIB).now_or_never() {
            more.push(share);
        }
        // The front waits for its consumer: what is requested must fit when it is here.
        assert_eq!(more.len(), 5);
        drop(front);
        assert!(room.enter(MIB).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_and_an_attempt_in_advance_waits_for_nothing() {
        let room = room();
        let slot = Window::new(1).enter().await;
        let front = room.enter(MIB).await;
        let second = room.enter(MIB).await;
        front.grow(MIB).await;
        let third = room.enter(MIB).await;
        second.grow(6 * MIB - 8 * LEAST_CHARGE).await;
        let admission = Admission::on_arrival(&third, &slot);
        tokio::select! {
            () = admission.admit(MIB) => panic!("there is no room"),
            () = admission.stalled() => {}
        }
        let mut in_advance = Box::pin(Admission::in_advance(&third, &slot, MIB));
        assert!((&mut in_advance).now_or_never().is_none());
        drop(second);
        let admission = in_advance.await;
        let used = room.used();
        // Two attempts: the first was broken off half way.
        admission.restart();
        admission.admit(MIB / 2).await;
        admission.restart();
        admission.admit(MIB).await;
        assert_eq!(room.used(), used);
        // Its buffers take a bit more than the bytes, and there is no room; it does not wait for that.
        let fourth = room.enter(MIB).await;
        assert!(fourth.grow(8 * MIB).now_or_never().is_none());
        admission.admit(3000).await;
        assert_eq!(room.used(), used + 3000);
    }

    #[tokio::test]
    async fn no_more_requests_are_under_way_than_allowed() {
        let room = Room::new(8 * MIB, MIB, 3);
        let mut shares = Vec::new();
        while let Some(share) = room.enter(4096).now_or_never() {
            shares.push(share);
        }
        assert_eq!(shares.len(), 3);
        shares[1].complete();
        shares.extend(room.enter(4096).now_or_never());
        assert!(room.enter(4096).now_or_never().is_none());
        // The complete one leaves no further place.
        drop(shares.remove(1));
        assert!(room.enter(4096).now_or_never().is_none());
        drop(shares.remove(1));
        assert!(room.enter(4096).now_or_never().is_some());
    }
}
