//! Sources of vector operations: where their bits come from and what is done to them before the
//! operation sees them.

use super::dpp::Lanes;
use super::op::{Kind, Mode};
use crate::asm::{Operand, Special, Value};
use crate::memory::{APERTURE_BYTES, PRIVATE_APERTURE, SHARED_APERTURE};
use crate::wave::{Row, Wave, scalar};

/// Where an operand comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source {
    /// Rows of vector registers.
    Row(u16),
    /// Scalar registers.
    Scalar(u16),
    /// The same bits in every lane; for 32-bit operands the low half.
    Constant(u64),
    /// Computed when read.
    Special(Special),
}

impl Source {
    /// The source that an operand of kind `kind` names.
    pub fn new(operand: &Operand, kind: Kind) -> Option<Source> {
        Some(match &operand.value {
            Value::Vector(row, _) => Source::Row(*row),
            // As a pair it would take M0 for its high half.
            Value::Scalar(index, _) if usize::from(*index) == scalar::NULL => Source::Constant(0),
            Value::Scalar(index, _) => Source::Scalar(*index),
            Value::Special(Special::LdsDirect) => return None,
            Value::Special(special) => Source::Special(*special),
            Value::Integer(integer) => Source::Constant(*integer as u64),
            Value::Float(float) => Source::Constant(kind.inline_float(*float)),
            Value::Literal(bits) => Source::Constant(kind.literal(*bits)),
            Value::Word(_) => return None,
        })
    }

    /// The value of a source that is the same in every lane.
    pub fn uniform(self, wave: &Wave) -> u64 {
        match self {
            Source::Row(row) => u64::from(wave.rows[usize::from(row)].0[0]),
            Source::Scalar(index) if usize::from(index) + 1 < scalar::COUNT => {
                wave.pair(usize::from(index))
            }
            Source::Scalar(index) => u64::from(wave.sgpr[usize::from(index)]),
            Source::Constant(bits) => bits,
            Source::Special(special) => special_value(special, wave),
        }
    }
}

/// The value of a computed source.
pub fn special_value(special: Special, wave: &Wave) -> u64 {
    match special {
        Special::Scc => u64::from(wave.scc),
        Special::Vccz => u64::from(wave.mask(scalar::VCC) == 0),
        Special::Execz => u64::from(wave.exec() == 0),
        Special::SharedBase => SHARED_APERTURE,
        Special::SharedLimit => SHARED_APERTURE + APERTURE_BYTES - 1,
        Special::PrivateBase => PRIVATE_APERTURE,
        Special::PrivateLimit => PRIVATE_APERTURE + APERTURE_BYTES - 1,
        Special::LdsDirect => 0,
    }
}

/// What is done to the bits of a one-register operand, or to the high register of two: a part is
/// cut out, then the sign is cleared or flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modify {
    left: u32,
    right: u32,
    signed: bool,
    and: u32,
    xor: u32,
}

impl Modify {
    /// Leaves the bits alone.
    pub const NONE: Modify = Modify { left: 0, right: 0, signed: false, and: u32::MAX, xor: 0 };

    /// Takes `width` bits from bit `first` on, extended by zeros or by their sign.
    pub fn part(first: u32, width: u32, signed: bool) -> Modify {
        Modify { left: 32 - width - first, right: 32 - width, signed, ..Modify::NONE }
    }

    /// Absolute value, then negation, of a number whose sign bit is `sign`.
    pub fn with_sign(self, abs: bool, neg: bool, sign: u32) -> Modify {
        let and = if abs { !sign } else { u32::MAX };
        Modify { and, xor: if neg { sign } else { 0 }, ..self }
    }

    #[inline(always)]
    fn apply(self, bits: u32) -> u32 {
        let left = bits << (self.left & 31);
        let cut = if self.signed {
            (left as i32 >> (self.right & 31)) as u32
        } else {
            left >> (self.right & 31)
        };
        cut & self.and ^ self.xor
    }
}

/// A source, what is done to it, and the scratch row in which it is prepared if need be.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// Where it comes from.
    pub source: Source,
    /// How the operation reads it.
    pub kind: Kind,
    /// What is done to its bits.
    pub modify: Modify,
    /// The scratch row.
    pub slot: u16,
}

impl Input {
    /// The row, where the operation can read the register itself.
    pub fn row(&self) -> Option<u16> {
        match self.source {
            Source::Row(row) if self.modify == Modify::NONE => Some(row),
            _ => None,
        }
    }

    /// The first row with the operand's value in every lane: the register itself or the slot.
    /// `lanes` says which lanes' values to take, `offset` is added to the register's number.
    #[inline(always)]
    pub fn prepare(&self, wave: &mut Wave, mode: Mode, lanes: Option<&Lanes>, offset: u16) -> u16 {
        let flush = self.kind.is_float() && !mode.keeps_inputs(self.kind);
        let rows = self.kind.rows();
        let slot = usize::from(self.slot);
        match self.source {
            Source::Row(row) => {
                let row = row + offset;
                let plain = self.modify == Modify::NONE && lanes.is_none();
                if plain && !flush {
                    return row;
                }
                let row = usize::from(row);
                match lanes {
                    None => wave.rows.copy_within(row..row + rows, slot),
                    Some(lanes) => {
                        for index in 0..rows {
                            wave.rows[slot + index] = lanes.gather(&wave.rows[row + index]);
                        }
                    }
                }
                if self.modify != Modify::NONE {
                    for bits in &mut wave.rows[slot + rows - 1].0 {
                        *bits = self.modify.apply(*bits);
                    }
                }
            }
            source => self.broadcast(wave, source.uniform(wave)),
        }
        if flush {
            flush_rows(&mut wave.rows[slot..slot + rows], self.kind);
        }
        self.slot
    }

    /// Fills the slot with a value that is the same in every lane.
    #[inline(always)]
    pub fn broadcast(&self, wave: &mut Wave, bits: u64) {
        let slot = usize::from(self.slot);
        if self.kind.rows() == 2 {
            wave.rows[slot] = Row([bits as u32; 64]);
            wave.rows[slot + 1] = Row([self.modify.apply((bits >> 32) as u32); 64]);
        } else {
            wave.rows[slot] = Row([self.modify.apply(bits as u32); 64]);
        }
    }
}

/// Denormals to zeros of the same sign.
#[inline(always)]
pub fn flush_rows(rows: &mut [Row], kind: Kind) {
    match (kind, rows) {
        (Kind::F32, [row, ..]) => flush_row(row, 0x7f80_0000, 0x8000_0000),
        (Kind::F16, [row, ..]) => flush_row(row, 0x7c00, 0x8000),
        (Kind::F64, [low, high, ..]) => {
            for lane in 0..64 {
                let keep = u32::from(high.0[lane] & 0x7ff0_0000 != 0).wrapping_neg();
                low.0[lane] &= keep;
                high.0[lane] &= keep | 0x8000_0000;
            }
        }
        _ => {}
    }
}

#[inline(always)]
fn flush_row(row: &mut Row, exponent: u32, sign: u32) {
    for bits in &mut row.0 {
        *bits &= u32::from(*bits & exponent != 0).wrapping_neg() | sign;
    }
}
