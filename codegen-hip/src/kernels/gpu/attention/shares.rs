//! Positions shared among workgroups: each leaves what it found in scratch and counts itself, and
//! the last one adds up, in the order of the shares, so that results are the same in every run.

use crate::mlir::builder::Cmp;
use crate::mlir::gpu::Scope;
use crate::mlir::{Builder, Elem, Ty, Value};

/// Largest score, scaled, and sum of the probabilities.
pub(super) const PAIR: Ty = Elem::F32.vec(2);

/// Counts this workgroup, whose work-items have stored what they found; whether it is the last of
/// `shares`, which sets the counter back and may read what the others stored. Uniform.
pub(super) fn is_last(k: &mut Builder, counter: Value, shares: Value) -> Value {
    let flag = k.shared(4);
    let (thread, zero, one) = (k.thread(), k.i32(0), k.i32(1));
    k.barrier_all();
    let first = k.cmp(Cmp::Eq, thread, zero);
    k.if_then(first, |k| {
        let before = k.atomic_add(counter, one, Scope::Device);
        let now = k.add(before, one);
        let last = k.cmp(Cmp::Eq, now, shares);
        k.if_then(last, |k| k.store(zero, counter));
        k.store(now, flag);
    });
    k.barrier_all();
    let count = k.load(flag, Elem::I32);
    let count = k.first_lane(count);
    k.cmp(Cmp::Eq, count, shares)
}

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
