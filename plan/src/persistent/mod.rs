//! A decode step as one launch: every workgroup of the chip stays and runs a stream of instructions.
//!
//! An instruction runs some neighbouring workgroups of one of the program's launches, after its waits
//! have passed, and then adds their number to a flag. Flags are data: a wait passes when so many
//! workgroups have been counted on a flag since the step began. Nothing else orders streams; there
//! is no barrier of the whole grid. `docs/persistent.md` has the format and why no schedule that
//! [`check_persistent`] accepts can hang or read too early.

mod check;
mod conflicts;
mod encode;
mod error;
mod order;
mod text;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use check::check_persistent;
pub use conflicts::dependences;
pub use encode::{Encoded, Field, RECORD_WORDS, SyncLayout};
pub use error::PersistentError;
pub use text::StreamTotals;

use crate::plan::CodeFacts;
use serde::{Deserialize, Serialize};

/// Version of the description and of the ABI of the persistent kernel; a runtime that knows another
/// refuses the plan.
pub const PERSISTENT_VERSION: u32 = 1;
/// Most waits of an instruction.
pub const MAX_WAITS: usize = 4;
/// Most prefetches of an instruction.
pub const MAX_PREFETCHES: usize = 4;
/// Most flags of a step.
pub const MAX_FLAGS: u32 = 1 << 16;

/// How a program's launches run as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistentStep {
    /// [`PERSISTENT_VERSION`].
    pub version: u32,
    /// Index into [`crate::Plan::programs`]: the program that runs so.
    pub program: usize,
    /// How many of its launches, from the first on, are in the streams; the others follow as launches.
    pub launches: usize,
    /// Index into [`crate::Plan::kernels`]: the kernel that runs the streams.
    pub kernel: usize,
    /// Kernels whose code it has, as indices into [`crate::Plan::kernels`], in the order of opcodes.
    pub bodies: Vec<usize>,
    /// The hardware that all streams must fit on at once.
    pub residency: Residency,
    /// Number of flags.
    pub flags: u32,
    /// A stream for each workgroup of the kernel.
    pub streams: Vec<Vec<Instruction>>,
}

/// What decides how many workgroups are on a chip at once. A unit is what HIP counts as a
/// multiprocessor: a compute unit or, where two of them work as one, such a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residency {
    /// Units of the chip.
    pub units: u32,
    /// SIMDs of a unit.
    pub simds: u32,
    /// Lanes of a wave.
    pub wave: u32,
    /// Bytes of the local data share of a unit.
    pub lds_bytes: u32,
}

impl Residency {
    /// Workgroups of a kernel that a unit holds at once.
    pub fn per_unit(&self, workgroup: u32, facts: &CodeFacts) -> u32 {
        let waves = workgroup.div_ceil(self.wave.max(1)).max(1);
        let of_simd = waves.div_ceil(self.simds.max(1));
        let by_registers = facts.waves_per_simd / of_simd;
        match self.lds_bytes.checked_div(facts.lds_bytes) {
            None => by_registers,
            Some(by_lds) => by_registers.min(by_lds),
        }
    }
}

/// Some workgroups of a launch, and when they may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
pub struct Instruction {
    /// Index of the launch in its program.
    pub launch: u32,
    /// The first of the launch's workgroups that it runs.
    pub first: u32,
    /// How many it runs, at least one.
    pub count: u32,
    /// Waits, all of which must have passed; at most [`MAX_WAITS`].
    pub waits: Vec<Wait>,
    /// The flag that `count` is added to when they have ended.
    pub signal: Option<u32>,
    /// What is read into the cache while it waits; at most [`MAX_PREFETCHES`].
    pub prefetches: Vec<Prefetch>,
}

/// Passes when the signals of this step have added at least `value` to a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wait {
    /// The flag.
    pub flag: u32,
    /// Workgroups counted on it.
    pub value: u32,
}

/// A range of constants that an instruction will read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// Argument slot of the launch, which is a buffer of constants.
    pub slot: u32,
    /// Offset in bytes in the buffer, a multiple of 16.
    pub offset: u32,
    /// Bytes, a multiple of 16.
    pub bytes: u32,
}

/// An instruction as a plan has it: launch, first, count, signal, waits, prefetches. A plan has
/// tens of thousands of them.
type Packed = (u32, u32, u32, Option<u32>, Vec<(u32, u32)>, Vec<(u32, u32, u32)>);

impl From<Packed> for Instruction {
    fn from((launch, first, count, signal, waits, prefetches): Packed) -> Instruction {
        let waits = waits.into_iter().map(|(flag, value)| Wait { flag, value });
        let prefetches =
            prefetches.into_iter().map(|(slot, offset, bytes)| Prefetch { slot, offset, bytes });
        Instruction {
            launch,
            first,
            count,
            waits: waits.collect(),
            signal,
            prefetches: prefetches.collect(),
        }
    }
}

impl From<Instruction> for Packed {
    fn from(from: Instruction) -> Packed {
        let waits = from.waits.into_iter().map(|wait| (wait.flag, wait.value));
        let prefetches = from.prefetches.into_iter().map(|p| (p.slot, p.offset, p.bytes));
        let (waits, prefetches) = (waits.collect(), prefetches.collect());
        (from.launch, from.first, from.count, from.signal, waits, prefetches)
    }
}

impl PersistentStep {
    /// What the signals of a step add to each flag.
    pub fn flag_totals(&self) -> Vec<u64> {
        let mut totals = vec![0; self.flags as usize];
        for instruction in self.streams.iter().flatten() {
            let flag = instruction.signal.and_then(|flag| totals.get_mut(flag as usize));
            if let Some(total) = flag {
                *total += u64::from(instruction.count);
            }
        }
        totals
    }
}
