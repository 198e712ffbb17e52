//! What bad input gets: one line that says what, where, and what would do.

use crate::fixtures::{GgufWriter, copy_tiny, import, small_gguf};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The error of importing `path`, with the test's own directory spelled `DIR`.
fn error_at(path: &Path, directory: &Path) -> String {
    let error = import(path).err().expect("the import fails");
    let directory = directory.display().to_string();
    error.to_string().replace(&directory, "DIR")
}

/// The error of a committed model after `change` to its directory.
fn error_of(model: &str, change: impl FnOnce(&Path)) -> String {
    let directory = copy_tiny(model);
    change(directory.path());
    error_at(directory.path(), directory.path())
}

/// The error of a committed model after `change` to its configuration.
fn config_error(model: &str, change: impl FnOnce(&mut Value)) -> String {
    error_of(model, |directory| {
        let path = directory.join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(&path, config.to_string()).unwrap();
    })
}

fn gguf_error(writer: GgufWriter) -> String {
    gguf_bytes_error(&writer.bytes())
}

fn gguf_bytes_error(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    error_at(&path, directory.path())
}

#[test]
fn paths_that_are_no_model() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &Path| error_at(path, directory.path());
    insta::assert_snapshot!(at(&directory.path().join("absent")), @"cannot read `DIR/absent`: No such file or directory (os error 2)");
    insta::assert_snapshot!(at(directory.path()), @"`DIR` is not a model; give a directory with `config.json` and `*.safetensors`, or a `.gguf` file");
    let other = directory.path().join("model.bin");
    fs::write(&other, "x").unwrap();
    insta::assert_snapshot!(at(&other), @"`DIR/model.bin` is not a model; give a directory with `config.json` and `*.safetensors`, or a `.gguf` file");
    let folder = directory.path().join("folder.gguf");
    fs::create_dir(&folder).unwrap();
    insta::assert_snapshot!(at(&folder), @"`DIR/folder.gguf` is not a model; give a directory with `config.json` and `*.safetensors`, or a `.gguf` file");
}

#[test]
fn configurations() {
    let architecture = |config: &mut Value| config["architectures"] = json!(["GPT2LMHeadModel"]);
    insta::assert_snapshot!(config_error("llama", architecture), @"DIR/config.json: unknown architecture `GPT2LMHeadModel`; known: LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM");
    let model_type = |config: &mut Value| {
        config["architectures"] = json!(null);
        config["model_type"] = json!("gpt2");
    };
    insta::assert_snapshot!(config_error("llama", model_type), @"DIR/config.json: unknown model type `gpt2`; known: llama, mistral, qwen2, qwen3");
    let yarn = |config: &mut Value| config["rope_parameters"]["rope_type"] = json!("yarn");
    insta::assert_snapshot!(config_error("qwen2", yarn), @"DIR/config.json: rope scaling `yarn` is not supported; supported: default, linear, llama3");
    let dynamic = |config: &mut Value| config["rope_scaling"]["type"] = json!("dynamic");
    insta::assert_snapshot!(config_error("mistral", dynamic), @"DIR/config.json: rope scaling `dynamic` is not supported; supported: default, linear, llama3");
    let partial = |config: &mut Value| config["partial_rotary_factor"] = json!(0.5);
    insta::assert_snapshot!(config_error("llama", partial), @"DIR/config.json: `partial_rotary_factor` 0.5 is not supported; supported: 1");
    let by_layer = |config: &mut Value| config["rope_parameters"] = json!({"full_attention": {}});
    insta::assert_snapshot!(config_error("qwen3", by_layer), @"DIR/config.json: `rope_parameters` by layer type is not supported; supported: one set for all layers");
    let factor = |config: &mut Value| config["rope_parameters"]["factor"] = json!(-8);
    insta::assert_snapshot!(config_error("llama3", factor), @"DIR/config.json: rope's factor is not a positive number: -8");
    let no_factor = |config: &mut Value| config["rope_parameters"]["factor"] = json!(null);
    insta::assert_snapshot!(config_error("llama3", no_factor), @"DIR/config.json: `factor` is missing");
    let missing = |config: &mut Value| config["hidden_size"] = json!(null);
    insta::assert_snapshot!(config_error("llama", missing), @"DIR/config.json: `hidden_size` is missing");
    let negative = |config: &mut Value| config["hidden_size"] = json!(-64);
    insta::assert_snapshot!(config_error("llama", negative), @"DIR/config.json: `hidden_size` is not a whole number below 2^32: -64");
    let heads = |config: &mut Value| config["num_key_value_heads"] = json!(3);
    insta::assert_snapshot!(config_error("llama", heads), @"DIR/config.json: 4 heads are not a multiple of 3 KV heads");
    let zero = |config: &mut Value| config["num_attention_heads"] = json!(0);
    insta::assert_snapshot!(config_error("llama", zero), @"DIR/config.json: `num_attention_heads` is 0");
    let layers = |config: &mut Value| config["num_hidden_layers"] = json!(4_000_000_000_u32);
    insta::assert_snapshot!(config_error("llama", layers), @"DIR/config.json: `num_hidden_layers` is absurd: 4000000000");
    let activation = |config: &mut Value| config["hidden_act"] = json!("gelu");
    insta::assert_snapshot!(config_error("llama", activation), @"DIR/config.json: unknown activation `gelu`; known: silu, swish");
    let quantized = |config: &mut Value| config["quantization_config"] = json!({"bits": 4});
    insta::assert_snapshot!(config_error("llama", quantized), @"DIR/config.json: `quantization_config` is not supported; supported: F32, F16 and BF16 tensors, and the block formats of GGUF files");
    let layer_type = |config: &mut Value| config["layer_types"][0] = json!("linear_attention");
    insta::assert_snapshot!(config_error("qwen3", layer_type), @"DIR/config.json: unknown layer type `linear_attention`; known: full_attention, sliding_attention");
    let not_json = |directory: &Path| fs::write(directory.join("config.json"), "{").unwrap();
    insta::assert_snapshot!(error_of("llama", not_json), @"DIR/config.json: not JSON: EOF while parsing an object at line 1 column 1");
}

#[test]
fn tensors_that_disagree_with_the_configuration() {
    let vocab = |config: &mut Value| config["vocab_size"] = json!(321);
    insta::assert_snapshot!(config_error("llama", vocab), @"DIR/model-00001-of-00002.safetensors: tensor `model.embed_tokens.weight` has shape [320, 64], but the configuration implies [321, 64]");
    let kv_heads = |config: &mut Value| config["num_key_value_heads"] = json!(4);
    insta::assert_snapshot!(config_error("llama", kv_heads), @"DIR/model-00001-of-00002.safetensors: tensor `model.layers.0.self_attn.k_proj.weight` has shape [32, 64], but the configuration implies [64, 64]");
    let layers = |config: &mut Value| config["num_hidden_layers"] = json!(3);
    insta::assert_snapshot!(config_error("llama", layers), @"DIR/model.safetensors.index.json: tensor `model.layers.2.input_layernorm.weight` is missing");
    let untied = |config: &mut Value| config["tie_word_embeddings"] = json!(false);
    insta::assert_snapshot!(config_error("qwen2", untied), @"DIR/model.safetensors: tensor `lm_head.weight` is missing");
}

#[test]
fn safetensors_files() {
    const SINGLE: &str = "model.safetensors";
    let write =
        |bytes: Vec<u8>| move |directory: &Path| fs::write(directory.join(SINGLE), bytes).unwrap();
    let with_header = |header: &str| {
        let length = (header.len() as u64).to_le_bytes();
        write([&length, header.as_bytes(), &[0; 16]].concat())
    };
    let absent = |directory: &Path| fs::remove_file(directory.join(SINGLE)).unwrap();
    insta::assert_snapshot!(error_of("qwen2", absent), @"DIR: neither `model.safetensors` nor `model.safetensors.index.json` is there; other weight formats are not read");
    insta::assert_snapshot!(error_of("qwen2", write(vec![1, 2, 3])), @"DIR/model.safetensors: shorter than the 8 bytes of a header's length");
    insta::assert_snapshot!(error_of("qwen2", write(vec![255; 64])), @"DIR/model.safetensors: the header claims 18446744073709551615 bytes, the file has 64");
    insta::assert_snapshot!(error_of("qwen2", with_header("{]")), @"DIR/model.safetensors: the header is not that of safetensors: key must be a string at line 1 column 2");
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        let entry = format!(r#""dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}"#);
        with_header(&format!(r#"{{"model.embed_tokens.weight":{{{entry}}}}}"#))
    };
    insta::assert_snapshot!(error_of("qwen2", entry("F32", "[2]", "[0,17]")), @"DIR/model.safetensors: tensor `model.embed_tokens.weight`: bytes 0..17 are not within the 16 bytes of data");
    insta::assert_snapshot!(error_of("qwen2", entry("F32", "[2]", "[8,0]")), @"DIR/model.safetensors: tensor `model.embed_tokens.weight`: bytes 8..0 are not within the 16 bytes of data");
    insta::assert_snapshot!(error_of("qwen2", entry("F32", "[2]", "[0,16]")), @"DIR/model.safetensors: tensor `model.embed_tokens.weight`: 16 bytes do not hold f32[2]");
    let overflow = entry("F32", "[4294967296,4294967296]", "[0,0]");
    insta::assert_snapshot!(error_of("qwen2", overflow), @"DIR/model.safetensors: tensor `model.embed_tokens.weight`: 0 bytes do not hold f32[4294967296, 4294967296]");
    insta::assert_snapshot!(error_of("qwen2", entry("F32", "[-1]", "[0,4]")), @"DIR/model.safetensors: tensor `model.embed_tokens.weight`: invalid value: integer `-1`, expected u64");
    insta::assert_snapshot!(error_of("qwen2", entry("I64", "[320,64]", "[0,16]")), @"DIR/model.safetensors: tensor `model.embed_tokens.weight` has unknown dtype `I64`; known: F32, F16, BF16");
    let truncate = |directory: &Path| {
        let bytes = fs::read(directory.join(SINGLE)).unwrap();
        fs::write(directory.join(SINGLE), &bytes[..bytes.len() - 1]).unwrap();
    };
    insta::assert_snapshot!(error_of("mistral", truncate), @"DIR/model.safetensors: tensor `model.norm.weight`: bytes 254464..254592 are not within the 254591 bytes of data");
}

#[test]
fn sharded_safetensors() {
    const INDEX: &str = "model.safetensors.index.json";
    const LAST: &str = "model-00002-of-00002.safetensors";
    let index = |change: fn(&mut Value)| {
        move |directory: &Path| {
            let path = directory.join(INDEX);
            let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            change(&mut index);
            fs::write(&path, index.to_string()).unwrap();
        }
    };
    let absent = |directory: &Path| fs::remove_file(directory.join(LAST)).unwrap();
    insta::assert_snapshot!(error_of("llama", absent), @"cannot read `DIR/model-00002-of-00002.safetensors`: No such file or directory (os error 2)");
    let outside = index(|index| index["weight_map"]["lm_head.weight"] = json!("../x"));
    insta::assert_snapshot!(error_of("llama", outside), @r#"DIR/model.safetensors.index.json: the shard of `lm_head.weight` is not a file name: "../x""#);
    let number = index(|index| index["weight_map"]["lm_head.weight"] = json!(1));
    insta::assert_snapshot!(error_of("llama", number), @"DIR/model.safetensors.index.json: `lm_head.weight` is not a string: 1");
    let empty = index(|index| index["weight_map"] = json!({}));
    insta::assert_snapshot!(error_of("llama", empty), @"DIR/model.safetensors.index.json: tensor `model.embed_tokens.weight` is missing");
    let no_map = index(|index| *index = json!({}));
    insta::assert_snapshot!(error_of("llama", no_map), @"DIR/model.safetensors.index.json: `weight_map` is missing");
}

#[test]
fn text_files() {
    let broken = |name: &'static str, text: &'static str| {
        error_of("llama", move |directory| {
            fs::write(directory.join(name), text).unwrap();
        })
    };
    insta::assert_snapshot!(broken("tokenizer.json", "{"), @"DIR/tokenizer.json: not JSON: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(broken("tokenizer_config.json", "[]"), @"DIR/tokenizer_config.json: not a JSON object");
    insta::assert_snapshot!(broken("tokenizer_config.json", r#"{"chat_template": 1}"#), @"DIR/tokenizer_config.json: `chat_template` is neither a string nor a list of named templates");
    insta::assert_snapshot!(broken("generation_config.json", r#"{"eos_token_id": "2"}"#), @r#"DIR/generation_config.json: `eos_token_id` is not a whole number or a list of them: "2""#);
}

#[test]
fn gguf_containers() {
    insta::assert_snapshot!(gguf_bytes_error(b""), @"DIR/model.gguf: ends within the magic number, at byte 0; is the file complete?");
    insta::assert_snapshot!(gguf_bytes_error(b"GGML............"), @"DIR/model.gguf: does not begin with `GGUF`");
    let whole = small_gguf().bytes();
    let with = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        gguf_bytes_error(&file)
    };
    insta::assert_snapshot!(with(4, &1u32.to_le_bytes()), @"DIR/model.gguf: GGUF version 1 is not read; convert the model again");
    insta::assert_snapshot!(with(4, &3u32.to_be_bytes()), @"DIR/model.gguf: the file is big-endian; convert it to little-endian");
    insta::assert_snapshot!(with(4, &4u32.to_le_bytes()), @"DIR/model.gguf: unknown GGUF version 4; known: 2, 3");
    insta::assert_snapshot!(with(8, &u64::MAX.to_le_bytes()), @"DIR/model.gguf: claims 18446744073709551615 tensors, more than the 27400 bytes after byte 24 can hold");
    insta::assert_snapshot!(with(16, &u64::MAX.to_le_bytes()), @"DIR/model.gguf: claims 18446744073709551615 metadata entries, more than the 27400 bytes after byte 24 can hold");
    insta::assert_snapshot!(with(24, &u64::MAX.to_le_bytes()), @"DIR/model.gguf: ends within a metadata key, at byte 32; is the file complete?");
    insta::assert_snapshot!(with(32, &[255]), @"DIR/model.gguf: a metadata key at byte 32 is not UTF-8");
    insta::assert_snapshot!(gguf_bytes_error(&whole[..whole.len() - 1]), @"DIR/model.gguf: tensor `blk.0.ffn_down.weight`: its 4096 bytes at offset 21888 reach past the end of the file (27423 bytes); is the file complete?");
    insta::assert_snapshot!(gguf_bytes_error(&whole[..100]), @"DIR/model.gguf: claims 11 tensors, more than the 76 bytes after byte 24 can hold");
    let alignment = small_gguf().u32("general.alignment", 24);
    insta::assert_snapshot!(gguf_error(alignment), @"DIR/model.gguf: metadata `general.alignment` is not a power of two");
}

#[test]
fn gguf_metadata() {
    insta::assert_snapshot!(gguf_error(GgufWriter::default()), @"DIR/model.gguf: metadata `general.architecture` is missing");
    let gpt2 = small_gguf().str("general.architecture", "gpt2");
    insta::assert_snapshot!(gguf_error(gpt2), @"DIR/model.gguf: unknown architecture `gpt2`; known: llama, qwen2, qwen3");
    let missing = small_gguf().without("llama.block_count");
    insta::assert_snapshot!(gguf_error(missing), @"DIR/model.gguf: metadata `llama.block_count` is missing");
    let text = small_gguf().str("llama.block_count", "one");
    insta::assert_snapshot!(gguf_error(text), @"DIR/model.gguf: metadata `llama.block_count` is not one whole number below 2^32");
    let absurd = small_gguf().u32("llama.block_count", u32::MAX);
    insta::assert_snapshot!(gguf_error(absurd), @"DIR/model.gguf: metadata `llama.block_count` is absurd: 4294967295");
    let yarn = small_gguf().str("llama.rope.scaling.type", "yarn");
    insta::assert_snapshot!(gguf_error(yarn), @"DIR/model.gguf: rope scaling `yarn` is not supported; supported: none, linear, a tensor `rope_freqs.weight`");
    let experts = small_gguf().u32("llama.expert_count", 8);
    insta::assert_snapshot!(gguf_error(experts), @"DIR/model.gguf: metadata `llama.expert_count` is not supported; supported: models without it");
    let by_layer = small_gguf().i32s("llama.attention.head_count_kv", &[1, 2]);
    insta::assert_snapshot!(gguf_error(by_layer), @"DIR/model.gguf: metadata `llama.attention.head_count_kv` is not one whole number below 2^32");
    let partial = small_gguf().u32("llama.rope.dimension_count", 8);
    insta::assert_snapshot!(gguf_error(partial), @"DIR/model.gguf: metadata `llama.rope.dimension_count` 8 is not supported; supported: the head dimension, 16");
    let divisors = small_gguf().f32_tensor("rope_freqs.weight", &[7]);
    insta::assert_snapshot!(gguf_error(divisors), @"DIR/model.gguf: 7 rope frequencies for heads of 16");
}

#[test]
fn gguf_tensors() {
    let missing = small_gguf().without_tensor("blk.0.attn_q.weight");
    insta::assert_snapshot!(gguf_error(missing), @"DIR/model.gguf: tensor `blk.0.attn_q.weight` is missing");
    let shape = small_gguf().f32_tensor("blk.0.attn_k.weight", &[32, 32]);
    insta::assert_snapshot!(gguf_error(shape), @"DIR/model.gguf: tensor `blk.0.attn_k.weight` has shape [32, 32], but the configuration implies [16, 32]");
    let q2_k = small_gguf().tensor("blk.0.ffn_up.weight", &[32, 32], 10, 32);
    insta::assert_snapshot!(gguf_error(q2_k), @"DIR/model.gguf: tensor `blk.0.ffn_up.weight` has unknown dtype `Q2_K`; known: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K");
    let unheard_of = small_gguf().tensor("blk.0.ffn_up.weight", &[32, 32], 99, 32);
    insta::assert_snapshot!(gguf_error(unheard_of), @"DIR/model.gguf: tensor `blk.0.ffn_up.weight` has unknown dtype `ggml type 99`; known: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K");
    let blocks = small_gguf().tensor("blk.0.ffn_up.weight", &[32, 32], 12, 32);
    insta::assert_snapshot!(gguf_error(blocks), @"DIR/model.gguf: tensor `blk.0.ffn_up.weight`: [32, 32] is not a shape of q4_k");
    let past_end = small_gguf().tensor("zzz", &[1 << 40], 0, 0);
    insta::assert_snapshot!(gguf_error(past_end), @"DIR/model.gguf: tensor `zzz`: its 4398046511104 bytes at offset 25984 reach past the end of the file (27456 bytes); is the file complete?");
    let overflow = small_gguf().tensor("zzz", &[1 << 40, 1 << 40], 0, 0);
    insta::assert_snapshot!(gguf_error(overflow), @"DIR/model.gguf: tensor `zzz`: [1099511627776, 1099511627776] is not a shape of f32");
    let flat = small_gguf().tensor("zzz", &[], 0, 0);
    insta::assert_snapshot!(gguf_error(flat), @"DIR/model.gguf: tensor `zzz` has 0 dimensions; 1 to 4 are possible");
}

#[test]
fn gguf_tokenizers() {
    let model = small_gguf().str("tokenizer.ggml.model", "bert");
    insta::assert_snapshot!(gguf_error(model), @"DIR/model.gguf: unknown tokenizer model `bert`; known: gpt2, llama");
    let pre = small_gguf().str("tokenizer.ggml.pre", "nonsense");
    insta::assert_snapshot!(gguf_error(pre), @"DIR/model.gguf: unknown pre-tokenizer `nonsense`; known: default, gpt-2, phi-2, mpt, olmo, jais, exaone4, smollm, starcoder, refact, command-r, codeshell, exaone, minerva-7b, llama-bpe, llama3, llama-v3, falcon3, pixtral, dbrx, smaug-bpe, chatglm-bpe, qwen2, deepseek-r1-qwen, megrez, stablelm2, hunyuan, tekken, gpt-4o, llama4, kanana2, seed-coder, deepseek-v3, deepseek-coder");
    let merges = small_gguf().without("tokenizer.ggml.merges");
    insta::assert_snapshot!(gguf_error(merges), @"DIR/model.gguf: metadata `tokenizer.ggml.merges` is missing");
    let merge = small_gguf().strs("tokenizer.ggml.merges", &["ab"]);
    insta::assert_snapshot!(gguf_error(merge), @r#"DIR/model.gguf: merge "ab" in `tokenizer.ggml.merges` is not two tokens that make a third"#);
    let unknown_part = small_gguf().strs("tokenizer.ggml.merges", &["x y"]);
    insta::assert_snapshot!(gguf_error(unknown_part), @r#"DIR/model.gguf: merge "x y" in `tokenizer.ggml.merges` is not two tokens that make a third"#);
    let types = small_gguf().i32s("tokenizer.ggml.token_type", &[1]);
    insta::assert_snapshot!(gguf_error(types), @"DIR/model.gguf: 1 token types for 8 tokens");
    let spm = small_gguf().str("tokenizer.ggml.model", "llama");
    insta::assert_snapshot!(gguf_error(spm.clone()), @"DIR/model.gguf: metadata `tokenizer.ggml.scores` is missing");
    let scores = spm.f32s("tokenizer.ggml.scores", &[f32::NAN; 8]);
    insta::assert_snapshot!(gguf_error(scores), @"DIR/model.gguf: `tokenizer.ggml.scores` holds NaN");
}
