//! x86-64 processors.

use super::tiles;
use crate::CodegenError;

/// How the target multiplies bytes: `u8 × i8`, four products summed into an `i32` lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Int8Dot {
    /// `vpdpbusd`, exact.
    Vnni,
    /// `vpmaddubsw` and `vpmaddwd`, in an order in which nothing saturates: the same integers.
    PairSums,
}

/// A CPU target.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuTarget {
    /// Name on the command line and in the artifact: `cpu`, `cpu-v3`, `cpu-v4`, `cpu-amx`.
    pub name: String,
    /// LLVM's target triple.
    pub triple: &'static str,
    /// LLVM's CPU name: the base that `features` add to.
    pub cpu: &'static str,
    /// LLVM features beyond the base.
    pub features: Vec<&'static str>,
    /// f32 lanes of a vector register: `L` of the stored forms. 16 or 8.
    pub lanes: u32,
    /// Vector registers.
    pub vector_registers: u32,
    /// Byte dot product.
    pub int8_dot: Int8Dot,
    /// Whether `vdpbf16ps` (bf16 pairs into f32) is there.
    pub bf16_dot: bool,
    /// Whether tile registers and `tdpbf16ps` (products of 16 × 32 by 32 × 16 bf16 into f32) are there.
    pub amx: bool,
    /// Bytes of the first-level data cache.
    pub l1_bytes: u32,
    /// Bytes of the second-level cache of one core.
    pub l2_bytes: u32,
    /// LLVM's names of all features without which the code does not run.
    pub requires: Vec<&'static str>,
}

/// Features of x86-64-v3 beyond x86-64.
const V3: &[&str] = &[
    "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16", "avx", "avx2", "bmi", "bmi2", "f16c",
    "fma", "lzcnt", "movbe",
];
/// Features of x86-64-v4 beyond x86-64-v3.
const V4: &[&str] = &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];

impl CpuTarget {
    /// Names that [`CpuTarget::from_name`] knows.
    pub const NAMES: &'static [&'static str] = &["cpu", "cpu-v3", "cpu-v4", "cpu-amx"];

    /// The target called `name`. `cpu` is the machine that compiles, with what it has.
    pub fn from_name(name: &str) -> Result<CpuTarget, CodegenError> {
        match name {
            "cpu" => CpuTarget::host(),
            "cpu-v3" => Ok(CpuTarget::x86_64_v3("cpu-v3")),
            "cpu-v4" => Ok(CpuTarget::x86_64_v4("cpu-v4")),
            "cpu-amx" => Ok(CpuTarget::sapphire_rapids("cpu-amx")),
            _ => Err(CodegenError::unknown_target(name)),
        }
    }

    /// x86-64-v3: AVX2, FMA, F16C.
    fn x86_64_v3(name: &str) -> CpuTarget {
        CpuTarget {
            name: name.to_string(),
            triple: "x86_64-unknown-linux-gnu",
            cpu: "x86-64-v3",
            features: vec![],
            lanes: 8,
            vector_registers: 16,
            int8_dot: Int8Dot::PairSums,
            bf16_dot: false,
            amx: false,
            l1_bytes: 32 << 10,
            l2_bytes: 512 << 10,
            requires: V3.to_vec(),
        }
    }

    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    fn x86_64_v4(name: &str) -> CpuTarget {
        let mut requires = V3.to_vec();
        requires.extend(V4);
        CpuTarget {
            cpu: "x86-64-v4",
            lanes: 16,
            vector_registers: 32,
            l1_bytes: 32 << 10,
            l2_bytes: 1 << 20,
            requires,
            ..CpuTarget::x86_64_v3(name)
        }
    }

    /// What Intel's servers have since Sapphire Rapids, as far as kernels use it.
    fn sapphire_rapids(name: &str) -> CpuTarget {
        let target = CpuTarget::x86_64_v4(name).with_vnni("avx512vnni").with_bf16_dot().with_amx();
        CpuTarget { l1_bytes: 48 << 10, l2_bytes: 2 << 20, ..target }
    }

    /// The machine that compiles.
    #[cfg(target_arch = "x86_64")]
    pub fn host() -> Result<CpuTarget, CodegenError> {
        use std::is_x86_feature_detected as has;
        if !(has!("avx2") && has!("fma") && has!("f16c") && has!("bmi2") && has!("movbe")) {
            return Err(CodegenError::HostTooOld);
        }
        let v4 = has!("avx512f")
            && has!("avx512bw")
            && has!("avx512cd")
            && has!("avx512dq")
            && has!("avx512vl");
        let mut target = if v4 { CpuTarget::x86_64_v4("cpu") } else { CpuTarget::x86_64_v3("cpu") };
        if v4 && has!("avx512vnni") {
            target = target.with_vnni("avx512vnni");
        } else if !v4 && has!("avxvnni") {
            target = target.with_vnni("avxvnni");
        }
        if v4 && has!("avx512bf16") {
            target = target.with_bf16_dot();
            if tiles::usable() {
                target = target.with_amx();
            }
        }
        target.l1_bytes = cache_bytes(1).unwrap_or(target.l1_bytes);
        target.l2_bytes = cache_bytes(2).unwrap_or(target.l2_bytes);
        Ok(target)
    }

    /// The machine that compiles.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn host() -> Result<CpuTarget, CodegenError> {
        Err(CodegenError::HostTooOld)
    }

    /// This target with a VNNI feature (`avx512vnni` or `avxvnni`).
    fn with_vnni(mut self, feature: &'static str) -> CpuTarget {
        self.int8_dot = Int8Dot::Vnni;
        self.features.push(feature);
        self.requires.push(feature);
        self
    }

    /// This target with AVX-512 BF16.
    fn with_bf16_dot(mut self) -> CpuTarget {
        self.bf16_dot = true;
        self.features.push("avx512bf16");
        self.requires.push("avx512bf16");
        self
    }

    /// This target with the tile registers of AMX and their products of bf16.
    fn with_amx(mut self) -> CpuTarget {
        self.amx = true;
        for feature in ["amx-tile", "amx-bf16"] {
            self.features.push(feature);
            self.requires.push(feature);
        }
        self
    }

    /// LLVM's feature string: `+a,+b`.
    pub fn feature_string(&self) -> String {
        let features: Vec<String> = self.features.iter().map(|f| format!("+{f}")).collect();
        features.join(",")
    }

    /// Bytes of a vector register.
    pub fn vector_bytes(&self) -> u32 {
        self.lanes * 4
    }
}

/// Bytes of this machine's data cache of a level, as the CPU says (`cpuid` leaf 4 of Intel, leaf
/// 0x8000001d of AMD).
#[cfg(target_arch = "x86_64")]
fn cache_bytes(level: u32) -> Option<u32> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let amd = __cpuid(0).ecx == u32::from_le_bytes(*b"cAMD");
    let leaf = if amd { 0x8000_001d } else { 4 };
    let highest = __cpuid(leaf & 0x8000_0000).eax;
    if highest < leaf {
        return None;
    }
    (0..8)
        .map(|index| __cpuid_count(leaf, index))
        // Types: 0 none, 1 data, 2 instructions, 3 unified.
        .find(|c| matches!(c.eax & 31, 1 | 3) && c.eax >> 5 & 7 == level)
        .and_then(|c| {
            let (ways, partitions) = ((c.ebx >> 22) + 1, (c.ebx >> 12 & 0x3ff) + 1);
            let (line, sets) = ((c.ebx & 0xfff) + 1, c.ecx.checked_add(1)?);
            ways.checked_mul(partitions)?.checked_mul(line)?.checked_mul(sets)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_cover_what_the_code_uses() {
        let host = CpuTarget::host().unwrap();
        for feature in &host.features {
            assert!(host.requires.contains(feature));
        }
        assert!(host.requires.contains(&"avx2"));
        assert!(host.l1_bytes >= 16 << 10 && host.l2_bytes >= host.l1_bytes);
    }
}
