//! An image on its way, as blocks with their offsets, one after the other in a local file.
//!
//! A sparse file cannot tell "written with zeros" from "not written", which makes the difference in an image of changes.
//! What is written here comes back as it came: nothing is merged or sorted, so of blocks that overlap the later one wins.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

/// Offset and length of a block, little endian, before its bytes.
const HEADER: usize = 16;
/// Several blocks of the host, which are 64 KiB by default.
const BUFFER: usize = 256 * 1024;

/// Takes blocks.
#[derive(Debug)]
pub(super) struct BlockWriter {
    file: BufWriter<File>,
    /// Bytes of the file.
    len: u64,
    /// Bytes of the largest block.
    largest: usize,
}

/// Gives blocks back, in the order in which they came.
#[derive(Debug)]
pub(super) struct BlockReader {
    file: BufReader<File>,
    /// Bytes of the file that are not read yet.
    left: u64,
    largest: usize,
    block: Vec<u8>,
}

impl BlockWriter {
    /// `file` is empty.
    pub(super) fn new(file: File) -> Self {
        Self {
            file: BufWriter::with_capacity(BUFFER, file),
            len: 0,
            largest: 0,
        }
    }

    /// Adds a block at `offset` bytes of the disk.
    ///
    /// # Errors
    ///
    /// The disk is full or broken.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let len = data.len() as u64;
        self.file.write_all(&offset.to_le_bytes())?;
        self.file.write_all(&len.to_le_bytes())?;
        self.file.write_all(data)?;
        self.len += HEADER as u64 + len;
        self.largest = self.largest.max(data.len());
        Ok(())
    }

    /// Hands everything to the file.
    ///
    /// # Errors
    ///
    /// The disk is full or broken.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// From the first block on.
    ///
    /// # Errors
    ///
    /// A file that cannot be written or is not as long as it must be.
    pub(super) fn into_reader(self) -> io::Result<BlockReader> {
        let mut file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        let len = file.metadata()?.len();
        if len != self.len {
            return Err(damaged(format!("{len} of {} bytes are there", self.len)));
        }
        file.rewind()?;
        Ok(BlockReader {
            file: BufReader::with_capacity(BUFFER, file),
            left: self.len,
            largest: self.largest,
            block: Vec::new(),
        })
    }
}

impl BlockReader {
    /// The next block and its offset on the disk in bytes; `None` after the last.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or holds something else than what was written.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut number = || {
            let mut bytes = [0; HEADER / 2];
            self.file.read_exact(&mut bytes)?;
            io::Result::Ok(u64::from_le_bytes(bytes))
        };
        let (offset, len) = (number()?, number()?);
        let left = self.left.checked_sub(HEADER as u64);
        let left = left.and_then(|left| left.checked_sub(len));
        let len = usize::try_from(len).ok().filter(|&len| len <= self.largest);
        let (Some(left), Some(len)) = (left, len) else {
            return Err(damaged(format!(
                "a block is torn {} bytes before its end",
                self.left
            )));
        };
        self.block.resize(len, 0);
        self.file.read_exact(&mut self.block)?;
        self.left = left;
        Ok(Some((offset, &self.block)))
    }
}

fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    fn read_all(mut reader: BlockReader) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let mut blocks = Vec::new();
        while let Some((offset, data)) = reader.next()? {
            blocks.push((offset, data.to_vec()));
        }
        Ok(blocks)
    }

    proptest! {
        #[test]
        fn blocks_come_back_as_they_came(
            blocks in proptest::collection::vec(
                (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..2000)), 0..40),
        ) {
            let mut writer = BlockWriter::new(tempfile::tempfile().unwrap());
            for (offset, data) in &blocks {
                writer.write(*offset, data).unwrap();
            }
            prop_assert_eq!(read_all(writer.into_reader().unwrap()).unwrap(), blocks);
        }
    }

    /// A writer whose file is then changed from outside.
    fn tampered(change: impl FnOnce(&File)) -> io::Error {
        let file = tempfile::tempfile().unwrap();
        let other = file.try_clone().unwrap();
        let mut writer = BlockWriter::new(file);
        writer.write(0, &[1; 100]).unwrap();
        writer.write(512, &[2; 100]).unwrap();
        writer.flush().unwrap();
        change(&other);
        writer.into_reader().and_then(read_all).unwrap_err()
    }

    #[test]
    fn a_damaged_file_is_noticed() {
        let error = tampered(|file| file.set_len(200).unwrap());
        assert!(error.to_string().contains("200 of 232"), "{error}");
        for len in [101_u64, 1 << 60, u64::MAX] {
            let error = tampered(|file| file.write_all_at(&len.to_le_bytes(), 8).unwrap());
            assert!(error.to_string().contains("torn"), "{error}");
        }
        // Shorter: what follows is no header any more.
        let error = tampered(|file| file.write_all_at(&50_u64.to_le_bytes(), 8).unwrap());
        assert!(error.to_string().contains("torn"), "{error}");
    }
}
