//! Memory plans, and the checker against plans that are wrong.

use crate::fuse::run;
use crate::model::{build, llama, qwen3};
use proptest::prelude::*;
use waveloom_ir::{Dim, FuncId, InstId, Module, Type};
use waveloom_passes::{
    Buffer, BufferId, BufferKind, MemoryError, Schedule, Step, check_memory, plan_memory, schedule,
};

#[test]
fn layers_are_planned_at_the_lower_bound() {
    for config in [llama(), qwen3()] {
        let names = ["fuse-map", "fuse-gemm-inputs", "fuse-prologue", "fuse-epilogue"];
        for module in [build(config), run(&names, build(config))] {
            let schedule = schedule(&module).expect("a schedule");
            let plan = plan_memory(&module, &schedule).expect("a plan");
            check_memory(&schedule, &module, &plan).expect("a correct plan");
            assert!(plan.ratio() <= 1.10, "{} of {}", plan.peak, plan.lower_bound);
        }
    }
}

/// A schedule of random steps: each reads some earlier buffers and writes one to three new ones.
fn random_schedule() -> impl Strategy<Value = Schedule> {
    let step = (prop::collection::vec(0usize..8, 0..4), prop::collection::vec(1u64..600, 1..4));
    prop::collection::vec(step, 1..60).prop_map(|steps| {
        let mut buffers = vec![];
        let mut list = vec![];
        for (reads, sizes) in steps {
            let written = buffers.len();
            // How far back: near ones mostly, as in chains; the first one for all that reach past it.
            let operands = reads.iter().filter(|_| written > 0);
            let operands = operands
                .map(|back| BufferId(written.saturating_sub(1 + back * back) as u32))
                .collect();
            let mut results = vec![];
            for elements in sizes {
                results.push(BufferId(buffers.len() as u32));
                buffers.push(Buffer {
                    name: format!("b{}", buffers.len()),
                    ty: Type::f32([Dim::Const(elements)]),
                    kind: BufferKind::Temporary,
                });
            }
            list.push(Step { func: FuncId(0), inst: InstId(list.len() as u32), operands, results });
        }
        let outside = BufferId(0);
        Schedule {
            buffers,
            steps: list,
            tokens: outside,
            positions: outside,
            last: outside,
            logits: outside,
        }
    })
}

/// Pairs of buffers that some step needs at the same time, found by brute force.
fn conflicts(schedule: &Schedule) -> Vec<(usize, usize)> {
    let range = |buffer: usize| {
        let uses = |step: &Step| {
            let mut all = step.operands.iter().chain(&step.results);
            all.any(|id| id.index() == buffer)
        };
        let first = schedule.steps.iter().position(uses);
        let last = schedule.steps.iter().rposition(uses);
        first.zip(last)
    };
    let ranges: Vec<_> = (0..schedule.buffers.len()).map(range).collect();
    let mut pairs = vec![];
    for (a, first) in ranges.iter().enumerate() {
        for (b, second) in ranges.iter().enumerate().skip(a + 1) {
            if let (Some((from, to)), Some((start, end))) = (first, second)
                && from <= end
                && start <= to
            {
                pairs.push((a, b));
            }
        }
    }
    pairs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_are_planned_correctly(schedule in random_schedule()) {
        let module = Module::new("random");
        let plan = plan_memory(&module, &schedule).expect("a plan");
        prop_assert_eq!(check_memory(&schedule, &module, &plan), Ok(()));
        prop_assert!(plan.lower_bound <= plan.peak);
        // First fit over interval graphs stays close to the bound; alignment costs up to 60 bytes each.
        let padding = 64 * schedule.buffers.len() as u64;
        prop_assert!(plan.peak <= plan.lower_bound * 3 / 2 + padding, "{:?}", plan);
    }

    #[test]
    fn overlapping_plans_are_caught(schedule in random_schedule(), pick in any::<prop::sample::Index>()) {
        let module = Module::new("random");
        let mut plan = plan_memory(&module, &schedule).expect("a plan");
        let pairs = conflicts(&schedule);
        prop_assume!(!pairs.is_empty());
        // Two buffers that are needed together, at the same offset.
        let (a, b) = pairs[pick.index(pairs.len())];
        plan.offsets[a] = plan.offsets[b];
        plan.peak = u64::MAX;
        let found = check_memory(&schedule, &module, &plan);
        prop_assert!(matches!(found, Err(MemoryError::Clobbered { .. })), "{:?}", found);
    }

    #[test]
    fn lost_and_misplaced_buffers_are_caught(schedule in random_schedule(), pick in any::<prop::sample::Index>()) {
        let module = Module::new("random");
        let plan = plan_memory(&module, &schedule).expect("a plan");
        let index = pick.index(plan.offsets.len());
        let mut lost = plan.clone();
        lost.offsets[index] = None;
        let found = check_memory(&schedule, &module, &lost);
        prop_assert!(matches!(found, Err(MemoryError::NoOffset { .. })), "{:?}", found);
        let mut past = plan.clone();
        past.offsets[index] = Some(plan.peak.next_multiple_of(64));
        let found = check_memory(&schedule, &module, &past);
        prop_assert!(matches!(found, Err(MemoryError::OutOfArena { .. })), "{:?}", found);
        let mut odd = plan.clone();
        odd.offsets[index] = odd.offsets[index].map(|offset| offset + 4);
        odd.peak += 4;
        let found = check_memory(&schedule, &module, &odd);
        prop_assert!(matches!(found, Err(MemoryError::OutOfArena { .. })), "{:?}", found);
    }
}
