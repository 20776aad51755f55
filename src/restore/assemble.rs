//! One raw disk per chain: the full image, then the changes in their order, all on local disk.
//!
//! Done for all disks before anything is created in Azure, so that a full file system or a damaged file costs nothing
//! there.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::blocks::BlockWriter;
use super::chain::Chain;
use super::saved::{SavedContent, SavedImage};
use super::staging::{Data, RawDisk, StagedImage, Staging};
use crate::notice::Notices;
use crate::private_folder::PrivateFile;
use crate::quantity::ByteSize;

/// Disks that are put together at the same time: local storage is the limit, not the processor.
const DISKS_AT_ONCE: usize = 4;

/// The images of one disk, taken out of the staging folder.
#[derive(Debug)]
pub(super) struct Parts {
    full: (Arc<SavedImage>, StagedImage),
    /// In the order in which they are applied.
    changes: Vec<(Arc<SavedImage>, StagedImage)>,
}

/// Takes the images of `chains` out of `staging`.
///
/// # Errors
///
/// All images that cannot be used, and why.
pub(super) fn take(staging: &mut Staging, chains: Vec<Chain>) -> Result<Vec<Parts>, Vec<String>> {
    let mut faults = Vec::new();
    let mut all = Vec::new();
    for chain in chains {
        let full = take_image(staging, chain.full, &mut faults);
        let changes: Vec<_> = chain
            .changes
            .into_iter()
            .filter_map(|image| take_image(staging, image, &mut faults))
            .collect();
        // Without one of them there is a fault.
        all.extend(full.map(|full| Parts { full, changes }));
    }
    if faults.is_empty() {
        Ok(all)
    } else {
        Err(faults)
    }
}

fn take_image(
    staging: &mut Staging,
    image: Arc<SavedImage>,
    faults: &mut Vec<String>,
) -> Option<(Arc<SavedImage>, StagedImage)> {
    let mut fault = |reason: &str| {
        faults.push(format!("{}: {reason}", image.label()));
        None
    };
    let Some(staged) = staging.take(&image.file) else {
        return fault("it did not come");
    };
    if let Some(reason) = staged.fault() {
        return fault(reason);
    }
    if staged.size() != image.size {
        return fault(&format!(
            "it came with {} bytes, the disk had {}",
            staged.size(),
            image.size
        ));
    }
    // Of a full image all-zero blocks are left out.
    let is_right = match image.content {
        SavedContent::Full => staged.received() <= image.data_bytes,
        SavedContent::Delta { .. } => staged.received() == image.data_bytes,
    };
    if !is_right {
        return fault(&format!(
            "{} bytes of data came, {} were read from the disk",
            staged.received(),
            image.data_bytes
        ));
    }
    Some((image, staged))
}

/// Makes a raw disk of each, in their order.
///
/// # Errors
///
/// Local storage that fails; cancelled. The others come to their end before this returns.
pub(super) async fn disks(
    parts: Vec<Parts>,
    cancel: &CancellationToken,
    notices: &Notices,
) -> Result<Vec<RawDisk>, Error> {
    let stop = cancel.child_token();
    let disks = stream::iter(parts).map(|parts| {
        let stopped = stop.clone();
        let stop = &stop;
        async move {
            let made = match spawn_blocking(move || disk(parts, &stopped)).await {
                Ok(made) => made,
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The runtime ends.
                Err(_) => Err(Error::Cancelled),
            };
            if made.is_err() {
                stop.cancel();
            }
            made
        }
    });
    let mut made = disks.buffered(DISKS_AT_ONCE);
    let mut disks = Vec::new();
    let mut failure = None;
    while let Some(result) = made.next().await {
        match result {
            Ok((disk, account)) => {
                notices.info(account);
                disks.push(disk);
            }
            // The one that failed by itself has cancelled the others.
            Err(error) if failure.as_ref().is_none_or(Error::is_cancelled) => failure = Some(error),
            Err(_) => {}
        }
    }
    failure.map_or(Ok(disks), Err)
}

/// The raw disk, and its line for the job log.
fn disk(parts: Parts, stop: &CancellationToken) -> Result<(RawDisk, String), Error> {
    let Parts { full, changes } = parts;
    let mut account = Account::default();
    let (image, staged) = full;
    let (name, full) = (image.disk.clone(), image.file.clone());
    let (file, data) = staged.into_parts();
    let mut disk = match data {
        Data::Disk(disk) => disk,
        Data::Blocks(blocks) => {
            let mut disk = RawDisk::create(file.sibling(&image.file), image.size)?;
            apply(&mut disk, &image, blocks, &file, stop, &mut account)?;
            disk
        }
    };
    let Some((newest, _)) = changes.last() else {
        return Ok((disk, format!("{name}: full image {full}")));
    };
    let (name, newest, count) = (newest.disk.clone(), newest.file.clone(), changes.len());
    for (image, staged) in changes {
        match staged.into_parts() {
            (file, Data::Blocks(blocks)) => {
                apply(&mut disk, &image, blocks, &file, stop, &mut account)?;
            }
            // Its document said so before, and was replaced by another.
            (file, Data::Disk(_)) => {
                let reason = "it was taken for a full image";
                return Err(Error::local(
                    "read staging file",
                    &file.shown(),
                    io::Error::other(reason),
                ));
            }
        }
    }
    disk.rename(file.sibling(&newest))?;
    let plural = if count == 1 { "" } else { "s" };
    let account = format!(
        "{name}: full image {full} and {count} image{plural} of changes, the last {newest}; cleared {}, written {}",
        ByteSize(account.cleared),
        ByteSize(account.written)
    );
    Ok((disk, account))
}

/// Facts for the disk's line in the job log.
#[derive(Default)]
struct Account {
    cleared: u64,
    written: u64,
}

/// Clears, then writes; the blocks are gone afterwards.
fn apply(
    disk: &mut RawDisk,
    image: &SavedImage,
    blocks: BlockWriter,
    file: &PrivateFile,
    stop: &CancellationToken,
    account: &mut Account,
) -> Result<(), Error> {
    let check = || {
        if stop.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    };
    disk.grow(image.size)?;
    if let SavedContent::Delta { cleared, .. } = &image.content {
        for &range in cleared {
            check()?;
            disk.clear(range)?;
            account.cleared += range.len();
        }
    }
    let failed = |source| Error::local("read staging file", &file.shown(), source);
    let mut blocks = blocks.into_reader().map_err(failed)?;
    while let Some((offset, data)) = blocks.next().map_err(failed)? {
        check()?;
        disk.write(offset, data)?;
        account.written += data.len() as u64;
    }
    // Not needed any more, and the next image may need the space.
    let removed = file.remove();
    removed.map_err(|source| Error::local("remove staging file", &file.shown(), source))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::staging::Form;
    use super::*;
    use crate::private_folder::PrivateFolder;
    use crate::range::ByteRange;

    const SECTOR: u64 = 512;

    /// An image: sectors by which the disk grows, sector ranges that are cleared, sectors that are written and with
    /// what. The last sector is written in any case.
    type Model = (u64, Vec<(u64, u64)>, Vec<(u64, u8)>);

    fn models() -> impl Strategy<Value = Vec<Model>> {
        let image = (
            0..8_u64,
            vec((0..48_u64, 1..9_u64), 0..4),
            vec((0..48_u64, 0..3_u8), 0..12),
        );
        vec(image, 1..6)
    }

    /// A folder `7` in `parent`.
    fn staging(parent: &Path, notices: Notices) -> Staging {
        let parent = PrivateFolder::open(parent).unwrap();
        Staging::new(parent, "7", false, notices)
    }

    /// Stages the image `number` of the chain, and does to `bytes` what it does to the disk.
    fn stage(
        staging: &mut Staging,
        number: usize,
        (grown, clears, writes): &Model,
        form: Form,
        bytes: &mut Vec<u8>,
    ) -> Arc<SavedImage> {
        bytes.resize(
            bytes.len() + usize::try_from((grown + 1) * SECTOR).unwrap(),
            0,
        );
        let sectors = bytes.len() as u64 / SECTOR;
        let file = format!("{number}_osdisk");
        let mut cleared: Vec<_> = clears
            .iter()
            .filter(|_| number > 0)
            .map(|(start, len)| (start % sectors, (start % sectors + len).min(sectors)))
            .collect();
        cleared.sort_unstable();
        let mut end = 0;
        cleared.retain(|range| {
            let is_disjoint = range.0 >= end;
            end = if is_disjoint { range.1 } else { end };
            is_disjoint
        });
        let mut fill = |start: u64, end: u64, byte| {
            let at = |sector| usize::try_from(sector * SECTOR).unwrap();
            bytes[at(start)..at(end)].fill(byte);
        };
        for (start, end) in &cleared {
            fill(*start, *end, 0);
        }
        staging.begin(&file, sectors * SECTOR, form).unwrap();
        let staged = staging.image_mut(&file).unwrap();
        for (sector, byte) in writes.iter().copied().chain([(sectors - 1, 9)]) {
            let sector = sector % sectors;
            staged.write(sector * SECTOR, &[byte; 512]).unwrap();
            fill(sector, sector + 1, byte);
        }
        staged.finish().unwrap();
        let range = |(start, end)| ByteRange::new(start * SECTOR, end * SECTOR).unwrap();
        Arc::new(SavedImage {
            job: "j".into(),
            file,
            disk: "disk d (OS disk)".into(),
            disk_unique_id: "u".into(),
            size: sectors * SECTOR,
            data_bytes: (writes.len() as u64 + 1) * SECTOR,
            content: match number {
                0 => SavedContent::Full,
                _ => SavedContent::Delta {
                    base_epoch: number as u64 - 1,
                    base_job: "j".into(),
                    cleared: cleared.into_iter().map(range).collect(),
                },
            },
        })
    }

    proptest! {
        #[test]
        fn a_chain_makes_the_bytes_that_the_disk_had(models in models(), full_known in any::<bool>()) {
            let folder = tempfile::tempdir().unwrap();
            let mut staging = staging(folder.path(), Notices::default());
            let mut bytes = Vec::new();
            let mut images = Vec::new();
            for (number, model) in models.iter().enumerate() {
                let form = if number == 0 && full_known { Form::Disk } else { Form::Blocks };
                images.push(stage(&mut staging, number, model, form, &mut bytes));
            }
            let changes = images.split_off(1);
            let chain = Chain { full: images.remove(0), changes };
            let last = chain.images().last().unwrap();
            let last = folder.path().join("7").join(&last.file);
            let parts = take(&mut staging, vec![chain]).unwrap();
            let stop = CancellationToken::new();
            let made = parts.into_iter().map(|parts| disk(parts, &stop));
            let made = made.collect::<Result<Vec<_>, _>>().unwrap();
            let (disk, account) = &made[0];
            prop_assert_eq!(disk.size(), bytes.len() as u64);
            let changes = match models.len() - 1 {
                0 => String::new(),
                1 => " and 1 image of changes, the last 1_osdisk;".into(),
                count => format!(" and {count} images of changes, the last {count}_osdisk;"),
            };
            let expected = format!("disk d (OS disk): full image 0_osdisk{changes}");
            prop_assert!(account.starts_with(&expected), "{account}");
            prop_assert!(fs::read(last).unwrap() == bytes);
            // The disk, and the mark of the folder.
            prop_assert_eq!(fs::read_dir(folder.path().join("7")).unwrap().count(), 2);
        }
    }

    #[tokio::test]
    async fn images_that_cannot_be_used_are_named_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut staging = staging(folder.path(), Notices::default());
        let mut bytes = Vec::new();
        let mut image = |number, form| {
            let model = (4, vec![], vec![(1, 1)]);
            stage(&mut staging, number, &model, form, &mut bytes)
        };
        let images = [Form::Disk, Form::Blocks, Form::Blocks]
            .into_iter()
            .enumerate();
        let mut images: Vec<_> = images.map(|(number, form)| image(number, form)).collect();
        // One did not come, and of one a block is lost on the way.
        staging.discard("0_osdisk");
        Arc::get_mut(&mut images[2]).unwrap().data_bytes += SECTOR;
        let changes = images.split_off(1);
        let chain = Chain {
            full: images.remove(0),
            changes,
        };
        let faults = take(&mut staging, vec![chain]).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("0_osdisk") && faults[0].contains("did not come"));
        assert!(faults[1].contains("2_osdisk") && faults[1].contains("1024 bytes of data came"));
    }

    #[tokio::test]
    async fn a_cancelled_job_stops_between_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let notices = Notices::default();
        let mut staging = staging(folder.path(), notices.clone());
        let mut bytes = Vec::new();
        let full = stage(
            &mut staging,
            0,
            &(4, vec![], vec![]),
            Form::Blocks,
            &mut bytes,
        );
        let chain = Chain {
            full,
            changes: vec![],
        };
        let parts = take(&mut staging, vec![chain]).unwrap();
        let cancel = CancellationToken::new();
        cancel.cancel();
        let error = disks(parts, &cancel, &notices).await.unwrap_err();
        assert!(error.is_cancelled(), "{error}");
    }
}
