//! NVIDIA's chips.
//!
//! Sources: NVIDIA's "CUDA C++ Programming Guide" ("Compute Capabilities": registers, shared memory,
//! warps) and "Parallel Thread Execution ISA"; NVIDIA's datasheets for the peak figures (dense), which
//! only predictions use.

use super::gpu::{
    GpuTarget, MatrixLayout, MatrixOp, MatrixType, Platform, VectorRegisters, Warpgroups,
};
use crate::mlir::Elem;

/// As our 16×16×16 operation, two of these with the factors' roles swapped.
const MMA: [MatrixOp; 2] = [
    MatrixOp {
        factors: MatrixType::F16,
        per_lane: 4,
        intrinsic: "llvm.nvvm.mma.m16n8k16.row.col.f32.f32",
        operand: Elem::F16,
    },
    MatrixOp {
        factors: MatrixType::Bf16,
        per_lane: 4,
        intrinsic: "llvm.nvvm.mma.m16n8k16.row.col.bf16",
        operand: Elem::I16,
    },
];

/// A multiprocessor has four partitions of 16384 registers, 512 for each lane of a warp.
const REGISTERS: VectorRegisters = VectorRegisters { total: 512, granule: 8, max_waves: 16 };

/// Shared memory that a kernel can have without asking for more when it is launched.
const STATIC_SHARED: u32 = 48 << 10;

/// What it can have on compute capability 9.0 if it asks.
const WARPGROUPS: Warpgroups = Warpgroups { lds_bytes: 227 << 10 };

/// The chip called `name`.
pub(super) fn chip(name: &str) -> Option<GpuTarget> {
    let sm_80 = GpuTarget {
        platform: Platform::Nvidia,
        name: "sm_80",
        product: "A100, 80 GB",
        wave: 32,
        compute_units: 108,
        dies: 1,
        lds_bytes: STATIC_SHARED,
        simds_lds_bytes: 164 << 10,
        lds_banks: 32,
        vector_registers: REGISTERS,
        bandwidth: 2.039e12,
        matrix_rate: 312e12,
        layout: MatrixLayout::Mma,
        matrix_ops: MMA.to_vec(),
        converts_bf16: true,
        dependent_launches: false,
        flushes_factors: false,
        warpgroups: None,
    };
    let sm_90 = GpuTarget {
        name: "sm_90",
        product: "H200",
        compute_units: 132,
        simds_lds_bytes: 228 << 10,
        bandwidth: 4.8e12,
        matrix_rate: 989e12,
        dependent_launches: true,
        ..sm_80.clone()
    };
    match name {
        "sm_80" => Some(sm_80),
        "sm_89" => Some(GpuTarget {
            name: "sm_89",
            product: "RTX 4090",
            compute_units: 128,
            simds_lds_bytes: 100 << 10,
            vector_registers: VectorRegisters { max_waves: 12, ..REGISTERS },
            bandwidth: 1.008e12,
            matrix_rate: 165e12,
            ..sm_80
        }),
        "sm_90" => Some(sm_90),
        // With what no later chip has.
        "sm_90a" => Some(GpuTarget { name: "sm_90a", warpgroups: Some(WARPGROUPS), ..sm_90 }),
        _ => None,
    }
}

/// The oldest version of PTX, in LLVM's words, that knows the chip and what the kernels use:
/// `ld.global.nc.L1::no_allocate` came with 7.4, the chips after `sm_80` with 7.8, `sm_90a` with 8.0.
pub(super) fn ptx_version(target: &GpuTarget) -> &'static str {
    match target.name {
        "sm_80" => "+ptx74",
        "sm_90a" => "+ptx80",
        _ => "+ptx78",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The programming guide's limits: 64 K registers and 64 (of `sm_89`: 48) warps on a
    /// multiprocessor, registers in units of 256 a warp.
    #[test]
    fn occupancy_is_the_programming_guides() {
        for (name, most) in [("sm_80", 64), ("sm_89", 48), ("sm_90", 64), ("sm_90a", 64)] {
            let registers = chip(name).unwrap().vector_registers;
            for count in [1, 32, 40, 64, 65, 96, 128, 168, 255] {
                let of_warp = u32::div_ceil(count * 32, 256) * 256;
                assert_eq!(4 * registers.waves(count), ((16384 / of_warp) * 4).min(most), "{name}");
            }
        }
    }
}
