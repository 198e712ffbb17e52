//! The fusion passes.

use crate::model::{Config, build, gemm, llama, qwen2, qwen3};
use crate::oracle::assert_same;
use proptest::prelude::*;
use waveloom_ir::{
    AttentionAttr, BinaryOp, DType, Dim, Expr, F32, Function, FunctionBuilder, Module, Op, Type,
    UnaryOp, ValueId,
};
use waveloom_passes::{PassOptions, find_pass, run_passes};

const FUSION: [&str; 4] = ["fuse-map", "fuse-gemm-inputs", "fuse-prologue", "fuse-epilogue"];

/// Runs passes by name.
pub fn run(passes: &[&str], module: Module) -> Module {
    let passes = passes.iter().map(|name| find_pass(name).expect("a known pass"));
    run_passes(passes, module, &PassOptions::default(), &mut |_| Ok(())).expect("passes succeed")
}

/// The ops of a function that become kernels, in order, each with what its outputs are.
fn kernels(function: &Function) -> Vec<String> {
    let kernel = |op: &Op| match op {
        Op::Weight { .. } | Op::Call { .. } | Op::Reshape { .. } => None,
        Op::Gemm { attr } => {
            let prologue = attr.prologue.map_or("", |_| " norm");
            let outputs = attr.outputs.iter().map(|o| format!(" {} {:?}", o.expr, o.store));
            Some(format!("gemm{prologue}{}", outputs.collect::<String>()))
        }
        Op::Map { expr } => Some(format!("map {expr}")),
        op => Some(op.mnemonic().to_string()),
    };
    function.insts.iter().filter_map(|i| kernel(&i.op)).collect()
}

fn fused(config: Config) -> Module {
    run(&FUSION, build(config))
}

#[test]
fn layers_become_five_kernels() {
    insta::assert_debug_snapshot!("llama_layer", kernels(&fused(llama()).functions[0]));
    insta::assert_debug_snapshot!("qwen2_layer", kernels(&fused(qwen2()).functions[0]));
    insta::assert_debug_snapshot!("qwen3_layer", kernels(&fused(qwen3()).functions[0]));
    insta::assert_debug_snapshot!("step", kernels(&fused(llama()).functions[1]));
}

#[test]
fn every_fusion_keeps_the_values() {
    for config in [llama(), qwen2(), qwen3()] {
        let mut module = build(config);
        for pass in FUSION {
            let after = run(&[pass], module.clone());
            assert_same(&module, &after);
            module = after;
        }
    }
}

/// Values of a random function by shape.
#[derive(Default)]
struct Pool {
    /// `[T, 8]`.
    flat: Vec<ValueId>,
    /// `[T, 2, 4]`.
    heads: Vec<ValueId>,
    /// All versions of two caches `[C, 2, 4]`; the last is the newest.
    caches: [Vec<ValueId>; 2],
}

/// A function of random macro-ops: `choices` says which, and on what.
fn random_function(choices: &[(u8, u8, u8)]) -> Module {
    let mut module = Module::new("random");
    let t = module.add_symbol("T", 1, 4);
    let c = module.add_symbol("C", 8, 8);
    let dims = |list: &[u64]| list.iter().map(|&n| Dim::Const(n)).collect::<Vec<_>>();
    let rows = |list: &[u64]| [vec![Dim::Symbol(t)], dims(list)].concat();
    let mut b = FunctionBuilder::new(&module, "random");
    let x = b.param("x", Type::f32(rows(&[8])));
    let angles = [b.param("cos", Type::f32(rows(&[2]))), b.param("sin", Type::f32(rows(&[2])))];
    let positions = b.param("positions", Type::new(DType::I32, rows(&[])));
    let cache = Type::f32([vec![Dim::Symbol(c)], dims(&[2, 4])].concat());
    let caches = [b.param("k", cache.clone()), b.param("v", cache)];
    let matrices = [0, 1, 2].map(|i| b.param(format!("w{i}"), Type::f32(dims(&[8, 8]))));
    let vector = b.param("vector", Type::f32(dims(&[8])));
    let head_vector = b.param("head_vector", Type::f32(dims(&[4])));
    let mut pool = Pool { flat: vec![x], heads: vec![], caches: caches.map(|cache| vec![cache]) };
    let mut results = vec![];
    for &(op, first, second) in choices {
        // One of the newest three, so that chains and shared operands are common.
        let pick = |list: &[ValueId], by: u8| {
            let back = usize::from(by) % list.len().clamp(1, 3);
            list.iter().rev().nth(back).copied()
        };
        let (a, other) = (pick(&pool.flat, first), pick(&pool.flat, second));
        let (Some(a), Some(other)) = (a, other) else { continue };
        let head = pick(&pool.heads, first);
        let which = usize::from(second) % 2;
        let eps = F32(1e-5);
        let operand = Expr::Operand;
        let mut push = |op: Op, operands: &[ValueId]| b.push1(op, operands).expect("well typed");
        match (op % 12, head) {
            (0 | 1, _) => {
                let weight = matrices[usize::from(second) % 3];
                pool.flat.push(gemm(&mut b, a, weight).expect("well typed"));
            }
            (2, _) => {
                let expr = Expr::unary(UnaryOp::Tanh, operand(0));
                pool.flat.push(push(Op::Map { expr }, &[a]));
            }
            (3, _) => {
                let expr = Expr::binary(BinaryOp::Add, operand(0), operand(1));
                pool.flat.push(push(Op::Map { expr }, &[a, other]));
            }
            (4, _) => {
                let expr = Expr::binary(BinaryOp::Mul, operand(1), operand(0));
                pool.flat.push(push(Op::Map { expr }, &[a, vector]));
            }
            (5, _) => pool.flat.push(push(Op::Norm { eps }, &[a, vector])),
            (6, Some(head)) => pool.heads.push(push(Op::Rope {}, &[head, angles[0], angles[1]])),
            (7, Some(head)) => pool.heads.push(push(Op::Norm { eps }, &[head, head_vector])),
            (8, Some(head)) => {
                let shape = rows(&[8]);
                pool.flat.push(push(Op::Reshape { shape }, &[head]));
            }
            (9, Some(head)) => {
                let newest = pool.caches[which].last().copied().expect("a parameter");
                let new = push(Op::CacheAppend {}, &[newest, head, positions]);
                pool.caches[which].push(new);
            }
            (10, Some(_)) => {
                let attr = AttentionAttr {
                    heads: 2,
                    kv_heads: 2,
                    head_dim: 4,
                    scale: F32(0.5),
                    window: None,
                    softcap: None,
                };
                let k = pick(&pool.caches[0], first).expect("a parameter");
                let v = pick(&pool.caches[1], second).expect("a parameter");
                pool.flat.push(push(Op::Attention { attr }, &[a, k, v, positions]));
            }
            (11, Some(head)) => {
                let expr = Expr::unary(UnaryOp::Sigmoid, operand(0));
                pool.heads.push(push(Op::Map { expr }, &[head]));
            }
            _ => {
                let shape = rows(&[2, 4]);
                pool.heads.push(push(Op::Reshape { shape }, &[a]));
            }
        }
        // Some values in the middle are results, too.
        if second % 11 == 0 {
            results.extend(pool.flat.last());
        }
    }
    results.extend(pool.flat.last());
    results.extend(pool.heads.last());
    results.extend(pool.caches.iter().filter_map(|versions| versions.last()));
    let function = b.finish(&results);
    module.add_function(function);
    module
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    // In any order, some passes twice: each has to stand for itself.
    #[test]
    fn random_functions_keep_their_values(
        choices in prop::collection::vec(any::<(u8, u8, u8)>(), 1..40),
        order in prop::collection::vec(0usize..4, 1..8),
    ) {
        let before = random_function(&choices);
        let mut after = before.clone();
        for pass in order {
            after = run(&[FUSION[pass]], after);
        }
        assert_same(&before, &after);
    }
}
