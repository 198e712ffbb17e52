//! The intermediate representation of Waveloom.
//!
//! In: what a front end builds through [`FunctionBuilder`], or text. Out: verified modules for passes
//! and back ends, their text, their values under the reference interpreter.
//! Never: does file I/O; knows a model's architecture, a target or a device.
//!
//! A [`Module`] holds symbols, weight declarations and functions. Two families of ops exist:
//! tensor ops, which front ends emit, and macro-ops, which the passes raise them to. An op is
//! declared once, in [`op`]; the enum, its spelling, the printer and the parser derive from the
//! declaration, and [`infer`](mod@infer) and [`interp`] match on it without a wildcard.

#![forbid(unsafe_code)]

pub mod builder;
pub mod diff;
pub mod expr;
pub mod infer;
pub mod interp;
pub mod module;
pub mod numerics;
pub mod op;
pub mod sample;
pub mod storage;
#[cfg(test)]
mod testing;
pub mod text;
pub mod types;
pub mod verify;
pub mod weights;

pub use builder::FunctionBuilder;
pub use expr::{BinaryOp, Expr, F32, UnaryOp};
pub use infer::{InferError, infer};
pub use interp::{InterpError, Interpreter, Tensor};
pub use module::{
    Digest, FuncId, Function, Inst, InstId, Module, Symbol, SymbolId, Value, ValueId, Weight,
    WeightId,
};
pub use numerics::Numerics;
pub use op::{
    AttentionAttr, DecodeLoopAttr, Family, GemmAttr, GemmOutput, Op, Prologue, Store, Tiles, Tiling,
};
pub use storage::{StorageError, weight_bytes};
pub use text::{ParseError, parse, print};
pub use types::{DType, Dim, Layout, Shape, Type};
pub use verify::{Phase, Verified, VerifyError, gate, verify};
pub use weights::Weights;
