//! Makes a module small that shows a fault: fewer functions, results and instructions.
//!
//! What is tried is kept if the fault is still there. Everything is tried in a fixed order and at most
//! [`ATTEMPTS`] times, so that the result is the same every time.

use std::collections::HashSet;
use waveloom_ir::verify::check;
use waveloom_ir::{FuncId, Function, FunctionBuilder, Module, Op, ValueId, WeightId};

/// Smaller modules that are tried at most.
const ATTEMPTS: usize = 600;

/// The smallest module that is found for which `fails` still holds.
pub fn reduce(module: &Module, fails: &mut dyn FnMut(&Module) -> bool) -> Module {
    let mut search = Search { current: module.clone(), fails, left: ATTEMPTS };
    search.one_function();
    search.one_result();
    search.earlier_result();
    search.cut();
    search.earlier_result();
    search.cut();
    search.current
}

struct Search<'f> {
    current: Module,
    fails: &'f mut dyn FnMut(&Module) -> bool,
    left: usize,
}

impl Search<'_> {
    /// Keeps a module if the fault is still there.
    fn keeps(&mut self, candidate: Option<Module>) -> bool {
        let Some(candidate) = candidate.filter(|module| check(module).is_ok()) else {
            return false;
        };
        if self.left == 0 || candidate == self.current {
            return false;
        }
        self.left -= 1;
        let keep = (self.fails)(&candidate);
        if keep {
            self.current = candidate;
        }
        keep
    }

    /// One function and what it calls; callees are tried first.
    fn one_function(&mut self) {
        for index in 0..self.current.functions.len() {
            if self.keeps(Some(only(&self.current, FuncId(index as u32)))) {
                return;
            }
        }
    }

    /// The last function, which is the one that is left.
    fn function(&self) -> Option<&Function> {
        self.current.functions.last()
    }

    /// Tries the last function with other results and other values made parameters.
    fn keeps_with(&mut self, results: &[ValueId], cut: &HashSet<ValueId>) -> bool {
        let candidate = self.function().and_then(|f| rebuilt(&self.current, f, results, cut));
        self.keeps(candidate)
    }

    fn one_result(&mut self) {
        let results = self.function().map_or(vec![], |f| f.results.clone());
        if results.len() > 1 {
            let mut each = results.into_iter();
            each.find(|&result| self.keeps_with(&[result], &HashSet::new()));
        }
    }

    /// The first value that is wrong by itself, as the result.
    fn earlier_result(&mut self) {
        let made = |f: &Function| -> Vec<ValueId> {
            f.insts.iter().flat_map(|inst| inst.results.iter().copied()).collect()
        };
        let mut values = self.function().map_or(vec![], made).into_iter();
        values.find(|&value| self.keeps_with(&[value], &HashSet::new()));
    }

    /// Values as parameters in place of what computes them.
    fn cut(&mut self) {
        let mut from = self.function().map_or(0, |f| f.insts.len());
        while from > 0 {
            from -= 1;
            let Some(function) = self.function() else { return };
            // The function shrinks as values are cut.
            let Some(inst) = function.insts.get(from) else { continue };
            let cut: HashSet<ValueId> = inst.results.iter().copied().collect();
            let results = function.results.clone();
            if results.iter().all(|result| !cut.contains(result)) {
                self.keeps_with(&results, &cut);
            }
        }
    }
}

/// A function with all that it calls, and the weights that they use.
pub(super) fn only(module: &Module, root: FuncId) -> Module {
    let mut wanted: Vec<bool> = vec![false; module.functions.len()];
    wanted[root.index()] = true;
    // Callees stand before callers.
    for index in (0..module.functions.len()).rev() {
        if !wanted[index] {
            continue;
        }
        for inst in &module.functions[index].insts {
            match &inst.op {
                Op::Call { func } => wanted[func.index()] = true,
                Op::DecodeLoop { attr } => wanted[attr.step.index()] = true,
                _ => {}
            }
        }
    }
    let ids = (0..wanted.len()).map(|index| wanted[..index].iter().filter(|&&w| w).count() as u32);
    let ids: Vec<FuncId> = ids.map(FuncId).collect();
    let mut smaller = Module { functions: vec![], ..module.clone() };
    for (function, _) in module.functions.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
        let mut function = function.clone();
        for inst in &mut function.insts {
            match &mut inst.op {
                Op::Call { func } => *func = ids[func.index()],
                Op::DecodeLoop { attr } => attr.step = ids[attr.step.index()],
                _ => {}
            }
        }
        smaller.functions.push(function);
    }
    without_unused_weights(smaller)
}

fn without_unused_weights(mut module: Module) -> Module {
    let insts = module.functions.iter().flat_map(|f| &f.insts);
    let used: HashSet<WeightId> = insts
        .filter_map(|inst| match inst.op {
            Op::Weight { weight } => Some(weight),
            _ => None,
        })
        .collect();
    let mut ids = vec![];
    let mut kept = vec![];
    for (id, weight) in (0..).map(WeightId).zip(&module.weights) {
        ids.push(WeightId(kept.len() as u32));
        if used.contains(&id) {
            kept.push(weight.clone());
        }
    }
    module.weights = kept;
    for inst in module.functions.iter_mut().flat_map(|f| &mut f.insts) {
        if let Op::Weight { weight } = &mut inst.op {
            *weight = ids[weight.index()];
        }
    }
    module
}

/// The module with its last function giving `results`, with `cut` as further parameters, and with
/// what that needs.
fn rebuilt(
    module: &Module,
    function: &Function,
    results: &[ValueId],
    cut: &HashSet<ValueId>,
) -> Option<Module> {
    let live = live(function, results, cut);
    let mut values: Vec<Option<ValueId>> = vec![None; function.values.len()];
    let mut builder = FunctionBuilder::new(module, &function.name);
    let made = function.insts.iter().flat_map(|inst| &inst.results);
    let params = function.params.iter().chain(made.filter(|value| cut.contains(value)));
    for value in params.filter(|value| live.contains(value)) {
        let declared = &function.values[value.index()];
        let name = declared.name.clone().unwrap_or_else(|| format!("cut.{}", value.0));
        values[value.index()] = Some(builder.param(name, declared.ty.clone()));
    }
    for inst in &function.insts {
        let needed = inst.results.iter().any(|result| live.contains(result));
        if !needed || inst.results.iter().any(|result| cut.contains(result)) {
            continue;
        }
        let operands: Option<Vec<ValueId>> =
            inst.operands.iter().map(|operand| values[operand.index()]).collect();
        let made = builder.push(inst.op.clone(), &operands?).ok()?;
        for (&old, &new) in inst.results.iter().zip(&made) {
            values[old.index()] = Some(new);
            if let Some(name) = &function.values[old.index()].name {
                builder.name(new, name.clone());
            }
        }
    }
    let results: Option<Vec<ValueId>> = results.iter().map(|value| values[value.index()]).collect();
    let function = builder.finish(&results?);
    let mut smaller = module.clone();
    *smaller.functions.last_mut()? = function;
    let root = FuncId(smaller.functions.len() as u32 - 1);
    Some(only(&smaller, root))
}

/// The values that results need.
fn live(function: &Function, results: &[ValueId], cut: &HashSet<ValueId>) -> HashSet<ValueId> {
    let mut live: HashSet<ValueId> = results.iter().copied().collect();
    for inst in function.insts.iter().rev() {
        let needed =
            inst.results.iter().any(|result| live.contains(result) && !cut.contains(result));
        if needed {
            live.extend(&inst.operands);
        }
    }
    live
}
