//! The architectures that are known: how each fills in the description of the decoder family.

/// What sets an architecture apart. Adding one is adding a row to [`ARCHITECTURES`].
pub(crate) struct Architecture {
    /// Class name in `config.json`.
    pub class: &'static str,
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// `general.architecture` of GGUF files; models of a family share one.
    pub gguf: &'static str,
    /// Biases of the q, k and v projections.
    pub qkv_bias: Bias,
    /// Bias of the attention's output projection.
    pub o_bias: Bias,
    /// Biases of the MLP.
    pub mlp_bias: Bias,
    /// Whether heads of q and k are normalized.
    pub qk_norm: bool,
    /// Which layers have a sliding window.
    pub window: Window,
    /// Head dimension where `config.json` says none; otherwise hidden size / heads.
    pub head_dim: Option<u32>,
}

/// Whether projections have biases.
#[derive(Clone, Copy)]
pub(crate) enum Bias {
    /// Always.
    Yes,
    /// Never.
    No,
    /// As this field of `config.json` says; no by default.
    Field(&'static str),
}

/// Which layers have a sliding window.
#[derive(Clone, Copy)]
pub(crate) enum Window {
    /// None.
    Never,
    /// All, of `sliding_window` positions.
    Always,
    /// If `use_sliding_window`: those that `layer_types` names, or else those from
    /// `max_window_layers` on.
    ByLayer,
}

/// Every known architecture.
pub(crate) const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        class: "LlamaForCausalLM",
        model_type: "llama",
        gguf: "llama",
        qkv_bias: Bias::Field("attention_bias"),
        o_bias: Bias::Field("attention_bias"),
        mlp_bias: Bias::Field("mlp_bias"),
        qk_norm: false,
        window: Window::Never,
        head_dim: None,
    },
    Architecture {
        class: "MistralForCausalLM",
        model_type: "mistral",
        gguf: "llama",
        qkv_bias: Bias::No,
        o_bias: Bias::No,
        mlp_bias: Bias::No,
        qk_norm: false,
        window: Window::Always,
        head_dim: None,
    },
    Architecture {
        class: "Qwen2ForCausalLM",
        model_type: "qwen2",
        gguf: "qwen2",
        qkv_bias: Bias::Yes,
        o_bias: Bias::No,
        mlp_bias: Bias::No,
        qk_norm: false,
        window: Window::ByLayer,
        head_dim: None,
    },
    Architecture {
        class: "Qwen3ForCausalLM",
        model_type: "qwen3",
        gguf: "qwen3",
        qkv_bias: Bias::Field("attention_bias"),
        o_bias: Bias::Field("attention_bias"),
        mlp_bias: Bias::No,
        qk_norm: true,
        window: Window::ByLayer,
        head_dim: Some(128),
    },
];
