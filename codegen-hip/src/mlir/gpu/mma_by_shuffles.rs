//! For tests: the matrix operations of NVIDIA GPUs on an AMD GPU with waves of 32 lanes, lane by
//! lane as the PTX ISA has it, so that kernels that rely on it run on the emulator.
//!
//! "Matrix Fragments for mma.m16n8k16 with floating point type", with groupID = lane >> 2 and
//! threadID_in_group = lane % 4:
//!
//! ```text
//! A  a0..a7   row = groupID for ai where 0 <= i < 2 || 4 <= i < 6, groupID + 8 otherwise
//!             col = (threadID_in_group * 2) + (i & 1) for ai where i < 4, … + 8 where i >= 4
//! B  b0..b3   row = (threadID_in_group * 2) + (i & 1) for bi where i < 2, … + 8 where i >= 2
//!             col = groupID
//! C  c0..c3   row = groupID for ci where i < 2, groupID + 8 for ci where i >= 2
//!             col = (threadID_in_group * 2) + (i & 1)
//! ```

use crate::mlir::{Builder, Elem, Value};
use crate::target::{MatrixOp, MatrixType};

/// Row and column of A's element `i` in a lane.
fn a_place(lane: u32, i: u32) -> (u32, u32) {
    let row = if i < 2 || (4..6).contains(&i) { lane >> 2 } else { (lane >> 2) + 8 };
    (row, lane % 4 * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
}

/// Row and column of B's element `i` in a lane.
fn b_place(lane: u32, i: u32) -> (u32, u32) {
    (lane % 4 * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, lane >> 2)
}

/// Row and column of C's element `i` in a lane.
fn c_place(lane: u32, i: u32) -> (u32, u32) {
    ((lane >> 2) + if i < 2 { 0 } else { 8 }, lane % 4 * 2 + (i & 1))
}

/// Our operation, for which the platform has two of those, with what it calls A as our B.
pub(super) fn matrix(
    k: &mut Builder,
    op: &MatrixOp,
    a: &[Value],
    b: &[Value],
    c: &[Value],
) -> Vec<Value> {
    let thread = k.thread();
    let (three, two, twenty_eight) = (k.i32(3), k.i32(2), k.i32(28));
    let g = k.and(thread, three);
    // The lanes of this group's columns of C: 2g and 2g + 1 as groupID.
    let columns = [0, 1].map(|column| {
        let column = {
            let twice = k.add(g, g);
            k.add_const(twice, column)
        };
        k.shl(column, two)
    });
    let row = k.and(thread, twenty_eight);
    let mut sums = c.to_vec();
    for group in 0..4 {
        let from = |k: &mut Builder, lane: Value, factors: Value| {
            let source = k.add_const(lane, group);
            let words = k.bitcast(factors, Elem::I32.vec(2));
            let mut moved = words;
            for word in 0..2 {
                let own = k.extract(words, word);
                let other = k.shuffle_lanes(own, source);
                moved = k.insert(other, moved, word);
            }
            widened(k, op, moved)
        };
        let x = [0, 1].map(|line| from(k, row, b[line]));
        for (half, &rows) in a.iter().enumerate() {
            for (odd, &column) in columns.iter().enumerate() {
                let w = from(k, column, rows);
                for (line, sum) in sums.iter_mut().enumerate() {
                    let element = (2 * half + odd) as u32;
                    let mut dot = k.extract(*sum, element);
                    for i in 0..4 {
                        let (x, w) = (k.extract(x[line], i), k.extract(w, i));
                        dot = k.fma(x, w, dot);
                    }
                    *sum = k.insert(dot, *sum, element);
                }
            }
        }
    }
    sums
}

/// Four factors as f32.
fn widened(k: &mut Builder, op: &MatrixOp, words: Value) -> Value {
    match op.factors {
        MatrixType::Bf16 => {
            let bits = k.bitcast(words, Elem::I16.vec(4));
            k.bf16_to_f32(bits)
        }
        _ => {
            let halves = k.bitcast(words, Elem::F16.vec(4));
            k.extf(halves, Elem::F32)
        }
    }
}

mod tests {
    use super::*;
    use crate::target::{GpuTarget, MatrixLayout};

    /// What [`MatrixLayout::Mma`] says of a lane, and what `nvidia` makes of it, is the ISA's.
    #[test]
    fn the_layout_is_that_of_the_ptx_isa() {
        let target = GpuTarget::from_name("sm_80").unwrap();
        let layout = target.layout;
        assert_eq!(layout, MatrixLayout::Mma);
        for lane in 0..32 {
            let (g, n) = (lane % 4, lane / 4);
            // Operands in the order of `Nvidia::matrix`: low of line 0, low of line 1, high, high.
            for i in 0..8 {
                let line = i / 2 % 2;
                assert_eq!(a_place(lane, i).0, n + 8 * line, "our B: column by line");
                // Element of the four that a lane has along K: the same of A and of B.
                let element = i % 2 + i / 4 * 2;
                assert_eq!(a_place(lane, i).1, b_place(lane, element).0, "the same K");
            }
            for half in 0..2 {
                for i in 0..4 {
                    assert_eq!(b_place(lane, i).1 + 8 * half, n + 8 * half, "our A: row by line");
                    // Element 2·half + (i & 1) of line i / 2 in our C.
                    let (first, step) = layout.row(2 * half + i % 2);
                    let (row, column) = c_place(lane, i);
                    assert_eq!(column + 8 * half, first + g * step, "our row of C");
                    assert_eq!(row, n + 8 * (i / 2), "our column of C");
                }
            }
        }
        assert_eq!((layout.lines(), layout.k_groups(), layout.sums()), (2, 4, 4));
    }
}
