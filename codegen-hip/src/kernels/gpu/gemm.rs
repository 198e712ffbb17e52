//! `gemm`.

use super::Instance;
use crate::kernels::{KernelError, KernelSource};
use waveloom_ir::GemmAttr;

/// The kernel.
pub(super) fn kernel(op: &Instance<'_>, _attr: &GemmAttr) -> Result<KernelSource, KernelError> {
    Err(op.unsupported("no kernel on a GPU"))
}
