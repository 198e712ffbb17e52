//! The table of matrix instructions: shape, types and the arithmetic of each chip.

use crate::Chip;

/// What the elements of a matrix are, as far as the mnemonic says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// IEEE double.
    F64,
    /// IEEE single.
    F32,
    /// Single of which the product uses the 19 high bits.
    Xf32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed byte.
    I8,
    /// Byte; a modifier says whether it is signed.
    Iu8,
    /// Four bits; a modifier says whether they are signed.
    Iu4,
    /// 32-bit integer.
    I32,
    /// 8-bit float with 4 bits of exponent; FNUZ or OCP by chip.
    Fp8,
    /// 8-bit float with 5 bits of exponent; FNUZ or OCP by chip.
    Bf8,
    /// 8-, 6- or 4-bit float; a modifier says which.
    F8f6f4,
}

/// How the matrices lie in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `v_mfma` and `v_smfmac` of CDNA.
    Mfma,
    /// `v_wmma` of gfx11.
    Wmma11,
    /// `v_wmma` and `v_swmmac` of gfx12.
    Wmma12,
}

/// How sums are formed; the module's documentation defines each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// A chain of fused multiply-adds in the result's precision.
    Chain,
    /// CDNA 2: pairwise sums of this many products, denormals flushed.
    Flushed(usize),
    /// CDNA 3: this many products, cut to 24 bits below the largest.
    Truncated(usize),
    /// CDNA 3, 8-bit floats: likewise 16 at a time, for even and odd products apart.
    Interleaved,
    /// RDNA 3: two products at a time with C, cut to 26 bits below the largest.
    Pairs,
    /// RDNA 4: two pairs of products, each cut to 24 bits below its larger, with C.
    Quads,
    /// Sums in double precision, rounded once.
    Wide,
    /// Integers, exactly.
    Integer,
}

/// A matrix instruction: D = A (m×k) · B (k×n) + C (m×n), `blocks` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Mnemonic, as LLVM prints it.
    pub mnemonic: &'static str,
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B. A sparse A stores half of them.
    pub k: usize,
    /// Independent products.
    pub blocks: usize,
    /// Elements of A.
    pub a: Type,
    /// Elements of B.
    pub b: Type,
    /// Elements of C and D.
    pub c: Type,
    /// Two of every four elements of A's rows are stored.
    pub sparse: bool,
    /// E8M0 scales come with A and B.
    pub scaled: bool,
    /// How the matrices lie in registers.
    pub family: Family,
    chips: &'static [Chip],
}

impl Form {
    /// Multiplications and additions of one execution.
    pub fn operations(&self) -> u64 {
        (2 * self.m * self.n * self.k * self.blocks) as u64
    }

    /// Columns of A that are stored.
    pub fn stored_k(&self) -> usize {
        if self.sparse { self.k / 2 } else { self.k }
    }

    /// How a chip forms the sums.
    pub fn arithmetic(&self, chip: Chip) -> Arithmetic {
        match (self.a, chip, self.family) {
            (Type::I8 | Type::Iu8 | Type::Iu4, ..) => Arithmetic::Integer,
            (Type::F64 | Type::F32, ..) => Arithmetic::Chain,
            _ if self.sparse => Arithmetic::Wide,
            (Type::F16 | Type::Bf16, _, Family::Wmma11) => Arithmetic::Pairs,
            (Type::F16 | Type::Bf16, _, Family::Wmma12) => Arithmetic::Quads,
            (Type::Bf16, Chip::Gfx90a, _) if !self.mnemonic.ends_with("_1k") => {
                Arithmetic::Flushed(2)
            }
            (_, Chip::Gfx90a, _) => Arithmetic::Flushed(4),
            (Type::Xf32, Chip::Gfx942, _) => Arithmetic::Truncated(4),
            (Type::F16 | Type::Bf16, Chip::Gfx942, _) => Arithmetic::Truncated(self.k.min(8)),
            (Type::Fp8 | Type::Bf8, Chip::Gfx942, _) => Arithmetic::Interleaved,
            _ => Arithmetic::Wide,
        }
    }

    /// Whether the instruction obeys `cbsz` and `abid`, which broadcast blocks of A.
    pub fn broadcasts_a(&self) -> bool {
        self.family == Family::Mfma && self.blocks > 1 && self.c != Type::F64
    }

    /// Whether it obeys `blgp`, which permutes the lanes of B.
    pub fn permutes_b(&self, chip: Chip) -> bool {
        let every_form = chip == Chip::Gfx90a || self.a == Type::F32 || self.blocks > 1;
        self.family == Family::Mfma && !self.sparse && self.c != Type::F64 && every_form
    }
}

/// The forms that a chip has.
pub fn forms(chip: Chip) -> impl Iterator<Item = &'static Form> {
    FORMS.iter().filter(move |form| form.chips.contains(&chip))
}

/// The form of a mnemonic on a chip.
pub fn find(mnemonic: &str, chip: Chip) -> Option<&'static Form> {
    forms(chip).find(|form| form.mnemonic == mnemonic)
}

const CDNA2: &[Chip] = &[Chip::Gfx90a];
const CDNA3: &[Chip] = &[Chip::Gfx942, Chip::Gfx950];
const GFX942: &[Chip] = &[Chip::Gfx942];
const GFX950: &[Chip] = &[Chip::Gfx950];
const RDNA3: &[Chip] = &[Chip::Gfx1100, Chip::Gfx1151];
const RDNA4: &[Chip] = &[Chip::Gfx1201];

const fn dense(
    chips: &'static [Chip],
    mnemonic: &'static str,
    [m, n, k, blocks]: [usize; 4],
    [a, b, c]: [Type; 3],
) -> Form {
    let (sparse, scaled, family) = (false, false, Family::Mfma);
    Form { mnemonic, m, n, k, blocks, a, b, c, sparse, scaled, family, chips }
}

const fn sparse(mnemonic: &'static str, size: [usize; 3], types: [Type; 3]) -> Form {
    let [m, n, k] = size;
    // The forms with the operands twice as deep came with gfx950.
    let deep = m * k == if matches!(types[0], Type::F16 | Type::Bf16) { 1024 } else { 2048 };
    let chips = if deep { GFX950 } else { CDNA3 };
    Form { sparse: true, ..dense(chips, mnemonic, [m, n, k, 1], types) }
}

const fn scaled(mnemonic: &'static str, size: [usize; 4], is_scaled: bool) -> Form {
    let types = [Type::F8f6f4, Type::F8f6f4, Type::F32];
    Form { scaled: is_scaled, ..dense(GFX950, mnemonic, size, types) }
}

const fn wmma11(mnemonic: &'static str, a: Type, c: Type) -> Form {
    let family = Family::Wmma11;
    Form { family, ..dense(RDNA3, mnemonic, [16, 16, 16, 1], [a, a, c]) }
}

const fn wmma12(mnemonic: &'static str, k: usize, types: [Type; 3]) -> Form {
    let family = Family::Wmma12;
    Form { family, ..dense(RDNA4, mnemonic, [16, 16, k, 1], types) }
}

const fn swmmac(mnemonic: &'static str, k: usize, types: [Type; 3]) -> Form {
    Form { sparse: true, ..wmma12(mnemonic, k, types) }
}

use Type::{Bf8, Bf16, F16, F32, F64, Fp8, I8, I32, Iu4, Iu8, Xf32};

const SINGLE: [Type; 3] = [F32, F32, F32];
const XSINGLE: [Type; 3] = [Xf32, Xf32, F32];
const HALF: [Type; 3] = [F16, F16, F32];
const BFLOAT: [Type; 3] = [Bf16, Bf16, F32];
const BYTE: [Type; 3] = [I8, I8, I32];
const DOUBLE: [Type; 3] = [F64, F64, F64];
const FP8_FP8: [Type; 3] = [Fp8, Fp8, F32];
const FP8_BF8: [Type; 3] = [Fp8, Bf8, F32];
const BF8_FP8: [Type; 3] = [Bf8, Fp8, F32];
const BF8_BF8: [Type; 3] = [Bf8, Bf8, F32];

/// Every matrix instruction of the six chips. Shapes are those of AMD's instruction set documents.
#[rustfmt::skip]
static FORMS: &[Form] = &[
    // CDNA 2 spells the blocks out only in its documents.
    dense(CDNA2, "v_mfma_f32_32x32x1f32", [32, 32, 1, 2], SINGLE),
    dense(CDNA2, "v_mfma_f32_16x16x1f32", [16, 16, 1, 4], SINGLE),
    dense(CDNA2, "v_mfma_f32_4x4x1f32", [4, 4, 1, 16], SINGLE),
    dense(CDNA2, "v_mfma_f32_32x32x2f32", [32, 32, 2, 1], SINGLE),
    dense(CDNA2, "v_mfma_f32_16x16x4f32", [16, 16, 4, 1], SINGLE),
    dense(CDNA2, "v_mfma_f32_32x32x4f16", [32, 32, 4, 2], HALF),
    dense(CDNA2, "v_mfma_f32_16x16x4f16", [16, 16, 4, 4], HALF),
    dense(CDNA2, "v_mfma_f32_4x4x4f16", [4, 4, 4, 16], HALF),
    dense(CDNA2, "v_mfma_f32_32x32x8f16", [32, 32, 8, 1], HALF),
    dense(CDNA2, "v_mfma_f32_16x16x16f16", [16, 16, 16, 1], HALF),
    dense(CDNA2, "v_mfma_i32_32x32x4i8", [32, 32, 4, 2], BYTE),
    dense(CDNA2, "v_mfma_i32_16x16x4i8", [16, 16, 4, 4], BYTE),
    dense(CDNA2, "v_mfma_i32_4x4x4i8", [4, 4, 4, 16], BYTE),
    dense(CDNA2, "v_mfma_i32_32x32x8i8", [32, 32, 8, 1], BYTE),
    dense(CDNA2, "v_mfma_i32_16x16x16i8", [16, 16, 16, 1], BYTE),
    dense(CDNA2, "v_mfma_f32_32x32x4bf16_1k", [32, 32, 4, 2], BFLOAT),
    dense(CDNA2, "v_mfma_f32_16x16x4bf16_1k", [16, 16, 4, 4], BFLOAT),
    dense(CDNA2, "v_mfma_f32_4x4x4bf16_1k", [4, 4, 4, 16], BFLOAT),
    dense(CDNA2, "v_mfma_f32_32x32x8bf16_1k", [32, 32, 8, 1], BFLOAT),
    dense(CDNA2, "v_mfma_f32_16x16x16bf16_1k", [16, 16, 16, 1], BFLOAT),
    dense(CDNA2, "v_mfma_f32_32x32x2bf16", [32, 32, 2, 2], BFLOAT),
    dense(CDNA2, "v_mfma_f32_16x16x2bf16", [16, 16, 2, 4], BFLOAT),
    dense(CDNA2, "v_mfma_f32_4x4x2bf16", [4, 4, 2, 16], BFLOAT),
    dense(CDNA2, "v_mfma_f32_32x32x4bf16", [32, 32, 4, 1], BFLOAT),
    dense(CDNA2, "v_mfma_f32_16x16x8bf16", [16, 16, 8, 1], BFLOAT),
    dense(CDNA2, "v_mfma_f64_16x16x4f64", [16, 16, 4, 1], DOUBLE),
    dense(CDNA2, "v_mfma_f64_4x4x4f64", [4, 4, 4, 4], DOUBLE),
    // CDNA 3 and, but for xf32, CDNA 4.
    dense(GFX942, "v_mfma_f32_16x16x8_xf32", [16, 16, 8, 1], XSINGLE),
    dense(GFX942, "v_mfma_f32_32x32x4_xf32", [32, 32, 4, 1], XSINGLE),
    dense(CDNA3, "v_mfma_f32_32x32x1_2b_f32", [32, 32, 1, 2], SINGLE),
    dense(CDNA3, "v_mfma_f32_16x16x1_4b_f32", [16, 16, 1, 4], SINGLE),
    dense(CDNA3, "v_mfma_f32_4x4x1_16b_f32", [4, 4, 1, 16], SINGLE),
    dense(CDNA3, "v_mfma_f32_32x32x2_f32", [32, 32, 2, 1], SINGLE),
    dense(CDNA3, "v_mfma_f32_16x16x4_f32", [16, 16, 4, 1], SINGLE),
    dense(CDNA3, "v_mfma_f32_32x32x4_2b_f16", [32, 32, 4, 2], HALF),
    dense(CDNA3, "v_mfma_f32_16x16x4_4b_f16", [16, 16, 4, 4], HALF),
    dense(CDNA3, "v_mfma_f32_4x4x4_16b_f16", [4, 4, 4, 16], HALF),
    dense(CDNA3, "v_mfma_f32_32x32x8_f16", [32, 32, 8, 1], HALF),
    dense(CDNA3, "v_mfma_f32_16x16x16_f16", [16, 16, 16, 1], HALF),
    dense(CDNA3, "v_mfma_i32_32x32x4_2b_i8", [32, 32, 4, 2], BYTE),
    dense(CDNA3, "v_mfma_i32_16x16x4_4b_i8", [16, 16, 4, 4], BYTE),
    dense(CDNA3, "v_mfma_i32_4x4x4_16b_i8", [4, 4, 4, 16], BYTE),
    dense(CDNA3, "v_mfma_i32_32x32x16_i8", [32, 32, 16, 1], BYTE),
    dense(CDNA3, "v_mfma_i32_16x16x32_i8", [16, 16, 32, 1], BYTE),
    dense(CDNA3, "v_mfma_f32_32x32x4_2b_bf16", [32, 32, 4, 2], BFLOAT),
    dense(CDNA3, "v_mfma_f32_16x16x4_4b_bf16", [16, 16, 4, 4], BFLOAT),
    dense(CDNA3, "v_mfma_f32_4x4x4_16b_bf16", [4, 4, 4, 16], BFLOAT),
    dense(CDNA3, "v_mfma_f32_32x32x8_bf16", [32, 32, 8, 1], BFLOAT),
    dense(CDNA3, "v_mfma_f32_16x16x16_bf16", [16, 16, 16, 1], BFLOAT),
    dense(CDNA3, "v_mfma_f64_16x16x4_f64", [16, 16, 4, 1], DOUBLE),
    dense(CDNA3, "v_mfma_f64_4x4x4_4b_f64", [4, 4, 4, 4], DOUBLE),
    dense(CDNA3, "v_mfma_f32_16x16x32_bf8_bf8", [16, 16, 32, 1], BF8_BF8),
    dense(CDNA3, "v_mfma_f32_16x16x32_bf8_fp8", [16, 16, 32, 1], BF8_FP8),
    dense(CDNA3, "v_mfma_f32_16x16x32_fp8_bf8", [16, 16, 32, 1], FP8_BF8),
    dense(CDNA3, "v_mfma_f32_16x16x32_fp8_fp8", [16, 16, 32, 1], FP8_FP8),
    dense(CDNA3, "v_mfma_f32_32x32x16_bf8_bf8", [32, 32, 16, 1], BF8_BF8),
    dense(CDNA3, "v_mfma_f32_32x32x16_bf8_fp8", [32, 32, 16, 1], BF8_FP8),
    dense(CDNA3, "v_mfma_f32_32x32x16_fp8_bf8", [32, 32, 16, 1], FP8_BF8),
    dense(CDNA3, "v_mfma_f32_32x32x16_fp8_fp8", [32, 32, 16, 1], FP8_FP8),
    // CDNA 4.
    dense(GFX950, "v_mfma_f32_16x16x32_f16", [16, 16, 32, 1], HALF),
    dense(GFX950, "v_mfma_f32_32x32x16_f16", [32, 32, 16, 1], HALF),
    dense(GFX950, "v_mfma_f32_16x16x32_bf16", [16, 16, 32, 1], BFLOAT),
    dense(GFX950, "v_mfma_f32_32x32x16_bf16", [32, 32, 16, 1], BFLOAT),
    dense(GFX950, "v_mfma_i32_16x16x64_i8", [16, 16, 64, 1], BYTE),
    dense(GFX950, "v_mfma_i32_32x32x32_i8", [32, 32, 32, 1], BYTE),
    scaled("v_mfma_f32_16x16x128_f8f6f4", [16, 16, 128, 1], false),
    scaled("v_mfma_f32_32x32x64_f8f6f4", [32, 32, 64, 1], false),
    scaled("v_mfma_scale_f32_16x16x128_f8f6f4", [16, 16, 128, 1], true),
    scaled("v_mfma_scale_f32_32x32x64_f8f6f4", [32, 32, 64, 1], true),
    // Sparse, CDNA 3 and 4.
    sparse("v_smfmac_f32_16x16x32_f16", [16, 16, 32], HALF),
    sparse("v_smfmac_f32_32x32x16_f16", [32, 32, 16], HALF),
    sparse("v_smfmac_f32_16x16x32_bf16", [16, 16, 32], BFLOAT),
    sparse("v_smfmac_f32_32x32x16_bf16", [32, 32, 16], BFLOAT),
    sparse("v_smfmac_i32_16x16x64_i8", [16, 16, 64], BYTE),
    sparse("v_smfmac_i32_32x32x32_i8", [32, 32, 32], BYTE),
    sparse("v_smfmac_f32_16x16x64_bf8_bf8", [16, 16, 64], BF8_BF8),
    sparse("v_smfmac_f32_16x16x64_bf8_fp8", [16, 16, 64], BF8_FP8),
    sparse("v_smfmac_f32_16x16x64_fp8_bf8", [16, 16, 64], FP8_BF8),
    sparse("v_smfmac_f32_16x16x64_fp8_fp8", [16, 16, 64], FP8_FP8),
    sparse("v_smfmac_f32_32x32x32_bf8_bf8", [32, 32, 32], BF8_BF8),
    sparse("v_smfmac_f32_32x32x32_bf8_fp8", [32, 32, 32], BF8_FP8),
    sparse("v_smfmac_f32_32x32x32_fp8_bf8", [32, 32, 32], FP8_BF8),
    sparse("v_smfmac_f32_32x32x32_fp8_fp8", [32, 32, 32], FP8_FP8),
    sparse("v_smfmac_f32_16x16x64_f16", [16, 16, 64], HALF),
    sparse("v_smfmac_f32_32x32x32_f16", [32, 32, 32], HALF),
    sparse("v_smfmac_f32_16x16x64_bf16", [16, 16, 64], BFLOAT),
    sparse("v_smfmac_f32_32x32x32_bf16", [32, 32, 32], BFLOAT),
    sparse("v_smfmac_i32_16x16x128_i8", [16, 16, 128], BYTE),
    sparse("v_smfmac_i32_32x32x64_i8", [32, 32, 64], BYTE),
    sparse("v_smfmac_f32_16x16x128_bf8_bf8", [16, 16, 128], BF8_BF8),
    sparse("v_smfmac_f32_16x16x128_bf8_fp8", [16, 16, 128], BF8_FP8),
    sparse("v_smfmac_f32_16x16x128_fp8_bf8", [16, 16, 128], FP8_BF8),
    sparse("v_smfmac_f32_16x16x128_fp8_fp8", [16, 16, 128], FP8_FP8),
    sparse("v_smfmac_f32_32x32x64_bf8_bf8", [32, 32, 64], BF8_BF8),
    sparse("v_smfmac_f32_32x32x64_bf8_fp8", [32, 32, 64], BF8_FP8),
    sparse("v_smfmac_f32_32x32x64_fp8_bf8", [32, 32, 64], FP8_BF8),
    sparse("v_smfmac_f32_32x32x64_fp8_fp8", [32, 32, 64], FP8_FP8),
    // RDNA 3.
    wmma11("v_wmma_f32_16x16x16_f16", F16, F32),
    wmma11("v_wmma_f32_16x16x16_bf16", Bf16, F32),
    wmma11("v_wmma_f16_16x16x16_f16", F16, F16),
    wmma11("v_wmma_bf16_16x16x16_bf16", Bf16, Bf16),
    wmma11("v_wmma_i32_16x16x16_iu8", Iu8, I32),
    wmma11("v_wmma_i32_16x16x16_iu4", Iu4, I32),
    // RDNA 4.
    wmma12("v_wmma_f32_16x16x16_f16", 16, HALF),
    wmma12("v_wmma_f32_16x16x16_bf16", 16, BFLOAT),
    wmma12("v_wmma_f16_16x16x16_f16", 16, [F16, F16, F16]),
    wmma12("v_wmma_bf16_16x16x16_bf16", 16, [Bf16, Bf16, Bf16]),
    wmma12("v_wmma_i32_16x16x16_iu8", 16, [Iu8, Iu8, I32]),
    wmma12("v_wmma_i32_16x16x16_iu4", 16, [Iu4, Iu4, I32]),
    wmma12("v_wmma_i32_16x16x32_iu4", 32, [Iu4, Iu4, I32]),
    wmma12("v_wmma_f32_16x16x16_fp8_fp8", 16, FP8_FP8),
    wmma12("v_wmma_f32_16x16x16_fp8_bf8", 16, FP8_BF8),
    wmma12("v_wmma_f32_16x16x16_bf8_fp8", 16, BF8_FP8),
    wmma12("v_wmma_f32_16x16x16_bf8_bf8", 16, BF8_BF8),
    swmmac("v_swmmac_f32_16x16x32_f16", 32, HALF),
    swmmac("v_swmmac_f32_16x16x32_bf16", 32, BFLOAT),
    swmmac("v_swmmac_f16_16x16x32_f16", 32, [F16, F16, F16]),
    swmmac("v_swmmac_bf16_16x16x32_bf16", 32, [Bf16, Bf16, Bf16]),
    swmmac("v_swmmac_i32_16x16x32_iu8", 32, [Iu8, Iu8, I32]),
    swmmac("v_swmmac_i32_16x16x32_iu4", 32, [Iu4, Iu4, I32]),
    swmmac("v_swmmac_i32_16x16x64_iu4", 64, [Iu4, Iu4, I32]),
    swmmac("v_swmmac_f32_16x16x32_fp8_fp8", 32, FP8_FP8),
    swmmac("v_swmmac_f32_16x16x32_fp8_bf8", 32, FP8_BF8),
    swmmac("v_swmmac_f32_16x16x32_bf8_fp8", 32, BF8_FP8),
    swmmac("v_swmmac_f32_16x16x32_bf8_bf8", 32, BF8_BF8),
];
