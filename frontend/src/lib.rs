//! Models in the formats people have them in, as modules of tensor ops.
//!
//! In: a Hugging Face model directory (`config.json`, safetensors, `tokenizer.json`) or a GGUF file.
//! Out: an [`ir::Module`](waveloom_ir::Module) that names its weights, the weights themselves
//! (mapped from the files, not copied), tokenizer, chat template, and how to generate.
//! Never: emits a macro-op, or knows a target.
//!
//! Each format's reader fills in one description of the decoder family, [`DecoderConfig`]; the module
//! is made from that description alone. Adding an architecture is adding a row to the table in
//! `architecture.rs`, and a field to the description where it has something new.

#![deny(unsafe_code)]

mod architecture;
mod bind;
mod checkpoint;
mod decoder;
mod error;
mod gguf;
mod huggingface;
mod json;
mod mapped;
mod model;
mod safetensors;

pub use checkpoint::ModelWeights;
pub use decoder::config::{Activation, DecoderConfig};
pub use decoder::rope::{Llama3Scaling, Rope, RopeScaling};
pub use error::ImportError;
pub use model::{GenerationConfig, SpecialTokens};

use error::Result;
use model::ReadModel;
use std::path::Path;
use waveloom_ir::Module;

/// What the caller decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// Largest context (prompt and generated tokens); `None` for the model's own.
    pub max_context: Option<u32>,
    /// Most tokens that one step takes.
    pub prefill_chunk: u32,
    /// Read nothing but the model's `config.json`, and declare the weights that it implies: whoever
    /// compiles the module makes them up.
    pub config_only: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        ImportOptions { max_context: None, prefill_chunk: 512, config_only: false }
    }
}

/// A model as a module, with everything that belongs to it.
pub struct Imported {
    /// Tensor ops only; `@step` is the entry. See `docs/architecture.md`, "The module a front end
    /// makes".
    pub module: Module,
    /// The bytes of the weights that the module declares. With [`ImportOptions::config_only`] there
    /// are only those of which the values follow: norms, which are 1, and RoPE's frequencies.
    pub weights: ModelWeights,
    /// What the model is.
    pub info: ModelInfo,
    /// The tokenizer, in the format of Hugging Face's `tokenizers`.
    pub tokenizer_json: Option<String>,
    /// Jinja template that makes a prompt of a conversation.
    pub chat_template: Option<String>,
    /// How to generate.
    pub generation_config: GenerationConfig,
}

/// What a model is.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Name for people.
    pub name: String,
    /// Architecture, as Hugging Face calls it. A GGUF file says `llama` for its whole family.
    pub architecture: String,
    /// Number of tokens in the vocabulary.
    pub vocab: u32,
    /// Largest context that the module is made for.
    pub max_context: u32,
    /// Tokens that end a generation.
    pub stop_tokens: Vec<u32>,
    /// The description that the module was made from.
    pub config: DecoderConfig,
}

/// Imports the model at `path`: a directory in Hugging Face's layout or a GGUF file; with
/// [`ImportOptions::config_only`] such a directory or a `config.json` under any name.
pub fn import(path: &Path, options: ImportOptions) -> std::result::Result<Imported, ImportError> {
    let model = if options.config_only { read_config(path)? } else { read(path)? };
    if let Some(problem) = model.config.problem() {
        return Err(ImportError::malformed(&model.config_file, problem));
    }
    let context = context(&model.config, options)?;
    let bound = bind::bind(&model.config, model.tensors)?;
    let emitter = decoder::emit::Emitter {
        config: &model.config,
        types: &bound.types,
        context,
        chunk: options.prefill_chunk.min(context),
    };
    let module = emitter.module(&model.name)?;
    let info = ModelInfo {
        name: model.name,
        architecture: model.architecture.to_string(),
        vocab: model.config.vocab,
        max_context: context,
        stop_tokens: model.generation.stop_tokens.clone(),
        config: model.config,
    };
    Ok(Imported {
        module,
        weights: bound.weights,
        info,
        tokenizer_json: model.tokenizer_json,
        chat_template: model.chat_template,
        generation_config: model.generation,
    })
}

fn read(path: &Path) -> Result<ReadModel> {
    let metadata = std::fs::metadata(path).map_err(|error| ImportError::io(path, error))?;
    let path_buf = || path.to_path_buf();
    if metadata.is_dir() {
        huggingface::read(path)
    } else if has_extension(path, "gguf") {
        gguf::read(path)
    } else if has_extension(path, "json") {
        Err(ImportError::ConfigOnly { path: path_buf() })
    } else {
        Err(ImportError::NotAModel { path: path_buf() })
    }
}

/// Reads the configuration alone.
fn read_config(path: &Path) -> Result<ReadModel> {
    let metadata = std::fs::metadata(path).map_err(|error| ImportError::io(path, error))?;
    let file = if metadata.is_dir() { path.join("config.json") } else { path.to_path_buf() };
    if !file.is_file() || !has_extension(&file, "json") {
        return Err(ImportError::NotAConfig { path: path.to_path_buf() });
    }
    huggingface::read_config(&file)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// The context to make the module for.
fn context(config: &DecoderConfig, options: ImportOptions) -> Result<u32> {
    /// Positions enter the angles of RoPE as f32, which is exact up to here.
    const LARGEST: u32 = 1 << 24;
    let model = config.max_positions.min(LARGEST);
    let context = options.max_context.unwrap_or(model);
    if context == 0 || options.prefill_chunk == 0 {
        let problem = "the context and the prefill chunk must be at least 1 token";
        return Err(ImportError::Options(problem.into()));
    }
    if context > model {
        return Err(ImportError::Options(format!(
            "a context of {context} tokens is more than the model's {model}"
        )));
    }
    Ok(context)
}
