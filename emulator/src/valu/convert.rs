//! Conversions between number formats. Those with a scale are in `scale`.

use super::op::{Bf16, F16, Mode, Op, map1, map2, mode1, mode2, mode3};
use super::operation;
use super::real::real1;
use crate::Chip;
use crate::arith;
use crate::number::{
    Fp8, Round, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_bf16_stochastic, f32_to_f16,
    f32_to_f16_round, f32_to_f16_stochastic, quiet_f32,
};
use crate::program::{Compiled, Context};

/// Two 16-bit values in one register.
#[inline(always)]
fn pack(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

/// Two 32-bit values in two registers.
#[inline(always)]
fn pair(low: f32, high: f32) -> u64 {
    u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32
}

fn to_float(name: &str) -> Option<Op> {
    Some(match name {
        "f32_i32" => real1(|a: i32| a as f32, |m, a| arith::from_integer(m, i64::from(a))),
        "f32_u32" => real1(|a: u32| a as f32, |m, a| arith::from_integer(m, i64::from(a))),
        "f64_i32" => map1(|a: i32| f64::from(a)),
        "f64_u32" => map1(|a: u32| f64::from(a)),
        "f16_i16" => real1(
            |a: i16| F16(f32_to_f16(f32::from(a))),
            |m, a| arith::from_integer(m, i64::from(a)),
        ),
        "f16_u16" => real1(
            |a: u16| F16(f32_to_f16(f32::from(a))),
            |m, a| arith::from_integer(m, i64::from(a)),
        ),
        "f32_ubyte0" => map1(|a: u32| (a & 0xff) as f32),
        "f32_ubyte1" => map1(|a: u32| (a >> 8 & 0xff) as f32),
        "f32_ubyte2" => map1(|a: u32| (a >> 16 & 0xff) as f32),
        "f32_ubyte3" => map1(|a: u32| (a >> 24) as f32),
        "off_f32_i4" => map1(|a: u32| ((a << 28) as i32 >> 28) as f32 * 0.0625),
        "f16_f32" => real1(|a: f32| F16(f32_to_f16(a)), arith::convert::<f32, F16>),
        "f32_f16" => real1(|a: F16| f16_to_f32(a.0), arith::convert::<F16, f32>),
        "f32_f64" => real1(|a: f64| a as f32, arith::convert::<f64, f32>),
        "f64_f32" => real1(|a: f32| f64::from(a), arith::convert::<f32, f64>),
        "f32_bf16" => map1(|a: Bf16| quiet_f32(bf16_to_f32(a.0))),
        _ => return None,
    })
}

/// The integer in [-32767, 32767] nearest to a number in [-1, 1] times 32767.
#[inline(always)]
fn to_snorm(round: u32, x: f32) -> u16 {
    let x = if x.is_nan() { 0.0 } else { x.clamp(-1.0, 1.0) };
    round_integer(round, f64::from(x) * 32767.0) as i32 as u16
}

/// The integer in [0, 65535] nearest to a number in [0, 1] times 65535.
#[inline(always)]
fn to_unorm(round: u32, x: f32) -> u16 {
    let x = if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) };
    round_integer(round, f64::from(x) * 65535.0) as i32 as u16
}

/// Rounds to an integer as a field of the mode register says.
#[inline(always)]
fn round_integer(round: u32, x: f64) -> f64 {
    match round & 3 {
        0 => x.round_ties_even(),
        1 => x.ceil(),
        2 => x.floor(),
        _ => x.trunc(),
    }
}

/// Rounding of f32, and of f16 and f64.
#[inline(always)]
fn rounds(mode: Mode) -> (u32, u32) {
    (mode.0 & 3, mode.0 >> 2 & 3)
}

/// Rust's conversions to integers do as the documents want: they cut off the fraction, saturate,
/// and give zero for a NaN.
fn to_integer(name: &str) -> Option<Op> {
    Some(match name {
        "i32_f32" => map1(|a: f32| a as i32),
        "u32_f32" => map1(|a: f32| a as u32),
        "i32_f64" => map1(|a: f64| a as i32),
        "u32_f64" => map1(|a: f64| a as u32),
        "i16_f16" => map1(|a: F16| f16_to_f32(a.0) as i16),
        "u16_f16" => map1(|a: F16| f16_to_f32(a.0) as u16),
        "i32_i16" => map1(|a: i16| i32::from(a)),
        "u32_u16" => map1(|a: u16| u32::from(a)),
        // The sum is exact in f64, as an accuracy of half a unit wants it.
        "rpi_i32_f32" | "nearest_i32_f32" => map1(|a: f32| (f64::from(a) + 0.5).floor() as i32),
        "flr_i32_f32" | "floor_i32_f32" => map1(|a: f32| a.floor() as i32),
        "norm_i16_f16" => mode1(|m: Mode, a: F16| to_snorm(rounds(m).1, f16_to_f32(a.0))),
        "norm_u16_f16" => mode1(|m: Mode, a: F16| to_unorm(rounds(m).1, f16_to_f32(a.0))),
        _ => return None,
    })
}

/// A number as an unsigned byte, in byte `select` of another register. AMD's text has no rounding; a
/// gfx90c was seen to round to nearest in the default mode, so the mode decides.
#[inline(always)]
fn put_byte(mode: Mode, x: f32, select: u32, old: u32) -> u32 {
    let shift = select % 4 * 8;
    let byte = round_integer(rounds(mode).0, f64::from(x)) as u8;
    old & !(0xff << shift) | u32::from(byte) << shift
}

fn packed(name: &str) -> Option<Op> {
    let name = name.strip_prefix("pk")?;
    Some(match name.strip_prefix('_').unwrap_or(name) {
        "rtz_f16_f32" => map2(|a: f32, b: f32| {
            let cut = |x| f32_to_f16_round(x, Round::TowardZero);
            pack(cut(a), cut(b))
        })
        .giving_halves(),
        "norm_i16_f32" => mode2(|m: Mode, a: f32, b: f32| {
            pack(to_snorm(rounds(m).0, a), to_snorm(rounds(m).0, b))
        }),
        "norm_u16_f32" => mode2(|m: Mode, a: f32, b: f32| {
            pack(to_unorm(rounds(m).0, a), to_unorm(rounds(m).0, b))
        }),
        "norm_i16_f16" => mode2(|m: Mode, a: F16, b: F16| {
            let convert = |x: F16| to_snorm(rounds(m).1, f16_to_f32(x.0));
            pack(convert(a), convert(b))
        }),
        "norm_u16_f16" => mode2(|m: Mode, a: F16, b: F16| {
            let convert = |x: F16| to_unorm(rounds(m).1, f16_to_f32(x.0));
            pack(convert(a), convert(b))
        }),
        "u8_f32" => mode3(|m: Mode, x: f32, byte: u32, old: u32| put_byte(m, x, byte, old)),
        "accum_u8_f32" => {
            mode3(|m: Mode, x: f32, byte: u32, old: u32| put_byte(m, x, byte, old)).accumulate()
        }
        "i16_i32" => map2(|a: i32, b: i32| {
            let limit = |x: i32| x.clamp(-0x8000, 0x7fff) as u16;
            pack(limit(a), limit(b))
        }),
        "u16_u32" => map2(|a: u32, b: u32| pack(a.min(0xffff) as u16, b.min(0xffff) as u16)),
        "i16_f32" => map2(|a: f32, b: f32| pack(a as i16 as u16, b as i16 as u16)),
        "u16_f32" => map2(|a: f32, b: f32| pack(a as u16, b as u16)),
        "f16_f32" => mode2(|m: Mode, a: f32, b: f32| {
            let convert = |x| {
                let half = f32_to_f16(x);
                let overflows = m.fp16_ovfl() & (half & 0x7fff == 0x7c00) & x.is_finite();
                if overflows { half - 1 } else { half }
            };
            pack(convert(a), convert(b))
        })
        .giving_halves(),
        "bf16_f32" => map2(|a: f32, b: f32| pack(f32_to_bf16(a), f32_to_bf16(b))),
        _ => return None,
    })
}

const FNUZ: bool = true;
const OCP: bool = false;

/// The 8-bit format of 4 exponent bits, or of 5 if `BRAIN`.
#[inline(always)]
const fn format<const FORM: bool, const BRAIN: bool>() -> Fp8 {
    match (FORM, BRAIN) {
        (FNUZ, false) => Fp8::E4m3Fnuz,
        (FNUZ, true) => Fp8::E5m2Fnuz,
        (OCP, false) => Fp8::E4m3,
        (OCP, true) => Fp8::E5m2,
    }
}

/// Conversions from and to 8-bit floats that do not choose a byte of the destination.
fn bytes<const FORM: bool, const BRAIN: bool>(name: &str) -> Option<Op> {
    Some(match name {
        // RDNA 4 chooses the byte with a modifier, CDNA with SDWA.
        "f32" => {
            map2(|a: u32, byte: u32| format::<FORM, BRAIN>().to_f32((a >> (byte % 4 * 8)) as u8))
                .immediate("byte_sel")
        }
        "pk_f32" => map1(|a: u16| {
            let convert = |byte| format::<FORM, BRAIN>().to_f32(byte);
            pair(convert(a as u8), convert((a >> 8) as u8))
        }),
        "pk" => mode2(|m: Mode, a: f32, b: f32| {
            let convert = |x| u16::from(format::<FORM, BRAIN>().from_f32(x, m.fp16_ovfl()));
            convert(a) | convert(b) << 8
        }),
        _ => return None,
    })
}

/// A random rounding to an 8-bit float, into a byte of the destination's old value.
fn stochastic<const FORM: bool, const BRAIN: bool>(byte: u32) -> Op {
    #[inline(always)]
    fn put<const FORM: bool, const BRAIN: bool>(
        m: Mode,
        x: f32,
        seed: u32,
        old: u32,
        byte: u32,
    ) -> u32 {
        let new = format::<FORM, BRAIN>().from_f32_stochastic(x, seed, m.fp16_ovfl());
        let shift = byte * 8;
        old & !(0xff << shift) | u32::from(new) << shift
    }
    let op = match byte {
        0 => mode3(|m: Mode, a: f32, seed: u32, old: u32| put::<FORM, BRAIN>(m, a, seed, old, 0)),
        1 => mode3(|m: Mode, a: f32, seed: u32, old: u32| put::<FORM, BRAIN>(m, a, seed, old, 1)),
        2 => mode3(|m: Mode, a: f32, seed: u32, old: u32| put::<FORM, BRAIN>(m, a, seed, old, 2)),
        _ => mode3(|m: Mode, a: f32, seed: u32, old: u32| put::<FORM, BRAIN>(m, a, seed, old, 3)),
    };
    op.accumulate()
}

/// The operation of a mnemonic.
pub fn find(mnemonic: &str, chip: Chip) -> Option<Op> {
    if mnemonic == "v_pack_b32_f16" {
        return Some(map2(|low: F16, high: F16| pack(low.0, high.0)).keeping_denormals());
    }
    let name = mnemonic.strip_prefix("v_cvt_")?;
    let fnuz = chip.has_fnuz_fp8();
    let byte_form = match name {
        "f32_fp8" => Some(("f32", false)),
        "f32_bf8" => Some(("f32", true)),
        "pk_f32_fp8" => Some(("pk_f32", false)),
        "pk_f32_bf8" => Some(("pk_f32", true)),
        "pk_fp8_f32" => Some(("pk", false)),
        "pk_bf8_f32" => Some(("pk", true)),
        _ => None,
    };
    if let Some((name, brain)) = byte_form {
        return match (fnuz, brain) {
            (true, false) => bytes::<FNUZ, false>(name),
            (true, true) => bytes::<FNUZ, true>(name),
            (false, false) => bytes::<OCP, false>(name),
            (false, true) => bytes::<OCP, true>(name),
        };
    }
    match name {
        "sr_f16_f32" => Some(mode2(|m: Mode, a: f32, seed: u32| {
            F16(f32_to_f16_stochastic(a, seed, m.fp16_ovfl()))
        })),
        "sr_bf16_f32" => Some(map2(|a: f32, seed: u32| Bf16(f32_to_bf16_stochastic(a, seed)))),
        _ => to_float(name).or_else(|| to_integer(name)).or_else(|| packed(name)),
    }
}

/// Compiles conversions whose modifiers choose a byte of the destination.
pub fn compile(context: &Context<'_>) -> Compiled {
    let brain = match context.asm.mnemonic.as_str() {
        "v_cvt_sr_fp8_f32" => false,
        "v_cvt_sr_bf8_f32" => true,
        _ => return None,
    };
    let mut asm = context.asm.clone();
    let select = asm.list("op_sel").unwrap_or_default();
    let bit = |index: usize| select.get(index).copied().unwrap_or(0) & 1;
    let byte = asm.number("byte_sel").map_or(bit(2) | bit(3) << 1, |byte| byte as u32 & 3);
    if bit(0) | bit(1) != 0 {
        return Some(Err(context.unknown()));
    }
    asm.modifiers.retain(|modifier| !["op_sel", "byte_sel"].contains(&modifier.name.as_str()));
    let op = match (context.chip.has_fnuz_fp8(), brain) {
        (true, false) => stochastic::<FNUZ, false>(byte),
        (true, true) => stochastic::<FNUZ, true>(byte),
        (false, false) => stochastic::<OCP, false>(byte),
        (false, true) => stochastic::<OCP, true>(byte),
    };
    let context = Context { asm: &asm, ..*context };
    Some(operation::compile(&context, op))
}
