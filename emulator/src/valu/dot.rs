//! Dot products of two, four or eight numbers in a register.
//!
//! Products and sums follow the documents' pseudo-code from first to last: each product is exact,
//! each sum is rounded to the result's format.

use super::float::fma_f16;
use super::op::F16;
use super::op::{Bf16, Core, Kind, Lane, Op, map3};
use super::operand::Source;
use super::operation;
use super::packed::{self, Finish, Input, Modifiers, Packed, Read, Two, plain_source};
use super::real::real3;
use crate::Chip;
use crate::arith::{self, Env};
use crate::asm::{Operand, Value};
use crate::number::{Fp8, bf16_to_f32, f16_to_f32, flush_bf16, flush_f16, flush_f32};
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault};

/// How halves become singles.
#[inline(always)]
fn widen<const BRAIN: bool, const FLUSH: bool>(half: u16) -> f32 {
    match (BRAIN, FLUSH) {
        (true, _) => bf16_to_f32(flush_bf16(half)),
        (false, true) => f16_to_f32(flush_f16(half)),
        (false, false) => f16_to_f32(half),
    }
}

/// `c` plus the products of the low and of the high halves; `LAST` adds `c` after them.
#[inline(always)]
fn dot2<const BRAIN: bool, const FLUSH: bool, const LAST: bool>(
    a: Two,
    b: Two,
    c: f32,
    fma: impl Fn(f32, f32, f32) -> f32,
) -> f32 {
    let flush = |x| if FLUSH { flush_f32(x) } else { x };
    let wide = widen::<BRAIN, FLUSH>;
    let c = flush(c);
    let start = if LAST { 0.0 } else { c };
    let sum = flush(fma(wide(a.low()), wide(b.low()), start));
    let sum = flush(fma(wide(a.high()), wide(b.high()), sum));
    if LAST { flush(fma(sum, 1.0, c)) } else { sum }
}

fn nearest(a: f32, b: f32, c: f32) -> f32 {
    arith::fma_env(Env::NEAREST, a, b, c)
}

fn dot2_op<const BRAIN: bool, const FLUSH: bool, const LAST: bool>() -> Op {
    real3(
        |a: Two, b: Two, c: f32| dot2::<BRAIN, FLUSH, LAST>(a, b, c, f32::mul_add),
        |_, a: Two, b: Two, c: f32| dot2::<BRAIN, FLUSH, LAST>(a, b, c, nearest),
    )
}

/// A dot product of four 8-bit floats and a sum that begins with `c`.
#[inline(always)]
fn dot4_float(
    a: u32,
    b: u32,
    c: f32,
    formats: (Fp8, Fp8),
    fma: impl Fn(f32, f32, f32) -> f32,
) -> f32 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    (0..4).fold(c, |sum, at| fma(formats.0.to_f32(a[at]), formats.1.to_f32(b[at]), sum))
}

/// The dot product of numbers of `BITS` bits, exactly.
#[inline(always)]
fn exact<const BITS: u32, const SIGNED_A: bool, const SIGNED_B: bool>(a: u32, b: u32) -> i64 {
    let part = |bits: u32, at: u32, signed: bool| {
        let top = bits << (32 - BITS - at);
        if signed { i64::from(top as i32 >> (32 - BITS)) } else { i64::from(top >> (32 - BITS)) }
    };
    let mut sum = 0;
    for index in 0..32 / BITS {
        sum += part(a, index * BITS, SIGNED_A) * part(b, index * BITS, SIGNED_B);
    }
    sum
}

/// A dot product added to a signed integer.
fn signed<const BITS: u32, const A: bool, const B: bool>() -> Op {
    map3(|a: u32, b: u32, c: i32| (exact::<BITS, A, B>(a, b) as i32).wrapping_add(c)).saturating(
        map3(|a: u32, b: u32, c: i32| {
            let sum = exact::<BITS, A, B>(a, b) + i64::from(c);
            sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
        }),
    )
}

/// A dot product added to an unsigned integer.
fn unsigned<const BITS: u32>() -> Op {
    map3(|a: u32, b: u32, c: u32| (exact::<BITS, false, false>(a, b) as u32).wrapping_add(c))
        .saturating(map3(|a: u32, b: u32, c: u32| {
            let sum = exact::<BITS, false, false>(a, b) + i64::from(c);
            sum.min(i64::from(u32::MAX)) as u32
        }))
}

/// The operation of integers that a mnemonic names; `signs` are those of the iu forms.
fn integers(name: &str, signs: [bool; 2]) -> Option<Op> {
    Some(match (name, signs) {
        ("dot2_i32_i16" | "dot2c_i32_i16", _) => signed::<16, true, true>(),
        ("dot4_i32_i8" | "dot4c_i32_i8", _) => signed::<8, true, true>(),
        ("dot8_i32_i4" | "dot8c_i32_i4", _) => signed::<4, true, true>(),
        ("dot2_u32_u16", _) => unsigned::<16>(),
        ("dot4_u32_u8", _) => unsigned::<8>(),
        ("dot8_u32_u4", _) => unsigned::<4>(),
        ("dot4_i32_iu8", [false, false]) => signed::<8, false, false>(),
        ("dot4_i32_iu8", [true, false]) => signed::<8, true, false>(),
        ("dot4_i32_iu8", [false, true]) => signed::<8, false, true>(),
        ("dot4_i32_iu8", [true, true]) => signed::<8, true, true>(),
        ("dot8_i32_iu4", [false, false]) => signed::<4, false, false>(),
        ("dot8_i32_iu4", [true, false]) => signed::<4, true, false>(),
        ("dot8_i32_iu4", [false, true]) => signed::<4, false, true>(),
        ("dot8_i32_iu4", [true, true]) => signed::<4, true, true>(),
        _ => return None,
    })
}

/// The operation that adds to its destination, for pairs of operations.
pub fn find(mnemonic: &str, chip: Chip) -> Option<Op> {
    let name = mnemonic.strip_prefix("v_")?;
    let op = match (name, chip.is_cdna()) {
        ("dot2c_f32_f16" | "dot2acc_f32_f16", true) => dot2_op::<false, true, false>(),
        ("dot2c_f32_f16" | "dot2acc_f32_f16", false) => dot2_op::<false, false, false>(),
        ("dot2c_f32_bf16" | "dot2acc_f32_bf16", _) => dot2_op::<true, true, false>(),
        ("dot2c_i32_i16" | "dot4c_i32_i8" | "dot8c_i32_i4", _) => integers(name, [true; 2])?,
        _ => return None,
    };
    Some(op.accumulate())
}

/// Compiles a dot product.
pub fn compile(context: &Context<'_>) -> Compiled {
    let name = context.asm.mnemonic.strip_prefix("v_")?;
    if !name.starts_with("dot") {
        return None;
    }
    if let Some(op) = find(&context.asm.mnemonic, context.chip) {
        return Some(accumulating(context, op));
    }
    let cdna = context.chip.is_cdna();
    Some(match name {
        "dot2_f32_f16" if cdna => halves(context, dot2_op::<false, true, false>(), false),
        "dot2_f32_f16" => halves(context, dot2_op::<false, false, false>(), false),
        "dot2_f32_bf16" if cdna => halves(context, dot2_op::<true, true, true>(), true),
        "dot2_f32_bf16" => halves(context, dot2_op::<true, true, false>(), true),
        "dot2_f16_f16" => short(context, dot2_f16(), Kind::F16),
        "dot2_bf16_bf16" => short(context, dot2_bf16(), Kind::Bf16),
        "dot4_f32_fp8_fp8" => small_floats(context, dot4_op::<false, false>()),
        "dot4_f32_fp8_bf8" => small_floats(context, dot4_op::<false, true>()),
        "dot4_f32_bf8_fp8" => small_floats(context, dot4_op::<true, false>()),
        "dot4_f32_bf8_bf8" => small_floats(context, dot4_op::<true, true>()),
        _ => whole(context, name),
    })
}

/// Forms with two operands: what a float constant would be is documented for pairs only.
fn accumulating(context: &Context<'_>, op: Op) -> Result<Exec, Fault> {
    let is_float = op.result == Kind::F32;
    let constant = |operand: &Operand| {
        matches!(operand.value, Value::Float(_) | Value::Integer(_) | Value::Literal(_))
    };
    if is_float && context.asm.operands.iter().any(constant) {
        return Err(context.unknown());
    }
    operation::compile(context, op)
}

/// Dot products of integers: neg_lo says which operands of an iu form are signed.
fn whole(context: &Context<'_>, name: &str) -> Result<Exec, Fault> {
    let modifiers = Modifiers::new(context)?;
    let is_iu = name.contains("_iu");
    let signs = [modifiers.neg(0)[0], modifiers.neg(1)[0]];
    let op = integers(name, signs).ok_or_else(|| context.unknown())?;
    let [_, operands @ ..] = context.asm.operands.as_slice() else { return Err(context.unknown()) };
    let mut inputs = Vec::new();
    for (index, operand) in operands.iter().enumerate() {
        let source = plain_source(context, operand, Kind::B32)?;
        let neg = modifiers.neg(index);
        let [low, high] = modifiers.halves(index);
        let is_sign = is_iu && index < 2 && !neg[1];
        // What the high result would read means nothing for an operand of 32 bits: AMD wants zero
        // there, LLVM writes one.
        let chooses = if index < 2 { (low, high) != (false, true) } else { low };
        if (neg != [false; 2] && !is_sign) || (chooses && index == 2) {
            return Err(context.unknown());
        }
        let input = if index < 2 && matches!(source, Source::Row(_) | Source::Scalar(_)) {
            Input::new(source, Read::Words).select([low, high], [false; 2])
        } else if chooses {
            return Err(context.unknown());
        } else {
            Input::new(source, Read::Bits)
        };
        inputs.push(input);
    }
    if inputs.len() != 3 {
        return Err(context.unknown());
    }
    // RDNA 4 ignores the clamp of its dot products of bytes.
    let ignored = context.chip == Chip::Gfx1201 && name.starts_with("dot4");
    let core = match (modifiers.clamp && !ignored, op.saturated) {
        (true, Some(core)) => core,
        _ => op.core,
    };
    finish(context, core, inputs, Finish::Integer, false)
}

fn finish(
    context: &Context<'_>,
    core: Core,
    inputs: Vec<Input>,
    finish: Finish,
    clamp: bool,
) -> Result<Exec, Fault> {
    let Core::Map(map) = core else { return Err(context.unknown()) };
    let destination = packed::destination(context, 1)?;
    let dpp = packed::lanes(context)?;
    let chip = context.chip;
    Ok(Packed { map, inputs, destination, finish, clamp, chip, dpp }.into_exec())
}

/// A single as third operand: neg_lo negates it.
fn single(context: &Context<'_>, modifiers: &Modifiers, with_abs: bool) -> Result<Input, Fault> {
    let operand = context.asm.operands.get(3).ok_or_else(|| context.unknown())?;
    let source = plain_source(context, operand, Kind::F32)?;
    let [neg, abs] = modifiers.neg(2);
    if context.asm.operands.len() != 4 || (abs && !with_abs) || modifiers.op_sel(2) {
        return Err(context.unknown());
    }
    Ok(Input::new(source, Read::Single).with_sign(abs, neg))
}

/// Whether the result is clamped: RDNA ignores that in dot products of floating-point numbers.
fn clamps(context: &Context<'_>, modifiers: &Modifiers) -> bool {
    modifiers.clamp && context.chip.is_cdna()
}

/// A dot product of halves or bfloat16 with a single.
fn halves(context: &Context<'_>, op: Op, brain: bool) -> Result<Exec, Fault> {
    let modifiers = Modifiers::new(context)?;
    let mut inputs = Vec::new();
    for index in 0..2 {
        let operand = context.asm.operands.get(1 + index).ok_or_else(|| context.unknown())?;
        let source = plain_source(context, operand, Kind::F32)?;
        let mut select = modifiers.halves(index);
        if let (Source::Constant(_), Value::Float(_)) = (source, &operand.value) {
            // RDNA has the constant as a single; for bfloat16 its upper half counts twice.
            if context.chip.is_cdna() {
                return Err(context.unknown());
            }
            if brain {
                select = [true, true];
            }
        }
        let read = if brain || context.chip.is_cdna() { Read::Words } else { Read::Halves };
        inputs.push(Input::new(source, read).select(select, modifiers.neg(index)));
    }
    inputs.push(single(context, &modifiers, false)?);
    let clamp = clamps(context, &modifiers);
    let flushes = brain || context.chip.is_cdna();
    let kind = if flushes { Finish::Flushed } else { Finish::Single };
    finish(context, op.core, inputs, kind, clamp)
}

fn dot4_op<const A: bool, const B: bool>() -> Op {
    const fn format(brain: bool) -> Fp8 {
        if brain { Fp8::E5m2 } else { Fp8::E4m3 }
    }
    real3(
        |a: u32, b: u32, c: f32| dot4_float(a, b, c, (format(A), format(B)), f32::mul_add),
        |_, a: u32, b: u32, c: f32| dot4_float(a, b, c, (format(A), format(B)), nearest),
    )
}

/// A dot product of 8-bit floats.
fn small_floats(context: &Context<'_>, op: Op) -> Result<Exec, Fault> {
    let modifiers = Modifiers::new(context)?;
    let mut inputs = Vec::new();
    for index in 0..2 {
        let operand = context.asm.operands.get(1 + index).ok_or_else(|| context.unknown())?;
        let source = plain_source(context, operand, Kind::B32)?;
        let is_plain = modifiers.halves(index) == [false, true];
        if !is_plain || modifiers.neg(index) != [false; 2] || modifiers.clamp {
            return Err(context.unknown());
        }
        inputs.push(Input::new(source, Read::Bits));
    }
    inputs.push(single(context, &modifiers, true)?);
    finish(context, op.core, inputs, Finish::Single, false)
}

/// A dot product of halves in halves.
fn dot2_f16() -> Op {
    real3(
        |a: Two, b: Two, c: F16| {
            let sum = fma_f16(F16(a.low()), F16(b.low()), c);
            fma_f16(F16(a.high()), F16(b.high()), sum)
        },
        |_, a: Two, b: Two, c: F16| {
            let sum = arith::fma_env(Env::NEAREST, F16(a.low()), F16(b.low()), c);
            arith::fma_env(Env::NEAREST, F16(a.high()), F16(b.high()), sum)
        },
    )
}

/// A dot product of bfloat16 in bfloat16, without denormals.
fn dot2_bf16() -> Op {
    const ENV: Env = Env { keeps_inputs: false, keeps_outputs: false, ..Env::NEAREST };
    map3(|a: Two, b: Two, c: Bf16| {
        let sum = arith::fma_env(ENV, Bf16(a.low()), Bf16(b.low()), c);
        arith::fma_env(ENV, Bf16(a.high()), Bf16(b.high()), sum)
    })
}

/// Forms whose third operand and result are halves of registers.
fn short(context: &Context<'_>, op: Op, kind: Kind) -> Result<Exec, Fault> {
    let modifiers = Modifiers::new(context)?;
    let [result, a, b, c] = context.asm.operands.as_slice() else { return Err(context.unknown()) };
    if modifiers.clamp {
        return Err(context.unknown());
    }
    let mut inputs = Vec::new();
    for operand in [a, b] {
        let bare = Operand { neg: false, abs: false, ..operand.clone() };
        let source = plain_source(context, &bare, kind)?;
        let is_constant = matches!(operand.value, Value::Float(_) | Value::Integer(_));
        let neg = [operand.neg; 2];
        if operand.abs {
            return Err(context.unknown());
        }
        // A constant counts for both halves.
        let select = [false, !is_constant];
        inputs.push(Input::new(source, Read::Words).select(select, neg));
    }
    let bare = Operand { neg: false, abs: false, high: false, ..c.clone() };
    let source = plain_source(context, &bare, kind)?;
    if c.abs {
        return Err(context.unknown());
    }
    let high = c.high || modifiers.op_sel(2);
    inputs.push(Input::new(source, Read::Words).select([high, true], [c.neg, false]));
    let high = result.high || modifiers.op_sel(3);
    let place = if high { Finish::High } else { Finish::Low };
    finish(context, op.core, inputs, place, false)
}

/// Types that the compiler must know to be of one register.
const _: () = assert!(<Two as Lane>::KIND.rows() == 1);

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;

    fn run(chip: Chip, text: &str, rows: &[u32]) -> u32 {
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let mut bench = Bench::new(chip, lanes);
        for (row, value) in rows.iter().enumerate() {
            bench.set(row, |_| *value);
        }
        bench.run(text);
        bench.lane(0, 9)
    }

    const ALL: [Chip; 6] = Chip::ALL;

    #[test]
    fn bytes_and_nibbles_have_signs() {
        let rows = [10, 0xff02_80fd, 0x0304_7f81, 100];
        // -1 2 -128 -3 by 3 4 127 -127, and the same without signs.
        let signed = -3 + 8 - 16256 + 381;
        let unsigned = 255 * 3 + 2 * 4 + 128 * 127 + 253 * 129;
        let mixed = -3 + 8 - 16256 - 3 * 129;
        for chip in ALL {
            let text = "v_dot4_u32_u8 v0, v1, v2, v3";
            assert_eq!(run(chip, text, &rows), unsigned + 100, "{chip}");
            if chip.is_cdna() {
                let text = "v_dot4_i32_i8 v0, v1, v2, v3";
                assert_eq!(run(chip, text, &rows) as i32, signed + 100, "{chip}");
                let text = "v_dot4c_i32_i8_e32 v0, v1, v2";
                assert_eq!(run(chip, text, &rows) as i32, signed + 10, "{chip}");
                let text = "v_dot4_i32_i8 v0, v1, v2, 5";
                assert_eq!(run(chip, text, &rows) as i32, signed + 5, "{chip}");
            } else {
                let text = "v_dot4_i32_iu8 v0, v1, v2, v3 neg_lo:[1,1,0]";
                assert_eq!(run(chip, text, &rows) as i32, signed + 100, "{chip}");
                let text = "v_dot4_i32_iu8 v0, v1, v2, v3 neg_lo:[1,0,0]";
                assert_eq!(run(chip, text, &rows) as i32, mixed + 100, "{chip}");
                let text = "v_dot4_i32_iu8 v0, v1, v2, v3";
                assert_eq!(run(chip, text, &rows), unsigned + 100, "{chip}");
            }
        }
        let rows = [7, 0x8421_f731, 0x1111_2f83, 1];
        // -8 4 2 1 -1 7 3 1 by 1 1 1 1 2 -1 -8 3.
        assert_eq!(
            run(Chip::Gfx90a, "v_dot8_i32_i4 v0, v1, v2, v3", &rows) as i32,
            -8 + 4 + 2 + 1 - 2 - 7 - 24 + 3 + 1
        );
        assert_eq!(run(Chip::Gfx90a, "v_dot8c_i32_i4_e32 v0, v1, v2", &rows) as i32, -31 + 7);
        assert_eq!(
            run(Chip::Gfx1100, "v_dot8_i32_iu4 v0, v1, v2, v3 neg_lo:[1,1,0]", &rows) as i32,
            -31 + 1
        );
        let unsigned = 8 + 4 + 2 + 1 + 15 * 2 + 7 * 15 + 3 * 8 + 3;
        assert_eq!(run(Chip::Gfx1100, "v_dot8_u32_u4 v0, v1, v2, v3", &rows), unsigned + 1);
    }

    #[test]
    fn sums_saturate_if_asked() {
        let rows = [0, 0x7f7f_7f7f, 0x7f7f_7f7f, 0x7fff_ffff];
        assert_eq!(run(Chip::Gfx942, "v_dot4_i32_i8 v0, v1, v2, v3 clamp", &rows), 0x7fff_ffff);
        assert_eq!(run(Chip::Gfx942, "v_dot4_i32_i8 v0, v1, v2, v3", &rows), 0x8000_fc03);
        assert_eq!(run(Chip::Gfx942, "v_dot4_u32_u8 v0, v1, v2, -1 clamp", &rows), u32::MAX);
        let rows = [0, 0x8000_8000, 0x8000_8000, 0x7fff_ffff];
        assert_eq!(run(Chip::Gfx90a, "v_dot2_i32_i16 v0, v1, v2, v3 clamp", &rows), 0x7fff_ffff);
        assert_eq!(run(Chip::Gfx90a, "v_dot2_i32_i16 v0, v1, v2, 0", &rows), 0x8000_0000);
        assert_eq!(run(Chip::Gfx90a, "v_dot2_u32_u16 v0, v1, v2, 1", &rows), 0x8000_0001);
        assert_eq!(
            run(
                Chip::Gfx90a,
                "v_dot2_i32_i16 v0, v1, v2, 1 op_sel_hi:[0,1,1]",
                &[0, 3, 0x0005_0002]
            ),
            22
        );
    }

    #[test]
    fn halves_are_summed_in_singles() {
        let f = f32::to_bits;
        // 1 and 2 by -2 and 3, plus 0.25.
        let rows = [f(1.0), 0x4000_3c00, 0x4200_c000, f(0.25)];
        for chip in ALL {
            for (text, result) in [
                ("v_dot2_f32_f16 v0, v1, v2, v3", 4.25),
                ("v_dot2_f32_f16 v0, v1, v2, -4.0", 0.0),
                ("v_dot2_f32_f16 v0, v1, v2, v3 neg_lo:[0,1,1]", 7.75),
                ("v_dot2_f32_f16 v0, v1, v2, v3 neg_hi:[1,0,0]", -7.75),
                ("v_dot2_f32_f16 v0, v1, v2, v3 op_sel:[1,0,0] op_sel_hi:[0,1,1]", -0.75),
            ] {
                assert_eq!(f32::from_bits(run(chip, text, &rows)), result, "{chip} {text}");
            }
        }
        assert_eq!(run(Chip::Gfx942, "v_dot2c_f32_f16_e32 v0, v1, v2", &rows), f(5.0));
        assert_eq!(run(Chip::Gfx942, "v_dot2_f32_f16 v0, v1, v2, v3 clamp", &rows), f(1.0));
        assert_eq!(run(Chip::Gfx1100, "v_dot2acc_f32_f16 v0, v1, v2", &rows), f(5.0));
        // bfloat16: 1 and 2 by -2 and 3.
        let rows = [f(1.0), 0x4000_3f80, 0x4040_c000, f(0.25)];
        for chip in [Chip::Gfx950, Chip::Gfx1100, Chip::Gfx1151, Chip::Gfx1201] {
            assert_eq!(run(chip, "v_dot2_f32_bf16 v0, v1, v2, v3", &rows), f(4.25), "{chip}");
        }
        assert_eq!(run(Chip::Gfx1100, "v_dot2_f32_bf16 v0, v1, 1.0, v3", &rows), f(3.25));
        assert_eq!(run(Chip::Gfx950, "v_dot2c_f32_bf16_e32 v0, v1, v2", &rows), f(5.0));
    }

    #[test]
    fn short_sums_are_halves() {
        let rows = [0xdead_beef, 0x4000_3c00, 0x4200_c000, 0x3400_3c00];
        for chip in [Chip::Gfx1100, Chip::Gfx1201] {
            let text = "v_dot2_f16_f16 v0.l, v1, v2, v3.l";
            assert_eq!(run(chip, text, &rows), 0xdead_4500);
            let text = "v_dot2_f16_f16 v0.h, -v1, v2, v3.h op_sel:[0,0,1,1]";
            assert_eq!(run(chip, text, &rows), 0xc380_beef);
            let text = "v_dot2_f16_f16 v0, v1, 1.0, v3 op_sel:[0,0,0,1]";
            assert_eq!(run(chip, text, &rows), 0x4400_beef);
        }
        let rows = [0xdead_beef, 0x4000_3f80, 0x4040_c000, 0x3e80_3f80];
        assert_eq!(
            run(Chip::Gfx1100, "v_dot2_bf16_bf16 v0.l, v1, v2, v3.h op_sel:[0,0,1,0]", &rows),
            0xdead_4088
        );
        assert_eq!(run(Chip::Gfx1100, "v_dot2_bf16_bf16 v0.l, v1, 1.0, 2.0", &rows), 0xdead_40a0);
    }

    #[test]
    fn small_floats_are_summed_in_singles() {
        let f = f32::to_bits;
        // e4m3 1, 2, -1, 0.5; e5m2 1, 2, -1, 0.5.
        let rows = [0, 0x30b8_4038, 0x38bc_403c, f(0.25)];
        let run = |text: &str| f32::from_bits(run(Chip::Gfx1201, text, &rows));
        assert_eq!(run("v_dot4_f32_fp8_bf8 v0, v1, v2, v3"), 1.0 + 4.0 + 1.0 + 0.25 + 0.25);
        assert_eq!(run("v_dot4_f32_fp8_fp8 v0, v1, v1, 1.0 neg_lo:[0,0,1]"), 6.25 - 1.0);
        assert_eq!(run("v_dot4_f32_bf8_bf8 v0, v2, v2, v3"), 6.5);
        assert_eq!(run("v_dot4_f32_bf8_fp8 v0, v2, v1, v3"), 6.5);
    }

    /// One rounding for each sum: the small product is lost against the large one, not before.
    #[test]
    fn sums_round_one_after_the_other() {
        let f = f32::to_bits;
        let rows = [0, 0x3c00_3c00, 0x3c00_0400, f(16_777_216.0)];
        // 2^24 + 2^-14 is 2^24; plus 1 is a tie to the even 2^24.
        assert_eq!(run(Chip::Gfx942, "v_dot2_f32_f16 v0, v1, v2, v3", &rows), f(16_777_216.0));
        let rows = [0, 0x3c00_3c00, 0x3c00_4000, f(16_777_216.0)];
        assert_eq!(run(Chip::Gfx942, "v_dot2_f32_f16 v0, v1, v2, v3", &rows), f(16_777_220.0));
    }
}
