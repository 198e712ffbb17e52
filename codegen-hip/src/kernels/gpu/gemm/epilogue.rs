//! The epilogue: output expressions over staged accumulators, stored densely or appended to a
//! cache.
//!
//! `rope` and `head_norm` nodes are computed first, innermost first, each into a plane of the local
//! data share: that of an accumulator (or node) which nothing else needs, or one of its own. Then
//! each output's expression is evaluated element by element. In all of it a work-item takes *pieces*
//! of a few neighbouring columns of a row, and neighbouring work-items take pieces that are
//! neighbours in memory and share no bank of the local data share ([`Order`]).

use super::{Env, GemmSpec, Stage, Tile, split};
use crate::kernels::scalar;
use crate::kernels::section::{Section, nodes};
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::target::GpuTarget;
use waveloom_ir::{DType, Expr, GemmOutput, Layout, Store, Type};

/// Lanes that normalize a head together.
const HEAD_LANES: u32 = 16;
/// Elements of a cache in 16 bytes.
const CACHE_WIDTH: u32 = 8;

/// The epilogue of one section.
pub(super) struct Epilogue<'a> {
    spec: &'a GemmSpec,
    section: &'a Section,
    target: &'a GpuTarget,
    /// Work-items of the workgroup.
    workgroup: u32,
    /// `rope` and `head_norm` nodes, innermost first, with their planes.
    nodes: Vec<(&'a Expr, u32)>,
    /// Planes: of the section's weights, then of nodes that need their own.
    planes: u32,
}

/// The tile that is worked on.
#[derive(Clone, Copy)]
struct At<'a> {
    env: &'a Env,
    stage: &'a Stage,
    tile: &'a Tile,
    /// Columns of the tile that exist, where some may not.
    columns: Option<Value>,
    thread: Value,
}

/// `width` neighbouring columns of a row of the tile.
#[derive(Clone, Copy)]
struct Piece {
    row: Value,
    column: Value,
    width: u32,
}

/// Which pieces neighbouring work-items take.
///
/// Rows of the stage that are neighbours begin an odd number of 16-byte words apart, so pieces of
/// 16 bytes in as many neighbouring rows as the banks serve at once do not meet in a bank.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Runs of `run` neighbours in a row. `rows` runs, of rows `run` apart, fill the banks once;
    /// then the row goes on.
    AlongRows { run: u32, rows: u32 },
    /// Neighbours in a column, `rows` of them; then the next column.
    AlongColumns { rows: u32 },
}

impl<'a> Epilogue<'a> {
    /// The epilogue of `section`, run by workgroups of `workgroup` work-items.
    pub fn new(
        spec: &'a GemmSpec,
        section: &'a Section,
        target: &'a GpuTarget,
        workgroup: u32,
    ) -> Epilogue<'a> {
        let (nodes, planes) = assign_planes(spec, section);
        Epilogue { spec, section, target, workgroup, nodes, planes }
    }

    /// Bytes of the local data share from the stage's base: the accumulators, and planes of nodes
    /// after them.
    pub fn shared_bytes(&self, rows: u32, pitch: u32) -> u32 {
        self.planes * rows * pitch * 4
    }

    /// Evaluates and stores the outputs of a tile. All work-items of the workgroup run it, after a
    /// barrier behind the last store to the stage.
    pub fn emit(&self, k: &mut Builder, env: &Env, stage: &Stage, tile: &Tile) {
        let columns = (!self.section.n.is_multiple_of(stage.columns.into())).then(|| {
            let n = k.i32(self.section.n as i32);
            k.sub(n, tile.first_column)
        });
        let thread = k.thread();
        let at = At { env, stage, tile, columns, thread };
        for &(node, plane) in &self.nodes {
            match node {
                Expr::Rope { x, cos, sin, head_dim } => {
                    self.rope(k, x, [*cos, *sin], *head_dim, plane, at);
                }
                Expr::HeadNorm { x, weight, eps, head_dim } => {
                    self.head_norm(k, x, (*weight, eps.0), *head_dim, plane, at);
                }
                _ => {}
            }
            k.barrier_shared();
        }
        for &output in &self.section.outputs {
            let described = &self.spec.outputs[output];
            match described.store {
                Store::Dense => self.store_dense(k, output, at),
                Store::Append { cache, positions } => {
                    self.append(k, described, cache, positions, at);
                }
            }
        }
    }

    /// Columns of a piece of `columns` columns: four where rows divide so, and are aligned.
    fn width(&self, columns: u64, stage: &Stage) -> u32 {
        match columns.is_multiple_of(4) && stage.pitch.is_multiple_of(4) {
            true => 4,
            false => 1,
        }
    }

    /// The order along rows of `pieces` pieces of 16 bytes each.
    fn along_rows(&self, pieces: u32, stage: &Stage) -> Order {
        let at_once = self.target.lds_banks / 4;
        let run = 1 << pieces.trailing_zeros().min(at_once.ilog2());
        let whole = stage.rows.is_multiple_of(at_once);
        Order::AlongRows { run, rows: if whole { at_once / run } else { 1 } }
    }

    /// The order along columns of elements that a row's neighbour follows by two bytes: in as many
    /// rows as leaves each four banks.
    fn along_columns(&self, stage: &Stage) -> Order {
        let rows = self.target.wave.min(self.target.lds_banks) / 4;
        Order::AlongColumns {
            rows: if stage.rows.is_multiple_of(rows) { rows } else { stage.rows },
        }
    }

    /// Row and piece of the row of the `index`-th piece of all, where a row has `pieces`.
    fn place(&self, k: &mut Builder, index: Value, pieces: u32, order: Order) -> (Value, Value) {
        match order {
            Order::AlongRows { rows: 1, .. } => split(k, index, pieces),
            Order::AlongRows { run, rows } => {
                let (index, in_run) = split(k, index, run);
                let (index, far) = split(k, index, rows);
                let (index, turn) = split(k, index, pieces / run);
                let (group, near) = split(k, index, run);
                let group = k.mul_const(group, (run * rows).into());
                let far = k.mul_const(far, run.into());
                let row = k.add(group, far);
                let turn = k.mul_const(turn, run.into());
                (k.add(row, near), k.add(turn, in_run))
            }
            Order::AlongColumns { rows } => {
                let (index, row) = split(k, index, rows);
                let (group, piece) = split(k, index, pieces);
                let group = k.mul_const(group, rows.into());
                (k.add(group, row), piece)
            }
        }
    }

    /// Runs `body` for every row and piece of it that `order` visits, of `pieces` a row; rows that
    /// do not exist are left out.
    fn for_places(
        &self,
        k: &mut Builder,
        pieces: u32,
        order: Order,
        at: At<'_>,
        body: impl FnOnce(&mut Builder, Value, Value),
    ) {
        let in_turn = matches!(order, Order::AlongRows { rows: 1, .. }) || at.stage.rows == 1;
        let rows = if in_turn { at.tile.rows } else { k.i32(at.stage.rows as i32) };
        let end = k.mul_const(rows, pieces.into());
        k.for_strided(at.thread, end, self.workgroup, |k, index| {
            let (row, piece) = self.place(k, index, pieces, order);
            if in_turn {
                return body(k, row, piece);
            }
            let exists = k.below(row, at.tile.rows);
            k.if_then(exists, |k| body(k, row, piece));
        });
    }

    /// Runs `body` for every piece of the tile that exists; `columns` of each row are cut up.
    fn for_pieces(
        &self,
        k: &mut Builder,
        (columns, width): (u32, u32),
        order: Order,
        at: At<'_>,
        body: impl FnOnce(&mut Builder, Piece),
    ) {
        self.for_places(k, columns / width, order, at, |k, row, piece| {
            let column = k.mul_const(piece, width.into());
            let exists = at.columns.map(|end| k.below(column, end));
            let piece = Piece { row, column, width };
            match exists {
                None => body(k, piece),
                Some(exists) => k.if_then(exists, |k| body(k, piece)),
            }
        });
    }

    /// Address of a piece in a plane.
    fn staged(&self, k: &mut Builder, plane: u32, piece: Piece, at: At<'_>) -> Value {
        let row = k.mul_const(piece.row, at.stage.pitch.into());
        let element = k.add(row, piece.column);
        let element = k.add_const(element, i64::from(plane * at.stage.rows * at.stage.pitch));
        k.element_u32(at.stage.base, Elem::F32, element)
    }

    fn load_staged(&self, k: &mut Builder, plane: u32, piece: Piece, at: At<'_>) -> Value {
        let from = self.staged(k, plane, piece, at);
        k.load_aligned(from, f32s(piece.width), alignment(piece.width, at))
    }

    fn store_staged(&self, k: &mut Builder, value: Value, plane: u32, piece: Piece, at: At<'_>) {
        let to = self.staged(k, plane, piece, at);
        k.store_aligned(value, to, alignment(piece.width, at));
    }

    /// Index of a piece's first element in a dense result.
    fn dense_index(&self, k: &mut Builder, piece: Piece, at: At<'_>) -> Value {
        let row = k.add(at.tile.first_row, piece.row);
        let before = k.mul_const(row, self.section.n as i64);
        let column = k.add(at.tile.first_column, piece.column);
        k.add(before, column)
    }

    fn eval(&self, k: &mut Builder, expr: &Expr, piece: Piece, at: At<'_>) -> Value {
        match expr {
            Expr::Acc(i) => self.load_staged(k, self.section.slot(*i) as u32, piece, at),
            Expr::Rope { .. } | Expr::HeadNorm { .. } => {
                let node = self.nodes.iter().find(|(node, _)| *node == expr);
                self.load_staged(k, node.map_or(0, |(_, plane)| *plane), piece, at)
            }
            Expr::Operand(i) => self.operand(k, *i as usize, piece, at),
            Expr::Const(value) => k.float(f32s(piece.width), value.0.into()),
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

    /// A piece of an extra operand: of this row of a matrix, or of a vector.
    fn operand(&self, k: &mut Builder, index: usize, piece: Piece, at: At<'_>) -> Value {
        let ty = &self.spec.extras[index];
        let element = match ty.rank() {
            2 => self.dense_index(k, piece, at),
            _ => k.add(at.tile.first_column, piece.column),
        };
        let from = k.element_u32(at.env.extras[index], Elem::F32, element);
        let align = 4 * piece.width.min(4);
        if ty.dtype == DType::I32 {
            let integers = k.load_aligned(from, f32s(piece.width).with(Elem::I32), align);
            return k.sitofp(integers, Elem::F32);
        }
        k.load_aligned(from, f32s(piece.width), align)
    }

    /// Rotates the heads of `x` into a plane: pairs `(i, i + half)`.
    fn rope(
        &self,
        k: &mut Builder,
        x: &Expr,
        angles: [u32; 2],
        head_dim: u32,
        plane: u32,
        at: At<'_>,
    ) {
        let half = head_dim / 2;
        let width = self.width(half.into(), at.stage);
        let heads = at.stage.columns / head_dim;
        // Pieces of the low halves alone, numbered through: no run of them goes beyond a head's.
        let pieces = half / width;
        let order = self.along_rows(pieces, at.stage);
        self.for_places(k, heads * pieces, order, at, |k, row, piece| {
            let (head, piece) = split(k, piece, pieces);
            let element = k.mul_const(piece, width.into());
            let start = k.mul_const(head, head_dim.into());
            let column = k.add(start, element);
            let low = Piece { row, column, width };
            let high = Piece { column: k.add_const(column, half.into()), ..low };
            let rotate = |k: &mut Builder| {
                let row = k.add(at.tile.first_row, row);
                let index = k.mul_const(row, half.into());
                let index = k.add(index, element);
                let [cos, sin] = angles.map(|operand| {
                    let from = k.element_u32(at.env.extras[operand as usize], Elem::F32, index);
                    k.load_aligned(from, f32s(width), 4 * width)
                });
                let a = self.eval(k, x, low, at);
                let b = self.eval(k, x, high, at);
                let [a_cos, b_sin] = [k.mul(a, cos), k.mul(b, sin)];
                let [b_cos, a_sin] = [k.mul(b, cos), k.mul(a, sin)];
                let new_low = k.sub(a_cos, b_sin);
                let new_high = k.add(b_cos, a_sin);
                self.store_staged(k, new_low, plane, low, at);
                self.store_staged(k, new_high, plane, high, at);
            };
            match at.columns {
                None => rotate(k),
                Some(end) => {
                    let exists = k.below(start, end);
                    k.if_then(exists, rotate);
                }
            }
        });
    }

    /// RMS norm of the heads of `x` into a plane: [`HEAD_LANES`] lanes a head.
    fn head_norm(
        &self,
        k: &mut Builder,
        x: &Expr,
        (weight, eps): (u32, f32),
        head_dim: u32,
        plane: u32,
        at: At<'_>,
    ) {
        let heads = at.stage.columns / head_dim;
        let end = k.mul_const(at.tile.rows, heads.into());
        let (first, lane) = split(k, at.thread, HEAD_LANES);
        k.for_strided(first, end, self.workgroup / HEAD_LANES, |k, index| {
            let (row, head) = split(k, index, heads);
            let start = k.mul_const(head, head_dim.into());
            let norm = |k: &mut Builder| {
                self.norm_of_head(k, x, (weight, eps), head_dim, plane, [row, start, lane], at);
            };
            match at.columns {
                None => norm(k),
                Some(end) => {
                    let exists = k.below(start, end);
                    k.if_then(exists, norm);
                }
            }
        });
    }

    /// The norm of the head of `row` that begins at column `start`.
    #[allow(clippy::too_many_arguments)]
    fn norm_of_head(
        &self,
        k: &mut Builder,
        x: &Expr,
        (weight, eps): (u32, f32),
        head_dim: u32,
        plane: u32,
        [row, start, lane]: [Value; 3],
        at: At<'_>,
    ) {
        let width = self.width(head_dim.into(), at.stage);
        let pieces = head_dim / width;
        let mut mine = vec![];
        let mut sum = k.zero(f32s(width));
        for turn in 0..pieces.div_ceil(HEAD_LANES) {
            let piece = k.add_const(lane, (turn * HEAD_LANES).into());
            let exists = ((turn + 1) * HEAD_LANES > pieces).then(|| {
                let end = k.i32(pieces as i32);
                k.below(piece, end)
            });
            let last = k.i32(pieces as i32 - 1);
            let piece = exists.map_or(piece, |exists| k.select(exists, piece, last));
            let element = k.mul_const(piece, width.into());
            let piece = Piece { row, column: k.add(start, element), width };
            let value = self.eval(k, x, piece, at);
            let zero = k.zero(value.ty);
            let counted = exists.map_or(value, |exists| k.select(exists, value, zero));
            sum = k.fma(counted, counted, sum);
            mine.push((piece, element, value, exists));
        }
        let sum = if width > 1 { k.reduce_add(sum) } else { sum };
        let sum = k.reduce_lanes(sum, HEAD_LANES, self.target, |k, a, b| k.add(a, b));
        let scale = scalar::rms_scale(k, sum, head_dim.into(), eps);
        let scale = if width > 1 { k.splat(scale, width) } else { scale };
        for (piece, element, value, exists) in mine {
            let from = k.element_u32(at.env.extras[weight as usize], Elem::F32, element);
            let weight = k.load_aligned(from, f32s(width), 4 * width);
            let value = k.mul(value, scale);
            let value = k.mul(value, weight);
            match exists {
                None => self.store_staged(k, value, plane, piece, at),
                Some(exists) => {
                    k.if_then(exists, |k| self.store_staged(k, value, plane, piece, at));
                }
            }
        }
    }

    fn store_dense(&self, k: &mut Builder, output: usize, at: At<'_>) {
        let width = self.width(self.section.n, at.stage);
        let pieces = (at.stage.columns, width);
        let order = self.along_rows(at.stage.columns / width, at.stage);
        self.for_pieces(k, pieces, order, at, |k, piece| {
            let value = self.eval(k, &self.spec.outputs[output].expr, piece, at);
            let index = self.dense_index(k, piece, at);
            let to = k.element_u32(at.env.results[output], Elem::F32, index);
            k.store_aligned(value, to, 4 * width);
        });
    }

    /// Appends rows to a cache, neighbouring rows by neighbouring work-items, as positions are
    /// neighbours there: to keys 16 bytes of a head's elements at a time, to values one element.
    fn append(&self, k: &mut Builder, output: &GemmOutput, cache: u32, positions: u32, at: At<'_>) {
        let ty = &self.spec.extras[cache as usize];
        let (width, order) = match ty.layout {
            Layout::KeyBlocks(_) => (CACHE_WIDTH, Order::AlongColumns { rows: at.stage.rows }),
            _ => (1, self.along_columns(at.stage)),
        };
        self.for_pieces(k, (at.stage.columns, width), order, at, |k, piece| {
            let value = self.eval(k, &output.expr, piece, at);
            let value = k.truncf(value, Elem::F16);
            let row = k.add(at.tile.first_row, piece.row);
            let from = k.element_u32(at.env.extras[positions as usize], Elem::I32, row);
            let position = k.load(from, Elem::I32);
            let column = k.add(at.tile.first_column, piece.column);
            let index = cached_index(k, ty, at.env.capacity, position, column);
            let to = k.element_u32(at.env.extras[cache as usize], Elem::F16, index);
            k.store_aligned(value, to, 2 * width);
        });
    }
}

/// `width` numbers; one as a scalar.
fn f32s(width: u32) -> Ty {
    if width == 1 { Elem::F32.scalar() } else { Elem::F32.vec(width) }
}

/// Alignment of a piece in the stage.
fn alignment(width: u32, at: At<'_>) -> u32 {
    if at.stage.pitch.is_multiple_of(4) { 4 * width.min(4) } else { 4 }
}

/// Index of the element of `column` at `position` in a cache, as [`Layout::index`] has it.
fn cached_index(
    k: &mut Builder,
    ty: &Type,
    capacity: Option<Value>,
    position: Value,
    column: Value,
) -> Value {
    let head_dim = ty.last_const().unwrap_or(1) as u32;
    let (head, element) = split(k, column, head_dim);
    let capacity = capacity.unwrap_or(position);
    match ty.layout {
        // [heads][C / lanes][head_dim / 8][lanes][8]
        Layout::KeyBlocks(lanes) => {
            let blocks = k.ceil_div_const(capacity, lanes.into());
            let (block, lane) = split(k, position, lanes);
            let before = k.mul(head, blocks);
            let block = k.add(before, block);
            let (chunk, rest) = split(k, element, CACHE_WIDTH);
            let row = k.mul_const(block, (head_dim / CACHE_WIDTH).into());
            let row = k.add(row, chunk);
            let row = k.mul_const(row, lanes.into());
            let row = k.add(row, lane);
            let row = k.mul_const(row, CACHE_WIDTH.into());
            k.add(row, rest)
        }
        // [heads][C / 8][head_dim][8], C rounded up to lanes
        Layout::ValueBlocks(lanes) => {
            let blocks = k.ceil_div_const(capacity, lanes.into());
            let blocks = k.mul_const(blocks, (lanes / CACHE_WIDTH).into());
            let (block, rest) = split(k, position, CACHE_WIDTH);
            let before = k.mul(head, blocks);
            let block = k.add(before, block);
            let row = k.mul_const(block, head_dim.into());
            let row = k.add(row, element);
            let row = k.mul_const(row, CACHE_WIDTH.into());
            k.add(row, rest)
        }
        Layout::RowMajor | Layout::PositionLanes(_) | Layout::HeadMajor => {
            unreachable!("`GemmSpec` refuses it")
        }
    }
}

/// The section's nodes with their planes, and how many planes there are with those of weights. A
/// node takes over a plane inside it that nothing else reads: whoever computes an element of a node
/// has read before what the node needs of that plane.
fn assign_planes<'a>(spec: &'a GemmSpec, section: &Section) -> (Vec<(&'a Expr, u32)>, u32) {
    let nodes = nodes(&spec.outputs, &section.outputs);
    let mut reads: Vec<&Expr> = vec![];
    for &output in &section.outputs {
        planes_read(&spec.outputs[output].expr, &mut reads);
    }
    for node in &nodes {
        planes_read(inner(node), &mut reads);
    }
    let mut planes = section.weights.len() as u32;
    let mut assigned: Vec<(&Expr, u32)> = vec![];
    for node in nodes {
        let mut leaves = vec![];
        planes_read(inner(node), &mut leaves);
        let free = leaves.into_iter().find(|leaf| reads.iter().filter(|r| *r == leaf).count() == 1);
        let plane = match free {
            Some(Expr::Acc(i)) => section.slot(*i) as u32,
            Some(leaf) => assigned.iter().find(|(n, _)| *n == leaf).map_or(0, |(_, plane)| *plane),
            None => {
                planes += 1;
                planes - 1
            }
        };
        assigned.push((node, plane));
    }
    (assigned, planes)
}

/// What a node is applied to.
fn inner(node: &Expr) -> &Expr {
    match node {
        Expr::Rope { x, .. } | Expr::HeadNorm { x, .. } => x,
        other => other,
    }
}

/// Accumulators and nodes that evaluating `expr` reads.
fn planes_read<'a>(expr: &'a Expr, found: &mut Vec<&'a Expr>) {
    match expr {
        Expr::Acc(_) | Expr::Rope { .. } | Expr::HeadNorm { .. } => found.push(expr),
        Expr::Operand(_) | Expr::Const(_) => {}
        Expr::Unary(_, x) => planes_read(x, found),
        Expr::Binary(_, x, y) => {
            planes_read(x, found);
            planes_read(y, found);
        }
    }
}
