//! The static execution plan and the artifact, as plain data.
//!
//! In: what the compiler decided (buffers with offsets, kernels, launches, the decode loop).
//! Out: the same, read back and checked by a runtime.
//! Never: depends on the IR, on LLVM, or on a device.

#![forbid(unsafe_code)]

pub mod expr;
pub mod plan;

pub use expr::{Expr, Symbols};
pub use plan::*;
