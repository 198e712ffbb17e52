//! `gemm` from products with a stored weight.

use super::Numerics::Exact;
use super::Rule;
use crate::egraph::view::{View, views};
use crate::egraph::{Graph, Head, Term, const_elements, ops, shape};
use egg::Id;
use waveloom_ir::{Dim, Expr, GemmAttr, GemmOutput, Op, Store, Tiles};

/// Products with a weight `[N, K]`, on either side.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    Rule::find(Exact, "matmul-by-weight", matmul_by_weight),
    Rule::find(Exact, "weight-by-matmul", weight_by_matmul),
];

/// `x · wᵀ` with nothing before or after it.
fn plain_gemm(x: Term, weight: Id) -> Term {
    let attr = GemmAttr {
        weights: 1,
        prologue: None,
        outputs: vec![GemmOutput { expr: Expr::Acc(0), store: Store::Dense }],
        tiles: Tiles::default(),
    };
    Term::Make(Op::Gemm { attr }, vec![x, weight.into()])
}

/// Whether a value comes from outside of the function and has a fixed shape: what the compiler can
/// pack. Two values that are computed are no `gemm`, whatever their shapes.
fn is_weight(graph: &Graph, id: Id) -> bool {
    let given = graph[id].nodes.iter().any(|node| match &node.head {
        Head::Param(_) => true,
        Head::Op(op) => matches!(op, Op::Weight { .. }),
        Head::Project(_) | Head::Results => false,
    });
    given && const_elements(shape(graph, id)).is_some()
}

/// Weights `[N, K]` that a value holds with N along axis `n` and K along axis `k`, other axes being
/// 1.
fn weights(graph: &Graph, id: Id, n: usize, k: usize) -> Vec<Id> {
    let holds = |view: &&View| {
        let axes_match = view.whole_axis(n) == Some(0) && view.whole_axis(k) == Some(1);
        let rest_is_one = (0..view.axes.len()).all(|i| i == n || i == k || view.axes[i].is_empty());
        let base = shape(graph, view.base);
        let (shape, all) = (shape(graph, id), view.starts_at_origin());
        let complete = base.len() == 2 && shape[n] == base[0] && shape[k] == base[1];
        axes_match && rest_is_one && all && complete && is_weight(graph, view.base)
    };
    views(graph, id).iter().filter(holds).map(|view| view.base).collect()
}

/// Rows and columns of the last two axes, if the other axes are 1.
fn matrix(shape: &[Dim]) -> Option<[Dim; 2]> {
    let (lead, last) = shape.split_at_checked(shape.len().checked_sub(2)?)?;
    let single = lead.iter().all(|&dim| dim == Dim::Const(1));
    single.then_some([last[0], last[1]])
}

fn matmul_by_weight(graph: &Graph, id: Id) -> Vec<Term> {
    products(graph, id, |x, w| {
        let rank = shape(graph, w).len();
        let rows = matrix(shape(graph, x))?;
        let found = weights(graph, w, rank - 1, rank - 2).into_iter();
        let gemms = found.map(|weight| plain_gemm(Term::Have(x).reshape(rows), weight));
        Some(gemms.map(|gemm| gemm.reshape(shape(graph, id).clone())).collect())
    })
}

/// w × xᵀ = (x × wᵀ)ᵀ.
fn weight_by_matmul(graph: &Graph, id: Id) -> Vec<Term> {
    products(graph, id, |w, x| {
        let rank = shape(graph, w).len();
        let [k, rows] = matrix(shape(graph, x))?;
        let found = weights(graph, w, rank - 2, rank - 1).into_iter();
        let gemms = found.map(|weight| {
            let x = Term::Have(x).reshape([k, rows]).transpose([1, 0]);
            plain_gemm(x, weight).transpose([1, 0])
        });
        Some(gemms.map(|gemm| gemm.reshape(shape(graph, id).clone())).collect())
    })
}

fn products(graph: &Graph, id: Id, raise: impl Fn(Id, Id) -> Option<Vec<Term>>) -> Vec<Term> {
    let products = ops(graph, id).filter(|(op, _)| matches!(op, Op::MatMul {}));
    let raised = products.filter_map(|(_, args)| raise(args[0], args[1]));
    raised.flatten().collect()
}
