//! The GGUF container: metadata and tensor descriptions, every count and offset checked against the
//! file before it is believed.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3.

use crate::checkpoint::{Tensor, tensor_bytes};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use waveloom_ir::DType;

/// ggml's types by number, and the dtype of those that are read here.
const GGML_TYPES: &[(u32, &str, Option<DType>)] = &[
    (0, "F32", Some(DType::F32)),
    (1, "F16", Some(DType::F16)),
    (2, "Q4_0", Some(DType::Q4_0)),
    (3, "Q4_1", Some(DType::Q4_1)),
    (6, "Q5_0", Some(DType::Q5_0)),
    (7, "Q5_1", Some(DType::Q5_1)),
    (8, "Q8_0", Some(DType::Q8_0)),
    (9, "Q8_1", None),
    (10, "Q2_K", None),
    (11, "Q3_K", None),
    (12, "Q4_K", Some(DType::Q4_K)),
    (13, "Q5_K", Some(DType::Q5_K)),
    (14, "Q6_K", Some(DType::Q6_K)),
    (15, "Q8_K", None),
    (16, "IQ2_XXS", None),
    (17, "IQ2_XS", None),
    (18, "IQ3_XXS", None),
    (19, "IQ1_S", None),
    (20, "IQ4_NL", None),
    (21, "IQ3_S", None),
    (22, "IQ2_S", None),
    (23, "IQ4_XS", None),
    (24, "I8", None),
    (25, "I16", None),
    (26, "I32", None),
    (27, "I64", None),
    (28, "F64", None),
    (29, "IQ1_M", None),
    (30, "BF16", Some(DType::BF16)),
    (34, "TQ1_0", None),
    (35, "TQ2_0", None),
    (39, "MXFP4", None),
];

/// Names of the types that are read here.
pub(crate) const KNOWN_DTYPES: &[&str] =
    &["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"];

/// A value of the metadata. Numbers of all widths are widened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// An unsigned or signed integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Str(&'a str),
    /// An array; its items are not arrays.
    Array(Vec<Value<'a>>),
}

/// A parsed file.
pub(crate) struct Gguf<'a> {
    /// Metadata by key.
    pub metadata: HashMap<&'a str, Value<'a>>,
    /// Tensors by name.
    pub tensors: HashMap<String, Tensor>,
}

/// What is wrong with a file, and where in it.
type Parse<T> = Result<T, String>;

/// Parses the bytes of a file.
pub(crate) fn parse(bytes: &[u8]) -> Parse<Gguf<'_>> {
    let mut cursor = Cursor { bytes, at: 0 };
    let (tensor_count, metadata_count) = preamble(&mut cursor)?;
    let metadata = metadata(&mut cursor, metadata_count)?;
    let tensors = tensors(&mut cursor, tensor_count, alignment(&metadata)?)?;
    Ok(Gguf { metadata, tensors })
}

/// Magic, version, counts of tensors and metadata.
fn preamble(cursor: &mut Cursor) -> Parse<(u64, u64)> {
    if cursor.array::<4>("the magic number")? != *b"GGUF" {
        return Err("does not begin with `GGUF`".into());
    }
    match cursor.u32("the version")? {
        2 | 3 => {}
        1 => return Err("GGUF version 1 is not read; convert the model again".into()),
        version if version.swap_bytes() <= 3 => {
            return Err("the file is big-endian; convert it to little-endian".into());
        }
        version => return Err(format!("unknown GGUF version {version}; known: 2, 3")),
    }
    let tensors = cursor.u64("the number of tensors")?;
    let metadata = cursor.u64("the number of metadata entries")?;
    // The smallest entry: an empty name (8), one dimension (4 + 8), type and offset (4 + 8).
    cursor.check_count(tensors, 32, "tensors")?;
    // The smallest entry: an empty key (8), a type (4), a byte.
    cursor.check_count(metadata, 13, "metadata entries")?;
    Ok((tensors, metadata))
}

fn metadata<'a>(cursor: &mut Cursor<'a>, count: u64) -> Parse<HashMap<&'a str, Value<'a>>> {
    let mut metadata = HashMap::with_capacity(count as usize);
    for _ in 0..count {
        let key = cursor.str("a metadata key")?;
        let kind = cursor.u32(key)?;
        let value = cursor.value(kind, key)?;
        match metadata.entry(key) {
            Entry::Vacant(entry) => entry.insert(value),
            Entry::Occupied(_) => return Err(format!("metadata `{key}` is there twice")),
        };
    }
    Ok(metadata)
}

fn alignment(metadata: &HashMap<&str, Value>) -> Parse<u64> {
    match metadata.get("general.alignment") {
        None => Ok(32),
        Some(Value::Int(n @ 1..=0x1000_0000)) if n.count_ones() == 1 => Ok(*n as u64),
        Some(_) => Err("metadata `general.alignment` is not a power of two".into()),
    }
}

/// Everything of a tensor's description but its name.
struct Description {
    kind: u32,
    shape: Vec<u64>,
    offset: u64,
}

fn tensors(cursor: &mut Cursor, count: u64, alignment: u64) -> Parse<HashMap<String, Tensor>> {
    let mut described = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let name = cursor.str("a tensor's name")?;
        described.push((name, cursor.description(name)?));
    }
    let file_len = cursor.bytes.len() as u64;
    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    let mut tensors = HashMap::with_capacity(described.len());
    for (name, description) in described {
        let tensor = description
            .tensor(data_start, alignment, file_len)
            .map_err(|problem| format!("tensor `{name}`: {problem}"))?;
        if tensors.insert(name.to_string(), tensor).is_some() {
            return Err(format!("tensor `{name}` is there twice"));
        }
    }
    Ok(tensors)
}

impl Description {
    fn tensor(self, data_start: u64, alignment: u64, file_len: u64) -> Parse<Tensor> {
        let Description { kind, shape, offset } = self;
        if offset % alignment != 0 {
            return Err(format!(
                "its offset {offset} is not a multiple of the alignment {alignment}"
            ));
        }
        let dtype = match GGML_TYPES.iter().find(|(number, ..)| *number == kind) {
            Some((.., Some(dtype))) => Ok(*dtype),
            Some((_, name, None)) => Err(name.to_string()),
            None => Err(format!("ggml type {kind}")),
        };
        let bytes = match &dtype {
            Ok(dtype) => tensor_bytes(*dtype, &shape)
                .ok_or_else(|| format!("{shape:?} is not a shape of {dtype}"))?,
            // Its size is not known; whoever uses it gets an error that names the type.
            Err(_) => 0,
        };
        let begin = data_start.checked_add(offset);
        let end = begin.and_then(|begin| begin.checked_add(bytes));
        match (begin, end) {
            (Some(begin), Some(end)) if end <= file_len => {
                Ok(Tensor { dtype, shape, file: 0, range: begin as usize..end as usize })
            }
            _ => Err(format!(
                "its {bytes} bytes at offset {offset} reach past the end of the file \
                 ({file_len} bytes); is the file complete?"
            )),
        }
    }
}

/// Reads little-endian values; whatever would reach past the end is an error that names what was
/// being read.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn past_end(&self, what: &str) -> String {
        let at = self.at;
        format!("ends within {what}, at byte {at}; is the file complete?")
    }

    fn take(&mut self, count: u64, what: &str) -> Parse<&'a [u8]> {
        let rest = self.rest();
        if count > rest.len() as u64 {
            return Err(self.past_end(what));
        }
        let taken = &rest[..count as usize];
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Parse<[u8; N]> {
        let Some((taken, _)) = self.rest().split_first_chunk::<N>() else {
            return Err(self.past_end(what));
        };
        self.at += N;
        Ok(*taken)
    }

    fn u32(&mut self, what: &str) -> Parse<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Parse<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Whether `count` things of at least `smallest` bytes can follow; asked before memory is taken
    /// for them.
    fn check_count(&self, count: u64, smallest: u64, what: &str) -> Parse<()> {
        let (at, rest) = (self.at, self.rest().len() as u64);
        if count > rest / smallest {
            return Err(format!(
                "claims {count} {what}, more than the {rest} bytes after byte {at} can hold"
            ));
        }
        Ok(())
    }

    fn str(&mut self, what: &str) -> Parse<&'a str> {
        let length = self.u64(what)?;
        let at = self.at;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|_| format!("{what} at byte {at} is not UTF-8"))
    }

    /// A metadata value of a type by its number.
    fn value(&mut self, kind: u32, key: &str) -> Parse<Value<'a>> {
        match kind {
            9 => self.array_value(key),
            _ => self.scalar(kind, key),
        }
    }

    fn scalar(&mut self, kind: u32, key: &str) -> Parse<Value<'a>> {
        Ok(match kind {
            0 => Value::Int(u8::from_le_bytes(self.array(key)?).into()),
            1 => Value::Int(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array(key)?).into()),
            4 => Value::Int(u32::from_le_bytes(self.array(key)?).into()),
            5 => Value::Int(i32::from_le_bytes(self.array(key)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            7 => Value::Bool(self.array::<1>(key)? != [0]),
            8 => Value::Str(self.str(key)?),
            10 => Value::Int(u64::from_le_bytes(self.array(key)?).into()),
            11 => Value::Int(i64::from_le_bytes(self.array(key)?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            _ => return Err(format!("metadata `{key}` has unknown value type {kind}")),
        })
    }

    fn array_value(&mut self, key: &str) -> Parse<Value<'a>> {
        let kind = self.u32(key)?;
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(format!("metadata `{key}` is an array of arrays")),
            _ => return Err(format!("metadata `{key}` has unknown item type {kind}")),
        };
        let count = self.u64(key)?;
        self.check_count(count, smallest, &format!("items of `{key}`"))?;
        let items = (0..count).map(|_| self.scalar(kind, key));
        Ok(Value::Array(items.collect::<Parse<_>>()?))
    }

    fn description(&mut self, name: &str) -> Parse<Description> {
        let dimensions = self.u32(name)?;
        if !(1..=4).contains(&dimensions) {
            return Err(format!(
                "tensor `{name}` has {dimensions} dimensions; 1 to 4 are possible"
            ));
        }
        let mut shape = (0..dimensions).map(|_| self.u64(name)).collect::<Parse<Vec<u64>>>()?;
        // The file has the contiguous dimension first.
        shape.reverse();
        Ok(Description { kind: self.u32(name)?, shape, offset: self.u64(name)? })
    }
}
