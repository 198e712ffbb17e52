//! Every form against the `gguf` and torch packages (`tests/fixtures/storage/make.py`).

use super::*;
use crate::types::Shape;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/fixtures/storage/", $name)).as_slice()
    };
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / 4];
    dequantize(DType::F32, bytes, &mut out).unwrap();
    out
}

fn read(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; element_count(dtype, bytes.len()).unwrap()];
    dequantize(dtype, bytes, &mut out).unwrap();
    out
}

#[test]
fn block_forms_read_as_gguf_reads_them() {
    for (dtype, stored, expected) in [
        (DType::Q8_0, fixture!("q8_0.bin"), fixture!("q8_0.f32")),
        (DType::Q4_0, fixture!("q4_0.bin"), fixture!("q4_0.f32")),
        (DType::Q4_1, fixture!("q4_1.bin"), fixture!("q4_1.f32")),
        (DType::Q5_0, fixture!("q5_0.bin"), fixture!("q5_0.f32")),
        (DType::Q5_1, fixture!("q5_1.bin"), fixture!("q5_1.f32")),
        (DType::Q4_K, fixture!("q4_k.bin"), fixture!("q4_k.f32")),
        (DType::Q5_K, fixture!("q5_k.bin"), fixture!("q5_k.f32")),
        (DType::Q6_K, fixture!("q6_k.bin"), fixture!("q6_k.f32")),
    ] {
        assert_eq!(read(dtype, stored), floats(expected), "{dtype}");
    }
}

#[test]
fn eight_bit_floats_read_as_torch_reads_them() {
    let codes: Vec<u8> = (0..=255).collect();
    for (dtype, expected) in
        [(DType::F8E4M3, fixture!("f8e4m3.f32")), (DType::F8E4M3FNUZ, fixture!("f8e4m3fnuz.f32"))]
    {
        for (code, (x, y)) in read(dtype, &codes).iter().zip(floats(expected)).enumerate() {
            let same = x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
            assert!(same, "{dtype} {code:#x}: {x} for {y}");
        }
    }
}

#[test]
fn forms_are_written_as_gguf_and_torch_write_them() {
    let values = floats(fixture!("values.f32"));
    for (dtype, expected) in [
        (DType::F32, fixture!("values.f32")),
        (DType::F16, fixture!("written.f16.bin")),
        (DType::BF16, fixture!("written.bf16.bin")),
        (DType::F8E4M3, fixture!("written.f8e4m3.bin")),
        (DType::F8E4M3FNUZ, fixture!("written.f8e4m3fnuz.bin")),
        (DType::Q8_0, fixture!("written.q8_0.bin")),
        (DType::Q4_0, fixture!("written.q4_0.bin")),
        (DType::Q4_1, fixture!("written.q4_1.bin")),
    ] {
        assert_eq!(quantize(dtype, &values, 32).unwrap(), expected, "{dtype}");
        let converted = convert(DType::F32, dtype, fixture!("values.f32")).unwrap();
        assert_eq!(converted, expected, "{dtype}");
    }
}

#[test]
fn eight_bit_floats_round_to_even_and_saturate() {
    // 17 lies between 16 and 18, whose codes are 0x58 (even) and 0x59.
    assert_eq!(round_to_f8e4m3(17.0), 0x58);
    assert_eq!(round_to_f8e4m3(19.0), 0x5a);
    assert_eq!(round_to_f8e4m3(f64::INFINITY), 0x7e);
    assert_eq!(round_to_f8e4m3(-1e9), 0xfe);
    assert_eq!(round_to_f8e4m3(-0.0), 0x80);
    assert_eq!(round_to_f8e4m3fnuz(-0.0), 0);
    assert_eq!(f8e4m3fnuz_to_f32(round_to_f8e4m3fnuz(1e9)), 240.0);
    assert_eq!(round_to_f8e4m3fnuz(f64::NAN), 0x80);
}

#[test]
fn q4_k_to_q4_1_keeps_the_quants() {
    let stored = fixture!("q4_k.bin");
    let converted = convert(DType::Q4_K, DType::Q4_1, stored).unwrap();
    let (before, after) = (read(DType::Q4_K, stored), read(DType::Q4_1, &converted));
    for (i, (x, y)) in before.iter().zip(&after).enumerate() {
        // Only scale and minimum are rounded, each by at most 2^-11 of itself: with |d·sc| below
        // 63 · 0.5 and |dmin·m| likewise, 15 quants and one minimum err by at most 16 · 31.5 · 2^-11.
        assert!((x - y).abs() <= 16.0 * 31.5 / 2048.0, "{i}: {x} became {y}");
    }
    let quants = |dtype: DType, header: usize, bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes
            .chunks(dtype.block_bytes() as usize)
            .map(|block| block[header..].iter().flat_map(|b| [b & 15, b >> 4]).collect())
            .collect()
    };
    let histogram = |blocks: Vec<Vec<u8>>| {
        blocks.concat().iter().fold([0usize; 16], |mut count, q| {
            count[usize::from(*q)] += 1;
            count
        })
    };
    assert_eq!(
        histogram(quants(DType::Q4_K, 16, stored)),
        histogram(quants(DType::Q4_1, 4, &converted))
    );
}

#[test]
fn conversion_needs_whole_blocks() {
    assert_eq!(
        convert(DType::F32, DType::Q8_0, &[0; 4 * 31]),
        Err(StorageError::RowLength { dtype: DType::Q8_0, row_len: 31 })
    );
    insta::assert_snapshot!(
        convert(DType::F16, DType::F32, &[0; 3]).unwrap_err(),
        @"1 elements of f16 do not take 3 bytes"
    );
    insta::assert_snapshot!(
        convert(DType::F32, DType::Q6_K, &[0; 1024]).unwrap_err(),
        @"cannot write q6_k; the forms that can be written are f32, f16, bf16, f8e4m3, f8e4m3fnuz, q8_0, q4_0, q4_1"
    );
    insta::assert_snapshot!(
        convert(DType::I32, DType::F32, &[0; 4]).unwrap_err(),
        @"i32 does not store real numbers"
    );
    insta::assert_snapshot!(
        quantize(DType::Q4_0, &[0.0; 48], 48).unwrap_err(),
        @"rows of 48 elements are not whole blocks of q4_0 (32)"
    );
}

struct One(Vec<u8>);

impl Weights for One {
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        (name == "w").then_some(Cow::Borrowed(&self.0))
    }
}

fn declared(name: &str, stored: DType, ty: Type) -> Weight {
    Weight { name: name.into(), ty, stored, digest: None }
}

#[test]
fn weights_are_checked_and_converted() {
    let source = One(fixture!("written.bf16.bin").to_vec());
    let shape: Shape = vec![Dim::Const(4), Dim::Const(32)];
    let same = declared("w", DType::BF16, Type::new(DType::BF16, shape.clone()));
    assert!(matches!(weight_bytes(&same, &source), Ok(Cow::Borrowed(b)) if b == source.0));

    let wide = declared("w", DType::BF16, Type::f32(shape.clone()));
    let bytes = weight_bytes(&wide, &source).unwrap();
    assert_eq!(floats(&bytes), read(DType::BF16, &source.0));

    let absent = declared("v", DType::BF16, Type::f32(shape.clone()));
    insta::assert_snapshot!(weight_bytes(&absent, &source).unwrap_err(), @"the model has no weight `v`");
    let longer = declared("w", DType::F16, Type::f32([Dim::Const(5), Dim::Const(32)]));
    insta::assert_snapshot!(
        weight_bytes(&longer, &source).unwrap_err(),
        @"weight `w` is declared to take 320 bytes as f16, found 256"
    );
    let ragged =
        declared("w", DType::BF16, Type::new(DType::Q8_0, [Dim::Const(8), Dim::Const(16)]));
    insta::assert_snapshot!(
        weight_bytes(&ragged, &source).unwrap_err(),
        @"weight `w` has no fixed size: a symbolic extent, or rows that are not whole blocks"
    );
    let unwritable = declared("w", DType::BF16, Type::new(DType::I32, shape));
    insta::assert_snapshot!(
        weight_bytes(&unwritable, &source).unwrap_err(),
        @"weight `w`: i32 does not store real numbers"
    );
}
