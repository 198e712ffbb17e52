//! The arithmetic of CDNA 3 and RDNA for single results, for operands that the vector kernels leave
//! out: infinities, NaN, and products that singles do not hold.

use super::kernel::{BRAIN, HALF, Row, Shape, canonical, power, truncated_exponent};

/// A small negative C counts.
const KEEP: bool = false;
/// A C far below the sum is zero.
const DROP: bool = true;

/// The result of RDNA for a factor that is a NaN, as a single, a half and a bfloat16.
const FACTOR_NAN: [u32; 3] = [0xffc0_0a3d, 0xffc7_a000, 0xfffd_0000];
/// The result of RDNA for infinity times zero and for infinity minus infinity.
const INVALID_NAN: u32 = 0xffc0_0000;

/// [`super::kernel::Truncated`].
pub fn truncated<const L: usize>(
    a: &[f32; L],
    b: &[Row<f32>; L],
    lowest: [i32; 2],
    c: &mut Row<u32>,
) {
    for column in 0..c.len() {
        let products: [(f32, f32); L] = std::array::from_fn(|k| (a[k], b[k][column]));
        let old = f32::from_bits(c[column]);
        c[column] = special(&products, old).unwrap_or_else(|| {
            let (sum, exponent) = cut_sum(&products, lowest);
            add(sum, exponent, old, KEEP)
        });
    }
}

/// [`super::kernel::Interleaved`].
pub fn interleaved(a: &[f32; 16], b: &[Row<f32>; 16], lowest: [i32; 2], c: &mut Row<u32>) {
    for column in 0..c.len() {
        let half = |from: usize| -> [(f32, f32); 8] {
            std::array::from_fn(|k| (a[2 * k + from], b[2 * k + from][column]))
        };
        let (even, odd, old) = (half(0), half(1), f32::from_bits(c[column]));
        let all: Vec<(f32, f32)> = even.into_iter().chain(odd).collect();
        c[column] = special(&all, old).unwrap_or_else(|| {
            let ((even, low), (odd, high)) = (cut_sum(&even, lowest), cut_sum(&odd, lowest));
            let exponent = low.max(high);
            let align = |sum: f64, from: i32| (sum * power((from - exponent).max(-100))).floor();
            add(align(even, low) + align(odd, high), exponent, old, DROP)
        });
    }
}

/// What infinities, NaN and products beyond the singles give, if there are any.
fn special(products: &[(f32, f32)], c: f32) -> Option<u32> {
    let limit = 2.0_f64.powi(128);
    let to_infinity = |(a, b): &(f32, f32)| match f64::from(*a) * f64::from(*b) {
        product if product >= limit => f32::INFINITY,
        product if product <= -limit => f32::NEG_INFINITY,
        product if product.is_nan() => f32::NAN,
        _ => 0.0,
    };
    let finite_c = if c.is_finite() { 0.0 } else { c };
    let sum: f32 = products.iter().map(to_infinity).fold(finite_c, |sum, term| sum + term);
    if sum == 0.0 { None } else { Some(canonical(sum)) }
}

/// Sum of cut products in units of 2^(exponent - 24), and the exponent.
fn cut_sum(products: &[(f32, f32)], lowest: [i32; 2]) -> (f64, i32) {
    let exponent_of =
        |(a, b): &(f32, f32)| truncated_exponent(*a, lowest[0]) + truncated_exponent(*b, lowest[1]);
    let largest = products.iter().map(exponent_of).max().unwrap_or(0).max(-600);
    let cut = |(a, b): &(f32, f32)| (f64::from(*a) * f64::from(*b) * power(24 - largest)).trunc();
    (products.iter().map(cut).sum(), largest)
}

fn add(sum: f64, exponent: i32, c: f32, drop: bool) -> u32 {
    let field = (c.to_bits() >> 23 & 0xff) as i32;
    let exponent_c = field.max(1) - 127;
    let largest = exponent.max(exponent_c);
    let sum = (sum * power(8 - (largest - exponent).min(100))).floor();
    let c = (f64::from(c) * power(24 - largest)).floor();
    let c = if drop && exponent_c < largest - 25 { 0.0 } else { c };
    let total = sum + c * 256.0;
    canonical((floor_to_31_bits(total, largest) * power(largest - 32)) as f32)
}

/// Rounds an integer in units of 2^(largest - 32) down to 31 bits below its leading one, or below
/// the exponent -126 of single denormals.
fn floor_to_31_bits(total: f64, largest: i32) -> f64 {
    let leading = (total.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let unit = power((leading - 31).max(if largest == -126 { 1 } else { 0 }));
    (total / unit).floor() * unit
}

/// A NaN with its quiet bit.
fn quiet(bits: u32) -> u32 {
    if bits & 0x7fff_ffff > 0x7f80_0000 { bits | 0x0040_0000 } else { bits }
}

/// The nearest half, as a single; what is too large is infinity or the largest half. A zero is
/// positive.
fn round_to_half(value: f64, saturate: bool) -> u32 {
    let exponent = (value.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let unit = power(exponent.clamp(-14, 100) - 10);
    let rounded = (value / unit).round_ties_even() * unit;
    let limit = if saturate { 65504.0 } else { f64::INFINITY };
    let result = if rounded.abs() > 65504.0 { limit.copysign(value) } else { rounded };
    if result == 0.0 { 0 } else { (result as f32).to_bits() }
}

/// A significand times a power of two.
#[derive(Debug, Clone, Copy)]
struct Term {
    significand: u64,
    power: i32,
    negative: bool,
}

/// Exponent of nothing.
const EMPTY: i32 = -1024;

impl Term {
    fn of_single(bits: u32, keeps_denormals: bool) -> Term {
        let field = (bits >> 23 & 0xff) as i32;
        let fraction = u64::from(bits & 0x7f_ffff);
        let significand = match field {
            0 if keeps_denormals => fraction,
            0 => 0,
            _ => fraction | 1 << 23,
        };
        Term { significand, power: field.max(1) - 150, negative: bits >> 31 == 1 }
    }

    /// The product of two factors of at most 24 bits, which is exact.
    fn product((a, b): (f32, f32)) -> Term {
        let (a, b) = (Term::of_single(a.to_bits(), true), Term::of_single(b.to_bits(), true));
        let negative = a.negative != b.negative;
        Term { significand: a.significand * b.significand, power: a.power + b.power, negative }
    }

    fn leading(self) -> i32 {
        if self.significand == 0 { EMPTY } else { self.power + self.significand.ilog2() as i32 }
    }

    /// Magnitude in units of 2^grid, toward zero, and whether something was cut.
    fn cut(self, grid: i32) -> (i64, bool) {
        match self.power - grid {
            _ if self.significand == 0 => (0, false),
            shift if shift >= 0 => ((self.significand << shift.min(15)) as i64, false),
            shift if shift <= -64 => (0, true),
            shift => {
                let kept = self.significand >> -shift;
                (kept as i64, kept << -shift != self.significand)
            }
        }
    }

    fn down(self, grid: i32) -> i64 {
        let (magnitude, cut) = self.cut(grid);
        if self.negative { -magnitude - i64::from(cut) } else { magnitude }
    }
}

/// What infinities and NaN give on RDNA, if there are any.
fn special_step<const RESULT: u8>(products: &[(f32, f32)], c: u32) -> Option<u32> {
    if products.iter().any(|(a, b)| a.is_nan() || b.is_nan()) {
        return Some(FACTOR_NAN[usize::from(RESULT)]);
    }
    let (mut positive, mut negative) = (false, false);
    for (a, b) in products.iter().filter(|(a, b)| a.is_infinite() || b.is_infinite()) {
        if *a == 0.0 || *b == 0.0 {
            return Some(INVALID_NAN);
        }
        if a.is_sign_negative() == b.is_sign_negative() { positive = true } else { negative = true }
    }
    let old = f32::from_bits(c);
    match (positive, negative) {
        (true, true) => Some(INVALID_NAN),
        _ if old.is_nan() => Some(quiet(c)),
        (true, _) if old == f32::NEG_INFINITY => Some(INVALID_NAN),
        (_, true) if old == f32::INFINITY => Some(INVALID_NAN),
        (true, _) => Some(f32::INFINITY.to_bits()),
        (_, true) => Some(f32::NEG_INFINITY.to_bits()),
        _ if old.is_infinite() => Some(c),
        _ => None,
    }
}

/// The sum of two factors' exponents minus 24, or nothing for a zero.
fn grid_of((a, b): (f32, f32), lowest: [i32; 2]) -> i32 {
    let exponent = truncated_exponent(a, lowest[0]) + truncated_exponent(b, lowest[1]);
    if a == 0.0 || b == 0.0 { EMPTY } else { exponent - 24 }
}

/// [`super::kernel::Pairs`].
pub fn pair<const RESULT: u8>(a: &[f32; 2], b: &[Row<f32>; 2], shape: Shape, c: &mut Row<u32>) {
    for column in 0..c.len() {
        let products = [(a[0], b[0][column]), (a[1], b[1][column])];
        let old = c[column];
        c[column] = special_step::<RESULT>(&products, old)
            .unwrap_or_else(|| pair_sum::<RESULT>(products, shape, old));
    }
}

fn pair_sum<const RESULT: u8>(products: [(f32, f32); 2], shape: Shape, old: u32) -> u32 {
    let c = Term::of_single(old, false);
    let terms = products.map(Term::product);
    if c.significand | terms[0].significand | terms[1].significand == 0 {
        return 0;
    }
    let leading_c = if RESULT == HALF { c.leading().max(-14) } else { c.leading() };
    let leading = leading_c.max(terms[0].leading()).max(terms[1].leading());
    let product_grid = grid_of(products[0], shape.lowest).max(grid_of(products[1], shape.lowest));
    let grid = product_grid.max(leading - 26);
    let framed = |term: Term| {
        let (magnitude, _) = term.cut(grid);
        if term.negative == c.negative { magnitude } else { -magnitude - 1 }
    };
    let total = framed(c) + framed(terms[0]) + framed(terms[1]);
    let total = if c.negative { -total } else { total };
    if total == 0 {
        return 0;
    }
    if RESULT == HALF {
        return round_to_half(total as f64 * scale(grid), shape.saturate);
    }
    // To 24 bits, then to the range of singles.
    let value = f64::from(total as f32) * scale(grid);
    let tiny = value.abs() < f64::from(f32::MIN_POSITIVE);
    let bits = if tiny { 0 } else { (value as f32).to_bits() };
    if RESULT == BRAIN { bits & 0xffff_0000 } else { bits }
}

/// 2^grid, which is beyond the singles for products that are.
fn scale(grid: i32) -> f64 {
    power(grid.clamp(-1022, 1000))
}

/// [`super::kernel::Quads`].
pub fn quad<const RESULT: u8>(a: &[f32; 4], b: &[Row<f32>; 4], shape: Shape, c: &mut Row<u32>) {
    for column in 0..c.len() {
        let products: [(f32, f32); 4] = std::array::from_fn(|k| (a[k], b[k][column]));
        let old = c[column];
        c[column] = special_step::<RESULT>(&products, old)
            .unwrap_or_else(|| quad_sum::<RESULT>(products, shape, old));
    }
}

fn quad_sum<const RESULT: u8>(products: [(f32, f32); 4], shape: Shape, old: u32) -> u32 {
    let c = Term::of_single(old, true);
    let grids = products.map(|product| grid_of(product, shape.lowest));
    let floor_of_c = if RESULT == HALF { -14 } else { -126 };
    let grid = grids.into_iter().fold(c.leading().max(floor_of_c) - 26, i32::max);
    let (magnitude, _) = c.cut(grid);
    let mut total = if grid > floor_of_c && magnitude == 0 { 0 } else { c.down(grid) };
    for pair in [0, 2] {
        let pair_grid = grids[pair].max(grids[pair + 1]);
        let down = |k: usize| Term::product(products[k]).down(pair_grid);
        let sum = down(pair) + down(pair + 1);
        let significand = sum.unsigned_abs();
        total += Term { significand, power: pair_grid, negative: sum < 0 }.down(grid);
    }
    let value = total as f64 * scale(grid);
    let bits = match RESULT {
        HALF => round_to_half(value, shape.saturate),
        BRAIN => (value as f32).to_bits() & 0xffff_0000,
        _ => (value as f32).to_bits(),
    };
    if bits << 1 == 0 { 0 } else { bits }
}
