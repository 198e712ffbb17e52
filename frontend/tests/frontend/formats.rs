//! What the readers make of each committed model: description, weights, text files.

use crate::fixtures::{copy_tiny, import, import_tiny, small_gguf, tiny};
use std::borrow::Cow;
use std::fs;
use waveloom_frontend::{ImportOptions, Imported, RopeScaling};
use waveloom_ir::{DType, Dim, Weights};

fn weight<'a>(model: &'a Imported, name: &str) -> (DType, Cow<'a, [u8]>) {
    let mut declared = model.module.weights.iter();
    let declared = declared.find(|weight| weight.name == name).unwrap();
    (declared.ty.dtype, model.weights.bytes(name).unwrap())
}

fn as_f32s(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let bytes = waveloom_ir::storage::convert(dtype, DType::F32, bytes).unwrap();
    let (values, _) = bytes.as_chunks();
    values.iter().map(|&v| f32::from_le_bytes(v)).collect()
}

#[test]
fn descriptions_follow_the_configurations() {
    let llama = import_tiny("llama").info;
    assert_eq!((llama.name.as_str(), llama.vocab), ("llama", 320));
    assert_eq!((llama.max_context, llama.stop_tokens), (128, vec![2]));
    let config = llama.config;
    let heads = (config.heads, config.kv_heads, config.head_dim);
    assert_eq!(heads, (4, 2, 16));
    assert_eq!((config.hidden, config.intermediate, config.layers()), (64, 96, 2));
    assert!(!config.qkv_bias && !config.qk_norm && !config.tied_embeddings);
    assert_eq!((config.rope.theta, config.rope.scaling), (10000.0, RopeScaling::None));

    let llama3 = import_tiny("llama3").info.config;
    assert!(llama3.tied_embeddings && llama3.qkv_bias && llama3.o_bias && llama3.mlp_bias);
    assert!(matches!(llama3.rope.scaling, RopeScaling::Llama3(_)));

    let mistral = import_tiny("mistral").info.config;
    assert_eq!((mistral.head_dim, mistral.windows), (32, vec![Some(10); 2]));
    assert_eq!(mistral.rope.scaling, RopeScaling::Linear { factor: 2.0 });

    let qwen2 = import_tiny("qwen2").info;
    assert!(qwen2.config.qkv_bias && !qwen2.config.o_bias);
    assert_eq!(qwen2.config.windows, [None, None]);
    assert_eq!((qwen2.config.kv_heads, qwen2.stop_tokens), (1, vec![0, 2]));

    let qwen3 = import_tiny("qwen3").info;
    assert!(qwen3.config.qk_norm && !qwen3.config.qkv_bias);
    assert_eq!(qwen3.config.windows, [None, Some(12)]);
    assert_eq!(qwen3.architecture, "Qwen3ForCausalLM");
}

#[test]
fn gguf_gives_the_description_of_the_original() {
    for name in ["llama", "llama3", "qwen2", "qwen3"] {
        let original = import_tiny(name).info;
        let mut gguf = import_tiny(&format!("gguf/{name}.gguf")).info;
        if name == "llama3" {
            // Stored as the divisors that the scaling comes to.
            let (a, b) = (&original.config.rope, &gguf.config.rope);
            for (a, b) in a.inv_freq(16).iter().zip(b.inv_freq(16)) {
                assert!((a - b).abs() <= 2.0 * f32::EPSILON * a);
            }
            gguf.config.rope = original.config.rope.clone();
        }
        assert_eq!(original.config, gguf.config, "{name}");
        assert_eq!(original.architecture, gguf.architecture);
        assert_eq!(gguf.name, format!("Tiny {}", if name == "llama3" { "llama" } else { name }));
    }
}

/// Row permutation undone, names mapped: the weights are equal bit by bit.
#[test]
fn gguf_gives_the_weights_of_the_original() {
    for name in ["llama", "llama3", "qwen2", "qwen3"] {
        let original = import_tiny(name);
        let gguf = import_tiny(&format!("gguf/{name}.gguf"));
        assert_eq!(original.module.weights.len(), gguf.module.weights.len());
        for (a, b) in original.module.weights.iter().zip(&gguf.module.weights) {
            assert_eq!(a.name, b.name);
            assert_eq!(a.ty.shape, b.ty.shape);
            if a.name == "rope.inv_freq" {
                continue;
            }
            let (a_type, a_bytes) = weight(&original, &a.name);
            let (b_type, b_bytes) = weight(&gguf, &a.name);
            let (a_values, b_values) = (as_f32s(a_type, &a_bytes), as_f32s(b_type, &b_bytes));
            assert_eq!(a_values, b_values, "{name}: {}", a.name);
        }
    }
}

#[test]
fn weights_have_the_bytes_that_their_types_imply() {
    let names =
        ["llama", "llama3", "mistral", "qwen2", "qwen3", "gguf/llama3.gguf", "gguf/mixed.gguf"];
    for name in names {
        let model = import_tiny(name);
        for declared in &model.module.weights {
            assert_eq!(declared.stored, declared.ty.dtype);
            let extent = |dim| match dim {
                Dim::Const(extent) => extent,
                Dim::Symbol(_) => panic!("a weight has constant extents"),
            };
            let bytes = model.weights.bytes(&declared.name).unwrap();
            assert_eq!(Some(bytes.len() as u64), declared.ty.bytes(extent));
        }
        assert!(model.weights.bytes("no such weight").is_none());
    }
}

#[test]
fn weights_are_mapped_not_copied() {
    let borrowed =
        |model: &Imported, name| matches!(model.weights.bytes(name), Some(Cow::Borrowed(_)));
    let q = "model.layers.0.self_attn.q_proj.weight";
    assert!(borrowed(&import_tiny("llama"), q));
    assert!(borrowed(&import_tiny("gguf/qwen2.gguf"), q));
    let gguf = import_tiny("gguf/llama.gguf");
    assert!(!borrowed(&gguf, q), "its rows are in another order in the file");
    assert!(borrowed(&gguf, "model.layers.0.self_attn.v_proj.weight"));
}

#[test]
fn text_files_are_read() {
    let llama = import_tiny("llama");
    let template = llama.chat_template.unwrap();
    assert!(template.starts_with("{% for message in messages %}"));
    insta::assert_snapshot!(
        serde_json::to_string(&llama.generation_config).unwrap(),
        @r#"{"stop_tokens":[2],"special_tokens":{"bos_token":"<|im_start|>","eos_token":"<|im_end|>"},"temperature":0.7,"top_k":20}"#
    );
    // Named templates, of which the default counts; special tokens as objects.
    let qwen2 = import_tiny("qwen2");
    assert_eq!(qwen2.chat_template.as_ref(), Some(&template));
    assert_eq!(qwen2.generation_config.special_tokens.eos_token.as_deref(), Some("<|im_end|>"));
    assert_eq!(qwen2.generation_config.stop_tokens, [0, 2]);
    let gguf = import_tiny("gguf/llama.gguf");
    assert_eq!(gguf.chat_template, Some(template));
    assert_eq!(gguf.generation_config.stop_tokens, [0, 2]);
}

#[test]
fn a_template_file_counts_before_the_configuration() {
    let directory = copy_tiny("llama");
    fs::write(directory.path().join("chat_template.jinja"), "{{ messages }}").unwrap();
    let model = import(directory.path()).unwrap();
    assert_eq!(model.chat_template.as_deref(), Some("{{ messages }}"));
}

#[test]
fn text_files_need_not_be_there() {
    let directory = copy_tiny("qwen3");
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    let model = import(directory.path()).unwrap();
    assert!(model.tokenizer_json.is_none() && model.chat_template.is_none());
    // `config.json` names the stop token, too.
    assert_eq!(model.generation_config.stop_tokens, [2]);
}

#[test]
fn the_context_is_the_callers_choice_within_the_models() {
    let of = |max_context, prefill_chunk| {
        let options = ImportOptions { max_context, prefill_chunk, ..ImportOptions::default() };
        waveloom_frontend::import(&tiny("llama"), options)
    };
    let extents = |model: Imported| -> Vec<u64> {
        let symbols = model.module.symbols.iter();
        symbols.map(|symbol| symbol.max).collect()
    };
    assert_eq!(extents(of(None, 512).unwrap()), [128, 128, 128]);
    assert_eq!(extents(of(Some(64), 16).unwrap()), [16, 64, 64]);
    insta::assert_snapshot!(of(Some(129), 16).err().unwrap(), @"a context of 129 tokens is more than the model's 128");
    assert!(of(Some(0), 16).is_err() && of(None, 0).is_err());
}

/// A name becomes an identifier of the text form.
#[test]
fn odd_names_become_identifiers() {
    let directory = tempfile::tempdir().unwrap();
    let named = |name: &str| {
        let path = small_gguf().str("general.name", name).write(directory.path());
        let model = import(&path).unwrap();
        assert_eq!(model.info.name, name);
        model.module.name
    };
    assert_eq!(named("Llama 3.2 / 1B"), "Llama_3.2___1B");
    assert_eq!(named("7B"), "model_7B");
}
