//! The kernels against a scalar reference in f64, on every target this machine can run.
//!
//! The reference quantizes activations as the kernels do (int8 per block of 32, or bf16) and then
//! computes without further rounding, so what is left are the kernel's own f32 roundings.

use super::activations::Parts;
use super::spec::packed_layout;
use super::*;
use crate::harness::{Aligned, Arg, Loaded, input, output, random_f32, runnable_targets};
use crate::kernels::cpu::testing::{self, C, T};
use crate::kernels::kernel_for as dispatch;
use crate::kernels::section::accumulators;
use crate::pack::{BLOCK, pack_weight};
use half::{bf16, f16};
use std::borrow::Cow;
use waveloom_ir::{
    BinaryOp, DType, Dim, Expr, F32, FuncId, FunctionBuilder, InstId, Interpreter, Op, Prologue,
    Tensor, UnaryOp, Weights, storage,
};

/// Largest error relative to the largest result: roundings of up to 200 f32 additions in a chain
/// (2⁻²⁴ each, partly cancelling) and of the few operations of an epilogue.
const F32_ROUNDING: f64 = 4e-6;
/// The same where results are rounded to f16 in a cache: half a unit of 11 bits.
const F16_ROUNDING: f64 = 1.0 / 2048.0;

/// The same relative to the sum of magnitudes, where factors are sums of two bf16: half of what
/// `Rounding::TwoBf16` says, as tolerances have it twice.
const SPLIT_ROUNDING: f64 = 1.0 / 32768.0;

const ALL: [DType; 6] =
    [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1];
const TARGETS: [&str; 4] = ["cpu", "cpu-v3", "cpu-v4", "cpu-amx"];

/// One weight: its stored bytes and what they stand for.
struct Weight {
    ty: Type,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Weight {
    fn random(seed: u64, dtype: DType, n: u64, k: u64) -> Weight {
        let values = random_f32(seed, (n * k) as usize);
        let bytes = storage::quantize(dtype, &values, k as usize).unwrap();
        let mut exact = vec![0.0; values.len()];
        storage::dequantize(dtype, &bytes, &mut exact).unwrap();
        Weight { ty: Type::new(dtype, [Dim::Const(n), Dim::Const(k)]), bytes, values: exact }
    }
}

/// A `gemm` with its operands.
struct Case {
    m: usize,
    k: usize,
    norm_eps: Option<f32>,
    x: Vec<f32>,
    norm: Vec<f32>,
    weights: Vec<Weight>,
    outputs: Vec<GemmOutput>,
    extras: Vec<Extra>,
}

/// An extra operand.
struct Extra {
    ty: Type,
    data: Vec<u8>,
}

impl Extra {
    fn f32(values: &[f32], shape: &[u64]) -> Extra {
        let dims: Vec<Dim> = shape.iter().map(|n| Dim::Const(*n)).collect();
        Extra { ty: Type::f32(dims), data: values.iter().flat_map(|x| x.to_le_bytes()).collect() }
    }

    fn positions(values: &[i32]) -> Extra {
        Extra {
            ty: Type::new(DType::I32, [Dim::Const(values.len() as u64)]),
            data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// A cache for `capacity` positions, all of it 9.
    fn cache(dtype: DType, layout: Layout, capacity: u64, heads: u64, dim: u64) -> Extra {
        let mut ty = Type::new(dtype, [Dim::Const(capacity), Dim::Const(heads), Dim::Const(dim)]);
        ty.layout = layout;
        let rows = layout.capacity(capacity);
        let nines = vec![9.0; (rows * heads * dim) as usize];
        let data = storage::quantize(dtype, &nines, nines.len()).unwrap();
        Extra { ty, data }
    }

    fn values(&self) -> Vec<f64> {
        self.data
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect()
    }
}

/// Results: dense outputs, and caches as bytes.
#[derive(Clone, Debug, PartialEq)]
struct Results {
    dense: Vec<Vec<f32>>,
    caches: Vec<Vec<u8>>,
}

impl Case {
    fn new(m: usize, k: usize, weights: Vec<Weight>, outputs: Vec<Expr>) -> Case {
        Case {
            m,
            k,
            norm_eps: None,
            x: random_f32(1, m * k),
            norm: random_f32(2, k),
            weights,
            outputs: outputs
                .into_iter()
                .map(|expr| GemmOutput { expr, store: Store::Dense })
                .collect(),
            extras: vec![],
        }
    }

    fn spec(&self, target: &CpuTarget) -> GemmSpec {
        GemmSpec {
            rows: match self.m {
                1 => Rows::One,
                _ => Rows::Many(plan::Expr::Symbol(0)),
            },
            k: self.k as u64,
            norm_eps: self.norm_eps,
            weights: self
                .weights
                .iter()
                .map(|weight| packed_layout(&weight.ty, target).unwrap())
                .collect(),
            outputs: self.outputs.clone(),
            extras: self.extras.iter().map(|extra| extra.ty.clone()).collect(),
        }
    }

    fn capacity(&self) -> i64 {
        let caches = self.extras.iter().filter(|extra| extra.ty.rank() == 3);
        caches
            .map(|extra| match extra.ty.shape[0] {
                Dim::Const(n) => n as i64,
                Dim::Symbol(_) => 0,
            })
            .max()
            .unwrap_or(0)
    }

    fn columns(&self, output: &GemmOutput) -> usize {
        match self.weights[accumulators(&output.expr)[0]].ty.shape[0] {
            Dim::Const(n) => n as usize,
            Dim::Symbol(_) => 0,
        }
    }

    /// Runs the kernel in one go and in parts, requires the same bits, and gives them.
    fn run(&self, target: &CpuTarget) -> Results {
        let spec = self.spec(target);
        self.run_with(target, TileConfig::default_for(&spec, target))
    }

    fn run_with(&self, target: &CpuTarget, config: TileConfig) -> Results {
        let spec = self.spec(target);
        let source = kernel(&spec, config, target).unwrap();
        let loaded = Loaded::new(&source.text, target).unwrap();
        let packed: Vec<Aligned> = self
            .weights
            .iter()
            .map(|w| {
                Aligned::from_bytes(
                    &pack_weight("w", &w.ty, &w.bytes, &target.clone().into()).unwrap(),
                )
            })
            .collect();
        let extras: Vec<Aligned> =
            self.extras.iter().map(|extra| Aligned::from_bytes(&extra.data)).collect();
        let mut dense: Vec<Vec<f32>> = vec![];
        for output in &self.outputs {
            dense.push(match output.store {
                Store::Dense => vec![-7.0; self.m * self.columns(output) + 1],
                Store::Append { .. } => vec![],
            });
        }
        let mut args = vec![input(&self.x)];
        args.extend(self.norm_eps.map(|_| input(&self.norm)));
        args.extend(packed.iter().map(Aligned::arg));
        args.extend(extras.iter().map(Aligned::arg));
        args.extend(dense.iter_mut().filter(|d| !d.is_empty()).map(|d| output(d)));
        if self.m > 1 {
            args.push(Arg::I64(self.m as i64));
        }
        if spec.appends() {
            args.push(Arg::I64(self.capacity()));
        }
        assert_eq!(args.len(), source.args.len());
        let items = source.items.eval(&[self.m as i64, 0, 0]).unwrap();
        let (whole, parts) =
            loaded.run_whole_and_split(&args, items, source.scratch_bytes as usize, || Results {
                dense: dense.clone(),
                caches: extras
                    .iter()
                    .zip(&self.extras)
                    .filter(|(_, extra)| extra.ty.rank() == 3)
                    .map(|(bytes, extra)| bytes.bytes()[..extra.data.len()].to_vec())
                    .collect(),
            });
        assert!(whole == parts, "{}: results depend on the range of items", source.summary);
        for values in whole.dense.iter().filter(|values| !values.is_empty()) {
            assert_eq!(values[values.len() - 1], -7.0, "{}: wrote past the end", source.summary);
        }
        whole
    }

    /// Row `m` of x after the norm.
    fn normed(&self, m: usize) -> Vec<f64> {
        let x: Vec<f64> = self.x[m * self.k..][..self.k].iter().map(|x| f64::from(*x)).collect();
        let Some(eps) = self.norm_eps else { return x };
        let mean = x.iter().map(|x| x * x).sum::<f64>() / self.k as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        x.iter().zip(&self.norm).map(|(x, w)| x * scale * f64::from(*w)).collect()
    }

    /// Accumulators of a row: `[weight][column]`, and the largest effect of one activation
    /// quantized the other way, which a last-bit difference of the norm can cause, or of what two bf16
    /// leave of the factors.
    fn accumulators(&self, m: usize, target: &CpuTarget) -> (Vec<Vec<f64>>, f64) {
        let x = self.normed(m);
        let mut flip: f64 = 0.0;
        let mut all = vec![];
        let mut forms = Form::all(&self.spec(target), target).into_iter();
        for weight in &self.weights {
            let form = forms.next().unwrap();
            let (x, step) = quantized(&x, form);
            if self.norm_eps.is_some() {
                flip = flip
                    .max(step * weight.values.iter().fold(0.0f64, |a, w| a.max(w.abs().into())));
            }
            let rows = weight.values.chunks_exact(self.k);
            if form == Form::Tiles(Parts::Two) {
                let sizes = rows
                    .clone()
                    .map(|w| w.iter().zip(&x).map(|(w, x)| (f64::from(*w) * x).abs()).sum::<f64>());
                flip = flip.max(SPLIT_ROUNDING * sizes.fold(0.0, f64::max));
            }
            let dot = |w: &[f32]| w.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum();
            all.push(rows.map(dot).collect());
        }
        (all, flip)
    }

    /// Values of an output `[m][column]`, and the tolerance for quantization flips.
    fn reference(&self, output: &GemmOutput, target: &CpuTarget) -> (Vec<Vec<f64>>, f64) {
        let mut flip: f64 = 0.0;
        let rows = (0..self.m).map(|m| {
            let (accumulators, step) = self.accumulators(m, target);
            flip = flip.max(step);
            self.eval(&output.expr, m, &accumulators, self.columns(output))
        });
        let rows = rows.collect();
        (rows, flip)
    }

    fn eval(&self, expr: &Expr, m: usize, acc: &[Vec<f64>], n: usize) -> Vec<f64> {
        let row = |i: u32| {
            let extra = &self.extras[i as usize];
            let values = extra.values();
            match extra.ty.rank() {
                2 => {
                    let width = values.len() / self.m;
                    values[m * width..][..width].to_vec()
                }
                _ => values,
            }
        };
        match expr {
            Expr::Acc(i) => acc[*i as usize].clone(),
            Expr::Operand(i) => row(*i),
            Expr::Const(c) => vec![c.0.into(); n],
            Expr::Unary(UnaryOp::Sigmoid, x) => {
                self.eval(x, m, acc, n).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect()
            }
            Expr::Unary(UnaryOp::Tanh, x) => {
                self.eval(x, m, acc, n).iter().map(|x| x.tanh()).collect()
            }
            Expr::Binary(op, x, y) => {
                let pairs = self.eval(x, m, acc, n).into_iter().zip(self.eval(y, m, acc, n));
                match op {
                    BinaryOp::Add => pairs.map(|(x, y)| x + y).collect(),
                    BinaryOp::Mul => pairs.map(|(x, y)| x * y).collect(),
                    other => panic!("the reference has no {}", other.name()),
                }
            }
            Expr::Rope { x, cos, sin, head_dim } => {
                let x = self.eval(x, m, acc, n);
                let half = *head_dim as usize / 2;
                let (cos, sin) = (row(*cos), row(*sin));
                (0..n)
                    .map(|column| {
                        let i = column % (2 * half);
                        if i < half {
                            x[column] * cos[i] - x[column + half] * sin[i]
                        } else {
                            x[column] * cos[i - half] + x[column - half] * sin[i - half]
                        }
                    })
                    .collect()
            }
            Expr::HeadNorm { x, weight, eps, head_dim } => {
                let weight = row(*weight);
                let x = self.eval(x, m, acc, n);
                x.chunks_exact(*head_dim as usize)
                    .flat_map(|head| {
                        let mean = head.iter().map(|x| x * x).sum::<f64>() / head.len() as f64;
                        let scale = 1.0 / (mean + f64::from(eps.0)).sqrt();
                        let scaled = head.iter().zip(&weight).map(move |(x, w)| x * scale * w);
                        scaled.collect::<Vec<f64>>()
                    })
                    .collect()
            }
            Expr::Unary(other, _) => panic!("the reference has no {}", other.name()),
        }
    }

    /// Runs on every target and compares with the reference.
    fn check(&self) {
        for target in runnable_targets(&TARGETS) {
            self.check_on(&target, &self.run(&target));
        }
    }

    fn check_on(&self, target: &CpuTarget, results: &Results) {
        let summary = self.spec(target).description().summary();
        let mut caches = results.caches.iter();
        for (output, dense) in self.outputs.iter().zip(&results.dense) {
            let (want, flip) = self.reference(output, target);
            let largest = want.iter().flatten().fold(1.0f64, |a, x| a.max(x.abs()));
            let mut close = |m: usize, n: usize, got: f64, rounding: f64| {
                let want = want[m][n];
                let tolerance = (F32_ROUNDING + rounding) * largest + 2.0 * flip;
                assert!(
                    (got - want).abs() <= tolerance,
                    "{} {summary}: [{m}, {n}] is {got}, should be {want}",
                    target.name
                );
            };
            match output.store {
                Store::Dense => {
                    let columns = self.columns(output);
                    for (i, got) in dense[..dense.len() - 1].iter().enumerate() {
                        close(i / columns, i % columns, f64::from(*got), 0.0);
                    }
                }
                Store::Append { cache, positions } => {
                    let bytes = caches.next().unwrap();
                    self.check_cache(cache, positions, bytes, &mut close);
                }
            }
        }
    }

    fn check_cache(
        &self,
        cache: u32,
        positions: u32,
        bytes: &[u8],
        close: &mut impl FnMut(usize, usize, f64, f64),
    ) {
        let ty = &self.extras[cache as usize].ty;
        let [Dim::Const(capacity), Dim::Const(heads), Dim::Const(dim)] = ty.shape[..] else {
            panic!("the cache is not [C, heads, head_dim]");
        };
        let mut values = vec![0.0; bytes.len() / ty.dtype.block_bytes() as usize];
        storage::dequantize(ty.dtype, bytes, &mut values).unwrap();
        let positions = &self.extras[positions as usize].data;
        let positions: Vec<u64> = positions.chunks_exact(4).map(|b| b[0].into()).collect();
        let rounding = if ty.dtype == DType::F16 { F16_ROUNDING } else { 0.0 };
        for position in 0..capacity {
            for head in 0..heads {
                for d in 0..dim {
                    let cache = [capacity, heads, dim];
                    let bytes = ty.dtype.block_bytes();
                    let at = ty.layout.index(cache, [position, head, d], bytes);
                    let got = f64::from(values[at as usize]);
                    match positions.iter().position(|p| *p == position) {
                        Some(m) => close(m, (head * dim + d) as usize, got, rounding),
                        None => assert_eq!(got, 9.0, "position {position} was written"),
                    }
                }
            }
        }
    }
}

/// A row of activations as the kernel multiplies it, and the largest step between neighbouring
/// quantized values.
fn quantized(x: &[f64], form: Form) -> (Vec<f64>, f64) {
    if matches!(form, Form::Bf16 | Form::Tiles(Parts::One)) {
        let step = x.iter().fold(0.0f64, |a, x| a.max(x.abs())) / 128.0;
        let round = |x: &f64| f64::from(bf16::from_f32(*x as f32));
        return (x.iter().map(round).collect(), step);
    }
    if !matches!(form, Form::Int8(_)) {
        return (x.to_vec(), 0.0);
    }
    let mut largest_step = 0.0;
    let blocks = x.chunks_exact(BLOCK as usize).flat_map(|block| {
        let block: Vec<f32> = block.iter().map(|x| *x as f32).collect();
        let largest = block.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        let scale = largest / 16_256.0;
        let inverse = if largest > 0.0 { 16_256.0 / largest } else { 0.0 };
        largest_step = f64::max(largest_step, scale.into());
        let quantize = |x: &f32| f64::from((x * inverse).round_ties_even()) * f64::from(scale);
        block.iter().map(quantize).collect::<Vec<f64>>()
    });
    let x = blocks.collect();
    (x, largest_step)
}

fn acc(i: u32) -> Expr {
    Expr::Acc(i)
}

fn silu_product() -> Expr {
    let silu = Expr::binary(BinaryOp::Mul, acc(0), Expr::unary(UnaryOp::Sigmoid, acc(0)));
    Expr::binary(BinaryOp::Mul, silu, acc(1))
}

/// Shapes `(m, n, k)` of which none divides a tile in every extent.
fn shapes(dtype: DType) -> &'static [(usize, u64, usize)] {
    if dtype.is_block() {
        &[(1, 24, 32), (1, 100, 96), (3, 24, 96), (33, 100, 64), (40, 20, 1120)]
    } else {
        &[(1, 24, 5), (1, 100, 102), (3, 24, 32), (17, 100, 102), (33, 100, 32), (5, 20, 1101)]
    }
}

#[test]
fn products_of_every_format_and_shape() {
    for dtype in ALL {
        for &(m, n, k) in shapes(dtype) {
            let weight = Weight::random(3, dtype, n, k as u64);
            Case::new(m, k, vec![weight], vec![acc(0)]).check();
        }
    }
}

#[test]
fn bias_and_residual() {
    for dtype in [DType::F32, DType::Q4_1] {
        for m in [1, 19] {
            let sum = Expr::binary(BinaryOp::Add, acc(0), Expr::Operand(0));
            let sum = Expr::binary(BinaryOp::Add, sum, Expr::Operand(1));
            let weight = Weight::random(3, dtype, 100, 64);
            let mut case = Case::new(m, 64, vec![weight], vec![sum]);
            case.extras = vec![
                Extra::f32(&random_f32(4, m * 100), &[m as u64, 100]),
                Extra::f32(&random_f32(5, 100), &[100]),
            ];
            case.check();
        }
    }
}

#[test]
fn norm_and_gated_product() {
    for dtypes in [[DType::F16, DType::F16], [DType::Q4_0, DType::Q8_0], [DType::BF16, DType::F32]]
    {
        for (m, n) in [(1, 88), (33, 88)] {
            let weights =
                dtypes.iter().zip(3..).map(|(d, seed)| Weight::random(seed, *d, n, 96)).collect();
            let mut case = Case::new(m, 96, weights, vec![silu_product()]);
            case.norm_eps = Some(1e-5);
            case.check();
        }
    }
}

/// q, k and v of a layer: rope (after a norm of each head where asked for), k and v appended.
fn attention_inputs(
    m: usize,
    head_dim: u64,
    cache: DType,
    lanes: u32,
    head_norm: bool,
    dtype: DType,
) -> Case {
    let heads = [4, 2, 2];
    let weights =
        heads.iter().zip(3..).map(|(h, seed)| Weight::random(seed, dtype, h * head_dim, 64));
    let rope = |i: u32| {
        let mut x = acc(i);
        if head_norm {
            let (eps, head_dim) = (F32(1e-6), head_dim as u32);
            x = Expr::HeadNorm { x: Box::new(x), weight: 5, eps, head_dim };
        }
        Expr::Rope { x: Box::new(x), cos: 0, sin: 1, head_dim: head_dim as u32 }
    };
    let mut case = Case::new(m, 64, weights.collect(), vec![rope(0), rope(1), acc(2)]);
    case.norm_eps = Some(1e-5);
    case.outputs[1].store = Store::Append { cache: 2, positions: 4 };
    case.outputs[2].store = Store::Append { cache: 3, positions: 4 };
    let half = head_dim / 2;
    let angles = random_f32(9, m * half as usize);
    let cos: Vec<f32> = angles.iter().map(|a| (3.0 * a).cos()).collect();
    let sin: Vec<f32> = angles.iter().map(|a| (3.0 * a).sin()).collect();
    let positions: Vec<i32> = (0..m as i32).map(|i| 5 + i).collect();
    let capacity = m as u64 + 9;
    case.extras = vec![
        Extra::f32(&cos, &[m as u64, half]),
        Extra::f32(&sin, &[m as u64, half]),
        Extra::cache(cache, Layout::PositionLanes(lanes), capacity, 2, head_dim),
        Extra::cache(cache, Layout::HeadMajor, capacity, 2, head_dim),
        Extra::positions(&positions),
        Extra::f32(&random_f32(11, head_dim as usize), &[head_dim]),
    ];
    case
}

#[test]
fn rope_and_appends_to_caches() {
    for (m, head_dim) in [(1, 64), (18, 20)] {
        attention_inputs(m, head_dim, DType::F32, 16, false, DType::F32).check();
    }
    for (m, head_dim) in [(1, 20), (19, 64), (5, 8)] {
        attention_inputs(m, head_dim, DType::F16, 8, false, DType::Q8_0).check();
    }
    attention_inputs(4, 16, DType::BF16, 8, false, DType::Q4_1).check_runs();
}

#[test]
fn norm_of_heads() {
    for (m, head_dim) in [(1, 64), (3, 20)] {
        attention_inputs(m, head_dim, DType::F32, 16, true, DType::F32).check();
    }
}

impl Case {
    /// Runs on every target without comparing: for forms that only the split checks.
    fn check_runs(&self) {
        for target in runnable_targets(&TARGETS) {
            self.run(&target);
        }
    }
}

#[test]
fn outputs_that_share_a_weight_are_one_section() {
    let weights = (3..6).map(|seed| Weight::random(seed, DType::F32, 40, 32)).collect();
    let sum = |a, b| Expr::binary(BinaryOp::Add, acc(a), acc(b));
    Case::new(5, 32, weights, vec![sum(0, 1), acc(2), sum(1, 0)]).check();
}

#[test]
fn every_tile_configuration_gives_the_same_bits() {
    for dtype in ALL {
        for target in runnable_targets(&TARGETS) {
            let weight = Weight::random(3, dtype, 100, 64);
            let case = Case::new(37, 64, vec![weight], vec![acc(0)]);
            let default = case.run(&target);
            let in_vectors = [(1, 1, 4, 1), (3, 2, 1, 3), (5, 20, 2, 5)];
            let in_tiles = [(16, 1, 2, 1), (32, 2, 1, 3), (16, 5, 2, 5)];
            let spec = case.spec(&target);
            let configs = if spec.in_tiles(&target) { in_tiles } else { in_vectors };
            for (rows, blocks, tiles, group_tiles) in configs {
                let config = TileConfig {
                    block_rows: rows * blocks,
                    rows,
                    tiles,
                    group_tiles,
                    span_groups: tiles,
                    prefetch_bytes: 512,
                };
                assert!(default == case.run_with(&target, config), "{dtype} {config:?}");
            }
        }
    }
}

#[test]
fn decode_gives_the_bits_of_prefill() {
    for dtype in ALL {
        for mut target in runnable_targets(&TARGETS) {
            // With it, a single row multiplies bf16 activations.
            target.bf16_dot = false;
            // Many rows then multiply other numbers: see `amx`.
            target.amx = false;
            let weights =
                (3..5).map(|seed| Weight::random(seed, dtype, 56, 96)).collect::<Vec<_>>();
            let mut many = Case::new(9, 96, weights, vec![silu_product()]);
            many.norm_eps = Some(1e-5);
            let all = many.run(&target);
            let mut one = Case::new(1, 96, many.weights, vec![silu_product()]);
            one.norm_eps = many.norm_eps;
            one.norm = many.norm;
            one.x = many.x[4 * 96..5 * 96].to_vec();
            let row = one.run(&target);
            assert_eq!(row.dense[0][..56], all.dense[0][4 * 56..5 * 56], "{dtype}");
        }
    }
}

/// How far prefill in tiles may be from decode, relative to the largest result. Most of it is decode's: it
/// rounds activations to 3e-5 of the largest of 32, and roundings add up at random as products do.
const NEAR_DECODE: f32 = 1e-4;

/// Tiles add up other roundings than vectors do, over rows of every length.
#[test]
fn prefill_in_tiles_is_close_to_decode() {
    let target = CpuTarget::from_name("cpu-amx").unwrap();
    if runnable_targets(&["cpu-amx"]).is_empty() {
        return;
    }
    for dtype in ALL {
        for k in [32, 1056] {
            let weights = vec![Weight::random(3, dtype, 56, k as u64)];
            let many = Case::new(9, k, weights, vec![acc(0)]);
            let all = many.run(&target);
            let mut one = Case::new(1, k, many.weights, vec![acc(0)]);
            one.x = many.x[4 * k..5 * k].to_vec();
            let row = one.run(&target);
            let (one, all) = (&row.dense[0][..56], &all.dense[0][4 * 56..5 * 56]);
            let largest = one.iter().fold(0.0f32, |a, x| a.max(x.abs()));
            for (one, all) in one.iter().zip(all) {
                assert!((one - all).abs() <= NEAR_DECODE * largest, "{dtype}: {one} and {all}");
            }
        }
    }
}

/// What LLVM makes of them: registers are configured once and given back, each piece of K goes through
/// the sums once, and between a load and its products there is nothing in memory.
#[test]
fn tiles_stay_in_their_registers() {
    let target = CpuTarget::from_name("cpu-amx").unwrap();
    for (dtype, products) in [(DType::BF16, 4), (DType::Q4_0, 12)] {
        let weight = Weight::random(3, dtype, 64, 2048);
        let spec = Case::new(33, 2048, vec![weight], vec![acc(0)]).spec(&target);
        let config = TileConfig::default_for(&spec, &target);
        let source = kernel(&spec, config, &target).unwrap();
        let compiled = crate::compile(&source.text, &target.clone().into(), true).unwrap();
        let assembly = compiled.dump.unwrap().assembly;
        let count = |name: &str| {
            assembly.lines().filter(|line| line.split_whitespace().next() == Some(name)).count()
        };
        assert_eq!([count("ldtilecfg"), count("tilerelease")], [1, 1], "{dtype}");
        assert_eq!(count("tdpbf16ps"), products, "{dtype}");
        // Sums of 2 × 2 tiles, which are loaded where K goes on; operands, two or four a product.
        assert_eq!([count("tilezero"), count("tilestored")], [4, 4], "{dtype}");
        assert_eq!(count("tileloadd"), 4 + products / 4 * 2 + 2, "{dtype}");
    }
}

#[test]
fn rows_are_shared_evenly_between_blocks() {
    for m in [2, 97, 257, 513] {
        let weight = Weight::random(3, DType::Q4_0, 40, 32);
        let mut case = Case::new(m, 32, vec![weight], vec![acc(0)]);
        case.norm_eps = Some(1e-5);
        case.check();
    }
}

#[test]
fn int8_dot_products_are_exact_at_the_extremes() {
    // Quants of −128 and 15 against activations of ±127: what would overflow 16 bits first.
    for dtype in [DType::Q8_0, DType::Q4_0, DType::Q4_1] {
        let mut weight = Weight::random(3, dtype, 24, 64);
        let scales = if dtype == DType::Q4_1 { 4 } else { 2 };
        for block in weight.bytes.chunks_exact_mut(dtype.block_bytes() as usize) {
            block[..2].copy_from_slice(&f16::ONE.to_le_bytes());
            block[2..scales].fill(0);
            block[scales..].fill(if dtype == DType::Q8_0 { 0x80 } else { 0xff });
        }
        storage::dequantize(dtype, &weight.bytes, &mut weight.values).unwrap();
        let mut case = Case::new(2, 64, vec![weight], vec![acc(0)]);
        case.x = (0..128).map(|i| if i < 64 { 127.0 } else { -127.0 }).collect();
        for target in runnable_targets(&TARGETS) {
            let results = case.run(&target);
            let (want, _) = case.reference(&case.outputs[0], &target);
            let want: Vec<f32> = want.iter().flatten().map(|x| *x as f32).collect();
            assert_eq!(results.dense[0][..48], want[..], "{dtype} on {}", target.name);
        }
    }
}

#[test]
fn operands_of_other_types_are_refused() {
    let target = CpuTarget::host().unwrap();
    let weight = Weight::random(3, DType::F32, 8, 8);
    let sum = Expr::binary(BinaryOp::Add, acc(0), Expr::Operand(0));
    let mut case = Case::new(1, 8, vec![weight], vec![sum]);
    let refusal = |case: &Case| {
        let spec = case.spec(&target);
        kernel(&spec, TileConfig::default_for(&spec, &target), &target).unwrap_err().to_string()
    };
    assert_eq!(refusal(&case), "gemm: there is no extra operand 0");
    case.extras = vec![Extra::cache(DType::F16, Layout::HeadMajor, 1, 1, 8)];
    assert_eq!(refusal(&case), "gemm: extra operand 0 is f16");
    case.outputs[0].expr = Expr::constant(1.0);
    assert_eq!(refusal(&case), "gemm: output 0 has no accumulator");
}

impl Case {
    /// The op on parameters, with T rows and caches of C positions, in a module.
    fn module(&self) -> Module {
        let mut module = testing::module();
        let mut function = FunctionBuilder::new(&module, "main");
        let f32s = |shape: Vec<Dim>| Type::f32(shape);
        let mut operands = vec![function.param("x", f32s(vec![T, (self.k as u64).into()]))];
        if self.norm_eps.is_some() {
            operands.push(function.param("norm", f32s(vec![(self.k as u64).into()])));
        }
        for weight in &self.weights {
            operands.push(function.param("w", weight.ty.clone()));
        }
        for extra in &self.extras {
            let mut ty = extra.ty.clone();
            match (ty.rank(), ty.dtype) {
                (3, _) => ty.shape[0] = C,
                (2, _) | (1, DType::I32) => ty.shape[0] = T,
                _ => {}
            }
            operands.push(function.param("extra", ty));
        }
        let prologue = self.norm_eps.map(|eps| Prologue::RmsNorm { eps: F32(eps) });
        let weights = self.weights.len() as u32;
        let (outputs, tiles) = (self.outputs.clone(), waveloom_ir::Tiles::default());
        let attr = GemmAttr { weights, prologue, outputs, tiles };
        let results = function.push(Op::Gemm { attr }, &operands).unwrap();
        let function = function.finish(&results);
        module.add_function(function);
        module
    }

    /// What the interpreter computes in f64: dense outputs row-major, caches `[C, heads, dim]`.
    fn interpret(&self, module: &Module) -> Vec<Vec<f64>> {
        let shape = |ty: &Type| -> Vec<u64> {
            ty.shape.iter().map(|dim| module.max_extent(*dim)).collect()
        };
        let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let mut inputs = vec![Tensor::reals([self.m as u64, self.k as u64], wide(&self.x))];
        if self.norm_eps.is_some() {
            inputs.push(Tensor::reals([self.k as u64], wide(&self.norm)));
        }
        for weight in &self.weights {
            inputs.push(Tensor::reals(shape(&weight.ty), wide(&weight.values)));
        }
        for extra in &self.extras {
            let shape = shape(&extra.ty);
            inputs.push(match (extra.ty.rank(), extra.ty.dtype) {
                (3, _) => Tensor::reals(&*shape, vec![9.0; shape.iter().product::<u64>() as usize]),
                (_, DType::I32) => {
                    let bytes = extra.data.as_chunks::<4>().0;
                    let ints = bytes.iter().map(|b| i32::from_le_bytes(*b));
                    Tensor::ints(shape, ints.collect::<Vec<i32>>())
                }
                _ => Tensor::reals(shape, extra.values()),
            });
        }
        let results =
            Interpreter::<f64>::new(module, &NoWeights).run(FuncId(0), &inputs, &[]).unwrap();
        results.iter().map(|tensor| tensor.to_reals()).collect()
    }
}

/// The module's weights are parameters.
struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

#[test]
fn the_interpreter_agrees() {
    let weights = (3..5).map(|seed| Weight::random(seed, DType::F32, 44, 50)).collect();
    let mut gated = Case::new(3, 50, weights, vec![silu_product()]);
    gated.norm_eps = Some(1e-5);
    let heads = attention_inputs(5, 20, DType::F32, 16, true, DType::F32);
    for case in [gated, heads] {
        let module = case.module();
        let want = case.interpret(&module);
        for target in runnable_targets(&TARGETS) {
            let inst = InstId(0);
            let of_op = dispatch(
                &module,
                &module.functions[0],
                inst,
                Variant::Prefill,
                &target.clone().into(),
            )
            .unwrap();
            let spec = case.spec(&target);
            let config = TileConfig::default_for(&spec, &target);
            let of_op = KernelSource { work: None, ..of_op };
            assert_eq!(of_op, kernel(&spec, config, &target).unwrap());
            let results = case.run(&target);
            for (want, got) in want.iter().zip(&results.dense) {
                if got.is_empty() {
                    continue;
                }
                let largest = want.iter().fold(0.0f64, |a, x| a.max(x.abs()));
                for (want, got) in want.iter().zip(got) {
                    assert!((want - f64::from(*got)).abs() <= F32_ROUNDING * largest);
                }
            }
        }
    }
}
