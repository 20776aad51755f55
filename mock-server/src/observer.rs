//! What was asked, how often and how much: the counters that tests look at.
use crate::sync::lock;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Counters since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// By operation name.
    pub operations: BTreeMap<String, OperationCounters>,
    /// Most requests in flight at one time, over all operations.
    pub most_in_flight: u64,
    /// Requests that are being answered at this moment; those that a fault lets wait for ever are not.
    pub being_answered: u64,
}

/// Counters of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationCounters {
    /// Requests received.
    pub requests: u64,
    /// Answers by status; a reset connection counts as 0.
    pub statuses: BTreeMap<u16, u64>,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of answer bodies that were really handed to the connection.
    pub bytes_out: u64,
    /// Most requests in flight at one time.
    pub most_in_flight: u64,
}

impl Counters {
    /// The counters of one operation; all zero when it was never asked for.
    #[must_use]
    pub fn of(&self, operation: &str) -> OperationCounters {
        self.operations.get(operation).cloned().unwrap_or_default()
    }

    /// Requests of all operations.
    #[must_use]
    pub fn all_requests(&self) -> u64 {
        let operations = self.operations.values();
        operations.map(|operation| operation.requests).sum()
    }

    /// Requests of one operation.
    #[must_use]
    pub fn requests(&self, operation: &str) -> u64 {
        self.of(operation).requests
    }
}

/// Collects the counters.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    live: Mutex<Arc<Live>>,
    being_answered: Arc<AtomicU64>,
    unmodelled: Mutex<Vec<String>>,
}

/// One set of counters; a reset begins a new one, and requests still running finish in the old one.
#[derive(Debug, Default)]
struct Live {
    operations: Mutex<BTreeMap<&'static str, Arc<Tally>>>,
    all: Gauge,
}

#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    statuses: Mutex<BTreeMap<u16, u64>>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    flight: Gauge,
}

#[derive(Debug, Default)]
struct Gauge {
    now: AtomicU64,
    most: AtomicU64,
}

impl Gauge {
    fn enter(&self) {
        self.most
            .fetch_max(self.now.fetch_add(1, Relaxed) + 1, Relaxed);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Relaxed);
    }
}

/// A request whose answer is not complete, from its head on; dropped when there is no more to come.
#[derive(Debug)]
pub(crate) struct Presence(Arc<AtomicU64>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// One request in flight; it lands when dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    live: Arc<Live>,
    tally: Arc<Tally>,
}

impl Flight {
    pub(crate) fn answered(&self, status: u16) {
        *lock(&self.tally.statuses).entry(status).or_default() += 1;
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.tally.bytes_out.fetch_add(bytes, Relaxed);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.tally.flight.leave();
        self.live.all.leave();
    }
}

impl Observer {
    pub(crate) fn arrived(&self) -> Presence {
        self.being_answered.fetch_add(1, Relaxed);
        Presence(Arc::clone(&self.being_answered))
    }

    pub(crate) fn begin(&self, operation: &'static str, bytes_in: u64) -> Flight {
        let live = lock(&self.live).clone();
        let tally = lock(&live.operations).entry(operation).or_default().clone();
        live.all.enter();
        tally.flight.enter();
        tally.requests.fetch_add(1, Relaxed);
        tally.bytes_in.fetch_add(bytes_in, Relaxed);
        Flight { live, tally }
    }

    pub(crate) fn unmodelled(&self, request: String) {
        tracing::warn!(%request, "not modelled");
        lock(&self.unmodelled).push(request);
    }

    pub(crate) fn unmodelled_requests(&self) -> Vec<String> {
        lock(&self.unmodelled).clone()
    }

    pub(crate) fn reset(&self) {
        *lock(&self.live) = Arc::default();
    }

    pub(crate) fn counters(&self) -> Counters {
        let live = lock(&self.live).clone();
        let operations = lock(&live.operations);
        Counters {
            operations: operations
                .iter()
                .map(|(name, tally)| {
                    let counters = OperationCounters {
                        requests: tally.requests.load(Relaxed),
                        statuses: lock(&tally.statuses).clone(),
                        bytes_in: tally.bytes_in.load(Relaxed),
                        bytes_out: tally.bytes_out.load(Relaxed),
                        most_in_flight: tally.flight.most.load(Relaxed),
                    };
                    ((*name).to_owned(), counters)
                })
                .collect(),
            most_in_flight: live.all.most.load(Relaxed),
            being_answered: self.being_answered.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flights_are_counted_and_land() {
        let observer = Observer::default();
        let first = observer.begin("A", 10);
        let second = observer.begin("B", 0);
        first.sent(5);
        first.answered(200);
        drop(first);
        drop(observer.begin("A", 1));
        drop(second);
        let counters = observer.counters();
        assert_eq!(counters.most_in_flight, 2);
        let a = counters.of("A");
        assert_eq!(
            (a.requests, a.bytes_in, a.bytes_out, a.most_in_flight),
            (2, 11, 5, 1)
        );
        assert_eq!(a.statuses, BTreeMap::from([(200, 1)]));
        observer.reset();
        assert!(observer.counters().operations.is_empty());
    }
}
