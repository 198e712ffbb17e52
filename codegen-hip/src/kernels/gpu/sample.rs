//! `sample`.

use crate::kernels::{KernelError, KernelSource};
use crate::target::AmdTarget;

/// The kernel for `vocab` logits.
pub fn kernel(_vocab: u32, _target: &AmdTarget) -> Result<KernelSource, KernelError> {
    Err(KernelError("`sample`: no kernel on a GPU".to_string()))
}
