//! Shadow of a wave's registers: which were written, and which wait for memory.
//!
//! Memory instructions return in the order of issue within a counter, except scalar loads, for which
//! only a wait for zero is a wait. A copy of a register that was never written is no use of it: its
//! destination counts as unwritten, since callees save registers that their callers never set.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Mistake, Sink, lanes, signals_barrier, writes};
use crate::Chip;
use crate::asm::{Instruction, Value};
use crate::effects::{Class, Effects, Memory};
use crate::probe::Access;
use crate::scalar::wait::{Counter, Wait};
use crate::wave::{AGPR, SCRATCH, Wave, scalar};

/// A memory instruction in flight.
struct Pending {
    vector: Vec<Range<u16>>,
    scalar: Vec<Range<u16>>,
    /// Bytes of LDS that it writes without a register.
    lds: Vec<Range<u64>>,
    /// Its index in the program and its text.
    pc: u32,
    text: String,
    in_order: bool,
    writes_lds: bool,
}

/// Registers of one wave.
pub struct Registers {
    vector_written: Vec<bool>,
    scalar_written: Vec<bool>,
    pending: [VecDeque<Pending>; Counter::ALL.len()],
}

impl Registers {
    /// At the start v0 and the first `scalars` scalar registers are set.
    pub fn new(scalars: u16) -> Registers {
        let mut vector_written = vec![false; SCRATCH];
        vector_written[0] = true;
        let scalar_written = (0..scalar::COUNT)
            .map(|index| index < usize::from(scalars) || index >= scalar::TTMP)
            .collect();
        Registers { vector_written, scalar_written, pending: Default::default() }
    }

    /// Before an instruction: uses of registers, then waits.
    pub fn before(
        &mut self,
        asm: &Instruction,
        effects: &Effects,
        chip: Chip,
        wave: &Wave,
        sink: &mut Sink<'_>,
    ) {
        self.check_pending(effects, sink);
        self.check_written(asm, effects, wave, sink);
        if signals_barrier(asm, effects) {
            self.check_barrier(sink);
        }
        let wait = Wait::new(asm);
        for counter in Counter::ALL {
            if let Some(limit) = wait.limit(counter) {
                self.retire(counter, usize::from(limit));
            }
        }
        self.issue(asm, effects, chip, sink.pc);
    }

    /// After it: its destinations are written.
    pub fn after(&mut self, asm: &Instruction, effects: &Effects) {
        // Half of what a pair is moved from may be undefined, and only that half of the pair is.
        let written = match ["v_pk_mov", "v_mov_b64"].iter().any(|m| asm.mnemonic.starts_with(m)) {
            true => !self.sources_unwritten(effects),
            false => !is_copy(asm) || self.sources_written(effects),
        };
        for row in effects.vector_writes.iter().flat_map(Range::clone) {
            self.vector_written[usize::from(row)] = written;
        }
        for index in effects.scalar_writes.iter().flat_map(Range::clone) {
            self.scalar_written[usize::from(index)] = written;
        }
    }

    /// Whether there are sources and none was ever written.
    fn sources_unwritten(&self, effects: &Effects) -> bool {
        let mut vectors = effects.vector_reads.iter().flat_map(Range::clone);
        let mut scalars = effects.scalar_reads.iter().flat_map(Range::clone);
        let any = !effects.vector_reads.is_empty() || !effects.scalar_reads.is_empty();
        any && vectors.all(|row| !self.vector_written[usize::from(row)])
            && scalars.all(|index| !self.scalar_written[usize::from(index)])
    }

    fn sources_written(&self, effects: &Effects) -> bool {
        let mut vectors = effects.vector_reads.iter().flat_map(Range::clone);
        let mut scalars = effects.scalar_reads.iter().flat_map(Range::clone);
        vectors.all(|row| self.vector_written[usize::from(row)])
            && scalars.all(|index| self.scalar_written[usize::from(index)])
    }

    fn check_written(
        &self,
        asm: &Instruction,
        effects: &Effects,
        wave: &Wave,
        sink: &mut Sink<'_>,
    ) {
        if is_copy(asm) || is_save(asm) || is_lane_mask_update(asm) {
            return;
        }
        // Compilers leave half of a pair undefined where the result does not depend on it.
        let unwritten = |range: &Range<u16>, written: &[bool]| {
            let none = range.clone().all(|index| !written[usize::from(index)]);
            none.then_some(range.start)
        };
        if wave.exec() != 0 || effects.class == Class::Matrix {
            let ranges = effects.vector_reads.iter();
            if let Some(row) = ranges.filter_map(|r| unwritten(r, &self.vector_written)).next() {
                sink.report(Mistake::UnwrittenRegister, None, || vector_name(row));
            }
        }
        let ranges = effects.scalar_reads.iter();
        if let Some(index) = ranges.filter_map(|r| unwritten(r, &self.scalar_written)).next() {
            sink.report(Mistake::UnwrittenRegister, None, || scalar_name(index));
        }
    }

    fn check_pending(&self, effects: &Effects, sink: &mut Sink<'_>) {
        let overlap = |a: &[Range<u16>], b: &[Range<u16>]| {
            let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
            pairs.map(|(a, b)| a.start.max(b.start)..a.end.min(b.end)).find(|both| !both.is_empty())
        };
        for pending in self.pending.iter().flatten() {
            let vector = overlap(&pending.vector, &effects.vector_reads)
                .or_else(|| overlap(&pending.vector, &effects.vector_writes))
                .map(|range| vector_name(range.start));
            let scalar = overlap(&pending.scalar, &effects.scalar_reads)
                .or_else(|| overlap(&pending.scalar, &effects.scalar_writes))
                .map(|range| scalar_name(range.start));
            // Loads into the same registers in order are the memory's business.
            let loads_again = effects.class == Class::VectorMemory || effects.class == Class::Lds;
            let only_written = overlap(&pending.vector, &effects.vector_reads).is_none();
            if loads_again && only_written && pending.scalar.is_empty() {
                continue;
            }
            if let Some(name) = vector.or(scalar) {
                let text = &pending.text;
                sink.report(Mistake::MissingWait, None, || format!("{name} is filled by `{text}`"));
            }
        }
    }

    fn check_barrier(&self, sink: &mut Sink<'_>) {
        if let Some(pending) = self.pending.iter().flatten().find(|pending| pending.writes_lds) {
            let text = &pending.text;
            let detail = || format!("`{text}` may not have reached LDS");
            sink.report(Mistake::MissingWaitBeforeBarrier, None, detail);
        }
    }

    /// Checks LDS accesses against loads to LDS in flight, and records such loads.
    pub fn lds_access(&mut self, access: &Access<'_>, dma: bool, sink: &mut Sink<'_>) {
        let bytes = u64::from(access.bytes);
        let ranges = lanes(access.lanes).map(|lane| {
            let first = access.addresses[lane];
            (lane, first..first.saturating_add(bytes))
        });
        if writes(access.kind) {
            // Of the two counters of a flat access it is LDS's that tells.
            let queues = if dma { &[Counter::Load][..] } else { &[Counter::Lgkm, Counter::Lds] };
            for counter in queues {
                let last = self.pending[*counter as usize].back_mut();
                if let Some(pending) = last.filter(|pending| pending.pc == sink.pc) {
                    pending.writes_lds = true;
                }
            }
        }
        if dma && writes(access.kind) {
            if let Some(last) = self.pending[Counter::Load as usize].back_mut() {
                last.lds = ranges.map(|(_, range)| range).collect();
            }
            return;
        }
        for (lane, range) in ranges {
            let flight = self.pending.iter().flatten().find(|pending| {
                pending.lds.iter().any(|lds| lds.start < range.end && range.start < lds.end)
            });
            if let Some(pending) = flight {
                let text = &pending.text;
                sink.report(Mistake::MissingWait, Some(lane as u32), || {
                    format!("LDS byte {:#x} is filled by `{text}`", range.start)
                });
            }
        }
    }

    fn retire(&mut self, counter: Counter, limit: usize) {
        let queue = &mut self.pending[counter as usize];
        if limit > 0 && queue.iter().any(|pending| !pending.in_order) {
            return;
        }
        while queue.len() > limit {
            queue.pop_front();
        }
    }

    fn issue(&mut self, asm: &Instruction, effects: &Effects, chip: Chip, pc: u32) {
        let Some(memory) = effects.memory else { return };
        let loads = matches!(memory, Memory::Load | Memory::AtomicReturn);
        let split = chip == Chip::Gfx1201;
        let lds = if split { Counter::Lds } else { Counter::Lgkm };
        let stores = matches!(memory, Memory::Store | Memory::Atomic);
        let vector = if chip.is_rdna() && stores { Counter::Store } else { Counter::Load };
        let counters: &[Counter] = match effects.class {
            Class::ScalarMemory if split => &[Counter::Scalar],
            Class::ScalarMemory => &[Counter::Lgkm],
            Class::Lds => &[lds],
            _ if asm.mnemonic.starts_with("flat_") => &[vector, lds],
            _ => &[vector],
        };
        for counter in counters {
            self.pending[*counter as usize].push_back(Pending {
                vector: if loads { effects.vector_writes.clone() } else { Vec::new() },
                scalar: if loads { effects.scalar_writes.clone() } else { Vec::new() },
                lds: Vec::new(),
                pc,
                text: asm.text.clone(),
                in_order: effects.class != Class::ScalarMemory,
                writes_lds: false,
            });
        }
    }
}

/// Moves whose source may be undefined without harm.
fn is_copy(asm: &Instruction) -> bool {
    let copies = ["v_mov_b32", "v_mov_b64", "v_accvgpr", "s_mov_b32", "s_mov_b64", "v_pk_mov_b32"];
    copies.iter().any(|prefix| asm.mnemonic.starts_with(prefix))
}

/// Loops gather the lanes that left them in a mask whose other bits may be anything.
fn is_lane_mask_update(asm: &Instruction) -> bool {
    let logical = ["s_or_b", "s_and_b", "s_andn2_b", "s_and_not1_b", "s_xor_b"];
    logical.iter().any(|prefix| asm.mnemonic.starts_with(prefix))
        && asm.operands.iter().any(|operand| {
            matches!(operand.value, Value::Scalar(first, _) if usize::from(first) == scalar::EXEC)
        })
}

/// Stores of registers to private memory or to lanes of another, as callees do.
fn is_save(asm: &Instruction) -> bool {
    let private_buffer = asm.mnemonic.starts_with("buffer_store")
        && asm.operands.get(2).is_some_and(|operand| operand.value == Value::Scalar(0, 4));
    asm.mnemonic.starts_with("scratch_store")
        || asm.mnemonic.starts_with("v_writelane")
        || private_buffer
}

/// Whether the instruction waits until all stores have completed.
pub fn drains_stores(asm: &Instruction, chip: Chip) -> bool {
    let counter = if chip.is_rdna() { Counter::Store } else { Counter::Load };
    Wait::new(asm).limit(counter) == Some(0)
}

fn vector_name(row: u16) -> String {
    let row = usize::from(row);
    if row >= AGPR { format!("a{}", row - AGPR) } else { format!("v{row}") }
}

fn scalar_name(index: u16) -> String {
    match usize::from(index) {
        scalar::VCC => "vcc_lo".to_string(),
        index if index == scalar::VCC + 1 => "vcc_hi".to_string(),
        scalar::M0 => "m0".to_string(),
        index => format!("s{index}"),
    }
}
