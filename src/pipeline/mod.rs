//! Moving bytes in disk order under a byte budget; knows neither Bacula nor Azure.
//!
//! Reading: a [`ReadPlan`] is cut into chunks, a [`ReadQueue`] keeps requests for them under way, as many as pay off and
//! find room, a [`ChunkReader`] hands them over in order, an [`ImageReader`] makes the host's blocks of them. Writing: a
//! [`PageWriter`] keeps page writes under way, as many as pay off. Storage is seen through [`RangeSource`] and
//! [`RangeSink`] only; retrying is theirs. Whatever is doubtful (a short body, a plan with a hole at its end, a block that
//! was lost in an abandoned call) is an error, after which a reader or writer stays failed.

mod budget;
mod image_reader;
mod page_writer;
mod plan;
#[cfg(test)]
mod properties;
mod read;
mod room;
#[cfg(test)]
mod testing;
mod window;
mod zeros;

use std::error::Error as StdError;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use self::budget::{ByteBudget, Permit};
pub use self::image_reader::{Block, ImageReader, ReadStats, ZeroBlocks};
pub use self::page_writer::{PageWriter, WriteStats};
pub use self::plan::ReadPlan;
pub use self::read::{Chunk, ChunkReader, ReadQueue};
pub use self::zeros::is_zero;

use crate::intake::Intake;
use crate::payload::Payload;
use crate::range::ByteRange;

/// Why a storage failed; the pipeline passes it on.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Something whose ranges can be read in any order, several at a time.
pub trait RangeSource: Send + Sync + 'static {
    /// Exactly the bytes of `range`, in the pieces in which they arrived, each after it was admitted.
    fn read<'a>(
        &'a self,
        range: ByteRange,
        intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<Vec<Bytes>, BoxError>>;
}

/// Something that can be written at any offset, several writes at a time.
pub trait RangeSink: Send + Sync + 'static {
    /// Writes all of `data` at `offset` bytes; done means acknowledged. `intake` hears of refusals.
    fn write<'a>(
        &'a self,
        offset: u64,
        data: Payload,
        intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<(), BoxError>>;
}

/// Bounds of one job's transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that have arrived and wait to be consumed, per job; in the other direction those under way.
    pub memory: u64,
    /// Requests in flight per disk, at most.
    pub concurrency: usize,
    /// Largest request, in bytes.
    pub chunk: u64,
}

/// A failed transfer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A range could not be read.
    #[error("read bytes {range}")]
    Read {
        /// Which.
        range: ByteRange,
        /// Why.
        source: BoxError,
    },
    /// A range could not be written.
    #[error("write bytes {range}")]
    Write {
        /// Which.
        range: ByteRange,
        /// Why.
        source: BoxError,
    },
    /// The source gave another number of bytes than asked for.
    #[error("read bytes {range}: got {actual} bytes")]
    WrongLength {
        /// What was asked for.
        range: ByteRange,
        /// Bytes that came.
        actual: u64,
    },
    /// The bytes of an image end elsewhere than the image.
    #[error("read an image of {size} bytes: its data ends at {end}")]
    Incomplete {
        /// Where the data ends.
        end: u64,
        /// Where the image does.
        size: u64,
    },
    /// A block was asked for without room for it.
    #[error("read a block: the buffer is empty")]
    EmptyBuffer,
    /// A write that does not consist of whole pages below 2^64.
    #[error("write {len} bytes at {offset}: page writes begin and end at multiples of 512 bytes")]
    Unaligned {
        /// Where the run of writes begins.
        offset: u64,
        /// Its bytes.
        len: u64,
    },
    /// A transfer that failed before, or was left in the middle of a call, cannot go on.
    #[error("stopped by an earlier failure")]
    Failed,
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the job was cancelled, which is an outcome rather than a failure.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }
}

/// Waits for `future` or the end of the job. The latter goes first: storage that watches the same token fails in the same
/// moment, and that is no failure.
async fn unless_cancelled<F: Future>(
    cancel: &CancellationToken,
    future: F,
) -> Result<F::Output, Error> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        output = future => Ok(output),
    }
}
