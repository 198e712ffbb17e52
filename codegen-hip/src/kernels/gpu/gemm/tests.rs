//! Products on every chip against the interpreter in f64, on the numbers that the stored weights
//! stand for.

use crate::harness::random_f32;
use crate::kernels::Variant;
use crate::kernels::gpu::testing::{
    CHIPS, Outcome, Runner, f32_bytes, i32_bytes, kernel, module, target, to_f32, unwritten,
};
use crate::pack::pack_weight;
use crate::target::Target;
use half::f16;
use std::borrow::Cow;
use waveloom_ir::{
    BinaryOp, DType, Dim, Expr, F32, FuncId, FunctionBuilder, GemmAttr, GemmOutput, Interpreter,
    Layout, Module, Op, Prologue, Store, SymbolId, Tensor, Type, UnaryOp, Weights, storage,
};

/// Errors relative to the largest result. A lane adds up at most some hundred products, the rest
/// are sums of sums: with N additions of terms of either sign, the error is about √N · 2⁻²⁴ of the
/// largest partial sum, which unsigned storage of q4_0 and q8_0 makes some times larger than the
/// result (`gemv::stream`). An epilogue adds a few roundings.
const F32_ROUNDING: f64 = 4e-6;
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

    fn runner(&self, target: &Target) -> Runner {
        let op = Op::Gemm { attr: self.attr.clone() };
        Runner::new(kernel(op, &self.types(), self.variant, target), target)
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
        let mut buffers: Vec<Vec<u8>> = self.operands.iter().map(|o| o.packed(target)).collect();
        for (output, want) in self.attr.outputs.iter().zip(want) {
            buffers.push(match output.store {
                Store::Dense => unwritten(4 * want.data.len()),
                // The cache is an operand.
                Store::Append { .. } => vec![],
            });
        }
        let symbols = [self.tokens as i64, self.capacity(), self.capacity()];
        self.runner(target).run(&buffers, symbols)
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
        for (index, (output, want)) in self.attr.outputs.iter().zip(want).enumerate() {
            let wanted = want.to_reals();
            let largest = wanted.iter().fold(0.0f64, |a, x| a.max(x.abs()));
            let (got, tolerance) = match output.store {
                Store::Dense => {
                    let bytes = &outcome.buffers[self.operands.len() + index];
                    let got: Vec<f64> = to_f32(bytes).into_iter().map(f64::from).collect();
                    (got, F32_ROUNDING)
                }
                Store::Append { cache, .. } => {
                    let cache = self.attr.first_extra() + cache as usize;
                    let bytes = &outcome.buffers[cache];
                    (cached(&self.operands[cache].ty, bytes), F32_ROUNDING + F16_ROUNDING)
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

fn products(dtype: DType) {
    for (index, (n, k)) in SHAPES.into_iter().enumerate() {
        Case::plain(1, dtype, n, k).check();
        // 2 to 8 rows over the dtypes and shapes.
        let seed = ALL.iter().position(|d| *d == dtype).unwrap() + 3 * index;
        Case::plain(2 + seed as u64 % 7, dtype, n, k).check();
    }
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
