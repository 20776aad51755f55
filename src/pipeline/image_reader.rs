//! Blocks for the host, cut from chunks.
//!
//! Bytes are copied once here, from the frames of a chunk into the host's buffer. Where blocks begin and end depends on the
//! plan's gaps and on the buffers only, never on chunks, frames or timing.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::zeros::is_zero;
use super::{Chunk, ChunkReader, Error};

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

/// The account of an [`ImageReader`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Bytes that came from the source.
    pub read: u64,
    /// Bytes that were handed out.
    pub delivered: u64,
    /// Bytes of blocks that were left out because they are all zeros.
    pub zeros: u64,
    /// Blocks that were handed out.
    pub blocks: u64,
    /// Time in which the host waited for the source.
    pub starved: Duration,
}

/// Reads an image block by block.
#[derive(Debug)]
pub struct ImageReader {
    chunks: ChunkReader,
    size: u64,
    zeros: ZeroBlocks,
    front: Option<Cursor>,
    /// Set while a block is being filled, too: an abandoned `read_block` has lost bytes.
    failed: bool,
    stats: ReadStats,
}

/// A chunk that is being consumed; never empty.
#[derive(Debug)]
struct Cursor {
    chunk: Chunk,
    /// Index of the current frame, and how much of it is consumed.
    frame: usize,
    consumed: usize,
    /// Disk offset of the next byte.
    position: u64,
}

impl ImageReader {
    /// `size` is the image's in bytes; the plan behind `chunks` must end there, or the first block fails.
    #[must_use]
    pub fn new(chunks: ChunkReader, size: u64, zeros: ZeroBlocks) -> Self {
        Self {
            chunks,
            size,
            zeros,
            front: None,
            failed: false,
            stats: ReadStats::default(),
        }
    }

    /// Fills `buffer` with the next block, which never spans a gap; `None` at the end of a complete image. A block is
    /// shorter than the buffer only where a gap or the image's end follows.
    ///
    /// # Errors
    ///
    /// A failed chunk, a plan that does not end where the image does, an empty buffer; every later call fails with
    /// [`Error::Failed`].
    ///
    /// # Cancellation
    ///
    /// A future that was dropped before it was done has lost bytes: every later call fails.
    pub async fn read_block(&mut self, buffer: &mut [u8]) -> Result<Option<Block>, Error> {
        if mem::replace(&mut self.failed, true) {
            return Err(Error::Failed);
        }
        let block = self.fill(buffer).await?;
        self.failed = false;
        Ok(block)
    }

    /// The next chunk as it came, nothing copied; `None` at the end of a complete image. Zeros are the caller's business.
    ///
    /// # Errors
    ///
    /// As [`ImageReader::read_block`]; a block that was read in part before.
    pub async fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        if mem::replace(&mut self.failed, true) || self.front.is_some() {
            return Err(Error::Failed);
        }
        self.check_plan()?;
        let offset = self.position().await?;
        self.failed = false;
        let Some(Cursor { chunk, .. }) = self.front.take() else {
            debug_assert!(offset.is_none());
            self.check_end()?;
            return Ok(None);
        };
        self.stats.delivered += chunk.range().len();
        self.stats.blocks += 1;
        Ok(Some(chunk))
    }

    /// What was read and handed out so far.
    #[must_use]
    pub fn stats(&self) -> ReadStats {
        self.stats
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<Option<Block>, Error> {
        if buffer.is_empty() {
            return Err(Error::EmptyBuffer);
        }
        self.check_plan()?;
        loop {
            let Some(offset) = self.position().await? else {
                return self.check_end();
            };
            // As long as only zeros came, nothing is copied: most such blocks are not delivered.
            let mut zero = self.zeros == ZeroBlocks::Skip;
            let mut len = 0;
            while len < buffer.len() && self.position().await? == Some(offset + len as u64) {
                let Some(front) = &mut self.front else { break };
                let bytes = front.take(buffer.len() - len);
                if zero && !is_zero(bytes) {
                    zero = false;
                    buffer[..len].fill(0);
                }
                if !zero {
                    buffer[len..len + bytes.len()].copy_from_slice(bytes);
                }
                len += bytes.len();
            }
            let bytes = len as u64;
            if zero && offset + bytes < self.size {
                self.stats.zeros += bytes;
                continue;
            }
            if zero {
                buffer[..len].fill(0);
            }
            self.stats.delivered += bytes;
            self.stats.blocks += 1;
            return Ok(Some(Block { offset, len }));
        }
    }

    fn check_plan(&self) -> Result<(), Error> {
        if self.chunks.end() == self.size {
            return Ok(());
        }
        Err(Error::Incomplete {
            end: self.chunks.end(),
            size: self.size,
        })
    }

    /// Disk offset of the next byte, once it is here; `None` at the end.
    async fn position(&mut self) -> Result<Option<u64>, Error> {
        if self.front.as_ref().is_some_and(Cursor::is_consumed) {
            // Gives its bytes back before waiting for more.
            self.front = None;
        }
        if self.front.is_none() {
            let waiting = Instant::now();
            let chunk = self.chunks.next().await;
            self.stats.starved += waiting.elapsed();
            self.front = chunk?.map(Cursor::new);
            self.stats.read += self
                .front
                .as_ref()
                .map_or(0, |front| front.chunk.range().len());
        }
        Ok(self.front.as_ref().map(|front| front.position))
    }

    /// The chunk reader has already counted that every byte of the plan came; this counts what became of them.
    fn check_end(&self) -> Result<Option<Block>, Error> {
        let ReadStats {
            read,
            delivered,
            zeros,
            ..
        } = self.stats;
        if self.chunks.remaining() == 0 && read == delivered + zeros {
            Ok(None)
        } else {
            Err(Error::Incomplete {
                end: delivered + zeros,
                size: read + self.chunks.remaining(),
            })
        }
    }
}

impl Cursor {
    fn new(chunk: Chunk) -> Self {
        Self {
            position: chunk.range().start(),
            chunk,
            frame: 0,
            consumed: 0,
        }
    }

    fn is_consumed(&self) -> bool {
        self.position == self.chunk.range().end()
    }

    /// The next bytes, at most `max` and not beyond the current frame.
    fn take(&mut self, max: usize) -> &[u8] {
        let frame = &self.chunk.frames()[self.frame];
        let from = self.consumed;
        let to = frame.len().min(from.saturating_add(max));
        self.consumed = to;
        self.position += (to - from) as u64;
        if to == frame.len() {
            self.frame += 1;
            self.consumed = 0;
        }
        &frame[from..to]
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::pipeline::testing::read_images;
    use crate::pipeline::testing::{Script, limits, plan_of};

    fn reader(script: Script, ranges: &[(u64, u64)], size: u64) -> ImageReader {
        let plans = vec![plan_of(script, ranges)];
        let mut readers = read_images(plans, limits(100_000, 2, 1000), &CancellationToken::new());
        ImageReader::new(readers.remove(0), size, ZeroBlocks::Skip)
    }

    #[tokio::test]
    async fn a_plan_that_ends_elsewhere_than_the_image_is_refused() {
        for (end, size) in [(4096, 4608), (4608, 4096)] {
            let mut reader = reader(Script::default(), &[(0, end)], size);
            let error = reader.read_block(&mut [0; 512]).await.unwrap_err();
            assert!(matches!(error, Error::Incomplete { .. }), "{error:?}");
        }
        // A plan without ranges is complete only for an image without bytes.
        assert!(
            reader(Script::default(), &[], 0)
                .read_block(&mut [0])
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            reader(Script::default(), &[], 1)
                .read_block(&mut [0])
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn the_end_can_be_asked_for_again() {
        let mut reader = reader(Script::default(), &[(0, 10)], 10);
        let mut buffer = [0; 16];
        let block = reader.read_block(&mut buffer).await.unwrap();
        assert_eq!(block, Some(Block { offset: 0, len: 10 }));
        for _ in 0..2 {
            assert_eq!(reader.read_block(&mut buffer).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn chunks_come_as_they_are_and_are_counted() {
        let ranges = [(0, 1500), (2000, 2500)];
        let mut reader = reader(Script::default(), &ranges, 2500);
        let mut found = Vec::new();
        while let Some(chunk) = reader.next_chunk().await.unwrap() {
            found.push((chunk.range().start(), chunk.range().end()));
        }
        assert_eq!(found, [(0, 1000), (1000, 1500), (2000, 2500)]);
        assert_eq!(reader.stats().delivered, 2000);
        assert!(reader.next_chunk().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_chunk_that_is_read_in_blocks_is_not_handed_out_whole() {
        let mut reader = reader(Script::default(), &[(0, 1500)], 1500);
        let block = reader.read_block(&mut [0; 400]).await.unwrap();
        assert!(block.is_some());
        assert!(matches!(reader.next_chunk().await, Err(Error::Failed)));
    }

    #[tokio::test]
    async fn an_empty_buffer_is_an_error() {
        let mut reader = reader(Script::default(), &[(0, 10)], 10);
        assert!(matches!(
            reader.read_block(&mut []).await,
            Err(Error::EmptyBuffer)
        ));
        assert!(matches!(
            reader.read_block(&mut [0]).await,
            Err(Error::Failed)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_that_was_abandoned_fails_the_image() {
        let script = Script {
            latencies: vec![0, 1000],
            ..Script::default()
        };
        let mut reader = reader(script, &[(0, 4000)], 4000);
        let mut buffer = [0; 1500];
        let short = Duration::from_millis(10);
        let block = tokio::time::timeout(short, reader.read_block(&mut buffer)).await;
        assert!(block.is_err(), "the second chunk is late");
        assert!(matches!(
            reader.read_block(&mut buffer).await,
            Err(Error::Failed)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_source_is_accounted() {
        let script = Script {
            latencies: vec![70],
            ..Script::default()
        };
        let mut reader = reader(script, &[(0, 1500)], 1500);
        while reader.read_block(&mut [0; 400]).await.unwrap().is_some() {}
        assert_eq!(reader.stats().starved, Duration::from_millis(70));
    }
}
