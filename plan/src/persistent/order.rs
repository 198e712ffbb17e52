//! Runs all streams symbolically: finds deadlocks, and what surely happens before what.
//!
//! Flags only grow, so a wait that has passed stays passed: whatever the order in which streams make
//! progress, the same instructions are reached. One run therefore decides whether every run ends.
//!
//! What an instruction is sure of is a *clock*: for each stream, how many of its instructions have
//! ended. A stream's clock grows with its own instructions and with its waits. A wait for `value` on
//! a flag to which a step adds `total` makes sure of a signal if the flag cannot get to `value`
//! without it: if `total` less what this signal and the later ones of its stream add is below
//! `value`. Of each stream these are the first signals up to some point.

use super::{PersistentStep, Wait};
use std::collections::HashMap;

/// By stream, how many of its instructions have ended.
pub(super) type Clock = Vec<u32>;

/// Where streams are stuck.
pub(super) struct Stuck {
    /// The first of them.
    pub stream: usize,
    /// Its instruction.
    pub index: usize,
    /// The wait that does not pass.
    pub wait: Wait,
    /// What its flag gets to.
    pub reached: u64,
    /// How many streams do not end.
    pub blocked: usize,
}

/// The signals of one flag.
#[derive(Default)]
struct Flag {
    total: u64,
    counted: u64,
    /// By stream: its signals, as (instruction, sum of this one's and the later ones' counts).
    streams: HashMap<usize, Vec<(usize, u64)>>,
    /// Whether every wait on it makes sure of all its signals.
    whole: bool,
    /// Clocks after all signals so far, joined; if `whole`.
    joined: Clock,
    /// Clock after each signal, by stream and instruction; unless `whole`.
    clocks: HashMap<(usize, usize), Clock>,
}

impl Flag {
    /// The last of a stream's signals that a wait for `value` makes sure of.
    fn sure(&self, signals: &[(usize, u64)], value: u64) -> Option<usize> {
        let sure = signals.iter().take_while(|(_, rest)| self.total - rest < value);
        sure.last().map(|(index, _)| *index)
    }

    fn makes_sure_of_all(&self, value: u64) -> bool {
        self.streams
            .values()
            .all(|signals| self.sure(signals, value) == signals.last().map(|(index, _)| *index))
    }
}

/// Runs the streams of a step whose indices are all in range. Calls `visit` with each instruction's
/// stream and index, in an order that is possible, and with what it is sure of when it begins.
pub(super) fn run<E: From<Stuck>>(
    step: &PersistentStep,
    mut visit: impl FnMut(usize, usize, &Clock) -> Result<(), E>,
) -> Result<(), E> {
    let streams = step.streams.len();
    let mut flags = flags(step);
    let mut clocks: Vec<Clock> = vec![vec![0; streams]; streams];
    let mut at = vec![0; streams];
    let mut joins: HashMap<Wait, Clock> = HashMap::new();
    loop {
        let mut progress = false;
        for (stream, instructions) in step.streams.iter().enumerate() {
            while let Some(instruction) = instructions.get(at[stream]) {
                if instruction.waits.iter().any(|wait| !passes(&flags, *wait)) {
                    break;
                }
                for wait in &instruction.waits {
                    let sure = joins.entry(*wait).or_insert_with(|| join(&flags, *wait, streams));
                    raise(&mut clocks[stream], sure);
                }
                visit(stream, at[stream], &clocks[stream])?;
                at[stream] += 1;
                clocks[stream][stream] += 1;
                if let Some(flag) = instruction.signal {
                    let flag = &mut flags[flag as usize];
                    flag.counted += u64::from(instruction.count);
                    if flag.whole {
                        raise(&mut flag.joined, &clocks[stream]);
                    } else {
                        flag.clocks.insert((stream, at[stream] - 1), clocks[stream].clone());
                    }
                }
                progress = true;
            }
        }
        let ended = |stream: &usize| at[*stream] == step.streams[*stream].len();
        if (0..streams).all(|stream| ended(&stream)) {
            return Ok(());
        }
        if !progress {
            return Err(stuck(step, &flags, &at).into());
        }
    }
}

/// The signals of all flags; how far each is counted is not known yet.
fn flags(step: &PersistentStep) -> Vec<Flag> {
    let mut flags: Vec<Flag> = (0..step.flags).map(|_| Flag::default()).collect();
    for (stream, instructions) in step.streams.iter().enumerate() {
        for (index, instruction) in instructions.iter().enumerate().rev() {
            let Some(flag) = instruction.signal else { continue };
            let (flag, count) = (&mut flags[flag as usize], u64::from(instruction.count));
            flag.total += count;
            let signals = flag.streams.entry(stream).or_default();
            let later = signals.last().map_or(0, |(_, rest)| *rest);
            signals.push((index, later + count));
        }
    }
    for flag in &mut flags {
        flag.streams.values_mut().for_each(|signals| signals.reverse());
        flag.whole = true;
        flag.joined = vec![0; step.streams.len()];
    }
    for wait in step.streams.iter().flatten().flat_map(|instruction| &instruction.waits) {
        let flag = &mut flags[wait.flag as usize];
        flag.whole = flag.whole && flag.makes_sure_of_all(wait.value.into());
    }
    flags
}

fn passes(flags: &[Flag], wait: Wait) -> bool {
    flags[wait.flag as usize].counted >= u64::from(wait.value)
}

/// What a wait that has passed makes sure of.
fn join(flags: &[Flag], wait: Wait, streams: usize) -> Clock {
    let flag = &flags[wait.flag as usize];
    if flag.whole {
        return flag.joined.clone();
    }
    let mut joined = vec![0; streams];
    for (stream, signals) in &flag.streams {
        let sure = flag.sure(signals, wait.value.into());
        // A sure signal was given: otherwise the wait would not have passed.
        if let Some(clock) = sure.and_then(|index| flag.clocks.get(&(*stream, index))) {
            raise(&mut joined, clock);
        }
    }
    joined
}

fn raise(clock: &mut Clock, other: &Clock) {
    for (a, b) in clock.iter_mut().zip(other) {
        *a = (*a).max(*b);
    }
}

fn stuck(step: &PersistentStep, flags: &[Flag], at: &[usize]) -> Stuck {
    let blocked = |stream: &usize| at[*stream] < step.streams[*stream].len();
    let first = (0..at.len()).find(blocked).unwrap_or(0);
    let waits = step.streams[first].get(at[first]).map_or(&[][..], |i| &i.waits);
    let failing = waits.iter().find(|wait| !passes(flags, **wait));
    let wait = failing.copied().unwrap_or(Wait { flag: 0, value: 0 });
    Stuck {
        stream: first,
        index: at[first],
        wait,
        reached: flags.get(wait.flag as usize).map_or(0, |flag| flag.counted),
        blocked: (0..at.len()).filter(blocked).count(),
    }
}
