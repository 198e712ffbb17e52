//! PTX to machine code, by the compiler that is in the driver.
#![allow(unsafe_code)]

use super::api::Api;
use super::ptx::Architecture;
use crate::gpu::driver::Status;
use cudarc::driver::sys::{
    CU_COMPUTE_ACCELERATED_TARGET_BASE, CUjit_option, CUjitInputType, CUlinkState, CUresult,
};
use std::ffi::{c_uint, c_void};
use std::ptr;

/// Room for what the compiler says; the rest is cut off.
const LOG_BYTES: usize = 16 << 10;

/// Why the driver gave no code.
pub struct Failure {
    pub status: Status,
    /// What the compiler said, errors first, in one line; empty if nothing.
    pub log: String,
}

/// Options of a compilation, with the places that the driver writes to while it lasts.
struct Options {
    names: Vec<CUjit_option>,
    values: Vec<*mut c_void>,
    /// For errors, and for all else.
    logs: [Vec<u8>; 2],
}

impl Options {
    fn new(architecture: Architecture) -> Options {
        let mut logs = [vec![0u8; LOG_BYTES], vec![0u8; LOG_BYTES]];
        let [errors, info] = &mut logs;
        // Numbers are passed as pointers.
        let number = ptr::without_provenance_mut::<c_void>;
        let mut options = vec![
            (CUjit_option::CU_JIT_ERROR_LOG_BUFFER, errors.as_mut_ptr().cast()),
            (CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, number(LOG_BYTES)),
            (CUjit_option::CU_JIT_INFO_LOG_BUFFER, info.as_mut_ptr().cast()),
            (CUjit_option::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, number(LOG_BYTES)),
        ];
        if architecture.accelerated {
            // What the driver would take by itself, from the device, has no accelerated features.
            let target = CU_COMPUTE_ACCELERATED_TARGET_BASE + architecture.number;
            options.push((CUjit_option::CU_JIT_TARGET, number(target as usize)));
        }
        let (names, values) = options.into_iter().unzip();
        Options { names, values, logs }
    }

    fn log(&self) -> String {
        let lines = self.logs.iter().flat_map(|log| {
            let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
            let text = String::from_utf8_lossy(text).into_owned();
            text.lines().map(|line| line.trim().to_string()).collect::<Vec<_>>()
        });
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// A compilation.
struct Link<'a> {
    api: &'a Api,
    state: CUlinkState,
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        // SAFETY: the state is this owner's, who is going.
        let _ = unsafe { (self.api.cuLinkDestroy)(self.state) };
    }
}

/// The machine code of PTX for an architecture, on the device that is bound.
pub fn compile(api: &Api, ptx: &[u8], architecture: Architecture) -> Result<Vec<u8>, Failure> {
    // The driver wants a zero at the end, which counts.
    let text = [ptx, &[0]].concat();
    // Outlives the link, as what the driver writes to must.
    let mut options = Options::new(architecture);
    // SAFETY: the text and all options stay until the link is gone.
    let linked = unsafe { link(api, &text, &mut options) };
    linked.map_err(|status| Failure { status, log: options.log() })
}

/// # Safety
/// The text ends in a zero.
unsafe fn link(api: &Api, text: &[u8], options: &mut Options) -> Result<Vec<u8>, Status> {
    let mut state = ptr::null_mut();
    // A handful.
    let count = options.names.len() as c_uint;
    let (names, values) = (options.names.as_mut_ptr(), options.values.as_mut_ptr());
    // SAFETY: as many values as names; both, and the buffers that they name, outlive `link`.
    unsafe { (api.cuLinkCreate_v2)(count, names, values, &mut state) }.give(())?;
    let link = Link { api, state };
    let data = text.as_ptr().cast_mut().cast();
    let (kind, name) = (CUjitInputType::CU_JIT_INPUT_PTX, c"kernels.ptx");
    let none = (0, ptr::null_mut(), ptr::null_mut());
    // SAFETY: the text is read only, and ends as the driver wants; there are no options.
    let added = unsafe {
        (api.cuLinkAddData_v2)(
            link.state,
            kind,
            data,
            text.len(),
            name.as_ptr(),
            none.0,
            none.1,
            none.2,
        )
    };
    added.give(())?;
    let (mut cubin, mut bytes) = (ptr::null_mut(), 0);
    // SAFETY: both places are written before the call returns.
    unsafe { (api.cuLinkComplete)(link.state, &mut cubin, &mut bytes) }.give(())?;
    if cubin.is_null() || bytes == 0 {
        return Err(Status(CUresult::CUDA_ERROR_INVALID_IMAGE as u32));
    }
    // SAFETY: the driver's buffer of that many bytes, which is there until the link goes.
    Ok(unsafe { std::slice::from_raw_parts(cubin.cast::<u8>(), bytes) }.to_vec())
}
