//! Odds and ends: names for profilers, lookup of functions, half-precision helpers.

use std::ffi::{CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;

use crate::abi::library_path;
use crate::error::{HipError, Result, note};
use crate::ffi::{Place, Text, api, given};
use waveloom_emulator::number::{f16_to_f32, f32_to_f16};

/// `hipDriverProcAddressQueryResult`.
const FOUND: u32 = 0;
const NOT_FOUND: u32 = 1;

/// The function of this library that a program means by a name.
fn lookup(name: &str, version: i32) -> Result<*mut c_void> {
    let name = match name {
        "hipGetDeviceProperties" | "hipChooseDevice" if version >= 600 => format!("{name}R0600"),
        name => name.to_string(),
    };
    let name = CString::new(name).map_err(|_| HipError::INVALID_VALUE)?;
    let path = library_path().ok_or(HipError::NOT_FOUND)?;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| HipError::NOT_FOUND)?;
    // SAFETY: both strings are C strings; the library is loaded already, and its handle may leak.
    let found = unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if library.is_null() { std::ptr::null_mut() } else { libc::dlsym(library, name.as_ptr()) }
    };
    if found.is_null() { Err(HipError::INVALID_VALUE) } else { Ok(found) }
}

api! {
    /// The function of a name.
    fn hipGetProcAddress(
        name: Text,
        function: Option<&mut *mut c_void>,
        version: i32,
        _flags: u64,
        status: Option<&mut u32>,
    ) {
        let (name, function) = (name.read()?, given(function)?);
        let found = lookup(name, version);
        status.offer(if found.is_ok() { FOUND } else { NOT_FOUND });
        *function = found?;
        Ok(())
    }

    /// Begins profiling, for which `WAVELOOM_EMU_STATS` is the way.
    fn hipProfilerStart() {
        note("hipProfilerStart: set WAVELOOM_EMU_STATS to a file for statistics of kernels");
        Err(HipError::NOT_SUPPORTED)
    }

    /// Ends profiling.
    fn hipProfilerStop() {
        Err(HipError::NOT_SUPPORTED)
    }
}

/// Name of a function by AMD's internal number, which is not public.
#[unsafe(no_mangle)]
pub extern "C" fn hipApiName(_id: u32) -> *const c_char {
    c"unknown".as_ptr()
}

/// Name of an internal command, of which there are none.
#[unsafe(no_mangle)]
pub extern "C" fn hipGetCmdName(_operation: u32) -> *const c_char {
    c"unknown".as_ptr()
}

/// Name of the build.
#[unsafe(no_mangle)]
pub extern "C" fn amd_dbgapi_get_build_name() -> *const c_char {
    c"waveloom-emulator".as_ptr()
}

/// Revision of the build.
#[unsafe(no_mangle)]
pub extern "C" fn amd_dbgapi_get_git_hash() -> *const c_char {
    c"".as_ptr()
}

/// Number of the build.
#[unsafe(no_mangle)]
pub extern "C" fn amd_dbgapi_get_build_id() -> usize {
    0
}

/// Half precision to single, for compilers without instructions for it.
#[unsafe(no_mangle)]
pub extern "C" fn __gnu_h2f_ieee(half: u16) -> f32 {
    f16_to_f32(half)
}

/// Single precision to half, to the nearest even.
#[unsafe(no_mangle)]
pub extern "C" fn __gnu_f2h_ieee(single: f32) -> u16 {
    f32_to_f16(single)
}
