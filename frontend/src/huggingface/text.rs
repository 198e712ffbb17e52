//! The files around a Hugging Face model that have to do with text: tokenizer, chat template, how to
//! generate.

use super::read_optional;
use crate::error::{ImportError, Result};
use crate::json::{self, Fields};
use crate::model::{GenerationConfig, SpecialTokens};
use serde::de::IgnoredAny;
use serde_json::Value;
use std::path::Path;

/// What the files say.
pub(crate) struct Text {
    pub tokenizer_json: Option<String>,
    pub chat_template: Option<String>,
    pub generation: GenerationConfig,
}

/// Reads them; none need be there.
pub(crate) fn read(dir: &Path, config: Fields, vocab: u32) -> Result<Text> {
    let tokenizer_config = Optional::read(dir, "tokenizer_config.json")?;
    let tokenizer_config = tokenizer_config.fields()?;
    let chat_template = match read_optional(&dir.join("chat_template.jinja"))? {
        Some(template) => Some(template),
        None => tokenizer_config.map_or(Ok(None), chat_template)?,
    };
    let generation_config = Optional::read(dir, "generation_config.json")?;
    let generation = generation(generation_config.fields()?, config, vocab)?;
    let special_tokens = match tokenizer_config {
        Some(config) => special_tokens(config),
        None => SpecialTokens::default(),
    };
    Ok(Text {
        tokenizer_json: tokenizer_json(dir)?,
        chat_template,
        generation: GenerationConfig { special_tokens, ..generation },
    })
}

/// A JSON file that need not be there.
struct Optional(Option<(std::path::PathBuf, Value)>);

impl Optional {
    fn read(dir: &Path, name: &str) -> Result<Optional> {
        let path = dir.join(name);
        let Some(text) = read_optional(&path)? else {
            return Ok(Optional(None));
        };
        let value = json::parse(&path, text.as_bytes())?;
        Ok(Optional(Some((path, value))))
    }

    fn fields(&self) -> Result<Option<Fields<'_>>> {
        match &self.0 {
            Some((path, value)) => Fields::new(path, value).map(Some),
            None => Ok(None),
        }
    }
}

/// `tokenizer.json` as it stands, once it is known to be JSON.
fn tokenizer_json(dir: &Path) -> Result<Option<String>> {
    let path = dir.join("tokenizer.json");
    let Some(text) = read_optional(&path)? else {
        return Ok(None);
    };
    serde_json::from_str::<IgnoredAny>(&text)
        .map_err(|error| ImportError::malformed(&path, format!("not JSON: {error}")))?;
    Ok(Some(text))
}

/// `chat_template`: a string, or a list of `{name, template}` of which `default` counts, else the
/// first.
fn chat_template(config: Fields) -> Result<Option<String>> {
    let malformed = || {
        let problem = "`chat_template` is neither a string nor a list of named templates";
        ImportError::malformed(config.file(), problem)
    };
    match config.value("chat_template") {
        None => Ok(None),
        Some(Value::String(template)) => Ok(Some(template.clone())),
        Some(Value::Array(list)) => {
            let named = |item: &Value| Some((item.get("name")?.as_str()?.to_string(), text(item)?));
            let list: Option<Vec<_>> = list.iter().map(named).collect();
            let list = list.ok_or_else(malformed)?;
            let default = list.iter().find(|(name, _)| name == "default");
            Ok(default.or(list.first()).map(|(_, text)| text.clone()))
        }
        Some(_) => Err(malformed()),
    }
}

fn text(item: &Value) -> Option<String> {
    item.get("template")?.as_str().map(String::from)
}

/// Special tokens: strings, or objects with the string in `content`.
fn special_tokens(config: Fields) -> SpecialTokens {
    let token = |key| match config.value(key)? {
        Value::String(token) => Some(token.clone()),
        object => object.get("content")?.as_str().map(String::from),
    };
    SpecialTokens {
        bos_token: token("bos_token"),
        eos_token: token("eos_token"),
        unk_token: token("unk_token"),
        pad_token: token("pad_token"),
    }
}

/// Stop tokens and sampling defaults. `generation_config.json` counts before `config.json`, where
/// older models keep them.
pub(super) fn generation(
    own: Option<Fields>,
    config: Fields,
    vocab: u32,
) -> Result<GenerationConfig> {
    let own_stop = own.map_or(Ok(None), |own| own.u32s("eos_token_id"))?;
    let stop = match own_stop {
        Some(stop) => stop,
        None => config.u32s("eos_token_id")?.unwrap_or_default(),
    };
    let fields = own.unwrap_or(config);
    Ok(GenerationConfig {
        stop_tokens: GenerationConfig::stop_tokens(stop, vocab),
        special_tokens: SpecialTokens::default(),
        do_sample: fields.bool("do_sample")?,
        temperature: fields.f64("temperature")?,
        top_k: fields.u32("top_k")?,
        top_p: fields.f64("top_p")?,
        min_p: fields.f64("min_p")?,
        repetition_penalty: fields.f64("repetition_penalty")?,
    })
}
