//! Properties of the pipeline as a whole, against scripted storage on a paused clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::testing::{Fault, Meter, Script, limits, plan_of, range, read_images};
use super::*;

/// Runs `test` on a paused clock, then requires that no task is left.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let result = test.await;
        // An aborted task is gone when it was polled once more.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            Handle::current().metrics().num_alive_tasks(),
            0,
            "tasks left"
        );
        result
    })
}

/// Ranges of an image as gap and length, half of them without a gap.
fn layouts() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let gap = prop_oneof![Just(0), 1..5000u64];
    prop::collection::vec((gap, 1..20_000u64), 1..12).prop_map(|pieces| {
        let mut position = 0;
        let place = |(gap, len)| {
            let start = position + gap;
            position = start + len;
            (start, position)
        };
        pieces.into_iter().map(place).collect()
    })
}

#[derive(Clone, Debug)]
struct Terms {
    latencies: Vec<u64>,
    frames: Vec<usize>,
    memory: u64,
    concurrency: usize,
    chunk: u64,
}

fn terms() -> impl Strategy<Value = Terms> {
    (
        prop::collection::vec(0..50u64, 1..7),
        prop::collection::vec(1..3000usize, 1..5),
        1..60_000u64,
        1..6usize,
        1..9000u64,
    )
        .prop_map(|(latencies, frames, memory, concurrency, chunk)| Terms {
            latencies,
            frames,
            memory,
            concurrency,
            // Tiny chunks of large images only cost time.
            chunk: chunk.max(200),
        })
}

impl Terms {
    fn limits(&self) -> Limits {
        limits(self.memory, self.concurrency, self.chunk)
    }

    fn script(&self, zeros: Vec<ByteRange>) -> Script {
        Script {
            latencies: self.latencies.clone(),
            frames: self.frames.clone(),
            zeros,
            ..Script::default()
        }
    }
}

type Blocks = Vec<(u64, Vec<u8>)>;

/// All blocks of an image, read through buffers of the given lengths in turn; and how it ended.
async fn drain(reader: &mut ImageReader, buffers: &[usize]) -> (Blocks, Option<Error>) {
    let mut blocks = Vec::new();
    for len in buffers.iter().cycle() {
        let mut buffer = vec![0xee; *len];
        match reader.read_block(&mut buffer).await {
            Ok(Some(block)) => blocks.push((block.offset, buffer[..block.len].to_vec())),
            Ok(None) => return (blocks, None),
            Err(error) => return (blocks, Some(error)),
        }
    }
    unreachable!("there is a buffer")
}

/// Requires that the blocks ascend and lie within the ranges, each within one run of touching ranges; gives all bytes.
fn bytes_of(blocks: &Blocks) -> BTreeMap<u64, u8> {
    let mut position = 0;
    let mut bytes = BTreeMap::new();
    for (offset, data) in blocks {
        assert!(*offset >= position, "block at {offset} after {position}");
        position = offset + data.len() as u64;
        bytes.extend((*offset..).zip(data.iter().copied()));
    }
    bytes
}

fn expected(script: &Script, ranges: &[(u64, u64)]) -> BTreeMap<u64, u8> {
    let offsets = ranges.iter().flat_map(|&(start, end)| start..end);
    offsets
        .map(|offset| (offset, script.byte(offset)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_of_the_plan_comes_once_and_in_order(
        layout in layouts(),
        terms in terms(),
        buffers in prop::collection::vec(1..6000usize, 1..4),
    ) {
        let script = terms.script(Vec::new());
        let want = expected(&script, &layout);
        let meter = script.meter.clone();
        let (blocks, stats) = run(async {
            let limits = terms.limits();
            let mut readers = read_images(
                vec![plan_of(script, &layout)], limits, &CancellationToken::new());
            let size = layout.last().unwrap().1;
            let mut reader = ImageReader::new(readers.remove(0), size, ZeroBlocks::Keep);
            let (blocks, error) = drain(&mut reader, &buffers).await;
            assert!(error.is_none(), "{error:?}");
            (blocks, reader.stats())
        });
        prop_assert_eq!(&bytes_of(&blocks), &want);
        prop_assert!(meter.peak() <= terms.memory, "{} bytes in flight", meter.peak());
        prop_assert!(meter.most_requests() <= terms.concurrency);
        prop_assert_eq!(meter.held(), 0);
        prop_assert_eq!(stats.read, want.len() as u64);
        prop_assert_eq!((stats.delivered, stats.zeros), (stats.read, 0));
        prop_assert_eq!(stats.blocks, blocks.len() as u64);
    }

    #[test]
    fn blocks_depend_on_nothing_but_gaps_and_buffers(
        layout in layouts(),
        terms in (terms(), terms()),
        buffers in prop::collection::vec(1..6000usize, 1..4),
    ) {
        let read = |terms: &Terms| run(async {
            let plan = plan_of(terms.script(Vec::new()), &layout);
            let mut readers = read_images(
                vec![plan], terms.limits(), &CancellationToken::new());
            let size = layout.last().unwrap().1;
            let mut reader = ImageReader::new(readers.remove(0), size, ZeroBlocks::Skip);
            drain(&mut reader, &buffers).await.0
        });
        prop_assert_eq!(read(&terms.0), read(&terms.1));
    }

    #[test]
    fn what_is_left_out_as_zeros_reads_as_zeros(
        layout in layouts(),
        terms in terms(),
        holes in prop::collection::vec((0..150_000u64, 1..30_000u64), 0..6),
        buffer in 1..6000usize,
    ) {
        let zeros = holes.iter().map(|&(start, len)| range(start, start + len)).collect();
        let script = terms.script(zeros);
        let want = expected(&script, &layout);
        let size = layout.last().unwrap().1;
        let (blocks, stats) = run(async {
            let mut readers = read_images(
                vec![plan_of(script, &layout)],
                terms.limits(), &CancellationToken::new());
            let mut reader = ImageReader::new(readers.remove(0), size, ZeroBlocks::Skip);
            let (blocks, error) = drain(&mut reader, &[buffer]).await;
            assert!(error.is_none(), "{error:?}");
            (blocks, reader.stats())
        });
        let got = bytes_of(&blocks);
        for (offset, byte) in &want {
            prop_assert_eq!(got.get(offset).copied().unwrap_or(0), *byte, "byte at {}", offset);
        }
        prop_assert!(got.keys().all(|offset| want.contains_key(offset)));
        prop_assert_eq!(got.keys().last(), Some(&(size - 1)), "the last byte is always sent");
        let sent_zero = |(offset, data): &(u64, Vec<u8>)| is_zero(data) && offset + (data.len() as u64) < size;
        prop_assert!(!blocks.iter().any(sent_zero), "a block of zeros was sent");
        prop_assert_eq!(stats.delivered + stats.zeros, want.len() as u64);
        prop_assert_eq!(stats.delivered, got.len() as u64);
    }

    #[test]
    fn a_fault_ends_the_image_after_the_bytes_before_it(
        layout in layouts(),
        terms in terms(),
        place in any::<prop::sample::Index>(),
        fault in prop::sample::select(vec![Fault::Refused, Fault::Short, Fault::Long, Fault::Panic]),
        buffer in 1..6000usize,
    ) {
        let mut script = terms.script(Vec::new());
        let want = expected(&script, &layout);
        let offsets: Vec<_> = want.keys().copied().collect();
        let at = *place.get(&offsets);
        script.fault = Some((at, fault));
        run(async {
            let second = terms.script(Vec::new());
            let mut readers = read_images(
                vec![plan_of(script, &layout), plan_of(second, &layout)],
                terms.limits(), &CancellationToken::new());
            let size = layout.last().unwrap().1;
            let mut reader = ImageReader::new(readers.remove(0), size, ZeroBlocks::Keep);
            let (blocks, error) = drain(&mut reader, &[buffer]).await;
            let failed = match error {
                Some(Error::Read { range, .. }) => {
                    assert!(matches!(fault, Fault::Refused | Fault::Panic));
                    range
                }
                Some(Error::WrongLength { range, actual }) => {
                    assert!(matches!(fault, Fault::Short | Fault::Long));
                    assert_ne!(actual, range.len());
                    range
                }
                other => panic!("{other:?}"),
            };
            assert!(failed.start() <= at && at < failed.end());
            let got = bytes_of(&blocks);
            let prefix: BTreeMap<_, _> = want.range(..failed.start()).collect();
            // The block that the fault tore is lost with it; everything before that block is there.
            assert!(got.iter().eq(prefix.into_iter().take(got.len())));
            let missing = want.range(..failed.start()).count() - got.len();
            assert!(missing < buffer, "{missing} bytes missing");
            assert!(matches!(reader.read_block(&mut [0]).await, Err(Error::Failed)));
            // The images behind it are not affected.
            let mut next = ImageReader::new(readers.remove(0), size, ZeroBlocks::Keep);
            let (blocks, error) = drain(&mut next, &[buffer]).await;
            assert!(error.is_none(), "{error:?}");
            assert_eq!(bytes_of(&blocks), want);
        });
    }

    #[test]
    fn images_share_one_budget_and_may_be_abandoned(
        layouts in prop::collection::vec(layouts(), 1..5),
        abandon in prop::collection::vec(prop::option::of(0..4usize), 5),
        terms in terms(),
    ) {
        let meter = Meter::default();
        run(async {
            let script = || Script { meter: meter.clone(), ..terms.script(Vec::new()) };
            let plans = layouts.iter().map(|layout| plan_of(script(), layout)).collect();
            let readers = read_images(
                plans, terms.limits(), &CancellationToken::new());
            for ((reader, layout), abandon) in readers.into_iter().zip(&layouts).zip(&abandon) {
                let size = layout.last().unwrap().1;
                let mut reader = ImageReader::new(reader, size, ZeroBlocks::Keep);
                if let Some(blocks) = abandon {
                    for _ in 0..*blocks {
                        assert!(reader.read_block(&mut [0; 700]).await.is_ok());
                    }
                } else {
                    let (blocks, error) = drain(&mut reader, &[4096]).await;
                    assert!(error.is_none(), "{error:?}");
                    assert_eq!(bytes_of(&blocks), expected(&script(), layout));
                }
            }
        });
        prop_assert!(meter.peak() <= terms.memory, "{} bytes in flight", meter.peak());
        prop_assert_eq!(meter.held(), 0);
    }

    #[test]
    fn cancelling_ends_everything_at_once(
        layout in layouts(),
        terms in terms(),
        after in 0..200u64,
    ) {
        let script = Script { fault: Some((layout[0].1 - 1, Fault::Never)), ..terms.script(Vec::new()) };
        let meter = script.meter.clone();
        run(async {
            let cancel = CancellationToken::new();
            let mut readers = read_images(
                vec![plan_of(script, &layout)], terms.limits(), &cancel);
            let mut reader = ImageReader::new(readers.remove(0), layout.last().unwrap().1, ZeroBlocks::Keep);
            let begun = tokio::time::Instant::now();
            let wait = tokio::time::Duration::from_millis(after);
            let canceller = async { tokio::time::sleep(wait).await; cancel.cancel(); };
            let ((_, error), ()) = tokio::join!(drain(&mut reader, &[1000]), canceller);
            assert!(matches!(error, Some(Error::Cancelled)), "{error:?}");
            assert_eq!(begun.elapsed(), wait);
        });
        prop_assert_eq!(meter.held(), 0);
    }

    #[test]
    fn writes_leave_what_a_byte_vector_would(
        writes in prop::collection::vec(
            (0..40u64, 1..24u64, any::<u8>(), prop::bool::weighted(0.1)), 1..40),
        terms in terms(),
    ) {
        const PAGE: u64 = 512;
        let script = terms.script(Vec::new());
        let (meter, written) = (script.meter.clone(), Arc::clone(&script.written));
        let mut oracle = BTreeMap::new();
        let stats = run(async {
            let mut writer = PageWriter::new(
                Arc::new(script), terms.concurrency, &CancellationToken::new());
            for (page, pages, fill, barrier) in writes {
                let (offset, len) = (page * PAGE, pages * PAGE);
                let data: Vec<u8> = (0..len).map(|i| fill ^ u8::try_from(i % 251).unwrap()).collect();
                oracle.extend((offset..).zip(data.iter().copied()));
                writer.write(offset, data).await.unwrap();
                if barrier {
                    writer.barrier().await.unwrap();
                    assert_eq!(*written.lock().unwrap(), oracle);
                }
            }
            writer.finish().await.unwrap()
        });
        prop_assert_eq!(&*written.lock().unwrap(), &oracle);
        let seen = meter.seen();
        prop_assert_eq!(stats.requests, seen.len() as u64);
        prop_assert_eq!(stats.bytes, seen.iter().map(|range| range.len()).sum::<u64>());
        prop_assert!(meter.most_requests() <= terms.concurrency);
    }

    #[test]
    fn a_failed_write_is_reported_and_final(
        pages in 1..60u64,
        place in any::<prop::sample::Index>(),
        fault in prop::sample::select(vec![Fault::Refused, Fault::Panic]),
        terms in terms(),
    ) {
        let at = place.index(usize::try_from(pages * 512).unwrap()) as u64;
        let script = Script { fault: Some((at, fault)), ..terms.script(Vec::new()) };
        run(async {
            let mut writer = PageWriter::new(
                Arc::new(script), terms.concurrency, &CancellationToken::new());
            let mut result = Ok(());
            for page in 0..pages {
                result = writer.write(page * 512, vec![7; 512]).await;
                if result.is_err() { break; }
            }
            if result.is_ok() {
                result = writer.barrier().await;
            }
            match result {
                Err(Error::Write { range, .. }) => assert!(range.start() <= at && at < range.end()),
                other => panic!("{other:?}"),
            }
            assert!(matches!(writer.write(0, vec![7; 512]).await, Err(Error::Failed)));
            assert!(matches!(writer.finish().await, Err(Error::Failed)));
        });
    }
}

/// The same on real threads, where tasks truly run at the same time: an image is copied through a reader and a writer.
#[test]
fn a_copy_on_several_threads_is_the_same_image() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let size = 4 << 20;
        let source = || Script {
            frames: vec![1000, 16_384, 7],
            zeros: vec![range(1 << 20, 3 << 20)],
            ..Script::default()
        };
        let sink = Script::default();
        let written = Arc::clone(&sink.written);
        let cancel = CancellationToken::new();
        let limits = limits(200_000, 8, 32_768);
        let plan = plan_of(source(), &[(0, size)]);
        let mut readers = read_images(vec![plan], limits, &cancel);
        let mut reader = ImageReader::new(readers.remove(0), size, ZeroBlocks::Skip);
        let mut writer = PageWriter::new(Arc::new(sink), limits.concurrency, &cancel);
        let mut buffer = vec![0; 65_536];
        while let Some(block) = reader.read_block(&mut buffer).await.unwrap() {
            let data = buffer[..block.len].to_vec();
            writer.write(block.offset, data).await.unwrap();
        }
        let stats = writer.finish().await.unwrap();
        assert_eq!(stats.bytes, reader.stats().delivered);
        assert_eq!(reader.stats().zeros, 2 << 20);
        let (written, source) = (written.lock().unwrap(), source());
        assert!(
            written
                .iter()
                .all(|(offset, byte)| source.byte(*offset) == *byte)
        );
        assert_eq!(written.len() as u64, stats.bytes);
    });
}
