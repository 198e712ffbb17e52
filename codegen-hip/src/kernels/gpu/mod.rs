//! Kernels for GPUs: workgroups of waves, weights and caches in blocks that one wave loads at full
//! width (`pack::gpu`, `Layout::KeyBlocks`, `Layout::ValueBlocks`).

mod attention;
pub mod gemm;
mod last;
#[cfg(test)]
mod ptx;
mod rows;
pub mod sample;
#[cfg(test)]
mod testing;

use super::{KernelError, KernelSource, instance};
use crate::pack::gpu::GpuLayout;
use crate::target::GpuTarget;
use waveloom_ir::Op;

/// A macro-op and the GPU that its kernel is made for.
pub(super) type Instance<'a> = instance::Instance<'a, GpuTarget>;

impl Instance<'_> {
    /// How operand `index` lies in memory if it is a weight that was packed as a matrix.
    fn packed(&self, index: usize) -> Result<Option<GpuLayout>, KernelError> {
        let Some((dtype, rows, cols)) = self.matrix(index) else { return Ok(None) };
        GpuLayout::new(dtype, rows, cols)
            .map(Some)
            .ok_or_else(|| self.unsupported(format!("no kernel reads {dtype} weights")))
    }
}

/// The kernel of a macro-op.
pub(super) fn kernel_for(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    match &op.inst.op {
        Op::Gemm { attr } => gemm::kernel(op, attr),
        Op::Attention { attr } => attention::kernel(op, attr),
        Op::Embed {} => rows::embed(op),
        Op::Norm { eps } => rows::norm(op, *eps),
        Op::Map { expr } => rows::map(op, expr),
        Op::Rope {} => rows::rope(op),
        Op::CacheAppend {} => rows::cache_append(op),
        other => Err(KernelError(format!("`{}` has no kernel", other.mnemonic()))),
    }
}
