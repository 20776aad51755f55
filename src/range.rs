//! Half-open byte ranges of a disk.
//!
//! Every offset inside this crate is absolute on the disk; inclusive wire forms (`bytes=a-b`, `<End>`) are converted at
//! the edge, once, by [`ByteRange::from_inclusive`] and [`ByteRange::last`].

use std::fmt;

/// A non-empty, half-open range of bytes `[start, end)`, in bytes from the beginning of the disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// `[start, end)`; `None` unless `start < end`.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// `len` bytes from `start`; `None` if `len` is 0 or the end does not fit in 64 bits.
    #[must_use]
    pub fn with_len(start: u64, len: u64) -> Option<Self> {
        Self::new(start, start.checked_add(len)?)
    }

    /// The wire form `first..=last`; `None` if it is reversed or its end does not fit in 64 bits.
    #[must_use]
    pub fn from_inclusive(first: u64, last: u64) -> Option<Self> {
        Self::new(first, last.checked_add(1)?)
    }

    /// First byte.
    #[must_use]
    pub fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    #[must_use]
    pub fn end(self) -> u64 {
        self.end
    }

    /// The last byte itself, as the wire form wants it.
    #[must_use]
    pub fn last(self) -> u64 {
        self.end - 1
    }

    /// Length in bytes, never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// What lies in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether both ends are multiples of `unit` bytes.
    #[must_use]
    pub fn is_aligned(self, unit: u64) -> bool {
        self.start.is_multiple_of(unit) && self.end.is_multiple_of(unit)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inclusive_form_round_trips() {
        let range = ByteRange::from_inclusive(512, 1023).expect("valid");
        assert_eq!(
            (range.start(), range.end(), range.last(), range.len()),
            (512, 1024, 1023, 512)
        );
        assert!(range.is_aligned(512));
    }

    #[test]
    fn empty_reversed_and_overflowing_ranges_do_not_exist() {
        assert_eq!(ByteRange::new(5, 5), None);
        assert_eq!(ByteRange::new(6, 5), None);
        assert_eq!(ByteRange::from_inclusive(0, u64::MAX), None);
        assert_eq!(ByteRange::with_len(u64::MAX, 1), None);
    }
}
