//! Pairs of operations in one instruction: both read their sources before either writes.

use super::op::Op;
use crate::asm::{Instruction, Value};
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, SCRATCH};

/// Row in which the first result waits while the second operation reads its old register.
const WAITING: u16 = SCRATCH as u16 + 12;

/// Compiles a pair, given how one operation is found and compiled.
pub fn compile(
    context: &Context<'_>,
    find: impl Fn(&str) -> Option<Op>,
    build: impl Fn(&Context<'_>, Op) -> Result<Exec, Fault>,
) -> Compiled {
    let second = context.asm.paired.as_deref()?;
    let first = Instruction { paired: None, ..context.asm.clone() };
    let half = |asm: &Instruction| -> Result<Exec, Fault> {
        let asm = single(asm, &context.asm.text).ok_or_else(|| context.unknown())?;
        let op = find(&asm.mnemonic).ok_or_else(|| context.unknown())?;
        build(&Context { asm: &asm, ..*context }, op)
    };
    Some(pair(&first, second, half).unwrap_or_else(|| Err(context.unknown())))
}

/// An operation of a pair as one of its own.
fn single(asm: &Instruction, text: &str) -> Option<Instruction> {
    let name = asm.mnemonic.strip_prefix("v_dual_")?;
    let name = match name {
        "dot2acc_f32_f16" => "dot2c_f32_f16",
        "dot2acc_f32_bf16" => "dot2c_f32_bf16",
        name => name,
    };
    let mnemonic = format!("v_{name}");
    Some(Instruction { mnemonic, text: text.to_string(), ..asm.clone() })
}

/// The register that an operation of a pair writes.
fn destination(asm: &Instruction) -> Option<u16> {
    match asm.operands.first()?.value {
        Value::Vector(row, 1) => Some(row),
        _ => None,
    }
}

fn reads(asm: &Instruction, register: u16) -> bool {
    let accumulates = asm.mnemonic.contains("fmac") || asm.mnemonic.contains("dot2acc");
    let sources = asm.operands.iter().skip(1);
    let mut registers = sources.filter_map(|operand| match operand.value {
        Value::Vector(row, _) => Some(row),
        _ => None,
    });
    registers.any(|row| row == register) || accumulates && destination(asm) == Some(register)
}

/// Runs one after the other, in an order in which neither reads what the other wrote.
fn pair(
    first: &Instruction,
    second: &Instruction,
    half: impl Fn(&Instruction) -> Result<Exec, Fault>,
) -> Option<Result<Exec, Fault>> {
    let (first_to, second_to) = (destination(first)?, destination(second)?);
    if first_to == second_to {
        return None;
    }
    let (a, b) = if !reads(second, first_to) {
        (half(first), half(second))
    } else if !reads(first, second_to) {
        (half(second), half(first))
    } else {
        return Some(exchange(first, second, half));
    };
    Some(both(a, b))
}

fn both(a: Result<Exec, Fault>, b: Result<Exec, Fault>) -> Result<Exec, Fault> {
    let (a, b) = (a?, b?);
    Ok(Box::new(move |wave, group| {
        a(wave, group)?;
        b(wave, group)
    }))
}

/// Each reads the other's destination: the first result waits in a row of its own.
fn exchange(
    first: &Instruction,
    second: &Instruction,
    half: impl Fn(&Instruction) -> Result<Exec, Fault>,
) -> Result<Exec, Fault> {
    let to = usize::from(destination(first).unwrap_or_default());
    let waiting = usize::from(WAITING);
    let mut moved = first.clone();
    moved.operands[0].value = Value::Vector(WAITING, 1);
    let (a, b) = (half(&moved)?, half(second)?);
    Ok(Box::new(move |wave, group| {
        // The row starts as the register, so lanes that are off and accumulators are right.
        wave.rows[waiting] = wave.rows[to];
        a(wave, group)?;
        b(wave, group)?;
        wave.rows[to] = wave.rows[waiting];
        Ok(())
    }))
}
