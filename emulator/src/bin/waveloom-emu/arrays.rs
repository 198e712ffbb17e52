//! Arrays in files: `.npy`, and tensors of `.safetensors`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype as Tensor, SafeTensors, TensorView};

/// The type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dtype {
    /// Name on the command line.
    pub name: &'static str,
    /// Bytes.
    pub size: usize,
    /// Name in `.npy` files; NumPy has none for bf16 and fp8 and writes them as opaque bytes.
    npy: &'static str,
    tensor: Tensor,
}

const fn dtype(name: &'static str, size: usize, npy: &'static str, tensor: Tensor) -> Dtype {
    Dtype { name, size, npy, tensor }
}

const DTYPES: [Dtype; 15] = [
    dtype("bool", 1, "|b1", Tensor::BOOL),
    dtype("i8", 1, "|i1", Tensor::I8),
    dtype("u8", 1, "|u1", Tensor::U8),
    dtype("i16", 2, "<i2", Tensor::I16),
    dtype("u16", 2, "<u2", Tensor::U16),
    dtype("i32", 4, "<i4", Tensor::I32),
    dtype("u32", 4, "<u4", Tensor::U32),
    dtype("i64", 8, "<i8", Tensor::I64),
    dtype("u64", 8, "<u8", Tensor::U64),
    dtype("f16", 2, "<f2", Tensor::F16),
    dtype("bf16", 2, "|V2", Tensor::BF16),
    dtype("f32", 4, "<f4", Tensor::F32),
    dtype("f64", 8, "<f8", Tensor::F64),
    dtype("f8e4m3", 1, "|V1", Tensor::F8_E4M3),
    dtype("f8e5m2", 1, "|V1", Tensor::F8_E5M2),
];

impl Dtype {
    /// The type of a name on the command line.
    pub fn parse(name: &str) -> Result<Dtype, String> {
        let found = DTYPES.into_iter().find(|dtype| dtype.name == name);
        let names = DTYPES.map(|dtype| dtype.name).join(", ");
        found.ok_or_else(|| format!("unknown element type `{name}`: it can be {names}"))
    }
}

/// An array in row-major order, little end first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Array {
    /// `f32 4x256`.
    pub fn describe(&self) -> String {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let shape = if shape.is_empty() { "scalar".to_string() } else { shape.join("x") };
        format!("{} {shape}", self.dtype.name)
    }
}

/// Elements times bytes of each; `None` if there is no such number.
pub fn byte_count(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.size, |bytes, extent| bytes.checked_mul(*extent))
}

/// A file, and a tensor in it if it is a `.safetensors` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    pub tensor: Option<String>,
}

impl Place {
    /// `x.npy` or `w.safetensors#name`.
    pub fn parse(text: &str) -> Result<Place, String> {
        let (path, tensor) = match text.rsplit_once(".safetensors#") {
            Some((stem, tensor)) => (format!("{stem}.safetensors"), Some(tensor.to_string())),
            None => (text.to_string(), None),
        };
        if tensor.is_none() && !path.ends_with(".npy") {
            return Err(format!(
                "`{text}` is neither a .npy file nor a tensor, as in weights.safetensors#name"
            ));
        }
        Ok(Place { path: path.into(), tensor })
    }

    /// Reads the array.
    pub fn read(&self) -> Result<Array, String> {
        let bytes = std::fs::read(&self.path).map_err(|error| self.error(error))?;
        match &self.tensor {
            Some(name) => read_tensor(&bytes, name),
            None => read_npy(&bytes),
        }
        .map_err(|error| self.error(error))
    }

    fn error(&self, error: impl std::fmt::Display) -> String {
        format!("{}: {error}", self.path.display())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.tensor.iter().try_for_each(|tensor| write!(f, "#{tensor}"))
    }
}

fn read_tensor(bytes: &[u8], name: &str) -> Result<Array, String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let view = tensors.tensor(name).map_err(|_| {
        let mut names = tensors.names();
        names.sort_unstable();
        format!("no tensor `{name}`; it has {}", names.join(", "))
    })?;
    let dtype = DTYPES.into_iter().find(|dtype| dtype.tensor == view.dtype());
    let dtype = dtype.ok_or_else(|| format!("tensor `{name}` is {:?}", view.dtype()))?;
    Ok(Array { dtype, shape: view.shape().to_vec(), bytes: view.data().to_vec() })
}

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads the format that `numpy.save` writes, versions 1 to 3.
fn read_npy(bytes: &[u8]) -> Result<Array, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a .npy file")?;
    let (length, header_at) = match rest {
        [1, _, a, b, ..] => (u32::from_le_bytes([*a, *b, 0, 0]), 4),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]), 6),
        _ => return Err("a .npy file of an unknown version".to_string()),
    };
    let data_at = header_at + length as usize;
    let header = rest.get(header_at..data_at).ok_or("the .npy header is cut off")?;
    let header = std::str::from_utf8(header).map_err(|_| "the .npy header is no text")?;
    let descr = quoted(header, "descr").ok_or_else(|| bad_header(header))?;
    let dtype = DTYPES.into_iter().find(|dtype| dtype.npy == descr);
    let dtype = dtype.ok_or_else(|| format!("elements of type {descr}, which no kernel reads"))?;
    if value(header, "fortran_order").is_some_and(|order| order.starts_with("True")) {
        return Err("the array is in column-major order: save np.ascontiguousarray of it".into());
    }
    let shape = shape(header).ok_or_else(|| bad_header(header))?;
    let size = byte_count(dtype, &shape).ok_or("the shape is absurd")?;
    let data = rest.get(data_at..).unwrap_or_default();
    if data.len() != size {
        return Err(format!("{} bytes of data, the shape needs {size}", data.len()));
    }
    Ok(Array { dtype, shape, bytes: data.to_vec() })
}

fn bad_header(header: &str) -> String {
    format!("cannot read the .npy header {}", header.trim())
}

/// What follows `'key':` in a Python dictionary.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    Some(rest.trim_start())
}

fn quoted<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let rest = value(header, key)?.strip_prefix('\'')?;
    Some(rest.split_once('\'')?.0)
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let (inner, _) = value(header, "shape")?.strip_prefix('(')?.split_once(')')?;
    let extents = inner.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    extents.map(|extent| extent.parse().ok()).collect()
}

fn write_npy(array: &Array) -> Vec<u8> {
    let extents: String = array.shape.iter().map(|extent| format!("{extent}, ")).collect();
    let descr = array.dtype.npy;
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
    // The data begin at a multiple of 64; the header ends with a line feed.
    while !(MAGIC.len() + 4 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(&array.bytes);
    bytes
}

/// Writes arrays, each file once and as a whole. Other tensors of a `.safetensors` file are kept.
pub fn write_all(arrays: &[(Place, Array)]) -> Result<(), String> {
    let mut files: BTreeMap<&Path, Vec<(&Place, &Array)>> = BTreeMap::new();
    for (place, array) in arrays {
        files.entry(&place.path).or_default().push((place, array));
    }
    for (path, arrays) in files {
        let bytes = match arrays[0].0.tensor {
            None => write_npy(arrays[arrays.len() - 1].1),
            Some(_) => merge(path, &arrays)?,
        };
        let part = path.with_extension("part");
        std::fs::write(&part, bytes)
            .and_then(|()| std::fs::rename(&part, path))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn merge(path: &Path, arrays: &[(&Place, &Array)]) -> Result<Vec<u8>, String> {
    let error = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let old = if path.exists() { std::fs::read(path).map_err(|e| error(&e))? } else { Vec::new() };
    let mut tensors = BTreeMap::new();
    if !old.is_empty() {
        let parsed = SafeTensors::deserialize(&old).map_err(|e| error(&e))?;
        tensors.extend(parsed.tensors());
    }
    for (place, array) in arrays {
        let name = place.tensor.clone().unwrap_or_default();
        let view = TensorView::new(array.dtype.tensor, array.shape.clone(), &array.bytes)
            .map_err(|e| error(&e))?;
        tensors.insert(name, view);
    }
    safetensors::serialize(tensors, None).map_err(|e| error(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_is_what_numpy_writes() {
        // Bytes of `np.save(f, np.array([[1, 2, 3]], dtype=np.int16))`, NumPy 1.24.
        let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        let text = "{'descr': '<i2', 'fortran_order': False, 'shape': (1, 3), }";
        file.extend(format!("{text:<117}\n").as_bytes());
        file.extend([1, 0, 2, 0, 3, 0]);
        let array = read_npy(&file).expect("a good file");
        assert_eq!((array.describe().as_str(), array.bytes.len()), ("i16 1x3", 6));
        let again = read_npy(&write_npy(&array)).expect("our own file");
        assert_eq!(again, array);
    }

    #[test]
    fn broken_npy_files_are_errors() {
        let good = write_npy(&Array {
            dtype: Dtype::parse("f32").expect("a type"),
            shape: vec![2],
            bytes: vec![0; 8],
        });
        for length in 0..good.len() {
            assert!(read_npy(&good[..length]).is_err(), "{length} bytes");
        }
        let absurd = String::from_utf8_lossy(&good[10..128])
            .replace("(2, )", "(99999999999, 99999999999, )");
        let mut file = good[..10].to_vec();
        file[8] = absurd.len() as u8;
        file.extend(absurd.as_bytes());
        assert_eq!(read_npy(&file), Err("the shape is absurd".to_string()));
    }

    #[test]
    fn places_name_files_and_tensors() {
        let place = Place::parse("a/w.safetensors#model.x").expect("a place");
        assert_eq!(place.tensor.as_deref(), Some("model.x"));
        assert_eq!(place.to_string(), "a/w.safetensors#model.x");
        assert!(Place::parse("x.txt").is_err());
    }
}
