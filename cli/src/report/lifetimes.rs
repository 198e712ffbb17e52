//! When each buffer of the arena is in use: from the first launch of a program that has it among
//! its arguments to the last.

use serde::Serialize;
use waveloom_plan::{Arg, BufferId, Layout, Plan, Program, Segment};

/// Buffers of the arena over the launches of a program.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ProgramLifetimes {
    /// Name of the program.
    pub program: String,
    /// Buffers that it uses, by their ids.
    pub buffers: Vec<Lifetime>,
    /// Bytes in use, by launch. Buffers that share bytes count once.
    pub live_bytes: Vec<u64>,
}

/// Where a buffer lies and when it is in use.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Lifetime {
    /// Index into the plan's buffers.
    pub buffer: BufferId,
    /// Offset in the arena.
    pub offset: u64,
    /// Size.
    pub bytes: u64,
    /// First launch that has it as an argument.
    pub first: usize,
    /// Last such launch.
    pub last: usize,
    /// Whether the first launch that has it does not write it, so that it holds something from
    /// before the program.
    pub read_first: bool,
}

/// The lifetimes in every program.
pub fn lifetimes(plan: &Plan, layout: &Layout) -> Vec<ProgramLifetimes> {
    plan.programs.iter().map(|program| program_lifetimes(program, layout)).collect()
}

fn program_lifetimes(program: &Program, layout: &Layout) -> ProgramLifetimes {
    let mut found: Vec<Option<Lifetime>> = layout.buffers.iter().map(|_| None).collect();
    for (index, launch) in program.launches.iter().enumerate() {
        for arg in &launch.args {
            let Arg::Buffer(id) = *arg else { continue };
            let place = &layout.buffers[id];
            if place.segment != Segment::Arena {
                continue;
            }
            let lifetime = found[id].get_or_insert_with(|| Lifetime {
                buffer: id,
                offset: place.offset,
                bytes: place.bytes,
                first: index,
                last: index,
                read_first: !launch.writes.contains(&id),
            });
            lifetime.last = index;
        }
    }
    let buffers: Vec<Lifetime> = found.into_iter().flatten().collect();
    let live_bytes = (0..program.launches.len()).map(|launch| live_bytes(&buffers, launch));
    ProgramLifetimes { program: program.name.clone(), live_bytes: live_bytes.collect(), buffers }
}

/// Bytes of the arena that are in use at a launch.
fn live_bytes(buffers: &[Lifetime], launch: usize) -> u64 {
    let alive = buffers.iter().filter(|life| life.first <= launch && launch <= life.last);
    let mut ranges: Vec<_> = alive.map(|life| (life.offset, life.offset + life.bytes)).collect();
    ranges.sort_unstable();
    let (mut bytes, mut end) = (0, 0);
    for (from, to) in ranges {
        bytes += to.max(end) - from.max(end);
        end = end.max(to);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use waveloom_plan::{Expr, Launch, toy};

    #[test]
    fn a_buffer_lives_from_its_first_launch_to_its_last() {
        let plan = toy::plan();
        let found = lifetimes(&plan, &plan.layout(128).unwrap());
        let names: Vec<&str> = found.iter().map(|program| program.program.as_str()).collect();
        assert_eq!(names, ["prefill", "decode", "sample"]);
        let temporary = Lifetime {
            buffer: toy::TEMPORARY,
            offset: 0,
            bytes: 64,
            first: 1,
            last: 1,
            read_first: false,
        };
        assert_eq!(found[1].buffers, [temporary]);
        assert_eq!(found[1].live_bytes, [0, 64, 0]);
        assert!(found[2].buffers.is_empty());
    }

    #[test]
    fn gaps_count_and_shared_bytes_count_once() {
        let mut plan = toy::plan();
        plan.segments.arena = 256.into();
        let mut view = plan.buffers[toy::TEMPORARY].clone();
        view.bytes = 32.into();
        plan.buffers.push(view.clone());
        view.offset = 128.into();
        plan.buffers.push(view);
        let (inner, apart) = (plan.buffers.len() - 2, plan.buffers.len() - 1);
        let launch = |buffers: &[usize], writes: &[usize]| Launch {
            kernel: 0,
            grid: Expr::from(1),
            args: buffers.iter().map(|id| Arg::Buffer(*id)).collect(),
            writes: writes.to_vec(),
        };
        plan.programs[0].launches = vec![
            launch(&[toy::TEMPORARY, inner], &[inner]),
            launch(&[apart], &[apart]),
            launch(&[toy::TEMPORARY, apart], &[]),
        ];
        let found = &lifetimes(&plan, &plan.layout(128).unwrap())[0];
        let spans: Vec<_> = found.buffers.iter().map(|l| (l.buffer, l.first, l.last)).collect();
        assert_eq!(spans, [(toy::TEMPORARY, 0, 2), (inner, 0, 0), (apart, 1, 2)]);
        let read_first: Vec<bool> = found.buffers.iter().map(|l| l.read_first).collect();
        assert_eq!(read_first, [true, false, false]);
        assert_eq!(found.live_bytes, [64, 96, 96]);
    }
}
