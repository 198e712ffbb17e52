//! Executes AMDGPU code objects on the host CPU.
//!
//! In comes machine code: a code object (`object`), a kernel of it, a grid and its arguments
//! (`dispatch`). LLVM's disassembler gives the text of each instruction once (`asm`), each
//! instruction becomes a closure (`program`), and waves run the closures over rows of 64 lanes.
//! Out come the bytes that the kernel wrote, and on request what a card would not tell: wrong
//! accesses, races, statistics.
//!
//! It shares nothing with the code generator, on purpose: two independent readings of the
//! instruction set must agree. It never guesses: an instruction or a modifier that it does not know
//! is a fault.

#![allow(
    clippy::needless_range_loop,
    reason = "a lane indexes several rows at once, and plain indices vectorize best"
)]
#![allow(
    clippy::precedence,
    reason = "shifts and masks read as in the instruction set's documents"
)]

pub mod arith;
pub mod asm;
pub mod check;
pub mod chip;
pub mod dispatch;
pub mod effects;
pub mod memory;
pub mod number;
pub mod object;
pub mod probe;
pub mod program;
pub mod scalar;
pub mod stats;
pub mod trace;
pub mod wave;

mod valu;

pub use chip::Chip;
pub use valu::matrix;
