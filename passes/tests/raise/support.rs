//! Random inputs, the interpreter before and after a pass, what is left after it.

use std::borrow::Cow;
use waveloom_ir::interp::Data;
use waveloom_ir::{
    DType, Dim, Family, FuncId, FunctionBuilder, InferError, Interpreter, Module, Op, SymbolId,
    Tensor, Type, ValueId, Weights, print,
};
use waveloom_passes::{PassFn, PassOptions, PassReport};

/// Extents of T, S and C when a module is interpreted.
pub const EXTENTS: [u64; 3] = [3, 7, 9];

/// Largest difference of a pass that reassociates, relative to the largest result: the interpreter
/// runs in f64, so what is left is the rounding of constants to f32.
pub const REASSOCIATED: f64 = 1e-6;

/// Largest difference of a pass that is exact.
pub const EXACT: f64 = 0.0;

/// A module with the three symbols of every model.
pub fn module() -> (Module, [SymbolId; 3]) {
    let mut module = Module::new("test");
    let symbols = [("T", 6), ("S", 9), ("C", 9)].map(|(name, max)| module.add_symbol(name, 1, max));
    (module, symbols)
}

/// A module with one function that `build` makes from the symbols T, S and C.
pub fn one_function(
    build: impl FnOnce(&mut FunctionBuilder<'_>, [Dim; 3]) -> Result<Vec<ValueId>, InferError>,
) -> Module {
    let (mut module, symbols) = module();
    let mut builder = FunctionBuilder::new(&module, "f");
    let results = build(&mut builder, symbols.map(Dim::Symbol)).expect("the test is well typed");
    let function = builder.finish(&results);
    module.add_function(function);
    module
}

/// A stream of pseudo-random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In −1..1.
    pub fn real(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Weights made from their names; f32 only.
struct MadeUp<'m>(&'m Module);

impl Weights for MadeUp<'_> {
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let weight = self.0.weights.iter().find(|weight| weight.name == name)?;
        assert_eq!(weight.ty.dtype, DType::F32, "{name}");
        let seed = name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
        let mut random = Random(seed);
        let count: u64 = weight.ty.shape.iter().map(|&dim| extent(dim)).product();
        Some((0..count).flat_map(|_| random.real().to_le_bytes()).collect())
    }
}

fn extent(dim: Dim) -> u64 {
    match dim {
        Dim::Const(extent) => extent,
        Dim::Symbol(id) => EXTENTS[id.index()],
    }
}

/// An input of a parameter's type: positions end the cache, other integers are indices below 4.
fn input(random: &mut Random, name: &str, ty: &Type) -> Tensor<f64> {
    let shape: Vec<u64> = ty.shape.iter().map(|&dim| extent(dim)).collect();
    let count = shape.iter().product::<u64>() as usize;
    if name.contains("positions") {
        let first = (EXTENTS[1] - EXTENTS[0]) as i32;
        return Tensor::ints(shape, (first..).take(count).collect::<Vec<i32>>());
    }
    match ty.dtype {
        DType::I32 => {
            // The index of the last row is one that every T has.
            let bound = if name == "last" { EXTENTS[0] } else { 4 };
            let values: Vec<i32> = (0..count).map(|_| (random.bits() % bound) as i32).collect();
            Tensor::ints(shape, values)
        }
        _ => {
            let values: Vec<f64> = (0..count).map(|_| random.real().into()).collect();
            Tensor::reals(shape, values)
        }
    }
}

/// Results of a function on inputs that depend on `seed` alone.
pub fn results(module: &Module, func: FuncId, seed: u64) -> Vec<Tensor<f64>> {
    let function = &module.functions[func.index()];
    let mut random = Random(seed);
    let values = function.params.iter().map(|param| &function.values[param.index()]);
    let inputs: Vec<Tensor<f64>> = values
        .map(|value| input(&mut random, value.name.as_deref().unwrap_or_default(), &value.ty))
        .collect();
    let bindings: Vec<(SymbolId, u64)> =
        EXTENTS.iter().zip(0..).map(|(&extent, id)| (SymbolId(id), extent)).collect();
    let weights = MadeUp(module);
    let interpreter = Interpreter::new(module, &weights);
    interpreter.run(func, &inputs, &bindings).expect("the module can be interpreted")
}

/// The largest difference of any function's results, relative to the largest result.
pub fn difference(before: &Module, after: &Module) -> f64 {
    let mut largest: f64 = 0.0;
    for index in 0..before.functions.len() {
        let func = FuncId(index as u32);
        for seed in [1, 2] {
            let (a, b) = (results(before, func, seed), results(after, func, seed));
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(&b) {
                assert_eq!(a.shape, b.shape);
                largest = largest.max(tensor_difference(a, b));
            }
        }
    }
    largest
}

/// The largest difference, relative to the largest element.
pub fn tensor_difference(a: &Tensor<f64>, b: &Tensor<f64>) -> f64 {
    let (Data::Real(a), Data::Real(b)) = (&a.data, &b.data) else {
        assert_eq!(a, b);
        return 0.0;
    };
    assert!(a.iter().chain(b).all(|x| !x.is_nan()), "NaN");
    let scale = a.iter().fold(1e-30f64, |max, x| max.max(x.abs()));
    a.iter().zip(b).fold(0.0f64, |max, (x, y)| max.max((x - y).abs() / scale))
}

/// The module after a pass, checked: well typed, the same values, the same result twice.
pub fn run(pass: PassFn, before: &Module, tolerance: f64) -> (Module, PassReport) {
    let options = PassOptions::default();
    let (after, report) = pass(before.clone(), &options).expect("the pass runs");
    waveloom_ir::verify::check(&after).expect("the module is valid");
    for (a, b) in before.functions.iter().zip(&after.functions) {
        assert!(a.param_types().eq(b.param_types()), "@{} changes its parameters", a.name);
        assert!(a.result_types().eq(b.result_types()), "@{} changes its results", a.name);
    }
    let again = pass(before.clone(), &options).expect("the pass runs");
    assert_eq!((&after, &report), (&again.0, &again.1), "the pass is deterministic");
    let difference = difference(before, &after);
    assert!(difference <= tolerance, "values differ by {difference:e}:\n{}", print(&after));
    (after, report)
}

/// `raise`, checked; macro-ops and structural ops alone are left.
pub fn raised(before: &Module) -> (Module, PassReport) {
    let (after, report) = run(waveloom_passes::raise::run, before, REASSOCIATED);
    let left = tensor_ops(&after);
    assert!(left.is_empty(), "{left:?} are left:\n{}\n{report:?}", print(&after));
    (after, report)
}

/// Tensor ops of a module, by function.
pub fn tensor_ops(module: &Module) -> Vec<String> {
    let ops = module.functions.iter().flat_map(|f| f.insts.iter().map(move |inst| (f, inst)));
    ops.filter(|(_, inst)| inst.op.family() == Family::Tensor)
        .map(|(f, inst)| format!("@{}: {}", f.name, inst.op.mnemonic()))
        .collect()
}

/// Spellings of the ops of the one function, reshapes left out.
pub fn spelling(module: &Module) -> Vec<&'static str> {
    let function = &module.functions[0];
    let ops = function.insts.iter().map(|inst| inst.op.mnemonic());
    ops.filter(|&op| op != "reshape").collect()
}

/// The ops of the one function, reshapes left out.
pub fn ops(module: &Module) -> Vec<Op> {
    let ops = module.functions[0].insts.iter().map(|inst| inst.op.clone());
    ops.filter(|op| !matches!(op, Op::Reshape { .. })).collect()
}
