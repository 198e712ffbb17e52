//! The arithmetic of each chip against statements of it in integers.
//!
//! A number is a significand times a power of two; sums are exact in 128 bits or say that they
//! would not be. The statements follow the models of arXiv:2511.10909, not the code under test.

use super::encoding::width;
use super::*;

/// A finite number: `significand` × 2^`power`, and the exponent that the hardware sees.
#[derive(Debug, Clone, Copy)]
struct Number {
    significand: i128,
    power: i32,
    exponent: i32,
}

/// A number of one of the formats.
#[derive(Debug, Clone, Copy)]
enum Parsed {
    Finite(Number),
    Infinite(bool),
    Nan,
}

/// Takes bits apart: fraction bits, bias, and what the largest exponent means.
fn parse(of: Type, bits: u64) -> Parsed {
    let (fraction_bits, bias) = match of {
        Type::F16 => (10, 15),
        Type::Bf16 => (7, 127),
        Type::Fp8 => (3, 8),
        Type::Bf8 => (2, 16),
        _ => (23, 127),
    };
    let size = width(of, 0);
    let bits = if of == Type::Xf32 { bits >> 13 << 13 } else { bits };
    let negative = bits >> (size - 1) & 1 == 1;
    let exponent_bits = size - 1 - fraction_bits;
    let field = (bits >> fraction_bits & ((1 << exponent_bits) - 1)) as i32;
    let fraction = i128::from(bits & ((1 << fraction_bits) - 1));
    if size == 8 {
        // FNUZ: one NaN, in the place of negative zero, and no infinities.
        if bits == 0x80 {
            return Parsed::Nan;
        }
    } else if field == (1 << exponent_bits) - 1 {
        return if fraction == 0 { Parsed::Infinite(negative) } else { Parsed::Nan };
    }
    let hidden = if field == 0 { 0 } else { 1 << fraction_bits };
    let exponent = field.max(1) - bias;
    let significand = if negative { -(fraction + hidden) } else { fraction + hidden };
    Parsed::Finite(Number { significand, power: exponent - fraction_bits as i32, exponent })
}

/// `significand` × 2^`power` in units of 2^`unit`, toward zero or down.
fn in_units(significand: i128, power: i32, unit: i32, down: bool) -> i128 {
    let shift = power - unit;
    if significand == 0 {
        return 0;
    }
    if shift >= 0 {
        assert!(shift < 90, "fits");
        return significand << shift;
    }
    let magnitude = if -shift > 120 { 0 } else { significand.abs() >> -shift };
    let inexact = -shift > 120 && significand != 0
        || -shift <= 120 && magnitude << -shift != significand.abs();
    let toward_zero = magnitude * significand.signum();
    toward_zero - i128::from(down && inexact && significand < 0)
}

/// `total` × 2^`unit`, down to 31 bits after the leading one, then to the nearest single.
fn round(total: i128, unit: i32) -> u32 {
    if total == 0 {
        return 0;
    }
    let leading = 127 - total.unsigned_abs().leading_zeros() as i32 + unit;
    let fine = leading.max(-126) - 31;
    let kept = in_units(total, unit, fine, true);
    // At most 33 bits: exact as a double, whose scaling is exact, too.
    ((kept as f64 * 2_f64.powi(fine)) as f32).to_bits()
}

const NAN: u32 = 0x7fc0_0000;

/// What infinities and NaN make of a sum, or the finite factors.
fn specials(products: &[(Parsed, Parsed)], c: Parsed) -> Result<(Vec<[Number; 2]>, Number), u32> {
    let (mut positive, mut negative, mut finite) = (false, false, Vec::new());
    let mut see = |sign: bool| if sign { negative = true } else { positive = true };
    for product in products {
        match product {
            (Parsed::Nan, _) | (_, Parsed::Nan) => return Err(NAN),
            (Parsed::Infinite(a), Parsed::Infinite(b)) => see(a ^ b),
            (Parsed::Infinite(sign), Parsed::Finite(other))
            | (Parsed::Finite(other), Parsed::Infinite(sign)) => match other.significand {
                0 => return Err(NAN),
                significand => see(*sign ^ (significand < 0)),
            },
            (Parsed::Finite(a), Parsed::Finite(b)) => {
                let significand = a.significand * b.significand;
                let bits = 128 - significand.unsigned_abs().leading_zeros() as i32;
                if significand != 0 && bits + a.power + b.power > 128 {
                    see(significand < 0);
                }
                finite.push([*a, *b]);
            }
        }
    }
    let c = match c {
        Parsed::Nan => return Err(NAN),
        Parsed::Infinite(sign) => {
            see(sign);
            None
        }
        Parsed::Finite(number) => Some(number),
    };
    match (positive, negative, c) {
        (true, true, _) => Err(NAN),
        (true, ..) => Err(0x7f80_0000),
        (_, true, _) => Err(0xff80_0000),
        (.., Some(c)) => Ok((finite, c)),
        (.., None) => Err(NAN),
    }
}

/// Products cut toward zero to 24 bits below the largest exponent: sum and exponent.
fn cut_and_add(products: &[[Number; 2]]) -> (i128, i32) {
    let live = products.iter().filter(|[a, b]| a.significand * b.significand != 0);
    let largest = live.map(|[a, b]| a.exponent + b.exponent).max().unwrap_or(-999);
    let cut = |[a, b]: &[Number; 2]| {
        in_units(a.significand * b.significand, a.power + b.power, largest - 24, false)
    };
    (products.iter().map(|pair| if largest == -999 { 0 } else { cut(pair) }).sum(), largest)
}

fn with_c(sum: i128, exponent: i32, c: Number, drop: bool) -> u32 {
    let largest = exponent.max(c.exponent);
    let sum = in_units(sum, exponent - 24, largest - 32, true);
    let dropped = drop && c.exponent < largest - 25;
    let c = if dropped { 0 } else { in_units(c.significand, c.power, largest - 24, true) };
    round(sum + (c << 8), largest - 32)
}

fn truncated(products: &[(Parsed, Parsed)], c: u32) -> u32 {
    match specials(products, parse(Type::F32, c.into())) {
        Err(bits) => bits,
        Ok((products, c)) => {
            let (sum, exponent) = cut_and_add(&products);
            with_c(sum, exponent, c, false)
        }
    }
}

fn interleaved(products: &[(Parsed, Parsed)], c: u32) -> u32 {
    match specials(products, parse(Type::F32, c.into())) {
        Err(bits) => bits,
        Ok((products, c)) => {
            let half = |from: usize| -> Vec<_> {
                products.iter().skip(from).step_by(2).copied().collect()
            };
            let (even, low) = cut_and_add(&half(0));
            let (odd, high) = cut_and_add(&half(1));
            let largest = low.max(high);
            let align = |sum, from: i32| in_units(sum, from - 24, largest - 24, true);
            with_c(align(even, low) + align(odd, high), largest, c, true)
        }
    }
}

/// CDNA 2: everything in single precision, step by step.
fn flushed(of: Type, a: &[u64], b: &[u64], c: u32, group: usize) -> u32 {
    let value = |bits: u64| match parse(of, bits) {
        Parsed::Nan => f32::NAN,
        Parsed::Infinite(true) => f32::NEG_INFINITY,
        Parsed::Infinite(false) => f32::INFINITY,
        Parsed::Finite(number) => {
            let hidden = if of == Type::F16 { 1 << 10 } else { 1 << 7 };
            let denormal = number.significand.abs() < hidden;
            if denormal {
                0.0
            } else {
                (number.significand as f64 * 2_f64.powi(number.power)) as f32
            }
        }
    };
    let flush = |value: f32| if value.is_subnormal() { 0_f32.copysign(value) } else { value };
    let c = f32::from_bits(c);
    let mut sum = if c.is_subnormal() { 0.0 } else { c };
    let products: Vec<f32> = a.iter().zip(b).map(|(a, b)| flush(value(*a) * value(*b))).collect();
    for products in products.chunks(group) {
        let pairs: Vec<f32> = products.chunks(2).map(|pair| flush(pair[0] + pair[1])).collect();
        let total = if group == 2 { pairs[0] } else { flush(pairs[0] + pairs[1]) };
        sum = flush(sum + total);
    }
    if sum.is_nan() { NAN } else { sum.to_bits() }
}

/// A · B + C for one element of D, for a whole row of A and column of B.
fn model(form: &Form, chip: Chip, a: &[u64], b: &[u64], c: u32) -> u32 {
    let pair = |at: usize| (parse(form.a, a[at]), parse(form.b, b[at]));
    let group = match (form.a, chip) {
        (Type::Bf16, Chip::Gfx90a) if !form.mnemonic.ends_with("_1k") => {
            return flushed(form.a, a, b, c, 2);
        }
        (_, Chip::Gfx90a) => return flushed(form.a, a, b, c, 4),
        (Type::Xf32, _) => 4,
        (Type::Fp8 | Type::Bf8, _) => 16,
        _ => form.k.min(8),
    };
    (0..form.k).step_by(group).fold(c, |c, first| {
        let products: Vec<_> = (first..first + group).map(pair).collect();
        if group == 16 { interleaved(&products, c) } else { truncated(&products, c) }
    })
}

/// Kinds of operands: any bits; ordinary sizes; many zeros; few exponents, so that cuts matter.
const STYLES: u64 = 4;

pub fn element(of: Type, style: u64, random: &mut Random) -> u64 {
    let size = width(of, 0);
    let mask = (1_u64 << size) - 1;
    let any = random.next() >> 8 & mask;
    let fraction_bits = match of {
        Type::F16 => 10,
        Type::Bf16 => 7,
        Type::Fp8 => 3,
        Type::Bf8 => 2,
        _ => 23,
    };
    let middle = (1_u64 << (size - 2 - fraction_bits)) - 1;
    let with_exponent = |spread: u64, random: &mut Random| {
        let exponent = middle + random.below(2 * spread + 1) - spread;
        let others = any & !(((1 << (size - 1 - fraction_bits)) - 1) << fraction_bits);
        others | exponent << fraction_bits
    };
    match style {
        0 => any,
        1 => with_exponent(3, random),
        2 => {
            if random.below(2) == 0 {
                0
            } else {
                any
            }
        }
        _ => with_exponent(if size == 8 { 7 } else { 14 }, random),
    }
}

fn check(form: &Form, chip: Chip, style: u64, random: &mut Random) {
    let bits = [width(form.a, 0), width(form.b, 0)];
    let (m, n, k) = (form.m, form.n, form.k);
    let a: Vec<u64> = (0..m * k).map(|_| element(form.a, style, random)).collect();
    let b: Vec<u64> = (0..n * k).map(|_| element(form.b, style, random)).collect();
    let c: Vec<u32> = (0..m * n).map(|_| element(Type::F32, style, random) as u32).collect();
    let mut wave = Wave::new(0, 64);
    for (at, value) in a.iter().enumerate() {
        let place = places::input(form, true, 64, bits[0], at / k, at % k, 0);
        store(&mut wave, A, place.lanes[0], place.bit, bits[0], *value);
    }
    for (at, value) in b.iter().enumerate() {
        let place = places::input(form, false, 64, bits[1], at / k, at % k, 0);
        store(&mut wave, B, place.lanes[0], place.bit, bits[1], *value);
    }
    for (at, value) in c.iter().enumerate() {
        let (bit, lane) = places::output(form, 64, at / n, at % n, 0, false);
        store(&mut wave, C, lane, bit, 32, u64::from(*value));
    }
    run(chip, &text(form, 64, bits, ""), &mut wave);
    for at in 0..m * n {
        let (i, j) = (at / n, at % n);
        let (bit, lane) = places::output(form, 64, i, j, 0, false);
        let found = load(&wave, D, lane, bit, 32) as u32;
        let (a, b) = (&a[i * k..][..k], &b[j * k..][..k]);
        let expected = model(form, chip, a, b, c[at]);
        assert_eq!(
            found, expected,
            "{} style {style}: {found:#x} instead of {expected:#x}: {a:x?} {b:x?} {:#x}",
            form.mnemonic, c[at]
        );
    }
}

#[test]
fn cdna2_and_cdna3_agree_with_the_models() {
    let mut random = Random(11);
    for chip in [Chip::Gfx90a, Chip::Gfx942] {
        for form in super::super::form::forms(chip) {
            let modeled =
                matches!(form.a, Type::F16 | Type::Bf16 | Type::Xf32 | Type::Fp8 | Type::Bf8);
            if modeled && !form.sparse {
                for round in 0..3 * STYLES {
                    check(form, chip, round % STYLES, &mut random);
                }
            }
        }
    }
}
