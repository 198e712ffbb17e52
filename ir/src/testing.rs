//! What the tests share: fixtures, generated modules, mutated text, made-up weights.

use crate::builder::FunctionBuilder;
use crate::expr::{BinaryOp, Expr, F32, UnaryOp};
use crate::interp::{Data, Interpreter, Real, Tensor};
use crate::module::{FuncId, Module, SymbolId, ValueId};
use crate::op::{AttentionAttr, GemmAttr, GemmOutput, Op, Prologue, Store, Tiles, Tiling};
use crate::storage::quantize;
use crate::types::{DType, Dim, Layout, Shape, Type};
use crate::weights::Weights;
use std::borrow::Cow;
use std::path::PathBuf;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// In −1..1.
    pub fn real(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn reals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.real()).collect()
    }
}

/// The `.wl` files of `tests/fixtures`, in order of their names.
pub fn fixtures() -> Vec<(PathBuf, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "wl"))
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Weights made up from their names, in any dtype that can be written; zero bytes in the others.
pub struct MadeUp<'m>(pub &'m Module);

impl Weights for MadeUp<'_> {
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let weight = self.0.weights.iter().find(|weight| weight.name == name)?;
        let ty = Type::new(weight.stored, weight.ty.shape.clone());
        let extent = |dim: Dim| self.0.max_extent(dim);
        let count: u64 = ty.shape.iter().map(|&dim| extent(dim)).product();
        let seed = name.bytes().fold(17, |hash: u64, b| hash.wrapping_mul(31) + u64::from(b));
        let values = Random::new(seed).reals(count as usize);
        let row = ty.shape.last().map_or(1, |&dim| extent(dim)) as usize;
        let zeros = || vec![0; ty.bytes(extent).unwrap_or(0) as usize];
        Some(Cow::Owned(quantize(ty.dtype, &values, row).unwrap_or_else(|_| zeros())))
    }
}

/// A tensor of random elements of a type, with each symbol at its smallest.
pub fn random_tensor<R: Real>(module: &Module, ty: &Type, random: &mut Random) -> Tensor<R> {
    let extent = |dim: &Dim| match dim {
        Dim::Const(extent) => *extent,
        Dim::Symbol(id) => module.symbols[id.index()].min,
    };
    let shape: Vec<u64> = ty.shape.iter().map(extent).collect();
    let count = shape.iter().product::<u64>() as usize;
    let data = match ty.dtype {
        DType::I32 | DType::I8 | DType::U8 => {
            Data::Int((0..count).map(|_| random.below(3) as i32).collect())
        }
        DType::Bool => Data::Bool((0..count).map(|_| random.below(2) == 1).collect()),
        _ => Data::Real(random.reals(count).into_iter().map(R::from_f32).collect()),
    };
    Tensor { shape, data }
}

/// Runs every function of a verified module on random inputs, unless it is large. Results have
/// the extents of their types, or there is an error.
pub fn run_everything(module: &Module) {
    let smallest: Vec<(SymbolId, u64)> =
        (0..).map(SymbolId).zip(module.symbols.iter().map(|symbol| symbol.min)).collect();
    let extent = |dim: Dim| match dim {
        Dim::Const(extent) => extent,
        Dim::Symbol(id) => smallest[id.index()].1,
    };
    let all_types = module.functions.iter().flat_map(|f| f.values.iter().map(|value| &value.ty));
    let weights = module.weights.iter().map(|weight| &weight.ty);
    let bytes = all_types.chain(weights).map(|ty| ty.bytes(extent).unwrap_or(u64::MAX));
    if bytes.fold(0, u64::saturating_add) > 1 << 24 {
        return;
    }
    let source = MadeUp(module);
    let interpreter = Interpreter::<f32>::new(module, &source);
    let mut random = Random::new(5);
    for (i, function) in module.functions.iter().enumerate() {
        let inputs: Vec<Tensor<f32>> =
            function.param_types().map(|ty| random_tensor(module, ty, &mut random)).collect();
        if let Ok(results) = interpreter.run(FuncId(i as u32), &inputs, &smallest) {
            for (result, ty) in results.iter().zip(function.result_types()) {
                let shape: Vec<u64> = ty.shape.iter().map(|&dim| extent(dim)).collect();
                assert_eq!(result.shape, shape);
                assert_eq!(result.data.len() as u64, shape.iter().product::<u64>());
                assert!(result.data.holds(ty.dtype));
            }
        }
    }
}

/// Text with a few bytes or lines changed, taken out, or put elsewhere.
pub fn mutate(text: &str, random: &mut Random) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(8)).min(bytes.len());
        let start_of =
            |at: usize| bytes[..at].iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        match random.below(6) {
            0 if bytes[at].is_ascii_digit() => bytes[at] = random.pick(b"0123456789"),
            0 => bytes[at] = random.pick(b"0123456789%@#$,:=(){}[]<>\"-.eTSC fx\n\\"),
            1 => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            4 => {
                let (from, to) = (start_of(at), start_of(random.below(bytes.len())));
                let len = bytes[from..].iter().position(|&b| b == b'\n').map_or(0, |i| i + 1);
                let line = bytes[from..from + len].to_vec();
                bytes.splice(to..to, line);
            }
            _ => bytes.truncate(if random.below(8) == 0 { at } else { bytes.len() }),
        }
        if bytes.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A module that verifies: random declarations, functions of random ops on whatever fits.
pub fn module(random: &mut Random) -> Module {
    let mut module = Module::new(name(random, 0));
    for note in 0..random.below(3) {
        module.set_note(&name(random, note), name(random, 7));
    }
    for i in 0..1 + random.below(3) {
        let min = 1 + random.below(3) as u64;
        module.add_symbol(name(random, i), min, min + random.below(4) as u64);
    }
    for i in 0..random.below(4) {
        let dtype = random.pick(DType::ALL);
        let rows = Dim::Const(1 + random.below(3) as u64);
        let id = module.add_weight(name(random, i), Type::new(dtype, [rows, block_row(dtype)]));
        if dtype == DType::Q4_1 {
            module.weights[id.index()].stored =
                random.pick(&[DType::F32, DType::BF16, DType::Q8_0]);
        }
    }
    for i in 0..1 + random.below(3) {
        let name = name(random, i);
        let function = function(&module, name, random);
        module.add_function(function);
    }
    module
}

/// A name that `i` makes unique; half of them need quotes.
fn name(random: &mut Random, i: usize) -> String {
    let odd = ["T", "model.layers.0.q", "a b", "0", "\"", "\\", "é\n\t\u{7f}", "", "weight", "nan"];
    format!("{}{i}", random.pick(&odd))
}

fn block_row(dtype: DType) -> Dim {
    Dim::Const(dtype.block_len().max(4))
}

fn dim(module: &Module, random: &mut Random) -> Dim {
    match random.below(3) {
        0 => Dim::Symbol(SymbolId(random.below(module.symbols.len()) as u32)),
        _ => Dim::Const(random.pick(&[1, 2, 4])),
    }
}

fn shape(module: &Module, random: &mut Random) -> Shape {
    (0..random.below(4)).map(|_| dim(module, random)).collect()
}

fn ty(module: &Module, random: &mut Random) -> Type {
    let mut shape = shape(module, random);
    let dtype = match random.below(3) {
        0 => random.pick(DType::ALL),
        _ => random.pick(&[DType::F32, DType::F32, DType::I32, DType::Bool]),
    };
    if dtype.is_block() {
        shape.push(block_row(dtype));
    }
    let layout = match (shape.len(), random.below(8)) {
        (3, 0 | 1) => Layout::PositionLanes(1 + random.below(16) as u32),
        (3, 2 | 3) => Layout::HeadMajor,
        (3, 4) if !dtype.is_block() => Layout::KeyBlocks(8 * (1 + random.below(8) as u32)),
        (3, 5) if !dtype.is_block() => Layout::ValueBlocks(8 * (1 + random.below(8) as u32)),
        _ => Layout::RowMajor,
    };
    Type { dtype, shape, layout }
}

fn constant(random: &mut Random) -> F32 {
    let bits = [0, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc0_0001, 1, 0x7f7f_ffff];
    match random.below(3) {
        0 => F32(f32::from_bits(random.pick(&bits))),
        1 => F32(f32::from_bits(random.next() as u32)),
        _ => F32(random.real()),
    }
}

fn expr(random: &mut Random, depth: u32) -> Expr {
    let inner = |random: &mut Random| expr(random, depth - 1);
    match random.below(if depth == 0 { 3 } else { 7 }) {
        0 => Expr::Acc(0),
        1 => Expr::Operand(random.below(2) as u32),
        2 => Expr::Const(constant(random)),
        3 => Expr::unary(random.pick(UnaryOp::ALL), inner(random)),
        4 | 5 => Expr::binary(random.pick(BinaryOp::ALL), inner(random), inner(random)),
        _ => Expr::HeadNorm {
            x: Box::new(inner(random)),
            weight: 0,
            eps: constant(random),
            head_dim: 2,
        },
    }
}

fn function(module: &Module, name: String, random: &mut Random) -> crate::module::Function {
    let mut builder = FunctionBuilder::new(module, name);
    let mut values = vec![];
    for i in 0..1 + random.below(5) {
        let ty = ty(module, random);
        values.push(builder.param(self::name(random, i), ty));
    }
    // Most random ops do not fit their operands; `infer` keeps those that do.
    for _ in 0..150 {
        let op = op(module, random);
        let count = op.arity().unwrap_or(1 + random.below(4));
        let operands: Vec<ValueId> = (0..count).map(|_| random.pick(&values)).collect();
        if values.len() < 40
            && let Ok(results) = builder.push(op, &operands)
        {
            if random.below(4) == 0 && !results.is_empty() {
                builder.name(results[0], self::name(random, 0));
            }
            values.extend(results);
        }
    }
    let results: Vec<ValueId> = (0..random.below(3)).map(|_| random.pick(&values)).collect();
    builder.finish(&results)
}

fn op(module: &Module, random: &mut Random) -> Op {
    use crate::module::WeightId;
    let axis = random.below(3) as u32;
    let attr = gemm(random);
    match random.below(26) {
        0 => Op::Unary(random.pick(UnaryOp::ALL)),
        1 | 2 => Op::Binary(random.pick(BinaryOp::ALL)),
        3 if !module.weights.is_empty() => {
            Op::Weight { weight: WeightId(random.below(module.weights.len()) as u32) }
        }
        4 if !module.functions.is_empty() => {
            Op::Call { func: FuncId(random.below(module.functions.len()) as u32) }
        }
        5 => Op::Reshape { shape: shape(module, random) },
        6 => Op::CacheAppend {},
        7 => Op::Constant { value: constant(random), ty: Type::f32(shape(module, random)) },
        8 => Op::Iota { len: dim(module, random) },
        9 => Op::Select {},
        10 => Op::ReduceSum { axis },
        11 => Op::ReduceMean { axis },
        12 => Op::ReduceMax { axis },
        13 => Op::MatMul {},
        14 => Op::Transpose { perm: random.pick(&[vec![0], vec![1, 0], vec![2, 0, 1]]) },
        15 => Op::Slice { axis, start: random.below(3) as u64, len: dim(module, random) },
        16 => Op::Concat { axis },
        17 => Op::Broadcast { shape: shape(module, random) },
        18 => Op::Gather {},
        19 => Op::Cast { dtype: random.pick(DType::ALL) },
        20 => Op::Dequantize {},
        21 => Op::TopK { k: random.below(3) as u64 },
        22 => Op::Embed {},
        23 => Op::Norm { eps: constant(random) },
        24 => Op::Map { expr: expr(random, 4) },
        25 => Op::Gemm { attr },
        _ => Op::Attention {
            attr: AttentionAttr {
                heads: 2,
                kv_heads: 1,
                head_dim: 2,
                scale: constant(random),
                window: random.pick(&[None, Some(3)]),
                softcap: random.pick(&[None, Some(F32(30.0))]),
            },
        },
    }
}

fn tiling(random: &mut Random) -> Option<Tiling> {
    let sizes = (0..random.below(3)).map(|i| (format!("size_{i}"), i as u32)).collect();
    random.pick(&[None, Some(Tiling { generator: "matrix".into(), sizes })])
}

fn gemm(random: &mut Random) -> GemmAttr {
    let append = Store::Append { cache: 0, positions: 1 };
    GemmAttr {
        weights: 1,
        prologue: random.pick(&[None, Some(Prologue::RmsNorm { eps: F32(1e-5) })]),
        outputs: (0..random.below(3))
            .map(|_| GemmOutput {
                expr: expr(random, 2),
                store: random.pick(&[Store::Dense, append]),
            })
            .collect(),
        tiles: Tiles { prefill_tiles: tiling(random), decode_tiles: tiling(random) },
    }
}
