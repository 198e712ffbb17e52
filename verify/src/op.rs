//! A launch's op as a module of its own: what the interpreter evaluates, and what a reproducer is.

use crate::VerifyError;
use crate::bounds::Matrix;
use waveloom_ir::interp::Data;
use waveloom_ir::storage::dequantize;
use waveloom_ir::{
    DType, Dim, FuncId, Function, FunctionBuilder, InstId, Interpreter, Module, Op, SymbolId,
    Tensor, Type, ValueId, Weights, weight_bytes,
};

/// One application of an op: a function `@main` that takes what is no weight and gives the op's
/// results.
pub struct Operation {
    /// The module: symbols, the op's weights, `@main`.
    pub module: Module,
    /// The op's instruction in `@main`.
    pub inst: InstId,
    /// Types of the operands, weights included.
    pub operands: Vec<Type>,
    /// Types of the results.
    pub results: Vec<Type>,
    /// By operand: the weight that it is, by name.
    pub weights: Vec<Option<String>>,
}

/// `@main`.
pub const MAIN: FuncId = FuncId(0);

impl Operation {
    /// Instruction `inst` of `function` of `module`; `weights` are the names of its operands that are
    /// weights.
    pub fn new(
        module: &Module,
        function: &Function,
        inst: InstId,
        weights: Vec<Option<String>>,
    ) -> Result<Operation, VerifyError> {
        let inst = &function.insts[inst.index()];
        let operands: Vec<Type> = inst.operands.iter().map(|&v| function.ty(v).clone()).collect();
        let name = format!("{}.{}", module.name, inst.op.mnemonic());
        let mut alone = Module { symbols: module.symbols.clone(), ..Module::new(name) };
        for name in weights.iter().flatten() {
            let known = alone.weights.iter().any(|weight| weight.name == *name);
            let declared = module.weights.iter().find(|weight| weight.name == *name);
            let declared = declared.ok_or_else(|| VerifyError::NoWeight(name.clone()))?;
            if !known {
                alone.weights.push(declared.clone());
            }
        }
        let (main, at) = main_function(&alone, &inst.op, &operands, &weights)?;
        let results = main.result_types().cloned().collect();
        alone.add_function(main);
        Ok(Operation { module: alone, inst: at, operands, results, weights })
    }

    /// The operation of a module that [`Operation::new`] made.
    pub fn of_module(module: Module) -> Result<Operation, VerifyError> {
        let one = || VerifyError::NotOneOp;
        let main = module.function("main").filter(|id| *id == MAIN).ok_or_else(one)?;
        let function = &module.functions[main.index()];
        let is_op = |op: &Op| !matches!(op, Op::Weight { .. } | Op::Reshape { .. });
        let mut ops = (0..).zip(&function.insts).filter(|(_, inst)| is_op(&inst.op));
        let (Some((index, inst)), None) = (ops.next(), ops.next()) else { return Err(one()) };
        let weights = inst.operands.iter().map(|&v| weight_of(&module, function, v)).collect();
        let operands = inst.operands.iter().map(|&v| function.ty(v).clone()).collect();
        let results = inst.results.iter().map(|&v| function.ty(v).clone()).collect();
        Ok(Operation { inst: InstId(index), operands, results, weights, module })
    }

    /// The op.
    pub fn op(&self) -> &Op {
        &self.module.functions[MAIN.index()].insts[self.inst.index()].op
    }

    /// Exact results: `inputs` are the operands that are no weights.
    pub fn evaluate(
        &self,
        weights: &dyn Weights,
        inputs: &[Tensor<f64>],
        extents: &[(SymbolId, u64)],
    ) -> Result<Vec<Tensor<f64>>, VerifyError> {
        let interpreter = Interpreter::<f64>::new(&self.module, weights);
        Ok(interpreter.run(MAIN, inputs, extents)?)
    }

    /// The elements of operand `index`, if it is a weight of real numbers.
    pub fn matrix(
        &self,
        index: usize,
        weights: &dyn Weights,
    ) -> Result<Option<Matrix>, VerifyError> {
        let Some(name) = &self.weights[index] else { return Ok(None) };
        let declared = self.module.weights.iter().find(|weight| weight.name == *name);
        let declared = declared.ok_or_else(|| VerifyError::NoWeight(name.clone()))?;
        let shape: Vec<u64> = self.operands[index].shape.iter().map(|dim| fixed(*dim)).collect();
        let bytes = weight_bytes(declared, weights)?;
        let mut values = vec![0.0; shape.iter().product::<u64>() as usize];
        dequantize(declared.ty.dtype, &bytes, &mut values)?;
        Ok(Some(Matrix::new(declared.ty.dtype, shape, values, &bytes)))
    }
}

/// `@main` of an operation, and where the op is in it.
fn main_function(
    module: &Module,
    op: &Op,
    operands: &[Type],
    weights: &[Option<String>],
) -> Result<(Function, InstId), VerifyError> {
    let mut main = FunctionBuilder::new(module, "main");
    let mut values: Vec<Option<ValueId>> = vec![None; operands.len()];
    for (index, ty) in operands.iter().enumerate().filter(|(i, _)| weights[*i].is_none()) {
        values[index] = Some(main.param(format!("operand.{index}"), ty.clone()));
    }
    for (index, ty) in operands.iter().enumerate() {
        let Some(name) = &weights[index] else { continue };
        let at = (0..).zip(&module.weights).find(|(_, weight)| weight.name == *name);
        let (id, declared) = at.ok_or_else(|| VerifyError::NoWeight(name.clone()))?;
        let value = main.weight(waveloom_ir::WeightId(id))?;
        values[index] = Some(match declared.ty.shape == ty.shape {
            true => value,
            false => main.push1(Op::Reshape { shape: ty.shape.clone() }, &[value])?,
        });
    }
    let values: Vec<ValueId> = values.into_iter().flatten().collect();
    let at = InstId(main.function().insts.len() as u32);
    let results = main.push(op.clone(), &values)?;
    Ok((main.finish(&results), at))
}

/// The weight that a value of `@main` is.
fn weight_of(module: &Module, function: &Function, value: ValueId) -> Option<String> {
    let inst = function.insts.iter().find(|inst| inst.results.contains(&value))?;
    match &inst.op {
        Op::Weight { weight } => Some(module.weights[weight.index()].name.clone()),
        Op::Reshape { .. } => weight_of(module, function, inst.operands[0]),
        _ => None,
    }
}

fn fixed(dim: Dim) -> u64 {
    match dim {
        Dim::Const(extent) => extent,
        Dim::Symbol(_) => 0,
    }
}

/// The extents of a type.
pub fn extents(ty: &Type, symbols: &[(SymbolId, u64)]) -> Vec<u64> {
    let extent = |dim: &Dim| match dim {
        Dim::Const(extent) => *extent,
        Dim::Symbol(id) => symbols.iter().find(|(known, _)| known == id).map_or(0, |(_, n)| *n),
    };
    ty.shape.iter().map(extent).collect()
}

/// Elements of a stored value in row-major order, from its bytes in the layout of its type.
pub fn decode(ty: &Type, shape: &[u64], bytes: &[u8]) -> Result<Tensor<f64>, VerifyError> {
    let size = ty.dtype.block_bytes() as usize;
    let places: Vec<usize> = (0..shape.iter().product::<u64>() as usize)
        .map(|index| place(ty, shape, index) * size)
        .collect();
    if places.iter().any(|at| at + size > bytes.len()) {
        return Err(VerifyError::Layout(format!("{:?} of {shape:?}", ty.layout)));
    }
    let at = |index: usize| &bytes[places[index]..places[index] + size];
    let count = shape.iter().product::<u64>() as usize;
    let data = match ty.dtype {
        DType::I32 => {
            let int = |index| at(index).first_chunk().map_or(0, |b| i32::from_le_bytes(*b));
            Data::Int((0..count).map(int).collect())
        }
        dtype => {
            let ordered: Vec<u8> = (0..count).flat_map(at).copied().collect();
            let mut values = vec![0f32; count];
            dequantize(dtype, &ordered, &mut values)?;
            Data::Real(values.into_iter().map(f64::from).collect())
        }
    };
    Ok(Tensor { shape: shape.to_vec(), data })
}

/// The bytes of a value in the layout of its type, in a buffer of `bytes` bytes.
pub fn encode(ty: &Type, shape: &[u64], row_major: &[u8], bytes: usize) -> Vec<u8> {
    let size = ty.dtype.block_bytes() as usize;
    let mut out = vec![0; bytes];
    for (index, element) in row_major.chunks_exact(size).enumerate() {
        let at = place(ty, shape, index) * size;
        if let Some(to) = out.get_mut(at..at + size) {
            to.copy_from_slice(element);
        }
    }
    out
}

/// Bytes that a value takes in the layout of its type.
pub fn stored_bytes(ty: &Type, shape: &[u64]) -> usize {
    let elements = match shape {
        [context, heads, dim] => ty.layout.capacity(*context) * heads * dim,
        _ => shape.iter().product(),
    };
    (elements * ty.dtype.block_bytes()) as usize
}

/// Where element `index` in row-major order lies, in elements.
fn place(ty: &Type, shape: &[u64], index: usize) -> usize {
    let [context, heads, dim] = *shape else { return index };
    let index = index as u64;
    let at = [index / (heads * dim), index / dim % heads, index % dim];
    ty.layout.index([context, heads, dim], at, ty.dtype.block_bytes()) as usize
}
