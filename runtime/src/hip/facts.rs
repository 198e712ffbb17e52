//! What HIP says of a GPU.
#![allow(unsafe_code)]

use super::Hip;
use super::api::value;
use crate::device::{DeviceError, EMULATED, GpuInfo};
use crate::gpu::device::Gpu;
use crate::gpu::driver::{Status, device_name};

/// What the UUID of an emulated GPU begins with.
const EMULATED_UUID: &[u8] = b"GPU-emulated";

/// A name and the facts that people and plans ask for.
pub fn facts(hip: &Hip, gpu: Gpu) -> Result<(String, GpuInfo), DeviceError> {
    let (free_bytes, memory_bytes) = gpu.memory()?;
    let properties = properties(hip, gpu)?;
    let info = GpuInfo {
        architecture: architecture(gpu, &properties)?,
        compute_units: compute_units(hip, gpu)?,
        memory_bytes,
        free_bytes,
        nvidia: None,
    };
    let mut name = name(hip, gpu)?;
    if properties.windows(EMULATED_UUID.len()).any(|bytes| bytes == EMULATED_UUID) {
        name = format!("{name} {EMULATED}");
    }
    Ok((name, info))
}

fn name(hip: &Hip, gpu: Gpu) -> Result<String, DeviceError> {
    let mut name = [0u8; value::NAME_ROOM as usize];
    // SAFETY: there is as much room as the call is told.
    let status = unsafe {
        (hip.api.hipDeviceGetName)(name.as_mut_ptr().cast(), value::NAME_ROOM, gpu.index as i32)
    };
    gpu.check("asking for the device's name", status)?;
    Ok(device_name(&name, "AMD GPU"))
}

/// As HIP counts them: workgroup processors where two compute units are one.
fn compute_units(hip: &Hip, gpu: Gpu) -> Result<u32, DeviceError> {
    let mut units = 0;
    let attribute = value::MULTIPROCESSOR_COUNT;
    // SAFETY: the place is written before the call returns.
    let status =
        unsafe { (hip.api.hipDeviceGetAttribute)(&mut units, attribute, gpu.index as i32) };
    gpu.check("asking for the number of compute units", status)?;
    Ok(u32::try_from(units).unwrap_or(0))
}

/// The structure of properties as bytes. Its layout differs between releases, and a release gives the
/// new one under the new name and the old one under the old. So what is looked for in it is looked for
/// everywhere.
fn properties(hip: &Hip, gpu: Gpu) -> Result<Vec<u8>, DeviceError> {
    let api = &hip.api;
    let ask = api.hipGetDevicePropertiesR0600.or(api.hipGetDeviceProperties);
    let mut properties = [0u64; value::PROPERTIES_ROOM / 8];
    let status = match ask {
        // SAFETY: the structure has never been half as large as the room; it is aligned to 8.
        Some(ask) => unsafe { ask(properties.as_mut_ptr().cast(), gpu.index as i32) },
        None => Status::NOT_FOUND,
    };
    gpu.check("asking for the device's properties", status)?;
    Ok(properties.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

/// The architecture without its features: `gfx942` of `gfx942:sramecc+:xnack-`. Only the properties
/// have it.
fn architecture(gpu: Gpu, properties: &[u8]) -> Result<String, DeviceError> {
    let unknown = || DeviceError::Driver {
        device: gpu.kind(),
        doing: "asking for the architecture",
        problem: "the library has no properties with a name such as gfx942".into(),
    };
    find_architecture(properties).ok_or_else(unknown)
}

/// The last text that begins like an architecture: the device's own name comes before it.
fn find_architecture(bytes: &[u8]) -> Option<String> {
    let starts = (0..bytes.len()).rev().filter(|&at| bytes[at..].starts_with(b"gfx"));
    let names = starts.map(|at| {
        let digits = bytes[at + 3..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        &bytes[at..at + 3 + digits]
    });
    let name = names.into_iter().find(|name| name.len() >= 6)?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_is_found_wherever_it_lies() {
        let of = |text: &str, at: usize| {
            let mut bytes = vec![0xffu8; 1472];
            bytes[..16].copy_from_slice(b"Radeon gfx thing");
            bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
            bytes[at + text.len()] = 0;
            find_architecture(&bytes)
        };
        for at in [396, 1160] {
            assert_eq!(of("gfx942:sramecc+:xnack-", at).as_deref(), Some("gfx942"));
            assert_eq!(of("gfx90a", at).as_deref(), Some("gfx90a"));
            assert_eq!(of("gfx1201", at).as_deref(), Some("gfx1201"));
        }
        assert_eq!(find_architecture(b"an NVIDIA H200 gfx"), None);
        assert_eq!(find_architecture(b""), None);
    }
}
