//! The plan's buffers for one context length: where each lies, and how large the segments are.

use crate::expr::Expr;
use crate::plan::{Plan, Segment};
use crate::verify::PlanError;

/// Buffers start at multiples of this many bytes.
pub const ALIGNMENT: u64 = 64;

/// No segment, buffer or scratch area is larger than this.
pub const MAX_BYTES: u64 = 1 << 48;

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The segment that holds it.
    pub segment: Segment,
    /// Offset in bytes from the segment's start, a multiple of [`ALIGNMENT`].
    pub offset: u64,
    /// Size in bytes; the buffer ends inside its segment.
    pub bytes: u64,
}

impl Placement {
    /// Whether the `count` bytes from byte `first` on are inside.
    pub fn holds(&self, first: u64, count: usize) -> bool {
        first.checked_add(count as u64).is_some_and(|end| end <= self.bytes)
    }

    /// Whether both lie in the same segment and share a byte.
    pub fn overlaps(&self, other: &Placement) -> bool {
        self.segment == other.segment
            && self.offset < other.offset + other.bytes
            && other.offset < self.offset + self.bytes
    }
}

/// The plan's memory for one context length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The context length.
    pub context: u32,
    /// Buffers, by [`crate::BufferId`].
    pub buffers: Vec<Placement>,
    /// Bytes of the constants segment.
    pub constants: u64,
    /// Bytes of the arena.
    pub arena: u64,
    /// Bytes of the state segment.
    pub state: u64,
    /// Bytes of the io segment.
    pub io: u64,
    /// Scratch bytes of each worker.
    pub scratch: u64,
}

impl Layout {
    /// Bytes of a segment.
    pub fn segment(&self, segment: Segment) -> u64 {
        match segment {
            Segment::Constants => self.constants,
            Segment::Arena => self.arena,
            Segment::State => self.state,
            Segment::Io => self.io,
        }
    }

    /// Bytes of all memory of a session with `workers` workers, weights included.
    pub fn peak_bytes(&self, workers: u64) -> u64 {
        let segments = [self.constants, self.arena, self.state, self.io];
        let scratch = self.scratch.saturating_mul(workers);
        segments.into_iter().fold(scratch, u64::saturating_add)
    }
}

impl Plan {
    /// Where everything lies for a KV cache of `context` positions. All offsets are aligned, and
    /// all buffers lie inside their segments.
    pub fn layout(&self, context: u32) -> Result<Layout, PlanError> {
        let bounds = self.context_bounds()?;
        if !bounds.contains(&i64::from(context)) {
            let (min, max) = bounds.into_inner();
            return Err(PlanError::Context { context, min, max });
        }
        let sizes = &self.segments;
        let mut layout = Layout {
            context,
            buffers: Vec::with_capacity(self.buffers.len()),
            constants: self.bytes_at("segment constants", &sizes.constants, context)?,
            arena: self.bytes_at("segment arena", &sizes.arena, context)?,
            state: self.bytes_at("segment state", &sizes.state, context)?,
            io: self.bytes_at("segment io", &sizes.io, context)?,
            scratch: self.scratch_bytes,
        };
        for (id, buffer) in self.buffers.iter().enumerate() {
            let place = || format!("buffer {id} `{}`", buffer.name);
            let offset = self.bytes_at(&place(), &buffer.offset, context)?;
            let bytes = self.bytes_at(&place(), &buffer.bytes, context)?;
            if offset % ALIGNMENT != 0 {
                return Err(PlanError::Unaligned { place: place(), offset });
            }
            let size = layout.segment(buffer.segment);
            if offset + bytes > size {
                let end = offset + bytes;
                return Err(PlanError::OutsideSegment { place: place(), end, size });
            }
            layout.buffers.push(Placement { segment: buffer.segment, offset, bytes });
        }
        Ok(layout)
    }

    /// A size or offset for a context length.
    fn bytes_at(&self, place: &str, expr: &Expr, context: u32) -> Result<u64, PlanError> {
        let symbol = self.decode_loop.context;
        if !expr.all_symbols(&mut |id| id == symbol) {
            return Err(PlanError::NotLoadTime { place: place.into() });
        }
        let mut values = vec![0; self.symbols.len()];
        if let Some(value) = values.get_mut(symbol) {
            *value = i64::from(context);
        }
        let bytes = expr.eval(&values).and_then(|bytes| u64::try_from(bytes).ok());
        match bytes {
            Some(bytes) if bytes <= MAX_BYTES => Ok(bytes),
            _ => Err(PlanError::Size { place: place.into(), context }),
        }
    }
}
