//! Tests of matrix instructions against statements of their own of layouts and arithmetic.

mod encoding;
mod hardware;
mod layouts;
mod modifiers;
mod numerics;
mod places;
mod speed;

use std::sync::Arc;

use super::form::{self, Form, Type};
use crate::Chip;
use crate::asm;
use crate::memory::Memory;
use crate::program::{Context, Starts};
use crate::wave::{Exec, Fault, Group, Wave};

/// Registers in which tests keep the operands.
const A: usize = 0;
const B: usize = 32;
const C: usize = 64;
const D: usize = 128;
const INDEX: usize = 200;
const SCALE_A: usize = 201;
const SCALE_B: usize = 202;

fn compile(chip: Chip, lanes: usize, text: &str) -> Result<Exec, Fault> {
    let asm = asm::parse(text);
    let starts = Arc::new(Starts::every_fourth_byte(0, 0));
    let lanes = lanes as u32;
    let context = Context { chip, lanes, asm: &asm, index_of: &|_| None, starts: &starts };
    super::compile(&context).unwrap_or_else(|| panic!("{text} is no matrix instruction of {chip}"))
}

fn run(chip: Chip, text: &str, wave: &mut Wave) {
    let exec = compile(chip, wave.lanes as usize, text).unwrap_or_else(|e| panic!("{e}"));
    let memory = Arc::new(Memory::reserve(1 << 16).expect("address space"));
    exec(wave, &mut Group::new(chip, 0, memory, [0; 3], 1)).expect("no fault");
}

/// `v[first:last]`, or `v7` for a single register.
fn vector(first: usize, count: usize) -> String {
    match count {
        1 => format!("v{first}"),
        _ => format!("v[{first}:{}]", first + count - 1),
    }
}

/// The text of an instruction with the operands at their places; B of a multiple-format form
/// may have other bits than A.
fn text(form: &Form, lanes: usize, bits: [usize; 2], modifiers: &str) -> String {
    let sizes = places::registers(form, lanes, bits);
    let [a, b, c] = [(A, 0), (B, 1), (C, 2)].map(|(at, operand)| vector(at, sizes[operand]));
    let d = vector(if form.sparse { C } else { D }, sizes[2]);
    let last = if form.sparse { vector(INDEX, 1) } else { c };
    let scales = if form.scaled { ", v201, v202" } else { "" };
    format!("{} {d}, {a}, {b}, {last}{scales} {modifiers}", form.mnemonic)
}

/// Wave widths that a chip has.
fn widths(chip: Chip) -> &'static [usize] {
    if chip.is_cdna() { &[64] } else { &[32, 64] }
}

/// Random numbers of a fixed seed (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 32) % limit
    }
}

/// Writes bits into a lane's registers that begin at `register`.
fn store(wave: &mut Wave, register: usize, lane: usize, bit: usize, width: usize, value: u64) {
    for i in 0..width {
        let (row, at) = (register + (bit + i) / 32, (bit + i) % 32);
        let word = &mut wave.rows[row].0[lane];
        *word = *word & !(1 << at) | ((value >> i & 1) as u32) << at;
    }
}

fn load(wave: &Wave, register: usize, lane: usize, bit: usize, width: usize) -> u64 {
    (0..width).fold(0, |value, i| {
        let (row, at) = (register + (bit + i) / 32, (bit + i) % 32);
        value | u64::from(wave.rows[row].0[lane] >> at & 1) << i
    })
}

fn form_of(mnemonic: &str, chip: Chip) -> &'static Form {
    form::find(mnemonic, chip).unwrap_or_else(|| panic!("{mnemonic} on {chip}"))
}

#[test]
fn operations_count_every_block() {
    assert_eq!(super::operations("v_mfma_f32_32x32x8_f16", Chip::Gfx942), Some(16384));
    assert_eq!(super::operations("v_mfma_f32_4x4x4_16b_f16", Chip::Gfx942), Some(2048));
    assert_eq!(super::operations("v_wmma_f32_16x16x16_bf16", Chip::Gfx1100), Some(8192));
    assert_eq!(super::operations("v_mfma_f32_32x32x8_f16", Chip::Gfx90a), None);
    assert_eq!(super::operations("v_mfma_f32_16x16x8_xf32", Chip::Gfx950), None);
}
