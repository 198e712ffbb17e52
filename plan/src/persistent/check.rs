//! What a persistent step must be so that it may run. [`check_persistent`] checks:
//!
//! - it is of this version, and every index is in range; limits of the format hold; every launch has a
//!   constant grid, arguments that depend on no symbol but the context length, and an opcode; all kernels have workgroups of one size;
//! - every workgroup of every launch runs exactly once;
//! - no deadlock: the streams, run symbolically, all end; and all streams are on the chip at once, by
//!   the registers and the LDS that the compiler found in the persistent kernel;
//! - no missing dependence: of two launches that name the same byte, one of which writes it, every
//!   instruction of the later one happens after every instruction of the earlier one (`order` says
//!   when that is sure);
//! - prefetches are ranges of constants; flags count no further than 2³⁰, which the comparison of a
//!   wait allows.

use super::conflicts::{Conflicts, Shared, dependences};
use super::error::Place;
use super::order::{self, Clock, Stuck};
use super::{
    Instruction, MAX_FLAGS, MAX_PREFETCHES, MAX_WAITS, PERSISTENT_VERSION, PersistentError,
    PersistentStep,
};
use crate::plan::{Arg, Kernel, Launch, Plan, Segment};

type Result<T = ()> = std::result::Result<T, PersistentError>;

/// More streams are on no chip.
const MAX_STREAMS: usize = 4096;
/// Most that the signals of a step add to a flag.
const MAX_TOTAL: u64 = 1 << 30;

/// Checks everything that the head of this file lists.
pub fn check_persistent(plan: &Plan, step: &PersistentStep) -> Result {
    if step.version != PERSISTENT_VERSION {
        return Err(PersistentError::Version(step.version));
    }
    let checker = Checker::new(plan, step)?;
    checker.bodies()?;
    checker.residency()?;
    checker.instructions()?;
    checker.coverage()?;
    checker.order()
}

struct Checker<'a> {
    plan: &'a Plan,
    step: &'a PersistentStep,
    kernel: &'a Kernel,
    launches: &'a [Launch],
    /// Workgroups of each launch.
    grids: Vec<u64>,
}

/// An item of a list that a plan names.
fn item<'a, T>(
    list: &'a [T],
    index: usize,
    kind: &'static str,
    place: impl Fn() -> String,
) -> Result<&'a T> {
    let count = list.len();
    list.get(index).ok_or_else(|| PersistentError::Index { place: place(), kind, index, count })
}

impl<'a> Checker<'a> {
    fn new(plan: &'a Plan, step: &'a PersistentStep) -> Result<Checker<'a>> {
        let place = || "the persistent step".to_string();
        let program = item(&plan.programs, step.program, "program", place)?;
        let kernel = item(&plan.kernels, step.kernel, "kernel", place)?;
        let count = program.launches.len();
        let launches = program.launches.get(..step.launches).ok_or_else(|| {
            PersistentError::Index { place: place(), kind: "launch", index: step.launches, count }
        })?;
        let mut checker = Checker { plan, step, kernel, launches, grids: vec![] };
        for (index, launch) in launches.iter().enumerate() {
            let bounds = launch.grid.bounds(&[]).filter(|(low, high)| low == high);
            let grid = bounds.and_then(|(grid, _)| u64::try_from(grid).ok());
            let grid = grid.filter(|grid| (1..1 << 31).contains(grid));
            let invalid = || PersistentError::Grid(checker.spell(index));
            let grid = grid.ok_or_else(invalid)?;
            checker.grids.push(grid);
            let fixed = |id| id == plan.decode_loop.context;
            let scalars = launch.args.iter().filter_map(|arg| match arg {
                Arg::Scalar(expr) => Some(expr),
                Arg::Buffer(_) | Arg::Scratch => None,
            });
            if !scalars.into_iter().all(|expr| expr.all_symbols(&mut { fixed })) {
                return Err(PersistentError::Argument(checker.spell(index)));
            }
        }
        Ok(checker)
    }

    /// A launch, for people.
    fn spell(&self, launch: usize) -> String {
        let kernel = self.launches.get(launch).and_then(|l| self.plan.kernels.get(l.kernel));
        format!("launch {launch} `{}`", kernel.map_or("?", |kernel| &kernel.name))
    }

    fn instruction(&self, stream: usize, index: usize) -> &'a Instruction {
        &self.step.streams[stream][index]
    }

    fn place(&self, stream: usize, index: usize) -> Place {
        let launch = self.spell(self.instruction(stream, index).launch as usize);
        Place { stream, index, launch }
    }

    /// Every instruction's stream and index.
    fn each(&self) -> impl Iterator<Item = (usize, usize, &'a Instruction)> {
        let streams = self.step.streams.iter().enumerate();
        streams.flat_map(|(stream, list)| {
            list.iter().enumerate().map(move |(index, instruction)| (stream, index, instruction))
        })
    }

    /// The kernels whose code it has.
    fn bodies(&self) -> Result {
        for &body in &self.step.bodies {
            let body = item(&self.plan.kernels, body, "kernel", || "a body".to_string())?;
            if body.workgroup != self.kernel.workgroup {
                let (found, expected) = (body.workgroup, self.kernel.workgroup);
                let body = body.name.clone();
                return Err(PersistentError::Workgroup { body, found, expected });
            }
        }
        let missing = |launch: &&Launch| !self.step.bodies.contains(&launch.kernel);
        match self.launches.iter().position(|launch| missing(&launch)) {
            Some(launch) => Err(PersistentError::NoBody { launch: self.spell(launch) }),
            None => Ok(()),
        }
    }

    fn residency(&self) -> Result {
        let (streams, residency) = (self.step.streams.len(), &self.step.residency);
        if streams == 0 {
            return Err(PersistentError::NoStream);
        }
        let kernel = &self.kernel.name;
        let facts = self.kernel.facts.as_ref();
        let facts = facts.ok_or_else(|| PersistentError::NoFacts(kernel.clone()))?;
        if facts.lds_bytes > residency.lds_bytes {
            let (needed, available) = (facts.lds_bytes, residency.lds_bytes);
            return Err(PersistentError::Lds { needed, available });
        }
        let per_unit = residency.per_unit(self.kernel.workgroup, facts);
        let resident = u64::from(per_unit) * u64::from(residency.units);
        if streams as u64 > resident || streams > MAX_STREAMS {
            let (kernel, units) = (kernel.clone(), residency.units);
            return Err(PersistentError::Resident { kernel, streams, resident, units, per_unit });
        }
        Ok(())
    }

    /// What each instruction says of itself.
    fn instructions(&self) -> Result {
        if self.step.flags > MAX_FLAGS {
            return Err(PersistentError::flags());
        }
        let flags = vec![(); self.step.flags as usize];
        for (stream, index, instruction) in self.each() {
            let here = || self.place(stream, index);
            let text = || here().to_string();
            let launch = instruction.launch as usize;
            let grid = *item(&self.grids, launch, "launch", text)?;
            let first = u64::from(instruction.first);
            let end = first + u64::from(instruction.count);
            if instruction.count == 0 || end > grid {
                return Err(PersistentError::Range { place: here(), first, end, grid });
            }
            let waits = instruction.waits.iter().map(|wait| wait.flag);
            for flag in waits.chain(instruction.signal) {
                item(&flags, flag as usize, "flag", text)?;
            }
            if instruction.waits.len() > MAX_WAITS {
                return Err(PersistentError::waits(&here()));
            }
            if instruction.prefetches.len() > MAX_PREFETCHES {
                return Err(PersistentError::prefetches(&here()));
            }
            if !self.prefetches_fit(instruction) {
                return Err(PersistentError::Prefetch { place: here() });
            }
        }
        let totals = self.step.flag_totals();
        match totals.iter().position(|total| *total > MAX_TOTAL) {
            Some(flag) => {
                Err(PersistentError::FlagTotal { flag: flag as u32, total: totals[flag] })
            }
            None => Ok(()),
        }
    }

    fn prefetches_fit(&self, instruction: &Instruction) -> bool {
        let launch = &self.launches[instruction.launch as usize];
        instruction.prefetches.iter().all(|prefetch| {
            let Some(Arg::Buffer(id)) = launch.args.get(prefetch.slot as usize) else {
                return false;
            };
            let Some(buffer) = self.plan.buffers.get(*id) else { return false };
            let end = i64::from(prefetch.offset) + i64::from(prefetch.bytes);
            let bytes = buffer.bytes.bounds(&self.plan.symbols).map(|(least, _)| least);
            let aligned = prefetch.offset % 16 == 0 && prefetch.bytes % 16 == 0;
            buffer.segment == Segment::Constants
                && i32::try_from(end).is_ok()
                && aligned
                && bytes.is_some_and(|bytes| end <= bytes)
        })
    }

    /// Every workgroup of every launch, once.
    fn coverage(&self) -> Result {
        let mut parts: Vec<Vec<(u64, u64, usize, usize)>> = vec![vec![]; self.launches.len()];
        for (stream, index, instruction) in self.each() {
            let first = u64::from(instruction.first);
            let end = first + u64::from(instruction.count);
            parts[instruction.launch as usize].push((first, end, stream, index));
        }
        for (launch, parts) in parts.iter_mut().enumerate() {
            parts.sort_unstable();
            let mut done = 0;
            let mut before: Option<(usize, usize)> = None;
            for &(first, end, stream, index) in parts.iter() {
                if first > done {
                    break;
                }
                if let (true, Some((s, i))) = (first < done, before) {
                    let (launch, workgroup) = (self.spell(launch), first);
                    let (first, second) = (self.place(s, i), self.place(stream, index));
                    return Err(PersistentError::Twice { launch, workgroup, first, second });
                }
                (done, before) = (end, Some((stream, index)));
            }
            if done < self.grids[launch] {
                let (launch, workgroup) = (self.spell(launch), done);
                return Err(PersistentError::Never { launch, workgroup });
            }
        }
        Ok(())
    }

    /// No deadlock, no missing dependence.
    fn order(&self) -> Result {
        let before = dependences(self.plan, self.launches).map_err(Box::new)?;
        // By launch: the last instruction of each stream that runs part of it.
        let mut last: Vec<Vec<(usize, usize)>> = vec![vec![]; self.launches.len()];
        for (stream, index, instruction) in self.each() {
            let parts = &mut last[instruction.launch as usize];
            match parts.last_mut() {
                Some((known, at)) if *known == stream => *at = index,
                _ => parts.push((stream, index)),
            }
        }
        let visit =
            |stream: usize, index: usize, sure: &Clock| -> std::result::Result<(), Failure> {
                let launch = self.instruction(stream, index).launch as usize;
                for &earlier in &before[launch] {
                    let open = last[earlier].iter().find(|(s, i)| sure[*s] as usize <= *i);
                    if let Some(&(s, i)) = open {
                        return Err(Failure::Before([(stream, index), (s, i)]));
                    }
                }
                Ok(())
            };
        order::run(self.step, visit).map_err(|failure| self.describe(failure))
    }

    fn describe(&self, failure: Failure) -> PersistentError {
        match failure {
            Failure::Stuck(stuck) => PersistentError::Deadlock {
                place: self.place(stuck.stream, stuck.index),
                flag: stuck.wait.flag,
                value: stuck.wait.value.into(),
                reached: stuck.reached,
                blocked: stuck.blocked,
            },
            Failure::Before([later, earlier]) => {
                let [a, b] = [earlier, later].map(|(stream, index)| {
                    &self.launches[self.instruction(stream, index).launch as usize]
                });
                let layouts = self.plan.sample_layouts().unwrap_or_default();
                let shared = match (Conflicts { layouts }).between(a, b) {
                    Some(Shared::Buffers(x, y)) => self.buffers(x, y),
                    Some(Shared::Scratch) | None => "scratch".to_string(),
                };
                let [place, before] = [later, earlier].map(|(s, i)| self.place(s, i));
                PersistentError::Dependence { place, before, shared }
            }
        }
    }

    fn buffers(&self, x: usize, y: usize) -> String {
        let name = |id: usize| self.plan.buffers.get(id).map_or("?", |buffer| &buffer.name);
        match x == y {
            true => format!("buffer {x} `{}`", name(x)),
            false => format!("buffers {x} `{}` and {y} `{}`, which overlap", name(x), name(y)),
        }
    }
}

/// What went wrong in a symbolic run.
enum Failure {
    Stuck(Stuck),
    /// The later instruction, and the earlier one that it may overtake, by stream and index.
    Before([(usize, usize); 2]),
}

impl From<Stuck> for Failure {
    fn from(stuck: Stuck) -> Failure {
        Failure::Stuck(stuck)
    }
}
