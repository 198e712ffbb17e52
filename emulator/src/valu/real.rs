//! Operations on real numbers: the host's arithmetic in nearly all lanes, the exact one of
//! [`crate::arith`] where the host's is not enough.
//!
//! An operation here has two functions of one lane. The fast one is right whenever the mode
//! register asks for rounding to nearest and the result is no NaN; it runs over whole rows. The
//! exact one knows the mode; it runs for the lanes whose result is a NaN (a host's NaN has bits of
//! its own), and for all of them in other modes.

#![allow(unsafe_code)]

use super::op::{
    BLOCK, Bf16, Block, Carry, CarryFn, Core, F16, Lane, Map, MapFn, Mode, Op, Sources, block_of,
    conjure, registers, vectorized,
};
use crate::number::{is_nan_bf16, is_nan_f16};
use crate::wave::{LANES, Wave, mode};

/// A result that the host may get wrong.
pub trait Result: Lane {
    /// Bits of the mode register; while they are zero, the fast function's results stand.
    const MODE: u32;
    /// Whether it is a NaN.
    fn is_nan(self) -> bool;
}

impl Result for f32 {
    const MODE: u32 = 3;
    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
}

impl Result for f64 {
    const MODE: u32 = 12;
    #[inline(always)]
    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }
}

impl Result for F16 {
    const MODE: u32 = 12 | mode::FP16_OVFL;
    #[inline(always)]
    fn is_nan(self) -> bool {
        is_nan_f16(self.0)
    }
}

impl Result for Bf16 {
    const MODE: u32 = 3;
    #[inline(always)]
    fn is_nan(self) -> bool {
        is_nan_bf16(self.0)
    }
}

macro_rules! arity {
    ($real:ident, $body:ident, $fix:ident, $vector:ident,
     $($type:ident $value:ident $index:literal),+) => {
        /// An operation from its fast and its exact function.
        pub fn $real<$($type: Lane,)+ R: Result, F, G>(_: F, _: G) -> Op
        where
            F: Fn($($type),+) -> R + Copy,
            G: Fn(Mode, $($type),+) -> R + Copy,
        {
            let map = $vector::<$($type,)+ R, F, G> as MapFn;
            Op::new(&[$($type::KIND),+], R::KIND, Core::Map(Map(map)))
        }

        #[inline(always)]
        fn $body<
            $($type: Lane,)+ R: Result,
            F: Fn($($type),+) -> R + Copy, G: Fn(Mode, $($type),+) -> R + Copy,
        >(
            wave: &mut Wave, destination: usize, exec: u64, sources: Sources,
        ) {
            let fast = conjure::<F>();
            let is_plain = wave.mode & R::MODE == 0;
            for index in 0..LANES / BLOCK {
                let mask = block_of(exec, index);
                if mask == 0 {
                    continue;
                }
                let mut odd = u32::from(!is_plain);
                $(let $value = registers::<$type>(&wave.rows, sources[$index], index);)+
                let mut block = Block::compute(|lane| {
                    let result = fast($($type::from_bits($value.0[lane], $value.1[lane])),+);
                    odd |= u32::from(result.is_nan());
                    result
                });
                if odd != 0 {
                    $fix::<$($type,)+ R, G>(
                        Mode(wave.mode), mask, !is_plain, &mut block, $($value),+
                    );
                }
                block.store::<R>(&mut wave.rows, destination, index, mask);
            }
        }

        #[cold]
        #[inline(never)]
        fn $fix<$($type: Lane,)+ R: Result, G: Fn(Mode, $($type),+) -> R + Copy>(
            mode: Mode, mask: u32, all: bool, block: &mut Block,
            $($value: (&[u32; BLOCK], &[u32; BLOCK])),+
        ) {
            let exact = conjure::<G>();
            for lane in (0..BLOCK).filter(|lane| mask >> lane & 1 != 0) {
                if all || block.get::<R>(lane).is_nan() {
                    let result =
                        exact(mode, $($type::from_bits($value.0[lane], $value.1[lane])),+);
                    block.set(lane, result);
                }
            }
        }

        vectorized!(
            $vector, $body,
            [
                $($type: Lane,)+ R: Result,
                F: Fn($($type),+) -> R + Copy, G: Fn(Mode, $($type),+) -> R + Copy
            ],
            [$($type,)+ R, F, G],
            (wave: &mut Wave, destination: usize, exec: u64, sources: Sources)
        );
    };
}

/// An operation of three numbers that does something else in the lanes of a mask that it reads:
/// its fast function is right where the lane's bit is zero, its exact one is told the bit.
pub fn masked3<T: Result, F, G>(_: F, _: G) -> Op
where
    F: Fn(T, T, T) -> T + Copy,
    G: Fn(Mode, T, T, T, bool) -> T + Copy,
{
    let carry = masked3_vector::<T, F, G> as CarryFn;
    Op::new(&[T::KIND; 3], T::KIND, Core::Carry(Carry(carry)))
}

#[inline(always)]
fn masked3_body<T: Result, F: Fn(T, T, T) -> T + Copy, G: Fn(Mode, T, T, T, bool) -> T + Copy>(
    wave: &mut Wave,
    destination: usize,
    exec: u64,
    sources: Sources,
    mask: u64,
) -> u64 {
    let (fast, exact) = (conjure::<F>(), conjure::<G>());
    let is_plain = wave.mode & T::MODE == 0;
    let operand =
        |x: (&[u32; BLOCK], &[u32; BLOCK]), lane: usize| T::from_bits(x.0[lane], x.1[lane]);
    for index in 0..LANES / BLOCK {
        let (write, read) = (block_of(exec, index), block_of(mask, index));
        let [a, b, c, _] = sources.map(|row| registers::<T>(&wave.rows, row, index));
        let mut odd = u32::from(!is_plain || read & write != 0);
        let mut block = Block::compute(|lane| {
            let result = fast(operand(a, lane), operand(b, lane), operand(c, lane));
            odd |= u32::from(result.is_nan());
            result
        });
        if odd != 0 {
            for lane in (0..BLOCK).filter(|lane| write >> lane & 1 != 0) {
                let bit = read >> lane & 1 != 0;
                if !is_plain || bit || block.get::<T>(lane).is_nan() {
                    let (a, b, c) = (operand(a, lane), operand(b, lane), operand(c, lane));
                    block.set(lane, exact(Mode(wave.mode), a, b, c, bit));
                }
            }
        }
        block.store::<T>(&mut wave.rows, destination, index, write);
    }
    0
}

vectorized!(
    masked3_vector, masked3_body,
    [T: Result, F: Fn(T, T, T) -> T + Copy, G: Fn(Mode, T, T, T, bool) -> T + Copy],
    [T, F, G],
    (wave: &mut Wave, destination: usize, exec: u64, sources: Sources, mask: u64) -> u64
);

arity!(real1, real1_body, real1_fix, real1_vector, A a 0);
arity!(real2, real2_body, real2_fix, real2_vector, A a 0, B b 1);
arity!(real3, real3_body, real3_fix, real3_vector, A a 0, B b 1, C c 2);
