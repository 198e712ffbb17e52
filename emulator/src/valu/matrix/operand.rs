//! Reads A and B from registers: elements of every format to singles, with their modifiers.

#![allow(unsafe_code)]

use super::form::Type;
use super::host;
use crate::Chip;
use crate::number::{Fp8, Tiny, bf16_to_f32, f16_to_f32, keeps_f32_inputs};
use crate::wave::{LANES, Row};

/// Elements that the registers of one operand hold at most: 32 in each lane.
pub const ELEMENTS: usize = 32 * LANES;

/// What the bits of A's or B's elements mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// IEEE double.
    F64,
    /// IEEE single.
    F32,
    /// Single whose 13 low bits do not count.
    Xf32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed byte.
    I8,
    /// Unsigned byte.
    U8,
    /// Signed, four bits.
    I4,
    /// Unsigned, four bits.
    U4,
    /// 8-bit float.
    Fp8(Fp8),
    /// 6- or 4-bit float.
    Tiny(Tiny),
}

impl Format {
    /// The format of a type; `signed` of integers of either kind, `select` of f8f6f4.
    pub fn new(of: Type, chip: Chip, signed: bool, select: i64) -> Option<Format> {
        let fnuz = chip.has_fnuz_fp8();
        Some(match (of, select) {
            (Type::F64, _) => Format::F64,
            (Type::F32, _) => Format::F32,
            (Type::Xf32, _) => Format::Xf32,
            (Type::F16, _) => Format::F16,
            (Type::Bf16, _) => Format::Bf16,
            (Type::I8, _) => Format::I8,
            (Type::Iu8, _) => {
                if signed {
                    Format::I8
                } else {
                    Format::U8
                }
            }
            (Type::Iu4, _) => {
                if signed {
                    Format::I4
                } else {
                    Format::U4
                }
            }
            (Type::Fp8, _) => Format::Fp8(if fnuz { Fp8::E4m3Fnuz } else { Fp8::E4m3 }),
            (Type::Bf8, _) => Format::Fp8(if fnuz { Fp8::E5m2Fnuz } else { Fp8::E5m2 }),
            (Type::F8f6f4, 0) => Format::Fp8(Fp8::E4m3),
            (Type::F8f6f4, 1) => Format::Fp8(Fp8::E5m2),
            (Type::F8f6f4, 2) => Format::Tiny(Tiny::E2m3),
            (Type::F8f6f4, 3) => Format::Tiny(Tiny::E3m2),
            (Type::F8f6f4, 4) => Format::Tiny(Tiny::E2m1),
            (Type::F8f6f4 | Type::I32, _) => return None,
        })
    }

    /// Bits of an element.
    pub fn bits(self) -> usize {
        match self {
            Format::F64 => 64,
            Format::F32 | Format::Xf32 => 32,
            Format::F16 | Format::Bf16 => 16,
            Format::I8 | Format::U8 | Format::Fp8(_) => 8,
            Format::I4 | Format::U4 => 4,
            Format::Tiny(tiny) => tiny.bits() as usize,
        }
    }

    /// The smallest exponent of a normal number, which denormals share.
    pub fn lowest_exponent(self) -> i32 {
        match self {
            Format::F16 => -14,
            Format::Fp8(format) => 1 - format.bias(),
            _ => -126,
        }
    }

    /// The values of all bit patterns, for formats of few bits.
    fn table(self) -> Option<Box<[f32; 256]>> {
        match self {
            Format::Fp8(format) => {
                Some(Box::new(std::array::from_fn(|bits| format.to_f32(bits as u8))))
            }
            Format::Tiny(format) => {
                Some(Box::new(std::array::from_fn(|bits| format.to_f32(bits as u8))))
            }
            _ => None,
        }
    }
}

/// What becomes of denormal elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denormals {
    /// They count.
    Keep,
    /// Positive zeros.
    Zero,
    /// Zeros of their sign.
    SignedZero,
    /// As the mode register says about singles.
    ByMode,
}

/// A or B: where it is, and how it is read.
#[derive(Debug, Clone)]
pub struct Input {
    /// First row of registers.
    pub row: usize,
    /// What the elements are.
    pub format: Format,
    /// How many each lane holds.
    pub elements: usize,
    /// Sign bits to flip in even and odd elements.
    pub flip: [u32; 2],
    /// What becomes of denormals.
    pub denormals: Denormals,
    /// From which quarter of the lanes each quarter reads.
    pub quarters: [usize; 4],
    table: Option<Box<[f32; 256]>>,
    reader: Reader,
}

type Reader = unsafe fn(&Input, &[Row], &mut [f32; ELEMENTS], u32);

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,f16c,bmi2"))]
unsafe fn read_avx2(input: &Input, rows: &[Row], out: &mut [f32; ELEMENTS], mode: u32) {
    input.read(rows, out, mode);
}

#[cfg_attr(
    target_arch = "x86_64",
    target_feature(enable = "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl")
)]
unsafe fn read_avx512(input: &Input, rows: &[Row], out: &mut [f32; ELEMENTS], mode: u32) {
    input.read(rows, out, mode);
}

/// Every quarter of the lanes reads itself.
pub const IDENTITY: [usize; 4] = [0, 1, 2, 3];

impl Input {
    /// An operand without modifiers.
    pub fn new(row: usize, format: Format, elements: usize) -> Input {
        let table = format.table();
        let (flip, denormals, quarters) = ([0; 2], Denormals::Keep, IDENTITY);
        let reader: Reader = host::choose(read_avx2, read_avx512);
        Input { row, format, elements, flip, denormals, quarters, table, reader }
    }

    /// Registers that the elements take.
    pub fn registers(&self) -> usize {
        (self.elements * self.format.bits()).div_ceil(32)
    }

    /// One register with its lanes permuted.
    #[inline(always)]
    fn register(&self, rows: &[Row], index: usize) -> [u32; LANES] {
        let row = &rows[self.row + index].0;
        if self.quarters == IDENTITY {
            return *row;
        }
        let mut permuted = [0; LANES];
        for (quarter, source) in self.quarters.iter().enumerate() {
            permuted[16 * quarter..][..16].copy_from_slice(&row[16 * source..][..16]);
        }
        permuted
    }

    /// All elements as singles, which hold every format but doubles exactly.
    pub fn unpack(&self, rows: &[Row], out: &mut [f32; ELEMENTS], mode: u32) {
        // SAFETY: `choose` picked a version that this host has the instructions for.
        unsafe { (self.reader)(self, rows, out, mode) }
    }

    #[inline(always)]
    fn read(&self, rows: &[Row], out: &mut [f32; ELEMENTS], mode: u32) {
        match self.format {
            Format::F64 => {}
            Format::F32 => self.each(rows, out, 1, |bits, _| f32::from_bits(bits)),
            Format::Xf32 => self.each(rows, out, 1, |bits, _| f32::from_bits(bits & !0x1fff)),
            Format::F16 => {
                self.each(rows, out, 2, |bits, at| f16_to_f32((bits >> (16 * at)) as u16))
            }
            Format::Bf16 => {
                self.each(rows, out, 2, |bits, at| bf16_to_f32((bits >> (16 * at)) as u16));
            }
            Format::I8 => {
                self.each(rows, out, 4, |bits, at| (((bits << (24 - 8 * at)) as i32) >> 24) as f32)
            }
            Format::U8 => {
                self.each(rows, out, 4, |bits, at| (bits >> (8 * at) & 0xff) as i32 as f32)
            }
            Format::I4 => {
                self.each(rows, out, 8, |bits, at| (((bits << (28 - 4 * at)) as i32) >> 28) as f32)
            }
            Format::U4 => {
                self.each(rows, out, 8, |bits, at| (bits >> (4 * at) & 0xf) as i32 as f32)
            }
            Format::Fp8(_) => self.look_up(rows, out),
            Format::Tiny(_) => self.look_up(rows, out),
        }
        self.modify(out, mode);
    }

    /// Elements of which `count` are in a register; `convert` gets the register and which it is.
    #[inline(always)]
    fn each(
        &self,
        rows: &[Row],
        out: &mut [f32; ELEMENTS],
        count: u32,
        convert: impl Fn(u32, u32) -> f32 + Copy,
    ) {
        let (chunks, _) = out.as_chunks_mut::<LANES>();
        for (element, chunk) in chunks.iter_mut().take(self.elements).enumerate() {
            let register = self.register(rows, element / count as usize);
            let at = (element % count as usize) as u32;
            for lane in 0..LANES {
                chunk[lane] = convert(register[lane], at);
            }
        }
    }

    /// Elements of at most eight bits, which may straddle two registers.
    #[inline(always)]
    fn look_up(&self, rows: &[Row], out: &mut [f32; ELEMENTS]) {
        let Some(table) = &self.table else { return };
        let bits = self.format.bits();
        let mask = (1_u64 << bits) - 1;
        let last = self.registers() - 1;
        let (chunks, _) = out.as_chunks_mut::<LANES>();
        for (element, chunk) in chunks.iter_mut().take(self.elements).enumerate() {
            let (word, shift) = (element * bits / 32, (element * bits % 32) as u32);
            let low = self.register(rows, word);
            let high = self.register(rows, last.min(word + 1));
            for lane in 0..LANES {
                let pair = u64::from(low[lane]) | u64::from(high[lane]) << 32;
                chunk[lane] = table[(pair >> shift & mask) as usize & 0xff];
            }
        }
    }

    #[inline(always)]
    fn modify(&self, out: &mut [f32; ELEMENTS], mode: u32) {
        let kept_sign = match self.denormals {
            Denormals::Keep => None,
            Denormals::Zero => Some(0),
            Denormals::SignedZero => Some(1 << 31),
            Denormals::ByMode if keeps_f32_inputs(mode) => None,
            Denormals::ByMode => Some(1 << 31),
        };
        if let Some(kept_sign) = kept_sign {
            let smallest =
                if self.format == Format::F16 { 1.0 / 16384.0 } else { f32::MIN_POSITIVE };
            for value in &mut out[..self.elements * LANES] {
                let keep = if value.abs() < smallest { kept_sign } else { u32::MAX };
                *value = f32::from_bits(value.to_bits() & keep);
            }
        }
        if self.flip != [0; 2] {
            let (chunks, _) = out.as_chunks_mut::<LANES>();
            for (element, chunk) in chunks.iter_mut().take(self.elements).enumerate() {
                let flip = self.flip[element % 2];
                for value in chunk {
                    *value = f32::from_bits(value.to_bits() ^ flip);
                }
            }
        }
    }
}
