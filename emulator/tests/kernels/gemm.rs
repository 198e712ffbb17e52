//! Matrix products through matrix instructions and LDS.

use half::{bf16, f16};

use crate::harness::{Buffer, Device, Element, Random, assert_close, wide};
use crate::{args, builds, chips};
use waveloom_emulator::Chip;

chips! { "gemm.hip": bf16_product, f16_product, i8_product, cdna_products, fp8_product, direct_to_lds,
transposing_read }

builds! { "gemm.hip":
    rdna3_wave64: Gfx1100 "-O3" v 5 wave 64 => [bf16_product, f16_product, i8_product];
    unoptimized_cdna3: Gfx942 "-O0" v 5 wave 64 => [bf16_product, i8_product, fp8_product];
    unoptimized_rdna4: Gfx1201 "-O0" v 6 wave 32 => [bf16_product];
    debug_cdna2: Gfx90a "-O1" v 4 wave 64 debug true => [bf16_product, cdna_products];
}

/// Row-major C = A Bᵀ in f64, and the sums of absolute products.
fn reference(a: &[f64], b: &[f64], [m, n, k]: [usize; 3]) -> (Vec<f64>, Vec<f64>) {
    let (mut c, mut sizes) = (vec![0.0; m * n], vec![0.0; m * n]);
    for row in 0..m {
        for column in 0..n {
            let products = (0..k).map(|i| a[row * k + i] * b[column * k + i]);
            c[row * n + column] = products.clone().sum();
            sizes[row * n + column] = products.map(f64::abs).sum();
        }
    }
    (c, sizes)
}

/// Runs a product of random matrices. Its error is at most that of k roundings (or truncations) of
/// partial sums, each at most the sum of absolute products; integers this small are exact.
fn product<T, R>(device: &Device, kernel: &str, shape: [usize; 3], make: impl Fn(f64) -> T)
where
    T: Element + Into<f64>,
    R: Element + Into<f64>,
{
    for exact in [true, false] {
        let mut random = Random::new(shape[2] as u64);
        let mut draw = |count: usize| {
            random.list(count, |random| match exact {
                true => make(random.integer(7) as f64),
                false => make(random.real() * 100.0),
            })
        };
        let (a, b) = (draw(shape[0] * shape[2]), draw(shape[1] * shape[2]));
        let c = run::<T, R>(device, kernel, shape, &a, &b);
        let (expected, sizes) = reference(&wide(&a), &wide(&b), shape);
        // RDNA 3 cuts sums of halves as complements to one: not even small integers are exact.
        let cuts = matches!(device.chip, Chip::Gfx1100 | Chip::Gfx1151) && T::SIZE == 2;
        let epsilon = match (exact && !cuts, R::SIZE) {
            (true, _) => 0.0,
            (false, 8) => 2_f64.powi(-52),
            (false, _) => 2_f64.powi(-23),
        };
        let rounds = (shape[2] + 2) as f64;
        assert_close(&wide(&c), &expected, |index| rounds * epsilon * sizes[index]);
    }
}

fn run<T: Element, R: Element>(
    device: &Device,
    kernel: &str,
    [m, n, k]: [usize; 3],
    a: &[T],
    b: &[T],
) -> Vec<R> {
    let (a, b) = (device.buffer(a), device.buffer(b));
    let c: Buffer<R> = device.output(m * n);
    let grid = [n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1];
    let sizes = [m, n, k].map(|size| size as u32);
    device.run(kernel, (grid, [256, 1, 1]), args![&a, &b, &c, sizes[0], sizes[1], sizes[2]]);
    device.read(&c)
}

/// Whole tiles, and shapes that divide no tile.
const SHAPES: [[usize; 3]; 2] = [[64, 128, 64], [70, 37, 45]];

fn bf16_product(device: &Device) {
    for shape in SHAPES {
        product::<bf16, f32>(device, "gemm_bf16", shape, bf16::from_f64);
    }
    if device.chip == Chip::Gfx950 {
        product::<bf16, f32>(device, "gemm_bf16_wide", SHAPES[1], bf16::from_f64);
    }
}

fn f16_product(device: &Device) {
    product::<f16, f32>(device, "gemm_f16", SHAPES[1], f16::from_f64);
}

fn i8_product(device: &Device) {
    product::<i8, i32>(device, "gemm_i8", SHAPES[1], |x| x as i8);
    // The extremes of both signs.
    let [m, n, k] = [64, 64, 32];
    let a: Vec<i8> = (0..m * k).map(|i| [-128, 127, -1, 0][i % 4]).collect();
    let b: Vec<i8> = (0..n * k).map(|i| [127, -128, -128, 1][i / 3 % 4]).collect();
    let c: Vec<i32> = run(device, "gemm_i8", [m, n, k], &a, &b);
    let (expected, _) = reference(&wide(&a), &wide(&b), [m, n, k]);
    assert_eq!(wide(&c), expected);
}

fn cdna_products(device: &Device) {
    if device.chip.is_rdna() {
        return;
    }
    product::<bf16, f32>(device, "gemm_bf16_small", SHAPES[1], bf16::from_f64);
    product::<f32, f32>(device, "gemm_f32", SHAPES[1], |x| x as f32);
    product::<f64, f64>(device, "gemm_f64", SHAPES[1], |x| x);
}

/// A is fp8 and B is bf8: powers of two and their sums, which the formats share, in the meaning of
/// the chip. Exact.
fn fp8_product(device: &Device) {
    if device.chip == Chip::Gfx90a || matches!(device.chip, Chip::Gfx1100 | Chip::Gfx1151) {
        return;
    }
    let [m, n, k] = [70, 40, 200];
    let mut random = Random::new(5);
    let (fp8, bf8) = (encode(3, 7, device.chip), encode(2, 15, device.chip));
    let mut draw = |code: &dyn Fn(f64) -> u8, count: usize| {
        let values = random
            .list(count, |random| [0.0, 1.0, -1.5, 2.0, -3.0, 0.5, 4.0][random.below(7) as usize]);
        (values.iter().map(|x| code(*x)).collect::<Vec<u8>>(), values)
    };
    let ((a_codes, a), (b_codes, b)) = (draw(&fp8, m * k), draw(&bf8, n * k));
    let c: Vec<f32> = run(device, "gemm_fp8", [m, n, k], &a_codes, &b_codes);
    let (expected, _) = reference(&a, &b, [m, n, k]);
    assert_eq!(wide(&c), expected);
    if device.chip == Chip::Gfx950 {
        // Scales of 2⁻¹ and 2².
        let c: Vec<f32> = run(device, "gemm_fp8_scaled", [m, n, k], &a_codes, &b_codes);
        assert_eq!(wide(&c), expected.iter().map(|x| x * 2.0).collect::<Vec<_>>());
    }
}

/// The code of a normal number in a format with `mantissa` bits and a bias; one more in FNUZ.
fn encode(mantissa: u32, bias: i32, chip: Chip) -> impl Fn(f64) -> u8 {
    let bias = bias + i32::from(chip == Chip::Gfx942);
    move |value| {
        if value == 0.0 {
            return 0;
        }
        let exponent = value.abs().log2().floor();
        let fraction = value.abs() / exponent.exp2() - 1.0;
        let fraction = (fraction * f64::from(1 << mantissa)) as u8;
        u8::from(value < 0.0) << 7 | ((exponent as i32 + bias) as u8) << mantissa | fraction
    }
}

fn direct_to_lds(device: &Device) {
    if device.chip.is_rdna() {
        return;
    }
    let [m, n, k] = [64, 32, 40];
    let mut random = Random::new(9);
    let mut draw = |count| random.list(count, |random| bf16::from_f64(random.integer(9) as f64));
    let (a, b) = (draw(m * k), draw(n * k));
    let (da, db, c) = (device.buffer(&a), device.buffer(&b), device.output::<f32>(m * n));
    let grid = [(n / 32) as u32, (m / 32) as u32, 1];
    device.run("gemm_direct", (grid, [64, 1, 1]), args![&da, &db, &c, n as u32, k as u32]);
    assert_eq!(wide(&device.read(&c)), reference(&wide(&a), &wide(&b), [m, n, k]).0);
}

/// B is k x n here.
fn transposing_read(device: &Device) {
    if device.chip != Chip::Gfx950 {
        return;
    }
    let [m, n, k] = [32, 48, 64];
    let mut random = Random::new(10);
    let mut draw = |count| random.list(count, |random| bf16::from_f64(random.integer(9) as f64));
    let (a, b) = (draw(m * k), draw(n * k));
    let turned: Vec<f64> = (0..n * k).map(|i| b[i % k * n + i / k].to_f64()).collect();
    let (da, db, c) = (device.buffer(&a), device.buffer(&b), device.output::<f32>(m * n));
    let grid = [(n / 16) as u32, (m / 16) as u32, 1];
    device.run("gemm_transposed", (grid, [64, 1, 1]), args![&da, &db, &c, n as u32, k as u32]);
    assert_eq!(wide(&device.read(&c)), reference(&wide(&a), &turned, [m, n, k]).0);
}
