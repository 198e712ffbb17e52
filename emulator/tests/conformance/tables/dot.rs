//! Dot products and mixed precision.

use waveloom_emulator::Chip;

use super::op;
use crate::exact::{BF16, E4M3, E5M2, F16, F32, Format, Num, Round, add, mul};
use crate::values::T::{self, B32, PkB16, PkBf16, PkF16};
use crate::vector::{ACC, ANY_ZERO, Lane, MIX, NO_CONSTANT, OWN_CLAMP, Op, SIGNS, check};

/// Elements of `width` bits, sign-extended or not.
fn elements(bits: u64, width: u32, signed: bool) -> Vec<i128> {
    let one = |index: u32| {
        let part = bits >> (index * width) & ((1 << width) - 1);
        let negative = signed && part >> (width - 1) & 1 == 1;
        i128::from(part) - if negative { 1 << width } else { 0 }
    };
    (0..32 / width).map(one).collect()
}

fn integer_dot(
    l: &mut Lane,
    s: &[u64; 4],
    c: u64,
    width: u32,
    signs: [bool; 2],
    signed: bool,
) -> u64 {
    let (a, b) = (elements(s[0], width, signs[0]), elements(s[1], width, signs[1]));
    let sum: i128 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    let c = if signed { i128::from(c as u32 as i32) } else { i128::from(c) };
    let (low, high) =
        if signed { (-(1 << 31), (1 << 31) - 1) } else { (0_i128, (1_i128 << 32) - 1) };
    let wrapped = (sum + c) & 0xffff_ffff;
    if !l.clamp {
        return wrapped as u64;
    }
    if l.chip == Chip::Gfx1201 && width == 8 {
        // RDNA 4 was seen to ignore clamp here.
        l.also.push(wrapped as u64);
    }
    ((sum + c).clamp(low, high) & 0xffff_ffff) as u64
}

/// A sum of products, rounded once; step by step, in either order, will do as well, with denormals
/// kept or flushed: the units' internal precision is not documented.
fn float_dot(l: &mut Lane, from: [Format; 2], to: Format, s: &[u64; 4], c: u64) -> u64 {
    let width = from[0].bits();
    let mut results = Vec::new();
    let mask = (1 << width) - 1;
    let products = |keep: bool| -> Vec<Num> {
        let part = |bits: u64, index: u32, format: Format| {
            let bits = bits >> (index * width) & mask;
            let flush = !keep && format.is_denormal(bits);
            format.value(if flush { bits & format.sign() } else { bits })
        };
        (0..32 / width)
            .map(|index| mul(part(s[0], index, from[0]), part(s[1], index, from[1])))
            .collect()
    };
    for keep in [true, false] {
        let products = products(keep);
        let flush_in = |bits: u64| {
            if to.is_denormal(bits) && !keep { bits & to.sign() } else { bits }
        };
        let addend = to.value(flush_in(c));
        let out = |value: Num, round: Round| {
            let bits = to.round(value, round);
            if to.is_denormal(bits) && !keep { bits & to.sign() } else { bits }
        };
        for round in [Round::Even, l.round(to), Round::Zero] {
            let step = |start: Num, list: &mut dyn Iterator<Item = &Num>, product: bool| {
                list.fold(start, |sum, p| {
                    let p = if product { to.value(out(*p, round)) } else { *p };
                    to.value(out(add(sum, p, round), round))
                })
            };
            for product in [false, true] {
                results.push(out(step(addend, &mut products.iter(), product), round));
                results.push(out(step(addend, &mut products.iter().rev(), product), round));
                let zero = Num::Val { negative: true, mantissa: 0, exponent: 0 };
                let sum = step(zero, &mut products.iter(), product);
                results.push(out(add(sum, addend, round), round));
            }
            let exact = products.iter().fold(addend, |sum, p| add(sum, *p, round));
            results.push(out(exact, round));
        }
    }
    let first = results[results.len() / 2 - 1];
    // RDNA ignores clamp in dot products of floating-point numbers.
    if l.clamp && l.chip.is_cdna() {
        l.also = results.iter().map(|bits| clamped(l, to, *bits)).collect();
        return clamped(l, to, first);
    }
    l.also = results;
    first
}

/// A number cut to [0, 1]; a NaN is zero if the mode says so.
fn clamped(l: &Lane, format: Format, bits: u64) -> u64 {
    let dx10 = l.mode >> 8 & 1 == 1 || l.chip == Chip::Gfx1201;
    let one = (format.bias as u64) << format.fraction;
    match bits {
        _ if format.is_nan(bits) => {
            if dx10 {
                0
            } else {
                bits
            }
        }
        _ if bits & format.sign() != 0 => 0,
        _ => bits.min(one),
    }
}

/// A source of mixed precision: half or single, with its own sign bits.
fn mixed(l: &Lane, s: &[u64; 4], index: usize) -> Num {
    let (format, mut bits) = match (l.sel_hi[index], l.sel[index]) {
        (false, _) => (F32, s[index]),
        (true, false) => (F16, s[index] & 0xffff),
        (true, true) => (F16, s[index] >> 16 & 0xffff),
    };
    if l.neg_hi[index] {
        bits &= !format.sign();
    }
    if l.neg[index] {
        bits ^= format.sign();
    }
    l.num(format, bits)
}

fn mix(l: &Lane, s: &[u64; 4]) -> Num {
    let product = mul(mixed(l, s, 0), mixed(l, s, 1));
    add(product, mixed(l, s, 2), l.round(F32))
}

fn mix_half(l: &mut Lane, s: &[u64; 4]) -> u64 {
    let sum = mix(l, s);
    let single = F32.value(l.result(F32, sum));
    // Through single precision, or rounded once.
    l.also.push(l.result(F16, sum));
    l.result(F16, single)
}

/// Clamp of a half before it is merged.
fn clamp_half(l: &Lane, bits: u64) -> u64 {
    if l.clamp { clamped(l, F16, bits) } else { bits }
}

fn merge_half(l: &mut Lane, s: &[u64; 4], shift: u32) -> u64 {
    let result = mix_half(l, s);
    let old = l.old & !(0xffff << shift) & 0xffff_ffff;
    let place = |l: &Lane, bits: u64| old | clamp_half(l, bits) << shift;
    l.also = l.also.iter().map(|bits| place(l, *bits)).collect();
    place(l, result)
}

/// The table.
pub fn table() -> Vec<Op> {
    const S: T = T::F32;
    /// The order of sums leaves the sign of a zero open, no document the rest.
    const FLOAT: u32 = ANY_ZERO | OWN_CLAMP | NO_CONSTANT;
    const P: &[T] = &[PkF16, PkF16, S];
    const B: &[T] = &[PkBf16, PkBf16, S];
    const I: &[T] = &[B32, B32, B32];
    const J: &[T] = &[PkB16, PkB16, B32];
    vec![
        op("v_dot2_f32_f16", S, P, FLOAT, |l, s| float_dot(l, [F16, F16], F32, s, s[2])),
        op("v_dot2_f32_bf16", S, B, FLOAT, |l, s| float_dot(l, [BF16, BF16], F32, s, s[2])),
        op("v_dot2c_f32_f16", S, &[PkF16, PkF16], ACC | FLOAT, |l, s| {
            float_dot(l, [F16, F16], F32, s, l.old)
        }),
        op("v_dot2acc_f32_f16", S, &[PkF16, PkF16], ACC | FLOAT, |l, s| {
            float_dot(l, [F16, F16], F32, s, l.old)
        }),
        op("v_dot2c_f32_bf16", S, &[PkBf16, PkBf16], ACC | FLOAT, |l, s| {
            float_dot(l, [BF16, BF16], F32, s, l.old)
        }),
        op("v_dot2_f16_f16", T::F16, &[PkF16, PkF16, T::F16], FLOAT, |l, s| {
            float_dot(l, [F16, F16], F16, s, s[2])
        }),
        op("v_dot2_bf16_bf16", T::Bf16, &[PkBf16, PkBf16, T::Bf16], FLOAT, |l, s| {
            float_dot(l, [BF16, BF16], BF16, s, s[2])
        }),
        op("v_dot4_f32_fp8_fp8", S, &[B32, B32, S], FLOAT, |l, s| {
            float_dot(l, [E4M3, E4M3], F32, s, s[2])
        }),
        op("v_dot4_f32_fp8_bf8", S, &[B32, B32, S], FLOAT, |l, s| {
            float_dot(l, [E4M3, E5M2], F32, s, s[2])
        }),
        op("v_dot4_f32_bf8_fp8", S, &[B32, B32, S], FLOAT, |l, s| {
            float_dot(l, [E5M2, E4M3], F32, s, s[2])
        }),
        op("v_dot4_f32_bf8_bf8", S, &[B32, B32, S], FLOAT, |l, s| {
            float_dot(l, [E5M2, E5M2], F32, s, s[2])
        }),
        op("v_dot2_i32_i16", B32, J, OWN_CLAMP, |l, s| {
            integer_dot(l, s, s[2], 16, [true, true], true)
        }),
        op("v_dot2_u32_u16", B32, J, OWN_CLAMP, |l, s| {
            integer_dot(l, s, s[2], 16, [false, false], false)
        }),
        // On RDNA a name of the iu form without its sign bits: the factors are unsigned.
        op("v_dot4_i32_i8", B32, I, OWN_CLAMP, |l, s| {
            integer_dot(l, s, s[2], 8, [l.chip.is_cdna(); 2], true)
        }),
        op("v_dot4_u32_u8", B32, I, OWN_CLAMP, |l, s| {
            integer_dot(l, s, s[2], 8, [false, false], false)
        }),
        op("v_dot8_i32_i4", B32, I, OWN_CLAMP, |l, s| {
            integer_dot(l, s, s[2], 4, [l.chip.is_cdna(); 2], true)
        }),
        op("v_dot8_u32_u4", B32, I, OWN_CLAMP, |l, s| {
            integer_dot(l, s, s[2], 4, [false, false], false)
        }),
        op("v_dot4_i32_iu8", B32, I, OWN_CLAMP | SIGNS, |l, s| {
            integer_dot(l, s, s[2], 8, [l.neg[0], l.neg[1]], true)
        }),
        op("v_dot8_i32_iu4", B32, I, OWN_CLAMP | SIGNS, |l, s| {
            integer_dot(l, s, s[2], 4, [l.neg[0], l.neg[1]], true)
        }),
        op("v_dot2c_i32_i16", B32, &[PkB16, PkB16], ACC | OWN_CLAMP, |l, s| {
            integer_dot(l, s, l.old, 16, [true, true], true)
        }),
        op("v_dot4c_i32_i8", B32, &[B32, B32], ACC | OWN_CLAMP, |l, s| {
            integer_dot(l, s, l.old, 8, [true, true], true)
        }),
        op("v_dot8c_i32_i4", B32, &[B32, B32], ACC | OWN_CLAMP, |l, s| {
            integer_dot(l, s, l.old, 4, [true, true], true)
        }),
        op("v_fma_mix_f32", S, &[B32, B32, B32], MIX, |l, s| {
            let sum = mix(l, s);
            l.result(F32, sum)
        }),
        op("v_fma_mixlo_f16", PkF16, &[B32, B32, B32], MIX | ACC | OWN_CLAMP, |l, s| {
            merge_half(l, s, 0)
        }),
        op("v_fma_mixhi_f16", PkF16, &[B32, B32, B32], MIX | ACC | OWN_CLAMP, |l, s| {
            merge_half(l, s, 16)
        }),
    ]
}

#[test]
fn dot_products() {
    check(&table(), 500);
}
