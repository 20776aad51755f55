//! Parts of a local file that are read while they are sent.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::task::spawn_blocking;

use crate::payload::{Payload, Supply};
use crate::pipeline::{ByteBudget, Permit};
use crate::range::ByteRange;

/// Bytes read and sent at a time: few enough for many requests side by side, and enough for a read to be worth its call.
const PIECE: usize = 512 * 1024;

/// A file whose parts are sent. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct LocalFile(Arc<Shared>);

struct Shared {
    file: Arc<File>,
    /// Bounds the pieces that are in memory.
    budget: ByteBudget,
    /// Buffers for further pieces; of those and the pieces there are no more than the budget allows.
    spare: Mutex<Vec<Box<[u8]>>>,
}

/// A part of it.
#[derive(Debug)]
struct LocalPart {
    file: LocalFile,
    range: ByteRange,
}

/// Bytes of it.
struct Piece {
    buffer: Box<[u8]>,
    len: usize,
    file: LocalFile,
    _permit: Permit,
}

impl LocalFile {
    /// At most `memory` bytes of `file` are in memory, or one piece.
    pub(super) fn new(file: Arc<File>, memory: u64) -> Self {
        Self(Arc::new(Shared {
            file,
            budget: ByteBudget::new(memory),
            spare: Mutex::default(),
        }))
    }

    /// The bytes of `range`.
    pub(super) fn part(&self, range: ByteRange) -> Payload {
        Payload::Supplied(Arc::new(LocalPart {
            file: self.clone(),
            range,
        }))
    }

    /// Blocks.
    fn read(self, range: ByteRange, permit: Permit) -> io::Result<Bytes> {
        let spare = self.spare().pop();
        let mut piece = Piece {
            buffer: spare.unwrap_or_else(|| vec![0; PIECE].into()),
            len: usize::try_from(range.len()).map_err(io::Error::other)?,
            file: self,
            _permit: permit,
        };
        let Piece {
            buffer, len, file, ..
        } = &mut piece;
        file.0
            .file
            .read_exact_at(&mut buffer[..*len], range.start())?;
        Ok(Bytes::from_owner(piece))
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supply for LocalPart {
    fn total(&self) -> u64 {
        self.range.len()
    }

    fn fetch(self: Arc<Self>, position: u64) -> BoxFuture<'static, io::Result<Bytes>> {
        Box::pin(async move {
            let len = (self.range.len() - position).min(PIECE as u64);
            let range = ByteRange::with_len(self.range.start() + position, len)
                .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            let permit = self.file.0.budget.acquire(PIECE as u64).await;
            let file = self.file.clone();
            spawn_blocking(move || file.read(range, permit))
                .await
                .map_err(io::Error::other)?
        })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.file.spare().push(buffer);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("file", &self.file)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: usize) -> (Arc<File>, Vec<u8>) {
        let bytes: Vec<u8> = (0..251).cycle().take(len).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        (Arc::new(file), bytes)
    }

    async fn all(payload: &Payload) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let piece = payload.clone().fetch(bytes.len() as u64).await?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&piece);
        }
    }

    #[tokio::test]
    async fn a_part_can_be_read_again_and_again() {
        let (file, bytes) = file(3 * PIECE);
        let file = LocalFile::new(file, PIECE as u64);
        for (start, end) in [(0, 1), (512, 2 * PIECE + 1024), (PIECE, 3 * PIECE)] {
            let range = ByteRange::new(start as u64, end as u64).unwrap();
            let part = file.part(range);
            assert_eq!(part.total(), range.len());
            for _ in 0..2 {
                assert!(all(&part).await.unwrap() == bytes[start..end]);
            }
        }
        assert_eq!(file.spare().len(), 1, "one buffer, used each time");
    }

    #[tokio::test]
    async fn pieces_wait_for_those_that_are_in_memory() {
        let (file, _) = file(3 * PIECE);
        let file = LocalFile::new(file, 2 * PIECE as u64);
        let part = file.part(ByteRange::new(0, 3 * PIECE as u64).unwrap());
        let first = part.clone().fetch(0).await.unwrap();
        let _second = part.clone().fetch(PIECE as u64).await.unwrap();
        let mut third = Box::pin(part.fetch(2 * PIECE as u64));
        // Nothing but the other pieces can be what it waits for.
        assert_eq!(file.0.budget.available(), 0);
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        assert_eq!(third.await.unwrap().len(), PIECE);
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error() {
        let (file, _) = file(1000);
        let file = LocalFile::new(file, PIECE as u64);
        let part = file.part(ByteRange::new(512, 1024).unwrap());
        let error = all(&part).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(file.0.budget.available(), PIECE as u64);
    }
}
