//! Programs in C and C++ that load the library as any HIP program does.

#![allow(unsafe_code, reason = "the API is C's")]

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{bundle, clang, compile, kernels, run, source};

/// Headers and library of Debian's HIP.
const HEADER: &str = "/usr/include/hip/hip_runtime_api.h";
const DEBIAN_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libamdhip64.so.5";

/// The library that was built with this test.
fn library() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let folder = here.parent().unwrap();
    let places = [folder.join("libamdhip64.so"), folder.join("../libamdhip64.so")];
    let found = places.into_iter().find(|place| place.exists());
    found.expect("cargo builds the library beside the tests").canonicalize().unwrap()
}

/// A folder in which the library has the names that programs look for.
fn library_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libamdhip64.so", "libamdhip64.so.5", "libamdhip64.so.6"] {
        symlink(library(), folder.path().join(name)).unwrap();
    }
    folder
}

/// Functions that a library exports.
fn exports(library: &Path) -> BTreeSet<String> {
    let (text, _) = run(Command::new("/usr/lib/llvm-22/bin/llvm-nm")
        .args(["--dynamic", "--defined-only", "--format=just-symbols"])
        .arg(library));
    text.lines().map(|line| line.split('@').next().unwrap().to_string()).collect()
}

#[test]
fn a_c_program_built_for_amds_library_runs_unchanged() {
    if !Path::new(HEADER).exists() {
        eprintln!("skipped: Debian's package libamdhip64-dev is not installed");
        return;
    }
    let folder = library_folder();
    let program = folder.path().join("program");
    run(Command::new("cc")
        .args(["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-O1"])
        .arg(source("c/program.c"))
        .arg("-o")
        .arg(&program)
        .args(["-L/usr/lib/x86_64-linux-gnu", "-lamdhip64"]));
    let code = folder.path().join("kernels.hsaco");
    std::fs::write(&code, kernels()).unwrap();
    let (out, err) = run(Command::new(&program)
        .arg(&code)
        .env("LD_LIBRARY_PATH", folder.path())
        .env("LD_BIND_NOW", "1")
        .env("WAVELOOM_EMU_DEVICE", "gfx942:2"));
    assert_eq!(out, "good\n", "{err}");
    // No word of the loader about versions; one of the library about what is missing.
    assert!(!err.contains("version"), "{err}");
    assert_eq!(err.matches("hipIpcCloseMemHandle is not supported").count(), 1, "{err}");
}

#[test]
fn everything_that_amds_library_exports_is_there() {
    if !Path::new(DEBIAN_LIBRARY).exists() {
        eprintln!("skipped: Debian's package libamdhip64-5 is not installed");
        return;
    }
    let ours = exports(&library());
    let theirs = exports(Path::new(DEBIAN_LIBRARY));
    // The versions themselves are symbols there; here they are only versions.
    let missing: Vec<_> =
        theirs.difference(&ours).filter(|name| !name.starts_with("hip_")).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(theirs.len() > 400);
}

/// Compiles `hip/program.hip` with device code that is given as it is or in a bundle.
fn build_hip_program(folder: &Path, wrap: impl Fn(&[u8]) -> Vec<u8>) -> PathBuf {
    let code = folder.join("device.hsaco");
    compile("hip/program.hip", "gfx942", &code);
    let fat = folder.join("device.hipfb");
    std::fs::write(&fat, wrap(&std::fs::read(&code).unwrap())).unwrap();
    let object = folder.join("program.o");
    run(Command::new(clang())
        .args(["-x", "hip", "--offload-host-only", "--offload-arch=gfx942"])
        .args(["-nogpulib", "-nogpuinc", "-O2", "-fPIE"])
        .args(["-Xclang", "-fcuda-include-gpubinary", "-Xclang"])
        .arg(&fat)
        .arg("-c")
        .arg(source("hip/program.hip"))
        .arg("-o")
        .arg(&object));
    let program = folder.join("program");
    run(Command::new("cc")
        .arg(&object)
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(folder)
        .args(["-lamdhip64"]));
    program
}

#[test]
fn an_ordinary_hip_program_runs() {
    let folder = library_folder();
    let check = |program: &Path| {
        let (out, err) = run(Command::new(program)
            .env("LD_LIBRARY_PATH", folder.path())
            .env_remove("WAVELOOM_EMU_DEVICE"));
        assert_eq!(out, "_Z5scaleIjEvPT_S0_j: good\n", "{err}");
        assert_eq!(err, "");
    };
    check(&build_hip_program(folder.path(), <[u8]>::to_vec));
    let host = ("host-x86_64-unknown-linux-gnu-", &[][..]);
    check(&build_hip_program(folder.path(), |code| {
        bundle(&[host, ("hipv4-amdgcn-amd-amdhsa--gfx942", code)])
    }));
}

#[test]
fn an_unknown_device_is_no_device() {
    let folder = library_folder();
    let program = build_hip_program(folder.path(), <[u8]>::to_vec);
    let output = Command::new(&program)
        .env("LD_LIBRARY_PATH", folder.path())
        .env("WAVELOOM_EMU_DEVICE", "gfx1030")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(output.status.code().is_some(), "no signal");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("no GPU is called \"gfx1030\"; known are gfx90a, gfx942"), "{err}");
}

/// A program that reads memory which nobody wrote, and statistics of what it did.
#[test]
fn checks_and_statistics_are_told() {
    let folder = library_folder();
    let program = build_hip_program(folder.path(), <[u8]>::to_vec);
    let statistics = folder.path().join("statistics.json");
    let (out, err) = run(Command::new(&program)
        .env("LD_LIBRARY_PATH", folder.path())
        .env_remove("WAVELOOM_EMU_DEVICE")
        .env("WAVELOOM_EMU_CHECK", "1")
        .env("WAVELOOM_EMU_STATS", &statistics));
    // The program is correct, and says so.
    assert_eq!((out.as_str(), err.as_str()), ("_Z5scaleIjEvPT_S0_j: good\n", ""));
    let text = std::fs::read_to_string(&statistics).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kernel = &json["_Z5scaleIjEvPT_S0_j"];
    assert_eq!(kernel["launches"], 1);
    // A thousand work-items in workgroups of 128: two waves each.
    assert_eq!((&kernel["workgroups"], &kernel["waves"]), (&8.into(), &16.into()));
    // Only the first argument says so: the memory that the kernel reads is not initialized.
    let (out, err) = run(Command::new(&program)
        .arg("uninitialized")
        .env("LD_LIBRARY_PATH", folder.path())
        .env_remove("WAVELOOM_EMU_DEVICE")
        .env("WAVELOOM_EMU_CHECK", "1"));
    assert_eq!(out, "launched\n");
    assert!(
        err.contains("kernel _Z5scaleIjEvPT_S0_j: uninitialized global memory is read"),
        "{err}"
    );
    assert!(err.contains("hipMalloc #"), "{err}");
    assert_eq!(err.matches("uninitialized global memory").count(), 1, "{err}");
}
