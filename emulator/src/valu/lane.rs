//! What is no function of one lane: data to and from scalars, between lanes, and between registers
//! whose numbers are computed.

use super::op::Kind;
use super::operand::Source;
use crate::asm::{Operand, Value};
use crate::program::{Compiled, Context};
use crate::wave::{AGPR, Exec, Fault, LANES, Row, Wave, scalar};

/// Compiles an instruction of this family.
pub fn compile(context: &Context<'_>) -> Compiled {
    let build = match context.asm.mnemonic.as_str() {
        "v_nop" | "v_pipeflush" | "v_clrexcp" => nothing,
        "v_readfirstlane_b32" => read_first,
        "v_readlane_b32" => read,
        "v_writelane_b32" => write,
        "v_swap_b32" => swap,
        "v_swap_b16" => swap_halves,
        "v_pk_mov_b32" => move_pair,
        "v_movreld_b32" | "v_movrels_b32" | "v_movrelsd_b32" | "v_movrelsd_2_b32" => move_relative,
        "v_swaprel_b32" => swap_relative,
        "v_permlane16_b32" | "v_permlanex16_b32" => permute_row,
        "v_permlane16_var_b32" | "v_permlanex16_var_b32" => permute_row_variable,
        "v_permlane64_b32" => exchange_halves,
        "v_permlane16_swap_b32" | "v_permlane32_swap_b32" => swap_rows,
        _ => return None,
    };
    Some(build(context))
}

/// The operands, if there are as many as wanted and no modifiers but `known` ones.
fn operands<'a, const N: usize>(
    context: &Context<'a>,
    known: &[&str],
) -> Result<&'a [Operand; N], Fault> {
    let modifiers = &context.asm.modifiers;
    if modifiers.iter().any(|modifier| !known.contains(&modifier.name.as_str())) {
        return Err(context.unknown());
    }
    context.asm.operands.as_slice().try_into().map_err(|_| context.unknown())
}

/// The row of one vector register.
fn row(context: &Context<'_>, operand: &Operand) -> Result<usize, Fault> {
    match operand.value {
        Value::Vector(row, 1) if !operand.neg && !operand.abs && !operand.sext => {
            Ok(usize::from(row))
        }
        _ => Err(context.unknown()),
    }
}

/// A source of 32 bits that is the same in every lane.
fn uniform(context: &Context<'_>, operand: &Operand) -> Result<Source, Fault> {
    match Source::new(operand, Kind::B32) {
        Some(source) if !matches!(source, Source::Row(_)) && !operand.neg && !operand.abs => {
            Ok(source)
        }
        _ => Err(context.unknown()),
    }
}

/// The place of one scalar register.
fn place(context: &Context<'_>, operand: &Operand) -> Result<usize, Fault> {
    match operand.value {
        Value::Scalar(index, 1) => Ok(usize::from(index)),
        _ => Err(context.unknown()),
    }
}

/// Writes the lanes in a mask.
fn write_lanes(wave: &mut Wave, row: usize, exec: u64, values: &Row) {
    let width = if wave.lanes == 64 { 64 } else { 32 };
    super::op::blend(&mut wave.rows[row], exec, width, &values.0);
}

fn nothing(context: &Context<'_>) -> Result<Exec, Fault> {
    operands::<0>(context, &[])?;
    Ok(Box::new(|_, _| Ok(())))
}

fn read_first(context: &Context<'_>) -> Result<Exec, Fault> {
    let [to, from] = operands(context, &[])?;
    let (to, from) = (place(context, to)?, row(context, from)?);
    Ok(Box::new(move |wave, _| {
        // Lane 0 if none executes: 64 trailing zeros.
        let lane = wave.exec().trailing_zeros() as usize % LANES;
        wave.set_sgpr(to, wave.rows[from].0[lane]);
        Ok(())
    }))
}

fn read(context: &Context<'_>) -> Result<Exec, Fault> {
    let [to, from, lane] = operands(context, &[])?;
    let (to, from, lane) = (place(context, to)?, row(context, from)?, uniform(context, lane)?);
    Ok(Box::new(move |wave, _| {
        let lane = lane.uniform(wave) as u32 & (wave.lanes - 1);
        wave.set_sgpr(to, wave.rows[from].0[lane as usize % LANES]);
        Ok(())
    }))
}

fn write(context: &Context<'_>) -> Result<Exec, Fault> {
    let [to, from, lane] = operands(context, &[])?;
    let to = row(context, to)?;
    let (from, lane) = (uniform(context, from)?, uniform(context, lane)?);
    Ok(Box::new(move |wave, _| {
        let lane = lane.uniform(wave) as u32 & (wave.lanes - 1);
        wave.rows[to].0[lane as usize % LANES] = from.uniform(wave) as u32;
        Ok(())
    }))
}

fn swap(context: &Context<'_>) -> Result<Exec, Fault> {
    let [a, b] = operands(context, &[])?;
    let (a, b) = (row(context, a)?, row(context, b)?);
    Ok(Box::new(move |wave, _| {
        swap_registers(wave, a, b);
        Ok(())
    }))
}

fn swap_registers(wave: &mut Wave, a: usize, b: usize) {
    let (exec, old_a, old_b) = (wave.exec(), wave.rows[a], wave.rows[b]);
    write_lanes(wave, a, exec, &old_b);
    write_lanes(wave, b, exec, &old_a);
}

fn swap_halves(context: &Context<'_>) -> Result<Exec, Fault> {
    let [a, b] = operands(context, &[])?;
    let shift = |operand: &Operand| if operand.high { 16 } else { 0 };
    let (shift_a, shift_b) = (shift(a), shift(b));
    let (a, b) = (row(context, a)?, row(context, b)?);
    Ok(Box::new(move |wave, _| {
        let exec = wave.exec();
        for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
            let old_a = wave.rows[a].0[lane] >> shift_a & 0xffff;
            let old_b = wave.rows[b].0[lane] >> shift_b & 0xffff;
            let put = |bits: &mut u32, value: u32, shift: u32| {
                *bits = *bits & !(0xffff << shift) | value << shift;
            };
            put(&mut wave.rows[a].0[lane], old_b, shift_a);
            put(&mut wave.rows[b].0[lane], old_a, shift_b);
        }
        Ok(())
    }))
}

/// Each half of the destination from either half of its source.
fn move_pair(context: &Context<'_>) -> Result<Exec, Fault> {
    let [to, low, high] = operands(context, &["op_sel", "op_sel_hi"])?;
    let Value::Vector(to, 2) = to.value else { return Err(context.unknown()) };
    let to = usize::from(to);
    let select = context.asm.list("op_sel").unwrap_or_else(|| vec![0, 0]);
    let half = |operand: &Operand, index: usize| {
        let upper = *select.get(index)? as u16;
        if operand.neg || operand.abs || upper > 1 {
            return None;
        }
        match operand.value {
            Value::Vector(row, 2) => Some(Source::Row(row + upper)),
            Value::Scalar(index, 2) => Some(Source::Scalar(index + upper)),
            Value::Vector(..) | Value::Scalar(..) | Value::Special(_) => None,
            // A constant has its bits in the low half.
            _ if upper == 0 => Source::new(operand, Kind::B32),
            _ => None,
        }
    };
    let (Some(low), Some(high)) = (half(low, 0), half(high, 1)) else {
        return Err(context.unknown());
    };
    let read = |source: Source, wave: &Wave| match source {
        Source::Row(row) => wave.rows[usize::from(row)],
        source => Row([source.uniform(wave) as u32; LANES]),
    };
    Ok(Box::new(move |wave, _| {
        let (exec, low, high) = (wave.exec(), read(low, wave), read(high, wave));
        write_lanes(wave, to, exec, &low);
        write_lanes(wave, to + 1, exec, &high);
        Ok(())
    }))
}

/// The register that is `offset` beyond `row`.
fn relative(row: usize, offset: u32, text: &str) -> Result<usize, Box<Fault>> {
    let found = row.checked_add(offset as usize).filter(|found| *found < AGPR);
    found.ok_or_else(|| {
        let note = format!("`{text}` with index {offset} reaches beyond the vector registers");
        Box::new(Fault::Illegal(note))
    })
}

fn move_relative(context: &Context<'_>) -> Result<Exec, Fault> {
    let [to, from] = operands(context, &[])?;
    let to = row(context, to)?;
    let source = Source::new(from, Kind::B32).filter(|_| !from.neg && !from.abs);
    let source = source.ok_or_else(|| context.unknown())?;
    let name = context.asm.mnemonic.as_str();
    let (moves_source, moves_target) = (name != "v_movreld_b32", name != "v_movrels_b32");
    let split = name == "v_movrelsd_2_b32";
    if moves_source && !matches!(source, Source::Row(_)) {
        return Err(context.unknown());
    }
    let text = context.asm.text.clone();
    Ok(Box::new(move |wave, _| {
        let m0 = wave.sgpr[scalar::M0];
        let (from_offset, to_offset) =
            if split { (m0 & 0x3ff, m0 >> 16 & 0x3ff) } else { (m0, m0) };
        let value = match source {
            Source::Row(row) => {
                let offset = if moves_source { from_offset } else { 0 };
                wave.rows[relative(usize::from(row), offset, &text)?]
            }
            source => Row([source.uniform(wave) as u32; LANES]),
        };
        let to = relative(to, if moves_target { to_offset } else { 0 }, &text)?;
        write_lanes(wave, to, wave.exec(), &value);
        Ok(())
    }))
}

fn swap_relative(context: &Context<'_>) -> Result<Exec, Fault> {
    let [a, b] = operands(context, &[])?;
    let (a, b) = (row(context, a)?, row(context, b)?);
    let text = context.asm.text.clone();
    Ok(Box::new(move |wave, _| {
        let m0 = wave.sgpr[scalar::M0];
        let a = relative(a, m0 >> 16 & 0x3ff, &text)?;
        let b = relative(b, m0 & 0x3ff, &text)?;
        swap_registers(wave, a, b);
        Ok(())
    }))
}

/// What a permutation within rows does about sources that are off: `op_sel` holds "fetch
/// inactive" and "bound control".
#[derive(Clone, Copy)]
struct Inactive {
    fetch: bool,
    zero: bool,
}

impl Inactive {
    fn new(context: &Context<'_>) -> Result<Inactive, Fault> {
        match context.asm.list("op_sel").as_deref() {
            None => Ok(Inactive { fetch: false, zero: false }),
            Some([fetch, zero] | [fetch, zero, 0]) => {
                Ok(Inactive { fetch: *fetch != 0, zero: *zero != 0 })
            }
            Some(_) => Err(context.unknown()),
        }
    }

    /// Writes each lane's value from the lane that `from` names.
    fn permute(self, wave: &mut Wave, to: usize, source: usize, from: impl Fn(usize) -> usize) {
        let (exec, old) = (wave.exec(), wave.rows[source]);
        let (mut out, mut write) = (Row::ZERO, exec);
        for lane in 0..wave.lanes as usize {
            let from = from(lane) % LANES;
            if self.fetch || exec >> from & 1 != 0 {
                out.0[lane] = old.0[from];
            } else if !self.zero {
                write &= !(1 << lane);
            }
        }
        write_lanes(wave, to, write, &out);
    }
}

fn permute_row(context: &Context<'_>) -> Result<Exec, Fault> {
    let [to, from, low, high] = operands(context, &["op_sel"])?;
    let inactive = Inactive::new(context)?;
    let (to, from) = (row(context, to)?, row(context, from)?);
    let (low, high) = (uniform(context, low)?, uniform(context, high)?);
    let other_row = if context.asm.mnemonic.contains("x16") { 16 } else { 0 };
    Ok(Box::new(move |wave, _| {
        let low = low.uniform(wave) & 0xffff_ffff;
        let select = low | high.uniform(wave) << 32;
        let lane_of = |lane: usize| (select >> (4 * (lane % 16)) & 15) as usize;
        inactive.permute(wave, to, from, |lane| (lane & !15 ^ other_row) + lane_of(lane));
        Ok(())
    }))
}

fn permute_row_variable(context: &Context<'_>) -> Result<Exec, Fault> {
    let [to, from, select] = operands(context, &["op_sel"])?;
    let inactive = Inactive::new(context)?;
    let (to, from, select) = (row(context, to)?, row(context, from)?, row(context, select)?);
    let other_row = if context.asm.mnemonic.contains("x16") { 16 } else { 0 };
    Ok(Box::new(move |wave, _| {
        let select = wave.rows[select];
        let lane_of = |lane: usize| (select.0[lane] & 15) as usize;
        inactive.permute(wave, to, from, |lane| (lane & !15 ^ other_row) + lane_of(lane));
        Ok(())
    }))
}

fn exchange_halves(context: &Context<'_>) -> Result<Exec, Fault> {
    let [to, from] = operands(context, &[])?;
    let (to, from) = (row(context, to)?, row(context, from)?);
    Ok(Box::new(move |wave, _| {
        // A 32-lane wave has no other half, and the instruction does nothing.
        if wave.lanes == 64 {
            let mut value = wave.rows[from];
            value.0.rotate_left(32);
            write_lanes(wave, to, wave.exec(), &value);
        }
        Ok(())
    }))
}

/// The second half of each row pair (or of the wave) of the first register against the first half
/// of the second register's.
fn swap_rows(context: &Context<'_>) -> Result<Exec, Fault> {
    let [a, b] = operands(context, &["bound_ctrl", "fi"])?;
    let (a, b) = (row(context, a)?, row(context, b)?);
    let size = if context.asm.mnemonic.contains("16") { 16 } else { 32 };
    let text = context.asm.text.clone();
    Ok(Box::new(move |wave, _| {
        if wave.exec() != wave.all_lanes() {
            let note = format!("`{text}` while lanes are off: what it does then is not documented");
            return Err(Box::new(Fault::Illegal(note)));
        }
        for first in (0..LANES).step_by(2 * size) {
            for lane in first..first + size {
                let upper = wave.rows[a].0[lane + size];
                wave.rows[a].0[lane + size] = wave.rows[b].0[lane];
                wave.rows[b].0[lane] = upper;
            }
        }
        Ok(())
    }))
}
