//! Which vector units the host has, beyond those that the emulator needs.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

/// Of two versions of a function, the one for this host: with AVX2, FMA, F16C and BMI2, which
/// [`crate::valu::op::host_is_fit`] demands before anything is compiled, or with AVX-512 F, BW, DQ
/// and VL besides.
pub fn choose<T>(avx2: T, avx512: T) -> T {
    static AVX512: OnceLock<bool> = OnceLock::new();
    if *AVX512.get_or_init(has_avx512) { avx512 } else { avx2 }
}
