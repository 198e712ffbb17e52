//! Stored forms of real numbers: reading, writing, and conversion from one to another.
//!
//! Plain forms are little-endian. Block forms have the layouts of ggml (`ggml-common.h`,
//! `ggml-quants.c`), and are written as its reference quantizers write them. Forms that ggml
//! makes with a search (q4_k, q5_k, q6_k) and q5_0, q5_1 are read only.

mod blocks;
mod float8;

pub use float8::{f8e4m3_to_f32, f8e4m3fnuz_to_f32, round_to_f8e4m3, round_to_f8e4m3fnuz};

use crate::module::Weight;
use crate::types::{DType, Dim, Type};
use crate::weights::Weights;
use half::{bf16, f16};
use std::borrow::Cow;
use thiserror::Error;

/// Why stored numbers cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The dtype holds integers or flags.
    #[error("{dtype} does not store real numbers")]
    NotReal {
        /// The dtype.
        dtype: DType,
    },
    /// No writer for this form.
    #[error("cannot write {dtype}; the forms that can be written are {}", writable())]
    NotWritable {
        /// The dtype asked for.
        dtype: DType,
    },
    /// The bytes are not as many as the elements take.
    #[error("{elements} elements of {dtype} do not take {bytes} bytes")]
    Length {
        /// Form of the bytes.
        dtype: DType,
        /// Elements that were expected.
        elements: usize,
        /// Bytes that were found.
        bytes: usize,
    },
    /// Values do not fill whole blocks.
    #[error("rows of {row_len} elements are not whole blocks of {dtype} ({})", dtype.block_len())]
    RowLength {
        /// Block form.
        dtype: DType,
        /// Elements in a row.
        row_len: usize,
    },
    /// The source has no such weight.
    #[error("the model has no weight `{name}`")]
    Missing {
        /// The weight.
        name: String,
    },
    /// The source's bytes are not what the declaration says.
    #[error("weight `{name}` is declared to take {expected} bytes as {dtype}, found {found}")]
    WeightLength {
        /// The weight.
        name: String,
        /// Declared form.
        dtype: DType,
        /// Declared size in bytes.
        expected: u64,
        /// Size found.
        found: usize,
    },
    /// The declared type has no size.
    #[error(
        "weight `{name}` has no fixed size: a symbolic extent, or rows that are not whole blocks"
    )]
    WeightShape {
        /// The weight.
        name: String,
    },
    /// The source's form cannot be converted to the declared one.
    #[error("weight `{name}`: {source}")]
    WeightConversion {
        /// The weight.
        name: String,
        /// What is wrong.
        source: Box<StorageError>,
    },
}

/// Whether [`quantize`] writes the form.
pub const fn is_writable(dtype: DType) -> bool {
    match dtype {
        DType::F32
        | DType::F16
        | DType::BF16
        | DType::F8E4M3
        | DType::F8E4M3FNUZ
        | DType::Q8_0
        | DType::Q4_0
        | DType::Q4_1 => true,
        DType::I32
        | DType::I8
        | DType::U8
        | DType::Bool
        | DType::Q5_0
        | DType::Q5_1
        | DType::Q4_K
        | DType::Q5_K
        | DType::Q6_K => false,
    }
}

/// Whether [`convert`] can turn bytes of one form into the other.
pub fn is_convertible(from: DType, to: DType) -> bool {
    from == to || from.is_stored_real() && is_writable(to)
}

fn writable() -> String {
    let names: Vec<&str> =
        DType::ALL.iter().filter(|dtype| is_writable(**dtype)).map(|dtype| dtype.name()).collect();
    names.join(", ")
}

/// Reads `out.len()` real numbers. The bytes must be exactly as long as those take.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), StorageError> {
    if element_count(dtype, bytes.len()) != Some(out.len()) {
        return Err(StorageError::Length { dtype, elements: out.len(), bytes: bytes.len() });
    }
    match dtype {
        DType::F32 => each(bytes, out, |b| f32::from_le_bytes(*b)),
        DType::F16 => read_f16(bytes, out),
        DType::BF16 => each(bytes, out, |b| bf16::from_le_bytes(*b).to_f32()),
        DType::F8E4M3 => each(bytes, out, |[b]| f8e4m3_to_f32(*b)),
        DType::F8E4M3FNUZ => each(bytes, out, |[b]| f8e4m3fnuz_to_f32(*b)),
        DType::Q8_0 => each_block(bytes, out, blocks::read_q8_0),
        DType::Q4_0 => each_block(bytes, out, blocks::read_q4_0),
        DType::Q4_1 => each_block(bytes, out, blocks::read_q4_1),
        DType::Q5_0 => each_block(bytes, out, blocks::read_q5_0),
        DType::Q5_1 => each_block(bytes, out, blocks::read_q5_1),
        DType::Q4_K => each_block(bytes, out, blocks::read_q4_k),
        DType::Q5_K => each_block(bytes, out, blocks::read_q5_k),
        DType::Q6_K => each_block(bytes, out, blocks::read_q6_k),
        DType::I32 | DType::I8 | DType::U8 | DType::Bool => {
            return Err(StorageError::NotReal { dtype });
        }
    }
    Ok(())
}

/// Writes rows of `row_len` numbers each. Plain forms round to nearest even; the 8-bit floats
/// saturate. A row must be whole blocks, and the values whole rows.
pub fn quantize(dtype: DType, values: &[f32], row_len: usize) -> Result<Vec<u8>, StorageError> {
    let whole_blocks = (row_len as u64).is_multiple_of(dtype.block_len());
    let whole_rows = values.is_empty() || row_len > 0 && values.len().is_multiple_of(row_len);
    if !(whole_blocks && whole_rows) {
        return Err(StorageError::RowLength { dtype, row_len });
    }
    let blocks = values.len() / dtype.block_len() as usize;
    let mut out = Vec::with_capacity(blocks * dtype.block_bytes() as usize);
    write(dtype, values, &mut out)?;
    Ok(out)
}

/// Appends whole blocks.
fn write(dtype: DType, values: &[f32], out: &mut Vec<u8>) -> Result<(), StorageError> {
    match dtype {
        DType::F32 => values.iter().for_each(|x| out.extend(x.to_le_bytes())),
        DType::F16 => values.iter().for_each(|x| out.extend(f16::from_f32(*x).to_le_bytes())),
        DType::BF16 => values.iter().for_each(|x| out.extend(bf16::from_f32(*x).to_le_bytes())),
        DType::F8E4M3 => out.extend(values.iter().map(|x| round_to_f8e4m3(f64::from(*x)))),
        DType::F8E4M3FNUZ => out.extend(values.iter().map(|x| round_to_f8e4m3fnuz(f64::from(*x)))),
        DType::Q8_0 => write_blocks(values, out, blocks::write_q8_0),
        DType::Q4_0 => write_blocks(values, out, blocks::write_q4_0),
        DType::Q4_1 => write_blocks(values, out, blocks::write_q4_1),
        DType::Q5_0 | DType::Q5_1 | DType::Q4_K | DType::Q5_K | DType::Q6_K => {
            return Err(StorageError::NotWritable { dtype });
        }
        DType::I32 | DType::I8 | DType::U8 | DType::Bool => {
            return Err(StorageError::NotReal { dtype });
        }
    }
    Ok(())
}

/// Bytes of one form as bytes of another; the same bytes where the forms are equal.
///
/// `q4_k` to `q4_1` keeps every quant and rounds each sub-block's scale and minimum to f16;
/// all else goes through f32. Blocks must not straddle rows; the caller knows the row length.
pub fn convert(from: DType, to: DType, bytes: &[u8]) -> Result<Cow<'_, [u8]>, StorageError> {
    if from == to {
        return Ok(Cow::Borrowed(bytes));
    }
    for dtype in [from, to] {
        if !dtype.is_stored_real() {
            return Err(StorageError::NotReal { dtype });
        }
    }
    let elements = element_count(from, bytes.len()).ok_or(StorageError::Length {
        dtype: from,
        elements: bytes.len() / from.block_bytes() as usize * from.block_len() as usize,
        bytes: bytes.len(),
    })?;
    if !(elements as u64).is_multiple_of(to.block_len()) {
        return Err(StorageError::RowLength { dtype: to, row_len: elements });
    }
    let mut out =
        Vec::with_capacity(elements / to.block_len() as usize * to.block_bytes() as usize);
    match (from, to) {
        (DType::Q4_K, DType::Q4_1) => {
            let (blocks, _) = bytes.as_chunks();
            blocks.iter().for_each(|block| out.extend(blocks::q4_k_to_q4_1(block).as_flattened()));
        }
        _ => convert_through_f32(from, to, bytes, &mut out)?,
    }
    Ok(Cow::Owned(out))
}

fn convert_through_f32(
    from: DType,
    to: DType,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), StorageError> {
    /// Elements at a time: whole blocks of every form, and small enough for the L1 cache.
    const STEP: usize = 2048;
    let mut values = [0f32; STEP];
    let step_bytes = STEP / from.block_len() as usize * from.block_bytes() as usize;
    for part in bytes.chunks(step_bytes) {
        let elements = part.len() / from.block_bytes() as usize * from.block_len() as usize;
        let values = &mut values[..elements];
        dequantize(from, part, values)?;
        write(to, values, out)?;
    }
    Ok(())
}

/// The bytes of a weight in the dtype that its declaration uses: fetched, checked against the
/// declared size, converted where it is stored otherwise.
pub fn weight_bytes<'w>(
    weight: &Weight,
    source: &'w dyn Weights,
) -> Result<Cow<'w, [u8]>, StorageError> {
    let name = || weight.name.clone();
    let expected = size(&Type::new(weight.stored, weight.ty.shape.clone()))
        .filter(|_| size(&weight.ty).is_some())
        .ok_or_else(|| StorageError::WeightShape { name: name() })?;
    let bytes = source.bytes(&weight.name).ok_or_else(|| StorageError::Missing { name: name() })?;
    if bytes.len() as u64 != expected {
        let (dtype, found) = (weight.stored, bytes.len());
        return Err(StorageError::WeightLength { name: name(), dtype, expected, found });
    }
    if weight.stored == weight.ty.dtype {
        return Ok(bytes);
    }
    let converted = convert(weight.stored, weight.ty.dtype, &bytes)
        .map_err(|e| StorageError::WeightConversion { name: name(), source: Box::new(e) })?;
    Ok(Cow::Owned(converted.into_owned()))
}

/// Bytes of a type without symbols.
fn size(ty: &Type) -> Option<u64> {
    let constant = ty.shape.iter().all(|dim| matches!(dim, Dim::Const(_)));
    let extent = |dim| match dim {
        Dim::Const(extent) => extent,
        Dim::Symbol(_) => 0,
    };
    ty.bytes(extent).filter(|_| constant)
}

/// Elements that `bytes` bytes hold; `None` where they end within a block.
fn element_count(dtype: DType, bytes: usize) -> Option<usize> {
    let blocks = bytes / dtype.block_bytes() as usize;
    let whole = bytes.is_multiple_of(dtype.block_bytes() as usize);
    blocks.checked_mul(dtype.block_len() as usize).filter(|_| whole)
}

/// Reads elements of `N` bytes.
fn each<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn(&[u8; N]) -> f32) {
    for (bytes, x) in bytes.as_chunks().0.iter().zip(out) {
        *x = read(bytes);
    }
}

/// Reads f16 in groups, for which `half` has vector instructions.
fn read_f16(bytes: &[u8], out: &mut [f32]) {
    use half::slice::HalfFloatSliceExt;
    const GROUP: usize = 64;
    let mut halves = [f16::ZERO; GROUP];
    for (bytes, out) in bytes.chunks(2 * GROUP).zip(out.chunks_mut(GROUP)) {
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves[..out.len()].convert_to_f32_slice(out);
    }
}

fn each_block<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    read: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, values) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        read(block, values);
    }
}

fn write_blocks<const BYTES: usize, const LEN: usize>(
    values: &[f32],
    out: &mut Vec<u8>,
    write: impl Fn(&[f32; LEN]) -> [u8; BYTES],
) {
    values.as_chunks().0.iter().for_each(|values| out.extend(write(values)));
}

#[cfg(test)]
mod tests;
