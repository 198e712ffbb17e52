//! One launch: operands before, results after, the exact ones between.

use crate::bounds::{self, Matrix, Operand};
use crate::op::{Operation, decode, encode, extents, stored_bytes};
use crate::report::Element;
use crate::{Subject, VerifyError};
use waveloom_ir::sample::{Sampling, draw};
use waveloom_ir::{DType, Numerics, SymbolId, Tensor, Type};
use waveloom_passes::Step;
use waveloom_plan::{BufferId, Plan, Segment};
use waveloom_runtime::LoadedPlan;

/// Elements of a wrong result that are shown.
const SHOWN: usize = 5;

/// A loaded plan, and its symbols.
pub struct Machine<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// On the device.
    pub loaded: &'a mut dyn LoadedPlan,
    /// Values of the plan's symbols.
    pub symbols: Vec<i64>,
}

/// A result, compared.
pub struct Compared {
    /// Its buffer.
    pub buffer: BufferId,
    /// Its elements that are wrong.
    pub wrong: u64,
    /// All of them.
    pub of: u64,
    /// Largest error.
    pub absolute: f64,
    /// The same relative to the largest exact number.
    pub relative: f64,
    /// The furthest beyond its bound first.
    pub worst: Vec<Element>,
}

/// A launch that was run and checked.
pub struct Checked {
    /// Its results, compared.
    pub results: Vec<Compared>,
    /// What it was run on, by operand; `None` for weights.
    pub inputs: Vec<Option<Tensor<f64>>>,
    /// What it stands for; `None` for the choice of a token.
    pub operation: Option<Operation>,
}

impl Checked {
    /// The first result that is wrong.
    pub fn failure(&self) -> Option<&Compared> {
        self.results.iter().find(|result| result.wrong > 0)
    }
}

impl Machine<'_> {
    /// A value in a buffer.
    pub fn read(
        &mut self,
        buffer: BufferId,
        ty: &Type,
        shape: &[u64],
    ) -> Result<Tensor<f64>, VerifyError> {
        let mut bytes = vec![0; stored_bytes(ty, shape)];
        self.loaded.read_bytes(buffer, 0, &mut bytes)?;
        decode(ty, shape, &bytes)
    }

    /// Stores a value, given in row-major order, in a buffer.
    pub fn write(
        &mut self,
        buffer: BufferId,
        ty: &Type,
        shape: &[u64],
        row_major: &[u8],
    ) -> Result<(), VerifyError> {
        let bytes = encode(ty, shape, row_major, stored_bytes(ty, shape));
        Ok(self.loaded.write_bytes(buffer, 0, &bytes)?)
    }

    /// The module's symbols with the values of the plan's, by name.
    fn extents(&self, module: &waveloom_ir::Module) -> Vec<(SymbolId, u64)> {
        let value = |name: &str| {
            let at = self.plan.symbols.iter().position(|symbol| symbol.name == name)?;
            u64::try_from(self.symbols[at]).ok()
        };
        let symbols = (0..).zip(&module.symbols);
        symbols.filter_map(|(id, symbol)| Some((SymbolId(id), value(&symbol.name)?))).collect()
    }

    /// Runs a launch that stands for `step` and compares its results.
    pub fn check(
        &mut self,
        subject: &Subject<'_>,
        program: usize,
        launch: usize,
        step: &Step,
    ) -> Result<Checked, VerifyError> {
        let operation = operation(subject, step)?;
        let symbols = self.extents(subject.module);
        let mut inputs = vec![];
        for (index, buffer) in step.operands.iter().enumerate() {
            let ty = &operation.operands[index];
            inputs.push(match operation.weights[index] {
                Some(_) => None,
                None => Some(self.read(buffer.index(), ty, &extents(ty, &symbols))?),
            });
        }
        self.loaded.run_launch(program, launch, &self.symbols)?;
        let given: Vec<Tensor<f64>> = inputs.iter().flatten().cloned().collect();
        let exact = operation.evaluate(subject.weights, &given, &symbols)?;
        let kernel = self.plan.programs[program].launches[launch].kernel;
        let numerics = subject.numerics.get(kernel);
        let numerics = numerics.ok_or(VerifyError::NotOfModule("it has other kernels"))?;
        let bounds = result_bounds(subject, &operation, numerics, &inputs, &exact)?;
        let mut results = vec![];
        for (index, buffer) in step.results.iter().enumerate() {
            let shape = &exact[index].shape;
            let found = self.read(buffer.index(), &operation.results[index], shape)?;
            results.push(compare(buffer.index(), &found, &exact[index], &bounds[index]));
        }
        Ok(Checked { results, inputs, operation: Some(operation) })
    }

    /// Runs a launch that chooses a token: it and what is set up for the next step must be exact.
    pub fn check_sample(&mut self, program: usize, launch: usize) -> Result<Checked, VerifyError> {
        let walk = self.plan.decode_loop.clone();
        let vocab = self.plan.model.vocab as usize;
        let logits = self.loaded.read_f32(walk.logits, 0..vocab)?.to_vec();
        let words = self.loaded.read(walk.sampling, 0..Sampling::WORDS)?;
        let words: [u32; Sampling::WORDS] = words.try_into().unwrap_or_default();
        let last = self.loaded.read(walk.last, 0..1)?[0] as usize;
        let position = self.loaded.read(walk.positions, last..last + 1)?[0] + 1;
        let seen = self.loaded.read(walk.history, 0..position as usize)?.to_vec();
        self.loaded.run_launch(program, launch, &self.symbols)?;
        let seen: Vec<i32> = seen.into_iter().map(u32::cast_signed).collect();
        let sampling = Sampling::from_words(words.map(u32::cast_signed));
        let token = draw(&logits, &seen, &sampling, position).unwrap_or_default();
        let at = position as usize;
        let places = [
            (walk.history, at, token as u64),
            (walk.tokens, 0, token as u64),
            (walk.positions, 0, u64::from(position)),
            (walk.last, 0, 0),
        ];
        let mut results = vec![];
        for (buffer, word, exact) in places {
            let found = self.loaded.read(buffer, word..word + 1)?[0];
            let tensor = |x: f64| Tensor::reals([1], [x]);
            let exact = tensor(exact as f64);
            results.push(compare(buffer, &tensor(found.into()), &exact, &[0.0]));
        }
        Ok(Checked { results, inputs: vec![], operation: None })
    }
}

/// What a step computes.
fn operation(subject: &Subject<'_>, step: &Step) -> Result<Operation, VerifyError> {
    let unknown = || VerifyError::NotOfModule("a launch stands for no instruction of it");
    let function = subject.module.functions.get(step.func.index()).ok_or_else(unknown)?;
    let inst = function.insts.get(step.inst.index()).ok_or_else(unknown)?;
    let matches = inst.operands.len() == step.operands.len();
    let known = |id: &waveloom_passes::BufferId| id.index() < subject.plan.buffers.len();
    if !matches || !step.operands.iter().chain(&step.results).all(known) {
        return Err(unknown());
    }
    let weight = |id: &waveloom_passes::BufferId| {
        let buffer = &subject.plan.buffers[id.index()];
        (buffer.segment == Segment::Constants).then(|| buffer.name.clone())
    };
    let weights = step.operands.iter().map(weight).collect();
    Operation::new(subject.module, function, step.inst, weights)
}

fn result_bounds(
    subject: &Subject<'_>,
    operation: &Operation,
    numerics: &Numerics,
    inputs: &[Option<Tensor<f64>>],
    exact: &[Tensor<f64>],
) -> Result<Vec<Vec<f64>>, VerifyError> {
    let matrices: Vec<Option<Matrix>> = (0..inputs.len())
        .map(|index| operation.matrix(index, subject.weights))
        .collect::<Result<_, _>>()?;
    let operands = inputs.iter().zip(&matrices).map(|pair| match pair {
        (Some(value), _) => Ok(Operand::Value(value)),
        (None, Some(matrix)) => Ok(Operand::Weight(matrix)),
        (None, None) => Err(VerifyError::NotOfModule("an operand is neither value nor weight")),
    });
    let operands = operands.collect::<Result<Vec<_>, _>>()?;
    let dtypes: Vec<DType> = operation.results.iter().map(|ty| ty.dtype).collect();
    Ok(bounds::bounds(operation.op(), numerics, &operands, exact, &dtypes))
}

/// Compares a result with the exact one.
fn compare(buffer: BufferId, found: &Tensor<f64>, exact: &Tensor<f64>, bounds: &[f64]) -> Compared {
    let (shape, found, exact) = (&exact.shape, found.to_reals(), exact.to_reals());
    let largest = exact.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    let mut compared = Compared {
        buffer,
        wrong: 0,
        of: exact.len() as u64,
        absolute: 0.0,
        relative: 0.0,
        worst: vec![],
    };
    for (index, ((&found, &exact), &bound)) in found.iter().zip(&exact).zip(bounds).enumerate() {
        // Equal infinities, and two that are no number, are no difference.
        let same = found == exact || found.is_nan() && exact.is_nan();
        let error = if same { 0.0 } else { (found - exact).abs() };
        compared.absolute =
            compared.absolute.max(if error.is_nan() { f64::INFINITY } else { error });
        let element = Element { index: vec![index as u64], found, exact, error, bound };
        compared.wrong += u64::from(element.is_wrong());
        keep_worst(&mut compared.worst, element);
    }
    compared.relative = if compared.absolute == 0.0 { 0.0 } else { compared.absolute / largest };
    place(&mut compared.worst, shape);
    compared
}

/// Makes indices of elements in row-major order those of each dimension.
pub(crate) fn place(elements: &mut [Element], shape: &[u64]) {
    for element in elements {
        element.index = unravel(element.index[0], shape);
    }
}

/// Adds an element to the worst, the furthest beyond its bound first.
pub(crate) fn keep_worst(worst: &mut Vec<Element>, element: Element) {
    let share = element.share();
    if worst.len() == SHOWN && worst.last().is_some_and(|last| last.share() >= share) {
        return;
    }
    let at = worst.partition_point(|known| known.share() >= share);
    worst.insert(at, element);
    worst.truncate(SHOWN);
}

/// The index of each dimension.
fn unravel(mut index: u64, shape: &[u64]) -> Vec<u64> {
    let mut at = vec![0; shape.len()];
    for (at, extent) in at.iter_mut().zip(shape).rev() {
        *at = index % extent;
        index /= extent;
    }
    at
}
