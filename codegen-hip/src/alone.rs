//! A kernel by itself: the part of a plan that launches it, so that it can be run without the rest.

use crate::compile::CompiledTarget;
use crate::pack::packed_bytes;
use crate::pack::synthetic::drawn_weight;
use std::collections::BTreeSet;
use waveloom_plan::{self as plan, Arg, BufferId, Expr, Segment};

/// Seed of the weights.
const SEED: u64 = 1;

/// The plan of `compiled` with kernel `kernel` alone: its launches of every program, with the buffers
/// that they use, and drawn weights. `None` where no program launches it.
pub fn kernel_alone(compiled: &CompiledTarget, kernel: usize) -> Option<plan::Plan> {
    let whole = &compiled.lowered.plan;
    let mut plan = whole.clone();
    plan.persistent = None;
    plan.kernels = vec![whole.kernels.get(kernel)?.clone()];
    for program in &mut plan.programs {
        program.launches.retain(|launch| launch.kernel == kernel);
        program.launches.iter_mut().for_each(|launch| launch.kernel = 0);
    }
    if plan.programs.iter().all(|program| program.launches.is_empty()) {
        return None;
    }
    plan.scratch_bytes = compiled.lowered.kernels[kernel].scratch_bytes.next_multiple_of(64);
    let kept = used_buffers(&plan);
    plan.synthetic = Some(plan::Synthetic { seed: SEED, fills: vec![] });
    place_weights(&mut plan, compiled, &kept);
    let has_state = kept.iter().any(|&id| whole.buffers[id].segment == Segment::State);
    if !has_state {
        plan.segments.state = Expr::from(0);
    }
    keep_buffers(&mut plan, &kept);
    Some(plan)
}

/// Leaves of a plan of [`kernel_alone`] the first launches of one program: as many as have up to
/// `most` bytes of weights together, one at least.
pub fn keep_launches(plan: &mut plan::Plan, program: usize, most: i64) {
    let weights = |plan: &plan::Plan, launch: &plan::Launch| -> i64 {
        let args = launch.args.iter().filter_map(|arg| match arg {
            Arg::Buffer(id) => Some(&plan.buffers[*id]),
            Arg::Scalar(_) | Arg::Scratch => None,
        });
        let constants = args.filter(|buffer| buffer.segment == Segment::Constants);
        constants.filter_map(|buffer| buffer.bytes.eval(&[])).sum()
    };
    let mut sum = 0;
    let kept = plan.programs[program].launches.iter().take_while(|launch| {
        sum += weights(plan, launch);
        sum <= most
    });
    let kept = kept.count().max(1);
    for (index, program_of) in plan.programs.iter_mut().enumerate() {
        program_of.launches.truncate(if index == program { kept } else { 0 });
    }
    let kept = used_buffers(plan);
    keep_buffers(plan, &kept);
    let ends = plan.buffers.iter().filter(|buffer| buffer.segment == Segment::Constants);
    let ends = ends.filter_map(|b| Some(b.offset.eval(&[])? + b.bytes.eval(&[])?));
    let end = ends.max().unwrap_or(0);
    plan.segments.constants = Expr::from(end);
    if let Some(synthetic) = &mut plan.synthetic {
        synthetic.fills.retain(|fill| fill.offset < end as u64);
    }
}

/// The buffers of launches and of the decode loop.
fn used_buffers(plan: &plan::Plan) -> BTreeSet<BufferId> {
    let walk = &plan.decode_loop;
    let host = [walk.tokens, walk.positions, walk.last, walk.logits, walk.sampling, walk.history];
    let launches = plan.programs.iter().flat_map(|program| &program.launches);
    let args = launches.flat_map(|launch| &launch.args).filter_map(|arg| match arg {
        Arg::Buffer(id) => Some(*id),
        Arg::Scalar(_) | Arg::Scratch => None,
    });
    args.chain(host).collect()
}

/// Puts the weights that are kept side by side, and says what is drawn in their place.
fn place_weights(plan: &mut plan::Plan, compiled: &CompiledTarget, kept: &BTreeSet<BufferId>) {
    let mut weights = compiled.lowered.weights.iter();
    let mut end = 0;
    let mut fills = vec![];
    for (id, buffer) in plan.buffers.iter_mut().enumerate() {
        if buffer.segment != Segment::Constants {
            continue;
        }
        // The constants are the weights, in their order.
        let Some(weight) = weights.next() else { continue };
        if !kept.contains(&id) {
            continue;
        }
        let ty = &compiled.module.weights[weight.index()].ty;
        buffer.offset = Expr::from(end as i64);
        fills.extend(drawn_weight(ty, &compiled.target, end).unwrap_or_default());
        end += packed_bytes(ty, &compiled.target).unwrap_or(0);
    }
    plan.segments.constants = Expr::from(end as i64);
    plan.synthetic = Some(plan::Synthetic { seed: SEED, fills });
}

/// Leaves out all other buffers.
fn keep_buffers(plan: &mut plan::Plan, kept: &BTreeSet<BufferId>) {
    let kept: Vec<BufferId> = kept.iter().copied().collect();
    // Every buffer that is named is kept.
    let new = |old: BufferId| kept.binary_search(&old).unwrap_or(0);
    plan.buffers = kept.iter().map(|&id| plan.buffers[id].clone()).collect();
    for launch in plan.programs.iter_mut().flat_map(|program| &mut program.launches) {
        for arg in &mut launch.args {
            if let Arg::Buffer(id) = arg {
                *id = new(*id);
            }
        }
        launch.writes.iter_mut().for_each(|id| *id = new(*id));
    }
    let walk = &mut plan.decode_loop;
    for id in [
        &mut walk.tokens,
        &mut walk.positions,
        &mut walk.last,
        &mut walk.logits,
        &mut walk.sampling,
        &mut walk.history,
    ] {
        *id = new(*id);
    }
}
