//! `tokenizer.ggml.model` = `gpt2`: BPE over bytes, with merges, after splitting by a regular
//! expression that `tokenizer.ggml.pre` names.

use super::super::metadata::Metadata;
use super::{Parts, Vocab};
use crate::error::{ImportError, Result};
use serde_json::{Value, json};
use std::collections::HashSet;

/// How text is split before BPE.
enum Split {
    /// By the expression of GPT-2, which the `ByteLevel` pre-tokenizer has built in.
    Gpt2,
    /// Single digits first, then as GPT-2.
    DigitsThenGpt2,
    /// By each of these in turn; what no expression matches stays as it is.
    Patterns(&'static [&'static str]),
}

/// A kind of pre-tokenizer.
struct Pre {
    /// Values of `tokenizer.ggml.pre` that mean it.
    names: &'static [&'static str],
    split: Split,
    /// Whether a piece that is a token is taken whole, whatever the merges say.
    ignore_merges: bool,
    /// Whether text is brought to Unicode normalization form C first.
    nfc: bool,
    /// Whether a text begins with the bos token where the file does not say.
    adds_bos: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &[&str] = &[
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];
const DEEPSEEK_CODER: &[&str] =
    &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"];
/// What llama.cpp does for files that name no pre-tokenizer.
const DEFAULT: &[&str] = &[
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    "[0-9][0-9][0-9]",
];

/// Most kinds do nothing but split.
const fn pre(names: &'static [&'static str], split: Split) -> Pre {
    Pre { names, split, ignore_merges: false, nfc: false, adds_bos: false }
}

/// The kinds that models of the known architectures use. Names and expressions are those of
/// llama.cpp's `llama-vocab.cpp`; where it had to rewrite an expression for its own engine, this is the
/// one of the original `tokenizer.json`.
const PRES: &[Pre] = &[
    pre(&["default"], Split::Patterns(DEFAULT)),
    pre(&["gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4"], Split::Gpt2),
    pre(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        Split::DigitsThenGpt2,
    ),
    Pre {
        ignore_merges: true,
        adds_bos: true,
        ..pre(
            &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
            Split::Patterns(&[LLAMA3]),
        )
    },
    pre(&["dbrx", "smaug-bpe", "chatglm-bpe"], Split::Patterns(&[LLAMA3])),
    Pre { nfc: true, ..pre(&["qwen2", "deepseek-r1-qwen", "megrez"], Split::Patterns(&[QWEN2])) },
    pre(&["stablelm2", "hunyuan"], Split::Patterns(&[QWEN2])),
    Pre { ignore_merges: true, ..pre(&["tekken"], Split::Patterns(&[TEKKEN])) },
    pre(&["gpt-4o", "llama4", "kanana2"], Split::Patterns(&[GPT4O])),
    pre(&["seed-coder"], Split::Patterns(&[SEED_CODER])),
    pre(&["deepseek-v3"], Split::Patterns(DEEPSEEK3)),
    pre(&["deepseek-coder"], Split::Patterns(DEEPSEEK_CODER)),
];

/// The parts of a byte-level BPE.
pub(super) fn parts(meta: &Metadata, vocab: &Vocab) -> Result<Parts> {
    let pre = kind(meta)?;
    Ok(Parts {
        normalizer: match pre.nfc {
            true => json!({"type": "NFC"}),
            false => Value::Null,
        },
        pre_tokenizer: pre_tokenizer(&pre.split),
        decoder: byte_level(true),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.ignore_merges,
            "vocab": vocab.json(),
            "merges": merges(meta, vocab)?,
        }),
        adds_bos: pre.adds_bos,
    })
}

fn kind(meta: &Metadata) -> Result<&'static Pre> {
    let name = meta.str("tokenizer.ggml.pre")?.unwrap_or("default");
    PRES.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
        let known = PRES.iter().flat_map(|pre| pre.names.iter().copied());
        ImportError::unknown(meta.file, "pre-tokenizer", name, known)
    })
}

/// The pre-tokenizer, and decoder, that spells bytes as printable characters.
fn byte_level(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": use_regex,
    })
}

fn pre_tokenizer(split: &Split) -> Value {
    let digits = json!({"type": "Digits", "individual_digits": true});
    let sequence = match split {
        Split::Gpt2 => return byte_level(true),
        Split::DigitsThenGpt2 => vec![digits, byte_level(true)],
        Split::Patterns(patterns) => {
            let splits = patterns.iter().map(|pattern| {
                json!({
                    "type": "Split",
                    "pattern": {"Regex": pattern},
                    "behavior": "Isolated",
                    "invert": false,
                })
            });
            splits.chain([byte_level(false)]).collect()
        }
    };
    json!({"type": "Sequence", "pretokenizers": sequence})
}

/// Pairs of tokens, most important first. The file has them joined by a space.
fn merges(meta: &Metadata, vocab: &Vocab) -> Result<Vec<Value>> {
    const KEY: &str = "tokenizer.ggml.merges";
    let merges = meta.strs(KEY)?.ok_or_else(|| meta.missing(KEY))?;
    let tokens: HashSet<&str> = vocab.tokens.iter().copied().collect();
    let mut joined = String::new();
    let mut are_tokens = |left: &str, right: &str| {
        joined.clear();
        joined.extend([left, right]);
        [left, right, &joined].iter().all(|token| tokens.contains(token))
    };
    let mut pair = |merge: &&str| {
        let pair = merge.split_once(' ').filter(|(left, right)| are_tokens(left, right));
        pair.map(|pair| json!(pair)).ok_or_else(|| {
            let problem = format!("merge {merge:?} in `{KEY}` is not two tokens that make a third");
            ImportError::malformed(meta.file, problem)
        })
    };
    merges.iter().map(&mut pair).collect()
}
