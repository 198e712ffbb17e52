//! Decoded machine code: one closure an instruction.

use std::sync::{Arc, OnceLock};

use crate::asm::{Disassembler, Instruction};
use crate::effects::Effects;
use crate::wave::{Exec, Fault};
use crate::{Chip, memory, scalar, valu};

/// What families of instructions need to know to compile one.
pub struct Context<'a> {
    /// The chip.
    pub chip: Chip,
    /// 32 or 64.
    pub lanes: u32,
    /// The instruction.
    pub asm: &'a Instruction,
    /// Index of the instruction at a byte address, for branches.
    pub index_of: &'a dyn Fn(u64) -> Option<u32>,
    /// The same for addresses that are known only when the instruction executes.
    pub starts: &'a Arc<Starts>,
}

impl Context<'_> {
    /// The error for a part of the instruction that has no semantics here.
    pub fn unknown(&self) -> Fault {
        Fault::Unknown(self.asm.text.clone())
    }
}

/// What a family answers: the closure, or why there is none. An instruction that belongs to
/// another family is no answer at all.
pub type Compiled = Option<Result<Exec, Fault>>;

/// A code object's executable bytes for one chip and wave width.
pub struct Program {
    /// The chip it was decoded for.
    pub chip: Chip,
    /// 32 or 64.
    pub lanes: u32,
    /// Address of its first byte.
    pub base: u64,
    /// Closures, in the order of addresses.
    pub exec: Vec<Exec>,
    /// The instructions that they were made from.
    pub asm: Vec<Instruction>,
    /// Of them, by index, those that fault when they are reached: no semantics is known.
    pub unknown: Vec<u32>,
    starts: Arc<Starts>,
    effects: OnceLock<Vec<Effects>>,
}

/// Where instructions start.
#[derive(Default)]
pub struct Starts {
    /// Address of the first byte of the code.
    base: u64,
    /// Index of the instruction that starts at each fourth byte; `NONE` inside of one.
    slots: Vec<u32>,
}

/// Marks bytes in which no instruction starts.
const NONE: u32 = u32::MAX;

impl Program {
    /// Decodes `code`, whose first byte is at `base`. What cannot be decoded or compiled becomes a
    /// closure that faults when it is reached.
    pub fn decode(code: &[u8], base: u64, chip: Chip, lanes: u32) -> Program {
        let mut disassembler = Disassembler::new(chip, lanes);
        let mut slots = vec![NONE; code.len().div_ceil(4)];
        let (mut asm, mut at) = (Vec::new(), 0);
        while at < code.len() {
            let instruction = disassembler.decode(&code[at..], base + at as u64);
            slots[at / 4] = asm.len() as u32;
            at += (instruction.size as usize).max(4);
            asm.push(instruction);
        }
        let starts = Arc::new(Starts { base, slots });
        let index_of = |address: u64| starts.index_of(address);
        let (mut exec, mut unknown) = (Vec::with_capacity(asm.len()), Vec::new());
        for (index, asm) in asm.iter().enumerate() {
            let context = Context { chip, lanes, asm, index_of: &index_of, starts: &starts };
            exec.push(compile(&context).unwrap_or_else(|fault| {
                unknown.push(index as u32);
                Box::new(move |_, _| Err(Box::new(fault.clone())))
            }));
        }
        Program { chip, lanes, base, exec, asm, unknown, starts, effects: OnceLock::new() }
    }

    /// What each instruction reads, writes and waits for; found out at the first call.
    pub fn effects(&self) -> &[Effects] {
        self.effects.get_or_init(|| self.asm.iter().map(Effects::of).collect())
    }

    /// Index of the instruction that starts at `address`.
    pub fn index_of(&self, address: u64) -> Option<u32> {
        self.starts.index_of(address)
    }

    /// Address of the instruction with an index; the end of the code beyond the last.
    pub fn address_of(&self, index: u32) -> u64 {
        match (self.asm.get(index as usize), self.asm.last()) {
            (Some(asm), _) => asm.address,
            (None, Some(last)) => last.address + u64::from(last.size.max(4)),
            (None, None) => self.base,
        }
    }
}

impl Starts {
    /// Instructions of four bytes each, `count` of them from `base` on.
    #[cfg(test)]
    pub fn every_fourth_byte(base: u64, count: u32) -> Starts {
        Starts { base, slots: (0..count).collect() }
    }

    /// Index of the instruction that starts at `address`.
    pub fn index_of(&self, address: u64) -> Option<u32> {
        let offset = address.checked_sub(self.base)?;
        let slot = usize::try_from(offset / 4).ok()?;
        let index = *self.slots.get(slot)?;
        (offset.is_multiple_of(4) && index != NONE).then_some(index)
    }
}

/// Every family of instructions. The first that knows the mnemonic compiles it.
const FAMILIES: &[fn(&Context<'_>) -> Compiled] =
    &[scalar::compile, valu::matrix::compile, valu::compile, memory::compile];

fn compile(context: &Context<'_>) -> Result<Exec, Fault> {
    if !valu::op::host_is_fit() {
        let text = "the emulator needs a host with AVX2, FMA, F16C and BMI2";
        return Err(Fault::Illegal(text.to_string()));
    }
    let compiled = FAMILIES.iter().find_map(|family| family(context));
    compiled.unwrap_or_else(|| Err(context.unknown()))
}
