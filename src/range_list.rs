//! Very many ranges of a disk in little memory.
//!
//! A range is kept as the gap before it and its length, each as a number of variable length: two to five bytes instead
//! of sixteen for what a file system allocates, and 64 MiB at most for ten million ranges, however they lie on the
//! largest disk that Azure has (64 TiB), of one kind or of two. A list is only ever appended to and read from its
//! beginning, and gives its memory back while it is consumed.

use std::{fmt, slice, vec};

use crate::range::ByteRange;

/// Whole sectors of this many bytes take less than other numbers.
const SECTOR: u64 = 512;

/// Memory is taken in pieces of this many bytes, so that a list neither moves nor doubles when it grows.
const BLOCK: usize = 4 * 1024;

/// What a range takes at most, in bytes: twice 64 bits and a flag, seven bits to a byte.
const LONGEST: usize = 20;

/// A range that begins before the one that it should follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("range {range} begins before range {last}, which it should follow")]
pub struct Disordered {
    /// The offending range.
    pub range: ByteRange,
    /// The one before it.
    pub last: ByteRange,
}

/// Ascending, disjoint ranges; no two of them touch.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeList {
    /// All ranges but the last one.
    blocks: Vec<Vec<u8>>,
    /// End of the last range in `blocks`.
    packed_end: u64,
    /// It may still grow.
    last: Option<ByteRange>,
    len: usize,
    bytes: u64,
}

impl RangeList {
    /// A list without ranges.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A list of `ranges`, which ascend.
    ///
    /// # Errors
    ///
    /// They do not.
    pub fn of(ranges: impl IntoIterator<Item = ByteRange>) -> Result<Self, Disordered> {
        let mut list = Self::new();
        list.append(ranges)?;
        Ok(list)
    }

    /// All that lies in `first` or `second`, both of which ascend.
    ///
    /// # Errors
    ///
    /// One of them does not.
    pub fn union(
        first: impl IntoIterator<Item = ByteRange>,
        second: impl IntoIterator<Item = ByteRange>,
    ) -> Result<Self, Disordered> {
        let mut first = first.into_iter().peekable();
        let mut second = second.into_iter().peekable();
        let mut all = Self::new();
        loop {
            let range = match (first.peek(), second.peek()) {
                (Some(one), Some(other)) if other.start() < one.start() => second.next(),
                (Some(_), _) => first.next(),
                (None, _) => second.next(),
            };
            match range {
                Some(range) => all.push(range)?,
                None => return Ok(all),
            }
        }
    }

    /// Adds a range at the end; joins it to the last one if they touch or overlap.
    ///
    /// # Errors
    ///
    /// It begins before the last one.
    pub fn push(&mut self, range: ByteRange) -> Result<(), Disordered> {
        match self.last {
            Some(last) if range.start() < last.start() => return Err(Disordered { range, last }),
            Some(last) if range.start() <= last.end() => {
                self.bytes += range.end().saturating_sub(last.end());
                self.last = ByteRange::new(last.start(), last.end().max(range.end()));
            }
            before => {
                if let Some(before) = before {
                    self.pack(before);
                }
                self.len += 1;
                // Disjoint ranges below 2^64 cannot add up to more than that.
                self.bytes += range.len();
                self.last = Some(range);
            }
        }
        Ok(())
    }

    /// Adds `ranges` at the end, as [`push`](Self::push) does.
    ///
    /// # Errors
    ///
    /// One begins before the one before it.
    pub fn append(
        &mut self,
        ranges: impl IntoIterator<Item = ByteRange>,
    ) -> Result<(), Disordered> {
        ranges.into_iter().try_for_each(|range| self.push(range))
    }

    /// The ranges, from the first one on.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Ranges::new(self.blocks.iter(), self.last)
    }

    /// How many ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all ranges.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// End of the last range; 0 if there is none.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.last.map_or(0, ByteRange::end)
    }

    /// Bytes of memory that the ranges take.
    #[must_use]
    pub fn memory(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Vec::capacity).sum();
        blocks + self.blocks.capacity() * size_of::<Vec<u8>>()
    }

    fn pack(&mut self, range: ByteRange) {
        let room = |block: &&mut Vec<u8>| block.len() + LONGEST <= BLOCK;
        if self.blocks.last_mut().filter(room).is_none() {
            // Most lists are short, so the first block begins small.
            let capacity = if self.blocks.is_empty() { 0 } else { BLOCK };
            self.blocks.push(Vec::with_capacity(capacity));
        }
        if let Some(block) = self.blocks.last_mut() {
            pack_number(block, range.start() - self.packed_end);
            pack_number(block, range.len());
        }
        self.packed_end = range.end();
    }
}

/// Seven bits to a byte, least ones first, the eighth says that more follow. The very first bit tells bytes from sectors.
fn pack_number(block: &mut Vec<u8>, number: u64) {
    let mut code = if number.is_multiple_of(SECTOR) {
        u128::from(number / SECTOR) << 1
    } else {
        u128::from(number) << 1 | 1
    };
    loop {
        let [low, ..] = code.to_le_bytes();
        code >>= 7;
        if code == 0 {
            block.push(low & 0x7f);
            return;
        }
        block.push(low | 0x80);
    }
}

/// The number at `at`, which moves behind it; `None` at the end of the block.
fn unpack_number(block: &[u8], at: &mut usize) -> Option<u64> {
    let mut code = 0_u128;
    for shift in (0..).step_by(7) {
        let byte = *block.get(*at)?;
        *at += 1;
        code |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let number = u64::try_from(code >> 1).ok()?;
    if code & 1 == 0 {
        number.checked_mul(SECTOR)
    } else {
        Some(number)
    }
}

/// The ranges of a list that stays.
pub type Iter<'a> = Ranges<slice::Iter<'a, Vec<u8>>, &'a Vec<u8>>;

/// The ranges of a list that goes; its memory goes with them.
pub type IntoIter = Ranges<vec::IntoIter<Vec<u8>>, Vec<u8>>;

/// Ranges out of blocks.
#[derive(Debug)]
pub struct Ranges<I, B> {
    blocks: I,
    block: Option<B>,
    /// Where in `block` the next range is.
    at: usize,
    /// End of the range before it.
    end: u64,
    last: Option<ByteRange>,
}

impl<I: Iterator<Item = B>, B: AsRef<[u8]>> Ranges<I, B> {
    fn new(mut blocks: I, last: Option<ByteRange>) -> Self {
        Self {
            block: blocks.next(),
            blocks,
            at: 0,
            end: 0,
            last,
        }
    }
}

impl<I: Iterator<Item = B>, B: AsRef<[u8]>> Iterator for Ranges<I, B> {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        while let Some(block) = &self.block {
            let block = block.as_ref();
            if let Some(gap) = unpack_number(block, &mut self.at)
                && let Some(len) = unpack_number(block, &mut self.at)
                && let Some(range) = ByteRange::with_len(self.end + gap, len)
            {
                self.end = range.end();
                return Some(range);
            }
            self.block = self.blocks.next();
            self.at = 0;
        }
        self.last.take()
    }
}

impl<'a> IntoIterator for &'a RangeList {
    type Item = ByteRange;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl IntoIterator for RangeList {
    type Item = ByteRange;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        Ranges::new(self.blocks.into_iter(), self.last)
    }
}

impl fmt::Debug for RangeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    /// What a list must hold, the simple way.
    fn joined(ranges: &[ByteRange]) -> Vec<ByteRange> {
        let mut ranges = ranges.to_vec();
        ranges.sort();
        ranges.dedup_by(|next, last| {
            let touch = next.start() <= last.end();
            if touch {
                *last = range(last.start(), last.end().max(next.end()));
            }
            touch
        });
        ranges
    }

    fn check(list: RangeList, want: &[ByteRange]) {
        assert!(list.iter().eq(want.iter().copied()));
        assert_eq!(list.len(), want.len());
        assert_eq!(list.is_empty(), want.is_empty());
        let bytes: u64 = want.iter().map(|range| range.len()).sum();
        assert_eq!(list.bytes(), bytes);
        assert_eq!(list.end(), want.last().map_or(0, |range| range.end()));
        assert!(list.into_iter().eq(want.iter().copied()));
    }

    /// Ascending ranges, of sectors and of bytes, far apart and overlapping.
    fn ascending() -> impl Strategy<Value = Vec<ByteRange>> {
        let number = || {
            prop_oneof![
                4 => (0..200_u64).prop_map(|sectors| sectors * 512),
                1 => (0..1_u64 << 40).prop_map(|sectors| sectors * 512),
                1 => 0..5000_u64,
                1 => 0..1_u64 << 55,
            ]
        };
        let ranges = prop::collection::vec((number(), number(), any::<bool>()), 0..200);
        ranges.prop_map(|ranges| {
            let mut position = 0;
            let place = |(gap, len, overlaps): (u64, u64, bool)| {
                let start = position + gap;
                let end = start + len.max(1);
                position = if overlaps { start } else { end };
                range(start, end)
            };
            ranges.into_iter().map(place).collect()
        })
    }

    proptest! {
        #[test]
        fn a_list_is_a_vector_of_joined_ranges(ranges in ascending(), other in ascending()) {
            check(RangeList::of(ranges.iter().copied()).unwrap(), &joined(&ranges));
            let union = RangeList::union(ranges.iter().copied(), other.iter().copied()).unwrap();
            check(union, &joined(&[ranges, other].concat()));
        }
    }

    #[test]
    fn the_largest_numbers_are_kept() {
        let max = u64::MAX;
        for ranges in [
            vec![range(0, max)],
            vec![range(0, 1), range(max - 1, max)],
            vec![range(1, max - 2), range(max - 1, max)],
            vec![range(512, max / 512 * 512), range(max - 1, max)],
        ] {
            check(RangeList::of(ranges.iter().copied()).unwrap(), &ranges);
        }
    }

    #[test]
    fn what_goes_back_is_refused() {
        let mut list = RangeList::of([range(0, 512), range(1024, 2048)]).unwrap();
        let (range, last) = (range(1023, 4096), range(1024, 2048));
        assert_eq!(list.push(range), Err(Disordered { range, last }));
        assert!(RangeList::union([last], [last, range]).is_err());
    }

    #[test]
    fn ten_million_ranges_take_64_mib_at_most() {
        const COUNT: u64 = 10_000_000;
        const LARGEST: u64 = 64 << 40;
        let memory = |gap: &dyn Fn(u64) -> u64, len: &dyn Fn(u64) -> u64| {
            let mut list = RangeList::new();
            for number in 0..COUNT {
                let start = list.end() + 512 * gap(number);
                list.push(range(start, start + 512 * len(number))).unwrap();
            }
            assert!(list.end() <= LARGEST && list.len() as u64 == COUNT);
            list.memory() as u64
        };
        // The smallest ranges of a file system.
        assert!(memory(&|_| 8, &|_| 8) <= COUNT * 2 * 103 / 100);
        // Evenly over the disk.
        assert!(memory(&|_| 13_735, &|_| 8) <= COUNT * 4 * 103 / 100);
        // As many numbers just too long for one byte less as there is room for.
        let len = |number: u64| if number.is_multiple_of(3) { 64 } else { 8192 };
        assert!(memory(&|_| 8192, &len) <= 55 << 20);
    }
}
