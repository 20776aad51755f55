//! Moving bytes in disk order under a byte budget; knows neither Bacula nor Azure.

mod budget;
mod image_reader;
mod page_writer;
mod read;

use std::error::Error as StdError;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use self::budget::ByteBudget;
pub use self::image_reader::{Block, ImageReader, ZeroBlocks};
pub use self::page_writer::{PageWriter, WriteStats};
pub use self::read::{Chunk, ChunkReader, ReadPlan, read_images};

use crate::range::ByteRange;

/// Why a storage failed; the pipeline passes it on.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Something whose ranges can be read in any order, several at a time.
pub trait RangeSource: Send + Sync + 'static {
    /// Exactly the bytes of `range`, in the pieces in which they arrived.
    fn read(&self, range: ByteRange) -> BoxFuture<'_, Result<Vec<Bytes>, BoxError>>;
}

/// Something that can be written at any offset, several writes at a time.
pub trait RangeSink: Send + Sync + 'static {
    /// Writes all of `data` at `offset` bytes; done means acknowledged.
    fn write(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), BoxError>>;
}

/// Bounds of one job's transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in flight or waiting to be consumed, per job.
    pub memory: u64,
    /// Requests in flight per disk.
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
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}
