//! GGUF metadata to the description of the decoder family.

use super::metadata::Metadata;
use super::reader::Value;
use crate::architecture::{ARCHITECTURES, Architecture};
use crate::checkpoint::Tensor;
use crate::decoder::config::{Activation, DecoderConfig, MAX_LAYERS};
use crate::decoder::names::{LayerWeight, WeightName};
use crate::decoder::rope::{Rope, RopeScaling};
use crate::error::{ImportError, Result};
use std::collections::HashMap;
use waveloom_ir::{DType, F32};

/// The architecture that the file names.
pub(crate) fn architecture(meta: &Metadata) -> Result<&'static Architecture> {
    const KEY: &str = "general.architecture";
    let found = meta.str(KEY)?.ok_or_else(|| meta.missing(KEY))?;
    let known = ARCHITECTURES.iter().map(|a| a.gguf);
    ARCHITECTURES.iter().find(|a| a.gguf == found).ok_or_else(|| {
        let mut known: Vec<_> = known.collect();
        known.dedup();
        ImportError::unknown(meta.file, "architecture", found, known)
    })
}

/// Keys below the architecture's name that change what is computed and are not implemented.
const UNSUPPORTED: &[&str] = &[
    "expert_count",
    "attention.scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "embedding_scale",
    "residual_scale",
];

/// Fills in the description. Biases, norms of q and k, and tied embeddings follow from which
/// tensors are there, as in llama.cpp.
pub(crate) fn decoder_config(
    meta: &Metadata,
    architecture: &Architecture,
    tensors: &HashMap<String, Tensor>,
    bytes: &[u8],
) -> Result<DecoderConfig> {
    let key = |suffix: &str| format!("{}.{suffix}", architecture.gguf);
    check_supported(meta, key)?;
    let hidden = meta.need_u32(&key("embedding_length"))?;
    let heads = meta.need_u32(&key("attention.head_count"))?;
    let layers = meta.need_u32(&key("block_count"))?;
    if layers > MAX_LAYERS {
        let problem = format!("metadata `{}` is absurd: {layers}", key("block_count"));
        return Err(ImportError::malformed(meta.file, problem));
    }
    let eps_key = key("attention.layer_norm_rms_epsilon");
    let eps = meta.f64(&eps_key)?.ok_or_else(|| meta.missing(&eps_key))?;
    let head_dim = head_dim(meta, key, hidden, heads)?;
    let has = |name: WeightName| tensors.contains_key(&name.gguf());
    let in_layers = |weight| has(WeightName::Layer(0, weight));
    Ok(DecoderConfig {
        hidden,
        heads,
        kv_heads: meta.u32(&key("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        intermediate: meta.need_u32(&key("feed_forward_length"))?,
        vocab: vocab(meta, key)?,
        rms_eps: F32(eps as f32),
        rope: rope(meta, key, tensors, bytes)?,
        windows: windows(meta, key, layers)?,
        qkv_bias: in_layers(LayerWeight::QBias),
        o_bias: in_layers(LayerWeight::OBias),
        mlp_bias: in_layers(LayerWeight::GateBias),
        qk_norm: in_layers(LayerWeight::QNorm),
        tied_embeddings: !has(WeightName::Head),
        activation: Activation::Silu,
        max_positions: meta.need_u32(&key("context_length"))?,
    })
}

fn check_supported(meta: &Metadata, key: impl Fn(&str) -> String) -> Result<()> {
    let used = |key: &String| {
        let value = meta.map.get(key.as_str());
        value.is_some_and(|value| !matches!(value, Value::Int(0)))
    };
    match UNSUPPORTED.iter().map(|suffix| key(suffix)).find(used) {
        Some(key) => Err(ImportError::unsupported(
            meta.file,
            format!("metadata `{key}`"),
            "models without it",
        )),
        None => Ok(()),
    }
}

/// Rows of the embedding: the number of tokens, or else what the file says.
fn vocab(meta: &Metadata, key: impl Fn(&str) -> String) -> Result<u32> {
    if let Some(Value::Array(tokens)) = meta.map.get("tokenizer.ggml.tokens") {
        return u32::try_from(tokens.len())
            .map_err(|_| ImportError::malformed(meta.file, "the vocabulary is absurdly large"));
    }
    meta.need_u32(&key("vocab_size"))
}

fn head_dim(meta: &Metadata, key: impl Fn(&str) -> String, hidden: u32, heads: u32) -> Result<u32> {
    let stored = meta.u32(&key("attention.key_length"))?;
    let head_dim = stored.or(hidden.checked_div(heads)).ok_or_else(|| {
        let problem = format!("metadata `{}` is 0", key("attention.head_count"));
        ImportError::malformed(meta.file, problem)
    })?;
    for other in ["attention.value_length", "rope.dimension_count"] {
        let found = meta.u32(&key(other))?.unwrap_or(head_dim);
        if found != head_dim {
            return Err(ImportError::unsupported(
                meta.file,
                format!("metadata `{}` {found}", key(other)),
                format!("the head dimension, {head_dim}"),
            ));
        }
    }
    Ok(head_dim)
}

/// The window of each layer: all have it, or those that the pattern names.
fn windows(meta: &Metadata, key: impl Fn(&str) -> String, layers: u32) -> Result<Vec<Option<u32>>> {
    let window = meta.u32(&key("attention.sliding_window"))?.filter(|&window| window > 0);
    let pattern_key = key("attention.sliding_window_pattern");
    let pattern = match meta.map.get(pattern_key.as_str()) {
        None => return Ok(vec![window; layers as usize]),
        Some(Value::Array(items)) if items.len() == layers as usize => items,
        Some(_) => {
            return Err(ImportError::unsupported(
                meta.file,
                format!("the form of metadata `{pattern_key}`"),
                "one boolean for each layer",
            ));
        }
    };
    let slides = |item: &Value| matches!(item, Value::Bool(true));
    Ok(pattern.iter().map(|item| window.filter(|_| slides(item))).collect())
}

/// The tensor with which the converter stores `llama3` scaling: a divisor for each frequency.
const DIVISORS: &str = "rope_freqs.weight";

fn rope(
    meta: &Metadata,
    key: impl Fn(&str) -> String,
    tensors: &HashMap<String, Tensor>,
    bytes: &[u8],
) -> Result<Rope> {
    let theta = meta.f64(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let kind = meta.str(&key("rope.scaling.type"))?;
    let factor = match meta.f64(&key("rope.scaling.factor"))? {
        Some(factor) => Some(factor),
        // What older files say.
        None => meta.f64(&key("rope.scale_linear"))?,
    };
    let scaling = match (kind, factor) {
        (Some("none"), _) | (None, None) => RopeScaling::None,
        (None | Some("linear"), factor) => RopeScaling::Linear { factor: factor.unwrap_or(1.0) },
        (Some(other), _) => {
            let what = format!("rope scaling `{other}`");
            let supported = format!("none, linear, a tensor `{DIVISORS}`");
            return Err(ImportError::unsupported(meta.file, what, supported));
        }
    };
    let scaling = match (tensors.get(DIVISORS), scaling) {
        (None, scaling) => scaling,
        (Some(tensor), RopeScaling::None) => RopeScaling::Divisors(f32s(meta, tensor, bytes)?),
        (Some(_), _) => {
            let what = format!("rope scaling beside a tensor `{DIVISORS}`");
            return Err(ImportError::unsupported(meta.file, what, "one of them"));
        }
    };
    Ok(Rope { theta, scaling })
}

fn f32s(meta: &Metadata, tensor: &Tensor, bytes: &[u8]) -> Result<Vec<f32>> {
    let bytes = bytes.get(tensor.range.clone());
    match (&tensor.dtype, bytes) {
        (Ok(DType::F32), Some(bytes)) => {
            let (values, _) = bytes.as_chunks::<4>();
            Ok(values.iter().map(|&v| f32::from_le_bytes(v)).collect())
        }
        _ => Err(ImportError::unsupported(
            meta.file,
            format!("tensor `{DIVISORS}` of another dtype"),
            "F32",
        )),
    }
}
