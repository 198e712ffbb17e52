//! A model's steps in f64, on its stored weights, for a few tokens at once; and the same with every
//! number rounded as kernels may round it.
//!
//! Everything but products with weights is the interpreter's. All tokens go through at once, as
//! attention is causal, so each weight is read once.

use super::product::Stored;
use crate::bounds::{self, Matrix, Operand};
use crate::drawn::Random;
use crate::op::{Operation, extents};
use crate::{Subject, VerifyError};
use std::rc::Rc;
use waveloom_ir::interp::{Data, gemm_input, gemm_results};
use waveloom_ir::numerics::{Factors, Sums};
use waveloom_ir::{DType, GemmAttr, Module, Numerics, Op, SymbolId, Tensor, Type, weight_bytes};
use waveloom_passes::Step;
use waveloom_plan::{BufferId, Segment};

/// What a computation has in its buffers.
#[derive(Clone)]
pub struct World {
    /// By buffer.
    pub values: Vec<Option<Rc<Tensor<f64>>>>,
    /// Where numbers are rounded.
    noise: Option<Random>,
}

/// Steps under way: exact ones, those with roundings, and once something depends on which row the
/// logits are of, both for each such row.
pub struct Reference<'a, 's> {
    subject: &'a Subject<'s>,
    /// The subject's module with caches that hold numbers as they are.
    module: Module,
    symbols: Vec<(SymbolId, u64)>,
    /// Exact and rounded, for the last token but one.
    pub first: [World; 2],
    /// The same for the last token, once that makes a difference.
    pub second: Option<[World; 2]>,
    tokens: usize,
}

/// How the kernels of a step round on any target: one of each kind that there is.
pub struct Roundings<'n> {
    /// How they compute.
    pub numerics: Vec<&'n Numerics>,
    /// What caches hold.
    pub caches: DType,
}

impl<'a, 's> Reference<'a, 's> {
    /// Everything before the first step.
    pub fn new(
        subject: &'a Subject<'s>,
        tokens: &[u32],
        seed: u64,
    ) -> Result<Reference<'a, 's>, VerifyError> {
        let plan = subject.plan;
        let mut module = subject.module.clone();
        for value in module.functions.iter_mut().flat_map(|function| &mut function.values) {
            if value.ty.dtype == DType::F16 {
                value.ty.dtype = DType::F32;
            }
        }
        let count = tokens.len() as u64;
        let symbols = (0..module.symbols.len() as u32).map(|id| (SymbolId(id), count)).collect();
        let mut values = vec![None; plan.buffers.len()];
        let walk = &plan.decode_loop;
        let ints = |values: Vec<i32>| Some(Rc::new(Tensor::ints([values.len() as u64], values)));
        values[walk.tokens] = ints(tokens.iter().map(|token| token.cast_signed()).collect());
        values[walk.positions] = ints((0..tokens.len() as i32).collect());
        values[walk.last] = ints(vec![tokens.len() as i32 - 2]);
        let rounded = World { values: values.clone(), noise: Some(Random::new(seed)) };
        let first = [World { values, noise: None }, rounded];
        Ok(Reference { subject, module, symbols, first, second: None, tokens: tokens.len() })
    }

    /// Runs one step.
    pub fn step(&mut self, step: &Step, roundings: &Roundings<'_>) -> Result<(), VerifyError> {
        let last = self.subject.plan.decode_loop.last;
        if self.second.is_none() && step.operands.iter().any(|buffer| buffer.index() == last) {
            let row = vec![self.tokens as i32 - 1];
            let mut second = self.first.clone();
            for world in &mut second {
                world.values[last] = Some(Rc::new(Tensor::ints([1], row.clone())));
            }
            self.second = Some(second);
        }
        let operation = self.operation(step)?;
        let Reference { subject, first, second, symbols, .. } = self;
        let mut worlds: Vec<&mut World> =
            first.iter_mut().chain(second.iter_mut().flatten()).collect();
        let call = Call { subject, operation: &operation, step, symbols, roundings };
        let results = match operation.op() {
            Op::Gemm { attr } => call.gemm(attr, &mut worlds)?,
            Op::Embed {} if operation.weights[0].is_some() => call.embed(&mut worlds)?,
            _ => call.any(&mut worlds)?,
        };
        for (world, results) in worlds.into_iter().zip(results) {
            for (buffer, result) in step.results.iter().zip(results) {
                world.values[buffer.index()] = Some(result);
            }
        }
        Ok(())
    }

    fn operation(&self, step: &Step) -> Result<Operation, VerifyError> {
        let plan = self.subject.plan;
        let weight = |buffer: &waveloom_passes::BufferId| {
            let buffer = &plan.buffers[buffer.index()];
            (buffer.segment == Segment::Constants).then(|| buffer.name.clone())
        };
        let weights = step.operands.iter().map(weight).collect();
        let function = self.module.functions.get(step.func.index());
        let unknown = VerifyError::NotOfModule("a launch stands for no instruction of it");
        Operation::new(&self.module, function.ok_or(unknown)?, step.inst, weights)
    }
}

/// Results by world.
type Results = Result<Vec<Vec<Rc<Tensor<f64>>>>, VerifyError>;

/// One step in all worlds.
struct Call<'c, 's> {
    subject: &'c Subject<'s>,
    operation: &'c Operation,
    step: &'c Step,
    symbols: &'c [(SymbolId, u64)],
    roundings: &'c Roundings<'c>,
}

impl Call<'_, '_> {
    /// Operand `index` in the shape that the op sees; a cache that nothing wrote is zeros.
    fn operand(&self, world: &World, index: usize) -> Result<Rc<Tensor<f64>>, VerifyError> {
        let buffer: BufferId = self.step.operands[index].index();
        let shape = extents(&self.operation.operands[index], self.symbols);
        let count = shape.iter().product::<u64>() as usize;
        match &world.values[buffer] {
            Some(value) if value.shape == shape => Ok(value.clone()),
            Some(value) if value.data.len() == count => {
                Ok(Rc::new(Tensor { shape, data: value.data.clone() }))
            }
            None if self.subject.plan.buffers[buffer].segment == Segment::State => {
                Ok(Rc::new(Tensor::reals(shape, vec![0.0; count])))
            }
            _ => Err(VerifyError::NotOfModule("a launch reads what no launch before it writes")),
        }
    }

    /// A weight's declaration and its bytes as they are packed.
    fn stored<R>(
        &self,
        index: usize,
        read: impl FnOnce(&Stored<'_>) -> Result<R, VerifyError>,
    ) -> Result<R, VerifyError> {
        let name = self.operation.weights[index].as_ref();
        let name = name.ok_or(VerifyError::NotOfModule("a matrix is no weight"))?;
        let mut declared = self.operation.module.weights.iter();
        let declared = declared.find(|weight| weight.name == *name);
        let declared = declared.ok_or_else(|| VerifyError::NoWeight(name.clone()))?;
        let shape = extents(&self.operation.operands[index], self.symbols);
        let columns = shape.last().map_or(0, |&n| n as usize);
        let rows = shape.iter().product::<u64>() as usize / columns.max(1);
        let bytes = weight_bytes(declared, self.subject.weights)?;
        read(&Stored { dtype: declared.ty.dtype, bytes: &bytes, rows, columns })
    }

    /// Any op, by the interpreter; where numbers are rounded, each result is off by what its bound
    /// allows.
    fn any(&self, worlds: &mut [&mut World]) -> Results {
        let mut all = vec![];
        for world in worlds {
            let inputs: Vec<Option<Tensor<f64>>> = (0..self.step.operands.len())
                .map(|index| match self.operation.weights[index] {
                    Some(_) => Ok(None),
                    None => Ok(Some(Rc::unwrap_or_clone(self.operand(world, index)?))),
                })
                .collect::<Result<_, VerifyError>>()?;
            let given: Vec<Tensor<f64>> = inputs.iter().flatten().cloned().collect();
            let mut results =
                self.operation.evaluate(self.subject.weights, &given, self.symbols)?;
            if let Some(noise) = &mut world.noise {
                self.round(noise, &inputs, &mut results)?;
            }
            all.push(results.into_iter().map(Rc::new).collect());
        }
        Ok(all)
    }

    /// Moves results by errors of the size that the coarsest of the bounds of the step's kernels are for:
    /// a bound is [`bounds::SPREAD`] times the root of the sum of squares.
    fn round(
        &self,
        noise: &mut Random,
        inputs: &[Option<Tensor<f64>>],
        results: &mut [Tensor<f64>],
    ) -> Result<(), VerifyError> {
        let matrices: Vec<Option<Matrix>> = (0..inputs.len())
            .map(|index| self.operation.matrix(index, self.subject.weights))
            .collect::<Result<_, _>>()?;
        let dtypes: Vec<DType> =
            self.operation.results.iter().map(|ty| self.stored_dtype(ty)).collect();
        let plain = Numerics::default();
        let kinds = self.roundings.numerics.iter().copied().chain([&plain]);
        let all: Vec<Vec<Vec<f64>>> = kinds
            .map(|numerics| {
                let operands: Vec<Operand<'_>> = inputs
                    .iter()
                    .zip(&matrices)
                    .filter_map(|(value, matrix)| match (value, matrix) {
                        (Some(value), _) => Some(Operand::Value(value)),
                        (None, matrix) => matrix.as_ref().map(Operand::Weight),
                    })
                    .collect();
                bounds::bounds(self.operation.op(), numerics, &operands, results, &dtypes)
            })
            .collect();
        for (index, result) in results.iter_mut().enumerate() {
            let Data::Real(values) = &mut result.data else { continue };
            for (at, value) in values.iter_mut().enumerate() {
                let bound = all.iter().map(|bounds| bounds[index][at]).fold(0.0, f64::max);
                let error = bound / bounds::SPREAD;
                *value += uniform(noise) * if error.is_finite() { error } else { 0.0 };
            }
        }
        Ok(())
    }

    /// What a target may store a result as.
    fn stored_dtype(&self, ty: &Type) -> DType {
        if ty.rank() == 3 { self.roundings.caches } else { ty.dtype }
    }

    /// Rows of a stored table.
    fn embed(&self, worlds: &mut [&mut World]) -> Results {
        self.stored(0, |table| {
            let mut all = vec![];
            for world in worlds {
                let indices = self.operand(world, 1)?;
                let mut values = vec![];
                let mut row = vec![0f32; table.columns];
                for index in indices.as_ints().unwrap_or_default() {
                    table.row((*index).max(0) as usize, &mut row)?;
                    values.extend(row.iter().map(|x| f64::from(*x)));
                }
                let shape = extents(&self.operation.results[0], self.symbols);
                all.push(vec![Rc::new(Tensor::reals(shape, values))]);
            }
            Ok(all)
        })
    }

    /// Products with stored weights.
    fn gemm(&self, attr: &GemmAttr, worlds: &mut [&mut World]) -> Results {
        let fail = |_| VerifyError::NotOfModule("a product has operands of other kinds");
        let mut inputs = vec![];
        for world in worlds.iter() {
            let mut args = vec![self.operand(world, 0)?];
            if attr.prologue.is_some() {
                args.push(Rc::new(self.small_weight(1)?));
            }
            inputs.push(gemm_input(attr, &args).map_err(fail)?);
        }
        let rows =
            self.operand(worlds[0], 0)?.shape.first().map_or(1, |&rows| rows as usize).max(1);
        let columns = (inputs[0].len() / rows).max(1);
        let mut accumulators: Vec<Vec<Vec<f64>>> = vec![vec![]; worlds.len()];
        for index in 0..attr.weights as usize {
            let mut xs = inputs.clone();
            for (x, world) in xs.iter_mut().zip(worlds.iter_mut()) {
                if let Some(noise) = &mut world.noise {
                    self.round_rows(noise, x, columns, index);
                }
            }
            let all: Vec<&[f64]> = xs.iter().flat_map(|x| x.chunks_exact(columns)).collect();
            let products = self.stored(attr.first_weight() + index, |w| w.times(&all))?;
            for (of_world, products) in accumulators.iter_mut().zip(products.chunks(rows)) {
                of_world.push(products.concat());
            }
        }
        let types: Vec<&Type> = self.operation.results.iter().collect();
        let shapes: Vec<Vec<u64>> = types.iter().map(|ty| extents(ty, self.symbols)).collect();
        let mut all = vec![];
        for (world, accumulators) in worlds.iter_mut().zip(accumulators) {
            let extras = (attr.first_extra()..self.step.operands.len())
                .map(|index| match self.operation.weights[index] {
                    Some(_) => Ok(Rc::new(self.small_weight(index)?)),
                    None => self.operand(world, index),
                })
                .collect::<Result<Vec<_>, VerifyError>>()?;
            let mut results =
                gemm_results(attr, rows, &accumulators, &extras, &types, shapes.clone())
                    .map_err(fail)?;
            if let Some(noise) = &mut world.noise {
                for (result, ty) in results.iter_mut().zip(&types) {
                    round_stored(noise, Rc::make_mut(result), self.stored_dtype(ty));
                }
            }
            all.push(results);
        }
        Ok(all)
    }

    /// A weight that is a vector, or little more.
    fn small_weight(&self, index: usize) -> Result<Tensor<f64>, VerifyError> {
        let shape = extents(&self.operation.operands[index], self.symbols);
        self.stored(index, |weight| {
            let mut values = vec![];
            let mut row = vec![0f32; weight.columns];
            for index in 0..weight.rows {
                weight.row(index, &mut row)?;
                values.extend(row.iter().map(|x| f64::from(*x)));
            }
            Ok(Tensor::reals(shape, values))
        })
    }

    /// Moves what is multiplied with weight `index` by the coarsest of the kernels' roundings. What they
    /// do to the weight's elements, and to sums, is as much on average as if it were done to the rows.
    fn round_rows(&self, noise: &mut Random, x: &mut [f64], columns: usize, index: usize) {
        let factors: Vec<Factors> =
            self.roundings.numerics.iter().map(|numerics| numerics.product(index)).collect();
        for row in x.chunks_exact_mut(columns) {
            let mut errors = vec![0f64; columns];
            for factors in &factors {
                let rest = factors.matrix.relative() + sums(factors.sums, columns);
                let own = factors.activations.errors(row);
                for ((error, own), x) in errors.iter_mut().zip(own).zip(row.iter()) {
                    *error = error.max(own.hypot(rest * x.abs()));
                }
            }
            for (x, error) in row.iter_mut().zip(errors) {
                *x += uniform(noise) * error;
            }
        }
    }
}

/// Half a unit in the last place of f32, relative.
const U: f64 = 1.0 / (1 << 24) as f64;

/// What rounding the sums of `terms` products does, as an independent relative error of each term: of
/// running sums whose k-th is about √k terms large, each rounded by at most U, or twice in one
/// direction.
fn sums(sums: Sums, terms: usize) -> f64 {
    let terms = terms as f64;
    match sums {
        Sums::Nearest => U * (terms / 2.0).sqrt(),
        // Σ 2·2U·√k over k < n is (8/3)·U·n^1.5, to be compared with √n terms of a relative error ε/√3.
        Sums::Matrix => U * terms * 4.0,
    }
}

/// Moves numbers as storing them does, and the few operations in f32 that made them of sums.
fn round_stored(noise: &mut Random, value: &mut Tensor<f64>, dtype: DType) {
    let relative = match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 0.0,
    };
    if let Data::Real(values) = &mut value.data {
        for x in values {
            *x += uniform(noise) * x.abs() * (relative + 8.0 * U);
        }
    }
}

/// In −1..1.
fn uniform(noise: &mut Random) -> f64 {
    noise.real().into()
}
