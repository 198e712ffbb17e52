//! Exponentials, logarithms, sines, reciprocals and roots.
//!
//! The documents allow f32 results an error of one unit in the last place (much more for f64) and
//! say nothing of which of the numbers in reach a chip gives. Here it is the nearest one, from
//! polynomials in f64 whose error is far below half a unit, in code without branches.

use super::op::{F16, Mode, Op};
use super::real::real1;
use crate::arith::{Format, Real};
use crate::number::{f16_to_f32, f32_to_f16, flush_f32};

/// The NaN of a function without a value at `a`, or `a` itself, quiet.
fn nan_of<T: Real>(a: T) -> T {
    let format: Format = T::FORMAT;
    let is_nan = a.bits() & (format.sign() - 1) > format.infinity();
    T::of_bits(if is_nan { a.bits() | format.quiet() } else { format.default_nan() })
}

/// 2 to the power of `x`, for results of f32 or shorter: right to some 2^-43.
#[inline(always)]
fn exp2_wide(x: f32) -> f64 {
    let x = f64::from(x);
    let x = if x > 200.0 { 200.0 } else { x };
    let x = if x < -200.0 { -200.0 } else { x };
    let whole = x.round_ties_even();
    let y = (x - whole) * std::f64::consts::LN_2;
    // Taylor's series of e^y for |y| < 0.35.
    let mut sum = 1.0 / 39_916_800.0;
    for factorial in [3_628_800.0, 362_880.0, 40_320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0] {
        sum = f64::mul_add(sum, y, 1.0 / factorial);
    }
    sum = f64::mul_add(sum, y, 1.0);
    // The low bits of a number this large count units: they become the exponent.
    let shifted = whole + (6_755_399_441_055_744.0 + 1023.0);
    sum * f64::from_bits(shifted.to_bits() << 52)
}

/// 2 to the power of `x`; denormal results are zero.
#[inline(always)]
pub fn exp2_f32(x: f32) -> f32 {
    flush_f32(exp2_wide(x) as f32)
}

/// 2 to the power of `x`.
#[inline(always)]
pub fn exp2_f16(x: F16) -> F16 {
    F16(f32_to_f16(exp2_wide(f16_to_f32(x.0)) as f32))
}

/// The logarithm to base 2 of a number that is zero, normal, infinite or a NaN.
#[inline(always)]
fn log2_normal(x: f32) -> f32 {
    let bits = x.to_bits();
    // The significand from 0.707 to 1.414 and the exponent that goes with it.
    let offset = bits.wrapping_sub(0x3f35_04f3) as i32;
    let exponent = offset >> 23;
    let significand = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23));
    let m = f64::from(significand);
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    // log(m) is 2 (s + s^3/3 + s^5/5 + ...) for |s| < 0.172.
    let mut sum = 1.0 / 19.0;
    for divisor in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = f64::mul_add(sum, square, 1.0 / divisor);
    }
    let log = f64::mul_add(s * sum, 2.0 * std::f64::consts::LOG2_E, f64::from(exponent)) as f32;
    if x == 0.0 {
        f32::NEG_INFINITY
    } else if x < 0.0 {
        f32::NAN
    } else if x < f32::INFINITY {
        log
    } else {
        x
    }
}

/// The logarithm to base 2; a denormal is a zero.
#[inline(always)]
pub fn log2_f32(x: f32) -> f32 {
    log2_normal(flush_f32(x))
}

/// The logarithm to base 2.
#[inline(always)]
pub fn log2_f16(x: F16) -> F16 {
    F16(f32_to_f16(log2_normal(f16_to_f32(x.0))))
}

/// The sine of 2 pi times `x`, right to some 2^-40.
#[inline(always)]
fn sin_turns(x: f64) -> f64 {
    let turn = x - x.round_ties_even();
    // Beyond a quarter of a turn the sine comes back.
    let back = 0.5_f64.copysign(turn) - turn;
    let quarter = if turn.abs() > 0.25 { back } else { turn };
    let y = quarter * std::f64::consts::TAU;
    let square = y * y;
    // Taylor's series for |y| up to half pi.
    let mut sum = 1.0 / 51_090_942_171_709_440_000.0;
    for factorial in [
        -121_645_100_408_832_000.0,
        355_687_428_096_000.0,
        -1_307_674_368_000.0,
        6_227_020_800.0,
        -39_916_800.0,
        362_880.0,
        -5040.0,
        120.0,
        -6.0,
    ] {
        sum = f64::mul_add(sum, square, 1.0 / factorial);
    }
    let sine = f64::mul_add(sum * square, y, y);
    // A negative zero stays, other whole turns give a positive one.
    if x == 0.0 { x } else { sine }
}

/// The cosine of 2 pi times `x`.
#[inline(always)]
fn cos_turns(x: f64) -> f64 {
    let turn = x - x.round_ties_even();
    sin_turns(0.25 - turn.abs())
}

/// The sine of 2 pi times `x`.
#[inline(always)]
pub fn sin_f32(x: f32) -> f32 {
    sin_turns(f64::from(x)) as f32
}

/// The cosine of 2 pi times `x`.
#[inline(always)]
pub fn cos_f32(x: f32) -> f32 {
    cos_turns(f64::from(x)) as f32
}

/// One divided by `x`; denormals, also of the result, are zeros.
#[inline(always)]
pub fn rcp_f32(x: f32) -> f32 {
    flush_f32(1.0 / flush_f32(x))
}

/// One divided by `x`.
#[inline(always)]
pub fn rcp_f16(x: F16) -> F16 {
    F16(f32_to_f16(1.0 / f16_to_f32(x.0)))
}

/// One divided by the root of `x`; a denormal is a zero.
#[inline(always)]
pub fn rsq_f32(x: f32) -> f32 {
    (1.0 / f64::from(flush_f32(x)).sqrt()) as f32
}

/// One divided by the root of `x`.
#[inline(always)]
pub fn rsq_f16(x: F16) -> F16 {
    F16(f32_to_f16((1.0 / f64::from(f16_to_f32(x.0)).sqrt()) as f32))
}

/// The root; a denormal is a zero.
#[inline(always)]
pub fn sqrt_f32(x: f32) -> f32 {
    flush_f32(x).sqrt()
}

/// The root.
#[inline(always)]
pub fn sqrt_f16(x: F16) -> F16 {
    F16(f32_to_f16(f16_to_f32(x.0).sqrt()))
}

/// An operation of one number whose rounding the mode register does not change.
macro_rules! function {
    ($type:ty, $function:expr) => {
        real1($function, |_: Mode, x: $type| {
            let result: $type = $function(x);
            if super::real::Result::is_nan(result) { nan_of(x) } else { result }
        })
    };
}

/// The operation of a mnemonic.
pub fn find(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_exp_f32" | "v_exp_legacy_f32" => function!(f32, |x: f32| exp2_f32(x)),
        "v_exp_f16" => function!(F16, |x: F16| exp2_f16(x)),
        "v_log_f32" | "v_log_legacy_f32" => function!(f32, |x: f32| log2_f32(x)),
        "v_log_f16" => function!(F16, |x: F16| log2_f16(x)),
        "v_sin_f32" => function!(f32, |x: f32| sin_f32(x)),
        "v_sin_f16" => function!(F16, |x: F16| F16(f32_to_f16(sin_f32(f16_to_f32(x.0))))),
        "v_cos_f32" => function!(f32, |x: f32| cos_f32(x)),
        "v_cos_f16" => function!(F16, |x: F16| F16(f32_to_f16(cos_f32(f16_to_f32(x.0))))),
        "v_rcp_f32" | "v_rcp_iflag_f32" => function!(f32, |x: f32| rcp_f32(x)),
        "v_rcp_f16" => function!(F16, |x: F16| rcp_f16(x)),
        "v_rcp_f64" => function!(f64, |x: f64| 1.0 / x),
        "v_rsq_f32" => function!(f32, |x: f32| rsq_f32(x)),
        "v_rsq_f16" => function!(F16, |x: F16| rsq_f16(x)),
        "v_rsq_f64" => function!(f64, |x: f64| 1.0 / x.sqrt()),
        "v_sqrt_f32" => function!(f32, |x: f32| sqrt_f32(x)),
        "v_sqrt_f16" => function!(F16, |x: F16| sqrt_f16(x)),
        "v_sqrt_f64" => function!(f64, |x: f64| x.sqrt()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function of one number by the mnemonic's middle: `exp`, `log`, `rcp`, `rsq` or `sqrt`.
    fn pseudo_scalar_f32(name: &str) -> Option<fn(f32) -> f32> {
        Some(match name {
            "exp" => |x| or_nan(x, exp2_f32(x)),
            "log" => |x| or_nan(x, log2_f32(x)),
            "rcp" => |x| or_nan(x, rcp_f32(x)),
            "rsq" => |x| or_nan(x, rsq_f32(x)),
            "sqrt" => |x| or_nan(x, sqrt_f32(x)),
            _ => return None,
        })
    }

    fn or_nan<T: Real + crate::valu::real::Result>(x: T, result: T) -> T {
        if result.is_nan() { nan_of(x) } else { result }
    }

    /// Numbers of all sizes, close enough together to meet every polynomial everywhere.
    fn samples() -> impl Iterator<Item = f32> {
        (0..=u32::MAX).step_by(9973).map(f32::from_bits).filter(|x| x.is_finite())
    }

    /// Distance in units of the last place of the f32 nearest to `exact`.
    fn error(ours: f32, exact: f64) -> f64 {
        let near = (exact as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(ours) - exact).abs() / unit
    }

    #[test]
    fn results_are_within_half_a_unit() {
        let mut worst = [0.0_f64; 5];
        for x in samples().filter(|x| x.is_normal()) {
            let exact = f64::from(x).exp2();
            if (1.2e-38..3.4e38).contains(&exact) {
                worst[0] = worst[0].max(error(exp2_f32(x), exact));
            }
            if x > 0.0 {
                worst[1] = worst[1].max(error(log2_f32(x), f64::from(x).log2()));
                worst[2] = worst[2].max(error(rsq_f32(x), f64::from(x).sqrt().recip()));
            }
            if x.abs() < 1000.0 {
                let turn = f64::from(x) % 1.0;
                let exact = (turn * std::f64::consts::TAU).sin();
                // Near a whole turn the host's sine of a rounded product is the worse one.
                if exact.abs() > 1e-3 {
                    worst[3] = worst[3].max(error(sin_f32(x), exact));
                    let exact = (turn * std::f64::consts::TAU).cos();
                    worst[4] = worst[4].max(if exact.abs() > 1e-3 {
                        error(cos_f32(x), exact)
                    } else {
                        0.0
                    });
                }
            }
        }
        assert!(worst.iter().all(|error| *error < 0.5001), "{worst:?}");
    }

    /// The examples of AMD's documents, and what a gfx1200 gives for the same operands.
    #[test]
    fn special_values_are_the_documents() {
        let nan = 0xffc0_0000;
        let run = |function: fn(f32) -> f32, bits: u32| function(f32::from_bits(bits)).to_bits();
        let exp = pseudo_scalar_f32("exp").expect("a function");
        for (x, y) in [(0xff80_0000, 0), (0x8000_0000, 0x3f80_0000), (0x7f80_0000, 0x7f80_0000)] {
            assert_eq!(run(exp, x), y);
        }
        assert_eq!((run(exp, 0x7fa0_0000), run(exp, 0x807f_ffff)), (0x7fe0_0000, 0x3f80_0000));
        assert_eq!((run(exp, 0xc2fc_0001), run(exp, 0xc2fc_0000)), (0, 0x0080_0000));
        let log = pseudo_scalar_f32("log").expect("a function");
        let logs = [
            (0xff80_0000, nan),
            (0xbf80_0000, nan),
            (0x8000_0000, 0xff80_0000),
            (0, 0xff80_0000),
            (0x3f80_0000, 0),
            (0x7f80_0000, 0x7f80_0000),
            (0x807f_ffff, 0xff80_0000),
            (0x7fa0_0000, 0x7fe0_0000),
            (0x4000_0000, 0x3f80_0000),
            (0x0080_0000, 0xc2fc_0000),
        ];
        logs.iter().for_each(|(x, y)| assert_eq!(run(log, *x), *y, "{x:#x}"));
        let rcp = pseudo_scalar_f32("rcp").expect("a function");
        for (x, y) in [(1, 0x7f80_0000), (0xff80_0000, 0x8000_0000), (0x7f7f_ffff, 0)] {
            assert_eq!(run(rcp, x), y);
        }
        let rsq = pseudo_scalar_f32("rsq").expect("a function");
        for (x, y) in [(0x8000_0000, 0xff80_0000), (0xbf80_0000, nan), (0x807f_ffff, 0xff80_0000)] {
            assert_eq!(run(rsq, x), y);
        }
        let sqrt = pseudo_scalar_f32("sqrt").expect("a function");
        for (x, y) in [(0x8000_0000, 0x8000_0000), (0xff80_0000, nan), (1, 0)] {
            assert_eq!(run(sqrt, x), y);
        }
    }

    #[test]
    fn sines_of_whole_and_half_turns_are_zero() {
        let zero = 0.0_f32.to_bits();
        for x in [1.0_f32, -1.0, 0.5, 1.5, 2.0, -2.5, f32::MAX, -f32::MAX] {
            assert_eq!(sin_f32(x).to_bits(), zero, "{x}");
        }
        assert_eq!(sin_f32(-0.0).to_bits(), 0x8000_0000);
        assert_eq!(
            (sin_f32(0.25), sin_f32(-0.75), cos_f32(0.5), cos_f32(f32::MAX)),
            (1.0, 1.0, -1.0, 1.0)
        );
        assert_eq!((cos_f32(0.25).to_bits(), cos_f32(-0.0), cos_f32(-2.5)), (zero, 1.0, -1.0));
        assert_eq!(sin_f32(f32::from_bits(1)).to_bits(), 6);
        assert!(sin_f32(f32::INFINITY).is_nan() && cos_f32(f32::NEG_INFINITY).is_nan());
    }

    #[test]
    fn halves_round_correctly() {
        for bits in 0..=u16::MAX {
            let x = f64::from(f16_to_f32(bits));
            let check = |ours: F16, exact: f64| {
                let nearest = half::f16::from_f64(exact);
                let ours = half::f16::from_bits(ours.0);
                assert!(ours == nearest || (ours.is_nan() && nearest.is_nan()), "{x}: {ours}");
            };
            check(sqrt_f16(F16(bits)), x.sqrt());
            check(rcp_f16(F16(bits)), 1.0 / x);
            check(rsq_f16(F16(bits)), 1.0 / x.sqrt());
            check(exp2_f16(F16(bits)), x.exp2());
            check(log2_f16(F16(bits)), x.log2());
        }
    }
}
