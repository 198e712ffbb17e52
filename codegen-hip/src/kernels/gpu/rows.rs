//! Ops row by row or element by element.

use super::Instance;
use crate::kernels::{KernelError, KernelSource};
use waveloom_ir::{Expr, F32};

/// `embed`.
pub(super) fn embed(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    Err(op.unsupported("no kernel on a GPU"))
}

/// `norm`.
pub(super) fn norm(op: &Instance<'_>, _eps: F32) -> Result<KernelSource, KernelError> {
    Err(op.unsupported("no kernel on a GPU"))
}

/// `map`.
pub(super) fn map(op: &Instance<'_>, _expr: &Expr) -> Result<KernelSource, KernelError> {
    Err(op.unsupported("no kernel on a GPU"))
}

/// `rope`.
pub(super) fn rope(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    Err(op.unsupported("no kernel on a GPU"))
}

/// `cache_append`.
pub(super) fn cache_append(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    Err(op.unsupported("no kernel on a GPU"))
}
