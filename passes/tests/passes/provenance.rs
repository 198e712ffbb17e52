//! Which imported instructions each macro-op was made of, over the whole pipeline.

use std::collections::BTreeMap;
use std::path::Path;
use waveloom_frontend::{ImportOptions, import};
use waveloom_ir::{DType, Function, InstId, Module, Op};
use waveloom_passes::{PassOptions, Provenance, run_pipeline};

/// A tiny model before and after the passes, with what was followed in between.
fn followed(name: &str) -> (Module, Module, Provenance) {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny");
    let options = ImportOptions { max_context: Some(24), prefill_chunk: 4, ..Default::default() };
    let before = import(&tiny.join(name), options).expect("a fixture can be imported").module;
    let mut provenance = Provenance::new(&before);
    let after = run_pipeline(before.clone(), &PassOptions::default(), &mut |event| {
        provenance.follow(&event);
        Ok(())
    });
    (before, after.expect("the pipeline succeeds"), provenance)
}

fn function<'m>(module: &'m Module, name: &str) -> &'m Function {
    &module.functions[module.function(name).expect("it is there").index()]
}

/// For each instruction after the passes: its op, and how often it has each imported op.
fn made_of(model: &str, name: &str) -> Vec<(&'static str, BTreeMap<&'static str, usize>)> {
    let (before, after, provenance) = followed(model);
    let (before, after) = (function(&before, name), function(&after, name));
    let origins = provenance.origins(after);
    let counted = after.insts.iter().zip(origins).map(|(inst, origins)| {
        let mut ops = BTreeMap::new();
        for origin in origins {
            *ops.entry(before.insts[origin.index()].op.mnemonic()).or_insert(0) += 1;
        }
        (inst.op.mnemonic(), ops)
    });
    counted.collect()
}

#[test]
fn a_layers_macro_ops_name_the_tensor_ops_that_they_were_made_of() {
    for model in ["llama", "llama3", "mistral"] {
        let made = made_of(model, "layer");
        let products: Vec<_> =
            made.iter().map(|(op, of)| (*op, of.get("matmul").copied())).collect();
        // q, k, v; scores and values; the output; gate and up; down.
        let expected = [("gemm", 3), ("attention", 2), ("gemm", 1), ("gemm", 2), ("gemm", 1)];
        assert_eq!(products, expected.map(|(op, count)| (op, Some(count))), "{model}");
        let has = |at: usize, op: &str| made[at].1.contains_key(op);
        assert!(has(0, "cache_append") && has(0, "rsqrt"), "{model}: norm and caches: {made:?}");
        assert!(has(1, "exp") && !has(1, "cache_append"), "{model}: softmax: {made:?}");
        assert!(has(2, "add") && !has(2, "exp") && !has(2, "rsqrt"), "{model}: {made:?}");
        assert!(has(3, "rsqrt") && has(3, "sigmoid"), "{model}: {made:?}");
        assert!(has(4, "add") && !has(4, "sigmoid"), "{model}: {made:?}");
    }
}

/// Nothing that a layer computes gets lost: every imported instruction is in some macro-op, but for
/// what simplification found to do nothing.
#[test]
fn every_instruction_that_does_something_is_in_a_macro_op() {
    for model in ["llama", "llama3", "mistral", "qwen2", "qwen3"] {
        let (before, after, provenance) = followed(model);
        let (before, after) = (function(&before, "layer"), function(&after, "layer"));
        let origins = provenance.origins(after);
        for (index, inst) in before.insts.iter().enumerate() {
            let id = InstId(index as u32);
            let owners = origins.iter().filter(|origins| origins.contains(&id)).count();
            let idle = match inst.op {
                Op::Reshape { .. } | Op::Transpose { .. } | Op::Broadcast { .. } => true,
                Op::Constant { .. } => true,
                // Nothing to do where it is f32, which vectors become before anything reads them.
                Op::Dequantize {} => {
                    let ty = before.ty(inst.operands[0]);
                    ty.dtype == DType::F32 || ty.shape.len() == 1
                }
                _ => false,
            };
            assert!(owners > 0 || idle, "{model}: instruction {index}, {}", inst.op.mnemonic());
        }
    }
}

/// A function that no pass rewrites is what it was; one that a pass makes has no origins.
#[test]
fn functions_that_were_not_imported_come_from_nothing() {
    let (_, after, provenance) = followed("llama");
    let generate = function(&after, "generate");
    let origins = provenance.origins(generate);
    assert_eq!(origins.len(), generate.insts.len());
    assert!(origins.iter().all(|origins| origins.is_empty()));
    let (before, _, _) = followed("llama");
    let step = function(&before, "step");
    let own = Provenance::new(&before).origins(step);
    assert!(
        own.iter().enumerate().all(|(at, of)| of.len() == 1 && of.iter().all(|o| o.index() == at))
    );
}
