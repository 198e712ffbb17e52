//! Drawing a token: the rule of `docs/architecture.md`, "The decode loop".

use crate::interp::Real;
use std::cmp::Ordering;

/// Sampling parameters, decoded from the eight words that `sample` takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 (or less) picks the largest.
    pub temperature: f32,
    /// Keep the k largest logits and ties of the k-th; 0 keeps all.
    pub top_k: u32,
    /// Keep the most probable tokens whose mass first reaches this part, and ties; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the most probable; 0 keeps all.
    pub min_p: f32,
    /// Key of the generator.
    pub seed: u64,
}

impl Sampling {
    /// Arg-max.
    pub const GREEDY: Sampling =
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 };

    /// From the words: temperature, top_k, top_p, min_p, seed low, seed high, two unused.
    pub fn from_words(words: [i32; 8]) -> Sampling {
        let [temperature, top_k, top_p, min_p, low, high, _, _] = words.map(i32::cast_unsigned);
        Sampling {
            temperature: f32::from_bits(temperature),
            top_k,
            top_p: f32::from_bits(top_p),
            min_p: f32::from_bits(min_p),
            seed: u64::from(high) << 32 | u64::from(low),
        }
    }

    /// The words that [`Sampling::from_words`] decodes.
    pub fn to_words(self) -> [i32; 8] {
        [
            self.temperature.to_bits(),
            self.top_k,
            self.top_p.to_bits(),
            self.min_p.to_bits(),
            self.seed as u32,
            (self.seed >> 32) as u32,
            0,
            0,
        ]
        .map(u32::cast_signed)
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

/// Index of the token drawn for position `counter`; `None` where there are no logits.
///
/// Sums run in the precision of `R`: those of `top_p` over falling probabilities, the others in
/// index order.
pub fn draw<R: Real>(logits: &[R], sampling: &Sampling, counter: u32) -> Option<usize> {
    let best = largest(logits)?;
    if sampling.temperature <= 0.0 {
        return Some(best);
    }
    let temperature = R::from_f32(sampling.temperature);
    let scaled: Vec<R> = logits.iter().map(|&x| x / temperature).collect();
    let weights: Vec<R> = scaled.iter().map(|&x| (x - scaled[best]).exp()).collect();
    let mut kept: Vec<usize> = (0..logits.len()).collect();
    keep_top_k(&mut kept, &scaled, sampling.top_k);
    keep_top_p(&mut kept, &weights, sampling.top_p);
    keep_min_p(&mut kept, &weights, weights[best], sampling.min_p);
    Some(walk(&kept, &weights, uniform(sampling.seed, counter)).unwrap_or(best))
}

/// Index of the largest, the first of equals.
fn largest<R: Real>(values: &[R]) -> Option<usize> {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })
}

/// Larger first; NaN last, so that the order is total.
pub(crate) fn falling<R: Real>(a: R, b: R) -> Ordering {
    let is_nan = |x: R| x.partial_cmp(&x).is_none();
    b.partial_cmp(&a).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

fn keep_top_k<R: Real>(kept: &mut Vec<usize>, scaled: &[R], k: u32) {
    if k == 0 || k as usize >= kept.len() {
        return;
    }
    let mut order = kept.clone();
    order.sort_by(|&a, &b| falling(scaled[a], scaled[b]));
    let threshold = scaled[order[k as usize - 1]];
    kept.retain(|&i| scaled[i] >= threshold);
}

fn keep_top_p<R: Real>(kept: &mut Vec<usize>, weights: &[R], p: f32) {
    if p >= 1.0 {
        return;
    }
    let mut order = kept.clone();
    order.sort_by(|&a, &b| falling(weights[a], weights[b]));
    let target = R::from_f32(p) * mass(kept, weights);
    let mut reached = R::default();
    let mut threshold = R::default();
    for &i in &order {
        reached += weights[i];
        threshold = weights[i];
        if reached >= target {
            break;
        }
    }
    kept.retain(|&i| weights[i] >= threshold);
}

fn keep_min_p<R: Real>(kept: &mut Vec<usize>, weights: &[R], best: R, min_p: f32) {
    if min_p > 0.0 {
        let threshold = R::from_f32(min_p) * best;
        kept.retain(|&i| weights[i] >= threshold);
    }
}

fn mass<R: Real>(kept: &[usize], weights: &[R]) -> R {
    kept.iter().fold(R::default(), |sum, &i| sum + weights[i])
}

/// The first kept token whose cumulative weight exceeds `u` of the kept mass.
fn walk<R: Real>(kept: &[usize], weights: &[R], u: f32) -> Option<usize> {
    let target = R::from_f32(u) * mass(kept, weights);
    let mut reached = R::default();
    let drawn = kept.iter().copied().find(|&i| {
        reached += weights[i];
        reached > target
    });
    drawn.or(kept.last().copied())
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
            (0..2000).map(|counter| draw(logits, &sampling, counter).unwrap()).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn words_round_trip() {
        let sampling = Sampling { top_k: 40, top_p: 0.9, min_p: 0.05, seed: u64::MAX - 3, ..PLAIN };
        assert_eq!(Sampling::from_words(sampling.to_words()), sampling);
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(draw(&[1.0, 3.0, 3.0], &Sampling::GREEDY, 7), Some(1));
        assert_eq!(draw::<f32>(&[], &Sampling::GREEDY, 7), None);
        assert_eq!(draw(&[f64::NAN, f64::NAN], &PLAIN, 7), Some(1));
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
        let logits = [6f64.ln(), 3f64.ln(), 0.0];
        let sampling = Sampling { seed: 11, ..PLAIN };
        let mut counts = [0i32; 3];
        (0..20000).for_each(|counter| counts[draw(&logits, &sampling, counter).unwrap()] += 1);
        for (count, expected) in counts.into_iter().zip([12000, 6000, 2000]) {
            assert!((count - expected).abs() < 350, "{counts:?}");
        }
    }
}
