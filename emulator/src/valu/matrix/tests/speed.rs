//! How fast matrix instructions are. Run with `cargo test --release matrix_speed -- --ignored
//! --nocapture`.

use std::time::Instant;

use super::layouts::{Problem, noisy_wave};
use super::*;

#[test]
#[ignore = "prints times, asserts nothing"]
fn matrix_speed() {
    let cases = [
        ("v_mfma_f32_32x32x8f16", Chip::Gfx90a, 64),
        ("v_mfma_f32_32x32x8bf16_1k", Chip::Gfx90a, 64),
        ("v_mfma_f32_32x32x2f32", Chip::Gfx90a, 64),
        ("v_mfma_f32_32x32x8_f16", Chip::Gfx942, 64),
        ("v_mfma_f32_32x32x8_bf16", Chip::Gfx942, 64),
        ("v_mfma_f32_16x16x16_f16", Chip::Gfx942, 64),
        ("v_mfma_f32_16x16x16_bf16", Chip::Gfx942, 64),
        ("v_mfma_f32_16x16x32_fp8_fp8", Chip::Gfx942, 64),
        ("v_mfma_f32_32x32x16_fp8_fp8", Chip::Gfx942, 64),
        ("v_mfma_i32_32x32x16_i8", Chip::Gfx942, 64),
        ("v_mfma_f64_16x16x4_f64", Chip::Gfx942, 64),
        ("v_mfma_f32_4x4x4_16b_f16", Chip::Gfx942, 64),
        ("v_mfma_f32_16x16x32_bf16", Chip::Gfx950, 64),
        ("v_mfma_f32_32x32x16_bf16", Chip::Gfx950, 64),
        ("v_mfma_scale_f32_16x16x128_f8f6f4", Chip::Gfx950, 64),
        ("v_smfmac_f32_16x16x64_bf16", Chip::Gfx950, 64),
        ("v_wmma_f32_16x16x16_bf16", Chip::Gfx1100, 32),
        ("v_wmma_i32_16x16x16_iu8", Chip::Gfx1100, 32),
        ("v_wmma_f32_16x16x16_bf16", Chip::Gfx1201, 32),
        ("v_wmma_f32_16x16x16_fp8_fp8", Chip::Gfx1201, 32),
    ];
    let mut random = Random(1);
    for (mnemonic, chip, lanes) in cases {
        let form = form_of(mnemonic, chip);
        let mut wave = noisy_wave(lanes, &mut random);
        Problem::random(form, &mut random).write(form, chip, [0; 2], 0, false, &mut wave);
        wave.rows[SCALE_A].0 = [127; 64];
        wave.rows[SCALE_B].0 = [127; 64];
        let bits = [encoding::width(form.a, 0), encoding::width(form.b, 0)];
        let exec = compile(chip, lanes, &text(form, lanes, bits, "")).expect("known");
        let memory = Arc::new(Memory::reserve(1 << 16).expect("address space"));
        let mut group = Group::new(chip, 0, memory, [0; 3], 1);
        let count = 200_000_000 / form.operations();
        let start = Instant::now();
        for _ in 0..count {
            exec(&mut wave, &mut group).expect("no fault");
        }
        let seconds = start.elapsed().as_secs_f64();
        let rate = (count * form.operations()) as f64 / seconds / 1e9;
        println!(
            "{chip:8} {mnemonic:36} {rate:6.1} GFLOP/s {:7.0} ns",
            seconds / count as f64 * 1e9
        );
    }
}
