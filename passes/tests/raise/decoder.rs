//! Whole layers and steps as the front end emits them.

use crate::support::{REASSOCIATED, module, one_function, raised, run, tensor_ops};
use waveloom_ir::text::print_function;
use waveloom_ir::{
    BinaryOp, DType, Dim, F32, Function, FunctionBuilder, InferError, Module, Op, SymbolId, Type,
    UnaryOp, ValueId,
};

type Built = Result<ValueId, InferError>;

fn c(extent: u64) -> Dim {
    Dim::Const(extent)
}

const HIDDEN: u64 = 32;
const HEADS: u64 = 4;
const KV: u64 = 2;
const DIM: u64 = 8;
const FFN: u64 = 64;
const VOCAB: u64 = 5;
const EPS: f32 = 1e-5;

/// What differs between the families.
#[derive(Clone, Copy, Default)]
struct Family {
    /// Bias of q, k, v.
    bias: bool,
    /// Norm of each query and key head.
    head_norm: bool,
    window: Option<u32>,
    /// Heads stand before positions while they are normalized and rotated.
    heads_first: bool,
}

/// Writes a layer.
struct Layer<'m> {
    b: FunctionBuilder<'m>,
    family: Family,
    symbols: [Dim; 3],
}

impl Layer<'_> {
    fn linear(&mut self, x: ValueId, w: ValueId) -> Built {
        linear(&mut self.b, x, w)
    }

    fn rope(&mut self, x: ValueId, cos: ValueId, sin: ValueId) -> Built {
        let half = DIM / 2;
        let low = self.b.slice(x, 2, 0, half)?;
        let high = self.b.slice(x, 2, half, half)?;
        let high = self.b.unary(UnaryOp::Neg, high)?;
        let rotated = self.b.concat(2, &[high, low])?;
        let straight = self.b.mul(x, cos)?;
        let turned = self.b.mul(rotated, sin)?;
        self.b.add(straight, turned)
    }

    fn mask(&mut self, positions: ValueId) -> Built {
        let [t, s, _] = self.symbols;
        let queries = self.b.reshape(positions, [t, c(1)])?;
        let keys = self.b.push1(Op::Iota { len: s }, &[])?;
        let keys = self.b.reshape(keys, [c(1), s])?;
        let causal = self.b.binary(BinaryOp::Le, keys, queries)?;
        let Some(window) = self.family.window else {
            return Ok(causal);
        };
        let distance = self.b.sub(queries, keys)?;
        let window = self.b.constant(window as f32, Type::new(DType::I32, []))?;
        let near = self.b.binary(BinaryOp::Lt, distance, window)?;
        self.b.binary(BinaryOp::And, causal, near)
    }

    fn cached_heads(&mut self, cache: ValueId, perm: [u32; 3]) -> Built {
        let rows = self.b.slice(cache, 0, 0, self.symbols[1])?;
        let rows = self.b.transpose(rows, perm)?;
        let [kv, m, n] = self.b.ty(rows).shape[..] else { panic!("a cache has three dimensions") };
        let rows = self.b.reshape(rows, [kv, c(1), m, n])?;
        let rows = self.b.broadcast(rows, [kv, c(HEADS / KV), m, n])?;
        self.b.reshape(rows, [c(HEADS), m, n])
    }

    fn attention(&mut self, q: ValueId, caches: [ValueId; 2], positions: ValueId) -> Built {
        let q = self.b.transpose(q, [1, 0, 2])?;
        let k = self.cached_heads(caches[0], [1, 2, 0])?;
        let scores = self.b.matmul(q, k)?;
        let scale = self.b.scalar((DIM as f32).sqrt().recip())?;
        let scores = self.b.mul(scores, scale)?;
        let visible = self.mask(positions)?;
        let hidden = self.b.scalar(f32::NEG_INFINITY)?;
        let scores = self.b.push1(Op::Select {}, &[visible, scores, hidden])?;
        let largest = self.b.push1(Op::ReduceMax { axis: 2 }, &[scores])?;
        let e = self.b.sub(scores, largest)?;
        let e = self.b.unary(UnaryOp::Exp, e)?;
        let sum = self.b.push1(Op::ReduceSum { axis: 2 }, &[e])?;
        let p = self.b.div(e, sum)?;
        let v = self.cached_heads(caches[1], [1, 0, 2])?;
        let out = self.b.matmul(p, v)?;
        let out = self.b.transpose(out, [1, 0, 2])?;
        self.b.reshape(out, [self.symbols[0], c(HEADS * DIM)])
    }

    fn heads(
        &mut self,
        x: ValueId,
        weights: &mut dyn Iterator<Item = ValueId>,
        heads: u64,
    ) -> Built {
        let mut next = || weights.next().expect("enough weights");
        let mut y = self.linear(x, next())?;
        if self.family.bias {
            let bias = self.b.dequantize(next())?;
            y = self.b.add(y, bias)?;
        }
        self.b.reshape(y, [self.symbols[0], c(heads), c(DIM)])
    }
}

fn linear(b: &mut FunctionBuilder<'_>, x: ValueId, w: ValueId) -> Built {
    let w = b.dequantize(w)?;
    let w = b.transpose(w, [1, 0])?;
    b.matmul(x, w)
}

fn rms_norm(b: &mut FunctionBuilder<'_>, x: ValueId, w: ValueId) -> Built {
    let axis = b.ty(x).rank() as u32 - 1;
    let squares = b.mul(x, x)?;
    let mean = b.push1(Op::ReduceMean { axis }, &[squares])?;
    let eps = b.scalar(EPS)?;
    let mean = b.add(mean, eps)?;
    let r = b.unary(UnaryOp::Rsqrt, mean)?;
    let y = b.mul(x, r)?;
    let w = b.dequantize(w)?;
    b.mul(y, w)
}

/// Names and shapes of the weights of a layer, in the order they are used.
fn weights(family: Family) -> Vec<(&'static str, Vec<Dim>)> {
    let mut list = vec![("attn_norm", vec![c(HIDDEN)])];
    let heads = [("q", HEADS), ("k", KV), ("v", KV)];
    for (name, heads) in heads {
        list.push((name, vec![c(heads * DIM), c(HIDDEN)]));
        if family.bias {
            list.push(("bias", vec![c(heads * DIM)]));
        }
        if family.head_norm && name != "v" {
            list.push(("head_norm", vec![c(DIM)]));
        }
    }
    list.extend([
        ("o", vec![c(HIDDEN), c(HEADS * DIM)]),
        ("mlp_norm", vec![c(HIDDEN)]),
        ("gate", vec![c(FFN), c(HIDDEN)]),
        ("up", vec![c(FFN), c(HIDDEN)]),
        ("down", vec![c(HIDDEN), c(FFN)]),
    ]);
    list
}

fn cache_type(capacity: Dim) -> Type {
    Type::f32([capacity, c(KV), c(DIM)])
}

fn layer(
    module: &Module,
    symbols: [Dim; 3],
    family: Family,
    stored: impl Fn(usize) -> DType,
) -> Result<Function, InferError> {
    let [t, _, capacity] = symbols;
    let mut b = FunctionBuilder::new(module, "layer");
    let x = b.param("x", Type::f32([t, c(HIDDEN)]));
    let angles = Type::f32([t, c(DIM / 2)]);
    let cos = b.param("cos", angles.clone());
    let sin = b.param("sin", angles);
    let positions = b.param("positions", Type::new(DType::I32, [t]));
    let k_cache = b.param("k_cache", cache_type(capacity));
    let v_cache = b.param("v_cache", cache_type(capacity));
    let params: Vec<ValueId> = weights(family)
        .into_iter()
        .map(|(name, shape)| b.param(name, Type::new(stored(shape.len()), shape)))
        .collect();
    let weights = &mut params.into_iter();
    let next = |weights: &mut std::vec::IntoIter<ValueId>| weights.next().expect("enough weights");
    let mut l = Layer { b, family, symbols };
    let [cos, sin] = [cos, sin].map(|angle| {
        let full = l.b.concat(1, &[angle, angle])?;
        let shape = if family.heads_first { [c(1), t, c(DIM)] } else { [t, c(1), c(DIM)] };
        l.b.reshape(full, shape)
    });
    let (cos, sin) = (cos?, sin?);
    let normed = rms_norm(&mut l.b, x, next(weights))?;
    let mut rotated = vec![];
    for heads in [HEADS, KV] {
        let mut y = l.heads(normed, weights, heads)?;
        if family.heads_first {
            y = l.b.transpose(y, [1, 0, 2])?;
        }
        if family.head_norm {
            y = rms_norm(&mut l.b, y, next(weights))?;
        }
        y = l.rope(y, cos, sin)?;
        if family.heads_first {
            y = l.b.transpose(y, [1, 0, 2])?;
        }
        rotated.push(y);
    }
    let v = l.heads(normed, weights, KV)?;
    let k_cache = l.b.push1(Op::CacheAppend {}, &[k_cache, rotated[1], positions])?;
    let v_cache = l.b.push1(Op::CacheAppend {}, &[v_cache, v, positions])?;
    let attended = l.attention(rotated[0], [k_cache, v_cache], positions)?;
    let o = l.linear(attended, next(weights))?;
    let x = l.b.add(x, o)?;
    let normed = rms_norm(&mut l.b, x, next(weights))?;
    let gate = l.linear(normed, next(weights))?;
    let up = l.linear(normed, next(weights))?;
    let sigmoid = l.b.unary(UnaryOp::Sigmoid, gate)?;
    let gate = l.b.mul(gate, sigmoid)?;
    let product = l.b.mul(gate, up)?;
    let down = l.linear(product, next(weights))?;
    let x = l.b.add(x, down)?;
    Ok(l.b.finish(&[x, k_cache, v_cache]))
}

/// A module of one layer; matrices and vectors stored as told.
fn layer_module(family: Family, matrix: DType, vector: DType) -> Module {
    let (mut module, symbols) = module();
    let symbols = symbols.map(Dim::Symbol);
    let stored = |rank| if rank == 2 { matrix } else { vector };
    let function = layer(&module, symbols, family, stored).expect("the layer is well typed");
    module.add_function(function);
    module
}

/// Text of one function.
fn listing(module: &Module, name: &str) -> String {
    let func = module.function(name).expect("the function is there");
    print_function(module, &module.functions[func.index()])
}

#[test]
fn llama_layer() {
    let (after, _) = raised(&layer_module(Family::default(), DType::F32, DType::F32));
    insta::assert_snapshot!(listing(&after, "layer"));
}

#[test]
fn llama_layer_in_blocks() {
    let plain = raised(&layer_module(Family::default(), DType::F32, DType::F32)).0;
    let blocks = raised(&layer_module(Family::default(), DType::Q4_1, DType::F32)).0;
    let ops = |module: &Module| -> Vec<Op> {
        module.functions[0].insts.iter().map(|inst| inst.op.clone()).collect()
    };
    assert_eq!(ops(&plain), ops(&blocks), "the stored form changes no op");
}

#[test]
fn qwen2_layer() {
    let family = Family { bias: true, ..Family::default() };
    let (after, _) = raised(&layer_module(family, DType::BF16, DType::BF16));
    insta::assert_snapshot!(listing(&after, "layer"));
}

#[test]
fn qwen3_layer() {
    let family = Family { head_norm: true, ..Family::default() };
    let (after, _) = raised(&layer_module(family, DType::Q8_0, DType::F32));
    insta::assert_snapshot!(listing(&after, "layer"));
}

/// As Hugging Face writes it: all transposes around norm, rope and attention go.
#[test]
fn heads_first_becomes_the_same_layer() {
    let family = Family { head_norm: true, bias: true, ..Family::default() };
    let transposed = Family { heads_first: true, ..family };
    let layers =
        [family, transposed].map(|family| raised(&layer_module(family, DType::Q8_0, DType::F32)).0);
    assert_eq!(listing(&layers[0], "layer"), listing(&layers[1], "layer"));
}

#[test]
fn mistral_layer() {
    let family = Family { window: Some(4), ..Family::default() };
    let (after, _) = raised(&layer_module(family, DType::F16, DType::F32));
    let attention = after.functions[0].insts.iter().find_map(|inst| match &inst.op {
        Op::Attention { attr } => Some(attr.window),
        _ => None,
    });
    assert_eq!(attention, Some(Some(4)));
}

/// Simplified first, as in the pipeline.
#[test]
fn simplify_leaves_what_raise_needs() {
    let before = layer_module(Family::default(), DType::F32, DType::F32);
    let (simple, _) = run(waveloom_passes::simplify::run, &before, crate::support::EXACT);
    let (raised_later, _) = raised(&simple);
    let (raised_at_once, _) = raised(&before);
    assert_eq!(raised_later, raised_at_once);
}

/// `@step` over `layers` calls.
fn model(layers: usize) -> Module {
    let mut module = layer_module(Family::default(), DType::F32, DType::F32);
    let symbols = [0, 1, 2].map(|id| Dim::Symbol(SymbolId(id)));
    let matrix = |module: &mut Module, name: String, shape: Vec<Dim>| {
        module.add_weight(name, Type::f32(shape))
    };
    let table = matrix(&mut module, "embedding".into(), vec![c(VOCAB), c(HIDDEN)]);
    let inv_freq = matrix(&mut module, "inv_freq".into(), vec![c(DIM / 2)]);
    let final_norm = matrix(&mut module, "final_norm".into(), vec![c(HIDDEN)]);
    let mut declared = vec![];
    for i in 0..layers {
        let list = weights(Family::default()).into_iter();
        let ids: Vec<_> =
            list.map(|(name, shape)| matrix(&mut module, format!("{i}.{name}"), shape)).collect();
        declared.push(ids);
    }
    let layer = module.function("layer").expect("the layer is there");
    let build = || -> Result<Function, InferError> {
        let [t, _, capacity] = symbols;
        let mut b = FunctionBuilder::new(&module, "step");
        let tokens = b.param("tokens", Type::new(DType::I32, [t]));
        let positions = b.param("positions", Type::new(DType::I32, [t]));
        let last = b.param("last", Type::new(DType::I32, [c(1)]));
        let mut caches: Vec<ValueId> =
            (0..2 * layers).map(|i| b.param(format!("cache.{i}"), cache_type(capacity))).collect();
        let embedding = b.weight(table)?;
        let rows = b.gather(embedding, tokens)?;
        let mut x = b.dequantize(rows)?;
        let p = b.cast(positions, DType::F32)?;
        let p = b.reshape(p, [t, c(1)])?;
        let f = b.weight(inv_freq)?;
        let f = b.reshape(f, [c(1), c(DIM / 2)])?;
        let angles = b.mul(p, f)?;
        let (cos, sin) = (b.unary(UnaryOp::Cos, angles)?, b.unary(UnaryOp::Sin, angles)?);
        for (i, weights) in declared.iter().enumerate() {
            let mut args = vec![x, cos, sin, positions, caches[2 * i], caches[2 * i + 1]];
            for &weight in weights {
                args.push(b.weight(weight)?);
            }
            let results = b.call(layer, &args)?;
            (x, caches[2 * i], caches[2 * i + 1]) = (results[0], results[1], results[2]);
        }
        let x = b.gather(x, last)?;
        let w = b.weight(final_norm)?;
        let x = rms_norm(&mut b, x, w)?;
        let head = b.weight(table)?;
        let logits = linear(&mut b, x, head)?;
        b.name(logits, "logits");
        let results: Vec<ValueId> = [logits].into_iter().chain(caches).collect();
        Ok(b.finish(&results))
    };
    let step = build().expect("the step is well typed");
    module.add_function(step);
    module
}

#[test]
fn step_of_two_layers() {
    let (after, _) = raised(&model(2));
    insta::assert_snapshot!(listing(&after, "step"));
}

/// Calls are opaque and many: the depth of a model must not make raising slow or deep.
#[test]
fn step_of_many_layers() {
    let options = waveloom_passes::PassOptions::default();
    let (after, _) = waveloom_passes::raise::run(model(80), &options).expect("the pass runs");
    assert_eq!(tensor_ops(&after), [""; 0]);
    let calls = after.functions[1].insts.iter().filter(|i| matches!(i.op, Op::Call { .. })).count();
    assert_eq!(calls, 80);
}

/// An op that no macro-op covers is left for the gate to name.
#[test]
fn what_is_unknown_stays() {
    let before = one_function(|b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(6)]));
        let sorted = b.push(Op::TopK { k: 2 }, &[x])?;
        let eps = b.constant(F32(1.0).0, Type::f32([]))?;
        Ok(vec![b.add(sorted[0], eps)?, sorted[1]])
    });
    let (after, _) = run(waveloom_passes::raise::run, &before, REASSOCIATED);
    assert_eq!(tensor_ops(&after), ["@f: top_k"]);
}

/// What is raised is not raised again.
#[test]
fn raise_is_idempotent() {
    let ops = |module: &Module| -> Vec<Vec<Op>> {
        let sorted = module.functions.iter().map(|f| {
            let mut ops: Vec<Op> = f.insts.iter().map(|inst| inst.op.clone()).collect();
            ops.sort();
            ops
        });
        sorted.collect()
    };
    let (once, _) = raised(&model(1));
    let (twice, report) = raised(&once);
    assert_eq!(ops(&once), ops(&twice));
    assert_eq!(report.total(), 0, "{report:?}");
}

/// A front end that writes small functions: each is raised by itself. Here the caller cuts the rows
/// in use out of the caches, which the function with the attention cannot know.
#[test]
fn functions_of_a_few_ops() {
    let text = include_str!("../../../ir/tests/fixtures/llama.tensor.wl");
    let before = waveloom_ir::parse(text).expect("the fixture parses");
    let (after, _) = run(waveloom_passes::raise::run, &before, REASSOCIATED);
    let count = |wanted: &str| {
        let ops = after.functions.iter().flat_map(|f| &f.insts);
        ops.filter(|inst| inst.op.mnemonic() == wanted).count()
    };
    assert_eq!(["attention", "rope", "norm", "embed"].map(count), [1, 2, 2, 2]);
    assert_eq!(tensor_ops(&after), ["@layer: slice", "@layer: slice"]);
}
