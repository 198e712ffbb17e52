//! ggml's block formats, as `dequantize_row_*` and `quantize_row_*_ref` of `ggml-quants.c`.
//!
//! In the 32-element formats byte j of the nibbles holds element j in its low half and element
//! j + 16 in its high half; in the 256-element formats the low halves of 32 bytes are 32
//! elements and the high halves the 32 elements that follow.

use half::f16;

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `f16 d; i8 q[32]`.
pub(super) fn read_q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (x, q) in out.iter_mut().zip(&block[2..]) {
        *x = f32::from(q.cast_signed()) * d;
    }
}

/// `f16 d; u8 nibbles[16]`.
pub(super) fn read_q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (j, byte) in block[2..].iter().enumerate() {
        out[j] = (f32::from(byte & 15) - 8.0) * d;
        out[j + 16] = (f32::from(byte >> 4) - 8.0) * d;
    }
}

/// `f16 d; f16 m; u8 nibbles[16]`.
pub(super) fn read_q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (j, byte) in block[4..].iter().enumerate() {
        out[j] = f32::from(byte & 15) * d + m;
        out[j + 16] = f32::from(byte >> 4) * d + m;
    }
}

/// Five-bit quants: nibbles, and their fifth bits as one little-endian word.
fn five_bits(high: &[u8], nibbles: &[u8], mut put: impl FnMut(usize, f32)) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let fifth = |i: usize| ((high >> i & 1) << 4) as u8;
    for (j, byte) in nibbles.iter().enumerate() {
        put(j, f32::from(byte & 15 | fifth(j)));
        put(j + 16, f32::from(byte >> 4 | fifth(j + 16)));
    }
}

/// `f16 d; u32 fifth bits; u8 nibbles[16]`.
pub(super) fn read_q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    five_bits(&block[2..6], &block[6..], |i, q| out[i] = (q - 16.0) * d);
}

/// `f16 d; f16 m; u32 fifth bits; u8 nibbles[16]`.
pub(super) fn read_q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    five_bits(&block[4..8], &block[8..], |i, q| out[i] = q * d + m);
}

/// The 6-bit scale and minimum of sub-block `i`, packed in 12 bytes (`get_scale_min_k4`).
fn scale_and_min(packed: &[u8], i: usize) -> (f32, f32) {
    let (scale, min) = if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        let low = packed[i + 4];
        (low & 15 | packed[i - 4] >> 6 << 4, low >> 4 | packed[i] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// The quants of sub-block `i` of 32 of a K format: low or high halves of 32 bytes.
fn sub_block(nibbles: &[u8], i: usize) -> impl Iterator<Item = u8> {
    let shift = 4 * (i % 2);
    nibbles[i / 2 * 32..][..32].iter().map(move |byte| byte >> shift & 15)
}

/// `f16 d; f16 dmin; u8 scales[12]; u8 nibbles[128]`.
pub(super) fn read_q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], i);
        for (x, q) in out.iter_mut().zip(sub_block(&block[16..], i)) {
            *x = d * scale * f32::from(q) - dmin * min;
        }
    }
}

/// `f16 d; f16 dmin; u8 scales[12]; u8 fifth bits[32]; u8 nibbles[128]`; bit i of byte j is the
/// fifth bit of element j of sub-block i.
pub(super) fn read_q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], i);
        let quants = sub_block(&block[48..], i).zip(&block[16..48]);
        for (x, (q, high)) in out.iter_mut().zip(quants) {
            *x = d * scale * f32::from(q | (high >> i & 1) << 4) - dmin * min;
        }
    }
}

/// `u8 nibbles[128]; u8 upper two bits[64]; i8 scales[16]; f16 d`. Each half of 128 elements has
/// 64 bytes of nibbles and 32 of upper bits; a scale serves 16 elements.
pub(super) fn read_q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for (i, x) in out.iter_mut().enumerate() {
        let (half, quarter, j) = (i / 128, i % 128 / 32, i % 32);
        let low = block[64 * half + 32 * (quarter % 2) + j] >> (4 * (quarter / 2)) & 15;
        let high = block[128 + 32 * half + j] >> (2 * quarter) & 3;
        let scale = block[192 + i / 16].cast_signed();
        *x = d * f32::from(scale) * (f32::from(low | high << 4) - 32.0);
    }
}

fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Sixteen bytes of nibbles from 32 numbers that are in 0..=15 once truncated and clamped.
fn nibbles(out: &mut [u8], quant: impl Fn(usize) -> f32) {
    let clamped = |i| (quant(i) as u8).min(15);
    for (j, byte) in out.iter_mut().enumerate() {
        *byte = clamped(j) | clamped(j + 16) << 4;
    }
}

/// d = largest magnitude / 127.
pub(super) fn write_q8_0(values: &[f32; 32]) -> [u8; 34] {
    let largest = values.iter().fold(0f32, |max, x| max.max(x.abs()));
    let d = largest / 127.0;
    let inverse = reciprocal(d);
    let mut block = [0; 34];
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (q, x) in block[2..].iter_mut().zip(values) {
        *q = ((x * inverse).round() as i8).cast_unsigned();
    }
    block
}

/// d = m / −8 where m is the number of largest magnitude, with its sign.
pub(super) fn write_q4_0(values: &[f32; 32]) -> [u8; 18] {
    let larger = |m: f32, x: &f32| if x.abs() > m.abs() { *x } else { m };
    let d = values.iter().fold(0f32, larger) / -8.0;
    let inverse = reciprocal(d);
    let mut block = [0; 18];
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    nibbles(&mut block[2..], |i| values[i] * inverse + 8.5);
    block
}

/// m = minimum, d = (maximum − minimum) / 15.
pub(super) fn write_q4_1(values: &[f32; 32]) -> [u8; 20] {
    let min = values.iter().copied().fold(f32::MAX, f32::min);
    let max = values.iter().copied().fold(f32::MIN, f32::max);
    let d = (max - min) / 15.0;
    let inverse = reciprocal(d);
    let mut block = [0; 20];
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    block[2..4].copy_from_slice(&f16::from_f32(min).to_le_bytes());
    nibbles(&mut block[4..], |i| (values[i] - min) * inverse + 0.5);
    block
}

/// Eight q4_1 blocks with the quants of a q4_k block: scale d·sc and minimum −dmin·m, each
/// rounded to f16.
pub(super) fn q4_k_to_q4_1(block: &[u8; 144]) -> [[u8; 20]; 8] {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    std::array::from_fn(|i| {
        let (scale, min) = scale_and_min(&block[4..16], i);
        let mut out = [0; 20];
        out[..2].copy_from_slice(&f16::from_f32(d * scale).to_le_bytes());
        out[2..4].copy_from_slice(&f16::from_f32(-(dmin * min)).to_le_bytes());
        for (j, q) in sub_block(&block[16..], i).enumerate() {
            out[4 + j % 16] |= q << (4 * (j / 16));
        }
        out
    })
}
