//! What can go wrong on the way from a macro-op to a code object.

use thiserror::Error;

impl CodegenError {
    /// The kernel whose code could not be made, if that is our mistake.
    pub fn failed_kernel(&self) -> Option<&str> {
        match self {
            CodegenError::Mlir { kernel, .. }
            | CodegenError::Llvm { kernel, .. }
            | CodegenError::UndefinedSymbols { kernel, .. }
            | CodegenError::MalformedObject { kernel, .. } => Some(kernel),
            _ => None,
        }
    }
}

/// An error of code generation.
#[derive(Debug, Error)]
pub enum CodegenError {
    /// The target's name is none of [`crate::Target::NAMES`].
    #[error("unknown target '{name}'; known targets: {known}")]
    UnknownTarget {
        /// What was asked for.
        name: String,
        /// Known names, joined by commas.
        known: String,
    },
    /// The machine that compiles is not one that the target `cpu` can describe.
    #[error("this machine's CPU lacks AVX2, FMA or F16C, which the target 'cpu' needs")]
    HostTooOld,
    /// The kernel cannot be made for this op, shape or format.
    #[error("kernel '{kernel}': {what}")]
    Unsupported {
        /// The kernel.
        kernel: String,
        /// What is not supported, and what is.
        what: String,
    },
    /// MLIR refused our own text or failed to lower it: our bug.
    #[error("internal error: kernel '{kernel}': MLIR {phase} failed: {diagnostics}")]
    Mlir {
        /// The kernel.
        kernel: String,
        /// `parse`, `verify`, `lowering` or `translation`.
        phase: &'static str,
        /// MLIR's own words.
        diagnostics: String,
    },
    /// LLVM refused the module or the target: our bug, or a broken LLVM.
    #[error("internal error: kernel '{kernel}': LLVM {phase} failed: {message}")]
    Llvm {
        /// The kernel.
        kernel: String,
        /// `target machine`, `optimization`, `verification` or `emission`.
        phase: &'static str,
        /// LLVM's own words.
        message: String,
    },
    /// The compiled kernel wants functions that nothing provides: our bug.
    #[error("internal error: kernel '{kernel}' calls {}", symbols.join(", "))]
    UndefinedSymbols {
        /// The kernel.
        kernel: String,
        /// What it calls.
        symbols: Vec<String>,
    },
    /// The object file that LLVM wrote cannot be read: our bug.
    #[error("internal error: kernel '{kernel}': malformed object file: {what}")]
    MalformedObject {
        /// The kernel.
        kernel: String,
        /// Which part.
        what: &'static str,
    },
    /// A form of a kernel that someone edited does not compile.
    #[error("the {form} of kernel '{kernel}' does not compile: {message}")]
    Edited {
        /// MLIR, LLVM IR, assembly or object.
        form: String,
        /// The kernel.
        kernel: String,
        /// What MLIR or LLVM say.
        message: String,
    },
    /// LLD failed.
    #[error("internal error: link of {objects} kernels failed: {messages}")]
    Link {
        /// How many objects were given.
        objects: usize,
        /// LLD's own words.
        messages: String,
    },
    /// The temporary directory for linking cannot be written or read.
    #[error("cannot use a temporary directory for linking: {source}")]
    Temporary {
        /// The system's error.
        #[from]
        source: std::io::Error,
    },
    /// A weight's bytes do not have the size that its type says.
    #[error("weight '{name}': {got} bytes where its type takes {want}")]
    WeightSize {
        /// The weight.
        name: String,
        /// Bytes given.
        got: usize,
        /// Bytes needed.
        want: u64,
    },
    /// A weight's type is none that kernels take.
    #[error("weight '{name}': kernels do not multiply {dtype} of this shape")]
    CannotPack {
        /// The weight.
        name: String,
        /// Its dtype.
        dtype: &'static str,
    },
}

impl CodegenError {
    pub(crate) fn unknown_target(name: &str) -> CodegenError {
        let known = crate::Target::NAMES.join(", ");
        CodegenError::UnknownTarget { name: name.to_string(), known }
    }
}
