//! Measurements, on the machine that runs them: `cargo test --release bench -- --ignored
//! --nocapture`. They print figures and check nothing.

use super::*;
use crate::harness::{Aligned, Arg, Loaded, input, on_cpu, output, random_f32};
use crate::pack::{PackedLayout, packed_bytes};
use std::sync::Barrier;
use std::time::Instant;
use waveloom_ir::{DType, Dim, Expr};

const THREADS: usize = 2;

/// A `gemm` of one weight, its operands, and a kernel for it.
struct Bench {
    spec: GemmSpec,
    source: KernelSource,
    loaded: Loaded,
    compile_ms: f64,
}

impl Bench {
    fn new(
        dtype: DType,
        m: usize,
        n: u64,
        k: u64,
        target: &CpuTarget,
        tune: &dyn Fn(&mut TileConfig),
    ) -> Bench {
        let layout = PackedLayout::new(dtype, n, k, target).expect("a layout");
        let spec = GemmSpec {
            rows: if m == 1 { Rows::One } else { Rows::Many(plan::Expr::Symbol(0)) },
            k,
            norm_eps: Some(1e-5),
            weights: vec![layout],
            outputs: vec![GemmOutput { expr: Expr::Acc(0), store: Store::Dense }],
            extras: vec![],
        };
        let mut config = TileConfig::default_for(&spec, target);
        tune(&mut config);
        let source = kernel(&spec, config, target).expect("a kernel");
        let start = Instant::now();
        let loaded = Loaded::new(&source.text, target).expect("it loads");
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        Bench { spec, source, loaded, compile_ms }
    }

    /// Best seconds per run over `copies` of the weight, one after the other, so that they come
    /// from memory where together they are larger than the cache.
    fn seconds(&self, m: usize, copies: usize, threads: usize, repeats: usize) -> f64 {
        let layout = &self.spec.weights[0];
        let bytes = layout.bytes() as usize;
        let mut weights: Vec<Aligned> = (0..copies).map(|_| Aligned::new(bytes)).collect();
        for weight in &mut weights {
            // 1.0 as f16 twice, small as f32, and any quants.
            for (i, byte) in weight.bytes_mut().iter_mut().enumerate() {
                *byte = if i % 2 == 1 { 0x3c } else { (i % 251) as u8 };
            }
        }
        let x = random_f32(1, m * self.spec.k as usize);
        let norm = random_f32(2, self.spec.k as usize);
        let items = self.source.items.eval(&[m as i64, 0, 0]).expect("items");
        let mut best = f64::INFINITY;
        let barrier = Barrier::new(threads);
        let n = layout.rows as usize;
        let mut results = vec![0f32; m * n];
        let result = results.as_mut_ptr() as usize;
        for _ in 0..repeats {
            let times: Vec<f64> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads)
                    .map(|w| {
                        let (x, norm, barrier) = (&x, &norm, &barrier);
                        let weights: Vec<u64> = weights.iter().map(Aligned::address).collect();
                        scope.spawn(move || {
                            let mut scratch = Aligned::new(self.source.scratch_bytes as usize);
                            let first = items * w as i64 / threads as i64;
                            let last = items * (w as i64 + 1) / threads as i64;
                            barrier.wait();
                            let start = on_cpu();
                            for weight in &weights {
                                let args = [
                                    input(x),
                                    input(norm),
                                    Arg::Ptr(*weight as *const u8),
                                    Arg::Ptr(result as *const u8),
                                    Arg::I64(m as i64),
                                ];
                                self.loaded.run_in(&args, first, last, &mut scratch);
                            }
                            on_cpu() - start
                        })
                    })
                    .collect();
                workers.into_iter().map(|w| w.join().expect("a worker")).collect()
            });
            best = best.min(times.into_iter().fold(0.0, f64::max) / copies as f64);
        }
        std::hint::black_box(output(&mut results));
        best
    }
}

/// Best GB/s of reading `bytes` with 64-bit sums.
fn read_bandwidth(bytes: usize, threads: usize) -> f64 {
    let data = vec![1u64; bytes / 8];
    let mut best = 0.0f64;
    for _ in 0..5 {
        let seconds = std::thread::scope(|scope| {
            let parts: Vec<_> = data
                .chunks(data.len().div_ceil(threads))
                .map(|part| scope.spawn(move || read(part)))
                .collect();
            parts.into_iter().map(|part| part.join().expect("a worker")).fold(0.0, f64::max)
        });
        best = best.max(bytes as f64 / seconds / 1e9);
    }
    best
}

/// Seconds to sum up all numbers.
fn read(part: &[u64]) -> f64 {
    let start = on_cpu();
    let mut sums = [0u64; 32];
    for chunk in part.chunks_exact(32) {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*x);
        }
    }
    std::hint::black_box(sums);
    on_cpu() - start
}

fn target() -> CpuTarget {
    let name = std::env::var("WAVELOOM_TARGET").unwrap_or_else(|_| "cpu".to_string());
    CpuTarget::from_name(&name).expect("a known target")
}

const FORMATS: [DType; 6] =
    [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1];

#[test]
#[ignore = "a measurement"]
fn bench_decode() {
    let target = target();
    for threads in [1, THREADS] {
        println!("read loop, {threads} threads: {:.1} GB/s", read_bandwidth(1 << 30, threads));
    }
    for dtype in FORMATS {
        for (n, k) in [(1536, 576), (49152, 576), (4096, 4096)] {
            let bench = Bench::new(dtype, 1, n, k, &target, &|_| {});
            let ty = Type::new(dtype, [Dim::Const(n), Dim::Const(k)]);
            let bytes = packed_bytes(&ty, &target.clone().into()).expect("a size") as f64;
            let copies = ((1u64 << 30) as f64 / bytes).ceil() as usize;
            let speed = |threads| bytes / bench.seconds(1, copies, threads, 4) / 1e9;
            println!(
                "{dtype} [{n}, {k}]: {:.1} GB/s with 1 thread, {:.1} with {THREADS}; compiled in {:.0} ms",
                speed(1),
                speed(THREADS),
                bench.compile_ms
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn bench_prefill() {
    let target = target();
    let m = 512;
    for dtype in FORMATS {
        for (n, k) in [(1536, 576), (576, 1536), (4096, 4096)] {
            let bench = Bench::new(dtype, m, n, k, &target, &|_| {});
            let operations = 2.0 * (m as u64 * n * k) as f64;
            let speed = |threads| operations / bench.seconds(m, 1, threads, 5) / 1e9;
            println!(
                "{dtype} [{m}, {k}] x [{n}, {k}]: {:.0} GOP/s with 1 thread, {:.0} with {THREADS}; compiled in {:.0} ms",
                speed(1),
                speed(THREADS),
                bench.compile_ms
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn bench_streams() {
    let target = target();
    for dtype in FORMATS {
        for (tiles, distance) in [(1, 1024), (2, 1024), (4, 0), (4, 512), (4, 1024), (8, 1024)] {
            let tune = |config: &mut TileConfig| {
                config.tiles = tiles;
                config.span_groups = tiles;
                config.prefetch_bytes = distance;
            };
            let bench = Bench::new(dtype, 1, 49152, 576, &target, &tune);
            let bytes = bench.spec.weights[0].bytes() as f64;
            let copies = (5e8 / bytes).ceil() as usize;
            let speed = bytes / bench.seconds(1, copies, 1, 4) / 1e9;
            println!(
                "{dtype}: {speed:.1} GB/s with {tiles} streams, prefetched {distance} bytes ahead"
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn bench_compile() {
    let target = target();
    for (dtype, m) in [(DType::F32, 1), (DType::Q4_1, 1), (DType::F32, 64), (DType::Q4_1, 64)] {
        let bench = Bench::new(dtype, m, 1536, 576, &target, &|_| {});
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = on_cpu();
            crate::compile(&bench.source.text, &target.clone().into(), false).expect("it compiles");
            best = best.min(on_cpu() - start);
        }
        let speed = if m == 1 { bench.seconds(m, 1, 1, 100) } else { bench.seconds(512, 1, 1, 5) };
        println!("{}: {:.1} ms, {:.3} ms", bench.source.summary, best * 1e3, speed * 1e3);
    }
}
