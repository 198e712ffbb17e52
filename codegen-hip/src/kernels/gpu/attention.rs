//! `attention`.

use super::Instance;
use crate::kernels::{KernelError, KernelSource};
use waveloom_ir::AttentionAttr;

/// The kernel.
pub(super) fn kernel(
    op: &Instance<'_>,
    _attr: &AttentionAttr,
) -> Result<KernelSource, KernelError> {
    Err(op.unsupported("no kernel on a GPU"))
}
