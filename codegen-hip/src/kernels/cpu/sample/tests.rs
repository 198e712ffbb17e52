//! The sampler against the reference of the IR crate, in f64.

use crate::harness::{on_cpu, random_f32, runnable_targets};
use crate::kernels::cpu::testing::{Runner, f32s, i32s, read_i32s};
use crate::target::CpuTarget;
use std::collections::HashMap;
use waveloom_ir::sample::{Sampling, draw};

const PLAIN: Sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };

/// A sampler with its buffers.
struct Sampler {
    runner: Runner,
    vocab: usize,
}

impl Sampler {
    fn new(vocab: usize, target: &CpuTarget) -> Sampler {
        let source = super::kernel(vocab as u32, target).unwrap();
        assert_eq!(source.items.eval(&[]), Some(1));
        Sampler { runner: Runner::new(source, target), vocab }
    }

    /// The token drawn for position `counter`; checks all that the kernel writes.
    fn draw(&self, logits: &[f32], sampling: &Sampling, counter: usize) -> usize {
        let history = vec![-5; counter + 2];
        let unused = || i32s(&[-7, -7]);
        let params = i32s(&sampling.to_words());
        assert_eq!(logits.len(), self.vocab);
        let buffers = [f32s(logits), params, unused(), unused(), unused(), i32s(&history)];
        self.runner.run_items(&buffers, [1, counter as i64, counter as i64 + 1], 0, 1);
        let token = read_i32s(&buffers[2], 2)[0];
        assert!((0..self.vocab as i32).contains(&token), "token {token} of {}", self.vocab);
        assert_eq!(read_i32s(&buffers[2], 2), [token, -7]);
        assert_eq!(read_i32s(&buffers[3], 2), [counter as i32, -7]);
        assert_eq!(read_i32s(&buffers[4], 2), [0, -7]);
        let history = read_i32s(&buffers[5], counter + 2);
        assert_eq!(history[counter..], [token, -5]);
        assert!(history[..counter].iter().all(|&token| token == -5));
        token as usize
    }
}

fn exact(logits: &[f32], sampling: &Sampling, counter: usize) -> usize {
    let logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
    draw(&logits, sampling, counter as u32).unwrap()
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    for target in runnable_targets(&["cpu", "cpu-v3"]) {
        for vocab in [1, 7, 16, 33, 1000] {
            let sampler = Sampler::new(vocab, &target);
            let mut logits = random_f32(vocab as u64, vocab);
            assert_eq!(
                sampler.draw(&logits, &Sampling::GREEDY, 3),
                exact(&logits, &Sampling::GREEDY, 3)
            );
            for at in [vocab - 1, vocab / 2, 0] {
                logits[at] = 5.0;
                assert_eq!(sampler.draw(&logits, &Sampling::GREEDY, 0), at);
            }
            logits.fill(f32::NEG_INFINITY);
            assert_eq!(sampler.draw(&logits, &Sampling::GREEDY, 0), 0);
        }
    }
}

/// Pairwise different filters with a seed.
fn filters(seed: u64) -> Vec<Sampling> {
    let mut all = vec![];
    for temperature in [0.3, 1.0, 2.5] {
        for top_k in [0, 1, 3, 40, 300, 5000] {
            for (top_p, min_p) in [
                (1.0, 0.0),
                (0.9, 0.0),
                (0.35, 0.0),
                (1.0, 0.05),
                (0.95, 0.2),
                (0.0, 0.0),
                (0.5, 2.0),
            ] {
                all.push(Sampling { temperature, top_k, top_p, min_p, seed });
            }
        }
    }
    all
}

/// Thousands of draws; a wrong one would need a random number within 10⁻⁷ of the border between
/// two tokens, which none of these is.
#[test]
fn draws_are_those_of_the_reference() {
    let mut draws = 0;
    for target in runnable_targets(&["cpu", "cpu-v3"]) {
        for vocab in [1, 2, 15, 64, 999, 4099] {
            let sampler = Sampler::new(vocab, &target);
            for (case, sampling) in filters(vocab as u64 * 77).into_iter().enumerate() {
                let seed = (case * 10_000 + vocab) as u64;
                let spread = [1.0, 6.0, 20.0][case % 3];
                let mut logits: Vec<f32> =
                    random_f32(seed, vocab).into_iter().map(|x| x * spread).collect();
                if case % 4 == 3 {
                    // Many ties.
                    logits.iter_mut().for_each(|x| *x = (*x * 2.0).round() / 2.0);
                }
                if case % 5 == 4 {
                    logits[vocab / 3] = f32::NEG_INFINITY;
                }
                for counter in (0..8).map(|i| i * i * 3) {
                    let got = sampler.draw(&logits, &sampling, counter);
                    let want = exact(&logits, &sampling, counter);
                    assert_eq!(got, want, "{} {vocab} {sampling:?} {counter}", target.name);
                    draws += 1;
                }
            }
        }
    }
    assert!(draws >= 5000);
}

#[test]
fn frequencies_follow_the_probabilities() {
    // Probabilities 0.6, 0.3, 0.1 among tokens that cannot be drawn. The standard deviation of a
    // count of 4000 draws is at most 32; the seed is fixed.
    let sampler = Sampler::new(40, &CpuTarget::host().unwrap());
    let mut logits = vec![f32::NEG_INFINITY; 40];
    (logits[3], logits[20], logits[39]) = (6f32.ln(), 3f32.ln(), 0.0);
    let sampling = Sampling { seed: 5, ..PLAIN };
    let mut counts = HashMap::new();
    for counter in 0..4000 {
        *counts.entry(sampler.draw(&logits, &sampling, counter)).or_insert(0i32) += 1;
    }
    assert_eq!(counts.len(), 3);
    for (token, expected) in [(3, 2400), (20, 1200), (39, 400)] {
        assert!((counts[&token] - expected).abs() < 130, "{counts:?}");
    }
}

/// Such logits have no right answer, but a token must come out.
#[test]
fn nonsense_gives_some_token() {
    for target in runnable_targets(&["cpu", "cpu-v3"]) {
        let sampler = Sampler::new(37, &target);
        let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0];
        for (i, x) in numbers.into_iter().enumerate() {
            for (j, y) in numbers.into_iter().enumerate() {
                let mut logits = vec![x; 37];
                logits[(i * 7 + j) % 37] = y;
                for sampling in filters(1).into_iter().step_by(4) {
                    sampler.draw(&logits, &sampling, 9);
                    for odd in numbers {
                        sampler.draw(&logits, &Sampling { temperature: odd, ..sampling }, 9);
                        sampler.draw(&logits, &Sampling { top_p: odd, min_p: odd, ..sampling }, 9);
                    }
                }
            }
        }
    }
}

#[test]
fn a_vocabulary_must_have_tokens() {
    let target = CpuTarget::from_name("cpu-v3").unwrap();
    assert!(super::kernel(0, &target).is_err());
    assert!(super::kernel(u32::MAX, &target).is_err());
}

#[test]
#[ignore = "measures"]
fn speed() {
    for target in runnable_targets(&["cpu", "cpu-v3"]) {
        let vocab = 49152;
        let sampler = Sampler::new(vocab, &target);
        let logits: Vec<f32> = random_f32(1, vocab).into_iter().map(|x| x * 12.0).collect();
        let measure = |what: &str, sampling: Sampling| {
            let start = on_cpu();
            (0..200).for_each(|counter| {
                sampler.draw(&logits, &sampling, counter);
            });
            eprintln!("{} {what}: {:.1} µs", target.name, (on_cpu() - start) / 200.0 * 1e6);
        };
        measure("greedy (with the copies of this test)", Sampling::GREEDY);
        measure("plain", PLAIN);
        measure("top-k", Sampling { top_k: 40, ..PLAIN });
        measure("top-p", Sampling { top_p: 0.9, ..PLAIN });
        measure("top-k, top-p", Sampling { top_k: 40, top_p: 0.9, ..PLAIN });
    }
}
