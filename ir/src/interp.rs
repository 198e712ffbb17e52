//! The reference interpreter: the values of any module, in f32 or f64.
//!
//! It is the oracle for passes and kernels: each op is computed the plain way, from its
//! definition. Every real number of a module, whatever its dtype, is held as one `R`:
//!
//! - in f32, sums run in index order in f32; in f64 they are exact enough to stand for the truth;
//! - stored forms are read exactly; `cast` and appending to a cache round to the dtype;
//! - layouts do not show: elements are always in row-major order.
//!
//! Dequantized weights are kept by the [`Interpreter`], so that further runs cost no reading.

mod decode_loop;
mod macro_ops;
mod real;
mod tensor;
mod tensor_ops;

#[cfg(test)]
mod tests;

pub use macro_ops::{gemm_input, gemm_results};
pub use real::{Bounded, Real};
pub use tensor::{Data, Tensor};

use crate::module::{FuncId, Function, Inst, Module, SymbolId, ValueId, WeightId};
use crate::op::Op;
use crate::storage::{self, StorageError, weight_bytes};
use crate::types::{DType, Dim, Type};
use crate::verify::{self, VerifyError};
use crate::weights::Weights;
use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use thiserror::Error;

/// Elements that one value may have; more is refused rather than tried.
pub const MAX_ELEMENTS: u64 = 1 << 30;

/// Why a function has no values.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InterpError {
    /// The module breaks an invariant.
    #[error(transparent)]
    Invalid(#[from] VerifyError),
    /// The id names no function.
    #[error("the module has no {0}")]
    NoFunction(FuncId),
    /// Wrong number of inputs.
    #[error("@{function} takes {expected} inputs, found {found}")]
    InputCount {
        /// The function.
        function: String,
        /// Its parameters.
        expected: usize,
        /// Inputs given.
        found: usize,
    },
    /// An input is not of its parameter's type.
    #[error("input {index} of @{function}: {problem}")]
    Input {
        /// The function.
        function: String,
        /// Which input.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// A symbol has no extent.
    #[error("symbol {name} has no extent: no input shows it, bind it")]
    Unbound {
        /// The symbol.
        name: String,
    },
    /// A symbol's extent is out of its bounds.
    #[error("symbol {name} is bound to {extent}, which is not in {min}..={max}")]
    Bound {
        /// The symbol.
        name: String,
        /// Extent given.
        extent: u64,
        /// Smallest extent.
        min: u64,
        /// Largest extent.
        max: u64,
    },
    /// A weight cannot be read.
    #[error(transparent)]
    Weight(#[from] StorageError),
    /// An op has no value on these operands.
    #[error("{result} = {op} in @{function}: {problem}")]
    Op {
        /// The function.
        function: String,
        /// Its first result.
        result: ValueId,
        /// Spelling of the op.
        op: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// The extent of each symbol, as far as known.
#[derive(Clone)]
struct Extents<'m> {
    module: &'m Module,
    bound: Vec<Option<u64>>,
}

impl Extents<'_> {
    fn bind(&mut self, symbol: SymbolId, extent: u64) -> Result<(), InterpError> {
        let declared = &self.module.symbols[symbol.index()];
        if extent < declared.min || extent > declared.max {
            let (name, min, max) = (declared.name.clone(), declared.min, declared.max);
            return Err(InterpError::Bound { name, extent, min, max });
        }
        self.bound[symbol.index()] = Some(extent);
        Ok(())
    }

    fn extent(&self, dim: Dim) -> Result<u64, InterpError> {
        match dim {
            Dim::Const(extent) => Ok(extent),
            Dim::Symbol(symbol) => self.bound[symbol.index()].ok_or_else(|| InterpError::Unbound {
                name: self.module.symbols[symbol.index()].name.clone(),
            }),
        }
    }

    /// A shape's extents, if a value of that shape is not too large.
    fn shape(&self, shape: &[Dim]) -> Result<Vec<u64>, String> {
        let shape: Result<Vec<u64>, _> = shape.iter().map(|&dim| self.extent(dim)).collect();
        let shape = shape.map_err(|e| e.to_string())?;
        let product =
            |shape: &[u64]| shape.iter().try_fold(1u64, |n, &extent| n.checked_mul(extent.max(1)));
        match product(&shape) {
            Some(count) if count <= MAX_ELEMENTS => Ok(shape),
            _ => Err(format!("a value of shape {shape:?} is too large to interpret")),
        }
    }
}

/// Stands for the calls of a module: gives the results of a function, of these shapes, on operands.
pub type Calls<'m, R> =
    dyn Fn(&Function, &[Rc<Tensor<R>>], &[Vec<u64>]) -> Result<Vec<Tensor<R>>, String> + 'm;

/// Stands for the weights of a module.
pub type Values<'m, R> = dyn Fn(WeightId) -> Result<Tensor<R>, String> + 'm;

/// Where the values of weights come from.
enum Source<'m, R> {
    Bytes(&'m dyn Weights),
    Values(&'m Values<'m, R>),
}

/// Computes the values of a module's functions.
pub struct Interpreter<'m, R> {
    module: &'m Module,
    source: Source<'m, R>,
    calls: Option<&'m Calls<'m, R>>,
    weights: RefCell<Vec<Option<Rc<Tensor<R>>>>>,
    /// Set once the module is known to hold the verifier's invariants.
    verified: Cell<bool>,
}

impl<'m, R: Real> Interpreter<'m, R> {
    /// An interpreter of `module` with weights from `source`.
    pub fn new(module: &'m Module, source: &'m dyn Weights) -> Self {
        Interpreter::of(module, Source::Bytes(source))
    }

    /// An interpreter of `module` whose weights have these values, whatever their dtypes; they are
    /// asked for at every use, and not kept.
    pub fn with_values(module: &'m Module, values: &'m Values<'m, R>) -> Self {
        Interpreter::of(module, Source::Values(values))
    }

    fn of(module: &'m Module, source: Source<'m, R>) -> Self {
        let weights = RefCell::new(vec![None; module.weights.len()]);
        Interpreter { module, source, calls: None, weights, verified: Cell::new(false) }
    }

    /// The interpreter with `calls` in place of every call.
    pub fn with_calls(self, calls: &'m Calls<'m, R>) -> Self {
        Interpreter { calls: Some(calls), ..self }
    }

    /// The results of `func` on `inputs`.
    ///
    /// The module is verified at the first run. Symbols get their extents from `bindings`, and
    /// otherwise from the shapes of the inputs.
    pub fn run(
        &self,
        func: FuncId,
        inputs: &[Tensor<R>],
        bindings: &[(SymbolId, u64)],
    ) -> Result<Vec<Tensor<R>>, InterpError> {
        let module = self.module;
        if !self.verified.get() {
            verify::check(module)?;
            self.verified.set(true);
        }
        let function = module.functions.get(func.index()).ok_or(InterpError::NoFunction(func))?;
        let mut extents = Extents { module, bound: vec![None; module.symbols.len()] };
        for &(symbol, extent) in bindings {
            if symbol.index() >= module.symbols.len() {
                return Err(InterpError::Unbound { name: symbol.to_string() });
            }
            extents.bind(symbol, extent)?;
        }
        self.bind_inputs(function, inputs, &mut extents)?;
        let inputs = inputs.iter().cloned().map(Rc::new).collect();
        let results = self.eval_function(function, inputs, &extents)?;
        Ok(results.into_iter().map(Rc::unwrap_or_clone).collect())
    }

    /// The results, of types `types`, of one op of the module on `args`, which fit it.
    pub fn apply(
        &self,
        op: &Op,
        args: &[Rc<Tensor<R>>],
        types: &[&Type],
        bindings: &[(SymbolId, u64)],
    ) -> Result<Vec<Rc<Tensor<R>>>, InterpError> {
        let mut extents = Extents { module: self.module, bound: vec![None; bindings.len()] };
        extents.bound.resize(self.module.symbols.len(), None);
        for &(symbol, extent) in bindings {
            extents.bind(symbol, extent)?;
        }
        let fail = |problem| InterpError::Op {
            function: self.module.name.clone(),
            result: ValueId(0),
            op: op.mnemonic(),
            problem,
        };
        let shapes: Result<_, String> = types.iter().map(|ty| extents.shape(&ty.shape)).collect();
        let shapes = shapes.map_err(fail)?;
        self.eval_op(op, args.to_vec(), types, shapes, &extents).map_err(|failure| match failure {
            Failure::Here(problem) => fail(problem),
            Failure::Inside(error) => error,
        })
    }

    /// Checks the inputs against the parameters; binds symbols that only the inputs show.
    fn bind_inputs(
        &self,
        function: &Function,
        inputs: &[impl Borrow<Tensor<R>>],
        extents: &mut Extents,
    ) -> Result<(), InterpError> {
        let name = || function.name.clone();
        let (expected, found) = (function.params.len(), inputs.len());
        if expected != found {
            return Err(InterpError::InputCount { function: name(), expected, found });
        }
        for (index, (ty, input)) in function.param_types().zip(inputs).enumerate() {
            let input: &Tensor<R> = input.borrow();
            let fail = |problem| InterpError::Input { function: name(), index, problem };
            if !input.data.holds(ty.dtype) {
                return Err(fail(format!("the parameter is {}, the elements are not", ty.dtype)));
            }
            if ty.rank() != input.shape.len() {
                let (rank, shape) = (ty.rank(), &input.shape);
                return Err(fail(format!("the parameter has rank {rank}, the input is {shape:?}")));
            }
            for (&dim, &extent) in ty.shape.iter().zip(&input.shape) {
                if let Dim::Symbol(symbol) = dim
                    && extents.bound[symbol.index()].is_none()
                {
                    extents.bind(symbol, extent)?;
                }
            }
            let shape = extents.shape(&ty.shape).map_err(fail)?;
            if shape != input.shape {
                let found = &input.shape;
                return Err(fail(format!(
                    "the parameter has shape {shape:?}, the input {found:?}"
                )));
            }
            if shape.iter().product::<u64>() != input.data.len() as u64 {
                let count = input.data.len();
                return Err(fail(format!("shape {shape:?}, but {count} elements")));
            }
        }
        Ok(())
    }

    fn eval_function(
        &self,
        function: &Function,
        inputs: Vec<Rc<Tensor<R>>>,
        extents: &Extents,
    ) -> Result<Vec<Rc<Tensor<R>>>, InterpError> {
        let mut values: Vec<Option<Rc<Tensor<R>>>> = vec![None; function.values.len()];
        for (param, input) in function.params.iter().zip(inputs) {
            values[param.index()] = Some(input);
        }
        let last_uses = last_uses(function);
        for (i, inst) in function.insts.iter().enumerate() {
            let operands: Vec<Rc<Tensor<R>>> =
                inst.operands.iter().map(|&value| defined(&values, value)).collect();
            for &value in &inst.operands {
                if last_uses[value.index()] == i {
                    values[value.index()] = None;
                }
            }
            let results = self.eval_inst(function, inst, operands, extents)?;
            for (&value, result) in inst.results.iter().zip(results) {
                values[value.index()] = Some(result);
            }
        }
        Ok(function.results.iter().map(|&value| defined(&values, value)).collect())
    }

    fn eval_inst(
        &self,
        function: &Function,
        inst: &Inst,
        operands: Vec<Rc<Tensor<R>>>,
        extents: &Extents,
    ) -> Result<Vec<Rc<Tensor<R>>>, InterpError> {
        let fail = |problem| InterpError::Op {
            function: function.name.clone(),
            result: inst.results.first().copied().unwrap_or(ValueId(0)),
            op: inst.op.mnemonic(),
            problem,
        };
        let types: Vec<&Type> = inst.results.iter().map(|&value| function.ty(value)).collect();
        let mut shapes = vec![];
        for ty in &types {
            shapes.push(extents.shape(&ty.shape).map_err(fail)?);
        }
        self.eval_op(&inst.op, operands, &types, shapes, extents).map_err(|failure| match failure {
            Failure::Here(problem) => fail(problem),
            Failure::Inside(error) => error,
        })
    }

    /// The results of an op, whose types are `types` with extents `shapes`.
    fn eval_op(
        &self,
        op: &Op,
        args: Vec<Rc<Tensor<R>>>,
        types: &[&Type],
        mut shapes: Vec<Vec<u64>>,
        extents: &Extents,
    ) -> Result<Vec<Rc<Tensor<R>>>, Failure> {
        let shape = || shapes.first().cloned().unwrap_or_default();
        let one = |data: Data<R>| Ok(vec![Rc::new(Tensor { shape: shape(), data })]);
        match op {
            Op::Weight { weight } => Ok(vec![self.weight(*weight)?]),
            Op::Call { func } => {
                let callee = &self.module.functions[func.index()];
                match self.calls {
                    Some(calls) => {
                        Ok(calls(callee, &args, &shapes)?.into_iter().map(Rc::new).collect())
                    }
                    None => Ok(self.eval_function(callee, args, extents)?),
                }
            }
            Op::DecodeLoop { attr } => one(Data::Int(self.decode_loop(attr, &args, extents)?)),
            // Reading happens where a value is made; these change no number.
            Op::Dequantize {} => Ok(args),
            Op::Reshape { .. } => one(args[0].data.clone()),
            Op::Constant { value, .. } => one(tensor_ops::constant(value.0, types[0], &shape())),
            Op::Iota { .. } => one(Data::Int((0..).take(shape()[0] as usize).collect())),
            Op::Unary(op) => one(tensor_ops::unary(*op, &args[0])),
            Op::Binary(op) => one(tensor_ops::binary(*op, &args[0], &args[1], &shape())?),
            Op::Select {} => one(tensor_ops::select(&args[0], &args[1], &args[2], &shape())?),
            Op::ReduceSum { axis } => one(tensor_ops::reduce_sum(&args[0], *axis)?),
            Op::ReduceMean { axis } => one(tensor_ops::reduce_mean(&args[0], *axis)?),
            Op::ReduceMax { axis } => one(tensor_ops::reduce_max(&args[0], *axis)?),
            Op::MatMul {} => one(tensor_ops::matmul(&args[0], &args[1])?),
            Op::Transpose { perm } => one(tensor_ops::transpose(&args[0], perm, &shape())),
            Op::Slice { axis, start, .. } => {
                one(tensor_ops::slice(&args[0], *axis, *start, &shape())?)
            }
            Op::Concat { axis } => one(tensor_ops::concat(&args, *axis)),
            Op::Broadcast { .. } => {
                let strides = tensor::broadcast_strides(&args[0].shape, &shape());
                one(args[0].data.strided(&shape(), &strides))
            }
            Op::Gather {} | Op::Embed {} => one(tensor_ops::gather(&args[0], &args[1])?),
            Op::Cast { dtype } => one(tensor_ops::cast(&args[0], *dtype)),
            Op::TopK { k } => {
                let (values, indices) = tensor_ops::top_k(&args[0], *k)?;
                let indices = Tensor { shape: shapes.swap_remove(1), data: Data::Int(indices) };
                let values = Tensor { shape: shapes.swap_remove(0), data: Data::Real(values) };
                Ok(vec![Rc::new(values), Rc::new(indices)])
            }
            Op::CacheAppend {} => {
                let [cache, new, positions] = three(args)?;
                let cache =
                    macro_ops::append(cache, types[0].dtype, reals(&new)?, ints(&positions)?)?;
                Ok(vec![cache])
            }
            Op::Norm { eps } => one(macro_ops::norm(&args[0], &args[1], eps.0)?),
            Op::Rope {} => one(macro_ops::rope(&args[0], &args[1], &args[2])?),
            Op::Map { expr } => one(macro_ops::map(expr, &args, &shape())),
            Op::Gemm { attr } => Ok(macro_ops::gemm(attr, &args, types, shapes)?),
            Op::Attention { attr } => one(macro_ops::attention(attr, &args)?),
            Op::Sample {} => one(Data::Int(vec![decode_loop::sample(&args)?])),
        }
    }

    /// A weight; what comes as bytes is read once.
    fn weight(&self, id: WeightId) -> Result<Rc<Tensor<R>>, Failure> {
        let source = match self.source {
            Source::Bytes(source) => source,
            Source::Values(values) => return Ok(Rc::new(values(id)?)),
        };
        Ok(self.weight_of_bytes(source, id)?)
    }

    fn weight_of_bytes(
        &self,
        source: &dyn Weights,
        id: WeightId,
    ) -> Result<Rc<Tensor<R>>, InterpError> {
        if let Some(read) = &self.weights.borrow()[id.index()] {
            return Ok(Rc::clone(read));
        }
        let weight = &self.module.weights[id.index()];
        let bytes = weight_bytes(weight, source)?;
        let tensor = Rc::new(read(&weight.ty, &bytes)?);
        self.weights.borrow_mut()[id.index()] = Some(Rc::clone(&tensor));
        Ok(tensor)
    }
}

/// What went wrong in an op: itself, or something it runs or reads.
enum Failure {
    Here(String),
    Inside(InterpError),
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Failure::Here(problem)
    }
}

impl<E: Into<InterpError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Inside(error.into())
    }
}

/// A weight's elements from its checked bytes.
fn read<R: Real>(ty: &Type, bytes: &[u8]) -> Result<Tensor<R>, StorageError> {
    let extent = |dim: &Dim| match dim {
        Dim::Const(extent) => *extent,
        Dim::Symbol(_) => 0,
    };
    let shape: Vec<u64> = ty.shape.iter().map(extent).collect();
    let data = match ty.dtype {
        DType::I32 => {
            Data::Int(bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())
        }
        DType::I8 => Data::Int(bytes.iter().map(|b| b.cast_signed().into()).collect()),
        DType::U8 => Data::Int(bytes.iter().map(|&b| b.into()).collect()),
        DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        dtype => {
            let mut values = vec![0f32; shape.iter().product::<u64>() as usize];
            storage::dequantize(dtype, bytes, &mut values)?;
            Data::Real(values.into_iter().map(R::from_f32).collect())
        }
    };
    Ok(Tensor { shape, data })
}

/// The instruction that uses each value last; results of the function are used past the end.
fn last_uses(function: &Function) -> Vec<usize> {
    let mut last = vec![usize::MAX; function.values.len()];
    for (i, inst) in function.insts.iter().enumerate() {
        inst.operands.iter().for_each(|value| last[value.index()] = i);
    }
    function.results.iter().for_each(|value| last[value.index()] = usize::MAX);
    last
}

fn defined<R>(values: &[Option<Rc<Tensor<R>>>], value: ValueId) -> Rc<Tensor<R>> {
    let value = &values[value.index()];
    Rc::clone(value.as_ref().expect("in a verified module, definitions precede uses"))
}

const WRONG_KIND: &str = "an operand holds elements of another kind than its type";

fn reals<R: Real>(tensor: &Tensor<R>) -> Result<&[R], String> {
    tensor.as_reals().ok_or_else(|| WRONG_KIND.into())
}

fn ints<R: Real>(tensor: &Tensor<R>) -> Result<&[i32], String> {
    tensor.as_ints().ok_or_else(|| WRONG_KIND.into())
}

fn bools<R: Real>(tensor: &Tensor<R>) -> Result<&[bool], String> {
    tensor.as_bools().ok_or_else(|| WRONG_KIND.into())
}

fn three<T>(values: Vec<T>) -> Result<[T; 3], String> {
    values.try_into().map_err(|_| "takes three operands".into())
}

/// `index` as a row of `rows`, or what is wrong with it.
fn row(index: i32, rows: usize) -> Result<usize, String> {
    usize::try_from(index)
        .ok()
        .filter(|&i| i < rows)
        .ok_or_else(|| format!("index {index} is not in 0..{rows}"))
}
