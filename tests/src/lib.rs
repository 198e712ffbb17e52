//! What tests of several crates share. End-to-end tests live in `end_to_end/`, one binary, since it
//! links MLIR.

use std::env;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The emulated GPU's library: `WAVELOOM_EMULATOR_LIBRARY` names it, or it was built beside this
/// test, as `cargo test --workspace` does. `None`, and a word about it, where there is none.
pub fn emulator() -> Option<PathBuf> {
    let here = env::current_exe().ok()?;
    let folder = here.parent().unwrap_or(Path::new("."));
    let named = env::var_os("WAVELOOM_EMULATOR_LIBRARY").map(PathBuf::from);
    let beside = [folder.join("libamdhip64.so"), folder.join("../libamdhip64.so")];
    let found = named.into_iter().chain(beside).find(|place| place.exists());
    if found.is_none() {
        println!("skipped: no emulated GPU; `cargo build --release -p waveloom-emulator-hip`");
    }
    found
}

/// A directory that looks like an installation of ROCm with this library.
pub fn rocm_with(library: &Path) -> io::Result<TempDir> {
    let rocm = tempfile::tempdir()?;
    std::fs::create_dir(rocm.path().join("lib"))?;
    symlink(library.canonicalize()?, rocm.path().join("lib/libamdhip64.so.6"))?;
    Ok(rocm)
}
