//! What a runtime puts where weights would be, for a model of which there is only the shape: fills
//! of the constants segment instead of packed bytes.
//!
//! Padding is as packing has it where kernels rely on that: columns beyond K are zero, rows beyond N
//! are zero or have zero scales. So whatever is drawn, padding multiplies to zero.

use super::{ALIGNMENT, Packed, matrix};
use crate::target::Target;
use half::f16;
use waveloom_ir::{DType, Dim, Type};
use waveloom_plan::synthetic::EXPONENTS;
use waveloom_plan::{Content, Fill, NumberForm};

/// Root mean square of [`Content::Numbers`] of exponent 0.
const NUMBERS_RMS: f64 = 0.44;
/// Root mean square of a random signed byte: √(256² / 12).
const BYTE_RMS: f64 = 73.9;
/// Root mean square of a random number in 0..16 less its mean, 7.5.
const NIBBLE_RMS: f64 = 4.61;
/// The mean of a random number in 0..16.
const NIBBLE_MEAN: f32 = 7.5;

/// What a matrix is made of.
pub(super) struct Drawn {
    /// Elements, or the quants of blocks.
    pub values: Content,
    /// Each block's scale, in f16.
    pub scale: [u8; 2],
    /// Each block's minimum, in f16.
    pub minimum: [u8; 2],
}

impl Drawn {
    /// For rows of `k` elements: of mean 0 and about 1 / √k, so that products with a vector are of
    /// about the vector's own size. (The mean of q4_0 is half a quant below.)
    fn new(dtype: DType, k: u64) -> Drawn {
        let rms = 1.0 / (k as f64).sqrt();
        let form = match dtype {
            DType::F16 => Some(NumberForm::F16),
            DType::BF16 => Some(NumberForm::BF16),
            DType::F32 => Some(NumberForm::F32),
            _ => None,
        };
        let values = form.map_or(Content::Bytes, |form| numbers(form, rms));
        let quant = if dtype == DType::Q8_0 { BYTE_RMS } else { NIBBLE_RMS };
        let scale = (rms / quant) as f32;
        let bytes = |x: f32| f16::from_f32(x).to_le_bytes();
        Drawn { values, scale: bytes(scale), minimum: bytes(-NIBBLE_MEAN * scale) }
    }
}

/// Random numbers with about this root mean square.
fn numbers(form: NumberForm, rms: f64) -> Content {
    let exponent = (rms / NUMBERS_RMS).log2().round() as i32;
    let exponent = exponent.clamp(*EXPONENTS.start(), *EXPONENTS.end());
    Content::Numbers { form, exponent }
}

/// `count` ranges of `bytes` bytes from `offset` on, `stride` bytes apart; nothing if they are empty.
pub(super) fn ranges(
    offset: u64,
    bytes: u64,
    count: u64,
    stride: u64,
    content: &Content,
) -> Option<Fill> {
    let content = content.clone();
    match (bytes, count) {
        (0, _) | (_, 0) => None,
        (_, 1) => Some(Fill::range(offset, bytes, content)),
        _ if bytes == stride => Some(Fill::range(offset, bytes * count, content)),
        _ => Some(Fill { offset, bytes, count, stride, content }),
    }
}

/// What stands for a weight whose bytes begin at `offset` of the constants segment of a target;
/// `None` where it cannot be packed.
pub fn drawn_weight(ty: &Type, target: &Target, offset: u64) -> Option<Vec<Fill>> {
    let mut fills = match matrix(ty) {
        Some((rows, cols)) => {
            let drawn = Drawn::new(ty.dtype, cols);
            match Packed::new(ty.dtype, rows, cols, target)? {
                Packed::Cpu(layout) => layout.fills(&drawn),
                Packed::Gpu(layout) => layout.fills(&drawn),
            }
        }
        None => {
            let [Dim::Const(elements)] = ty.shape[..] else { return None };
            let vector = ty.dtype == DType::F32;
            let content = Drawn::new(ty.dtype, elements.max(1)).values;
            vector.then(|| ranges(0, 4 * elements, 1, 0, &content).into_iter().collect())?
        }
    };
    fills.iter_mut().for_each(|fill| fill.offset += offset);
    Some(fills)
}

/// What puts these packed bytes at `offset` of the constants segment.
pub fn given_weight(packed: &[u8], offset: u64) -> Option<Fill> {
    let first = packed.first_chunk::<4>().filter(|first| **first != [0; 4]);
    let elements = packed.chunks_exact(4);
    let equal = elements.take_while(|element| Some(*element) == first.map(|f| &f[..])).count();
    let rest = &packed[4 * equal..];
    match (first, packed.is_empty()) {
        (_, true) => None,
        (Some(first), _) if (rest.len() as u64) < ALIGNMENT && rest.iter().all(|b| *b == 0) => {
            Some(Fill::range(offset, 4 * equal as u64, Content::Repeat(first.to_vec())))
        }
        _ => Some(Fill::range(offset, packed.len() as u64, Content::Repeat(packed.to_vec()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::pack_weight;

    const DTYPES: [DType; 6] =
        [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1];

    fn ty(dtype: DType, rows: u64, cols: u64) -> Type {
        Type::new(dtype, [Dim::Const(rows), Dim::Const(cols)])
    }

    /// By byte: what the last fill that covers it says.
    fn covered(fills: &[Fill], bytes: usize) -> Vec<Option<&Content>> {
        let mut covered = vec![None; bytes];
        for fill in fills {
            for range in 0..fill.count {
                let first = (fill.offset + range * fill.stride) as usize;
                for byte in &mut covered[first..first + fill.bytes as usize] {
                    assert_eq!(*byte, None, "two fills of one byte");
                    *byte = Some(&fill.content);
                }
            }
        }
        covered
    }

    fn targets() -> Vec<Target> {
        let names = ["cpu-v3", "cpu-v4", "gfx942"];
        names.iter().map(|name| Target::from_name(name).unwrap()).collect()
    }

    /// Fills cover what packing puts there: of a matrix without a zero byte, every byte that is
    /// not zero; of padding nothing but quants, whose scales are zero then.
    #[test]
    fn fills_cover_what_packing_writes() {
        for target in targets() {
            for dtype in DTYPES {
                for (rows, cols) in [(16, 96), (21, 576), (3, 1056), (33, 512), (48, 608)] {
                    let ty = ty(dtype, rows, cols);
                    let size = rows * cols / dtype.block_len() * dtype.block_bytes();
                    // 128 would be zero once the bias of a quant is added.
                    let source: Vec<u8> = (0..size).map(|i| (1 + i * 31 % 127) as u8).collect();
                    let packed = pack_weight("w", &ty, &source, &target).unwrap();
                    let fills = drawn_weight(&ty, &target, 0).unwrap();
                    let covered = covered(&fills, packed.len());
                    for (at, (byte, content)) in packed.iter().zip(covered).enumerate() {
                        let place = format!("{} {ty:?}, byte {at}", target.name());
                        match content {
                            None => assert_eq!(*byte, 0, "{place} is not filled"),
                            Some(Content::Bytes) => {}
                            Some(_) => assert_ne!(*byte, 0, "{place} is padding"),
                        }
                    }
                }
            }
        }
    }

    /// Scales and minima are where packing puts them, and as large as they should be.
    #[test]
    fn scales_are_where_packing_puts_them() {
        for target in targets() {
            let ty = ty(DType::Q4_1, 21, 576);
            let block: Vec<u8> = [0x11, 0x11, 0x22, 0x22].into_iter().chain([0x44; 16]).collect();
            let packed = pack_weight("w", &ty, &block.repeat(21 * 18), &target).unwrap();
            let fills = drawn_weight(&ty, &target, 0).unwrap();
            let drawn = Drawn::new(DType::Q4_1, 576);
            let covered = covered(&fills, packed.len());
            for (at, (byte, content)) in packed.iter().zip(covered).enumerate() {
                let Some(Content::Repeat(repeated)) = content else { continue };
                let found = repeated[at % repeated.len()..][..1].to_vec();
                let of = if *byte == 0x11 { drawn.scale } else { drawn.minimum };
                assert_eq!(found, of[at % 2..][..1], "{} byte {at}", target.name());
            }
            let scale = f16::from_le_bytes(drawn.scale).to_f64();
            assert!((scale * 24.0 * NIBBLE_RMS - 1.0).abs() < 1e-3);
            assert!((f16::from_le_bytes(drawn.minimum).to_f64() / scale + 7.5).abs() < 1e-2);
        }
    }

    /// Columns beyond K stay zero, whatever K is.
    #[test]
    fn odd_columns_are_not_filled_beyond_their_end() {
        for target in targets() {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                for (rows, cols) in [(5, 7), (17, 33), (16, 101)] {
                    let ty = ty(dtype, rows, cols);
                    let source = vec![1; (rows * cols * dtype.block_bytes()) as usize];
                    let packed = pack_weight("w", &ty, &source, &target).unwrap();
                    let fills = drawn_weight(&ty, &target, 0).unwrap();
                    for (byte, content) in packed.iter().zip(covered(&fills, packed.len())) {
                        assert!(content.is_none() || *byte != 0, "{} {ty:?}", target.name());
                    }
                }
            }
        }
    }

    #[test]
    fn scales_of_numbers_follow_from_the_length_of_rows() {
        let exponent = |k| match Drawn::new(DType::BF16, k).values {
            Content::Numbers { exponent, .. } => exponent,
            content => panic!("not numbers: {content:?}"),
        };
        // 2⁻⁵ · 0.44 = 1 / 73, for 1 / 64.
        assert_eq!(exponent(4096), -5);
        assert_eq!(exponent(64), -2);
        assert_eq!(exponent(1), 1);
        assert_eq!(exponent(1 << 40), -10);
    }

    #[test]
    fn given_bytes_are_repeated_where_they_repeat() {
        let mut ones = 1f32.to_le_bytes().repeat(20);
        ones.resize(128, 0);
        let one = Content::Repeat(1f32.to_le_bytes().to_vec());
        assert_eq!(given_weight(&ones, 64), Some(Fill::range(64, 80, one)));
        let other: Vec<u8> = (0..64).collect();
        let given = Content::Repeat(other.clone());
        assert_eq!(given_weight(&other, 0), Some(Fill::range(0, 64, given)));
        let zeros = Content::Repeat(vec![0; 64]);
        assert_eq!(given_weight(&[0; 64], 0), Some(Fill::range(0, 64, zeros)));
        assert_eq!(given_weight(&[], 0), None);
    }
}
