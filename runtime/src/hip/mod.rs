//! AMD GPUs through HIP, found when a program runs.
//!
//! `api` has the table of functions, `library` finds them, `gpu` calls them. A loaded plan (`plan`)
//! has its segments in device memory, the history in memory of the host (`ring`), and its programs
//! as prepared launches or, where no step differs from the other, as a graph (`launch`).

mod api;
mod facts;
mod gpu;
mod launch;
mod library;
#[cfg(feature = "link-hip")]
mod linked;
mod plan;
mod ring;
mod staging;

use crate::device::{Device, DeviceError, DeviceInfo, GpuInfo, LoadRequest, LoadedPlan};
use api::Api;
use gpu::Gpu;
use plan::HipPlan;
use waveloom_plan::{Artifact, Plan};

/// An AMD GPU.
pub struct Hip {
    gpu: Gpu,
    name: String,
    info: GpuInfo,
}

/// What [`crate::devices`] says about AMD GPUs: each one, or why there is none.
pub fn infos() -> Vec<DeviceInfo> {
    let found = Api::get().map_err(|problem| DeviceError::NoHip(problem.into()));
    let count = match found.and_then(gpu::count) {
        Ok(0) => return vec![unavailable("hip".into(), &DeviceError::NoGpu)],
        Ok(count) => count,
        Err(error) => return vec![unavailable("hip".into(), &error)],
    };
    let info = |index| match Hip::new(index) {
        Ok(hip) => DeviceInfo {
            name: format!("hip:{index}"),
            description: hip.name,
            workers: 1,
            features: vec![hip.info.architecture.clone()],
            gpu: Some(hip.info),
            unavailable: None,
        },
        Err(error) => unavailable(format!("hip:{index}"), &error),
    };
    (0..count).map(info).collect()
}

fn unavailable(name: String, error: &DeviceError) -> DeviceInfo {
    DeviceInfo {
        name,
        description: "AMD GPUs".into(),
        workers: 0,
        features: vec![],
        gpu: None,
        unavailable: Some(error.to_string()),
    }
}

impl Hip {
    /// The GPU of this number.
    pub fn new(index: u32) -> Result<Hip, DeviceError> {
        let gpu = Gpu::open(index)?;
        let (name, info) = facts::facts(gpu)?;
        Ok(Hip { gpu, name, info })
    }
}

impl Device for Hip {
    fn describe(&self) -> String {
        let (name, architecture) = (&self.name, &self.info.architecture);
        if name.contains(architecture.as_str()) {
            return format!("{name}, hip:{}", self.gpu.index);
        }
        format!("{name} ({architecture}), hip:{}", self.gpu.index)
    }

    /// The plan whose only requirement is this architecture; a target is called as what it is for,
    /// so that one is looked at first.
    fn choose_plan(&self, artifact: &Artifact) -> Result<Plan, DeviceError> {
        let architecture = &self.info.architecture;
        let (namesakes, others): (Vec<_>, Vec<_>) =
            artifact.targets().iter().partition(|target| *target == architecture);
        for target in namesakes.into_iter().chain(others) {
            let plan = artifact.plan(target)?;
            if plan.requires == [architecture.as_str()] {
                return Ok(plan);
            }
        }
        Err(DeviceError::WrongChip {
            found: artifact.targets().join(", "),
            device: self.describe(),
            architecture: architecture.clone(),
        })
    }

    fn load(&self, request: LoadRequest<'_>) -> Result<Box<dyn LoadedPlan>, DeviceError> {
        self.gpu.bind()?;
        Ok(Box::new(HipPlan::load(self.gpu, request)?))
    }
}
