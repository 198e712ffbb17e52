//! `simplify` on small functions: what goes, what stays.

use crate::support::{EXACT, one_function, run, spelling};
use waveloom_ir::{DType, Dim, FunctionBuilder, InferError, Module, Op, Type, UnaryOp, ValueId};

type Built = Result<Vec<ValueId>, InferError>;

fn simplified(build: impl FnOnce(&mut FunctionBuilder<'_>, [Dim; 3]) -> Built) -> Module {
    let before = one_function(build);
    run(waveloom_passes::simplify::run, &before, EXACT).0
}

fn x(b: &mut FunctionBuilder<'_>, t: Dim) -> ValueId {
    b.param("x", Type::f32([t, Dim::Const(6)]))
}

#[test]
fn arithmetic_that_does_nothing_goes() {
    let after = simplified(|b, [t, ..]| {
        let x = x(b, t);
        let (zero, one) = (b.scalar(0.0)?, b.scalar(1.0)?);
        let y = b.mul(x, one)?;
        let y = b.add(zero, y)?;
        let y = b.unary(UnaryOp::Neg, y)?;
        let y = b.unary(UnaryOp::Neg, y)?;
        Ok(vec![b.div(y, one)?])
    });
    assert_eq!(spelling(&after), [""; 0]);
}

#[test]
fn a_one_that_broadcasts_stays() {
    let after = simplified(|b, _| {
        let x = b.param("x", Type::f32([Dim::Const(6)]));
        let ones = b.constant(1.0, Type::f32([Dim::Const(2), Dim::Const(6)]))?;
        Ok(vec![b.mul(x, ones)?])
    });
    assert_eq!(spelling(&after), ["constant", "mul"]);
}

#[test]
fn shape_ops_that_cancel_go() {
    let after = simplified(|b, [t, ..]| {
        let x = x(b, t);
        let heads = b.reshape(x, [t, Dim::Const(2), Dim::Const(3)])?;
        let first = b.transpose(heads, [1, 0, 2])?;
        let batched = b.reshape(first, [Dim::Const(1), Dim::Const(2), t, Dim::Const(3)])?;
        let back = b.transpose(batched, [0, 2, 1, 3])?;
        let whole = b.reshape(back, [t, Dim::Const(6)])?;
        let low = b.slice(whole, 1, 0, 2)?;
        let rest = b.slice(whole, 1, 2, 4)?;
        Ok(vec![b.concat(1, &[low, rest])?])
    });
    assert!(after.functions[0].insts.is_empty());
}

#[test]
fn chains_of_shape_ops_become_one() {
    let after = simplified(|b, [t, ..]| {
        let x = b.param("x", Type::f32([t, Dim::Const(2), Dim::Const(3)]));
        let y = b.transpose(x, [1, 0, 2])?;
        let y = b.transpose(y, [0, 2, 1])?;
        let y = b.slice(y, 1, 1, 2)?;
        let y = b.slice(y, 1, 1, 1)?;
        Ok(vec![y])
    });
    assert_eq!(spelling(&after), ["transpose", "slice"]);
}

#[test]
fn constants_are_folded() {
    let after = simplified(|b, [t, ..]| {
        let x = x(b, t);
        let (a, c) = (b.scalar(3.0)?, b.scalar(4.0)?);
        let sum = b.add(a, c)?;
        let root = b.mul(sum, sum)?;
        let root = b.unary(UnaryOp::Sqrt, root)?;
        let root = b.broadcast(root, [t, Dim::Const(6)])?;
        Ok(vec![b.mul(x, root)?])
    });
    assert_eq!(spelling(&after), ["constant", "mul"]);
    assert!(matches!(&after.functions[0].insts[0].op, Op::Constant { value, ty }
        if value.0 == 7.0 && ty.shape.is_empty()));
}

#[test]
fn division_by_a_power_of_two_only_is_a_product() {
    let both = |by: f32| {
        simplified(|b, [t, ..]| {
            let x = x(b, t);
            let (c, inverse) = (b.scalar(by)?, b.scalar(by.recip())?);
            Ok(vec![b.div(x, c)?, b.mul(x, inverse)?])
        })
    };
    let one_value =
        |module: &Module| module.functions[0].results[0] == module.functions[0].results[1];
    assert!(one_value(&both(8.0)));
    assert!(!one_value(&both(3.0)));
}

#[test]
fn casts_to_the_same_dtype_go() {
    let after = simplified(|b, [t, ..]| {
        let x = x(b, t);
        let y = b.cast(x, DType::F32)?;
        Ok(vec![b.dequantize(y)?])
    });
    assert!(after.functions[0].insts.is_empty());
}

#[test]
fn values_that_nothing_uses_go_and_equal_ones_are_one() {
    let after = simplified(|b, [t, ..]| {
        let x = x(b, t);
        let y = b.unary(UnaryOp::Exp, x)?;
        let z = b.unary(UnaryOp::Exp, x)?;
        b.unary(UnaryOp::Log, x)?;
        Ok(vec![b.add(y, z)?])
    });
    assert_eq!(spelling(&after), ["exp", "add"]);
}

#[test]
fn rewrites_can_be_bounded() {
    let before = one_function(|b, [t, ..]| {
        let x = x(b, t);
        let one = b.scalar(1.0)?;
        let y = b.mul(x, one)?;
        let y = b.unary(UnaryOp::Exp, y)?;
        Ok(vec![b.mul(y, one)?])
    });
    let with = |max_rewrites: Option<u64>| {
        let mut options = waveloom_passes::PassOptions::default();
        options.rules.max_rewrites = max_rewrites;
        let (after, report) =
            waveloom_passes::simplify::run(before.clone(), &options).expect("the pass runs");
        (spelling(&after), report.total())
    };
    assert_eq!(with(Some(0)), (vec!["constant", "mul", "exp", "mul"], 0));
    assert_eq!(with(Some(1)).1, 1);
    assert_eq!(with(None), (vec!["exp"], 2));
}
