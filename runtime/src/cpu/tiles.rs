//! The tile registers of AMX: which of its features the CPU has and the system lets this process use.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// LLVM's names of the features that are there. The first call asks the system for the use of tiles: they
/// are 8 KiB of state per thread, which Linux saves only for processes that want it.
pub fn features() -> &'static [&'static str] {
    static FEATURES: OnceLock<Vec<&'static str>> = OnceLock::new();
    FEATURES.get_or_init(|| {
        let features = of_cpu();
        if features.is_empty() || permitted() { features } else { vec![] }
    })
}

/// What the CPU says that it has (`cpuid` leaf 7).
#[cfg(target_arch = "x86_64")]
fn of_cpu() -> Vec<&'static str> {
    use std::arch::x86_64::__cpuid_count;
    let leaves = __cpuid_count(7, 0);
    let more = if leaves.eax > 0 { __cpuid_count(7, 1).eax } else { 0 };
    let known = [
        ("amx-tile", leaves.edx >> 24),
        ("amx-bf16", leaves.edx >> 22),
        ("amx-int8", leaves.edx >> 25),
        ("amx-fp16", more >> 21),
    ];
    known.into_iter().filter(|(_, bit)| bit & 1 == 1).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn of_cpu() -> Vec<&'static str> {
    vec![]
}

/// Asks for the permission to use tiles. It is refused where the system does not save them, so that the
/// answer also says whether XCR0 has them.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permitted() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` of `asm/prctl.h`.
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    /// Component of the extended state that holds the tiles' content.
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes nothing but what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn permitted() -> bool {
    false
}
