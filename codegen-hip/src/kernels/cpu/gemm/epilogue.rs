//! The epilogue: output expressions over staged accumulators, stored densely or appended to a
//! cache.
//!
//! Per row of the staged group, `rope` and `head_norm` nodes are computed first, innermost
//! first, each into a row of its own beside the stage; then the expression is evaluated vector by
//! vector over what is staged.

use super::{Env, Gemm, GemmSpec, RowGroup, Section, Span};
use crate::kernels::scalar;
use crate::kernels::section::nodes;
use crate::mlir::{Builder, Elem, Ty, Value};
use waveloom_ir::{DType, Expr, GemmOutput, Layout, Store, Type};

/// The epilogue of one section.
pub(super) struct Epilogue<'a> {
    gemm: &'a Gemm<'a>,
    env: &'a Env,
    section: &'a Section,
    /// Nodes with rows of their own, innermost first.
    nodes: Vec<&'a Expr>,
}

/// Some columns of a span: where they begin in it, and how many (at most L).
#[derive(Clone, Copy)]
struct Piece {
    offset: u64,
    lanes: u64,
}

/// One row of a span.
#[derive(Clone, Copy)]
struct RowAt {
    /// Row of x and of the results.
    row: Value,
    /// First column of the span.
    column: Value,
    /// Columns of the span, where it may be less than full.
    left: Option<Value>,
    /// Address of the row in the first staged slot.
    stage: Value,
}

impl<'a> Epilogue<'a> {
    pub(super) fn new(gemm: &'a Gemm<'a>, env: &'a Env, section: &'a Section) -> Epilogue<'a> {
        Epilogue { gemm, env, section, nodes: nodes(&gemm.spec.outputs, &section.outputs) }
    }

    /// Bytes of scratch for staged accumulators and nodes.
    pub(super) fn stage_bytes(
        spec: &GemmSpec,
        section: &Section,
        staged_rows: u64,
        lanes: u64,
    ) -> u64 {
        let slots = section.weights.len() as u64 * staged_rows;
        let rows = slots + nodes(&spec.outputs, &section.outputs).len() as u64;
        rows * section.span_columns(lanes) * 4
    }

    /// Evaluates and stores the outputs for the rows of `row_group`.
    pub(super) fn emit(&self, k: &mut Builder, span: Span, row_group: RowGroup) {
        let lanes = self.gemm.lanes();
        let columns = self.section.span_columns(lanes) as i64;
        let column = span.column;
        let left = self.section.has_tail(lanes).then_some(span.columns);
        let mut stage = k.offset_const(self.env.scratch, self.gemm.stage);
        if self.gemm.in_tiles() {
            let rows = k.mul_const(row_group.index, i64::from(self.gemm.config.rows));
            let bytes = k.mul_const(rows, columns * 4);
            stage = k.offset(stage, bytes);
        }
        let zero = k.i64(0);
        k.for_loop(zero, row_group.rows, 1, [], |k, index, []| {
            let row = k.add(row_group.first, index);
            let bytes = k.mul_const(index, columns * 4);
            let stage = k.offset(stage, bytes);
            let at = RowAt { row, column, left, stage };
            for index in 0..self.nodes.len() {
                self.node(k, index, at);
            }
            for &output in &self.section.outputs {
                let output_spec = &self.gemm.spec.outputs[output];
                match output_spec.store {
                    Store::Dense => self.store_dense(k, output, at),
                    Store::Append { .. } => {
                        self.append(k, output_spec, self.env.results[output], at)
                    }
                }
            }
            []
        });
    }

    fn lanes(&self) -> u64 {
        self.gemm.lanes()
    }

    fn vector(&self) -> Ty {
        Elem::F32.vec(self.gemm.target.lanes)
    }

    /// The pieces of columns `start..start + len`.
    fn pieces(&self, start: u64, len: u64) -> Vec<Piece> {
        let lanes = self.lanes();
        (0..len.div_ceil(lanes))
            .map(|i| Piece { offset: start + i * lanes, lanes: lanes.min(len - i * lanes) })
            .collect()
    }

    /// Address of a staged column: `slot` counts the section's weights, then its nodes.
    fn staged(&self, k: &mut Builder, slot: usize, offset: u64, at: RowAt) -> Value {
        let row_bytes = self.section.span_columns(self.lanes()) * 4;
        let rows = self.gemm.staged_rows();
        let weights = self.section.weights.len();
        if slot < weights {
            let bytes = slot as u64 * rows * row_bytes + offset * 4;
            return k.offset_const(at.stage, bytes as i64);
        }
        let nodes = self.gemm.stage as u64 + weights as u64 * rows * row_bytes;
        let bytes = nodes + (slot - weights) as u64 * row_bytes + offset * 4;
        k.offset_const(self.env.scratch, bytes as i64)
    }

    fn load_staged(&self, k: &mut Builder, slot: usize, offset: u64, at: RowAt) -> Value {
        let from = self.staged(k, slot, offset, at);
        k.load(from, self.vector())
    }

    fn slot_of_weight(&self, weight: u32) -> usize {
        self.section.weights.iter().position(|w| *w == weight as usize).unwrap_or(0)
    }

    /// The slot of a node that `emit` has computed.
    fn slot_of_node(&self, expr: &Expr) -> usize {
        let index = self.nodes.iter().position(|node| *node == expr).unwrap_or(0);
        self.section.weights.len() + index
    }

    /// How many columns of a piece exist; `None` where all lanes do.
    fn count(&self, k: &mut Builder, piece: Piece, at: RowAt) -> Option<Value> {
        let lanes = (piece.lanes < self.lanes()).then(|| k.i64(piece.lanes as i64));
        match (at.left, lanes) {
            (None, lanes) => lanes,
            (Some(left), lanes) => {
                let left = k.add_const(left, -(piece.offset as i64));
                Some(lanes.map_or(left, |lanes| k.min(left, lanes)))
            }
        }
    }

    fn eval(&self, k: &mut Builder, expr: &Expr, piece: Piece, at: RowAt) -> Value {
        match expr {
            Expr::Acc(i) => self.load_staged(k, self.slot_of_weight(*i), piece.offset, at),
            Expr::Rope { .. } | Expr::HeadNorm { .. } => {
                self.load_staged(k, self.slot_of_node(expr), piece.offset, at)
            }
            Expr::Operand(i) => self.operand(k, *i as usize, piece, at),
            Expr::Const(value) => k.float(self.vector(), value.0.into()),
            Expr::Unary(op, x) => {
                let x = self.eval(k, x, piece, at);
                scalar::unary(k, *op, x)
            }
            Expr::Binary(op, x, y) => {
                let x = self.eval(k, x, piece, at);
                let y = self.eval(k, y, piece, at);
                scalar::binary(k, *op, x, y)
            }
        }
    }

    /// Columns of an extra operand: of this row of a matrix, or of a vector.
    fn operand(&self, k: &mut Builder, index: usize, piece: Piece, at: RowAt) -> Value {
        let ty = &self.gemm.spec.extras[index];
        let mut start = at.column;
        if ty.rank() == 2 {
            let row = k.mul_const(at.row, self.section.n as i64);
            start = k.add(start, row);
        }
        let from = k.element(self.env.extras[index], Elem::F32, start);
        let from = k.offset_const(from, piece.offset as i64 * 4);
        let integers = ty.dtype == DType::I32;
        let vector = self.vector().with(if integers { Elem::I32 } else { Elem::F32 });
        let value = match self.count(k, piece, at) {
            None => k.load(from, vector),
            Some(count) => k.load_partial(from, vector, count),
        };
        if integers { k.sitofp(value, Elem::F32) } else { value }
    }

    /// Computes a node into its row.
    fn node(&self, k: &mut Builder, index: usize, at: RowAt) {
        let node = self.nodes[index];
        let target = self.section.weights.len() + index;
        let columns = self.section.span_columns(self.lanes());
        let (Expr::Rope { x, .. } | Expr::HeadNorm { x, .. }) = node else { return };
        let source = match &**x {
            Expr::Acc(i) => self.slot_of_weight(*i),
            inner @ (Expr::Rope { .. } | Expr::HeadNorm { .. }) => self.slot_of_node(inner),
            inner => {
                for piece in self.pieces(0, columns) {
                    let value = self.eval(k, inner, piece, at);
                    let to = self.staged(k, target, piece.offset, at);
                    k.store(value, to);
                }
                target
            }
        };
        let head_dim = match node {
            Expr::Rope { head_dim, .. } | Expr::HeadNorm { head_dim, .. } => u64::from(*head_dim),
            _ => return,
        };
        for head in 0..columns / head_dim {
            let slots = [source, target];
            match node {
                Expr::Rope { cos, sin, .. } => {
                    self.rope(k, slots, head * head_dim, head_dim / 2, [*cos, *sin], at);
                }
                Expr::HeadNorm { weight, eps, .. } => {
                    self.head_norm(k, slots, head * head_dim, head_dim, *weight, eps.0, at);
                }
                _ => {}
            }
        }
    }

    /// Rotates the head at column `start`: pairs `(i, i + half)`.
    fn rope(
        &self,
        k: &mut Builder,
        [source, target]: [usize; 2],
        start: u64,
        half: u64,
        angles: [u32; 2],
        at: RowAt,
    ) {
        for piece in self.pieces(0, half) {
            let index = k.mul_const(at.row, half as i64);
            let index = k.add_const(index, piece.offset as i64);
            let [cos, sin] = angles.map(|operand| {
                let from = k.element(self.env.extras[operand as usize], Elem::F32, index);
                self.load_piece(k, from, piece)
            });
            let low = self.load_staged(k, source, start + piece.offset, at);
            let high = self.load_staged(k, source, start + half + piece.offset, at);
            let a = k.mul(low, cos);
            let b = k.mul(high, sin);
            let new_low = k.sub(a, b);
            let a = k.mul(high, cos);
            let b = k.mul(low, sin);
            let new_high = k.add(a, b);
            self.store_staged(k, new_low, target, start + piece.offset, piece.lanes, at);
            self.store_staged(k, new_high, target, start + half + piece.offset, piece.lanes, at);
        }
    }

    /// Loads the columns of a piece; the other lanes are zero.
    fn load_piece(&self, k: &mut Builder, from: Value, piece: Piece) -> Value {
        if piece.lanes == self.lanes() {
            return k.load(from, self.vector());
        }
        let count = k.i64(piece.lanes as i64);
        k.load_partial(from, self.vector(), count)
    }

    fn store_staged(
        &self,
        k: &mut Builder,
        value: Value,
        slot: usize,
        offset: u64,
        lanes: u64,
        at: RowAt,
    ) {
        let to = self.staged(k, slot, offset, at);
        if lanes == self.lanes() {
            return k.store(value, to);
        }
        let count = k.i64(lanes as i64);
        k.store_partial(value, to, count);
    }

    /// RMS norm of the head at column `start`.
    #[allow(clippy::too_many_arguments)]
    fn head_norm(
        &self,
        k: &mut Builder,
        [source, target]: [usize; 2],
        start: u64,
        head_dim: u64,
        weight: u32,
        eps: f32,
        at: RowAt,
    ) {
        let pieces = self.pieces(0, head_dim);
        let mut sum = k.zero(self.vector());
        for piece in &pieces {
            let from = self.staged(k, source, start + piece.offset, at);
            let x = self.load_piece(k, from, *piece);
            sum = k.fma(x, x, sum);
        }
        let sum = k.reduce_add(sum);
        let scale = scalar::rms_scale(k, sum, head_dim, eps);
        let scale = k.splat(scale, self.gemm.target.lanes);
        for piece in &pieces {
            let x = self.load_staged(k, source, start + piece.offset, at);
            let from = self.env.extras[weight as usize];
            let from = k.offset_const(from, piece.offset as i64 * 4);
            let weight = self.load_piece(k, from, *piece);
            let x = k.mul(x, scale);
            let x = k.mul(x, weight);
            self.store_staged(k, x, target, start + piece.offset, piece.lanes, at);
        }
    }

    fn store_dense(&self, k: &mut Builder, output: usize, at: RowAt) {
        let row = k.mul_const(at.row, self.section.n as i64);
        let start = k.add(row, at.column);
        let start = k.element(self.env.results[output], Elem::F32, start);
        for piece in self.pieces(0, self.section.span_columns(self.lanes())) {
            let value = self.eval(k, &self.gemm.spec.outputs[output].expr, piece, at);
            let to = k.offset_const(start, piece.offset as i64 * 4);
            match self.count(k, piece, at) {
                None => k.store(value, to),
                Some(count) => k.store_partial(value, to, count),
            }
        }
    }

    /// Appends the heads of a row to a cache.
    fn append(&self, k: &mut Builder, output: &GemmOutput, cache: Value, at: RowAt) {
        let Some((ty, layout, positions)) = self.gemm.cache(output) else { return };
        let Some(head_dim) = ty.last_const() else { return };
        let from = k.element(self.env.extras[positions as usize], Elem::I32, at.row);
        let position = k.load(from, Elem::I32);
        let position = k.sext(position, Elem::I64);
        let first_head = {
            let dim = k.i64(head_dim as i64);
            k.udiv(at.column, dim)
        };
        let heads = self.section.span_columns(self.lanes()) / head_dim;
        for head in 0..heads {
            let index = k.add_const(first_head, head as i64);
            let store = |k: &mut Builder| {
                let to = self.cache_row(k, ty, layout, index, position);
                let to = k.element(cache, cache_elem(ty), to);
                for piece in self.pieces(0, head_dim) {
                    let offset = head * head_dim + piece.offset;
                    let value = self.eval(k, &output.expr, Piece { offset, ..piece }, at);
                    let value = to_cache(k, value, ty);
                    self.store_cached(k, value, to, layout, piece);
                }
            };
            match at.left {
                None => store(k),
                Some(left) => {
                    let start = k.i64((head * head_dim) as i64);
                    let exists = k.cmp(crate::mlir::builder::Cmp::Lt, start, left);
                    k.if_then(exists, store);
                }
            }
        }
    }

    /// Index of the first element of a head at a position.
    fn cache_row(
        &self,
        k: &mut Builder,
        ty: &Type,
        layout: Layout,
        head: Value,
        position: Value,
    ) -> Value {
        let head_dim = ty.last_const().unwrap_or(1) as i64;
        let capacity = match self.env.capacity {
            Some(capacity) => capacity,
            None => k.i64(0),
        };
        match layout {
            // [heads][C / width][head_dim][width]
            Layout::PositionLanes(width) => {
                let width = i64::from(width);
                let blocks = k.ceil_div_const(capacity, width);
                let divisor = k.i64(width);
                let block = k.udiv(position, divisor);
                let lane = k.rem(position, divisor);
                let before = k.mul(head, blocks);
                let block = k.add(before, block);
                let start = k.mul_const(block, head_dim * width);
                k.add(start, lane)
            }
            // [heads][C][head_dim]
            Layout::HeadMajor => {
                let before = k.mul(head, capacity);
                let row = k.add(before, position);
                k.mul_const(row, head_dim)
            }
            // [C][heads][head_dim]
            Layout::RowMajor => {
                let row = k.mul_const(position, self.section.n as i64);
                let column = k.mul_const(head, head_dim);
                k.add(row, column)
            }
            Layout::KeyBlocks(_) | Layout::ValueBlocks(_) => unreachable!("`check` refuses it"),
        }
    }

    /// Stores a piece of a head; `to` is the head's first element.
    fn store_cached(&self, k: &mut Builder, value: Value, to: Value, layout: Layout, piece: Piece) {
        let bytes = i64::from(value.ty.elem.bytes());
        match layout {
            Layout::PositionLanes(width) => {
                for lane in 0..piece.lanes {
                    let element = k.extract(value, lane as u32);
                    let index = (piece.offset + lane) as i64 * i64::from(width);
                    let to = k.offset_const(to, index * bytes);
                    k.store(element, to);
                }
            }
            Layout::HeadMajor | Layout::RowMajor => {
                let to = k.offset_const(to, piece.offset as i64 * bytes);
                if piece.lanes == self.lanes() {
                    return k.store(value, to);
                }
                let count = k.i64(piece.lanes as i64);
                k.store_partial(value, to, count);
            }
            Layout::KeyBlocks(_) | Layout::ValueBlocks(_) => unreachable!("`check` refuses it"),
        }
    }
}

/// The element type of a cache as the builder stores it.
fn cache_elem(ty: &Type) -> Elem {
    match ty.dtype {
        DType::F16 => Elem::F16,
        DType::BF16 => Elem::I16,
        _ => Elem::F32,
    }
}

/// f32 rounded to a cache's elements.
fn to_cache(k: &mut Builder, value: Value, ty: &Type) -> Value {
    match ty.dtype {
        DType::F16 => k.truncf(value, Elem::F16),
        DType::BF16 => k.f32_to_bf16(value),
        _ => value,
    }
}
