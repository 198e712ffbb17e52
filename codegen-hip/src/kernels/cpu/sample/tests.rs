//! The sampler against the reference of the IR crate, in f64.

use crate::harness::{Aligned, on_cpu, random_f32, runnable_targets};
use crate::kernels::cpu::testing::{Runner, f32s, i32s, read_f32s, read_i32s};
use crate::kernels::sampling::testing::{
    PENALTIES, PLAIN, check_distribution, distributions, filters, likely_tokens, logits,
    probabilities,
};
use crate::target::CpuTarget;
use waveloom_ir::sample::{Sampling, draw};

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
        self.draw_after(&vec![-5; counter], logits, sampling)
    }

    fn buffers(&self, seen: &[i32], logits: &[f32], sampling: &Sampling) -> [Aligned; 6] {
        assert_eq!(logits.len(), self.vocab);
        let unused = || i32s(&[-7, -7]);
        let params = i32s(&sampling.to_words());
        let history = [seen, &[-5, -5]].concat();
        [f32s(logits), params, unused(), unused(), unused(), i32s(&history)]
    }

    fn run(&self, buffers: &[Aligned; 6], counter: usize) {
        self.runner.run_items(buffers, [1, counter as i64, counter as i64 + 1], 0, 1);
    }

    /// As [`Sampler::draw`], after the tokens `seen`.
    fn draw_after(&self, seen: &[i32], logits: &[f32], sampling: &Sampling) -> usize {
        let counter = seen.len();
        let buffers = self.buffers(seen, logits, sampling);
        self.run(&buffers, counter);
        let token = read_i32s(&buffers[2], 2)[0];
        assert!((0..self.vocab as i32).contains(&token), "token {token} of {}", self.vocab);
        assert_eq!(read_i32s(&buffers[2], 2), [token, -7]);
        assert_eq!(read_i32s(&buffers[3], 2), [counter as i32, -7]);
        assert_eq!(read_i32s(&buffers[4], 2), [0, -7]);
        let history = read_i32s(&buffers[5], counter + 2);
        assert_eq!(history[counter..], [token, -5]);
        assert_eq!(&history[..counter], seen);
        assert_eq!(f32_bits(&read_f32s(&buffers[0], self.vocab)), f32_bits(logits), "raw logits");
        token as usize
    }
}

fn f32_bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn exact(logits: &[f32], sampling: &Sampling, counter: usize) -> usize {
    draw(logits, &[], sampling, counter as u32).unwrap()
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

/// Thousands of draws, each the same to the bit.
#[test]
fn draws_are_those_of_the_reference() {
    let mut draws = 0;
    for target in runnable_targets(&["cpu", "cpu-v3"]) {
        for vocab in [1, 2, 15, 64, 999, 4099] {
            let sampler = Sampler::new(vocab, &target);
            for (case, sampling) in filters(vocab as u64 * 77).into_iter().enumerate() {
                let logits = logits(case, vocab);
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
fn draws_have_the_distribution_of_the_definition() {
    let sampler = Sampler::new(61, &CpuTarget::host().unwrap());
    for (logits, seen, sampling) in distributions(61) {
        let probabilities = probabilities(&logits, &seen, &sampling);
        let mut before = vec![];
        check_distribution(&probabilities, 20_000, |counter| {
            // Where a position stands for a draw, the tokens seen are the last ones.
            before.resize((counter as usize).saturating_sub(seen.len()), -1);
            let shown = seen.len().min(counter as usize);
            let all = [&before[..], &seen[seen.len() - shown..]].concat();
            match all.len() {
                length if length < seen.len() => draw(&logits, &seen, &sampling, counter).unwrap(),
                _ => sampler.draw_after(&all, &logits, &sampling),
            }
        });
    }
}

#[test]
fn numbers_that_are_none_count_as_the_rule_says() {
    for target in runnable_targets(&["cpu", "cpu-v3"]) {
        let sampler = Sampler::new(37, &target);
        let check = |logits: &[f32], sampling: Sampling| {
            let want = exact(logits, &sampling, 9);
            assert_eq!(sampler.draw(logits, &sampling, 9), want, "{logits:?} {sampling:?}");
        };
        let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0];
        for (i, x) in numbers.into_iter().enumerate() {
            for (j, y) in numbers.into_iter().enumerate() {
                let mut logits = vec![x; 37];
                logits[(i * 7 + j) % 37] = y;
                check(&logits, Sampling::GREEDY);
                for sampling in filters(1).into_iter().step_by(4) {
                    check(&logits, sampling);
                    for odd in numbers {
                        check(&logits, Sampling { temperature: odd, ..sampling });
                        check(&logits, Sampling { top_p: odd, min_p: odd, ..sampling });
                        check(&logits, Sampling { repetition_penalty: odd, ..sampling });
                    }
                }
            }
        }
    }
}

#[test]
fn penalties_change_what_is_drawn_and_not_the_logits() {
    for target in runnable_targets(&["cpu", "cpu-v3"]) {
        let mut differ = 0;
        for vocab in [5, 64, 999] {
            let sampler = Sampler::new(vocab, &target);
            let logits: Vec<f32> =
                random_f32(vocab as u64, vocab).into_iter().map(|x| x * 4.0).collect();
            let seen = likely_tokens(&logits);
            for (case, sampling) in filters(3).into_iter().step_by(5).enumerate() {
                for [repetition_penalty, presence_penalty, frequency_penalty] in PENALTIES {
                    let penalty_last_n = [u32::MAX, 0, 1, 16, 70, 71][case % 6];
                    let temperature = sampling.temperature * (case % 3) as f32;
                    let sampling = Sampling {
                        temperature,
                        repetition_penalty,
                        presence_penalty,
                        frequency_penalty,
                        penalty_last_n,
                        ..sampling
                    };
                    let got = sampler.draw_after(&seen, &logits, &sampling);
                    let want = draw(&logits, &seen, &sampling, 70).unwrap();
                    assert_eq!(got, want, "{} {vocab} {sampling:?}", target.name);
                    differ += usize::from(got != exact(&logits, &sampling, 70));
                }
            }
        }
        assert!(differ > 20, "penalties change nothing");
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
            let buffers = sampler.buffers(&[-5; 200], &logits, &sampling);
            let start = on_cpu();
            (0..200).for_each(|counter| sampler.run(&buffers, counter));
            eprintln!("{} {what}: {:.1} µs", target.name, (on_cpu() - start) / 200.0 * 1e6);
        };
        measure("greedy", Sampling::GREEDY);
        measure("plain", PLAIN);
        measure("top-k", Sampling { top_k: 40, ..PLAIN });
        measure("top-p", Sampling { top_p: 0.9, ..PLAIN });
        measure("repetition penalty", Sampling { repetition_penalty: 1.1, ..Sampling::GREEDY });
        measure("top-k, top-p", Sampling { top_k: 40, top_p: 0.9, ..PLAIN });
    }
}
