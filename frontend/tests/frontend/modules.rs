//! The module that is made of a description.

use crate::fixtures::{import, import_tiny, small_gguf};
use waveloom_ir::{DType, Dim, Function, Module, Op, Phase, Type, Weights, gate, verify};

fn function<'m>(module: &'m Module, name: &str) -> &'m Function {
    let id = module.function(name).unwrap();
    &module.functions[id.index()]
}

const MODELS: &[&str] =
    &["llama", "llama3", "mistral", "qwen2", "qwen3", "gguf/llama.gguf", "gguf/mixed.gguf"];

#[test]
fn modules_are_valid_and_hold_tensor_ops_only() {
    for name in MODELS {
        let module = import_tiny(name).module;
        assert_eq!(gate(&module, Phase::Tensor), Ok(()), "{name}");
        assert!(verify(module).is_ok(), "{name}");
    }
}

#[test]
fn step_has_the_signature_of_the_contract() {
    let module = import_tiny("mistral").module;
    let names: Vec<&str> = module.symbols.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["T", "S", "C"]);
    let [t, _, c] = ["T", "S", "C"].map(|name| Dim::Symbol(module.symbol(name).unwrap()));
    let step = function(&module, "step");
    let name = |i: usize| step.values[i].name.as_deref().unwrap();
    let params: Vec<&str> = (0..step.params.len()).map(name).collect();
    let caches = ["k_cache.0", "v_cache.0", "k_cache.1", "v_cache.1"];
    assert_eq!(params[..3], ["tokens", "positions", "last"]);
    assert_eq!(params[3..], caches);
    let cache = Type::f32([c, Dim::Const(2), Dim::Const(32)]);
    let i32s = |len| Type::new(DType::I32, [len]);
    let types: Vec<&Type> = step.param_types().collect();
    assert_eq!(types[..3], [&i32s(t), &i32s(t), &i32s(Dim::Const(1))]);
    assert!(types[3..].iter().all(|ty| **ty == cache));
    let results: Vec<&Type> = step.result_types().collect();
    assert_eq!(*results[0], Type::f32([Dim::Const(1), Dim::Const(320)]));
    assert!(results.len() == 5 && results[1..].iter().all(|ty| **ty == cache));
}

/// Names of the functions that `@step` calls, in order.
fn calls(module: &Module) -> Vec<&str> {
    let insts = function(module, "step").insts.iter();
    insts
        .filter_map(|inst| match inst.op {
            Op::Call { func } => Some(module.functions[func.index()].name.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn layers_of_equal_structure_share_a_function() {
    assert_eq!(calls(&import_tiny("llama").module), ["layer", "layer"]);
    // The second layer has a window.
    assert_eq!(calls(&import_tiny("qwen3").module), ["layer", "layer.1"]);
    // The second layer's down projection has another type.
    assert_eq!(calls(&import_tiny("gguf/mixed.gguf").module), ["layer", "layer.1"]);
}

#[test]
fn a_window_that_the_context_never_outgrows_is_no_window() {
    let options = waveloom_frontend::ImportOptions {
        max_context: Some(12),
        prefill_chunk: 8,
        ..Default::default()
    };
    let path = crate::fixtures::tiny("qwen3");
    let model = waveloom_frontend::import(&path, options).unwrap();
    assert_eq!(calls(&model.module), ["layer", "layer"]);
}

/// A weight is declared in the form it is stored in, under the name it has in Hugging Face
/// checkpoints.
#[test]
fn stored_types_are_kept() {
    let module = import_tiny("gguf/mixed.gguf").module;
    let dtype = |name: &str| {
        let weight = module.weights.iter().find(|weight| weight.name == name);
        weight.unwrap().ty.dtype
    };
    assert_eq!(dtype("model.embed_tokens.weight"), DType::Q8_0);
    assert_eq!(dtype("model.layers.0.self_attn.q_proj.weight"), DType::Q4_0);
    assert_eq!(dtype("model.layers.0.self_attn.k_proj.weight"), DType::Q5_1);
    assert_eq!(dtype("model.layers.1.self_attn.o_proj.weight"), DType::Q5_0);
    assert_eq!(dtype("model.layers.1.mlp.gate_proj.weight"), DType::Q4_1);
    assert_eq!(dtype("model.layers.0.mlp.down_proj.weight"), DType::Q8_0);
    assert_eq!(dtype("model.layers.1.mlp.down_proj.weight"), DType::F16);
    assert_eq!(dtype("model.norm.weight"), DType::F32);
    assert_eq!(dtype("rope.inv_freq"), DType::F32);
}

/// The block types that the committed files do not have.
#[test]
fn k_quants_are_kept_as_stored() {
    let directory = tempfile::tempdir().unwrap();
    for (kind, dtype) in [(12, DType::Q4_K), (13, DType::Q5_K), (14, DType::Q6_K)] {
        let name = "blk.0.ffn_down.weight";
        let bytes = 32 * dtype.block_bytes();
        let path = small_gguf()
            .u32("llama.feed_forward_length", 256)
            .f32_tensor("blk.0.ffn_gate.weight", &[256, 32])
            .f32_tensor("blk.0.ffn_up.weight", &[256, 32])
            .tensor(name, &[32, 256], kind, bytes)
            .write(directory.path());
        let model = import(&path).unwrap();
        let name = "model.layers.0.mlp.down_proj.weight";
        let weight = model.module.weights.iter().find(|weight| weight.name == name);
        assert_eq!(weight.unwrap().ty.dtype, dtype);
        assert_eq!(model.weights.bytes(name).unwrap().len() as u64, bytes);
    }
}

/// What is printed reads back.
#[test]
fn modules_have_a_text() {
    for name in MODELS {
        let module = import_tiny(name).module;
        let text = module.to_string();
        assert_eq!(waveloom_ir::text::parse(&text).as_ref(), Ok(&module), "{name}");
    }
}

#[test]
fn imports_are_equal_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = small_gguf().write(directory.path());
    let [a, b] = [(), ()].map(|()| import(&path).unwrap());
    assert!(a.module == b.module && a.tokenizer_json == b.tokenizer_json);
}
