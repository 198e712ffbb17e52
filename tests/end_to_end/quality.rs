//! What quantization costs: KL divergence of the next-token distribution against f32, over the golden
//! text fed token by token.

use crate::golden::{F32, golden};
use crate::support::{compiled, session, smollm2};
use waveloom_ir::DType;
use waveloom_passes::WeightDtype;

/// Mean KL divergence in nats of `dtype` against f32 weights of the same model.
fn divergence(dtype: WeightDtype) -> Option<f64> {
    let path = smollm2()?;
    let mut reference = session(&compiled(&path, F32, "cpu"), 2);
    let mut quantized = session(&compiled(&path, dtype, "cpu"), 2);
    let (mut sum, mut count) = (0.0, 0);
    for case in golden().cases {
        let text = [case.prompt_ids, case.greedy_ids].concat();
        reference.reset();
        quantized.reset();
        for token in text {
            reference.prefill(&[token]).expect("it runs");
            quantized.prefill(&[token]).expect("it runs");
            let (p, q) = (reference.logits(), quantized.logits());
            sum += kl(p.expect("there are logits"), q.expect("there are logits"));
            count += 1;
        }
    }
    let mean = sum / f64::from(count);
    println!("{dtype:?} against f32 over {count} positions: mean KL divergence {mean:.3e} nats");
    Some(mean)
}

/// KL(softmax(p) ‖ softmax(q)).
fn kl(p: &[f32], q: &[f32]) -> f64 {
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let max = logits.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
        let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
        logits.iter().map(|x| f64::from(x - max) - sum.ln()).collect()
    };
    let (p, q) = (log_softmax(p), log_softmax(q));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn bf16_is_close_to_f32() {
    let Some(kl) = divergence(WeightDtype::Convert(DType::BF16)) else { return };
    assert!(kl <= 1e-3, "{kl}");
}

/// A bound against regressions. The aim is 1e-3, which q8_0 as ggml defines it cannot reach on this model:
/// in the reference implementation, rounding the weights alone costs 1.75e-3 nats
/// (`scripts/quantization_floor.py`); ours costs 1.77e-3 with all that comes with it.
const Q8_0_BOUND: f64 = 2.5e-3;

#[test]
fn q8_0_stays_at_what_its_roundings_cost() {
    let Some(kl) = divergence(WeightDtype::Convert(DType::Q8_0)) else { return };
    assert!(kl <= Q8_0_BOUND, "{kl}");
}

/// What is left when the weights are the same: 15-bit activations and an f16 KV cache. Measured 1.1e-6.
const STORED_BOUND: f64 = 1e-5;

#[test]
fn q4_1_as_stored_is_close_to_its_own_f32_expansion() {
    let Some(kl) = divergence(WeightDtype::Keep) else { return };
    assert!(kl <= STORED_BOUND, "{kl}");
}
