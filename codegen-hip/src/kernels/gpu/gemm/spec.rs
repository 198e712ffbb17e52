//! What a `gemm` kernel depends on.

use super::Instance;
use crate::kernels::section::{self, Description, Rows, Section};
use crate::kernels::{KernelError, Variant, extent_expr};
use crate::pack::gpu::GpuLayout;
use waveloom_ir::{DType, Dim, GemmAttr, GemmOutput, Layout, Prologue, Store, Type};

/// A `gemm` without its module: what the kernel depends on.
#[derive(Clone, Debug)]
pub struct GemmSpec {
    /// Rows of x.
    pub rows: Rows,
    /// Columns of x and of the weights.
    pub k: u64,
    /// RMS norm before the products: what is added to the mean of squares.
    pub norm_eps: Option<f32>,
    /// The weights.
    pub weights: Vec<GpuLayout>,
    /// The outputs.
    pub outputs: Vec<GemmOutput>,
    /// Types of the extra operands.
    pub extras: Vec<Type>,
    /// Fewest work-items of a workgroup.
    pub work_items: u32,
}

/// What tensors must be smaller than, in bytes: offsets in them are 32 bits.
const MOST_BYTES: u64 = 1 << 31;

impl GemmSpec {
    pub(super) fn new(op: &Instance<'_>, attr: &GemmAttr) -> Result<GemmSpec, KernelError> {
        let types: Vec<&Type> = (0..op.inst.operands.len()).map(|i| op.operand(i)).collect();
        let (Some(x), Some(weights), Some(extras)) = (
            types.first(),
            types.get(attr.first_weight()..attr.first_extra()),
            types.get(attr.first_extra()..),
        ) else {
            return Err(op.unsupported("too few operands"));
        };
        let [m, Dim::Const(k)] = x.shape[..] else {
            return Err(op.unsupported("x is not [M, constant]"));
        };
        let rows = match (m, op.variant) {
            (Dim::Const(1), _) | (Dim::Symbol(_), Variant::Decode) => Rows::One,
            _ => Rows::Many(extent_expr(op.module, m)?),
        };
        if attr.prologue.is_some() && types.get(1).is_some_and(|ty| ty.dtype != DType::F32) {
            return Err(op.unsupported("the norm weight is not f32"));
        }
        let weights = weights
            .iter()
            .map(|ty| {
                let [Dim::Const(n), Dim::Const(k)] = ty.shape[..] else { return None };
                GpuLayout::new(ty.dtype, n, k)
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| op.unsupported("cannot multiply weights of this dtype or size"))?;
        let widest = weights.iter().map(|weight| weight.rows).max().unwrap_or(1).max(k);
        let fits = |rows: Dim, columns: u64| {
            let bytes = op.module.max_extent(rows).checked_mul(columns * 4);
            match bytes.is_some_and(|bytes| bytes < MOST_BYTES) {
                true => Ok(()),
                false => Err(op.unsupported("a tensor of 2 GiB or more: choose a smaller context")),
            }
        };
        fits(m, widest)?;
        let spec = GemmSpec {
            rows,
            k,
            norm_eps: attr.prologue.map(|Prologue::RmsNorm { eps }| eps.0),
            weights,
            outputs: attr.outputs.clone(),
            extras: extras.iter().map(|ty| (*ty).clone()).collect(),
            work_items: op.work_items,
        };
        section::check_extras(&spec.outputs, &spec.extras)?;
        for output in &spec.outputs {
            let Store::Append { cache, .. } = output.store else { continue };
            let cache = &spec.extras[cache as usize];
            check_cache(cache).map_err(|what| op.unsupported(what))?;
            fits(cache.shape[0], section::columns(output, &spec.weight_rows()).div_ceil(2))?;
        }
        Ok(spec)
    }

    /// N by weight.
    pub(super) fn weight_rows(&self) -> Vec<u64> {
        self.weights.iter().map(|weight| weight.rows).collect()
    }

    /// Outputs by the weights that they take.
    pub(super) fn sections(&self) -> Result<Vec<Section>, KernelError> {
        section::sections(&self.outputs, &self.weight_rows(), &self.extras)
    }

    /// Operands of the op: x, norm weight, weights, extras.
    pub(super) fn operands(&self) -> usize {
        1 + usize::from(self.norm_eps.is_some()) + self.weights.len() + self.extras.len()
    }

    /// Whether an output goes to a cache.
    pub(super) fn appends(&self) -> bool {
        section::appends(&self.outputs)
    }

    /// It in words.
    pub(super) fn description(&self) -> Description<'_> {
        Description {
            rows: &self.rows,
            k: self.k,
            norm: self.norm_eps.is_some(),
            weights: self.weights.iter().map(|weight| (weight.dtype, weight.rows)).collect(),
            outputs: &self.outputs,
        }
    }
}

/// Caches of a GPU are f16, in blocks.
fn check_cache(ty: &Type) -> Result<(), String> {
    let blocks = matches!(ty.layout, Layout::KeyBlocks(_) | Layout::ValueBlocks(_));
    match (blocks && ty.dtype == DType::F16, ty.last_const()) {
        (false, _) => Err(format!("appends to a cache of {} that is not in f16 blocks", ty.dtype)),
        (true, Some(head_dim)) if head_dim.is_multiple_of(8) => Ok(()),
        (true, _) => Err("the elements of a cached head are no multiple of 8".to_string()),
    }
}
