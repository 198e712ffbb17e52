//! Elementwise ops as `map`s.
//!
//! A tree of elementwise ops becomes one map. An op is computed within its reader where it is the
//! only one, or where computing it again is cheaper than storing it; then it also moves through a
//! reshape to its operands. This works on the extracted function, not in the e-graph: how many
//! readers a value has is no property of a class.

use crate::egraph::function::copy_param_names;
use crate::gemm::MAX_EXPR_NODES;
use crate::pass::{PassError, PassReport};
use crate::provenance::ValueMap;
use std::collections::HashMap;
use waveloom_ir::{
    DType, Expr, Function, FunctionBuilder, Inst, InstId, Module, Op, Shape, UnaryOp, ValueId,
};

/// The rewrite's name in reports.
const NAME: &str = "elementwise-to-map";

/// Replaces every elementwise op of a function; also says what its values were.
pub fn fuse(
    module: &Module,
    function: &Function,
    report: &mut PassReport,
) -> Result<(Function, ValueMap), PassError> {
    let plan = Plan::new(function);
    let mut writer = Writer {
        builder: FunctionBuilder::new(module, &function.name),
        values: vec![None; function.values.len()],
        reshaped: HashMap::new(),
        plan: &plan,
    };
    for &param in &function.params {
        let value = &function.values[param.index()];
        let name = value.name.clone().unwrap_or_default();
        writer.values[param.index()] = Some(writer.builder.param(name, value.ty.clone()));
    }
    for inst in &function.insts {
        if plan.is_within_others(inst) {
            continue;
        }
        writer.write(inst, report)?;
    }
    let results: Result<Vec<ValueId>, PassError> =
        function.results.iter().map(|&value| writer.value(value)).collect();
    let mut fused = writer.builder.finish(&results?);
    copy_param_names(function, &mut fused);
    let mut values = ValueMap::of_new(fused.values.len());
    for (old, new) in (0..).zip(&writer.values) {
        new.iter().for_each(|&new| values.equate(new, ValueId(old)));
    }
    Ok((fused, values))
}

/// What is computed where.
struct Plan<'f> {
    function: &'f Function,
    /// By value: who makes it.
    producers: Vec<Option<InstId>>,
    /// By value: who reads it, once per use.
    users: Vec<Vec<InstId>>,
    /// By value: whether it is computed within its readers.
    inlined: Vec<bool>,
    /// By value: what computing it costs each reader: functions in its expression, inlined ones
    /// included; `None` where it is too much to do twice.
    cheap: Vec<Option<usize>>,
    /// By value: nodes of its expression.
    nodes: Vec<usize>,
}

/// Functions that may be computed once for each reader.
const CHEAP_FUNCTIONS: usize = 1;

impl<'f> Plan<'f> {
    fn new(function: &'f Function) -> Plan<'f> {
        let count = function.values.len();
        let mut plan = Plan {
            function,
            producers: vec![None; count],
            users: vec![vec![]; count],
            inlined: vec![false; count],
            cheap: vec![None; count],
            nodes: vec![1; count],
        };
        for (inst, index) in function.insts.iter().zip(0..) {
            for result in &inst.results {
                plan.producers[result.index()] = Some(InstId(index));
            }
            for operand in &inst.operands {
                plan.users[operand.index()].push(InstId(index));
            }
        }
        // Operands stand before their users, so what is inlined into an op is known when it is
        // asked for.
        for inst in &function.insts {
            if plan.is_elementwise(inst) {
                plan.decide(inst);
            } else if let (Op::Reshape { .. }, &[y], &[r]) =
                (&inst.op, &inst.operands[..], &inst.results[..])
            {
                plan.inlined[r.index()] = plan.is_transparent(inst);
                (plan.cheap[r.index()], plan.nodes[r.index()]) =
                    (plan.cheap[y.index()], plan.nodes[y.index()]);
            }
        }
        plan
    }

    fn shape(&self, value: ValueId) -> &Shape {
        &self.function.ty(value).shape
    }

    fn inst(&self, id: InstId) -> &'f Inst {
        &self.function.insts[id.index()]
    }

    fn producer(&self, value: ValueId) -> Option<&'f Inst> {
        self.producers[value.index()].map(|id| self.inst(id))
    }

    /// Whether `map` has it: real numbers in, f32 out, element by element.
    fn is_elementwise(&self, inst: &Inst) -> bool {
        let [result] = inst.results[..] else {
            return false;
        };
        let to_f32 = self.function.ty(result).dtype == DType::F32;
        match &inst.op {
            Op::Unary(_) => to_f32,
            Op::Binary(op) => to_f32 && !op.is_comparison() && !op.is_logical(),
            Op::Constant { .. } => to_f32,
            Op::Dequantize {} => true,
            Op::Cast { .. } => {
                let from = self.function.ty(inst.operands[0]).dtype;
                to_f32 && (from == DType::I32 || from.is_stored_real())
            }
            Op::Weight { .. }
            | Op::Call { .. }
            | Op::Reshape { .. }
            | Op::CacheAppend {}
            | Op::Iota { .. }
            | Op::Select {}
            | Op::ReduceSum { .. }
            | Op::ReduceMean { .. }
            | Op::ReduceMax { .. }
            | Op::MatMul {}
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Concat { .. }
            | Op::Broadcast { .. }
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

    fn decide(&mut self, inst: &Inst) {
        let result = inst.results[0];
        let inlined = || inst.operands.iter().filter(|v| self.inlined[v.index()]);
        let own = match &inst.op {
            Op::Constant { .. } | Op::Dequantize {} | Op::Cast { .. } => Some(0),
            Op::Unary(UnaryOp::Neg | UnaryOp::Abs) | Op::Binary(_) => Some(1),
            _ => None,
        };
        let functions = inlined().map(|v| self.cheap[v.index()]).sum::<Option<usize>>();
        let cheap = own.zip(functions).map(|(a, b)| a + b).filter(|&n| n <= CHEAP_FUNCTIONS);
        let leaves = inst.operands.len() - inlined().count();
        let nodes = 1 + leaves + inlined().map(|v| self.nodes[v.index()]).sum::<usize>();
        self.cheap[result.index()] = cheap;
        self.nodes[result.index()] = nodes;
        self.inlined[result.index()] = self.may_be_inlined(result);
    }

    fn may_be_inlined(&self, value: ValueId) -> bool {
        let constant =
            self.producer(value).is_some_and(|inst| matches!(inst.op, Op::Constant { .. }));
        if constant && !self.shape(value).is_empty() {
            // Within a map it would give no shape to the result.
            return false;
        }
        let users = &self.users[value.index()];
        let cheap = self.cheap[value.index()].is_some();
        let fits = self.nodes[value.index()] < MAX_EXPR_NODES / 2;
        let once = matches!(users[..], [_]);
        let read_by_maps = users.iter().all(|&user| self.takes_in(self.inst(user), value, cheap));
        fits && (once || cheap) && read_by_maps && !self.function.results.contains(&value)
    }

    /// Whether `user` may compute `value` itself.
    fn takes_in(&self, user: &Inst, value: ValueId, cheap: bool) -> bool {
        if let Op::Reshape { .. } = user.op {
            return self.is_transparent(user);
        }
        let fits = user.results.first().is_some_and(|&r| self.shape(r) == self.shape(value));
        self.is_elementwise(user) && (fits || cheap)
    }

    /// Whether a reshape of an elementwise op can as well be done to the operands of that op.
    fn is_transparent(&self, reshape: &Inst) -> bool {
        let (y, r) = (reshape.operands[0], reshape.results[0]);
        let once = matches!(self.users[y.index()][..], [_]) && !self.function.results.contains(&y);
        let elementwise = self.producer(y).is_some_and(|inst| self.is_elementwise(inst));
        let readers = &self.users[r.index()];
        let cheap = self.cheap[y.index()].is_some();
        let readers_are_maps = readers.iter().all(|&user| {
            let user = self.inst(user);
            self.is_elementwise(user) && (cheap || self.shape(user.results[0]) == self.shape(r))
        });
        let read_once = matches!(readers[..], [_]) && !self.function.results.contains(&r);
        once && elementwise && readers_are_maps && read_once && self.is_uniform(y)
    }

    /// Whether all that an elementwise op reads has the shape of its result, or none.
    fn is_uniform(&self, value: ValueId) -> bool {
        let Some(inst) = self.producer(value).filter(|inst| self.is_elementwise(inst)) else {
            return true;
        };
        let constant = matches!(inst.op, Op::Constant { .. });
        !constant
            && inst.operands.iter().all(|&operand| {
                let scalar = self.shape(operand).is_empty();
                let same = self.shape(operand) == self.shape(value);
                let inner = !self.inlined[operand.index()] || self.is_uniform(operand);
                scalar || same && inner
            })
    }

    /// Whether an instruction vanishes into others.
    fn is_within_others(&self, inst: &Inst) -> bool {
        matches!(inst.results[..], [result] if self.inlined[result.index()])
    }
}

struct Writer<'a> {
    builder: FunctionBuilder<'a>,
    /// By old value: the new one.
    values: Vec<Option<ValueId>>,
    /// Operands that had to be reshaped, by new value and shape.
    reshaped: HashMap<(ValueId, Shape), ValueId>,
    plan: &'a Plan<'a>,
}

impl Writer<'_> {
    fn value(&self, old: ValueId) -> Result<ValueId, PassError> {
        self.values[old.index()].ok_or_else(|| PassError::Invalid {
            pass: "raise",
            problem: format!("@{}: {old} was fused away but is used", self.plan.function.name),
        })
    }

    fn push(&mut self, op: Op, operands: &[ValueId]) -> Result<Vec<ValueId>, PassError> {
        let function = self.plan.function.name.clone();
        let pushed = self.builder.push(op, operands);
        pushed.map_err(|source| PassError::Infer { pass: "raise", function, source })
    }

    fn reshape(&mut self, x: ValueId, shape: &Shape) -> Result<ValueId, PassError> {
        if let Some(&known) = self.reshaped.get(&(x, shape.clone())) {
            return Ok(known);
        }
        let made = self.push(Op::Reshape { shape: shape.clone() }, &[x])?[0];
        self.reshaped.insert((x, shape.clone()), made);
        Ok(made)
    }

    fn write(&mut self, inst: &Inst, report: &mut PassReport) -> Result<(), PassError> {
        let is_map = self.plan.is_elementwise(inst) && !matches!(inst.op, Op::Constant { .. });
        let made = if is_map {
            let mut operands = vec![];
            let expr = self.expr_of(inst, None, &mut operands)?;
            report.count(NAME);
            self.push(Op::Map { expr }, &operands)?
        } else {
            let operands: Result<Vec<ValueId>, PassError> =
                inst.operands.iter().map(|&value| self.value(value)).collect();
            self.push(inst.op.clone(), &operands?)?
        };
        for (&old, new) in inst.results.iter().zip(made) {
            self.values[old.index()] = Some(new);
            if let Some(name) = &self.plan.function.values[old.index()].name {
                self.builder.name(new, name.clone());
            }
        }
        Ok(())
    }

    /// The expression of an elementwise op, under another shape where one is asked for.
    fn expr_of(
        &mut self,
        inst: &Inst,
        shape: Option<&Shape>,
        operands: &mut Vec<ValueId>,
    ) -> Result<Expr, PassError> {
        let mut args = vec![];
        for &operand in &inst.operands {
            args.push(self.operand(operand, shape, operands)?);
        }
        let mut args = args.into_iter();
        let expr = match (&inst.op, args.next(), args.next()) {
            (Op::Constant { value, .. }, None, None) => Some(Expr::Const(*value)),
            (Op::Unary(op), Some(x), None) => Some(Expr::unary(*op, x)),
            (Op::Binary(op), Some(x), Some(y)) => Some(Expr::binary(*op, x, y)),
            // A map converts its operands by itself.
            (Op::Dequantize {} | Op::Cast { .. }, Some(x), None) => Some(x),
            _ => None,
        };
        expr.ok_or_else(|| PassError::Invalid {
            pass: "raise",
            problem: format!("`{}` is not elementwise", inst.op.mnemonic()),
        })
    }

    fn operand(
        &mut self,
        value: ValueId,
        shape: Option<&Shape>,
        operands: &mut Vec<ValueId>,
    ) -> Result<Expr, PassError> {
        let plan = self.plan;
        let inlined = plan.producer(value).filter(|_| plan.inlined[value.index()]);
        if let Some(inst) = inlined {
            if let Op::Reshape { shape: own } = &inst.op {
                let shape = shape.unwrap_or(own);
                return self.operand(inst.operands[0], Some(shape), operands);
            }
            return self.expr_of(inst, shape, operands);
        }
        let mut leaf = self.value(value)?;
        if let Some(shape) = shape.filter(|_| !plan.shape(value).is_empty()) {
            leaf = self.reshape(leaf, shape)?;
        }
        let known = operands.iter().position(|&operand| operand == leaf);
        let index = known.unwrap_or_else(|| {
            operands.push(leaf);
            operands.len() - 1
        });
        Ok(Expr::Operand(index as u32))
    }
}
