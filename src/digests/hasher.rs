//! Digests of the bytes of an image, segment by segment.
//!
//! The digest of a segment is a sum over its sectors, so where blocks begin and end, and in which order they come, does not
//! matter. What a sector adds depends on its bytes and its place: a byte that changed, a sector that moved, is missing or
//! came twice makes another sum. XXH3 finds accidents; against somebody who forges images on purpose it is no protection.
//!
//! All-zero sectors count where they are written over something ([`ZeroBlocks::Keep`], images of changes). Of a full image
//! they may be left out or not, and the disk is the same.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_128;

use crate::pipeline::{ZeroBlocks, is_zero};
use crate::range::ByteRange;

/// What images are made of, in bytes.
const SECTOR: usize = 512;

/// A damaged place is named as exactly as this, in bytes.
const SMALLEST_SEGMENT: u64 = 16 << 20;

/// Segments of an image, at most.
const MOST_SEGMENTS: u64 = 4096;

/// Length of the segments of an image of `size` bytes, a power of two.
#[must_use]
pub fn segment_bytes(size: u64) -> u64 {
    size.div_ceil(MOST_SEGMENTS)
        .next_power_of_two()
        .max(SMALLEST_SEGMENT)
}

/// Takes the blocks of one image.
#[derive(Clone, Debug)]
pub struct ImageHasher {
    segment_bytes: u64,
    /// By the offset of the segment.
    sums: BTreeMap<u64, Sums>,
    /// The beginning of a sector that a block cut, and where it ends.
    begun: Vec<u8>,
    begun_end: u64,
    taken: u64,
}

/// Of one segment, modulo 2^128.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Of all sectors that came.
    all: u128,
    /// Of those that are not all zeros.
    data: u128,
}

/// The digests of the segments that hold something, by their offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments(BTreeMap<u64, u128>);

impl ImageHasher {
    /// For an image of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            segment_bytes: segment_bytes(size),
            sums: BTreeMap::new(),
            begun: Vec::new(),
            begun_end: 0,
            taken: 0,
        }
    }

    /// Takes a block at `offset` bytes of the disk, which ends there as well. Blocks that cut sectors must follow each other.
    pub fn update(&mut self, offset: u64, bytes: &[u8]) {
        self.taken += bytes.len() as u64;
        if self.begun_end != offset {
            self.end_begun();
        }
        let into_sector = usize::try_from(offset % SECTOR as u64).unwrap_or_default();
        let head = match into_sector {
            0 => 0,
            into_sector => bytes.len().min(SECTOR - into_sector),
        };
        let (head, rest) = bytes.split_at(head);
        self.hold(offset, head);
        let offset = offset + head.len() as u64;
        let (sectors, tail) = rest.split_at(rest.len() - rest.len() % SECTOR);
        self.add_sectors(offset, sectors);
        self.hold(offset + sectors.len() as u64, tail);
    }

    /// Bytes taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The digests of what came so far.
    #[must_use]
    pub fn segments(&self, zeros: ZeroBlocks) -> Segments {
        let mut ended = self.clone();
        ended.end_begun();
        let digests = ended.sums.into_iter().map(|(offset, sums)| match zeros {
            ZeroBlocks::Keep => (offset, sums.all),
            ZeroBlocks::Skip => (offset, sums.data),
        });
        // Nothing that counts came.
        Segments(digests.filter(|(_, digest)| *digest != 0).collect())
    }

    fn hold(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.begun.extend_from_slice(bytes);
        self.begun_end = offset + bytes.len() as u64;
        if self.begun_end.is_multiple_of(SECTOR as u64) {
            self.end_begun();
        }
    }

    fn end_begun(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        self.add_sectors(self.begun_end - begun.len() as u64, &begun);
        self.begun = begun;
        self.begun.clear();
    }

    /// Whole sectors, or a part of one.
    fn add_sectors(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let into_segment = offset % self.segment_bytes;
            let sums = self.sums.entry(offset - into_segment).or_default();
            let room = usize::try_from(self.segment_bytes - into_segment).unwrap_or(usize::MAX);
            let (inside, beyond) = bytes.split_at(bytes.len().min(room));
            for sector in inside.chunks(SECTOR) {
                sums.add(offset, sector);
                offset += sector.len() as u64;
            }
            bytes = beyond;
        }
    }
}

impl Sums {
    fn add(&mut self, offset: u64, sector: &[u8]) {
        let digest = XxHash3_128::oneshot_with_seed(offset, sector);
        self.all = self.all.wrapping_add(digest);
        if !is_zero(sector) {
            self.data = self.data.wrapping_add(digest);
        }
    }
}

impl Segments {
    /// Where two images of `size` bytes differ: whole segments, neighbours joined, ascending.
    #[must_use]
    pub fn differences(&self, other: &Self, size: u64) -> Vec<ByteRange> {
        let len = segment_bytes(size);
        let mut offsets: Vec<_> = self.0.keys().chain(other.0.keys()).copied().collect();
        offsets.sort_unstable();
        offsets.dedup();
        offsets.retain(|offset| self.0.get(offset) != other.0.get(offset));
        let mut ranges: Vec<ByteRange> = Vec::new();
        for start in offsets {
            let end = start.saturating_add(len).min(size);
            let (start, joined) = match ranges.last() {
                Some(last) if last.end() == start => (last.start(), true),
                Some(_) | None => (start, false),
            };
            if joined {
                ranges.pop();
            }
            ranges.extend(ByteRange::new(start, end));
        }
        ranges
    }

    /// Whether each begins where a segment of an image of `size` bytes does.
    #[must_use]
    pub fn fit(&self, size: u64) -> bool {
        let len = segment_bytes(size);
        self.0
            .keys()
            .all(|&offset| offset < size && offset.is_multiple_of(len))
    }
}

/// A list of `<offset>:<32 hexadecimal digits>`: a large disk has thousands.
impl Serialize for Segments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let segments = self.0.iter();
        serializer.collect_seq(segments.map(|(offset, digest)| format!("{offset}:{digest:032x}")))
    }
}

/// Refuses what is out of order.
impl<'de> Deserialize<'de> for Segments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut segments = BTreeMap::new();
        for text in Vec::<String>::deserialize(deserializer)? {
            let (offset, digest) = text
                .split_once(':')
                .filter(|(_, digest)| digest.len() == 32)
                .and_then(|(offset, digest)| {
                    Some((offset.parse().ok()?, u128::from_str_radix(digest, 16).ok()?))
                })
                .filter(|(offset, _)| {
                    segments
                        .last_key_value()
                        .is_none_or(|(last, _)| last < offset)
                })
                .ok_or_else(|| D::Error::custom(format!("segment {text:?}")))?;
            segments.insert(offset, digest);
        }
        Ok(Self(segments))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 64 * MIB;

    /// Blocks in disk order: sectors before the block, its bytes.
    type Blocks = Vec<(u64, Vec<u8>)>;

    /// Blocks around the border of the first two segments, some of them zeros.
    fn blocks() -> impl Strategy<Value = Blocks> {
        let block = (0..3_u64, 1..5_usize, 0..3_u8, any::<u8>());
        prop::collection::vec(block, 1..12).prop_map(|pieces| {
            let mut position = 16 * MIB - 8 * 512;
            let mut blocks = Vec::new();
            for (gap, sectors, byte, ramp) in pieces {
                position += gap * 512;
                let bytes: Vec<u8> = (0..sectors * 512)
                    .map(|at| match byte {
                        0 => 0,
                        byte => u8::try_from(at % 251).unwrap().wrapping_mul(byte) ^ ramp,
                    })
                    .collect();
                let len = bytes.len() as u64;
                blocks.push((position, bytes));
                position += len;
            }
            blocks
        })
    }

    fn hash(blocks: &Blocks) -> [Segments; 2] {
        let mut hasher = ImageHasher::new(SIZE);
        for (offset, bytes) in blocks {
            hasher.update(*offset, bytes);
        }
        [ZeroBlocks::Keep, ZeroBlocks::Skip].map(|zeros| hasher.segments(zeros))
    }

    /// Whether `place`, and nothing of another segment, is among the differences.
    fn finds(right: &Segments, wrong: &Segments, place: u64) -> bool {
        let found = wrong.differences(right, SIZE);
        let start = place - place % segment_bytes(SIZE);
        found == [ByteRange::new(start, start + segment_bytes(SIZE)).unwrap()]
    }

    proptest! {
        #[test]
        fn borders_of_blocks_do_not_matter(blocks in blocks(), cut in 1..2000_usize) {
            let pieces: Blocks = blocks
                .iter()
                .flat_map(|(offset, bytes)| {
                    bytes.chunks(cut).enumerate().map(move |(index, piece)| {
                        (offset + (index * cut) as u64, piece.to_vec())
                    })
                })
                .collect();
            prop_assert_eq!(hash(&pieces), hash(&blocks));
            let mut reversed = blocks.clone();
            reversed.reverse();
            prop_assert_eq!(hash(&reversed), hash(&blocks));
        }

        #[test]
        fn a_flipped_bit_is_found(blocks in blocks(), which in any::<prop::sample::Index>(),
                at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut changed = blocks.clone();
            let (offset, bytes) = &mut changed[which.index(blocks.len())];
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let place = *offset + at as u64;
            for (right, wrong) in hash(&blocks).iter().zip(&hash(&changed)) {
                prop_assert!(finds(right, wrong, place));
            }
        }

        #[test]
        fn a_block_that_is_missing_moved_or_doubled_is_found(blocks in blocks(),
                which in any::<prop::sample::Index>(), by in 1..9_u64) {
            let which = which.index(blocks.len());
            let (offset, bytes) = &blocks[which];
            let is_data = !is_zero(bytes);
            let right = hash(&blocks);
            let mut missing = blocks.clone();
            missing.remove(which);
            let mut doubled = blocks.clone();
            doubled.insert(which, (*offset, bytes.clone()));
            let mut moved = blocks.clone();
            moved[which].0 = 40 * MIB + by * 512;
            for changed in [missing, doubled, moved] {
                let [all, data] = hash(&changed);
                let found = all.differences(&right[0], SIZE);
                prop_assert!(found.iter().any(|range| range.start() <= *offset && *offset < range.end()));
                // Zeros more or less do not make another full image.
                prop_assert_eq!(data != right[1], is_data);
            }
        }

        #[test]
        fn digests_come_back_as_they_were_written(blocks in blocks()) {
            let [segments, _] = hash(&blocks);
            let text = serde_json::to_string(&segments).unwrap();
            prop_assert_eq!(serde_json::from_str::<Segments>(&text).unwrap(), segments);
        }
    }

    #[test]
    fn zeros_count_where_they_are_written_over_something() {
        let zeros = vec![(0, vec![0; 4096])];
        let [all, data] = hash(&zeros);
        assert!(finds(&Segments::default(), &all, 0));
        assert_eq!(data, Segments::default());
    }

    #[test]
    fn segments_are_few_and_not_small() {
        for (size, len) in [
            (512, 16 * MIB),
            (64 << 30, 16 * MIB),
            ((64 << 30) + 512, 32 * MIB),
            (32 << 40, 8 << 30),
        ] {
            assert_eq!(segment_bytes(size), len);
            assert!(size.div_ceil(len) <= MOST_SEGMENTS);
        }
    }

    #[test]
    fn neighbours_are_named_as_one_and_the_last_one_ends_with_the_disk() {
        let of = |offsets: &[u64]| Segments(offsets.iter().map(|at| (at * MIB, 1)).collect());
        let size = 50 * MIB;
        let found = of(&[0, 32]).differences(&of(&[0, 16, 48]), size);
        assert_eq!(found, [ByteRange::new(16 * MIB, size).unwrap()]);
        assert!(of(&[0, 48]).fit(size));
        assert!(!of(&[8]).fit(size) && !of(&[64]).fit(size));
    }

    #[test]
    fn what_is_no_list_of_digests_is_refused() {
        let digest = "0".repeat(32);
        for wrong in [
            format!("[\"16:{digest}\", \"0:{digest}\"]"),
            format!("[\"0:{digest}\", \"0:{digest}\"]"),
            format!("[\"-1:{digest}\"]"),
            "[\"0:00\"]".into(),
            format!("[\"0:{}\"]", "g".repeat(32)),
            "[7]".into(),
        ] {
            serde_json::from_str::<Segments>(&wrong).expect_err(&wrong);
        }
    }

    /// What is on volumes must be readable for ever.
    #[test]
    fn digests_are_those_of_the_first_release() {
        let bytes: Vec<u8> = (0..1536_u32).map(|at| (at % 251) as u8).collect();
        let [all, data] = hash(&vec![(512, bytes), (4096, vec![0; 512])]);
        let text = |segments| serde_json::to_string(segments).unwrap();
        assert_eq!(
            [text(&all), text(&data)],
            [
                "[\"0:7043753eed49e4cc13a08a9bd48af00f\"]",
                "[\"0:c9e51460bf12a8508f2d9ce59f8241d3\"]",
            ]
        );
    }
}
