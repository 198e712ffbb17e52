//! The values of a module before a pass and after it.
//!
//! Every function is interpreted by itself on the same random inputs, so that what is shared is judged
//! once. A function that would cost much with all that it calls is judged with its calls stood in for: by
//! a sum of the operands with fixed random factors, which is different as soon as an operand is. So a
//! model of eighty layers costs what one of a few distinct layers does.
//!
//! Not only results are compared: a pass says which values of its module equal which ones before it, and
//! all of these are, in order. So a mistake shows where it is, before anything can blur it.
//!
//! How far values may be apart follows from what the pass says of numbers:
//!
//! - `exact`: not at all, computed in f32 (0 and −0 are equal). Constants that were folded are folded in
//!   f32, and sums run in one order, so a pass that keeps every operation keeps every bit;
//! - `reassociates`, `lossy`: as far as their running errors allow ([`Bounded`]), computed in f64. Both
//!   are equal in real arithmetic; what rounds is each operation in f64, constants that rules computed
//!   in f32, and caches that are stored in f16, all of which are in the errors of one or the other.

use super::finding::{Difference, Finding, numerics_name, spelled};
use super::inputs::{Case, converted};
use super::reduce::only;
use super::small::smaller;
use crate::check::{keep_worst, place};
use crate::report::Element;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;
use waveloom_ir::interp::{Bounded, Data, Real};
use waveloom_ir::{
    DType, Dim, FuncId, Function, Inst, InterpError, Interpreter, Module, Op, Tensor, ValueId,
    WeightId,
};
use waveloom_passes::{Numerics, ValueMap};

/// Multiplications that a function may cost with all that it calls, before its calls are stood in for.
const AFFORDABLE: f64 = 1e8;

/// Elements of a module's largest value that are looked at a second time in their full size.
const FEASIBLE: u64 = 1 << 27;

/// Elements of a value within a function that is compared.
const MIDDLING: u64 = 1 << 20;

/// Elements of an operand of a call that is stood in for, where it has more than [`LONG`].
const SHORT: usize = 1 << 12;

/// Elements of an operand that all count.
const LONG: usize = 1 << 16;

/// Whether `after` computes what `before` does.
///
/// `maps` says by function what its values were; in other functions each value is what it was.
pub fn same_values(
    before: &Module,
    after: &Module,
    maps: &BTreeMap<String, ValueMap>,
    numerics: Numerics,
    seed: u64,
) -> Result<(), Finding> {
    interface(before, after)?;
    let judge = |before: &Module, after: &Module| {
        let cases = Case::all(before, seed);
        Judge { before, after, maps, numerics, cases }.judge()
    };
    if let Some([small, small_after]) = smaller([before, after]) {
        let Err(finding) = judge(&small, &small_after) else { return Ok(()) };
        if largest(before) > FEASIBLE {
            return Err(finding);
        }
    }
    judge(before, after)
}

/// Passes keep symbols, and the names and shapes of weights.
fn interface(before: &Module, after: &Module) -> Result<(), Finding> {
    let changed = |what: &str| Finding::Interface { problem: format!("it changed the {what}") };
    if before.symbols != after.symbols {
        return Err(changed("symbols"));
    }
    let weights = |module: &Module| -> Vec<_> {
        module.weights.iter().map(|w| (w.name.clone(), w.ty.shape.clone())).collect()
    };
    if weights(before) != weights(after) {
        return Err(changed("names or shapes of weights"));
    }
    Ok(())
}

/// Elements of the largest value.
fn largest(module: &Module) -> u64 {
    let cases = Case::all(module, 0);
    let types = module.functions.iter().flat_map(|f| f.values.iter().map(|value| &value.ty));
    let sizes = types.map(|ty| cases[0].shape(ty).iter().product::<u64>());
    sizes.max().unwrap_or(0)
}

/// Two modules that are to be the same.
struct Judge<'m> {
    before: &'m Module,
    after: &'m Module,
    maps: &'m BTreeMap<String, ValueMap>,
    numerics: Numerics,
    cases: Vec<Case>,
}

impl Judge<'_> {
    fn judge(&self) -> Result<(), Finding> {
        for (before, after) in self.pairs()? {
            for case in &self.cases {
                match self.numerics {
                    Numerics::Exact => self.compare::<f32>(before, after, case)?,
                    Numerics::Reassociates | Numerics::Lossy => {
                        self.compare::<Bounded>(before, after, case)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Functions of one name, and what was called before and is called now, callees first.
    fn pairs(&self) -> Result<Vec<(FuncId, FuncId)>, Finding> {
        let mut pairs = BTreeSet::new();
        for (index, function) in (0..).zip(&self.before.functions) {
            let id = FuncId(index);
            let Some(same) = self.after.function(&function.name) else { continue };
            pairs.insert((id, same));
            let called = [(self.before, id), (self.after, same)].map(|(m, id)| calls(m, id));
            if called[0].len() == called[1].len() {
                pairs.extend(called[0].iter().copied().zip(called[1].iter().copied()));
            }
        }
        let lost = |id: &FuncId| !pairs.iter().any(|(before, _)| before == id);
        let mut ids = (0..self.before.functions.len() as u32).map(FuncId);
        match ids.find(lost) {
            Some(id) => {
                let name = &self.before.functions[id.index()].name;
                Err(Finding::Interface { problem: format!("it lost @{name}") })
            }
            None => Ok(pairs.into_iter().collect()),
        }
    }

    fn compare<R: Real + Judged>(
        &self,
        before: FuncId,
        after: FuncId,
        case: &Case,
    ) -> Result<(), Finding> {
        let functions =
            [&self.before.functions[before.index()], &self.after.functions[after.index()]];
        let name = &functions[0].name;
        let loops = |f: &Function| f.insts.iter().any(|i| matches!(i.op, Op::DecodeLoop { .. }));
        if functions.iter().any(|f| loops(f)) {
            // What it loops over is judged.
            return Ok(());
        }
        let shapes = functions.map(|f| f.param_types().map(|ty| ty.shape.clone()).collect());
        let [shapes, new_shapes]: [Vec<_>; 2] = shapes;
        if shapes != new_shapes || functions[0].results.len() != functions[1].results.len() {
            let problem = format!("it changed the parameters or results of @{name}");
            return Err(Finding::Interface { problem });
        }
        let inputs: Vec<Tensor<R>> = (0..shapes.len())
            .map(|index| {
                let dtypes = functions.map(|f| f.ty(f.params[index]).dtype);
                converted(&case.input(self.before, functions[0], index), &dtypes)
            })
            .collect();
        let stands_in = cost(self.before, before, case) > AFFORDABLE;
        let values = |module: &Module, id, results: Vec<ValueId>| {
            let (module, id) = giving(module, id, results);
            evaluate(&module, id, &inputs, case, stands_in)
        };
        let (old, new) = self.compared(functions, case).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        // What has no value on these inputs cannot be judged on them.
        let Ok(expected) = values(self.before, before, old.clone()) else { return Ok(()) };
        let found = values(self.after, after, new).map_err(|error| Finding::NoValue {
            function: name.clone(),
            problem: error.to_string(),
        })?;
        for ((value, expected), found) in old.into_iter().zip(&expected).zip(&found) {
            let (wrong, elements) = wrong_elements(expected, found);
            if wrong > 0 {
                return Err(Finding::Differs(Box::new(Difference {
                    function: name.clone(),
                    at: made_by(functions[0], value),
                    numerics: numerics_name(self.numerics),
                    wrong,
                    of: expected.data.len() as u64,
                    elements,
                    extents: case.text(self.before),
                })));
            }
        }
        Ok(())
    }

    /// Pairs of values, before and after, that are to be the same: those that the pass says are, in their
    /// order, then the results.
    fn compared(&self, [before, after]: [&Function; 2], case: &Case) -> Vec<(ValueId, ValueId)> {
        let identity = ValueMap::identity(after);
        let map = match self.maps.get(&after.name) {
            Some(map) => map,
            None if before.values.len() == after.values.len() => &identity,
            None => &ValueMap::default(),
        };
        let count = |function: &Function, value| {
            let elements = case.shape(function.ty(value)).iter().product::<u64>();
            (elements <= MIDDLING).then_some(elements)
        };
        let computes = |inst: &&Inst| !matches!(inst.op, Op::Weight { .. });
        let made = after.insts.iter().filter(computes).flat_map(|inst| &inst.results);
        let pairs = made.filter_map(|&new| {
            let old = *map.before(new).first()?;
            let size = count(before, old)?;
            (count(after, new) == Some(size)).then_some((old, new))
        });
        let results = before.results.iter().copied().zip(after.results.iter().copied());
        pairs.chain(results).collect()
    }
}

/// The module with one function, and what it calls, that gives these values.
fn giving(module: &Module, id: FuncId, results: Vec<ValueId>) -> (Module, FuncId) {
    let mut alone = only(module, id);
    let id = FuncId(alone.functions.len() as u32 - 1);
    alone.functions[id.index()].results = results;
    (alone, id)
}

/// What computes a value, for people.
fn made_by(function: &Function, value: ValueId) -> String {
    let inst = function.insts.iter().find(|inst| inst.results.contains(&value));
    inst.map_or_else(|| format!("parameter {value}"), |inst| spelled(function, inst))
}

/// The functions that a function calls, in order.
fn calls(module: &Module, id: FuncId) -> Vec<FuncId> {
    let insts = module.functions[id.index()].insts.iter();
    let called = insts.filter_map(|inst| match inst.op {
        Op::Call { func } => Some(func),
        _ => None,
    });
    called.collect()
}

/// The results of a function.
pub fn evaluate<R: Real>(
    module: &Module,
    id: FuncId,
    inputs: &[Tensor<R>],
    case: &Case,
    stands_in: bool,
) -> Result<Vec<Tensor<R>>, InterpError> {
    let short = if stands_in { only_called_with(module, id) } else { HashSet::new() };
    let weight = |id: WeightId| {
        let declared = &module.weights[id.index()];
        let shortened = short.contains(&id).then_some(SHORT);
        Ok(converted(&case.weight(&declared.name, &declared.ty, shortened), &[]))
    };
    let interpreter = Interpreter::with_values(module, &weight);
    match stands_in {
        true => interpreter.with_calls(&stand_in).run(id, inputs, &case.extents),
        false => interpreter.run(id, inputs, &case.extents),
    }
}

/// The long weights of which a function reads nothing: it only hands them on.
fn only_called_with(module: &Module, id: FuncId) -> HashSet<WeightId> {
    let function = &module.functions[id.index()];
    let handed_on = |weight: &WeightId| {
        function.insts.iter().filter(|inst| inst.op == Op::Weight { weight: *weight }).all(|inst| {
            let value = inst.results[0];
            let mut users = function.insts.iter().filter(|user| user.operands.contains(&value));
            !function.results.contains(&value)
                && users.all(|user| matches!(user.op, Op::Call { .. }))
        })
    };
    let elements = |ty: &waveloom_ir::Type| {
        let extents = ty.shape.iter().map(|dim| match dim {
            Dim::Const(extent) => *extent as usize,
            Dim::Symbol(_) => 0,
        });
        extents.product::<usize>()
    };
    let ids = (0..).map(WeightId).zip(&module.weights);
    let long = ids.filter(|(_, weight)| elements(&weight.ty) > LONG).map(|(id, _)| id);
    long.filter(handed_on).collect()
}

/// Results of a call that depend on every operand, and on nothing else.
pub fn stand_in<R: Real>(
    callee: &Function,
    args: &[Rc<Tensor<R>>],
    shapes: &[Vec<u64>],
) -> Result<Vec<Tensor<R>>, String> {
    let mut results = vec![];
    for (which, (shape, ty)) in shapes.iter().zip(callee.result_types()).enumerate() {
        let count = shape.iter().product::<u64>() as usize;
        let data = match ty.dtype {
            DType::I32 | DType::I8 | DType::U8 => Data::Int(vec![0; count]),
            DType::Bool => Data::Bool(vec![false; count]),
            _ => Data::Real(mixture(args, which, count)),
        };
        results.push(Tensor { shape: shape.clone(), data });
    }
    Ok(results)
}

fn mixture<R: Real>(args: &[Rc<Tensor<R>>], which: usize, count: usize) -> Vec<R> {
    let mut sums = vec![R::default(); count];
    for (index, arg) in args.iter().enumerate() {
        let owned;
        let values = match arg.as_reals() {
            Some(values) => values,
            None => {
                owned = arg.to_reals();
                &owned
            }
        };
        let used = if values.len() > LONG { &values[..SHORT] } else { values };
        if used.is_empty() || count == 0 {
            continue;
        }
        let steps = used.len().max(count);
        let scale = 1.0 / (steps.div_ceil(count) * args.len()) as f32;
        for step in 0..steps {
            let hash = (step as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ ((index * 8 + which) as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let factor = (hash >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            sums[step % count] += used[step % used.len()] * R::from_f32(factor * scale);
        }
    }
    sums
}

/// Multiplications, or elements of what multiplies nothing, with all that is called.
fn cost(module: &Module, id: FuncId, case: &Case) -> f64 {
    let function = &module.functions[id.index()];
    let count = |value| case.shape(function.ty(value)).iter().product::<u64>() as f64;
    let of = |inst: &Inst| {
        let sizes: Vec<f64> = inst.operands.iter().map(|&value| count(value)).collect();
        let rows = |value| case.shape(function.ty(value)).first().copied().unwrap_or(1) as f64;
        let results: f64 = inst.results.iter().map(|&value| count(value)).sum();
        match &inst.op {
            Op::Call { func } => cost(module, *func, case),
            Op::Gemm { attr } => {
                let weights = sizes[attr.first_weight()..attr.first_extra()].iter();
                weights.sum::<f64>() * rows(inst.operands[0])
            }
            Op::MatMul {} => {
                let inner = case.shape(function.ty(inst.operands[0]));
                results * inner.last().copied().unwrap_or(1) as f64
            }
            _ => results,
        }
    };
    function.insts.iter().map(of).sum()
}

/// A number that can be judged against another one.
trait Judged: Real {
    /// How far it may be from the other.
    fn allowed(self, other: Self) -> f64;
}

impl Judged for f32 {
    fn allowed(self, _: f32) -> f64 {
        0.0
    }
}

impl Judged for Bounded {
    fn allowed(self, other: Bounded) -> f64 {
        self.error + other.error
    }
}

/// How many numbers are wrong, and the worst of them.
fn wrong_elements<R: Judged>(expected: &Tensor<R>, found: &Tensor<R>) -> (u64, Vec<Element>) {
    // A view of a value may stand for it.
    let same_kind = expected.data.len() == found.data.len()
        && std::mem::discriminant(&expected.data) == std::mem::discriminant(&found.data);
    let (mut wrong, mut worst) = (0, vec![]);
    let pairs = expected.to_reals().into_iter().zip(found.to_reals());
    for (index, (expected, found)) in (0..).zip(pairs) {
        let (exact, value) = (expected.to_f64(), found.to_f64());
        let same = exact == value || exact.is_nan() && value.is_nan();
        let error = match same {
            _ if !same_kind => f64::NAN,
            true => continue,
            false => (exact - value).abs(),
        };
        let bound = expected.allowed(found);
        let element = Element { index: vec![index], found: value, exact, error, bound };
        if element.is_wrong() {
            wrong += 1;
            keep_worst(&mut worst, element);
        }
    }
    place(&mut worst, &expected.shape);
    (wrong, worst)
}
