//! The kernels on all chips, in the emulator, against a reference in f64 that rounds the factors as
//! they do.

use super::*;
use crate::Target;
use crate::harness::random_f32;
use crate::kernels::gpu::testing::{
    CHIPS, LAYOUTS, MMA, Outcome, Runner, WGMMA, f32_bytes, i32_bytes, target, to_f32, unwritten,
};
use crate::kernels::section::accumulators;
use crate::target::MatrixType;
use half::{bf16, f16};
use waveloom_ir::{
    BinaryOp, DType, Dim, Expr, F32, GemmOutput, Layout, Store, Type, UnaryOp, storage,
};

/// A sum of K products in f32 has at most two roundings a product (RDNA 3 cuts two products and the
/// sum so far at a time, CDNA 2 rounds sums of pairs), each of 2⁻²⁴ of what the running sum may be:
/// three times the root of the products' squares, which sums of products of random signs exceed
/// once in hundreds of times; that all point one way does not happen with them.
const ROUNDINGS: f64 = 2.0 * 3.0 / (1 << 24) as f64;
/// Of the few operations of an epilogue, relative to the result.
const EPILOGUE: f64 = 2e-6;

/// The largest f16.
const LARGEST: f64 = 65504.0;

/// A `gemm` with its operands.
struct Case {
    m: usize,
    k: usize,
    norm_eps: Option<f32>,
    x: Vec<f32>,
    norm: Vec<f32>,
    weights: Vec<Weight>,
    /// Dense.
    outputs: Vec<Expr>,
}

struct Weight {
    layout: GpuLayout,
    packed: Vec<u8>,
    /// Exact.
    values: Vec<f64>,
}

impl Weight {
    fn random(seed: u64, dtype: DType, n: usize, k: usize) -> Weight {
        let values = random_f32(seed, n * k);
        let bytes = storage::quantize(dtype, &values, k).unwrap();
        let layout = GpuLayout::new(dtype, n as u64, k as u64).unwrap();
        Weight { layout, packed: layout.pack(&bytes), values: exact(dtype, &bytes) }
    }
}

/// What stored bytes stand for, without rounding.
fn exact(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let half = |b: &[u8]| f64::from(f16::from_le_bytes([b[0], b[1]]).to_f32());
    let nibbles = |quants: &[u8], scale: f64, minimum: f64| -> Vec<f64> {
        let low = quants.iter().map(|q| f64::from(q & 15));
        let high = quants.iter().map(|q| f64::from(q >> 4));
        low.chain(high).map(|q| q * scale + minimum).collect()
    };
    let blocks = bytes.chunks_exact(dtype.block_bytes() as usize);
    match dtype {
        DType::F32 => blocks.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect(),
        DType::F16 => blocks.map(half).collect(),
        DType::BF16 => blocks.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32().into()).collect(),
        DType::Q8_0 => blocks
            .flat_map(|b| b[2..].iter().map(|q| half(b) * f64::from(*q as i8)).collect::<Vec<_>>())
            .collect(),
        DType::Q4_0 => blocks.flat_map(|b| nibbles(&b[2..], half(b), -8.0 * half(b))).collect(),
        DType::Q4_1 => blocks.flat_map(|b| nibbles(&b[4..], half(b), half(&b[2..]))).collect(),
        other => panic!("{other}"),
    }
}

/// A factor as the matrix operation of a chip sees it.
fn factor(value: f64, ty: MatrixType, chip: &str) -> f64 {
    let (bits, least) = match ty {
        MatrixType::F16 => (10, -14),
        MatrixType::Bf16 => (7, -126),
        MatrixType::F32 => return f64::from(value as f32),
    };
    if value == 0.0 {
        return value;
    }
    let exponent = (value.abs().log2().floor() as i32).max(least);
    let unit = 2f64.powi(exponent - bits);
    let rounded = (value / unit).round_ties_even() * unit;
    // MI200's matrix operations take denormals for zeros.
    if chip == "gfx90a" && rounded.abs() < 2f64.powi(least) {
        return 0.0;
    }
    if ty == MatrixType::F16 { rounded.clamp(-LARGEST, LARGEST) } else { rounded }
}

impl Case {
    fn new(m: usize, n: usize, k: usize, dtypes: &[DType], output: Expr) -> Case {
        let weights = dtypes.iter().zip(3..).map(|(d, seed)| Weight::random(seed, *d, n, k));
        Case {
            m,
            k,
            norm_eps: None,
            x: random_f32(1, m * k),
            norm: random_f32(2, k),
            weights: weights.collect(),
            outputs: vec![output],
        }
    }

    /// Columns of an output.
    fn columns(&self, output: &Expr) -> usize {
        self.weights[accumulators(output)[0]].layout.rows as usize
    }

    fn spec(&self) -> GemmSpec {
        GemmSpec {
            rows: Rows::Many(plan::Expr::Symbol(0)),
            k: self.k as u64,
            norm_eps: self.norm_eps,
            weights: self.weights.iter().map(|weight| weight.layout).collect(),
            outputs: self
                .outputs
                .iter()
                .map(|expr| GemmOutput { expr: expr.clone(), store: Store::Dense })
                .collect(),
            extras: vec![],
            work_items: 0,
        }
    }

    fn buffers(&self) -> Vec<Vec<u8>> {
        let mut buffers = vec![f32_bytes(&self.x)];
        buffers.extend(self.norm_eps.map(|_| f32_bytes(&self.norm)));
        buffers.extend(self.weights.iter().map(|weight| weight.packed.clone()));
        let results = self.outputs.iter().map(|output| self.m * self.columns(output) * 4);
        buffers.extend(results.map(unwritten));
        buffers
    }

    fn runner(&self, name: &str, config: Option<TileConfig>) -> Runner {
        let target = target(name);
        let Target::Gpu(amd) = &target else { panic!("{name} is a GPU") };
        let spec = self.spec();
        let config = config.or_else(|| TileConfig::default_for(&spec, 512, amd)).expect("tiles");
        let source = kernel(&spec, 512, config, amd).unwrap();
        Runner::new(source, &target)
    }

    fn run(&self, runner: &Runner) -> Outcome {
        runner.run(&self.buffers(), [self.m as i64, 1, 1])
    }

    fn check(&self, name: &str) {
        self.check_on(name, &self.runner(name, None));
    }

    /// Runs and compares.
    fn check_on(&self, name: &str, runner: &Runner) -> Outcome {
        let outcome = self.run(runner);
        let first = outcome.buffers.len() - self.outputs.len();
        let summary = &runner.source.summary;
        for (output, bytes) in self.outputs.iter().zip(&outcome.buffers[first..]) {
            let columns = self.columns(output);
            let wanted = self.reference(output, name);
            for (i, (got, (want, tolerance))) in to_f32(bytes).into_iter().zip(wanted).enumerate() {
                let (row, column) = (i / columns, i % columns);
                let error = (f64::from(got) - want).abs();
                assert!(
                    error <= tolerance,
                    "{name} {summary}, M = {}: {output} [{row}, {column}] is {got}, should be \
                     {want}, error {error:.3e} > {tolerance:.3e}",
                    self.m
                );
            }
        }
        if [MMA, WGMMA].contains(&name) {
            // Which lanes an NVIDIA GPU serves at once is another matter, and shuffles stand for
            // matrix operations.
            return outcome;
        }
        assert_eq!(outcome.statistics.lds.conflict_cycles, 0, "{name} {summary}");
        let matrix = |mnemonic: &str| mnemonic.contains("mfma") || mnemonic.contains("wmma");
        assert!(
            outcome.statistics.mnemonics.keys().any(|m| matrix(m)),
            "{name} {summary}: no matrix operation"
        );
        outcome
    }

    /// Row `m` of x after the norm, as factors, and the largest step between neighbouring factors.
    fn factors(&self, m: usize, ty: MatrixType, chip: &str) -> (Vec<f64>, f64) {
        let x: Vec<f64> = self.x[m * self.k..][..self.k].iter().map(|x| f64::from(*x)).collect();
        let mean = x.iter().map(|x| x * x).sum::<f64>() / self.k as f64;
        let mut step = 0.0f64;
        let normed = |(x, w): (&f64, &f32)| match self.norm_eps {
            None => *x,
            Some(eps) => {
                let value = x / (mean + f64::from(eps)).sqrt() * f64::from(*w);
                let half_step = match ty {
                    MatrixType::F16 => 2f64.powi(-11),
                    MatrixType::Bf16 => 2f64.powi(-8),
                    MatrixType::F32 => 2f64.powi(-24),
                };
                step = step.max(2.0 * half_step * value.abs());
                value
            }
        };
        let normed: Vec<f64> = x.iter().zip(&self.norm).map(normed).collect();
        (normed.iter().map(|x| factor(*x, ty, chip)).collect(), step)
    }

    /// An output and its tolerances.
    fn reference(&self, output: &Expr, chip: &str) -> Vec<(f64, f64)> {
        let rows = (0..self.m).map(|m| {
            let sums: Vec<Vec<(f64, f64)>> = (0..self.weights.len())
                .map(|weight| match accumulators(output).contains(&weight) {
                    true => self.sums(m, weight, chip),
                    false => vec![],
                })
                .collect();
            let of_column = |n: usize| {
                let sums: Vec<(f64, f64)> =
                    sums.iter().map(|sums| sums.get(n).copied().unwrap_or_default()).collect();
                evaluate(output, &sums)
            };
            (0..self.columns(output)).map(of_column).collect::<Vec<_>>()
        });
        rows.flatten().collect()
    }

    /// The products of a row of x with a weight, with their tolerances.
    fn sums(&self, m: usize, weight: usize, chip: &str) -> Vec<(f64, f64)> {
        let weight = &self.weights[weight];
        let ty = fragments::factors(weight.layout.dtype).unwrap();
        let (x, step) = self.factors(m, ty, chip);
        let row = |row: &[f64]| {
            let row: Vec<f64> = row.iter().map(|w| factor(*w, ty, chip)).collect();
            let products = || row.iter().zip(&x).map(|(w, x)| w * x);
            let size = products().map(|p| p * p).sum::<f64>().sqrt();
            let largest = row.iter().fold(0.0f64, |a, w| a.max(w.abs()));
            // A last bit of the norm may round one or two activations the other way.
            let tolerance = ROUNDINGS * self.k as f64 * size + 2.0 * step * largest;
            (products().sum(), tolerance)
        };
        weight.values.chunks_exact(self.k).map(row).collect()
    }
}

/// An output of sums with tolerances, with its own.
fn evaluate(output: &Expr, sums: &[(f64, f64)]) -> (f64, f64) {
    let at = |signs: usize| {
        let moved = sums.iter().enumerate().map(|(i, (sum, tolerance))| {
            if signs >> i & 1 == 1 { sum + tolerance } else { sum - tolerance }
        });
        eval(output, &moved.collect::<Vec<_>>())
    };
    let result = eval(output, &sums.iter().map(|sum| sum.0).collect::<Vec<_>>());
    let corners = (0..1 << sums.len()).map(|signs| (at(signs) - result).abs());
    let tolerance = corners.fold(0.0, f64::max) + EPILOGUE * result.abs();
    (result, tolerance)
}

fn eval(expr: &Expr, sums: &[f64]) -> f64 {
    match expr {
        Expr::Acc(i) => sums[*i as usize],
        Expr::Const(F32(value)) => (*value).into(),
        Expr::Unary(UnaryOp::Sigmoid, x) => 1.0 / (1.0 + (-eval(x, sums)).exp()),
        Expr::Binary(BinaryOp::Mul, x, y) => eval(x, sums) * eval(y, sums),
        other => panic!("the reference has no {other}"),
    }
}

fn silu_product() -> Expr {
    let silu =
        Expr::binary(BinaryOp::Mul, Expr::Acc(0), Expr::unary(UnaryOp::Sigmoid, Expr::Acc(0)));
    Expr::binary(BinaryOp::Mul, silu, Expr::Acc(1))
}

fn amd(name: &str) -> GpuTarget {
    let Target::Gpu(target) = target(name) else { panic!("{name} is a GPU") };
    target
}

/// Chips that multiply weights of this dtype in matrices.
fn chips(dtype: DType) -> impl Iterator<Item = &'static str> {
    LAYOUTS.into_iter().filter(move |name| product::op(&amd(name), &[dtype]).is_some())
}

/// Shapes `(n, k)`, none of whole tiles in both, and rows of x.
const SHAPES: [(usize, usize); 4] = [(1, 32), (17, 96), (80, 544), (192, 576)];
const ROWS: [usize; 4] = [1, 17, 64, 100];

fn check_shapes(dtype: DType) {
    for name in chips(dtype) {
        for (n, k) in SHAPES {
            let runner = Case::new(1, n, k, &[dtype], Expr::Acc(0)).runner(name, None);
            for m in ROWS {
                Case::new(m, n, k, &[dtype], Expr::Acc(0)).check_on(name, &runner);
            }
        }
    }
}

#[test]
fn products_of_f32() {
    check_shapes(DType::F32);
}

#[test]
fn products_of_f16() {
    check_shapes(DType::F16);
}

#[test]
fn products_of_bf16() {
    check_shapes(DType::BF16);
}

#[test]
fn products_of_q8_0() {
    check_shapes(DType::Q8_0);
}

#[test]
fn products_of_q4_0() {
    check_shapes(DType::Q4_0);
}

#[test]
fn products_of_q4_1() {
    check_shapes(DType::Q4_1);
}

#[test]
fn norm_and_gated_product() {
    for dtypes in [
        [DType::F16, DType::F16],
        [DType::Q4_1, DType::Q4_1],
        [DType::Q4_0, DType::Q8_0],
        [DType::F16, DType::Q4_1],
        [DType::BF16, DType::BF16],
    ] {
        for name in chips(dtypes[0]) {
            let case = |m| {
                let mut case = Case::new(m, 80, 288, &dtypes, silu_product());
                case.norm_eps = Some(1e-5);
                case
            };
            let runner = case(1).runner(name, None);
            for m in [3, 33] {
                case(m).check_on(name, &runner);
            }
        }
    }
}

/// K split among workgroups, whose sums are added in order: equal bits each time.
#[test]
fn split_k() {
    for name in ["gfx942", "gfx1100", "gfx1201", MMA] {
        let waves = 256 / amd(name).wave;
        let division = Division::Tiles { splits: 4 };
        let waves = [2, waves / 2];
        let config = TileConfig { rows: 32, columns: 64, waves, depth: 128, division, stages: 0 };
        for dtype in [DType::Q4_1, DType::BF16] {
            let runner = Case::new(1, 80, 2176, &[dtype], Expr::Acc(0)).runner(name, Some(config));
            for m in [5, 40] {
                Case::new(m, 80, 2176, &[dtype], Expr::Acc(0)).check_on(name, &runner);
            }
        }
    }
}

/// Runs of blocks of several tiles, of parts of one, that begin and end inside and at the borders
/// of tiles; fewer runs than workgroups. Equal bits each time.
#[test]
fn equal_runs() {
    let kernels: [(&str, &[(DType, u32)]); 3] = [
        ("gfx942", &[(DType::Q4_1, 7), (DType::BF16, 40)]),
        ("gfx1100", &[(DType::BF16, 11)]),
        ("gfx1201", &[(DType::Q4_1, 7)]),
    ];
    for (name, kernels) in kernels {
        let waves = 256 / amd(name).wave;
        let waves = [2, waves / 2];
        for &(dtype, workgroups) in kernels {
            let division = Division::Runs { workgroups };
            let config =
                TileConfig { rows: 32, columns: 64, waves, depth: 128, division, stages: 0 };
            let case = |m| {
                let mut case = Case::new(m, 144, 800, &[dtype, DType::Q8_0], Expr::Acc(0));
                case.weights[1] = Weight::random(9, dtype, 48, 800);
                case.outputs = vec![Expr::Acc(0), Expr::Acc(1)];
                case.norm_eps = Some(1e-5);
                case
            };
            let runner = case(1).runner(name, Some(config));
            for m in [5, 70] {
                case(m).check_on(name, &runner);
            }
        }
    }
}

/// For layers of models: no spills, no full waits in the hot loop, and as many waves as were
/// planned, two on a SIMD. Only gfx950, with more LDS than any other, has large tiles that take
/// less with one.
#[test]
fn planned_waves() {
    let layers = [
        (14336, 4096, DType::Q4_1, 2),
        (14336, 4096, DType::BF16, 2),
        (14336, 4096, DType::Q8_0, 2),
        (4096, 14336, DType::Q4_1, 1),
        (4096, 4096, DType::BF16, 1),
        (1536, 576, DType::Q4_1, 2),
    ];
    for name in CHIPS {
        for (n, k, dtype, slots) in layers {
            let output = if slots == 2 { silu_product() } else { Expr::Acc(0) };
            let mut case = Case::new(1, 16, 32, &vec![dtype; slots], output);
            case.k = k;
            for weight in &mut case.weights {
                weight.layout = GpuLayout::new(dtype, n, k as u64).unwrap();
            }
            case.norm_eps = (slots == 2).then_some(1e-5);
            let (spec, gpu) = (case.spec(), amd(name));
            let config = TileConfig::default_for(&spec, 512, &gpu).unwrap();
            let source = kernel(&spec, 512, config, &gpu).unwrap();
            let facts = crate::compile(&source.text, &target(name), false).unwrap().facts.unwrap();
            let what = format!("{name} {slots} {dtype} of {n}x{k} {config:?}: {facts:?}");
            assert_eq!([facts.spills, facts.private_bytes], [0, 0], "{what}");
            assert_eq!(facts.hot_loop.map(|hot| hot.full_waits), Some(0), "{what}");
            assert!(facts.waves_per_simd >= facts.planned_waves_per_simd, "{what}");
            assert!(facts.planned_waves_per_simd >= 2 || name == "gfx950", "{what}");
        }
    }
}

/// K is split for few tiles, runs are for tiles that make no whole rounds of the chip, and whole
/// tiles for what divides.
#[test]
fn divisions_by_shape() {
    let choice = |n, k| {
        let mut case = Case::new(1, 16, 32, &[DType::BF16], Expr::Acc(0));
        case.k = k;
        case.weights[0].layout = GpuLayout::new(DType::BF16, n, k as u64).unwrap();
        TileConfig::default_for(&case.spec(), 64, &amd("gfx1100")).unwrap().division
    };
    assert_eq!(choice(1024, 8192), Division::Tiles { splits: 8 });
    assert_eq!(choice(14336, 4096), Division::Runs { workgroups: 96 });
    assert_eq!(choice(96 * 64, 4096), Division::Tiles { splits: 1 });
}

/// Tiles of all sizes, waves along rows and columns.
#[test]
fn every_tile() {
    for (name, dtype, depth) in [
        ("gfx942", DType::Q4_1, 128),
        ("gfx950", DType::F16, 64),
        ("gfx1100", DType::Q8_0, 64),
        (MMA, DType::F16, 64),
    ] {
        let all = 256 / amd(name).wave;
        for (rows, columns) in [(16u32, 128u32), (32, 192), (64, 64), (128, 128)] {
            for along in [1, 2, 4] {
                let waves = [along, all / along];
                if !rows.is_multiple_of(16 * along) || !columns.is_multiple_of(16 * waves[1]) {
                    continue;
                }
                let division = Division::Tiles { splits: 1 };
                let config = TileConfig { rows, columns, waves, depth, division, stages: 0 };
                let case = Case::new(150, 200, 416, &[dtype], Expr::Acc(0));
                case.check_on(name, &case.runner(name, Some(config)));
            }
        }
    }
}

#[test]
fn large_activations_saturate() {
    for name in LAYOUTS {
        let mut case = Case::new(4, 16, 64, &[DType::F16], Expr::Acc(0));
        case.x[5] = 1e6;
        case.x[70] = -1e9;
        case.check(name);
    }
}

/// In the steady state nothing waits for all loads, and quants and plain weights are loaded 16
/// bytes a lane.
#[test]
fn hot_loops() {
    for name in CHIPS {
        for dtype in [DType::BF16, DType::Q4_1] {
            let mut case = Case::new(1, 16, 32, &[dtype], Expr::Acc(0));
            case.k = 4096;
            case.weights[0].layout = GpuLayout::new(dtype, 4096, 4096).unwrap();
            let (spec, amd) = (case.spec(), amd(name));
            let config = TileConfig::default_for(&spec, 512, &amd).unwrap();
            let source = kernel(&spec, 512, config, &amd).unwrap();
            let compiled = crate::compile(&source.text, &target(name), false).unwrap();
            let facts = compiled.facts.unwrap();
            println!("{name} {dtype} {config:?}: {facts:?}");
            let hot = facts.hot_loop.unwrap();
            assert!(hot.matrix > 0, "{name} {dtype}");
            assert_eq!(hot.full_waits, 0, "{name} {dtype}");
            assert_eq!([facts.spills, facts.private_bytes], [0, 0], "{name} {dtype}");
            // Scales of q4_1 are four bytes each; all else is loaded 16 bytes at a time.
            if dtype == DType::BF16 {
                assert_eq!(hot.narrow_loads, 0, "{name}");
            }
        }
    }
}

/// Sections that share a loop, and one that has its own.
#[test]
fn three_sections() {
    for name in LAYOUTS {
        let case = |m| {
            let acc = Expr::Acc(0);
            let mut case = Case::new(m, 144, 608, &[DType::Q4_1, DType::Q8_0, DType::Q4_1], acc);
            for (slot, n) in [(1, 48), (2, 80)] {
                let dtype = case.weights[slot].layout.dtype;
                case.weights[slot] = Weight::random(slot as u64 + 9, dtype, n, 608);
            }
            case.norm_eps = Some(1e-5);
            case.outputs = (0..3).map(Expr::Acc).collect();
            case
        };
        let runner = case(1).runner(name, None);
        for m in [9, 70] {
            case(m).check_on(name, &runner);
        }
    }
}

/// Weights are read once by each workgroup that needs them, x once by each, and a block of it twice
/// at the end of its rows. RDNA 3 wants all weights in both halves of a wave.
#[test]
fn bytes_read() {
    for name in LAYOUTS {
        for (dtype, bits) in [(DType::BF16, 16.0), (DType::Q4_1, 5.0)] {
            let (m, n, k) = (128, 256, 1024);
            let case = Case::new(m, n, k, &[dtype], Expr::Acc(0));
            let config = TileConfig::default_for(&case.spec(), 512, &amd(name)).unwrap();
            let config = TileConfig { division: Division::Tiles { splits: 1 }, ..config };
            let outcome = case.check_on(name, &case.runner(name, Some(config)));
            let [row_tiles, column_tiles] =
                [m.div_ceil(config.rows as usize), n.div_ceil(config.columns as usize)];
            let copies = if amd(name).layout == MatrixLayout::Wmma3 { 2.0 } else { 1.0 };
            let copies = copies * f64::from(config.waves[0]);
            let weights = (row_tiles * n * k) as f64 * bits / 8.0 * copies;
            let x = (column_tiles * m * (k + config.depth as usize)) as f64 * 4.0;
            let read = outcome.statistics.bytes_read as f64;
            let most = weights + x;
            assert!(read <= 1.01 * most, "{name} {dtype} {config:?}: {read} of {most}");
        }
    }
}

/// Tiles for two warpgroups, of which 64 KiB hold two stages and some staged sums.
fn ring(rows: u32, workgroups: u32) -> TileConfig {
    let division = Division::Rounds { workgroups };
    TileConfig { rows, columns: 128, waves: [1, 8], depth: ring::DEPTH, division, stages: 2 }
}

/// By warpgroups: rows and columns that are no whole tiles, whole rounds and parts of one, workgroups
/// that share a tile, and more blocks than stages. Equal bits each time.
#[test]
fn products_of_warpgroups() {
    for (dtype, n, k, workgroups) in [(DType::BF16, 200, 448, 3), (DType::F16, 100, 64, 2)] {
        let case = |m| Case::new(m, n, k, &[dtype], Expr::Acc(0));
        let runner = case(1).runner(WGMMA, Some(ring(16, workgroups)));
        for m in [1, 37] {
            case(m).check_on(WGMMA, &runner);
        }
    }
}

/// Quantized weights become factors in registers.
#[test]
fn quantized_products_of_warpgroups() {
    for (dtype, n, k) in [(DType::Q4_1, 200, 640), (DType::Q8_0, 100, 256), (DType::Q4_0, 20, 128)]
    {
        let case = |m| Case::new(m, n, k, &[dtype], Expr::Acc(0));
        let config = TileConfig { depth: ring::QUANTS_DEPTH, ..ring(16, 3) };
        let runner = case(1).runner(WGMMA, Some(config));
        for m in [1, 19] {
            case(m).check_on(WGMMA, &runner);
        }
    }
}

/// A norm before, and outputs of two weights after.
#[test]
fn gated_products_of_warpgroups() {
    let plain = TileConfig { stages: 1, ..ring(8, 3) };
    let quants = TileConfig { depth: ring::QUANTS_DEPTH, ..ring(8, 3) };
    let forms = [([DType::BF16; 2], 192, plain), ([DType::Q4_1, DType::Q4_0], 256, quants)];
    for (dtypes, k, config) in forms {
        let case = |m| {
            let mut case = Case::new(m, 72, k, &dtypes, silu_product());
            case.norm_eps = Some(1e-5);
            case
        };
        let runner = case(1).runner(WGMMA, Some(config));
        case(11).check_on(WGMMA, &runner);
    }
}

/// What is chosen for a H200: warpgroups for many rows, nothing of the kind for few.
#[test]
fn warpgroups_by_shape() {
    let choice = |rows, n, k, dtype| {
        let mut case = Case::new(1, 16, 32, &[dtype], Expr::Acc(0));
        case.k = k;
        case.weights[0].layout = GpuLayout::new(dtype, n, k as u64).unwrap();
        let config = TileConfig::default_for(&case.spec(), rows, &amd("sm_90a"));
        println!("{rows} {n} {k} {dtype}: {config:?}");
        config.unwrap()
    };
    assert!(choice(512, 14336, 4096, DType::BF16).stages >= 3);
    assert!(choice(512, 4096, 14336, DType::F16).stages >= 3);
    assert_eq!(choice(16, 1024, 1024, DType::BF16).stages, 0);
    assert!(choice(512, 4096, 4096, DType::Q4_1).stages >= 3);
    // Not whole blocks.
    assert_eq!(choice(512, 4096, 4128, DType::BF16).stages, 0);
    assert_eq!(choice(512, 4096, 4160, DType::Q8_0).stages, 0);
}

/// An extra operand.
struct Extra {
    ty: Type,
    bytes: Vec<u8>,
}

impl Extra {
    fn f32(seed: u64, rows: usize, columns: usize) -> Extra {
        let shape = [Dim::Const(rows as u64), Dim::Const(columns as u64)];
        Extra { ty: Type::f32(shape), bytes: f32_bytes(&random_f32(seed, rows * columns)) }
    }

    fn cache(layout: Layout, [capacity, heads, dim]: [u64; 3]) -> Extra {
        let mut ty = Type::new(DType::F16, [capacity, heads, dim].map(Dim::Const));
        ty.layout = layout;
        let elements = layout.capacity(capacity) * heads * dim;
        Extra { ty, bytes: vec![0; elements as usize * 2] }
    }
}

/// q and k rotated, k and v appended to caches, as a layer has them: against the same products as
/// they are, rotated in f64. What is left are the epilogue's roundings, and those to f16.
#[test]
fn rotated_and_cached_heads() {
    const CAPACITY: u64 = 96;
    let chips = CHIPS.map(|name| (name, 64));
    for (name, dim) in chips.into_iter().chain([("gfx950", 80), ("gfx942", 96), ("gfx1201", 96)]) {
        let (m, k, heads) = (20, 96, [3, 1, 1]);
        let mut case = Case::new(m, heads[0] * dim, k, &[DType::Q4_1; 3], Expr::Acc(0));
        for slot in [1, 2] {
            case.weights[slot] = Weight::random(slot as u64 + 9, DType::Q4_1, dim, k);
        }
        case.outputs = (0..3).map(Expr::Acc).collect();
        let plain = case.run(&case.runner(name, None));
        let sums: Vec<Vec<f32>> = plain.buffers[4..].iter().map(|b| to_f32(b)).collect();
        let wave = amd(name).wave;
        let positions: Vec<i32> = (0..m as i32).map(|row| 7 + row).collect();
        let rows = Type::new(DType::I32, [Dim::Const(m as u64)]);
        let extras = [
            Extra::f32(5, m, dim / 2),
            Extra::f32(6, m, dim / 2),
            Extra { ty: rows, bytes: i32_bytes(&positions) },
            Extra::cache(Layout::KeyBlocks(wave), [CAPACITY, 1, dim as u64]),
            Extra::cache(Layout::ValueBlocks(wave), [CAPACITY, 1, dim as u64]),
        ];
        let rope = |weight| Expr::Rope {
            x: Box::new(Expr::Acc(weight)),
            cos: 0,
            sin: 1,
            head_dim: dim as u32,
        };
        let append = |cache| Store::Append { cache, positions: 2 };
        let mut spec = case.spec();
        spec.outputs = vec![
            GemmOutput { expr: rope(0), store: Store::Dense },
            GemmOutput { expr: rope(1), store: append(3) },
            GemmOutput { expr: Expr::Acc(2), store: append(4) },
        ];
        spec.extras = extras.iter().map(|extra| extra.ty.clone()).collect();
        let config = TileConfig::default_for(&spec, 512, &amd(name)).unwrap();
        let source = kernel(&spec, 512, config, &amd(name)).unwrap();
        let mut buffers: Vec<Vec<u8>> = case.buffers()[..4].to_vec();
        buffers.extend(extras.iter().map(|extra| extra.bytes.clone()));
        buffers.push(unwritten(m * heads[0] * dim * 4));
        let runner = Runner::new(source, &target(name));
        let outcome = runner.run(&buffers, [m as i64, 1, CAPACITY as i64]);
        let [cos, sin] = [0, 1].map(|i| to_f32(&extras[i].bytes));
        let rotated = |sums: &[f32], row: usize, column: usize, columns: usize| {
            let (at, half) = (row * columns + column, dim / 2);
            let angle = row * half + column % half;
            let [x, cos, sin] = [sums[at], cos[angle], sin[angle]].map(f64::from);
            match column % dim < half {
                true => x * cos - f64::from(sums[at + half]) * sin,
                false => x * cos + f64::from(sums[at - half]) * sin,
            }
        };
        let close = |got: f64, want: f64, rounding: f64| {
            let tolerance = rounding * want.abs() + EPILOGUE * k as f64;
            assert!((got - want).abs() <= tolerance, "{name}: {got} for {want}");
        };
        let columns = heads[0] * dim;
        for (i, got) in to_f32(&outcome.buffers[9]).into_iter().enumerate() {
            close(got.into(), rotated(&sums[0], i / columns, i % columns, columns), 0.0);
        }
        for (row, position) in positions.iter().enumerate() {
            for column in 0..dim {
                let cached = |cache: usize| {
                    let at = [*position as u64, 0, column as u64];
                    let layout = extras[cache].ty.layout;
                    let at = 2 * layout.index([CAPACITY, 1, dim as u64], at, 2) as usize;
                    let bytes = &outcome.buffers[4 + cache];
                    f64::from(f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32())
                };
                let half = 1.0 / 2048.0;
                close(cached(3), rotated(&sums[1], row, column, dim), half);
                close(cached(4), sums[2][row * dim + column].into(), half);
            }
        }
        let lds = outcome.statistics.lds;
        assert_eq!(lds.conflict_cycles, 0, "{name} heads of {dim}, {config:?}: {lds:?}");
    }
}
