//! Norms, softmax, rope and activations.

use half::{bf16, f16};

use crate::harness::{Device, Random, assert_close, ulp, wide};
use crate::{args, builds, chips};
use waveloom_emulator::dispatch::Launch;

chips! { "rows.hip": rms_norm, layer_norm, softmax, rope, silu_multiply, gelu, packed }

builds! { "rows.hip":
    rdna4_wave64: Gfx1201 "-O3" v 5 wave 64 => [rms_norm, layer_norm, softmax, rope, packed];
    unoptimized_cdna2: Gfx90a "-O0" v 5 wave 64 => [rms_norm, softmax, rope, gelu];
    unoptimized_rdna3: Gfx1100 "-O0" v 4 wave 32 => [rms_norm, layer_norm, softmax, packed];
    debug_cdna3: Gfx942 "-O1" v 6 wave 64 debug true => [layer_norm, softmax, silu_multiply];
}

/// Half a unit of rounding to a format with `bits` explicit bits of mantissa, plus `slack`.
fn rounding(expected: &[f64], bits: i32, slack: f64) -> impl Fn(usize) -> f64 + '_ {
    move |index| expected[index].abs() * (2_f64.powi(-bits - 1) + slack) + 1e-7
}

fn rms_norm(device: &Device) {
    let (rows, columns) = (5, 576);
    let mut random = Random::new(31);
    let x = random.list(rows * columns, |random| bf16::from_f64(random.real() * 3.0));
    let weight = random.list(columns, |random| bf16::from_f64(random.real()));
    let (dx, dw, out) = (device.buffer(&x), device.buffer(&weight), device.output::<bf16>(x.len()));
    device.run("rms_norm", (rows as u32, 256), args![&dx, &dw, &out, columns as u32, 1e-5_f32]);
    let mut expected = Vec::new();
    for row in wide(&x).chunks(columns) {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / columns as f64;
        expected
            .extend(row.iter().zip(&weight).map(|(x, w)| x / (mean + 1e-5).sqrt() * w.to_f64()));
    }
    // One rounding to bf16 of a value with a few f32 roundings.
    assert_close(&wide(&device.read(&out)), &expected, rounding(&expected, 7, 1e-5));
}

fn layer_norm(device: &Device) {
    let (rows, columns) = (3, 1000);
    let mut random = Random::new(32);
    let x = random.list(rows * columns, |random| (random.real() * 4.0 + 1.0) as f32);
    let weight = random.list(columns, |random| random.real() as f32);
    let bias = random.list(columns, |random| random.real() as f32);
    let (dx, dw, db) = (device.buffer(&x), device.buffer(&weight), device.buffer(&bias));
    let out = device.output::<f32>(x.len());
    device.run(
        "layer_norm",
        (rows as u32, 512),
        args![&dx, &dw, &db, &out, columns as u32, 1e-5_f32],
    );
    let mut expected = Vec::new();
    for row in wide(&x).chunks(columns) {
        let mean = row.iter().sum::<f64>() / columns as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / columns as f64;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        let apply =
            |((x, w), b): ((&f64, &f32), &f32)| (x - mean) * scale * f64::from(*w) + f64::from(*b);
        expected.extend(row.iter().zip(&weight).zip(&bias).map(apply));
    }
    // Values are at most about 3; sums of 1000 in a tree lose a few units.
    assert_close(&wide(&device.read(&out)), &expected, |_| 4e-6);
}

fn softmax(device: &Device) {
    let (rows, columns) = (4_u32, 333_usize);
    let mut random = Random::new(33);
    let x = random.list(rows as usize * columns, |random| f16::from_f64(random.real() * 8.0));
    let (dx, out) = (device.buffer(&x), device.output::<f16>(x.len()));
    let launch = Launch {
        grid: [rows, 1, 1],
        block: [128, 1, 1],
        dynamic_lds: 4 * columns as u32,
        ..Launch::default()
    };
    device.run("softmax", launch, args![&dx, &out, columns as u32]);
    let mut expected = Vec::new();
    for row in wide(&x).chunks(columns) {
        let best = row.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = row.iter().map(|x| (x - best).exp()).sum();
        expected.extend(row.iter().map(|x| (x - best).exp() / sum));
    }
    assert_close(&wide(&device.read(&out)), &expected, rounding(&expected, 10, 1e-5));
}

fn rope(device: &Device) {
    let (heads, tokens, half) = (3_usize, 5_usize, 20_usize);
    let mut random = Random::new(34);
    let x = random.list(heads * tokens * half * 2, |random| f16::from_f64(random.real()));
    let positions: Vec<i32> = vec![0, 1, 7, 30, 100];
    let (dx, dp) = (device.buffer(&x), device.buffer(&positions));
    let grid = [heads as u32, tokens as u32, 1];
    device.run("rope", (grid, [32, 1, 1]), args![&dx, &dp, heads as u32, half as u32, 10000.0_f32]);
    let mut expected = wide(&x);
    for token in 0..tokens {
        for head in 0..heads {
            let row = &mut expected[(token * heads + head) * half * 2..][..half * 2];
            for i in 0..half {
                let angle = f64::from(positions[token]) * 10000_f64.powf(-(i as f64) / half as f64);
                let (a, b) = (row[i], row[i + half]);
                row[i] = a * angle.cos() - b * angle.sin();
                row[i + half] = b * angle.cos() + a * angle.sin();
            }
        }
    }
    // Rounding to f16 of values up to 1.5 (2⁻¹¹), and an f32 angle up to 100 (2⁻¹⁷ absolute, twice
    // that from its frequency).
    assert_close(&wide(&device.read(&dx)), &expected, |_| 2_f64.powi(-11) + 6e-5);
}

fn silu_multiply(device: &Device) {
    let count = 1000;
    let mut random = Random::new(35);
    let gate = random.list(count, |random| bf16::from_f64(random.real() * 10.0));
    let up = random.list(count, |random| bf16::from_f64(random.real() * 2.0));
    let (dg, du, out) = (device.buffer(&gate), device.buffer(&up), device.output::<bf16>(count));
    device.run("silu_multiply", (3, 128), args![&dg, &du, &out, count as u32]);
    let silu = |(g, u): (&bf16, &bf16)| g.to_f64() / (1.0 + (-g.to_f64()).exp()) * u.to_f64();
    let expected: Vec<f64> = gate.iter().zip(&up).map(silu).collect();
    assert_close(&wide(&device.read(&out)), &expected, rounding(&expected, 7, 1e-5));
}

fn gelu(device: &Device) {
    let pairs = 150;
    let mut random = Random::new(36);
    let x = random.list(2 * pairs, |random| f16::from_f64(random.real() * 4.0));
    let (dx, out) = (device.buffer(&x), device.output::<f16>(2 * pairs));
    device.run("gelu", (2, 128), args![&dx, &out, pairs as u32]);
    let exact = |x: &f64| {
        let inner = 0.797_884_560_8 * (x + 0.044715 * x.powi(3));
        0.5 * x * (1.0 + inner.tanh())
    };
    let expected: Vec<f64> = wide(&x).iter().map(exact).collect();
    // The argument of tanh is computed in f16 and may be off by four of its roundings (2⁻⁹ of it);
    // the slope of x tanh' is at most one per unit of it.
    assert_close(&wide(&device.read(&out)), &expected, |_| 2_f64.powi(-8));
}

/// Contraction is given by the source except for `sums`, where a fused product is one rounding
/// less.
fn packed(device: &Device) {
    let pairs = 100;
    let mut random = Random::new(37);
    let mut draw = || random.list(2 * pairs, |random| f16::from_f64(random.real() * 8.0));
    let (a, b) = (draw(), draw());
    let (da, db) = (device.buffer(&a), device.buffer(&b));
    let (out, sums) = (device.output::<f16>(2 * pairs), device.output::<f32>(pairs));
    device.run("packed", (2, 64), args![&da, &db, &out, &sums, pairs as u32]);
    let (got, got_sums) = (device.read(&out), device.read(&sums));
    let mut expected_sums = Vec::new();
    for i in 0..pairs {
        let (x, y) = ([a[2 * i], a[2 * i + 1]], [b[2 * i], b[2 * i + 1]]);
        for j in 0..2 {
            let fma = f16::from_f64(x[j].to_f64() * y[j].to_f64() - x[j].to_f64());
            let other = x[j].to_f64().max(y[1 - j].to_f64()) * (-x[j].to_f64()).min(y[j].to_f64());
            let (fused, apart) = (
                f16::from_f64(fma.to_f64() + other),
                f16::from_f64(fma.to_f64() + f16::from_f64(other).to_f64()),
            );
            let got = got[2 * i + j];
            assert!(got == fused || got == apart, "[{i}.{j}]: {got}, expected {fused} or {apart}");
        }
        let [x0, x1, y0, y1] = [x[0], x[1], y[0], y[1]].map(|value| value.to_f64());
        expected_sums.push(x0 * y1 + x1 + (y0 * x1 - y1));
    }
    // Products of halves are exact in f32; three roundings of terms up to 64 remain.
    assert_close(&wide(&got_sums), &expected_sums, |_| 3.0 * ulp(128.0));
}
