//! Why a model cannot be imported.

use std::path::{Path, PathBuf};
use thiserror::Error;
use waveloom_ir::InferError;

/// Why a model cannot be imported. Every message says in which file, and what to do where that is
/// not plain.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The operating system refused.
    #[error("cannot read `{}`: {source}", file.display())]
    Io {
        /// What was read.
        file: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The path is neither of the two things that can be imported.
    #[error(
        "`{}` is not a model; give a directory with `config.json` and `*.safetensors`, or a `.gguf` \
         file",
        path.display()
    )]
    NotAModel {
        /// What was given.
        path: PathBuf,
    },
    /// A model's description without its weights.
    #[error(
        "`{}` has no weights; give a directory with `config.json` and `*.safetensors`, or ask for \
         synthetic weights",
        path.display()
    )]
    ConfigOnly {
        /// What was given.
        path: PathBuf,
    },
    /// Synthetic weights were asked for, and the path has no description to make them from.
    #[error(
        "`{}` has no description of a model; for synthetic weights give a `config.json`, under any \
         name that ends in `.json`, or a directory with one",
        path.display()
    )]
    NotAConfig {
        /// What was given.
        path: PathBuf,
    },
    /// A file does not follow its format, or contradicts itself.
    #[error("{}: {problem}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where in the file.
        problem: String,
    },
    /// A tensor's dtype is none of those that are known.
    #[error("{}: tensor `{tensor}` has unknown dtype `{found}`; known: {known}", file.display())]
    UnknownDtype {
        /// The file.
        file: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// What the file calls the dtype.
        found: String,
        /// The dtypes that are known in this format, separated by commas.
        known: String,
    },
    /// A value is none of those that are known: an architecture, a tokenizer kind.
    #[error("{}: unknown {what} `{found}`; known: {known}", file.display())]
    Unknown {
        /// The file.
        file: PathBuf,
        /// What the value stands for.
        what: String,
        /// The value.
        found: String,
        /// The values that are known, separated by commas.
        known: String,
    },
    /// The model uses something that is not implemented.
    #[error("{}: {what} is not supported; supported: {supported}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The feature.
        what: String,
        /// What could stand in its place.
        supported: String,
    },
    /// The configuration asks for a tensor that no file holds.
    #[error("{}: tensor `{tensor}` is missing", file.display())]
    MissingTensor {
        /// Where it should be.
        file: PathBuf,
        /// Its name in the file.
        tensor: String,
    },
    /// A tensor's shape is not the one that the configuration implies.
    #[error(
        "{}: tensor `{tensor}` has shape {found:?}, but the configuration implies {expected:?}",
        file.display()
    )]
    Shape {
        /// The file.
        file: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// Extents that follow from the configuration, outermost first.
        expected: Vec<u64>,
        /// Extents in the file, outermost first.
        found: Vec<u64>,
    },
    /// An [`crate::ImportOptions`] value that does not fit.
    #[error("{0}")]
    Options(String),
    /// An op was built with operands that do not fit: a bug of this crate.
    #[error("the front end built an ill-typed module; this is a bug of waveloom: {0}")]
    Internal(#[from] InferError),
}

/// The result of anything in this crate.
pub(crate) type Result<T> = std::result::Result<T, ImportError>;

impl ImportError {
    pub(crate) fn io(file: &Path, source: std::io::Error) -> Self {
        let file = file.to_path_buf();
        ImportError::Io { file, source }
    }

    pub(crate) fn malformed(file: &Path, problem: impl Into<String>) -> Self {
        ImportError::Malformed { file: file.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn unknown<'k>(
        file: &Path,
        what: impl Into<String>,
        found: impl Into<String>,
        known: impl IntoIterator<Item = &'k str>,
    ) -> Self {
        ImportError::Unknown {
            file: file.to_path_buf(),
            what: what.into(),
            found: found.into(),
            known: known.into_iter().collect::<Vec<_>>().join(", "),
        }
    }

    pub(crate) fn unsupported(
        file: &Path,
        what: impl Into<String>,
        supported: impl Into<String>,
    ) -> Self {
        ImportError::Unsupported {
            file: file.to_path_buf(),
            what: what.into(),
            supported: supported.into(),
        }
    }
}
