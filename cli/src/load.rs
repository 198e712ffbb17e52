//! From a command line to a loaded model.

use crate::Failure;
use crate::args::DeviceArgs;
use crate::{format, output};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use waveloom_plan::{Artifact, Plan};
use waveloom_runtime::{LoadOptions, LoadProgress, Session};

/// Loads an artifact on the device asked for. What takes a while is shown as it goes, on a
/// terminal and unless `silent`.
pub fn session(
    artifact: &Artifact,
    args: &DeviceArgs,
    context: u32,
    silent: bool,
) -> Result<Session, Failure> {
    let options = LoadOptions {
        device: args.device.parse()?,
        threads: args.threads.map(|threads| threads as usize),
        context: Some(context),
    };
    let mut meter = Meter::new(!silent && io::stderr().is_terminal());
    let session =
        Session::load_with_progress(artifact, options, &mut |progress| meter.show(progress));
    meter.clear();
    let session = session?;
    if let Some(notice) = session.notice() {
        output::note(notice);
    }
    Ok(session)
}

/// A line that says how far the weights are.
struct Meter {
    enabled: bool,
    start: Instant,
    shown: bool,
}

impl Meter {
    /// What is done by then needs no line.
    const PATIENCE: Duration = Duration::from_millis(300);

    fn new(enabled: bool) -> Meter {
        Meter { enabled, start: Instant::now(), shown: false }
    }

    fn show(&mut self, progress: LoadProgress) {
        if self.enabled && self.start.elapsed() > Meter::PATIENCE {
            let _ = write!(io::stderr(), "\r\x1b[K{}", line(progress));
            self.shown = true;
        }
    }

    fn clear(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(LoadProgress { done, total }: LoadProgress) -> String {
    let percent = done.saturating_mul(100) / total.max(1);
    format!("loading weights: {percent}% of {}", format::bytes(total))
}

/// A plan of the artifact, for what it says of the model: that is the same for every target.
pub fn any_plan(artifact: &Artifact) -> Result<Plan, Failure> {
    let target = artifact.targets().first();
    let target = target.ok_or_else(|| {
        Failure::new(format!("`{}` has no code for any target", artifact.path().display()))
    })?;
    Ok(artifact.plan(target)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_line() {
        let progress = LoadProgress { done: 3 << 30, total: 8 << 30 };
        assert_eq!(line(progress), "loading weights: 37% of 8.0 GiB");
        assert_eq!(line(LoadProgress { done: 0, total: 0 }), "loading weights: 0% of 0 B");
    }
}
