//! The tensors of a model's files, whatever their format, and the weights that a module names.

use crate::error::{ImportError, Result};
use crate::mapped::MappedFile;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use waveloom_ir::{DType, Weights};

/// A tensor as a file declares it. `range` is checked against the file's length, and against shape and
/// dtype where the dtype is known.
pub(crate) struct Tensor {
    /// Element type, or the format's name for one that is not known here.
    pub dtype: std::result::Result<DType, String>,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// Index of the file.
    pub file: usize,
    /// Bytes in the file.
    pub range: Range<usize>,
}

/// The order of the rows of q and k projections in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RopeRows {
    /// Element i of a head pairs with element i + head_dim / 2, as in Hugging Face checkpoints.
    Halves,
    /// Element 2i pairs with 2i + 1, as llama.cpp stores models of architecture `llama`.
    Pairs,
}

/// All tensors of a model.
pub(crate) struct Checkpoint {
    /// Where a missing tensor should have been.
    pub path: PathBuf,
    /// The mapped files.
    pub files: Vec<MappedFile>,
    /// Tensors by their name in the files.
    pub tensors: HashMap<String, Tensor>,
    /// Names of the dtypes that the format can give us.
    pub known_dtypes: &'static [&'static str],
    /// How the rows of q and k are ordered.
    pub rope_rows: RopeRows,
}

impl Checkpoint {
    /// The tensor `name`, which must be there with exactly this shape and a known dtype.
    pub(crate) fn find(&self, name: &str, shape: &[u64]) -> Result<(&Tensor, DType)> {
        let tensor = self.tensors.get(name).ok_or_else(|| ImportError::MissingTensor {
            file: self.path.clone(),
            tensor: name.to_string(),
        })?;
        if tensor.shape != shape {
            return Err(ImportError::Shape {
                file: self.file_of(tensor).to_path_buf(),
                tensor: name.to_string(),
                expected: shape.to_vec(),
                found: tensor.shape.clone(),
            });
        }
        let dtype = tensor.dtype.as_ref().map_err(|found| ImportError::UnknownDtype {
            file: self.file_of(tensor).to_path_buf(),
            tensor: name.to_string(),
            found: found.clone(),
            known: self.known_dtypes.join(", "),
        })?;
        Ok((tensor, *dtype))
    }

    fn file_of(&self, tensor: &Tensor) -> &Path {
        let file = self.files.get(tensor.file);
        file.map_or(&self.path, |file| file.path())
    }
}

/// Bytes of a tensor of this dtype and shape; `None` on overflow or if a row is not a whole
/// number of blocks.
pub(crate) fn tensor_bytes(dtype: DType, shape: &[u64]) -> Option<u64> {
    let last = shape.last().copied().unwrap_or(1);
    if last % dtype.block_len() != 0 {
        return None;
    }
    let elements = shape.iter().try_fold(1u64, |n, &e| n.checked_mul(e))?;
    (elements / dtype.block_len()).checked_mul(dtype.block_bytes())
}

/// Where a weight's bytes are.
enum Source {
    /// In a file.
    Mapped { file: usize, range: Range<usize> },
    /// In a file, with the rows of each head in the order of [`RopeRows::Pairs`].
    Paired { file: usize, range: Range<usize>, head_dim: usize, row_bytes: usize },
    /// Made by the front end.
    Owned(Vec<u8>),
    /// These bytes, so many times.
    Repeated(Vec<u8>, usize),
}

/// The bytes of every weight that an imported module declares, mapped from the model's files.
pub struct ModelWeights {
    files: Vec<MappedFile>,
    sources: HashMap<String, Source>,
}

impl ModelWeights {
    /// No weights yet.
    pub(crate) fn new() -> Self {
        ModelWeights { files: vec![], sources: HashMap::new() }
    }

    /// Adds a weight that lies in a file of the checkpoint.
    pub(crate) fn add_mapped(&mut self, name: &str, tensor: &Tensor) {
        let (file, range) = (tensor.file, tensor.range.clone());
        let source = Source::Mapped { file, range };
        self.sources.insert(name.to_string(), source);
    }

    /// Adds a projection whose rows, `head_dim` per head, are in the order [`RopeRows::Pairs`];
    /// readers get them in the order [`RopeRows::Halves`].
    pub(crate) fn add_paired(&mut self, name: &str, tensor: &Tensor, head_dim: u64) {
        let rows = tensor.shape.first().copied().unwrap_or(1).max(1);
        let source = Source::Paired {
            file: tensor.file,
            range: tensor.range.clone(),
            head_dim: head_dim as usize,
            row_bytes: tensor.range.len() / rows as usize,
        };
        self.sources.insert(name.to_string(), source);
    }

    /// Adds a weight made here.
    pub(crate) fn add_owned(&mut self, name: &str, bytes: Vec<u8>) {
        self.sources.insert(name.to_string(), Source::Owned(bytes));
    }

    /// Adds a weight of `count` equal elements.
    pub(crate) fn add_repeated(&mut self, name: &str, element: &[u8], count: u64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let source = Source::Repeated(element.to_vec(), count);
        self.sources.insert(name.to_string(), source);
    }

    /// Takes over the files that the ranges refer to.
    pub(crate) fn take_files(&mut self, files: Vec<MappedFile>) {
        self.files = files;
    }
}

impl Weights for ModelWeights {
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match self.sources.get(name)? {
            Source::Mapped { file, range } => {
                let bytes = self.files.get(*file)?.get(range.clone())?;
                Some(Cow::Borrowed(bytes))
            }
            Source::Paired { file, range, head_dim, row_bytes } => {
                let bytes = self.files.get(*file)?.get(range.clone())?;
                Some(Cow::Owned(pairs_to_halves(bytes, *head_dim, *row_bytes)))
            }
            Source::Owned(bytes) => Some(Cow::Borrowed(bytes)),
            Source::Repeated(bytes, count) => Some(Cow::Owned(bytes.repeat(*count))),
        }
    }
}

/// Undoes the row order of llama.cpp's converter (`LlamaModel.permute` in its
/// `conversion/llama.py`): row 2j + s of a head goes to row s · head_dim / 2 + j.
fn pairs_to_halves(bytes: &[u8], head_dim: usize, row_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact((head_dim * row_bytes).max(1)) {
        for side in 0..2 {
            let rows = head.chunks_exact(row_bytes).skip(side).step_by(2);
            rows.for_each(|row| out.extend_from_slice(row));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The converter's own formula: reshape (heads, 2, d / 2), swap the last two.
    fn halves_to_pairs(rows: &[u8], head_dim: usize) -> Vec<u8> {
        let half = head_dim / 2;
        let place = |i: usize| (i / head_dim) * head_dim + (i % 2) * half + (i % head_dim) / 2;
        (0..rows.len()).map(|i| rows[place(i)]).collect()
    }

    #[test]
    fn rows_return_to_halves() {
        let rows: Vec<u8> = (0..24).collect();
        let paired = halves_to_pairs(&rows, 8);
        assert_eq!(paired[..4], [0, 4, 1, 5]);
        assert_eq!(pairs_to_halves(&paired, 8, 1), rows);
        let wide = |rows: &[u8]| rows.iter().flat_map(|&r| [r, r + 100]).collect::<Vec<_>>();
        assert_eq!(pairs_to_halves(&wide(&paired), 8, 2), wide(&rows));
    }

    #[test]
    fn sizes_of_tensors_do_not_overflow() {
        assert_eq!(tensor_bytes(DType::Q4_1, &[3, 64]), Some(120));
        assert_eq!(tensor_bytes(DType::Q4_1, &[3, 48]), None);
        assert_eq!(tensor_bytes(DType::F32, &[u64::MAX, 2]), None);
        assert_eq!(tensor_bytes(DType::F32, &[]), Some(4));
    }
}
