//! What every runtime may rely on. [`Plan::verify`] checks, for all values of the symbols inside
//! their bounds:
//!
//! - the version is this program's, and the target has a name;
//! - symbol bounds are ordered and fit in an `i32`; the decode loop's three symbols differ and
//!   are bounded by the model's prefill chunk and context;
//! - every kernel, buffer, symbol and program index is in range;
//! - sizes and offsets depend on the context length alone, stay below [`MAX_BYTES`], offsets are
//!   multiples of 64, and buffers end inside their segments (at sampled context lengths here, at
//!   the one in use in [`Plan::layout`], which a runtime calls);
//! - grids are not negative, and no grid or scalar argument overflows;
//! - a launch writes only buffers among its arguments, and no constants; a buffer that it writes
//!   overlaps none of its other arguments, unless both are the same range;
//! - the decode loop's buffers are in the io segment, and hold what they must;
//! - a persistent step is what `persistent::check_persistent` says;
//! - no kernel asks for more of the local data share than any GPU has;
//! - fills of synthetic weights lie inside the constants segment, and their numbers are finite.

use crate::expr::Expr;
use crate::layout::{Layout, MAX_BYTES};
use crate::persistent::{PersistentError, check_persistent};
use crate::plan::{
    Arg, BufferId, FORMAT_VERSION, Launch, MAX_SHARED_BYTES, Plan, SamplingParams, Segment,
};
use std::ops::RangeInclusive;
use thiserror::Error;

/// No launch has more work items than this.
pub const MAX_GRID: i64 = 1 << 40;

/// Why a plan cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Not JSON, or not of this data model.
    #[error("the plan cannot be read: {0}")]
    Parse(String),
    /// Of another version.
    #[error("the plan has version {0}, this program reads {FORMAT_VERSION}: recompile the model")]
    Version(u32),
    /// An index out of range.
    #[error("{place} names {kind} {index}, but the plan has {count}")]
    Index {
        /// What names it.
        place: String,
        /// What it should be.
        kind: &'static str,
        /// The index.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A statement about the plan that does not hold.
    #[error("{place}: {problem}")]
    Invalid {
        /// Where.
        place: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A size or offset that depends on more than the context length.
    #[error("{place}: its place in memory depends on a symbol other than the context length")]
    NotLoadTime {
        /// What is placed.
        place: String,
    },
    /// A size or offset that is negative or absurd.
    #[error("{place}: its size or offset at context length {context} is not in 0..=2^48")]
    Size {
        /// What is placed.
        place: String,
        /// The context length.
        context: u32,
    },
    /// An offset that is not a multiple of 64.
    #[error("{place}: offset {offset} is not a multiple of 64")]
    Unaligned {
        /// What is placed.
        place: String,
        /// Its offset.
        offset: u64,
    },
    /// A buffer that does not fit.
    #[error("{place}: ends at byte {end} of a segment of {size}")]
    OutsideSegment {
        /// What is placed.
        place: String,
        /// Its end.
        end: u64,
        /// The segment's size.
        size: u64,
    },
    /// A buffer of the decode loop that is too small.
    #[error("{place}: has {bytes} bytes and needs {needed}")]
    TooSmall {
        /// The buffer.
        place: String,
        /// Its size.
        bytes: u64,
        /// What it must hold.
        needed: u64,
    },
    /// Two arguments of a launch that overlap, one of which it writes.
    #[error("{place}: writes `{written}`, which overlaps its argument `{other}`")]
    Overlap {
        /// The launch.
        place: String,
        /// The buffer it writes.
        written: String,
        /// The other argument.
        other: String,
    },
    /// A persistent step that must not run.
    #[error(transparent)]
    Persistent(#[from] Box<PersistentError>),
    /// A context length that the plan does not allow.
    #[error(
        "context length {context} is not in {min}..={max}, the range this model was compiled for"
    )]
    Context {
        /// What was asked for.
        context: u32,
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
}

pub(crate) type Result<T = (), E = PlanError> = std::result::Result<T, E>;

/// Fails with `problem` at `place` unless `holds`.
pub(crate) fn ensure(holds: bool, place: impl Into<String>, problem: &'static str) -> Result {
    if holds { Ok(()) } else { Err(PlanError::Invalid { place: place.into(), problem }) }
}

fn in_range(place: &str, kind: &'static str, index: usize, count: usize) -> Result {
    if index < count {
        return Ok(());
    }
    Err(PlanError::Index { place: place.into(), kind, index, count })
}

impl Plan {
    /// Reads a plan and verifies it.
    pub fn from_json(json: &[u8]) -> Result<Plan> {
        // The version first: another one may have another shape.
        #[derive(serde::Deserialize)]
        struct Versioned {
            version: u32,
        }
        let parse = |error: serde_json::Error| PlanError::Parse(error.to_string());
        let Versioned { version } = serde_json::from_slice(json).map_err(parse)?;
        if version != FORMAT_VERSION {
            return Err(PlanError::Version(version));
        }
        let plan: Plan = serde_json::from_slice(json).map_err(parse)?;
        plan.verify()?;
        Ok(plan)
    }

    /// The plan as JSON, the content of an artifact's `plan.<target>`.
    pub fn to_json(&self) -> Vec<u8> {
        // Plain data with string keys: serialization to memory cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Checks everything that the head of this file lists.
    pub fn verify(&self) -> Result {
        if self.version != FORMAT_VERSION {
            return Err(PlanError::Version(self.version));
        }
        ensure(!self.target.is_empty(), "plan", "its target has no name")?;
        self.verify_symbols()?;
        for kernel in &self.kernels {
            let valid = !kernel.name.is_empty() && !kernel.name.contains('\0');
            ensure(
                valid,
                format!("kernel `{}`", kernel.name.escape_default()),
                "not a symbol name",
            )?;
            ensure(
                kernel.shared_bytes <= MAX_SHARED_BYTES,
                format!("kernel `{}`", kernel.name),
                "asks for more of the local data share than any GPU has",
            )?;
        }
        ensure(self.scratch_bytes <= MAX_BYTES, "scratch", "more than 2^48 bytes")?;
        let layouts = self.sample_layouts()?;
        self.verify_decode_loop(&layouts)?;
        if let Some(synthetic) = &self.synthetic {
            layouts.iter().try_for_each(|layout| synthetic.verify(layout.constants))?;
        }
        for program in &self.programs {
            for (index, launch) in program.launches.iter().enumerate() {
                let place = format!("program `{}`, launch {index}", program.name);
                self.verify_launch(&place, launch, &layouts)?;
            }
        }
        if let Some(step) = &self.persistent {
            check_persistent(self, step).map_err(Box::new)?;
        }
        Ok(())
    }

    fn verify_symbols(&self) -> Result {
        for symbol in &self.symbols {
            let ordered = 0 <= symbol.min && symbol.min <= symbol.max;
            let valid = ordered && symbol.max <= i64::from(i32::MAX);
            ensure(
                valid,
                format!("symbol `{}`", symbol.name),
                "its bounds are not 0 <= min <= max < 2^31",
            )?;
        }
        let walk = &self.decode_loop;
        let roles = [
            ("decode loop, step tokens", walk.step_tokens, self.model.prefill_chunk),
            ("decode loop, cache length", walk.cache_length, self.model.max_context),
            ("decode loop, context", walk.context, self.model.max_context),
        ];
        for (place, id, max) in roles {
            in_range(place, "symbol", id, self.symbols.len())?;
            let symbol = &self.symbols[id];
            ensure(symbol.min == 1, place, "its smallest value is not 1")?;
            ensure(symbol.max == i64::from(max), place, "its largest value is not the model's")?;
        }
        let [a, b, c] = roles.map(|(_, id, _)| id);
        ensure(a != b && b != c && c != a, "decode loop", "its symbols are not three")?;
        ensure(self.model.vocab >= 1, "model", "its vocabulary is empty")?;
        ensure(i32::try_from(self.model.vocab).is_ok(), "model", "its vocabulary is too large")
    }

    /// Context lengths that can be asked for at load.
    pub(crate) fn context_bounds(&self) -> Result<RangeInclusive<i64>> {
        let id = self.decode_loop.context;
        in_range("decode loop, context", "symbol", id, self.symbols.len())?;
        Ok(self.symbols[id].min..=self.symbols[id].max)
    }

    /// Layouts at the ends and inside of the range of context lengths; offsets and sizes are
    /// monotone in it in any plan that makes sense.
    pub(crate) fn sample_layouts(&self) -> Result<Vec<Layout>> {
        let (min, max) = self.context_bounds()?.into_inner();
        let mut samples = vec![min, max, (min + 1).min(max), max - (max - min) / 3];
        samples.dedup();
        samples.into_iter().map(|context| self.layout(context as u32)).collect()
    }

    fn verify_decode_loop(&self, layouts: &[Layout]) -> Result {
        let walk = &self.decode_loop;
        for (place, id) in [
            ("decode loop, prefill", walk.prefill),
            ("decode loop, decode", walk.decode),
            ("decode loop, sample", walk.sample),
        ] {
            in_range(place, "program", id, self.programs.len())?;
        }
        for layout in layouts {
            let chunk = 4 * u64::from(self.model.prefill_chunk);
            let history = 4 * (u64::from(layout.context) + 1);
            self.verify_io("tokens", walk.tokens, chunk, layout)?;
            self.verify_io("positions", walk.positions, chunk, layout)?;
            self.verify_io("last", walk.last, 4, layout)?;
            self.verify_io("logits", walk.logits, 4 * u64::from(self.model.vocab), layout)?;
            self.verify_io("sampling", walk.sampling, SamplingParams::BYTES as u64, layout)?;
            self.verify_io("history", walk.history, history, layout)?;
        }
        Ok(())
    }

    fn verify_io(&self, role: &str, id: BufferId, needed: u64, layout: &Layout) -> Result {
        let place = format!("decode loop, {role}");
        in_range(&place, "buffer", id, self.buffers.len())?;
        let placement = &layout.buffers[id];
        ensure(placement.segment == Segment::Io, &place, "is not in the io segment")?;
        let bytes = placement.bytes;
        if bytes < needed { Err(PlanError::TooSmall { place, bytes, needed }) } else { Ok(()) }
    }

    fn verify_launch(&self, place: &str, launch: &Launch, layouts: &[Layout]) -> Result {
        in_range(place, "kernel", launch.kernel, self.kernels.len())?;
        let (low, high) = self.bounds(place, &launch.grid)?;
        ensure(low >= 0, place, "its grid can be negative")?;
        ensure(high <= MAX_GRID, place, "its grid can exceed 2^40")?;
        for arg in &launch.args {
            match arg {
                Arg::Buffer(id) => in_range(place, "buffer", *id, self.buffers.len())?,
                Arg::Scalar(expr) => self.bounds(place, expr).map(drop)?,
                Arg::Scratch => {}
            }
        }
        for &written in &launch.writes {
            let is_arg = launch.args.contains(&Arg::Buffer(written));
            ensure(is_arg, place, "writes a buffer that is not among its arguments")?;
            let constant = self.buffers[written].segment == Segment::Constants;
            ensure(!constant, place, "writes constants")?;
            self.verify_overlap(place, launch, written, layouts)?;
        }
        Ok(())
    }

    fn verify_overlap(
        &self,
        place: &str,
        launch: &Launch,
        written: BufferId,
        layouts: &[Layout],
    ) -> Result {
        for arg in &launch.args {
            let Arg::Buffer(other) = *arg else { continue };
            for layout in layouts {
                let (a, b) = (&layout.buffers[written], &layout.buffers[other]);
                if a != b && a.overlaps(b) {
                    let name = |id: BufferId| self.buffers[id].name.clone();
                    let (written, other) = (name(written), name(other));
                    return Err(PlanError::Overlap { place: place.into(), written, other });
                }
            }
        }
        Ok(())
    }

    fn bounds(&self, place: &str, expr: &Expr) -> Result<(i64, i64)> {
        let problem = "an expression overflows, divides by zero or names an unknown symbol";
        let invalid = || PlanError::Invalid { place: place.into(), problem };
        expr.bounds(&self.symbols).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy;
    use insta::assert_snapshot;
    use proptest::prelude::*;

    /// The message for the toy plan after `change`.
    fn error(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = toy::plan();
        change(&mut plan);
        plan.verify().expect_err("the plan is wrong").to_string()
    }

    #[test]
    fn the_toy_plan_verifies() {
        let plan = toy::plan();
        plan.verify().unwrap();
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
        let layout = plan.layout(100).unwrap();
        assert_eq!(layout.buffers[toy::CACHE].bytes, 448);
        assert_eq!(layout.peak_bytes(3), 128 + 64 + 448 + layout.io + 3 * 256);
    }

    #[test]
    fn names_what_is_wrong() {
        assert_snapshot!(error(|p| p.version = 3), @"the plan has version 3, this program reads 2: recompile the model");
        assert_snapshot!(error(|p| p.symbols[0].max = 0), @"symbol `T`: its bounds are not 0 <= min <= max < 2^31");
        assert_snapshot!(error(|p| p.symbols[1].max = 9), @"decode loop, cache length: its largest value is not the model's");
        assert_snapshot!(error(|p| p.decode_loop.context = 7), @"decode loop, context names symbol 7, but the plan has 3");
        assert_snapshot!(error(|p| p.decode_loop.cache_length = 2), @"decode loop: its symbols are not three");
        assert_snapshot!(error(|p| p.decode_loop.sample = 3), @"decode loop, sample names program 3, but the plan has 3");
        assert_snapshot!(error(|p| p.decode_loop.logits = toy::CACHE), @"decode loop, logits: is not in the io segment");
        assert_snapshot!(error(|p| p.model.vocab = 1000), @"decode loop, logits: has 40 bytes and needs 4000");
        assert_snapshot!(error(|p| p.buffers[toy::LAST].offset = Expr::from(65)), @"buffer 5 `last`: offset 65 is not a multiple of 64");
        assert_snapshot!(error(|p| p.buffers[toy::CACHE].bytes = Expr::from(1 << 20)), @"buffer 2 `cache`: ends at byte 1048576 of a segment of 64");
        assert_snapshot!(error(|p| p.segments.state = Expr::from(1 << 50)), @"segment state: its size or offset at context length 1 is not in 0..=2^48");
        assert_snapshot!(error(|p| p.segments.arena = Expr::from(-64)), @"segment arena: its size or offset at context length 1 is not in 0..=2^48");
        assert_snapshot!(error(|p| p.segments.arena = Expr::Symbol(0)), @"segment arena: its place in memory depends on a symbol other than the context length");
        assert_snapshot!(error(|p| p.kernels[0].name = "a\0b".into()), @r#"kernel `a\u{0}b`: not a symbol name"#);
        assert_snapshot!(error(|p| p.kernels[0].shared_bytes = 1 << 20), @"kernel `append_0`: asks for more of the local data share than any GPU has");
        assert_snapshot!(error(|p| p.programs[0].launches[1].kernel = 9), @"program `prefill`, launch 1 names kernel 9, but the plan has 3");
        assert_snapshot!(error(|p| p.programs[0].launches[1].grid = Expr::from(-1)), @"program `prefill`, launch 1: its grid can be negative");
        assert_snapshot!(error(|p| p.programs[1].launches[0].args.clear()), @"program `decode`, launch 0: writes a buffer that is not among its arguments");
        assert_snapshot!(error(|p| p.programs[1].launches[0].args[0] = Arg::Buffer(99)), @"program `decode`, launch 0 names buffer 99, but the plan has 9");
        assert_snapshot!(error(|p| {
            let huge = Expr::Symbol(0) * Expr::from(i64::MAX);
            p.programs[1].launches[0].args.push(Arg::Scalar(huge));
        }), @"program `decode`, launch 0: an expression overflows, divides by zero or names an unknown symbol");
        assert_snapshot!(error(|p| {
            p.programs[1].launches[0].args.push(Arg::Buffer(toy::WEIGHT));
            p.programs[1].launches[0].writes.push(toy::WEIGHT);
        }), @"program `decode`, launch 0: writes constants");
        assert_snapshot!(error(|p| {
            p.buffers[toy::POSITIONS].offset = Expr::from(64);
            p.buffers[toy::TOKENS].bytes = Expr::from(128);
        }), @"program `decode`, launch 2: writes `tokens`, which overlaps its argument `positions`");
        assert_snapshot!(toy::plan().layout(999).unwrap_err(), @"context length 999 is not in 1..=128, the range this model was compiled for");
        assert_snapshot!(Plan::from_json(b"{\"version\":2}").unwrap_err(), @"the plan cannot be read: missing field `target` at line 1 column 13");
        assert_snapshot!(Plan::from_json(b"[").unwrap_err(), @"the plan cannot be read: EOF while parsing a list at line 1 column 1");
    }

    proptest! {
        #[test]
        fn mutated_plans_do_not_panic(at in 0usize..10_000, byte in any::<u8>(), cut in any::<bool>()) {
            let mut json = toy::plan().to_json();
            let at = at % json.len();
            json[at] = byte;
            if cut {
                json.truncate(at);
            }
            if let Ok(plan) = Plan::from_json(&json) {
                let _ = plan.to_string();
                let _ = plan.layout(77);
            }
        }
    }
}
