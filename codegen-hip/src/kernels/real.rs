//! Plain real numbers in memory, as f32 in registers.

use crate::mlir::{Builder, Elem, Value};
use waveloom_ir::DType;

/// How a plain dtype lies in memory, if kernels can read it.
pub(super) fn elem(dtype: DType) -> Option<Elem> {
    match dtype {
        DType::F32 => Some(Elem::F32),
        DType::F16 => Some(Elem::F16),
        // Its bits: arithmetic on bf16 would call library functions.
        DType::BF16 => Some(Elem::I16),
        _ => None,
    }
}

/// `lanes` numbers (0: one, as a scalar) at `pointer`, as f32.
pub(super) fn load(k: &mut Builder, elem: Elem, pointer: Value, lanes: u32) -> Value {
    let raw = k.load(pointer, elem.vec(lanes));
    widen(k, raw)
}

/// The first `count` of `lanes` numbers at `pointer`, as f32; the others are zero and not read.
pub(super) fn load_partial(
    k: &mut Builder,
    elem: Elem,
    pointer: Value,
    lanes: u32,
    count: Value,
) -> Value {
    let raw = k.load_partial(pointer, elem.vec(lanes), count);
    widen(k, raw)
}

/// `lanes` numbers (0: one, as a scalar) at `pointer`, a multiple of their size, as f32.
pub(super) fn load_whole(k: &mut Builder, elem: Elem, pointer: Value, lanes: u32) -> Value {
    let ty = elem.vec(lanes);
    let raw = k.load_aligned(pointer, ty, ty.bytes());
    widen(k, raw)
}

/// Numbers as [`elem`] says, as f32.
pub(super) fn widen(k: &mut Builder, raw: Value) -> Value {
    match raw.ty.elem {
        Elem::F16 => k.extf(raw, Elem::F32),
        Elem::I16 => k.bf16_to_f32(raw),
        _ => raw,
    }
}

/// An f32 rounded to `elem`.
pub(super) fn narrow(k: &mut Builder, value: Value, elem: Elem) -> Value {
    match elem {
        Elem::F16 => k.truncf(value, Elem::F16),
        Elem::I16 => k.f32_to_bf16(value),
        _ => value,
    }
}
