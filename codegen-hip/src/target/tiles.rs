//! Whether this process may use the tile registers of AMX.
#![allow(unsafe_code)]

/// Whether the CPU has tiles and multiplies bf16 in them, and the system lets this process use them. It is
/// asked to: tiles are 8 KiB of state per thread, which Linux saves only for processes that want it.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) fn usable() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` of `asm/prctl.h`.
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    /// Component of the extended state that holds the tiles' content.
    const TILE_DATA: libc::c_long = 18;
    let (bf16, tile) = (1 << 22, 1 << 24);
    let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
    // SAFETY: the call takes two numbers and changes nothing but what this process may use. It fails where
    // the system does not save tiles, so success also says that XCR0 has them.
    features & (bf16 | tile) == bf16 | tile
        && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) } == 0
}

/// Elsewhere nobody is asked.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(super) fn usable() -> bool {
    false
}
