//! Matrix times vector over weights in bf16, f16, int8 and int4.

use half::{bf16, f16};

use crate::harness::{Device, Random, assert_close, to_bytes, wide};
use crate::{args, builds, chips};
use waveloom_emulator::Chip;

chips! { "gemv.hip": bf16_weights, bf16_dots, f16_weights, i8_weights, i4_weights, nibbles }

builds! { "gemv.hip":
    rdna3_wave64: Gfx1151 "-O3" v 5 wave 64 => [bf16_weights, f16_weights, i8_weights, i4_weights];
    unoptimized_cdna3: Gfx942 "-O0" v 4 wave 64 => [bf16_weights, i4_weights];
    less_optimized_rdna4: Gfx1201 "-O1" v 6 wave 32 => [bf16_weights, f16_weights, i4_weights];
}

const ROWS: usize = 13;

/// y = W x in f64, and the sums of absolute products.
fn reference(w: &[f64], x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let products = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).collect::<Vec<_>>();
    let rows: Vec<Vec<f64>> = w.chunks(x.len()).map(products).collect();
    let sums = rows.iter().map(|row| row.iter().sum()).collect();
    (sums, rows.iter().map(|row| row.iter().map(|product| product.abs()).sum()).collect())
}

/// As many roundings as terms of one lane and steps of the tree, each of at most the whole.
fn bound(sizes: &[f64], columns: usize) -> impl Fn(usize) -> f64 + '_ {
    move |row| sizes[row] * (columns as f64 / 32.0 + 16.0) * 2_f64.powi(-24)
}

fn grid(device: &Device) -> (u32, u32) {
    ((ROWS as u32 * device.wave).div_ceil(256), 256)
}

fn bf16_weights(device: &Device) {
    let columns = 1040;
    let mut random = Random::new(41);
    let mut draw = |count| random.list(count, |random| bf16::from_f64(random.real()));
    let (w, x) = (draw(ROWS * columns), draw(columns));
    let (dw, dx, y) = (device.buffer(&w), device.buffer(&x), device.output::<f32>(ROWS));
    device.run("gemv_bf16", grid(device), args![&dw, &dx, &y, ROWS as u32, columns as u32]);
    let (expected, sizes) = reference(&wide(&w), &wide(&x));
    assert_close(&wide(&device.read(&y)), &expected, bound(&sizes, columns));
}

fn bf16_dots(device: &Device) {
    if matches!(device.chip, Chip::Gfx90a | Chip::Gfx942) {
        return;
    }
    let columns = 1030;
    let mut random = Random::new(46);
    let mut draw = |count| random.list(count, |random| bf16::from_f64(random.real()));
    let (w, x) = (draw(ROWS * columns), draw(columns));
    let (dw, dx, y) = (device.buffer(&w), device.buffer(&x), device.output::<f32>(ROWS));
    device.run("gemv_bf16_dot", grid(device), args![&dw, &dx, &y, ROWS as u32, columns as u32]);
    let (expected, sizes) = reference(&wide(&w), &wide(&x));
    assert_close(&wide(&device.read(&y)), &expected, bound(&sizes, columns));
}

fn f16_weights(device: &Device) {
    let columns = 1028;
    let mut random = Random::new(42);
    let mut draw = |count| random.list(count, |random| f16::from_f64(random.real()));
    let (w, x) = (draw(ROWS * columns), draw(columns));
    let (dw, dx, y) = (device.buffer(&w), device.buffer(&x), device.output::<f32>(ROWS));
    device.run("gemv_f16", grid(device), args![&dw, &dx, &y, ROWS as u32, columns as u32]);
    let (expected, sizes) = reference(&wide(&w), &wide(&x));
    assert_close(&wide(&device.read(&y)), &expected, bound(&sizes, columns));
}

/// Eight-bit numbers of blocks of 32 and their scales, and what they mean.
struct Quantized {
    codes: Vec<i8>,
    scales: Vec<f32>,
    values: Vec<f64>,
}

fn quantized(random: &mut Random, count: usize) -> Quantized {
    let codes = random.list(count, |random| random.integer(127) as i8);
    let scales = random.list(count / 32, |random| (random.real() * 0.01 + 0.02) as f32);
    let value = |(i, code): (usize, &i8)| f64::from(*code) * f64::from(scales[i / 32]);
    let values = codes.iter().enumerate().map(value).collect();
    Quantized { codes, scales, values }
}

fn i8_weights(device: &Device) {
    let columns = 32 * 70;
    let mut random = Random::new(43);
    let (w, x) = (quantized(&mut random, ROWS * columns), quantized(&mut random, columns));
    let (dw, ds) = (device.buffer(&w.codes), device.buffer(&w.scales));
    let (dx, dxs) = (device.buffer(&x.codes), device.buffer(&x.scales));
    let y = device.output::<f32>(ROWS);
    let arguments = args![&dw, &ds, &dx, &dxs, &y, ROWS as u32, columns as u32];
    device.run("gemv_i8", grid(device), arguments);
    let (expected, sizes) = reference(&w.values, &x.values);
    assert_close(&wide(&device.read(&y)), &expected, bound(&sizes, columns));
}

fn i4_weights(device: &Device) {
    let columns = 32 * 70;
    let blocks = ROWS * columns / 32;
    let mut random = Random::new(44);
    let x = quantized(&mut random, columns);
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for _ in 0..blocks {
        let scale = f16::from_f64(random.real() * 0.1);
        let minimum = f16::from_f64(random.real());
        let nibbles: Vec<u8> = random.list(32, |random| random.below(16) as u8);
        bytes.extend(to_bytes(&[scale, minimum]));
        bytes.extend((0..16).map(|i| nibbles[i] | nibbles[i + 16] << 4));
        values.extend(nibbles.iter().map(|n| scale.to_f64() * f64::from(*n) + minimum.to_f64()));
    }
    let (dw, dx, dxs) = (device.buffer(&bytes), device.buffer(&x.codes), device.buffer(&x.scales));
    let y = device.output::<f32>(ROWS);
    device.run("gemv_i4", grid(device), args![&dw, &dx, &dxs, &y, ROWS as u32, columns as u32]);
    let (expected, mut sizes) = reference(&values, &x.values);
    // Scale and minimum are multiplied apart, and may be larger than their sum.
    sizes.iter_mut().for_each(|size| *size *= 4.0);
    assert_close(&wide(&device.read(&y)), &expected, bound(&sizes, columns));
}

/// Dot products of eight nibbles, signed and unsigned, exact.
fn nibbles(device: &Device) {
    let count = 70;
    let mut random = Random::new(45);
    let mut draw = || random.list(count, |random| random.bits() as i32);
    let (a, b) = (draw(), draw());
    let (da, db, out) = (device.buffer(&a), device.buffer(&b), device.output::<i32>(2 * count));
    device.run("dot8", (2, 64), args![&da, &db, &out, count as u32]);
    let mut expected = Vec::new();
    for i in 0..count {
        let signed = |word: i32, j: u32| word << (28 - 4 * j) >> 28;
        let unsigned = |word: i32, j: u32| (word as u32 >> (4 * j) & 15) as i32;
        let dot = |nibble: &dyn Fn(i32, u32) -> i32| {
            (0..8).map(|j| nibble(a[i], j) * nibble(b[i], j)).sum::<i32>()
        };
        expected.extend([dot(&signed) + i as i32, dot(&unsigned) + i as i32]);
    }
    assert_eq!(device.read(&out), expected);
}
