//! `devices`: what compiled models can run on here.

use crate::args::ListArgs;
use crate::{Failure, format, output};
use waveloom_runtime::{DeviceInfo, NvidiaInfo};

/// Lists the devices.
pub fn run(args: &ListArgs) -> Result<(), Failure> {
    let devices = waveloom_runtime::devices();
    if args.json {
        return output::write_json(&devices);
    }
    output::write(text(&devices))
}

fn text(devices: &[DeviceInfo]) -> String {
    let there = devices.iter().filter(|device| device.unavailable.is_none());
    let mut text = format::table(&there.map(row).collect::<Vec<_>>(), &[]);
    for device in devices {
        if let Some(reason) = &device.unavailable {
            text += &format!("{}: not available: {reason}\n", device.name);
        }
    }
    text
}

fn row(device: &DeviceInfo) -> Vec<String> {
    let (size, features) = match &device.gpu {
        Some(gpu) => {
            let (free, total) = (format::bytes(gpu.free_bytes), format::bytes(gpu.memory_bytes));
            let memory = format!("{}, {free} free of {total}", gpu.architecture);
            let (unit, rest) = match &gpu.nvidia {
                Some(NvidiaInfo { compute_capability, driver_cuda }) => (
                    "multiprocessor",
                    format!(
                        ", compute capability {compute_capability}, driver for CUDA {driver_cuda}"
                    ),
                ),
                None => ("compute unit", String::new()),
            };
            (format::count(u64::from(gpu.compute_units), unit), memory + &rest)
        }
        None => (format::count(device.workers as u64, "thread"), device.features.join(" ")),
    };
    vec![device.name.clone(), device.description.clone(), size, features]
}

#[cfg(test)]
mod tests {
    use super::*;
    use waveloom_runtime::GpuInfo;

    fn device(name: &str, description: &str) -> DeviceInfo {
        DeviceInfo {
            name: name.into(),
            description: description.into(),
            workers: 2,
            features: vec!["avx2".into(), "fma".into()],
            gpu: None,
            unavailable: None,
        }
    }

    #[test]
    fn a_line_per_device() {
        assert_eq!(
            text(&[device("cpu", "a processor")]),
            "cpu  a processor  2 threads  avx2 fma\n"
        );
        let gpu = GpuInfo {
            architecture: "gfx942".into(),
            compute_units: 304,
            memory_bytes: 192 << 30,
            free_bytes: 190 << 30,
            nvidia: None,
        };
        let nvidia = GpuInfo {
            architecture: "sm_90".into(),
            compute_units: 132,
            memory_bytes: 140 << 30,
            free_bytes: 139 << 30,
            nvidia: Some(NvidiaInfo {
                compute_capability: "9.0".into(),
                driver_cuda: "12.8".into(),
            }),
        };
        let gpu = DeviceInfo { gpu: Some(gpu), ..device("hip:0", "a GPU") };
        let nvidia = DeviceInfo { gpu: Some(nvidia), ..device("cuda:0", "NVIDIA H200") };
        let reason = Some("it is switched off".into());
        let absent = DeviceInfo { unavailable: reason, ..device("hip:1", "another") };
        let expected = "\
cpu     a processor  2 threads            avx2 fma
hip:0   a GPU        304 compute units    gfx942, 190.0 GiB free of 192.0 GiB
cuda:0  NVIDIA H200  132 multiprocessors  sm_90, 139.0 GiB free of 140.0 GiB, compute capability 9.0, driver for CUDA 12.8
hip:1: not available: it is switched off
";
        assert_eq!(text(&[device("cpu", "a processor"), gpu, nvidia, absent]), expected);
    }
}
