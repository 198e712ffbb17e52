//! The passes that choose types: `convert-weights`, `choose-layouts`; and `wrap-decode-loop`.

use crate::fuse::run;
use crate::model::{Config, Matrix, build, llama};
use waveloom_ir::{DType, Layout, Module, Op};
use waveloom_passes::{PassError, PassOptions, TargetLayout, WeightDtype, find_pass, run_passes};

fn convert(stored: DType, dtype: WeightDtype) -> Module {
    let module = build(Config { matrix: Matrix(stored), ..llama() });
    let options = PassOptions { dtype, ..PassOptions::default() };
    let pass = find_pass("convert-weights").expect("a known pass");
    run_passes([pass], module, &options, &mut |_| Ok(())).expect("the pass succeeds")
}

/// Dtype of a matrix of the layers and of the cache that layer and step declare once caches are chosen.
fn dtypes(module: &Module) -> (DType, DType) {
    let module = run(&["choose-layouts"], module.clone());
    let gate = |w: &&waveloom_ir::Weight| w.name == "layers.1.gate_proj";
    let gate = module.weights.iter().find(gate).expect("a weight");
    let param = |function: usize, name: &str| {
        let function = &module.functions[function];
        let mut values = function.values.iter();
        let value = values.find(|v| v.name.as_deref() == Some(name));
        value.expect("a parameter").ty.dtype
    };
    assert_eq!(param(0, "gate_proj"), gate.ty.dtype);
    assert_eq!(param(0, "k_cache"), param(1, "v_cache.1"));
    (gate.ty.dtype, param(0, "k_cache"))
}

#[test]
fn keep_takes_the_nearest_form_that_kernels_multiply() {
    use DType::*;
    for (stored, expected) in [
        (F32, F32),
        (F16, F16),
        (BF16, BF16),
        (F8E4M3, F16),
        (Q8_0, Q8_0),
        (Q4_0, Q4_0),
        (Q4_1, Q4_1),
        (Q5_0, Q8_0),
        (Q5_1, Q8_0),
    ] {
        let cache = if expected == F32 { F32 } else { F16 };
        let module = convert(stored, WeightDtype::Keep);
        assert_eq!(dtypes(&module), (expected, cache), "{stored}");
        let mut vectors = module.weights.iter().filter(|w| w.ty.rank() == 1);
        assert!(vectors.all(|w| w.ty.dtype == F32));
        assert!(module.weights.iter().all(|w| w.ty.rank() == 1 || w.stored == stored));
    }
}

#[test]
fn conversion_reaches_every_matrix_and_cache() {
    for &dtype in WeightDtype::CONVERTIBLE {
        let module = convert(DType::BF16, WeightDtype::Convert(dtype));
        let cache = if dtype == DType::F32 { DType::F32 } else { DType::F16 };
        assert_eq!(dtypes(&module), (dtype, cache));
        let mut matrices = module.weights.iter().filter(|w| w.ty.rank() == 2);
        assert!(matrices.all(|w| w.ty.dtype == dtype && w.stored == DType::BF16));
    }
}

#[test]
fn other_dtypes_cannot_be_asked_for() {
    assert_eq!(WeightDtype::parse("q5_0"), None);
    assert_eq!(WeightDtype::parse("keep"), Some(WeightDtype::Keep));
    assert_eq!(WeightDtype::parse("q8_0"), Some(WeightDtype::Convert(DType::Q8_0)));
}

fn eight_lanes() -> TargetLayout {
    TargetLayout { keys: Layout::PositionLanes(8), ..TargetLayout::default() }
}

#[test]
fn caches_get_their_layouts_everywhere() {
    for module in [
        build(llama()),
        run(&["fuse-gemm-inputs", "fuse-prologue", "fuse-epilogue"], build(llama())),
    ] {
        let options = PassOptions { layout: eight_lanes(), ..PassOptions::default() };
        let pass = find_pass("choose-layouts").expect("a known pass");
        let module = run_passes([pass], module, &options, &mut |_| Ok(())).expect("succeeds");
        for function in &module.functions {
            for value in &function.values {
                let cache = value.ty.rank() == 3
                    && value.ty.shape[0] == module.symbol("C").expect("C").into();
                let chosen = value.ty.layout != Layout::RowMajor;
                assert_eq!(cache, chosen, "{value:?}");
            }
            let layouts = function.values.iter().map(|v| v.ty.layout);
            let keys = layouts.clone().filter(|&l| l == Layout::PositionLanes(8));
            let values = layouts.filter(|&l| l == Layout::HeadMajor);
            assert_eq!(keys.count(), values.count());
        }
        let layer = &module.functions[0];
        assert_eq!(layer.ty(layer.params[4]).layout, Layout::PositionLanes(8));
        assert_eq!(layer.ty(layer.params[5]).layout, Layout::HeadMajor);
    }
}

#[test]
fn the_loop_is_added_once() {
    let options = PassOptions { stop_tokens: vec![2, 7], ..PassOptions::default() };
    let wrap = || find_pass("wrap-decode-loop").expect("a known pass");
    let module = run_passes([wrap()], build(llama()), &options, &mut |_| Ok(())).expect("succeeds");
    let generate = &module.functions[module.function("generate").expect("@generate").index()];
    let [Op::DecodeLoop { attr }] =
        &generate.insts.iter().map(|i| i.op.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("one decode_loop, found {:?}", generate.insts);
    };
    assert_eq!(attr.stop_tokens, [2, 7]);
    assert_eq!(Some(attr.step), module.function("step"));
    let again = run_passes([wrap()], module, &options, &mut |_| Ok(()));
    assert_eq!(
        again.unwrap_err().to_string(),
        "pass `wrap-decode-loop`: the module already has a function @generate"
    );
    let empty = run_passes([wrap()], Module::new("empty"), &options, &mut |_| Ok(()));
    assert_eq!(
        empty.unwrap_err().to_string(),
        "pass `wrap-decode-loop`: the module has no function @step to loop over"
    );
}

#[test]
fn unknown_passes_are_named() {
    let Err(error) = find_pass("fuse-all") else {
        panic!("no pass is called fuse-all");
    };
    assert!(matches!(error, PassError::UnknownPass { .. }));
    assert!(
        error.to_string().starts_with("unknown pass `fuse-all`; the passes are convert-weights, ")
    );
}
