//! The tokenizer, and text out of a stream of tokens.

use super::TextError;
use super::guard::guard;
use serde::de::IgnoredAny;

/// A tokenizer of the `tokenizers` library.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<Tokenizer, TextError> {
        // Given text that is not JSON, the library panics instead of saying where it ends.
        serde_json::from_slice::<IgnoredAny>(json)
            .map_err(|error| TextError::Tokenizer(error.to_string()))?;
        let inner = library(|| tokenizers::Tokenizer::from_bytes(json));
        Ok(Tokenizer { inner: inner.map_err(TextError::Tokenizer)? })
    }

    /// Tokens of a text. Special tokens spelled in it are recognised; `add_special_tokens` also
    /// adds those that the tokenizer's post-processor puts around a text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoding = library(|| self.inner.encode_fast(text, add_special_tokens));
        let encoding = encoding.map_err(TextError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens, special ones left out.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        library(|| self.inner.decode(tokens, true)).map_err(TextError::Decode)
    }

    /// The id of a token by its text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Text of tokens as they come.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, tokens: vec![], shown: 0 }
    }
}

/// A call of the library: its error or the message of its panic.
fn library<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    guard(call)?.map_err(|error| error.to_string())
}

/// Tokens that may still be short of a whole character before they are shown as they are: four
/// bytes at most make one, and each takes a token at worst.
const PATIENCE: usize = 4;

/// Turns tokens into text as they come, in whole characters.
///
/// A token may hold a part of a character, and decoders treat the start of a text specially. So
/// a few tokens that have been shown are kept, and decoded again before the new ones.
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// Tokens shown last, then those not shown yet.
    tokens: Vec<u32>,
    /// How many of `tokens` have been shown.
    shown: usize,
}

impl TextStream<'_> {
    /// The text that `token` completes; empty where it ends inside a character.
    pub fn push(&mut self, token: u32) -> Result<String, TextError> {
        self.tokens.push(token);
        let (text, start) = self.decode()?;
        let waiting = self.tokens.len() - self.shown;
        if text.ends_with(char::REPLACEMENT_CHARACTER) && waiting <= PATIENCE {
            return Ok(String::new());
        }
        let new = text.get(start..).unwrap_or_default().to_string();
        if !new.is_empty() {
            self.tokens.drain(..self.shown);
            self.shown = self.tokens.len();
        }
        Ok(new)
    }

    /// What is left at the end: characters cut short show as U+FFFD.
    pub fn finish(mut self) -> Result<String, TextError> {
        let (text, start) = self.decode()?;
        self.tokens.clear();
        Ok(text.get(start..).unwrap_or_default().to_string())
    }

    /// Text of all kept tokens, and where the part not shown yet starts.
    fn decode(&self) -> Result<(String, usize), TextError> {
        let shown = self.tokenizer.decode(&self.tokens[..self.shown])?;
        Ok((self.tokenizer.decode(&self.tokens)?, shown.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::byte_level_json;
    use proptest::prelude::*;

    #[test]
    fn special_tokens_are_recognised_and_added() {
        let tokenizer = Tokenizer::from_json(byte_level_json().as_bytes()).unwrap();
        let plain = tokenizer.encode("hi", false).unwrap();
        let special = tokenizer.token_id("<|end|>").unwrap();
        let bos = tokenizer.token_id("<|begin|>").unwrap();
        assert_eq!(
            tokenizer.encode("<|end|>hi", false).unwrap(),
            [&[special], &plain[..]].concat()
        );
        assert_eq!(tokenizer.encode("hi", true).unwrap(), [&[bos], &plain[..]].concat());
        assert_eq!(tokenizer.decode(&tokenizer.encode("<|end|>hi", true).unwrap()).unwrap(), "hi");
    }

    #[test]
    fn streams_whole_characters() {
        let tokenizer = Tokenizer::from_json(byte_level_json().as_bytes()).unwrap();
        let text = "aé 🦀 日本\nz";
        let mut stream = tokenizer.stream();
        let mut pieces = vec![];
        for token in tokenizer.encode(text, false).unwrap() {
            pieces.push(stream.push(token).unwrap());
        }
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| !piece.contains(char::REPLACEMENT_CHARACTER)));
        assert!(pieces.contains(&"🦀".to_string()));
        assert_eq!(stream.finish().unwrap(), "");
    }

    #[test]
    fn a_cut_character_shows_at_the_end() {
        let tokenizer = Tokenizer::from_json(byte_level_json().as_bytes()).unwrap();
        let tokens = tokenizer.encode("a🦀", false).unwrap();
        let mut stream = tokenizer.stream();
        let text: String = tokens[..3].iter().map(|&token| stream.push(token).unwrap()).collect();
        assert_eq!(text, "a");
        assert_eq!(stream.finish().unwrap(), "\u{fffd}");
        // Bytes that never become a character do not hold up what follows.
        let mut stream = tokenizer.stream();
        let lone = tokens[1];
        let text: String = (0..9).map(|_| stream.push(lone).unwrap()).collect();
        assert!(text.contains(char::REPLACEMENT_CHARACTER));
    }

    #[test]
    fn names_what_is_wrong_with_a_tokenizer() {
        let error = Tokenizer::from_json(b"{}").map(drop).unwrap_err();
        assert!(error.to_string().starts_with("section `tokenizer.json` of the artifact"));
    }

    proptest! {
        #[test]
        fn mutated_tokenizers_do_not_panic(
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
            tokens in prop::collection::vec(0u32..300, 0..8),
        ) {
            let mut json = byte_level_json().into_bytes();
            for (at, byte) in changes {
                let at = at % json.len();
                json[at] = byte;
            }
            if let Ok(tokenizer) = Tokenizer::from_json(&json) {
                let _ = tokenizer.encode("a<|end|> é🦀", true);
                let mut stream = tokenizer.stream();
                for token in tokens {
                    let _ = stream.push(token);
                }
                let _ = stream.finish();
            }
        }
    }
}
