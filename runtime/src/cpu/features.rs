//! Whether the host has the features that a plan requires, by LLVM's names.

use super::tiles;
use crate::device::DeviceError;

/// Declares the features: LLVM's name, and where it differs Rust's.
macro_rules! features {
    ($($llvm:tt $(= $rust:tt)?,)*) => {
        /// Every feature that is known, and whether the host has it.
        #[cfg(target_arch = "x86_64")]
        fn known() -> impl Iterator<Item = (&'static str, bool)> {
            [$(($llvm, features!(@has $llvm $(, $rust)?)),)*].into_iter()
        }
    };
    (@has $llvm:tt) => { std::is_x86_feature_detected!($llvm) };
    (@has $llvm:tt, $rust:tt) => { std::is_x86_feature_detected!($rust) };
}

features! {
    "sse3", "ssse3", "sse4.1", "sse4.2", "sse4a", "popcnt", "cx16" = "cmpxchg16b", "fxsr",
    "xsave", "xsaveopt", "xsavec", "xsaves", "aes", "pclmul" = "pclmulqdq", "rdrnd" = "rdrand",
    "rdseed", "sha", "adx", "movbe", "lzcnt", "bmi" = "bmi1", "bmi2", "avx", "avx2", "f16c",
    "fma", "gfni", "vaes", "vpclmulqdq", "avxvnni", "avxifma", "avxvnniint8", "avxvnniint16",
    "avxneconvert", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512ifma",
    "avx512vbmi", "avx512vbmi2", "avx512vnni", "avx512bitalg", "avx512vpopcntdq", "avx512bf16",
    "avx512fp16", "avx512vp2intersect",
}

/// Every feature that is known, and whether the host has it.
#[cfg(not(target_arch = "x86_64"))]
fn known() -> impl Iterator<Item = (&'static str, bool)> {
    std::iter::empty()
}

/// The known features that the host has.
pub fn present() -> impl Iterator<Item = &'static str> {
    let known = known().filter(|(_, has)| *has).map(|(name, _)| name);
    known.chain(tiles::features().iter().copied())
}

/// Fails with the features that the host lacks. One that is not known counts as lacking.
pub fn check(target: &str, required: &[String]) -> Result<(), DeviceError> {
    let has = |name: &str| present().any(|feature| feature == name);
    let missing: Vec<&str> = required.iter().map(String::as_str).filter(|f| !has(f)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(DeviceError::MissingFeatures { target: target.into(), missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        let mut required: Vec<String> = present().map(String::from).collect();
        check("cpu", &required).unwrap();
        required.extend(["avx1024".into(), "amx-dream".into()]);
        insta::assert_snapshot!(check("cpu", &required).unwrap_err(), @"the code for target cpu needs avx1024, amx-dream, which this machine's CPU lacks: recompile the model with `--target cpu` on this machine, or with `--target cpu-v3`");
    }
}
