//! Objects to one shared object, with LLD inside this process.
#![allow(unsafe_code)]

mod metadata;
mod ptx;

use crate::target::{GpuTarget, Platform};
use crate::{CodegenError, CompiledKernel, Target};
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What the shared object calls itself.
pub const SONAME: &str = "waveloom-kernels.so";

/// LLD keeps its state in globals: one link at a time.
static LLD: Mutex<()> = Mutex::new(());

unsafe extern "C" {
    fn waveloom_lld_link(
        argv: *const *const c_char,
        argc: usize,
        messages: *mut *mut c_char,
    ) -> c_int;
    fn waveloom_lld_free(messages: *mut c_char);
}

/// Links kernels into a shared object that exports each under its name and depends on nothing; for
/// an AMD GPU that is a code object, for an NVIDIA GPU one text of PTX. The same kernels in the same
/// order give the same bytes.
pub fn link_shared_object(
    kernels: &[CompiledKernel],
    target: &Target,
) -> Result<Vec<u8>, CodegenError> {
    if let Target::Gpu(GpuTarget { platform: Platform::Nvidia, .. }) = target {
        return ptx::link(kernels);
    }
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("out.so");
    let mut arguments = vec![
        "ld.lld".to_string(),
        "-shared".to_string(),
        "-o".to_string(),
        output.to_string_lossy().into_owned(),
        "--build-id=none".to_string(),
        "--strip-all".to_string(),
        "--no-undefined".to_string(),
        "--threads=1".to_string(),
    ];
    if let Target::Cpu(_) = target {
        arguments.extend([
            format!("--soname={SONAME}"),
            "--hash-style=gnu".to_string(),
            "-znoexecstack".to_string(),
        ]);
    }
    let mut objects: Vec<Vec<u8>> = kernels.iter().map(|kernel| kernel.object.clone()).collect();
    if let Target::Gpu(_) = target {
        let metadata = metadata::merge(kernels, &mut objects, target)?;
        objects.push(metadata);
    }
    for (index, object) in objects.iter().enumerate() {
        // Names by number: a kernel's name may be longer than a file name can be.
        let path = directory.path().join(format!("{index}.o"));
        std::fs::write(&path, object)?;
        arguments.push(path.to_string_lossy().into_owned());
    }
    run_lld(&arguments).map_err(|messages| CodegenError::Link {
        objects: kernels.len(),
        messages: without_directory(&messages, directory.path()),
    })?;
    Ok(std::fs::read(&output)?)
}

/// Runs LLD's ELF driver; gives its messages if it fails.
fn run_lld(arguments: &[String]) -> Result<(), String> {
    let arguments: Vec<CString> = arguments
        .iter()
        .map(|argument| CString::new(argument.as_str()))
        .collect::<Result<_, _>>()
        .map_err(|_| "an argument contains a zero byte".to_string())?;
    let pointers: Vec<*const c_char> = arguments.iter().map(|a| a.as_ptr()).collect();
    let mut messages: *mut c_char = std::ptr::null_mut();
    let guard = LLD.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: `pointers` are `len` zero-terminated strings that outlive the call, `messages` is
    // writable, and the lock keeps this the only call.
    let status = unsafe { waveloom_lld_link(pointers.as_ptr(), pointers.len(), &mut messages) };
    drop(guard);
    let text = take_messages(messages);
    match status {
        0 => Ok(()),
        -1 => Err(format!("LLD crashed: {text}")),
        _ => Err(text),
    }
}

fn take_messages(messages: *mut c_char) -> String {
    if messages.is_null() {
        return String::new();
    }
    // SAFETY: not null, so a zero-terminated string that `waveloom_lld_link` allocated for us;
    // it is copied before it is freed, once.
    unsafe {
        let text = CStr::from_ptr(messages).to_string_lossy().trim().to_string();
        waveloom_lld_free(messages);
        text
    }
}

/// Messages without the temporary directory's name, on one line.
fn without_directory(messages: &str, directory: &Path) -> String {
    let prefix = format!("{}/", directory.display());
    messages.replace(&prefix, "").replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compile, mlir::Builder};

    fn target() -> Target {
        Target::from_name("cpu-v3").unwrap()
    }

    fn kernel(name: &str) -> CompiledKernel {
        compile(&Builder::new(name).finish(), &target(), false).unwrap()
    }

    #[test]
    fn links_the_same_bytes_twice() {
        let kernels = [kernel("a"), kernel("b")];
        let one = link_shared_object(&kernels, &target()).unwrap();
        assert_eq!(one, link_shared_object(&kernels, &target()).unwrap());
        assert_eq!(&one[..4], b"\x7fELF");
    }

    #[test]
    fn a_failed_link_says_why_and_can_be_followed_by_another() {
        let error =
            link_shared_object(&[kernel("a"), kernel("a")], &target()).unwrap_err().to_string();
        assert!(error.contains("duplicate symbol: a"), "{error}");
        assert!(!error.contains("/tmp"), "{error}");
        link_shared_object(&[kernel("a")], &target()).unwrap();
    }
}
