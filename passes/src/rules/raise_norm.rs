//! `norm` from the ways to write an RMS norm:
//!
//! ```text
//! (x · r) · w    x · (r · w)    (x · w) · r    (x / d) · w    (x · w) / d
//! r = rsqrt(m + eps)   d = sqrt(m + eps)   m = mean(x·x) or sum(x·x) / n or sum(x·x) · (1/n)
//! ```

use super::Numerics::Reassociates;
use super::Rule;
use crate::egraph::view::{View, views, views_as};
use crate::egraph::{Graph, Term, binary, const_elements, ops, same, shape, splat, unary};
use egg::Id;
use waveloom_ir::{BinaryOp, F32, Op, Shape, UnaryOp};

/// RMS norms over the last dimension.
pub const RULES: &[Rule] = &[Rule::find(Reassociates, "raise-norm", raise_norm)];

fn raise_norm(graph: &Graph, id: Id) -> Vec<Term> {
    let matcher = Matcher { graph, rows: shape(graph, id) };
    let mut terms = vec![];
    for (x, weight, eps) in matcher.norms(id) {
        if shape(graph, x) != matcher.rows {
            continue;
        }
        for weight in matcher.weights(weight) {
            terms.push(Term::Make(Op::Norm { eps }, vec![x.into(), weight]));
        }
    }
    terms
}

struct Matcher<'g> {
    graph: &'g Graph,
    /// Shape of what is normalized.
    rows: &'g Shape,
}

impl Matcher<'_> {
    /// (x, weight, eps) of every way to read `id` as a norm.
    fn norms(&self, id: Id) -> Vec<(Id, Id, F32)> {
        let graph = self.graph;
        let mut found = vec![];
        for (a, b) in binary(graph, id, BinaryOp::Mul) {
            // w · (x · r) and w · (x / d)
            found.extend(self.normalized(b).into_iter().map(|(x, eps)| (x, a, eps)));
            for (x, eps) in self.inverse_rms(b) {
                // (x · w) · r
                found.extend(self.cofactors(a, x).map(|w| (x, w, eps)));
            }
            for (p, q) in binary(graph, b, BinaryOp::Mul) {
                // x · (w · r)
                let inverse = self.inverse_rms(q).into_iter();
                let of_x = inverse.filter(|&(x, _)| same(graph, x, a));
                found.extend(of_x.map(|(x, eps)| (x, p, eps)));
            }
        }
        for (a, d) in binary(graph, id, BinaryOp::Div) {
            for (x, eps) in self.rms(d) {
                // (x · w) / d
                found.extend(self.cofactors(a, x).map(|w| (x, w, eps)));
            }
        }
        found
    }

    /// w of every x · w.
    fn cofactors(&self, product: Id, x: Id) -> impl Iterator<Item = Id> {
        let products = binary(self.graph, product, BinaryOp::Mul);
        products.filter(move |&(a, _)| same(self.graph, a, x)).map(|(_, w)| w)
    }

    /// x · r or x / d.
    fn normalized(&self, id: Id) -> Vec<(Id, F32)> {
        let products = binary(self.graph, id, BinaryOp::Mul);
        let quotients = binary(self.graph, id, BinaryOp::Div);
        let products =
            products.flat_map(|(x, r)| self.inverse_rms(r).into_iter().map(move |m| (x, m)));
        let quotients = quotients.flat_map(|(x, d)| self.rms(d).into_iter().map(move |m| (x, m)));
        let of_x = products.chain(quotients).filter(|(x, (of, _))| same(self.graph, *x, *of));
        of_x.map(|(_, found)| found).collect()
    }

    /// rsqrt(mean(x²) + eps) for each row.
    fn inverse_rms(&self, id: Id) -> Vec<(Id, F32)> {
        let bases = per_row(self.graph, id, self.rows).into_iter();
        let means = bases.flat_map(|b| unary(self.graph, b, UnaryOp::Rsqrt));
        means.flat_map(|m| self.mean_square_plus_eps(m)).collect()
    }

    /// sqrt(mean(x²) + eps) for each row.
    fn rms(&self, id: Id) -> Vec<(Id, F32)> {
        let bases = per_row(self.graph, id, self.rows).into_iter();
        let means = bases.flat_map(|b| unary(self.graph, b, UnaryOp::Sqrt));
        means.flat_map(|m| self.mean_square_plus_eps(m)).collect()
    }

    fn mean_square_plus_eps(&self, id: Id) -> Vec<(Id, F32)> {
        let graph = self.graph;
        let mut found = vec![];
        for base in same_elements(graph, id) {
            for (mean, eps) in binary(graph, base, BinaryOp::Add) {
                if let Some(eps) = splat(graph, eps) {
                    found.extend(self.mean_square(mean).into_iter().map(|x| (x, F32(eps))));
                }
            }
            found.extend(self.mean_square(base).into_iter().map(|x| (x, F32(0.0))));
        }
        found
    }

    /// x of mean(x·x) over the last axis.
    fn mean_square(&self, id: Id) -> Vec<Id> {
        let graph = self.graph;
        let mut found = vec![];
        for base in same_elements(graph, id) {
            found.extend(self.square_reduced(base, |op| matches!(op, Op::ReduceMean { .. })));
            let scaled = binary(graph, base, BinaryOp::Mul).map(|(sum, c)| (sum, c, true));
            let divided = binary(graph, base, BinaryOp::Div).map(|(sum, c)| (sum, c, false));
            for (sum, c, inverse) in scaled.chain(divided) {
                if splat(graph, c).is_some_and(|c| self.is_row_length(c, inverse)) {
                    let sums = same_elements(graph, sum).into_iter();
                    found.extend(sums.flat_map(|sum| {
                        self.square_reduced(sum, |op| matches!(op, Op::ReduceSum { .. }))
                    }));
                }
            }
        }
        found
    }

    fn is_row_length(&self, c: f32, inverse: bool) -> bool {
        let n = self.rows.last().and_then(|&dim| const_elements(&[dim]));
        n.is_some_and(|n| c == if inverse { (n as f32).recip() } else { n as f32 })
    }

    /// x of the reductions of x·x over the last axis.
    fn square_reduced(&self, id: Id, reduces: fn(&Op) -> bool) -> Vec<Id> {
        let graph = self.graph;
        let last = self.rows.len().checked_sub(1);
        let over_rows = ops(graph, id).filter(|(op, args)| {
            let axis = match op {
                Op::ReduceMean { axis } | Op::ReduceSum { axis } => Some(*axis as usize),
                _ => None,
            };
            reduces(op) && axis.is_some() && axis == last && shape(graph, args[0]) == self.rows
        });
        let squares = over_rows.flat_map(|(_, args)| binary(graph, args[0], BinaryOp::Mul));
        squares.filter(|(a, b)| same(graph, *a, *b)).map(|(x, _)| x).collect()
    }

    /// A value that is the same for every row, as the operand of a `norm`: `[n]`, in stored form
    /// where it has one.
    fn weights(&self, id: Id) -> Vec<Term> {
        let graph = self.graph;
        let Some(last) = self.rows.len().checked_sub(1) else {
            return vec![];
        };
        let is_weight = |view: &View| {
            let (base, n) = (shape(graph, view.base), self.rows[last]);
            let one_row =
                (0..last).all(|axis| view.repeats(axis)) && view.whole_axis(last) == Some(0);
            one_row && base[..] == [n]
        };
        let found = views_as(graph, id, self.rows).into_iter().filter(is_weight);
        found.map(|view| view.base.into()).collect()
    }
}

/// Values that `id`, broadcast to `rows`, is a view of with one element for each row, in order.
pub fn per_row(graph: &Graph, id: Id, rows: &Shape) -> Vec<Id> {
    let one_per_row = |view: &View| {
        let base = View::identity(view.base, shape(graph, view.base));
        let Some((last, lead)) = view.axes.split_last() else {
            return false;
        };
        let constant = last.iter().all(|digit| digit.steps.is_none());
        let lead = View { axes: lead.to_vec(), ..view.clone() };
        let complete = lead.digits() == base.digits() && view.starts_at_origin();
        constant && complete && !view.stored
    };
    let found = views_as(graph, id, rows).into_iter().filter(one_per_row);
    found.map(|view| view.base).collect()
}

/// Values with the same elements in the same order, under any shape; the first is `id`.
pub fn same_elements(graph: &Graph, id: Id) -> Vec<Id> {
    let views = views(graph, id);
    let found = views.iter().filter(|view| view.is_reshape(graph));
    found.map(|view| view.base).collect()
}
