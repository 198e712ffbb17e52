//! `plan-memory`: an offset in one arena for every temporary buffer of a schedule.
//!
//! A buffer is live from the step that writes it to the last step that reads it; buffers that are live
//! at a common step must not overlap. Finding the smallest arena is NP-hard (dynamic storage
//! allocation), but greedy placement at the lowest free offset is near the lower bound for the graphs
//! of transformers; several orders are tried and the best is kept. `check_memory` checks the result
//! without sharing code with it.

use crate::schedule::{BufferKind, Schedule};
use std::cmp::Reverse;
use thiserror::Error;
use waveloom_ir::Module;

/// Every offset is a multiple of this: a cache line, and the widest vector of a CPU.
pub const ALIGNMENT: u64 = 64;

/// Where the temporary buffers of a schedule lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Offset in bytes by [`crate::BufferId`]; `None` where the buffer is not in the arena.
    pub offsets: Vec<Option<u64>>,
    /// Bytes of the arena.
    pub peak: u64,
    /// The most bytes that are live at one step: no arena for this schedule is smaller.
    pub lower_bound: u64,
}

impl MemoryPlan {
    /// Peak over lower bound; 1 for an empty arena.
    pub fn ratio(&self) -> f64 {
        match self.lower_bound {
            0 => 1.0,
            bound => self.peak as f64 / bound as f64,
        }
    }
}

/// Why a schedule has no memory plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// A buffer, or all together, does not fit in 64 bits.
    #[error(
        "buffer `{buffer}` makes the arena larger than 2^64 bytes; lower the largest context or step"
    )]
    TooLarge {
        /// Name of the buffer.
        buffer: String,
    },
}

/// A temporary buffer with its live range, in steps, both ends included.
#[derive(Clone, Copy, Debug)]
struct Interval {
    buffer: usize,
    start: usize,
    end: usize,
    bytes: u64,
}

impl Interval {
    fn overlaps(&self, other: &Interval) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// Plans the arena of `schedule`, with every symbol at its largest extent.
pub fn plan_memory(module: &Module, schedule: &Schedule) -> Result<MemoryPlan, PlanError> {
    let intervals = live_intervals(module, schedule)?;
    let lower_bound = max_live_bytes(&intervals, schedule.steps.len());
    let mut best: Option<(u64, Vec<Option<u64>>)> = None;
    for order in placement_orders(&intervals) {
        let (peak, offsets) = place_first_fit(&order, schedule.buffers.len());
        if best.as_ref().is_none_or(|(smallest, _)| peak < *smallest) {
            best = Some((peak, offsets));
        }
        if peak <= lower_bound {
            break;
        }
    }
    let (peak, offsets) = best.unwrap_or_default();
    Ok(MemoryPlan { offsets, peak, lower_bound })
}

fn live_intervals(module: &Module, schedule: &Schedule) -> Result<Vec<Interval>, PlanError> {
    let mut range: Vec<Option<(usize, usize)>> = vec![None; schedule.buffers.len()];
    for (at, step) in schedule.steps.iter().enumerate() {
        for buffer in step.operands.iter().chain(&step.results) {
            let range = range[buffer.index()].get_or_insert((at, at));
            range.1 = at;
        }
    }
    let mut intervals = vec![];
    let mut total = 0u64;
    for (index, buffer) in schedule.buffers.iter().enumerate() {
        let (BufferKind::Temporary, Some((start, end))) = (buffer.kind, range[index]) else {
            continue;
        };
        let too_large = || PlanError::TooLarge { buffer: buffer.name.clone() };
        let bytes = buffer.ty.bytes(|dim| module.max_extent(dim));
        let bytes = bytes.ok_or_else(too_large)?;
        // The sum bounds every offset, so that placement needs no checks of its own.
        total = bytes
            .checked_next_multiple_of(ALIGNMENT)
            .and_then(|padded| total.checked_add(padded))
            .ok_or_else(too_large)?;
        intervals.push(Interval { buffer: index, start, end, bytes });
    }
    Ok(intervals)
}

/// The most bytes of temporary buffers that are live at one step, without padding.
pub(crate) fn peak_live_bytes(module: &Module, schedule: &Schedule) -> Result<u64, PlanError> {
    let intervals = live_intervals(module, schedule)?;
    Ok(max_live_bytes(&intervals, schedule.steps.len()))
}

fn max_live_bytes(intervals: &[Interval], steps: usize) -> u64 {
    let mut live_at = vec![0u64; steps];
    for interval in intervals {
        for live in &mut live_at[interval.start..=interval.end] {
            *live += interval.bytes;
        }
    }
    live_at.into_iter().max().unwrap_or(0)
}

/// Orders in which buffers are placed. Large ones first is best for mixed sizes; by start packs chains
/// of equal sizes tightly; by area weighs both.
fn placement_orders(intervals: &[Interval]) -> Vec<Vec<Interval>> {
    let length = |i: &Interval| (i.end - i.start + 1) as u128;
    let weights: [&dyn Fn(&Interval) -> u128; 4] = [
        &|i| i.bytes.into(),
        &length,
        &|_| 0, // by start
        &|i| u128::from(i.bytes) * length(i),
    ];
    let sorted = |weight: &dyn Fn(&Interval) -> u128| {
        let mut order = intervals.to_vec();
        order.sort_by_key(|i| (Reverse(weight(i)), i.start, i.buffer));
        order
    };
    weights.into_iter().map(sorted).collect()
}

/// Places each buffer at the lowest offset where it meets no placed buffer that is live with it.
fn place_first_fit(order: &[Interval], buffers: usize) -> (u64, Vec<Option<u64>>) {
    let mut offsets = vec![None; buffers];
    let mut placed: Vec<(u64, Interval)> = vec![]; // by offset
    let mut peak = 0;
    for &interval in order {
        let mut offset = 0;
        for &(other_offset, other) in &placed {
            if !other.overlaps(&interval) {
                continue;
            }
            if offset + interval.bytes <= other_offset {
                break;
            }
            offset = offset.max((other_offset + other.bytes).next_multiple_of(ALIGNMENT));
        }
        offsets[interval.buffer] = Some(offset);
        peak = peak.max(offset + interval.bytes);
        let at = placed.partition_point(|&(other, _)| other <= offset);
        placed.insert(at, (offset, interval));
    }
    (peak, offsets)
}
