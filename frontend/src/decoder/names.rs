//! The weights of a decoder, and what each format calls them.

/// Declares the weights of a layer once: role, name below `model.layers.{i}.` in Hugging Face
/// checkpoints, name below `blk.{i}.` in GGUF files, name of the parameter of the layer function.
macro_rules! layer_weights {
    ($($(#[$doc:meta])* $role:ident $hugging_face:literal $gguf:literal $param:literal;)*) => {
        /// A weight of a layer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum LayerWeight { $($(#[$doc])* $role,)* }

        impl LayerWeight {
            /// Every weight that a layer may have, in the order of the layer function's parameters.
            pub(crate) const ALL: &'static [LayerWeight] = &[$(LayerWeight::$role,)*];

            fn hugging_face(self) -> &'static str {
                match self { $(LayerWeight::$role => $hugging_face,)* }
            }

            fn gguf(self) -> &'static str {
                match self { $(LayerWeight::$role => $gguf,)* }
            }

            /// Name of the parameter of the layer function.
            pub(crate) fn param(self) -> &'static str {
                match self { $(LayerWeight::$role => $param,)* }
            }
        }
    };
}

layer_weights! {
    /// Norm before attention.
    InputNorm "input_layernorm.weight" "attn_norm.weight" "input_norm";
    /// Query projection.
    Q "self_attn.q_proj.weight" "attn_q.weight" "q_w";
    /// Its bias.
    QBias "self_attn.q_proj.bias" "attn_q.bias" "q_b";
    /// Key projection.
    K "self_attn.k_proj.weight" "attn_k.weight" "k_w";
    /// Its bias.
    KBias "self_attn.k_proj.bias" "attn_k.bias" "k_b";
    /// Value projection.
    V "self_attn.v_proj.weight" "attn_v.weight" "v_w";
    /// Its bias.
    VBias "self_attn.v_proj.bias" "attn_v.bias" "v_b";
    /// Norm of each query head.
    QNorm "self_attn.q_norm.weight" "attn_q_norm.weight" "q_norm";
    /// Norm of each key head.
    KNorm "self_attn.k_norm.weight" "attn_k_norm.weight" "k_norm";
    /// Projection of the attention's result.
    O "self_attn.o_proj.weight" "attn_output.weight" "o_w";
    /// Its bias.
    OBias "self_attn.o_proj.bias" "attn_output.bias" "o_b";
    /// Norm before the MLP.
    MlpNorm "post_attention_layernorm.weight" "ffn_norm.weight" "mlp_norm";
    /// Gate projection.
    Gate "mlp.gate_proj.weight" "ffn_gate.weight" "gate_w";
    /// Its bias.
    GateBias "mlp.gate_proj.bias" "ffn_gate.bias" "gate_b";
    /// Up projection.
    Up "mlp.up_proj.weight" "ffn_up.weight" "up_w";
    /// Its bias.
    UpBias "mlp.up_proj.bias" "ffn_up.bias" "up_b";
    /// Down projection.
    Down "mlp.down_proj.weight" "ffn_down.weight" "down_w";
    /// Its bias.
    DownBias "mlp.down_proj.bias" "ffn_down.bias" "down_b";
}

impl LayerWeight {
    /// Whether its rows are what RoPE rotates, so that their order differs between formats.
    pub(crate) fn is_rotated(self) -> bool {
        use LayerWeight::{K, KBias, Q, QBias};
        matches!(self, Q | QBias | K | KBias)
    }

    /// Whether it scales what was normalized.
    fn is_norm(self) -> bool {
        use LayerWeight::{InputNorm, KNorm, MlpNorm, QNorm};
        matches!(self, InputNorm | QNorm | KNorm | MlpNorm)
    }
}

/// A weight of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WeightName {
    /// Token embedding.
    Embedding,
    /// A weight of layer i.
    Layer(u32, LayerWeight),
    /// Norm before the head.
    FinalNorm,
    /// The head, where it is not the embedding.
    Head,
}

impl WeightName {
    /// The canonical name: that of Hugging Face checkpoints. Modules use it.
    pub(crate) fn canonical(self) -> String {
        match self {
            WeightName::Embedding => "model.embed_tokens.weight".into(),
            WeightName::Layer(i, weight) => format!("model.layers.{i}.{}", weight.hugging_face()),
            WeightName::FinalNorm => "model.norm.weight".into(),
            WeightName::Head => "lm_head.weight".into(),
        }
    }

    /// Whether it scales what was normalized.
    pub(crate) fn is_norm(self) -> bool {
        match self {
            WeightName::Layer(_, weight) => weight.is_norm(),
            WeightName::FinalNorm => true,
            WeightName::Embedding | WeightName::Head => false,
        }
    }

    /// The name in GGUF files.
    pub(crate) fn gguf(self) -> String {
        match self {
            WeightName::Embedding => "token_embd.weight".into(),
            WeightName::Layer(i, weight) => format!("blk.{i}.{}", weight.gguf()),
            WeightName::FinalNorm => "output_norm.weight".into(),
            WeightName::Head => "output.weight".into(),
        }
    }
}
