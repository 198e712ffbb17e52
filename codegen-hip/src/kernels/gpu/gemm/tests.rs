//! Products on every chip against the interpreter in f64, on the numbers that the stored weights
//! stand for.

use super::{GemmSpec, gemv};
use crate::harness::random_f32;
use crate::kernels::gpu::Instance;
use crate::kernels::gpu::testing::{
    CHIPS, Outcome, Runner, f32_bytes, i32_bytes, module, target, to_f32, unwritten,
};
use crate::kernels::{KernelSource, Variant};
use crate::pack::gpu::GpuLayout;
use crate::pack::pack_weight;
use crate::target::Target;
use half::f16;
use std::borrow::Cow;
use waveloom_ir::{
    BinaryOp, DType, Dim, Expr, F32, FuncId, FunctionBuilder, GemmAttr, GemmOutput, Interpreter,
    Layout, Module, Op, Prologue, Store, SymbolId, Tensor, Type, UnaryOp, Weights, storage,
};
use waveloom_plan::CodeFacts;

/// Errors relative to the largest result. A lane adds up at most some hundred products, the rest
/// are sums of sums: with N additions of terms of either sign, the error is about √N · 2⁻²⁴ of the
/// largest partial sum. An epilogue adds a few roundings.
const F32_ROUNDING: f64 = 4e-6;
/// The same for quantized weights, where x is in fixed point (`gemv::activations`): a number is off
/// by at most half a step of 1 / 32639 of the block's largest, which is about 1 here, evenly spread:
/// 8.8e-6 root mean square. Weights and x have a root mean square of 1/√3 or less, so that of K
/// products the error is √K · 8.8e-6 / √3 and their sum about √K / 3: 1.5e-5 of it. This is four
/// times as much.
const FIXED_POINT_ROUNDING: f64 = 6e-5;
/// The same where results are rounded to f16 in a cache: half a unit of 11 bits.
const F16_ROUNDING: f64 = 1.0 / 2048.0;

const ALL: [DType; 6] =
    [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1];

const T: Dim = Dim::Symbol(SymbolId(0));

/// An operand: its type, and its value in memory and for the interpreter.
#[derive(Clone)]
struct Operand {
    ty: Type,
    /// As the checkpoint has it; weights are packed for the kernel.
    bytes: Vec<u8>,
    is_weight: bool,
    value: Tensor<f64>,
}

fn extents(ty: &Type, tokens: u64) -> Vec<u64> {
    let extent = |dim: &Dim| if let Dim::Const(n) = dim { *n } else { tokens };
    ty.shape.iter().map(extent).collect()
}

impl Operand {
    fn f32(seed: u64, shape: impl Into<Vec<Dim>>, tokens: u64) -> Operand {
        let ty = Type::f32(shape.into());
        let shape = extents(&ty, tokens);
        let numbers = random_f32(seed, shape.iter().product::<u64>() as usize);
        let value = Tensor::reals(shape, numbers.iter().map(|&x| x.into()).collect::<Vec<f64>>());
        Operand { ty, bytes: f32_bytes(&numbers), is_weight: false, value }
    }

    fn weight(seed: u64, dtype: DType, n: u64, k: u64) -> Operand {
        let values = random_f32(seed, (n * k) as usize);
        let bytes = storage::quantize(dtype, &values, k as usize).unwrap();
        let mut exact = vec![0.0; values.len()];
        storage::dequantize(dtype, &bytes, &mut exact).unwrap();
        let value = Tensor::reals([n, k], exact.iter().map(|&x| x.into()).collect::<Vec<f64>>());
        let ty = Type::new(dtype, [Dim::Const(n), Dim::Const(k)]);
        Operand { ty, bytes, is_weight: true, value }
    }

    fn positions(positions: &[i32], dim: Dim) -> Operand {
        let value = Tensor::ints([positions.len() as u64], positions);
        let ty = Type::new(DType::I32, [dim]);
        Operand { ty, bytes: i32_bytes(positions), is_weight: false, value }
    }

    /// A cache for `capacity` positions, all of it 9.
    fn cache(layout: Layout, capacity: u64, heads: u64, dim: u64) -> Operand {
        let mut ty = Type::new(DType::F16, [capacity, heads, dim].map(Dim::Const));
        ty.layout = layout;
        let elements = layout.capacity(capacity) * heads * dim;
        let bytes = (0..elements).flat_map(|_| f16::from_f32(9.0).to_le_bytes()).collect();
        let nines = vec![9.0; (capacity * heads * dim) as usize];
        let value = Tensor::reals([capacity, heads, dim], nines);
        Operand { ty, bytes, is_weight: false, value }
    }

    fn packed(&self, target: &Target) -> Vec<u8> {
        match self.is_weight {
            true => pack_weight("w", &self.ty, &self.bytes, target).unwrap(),
            false => self.bytes.clone(),
        }
    }
}

/// A `gemm` with its operands.
#[derive(Clone)]
struct Case {
    tokens: u64,
    attr: GemmAttr,
    /// x, norm weight, weights, extras.
    operands: Vec<Operand>,
    variant: Variant,
}

impl Case {
    /// `m` rows of x, of an extent that is `rows`.
    fn new(m: u64, rows: Dim, norm: bool, weights: Vec<Operand>, outputs: Vec<Expr>) -> Case {
        let Dim::Const(k) = weights[0].ty.shape[1] else { panic!("K is known") };
        let mut operands = vec![Operand::f32(1, [rows, Dim::Const(k)], m)];
        if norm {
            operands.push(Operand::f32(2, [Dim::Const(k)], m));
        }
        let attr = GemmAttr {
            weights: weights.len() as u32,
            prologue: norm.then_some(Prologue::RmsNorm { eps: F32(1e-5) }),
            outputs: outputs
                .into_iter()
                .map(|expr| GemmOutput { expr, store: Store::Dense })
                .collect(),
            tiles: waveloom_ir::Tiles::default(),
        };
        operands.extend(weights);
        Case { tokens: m, attr, operands, variant: Variant::Prefill }
    }

    /// Products of one weight with a fixed number of rows.
    fn plain(m: u64, dtype: DType, n: u64, k: u64) -> Case {
        let weight = Operand::weight(3, dtype, n, k);
        Case::new(m, Dim::Const(m), false, vec![weight], vec![Expr::Acc(0)])
    }

    fn types(&self) -> Vec<Type> {
        self.operands.iter().map(|operand| operand.ty.clone()).collect()
    }

    /// The kernel for few rows, also where the one of matrix operations would be chosen.
    fn source(&self, target: &Target) -> KernelSource {
        let Target::Gpu(target) = target else { panic!("a GPU") };
        let (module, variant) = (self.module(), self.variant);
        let function = &module.functions[0];
        let captured = variant == Variant::Decode;
        let inst = &function.insts[0];
        let work_items = 0;
        let op =
            Instance { module: &module, function, inst, variant, target, captured, work_items };
        let spec = GemmSpec::new(&op, &self.attr).unwrap();
        let config = gemv::TileConfig::default_for(&spec, target).unwrap();
        gemv::kernel(&spec, config, target).unwrap()
    }

    fn runner(&self, target: &Target) -> Runner {
        Runner::new(self.source(target), target)
    }

    /// What is in the code.
    fn facts(&self, target: &Target) -> CodeFacts {
        crate::compile(&self.source(target).text, target, false).unwrap().facts.unwrap()
    }

    /// Capacity of the caches.
    fn capacity(&self) -> i64 {
        let caches = self.operands.iter().filter(|operand| operand.ty.rank() == 3);
        caches.map(|cache| extents(&cache.ty, 0)[0] as i64).max().unwrap_or(1)
    }

    /// The module of the op alone, for the interpreter.
    fn module(&self) -> Module {
        let mut module = module();
        let mut function = FunctionBuilder::new(&module, "main");
        let types = self.types();
        let operands: Vec<_> = types.iter().map(|ty| function.param("x", ty.clone())).collect();
        let results = function.push(Op::Gemm { attr: self.attr.clone() }, &operands).unwrap();
        let function = function.finish(&results);
        module.add_function(function);
        module
    }

    fn reference(&self) -> Vec<Tensor<f64>> {
        let inputs: Vec<Tensor<f64>> = self.operands.iter().map(|o| o.value.clone()).collect();
        let module = self.module();
        let symbols = [(SymbolId(0), self.tokens)];
        Interpreter::<f64>::new(&module, &NoWeights).run(FuncId(0), &inputs, &symbols).unwrap()
    }

    fn run(&self, target: &Target, want: &[Tensor<f64>]) -> Outcome {
        self.run_on(&self.runner(target), target, want)
    }

    fn run_on(&self, runner: &Runner, target: &Target, want: &[Tensor<f64>]) -> Outcome {
        let mut buffers: Vec<Vec<u8>> = self.operands.iter().map(|o| o.packed(target)).collect();
        for (output, want) in self.attr.outputs.iter().zip(want) {
            buffers.push(match output.store {
                Store::Dense => unwritten(4 * want.data.len()),
                // The cache is an operand.
                Store::Append { .. } => vec![],
            });
        }
        let symbols = [self.tokens as i64, self.capacity(), self.capacity()];
        runner.run(&buffers, symbols)
    }

    /// Runs on every chip and compares.
    fn check(&self) {
        let want = self.reference();
        for name in CHIPS {
            let outcome = self.run(&target(name), &want);
            self.compare(name, &outcome, &want);
        }
    }

    fn compare(&self, chip: &str, outcome: &Outcome, want: &[Tensor<f64>]) {
        let quantized = self.operands.iter().any(|operand| operand.ty.dtype.is_block());
        let rounding = if quantized { FIXED_POINT_ROUNDING } else { F32_ROUNDING };
        for (index, (output, want)) in self.attr.outputs.iter().zip(want).enumerate() {
            let wanted = want.to_reals();
            let largest = wanted.iter().fold(0.0f64, |a, x| a.max(x.abs()));
            let (got, tolerance) = match output.store {
                Store::Dense => {
                    let bytes = &outcome.buffers[self.operands.len() + index];
                    let got: Vec<f64> = to_f32(bytes).into_iter().map(f64::from).collect();
                    (got, rounding)
                }
                Store::Append { cache, .. } => {
                    let cache = self.attr.first_extra() + cache as usize;
                    let bytes = &outcome.buffers[cache];
                    (cached(&self.operands[cache].ty, bytes), rounding + F16_ROUNDING)
                }
            };
            assert_eq!(got.len(), wanted.len());
            for (i, (got, want)) in got.iter().zip(&wanted).enumerate() {
                let error = (got - want).abs() / largest.max(1.0);
                let rows = self.tokens;
                assert!(
                    error <= tolerance,
                    "{chip}, {rows} rows, output {index}: element {i} is {got}, not {want} ({error:e})"
                );
            }
        }
    }
}

/// A source of no weights: they are parameters.
struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

/// A cache's elements, positions outermost.
fn cached(ty: &Type, bytes: &[u8]) -> Vec<f64> {
    let [capacity, heads, dim] = extents(ty, 0)[..] else { panic!("a cache has three extents") };
    let mut elements = vec![];
    for position in 0..capacity {
        for head in 0..heads {
            for element in 0..dim {
                let at = [position, head, element];
                let at = 2 * ty.layout.index([capacity, heads, dim], at, 2) as usize;
                elements.push(f16::from_le_bytes([bytes[at], bytes[at + 1]]).into());
            }
        }
    }
    elements
}

fn silu_product() -> Expr {
    let silu =
        Expr::binary(BinaryOp::Mul, Expr::Acc(0), Expr::unary(UnaryOp::Sigmoid, Expr::Acc(0)));
    Expr::binary(BinaryOp::Mul, silu, Expr::Acc(1))
}

/// N and K of which none divides a tile: odd multiples of the block, one column, few cells.
const SHAPES: [(u64, u64); 5] = [(1, 32), (17, 96), (48, 544), (65, 576), (33, 1056)];

/// One row in every shape, and 2 to 8 rows over the dtypes.
fn products(dtype: DType) {
    for (n, k) in SHAPES {
        Case::plain(1, dtype, n, k).check();
    }
    let index = ALL.iter().position(|d| *d == dtype).unwrap() as u64;
    Case::plain(2 + index, dtype, 17, 96).check();
    Case::plain(8 - index, dtype, 33, 544).check();
}

#[test]
fn products_of_f32() {
    products(DType::F32);
}

#[test]
fn products_of_f16() {
    products(DType::F16);
}

#[test]
fn products_of_bf16() {
    products(DType::BF16);
}

#[test]
fn products_of_q8_0() {
    products(DType::Q8_0);
}

#[test]
fn products_of_q4_0() {
    products(DType::Q4_0);
}

#[test]
fn products_of_q4_1() {
    products(DType::Q4_1);
}

// ---- epilogues ------------------------------------------------------------------------------

#[test]
fn norm_and_gated_product() {
    use DType::{BF16, F32, Q4_0, Q4_1, Q8_0};
    for (m, n, k, dtypes) in [
        (1, 88, 576, [Q4_1, Q4_1]),
        // Weights of two dtypes in one section.
        (1, 88, 576, [Q4_0, Q8_0]),
        (3, 40, 96, [BF16, F32]),
    ] {
        let weights = [0, 1].map(|i| Operand::weight(3 + i as u64, dtypes[i], n, k)).to_vec();
        Case::new(m, Dim::Const(m), true, weights, vec![silu_product()]).check();
    }
}

#[test]
fn bias_and_residual() {
    for (m, n) in [(1, 100), (5, 33)] {
        let sum = Expr::binary(BinaryOp::Add, Expr::Acc(0), Expr::Operand(0));
        let sum = Expr::binary(BinaryOp::Add, sum, Expr::Operand(1));
        let weight = Operand::weight(3, DType::Q8_0, n, 64);
        let mut case = Case::new(m, T, false, vec![weight], vec![sum]);
        case.operands.push(Operand::f32(4, [T, Dim::Const(n)], m));
        case.operands.push(Operand::f32(5, [Dim::Const(n)], m));
        case.check();
    }
}

/// The products before attention: queries stored, keys and values appended; with a norm of heads
/// for some models.
fn attention_inputs(
    m: u64,
    rows: Dim,
    (heads, kv_heads, dim): (u64, u64, u64),
    dtypes: [DType; 3],
    (lanes, head_norm): (u32, bool),
) -> Case {
    let k = 96;
    let [q, kv] = [heads * dim, kv_heads * dim];
    let weights = [(q, dtypes[0]), (kv, dtypes[1]), (kv, dtypes[2])];
    let weights =
        weights.iter().zip(3..).map(|((n, dtype), seed)| Operand::weight(seed, *dtype, *n, k));
    let weights = weights.collect();
    let rope = |acc: u32, norm: u32| {
        let x = match head_norm {
            false => Expr::Acc(acc),
            true => Expr::HeadNorm {
                x: Box::new(Expr::Acc(acc)),
                weight: norm,
                eps: F32(1e-6),
                head_dim: dim as u32,
            },
        };
        Expr::Rope { x: Box::new(x), cos: 0, sin: 1, head_dim: dim as u32 }
    };
    // The bias of values as Qwen 2 has it.
    let value = Expr::binary(BinaryOp::Add, Expr::Acc(2), Expr::Operand(5));
    let mut case = Case::new(m, rows, true, weights, vec![rope(0, 6), rope(1, 7), value]);
    case.attr.outputs[1].store = Store::Append { cache: 3, positions: 2 };
    case.attr.outputs[2].store = Store::Append { cache: 4, positions: 2 };
    let positions: Vec<i32> = (0..m as i32).map(|i| (5 + 7 * i) % 67).collect();
    case.operands.extend([
        Operand::f32(10, [rows, Dim::Const(dim / 2)], m),
        Operand::f32(11, [rows, Dim::Const(dim / 2)], m),
        Operand::positions(&positions, rows),
        Operand::cache(Layout::KeyBlocks(lanes), 67, kv_heads, dim),
        Operand::cache(Layout::ValueBlocks(lanes), 67, kv_heads, dim),
        Operand::f32(12, [Dim::Const(kv)], m),
        Operand::f32(13, [Dim::Const(dim)], m),
        Operand::f32(14, [Dim::Const(dim)], m),
    ]);
    case
}

#[test]
fn attention_inputs_of_every_head_size() {
    use DType::{F16, Q4_1, Q8_0};
    let one = Dim::Const(1);
    attention_inputs(1, one, (3, 1, 64), [Q4_1; 3], (64, false)).check();
    attention_inputs(1, one, (2, 2, 80), [Q8_0; 3], (32, false)).check();
    attention_inputs(1, one, (2, 1, 96), [Q4_1, Q4_1, F16], (64, true)).check();
    attention_inputs(11, T, (2, 1, 128), [Q4_1, Q4_1, Q8_0], (32, true)).check();
    attention_inputs(3, T, (3, 1, 64), [F16; 3], (32, false)).check();
}

#[test]
fn a_decode_step_is_one_row_whatever_t_is() {
    let case = attention_inputs(1, T, (3, 1, 64), [DType::Q4_1; 3], (64, false));
    Case { variant: Variant::Decode, ..case }.check();
}

#[test]
fn every_number_of_rows_of_one_kernel() {
    let build = |m| {
        let weight = Operand::weight(3, DType::Q4_1, 33, 96);
        Case::new(m, T, true, vec![weight], vec![Expr::Acc(0)])
    };
    for name in CHIPS {
        let target = target(name);
        let runner = build(1).runner(&target);
        for m in 1..=17 {
            let case = build(m);
            let want = case.reference();
            let outcome = case.run_on(&runner, &target, &want);
            case.compare(name, &outcome, &want);
        }
    }
}

/// Rows too long for the local data share come in slabs; the sum of squares goes over all of them.
#[test]
fn long_rows() {
    use DType::{BF16, F32, Q4_1, Q8_0};
    for (m, k, dtypes) in
        [(1, 14_336 + 96, [Q4_1, Q8_0]), (8, 3072 + 32, [Q8_0, Q4_1]), (5, 9000, [F32, BF16])]
    {
        let weights = [0, 1].map(|i| Operand::weight(3 + i as u64, dtypes[i], 18, k)).to_vec();
        let sum = Expr::binary(BinaryOp::Add, Expr::Acc(0), Expr::Acc(1));
        Case::new(m, Dim::Const(m), true, weights, vec![sum]).check();
    }
}

// ---- statistics -----------------------------------------------------------------------------

/// What a kernel must read: the packed weights once, and for each workgroup x, in whole pieces.
/// Beyond that are only the epilogue's operands, here none. What lanes of one instruction share is
/// read once. No instruction reads weights less than 16 bytes wide but that of scales beyond whole
/// units.
#[test]
fn every_weight_byte_is_read_once() {
    for (dtype, n, k) in [
        (DType::F32, 1024, 256),
        (DType::F16, 1024, 512),
        (DType::BF16, 1024, 512),
        (DType::Q8_0, 1024, 1024),
        (DType::Q4_0, 1024, 1088),
        (DType::Q4_1, 1024, 1024),
    ] {
        let case = Case::plain(1, dtype, n, k);
        let want = case.reference();
        let layout = GpuLayout::new(dtype, n, k).unwrap();
        for name in CHIPS {
            let statistics = case.run(&target(name), &want).statistics;
            let moved: u64 = statistics.global.values().map(|t| t.bytes).sum();
            let read = moved - statistics.bytes_written;
            let compulsory = layout.bytes() + statistics.workgroups * k * 4;
            let most = 1.05 * compulsory as f64;
            assert!(read as f64 <= most, "{name} {dtype}: {read} of {compulsory}");
            assert_eq!(statistics.lds.conflict_cycles, 0, "{name} {dtype}");
            assert_eq!(statistics.scratch_bytes, 0);
            let wide = statistics.global.get(&16).map_or(0, |t| t.bytes);
            let tail = layout.bytes() - layout.tail_offset();
            let narrow = if layout.scale_bytes() > 0 { tail } else { 0 };
            let rest = (moved - wide).saturating_sub(narrow);
            // Results, where they are not stored 16 bytes at a time.
            assert!(rest <= n * 4, "{name} {dtype}: {rest} bytes are not wide");
        }
    }
}

/// No register is spilled, and a wave never waits for all of its loads in the loop over units.
#[test]
fn loads_stay_in_flight() {
    for dtype in ALL {
        for name in CHIPS {
            let case = Case { variant: Variant::Decode, ..Case::plain(1, dtype, 1024, 6144) };
            let facts = case.facts(&target(name));
            let [spills, private] = [facts.spills, facts.private_bytes];
            assert_eq!([spills, private], [0, 0], "{name} {dtype}");
            let hot = facts.hot_loop.expect("a loop over units");
            assert!(hot.wide_loads >= 4, "{name} {dtype}: {hot:?}");
            assert_eq!(hot.full_waits, 0, "{name} {dtype}: {hot:?}");
            assert_eq!(hot.narrow_loads, 0, "{name} {dtype}: {hot:?}");
        }
    }
}

/// The kernels with the most in registers: eight rows of two weights of one dtype or of two, heads
/// of 256 columns. As many waves as planned, and nothing spilled.
#[test]
fn registers_are_enough() {
    use DType::{BF16, F16, F32, Q4_0, Q4_1, Q8_0};
    for dtypes in [[F32, F32], [F16, BF16], [Q8_0, Q8_0], [Q4_0, Q8_0], [Q4_1, Q4_1], [Q4_1, F16]] {
        let weights = |k| [0, 1].map(|i| Operand::weight(3, dtypes[i], 64, k)).to_vec();
        let gated = |m, k| Case::new(m, Dim::Const(m), true, weights(k), vec![silu_product()]);
        let [q, v] = dtypes;
        let heads = attention_inputs(8, Dim::Const(8), (1, 1, 256), [q, q, v], (64, true));
        for case in [gated(1, 576), gated(1, 4096), gated(8, 1056), heads] {
            for name in CHIPS {
                let facts = case.facts(&target(name));
                let what = format!("{name} {dtypes:?}: {facts:?}");
                assert_eq!([facts.spills, facts.private_bytes], [0, 0], "{what}");
                assert!(facts.waves_per_simd >= facts.planned_waves_per_simd, "{what}");
            }
        }
    }
}
