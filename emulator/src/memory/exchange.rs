//! LDS instructions that move data between lanes and touch no memory.

use super::transfer::lanes_of;
use super::vector::rows;
use crate::program::Context;
use crate::wave::{Exec, Fault, LANES, Row, Wave};

/// Compiles `ds_swizzle_b32`, `ds_permute_b32` and `ds_bpermute_b32`; `None` for another.
pub(super) fn compile(context: &Context<'_>, operation: &str) -> Option<Result<Exec, Fault>> {
    Some(match operation {
        "swizzle_b32" => swizzle(context),
        "permute_b32" => permute(context),
        "bpermute_b32" => bpermute(context, false),
        "bpermute_fi_b32" => bpermute(context, true),
        _ => return None,
    })
}

/// The 16 bits of the encoding that other LDS instructions use as an offset.
fn field(context: &Context<'_>) -> Result<u32, Fault> {
    let only_offset = context.asm.modifiers.iter().all(|modifier| modifier.name == "offset");
    if only_offset { Ok(context.asm.word as u32 & 0xffff) } else { Err(context.unknown()) }
}

fn swizzle(context: &Context<'_>) -> Result<Exec, Fault> {
    let [result, data] = context.asm.operands.as_slice() else { return Err(context.unknown()) };
    let (result, data) = (rows(context, result, 1)?, rows(context, data, 1)?);
    let pattern = field(context)?;
    let source: [u8; LANES] = std::array::from_fn(|lane| swizzled(pattern, lane as u32) as u8);
    Ok(Box::new(move |wave, _| {
        let exec = wave.exec();
        let from = wave.rows[data].0;
        let mut to = [0; LANES];
        for lane in 0..LANES {
            to[lane] = select(&from, exec, usize::from(source[lane]));
        }
        write(wave, result, &to);
        Ok(())
    }))
}

/// The lane that a lane reads; lanes 32 to 63 do what lanes 0 to 31 do.
fn swizzled(pattern: u32, lane: u32) -> u32 {
    let bits = |first: u32, count: u32| pattern >> first & ((1 << count) - 1);
    let (i, mask) = (lane & 31, bits(0, 5));
    let within = if pattern >= 0xe000 {
        let reversed = i.reverse_bits() >> 27;
        reversed >> mask.count_ones() | i & mask
    } else if pattern >= 0xc000 {
        let distance = if bits(10, 1) != 0 { bits(5, 5).wrapping_neg() } else { bits(5, 5) };
        i & mask | i.wrapping_add(distance) & !mask
    } else if pattern >= 0x8000 {
        i & !3 | bits(2 * (i & 3), 2)
    } else {
        (i & mask | bits(5, 5)) ^ bits(10, 5)
    };
    lane & 32 | within & 31
}

/// What a lane holds, or zero if it does not execute.
#[inline(always)]
fn select(from: &[u32; LANES], exec: u64, lane: usize) -> u32 {
    let lane = lane % LANES;
    if exec >> lane & 1 != 0 { from[lane] } else { 0 }
}

fn write(wave: &mut Wave, row: usize, values: &[u32; LANES]) {
    let exec = wave.exec();
    let Row(row) = &mut wave.rows[row];
    if exec == u64::MAX {
        *row = *values;
        return;
    }
    for lane in lanes_of(exec) {
        row[lane] = values[lane];
    }
}

/// Lanes that exchange data with each other: on gfx11 the halves of a wave keep apart.
fn span(context: &Context<'_>) -> usize {
    if context.chip.is_cdna() || context.chip == crate::Chip::Gfx1201 {
        context.lanes as usize
    } else {
        32
    }
}

/// The lane that an address in bytes means to `lane`.
#[inline(always)]
fn partner(address: u32, offset: u32, lane: usize, span: usize) -> usize {
    let index = (address.wrapping_add(offset) / 4) as usize;
    lane & !(span - 1) | index & (span - 1)
}

fn bpermute(context: &Context<'_>, inactive: bool) -> Result<Exec, Fault> {
    let [result, address, data] = three(context)?;
    let (offset, span) = (field(context)?, span(context));
    Ok(Box::new(move |wave, _| {
        let readable = if inactive { u64::MAX } else { wave.exec() };
        let (addresses, from) = (&wave.rows[address].0, &wave.rows[data].0);
        let mut to = [0; LANES];
        if readable == u64::MAX {
            for lane in 0..LANES {
                to[lane] = from[partner(addresses[lane], offset, lane, span) % LANES];
            }
        } else {
            for lane in 0..LANES {
                to[lane] = select(from, readable, partner(addresses[lane], offset, lane, span));
            }
        }
        write(wave, result, &to);
        Ok(())
    }))
}

/// Of several lanes that write to one, the highest wins.
fn permute(context: &Context<'_>) -> Result<Exec, Fault> {
    let [result, address, data] = three(context)?;
    let (offset, span) = (field(context)?, span(context));
    Ok(Box::new(move |wave, _| {
        let (addresses, from) = (&wave.rows[address].0, &wave.rows[data].0);
        let mut to = [0; LANES];
        for lane in lanes_of(wave.exec()) {
            to[partner(addresses[lane], offset, lane, span) % LANES] = from[lane];
        }
        write(wave, result, &to);
        Ok(())
    }))
}

fn three(context: &Context<'_>) -> Result<[usize; 3], Fault> {
    let [a, b, c] = context.asm.operands.as_slice() else { return Err(context.unknown()) };
    Ok([rows(context, a, 1)?, rows(context, b, 1)?, rows(context, c, 1)?])
}
