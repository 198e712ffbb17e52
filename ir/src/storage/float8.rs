//! The two 8-bit floats with 4 exponent and 3 fraction bits.
//!
//! `f8e4m3` (OCP 8-bit Floating Point Specification, E4M3): bias 7, no infinities, NaN where all
//! bits but the sign are ones, largest 448. `f8e4m3fnuz` (AMD CDNA3): bias 8, no infinities and
//! no negative zero, whose code 0x80 is the NaN, largest 240.

/// Positive values of all 128 codes without the sign, for exponent bias `bias`.
const fn magnitudes(bias: i32) -> [f32; 128] {
    let mut table = [0f32; 128];
    let mut code = 0;
    while code < 128 {
        let (exponent, fraction) = (code as i32 >> 3, code as u32 & 7);
        // A subnormal has the exponent of the smallest normal and no leading one.
        let leading = if exponent == 0 { 0 } else { 8 };
        let exponent = if exponent == 0 { 1 } else { exponent };
        // 2^(exponent - bias - 3) as the bits of an f32; always a normal number there.
        let scale = f32::from_bits(((exponent - bias - 3 + 127) as u32) << 23);
        table[code] = (leading + fraction) as f32 * scale;
        code += 1;
    }
    table
}

static E4M3: [f32; 128] = magnitudes(7);
static E4M3FNUZ: [f32; 128] = magnitudes(8);

fn signed(magnitude: f32, code: u8) -> f32 {
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The value of an `f8e4m3`.
pub fn f8e4m3_to_f32(code: u8) -> f32 {
    match code & 0x7f {
        0x7f => f32::NAN,
        magnitude => signed(E4M3[usize::from(magnitude)], code),
    }
}

/// The value of an `f8e4m3fnuz`.
pub fn f8e4m3fnuz_to_f32(code: u8) -> f32 {
    if code == 0x80 { f32::NAN } else { signed(E4M3FNUZ[usize::from(code & 0x7f)], code) }
}

/// Index of the nearest entry of a rising table; ties to the even index, saturating.
fn nearest(table: &[f32], magnitude: f64) -> u8 {
    let above = table.partition_point(|&x| f64::from(x) < magnitude).min(table.len() - 1);
    let below = above.saturating_sub(1);
    let (to_above, to_below) =
        (f64::from(table[above]) - magnitude, magnitude - f64::from(table[below]));
    let index =
        if to_below < to_above || to_below == to_above && below % 2 == 0 { below } else { above };
    index as u8
}

/// The nearest `f8e4m3`, ties to even; numbers past ±448 become ±448.
pub fn round_to_f8e4m3(x: f64) -> u8 {
    let sign = u8::from(x.is_sign_negative()) << 7;
    if x.is_nan() { 0x7f | sign } else { nearest(&E4M3[..127], x.abs()) | sign }
}

/// The nearest `f8e4m3fnuz`, ties to even; numbers past ±240 become ±240.
pub fn round_to_f8e4m3fnuz(x: f64) -> u8 {
    if x.is_nan() {
        return 0x80;
    }
    match nearest(&E4M3FNUZ, x.abs()) {
        0 => 0,
        code => code | u8::from(x.is_sign_negative()) << 7,
    }
}
