//! What the interpreter does not see: layouts, the order of launches, memory.

use super::finding::Finding;
use std::hash::{DefaultHasher, Hash, Hasher};
use waveloom_ir::{FuncId, Module, Op};
use waveloom_passes::{BufferKind, MemoryPlan, Schedule, TargetLayout, check_memory};

fn wrong(problem: String) -> Finding {
    Finding::Structure { problem }
}

/// Each cache that attention reads lies as the target's kernels read it.
pub fn layouts(module: &Module, wanted: &TargetLayout) -> Result<(), Finding> {
    for function in &module.functions {
        for inst in &function.insts {
            let Op::Attention { .. } = inst.op else { continue };
            let caches = [(1, "keys", wanted.keys), (2, "values", wanted.values)];
            for (operand, what, layout) in caches {
                let found = function.ty(inst.operands[operand]).layout;
                if found != layout {
                    return Err(wrong(format!(
                        "the {what} of attention in @{} lie in memory as {found:?}, and the \
                         target's kernels read {layout:?}",
                        function.name
                    )));
                }
            }
        }
    }
    Ok(())
}

/// No launch loses what another one still needs.
pub fn memory(module: &Module, schedule: &Schedule, plan: &MemoryPlan) -> Result<(), Finding> {
    check_memory(schedule, module, plan).map_err(|error| wrong(error.to_string()))
}

/// A value as what was computed to make it, as a number: equal for equal computations.
type Number = u64;

fn number(of: &impl Hash) -> Number {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Result `which` of an op on operands.
fn of_op(op: &Op, operands: &[Number], which: usize) -> Number {
    number(&(op, operands, which))
}

/// What the step function's parameter is before a step.
fn of_param(index: usize) -> Number {
    number(&("param", index))
}

/// Replays a schedule on buffers that hold what was computed to make their content, and compares it
/// with the step function. Nothing here knows how the schedule came about, or what ops compute.
pub fn same_schedule(module: &Module, schedule: &Schedule) -> Result<(), Finding> {
    let Some(step) = module.function("step") else {
        return Err(wrong("the module has no @step".to_string()));
    };
    let params = module.functions[step.index()].params.len();
    let expected = values_of(module, step, &(0..params).map(of_param).collect::<Vec<_>>());
    let is_state = |index: &usize| schedule.buffers[*index].kind == BufferKind::State;
    let states: Vec<usize> = (0..schedule.buffers.len()).filter(is_state).collect();
    let inputs = [schedule.tokens, schedule.positions, schedule.last];
    let given = inputs.map(|id| id.index()).into_iter().chain(states.iter().copied());
    let mut content: Vec<Option<Number>> = vec![None; schedule.buffers.len()];
    for (param, buffer) in given.enumerate() {
        content[buffer] = Some(of_param(param));
    }
    for (buffer, content) in schedule.buffers.iter().zip(&mut content) {
        if let BufferKind::Weight(id) = buffer.kind {
            *content = Some(of_op(&Op::Weight { weight: id }, &[], 0));
        }
    }
    for (at, step) in schedule.steps.iter().enumerate() {
        let op = &module.functions[step.func.index()].insts[step.inst.index()].op;
        let mut operands = vec![];
        for operand in &step.operands {
            let name = &schedule.buffers[operand.index()].name;
            let unwritten = || wrong(format!("step {at} reads `{name}` before it is written"));
            operands.push(content[operand.index()].ok_or_else(unwritten)?);
        }
        for (which, result) in step.results.iter().enumerate() {
            content[result.index()] = Some(of_op(op, &operands, which));
        }
    }
    let results = [schedule.logits.index()].into_iter().chain(states);
    for (buffer, expected) in results.zip(expected) {
        if content[buffer] != Some(expected) {
            let name = &schedule.buffers[buffer].name;
            return Err(wrong(format!("the steps do not compute what @step does into `{name}`")));
        }
    }
    Ok(())
}

/// The results of a function, calls inlined and views looked through.
fn values_of(module: &Module, id: FuncId, args: &[Number]) -> Vec<Number> {
    let function = &module.functions[id.index()];
    let mut values: Vec<Number> = vec![0; function.values.len()];
    for (param, arg) in function.params.iter().zip(args) {
        values[param.index()] = *arg;
    }
    for inst in &function.insts {
        let operands: Vec<Number> = inst.operands.iter().map(|v| values[v.index()]).collect();
        let results = match &inst.op {
            Op::Call { func } => values_of(module, *func, &operands),
            Op::Reshape { .. } => operands,
            op => (0..inst.results.len()).map(|which| of_op(op, &operands, which)).collect(),
        };
        for (value, result) in inst.results.iter().zip(results) {
            values[value.index()] = result;
        }
    }
    function.results.iter().map(|value| values[value.index()]).collect()
}
