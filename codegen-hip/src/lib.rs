//! Macro-ops to kernels, through MLIR and LLVM.
//!
//! In: a macro-op with its shapes, a [`target::Target`] and tile sizes. Out: a code object per
//! kernel, one shared object per target, weights packed into the order in which kernels load
//! them.
//! Never: runs a kernel (tests do), or knows a model's architecture.
//!
//! A kernel is written over the typed [`mlir::Builder`], which prints MLIR (`func`, `scf`,
//! `arith`, `vector`, `math`, `llvm`); [`lower`] takes that to an ELF object, [`link`] joins
//! objects with LLD inside this process.

pub mod alone;
pub mod compile;
pub(crate) mod elf;
pub mod error;
pub mod explain;
pub mod facts;
#[cfg(test)]
pub(crate) mod harness;
pub mod kernels;
pub mod link;
pub mod lower;
pub mod lower_schedule;
pub mod mlir;
mod overlap;
pub mod pack;
pub mod persistent;
pub mod resume;
pub mod target;

pub use error::CodegenError;
pub use lower::{CompiledKernel, Form, KernelDump, KernelText, compile};
pub use persistent::DecodeForm;
pub use target::Target;
