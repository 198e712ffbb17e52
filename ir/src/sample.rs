//! Drawing a token: the rule of `docs/architecture.md`, "The decode loop", to the bit.
//!
//! Kernels of all targets draw what [`draw`] draws. Nothing in the rule depends on an order of
//! summation: weights are rounded to multiples of a power of two that is so small, and so large,
//! that f64 holds every sum of them exactly.

use crate::interp::Real;
use std::cmp::Ordering;

/// Sampling parameters, decoded from the sixteen words that `sample` takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 (or less, or NaN) picks the largest.
    pub temperature: f32,
    /// Keep the k largest logits and ties of the k-th; 0 keeps all.
    pub top_k: u32,
    /// Keep the most probable tokens whose mass first reaches this part, and ties; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the most probable; 0 keeps all.
    pub min_p: f32,
    /// Key of the generator.
    pub seed: u64,
    /// Divides the positive and multiplies the negative logits of tokens seen; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens seen; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted for each time that a token was seen; 0 is off.
    pub frequency_penalty: f32,
    /// How many of the last tokens count as seen.
    pub penalty_last_n: u32,
}

impl Sampling {
    /// Arg-max.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        penalty_last_n: u32::MAX,
    };

    /// Number of words.
    pub const WORDS: usize = 16;

    /// From the words: temperature, top_k, top_p, min_p, seed low, seed high, repetition, presence
    /// and frequency penalty, penalty_last_n, six unused.
    pub fn from_words(words: [i32; Self::WORDS]) -> Sampling {
        let words = words.map(i32::cast_unsigned);
        let [temperature, top_k, top_p, min_p, low, high, repetition, presence, frequency, last_n] =
            *words.first_chunk().unwrap_or(&[0; 10]);
        Sampling {
            temperature: f32::from_bits(temperature),
            top_k,
            top_p: f32::from_bits(top_p),
            min_p: f32::from_bits(min_p),
            seed: u64::from(high) << 32 | u64::from(low),
            repetition_penalty: f32::from_bits(repetition),
            presence_penalty: f32::from_bits(presence),
            frequency_penalty: f32::from_bits(frequency),
            penalty_last_n: last_n,
        }
    }

    /// The words that [`Sampling::from_words`] decodes.
    pub fn to_words(self) -> [i32; Self::WORDS] {
        let words = [
            self.temperature.to_bits(),
            self.top_k,
            self.top_p.to_bits(),
            self.min_p.to_bits(),
            self.seed as u32,
            (self.seed >> 32) as u32,
            self.repetition_penalty.to_bits(),
            self.presence_penalty.to_bits(),
            self.frequency_penalty.to_bits(),
            self.penalty_last_n,
        ];
        let mut all = [0; Self::WORDS];
        for (to, word) in all.iter_mut().zip(words) {
            *to = word.cast_signed();
        }
        all
    }

    /// Whether a penalty changes anything.
    fn penalizes(&self) -> bool {
        let penalties = self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0;
        penalties && self.penalty_last_n > 0
    }
}

/// Philox4x32-10: the counter-based generator of Salmon et al., "Parallel random numbers: as easy
/// as 1, 2, 3" (SC11), as in the Random123 library.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| {
        let wide = u64::from(a) * u64::from(b);
        ((wide >> 32) as u32, wide as u32)
    };
    for _ in 0..10 {
        let (high0, low0) = product(0xD251_1F53, counter[0]);
        let (high1, low1) = product(0xCD9E_8D57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// The number in `[0, 1)` of the draw for position `counter`: 24 bits, exact in an f32.
pub fn uniform(seed: u64, counter: u32) -> f32 {
    let word = philox4x32_10([counter, 0, 0, 0], [seed as u32, (seed >> 32) as u32])[0];
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Index of the token drawn for position `counter` after the tokens `seen`; `None` where there are
/// no logits.
pub fn draw(logits: &[f32], seen: &[i32], sampling: &Sampling, counter: u32) -> Option<usize> {
    let logits = penalized(logits, seen, sampling);
    let (best, largest) = largest(&logits)?;
    // A comparison that NaN fails, too.
    let draws = sampling.temperature > 0.0;
    if !draws {
        return Some(best);
    }
    let weights = weights(&logits, largest, sampling.temperature);
    let mut kept: Vec<usize> = (0..logits.len()).filter(|&i| !logits[i].is_nan()).collect();
    keep_top_k(&mut kept, &logits, sampling.top_k);
    keep_top_p(&mut kept, &weights, sampling.top_p);
    keep_min_p(&mut kept, &weights, sampling.min_p);
    Some(walk(&kept, &weights, uniform(sampling.seed, counter)).unwrap_or(best))
}

/// The logits after the penalties for the last of the tokens `seen`; what is no token is ignored.
fn penalized(logits: &[f32], seen: &[i32], sampling: &Sampling) -> Vec<f32> {
    let mut logits = logits.to_vec();
    if !sampling.penalizes() {
        return logits;
    }
    let mut counts = vec![0u32; logits.len()];
    let last = seen.len().saturating_sub(sampling.penalty_last_n as usize);
    for &token in &seen[last..] {
        if let Some(count) = counts.get_mut(token.cast_unsigned() as usize) {
            *count += 1;
        }
    }
    for (logit, count) in logits.iter_mut().zip(counts).filter(|(_, count)| *count > 0) {
        let repetition = sampling.repetition_penalty;
        let scaled = if *logit < 0.0 { *logit * repetition } else { *logit / repetition };
        let penalty = count as f32 * sampling.frequency_penalty + sampling.presence_penalty;
        *logit = scaled - penalty;
    }
    logits
}

/// The largest number, and the first token that has it; the first of all if none is above −∞.
fn largest(logits: &[f32]) -> Option<(usize, f32)> {
    let pairs = logits.iter().copied().enumerate();
    let largest =
        pairs.fold((0, f32::NEG_INFINITY), |best, (i, x)| if x > best.1 { (i, x) } else { best });
    (!logits.is_empty()).then_some(largest)
}

/// The weight of every token that is a number: e^((x − largest) / temperature), 1 for the largest.
///
/// V of them, each a multiple of a power of two and at most 1, have sums that f64 holds exactly.
fn weights(logits: &[f32], largest: f32, temperature: f32) -> Vec<f32> {
    let temperature = temperature.min(f32::MAX);
    let grid = 2f32.powi(grid_exponent(logits.len() as u64));
    let weight = |x: f32| {
        let weight = exp((x - largest) / temperature);
        let weight = (weight + grid) - grid;
        // NaN is the difference of infinite logits, which are the largest, or of one that is none.
        if weight < 1.0 { weight } else { 1.0 }
    };
    logits.iter().map(|&x| weight(x)).collect()
}

/// Exponent of the number that rounds the weights of `vocab` tokens, when it is added and
/// subtracted again, to multiples of its last place: they have at most 53 bits less those of
/// `vocab`, and 35 at most, after the point.
pub fn grid_exponent(vocab: u64) -> i32 {
    let bits = u64::BITS - vocab.saturating_sub(1).leading_zeros();
    let after_point = (53 - bits as i32).min(35);
    23 - after_point
}

/// eˣ of x ≤ 88 within 1.5 ulp: the steps of the kernels' own, each rounded to f32.
fn exp(x: f32) -> f32 {
    const ROUNDER: f32 = 12_582_912.0;
    // ln 2 = high − low, the high part short.
    const LN_2_HIGH: f64 = 0.693_359_375;
    const LN_2_LOW: f64 = 2.121_944_400_546_905_8e-4;
    const COEFFICIENTS: [f64; 6] = [
        0.500_000_012,
        1.666_666_545_9e-1,
        4.166_579_589_4e-2,
        8.333_451_907_3e-3,
        1.398_199_950_7e-3,
        1.987_569_150_0e-4,
    ];
    if x < -103.972_08 {
        return 0.0;
    }
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = n.mul_add(-LN_2_HIGH as f32, x);
    let r = n.mul_add(LN_2_LOW as f32, r);
    let p = COEFFICIENTS.iter().rev().map(|&c| c as f32);
    let p = p.reduce(|sum, c| sum.mul_add(r, c)).unwrap_or_default();
    let p = p.mul_add(r * r, r) + 1.0;
    let n = shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).cast_signed();
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23).cast_unsigned());
    p * power(n >> 1) * power(n - (n >> 1))
}

/// Larger first; NaN last, so that the order is total.
pub(crate) fn falling<R: Real>(a: R, b: R) -> Ordering {
    let is_nan = |x: R| x.partial_cmp(&x).is_none();
    b.partial_cmp(&a).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

fn keep_top_k(kept: &mut Vec<usize>, logits: &[f32], k: u32) {
    if k == 0 || k as usize >= kept.len() {
        return;
    }
    let mut order = kept.clone();
    order.sort_by(|&a, &b| falling(logits[a], logits[b]));
    let threshold = logits[order[k as usize - 1]];
    kept.retain(|&i| logits[i] >= threshold);
}

fn keep_top_p(kept: &mut Vec<usize>, weights: &[f32], p: f32) {
    // NaN keeps all.
    let filters = p < 1.0;
    if !filters {
        return;
    }
    let mut order = kept.clone();
    order.sort_by(|&a, &b| falling(weights[a], weights[b]));
    let target = f64::from(p) * mass(kept, weights);
    let mut reached = 0.0;
    let mut threshold = 0.0;
    for &i in &order {
        reached += f64::from(weights[i]);
        threshold = weights[i];
        if reached >= target {
            break;
        }
    }
    kept.retain(|&i| weights[i] >= threshold);
}

/// The largest weight is 1.
fn keep_min_p(kept: &mut Vec<usize>, weights: &[f32], min_p: f32) {
    if min_p > 0.0 {
        kept.retain(|&i| weights[i] >= min_p);
    }
}

fn mass(kept: &[usize], weights: &[f32]) -> f64 {
    kept.iter().map(|&i| f64::from(weights[i])).sum()
}

/// The first kept token whose cumulative weight exceeds `u` of the kept mass.
fn walk(kept: &[usize], weights: &[f32], u: f32) -> Option<usize> {
    let target = f64::from(u) * mass(kept, weights);
    let mut reached = 0.0;
    kept.iter().copied().find(|&i| {
        reached += f64::from(weights[i]);
        reached > target
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of Random123 for philox4x32, 10 rounds.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0]
            ),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    const PLAIN: Sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };

    fn drawn(logits: &[f32], sampling: Sampling) -> Vec<usize> {
        let mut seen: Vec<usize> =
            (0..2000).map(|counter| draw(logits, &[], &sampling, counter).unwrap()).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn words_round_trip() {
        let sampling = Sampling {
            top_k: 40,
            top_p: 0.9,
            min_p: 0.05,
            seed: u64::MAX - 3,
            repetition_penalty: 1.5,
            presence_penalty: 0.25,
            frequency_penalty: -0.5,
            penalty_last_n: 64,
            ..PLAIN
        };
        assert_eq!(Sampling::from_words(sampling.to_words()), sampling);
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let greedy = |logits: &[f32]| draw(logits, &[], &Sampling::GREEDY, 7);
        assert_eq!(greedy(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(greedy(&[]), None);
        assert_eq!(greedy(&[f32::NAN, f32::NEG_INFINITY, 1.0]), Some(2));
        assert_eq!(greedy(&[f32::NAN, f32::NAN]), Some(0));
    }

    #[test]
    fn exp_is_within_its_bound() {
        for x in (0..110_000).map(|i| i as f32 * -1e-3) {
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            let unit =
                want.max(f64::from(f32::MIN_POSITIVE)).log2().floor().exp2() * 2f64.powi(-23);
            assert!((got - want).abs() <= 1.5 * unit, "e^{x} = {got}, {want}");
        }
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY)), (1.0, 0.0));
    }

    /// No order of summation matters: every sum is exact.
    #[test]
    fn weights_are_multiples_of_a_power_of_two() {
        for (vocab, after_point) in
            [(1, 35), (49152, 35), (1 << 18, 35), ((1 << 18) + 1, 34), (1 << 29, 24)]
        {
            assert_eq!(grid_exponent(vocab), 23 - after_point);
        }
        let logits: Vec<f32> = (0..3000).map(|i| i as f32 * -0.0123).collect();
        for temperature in [0.01, 1.0, 7.0] {
            for (weight, x) in weights(&logits, 0.0, temperature).into_iter().zip(&logits) {
                assert_eq!((f64::from(weight) * 2f64.powi(35)).fract(), 0.0);
                let exact = f64::from(x / temperature).exp();
                // 1.5 ulp of `exp`, half a place of a sum, half a place of the grid.
                let bound = 2.5 * 2f64.powi(-23) * exact + 2f64.powi(-36);
                assert!((f64::from(weight) - exact).abs() <= bound);
            }
        }
    }

    #[test]
    fn infinite_logits_and_temperatures() {
        let logits = [1.0, f32::INFINITY, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        assert_eq!(drawn(&logits, PLAIN), [1, 3]);
        assert_eq!(drawn(&[f32::NAN, f32::NEG_INFINITY, f32::NEG_INFINITY], PLAIN), [1, 2]);
        assert_eq!(drawn(&[f32::NAN, f32::NAN], PLAIN), [0]);
        let hot = Sampling { temperature: f32::INFINITY, ..PLAIN };
        assert_eq!(drawn(&[9.0, -50.0, f32::NEG_INFINITY], hot), [0, 1]);
    }

    #[test]
    fn penalties_are_those_of_their_makers() {
        let penalized =
            |seen: &[i32], sampling| super::penalized(&[3.0, -2.0, 1.0], seen, &sampling);
        let off = Sampling::GREEDY;
        assert_eq!(penalized(&[0, 1, 1], off), [3.0, -2.0, 1.0]);
        let repetition = Sampling { repetition_penalty: 2.0, ..off };
        assert_eq!(penalized(&[0, 1, 1, 7, -1], repetition), [1.5, -4.0, 1.0]);
        let presence = Sampling { presence_penalty: 0.5, ..off };
        assert_eq!(penalized(&[0, 1, 1], presence), [2.5, -2.5, 1.0]);
        let frequency = Sampling { frequency_penalty: 0.5, presence_penalty: 0.25, ..off };
        assert_eq!(penalized(&[0, 1, 1], frequency), [2.25, -3.25, 1.0]);
        let few = Sampling { penalty_last_n: 2, ..frequency };
        assert_eq!(penalized(&[0, 1, 1], few), [3.0, -3.25, 1.0]);
        let none = Sampling { penalty_last_n: 0, ..frequency };
        assert_eq!(penalized(&[0, 1, 1], none), [3.0, -2.0, 1.0]);
    }

    #[test]
    fn top_k_keeps_ties_of_the_kth() {
        let logits = [0.5, 2.0, 1.0, 1.0, 0.0];
        assert_eq!(drawn(&logits, Sampling { top_k: 2, ..PLAIN }), [1, 2, 3]);
        assert_eq!(drawn(&logits, Sampling { top_k: 1, ..PLAIN }), [1]);
        assert_eq!(drawn(&logits, PLAIN), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn top_p_keeps_what_first_reaches_the_mass() {
        // Probabilities 1/2, 1/4, 1/8, 1/8.
        let logits = [8f32.ln(), 4f32.ln(), 2f32.ln(), 2f32.ln()];
        assert_eq!(drawn(&logits, Sampling { top_p: 0.4, ..PLAIN }), [0]);
        assert_eq!(drawn(&logits, Sampling { top_p: 0.7, ..PLAIN }), [0, 1]);
        assert_eq!(drawn(&logits, Sampling { top_p: 0.8, ..PLAIN }), [0, 1, 2, 3]);
        // After top-k the mass is that of what is left: 2/3 of it is the first token's.
        assert_eq!(drawn(&logits, Sampling { top_k: 2, top_p: 0.6, ..PLAIN }), [0]);
    }

    #[test]
    fn min_p_is_relative_to_the_most_probable() {
        let logits = [8f32.ln(), 4f32.ln(), 2f32.ln(), 1f32.ln()];
        assert_eq!(drawn(&logits, Sampling { min_p: 0.45, ..PLAIN }), [0, 1]);
        assert_eq!(drawn(&logits, Sampling { min_p: 0.2, ..PLAIN }), [0, 1, 2]);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        // Probabilities 0.6, 0.3, 0.1; with 20000 draws the standard deviation is below 70.
        let logits = [6f32.ln(), 3f32.ln(), 0.0];
        let sampling = Sampling { seed: 11, ..PLAIN };
        let mut counts = [0i32; 3];
        (0..20000).for_each(|counter| counts[draw(&logits, &[], &sampling, counter).unwrap()] += 1);
        for (count, expected) in counts.into_iter().zip([12000, 6000, 2000]) {
            assert!((count - expected).abs() < 350, "{counts:?}");
        }
    }
}
