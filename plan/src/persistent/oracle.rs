//! For tests: whether a schedule computes what its launches compute one by one, found out by running
//! it. It shares nothing with the checker but the plan.
//!
//! Memory is lines of 64 bytes, each with slots for the workgroups that write it. A workgroup reads
//! what its launch names when it begins and again when it ends, and its slots hold rubbish in between;
//! what it writes is a hash of all that it read. So whatever overtakes what it must not overtake
//! changes a result, or what is in memory in the end.
//!
//! If an instruction Y can begin before X has ended, it does so in the run in which X is held back
//! and all others go as far as they can: flags only grow, so nothing that happens then depends on
//! the order of the others. [`harmless`] holds back every instruction in turn, before it begins and
//! before it ends, so that it finds every pair; some random runs are made besides.

use super::testing::Random;
use super::{Instruction, PersistentStep};
use crate::layout::Layout;
use crate::plan::{Arg, Launch, Plan, Segment};
use std::collections::BTreeMap;

const SLOTS: usize = 16;

/// A line: of a segment, or of scratch.
type Line = (Option<Segment>, u64);

/// What was computed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Memory {
    lines: BTreeMap<u64, [u64; SLOTS]>,
    /// By launch and workgroup: the result, and how often it ran.
    results: BTreeMap<(u32, u32), (u64, u32)>,
}

fn hash(a: u64, b: u64) -> u64 {
    let mixed = (a ^ b.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 31)
}

/// Lines that a launch reads, and lines that it writes.
struct Access {
    reads: Vec<u64>,
    writes: Vec<u64>,
    grid: u32,
}

fn accesses(plan: &Plan, launches: &[Launch]) -> Vec<Access> {
    let layout = plan.layout(128).expect("a good plan");
    launches.iter().map(|launch| access(&layout, launch)).collect()
}

fn access(layout: &Layout, launch: &Launch) -> Access {
    let mut access = Access { reads: vec![], writes: vec![], grid: 0 };
    access.grid = launch.grid.eval(&[]).expect("a constant") as u32;
    let number = |(segment, line): Line| segment.map_or(0, |s| s as u64 + 1) << 32 | line;
    for arg in &launch.args {
        match arg {
            Arg::Buffer(id) => {
                let place = &layout.buffers[*id];
                let lines = place.offset / 64..(place.offset + place.bytes).div_ceil(64);
                let lines = lines.map(|line| number((Some(place.segment), line)));
                match launch.writes.contains(id) {
                    true => access.writes.extend(lines),
                    false => access.reads.extend(lines),
                }
            }
            Arg::Scratch => access.writes.push(number((None, 0))),
            Arg::Scalar(_) => {}
        }
    }
    access
}

impl Memory {
    fn slots(&mut self, line: u64) -> &mut [u64; SLOTS] {
        self.lines.entry(line).or_insert([line; SLOTS])
    }

    fn read(&mut self, access: &Access, mut sum: u64) -> u64 {
        for &line in &access.reads {
            for slot in *self.slots(line) {
                sum = hash(sum, slot);
            }
        }
        sum
    }

    fn own(access: &Access, workgroup: u32) -> impl Iterator<Item = usize> {
        let grid = access.grid as usize;
        (0..SLOTS).filter(move |slot| slot * grid / SLOTS == workgroup as usize)
    }

    /// Reads all, and leaves rubbish where it will write.
    fn begin(&mut self, access: &Access, workgroup: u32) -> u64 {
        let mut sum = self.read(access, u64::from(workgroup));
        for &line in &access.writes {
            for slot in Memory::own(access, workgroup) {
                let at = &mut self.slots(line)[slot];
                sum = hash(sum, *at);
                *at = hash(u64::MAX, sum);
            }
        }
        sum
    }

    /// Reads all again, and writes.
    fn end(&mut self, access: &Access, launch: u32, workgroup: u32, begun: u64) {
        let mut sum = self.read(access, hash(begun, launch.into()));
        for &line in &access.writes {
            for slot in Memory::own(access, workgroup) {
                sum = hash(sum, self.slots(line)[slot]);
            }
        }
        for &line in &access.writes {
            for slot in Memory::own(access, workgroup) {
                self.slots(line)[slot] = hash(sum, slot as u64);
            }
        }
        let result = self.results.entry((launch, workgroup)).or_default();
        *result = (sum, result.1 + 1);
    }
}

/// Launch by launch.
fn reference(accesses: &[Access]) -> Memory {
    let mut memory = Memory::default();
    for (launch, access) in accesses.iter().enumerate() {
        for workgroup in 0..access.grid {
            let begun = memory.begin(access, workgroup);
            memory.end(access, launch as u32, workgroup, begun);
        }
    }
    memory
}

/// A run of all streams.
struct Run<'a> {
    step: &'a PersistentStep,
    accesses: &'a [Access],
    memory: Memory,
    flags: Vec<u64>,
    /// By stream: the instruction, and what its workgroups read if they have begun.
    at: Vec<(usize, Option<Vec<u64>>)>,
}

impl<'a> Run<'a> {
    fn new(step: &'a PersistentStep, accesses: &'a [Access]) -> Run<'a> {
        let at = vec![(0, None); step.streams.len()];
        Run { step, accesses, memory: Memory::default(), flags: vec![0; step.flags as usize], at }
    }

    fn current(&self, stream: usize) -> Option<&'a Instruction> {
        self.step.streams[stream].get(self.at[stream].0)
    }

    fn begun(&self, stream: usize) -> bool {
        self.at[stream].1.is_some()
    }

    /// Begins or ends a stream's instruction; `false` where it has to wait, or is at its end.
    fn advance(&mut self, stream: usize) -> bool {
        let Some(instruction) = self.current(stream) else { return false };
        let access = &self.accesses[instruction.launch as usize];
        let workgroups = instruction.first..instruction.first + instruction.count;
        if let Some(begun) = self.at[stream].1.take() {
            for (workgroup, begun) in workgroups.zip(begun) {
                self.memory.end(access, instruction.launch, workgroup, begun);
            }
            self.at[stream].0 += 1;
            if let Some(flag) = instruction.signal {
                self.flags[flag as usize] += u64::from(instruction.count);
            }
            return true;
        }
        let ready = |wait: &super::Wait| self.flags[wait.flag as usize] >= wait.value.into();
        if !instruction.waits.iter().all(ready) {
            return false;
        }
        let begun = workgroups.map(|workgroup| self.memory.begin(access, workgroup)).collect();
        self.at[stream].1 = Some(begun);
        true
    }

    /// Goes on until nothing moves but what `held` holds back.
    fn exhaust(&mut self, held: impl Fn(&Run<'_>, usize) -> bool) {
        loop {
            let mut moved = false;
            for stream in 0..self.at.len() {
                while !held(self, stream) && self.advance(stream) {
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn ended(&self) -> bool {
        (0..self.at.len()).all(|stream| self.current(stream).is_none())
    }
}

/// Whether every run of a step whose indices are in range ends with what the launches compute one by
/// one.
pub fn harmless(plan: &Plan, step: &PersistentStep, seed: u64) -> bool {
    let launches = &plan.programs[step.program].launches[..step.launches];
    let accesses = accesses(plan, launches);
    let wanted = reference(&accesses);
    let good = |run: Run<'_>| run.ended() && run.memory == wanted;
    for (stream, instructions) in step.streams.iter().enumerate() {
        for index in 0..instructions.len() {
            for after_begin in [false, true] {
                let mut run = Run::new(step, &accesses);
                run.exhaust(|run, s| {
                    s == stream && run.at[s].0 == index && run.begun(s) == after_begin
                });
                run.exhaust(|_, _| false);
                if !good(run) {
                    return false;
                }
            }
        }
    }
    let mut random = Random::new(seed);
    (0..8).all(|_| {
        let mut run = Run::new(step, &accesses);
        let mut idle = 0;
        while idle < 64 {
            let stream = random.below(step.streams.len());
            idle = if run.advance(stream) { 0 } else { idle + 1 };
        }
        run.exhaust(|_, _| false);
        good(run)
    })
}
