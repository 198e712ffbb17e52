//! Attention masks as linear inequalities.
//!
//! A mask leaves a score visible or makes it so small that its weight is 0. Its condition compares
//! the query's position p with the index j of the cache row; each comparison is brought to α·p +
//! β·j + γ ≥ 0, so it does not matter how a front end turns it around.

use super::regrouped;
use crate::egraph::view::{View, is_source, views_as};
use crate::egraph::{Graph, binary, ops, same, shape, splat, ty, unary};
use egg::Id;
use waveloom_ir::{BinaryOp, DType, Dim, Op, Shape, UnaryOp};

/// Below this a score is masked: next to any score that a model computes, e to it underflows to 0.
const MASKED_BELOW: f32 = -1e4;

/// How deep nested masks and conditions may be.
const MAX_DEPTH: usize = 16;

/// α·p + β·j + γ ≥ 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inequality {
    alpha: i64,
    beta: i64,
    gamma: i64,
}

/// What is visible: rows for which every inequality holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    positions: Option<Id>,
    all: Vec<Inequality>,
}

impl Mask {
    /// The positions of a causal mask and its window; `None` where it is another mask.
    pub fn causal(&self) -> Option<(Id, Option<u32>)> {
        let mut causal = false;
        let mut window: Option<u32> = None;
        for inequality in &self.all {
            match *inequality {
                // j ≤ p
                Inequality { alpha: 1, beta: -1, gamma: 0 } => causal = true,
                // p − j < gamma + 1
                Inequality { alpha: -1, beta: 1, gamma } if gamma >= 0 => {
                    let seen = u32::try_from(gamma.checked_add(1)?).ok()?;
                    window = Some(window.map_or(seen, |w| w.min(seen)));
                }
                _ => return None,
            }
        }
        causal.then_some((self.positions?, window))
    }

    /// Visible in both.
    fn and(mut self, graph: &Graph, other: &Mask) -> Option<Mask> {
        match (self.positions, other.positions) {
            (Some(a), Some(b)) if !same(graph, a, b) => return None,
            (None, b) => self.positions = b,
            _ => {}
        }
        self.all.extend(&other.all);
        Some(self)
    }
}

/// Every way to read logits `[…, T, S]` as masked scores; the first is no mask.
pub fn masked(graph: &Graph, logits: Id) -> Vec<(Id, Mask)> {
    let mut found = vec![];
    collect(graph, logits, &Mask::default(), 0, &mut found);
    found
}

fn collect(graph: &Graph, logits: Id, outer: &Mask, depth: usize, found: &mut Vec<(Id, Mask)>) {
    found.push((logits, outer.clone()));
    if depth == MAX_DEPTH {
        return;
    }
    for z in regrouped(graph, logits) {
        let Some(axes) = Axes::of_scores(shape(graph, z)) else {
            continue;
        };
        let reader = Reader { graph, extents: axes.extents };
        for (scores, mask) in reader.layers(z, &axes) {
            let keeps_shape = shape(graph, scores) == shape(graph, z);
            if let Some(mask) = outer.clone().and(graph, &mask)
                && keeps_shape
            {
                collect(graph, scores, &mask, depth + 1, found);
            }
        }
    }
}

/// Where the query rows and the cache rows run in a value.
#[derive(Clone, Debug)]
struct Axes {
    shape: Shape,
    /// Axis of the query row, if the value depends on it.
    row: Option<usize>,
    /// Axis of the cache row.
    column: Option<usize>,
    /// Numbers of rows and columns.
    extents: [Dim; 2],
}

impl Axes {
    fn of_scores(shape: &Shape) -> Option<Axes> {
        let row = shape.len().checked_sub(2)?;
        Some(Axes {
            shape: shape.clone(),
            row: Some(row),
            column: Some(row + 1),
            extents: [shape[row], shape[row + 1]],
        })
    }

    /// The same axes in the base of a view of a value that has these.
    fn within(&self, graph: &Graph, view: &View) -> Option<Axes> {
        let plain = !view.stored && view.starts_at_origin();
        let follow = |axis: Option<usize>| match axis {
            Some(axis) if !view.repeats(axis) => Some(Some(view.whole_axis(axis)? as usize)),
            _ => Some(None),
        };
        let (row, column) = (follow(self.row)?, follow(self.column)?);
        let others =
            (0..view.axes.len()).filter(|&a| Some(a) != self.row && Some(a) != self.column);
        let only_these = others.into_iter().all(|axis| view.repeats(axis));
        (plain && only_these).then(|| Axes {
            shape: shape(graph, view.base).clone(),
            row,
            column,
            extents: self.extents,
        })
    }
}

/// α·p + β·j + γ, where p is a value of one i32 per query row.
#[derive(Clone, Copy, Debug, Default)]
struct Linear {
    positions: Option<Id>,
    alpha: i64,
    beta: i64,
    gamma: i64,
}

impl Linear {
    fn scaled(self, by: i64) -> Option<Linear> {
        Some(Linear {
            alpha: self.alpha.checked_mul(by)?,
            beta: self.beta.checked_mul(by)?,
            gamma: self.gamma.checked_mul(by)?,
            ..self
        })
    }

    fn plus(self, graph: &Graph, other: Linear) -> Option<Linear> {
        let positions = match (self.positions, other.positions) {
            (Some(a), Some(b)) if !same(graph, a, b) => return None,
            (a, b) => a.or(b),
        };
        Some(Linear {
            positions,
            alpha: self.alpha.checked_add(other.alpha)?,
            beta: self.beta.checked_add(other.beta)?,
            gamma: self.gamma.checked_add(other.gamma)?,
        })
    }
}

struct Reader<'g> {
    graph: &'g Graph,
    extents: [Dim; 2],
}

impl Reader<'_> {
    /// One mask taken off: the scores under it, and what it leaves visible.
    fn layers(&self, z: Id, axes: &Axes) -> Vec<(Id, Mask)> {
        let graph = self.graph;
        let mut found = vec![];
        for (op, args) in ops(graph, z) {
            let (Op::Select {}, &[condition, a, b]) = (op, args) else {
                continue;
            };
            if self.is_masking(b) {
                let mask = self.condition(condition, axes, true, 0);
                found.extend(mask.map(|mask| (a, mask)));
            }
            if self.is_masking(a) {
                let mask = self.condition(condition, axes, false, 0);
                found.extend(mask.map(|mask| (b, mask)));
            }
        }
        for (scores, added) in binary(graph, z, BinaryOp::Add) {
            found.extend(self.additive(added, axes, 0).map(|mask| (scores, mask)));
        }
        found
    }

    fn is_masking(&self, id: Id) -> bool {
        splat(self.graph, id).is_some_and(|value| value <= MASKED_BELOW)
    }

    fn is_zero(&self, id: Id) -> bool {
        splat(self.graph, id) == Some(0.0)
    }

    /// The bases that a value with these axes is a view of, with their axes.
    fn bases(&self, id: Id, axes: &Axes) -> Vec<(Id, Axes)> {
        let views = views_as(self.graph, id, &axes.shape).into_iter();
        let within = views.filter_map(|view| Some((view.base, axes.within(self.graph, &view)?)));
        within.collect()
    }

    /// A value that is 0 where visible and very negative elsewhere.
    fn additive(&self, id: Id, axes: &Axes, depth: usize) -> Option<Mask> {
        if depth == MAX_DEPTH {
            return None;
        }
        let bases = self.bases(id, axes);
        bases.iter().find_map(|(base, axes)| self.additive_base(*base, axes, depth))
    }

    fn additive_base(&self, id: Id, axes: &Axes, depth: usize) -> Option<Mask> {
        let graph = self.graph;
        let selected = ops(graph, id).find_map(|(op, args)| {
            let (Op::Select {}, &[condition, a, b]) = (op, args) else {
                return None;
            };
            if self.is_zero(a) && self.is_masking(b) {
                self.condition(condition, axes, true, 0)
            } else if self.is_zero(b) && self.is_masking(a) {
                self.condition(condition, axes, false, 0)
            } else {
                None
            }
        });
        selected
            .or_else(|| {
                // A 0/1 indicator times a very negative number.
                let mut products =
                    binary(graph, id, BinaryOp::Mul).filter(|&(_, c)| self.is_masking(c));
                products.find_map(|(hidden, _)| self.indicator(hidden, axes, false))
            })
            .or_else(|| {
                // Two masks added.
                binary(graph, id, BinaryOp::Add).find_map(|(a, b)| {
                    let a = self.additive(a, axes, depth + 1)?;
                    a.and(graph, &self.additive(b, axes, depth + 1)?)
                })
            })
    }

    /// A value that is 1 where hidden (or, with `visible`, where visible), and 0 elsewhere.
    fn indicator(&self, id: Id, axes: &Axes, visible: bool) -> Option<Mask> {
        let graph = self.graph;
        self.bases(id, axes).iter().find_map(|(base, axes)| {
            let mut casts = ops(graph, *base).filter(|(op, _)| matches!(op, Op::Cast { .. }));
            let cast = casts.find_map(|(_, args)| {
                let is_condition = ty(graph, args[0]).dtype == DType::Bool;
                is_condition.then(|| self.condition(args[0], axes, visible, 0))?
            });
            cast.or_else(|| {
                let mut complements = binary(graph, *base, BinaryOp::Sub);
                complements.find_map(|(one, x)| {
                    let is_complement = splat(graph, one) == Some(1.0);
                    is_complement.then(|| self.indicator(x, axes, !visible))?
                })
            })
        })
    }

    /// Where a condition is `truth`, as a conjunction.
    fn condition(&self, id: Id, axes: &Axes, truth: bool, depth: usize) -> Option<Mask> {
        if depth == MAX_DEPTH {
            return None;
        }
        let bases = self.bases(id, axes);
        bases.iter().find_map(|(base, axes)| self.condition_base(*base, axes, truth, depth))
    }

    fn condition_base(&self, id: Id, axes: &Axes, truth: bool, depth: usize) -> Option<Mask> {
        let graph = self.graph;
        // Both hold; or neither does.
        let joint = if truth { BinaryOp::And } else { BinaryOp::Or };
        let both = binary(graph, id, joint).find_map(|(a, b)| {
            let a = self.condition(a, axes, truth, depth + 1)?;
            a.and(graph, &self.condition(b, axes, truth, depth + 1)?)
        });
        both.or_else(|| {
            binary(graph, id, BinaryOp::Lt).find_map(|(a, b)| self.compare(a, b, axes, truth, true))
        })
        .or_else(|| {
            binary(graph, id, BinaryOp::Le)
                .find_map(|(a, b)| self.compare(a, b, axes, truth, false))
        })
    }

    /// a < b (`strict`) or a ≤ b, or the opposite, between integers.
    fn compare(&self, a: Id, b: Id, axes: &Axes, truth: bool, strict: bool) -> Option<Mask> {
        let a = self.linear(a, axes, 0)?;
        let b = self.linear(b, axes, 0)?;
        // a < b is b − a − 1 ≥ 0; not a < b is a − b ≥ 0; and so on.
        let (more, less) = if truth { (b, a) } else { (a, b) };
        let gap = Linear { gamma: -i64::from(strict == truth), ..Linear::default() };
        let difference = more.plus(self.graph, less.scaled(-1)?)?.plus(self.graph, gap)?;
        Some(Mask {
            positions: difference.positions,
            all: vec![Inequality {
                alpha: difference.alpha,
                beta: difference.beta,
                gamma: difference.gamma,
            }],
        })
    }

    fn linear(&self, id: Id, axes: &Axes, depth: usize) -> Option<Linear> {
        if depth == MAX_DEPTH {
            return None;
        }
        if let Some(value) = splat(self.graph, id) {
            let gamma = (value.fract() == 0.0 && value.abs() < 1e9).then_some(value as i64)?;
            return Some(Linear { gamma, ..Linear::default() });
        }
        let bases = self.bases(id, axes);
        let computed = bases.iter().find_map(|(base, axes)| {
            self.cache_row(*base, axes).or_else(|| self.arithmetic(*base, axes, depth))
        });
        // What reshapes begin with comes first, so that two masks name the positions alike.
        let (sources, rest): (Vec<_>, Vec<_>) =
            bases.iter().partition(|(base, _)| is_source(self.graph, *base));
        let mut candidates = sources.into_iter().chain(rest);
        computed.or_else(|| candidates.find_map(|(base, axes)| self.position(*base, axes)))
    }

    /// j: counts up along the columns.
    fn cache_row(&self, id: Id, axes: &Axes) -> Option<Linear> {
        let counts = ops(self.graph, id).any(|(op, _)| matches!(op, Op::Iota { .. }));
        (counts && axes.column == Some(0)).then_some(Linear { beta: 1, ..Linear::default() })
    }

    fn arithmetic(&self, id: Id, axes: &Axes, depth: usize) -> Option<Linear> {
        let graph = self.graph;
        let read = |id: Id| self.linear(id, axes, depth + 1);
        let sums =
            binary(graph, id, BinaryOp::Add).find_map(|(a, b)| read(a)?.plus(graph, read(b)?));
        sums.or_else(|| {
            let mut differences = binary(graph, id, BinaryOp::Sub);
            differences.find_map(|(a, b)| read(a)?.plus(graph, read(b)?.scaled(-1)?))
        })
        .or_else(|| unary(graph, id, UnaryOp::Neg).find_map(|x| read(x)?.scaled(-1)))
        .or_else(|| {
            let mut casts = ops(graph, id).filter(|(op, _)| is_exact_cast(op));
            casts.find_map(|(_, args)| {
                (ty(graph, args[0]).dtype == DType::I32).then(|| read(args[0]))?
            })
        })
    }

    /// p: one i32 per row.
    fn position(&self, id: Id, axes: &Axes) -> Option<Linear> {
        let ty = ty(self.graph, id);
        let mut extents = ty.shape.iter().filter(|&&dim| dim != Dim::Const(1));
        let rows = self.extents[0];
        let one_per_row = match (extents.next(), extents.next()) {
            (Some(&extent), None) => extent == rows && axes.row.is_some(),
            (None, _) => rows == Dim::Const(1),
            _ => false,
        };
        (one_per_row && axes.column.is_none() && ty.dtype == DType::I32).then_some(Linear {
            positions: Some(id),
            alpha: 1,
            ..Linear::default()
        })
    }
}

/// Positions are small enough to be exact in f32.
fn is_exact_cast(op: &Op) -> bool {
    matches!(op, Op::Cast { dtype: DType::F32 | DType::I32 })
}
