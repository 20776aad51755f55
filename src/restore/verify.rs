//! An uploaded disk is read back and compared with its local image (`verify=yes`).

use std::fs::File;

use tokio_util::sync::CancellationToken;

use super::Error;
use super::disk::ACCESS_DURATION;
use super::plan::NewDisk;
use super::sparse::SparseReader;
use crate::azure::{Access, Azure, PageBlob};
use crate::backup::ExportedImage;
use crate::digests::{ImageHasher, Segments};
use crate::notice::{Notices, some_of};
use crate::pipeline::{ImageReader, Limits, ReadQueue, ZeroBlocks};
use crate::quantity::ByteSize;

/// What is not zero counts, sector by sector ([`ImageHasher`]).
const SECTOR: u32 = 512;

/// Bytes of a block that is compared at a time.
const BLOCK: usize = 1 << 20;

/// Reads `disk` back through an access of its own, which is given back in every outcome, and compares its allocated ranges with
/// `image`; what is not allocated must be zeros there.
///
/// # Errors
///
/// A difference, with its place; Azure's refusal; a local file that cannot be read.
pub(super) async fn verify(
    azure: &Azure,
    disk: &NewDisk,
    image: File,
    limits: Limits,
    stop: &CancellationToken,
    notices: &Notices,
) -> Result<(), Error> {
    let label = disk.label();
    let grant = azure
        .grant(&disk.id, Access::Read, ACCESS_DURATION)
        .await
        .map_err(|source| Error::azure(format!("open {label} for reading it back"), source))?;
    let both = async {
        tokio::try_join!(
            Box::pin(of_disk(grant.page_blob(), disk, limits, stop)),
            of_file(image, disk),
        )
    };
    let both = stop.run_until_cancelled(both).await;
    let revoked = grant.revoke().await;
    let (there, (here, bytes)) = both.ok_or(Error::Cancelled)??;
    revoked
        .map_err(|source| Error::azure(format!("close {label} after reading it back"), source))?;
    let differences = there.differences(&here, disk.size);
    if differences.is_empty() {
        notices.info(format!(
            "{label}: read back, {} of data are those of its image",
            ByteSize(bytes)
        ));
        return Ok(());
    }
    let ranges = differences.into_iter().map(|range| range.to_string());
    Err(Error::Mismatch {
        what: label,
        reason: format!(
            "after the upload its bytes are not those of its image, in {}",
            some_of(ranges)
        ),
    })
}

async fn of_disk(
    blob: PageBlob,
    disk: &NewDisk,
    limits: Limits,
    stop: &CancellationToken,
) -> Result<Segments, Error> {
    let (_, full) = ExportedImage::open_full(blob, disk.label(), Some(disk.size))
        .await
        .map_err(|source| Error::reopened(disk.label(), source))?;
    let queue = ReadQueue::new(limits, stop);
    let mut reader = ImageReader::new(queue.push(full.plan), disk.size, ZeroBlocks::Skip);
    let mut hasher = ImageHasher::new(disk.size);
    let mut buffer = vec![0; BLOCK];
    while let Some(block) = reader
        .read_block(&mut buffer)
        .await
        .map_err(|source| Error::read_back(disk.label(), source))?
    {
        hasher.update(block.offset, &buffer[..block.len]);
    }
    Ok(hasher.segments(ZeroBlocks::Skip))
}

/// With the bytes of its data.
async fn of_file(image: File, disk: &NewDisk) -> Result<(Segments, u64), Error> {
    let mut pieces = SparseReader::new(image, disk.size, SECTOR);
    let mut hasher = ImageHasher::new(disk.size);
    while let Some((offset, bytes)) = pieces
        .next()
        .await
        .map_err(|source| Error::local("read image", disk.id.name().as_ref(), source))?
    {
        hasher.update(offset, bytes);
    }
    Ok((hasher.segments(ZeroBlocks::Skip), hasher.taken()))
}
