//! `rope` from the ways to write a rotary embedding in the rotate-half convention:
//!
//! ```text
//! x · C + concat(−x₂, x₁) · S                   C, S: full width, both halves the same
//! concat(x₁ · c − x₂ · s, x₂ · c + x₁ · s)      c, s: half width
//! ```
//!
//! where x₁ and x₂ are the halves of x's last dimension and one leading axis is the position; x
//! may have its heads before or after the positions.

use super::Numerics::Reassociates;
use super::Rule;
use crate::egraph::view::{Factor, View, views, views_as};
use crate::egraph::{Graph, Term, binary, const_elements, ops, shape, ty, unary};
use egg::Id;
use waveloom_ir::{BinaryOp, DType, Dim, Op, Shape, UnaryOp};

/// Both forms.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    Rule::find(Reassociates, "raise-rope-full-width", raise_full_width),
    Rule::find(Reassociates, "raise-rope-halves",     raise_halves),
];

fn raise_full_width(graph: &Graph, id: Id) -> Vec<Term> {
    let Some(matcher) = Matcher::new(graph, id) else {
        return vec![];
    };
    let mut terms = vec![];
    for (p, q) in binary(graph, id, BinaryOp::Add) {
        for (rotated, sin) in binary(graph, q, BinaryOp::Mul) {
            for (x, cos) in binary(graph, p, BinaryOp::Mul) {
                if shape(graph, x) == matcher.shape && matcher.is_rotated_half(rotated, x) {
                    terms.extend(matcher.rope(x.into(), cos, sin, matcher.shape));
                }
            }
        }
    }
    terms
}

fn raise_halves(graph: &Graph, id: Id) -> Vec<Term> {
    let Some(matcher) = Matcher::new(graph, id) else {
        return vec![];
    };
    let mut terms = vec![];
    for (left, right) in matcher.joined_halves(id) {
        for (p, q) in binary(graph, left, BinaryOp::Sub) {
            for (r, t) in binary(graph, right, BinaryOp::Add) {
                terms.extend(matcher.halves(p, q, r, t));
            }
        }
    }
    terms
}

struct Matcher<'g> {
    graph: &'g Graph,
    /// Shape of x.
    shape: &'g Shape,
    /// Shape of half of x.
    half_shape: Shape,
    /// Half of the last extent.
    half: u64,
}

impl<'g> Matcher<'g> {
    fn new(graph: &'g Graph, id: Id) -> Option<Matcher<'g>> {
        let shape = shape(graph, id);
        let width = const_elements(shape.last().map(std::slice::from_ref)?)?;
        let fits = width > 0 && width % 2 == 0 && shape.len() >= 2;
        let mut half_shape = shape.clone();
        *half_shape.last_mut()? = Dim::Const(width / 2);
        (fits && ty(graph, id).dtype == DType::F32).then_some(Matcher {
            graph,
            shape,
            half_shape,
            half: width / 2,
        })
    }

    fn last(&self) -> usize {
        self.shape.len() - 1
    }

    /// Whether `id` is half `which` of x's last dimension.
    fn is_half(&self, id: Id, x: Id, which: u64) -> bool {
        if *shape(self.graph, id) != self.half_shape {
            return false;
        }
        let start = which * self.half;
        let halves: Vec<View> = views(self.graph, x)
            .iter()
            .filter_map(|view| view.slice(self.last(), start, Dim::Const(self.half)))
            .collect();
        views(self.graph, id).iter().any(|view| halves.contains(view))
    }

    /// The two operands of concatenations along the last axis.
    fn joined_halves(&self, id: Id) -> impl Iterator<Item = (Id, Id)> {
        let (last, graph) = (self.last(), self.graph);
        ops(graph, id).filter_map(move |(op, args)| match (op, args) {
            (Op::Concat { axis }, &[a, b]) if *axis as usize == last => Some((a, b)),
            _ => None,
        })
    }

    /// Whether `id` is concat(−x₂, x₁).
    fn is_rotated_half(&self, id: Id, x: Id) -> bool {
        self.joined_halves(id).any(|(negated, first)| {
            let mut second = unary(self.graph, negated, UnaryOp::Neg);
            self.is_half(first, x, 0) && second.any(|second| self.is_half(second, x, 1))
        })
    }

    /// The rope of x₁·c − x₂·s and x₂·c + x₁·s, given the four products.
    fn halves(&self, x1c: Id, x2s: Id, x2c: Id, x1s: Id) -> Vec<Term> {
        let graph = self.graph;
        let mut terms = vec![];
        for (x1, c) in binary(graph, x1c, BinaryOp::Mul) {
            for (x2, s) in binary(graph, x2s, BinaryOp::Mul) {
                let product = |id: Id, a: Id, b: Id| {
                    let mut products = binary(graph, id, BinaryOp::Mul);
                    products.any(|(p, q)| self.equal(p, a) && self.equal(q, b))
                };
                if product(x2c, x2, c) && product(x1s, x1, s) {
                    let whole = self.whole(x1, x2).into_iter();
                    terms.extend(whole.flat_map(|x| self.rope(x, c, s, &self.half_shape)));
                }
            }
        }
        terms
    }

    fn equal(&self, a: Id, b: Id) -> bool {
        crate::egraph::same(self.graph, a, b)
    }

    /// x of its halves.
    fn whole(&self, x1: Id, x2: Id) -> Vec<Term> {
        if [x1, x2].iter().any(|&x| *shape(self.graph, x) != self.half_shape) {
            return vec![];
        }
        let second = views(self.graph, x2);
        let first = views(self.graph, x1);
        let wholes = first.iter().cloned().filter_map(|mut view| {
            let digit = view.axes[self.last()].last_mut()?;
            (digit.extent == Dim::Const(self.half)).then_some(())?;
            digit.extent = Dim::Const(2 * self.half);
            let halves_match =
                second.contains(&view.slice(self.last(), self.half, Dim::Const(self.half))?);
            let term = view.realize(self.graph, self.shape)?;
            halves_match.then_some(term)
        });
        wholes.collect()
    }

    /// Angles `[rows, half]` of a factor of x or of its half (`shape`), and the axis of the rows.
    fn angles(&self, id: Id, shape: &Shape) -> Vec<(Id, usize)> {
        let last = self.last();
        let found = views_as(self.graph, id, shape).into_iter().filter_map(|view| {
            let digit = half_width(&view.axes[last], *shape.last()?, self.half)?;
            let row = self.row_axis(&view)?;
            let table = View { axes: vec![view.axes[row].clone(), vec![digit]], ..view };
            table.is_reshape(self.graph).then_some((table.base, row))
        });
        found.collect()
    }

    /// The one leading axis along which angles differ; where there is a single row, an axis of 1.
    fn row_axis(&self, view: &View) -> Option<usize> {
        let mut varying = (0..self.last()).filter(|&axis| !view.repeats(axis));
        match (varying.next(), varying.next()) {
            (Some(axis), None) => Some(axis),
            (None, None) => self.shape[..self.last()].iter().position(|&d| d == Dim::Const(1)),
            _ => None,
        }
    }

    /// `rope` of x in any order of its leading axes.
    fn rope(&self, x: Term, cos: Id, sin: Id, angle_shape: &Shape) -> Vec<Term> {
        let sines = self.angles(sin, angle_shape);
        let cosines = self.angles(cos, angle_shape).into_iter();
        let pairs = cosines.flat_map(|(cos, row)| {
            let sines = sines.iter().filter(move |(_, of)| *of == row);
            sines.map(move |&(sin, _)| (cos, sin, row))
        });
        pairs.filter_map(|(cos, sin, row)| self.rope_by_row(x.clone(), cos, sin, row)).collect()
    }

    fn rope_by_row(&self, x: Term, cos: Id, sin: Id, row: usize) -> Option<Term> {
        let last = self.last();
        let lead = |axis: &usize| *axis != row && *axis != last;
        let heads_axes: Vec<usize> = (0..last).filter(lead).collect();
        let heads: Vec<Dim> = heads_axes.iter().map(|&axis| self.shape[axis]).collect();
        let heads = Dim::Const(const_elements(&heads)?);
        let rows = self.shape[row];
        let order: Vec<u32> =
            [&[row], &heads_axes[..], &[last]].concat().iter().map(|&i| i as u32).collect();
        let moved: Shape = order.iter().map(|&i| self.shape[i as usize]).collect();
        let back: Option<Vec<u32>> = (0..=last as u32)
            .map(|axis| order.iter().position(|&i| i == axis).map(|i| i as u32))
            .collect();
        let angles = |id: Id| Term::Have(id).reshape([rows, Dim::Const(self.half)]);
        let width = Dim::Const(2 * self.half);
        let x = x.transpose(order).reshape([rows, heads, width]);
        let rope = Term::Make(Op::Rope {}, vec![x, angles(cos), angles(sin)]);
        Some(rope.reshape(moved).transpose(back?))
    }
}

/// The digit of the half-width table in a last axis of extent `width`: the axis itself, or repeated
/// twice.
fn half_width(axis: &[Factor], width: Dim, half: u64) -> Option<Factor> {
    let is_half = |digit: &Factor| digit.extent == Dim::Const(half) && digit.steps.is_some();
    match axis {
        [digit] if width == Dim::Const(half) && is_half(digit) => Some(*digit),
        [Factor { extent: Dim::Const(2), steps: None }, digit] if is_half(digit) => Some(*digit),
        _ => None,
    }
}
