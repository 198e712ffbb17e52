//! Tokenizers made of GGUF metadata give the tokens that the original ones give.

use crate::fixtures::{self, import, import_tiny, small_gguf};
use serde_json::Value;
use tokenizers::Tokenizer;

fn load(json: Option<String>) -> Tokenizer {
    let json = json.expect("the model has a tokenizer");
    json.parse().expect("the tokenizers library reads it")
}

fn ids(value: &Value) -> Vec<u32> {
    let items = value.as_array().unwrap().iter();
    items.map(|id| id.as_u64().unwrap() as u32).collect()
}

const TEXTS: &[&str] = &[
    "",
    "The quick brown fox",
    " leading and  double   spaces ",
    "<|im_start|>user\nWhat is 1234 + 56?<|im_end|>\n",
    "naïve café — 東京 🙂\t\r\n\n'tis it's they'll",
    "x<|endoftext|>y",
];

#[test]
fn byte_level_from_gguf_equals_the_original() {
    let original = load(import_tiny("llama").tokenizer_json);
    let converted = load(import_tiny("gguf/llama.gguf").tokenizer_json);
    for text in TEXTS {
        let (a, b) = (original.encode(*text, true), converted.encode(*text, true));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a.get_ids(), b.get_ids(), "{text:?}");
        for skip in [false, true] {
            let decoded = converted.decode(b.get_ids(), skip).unwrap();
            assert_eq!(original.decode(a.get_ids(), skip).unwrap(), decoded);
        }
        assert_eq!(converted.decode(b.get_ids(), false).unwrap(), *text);
    }
}

/// The golden prompts, as the reference implementation tokenized them.
#[test]
fn real_tokenizer_gives_the_golden_ids() {
    let Some(model) = fixtures::smollm2() else {
        return;
    };
    let tokenizer = load(import(&model).unwrap().tokenizer_json);
    let golden: Value = serde_json::from_str(include_str!("smollm2_prompts.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let text = case["text_in"].as_str().unwrap();
        let encoding = tokenizer.encode(text, false).unwrap();
        assert_eq!(encoding.get_ids(), ids(&case["prompt_ids"]), "{text:?}");
        let generated = ids(&case["greedy_ids"]);
        let decoded = tokenizer.decode(&generated, false).unwrap();
        assert_eq!(decoded, case["text"].as_str().unwrap());
    }
}

/// Every pre-tokenizer that is known makes a tokenizer that the library reads and that loses no
/// text.
#[test]
fn every_pre_tokenizer_loads() {
    let alphabet = byte_alphabet();
    let tokens: Vec<&str> = alphabet.iter().map(String::as_str).collect();
    let types = vec![1; tokens.len()];
    let directory = tempfile::tempdir().unwrap();
    for pre in known_pre_tokenizers() {
        let path = small_gguf()
            .str("tokenizer.ggml.pre", &pre)
            .strs("tokenizer.ggml.tokens", &tokens)
            .i32s("tokenizer.ggml.token_type", &types)
            .strs("tokenizer.ggml.merges", &[])
            .f32_tensor("token_embd.weight", &[256, 32])
            .write(directory.path());
        let tokenizer = load(import(&path).unwrap().tokenizer_json);
        for text in TEXTS {
            let encoding = tokenizer.encode(*text, false).unwrap();
            let decoded = tokenizer.decode(encoding.get_ids(), false).unwrap();
            assert_eq!(decoded, *text, "{pre}");
        }
    }
}

/// The 256 characters that stand for bytes.
fn byte_alphabet() -> Vec<String> {
    let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    let mut alphabet: Vec<String> = alphabet.into_iter().map(String::from).collect();
    alphabet.sort();
    alphabet
}

/// The names, from the error that lists them.
fn known_pre_tokenizers() -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let unknown = small_gguf().str("tokenizer.ggml.pre", "nonsense");
    let error = import(&unknown.write(directory.path())).err().unwrap().to_string();
    let (_, known) = error.split_once("known: ").unwrap();
    let known: Vec<String> = known.split(", ").map(String::from).collect();
    assert!(known.iter().any(|name| name == "llama-bpe"));
    known
}

#[test]
fn bos_is_added_where_the_file_asks() {
    let directory = tempfile::tempdir().unwrap();
    let tokens_of = |writer: fixtures::GgufWriter| {
        let tokenizer = load(import(&writer.write(directory.path())).unwrap().tokenizer_json);
        tokenizer.encode("ab", true).unwrap().get_ids().to_vec()
    };
    assert_eq!(tokens_of(small_gguf()), [4]);
    let bos = small_gguf().bool("tokenizer.ggml.add_bos_token", true);
    assert_eq!(tokens_of(bos.clone()), [0, 4]);
    let eos = bos.bool("tokenizer.ggml.add_eos_token", true);
    assert_eq!(tokens_of(eos), [0, 4, 1]);
}
