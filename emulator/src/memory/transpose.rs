//! Loads that transpose a matrix between the lanes.
//!
//! gfx950's LDS reads: 16 lanes hold a matrix with 16 columns, row after row, and lane c gets
//! column c. gfx12's global load of 16-bit elements: 8 lanes hold 8 rows of 8 elements, and lane c
//! gets column c.

use super::address::Locate;
use super::cell::Cell;
use super::transfer::lanes_of;
use crate::probe::Kind;
use crate::wave::{Exec, Fault, LANES, Row};

/// What is transposed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Bits of an element.
    pub(super) bits: usize,
    /// Words that each lane reads and gets.
    pub(super) words: usize,
    /// Columns of the matrix, and lanes that hold it.
    pub(super) columns: usize,
}

impl Shape {
    /// The shape of an LDS read by the part of its name behind `ds_read_`.
    pub(super) fn lds(name: &str) -> Option<Shape> {
        let (bits, words) = match name {
            "b64_tr_b16" => (16, 2),
            "b64_tr_b8" => (8, 2),
            "b64_tr_b4" => (4, 2),
            "b96_tr_b6" => (6, 3),
            _ => return None,
        };
        Some(Shape { bits, words, columns: 16 })
    }

    /// The shape of gfx12's global load of 16-bit elements by a 32-lane wave.
    pub(super) const GLOBAL: Shape = Shape { bits: 16, words: 4, columns: 8 };

    /// Elements that a lane reads.
    fn elements(self) -> usize {
        32 * self.words / self.bits
    }
}

/// The closure of a transposing load into the registers from `row` on.
pub(super) fn load<L: Locate, C: Cell + 'static>(locate: L, row: usize, shape: Shape) -> Exec {
    Box::new(move |wave, group| {
        let exec = wave.exec();
        if exec == 0 {
            return Ok(());
        }
        if exec != wave.all_lanes() {
            let text = "a transposing load with lanes off is undefined";
            return Err(Box::new(Fault::Illegal(text.to_string())));
        }
        let bytes = 4 * shape.words as u32;
        let targets = locate.locate(wave, group, Kind::Load, bytes)?.targets(wave, bytes);
        let mut read = [[0_u32; 4]; LANES];
        for lane in lanes_of(targets.lanes) {
            for word in 0..shape.words {
                // SAFETY: located for that many words.
                read[lane][word] = unsafe { C::load32(targets.address[lane] + 4 * word as u64) };
            }
        }
        let lanes = wave.lanes as usize;
        for word in 0..shape.words {
            let Row(row) = &mut wave.rows[row + word];
            match shape {
                Shape { bits: 16, columns: 16, .. } => halves(&read, word, row),
                Shape { bits: 8, columns: 16, .. } => bytes_of(&read, word, row),
                _ => (0..lanes).for_each(|lane| row[lane] = transposed(&read, lane, word, shape)),
            }
        }
        Ok(())
    })
}

/// A word of every lane: two elements from two rows of sixteen, which are four lanes' reads each.
fn halves(read: &[[u32; 4]; LANES], word: usize, result: &mut [u32; LANES]) {
    for block in 0..LANES / 16 {
        let element = |row: usize, column: usize| {
            let lane = 16 * block + 4 * row + column / 4;
            read[lane][column % 4 / 2] >> (16 * (column % 2)) & 0xffff
        };
        for column in 0..16 {
            let (low, high) = (element(2 * word, column), element(2 * word + 1, column));
            result[16 * block + column] = low | high << 16;
        }
    }
}

/// A word of every lane: four elements from four rows of sixteen, which are two lanes' reads each.
fn bytes_of(read: &[[u32; 4]; LANES], word: usize, result: &mut [u32; LANES]) {
    for block in 0..LANES / 16 {
        let element = |row: usize, column: usize| {
            let lane = 16 * block + 2 * row + column / 8;
            read[lane][column % 8 / 4] >> (8 * (column % 4)) & 0xff
        };
        for column in 0..16 {
            let bytes: [u32; 4] = std::array::from_fn(|at| element(4 * word + at, column));
            result[16 * block + column] =
                bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24;
        }
    }
}

/// A word that a lane gets.
fn transposed(read: &[[u32; 4]; LANES], lane: usize, word: usize, shape: Shape) -> u32 {
    let count = shape.elements();
    let (first, column) = (lane - lane % shape.columns, lane % shape.columns);
    let mut result = 0_u64;
    // Elements that begin in the word before may end in this one.
    let begin = (32 * word).saturating_sub(shape.bits - 1).div_ceil(shape.bits);
    for element in begin..(32 * (word + 1)).div_ceil(shape.bits).min(count) {
        let place = element * shape.columns + column;
        let value = bits(&read[(first + place / count) % LANES], place % count, shape.bits);
        // Counted from 32 bits before the word.
        let at = element * shape.bits + 32 - 32 * word;
        result |= u64::from(value) << (at % 64);
    }
    (result >> 32) as u32
}

/// Element `index` of a lane's words.
fn bits(words: &[u32; 4], index: usize, bits: usize) -> u32 {
    let at = index * bits;
    let high = words.get(at / 32 + 1).copied().unwrap_or_default();
    let wide = u64::from(words[at / 32]) | u64::from(high) << 32;
    (wide >> (at % 32)) as u32 & ((1 << bits) - 1)
}
