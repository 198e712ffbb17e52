//! Which lane holds what, so that nothing has to change lanes between the two products.
//!
//! With n = lane % 16 and g = lane / 16 (of G groups), a lane loads chunks: 16 bytes, 8 elements. On
//! NVIDIA GPUs n = lane / 4, g = lane % 4, and a lane has chunks and sums of *lines* n and n + 8.
//! A *span* is 8·G positions, so that each group has one chunk of values of it, and 8·G elements
//! of the head are a *step* of a score:
//!
//! ```text
//! Sᵀ = K·Qᵀ   A: K[position(n), elements 8g..8g+8]     B: Q[query n, elements 8g..8g+8]
//!             C: S[positions 8g..8g+8, query n]
//! Oᵀ = Vᵀ·Pᵀ  A: V[positions 8g..8g+8, element(n)]     B: P[positions 8g..8g+8, query n]
//!             C: O[4 or 8 elements from 4g or 8g on, query n]
//! ```
//!
//! Rows of A may be any positions (or elements): `position` and `element` choose them such that a
//! lane's sums are neighbours, 8 positions in all: two tiles of 4 on CDNA and NVIDIA GPUs, one of 8
//! on RDNA. Inside an operation the order along K is free if A and B agree: CDNA 2 and 3 and NVIDIA
//! GPUs take a chunk in two operations, CDNA 4 and RDNA 4 in one. RDNA 3 wants both groups' chunks in every lane
//! ([`Matrix::spread`]).

use super::{CHUNK, COLUMNS, Shape};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use crate::target::{GpuTarget, MatrixLayout, MatrixOp};

/// What second parts of numbers are multiplied by, so that they are no subnormals in f16, which
/// CDNA 2 takes for 0: 2 to the bits of f16's significand.
pub(super) const REST: f64 = 2048.0;

/// Where a work-item is in its wave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// Row or column of a matrix operation: the first, if a lane has two.
    pub n: Value,
    /// Group of lanes that hold the same rows and columns.
    pub g: Value,
}

impl Lane {
    pub fn new(k: &mut Builder, target: &GpuTarget) -> Lane {
        let [g, n] = k.matrix_lane(target);
        Lane { n, g }
    }
}

/// Matrix operations on chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    target: &'a GpuTarget,
    op: &'a MatrixOp,
}

impl<'a> Matrix<'a> {
    pub fn new(shape: &Shape<'a>) -> Matrix<'a> {
        Matrix { target: shape.target, op: shape.op }
    }

    /// Groups of lanes that have chunks of their own.
    pub fn groups(&self) -> u32 {
        self.target.wave * self.lines() / COLUMNS
    }

    /// Rows of A and columns of B and C that a lane holds.
    pub fn lines(&self) -> u32 {
        self.target.layout.lines()
    }

    /// From a lane's first row or column to that of line `line`.
    pub fn apart(&self, line: u32) -> u32 {
        line * COLUMNS / self.lines()
    }

    /// Positions of which each group of lanes has a chunk.
    pub fn span(&self) -> u32 {
        CHUNK * self.groups()
    }

    /// Results of 16 rows that hold the scores of a span.
    pub fn tiles(&self) -> u32 {
        CHUNK / self.sums()
    }

    /// Numbers of a column of a result that a lane holds.
    pub fn sums(&self) -> u32 {
        self.target.layout.sums()
    }

    /// Whether an operand is the chunks of both groups.
    pub fn is_doubled(&self) -> bool {
        self.target.layout == MatrixLayout::Wmma3
    }

    /// Position in the span of line `line` of A for score tile `tile`.
    pub fn position(&self, k: &mut Builder, n: Value, line: u32, tile: u32) -> Value {
        match self.target.layout {
            // Row 2g + e, of line 1: + 8, is position 8g + 4·tile + e, + 2.
            MatrixLayout::Mma => {
                let six = k.i32(6);
                let group = k.and(n, six);
                let three = k.mul_const(group, 3);
                let position = k.add(n, three);
                k.add_const(position, (self.sums() * tile + 2 * line).into())
            }
            // Row 4g + e is position 8g + 4·tile + e.
            MatrixLayout::Mfma => {
                let twelve = k.i32(12);
                let group = k.and(n, twelve);
                let position = k.add(n, group);
                k.add_const(position, (self.sums() * tile).into())
            }
            MatrixLayout::Wmma3 | MatrixLayout::Wmma4 => self.element(k, n, line),
        }
    }

    /// Element, of 16, of line `line` of A for values.
    pub fn element(&self, k: &mut Builder, n: Value, line: u32) -> Value {
        match self.target.layout {
            // Row 2g + e, of line 1: + 8, is element 4g + e, + 2.
            MatrixLayout::Mma => {
                let six = k.i32(6);
                let group = k.and(n, six);
                let element = k.add(n, group);
                k.add_const(element, (2 * line).into())
            }
            MatrixLayout::Mfma | MatrixLayout::Wmma4 => n,
            // Row 2e + g is element 8g + e.
            MatrixLayout::Wmma3 => {
                let (one, three) = (k.i32(1), k.i32(3));
                let low = k.and(n, one);
                let low = k.shl(low, three);
                let high = k.shr_u(n, one);
                k.or(low, high)
            }
        }
    }

    /// First of the elements, of 16, that a lane's sums are.
    pub fn first_element(&self, k: &mut Builder, g: Value) -> Value {
        k.mul_const(g, self.sums().into())
    }

    /// An operand from each lane's chunk of f16.
    pub fn spread(&self, k: &mut Builder, lane: Lane, chunk: Value) -> Value {
        if !self.is_doubled() {
            return chunk;
        }
        let zero = k.i32(0);
        let first = k.cmp(Cmp::Eq, lane.g, zero);
        let own = k.bitcast(chunk, Elem::I32.vec(4));
        let both = k.zero(Elem::I32.vec(8));
        let both = (0..4).fold(both, |both, word| {
            let own = k.extract(own, word);
            let other = k.lane_xor(own, 16, self.target);
            let low = k.select(first, own, other);
            let high = k.select(first, other, own);
            let both = k.insert(low, both, word);
            k.insert(high, both, word + 4)
        });
        k.bitcast(both, Elem::F16.vec(2 * CHUNK))
    }

    /// sums + A·B of operands as [`Matrix::spread`] gives them, all by line.
    pub fn product(&self, k: &mut Builder, a: &[Value], b: &[Value], sums: &[Value]) -> Vec<Value> {
        let per_lane = self.op.per_lane;
        (0..a[0].ty.lanes / per_lane).fold(sums.to_vec(), |sums, part| {
            let [a, b] = [a, b].map(|lines| {
                let lines = lines.iter().map(|&x| match per_lane == x.ty.lanes {
                    true => x,
                    false => k.slice(x, part * per_lane, per_lane),
                });
                lines.collect::<Vec<Value>>()
            });
            k.matrix(self.op, &a, &b, &sums)
        })
    }

    /// Combines a number over the groups of lanes.
    pub fn over_groups(
        &self,
        k: &mut Builder,
        value: Value,
        mut combine: impl FnMut(&mut Builder, Value, Value) -> Value,
    ) -> Value {
        match self.target.layout {
            MatrixLayout::Mma => [1, 2].into_iter().fold(value, |value, mask| {
                let other = k.lane_xor(value, mask, self.target);
                combine(k, value, other)
            }),
            MatrixLayout::Mfma | MatrixLayout::Wmma3 | MatrixLayout::Wmma4 => {
                k.reduce_groups(value, COLUMNS, self.target, combine)
            }
        }
    }

    /// Combines a number over a line's columns.
    pub fn over_columns(
        &self,
        k: &mut Builder,
        value: Value,
        combine: impl FnMut(&mut Builder, Value, Value) -> Value,
    ) -> Value {
        match self.target.layout {
            MatrixLayout::Mma => k.reduce_groups(value, self.groups(), self.target, combine),
            MatrixLayout::Mfma | MatrixLayout::Wmma3 | MatrixLayout::Wmma4 => {
                k.reduce_lanes(value, COLUMNS, self.target, combine)
            }
        }
    }

    /// Columns n and n + 8 added up, in both, where the second is [`REST`] times as large as it
    /// should be; `parts` are a lane's lines.
    pub fn join(&self, k: &mut Builder, lane: Lane, parts: &[Value]) -> Value {
        if let [first, second] = *parts {
            let rest = k.float(second.ty, 1.0 / REST);
            return k.fma(second, rest, first);
        }
        let parts = parts[0];
        let half = k.i32(COLUMNS as i32 / 2);
        let first = k.cmp(Cmp::Lt, lane.n, half);
        let (one, rest) = (k.f32(1.0), k.float(Elem::F32, 1.0 / REST));
        let scale = k.select(first, one, rest);
        by_lane(k, parts, |k, part| {
            let part = k.mul(part, scale);
            let other = k.lane_xor(part, COLUMNS / 2, self.target);
            k.add(part, other)
        })
    }

    /// Zeros to begin a sum with.
    pub fn zeros(&self, k: &mut Builder) -> Value {
        k.zero(Elem::F32.vec(self.sums()))
    }
}

/// Applies a function of a number to each element of a vector.
pub(super) fn by_lane(
    k: &mut Builder,
    vector: Value,
    mut function: impl FnMut(&mut Builder, Value) -> Value,
) -> Value {
    (0..vector.ty.lanes).fold(vector, |all, index| {
        let x = k.extract(vector, index);
        let y = function(k, x);
        k.insert(y, all, index)
    })
}
