//! What to read of one image, and how it is cut into requests.

use std::fmt;
use std::sync::Arc;

use super::RangeSource;
use crate::range::ByteRange;
use crate::range_list::{self, RangeList};

/// Widest gap, in bytes, that is read with its neighbours: what a request costs in time would move more.
const WIDEST_GAP: u64 = 16 * 1024;

/// Longest range, in bytes, that is made of several: the largest request.
const LONGEST_JOINED: u64 = 4 << 20;

/// Of this many bytes that were listed, one may be read in a gap. Together with what else is read of an image (footers, its last
/// sector) that stays below 1.02.
const BYTES_PER_GAP_BYTE: u64 = 64;

/// What to read of one image: ascending, disjoint ranges of a source.
pub struct ReadPlan {
    pub(super) source: Arc<dyn RangeSource>,
    ranges: RangeList,
    across_gaps: bool,
    bytes: u64,
}

impl ReadPlan {
    /// Takes the ranges of an image, in bytes of its disk. A gap stays a gap.
    #[must_use]
    pub fn new(source: Arc<dyn RangeSource>, ranges: RangeList) -> Self {
        Self {
            source,
            bytes: ranges.bytes(),
            ranges,
            across_gaps: false,
        }
    }

    /// Reads neighbours with the gap between them where that costs less than a request, and never more than 1.02 of what
    /// was listed, at any point of the image. The bytes of the gap are then part of the plan like any other.
    #[must_use]
    pub fn across_gaps(mut self) -> Self {
        self.across_gaps = true;
        self.bytes = self.joined().map(ByteRange::len).sum();
        self
    }

    /// The same ranges of another source.
    #[must_use]
    pub fn read_from(self, source: Arc<dyn RangeSource>) -> Self {
        Self { source, ..self }
    }

    /// Bytes to be read in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// End of the last range; 0 if there is none.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.end()
    }

    /// The requests that cover the plan: in order, none longer than `chunk` bytes, none across a gap of the plan.
    pub(super) fn chunks(&self, chunk: u64) -> Chunks<'_> {
        Chunks {
            ranges: self.joined(),
            rest: None,
            chunk: chunk.max(1),
        }
    }

    fn joined(&self) -> Joined<'_> {
        let mut ranges = self.ranges.iter();
        Joined {
            next: ranges.next(),
            ranges,
            widest: if self.across_gaps { WIDEST_GAP } else { 0 },
            listed: 0,
            gaps: 0,
        }
    }
}

impl fmt::Debug for ReadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadPlan")
            .field("ranges", &self.ranges.len())
            .field("bytes", &self.bytes)
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}

/// The ranges of a plan, with the gaps that are read.
#[derive(Debug)]
struct Joined<'a> {
    ranges: range_list::Iter<'a>,
    /// Taken from `ranges`.
    next: Option<ByteRange>,
    widest: u64,
    /// Bytes that were listed up to here, and bytes of the gaps that are read.
    listed: u64,
    gaps: u64,
}

impl Joined<'_> {
    /// `range` and what lies up to the end of `next`, if that shall be read as one.
    fn join(&mut self, range: ByteRange, next: ByteRange) -> Option<ByteRange> {
        let gap = next.start() - range.end();
        let joined = ByteRange::new(range.start(), next.end())?;
        let affordable = self.gaps + gap <= self.listed / BYTES_PER_GAP_BYTE;
        if gap > self.widest || joined.len() > LONGEST_JOINED || !affordable {
            return None;
        }
        self.gaps += gap;
        Some(joined)
    }
}

impl Iterator for Joined<'_> {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        let mut range = self.next.take()?;
        self.listed += range.len();
        while let Some(next) = self.ranges.next() {
            let Some(joined) = self.join(range, next) else {
                self.next = Some(next);
                break;
            };
            self.listed += next.len();
            range = joined;
        }
        Some(range)
    }
}

/// See [`ReadPlan::chunks`].
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    ranges: Joined<'a>,
    /// Taken from `ranges`, not handed out yet.
    rest: Option<ByteRange>,
    chunk: u64,
}

impl Iterator for Chunks<'_> {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        let range = match self.rest.take() {
            Some(rest) => rest,
            None => self.ranges.next()?,
        };
        let cut = range.end().min(range.start().saturating_add(self.chunk));
        self.rest = ByteRange::new(cut, range.end());
        ByteRange::new(range.start(), cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::{Script, plan_of};

    fn cut(ranges: &[(u64, u64)], chunk: u64) -> Vec<(u64, u64)> {
        plan_of(Script::default(), ranges)
            .chunks(chunk)
            .map(|range| (range.start(), range.end()))
            .collect()
    }

    #[test]
    fn ranges_are_cut_and_neighbours_joined() {
        assert_eq!(cut(&[], 8), []);
        assert_eq!(cut(&[(0, 20)], 8), [(0, 8), (8, 16), (16, 20)]);
        assert_eq!(cut(&[(0, 2), (2, 4), (4, 5)], 8), [(0, 5)]);
        assert_eq!(cut(&[(0, 5), (5, 12)], 8), [(0, 8), (8, 12)]);
        assert_eq!(cut(&[(0, 5), (6, 12)], 8), [(0, 5), (6, 12)]);
        assert_eq!(
            cut(&[(u64::MAX - 3, u64::MAX)], 8),
            [(u64::MAX - 3, u64::MAX)]
        );
    }

    /// Requests, and bytes that they read, of `count` ranges of `len` bytes with gaps of `gap` bytes.
    fn across_gaps(count: u64, len: u64, gap: u64) -> (usize, u64) {
        let ranges: Vec<_> = (0..count)
            .map(|number| (number * (len + gap), number * (len + gap) + len))
            .collect();
        let plan = plan_of(Script::default(), &ranges).across_gaps();
        let (mut requests, mut read) = (0, 0);
        for chunk in plan.chunks(LONGEST_JOINED) {
            requests += 1;
            read += chunk.len();
            let listed = ranges
                .iter()
                .take_while(|(start, _)| *start < chunk.end())
                .map(|(start, end)| chunk.end().min(*end) - start)
                .sum::<u64>();
            assert!(read * 100 <= listed * 102, "{read} of {listed} bytes");
        }
        assert_eq!(read, plan.bytes());
        assert_eq!(plan.end(), ranges.last().map_or(0, |range| range.1));
        (requests, read)
    }

    #[test]
    fn gaps_are_read_where_they_cost_less_than_a_request() {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        // Fifteen ranges in a request instead of one.
        let (requests, read) = across_gaps(1000, 256 * KIB, 4 * KIB);
        assert_eq!((requests, read), (67, 250 * MIB + 933 * 4 * KIB));
        // A gap is as large as its range: next to nothing may be joined.
        assert_eq!(across_gaps(1000, 4 * KIB, 4 * KIB).0, 985);
        // Too wide; or with it too long for a request.
        assert_eq!(across_gaps(100, 2 * MIB, 20 * KIB), (100, 200 * MIB));
        assert_eq!(across_gaps(100, 4 * MIB, 4 * KIB), (100, 400 * MIB));
    }

    #[test]
    fn gaps_stay_gaps_unless_they_are_asked_for() {
        let mib = 1 << 20;
        assert_eq!(
            cut(&[(0, mib), (mib + 512, 2 * mib)], 4 * mib),
            [(0, mib), (mib + 512, 2 * mib)]
        );
    }

    #[test]
    fn size_and_end_are_those_of_the_ranges() {
        let plan = plan_of(Script::default(), &[(0, 10), (12, 20)]);
        assert_eq!((plan.bytes(), plan.end()), (18, 20));
        assert_eq!(plan_of(Script::default(), &[]).end(), 0);
    }
}
