//! Few rows of x times matrices: every weight byte is read once, 16 bytes a lane, the loads of a
//! unit in flight while the one before is multiplied.
//!
//! ```text
//! workgroup:   a span of columns of one section; rows of x, in slabs of K, in the local data share
//! wave:        some tiles of 16 columns of the span, and a part of K
//! lane:        column lane % 16 of each tile, and of K the cells of group lane / 16
//! ```
//!
//! Sections whose weights have the same dtypes share the code of the products: which matrix is read
//! is a matter of uniform addresses. Partial sums are added in an order that nothing but the shape
//! decides: over a lane's cells, over lane groups, over waves. The norm's factor of a row is applied
//! to the sums, so that products need not wait for it.

mod activations;
mod stream;
mod tile;

pub use tile::TileConfig;

use super::epilogue::Epilogue;
use super::{Env, GemmSpec, Stage, Tile, split};
use crate::kernels::instance::Draft;
use crate::kernels::section::{Rows, Section};
use crate::kernels::{FirstRead, KernelError, KernelSource, scalar};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use crate::target::{GpuTarget, Platform};
use activations::{Block, Slab};
use stream::{Bundle, Loaded, Range, Stream, Wave};
use tile::{Class, TILE_COLUMNS, classes};
use waveloom_ir::DType;
use waveloom_plan as plan;

/// A kernel's fixed facts.
struct Gemv<'a> {
    spec: &'a GemmSpec,
    target: &'a GpuTarget,
    /// Rows of x that a workgroup multiplies.
    rows: u32,
    /// Work-items of a workgroup.
    workgroup: u32,
    sections: &'a [Section],
    classes: Vec<Class>,
}

/// The kernel of `spec` with the given tile sizes.
pub fn kernel(
    spec: &GemmSpec,
    config: TileConfig,
    target: &GpuTarget,
) -> Result<KernelSource, KernelError> {
    let sections = spec.sections()?;
    let (classes, waves) = classes(spec, &sections, &config, target);
    let workgroup = waves * target.wave;
    let gemv = Gemv { spec, target, rows: config.rows, workgroup, sections: &sections, classes };
    let description = spec.description();
    let mut draft = Draft::for_gpu(description.stem(), workgroup, target);
    let env = Env::new(&mut draft, spec);
    gemv.emit(&mut draft.builder, &env)?;
    draft.builder.plan_registers(gemv.registers(), target);
    let first_reads = gemv.first_reads();
    let source = draft.finish(description.summary(), gemv.items(), 0);
    let numerics = activations::numerics(spec);
    Ok(KernelSource { streams_weights: true, numerics, first_reads, ..source })
}

/// Where a workgroup works.
#[derive(Clone, Copy)]
struct Place {
    /// First row of x.
    first_row: Value,
    /// How many of the workgroup's rows exist.
    rows: Value,
    /// Its span, counted from the first of the class.
    group: Value,
    /// This wave among those that share K, and among those that share columns.
    wave_n: Value,
    wave_k: Value,
    /// Whether it is one of them; one that is not does what the last of them does, in vain.
    busy: Option<Value>,
}

impl Gemv<'_> {
    /// Spans of all sections.
    fn groups(&self) -> u64 {
        self.classes.iter().map(Class::groups).sum()
    }

    fn items(&self) -> plan::Expr {
        let groups = plan::Expr::from(self.groups() as i64);
        match &self.spec.rows {
            Rows::One => groups,
            Rows::Many(m) => {
                let rows = plan::Expr::from(i64::from(self.rows));
                plan::Expr::CeilDiv(Box::new(m.clone()), Box::new(rows)) * groups
            }
        }
    }

    /// The whole kernel: a branch per class of sections.
    fn emit(&self, k: &mut Builder, env: &Env) -> Result<(), KernelError> {
        let index = k.workgroup();
        let (group, first_row) = self.row_group(k, env, index);
        let left = k.sub(env.m, first_row);
        let most = k.i32(self.rows as i32);
        let rows = k.min(left, most);
        let wave = k.wave(self.target);
        let shared = k.shared(self.shared_bytes()?);
        let mut first = 0;
        for class in &self.classes {
            let end = first + class.groups() as i64;
            let (wave_k, wave_n) = split(k, wave, class.waves_n);
            let idle = self.waves() > class.waves_n * class.waves_k;
            let last = k.i32(class.waves_k as i32 - 1);
            let busy = idle.then(|| k.cmp(Cmp::Le, wave_k, last));
            let wave_k = if idle { k.min(wave_k, last) } else { wave_k };
            let group_of_class = k.add_const(group, -first);
            let place = Place { first_row, rows, group: group_of_class, wave_n, wave_k, busy };
            let body = |k: &mut Builder| Body { gemv: self, env, class, place, shared }.emit(k);
            if self.classes.len() == 1 {
                body(k);
            } else {
                let [from, to] = [first, end].map(|n| k.i32(n as i32));
                let begun = k.cmp(Cmp::Ge, group, from);
                let ended = k.cmp(Cmp::Lt, group, to);
                let here = k.and(begun, ended);
                k.if_then(here, body);
            }
            first = end;
        }
        Ok(())
    }

    /// What the workgroups of one row of x read first: the chunks of their tiles.
    fn first_reads(&self) -> Vec<Vec<FirstRead>> {
        if self.spec.rows != Rows::One {
            return vec![];
        }
        let before = 1 + usize::from(self.spec.norm_eps.is_some());
        let mut groups = vec![];
        for class in &self.classes {
            for (&section, &spans) in class.sections.iter().zip(&class.section_groups) {
                for span in 0..spans {
                    let first = span * u64::from(class.span_tiles);
                    let mut reads = vec![];
                    for tile in first..first + u64::from(class.span_tiles) {
                        for &weight in &self.sections[section].weights {
                            let layout = &self.spec.weights[weight];
                            if tile < layout.tiles() {
                                let (slot, bytes) = (before + weight, layout.tile_bytes());
                                reads.push(FirstRead { slot, offset: tile * bytes, bytes });
                            }
                        }
                    }
                    groups.push(reads);
                }
            }
        }
        groups
    }

    /// The span and the first row of workgroup `index`: neighbours share a span.
    fn row_group(&self, k: &mut Builder, env: &Env, index: Value) -> (Value, Value) {
        if self.spec.rows == Rows::One {
            let zero = k.i32(0);
            return (index, zero);
        }
        let row_groups = k.ceil_div_const(env.m, self.rows.into());
        let group = k.udiv(index, row_groups);
        let whole = k.mul(group, row_groups);
        let row_group = k.sub(index, whole);
        (group, k.mul_const(row_group, self.rows.into()))
    }

    /// Bytes of the local data share: of the class that needs the most.
    fn shared_bytes(&self) -> Result<u32, KernelError> {
        let bytes = self.classes.iter().map(|class| Memory::of(self, class).end).max().unwrap_or(0);
        match bytes <= self.target.lds_bytes {
            true => Ok(bytes),
            false => {
                let most = self.target.lds_bytes;
                Err(KernelError(format!("gemm: {bytes} bytes of LDS, of {most}")))
            }
        }
    }

    /// Vector registers of a lane: of the class that needs the most.
    fn registers(&self) -> u32 {
        let norm = self.spec.norm_eps.is_some();
        self.classes.iter().map(|class| class.registers(norm, self.target)).max().unwrap_or(0)
    }

    fn waves(&self) -> u32 {
        self.workgroup / self.target.wave
    }
}

/// Offsets in the local data share.
struct Memory {
    /// Sums of squares, by row and wave.
    squares: u32,
    /// Elements between rows of the stage.
    pitch: u32,
    /// Accumulators, and what the epilogue needs after them.
    stage: u32,
    end: u32,
}

impl Memory {
    /// The activations come first.
    fn of(gemv: &Gemv<'_>, class: &Class) -> Memory {
        let columns = class.span_tiles * 16;
        // Four banks further from row to row: pieces of 16 bytes stay aligned.
        let pitch = if gemv.rows == 1 { columns } else { columns + 4 };
        let plane = gemv.rows * pitch * 4;
        let squares = class.activations.bytes();
        let norm = if gemv.spec.norm_eps.is_some() { gemv.rows * gemv.waves() * 4 } else { 0 };
        let partial = (squares + norm).next_multiple_of(16);
        let stage = partial + (class.waves_k - 1) * class.slots() * plane;
        let epilogue = |&section: &usize| {
            let section = &gemv.sections[section];
            Epilogue::new(gemv.spec, section, gemv.target, gemv.workgroup)
                .shared_bytes(gemv.rows, pitch)
        };
        let end = stage + class.sections.iter().map(epilogue).max().unwrap_or(0);
        Memory { squares, pitch, stage, end }
    }
}

/// The work of a class of sections.
struct Body<'a> {
    gemv: &'a Gemv<'a>,
    env: &'a Env,
    class: &'a Class,
    place: Place,
    shared: Value,
}

impl Body<'_> {
    fn emit(&self, k: &mut Builder) {
        let memory = Memory::of(self.gemv, self.class);
        let (section, span) = self.section(k);
        let streams = self.streams(k, section, span);
        let waves: Vec<Wave<'_>> = self
            .class
            .bundles
            .iter()
            .zip(&streams)
            .enumerate()
            .map(|(place, (bundle, streams))| Wave {
                bundle,
                activations: &self.class.activations,
                target: self.gemv.target,
                streams,
                lanes: bundle.lanes(
                    k,
                    &self.class.activations,
                    self.gemv.target,
                    self.shared,
                    place,
                ),
            })
            .collect();
        let sums = self.products(k, &waves, &memory);
        self.stage_sums(k, &waves, &sums, &memory);
        k.barrier_shared();
        if self.class.waves_k > 1 {
            self.add_partial(k, &memory);
            k.barrier_shared();
        }
        let stage = Stage {
            base: self.at(k, memory.stage),
            rows: self.gemv.rows,
            columns: self.class.span_tiles * 16,
            pitch: memory.pitch,
        };
        let first_column = k.mul_const(span, i64::from(stage.columns));
        let Place { first_row, rows, .. } = self.place;
        let tile = Tile { first_row, rows, first_column };
        self.for_section(k, section, |k, section| {
            Epilogue::new(self.gemv.spec, section, self.gemv.target, self.gemv.workgroup)
                .emit(k, self.env, &stage, &tile);
        });
    }

    /// An address in the local data share.
    fn at(&self, k: &mut Builder, offset: u32) -> Value {
        k.offset_const(self.shared, offset.into())
    }

    /// Which of the class's sections this workgroup works on, and which of its spans.
    fn section(&self, k: &mut Builder) -> (Value, Value) {
        let mut section = k.i32(0);
        let mut first = k.i32(0);
        let mut next = 0;
        for index in 1..self.class.sections.len() {
            next += self.class.section_groups[index - 1];
            let from = k.i32(next as i32);
            let here = k.cmp(Cmp::Ge, self.place.group, from);
            let this = k.i32(index as i32);
            section = k.select(here, this, section);
            first = k.select(here, from, first);
        }
        (section, k.sub(self.place.group, first))
    }

    /// Runs `body` for the section whose place in the class is `index`.
    fn for_section(&self, k: &mut Builder, index: Value, body: impl Fn(&mut Builder, &Section)) {
        let sections = &self.class.sections;
        for (place, &section) in sections.iter().enumerate() {
            let section = &self.gemv.sections[section];
            if sections.len() == 1 {
                return body(k, section);
            }
            let this = k.i32(place as i32);
            let here = k.cmp(Cmp::Eq, index, this);
            k.if_then(here, |k| body(k, section));
        }
    }

    /// What this wave reads, by bundle.
    fn streams(&self, k: &mut Builder, section: Value, span: Value) -> Vec<Vec<Stream>> {
        let first = k.mul_const(span, self.class.span_tiles.into());
        let mine = k.mul_const(self.place.wave_n, self.class.tiles.into());
        let first = k.add(first, mine);
        let mut bundles = vec![];
        for bundle in &self.class.bundles {
            let mut streams = vec![];
            for &slot in &bundle.slots {
                for tile in 0..self.class.tiles {
                    let index = k.add_const(first, tile.into());
                    streams.push(self.stream(k, bundle, slot, index, section));
                }
            }
            bundles.push(streams);
        }
        bundles
    }

    /// Tile `tile`, or the last one, of the weight in `slot` of the section.
    fn stream(
        &self,
        k: &mut Builder,
        bundle: &Bundle,
        slot: usize,
        tile: Value,
        section: Value,
    ) -> Stream {
        let mut found: Option<[Value; 4]> = None;
        for (place, &index) in self.class.sections.iter().enumerate() {
            let weight = self.gemv.sections[index].weights[slot];
            let layout = &self.gemv.spec.weights[weight];
            let base = self.env.weights[weight];
            let scales = k.offset_const(base, layout.scales_offset() as i64);
            let tail = k.offset_const(base, layout.tail_offset() as i64);
            let last = k.i32(layout.tiles() as i32 - 1);
            let this = [base, scales, tail, last];
            found = Some(match found {
                None => this,
                Some(others) => {
                    let place = k.i32(place as i32);
                    let here = k.cmp(Cmp::Eq, section, place);
                    [0, 1, 2, 3].map(|i| k.select(here, this[i], others[i]))
                }
            });
        }
        let Some([base, scales, tail, last]) = found else {
            unreachable!("a class has a section");
        };
        let tile = k.min(tile, last);
        bundle.stream(k, [base, scales, tail], tile)
    }

    /// The sums of this wave over its part of K: by bundle, and there by stream and row. Sums of
    /// squares of x are left in the local data share.
    fn products(&self, k: &mut Builder, waves: &[Wave<'_>], memory: &Memory) -> Vec<Vec<Value>> {
        let activations = &self.class.activations;
        let mut carried = vec![];
        for wave in waves {
            let ty = wave.bundle.sum_type();
            let sums = wave.streams.len() as u32 * self.gemv.rows;
            carried.extend((0..sums).map(|_| k.zero(ty)));
        }
        carried.extend(activations.no_squares(k));
        let (zero, slabs) = (k.i32(0), k.i32(activations.slabs as i32));
        let carried = match activations.slabs {
            1 => self.slab(k, waves, zero, &carried, memory),
            _ => k.for_values(zero, slabs, 1, &carried, |k, slab, carried| {
                // The slab before is no longer read.
                k.barrier_shared();
                self.slab(k, waves, slab, carried, memory)
            }),
        };
        self.by_bundle(waves, &carried)
    }

    /// Divides a list that begins with all sums.
    fn by_bundle(&self, waves: &[Wave<'_>], mut values: &[Value]) -> Vec<Vec<Value>> {
        let mut bundles = vec![];
        for wave in waves {
            let (sums, rest) = values.split_at(wave.streams.len() * self.gemv.rows as usize);
            bundles.push(sums.to_vec());
            values = rest;
        }
        bundles
    }

    /// Stages slab `index` of x and adds its products: to all sums, then sums of squares.
    fn slab(
        &self,
        k: &mut Builder,
        waves: &[Wave<'_>],
        index: Value,
        carried: &[Value],
        memory: &Memory,
    ) -> Vec<Value> {
        let activations = &self.class.activations;
        let slab = activations.slab(k, index);
        let ranges: Vec<Range> =
            waves.iter().map(|wave| self.range(k, wave.bundle, &slab)).collect();
        let (sums, squares) = carried.split_at(carried.len() - self.gemv.rows as usize);
        let block = Block {
            env: self.env,
            target: self.gemv.target,
            workgroup: self.gemv.workgroup,
            first_row: self.place.first_row,
            shared: self.shared,
        };
        let mut first = None;
        let squares = activations.stage(k, &block, &slab, squares, |k| {
            if waves[0].bundle.units() > 0 {
                first = Some(waves[0].first_loads(k, ranges[0].from));
            }
        });
        if self.env.norm.is_some() {
            self.store_squares(k, &squares, memory);
        }
        k.barrier_shared();
        let mut next = self.by_bundle(waves, sums);
        let mut before = None;
        for ((wave, &range), sums) in waves.iter().zip(&ranges).zip(&mut next) {
            // LLVM would have the loads, and x, of one bundle during the products of another, and
            // not the registers for both.
            let wave = &before.map_or_else(|| wave.clone(), |sum| wave.after(k, sum));
            *sums = self.products_of_slab(k, wave, range, first.take(), &slab, sums);
            before = sums.first().map(|&sum| match sum.ty.is_scalar() {
                true => sum,
                false => k.extract(sum, 0),
            });
        }
        next.concat().into_iter().chain(squares).collect()
    }

    /// The units of a slab that this wave multiplies.
    fn range(&self, k: &mut Builder, bundle: &Bundle, slab: &Slab) -> Range {
        let [base, end] = self.class.activations.units(k, slab, bundle);
        let units = k.sub(end, base);
        let waves = k.i32(self.class.waves_k as i32);
        let [from, to] = [0, 1].map(|next| {
            let part = k.add_const(self.place.wave_k, next);
            let units = k.mul(units, part);
            let units = k.udiv(units, waves);
            k.add(base, units)
        });
        Range { from, to, base }
    }

    /// Adds the products with a slab's units and, in the last slab, with the tail, which the last
    /// of the waves that share K has.
    fn products_of_slab(
        &self,
        k: &mut Builder,
        wave: &Wave<'_>,
        range: Range,
        first: Option<Loaded>,
        slab: &Slab,
        sums: &[Value],
    ) -> Vec<Value> {
        let bundle = wave.bundle;
        let tail = bundle.tail_cells() > 0;
        // With the units, unless that is more than registers have room for.
        let roomy = self.gemv.target.platform == Platform::Amd || bundle.dtype != DType::Q8_0;
        let always = self.class.waves_k == 1 && slab.last.is_none() && roomy;
        let mut loaded = None;
        let mut sums = sums.to_vec();
        let load_tail = |k: &mut Builder, loaded: &mut Option<Loaded>| {
            if tail && always {
                *loaded = Some(wave.load_tail(k));
            }
        };
        if bundle.units() > 0 {
            let first = match first {
                Some(first) => first,
                None => wave.first_loads(k, range.from),
            };
            sums = wave.units(k, range, first, &sums, |k| load_tail(k, &mut loaded));
        } else {
            load_tail(k, &mut loaded);
        }
        match (tail, loaded) {
            (false, _) => sums,
            (true, Some(loaded)) => wave.multiply_tail(k, range.base, &loaded, &sums),
            (true, None) => {
                let last = k.i32(self.class.waves_k as i32 - 1);
                let mine = k.cmp(Cmp::Eq, self.place.wave_k, last);
                let here = slab.last.map_or(mine, |last| k.and(mine, last));
                k.if_values(
                    here,
                    |k| {
                        let loaded = wave.load_tail(k);
                        wave.multiply_tail(k, range.base, &loaded, &sums)
                    },
                    |_| sums.clone(),
                )
            }
        }
    }

    /// Leaves this wave's sums of squares, by row.
    fn store_squares(&self, k: &mut Builder, squares: &[Value], memory: &Memory) {
        let target = self.gemv.target;
        let lane = k.lane(target);
        let zero = k.i32(0);
        let sums: Vec<Value> = squares
            .iter()
            .map(|&squares| {
                let sum = if squares.ty.is_scalar() { squares } else { k.reduce_add(squares) };
                k.reduce_lanes(sum, target.wave, target, |k, a, b| k.add(a, b))
            })
            .collect();
        let wave = k.wave(target);
        let base = self.at(k, memory.squares);
        let to = k.element_u32(base, Elem::F32, wave);
        let first = k.cmp(Cmp::Eq, lane, zero);
        k.if_then(first, |k| {
            for (row, &sum) in sums.iter().enumerate() {
                let to = k.offset_const(to, row as i64 * i64::from(self.gemv.waves()) * 4);
                k.store(sum, to);
            }
        });
    }

    /// What the norm multiplies a row with.
    fn scale_of_row(&self, k: &mut Builder, row: u32, memory: &Memory) -> Option<Value> {
        let eps = self.gemv.spec.norm_eps?;
        let waves = self.gemv.waves();
        let base = self.at(k, memory.squares + row * waves * 4);
        let mut sum = k.load(base, Elem::F32);
        for wave in 1..waves {
            let at = k.offset_const(base, i64::from(wave) * 4);
            let part = k.load(at, Elem::F32);
            sum = k.add(sum, part);
        }
        Some(scalar::rms_scale(k, sum, self.gemv.spec.k, eps))
    }

    /// Adds up what lane groups have, and stages it: in the stage what the first of the waves that
    /// share K has, in planes of their own before it what the others have.
    fn stage_sums(
        &self,
        k: &mut Builder,
        waves: &[Wave<'_>],
        sums: &[Vec<Value>],
        memory: &Memory,
    ) {
        let (gemv, class) = (self.gemv, self.class);
        let rows = gemv.rows;
        let scales: Vec<Option<Value>> =
            (0..rows).map(|row| self.scale_of_row(k, row, memory)).collect();
        let plane = rows * memory.pitch * 4;
        let before = k.mul_const(self.place.wave_k, (class.slots() * plane).into());
        let stage = k.i32(memory.stage as i32);
        let start = k.sub(stage, before);
        let first_tile = k.mul_const(self.place.wave_n, class.tiles.into());
        let column = k.mul_const(first_tile, TILE_COLUMNS as i64);
        let column = k.add(column, waves[0].lanes.column);
        let column = k.mul_const(column, 4);
        let offset = k.add(start, column);
        let base = k.offset_u32(self.shared, offset);
        // All of them before the first branch: LLVM would move products behind it.
        let totals: Vec<Vec<Value>> =
            sums.iter().map(|sums| sums.iter().map(|&sum| self.total(k, sum)).collect()).collect();
        for (wave, totals) in waves.iter().zip(&totals) {
            for tile in 0..class.tiles {
                let exists = self.stores_tile(k, first_tile, tile, wave.lanes.group);
                k.if_then(exists, |k| {
                    for (place, &slot) in wave.bundle.slots.iter().enumerate() {
                        for row in 0..rows {
                            let stream = place as u32 * class.tiles + tile;
                            let total = totals[(stream * rows + row) as usize];
                            let total = match scales[row as usize] {
                                None => total,
                                Some(scale) => k.mul(total, scale),
                            };
                            let offset = (slot as u32 * rows + row) * memory.pitch * 4;
                            let offset = offset + tile * TILE_COLUMNS as u32 * 4;
                            let to = k.offset_const(base, offset.into());
                            k.store(total, to);
                        }
                    }
                });
            }
        }
    }

    /// Whether this lane stores its sums of tile `tile` of the wave: lane group 0 does, of tiles in
    /// the span.
    fn stores_tile(&self, k: &mut Builder, first: Value, tile: u32, group: Value) -> Value {
        let class = self.class;
        let zero = k.i32(0);
        let mut stores = k.cmp(Cmp::Eq, group, zero);
        if class.waves_n * class.tiles > class.span_tiles {
            let tile = k.add_const(first, tile.into());
            let end = k.i32(class.span_tiles as i32);
            let inside = k.below(tile, end);
            stores = k.and(stores, inside);
        }
        self.place.busy.map_or(stores, |busy| k.and(stores, busy))
    }

    /// The sum over a wave's lane groups.
    fn total(&self, k: &mut Builder, sum: Value) -> Value {
        let sum = if sum.ty.is_scalar() { sum } else { k.reduce_add(sum) };
        k.reduce_groups(sum, TILE_COLUMNS as u32, self.gemv.target, |k, a, b| k.add(a, b))
    }

    /// Adds to the stage what other waves have of K, in their order.
    fn add_partial(&self, k: &mut Builder, memory: &Memory) {
        let slots = self.class.slots();
        let per_row = self.class.span_tiles * TILE_COLUMNS as u32 / 4;
        let region = i64::from(slots * self.gemv.rows * memory.pitch * 4);
        let stage = self.at(k, memory.stage);
        let thread = k.thread();
        let end = k.i32((slots * self.gemv.rows * per_row) as i32);
        k.for_strided(thread, end, self.gemv.workgroup, |k, index| {
            let (row, piece) = split(k, index, per_row);
            let row = k.mul_const(row, (memory.pitch * 4).into());
            let piece = k.mul_const(piece, 16);
            let offset = k.add(row, piece);
            let at = k.offset_u32(stage, offset);
            let four = Elem::F32.vec(4);
            let mut sum = k.load_aligned(at, four, 16);
            for wave in 1..self.class.waves_k {
                let other = k.offset_const(at, -i64::from(wave) * region);
                let part = k.load_aligned(other, four, 16);
                sum = k.add(sum, part);
            }
            k.store_aligned(sum, at, 16);
        });
    }
}
