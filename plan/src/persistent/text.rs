//! A persistent step for people: what `inspect --plan` prints after the programs.

use super::{Instruction, PersistentStep};
use crate::plan::Plan;
use std::fmt;

/// What the streams of a step do in all.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamTotals {
    /// Instructions.
    pub instructions: usize,
    /// Waits.
    pub waits: usize,
    /// Signals.
    pub signals: usize,
    /// By stream: bytes that its workgroups must move, for one token at the beginning of a context.
    pub bytes: Vec<f64>,
}

impl StreamTotals {
    /// Counts what the streams of a plan's persistent step do.
    pub fn of(plan: &Plan, step: &PersistentStep) -> StreamTotals {
        let all = || step.streams.iter().flatten();
        let bytes = |stream: &Vec<Instruction>| stream.iter().map(|i| bytes(plan, step, i)).sum();
        StreamTotals {
            instructions: all().count(),
            waits: all().map(|instruction| instruction.waits.len()).sum(),
            signals: all().filter(|instruction| instruction.signal.is_some()).count(),
            bytes: step.streams.iter().map(bytes).collect(),
        }
    }

    /// Bytes of the stream that moves the most, over the mean.
    pub fn imbalance(&self) -> f64 {
        let sum: f64 = self.bytes.iter().sum();
        let most = self.bytes.iter().copied().fold(0.0, f64::max);
        if sum > 0.0 { most * self.bytes.len() as f64 / sum } else { 1.0 }
    }
}

/// Bytes that an instruction's workgroups must move: their share of their launch's.
fn bytes(plan: &Plan, step: &PersistentStep, instruction: &Instruction) -> f64 {
    let program = plan.programs.get(step.program);
    let launch = program.and_then(|program| program.launches.get(instruction.launch as usize));
    let bytes = launch.and_then(|launch| {
        let work = plan.kernels.get(launch.kernel)?.work.as_ref()?;
        let (bytes, _) = work.bytes.bounds(&plan.symbols)?;
        let (grid, _) = launch.grid.bounds(&plan.symbols)?;
        Some(bytes as f64 * f64::from(instruction.count) / grid.max(1) as f64)
    });
    bytes.unwrap_or(0.0)
}

impl PersistentStep {
    pub(crate) fn fmt(&self, plan: &Plan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = plan.programs.get(self.program).map_or("?", |program| &program.name);
        let kernel = plan.kernels.get(self.kernel).map_or("?", |kernel| &kernel.name);
        let totals = StreamTotals::of(plan, self);
        writeln!(
            f,
            "\npersistent step, version {}: launches 0..{} of program {program} in one launch of \
             {kernel}",
            self.version, self.launches
        )?;
        let bodies: Vec<String> = self.bodies.iter().map(|body| format!("k{body}")).collect();
        writeln!(f, "  code of {}", bodies.join(", "))?;
        let residency = &self.residency;
        writeln!(
            f,
            "  {} streams, for {} units of {} SIMDs with waves of {} and {} bytes of LDS",
            self.streams.len(),
            residency.units,
            residency.simds,
            residency.wave,
            residency.lds_bytes
        )?;
        writeln!(
            f,
            "  {} instructions, {} waits, {} signals, {} flags in {} bytes",
            totals.instructions,
            totals.waits,
            totals.signals,
            self.flags,
            self.sync().bytes()
        )?;
        writeln!(f, "  the busiest stream moves {:.3} x the mean", totals.imbalance())?;
        for (index, stream) in self.streams.iter().enumerate() {
            let bytes = totals.bytes[index];
            writeln!(f, "  stream {index}: {} instructions, {bytes:.0} bytes", stream.len())?;
            stream.iter().try_for_each(|instruction| self.fmt_instruction(plan, f, instruction))?;
        }
        Ok(())
    }

    fn fmt_instruction(
        &self,
        plan: &Plan,
        f: &mut fmt::Formatter<'_>,
        instruction: &Instruction,
    ) -> fmt::Result {
        let program = plan.programs.get(self.program);
        let launch = program.and_then(|p| p.launches.get(instruction.launch as usize));
        let kernel = launch.and_then(|launch| plan.kernels.get(launch.kernel));
        let end = u64::from(instruction.first) + u64::from(instruction.count);
        let kernel = kernel.map_or("?", |kernel| &kernel.name);
        write!(f, "    {}: {kernel} [{}..{end}]", instruction.launch, instruction.first)?;
        for (index, wait) in instruction.waits.iter().enumerate() {
            let separator = if index == 0 { " when" } else { "," };
            write!(f, "{separator} f{} >= {}", wait.flag, wait.value)?;
        }
        if let Some(flag) = instruction.signal {
            write!(f, " -> f{flag}")?;
        }
        let prefetched: u64 = instruction.prefetches.iter().map(|p| u64::from(p.bytes)).sum();
        if prefetched > 0 {
            write!(f, " prefetches {prefetched}")?;
        }
        writeln!(f)
    }
}
