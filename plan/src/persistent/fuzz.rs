//! Mutants of correct schedules: the checker must reject each one, unless the oracle proves it
//! harmless.

use super::oracle::harmless;
use super::testing::{Random, case};
use super::*;
use std::collections::BTreeMap;

/// Ways to break a schedule.
const MUTATIONS: [&str; 16] = [
    "drop a wait",
    "lower a wait",
    "raise a wait",
    "wait on another flag",
    "swap two waits",
    "drop a signal",
    "signal another flag",
    "drop an instruction",
    "duplicate an instruction",
    "swap two instructions",
    "move an instruction",
    "shrink a count",
    "grow a count",
    "shift a range",
    "run another launch",
    "one flag fewer",
];

/// Applies a mutation; `false` where this schedule has nothing to break so.
fn mutate(step: &mut PersistentStep, kind: &str, random: &mut Random) -> bool {
    let streams = step.streams.len();
    let stream = random.below(streams);
    let other = random.below(streams);
    let index = random.below(step.streams[stream].len());
    let to = random.below(step.streams[other].len() + 1);
    let flag = random.below(step.flags as usize) as u32;
    let (launches, flags) = (step.launches as u32, &mut step.flags);
    let Some(instruction) = step.streams[stream].get_mut(index) else { return false };
    let which = random.below(instruction.waits.len());
    match kind {
        "drop an instruction" => drop(step.streams[stream].remove(index)),
        "duplicate an instruction" => {
            let copy = instruction.clone();
            step.streams[other].insert(to, copy);
        }
        "swap two instructions" => {
            let with = random.below(step.streams[stream].len());
            step.streams[stream].swap(index, with);
        }
        "move an instruction" => {
            let moved = step.streams[stream].remove(index);
            let to = to.min(step.streams[other].len());
            step.streams[other].insert(to, moved);
        }
        "drop a signal" => instruction.signal = None,
        "signal another flag" => instruction.signal = Some(flag),
        "shrink a count" => instruction.count = instruction.count.saturating_sub(1),
        "grow a count" => instruction.count += 1,
        "shift a range" => instruction.first ^= 1,
        "run another launch" => instruction.launch = random.below(launches as usize) as u32,
        "one flag fewer" => *flags = flags.saturating_sub(1),
        of_waits => {
            let Some(wait) = instruction.waits.get_mut(which) else { return false };
            match of_waits {
                "lower a wait" => {
                    let less = 1 + random.below(wait.value as usize) as u32;
                    wait.value = wait.value.saturating_sub(less);
                }
                "raise a wait" => wait.value += 1 + random.below(3) as u32,
                "wait on another flag" => wait.flag = flag,
                "swap two waits" => {
                    let Some(with) = step.streams[other].get(to) else { return false };
                    let Some(with) = with.waits.first().copied() else { return false };
                    *step.streams[stream][index].waits.first_mut().expect("a wait") = with;
                }
                _ => drop(instruction.waits.remove(which)),
            }
        }
    }
    true
}

#[test]
fn correct_schedules_are_accepted_and_harmless() {
    for seed in 0..300 {
        let (plan, step) = case(seed);
        check_persistent(&plan, &step).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(harmless(&plan, &step, seed), "seed {seed}");
    }
}

/// No mutant is accepted that the oracle finds harmful; and nearly all are rejected.
#[test]
fn mutants_are_rejected_or_harmless() {
    // By mutation: made, rejected.
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let [mut harmful, mut over_cautious] = [0; 2];
    for seed in 0..500 {
        let (plan, correct) = case(seed);
        let mut random = Random::new(seed ^ 0xfeed);
        for kind in MUTATIONS.into_iter().chain(MUTATIONS) {
            let mut step = correct.clone();
            if !mutate(&mut step, kind, &mut random) || step == correct {
                continue;
            }
            // Some are broken twice.
            if random.one_in(4) {
                let again = MUTATIONS[random.below(MUTATIONS.len())];
                mutate(&mut step, again, &mut random);
            }
            let count = counts.entry(kind).or_default();
            count[0] += 1;
            match check_persistent(&plan, &step) {
                Ok(()) => assert!(
                    harmless(&plan, &step, seed),
                    "seed {seed}, {kind}: accepted, but harmful: {correct:?} became {step:?}"
                ),
                Err(error) => {
                    count[1] += 1;
                    let ordered = matches!(
                        error,
                        PersistentError::Dependence { .. } | PersistentError::Deadlock { .. }
                    );
                    // What breaks no rule of the format must be harmful to be rejected.
                    if ordered && harmless(&plan, &step, seed) {
                        over_cautious += 1;
                    } else {
                        harmful += 1;
                    }
                }
            }
        }
    }
    let [made, rejected] = [0, 1].map(|i| counts.values().map(|count| count[i]).sum::<usize>());
    println!("{made} mutants, {rejected} rejected, {over_cautious} of them harmless: {counts:?}");
    assert!(made > 10_000, "{made} mutants");
    assert!(rejected * 10 > made * 7, "{rejected} of {made} mutants rejected");
    assert!(
        over_cautious * 20 < harmful,
        "{over_cautious} harmless mutants rejected, {harmful} not"
    );
    assert_eq!(counts.len(), MUTATIONS.len());
    assert!(counts.values().all(|count| count[1] > 0), "{counts:?}");
}
