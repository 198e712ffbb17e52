//! Argmax, the k largest, a draw, prefix sums.

use crate::harness::{Device, Random};
use crate::{args, builds, chips};
use waveloom_emulator::dispatch::Launch;

chips! { "sampling.hip": argmax, top_k, sample, prefix_sum }

builds! { "sampling.hip":
    rdna3_wave64: Gfx1100 "-O3" v 5 wave 64 => [argmax, top_k, sample, prefix_sum];
    unoptimized_rdna35: Gfx1151 "-O0" v 5 wave 32 => [argmax, top_k, prefix_sum];
    debug_cdna4: Gfx950 "-O1" v 6 wave 64 debug true => [argmax, top_k, sample];
}

/// Logits of which many are equal.
fn logits(count: usize) -> Vec<f32> {
    Random::new(51).list(count, |random| (random.integer(400) as f32) * 0.0625)
}

/// Indices, largest logit first and the earlier index first among equals.
fn sorted(logits: &[f32]) -> Vec<u32> {
    let mut indices: Vec<u32> = (0..logits.len() as u32).collect();
    indices.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    indices
}

fn argmax(device: &Device) {
    for count in [1, 63, 3000] {
        let logits = logits(count);
        let (dl, token) = (device.buffer(&logits), device.output::<u32>(1));
        device.run("argmax", (1, 512), args![&dl, &token, count as u32]);
        assert_eq!(device.read(&token), &sorted(&logits)[..1]);
    }
}

fn top_k(device: &Device) {
    let (count, k) = (5000, 50);
    let logits = logits(count);
    let dl = device.buffer(&logits);
    let (values, indices) = (device.output::<f32>(k), device.output::<u32>(k));
    device.run("top_k", (1, 256), args![&dl, count as u32, k as u32, &values, &indices]);
    let expected = &sorted(&logits)[..k];
    assert_eq!(device.read(&indices), expected);
    let expected: Vec<f32> = expected.iter().map(|index| logits[*index as usize]).collect();
    assert_eq!(device.read(&values), expected);
}

/// Drawn many times, tokens come about as often as their probability says; those beyond `top_p`
/// never do. And each draw is the one that the same generator gives here.
fn sample(device: &Device) {
    let values = [3.0_f32, 2.5, 2.0, 1.0, 0.5, -1.0, -4.0];
    let indices = [10_u32, 20, 30, 40, 50, 60, 70];
    let (temperature, top_p) = (0.8_f32, 0.9_f32);
    let (dv, di, token) =
        (device.buffer(&values), device.buffer(&indices), device.output::<u32>(1));
    let weight = |value: f32| (f64::from(value - values[0]) / f64::from(temperature)).exp();
    let total: f64 = values.iter().map(|value| weight(*value)).sum();
    let mut used = 0;
    let mut kept = 0.0;
    while kept < f64::from(top_p) * total {
        kept += weight(values[used]);
        used += 1;
    }
    let draws = 60;
    for seed in 0..draws {
        let arguments = args![&dv, &di, 7_u32, temperature, top_p, seed, &token];
        device.run_once("sample", (1, device.wave), arguments, 1);
        let unit = (Random::new(seed).bits() >> 40) as f64 / (1 << 24) as f64;
        let mut sum = 0.0;
        let below = |value: &&f32| {
            sum += weight(**value);
            sum <= unit * kept
        };
        let chosen = values[..used - 1].iter().take_while(below).count();
        assert_eq!(device.read(&token), [indices[chosen]], "seed {seed}");
    }
}

fn prefix_sum(device: &Device) {
    let count = 700;
    let x = Random::new(53).list(count, |random| random.bits() as u32);
    let (dx, out) = (device.buffer(&x), device.output::<u32>(count));
    let launch = Launch {
        grid: [1, 1, 1],
        block: [768, 1, 1],
        dynamic_lds: 4 * 768 / device.wave,
        ..Launch::default()
    };
    device.run("prefix_sum", launch, args![&dx, &out, count as u32]);
    let mut sum = 0_u32;
    let mut add = |x: &u32| {
        sum = sum.wrapping_add(*x);
        sum
    };
    let expected: Vec<u32> = x.iter().map(&mut add).collect();
    assert_eq!(device.read(&out), expected);
}
