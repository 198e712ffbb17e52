//! AMD GPUs: what differs between chips, as data.
//!
//! Sources: AMD's ISA documents, LLVM's AMDGPU back end (occupancy, LDS), AMD's product pages for
//! the peak figures, which only predictions use.

use crate::mlir::Elem;

/// An AMD GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct AmdTarget {
    /// LLVM's name of the processor, which is the target's.
    pub name: &'static str,
    /// A product that has it, for people.
    pub product: &'static str,
    /// Lanes of a wave.
    pub wave: u32,
    /// Compute units.
    pub compute_units: u32,
    /// Dies that share no L2 cache; workgroups go round them.
    pub dies: u32,
    /// Bytes of LDS that a workgroup can have.
    pub lds_bytes: u32,
    /// Banks of LDS, four bytes wide.
    pub lds_banks: u32,
    /// Vector registers of a SIMD lane and, of these, the granule in which a wave gets them.
    pub vector_registers: VectorRegisters,
    /// Memory bandwidth in bytes per second.
    pub bandwidth: f64,
    /// Peak of dense f16 matrix operations, in floating-point operations per second.
    pub matrix_rate: f64,
    /// How matrix operations lie in registers.
    pub layout: MatrixLayout,
    /// Matrix operations, one per type.
    pub matrix_ops: Vec<MatrixOp>,
    /// Whether an instruction rounds f32 to bf16.
    pub converts_bf16: bool,
}

/// The vector registers of one SIMD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorRegisters {
    /// In all, per lane.
    pub total: u32,
    /// Granule of an allocation.
    pub granule: u32,
    /// Most waves on a SIMD.
    pub max_waves: u32,
}

impl VectorRegisters {
    /// Waves of `registers` registers each that a SIMD can hold.
    pub fn waves(&self, registers: u32) -> u32 {
        let granules = registers.max(1).div_ceil(self.granule);
        (self.total / (granules * self.granule)).min(self.max_waves)
    }
}

/// Type of the factors of a matrix operation; sums are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixType {
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE binary32.
    F32,
}

impl MatrixType {
    /// How the builder sees an element: bits of a bf16 are an `i16`.
    pub fn elem(self) -> Elem {
        match self {
            MatrixType::F16 => Elem::F16,
            MatrixType::Bf16 => Elem::I16,
            MatrixType::F32 => Elem::F32,
        }
    }
}

/// D = A·B + C with A 16×K, B K×16, C and D 16×16 in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixOp {
    /// Of A and B.
    pub factors: MatrixType,
    /// Elements of A, and of B, that a lane holds, side by side along K.
    pub per_lane: u32,
    /// LLVM's intrinsic.
    pub intrinsic: &'static str,
    /// Type that the intrinsic wants for A and B.
    pub operand: Elem,
}

/// How lanes hold the matrices of a matrix operation. With n = lane % 16 and g = lane / 16, a lane
/// holds of A row n, of B column n, and of C and D column n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixLayout {
    /// CDNA, 64 lanes: A and B: K = v·g + element; C: row 4·g + element, four elements.
    Mfma,
    /// RDNA 3, 32 lanes: A and B: all of K, the same in both groups; C: row 2·element + g, eight.
    Wmma3,
    /// RDNA 4, 32 lanes: A and B: K = 8·g + element; C: row 8·g + element, eight.
    Wmma4,
}

impl MatrixLayout {
    /// Groups of 16 lanes that K is spread over.
    pub fn k_groups(self) -> u32 {
        match self {
            MatrixLayout::Mfma => 4,
            MatrixLayout::Wmma3 => 1,
            MatrixLayout::Wmma4 => 2,
        }
    }

    /// Elements of C that a lane holds.
    pub fn sums(self) -> u32 {
        match self {
            MatrixLayout::Mfma => 4,
            MatrixLayout::Wmma3 | MatrixLayout::Wmma4 => 8,
        }
    }

    /// The row of C's element `element` in lane group 0, and what a group adds to it.
    pub fn row(self, element: u32) -> (u32, u32) {
        match self {
            MatrixLayout::Mfma => (element, 4),
            MatrixLayout::Wmma3 => (2 * element, 1),
            MatrixLayout::Wmma4 => (element, 8),
        }
    }
}

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

impl AmdTarget {
    /// The GPU called `name`.
    pub fn from_name(name: &str) -> Option<AmdTarget> {
        let cdna = AmdTarget {
            name: "gfx90a",
            product: "MI250X, one die",
            wave: 64,
            compute_units: 104,
            dies: 1,
            lds_bytes: 64 << 10,
            lds_banks: 32,
            vector_registers: CDNA_REGISTERS,
            bandwidth: 1.6e12,
            matrix_rate: 181e12,
            layout: MatrixLayout::Mfma,
            matrix_ops: CDNA3.to_vec(),
            converts_bf16: false,
        };
        let rdna = AmdTarget {
            name: "gfx1100",
            product: "RX 7900 XTX",
            wave: 32,
            compute_units: 96,
            lds_banks: 64,
            vector_registers: RDNA_REGISTERS,
            bandwidth: 0.96e12,
            matrix_rate: 123e12,
            layout: MatrixLayout::Wmma3,
            matrix_ops: RDNA3.to_vec(),
            ..cdna.clone()
        };
        match name {
            "gfx90a" => Some(cdna),
            "gfx942" => Some(AmdTarget {
                name: "gfx942",
                product: "MI300X",
                compute_units: 304,
                dies: 8,
                bandwidth: 5.3e12,
                matrix_rate: 1307e12,
                ..cdna
            }),
            "gfx950" => Some(AmdTarget {
                name: "gfx950",
                product: "MI355X",
                compute_units: 256,
                dies: 8,
                lds_bytes: 160 << 10,
                lds_banks: 64,
                bandwidth: 8e12,
                matrix_rate: 2516e12,
                matrix_ops: CDNA4.to_vec(),
                converts_bf16: true,
                ..cdna
            }),
            "gfx1100" => Some(rdna),
            "gfx1151" => Some(AmdTarget {
                name: "gfx1151",
                product: "Ryzen AI Max, Radeon 8060S",
                compute_units: 40,
                bandwidth: 0.256e12,
                matrix_rate: 59e12,
                ..rdna
            }),
            "gfx1201" => Some(AmdTarget {
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

    /// LLVM's feature string: what the processor has by itself will do.
    pub fn feature_string(&self) -> String {
        String::new()
    }

    /// Groups of 16 lanes in a wave.
    pub fn groups(&self) -> u32 {
        self.wave / 16
    }

    /// The matrix operation on factors of a type, where the chip has one.
    pub fn matrix_op(&self, factors: MatrixType) -> Option<&MatrixOp> {
        self.matrix_ops.iter().find(|op| op.factors == factors)
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

    #[test]
    fn every_row_of_a_result_is_held_once() {
        for layout in [MatrixLayout::Mfma, MatrixLayout::Wmma3, MatrixLayout::Wmma4] {
            let groups = 16 / layout.sums();
            let mut rows: Vec<u32> = (0..groups)
                .flat_map(|g| {
                    (0..layout.sums()).map(move |e| layout.row(e).0 + g * layout.row(e).1)
                })
                .collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..16).collect::<Vec<_>>());
        }
    }
}
