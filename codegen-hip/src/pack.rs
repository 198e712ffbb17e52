//! Weights in the order in which kernels load them. Everything that is no matrix keeps its bytes.

pub mod cpu;
pub mod gpu;
pub mod synthetic;

pub use cpu::{BLOCK, PackedLayout, Q8_BIAS};

use crate::CodegenError;
use crate::target::Target;
use waveloom_ir::{DType, Dim, Type};

/// Sizes of packed weights are multiples of this.
const ALIGNMENT: u64 = 64;

/// Rows and columns of a weight that is packed as a matrix; `None` for what keeps its bytes.
fn matrix(ty: &Type) -> Option<(u64, u64)> {
    match ty.shape[..] {
        [Dim::Const(rows), Dim::Const(cols)] => Some((rows, cols)),
        _ => None,
    }
}

/// How a matrix lies in memory on a target.
enum Packed {
    Cpu(PackedLayout),
    Gpu(gpu::GpuLayout),
}

impl Packed {
    fn new(dtype: DType, rows: u64, cols: u64, target: &Target) -> Option<Packed> {
        match target {
            Target::Cpu(target) => PackedLayout::new(dtype, rows, cols, target).map(Packed::Cpu),
            Target::Gpu(_) => gpu::GpuLayout::new(dtype, rows, cols).map(Packed::Gpu),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Packed::Cpu(layout) => layout.bytes(),
            Packed::Gpu(layout) => layout.bytes(),
        }
    }

    fn pack(&self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Packed::Cpu(layout) => cpu::pack_matrix(layout, bytes),
            Packed::Gpu(layout) => layout.pack(bytes),
        }
    }
}

/// Bytes that a weight takes on a target, a multiple of 64; `None` where it cannot be packed.
pub fn packed_bytes(ty: &Type, target: &Target) -> Option<u64> {
    match matrix(ty) {
        Some((rows, cols)) => {
            Packed::new(ty.dtype, rows, cols, target).map(|layout| layout.bytes())
        }
        None => {
            let extent = |dim| match dim {
                Dim::Const(extent) => extent,
                Dim::Symbol(_) => u64::MAX,
            };
            ty.bytes(extent)?.checked_next_multiple_of(ALIGNMENT)
        }
    }
}

/// Packs the bytes of weight `name`, which are as its type says (the weight's last dimension
/// contiguous), for a target.
pub fn pack_weight(
    name: &str,
    ty: &Type,
    bytes: &[u8],
    target: &Target,
) -> Result<Vec<u8>, CodegenError> {
    let cannot = || CodegenError::CannotPack { name: name.to_string(), dtype: ty.dtype.name() };
    let want = ty.bytes(|dim| if let Dim::Const(n) = dim { n } else { 0 }).ok_or_else(cannot)?;
    if want != bytes.len() as u64 {
        let name = name.to_string();
        return Err(CodegenError::WeightSize { name, got: bytes.len(), want });
    }
    let Some((rows, cols)) = matrix(ty) else {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        return Ok(padded);
    };
    let layout = Packed::new(ty.dtype, rows, cols, target).ok_or_else(cannot)?;
    Ok(layout.pack(bytes))
}
