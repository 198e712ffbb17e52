//! For tests: small plans whose launches conflict in every way, and correct schedules of them.

use super::*;
use crate::Expr;
use crate::plan::*;
use crate::toy;

/// Numbers that look random, the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % end.max(1)
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Program of the persistent step.
pub const DECODE: usize = 1;
/// Its launches that are in the streams: all but the sampler.
fn launches(plan: &Plan) -> usize {
    plan.programs[DECODE].launches.len() - 1
}

const ARENA: i64 = 10 * 64;

/// A plan whose decode program has `count` launches of random grids on buffers that overlap.
pub fn plan(random: &mut Random, count: usize) -> Plan {
    let mut plan = toy::plan();
    let first = plan.buffers.len();
    for index in 0..7 {
        let lines = 1 + random.below(3) as i64;
        let offset = random.below((ARENA / 64 - lines) as usize + 1) as i64 * 64;
        let (offset, bytes) = (offset.into(), (lines * 64).into());
        let name = format!("value {index}");
        plan.buffers.push(Buffer { name, segment: Segment::Arena, offset, bytes });
    }
    plan.segments.arena = ARENA.into();
    let ids: Vec<BufferId> = (first..plan.buffers.len()).chain([toy::CACHE, toy::LOGITS]).collect();
    let layout = plan.layout(128).expect("a good plan");
    let bodies = 2 + random.below(3);
    for index in 0..=bodies {
        let facts = CodeFacts { waves_per_simd: 1, lds_bytes: 1024, ..CodeFacts::default() };
        plan.kernels.push(Kernel {
            name: format!("body{index}"),
            summary: "body".into(),
            workgroup: 256,
            shared_bytes: 0,
            work: None,
            facts: Some(facts),
        });
    }
    let sampler = plan.programs[DECODE].launches.last().cloned().expect("a sampler");
    let mut list = vec![];
    while list.len() < count {
        let written = ids[random.below(ids.len())];
        let mut args = vec![Arg::Buffer(toy::WEIGHT), Arg::Buffer(written)];
        for _ in 0..random.below(3) {
            let other = ids[random.below(ids.len())];
            let (a, b) = (&layout.buffers[written], &layout.buffers[other]);
            if other == written || !a.overlaps(b) {
                args.push(Arg::Buffer(other));
            }
        }
        if random.one_in(4) {
            args.push(Arg::Scratch);
        }
        let kernel = 3 + random.below(bodies);
        let grid = Expr::from(1 + random.below(8) as i64);
        list.push(Launch { kernel, grid, args, writes: vec![written] });
    }
    list.push(sampler);
    plan.programs[DECODE].launches = list;
    plan
}

/// A correct schedule: launches in order, each cut into random pieces on random streams, which wait
/// for all that they depend on. `None` where that takes too many waits.
pub fn schedule(plan: &Plan, random: &mut Random) -> Option<PersistentStep> {
    let count = launches(plan);
    let launches = &plan.programs[DECODE].launches[..count];
    let before = dependences(plan, launches).expect("a good plan");
    let mut streams: Vec<Vec<Instruction>> = vec![vec![]; 2 + random.below(4)];
    let mut flags = 0;
    // By launch: its flags, with what each gets to and what its least signal adds.
    let mut done: Vec<Vec<(u32, u32, u32)>> = vec![];
    for (index, launch) in launches.iter().enumerate() {
        let grid = launch.grid.eval(&[]).expect("a constant") as u32;
        let parts = if random.one_in(4) { 2 } else { 1 };
        let mine: Vec<u32> = (flags..flags + parts).collect();
        flags += parts;
        let mut waits = vec![];
        for &earlier in &before[index] {
            for &(flag, total, least) in done[earlier].iter().filter(|(_, total, _)| *total > 0) {
                // So much less is as sure.
                let value = total - random.below(least as usize) as u32;
                waits.push(Wait { flag, value });
            }
        }
        if waits.len() > MAX_WAITS {
            return None;
        }
        let mut counted = vec![(0, u32::MAX); parts as usize];
        let mut first = 0;
        while first < grid {
            let count = 1 + random.below((grid - first) as usize) as u32;
            let part = random.below(parts as usize);
            counted[part].0 += count;
            counted[part].1 = counted[part].1.min(count);
            let stream = random.below(streams.len());
            streams[stream].push(Instruction {
                launch: index as u32,
                first,
                count,
                waits: waits.clone(),
                signal: Some(mine[part]),
                prefetches: vec![],
            });
            first += count;
        }
        let mine = mine.iter().zip(counted);
        done.push(mine.map(|(flag, (total, least))| (*flag, total, least)).collect());
    }
    let kernel = plan.kernels.len() - 1;
    Some(PersistentStep {
        version: PERSISTENT_VERSION,
        program: DECODE,
        launches: count,
        kernel,
        bodies: (3..kernel).collect(),
        residency: Residency { units: 8, simds: 4, wave: 64, lds_bytes: 64 << 10 },
        flags,
        streams,
    })
}

/// A plan and a schedule of it.
pub fn case(seed: u64) -> (Plan, PersistentStep) {
    let mut random = Random::new(seed);
    loop {
        let count = 3 + random.below(8);
        let plan = plan(&mut random, count);
        if let Some(step) = schedule(&plan, &mut random) {
            return (plan, step);
        }
    }
}
