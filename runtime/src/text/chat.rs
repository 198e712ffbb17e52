//! Chat templates: Jinja as Hugging Face's models use it.

use super::config::SpecialTokens;
use super::{json, time};
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// Why a conversation has no prompt.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChatError {
    /// The template is not Jinja.
    #[error("the model's chat template is not usable: {0}")]
    Syntax(String),
    /// The template fails on these messages.
    #[error("the model's chat template fails on this conversation: {0}")]
    Render(String),
    /// The template refuses these messages, in its own words.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
}

/// A model's chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialTokens,
}

/// Name of the only template of the environment.
const NAME: &str = "chat_template.jinja";
/// What `raise_exception` puts before its message, to tell it from other failures.
const REFUSAL: &str = "refused: ";

impl ChatTemplate {
    /// Parses a template. The environment is set as in Hugging Face's `transformers`.
    pub fn new(source: &str, special: &SpecialTokens) -> Result<ChatTemplate, ChatError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: String| time::strftime_now(&format));
        environment.add_filter("tojson", tojson);
        let syntax = |error: minijinja::Error| ChatError::Syntax(one_line(&error));
        environment.add_template_owned(NAME, source.to_string()).map_err(syntax)?;
        Ok(ChatTemplate { environment, special: special.clone() })
    }

    /// The prompt for a conversation; with `add_generation_prompt` it ends where the answer of
    /// the assistant starts.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let text = |token: &Option<String>| token.clone().unwrap_or_default();
        let template = self.environment.get_template(NAME).map_err(failure)?;
        let values = context! {
            messages, add_generation_prompt,
            bos_token => text(&self.special.bos_token),
            eos_token => text(&self.special.eos_token),
            unk_token => text(&self.special.unk_token),
            pad_token => text(&self.special.pad_token),
            tools => Value::from(()),
            documents => Value::from(()),
        };
        template.render(values).map_err(failure)
    }
}

/// Ends rendering with a message.
fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REFUSAL}{message}")))
}

/// The filter `tojson`, by Python's rules.
fn tojson(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // `ensure_ascii`, `sort_keys` and `separators` keep their defaults.
    let fail = |error: serde_json::Error| {
        minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())
    };
    Ok(Value::from_safe_string(json::dumps(&value, indent).map_err(fail)?))
}

fn failure(error: minijinja::Error) -> ChatError {
    match error.detail().and_then(|detail| detail.strip_prefix(REFUSAL)) {
        Some(message) => ChatError::Refused(message.to_string()),
        None => ChatError::Render(one_line(&error)),
    }
}

/// What and where.
fn one_line(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{detail}{line}", error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use proptest::prelude::*;

    fn special() -> SpecialTokens {
        let text = |token: &str| Some(token.to_string());
        SpecialTokens { bos_token: text("<s>"), eos_token: text("</s>"), ..Default::default() }
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, ChatError> {
        ChatTemplate::new(source, &special())?.render(messages, true)
    }

    #[derive(Deserialize)]
    struct Case {
        template: String,
        messages: Vec<Message>,
        text: Option<String>,
        refused: Option<String>,
    }

    /// The templates of the fixtures (Llama 3, Mistral, Qwen 2.5 and 3, SmolLM2, abbreviated, and
    /// one of assorted constructs) give what Jinja2 gives; `expected.py` made `expected.json`.
    #[test]
    fn templates_render_as_in_jinja2() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/text/fixtures/");
        let read = |name: &str| std::fs::read_to_string(format!("{folder}{name}")).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&read("expected.json")).unwrap();
        assert_eq!(cases.len(), 48);
        for case in cases {
            let found = render(&read(&case.template), &case.messages);
            let today = time::strftime_now("%d %b %Y");
            let found = found.map(|text| text.replace(&today, "TODAY"));
            let expected = match (case.text, case.refused) {
                (Some(text), _) => Ok(text),
                (_, refused) => Err(ChatError::Refused(refused.unwrap())),
            };
            assert_eq!(found, expected, "{} on {:?}", case.template, case.messages);
        }
    }

    #[test]
    fn names_what_is_wrong_with_a_template() {
        assert_snapshot!(render("{% if %}", &[]).unwrap_err(), @"the model's chat template is not usable: syntax error: unexpected end of block (line 1)");
        assert_snapshot!(render("\n{{ 1 + 'a' }}", &[]).unwrap_err(), @"the model's chat template fails on this conversation: invalid operation: tried to use + operator on unsupported types number and string (line 2)");
        assert_snapshot!(render("{{ messages.nope() }}", &[]).unwrap_err(), @"the model's chat template fails on this conversation: unknown method: sequence has no method named nope (line 1)");
    }

    proptest! {
        #[test]
        fn mutated_templates_do_not_panic(
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        ) {
            let mut source = include_bytes!("fixtures/constructs.jinja").to_vec();
            for (at, byte) in changes {
                let at = at % source.len();
                source[at] = byte;
            }
            let source = String::from_utf8_lossy(&source);
            let _ = render(&source, &[Message::new("user", "hello there")]);
        }
    }
}
