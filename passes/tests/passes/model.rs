//! Tiny decoders in macro-ops, unfused: what raising leaves.

use waveloom_ir::{
    AttentionAttr, BinaryOp, DType, Dim, Expr, F32, FuncId, FunctionBuilder, GemmAttr, GemmOutput,
    InferError, Module, Op, Store, SymbolId, Type, UnaryOp, ValueId, WeightId,
};

/// What differs between the families.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Bias of q, k, v (Qwen2).
    pub bias: bool,
    /// Norm of each query and key head (Qwen3).
    pub head_norm: bool,
    /// Dtype of matrix weights.
    pub matrix: Matrix,
    /// Number of layers.
    pub layers: usize,
}

/// A dtype with a default.
#[derive(Clone, Copy, Debug)]
pub struct Matrix(pub DType);

impl Default for Matrix {
    fn default() -> Self {
        Matrix(DType::F32)
    }
}

pub const HIDDEN: u64 = 64;
pub const HEADS: u64 = 4;
pub const KV_HEADS: u64 = 2;
pub const HEAD_DIM: u64 = 16;
pub const FFN: u64 = 96;
pub const VOCAB: u64 = 40;
const EPS: F32 = F32(1e-5);

pub fn llama() -> Config {
    Config { layers: 2, ..Config::default() }
}

pub fn qwen2() -> Config {
    Config { bias: true, ..llama() }
}

pub fn qwen3() -> Config {
    Config { head_norm: true, ..llama() }
}

/// The module of `config`: `@layer` and `@step`.
pub fn build(config: Config) -> Module {
    let mut module = Module::new("tiny");
    let t = module.add_symbol("T", 1, 4);
    module.add_symbol("S", 1, 8);
    let c = module.add_symbol("C", 1, 8);
    let layer = layer(&module, config, t, c).expect("the layer is well typed");
    let layer = module.add_function(layer);
    let weights = Weights::declare(&mut module, config);
    let step = step(&module, config, layer, &weights, t, c).expect("the step is well typed");
    module.add_function(step);
    module
}

fn dims<const N: usize>(extents: [u64; N]) -> Vec<Dim> {
    extents.map(Dim::Const).to_vec()
}

/// Names and types of a layer's weights, in the order of its parameters.
fn layer_weights(config: Config) -> Vec<(&'static str, Type)> {
    let matrix = |n, k| Type::new(config.matrix.0, dims([n, k]));
    let vector = |n| Type::f32(dims([n]));
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let mut list = vec![
        ("attn_norm", vector(HIDDEN)),
        ("q_proj", matrix(q, HIDDEN)),
        ("k_proj", matrix(kv, HIDDEN)),
        ("v_proj", matrix(kv, HIDDEN)),
        ("o_proj", matrix(HIDDEN, q)),
        ("mlp_norm", vector(HIDDEN)),
        ("gate_proj", matrix(FFN, HIDDEN)),
        ("up_proj", matrix(FFN, HIDDEN)),
        ("down_proj", matrix(HIDDEN, FFN)),
    ];
    if config.bias {
        list.extend([("q_bias", vector(q)), ("k_bias", vector(kv)), ("v_bias", vector(kv))]);
    }
    if config.head_norm {
        list.extend([("q_norm", vector(HEAD_DIM)), ("k_norm", vector(HEAD_DIM))]);
    }
    list
}

fn cache_type(c: SymbolId) -> Type {
    Type::f32([c.into(), Dim::Const(KV_HEADS), Dim::Const(HEAD_DIM)])
}

struct Layer<'m> {
    b: FunctionBuilder<'m>,
    weights: Vec<(&'static str, ValueId)>,
    t: SymbolId,
}

type Built = Result<ValueId, InferError>;

impl Layer<'_> {
    fn weight(&self, name: &str) -> ValueId {
        let found = self.weights.iter().find(|(other, _)| *other == name);
        found.expect("a declared weight").1
    }

    fn gemm(&mut self, x: ValueId, weight: &str) -> Built {
        let weight = self.weight(weight);
        gemm(&mut self.b, x, weight)
    }

    fn norm(&mut self, x: ValueId, weight: &str) -> Built {
        let weight = self.weight(weight);
        self.b.push1(Op::Norm { eps: EPS }, &[x, weight])
    }

    fn add(&mut self, a: ValueId, b: ValueId) -> Built {
        map(&mut self.b, binary(BinaryOp::Add, Expr::Operand(0), Expr::Operand(1)), &[a, b])
    }

    /// Product, bias and view by heads, normalized if there is a weight for it.
    fn heads(&mut self, x: ValueId, config: Config, name: &str, heads: u64) -> Built {
        let mut value = self.gemm(x, &format!("{name}_proj"))?;
        if config.bias {
            let bias = self.weight(&format!("{name}_bias"));
            value = self.add(value, bias)?;
        }
        let shape = vec![self.t.into(), Dim::Const(heads), Dim::Const(HEAD_DIM)];
        value = self.b.reshape(value, shape)?;
        if config.head_norm && name != "v" {
            value = self.norm(value, &format!("{name}_norm"))?;
        }
        Ok(value)
    }
}

fn layer(
    module: &Module,
    config: Config,
    t: SymbolId,
    c: SymbolId,
) -> Result<waveloom_ir::Function, InferError> {
    let mut b = FunctionBuilder::new(module, "layer");
    let x = b.param("x", Type::f32([t.into(), Dim::Const(HIDDEN)]));
    let angles = Type::f32([t.into(), Dim::Const(HEAD_DIM / 2)]);
    let cos = b.param("cos", angles.clone());
    let sin = b.param("sin", angles);
    let positions = b.param("positions", Type::new(DType::I32, [t.into()]));
    let k_cache = b.param("k_cache", cache_type(c));
    let v_cache = b.param("v_cache", cache_type(c));
    let weights =
        layer_weights(config).into_iter().map(|(name, ty)| (name, b.param(name, ty))).collect();
    let mut l = Layer { b, weights, t };
    let h = l.norm(x, "attn_norm")?;
    let q = l.heads(h, config, "q", HEADS)?;
    let q = l.b.push1(Op::Rope {}, &[q, cos, sin])?;
    let q = l.b.reshape(q, vec![t.into(), Dim::Const(HEADS * HEAD_DIM)])?;
    let k = l.heads(h, config, "k", KV_HEADS)?;
    let k = l.b.push1(Op::Rope {}, &[k, cos, sin])?;
    let v = l.heads(h, config, "v", KV_HEADS)?;
    let keys = l.b.push1(Op::CacheAppend {}, &[k_cache, k, positions])?;
    let values = l.b.push1(Op::CacheAppend {}, &[v_cache, v, positions])?;
    let attr = AttentionAttr {
        heads: HEADS as u32,
        kv_heads: KV_HEADS as u32,
        head_dim: HEAD_DIM as u32,
        scale: F32(0.25),
        window: None,
        softcap: None,
    };
    let a = l.b.push1(Op::Attention { attr }, &[q, keys, values, positions])?;
    let o = l.gemm(a, "o_proj")?;
    let x = l.add(x, o)?;
    let h = l.norm(x, "mlp_norm")?;
    let gate = l.gemm(h, "gate_proj")?;
    let up = l.gemm(h, "up_proj")?;
    let silu =
        binary(BinaryOp::Mul, Expr::Operand(0), Expr::unary(UnaryOp::Sigmoid, Expr::Operand(0)));
    let gate = map(&mut l.b, silu, &[gate])?;
    let product = binary(BinaryOp::Mul, Expr::Operand(0), Expr::Operand(1));
    let m = map(&mut l.b, product, &[gate, up])?;
    let d = l.gemm(m, "down_proj")?;
    let x = l.add(x, d)?;
    l.b.name(x, "x.out");
    Ok(l.b.finish(&[x, keys, values]))
}

struct Weights {
    embedding: WeightId,
    inv_freq: WeightId,
    norm: WeightId,
    layers: Vec<Vec<WeightId>>,
}

impl Weights {
    fn declare(module: &mut Module, config: Config) -> Weights {
        let table = Type::new(config.matrix.0, dims([VOCAB, HIDDEN]));
        let embedding = module.add_weight("embed", table);
        let inv_freq = module.add_weight("inv_freq", Type::f32(dims([HEAD_DIM / 2])));
        let norm = module.add_weight("norm", Type::f32(dims([HIDDEN])));
        let mut layers = vec![];
        for layer in 0..config.layers {
            let declare = |(name, ty)| module.add_weight(format!("layers.{layer}.{name}"), ty);
            layers.push(layer_weights(config).into_iter().map(declare).collect());
        }
        Weights { embedding, inv_freq, norm, layers }
    }
}

fn step(
    module: &Module,
    config: Config,
    layer: FuncId,
    weights: &Weights,
    t: SymbolId,
    c: SymbolId,
) -> Result<waveloom_ir::Function, InferError> {
    let mut b = FunctionBuilder::new(module, "step");
    let tokens = b.param("tokens", Type::new(DType::I32, [t.into()]));
    let positions = b.param("positions", Type::new(DType::I32, [t.into()]));
    let last = b.param("last", Type::new(DType::I32, dims([1])));
    let mut caches = vec![];
    for i in 0..config.layers {
        caches.push(b.param(format!("k_cache.{i}"), cache_type(c)));
        caches.push(b.param(format!("v_cache.{i}"), cache_type(c)));
    }
    let embedding = b.weight(weights.embedding)?;
    let mut x = b.push1(Op::Embed {}, &[embedding, tokens])?;
    let column = b.reshape(positions, vec![t.into(), Dim::Const(1)])?;
    let inv_freq = b.weight(weights.inv_freq)?;
    let product = binary(BinaryOp::Mul, Expr::Operand(0), Expr::Operand(1));
    let angles = map(&mut b, product, &[column, inv_freq])?;
    let cos = Expr::unary(UnaryOp::Cos, Expr::Operand(0));
    let cos = map(&mut b, cos, &[angles])?;
    b.name(cos, "cos");
    let sin = Expr::unary(UnaryOp::Sin, Expr::Operand(0));
    let sin = map(&mut b, sin, &[angles])?;
    b.name(sin, "sin");
    let mut updated: Vec<ValueId> = vec![];
    for (i, layer_weights) in weights.layers.iter().enumerate() {
        let mut args = vec![x, cos, sin, positions, caches[2 * i], caches[2 * i + 1]];
        for &weight in layer_weights {
            args.push(b.weight(weight)?);
        }
        let results = b.call(layer, &args)?;
        x = results[0];
        updated.extend(&results[1..]);
    }
    let row = b.push1(Op::Embed {}, &[x, last])?;
    let norm = b.weight(weights.norm)?;
    let row = b.push1(Op::Norm { eps: EPS }, &[row, norm])?;
    let logits = gemm(&mut b, row, embedding)?;
    b.name(logits, "logits");
    let mut results = vec![logits];
    results.extend(updated);
    Ok(b.finish(&results))
}

fn binary(op: BinaryOp, x: Expr, y: Expr) -> Expr {
    Expr::binary(op, x, y)
}

fn map(b: &mut FunctionBuilder<'_>, expr: Expr, operands: &[ValueId]) -> Built {
    b.push1(Op::Map { expr }, operands)
}

/// A product alone: one weight, one output, nothing fused.
pub fn gemm(b: &mut FunctionBuilder<'_>, x: ValueId, weight: ValueId) -> Built {
    let attr = GemmAttr {
        weights: 1,
        prologue: None,
        outputs: vec![GemmOutput { expr: Expr::Acc(0), store: Store::Dense }],
        tiles: waveloom_ir::Tiles::default(),
    };
    b.push1(Op::Gemm { attr }, &[x, weight])
}
