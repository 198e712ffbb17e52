//! The tokenizer in GGUF metadata to a `tokenizer.json` of Hugging Face's `tokenizers` library.

mod byte_level;
mod sentence_piece;

use super::metadata::Metadata;
use crate::error::{ImportError, Result};
use serde_json::{Map, Value, json};

/// What a token is, `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenType {
    /// Text.
    Normal,
    /// Stands for what cannot be tokenized.
    Unknown,
    /// Special: matched in the input before text is tokenized, left out of decoded text.
    Control,
    /// Added by the model's makers: matched before text is tokenized, decoded as text.
    UserDefined,
    /// A hole in the vocabulary.
    Unused,
    /// One byte, spelled `<0xNN>`.
    Byte,
}

impl TokenType {
    /// The type that a number of the metadata means; unknown numbers are text.
    pub(crate) fn of(number: f64) -> TokenType {
        match number as i64 {
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            _ => TokenType::Normal,
        }
    }
}

/// The vocabulary.
struct Vocab<'a> {
    tokens: Vec<&'a str>,
    types: Vec<TokenType>,
}

/// The parts of a `tokenizer.json` in which tokenizer kinds differ.
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
    /// Whether a text begins with the bos token where the file does not say.
    adds_bos: bool,
}

/// The tokenizer of a file; `None` if it has none.
pub(crate) fn read(meta: &Metadata) -> Result<Option<String>> {
    let Some(kind) = meta.str("tokenizer.ggml.model")? else {
        return Ok(None);
    };
    if kind == "no_vocab" {
        return Ok(None);
    }
    let vocab = vocab(meta)?;
    let parts = match kind {
        "gpt2" => byte_level::parts(meta, &vocab)?,
        "llama" => sentence_piece::parts(meta, &vocab)?,
        _ => {
            let known = ["gpt2", "llama"];
            return Err(ImportError::unknown(meta.file, "tokenizer model", kind, known));
        }
    };
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&vocab),
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": post_processor(meta, &vocab, parts.adds_bos)?,
        "decoder": parts.decoder,
        "model": parts.model,
    });
    Ok(Some(json.to_string()))
}

fn vocab<'a>(meta: &Metadata<'a>) -> Result<Vocab<'a>> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let tokens = meta.strs(TOKENS)?.ok_or_else(|| meta.missing(TOKENS))?;
    let types = match meta.numbers("tokenizer.ggml.token_type")? {
        Some(types) => types.into_iter().map(TokenType::of).collect(),
        None => vec![TokenType::Normal; tokens.len()],
    };
    if types.len() != tokens.len() {
        let problem = format!("{} token types for {} tokens", types.len(), tokens.len());
        return Err(ImportError::malformed(meta.file, problem));
    }
    Ok(Vocab { tokens, types })
}

impl Vocab<'_> {
    /// Token to id, as the model's part of `tokenizer.json` has it.
    fn json(&self) -> Map<String, Value> {
        let entries = self.tokens.iter().enumerate();
        entries.map(|(id, token)| (token.to_string(), id.into())).collect()
    }
}

/// Tokens that are matched in the input before it is tokenized.
fn added_tokens(vocab: &Vocab) -> Vec<Value> {
    let with_types = vocab.tokens.iter().zip(&vocab.types).enumerate();
    let added =
        |kind| matches!(kind, TokenType::Control | TokenType::UserDefined | TokenType::Unknown);
    with_types
        .filter(|(_, (token, kind))| added(**kind) && !token.is_empty())
        .map(|(id, (token, kind))| {
            json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": *kind != TokenType::UserDefined,
            })
        })
        .collect()
}

/// Puts the bos token before a text and the eos token after it, where the file asks for them.
fn post_processor(meta: &Metadata, vocab: &Vocab, adds_bos: bool) -> Result<Value> {
    let wants = |key, default| -> Result<bool> { Ok(meta.bool(key)?.unwrap_or(default)) };
    let token = |wanted: bool, key| -> Result<Option<(u32, &str)>> {
        let id = meta.u32(key)?.filter(|_| wanted);
        Ok(id.and_then(|id| Some((id, *vocab.tokens.get(id as usize)?))))
    };
    let bos = wants("tokenizer.ggml.add_bos_token", adds_bos)?;
    let eos = wants("tokenizer.ggml.add_eos_token", false)?;
    let bos = token(bos, "tokenizer.ggml.bos_token_id")?;
    let eos = token(eos, "tokenizer.ggml.eos_token_id")?;
    if bos.is_none() && eos.is_none() {
        return Ok(Value::Null);
    }
    let special = |token: Option<(u32, &str)>, sequence: u32| {
        token.map(|(_, text)| json!({"SpecialToken": {"id": text, "type_id": sequence}}))
    };
    let around = |name: &str, sequence: u32| -> Vec<Value> {
        let text = json!({"Sequence": {"id": name, "type_id": sequence}});
        let parts = [special(bos, sequence), Some(text), special(eos, sequence)];
        parts.into_iter().flatten().collect()
    };
    let declared: Map<String, Value> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(id, text)| {
            let token = json!({"id": text, "ids": [id], "tokens": [text]});
            (text.to_string(), token)
        })
        .collect();
    let pair = [around("A", 0), around("B", 1)].concat();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": declared,
    }))
}
