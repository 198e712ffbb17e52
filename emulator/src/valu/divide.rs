//! The steps of division: scaling of the operands, the last step of the quotient, special cases;
//! and 2 / pi for reducing large angles.
//!
//! Where the documents' pseudo-code contradicts what chips were seen to do, and would not give
//! quotients rounded as IEEE wants, this follows the chips: a zero operand sets the mask, too; a
//! denominator whose reciprocal and whose quotient are both denormal is scaled down, not up; and
//! `v_div_fmas` scales up or down by the size of its third operand.

use super::op::{F16, Mode, Op, carry3, map2};
use super::real::{masked3, real3};
use crate::arith::{self, Env, Finite, Format, Real};

macro_rules! division {
    ($scale:ident, $fixup:ident, $type:ty, $format:ident, power $power:literal, far $far:literal,
     tiny $tiny:literal, vanish $vanish:literal) => {
        /// An operand of a division, scaled so that no step of it overflows or loses bits, and
        /// whether `v_div_fmas` has to undo that. `a` is the denominator `den` or the numerator
        /// `num` itself.
        #[inline(always)]
        pub fn $scale(a: $type, den: $type, num: $type) -> ($type, bool) {
            const FORMAT: Format = Format::$format;
            const LARGEST: i32 = (1 << FORMAT.exponent) - 1;
            let exponent =
                |x: $type| (x.to_bits() >> FORMAT.mantissa) as i32 & ((1 << FORMAT.exponent) - 1);
            let (low, high) = (exponent(den), exponent(num));
            let distance = high - low;
            let is_large = low >= LARGEST - 2;
            let is_small = distance <= -(LARGEST / 2 - 1);
            let (power, undo) = if distance >= $far {
                (if a == den { $power } else { 0 }, true)
            } else if low == 0 {
                ($power, false)
            } else if is_large & is_small {
                (if a == den { -$power } else { 0 }, true)
            } else if is_large {
                (-$power, false)
            } else if is_small {
                (if a == num { $power } else { 0 }, true)
            } else if high <= $tiny {
                ($power, false)
            } else {
                (0, false)
            };
            let factor = <$type>::of_bits(((power + LARGEST / 2) as u64) << FORMAT.mantissa);
            if (den == 0.0) | (num == 0.0) {
                (<$type>::of_bits(FORMAT.default_nan()), true)
            } else {
                (a * factor, undo)
            }
        }

        /// The quotient's sign and the special cases.
        #[inline(always)]
        pub fn $fixup(mode: Mode, quotient: $type, den: $type, num: $type) -> $type {
            const FORMAT: Format = Format::$format;
            let exponent =
                |x: $type| (x.to_bits() >> FORMAT.mantissa) as i32 & ((1 << FORMAT.exponent) - 1);
            let negative = den.is_sign_negative() != num.is_sign_negative();
            let quiet = |x: $type| <$type>::of_bits(x.bits() | FORMAT.quiet());
            let magnitude = if num.is_nan() {
                return quiet(num);
            } else if den.is_nan() {
                return quiet(den);
            } else if (den == 0.0 && num == 0.0) || (den.is_infinite() && num.is_infinite()) {
                return <$type>::of_bits(FORMAT.default_nan());
            } else if den == 0.0 || num.is_infinite() {
                <$type>::INFINITY
            } else if den.is_infinite() || num == 0.0 {
                0.0
            } else if exponent(num) - exponent(den) < $vanish {
                // Nothing but the rounding is left of it.
                let tiny = Finite { negative, exponent: -10_000, significand: 1 };
                return <$type>::of_bits(arith::pack(FORMAT, Env::of::<$type>(mode), tiny));
            } else if quotient.is_nan() {
                <$type>::INFINITY
            } else {
                quotient.abs()
            };
            if negative { -magnitude } else { magnitude }
        }
    };
}

division!(scale_f32, fixup_f32, f32, F32, power 64, far 96, tiny 23, vanish -150);
division!(scale_f64, fixup_f64, f64, F64, power 128, far 768, tiny 53, vanish -1075);

/// The quotient's sign and the special cases.
#[inline(always)]
fn fixup_f16(quotient: F16, den: F16, num: F16) -> F16 {
    let sign = (den.0 ^ num.0) & 0x8000;
    let (d, n) = (den.0 & 0x7fff, num.0 & 0x7fff);
    F16(if n > 0x7c00 {
        num.0 | 0x200
    } else if d > 0x7c00 {
        den.0 | 0x200
    } else if (d == 0 && n == 0) || (d == 0x7c00 && n == 0x7c00) {
        0xfe00
    } else if d == 0 || n == 0x7c00 {
        sign | 0x7c00
    } else if d == 0x7c00 || n == 0 {
        sign
    } else {
        sign | quotient.0 & 0x7fff
    })
}

/// `a * b + c`, scaled if `undo` says so: up if `c` is 2 or more, down if it is less.
fn fmas<T: Real>(mode: Mode, a: T, b: T, c: T, undo: bool, power: i32) -> T {
    let field = (c.bits() >> T::FORMAT.mantissa) & ((1 << T::FORMAT.exponent) - 1);
    let is_large = field >= 1 << (T::FORMAT.exponent - 1);
    let power = match (undo, is_large) {
        (false, _) => 0,
        (true, true) => power,
        (true, false) => -power,
    };
    arith::fma_scaled(Env::of::<T>(mode), a, b, c, power)
}

/// The first 1280 bits of 2 / pi after the binary point.
const TWO_OVER_PI: [u64; 20] = [
    0xa2f9_836e_4e44_1529,
    0xfc27_57d1_f534_ddc0,
    0xdb62_9599_3c43_9041,
    0xfe51_63ab_debb_c561,
    0xb724_6e3a_424d_d2e0,
    0x0649_2eea_09d1_921c,
    0xfe1d_eb1c_b129_a73e,
    0xe882_35f5_2ebb_4484,
    0xe99c_7026_b45f_7e41,
    0x3991_d639_8353_39f4,
    0x9c84_5f8b_bdf9_283b,
    0x1ff8_97ff_de05_980f,
    0xef2f_118b_5a0a_6d1f,
    0x6d36_7ecf_27cb_09b7,
    0x4f46_3f66_9e5f_ea2d,
    0x7527_bac7_ebe5_f17b,
    0x3d07_39f7_8a52_92ea,
    0x6bfb_5fb1_1f8d_5d08,
    0x5603_3046_fc7b_6bab,
    0xf0cf_bc20_9af4_361d,
];

/// 53 bits of 2 / pi, the `segment`th of those that matter for the angle `x`, as a number.
#[inline(always)]
pub fn trig_preop(x: f64, segment: u32) -> f64 {
    /// The documents have 1201 bits.
    const BITS: u32 = 1201;
    let exponent = (x.to_bits() >> 52 & 0x7ff) as u32;
    let first = (segment & 31) * 53 + exponent.saturating_sub(1077);
    let mut integer = 0_u64;
    for at in first..first + 53 {
        let word = TWO_OVER_PI[(at / 64) as usize % TWO_OVER_PI.len()];
        let bit = if at < BITS { word >> (63 - at % 64) & 1 } else { 0 };
        integer = integer << 1 | bit;
    }
    let up = if exponent >= 1968 { 128 } else { 0 };
    arith::scale(Mode(0xf0), integer as f64, up - 53 - first as i32)
}

/// The operation of a mnemonic.
pub fn find(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_div_scale_f32" => {
            carry3(|a: f32, den: f32, num: f32, _| scale_f32(a, den, num)).writes_mask()
        }
        "v_div_scale_f64" => {
            carry3(|a: f64, den: f64, num: f64, _| scale_f64(a, den, num)).writes_mask()
        }
        "v_div_fmas_f32" => masked3(
            |a: f32, b: f32, c: f32| a.mul_add(b, c),
            |m, a: f32, b: f32, c: f32, undo| fmas(m, a, b, c, undo, 64),
        )
        .reads_vcc(),
        "v_div_fmas_f64" => masked3(
            |a: f64, b: f64, c: f64| a.mul_add(b, c),
            |m, a: f64, b: f64, c: f64, undo| fmas(m, a, b, c, undo, 128),
        )
        .reads_vcc(),
        "v_div_fixup_f32" => {
            real3(|q: f32, d: f32, n: f32| fixup_f32(Mode(0xf0), q, d, n), fixup_f32)
        }
        "v_div_fixup_f64" => {
            real3(|q: f64, d: f64, n: f64| fixup_f64(Mode(0xf0), q, d, n), fixup_f64)
        }
        "v_div_fixup_f16" | "v_div_fixup_legacy_f16" => {
            real3(|q: F16, d: F16, n: F16| fixup_f16(q, d, n), |_, q, d, n| fixup_f16(q, d, n))
        }
        "v_trig_preop_f64" => map2(|x: f64, segment: u32| trig_preop(x, segment)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::transcendental::rcp_f32;
    use super::*;

    const PLAIN: Mode = Mode(0xf0);

    /// LLVM's sequence for an IEEE quotient.
    fn divide_f32(num: f32, den: f32) -> f32 {
        let (d, _) = scale_f32(den, den, num);
        let (n, undo) = scale_f32(num, den, num);
        let r = rcp_f32(d);
        let e = (-d).mul_add(r, 1.0);
        let r = e.mul_add(r, r);
        let q = n * r;
        let e = (-d).mul_add(q, n);
        let q = e.mul_add(r, q);
        let e = (-d).mul_add(q, n);
        fixup_f32(PLAIN, fmas(PLAIN, e, r, q, undo, 64), den, num)
    }

    /// The same for doubles.
    fn divide_f64(num: f64, den: f64) -> f64 {
        let (d, _) = scale_f64(den, den, num);
        let (n, undo) = scale_f64(num, den, num);
        let r = 1.0 / d;
        let e = (-d).mul_add(r, 1.0);
        let r = e.mul_add(r, r);
        let e = (-d).mul_add(r, 1.0);
        let r = e.mul_add(r, r);
        let q = n * r;
        let e = (-d).mul_add(q, n);
        fixup_f64(PLAIN, fmas(PLAIN, e, r, q, undo, 128), den, num)
    }

    #[test]
    fn quotients_are_ieee() {
        let fractions = [0_u32, 1, 0x0012_3456, 0x002a_aaaa, 0x0040_0000, 0x007f_fffe, 0x007f_ffff];
        let numbers: Vec<f32> = (0..256_u32)
            .flat_map(|e| fractions.map(|fraction| f32::from_bits(e << 23 | fraction)))
            .collect();
        for &a in &numbers {
            for &b in &numbers {
                let (ours, host) = (divide_f32(a, -b), a / -b);
                assert!(ours == host || (ours.is_nan() && host.is_nan()), "{a:e} / {b:e} {ours:e}");
                assert!(ours.is_nan() || ours.is_sign_negative() == host.is_sign_negative());
            }
        }
        let fractions = [0_u64, 1, 0x5_5555_5555_5555, 0x9_8765_4321_fedc, 0xf_ffff_ffff_ffff];
        let numbers: Vec<f64> = (0..2048_u64)
            .step_by(7)
            .chain([1, 2, 1022, 1023, 1024, 2044, 2045, 2046, 2047])
            .flat_map(|e| fractions.map(|fraction| f64::from_bits(e << 52 | fraction)))
            .collect();
        for &a in &numbers {
            for &b in &numbers {
                let (ours, host) = (divide_f64(a, b), a / b);
                assert!(ours == host || (ours.is_nan() && host.is_nan()), "{a:e} / {b:e} {ours:e}");
            }
        }
    }

    /// What a gfx1200 gives: operand, denominator, numerator, result, mask.
    #[test]
    fn operands_are_scaled_as_chips_do() {
        let (one, nan) = (0x3f80_0000, 0xffc0_0000);
        for (a, den, num, result, undo) in [
            (one, 0x4000_0000, one, one, false),
            (0x8000_0000, 0x8000_0000, one, nan, true),
            (one, 0, one, nan, true),
            (0x7f80_0000, 0x7f80_0000, one, 0x7f80_0000, true),
            (one, 0x7fc0_0000, one, one, true),
            (1, 1, one, 0x1500_0000, true),
            (0x0080_0000, 0x0080_0000, one, 0x2080_0000, true),
            (0x7f7f_ffff, 0x7f7f_ffff, one, 0x5f7f_ffff, true),
            (one, 0x7f7f_ffff, one, one, true),
            (0x0080_0000, one, 0x0080_0000, 0x2080_0000, true),
        ] {
            let scaled = scale_f32(f32::from_bits(a), f32::from_bits(den), f32::from_bits(num));
            assert_eq!((scaled.0.to_bits(), scaled.1), (result, undo), "{a:#x} {den:#x} {num:#x}");
        }
        let one = 0x3ff0_0000_0000_0000;
        for (a, den, num, result, undo) in [
            (one, 0, one, 0xfff8_0000_0000_0000, true),
            (1, 1, one, 0x04d0_0000_0000_0000, true),
            (0x7fef_ffff_ffff_ffff, 0x7fef_ffff_ffff_ffff, one, 0x77ef_ffff_ffff_ffff, true),
            (0x01a5_6e1f_c2f8_f359, 0x01a5_6e1f_c2f8_f359, one, 0x09a5_6e1f_c2f8_f359, true),
            (0x4202_a05f_2000_0000, 0x4202_a05f_2000_0000, one, 0x4202_a05f_2000_0000, false),
        ] {
            let scaled = scale_f64(f64::from_bits(a), f64::from_bits(den), f64::from_bits(num));
            assert_eq!((scaled.0.to_bits(), scaled.1), (result, undo), "{a:#x} {den:#x} {num:#x}");
        }
    }

    #[test]
    fn the_last_step_scales_by_the_size_of_its_third_operand() {
        assert_eq!(fmas(PLAIN, 1.0_f32, 1.0, 2.0, true, 64), 3.0 * 2.0_f32.powi(64));
        assert_eq!(fmas(PLAIN, 2.0_f32, 3.0, 1.0, true, 64), 7.0 * 2.0_f32.powi(-64));
        assert_eq!(fmas(PLAIN, 2.0_f32, 3.0, 1.0, false, 64), 7.0);
    }

    /// An angle times 2 / pi by its pieces, against the sine of the host, which reduces exactly.
    #[test]
    fn pieces_of_two_over_pi_reduce_large_angles() {
        for x in [1e22_f64, 3.7e100, 1.234e200, 8.9e307, 12345.678] {
            // The documents scale large angles down by the same power as the pieces up.
            let scaled = if x.to_bits() >> 52 >= 1968 { x * 2_f64.powi(-128) } else { x };
            let (mut turns, mut rest) = (0.0_f64, 0.0_f64);
            for segment in 0..4 {
                let piece = trig_preop(x, segment);
                let product = scaled * piece;
                let error = scaled.mul_add(piece, -product);
                turns += product % 4.0;
                rest += error % 4.0;
            }
            let quarters = (turns % 4.0) + rest;
            let ours = (quarters * std::f64::consts::FRAC_PI_2).sin();
            assert!((ours - x.sin()).abs() < 1e-12, "{x:e}: {ours} {}", x.sin());
        }
    }
}
