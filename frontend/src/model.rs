//! What a format's reader hands over: a description, tensors, and what surrounds the model.

use crate::checkpoint::Checkpoint;
use crate::decoder::config::DecoderConfig;
use crate::decoder::names::WeightName;
use serde::Serialize;
use std::path::PathBuf;
use waveloom_ir::DType;

/// A model as read from its files, before a module is made of it.
pub(crate) struct ReadModel {
    /// Name for people.
    pub name: String,
    /// Name of the architecture, as Hugging Face calls it.
    pub architecture: &'static str,
    /// The file that its description comes from.
    pub config_file: PathBuf,
    /// Its description.
    pub config: DecoderConfig,
    /// Its tensors.
    pub tensors: Tensors,
    /// The tokenizer in the format of the `tokenizers` library.
    pub tokenizer_json: Option<String>,
    /// Jinja template that makes a prompt of a conversation.
    pub chat_template: Option<String>,
    /// How to generate.
    pub generation: GenerationConfig,
}

/// Where the tensors of a model are.
pub(crate) enum Tensors {
    /// In files.
    Stored {
        /// All of them.
        checkpoint: Checkpoint,
        /// Name of a weight in the files.
        file_name: fn(WeightName) -> String,
    },
    /// Nowhere: all would be of this dtype.
    Implied(DType),
}

/// How the model's makers mean text to be generated. Serialized, it is the artifact's section
/// `generation_config.json`; absent values are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GenerationConfig {
    /// Tokens that end a generation, in rising order.
    pub stop_tokens: Vec<u32>,
    /// Special tokens that chat templates name.
    pub special_tokens: SpecialTokens,
    /// Whether to draw tokens; otherwise the most probable one is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub do_sample: Option<bool>,
    /// Divides the logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Keeps the k most probable tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Keeps the most probable tokens up to this mass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Keeps tokens at least this probable relative to the most probable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Divides the positive and multiplies the negative logits of tokens seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// Sorts stop tokens. An id outside the vocabulary is never generated, so it is left out.
    pub(crate) fn stop_tokens(mut ids: Vec<u32>, vocab: u32) -> Vec<u32> {
        ids.retain(|&id| id < vocab);
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// Texts of the special tokens that chat templates name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SpecialTokens {
    /// Begins a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bos_token: Option<String>,
    /// Ends a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token: Option<String>,
    /// Stands for what cannot be tokenized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unk_token: Option<String>,
    /// Fills short sequences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_token: Option<String>,
}
