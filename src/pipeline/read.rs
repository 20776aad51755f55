//! Ordered delivery of concurrent range reads.
//!
//! One dispatcher task walks all images of a queue in order. For each chunk it waits for a slot of the image's [`Window`]
//! and for a place in the queue's [`Room`], then starts the request and puts its handle into the image's queue;
//! [`ChunkReader`] takes the handles out in that order. Two properties follow:
//!
//! * No deadlock: the chunk at the front always finds room. This needs readers that are drained (or dropped) in the
//!   order of the images.
//! * No idle gap: while the last chunks of an image are under way or waiting, the first ones of the next are requested.
//!
//! Nothing outlives its consumer: dropping a reader aborts its requests, and the dispatcher goes with the last reader.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::room::{Admission, Room, Share};
use super::window::{Slot, Window};
use super::{Error, Limits, RangeSource, ReadPlan, unless_cancelled};
use crate::range::ByteRange;

/// A filled chunk; holds its room until dropped.
#[derive(Debug)]
pub struct Chunk {
    range: ByteRange,
    // Dropped before the share, so that the bytes are gone when their room is free.
    frames: Vec<Bytes>,
    _share: Share,
}

impl Chunk {
    /// Which bytes of the disk these are.
    #[must_use]
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// The bytes, in the pieces in which they arrived; none is empty.
    #[must_use]
    pub fn frames(&self) -> &[Bytes] {
        &self.frames
    }
}

/// Reads images one after the other within `limits.memory`; more can be added while earlier ones are read. Clones are the
/// same queue.
#[derive(Clone, Debug)]
pub struct ReadQueue {
    images: mpsc::UnboundedSender<Image>,
    dispatcher: Arc<AbortOnDropHandle<()>>,
    cancel: CancellationToken,
}

/// The chunks of one image, in disk order.
#[derive(Debug)]
pub struct ChunkReader {
    /// `None` after a failure.
    requests: Option<mpsc::UnboundedReceiver<Request>>,
    /// Taken from `requests`, still awaited; kept here so that an abandoned `next` loses nothing.
    front: Option<Request>,
    /// Bytes of the plan that were not delivered yet.
    remaining: u64,
    end: u64,
    cancel: CancellationToken,
    _dispatcher: Arc<AbortOnDropHandle<()>>,
}

/// An image in the dispatcher's queue.
#[derive(Debug)]
struct Image {
    plan: ReadPlan,
    /// Unbounded, yet never longer than the room allows: each request in it has its share.
    requests: mpsc::UnboundedSender<Request>,
}

/// A chunk under way.
#[derive(Debug)]
struct Request {
    range: ByteRange,
    task: AbortOnDropHandle<Result<Chunk, Error>>,
}

impl ReadQueue {
    /// An empty queue. Chunks are at most `limits.chunk` bytes long, and never longer than `limits.memory`. Must be called
    /// inside a tokio runtime.
    #[must_use]
    pub fn new(limits: Limits, cancel: &CancellationToken) -> Self {
        let (images, queue) = mpsc::unbounded_channel();
        let dispatch = dispatch(queue, limits, cancel.clone());
        let stop = cancel.clone();
        let dispatcher = tokio::spawn(async move {
            // What was not dispatched is missed by its reader, which knows how much must come.
            drop(unless_cancelled(&stop, dispatch).await);
        });
        Self {
            images,
            dispatcher: Arc::new(AbortOnDropHandle::new(dispatcher)),
            cancel: cancel.clone(),
        }
    }

    /// Adds an image behind those added before. Its reader may be dropped at any time and then takes nothing any more;
    /// readers that are used must be used in the order in which they were made.
    #[must_use]
    pub fn push(&self, plan: ReadPlan) -> ChunkReader {
        let (requests, queue) = mpsc::unbounded_channel();
        let reader = ChunkReader {
            requests: Some(queue),
            front: None,
            remaining: plan.bytes(),
            end: plan.end(),
            cancel: self.cancel.clone(),
            _dispatcher: Arc::clone(&self.dispatcher),
        };
        // The dispatcher is gone only after a cancellation, which the reader sees by itself.
        drop(self.images.send(Image { plan, requests }));
        reader
    }
}

impl ChunkReader {
    /// The next chunk; `None` after the last one.
    ///
    /// # Errors
    ///
    /// The chunk could not be read, or the job was cancelled; every later call fails with [`Error::Failed`].
    ///
    /// # Cancellation
    ///
    /// Dropping the future loses nothing: the next call waits for the same chunk.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        if self.requests.is_none() {
            return Err(Error::Failed);
        }
        if self.remaining == 0 {
            return Ok(None);
        }
        let cancel = self.cancel.clone();
        let received = unless_cancelled(&cancel, self.receive()).await.flatten();
        match &received {
            Ok(chunk) => self.remaining -= chunk.range.len(),
            Err(_) => {
                self.requests = None;
                self.front = None;
            }
        }
        received.map(Some)
    }

    /// Bytes of the plan that `next` has still to deliver.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// End of the plan's last range, in bytes of the disk; 0 for an empty plan.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    async fn receive(&mut self) -> Result<Chunk, Error> {
        if self.front.is_none() {
            let requests = self.requests.as_mut().ok_or(Error::Failed)?;
            self.front = requests.recv().await;
        }
        // The queue of an unfinished image is closed only when the dispatcher was stopped, or after a failure that
        // was delivered before.
        let request = self.front.as_mut().ok_or(Error::Failed)?;
        let result = (&mut request.task).await;
        let range = request.range;
        self.front = None;
        result.unwrap_or_else(|failure| {
            Err(Error::Read {
                range,
                source: failure.into(),
            })
        })
    }
}

async fn dispatch(
    mut images: mpsc::UnboundedReceiver<Image>,
    limits: Limits,
    cancel: CancellationToken,
) {
    let chunk = limits.chunk.min(limits.memory).max(1);
    // A source may keep some more than the bytes: half read buffers.
    // One image drains while the next one begins.
    let most = limits.concurrency.max(1) * 2;
    let room = Room::new(limits.memory, chunk + chunk / 2, most);
    while let Some(Image { plan, requests }) = images.recv().await {
        // Each image has its own: what throttles one disk does not slow down the next.
        let window = Window::new(limits.concurrency);
        // A failed request ends its image: what comes after it would be thrown away.
        let failed = CancellationToken::new();
        for range in plan.chunks(chunk) {
            let admission = async { (window.enter().await, room.enter(range.len()).await) };
            let (slot, share) = tokio::select! {
                biased;
                () = requests.closed() => break,
                () = failed.cancelled() => break,
                admission = admission => admission,
            };
            let source = Arc::clone(&plan.source);
            let cancel = cancel.clone();
            let failed = failed.clone();
            let task = tokio::spawn(async move {
                // A panic in the source must stop the image like any other failure.
                let guard = failed.drop_guard();
                let result =
                    unless_cancelled(&cancel, fetch(source.as_ref(), range, share, slot)).await;
                let result = result.flatten();
                if result.is_ok() {
                    guard.disarm();
                }
                result
            });
            let task = AbortOnDropHandle::new(task);
            if requests.send(Request { range, task }).is_err() {
                break;
            }
        }
    }
}

async fn fetch(
    source: &dyn RangeSource,
    range: ByteRange,
    share: Share,
    slot: Slot,
) -> Result<Chunk, Error> {
    let read = {
        let on_arrival = Admission::on_arrival(&share, &slot);
        tokio::select! {
            read = source.read(range, &on_arrival) => Some(read),
            () = on_arrival.stalled() => None,
        }
    };
    let read = match read {
        Some(read) => read,
        // Nobody takes anything, for now; a body that is half read would not keep so long.
        None => {
            let in_advance = Admission::in_advance(&share, &slot, range.len()).await;
            source.read(range, &in_advance).await
        }
    };
    let mut frames = read.map_err(|source| Error::Read { range, source })?;
    frames.retain(|frame| !frame.is_empty());
    let actual = frames.iter().map(|frame| frame.len() as u64).sum();
    if actual != range.len() {
        return Err(Error::WrongLength { range, actual });
    }
    slot.ended(actual);
    share.complete();
    Ok(Chunk {
        range,
        frames,
        _share: share,
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::Instant;

    use super::*;
    use crate::pipeline::room::LEAST_CHARGE;
    use crate::pipeline::testing::{Fault, Script, limits, plan_of, read_images};

    const MIB: u64 = 1024 * 1024;

    async fn bytes_until_end(reader: &mut ChunkReader) -> Result<u64, Error> {
        let mut bytes = 0;
        while let Some(chunk) = reader.next().await? {
            bytes += chunk.range().len();
        }
        Ok(bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_run_side_by_side_and_into_the_next_image() {
        let script = || Script {
            latencies: vec![100],
            ..Script::default()
        };
        let plans = vec![
            plan_of(script(), &[(0, 16 * 1024)]),
            plan_of(script(), &[(0, 16 * 1024)]),
        ];
        let begun = Instant::now();
        let mut readers = read_images(plans, limits(MIB, 4, 4096), &CancellationToken::new());
        for reader in &mut readers {
            assert_eq!(bytes_until_end(reader).await.unwrap(), 16 * 1024);
        }
        // Four requests per image, all eight under way at the same time.
        assert_eq!(begun.elapsed().as_millis(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_added_later_is_read_behind_the_others() {
        let cancel = CancellationToken::new();
        let queue = ReadQueue::new(limits(64 * 1024, 2, 4096), &cancel);
        let mut first = queue.push(plan_of(Script::default(), &[(0, 200_000)]));
        assert!(first.next().await.unwrap().is_some());
        let mut second = queue.push(plan_of(Script::default(), &[(0, 300_000)]));
        drop(queue);
        assert_eq!(bytes_until_end(&mut first).await.unwrap(), 200_000 - 4096);
        assert_eq!(bytes_until_end(&mut second).await.unwrap(), 300_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_request_holds_back_only_what_comes_after_it() {
        let stalled = Script {
            fault: Some((9000, Fault::Never)),
            ..Script::default()
        };
        let meter = stalled.meter.clone();
        let mut readers = read_images(
            vec![plan_of(stalled, &[(0, MIB)])],
            limits(MIB, 4, 4096),
            &CancellationToken::new(),
        );
        let reader = &mut readers[0];
        assert_eq!(reader.next().await.unwrap().unwrap().range().start(), 0);
        assert_eq!(reader.next().await.unwrap().unwrap().range().start(), 4096);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert!(reader.next().now_or_never().is_none());
        // Those after it are read ahead until the budget is used up, not more.
        assert!(meter.held() <= MIB);
        assert_eq!(reader.remaining(), MIB - 8192);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_next_loses_nothing() {
        let script = Script {
            latencies: vec![100],
            ..Script::default()
        };
        let cancel = CancellationToken::new();
        let plans = vec![plan_of(script, &[(0, 8192)])];
        let mut reader = read_images(plans, limits(MIB, 1, 4096), &cancel).remove(0);
        let short = std::time::Duration::from_millis(30);
        for _ in 0..2 {
            assert!(tokio::time::timeout(short, reader.next()).await.is_err());
        }
        assert_eq!(bytes_until_end(&mut reader).await.unwrap(), 8192);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_error_no_end_is_reported() {
        let script = Script {
            fault: Some((0, Fault::Refused)),
            ..Script::default()
        };
        let cancel = CancellationToken::new();
        let plans = vec![plan_of(script, &[(0, 8192)])];
        let mut reader = read_images(plans, limits(MIB, 1, 4096), &cancel).remove(0);
        assert!(matches!(reader.next().await, Err(Error::Read { .. })));
        assert!(matches!(reader.next().await, Err(Error::Failed)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_tiny_ranges_stay_within_the_budget() {
        let ranges: Vec<_> = (0..100_000).map(|i| (i * 4096, i * 4096 + 512)).collect();
        let script = Script::default();
        let meter = script.meter.clone();
        let cancel = CancellationToken::new();
        let plans = vec![plan_of(script, &ranges)];
        let mut reader = read_images(plans, limits(MIB, 16, 4 * MIB), &cancel).remove(0);
        assert_eq!(bytes_until_end(&mut reader).await.unwrap(), 51_200_000);
        // Each is charged as a read buffer, so no more than this many wait at a time.
        assert!(meter.peak() <= MIB / LEAST_CHARGE * 512);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_because_of_the_cancellation_has_not_failed() {
        let cancel = CancellationToken::new();
        let script = Script {
            refuses_after: Some(cancel.clone()),
            ..Script::default()
        };
        let plans = vec![plan_of(script, &[(0, 8192)])];
        let mut reader = read_images(plans, limits(MIB, 1, 4096), &cancel).remove(0);
        let (result, ()) = tokio::join!(reader.next(), async {
            tokio::task::yield_now().await;
            cancel.cancel();
        });
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    }
}
