//! What GGUF metadata says about text besides the tokenizer: chat template, stop tokens, sampling.

use super::metadata::Metadata;
use super::tokenizer::TokenType;
use crate::error::Result;
use crate::model::{GenerationConfig, SpecialTokens};

/// Chat template and how to generate.
pub(crate) struct Text {
    pub chat_template: Option<String>,
    pub generation: GenerationConfig,
}

/// Reads them; none need be there.
pub(crate) fn read(meta: &Metadata, vocab: u32) -> Result<Text> {
    let template = meta.str("tokenizer.chat_template")?;
    let tokens = meta.strs("tokenizer.ggml.tokens")?.unwrap_or_default();
    let do_sample = meta.f64("general.sampling.temp")?.map(|t| t > 0.0);
    Ok(Text {
        chat_template: template.map(String::from),
        generation: GenerationConfig {
            stop_tokens: stop_tokens(meta, &tokens, vocab)?,
            special_tokens: special_tokens(meta, &tokens)?,
            do_sample,
            temperature: meta.f64("general.sampling.temp")?,
            top_k: meta.u32("general.sampling.top_k")?,
            top_p: meta.f64("general.sampling.top_p")?,
            min_p: meta.f64("general.sampling.min_p")?,
            repetition_penalty: meta.f64("general.sampling.penalty_repeat")?,
        },
    })
}

/// Control tokens that end a turn or a text in the families that are read here. Files often name
/// only one of them as end of sequence; llama.cpp stops at all of them, and so do we.
const END_TOKENS: &[&str] =
    &["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|endoftext|>", "<|end_of_text|>"];

fn stop_tokens(meta: &Metadata, tokens: &[&str], vocab: u32) -> Result<Vec<u32>> {
    let mut stop = vec![];
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        stop.extend(meta.u32(&format!("tokenizer.ggml.{key}"))?);
    }
    let types = meta.numbers("tokenizer.ggml.token_type")?;
    for (id, (token, kind)) in tokens.iter().zip(types.unwrap_or_default()).enumerate() {
        if TokenType::of(kind) == TokenType::Control && END_TOKENS.contains(token) {
            stop.push(id as u32);
        }
    }
    Ok(GenerationConfig::stop_tokens(stop, vocab))
}

fn special_tokens(meta: &Metadata, tokens: &[&str]) -> Result<SpecialTokens> {
    let token = |key: &str| -> Result<Option<String>> {
        let id = meta.u32(&format!("tokenizer.ggml.{key}"))?;
        let text = id.and_then(|id| tokens.get(id as usize));
        Ok(text.map(|text| text.to_string()))
    };
    Ok(SpecialTokens {
        bos_token: token("bos_token_id")?,
        eos_token: token("eos_token_id")?,
        unk_token: token("unknown_token_id")?,
        pad_token: token("padding_token_id")?,
    })
}
