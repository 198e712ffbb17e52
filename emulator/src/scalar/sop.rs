//! Integer arithmetic, logic, moves and comparisons: SOP1, SOP2, SOPC and most of SOPK.
//!
//! Each instruction is a function of its sources and SCC; the type of its result says what it
//! writes: a value, SCC, both, or perhaps a value. GFX11 and GFX12 renamed many instructions; both
//! names stand side by side.

use super::{Place, Source, Word, expect_operands, immediate, operand, place, source};
use crate::asm::Value;
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, Wave, scalar};

/// What an instruction computes.
pub(super) trait Outcome {
    /// Registers of the destination; 0 where only SCC is written.
    const REGISTERS: u16;
    /// Writes it.
    fn apply(self, wave: &mut Wave, place: Place);
}

/// A result that is written where a condition holds.
struct If<T>(bool, T);

macro_rules! outcome {
    ($($type:ty),+) => {$(
        impl Outcome for $type {
            const REGISTERS: u16 = <$type as Word>::REGISTERS;
            #[inline(always)]
            fn apply(self, wave: &mut Wave, place: Place) {
                self.set(wave, place);
            }
        }
        impl Outcome for ($type, bool) {
            const REGISTERS: u16 = <$type as Word>::REGISTERS;
            #[inline(always)]
            fn apply(self, wave: &mut Wave, place: Place) {
                self.0.set(wave, place);
                wave.scc = self.1;
            }
        }
        impl Outcome for If<$type> {
            const REGISTERS: u16 = <$type as Word>::REGISTERS;
            #[inline(always)]
            fn apply(self, wave: &mut Wave, place: Place) {
                if self.0 {
                    self.1.set(wave, place);
                }
            }
        }
    )+};
}

outcome!(u32, i32, u64, i64);

/// Only SCC.
impl Outcome for bool {
    const REGISTERS: u16 = 0;
    #[inline(always)]
    fn apply(self, wave: &mut Wave, _: Place) {
        wave.scc = self;
    }
}

/// Where the result goes; nowhere in particular if there is no register to write.
fn destination<R: Outcome>(context: &Context<'_>) -> Result<Place, Fault> {
    match R::REGISTERS {
        0 => Ok(Place { index: scalar::NULL as u8, narrow_exec: false }),
        registers => place(context, 0, registers),
    }
}

/// An instruction of one source.
pub(super) fn one<A: Word, R: Outcome>(
    context: &Context<'_>,
    f: impl Fn(A, bool) -> R + Copy + Send + Sync + 'static,
) -> Result<Exec, Fault> {
    let first = usize::from(R::REGISTERS > 0);
    expect_operands(context, first + 1)?;
    let place = destination::<R>(context)?;
    let a = source::<A>(context, first)?;
    Ok(match a {
        Source::Register(a) => Box::new(move |wave, _| {
            f(A::get(wave, a), wave.scc).apply(wave, place);
            Ok(())
        }),
        a => Box::new(move |wave, _| {
            f(A::read(wave, a), wave.scc).apply(wave, place);
            Ok(())
        }),
    })
}

/// An instruction of two sources.
pub(super) fn two<A: Word, B: Word, R: Outcome>(
    context: &Context<'_>,
    f: impl Fn(A, B, bool) -> R + Copy + Send + Sync + 'static,
) -> Result<Exec, Fault> {
    let first = usize::from(R::REGISTERS > 0);
    expect_operands(context, first + 2)?;
    let place = destination::<R>(context)?;
    let (a, b) = (source::<A>(context, first)?, source::<B>(context, first + 1)?);
    Ok(join(a, b, place, f))
}

/// An instruction whose destination is its first source too.
pub(super) fn update<A: Word, B: Word, R: Outcome>(
    context: &Context<'_>,
    f: impl Fn(A, B, bool) -> R + Copy + Send + Sync + 'static,
) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let place = destination::<R>(context)?;
    Ok(join(source::<A>(context, 0)?, source::<B>(context, 1)?, place, f))
}

/// An instruction of a register and a 16-bit immediate field, which is passed as it is.
fn with_immediate<R: Outcome>(
    context: &Context<'_>,
    f: impl Fn(u32, u16, bool) -> R + Copy + Send + Sync + 'static,
) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let place = destination::<R>(context)?;
    let field = immediate(context, 1)? as u16;
    let a = source::<u32>(context, 0)?;
    Ok(Box::new(move |wave, _| {
        f(u32::read(wave, a), field, wave.scc).apply(wave, place);
        Ok(())
    }))
}

fn join<A: Word, B: Word, R: Outcome>(
    a: Source,
    b: Source,
    place: Place,
    f: impl Fn(A, B, bool) -> R + Copy + Send + Sync + 'static,
) -> Exec {
    match (a, b) {
        (Source::Register(a), Source::Register(b)) => Box::new(move |wave, _| {
            f(A::get(wave, a), B::get(wave, b), wave.scc).apply(wave, place);
            Ok(())
        }),
        (Source::Register(a), Source::Constant(bits)) => {
            let b = B::from_bits(bits);
            Box::new(move |wave, _| {
                f(A::get(wave, a), b, wave.scc).apply(wave, place);
                Ok(())
            })
        }
        _ => Box::new(move |wave, _| {
            f(A::read(wave, a), B::read(wave, b), wave.scc).apply(wave, place);
            Ok(())
        }),
    }
}

/// Compiles an integer instruction.
pub fn compile(context: &Context<'_>) -> Compiled {
    arithmetic(context)
        .or_else(|| logic(context))
        .or_else(|| shift(context))
        .or_else(|| bits(context))
        .or_else(|| moves(context))
        .or_else(|| compare(context))
        .or_else(|| exec_mask(context))
        .or_else(|| relative(context))
}

/// A 32-bit result and whether it is not zero.
#[inline(always)]
fn flagged(value: u32) -> (u32, bool) {
    (value, value != 0)
}

/// A 64-bit result and whether it is not zero.
#[inline(always)]
fn flagged64(value: u64) -> (u64, bool) {
    (value, value != 0)
}

/// A sum and its carry.
#[inline(always)]
fn carry(sum: u64) -> (u32, bool) {
    (sum as u32, sum > u64::from(u32::MAX))
}

fn arithmetic(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_add_u32" | "s_add_co_u32" => two(context, |a: u32, b: u32, _| a.overflowing_add(b)),
        "s_sub_u32" | "s_sub_co_u32" => two(context, |a: u32, b: u32, _| a.overflowing_sub(b)),
        "s_add_i32" | "s_add_co_i32" => two(context, |a: i32, b: i32, _| a.overflowing_add(b)),
        "s_sub_i32" | "s_sub_co_i32" => two(context, |a: i32, b: i32, _| a.overflowing_sub(b)),
        "s_addc_u32" | "s_add_co_ci_u32" => {
            two(context, |a: u32, b: u32, scc| carry(u64::from(a) + u64::from(b) + u64::from(scc)))
        }
        "s_subb_u32" | "s_sub_co_ci_u32" => two(context, |a: u32, b: u32, scc| {
            let borrow = u64::from(b) + u64::from(scc);
            (a.wrapping_sub(borrow as u32), borrow > u64::from(a))
        }),
        "s_addk_i32" | "s_addk_co_i32" => with_immediate(context, |a, field, _| {
            (a as i32).overflowing_add(i32::from(field as i16))
        }),
        "s_mulk_i32" => {
            with_immediate(context, |a, field, _| (a as i32).wrapping_mul(i32::from(field as i16)))
        }
        "s_absdiff_i32" => {
            two(context, |a: i32, b: i32, _| flagged(a.wrapping_sub(b).wrapping_abs() as u32))
        }
        "s_abs_i32" => one(context, |a: i32, _| flagged(a.wrapping_abs() as u32)),
        "s_min_i32" => two(context, |a: i32, b: i32, _| (a.min(b), a < b)),
        "s_min_u32" => two(context, |a: u32, b: u32, _| (a.min(b), a < b)),
        "s_max_i32" => two(context, |a: i32, b: i32, _| (a.max(b), a >= b)),
        "s_max_u32" => two(context, |a: u32, b: u32, _| (a.max(b), a >= b)),
        "s_mul_i32" => two(context, |a: u32, b: u32, _| a.wrapping_mul(b)),
        "s_mul_hi_u32" => {
            two(context, |a: u32, b: u32, _| (u64::from(a) * u64::from(b) >> 32) as u32)
        }
        "s_mul_hi_i32" => {
            two(context, |a: i32, b: i32, _| (i64::from(a) * i64::from(b) >> 32) as i32)
        }
        "s_lshl1_add_u32" => two(context, |a: u32, b, _| shifted_sum(a, 1, b)),
        "s_lshl2_add_u32" => two(context, |a: u32, b, _| shifted_sum(a, 2, b)),
        "s_lshl3_add_u32" => two(context, |a: u32, b, _| shifted_sum(a, 3, b)),
        "s_lshl4_add_u32" => two(context, |a: u32, b, _| shifted_sum(a, 4, b)),
        "s_add_u64" | "s_add_nc_u64" => two(context, |a: u64, b: u64, _| a.wrapping_add(b)),
        "s_sub_u64" | "s_sub_nc_u64" => two(context, |a: u64, b: u64, _| a.wrapping_sub(b)),
        "s_mul_u64" => two(context, |a: u64, b: u64, _| a.wrapping_mul(b)),
        _ => return None,
    })
}

#[inline(always)]
fn shifted_sum(a: u32, shift: u32, b: u32) -> (u32, bool) {
    carry((u64::from(a) << shift) + u64::from(b))
}

fn logic(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_and_b32" => two(context, |a: u32, b: u32, _| flagged(a & b)),
        "s_and_b64" => two(context, |a: u64, b: u64, _| flagged64(a & b)),
        "s_or_b32" => two(context, |a: u32, b: u32, _| flagged(a | b)),
        "s_or_b64" => two(context, |a: u64, b: u64, _| flagged64(a | b)),
        "s_xor_b32" => two(context, |a: u32, b: u32, _| flagged(a ^ b)),
        "s_xor_b64" => two(context, |a: u64, b: u64, _| flagged64(a ^ b)),
        "s_andn2_b32" | "s_and_not1_b32" => two(context, |a: u32, b: u32, _| flagged(a & !b)),
        "s_andn2_b64" | "s_and_not1_b64" => two(context, |a: u64, b: u64, _| flagged64(a & !b)),
        "s_orn2_b32" | "s_or_not1_b32" => two(context, |a: u32, b: u32, _| flagged(a | !b)),
        "s_orn2_b64" | "s_or_not1_b64" => two(context, |a: u64, b: u64, _| flagged64(a | !b)),
        "s_nand_b32" => two(context, |a: u32, b: u32, _| flagged(!(a & b))),
        "s_nand_b64" => two(context, |a: u64, b: u64, _| flagged64(!(a & b))),
        "s_nor_b32" => two(context, |a: u32, b: u32, _| flagged(!(a | b))),
        "s_nor_b64" => two(context, |a: u64, b: u64, _| flagged64(!(a | b))),
        "s_xnor_b32" => two(context, |a: u32, b: u32, _| flagged(!(a ^ b))),
        "s_xnor_b64" => two(context, |a: u64, b: u64, _| flagged64(!(a ^ b))),
        "s_not_b32" => one(context, |a: u32, _| flagged(!a)),
        "s_not_b64" => one(context, |a: u64, _| flagged64(!a)),
        _ => return None,
    })
}

/// Offset (bits 0 to 4 or 5) and width (bits 16 to 22) of a bit field.
#[inline(always)]
fn field(selector: u32, bits: u32) -> (u32, u32) {
    (selector & (bits - 1), selector >> 16 & 0x7f)
}

#[inline(always)]
fn extract_unsigned(value: u64, selector: u32, bits: u32) -> u64 {
    let (offset, width) = field(selector, bits);
    let shifted = value >> offset;
    if width >= 64 { shifted } else { shifted & ((1 << width) - 1) }
}

#[inline(always)]
fn extract_signed(value: i64, selector: u32, bits: u32) -> i64 {
    let (offset, width) = field(selector, bits);
    let shifted = value >> offset;
    match width {
        0 => 0,
        1..64 => shifted << (64 - width) >> (64 - width),
        _ => shifted,
    }
}

fn shift(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_lshl_b32" => two(context, |a: u32, b: u32, _| flagged(a << (b & 31))),
        "s_lshl_b64" => two(context, |a: u64, b: u32, _| flagged64(a << (b & 63))),
        "s_lshr_b32" => two(context, |a: u32, b: u32, _| flagged(a >> (b & 31))),
        "s_lshr_b64" => two(context, |a: u64, b: u32, _| flagged64(a >> (b & 63))),
        "s_ashr_i32" => two(context, |a: i32, b: u32, _| flagged((a >> (b & 31)) as u32)),
        "s_ashr_i64" => two(context, |a: i64, b: u32, _| flagged64((a >> (b & 63)) as u64)),
        "s_bfm_b32" => two(context, |a: u32, b: u32, _| ((1_u32 << (a & 31)) - 1) << (b & 31)),
        "s_bfm_b64" => two(context, |a: u32, b: u32, _| ((1_u64 << (a & 63)) - 1) << (b & 63)),
        "s_bfe_u32" => {
            two(context, |a: u32, b: u32, _| flagged(extract_unsigned(u64::from(a), b, 32) as u32))
        }
        "s_bfe_i32" => {
            two(context, |a: i32, b: u32, _| flagged(extract_signed(i64::from(a), b, 32) as u32))
        }
        "s_bfe_u64" => two(context, |a: u64, b: u32, _| flagged64(extract_unsigned(a, b, 64))),
        "s_bfe_i64" => two(context, |a: i64, b: u32, _| flagged64(extract_signed(a, b, 64) as u64)),
        _ => return None,
    })
}

/// A count, or -1 where the search found nothing.
#[inline(always)]
fn found(count: u32, bits: u32) -> i32 {
    if count == bits { -1 } else { count as i32 }
}

/// Bit i says whether the i-th group of four bits has a one.
#[inline(always)]
fn quads(value: u64) -> u64 {
    let any = (value | value >> 1 | value >> 2 | value >> 3) & 0x1111_1111_1111_1111;
    (0..16).fold(0, |mask, quad| mask | (any >> (4 * quad) & 1) << quad)
}

/// Every group of four bits with a one becomes all ones.
#[inline(always)]
fn whole_quads(value: u64) -> u64 {
    let any = (value | value >> 1 | value >> 2 | value >> 3) & 0x1111_1111_1111_1111;
    any * 15
}

/// Every bit twice.
fn replicate(value: u32) -> u64 {
    (0..32).fold(0, |out, bit| out | u64::from(value >> bit & 1) * 3 << (2 * bit))
}

fn bits(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_brev_b32" => one(context, |a: u32, _| a.reverse_bits()),
        "s_brev_b64" => one(context, |a: u64, _| a.reverse_bits()),
        "s_bcnt0_i32_b32" => one(context, |a: u32, _| flagged(a.count_zeros())),
        "s_bcnt0_i32_b64" => one(context, |a: u64, _| flagged(a.count_zeros())),
        "s_bcnt1_i32_b32" => one(context, |a: u32, _| flagged(a.count_ones())),
        "s_bcnt1_i32_b64" => one(context, |a: u64, _| flagged(a.count_ones())),
        "s_ff0_i32_b32" => one(context, |a: u32, _| found(a.trailing_ones(), 32)),
        "s_ff0_i32_b64" => one(context, |a: u64, _| found(a.trailing_ones(), 64)),
        "s_ff1_i32_b32" | "s_ctz_i32_b32" => {
            one(context, |a: u32, _| found(a.trailing_zeros(), 32))
        }
        "s_ff1_i32_b64" | "s_ctz_i32_b64" => {
            one(context, |a: u64, _| found(a.trailing_zeros(), 64))
        }
        "s_flbit_i32_b32" | "s_clz_i32_u32" => {
            one(context, |a: u32, _| found(a.leading_zeros(), 32))
        }
        "s_flbit_i32_b64" | "s_clz_i32_u64" => {
            one(context, |a: u64, _| found(a.leading_zeros(), 64))
        }
        "s_flbit_i32" | "s_cls_i32" => {
            one(context, |a: i32, _| found((a ^ a >> 31).leading_zeros(), 32))
        }
        "s_flbit_i32_i64" | "s_cls_i32_i64" => {
            one(context, |a: i64, _| found((a ^ a >> 63).leading_zeros(), 64))
        }
        "s_bitset0_b32" => update(context, |a: u32, b: u32, _| a & !(1 << (b & 31))),
        "s_bitset0_b64" => update(context, |a: u64, b: u32, _| a & !(1 << (b & 63))),
        "s_bitset1_b32" => update(context, |a: u32, b: u32, _| a | 1 << (b & 31)),
        "s_bitset1_b64" => update(context, |a: u64, b: u32, _| a | 1 << (b & 63)),
        "s_bitreplicate_b64_b32" => one(context, |a: u32, _| replicate(a)),
        "s_quadmask_b32" => one(context, |a: u32, _| flagged(quads(u64::from(a)) as u32)),
        "s_quadmask_b64" => one(context, |a: u64, _| flagged64(quads(a))),
        "s_wqm_b32" => one(context, |a: u32, _| flagged(whole_quads(u64::from(a)) as u32)),
        "s_wqm_b64" => one(context, |a: u64, _| flagged64(whole_quads(a))),
        "s_sext_i32_i8" => one(context, |a: u32, _| i32::from(a as i8)),
        "s_sext_i32_i16" => one(context, |a: u32, _| i32::from(a as i16)),
        "s_pack_ll_b32_b16" => two(context, |a: u32, b: u32, _| a & 0xffff | b << 16),
        "s_pack_lh_b32_b16" => two(context, |a: u32, b: u32, _| a & 0xffff | b & 0xffff_0000),
        "s_pack_hh_b32_b16" => two(context, |a: u32, b: u32, _| a >> 16 | b & 0xffff_0000),
        "s_pack_hl_b32_b16" => two(context, |a: u32, b: u32, _| a >> 16 | b << 16),
        _ => return None,
    })
}

fn moves(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_mov_b32" => one(context, |a: u32, _| a),
        "s_mov_b64" => one(context, |a: u64, _| a),
        "s_cmov_b32" => one(context, |a: u32, scc| If(scc, a)),
        "s_cmov_b64" => one(context, |a: u64, scc| If(scc, a)),
        "s_cselect_b32" => two(context, |a: u32, b: u32, scc| if scc { a } else { b }),
        "s_cselect_b64" => two(context, |a: u64, b: u64, scc| if scc { a } else { b }),
        "s_movk_i32" => with_immediate(context, |_, field, _| i32::from(field as i16)),
        "s_cmovk_i32" => with_immediate(context, |_, field, scc| If(scc, i32::from(field as i16))),
        _ => return None,
    })
}

/// A comparison of a register with an immediate field of the register's signedness.
fn compare_immediate(
    context: &Context<'_>,
    signed: bool,
    f: impl Fn(i64, i64) -> bool + Copy + Send + Sync + 'static,
) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let a = source::<u32>(context, 0)?;
    let field = immediate(context, 1)? as u16;
    let b = if signed { i64::from(field as i16) } else { i64::from(field) };
    Ok(Box::new(move |wave, _| {
        let a = u32::read(wave, a);
        wave.scc = f(if signed { i64::from(a as i32) } else { i64::from(a) }, b);
        Ok(())
    }))
}

fn compare(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_cmp_eq_i32" | "s_cmp_eq_u32" => two(context, |a: u32, b: u32, _| a == b),
        "s_cmp_lg_i32" | "s_cmp_lg_u32" => two(context, |a: u32, b: u32, _| a != b),
        "s_cmp_gt_i32" => two(context, |a: i32, b: i32, _| a > b),
        "s_cmp_ge_i32" => two(context, |a: i32, b: i32, _| a >= b),
        "s_cmp_lt_i32" => two(context, |a: i32, b: i32, _| a < b),
        "s_cmp_le_i32" => two(context, |a: i32, b: i32, _| a <= b),
        "s_cmp_gt_u32" => two(context, |a: u32, b: u32, _| a > b),
        "s_cmp_ge_u32" => two(context, |a: u32, b: u32, _| a >= b),
        "s_cmp_lt_u32" => two(context, |a: u32, b: u32, _| a < b),
        "s_cmp_le_u32" => two(context, |a: u32, b: u32, _| a <= b),
        "s_cmp_eq_u64" => two(context, |a: u64, b: u64, _| a == b),
        "s_cmp_lg_u64" => two(context, |a: u64, b: u64, _| a != b),
        "s_bitcmp0_b32" => two(context, |a: u32, b: u32, _| a >> (b & 31) & 1 == 0),
        "s_bitcmp1_b32" => two(context, |a: u32, b: u32, _| a >> (b & 31) & 1 == 1),
        "s_bitcmp0_b64" => two(context, |a: u64, b: u32, _| a >> (b & 63) & 1 == 0),
        "s_bitcmp1_b64" => two(context, |a: u64, b: u32, _| a >> (b & 63) & 1 == 1),
        "s_cmpk_eq_i32" => compare_immediate(context, true, |a, b| a == b),
        "s_cmpk_lg_i32" => compare_immediate(context, true, |a, b| a != b),
        "s_cmpk_gt_i32" => compare_immediate(context, true, |a, b| a > b),
        "s_cmpk_ge_i32" => compare_immediate(context, true, |a, b| a >= b),
        "s_cmpk_lt_i32" => compare_immediate(context, true, |a, b| a < b),
        "s_cmpk_le_i32" => compare_immediate(context, true, |a, b| a <= b),
        "s_cmpk_eq_u32" => compare_immediate(context, false, |a, b| a == b),
        "s_cmpk_lg_u32" => compare_immediate(context, false, |a, b| a != b),
        "s_cmpk_gt_u32" => compare_immediate(context, false, |a, b| a > b),
        "s_cmpk_ge_u32" => compare_immediate(context, false, |a, b| a >= b),
        "s_cmpk_lt_u32" => compare_immediate(context, false, |a, b| a < b),
        "s_cmpk_le_u32" => compare_immediate(context, false, |a, b| a <= b),
        _ => return None,
    })
}

/// EXEC becomes a function of a source and of itself; the destination gets the old EXEC or, where
/// `keeps_old` is false, the new one. A `_b32` form touches the low half of EXEC alone.
fn combine(
    context: &Context<'_>,
    wide: bool,
    keeps_old: bool,
    f: impl Fn(u64, u64) -> u64 + Copy + Send + Sync + 'static,
) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    if wide {
        let (place, a) = (place(context, 0, 2)?, source::<u64>(context, 1)?);
        return Ok(Box::new(move |wave, _| {
            let old = wave.exec();
            let new = f(u64::read(wave, a), old) & wave.all_lanes();
            (if keeps_old { old } else { new }).set(wave, place);
            wave.set_exec(new);
            wave.scc = new != 0;
            Ok(())
        }));
    }
    let (place, a) = (place(context, 0, 1)?, source::<u32>(context, 1)?);
    Ok(Box::new(move |wave, _| {
        let old = wave.sgpr[scalar::EXEC];
        let new = f(u64::from(u32::read(wave, a)), u64::from(old)) as u32;
        (if keeps_old { old } else { new }).set(wave, place);
        wave.sgpr[scalar::EXEC] = new;
        wave.scc = new != 0;
        Ok(())
    }))
}

fn exec_mask(context: &Context<'_>) -> Compiled {
    let mnemonic = context.asm.mnemonic.as_str();
    let (name, wide) = match mnemonic.strip_suffix("_b64") {
        Some(name) => (name, true),
        None => (mnemonic.strip_suffix("_b32")?, false),
    };
    Some(match name {
        "s_and_saveexec" => combine(context, wide, true, |a, exec| a & exec),
        "s_or_saveexec" => combine(context, wide, true, |a, exec| a | exec),
        "s_xor_saveexec" => combine(context, wide, true, |a, exec| a ^ exec),
        "s_nand_saveexec" => combine(context, wide, true, |a, exec| !(a & exec)),
        "s_nor_saveexec" => combine(context, wide, true, |a, exec| !(a | exec)),
        "s_xnor_saveexec" => combine(context, wide, true, |a, exec| !(a ^ exec)),
        "s_andn1_saveexec" | "s_and_not0_saveexec" => {
            combine(context, wide, true, |a, exec| !a & exec)
        }
        "s_orn1_saveexec" | "s_or_not0_saveexec" => {
            combine(context, wide, true, |a, exec| !a | exec)
        }
        "s_andn2_saveexec" | "s_and_not1_saveexec" => {
            combine(context, wide, true, |a, exec| a & !exec)
        }
        "s_orn2_saveexec" | "s_or_not1_saveexec" => {
            combine(context, wide, true, |a, exec| a | !exec)
        }
        "s_andn1_wrexec" | "s_and_not0_wrexec" => {
            combine(context, wide, false, |a, exec| !a & exec)
        }
        "s_andn2_wrexec" | "s_and_not1_wrexec" => {
            combine(context, wide, false, |a, exec| a & !exec)
        }
        _ => return None,
    })
}

/// A register that M0 displaces. Only s0 to s105 can be reached so.
fn displaced(base: u8, by: u32, registers: u16) -> Result<u8, Box<Fault>> {
    let index = u32::from(base).wrapping_add(by);
    let aligned = index.is_multiple_of(u32::from(registers));
    if aligned && index < scalar::VCC as u32 {
        return Ok(index as u8);
    }
    let text = format!("scalar register s{index}, which M0 selects, does not exist");
    Err(Box::new(Fault::Illegal(text)))
}

/// The numbered register that an operand must be.
fn numbered(context: &Context<'_>, index: usize, registers: u16) -> Result<u8, Fault> {
    match operand(context, index)?.value {
        Value::Scalar(first, count) if count == registers && usize::from(first) < scalar::VCC => {
            Ok(first as u8)
        }
        _ => Err(context.unknown()),
    }
}

/// A move from a register that M0 displaces.
fn move_from<T: Word>(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let (place, base) = (place(context, 0, T::REGISTERS)?, numbered(context, 1, T::REGISTERS)?);
    Ok(Box::new(move |wave, _| {
        let from = displaced(base, wave.sgpr[scalar::M0], T::REGISTERS)?;
        T::get(wave, from).set(wave, place);
        Ok(())
    }))
}

/// A move to a register that M0 displaces.
fn move_to<T: Word>(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let (base, value) = (numbered(context, 0, T::REGISTERS)?, source::<T>(context, 1)?);
    Ok(Box::new(move |wave, _| {
        let index = displaced(base, wave.sgpr[scalar::M0], T::REGISTERS)?;
        T::read(wave, value).set(wave, Place { index, narrow_exec: false });
        Ok(())
    }))
}

/// A move between registers that M0 displaces: the source by bits 0 to 9, the destination by 16
/// to 25.
fn move_between(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let (to, from) = (numbered(context, 0, 1)?, numbered(context, 1, 1)?);
    Ok(Box::new(move |wave, _| {
        let m0 = wave.sgpr[scalar::M0];
        let value = u32::get(wave, displaced(from, m0 & 0x3ff, 1)?);
        let index = displaced(to, m0 >> 16 & 0x3ff, 1)?;
        value.set(wave, Place { index, narrow_exec: false });
        Ok(())
    }))
}

fn relative(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_movrels_b32" => move_from::<u32>(context),
        "s_movrels_b64" => move_from::<u64>(context),
        "s_movreld_b32" => move_to::<u32>(context),
        "s_movreld_b64" => move_to::<u64>(context),
        "s_movrelsd_2_b32" => move_between(context),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::Chip;
    use crate::scalar::testing::Machine;
    use crate::wave::scalar;

    const MIN: u32 = 0x8000_0000;
    const MAX: u32 = 0x7fff_ffff;
    const ONES: u32 = u32::MAX;

    /// Name; s0 and s1; SCC before; s4 and SCC after.
    type Case32 = (&'static str, u32, u32, bool, u32, bool);

    fn check32(chip: Chip, cases: &[Case32]) {
        let mut machine = Machine::new(chip);
        for &(name, a, b, before, result, after) in cases {
            machine.set(&[a, b]).wave.scc = before;
            machine.run(&format!("{name} s4, s0, s1"));
            let got = (machine.wave.sgpr[4], machine.wave.scc);
            assert_eq!(got, (result, after), "{name} {a:#x} {b:#x}");
        }
    }

    /// Name; s[0:1] and s[2:3] or s2; SCC before; s[4:5] and SCC after.
    type Case64 = (&'static str, u64, u64, bool, u64, bool);

    fn check64(chip: Chip, second: &str, cases: &[Case64]) {
        let mut machine = Machine::new(chip);
        for &(name, a, b, before, result, after) in cases {
            machine.wave.set_pair(0, a);
            machine.wave.set_pair(2, b);
            machine.wave.scc = before;
            machine.run(&format!("{name} s[4:5], s[0:1], {second}"));
            let got = (machine.wave.pair(4), machine.wave.scc);
            assert_eq!(got, (result, after), "{name} {a:#x} {b:#x}");
        }
    }

    #[test]
    fn sums_and_differences() {
        let cases = [
            ("s_add_u32", ONES, 1, false, 0, true),
            ("s_add_u32", MAX, 1, true, MIN, false),
            ("s_add_i32", MAX, 1, false, MIN, true),
            ("s_add_i32", ONES, 1, true, 0, false),
            ("s_add_i32", MIN, MIN, false, 0, true),
            ("s_sub_u32", 0, 1, false, ONES, true),
            ("s_sub_u32", 1, 1, true, 0, false),
            ("s_sub_i32", MIN, 1, false, MAX, true),
            ("s_sub_i32", 0, 1, true, ONES, false),
            ("s_addc_u32", ONES, 0, true, 0, true),
            ("s_addc_u32", ONES, ONES, true, ONES, true),
            ("s_addc_u32", 1, 2, false, 3, false),
            ("s_subb_u32", 0, ONES, true, 0, true),
            ("s_subb_u32", 5, 4, true, 0, false),
            ("s_subb_u32", 5, 5, true, ONES, true),
            ("s_subb_u32", 5, 5, false, 0, false),
            ("s_absdiff_i32", 3, 10, false, 7, true),
            ("s_absdiff_i32", 5, 5, true, 0, false),
            ("s_absdiff_i32", MIN, 0, false, MIN, true),
            ("s_lshl1_add_u32", MIN, 3, false, 3, true),
            ("s_lshl2_add_u32", 5, 3, true, 23, false),
            ("s_lshl3_add_u32", 5, 3, true, 43, false),
            ("s_lshl4_add_u32", 0x1000_0001, 3, false, 19, true),
        ];
        check32(Chip::Gfx942, &cases);
        let renamed = [
            ("s_add_co_u32", ONES, 1, false, 0, true),
            ("s_sub_co_u32", 0, 1, false, ONES, true),
            ("s_add_co_i32", MAX, 1, false, MIN, true),
            ("s_sub_co_i32", MIN, 1, false, MAX, true),
            ("s_add_co_ci_u32", 1, 1, true, 3, false),
            ("s_sub_co_ci_u32", 0, 0, true, ONES, true),
        ];
        check32(Chip::Gfx1201, &renamed);
        let wide = [
            ("s_add_nc_u64", u64::MAX, 2, true, 1, true),
            ("s_sub_nc_u64", 0, 1, false, u64::MAX, false),
            ("s_mul_u64", 0x1_0000_0001, 0x1_0000_0003, false, 0x4_0000_0003, false),
        ];
        check64(Chip::Gfx1201, "s[2:3]", &wide);
    }

    #[test]
    fn extremes_and_products() {
        let cases = [
            ("s_min_i32", ONES, 1, false, ONES, true),
            ("s_min_i32", 1, 1, true, 1, false),
            ("s_min_u32", ONES, 1, true, 1, false),
            ("s_max_i32", ONES, 1, true, 1, false),
            ("s_max_i32", 1, 1, false, 1, true),
            ("s_max_u32", ONES, 1, false, ONES, true),
            ("s_mul_i32", 0x1_0001, 0x1_0001, true, 0x2_0001, true),
            ("s_mul_hi_u32", ONES, ONES, false, ONES - 1, false),
            ("s_mul_hi_i32", ONES, ONES, false, 0, false),
            ("s_mul_hi_i32", MIN, 2, true, ONES, true),
        ];
        check32(Chip::Gfx1100, &cases);
    }

    #[test]
    fn logic_and_shifts() {
        let (a, b) = (0xff00_ff00, 0x0ff0_0ff0);
        let cases = [
            ("s_and_b32", a, b, false, 0x0f00_0f00, true),
            ("s_and_b32", a, 0xff, true, 0, false),
            ("s_or_b32", a, b, false, 0xfff0_fff0, true),
            ("s_xor_b32", a, a, true, 0, false),
            ("s_andn2_b32", a, b, false, 0xf000_f000, true),
            ("s_and_not1_b32", a, a, true, 0, false),
            ("s_orn2_b32", a, b, false, 0xff0f_ff0f, true),
            ("s_or_not1_b32", 0, ONES, true, 0, false),
            ("s_nand_b32", ONES, ONES, true, 0, false),
            ("s_nor_b32", a, b, false, 0x000f_000f, true),
            ("s_xnor_b32", a, !a, true, 0, false),
            ("s_lshl_b32", 3, 33, false, 6, true),
            ("s_lshl_b32", MIN, 1, true, 0, false),
            ("s_lshr_b32", MIN, 63, false, 1, true),
            ("s_ashr_i32", MIN, 4, false, 0xf800_0000, true),
            ("s_bfm_b32", 4, 8, false, 0xf00, false),
            ("s_bfm_b32", 32, 8, true, 0, true),
            ("s_bfe_u32", 0x1234_5678, 8 | 8 << 16, false, 0x56, true),
            ("s_bfe_u32", 0x1234_5678, 8 | 40 << 16, false, 0x12_3456, true),
            ("s_bfe_u32", 0x1234_5678, 8, true, 0, false),
            ("s_bfe_i32", 0x1234_f678, 8 | 8 << 16, false, 0xffff_fff6, true),
            ("s_bfe_i32", 0x8234_f678, 28 | 16 << 16, false, 0xffff_fff8, true),
            ("s_bfe_i32", ONES, 0, true, 0, false),
            ("s_pack_ll_b32_b16", 0x1111_2222, 0x3333_4444, true, 0x4444_2222, true),
            ("s_pack_lh_b32_b16", 0x1111_2222, 0x3333_4444, true, 0x3333_2222, true),
            ("s_pack_hh_b32_b16", 0x1111_2222, 0x3333_4444, true, 0x3333_1111, true),
            ("s_pack_hl_b32_b16", 0x1111_2222, 0x3333_4444, true, 0x4444_1111, true),
        ];
        check32(Chip::Gfx1100, &cases);
        let shifts = [
            ("s_lshl_b64", 1, 36, false, 1 << 36, true),
            ("s_lshr_b64", 1 << 36, 100, false, 1, true),
            ("s_ashr_i64", 1 << 63, 63, false, u64::MAX, true),
            ("s_bfe_u64", 0x1234_5678_9abc_def0, 32 | 16 << 16, false, 0x5678, true),
            ("s_bfe_u64", u64::MAX, 4 | 127 << 16, false, u64::MAX >> 4, true),
            ("s_bfe_i64", 0xf000_0000, 28 | 4 << 16, false, u64::MAX, true),
        ];
        check64(Chip::Gfx942, "s2", &shifts);
        let pairs = [
            ("s_andn2_b64", u64::MAX, 1, false, u64::MAX - 1, true),
            ("s_orn2_b64", 0, u64::MAX, true, 0, false),
            ("s_xor_b64", 1 << 40, 1 << 41, false, 3 << 40, true),
            ("s_nor_b64", 0, 0, false, u64::MAX, true),
        ];
        check64(Chip::Gfx942, "s[2:3]", &pairs);
        let mut machine = Machine::new(Chip::Gfx942);
        machine.set(&[40, 8]).run("s_bfm_b64 s[4:5], s0, s1");
        assert_eq!(machine.wave.pair(4), 0xff_ffff_ffff << 8);
    }

    /// Name, source, destination, and SCC after it was false, for 32 and for 64 bits.
    fn check_one(cases: &[(&str, u64, u64, bool)], source: &str, destination: &str) {
        let mut machine = Machine::new(Chip::Gfx1100);
        for &(name, a, result, after) in cases {
            machine.wave.set_pair(0, a);
            machine.wave.set_pair(4, 0);
            machine.wave.scc = false;
            machine.run(&format!("{name} {destination}, {source}"));
            let got = (machine.wave.pair(4), machine.wave.scc);
            assert_eq!(got, (result, after), "{name} {a:#x}");
        }
    }

    #[test]
    fn bits_of_one_source() {
        let minus_one = u64::from(ONES);
        let narrow = [
            ("s_not_b32", 0xffff_fff0, 0xf, true),
            ("s_brev_b32", 1, 0x8000_0000, false),
            ("s_bcnt0_i32_b32", 0xff, 24, true),
            ("s_bcnt1_i32_b32", 0xff, 8, true),
            ("s_bcnt1_i32_b32", 0, 0, false),
            ("s_ff0_i32_b32", 7, 3, false),
            ("s_ff0_i32_b32", minus_one, minus_one, false),
            ("s_ff1_i32_b32", 8, 3, false),
            ("s_ctz_i32_b32", 0, minus_one, false),
            ("s_flbit_i32_b32", 1, 31, false),
            ("s_clz_i32_u32", 0, minus_one, false),
            ("s_flbit_i32", 0xffff_0000, 16, false),
            ("s_cls_i32", minus_one, minus_one, false),
            ("s_cls_i32", 0, minus_one, false),
            ("s_cls_i32", 1, 31, false),
            ("s_sext_i32_i8", 0x1280, 0xffff_ff80, false),
            ("s_sext_i32_i16", 0x1_7fff, 0x7fff, false),
            ("s_abs_i32", 0xffff_fffb, 5, true),
            ("s_abs_i32", 0x8000_0000, 0x8000_0000, true),
            ("s_abs_i32", 0, 0, false),
            ("s_quadmask_b32", 0x1000_0200, 0x84, true),
            ("s_wqm_b32", 0x1000_0200, 0xf000_0f00, true),
        ];
        check_one(&narrow, "s0", "s4");
        let to_one = [
            ("s_bcnt0_i32_b64", 0xff, 56, true),
            ("s_bcnt1_i32_b64", u64::MAX, 64, true),
            ("s_ff0_i32_b64", u64::MAX >> 1, 63, false),
            ("s_ff1_i32_b64", 1 << 40, 40, false),
            ("s_flbit_i32_b64", 1, 63, false),
            ("s_clz_i32_u64", 0, minus_one, false),
            ("s_flbit_i32_i64", u64::MAX << 8, 56, false),
            ("s_cls_i32_i64", u64::MAX, minus_one, false),
        ];
        check_one(&to_one, "s[0:1]", "s4");
        let wide = [
            ("s_not_b64", u64::MAX, 0, false),
            ("s_brev_b64", 2, 1 << 62, false),
            ("s_quadmask_b64", 1 << 63 | 1, 0x8001, true),
            ("s_wqm_b64", 1 << 63 | 1, 0xf << 60 | 0xf, true),
            ("s_mov_b64", 0x1234_5678_9abc_def0, 0x1234_5678_9abc_def0, false),
        ];
        check_one(&wide, "s[0:1]", "s[4:5]");
        check_one(
            &[("s_bitreplicate_b64_b32", 0x8000_0005, 3 << 62 | 0x33, false)],
            "s0",
            "s[4:5]",
        );
    }

    #[test]
    fn single_bits() {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.set(&[35, 0, 0, 0, 0xff, 0]);
        machine.run("s_bitset1_b64 s[4:5], s0").run("s_bitset0_b32 s4, s0");
        assert_eq!(machine.wave.sgpr[4..6], [0xf7, 8]);
        machine.run("s_bitset0_b64 s[4:5], 35").run("s_bitset1_b32 s4, 40");
        assert_eq!(machine.wave.sgpr[4..6], [0x1f7, 0]);
        let tests = [
            ("s_bitcmp1_b32 s4, 3", false),
            ("s_bitcmp0_b32 s4, 3", true),
            ("s_bitcmp1_b32 s4, 34", true),
            ("s_bitcmp1_b64 s[4:5], 34", false),
            ("s_bitcmp0_b64 s[4:5], 8", false),
        ];
        for (text, expected) in tests {
            machine.run(text);
            assert_eq!(machine.wave.scc, expected, "{text}");
        }
    }

    #[test]
    fn conditional_moves() {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.set(&[1, 2, 3, 4, 5, 6]);
        machine.wave.scc = false;
        machine.run("s_cmov_b32 s4, s0").run("s_cmov_b64 s[4:5], s[0:1]").run("s_cmovk_i32 s4, 9");
        assert_eq!(machine.wave.sgpr[4..6], [5, 6]);
        machine.run("s_cselect_b32 s4, s0, s1").run("s_cselect_b64 s[2:3], s[0:1], -1");
        assert_eq!(machine.wave.sgpr[2..5], [ONES, ONES, 2]);
        machine.wave.scc = true;
        machine.run("s_cmov_b64 s[4:5], s[0:1]").run("s_cmovk_i32 s2, 0xffff");
        assert_eq!(machine.wave.sgpr[2..6], [ONES, ONES, 1, 2]);
    }

    #[test]
    fn immediates_of_sixteen_bits() {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.run("s_movk_i32 s0, 0xfffe");
        assert_eq!(machine.wave.sgpr[0], ONES - 1);
        machine.run("s_addk_i32 s0, 0x7fff");
        assert_eq!((machine.wave.sgpr[0], machine.wave.scc), (0x7ffd, false));
        machine.set(&[MIN]).run("s_addk_i32 s0, 0xffff");
        assert_eq!((machine.wave.sgpr[0], machine.wave.scc), (MAX, true));
        machine.set(&[7]).run("s_mulk_i32 s0, 0xfffd");
        assert_eq!(machine.wave.sgpr[0], -21_i32 as u32);
        machine.run("s_addk_co_i32 s0, 0x15");
        assert_eq!(machine.wave.sgpr[0], 0);
    }

    #[test]
    fn comparisons() {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.set(&[ONES, 1]);
        let signed =
            [("eq", false), ("lg", true), ("gt", false), ("ge", false), ("lt", true), ("le", true)];
        for (name, expected) in signed {
            machine.run(&format!("s_cmp_{name}_i32 s0, s1"));
            assert_eq!(machine.wave.scc, expected, "signed {name}");
            machine.run(&format!("s_cmpk_{name}_i32 s0, 0x1"));
            assert_eq!(machine.wave.scc, expected, "signed {name} with an immediate");
        }
        let unsigned =
            [("eq", false), ("lg", true), ("gt", true), ("ge", true), ("lt", false), ("le", false)];
        for (name, expected) in unsigned {
            machine.run(&format!("s_cmp_{name}_u32 s0, s1"));
            assert_eq!(machine.wave.scc, expected, "unsigned {name}");
            machine.run(&format!("s_cmpk_{name}_u32 s0, 0xffff"));
            assert_eq!(machine.wave.scc, expected, "unsigned {name} with an immediate");
        }
        machine.run("s_cmpk_eq_i32 s0, 0xffff");
        assert!(machine.wave.scc, "immediates of signed comparisons are extended by their sign");
        machine.set(&[1, 2, 1, 3]).run("s_cmp_eq_u64 s[0:1], s[2:3]");
        assert!(!machine.wave.scc);
        machine.run("s_cmp_lg_u64 s[0:1], s[2:3]");
        assert!(machine.wave.scc);
    }

    #[test]
    fn constants_are_extended_as_the_operand_says() {
        let mut machine = Machine::new(Chip::Gfx942);
        let cases = [
            ("s_mov_b64 s[0:1], -1", u64::MAX),
            ("s_mov_b64 s[0:1], 64", 64),
            ("s_mov_b64 s[0:1], 0x92345678", 0x9234_5678),
            ("s_mov_b64 s[0:1], 1.0", 1.0_f64.to_bits()),
            ("s_mov_b64 s[0:1], 0.15915494", 0x3fc4_5f30_6dc9_c882),
            ("s_ashr_i64 s[0:1], 0x92345678, 4", 0xffff_ffff_f923_4567),
            ("s_lshr_b64 s[0:1], 0x92345678, 4", 0x0923_4567),
        ];
        for (text, expected) in cases {
            machine.run(text);
            assert_eq!(machine.wave.pair(0), expected, "{text}");
        }
        machine.run("s_mov_b32 s0, -4.0");
        assert_eq!(machine.wave.sgpr[0], (-4.0_f32).to_bits());
        machine.run("s_mov_b32 s0, 0.15915494");
        assert_eq!(machine.wave.sgpr[0], 0x3e22_f983);
        machine.wave.scc = true;
        machine.run("s_mov_b32 s0, src_scc").run("s_mov_b32 s1, src_vccz");
        assert_eq!(machine.wave.sgpr[..2], [1, 1]);
    }

    #[test]
    fn null_reads_as_zero_and_swallows() {
        let mut machine = Machine::new(Chip::Gfx1100);
        machine.wave.sgpr[scalar::M0] = 7;
        machine.set(&[5, 6]);
        machine.run("s_mov_b32 null, s0").run("s_mov_b64 null, s[0:1]");
        assert_eq!(machine.wave.sgpr[scalar::M0], 7);
        machine.run("s_mov_b64 s[0:1], null");
        assert_eq!(machine.wave.sgpr[..2], [0, 0]);
        machine.set(&[5]).run("s_add_u32 s0, s0, null");
        assert_eq!(machine.wave.sgpr[0], 5);
    }

    #[test]
    fn exec_is_saved_and_combined() {
        let mut machine = Machine::new(Chip::Gfx942);
        let (mask, exec) = (0xf0f0_f0f0_f0f0_f0f0_u64, 0xff00_ff00_ff00_ff00_u64);
        let cases = [
            ("s_and_saveexec_b64", mask & exec),
            ("s_or_saveexec_b64", mask | exec),
            ("s_xor_saveexec_b64", mask ^ exec),
            ("s_nand_saveexec_b64", !(mask & exec)),
            ("s_nor_saveexec_b64", !(mask | exec)),
            ("s_xnor_saveexec_b64", !(mask ^ exec)),
            ("s_andn1_saveexec_b64", !mask & exec),
            ("s_orn1_saveexec_b64", !mask | exec),
            ("s_andn2_saveexec_b64", mask & !exec),
            ("s_orn2_saveexec_b64", mask | !exec),
        ];
        for (name, expected) in cases {
            machine.wave.set_pair(0, mask);
            machine.wave.set_exec(exec);
            machine.run(&format!("{name} s[4:5], s[0:1]"));
            let got = (machine.wave.exec(), machine.wave.pair(4), machine.wave.scc);
            assert_eq!(got, (expected, exec, true), "{name}");
        }
        for (name, expected) in
            [("s_andn1_wrexec_b64", !mask & exec), ("s_andn2_wrexec_b64", mask & !exec)]
        {
            machine.wave.set_exec(exec);
            machine.run(&format!("{name} s[4:5], s[0:1]"));
            assert_eq!((machine.wave.exec(), machine.wave.pair(4)), (expected, expected), "{name}");
        }
        machine.run("s_and_saveexec_b64 s[4:5], 0");
        assert!(!machine.wave.scc && machine.wave.exec() == 0);
        // The destination may be the source.
        machine.wave.set_exec(exec);
        machine.run("s_and_saveexec_b64 s[0:1], s[0:1]");
        assert_eq!((machine.wave.exec(), machine.wave.pair(0)), (mask & exec, exec));
    }

    #[test]
    fn a_narrow_wave_has_no_high_half_of_exec() {
        let mut machine = Machine::with_lanes(Chip::Gfx1100, 32);
        machine.run("s_mov_b64 exec, -1").run("s_mov_b32 exec_hi, -1");
        assert_eq!(machine.wave.exec(), 0xffff_ffff);
        machine.run("s_not_b64 exec, 0").run("s_or_not0_saveexec_b64 s[0:1], 0");
        assert_eq!(machine.wave.exec(), 0xffff_ffff);
        machine.set(&[0xff]).run("s_and_not1_saveexec_b32 s4, s0");
        assert_eq!((machine.wave.exec(), machine.wave.sgpr[4], machine.wave.scc), (0, ONES, false));
        machine.run("s_and_not0_wrexec_b32 s4, s0").run("s_xnor_saveexec_b32 s4, s0");
        assert_eq!((machine.wave.exec(), machine.wave.sgpr[4]), (0xffff_ff00, 0));
        machine.run("s_mov_b32 exec_lo, 3");
        assert_eq!(machine.wave.exec(), 3);
    }

    #[test]
    fn registers_are_displaced_by_m0() {
        let mut machine = Machine::new(Chip::Gfx1100);
        machine.set(&[10, 11, 12, 13, 14, 15]).run("s_mov_b32 m0, 2");
        machine.run("s_movrels_b32 s20, s1").run("s_movrels_b64 s[22:23], s[2:3]");
        assert_eq!((machine.wave.sgpr[20], machine.wave.pair(22)), (13, 15 << 32 | 14));
        machine.run("s_movreld_b32 s30, s1").run("s_movreld_b64 s[34:35], s[0:1]");
        assert_eq!(machine.wave.sgpr[32], 11);
        assert_eq!(machine.wave.sgpr[36..38], [10, 11]);
        machine.run("s_mov_b32 m0, 0x30001").run("s_movrelsd_2_b32 s40, s4");
        assert_eq!(machine.wave.sgpr[43], 15);
        machine.run("s_mov_b32 m0, 106").step("s_movrels_b32 s0, s0").expect_err("beyond s105");
        machine.run("s_mov_b32 m0, -1").step("s_movreld_b32 s0, s0").expect_err("before s0");
        machine.run("s_mov_b32 m0, 1").step("s_movrels_b64 s[0:1], s[0:1]").expect_err("odd");
    }
}
