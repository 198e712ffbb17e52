//! Positions shared among workgroups: what each leaves in scratch, and how it is weighed.

use crate::mlir::{Builder, Elem, Ty, Value};

/// Largest score, scaled, and sum of the probabilities.
pub(super) const PAIR: Ty = Elem::F32.vec(2);

/// 2 to the difference of scaled scores: at most 1.
pub(super) fn weight(k: &mut Builder, largest: Value, top: Value) -> Value {
    let difference = k.sub(largest, top);
    k.exp2_fast(difference)
}

/// Two numbers side by side.
pub(super) fn pair(k: &mut Builder, a: Value, b: Value) -> Value {
    let pair = k.zero(PAIR);
    let pair = k.insert(a, pair, 0);
    k.insert(b, pair, 1)
}
