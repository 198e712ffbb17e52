//! The six chips and what differs between them.

use std::fmt;

/// A GPU that the emulator can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chip {
    /// MI200: CDNA 2.
    Gfx90a,
    /// MI300: CDNA 3.
    Gfx942,
    /// MI350: CDNA 4.
    Gfx950,
    /// RX 7900: RDNA 3.
    Gfx1100,
    /// Strix Halo: RDNA 3.5.
    Gfx1151,
    /// RX 9070: RDNA 4.
    Gfx1201,
}

impl Chip {
    /// Every chip.
    pub const ALL: [Chip; 6] =
        [Chip::Gfx90a, Chip::Gfx942, Chip::Gfx950, Chip::Gfx1100, Chip::Gfx1151, Chip::Gfx1201];

    /// LLVM's name of the processor.
    pub fn name(self) -> &'static str {
        match self {
            Chip::Gfx90a => "gfx90a",
            Chip::Gfx942 => "gfx942",
            Chip::Gfx950 => "gfx950",
            Chip::Gfx1100 => "gfx1100",
            Chip::Gfx1151 => "gfx1151",
            Chip::Gfx1201 => "gfx1201",
        }
    }

    /// The chip of LLVM's processor name.
    pub fn from_name(name: &str) -> Option<Chip> {
        Chip::ALL.into_iter().find(|chip| chip.name() == name)
    }

    /// A data-centre chip: 64-lane waves, MFMA, accumulation registers.
    pub fn is_cdna(self) -> bool {
        matches!(self, Chip::Gfx90a | Chip::Gfx942 | Chip::Gfx950)
    }

    /// A graphics chip: 32-lane waves (64 on request), WMMA.
    pub fn is_rdna(self) -> bool {
        !self.is_cdna()
    }

    /// Compute units; on RDNA two of them make a work-group processor.
    pub fn compute_units(self) -> u32 {
        match self {
            Chip::Gfx90a => 104,
            Chip::Gfx942 => 304,
            Chip::Gfx950 => 256,
            Chip::Gfx1100 => 96,
            Chip::Gfx1151 => 40,
            Chip::Gfx1201 => 56,
        }
    }

    /// Bytes of LDS that one workgroup may have.
    pub fn lds_bytes(self) -> u32 {
        if self == Chip::Gfx950 { 160 << 10 } else { 64 << 10 }
    }

    /// fp8 and bf8 with a single zero and no infinity (FNUZ); elsewhere they are OCP's.
    pub fn has_fnuz_fp8(self) -> bool {
        self == Chip::Gfx942
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
