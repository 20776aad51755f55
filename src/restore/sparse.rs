//! Sparse files: what is not zero is read, holes are not read at all and zeros between data are left out; ranges are
//! cleared by making holes.

use std::fs::File;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek};
use tokio::task::spawn_blocking;

use crate::pipeline::is_zero;
use crate::range::ByteRange;

/// Bytes read at a time.
const BUFFER: u64 = 4 * 1024 * 1024;
/// Bytes of a grain that are read to see that it holds data, which it does where the first of them do.
const PEEK: u64 = 4096;

/// The pieces of one file, in order.
#[derive(Debug)]
pub struct SparseReader {
    windows: Windows,
    start: u64,
    /// Bytes of the file from `start` on.
    bytes: Vec<u8>,
    /// How many of them are done.
    done: usize,
}

impl SparseReader {
    /// Reads the first `size` bytes of `file`, whose own position does not matter. Zeros are left out in pieces of `grain`
    /// bytes that lie at multiples of it; `grain` is a power of two, of 4 MiB at most.
    #[must_use]
    pub fn new(file: File, size: u64, grain: u32) -> Self {
        Self {
            windows: Windows::new(Arc::new(file), size, grain, BUFFER),
            start: 0,
            bytes: Vec::new(),
            done: 0,
        }
    }

    /// The next bytes that are not all zeros and their offset in the file, at most 4 MiB; `None` at the end.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    ///
    /// # Cancellation
    ///
    /// A dropped future may lose bytes.
    pub async fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        loop {
            if let Some(piece) = next_nonzero(&self.bytes, self.done, self.windows.grain) {
                self.done = piece.end;
                return Ok(Some((self.start + piece.start as u64, &self.bytes[piece])));
            }
            let mut windows = self.windows.clone();
            let mut bytes = std::mem::take(&mut self.bytes);
            let read = spawn_blocking(move || {
                let window = windows.next()?;
                if let Some(window) = window {
                    windows.read(window, &mut bytes)?;
                }
                io::Result::Ok((windows, window, bytes))
            });
            let (windows, window, bytes) = read.await.map_err(io::Error::other)??;
            self.windows = windows;
            let Some(window) = window else {
                return Ok(None);
            };
            (self.start, self.bytes, self.done) = (window.start(), bytes, 0);
        }
    }
}

/// The parts of one file that are not holes, in order.
#[derive(Clone, Debug)]
struct Windows {
    file: Arc<File>,
    size: u64,
    /// Bytes, a power of two.
    grain: u64,
    /// Bytes of a window at most, a multiple of `grain`.
    len: u64,
    /// Everything before it is done.
    position: u64,
}

impl Windows {
    /// Of the first `size` bytes of `file`, at most `len` bytes at a time, or a grain; windows begin at multiples of the grain.
    fn new(file: Arc<File>, size: u64, grain: u32, len: u64) -> Self {
        let grain = u64::from(grain);
        Self {
            file,
            size,
            grain,
            len: (len - len % grain).max(grain),
            position: 0,
        }
    }

    /// The next window; `None` at the end. Blocks.
    fn next(&mut self) -> io::Result<Option<ByteRange>> {
        let position = mem::replace(&mut self.position, self.size);
        if position >= self.size {
            return Ok(None);
        }
        let Some(data) = seek(&self.file, position, Whence::SeekData)? else {
            // A hole up to the end; or the file ends before, and what is missing must not pass for zeros.
            let len = self.file.metadata()?.len();
            return if len < self.size {
                let text = format!("it has {len} bytes only, of {} that were there", self.size);
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
            } else {
                Ok(None)
            };
        };
        let start = (data - data % self.grain).max(position);
        if start >= self.size {
            return Ok(None);
        }
        let hole = seek(&self.file, data, Whence::SeekHole)?.unwrap_or(self.size);
        let end = hole
            .next_multiple_of(self.grain)
            .min(start + self.len)
            .min(self.size);
        self.position = end;
        Ok(ByteRange::new(start, end))
    }

    /// Lets the system read a window ahead, which it does not do by itself where only some of it is asked for. Blocks.
    fn announce(&self, window: ByteRange) -> io::Result<()> {
        let number = |bytes: u64| i64::try_from(bytes).map_err(io::Error::other);
        let advice = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        posix_fadvise(
            &self.file,
            number(window.start())?,
            number(window.len())?,
            advice,
        )?;
        Ok(())
    }

    /// Reads a window into `bytes`, instead of what is there. Blocks.
    fn read(&self, window: ByteRange, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.resize(usize::try_from(window.len()).map_err(io::Error::other)?, 0);
        self.file.read_exact_at(bytes, window.start())
    }
}

/// The runs of grains of which none is zero, in order. No more is read than it takes to tell. Blocks.
#[derive(Debug)]
pub(super) struct DataRuns {
    windows: Windows,
    /// What is left of a window.
    rest: Option<ByteRange>,
    buffer: Vec<u8>,
}

impl DataRuns {
    /// Of the first `size` bytes of `file`, at most `len` bytes each.
    pub(super) fn new(file: Arc<File>, size: u64, grain: u32, len: u64) -> Self {
        Self {
            windows: Windows::new(file, size, grain, len),
            rest: None,
            buffer: Vec::new(),
        }
    }

    fn next(&mut self) -> io::Result<Option<ByteRange>> {
        while let Some(window) = self.next_window()? {
            let mut start = None;
            let mut position = window.start();
            while position < window.end() {
                let end = window.end().min(position + self.windows.grain);
                let is_data = self.is_data(position, end)?;
                if is_data {
                    start.get_or_insert(position);
                } else if let Some(start) = start {
                    self.rest = ByteRange::new(end, window.end());
                    return Ok(ByteRange::new(start, position));
                }
                position = end;
            }
            if let Some(start) = start {
                return Ok(ByteRange::new(start, position));
            }
        }
        Ok(None)
    }

    fn next_window(&mut self) -> io::Result<Option<ByteRange>> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let window = self.windows.next()?;
        if let Some(window) = window {
            self.windows.announce(window)?;
        }
        Ok(window)
    }

    fn is_data(&mut self, start: u64, end: u64) -> io::Result<bool> {
        let peek = end.min(start + PEEK);
        for range in [ByteRange::new(start, peek), ByteRange::new(peek, end)] {
            let Some(range) = range else { continue };
            self.windows.read(range, &mut self.buffer)?;
            if !is_zero(&self.buffer) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Iterator for DataRuns {
    type Item = io::Result<ByteRange>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next().transpose()
    }
}

/// The first run of grains from `from` on of which none is zero.
fn next_nonzero(bytes: &[u8], from: usize, grain: u64) -> Option<Range<usize>> {
    let grain = usize::try_from(grain).unwrap_or(usize::MAX);
    let grain_at = |at: usize| {
        bytes
            .get(at..bytes.len().min(at + grain))
            .filter(|g| !g.is_empty())
    };
    let mut start = from;
    while is_zero(grain_at(start)?) {
        start += grain;
    }
    let mut end = start;
    while let Some(grain) = grain_at(end).filter(|grain| !is_zero(grain)) {
        end += grain.len();
    }
    Some(start..end)
}

/// `None` if there is no such place before the end of the file.
fn seek(file: &File, from: u64, whence: Whence) -> io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(io::Error::other)?;
    match lseek(file, from, whence) {
        Ok(at) => Ok(Some(u64::try_from(at).map_err(io::Error::other)?)),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes `range` of `file` read as zeros: a hole, or zeros where the file system knows no holes. The file keeps its size.
///
/// # Errors
///
/// The disk is full or broken.
pub fn clear_range(file: &File, range: ByteRange) -> io::Result<()> {
    match punch(file, range) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => write_zeros(file, range),
        other => Ok(other?),
    }
}

fn punch(file: &File, range: ByteRange) -> Result<(), Errno> {
    let number = |bytes: u64| i64::try_from(bytes).map_err(|_too_large| Errno::EFBIG);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, flags, number(range.start())?, number(range.len())?)
}

fn write_zeros(file: &File, range: ByteRange) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    let mut position = range.start();
    while position < range.end() {
        let len = usize::try_from(range.end() - position).unwrap_or(zeros.len());
        let piece = &zeros[..len.min(zeros.len())];
        file.write_all_at(piece, position)?;
        position += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAIN: u32 = 64 * 1024;
    const RUN: u64 = 1 << 20;

    #[test]
    fn cleared_ranges_read_as_zeros() {
        let range = ByteRange::new(1000, 200_000).unwrap();
        for clear in [clear_range, write_zeros] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[1; 300_000], 0).unwrap();
            clear(&file, range).unwrap();
            let mut found = vec![2; 300_000];
            file.read_exact_at(&mut found, 0).unwrap();
            let expected = [vec![1; 1000], vec![0; 199_000], vec![1; 100_000]].concat();
            assert!(found == expected);
        }
    }

    async fn pieces(writes: &[(u64, u8, u64)], size: u64) -> Vec<(u64, Vec<u8>)> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for &(offset, byte, len) in writes {
            file.write_all_at(&vec![byte; usize::try_from(len).unwrap()], offset)
                .unwrap();
        }
        // Who reads only what it takes to tell finds the same, cut elsewhere.
        let shared = Arc::new(file.try_clone().unwrap());
        let runs: Vec<_> = DataRuns::new(shared, size, GRAIN, RUN)
            .map(Result::unwrap)
            .collect();
        assert!(runs.iter().all(|run| run.len() <= RUN));
        let mut reader = SparseReader::new(file, size, GRAIN);
        let mut pieces = Vec::new();
        while let Some((offset, bytes)) = reader.next().await.unwrap() {
            pieces.push((offset, bytes.to_vec()));
        }
        let lengths = pieces
            .iter()
            .map(|(offset, bytes)| (*offset, bytes.len() as u64));
        let runs = runs.iter().map(|run| (run.start(), run.len()));
        assert_eq!(joined(lengths), joined(runs));
        pieces
    }

    /// Neighbours as one.
    fn joined(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (start, len) in ranges {
            match joined.last_mut() {
                Some(last) if last.0 + last.1 == start => last.1 += len,
                _ => joined.push((start, len)),
            }
        }
        joined
    }

    fn replay(pieces: &[(u64, Vec<u8>)], size: u64) -> Vec<u8> {
        let mut image = vec![0; usize::try_from(size).unwrap()];
        let mut position = 0;
        for (offset, bytes) in pieces {
            assert!(*offset >= position, "in order");
            assert!(!is_zero(bytes));
            position = offset + bytes.len() as u64;
            let at = usize::try_from(*offset).unwrap();
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    #[tokio::test]
    async fn a_file_that_is_cut_off_under_way_is_an_error_and_no_zeros() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.set_len(1 << 20).unwrap();
        let mut reader = SparseReader::new(file.try_clone().unwrap(), 1 << 20, 4096);
        assert!(reader.next().await.unwrap().is_some());
        file.set_len(1 << 19).unwrap();
        let error = reader.next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_empty_file_has_no_pieces() {
        assert!(pieces(&[], 100 << 20).await.is_empty());
        // Zeros that were written take space, yet are no piece.
        assert!(pieces(&[(1 << 20, 0, 5 << 20)], 100 << 20).await.is_empty());
    }

    #[tokio::test]
    async fn pieces_replay_to_the_file() {
        let size = (21 << 20) + 512;
        let writes = [
            (0, 1, 1),
            (u64::from(GRAIN) * 3 - 1, 2, 2),
            (5 << 20, 3, 9 << 20),
            ((7 << 20) + 100, 0, 3 << 20),
            (size - 1, 4, 1),
            // Zeros longer than what is looked at first.
            ((18 << 20) + 60_000, 5, 1),
        ];
        let found = pieces(&writes, size).await;
        let mut expected = vec![0; usize::try_from(size).unwrap()];
        for (offset, byte, len) in writes {
            let at = usize::try_from(offset).unwrap();
            expected[at..at + usize::try_from(len).unwrap()].fill(byte);
        }
        assert!(replay(&found, size) == expected);
        let sent: usize = found.iter().map(|(_, bytes)| bytes.len()).sum();
        let grain = usize::try_from(GRAIN).unwrap();
        assert!(
            sent <= (6 << 20) + 8 * grain,
            "{sent} bytes sent for 6 MiB of data"
        );
    }
}
