//! Ops that only move elements.

use super::Numerics::Exact;
use super::Rule;
use crate::egraph::view::{View, is_source, views};
use crate::egraph::{Graph, Term, const_elements, ops, same, shape, splat};
use egg::Id;
use waveloom_ir::{Dim, Op, Shape};

/// Shape ops that cancel, join or are not needed.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    Rule::find(Exact, "view-is-reshape",        view_is_reshape),
    Rule::find(Exact, "view-is-transpose",      view_is_transpose),
    Rule::find(Exact, "transpose-of-transpose", transpose_of_transpose),
    Rule::find(Exact, "broadcast-of-broadcast", broadcast_of_broadcast),
    Rule::find(Exact, "slice-of-slice",         slice_of_slice),
    Rule::find(Exact, "slice-of-concat",        slice_of_concat),
    Rule::find(Exact, "concat-of-one",          concat_of_one),
    Rule::find(Exact, "concat-of-slices",       concat_of_slices),
    Rule::find(Exact, "drop-broadcast",         drop_broadcast),
    Rule::find(Exact, "drop-unit-reshape",      drop_unit_reshape),
    Rule::find(Exact, "unary-of-repeat",        unary_of_repeat),
    Rule::find(Exact, "scale-of-repeat",        scale_of_repeat),
];

/// Views of what chains of shape ops begin with.
fn source_views(graph: &Graph, id: Id) -> Vec<View> {
    let is_source = |view: &&View| !same(graph, view.base, id) && is_source(graph, view.base);
    views(graph, id).iter().filter(is_source).cloned().collect()
}

/// Any chain of shape ops that ends with the elements where they were is one reshape, or nothing.
fn view_is_reshape(graph: &Graph, id: Id) -> Vec<Term> {
    let wanted = shape(graph, id);
    let views = source_views(graph, id).into_iter();
    let terms = views.filter(|view| view.is_reshape(graph)).map(|view| {
        match shape(graph, view.base) == wanted {
            true => Term::Have(view.base),
            false => Term::Have(view.base).reshape(wanted.clone()),
        }
    });
    terms.collect()
}

/// Any chain of reshapes and transposes is one transpose between two reshapes.
fn view_is_transpose(graph: &Graph, id: Id) -> Vec<Term> {
    let views = source_views(graph, id).into_iter().filter(|view| !view.is_reshape(graph));
    views.filter_map(|view| view.realize(graph, shape(graph, id))).collect()
}

/// Pairs of nested ops: the outer one, the inner one, the operands of the inner one.
fn nested(graph: &Graph, id: Id) -> impl Iterator<Item = (&Op, &Op, &[Id])> {
    ops(graph, id).filter(|(_, args)| args.len() == 1).flat_map(move |(outer, args)| {
        ops(graph, args[0]).map(move |(inner, args)| (outer, inner, args))
    })
}

fn transpose_of_transpose(graph: &Graph, id: Id) -> Vec<Term> {
    let pairs = nested(graph, id).filter_map(|(outer, inner, args)| match (outer, inner) {
        (Op::Transpose { perm: outer }, Op::Transpose { perm: inner }) => {
            let perm: Vec<u32> = outer.iter().map(|&i| inner[i as usize]).collect();
            Some(Term::Have(args[0]).transpose(perm))
        }
        _ => None,
    });
    pairs.collect()
}

fn broadcast_of_broadcast(graph: &Graph, id: Id) -> Vec<Term> {
    let pairs = nested(graph, id).filter_map(|(outer, inner, args)| match (outer, inner) {
        (Op::Broadcast { .. }, Op::Broadcast { .. }) => {
            Some(Term::Make(outer.clone(), vec![args[0].into()]))
        }
        _ => None,
    });
    pairs.collect()
}

fn slice_of_slice(graph: &Graph, id: Id) -> Vec<Term> {
    let pairs = nested(graph, id).filter_map(|(outer, inner, args)| match (outer, inner) {
        (
            Op::Slice { axis, start, len },
            Op::Slice { axis: inner_axis, start: inner_start, .. },
        ) if axis == inner_axis => {
            let (axis, len) = (*axis, *len);
            let start = start.checked_add(*inner_start)?;
            Some(Term::Make(Op::Slice { axis, start, len }, vec![args[0].into()]))
        }
        _ => None,
    });
    pairs.collect()
}

/// The parts of a concatenation with where each begins.
fn parts(graph: &Graph, axis: u32, parts: &[Id]) -> Option<Vec<(u64, u64, Id)>> {
    let mut begin = 0u64;
    let mut placed = vec![];
    for &part in parts {
        let extent = const_elements(&[shape(graph, part)[axis as usize]])?;
        placed.push((begin, extent, part));
        begin = begin.checked_add(extent)?;
    }
    Some(placed)
}

/// A slice that lies within one part of a concatenation is a slice of that part.
fn slice_of_concat(graph: &Graph, id: Id) -> Vec<Term> {
    let pairs = nested(graph, id).filter_map(|(outer, inner, args)| match (outer, inner) {
        (Op::Slice { axis, start, len }, Op::Concat { axis: joined }) if axis == joined => {
            let wanted = const_elements(&[*len])?;
            let (begin, _, part) = parts(graph, *axis, args)?
                .into_iter()
                .find(|&(begin, extent, _)| begin <= *start && *start - begin + wanted <= extent)?;
            let (axis, start, len) = (*axis, start - begin, *len);
            Some(Term::Make(Op::Slice { axis, start, len }, vec![part.into()]))
        }
        _ => None,
    });
    pairs.collect()
}

fn concat_of_one(graph: &Graph, id: Id) -> Vec<Term> {
    let concats =
        ops(graph, id).filter(|(op, args)| matches!(op, Op::Concat { .. }) && args.len() == 1);
    concats.map(|(_, args)| args[0].into()).collect()
}

/// Slices of one value that follow each other, joined again, are one slice (or the value: then
/// `view-is-reshape` sees it).
fn concat_of_slices(graph: &Graph, id: Id) -> Vec<Term> {
    let concats = ops(graph, id).filter_map(|(op, args)| match op {
        Op::Concat { axis } => Some((*axis, args)),
        _ => None,
    });
    concats.flat_map(|(axis, args)| joined_slices(graph, id, axis, args)).collect()
}

fn joined_slices(graph: &Graph, id: Id, axis: u32, args: &[Id]) -> Vec<Term> {
    let slices = |part: Id| {
        ops(graph, part).filter_map(move |(op, args)| match op {
            Op::Slice { axis: a, start, .. } if *a == axis => Some((args[0], *start)),
            _ => None,
        })
    };
    let Some(placed) = parts(graph, axis, args) else {
        return vec![];
    };
    let whole = slices(args[0]).filter(|&(source, start)| {
        placed.iter().all(|&(begin, _, part)| {
            slices(part).any(|(s, at)| same(graph, s, source) && at == start + begin)
        })
    });
    let len = shape(graph, id)[axis as usize];
    let term = |(source, start): (Id, u64)| {
        Term::Make(Op::Slice { axis, start, len }, vec![Term::Have(source)])
    };
    whole.map(term).collect()
}

/// Elementwise ops broadcast by themselves.
fn drop_broadcast(graph: &Graph, id: Id) -> Vec<Term> {
    drop_from_operands(graph, id, |op, _, _| matches!(op, Op::Broadcast { .. }))
}

/// And they align shapes at the last dimension: leading ones need not be written.
fn drop_unit_reshape(graph: &Graph, id: Id) -> Vec<Term> {
    drop_from_operands(graph, id, |op, to, from| {
        let added = to.strip_suffix(&from[..]);
        let units = added.is_some_and(|added| added.iter().all(|&dim| dim == Dim::Const(1)));
        matches!(op, Op::Reshape { .. }) && units
    })
}

/// An elementwise op on what an operand is made from, where `drops` says so of the operand's op,
/// its shape, and the shape of what it is made from.
fn drop_from_operands(
    graph: &Graph,
    id: Id,
    drops: impl Fn(&Op, &Shape, &Shape) -> bool,
) -> Vec<Term> {
    let elementwise = ops(graph, id).filter(|(op, _)| matches!(op, Op::Binary(_) | Op::Select {}));
    let mut terms = vec![];
    for (op, args) in elementwise {
        for (i, &arg) in args.iter().enumerate() {
            for (inner, source) in ops(graph, arg).filter(|(_, source)| source.len() == 1) {
                if drops(inner, shape(graph, arg), shape(graph, source[0])) {
                    let mut dropped: Vec<Term> = args.iter().map(|&arg| arg.into()).collect();
                    dropped[i] = source[0].into();
                    terms.push(Term::Make(op.clone(), dropped));
                }
            }
        }
    }
    terms
}

/// Concatenations of one value with itself: axis, value, times.
fn repeats(graph: &Graph, id: Id) -> impl Iterator<Item = (u32, Id, usize)> {
    ops(graph, id).filter_map(|(op, args)| match op {
        Op::Concat { axis } if args.len() > 1 => {
            let all_same = args.iter().all(|&arg| same(graph, arg, args[0]));
            all_same.then_some((*axis, args[0], args.len()))
        }
        _ => None,
    })
}

fn repeated(axis: u32, part: Term, times: usize) -> Term {
    Term::Make(Op::Concat { axis }, vec![part; times])
}

/// cos(concat(a, a)) = concat(cos(a), cos(a)): so that angles joined early are seen as joined.
fn unary_of_repeat(graph: &Graph, id: Id) -> Vec<Term> {
    let unary = ops(graph, id).filter(|(op, _)| matches!(op, Op::Unary(_)));
    let terms = unary.flat_map(|(op, args)| {
        repeats(graph, args[0]).map(move |(axis, part, times)| {
            let part = Term::Make(op.clone(), vec![part.into()]);
            repeated(axis, part, times)
        })
    });
    terms.collect()
}

/// The same for an op with a splat.
fn scale_of_repeat(graph: &Graph, id: Id) -> Vec<Term> {
    let binary = ops(graph, id).filter(|(op, _)| matches!(op, Op::Binary(_)));
    let mut terms = vec![];
    for (op, args) in binary {
        for (i, &arg) in args.iter().enumerate() {
            let other = args[1 - i];
            if splat(graph, other).is_none() || shape(graph, other) != &Shape::new() {
                continue;
            }
            for (axis, part, times) in repeats(graph, arg) {
                let mut operands = vec![Term::Have(other); 2];
                operands[i] = part.into();
                terms.push(repeated(axis, Term::Make(op.clone(), operands), times));
            }
        }
    }
    terms
}
