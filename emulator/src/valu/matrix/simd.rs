//! Sixteen lanes of arithmetic on the host's vector units.
//!
//! The kernels are written once, over these operations; [`Avx512`], [`Avx2`] and [`Plain`] give
//! them. Compilers do vectorize loops over arrays, but not reliably ones of this size.

#![allow(unsafe_code)]

/// Lanes of a vector.
pub const WIDTH: usize = 16;

/// Operations on sixteen singles `F`, integers `I` or doubles `D`, lane by lane.
///
/// # Safety
///
/// Every function may be called only on a host that has the vector units of the implementation.
pub trait Simd: Copy {
    /// Singles.
    type F: Copy;
    /// 32-bit integers.
    type I: Copy;
    /// Doubles.
    type D: Copy;

    /// The same in every lane.
    unsafe fn splat(value: f32) -> Self::F;
    /// From memory.
    unsafe fn load(from: &[f32; WIDTH]) -> Self::F;
    /// Product.
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// Sum.
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// a · b + c, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Down to an integer.
    unsafe fn floor(a: Self::F) -> Self::F;
    /// To integers, toward zero; the value must be in range.
    unsafe fn truncate(a: Self::F) -> Self::I;
    /// To doubles.
    unsafe fn widen(a: Self::F) -> Self::D;
    /// The bits of singles.
    unsafe fn bits(a: Self::F) -> Self::I;
    /// Singles from their bits.
    unsafe fn from_bits(a: Self::I) -> Self::F;

    /// The same in every lane.
    unsafe fn splat_int(value: i32) -> Self::I;
    /// From memory.
    unsafe fn load_int(from: &[i32; WIDTH]) -> Self::I;
    /// Bits from memory.
    unsafe fn load_bits(from: &[u32; WIDTH]) -> Self::I;
    /// Bits to memory.
    unsafe fn store_bits(a: Self::I, to: &mut [u32; WIDTH]);
    /// Sum, wrapping around.
    unsafe fn add_int(a: Self::I, b: Self::I) -> Self::I;
    /// Difference, wrapping around.
    unsafe fn sub_int(a: Self::I, b: Self::I) -> Self::I;
    /// The larger.
    unsafe fn max_int(a: Self::I, b: Self::I) -> Self::I;
    /// The smaller.
    unsafe fn min_int(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise and.
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise or.
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise exclusive or.
    unsafe fn xor(a: Self::I, b: Self::I) -> Self::I;
    /// Shift left by a constant.
    unsafe fn shl<const BY: i32>(a: Self::I) -> Self::I;
    /// Shift right by a constant, filling with the sign.
    unsafe fn sar<const BY: i32>(a: Self::I) -> Self::I;
    /// Shift right by as many as each lane says, filling with the sign; 32 and more are 31.
    unsafe fn sar_by(a: Self::I, by: Self::I) -> Self::I;
    /// `yes` where `a` is greater than `b`, else `no`.
    unsafe fn if_greater(a: Self::I, b: Self::I, yes: Self::I, no: Self::I) -> Self::I;
    /// To the nearest single.
    unsafe fn to_single(a: Self::I) -> Self::F;
    /// To doubles.
    unsafe fn to_double(a: Self::I) -> Self::D;
    /// 2 to the power of something from -1022 to 1023.
    unsafe fn power(a: Self::I) -> Self::D;

    /// The same in every lane.
    unsafe fn splat_double(value: f64) -> Self::D;
    /// From memory.
    unsafe fn load_double(from: &[f64; WIDTH]) -> Self::D;
    /// To memory.
    unsafe fn store_double(a: Self::D, to: &mut [f64; WIDTH]);
    /// Product.
    unsafe fn mul_double(a: Self::D, b: Self::D) -> Self::D;
    /// Sum.
    unsafe fn add_double(a: Self::D, b: Self::D) -> Self::D;
    /// a · b + c, rounded once.
    unsafe fn fma_double(a: Self::D, b: Self::D, c: Self::D) -> Self::D;
    /// Down to an integer.
    unsafe fn floor_double(a: Self::D) -> Self::D;
    /// The larger.
    unsafe fn max_double(a: Self::D, b: Self::D) -> Self::D;
    /// The power of two in a number: its exponent without sign and fraction.
    unsafe fn leading(a: Self::D) -> Self::D;
    /// The inverse of a power of two.
    unsafe fn invert(a: Self::D) -> Self::D;
    /// To the nearest single.
    unsafe fn narrow(a: Self::D) -> Self::F;
    /// To integers, toward zero; a value out of range gives any integer.
    unsafe fn truncate_double(a: Self::D) -> Self::I;
}

/// Everything but sign and fraction of a double.
const EXPONENT: u64 = 0x7ff0_0000_0000_0000;
/// Twice the bits of 1.0: inverts a power of two when its bits are subtracted.
const TWICE_ONE: u64 = 2046 << 52;

/// Without vector instructions.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[derive(Clone, Copy)]
pub struct Plain;

/// One lane after the other.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
fn each<T: Copy, R: Copy + Default>(f: impl Fn(T) -> R, a: [T; WIDTH]) -> [R; WIDTH] {
    let mut result = [R::default(); WIDTH];
    for lane in 0..WIDTH {
        result[lane] = f(a[lane]);
    }
    result
}

#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
fn both<T: Copy, R: Copy + Default>(
    f: impl Fn(T, T) -> R,
    a: [T; WIDTH],
    b: [T; WIDTH],
) -> [R; WIDTH] {
    let mut result = [R::default(); WIDTH];
    for lane in 0..WIDTH {
        result[lane] = f(a[lane], b[lane]);
    }
    result
}

/// Functions of a trait, from a compact form: names, arguments, result and body.
macro_rules! functions {
    ($($name:ident$(<$constant:ident>)?($($argument:ident: $type:ty),*) $(-> $result:ty)? = $body:expr;)*) => {
        $(
            #[inline(always)]
            unsafe fn $name$(<const $constant: i32>)?($($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller promises the vector units; references are to whole vectors.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }
        )*
    };
}

#[cfg(any(test, not(target_arch = "x86_64")))]
impl Simd for Plain {
    type F = [f32; WIDTH];
    type I = [i32; WIDTH];
    type D = [f64; WIDTH];

    functions! {
        splat(value: f32) -> Self::F = [value; WIDTH];
        load(from: &[f32; WIDTH]) -> Self::F = *from;
        mul(a: Self::F, b: Self::F) -> Self::F = both(|a, b| a * b, a, b);
        add(a: Self::F, b: Self::F) -> Self::F = both(|a, b| a + b, a, b);
        floor(a: Self::F) -> Self::F = each(f32::floor, a);
        truncate(a: Self::F) -> Self::I = each(|a| a as i32, a);
        widen(a: Self::F) -> Self::D = each(f64::from, a);
        bits(a: Self::F) -> Self::I = each(|a| a.to_bits() as i32, a);
        from_bits(a: Self::I) -> Self::F = each(|a| f32::from_bits(a as u32), a);
        splat_int(value: i32) -> Self::I = [value; WIDTH];
        load_int(from: &[i32; WIDTH]) -> Self::I = *from;
        load_bits(from: &[u32; WIDTH]) -> Self::I = each(u32::cast_signed, *from);
        store_bits(a: Self::I, to: &mut [u32; WIDTH]) = *to = each(i32::cast_unsigned, a);
        add_int(a: Self::I, b: Self::I) -> Self::I = both(i32::wrapping_add, a, b);
        sub_int(a: Self::I, b: Self::I) -> Self::I = both(i32::wrapping_sub, a, b);
        max_int(a: Self::I, b: Self::I) -> Self::I = both(Ord::max, a, b);
        min_int(a: Self::I, b: Self::I) -> Self::I = both(Ord::min, a, b);
        and(a: Self::I, b: Self::I) -> Self::I = both(|a, b| a & b, a, b);
        or(a: Self::I, b: Self::I) -> Self::I = both(|a, b| a | b, a, b);
        xor(a: Self::I, b: Self::I) -> Self::I = both(|a, b| a ^ b, a, b);
        shl<BY>(a: Self::I) -> Self::I = each(|a| a << BY, a);
        sar<BY>(a: Self::I) -> Self::I = each(|a| a >> BY, a);
        sar_by(a: Self::I, by: Self::I) -> Self::I =
            both(|a, by| a >> (by as u32).min(31), a, by);
        to_single(a: Self::I) -> Self::F = each(|a| a as f32, a);
        to_double(a: Self::I) -> Self::D = each(f64::from, a);
        power(a: Self::I) -> Self::D =
            each(|a| f64::from_bits((i64::from(a).wrapping_add(1023) << 52) as u64), a);
        splat_double(value: f64) -> Self::D = [value; WIDTH];
        load_double(from: &[f64; WIDTH]) -> Self::D = *from;
        store_double(a: Self::D, to: &mut [f64; WIDTH]) = *to = a;
        mul_double(a: Self::D, b: Self::D) -> Self::D = both(|a, b| a * b, a, b);
        add_double(a: Self::D, b: Self::D) -> Self::D = both(|a, b| a + b, a, b);
        floor_double(a: Self::D) -> Self::D = each(f64::floor, a);
        max_double(a: Self::D, b: Self::D) -> Self::D = both(f64::max, a, b);
        leading(a: Self::D) -> Self::D = each(|a| f64::from_bits(a.to_bits() & EXPONENT), a);
        invert(a: Self::D) -> Self::D =
            each(|a| f64::from_bits(TWICE_ONE.wrapping_sub(a.to_bits())), a);
        narrow(a: Self::D) -> Self::F = each(|a| a as f32, a);
        truncate_double(a: Self::D) -> Self::I = each(|a| a as i32, a);
    }

    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        let mut result = c;
        for lane in 0..WIDTH {
            result[lane] = a[lane].mul_add(b[lane], c[lane]);
        }
        result
    }

    #[inline(always)]
    unsafe fn fma_double(a: Self::D, b: Self::D, c: Self::D) -> Self::D {
        let mut result = c;
        for lane in 0..WIDTH {
            result[lane] = a[lane].mul_add(b[lane], c[lane]);
        }
        result
    }

    #[inline(always)]
    unsafe fn if_greater(a: Self::I, b: Self::I, yes: Self::I, no: Self::I) -> Self::I {
        let mut result = no;
        for lane in 0..WIDTH {
            result[lane] = if a[lane] > b[lane] { yes[lane] } else { no[lane] };
        }
        result
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub use Plain as Avx2;
#[cfg(not(target_arch = "x86_64"))]
pub use Plain as Avx512;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{EXPONENT, Simd, TWICE_ONE, WIDTH};

    /// AVX-512 F, DQ and VL.
    #[derive(Clone, Copy)]
    pub struct Avx512;

    /// Down, without exceptions.
    const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;

    #[inline(always)]
    unsafe fn halves(a: __m512i) -> [__m256i; 2] {
        // SAFETY: the caller has AVX-512.
        unsafe { [_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64::<1>(a)] }
    }

    type D8 = [__m512d; 2];

    impl Simd for Avx512 {
        type F = __m512;
        type I = __m512i;
        type D = D8;

        functions! {
            splat(value: f32) -> Self::F = _mm512_set1_ps(value);
            load(from: &[f32; WIDTH]) -> Self::F = _mm512_loadu_ps(from.as_ptr());
            mul(a: Self::F, b: Self::F) -> Self::F = _mm512_mul_ps(a, b);
            add(a: Self::F, b: Self::F) -> Self::F = _mm512_add_ps(a, b);
            fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F = _mm512_fmadd_ps(a, b, c);
            floor(a: Self::F) -> Self::F = _mm512_roundscale_ps::<DOWN>(a);
            truncate(a: Self::F) -> Self::I = _mm512_cvttps_epi32(a);
            widen(a: Self::F) -> Self::D = {
                let [low, high] = halves(_mm512_castps_si512(a));
                [_mm512_cvtps_pd(_mm256_castsi256_ps(low)), _mm512_cvtps_pd(_mm256_castsi256_ps(high))]
            };
            bits(a: Self::F) -> Self::I = _mm512_castps_si512(a);
            from_bits(a: Self::I) -> Self::F = _mm512_castsi512_ps(a);
            splat_int(value: i32) -> Self::I = _mm512_set1_epi32(value);
            load_int(from: &[i32; WIDTH]) -> Self::I = _mm512_loadu_si512(from.as_ptr().cast());
            load_bits(from: &[u32; WIDTH]) -> Self::I = _mm512_loadu_si512(from.as_ptr().cast());
            store_bits(a: Self::I, to: &mut [u32; WIDTH]) =
                _mm512_storeu_si512(to.as_mut_ptr().cast(), a);
            add_int(a: Self::I, b: Self::I) -> Self::I = _mm512_add_epi32(a, b);
            sub_int(a: Self::I, b: Self::I) -> Self::I = _mm512_sub_epi32(a, b);
            max_int(a: Self::I, b: Self::I) -> Self::I = _mm512_max_epi32(a, b);
            min_int(a: Self::I, b: Self::I) -> Self::I = _mm512_min_epi32(a, b);
            and(a: Self::I, b: Self::I) -> Self::I = _mm512_and_si512(a, b);
            or(a: Self::I, b: Self::I) -> Self::I = _mm512_or_si512(a, b);
            xor(a: Self::I, b: Self::I) -> Self::I = _mm512_xor_si512(a, b);
            shl<BY>(a: Self::I) -> Self::I = _mm512_sllv_epi32(a, _mm512_set1_epi32(BY));
            sar<BY>(a: Self::I) -> Self::I = _mm512_srav_epi32(a, _mm512_set1_epi32(BY));
            sar_by(a: Self::I, by: Self::I) -> Self::I = _mm512_srav_epi32(a, by);
            if_greater(a: Self::I, b: Self::I, yes: Self::I, no: Self::I) -> Self::I =
                _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), no, yes);
            to_single(a: Self::I) -> Self::F = _mm512_cvtepi32_ps(a);
            to_double(a: Self::I) -> Self::D = {
                let [low, high] = halves(a);
                [_mm512_cvtepi32_pd(low), _mm512_cvtepi32_pd(high)]
            };
            power(a: Self::I) -> Self::D = {
                let [low, high] = halves(_mm512_add_epi32(a, _mm512_set1_epi32(1023)));
                let one = |a| _mm512_castsi512_pd(_mm512_slli_epi64::<52>(_mm512_cvtepi32_epi64(a)));
                [one(low), one(high)]
            };
            splat_double(value: f64) -> Self::D = [_mm512_set1_pd(value); 2];
            load_double(from: &[f64; WIDTH]) -> Self::D =
                [_mm512_loadu_pd(from.as_ptr()), _mm512_loadu_pd(from.as_ptr().add(8))];
            store_double(a: Self::D, to: &mut [f64; WIDTH]) = {
                _mm512_storeu_pd(to.as_mut_ptr(), a[0]);
                _mm512_storeu_pd(to.as_mut_ptr().add(8), a[1]);
            };
            mul_double(a: Self::D, b: Self::D) -> Self::D =
                [_mm512_mul_pd(a[0], b[0]), _mm512_mul_pd(a[1], b[1])];
            add_double(a: Self::D, b: Self::D) -> Self::D =
                [_mm512_add_pd(a[0], b[0]), _mm512_add_pd(a[1], b[1])];
            fma_double(a: Self::D, b: Self::D, c: Self::D) -> Self::D =
                [_mm512_fmadd_pd(a[0], b[0], c[0]), _mm512_fmadd_pd(a[1], b[1], c[1])];
            floor_double(a: Self::D) -> Self::D =
                [_mm512_roundscale_pd::<DOWN>(a[0]), _mm512_roundscale_pd::<DOWN>(a[1])];
            max_double(a: Self::D, b: Self::D) -> Self::D =
                [_mm512_max_pd(a[0], b[0]), _mm512_max_pd(a[1], b[1])];
            leading(a: Self::D) -> Self::D = {
                let mask = _mm512_castsi512_pd(_mm512_set1_epi64(EXPONENT as i64));
                [_mm512_and_pd(a[0], mask), _mm512_and_pd(a[1], mask)]
            };
            invert(a: Self::D) -> Self::D = {
                let twice = _mm512_set1_epi64(TWICE_ONE as i64);
                let one = |a| _mm512_castsi512_pd(_mm512_sub_epi64(twice, _mm512_castpd_si512(a)));
                [one(a[0]), one(a[1])]
            };
            narrow(a: Self::D) -> Self::F = {
                let low = _mm256_castps_pd(_mm512_cvtpd_ps(a[0]));
                let high = _mm256_castps_pd(_mm512_cvtpd_ps(a[1]));
                _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castpd256_pd512(low), high))
            };
            truncate_double(a: Self::D) -> Self::I = {
                let (low, high) = (_mm512_cvttpd_epi32(a[0]), _mm512_cvttpd_epi32(a[1]));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            };
        }
    }

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub struct Avx2;

    type F8 = [__m256; 2];
    type I8 = [__m256i; 2];
    type D4 = [__m256d; 4];

    /// One operation on each of the parts of vectors.
    macro_rules! parts2 {
        ($operation:expr; $a:ident) => {
            [$operation($a[0]), $operation($a[1])]
        };
        ($operation:expr; $a:ident, $b:ident) => {
            [$operation($a[0], $b[0]), $operation($a[1], $b[1])]
        };
    }
    macro_rules! parts4 {
        ($operation:expr; $a:ident) => {
            [$operation($a[0]), $operation($a[1]), $operation($a[2]), $operation($a[3])]
        };
        ($operation:expr; $a:ident, $b:ident) => {
            [
                $operation($a[0], $b[0]),
                $operation($a[1], $b[1]),
                $operation($a[2], $b[2]),
                $operation($a[3], $b[3]),
            ]
        };
    }

    /// The four quarters of sixteen integers.
    #[inline(always)]
    unsafe fn quarters(a: I8) -> [__m128i; 4] {
        // SAFETY: the caller has AVX2.
        unsafe {
            [
                _mm256_castsi256_si128(a[0]),
                _mm256_extracti128_si256::<1>(a[0]),
                _mm256_castsi256_si128(a[1]),
                _mm256_extracti128_si256::<1>(a[1]),
            ]
        }
    }

    impl Simd for Avx2 {
        type F = F8;
        type I = I8;
        type D = D4;

        functions! {
            splat(value: f32) -> Self::F = [_mm256_set1_ps(value); 2];
            load(from: &[f32; WIDTH]) -> Self::F =
                [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))];
            mul(a: Self::F, b: Self::F) -> Self::F = parts2!(_mm256_mul_ps; a, b);
            add(a: Self::F, b: Self::F) -> Self::F = parts2!(_mm256_add_ps; a, b);
            fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F =
                [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])];
            floor(a: Self::F) -> Self::F = parts2!(_mm256_floor_ps; a);
            truncate(a: Self::F) -> Self::I = parts2!(_mm256_cvttps_epi32; a);
            widen(a: Self::F) -> Self::D = {
                let quarters = quarters(parts2!(_mm256_castps_si256; a));
                let one = |a| _mm256_cvtps_pd(_mm_castsi128_ps(a));
                parts4!(one; quarters)
            };
            bits(a: Self::F) -> Self::I = parts2!(_mm256_castps_si256; a);
            from_bits(a: Self::I) -> Self::F = parts2!(_mm256_castsi256_ps; a);
            splat_int(value: i32) -> Self::I = [_mm256_set1_epi32(value); 2];
            load_int(from: &[i32; WIDTH]) -> Self::I = [
                _mm256_loadu_si256(from.as_ptr().cast()),
                _mm256_loadu_si256(from.as_ptr().add(8).cast()),
            ];
            load_bits(from: &[u32; WIDTH]) -> Self::I = [
                _mm256_loadu_si256(from.as_ptr().cast()),
                _mm256_loadu_si256(from.as_ptr().add(8).cast()),
            ];
            store_bits(a: Self::I, to: &mut [u32; WIDTH]) = {
                _mm256_storeu_si256(to.as_mut_ptr().cast(), a[0]);
                _mm256_storeu_si256(to.as_mut_ptr().add(8).cast(), a[1]);
            };
            add_int(a: Self::I, b: Self::I) -> Self::I = parts2!(_mm256_add_epi32; a, b);
            sub_int(a: Self::I, b: Self::I) -> Self::I = parts2!(_mm256_sub_epi32; a, b);
            max_int(a: Self::I, b: Self::I) -> Self::I = parts2!(_mm256_max_epi32; a, b);
            min_int(a: Self::I, b: Self::I) -> Self::I = parts2!(_mm256_min_epi32; a, b);
            and(a: Self::I, b: Self::I) -> Self::I = parts2!(_mm256_and_si256; a, b);
            or(a: Self::I, b: Self::I) -> Self::I = parts2!(_mm256_or_si256; a, b);
            xor(a: Self::I, b: Self::I) -> Self::I = parts2!(_mm256_xor_si256; a, b);
            shl<BY>(a: Self::I) -> Self::I = parts2!(_mm256_slli_epi32::<BY>; a);
            sar<BY>(a: Self::I) -> Self::I = parts2!(_mm256_srai_epi32::<BY>; a);
            sar_by(a: Self::I, by: Self::I) -> Self::I = parts2!(_mm256_srav_epi32; a, by);
            if_greater(a: Self::I, b: Self::I, yes: Self::I, no: Self::I) -> Self::I = {
                let mask = parts2!(_mm256_cmpgt_epi32; a, b);
                [
                    _mm256_blendv_epi8(no[0], yes[0], mask[0]),
                    _mm256_blendv_epi8(no[1], yes[1], mask[1]),
                ]
            };
            to_single(a: Self::I) -> Self::F = parts2!(_mm256_cvtepi32_ps; a);
            to_double(a: Self::I) -> Self::D = {
                let quarters = quarters(a);
                parts4!(_mm256_cvtepi32_pd; quarters)
            };
            power(a: Self::I) -> Self::D = {
                let bias = _mm256_set1_epi32(1023);
                let biased = |a| _mm256_add_epi32(a, bias);
                let quarters = quarters(parts2!(biased; a));
                let one = |a| _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_cvtepi32_epi64(a)));
                parts4!(one; quarters)
            };
            splat_double(value: f64) -> Self::D = [_mm256_set1_pd(value); 4];
            load_double(from: &[f64; WIDTH]) -> Self::D = [
                _mm256_loadu_pd(from.as_ptr()),
                _mm256_loadu_pd(from.as_ptr().add(4)),
                _mm256_loadu_pd(from.as_ptr().add(8)),
                _mm256_loadu_pd(from.as_ptr().add(12)),
            ];
            store_double(a: Self::D, to: &mut [f64; WIDTH]) = {
                for (at, part) in a.into_iter().enumerate() {
                    _mm256_storeu_pd(to.as_mut_ptr().add(4 * at), part);
                }
            };
            mul_double(a: Self::D, b: Self::D) -> Self::D = parts4!(_mm256_mul_pd; a, b);
            add_double(a: Self::D, b: Self::D) -> Self::D = parts4!(_mm256_add_pd; a, b);
            fma_double(a: Self::D, b: Self::D, c: Self::D) -> Self::D = [
                _mm256_fmadd_pd(a[0], b[0], c[0]),
                _mm256_fmadd_pd(a[1], b[1], c[1]),
                _mm256_fmadd_pd(a[2], b[2], c[2]),
                _mm256_fmadd_pd(a[3], b[3], c[3]),
            ];
            floor_double(a: Self::D) -> Self::D = parts4!(_mm256_floor_pd; a);
            max_double(a: Self::D, b: Self::D) -> Self::D = parts4!(_mm256_max_pd; a, b);
            leading(a: Self::D) -> Self::D = {
                let mask = _mm256_castsi256_pd(_mm256_set1_epi64x(EXPONENT as i64));
                let one = |a| _mm256_and_pd(a, mask);
                parts4!(one; a)
            };
            invert(a: Self::D) -> Self::D = {
                let twice = _mm256_set1_epi64x(TWICE_ONE as i64);
                let one = |a| _mm256_castsi256_pd(_mm256_sub_epi64(twice, _mm256_castpd_si256(a)));
                parts4!(one; a)
            };
            narrow(a: Self::D) -> Self::F = {
                let singles = parts4!(_mm256_cvtpd_ps; a);
                [_mm256_set_m128(singles[1], singles[0]), _mm256_set_m128(singles[3], singles[2])]
            };
            truncate_double(a: Self::D) -> Self::I = {
                let whole = parts4!(_mm256_cvttpd_epi32; a);
                [_mm256_set_m128i(whole[1], whole[0]), _mm256_set_m128i(whole[3], whole[2])]
            };
        }
    }
}
