//! The code object: a shared object without dependencies, loaded from memory.
#![allow(unsafe_code)]

use crate::device::DeviceError;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use waveloom_plan::Plan;

/// A kernel: arguments, first and last work item, scratch. See `docs/architecture.md`, "The CPU
/// kernel ABI".
pub type KernelFn = unsafe extern "C" fn(*const u64, i64, i64, *mut c_void);

/// The loaded code object.
pub struct Code {
    /// By index in the plan. Only callable while `_library` lives.
    kernels: Vec<KernelFn>,
    _library: Library,
    /// Stays open: the loader takes two libraries of the same path, which names this descriptor,
    /// for one.
    _file: File,
}

impl Code {
    /// Loads a shared object and looks up the plan's kernels.
    pub fn load(object: &[u8], plan: &Plan) -> Result<Code, DeviceError> {
        let fail = |problem: String| DeviceError::Code { target: plan.target.clone(), problem };
        let file = memory_file(object).map_err(|error| fail(error.to_string()))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: the object is this artifact's code, whose digest has been checked. It is run
        // with the rights of this program, as any executable the user chooses to run; it has no
        // dependencies, and no initializers but what the compiler put there: none.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(|error| fail(error.to_string()))?;
        let mut kernels = Vec::with_capacity(plan.kernels.len());
        for kernel in &plan.kernels {
            // SAFETY: by the artifact's contract every kernel named by a plan is a function of
            // this type.
            let symbol = unsafe { library.get::<KernelFn>(kernel.name.as_bytes()) };
            let (target, kernel) = (plan.target.clone(), kernel.name.clone());
            kernels.push(*symbol.map_err(|_| DeviceError::NoKernel { target, kernel })?);
        }
        Ok(Code { kernels, _library: library, _file: file })
    }

    /// A kernel of the plan. Must not be called after `self` has gone.
    pub fn kernel(&self, index: usize) -> Option<KernelFn> {
        self.kernels.get(index).copied()
    }
}

/// A nameless file in memory with this content.
fn memory_file(content: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a string that ends in zero; the call has no other requirement.
    let descriptor = unsafe { libc::memfd_create(c"waveloom-code".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nothing else owns it.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(content)?;
    Ok(file)
}
