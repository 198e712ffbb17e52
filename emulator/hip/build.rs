//! Links `libamdhip64.so` so that programs built for AMD's library accept it.
//!
//! Such a program asks for the version of each symbol ("hip_4.2"). rustc writes a version script of
//! its own with every exported symbol and no version; a second script adds the names of the versions
//! and no symbol. The loader then finds the versions it looks for, and a symbol without a version
//! satisfies a reference with any.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=versions.map");
    println!("cargo:rustc-cdylib-link-arg=-Wl,--version-script={folder}/versions.map");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libamdhip64.so.5");
    // Threads of streams run its code until the process ends.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
