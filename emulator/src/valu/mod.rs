//! Vector arithmetic: operands, modifiers, and the tables of operations.
//!
//! An operation is a pure function of one lane's operands ([`op`]). Everything around it is in
//! `operation` and the same for all: reading sources (registers, scalars, constants), input
//! modifiers, other lanes' data, clamp and output scale, halves of registers, and the execution
//! mask. What does not fit that form (`lane`: data between lanes and to scalars) compiles itself.

mod compare;
mod convert;
pub mod divide;
mod dot;
mod dpp;
pub mod float;
mod halves;
mod int;
mod lane;
pub mod matrix;
pub mod op;
mod operand;
mod operation;
pub mod order;
mod output;
mod packed;
mod real;
mod scale;
#[cfg(test)]
mod tests;
pub mod transcendental;
mod vopd;

use crate::program::{Compiled, Context};
use op::Op;
pub use operand::{Source, special_value};

/// Compiles an instruction of vector arithmetic.
pub fn compile(context: &Context<'_>) -> Compiled {
    if context.asm.paired.is_some() {
        return vopd::compile(context, |name| find(name, context.chip), operation::compile);
    }
    if let Some(compiled) = lane::compile(context) {
        return Some(compiled);
    }
    if let Some(compiled) = convert::compile(context)
        .or_else(|| scale::compile(context))
        .or_else(|| dot::compile(context))
        .or_else(|| packed::compile(context))
    {
        return Some(compiled);
    }
    let op = find(&context.asm.mnemonic, context.chip)?;
    Some(operation::compile(context, op))
}

fn find(mnemonic: &str, chip: crate::Chip) -> Option<Op> {
    float::find(mnemonic, chip)
        .or_else(|| int::find(mnemonic, chip))
        .or_else(|| compare::find(mnemonic))
        .or_else(|| dot::find(mnemonic, chip))
}
