//! Where threads wait for each other: a barrier between launches, and a gate between steps.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};

/// Polls before a waiting thread offers its processor to others: long against a launch, short
/// against a scheduler's slice, since processors may be shared.
const SPINS: u32 = 4096;
/// The same where there are more workers than processors: who is waited for may need this one.
const SPINS_CROWDED: u32 = 32;
/// Offers after which a thread that waits for the next step goes to sleep.
const YIELDS: u32 = 512;

/// How long `workers` workers poll.
fn spins(workers: usize) -> u32 {
    let processors = thread::available_parallelism().map_or(1, |n| n.get());
    if workers > processors { SPINS_CROWDED } else { SPINS }
}

/// A value alone on its cache lines (two: processors fetch pairs).
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// Holds workers until all have arrived.
pub struct Barrier {
    workers: usize,
    spins: u32,
    arrived: Padded<AtomicUsize>,
    round: Padded<AtomicUsize>,
}

impl Barrier {
    /// A barrier for `workers` workers.
    pub fn new(workers: usize) -> Barrier {
        let spins = spins(workers);
        Barrier { workers, spins, arrived: Padded::default(), round: Padded::default() }
    }

    /// Waits until every worker is here. What each wrote before is visible to all after.
    pub fn wait(&self) {
        if self.workers == 1 {
            return;
        }
        let round = self.round.0.load(Ordering::Relaxed);
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.workers {
            self.arrived.0.store(0, Ordering::Relaxed);
            self.round.0.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut polls = 0;
        while self.round.0.load(Ordering::Acquire) == round {
            relax(&mut polls, self.spins);
        }
    }
}

/// Lets workers in once per step; those that wait long sleep.
pub struct Gate {
    spins: u32,
    step: Padded<AtomicUsize>,
    sleepers: Padded<AtomicUsize>,
}

impl Gate {
    /// A closed gate for `workers` workers.
    pub fn new(workers: usize) -> Gate {
        Gate { spins: spins(workers), step: Padded::default(), sleepers: Padded::default() }
    }

    /// Opens the gate for the next step. What was written before is visible to who passes.
    pub fn open<'t>(&self, threads: impl Iterator<Item = &'t Thread>) {
        self.step.0.fetch_add(1, Ordering::SeqCst);
        // Sequential consistency: either a worker that goes to sleep is counted here, or it sees
        // the new step before it sleeps.
        if self.sleepers.0.load(Ordering::SeqCst) > 0 {
            threads.for_each(Thread::unpark);
        }
    }

    /// Waits for the step after `step`, and gives it.
    pub fn pass(&self, step: usize) -> usize {
        let mut polls = 0;
        while self.step.0.load(Ordering::Acquire) == step {
            relax(&mut polls, self.spins);
            if polls > self.spins + YIELDS {
                self.sleep(step);
            }
        }
        step.wrapping_add(1)
    }

    fn sleep(&self, step: usize) {
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        while self.step.0.load(Ordering::SeqCst) == step {
            thread::park();
        }
        self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One turn of a waiting loop.
fn relax(polls: &mut u32, spins: u32) {
    *polls = polls.saturating_add(1);
    if *polls < spins { std::hint::spin_loop() } else { thread::yield_now() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nobody_leaves_before_all_have_arrived() {
        let (workers, rounds) = (4, 500);
        let (barrier, count) = (Barrier::new(workers), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    for round in 1..=rounds {
                        count.fetch_add(1, Ordering::Relaxed);
                        barrier.wait();
                        assert_eq!(count.load(Ordering::Relaxed), workers * round);
                        barrier.wait();
                    }
                });
            }
        });
    }

    #[test]
    fn sleepers_are_woken() {
        let gate = Gate::new(2);
        thread::scope(|scope| {
            let worker = scope.spawn(|| (0..20).fold(0, |step, _| gate.pass(step)));
            for step in 0..20 {
                gate.open([worker.thread()].into_iter());
                // Long enough to fall asleep now and then, and to be polling at other times.
                thread::sleep(Duration::from_micros(if step % 7 == 0 { 20_000 } else { 50 }));
            }
            assert_eq!(worker.join().unwrap(), 20);
        });
    }
}
