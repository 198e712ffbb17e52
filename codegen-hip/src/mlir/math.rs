//! Numeric functions as vector code. Kernels call no library: what MLIR's `math` dialect would
//! turn into calls is spelled out here, branch-free, for scalars and vectors of any width.
//!
//! Errors below are against the exact result, in units in the last place of f32.

use super::builder::{Builder, Cmp};
use super::types::{Elem, Value};

/// 1.5 · 2²³: added to a small f32, it rounds it to an integer in the low bits of the sum.
const ROUNDER: f64 = 12_582_912.0;

impl Builder {
    fn like(&mut self, x: Value, value: f64) -> Value {
        self.float(x.ty, value)
    }

    /// `c[0] + x·(c[1] + x·(…))`, with fused multiply-adds.
    pub fn polynomial(&mut self, x: Value, coefficients: &[f64]) -> Value {
        let (last, rest) = coefficients.split_last().expect("a coefficient");
        let mut sum = self.like(x, *last);
        for &c in rest.iter().rev() {
            let c = self.like(x, c);
            sum = self.fma(sum, x, c);
        }
        sum
    }

    /// eˣ in f32, within 1.5 ulp; −∞ gives 0, results below the smallest normal are rounded
    /// once more, NaN gives NaN.
    pub fn exp(&mut self, x: Value) -> Value {
        assert_eq!(x.ty.elem, Elem::F32, "exp");
        // n = round(x / ln 2), r = x − n·ln 2 in two steps (Cody and Waite).
        let log2e = self.like(x, std::f64::consts::LOG2_E);
        let rounder = self.like(x, ROUNDER);
        let shifted = self.fma(x, log2e, rounder);
        let n = self.sub(shifted, rounder);
        let ln2_high = self.like(x, -0.693_359_375);
        let ln2_low = self.like(x, 2.121_944_400_546_905_8e-4);
        let r = self.fma(n, ln2_high, x);
        let r = self.fma(n, ln2_low, r);
        // eʳ for |r| ≤ ln 2 / 2: 1 + r + r²·p(r), the polynomial of Cephes' expf.
        let p = self.polynomial(
            r,
            &[
                0.500_000_012,
                1.666_666_545_9e-1,
                4.166_579_589_4e-2,
                8.333_451_907_3e-3,
                1.398_199_950_7e-3,
                1.987_569_150_0e-4,
            ],
        );
        let square = self.mul(r, r);
        let p = self.fma(p, square, r);
        let one = self.like(x, 1.0);
        let p = self.add(p, one);
        let result = self.scale_by_power(p, shifted);
        self.clamp_exp(x, result)
    }

    /// `p · 2ⁿ`, n in the low bits of `shifted`: in two factors, so that neither leaves the
    /// range of exponents.
    fn scale_by_power(&mut self, p: Value, shifted: Value) -> Value {
        let integer = p.ty.with(Elem::I32);
        let bits = self.bitcast(shifted, integer);
        let n = self.add_const(bits, -i64::from((ROUNDER as f32).to_bits()));
        let one = self.int(integer, 1);
        let half = self.shr_s(n, one);
        let rest = self.sub(n, half);
        let scale = |k: &mut Builder, n: Value| {
            let biased = k.add_const(n, 127);
            let shift = k.int(integer, 23);
            let bits = k.shl(biased, shift);
            k.bitcast(bits, p.ty)
        };
        let (a, b) = (scale(self, half), scale(self, rest));
        let p = self.mul(p, a);
        self.mul(p, b)
    }

    /// 0 or ∞ where eˣ leaves the range of f32.
    fn clamp_exp(&mut self, x: Value, result: Value) -> Value {
        let low = self.like(x, -103.972_08);
        let high = self.like(x, 88.722_84);
        let zero = self.like(x, 0.0);
        let infinity = self.like(x, f64::INFINITY);
        let under = self.cmp(Cmp::Lt, x, low);
        let over = self.cmp(Cmp::Gt, x, high);
        let result = self.select(under, zero, result);
        self.select(over, infinity, result)
    }

    /// 1 / (1 + e⁻ˣ) in f32, within 3 ulp.
    pub fn sigmoid(&mut self, x: Value) -> Value {
        let minus = self.neg(x);
        let e = self.exp(minus);
        let one = self.like(x, 1.0);
        let sum = self.add(one, e);
        self.div(one, sum)
    }

    /// tanh x in f32, within 3 ulp.
    pub fn tanh(&mut self, x: Value) -> Value {
        // |x| ≥ 0.625: 1 − 2 / (e²ˣ + 1), with the sign put back.
        let magnitude = self.abs(x);
        let double = self.add(magnitude, magnitude);
        let e = self.exp(double);
        let one = self.like(x, 1.0);
        let two = self.like(x, 2.0);
        let sum = self.add(e, one);
        let quotient = self.div(two, sum);
        let large = self.sub(one, quotient);
        let negative = self.neg(large);
        let zero = self.like(x, 0.0);
        let below = self.cmp(Cmp::Lt, x, zero);
        let large = self.select(below, negative, large);
        // |x| < 0.625: x + x³·p(x²), the polynomial of Cephes' tanhf.
        let square = self.mul(x, x);
        let p = self.polynomial(
            square,
            &[
                -3.333_328_194_2e-1,
                1.333_144_220_36e-1,
                -5.373_971_246_9e-2,
                2.063_908_879_54e-2,
                -5.704_988_728_51e-3,
            ],
        );
        let cube = self.mul(square, x);
        let small = self.fma(p, cube, x);
        let limit = self.like(x, 0.625);
        let is_small = self.cmp(Cmp::Lt, magnitude, limit);
        self.select(is_small, small, large)
    }

    /// Sine and cosine of f32, within 0.6 ulp for |x| ≤ 2²⁸; beyond, or for NaN, not
    /// meaningful. Range reduction and polynomials are in f64.
    pub fn sin_cos(&mut self, x: Value) -> (Value, Value) {
        assert_eq!(x.ty.elem, Elem::F32, "sin_cos");
        let x = self.extf(x, Elem::F64);
        // n = round(x · 2/π) by the f64 twin of `ROUNDER`; r = x − n·π/2 in two steps.
        let rounder = self.like(x, 6_755_399_441_055_744.0);
        let scale = self.like(x, std::f64::consts::FRAC_2_PI);
        let shifted = self.fma(x, scale, rounder);
        let n = self.sub(shifted, rounder);
        let high = self.like(x, -std::f64::consts::FRAC_PI_2);
        let low = self.like(x, -6.123_233_995_736_766e-17);
        let r = self.fma(n, high, x);
        let r = self.fma(n, low, r);
        let (sin, cos) = self.sin_cos_of_reduced(r);
        // The quadrant is n mod 4: odd ones swap, the sign is that of the rotated pair.
        let integer = x.ty.with(Elem::I64);
        let quadrant = self.bitcast(shifted, integer);
        let odd = self.bit(quadrant, 1);
        let sin_negative = self.bit(quadrant, 2);
        let next = self.add_const(quadrant, 1);
        let cos_negative = self.bit(next, 2);
        let s = self.select(odd, cos, sin);
        let c = self.select(odd, sin, cos);
        let s = self.negate_where(sin_negative, s);
        let c = self.negate_where(cos_negative, c);
        (self.truncf(s, Elem::F32), self.truncf(c, Elem::F32))
    }

    /// Sine and cosine for |r| ≤ π/4 in f64: Taylor series, error below 2⁻³⁸.
    fn sin_cos_of_reduced(&mut self, r: Value) -> (Value, Value) {
        let square = self.mul(r, r);
        let sin = self.polynomial(
            square,
            &[-1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362_880.0, -1.0 / 39_916_800.0],
        );
        let cube = self.mul(square, r);
        let sin = self.fma(sin, cube, r);
        let cos = self.polynomial(
            square,
            &[
                1.0,
                -0.5,
                1.0 / 24.0,
                -1.0 / 720.0,
                1.0 / 40_320.0,
                -1.0 / 3_628_800.0,
                1.0 / 479_001_600.0,
            ],
        );
        (sin, cos)
    }

    /// Whether the bit of weight `weight` is set, by lane.
    fn bit(&mut self, x: Value, weight: i64) -> Value {
        let mask = self.int(x.ty, weight);
        let bit = self.and(x, mask);
        let zero = self.int(x.ty, 0);
        self.cmp(Cmp::Ne, bit, zero)
    }

    fn negate_where(&mut self, condition: Value, x: Value) -> Value {
        let negative = self.neg(x);
        self.select(condition, negative, x)
    }

    /// Natural logarithm in f32, within 1.5 ulp; 0 gives −∞, negative numbers give NaN.
    pub fn log(&mut self, x: Value) -> Value {
        assert_eq!(x.ty.elem, Elem::F32, "log");
        // Subnormals are scaled up by 2²³ first.
        let smallest = self.like(x, f64::from(f32::MIN_POSITIVE));
        let is_small = self.cmp(Cmp::Lt, x, smallest);
        let up = self.like(x, 8_388_608.0);
        let scaled = self.mul(x, up);
        let normal = self.select(is_small, scaled, x);
        // x = m · 2ⁿ with √½ ≤ m < √2.
        let integer = x.ty.with(Elem::I32);
        let bits = self.bitcast(normal, integer);
        let offset = self.add_const(bits, -0x3f35_04f3);
        let shift = self.int(integer, 23);
        let n = self.shr_s(offset, shift);
        let exponent = self.shl(n, shift);
        let m = self.sub(bits, exponent);
        let m = self.bitcast(m, x.ty);
        let n = self.sitofp(n, Elem::F32);
        let correction = self.like(x, -23.0);
        let zero = self.like(x, 0.0);
        let correction = self.select(is_small, correction, zero);
        let n = self.add(n, correction);
        let result = self.log_of_mantissa(m, n);
        self.log_special(x, result)
    }

    /// ln(m) + n·ln 2: Cephes' logf.
    fn log_of_mantissa(&mut self, m: Value, n: Value) -> Value {
        let one = self.like(m, 1.0);
        let r = self.sub(m, one);
        let p = self.polynomial(
            r,
            &[
                3.333_333_117_4e-1,
                -2.499_999_399_3e-1,
                2.000_071_476_5e-1,
                -1.666_805_766_5e-1,
                1.424_932_278_7e-1,
                -1.242_014_084_6e-1,
                1.167_699_874_0e-1,
                -1.151_461_031_0e-1,
                7.037_683_629_2e-2,
            ],
        );
        let square = self.mul(r, r);
        let cube = self.mul(square, r);
        let p = self.mul(p, cube);
        let low = self.like(m, -2.121_944_400_546_905_8e-4);
        let p = self.fma(n, low, p);
        let half = self.like(m, -0.5);
        let p = self.fma(half, square, p);
        let sum = self.add(r, p);
        let high = self.like(m, 0.693_359_375);
        self.fma(n, high, sum)
    }

    fn log_special(&mut self, x: Value, result: Value) -> Value {
        let zero = self.like(x, 0.0);
        let infinity = self.like(x, f64::INFINITY);
        let minus = self.like(x, f64::NEG_INFINITY);
        let nan = self.like(x, f64::NAN);
        let is_infinite = self.cmp(Cmp::Eq, x, infinity);
        let result = self.select(is_infinite, infinity, result);
        let is_zero = self.cmp(Cmp::Eq, x, zero);
        let result = self.select(is_zero, minus, result);
        // Negative numbers and NaN: everything that is not ≥ 0.
        let valid = self.cmp(Cmp::Ge, x, zero);
        self.select(valid, result, nan)
    }

    /// 1 / √x, each step correctly rounded.
    pub fn rsqrt(&mut self, x: Value) -> Value {
        let root = self.sqrt(x);
        let one = self.like(x, 1.0);
        self.div(one, root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{Loaded, input, output, runnable_targets};

    /// Runs `function` over `xs` on every target and checks each result against `exact`, in ulp
    /// of the exact result (at least of the smallest normal number).
    fn check(
        name: &str,
        xs: &[f32],
        ulp: f64,
        function: impl Fn(&mut Builder, Value) -> Value,
        exact: impl Fn(f64) -> f64,
    ) {
        for target in runnable_targets(&["cpu", "cpu-v3", "cpu-v4"]) {
            let mut k = Builder::new(name);
            let (xs_at, ys_at) = (k.arg_ptr(0), k.arg_ptr(1));
            let (first, last) = (k.first(), k.last());
            let ty = Elem::F32.vec(target.lanes);
            k.for_loop(first, last, i64::from(target.lanes), [], |k, i, []| {
                let left = k.sub(last, i);
                let from = k.element(xs_at, Elem::F32, i);
                let to = k.element(ys_at, Elem::F32, i);
                let x = k.load_partial(from, ty, left);
                let y = function(k, x);
                k.store_partial(y, to, left);
                []
            });
            let kernel = Loaded::new(&k.finish(), &target).unwrap();
            let mut ys = vec![7.0f32; xs.len() + 1];
            kernel.run(&[input(xs), output(&mut ys)], 0, xs.len() as i64, 0);
            assert_eq!(ys[xs.len()], 7.0, "{name}: wrote past the end");
            for (&x, &y) in xs.iter().zip(&ys) {
                let want = exact(f64::from(x));
                let agree = if want.is_nan() {
                    y.is_nan()
                } else if (want as f32).is_infinite() {
                    f64::from(y) == f64::from(want as f32)
                } else {
                    let scale = want.abs().max(f64::from(f32::MIN_POSITIVE));
                    let unit = 2f64.powi(scale.log2().floor() as i32 - 23);
                    (f64::from(y) - want).abs() <= ulp * unit
                };
                assert!(agree, "{} {name}({x:e}) = {y:e}, exactly {want:e}", target.name);
            }
        }
    }

    fn range(from: f32, to: f32, n: usize) -> Vec<f32> {
        (0..=n).map(|i| from + (to - from) * (i as f32 / n as f32)).collect()
    }

    #[test]
    fn exp_is_within_its_bound() {
        let mut xs = range(-110.0, 95.0, 100_003);
        xs.extend([f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 0.0, -0.0, 88.72283, -103.97]);
        check("exp", &xs, 1.5, |k, x| k.exp(x), f64::exp);
    }

    #[test]
    fn sigmoid_is_within_its_bound() {
        // Below −87 the exact result is subnormal while e⁻ˣ overflows.
        let mut xs = range(-87.0, 100.0, 100_003);
        xs.extend([f32::INFINITY, f32::NEG_INFINITY]);
        check("sigmoid", &xs, 3.0, |k, x| k.sigmoid(x), |x| 1.0 / (1.0 + (-x).exp()));
    }

    #[test]
    fn tanh_is_within_its_bound() {
        let mut xs = range(-12.0, 12.0, 100_003);
        xs.extend([f32::INFINITY, f32::NEG_INFINITY, 1e-20, -1e-4, 0.0]);
        check("tanh", &xs, 3.0, |k, x| k.tanh(x), f64::tanh);
    }

    #[test]
    fn sin_and_cos_are_within_their_bounds() {
        let mut xs = range(-20.0, 20.0, 50_001);
        xs.extend(range(-130_000.0, 130_000.0, 50_001));
        xs.extend([0.0, 1e-10, 2f32.powi(28), 1_048_575.0]);
        check("sine", &xs, 0.6, |k, x| k.sin_cos(x).0, f64::sin);
        check("cosine", &xs, 0.6, |k, x| k.sin_cos(x).1, f64::cos);
    }

    #[test]
    fn log_is_within_its_bound() {
        let mut xs = range(1e-6, 4.0, 50_001);
        xs.extend(range(1.0, 1e9, 20_001));
        xs.extend([0.0, -1.0, f32::INFINITY, f32::NAN, 1e-40, f32::MIN_POSITIVE, f32::MAX]);
        check("log", &xs, 1.5, |k, x| k.log(x), f64::ln);
    }

    #[test]
    fn rsqrt_is_within_its_bound() {
        check("rsqrt", &range(1e-6, 1e6, 50_001), 1.5, |k, x| k.rsqrt(x), |x| 1.0 / x.sqrt());
    }
}
