//! The bytes of a disk: a sparse map of extents that costs what was written, not what the disk could hold.
//!
//! A copy shares the map until one side is written to, so that a snapshot takes no time. Each write has its own
//! generation; two copies differ where generations differ, which is how the service sees changes (a page rewritten with
//! the same bytes has changed). Allocation is kept in pages of 512 bytes.
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Unit of allocation in bytes: a page of a page blob.
pub(crate) const PAGE: u64 = 512;

/// Bytes handed out at a time when they must be computed or copied.
const CHUNK: u64 = 256 << 10;

/// Where an extent's bytes come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Written zeros.
    Zeros,
    /// Computed from a seed and the disk offset.
    Pattern(u64),
    /// Held in memory.
    Memory(Bytes),
    /// In a file, from this offset on.
    File(Arc<File>, u64),
}

#[derive(Clone, Debug)]
struct Extent {
    len: u64,
    generation: u64,
    source: Source,
}

impl Extent {
    /// The part from `skip` on, `len` bytes long.
    fn part(&self, skip: u64, len: u64) -> Self {
        let source = match &self.source {
            Source::Zeros => Source::Zeros,
            Source::Pattern(seed) => Source::Pattern(*seed),
            Source::Memory(bytes) => Source::Memory(bytes.slice(index(skip)..index(skip + len))),
            Source::File(file, offset) => Source::File(Arc::clone(file), offset + skip),
        };
        Self {
            len,
            generation: self.generation,
            source,
        }
    }
}

/// The content of a disk, a snapshot or a blob.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    len: u64,
    extents: Arc<BTreeMap<u64, Extent>>,
}

/// How a range differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Allocated, and not the same as in the base.
    Written,
    /// Allocated in the base only.
    Cleared,
}

impl Content {
    /// Nothing allocated.
    pub(crate) fn new(len: u64) -> Self {
        Self {
            len,
            extents: Arc::default(),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Makes it longer, or cuts off what lies behind `len`.
    pub(crate) fn resize(&mut self, len: u64) {
        if len < self.len {
            self.clear(len..self.len);
        }
        self.len = len;
    }

    /// Replaces a range that starts and ends on a page boundary.
    pub(crate) fn write(&mut self, range: Range<u64>, source: Source) {
        self.put(range, source, next_generation());
    }

    /// Replaces a range with bytes that are the same in all copies, hence never a change.
    pub(crate) fn write_constant(&mut self, range: Range<u64>, source: Source) {
        self.put(range, source, 0);
    }

    fn put(&mut self, range: Range<u64>, source: Source, generation: u64) {
        debug_assert!(
            range.start.is_multiple_of(PAGE)
                && range.end.is_multiple_of(PAGE)
                && range.end <= self.len
        );
        if range.is_empty() {
            return;
        }
        let extent = Extent {
            len: range.end - range.start,
            generation,
            source,
        };
        let extents = self.carve(&range);
        extents.insert(range.start, extent);
    }

    /// Takes the pages of a range out; start and end are page boundaries.
    pub(crate) fn clear(&mut self, range: Range<u64>) {
        self.carve(&range);
    }

    /// Makes room: after this no extent touches `range`.
    fn carve(&mut self, range: &Range<u64>) -> &mut BTreeMap<u64, Extent> {
        let extents = Arc::make_mut(&mut self.extents);
        if let Some((&start, extent)) = extents.range(..range.start).next_back() {
            let end = start + extent.len;
            if end > range.start {
                let left = extent.part(0, range.start - start);
                let right =
                    (end > range.end).then(|| extent.part(range.end - start, end - range.end));
                extents.insert(start, left);
                if let Some(right) = right {
                    extents.insert(range.end, right);
                }
            }
        }
        let inside: Vec<u64> = extents
            .range(range.start..range.end.max(range.start))
            .map(|(at, _)| *at)
            .collect();
        for start in inside {
            if let Some(extent) = extents.remove(&start) {
                let end = start + extent.len;
                if end > range.end {
                    extents.insert(range.end, extent.part(range.end - start, end - range.end));
                }
            }
        }
        extents
    }

    /// What lies at `at`: how far it reaches, and the extent with `at`'s distance from its start, or a hole.
    fn piece(&self, at: u64) -> (u64, Option<(u64, &Extent)>) {
        if let Some((&start, extent)) = self.extents.range(..=at).next_back() {
            let end = start + extent.len;
            if at < end {
                return (end - at, Some((at - start, extent)));
            }
        }
        let next = self
            .extents
            .range(at..)
            .next()
            .map_or(self.len.max(at), |(start, _)| *start);
        (next - at, None)
    }

    /// Reads bytes; what is not allocated, or behind the end, is zero.
    pub(crate) fn read(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        while !out.is_empty() {
            let (reach, extent) = self.piece(at);
            let len = if reach == 0 {
                out.len()
            } else {
                out.len().min(index(reach))
            };
            let (now, later) = out.split_at_mut(len);
            match extent.map(|(skip, extent)| (skip, &extent.source)) {
                None | Some((_, Source::Zeros)) => now.fill(0),
                Some((_, Source::Pattern(seed))) => crate::pattern::fill(*seed, at, now),
                Some((skip, Source::Memory(bytes))) => {
                    now.copy_from_slice(&bytes[index(skip)..index(skip) + len]);
                }
                Some((skip, Source::File(file, start))) => file.read_exact_at(now, start + skip)?,
            }
            at += u64::try_from(len).unwrap_or(u64::MAX);
            out = later;
        }
        Ok(())
    }

    /// The next bytes of a range, as many as are convenient; stored ones are not copied.
    pub(crate) fn chunk(&self, range: Range<u64>) -> io::Result<Bytes> {
        let want = range.end - range.start;
        if let (
            reach,
            Some((
                skip,
                Extent {
                    source: Source::Memory(bytes),
                    ..
                },
            )),
        ) = self.piece(range.start)
        {
            let len = reach.min(want);
            if len >= CHUNK / 4 || len == want {
                return Ok(bytes.slice(index(skip)..index(skip + len)));
            }
        }
        let mut out = vec![0; index(want.min(CHUNK))];
        self.read(range.start, &mut out)?;
        Ok(out.into())
    }

    /// Bytes that are allocated.
    pub(crate) fn allocated(&self) -> u64 {
        self.extents.values().map(|extent| extent.len).sum()
    }

    /// The allocated ranges, ascending, adjacent ones merged.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.changes(None, 0..self.len).map(|(_, range)| range)
    }

    /// The ranges inside `window` that differ from `base`, ascending, adjacent ones of a kind merged. Without a base:
    /// the allocated ones.
    pub(crate) fn changes<'a>(
        &'a self,
        base: Option<&'a Self>,
        window: Range<u64>,
    ) -> impl Iterator<Item = (Change, Range<u64>)> + 'a {
        let end = window.end.min(self.len);
        let mut at = window.start;
        let mut step = move || -> Option<(Option<Change>, Range<u64>)> {
            if at >= end {
                return None;
            }
            let (reach, extent) = self.piece(at);
            let mut len = reach.min(end - at);
            let generation = extent.map(|(_, extent)| extent.generation);
            let mut before = None;
            if let Some(base) = base.filter(|base| at < base.len) {
                let (reach, extent) = base.piece(at);
                len = len.min(reach);
                before = extent.map(|(_, extent)| extent.generation);
            }
            let change = match (generation, before) {
                (Some(now), Some(then)) if now == then => None,
                (Some(_), _) => Some(Change::Written),
                (None, Some(_)) => Some(Change::Cleared),
                (None, None) => None,
            };
            let range = at..at + len;
            at += len;
            Some((change, range))
        };
        let mut pending: Option<(Change, Range<u64>)> = None;
        std::iter::from_fn(move || {
            loop {
                let Some((change, range)) = step() else {
                    return pending.take();
                };
                match (change, &mut pending) {
                    (Some(kind), Some((open, run))) if *open == kind && run.end == range.start => {
                        run.end = range.end;
                    }
                    (Some(kind), open) => {
                        let done = open.replace((kind, range));
                        if done.is_some() {
                            return done;
                        }
                    }
                    (None, open) => {
                        let done = open.take();
                        if done.is_some() {
                            return done;
                        }
                    }
                }
            }
        })
    }
}

/// Generations are unique in the process, hence comparable between copies.
fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// Lengths of what is in memory fit `usize`; others are bounded by the caller.
fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Where written bytes are kept.
#[derive(Debug)]
pub(crate) enum Spool {
    /// In memory.
    Memory,
    /// Appended to a file without a name.
    File(Arc<File>, Mutex<u64>),
}

impl Spool {
    /// A file in `dir` that vanishes with the emulator.
    pub(crate) fn in_dir(dir: &std::path::Path) -> io::Result<Self> {
        let path = dir.join(format!("azure-emulator-{}.spool", uuid::Uuid::new_v4()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self::File(Arc::new(file), Mutex::new(0)))
    }

    pub(crate) fn keep(&self, bytes: Bytes) -> io::Result<Source> {
        match self {
            Self::Memory => Ok(Source::Memory(bytes)),
            Self::File(file, end) => {
                let mut end = crate::sync::lock(end);
                let offset = *end;
                file.write_all_at(&bytes, offset)?;
                *end += u64::try_from(bytes.len()).unwrap_or(0);
                Ok(Source::File(Arc::clone(file), offset))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 64 * PAGE;

    /// A plain model: bytes and a flag per page.
    #[derive(Clone)]
    struct Model(Vec<u8>, Vec<bool>);

    fn apply(content: &mut Content, model: &mut Model, random: &mut u64) {
        *random = crate::pattern::mix(*random);
        let start = *random % 64;
        let pages = (*random >> 8) % (64 - start) + 1;
        let range = start * PAGE..(start + pages) * PAGE;
        let (a, b) = (index(range.start), index(range.end));
        let source = match (*random >> 20) % 4 {
            0 => {
                content.clear(range.clone());
                model.0[a..b].fill(0);
                model.1[index(start)..index(start + pages)].fill(false);
                return;
            }
            1 => Source::Zeros,
            2 => Source::Pattern(*random >> 32),
            _ => Source::Memory(vec![random.to_le_bytes()[5]; b - a].into()),
        };
        match &source {
            Source::Pattern(seed) => crate::pattern::fill(*seed, range.start, &mut model.0[a..b]),
            Source::Memory(bytes) => model.0[a..b].copy_from_slice(bytes),
            Source::Zeros | Source::File(..) => model.0[a..b].fill(0),
        }
        model.1[index(start)..index(start + pages)].fill(true);
        content.write(range, source);
    }

    fn pages_of(ranges: impl Iterator<Item = Range<u64>>) -> Vec<bool> {
        let mut pages = vec![false; 64];
        for range in ranges {
            pages[index(range.start / PAGE)..index(range.end / PAGE)].fill(true);
        }
        pages
    }

    #[test]
    fn random_writes_and_clears_match_a_plain_model() {
        let mut random = 1;
        for _ in 0..300 {
            let mut content = Content::new(SIZE);
            let mut model = Model(vec![0; index(SIZE)], vec![false; 64]);
            for _ in 0..12 {
                apply(&mut content, &mut model, &mut random);
            }
            let base = content.clone();
            let base_model = model.clone();
            for _ in 0..6 {
                apply(&mut content, &mut model, &mut random);
            }
            let mut bytes = vec![1; index(SIZE)];
            content.read(0, &mut bytes).unwrap();
            assert_eq!(bytes, model.0);
            assert_eq!(pages_of(content.ranges()), model.1);
            let allocated = model.1.iter().filter(|page| **page).count();
            assert_eq!(content.allocated(), allocated as u64 * PAGE);
            base.read(0, &mut bytes).unwrap();
            assert_eq!(bytes, base_model.0, "the copy did not change");
            // Base plus changes is the target.
            let mut replayed = base_model.0.clone();
            let mut last_end = 0;
            for (change, range) in content.changes(Some(&base), 0..SIZE) {
                assert!(range.start >= last_end && range.start < range.end);
                last_end = range.end;
                let (a, b) = (index(range.start), index(range.end));
                match change {
                    Change::Written => replayed[a..b].copy_from_slice(&model.0[a..b]),
                    Change::Cleared => replayed[a..b].fill(0),
                }
            }
            assert_eq!(replayed, model.0);
        }
    }

    #[test]
    fn a_rewrite_with_equal_bytes_is_a_change_and_nothing_is_none() {
        let mut content = Content::new(SIZE);
        content.write(0..PAGE, Source::Zeros);
        let base = content.clone();
        assert_eq!(content.changes(Some(&base), 0..SIZE).count(), 0);
        content.write(0..PAGE, Source::Zeros);
        let changes: Vec<_> = content.changes(Some(&base), 0..SIZE).collect();
        assert_eq!(changes, [(Change::Written, 0..PAGE)]);
    }

    #[test]
    fn chunks_add_up_to_the_range() {
        let mut content = Content::new(4 << 20);
        content.write(0..1 << 20, Source::Pattern(1));
        content.write(512..1024, Source::Memory(vec![7; 512].into()));
        content.write(2 << 20..3 << 20, Source::Memory(vec![9; 1 << 20].into()));
        let (mut at, mut all) = (100, Vec::new());
        while at < 4 << 20 {
            let chunk = content.chunk(at..4 << 20).unwrap();
            at += chunk.len() as u64;
            all.extend_from_slice(&chunk);
        }
        let mut want = vec![0; (4 << 20) - 100];
        content.read(100, &mut want).unwrap();
        assert!(all == want);
    }

    #[test]
    fn a_spool_gives_back_what_it_keeps() {
        let spool = Spool::in_dir(&std::env::temp_dir()).unwrap();
        let mut content = Content::new(SIZE);
        for seed in 0..4 {
            let bytes = crate::pattern::bytes(seed, 0, 1024);
            content.write(
                seed * 2048..seed * 2048 + 1024,
                spool.keep(bytes.into()).unwrap(),
            );
        }
        let mut out = vec![0; 512];
        content.read(3 * 2048 + 512, &mut out).unwrap();
        assert_eq!(out, crate::pattern::bytes(3, 512, 512));
    }
}
