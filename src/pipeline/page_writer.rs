//! Small writes in, large aligned concurrent writes out.
//!
//! Neighbouring writes are collected into requests of up to a chunk. Requests run side by side and may be acknowledged in
//! any order; one that overlaps another under way waits for it first, so the bytes of the later write always win.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::budget::Permit;
use super::{BoxError, ByteBudget, Error, Limits, RangeSink, unless_cancelled};
use crate::range::ByteRange;

/// Page writes begin and end at multiples of this ("Put Page", Blob service REST reference).
const PAGE: u64 = 512;

/// Largest page write (same source).
const LARGEST_WRITE: u64 = 4 * 1024 * 1024;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Bytes acknowledged by the sink.
    pub bytes: u64,
    /// Requests to the sink.
    pub requests: u64,
}

/// Coalesces neighbouring writes and sends them, several at a time.
///
/// Only [`PageWriter::finish`] proves that everything was written; dropping the writer aborts what is under way. While it
/// collects, it holds a chunk's worth of the budget: a budget shared by several writers needs one task per writer, and a
/// reader that feeds a writer needs a budget of its own.
pub struct PageWriter {
    sink: Arc<dyn RangeSink>,
    budget: ByteBudget,
    /// Largest request in bytes, a multiple of [`PAGE`].
    chunk: usize,
    concurrency: usize,
    cancel: CancellationToken,
    staged: Option<Run>,
    tasks: JoinSet<Result<(), BoxError>>,
    /// The requests under way; at most `concurrency`.
    in_flight: HashMap<task::Id, ByteRange>,
    stats: WriteStats,
    /// Set while a call is at work, too: one that was abandoned may have lost bytes.
    failed: bool,
}

/// Neighbouring bytes that were collected and not sent yet.
struct Run {
    start: u64,
    data: Vec<u8>,
    permit: Permit,
}

impl PageWriter {
    /// A writer into `sink`. Requests are at most `limits.chunk` bytes, 4 MiB and the budget, rounded down to whole pages.
    /// Must be used inside a tokio runtime.
    #[must_use]
    pub fn new(
        sink: Arc<dyn RangeSink>,
        budget: &ByteBudget,
        limits: Limits,
        cancel: &CancellationToken,
    ) -> Self {
        let chunk = limits.chunk.min(LARGEST_WRITE).min(budget.capacity());
        let chunk = (chunk - chunk % PAGE).max(PAGE);
        Self {
            sink,
            budget: budget.clone(),
            // At most 4 MiB, which any usize holds.
            chunk: usize::try_from(chunk).unwrap_or(usize::MAX),
            concurrency: limits.concurrency.max(1),
            cancel: cancel.clone(),
            staged: None,
            tasks: JoinSet::new(),
            in_flight: HashMap::new(),
            stats: WriteStats::default(),
            failed: false,
        }
    }

    /// Takes `data` for `offset`, in bytes; waits for room, not for the write. Pieces of any length may follow each
    /// other; where a run of them begins and ends it must be aligned to 512 bytes.
    ///
    /// # Errors
    ///
    /// An earlier write failed, a run is not aligned, the job was cancelled; every later call fails with [`Error::Failed`].
    ///
    /// # Cancellation
    ///
    /// After a future was dropped before it was done, every later call fails.
    pub async fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.begin()?;
        let result = self.take(offset, data).await;
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
                self.staged = None;
                self.tasks.shutdown().await;
                self.in_flight.clear();
            }
        }
        result
    }

    async fn take(&mut self, mut offset: u64, mut data: &[u8]) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if self.staged.as_ref().is_some_and(|run| run.end() != offset) {
            self.flush().await?;
        }
        if offset.checked_add(data.len() as u64).is_none() {
            return Err(Error::Unaligned {
                offset,
                len: data.len() as u64,
            });
        }
        while !data.is_empty() {
            let mut run = match self.staged.take() {
                Some(run) => run,
                None => self.start_run(offset).await?,
            };
            let (now, later) = data.split_at(data.len().min(self.chunk - run.data.len()));
            run.data.extend_from_slice(now);
            offset += now.len() as u64;
            data = later;
            let full = run.data.len() == self.chunk;
            self.staged = Some(run);
            if full {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn start_run(&mut self, start: u64) -> Result<Run, Error> {
        if !start.is_multiple_of(PAGE) {
            return Err(Error::Unaligned {
                offset: start,
                len: 0,
            });
        }
        // For a whole chunk, since nobody knows how much will follow; what is not used goes back at the flush.
        let budget = self.budget.clone();
        let mut room = Box::pin(budget.acquire(self.chunk as u64));
        let permit = loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Error::Cancelled),
                Some(done) = self.tasks.join_next_with_id() => self.settle(done)?,
                permit = &mut room => break permit,
            }
        };
        Ok(Run {
            start,
            data: Vec::with_capacity(self.chunk),
            permit,
        })
    }

    /// Sends what was collected, as soon as a slot is free and nothing under way overlaps it.
    async fn flush(&mut self) -> Result<(), Error> {
        let Some(Run {
            start,
            mut data,
            mut permit,
        }) = self.staged.take()
        else {
            return Ok(());
        };
        let len = data.len() as u64;
        let range = ByteRange::with_len(start, len)
            .filter(|range| range.is_aligned(PAGE))
            .ok_or(Error::Unaligned { offset: start, len })?;
        data.shrink_to_fit();
        permit.shrink_to(len);
        while self.in_flight.len() >= self.concurrency || self.is_busy(range) {
            self.settle_one().await?;
        }
        let sink = Arc::clone(&self.sink);
        let task = self.tasks.spawn(async move {
            let result = sink.write(range.start(), Bytes::from(data)).await;
            drop(permit);
            result
        });
        self.in_flight.insert(task.id(), range);
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), Error> {
        self.flush().await?;
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

impl Run {
    fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

impl fmt::Debug for PageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageWriter")
            .field("chunk", &self.chunk)
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
    use crate::pipeline::testing::{Fault, Script, limits, range};

    fn writer(script: Script, concurrency: usize, chunk: u64) -> PageWriter {
        let budget = ByteBudget::new(1 << 20);
        let limits = limits(0, concurrency, chunk);
        PageWriter::new(Arc::new(script), &budget, limits, &CancellationToken::new())
    }

    #[tokio::test]
    async fn neighbours_become_one_request_up_to_the_chunk() {
        let script = Script::default();
        let meter = script.meter.clone();
        let mut writer = writer(script, 4, 5000);
        for offset in (0..8192).step_by(256) {
            writer.write(offset, &[1; 256]).await.unwrap();
        }
        writer.write(65_536, &[2; 512]).await.unwrap();
        let stats = writer.finish().await.unwrap();
        let mut seen = meter.seen();
        seen.sort_unstable();
        // 5000 is rounded down to pages.
        assert_eq!(
            seen,
            [range(0, 4608), range(4608, 8192), range(65_536, 66_048)]
        );
        assert_eq!((stats.bytes, stats.requests), (8704, 3));
    }

    #[tokio::test]
    async fn runs_that_are_not_whole_pages_are_refused() {
        let mut begins = writer(Script::default(), 1, 4096);
        assert!(matches!(
            begins.write(100, &[1; 512]).await,
            Err(Error::Unaligned { .. })
        ));
        let mut ends = writer(Script::default(), 1, 4096);
        ends.write(0, &[1; 100]).await.unwrap();
        assert!(matches!(
            ends.barrier().await,
            Err(Error::Unaligned {
                offset: 0,
                len: 100
            })
        ));
        let mut overflows = writer(Script::default(), 1, 4096);
        let last_page = u64::MAX - 511;
        assert!(matches!(
            overflows.write(last_page, &[1; 512]).await,
            Err(Error::Unaligned { .. })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn an_overlapping_write_waits_and_others_do_not() {
        let script = Script {
            latencies: vec![100],
            ..Script::default()
        };
        let written = Arc::clone(&script.written);
        let begun = Instant::now();
        let mut writer = writer(script, 4, 512);
        writer.write(0, &[1; 512]).await.unwrap();
        writer.write(1024, &[1; 512]).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        writer.write(0, &[2; 512]).await.unwrap();
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
        let budget = ByteBudget::new(512);
        let mut writer = PageWriter::new(Arc::new(script), &budget, limits(0, 1, 512), &cancel);
        writer.write(0, &[1; 512]).await.unwrap();
        let (result, ()) = tokio::join!(writer.write(512, &[1; 512]), async { cancel.cancel() });
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
        let budget = ByteBudget::new(512);
        let mut writer = PageWriter::new(Arc::new(script), &budget, limits(0, 1, 512), &cancel);
        writer.write(0, &[1; 512]).await.unwrap();
        let (result, ()) = tokio::join!(writer.barrier(), async {
            tokio::task::yield_now().await;
            cancel.cancel();
        });
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    }
}
