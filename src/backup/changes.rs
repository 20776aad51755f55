//! From a page list to what is read of an image and what is only named as cleared.
//!
//! A list may have any number of ranges. Those that are cleared go into the configuration document, which must stay
//! readable, so only the largest are named there; the others are read, and arrive as the zeros that they are. That costs
//! bytes, never correctness: at restore a change is first cleared, then written, and what is read is always what the disk
//! held.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::azure::PageRanges;
use crate::range::ByteRange;
use crate::range_list::{Disordered, RangeList};

/// Images are made of sectors of this many bytes.
pub(super) const SECTOR: u64 = 512;

/// Cleared ranges that the document of one VM names at most. As text they take up to 31 bytes each; a restore accepts
/// documents of 16 MiB.
pub const MOST_CLEARED: usize = 250_000;

/// What is to be done to an older image, as ranges; also, without a base, what is to be read of an image.
#[derive(Debug)]
pub(super) struct RangeLists {
    pub(super) read: RangeList,
    /// Ascending, disjoint, neighbours joined. May overlap with `read`.
    pub(super) cleared: Vec<ByteRange>,
    /// Bytes that were listed as written.
    pub(super) written_bytes: u64,
    /// Bytes that were listed as cleared.
    pub(super) cleared_bytes: u64,
}

impl RangeLists {
    /// For an image of `size` bytes, of which `written` is allocated. What lies behind its end is the VHD's footer.
    pub(super) fn full(size: u64, written: RangeList) -> Result<Self, Disordered> {
        let listed = PageRanges {
            written,
            cleared: RangeList::new(),
        };
        Self::changes(size, listed, size, RangeList::new(), 0)
    }

    /// For an image of `size` bytes whose base has `base_size`: `listed` has changed, and of what the base does not have
    /// at all `allocated` is there. At most `most_cleared` ranges are named as cleared.
    pub(super) fn changes(
        size: u64,
        listed: PageRanges,
        base_size: u64,
        allocated: RangeList,
        most_cleared: usize,
    ) -> Result<Self, Disordered> {
        let disk = ByteRange::new(0, size);
        let within = |range: ByteRange| range.intersection(disk?);
        let common = ByteRange::new(0, size.min(base_size));
        let written = listed.written.iter();
        let changed: u64 = written
            .filter_map(|range| range.intersection(common?))
            .map(ByteRange::len)
            .sum();
        let added: u64 = allocated
            .iter()
            .filter_map(within)
            .map(ByteRange::len)
            .sum();
        let cleared_bytes = listed
            .cleared
            .iter()
            .filter_map(within)
            .map(ByteRange::len)
            .sum();

        let (cleared, surplus) = largest(listed.cleared, within, most_cleared)?;
        let written = listed.written.into_iter().filter_map(within);
        let mut read = RangeList::union(written, surplus)?;
        if !allocated.is_empty() {
            read = RangeList::union(read, allocated.into_iter().filter_map(within))?;
        }
        // The data must end where the disk does.
        if read.end() < size {
            let sector = ByteRange::new(read.end().max(size.saturating_sub(SECTOR)), size);
            read.append(sector)?;
        }
        Ok(Self {
            read,
            cleared,
            written_bytes: changed + added,
            cleared_bytes,
        })
    }
}

/// The `most` largest ranges of a list, and its other ones.
fn largest(
    list: RangeList,
    within: impl Fn(ByteRange) -> Option<ByteRange> + Copy,
    most: usize,
) -> Result<(Vec<ByteRange>, RangeList), Disordered> {
    // The lengths of the largest ones, the smallest of them on top.
    let mut lengths = BinaryHeap::new();
    for range in list.iter().filter_map(within) {
        lengths.push(Reverse(range.len()));
        if lengths.len() > most {
            lengths.pop();
        }
    }
    let least = lengths.peek().map_or(u64::MAX, |Reverse(least)| *least);
    // Of those that are as long as the shortest one, some do not belong to them.
    let mut equal = lengths.iter().filter(|Reverse(len)| *len == least).count();
    let mut largest = Vec::with_capacity(lengths.len());
    let mut others = RangeList::new();
    for range in list.into_iter().filter_map(within) {
        if range.len() > least {
            largest.push(range);
        } else if range.len() == least && equal > 0 {
            equal -= 1;
            largest.push(range);
        } else {
            others.push(range)?;
        }
    }
    Ok((largest, others))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// First byte, end, and whether it was written.
    type Listed = (u64, u64, bool);

    const WRITTEN: bool = true;
    const CLEARED: bool = false;

    fn page_ranges(listed: &[Listed]) -> PageRanges {
        let of = |kind| {
            let of_kind = listed.iter().filter(|(.., written)| *written == kind);
            RangeList::of(of_kind.map(|&(start, end, _)| ByteRange::new(start, end).unwrap()))
                .unwrap()
        };
        PageRanges {
            written: of(WRITTEN),
            cleared: of(CLEARED),
        }
    }

    fn lists(size: u64, most_cleared: usize, listed: &[Listed]) -> RangeLists {
        let listed = page_ranges(listed);
        RangeLists::changes(size, listed, size, RangeList::new(), most_cleared).unwrap()
    }

    fn pairs<'a>(ranges: impl IntoIterator<Item = ByteRange> + 'a) -> Vec<(u64, u64)> {
        let ranges = ranges.into_iter();
        ranges.map(|range| (range.start(), range.end())).collect()
    }

    #[test]
    fn the_footer_is_cut_off_and_the_last_sector_is_always_read() {
        let read = |listed: &[_]| pairs(&lists(8192, MOST_CLEARED, listed).read);
        assert_eq!(read(&[]), [(7680, 8192)]);
        assert_eq!(read(&[(8192, 8704, WRITTEN)]), [(7680, 8192)]);
        assert_eq!(read(&[(7168, 8704, WRITTEN)]), [(7168, 8192)]);
        assert_eq!(
            read(&[(0, 512, WRITTEN), (512, 1024, CLEARED)]),
            [(0, 512), (7680, 8192)]
        );
        let cleared = lists(8192, MOST_CLEARED, &[(4096, 8704, CLEARED)]);
        assert_eq!(pairs(cleared.cleared), [(4096, 8192)]);
        assert_eq!(pairs(cleared.read), [(7680, 8192)]);
        let full = RangeLists::full(8192, page_ranges(&[(0, 512, WRITTEN)]).written).unwrap();
        assert_eq!(pairs(full.read), [(0, 512), (7680, 8192)]);
        assert_eq!((full.written_bytes, full.cleared_bytes), (512, 0));
    }

    #[test]
    fn neighbours_of_a_kind_are_one_range() {
        let lists = lists(
            8192,
            MOST_CLEARED,
            &[
                (0, 512, CLEARED),
                (512, 1024, CLEARED),
                (1024, 1536, WRITTEN),
                (1536, 2048, CLEARED),
                (2048, 2560, WRITTEN),
                (2560, 3072, WRITTEN),
            ],
        );
        assert_eq!(pairs(lists.cleared), [(0, 1024), (1536, 2048)]);
        assert_eq!(
            pairs(lists.read),
            [(1024, 1536), (2048, 3072), (7680, 8192)]
        );
        assert_eq!((lists.written_bytes, lists.cleared_bytes), (1536, 1536));
    }

    #[test]
    fn the_smallest_cleared_ranges_are_read_instead() {
        let listed: Vec<_> = [(0, 1), (2, 5), (6, 7), (8, 9), (10, 14)]
            .map(|(start, end)| (start * 512, end * 512, CLEARED))
            .into();
        let lists = lists(8192, 3, &listed);
        assert_eq!(pairs(lists.cleared), [(0, 512), (1024, 2560), (5120, 7168)]);
        assert_eq!(
            pairs(lists.read),
            [(3072, 3584), (4096, 4608), (7680, 8192)]
        );
    }

    #[test]
    fn ten_million_ranges_are_read_as_they_were_listed_in_little_memory() {
        const COUNT: u64 = 10_000_000;
        let mut listed = PageRanges::default();
        for number in 0..COUNT {
            let start = number * 8192;
            let range = ByteRange::new(start, start + 512 * (1 + number % 7)).unwrap();
            let kind = match number % 3 {
                0 => &mut listed.written,
                _ => &mut listed.cleared,
            };
            kind.push(range).unwrap();
        }
        let written = (listed.written.len(), listed.written.bytes());
        let cleared = listed.cleared.bytes();
        assert!(listed.written.memory() + listed.cleared.memory() < 32 << 20);
        let lists = RangeLists::changes(1 << 45, listed, 1 << 45, RangeList::new(), 1000).unwrap();
        assert_eq!(lists.cleared.len(), 1000);
        assert!(lists.cleared.iter().all(|range| range.len() == 7 * 512));
        let named = 1000 * 7 * 512;
        // Each is read by itself, and the last sector.
        assert_eq!(lists.read.len() as u64, COUNT - 1000 + 1);
        assert_eq!(lists.read.bytes(), written.1 + cleared - named + 512);
        assert!(lists.read.memory() < 32 << 20);
        assert!(written.0 > 3_000_000);
    }

    #[test]
    fn what_is_allocated_in_the_grown_part_is_read_whether_listed_as_changed_or_not() {
        let listed = page_ranges(&[
            (0, 512, WRITTEN),
            (3584, 5120, WRITTEN),
            (6144, 6656, CLEARED),
        ]);
        let allocated = page_ranges(&[(4096, 5632, WRITTEN), (7168, 8704, WRITTEN)]).written;
        let lists = RangeLists::changes(8192, listed, 4096, allocated, 10).unwrap();
        assert_eq!(pairs(lists.read), [(0, 512), (3584, 5632), (7168, 8192)]);
        assert_eq!(pairs(lists.cleared), [(6144, 6656)]);
        assert_eq!(lists.written_bytes, 512 + 512 + 1536 + 1024);
    }

    proptest! {
        #[test]
        fn whatever_the_bound_every_change_is_covered_and_nothing_else(
            mut edges in proptest::collection::btree_set(0u64..=129, 0..60),
            kinds in proptest::collection::vec(any::<bool>(), 30),
            size in 1u64..=128,
            most_cleared in 0usize..10,
        ) {
            if edges.len() % 2 == 1 {
                edges.pop_last();
            }
            let edges: Vec<u64> = edges.into_iter().map(|page| page * 512).collect();
            let size = size * 512;
            let listed: Vec<Listed> = edges
                .chunks(2)
                .zip(kinds)
                .map(|(edge, written)| (edge[0], edge[1], written))
                .collect();
            let lists = lists(size, most_cleared, &listed);
            prop_assert!(lists.cleared.len() <= most_cleared);
            prop_assert_eq!(lists.read.end(), size);
            prop_assert!(lists.cleared.windows(2).all(|pair| pair[0].end() < pair[1].start()));
            let least_named = lists.cleared.iter().map(|range| range.len()).min();
            let read: Vec<_> = lists.read.iter().collect();
            let within = |ranges: &[ByteRange], sector| {
                ranges.iter().any(|r| r.start() <= sector && sector < r.end())
            };
            for sector in (0..size).step_by(512) {
                let listed = listed.iter().find(|(start, end, _)| *start <= sector && sector < *end);
                let (read, cleared) = (within(&read, sector), within(&lists.cleared, sector));
                let last = sector + 512 == size;
                match listed {
                    Some((.., WRITTEN)) => prop_assert!(read && !cleared),
                    Some((start, end, CLEARED)) => {
                        prop_assert!(read != cleared || last);
                        let longer = least_named.is_some_and(|least| (end - start).min(size - start) > least);
                        prop_assert!(cleared || !longer, "one of the largest is named");
                    }
                    None => prop_assert!(!cleared && read == last),
                }
            }
        }
    }
}
