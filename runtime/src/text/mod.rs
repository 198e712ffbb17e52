//! Text in and out: tokenizer, chat template and sampling defaults of an artifact.

mod chat;
mod config;
mod guard;
mod json;
mod time;
mod tokenizer;

pub use chat::{ChatError, ChatTemplate, Message};
pub use config::{GenerationConfig, SpecialTokens};
pub use tokenizer::{TextStream, Tokenizer};

use crate::error::Error;
use thiserror::Error;
use waveloom_plan::Artifact;
use waveloom_plan::artifact::{CHAT_TEMPLATE, GENERATION_CONFIG, TOKENIZER};

/// Why text cannot be made of tokens, or tokens of text.
#[derive(Debug, Error)]
pub enum TextError {
    /// The artifact has no tokenizer.
    #[error("the artifact has no tokenizer: give token ids instead of text")]
    NoTokenizer,
    /// The tokenizer's JSON is not what the library takes.
    #[error("section `tokenizer.json` of the artifact is not usable: {0}")]
    Tokenizer(String),
    /// The tokenizer refuses a text.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    /// The tokenizer refuses tokens.
    #[error("the tokens cannot be decoded: {0}")]
    Decode(String),
    /// The generation config is not readable.
    #[error("section `generation_config.json` of the artifact is not usable: {0}")]
    Config(String),
    /// The artifact has no chat template.
    #[error("the model has no chat template: give a plain prompt instead of a conversation")]
    NoChatTemplate,
    /// The chat template fails.
    #[error(transparent)]
    Chat(#[from] ChatError),
}

/// The text side of a model.
pub struct TextModel {
    tokenizer: Tokenizer,
    chat: Option<ChatTemplate>,
    config: GenerationConfig,
}

impl TextModel {
    /// Reads an artifact's tokenizer, chat template and generation config.
    pub fn load(artifact: &Artifact) -> Result<TextModel, Error> {
        if !artifact.has(TOKENIZER) {
            return Err(TextError::NoTokenizer.into());
        }
        let config = match artifact.has(GENERATION_CONFIG) {
            true => GenerationConfig::from_json(artifact.section(GENERATION_CONFIG)?)?,
            false => GenerationConfig::default(),
        };
        let tokenizer = Tokenizer::from_json(artifact.section(TOKENIZER)?)?;
        let chat = match artifact.has(CHAT_TEMPLATE) {
            true => Some(artifact.text(CHAT_TEMPLATE)?),
            false => None,
        };
        let chat = chat.filter(|source| !source.is_empty());
        let chat = chat.map(|source| ChatTemplate::new(source, &config.special_tokens));
        Ok(TextModel { tokenizer, chat: chat.transpose().map_err(TextError::from)?, config })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Sampling defaults and special tokens.
    pub fn config(&self) -> &GenerationConfig {
        &self.config
    }

    /// Whether conversations can be made into prompts.
    pub fn has_chat_template(&self) -> bool {
        self.chat.is_some()
    }

    /// Tokens of a plain prompt, with those that the tokenizer adds around a text.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.tokenizer.encode(text, true)?)
    }

    /// A conversation as the text that the model continues with its answer.
    pub fn render_chat(&self, messages: &[Message]) -> Result<String, Error> {
        let chat = self.chat.as_ref().ok_or(TextError::NoChatTemplate)?;
        Ok(chat.render(messages, true).map_err(TextError::from)?)
    }

    /// Tokens of a conversation. The template itself writes all special tokens.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, Error> {
        Ok(self.tokenizer.encode(&self.render_chat(messages)?, false)?)
    }

    /// Text of new tokens as they come.
    pub fn stream(&self) -> TextStream<'_> {
        self.tokenizer.stream()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    /// The characters that byte-level tokenizers write for the 256 bytes.
    fn byte_characters() -> Vec<char> {
        let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let mut spare = 256..;
        let character = |byte: u32| if printable(&byte) { byte } else { spare.next().unwrap() };
        (0..256).map(character).map(|code| char::from_u32(code).unwrap()).collect()
    }

    /// A byte-level tokenizer with a token per byte, and two special ones, of which the first is
    /// put before every text.
    pub fn byte_level_json() -> String {
        let bytes = byte_characters().into_iter().enumerate();
        let vocab: Map<String, Value> = bytes.map(|(id, c)| (c.to_string(), json!(id))).collect();
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        };
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [special(256, "<|begin|>"), special(257, "<|end|>")],
            "pre_tokenizer": byte_level, "decoder": byte_level,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                         {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    "<|begin|>": {"id": "<|begin|>", "ids": [256], "tokens": ["<|begin|>"]}
                }
            },
            "model": {"type": "BPE", "dropout": null, "unk_token": null,
                      "continuing_subword_prefix": null, "end_of_word_suffix": null,
                      "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
        })
        .to_string()
    }
}
