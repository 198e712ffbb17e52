//! Kernels that work row by row: `embed`, `norm`, `map`, `rope`, `cache_append`.
//!
//! They do in each element what the interpreter does, in the same order, but for sums over a
//! row, which run in `L` lanes.

use super::Instance;
use crate::kernels::instance::Draft;
use crate::kernels::map::{self, MapOperand};
use crate::kernels::{KernelError, KernelSource, extent_expr, real, scalar};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use crate::pack::{BLOCK, PackedLayout, Q8_BIAS};
use waveloom_ir::{DType, Dim, Expr, F32, Layout};
use waveloom_plan as plan;

/// Elements of a row that one work item of `map` takes.
const MAP_BLOCK: i64 = 1024;

/// Calls `body` for each `lanes` of the indices `from..to`, with the index and, for the last ones
/// where they are fewer, their number.
fn for_vectors(
    k: &mut Builder,
    from: Value,
    to: Value,
    lanes: u32,
    mut body: impl FnMut(&mut Builder, Value, Option<Value>),
) {
    let length = k.sub(to, from);
    let step = k.i64(lanes.into());
    let rest = k.rem(length, step);
    let whole = k.sub(to, rest);
    k.for_loop(from, whole, lanes.into(), [], |k, index, []| {
        body(k, index, None);
        []
    });
    let zero = k.i64(0);
    let any = k.cmp(Cmp::Gt, rest, zero);
    k.if_then(any, |k| body(k, whole, Some(rest)));
}

/// f32 from an array of `elem`: element `index` and those after it; the first `count` of `lanes`
/// where given, zeros after them.
fn load(
    k: &mut Builder,
    elem: Elem,
    array: Value,
    index: Value,
    lanes: u32,
    count: Option<Value>,
) -> Value {
    let at = k.element(array, elem, index);
    match count {
        None => real::load(k, elem, at, lanes),
        Some(count) => real::load_partial(k, elem, at, lanes, count),
    }
}

/// Writes f32 numbers to an array of `elem`, as [`load`] reads them.
fn store(
    k: &mut Builder,
    elem: Elem,
    value: Value,
    array: Value,
    index: Value,
    count: Option<Value>,
) {
    let at = k.element(array, elem, index);
    let value = real::narrow(k, value, elem);
    match count {
        None => k.store(value, at),
        Some(count) => k.store_partial(value, at, count),
    }
}

/// `value` forced into `0..extent`.
fn clamped(k: &mut Builder, value: Value, extent: Value) -> Value {
    let last = k.add_const(extent, -1);
    let value = k.min(value, last);
    let zero = k.i64(0);
    k.max(value, zero)
}

/// Number `index` of an array of i32, as i64.
fn load_index(k: &mut Builder, array: Value, index: Value) -> Value {
    let at = k.element(array, Elem::I32, index);
    let value = k.load(at, Elem::I32);
    k.sext(value, Elem::I64)
}

// ---- embed ----------------------------------------------------------------------------------

/// `embed`; an item is an index. An index out of range reads the nearest row that is there.
pub(super) fn embed(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    let (table, indices) = (op.operand(0), op.operand(1));
    let Some((&rows, row)) = table.shape.split_first() else {
        return Err(op.unsupported("a table without rows"));
    };
    let items = op.product(&indices.shape)?;
    let rows = op.product(&[rows])?;
    let summary = format!("embed {} {}", op.spell(table), op.spell(indices));
    let form = match op.packed(0)? {
        Some(layout) if table.shape == dims_of(layout) => Form::Packed(layout),
        Some(_) => return Err(op.unsupported("the table is a weight of another shape")),
        None => Form::Plain(
            real::elem(table.dtype)
                .ok_or_else(|| op.unsupported(format!("a table of {}", table.dtype)))?,
        ),
    };
    let mut draft = Draft::new(format!("embed_{}", table.dtype));
    let (table, indices) = (draft.buffer(0), draft.buffer(1));
    let result = draft.buffer(op.result_buffer());
    let rows = draft.number(rows);
    let columns = draft.number(op.product(row)?);
    let k = &mut draft.builder;
    let (first, last) = (k.first(), k.last());
    k.for_loop(first, last, 1, [], |k, item, []| {
        let index = load_index(k, indices, item);
        let index = clamped(k, index, rows);
        let before = k.mul(item, columns);
        let to = k.element(result, Elem::F32, before);
        match form {
            Form::Plain(elem) => {
                let before = k.mul(index, columns);
                let from = k.element(table, elem, before);
                copy_row(k, elem, from, to, columns, op.target.lanes);
            }
            Form::Packed(layout) => PackedRow::new(k, layout, table, index).unpack(k, to),
        }
        []
    });
    Ok(draft.finish(summary, items, 0))
}

fn dims_of(layout: PackedLayout) -> [Dim; 2] {
    [Dim::Const(layout.rows), Dim::Const(layout.cols)]
}

/// How a table lies in memory.
#[derive(Clone, Copy)]
enum Form {
    /// Rows one after another.
    Plain(Elem),
    /// As `crate::pack` says.
    Packed(PackedLayout),
}

fn copy_row(k: &mut Builder, elem: Elem, from: Value, to: Value, columns: Value, lanes: u32) {
    let zero = k.i64(0);
    for_vectors(k, zero, columns, lanes, |k, column, count| {
        let row = load(k, elem, from, column, lanes, count);
        store(k, Elem::F32, row, to, column, count);
    });
}

/// One row of a packed matrix: every `L`-th group of elements of its tile.
struct PackedRow {
    layout: PackedLayout,
    tile: Value,
    lane: Value,
}

impl PackedRow {
    fn new(k: &mut Builder, layout: PackedLayout, table: Value, row: Value) -> PackedRow {
        let lanes = k.i64(layout.lanes as i64);
        let tile = k.udiv(row, lanes);
        let lane = k.rem(row, lanes);
        let bytes = k.mul_const(tile, layout.tile_bytes() as i64);
        PackedRow { layout, tile: k.offset(table, bytes), lane }
    }

    /// The address of group `group` of this row, of `bytes` each, after `offset` bytes.
    fn group(&self, k: &mut Builder, offset: u64, group: Value, bytes: u64) -> Value {
        let before = k.mul_const(group, self.layout.lanes as i64);
        let group = k.add(before, self.lane);
        let base = k.offset_const(self.tile, offset as i64);
        let bytes = k.mul_const(group, bytes as i64);
        k.offset(base, bytes)
    }

    /// Writes the row as f32.
    fn unpack(&self, k: &mut Builder, to: Value) {
        match self.layout.dtype {
            DType::F32 => self.unpack_plain(k, Elem::F32, to),
            DType::F16 => self.unpack_plain(k, Elem::F16, to),
            DType::BF16 => self.unpack_pairs(k, to),
            _ => self.unpack_blocks(k, to),
        }
    }

    fn unpack_plain(&self, k: &mut Builder, elem: Elem, to: Value) {
        let (from, columns) = (k.i64(0), k.i64(self.layout.cols as i64));
        k.for_loop(from, columns, 1, [], |k, column, []| {
            let at = self.group(k, 0, column, elem.bytes().into());
            let value = real::load(k, elem, at, 0);
            store(k, Elem::F32, value, to, column, None);
            []
        });
    }

    /// bf16: two columns side by side.
    fn unpack_pairs(&self, k: &mut Builder, to: Value) {
        let columns = self.layout.cols as i64;
        let (from, pairs) = (k.i64(0), k.i64(columns / 2));
        let half = |k: &mut Builder, pair: Value, second: bool| {
            let at = self.group(k, 0, pair, 4);
            let at = k.offset_const(at, if second { 2 } else { 0 });
            let value = real::load(k, Elem::I16, at, 0);
            let column = k.mul_const(pair, 2);
            let column = k.add_const(column, second.into());
            store(k, Elem::F32, value, to, column, None);
        };
        k.for_loop(from, pairs, 1, [], |k, pair, []| {
            half(k, pair, false);
            half(k, pair, true);
            []
        });
        if columns % 2 == 1 {
            half(k, pairs, false);
        }
    }

    /// Block formats: four quants of a row side by side.
    fn unpack_blocks(&self, k: &mut Builder, to: Value) {
        let blocks = self.layout.cols / BLOCK;
        let (from, blocks) = (k.i64(0), k.i64(blocks as i64));
        k.for_loop(from, blocks, 1, [], |k, block, []| {
            let bytes = k.mul_const(block, self.layout.block_stride() as i64);
            let this = PackedRow { tile: k.offset(self.tile, bytes), ..*self };
            let number = k.i64(0);
            let scale = this.half(k, number);
            let minimum = (self.layout.scales_per_block() == 2).then(|| {
                let number = k.i64(1);
                this.half(k, number)
            });
            let column = k.mul_const(block, BLOCK as i64);
            let to = k.element(to, Elem::F32, column);
            let groups = if self.layout.dtype == DType::Q8_0 { 8 } else { 4 };
            for group in 0..groups {
                let number = k.i64(group);
                let at = this.group(k, self.layout.quants_offset(), number, 4);
                let bytes = k.load(at, Elem::I8.vec(4));
                for (quants, column) in self.quants(k, bytes, group) {
                    let value = k.mul(quants, scale);
                    let value = minimum.map_or(value, |minimum| k.add(value, minimum));
                    let at = k.offset_const(to, column * 4);
                    k.store(value, at);
                }
            }
            []
        });
    }

    /// f16 number `number` of the row's scales and minima, in four lanes.
    fn half(&self, k: &mut Builder, number: Value) -> Value {
        let at = self.group(k, 0, number, 2);
        let value = real::load(k, Elem::F16, at, 0);
        k.splat(value, 4)
    }

    /// What four bytes hold: quants as f32, and the column in the block of the first.
    fn quants(&self, k: &mut Builder, bytes: Value, group: i64) -> Vec<(Value, i64)> {
        if self.layout.dtype == DType::Q8_0 {
            let bias = k.int(bytes.ty, i64::from(Q8_BIAS.cast_signed()));
            let quants = k.sub(bytes, bias);
            let quants = k.sext(quants, Elem::I32);
            return vec![(k.sitofp(quants, Elem::F32), 4 * group)];
        }
        let bytes = k.zext(bytes, Elem::I32);
        let (mask, shift) = (k.int(bytes.ty, 15), k.int(bytes.ty, 4));
        let (low, high) = (k.and(bytes, mask), k.shr_u(bytes, shift));
        let center = if self.layout.dtype == DType::Q4_0 { -8 } else { 0 };
        [(low, 4 * group), (high, 4 * group + 16)]
            .map(|(quants, column)| {
                let quants = k.add_const(quants, center);
                (k.sitofp(quants, Elem::F32), column)
            })
            .into()
    }
}

// ---- norm -----------------------------------------------------------------------------------

/// `norm`; an item is a row.
pub(super) fn norm(op: &Instance<'_>, eps: F32) -> Result<KernelSource, KernelError> {
    let (x, weight) = (op.operand(0), op.operand(1));
    let Some((&columns, rows)) = x.shape.split_last() else {
        return Err(op.unsupported("x has no rows"));
    };
    let columns = op.constant(columns)?;
    let items = op.product(rows)?;
    let elem = real::elem(weight.dtype)
        .ok_or_else(|| op.unsupported(format!("a weight of {}", weight.dtype)))?;
    op.refuse_packed()?;
    let mut draft = Draft::new("norm");
    let (x_at, weight_at) = (draft.buffer(0), draft.buffer(1));
    let result = draft.buffer(op.result_buffer());
    let lanes = op.target.lanes;
    let k = &mut draft.builder;
    let (first, last) = (k.first(), k.last());
    k.for_loop(first, last, 1, [], |k, item, []| {
        let before = k.mul_const(item, columns.into());
        let row = k.element(x_at, Elem::F32, before);
        let to = k.element(result, Elem::F32, before);
        let sum = sum_of_squares(k, row, columns, lanes);
        let scale = scalar::rms_scale(k, sum, columns.into(), eps.0);
        let scale = k.splat(scale, lanes);
        let (from, columns) = (k.i64(0), k.i64(columns.into()));
        for_vectors(k, from, columns, lanes, |k, column, count| {
            let x = load(k, Elem::F32, row, column, lanes, count);
            let weight = load(k, elem, weight_at, column, lanes, count);
            let x = k.mul(x, scale);
            let x = k.mul(x, weight);
            store(k, Elem::F32, x, to, column, count);
        });
        []
    });
    Ok(draft.finish(format!("norm {}", op.spell(x)), items, 0))
}

/// Σ x² over a row: lane by lane, then over the lanes.
fn sum_of_squares(k: &mut Builder, row: Value, columns: u32, lanes: u32) -> Value {
    let rest = columns % lanes;
    let (from, whole) = (k.i64(0), k.i64((columns - rest).into()));
    let zero = k.zero(Elem::F32.vec(lanes));
    let [mut sum] = k.for_loop(from, whole, lanes.into(), [zero], |k, column, [sum]| {
        let x = load(k, Elem::F32, row, column, lanes, None);
        [k.fma(x, x, sum)]
    });
    if rest > 0 {
        let count = k.i64(rest.into());
        let x = load(k, Elem::F32, row, whole, lanes, Some(count));
        sum = k.fma(x, x, sum);
    }
    k.reduce_add(sum)
}

// ---- map ------------------------------------------------------------------------------------

/// `map`; an item is [`MAP_BLOCK`] elements of a row of the result.
pub(super) fn map(op: &Instance<'_>, expr: &Expr) -> Result<KernelSource, KernelError> {
    map::check(op, expr)?;
    let (columns, outer) = map::columns_and_outer(op);
    let lanes = op.target.lanes;
    let blocks = plan::Expr::CeilDiv(
        Box::new(extent_expr(op.module, columns)?),
        Box::new(plan::Expr::from(MAP_BLOCK)),
    );
    let items = op.product(&outer)? * constant_folded(blocks);
    op.refuse_packed()?;
    let mut draft = Draft::new("map");
    let operands = (0..op.inst.operands.len())
        .map(|index| MapOperand::new(op, &mut draft, index))
        .collect::<Result<Vec<_>, _>>()?;
    let extents = outer
        .iter()
        .map(|&dim| Ok(draft.number(extent_expr(op.module, dim)?)))
        .collect::<Result<Vec<_>, _>>()?;
    let result_at = draft.buffer(op.result_buffer());
    let columns = draft.number(extent_expr(op.module, columns)?);
    let k = &mut draft.builder;
    let (first, last) = (k.first(), k.last());
    let blocks = k.ceil_div_const(columns, MAP_BLOCK);
    k.for_loop(first, last, 1, [], |k, item, []| {
        let row = k.udiv(item, blocks);
        let block = k.rem(item, blocks);
        let from = k.mul_const(block, MAP_BLOCK);
        let to = k.add_const(from, MAP_BLOCK);
        let to = k.min(to, columns);
        let indices = map::split_index(k, row, &extents);
        let rows: Vec<Value> = operands.iter().map(|operand| operand.row(k, &indices)).collect();
        let before = k.mul(row, columns);
        let result = k.element(result_at, Elem::F32, before);
        for_vectors(k, from, to, lanes, |k, column, count| {
            let values: Vec<Value> = operands
                .iter()
                .zip(&rows)
                .map(|(operand, &row)| {
                    operand.load(k, row, lanes, |k, elem, row| {
                        load(k, elem, row, column, lanes, count)
                    })
                })
                .collect();
            let value = map::evaluate(k, expr, &values, lanes);
            store(k, Elem::F32, value, result, column, count);
        });
        []
    });
    Ok(draft.finish(format!("map {} {expr}", op.spell(op.result())), items, 0))
}

fn constant_folded(expr: plan::Expr) -> plan::Expr {
    let has_symbol = expr.eval(&[]).is_none();
    if has_symbol { expr } else { expr.eval(&[]).map_or(expr, plan::Expr::from) }
}

// ---- rope -----------------------------------------------------------------------------------

/// `rope`; an item is one head of one row.
pub(super) fn rope(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    let x = op.operand(0);
    let [rows, heads, head_dim] = x.shape[..] else {
        return Err(op.unsupported("x is not [T, heads, head_dim]"));
    };
    let items = op.product(&[rows, heads])?;
    let (heads, half) = (op.constant(heads)?, op.constant(head_dim)? / 2);
    op.refuse_packed()?;
    let mut draft = Draft::new("rope");
    let (x_at, cos_at, sin_at) = (draft.buffer(0), draft.buffer(1), draft.buffer(2));
    let result = draft.buffer(op.result_buffer());
    let lanes = op.target.lanes;
    let k = &mut draft.builder;
    let (first, last) = (k.first(), k.last());
    k.for_loop(first, last, 1, [], |k, item, []| {
        let heads = k.i64(heads.into());
        let row = k.udiv(item, heads);
        let angles = k.mul_const(row, half.into());
        let cos = k.element(cos_at, Elem::F32, angles);
        let sin = k.element(sin_at, Elem::F32, angles);
        let before = k.mul_const(item, 2 * i64::from(half));
        let low = k.element(x_at, Elem::F32, before);
        let high = k.offset_const(low, 4 * i64::from(half));
        let to_low = k.element(result, Elem::F32, before);
        let to_high = k.offset_const(to_low, 4 * i64::from(half));
        let (from, to) = (k.i64(0), k.i64(half.into()));
        for_vectors(k, from, to, lanes, |k, column, count| {
            let [cos, sin, x, y] =
                [cos, sin, low, high].map(|at| load(k, Elem::F32, at, column, lanes, count));
            let (xc, ys) = (k.mul(x, cos), k.mul(y, sin));
            let (yc, xs) = (k.mul(y, cos), k.mul(x, sin));
            let (x, y) = (k.sub(xc, ys), k.add(yc, xs));
            store(k, Elem::F32, x, to_low, column, count);
            store(k, Elem::F32, y, to_high, column, count);
        });
        []
    });
    Ok(draft.finish(format!("rope {}", op.spell(x)), items, 0))
}

// ---- cache_append ---------------------------------------------------------------------------

/// `cache_append`; an item is a new row. Rows with a position beyond the capacity are dropped.
pub(super) fn cache_append(op: &Instance<'_>) -> Result<KernelSource, KernelError> {
    let (cache, new) = (op.operand(0), op.operand(1));
    let Some((&capacity, row)) = cache.shape.split_first() else {
        return Err(op.unsupported("a cache without rows"));
    };
    let (heads, head_dim) = match (cache.layout, row) {
        (_, &[heads, head_dim]) => (op.constant(heads)?, op.constant(head_dim)?),
        (Layout::RowMajor, row) => {
            let elements = row.iter().try_fold(1u32, |n, &dim| {
                let product = n.checked_mul(op.constant(dim)?);
                product.ok_or_else(|| op.unsupported("a row is too large"))
            });
            (1, elements?)
        }
        _ => return Err(op.unsupported("a cache by head is not [C, heads, head_dim]")),
    };
    if let Layout::KeyBlocks(_) | Layout::ValueBlocks(_) = cache.layout {
        return Err(op.unsupported("a cache in blocks of a GPU"));
    }
    let elem = real::elem(cache.dtype)
        .ok_or_else(|| op.unsupported(format!("a KV cache of {}", cache.dtype)))?;
    let items = op.product(&new.shape[..1])?;
    let capacity = op.product(&[capacity])?;
    op.refuse_packed()?;
    let mut draft = Draft::new("cache_append");
    let to = Cache {
        array: draft.buffer(op.result_buffer()),
        capacity: draft.number(capacity),
        layout: cache.layout,
        heads,
        head_dim,
        elem,
        lanes: op.target.lanes,
    };
    let (new_at, positions) = (draft.buffer(1), draft.buffer(2));
    let k = &mut draft.builder;
    let (first, last) = (k.first(), k.last());
    k.for_loop(first, last, 1, [], |k, item, []| {
        let position = load_index(k, positions, item);
        let before = k.mul_const(item, i64::from(heads) * i64::from(head_dim));
        let row = k.element(new_at, Elem::F32, before);
        let fits = k.cmp(Cmp::Ult, position, to.capacity);
        k.if_then(fits, |k| to.append(k, row, position));
        []
    });
    Ok(draft.finish(format!("cache_append {} {}", op.spell(cache), op.spell(new)), items, 0))
}

/// A KV cache that is written to.
struct Cache {
    array: Value,
    capacity: Value,
    layout: Layout,
    heads: u32,
    head_dim: u32,
    elem: Elem,
    lanes: u32,
}

impl Cache {
    /// Writes one position's heads from `row`.
    fn append(&self, k: &mut Builder, row: Value, position: Value) {
        let (from, heads) = (k.i64(0), k.i64(self.heads.into()));
        k.for_loop(from, heads, 1, [], |k, head, []| {
            let before = k.mul_const(head, self.head_dim.into());
            let row = k.element(row, Elem::F32, before);
            match self.layout {
                Layout::PositionLanes(lanes) => self.scatter(k, row, head, position, lanes),
                Layout::HeadMajor => {
                    let before = k.mul(head, self.capacity);
                    let vector = k.add(before, position);
                    self.copy(k, row, vector);
                }
                Layout::RowMajor => {
                    let before = k.mul_const(position, self.heads.into());
                    let vector = k.add(before, head);
                    self.copy(k, row, vector);
                }
                Layout::KeyBlocks(_) | Layout::ValueBlocks(_) => {
                    unreachable!("`cache_append` refuses it")
                }
            }
            []
        });
    }

    /// Copies a head to vector `vector` of the cache.
    fn copy(&self, k: &mut Builder, row: Value, vector: Value) {
        let before = k.mul_const(vector, self.head_dim.into());
        let to = k.element(self.array, self.elem, before);
        let (from, end) = (k.i64(0), k.i64(self.head_dim.into()));
        for_vectors(k, from, end, self.lanes, |k, column, count| {
            let value = load(k, Elem::F32, row, column, self.lanes, count);
            store(k, self.elem, value, to, column, count);
        });
    }

    /// Writes a head into one lane of the vectors of its group of positions.
    fn scatter(&self, k: &mut Builder, row: Value, head: Value, position: Value, lanes: u32) {
        let groups = k.ceil_div_const(self.capacity, lanes.into());
        let before = k.mul(head, groups);
        let divisor = k.i64(lanes.into());
        let group = k.udiv(position, divisor);
        let group = k.add(before, group);
        let lane = k.rem(position, divisor);
        let before = k.mul_const(group, i64::from(self.head_dim) * i64::from(lanes));
        let before = k.add(before, lane);
        let to = k.element(self.array, self.elem, before);
        let (from, end) = (k.i64(0), k.i64(self.head_dim.into()));
        k.for_loop(from, end, 1, [], |k, column, []| {
            let value = load(k, Elem::F32, row, column, 0, None);
            let at = k.mul_const(column, lanes.into());
            store(k, self.elem, value, to, at, None);
            []
        });
    }
}

#[cfg(test)]
mod tests;
