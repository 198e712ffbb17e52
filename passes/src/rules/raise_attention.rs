//! `attention` from primitives. What is recognized, from the result inwards:
//!
//! ```text
//! out    = p × v                              v: a view of the value cache
//! p      = e / sum(e)                         e = exp(z − max) or exp(z); rows are the last axis
//! z      = mask(s)                            select or added constants, in any nesting
//! s      = [cap · tanh(]k · (q × kᵀ)[)]       k: a view of the key cache
//! ```
//!
//! How heads are laid out does not matter: the caches may be transposed, repeated for grouped
//! queries by broadcast and reshape, or the queries may be grouped; [`crate::egraph::view`] sees
//! through it. Masks are read as linear inequalities between the position of the query and the
//! index of the cache row (the module `mask`). The rules of [`super::normalize`] have brought
//! scalings of q, k or the scores, and a division after the product, to the one place looked at
//! here.

mod mask;

use self::mask::Mask;
use super::Numerics::Lossy;
use super::Rule;
use super::raise_norm::per_row;
use crate::egraph::view::{Factor, View, views};
use crate::egraph::{Graph, Term, binary, ops, same, shape, splat, unary};
use egg::Id;
use waveloom_ir::{AttentionAttr, BinaryOp, Dim, F32, Op, Shape, UnaryOp};

/// Lossy: a row that is masked by a large negative constant has a weight that underflows to 0 in
/// f32; `attention` leaves the row out.
pub const RULES: &[Rule] = &[Rule::find(Lossy, "raise-attention", raise_attention)];

fn raise_attention(graph: &Graph, id: Id) -> Vec<Term> {
    let products = ops(graph, id).filter(|(op, _)| matches!(op, Op::MatMul {}));
    let mut terms = vec![];
    for (_, args) in products {
        let values = cache_views(graph, args[1], Axis::Rows);
        if values.is_empty() {
            continue;
        }
        for logits in softmax(graph, args[0]) {
            for (scores, mask) in mask::masked(graph, logits) {
                for score in scaled_products(graph, scores) {
                    terms.extend(attention(graph, id, &score, &mask, &values));
                }
            }
        }
    }
    terms
}

/// Values that `id` is a reshape of with the same last two axes; the first is `id`. Front ends
/// that group queries for one product and not for the next have such reshapes in between.
pub(super) fn regrouped(graph: &Graph, id: Id) -> Vec<Id> {
    let tail = |id: Id| -> Option<[Dim; 2]> {
        let shape = shape(graph, id);
        Some([*shape.get(shape.len().checked_sub(2)?)?, *shape.last()?])
    };
    let mut found = vec![id];
    for (op, args) in ops(graph, id) {
        let keeps_rows = matches!(op, Op::Reshape { .. }) && tail(id) == tail(args[0]);
        if keeps_rows && !found.iter().any(|&known| same(graph, known, args[0])) {
            found.push(args[0]);
        }
    }
    found
}

/// Logits z of `id` = softmax(z) over the last axis.
fn softmax(graph: &Graph, id: Id) -> Vec<Id> {
    let mut found = vec![];
    for p in regrouped(graph, id) {
        let rows = shape(graph, p);
        for (e, sum) in binary(graph, p, BinaryOp::Div) {
            let sums = per_row(graph, sum, rows);
            if shape(graph, e) == rows && sums.iter().any(|&sum| sums_rows(graph, sum, e)) {
                found.extend(unary(graph, e, UnaryOp::Exp).flat_map(|z| unshifted(graph, z)));
            }
        }
    }
    found
}

fn sums_rows(graph: &Graph, sum: Id, e: Id) -> bool {
    ops(graph, sum).any(|(op, args)| match op {
        Op::ReduceSum { axis } => {
            *axis as usize + 1 == shape(graph, e).len() && same(graph, args[0], e)
        }
        _ => false,
    })
}

/// z, and what a number per row (which a softmax does not see) is subtracted from to make it.
fn unshifted(graph: &Graph, z: Id) -> Vec<Id> {
    let rows = shape(graph, z);
    let shifted = binary(graph, z, BinaryOp::Sub)
        .filter(|&(x, m)| shape(graph, x) == rows && !per_row(graph, m, rows).is_empty());
    shifted.map(|(x, _)| x).chain([z]).collect()
}

/// `[cap · tanh(] scale · (q × k) [)]`.
struct Scores {
    q: Id,
    k: Id,
    scale: f32,
    softcap: Option<f32>,
}

fn scaled_products(graph: &Graph, id: Id) -> Vec<Scores> {
    let mut found = products(graph, id, 1.0, None);
    for x in regrouped(graph, id) {
        for (capped, cap) in binary(graph, x, BinaryOp::Mul) {
            let Some(cap) = splat(graph, cap).filter(|&cap| cap > 0.0) else {
                continue;
            };
            for inner in unary(graph, capped, UnaryOp::Tanh) {
                // cap · tanh(s) with s = (s · cap) / cap.
                found.extend(products(graph, inner, cap, Some(cap)));
            }
        }
    }
    found
}

/// Products times a splat, that times `factor`.
fn products(graph: &Graph, id: Id, factor: f32, softcap: Option<f32>) -> Vec<Scores> {
    let mut found = vec![];
    let mut collect = |id: Id, scale: f32| {
        for id in regrouped(graph, id) {
            for (_, args) in ops(graph, id).filter(|(op, _)| matches!(op, Op::MatMul {})) {
                let (q, k) = (args[0], args[1]);
                found.push(Scores { q, k, scale: scale * factor, softcap });
            }
        }
    };
    for x in regrouped(graph, id) {
        for (product, c) in binary(graph, x, BinaryOp::Mul) {
            if let Some(c) = splat(graph, c) {
                collect(product, c);
            }
        }
    }
    collect(id, 1.0);
    found
}

/// Which of the last two axes of a product's second operand runs over cache rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    /// The second to last: `[…, S, D]`.
    Rows,
    /// The last: `[…, D, S]`.
    Columns,
}

/// One factor of the leading (head) axes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadFactor {
    /// Runs over the KV heads.
    Kv(u64),
    /// Repeats the KV heads.
    Group(u64),
}

impl HeadFactor {
    fn extent(self) -> u64 {
        match self {
            HeadFactor::Kv(extent) | HeadFactor::Group(extent) => extent,
        }
    }
}

/// An operand that is a cache `[C, kv_heads, head_dim]`, up to some row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CacheView {
    cache: Id,
    heads: Vec<HeadFactor>,
    kv_heads: u64,
    head_dim: u64,
    /// How many rows are looked at.
    len: Dim,
}

fn cache_views(graph: &Graph, id: Id, rows: Axis) -> Vec<CacheView> {
    let views = views(graph, id);
    views.iter().filter_map(|view| cache_view(graph, id, view, rows)).collect()
}

fn cache_view(graph: &Graph, id: Id, view: &View, rows: Axis) -> Option<CacheView> {
    let [capacity, Dim::Const(kv_heads), Dim::Const(head_dim)] = shape(graph, view.base)[..] else {
        return None;
    };
    let lead = view.axes.len().checked_sub(2)?;
    let (row, column) = match rows {
        Axis::Rows => (lead, lead + 1),
        Axis::Columns => (lead + 1, lead),
    };
    let wanted = shape(graph, id);
    let rows_fit =
        view.whole_axis(row) == Some(0) && covers_positions(graph, wanted[row], capacity);
    let columns_fit = view.whole_axis(column) == Some(2) && wanted[column] == Dim::Const(head_dim);
    let heads = head_factors(&view.axes[..lead].concat(), kv_heads)?;
    (rows_fit && columns_fit && view.starts_at_origin()).then_some(CacheView {
        cache: view.base,
        heads,
        kv_heads,
        head_dim,
        len: wanted[row],
    })
}

/// Whether the first `len` rows of a cache hold every position of the step: all rows do, and so
/// do the first `S`, by the contract between the symbols.
fn covers_positions(graph: &Graph, len: Dim, capacity: Dim) -> bool {
    let is_cache_length = match len {
        Dim::Symbol(id) => graph.analysis.module.symbols[id.index()].name == "S",
        Dim::Const(_) => false,
    };
    len == capacity || is_cache_length
}

/// The leading digits, each a run over all KV heads or a repetition; each at most once.
fn head_factors(digits: &[Factor], kv_heads: u64) -> Option<Vec<HeadFactor>> {
    let mut heads: Vec<HeadFactor> = vec![];
    for digit in digits {
        let Dim::Const(extent) = digit.extent else {
            return None;
        };
        match (digit.steps, heads.last_mut()) {
            (None, Some(HeadFactor::Group(group))) => *group *= extent,
            (None, _) => heads.push(HeadFactor::Group(extent)),
            (Some((1, 1)), _) if extent == kv_heads => heads.push(HeadFactor::Kv(extent)),
            _ => return None,
        }
    }
    let count = |kv: bool| heads.iter().filter(|h| matches!(h, HeadFactor::Kv(_)) == kv).count();
    let each_once = count(true) == usize::from(kv_heads > 1) && count(false) <= 1;
    each_once.then_some(heads)
}

fn attention(
    graph: &Graph,
    id: Id,
    score: &Scores,
    mask: &Mask,
    values: &[CacheView],
) -> Vec<Term> {
    let mut terms = vec![];
    let Some((positions, window)) = mask.causal() else {
        return terms;
    };
    for k in cache_views(graph, score.k, Axis::Columns) {
        let fits = |v: &&CacheView| CacheView { cache: k.cache, ..(*v).clone() } == k;
        for v in values.iter().filter(fits) {
            terms.extend(raised(graph, id, score, (positions, window), &k, v));
        }
    }
    terms
}

fn raised(
    graph: &Graph,
    id: Id,
    score: &Scores,
    (positions, window): (Id, Option<u32>),
    k: &CacheView,
    v: &CacheView,
) -> Option<Term> {
    let query_shape = shape(graph, score.q);
    let rows = query_shape[query_shape.len().checked_sub(2)?];
    let heads: u64 = k.heads.iter().map(|head| head.extent()).product();
    let attr = AttentionAttr {
        heads: u32::try_from(heads).ok()?,
        kv_heads: u32::try_from(k.kv_heads).ok()?,
        head_dim: u32::try_from(k.head_dim).ok()?,
        scale: F32(score.scale),
        window,
        softcap: score.softcap.map(F32),
    };
    let layout = HeadLayout::new(&k.heads, rows, k.head_dim);
    let q = layout.gather(Term::Have(score.q), heads.checked_mul(k.head_dim)?);
    let positions = Term::Have(positions).reshape([rows]);
    let operands = vec![q, k.cache.into(), v.cache.into(), positions];
    let out = Term::Make(Op::Attention { attr }, operands);
    Some(layout.scatter(out, shape(graph, id)))
}

/// Between `[head factors…, T, D]` and `[T, kv_heads, group, D]`.
struct HeadLayout {
    /// Extents of the head factors, T, D.
    split: Shape,
    /// Extents of T, the factors in the order of `attention`, D.
    joined: Shape,
    /// From split to joined.
    perm: Vec<u32>,
}

impl HeadLayout {
    fn new(heads: &[HeadFactor], rows: Dim, head_dim: u64) -> HeadLayout {
        let count = heads.len();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|&i| matches!(heads[i], HeadFactor::Group(_)));
        let extent = |&i: &usize| Dim::Const(heads[i].extent());
        let tail = Dim::Const(head_dim);
        let natural: Vec<usize> = (0..count).collect();
        let split = natural.iter().map(extent).chain([rows, tail]).collect();
        let joined = [rows].into_iter().chain(order.iter().map(extent)).chain([tail]).collect();
        let perm = [&[count], &order[..], &[count + 1]].concat();
        HeadLayout { split, joined, perm: perm.into_iter().map(|i| i as u32).collect() }
    }

    /// To `[T, heads · D]`.
    fn gather(&self, x: Term, width: u64) -> Term {
        let rows = self.joined[0];
        x.reshape(self.split.clone())
            .transpose(self.perm.clone())
            .reshape([rows, Dim::Const(width)])
    }

    /// From `[T, heads · D]` to `shape`.
    fn scatter(&self, x: Term, shape: &Shape) -> Term {
        let mut inverse = vec![0; self.perm.len()];
        for (to, &from) in self.perm.iter().enumerate() {
            inverse[from as usize] = to as u32;
        }
        x.reshape(self.joined.clone()).transpose(inverse).reshape(shape.clone())
    }
}
