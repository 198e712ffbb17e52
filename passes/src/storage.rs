//! Which values of a module are one piece of memory, across calls and in-place updates.
//!
//! Types that a pass chooses for memory (the dtype of a weight, the layout of a cache) must be the same
//! for all values of a class; [`retype`] then carries a choice through every function.

use crate::pass::PassError;
use petgraph::unionfind::UnionFind;
use waveloom_ir::{FuncId, Function, Inst, Module, Op, Store, Type, ValueId, WeightId, infer};

/// Values joined where one is the other's memory: an argument and its parameter, a call's result and
/// the callee's, a cache and its update, a weight and its uses.
pub(crate) struct StorageClasses {
    sets: UnionFind<usize>,
    /// By function: the index of its first value; then the index of the first weight.
    bases: Vec<usize>,
}

impl StorageClasses {
    pub(crate) fn new(module: &Module) -> Self {
        let mut bases = vec![0];
        for function in &module.functions {
            bases.push(bases[bases.len() - 1] + function.values.len());
        }
        let size = bases[bases.len() - 1] + module.weights.len();
        let mut classes = StorageClasses { sets: UnionFind::new(size), bases };
        for (index, function) in module.functions.iter().enumerate() {
            let func = FuncId(index as u32);
            for inst in &function.insts {
                classes.join_inst(module, func, inst);
            }
        }
        classes
    }

    fn node(&self, func: FuncId, value: ValueId) -> usize {
        self.bases[func.index()] + value.index()
    }

    fn weight_node(&self, weight: WeightId) -> usize {
        self.bases[self.bases.len() - 1] + weight.index()
    }

    fn join_inst(&mut self, module: &Module, func: FuncId, inst: &Inst) {
        match &inst.op {
            Op::Weight { weight } => {
                let result = self.node(func, inst.results[0]);
                self.sets.union(self.weight_node(*weight), result);
            }
            Op::Call { func: callee } => {
                let function = &module.functions[callee.index()];
                let inner = function.params.iter().chain(&function.results);
                let outer = inst.operands.iter().chain(&inst.results);
                for (&inner, &outer) in inner.zip(outer) {
                    let (inner, outer) = (self.node(*callee, inner), self.node(func, outer));
                    self.sets.union(inner, outer);
                }
            }
            Op::DecodeLoop { attr } => {
                let step = &module.functions[attr.step.index()];
                for (&param, &result) in step.params.iter().skip(3).zip(step.results.iter().skip(1))
                {
                    let (param, result) =
                        (self.node(attr.step, param), self.node(attr.step, result));
                    self.sets.union(param, result);
                }
            }
            op => {
                for (i, &result) in inst.results.iter().enumerate() {
                    if let Some(operand) = updated_operand(op, i) {
                        let cache = self.node(func, inst.operands[operand]);
                        self.sets.union(cache, self.node(func, result));
                    }
                }
            }
        }
    }

    /// The class of a value.
    pub(crate) fn of(&self, func: FuncId, value: ValueId) -> usize {
        self.sets.find(self.node(func, value))
    }

    /// The class of a weight.
    pub(crate) fn of_weight(&self, weight: WeightId) -> usize {
        self.sets.find(self.weight_node(weight))
    }

    /// How many class numbers there may be.
    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }
}

/// The operand that result `result` of `op` is the updated version of.
pub fn updated_operand(op: &Op, result: usize) -> Option<usize> {
    match op {
        Op::CacheAppend {} => Some(0),
        Op::Gemm { attr } => match attr.outputs.get(result)?.store {
            Store::Append { cache, .. } => Some(attr.first_extra() + cache as usize),
            Store::Dense => None,
        },
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Weight { .. }
        | Op::Call { .. }
        | Op::Reshape { .. }
        | Op::Constant { .. }
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
        | Op::Cast { .. }
        | Op::Dequantize {}
        | Op::TopK { .. }
        | Op::Embed {}
        | Op::Norm { .. }
        | Op::Rope {}
        | Op::Map { .. }
        | Op::Attention { .. }
        | Op::Sample {}
        | Op::DecodeLoop { .. } => None,
    }
}

/// Infers every type of the module again, after `param` changed types of parameters (weights have
/// their types in their declarations).
pub(crate) fn retype(
    pass: &'static str,
    mut module: Module,
    mut param: impl FnMut(FuncId, ValueId, &mut Type),
) -> Result<Module, PassError> {
    for index in 0..module.functions.len() {
        let mut function = module.functions[index].clone();
        for &value in &function.params {
            let ty = &mut function.values[value.index()].ty;
            param(FuncId(index as u32), value, ty);
        }
        infer_function(&module, &mut function).map_err(|source| PassError::Infer {
            pass,
            function: function.name.clone(),
            source,
        })?;
        module.functions[index] = function;
    }
    Ok(module)
}

fn infer_function(module: &Module, function: &mut Function) -> Result<(), waveloom_ir::InferError> {
    for inst in &function.insts {
        let operands: Vec<&Type> = inst.operands.iter().map(|&v| function.ty(v)).collect();
        let types = infer(module, &inst.op, &operands)?;
        for (result, ty) in inst.results.iter().zip(types) {
            function.values[result.index()].ty = ty;
        }
    }
    Ok(())
}
