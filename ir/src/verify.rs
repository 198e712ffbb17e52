//! The verifier.
//!
//! A verified module is such that:
//!
//! - symbols, weights and functions have names that are unique among their kind;
//! - a symbol's bounds are `1 <= min <= max`;
//! - a weight's type has constant extents, is row-major, and its rows are whole blocks, both in the
//!   dtype it is used in and in the one it is stored in; the latter converts to the former;
//! - a type has at most [`MAX_RANK`] dimensions, its symbols are the module's, its bytes fit in a
//!   u64 at the symbols' upper bounds, the last dimension of a block dtype is constant and whole
//!   blocks, and the layout describes a tensor of that shape;
//! - the values of a function are its parameters, then the results of its instructions in order,
//!   each exactly once; so each value has one definition;
//! - an operand is defined before its use, and a function returns values it defines;
//! - ids in attributes are the module's; a callee stands before its callers, so that nothing
//!   recurses, and calls nest at most [`MAX_CALL_DEPTH`] deep;
//! - expressions nest at most [`MAX_EXPR_DEPTH`] deep;
//! - the types of an instruction's results are, in number and kind, what [`infer`] gives.
//!
//! [`gate`] checks apart from this which families of ops a phase may hold.

use crate::expr::{Expr, MAX_EXPR_DEPTH};
use crate::infer::{InferError, infer, layout_fits};
use crate::module::{FuncId, Function, Inst, Module, Symbol, ValueId, Weight};
use crate::op::{AttrId, Family, Op};
use crate::storage::is_convertible;
use crate::text::print_type;
use crate::types::{DType, Dim, Layout, MAX_RANK, Type};
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use thiserror::Error;

/// How deep calls may nest.
pub const MAX_CALL_DEPTH: u32 = 64;

/// A module that holds the invariants above: what the interpreter and back ends ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified(Module);

impl Verified {
    /// The module, to be changed and verified again.
    pub fn into_module(self) -> Module {
        self.0
    }
}

impl Deref for Verified {
    type Target = Module;

    fn deref(&self) -> &Module {
        &self.0
    }
}

impl AsRef<Module> for Verified {
    fn as_ref(&self) -> &Module {
        &self.0
    }
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {violation}")]
pub struct VerifyError {
    /// Where.
    pub place: Place,
    /// Which.
    pub violation: Violation,
}

/// A place in a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A symbol, by name.
    Symbol(String),
    /// A weight, by name.
    Weight(String),
    /// A function, by name.
    Function(String),
    /// A value of a function.
    Value {
        /// The function's name.
        function: String,
        /// The value.
        value: ValueId,
    },
    /// An instruction.
    Inst {
        /// The function's name.
        function: String,
        /// Its place in the function, from 0.
        index: usize,
        /// Spelling of its op.
        op: &'static str,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Symbol(name) => write!(f, "symbol {name}"),
            Place::Weight(name) => write!(f, "weight @{name}"),
            Place::Function(name) => write!(f, "@{name}"),
            Place::Value { function, value } => write!(f, "@{function}, {value}"),
            Place::Inst { function, index, op } => {
                write!(f, "@{function}, instruction {index} ({op})")
            }
        }
    }
}

/// What breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// Another of the same kind has the name.
    #[error("the name is taken")]
    DuplicateName,
    /// Bounds of a symbol.
    #[error("bounds {min}..={max} are not 1 <= min <= max")]
    Bounds {
        /// Lower.
        min: u64,
        /// Upper.
        max: u64,
    },
    /// A weight whose size depends on a symbol, or with a layout.
    #[error("the type of a weight has constant extents and no layout")]
    WeightType,
    /// A weight whose stored form cannot become the one it is used in.
    #[error("{stored} cannot be converted to {used}")]
    Conversion {
        /// Stored form.
        stored: DType,
        /// Form it is used in.
        used: DType,
    },
    /// A type that describes nothing in memory.
    #[error("{ty}: {problem}")]
    Type {
        /// The type.
        ty: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An id that names nothing, or a callee that does not stand before its caller.
    #[error("names a symbol, weight or function that is not there, or not before it")]
    DanglingId,
    /// Values are not numbered by definition.
    #[error(
        "values are not numbered in order of definition, each once: {expected} comes next, found {found}"
    )]
    Numbering {
        /// The next id.
        expected: ValueId,
        /// The id that is there.
        found: ValueId,
    },
    /// Values that nothing defines.
    #[error("the function holds {held} values and defines {defined}")]
    Undefined {
        /// Values in the arena.
        held: usize,
        /// Values defined.
        defined: usize,
    },
    /// A use before the definition.
    #[error("{0} is used before it is defined")]
    UseBeforeDefinition(ValueId),
    /// An expression nests too deep.
    #[error("an expression nests more than {MAX_EXPR_DEPTH} deep")]
    ExprDepth,
    /// Calls nest too deep.
    #[error("calls nest more than {MAX_CALL_DEPTH} deep")]
    CallDepth,
    /// The op does not take these operands.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The results are not what the op gives.
    #[error("results have types ({found}), the op gives ({expected})")]
    ResultTypes {
        /// Inferred.
        expected: String,
        /// Found.
        found: String,
    },
    /// An op of a family that may not remain.
    #[error("a {family} op may not remain after {phase}")]
    Gate {
        /// Family of the op.
        family: &'static str,
        /// What the gate closes.
        phase: &'static str,
    },
}

/// Checks a module and seals it.
pub fn verify(module: Module) -> Result<Verified, VerifyError> {
    check(&module)?;
    Ok(Verified(module))
}

/// Checks a module.
pub fn check(module: &Module) -> Result<(), VerifyError> {
    let Module { name: _, notes: _, symbols, weights, functions } = module;
    check_symbols(symbols)?;
    check_weights(module, weights)?;
    let mut names = HashSet::new();
    let mut depths = vec![];
    for (i, function) in functions.iter().enumerate() {
        if !names.insert(&function.name) {
            return fail(Place::Function(function.name.clone()), Violation::DuplicateName);
        }
        let checker = Checker { module, function, id: FuncId(i as u32), depths: &depths };
        let depth = checker.function()?;
        depths.push(depth);
    }
    Ok(())
}

/// Which ops a module holds at a point of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// As a front end makes it: no macro-op.
    Tensor,
    /// After raising: no tensor op.
    Macro,
}

/// Checks that no op remains of a family that `phase` does not hold.
pub fn gate(module: &Module, phase: Phase) -> Result<(), VerifyError> {
    for function in &module.functions {
        for (index, inst) in function.insts.iter().enumerate() {
            let violation = match (phase, inst.op.family()) {
                (_, Family::Structural)
                | (Phase::Tensor, Family::Tensor)
                | (Phase::Macro, Family::Macro) => continue,
                (Phase::Tensor, Family::Macro) => {
                    Violation::Gate { family: "macro", phase: "the front end" }
                }
                (Phase::Macro, Family::Tensor) => {
                    Violation::Gate { family: "tensor", phase: "raising to macro-ops" }
                }
            };
            return fail(inst_place(function, index, inst), violation);
        }
    }
    Ok(())
}

fn fail<T>(place: Place, violation: Violation) -> Result<T, VerifyError> {
    Err(VerifyError { place, violation })
}

fn inst_place(function: &Function, index: usize, inst: &Inst) -> Place {
    Place::Inst { function: function.name.clone(), index, op: inst.op.mnemonic() }
}

fn check_symbols(symbols: &[Symbol]) -> Result<(), VerifyError> {
    let mut names = HashSet::new();
    for Symbol { name, min, max } in symbols {
        let place = || Place::Symbol(name.clone());
        if !names.insert(name) {
            return fail(place(), Violation::DuplicateName);
        }
        if *min < 1 || max < min {
            return fail(place(), Violation::Bounds { min: *min, max: *max });
        }
    }
    Ok(())
}

fn check_weights(module: &Module, weights: &[Weight]) -> Result<(), VerifyError> {
    let mut names = HashSet::new();
    for Weight { name, ty, stored, digest: _ } in weights {
        let mut check = || {
            if !names.insert(name) {
                return Err(Violation::DuplicateName);
            }
            let constant = ty.shape.iter().all(|dim| matches!(dim, Dim::Const(_)));
            if !constant || ty.layout != Layout::RowMajor {
                return Err(Violation::WeightType);
            }
            check_type(module, ty)?;
            check_type(module, &Type::new(*stored, ty.shape.clone()))?;
            if !is_convertible(*stored, ty.dtype) {
                return Err(Violation::Conversion { stored: *stored, used: ty.dtype });
            }
            Ok(())
        };
        check().or_else(|violation| fail(Place::Weight(name.clone()), violation))?;
    }
    Ok(())
}

fn check_type(module: &Module, ty: &Type) -> Result<(), Violation> {
    let Type { dtype, shape, layout: _ } = ty;
    let known = |dim: &Dim| match dim {
        Dim::Const(_) => true,
        Dim::Symbol(id) => id.index() < module.symbols.len(),
    };
    if !shape.iter().all(known) {
        return Err(Violation::DanglingId);
    }
    let problem = if shape.len() > MAX_RANK {
        "too many dimensions"
    } else if dtype.is_block() && ty.last_const().is_none_or(|n| n % dtype.block_len() != 0) {
        "the last dimension is not whole blocks"
    } else if ty.bytes(|dim| module.max_extent(dim)).is_none() {
        "the size in bytes overflows"
    } else if !layout_fits(ty) {
        "the layout is one of caches [C, heads, head_dim]"
    } else {
        return Ok(());
    };
    Err(Violation::Type { ty: print_type(module, ty), problem })
}

/// Checks one function.
struct Checker<'m> {
    module: &'m Module,
    function: &'m Function,
    id: FuncId,
    /// How deep calls nest in each function before this one.
    depths: &'m [u32],
}

impl Checker<'_> {
    /// How deep calls nest in it.
    fn function(&self) -> Result<u32, VerifyError> {
        let Function { name, values, params, insts, results } = self.function;
        let here = || Place::Function(name.clone());
        for (i, value) in values.iter().enumerate() {
            let value_place = || Place::Value { function: name.clone(), value: ValueId(i as u32) };
            check_type(self.module, &value.ty).or_else(|v| fail(value_place(), v))?;
        }
        let mut defined = 0;
        define(&mut defined, params, values.len()).or_else(|v| fail(here(), v))?;
        let mut depth = 0;
        for (index, inst) in insts.iter().enumerate() {
            let inner = self.inst(inst, &mut defined);
            depth = depth.max(inner.or_else(|v| fail(inst_place(self.function, index, inst), v))?);
        }
        if defined != values.len() {
            return fail(here(), Violation::Undefined { held: values.len(), defined });
        }
        check_uses(results, defined).or_else(|v| fail(here(), v))?;
        Ok(depth)
    }

    /// How deep calls nest in it.
    fn inst(&self, inst: &Inst, defined: &mut usize) -> Result<u32, Violation> {
        let Inst { op, operands, results } = inst;
        check_uses(operands, *defined)?;
        let depth = self.attributes(op)?;
        let operand_types: Vec<&Type> =
            operands.iter().map(|&value| self.function.ty(value)).collect();
        let expected = infer(self.module, op, &operand_types)?;
        define(defined, results, self.function.values.len())?;
        let found: Vec<&Type> = results.iter().map(|&value| self.function.ty(value)).collect();
        if !found.iter().copied().eq(expected.iter()) {
            let text = |types: &[&Type]| {
                let types: Vec<String> =
                    types.iter().map(|ty| print_type(self.module, ty)).collect();
                types.join(", ")
            };
            let expected = text(&expected.iter().collect::<Vec<_>>());
            return Err(Violation::ResultTypes { expected, found: text(&found) });
        }
        Ok(depth)
    }

    /// Checks what `infer` takes for granted; gives how deep calls nest.
    fn attributes(&self, op: &Op) -> Result<u32, Violation> {
        let mut dangling = false;
        let mut depth = 0;
        op.visit_ids(&mut |id| match id {
            AttrId::Symbol(id) => dangling |= id.index() >= self.module.symbols.len(),
            AttrId::Weight(id) => dangling |= id.index() >= self.module.weights.len(),
            AttrId::Func(id) if id < self.id => depth = depth.max(self.depths[id.index()] + 1),
            AttrId::Func(_) => dangling = true,
        });
        if dangling {
            return Err(Violation::DanglingId);
        }
        if depth > MAX_CALL_DEPTH {
            return Err(Violation::CallDepth);
        }
        if !expressions(op).iter().all(|expr| expr.is_within_depth(MAX_EXPR_DEPTH)) {
            return Err(Violation::ExprDepth);
        }
        Ok(depth)
    }
}

/// The expressions of an op.
fn expressions(op: &Op) -> Vec<&Expr> {
    match op {
        Op::Map { expr } => vec![expr],
        Op::Gemm { attr } => attr.outputs.iter().map(|output| &output.expr).collect(),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Weight { .. }
        | Op::Call { .. }
        | Op::Reshape { .. }
        | Op::CacheAppend {}
        | Op::Constant { .. }
        | Op::Iota { .. }
        | Op::Select {}
        | Op::ReduceSum { .. }
        | Op::ReduceMean { .. }
        | Op::ReduceMax { .. }
        | Op::MatMul {}
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Broadcast { .. }
        | Op::Gather {}
        | Op::Cast { .. }
        | Op::Dequantize {}
        | Op::TopK { .. }
        | Op::Embed {}
        | Op::Norm { .. }
        | Op::Rope {}
        | Op::Attention { .. }
        | Op::Sample {}
        | Op::DecodeLoop { .. } => vec![],
    }
}

/// Checks that `values` are the next ids and there are so many; moves past them.
fn define(defined: &mut usize, values: &[ValueId], held: usize) -> Result<(), Violation> {
    for &found in values {
        let expected = ValueId(*defined as u32);
        if found != expected {
            return Err(Violation::Numbering { expected, found });
        }
        *defined += 1;
        if *defined > held {
            return Err(Violation::Undefined { held, defined: *defined });
        }
    }
    Ok(())
}

fn check_uses(values: &[ValueId], defined: usize) -> Result<(), Violation> {
    match values.iter().find(|value| value.index() >= defined) {
        Some(&value) => Err(Violation::UseBeforeDefinition(value)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
