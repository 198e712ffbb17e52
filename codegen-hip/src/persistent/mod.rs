//! A decode step as one persistent kernel: the lowering of a plan's decode program to streams of
//! instructions, and the kernel that runs them. `docs/persistent.md` has the why.
//!
//! In: a lowered schedule whose decode kernels agree on the size of a workgroup. Out: one more
//! kernel, made of theirs, and the streams, which `plan::check_persistent` proves right when the
//! kernel's registers are known.

mod kernel;
mod schedule;
#[cfg(test)]
mod tests;

use crate::kernels::{ArgRole, KernelSource};
use crate::lower_schedule::{LowerError, Lowered};
use crate::target::{GpuTarget, Platform};
use kernel::Body;
use schedule::{Assignment, Scheduler};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use waveloom_ir::Numerics;
use waveloom_plan::persistent::{PERSISTENT_VERSION, Residency};
use waveloom_plan::{self as plan, PersistentStep};

/// Name of the persistent kernel.
const NAME: &str = "decode_step";

/// How a program's launches run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecodeForm {
    /// One by one, in a graph.
    #[default]
    Launches,
    /// One by one, in a graph; on chips that can, each begins before the one ahead of it has ended.
    Overlapping,
    /// On a GPU, all but the sampler in one persistent kernel, of so many workgroups or one for each
    /// compute unit (of RDNA: each workgroup processor).
    Persistent(Option<u32>),
}

impl fmt::Display for DecodeForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeForm::Launches => f.write_str("launches"),
            DecodeForm::Overlapping => f.write_str("overlapping"),
            DecodeForm::Persistent(None) => f.write_str("persistent"),
            DecodeForm::Persistent(Some(count)) => write!(f, "persistent:{count}"),
        }
    }
}

impl FromStr for DecodeForm {
    type Err = UnknownForm;

    /// `launches`, `overlapping`, `persistent` or `persistent:N`.
    fn from_str(text: &str) -> Result<DecodeForm, UnknownForm> {
        let unknown = || UnknownForm(text.to_string());
        match text.split_once(':') {
            None if text == "launches" => Ok(DecodeForm::Launches),
            None if text == "overlapping" => Ok(DecodeForm::Overlapping),
            None if text == "persistent" => Ok(DecodeForm::Persistent(None)),
            Some(("persistent", count)) => {
                let count = count.parse().ok().filter(|count| *count > 0);
                Ok(DecodeForm::Persistent(Some(count.ok_or_else(unknown)?)))
            }
            _ => Err(unknown()),
        }
    }
}

/// Not a form of the decode step.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "unknown form of decode `{0}`: give launches, overlapping, persistent, or persistent:N for N \
     workgroups"
)]
pub struct UnknownForm(String);

/// The launches of the decode step that run as one: all before the sampler.
fn launches(lowered: &Lowered) -> &[plan::Launch] {
    let program = &lowered.plan.programs[lowered.plan.decode_loop.decode];
    let sampler = lowered.plan.programs[lowered.plan.decode_loop.sample].launches.len();
    &program.launches[..program.launches.len().saturating_sub(sampler)]
}

/// Work-items that all workgroups of the decode step can have, the sampler's aside: those of the
/// largest, or the next power of two.
pub(crate) fn work_items(lowered: &Lowered) -> u32 {
    let kernels = launches(lowered).iter().map(|launch| &lowered.kernels[launch.kernel]);
    kernels.map(|kernel| kernel.text.workgroup).max().unwrap_or(0).next_power_of_two()
}

/// Adds the persistent kernel; gives the step, to be checked and put into the plan when the
/// kernel's code is known.
pub(crate) fn lower(
    lowered: &mut Lowered,
    target: &GpuTarget,
    streams: Option<u32>,
) -> Result<PersistentStep, LowerError> {
    let fail = |what: String| LowerError::Persistent { target: target.name.to_string(), what };
    let decode = lowered.plan.decode_loop.decode;
    let launches = launches(lowered);
    let mut bodies: Vec<usize> = vec![];
    for launch in launches {
        if !bodies.contains(&launch.kernel) {
            bodies.push(launch.kernel);
        }
    }
    let sources: Vec<&KernelSource> = bodies.iter().map(|&body| &lowered.kernels[body]).collect();
    let parsed: Result<Vec<Body<'_>>, String> = sources
        .iter()
        .enumerate()
        .map(|(index, source)| Body::new(index, source, target))
        .collect();
    let units = units(target);
    let count = streams.unwrap_or(units);
    let per_unit = count.div_ceil(units);
    let text = kernel::kernel(NAME, &parsed.map_err(fail)?, per_unit, target).map_err(fail)?;
    let residency = residency(target, text.workgroup);
    let scheduler = Scheduler {
        plan: &lowered.plan,
        launches,
        sources: launches.iter().map(|launch| &lowered.kernels[launch.kernel]).collect(),
        prefetch_bytes: kernel::prefetch_bytes(text.workgroup, target),
    };
    let assignment = Assignment { streams: count as usize, dies: target.dies as usize };
    let (streams, flags) = scheduler.run(assignment).map_err(fail)?;
    let step = PersistentStep {
        version: PERSISTENT_VERSION,
        program: decode,
        launches: launches.len(),
        kernel: lowered.kernels.len(),
        bodies,
        residency,
        flags,
        streams,
    };
    let source = KernelSource {
        stem: NAME.to_string(),
        summary: format!("streams of {} kernels", step.bodies.len()),
        text,
        items: plan::Expr::from(i64::from(count)),
        args: [0, 1, 2].map(ArgRole::Buffer).to_vec(),
        scratch_bytes: 0,
        streams_weights: true,
        work: None,
        numerics: Numerics::default(),
        first_reads: vec![],
        before: None,
    };
    lowered.plan.kernels.push(source.entry());
    lowered.kernels.push(source);
    Ok(step)
}

/// Compute units that work as one: the halves of RDNA's workgroup processors.
fn halves(target: &GpuTarget) -> u32 {
    if target.platform == Platform::Amd && target.wave == 32 { 2 } else { 1 }
}

/// What the driver counts as multiprocessors.
fn units(target: &GpuTarget) -> u32 {
    target.compute_units / halves(target)
}

/// What the chip holds at once of workgroups of so many work-items.
fn residency(target: &GpuTarget, workgroup: u32) -> Residency {
    let lds_bytes = match target.platform {
        Platform::Amd => target.lds_bytes * halves(target),
        Platform::Nvidia => {
            // Each workgroup takes a kilobyte more than it asks for.
            let waves = target.vector_registers.max_waves * target.simds();
            let most = waves / workgroup.div_ceil(target.wave).max(1);
            target.simds_lds_bytes - (most << 10)
        }
    };
    Residency { units: units(target), simds: target.simds(), wave: target.wave, lds_bytes }
}
