//! Arithmetic identities.

use super::Numerics::Exact;
use super::{Rule, always, c_is_minus_one, c_is_one, c_is_zero};
use crate::egraph::{Graph, Term, ops, shape, splat, ty};
use egg::Id;
use waveloom_ir::{BinaryOp, DType, Dim, F32, Op, Type};

/// Identities that change no value.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    Rule::pattern(Exact, "add-zero",        "(add ?x ?c)",          "?x",               c_is_zero),
    Rule::pattern(Exact, "zero-add",        "(add ?c ?x)",          "?x",               c_is_zero),
    Rule::pattern(Exact, "sub-zero",        "(sub ?x ?c)",          "?x",               c_is_zero),
    Rule::pattern(Exact, "zero-sub",        "(sub ?c ?x)",          "(neg ?x)",         c_is_zero),
    Rule::pattern(Exact, "mul-one",         "(mul ?x ?c)",          "?x",               c_is_one),
    Rule::pattern(Exact, "one-mul",         "(mul ?c ?x)",          "?x",               c_is_one),
    Rule::pattern(Exact, "mul-minus-one",   "(mul ?x ?c)",          "(neg ?x)",         c_is_minus_one),
    Rule::pattern(Exact, "minus-one-mul",   "(mul ?c ?x)",          "(neg ?x)",         c_is_minus_one),
    Rule::pattern(Exact, "div-one",         "(div ?x ?c)",          "?x",               c_is_one),
    Rule::pattern(Exact, "neg-neg",         "(neg (neg ?x))",       "?x",               always),
    Rule::pattern(Exact, "add-neg",         "(add ?x (neg ?y))",    "(sub ?x ?y)",      always),
    Rule::pattern(Exact, "neg-add",         "(add (neg ?x) ?y)",    "(sub ?y ?x)",      always),
    Rule::pattern(Exact, "sub-neg",         "(sub ?x (neg ?y))",    "(add ?x ?y)",      always),
    Rule::pattern(Exact, "neg-mul",         "(mul (neg ?x) ?y)",    "(neg (mul ?x ?y))", always),
    Rule::pattern(Exact, "mul-neg",         "(mul ?x (neg ?y))",    "(neg (mul ?x ?y))", always),
    Rule::pattern(Exact, "neg-div",         "(div (neg ?x) ?y)",    "(neg (div ?x ?y))", always),
    Rule::pattern(Exact, "abs-neg",         "(abs (neg ?x))",       "(abs ?x)",         always),
    Rule::pattern(Exact, "max-same",        "(max ?x ?x)",          "?x",               always),
    Rule::pattern(Exact, "min-same",        "(min ?x ?x)",          "?x",               always),
    Rule::pattern(Exact, "select-same",     "(select ?p ?x ?x)",    "?x",               always),
    // Both sides have one type only where the operand is f32 already.
    Rule::pattern(Exact, "dequantize-f32",  "(dequantize ?x)",      "?x",               always),
    Rule::find(   Exact, "div-power-of-two",  div_power_of_two),
    Rule::find(   Exact, "cast-same",         cast_same),
    Rule::find(   Exact, "cast-is-dequantize", cast_is_dequantize),
    Rule::find(   Exact, "shrink-splat",      shrink_splat),
    Rule::find(   Exact, "outer-product",     outer_product),
];

/// A rank-0 f32 constant.
pub fn scalar(value: f32) -> Term {
    let (value, ty) = (F32(value), Type::f32([]));
    Term::Make(Op::Constant { value, ty }, vec![])
}

/// Dividing by a power of two is multiplying by its inverse, if that is a normal number.
fn div_power_of_two(graph: &Graph, id: Id) -> Vec<Term> {
    let quotients = crate::egraph::binary(graph, id, BinaryOp::Div);
    let exact = |c: f32| c.is_normal() && c.recip().is_normal() && c.to_bits() << 9 == 0;
    let terms = quotients.filter_map(|(x, c)| {
        let divisor = splat(graph, c).filter(|&c| exact(c))?;
        (ty(graph, c).dtype == DType::F32).then(|| {
            let args = vec![x.into(), scalar(divisor.recip())];
            Term::Make(Op::Binary(BinaryOp::Mul), args)
        })
    });
    terms.collect()
}

fn cast_same(graph: &Graph, id: Id) -> Vec<Term> {
    let casts = ops(graph, id).filter(|(op, _)| matches!(op, Op::Cast { .. }));
    let same = casts.filter(|(_, args)| ty(graph, args[0]) == ty(graph, id));
    same.map(|(_, args)| args[0].into()).collect()
}

/// Widening a plain stored form to f32 is reading it.
fn cast_is_dequantize(graph: &Graph, id: Id) -> Vec<Term> {
    let casts = ops(graph, id).filter(|(op, _)| matches!(op, Op::Cast { dtype: DType::F32 }));
    let stored = casts.filter(|(_, args)| ty(graph, args[0]).dtype.is_stored_real());
    let terms = stored.map(|(_, args)| Term::Make(Op::Dequantize {}, vec![args[0].into()]));
    terms.collect()
}

/// A splat operand needs no shape: a rank-0 constant broadcasts.
fn shrink_splat(graph: &Graph, id: Id) -> Vec<Term> {
    let mut terms = vec![];
    for (op, args) in ops(graph, id).filter(|(op, _)| matches!(op, Op::Binary(_))) {
        for i in 0..args.len() {
            let Some(value) = splat(graph, args[i]) else {
                continue;
            };
            if shape(graph, args[i]).is_empty() {
                continue;
            }
            let ty = Type::new(ty(graph, args[i]).dtype, []);
            let mut shrunk: Vec<Term> = args.iter().map(|&arg| arg.into()).collect();
            let value = F32(value);
            shrunk[i] = Term::Make(Op::Constant { value, ty }, vec![]);
            terms.push(Term::Make(op.clone(), shrunk));
        }
    }
    terms
}

/// A matrix product over one element is a product of a column and a row.
fn outer_product(graph: &Graph, id: Id) -> Vec<Term> {
    let products = ops(graph, id).filter(|(op, args)| {
        matches!(op, Op::MatMul {}) && shape(graph, args[0]).last() == Some(&Dim::Const(1))
    });
    let terms = products.map(|(_, args)| {
        Term::Make(Op::Binary(BinaryOp::Mul), vec![args[0].into(), args[1].into()])
    });
    terms.collect()
}
