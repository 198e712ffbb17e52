//! AMD's chips.
//!
//! Sources: AMD's ISA documents, LLVM's AMDGPU back end (occupancy, LDS), AMD's product pages for
//! the peak figures, which only predictions use.

use super::gpu::{GpuTarget, MatrixLayout, MatrixOp, MatrixType, Platform, VectorRegisters};
use crate::mlir::Elem;

/// Factors, elements per lane, intrinsic, operand type.
const fn op(
    factors: MatrixType,
    per_lane: u32,
    intrinsic: &'static str,
    operand: Elem,
) -> MatrixOp {
    MatrixOp { factors, per_lane, intrinsic, operand }
}

const MFMA_F32: MatrixOp = op(MatrixType::F32, 1, "llvm.amdgcn.mfma.f32.16x16x4f32", Elem::F32);
const CDNA3: [MatrixOp; 3] = [
    op(MatrixType::F16, 4, "llvm.amdgcn.mfma.f32.16x16x16f16", Elem::F16),
    op(MatrixType::Bf16, 4, "llvm.amdgcn.mfma.f32.16x16x16bf16.1k", Elem::I16),
    MFMA_F32,
];
const CDNA4: [MatrixOp; 3] = [
    op(MatrixType::F16, 8, "llvm.amdgcn.mfma.f32.16x16x32.f16", Elem::F16),
    op(MatrixType::Bf16, 8, "llvm.amdgcn.mfma.f32.16x16x32.bf16", Elem::BF16),
    MFMA_F32,
];
const RDNA3: [MatrixOp; 2] = [
    op(MatrixType::F16, 16, "llvm.amdgcn.wmma.f32.16x16x16.f16", Elem::F16),
    op(MatrixType::Bf16, 16, "llvm.amdgcn.wmma.f32.16x16x16.bf16", Elem::I16),
];
const RDNA4: [MatrixOp; 2] = [
    op(MatrixType::F16, 8, "llvm.amdgcn.wmma.f32.16x16x16.f16", Elem::F16),
    op(MatrixType::Bf16, 8, "llvm.amdgcn.wmma.f32.16x16x16.bf16", Elem::I16),
];

const CDNA_REGISTERS: VectorRegisters = VectorRegisters { total: 512, granule: 8, max_waves: 8 };
const RDNA_REGISTERS: VectorRegisters = VectorRegisters { total: 1536, granule: 24, max_waves: 16 };

/// The chip called `name`.
pub(super) fn chip(name: &str) -> Option<GpuTarget> {
    let cdna = GpuTarget {
        platform: Platform::Amd,
        name: "gfx90a",
        product: "MI250X, one die",
        wave: 64,
        compute_units: 104,
        dies: 1,
        lds_bytes: 64 << 10,
        simds_lds_bytes: 64 << 10,
        lds_banks: 32,
        vector_registers: CDNA_REGISTERS,
        bandwidth: 1.6e12,
        matrix_rate: 181e12,
        layout: MatrixLayout::Mfma,
        matrix_ops: CDNA3.to_vec(),
        flushes_factors: true,
        converts_bf16: false,
        dependent_launches: false,
        warpgroups: None,
    };
    let rdna = GpuTarget {
        name: "gfx1100",
        product: "RX 7900 XTX",
        wave: 32,
        compute_units: 96,
        // Both halves of a workgroup processor have their own.
        simds_lds_bytes: 128 << 10,
        lds_banks: 64,
        vector_registers: RDNA_REGISTERS,
        bandwidth: 0.96e12,
        matrix_rate: 123e12,
        layout: MatrixLayout::Wmma3,
        matrix_ops: RDNA3.to_vec(),
        flushes_factors: false,
        ..cdna.clone()
    };
    match name {
        "gfx90a" => Some(cdna),
        "gfx942" => Some(GpuTarget {
            name: "gfx942",
            product: "MI300X",
            compute_units: 304,
            dies: 8,
            bandwidth: 5.3e12,
            matrix_rate: 1307e12,
            flushes_factors: false,
            ..cdna
        }),
        "gfx950" => Some(GpuTarget {
            name: "gfx950",
            product: "MI355X",
            compute_units: 256,
            dies: 8,
            lds_bytes: 160 << 10,
            simds_lds_bytes: 160 << 10,
            lds_banks: 64,
            bandwidth: 8e12,
            matrix_rate: 2516e12,
            matrix_ops: CDNA4.to_vec(),
            flushes_factors: false,
            converts_bf16: true,
            ..cdna
        }),
        "gfx1100" => Some(rdna),
        "gfx1151" => Some(GpuTarget {
            name: "gfx1151",
            product: "Ryzen AI Max, Radeon 8060S",
            compute_units: 40,
            bandwidth: 0.256e12,
            matrix_rate: 59e12,
            ..rdna
        }),
        "gfx1201" => Some(GpuTarget {
            name: "gfx1201",
            product: "RX 9070 XT",
            compute_units: 56,
            bandwidth: 0.64e12,
            matrix_rate: 145e12,
            layout: MatrixLayout::Wmma4,
            matrix_ops: RDNA4.to_vec(),
            ..rdna
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LLVM's tables, for AGPRs unused.
    #[test]
    fn occupancy_is_llvms() {
        let waves = |registers: VectorRegisters, list: &[u32]| -> Vec<u32> {
            list.iter().map(|&n| registers.waves(n)).collect()
        };
        let cdna = waves(CDNA_REGISTERS, &[64, 72, 80, 96, 128, 129, 168, 256, 512]);
        assert_eq!(cdna, [8, 7, 6, 5, 4, 3, 3, 2, 1]);
        let rdna = waves(RDNA_REGISTERS, &[96, 120, 144, 168, 192, 216, 240, 256]);
        assert_eq!(rdna, [16, 12, 10, 9, 8, 7, 6, 5]);
    }
}
