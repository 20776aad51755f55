//! Page writes, several at a time.
//!
//! They run side by side and may be acknowledged in any order; one that overlaps another under way waits for it first, so
//! the bytes of the later write always win.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::Arc;

use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::window::{Slot, Window};
use super::{BoxError, Error, RangeSink, unless_cancelled};
use crate::intake::Intake;
use crate::payload::Payload;
use crate::range::ByteRange;

/// Page writes begin and end at multiples of this ("Put Page", Blob service REST reference).
const PAGE: u64 = 512;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Bytes acknowledged by the sink.
    pub bytes: u64,
    /// Requests to the sink.
    pub requests: u64,
}

/// Sends writes, several at a time.
///
/// Only [`PageWriter::finish`] proves that everything was written; dropping the writer aborts what is under way.
pub struct PageWriter {
    sink: Arc<dyn RangeSink>,
    window: Arc<Window>,
    cancel: CancellationToken,
    tasks: JoinSet<Result<(), BoxError>>,
    /// The requests under way.
    in_flight: HashMap<task::Id, ByteRange>,
    stats: WriteStats,
    /// Set while a call is at work, too: one that was abandoned may have lost bytes.
    failed: bool,
}

impl PageWriter {
    /// A writer into `sink` with up to `concurrency` requests under way. Must be used inside a tokio runtime.
    #[must_use]
    pub fn new(sink: Arc<dyn RangeSink>, concurrency: usize, cancel: &CancellationToken) -> Self {
        Self {
            sink,
            window: Window::new(concurrency),
            cancel: cancel.clone(),
            tasks: JoinSet::new(),
            in_flight: HashMap::new(),
            stats: WriteStats::default(),
            failed: false,
        }
    }

    /// Sends `data` to `offset`, in bytes, as one request; waits until it may go, not for the write. Both must be multiples
    /// of 512, and `data` not empty.
    ///
    /// # Errors
    ///
    /// An earlier write failed, this one is not aligned, the job was cancelled; every later call fails with
    /// [`Error::Failed`].
    ///
    /// # Cancellation
    ///
    /// After a future was dropped before it was done, every later call fails.
    pub async fn write(&mut self, offset: u64, data: impl Into<Payload>) -> Result<(), Error> {
        self.begin()?;
        let result = self.send(offset, data.into()).await;
        self.end(result).await
    }

    /// Waits until everything taken so far is acknowledged.
    ///
    /// # Errors
    ///
    /// As for [`PageWriter::write`].
    ///
    /// # Cancellation
    ///
    /// As for [`PageWriter::write`].
    pub async fn barrier(&mut self) -> Result<(), Error> {
        self.begin()?;
        let result = self.drain().await;
        self.end(result).await
    }

    /// A last barrier, and the account.
    ///
    /// # Errors
    ///
    /// As for [`PageWriter::write`].
    pub async fn finish(mut self) -> Result<WriteStats, Error> {
        self.barrier().await?;
        Ok(self.stats)
    }

    fn begin(&mut self) -> Result<(), Error> {
        if mem::replace(&mut self.failed, true) {
            return Err(Error::Failed);
        }
        Ok(())
    }

    /// When an error is returned, nothing of this writer is under way any more.
    async fn end(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        match result {
            Ok(()) => self.failed = false,
            Err(_) => {
                self.tasks.shutdown().await;
                self.in_flight.clear();
            }
        }
        result
    }

    /// As soon as a slot is free and nothing under way overlaps it.
    async fn send(&mut self, offset: u64, data: Payload) -> Result<(), Error> {
        let len = data.total();
        let range = ByteRange::with_len(offset, len)
            .filter(|range| range.is_aligned(PAGE))
            .ok_or(Error::Unaligned { offset, len })?;
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        while self.is_busy(range) {
            self.settle_one().await?;
        }
        let slot = loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Error::Cancelled),
                Some(done) = self.tasks.join_next_with_id() => self.settle(done)?,
                slot = self.window.enter() => break slot,
            }
        };
        let sink = Arc::clone(&self.sink);
        let task = self.tasks.spawn(async move {
            sink.write(range.start(), data, &Refusals(&slot)).await?;
            slot.ended(len);
            Ok(())
        });
        self.in_flight.insert(task.id(), range);
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), Error> {
        while !self.in_flight.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }

    fn is_busy(&self, range: ByteRange) -> bool {
        self.in_flight
            .values()
            .any(|other| other.start() < range.end() && range.start() < other.end())
    }

    async fn settle_one(&mut self) -> Result<(), Error> {
        match unless_cancelled(&self.cancel, self.tasks.join_next_with_id()).await? {
            None => Ok(()),
            Some(done) => self.settle(done),
        }
    }

    fn settle(
        &mut self,
        done: Result<(task::Id, Result<(), BoxError>), JoinError>,
    ) -> Result<(), Error> {
        let (id, result) = match done {
            Ok((id, result)) => (id, result),
            Err(failure) => (failure.id(), Err(failure.into())),
        };
        // Every task is entered when it is spawned, so it is found here.
        let Some(range) = self.in_flight.remove(&id) else {
            return Err(Error::Failed);
        };
        result.map_err(|source| Error::Write { range, source })?;
        self.stats.bytes += range.len();
        self.stats.requests += 1;
        Ok(())
    }
}

/// What a request's slot hears of its answers.
#[derive(Debug)]
struct Refusals<'a>(&'a Slot);

impl Intake for Refusals<'_> {
    fn throttled(&self) {
        self.0.throttled();
    }
}

impl fmt::Debug for PageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageWriter")
            .field("in_flight", &self.in_flight)
            .field("stats", &self.stats)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::pipeline::testing::{Fault, Script};

    fn writer(script: Script, concurrency: usize) -> PageWriter {
        PageWriter::new(Arc::new(script), concurrency, &CancellationToken::new())
    }

    #[tokio::test]
    async fn writes_that_are_not_whole_pages_are_refused() {
        for (offset, len) in [(100, 512), (0, 100), (512, 0), (u64::MAX - 511, 512)] {
            let script = Script::default();
            let meter = script.meter.clone();
            let mut writer = writer(script, 1);
            let result = writer.write(offset, vec![1; len]).await;
            assert!(matches!(result, Err(Error::Unaligned { .. })), "{offset}");
            assert!(matches!(writer.finish().await, Err(Error::Failed)));
            assert!(meter.seen().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_has_too_much_gets_fewer_requests_at_a_time() {
        let script = Script {
            latencies: vec![100],
            throttles: 16,
            ..Script::default()
        };
        let meter = script.meter.clone();
        let mut writer = writer(script, 16);
        for page in 0..16 {
            writer.write(page * 512, vec![1; 512]).await.unwrap();
        }
        writer.barrier().await.unwrap();
        assert_eq!(meter.most_requests(), 16);
        meter.forget_most_requests();
        for page in 0..16 {
            writer.write(page * 512, vec![1; 512]).await.unwrap();
        }
        writer.finish().await.unwrap();
        assert!(meter.most_requests() < 16, "{}", meter.most_requests());
    }

    #[tokio::test(start_paused = true)]
    async fn an_overlapping_write_waits_and_others_do_not() {
        let script = Script {
            latencies: vec![100],
            ..Script::default()
        };
        let written = Arc::clone(&script.written);
        let begun = Instant::now();
        let mut writer = writer(script, 4);
        writer.write(0, vec![1; 512]).await.unwrap();
        writer.write(1024, vec![1; 512]).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        writer.write(0, vec![2; 512]).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
        writer.finish().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_millis(200));
        assert_eq!(written.lock().unwrap()[&0], 2);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_ends_a_wait() {
        let cancel = CancellationToken::new();
        let script = Script {
            fault: Some((0, Fault::Never)),
            ..Script::default()
        };
        let mut writer = PageWriter::new(Arc::new(script), 1, &cancel);
        writer.write(0, vec![1; 512]).await.unwrap();
        let (result, ()) = tokio::join!(writer.write(512, vec![1; 512]), async { cancel.cancel() });
        assert!(matches!(result, Err(Error::Cancelled)));
        assert!(matches!(writer.finish().await, Err(Error::Failed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_fails_because_of_the_cancellation_has_not_failed() {
        let cancel = CancellationToken::new();
        let script = Script {
            refuses_after: Some(cancel.clone()),
            ..Script::default()
        };
        let mut writer = PageWriter::new(Arc::new(script), 1, &cancel);
        writer.write(0, vec![1; 512]).await.unwrap();
        let (result, ()) = tokio::join!(writer.barrier(), async {
            tokio::task::yield_now().await;
            cancel.cancel();
        });
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    }
}
