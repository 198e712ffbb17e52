//! What the tests share: the emulated devices, kernels compiled by clang, shorthands.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Once, OnceLock};

use amdhip64::error::HipError;
use amdhip64::ffi::Text;
use amdhip64::types::{Address, Handle, kind};
use amdhip64::{device, launch, memory, module, stream};

/// Devices of the process: tests that make one fail use one of their own.
pub const DEVICES: usize = 8;

/// Chooses the emulated devices, before anything else.
pub fn setup() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: every test calls this before it does anything, and so waits until it is done.
        unsafe {
            std::env::set_var("WAVELOOM_EMU_DEVICE", format!("gfx942:{DEVICES}"));
            std::env::set_var("WAVELOOM_EMU_MAX_INSTRUCTIONS", "20000000");
        }
    });
}

/// Fails the test with the error's name.
#[track_caller]
pub fn good(error: HipError) {
    assert_eq!(error, HipError::SUCCESS, "{}", error.name().to_string_lossy());
}

/// clang of LLVM 22, which can compile for AMD GPUs.
pub fn clang() -> &'static str {
    if Path::new("/usr/lib/llvm-22/bin/clang").exists() {
        "/usr/lib/llvm-22/bin/clang"
    } else {
        "clang-22"
    }
}

/// A file beside this one.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Runs a command that must succeed; gives its standard output and error.
#[track_caller]
pub fn run(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?} {}:\n{out}\n{err}", output.status);
    (out, err)
}

/// Compiles a source for a processor into a code object.
pub fn compile(name: &str, processor: &str, out: &Path) {
    run(Command::new(clang())
        .args(["-x", "hip", "--offload-device-only", "--no-gpu-bundle-output"])
        .args(["-nogpulib", "-nogpuinc", "-O3"])
        .arg(format!("--offload-arch={processor}"))
        .arg(source(name))
        .arg("-o")
        .arg(out));
}

/// The code object of `hip/kernels.hip`.
pub fn kernels() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernels.hsaco");
        compile("hip/kernels.hip", "gfx942", &file);
        std::fs::read(file).unwrap()
    })
}

/// An offload bundle: each entry a target and a code object.
pub fn bundle(entries: &[(&str, &[u8])]) -> Vec<u8> {
    const ALIGNMENT: usize = 4096;
    let mut out = b"__CLANG_OFFLOAD_BUNDLE__".to_vec();
    out.extend((entries.len() as u64).to_le_bytes());
    let mut offset = ALIGNMENT;
    for (target, code) in entries {
        out.extend((offset as u64).to_le_bytes());
        out.extend((code.len() as u64).to_le_bytes());
        out.extend((target.len() as u64).to_le_bytes());
        out.extend(target.as_bytes());
        offset = (offset + code.len()).next_multiple_of(ALIGNMENT);
    }
    for (_, code) in entries {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend(*code);
    }
    out
}

/// The module of `hip/kernels.hip` on the current device.
pub fn load() -> Handle {
    let mut handle = 0;
    good(module::hipModuleLoadData(Some(&mut handle), kernels().as_ptr() as Address));
    handle
}

/// A kernel of a module.
#[track_caller]
pub fn function(of: Handle, name: &str) -> Handle {
    let name = CString::new(name).unwrap();
    let mut handle = 0;
    good(module::hipModuleGetFunction(Some(&mut handle), of, Text::new(&name)));
    handle
}

/// Device memory with 32-bit numbers.
#[track_caller]
pub fn upload(values: &[u32]) -> Address {
    let mut address = 0;
    good(memory::hipMalloc(Some(&mut address), size_of_val(values).max(4)));
    let from = values.as_ptr() as Address;
    good(memory::hipMemcpy(address, from, size_of_val(values), kind::HOST_TO_DEVICE));
    address
}

/// Numbers in device memory.
#[track_caller]
pub fn download(address: Address, count: usize) -> Vec<u32> {
    let mut values = vec![0u32; count];
    let to = values.as_mut_ptr() as Address;
    good(memory::hipMemcpy(to, address, count * 4, kind::DEVICE_TO_HOST));
    values
}

/// Launches a kernel on a one-dimensional grid with arguments at the given addresses.
pub fn launch(func: Handle, grid: u32, block: u32, stream: Handle, params: &[Address]) -> HipError {
    launch::hipModuleLaunchKernel(
        func,
        grid,
        1,
        1,
        block,
        1,
        1,
        0,
        stream,
        params.as_ptr() as Address,
        0,
    )
}

/// Launches `add`: adds `value` to `count` numbers at `address`.
#[track_caller]
pub fn add(func: Handle, stream: Handle, address: Address, value: u32, count: u32, spins: u32) {
    let params = [at(&address), at(&value), at(&count), at(&spins)];
    good(launch(func, count.div_ceil(64), 64, stream, &params));
}

/// The address of a value, as arguments of kernels are passed.
pub fn at<T>(value: &T) -> Address {
    std::ptr::from_ref(value) as Address
}

/// A stream.
pub fn new_stream(flags: u32) -> Handle {
    let mut handle = 0;
    good(stream::hipStreamCreateWithFlags(Some(&mut handle), flags));
    handle
}

/// Makes a device of its own current for the test.
pub fn use_device(ordinal: i32) {
    setup();
    good(device::hipSetDevice(ordinal));
}
