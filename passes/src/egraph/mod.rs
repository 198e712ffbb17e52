//! The IR in an e-graph: functions go in, rules of [`crate::rules`] grow it, the cheapest equal
//! function comes out.
//!
//! A class is a value (or the tuple of results of an op with several); a node is an op with its
//! attributes. Types are inferred for every class, and a rewrite that would change one is refused,
//! so whatever is extracted is well typed.

pub mod cost;
pub mod extract;
pub mod function;
pub mod run;
pub mod view;

use egg::{Analysis, DidMerge, EGraph, FromOp, Id, Language};
use std::collections::BTreeMap;
use std::sync::Arc;
use waveloom_ir::{BinaryOp, DType, Dim, F32, Module, Op, Shape, Type, UnaryOp, infer};

pub use cost::Roofline;
pub use run::{rewrite_module, saturate};

/// What a node applies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Head {
    /// An op of the IR.
    Op(Op),
    /// A parameter of the function.
    Param(u32),
    /// One of the results of an op that has several.
    Project(u32),
    /// The results of the function: the root.
    Results,
}

/// A node of the e-graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// What it applies.
    pub head: Head,
    /// To what.
    pub children: Vec<Id>,
}

impl Node {
    /// An op applied to `children`.
    pub fn op(op: Op, children: impl Into<Vec<Id>>) -> Node {
        let head = Head::Op(op);
        let children = children.into();
        Node { head, children }
    }
}

impl Language for Node {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        self.head.clone()
    }

    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

/// A word of a pattern that is no op without attributes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no op that a pattern can name")]
pub struct UnknownWord(String);

impl FromOp for Node {
    type Error = UnknownWord;

    /// Ops without attributes, by their spelling in the text form.
    fn from_op(word: &str, children: Vec<Id>) -> Result<Self, UnknownWord> {
        let plain = [
            Op::Select {},
            Op::MatMul {},
            Op::Gather {},
            Op::Dequantize {},
            Op::CacheAppend {},
            Op::Embed {},
            Op::Rope {},
        ];
        let op = UnaryOp::parse(word)
            .map(Op::Unary)
            .or_else(|| BinaryOp::parse(word).map(Op::Binary))
            .or_else(|| plain.into_iter().find(|op| op.mnemonic() == word))
            .filter(|op| op.arity() == Some(children.len()));
        op.map(|op| Node::op(op, children)).ok_or_else(|| UnknownWord(word.to_string()))
    }
}

/// What is known of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Types of the results: one, or a tuple's. Empty for the root.
    pub types: Vec<Type>,
    /// The value, where every element has the same known one.
    pub splat: Option<F32>,
}

/// Keeps [`Facts`] of every class.
#[derive(Clone, Debug)]
pub struct FactKeeper {
    /// Declarations that ops refer to.
    pub module: Arc<Module>,
    /// Types of the function's parameters.
    pub params: Vec<Type>,
    /// Views of classes; cleared before every round.
    pub views: view::ViewTable,
}

/// An e-graph of one function.
pub type Graph = EGraph<Node, FactKeeper>;

impl FactKeeper {
    /// The types of a node; `None` where it is ill-typed.
    fn types(graph: &Graph, node: &Node) -> Option<Vec<Type>> {
        let keeper = &graph.analysis;
        match &node.head {
            Head::Param(index) => Some(vec![keeper.params.get(*index as usize)?.clone()]),
            Head::Project(index) => {
                let tuple = &graph[*node.children.first()?].data.types;
                Some(vec![tuple.get(*index as usize)?.clone()])
            }
            Head::Results => Some(vec![]),
            Head::Op(op) => {
                let args: Option<Vec<&Type>> =
                    node.children.iter().map(|&child| graph[child].data.types.first()).collect();
                infer(&keeper.module, op, &args?).ok()
            }
        }
    }

    fn splat(graph: &Graph, node: &Node, ty: &Type) -> Option<F32> {
        let Head::Op(op) = &node.head else {
            return None;
        };
        if let Op::Constant { value, .. } = op {
            return match ty.dtype {
                DType::F32 => Some(*value),
                // Rounded towards zero, as the op says.
                DType::I32 if value.0.abs() < EXACT_INTEGERS => Some(F32(value.0.trunc())),
                _ => None,
            };
        }
        let args: Option<Vec<f32>> = node
            .children
            .iter()
            .map(|&child| graph[child].data.splat.map(|value| value.0))
            .collect();
        let value = fold(op, &args?)?;
        let keeps = !value.is_nan() && (ty.dtype == DType::F32 || exact_i32(value, ty.dtype));
        keeps.then_some(F32(value))
    }
}

/// The largest magnitude below which every integer is an `f32`.
const EXACT_INTEGERS: f32 = 16_777_216.0;

fn exact_i32(value: f32, dtype: DType) -> bool {
    dtype == DType::I32 && value.fract() == 0.0 && value.abs() < EXACT_INTEGERS
}

/// The value of `op` on splats, for the ops that IEEE 754 defines to the last bit.
fn fold(op: &Op, args: &[f32]) -> Option<f32> {
    let first = *args.first()?;
    match op {
        Op::Unary(UnaryOp::Neg) => Some(-first),
        Op::Unary(UnaryOp::Abs) => Some(first.abs()),
        Op::Unary(UnaryOp::Sqrt) => Some(first.sqrt()),
        Op::Unary(
            UnaryOp::Exp
            | UnaryOp::Log
            | UnaryOp::Rsqrt
            | UnaryOp::Sigmoid
            | UnaryOp::Tanh
            | UnaryOp::Sin
            | UnaryOp::Cos,
        ) => None,
        Op::Binary(op) => fold_binary(*op, first, *args.get(1)?),
        Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Broadcast { .. }
        | Op::ReduceMax { .. } => Some(first),
        Op::Concat { .. } => {
            args.iter().all(|arg| arg.to_bits() == first.to_bits()).then_some(first)
        }
        Op::Cast { dtype } => (*dtype == DType::F32 || exact_i32(first, *dtype)).then_some(first),
        Op::Weight { .. }
        | Op::Call { .. }
        | Op::CacheAppend {}
        | Op::Constant { .. }
        | Op::Iota { .. }
        | Op::Select {}
        | Op::ReduceSum { .. }
        | Op::ReduceMean { .. }
        | Op::MatMul {}
        | Op::Gather {}
        | Op::Dequantize {}
        | Op::TopK { .. }
        | Op::Embed {}
        | Op::Norm { .. }
        | Op::Rope {}
        | Op::Map { .. }
        | Op::Gemm { .. }
        | Op::Attention { .. }
        | Op::Sample {}
        | Op::DecodeLoop { .. } => None,
    }
}

fn fold_binary(op: BinaryOp, a: f32, b: f32) -> Option<f32> {
    match op {
        BinaryOp::Add => Some(a + b),
        BinaryOp::Sub => Some(a - b),
        BinaryOp::Mul => Some(a * b),
        // An integer quotient that is no integer is refused by `exact_i32`.
        BinaryOp::Div => Some(a / b),
        BinaryOp::Max => Some(a.max(b)),
        BinaryOp::Min => Some(a.min(b)),
        BinaryOp::Lt | BinaryOp::Le | BinaryOp::And | BinaryOp::Or => None,
    }
}

impl Analysis<Node> for FactKeeper {
    type Data = Facts;

    fn make(graph: &mut Graph, node: &Node, _id: Id) -> Facts {
        // Nodes are checked before they are added ([`add`]); an empty list only marks the root.
        let types = FactKeeper::types(graph, node).unwrap_or_default();
        let splat = match &types[..] {
            [ty] => FactKeeper::splat(graph, node, ty),
            _ => None,
        };
        Facts { types, splat }
    }

    fn merge(&mut self, to: &mut Facts, from: Facts) -> DidMerge {
        debug_assert_eq!(to.types, from.types, "classes of different types were merged");
        let adopts = to.splat.is_none() && from.splat.is_some();
        let offers = to.splat.is_some() && from.splat.is_none();
        if adopts {
            to.splat = from.splat;
        }
        DidMerge(adopts, offers)
    }

    /// A splat is a constant.
    fn modify(graph: &mut Graph, id: Id) {
        let Facts { types, splat } = &graph[id].data;
        if let (Some(value), [ty]) = (*splat, &types[..])
            && !ty.dtype.is_block()
        {
            let ty = ty.clone();
            let constant = graph.add(Node::op(Op::Constant { value, ty }, []));
            graph.union(id, constant);
        }
    }
}

/// Adds a node; `None` where it would be ill-typed.
pub fn add(graph: &mut Graph, node: Node) -> Option<Id> {
    FactKeeper::types(graph, &node)?;
    Some(graph.add(node))
}

/// A value to be: what a rule offers as equal to a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// A class that is there.
    Have(Id),
    /// An op on terms.
    Make(Op, Vec<Term>),
}

impl Term {
    /// `reshape`.
    pub fn reshape(self, shape: impl Into<Shape>) -> Term {
        let shape = shape.into();
        Term::Make(Op::Reshape { shape }, vec![self])
    }

    /// `transpose`.
    pub fn transpose(self, perm: impl Into<Vec<u32>>) -> Term {
        let perm = perm.into();
        Term::Make(Op::Transpose { perm }, vec![self])
    }

    /// Adds it to the graph; `None` where it is ill-typed. A shape op that does nothing is left
    /// out.
    pub fn add(&self, graph: &mut Graph) -> Option<Id> {
        let (op, args) = match self {
            Term::Have(id) => return Some(*id),
            Term::Make(op, args) => (op, args),
        };
        let args: Option<Vec<Id>> = args.iter().map(|arg| arg.add(graph)).collect();
        let args = args?;
        let nothing = match op {
            Op::Reshape { shape: to } => shape(graph, args[0]) == to,
            Op::Transpose { perm } => perm.iter().copied().eq(0..perm.len() as u32),
            _ => false,
        };
        if nothing { Some(args[0]) } else { add(graph, Node::op(op.clone(), args)) }
    }
}

impl From<Id> for Term {
    fn from(id: Id) -> Term {
        Term::Have(id)
    }
}

/// The type of a class that is one value.
///
/// # Panics
/// On a tuple; callers ask for operands and results of single-result ops only.
pub fn ty(graph: &Graph, id: Id) -> &Type {
    &graph[id].data.types[0]
}

/// The shape of a class that is one value.
pub fn shape(graph: &Graph, id: Id) -> &Shape {
    &ty(graph, id).shape
}

/// The value of a class that has one value everywhere.
pub fn splat(graph: &Graph, id: Id) -> Option<f32> {
    graph[id].data.splat.map(|value| value.0)
}

/// Whether two ids name one class.
pub fn same(graph: &Graph, a: Id, b: Id) -> bool {
    graph.find(a) == graph.find(b)
}

/// The ops in a class with their operands.
pub fn ops(graph: &Graph, id: Id) -> impl Iterator<Item = (&Op, &[Id])> {
    graph[id].nodes.iter().filter_map(|node| match &node.head {
        Head::Op(op) => Some((op, &node.children[..])),
        Head::Param(_) | Head::Project(_) | Head::Results => None,
    })
}

/// Operands of the `op`s in a class.
pub fn unary(graph: &Graph, id: Id, op: UnaryOp) -> impl Iterator<Item = Id> {
    ops(graph, id).filter(move |(found, _)| **found == Op::Unary(op)).map(|(_, args)| args[0])
}

/// Operands of the `op`s in a class; in both orders where the op is commutative.
pub fn binary(graph: &Graph, id: Id, op: BinaryOp) -> impl Iterator<Item = (Id, Id)> {
    let commutative = matches!(
        op,
        BinaryOp::Add
            | BinaryOp::Mul
            | BinaryOp::Max
            | BinaryOp::Min
            | BinaryOp::And
            | BinaryOp::Or
    );
    ops(graph, id)
        .filter(move |(found, _)| **found == Op::Binary(op))
        .flat_map(move |(_, args)| {
            let (a, b) = (args[0], args[1]);
            [Some((a, b)), (commutative && a != b).then_some((b, a))]
        })
        .flatten()
}

/// The product of constant extents; `None` where one is symbolic or on overflow.
pub fn const_elements(dims: &[Dim]) -> Option<u64> {
    dims.iter().try_fold(1u64, |n, dim| match dim {
        Dim::Const(extent) => n.checked_mul(*extent),
        Dim::Symbol(_) => None,
    })
}

/// The rewrites applied, by name, in order of first use.
pub type Counts = Vec<(String, u64)>;

/// Names of original values by class, for people who read the result.
pub type Names = BTreeMap<Id, String>;
