//! Sparse files: what is not zero is read, holes are not read at all and zeros between data are left out; ranges are
//! cleared by making holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};
use tokio::task::spawn_blocking;

use crate::pipeline::is_zero;
use crate::range::ByteRange;

/// Bytes read at a time.
const BUFFER: u64 = 4 * 1024 * 1024;

/// The pieces of one file, in order.
#[derive(Debug)]
pub struct SparseReader {
    file: Arc<File>,
    size: u64,
    /// Bytes, a power of two.
    grain: u64,
    /// Everything before it is done or in `window`.
    position: u64,
    window: Window,
    /// Bytes of `window` that are done.
    done: usize,
}

/// Bytes of the file from `start` on.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl SparseReader {
    /// Reads the first `size` bytes of `file`, whose own position does not matter. Zeros are left out in pieces of `grain`
    /// bytes that lie at multiples of it; `grain` is a power of two, of 4 MiB at most.
    #[must_use]
    pub fn new(file: File, size: u64, grain: u32) -> Self {
        Self {
            file: Arc::new(file),
            size,
            grain: grain.into(),
            position: 0,
            window: Window::default(),
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
            if let Some((from, to)) = next_nonzero(&self.window.bytes, self.done, self.grain) {
                self.done = to;
                return Ok(Some((
                    self.window.start + from as u64,
                    &self.window.bytes[from..to],
                )));
            }
            let file = Arc::clone(&self.file);
            let (position, size, grain) = (self.position, self.size, self.grain);
            let bytes = std::mem::take(&mut self.window.bytes);
            let read = spawn_blocking(move || read_window(&file, position, size, grain, bytes));
            let Some(window) = read.await.map_err(io::Error::other)?? else {
                self.position = self.size;
                return Ok(None);
            };
            self.position = window.start + window.bytes.len() as u64;
            self.window = window;
            self.done = 0;
        }
    }
}

/// The first run of grains from `from` on of which none is zero. Windows begin at multiples of the grain.
fn next_nonzero(bytes: &[u8], from: usize, grain: u64) -> Option<(usize, usize)> {
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
    Some((start, end))
}

/// The next bytes at or after `position` that are in a data extent.
fn read_window(
    file: &File,
    position: u64,
    size: u64,
    grain: u64,
    mut bytes: Vec<u8>,
) -> io::Result<Option<Window>> {
    if position >= size {
        return Ok(None);
    }
    let Some(data) = seek(file, position, Whence::SeekData)? else {
        return Ok(None);
    };
    let start = (data - data % grain).max(position);
    if start >= size {
        return Ok(None);
    }
    let hole = seek(file, data, Whence::SeekHole)?.unwrap_or(size);
    let end = hole.next_multiple_of(grain).min(start + BUFFER).min(size);
    bytes.resize(usize::try_from(end - start).map_err(io::Error::other)?, 0);
    file.read_exact_at(&mut bytes, start)?;
    Ok(Some(Window { start, bytes }))
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
        let mut reader = SparseReader::new(file, size, GRAIN);
        let mut pieces = Vec::new();
        while let Some((offset, bytes)) = reader.next().await.unwrap() {
            pieces.push((offset, bytes.to_vec()));
        }
        pieces
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
