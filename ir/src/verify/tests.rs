//! One broken module for each invariant.

use super::*;
use crate::builder::FunctionBuilder;
use crate::expr::F32;
use crate::expr::UnaryOp;
use crate::module::{SymbolId, Value, WeightId};
use crate::text::parse;

/// A module that verifies, to be broken.
fn sound() -> Module {
    parse(
        "module @m {
            symbol T in 1..=4
            weight @w : q8_0[2, 32] from bf16
            func @f(%x: f32[T, 32]) -> (f32[T, 32]) {
                %y = neg %x : f32[T, 32]
                return %y
            }
            func @g(%x: f32[T, 32]) -> (f32[T, 32]) {
                %w = weight {weight = @w} : q8_0[2, 32]
                %y = call %x {func = @f} : f32[T, 32]
                %z = map %y {expr = (neg $0)} : f32[T, 32]
                return %z
            }
        }",
    )
    .unwrap()
}

fn broken(change: impl FnOnce(&mut Module)) -> String {
    let mut module = sound();
    change(&mut module);
    verify(module).unwrap_err().to_string()
}

#[test]
fn a_sound_module_is_sealed() {
    let module = sound();
    let verified = verify(module.clone()).unwrap();
    assert_eq!(*verified, module);
    assert_eq!(verified.functions.len(), 2);
    assert_eq!(verified.into_module(), module);
}

#[test]
fn declarations() {
    insta::assert_snapshot!(broken(|m| m.symbols.push(m.symbols[0].clone())), @"symbol T: the name is taken");
    insta::assert_snapshot!(broken(|m| m.weights.push(m.weights[0].clone())), @"weight @w: the name is taken");
    insta::assert_snapshot!(broken(|m| m.functions.push(m.functions[0].clone())), @"@f: the name is taken");
    insta::assert_snapshot!(broken(|m| m.symbols[0].min = 0), @"symbol T: bounds 0..=4 are not 1 <= min <= max");
    insta::assert_snapshot!(broken(|m| m.symbols[0].max = 0), @"symbol T: bounds 1..=0 are not 1 <= min <= max");
    insta::assert_snapshot!(broken(|m| m.weights[0].ty.shape[1] = Dim::Const(31)), @"weight @w: q8_0[2, 31]: the last dimension is not whole blocks");
    insta::assert_snapshot!(broken(|m| m.weights[0].ty.shape[0] = SymbolId(0).into()), @"weight @w: the type of a weight has constant extents and no layout");
    insta::assert_snapshot!(broken(|m| m.weights[0].stored = DType::Q6_K), @"weight @w: q6_k[2, 32]: the last dimension is not whole blocks");
    insta::assert_snapshot!(broken(|m| m.weights[0].stored = DType::I32), @"weight @w: i32 cannot be converted to q8_0");
    insta::assert_snapshot!(broken(|m| m.weights[0].ty = Type::f32([Dim::Const(u64::MAX), Dim::Const(3)])), @"weight @w: f32[18446744073709551615, 3]: the size in bytes overflows");
}

#[test]
fn types() {
    let with = |ty: Type| broken(move |m| m.functions[0].values[0].ty = ty);
    insta::assert_snapshot!(with(Type::f32([SymbolId(9).into()])), @"@f, %0: names a symbol, weight or function that is not there, or not before it");
    insta::assert_snapshot!(with(Type::f32([Dim::Const(1); 9])), @"@f, %0: f32[1, 1, 1, 1, 1, 1, 1, 1, 1]: too many dimensions");
    insta::assert_snapshot!(with(Type::new(DType::Q4_0, [Dim::Const(32), SymbolId(0).into()])), @"@f, %0: q4_0[32, T]: the last dimension is not whole blocks");
    let lanes = Type { layout: Layout::PositionLanes(8), ..Type::f32([Dim::Const(4)]) };
    insta::assert_snapshot!(with(lanes), @"@f, %0: f32[4] @lanes<8>: the layout is one of caches [C, heads, head_dim]");
    insta::assert_snapshot!(with(Type::new(DType::F16, [Dim::Const(4)])), @"@f, instruction 0 (neg): `neg`: wants f32, found f16");
    insta::assert_snapshot!(with(Type::f32([Dim::Const(4)])), @"@f, instruction 0 (neg): results have types (f32[T, 32]), the op gives (f32[4])");
}

#[test]
fn values() {
    insta::assert_snapshot!(broken(|m| m.functions[0].params[0] = ValueId(1)), @"@f: values are not numbered in order of definition, each once: %0 comes next, found %1");
    insta::assert_snapshot!(broken(|m| m.functions[0].insts[0].operands[0] = ValueId(1)), @"@f, instruction 0 (neg): %1 is used before it is defined");
    insta::assert_snapshot!(broken(|m| m.functions[0].insts[0].results[0] = ValueId(0)), @"@f, instruction 0 (neg): values are not numbered in order of definition, each once: %1 comes next, found %0");
    insta::assert_snapshot!(broken(|m| m.functions[0].insts[0].results.clear()), @"@f, instruction 0 (neg): results have types (), the op gives (f32[T, 32])");
    insta::assert_snapshot!(broken(|m| m.functions[0].insts[0].results.push(ValueId(2))), @"@f, instruction 0 (neg): the function holds 2 values and defines 3");
    insta::assert_snapshot!(broken(|m| m.functions[0].results[0] = ValueId(2)), @"@f: %2 is used before it is defined");
    insta::assert_snapshot!(
        broken(|m| {
            let ty = Type::f32([]);
            m.functions[0].values.push(Value { ty, name: None });
        }),
        @"@f: the function holds 3 values and defines 2"
    );
    insta::assert_snapshot!(broken(|m| m.functions[0].insts[0].operands.clear()), @"@f, instruction 0 (neg): `neg`: takes 1 operands, found 0");
}

#[test]
fn references() {
    insta::assert_snapshot!(broken(|m| m.functions[1].insts[0].op = Op::Weight { weight: WeightId(1) }), @"@g, instruction 0 (weight): names a symbol, weight or function that is not there, or not before it");
    insta::assert_snapshot!(broken(|m| m.functions[1].insts[1].op = Op::Call { func: FuncId(1) }), @"@g, instruction 1 (call): names a symbol, weight or function that is not there, or not before it");
    insta::assert_snapshot!(broken(|m| m.functions[0].insts[0].op = Op::Iota { len: SymbolId(3).into() }), @"@f, instruction 0 (iota): names a symbol, weight or function that is not there, or not before it");
}

#[test]
fn depths() {
    let deep = |depth: usize| {
        let leaf = Expr::Operand(0);
        (1..depth).fold(leaf, |expr, _| Expr::unary(UnaryOp::Neg, expr))
    };
    let with = |depth| {
        let mut module = sound();
        module.functions[1].insts[2].op = Op::Map { expr: deep(depth) };
        check(&module)
    };
    assert_eq!(with(128), Ok(()));
    insta::assert_snapshot!(with(129).unwrap_err(), @"@g, instruction 2 (map): an expression nests more than 128 deep");

    let chain = |calls: u32| {
        let mut module = Module::new("chain");
        for i in 0..=calls {
            let mut builder = FunctionBuilder::new(&module, format!("f{i}"));
            let x = builder.param("x", Type::f32([]));
            let y = match i {
                0 => x,
                i => builder.call(FuncId(i - 1), &[x]).unwrap()[0],
            };
            let function = builder.finish(&[y]);
            module.add_function(function);
        }
        check(&module)
    };
    assert_eq!(chain(64), Ok(()));
    insta::assert_snapshot!(chain(65).unwrap_err(), @"@f65, instruction 0 (call): calls nest more than 64 deep");
}

#[test]
fn gates() {
    let tensor = parse(include_str!("../../tests/fixtures/llama.tensor.wl")).unwrap();
    let raised = parse(include_str!("../../tests/fixtures/llama.macro.wl")).unwrap();
    assert_eq!(gate(&tensor, Phase::Tensor), Ok(()));
    assert_eq!(gate(&raised, Phase::Macro), Ok(()));
    insta::assert_snapshot!(gate(&tensor, Phase::Macro).unwrap_err(), @"@rms_norm, instruction 0 (mul): a tensor op may not remain after raising to macro-ops");
    insta::assert_snapshot!(gate(&raised, Phase::Tensor).unwrap_err(), @"@layer, instruction 0 (gemm): a macro op may not remain after the front end");
}

#[test]
fn results_are_inferred_again() {
    let change = |m: &mut Module| {
        m.functions[0].insts[0].op =
            Op::Constant { value: F32(0.0), ty: Type::f32([Dim::Const(7)]) };
        m.functions[0].insts[0].operands.clear();
    };
    insta::assert_snapshot!(broken(change), @"@f, instruction 0 (constant): results have types (f32[T, 32]), the op gives (f32[7])");
}
