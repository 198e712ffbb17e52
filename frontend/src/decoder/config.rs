//! One description of the decoder family that all architectures here belong to.

use super::names::LayerWeight;
use super::rope::{Rope, RopeScaling};
use waveloom_ir::F32;

/// A decoder-only transformer with RMS norm before attention and MLP, rotary embedding, grouped-query
/// attention and a gated MLP. A front end fills it in from a model's files; everything after is
/// driven by it.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Elements of the residual stream.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements per head; even.
    pub head_dim: u32,
    /// Elements between the MLP's projections.
    pub intermediate: u32,
    /// Rows of the embedding.
    pub vocab: u32,
    /// Added to the mean of squares in every norm.
    pub rms_eps: F32,
    /// Rotary embedding.
    pub rope: Rope,
    /// Sliding window of each layer: how many positions, the query's own included, are seen;
    /// `None` for all. Its length is the number of layers.
    pub windows: Vec<Option<u32>>,
    /// Whether the q, k and v projections have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub o_bias: bool,
    /// Whether the MLP's projections have biases.
    pub mlp_bias: bool,
    /// Whether each head of q and k is normalized before RoPE.
    pub qk_norm: bool,
    /// Whether the head is the embedding.
    pub tied_embeddings: bool,
    /// What the gate goes through.
    pub activation: Activation,
    /// Positions that the model was made for.
    pub max_positions: u32,
}

/// What the gate of the MLP goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x).
    Silu,
}

impl Activation {
    /// What `config.json` calls those that are known.
    pub(crate) const NAMES: &'static [(&'static str, Activation)] =
        &[("silu", Activation::Silu), ("swish", Activation::Silu)];
}

/// More layers than this is a damaged file.
pub(crate) const MAX_LAYERS: u32 = 4096;

impl DecoderConfig {
    /// Number of layers.
    pub fn layers(&self) -> u32 {
        self.windows.len() as u32
    }

    /// Elements of all query heads.
    pub fn q_width(&self) -> u64 {
        u64::from(self.heads) * u64::from(self.head_dim)
    }

    /// Elements of all key (or value) heads.
    pub fn kv_width(&self) -> u64 {
        u64::from(self.kv_heads) * u64::from(self.head_dim)
    }

    /// The shape that a weight of a layer has, outermost extent first; `None` if layers do not have
    /// it.
    pub(crate) fn shape_of(&self, weight: LayerWeight) -> Option<Vec<u64>> {
        let hidden = u64::from(self.hidden);
        let head_dim = u64::from(self.head_dim);
        let intermediate = u64::from(self.intermediate);
        let (q, kv) = (self.q_width(), self.kv_width());
        let only_if = |condition: bool, shape: Vec<u64>| condition.then_some(shape);
        match weight {
            LayerWeight::InputNorm | LayerWeight::MlpNorm => Some(vec![hidden]),
            LayerWeight::Q => Some(vec![q, hidden]),
            LayerWeight::K | LayerWeight::V => Some(vec![kv, hidden]),
            LayerWeight::QBias => only_if(self.qkv_bias, vec![q]),
            LayerWeight::KBias | LayerWeight::VBias => only_if(self.qkv_bias, vec![kv]),
            LayerWeight::QNorm | LayerWeight::KNorm => only_if(self.qk_norm, vec![head_dim]),
            LayerWeight::O => Some(vec![hidden, q]),
            LayerWeight::OBias => only_if(self.o_bias, vec![hidden]),
            LayerWeight::Gate | LayerWeight::Up => Some(vec![intermediate, hidden]),
            LayerWeight::GateBias | LayerWeight::UpBias => {
                only_if(self.mlp_bias, vec![intermediate])
            }
            LayerWeight::Down => Some(vec![hidden, intermediate]),
            LayerWeight::DownBias => only_if(self.mlp_bias, vec![hidden]),
        }
    }

    /// What contradicts itself, in words.
    pub(crate) fn problem(&self) -> Option<String> {
        let sizes = [
            ("hidden size", self.hidden),
            ("number of layers", self.layers()),
            ("number of heads", self.heads),
            ("number of KV heads", self.kv_heads),
            ("head dimension", self.head_dim),
            ("intermediate size", self.intermediate),
            ("vocabulary size", self.vocab),
            ("number of positions", self.max_positions),
        ];
        if let Some((what, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Some(format!("the {what} is 0"));
        }
        if let Some((what, size)) = sizes.iter().find(|(_, size)| *size > i32::MAX as u32) {
            return Some(format!("the {what} is absurd: {size}"));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv) = (self.heads, self.kv_heads);
            return Some(format!("{heads} heads are not a multiple of {kv} KV heads"));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Some(format!("the head dimension {} is odd", self.head_dim));
        }
        if self.windows.contains(&Some(0)) {
            return Some("the sliding window is 0".into());
        }
        if !(self.rms_eps.0 > 0.0 && self.rms_eps.0.is_finite()) {
            return Some(format!("the norm's epsilon is {}", self.rms_eps));
        }
        self.rope.problem(self.head_dim)
    }
}

impl Rope {
    /// What makes no sense, in words.
    fn problem(&self, head_dim: u32) -> Option<String> {
        let mut numbers = vec![("theta", self.theta)];
        match &self.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => numbers.push(("factor", *factor)),
            RopeScaling::Llama3(scaling) => numbers.extend([
                ("factor", scaling.factor),
                ("low_freq_factor", scaling.low_freq_factor),
                (
                    "high_freq_factor - low_freq_factor",
                    scaling.high_freq_factor - scaling.low_freq_factor,
                ),
                ("original context", scaling.original_context),
            ]),
            RopeScaling::Divisors(divisors) => {
                if divisors.len() as u64 != u64::from(head_dim) / 2 {
                    let found = divisors.len();
                    return Some(format!("{found} rope frequencies for heads of {head_dim}"));
                }
                numbers.extend(divisors.iter().map(|&d| ("divisor", f64::from(d))));
            }
        }
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let (name, value) = numbers.into_iter().find(|(_, x)| !positive(*x))?;
        Some(format!("rope's {name} is not a positive number: {value}"))
    }
}
