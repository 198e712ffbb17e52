//! GPUs through a driver's library, whichever it is: what HIP and CUDA have in common.
//!
//! `driver` is what a library must do, behind one trait; `table` and `library` find its functions
//! when a program runs; `device` owns what it gives. A loaded plan (`plan`) has its segments in
//! device memory, the history in memory of the host (`ring`), and its programs as prepared
//! launches or, where no step differs from the other, as a graph (`launch`); a decode step that was
//! compiled to run as one kernel does (`persistent`). `staging` copies without waiting.

pub mod device;
pub mod driver;
mod launch;
pub mod library;
mod persistent;
mod plan;
mod ring;
mod staging;
pub mod table;

use crate::device::{Device, DeviceError, DeviceInfo, GpuInfo, LoadRequest, LoadedPlan};
use device::Gpu;
use driver::{Driver, Fit};
use plan::GpuPlan;
use waveloom_plan::{Artifact, Plan};

/// A GPU that runs plans.
pub struct GpuDevice {
    gpu: Gpu,
    name: String,
    info: GpuInfo,
}

/// What [`crate::devices`] says about the GPUs of a driver: each one, or why there is none.
/// `vendor` is how people call them.
pub fn infos(
    driver: Result<&'static dyn Driver, DeviceError>,
    kind: &str,
    vendor: &str,
) -> Vec<DeviceInfo> {
    let unavailable = |name: String, error: &DeviceError| DeviceInfo {
        name,
        description: format!("{vendor} GPUs"),
        workers: 0,
        features: vec![],
        gpu: None,
        unavailable: Some(error.to_string()),
    };
    let counted = driver.and_then(|driver| match driver.count()? {
        0 => Err(driver.no_device()),
        count => Ok((driver, count)),
    });
    let (driver, count) = match counted {
        Ok(counted) => counted,
        Err(error) => return vec![unavailable(kind.into(), &error)],
    };
    let info = |index| match GpuDevice::open(driver, index) {
        Ok(device) => DeviceInfo {
            name: driver.kind(index).to_string(),
            description: device.name,
            workers: 1,
            features: vec![device.info.architecture.clone()],
            gpu: Some(device.info),
            unavailable: None,
        },
        Err(error) => unavailable(driver.kind(index).to_string(), &error),
    };
    (0..count).map(info).collect()
}

impl GpuDevice {
    /// The GPU of this number.
    pub fn open(driver: &'static dyn Driver, index: u32) -> Result<GpuDevice, DeviceError> {
        let gpu = Gpu::open(driver, index)?;
        let (name, info) = driver.facts(gpu)?;
        Ok(GpuDevice { gpu, name, info })
    }
}

impl Device for GpuDevice {
    fn describe(&self) -> String {
        let (name, architecture) = (&self.name, &self.info.architecture);
        if name.contains(architecture.as_str()) {
            return format!("{name}, {}", self.gpu.kind());
        }
        format!("{name} ({architecture}), {}", self.gpu.kind())
    }

    /// The plan that fits best; of those that fit alike, the first. A target is called as what it
    /// is for, so that one is looked at before all others.
    fn choose_plan(&self, artifact: &Artifact) -> Result<Plan, DeviceError> {
        let architecture = &self.info.architecture;
        let (namesakes, others): (Vec<_>, Vec<_>) =
            artifact.targets().iter().partition(|target| *target == architecture);
        let mut best: Option<(Fit, Plan)> = None;
        for target in namesakes.into_iter().chain(others) {
            let plan = artifact.plan(target)?;
            match self.gpu.driver.fit(architecture, &plan.requires) {
                Some(Fit::EXACT) => return Ok(plan),
                Some(fit) if best.as_ref().is_none_or(|(so_far, _)| *so_far < fit) => {
                    best = Some((fit, plan));
                }
                _ => {}
            }
        }
        let found = || artifact.targets().join(", ");
        let mismatch = || self.gpu.driver.mismatch(found(), self.describe(), architecture.clone());
        best.map(|(_, plan)| plan).ok_or_else(mismatch)
    }

    fn load(&self, request: LoadRequest<'_>) -> Result<Box<dyn LoadedPlan>, DeviceError> {
        self.gpu.bind()?;
        Ok(Box::new(GpuPlan::load(self.gpu, self.info.compute_units, request)?))
    }
}
