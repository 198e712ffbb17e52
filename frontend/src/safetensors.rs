//! The header of a safetensors file: eight bytes of length, JSON, then the tensors.

use crate::checkpoint::{Tensor, tensor_bytes};
use crate::error::{ImportError, Result};
use crate::mapped::MappedFile;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use waveloom_ir::DType;

/// Dtypes that models are read in.
pub(crate) const KNOWN_DTYPES: &[&str] = &["F32", "F16", "BF16"];

/// The longest header that the reference implementation accepts.
const MAX_HEADER: u64 = 100_000_000;

/// One entry of the header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The tensors of `file`, which is file number `index` of the checkpoint.
pub(crate) fn read(file: &MappedFile, index: usize) -> Result<HashMap<String, Tensor>> {
    let fail = |problem: String| ImportError::malformed(file.path(), problem);
    let (header, data_start) = header(file).map_err(fail)?;
    let entries: HashMap<String, Value> = serde_json::from_slice(header)
        .map_err(|error| fail(format!("the header is not that of safetensors: {error}")))?;
    let mut tensors = HashMap::with_capacity(entries.len());
    for (name, entry) in entries {
        if name == "__metadata__" {
            continue;
        }
        let tensor = serde_json::from_value(entry)
            .map_err(|error| error.to_string())
            .and_then(|entry| tensor(entry, index, data_start, file.len()))
            .map_err(|problem| fail(format!("tensor `{name}`: {problem}")))?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// The JSON, and where the data starts.
fn header(file: &[u8]) -> std::result::Result<(&[u8], usize), String> {
    let (length, rest) =
        file.split_first_chunk::<8>().ok_or("shorter than the 8 bytes of a header's length")?;
    let length = u64::from_le_bytes(*length);
    let fits = length <= MAX_HEADER && length <= rest.len() as u64;
    if !fits {
        let size = file.len();
        return Err(format!("the header claims {length} bytes, the file has {size}"));
    }
    let length = length as usize;
    Ok((&rest[..length], length + 8))
}

fn tensor(
    entry: Entry,
    file: usize,
    data_start: usize,
    file_len: usize,
) -> std::result::Result<Tensor, String> {
    let Entry { dtype, shape, data_offsets: (begin, end) } = entry;
    let data_len = (file_len - data_start) as u64;
    if begin > end || end > data_len {
        return Err(format!("bytes {begin}..{end} are not within the {data_len} bytes of data"));
    }
    let dtype = match dtype.as_str() {
        "F32" => Ok(DType::F32),
        "F16" => Ok(DType::F16),
        "BF16" => Ok(DType::BF16),
        _ => Err(dtype),
    };
    if let Ok(dtype) = dtype
        && tensor_bytes(dtype, &shape) != Some(end - begin)
    {
        let bytes = end - begin;
        return Err(format!("{bytes} bytes do not hold {dtype}{shape:?}"));
    }
    Ok(Tensor { dtype, shape, file, range: data_start + begin as usize..data_start + end as usize })
}
