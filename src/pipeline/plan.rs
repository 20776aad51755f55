//! What to read of one image, and how it is cut into requests.

use std::fmt;
use std::sync::Arc;

use super::{Error, RangeSource};
use crate::range::ByteRange;

/// What to read of one image: ascending, disjoint ranges of a source.
pub struct ReadPlan {
    pub(super) source: Arc<dyn RangeSource>,
    ranges: Vec<ByteRange>,
    bytes: u64,
}

impl ReadPlan {
    /// Takes the ranges of an image, in bytes of its disk. Neighbours that touch are read as one; a gap stays a gap.
    ///
    /// # Errors
    ///
    /// [`Error::Disordered`] if a range begins before the end of the one before it.
    pub fn new(source: Arc<dyn RangeSource>, ranges: Vec<ByteRange>) -> Result<Self, Error> {
        let mut position = 0;
        let mut bytes = 0;
        for &range in &ranges {
            if range.start() < position {
                return Err(Error::Disordered { range, position });
            }
            position = range.end();
            // Disjoint ranges below 2^64 cannot add up to more than that.
            bytes += range.len();
        }
        Ok(Self {
            source,
            ranges,
            bytes,
        })
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
        self.ranges.last().map_or(0, |range| range.end())
    }

    /// The requests that cover the plan: in order, none longer than `chunk` bytes, none across a gap.
    pub(super) fn chunks(&self, chunk: u64) -> Chunks<'_> {
        Chunks {
            ranges: self.ranges.iter(),
            rest: None,
            chunk: chunk.max(1),
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

/// See [`ReadPlan::chunks`].
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    ranges: std::slice::Iter<'a, ByteRange>,
    /// Taken from `ranges`, not handed out yet.
    rest: Option<ByteRange>,
    chunk: u64,
}

impl Iterator for Chunks<'_> {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        let first = match self.rest.take() {
            Some(rest) => rest,
            None => *self.ranges.next()?,
        };
        let (start, mut end) = (first.start(), first.end());
        while end - start < self.chunk {
            match self.ranges.as_slice().first() {
                Some(neighbour) if neighbour.start() == end => {
                    end = neighbour.end();
                    self.ranges.next();
                }
                Some(_) | None => break,
            }
        }
        let cut = end.min(start.saturating_add(self.chunk));
        self.rest = ByteRange::new(cut, end);
        ByteRange::new(start, cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::{Script, plan_of, range};

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

    #[test]
    fn disordered_ranges_are_refused() {
        let source = Arc::new(Script::default());
        let disordered = ReadPlan::new(source, vec![range(0, 10), range(9, 12)]);
        assert!(matches!(
            disordered,
            Err(Error::Disordered { position: 10, .. })
        ));
    }

    #[test]
    fn size_and_end_are_those_of_the_ranges() {
        let plan = plan_of(Script::default(), &[(0, 10), (12, 20)]);
        assert_eq!((plan.bytes(), plan.end()), (18, 20));
        assert_eq!(plan_of(Script::default(), &[]).end(), 0);
    }
}
