//! Statistics of kernels: instruction mix, matrix and vector work, memory transactions and how much of
//! what they fetch is used, LDS bank conflicts, divergence. A profile that any machine can make.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::Chip;
use crate::dispatch::{self, Launch};
use crate::effects::Class;
use crate::object::Kernel;
use crate::probe::{Access, Kind, Observer, Probe, Space};
use crate::program::Program;
use crate::valu::matrix;
use crate::wave::{Group, LANES, Wave};

/// Bytes of a line of the caches between a compute unit and memory.
const LINE: u64 = 128;

/// What one kernel did in all its launches.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct KernelStatistics {
    /// Chip that was emulated.
    pub chip: String,
    /// Times that it was launched.
    pub launches: u64,
    /// Workgroups.
    pub workgroups: u64,
    /// Waves.
    pub waves: u64,
    /// Registers and memory that each wave and workgroup is given.
    pub resources: Resources,
    /// Wave instructions.
    pub instructions: u64,
    /// Wave instructions by the unit that executes them.
    pub classes: BTreeMap<&'static str, u64>,
    /// Wave instructions by mnemonic.
    pub mnemonics: BTreeMap<String, u64>,
    /// Multiplications and additions of matrix instructions.
    pub matrix_operations: u64,
    /// Lanes that were on, summed over vector instructions.
    pub vector_lane_operations: u64,
    /// Control flow.
    pub divergence: Divergence,
    /// Global memory, by bytes of a lane's access.
    pub global: BTreeMap<u32, Transactions>,
    /// Bytes that loads asked for, all lanes together.
    pub bytes_read: u64,
    /// Bytes that stores wrote.
    pub bytes_written: u64,
    /// Bytes that atomics changed.
    pub bytes_atomic: u64,
    /// LDS.
    pub lds: LdsStatistics,
    /// Bytes of private memory that were accessed: spills, and arrays that are no registers.
    pub scratch_bytes: u64,
}

/// What the hardware sets aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Vector registers of a wave.
    pub vgprs: u32,
    /// Accumulation registers of a wave.
    pub agprs: u32,
    /// Scalar registers of a wave.
    pub sgprs: u32,
    /// Vector registers that were spilled.
    pub vgpr_spills: u32,
    /// Scalar registers that were spilled.
    pub sgpr_spills: u32,
    /// Bytes of LDS of a workgroup, static and dynamic.
    pub lds_bytes: u32,
    /// Bytes of private memory of a work-item.
    pub scratch_bytes: u32,
    /// Workgroups that a compute unit holds at once.
    pub workgroups_per_compute_unit: u32,
}

/// Lanes that idle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Divergence {
    /// Vector instructions.
    pub vector_instructions: u64,
    /// Of them, those with some lanes off.
    pub partly_off: u64,
    /// Of them, those with all lanes off.
    pub wholly_off: u64,
    /// Conditional branches.
    pub conditional_branches: u64,
}

/// Accesses of global memory of one width.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Transactions {
    /// Wave instructions that load.
    pub loads: u64,
    /// Wave instructions that store.
    pub stores: u64,
    /// Wave instructions that are atomics.
    pub atomics: u64,
    /// Bytes asked for, each byte once an instruction.
    pub bytes: u64,
    /// Lines of 128 bytes that these instructions touched, each once an instruction.
    pub lines: u64,
    /// `bytes / (128 * lines)`: 1 where every byte of each line was used at once.
    pub line_use: f64,
}

/// Accesses of LDS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LdsStatistics {
    /// Wave instructions.
    pub accesses: u64,
    /// Bytes that the lanes asked for.
    pub bytes: u64,
    /// Cycles that the banks are busy.
    pub cycles: u64,
    /// Of them, those that accesses without conflicts would not need.
    pub conflict_cycles: u64,
}

impl KernelStatistics {
    fn merge(&mut self, other: KernelStatistics) {
        self.workgroups += other.workgroups;
        self.waves += other.waves;
        self.instructions += other.instructions;
        for (class, count) in other.classes {
            *self.classes.entry(class).or_default() += count;
        }
        for (mnemonic, count) in other.mnemonics {
            *self.mnemonics.entry(mnemonic).or_default() += count;
        }
        self.matrix_operations += other.matrix_operations;
        self.vector_lane_operations += other.vector_lane_operations;
        self.divergence.vector_instructions += other.divergence.vector_instructions;
        self.divergence.partly_off += other.divergence.partly_off;
        self.divergence.wholly_off += other.divergence.wholly_off;
        self.divergence.conditional_branches += other.divergence.conditional_branches;
        for (width, transactions) in other.global {
            self.global.entry(width).or_default().merge(&transactions);
        }
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.bytes_atomic += other.bytes_atomic;
        self.lds.accesses += other.lds.accesses;
        self.lds.bytes += other.lds.bytes;
        self.lds.cycles += other.lds.cycles;
        self.lds.conflict_cycles += other.lds.conflict_cycles;
        self.scratch_bytes += other.scratch_bytes;
    }
}

impl Transactions {
    fn merge(&mut self, other: &Transactions) {
        self.loads += other.loads;
        self.stores += other.stores;
        self.atomics += other.atomics;
        self.bytes += other.bytes;
        self.lines += other.lines;
        self.line_use = self.bytes as f64 / (LINE * self.lines.max(1)) as f64;
    }
}

/// Collects statistics of every launch that it observes, by kernel name.
#[derive(Default)]
pub struct Statistics {
    kernels: Mutex<BTreeMap<String, KernelStatistics>>,
}

impl Statistics {
    /// What was collected so far.
    pub fn kernels(&self) -> BTreeMap<String, KernelStatistics> {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what was collected as JSON: an object with one member for each kernel.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(&self.kernels())?;
        // Whole or not at all: a program that dies must not leave half a file.
        let part = path.with_extension("part");
        std::fs::write(&part, text + "\n")?;
        std::fs::rename(&part, path)
    }
}

impl Observer for Statistics {
    fn start_group(
        &self,
        kernel: &Kernel,
        launch: &Launch,
        group: &Group,
    ) -> Option<Box<dyn Probe>> {
        if group.id == [0, 0, 0] {
            let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = kernels.entry(kernel.name.clone()).or_default();
            entry.launches += 1;
            entry.chip = kernel.chip.to_string();
            entry.resources = resources(kernel, launch);
        }
        let count = kernel.program().asm.len();
        Some(Box::new(GroupStatistics {
            executed: vec![0; count],
            banks: banks(kernel.chip),
            found: KernelStatistics {
                workgroups: 1,
                waves: u64::from(group.live_waves),
                ..KernelStatistics::default()
            },
        }))
    }

    fn end_group(&self, kernel: &Kernel, probe: Box<dyn Probe>) {
        let Ok(group) = probe.into_any().downcast::<GroupStatistics>() else { return };
        let found = group.finish(kernel.program());
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        kernels.entry(kernel.name.clone()).or_default().merge(found);
    }
}

fn resources(kernel: &Kernel, launch: &Launch) -> Resources {
    Resources {
        vgprs: kernel.vgprs,
        agprs: kernel.agprs,
        sgprs: kernel.sgprs,
        vgpr_spills: kernel.vgpr_spills,
        sgpr_spills: kernel.sgpr_spills,
        lds_bytes: kernel.lds_bytes.saturating_add(launch.dynamic_lds),
        scratch_bytes: kernel.scratch_bytes,
        workgroups_per_compute_unit: dispatch::occupancy(
            kernel,
            launch.block_size(),
            launch.dynamic_lds,
        ),
    }
}

/// Counts one workgroup.
struct GroupStatistics {
    /// How often each instruction was executed.
    executed: Vec<u64>,
    /// LDS banks of the chip.
    banks: usize,
    found: KernelStatistics,
}

impl GroupStatistics {
    /// Sums up by mnemonic and class.
    fn finish(self, program: &Program) -> KernelStatistics {
        let mut found = self.found;
        let executed = self.executed.iter().zip(&program.asm).zip(program.effects());
        for ((count, asm), effects) in executed.filter(|((count, _), _)| **count > 0) {
            found.instructions += count;
            *found.classes.entry(effects.class.name()).or_default() += count;
            *found.mnemonics.entry(asm.mnemonic.clone()).or_default() += count;
            let operations = matrix::operations(&asm.mnemonic, program.chip).unwrap_or(0);
            found.matrix_operations += count * operations;
            if asm.mnemonic.starts_with("s_cbranch") {
                found.divergence.conditional_branches += count;
            }
        }
        found
    }

    fn global_access(&mut self, access: &Access<'_>) {
        let (bytes, lines) = footprint(access);
        let entry = self.found.global.entry(access.bytes).or_default();
        let asked = u64::from(access.bytes) * u64::from(access.lanes.count_ones());
        match access.kind {
            Kind::Load => {
                entry.loads += 1;
                self.found.bytes_read += asked;
            }
            Kind::Store => {
                entry.stores += 1;
                self.found.bytes_written += asked;
            }
            Kind::Atomic => {
                entry.atomics += 1;
                self.found.bytes_atomic += asked;
            }
        }
        entry.merge(&Transactions { bytes, lines, ..Transactions::default() });
    }

    fn lds_access(&mut self, access: &Access<'_>) {
        let (cycles, phases) = bank_cycles(access, self.banks);
        self.found.lds.accesses += 1;
        self.found.lds.bytes += u64::from(access.bytes) * u64::from(access.lanes.count_ones());
        self.found.lds.cycles += cycles;
        self.found.lds.conflict_cycles += cycles - phases;
    }
}

impl Probe for GroupStatistics {
    fn before(&mut self, program: &Program, pc: u32, wave: &Wave, _: &Group) {
        let Some(count) = self.executed.get_mut(pc as usize) else { return };
        *count += 1;
        if program.effects()[pc as usize].class == Class::Vector {
            let on = wave.exec().count_ones();
            let divergence = &mut self.found.divergence;
            divergence.vector_instructions += 1;
            divergence.partly_off += u64::from(on > 0 && on < wave.lanes);
            divergence.wholly_off += u64::from(on == 0);
            self.found.vector_lane_operations += u64::from(on);
        }
    }

    fn after(&mut self, _: &Program, _: u32, _: &Wave, _: &Group) {}

    fn access(&mut self, _: u32, _: &Wave, access: &Access<'_>) {
        match access.space {
            Space::Global => self.global_access(access),
            Space::Lds => self.lds_access(access),
            Space::Scratch => {
                let lanes = u64::from(access.lanes.count_ones());
                self.found.scratch_bytes += u64::from(access.bytes) * lanes;
            }
        }
    }

    fn barrier(&mut self) {}

    fn wave_ended(&mut self, _: &Wave) {}

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Lanes that are on.
fn active(mask: u64) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 != 0)
}

/// Different bytes, and lines that hold them, of one access.
fn footprint(access: &Access<'_>) -> (u64, u64) {
    let mut ranges: Vec<(u64, u64)> = active(access.lanes)
        .map(|lane| access.addresses[lane])
        .map(|first| (first, first.saturating_add(u64::from(access.bytes))))
        .collect();
    ranges.sort_unstable();
    let (mut bytes, mut lines, mut covered, mut next_line) = (0, 0, 0, 0);
    for (first, end) in ranges {
        bytes += end.saturating_sub(first.max(covered));
        covered = covered.max(end);
        let (line, last) = (first / LINE, end.saturating_sub(1) / LINE);
        lines += (last + 1).saturating_sub(line.max(next_line));
        next_line = next_line.max(last + 1);
    }
    (bytes, lines)
}

/// Banks of four bytes.
fn banks(chip: Chip) -> usize {
    match chip {
        Chip::Gfx90a | Chip::Gfx942 => 32,
        Chip::Gfx950 | Chip::Gfx1100 | Chip::Gfx1151 | Chip::Gfx1201 => 64,
    }
}

/// Cycles that an access keeps the banks busy, and those that it would without conflicts.
///
/// A model: consecutive lanes share a cycle, as many as the banks serve at full width; in a cycle a
/// bank gives one word, to any number of lanes.
fn bank_cycles(access: &Access<'_>, banks: usize) -> (u64, u64) {
    let words = (access.bytes as usize).div_ceil(4).max(1);
    let lanes_at_once = (banks / words).max(1);
    let (mut cycles, mut phases) = (0, 0);
    for first in (0..LANES).step_by(lanes_at_once) {
        let mut busy = vec![BTreeSet::new(); banks];
        for lane in active(access.lanes).filter(|l| (first..first + lanes_at_once).contains(l)) {
            for word in 0..words as u64 {
                let word = access.addresses[lane] / 4 + word;
                busy[(word % banks as u64) as usize].insert(word);
            }
        }
        let most = busy.iter().map(BTreeSet::len).max().unwrap_or(0) as u64;
        cycles += most;
        phases += u64::from(most > 0);
    }
    (cycles, phases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(
        space: Space,
        bytes: u32,
        address: impl Fn(u64) -> u64,
    ) -> ([u64; LANES], u32, Space) {
        (std::array::from_fn(|lane| address(lane as u64)), bytes, space)
    }

    fn view((addresses, bytes, space): &([u64; LANES], u32, Space)) -> Access<'_> {
        let (kind, space, bytes) = (Kind::Load, *space, *bytes);
        Access { kind, space, addresses, lanes: u64::MAX, bytes }
    }

    #[test]
    fn lines_and_bytes() {
        let dense = access(Space::Global, 16, |lane| 0x1000 + 16 * lane);
        assert_eq!(footprint(&view(&dense)), (1024, 8));
        let strided = access(Space::Global, 4, |lane| 0x1000 + 256 * lane);
        assert_eq!(footprint(&view(&strided)), (256, 64));
        let same = access(Space::Global, 4, |_| 0x10fe);
        assert_eq!(footprint(&view(&same)), (4, 2), "it crosses a line");
    }

    #[test]
    fn bank_conflicts() {
        let dense = access(Space::Lds, 4, |lane| 4 * lane);
        assert_eq!(bank_cycles(&view(&dense), 32), (2, 2));
        let column = access(Space::Lds, 4, |lane| 128 * lane);
        assert_eq!(bank_cycles(&view(&column), 32), (64, 2));
        let broadcast = access(Space::Lds, 4, |_| 64);
        assert_eq!(bank_cycles(&view(&broadcast), 32), (2, 2));
        let padded = access(Space::Lds, 4, |lane| 132 * lane);
        assert_eq!(bank_cycles(&view(&padded), 32), (2, 2));
        let wide = access(Space::Lds, 16, |lane| 16 * lane);
        assert_eq!(bank_cycles(&view(&wide), 32), (8, 8));
    }
}
