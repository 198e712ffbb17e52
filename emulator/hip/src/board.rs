//! What the six GPUs say about themselves.
//!
//! Sources: AMD's data sheets for memory, clocks and caches; ROCm's runtime for what is the same on
//! every GPU. Nothing here changes a result.

use waveloom_emulator::Chip;

/// A GPU as a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// Marketing name.
    pub name: &'static str,
    /// Processor with its feature flags, as the runtime spells it.
    pub target: &'static str,
    /// Bytes of device memory.
    pub memory: u64,
    /// Bytes of L2 (of one die, where there are several).
    pub l2_bytes: i32,
    /// Peak clock in kHz.
    pub clock: i32,
    /// Memory clock in kHz.
    pub memory_clock: i32,
    /// Width of the memory bus in bits.
    pub bus_bits: i32,
    /// Shares the host's memory.
    pub integrated: bool,
    /// Memory with error correction.
    pub ecc: bool,
    /// Dies that share a grid.
    pub xccs: i32,
}

const GIB: u64 = 1 << 30;
const MIB: i32 = 1 << 20;

/// The board with a chip.
pub fn board(chip: Chip) -> Board {
    let cdna = Board {
        name: "",
        target: "",
        memory: 0,
        l2_bytes: 4 * MIB,
        clock: 0,
        memory_clock: 0,
        bus_bits: 8192,
        integrated: false,
        ecc: true,
        xccs: 8,
    };
    let rdna = Board { ecc: false, xccs: 1, ..cdna };
    match chip {
        Chip::Gfx90a => Board {
            name: "AMD Instinct MI250X",
            target: "gfx90a:sramecc+:xnack-",
            memory: 64 * GIB,
            l2_bytes: 8 * MIB,
            clock: 1_700_000,
            memory_clock: 1_600_000,
            bus_bits: 4096,
            xccs: 1,
            ..cdna
        },
        Chip::Gfx942 => Board {
            name: "AMD Instinct MI300X",
            target: "gfx942:sramecc+:xnack-",
            memory: 192 * GIB,
            clock: 2_100_000,
            memory_clock: 1_300_000,
            ..cdna
        },
        Chip::Gfx950 => Board {
            name: "AMD Instinct MI355X",
            target: "gfx950:sramecc+:xnack-",
            memory: 288 * GIB,
            clock: 2_400_000,
            memory_clock: 2_000_000,
            ..cdna
        },
        Chip::Gfx1100 => Board {
            name: "AMD Radeon RX 7900 XTX",
            target: "gfx1100",
            memory: 24 * GIB,
            l2_bytes: 6 * MIB,
            clock: 2_500_000,
            memory_clock: 1_250_000,
            bus_bits: 384,
            ..rdna
        },
        Chip::Gfx1151 => Board {
            name: "AMD Radeon 8060S Graphics",
            target: "gfx1151",
            memory: 96 * GIB,
            l2_bytes: 2 * MIB,
            clock: 2_900_000,
            memory_clock: 1_000_000,
            bus_bits: 256,
            integrated: true,
            ..rdna
        },
        Chip::Gfx1201 => Board {
            name: "AMD Radeon RX 9070",
            target: "gfx1201",
            memory: 16 * GIB,
            l2_bytes: 8 * MIB,
            clock: 2_520_000,
            memory_clock: 1_250_000,
            bus_bits: 256,
            ..rdna
        },
    }
}

/// What HIP calls a multiprocessor: a compute unit of CDNA, a workgroup processor of RDNA, which
/// has two.
pub fn compute_units_per_multiprocessor(chip: Chip) -> u32 {
    if chip.is_cdna() { 1 } else { 2 }
}

/// Multiprocessors of a chip.
pub fn multiprocessors(chip: Chip) -> u32 {
    chip.compute_units() / compute_units_per_multiprocessor(chip)
}

/// Lanes of a wave, as HIP reports them.
pub fn warp_size(chip: Chip) -> u32 {
    if chip.is_cdna() { 64 } else { 32 }
}

/// Version of the graphics core and its stepping: 9, 4 and 2 for gfx942. LLVM's name of the
/// processor spells them, the last two as single hexadecimal digits.
pub fn version(chip: Chip) -> [i32; 3] {
    let digits = chip.name().trim_start_matches("gfx");
    let (major, rest) = digits.split_at(digits.len().saturating_sub(2));
    let number = |text: &str| i32::from_str_radix(text, 16).unwrap_or(0);
    [major.parse().unwrap_or(0), number(&rest[..1]), number(&rest[1..])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(version(Chip::Gfx90a), [9, 0, 10]);
        assert_eq!(version(Chip::Gfx942), [9, 4, 2]);
        assert_eq!(version(Chip::Gfx1151), [11, 5, 1]);
        assert_eq!(version(Chip::Gfx1201), [12, 0, 1]);
    }

    #[test]
    fn targets_begin_with_the_processor() {
        for chip in Chip::ALL {
            assert_eq!(board(chip).target.split(':').next(), Some(chip.name()));
        }
    }
}
