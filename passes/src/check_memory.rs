//! Checks a memory plan by replaying its schedule.
//!
//! The arena is a map from byte ranges to the buffer that was written there last. Each step must find
//! every operand whole, then writes its results, and must find its operands and results whole again,
//! since a kernel reads while it writes. Nothing here knows about live ranges: it shares no code with
//! the planner.

use crate::plan_memory::{ALIGNMENT, MemoryPlan};
use crate::schedule::{BufferId, BufferKind, Schedule};
use std::collections::BTreeMap;
use thiserror::Error;
use waveloom_ir::Module;

/// What is wrong with a memory plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// A temporary buffer in use has no offset.
    #[error("step {step}: temporary buffer `{buffer}` has no offset")]
    NoOffset {
        /// Index of the step.
        step: usize,
        /// Name of the buffer.
        buffer: String,
    },
    /// A buffer that lives outside the arena has an offset.
    #[error("buffer `{buffer}` is not temporary, but has an offset in the arena")]
    NotTemporary {
        /// Name of the buffer.
        buffer: String,
    },
    /// A buffer does not lie within the arena, at a multiple of the alignment.
    #[error(
        "buffer `{buffer}` at {offset} is misaligned or reaches past the arena of {peak} bytes"
    )]
    OutOfArena {
        /// Name of the buffer.
        buffer: String,
        /// Its offset.
        offset: u64,
        /// Bytes of the arena.
        peak: u64,
    },
    /// A step reads a buffer that was never written.
    #[error("step {step} reads buffer `{buffer}`, which no step has written")]
    Unwritten {
        /// Index of the step.
        step: usize,
        /// Name of the buffer.
        buffer: String,
    },
    /// A step needs a buffer that another one has overwritten.
    #[error("step {step} needs buffer `{buffer}`, but `{by}` was written over it")]
    Clobbered {
        /// Index of the step.
        step: usize,
        /// Name of the buffer that was lost.
        buffer: String,
        /// Name of the buffer that took its place.
        by: String,
    },
}

/// Replays `schedule` in the arena of `plan`, with every symbol at its largest extent.
pub fn check_memory(
    schedule: &Schedule,
    module: &Module,
    plan: &MemoryPlan,
) -> Result<(), MemoryError> {
    let mut replay = Replay { schedule, module, plan, owners: BTreeMap::new() };
    for (at, step) in schedule.steps.iter().enumerate() {
        for &operand in &step.operands {
            replay.expect_whole(at, operand)?;
        }
        for &result in &step.results {
            replay.write(at, result)?;
        }
        for &buffer in step.operands.iter().chain(&step.results) {
            replay.expect_whole(at, buffer)?;
        }
    }
    Ok(())
}

struct Replay<'a> {
    schedule: &'a Schedule,
    module: &'a Module,
    plan: &'a MemoryPlan,
    /// First byte of a range → (byte after it, owner); ranges do not overlap.
    owners: BTreeMap<u64, (u64, BufferId)>,
}

impl Replay<'_> {
    fn name(&self, buffer: BufferId) -> String {
        self.schedule.buffers[buffer.index()].name.clone()
    }

    /// The bytes of a temporary buffer; `None` for buffers outside the arena.
    fn range(&self, step: usize, id: BufferId) -> Result<Option<(u64, u64)>, MemoryError> {
        let buffer = &self.schedule.buffers[id.index()];
        let offset = self.plan.offsets.get(id.index()).copied().flatten();
        let name = || buffer.name.clone();
        let offset = match (buffer.kind, offset) {
            (BufferKind::Temporary, Some(offset)) => offset,
            (BufferKind::Temporary, None) => {
                return Err(MemoryError::NoOffset { step, buffer: name() });
            }
            (_, None) => return Ok(None),
            (_, Some(_)) => return Err(MemoryError::NotTemporary { buffer: name() }),
        };
        let end = buffer
            .ty
            .bytes(|dim| self.module.max_extent(dim))
            .and_then(|bytes| offset.checked_add(bytes))
            .filter(|&end| end <= self.plan.peak && offset.is_multiple_of(ALIGNMENT));
        match end {
            Some(end) => Ok(Some((offset, end))),
            None => Err(MemoryError::OutOfArena { buffer: name(), offset, peak: self.plan.peak }),
        }
    }

    /// Makes `buffer` the owner of its bytes, cutting earlier owners.
    fn write(&mut self, step: usize, buffer: BufferId) -> Result<(), MemoryError> {
        let Some((start, end)) = self.range(step, buffer)? else {
            return Ok(());
        };
        if start == end {
            return Ok(());
        }
        let cut: Vec<(u64, u64, BufferId)> = self
            .owners
            .range(..end)
            .map(|(&from, &(to, owner))| (from, to, owner))
            .filter(|&(_, to, _)| to > start)
            .collect();
        for (from, to, owner) in cut {
            self.owners.remove(&from);
            if from < start {
                self.owners.insert(from, (start, owner));
            }
            if to > end {
                self.owners.insert(end, (to, owner));
            }
        }
        self.owners.insert(start, (end, buffer));
        Ok(())
    }

    /// Requires that every byte of `buffer` is still its own.
    fn expect_whole(&self, step: usize, buffer: BufferId) -> Result<(), MemoryError> {
        let Some((start, end)) = self.range(step, buffer)? else {
            return Ok(());
        };
        let mut covered = 0;
        let mut by = None;
        for (&from, &(to, owner)) in self.owners.range(..end) {
            if to <= start {
                continue;
            }
            if owner == buffer {
                covered += to.min(end) - from.max(start);
            } else {
                by = Some(owner);
            }
        }
        match by {
            _ if covered == end - start => Ok(()),
            None => Err(MemoryError::Unwritten { step, buffer: self.name(buffer) }),
            Some(by) => {
                Err(MemoryError::Clobbered { step, buffer: self.name(buffer), by: self.name(by) })
            }
        }
    }
}
