//! Ops row by row or element by element: `embed`, `norm`, `map`, `rope`, `cache_append`.
//!
//! A workgroup has a row, or a block of one, so that addresses of rows are scalars. They do in each
//! element what the interpreter does, in the same order, but for sums over a row.

mod packed;

use super::Instance;
use crate::kernels::instance::Draft;
use crate::kernels::map::{self, MapOperand};
use crate::kernels::{KernelError, KernelSource, real, scalar};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use packed::PackedRow;
use waveloom_ir::{Dim, Expr, F32, Layout};
use waveloom_plan as plan;

/// Most work-items of a workgroup.
const WORKGROUP: u32 = 256;
/// Numbers that a work-item of `map` takes at most.
const MAP_STEPS: u32 = 2;

/// Registers of a work-item besides the numbers of a row that it has: indices, addresses, and what
/// divisions of them need.
const BESIDES: u32 = 32;

/// How the work-items of a workgroup share a row.
#[derive(Clone, Copy)]
struct Share {
    /// Numbers that a work-item takes at once: 4, or 0 for one as a scalar.
    lanes: u32,
    workgroup: u32,
}

impl Share {
    /// For rows of `columns`: vectors where all rows are whole vectors, and no more waves than have
    /// something to do.
    fn new(op: &Instance<'_>, columns: Dim) -> Share {
        let Dim::Const(columns) = columns else {
            return Share { lanes: 0, workgroup: WORKGROUP.max(op.work_items) };
        };
        let lanes = if columns.is_multiple_of(4) { 4 } else { 0 };
        let vectors = columns.div_ceil(u64::from(lanes.max(1))).clamp(1, WORKGROUP.into()) as u32;
        Share { lanes, workgroup: vectors.next_multiple_of(op.target.wave).max(op.work_items) }
    }

    /// Columns that a workgroup takes at once.
    fn step(self) -> u32 {
        self.workgroup * self.lanes.max(1)
    }

    /// Plans for a work-item that has `vectors` vectors of the row at once.
    fn plan(self, k: &mut Builder, op: &Instance<'_>, vectors: u32) {
        k.plan_registers(vectors * self.lanes.max(1) + BESIDES, op.target);
    }

    /// Runs `body` with every `i32` column from `from` to `to` at which a vector of this work-item
    /// begins.
    fn for_columns(
        self,
        k: &mut Builder,
        from: Value,
        to: Value,
        body: impl FnOnce(&mut Builder, Value),
    ) {
        let thread = k.thread();
        let first = k.mul_const(thread, self.lanes.max(1).into());
        let first = k.add(from, first);
        k.for_strided(first, to, self.step(), body);
    }
}

/// f32 from a row of `elem`.
fn load(k: &mut Builder, elem: Elem, row: Value, column: Value, lanes: u32) -> Value {
    let at = k.element_u32(row, elem, column);
    real::load_whole(k, elem, at, lanes)
}

/// Writes f32 numbers to a row of `elem`.
fn store(k: &mut Builder, elem: Elem, value: Value, row: Value, column: Value) {
    let at = k.element_u32(row, elem, column);
    let value = real::narrow(k, value, elem);
    k.store_aligned(value, at, value.ty.bytes());
}

/// The workgroup, as `i64`: uniform.
fn item(k: &mut Builder) -> Value {
    let workgroup = k.workgroup();
    k.zext(workgroup, Elem::I64)
}

/// Number `index` of an array of i32, as i64.
fn load_index(k: &mut Builder, array: Value, index: Value) -> Value {
    let at = k.element(array, Elem::I32, index);
    let value = k.load(at, Elem::I32);
    // The same in all lanes: as a scalar, so are addresses.
    let value = k.first_lane(value);
    k.sext(value, Elem::I64)
}

/// `value` forced into `0..extent`.
fn clamped(k: &mut Builder, value: Value, extent: Value) -> Value {
    let last = k.add_const(extent, -1);
    let value = k.min(value, last);
    let zero = k.i64(0);
    k.max(value, zero)
}

/// `columns` must be below this, so that offsets in a row fit in 31 bits.
const MOST_COLUMNS: u64 = 1 << 28;

fn check_columns(op: &Instance<'_>, columns: Dim) -> Result<(), KernelError> {
    match op.module.max_extent(columns) < MOST_COLUMNS {
        true => Ok(()),
        false => Err(op.unsupported("rows are too long")),
    }
}

// ---- embed ----------------------------------------------------------------------------------

/// `embed`; a workgroup has an index. An index out of range reads the nearest row that is there.
pub(super) fn embed(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    let (table, indices) = (op.operand(0), op.operand(1));
    let Some((&rows, row)) = table.shape.split_first() else {
        return Err(op.unsupported("a table without rows"));
    };
    let columns = flattened(op, row)?;
    check_columns(op, columns)?;
    let items = op.product(&indices.shape)?;
    let summary = format!("embed {} {}", op.spell(table), op.spell(indices));
    let layout = op.packed(0)?;
    let elem = real::elem(table.dtype);
    let share = match layout {
        Some(layout) => {
            let workgroup = PackedRow::workgroup(layout, op.target).max(op.work_items);
            Share { lanes: 0, workgroup }
        }
        None => Share::new(op, columns),
    };
    let mut draft = Draft::for_gpu(format!("embed_{}", table.dtype), share.workgroup, op.target);
    let (table_at, indices) = (draft.buffer(0), draft.buffer(1));
    let result = draft.buffer(op.result_buffer());
    let rows = draft.number(op.product(&[rows])?);
    let columns = draft.number(op.product(&[columns])?);
    let k = &mut draft.builder;
    let item = item(k);
    let index = load_index(k, indices, item);
    let index = clamped(k, index, rows);
    let before = k.mul(item, columns);
    let to = k.element(result, Elem::F32, before);
    match (layout, elem) {
        (Some(layout), _) if table.shape[..] == [layout.rows, layout.cols].map(Dim::Const) => {
            PackedRow::new(k, layout, table_at, index).unpack(k, to, share.workgroup);
        }
        (Some(_), _) => return Err(op.unsupported("the table is a weight of another shape")),
        (None, Some(elem)) => {
            let before = k.mul(index, columns);
            let from = k.element(table_at, elem, before);
            let (start, end) = (k.i32(0), k.trunc(columns, Elem::I32));
            share.for_columns(k, start, end, |k, column| {
                let row = load(k, elem, from, column, share.lanes);
                store(k, Elem::F32, row, to, column);
            });
        }
        (None, None) => return Err(op.unsupported(format!("a table of {}", table.dtype))),
    }
    match layout {
        Some(layout) => draft.builder.plan_registers(PackedRow::registers(layout), op.target),
        None => share.plan(&mut draft.builder, op, 1),
    }
    Ok(draft.finish(summary, items, 0))
}

/// One extent for all of `dims`, which are constant unless there is only one.
fn flattened(op: &Instance<'_>, dims: &[Dim]) -> Result<Dim, KernelError> {
    if let [dim] = *dims {
        return Ok(dim);
    }
    let product = dims.iter().try_fold(1u64, |product, &dim| {
        let product = product.checked_mul(op.constant(dim)?.into());
        product.ok_or_else(|| op.unsupported("a row is too large"))
    });
    product.map(Dim::Const)
}

// ---- norm -----------------------------------------------------------------------------------

/// `norm`; a workgroup has a row.
pub(super) fn norm(op: &Instance<'_>, eps: F32) -> Result<KernelSource, KernelError> {
    let (x, weight) = (op.operand(0), op.operand(1));
    let Some((&columns, rows)) = x.shape.split_last() else {
        return Err(op.unsupported("x has no rows"));
    };
    check_columns(op, columns)?;
    let items = op.product(rows)?;
    let elem = real::elem(weight.dtype)
        .ok_or_else(|| op.unsupported(format!("a weight of {}", weight.dtype)))?;
    op.refuse_packed()?;
    let share = Share::new(op, columns);
    let columns = op.constant(columns)?;
    let mut draft = Draft::for_gpu("norm", share.workgroup, op.target);
    let (x_at, weight_at) = (draft.buffer(0), draft.buffer(1));
    let result = draft.buffer(op.result_buffer());
    let k = &mut draft.builder;
    let item = item(k);
    let before = k.mul_const(item, columns.into());
    let row = k.element(x_at, Elem::F32, before);
    let to = k.element(result, Elem::F32, before);
    let (start, end) = (k.i32(0), k.i32(columns as i32));
    let sum = sum_of_squares(k, op, row, end, share);
    let scale = scalar::rms_scale(k, sum, columns.into(), eps.0);
    let scale = if share.lanes > 0 { k.splat(scale, share.lanes) } else { scale };
    share.for_columns(k, start, end, |k, column| {
        let x = load(k, Elem::F32, row, column, share.lanes);
        let weight = load(k, elem, weight_at, column, share.lanes);
        let x = k.mul(x, scale);
        let x = k.mul(x, weight);
        store(k, Elem::F32, x, to, column);
    });
    // x, the weight, the scale and the sum.
    share.plan(k, op, 4);
    Ok(draft.finish(format!("norm {}", op.spell(x)), items, 0))
}

/// Σ x² over a row, in every work-item: by work-item, by wave, then over the waves.
fn sum_of_squares(
    k: &mut Builder,
    op: &Instance<'_>,
    row: Value,
    columns: Value,
    share: Share,
) -> Value {
    let thread = k.thread();
    let first = k.mul_const(thread, share.lanes.max(1).into());
    let zero = k.zero(Elem::F32.vec(share.lanes));
    let [sum] = k.for_loop(first, columns, share.step().into(), [zero], |k, column, [sum]| {
        let x = load(k, Elem::F32, row, column, share.lanes);
        [k.fma(x, x, sum)]
    });
    let sum = if share.lanes > 0 { k.reduce_add(sum) } else { sum };
    let sum = k.reduce_lanes(sum, op.target.wave, op.target, |k, a, b| k.add(a, b));
    let waves = share.workgroup / op.target.wave;
    if waves == 1 {
        return sum;
    }
    let shared = k.shared(4 * waves);
    let wave = k.wave(op.target);
    let at = k.element_u32(shared, Elem::F32, wave);
    let lane = k.lane(op.target);
    let zero = k.i32(0);
    let is_first = k.cmp(Cmp::Eq, lane, zero);
    k.if_then(is_first, |k| k.store(sum, at));
    k.barrier_shared();
    let mut sum = k.load(shared, Elem::F32);
    for wave in 1..waves {
        let at = k.offset_const(shared, 4 * i64::from(wave));
        let other = k.load(at, Elem::F32);
        sum = k.add(sum, other);
    }
    sum
}

// ---- map ------------------------------------------------------------------------------------

/// `map`; a workgroup has a block of a row of the result.
pub(super) fn map(op: &Instance<'_>, expr: &Expr) -> Result<KernelSource, KernelError> {
    map::check(op, expr)?;
    op.refuse_packed()?;
    let (columns, outer) = map::columns_and_outer(op);
    check_columns(op, columns)?;
    let share = Share::new(op, columns);
    let block = i64::from(share.step() * MAP_STEPS);
    let columns = op.extent(columns)?;
    let blocks = match &columns {
        plan::Expr::Const(columns) => plan::Expr::from((columns + block - 1) / block),
        columns => {
            plan::Expr::CeilDiv(Box::new(columns.clone()), Box::new(plan::Expr::from(block)))
        }
    };
    let one_block = blocks == plan::Expr::from(1);
    let items = op.product(&outer)? * blocks;
    let mut draft = Draft::for_gpu("map", share.workgroup, op.target);
    let operands = (0..op.inst.operands.len())
        .map(|index| MapOperand::new(op, &mut draft, index))
        .collect::<Result<Vec<_>, _>>()?;
    let extents = outer
        .iter()
        .map(|&dim| Ok(draft.number(op.extent(dim)?)))
        .collect::<Result<Vec<_>, _>>()?;
    let result_at = draft.buffer(op.result_buffer());
    let columns = draft.number(columns);
    let k = &mut draft.builder;
    let item = item(k);
    let (row, from) = match one_block {
        true => (item, k.i64(0)),
        false => {
            let blocks = k.ceil_div_const(columns, block);
            let (row, index) = (k.udiv(item, blocks), k.rem(item, blocks));
            (row, k.mul_const(index, block))
        }
    };
    let to = k.add_const(from, block);
    let to = k.min(to, columns);
    let indices = map::split_index(k, row, &extents);
    let rows: Vec<Value> = operands.iter().map(|operand| operand.row(k, &indices)).collect();
    let before = k.mul(row, columns);
    let result = k.element(result_at, Elem::F32, before);
    let (from, to) = (k.trunc(from, Elem::I32), k.trunc(to, Elem::I32));
    share.for_columns(k, from, to, |k, column| {
        let values: Vec<Value> = operands
            .iter()
            .zip(&rows)
            .map(|(operand, &row)| {
                let read = |k: &mut Builder, elem, row| load(k, elem, row, column, share.lanes);
                operand.load(k, row, share.lanes, read)
            })
            .collect();
        let value = map::evaluate(k, expr, &values, share.lanes);
        store(k, Elem::F32, value, result, column);
    });
    // The operands, the result, and a number or two on the way to it.
    share.plan(k, op, operands.len() as u32 + 3);
    Ok(draft.finish(format!("map {} {expr}", op.spell(op.result())), items, 0))
}

// ---- rope -----------------------------------------------------------------------------------

/// `rope`; a workgroup has the heads of a row, a work-item pairs of elements.
pub(super) fn rope(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    let x = op.operand(0);
    let [rows, heads, head_dim] = x.shape[..] else {
        return Err(op.unsupported("x is not [T, heads, head_dim]"));
    };
    let items = op.product(&[rows])?;
    op.refuse_packed()?;
    let (heads, half) = (op.constant(heads)?, op.constant(head_dim)? / 2);
    let pairs = Dim::Const(u64::from(heads) * u64::from(half));
    check_columns(op, pairs)?;
    let (half, heads) = (i64::from(half), i64::from(heads));
    let share = Share { lanes: 0, ..Share::new(op, pairs) };
    let mut draft = Draft::for_gpu("rope", share.workgroup, op.target);
    let (x_at, cos_at, sin_at) = (draft.buffer(0), draft.buffer(1), draft.buffer(2));
    let result = draft.buffer(op.result_buffer());
    let k = &mut draft.builder;
    let item = item(k);
    let angles = k.mul_const(item, half);
    let [cos, sin] = [cos_at, sin_at].map(|table| k.element(table, Elem::F32, angles));
    let before = k.mul_const(item, 2 * half * heads);
    let [row, to] = [x_at, result].map(|array| k.element(array, Elem::F32, before));
    let (start, end) = (k.i32(0), k.i32((heads * half) as i32));
    share.for_columns(k, start, end, |k, pair| {
        let divisor = k.i32(half as i32);
        let (head, angle) = (k.udiv(pair, divisor), k.rem(pair, divisor));
        let cos = load(k, Elem::F32, cos, angle, 0);
        let sin = load(k, Elem::F32, sin, angle, 0);
        let low = k.mul_const(head, 2 * half);
        let low = k.add(low, angle);
        let high = k.add_const(low, half);
        let x = load(k, Elem::F32, row, low, 0);
        let y = load(k, Elem::F32, row, high, 0);
        let (xc, ys) = (k.mul(x, cos), k.mul(y, sin));
        let (yc, xs) = (k.mul(y, cos), k.mul(x, sin));
        let (x, y) = (k.sub(xc, ys), k.add(yc, xs));
        store(k, Elem::F32, x, to, low);
        store(k, Elem::F32, y, to, high);
    });
    // x, y, their angle's two numbers, four products.
    share.plan(k, op, 8);
    Ok(draft.finish(format!("rope {}", op.spell(x)), items, 0))
}

// ---- cache_append ---------------------------------------------------------------------------

/// `cache_append`; a workgroup has a new row. Rows with a position beyond the capacity are dropped.
pub(super) fn cache_append(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    let (cache, new) = (op.operand(0), op.operand(1));
    let Some((&capacity, row)) = cache.shape.split_first() else {
        return Err(op.unsupported("a cache without rows"));
    };
    let (heads, head_dim) = match (cache.layout, row) {
        (_, &[heads, head_dim]) => (op.constant(heads)?, op.constant(head_dim)?),
        (Layout::RowMajor, row) => (1, op.constant(flattened(op, row)?)?),
        _ => return Err(op.unsupported("a cache by head is not [C, heads, head_dim]")),
    };
    let elem = real::elem(cache.dtype)
        .ok_or_else(|| op.unsupported(format!("a KV cache of {}", cache.dtype)))?;
    let wide = 16 / elem.bytes();
    if matches!(cache.layout, Layout::KeyBlocks(_)) && !head_dim.is_multiple_of(wide) {
        return Err(op.unsupported(format!("head_dim {head_dim} is no multiple of {wide}")));
    }
    let elements = Dim::Const(u64::from(heads) * u64::from(head_dim));
    check_columns(op, elements)?;
    let items = op.product(&new.shape[..1])?;
    let capacity = op.product(&[capacity])?;
    op.refuse_packed()?;
    let share = Share { lanes: 0, ..Share::new(op, elements) };
    let mut draft = Draft::for_gpu("cache_append", share.workgroup, op.target);
    let array = draft.buffer(op.result_buffer());
    let capacity = draft.number(capacity);
    let cache_at = Cache { capacity, layout: cache.layout, heads, head_dim, wide };
    let (new_at, positions) = (draft.buffer(1), draft.buffer(2));
    let k = &mut draft.builder;
    let item = item(k);
    let position = load_index(k, positions, item);
    let before = k.mul_const(item, i64::from(heads) * i64::from(head_dim));
    let row = k.element(new_at, Elem::F32, before);
    let fits = k.cmp(Cmp::Ult, position, capacity);
    k.if_then(fits, |k| {
        let (start, end) = (k.i32(0), k.i32((heads * head_dim) as i32));
        share.for_columns(k, start, end, |k, column| {
            let value = load(k, Elem::F32, row, column, 0);
            let value = real::narrow(k, value, elem);
            let divisor = k.i32(head_dim as i32);
            let (head, element) = (k.udiv(column, divisor), k.rem(column, divisor));
            let index = cache_at.index(k, position, head, element);
            let at = k.element(array, elem, index);
            k.store(value, at);
        });
    });
    share.plan(k, op, 1);
    Ok(draft.finish(format!("cache_append {} {}", op.spell(cache), op.spell(new)), items, 0))
}

/// A KV cache that is written to.
struct Cache {
    capacity: Value,
    layout: Layout,
    heads: u32,
    head_dim: u32,
    /// Elements of 16 bytes.
    wide: u32,
}

impl Cache {
    /// The index, `i64`, of an element of head `head`, both `i32`: `waveloom_ir::Layout::index`.
    fn index(&self, k: &mut Builder, position: Value, head: Value, element: Value) -> Value {
        let [head, element] = [head, element].map(|value| k.zext(value, Elem::I64));
        let head_dim = i64::from(self.head_dim);
        match self.layout {
            Layout::RowMajor => {
                let row = k.mul_const(position, self.heads.into());
                let row = k.add(row, head);
                linear(k, row, head_dim, element)
            }
            Layout::HeadMajor => {
                let row = k.mul(head, self.capacity);
                let row = k.add(row, position);
                linear(k, row, head_dim, element)
            }
            Layout::PositionLanes(lanes) => {
                let (block, lane) = self.block(k, head, position, lanes, lanes);
                let row = linear(k, block, head_dim, element);
                linear(k, row, lanes.into(), lane)
            }
            Layout::KeyBlocks(lanes) => {
                let (block, lane) = self.block(k, head, position, lanes, lanes);
                let wide = k.i64(self.wide.into());
                let (chunk, element) = (k.udiv(element, wide), k.rem(element, wide));
                let row = linear(k, block, head_dim / i64::from(self.wide), chunk);
                let row = linear(k, row, lanes.into(), lane);
                linear(k, row, self.wide.into(), element)
            }
            Layout::ValueBlocks(lanes) => {
                let (block, lane) = self.block(k, head, position, lanes, self.wide);
                let row = linear(k, block, head_dim, element);
                linear(k, row, self.wide.into(), lane)
            }
        }
    }

    /// Block of `wide` positions, and position in it, of a cache whose capacity is rounded up to
    /// `lanes`.
    fn block(
        &self,
        k: &mut Builder,
        head: Value,
        position: Value,
        lanes: u32,
        wide: u32,
    ) -> (Value, Value) {
        let groups = k.ceil_div_const(self.capacity, lanes.into());
        let blocks = k.mul_const(groups, (lanes / wide).into());
        let before = k.mul(head, blocks);
        let wide = k.i64(wide.into());
        let (block, lane) = (k.udiv(position, wide), k.rem(position, wide));
        (k.add(before, block), lane)
    }
}

/// `row · width + column`.
fn linear(k: &mut Builder, row: Value, width: i64, column: Value) -> Value {
    let before = k.mul_const(row, width);
    k.add(before, column)
}

#[cfg(test)]
mod tests;
