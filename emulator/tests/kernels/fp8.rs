//! fp8 and bf8, in the meaning of each chip.

use crate::harness::{Device, Random, assert_close, assert_same, wide};
use crate::{args, builds, chips};
use waveloom_emulator::Chip;

chips! { "fp8.hip": from_fp8, to_fp8, weights, scaled }

builds! { "fp8.hip":
    unoptimized_cdna3: Gfx942 "-O0" v 5 wave 64 => [from_fp8, to_fp8, weights];
    less_optimized_rdna4: Gfx1201 "-O1" v 6 wave 32 => [from_fp8, to_fp8, weights];
}

fn has_fp8(device: &Device) -> bool {
    matches!(device.chip, Chip::Gfx942 | Chip::Gfx950 | Chip::Gfx1201)
}

/// An 8-bit float: explicit bits of mantissa, exponent bias, and whether it is FNUZ.
#[derive(Clone, Copy)]
struct Format {
    mantissa: u32,
    bias: i32,
    fnuz: bool,
}

impl Format {
    fn fp8(chip: Chip) -> Format {
        let fnuz = chip == Chip::Gfx942;
        Format { mantissa: 3, bias: 7 + i32::from(fnuz), fnuz }
    }

    fn bf8(chip: Chip) -> Format {
        let fnuz = chip == Chip::Gfx942;
        Format { mantissa: 2, bias: 15 + i32::from(fnuz), fnuz }
    }

    fn value(self, code: u8) -> f32 {
        let sign = if code & 0x80 != 0 { -1.0 } else { 1.0 };
        let exponent = i32::from(code >> self.mantissa & (0x7f >> self.mantissa));
        let fraction = f64::from(code & ((1 << self.mantissa) - 1));
        if self.fnuz && code == 0x80 {
            return f32::NAN;
        }
        if !self.fnuz && self.mantissa == 3 && code & 0x7f == 0x7f {
            return f32::NAN;
        }
        if !self.fnuz && self.mantissa == 2 && exponent == 31 {
            return if fraction == 0.0 { sign as f32 * f32::INFINITY } else { f32::NAN };
        }
        let steps = 2_f64.powi(self.mantissa as i32);
        let magnitude = match exponent {
            0 => fraction / steps * 2_f64.powi(1 - self.bias),
            _ => (1.0 + fraction / steps) * 2_f64.powi(exponent - self.bias),
        };
        (sign * magnitude) as f32
    }

    /// The codes of the finite values around `x` toward zero and away from it.
    fn neighbours(self, x: f32) -> [u8; 2] {
        let sign = if x < 0.0 { 0x80 } else { 0 };
        let finite = (0..=0x7f_u8).filter(|code| self.value(*code).is_finite());
        let below = finite.clone().rfind(|code| self.value(*code) <= x.abs()).expect("zero");
        let above = finite.clone().find(|code| self.value(*code) >= x.abs()).unwrap_or(below);
        [below | sign, above | sign]
    }

    /// The nearest code, of two the even one. No zero has a sign in FNUZ.
    fn nearest(self, x: f32) -> u8 {
        let unsigned = |code: u8| if self.fnuz && code == 0x80 { 0 } else { code };
        let [below, above] = self.neighbours(x).map(unsigned);
        let distance = |code: u8| (f64::from(self.value(code)) - f64::from(x)).abs();
        match distance(below).total_cmp(&distance(above)) {
            std::cmp::Ordering::Less => below,
            std::cmp::Ordering::Greater => above,
            std::cmp::Ordering::Equal if below & 1 == 0 => below,
            std::cmp::Ordering::Equal => above,
        }
    }
}

/// Every code at every place of a word.
fn words() -> Vec<i32> {
    (0..=255)
        .map(|code| i32::from_le_bytes([code, code ^ 0x55, !code, code.rotate_left(3)]))
        .collect()
}

fn from_fp8(device: &Device) {
    if !has_fp8(device) {
        return;
    }
    let words = words();
    let (dw, out) = (device.buffer(&words), device.output::<f32>(12 * words.len()));
    device.run("from_fp8", (2, 128), args![&dw, &out, words.len() as u32]);
    let (fp8, bf8) = (Format::fp8(device.chip), Format::bf8(device.chip));
    let mut expected = Vec::new();
    for word in words {
        let bytes = word.to_le_bytes();
        expected.extend(bytes.map(|byte| fp8.value(byte)));
        expected.extend(bytes.map(|byte| bf8.value(byte)));
        expected.extend(bytes[..2].iter().map(|byte| fp8.value(*byte)));
        expected.extend(bytes[2..].iter().map(|byte| bf8.value(*byte)));
    }
    assert_same(&device.read(&out), &expected);
}

/// Values within the range of both formats, subnormal ones and ties among them.
fn to_fp8(device: &Device) {
    if !has_fp8(device) {
        return;
    }
    let count = 400;
    let (fp8, bf8) = (Format::fp8(device.chip), Format::bf8(device.chip));
    let mut random = Random::new(121);
    let mut draw = || {
        random.list(count, |random| match random.below(3) {
            0 => random.real() as f32 * 200.0,
            1 => random.real() as f32 * 0.03,
            _ => fp8.value(random.below(0x70) as u8) * 1.0625,
        })
    };
    let (x, y) = (draw(), draw());
    let seed: Vec<u32> = (0..count).map(|i| [0, u32::MAX][i % 2]).collect();
    let (dx, dy, ds) = (device.buffer(&x), device.buffer(&y), device.buffer(&seed));
    let out = device.output::<i32>(4 * count);
    device.run("to_fp8", (4, 128), args![&dx, &dy, &ds, &out, count as u32]);
    for (i, got) in device.read(&out).chunks(4).enumerate() {
        let (x, y) = (x[i], y[i]);
        let pair = [fp8.nearest(x), fp8.nearest(y), fp8.nearest(-y), fp8.nearest(x)];
        assert_eq!(got[0].to_le_bytes(), pair, "of {x:e}, {y:e}");
        assert_eq!(
            got[1].to_le_bytes(),
            [0x88, 0x77, bf8.nearest(x), bf8.nearest(y)],
            "of {x:e}, {y:e}"
        );
        // Without noise it is cut; with all of it rounded away from zero, unless it is exact.
        if x.abs() > 0.02 {
            let noisy = |format: Format| format.neighbours(x)[usize::from(seed[i] != 0)];
            assert_eq!(got[2].to_le_bytes(), [0, 0, noisy(fp8), 0], "of {x:e}");
            assert_eq!(got[3].to_le_bytes(), [0xff, noisy(bf8), 0xff, 0xff], "of {x:e}");
        }
    }
}

fn weights(device: &Device) {
    if !has_fp8(device) {
        return;
    }
    let (rows, columns) = (11, 520);
    let format = Format::fp8(device.chip);
    let mut random = Random::new(122);
    let codes =
        random.list(rows * columns, |random| (random.below(0x50) | random.below(2) << 7) as u8);
    let codes: Vec<u8> =
        codes.into_iter().map(|code| if code == 0x80 { 0 } else { code }).collect();
    let x = random.list(columns, |random| random.real() as f32);
    let (dw, dx, y) = (device.buffer(&codes), device.buffer(&x), device.output::<f32>(rows));
    let groups = (rows as u32 * device.wave).div_ceil(256);
    device.run("gemv_fp8", (groups, 256), args![&dw, &dx, &y, rows as u32, columns as u32]);
    let products = |row: &[u8]| -> Vec<f64> {
        row.iter().zip(&x).map(|(code, x)| f64::from(format.value(*code)) * f64::from(*x)).collect()
    };
    let rows: Vec<Vec<f64>> = codes.chunks(columns).map(products).collect();
    let expected: Vec<f64> = rows.iter().map(|row| row.iter().sum()).collect();
    let sizes: Vec<f64> = rows.iter().map(|row| row.iter().map(|x| x.abs()).sum()).collect();
    // At most 36 terms a lane and six steps of the tree, a rounding each.
    assert_close(&wide(&device.read(&y)), &expected, |row| sizes[row] * 42.0 * 2_f64.powi(-24));
}

/// fp8 and fp4 with a scale that is a power of two; packed again, fp4 is what it was.
fn scaled(device: &Device) {
    if device.chip != Chip::Gfx950 {
        return;
    }
    let words = words();
    let scale: Vec<f32> = (0..words.len()).map(|i| 2_f32.powi(i as i32 % 9 - 4)).collect();
    let (dw, ds) = (device.buffer(&words), device.buffer(&scale));
    let (out, packed) = (device.output::<f32>(4 * words.len()), device.output::<u32>(words.len()));
    device.run("scaled", (2, 128), args![&dw, &ds, &out, &packed, words.len() as u32]);
    let format = Format::fp8(device.chip);
    let fp4 = |code: u8| {
        let magnitude = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(code & 7)];
        if code & 8 != 0 { -magnitude } else { magnitude }
    };
    let (mut expected, mut codes) = (Vec::new(), Vec::new());
    for (word, scale) in words.iter().zip(&scale) {
        let bytes = word.to_le_bytes();
        let values = [
            format.value(bytes[0]),
            format.value(bytes[1]),
            fp4(bytes[1] & 15),
            fp4(bytes[1] >> 4),
        ];
        expected.extend(values.map(|value| value * scale));
        codes.push(u32::from(bytes[1]) << 8);
    }
    assert_same(&device.read(&out), &expected);
    assert_eq!(device.read(&packed), codes);
}
