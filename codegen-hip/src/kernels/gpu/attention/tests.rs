//! Attention kernels in the emulator, against a scalar reference in f64 on the cache as f16 has it.

use crate::harness::random_f32;
use crate::kernels::gpu::testing::{
    CHIPS, LAYOUTS, Outcome, Runner, f32_bytes, i32_bytes, kernel, stands_for_nvidia, target,
    to_f32, unwritten,
};
use crate::kernels::{KernelError, Variant, kernel_for};
use crate::{Target, compile};
use half::f16;
use waveloom_ir::{
    AttentionAttr, DType, Dim, F32, FunctionBuilder, InstId, Layout, Op, SymbolId, Type,
};

const T: Dim = Dim::Symbol(SymbolId(0));
const C: Dim = Dim::Symbol(SymbolId(2));

/// Largest error of decode, values being in −1..1. Queries and probabilities are in two f16 parts,
/// 22 bits; so what counts is f32: a score of up to 256 products has an error of some 2⁻²⁴ · √256 ·
/// its size (at most about 10 here), which is the relative error of a probability; the
/// exponential's 1 ulp and the sums of some thousand probabilities add as much again.
const F32_ROUNDING: f64 = 1e-5;

/// Largest error of prefill. Queries are rounded to f16, by at most 2⁻¹¹ of their size. A score is
/// a sum of D products q·k · 3/√D with q and k uniform in −1..1: if the roundings are independent,
/// of variance 2⁻²⁴/3 each relative to q², its error has a standard deviation of
/// 2⁻¹² · 3 / √3 / 3 = 1.4·10⁻⁴; probabilities are rounded by as much. A result is a mean of values
/// (at most 1) under weights that are wrong by that: five standard deviations of both together are
/// 10⁻³.
const F16_ROUNDING: f64 = 1e-3;

fn attr(heads: u32, kv_heads: u32, head_dim: u32) -> AttentionAttr {
    // Larger than 1/√D, so that some probabilities are large and some vanish.
    let scale = F32(3.0 / (head_dim as f32).sqrt());
    AttentionAttr { heads, kv_heads, head_dim, scale, window: None, softcap: None }
}

fn wave(target: &Target) -> u32 {
    let Target::Gpu(target) = target else { panic!("a GPU") };
    target.wave
}

fn types(attr: &AttentionAttr, cache: DType, wave: u32) -> [Type; 4] {
    let row = [C, Dim::Const(attr.kv_heads.into()), Dim::Const(attr.head_dim.into())];
    let keys = Type { layout: Layout::KeyBlocks(wave), ..Type::new(cache, row) };
    let values = Type { layout: Layout::ValueBlocks(wave), ..Type::new(cache, row) };
    let width = u64::from(attr.heads) * u64::from(attr.head_dim);
    [Type::f32([T, Dim::Const(width)]), keys, values, Type::new(DType::I32, [T])]
}

/// Operands, by position and not in the layout of kernels.
struct Case {
    attr: AttentionAttr,
    tokens: usize,
    /// Positions before the first query.
    start: usize,
    capacity: usize,
    queries: Vec<f32>,
    /// `[position][kv head][element]`.
    keys: Vec<f16>,
    values: Vec<f16>,
}

impl Case {
    fn new(attr: &AttentionAttr, tokens: usize, start: usize, capacity: usize) -> Case {
        let (heads, kv_heads) = (attr.heads as usize, attr.kv_heads as usize);
        let dim = attr.head_dim as usize;
        let length = start + tokens;
        assert!(length <= capacity);
        let stored = |seed| -> Vec<f16> {
            let numbers = random_f32(seed, length * kv_heads * dim);
            numbers.into_iter().map(f16::from_f32).collect()
        };
        Case {
            attr: attr.clone(),
            tokens,
            start,
            capacity,
            queries: random_f32(1, tokens * heads * dim),
            keys: stored(2),
            values: stored(3),
        }
    }

    /// A cache in memory. Chunks that no position has written are memory that nobody wrote, and
    /// what is missing in a chunk is NaN: neither may matter.
    fn cache(&self, stored: &[f16], layout: Layout) -> Vec<u8> {
        let (kv_heads, dim) = (self.attr.kv_heads as usize, self.attr.head_dim as usize);
        let capacity = layout.capacity(self.capacity as u64) as usize;
        let shape = [self.capacity, kv_heads, dim].map(|n| n as u64);
        let mut memory = vec![None; kv_heads * capacity * dim];
        for (index, &value) in stored.iter().enumerate() {
            let at = [index / dim / kv_heads, index / dim % kv_heads, index % dim];
            memory[layout.index(shape, at.map(|n| n as u64), 2) as usize] = Some(value);
        }
        let chunks = memory.chunks_exact(8).flat_map(|chunk| {
            if chunk.iter().all(Option::is_none) {
                return unwritten(16);
            }
            let numbers = chunk.iter().map(|x| x.unwrap_or(f16::NAN));
            numbers.flat_map(f16::to_le_bytes).collect()
        });
        chunks.collect()
    }

    fn buffers(&self, wave: u32) -> Vec<Vec<u8>> {
        let positions: Vec<i32> = (0..self.tokens).map(|t| (self.start + t) as i32).collect();
        vec![
            f32_bytes(&self.queries),
            self.cache(&self.keys, Layout::KeyBlocks(wave)),
            self.cache(&self.values, Layout::ValueBlocks(wave)),
            i32_bytes(&positions),
            unwritten(self.queries.len() * 4),
        ]
    }

    fn symbols(&self) -> [i64; 3] {
        [self.tokens, self.start + self.tokens, self.capacity].map(|n| n as i64)
    }

    fn reference(&self) -> Vec<f64> {
        let mut results = vec![];
        for token in 0..self.tokens {
            for head in 0..self.attr.heads as usize {
                results.extend(self.reference_row(token, head));
            }
        }
        results
    }

    fn reference_row(&self, token: usize, head: usize) -> Vec<f64> {
        let (heads, kv_heads) = (self.attr.heads as usize, self.attr.kv_heads as usize);
        let dim = self.attr.head_dim as usize;
        let row = |position: usize| (position * kv_heads + head / (heads / kv_heads)) * dim;
        let last = self.start + token;
        let first = self.attr.window.map_or(0, |w| (last + 1).saturating_sub(w as usize));
        let query = &self.queries[(token * heads + head) * dim..][..dim];
        let score = |position: usize| {
            let products = query.iter().zip(&self.keys[row(position)..][..dim]);
            let dot: f64 = products.map(|(&q, &k)| f64::from(q) * k.to_f64()).sum();
            let score = dot * f64::from(self.attr.scale.0);
            let cap = self.attr.softcap.map(|cap| f64::from(cap.0));
            cap.map_or(score, |cap| cap * (score / cap).tanh())
        };
        let scores: Vec<f64> = (first..=last).map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let mass: f64 = weights.iter().sum();
        let mut sums = vec![0.0; dim];
        for (index, weight) in weights.iter().enumerate() {
            for (sum, value) in sums.iter_mut().zip(&self.values[row(first + index)..]) {
                *sum += weight * value.to_f64();
            }
        }
        sums.into_iter().map(|sum| sum / mass).collect()
    }

    /// Runs and compares; gives the largest error, too.
    fn check(&self, runner: &Runner, chip: &Target, tolerance: f64) -> (Outcome, f64) {
        let outcome = runner.run(&self.buffers(wave(chip)), self.symbols());
        // Which lanes an NVIDIA GPU serves at once is another matter.
        if !stands_for_nvidia(chip) {
            assert_eq!(outcome.statistics.lds.conflict_cycles, 0, "bank conflicts");
        }
        let results = to_f32(&outcome.buffers[4]);
        let mut largest = 0.0f64;
        for (index, (&got, want)) in results.iter().zip(self.reference()).enumerate() {
            let error = (f64::from(got) - want).abs();
            assert!(
                error <= tolerance,
                "{} {:?} T={} start={}: element {index} is {got}, not {want}",
                chip.name(),
                self.attr,
                self.tokens,
                self.start
            );
            largest = largest.max(error);
        }
        (outcome, largest)
    }
}

fn runner(attr: &AttentionAttr, variant: Variant, chip: &Target) -> Runner {
    let op = Op::Attention { attr: attr.clone() };
    let source = kernel(op, &types(attr, DType::F16, wave(chip)), variant, chip);
    let runner = Runner::new(source, chip);
    let hot = runner.facts.hot_loop.clone().expect("a walk over blocks");
    if stands_for_nvidia(chip) {
        return runner;
    }
    assert!(hot.matrix > 0, "{}: {hot:?}", chip.name());
    assert_eq!(hot.narrow_loads, 0, "{}: {hot:?}", chip.name());
    // Some loads are always under way, unless a block has fewer than that.
    assert!(hot.full_waits == 0 || attr.head_dim < 64, "{}: {hot:?}", chip.name());
    runner
}

/// Checks `attr` on every chip, one at a time, for several numbers of tokens and starts; says how
/// large errors were.
fn check(attr: &AttentionAttr, variant: Variant, shapes: &[(usize, usize)]) {
    let tolerance = match variant {
        Variant::Prefill => F16_ROUNDING,
        Variant::Decode => F32_ROUNDING,
    };
    for chip in LAYOUTS.map(target) {
        let runner = runner(attr, variant, &chip);
        let mut largest = 0.0f64;
        for &(tokens, start) in shapes {
            let case = Case::new(attr, tokens, start, start + tokens + start % 5);
            largest = case.check(&runner, &chip, tolerance).1.max(largest);
        }
        let (summary, facts) = (&runner.source.summary, &runner.facts);
        eprintln!("{}: {summary}: error {largest:.1e}, {facts:?}", chip.name());
    }
}

/// Decode of one token after these many positions.
fn check_decode(attr: &AttentionAttr, lengths: &[usize]) {
    let shapes: Vec<_> = lengths.iter().map(|&length| (1, length - 1)).collect();
    check(attr, Variant::Decode, &shapes);
}

#[test]
fn decode_of_lengths_from_1_to_4096() {
    check_decode(&attr(9, 3, 64), &[1, 2, 31, 63, 64, 65, 127, 255, 256, 257, 1000, 4096]);
}

#[test]
fn decode_of_heads_of_all_sizes() {
    for (head_dim, heads, kv_heads) in
        [(8, 2, 1), (72, 2, 2), (80, 4, 2), (96, 3, 3), (128, 8, 2), (256, 4, 1)]
    {
        check_decode(&attr(heads, kv_heads, head_dim), &[1, 65, 777]);
    }
}

#[test]
fn decode_of_groups_of_all_sizes() {
    for group in [1, 2, 5, 6, 7, 8] {
        check_decode(&attr(2 * group, 2, 64), &[33, 600]);
    }
    // More than a workgroup takes, and in parts of unequal sizes.
    check_decode(&attr(11, 1, 64), &[33, 1300]);
}

#[test]
fn prefill_of_1_to_100_tokens() {
    let shapes = [(1, 0), (2, 0), (15, 0), (16, 0), (17, 0), (33, 0), (64, 0), (100, 0)];
    check(&attr(9, 3, 64), Variant::Prefill, &shapes);
    let shapes = [(1, 4095), (5, 130), (64, 1), (16, 1000), (100, 77), (33, 64)];
    check(&attr(9, 3, 64), Variant::Prefill, &shapes);
}

/// Few rows after many positions: workgroups for the whole chip, and waves that walk a part of the
/// positions only.
#[test]
fn prefill_of_few_tokens_after_many() {
    for chip in CHIPS.map(target) {
        let Target::Gpu(gpu) = &chip else { panic!("a GPU") };
        let attr = attr(9, 3, 64);
        let runner = runner(&attr, Variant::Prefill, &chip);
        let workgroups = |symbols: &[i64]| runner.source.items.eval(symbols).unwrap() as u32;
        assert!(workgroups(&[1, 9000, 9000]) >= gpu.compute_units);
        assert!(workgroups(&[512, 9000, 9000]) <= 2 * gpu.compute_units);
        for (tokens, length) in [(1, 4100), (16, 2048), (40, 3000)] {
            let case = Case::new(&attr, tokens, length - tokens, length);
            let (outcome, error) = case.check(&runner, &chip, F16_ROUNDING);
            let statistics = &outcome.statistics;
            eprintln!(
                "{}: T={tokens} S={length}: {} workgroups, {} waves, {} instructions, \
                 error {error:.1e}",
                chip.name(),
                statistics.workgroups,
                statistics.waves,
                statistics.instructions,
            );
        }
    }
}

#[test]
fn prefill_of_heads_of_all_sizes() {
    for (head_dim, heads, kv_heads) in
        [(8, 2, 1), (72, 2, 2), (80, 4, 2), (96, 3, 3), (128, 8, 2), (256, 2, 1)]
    {
        check(&attr(heads, kv_heads, head_dim), Variant::Prefill, &[(7, 0), (40, 90), (64, 0)]);
    }
}

#[test]
fn prefill_of_groups_of_all_sizes() {
    for group in [1, 2, 5, 7] {
        check(&attr(2 * group, 2, 64), Variant::Prefill, &[(20, 13)]);
    }
}

#[test]
fn windows() {
    for window in [1, 50, 300] {
        let attr = AttentionAttr { window: Some(window), ..attr(4, 2, 24) };
        check_decode(&attr, &[1, 64, 65, 300, 1500]);
        check(&attr, Variant::Prefill, &[(3, 16), (40, 250), (64, 0), (100, 0)]);
    }
}

#[test]
fn soft_caps_and_scales_of_any_sign() {
    let capped = AttentionAttr { softcap: Some(F32(2.5)), ..attr(4, 2, 64) };
    check_decode(&capped, &[1, 300]);
    check(&capped, Variant::Prefill, &[(40, 30)]);
    let negative = AttentionAttr { scale: F32(-0.2), ..attr(4, 2, 64) };
    check_decode(&negative, &[200]);
    check(&negative, Variant::Prefill, &[(40, 30)]);
}

#[test]
fn a_nan_in_a_query_shows_in_its_row_alone() {
    let attr = attr(2, 1, 16);
    for chip in LAYOUTS.map(target) {
        for (variant, tokens) in [(Variant::Decode, 1), (Variant::Prefill, 20)] {
            let runner = runner(&attr, variant, &chip);
            let mut case = Case::new(&attr, tokens, 40, 100);
            case.queries[3] = f32::NAN;
            let outcome = runner.run_once(&case.buffers(wave(&chip)), case.symbols(), true);
            let results = to_f32(&outcome.buffers[4]);
            assert!(results[..16].iter().all(|x| x.is_nan()), "{}", chip.name());
            assert!(results[16..].iter().all(|x| x.is_finite()), "{}", chip.name());
        }
    }
}

/// What decode must move: keys and values of the positions that there are, in whole chunks, and the
/// queries.
#[test]
fn decode_reads_the_cache_once() {
    for (heads, kv_heads, head_dim) in
        [(9, 3, 64), (8, 8, 64), (8, 1, 64), (32, 8, 128), (7, 1, 80), (4, 2, 96), (8, 1, 256)]
    {
        let attr = attr(heads, kv_heads, head_dim);
        let length = 4096;
        for chip in LAYOUTS.map(target) {
            let runner = runner(&attr, Variant::Decode, &chip);
            let case = Case::new(&attr, 1, length - 1, length + 7);
            let (outcome, _) = case.check(&runner, &chip, F32_ROUNDING);
            let cache = 2 * 2 * length as u64 * u64::from(kv_heads * head_dim);
            let compulsory = cache + 4 * u64::from(heads * head_dim);
            let statistics = &outcome.statistics;
            let ratio = statistics.bytes_read as f64 / compulsory as f64;
            let per_kib = statistics.instructions as f64 / (cache as f64 / 1024.0);
            eprintln!(
                "{}: {}: {ratio:.3}; {per_kib:.1} wave instructions per KiB of cache",
                chip.name(),
                runner.source.summary
            );
            assert!(ratio <= 1.05, "{}: {}: {ratio}", chip.name(), runner.source.summary);
        }
    }
}

/// All that decode depends on is in device memory: number of workgroups and arguments are those of
/// the capacity.
#[test]
fn decode_depends_on_the_capacity_alone() {
    for chip in LAYOUTS.map(target) {
        let op = Op::Attention { attr: attr(9, 3, 64) };
        let types = types(&attr(9, 3, 64), DType::F16, wave(&chip));
        let source = kernel(op, &types, Variant::Decode, &chip);
        let mut only_capacity = |symbol| symbol == 2;
        assert!(source.items.all_symbols(&mut only_capacity));
        for role in &source.args {
            if let crate::kernels::ArgRole::Scalar(expr) = role {
                assert!(expr.all_symbols(&mut only_capacity), "{expr:?}");
            }
        }
    }
}

/// The registers that tiles need are those that the compiler gets by with: as many waves as were
/// planned, and nothing spilled.
#[test]
fn as_many_waves_as_planned() {
    for (chip, head_dim) in CHIPS.iter().flat_map(|c| [64, 72, 80, 128, 256].map(|d| (c, d))) {
        let chip = target(chip);
        for (variant, window) in [(Variant::Prefill, None), (Variant::Decode, Some(100))] {
            let attr = AttentionAttr { window, ..attr(6, 2, head_dim) };
            let op = Op::Attention { attr: attr.clone() };
            let source = kernel(op, &types(&attr, DType::F16, wave(&chip)), variant, &chip);
            let facts = compile(&source.text, &chip, false).unwrap().facts.unwrap();
            let (found, planned) = (facts.waves_per_simd, facts.planned_waves_per_simd);
            let what = format!("{} {} {window:?}: {facts:?}", chip.name(), source.summary);
            eprintln!("{found}/{planned}: {what}");
            assert_eq!([facts.spills, facts.private_bytes], [0, 0], "{what}");
            assert!(found >= planned, "{what}");
        }
    }
}

/// `WAVELOOM_DUMP=folder cargo test … -- --ignored attention::tests::assembly`.
#[test]
#[ignore = "writes files, for people"]
fn assembly() {
    let folder = std::env::var("WAVELOOM_DUMP").expect("WAVELOOM_DUMP: a folder");
    for (head_dim, chip) in [24, 64, 128, 256].into_iter().flat_map(|d| CHIPS.map(|c| (d, c))) {
        for variant in [Variant::Prefill, Variant::Decode] {
            let window = (head_dim < 64).then_some(100);
            let attr = AttentionAttr { window, ..attr(4, 1, head_dim) };
            let chip = target(chip);
            let op = Op::Attention { attr: attr.clone() };
            let source = kernel(op, &types(&attr, DType::F16, wave(&chip)), variant, &chip);
            let dump = compile(&source.text, &chip, true).unwrap().dump.unwrap();
            let name = format!("{folder}/{}-{variant:?}-{head_dim}", chip.name());
            std::fs::write(format!("{name}.s"), dump.assembly).unwrap();
            std::fs::write(format!("{name}.ll"), dump.llvm_ir).unwrap();
        }
    }
}

#[test]
fn what_has_no_kernel_is_refused() {
    let chip = target("gfx942");
    let refuse = |attr: &AttentionAttr, wave: u32, cache: DType| -> KernelError {
        let mut module = crate::kernels::gpu::testing::module();
        let mut function = FunctionBuilder::new(&module, "main");
        let operands: Vec<_> =
            types(attr, cache, wave).into_iter().map(|ty| function.param("x", ty)).collect();
        let results = function.push(Op::Attention { attr: attr.clone() }, &operands).unwrap();
        let function = function.finish(&results);
        module.add_function(function);
        let function = &module.functions[0];
        kernel_for(&module, function, InstId(0), Variant::Decode, &chip).unwrap_err()
    };
    assert_eq!(
        refuse(&attr(2, 1, 16), 32, DType::F16).to_string(),
        "`attention`: wants keys and values in blocks of 64 positions; run choose-layouts for this \
         target"
    );
    assert_eq!(
        refuse(&attr(2, 1, 16), 64, DType::F32).to_string(),
        "`attention`: a KV cache of f32 and f32, not f16"
    );
    assert_eq!(
        refuse(&attr(2, 1, 20), 64, DType::F16).to_string(),
        "`attention`: 2 heads, 1 KV heads of 20 elements; the KV heads must divide the heads (at \
         most 65536), a head must have a multiple of 8 elements up to 256, a window at least one \
         position"
    );
}
