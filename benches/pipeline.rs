//! What the pipeline costs by itself: storage that answers at once, so that only our own work is measured. The floor to
//! compare with is a plain copy of the same bytes.

use std::hint::black_box;
use std::sync::Arc;

use azure_vm_fd::intake::Intake;
use azure_vm_fd::payload::Payload;
use azure_vm_fd::pipeline::{
    BoxError, ByteBudget, ImageReader, Limits, PageWriter, RangeSink, RangeSource, ReadPlan,
    ReadQueue, ZeroBlocks, is_zero,
};
use azure_vm_fd::range::ByteRange;
use azure_vm_fd::range_list::RangeList;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::{BoxFuture, ready};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1024 * 1024;
const IMAGE: usize = 64 * MIB;
/// What the File Daemon reads at a time, and what a TLS record can carry.
const BLOCK: usize = 64 * 1024;
const FRAME: usize = 16 * 1024;
const LIMITS: Limits = Limits {
    memory: 64 * MIB as u64,
    concurrency: 16,
    chunk: 4 * MIB as u64,
};

/// Gives out the same page for every offset; takes anything.
struct Instant(Bytes);

impl RangeSource for Instant {
    fn read<'a>(
        &'a self,
        range: ByteRange,
        _intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<Vec<Bytes>, BoxError>> {
        let mut frames = Vec::new();
        let mut rest = usize::try_from(range.len()).expect("a chunk fits in memory");
        while rest > 0 {
            let len = rest.min(self.0.len());
            frames.push(self.0.slice(..len));
            rest -= len;
        }
        Box::pin(ready(Ok(frames)))
    }
}

impl RangeSink for Instant {
    fn write<'a>(
        &'a self,
        _offset: u64,
        data: Payload,
        _intake: &'a dyn Intake,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        black_box(data);
        Box::pin(ready(Ok(())))
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

fn read(runtime: &Runtime, frame: &Bytes, ranges: &[ByteRange], size: u64) -> u64 {
    runtime.block_on(async {
        let source = Arc::new(Instant(frame.clone()));
        let ranges = RangeList::of(ranges.iter().copied()).expect("ranges in order");
        let plan = ReadPlan::new(source, ranges);
        let reader = ReadQueue::new(LIMITS, &CancellationToken::new()).push(plan);
        let mut image = ImageReader::new(reader, size, ZeroBlocks::Skip);
        let mut buffer = vec![0; BLOCK];
        while image
            .read_block(&mut buffer)
            .await
            .expect("an instant source does not fail")
            .is_some()
        {
            black_box(&buffer);
        }
        image.stats().delivered
    })
}

fn reader(c: &mut Criterion) {
    let runtime = runtime();
    let whole = [ByteRange::new(0, IMAGE as u64).expect("not empty")];
    let mut group = c.benchmark_group("read");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(IMAGE as u64));
    for (name, byte) in [("data", 1), ("zeros", 0)] {
        let frame = Bytes::from(vec![byte; FRAME]);
        group.bench_function(name, |b| {
            b.iter(|| read(&runtime, &frame, &whole, IMAGE as u64));
        });
    }
    let frame = Bytes::from(vec![1; FRAME]);
    group.bench_function("floor: copy", |b| {
        let mut buffer = vec![0; BLOCK];
        b.iter(|| {
            for _ in 0..IMAGE / FRAME / (BLOCK / FRAME) {
                for target in buffer.chunks_exact_mut(FRAME) {
                    target.copy_from_slice(&frame);
                }
                black_box(&buffer);
            }
        });
    });
    let ranges: Vec<_> = (0..100_000)
        .filter_map(|i| ByteRange::with_len(i * 4096, 512))
        .collect();
    let size = ranges.last().map_or(0, |range| range.end());
    group.throughput(Throughput::Elements(ranges.len() as u64));
    group.bench_function("100 000 ranges", |b| {
        b.iter(|| read(&runtime, &frame, &ranges, size));
    });
    group.finish();
}

fn writer(c: &mut Criterion) {
    let runtime = runtime();
    let block = Bytes::from(vec![1; BLOCK]);
    let mut group = c.benchmark_group("write");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(IMAGE as u64));
    group.bench_function("data", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let sink = Arc::new(Instant(Bytes::new()));
                let mut writer =
                    PageWriter::new(sink, LIMITS.concurrency, &CancellationToken::new());
                for offset in (0..IMAGE).step_by(BLOCK) {
                    let result = writer.write(offset as u64, block.clone()).await;
                    result.expect("an instant sink does not fail");
                }
                writer
                    .finish()
                    .await
                    .expect("an instant sink does not fail")
            })
        });
    });
    group.finish();
}

fn small_parts(c: &mut Criterion) {
    let zeros = vec![0; BLOCK];
    let mut group = c.benchmark_group("zero check");
    group.throughput(Throughput::Bytes(BLOCK as u64));
    group.bench_function("64 KiB of zeros", |b| b.iter(|| is_zero(black_box(&zeros))));
    group.finish();

    let runtime = runtime();
    let budget = ByteBudget::new(LIMITS.memory);
    c.bench_function("budget: acquire and give back", |b| {
        b.iter(|| runtime.block_on(budget.acquire(LIMITS.chunk)));
    });
}

criterion_group!(benches, reader, writer, small_parts);
criterion_main!(benches);
