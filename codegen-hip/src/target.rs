//! What a kernel generator needs to know about the machine that runs the kernels.

mod amd;
mod cpu;
mod gpu;
mod nvidia;
mod tiles;

pub use cpu::{CpuTarget, Int8Dot};
pub use gpu::{GpuTarget, MatrixLayout, MatrixOp, MatrixType, Platform, Warpgroups};

use crate::CodegenError;
use std::fmt;
use waveloom_ir::Layout;
use waveloom_passes::TargetLayout;
use waveloom_plan::Machine;

/// A target.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// The host's processors.
    Cpu(CpuTarget),
    /// A GPU.
    Gpu(GpuTarget),
}

impl Target {
    /// Names that [`Target::from_name`] knows.
    pub const NAMES: &'static [&'static str] = &[
        "cpu", "cpu-v3", "cpu-v4", "cpu-amx", "gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151",
        "gfx1201", "sm_80", "sm_89", "sm_90", "sm_90a",
    ];

    /// The target called `name`. `cpu` is the machine that compiles, with what it has.
    pub fn from_name(name: &str) -> Result<Target, CodegenError> {
        match GpuTarget::from_name(name) {
            Some(target) => Ok(Target::Gpu(target)),
            None => CpuTarget::from_name(name).map(Target::Cpu),
        }
    }

    /// Its name on the command line and in the artifact.
    pub fn name(&self) -> &str {
        match self {
            Target::Cpu(target) => &target.name,
            Target::Gpu(target) => target.name,
        }
    }

    /// LLVM's target triple.
    pub fn triple(&self) -> &'static str {
        match self {
            Target::Cpu(target) => target.triple,
            Target::Gpu(GpuTarget { platform: Platform::Amd, .. }) => "amdgcn-amd-amdhsa",
            Target::Gpu(GpuTarget { platform: Platform::Nvidia, .. }) => "nvptx64-nvidia-cuda",
        }
    }

    /// LLVM's name of the processor.
    pub fn processor(&self) -> &str {
        match self {
            Target::Cpu(target) => target.cpu,
            Target::Gpu(target) => target.name,
        }
    }

    /// LLVM's feature string: `+a,+b`.
    pub fn feature_string(&self) -> String {
        match self {
            Target::Cpu(target) => target.feature_string(),
            Target::Gpu(target) => target.feature_string(),
        }
    }

    /// What the machine must have to run the code, in the words of the plan.
    pub fn requires(&self) -> Vec<&'static str> {
        match self {
            Target::Cpu(target) => target.requires.clone(),
            Target::Gpu(target) => vec![target.name],
        }
    }

    /// How fast the hardware is, where it is known.
    pub fn machine(&self) -> Option<Machine> {
        match self {
            Target::Cpu(_) => None,
            Target::Gpu(target) => {
                Some(Machine { bandwidth: target.bandwidth, matrix_rate: target.matrix_rate })
            }
        }
    }

    /// Name of the packed weights that its kernels read, which targets of one kind share.
    pub fn weights(&self) -> &str {
        match self {
            Target::Cpu(CpuTarget { lanes: 16, .. }) => "cpu-16-lanes",
            Target::Cpu(_) => "cpu-8-lanes",
            Target::Gpu(_) => "gpu",
        }
    }

    /// How its kernels want caches in memory.
    pub fn layout(&self) -> TargetLayout {
        match self {
            Target::Cpu(target) => TargetLayout {
                keys: Layout::PositionLanes(target.lanes),
                values: Layout::HeadMajor,
                exact_caches: true,
            },
            Target::Gpu(target) => TargetLayout {
                keys: Layout::KeyBlocks(target.wave),
                values: Layout::ValueBlocks(target.wave),
                exact_caches: false,
            },
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Cpu(target) => write!(f, "{}-bit vectors", target.vector_bytes() * 8),
            Target::Gpu(target) => {
                let GpuTarget { product, wave, compute_units, .. } = target;
                write!(f, "{product}: {compute_units} compute units, waves of {wave}")
            }
        }
    }
}

impl From<CpuTarget> for Target {
    fn from(target: CpuTarget) -> Target {
        Target::Cpu(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_and_unknown_ones_list_the_known() {
        for name in Target::NAMES {
            assert_eq!(&Target::from_name(name).unwrap().name(), name);
        }
        let error = Target::from_name("gfx000").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown target 'gfx000'; known targets: cpu, cpu-v3, cpu-v4, cpu-amx, gfx90a, gfx942, \
             gfx950, gfx1100, gfx1151, gfx1201, sm_80, sm_89, sm_90, sm_90a"
        );
    }
}
