//! What a 16-bit result does to the other half of its register.

use crate::Chip;

/// Operations that clear the high half on CDNA: those older than the choice of halves. The list is
/// LLVM's (`GCNSubtarget::zeroesHigh16BitsOfDest`), which was found by experiment, with its
/// conversions from f16 completed. Others, and all on RDNA, leave it alone.
const CLEARING: &[&str] = &[
    "v_cvt_f16_f32",
    "v_cvt_f16_u16",
    "v_cvt_f16_i16",
    "v_cvt_u16_f16",
    "v_cvt_i16_f16",
    "v_rcp_f16",
    "v_rsq_f16",
    "v_sqrt_f16",
    "v_log_f16",
    "v_exp_f16",
    "v_sin_f16",
    "v_cos_f16",
    "v_floor_f16",
    "v_ceil_f16",
    "v_trunc_f16",
    "v_rndne_f16",
    "v_fract_f16",
    "v_frexp_mant_f16",
    "v_frexp_exp_i16_f16",
    "v_ldexp_f16",
    "v_lshlrev_b16",
    "v_lshrrev_b16",
    "v_ashrrev_i16",
    "v_add_u16",
    "v_sub_u16",
    "v_subrev_u16",
    "v_mul_lo_u16",
    "v_add_f16",
    "v_sub_f16",
    "v_subrev_f16",
    "v_mul_f16",
    "v_max_f16",
    "v_min_f16",
    "v_max_u16",
    "v_min_u16",
    "v_max_i16",
    "v_min_i16",
    "v_mad_legacy_f16",
    "v_mad_legacy_u16",
    "v_mad_legacy_i16",
    "v_fma_legacy_f16",
    "v_div_fixup_legacy_f16",
];

/// Whether a 16-bit result clears the high half of its register.
pub fn zeroes_high(mnemonic: &str, chip: Chip) -> bool {
    chip.is_cdna() && CLEARING.contains(&mnemonic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_operations_of_cdna_clear_the_high_half() {
        assert!(zeroes_high("v_add_f16", Chip::Gfx90a));
        assert!(!zeroes_high("v_fma_f16", Chip::Gfx90a));
        assert!(!zeroes_high("v_add_f16", Chip::Gfx1100));
    }
}
