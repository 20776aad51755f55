//! Blocks for the host, cut from chunks.
use super::{ChunkReader, Error};

/// What becomes of blocks that are all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroBlocks {
    /// Not delivered, but for the one that holds the image's last byte (full images).
    Skip,
    /// Delivered like any other (deltas).
    Keep,
}

/// A block that was copied to the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Disk offset in bytes.
    pub offset: u64,
    /// Bytes in the buffer.
    pub len: usize,
}

/// Reads an image block by block.
#[derive(Debug)]
pub struct ImageReader {}

impl ImageReader {
    /// `size` is the image's in bytes; the plan behind `chunks` must end at it.
    #[must_use]
    pub fn new(chunks: ChunkReader, size: u64, zeros: ZeroBlocks) -> Self {
        let _ = (chunks, size, zeros);
        unimplemented!()
    }
    /// Fills `buffer` with the next block, which never spans a gap; `None` at the end of a complete image.
    /// # Errors
    /// A failed chunk, or an image that ended early; the reader stays failed.
    pub async fn read_block(&mut self, buffer: &mut [u8]) -> Result<Option<Block>, Error> {
        let _ = buffer;
        unimplemented!()
    }
}
