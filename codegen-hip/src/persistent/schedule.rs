//! Which workgroup runs what, when: launches in order, each divided evenly among the streams.
//!
//! Waits come first in their full form, from what launches read and write, and are then left out
//! where the stream has waited for as much before. A flag counts the workgroups of one launch.

use crate::kernels::KernelSource;
use waveloom_plan::persistent::{
    Instruction, MAX_PREFETCHES, MAX_WAITS, Prefetch, Wait, dependences,
};
use waveloom_plan::{Launch, Plan};

/// A launch without a constant grid does not run in streams.
type Result<T> = std::result::Result<T, String>;

/// Prefetches are sized in units of a lane's load.
const LINE: u64 = 16;

/// How many streams there are, and where they run.
#[derive(Clone, Copy)]
pub(super) struct Assignment {
    pub streams: usize,
    /// Dies of the chip; workgroups go round them.
    pub dies: usize,
}

impl Assignment {
    /// All streams, those of a die side by side: neighbouring workgroups of a launch share what
    /// their die has in its cache.
    pub fn by_die(self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.streams).collect();
        order.sort_by_key(|stream| (stream % self.dies.max(1), *stream));
        order
    }
}

pub(super) struct Scheduler<'a> {
    pub plan: &'a Plan,
    pub launches: &'a [Launch],
    /// The kernels of the launches.
    pub sources: Vec<&'a KernelSource>,
    /// Most bytes that one prefetch reads.
    pub prefetch_bytes: u32,
}

impl Scheduler<'_> {
    /// The streams, and the number of flags.
    pub fn run(&self, assignment: Assignment) -> Result<(Vec<Vec<Instruction>>, u32)> {
        if assignment.streams == 0 {
            return Err("no workgroup to run on: ask for one at least".to_string());
        }
        let grids: Vec<u32> =
            (0..self.launches.len()).map(|launch| self.grid(launch)).collect::<Result<_>>()?;
        let before = dependences(self.plan, self.launches).map_err(|error| error.to_string())?;
        let mut streams = vec![vec![]; assignment.streams];
        let mut moved = vec![0f64; assignment.streams];
        for (launch, &grid) in grids.iter().enumerate() {
            let waits = self.waits(launch, &before[launch], &grids)?;
            let mut first = 0;
            let counts = divide(grid, assignment, &moved);
            for stream in assignment.by_die() {
                let count = counts[stream];
                if count == 0 {
                    continue;
                }
                moved[stream] += self.bytes(launch, grid) * f64::from(count);
                streams[stream].push(Instruction {
                    launch: launch as u32,
                    first,
                    count,
                    waits: waits.clone(),
                    signal: Some(launch as u32),
                    prefetches: self.prefetches(launch, first),
                });
                first += count;
            }
        }
        streams.iter_mut().for_each(|stream| elide_waits(stream));
        let flags = number_flags(&mut streams, self.launches.len());
        Ok((streams, flags))
    }

    fn name(&self, launch: usize) -> String {
        format!("launch {launch} ({})", self.sources[launch].text.name)
    }

    fn grid(&self, launch: usize) -> Result<u32> {
        let bounds = self.launches[launch].grid.bounds(&[]);
        let grid = bounds
            .filter(|(low, high)| low == high)
            .and_then(|(grid, _)| u32::try_from(grid).ok().filter(|grid| *grid > 0));
        grid.ok_or_else(|| format!("{} has no constant grid", self.name(launch)))
    }

    /// All of what a launch depends on.
    fn waits(&self, launch: usize, before: &[usize], grids: &[u32]) -> Result<Vec<Wait>> {
        if before.len() > MAX_WAITS {
            let name = self.name(launch);
            return Err(format!("{name} waits for {} launches, of {MAX_WAITS}", before.len()));
        }
        let wait = |&earlier: &usize| Wait { flag: earlier as u32, value: grids[earlier] };
        Ok(before.iter().map(wait).collect())
    }

    /// Bytes that a workgroup of a launch must move.
    fn bytes(&self, launch: usize, grid: u32) -> f64 {
        let work = self.sources[launch].work.as_ref();
        let bytes = work.and_then(|work| work.bytes.bounds(&self.plan.symbols));
        bytes.map_or(0.0, |(least, _)| least as f64 / f64::from(grid))
    }

    /// The beginnings of the weights that a workgroup reads.
    fn prefetches(&self, launch: usize, workgroup: u32) -> Vec<Prefetch> {
        let reads = self.sources[launch].first_reads.get(workgroup as usize);
        let reads = reads.map_or(&[][..], |reads| reads);
        let prefetches = reads.iter().filter_map(|read| {
            let bytes = read.bytes.min(self.prefetch_bytes.into()) / LINE * LINE;
            let reachable = i32::try_from(read.offset + bytes).is_ok() && bytes > 0;
            let (slot, offset) = (read.slot as u32, read.offset as u32);
            reachable.then_some(Prefetch { slot, offset, bytes: bytes as u32 })
        });
        prefetches.take(MAX_PREFETCHES).collect()
    }
}

/// How many of a launch's workgroups each stream runs: the same number, and what is left over goes
/// to those that have moved the least.
pub(super) fn divide(grid: u32, assignment: Assignment, moved: &[f64]) -> Vec<u32> {
    let streams = assignment.streams as u32;
    let mut counts = vec![grid / streams; assignment.streams];
    let mut least: Vec<usize> = (0..assignment.streams).collect();
    // Equal ones in their order, which goes round the dies.
    least.sort_by(|&a, &b| moved[a].total_cmp(&moved[b]));
    for &stream in &least[..(grid % streams) as usize] {
        counts[stream] += 1;
    }
    counts
}

/// Drops waits for what the stream has waited for before, and prefetches that nothing waits beside.
pub(super) fn elide_waits(stream: &mut [Instruction]) {
    let mut passed: Vec<Wait> = vec![];
    for instruction in stream {
        let known = |wait: &Wait| {
            passed.iter().any(|past| past.flag == wait.flag && past.value >= wait.value)
        };
        instruction.waits.retain(|wait| !known(wait));
        if instruction.waits.is_empty() {
            instruction.prefetches.clear();
        }
        passed.extend(&instruction.waits);
    }
}

/// Gives numbers to the flags that something waits on, and drops the signals of the others. Flags
/// are numbered by launch before.
pub(super) fn number_flags(streams: &mut [Vec<Instruction>], launches: usize) -> u32 {
    let mut waited = vec![false; launches];
    for wait in streams.iter().flatten().flat_map(|instruction| &instruction.waits) {
        waited[wait.flag as usize] = true;
    }
    let mut flags = 0;
    let numbers: Vec<Option<u32>> = waited
        .iter()
        .map(|&waited| {
            waited.then(|| {
                flags += 1;
                flags - 1
            })
        })
        .collect();
    for instruction in streams.iter_mut().flatten() {
        instruction.signal = instruction.signal.and_then(|flag| numbers[flag as usize]);
        for wait in &mut instruction.waits {
            // It is waited on, so it has a number.
            wait.flag = numbers[wait.flag as usize].unwrap_or(wait.flag);
        }
    }
    flags
}
