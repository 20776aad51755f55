//! From a page list to what is read of an image and what is only named as cleared, in bounded memory.
//!
//! A list may have any number of ranges. Those that are cleared go into the configuration document, which must stay
//! readable, so only the largest are named there; the others are read, and arrive as the zeros that they are. Those that
//! are read stand in memory, so beyond a bound neighbours are read together with what lies between them. Both cost bytes,
//! never correctness: at restore a change is first cleared, then written, and what is read is always what the disk held.

use crate::azure::{PageRange, PageRangeKind};
use crate::range::ByteRange;

/// Images are made of sectors of this many bytes.
pub(super) const SECTOR: u64 = 512;

/// Cleared ranges that the document of one VM names at most. As text they take up to 31 bytes each; a restore accepts
/// documents of 16 MiB.
pub const MOST_CLEARED: usize = 250_000;

/// Ranges of one disk that are read at most; they take 16 bytes each.
const MOST_READ: usize = 1 << 20;

/// What is to be done to an older image, as ranges; also, without a base, what is to be read of an image.
#[derive(Debug)]
pub(super) struct RangeLists {
    /// Size of the disk in bytes; what lies behind it is the VHD's footer.
    size: u64,
    /// Where the part begins that the disk has grown by since its base.
    grown_from: u64,
    most_read: usize,
    most_cleared: usize,
    /// Ascending and disjoint, neighbours joined.
    pub(super) read: Vec<ByteRange>,
    /// Likewise. May overlap with `read`.
    pub(super) cleared: Vec<ByteRange>,
    /// Bytes that were listed as written.
    pub(super) written_bytes: u64,
    /// Bytes that were listed as cleared.
    pub(super) cleared_bytes: u64,
}

impl RangeLists {
    pub(super) fn new(size: u64, most_cleared: usize) -> Self {
        Self {
            size,
            grown_from: size,
            most_read: MOST_READ,
            most_cleared,
            read: Vec::new(),
            cleared: Vec::new(),
            written_bytes: 0,
            cleared_bytes: 0,
        }
    }

    /// The base has `grown_from` bytes only: from there on [`add_allocated`](Self::add_allocated) counts as written.
    pub(super) fn grown_from(self, grown_from: u64) -> Self {
        Self { grown_from, ..self }
    }

    /// Takes the next entry of a list, which is ascending and disjoint.
    pub(super) fn add(&mut self, page: PageRange) {
        let Some(range) = ByteRange::new(page.range.start(), page.range.end().min(self.size))
        else {
            return;
        };
        match page.kind {
            PageRangeKind::Written => {
                self.written_bytes += range
                    .end()
                    .min(self.grown_from)
                    .saturating_sub(range.start());
                push_joined(&mut self.read, range);
                self.bound_read();
            }
            PageRangeKind::Cleared => {
                self.cleared_bytes += range.len();
                push_joined(&mut self.cleared, range);
                // Not at once: each time costs a walk over all.
                if self.cleared.len() / 2 > self.most_cleared.max(1024) {
                    self.bound_cleared();
                }
            }
        }
    }

    /// Takes the next entry of the list of what is allocated in the grown part, after the list of changes, with which it
    /// may overlap.
    pub(super) fn add_allocated(&mut self, range: ByteRange) {
        let Some(range) = ByteRange::new(range.start(), range.end().min(self.size)) else {
            return;
        };
        self.written_bytes += range.len();
        self.read.push(range);
        if self.read.len() > self.most_read {
            self.unite();
        }
    }

    /// At the end of the list: keeps the bounds, and adds the last sector, so that the data ends where the disk does.
    pub(super) fn finish(mut self) -> Self {
        self.bound_cleared();
        self.unite();
        if self.read.last().is_none_or(|last| last.end() < self.size) {
            // Smaller than a sector only if the footer lies; then the plan is the whole image.
            self.read
                .extend(ByteRange::new(self.size.saturating_sub(SECTOR), self.size));
        }
        self
    }

    /// Leaves the largest cleared ranges; the others are read.
    fn bound_cleared(&mut self) {
        let Some(surplus) = self.cleared.len().checked_sub(self.most_cleared) else {
            return;
        };
        if surplus == 0 {
            return;
        }
        let mut lengths: Vec<u64> = self.cleared.iter().map(|range| range.len()).collect();
        // Of those that are as long as the longest surplus one, some stay.
        let (shorter, &mut limit, _) = lengths.select_nth_unstable(surplus - 1);
        let mut equal = surplus - shorter.iter().filter(|&&length| length < limit).count();
        self.read.extend(self.cleared.extract_if(.., |range| {
            let taken = range.len() < limit || range.len() == limit && equal > 0;
            if taken && range.len() == limit {
                equal -= 1;
            }
            taken
        }));
        self.unite();
    }

    /// Makes one list of two ascending runs, which may overlap.
    fn unite(&mut self) {
        self.read.sort();
        join(&mut self.read, 0);
        self.bound_read();
    }

    /// Joins the ranges that are nearest to each other until half of the bound is left.
    fn bound_read(&mut self) {
        if self.read.len() <= self.most_read {
            return;
        }
        let mut gaps: Vec<u64> = self
            .read
            .windows(2)
            .map(|pair| gap(pair[0], pair[1]))
            .collect();
        let surplus = (self.read.len() - self.most_read / 2).min(gaps.len());
        let (_, &mut widest, _) = gaps.select_nth_unstable(surplus - 1);
        join(&mut self.read, widest);
    }
}

/// Joins neighbours with a gap of up to `widest` bytes, and what lies within others.
fn join(ranges: &mut Vec<ByteRange>, widest: u64) {
    ranges.dedup_by(|next, last| {
        let joined = (gap(*last, *next) <= widest)
            .then(|| ByteRange::new(last.start(), next.end().max(last.end())))
            .flatten();
        if let Some(joined) = joined {
            *last = joined;
        }
        joined.is_some()
    });
}

fn push_joined(ranges: &mut Vec<ByteRange>, next: ByteRange) {
    match ranges.last_mut() {
        Some(last) if last.end() == next.start() => {
            if let Some(joined) = ByteRange::new(last.start(), next.end()) {
                *last = joined;
            }
        }
        Some(_) | None => ranges.push(next),
    }
}

/// Bytes between two ranges in order.
fn gap(last: ByteRange, next: ByteRange) -> u64 {
    next.start().saturating_sub(last.end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::PageRangeKind::{Cleared, Written};
    use super::*;

    fn lists(size: u64, most: (usize, usize), listed: &[(u64, u64, PageRangeKind)]) -> RangeLists {
        let mut lists = RangeLists::new(size, most.1);
        lists.most_read = most.0;
        for &(start, end, kind) in listed {
            let range = ByteRange::new(start, end).unwrap();
            lists.add(PageRange { range, kind });
        }
        lists.finish()
    }

    fn pairs(ranges: &[ByteRange]) -> Vec<(u64, u64)> {
        ranges.iter().map(|r| (r.start(), r.end())).collect()
    }

    const FREE: (usize, usize) = (MOST_READ, MOST_CLEARED);

    #[test]
    fn the_footer_is_cut_off_and_the_last_sector_is_always_read() {
        let read = |listed: &[_]| pairs(&lists(8192, FREE, listed).read);
        assert_eq!(read(&[]), [(7680, 8192)]);
        assert_eq!(read(&[(8192, 8704, Written)]), [(7680, 8192)]);
        assert_eq!(read(&[(7168, 8704, Written)]), [(7168, 8192)]);
        assert_eq!(
            read(&[(0, 512, Written), (512, 1024, Cleared)]),
            [(0, 512), (7680, 8192)]
        );
        let cleared = lists(8192, FREE, &[(4096, 8704, Cleared)]);
        assert_eq!(pairs(&cleared.cleared), [(4096, 8192)]);
        assert_eq!(pairs(&cleared.read), [(7680, 8192)]);
    }

    #[test]
    fn neighbours_of_a_kind_are_one_range() {
        let lists = lists(
            8192,
            FREE,
            &[
                (0, 512, Cleared),
                (512, 1024, Cleared),
                (1024, 1536, Written),
                (1536, 2048, Cleared),
                (2048, 2560, Written),
                (2560, 3072, Written),
            ],
        );
        assert_eq!(pairs(&lists.cleared), [(0, 1024), (1536, 2048)]);
        assert_eq!(
            pairs(&lists.read),
            [(1024, 1536), (2048, 3072), (7680, 8192)]
        );
        assert_eq!((lists.written_bytes, lists.cleared_bytes), (1536, 1536));
    }

    #[test]
    fn the_smallest_cleared_ranges_are_read_instead() {
        let listed: Vec<_> = [(0, 1), (2, 5), (6, 7), (8, 9), (10, 14)]
            .map(|(start, end)| (start * 512, end * 512, Cleared))
            .into();
        let lists = lists(8192, (MOST_READ, 3), &listed);
        assert_eq!(
            pairs(&lists.cleared),
            [(1024, 2560), (4096, 4608), (5120, 7168)]
        );
        assert_eq!(pairs(&lists.read), [(0, 512), (3072, 3584), (7680, 8192)]);
    }

    #[test]
    fn millions_of_ranges_stay_within_the_bounds() {
        let mut lists = RangeLists::new(1 << 45, 1000);
        lists.most_read = 5000;
        for number in 0..3_000_000_u64 {
            let start = number * 4096;
            let kind = if number.is_multiple_of(3) {
                Written
            } else {
                Cleared
            };
            let range = ByteRange::new(start, start + 512 * (1 + number % 7)).unwrap();
            lists.add(PageRange { range, kind });
            assert!(lists.read.len() <= 5001 && lists.cleared.len() <= 2050);
        }
        let lists = lists.finish();
        assert_eq!(lists.cleared.len(), 1000);
        assert!(lists.cleared.iter().all(|range| range.len() == 7 * 512));
        assert!(lists.read.len() <= 5001);
    }

    #[test]
    fn what_is_allocated_in_the_grown_part_is_read_whether_listed_as_changed_or_not() {
        let range = |start, end| ByteRange::new(start, end).unwrap();
        let mut lists = RangeLists::new(8192, 10).grown_from(4096);
        for (start, end, kind) in [
            (0, 512, Written),
            (3584, 5120, Written),
            (6144, 6656, Cleared),
        ] {
            let range = range(start, end);
            lists.add(PageRange { range, kind });
        }
        lists.add_allocated(range(4096, 5632));
        lists.add_allocated(range(7168, 8704));
        let lists = lists.finish();
        assert_eq!(pairs(&lists.read), [(0, 512), (3584, 5632), (7168, 8192)]);
        assert_eq!(pairs(&lists.cleared), [(6144, 6656)]);
        assert_eq!(lists.written_bytes, 512 + 512 + 1536 + 1024);

        let mut lists = RangeLists::new(1 << 40, 0).grown_from(0);
        lists.most_read = 1000;
        for number in 0..50_000 {
            lists.add_allocated(range(number * 4096, number * 4096 + 512));
            assert!(lists.read.len() <= 1000);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_bounds_every_change_is_covered(
            mut edges in proptest::collection::btree_set(0u64..=129, 0..60),
            kinds in proptest::collection::vec(any::<bool>(), 30),
            size in 1u64..=128,
            most in (1usize..20, 0usize..10),
        ) {
            if edges.len() % 2 == 1 {
                edges.pop_last();
            }
            let edges: Vec<u64> = edges.into_iter().map(|page| page * 512).collect();
            let size = size * 512;
            let listed: Vec<_> = edges
                .chunks(2)
                .zip(kinds)
                .map(|(edge, written)| (edge[0], edge[1], if written { Written } else { Cleared }))
                .collect();
            let lists = lists(size, most, &listed);
            prop_assert!(lists.cleared.len() <= most.1);
            prop_assert!(lists.read.len() <= most.0 + 1);
            prop_assert_eq!(lists.read.last().unwrap().end(), size);
            for ranges in [&lists.read, &lists.cleared] {
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end() < pair[1].start()
                    || pair[0].end() == pair[1].start() && pair[1].end() == size));
            }
            let within = |ranges: &[ByteRange], sector| {
                ranges.iter().any(|r| r.start() <= sector && sector < r.end())
            };
            for sector in (0..size).step_by(512) {
                let listed = listed.iter().find(|(start, end, _)| *start <= sector && sector < *end);
                let (read, cleared) = (within(&lists.read, sector), within(&lists.cleared, sector));
                match listed {
                    Some((_, _, Written)) => prop_assert!(read && !cleared),
                    Some((_, _, Cleared)) => prop_assert!(read || cleared),
                    // Read only as a gap, or as the last sector.
                    None => prop_assert!(!cleared),
                }
            }
        }
    }
}
