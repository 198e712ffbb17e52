//! Products of small dense matrices, in the arithmetic of each chip.
//!
//! A kernel computes a strip of sixteen columns, row by row: the columns are the lanes of the
//! host's vectors. Narrower matrices leave lanes unused.

#![allow(unsafe_code)]

use super::exact;
use super::simd::Simd;
pub use super::simd::WIDTH;

/// The smallest exponent that a product of zeros can have; far below that of any other.
const ZERO: i32 = -2000;
/// Stands for the exponent of infinities and NaN: too large for every fast path.
const SPECIAL: i32 = 1000;
/// The bits of a NaN result where those of hardware are not known.
pub const NAN: u32 = 0x7fc0_0000;

/// A row of a strip.
pub type Row<T> = [T; WIDTH];

/// Rows, values of k, and what else kernels must know.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows of A and C, a multiple of four.
    pub rows: usize,
    /// Columns of A that are stored.
    pub k: usize,
    /// Smallest normal exponents of A's and B's format.
    pub lowest: [i32; 2],
    /// Halves that overflow become the largest finite one (FP16_OVFL of the mode register).
    pub saturate: bool,
}

/// C = A · B + C for one strip of columns. A is `rows` × `k` by rows, B has a row for each k, C is a
/// row of results for each of A, all as bits of singles (of integers for [`Integer`]).
pub trait Kernel {
    /// Computes the strip.
    ///
    /// # Safety
    ///
    /// The host must have the vector units of `S`.
    unsafe fn strip<S: Simd>(
        shape: Shape,
        a: &[f32],
        b: &[Row<f32>],
        c: &mut [Row<u32>],
        scratch: &mut Scratch,
    );
}

/// Room for the exponents of A and B.
pub struct Scratch {
    a: Vec<i32>,
    b: Vec<Row<i32>>,
}

impl Scratch {
    /// Room for the largest instruction.
    pub fn new() -> Scratch {
        Scratch { a: vec![0; 2048], b: vec![[0; WIDTH]; 128] }
    }
}

/// Rows that are computed at once, so that B is loaded once for all of them.
const ROWS: usize = 4;

/// `ROWS` sums of products over k. A holds their rows.
#[inline(always)]
unsafe fn multiply<S: Simd>(
    k: usize,
    a: &[f32],
    b: &[Row<f32>],
    mut sum: [S::F; ROWS],
) -> [S::F; ROWS] {
    let (a0, a1, a2, a3) = (&a[..k], &a[k..2 * k], &a[2 * k..3 * k], &a[3 * k..4 * k]);
    for (at, b) in b.iter().enumerate().take(k) {
        // SAFETY: the caller promises the vector units.
        unsafe {
            let b = S::load(b);
            sum[0] = S::fma(S::splat(a0[at]), b, sum[0]);
            sum[1] = S::fma(S::splat(a1[at]), b, sum[1]);
            sum[2] = S::fma(S::splat(a2[at]), b, sum[2]);
            sum[3] = S::fma(S::splat(a3[at]), b, sum[3]);
        }
    }
    sum
}

/// A chain of fused multiply-adds over k.
pub struct Chain;

impl Kernel for Chain {
    #[inline(always)]
    unsafe fn strip<S: Simd>(
        shape: Shape,
        a: &[f32],
        b: &[Row<f32>],
        c: &mut [Row<u32>],
        _: &mut Scratch,
    ) {
        let (groups, _) = c.as_chunks_mut::<ROWS>();
        for (group, c) in groups.iter_mut().enumerate() {
            // SAFETY: the caller promises the vector units.
            unsafe {
                let mut sum = [S::splat(0.0); ROWS];
                for row in 0..ROWS {
                    sum[row] = S::from_bits(S::load_bits(&c[row]));
                }
                let sum = multiply::<S>(shape.k, &a[ROWS * group * shape.k..], b, sum);
                for row in 0..ROWS {
                    S::store_bits(canonical_bits::<S>(S::bits(sum[row])), &mut c[row]);
                }
            }
        }
    }
}

/// Sums of integer products, exact in singles, added to a 32-bit integer that wraps around, or
/// stops at its ends if `CLAMP`.
pub struct Integer<const CLAMP: bool>;

impl<const CLAMP: bool> Kernel for Integer<CLAMP> {
    #[inline(always)]
    unsafe fn strip<S: Simd>(
        shape: Shape,
        a: &[f32],
        b: &[Row<f32>],
        c: &mut [Row<u32>],
        _: &mut Scratch,
    ) {
        let (groups, _) = c.as_chunks_mut::<ROWS>();
        for (group, c) in groups.iter_mut().enumerate() {
            // SAFETY: the caller promises the vector units; the sums are below 2^24.
            unsafe {
                let zero = [S::splat(0.0); ROWS];
                let sum = multiply::<S>(shape.k, &a[ROWS * group * shape.k..], b, zero);
                for row in 0..ROWS {
                    let sum = add_integer::<S, CLAMP>(S::load_bits(&c[row]), S::truncate(sum[row]));
                    S::store_bits(sum, &mut c[row]);
                }
            }
        }
    }
}

/// The sum of integers, which wraps around or stops at the ends.
#[inline(always)]
pub unsafe fn add_integer<S: Simd, const CLAMP: bool>(a: S::I, b: S::I) -> S::I {
    // SAFETY: the caller promises the vector units.
    unsafe {
        let sum = S::add_int(a, b);
        if !CLAMP {
            return sum;
        }
        // It overflowed where its sign differs from the signs of both.
        let overflow = S::and(S::xor(a, sum), S::xor(b, sum));
        let end = S::xor(S::sar::<31>(a), S::splat_int(i32::MAX));
        S::if_greater(S::splat_int(0), overflow, end, sum)
    }
}

/// Sums in double precision, in the order of k beginning with C, rounded once. A and B are doubles.
///
/// # Safety
///
/// The host must have the vector units of `S`.
#[inline(always)]
pub unsafe fn wide_strip<S: Simd>(k: usize, a: &[f64], b: &[Row<f64>], c: &mut [Row<u32>]) {
    let (groups, _) = c.as_chunks_mut::<2>();
    for (group, c) in groups.iter_mut().enumerate() {
        let (first, second) = (&a[2 * group * k..][..k], &a[(2 * group + 1) * k..][..k]);
        // SAFETY: the caller promises the vector units.
        unsafe {
            let mut sums = [
                S::widen(S::from_bits(S::load_bits(&c[0]))),
                S::widen(S::from_bits(S::load_bits(&c[1]))),
            ];
            for (at, b) in b.iter().enumerate().take(k) {
                let b = S::load_double(b);
                sums[0] = S::fma_double(S::splat_double(first[at]), b, sums[0]);
                sums[1] = S::fma_double(S::splat_double(second[at]), b, sums[1]);
            }
            for row in 0..2 {
                S::store_bits(canonical_bits::<S>(S::bits(S::narrow(sums[row]))), &mut c[row]);
            }
        }
    }
}

/// Bits of singles in which every NaN is the same.
#[inline(always)]
pub unsafe fn canonical_bits<S: Simd>(bits: S::I) -> S::I {
    // SAFETY: the caller promises the vector units.
    unsafe {
        let magnitude = S::and(bits, S::splat_int(0x7fff_ffff));
        S::if_greater(magnitude, S::splat_int(0x7f80_0000), S::splat_int(NAN as i32), bits)
    }
}

/// The bits of a result; every NaN is the same.
pub fn canonical(value: f32) -> u32 {
    if value.is_nan() { NAN } else { value.to_bits() }
}

/// CDNA 2: products and sums of `P` neighbours by pairs, added to C; all denormals are flushed.
pub struct Flushed<const P: usize>;

impl<const P: usize> Kernel for Flushed<P> {
    #[inline(always)]
    unsafe fn strip<S: Simd>(
        shape: Shape,
        a: &[f32],
        b: &[Row<f32>],
        c: &mut [Row<u32>],
        _: &mut Scratch,
    ) {
        let (b, _) = b.as_chunks::<P>();
        for (row, c) in c.iter_mut().enumerate() {
            let (a, _) = a[row * shape.k..][..shape.k].as_chunks::<P>();
            // SAFETY: the caller promises the vector units.
            unsafe {
                let mut sum = flush_to::<S>(0, S::from_bits(S::load_bits(c)));
                for (a, b) in a.iter().zip(b) {
                    let mut pairs = [S::splat(0.0); 2];
                    for half in 0..P / 2 {
                        let k = 2 * half;
                        let first = S::mul(S::splat(a[k]), S::load(&b[k]));
                        let second = S::mul(S::splat(a[k + 1]), S::load(&b[k + 1]));
                        pairs[half] = flush::<S>(S::add(flush::<S>(first), flush::<S>(second)));
                    }
                    let both = match P {
                        2 => pairs[0],
                        _ => flush::<S>(S::add(pairs[0], pairs[1])),
                    };
                    sum = flush::<S>(S::add(sum, both));
                }
                S::store_bits(canonical_bits::<S>(S::bits(sum)), c);
            }
        }
    }
}

/// Denormals to zeros of their sign.
#[inline(always)]
unsafe fn flush<S: Simd>(value: S::F) -> S::F {
    // SAFETY: the caller promises the vector units.
    unsafe { flush_to::<S>(i32::MIN, value) }
}

/// Of denormals, only some bits are left.
#[inline(always)]
unsafe fn flush_to<S: Simd>(keep: i32, value: S::F) -> S::F {
    // SAFETY: the caller promises the vector units.
    unsafe {
        let bits = S::bits(value);
        let magnitude = S::and(bits, S::splat_int(0x7fff_ffff));
        let left = S::and(bits, S::splat_int(keep));
        S::from_bits(S::if_greater(S::splat_int(0x0080_0000), magnitude, left, bits))
    }
}

/// Products that are added to C in steps of `L` of them.
pub trait Step<const L: usize> {
    /// One step for a row of A, where all products are normal singles or zero.
    ///
    /// # Safety
    ///
    /// The host must have the vector units of `S`.
    unsafe fn step<S: Simd>(step: &Terms<'_, L>, shape: Shape, c: S::I) -> S::I;

    /// One step for any operands.
    fn exact(a: &[f32; L], b: &[Row<f32>; L], shape: Shape, c: &mut Row<u32>);
}

/// Factors of a step's products, and their exponents.
pub struct Terms<'a, const L: usize> {
    a: &'a [f32; L],
    b: &'a [Row<f32>; L],
    exponents_a: &'a [i32; L],
    exponents_b: &'a [Row<i32>; L],
}

impl<const L: usize> Terms<'_, L> {
    /// The product at a value of k.
    #[inline(always)]
    unsafe fn product<S: Simd>(&self, k: usize) -> S::F {
        // SAFETY: the caller promises the vector units.
        unsafe { S::mul(S::splat(self.a[k]), S::load(&self.b[k])) }
    }

    /// The sum of its factors' exponents.
    #[inline(always)]
    unsafe fn exponent<S: Simd>(&self, k: usize) -> S::I {
        // SAFETY: the caller promises the vector units.
        unsafe { S::add_int(S::splat_int(self.exponents_a[k]), S::load_int(&self.exponents_b[k])) }
    }
}

/// The kernel of a kind of steps.
pub struct Stepwise<T, const L: usize>(T);

impl<T: Step<L>, const L: usize> Kernel for Stepwise<T, L> {
    #[inline(always)]
    unsafe fn strip<S: Simd>(
        shape: Shape,
        a: &[f32],
        b: &[Row<f32>],
        c: &mut [Row<u32>],
        scratch: &mut Scratch,
    ) {
        let fast = exponents(shape, a, b, scratch);
        let ((a, _), (b, _)) = (a.as_chunks::<L>(), b.as_chunks::<L>());
        let steps = shape.k / L;
        if !fast {
            for (row, c) in c.iter_mut().enumerate() {
                for (a, b) in a[row * steps..].iter().zip(&b[..steps]) {
                    T::exact(a, b, shape, c);
                }
            }
            return;
        }
        let (exponents_a, _) = scratch.a.as_chunks::<L>();
        let (exponents_b, _) = scratch.b.as_chunks::<L>();
        let (groups, _) = c.as_chunks_mut::<ROWS>();
        for (group, c) in groups.iter_mut().enumerate() {
            // Steps of one row wait for each other; those of several rows run side by side.
            // SAFETY: the caller promises the vector units.
            unsafe {
                let mut sums = [S::splat_int(0); ROWS];
                for row in 0..ROWS {
                    sums[row] = S::load_bits(&c[row]);
                }
                for step in 0..steps {
                    let (b, exponents_b) = (&b[step], &exponents_b[step]);
                    for row in 0..ROWS {
                        let at = (ROWS * group + row) * steps + step;
                        let (a, exponents_a) = (&a[at], &exponents_a[at]);
                        let terms = Terms { a, b, exponents_a, exponents_b };
                        sums[row] = T::step::<S>(&terms, shape, sums[row]);
                    }
                }
                for row in 0..ROWS {
                    S::store_bits(sums[row], &mut c[row]);
                }
            }
        }
    }
}

/// CDNA 3: `L` products, cut to 24 bits below the largest exponent and added exactly, then added
/// to C.
pub struct Truncated;

impl<const L: usize> Step<L> for Truncated {
    #[inline(always)]
    unsafe fn step<S: Simd>(terms: &Terms<'_, L>, _: Shape, c: S::I) -> S::I {
        // SAFETY: the caller promises the vector units.
        unsafe { add_truncated::<S, false>(truncated_sum::<S, L, 0, 1>(terms), c) }
    }

    fn exact(a: &[f32; L], b: &[Row<f32>; L], shape: Shape, c: &mut Row<u32>) {
        exact::truncated(a, b, shape.lowest, c);
    }
}

/// CDNA 3, 8-bit floats: products of even and of odd k are cut and added apart, then together, then
/// to C.
pub struct Interleaved;

impl Step<16> for Interleaved {
    #[inline(always)]
    unsafe fn step<S: Simd>(terms: &Terms<'_, 16>, _: Shape, c: S::I) -> S::I {
        // SAFETY: the caller promises the vector units.
        unsafe {
            let even = truncated_sum::<S, 16, 0, 2>(terms);
            let odd = truncated_sum::<S, 16, 1, 2>(terms);
            add_truncated::<S, true>(join::<S>(even, odd), c)
        }
    }

    fn exact(a: &[f32; 16], b: &[Row<f32>; 16], shape: Shape, c: &mut Row<u32>) {
        exact::interleaved(a, b, shape.lowest, c);
    }
}

/// Integers in units of 2^(exponent - 24).
struct Sums<S: Simd> {
    sum: S::I,
    exponent: S::I,
}

/// Fills the exponents of A and B. Answers whether all products are normal singles, and finite.
#[inline(always)]
fn exponents(shape: Shape, a: &[f32], b: &[Row<f32>], scratch: &mut Scratch) -> bool {
    let a = extent(a, shape.lowest[0], &mut scratch.a);
    let b = extent(b.as_flattened(), shape.lowest[1], scratch.b.as_flattened_mut());
    a[1].wrapping_add(b[1]) <= 126 && a[0].wrapping_add(b[0]) >= -102
}

/// Exponents of values, and the smallest and the largest of those that are not zero.
#[inline(always)]
fn extent(values: &[f32], lowest: i32, out: &mut [i32]) -> [i32; 2] {
    let out = &mut out[..values.len()];
    let (mut smallest, mut largest) = (SPECIAL, ZERO);
    for at in 0..values.len() {
        let bits = values[at].to_bits() & 0x7fff_ffff;
        let field = (bits >> 23) as i32;
        let normal = field.wrapping_sub(127).max(lowest);
        let finite = if field == 255 { SPECIAL } else { normal };
        let exponent = if bits == 0 { ZERO } else { finite };
        smallest = smallest.min(if bits == 0 { SPECIAL } else { finite });
        largest = largest.max(exponent);
        out[at] = exponent;
    }
    [smallest, largest]
}

/// The exponent of a finite number of a format with this lowest exponent; far below it for zero.
pub fn truncated_exponent(value: f32, lowest: i32) -> i32 {
    let field = (value.to_bits() >> 23 & 0xff) as i32;
    if value == 0.0 { ZERO } else { (field - 127).max(lowest) }
}

/// The products of every `STEP`th value of k from `FROM` on, cut toward zero to 24 bits below the
/// largest exponent, and added. All products are normal singles or zero.
#[inline(always)]
unsafe fn truncated_sum<S: Simd, const L: usize, const FROM: usize, const STEP: usize>(
    terms: &Terms<'_, L>,
) -> Sums<S> {
    // SAFETY: the caller promises the vector units. Products in units of 2^-24 of the largest
    // exponent are below 2^26.
    unsafe {
        let mut exponent = S::splat_int(2 * ZERO);
        for k in (FROM..L).step_by(STEP) {
            exponent = S::max_int(exponent, terms.exponent::<S>(k));
        }
        let scale = units::<S>(exponent);
        let mut sum = S::splat_int(0);
        for k in (FROM..L).step_by(STEP) {
            sum = S::add_int(sum, S::truncate(S::mul(terms.product::<S>(k), scale)));
        }
        Sums { sum, exponent }
    }
}

/// 2^(24 - exponent). Where the exponent is smaller than that of any product that may be, all
/// products are zero and any factor will do.
#[inline(always)]
unsafe fn units<S: Simd>(exponent: S::I) -> S::F {
    // SAFETY: the caller promises the vector units.
    unsafe {
        let exponent = S::max_int(exponent, S::splat_int(-103));
        S::from_bits(S::shl::<23>(S::sub_int(S::splat_int(24 + 127), exponent)))
    }
}

/// The sum of two sums, each rounded down to a unit of the larger.
#[inline(always)]
unsafe fn join<S: Simd>(even: Sums<S>, odd: Sums<S>) -> Sums<S> {
    // SAFETY: the caller promises the vector units.
    unsafe {
        let exponent = S::max_int(even.exponent, odd.exponent);
        let even = S::sar_by(even.sum, S::sub_int(exponent, even.exponent));
        let odd = S::sar_by(odd.sum, S::sub_int(exponent, odd.exponent));
        Sums { sum: S::add_int(even, odd), exponent }
    }
}

/// 2 to the power of something from -1022 to 1023.
pub fn power(exponent: i32) -> f64 {
    f64::from_bits((i64::from(exponent).wrapping_add(1023) << 52).cast_unsigned())
}

/// Exponent field of singles' bits.
#[inline(always)]
unsafe fn field<S: Simd>(bits: S::I) -> S::I {
    // SAFETY: the caller promises the vector units.
    unsafe { S::and(S::sar::<23>(bits), S::splat_int(0xff)) }
}

/// Adds the sums to C: the sum is rounded down to 32 bits below the larger exponent of the two, C to
/// 24 bits, their sum to 31 bits and to nearest. With `DROP`, a C that lies below 25 bits is zero
/// even if it is negative.
#[inline(always)]
unsafe fn add_truncated<S: Simd, const DROP: bool>(sums: Sums<S>, c: S::I) -> S::I {
    // SAFETY: the caller promises the vector units.
    unsafe {
        let field = field::<S>(c);
        let exponent_c = S::sub_int(S::max_int(field, S::splat_int(1)), S::splat_int(127));
        let largest = S::max_int(sums.exponent, exponent_c);
        let below = S::min_int(S::sub_int(largest, sums.exponent), S::splat_int(100));
        // Units are 2^(largest - 32).
        let to_units = S::power(S::sub_int(S::splat_int(8), below));
        let sum = S::floor_double(S::mul_double(S::to_double(sums.sum), to_units));
        let mut kept = c;
        if DROP {
            let far = S::sub_int(largest, S::splat_int(25));
            kept = S::if_greater(far, exponent_c, S::splat_int(0), c);
        }
        let to_units = S::power(S::sub_int(S::splat_int(24), largest));
        let addend = S::floor_double(S::mul_double(S::widen(S::from_bits(kept)), to_units));
        let total = S::fma_double(addend, S::splat_double(256.0), sum);
        let rounded = floor_to_31_bits::<S>(total, largest);
        let unit = S::power(S::sub_int(largest, S::splat_int(32)));
        let result = S::bits(S::narrow(S::mul_double(rounded, unit)));
        S::if_greater(field, S::splat_int(254), canonical_bits::<S>(c), result)
    }
}

/// Rounds integers in units of 2^(largest - 32) down to 31 bits below their leading one, or below
/// the exponent -126 of single denormals.
#[inline(always)]
unsafe fn floor_to_31_bits<S: Simd>(total: S::D, largest: S::I) -> S::D {
    // SAFETY: the caller promises the vector units.
    unsafe {
        let leading = S::mul_double(S::leading(total), S::splat_double(power(-31)));
        // 2 where the largest exponent is -126, the smallest that it can be, else 1.
        let denormal = S::if_greater(S::splat_int(-125), largest, S::splat_int(1), S::splat_int(0));
        let unit = S::max_double(leading, S::power(denormal));
        S::mul_double(S::floor_double(S::mul_double(total, S::invert(unit))), unit)
    }
}

/// Results of RDNA's steps: singles, or 16 bits (held as singles) to which every step rounds.
pub const SINGLE: u8 = 0;
/// Halves.
pub const HALF: u8 = 1;
/// bfloat16.
pub const BRAIN: u8 = 2;

/// RDNA 3: two products, which are cut together with C to 26 bits below the largest of the three in
/// the frame of C's sign, and rounded.
pub struct Pairs<const RESULT: u8>;

impl<const RESULT: u8> Step<2> for Pairs<RESULT> {
    #[inline(always)]
    unsafe fn step<S: Simd>(terms: &Terms<'_, 2>, shape: Shape, c: S::I) -> S::I {
        // SAFETY: the caller promises the vector units.
        unsafe { pair_step::<S, RESULT>(terms, shape.saturate, c) }
    }

    fn exact(a: &[f32; 2], b: &[Row<f32>; 2], shape: Shape, c: &mut Row<u32>) {
        exact::pair::<RESULT>(a, b, shape, c);
    }
}

#[inline(always)]
unsafe fn pair_step<S: Simd, const RESULT: u8>(
    terms: &Terms<'_, 2>,
    saturate: bool,
    c: S::I,
) -> S::I {
    // SAFETY: the caller promises the vector units. In units of 2^-26 of the largest term, every term
    // is below 2^28.
    unsafe {
        let (zero, magnitude_bits) = (S::splat_int(0), S::splat_int(0x7fff_ffff));
        let field_c = field::<S>(c);
        // Denormal singles count as zeros; a half's denormals are no denormal singles.
        let old = S::if_greater(field_c, zero, S::and(c, magnitude_bits), zero);
        let mut leading = leading_exponent::<S>(old);
        if RESULT == HALF {
            leading = S::max_int(leading, S::splat_int(-14));
        }
        let mut grid = S::splat_int(2 * ZERO);
        let mut products = [zero; 2];
        for k in 0..2 {
            products[k] = S::bits(terms.product::<S>(k));
            let magnitude = S::and(products[k], magnitude_bits);
            leading = S::max_int(leading, leading_exponent::<S>(magnitude));
            grid = S::max_int(grid, terms.exponent::<S>(k));
        }
        // The grid is 2^grid. Where all are zeros, it may be anything.
        let grid = S::sub_int(grid, S::splat_int(24));
        let grid = S::max_int(grid, S::sub_int(leading, S::splat_int(26)));
        let grid = S::max_int(grid, S::splat_int(-160));
        let scale = S::power(S::sub_int(zero, grid));
        let cut = S::truncate_double(S::mul_double(S::widen(S::from_bits(old)), scale));
        let (mut total, mut any) = (cut, old);
        for product in products {
            let magnitude = S::and(product, magnitude_bits);
            any = S::or(any, magnitude);
            let scaled = S::mul_double(S::widen(S::from_bits(magnitude)), scale);
            // In C's frame, an opposite sign is the complement to one.
            let opposite = S::sar::<31>(S::xor(product, c));
            total = S::add_int(total, S::xor(S::truncate_double(scaled), opposite));
        }
        let sign = S::sar::<31>(c);
        let framed = S::sub_int(S::xor(total, sign), sign);
        let unit = S::power(grid);
        let result = match RESULT {
            HALF => round_to_half::<S>(S::mul_double(S::to_double(framed), unit), saturate),
            _ => {
                let rounded = S::widen(S::to_single(framed));
                let bits = flush_tiny::<S>(S::mul_double(rounded, unit));
                if RESULT == BRAIN { S::and(bits, S::splat_int(!0xffff)) } else { bits }
            }
        };
        let result = S::if_greater(any, zero, result, zero);
        S::if_greater(field_c, S::splat_int(254), quiet_bits::<S>(c), result)
    }
}

/// Exponent of nonnegative singles' leading ones; far below all others for zero.
#[inline(always)]
unsafe fn leading_exponent<S: Simd>(magnitude: S::I) -> S::I {
    // SAFETY: the caller promises the vector units.
    unsafe {
        let exponent = S::sub_int(S::sar::<23>(magnitude), S::splat_int(127));
        S::if_greater(magnitude, S::splat_int(0), exponent, S::splat_int(ZERO))
    }
}

/// Singles of which denormals are positive zeros. The values have 24 bits.
#[inline(always)]
unsafe fn flush_tiny<S: Simd>(value: S::D) -> S::I {
    // SAFETY: the caller promises the vector units.
    unsafe {
        // Four times as large, what is to be flushed is no denormal, and does not round up.
        let large = S::bits(S::narrow(S::mul_double(value, S::splat_double(power(100)))));
        let magnitude = S::and(large, S::splat_int(0x7fff_ffff));
        let smallest = S::splat_int((127 + 100 - 126) << 23);
        let single = S::bits(S::narrow(value));
        S::if_greater(smallest, magnitude, S::splat_int(0), single)
    }
}

/// The nearest halves, as bits of singles; what is too large is infinity or the largest half. Zeros
/// are positive.
#[inline(always)]
unsafe fn round_to_half<S: Simd>(value: S::D, saturate: bool) -> S::I {
    // SAFETY: the caller promises the vector units.
    unsafe {
        // Adding 1.5 * 2^(e + 42) rounds to 2^(e - 10); the smallest e is that of denormal halves.
        let leading = S::max_double(S::leading(value), S::splat_double(power(-14)));
        let magic = S::mul_double(leading, S::splat_double(1.5 * power(42)));
        let minus = S::mul_double(leading, S::splat_double(-1.5 * power(42)));
        let rounded = S::bits(S::narrow(S::add_double(S::add_double(value, magic), minus)));
        let magnitude = S::and(rounded, S::splat_int(0x7fff_ffff));
        let limit = if saturate { 65504.0_f32 } else { f32::INFINITY };
        let sign = S::and(rounded, S::splat_int(i32::MIN));
        let beyond = S::or(S::splat_int(limit.to_bits() as i32), sign);
        let largest = S::splat_int(65504.0_f32.to_bits() as i32);
        let bounded = S::if_greater(magnitude, largest, beyond, rounded);
        S::if_greater(magnitude, S::splat_int(0), bounded, S::splat_int(0))
    }
}

/// C as result, where it is infinite or a NaN and the products are finite.
#[inline(always)]
unsafe fn quiet_bits<S: Simd>(c: S::I) -> S::I {
    // SAFETY: the caller promises the vector units.
    unsafe {
        let magnitude = S::and(c, S::splat_int(0x7fff_ffff));
        let quiet = S::or(c, S::splat_int(0x0040_0000));
        S::if_greater(magnitude, S::splat_int(0x7f80_0000), quiet, c)
    }
}

/// RDNA 4: four products in two pairs, each rounded down to 24 bits below its larger exponent, then
/// added to C on a common grid and rounded.
pub struct Quads<const RESULT: u8>;

impl<const RESULT: u8> Step<4> for Quads<RESULT> {
    #[inline(always)]
    unsafe fn step<S: Simd>(terms: &Terms<'_, 4>, shape: Shape, c: S::I) -> S::I {
        // SAFETY: the caller promises the vector units.
        unsafe { quad_step::<S, RESULT>(terms, shape.saturate, c) }
    }

    fn exact(a: &[f32; 4], b: &[Row<f32>; 4], shape: Shape, c: &mut Row<u32>) {
        exact::quad::<RESULT>(a, b, shape, c);
    }
}

#[inline(always)]
unsafe fn quad_step<S: Simd, const RESULT: u8>(
    terms: &Terms<'_, 4>,
    saturate: bool,
    c: S::I,
) -> S::I {
    let floor_of_c = if RESULT == HALF { -14 } else { -126 };
    // SAFETY: the caller promises the vector units. Products in units of 2^-24 of the larger
    // exponent of a pair are below 2^26.
    unsafe {
        let field_c = field::<S>(c);
        let exponent_c = S::sub_int(field_c, S::splat_int(127));
        let exponent_c = S::max_int(exponent_c, S::splat_int(floor_of_c));
        // The grid is 2^(grid - 24).
        let mut grid = S::sub_int(exponent_c, S::splat_int(2));
        let mut pairs = [S::splat_int(0); 2];
        for pair in 0..2 {
            let low = terms.exponent::<S>(2 * pair);
            pairs[pair] = S::max_int(low, terms.exponent::<S>(2 * pair + 1));
            grid = S::max_int(grid, pairs[pair]);
        }
        let mut total = S::splat_int(0);
        for pair in 0..2 {
            let scale = units::<S>(pairs[pair]);
            let mut sum = S::splat_int(0);
            for k in 2 * pair..2 * pair + 2 {
                let units = S::floor(S::mul(terms.product::<S>(k), scale));
                sum = S::add_int(sum, S::truncate(units));
            }
            total = S::add_int(total, S::sar_by(sum, S::sub_int(grid, pairs[pair])));
        }
        // C is below 2^27 units. On a grid coarser than C's smallest, a negative C of which nothing
        // remains does not count.
        let to_units = S::power(S::sub_int(S::splat_int(24), grid));
        let scaled = S::mul_double(S::widen(S::from_bits(c)), to_units);
        let (down, toward_zero) =
            (S::truncate_double(S::floor_double(scaled)), S::truncate_double(scaled));
        let magnitude = S::max_int(toward_zero, S::sub_int(S::splat_int(0), toward_zero));
        let nonzero = S::if_greater(magnitude, S::splat_int(0), down, S::splat_int(0));
        let coarse = S::splat_int(floor_of_c + 24);
        total = S::add_int(total, S::if_greater(grid, coarse, nonzero, down));
        let unit = S::power(S::sub_int(grid, S::splat_int(24)));
        let value = S::mul_double(S::to_double(total), unit);
        let result = match RESULT {
            HALF => round_to_half::<S>(value, saturate),
            SINGLE => S::bits(S::narrow(value)),
            _ => S::and(S::bits(S::narrow(value)), S::splat_int(!0xffff)),
        };
        let magnitude = S::and(result, S::splat_int(0x7fff_ffff));
        let result = S::if_greater(magnitude, S::splat_int(0), result, S::splat_int(0));
        S::if_greater(field_c, S::splat_int(254), quiet_bits::<S>(c), result)
    }
}
