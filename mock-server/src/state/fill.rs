//! A new disk's content from the pieces that a scenario lists.
use super::{
    content::{Content, Source},
    seed::problem,
};
use crate::{Error, scenario};
use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

/// Writes one piece.
pub(super) fn fill(
    content: &mut Content,
    piece: &scenario::Content,
    at: &str,
) -> Result<(), Error> {
    let size = content.len();
    let aligned = |offset: u64, len: u64| {
        let inside = offset.checked_add(len).is_some_and(|end| end <= size);
        if offset.is_multiple_of(512) && len.is_multiple_of(512) && inside {
            Ok(offset..offset + len)
        } else {
            Err(problem(
                at.to_owned(),
                format!(
                    "{offset}+{len} is not in multiples of 512 bytes inside a disk of {size} bytes"
                ),
            ))
        }
    };
    match piece {
        scenario::Content::Pattern {
            seed,
            offset,
            length,
        } => {
            content.write(aligned(offset.0, length.0)?, Source::Pattern(*seed));
        }
        scenario::Content::Zeros { offset, length } => {
            content.write(aligned(offset.0, length.0)?, Source::Zeros);
        }
        scenario::Content::Ranges {
            seed,
            offset,
            count,
            length,
            stride,
        } => {
            let last = count
                .saturating_sub(1)
                .checked_mul(stride.0)
                .and_then(|at| at.checked_add(offset.0));
            let last =
                last.ok_or_else(|| problem(at.to_owned(), "the last range is too far away"))?;
            aligned(last, length.0)?;
            if *count > 1 && stride.0 < length.0 {
                return Err(problem(format!("{at}.stride"), "the ranges overlap"));
            }
            for number in 0..*count {
                content.write(
                    aligned(offset.0 + number * stride.0, length.0)?,
                    Source::Pattern(*seed),
                );
            }
        }
        scenario::Content::File { path, offset } => {
            let fault = |source| Error::File {
                path: path.clone(),
                source,
            };
            let file = Arc::new(File::open(path).map_err(fault)?);
            let len = file.metadata().map_err(fault)?.len();
            let range = aligned(offset.0, len.next_multiple_of(512))?;
            map_file(content, path, &file, len, range.start)?;
        }
    }
    Ok(())
}

/// Maps a file's blocks that are not all zero.
fn map_file(
    content: &mut Content,
    path: &Path,
    file: &Arc<File>,
    len: u64,
    to: u64,
) -> Result<(), Error> {
    const BLOCK: u64 = 64 << 10;
    let fault = |source: io::Error| Error::File {
        path: path.to_owned(),
        source,
    };
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(usize::MAX)];
    let mut at = 0;
    while at < len {
        let here = BLOCK.min(len - at);
        let bytes = &mut block[..usize::try_from(here).unwrap_or(usize::MAX)];
        file.read_exact_at(bytes, at).map_err(fault)?;
        if bytes.iter().any(|byte| *byte != 0) {
            if here.is_multiple_of(512) {
                content.write(to + at..to + at + here, Source::File(Arc::clone(file), at));
            } else {
                // The file ends inside a page: the rest of the page is zero.
                let mut last = bytes.to_vec();
                last.resize(
                    usize::try_from(here.next_multiple_of(512)).unwrap_or(usize::MAX),
                    0,
                );
                content.write(
                    to + at..to + at + here.next_multiple_of(512),
                    Source::Memory(last.into()),
                );
            }
        }
        at += here;
    }
    Ok(())
}
