//! Builds functions instruction by instruction, with inferred types.
//!
//! ```
//! use std::collections::HashMap;
//! use waveloom_ir::{FunctionBuilder, Interpreter, Module, Tensor, Type, Weights, verify};
//!
//! // y = x · w, for any number T of rows.
//! let mut module = Module::new("linear");
//! let rows = module.add_symbol("T", 1, 8);
//! let w = module.add_weight("w", Type::f32([2.into(), 1.into()]));
//! let mut f = FunctionBuilder::new(&module, "main");
//! let x = f.param("x", Type::f32([rows.into(), 2.into()]));
//! let w = f.weight(w)?;
//! let y = f.matmul(x, w)?;
//! let function = f.finish(&[y]);
//! let main = module.add_function(function);
//! let module = verify(module)?;
//! assert_eq!(
//!     module.to_string(),
//!     "\
//! module @linear {
//!   symbol T in 1..=8
//!   weight @w : f32[2, 1]
//!
//!   func @main(%0 \"x\": f32[T, 2]) -> (f32[T, 1]) {
//!     %1 = weight {weight = @w} : f32[2, 1]
//!     %2 = matmul %0, %1 : f32[T, 1]
//!     return %2
//!   }
//! }
//! "
//! );
//!
//! let bytes = [10f32, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! let weights = HashMap::from([("w".to_string(), bytes)]);
//! let x = Tensor::reals([2, 2], [1.0f64, 2.0, 3.0, 4.0]);
//! let y = Interpreter::new(&module, &weights).run(main, &[x], &[])?;
//! assert_eq!(y[0].as_reals(), Some(&[12.0, 34.0][..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::expr::{BinaryOp, F32, UnaryOp};
use crate::infer::{InferError, infer};
use crate::module::{FuncId, Function, Inst, Module, Value, ValueId, WeightId};
use crate::op::Op;
use crate::types::{DType, Dim, Shape, Type};

/// Builds one function of a module. Every method appends an instruction and infers its type.
pub struct FunctionBuilder<'m> {
    module: &'m Module,
    function: Function,
}

/// One value, or what is wrong with its operands.
pub type BuildResult = Result<ValueId, InferError>;

impl<'m> FunctionBuilder<'m> {
    /// Starts a function without parameters. `module` must already hold the symbols, weights and
    /// callees that the function names.
    pub fn new(module: &'m Module, name: impl Into<String>) -> Self {
        let function = Function {
            name: name.into(),
            values: vec![],
            params: vec![],
            insts: vec![],
            results: vec![],
        };
        FunctionBuilder { module, function }
    }

    /// Adds a parameter. All parameters come before the first instruction.
    pub fn param(&mut self, name: impl Into<String>, ty: Type) -> ValueId {
        assert!(self.function.insts.is_empty(), "parameters come before instructions");
        let value = self.value(ty, Some(name.into()));
        self.function.params.push(value);
        value
    }

    fn value(&mut self, ty: Type, name: Option<String>) -> ValueId {
        self.function.values.push(Value { ty, name });
        ValueId(self.function.values.len() as u32 - 1)
    }

    /// The function so far.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// The type of a value made so far.
    pub fn ty(&self, value: ValueId) -> &Type {
        self.function.ty(value)
    }

    /// Gives a value a name for people.
    pub fn name(&mut self, value: ValueId, name: impl Into<String>) {
        self.function.values[value.index()].name = Some(name.into());
    }

    /// Appends an instruction and returns its results.
    pub fn push(&mut self, op: Op, operands: &[ValueId]) -> Result<Vec<ValueId>, InferError> {
        let types: Vec<&Type> = operands.iter().map(|&value| self.ty(value)).collect();
        let results = infer(self.module, &op, &types)?;
        let results: Vec<ValueId> = results.into_iter().map(|ty| self.value(ty, None)).collect();
        self.function.insts.push(Inst {
            op,
            operands: operands.to_vec(),
            results: results.clone(),
        });
        Ok(results)
    }

    /// Appends an instruction and returns its first result.
    pub fn push1(&mut self, op: Op, operands: &[ValueId]) -> BuildResult {
        let name = op.mnemonic();
        let first = self.push(op, operands)?.first().copied();
        first.ok_or_else(|| InferError { op: name, problem: "has no result".into() })
    }

    /// `weight @…`.
    pub fn weight(&mut self, weight: WeightId) -> BuildResult {
        self.push1(Op::Weight { weight }, &[])
    }

    /// A constant of type `ty`.
    pub fn constant(&mut self, value: f32, ty: Type) -> BuildResult {
        self.push1(Op::Constant { value: F32(value), ty }, &[])
    }

    /// A rank-0 f32 constant, which broadcasts to anything.
    pub fn scalar(&mut self, value: f32) -> BuildResult {
        self.constant(value, Type::f32([]))
    }

    /// `op(x)`.
    pub fn unary(&mut self, op: UnaryOp, x: ValueId) -> BuildResult {
        self.push1(Op::Unary(op), &[x])
    }

    /// `op(a, b)`.
    pub fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> BuildResult {
        self.push1(Op::Binary(op), &[a, b])
    }

    /// `a + b`.
    pub fn add(&mut self, a: ValueId, b: ValueId) -> BuildResult {
        self.binary(BinaryOp::Add, a, b)
    }

    /// `a - b`.
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> BuildResult {
        self.binary(BinaryOp::Sub, a, b)
    }

    /// `a · b`.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> BuildResult {
        self.binary(BinaryOp::Mul, a, b)
    }

    /// `a / b`.
    pub fn div(&mut self, a: ValueId, b: ValueId) -> BuildResult {
        self.binary(BinaryOp::Div, a, b)
    }

    /// Matrix product.
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> BuildResult {
        self.push1(Op::MatMul {}, &[a, b])
    }

    /// New shape, same elements.
    pub fn reshape(&mut self, x: ValueId, shape: impl Into<Shape>) -> BuildResult {
        self.push1(Op::Reshape { shape: shape.into() }, &[x])
    }

    /// Permutes dimensions.
    pub fn transpose(&mut self, x: ValueId, perm: impl Into<Vec<u32>>) -> BuildResult {
        self.push1(Op::Transpose { perm: perm.into() }, &[x])
    }

    /// Repeats to a shape.
    pub fn broadcast(&mut self, x: ValueId, shape: impl Into<Shape>) -> BuildResult {
        self.push1(Op::Broadcast { shape: shape.into() }, &[x])
    }

    /// Part of an axis.
    pub fn slice(&mut self, x: ValueId, axis: u32, start: u64, len: impl Into<Dim>) -> BuildResult {
        self.push1(Op::Slice { axis, start, len: len.into() }, &[x])
    }

    /// Joins along an axis.
    pub fn concat(&mut self, axis: u32, parts: &[ValueId]) -> BuildResult {
        self.push1(Op::Concat { axis }, parts)
    }

    /// Rows of a table.
    pub fn gather(&mut self, table: ValueId, indices: ValueId) -> BuildResult {
        self.push1(Op::Gather {}, &[table, indices])
    }

    /// Converts between plain dtypes.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> BuildResult {
        self.push1(Op::Cast { dtype }, &[x])
    }

    /// A stored form to f32.
    pub fn dequantize(&mut self, x: ValueId) -> BuildResult {
        self.push1(Op::Dequantize {}, &[x])
    }

    /// Applies a function.
    pub fn call(&mut self, func: FuncId, args: &[ValueId]) -> Result<Vec<ValueId>, InferError> {
        self.push(Op::Call { func }, args)
    }

    /// Ends the function.
    pub fn finish(mut self, results: &[ValueId]) -> Function {
        self.function.results = results.to_vec();
        self.function
    }
}
