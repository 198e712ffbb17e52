//! Atomic operations: what they compute, and the closures that apply them to memory.
//!
//! Lanes go in ascending order. In device memory each lane's update is one sequentially consistent
//! compare-and-exchange on the host, so updates by waves on other threads are never lost.
//!
//! Float rules are those of the chapters on float memory atomics in AMD's instruction set documents:
//! sums round to nearest even whatever MODE says; LDS follows MODE's denormal bits, caches keep
//! denormals, but gfx90a's f32 sum flushes them. (For later chips the documents and LLVM disagree
//! about that sum; LLVM selects it for code that needs denormals, and is followed here.)

use super::address::Locate;
use super::cell::Cell;
use super::transfer::{Targets, lanes_of};
use crate::Chip;
use crate::number::{
    bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, flush_bf16, flush_f16, flush_f32, flush_f64,
    is_nan_bf16, is_nan_f16, is_signaling_f32, is_signaling_f64, keeps_f16_f64_inputs,
    keeps_f16_f64_outputs, keeps_f32_inputs, keeps_f32_outputs, quiet_f16, quiet_f32, quiet_f64,
};
use crate::probe::Kind;
use crate::wave::{Exec, Row, Wave};

/// What floats do besides the operation itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floats {
    /// Denormal inputs and results are kept.
    f32: (bool, bool),
    /// The same for f16, bf16 and f64.
    f64: (bool, bool),
    /// NaN, and in min and max also denormals, as gfx12 has them.
    gfx12: bool,
}

/// Where [`Floats`] come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Policy {
    /// MODE's denormal bits.
    Mode(Chip),
    /// Fixed.
    Fixed(Floats),
}

impl Policy {
    /// The rules of an operation on LDS.
    pub(super) fn lds(chip: Chip) -> Policy {
        Policy::Mode(chip)
    }

    /// The rules of an operation on device memory.
    pub(super) fn memory(chip: Chip, name: &str) -> Policy {
        let compares = matches!(name, "min_f32" | "max_f32" | "cmpswap_f32");
        if compares && matches!(chip, Chip::Gfx1100 | Chip::Gfx1151) {
            return Policy::Mode(chip);
        }
        let keeps = chip != Chip::Gfx90a;
        let gfx12 = chip == Chip::Gfx1201;
        Policy::Fixed(Floats { f32: (keeps, keeps), f64: (true, true), gfx12 })
    }

    #[inline(always)]
    fn floats(self, wave: &Wave) -> Floats {
        let mode = wave.mode;
        match self {
            Policy::Mode(chip) => Floats {
                f32: (keeps_f32_inputs(mode), keeps_f32_outputs(mode)),
                f64: (keeps_f16_f64_inputs(mode), keeps_f16_f64_outputs(mode)),
                gfx12: chip == Chip::Gfx1201,
            },
            Policy::Fixed(floats) => floats,
        }
    }
}

/// What becomes of a word, given the operands of the instruction.
pub(super) type Word = fn(old: u32, data: [u32; 2], floats: &Floats) -> u32;
/// What becomes of two words.
pub(super) type Double = fn(old: u64, data: [u64; 2], floats: &Floats) -> u64;

/// An operation.
#[derive(Clone, Copy)]
pub(super) enum Update {
    /// On 32 bits.
    Word(Word),
    /// On 64 bits.
    Double(Double),
}

impl Update {
    /// Registers of each operand and of the result.
    pub(super) fn rows(self) -> usize {
        match self {
            Update::Word(_) => 1,
            Update::Double(_) => 2,
        }
    }

    /// The operation of a name: CDNA's and RDNA's for memory, those of LDS without `rtn`. Compare
    /// and swap takes the new value before the expected one.
    pub(super) fn new(name: &str) -> Option<Update> {
        word(name).map(Update::Word).or_else(|| double(name).map(Update::Double))
    }
}

/// Whether an operation has two operands.
pub(super) fn is_double_operand(name: &str) -> bool {
    ["cmpswap", "cmpst", "mskor", "wrap"].iter().any(|prefix| name.starts_with(prefix))
}

fn word(name: &str) -> Option<Word> {
    Some(match name {
        "swap" | "swap_b32" | "wrxchg_b32" | "storexchg_b32" => |_, [new, _], _| new,
        "cmpswap" | "cmpswap_b32" | "cmpst_b32" | "cmpstore_b32" => {
            |old, [new, expected], _| if old == expected { new } else { old }
        }
        "add" | "add_u32" => |old, [value, _], _| old.wrapping_add(value),
        "sub" | "sub_u32" => |old, [value, _], _| old.wrapping_sub(value),
        "rsub_u32" => |old, [value, _], _| value.wrapping_sub(old),
        "csub_u32" | "sub_clamp_u32" => |old, [value, _], _| old.saturating_sub(value),
        "cond_sub_u32" => |old, [value, _], _| if old >= value { old - value } else { old },
        "smin" | "min_i32" => |old, [value, _], _| (old as i32).min(value as i32) as u32,
        "smax" | "max_i32" => |old, [value, _], _| (old as i32).max(value as i32) as u32,
        "umin" | "min_u32" => |old, [value, _], _| old.min(value),
        "umax" | "max_u32" => |old, [value, _], _| old.max(value),
        "and" | "and_b32" => |old, [value, _], _| old & value,
        "or" | "or_b32" => |old, [value, _], _| old | value,
        "xor" | "xor_b32" => |old, [value, _], _| old ^ value,
        "inc" | "inc_u32" => |old, [top, _], _| if old >= top { 0 } else { old + 1 },
        "dec" | "dec_u32" => |old, [top, _], _| if old == 0 || old > top { top } else { old - 1 },
        "mskor_b32" => |old, [mask, value], _| old & !mask | value,
        "wrap_b32" => |old, [size, other], _| {
            if old >= size { old - size } else { old.wrapping_add(other) }
        },
        "add_f32" => |old, [value, _], floats| add_f32(old, value, floats),
        "min_f32" | "min_num_f32" => {
            |old, [value, _], floats| min_max_f32(old, value, floats, true)
        }
        "max_f32" | "max_num_f32" => {
            |old, [value, _], floats| min_max_f32(old, value, floats, false)
        }
        "cmpswap_f32" | "cmpst_f32" | "cmpstore_f32" => swap_f32,
        "pk_add_f16" => |old, [value, _], floats| halves(old, value, floats, add_f16),
        "pk_add_bf16" => |old, [value, _], floats| halves(old, value, floats, add_bf16),
        _ => return None,
    })
}

fn double(name: &str) -> Option<Double> {
    Some(match name {
        "swap_x2" | "swap_b64" | "wrxchg_b64" | "storexchg_b64" => |_, [new, _], _| new,
        "cmpswap_x2" | "cmpswap_b64" | "cmpst_b64" | "cmpstore_b64" => {
            |old, [new, expected], _| if old == expected { new } else { old }
        }
        "add_x2" | "add_u64" => |old, [value, _], _| old.wrapping_add(value),
        "sub_x2" | "sub_u64" => |old, [value, _], _| old.wrapping_sub(value),
        "rsub_u64" => |old, [value, _], _| value.wrapping_sub(old),
        "smin_x2" | "min_i64" => |old, [value, _], _| (old as i64).min(value as i64) as u64,
        "smax_x2" | "max_i64" => |old, [value, _], _| (old as i64).max(value as i64) as u64,
        "umin_x2" | "min_u64" => |old, [value, _], _| old.min(value),
        "umax_x2" | "max_u64" => |old, [value, _], _| old.max(value),
        "and_x2" | "and_b64" => |old, [value, _], _| old & value,
        "or_x2" | "or_b64" => |old, [value, _], _| old | value,
        "xor_x2" | "xor_b64" => |old, [value, _], _| old ^ value,
        "inc_x2" | "inc_u64" => |old, [top, _], _| if old >= top { 0 } else { old + 1 },
        "dec_x2" | "dec_u64" => {
            |old, [top, _], _| if old == 0 || old > top { top } else { old - 1 }
        }
        "mskor_b64" => |old, [mask, value], _| old & !mask | value,
        "add_f64" => |old, [value, _], floats| add_f64(old, value, floats),
        "min_f64" | "min_num_f64" => {
            |old, [value, _], floats| min_max_f64(old, value, floats, true)
        }
        "max_f64" | "max_num_f64" => {
            |old, [value, _], floats| min_max_f64(old, value, floats, false)
        }
        "cmpst_f64" | "cmpstore_f64" => swap_f64,
        _ => return None,
    })
}

macro_rules! float_operations {
    ($float:ident, $bits:ident, $add:ident, $min_max:ident, $swap:ident, $flush:ident,
     $quiet:ident, $signals:ident, $nan:expr) => {
        #[doc = "The sum: a NaN of the inputs quieted, memory's first."]
        fn $add(old: $bits, value: $bits, floats: &Floats) -> $bits {
            // The f64 adders never flush.
            let (inputs, output) = if size_of::<$bits>() == 8 { (true, true) } else { floats.f32 };
            let input = |bits| {
                let value = $float::from_bits(bits);
                if inputs { value } else { $flush(value) }
            };
            let (a, b) = (input(old), input(value));
            let sum = if a.is_nan() {
                $quiet(a)
            } else if b.is_nan() {
                $quiet(b)
            } else if (a + b).is_nan() {
                $float::from_bits($nan | $bits::from(floats.gfx12) << ($bits::BITS - 1))
            } else {
                a + b
            };
            if output { sum.to_bits() } else { $flush(sum).to_bits() }
        }

        #[doc = "The smaller or the larger, with -0 below +0."]
        fn $min_max(old: $bits, value: $bits, floats: &Floats, smaller: bool) -> $bits {
            let (keeps, _) = if size_of::<$bits>() == 8 { floats.f64 } else { floats.f32 };
            let (a, b) = ($float::from_bits(old), $float::from_bits(value));
            let compared = |value| if keeps { value } else { $flush(value) };
            // gfx12 gives a NaN only for two, the data's; before, a signaling one wins.
            if floats.gfx12 && a.is_nan() && b.is_nan() {
                return $quiet(b).to_bits();
            }
            if !floats.gfx12 && $signals(a) {
                return $quiet(a).to_bits();
            }
            if !floats.gfx12 && $signals(b) {
                return $quiet(b).to_bits();
            }
            let takes_old = match (a.is_nan(), b.is_nan()) {
                (false, true) => true,
                (true, false) => false,
                (true, true) => true,
                (false, false) => {
                    let order = compared(a).total_cmp(&compared(b));
                    if smaller { order.is_le() } else { order.is_ge() }
                }
            };
            let chosen = if takes_old { a } else { b };
            if floats.gfx12 { compared(chosen).to_bits() } else { chosen.to_bits() }
        }

        #[doc = "The new value if the old one equals the expected one as a number."]
        fn $swap(old: $bits, [new, expected]: [$bits; 2], floats: &Floats) -> $bits {
            let (keeps, _) = if size_of::<$bits>() == 8 { floats.f64 } else { floats.f32 };
            let input = |bits| {
                let value = $float::from_bits(bits);
                if keeps { value } else { $flush(value) }
            };
            if input(old) == input(expected) { input(new).to_bits() } else { old }
        }
    };
}

float_operations!(
    f32,
    u32,
    add_f32,
    min_max_f32,
    swap_f32,
    flush_f32,
    quiet_f32,
    is_signaling_f32,
    0x7fc0_0000
);
float_operations!(
    f64,
    u64,
    add_f64,
    min_max_f64,
    swap_f64,
    flush_f64,
    quiet_f64,
    is_signaling_f64,
    0x7ff8_0000_0000_0000
);

fn halves(old: u32, value: u32, floats: &Floats, add: fn(u16, u16, &Floats) -> u16) -> u32 {
    let low = add(old as u16, value as u16, floats);
    let high = add((old >> 16) as u16, (value >> 16) as u16, floats);
    u32::from(low) | u32::from(high) << 16
}

/// The exact sum in f32 rounds to a half once: 24 bits are two more than twice a half's 11.
fn add_f16(old: u16, value: u16, floats: &Floats) -> u16 {
    let input = |bits| if floats.f64.0 { bits } else { flush_f16(bits) };
    let (a, b) = (input(old), input(value));
    if is_nan_f16(a) {
        return quiet_f16(a);
    }
    if is_nan_f16(b) {
        return quiet_f16(b);
    }
    let sum = f16_to_f32(a) + f16_to_f32(b);
    if sum.is_nan() {
        return 0x7e00 | u16::from(floats.gfx12) << 15;
    }
    let sum = f32_to_f16(sum);
    if floats.f64.1 { sum } else { flush_f16(sum) }
}

/// The sum in f32 has more than twice a bfloat16's bits, so that rounding it again is exact.
fn add_bf16(old: u16, value: u16, floats: &Floats) -> u16 {
    let input = |bits| if floats.f64.0 { bits } else { flush_bf16(bits) };
    let (a, b) = (input(old), input(value));
    if is_nan_bf16(a) {
        return a | 0x40;
    }
    if is_nan_bf16(b) {
        return b | 0x40;
    }
    let sum = bf16_to_f32(a) + bf16_to_f32(b);
    if sum.is_nan() {
        return 0x7fc0 | u16::from(floats.gfx12) << 15;
    }
    let sum = f32_to_bf16(sum);
    if floats.f64.1 { sum } else { flush_bf16(sum) }
}

/// Registers of an atomic instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands {
    /// First row that gets the old value, if any does.
    pub(super) result: Option<usize>,
    /// First row of each operand; twice the same where there is only one.
    pub(super) data: [usize; 2],
}

/// The closure of an atomic operation.
pub(super) fn atomic<L: Locate, C: Cell + 'static>(
    locate: L,
    update: Update,
    operands: Operands,
    policy: Policy,
) -> Exec {
    match update {
        Update::Word(apply) => Box::new(move |wave, group| {
            let targets = locate.locate(wave, group, Kind::Atomic, 4)?.targets(wave, 4);
            let floats = policy.floats(wave);
            // SAFETY: located for four bytes.
            unsafe { words::<C>(wave, &targets, apply, operands, &floats) };
            Ok(())
        }),
        Update::Double(apply) => Box::new(move |wave, group| {
            let targets = locate.locate(wave, group, Kind::Atomic, 8)?.targets(wave, 8);
            let floats = policy.floats(wave);
            // SAFETY: located for eight bytes.
            unsafe { doubles::<C>(wave, &targets, apply, operands, &floats) };
            Ok(())
        }),
    }
}

/// # Safety
/// The addresses of `targets.lanes` are valid for four bytes.
pub(super) unsafe fn words<C: Cell>(
    wave: &mut Wave,
    targets: &Targets,
    apply: Word,
    operands: Operands,
    floats: &Floats,
) {
    let [first, second] = operands.data;
    let rows = &mut wave.rows;
    for lane in lanes_of(targets.lanes) {
        let data = [rows[first].0[lane], rows[second].0[lane]];
        // SAFETY: the caller's.
        let old = unsafe { C::update32(targets.address[lane], |old| apply(old, data, floats)) };
        if let Some(row) = operands.result {
            rows[row].0[lane] = old;
        }
    }
    clear(rows, operands.result, 1, targets);
}

/// # Safety
/// The addresses of `targets.lanes` are valid for eight bytes.
unsafe fn doubles<C: Cell>(
    wave: &mut Wave,
    targets: &Targets,
    apply: Double,
    operands: Operands,
    floats: &Floats,
) {
    let rows = &mut wave.rows;
    for lane in lanes_of(targets.lanes) {
        let data = operands
            .data
            .map(|row| u64::from(rows[row].0[lane]) | u64::from(rows[row + 1].0[lane]) << 32);
        // SAFETY: the caller's.
        let old = unsafe { C::update64(targets.address[lane], |old| apply(old, data, floats)) };
        if let Some(row) = operands.result {
            rows[row].0[lane] = old as u32;
            rows[row + 1].0[lane] = (old >> 32) as u32;
        }
    }
    clear(rows, operands.result, 2, targets);
}

/// Lanes that execute but have no memory get zero.
fn clear(rows: &mut [Row], result: Option<usize>, count: usize, targets: &Targets) {
    if let Some(first) = result {
        for lane in lanes_of(targets.exec & !targets.lanes) {
            rows[first..first + count].iter_mut().for_each(|row| row.0[lane] = 0);
        }
    }
}
