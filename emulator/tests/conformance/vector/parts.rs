//! Parts of registers (SDWA).

/// A part of a register: byte 0 to 3 (0–3), word 0 or 1 (4, 5), all (6).
pub const NAMES: [&str; 7] = ["BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3", "WORD_0", "WORD_1", "DWORD"];
pub const UNUSED: [&str; 3] = ["UNUSED_PAD", "UNUSED_SEXT", "UNUSED_PRESERVE"];

#[derive(Clone, Debug)]
pub struct Sdwa {
    pub dst: usize,
    pub unused: usize,
    pub src: [usize; 2],
    pub sext: [bool; 2],
}

pub fn place(sel: usize) -> (u32, u32) {
    match sel {
        0..=3 => (8 * sel as u32, 8),
        4 | 5 => (16 * (sel as u32 - 4), 16),
        _ => (0, 32),
    }
}

impl Sdwa {
    /// A source's part.
    pub fn select(&self, index: usize, bits: u64) -> u64 {
        let (shift, width) = place(self.src[index]);
        let part = bits >> shift & ((1 << width) - 1);
        if self.sext[index] && part >> (width - 1) & 1 == 1 {
            (part | u64::MAX << width) & 0xffff_ffff
        } else {
            part
        }
    }

    /// The old destination with the result in its part.
    pub fn merge(&self, old: u64, result: u64) -> u64 {
        let (shift, width) = place(self.dst);
        let mask = ((1_u64 << width) - 1) << shift;
        let placed = result << shift & mask;
        match self.unused {
            0 => placed,
            1 => {
                let negative = placed >> (shift + width - 1) & 1 == 1;
                let above = if negative { u64::MAX << (shift + width) } else { 0 };
                (placed | above) & 0xffff_ffff
            }
            _ => old & !mask | placed,
        }
    }
}
