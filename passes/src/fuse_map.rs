//! `fuse-map`: maps of maps as one map.
//!
//! A map whose only reader is another map of the same shape is computed there. One with several
//! readers is, too, if all are maps and computing it again costs less than memory traffic does.

use crate::edit::{Editor, edit_functions};
use crate::gemm::{MAX_EXPR_NODES, expr_nodes, index_of};
use crate::pass::{PassError, PassOptions, PassReport};
use waveloom_ir::{Expr, InstId, Module, Op, ValueId};

/// Nodes of an expression that is cheap enough to be computed once per reader.
const CHEAP_NODES: usize = 5;

/// The pass.
pub fn run(module: Module, options: &PassOptions) -> Result<(Module, PassReport), PassError> {
    edit_functions("fuse-map", module, options, |editor, report| editor.until_stable(report, fuse))
}

/// Computes one operand of map `id` within it.
fn fuse(editor: &mut Editor<'_>, id: InstId) -> Result<Option<&'static str>, PassError> {
    let Some((expr, operands, result)) = map_of(editor, id) else {
        return Ok(None);
    };
    for (i, &operand) in operands.iter().enumerate() {
        let Some((producer, _)) = editor.producer(operand) else {
            continue;
        };
        let Some((inner, inner_operands, _)) = map_of(editor, producer) else {
            continue;
        };
        let uses = uses_of(&expr, i as u32);
        let nodes = expr_nodes(&expr) + uses * expr_nodes(&inner);
        if editor.ty(operand).shape != editor.ty(result).shape
            || nodes > MAX_EXPR_NODES
            || !may_recompute(editor, operand, &inner)
        {
            continue;
        }
        let (expr, operands) = inline(&expr, &operands, i, &inner, &inner_operands);
        let fused = editor.insert1(id, Op::Map { expr }, operands)?;
        editor.replace(result, fused)?;
        return Ok(Some("map-into-map"));
    }
    Ok(None)
}

fn map_of(editor: &Editor<'_>, id: InstId) -> Option<(Expr, Vec<ValueId>, ValueId)> {
    let inst = editor.inst(id)?;
    match &inst.op {
        Op::Map { expr } => Some((expr.clone(), inst.operands.clone(), inst.results[0])),
        _ => None,
    }
}

/// Whether `value`, a map's result, may be computed in each of its readers.
fn may_recompute(editor: &Editor<'_>, value: ValueId, expr: &Expr) -> bool {
    if editor.sole_user(value).is_some() {
        return true;
    }
    let shape = &editor.ty(value).shape;
    let mut cheap = expr_nodes(expr) <= CHEAP_NODES;
    expr.walk(&mut |e| cheap &= !matches!(e, Expr::Unary(..)));
    cheap
        && !editor.is_returned(value)
        && editor.users(value).into_iter().all(|user| {
            map_of(editor, user).is_some_and(|(_, _, result)| &editor.ty(result).shape == shape)
        })
}

/// How often `expr` names operand `operand`.
pub(crate) fn uses_of(expr: &Expr, operand: u32) -> usize {
    let mut uses = 0;
    expr.walk(&mut |e| uses += usize::from(*e == Expr::Operand(operand)));
    uses
}

/// `expr` over `operands` with `inner` over `inner_operands` in place of operand `at`.
fn inline(
    expr: &Expr,
    operands: &[ValueId],
    at: usize,
    inner: &Expr,
    inner_operands: &[ValueId],
) -> (Expr, Vec<ValueId>) {
    let mut merged = vec![];
    let mut place = |list: &[ValueId], skip: Option<usize>| -> Vec<u32> {
        let index = |(i, &value): (usize, &ValueId)| match skip {
            Some(skip) if skip == i => 0,
            _ => index_of(&mut merged, value),
        };
        list.iter().enumerate().map(index).collect()
    };
    let outer_index = place(operands, Some(at));
    let inner_index = place(inner_operands, None);
    let substitute = |leaf: &Expr, index: &[u32]| match leaf {
        Expr::Operand(i) => Expr::Operand(index[*i as usize]),
        other => other.clone(),
    };
    // Maps have no `rope` and no `head_norm`, so that only leaves name operands.
    let same = |i: u32| i;
    let inner = inner.rewrite(&|leaf| substitute(leaf, &inner_index), &same);
    let replace = |leaf: &Expr| match leaf {
        Expr::Operand(i) if *i as usize == at => inner.clone(),
        other => substitute(other, &outer_index),
    };
    (expr.rewrite(&replace, &same), merged)
}
