//! What happens to the result of a vector operation on its way to the register: output scale, clamp,
//! denormals, and the part of the register that it goes to.

use super::op::{Kind, Mode, blend};
use super::operand::flush_rows;
use crate::Chip;
use crate::number::flush_f32;
use crate::wave::{Row, Wave};

/// The part of the destination that a result goes to, and what becomes of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First bit.
    pub shift: u32,
    /// 8, 16 or 32 bits.
    pub width: u32,
    /// The other bits.
    pub rest: Rest,
}

/// The bits of a destination that a result does not go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Zero.
    Zero,
    /// Zero below, copies of the result's sign above.
    Sign,
    /// As they were.
    Keep,
}

impl Place {
    /// The low or the high half; the other stays.
    pub fn half(high: bool) -> Place {
        Place { shift: if high { 16 } else { 0 }, width: 16, rest: Rest::Keep }
    }

    #[inline(always)]
    fn put(self, value: u32, old: u32) -> u32 {
        let mask = u32::MAX >> (32 - self.width) << self.shift;
        let moved = value << self.shift;
        match self.rest {
            Rest::Zero => moved & mask,
            Rest::Sign => {
                let free = 32 - self.width;
                ((value << free) as i32 >> free << self.shift) as u32
            }
            Rest::Keep => moved & mask | old & !mask,
        }
    }
}

/// Output scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// None.
    One,
    /// `mul:2`.
    Double,
    /// `mul:4`.
    Quadruple,
    /// `div:2`.
    Half,
}

/// The way of a result to its register.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// First row of the destination.
    pub row: u16,
    /// What the result is.
    pub kind: Kind,
    /// Clamp to [0, 1].
    pub clamp: bool,
    /// Output scale.
    pub scale: Scale,
    /// Where in the register it goes, if not to all of it.
    pub place: Option<Place>,
    /// The chip, for what its MODE register lacks.
    pub chip: Chip,
}

impl Output {
    /// Whether the operation can write the register itself, denormals apart.
    pub fn is_direct(&self) -> bool {
        !self.clamp && self.scale == Scale::One && self.place.is_none()
    }

    /// Whether the scale counts in MODE, also for an operation that keeps denormals in every mode.
    /// It gives no results of IEEE's, so it works only where MODE asks for none and flushes
    /// denormals; on RDNA 4 it always works. Packed halves have none.
    fn scales_in(&self, mode: Mode) -> bool {
        let obeyed = self.chip == Chip::Gfx1201 || !mode.keeps_outputs(self.kind) && !mode.ieee();
        self.scale != Scale::One && self.kind != Kind::Halves && obeyed
    }

    /// Whether it can do so in a mode.
    #[inline(always)]
    pub fn is_direct_in(&self, mode: Mode) -> bool {
        self.is_direct() && mode.keeps_outputs(self.kind)
    }

    /// Finishes the result that lies in `from` and writes the lanes in `exec`.
    #[inline(always)]
    pub fn finish(&self, wave: &mut Wave, mode: Mode, from: usize, exec: u64, row: u16) {
        let rows = self.kind.rows();
        let keeps = mode.keeps_outputs(self.kind);
        let result = &mut wave.rows[from..from + rows];
        if !keeps {
            flush_rows(result, self.kind);
        }
        if self.scales_in(Mode(wave.mode)) {
            let result = &mut wave.rows[from..from + rows];
            flush_rows(result, self.kind);
            scale_rows(result, self.kind, self.scale);
        }
        let result = &mut wave.rows[from..from + rows];
        if self.clamp {
            let zero_nan = mode.dx10_clamp() || self.chip == Chip::Gfx1201;
            clamp_rows(result, self.kind, zero_nan);
        }
        let row = usize::from(row);
        let width = if wave.lanes == 64 { 64 } else { 32 };
        for index in 0..rows {
            let mut value = wave.rows[from + index];
            if let Some(place) = self.place {
                let old = &wave.rows[row + index].0;
                for lane in 0..64 {
                    value.0[lane] = place.put(value.0[lane], old[lane]);
                }
            }
            blend(&mut wave.rows[row + index], exec, width, &value.0);
        }
    }
}

/// Applies a function to each double of two rows.
#[inline(always)]
fn map_f64(rows: &mut [Row], f: impl Fn(f64) -> f64) {
    let [low, high, ..] = rows else { return };
    for lane in 0..64 {
        let bits = u64::from(low.0[lane]) | u64::from(high.0[lane]) << 32;
        let bits = f(f64::from_bits(bits)).to_bits();
        (low.0[lane], high.0[lane]) = (bits as u32, (bits >> 32) as u32);
    }
}

/// Applies a function to each 32-bit value of a row.
#[inline(always)]
fn map_bits(rows: &mut [Row], f: impl Fn(u32) -> u32) {
    for bits in &mut rows[0].0 {
        *bits = f(*bits);
    }
}

fn scale_rows(rows: &mut [Row], kind: Kind, scale: Scale) {
    let factor = match scale {
        Scale::One => 1.0,
        Scale::Double => 2.0,
        Scale::Quadruple => 4.0,
        Scale::Half => 0.5,
    };
    // Denormals become zeros, and negative zeros positive ones.
    match kind {
        Kind::F32 => {
            map_bits(rows, |bits| (flush_f32(f32::from_bits(bits) * factor as f32) + 0.0).to_bits())
        }
        Kind::F64 => map_f64(rows, |value| {
            let scaled = value * factor;
            if scaled.abs() < f64::MIN_POSITIVE { 0.0 } else { scaled }
        }),
        Kind::F16 => map_bits(rows, |bits| u32::from(scale_half(bits as u16, scale))),
        _ => {}
    }
}

/// Scales half-precision bits. Denormals were flushed before, so only the exponent moves.
fn scale_half(bits: u16, scale: Scale) -> u16 {
    let exponent = i32::from(bits >> 10 & 31);
    let sign = bits & 0x8000;
    let moved = match scale {
        Scale::One => exponent,
        Scale::Double => exponent + 1,
        Scale::Quadruple => exponent + 2,
        Scale::Half => exponent - 1,
    };
    match (exponent, moved) {
        (31, _) => bits,
        (0, _) => 0,
        (_, ..=0) => 0,
        (_, 31..) => sign | 0x7c00,
        _ => bits & 0x83ff | (moved as u16) << 10,
    }
}

#[inline(always)]
fn clamp_rows(rows: &mut [Row], kind: Kind, zero_nan: bool) {
    match kind {
        Kind::F32 => {
            map_bits(rows, |bits| clamp_bits(bits, 0x7f80_0000, 0x3f80_0000, 31, zero_nan))
        }
        Kind::F16 => map_bits(rows, |bits| clamp_bits(bits & 0xffff, 0x7c00, 0x3c00, 15, zero_nan)),
        Kind::Halves => map_bits(rows, |bits| {
            let clamped = |half| clamp_bits(half, 0x7c00, 0x3c00, 15, zero_nan);
            clamped(bits & 0xffff) | clamped(bits >> 16) << 16
        }),
        Kind::Bf16 => {
            map_bits(rows, |bits| clamp_bits(bits & 0xffff, 0x7f80, 0x3f80, 15, zero_nan))
        }
        Kind::F64 => map_f64(rows, |value| {
            if value.is_nan() {
                if zero_nan { 0.0 } else { value }
            } else if value > 0.0 {
                if value > 1.0 { 1.0 } else { value }
            } else {
                0.0
            }
        }),
        _ => {}
    }
}

/// Clamps the bits of a number to [0, 1]: positive numbers are ordered as their bits are.
#[inline(always)]
fn clamp_bits(bits: u32, infinity: u32, one: u32, sign: u32, zero_nan: bool) -> u32 {
    let magnitude = bits & !(1 << sign);
    let inside = if bits >> sign != 0 { 0 } else { magnitude.min(one) };
    let nan = if zero_nan { 0 } else { bits };
    if magnitude > infinity { nan } else { inside }
}
