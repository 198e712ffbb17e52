//! `config.json` to the description of the decoder family.

use crate::architecture::{ARCHITECTURES, Architecture, Bias, Window};
use crate::decoder::config::{Activation, DecoderConfig, MAX_LAYERS};
use crate::decoder::rope::{Llama3Scaling, Rope, RopeScaling};
use crate::error::{ImportError, Result};
use crate::json::Fields;
use serde_json::Value;
use waveloom_ir::{DType, F32};

/// Sliding window where the configuration says none, as in transformers.
const DEFAULT_WINDOW: u32 = 4096;

/// The architecture that `config.json` names: by class, or else by model type.
pub(crate) fn architecture(config: Fields) -> Result<&'static Architecture> {
    let classes = config.list("architectures")?;
    let class = classes.and_then(|list| list.first()).and_then(Value::as_str);
    let (found, what) = match class {
        Some(class) => (class, "architecture"),
        None => match config.str("model_type")? {
            Some(model_type) => (model_type, "model type"),
            None => return Err(config.missing("architectures")),
        },
    };
    let by_class = class.is_some();
    let name = |a: &Architecture| if by_class { a.class } else { a.model_type };
    ARCHITECTURES.iter().find(|a| name(a) == found).ok_or_else(|| {
        ImportError::unknown(config.file(), what, found, ARCHITECTURES.iter().map(name))
    })
}

/// Fills in the description. Defaults are those of transformers' configuration classes.
pub(crate) fn decoder_config(config: Fields, architecture: &Architecture) -> Result<DecoderConfig> {
    if config.value("quantization_config").is_some() {
        let supported = "F32, F16 and BF16 tensors, and the block formats of GGUF files";
        let what = "`quantization_config`";
        return Err(ImportError::unsupported(config.file(), what, supported));
    }
    let hidden = config.need_u32("hidden_size")?;
    let heads = config.need_u32("num_attention_heads")?;
    let head_dim = config.u32("head_dim")?.or(architecture.head_dim);
    let head_dim = head_dim
        .or(hidden.checked_div(heads))
        .ok_or_else(|| ImportError::malformed(config.file(), "`num_attention_heads` is 0"))?;
    let layers = config.need_u32("num_hidden_layers")?;
    if layers > MAX_LAYERS {
        let problem = format!("`num_hidden_layers` is absurd: {layers}");
        return Err(ImportError::malformed(config.file(), problem));
    }
    let max_positions = config.u32("max_position_embeddings")?.unwrap_or(2048);
    Ok(DecoderConfig {
        hidden,
        heads,
        kv_heads: config.u32("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        intermediate: config.need_u32("intermediate_size")?,
        vocab: config.need_u32("vocab_size")?,
        rms_eps: F32(config.f64("rms_norm_eps")?.unwrap_or(1e-6) as f32),
        rope: rope(config, max_positions)?,
        windows: windows(config, architecture.window, layers)?,
        qkv_bias: bias(config, architecture.qkv_bias)?,
        o_bias: bias(config, architecture.o_bias)?,
        mlp_bias: bias(config, architecture.mlp_bias)?,
        qk_norm: architecture.qk_norm,
        tied_embeddings: config.bool("tie_word_embeddings")?.unwrap_or(false),
        activation: activation(config)?,
        max_positions,
    })
}

/// The dtype that the weights of the model have; bf16 if it says none.
pub(crate) fn dtype(config: Fields) -> Result<DType> {
    const KNOWN: [(&str, DType); 3] =
        [("float32", DType::F32), ("float16", DType::F16), ("bfloat16", DType::BF16)];
    let found = match config.str("dtype")? {
        Some(newer) => Some(newer),
        None => config.str("torch_dtype")?,
    };
    let Some(found) = found else { return Ok(DType::BF16) };
    let known = KNOWN.iter().find(|(name, _)| *name == found);
    known.map(|(_, dtype)| *dtype).ok_or_else(|| {
        ImportError::unknown(config.file(), "dtype", found, KNOWN.map(|(name, _)| name))
    })
}

fn bias(config: Fields, rule: Bias) -> Result<bool> {
    match rule {
        Bias::Yes => Ok(true),
        Bias::No => Ok(false),
        Bias::Field(field) => Ok(config.bool(field)?.unwrap_or(false)),
    }
}

fn activation(config: Fields) -> Result<Activation> {
    let found = config.str("hidden_act")?.unwrap_or("silu");
    let known = Activation::NAMES.iter();
    known.clone().find(|(name, _)| *name == found).map(|(_, activation)| *activation).ok_or_else(
        || {
            let names = known.map(|(name, _)| *name);
            ImportError::unknown(config.file(), "activation", found, names)
        },
    )
}

fn windows(config: Fields, rule: Window, layers: u32) -> Result<Vec<Option<u32>>> {
    // `null` means no window, absence the default.
    let absent = !config.contains("sliding_window");
    let window = config.u32("sliding_window")?.or(absent.then_some(DEFAULT_WINDOW));
    match rule {
        Window::Never => Ok(vec![None; layers as usize]),
        Window::Always => Ok(vec![window; layers as usize]),
        Window::ByLayer => {
            let used = config.bool("use_sliding_window")?.unwrap_or(false);
            windows_by_layer(config, window.filter(|_| used), layers)
        }
    }
}

/// The window of each layer by `layer_types`, or else by `max_window_layers`.
fn windows_by_layer(config: Fields, window: Option<u32>, layers: u32) -> Result<Vec<Option<u32>>> {
    let Some(types) = config.list("layer_types")? else {
        let first = config.u32("max_window_layers")?.unwrap_or(28);
        let of_layer = |i| window.filter(|_| i >= first);
        return Ok((0..layers).map(of_layer).collect());
    };
    if types.len() != layers as usize {
        let problem = format!("`layer_types` has {} entries for {layers} layers", types.len());
        return Err(ImportError::malformed(config.file(), problem));
    }
    let of_type = |ty: &Value| match ty.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => Ok(window),
        _ => {
            let known = ["full_attention", "sliding_attention"];
            let found = ty.as_str().map_or(ty.to_string(), String::from);
            Err(ImportError::unknown(config.file(), "layer type", found, known))
        }
    };
    types.iter().map(of_type).collect()
}

/// RoPE from `rope_parameters`, or from the older `rope_theta` and `rope_scaling`.
fn rope(config: Fields, max_positions: u32) -> Result<Rope> {
    let newer = config.object("rope_parameters")?;
    let parameters = match newer {
        Some(parameters) => Some(parameters),
        None => config.object("rope_scaling")?,
    };
    let mut theta = config.f64("rope_theta")?;
    if let Some(parameters) = newer {
        theta = parameters.f64("rope_theta")?.or(theta);
    }
    check_partial(config)?;
    let scaling = match parameters {
        Some(parameters) => {
            check_partial(parameters)?;
            rope_scaling(parameters, max_positions)?
        }
        None => RopeScaling::None,
    };
    Ok(Rope { theta: theta.unwrap_or(10_000.0), scaling })
}

/// Only part of a head rotated is another family.
fn check_partial(fields: Fields) -> Result<()> {
    match fields.f64("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(ImportError::unsupported(
            fields.file(),
            format!("`partial_rotary_factor` {factor}"),
            "1",
        )),
        _ => Ok(()),
    }
}

fn rope_scaling(parameters: Fields, max_positions: u32) -> Result<RopeScaling> {
    if parameters.contains("full_attention") || parameters.contains("sliding_attention") {
        let what = "`rope_parameters` by layer type";
        let supported = "one set for all layers";
        return Err(ImportError::unsupported(parameters.file(), what, supported));
    }
    let kind = match parameters.str("rope_type")? {
        Some(kind) => Some(kind),
        None => parameters.str("type")?,
    };
    match kind {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: parameters.need_f64("factor")? }),
        Some("llama3") => Ok(RopeScaling::Llama3(Llama3Scaling {
            factor: parameters.need_f64("factor")?,
            low_freq_factor: parameters.need_f64("low_freq_factor")?,
            high_freq_factor: parameters.need_f64("high_freq_factor")?,
            original_context: parameters
                .f64("original_max_position_embeddings")?
                .unwrap_or(f64::from(max_positions)),
        })),
        Some(other) => Err(ImportError::unsupported(
            parameters.file(),
            format!("rope scaling `{other}`"),
            "default, linear, llama3",
        )),
    }
}
