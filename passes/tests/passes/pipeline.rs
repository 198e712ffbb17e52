//! The whole pipeline on tiny models of every architecture, as the front end makes them.

use crate::oracle::assert_same_function;
use std::path::{Path, PathBuf};
use waveloom_frontend::{ImportOptions, Imported, import};
use waveloom_ir::{DType, Family, Module, Phase, gate};
use waveloom_passes::{
    PASSES, PassError, PassOptions, WeightDtype, check_memory, plan_memory, run_pipeline, schedule,
};

/// Raising writes sums and products in other orders; in f64, over the few thousand operations of
/// these models, that stays far below this.
const TOLERANCE: f64 = 1e-9;

const MODELS: &[&str] =
    &["llama", "llama3", "mistral", "qwen2", "qwen3", "gguf/llama.gguf", "gguf/mixed.gguf"];

fn model(name: &str) -> Imported {
    let tiny: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny");
    let options = ImportOptions { max_context: Some(24), prefill_chunk: 4, ..Default::default() };
    import(&tiny.join(name), options).expect("a fixture can be imported")
}

fn compiled(module: &Module, dtype: WeightDtype) -> Module {
    let options = PassOptions { dtype, ..PassOptions::default() };
    let mut names = vec![];
    let after = run_pipeline(module.clone(), &options, &mut |event| {
        names.push(event.pass.name);
        Ok(())
    });
    let after = after.expect("the pipeline succeeds");
    assert!(names.iter().eq(PASSES.iter().map(|pass| &pass.name)));
    after
}

#[test]
fn layers_are_five_kernels() {
    for name in MODELS {
        let module = compiled(&model(name).module, WeightDtype::Keep);
        assert_eq!(gate(&module, Phase::Macro), Ok(()));
        for function in module.functions.iter().filter(|f| f.name.starts_with("layer")) {
            let kernels = function.insts.iter().filter(|i| i.op.family() == Family::Macro);
            let names: Vec<&str> = kernels.map(|inst| inst.op.mnemonic()).collect();
            assert_eq!(names, ["gemm", "attention", "gemm", "gemm", "gemm"], "{name}");
            assert_eq!(function.insts.len(), 5, "{name}: nothing else is left");
        }
        let step = &module.functions[module.function("step").expect("@step").index()];
        let kernels = step.insts.iter().filter(|i| i.op.family() == Family::Macro);
        let names: Vec<&str> = kernels.map(|inst| inst.op.mnemonic()).collect();
        assert_eq!(names, ["embed", "map", "map", "embed", "gemm"], "{name}");
    }
}

#[test]
fn steps_keep_their_values() {
    for name in MODELS {
        let imported = model(name);
        let before = &imported.module;
        // f32, so that the KV cache is not rounded to f16.
        let after = compiled(before, WeightDtype::Convert(DType::F32));
        assert_same_function(before, &after, &imported.weights, "step", TOLERANCE);
    }
}

#[test]
fn arenas_are_close_to_their_lower_bound() {
    for name in MODELS {
        for dtype in [WeightDtype::Keep, WeightDtype::Convert(DType::F32)] {
            let module = compiled(&model(name).module, dtype);
            let schedule = schedule(&module).expect("a schedule");
            let plan = plan_memory(&module, &schedule).expect("a plan");
            assert_eq!(check_memory(&schedule, &module, &plan), Ok(()));
            assert!(plan.ratio() <= 1.10, "{name}: {} of {}", plan.peak, plan.lower_bound);
        }
    }
}

#[test]
fn the_observer_can_stop_a_run() {
    let stop = PassError::Unsupported { pass: "simplify", problem: "enough".into() };
    let mut seen = 0;
    let result = run_pipeline(model("llama").module, &PassOptions::default(), &mut |event| {
        seen += 1;
        if event.pass.name == "simplify" { Err(stop.clone()) } else { Ok(()) }
    });
    assert_eq!((result, seen), (Err(stop.clone()), 2));
}

#[test]
fn what_no_rule_raises_is_named() {
    let text = "module @m {
        symbol T in 1..=4
        func @f(%x: f32[T, 8]) -> (f32[T, 8]) {
            %y = dequantize %x : f32[T, 8]
            %0 = transpose %x {perm = [1, 0]} : f32[8, T]
            %1 = concat %0, %0 {axis = 0} : f32[16, T]
            %2 = slice %1 {axis = 0, start = 4, len = 8} : f32[8, T]
            %3 = transpose %2 {perm = [1, 0]} : f32[T, 8]
            %4 = add %3, %y : f32[T, 8]
            return %4
        }
    }";
    let module = waveloom_ir::parse(text).expect("well formed");
    let error = run_pipeline(module, &PassOptions::default(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, PassError::Gate { pass: "raise", .. }), "{error}");
}

#[test]
fn invalid_modules_are_refused() {
    let mut module = model("llama").module;
    module.functions[0].results.pop();
    let error = run_pipeline(module, &PassOptions::default(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, PassError::InvalidInput(_)), "{error}");
}
