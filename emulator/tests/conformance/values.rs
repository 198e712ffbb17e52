//! Types of operands, and values worth trying for each.

use std::sync::OnceLock;

use crate::exact::{BF16, F16, F32, F64, Format};
use crate::machine::Random;

/// What an operand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum T {
    /// 16 bits.
    B16,
    /// 32 bits.
    B32,
    /// 64 bits.
    B64,
    /// Half.
    F16,
    /// bfloat16.
    Bf16,
    /// Single.
    F32,
    /// Double.
    F64,
    /// Two 16-bit integers in a register.
    PkB16,
    /// Two halves in a register.
    PkF16,
    /// Two bfloat16 in a register.
    PkBf16,
    /// Two singles in a pair of registers.
    PkF32,
    /// Two 32-bit integers in a pair of registers.
    PkB32,
    /// A bit per lane.
    Mask,
    /// A literal that belongs to the instruction, single.
    K32,
    /// A literal that belongs to the instruction, half.
    K16,
}

impl T {
    /// Registers of the operand.
    pub fn rows(self) -> usize {
        match self {
            T::B64 | T::F64 | T::PkF32 | T::PkB32 => 2,
            _ => 1,
        }
    }

    /// Bits of the operand.
    pub fn bits(self) -> u32 {
        match self {
            T::B16 | T::F16 | T::Bf16 | T::K16 => 16,
            T::B64 | T::F64 | T::PkF32 | T::PkB32 => 64,
            _ => 32,
        }
    }

    /// The format of its elements, if it has floating-point ones.
    pub fn format(self) -> Option<Format> {
        Some(match self {
            T::F16 | T::PkF16 | T::K16 => F16,
            T::Bf16 | T::PkBf16 => BF16,
            T::F32 | T::PkF32 | T::K32 => F32,
            T::F64 => F64,
            _ => return None,
        })
    }

    /// Bits of an element.
    pub fn element_bits(self) -> u32 {
        match self {
            T::PkB16 | T::PkF16 | T::PkBf16 => 16,
            T::PkF32 | T::PkB32 => 32,
            other => other.bits(),
        }
    }

    /// Two elements in one operand.
    pub fn is_packed(self) -> bool {
        self.element_bits() != self.bits()
    }

    /// 16 bits in half of a register.
    pub fn is_half(self) -> bool {
        matches!(self, T::B16 | T::F16 | T::Bf16)
    }

    /// A value: mostly one at an edge, otherwise any.
    pub fn sample(self, random: &mut Random) -> u64 {
        let one = |random: &mut Random| sample_element(self, random);
        let low = one(random);
        if !self.is_packed() {
            return low;
        }
        // Halves that are equal would hide which of them was read.
        low | one(random) << self.element_bits()
    }

    /// Every edge value of an element.
    pub fn edges(self) -> &'static [u64] {
        static EDGES: [OnceLock<Vec<u64>>; 32] = [const { OnceLock::new() }; 32];
        EDGES[self as usize].get_or_init(|| match (self.format(), self.element_bits()) {
            (Some(format), _) => float_edges(format),
            (None, bits) => int_edges(bits),
        })
    }
}

fn sample_element(t: T, random: &mut Random) -> u64 {
    let width = t.element_bits();
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    if random.below(10) < 6 {
        return random.pick(t.edges());
    }
    let bits = random.bits() & mask;
    match t.format() {
        // Half of the others near one, so that sums and products neither overflow nor vanish.
        Some(format) if random.once_in(2) => {
            let field = (1 << format.exponent) - 1;
            let near = (format.bias as u64).wrapping_add(random.below(12) as u64).wrapping_sub(6);
            bits & !(field << format.fraction) | (near & field) << format.fraction
        }
        _ if random.once_in(3) => bits >> random.below(width as usize),
        _ => bits,
    }
}

/// Integers at edges: counts, powers of two and their neighbours.
fn int_edges(bits: u32) -> Vec<u64> {
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let mut list: Vec<u64> = vec![0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 24, 31, 32, 33, 47, 63, 64, 65];
    for power in [8, 15, 16, 23, 24, 31, 32, 63] {
        if power < bits {
            let one = 1 << power;
            list.extend([one, one - 1, one + 1]);
        }
    }
    list.extend([u64::MAX, u64::MAX - 1, u64::MAX << (bits - 1), (u64::MAX << (bits - 1)) + 1]);
    list.extend([mask >> 1, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa, 0x8040_2010_0804_0201]);
    list.extend([0x00ff_7f80_0100_8001, (-16_i64) as u64, 0x7fff_8000, 0x8000_7fff]);
    list.iter_mut().for_each(|value| *value &= mask);
    list.sort_unstable();
    list.dedup();
    list
}

/// Floating-point values at edges.
fn float_edges(format: Format) -> Vec<u64> {
    let one = (format.bias as u64) << format.fraction;
    let power = |exponent: i32| ((format.bias + exponent) as u64) << format.fraction;
    let half_fraction = 1 << (format.fraction - 1);
    let infinity = format.infinity();
    let mut list = vec![0, 1, 2, half_fraction, (1 << format.fraction) - 1];
    list.extend([1 << format.fraction, (1 << format.fraction) + 1, 2 << format.fraction]);
    list.extend([one, one + 1, one - 1, one | half_fraction, power(1), power(-1), power(-2)]);
    list.extend([power(1) | half_fraction, power(2), power(1) | half_fraction >> 1]);
    list.extend([infinity - 1, infinity, infinity - (1 << format.fraction)]);
    // NaNs: quiet, quiet with more bits, signaling.
    list.extend([infinity | half_fraction, infinity | half_fraction | 5, infinity | 1]);
    let host: &[f64] = match format.exponent {
        5 => &[0.15915494, 255.5, 1024.5, 2047.0, 2048.0, 32768.0, 65504.0, 0.33325, 3.1406],
        _ => &[
            0.159_154_943_091_895_35,
            2_147_483_648.0,
            2_147_483_520.0,
            4_294_967_296.0,
            4_294_967_040.0,
            16_777_217.0,
            8_388_607.5,
            255.5,
            256.0,
            65504.0,
            65520.0,
            448.0,
            464.0,
            57344.0,
            61440.0,
            6.0,
            7.5,
            28.0,
            0.000_061_035_156_25,
            0.000_000_059_604_644_775_390_625,
            0.000_000_029_802_322_387_695_312,
            0.001_953_125,
            0.1,
            1e10,
            1e-10,
        ],
    };
    for value in host {
        list.push(format.round(crate::exact::Num::from_f64(*value), crate::exact::Round::Even));
    }
    let negative: Vec<u64> = list.iter().map(|bits| bits | format.sign()).collect();
    list.extend(negative);
    list.sort_unstable();
    list.dedup();
    list
}
