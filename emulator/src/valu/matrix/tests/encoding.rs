//! Bits of small integers in every element type, from the definitions of the formats.

use super::super::form::Type;
use crate::Chip;

/// Bits of an element; `select` is CBSZ or BLGP of f8f6f4.
pub fn width(of: Type, select: usize) -> usize {
    match of {
        Type::F64 => 64,
        Type::F32 | Type::Xf32 | Type::I32 => 32,
        Type::F16 | Type::Bf16 => 16,
        Type::I8 | Type::Iu8 | Type::Fp8 | Type::Bf8 => 8,
        Type::Iu4 => 4,
        Type::F8f6f4 => [8, 8, 6, 6, 4][select],
    }
}

/// The bits of an integer from -3 to 3 in a type; integers of either kind are signed.
pub fn encode(of: Type, select: usize, chip: Chip, value: i32) -> u64 {
    let magnitude = value.unsigned_abs() as usize;
    // Bits of 0, 1, 2 and 3.
    let float = |table: [u64; 4], sign: u64| table[magnitude] | if value < 0 { sign } else { 0 };
    let fnuz = chip == Chip::Gfx942;
    match (of, select) {
        (Type::F64, _) => f64::from(value).to_bits(),
        (Type::F32 | Type::Xf32, _) => u64::from((value as f32).to_bits()),
        (Type::F16, _) => float([0, 0x3c00, 0x4000, 0x4200], 0x8000),
        (Type::Bf16, _) => float([0, 0x3f80, 0x4000, 0x4040], 0x8000),
        (Type::I32, _) => u64::from(value as u32),
        (Type::I8 | Type::Iu8, _) => u64::from(value as u8),
        (Type::Iu4, _) => u64::from(value as u8 & 0xf),
        (Type::Fp8, _) if fnuz => float([0, 0x40, 0x48, 0x4c], 0x80),
        (Type::Bf8, _) if fnuz => float([0, 0x40, 0x44, 0x46], 0x80),
        (Type::Fp8, _) | (Type::F8f6f4, 0) => float([0, 0x38, 0x40, 0x44], 0x80),
        (Type::Bf8, _) | (Type::F8f6f4, 1) => float([0, 0x3c, 0x40, 0x42], 0x80),
        (Type::F8f6f4, 2) => float([0, 0x08, 0x10, 0x14], 0x20),
        (Type::F8f6f4, 3) => float([0, 0x0c, 0x10, 0x12], 0x20),
        (Type::F8f6f4, _) => float([0, 0x02, 0x04, 0x05], 0x08),
    }
}

/// The number that a result's bits are, if it is one of C's types.
pub fn decode(of: Type, bits: u64) -> f64 {
    match of {
        Type::F64 => f64::from_bits(bits),
        Type::F32 => f64::from(f32::from_bits(bits as u32)),
        Type::I32 => f64::from(bits as u32 as i32),
        Type::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
        Type::F16 => {
            let (exponent, fraction) = ((bits >> 10 & 31) as i32, (bits & 0x3ff) as f64);
            let magnitude = match exponent {
                0 => fraction * 2_f64.powi(-24),
                _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
            };
            if bits & 0x8000 != 0 { -magnitude } else { magnitude }
        }
        _ => panic!("no type of C"),
    }
}
