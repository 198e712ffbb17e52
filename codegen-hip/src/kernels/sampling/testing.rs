//! For tests: what to draw from, and the distribution that draws should have.

use crate::harness::random_f32;
use waveloom_ir::sample::Sampling;

/// A temperature of 1 and nothing else.
pub(crate) const PLAIN: Sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };

/// Pairwise different filters with a seed.
pub(crate) fn filters(seed: u64) -> Vec<Sampling> {
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
                all.push(Sampling { temperature, top_k, top_p, min_p, seed, ..PLAIN });
            }
        }
    }
    all
}

/// Logits of many kinds: spread little or much, with many ties, with some that are −∞, all equal.
pub(crate) fn logits(case: usize, vocab: usize) -> Vec<f32> {
    let spread = [1.0, 6.0, 20.0][case % 3];
    let mut logits: Vec<f32> =
        random_f32((case * 10_000 + vocab) as u64, vocab).into_iter().map(|x| x * spread).collect();
    if case % 4 == 3 {
        logits.iter_mut().for_each(|x| *x = (*x * 2.0).round() / 2.0);
    }
    if case % 5 == 4 {
        logits[vocab / 3] = f32::NEG_INFINITY;
    }
    if case % 17 == 16 {
        logits.fill(-3.25);
    }
    logits
}

/// Penalties, pairwise different.
pub(crate) const PENALTIES: [[f32; 3]; 4] =
    [[1.3, 0.0, 0.0], [1.0, 0.7, 0.0], [1.0, 0.0, 0.4], [0.8, -0.5, 0.1]];

/// Seventy tokens: the likely ones, some of them often, and some that are none.
pub(crate) fn likely_tokens(logits: &[f32]) -> Vec<i32> {
    let mut likely: Vec<i32> = (0..logits.len() as i32).collect();
    likely.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    likely.splice(3..3, [-1, logits.len() as i32]);
    (0..70).map(|i| likely[i * i % likely.len().min(23)]).collect()
}

/// The probability of each token by the definition, in f64. No two weights may be nearly equal.
pub(crate) fn probabilities(logits: &[f32], seen: &[i32], sampling: &Sampling) -> Vec<f64> {
    let [repetition, presence, frequency] =
        [sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty]
            .map(f64::from);
    let window = &seen[seen.len().saturating_sub(sampling.penalty_last_n as usize)..];
    let scores: Vec<f64> = logits
        .iter()
        .enumerate()
        .map(|(token, &logit)| {
            let logit = f64::from(logit);
            let count = window.iter().filter(|&&seen| seen == token as i32).count() as f64;
            if count == 0.0 {
                return logit;
            }
            let logit = if logit > 0.0 { logit / repetition } else { logit * repetition };
            logit - presence - count * frequency
        })
        .map(|logit| logit / f64::from(sampling.temperature))
        .collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut order: Vec<(f64, usize)> =
        scores.iter().enumerate().map(|(token, x)| ((x - largest).exp(), token)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k as usize);
    }
    let mass: f64 = order.iter().map(|(weight, _)| weight).sum();
    let mut before = 0.0;
    order.retain(|(weight, _)| {
        let kept = before < f64::from(sampling.top_p) * mass;
        before += weight;
        kept
    });
    order.retain(|(weight, _)| *weight >= f64::from(sampling.min_p));
    let mass: f64 = order.iter().map(|(weight, _)| weight).sum();
    let mut probabilities = vec![0.0; logits.len()];
    for (weight, token) in order {
        probabilities[token] = weight / mass;
    }
    probabilities
}

/// Fails if `draws` draws of `draw`, by counter, have not this distribution: Pearson's chi-square
/// test. The seed is fixed, so it either always fails or never; a right sampler would fail with
/// one seed in 30 000.
pub(crate) fn check_distribution(
    probabilities: &[f64],
    draws: u32,
    mut draw: impl FnMut(u32) -> usize,
) {
    let mut counts = vec![0u32; probabilities.len()];
    for counter in 0..draws {
        counts[draw(counter)] += 1;
    }
    // Tokens that are expected fewer than five times count as one.
    let (mut statistic, mut classes) = (0.0, 0);
    let (mut rare, mut rare_count) = (0.0, 0);
    for (probability, count) in probabilities.iter().zip(counts) {
        let expected = probability * f64::from(draws);
        assert!(*probability > 0.0 || count == 0, "a token was drawn that is dropped");
        if expected < 5.0 {
            rare += expected;
            rare_count += count;
        } else {
            statistic += (f64::from(count) - expected).powi(2) / expected;
            classes += 1;
        }
    }
    if rare > 0.0 {
        statistic += (f64::from(rare_count) - rare).powi(2) / rare;
        classes += 1;
    }
    // The quantile by Wilson and Hilferty, at four standard deviations.
    let freedom = f64::from((classes - 1).max(1));
    let spread = 2.0 / (9.0 * freedom);
    let limit = freedom * (1.0 - spread + 4.0 * spread.sqrt()).powi(3);
    assert!(statistic <= limit, "chi-square {statistic} of {freedom} degrees, limit {limit}");
}

/// What distributions are tested of: logits, tokens seen, parameters.
pub(crate) fn distributions(vocab: usize) -> Vec<(Vec<f32>, Vec<i32>, Sampling)> {
    let logits: Vec<f32> = random_f32(77, vocab).into_iter().map(|x| 2.5 * x).collect();
    let seen = likely_tokens(&logits);
    let [plain, penalized] = [PLAIN, Sampling { seed: 1 << 40 | 3, ..PLAIN }];
    let penalized = Sampling {
        repetition_penalty: 1.4,
        presence_penalty: 0.3,
        frequency_penalty: 0.05,
        penalty_last_n: 60,
        ..penalized
    };
    [
        plain,
        Sampling { temperature: 0.6, top_k: 12, seed: 1, ..plain },
        Sampling { temperature: 1.7, top_p: 0.8, seed: 2, ..plain },
        Sampling { min_p: 0.1, seed: 3, ..plain },
        Sampling { top_k: 20, top_p: 0.9, min_p: 0.02, ..penalized },
    ]
    .into_iter()
    .map(|sampling| (logits.clone(), seen.clone(), sampling))
    .collect()
}
