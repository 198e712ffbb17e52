//! `devices`: what compiled models can run on here.

use crate::args::ListArgs;
use crate::{Failure, format, output};
use waveloom_runtime::DeviceInfo;

/// Lists the devices.
pub fn run(args: &ListArgs) -> Result<(), Failure> {
    let devices = waveloom_runtime::devices();
    if args.json {
        return output::write_json(&devices);
    }
    output::write(text(&devices))
}

fn text(devices: &[DeviceInfo]) -> String {
    let row = |device: &DeviceInfo| {
        let workers = format::count(device.workers as u64, "thread");
        vec![device.name.clone(), device.description.clone(), workers, device.features.join(" ")]
    };
    format::table(&devices.iter().map(row).collect::<Vec<_>>(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_device() {
        let device = DeviceInfo {
            name: "cpu".into(),
            description: "a processor".into(),
            workers: 2,
            features: vec!["avx2".into(), "fma".into()],
        };
        assert_eq!(text(&[device]), "cpu  a processor  2 threads  avx2 fma\n");
    }
}
