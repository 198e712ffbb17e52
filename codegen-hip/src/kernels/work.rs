//! What a macro-op cannot do without: bytes that must be read and written once, and arithmetic.

use super::instance::Instance;
use super::{KernelError, extent_expr};
use waveloom_ir::{Dim, Op, Store, Type};
use waveloom_plan::{Expr, Work};

/// The work of a macro-op, over the plan's symbols.
pub(super) fn work<T>(op: &Instance<'_, T>) -> Result<Work, KernelError> {
    let operands = || (0..op.inst.operands.len()).map(|index| op.operand(index));
    match &op.inst.op {
        Op::Gemm { attr } => {
            let mut work = Work { bytes: Expr::from(0), operations: Expr::from(0) };
            let rows = op.product(&op.operand(0).shape[..1])?;
            for index in 0..attr.first_extra() {
                work.bytes = work.bytes + bytes(op, op.operand(index))?;
            }
            for index in attr.first_weight()..attr.first_extra() {
                let elements = op.product(&op.operand(index).shape)?;
                work.operations = work.operations + Expr::from(2) * elements * rows.clone();
            }
            for (output, &result) in attr.outputs.iter().zip(&op.inst.results) {
                let ty = op.function.ty(result);
                work.bytes = work.bytes
                    + match output.store {
                        Store::Dense => bytes(op, ty)?,
                        Store::Append { .. } => rows.clone() * cache_row(op, ty)?,
                    };
            }
            Ok(work)
        }
        Op::Attention { attr } => {
            let (q, keys) = (op.operand(0), op.operand(1));
            let length = Expr::Symbol(1);
            let caches = Expr::from(2) * length.clone() * cache_row(op, keys)?;
            let elements = i64::from(attr.heads) * i64::from(attr.head_dim);
            let rows = op.product(&q.shape[..1])?;
            Ok(Work {
                bytes: Expr::from(2) * bytes(op, q)? + caches,
                operations: Expr::from(4 * elements) * rows * length,
            })
        }
        Op::Embed {} => {
            let result = bytes(op, op.result())?;
            Ok(Work { bytes: Expr::from(2) * result, operations: Expr::from(0) })
        }
        Op::CacheAppend {} => {
            let new = bytes(op, op.operand(1))?;
            Ok(Work { bytes: Expr::from(2) * new, operations: Expr::from(0) })
        }
        _ => {
            let read = operands().try_fold(Expr::from(0), |sum, ty| Ok(sum + bytes(op, ty)?))?;
            let elements = op.product(&op.result().shape)?;
            Ok(Work { bytes: read + bytes(op, op.result())?, operations: elements })
        }
    }
}

/// Bytes of a value.
fn bytes<T>(op: &Instance<'_, T>, ty: &Type) -> Result<Expr, KernelError> {
    let (last, outer) = match ty.shape.split_last() {
        None => return Ok(Expr::from(ty.dtype.block_bytes() as i64)),
        Some(split) => split,
    };
    let (len, size) = (ty.dtype.block_len(), ty.dtype.block_bytes() as i64);
    let row = match *last {
        Dim::Const(extent) => Expr::from((extent / len) as i64 * size),
        Dim::Symbol(_) => extent_expr(op.module, *last)? * Expr::from(size),
    };
    Ok(op.product(outer)? * row)
}

/// Bytes of one position of a cache.
fn cache_row<T>(op: &Instance<'_, T>, ty: &Type) -> Result<Expr, KernelError> {
    Ok(op.product(&ty.shape[1..])? * Expr::from(ty.dtype.block_bytes() as i64))
}
