//! The image that is moved: a sparse disk with a generated content that costs no memory and can be checked at any offset.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use bytes::Bytes;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Bytes of the disk, without the footer.
pub(crate) const DISK: u64 = 4 * GIB;
/// Bytes of it that are allocated, and in how many extents.
pub(crate) const ALLOCATED: u64 = GIB;
const EXTENTS: u64 = 543;
/// Bytes that changed since an earlier snapshot, and in how many ranges.
pub(crate) const CHANGED: u64 = 109 * MIB;
const CHANGES: u64 = 427;

/// Bytes after which the content repeats: no multiple of any request's length, so that a displaced request is noticed.
const PERIOD: usize = (16 << 20) + 4096 + 512;
/// An upload leaves zeros out in pieces of this size. Ranges that begin and end with one have no zeros sent with them.
const GRAIN: u64 = 64 * KIB;

/// What is allocated, in disk order.
pub(crate) fn extents() -> Vec<Range<u64>> {
    spread(DISK, ALLOCATED, EXTENTS)
}

/// What changed, in disk order; all of it is allocated.
pub(crate) fn changes() -> Vec<Range<u64>> {
    // Laid out on the allocated bytes as if they lay together, then moved to where those are; none is cut in two.
    let mut changes = Vec::new();
    let mut missing = CHANGED;
    for (number, extent) in (0..CHANGES).zip(extents()) {
        let fair = missing / (CHANGES - number);
        let len = (fair / GRAIN * GRAIN).min(extent.end - extent.start);
        changes.push(extent.start..extent.start + len);
        missing -= len;
    }
    if let Some(last) = changes.last_mut() {
        last.end += missing;
    }
    changes
}

/// `count` ranges of different lengths with `total` bytes in all, over the whole of `size`.
fn spread(size: u64, total: u64, count: u64) -> Vec<Range<u64>> {
    let slot = size / count / GRAIN * GRAIN;
    let mut random = Random(7);
    let weights: Vec<u64> = (0..count).map(|_| 1 + random.next() % 15).collect();
    let sum: u64 = weights.iter().sum();
    let mut missing = total;
    let mut ranges: Vec<Range<u64>> = (0..count)
        .zip(&weights)
        .map(|(number, weight)| {
            let len = (total * weight / sum / GRAIN * GRAIN).clamp(GRAIN, slot - GRAIN);
            missing -= len;
            number * slot..number * slot + len
        })
        .collect();
    for range in &mut ranges {
        let more = (slot - GRAIN - (range.end - range.start)).min(missing);
        range.end += more;
        missing -= more;
    }
    assert_eq!(missing, 0, "the ranges have room for all bytes");
    ranges
}

/// The bytes of a range of a disk with these extents, as slices of what is in memory.
pub(crate) fn bytes(extents: &[Range<u64>], range: Range<u64>) -> Vec<Bytes> {
    const ZEROS: &[u8] = &[0; 1 << 20];
    let (pattern, zeros) = (pattern(), Bytes::from_static(ZEROS));
    let mut slices = Vec::new();
    let mut at = range.start;
    let mut next = extents.partition_point(|extent| extent.end <= at);
    while at < range.end {
        let (source, start, end) = match extents.get(next) {
            Some(extent) if extent.start <= at => (pattern, at % PERIOD as u64, extent.end),
            Some(extent) => (&zeros, 0, extent.start),
            None => (&zeros, 0, range.end),
        };
        let start = usize::try_from(start).expect("less than the period");
        let missing = usize::try_from(range.end.min(end) - at).expect("fits in memory");
        let len = missing.min(source.len() - start);
        slices.push(source.slice(start..start + len));
        at += len as u64;
        next += usize::from(extents.get(next).is_some_and(|extent| extent.end == at));
    }
    slices
}

/// Makes a file the image of the disk.
pub(crate) fn write(file: &File) -> io::Result<()> {
    file.set_len(DISK)?;
    let extents = extents();
    for extent in &extents {
        let mut at = extent.start;
        for slice in bytes(&extents, extent.clone()) {
            file.write_all_at(&slice, at)?;
            at += slice.len() as u64;
        }
    }
    Ok(())
}

/// Whether `data` is what a disk with these extents holds at `offset`.
pub(crate) fn matches(extents: &[Range<u64>], offset: u64, data: &[u8]) -> bool {
    let mut rest = data;
    bytes(extents, offset..offset + data.len() as u64)
        .iter()
        .all(|slice| {
            let (head, tail) = rest.split_at(slice.len());
            rest = tail;
            head == slice
        })
}

fn pattern() -> &'static Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut random = Random(1);
        (0..PERIOD.div_ceil(8))
            .flat_map(|_| (random.next() | 1).to_le_bytes())
            .take(PERIOD)
            .collect::<Vec<_>>()
            .into()
    })
}

/// `SplitMix64`: repeatable, and good enough not to be compressible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
