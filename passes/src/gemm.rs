//! A `gemm` taken apart, so that fusion can change its pieces and put it together again.

use waveloom_ir::{Expr, F32, GemmAttr, GemmOutput, Inst, Op, Prologue, Store, Tiles, ValueId};

/// Largest expression that fusion makes, in nodes: an operand that is used twice is written twice, so
/// a chain of such maps would grow without bound.
pub(crate) const MAX_EXPR_NODES: usize = 96;

/// The operands of a `gemm` by what they are.
#[derive(Clone, Debug)]
pub(crate) struct Gemm {
    pub(crate) x: ValueId,
    /// Weight and epsilon of the norm of the rows of x.
    pub(crate) norm: Option<(ValueId, F32)>,
    pub(crate) weights: Vec<ValueId>,
    pub(crate) extras: Vec<ValueId>,
    pub(crate) outputs: Vec<GemmOutput>,
}

impl Gemm {
    /// The parts of `inst`, if it is a `gemm`.
    pub(crate) fn from_inst(inst: &Inst) -> Option<Gemm> {
        let Op::Gemm { attr } = &inst.op else {
            return None;
        };
        let norm = attr.prologue.map(|Prologue::RmsNorm { eps }| (inst.operands[1], eps));
        Some(Gemm {
            x: inst.operands[0],
            norm,
            weights: inst.operands[attr.first_weight()..attr.first_extra()].to_vec(),
            extras: inst.operands[attr.first_extra()..].to_vec(),
            outputs: attr.outputs.clone(),
        })
    }

    /// The op and its operands.
    pub(crate) fn into_op(self) -> (Op, Vec<ValueId>) {
        let attr = GemmAttr {
            weights: self.weights.len() as u32,
            prologue: self.norm.map(|(_, eps)| Prologue::RmsNorm { eps }),
            outputs: self.outputs,
            tiles: Tiles::default(),
        };
        let mut operands = vec![self.x];
        operands.extend(self.norm.map(|(weight, _)| weight));
        operands.extend(self.weights);
        operands.extend(self.extras);
        (Op::Gemm { attr }, operands)
    }

    /// The index of `value` among the extra operands; adds it if it is none.
    pub(crate) fn extra(&mut self, value: ValueId) -> u32 {
        index_of(&mut self.extras, value)
    }

    /// Adds the weights, extras and outputs of `other`, which has the same x and norm.
    pub(crate) fn append(&mut self, other: &Gemm) {
        let first = self.weights.len() as u32;
        self.weights.extend(&other.weights);
        let extras: Vec<u32> = other.extras.iter().map(|&v| self.extra(v)).collect();
        for output in &other.outputs {
            self.outputs.push(renumber(output, |acc| acc + first, |i| extras[i as usize]));
        }
    }

    /// Keeps the outputs for which `keep` holds, and the weights and extras that they use.
    pub(crate) fn keep_outputs(&mut self, keep: &[bool]) {
        let mut kept = keep.iter();
        self.outputs.retain(|_| kept.next() == Some(&true));
        let (old_weights, old_extras) =
            (std::mem::take(&mut self.weights), std::mem::take(&mut self.extras));
        let mut used = Used::default();
        self.outputs.iter().for_each(|output| used.add(output));
        let weights: Vec<u32> = used.accs.into_iter().collect();
        let extras: Vec<u32> = used.extras.into_iter().collect();
        self.weights = weights.iter().map(|&i| old_weights[i as usize]).collect();
        self.extras = extras.iter().map(|&i| old_extras[i as usize]).collect();
        let position = |list: &[u32], i: u32| list.partition_point(|&other| other < i) as u32;
        for output in &mut self.outputs {
            *output = renumber(output, |acc| position(&weights, acc), |i| position(&extras, i));
        }
    }
}

/// The index of `value` in `list`; appends it if it is not there.
pub(crate) fn index_of(list: &mut Vec<ValueId>, value: ValueId) -> u32 {
    let index = list.iter().position(|&other| other == value);
    index.unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    }) as u32
}

/// Number of nodes of an expression.
pub(crate) fn expr_nodes(expr: &Expr) -> usize {
    let mut nodes = 0;
    expr.walk(&mut |_| nodes += 1);
    nodes
}

/// What an output refers to.
#[derive(Default)]
struct Used {
    accs: std::collections::BTreeSet<u32>,
    extras: std::collections::BTreeSet<u32>,
}

impl Used {
    fn add(&mut self, output: &GemmOutput) {
        output.expr.walk(&mut |e| match e {
            Expr::Acc(i) => {
                self.accs.insert(*i);
            }
            Expr::Operand(i) => {
                self.extras.insert(*i);
            }
            Expr::Rope { cos, sin, .. } => self.extras.extend([*cos, *sin]),
            Expr::HeadNorm { weight, .. } => {
                self.extras.insert(*weight);
            }
            Expr::Const(_) | Expr::Unary(..) | Expr::Binary(..) => {}
        });
        match output.store {
            Store::Dense => {}
            Store::Append { cache, positions } => self.extras.extend([cache, positions]),
        }
    }
}

fn renumber(
    output: &GemmOutput,
    acc: impl Fn(u32) -> u32,
    extra: impl Fn(u32) -> u32,
) -> GemmOutput {
    let leaf = |leaf: &Expr| match leaf {
        Expr::Acc(i) => Expr::Acc(acc(*i)),
        Expr::Operand(i) => Expr::Operand(extra(*i)),
        other => other.clone(),
    };
    GemmOutput {
        expr: output.expr.rewrite(&leaf, &extra),
        store: match output.store {
            Store::Dense => Store::Dense,
            Store::Append { cache, positions } => {
                Store::Append { cache: extra(cache), positions: extra(positions) }
            }
        },
    }
}
