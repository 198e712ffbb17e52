//! Launches one at a time, and their times, on the CPU.

mod toy;

use toy::{Toy, launches};
use waveloom_runtime::DeviceKind;

#[test]
fn launches_run_one_by_one() {
    let Some(toy) = Toy::with_plan(|_| {}) else { return };
    launches::launch_by_launch(&toy, DeviceKind::Cpu);
}

#[test]
fn launches_are_timed() {
    let Some(toy) = Toy::with_plan(|_| {}) else { return };
    launches::times(&toy, DeviceKind::Cpu);
}
