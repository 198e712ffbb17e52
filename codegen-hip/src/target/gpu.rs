//! GPUs: what differs between chips, as data.

use super::{amd, nvidia};
use crate::mlir::Elem;
use waveloom_ir::numerics::Rounding;

/// Whose GPU it is: which operations it has, and what its code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// AMD: code objects for HIP.
    Amd,
    /// NVIDIA: PTX for CUDA's driver.
    Nvidia,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuTarget {
    /// Whose it is.
    pub platform: Platform,
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
    /// Bytes of LDS that its workgroups have together on the SIMDs that share it
    /// ([`GpuTarget::simds`]).
    pub simds_lds_bytes: u32,
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
    /// Whether matrix operations take subnormal f16 for zeros.
    pub flushes_factors: bool,
    /// Whether an instruction rounds f32 to bf16.
    pub converts_bf16: bool,
    /// Whether a launch can begin while the one before it runs, and wait for it later.
    pub dependent_launches: bool,
    /// Matrix operations of several waves together, where the chip has them.
    pub warpgroups: Option<Warpgroups>,
}

/// Operations of four waves together (NVIDIA's `wgmma`) that read both factors from LDS, or the first
/// from registers: D = A·Bᵀ with A 64×16, B n×16 for n up to 256. Copies by hardware fill LDS.
///
/// With w the wave among the four, n = lane / 4 and g = lane % 4 a lane holds of D rows 16·w + n and
/// that + 8; of both, of each eight columns, columns 2·g and 2·g + 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warpgroups {
    /// Bytes of LDS that a workgroup gets if it asks for them when it is launched.
    pub lds_bytes: u32,
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

    /// Most registers of a wave of which a SIMD can hold `waves`.
    pub fn most(&self, waves: u32) -> u32 {
        self.total / waves.clamp(1, self.max_waves) / self.granule * self.granule
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
/// holds of A row n, of B column n, and of C and D column n; on NVIDIA GPUs two of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixLayout {
    /// CDNA, 64 lanes: A and B: K = v·g + element; C: row 4·g + element, four elements.
    Mfma,
    /// RDNA 3, 32 lanes: A and B: all of K, the same in both groups; C: row 2·element + g, eight.
    Wmma3,
    /// RDNA 4, 32 lanes: A and B: K = 8·g + element; C: row 8·g + element, eight.
    Wmma4,
    /// NVIDIA, 32 lanes, n = lane / 4 and g = lane % 4: of A rows n and n + 8, of B columns n and
    /// n + 8, each with four elements along K, whose order is free as long as A and B agree; of C
    /// columns n and n + 8, rows 2·g, 2·g + 1, 2·g + 8, 2·g + 9 of each.
    ///
    /// PTX ISA, "Matrix Fragments for mma.m16n8k16", with the roles of factors swapped: what is A
    /// there, 16 rows, is our B, and two operations do for the 16 rows of our A.
    Mma,
}

impl MatrixLayout {
    /// Groups of 16 lanes that K is spread over.
    pub fn k_groups(self) -> u32 {
        match self {
            MatrixLayout::Mfma | MatrixLayout::Mma => 4,
            MatrixLayout::Wmma3 => 1,
            MatrixLayout::Wmma4 => 2,
        }
    }

    /// Rows of A, and columns of B and of C, that a lane holds: 16 / `lines` apart.
    pub fn lines(self) -> u32 {
        match self {
            MatrixLayout::Mma => 2,
            MatrixLayout::Mfma | MatrixLayout::Wmma3 | MatrixLayout::Wmma4 => 1,
        }
    }

    /// Elements of a column of C that a lane holds.
    pub fn sums(self) -> u32 {
        match self {
            MatrixLayout::Mfma | MatrixLayout::Mma => 4,
            MatrixLayout::Wmma3 | MatrixLayout::Wmma4 => 8,
        }
    }

    /// The row of C's element `element` in lane group 0, and what a group adds to it.
    pub fn row(self, element: u32) -> (u32, u32) {
        match self {
            MatrixLayout::Mfma => (element, 4),
            MatrixLayout::Wmma3 => (2 * element, 1),
            MatrixLayout::Wmma4 => (element, 8),
            MatrixLayout::Mma => (element % 2 + element / 2 * 8, 2),
        }
    }
}

impl GpuTarget {
    /// The GPU called `name`.
    pub fn from_name(name: &str) -> Option<GpuTarget> {
        amd::chip(name).or_else(|| nvidia::chip(name))
    }

    /// LLVM's feature string.
    pub fn feature_string(&self) -> String {
        match self.platform {
            // What the processor has by itself will do.
            Platform::Amd => String::new(),
            Platform::Nvidia => nvidia::ptx_version(self).to_string(),
        }
    }

    /// Waves that a SIMD can hold at once, of workgroups of `workgroup` work-items with `registers`
    /// registers each and `lds_bytes` bytes of LDS together: bounded by registers, and by the whole
    /// workgroups for which the SIMDs that share LDS have room.
    pub fn occupancy(&self, registers: u32, lds_bytes: u32, workgroup: u32) -> u32 {
        let waves = workgroup.div_ceil(self.wave).max(1);
        let by_slots = self.vector_registers.max_waves * self.simds() / waves;
        let by_lds = self.simds_lds_bytes.checked_div(lds_bytes).unwrap_or(by_slots);
        let groups = by_slots.min(by_lds);
        self.vector_registers.waves(registers).min((groups * waves).div_ceil(self.simds()))
    }

    /// SIMDs that a workgroup's waves are spread over, and that share LDS: those of a compute unit,
    /// of RDNA of a workgroup processor, the partitions of a multiprocessor.
    pub fn simds(&self) -> u32 {
        4
    }

    /// Groups of 16 lanes in a wave.
    pub fn groups(&self) -> u32 {
        self.wave / 16
    }

    /// How a number becomes a factor of this type.
    pub fn rounding(&self, factors: MatrixType) -> Rounding {
        match factors {
            MatrixType::F16 => Rounding::F16 { flushes: self.flushes_factors },
            MatrixType::Bf16 => Rounding::Bf16,
            MatrixType::F32 => Rounding::None,
        }
    }

    /// The matrix operation on factors of a type, where the chip has one.
    pub fn matrix_op(&self, factors: MatrixType) -> Option<&MatrixOp> {
        self.matrix_ops.iter().find(|op| op.factors == factors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody may ask for more than whole workgroups give: LLVM warns.
    #[test]
    fn workgroups_are_resident_as_a_whole() {
        let gpu = |name| GpuTarget::from_name(name).unwrap();
        assert_eq!(gpu("gfx1100").occupancy(32, 0, 160), 15);
        assert_eq!(gpu("gfx942").occupancy(32, 0, 320), 8);
        assert_eq!(gpu("gfx942").occupancy(32, 0, 3 * 64), 8);
        assert_eq!(gpu("gfx942").occupancy(128, 0, 256), 4);
        assert_eq!(gpu("gfx942").occupancy(32, 20 << 10, 256), 3);
        assert_eq!(gpu("gfx1100").occupancy(32, 20 << 10, 128), 6);
    }

    #[test]
    fn every_row_of_a_result_is_held_once() {
        use MatrixLayout::{Mfma, Mma, Wmma3, Wmma4};
        for layout in [Mfma, Wmma3, Wmma4, Mma] {
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
