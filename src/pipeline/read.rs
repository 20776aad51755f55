//! Ordered delivery of concurrent range reads.
use super::{ByteBudget, Error, Limits, RangeSource};
use crate::range::ByteRange;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What to read of one image.
#[expect(missing_debug_implementations, reason = "skeleton")]
pub struct ReadPlan {
    /// From where.
    pub source: Arc<dyn RangeSource>,
    /// Ascending, disjoint; cut into chunks by the reader.
    pub ranges: Vec<ByteRange>,
}

/// A filled chunk; holds its part of the budget until dropped.
#[derive(Debug)]
pub struct Chunk {}

/// The chunks of one image, in disk order.
#[derive(Debug)]
pub struct ChunkReader {}

/// Starts reading images in the order given, under one budget: the next image's first chunks are fetched while the
/// current one drains. Must be called inside a tokio runtime.
#[must_use]
pub fn read_images(
    plans: Vec<ReadPlan>,
    budget: &ByteBudget,
    limits: Limits,
    cancel: &CancellationToken,
) -> Vec<ChunkReader> {
    let _ = (plans, budget, limits, cancel);
    unimplemented!()
}

impl ChunkReader {
    /// The next chunk; `None` after the last one.
    /// # Errors
    /// The chunk could not be read; the reader is at its end then.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        unimplemented!()
    }
}
