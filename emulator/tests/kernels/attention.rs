//! Flash attention against softmax in f64.

use half::bf16;

use crate::harness::{Device, Random, assert_close, wide};
use crate::{args, builds, chips};

chips! { "attention.hip": prefill, causal_prefill, decode }

builds! { "attention.hip":
    rdna3_wave64: Gfx1100 "-O3" v 5 wave 64 => [causal_prefill, decode];
    unoptimized_cdna4: Gfx950 "-O0" v 6 wave 64 => [causal_prefill];
    debug_rdna4: Gfx1201 "-O1" v 4 wave 32 debug true => [causal_prefill, decode];
}

const HEAD: usize = 64;

/// Attention of one head, and the largest |v|, to which errors are relative.
fn reference(q: &[f64], k: &[f64], v: &[f64], scale: f64, causal: bool) -> Vec<f64> {
    let (queries, keys) = (q.len() / HEAD, k.len() / HEAD);
    let mut out = vec![0.0; q.len()];
    for query in 0..queries {
        let limit = if causal { query + keys - queries + 1 } else { keys };
        let dot = |key: usize| {
            (0..HEAD).map(|i| q[query * HEAD + i] * k[key * HEAD + i]).sum::<f64>() * scale
        };
        let scores: Vec<f64> = (0..limit).map(dot).collect();
        let best = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp()).collect();
        let total: f64 = weights.iter().sum();
        for i in 0..HEAD {
            let sum: f64 = weights.iter().enumerate().map(|(key, w)| w * v[key * HEAD + i]).sum();
            out[query * HEAD + i] = sum / total;
        }
    }
    out
}

fn draw(random: &mut Random, count: usize) -> Vec<bf16> {
    random.list(count, |random| bf16::from_f64(random.real() * 2.0))
}

fn run_prefill(device: &Device, causal: bool) {
    let (heads, queries, keys) = (2, 40, 72);
    let scale = 0.125;
    let mut random = Random::new(21);
    let (q, k, v) = (
        draw(&mut random, heads * queries * HEAD),
        draw(&mut random, heads * keys * HEAD),
        draw(&mut random, heads * keys * HEAD),
    );
    let (dq, dk, dv) = (device.buffer(&q), device.buffer(&k), device.buffer(&v));
    let out = device.output::<f32>(q.len());
    let grid = [queries.div_ceil(32) as u32, heads as u32, 1];
    let arguments =
        args![&dq, &dk, &dv, &out, queries as u32, keys as u32, u32::from(causal), scale as f32];
    device.run("attention", (grid, [128, 1, 1]), arguments);
    let got = device.read(&out);
    for head in 0..heads {
        let of = |values: &[bf16], rows: usize| {
            wide(&values[head * rows * HEAD..(head + 1) * rows * HEAD])
        };
        let expected = reference(&of(&q, queries), &of(&k, keys), &of(&v, keys), scale, causal);
        let got = wide(&got[head * queries * HEAD..(head + 1) * queries * HEAD]);
        // Probabilities are rounded to bf16 (2⁻⁸ relative, |v| ≤ 2) but their sum is not; the
        // rest is f32 and far smaller.
        assert_close(&got, &expected, |_| 2.0 * 2_f64.powi(-8));
    }
}

fn prefill(device: &Device) {
    run_prefill(device, false);
}

fn causal_prefill(device: &Device) {
    run_prefill(device, true);
}

fn decode(device: &Device) {
    let (heads, group, keys) = (6_usize, 3_usize, 50_usize);
    let mut random = Random::new(22);
    let (q, k, v) = (
        draw(&mut random, heads * HEAD),
        draw(&mut random, heads / group * keys * HEAD),
        draw(&mut random, heads / group * keys * HEAD),
    );
    let (dq, dk, dv) = (device.buffer(&q), device.buffer(&k), device.buffer(&v));
    let out = device.output::<f32>(q.len());
    let arguments = args![&dq, &dk, &dv, &out, keys as u32, group as u32, 0.125_f32];
    device.run("attention_decode", (heads as u32, device.wave), arguments);
    let got = device.read(&out);
    for head in 0..heads {
        let shared = head / group * keys * HEAD..(head / group + 1) * keys * HEAD;
        let own = head * HEAD..(head + 1) * HEAD;
        let expected = reference(
            &wide(&q[own.clone()]),
            &wide(&k[shared.clone()]),
            &wide(&v[shared]),
            0.125,
            false,
        );
        // All in f32: scores up to 32 with an error of some 64 roundings give 2⁻¹³ of |v| ≤ 2.
        assert_close(&wide(&got[own]), &expected, |_| 2_f64.powi(-12));
    }
}
