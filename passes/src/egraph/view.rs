//! Shape ops as index maps, so that rules see through any chain of them.
//!
//! A [`View`] says where element `[i, j, …]` of a value lies in another value, its base: every
//! axis of the value is a mixed-radix number whose digits each step through one axis of the base,
//! or repeat it. `reshape`, `transpose`, `slice`, `broadcast`, and `concat` of a value with itself
//! are all of this form, so two front ends that lay heads out differently end in the same view.

use super::{Graph, Term, shape, ty};
use egg::Id;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use waveloom_ir::{DType, Dim, Op, Shape};

/// One digit of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Factor {
    /// How many values the digit takes; never 1.
    pub extent: Dim,
    /// The axis of the base that it steps along and by how much; `None` where it repeats.
    pub steps: Option<(u32, u64)>,
}

/// Where the elements of a value lie in its base.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// The value looked into.
    pub base: Id,
    /// Whether the value is the base converted to f32 from its stored form.
    pub stored: bool,
    /// Where the first element lies, by axis of the base.
    pub offsets: Vec<u64>,
    /// Digits of every axis, most significant first; none where the extent is 1.
    pub axes: Vec<Vec<Factor>>,
}

/// How many views of one value are looked at.
const MAX_VIEWS: usize = 128;

/// The views of every class, worked out once per round of rewriting. What a round adds is seen in
/// the next; until then the views that are here stay true.
#[derive(Clone, Debug, Default)]
pub struct ViewTable(RefCell<Option<BTreeMap<Id, Rc<[View]>>>>);

impl ViewTable {
    /// Forgets everything: the next look works it out anew.
    pub fn clear(&self) {
        self.0.replace(None);
    }
}

/// Every known way to see a class as a view of another; the first is the class itself.
pub fn views(graph: &Graph, id: Id) -> Rc<[View]> {
    let id = graph.find(id);
    let mut table = graph.analysis.views.0.borrow_mut();
    let table = table.get_or_insert_with(|| all_views(graph));
    let known = table.get(&id).cloned();
    known.unwrap_or_else(|| Rc::new([View::identity(id, shape(graph, id))]))
}

/// The views of a class broadcast to `shape`, as an operand of an elementwise op is.
pub fn views_as(graph: &Graph, id: Id, shape: &Shape) -> Vec<View> {
    views(graph, id).iter().filter_map(|v| v.broadcast(shape)).collect()
}

/// Takes views through shape ops until there are no new ones.
fn all_views(graph: &Graph) -> BTreeMap<Id, Rc<[View]>> {
    let mut table: BTreeMap<Id, Vec<View>> = BTreeMap::new();
    // Which class an op makes, the op, its operand, how many views of the operand went through.
    let mut edges = vec![];
    for class in graph.classes().filter(|class| class.data.types.len() == 1) {
        table.insert(class.id, vec![View::identity(class.id, shape(graph, class.id))]);
        let ops = super::ops(graph, class.id).filter(|(op, args)| is_shape_op(graph, op, args));
        edges.extend(ops.map(|(op, args)| (class.id, op, graph.find(args[0]), args.len(), 0)));
    }
    let mut changed = true;
    while std::mem::take(&mut changed) {
        for (id, op, operand, operands, done) in &mut edges {
            let fresh: Vec<View> = table[operand][*done..].to_vec();
            *done += fresh.len();
            for view in fresh.iter().filter_map(|view| view.apply(op, *operands as u64)) {
                let known = table.entry(*id).or_default();
                if known.len() < MAX_VIEWS && !known.contains(&view) {
                    known.push(view);
                    changed = true;
                }
            }
        }
    }
    table.into_iter().map(|(id, views)| (id, views.into())).collect()
}

/// Whether a class is made by something else than shape ops: where chains of them begin.
pub fn is_source(graph: &Graph, id: Id) -> bool {
    let nodes = &graph[id].nodes;
    nodes.iter().any(|node| match &node.head {
        super::Head::Op(op) => !is_shape_op(graph, op, &node.children),
        super::Head::Param(_) | super::Head::Project(_) | super::Head::Results => true,
    })
}

fn is_shape_op(graph: &Graph, op: &Op, args: &[Id]) -> bool {
    match op {
        Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Broadcast { .. }
        | Op::Dequantize {} => true,
        Op::Concat { .. } => args.iter().all(|&arg| super::same(graph, arg, args[0])),
        Op::Cast { dtype } => *dtype == DType::F32 && ty(graph, args[0]).dtype.is_stored_real(),
        Op::Weight { .. }
        | Op::Call { .. }
        | Op::CacheAppend {}
        | Op::Constant { .. }
        | Op::Iota { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Select {}
        | Op::ReduceSum { .. }
        | Op::ReduceMean { .. }
        | Op::ReduceMax { .. }
        | Op::MatMul {}
        | Op::Gather {}
        | Op::TopK { .. }
        | Op::Embed {}
        | Op::Norm { .. }
        | Op::Rope {}
        | Op::Map { .. }
        | Op::Gemm { .. }
        | Op::Attention { .. }
        | Op::Sample {}
        | Op::DecodeLoop { .. } => false,
    }
}

impl View {
    /// A value as itself.
    pub fn identity(base: Id, shape: &[Dim]) -> View {
        let axes = shape.iter().zip(0..).map(|(&extent, axis)| {
            let whole = Factor { extent, steps: Some((axis, 1)) };
            normal(vec![whole])
        });
        View { base, stored: false, offsets: vec![0; shape.len()], axes: axes.collect() }
    }

    /// The view of `op`'s result, where `self` is that of its operand.
    fn apply(&self, op: &Op, operands: u64) -> Option<View> {
        match op {
            Op::Reshape { shape } => self.reshape(shape),
            Op::Transpose { perm } => Some(self.transpose(perm)),
            Op::Slice { axis, start, len } => self.slice(*axis as usize, *start, *len),
            Op::Broadcast { shape } => self.broadcast(shape),
            Op::Concat { axis } => Some(self.repeat(*axis as usize, operands)),
            Op::Dequantize {} | Op::Cast { .. } => Some(View { stored: true, ..self.clone() }),
            _ => None, // Nothing else passes `is_shape_op`.
        }
    }

    fn with_axes(&self, axes: Vec<Vec<Factor>>) -> View {
        let axes = axes.into_iter().map(normal).collect();
        View { axes, ..self.clone() }
    }

    /// The same elements in row-major order under another shape.
    pub fn reshape(&self, shape: &[Dim]) -> Option<View> {
        let mut digits = self.axes.concat();
        digits.reverse();
        let axes: Option<Vec<_>> = shape.iter().map(|&dim| take(&mut digits, dim)).collect();
        digits.is_empty().then_some(())?;
        Some(self.with_axes(axes?))
    }

    /// Axes in the order `perm`.
    pub fn transpose(&self, perm: &[u32]) -> View {
        let axes = perm.iter().map(|&i| self.axes[i as usize].clone());
        self.with_axes(axes.collect())
    }

    /// `len` indices of an axis from `start`; `None` where they are no product of digits.
    pub fn slice(&self, axis: usize, start: u64, len: Dim) -> Option<View> {
        let mut view = self.clone();
        let digits = std::mem::take(&mut view.axes[axis]);
        view.axes[axis] = match &digits[..] {
            [] => vec![],
            [digit] => vec![view.slice_digit(*digit, start, len)?],
            [outer, rest @ ..] => {
                let (Dim::Const(inner), Dim::Const(len)) = (extent_of(rest)?, len) else {
                    return None;
                };
                if start.is_multiple_of(inner) && len.is_multiple_of(inner) {
                    let outer = view.slice_digit(*outer, start / inner, Dim::Const(len / inner))?;
                    [&[outer], rest].concat()
                } else {
                    return None;
                }
            }
        };
        let axes = std::mem::take(&mut view.axes);
        Some(view.with_axes(axes))
    }

    fn slice_digit(&mut self, digit: Factor, start: u64, len: Dim) -> Option<Factor> {
        if let Some((axis, stride)) = digit.steps {
            let offset = &mut self.offsets[axis as usize];
            *offset = offset.checked_add(start.checked_mul(stride)?)?;
        }
        Some(Factor { extent: len, ..digit })
    }

    /// Repeated to a shape, by the rules of NumPy broadcasting.
    pub fn broadcast(&self, shape: &[Dim]) -> Option<View> {
        let missing = shape.len().checked_sub(self.axes.len())?;
        let axes = shape.iter().enumerate().map(|(i, &extent)| {
            match i.checked_sub(missing).map(|i| &self.axes[i]) {
                Some(digits) if !digits.is_empty() => {
                    (extent_of(digits)? == extent).then(|| digits.clone())
                }
                _ => Some(vec![Factor { extent, steps: None }]),
            }
        });
        let axes: Option<Vec<_>> = axes.collect();
        Some(self.with_axes(axes?))
    }

    /// Joined with itself along an axis.
    fn repeat(&self, axis: usize, times: u64) -> View {
        let mut axes = self.axes.clone();
        let extent = Dim::Const(times);
        axes[axis].insert(0, Factor { extent, steps: None });
        self.with_axes(axes)
    }

    /// The digits of all axes in row-major order.
    pub fn digits(&self) -> Vec<Factor> {
        normal(self.axes.concat())
    }

    /// Whether it has the base's elements, all of them, in row-major order.
    pub fn is_reshape(&self, graph: &Graph) -> bool {
        let base = View::identity(self.base, shape(graph, self.base));
        !self.stored && self.offsets == base.offsets && self.digits() == base.digits()
    }

    /// Whether nothing is cut off at the front of an axis of the base.
    pub fn starts_at_origin(&self) -> bool {
        self.offsets.iter().all(|&offset| offset == 0)
    }

    /// The base's axis that `axis` is, if it is a whole one from its first index on (its extent may
    /// be a prefix of the base's).
    pub fn whole_axis(&self, axis: usize) -> Option<u32> {
        match self.axes[axis][..] {
            [Factor { steps: Some((from, 1)), .. }] if self.offsets[from as usize] == 0 => {
                Some(from)
            }
            _ => None,
        }
    }

    /// Whether the value is the same all along `axis`.
    pub fn repeats(&self, axis: usize) -> bool {
        self.axes[axis].iter().all(|digit| digit.steps.is_none())
    }

    /// This view written as reshape, transpose, reshape of the base. `None` where it repeats or
    /// leaves out elements.
    pub fn realize(&self, graph: &Graph, shape: &Shape) -> Option<Term> {
        let base_shape = super::shape(graph, self.base);
        let order = self.axes.concat();
        let mut sorted: Vec<usize> = (0..order.len()).collect();
        sorted.sort_by_key(|&i| order[i].steps.map(|(axis, stride)| (axis, u64::MAX - stride)));
        let digits: Vec<Factor> = sorted.iter().map(|&i| order[i]).collect();
        let whole = View::identity(self.base, base_shape);
        if self.stored || !self.starts_at_origin() || normal(digits.clone()) != whole.digits() {
            return None;
        }
        let extents: Shape = digits.iter().map(|digit| digit.extent).collect();
        let perm: Vec<u32> = (0..order.len())
            .map(|i| sorted.iter().position(|&s| s == i).unwrap_or(i) as u32)
            .collect();
        let base = Term::Have(self.base).reshape(extents);
        Some(base.transpose(perm).reshape(shape.clone()))
    }
}

/// Takes digits from the end of `digits` (the most significant) until they make up `dim`.
fn take(digits: &mut Vec<Factor>, dim: Dim) -> Option<Vec<Factor>> {
    let mut taken = vec![];
    let mut rest = match dim {
        Dim::Symbol(_) => {
            let digit = digits.pop().filter(|digit| digit.extent == dim)?;
            return Some(vec![digit]);
        }
        Dim::Const(rest) => rest,
    };
    while rest != 1 {
        let digit = digits.pop()?;
        let Dim::Const(extent) = digit.extent else {
            return None;
        };
        if extent > 0 && rest % extent == 0 {
            rest /= extent;
            taken.push(digit);
        } else if rest > 0 && extent % rest == 0 {
            let inner = extent / rest;
            let outer = digit.steps.map(|(axis, stride)| (axis, stride * inner));
            taken.push(Factor { extent: Dim::Const(rest), steps: outer });
            digits.push(Factor { extent: Dim::Const(inner), ..digit });
            rest = 1;
        } else {
            return None;
        }
    }
    Some(taken)
}

/// Without digits of one value, and with neighbours that step on from each other joined.
fn normal(digits: Vec<Factor>) -> Vec<Factor> {
    let mut result: Vec<Factor> = vec![];
    for digit in digits {
        if digit.extent == Dim::Const(1) {
            continue;
        }
        match result.last_mut().and_then(|last| joined(*last, digit).map(|j| (last, j))) {
            Some((last, joined)) => *last = joined,
            None => result.push(digit),
        }
    }
    result
}

fn joined(outer: Factor, inner: Factor) -> Option<Factor> {
    let (Dim::Const(a), Dim::Const(b)) = (outer.extent, inner.extent) else {
        return None;
    };
    let steps_on = match (outer.steps, inner.steps) {
        (None, None) => true,
        (Some((x, s)), Some((y, t))) => x == y && Some(s) == t.checked_mul(b),
        _ => false,
    };
    let extent = Dim::Const(a.checked_mul(b)?);
    steps_on.then_some(Factor { extent, ..inner })
}

/// How many values the digits take together.
fn extent_of(digits: &[Factor]) -> Option<Dim> {
    if let [digit] = digits {
        return Some(digit.extent);
    }
    let extents: Vec<Dim> = digits.iter().map(|digit| digit.extent).collect();
    super::const_elements(&extents).map(Dim::Const)
}
