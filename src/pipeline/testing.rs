//! A scripted source and sink for the tests of this module: content by formula, latency by paused clock, faults by place.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{BoxError, ChunkReader, Limits, RangeSink, RangeSource, ReadPlan, ReadQueue};
use crate::intake::Intake;
use crate::payload::Payload;
use crate::range::ByteRange;
use crate::range_list::RangeList;

pub(super) fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).expect("a range of the test")
}

pub(super) fn plan_of(script: Script, ranges: &[(u64, u64)]) -> ReadPlan {
    let ranges = ranges.iter().map(|&(start, end)| range(start, end));
    let ranges = RangeList::of(ranges).expect("ranges in order");
    ReadPlan::new(Arc::new(script), ranges)
}

pub(super) fn limits(memory: u64, concurrency: usize, chunk: u64) -> Limits {
    Limits {
        memory,
        concurrency,
        chunk,
    }
}

/// The readers of all plans, in one queue.
pub(super) fn read_images(
    plans: Vec<ReadPlan>,
    limits: Limits,
    cancel: &CancellationToken,
) -> Vec<ChunkReader> {
    let queue = ReadQueue::new(limits, cancel);
    plans.into_iter().map(|plan| queue.push(plan)).collect()
}

/// What came to pass, shared with the test.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    now: Arc<AtomicU64>,
    peak: Arc<AtomicU64>,
    requests: Arc<AtomicUsize>,
    most_requests: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<ByteRange>>>,
}

impl Meter {
    fn take(&self, len: u64) -> Held {
        let now = self.now.fetch_add(len, SeqCst) + len;
        self.peak.fetch_max(now, SeqCst);
        Held(self.clone(), len)
    }

    fn enter(&self, range: ByteRange) -> Entered {
        self.seen.lock().unwrap().push(range);
        let now = self.requests.fetch_add(1, SeqCst) + 1;
        self.most_requests.fetch_max(now, SeqCst);
        Entered(self.clone())
    }

    /// Bytes held, at their highest.
    pub(super) fn peak(&self) -> u64 {
        self.peak.load(SeqCst)
    }

    /// Bytes held.
    pub(super) fn held(&self) -> u64 {
        self.now.load(SeqCst)
    }

    /// Requests side by side, at their highest.
    pub(super) fn most_requests(&self) -> usize {
        self.most_requests.load(SeqCst)
    }

    /// As if there had been none before.
    pub(super) fn forget_most_requests(&self) {
        self.most_requests.store(0, SeqCst);
    }

    /// All requests, in the order in which they began.
    pub(super) fn seen(&self) -> Vec<ByteRange> {
        self.seen.lock().unwrap().clone()
    }
}

struct Held(Meter, u64);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.now.fetch_sub(self.1, SeqCst);
    }
}

struct Entered(Meter);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, SeqCst);
    }
}

/// A frame that is counted as long as it lives.
struct Frame(
    Vec<u8>,
    #[expect(dead_code, reason = "counts until dropped")] Held,
);

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What goes wrong with the request that covers a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Refused,
    Short,
    Long,
    Panic,
    Never,
}

/// A source or sink with a script; the default is an instant one full of data.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Milliseconds per request, in turn.
    pub(super) latencies: Vec<u64>,
    /// Frame lengths, in turn.
    pub(super) frames: Vec<usize>,
    /// Byte and what happens to the request that covers it.
    pub(super) fault: Option<(u64, Fault)>,
    /// Every request waits for this and is refused then, as storage that watches the job's token does.
    pub(super) refuses_after: Option<CancellationToken>,
    /// So many writes are first refused because there are too many of them.
    pub(super) throttles: usize,
    /// These read as zeros.
    pub(super) zeros: Vec<ByteRange>,
    pub(super) meter: Meter,
    pub(super) written: Arc<Mutex<BTreeMap<u64, u8>>>,
}

impl Script {
    /// A ramp with a prime period shows misplaced bytes at once; it holds no zero.
    pub(super) fn byte(&self, offset: u64) -> u8 {
        if self
            .zeros
            .iter()
            .any(|r| r.start() <= offset && offset < r.end())
        {
            0
        } else {
            u8::try_from(offset % 251).unwrap() + 1
        }
    }

    fn fault(&self, range: ByteRange) -> Option<Fault> {
        let (at, fault) = self.fault?;
        (range.start() <= at && at < range.end()).then_some(fault)
    }

    async fn latency(&self, turn: usize) -> Result<(), BoxError> {
        if let Some(cancel) = &self.refuses_after {
            cancel.cancelled().await;
            return Err("refused after a cancellation".into());
        }
        if let Some(&latency) = self.latencies.get(turn % self.latencies.len().max(1)) {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        Ok(())
    }
}

impl RangeSource for Script {
    fn read<'a>(
        &'a self,
        range: ByteRange,
        intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<Vec<Bytes>, BoxError>> {
        async move {
            intake.restart();
            let _entered = self.meter.enter(range);
            let turn = self.meter.seen().len();
            self.latency(turn).await?;
            let end = match self.fault(range) {
                None => range.end(),
                Some(Fault::Refused) => return Err("refused".into()),
                Some(Fault::Short) => range.end() - 1,
                Some(Fault::Long) => range.end() + 1,
                Some(Fault::Panic) => panic!("a source that panics"),
                Some(Fault::Never) => std::future::pending().await,
            };
            let mut frames = vec![Bytes::new()];
            let mut position = range.start();
            while position < end {
                let len = self
                    .frames
                    .get((turn + frames.len()) % self.frames.len().max(1));
                let to = end.min(position + len.map_or(u64::MAX / 2, |len| *len as u64));
                intake.admit(to - position).await;
                let held = self.meter.take(to - position);
                let bytes = (position..to).map(|offset| self.byte(offset)).collect();
                frames.push(Bytes::from_owner(Frame(bytes, held)));
                position = to;
            }
            Ok(frames)
        }
        .boxed()
    }
}

impl RangeSink for Script {
    fn write<'a>(
        &'a self,
        offset: u64,
        data: Payload,
        intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        async move {
            let range = ByteRange::with_len(offset, data.total()).expect("a write with data");
            let _entered = self.meter.enter(range);
            let turn = self.meter.seen().len();
            self.latency(turn).await?;
            if turn <= self.throttles {
                intake.throttled();
            }
            match self.fault(range) {
                None => {}
                Some(Fault::Panic) => panic!("a sink that panics"),
                Some(Fault::Never) => std::future::pending().await,
                Some(Fault::Refused | Fault::Short | Fault::Long) => return Err("refused".into()),
            }
            let mut position = offset;
            while position < range.end() {
                let bytes = data.clone().fetch(position - offset).await?;
                let _held = self.meter.take(bytes.len() as u64);
                let places = (position..).zip(bytes.iter().copied());
                self.written.lock().unwrap().extend(places);
                position += bytes.len() as u64;
            }
            Ok(())
        }
        .boxed()
    }
}
