//! Scalar instructions: arithmetic ([`sop`], [`float`]), memory ([`smem`], [`atomic`]), program
//! flow ([`control`]), hardware registers ([`register`]) and index mode ([`index`]). What waits wait
//! for is in [`wait`].
//!
//! VCC, EXEC and M0 are places of the scalar file, so nothing here treats them apart; only the high
//! half of EXEC stays zero in a 32-lane wave, whatever is written.

mod atomic;
mod control;
mod float;
mod index;
mod register;
mod smem;
mod sop;
pub mod wait;

use crate::asm::{Operand, Special, Value};
use crate::program::{Compiled, Context};
use crate::valu::op::Kind;
use crate::valu::special_value;
use crate::wave::{Fault, Wave, scalar};

/// Compiles a scalar instruction.
pub fn compile(context: &Context<'_>) -> Compiled {
    let mnemonic = context.asm.mnemonic.as_str();
    if mnemonic.starts_with("v_s_") {
        return float::compile(context);
    }
    if !mnemonic.starts_with("s_") {
        return None;
    }
    sop::compile(context)
        .or_else(|| control::compile(context))
        .or_else(|| smem::compile(context))
        .or_else(|| register::compile(context))
        .or_else(|| index::compile(context))
        .or_else(|| float::compile(context))
}

/// Where a scalar operand comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    /// The first of its registers.
    Register(u8),
    /// Inline constant or literal, already extended to 64 bits.
    Constant(u64),
    /// Computed when read.
    Special(Special),
}

/// Where a scalar result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The first of its registers.
    index: u8,
    /// EXEC as a pair in a 32-lane wave, whose high half stays zero.
    narrow_exec: bool,
}

/// A value that one or two scalar registers hold.
trait Word: Copy + Send + Sync + 'static {
    /// How many.
    const REGISTERS: u16;
    /// How constants are read.
    const KIND: Kind;
    /// From the bits of a constant.
    fn from_bits(bits: u64) -> Self;
    /// A 32-bit literal as the bits of this type.
    fn literal(bits: u64) -> u64 {
        bits
    }
    /// Reads registers.
    fn get(wave: &Wave, index: u8) -> Self;
    /// Writes registers.
    fn set(self, wave: &mut Wave, place: Place);
    /// Reads any source.
    #[inline(always)]
    fn read(wave: &Wave, source: Source) -> Self {
        match source {
            Source::Register(index) => Self::get(wave, index),
            Source::Constant(bits) => Self::from_bits(bits),
            Source::Special(special) => Self::from_bits(special_value(special, wave)),
        }
    }
}

impl Word for u32 {
    const REGISTERS: u16 = 1;
    const KIND: Kind = Kind::B32;
    fn from_bits(bits: u64) -> u32 {
        bits as u32
    }
    #[inline(always)]
    fn get(wave: &Wave, index: u8) -> u32 {
        wave.sgpr[usize::from(index) % scalar::COUNT]
    }
    #[inline(always)]
    fn set(self, wave: &mut Wave, place: Place) {
        wave.set_sgpr(usize::from(place.index) % scalar::COUNT, self);
    }
}

impl Word for i32 {
    const REGISTERS: u16 = 1;
    const KIND: Kind = Kind::B32;
    fn from_bits(bits: u64) -> i32 {
        bits as i32
    }
    #[inline(always)]
    fn get(wave: &Wave, index: u8) -> i32 {
        u32::get(wave, index) as i32
    }
    #[inline(always)]
    fn set(self, wave: &mut Wave, place: Place) {
        (self as u32).set(wave, place);
    }
}

impl Word for u64 {
    const REGISTERS: u16 = 2;
    const KIND: Kind = Kind::B64;
    fn from_bits(bits: u64) -> u64 {
        bits
    }
    #[inline(always)]
    fn get(wave: &Wave, index: u8) -> u64 {
        wave.pair(usize::from(index))
    }
    #[inline(always)]
    fn set(self, wave: &mut Wave, place: Place) {
        wave.set_pair(usize::from(place.index), self);
        if place.narrow_exec {
            wave.sgpr[scalar::EXEC + 1] = 0;
        }
    }
}

impl Word for i64 {
    const REGISTERS: u16 = 2;
    const KIND: Kind = Kind::B64;
    fn from_bits(bits: u64) -> i64 {
        bits as i64
    }
    /// Signed operands extend a literal's sign, the others extend it by zeros.
    fn literal(bits: u64) -> u64 {
        if bits <= u64::from(u32::MAX) { i64::from(bits as i32) as u64 } else { bits }
    }
    #[inline(always)]
    fn get(wave: &Wave, index: u8) -> i64 {
        wave.pair(usize::from(index)) as i64
    }
    #[inline(always)]
    fn set(self, wave: &mut Wave, place: Place) {
        (self as u64).set(wave, place);
    }
}

/// The operand at `index`, if it is there and plain.
fn operand<'a>(context: &Context<'a>, index: usize) -> Result<&'a Operand, Fault> {
    let plain = |operand: &&Operand| !operand.neg && !operand.abs && !operand.sext && !operand.high;
    context.asm.operands.get(index).filter(plain).ok_or_else(|| context.unknown())
}

/// The operand at `index` as a source of type `T`.
fn source<T: Word>(context: &Context<'_>, index: usize) -> Result<Source, Fault> {
    Ok(match &operand(context, index)?.value {
        Value::Scalar(first, _) if usize::from(*first) == scalar::NULL => Source::Constant(0),
        Value::Scalar(first, count) if *count == T::REGISTERS => Source::Register(*first as u8),
        Value::Special(special) => Source::Special(*special),
        Value::Integer(integer) => Source::Constant(*integer as u64),
        Value::Literal(bits) => Source::Constant(T::literal(*bits)),
        Value::Float(float) => Source::Constant(T::KIND.inline_float(*float)),
        _ => return Err(context.unknown()),
    })
}

/// The operand at `index` as a destination of `registers` scalar registers.
fn place(context: &Context<'_>, index: usize, registers: u16) -> Result<Place, Fault> {
    let narrow = context.lanes == 32;
    match &operand(context, index)?.value {
        Value::Scalar(first, count) => {
            let first_index = usize::from(*first);
            let swallowed =
                first_index == scalar::NULL || narrow && first_index == scalar::EXEC + 1;
            if swallowed {
                return Ok(Place { index: scalar::NULL as u8, narrow_exec: false });
            }
            if *count != registers {
                return Err(context.unknown());
            }
            let narrow_exec = narrow && registers == 2 && first_index == scalar::EXEC;
            Ok(Place { index: *first as u8, narrow_exec })
        }
        _ => Err(context.unknown()),
    }
}

/// The operand at `index` as an immediate field.
fn immediate(context: &Context<'_>, index: usize) -> Result<i64, Fault> {
    match &operand(context, index)?.value {
        Value::Integer(integer) => Ok(*integer),
        Value::Literal(bits) => Ok(*bits as i64),
        _ => Err(context.unknown()),
    }
}

/// Refuses modifiers and any other number of operands.
fn expect_operands(context: &Context<'_>, count: usize) -> Result<(), Fault> {
    if context.asm.operands.len() == count && context.asm.modifiers.is_empty() {
        Ok(())
    } else {
        Err(context.unknown())
    }
}

#[cfg(test)]
mod testing {
    //! A wave to run single instructions on.

    use std::sync::Arc;

    use crate::Chip;
    use crate::asm::parse;
    use crate::memory::Memory;
    use crate::program::{Context, Starts};
    use crate::wave::{Exec, Group, Step, Wave};

    /// A wave, its workgroup and the chip they run on.
    pub struct Machine {
        pub wave: Wave,
        pub group: Group,
    }

    impl Machine {
        pub fn new(chip: Chip) -> Machine {
            Machine::with_lanes(chip, if chip.is_cdna() { 64 } else { 32 })
        }

        pub fn with_lanes(chip: Chip, lanes: u32) -> Machine {
            let memory = Arc::new(Memory::reserve(1 << 24).expect("address space"));
            let group = Group::new(chip, 0, memory, [0; 3], 1);
            Machine { wave: Wave::new(0, lanes), group }
        }

        /// Compiles one instruction at address 0x1000 and executes it; instructions start at every
        /// fourth byte of the 64 KiB from address 0 on.
        pub fn step(&mut self, text: &str) -> Step {
            self.compile(text)(&mut self.wave, &mut self.group)
        }

        /// Executes one instruction that must not fault.
        pub fn run(&mut self, text: &str) -> &mut Machine {
            self.step(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            self
        }

        pub fn compile(&self, text: &str) -> Exec {
            let mut asm = parse(text);
            (asm.address, asm.size) = (0x1000, 4);
            let starts = Arc::new(Starts::every_fourth_byte(0, 0x4000));
            let context = Context {
                chip: self.group.chip,
                lanes: self.wave.lanes,
                asm: &asm,
                index_of: &|address| starts.index_of(address),
                starts: &starts,
            };
            let compiled = super::compile(&context).or_else(|| crate::valu::compile(&context));
            let compiled = compiled.unwrap_or_else(|| Err(context.unknown()));
            compiled.unwrap_or_else(|fault| Box::new(move |_, _| Err(Box::new(fault.clone()))))
        }

        /// Sets s0, s1, ...
        pub fn set(&mut self, values: &[u32]) -> &mut Machine {
            self.wave.sgpr[..values.len()].copy_from_slice(values);
            self
        }
    }
}

#[cfg(test)]
mod coverage {
    //! Which scalar instructions of each chip are known.

    use std::collections::BTreeSet;
    use std::sync::Arc;

    use crate::Chip;
    use crate::memory::Memory;
    use crate::program::Program;
    use crate::wave::{Fault, Group, Wave};

    /// What stays unknown: privileged instructions, forks and other remains of graphics, and
    /// private memory through the scalar cache.
    fn expected(chip: Chip) -> BTreeSet<String> {
        let cdna = [
            "s_cbranch_g_fork s[12:13], s[8:9]",
            "s_cbranch_i_fork s[4:5], 63489",
            "s_cbranch_join s8",
            "s_dcache_discard s[8:9], 0x10",
            "s_dcache_discard_x2 s[8:9], 0x10",
            "s_rfe_b64 s[8:9]",
            "s_rfe_restore_b64 s[12:13], s8",
            "s_scratch_load_dword s4, s[8:9], 0x10",
            "s_scratch_load_dwordx2 s[4:5], s[8:9], 0x10",
            "s_scratch_load_dwordx4 s[4:7], s[8:9], 0x10",
            "s_scratch_store_dword s4, s[8:9], 0x10",
            "s_scratch_store_dwordx2 s[4:5], s[8:9], 0x10",
            "s_scratch_store_dwordx4 s[4:7], s[8:9], 0x10",
            "s_sendmsg sendmsg(MSG_GS_DONE, GS_OP_NOP)",
            "s_sendmsghalt sendmsg(MSG_GS_DONE, GS_OP_NOP)",
            "s_setkill 3",
            "s_setvskip s8, s4",
        ];
        let rdna3 = [
            "s_rfe_b64 s[8:9]",
            "s_sendmsg_rtn_b32 s4, sendmsg(8, 0, 0)",
            "s_sendmsg_rtn_b64 s[4:5], sendmsg(8, 0, 0)",
            "s_setkill 3",
            "s_subvector_loop_begin s4, 63489",
            "s_subvector_loop_end s4, 63489",
        ];
        // Barriers and messages have numbers that do not exist here.
        let rdna4 = [
            "s_alloc_vgpr s8",
            "s_barrier_init s8",
            "s_barrier_join s8",
            "s_barrier_signal s8",
            "s_barrier_signal_isfirst s8",
            "s_barrier_wait 3",
            "s_get_barrier_state s4, s8",
            "s_rfe_b64 s[8:9]",
            "s_sendmsg_rtn_b32 s4, sendmsg(8, 0, 0)",
            "s_sendmsg_rtn_b64 s[4:5], sendmsg(8, 0, 0)",
            "s_setkill 3",
        ];
        let unknown: &[&str] = match chip {
            Chip::Gfx90a | Chip::Gfx942 | Chip::Gfx950 => &cdna,
            Chip::Gfx1100 | Chip::Gfx1151 => &rdna3,
            Chip::Gfx1201 => &rdna4,
        };
        unknown.iter().map(|text| (*text).to_string()).collect()
    }

    #[test]
    fn every_instruction_is_known_but_these() {
        for chip in Chip::ALL {
            let (unknown, seen) = unknown(chip);
            assert_eq!(unknown, expected(chip), "{chip}");
            assert!(seen > 190, "{chip} has {seen} scalar instructions");
        }
    }

    /// One encoding of every opcode of SOP2, SOPK, SOP1, SOPC, SOPP and SMEM.
    fn encodings(chip: Chip) -> Vec<u64> {
        let smem = |op: u64| match chip {
            Chip::Gfx1201 => vec![0x3d << 26 | op << 13 | 4 << 6 | 4 | 0x10 << 32 | 0x7c << 57],
            _ if chip.is_rdna() => {
                vec![0x3d << 26 | op << 18 | 4 << 6 | 4 | 0x10 << 32 | 0x7c << 57]
            }
            _ => vec![0x30 << 26 | op << 18 | 1 << 17 | 4 << 6 | 4 | 0x10 << 32],
        };
        let literal = 1 << 32;
        let two = (0..96).map(|op| literal | 0x8000_0000 | op << 23 | 4 << 16 | 8 << 8 | 12);
        let immediate = (0..32).map(|op| literal | 0xb000_0000 | op << 23 | 4 << 16 | 0xf801);
        let one = (0..256).map(|op| 0xbe80_0000 | 4 << 16 | op << 8 | 8);
        let compare = (0..128).map(|op| 0xbf00_0000 | op << 16 | 4 << 8 | 8);
        let program = (0..128).map(|op| 0xbf80_0000 | op << 16 | 3);
        let memory = (0..256).flat_map(smem);
        two.chain(immediate).chain(one).chain(compare).chain(program).chain(memory).collect()
    }

    /// The texts of unknown instructions, and the number of all of them.
    fn unknown(chip: Chip) -> (BTreeSet<String>, usize) {
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let memory = Arc::new(Memory::reserve(1 << 16).expect("address space"));
        for word in encodings(chip) {
            let program = Program::decode(&word.to_le_bytes(), 0, chip, lanes);
            let name = &program.asm[0].mnemonic;
            if !name.starts_with("s_") {
                continue;
            }
            seen.insert(name.clone());
            let mut wave = Wave::new(0, lanes);
            let mut group = Group::new(chip, 0, memory.clone(), [0; 3], 1);
            if let Err(fault) = program.exec[0](&mut wave, &mut group)
                && matches!(*fault, Fault::Unknown(_))
            {
                found.insert(program.asm[0].text.clone());
            }
        }
        (found, seen.len())
    }
}
