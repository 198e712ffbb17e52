//! Streams as the persistent kernel reads them, and the memory in which streams meet. This is the
//! kernel's ABI:
//!
//! ```c
//! __global__ void kernel(const uint64_t *arguments, const uint32_t *code, uint32_t *sync);
//! ```
//!
//! `arguments` has the argument slots of the program's launches one after the other. `code` begins
//! with a word per stream, the word at which its records begin; a record has [`RECORD_WORDS`] words,
//! and one whose opcode is [`Encoded::END`] ends a stream. `sync` has [`SyncLayout::bytes`] bytes,
//! zero when the plan is loaded and never written by the host again.

use super::{MAX_PREFETCHES, MAX_WAITS, PersistentStep};
use crate::plan::Plan;

/// Words of a record.
pub const RECORD_WORDS: usize = 32;

/// A word of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Which body, or [`Encoded::END`].
    Opcode,
    /// The launch's first slot among the arguments.
    Arguments,
    /// First workgroup.
    First,
    /// Number of workgroups; what is added to the flag.
    Count,
    /// Offset of the flag in `sync`, in bytes; 0 for none.
    Signal,
    /// Number of waits.
    Waits,
    /// Number of prefetches.
    Prefetches,
    /// Of a wait: offset of the flag in `sync` in bytes, value, what a step adds to the flag.
    Wait(usize),
    /// Of a prefetch: slot among the arguments, offset and size in bytes.
    Prefetch(usize),
}

impl Field {
    /// Words of a wait, and of a prefetch.
    pub const TRIPLE: usize = 3;

    /// Its place in a record.
    pub const fn word(self) -> usize {
        match self {
            Field::Opcode => 0,
            Field::Arguments => 1,
            Field::First => 2,
            Field::Count => 3,
            Field::Signal => 4,
            Field::Waits => 5,
            Field::Prefetches => 6,
            Field::Wait(index) => 8 + Field::TRIPLE * index,
            Field::Prefetch(index) => 8 + Field::TRIPLE * (MAX_WAITS + index),
        }
    }
}

const _: () = assert!(Field::Prefetch(MAX_PREFETCHES).word() <= RECORD_WORDS);

/// The memory in which streams meet: words in lines of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncLayout {
    flags: u32,
}

impl SyncLayout {
    /// Bytes between words: no two are in one line of a cache.
    pub const LINE: u32 = 128;
    /// Offset of the number of steps that have ended.
    pub const STEP: u32 = 0;
    /// Offset of the number of streams that have ended in this step.
    pub const ENDED: u32 = SyncLayout::LINE;

    /// Offset of a flag.
    pub const fn flag(flag: u32) -> u32 {
        SyncLayout::LINE * (2 + flag)
    }

    /// Size in all.
    pub fn bytes(&self) -> u64 {
        u64::from(SyncLayout::LINE) * (2 + u64::from(self.flags))
    }
}

/// Streams as words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Where each stream begins, then records.
    pub code: Vec<u32>,
}

impl Encoded {
    /// Opcode of the end of a stream.
    pub const END: u32 = u32::MAX;
}

impl PersistentStep {
    /// The memory in which its streams meet.
    pub fn sync(&self) -> SyncLayout {
        SyncLayout { flags: self.flags }
    }

    /// Its streams as words; `None` where the plan was not checked with it.
    pub fn encode(&self, plan: &Plan) -> Option<Encoded> {
        let launches = plan.programs.get(self.program)?.launches.get(..self.launches)?;
        let mut slots = 0;
        let first_slots = launches.iter().map(|launch| {
            let first = slots;
            slots += launch.args.len() as u32;
            first
        });
        let first_slots: Vec<u32> = first_slots.collect();
        let totals = self.flag_totals();
        let mut code = vec![0; self.streams.len()];
        for (stream, instructions) in self.streams.iter().enumerate() {
            code[stream] = u32::try_from(code.len()).ok()?;
            for instruction in instructions {
                let launch = instruction.launch as usize;
                let kernel = launches.get(launch)?.kernel;
                let opcode = self.bodies.iter().position(|body| *body == kernel)?;
                let first_slot = *first_slots.get(launch)?;
                let mut record = [0; RECORD_WORDS];
                let mut set = |field: Field, values: &[u32]| -> Option<()> {
                    let start = field.word();
                    record.get_mut(start..start + values.len())?.copy_from_slice(values);
                    Some(())
                };
                set(Field::Opcode, &[opcode as u32])?;
                set(Field::Arguments, &[first_slot])?;
                set(Field::First, &[instruction.first])?;
                set(Field::Count, &[instruction.count])?;
                set(Field::Signal, &[instruction.signal.map_or(0, SyncLayout::flag)])?;
                set(Field::Waits, &[instruction.waits.len() as u32])?;
                set(Field::Prefetches, &[instruction.prefetches.len() as u32])?;
                for (index, wait) in instruction.waits.iter().enumerate() {
                    let total = *totals.get(wait.flag as usize)? as u32;
                    set(Field::Wait(index), &[SyncLayout::flag(wait.flag), wait.value, total])?;
                }
                for (index, prefetch) in instruction.prefetches.iter().enumerate() {
                    let slot = first_slot + prefetch.slot;
                    set(Field::Prefetch(index), &[slot, prefetch.offset, prefetch.bytes])?;
                }
                code.extend(record);
            }
            let mut end = [0; RECORD_WORDS];
            end[Field::Opcode.word()] = Encoded::END;
            code.extend(end);
        }
        Some(Encoded { code })
    }
}
