//! `gemm`: a row prologue, products with packed weights, and an epilogue of expressions.
//!
//! A work item is a block of rows times a group of columns; items of one row block follow each
//! other. A worker runs the prologue (norm, conversion to what the weights multiply with) once
//! per row block into its scratch, then per group: accumulators of up to `rows` rows at a time
//! in registers, over all of K; those staged in scratch; then the output expressions over the
//! staged columns. A single row (decode) is the same with blocks of one row.
//!
//! Each element is summed over K in one chain, whatever the row blocks and the range of items:
//! results are bit-equal for any number of workers and however a prompt is cut into chunks. They are the
//! same in prefill and in decode but where the target has an instruction for one of them alone: a single
//! row times bf16 weights (`Form::of`), and many rows in AMX tiles (`amx`, which says how far apart they
//! then are).

mod activations;
mod amx;
#[cfg(test)]
mod bench;
mod epilogue;
mod micro;
mod section;
mod spec;
#[cfg(test)]
mod tests;

pub use crate::kernels::section::Rows;
pub use spec::{GemmSpec, TileConfig};

use crate::kernels::instance::Instance;
use crate::kernels::section::check_extras;
use crate::kernels::tiles::TileSizes;
use crate::kernels::{ArgRole, KernelError, KernelSource, SYMBOLS, Variant, chosen_tiles};
use crate::mlir::{Builder, Value};
use crate::target::CpuTarget;
use activations::{Activations, Form};
use epilogue::Epilogue;
use micro::{Micro, Next};
use section::{Section, sections};
use waveloom_ir::{Function, GemmAttr, GemmOutput, Inst, Layout, Module, Store, Tiling, Type};
use waveloom_plan as plan;

/// A kernel's fixed facts: spec, target, choices, and where things lie in scratch.
struct Gemm<'a> {
    spec: &'a GemmSpec,
    target: &'a CpuTarget,
    config: TileConfig,
    sections: Vec<Section>,
    /// By weight.
    forms: Vec<Form>,
    activations: Activations,
    /// Offset of the configuration of tile registers and of panels, where there are any.
    panels: i64,
    /// Offset of the staged accumulators in scratch.
    stage: i64,
    scratch_bytes: u64,
}

/// The kernel's arguments as values.
struct Env {
    x: Value,
    norm: Option<Value>,
    weights: Vec<Value>,
    extras: Vec<Value>,
    /// By output; the cache itself where it is appended to.
    results: Vec<Value>,
    /// Rows of x.
    m: Value,
    /// Capacity of the caches.
    capacity: Option<Value>,
    scratch: Value,
}

/// Some rows of a row block: what micro-kernel and epilogue work on at a time.
#[derive(Clone, Copy)]
struct RowGroup {
    /// Its index in the block.
    index: Value,
    /// Its first row in x.
    first: Value,
    /// How many of its rows exist.
    rows: Value,
}

/// The columns that are worked on at a time.
#[derive(Clone, Copy)]
struct Span {
    first_tile: Value,
    tiles: Value,
    /// First column.
    column: Value,
    /// How many there are.
    columns: Value,
}

/// The kernel of a `gemm` instruction.
pub(crate) fn kernel_for(
    module: &Module,
    function: &Function,
    inst: &Inst,
    attr: &GemmAttr,
    variant: Variant,
    target: &CpuTarget,
) -> Result<KernelSource, KernelError> {
    let types: Vec<&Type> = inst.operands.iter().map(|v| function.ty(*v)).collect();
    let spec = GemmSpec::new(module, attr, &types, variant, target)?;
    let config = TileConfig::chosen(&spec, chosen_tiles(&attr.tiles, variant), target)?;
    kernel(&spec, config, target)
}

/// How its kernel is tiled.
pub(crate) fn tiling(op: &Instance<'_, CpuTarget>, attr: &GemmAttr) -> Result<Tiling, KernelError> {
    let types: Vec<&Type> = op.inst.operands.iter().map(|v| op.function.ty(*v)).collect();
    let spec = GemmSpec::new(op.module, attr, &types, op.variant, op.target)?;
    let chosen = chosen_tiles(&attr.tiles, op.variant);
    Ok(TileConfig::chosen(&spec, chosen, op.target)?.tiling())
}

/// The kernel of `spec` with the given tile sizes.
pub fn kernel(
    spec: &GemmSpec,
    config: TileConfig,
    target: &CpuTarget,
) -> Result<KernelSource, KernelError> {
    let gemm = Gemm::new(spec, config, target)?;
    let (stem, summary) = (spec.description().stem(), spec.description().summary());
    let mut k = Builder::new(&stem);
    gemm.emit(&mut k);
    Ok(KernelSource {
        stem,
        summary,
        text: k.finish(),
        items: gemm.items(),
        args: gemm.arg_roles(),
        scratch_bytes: gemm.scratch_bytes,
        streams_weights: true,
        work: None,
        numerics: activations::numerics(spec, target),
        first_reads: vec![],
        before: None,
    })
}

impl<'a> Gemm<'a> {
    fn new(
        spec: &'a GemmSpec,
        config: TileConfig,
        target: &'a CpuTarget,
    ) -> Result<Gemm<'a>, KernelError> {
        let lanes = u64::from(target.lanes);
        let sections = sections(spec, &config, lanes)?;
        let activations = Activations::new(spec, &config, target);
        let forms = Form::all(spec, target);
        let in_tiles = spec.in_tiles(target);
        let largest = |bytes: &dyn Fn(&Section) -> u64| sections.iter().map(bytes).max();
        let mut panels = activations.bytes().next_multiple_of(64);
        let mut stage = panels;
        if in_tiles {
            panels += amx::CONFIG_BYTES;
            let bytes = largest(&|section| amx::panel_bytes(&spec.weights, section, lanes));
            stage = panels + bytes.unwrap_or(0);
        }
        let rows = if in_tiles { config.block_rows } else { config.rows };
        let stage_bytes =
            largest(&|section| Epilogue::stage_bytes(spec, section, rows.into(), lanes));
        let stage_bytes = stage_bytes.unwrap_or(0);
        // Loads of whole vectors may reach beyond the last staged row.
        let scratch_bytes = (stage + stage_bytes + 128).next_multiple_of(64);
        let gemm = Gemm {
            spec,
            target,
            config,
            sections,
            forms,
            activations,
            panels: panels as i64,
            stage: stage as i64,
            scratch_bytes,
        };
        gemm.check()?;
        Ok(gemm)
    }

    /// What the generator does not do, said in words.
    fn check(&self) -> Result<(), KernelError> {
        check_extras(&self.spec.outputs, &self.spec.extras)?;
        if self.config.misfits_tiles(self.spec, self.target) {
            let TileConfig { rows, tiles, .. } = self.config;
            return Err(KernelError(format!("gemm: {rows} rows by {tiles} tiles on AMX")));
        }
        let blocks = |output: &GemmOutput| {
            let layout = self.cache(output).map(|(_, layout, _)| layout);
            matches!(layout, Some(Layout::KeyBlocks(_) | Layout::ValueBlocks(_)))
        };
        match self.spec.outputs.iter().any(blocks) {
            true => Err(KernelError("gemm: a cache in blocks of a GPU".to_string())),
            false => Ok(()),
        }
    }

    /// Whether the products are done in AMX tiles.
    fn in_tiles(&self) -> bool {
        self.activations.amx.is_some()
    }

    /// Rows of which sums are staged.
    fn staged_rows(&self) -> u64 {
        match self.in_tiles() {
            true => self.config.block_rows.into(),
            false => self.config.rows.into(),
        }
    }

    fn lanes(&self) -> u64 {
        u64::from(self.target.lanes)
    }

    /// Groups of columns of all sections.
    fn groups(&self) -> u64 {
        self.sections.iter().map(|section| section.groups).sum()
    }

    fn items(&self) -> plan::Expr {
        let groups = plan::Expr::from(self.groups() as i64);
        match &self.spec.rows {
            Rows::One => groups,
            Rows::Many(rows) => {
                let block = plan::Expr::from(i64::from(self.config.block_rows));
                plan::Expr::CeilDiv(Box::new(rows.clone()), Box::new(block)) * groups
            }
        }
    }

    /// Operands of the op: x, norm weight, weights, extras.
    fn operand_count(&self) -> usize {
        let norm = usize::from(self.spec.norm_eps.is_some());
        1 + norm + self.spec.weights.len() + self.spec.extras.len()
    }

    /// Slots: every operand, the dense results, M if it varies, C if there is a cache.
    fn arg_roles(&self) -> Vec<ArgRole> {
        let operands = self.operand_count();
        let mut roles: Vec<ArgRole> = (0..operands).map(ArgRole::Buffer).collect();
        for (index, output) in self.spec.outputs.iter().enumerate() {
            if output.store == Store::Dense {
                roles.push(ArgRole::Buffer(operands + index));
            }
        }
        if let Rows::Many(rows) = &self.spec.rows {
            roles.push(ArgRole::Scalar(rows.clone()));
        }
        if self.spec.appends() {
            let capacity = SYMBOLS.iter().position(|name| *name == "C");
            roles.extend(capacity.map(|c| ArgRole::Scalar(plan::Expr::Symbol(c))));
        }
        roles
    }

    fn env(&self, k: &mut Builder) -> Env {
        let mut slot = 0..;
        let mut next = || slot.next().unwrap_or(0);
        let x = k.arg_ptr(next());
        let norm = self.spec.norm_eps.map(|_| k.arg_ptr(next()));
        let weights = self.spec.weights.iter().map(|_| k.arg_ptr(next())).collect();
        let extras: Vec<Value> = self.spec.extras.iter().map(|_| k.arg_ptr(next())).collect();
        let mut result = |output: &GemmOutput| match output.store {
            Store::Dense => k.arg_ptr(next()),
            Store::Append { cache, .. } => extras[cache as usize],
        };
        let results = self.spec.outputs.iter().map(&mut result).collect();
        let m = match self.spec.rows {
            Rows::One => k.i64(1),
            Rows::Many(_) => k.arg_i64(next()),
        };
        let capacity = self.spec.appends().then(|| k.arg_i64(next()));
        Env { x, norm, weights, extras, results, m, capacity, scratch: k.scratch() }
    }

    /// The whole kernel: row blocks of the range, in each the prologue and the range's groups.
    fn emit(&self, k: &mut Builder) {
        let env = self.env(k);
        let (first, last) = (k.first(), k.last());
        let groups = self.groups() as i64;
        let one_block = self.spec.rows == Rows::One;
        let begin = if one_block { k.i64(0) } else { self.block_of(k, first, groups) };
        let end = if one_block { k.i64(1) } else { k.ceil_div_const(last, groups) };
        if self.in_tiles() {
            let at = k.offset_const(env.scratch, self.panels - amx::CONFIG_BYTES as i64);
            amx::configure(k, at);
        }
        let block_rows = self.block_rows(k, &env);
        k.for_loop(begin, end, 1, [], |k, block, []| {
            let first_row = k.mul(block, block_rows);
            let left = k.sub(env.m, first_row);
            let rows = k.min(left, block_rows);
            let row_groups = k.ceil_div_const(rows, self.config.rows.into());
            self.activations.prologue(k, self, &env, first_row, row_groups);
            let base = k.mul_const(block, groups);
            let (from, to) = (k.sub(first, base), k.sub(last, base));
            let mut offset = 0;
            for section in &self.sections {
                self.section(k, &env, section, offset, [from, to], [first_row, rows, row_groups]);
                offset += section.groups as i64;
            }
            []
        });
        if self.in_tiles() {
            amx::release(k);
        }
    }

    /// Rows of a block: as few as the number of blocks allows, so that none has much less to do than
    /// the others.
    fn block_rows(&self, k: &mut Builder, env: &Env) -> Value {
        let rows = i64::from(self.config.rows);
        let blocks = k.ceil_div_const(env.m, self.config.block_rows.into());
        let up = k.add(env.m, blocks);
        let up = k.add_const(up, -1);
        let share = k.udiv(up, blocks);
        let groups = k.ceil_div_const(share, rows);
        k.mul_const(groups, rows)
    }

    fn block_of(&self, k: &mut Builder, item: Value, groups: i64) -> Value {
        let groups = k.i64(groups);
        k.udiv(item, groups)
    }

    /// The groups of a section that are in the range `from..to` of the row block's groups, where
    /// the section's own begin at `offset`.
    fn section(
        &self,
        k: &mut Builder,
        env: &Env,
        section: &Section,
        offset: i64,
        [from, to]: [Value; 2],
        [first_row, rows, row_groups]: [Value; 3],
    ) {
        let (zero, most) = (k.i64(0), k.i64(section.groups as i64));
        let begin = k.add_const(from, -offset);
        let begin = k.max(begin, zero);
        let end = k.add_const(to, -offset);
        let end = k.min(end, most);
        k.for_loop(begin, end, section.span as i64, [], |k, group, []| {
            let span = self.span(k, section, group, end);
            if self.in_tiles() {
                amx::Products { gemm: self, env, section, span, row_groups }.emit(k);
            }
            k.for_loop(zero, row_groups, 1, [], |k, index, []| {
                let done = k.mul_const(index, self.config.rows.into());
                let first = k.add(first_row, done);
                let left = k.sub(rows, done);
                let most = k.i64(self.config.rows.into());
                let rows = k.min(left, most);
                let row_group = RowGroup { index, first, rows };
                if !self.in_tiles() {
                    self.products(k, env, section, span, row_group);
                }
                Epilogue::new(self, env, section).emit(k, span, row_group);
                []
            });
            []
        });
    }

    /// The span that begins with `group`, of groups below `end`.
    fn span(&self, k: &mut Builder, section: &Section, group: Value, end: Value) -> Span {
        let lanes = self.lanes();
        let mut groups = k.sub(end, group);
        let most = k.i64(section.span as i64);
        groups = k.min(groups, most);
        let first_tile = k.mul_const(group, section.group_tiles as i64);
        let all = k.i64(section.n.div_ceil(lanes) as i64);
        let left = k.sub(all, first_tile);
        let tiles = k.mul_const(groups, section.group_tiles as i64);
        let tiles = k.min(tiles, left);
        let column = k.mul_const(first_tile, lanes as i64);
        let all = k.i64(section.n as i64);
        let left = k.sub(all, column);
        let columns = k.mul_const(tiles, lanes as i64);
        Span { first_tile, tiles, column, columns: k.min(columns, left) }
    }

    /// Stages the accumulators of a span of columns for some rows.
    fn products(
        &self,
        k: &mut Builder,
        env: &Env,
        section: &Section,
        span: Span,
        row_group: RowGroup,
    ) {
        let row_bytes = section.span_columns(self.lanes()) * 4;
        let Span { first_tile, tiles, .. } = span;
        let matrices: Vec<Value> = section
            .weights
            .iter()
            .map(|&weight| {
                let tile_bytes = self.spec.weights[weight].tile_bytes();
                let start = k.mul_const(first_tile, tile_bytes as i64);
                k.offset(env.weights[weight], start)
            })
            .collect();
        let tile_bytes = |slot: usize| self.spec.weights[section.weights[slot]].tile_bytes();
        for (slot, &weight) in section.weights.iter().enumerate() {
            let slot_offset = slot as u64 * u64::from(self.config.rows) * row_bytes;
            let next = match matrices.get(slot + 1) {
                Some(&matrix) => Next::Weight { matrix, tile_bytes: tile_bytes(slot + 1) },
                None => Next::Columns { matrix: matrices[0], tile_bytes: tile_bytes(0) },
            };
            let micro = Micro {
                gemm: self,
                env,
                layout: &self.spec.weights[weight],
                form: self.forms[weight],
                row_group,
                matrix: matrices[slot],
                stage: k.offset_const(env.scratch, self.stage + slot_offset as i64),
                row_bytes,
                next,
            };
            let width = self.config.tiles;
            let zero = k.i64(0);
            let whole = k.i64(i64::from(width));
            let rest = k.rem(tiles, whole);
            let together = k.sub(tiles, rest);
            k.for_loop(zero, together, i64::from(width), [], |k, tile, []| {
                micro.emit(k, tile, width);
                []
            });
            if width > 1 && !self.always_whole(section, width) {
                k.for_loop(together, tiles, 1, [], |k, tile, []| {
                    micro.emit(k, tile, 1);
                    []
                });
            }
        }
    }

    /// Whether the tiles of every group of a section divide by `width`.
    fn always_whole(&self, section: &Section, width: u32) -> bool {
        let width = u64::from(width);
        section.group_tiles.is_multiple_of(width)
            && section.n.div_ceil(self.lanes()).is_multiple_of(width)
    }

    /// Bytes of one cached element and whether positions lie side by side.
    fn cache(&self, output: &GemmOutput) -> Option<(&Type, Layout, u32)> {
        let Store::Append { cache, positions } = output.store else { return None };
        let ty = &self.spec.extras[cache as usize];
        Some((ty, ty.layout, positions))
    }
}
