//! The description of a decoder to a module of tensor ops.
//!
//! The form of the module is fixed in `docs/architecture.md`, "The module a front end makes".

use super::config::{Activation, DecoderConfig};
use super::names::{LayerWeight, WeightName};
use std::collections::HashMap;
use waveloom_ir::builder::BuildResult;
use waveloom_ir::{
    BinaryOp, DType, Dim, FuncId, Function, FunctionBuilder, InferError, Module, Op, SymbolId,
    Type, UnaryOp, ValueId, WeightId,
};

/// The weight with RoPE's inverse frequencies, `f32[head_dim / 2]`.
pub(crate) const INV_FREQ: &str = "rope.inv_freq";

/// Everything that a module is made of.
pub(crate) struct Emitter<'a> {
    /// The description.
    pub config: &'a DecoderConfig,
    /// The type of each weight as stored; every weight of the description is there.
    pub types: &'a HashMap<WeightName, Type>,
    /// Largest KV cache.
    pub context: u32,
    /// Most tokens of a step; at most `context`.
    pub chunk: u32,
}

/// The symbols of every module.
#[derive(Clone, Copy)]
struct Symbols {
    /// Tokens of this step.
    step: SymbolId,
    /// Rows of the KV cache in use after this step.
    cached: SymbolId,
    /// KV cache capacity.
    capacity: SymbolId,
}

/// What layers must share to be calls of one function.
#[derive(Clone, Debug, PartialEq)]
struct LayerForm {
    window: Option<u32>,
    weights: Vec<(LayerWeight, Type)>,
}

/// The weights of a module by what they are.
struct Declared {
    weights: HashMap<WeightName, WeightId>,
    inv_freq: WeightId,
}

type Build<T> = Result<T, InferError>;

impl Emitter<'_> {
    /// The module, named after the model.
    pub(crate) fn module(&self, model: &str) -> Build<Module> {
        let mut module = Module::new(identifier(model));
        let context = u64::from(self.context);
        let symbols = Symbols {
            step: module.add_symbol("T", 1, self.chunk.into()),
            cached: module.add_symbol("S", 1, context),
            capacity: module.add_symbol("C", 1, context),
        };
        let declared = self.declare_weights(&mut module);
        let mut forms: Vec<LayerForm> = vec![];
        let mut functions: Vec<FuncId> = vec![];
        let mut layers: Vec<FuncId> = vec![];
        for i in 0..self.config.layers() {
            let form = self.form(i);
            let known = forms.iter().position(|known| *known == form);
            let index = known.unwrap_or(forms.len());
            if known.is_none() {
                let function = self.layer(&module, symbols, index, &form)?;
                functions.push(module.add_function(function));
                forms.push(form);
            }
            layers.push(functions[index]);
        }
        let step = self.step(&module, symbols, &declared, &layers)?;
        module.add_function(step);
        Ok(module)
    }

    /// Declares every weight under its canonical name, layer by layer.
    fn declare_weights(&self, module: &mut Module) -> Declared {
        let mut weights = HashMap::new();
        let mut declare = |name: WeightName| {
            if let Some(ty) = self.types.get(&name) {
                weights.insert(name, module.add_weight(name.canonical(), ty.clone()));
            }
        };
        declare(WeightName::Embedding);
        for i in 0..self.config.layers() {
            let all = LayerWeight::ALL.iter();
            all.for_each(|&weight| declare(WeightName::Layer(i, weight)));
        }
        declare(WeightName::FinalNorm);
        declare(WeightName::Head);
        let half = Dim::Const(u64::from(self.config.head_dim) / 2);
        Declared { weights, inv_freq: module.add_weight(INV_FREQ, Type::f32([half])) }
    }

    fn form(&self, layer: u32) -> LayerForm {
        let stored = |&weight: &LayerWeight| {
            let ty = self.types.get(&WeightName::Layer(layer, weight))?;
            Some((weight, ty.clone()))
        };
        LayerForm {
            // A window that the cache never outgrows hides nothing.
            window: self.config.windows[layer as usize].filter(|&w| w < self.context),
            weights: LayerWeight::ALL.iter().filter_map(stored).collect(),
        }
    }

    fn hidden(&self) -> Dim {
        Dim::Const(self.config.hidden.into())
    }

    fn head_dim(&self) -> u64 {
        self.config.head_dim.into()
    }

    /// The type of a layer's key (or value) cache.
    fn cache_type(&self, symbols: Symbols) -> Type {
        let heads = Dim::Const(self.config.kv_heads.into());
        Type::f32([symbols.capacity.into(), heads, self.head_dim().into()])
    }

    /// The type of the cosines (or sines) of the rotation angles.
    fn angles_type(&self, symbols: Symbols) -> Type {
        let half = Dim::Const(self.head_dim() / 2);
        Type::f32([symbols.step.into(), half])
    }

    /// `@layer`, or `@layer.{index}` after the first: `(x, cos, sin, positions, k_cache, v_cache,
    /// weights…) → (x, k_cache, v_cache)`.
    fn layer(
        &self,
        module: &Module,
        symbols: Symbols,
        index: usize,
        form: &LayerForm,
    ) -> Build<Function> {
        let name = match index {
            0 => "layer".to_string(),
            _ => format!("layer.{index}"),
        };
        let mut b = FunctionBuilder::new(module, name);
        let step = Dim::Symbol(symbols.step);
        let x = b.param("x", Type::f32([step, self.hidden()]));
        let cos = b.param("cos", self.angles_type(symbols));
        let sin = b.param("sin", self.angles_type(symbols));
        let positions = b.param("positions", Type::new(DType::I32, [step]));
        let k_cache = b.param("k_cache", self.cache_type(symbols));
        let v_cache = b.param("v_cache", self.cache_type(symbols));
        let weights = form.weights.iter();
        let weights =
            weights.map(|(weight, ty)| (*weight, b.param(weight.param(), ty.clone()))).collect();
        let mut layer = LayerEmitter { emitter: self, symbols, window: form.window, weights, b };
        let inputs =
            AttentionInputs { angles: layer.full_angles(cos, sin)?, positions, k_cache, v_cache };
        let (x, k_cache, v_cache) = layer.attention_block(x, inputs)?;
        let x = layer.mlp_block(x)?;
        Ok(layer.b.finish(&[x, k_cache, v_cache]))
    }

    /// `@step`: `(tokens, positions, last, caches…) → (logits, caches…)`.
    fn step(
        &self,
        module: &Module,
        symbols: Symbols,
        declared: &Declared,
        layers: &[FuncId],
    ) -> Build<Function> {
        let mut b = FunctionBuilder::new(module, "step");
        let indices = Type::new(DType::I32, [Dim::Symbol(symbols.step)]);
        let tokens = b.param("tokens", indices.clone());
        let positions = b.param("positions", indices);
        let last = b.param("last", Type::new(DType::I32, [Dim::Const(1)]));
        let mut caches = vec![];
        for i in 0..layers.len() {
            caches.push(b.param(format!("k_cache.{i}"), self.cache_type(symbols)));
            caches.push(b.param(format!("v_cache.{i}"), self.cache_type(symbols)));
        }
        let table = b.weight(declared.weights[&WeightName::Embedding])?;
        let rows = b.gather(table, tokens)?;
        let mut x = b.dequantize(rows)?;
        let (cos, sin) = self.angles(&mut b, symbols, declared, positions)?;
        for (i, &layer) in layers.iter().enumerate() {
            let mut args = vec![x, cos, sin, positions, caches[2 * i], caches[2 * i + 1]];
            for &weight in LayerWeight::ALL {
                if let Some(&id) = declared.weights.get(&WeightName::Layer(i as u32, weight)) {
                    args.push(b.weight(id)?);
                }
            }
            let results = b.call(layer, &args)?;
            x = results[0];
            caches[2 * i] = results[1];
            caches[2 * i + 1] = results[2];
        }
        let logits = self.logits(&mut b, declared, x, last)?;
        let results: Vec<ValueId> = std::iter::once(logits).chain(caches).collect();
        Ok(b.finish(&results))
    }

    /// Cosines and sines of position · inv_freq, `[T, head_dim / 2]` each.
    fn angles(
        &self,
        b: &mut FunctionBuilder,
        symbols: Symbols,
        declared: &Declared,
        positions: ValueId,
    ) -> Build<(ValueId, ValueId)> {
        let one = Dim::Const(1);
        let positions = b.cast(positions, DType::F32)?;
        let positions = b.reshape(positions, [Dim::Symbol(symbols.step), one])?;
        let inv_freq = b.weight(declared.inv_freq)?;
        let inv_freq = b.reshape(inv_freq, [one, Dim::Const(self.head_dim() / 2)])?;
        let angles = b.mul(positions, inv_freq)?;
        let cos = b.unary(UnaryOp::Cos, angles)?;
        let sin = b.unary(UnaryOp::Sin, angles)?;
        b.name(cos, "cos");
        b.name(sin, "sin");
        Ok((cos, sin))
    }

    /// Final norm and head, for the row that counts.
    fn logits(
        &self,
        b: &mut FunctionBuilder,
        declared: &Declared,
        x: ValueId,
        last: ValueId,
    ) -> BuildResult {
        let x = b.gather(x, last)?;
        let norm = b.weight(declared.weights[&WeightName::FinalNorm])?;
        let x = self.rms_norm(b, x, norm)?;
        let head = match self.config.tied_embeddings {
            true => WeightName::Embedding,
            false => WeightName::Head,
        };
        let head = b.weight(declared.weights[&head])?;
        let logits = linear(b, x, head, None)?;
        b.name(logits, "logits");
        Ok(logits)
    }

    /// RMS norm over the last dimension: x · rsqrt(mean(x²) + eps) · weight.
    fn rms_norm(&self, b: &mut FunctionBuilder, x: ValueId, weight: ValueId) -> BuildResult {
        let last = b.ty(x).rank() as u32 - 1;
        let squares = b.mul(x, x)?;
        let mean = b.push1(Op::ReduceMean { axis: last }, &[squares])?;
        let eps = b.scalar(self.config.rms_eps.0)?;
        let mean = b.add(mean, eps)?;
        let scale = b.unary(UnaryOp::Rsqrt, mean)?;
        let normed = b.mul(x, scale)?;
        let weight = b.dequantize(weight)?;
        b.mul(normed, weight)
    }
}

/// `x · Wᵀ`, plus a bias if there is one.
fn linear(
    b: &mut FunctionBuilder,
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
) -> BuildResult {
    let weight = b.dequantize(weight)?;
    let weight = b.transpose(weight, [1, 0])?;
    let y = b.matmul(x, weight)?;
    match bias {
        Some(bias) => {
            let bias = b.dequantize(bias)?;
            b.add(y, bias)
        }
        None => Ok(y),
    }
}

/// The inputs of attention besides x.
#[derive(Clone, Copy)]
struct AttentionInputs {
    /// Cosines and sines as RoPE wants them.
    angles: (ValueId, ValueId),
    positions: ValueId,
    k_cache: ValueId,
    v_cache: ValueId,
}

/// The body of a layer.
struct LayerEmitter<'a, 'm> {
    emitter: &'a Emitter<'a>,
    symbols: Symbols,
    window: Option<u32>,
    weights: HashMap<LayerWeight, ValueId>,
    b: FunctionBuilder<'m>,
}

impl LayerEmitter<'_, '_> {
    fn config(&self) -> &DecoderConfig {
        self.emitter.config
    }

    /// Norm with a weight that every layer has.
    fn norm(&mut self, x: ValueId, weight: LayerWeight) -> BuildResult {
        let weight = self.weights[&weight];
        self.emitter.rms_norm(&mut self.b, x, weight)
    }

    /// A projection with a weight that every layer has, and its bias where there is one.
    fn project(&mut self, x: ValueId, weight: LayerWeight, bias: LayerWeight) -> BuildResult {
        let bias = self.weights.get(&bias).copied();
        linear(&mut self.b, x, self.weights[&weight], bias)
    }

    /// `[T, head_dim / 2]` to `[T, 1, head_dim]`: both halves of a head turn by the same angles.
    fn full_angles(&mut self, cos: ValueId, sin: ValueId) -> Build<(ValueId, ValueId)> {
        let shape =
            [Dim::Symbol(self.symbols.step), Dim::Const(1), Dim::Const(self.emitter.head_dim())];
        let cos = self.b.concat(1, &[cos, cos])?;
        let cos = self.b.reshape(cos, shape)?;
        let sin = self.b.concat(1, &[sin, sin])?;
        let sin = self.b.reshape(sin, shape)?;
        Ok((cos, sin))
    }

    /// Norm, attention, residual; the caches come back with this step's rows in them.
    fn attention_block(
        &mut self,
        x: ValueId,
        inputs: AttentionInputs,
    ) -> Build<(ValueId, ValueId, ValueId)> {
        let (heads, kv_heads) = (self.config().heads, self.config().kv_heads);
        let normed = self.norm(x, LayerWeight::InputNorm)?;
        let q = self.project(normed, LayerWeight::Q, LayerWeight::QBias)?;
        let k = self.project(normed, LayerWeight::K, LayerWeight::KBias)?;
        let v = self.project(normed, LayerWeight::V, LayerWeight::VBias)?;
        let q = self.rotated_heads(q, heads, LayerWeight::QNorm, inputs.angles)?;
        let k = self.rotated_heads(k, kv_heads, LayerWeight::KNorm, inputs.angles)?;
        let v = self.split_heads(v, kv_heads)?;
        let append = Op::CacheAppend {};
        let k_cache = [inputs.k_cache, k, inputs.positions];
        let k_cache = self.b.push1(append.clone(), &k_cache)?;
        let v_cache = [inputs.v_cache, v, inputs.positions];
        let v_cache = self.b.push1(append, &v_cache)?;
        let attended = self.attention(q, k_cache, v_cache, inputs.positions)?;
        let projected = self.project(attended, LayerWeight::O, LayerWeight::OBias)?;
        Ok((self.b.add(x, projected)?, k_cache, v_cache))
    }

    /// `[T, heads · head_dim]` to `[T, heads, head_dim]`.
    fn split_heads(&mut self, x: ValueId, heads: u32) -> BuildResult {
        let shape = [
            Dim::Symbol(self.symbols.step),
            Dim::Const(heads.into()),
            Dim::Const(self.emitter.head_dim()),
        ];
        self.b.reshape(x, shape)
    }

    /// Heads of q or k, normalized where the model does that, and rotated.
    fn rotated_heads(
        &mut self,
        x: ValueId,
        heads: u32,
        norm: LayerWeight,
        angles: (ValueId, ValueId),
    ) -> BuildResult {
        let mut x = self.split_heads(x, heads)?;
        if self.weights.contains_key(&norm) {
            x = self.norm(x, norm)?;
        }
        self.rope(x, angles)
    }

    /// x · cos + rotate_half(x) · sin, where rotate_half((a, b)) = (−b, a).
    fn rope(&mut self, x: ValueId, (cos, sin): (ValueId, ValueId)) -> BuildResult {
        let half = self.emitter.head_dim() / 2;
        let b = &mut self.b;
        let low = b.slice(x, 2, 0, half)?;
        let high = b.slice(x, 2, half, half)?;
        let high = b.unary(UnaryOp::Neg, high)?;
        let rotated = b.concat(2, &[high, low])?;
        let straight = b.mul(x, cos)?;
        let turned = b.mul(rotated, sin)?;
        b.add(straight, turned)
    }

    /// softmax(mask(q · Kᵀ · scale)) · V over the rows of the caches in use: `[T, heads · head_dim]`.
    fn attention(
        &mut self,
        q: ValueId,
        k_cache: ValueId,
        v_cache: ValueId,
        positions: ValueId,
    ) -> BuildResult {
        let head_dim = self.config().head_dim;
        // [heads, T, head_dim] · [heads, head_dim, S]
        let q = self.b.transpose(q, [1, 0, 2])?;
        let k = self.cached_heads(k_cache, [1, 2, 0])?;
        let scores = self.b.matmul(q, k)?;
        let scale = self.b.scalar(f64::from(head_dim).powf(-0.5) as f32)?;
        let scores = self.b.mul(scores, scale)?;
        let visible = self.mask(positions)?;
        let hidden = self.b.scalar(f32::NEG_INFINITY)?;
        let scores = self.b.push1(Op::Select {}, &[visible, scores, hidden])?;
        let probabilities = self.softmax(scores)?;
        // [heads, T, S] · [heads, S, head_dim]
        let v = self.cached_heads(v_cache, [1, 0, 2])?;
        let attended = self.b.matmul(probabilities, v)?;
        let attended = self.b.transpose(attended, [1, 0, 2])?;
        let width = Dim::Const(self.config().q_width());
        let step = Dim::Symbol(self.symbols.step);
        self.b.reshape(attended, [step, width])
    }

    /// The rows of a cache in use, permuted with heads first, each KV head repeated for the query
    /// heads that read it.
    fn cached_heads(&mut self, cache: ValueId, perm: [u32; 3]) -> BuildResult {
        let (heads, kv_heads) = (self.config().heads, self.config().kv_heads);
        let b = &mut self.b;
        let rows = b.slice(cache, 0, 0, self.symbols.cached)?;
        let rows = b.transpose(rows, perm)?;
        let [kv, m, n] = b.ty(rows).shape[..] else { unreachable!("a cache has three dimensions") };
        let group = Dim::Const(u64::from(heads / kv_heads));
        let rows = b.reshape(rows, [kv, Dim::Const(1), m, n])?;
        let rows = b.broadcast(rows, [kv, group, m, n])?;
        b.reshape(rows, [Dim::Const(heads.into()), m, n])
    }

    /// `bool[T, S]`: whether the query at a position sees a row of the cache.
    fn mask(&mut self, positions: ValueId) -> BuildResult {
        let one = Dim::Const(1);
        let (step, cached) = (self.symbols.step, self.symbols.cached);
        let b = &mut self.b;
        let queries = b.reshape(positions, [step.into(), one])?;
        let keys = b.push1(Op::Iota { len: cached.into() }, &[])?;
        let keys = b.reshape(keys, [one, cached.into()])?;
        let causal = b.binary(BinaryOp::Le, keys, queries)?;
        let Some(window) = self.window else {
            return Ok(causal);
        };
        let distance = b.sub(queries, keys)?;
        let window = b.constant(window as f32, Type::new(DType::I32, []))?;
        let near = b.binary(BinaryOp::Lt, distance, window)?;
        b.binary(BinaryOp::And, causal, near)
    }

    /// Softmax over the last of three dimensions.
    fn softmax(&mut self, x: ValueId) -> BuildResult {
        let b = &mut self.b;
        let largest = b.push1(Op::ReduceMax { axis: 2 }, &[x])?;
        let x = b.sub(x, largest)?;
        let x = b.unary(UnaryOp::Exp, x)?;
        let sum = b.push1(Op::ReduceSum { axis: 2 }, &[x])?;
        b.div(x, sum)
    }

    /// Norm, gated MLP, residual.
    fn mlp_block(&mut self, x: ValueId) -> BuildResult {
        let normed = self.norm(x, LayerWeight::MlpNorm)?;
        let gate = self.project(normed, LayerWeight::Gate, LayerWeight::GateBias)?;
        let up = self.project(normed, LayerWeight::Up, LayerWeight::UpBias)?;
        let gate = self.activate(gate)?;
        let product = self.b.mul(gate, up)?;
        let down = self.project(product, LayerWeight::Down, LayerWeight::DownBias)?;
        self.b.add(x, down)
    }

    fn activate(&mut self, x: ValueId) -> BuildResult {
        match self.config().activation {
            Activation::Silu => {
                let sigmoid = self.b.unary(UnaryOp::Sigmoid, x)?;
                self.b.mul(x, sigmoid)
            }
        }
    }
}

/// A model's name as an identifier of the text form: letters, digits, `_`, `.` and `-`.
fn identifier(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let text: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    match text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => text,
        false => format!("model_{text}"),
    }
}
