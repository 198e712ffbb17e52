//! The sampler on every chip against the reference of the IR crate, which the CPU's equals, too.

use crate::harness::random_f32;
use crate::kernels::gpu::testing::{CHIPS, Outcome, Runner, f32_bytes, i32_bytes, target};
use crate::kernels::sampling::testing::{
    PENALTIES, PLAIN, check_distribution, distributions, filters, likely_tokens, logits,
    probabilities,
};
use crate::target::{GpuTarget, Target};
use waveloom_ir::sample::{Sampling, draw};

/// A chip of each kind: 64 and 32 lanes.
const TWO_CHIPS: [&str; 2] = ["gfx942", "gfx1100"];

/// What is at places that the kernel must leave alone.
const UNTOUCHED: i32 = -7;

/// A sampler on a chip.
struct Sampler {
    runner: Runner,
    vocab: usize,
    chip: &'static str,
}

impl Sampler {
    fn new(vocab: usize, chip: &'static str) -> Sampler {
        let target = target(chip);
        let Target::Gpu(amd) = &target else { panic!("{chip} is a GPU") };
        let source = super::kernel(vocab as u32, amd).unwrap();
        assert_eq!(source.items.eval(&[]), Some(1));
        assert!(source.args.iter().all(|arg| !matches!(arg, crate::kernels::ArgRole::Scalar(_))));
        Sampler { runner: Runner::new(source, &target), vocab, chip }
    }

    fn buffers(&self, seen: &[i32], logits: &[f32], sampling: &Sampling) -> [Vec<u8>; 6] {
        assert_eq!(logits.len(), self.vocab);
        let history = [seen, &[UNTOUCHED; 2]].concat();
        // The token before is in row 2 of the last step.
        let positions = [UNTOUCHED, UNTOUCHED, seen.len() as i32 - 1];
        [
            f32_bytes(logits),
            i32_bytes(&sampling.to_words()),
            i32_bytes(&[UNTOUCHED; 2]),
            i32_bytes(&positions),
            i32_bytes(&[2, UNTOUCHED]),
            i32_bytes(&history),
        ]
    }

    /// The token drawn after the tokens `seen`; checks all that the kernel wrote.
    fn token(&self, outcome: &Outcome, before: &[Vec<u8>; 6]) -> usize {
        let words = |buffer: usize| -> Vec<i32> {
            let words = outcome.buffers[buffer].as_chunks::<4>().0;
            words.iter().map(|word| i32::from_le_bytes(*word)).collect()
        };
        let seen = before[5].len() / 4 - 2;
        let token = words(2)[0];
        assert!((0..self.vocab as i32).contains(&token), "token {token} of {}", self.vocab);
        assert_eq!(words(2), [token, UNTOUCHED]);
        assert_eq!(words(3), [seen as i32, UNTOUCHED, seen as i32 - 1]);
        assert_eq!(words(4), [0, UNTOUCHED]);
        assert_eq!(words(5)[seen..], [token, UNTOUCHED]);
        assert!(outcome.buffers[5][..4 * seen] == before[5][..4 * seen]);
        assert!(outcome.buffers[0] == before[0], "logits stay raw");
        assert!(outcome.buffers[1] == before[1]);
        token as usize
    }

    /// Checks the draw under the emulator's checks, and without them on several threads.
    fn check(&self, seen: &[i32], logits: &[f32], sampling: &Sampling) -> Outcome {
        let buffers = self.buffers(seen, logits, sampling);
        let outcome = self.runner.run(&buffers, [1, 1, 1]);
        let want = draw(logits, seen, sampling, seen.len() as u32).unwrap();
        let (chip, vocab) = (self.chip, self.vocab);
        assert_eq!(self.token(&outcome, &buffers), want, "{chip} {vocab} {sampling:?}");
        outcome
    }

    fn draw(&self, seen: &[i32], logits: &[f32], sampling: &Sampling) -> usize {
        let buffers = self.buffers(seen, logits, sampling);
        let outcome = self.runner.run_once(&buffers, [1, 1, 1], false);
        self.token(&outcome, &buffers)
    }
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    for chip in CHIPS {
        for vocab in [1, 7, 16, 33, 1000, 4099, 20_000] {
            let sampler = Sampler::new(vocab, chip);
            let mut logits = random_f32(vocab as u64, vocab);
            sampler.check(&[5; 3], &logits, &Sampling::GREEDY);
            for at in [vocab - 1, vocab / 2, 0] {
                logits[at] = 5.0;
                sampler.check(&[5], &logits, &Sampling::GREEDY);
            }
            logits.fill(f32::NEG_INFINITY);
            sampler.check(&[], &logits, &Sampling::GREEDY);
        }
    }
}

/// Each the same to the bit, for every kind of filter on every chip.
#[test]
fn draws_are_those_of_the_reference() {
    for (number, chip) in CHIPS.into_iter().enumerate() {
        for vocab in [1, 2, 15, 64, 999, 4100] {
            let sampler = Sampler::new(vocab, chip);
            let cases = filters(vocab as u64 * 77).into_iter().enumerate();
            for (case, sampling) in cases.filter(|(case, _)| case % 6 == number % 6) {
                let logits = logits(case, vocab);
                if case % 4 == 0 {
                    sampler.check(&vec![-5; 1 + case], &logits, &sampling);
                }
                for counter in (1..4).map(|i| i * i * 3) {
                    let seen = vec![-5; counter];
                    let want = draw(&logits, &seen, &sampling, counter as u32).unwrap();
                    let got = sampler.draw(&seen, &logits, &sampling);
                    assert_eq!(got, want, "{chip} {vocab} {sampling:?} {counter}");
                }
            }
        }
    }
}

/// Vocabularies of real models, one of them odd.
#[test]
fn draws_from_large_vocabularies() {
    for chip in TWO_CHIPS {
        for vocab in [49152, 50257] {
            let sampler = Sampler::new(vocab, chip);
            let logits: Vec<f32> = random_f32(5, vocab).into_iter().map(|x| x * 14.0).collect();
            let all = [
                PLAIN,
                Sampling { temperature: 1e4, seed: 9, ..PLAIN },
                Sampling { top_k: 40, top_p: 0.95, min_p: 0.05, seed: 8, ..PLAIN },
                Sampling { top_p: 0.9, temperature: 0.7, seed: 7, ..PLAIN },
                Sampling { top_k: 2000, seed: 6, ..PLAIN },
                Sampling { repetition_penalty: 1.2, seed: 4, ..PLAIN },
                Sampling { repetition_penalty: 1.2, ..Sampling::GREEDY },
            ];
            for sampling in all {
                sampler.check(&likely_tokens(&logits), &logits, &sampling);
            }
        }
    }
}

#[test]
fn numbers_that_are_none_count_as_the_rule_says() {
    let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0];
    for (number, chip) in CHIPS.into_iter().enumerate() {
        let sampler = Sampler::new(37, chip);
        for (i, x) in numbers.into_iter().enumerate() {
            for (j, y) in numbers.into_iter().enumerate() {
                let mut logits = vec![x; 37];
                logits[(i * 7 + j) % 37] = y;
                sampler.check(&[3; 9], &logits, &Sampling::GREEDY);
                // Every other of six chips has another third of the pairs.
                if (i + j) % 3 != number % 3 {
                    continue;
                }
                for sampling in filters(1).into_iter().skip(number).step_by(63) {
                    let odd = numbers[(i * 5 + j) % 6];
                    sampler.check(&[3; 9], &logits, &sampling);
                    for sampling in [
                        Sampling { temperature: odd, ..sampling },
                        Sampling { top_p: odd, min_p: odd, ..sampling },
                        Sampling { repetition_penalty: odd, ..sampling },
                    ] {
                        sampler.check(&[3; 9], &logits, &sampling);
                    }
                }
            }
        }
    }
}

#[test]
fn penalties_change_what_is_drawn_and_not_the_logits() {
    for chip in CHIPS {
        let mut differ = 0;
        for vocab in [5, 64, 999] {
            let sampler = Sampler::new(vocab, chip);
            let logits: Vec<f32> =
                random_f32(vocab as u64, vocab).into_iter().map(|x| x * 4.0).collect();
            let seen = likely_tokens(&logits);
            for (case, sampling) in filters(3).into_iter().step_by(17).enumerate() {
                for [repetition_penalty, presence_penalty, frequency_penalty] in PENALTIES {
                    let sampling = Sampling {
                        temperature: sampling.temperature * (case % 3) as f32,
                        repetition_penalty,
                        presence_penalty,
                        frequency_penalty,
                        penalty_last_n: [u32::MAX, 0, 1, 16, 70, 71][case % 6],
                        ..sampling
                    };
                    sampler.check(&seen, &logits, &sampling);
                    let off = Sampling { penalty_last_n: 0, ..sampling };
                    let [with, without] =
                        [sampling, off].map(|s| draw(&logits, &seen, &s, 70).unwrap());
                    differ += usize::from(with != without);
                }
            }
        }
        assert!(differ > 10, "penalties change nothing");
    }
}

#[test]
fn draws_have_the_distribution_of_the_definition() {
    for chip in TWO_CHIPS {
        let sampler = Sampler::new(61, chip);
        for (logits, seen, sampling) in distributions(61) {
            let probabilities = probabilities(&logits, &seen, &sampling);
            check_distribution(&probabilities, 1000, |counter| {
                // The position is the counter; the tokens seen are the last before it.
                let before = [&vec![-1; counter as usize][..], &seen].concat();
                sampler.draw(&before, &logits, &sampling)
            });
        }
    }
}

/// The emulator executes this for every token; and each logit is read once.
#[test]
fn greedy_is_a_short_path() {
    let vocab = 49152;
    for chip in TWO_CHIPS {
        let sampler = Sampler::new(vocab, chip);
        let logits = random_f32(1, vocab);
        let statistics = sampler.check(&[1; 40], &logits, &Sampling::GREEDY).statistics;
        let instructions = statistics.instructions;
        assert!(instructions < 15_000, "{chip}: {instructions} wave instructions");
        // Beyond the logits a few words per wave.
        let bytes = statistics.bytes_read;
        assert!(bytes < 4 * vocab as u64 * 21 / 20 + (64 << 10), "{chip}: {bytes} bytes");
    }
}

#[test]
fn a_vocabulary_must_have_tokens() {
    let target = GpuTarget::from_name("gfx942").unwrap();
    assert!(super::kernel(0, &target).is_err());
    assert!(super::kernel(u32::MAX, &target).is_err());
}

#[test]
#[ignore = "measures"]
fn cost() {
    for chip in TWO_CHIPS {
        let sampler = Sampler::new(49152, chip);
        let logits: Vec<f32> = random_f32(1, 49152).into_iter().map(|x| x * 12.0).collect();
        let measure = |what: &str, sampling: Sampling| {
            let start = std::time::Instant::now();
            sampler.draw(&[1; 20], &logits, &sampling);
            let time = start.elapsed();
            let outcome = sampler.check(&[1; 20], &logits, &sampling);
            let statistics = outcome.statistics;
            eprintln!(
                "{chip} {what}: {} wave instructions, {} bytes read, {} registers, {time:.1?}",
                statistics.instructions, statistics.bytes_read, statistics.resources.vgprs,
            );
        };
        measure("greedy", Sampling::GREEDY);
        measure("plain", PLAIN);
        measure("top-k", Sampling { top_k: 40, ..PLAIN });
        measure("top-p", Sampling { top_p: 0.9, ..PLAIN });
        measure("penalties", Sampling { repetition_penalty: 1.1, ..Sampling::GREEDY });
    }
}
