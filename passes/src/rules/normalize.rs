//! Forms that the raising rules look for: scalings stand outside of products and shape ops,
//! divisions by a splat are multiplications, a softmax is divided before its product with the
//! values.
//!
//! These round differently, so they run only where something is raised by them.

use super::Numerics::{Exact, Reassociates};
use super::algebra::scalar;
use super::{Rule, c_is_one};
use crate::egraph::{Graph, Term, binary, ops, shape, splat, ty};
use egg::Id;
use waveloom_ir::{BinaryOp, DType, Dim, Op};

/// One spelling for each of several equal forms.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    Rule::pattern(Reassociates, "reciprocal-of-sqrt", "(div ?c (sqrt ?x))",       "(rsqrt ?x)",  c_is_one),
    Rule::pattern(Reassociates, "mul-reciprocal",     "(mul ?x (div ?c ?y))",     "(div ?x ?y)", c_is_one),
    Rule::pattern(Reassociates, "reciprocal-mul",     "(mul (div ?c ?y) ?x)",     "(div ?x ?y)", c_is_one),
    Rule::find(   Reassociates, "div-by-splat",          div_by_splat),
    Rule::find(   Reassociates, "mul-by-two-splats",     mul_by_two_splats),
    Rule::find(   Exact,        "scale-out-of-shape-op", scale_out_of_shape_op),
    Rule::find(   Reassociates, "scale-out-of-matmul",   scale_out_of_matmul),
    Rule::find(   Reassociates, "division-into-matmul",  division_into_matmul),
    Rule::find(   Exact,        "norm-of-transpose",     norm_of_transpose),
];

fn mul(a: Term, b: Term) -> Term {
    Term::Make(Op::Binary(BinaryOp::Mul), vec![a, b])
}

/// x · c with one number c.
fn scalings(graph: &Graph, id: Id) -> impl Iterator<Item = (Id, f32)> {
    let products = binary(graph, id, BinaryOp::Mul);
    products.filter_map(move |(x, c)| {
        let keeps_shape = shape(graph, x) == shape(graph, id);
        let known = splat(graph, x).is_some() || ty(graph, x).dtype != DType::F32;
        (keeps_shape && !known).then_some((x, splat(graph, c)?))
    })
}

/// x / c = x · (1/c).
fn div_by_splat(graph: &Graph, id: Id) -> Vec<Term> {
    let quotients = binary(graph, id, BinaryOp::Div);
    let terms = quotients.filter_map(|(x, c)| {
        let inverse = splat(graph, c)?.recip();
        let apply = inverse.is_normal() && ty(graph, x).dtype == DType::F32;
        apply.then(|| mul(x.into(), scalar(inverse)))
    });
    terms.collect()
}

/// (x · a) · b = x · (a·b).
fn mul_by_two_splats(graph: &Graph, id: Id) -> Vec<Term> {
    let outer = scalings(graph, id);
    let terms = outer.flat_map(|(scaled, b)| {
        scalings(graph, scaled).map(move |(x, a)| mul(x.into(), scalar(a * b)))
    });
    terms.collect()
}

/// reshape(x · c) = reshape(x) · c, and so for the others.
fn scale_out_of_shape_op(graph: &Graph, id: Id) -> Vec<Term> {
    let shape_ops = ops(graph, id).filter(|(op, _)| {
        matches!(
            op,
            Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Broadcast { .. }
        )
    });
    let candidates = shape_ops.flat_map(|(op, args)| {
        scalings(graph, args[0]).map(move |(x, c)| (Term::Make(op.clone(), vec![x.into()]), c))
    });
    scaled_anew(graph, id, candidates)
}

/// (a · c) × b = (a × b) · c = a × (b · c).
fn scale_out_of_matmul(graph: &Graph, id: Id) -> Vec<Term> {
    let products = ops(graph, id).filter(|(op, _)| matches!(op, Op::MatMul {}));
    let sides = products.flat_map(|(op, args)| [(op, args, 0), (op, args, 1)]);
    let candidates = sides.flat_map(|(op, args, side)| {
        scalings(graph, args[side]).map(move |(x, c)| {
            let mut operands = vec![Term::Have(args[1 - side]); 2];
            operands[side] = x.into();
            (Term::Make(op.clone(), operands), c)
        })
    });
    scaled_anew(graph, id, candidates)
}

/// Of several values that are scaled by one number to give `id`, one is enough; since they are not
/// known to be equal, taking all would multiply with every op that the scaling moves through.
fn scaled_anew(graph: &Graph, id: Id, candidates: impl Iterator<Item = (Term, f32)>) -> Vec<Term> {
    let mut known: Vec<u32> = scalings(graph, id).map(|(_, c)| c.to_bits()).collect();
    let mut terms = vec![];
    for (x, c) in candidates {
        if !known.contains(&c.to_bits()) {
            known.push(c.to_bits());
            terms.push(mul(x, scalar(c)));
        }
    }
    terms
}

/// (e × v) / s = (e / s) × v, where s has one value per row.
fn division_into_matmul(graph: &Graph, id: Id) -> Vec<Term> {
    let one_per_row = |s: Id| {
        let (rank, wanted) = (shape(graph, s).len(), shape(graph, id).len());
        rank == wanted && shape(graph, s).last() == Some(&Dim::Const(1))
    };
    let quotients = binary(graph, id, BinaryOp::Div).filter(|&(_, s)| one_per_row(s));
    let terms = quotients.flat_map(|(product, s)| {
        let products = ops(graph, product).filter(|(op, _)| matches!(op, Op::MatMul {}));
        products.map(move |(op, args)| {
            let divided = vec![Term::Have(args[0]), Term::Have(s)];
            let divided = Term::Make(Op::Binary(BinaryOp::Div), divided);
            Term::Make(op.clone(), vec![divided, args[1].into()])
        })
    });
    terms.collect()
}

/// A norm of rows does not care in which order the rows stand.
fn norm_of_transpose(graph: &Graph, id: Id) -> Vec<Term> {
    let norms = ops(graph, id).filter(|(op, _)| matches!(op, Op::Norm { .. }));
    let terms = norms.flat_map(|(norm, operands)| {
        ops(graph, operands[0]).filter_map(move |(op, args)| match op {
            Op::Transpose { perm } if perm.last() == Some(&(perm.len() as u32 - 1)) => {
                let inner = Term::Make(norm.clone(), vec![args[0].into(), operands[1].into()]);
                Some(inner.transpose(perm.clone()))
            }
            _ => None,
        })
    });
    terms.collect()
}
