//! The values of a function before and after passes, on seeded random inputs.

use std::borrow::Cow;
use waveloom_ir::interp::{Data, Interpreter, Tensor};
use waveloom_ir::{DType, Dim, FuncId, Module, Type, Weight, Weights};

/// How far results may be apart, relative to the largest: passes keep every operation on real numbers
/// and at most change the order of two; in f64 that leaves rounding of 1e-16 per operation.
const TOLERANCE: f64 = 1e-12;

/// A small generator (SplitMix64) of reproducible numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In −1..1.
    fn real(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// f32 weights from their names.
pub struct RandomWeights {
    sizes: Vec<(String, u64)>,
}

impl RandomWeights {
    pub fn new(module: &Module) -> Self {
        let size = |weight: &Weight| {
            assert_eq!(weight.stored, DType::F32, "the oracle makes f32 weights");
            let elements = weight.ty.shape.iter().map(|&dim| module.max_extent(dim));
            (weight.name.clone(), elements.product())
        };
        RandomWeights { sizes: module.weights.iter().map(size).collect() }
    }
}

impl Weights for RandomWeights {
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let index = self.sizes.iter().position(|(other, _)| other == name)?;
        let mut random = Random(index as u64);
        let values = (0..self.sizes[index].1).map(|_| 0.5 * random.real());
        Some(Cow::Owned(values.flat_map(f32::to_le_bytes).collect()))
    }
}

/// A random value for a parameter: integers that are positions 1, 2, …, or small tokens.
fn input(module: &Module, name: &str, ty: &Type, random: &mut Random, rows: u64) -> Tensor<f64> {
    let extent = |&dim: &Dim| match dim {
        Dim::Symbol(id) if module.symbols[id.index()].name == "T" => rows,
        dim => module.max_extent(dim),
    };
    let shape: Vec<u64> = ty.shape.iter().map(extent).collect();
    let count: u64 = shape.iter().product();
    let data = match (ty.dtype, name) {
        (DType::I32, "positions") => Data::Int((1..=count as i32).collect()),
        (DType::I32, "last") => Data::Int(vec![rows as i32 - 1]),
        (DType::I32, _) => Data::Int((0..count).map(|_| (random.next() % 8) as i32).collect()),
        _ => Data::Real((0..count).map(|_| random.real().into()).collect()),
    };
    Tensor { shape, data }
}

/// The results of `func` on the inputs that `seed` gives, with T = `rows`.
pub fn values(
    module: &Module,
    weights: &dyn Weights,
    func: FuncId,
    seed: u64,
    rows: u64,
) -> Vec<Tensor<f64>> {
    let function = &module.functions[func.index()];
    let mut random = Random(seed);
    let inputs: Vec<Tensor<f64>> = function
        .params
        .iter()
        .map(|param| {
            let value = &function.values[param.index()];
            let name = value.name.as_deref().unwrap_or_default();
            input(module, name, &value.ty, &mut random, rows)
        })
        .collect();
    let bindings: Vec<_> = ["T", "S"]
        .into_iter()
        .filter_map(|name| module.symbol(name))
        .zip([rows, rows + 1])
        .collect();
    let interpreter = Interpreter::<f64>::new(module, weights);
    let values = interpreter.run(func, &inputs, &bindings);
    values.expect("the function has values")
}

/// Requires that each function of `before` has the same results in `after`, with random weights.
pub fn assert_same(before: &Module, after: &Module) {
    let weights = RandomWeights::new(before);
    for function in &before.functions {
        assert_same_function(before, after, &weights, &function.name, TOLERANCE);
    }
}

/// Requires that function `name` has the same results in `before` and `after`, relative to the
/// largest.
pub fn assert_same_function(
    before: &Module,
    after: &Module,
    weights: &dyn Weights,
    name: &str,
    tolerance: f64,
) {
    let [old, new] =
        [before, after].map(|module| module.function(name).expect("the function is there"));
    for (seed, rows) in [(1, 1), (2, 3)] {
        let expected = values(before, weights, old, seed, rows);
        let found = values(after, weights, new, seed, rows);
        assert_eq!(expected.len(), found.len());
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected.shape, found.shape, "@{name}");
            let error = relative_error(&expected.to_reals(), &found.to_reals());
            assert!(error <= tolerance, "@{name}: error {error}");
        }
    }
}

fn relative_error(expected: &[f64], found: &[f64]) -> f64 {
    let largest = expected.iter().fold(1e-30f64, |m, x| m.max(x.abs()));
    let difference = |(a, b): (&f64, &f64)| (a - b).abs();
    let worst = expected.iter().zip(found).map(difference).fold(0.0, f64::max);
    // A NaN on one side only is a difference, too.
    if expected.iter().zip(found).any(|(a, b)| a.is_nan() != b.is_nan()) {
        return f64::INFINITY;
    }
    worst / largest
}
