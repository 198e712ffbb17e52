//! From a command line to a loaded model.

use crate::Failure;
use crate::args::DeviceArgs;
use waveloom_plan::{Artifact, Plan};
use waveloom_runtime::{LoadOptions, Session};

/// Loads an artifact on the device asked for.
pub fn session(artifact: &Artifact, args: &DeviceArgs, context: u32) -> Result<Session, Failure> {
    let options = LoadOptions {
        device: args.device.parse()?,
        threads: args.threads.map(|threads| threads as usize),
        context: Some(context),
    };
    Ok(Session::load(artifact, options)?)
}

/// A plan of the artifact, for what it says of the model: that is the same for every target.
pub fn any_plan(artifact: &Artifact) -> Result<Plan, Failure> {
    let target = artifact.targets().first();
    let target = target.ok_or_else(|| {
        Failure::new(format!("`{}` has no code for any target", artifact.path().display()))
    })?;
    Ok(artifact.plan(target)?)
}
