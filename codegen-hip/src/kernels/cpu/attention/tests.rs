//! Attention kernels against a scalar reference in f64.

use crate::harness::{Aligned, Loaded, on_cpu, random_f32, runnable_targets};
use crate::kernels::cpu::testing::{C, Runner, T, f32s, i32s, kernel, read_f32s};
use crate::kernels::{KernelError, Variant, kernel_for};
use crate::mlir::{Builder, Elem};
use crate::target::CpuTarget;
use half::f16;
use waveloom_ir::{AttentionAttr, DType, Dim, F32, InstId, Layout, Op, Type};

/// Largest error, values being in −1..1: a score of up to 128 products has an error of some
/// 2⁻²⁴ · √128 · its size (at most about 10 here), which is the relative error of a probability;
/// sums of some hundred probabilities add as much again.
const F32_ROUNDING: f64 = 1e-5;

fn attr(heads: u32, kv_heads: u32, head_dim: u32) -> AttentionAttr {
    // Larger than 1/√D, so that some probabilities are large and some vanish.
    let scale = F32(3.0 / (head_dim as f32).sqrt());
    AttentionAttr { heads, kv_heads, head_dim, scale, window: None, softcap: None }
}

fn types(attr: &AttentionAttr, cache: DType, lanes: u32) -> [Type; 4] {
    let row = [C, Dim::Const(attr.kv_heads.into()), Dim::Const(attr.head_dim.into())];
    let keys = Type { layout: Layout::PositionLanes(lanes), ..Type::new(cache, row) };
    let values = Type { layout: Layout::HeadMajor, ..Type::new(cache, row) };
    let width = u64::from(attr.heads) * u64::from(attr.head_dim);
    [Type::f32([T, Dim::Const(width)]), keys, values, Type::new(DType::I32, [T])]
}

/// Operands, by position and not in the layout of kernels.
struct Case {
    attr: AttentionAttr,
    cache: DType,
    tokens: usize,
    /// Positions before the first query.
    start: usize,
    capacity: usize,
    queries: Vec<f32>,
    /// `[position][kv head][element]`, rounded to the cache's dtype.
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    fn new(
        attr: &AttentionAttr,
        cache: DType,
        tokens: usize,
        start: usize,
        capacity: usize,
    ) -> Case {
        let (heads, kv_heads) = (attr.heads as usize, attr.kv_heads as usize);
        let dim = attr.head_dim as usize;
        let length = start + tokens;
        assert!(length <= capacity);
        let round = |x: &f32| match cache {
            DType::F16 => f16::from_f32(*x).to_f32(),
            DType::BF16 => half::bf16::from_f32(*x).to_f32(),
            _ => *x,
        };
        let stored = |seed| -> Vec<f32> {
            random_f32(seed, length * kv_heads * dim).iter().map(round).collect()
        };
        Case {
            attr: attr.clone(),
            cache,
            tokens,
            start,
            capacity,
            queries: random_f32(1, tokens * heads * dim),
            keys: stored(2),
            values: stored(3),
        }
    }

    /// A cache in memory. What no position has written yet is NaN: it must not matter.
    fn cache(
        &self,
        values: &[f32],
        elements: usize,
        at: impl Fn(usize, usize, usize) -> usize,
    ) -> Aligned {
        let (kv_heads, dim) = (self.attr.kv_heads as usize, self.attr.head_dim as usize);
        let mut memory = vec![f32::NAN; elements];
        for (index, &value) in values.iter().enumerate() {
            let (position, head, element) =
                (index / dim / kv_heads, index / dim % kv_heads, index % dim);
            memory[at(position, head, element)] = value;
        }
        match self.cache {
            DType::F32 => f32s(&memory),
            dtype => Aligned::from_bytes(
                &memory
                    .iter()
                    .flat_map(|&x| match dtype {
                        DType::F16 => f16::from_f32(x).to_le_bytes(),
                        _ => half::bf16::from_f32(x).to_le_bytes(),
                    })
                    .collect::<Vec<_>>(),
            ),
        }
    }

    fn buffers(&self, lanes: usize) -> Vec<Aligned> {
        let (kv_heads, dim) = (self.attr.kv_heads as usize, self.attr.head_dim as usize);
        let groups = self.capacity.div_ceil(lanes);
        let keys = self.cache(&self.keys, kv_heads * groups * dim * lanes, |p, head, element| {
            ((head * groups + p / lanes) * dim + element) * lanes + p % lanes
        });
        let values =
            self.cache(&self.values, kv_heads * self.capacity * dim, |p, head, element| {
                (head * self.capacity + p) * dim + element
            });
        let positions: Vec<i32> = (0..self.tokens).map(|t| (self.start + t) as i32).collect();
        let result = vec![7.0; self.queries.len() + 1];
        vec![f32s(&self.queries), keys, values, i32s(&positions), f32s(&result)]
    }

    fn symbols(&self) -> [i64; 3] {
        [self.tokens, self.start + self.tokens, self.capacity].map(|n| n as i64)
    }

    fn reference(&self) -> Vec<f64> {
        let (heads, kv_heads) = (self.attr.heads as usize, self.attr.kv_heads as usize);
        let dim = self.attr.head_dim as usize;
        let row =
            |position: usize, head: usize| (position * kv_heads + head / (heads / kv_heads)) * dim;
        let mut results = vec![];
        for token in 0..self.tokens {
            let last = self.start + token;
            let first = self.attr.window.map_or(0, |w| (last + 1).saturating_sub(w as usize));
            for head in 0..heads {
                let query = &self.queries[(token * heads + head) * dim..][..dim];
                let score = |position: usize| {
                    let key = &self.keys[row(position, head)..][..dim];
                    let dot: f64 =
                        query.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    let score = dot * f64::from(self.attr.scale.0);
                    self.attr.softcap.map_or(score, |cap| {
                        let cap = f64::from(cap.0);
                        cap * (score / cap).tanh()
                    })
                };
                let scores: Vec<f64> = (first..=last).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let mass: f64 = weights.iter().sum();
                for element in 0..dim {
                    let value = |position| f64::from(self.values[row(position, head) + element]);
                    let sum: f64 =
                        weights.iter().enumerate().map(|(i, w)| w * value(first + i)).sum();
                    results.push(sum / mass);
                }
            }
        }
        results
    }

    fn check(&self, runner: &Runner, target: &CpuTarget) {
        let mut buffers = self.buffers(target.lanes as usize);
        runner.run(&mut buffers, self.symbols());
        let count = self.queries.len();
        let results = read_f32s(&buffers[4], count + 1);
        assert_eq!(results[count], 7.0, "wrote past the end");
        for (index, (&got, want)) in results.iter().zip(self.reference()).enumerate() {
            let error = (f64::from(got) - want).abs();
            assert!(
                error <= F32_ROUNDING,
                "{} {:?} {} T={} start={}: element {index} is {got}, not {want}",
                target.name,
                self.attr,
                self.cache,
                self.tokens,
                self.start
            );
        }
    }
}

/// Checks prefill and decode of `attr` for several numbers of tokens and starts.
fn check(attr: &AttentionAttr, cache: DType, shapes: &[(usize, usize)]) {
    for target in runnable_targets(&["cpu", "cpu-v3"]) {
        let types = types(attr, cache, target.lanes);
        let op = || Op::Attention { attr: attr.clone() };
        let prefill = Runner::new(kernel(op(), &types, Variant::Prefill, &target), &target);
        let decode = Runner::new(kernel(op(), &types, Variant::Decode, &target), &target);
        for &(tokens, start) in shapes {
            let capacity = start + tokens + start % 5;
            let case = Case::new(attr, cache, tokens, start, capacity);
            case.check(&prefill, &target);
            if tokens == 1 {
                case.check(&decode, &target);
            }
        }
    }
}

#[test]
fn heads_of_all_sizes() {
    let shapes = [(1, 0), (3, 14), (17, 0), (40, 5), (1, 300)];
    for (head_dim, heads, kv_heads) in
        [(1, 1, 1), (8, 4, 2), (20, 3, 3), (40, 2, 1), (64, 9, 3), (80, 2, 2), (128, 3, 1)]
    {
        check(&attr(heads, kv_heads, head_dim), DType::F32, &shapes);
    }
}

#[test]
fn caches_of_half_precision() {
    let shapes = [(1, 0), (17, 130), (1, 511), (40, 0)];
    check(&attr(9, 3, 64), DType::F16, &shapes);
    check(&attr(2, 1, 20), DType::F16, &shapes);
    check(&attr(2, 1, 20), DType::BF16, &shapes);
}

#[test]
fn groups_that_do_not_divide() {
    let shapes = [(1, 33), (1, 700), (13, 2)];
    check(&attr(7, 1, 16), DType::F32, &shapes);
    check(&attr(10, 2, 32), DType::F32, &shapes);
    check(&attr(8, 1, 24), DType::F16, &shapes);
}

#[test]
fn windows_and_soft_caps() {
    let shapes = [(1, 0), (1, 15), (1, 299), (3, 16), (40, 250), (17, 0)];
    for window in [1, 7, 16, 100] {
        let attr = AttentionAttr { window: Some(window), ..attr(2, 1, 24) };
        check(&attr, DType::F32, &shapes);
    }
    let capped = AttentionAttr { softcap: Some(F32(2.5)), ..attr(2, 1, 24) };
    check(&capped, DType::F32, &shapes);
}

#[test]
fn a_nan_in_a_query_shows() {
    let target = CpuTarget::host().unwrap();
    let attr = attr(1, 1, 16);
    let op = Op::Attention { attr: attr.clone() };
    let types = types(&attr, DType::F32, target.lanes);
    let runner = Runner::new(kernel(op, &types, Variant::Decode, &target), &target);
    let mut case = Case::new(&attr, DType::F32, 1, 40, 41);
    case.queries[3] = f32::NAN;
    let mut buffers = case.buffers(target.lanes as usize);
    runner.run(&mut buffers, case.symbols());
    assert!(read_f32s(&buffers[4], 16).iter().all(|x| x.is_nan()));
}

#[test]
fn what_has_no_kernel_is_refused() {
    let target = CpuTarget::from_name("cpu-v3").unwrap();
    let refuse = |attr: &AttentionAttr, lanes: u32, cache: DType| -> KernelError {
        let mut module = crate::kernels::cpu::testing::module();
        let mut function = waveloom_ir::FunctionBuilder::new(&module, "main");
        let operands: Vec<_> =
            types(attr, cache, lanes).into_iter().map(|ty| function.param("x", ty)).collect();
        let results = function.push(Op::Attention { attr: attr.clone() }, &operands).unwrap();
        let function = function.finish(&results);
        module.add_function(function);
        let function = &module.functions[0];
        kernel_for(&module, function, InstId(0), Variant::Decode, &target.clone().into())
            .unwrap_err()
    };
    assert_eq!(
        refuse(&attr(2, 1, 16), 16, DType::F32).to_string(),
        "`attention`: wants keys with 8 positions side by side and values by head; run \
         choose-layouts for this target"
    );
    assert_eq!(
        refuse(&attr(2, 1, 16), 8, DType::F8E4M3).to_string(),
        "`attention`: a KV cache of f8e4m3"
    );
}

/// Seconds per run, over half a second of runs.
fn measure(mut run: impl FnMut()) -> f64 {
    run();
    let (start, mut runs) = (on_cpu(), 0);
    while on_cpu() - start < 0.5 {
        run();
        runs += 1;
    }
    (on_cpu() - start) / f64::from(runs)
}

/// Multiply-adds on registers alone, in GFLOP/s.
fn peak(target: &CpuTarget) -> f64 {
    const TURNS: i64 = 1 << 20;
    let mut k = Builder::new("peak");
    let at = k.arg_ptr(0);
    let x = k.load(at, Elem::F32.vec(target.lanes));
    let (zero, turns) = (k.i64(0), k.i64(TURNS));
    let sums = k.for_values(zero, turns, 1, &[x; 12], |k, _, sums| {
        sums.iter().map(|&sum| k.fma(sum, x, x)).collect()
    });
    let sum = sums[1..].iter().fold(sums[0], |total, &sum| k.add(total, sum));
    k.store(sum, at);
    let kernel = Loaded::new(&k.finish(), target).unwrap();
    let buffer = Aligned::new(64);
    let seconds = measure(|| kernel.run(&[buffer.arg()], 0, 1, 0));
    (TURNS * 12 * 2 * i64::from(target.lanes)) as f64 / seconds * 1e-9
}

#[test]
#[ignore = "measures"]
fn speed() {
    for target in runnable_targets(&["cpu", "cpu-v3"]) {
        eprintln!("{} peak {:.1} GFLOP/s", target.name, peak(&target));
        for cache in [DType::F32, DType::F16] {
            for (heads, kv_heads, head_dim) in [(9, 3, 64), (8, 2, 128), (4, 4, 64)] {
                let attr = attr(heads, kv_heads, head_dim);
                let types = types(&attr, cache, target.lanes);
                let op = || Op::Attention { attr: attr.clone() };
                let run = |variant, tokens: usize, start: usize| {
                    let runner = Runner::new(kernel(op(), &types, variant, &target), &target);
                    let case = Case::new(&attr, cache, tokens, start, 2048);
                    let buffers = case.buffers(target.lanes as usize);
                    let (symbols, items) = (case.symbols(), runner.items(case.symbols()));
                    measure(|| runner.run_items(&buffers, symbols, 0, items))
                };
                let heads = f64::from(heads) * f64::from(head_dim);
                let prefill = run(Variant::Prefill, 512, 1536);
                let pairs = 512.0 * (1536.0 + 512.5 / 2.0);
                let first = run(Variant::Prefill, 512, 0);
                let decode = run(Variant::Decode, 1, 2047);
                let bytes =
                    2.0 * 2048.0 * f64::from(kv_heads * head_dim) * cache.block_bytes() as f64;
                eprintln!(
                    "{} {cache} {:?}: prefill {:.1} GFLOP/s (first chunk {:.1}), decode {:.1} GB/s, {:.1} µs",
                    target.name,
                    (attr.heads, attr.kv_heads, attr.head_dim),
                    4.0 * heads * pairs / prefill * 1e-9,
                    4.0 * heads * 512.0 * 256.5 / first * 1e-9,
                    bytes / decode * 1e-9,
                    decode * 1e6
                );
            }
        }
    }
}
