//! `map` on any processor: operands that repeat along dimensions, and the value of the expression.

use super::instance::{Draft, Instance};
use super::{KernelError, real, scalar};
use crate::mlir::{Builder, Elem, Value};
use waveloom_ir::{DType, Dim, Expr};

/// Refuses what only a `gemm` can have in an expression.
pub(super) fn check<T>(op: &Instance<'_, T>, expr: &Expr) -> Result<(), KernelError> {
    let mut fits = true;
    expr.walk(&mut |e| match e {
        Expr::Operand(index) => fits &= (*index as usize) < op.inst.operands.len(),
        Expr::Const(_) | Expr::Unary(..) | Expr::Binary(..) => {}
        Expr::Acc(_) | Expr::Rope { .. } | Expr::HeadNorm { .. } => fits = false,
    });
    match fits {
        true => Ok(()),
        false => Err(op.unsupported(format!("expression {expr}"))),
    }
}

/// The result of a `map`: its last dimension and those before it.
pub(super) fn columns_and_outer<T>(op: &Instance<'_, T>) -> (Dim, Vec<Dim>) {
    match op.result().shape.split_last() {
        Some((&columns, outer)) => (columns, outer.to_vec()),
        None => (Dim::Const(1), vec![]),
    }
}

/// An operand of `map`.
pub(super) struct MapOperand {
    array: Value,
    dtype: DType,
    /// Elements between neighbours, by outer dimension of the result; none where it repeats.
    strides: Vec<Option<Value>>,
    /// Whether the last dimension repeats.
    repeats: bool,
}

impl MapOperand {
    /// Operand `index`.
    pub fn new<T>(
        op: &Instance<'_, T>,
        draft: &mut Draft,
        index: usize,
    ) -> Result<MapOperand, KernelError> {
        let ty = op.operand(index);
        let result = &op.result().shape;
        if ty.dtype != DType::I32 && real::elem(ty.dtype).is_none() {
            return Err(op.unsupported(format!("an operand of {}", ty.dtype)));
        }
        // Aligned at the last dimension; missing ones repeat.
        let missing = result.len().saturating_sub(ty.rank());
        let dim = |axis: usize| match axis.checked_sub(missing) {
            Some(axis) => ty.shape[axis],
            None => Dim::Const(1),
        };
        let repeats_at = |axis: usize| dim(axis) == Dim::Const(1);
        let mut strides = vec![];
        for axis in 0..result.len().saturating_sub(1) {
            let stride = op.product(&(axis + 1..result.len()).map(dim).collect::<Vec<_>>())?;
            strides.push((!repeats_at(axis)).then(|| draft.number(stride)));
        }
        let repeats = result.is_empty() || repeats_at(result.len() - 1);
        Ok(MapOperand { array: draft.buffer(index), dtype: ty.dtype, strides, repeats })
    }

    fn elem(&self) -> Elem {
        real::elem(self.dtype).unwrap_or(Elem::I32)
    }

    /// The address of the row with these outer indices, `i64`.
    pub fn row(&self, k: &mut Builder, indices: &[Value]) -> Value {
        let mut before = k.i64(0);
        for (&index, stride) in indices.iter().zip(&self.strides) {
            if let Some(stride) = *stride {
                let elements = k.mul(index, stride);
                before = k.add(before, elements);
            }
        }
        k.element(self.array, self.elem(), before)
    }

    /// Elements of the row at `row`, as f32 in `lanes` lanes (0: a scalar). `read` reads plain
    /// numbers of a type from a row.
    pub fn load(
        &self,
        k: &mut Builder,
        row: Value,
        lanes: u32,
        read: impl FnOnce(&mut Builder, Elem, Value) -> Value,
    ) -> Value {
        let elem = self.elem();
        let value = if self.repeats { real::load(k, elem, row, 0) } else { read(k, elem, row) };
        let value = if elem == Elem::I32 { k.sitofp(value, Elem::F32) } else { value };
        if self.repeats && lanes > 0 { k.splat(value, lanes) } else { value }
    }
}

/// The indices of row `row`, which exists, in dimensions of `extents`.
pub(super) fn split_index(k: &mut Builder, row: Value, extents: &[Value]) -> Vec<Value> {
    let mut rest = row;
    let mut indices = vec![];
    for &extent in extents.iter().skip(1).rev() {
        indices.push(k.rem(rest, extent));
        rest = k.udiv(rest, extent);
    }
    if !extents.is_empty() {
        indices.push(rest);
    }
    indices.reverse();
    indices
}

/// The value, in `lanes` lanes (0: a scalar), of an expression that [`check`] let pass.
pub(super) fn evaluate(k: &mut Builder, expr: &Expr, operands: &[Value], lanes: u32) -> Value {
    match expr {
        Expr::Operand(index) => operands[*index as usize],
        Expr::Const(value) => k.float(Elem::F32.vec(lanes), value.0.into()),
        Expr::Unary(op, x) => {
            let x = evaluate(k, x, operands, lanes);
            scalar::unary(k, *op, x)
        }
        Expr::Binary(op, a, b) => {
            let a = evaluate(k, a, operands, lanes);
            let b = evaluate(k, b, operands, lanes);
            scalar::binary(k, *op, a, b)
        }
        Expr::Acc(_) | Expr::Rope { .. } | Expr::HeadNorm { .. } => {
            unreachable!("`check` refuses it")
        }
    }
}
