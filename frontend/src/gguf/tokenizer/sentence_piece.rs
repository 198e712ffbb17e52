//! `tokenizer.ggml.model` = `llama`: SentencePiece BPE with scores and byte fallback.
//!
//! SentencePiece merges, among neighbouring pieces, the two whose concatenation has the highest
//! score. That is BPE whose merges are all ways to put a piece together from two others, ordered by
//! the score of the result; Hugging Face's converter makes the same list
//! (`SentencePieceExtractor` in transformers' `convert_slow_tokenizer.py`).

use super::super::metadata::Metadata;
use super::{Parts, TokenType, Vocab};
use crate::error::{ImportError, Result};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;

/// The parts of a SentencePiece BPE.
pub(super) fn parts(meta: &Metadata, vocab: &Vocab) -> Result<Parts> {
    let prefix = meta.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let unknown = meta.u32("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
    let unknown = vocab.tokens.get(unknown as usize);
    Ok(Parts {
        normalizer: normalizer(prefix),
        pre_tokenizer: Value::Null,
        decoder: decoder(prefix),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab.json(),
            "merges": merges(meta, vocab)?,
        }),
        adds_bos: true,
    })
}

/// Spaces are spelled `▁`; a text begins with one.
fn normalizer(prefix: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    match prefix {
        true => {
            let prepend = json!({"type": "Prepend", "prepend": "▁"});
            json!({"type": "Sequence", "normalizers": [prepend, replace]})
        }
        false => replace,
    }
}

fn decoder(prefix: bool) -> Value {
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": decoders})
}

/// One way to make a piece of two.
struct Merge<'a> {
    score: f64,
    left: &'a str,
    right: &'a str,
}

fn merges(meta: &Metadata, vocab: &Vocab) -> Result<Vec<Value>> {
    const KEY: &str = "tokenizer.ggml.scores";
    let scores = meta.numbers(KEY)?.ok_or_else(|| meta.missing(KEY))?;
    if scores.len() != vocab.tokens.len() {
        let problem = format!("{} scores for {} tokens", scores.len(), vocab.tokens.len());
        return Err(ImportError::malformed(meta.file, problem));
    }
    if let Some(score) = scores.iter().find(|score| score.is_nan()) {
        let problem = format!("`{KEY}` holds {score}");
        return Err(ImportError::malformed(meta.file, problem));
    }
    // Bytes and special tokens are no text; user-defined pieces are matched before.
    let pieces = vocab.tokens.iter().zip(&vocab.types).enumerate();
    let text: HashMap<&str, usize> = pieces
        .filter(|(_, (_, kind))| matches!(kind, TokenType::Normal | TokenType::UserDefined))
        .map(|(id, (token, _))| (*token, id))
        .collect();
    let mut merges: Vec<Merge> = vec![];
    for (id, token) in vocab.tokens.iter().enumerate() {
        if text.get(token) == Some(&id) {
            push_splits(&mut merges, token, scores[id], &text);
        }
    }
    // Stable, so that equal ones stay in the order of ids.
    merges.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(merges.iter().map(|m| json!([m.left, m.right])).collect())
}

/// Appends every way to make `token` of two pieces, those of longer left parts first.
fn push_splits<'a>(
    merges: &mut Vec<Merge<'a>>,
    token: &'a str,
    score: f64,
    text: &HashMap<&str, usize>,
) {
    /// No vocabulary has longer pieces (SentencePiece stops at 16 characters, special ones at a
    /// few dozen); without a limit, a malformed file could ask for quadratic work.
    const LONGEST: usize = 256;
    if token.len() > LONGEST {
        return;
    }
    let mut splits: Vec<(&str, &str)> = token
        .char_indices()
        .skip(1)
        .map(|(at, _)| token.split_at(at))
        .filter(|(left, right)| text.contains_key(left) && text.contains_key(right))
        .collect();
    splits.sort_by_key(|(left, _)| Reverse(left.len()));
    let merge = |(left, right)| Merge { score, left, right };
    merges.extend(splits.into_iter().map(merge));
}

#[cfg(test)]
mod tests {
    use crate::gguf::metadata::Metadata;
    use crate::gguf::{reader, tokenizer};
    use serde_json::Value;
    use std::path::Path;
    use tokenizers::Tokenizer;

    /// `scripts/make_tiny_models.py` trained the vocabulary and tokenized the texts with the
    /// sentencepiece library.
    #[test]
    fn tokens_are_those_of_sentencepiece() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = manifest.join("../tests/fixtures/tiny/sentencepiece");
        let file = directory.join("vocab.gguf");
        let bytes = std::fs::read(&file).unwrap();
        let gguf = reader::parse(&bytes).unwrap();
        let meta = Metadata { file: &file, map: &gguf.metadata };
        let json = tokenizer::read(&meta).unwrap().unwrap();
        let tokenizer: Tokenizer = json.parse().unwrap();
        let reference = std::fs::read(directory.join("reference.json")).unwrap();
        let reference: Value = serde_json::from_slice(&reference).unwrap();
        let cases = reference["cases"].as_array().unwrap();
        assert!(cases.len() > 10);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids = case["ids"].as_array().unwrap().iter();
            let ids: Vec<u32> = ids.map(|id| id.as_u64().unwrap() as u32).collect();
            let encoding = tokenizer.encode(text, false).unwrap();
            assert_eq!(encoding.get_ids(), ids, "{text:?}");
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }
        // Such files begin a text with the bos token if they do not say otherwise.
        assert_eq!(tokenizer.encode("hello", true).unwrap().get_ids()[0], 1);
    }
}
