//! Builds the few lines of C++ that call LLD, and links LLD's static libraries. LLVM itself is
//! linked by `mlir-sys` and `llvm-sys`.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=cc/lld.cpp");
    println!("cargo:rerun-if-env-changed=LLVM_SYS_221_PREFIX");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-fno-rtti")
        // LLVM's headers are not ours to keep clean.
        .flag("-isystem")
        .flag(llvm_config("--includedir"))
        .file("cc/lld.cpp")
        .compile("waveloom_lld");
    println!("cargo:rustc-link-search=native={}", llvm_config("--libdir"));
    for library in ["lldELF", "lldCommon"] {
        println!("cargo:rustc-link-lib=static={library}");
    }
}

/// One answer of the `llvm-config` that `llvm-sys` uses.
fn llvm_config(argument: &str) -> String {
    let program = match std::env::var_os("LLVM_SYS_221_PREFIX") {
        Some(prefix) => PathBuf::from(prefix).join("bin/llvm-config"),
        None => PathBuf::from("llvm-config-22"),
    };
    let output = Command::new(&program)
        .arg(argument)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    assert!(output.status.success(), "{} {argument} failed", program.display());
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}
