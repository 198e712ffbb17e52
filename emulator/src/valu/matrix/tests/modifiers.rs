//! Modifiers, constants and registers that are not the ordinary ones.

use super::layouts::{self, Problem, noisy_wave, read_d};
use super::*;

fn expected(problem: &Problem, form: &Form) -> Vec<f64> {
    problem.product(form).iter().map(|sum| *sum as f64).collect()
}

#[test]
fn cbsz_and_abid_give_groups_of_blocks_one_of_a() {
    let mut random = Random(3);
    for (mnemonic, chip) in [
        ("v_mfma_f32_32x32x4_2b_bf16", Chip::Gfx942),
        ("v_mfma_f32_16x16x1_4b_f32", Chip::Gfx950),
        ("v_mfma_i32_4x4x4i8", Chip::Gfx90a),
    ] {
        let form = form_of(mnemonic, chip);
        let bits = [encoding::width(form.a, 0); 2];
        let all = (0..=form.blocks.ilog2()).flat_map(|cbsz| (0..1 << cbsz).map(move |a| (cbsz, a)));
        for (cbsz, abid) in all {
            let mut problem = Problem::random(form, &mut random);
            let mut wave = noisy_wave(64, &mut random);
            problem.write(form, chip, [0; 2], 0, false, &mut wave);
            run(chip, &text(form, 64, bits, &format!("cbsz:{cbsz} abid:{abid}")), &mut wave);
            let size = form.m * form.k;
            let groups = problem.a.chunks(size << cbsz);
            let one = |group: &[_]| group[abid * size..][..size].repeat(1 << cbsz);
            problem.a = groups.flat_map(one).collect();
            let found = read_d(form, &wave, D, false);
            assert!(found == expected(&problem, form), "{mnemonic} {cbsz} {abid}");
        }
    }
}

#[test]
fn blgp_permutes_the_lanes_of_b() {
    // From the ISA's table: which lane each lane of B is read from.
    let source = |blgp: usize, lane: usize| match blgp {
        1 => lane % 32,
        2 => 32 + lane % 32,
        3 => (lane + 16) % 64,
        4..=7 => 16 * (blgp - 4) + lane % 16,
        _ => lane,
    };
    let mut random = Random(4);
    for (mnemonic, chip) in [
        ("v_mfma_f32_32x32x1_2b_f32", Chip::Gfx942),
        ("v_mfma_f32_32x32x2_f32", Chip::Gfx950),
        ("v_mfma_f32_16x16x16f16", Chip::Gfx90a),
        ("v_mfma_f32_4x4x4_16b_f16", Chip::Gfx942),
    ] {
        let form = form_of(mnemonic, chip);
        let bits = [encoding::width(form.a, 0); 2];
        for blgp in 0..8 {
            let problem = Problem::random(form, &mut random);
            let mut wave = noisy_wave(64, &mut random);
            problem.write(form, chip, [0; 2], 0, false, &mut wave);
            let mut permuted = Wave::new(0, 64);
            permuted.rows.copy_from_slice(&wave.rows);
            for row in B..B + 4 {
                for lane in 0..64 {
                    permuted.rows[row].0[lane] = wave.rows[row].0[source(blgp, lane)];
                }
            }
            run(chip, &text(form, 64, bits, ""), &mut permuted);
            run(chip, &text(form, 64, bits, &format!("blgp:{blgp}")), &mut wave);
            let (found, wanted) =
                (read_d(form, &wave, D, false), read_d(form, &permuted, D, false));
            assert!(found == wanted, "{mnemonic} blgp:{blgp}");
        }
    }
}

#[test]
fn doubles_are_negated_from_gfx940_on() {
    let mut random = Random(5);
    for mnemonic in ["v_mfma_f64_16x16x4_f64", "v_mfma_f64_4x4x4_4b_f64"] {
        let form = form_of(mnemonic, Chip::Gfx942);
        for bits in 0..8 {
            let mut problem = Problem::random(form, &mut random);
            let mut wave = noisy_wave(64, &mut random);
            problem.write(form, Chip::Gfx942, [0; 2], 0, false, &mut wave);
            let neg = format!("neg:[{},{},{}]", bits & 1, bits >> 1 & 1, bits >> 2);
            run(Chip::Gfx942, &text(form, 64, [64; 2], &neg), &mut wave);
            for (matrix, bit) in [(&mut problem.a, 1), (&mut problem.b, 2), (&mut problem.c, 4)] {
                matrix.iter_mut().filter(|_| bits & bit != 0).for_each(|value| *value = -*value);
            }
            assert!(read_d(form, &wave, D, false) == expected(&problem, form), "{mnemonic} {neg}");
        }
        assert!(compile(Chip::Gfx942, 64, &text(form, 64, [64; 2], "blgp:1")).is_err());
    }
}

#[test]
fn wmma_negates_even_and_odd_elements_and_c() {
    let mut random = Random(6);
    for (mnemonic, chip) in [
        ("v_wmma_f32_16x16x16_f16", Chip::Gfx1100),
        ("v_wmma_bf16_16x16x16_bf16", Chip::Gfx1151),
        ("v_wmma_f16_16x16x16_f16", Chip::Gfx1201),
    ] {
        let form = form_of(mnemonic, chip);
        for lanes in [32, 64] {
            for bits in 0..64 {
                let bit = |at: usize| bits >> at & 1;
                let mut problem = Problem::random(form, &mut random);
                let mut wave = noisy_wave(lanes, &mut random);
                problem.write(form, chip, [0; 2], 0, false, &mut wave);
                let low = format!("neg_lo:[{},{},{}]", bit(0), bit(1), bit(2));
                let high = format!("neg_hi:[{},{},{}]", bit(3), bit(4), bit(5));
                run(chip, &text(form, lanes, [16; 2], &format!("{low} {high}")), &mut wave);
                // k's lowest bit is the half of the register in every layout.
                for (at, value) in problem.a.iter_mut().enumerate() {
                    *value *= 1 - 2 * bit(if at % 16 % 2 == 0 { 0 } else { 3 });
                }
                for (at, value) in problem.b.iter_mut().enumerate() {
                    *value *= 1 - 2 * bit(if at / 16 % 2 == 0 { 1 } else { 4 });
                }
                for value in &mut problem.c {
                    let magnitude = if bit(5) == 1 { value.abs() } else { *value };
                    *value = magnitude * (1 - 2 * bit(2));
                }
                let found = read_d(form, &wave, D, false);
                let near = layouts::near(form, &found, &expected(&problem, form));
                assert!(near, "{mnemonic} {low} {high}");
            }
        }
    }
}

#[test]
fn integers_are_unsigned_without_neg_and_clamp_stops() {
    for (chip, lanes) in [(Chip::Gfx1100, 32), (Chip::Gfx1100, 64), (Chip::Gfx1201, 32)] {
        let form = form_of("v_wmma_i32_16x16x16_iu8", chip);
        let filled = |c: u32| {
            let mut wave = Wave::new(0, lanes as u32);
            wave.rows[A..A + 4].iter_mut().for_each(|row| row.0 = [0xffff_ffff; 64]);
            wave.rows[B..B + 4].iter_mut().for_each(|row| row.0 = [0x8080_8080; 64]);
            wave.rows[C..C + 8].iter_mut().for_each(|row| row.0 = [c; 64]);
            wave
        };
        for (modifiers, c, result) in [
            ("", 5, 5 + 16 * 255 * 128),
            ("neg_lo:[1,0,0]", 5, 5 - 16 * 128),
            ("neg_lo:[0,1,0]", 5, 5 - 16 * 255 * 128),
            ("neg_lo:[1,1,0]", 5, 5 + 16 * 128),
            ("neg_lo:[1,1,0]", i32::MAX, i32::MAX.wrapping_add(16 * 128)),
            ("neg_lo:[1,1,0] clamp", i32::MAX - 1, i32::MAX),
            ("neg_lo:[1,0,0] clamp", i32::MIN + 1, i32::MIN),
            ("neg_lo:[1,0,0]", i32::MIN + 1, (i32::MIN + 1).wrapping_sub(16 * 128)),
        ] {
            let mut wave = filled(c as u32);
            run(chip, &text(form, lanes, [8; 2], modifiers), &mut wave);
            assert_eq!(wave.rows[D].0[..lanes], vec![result as u32; lanes], "{modifiers} {c}");
        }
    }
}

#[test]
fn gfx11_halves_keep_the_other_half() {
    let mut random = Random(8);
    for mnemonic in ["v_wmma_f16_16x16x16_f16", "v_wmma_bf16_16x16x16_bf16"] {
        let form = form_of(mnemonic, Chip::Gfx1100);
        for lanes in [32, 64] {
            for high in [false, true] {
                let problem = Problem::random(form, &mut random);
                let mut wave = noisy_wave(lanes, &mut random);
                problem.write(form, Chip::Gfx1100, [0; 2], 0, high, &mut wave);
                let before = wave.rows.clone();
                let modifiers = if high { "op_sel:[0,0,1]" } else { "" };
                run(Chip::Gfx1100, &text(form, lanes, [16; 2], modifiers), &mut wave);
                let found = read_d(form, &wave, D, high);
                assert!(layouts::near(form, &found, &expected(&problem, form)), "{mnemonic}");
                let other = if high { 0xffff } else { 0xffff_0000 };
                for row in D..D + 256 / lanes {
                    for lane in 0..lanes {
                        assert_eq!(wave.rows[row].0[lane] & other, before[row].0[lane] & other);
                    }
                }
            }
        }
    }
}

#[test]
fn inline_constants_of_c_have_the_bits_of_its_type() {
    let one = |mnemonic: &str, chip: Chip, lanes: usize, constant: &str| {
        let form = form_of(mnemonic, chip);
        let mut wave = Wave::new(0, lanes as u32);
        let bits = [encoding::width(form.a, 0); 2];
        let sizes = places::registers(form, lanes, bits);
        let line = text(form, lanes, bits, "").replace(&vector(C, sizes[2]), constant);
        run(chip, &line, &mut wave);
        [wave.rows[D].0[0], wave.rows[D + 1].0[0]]
    };
    let first = |mnemonic, chip, lanes, constant| one(mnemonic, chip, lanes, constant)[0];
    assert_eq!(first("v_mfma_f32_32x32x8_f16", Chip::Gfx942, 64, "1.0"), 0x3f80_0000);
    assert_eq!(first("v_mfma_f32_32x32x8f16", Chip::Gfx90a, 64, "-4.0"), 0xc080_0000);
    assert_eq!(first("v_mfma_f32_32x32x2f32", Chip::Gfx90a, 64, "0.15915494"), 0x3e22_f983);
    assert_eq!(first("v_mfma_i32_32x32x8i8", Chip::Gfx90a, 64, "-16"), -16_i32 as u32);
    assert_eq!(first("v_mfma_i32_32x32x8i8", Chip::Gfx90a, 64, "1.0"), 0x3f80_0000);
    assert_eq!(first("v_wmma_i32_16x16x16_iu8", Chip::Gfx1100, 32, "64"), 64);
    assert_eq!(first("v_wmma_f32_16x16x16_f16", Chip::Gfx1201, 32, "0.5"), 0x3f00_0000);
    // Packed halves: the constant is in both.
    assert_eq!(first("v_wmma_f16_16x16x16_f16", Chip::Gfx1201, 32, "1.0"), 0x3c00_3c00);
    assert_eq!(first("v_wmma_bf16_16x16x16_bf16", Chip::Gfx1201, 64, "1.0"), 0x3f80_3f80);
    // gfx11 writes one half, here over zero.
    assert_eq!(first("v_wmma_f16_16x16x16_f16", Chip::Gfx1100, 32, "2.0"), 0x4000);
    let double = |constant| one("v_mfma_f64_16x16x4_f64", Chip::Gfx942, 64, constant);
    assert_eq!(double("0.5"), [0, 0x3fe0_0000]);
    assert_eq!(double("1"), [1, 0], "an integer is a denormal double");
    // An integer constant of a single is a denormal, which gfx90a's halves flush.
    assert_eq!(first("v_mfma_f32_32x32x2f32", Chip::Gfx90a, 64, "1"), 1);
    assert_eq!(first("v_mfma_f32_32x32x8f16", Chip::Gfx90a, 64, "1"), 0);
}

#[test]
fn operands_may_overlap_and_lie_in_accumulation_registers() {
    let mut random = Random(9);
    let form = form_of("v_mfma_f32_32x32x8_f16", Chip::Gfx942);
    let problem = Problem::random(form, &mut random);
    let mut wave = noisy_wave(64, &mut random);
    problem.write(form, Chip::Gfx942, [0; 2], 0, false, &mut wave);
    for row in [A, A + 1, B, B + 1] {
        wave.rows[256 + row] = wave.rows[row];
    }
    for row in C..C + 16 {
        wave.rows[256 + row] = wave.rows[row];
    }
    // D begins inside of C; A and B are inside of D.
    run(Chip::Gfx942, "v_mfma_f32_32x32x8_f16 v[68:83], v[0:1], v[32:33], v[64:79]", &mut wave);
    assert!(read_d(form, &wave, 68, false) == expected(&problem, form));
    let text = "v_mfma_f32_32x32x8_f16 a[20:35], a[0:1], a[32:33], a[64:79]";
    run(Chip::Gfx942, text, &mut wave);
    assert!(read_d(form, &wave, 256 + 20, false) == expected(&problem, form));
}

#[test]
fn scales_belong_to_rows_and_runs_of_32() {
    let mut random = Random(10);
    for form in super::super::form::forms(Chip::Gfx950).filter(|form| form.scaled) {
        for select in (0..25).map(|at| [at / 5, at % 5]) {
            let bits = [encoding::width(form.a, select[0]), encoding::width(form.b, select[1])];
            let problem = Problem::random(form, &mut random);
            let mut wave = noisy_wave(64, &mut random);
            problem.write(form, Chip::Gfx950, select, 0, false, &mut wave);
            let bytes = [random.below(4) as usize, random.below(4) as usize];
            // Lane l scales row l mod M in the run l / M of 32 values of k.
            for lane in 0..64 {
                for (row, byte) in [(SCALE_A, bytes[0]), (SCALE_B, bytes[1])] {
                    store(&mut wave, row, lane, 8 * byte, 8, 124 + random.below(7));
                }
            }
            let modifiers = format!(
                "op_sel:[{},{},0] op_sel_hi:[{},{},0] cbsz:{} blgp:{}",
                bytes[0] & 1,
                bytes[1] & 1,
                bytes[0] >> 1,
                bytes[1] >> 1,
                select[0],
                select[1],
            );
            run(Chip::Gfx950, &text(form, 64, bits, &modifiers), &mut wave);
            let scale = |row: usize, byte: usize, outer: usize, k: usize| {
                let lane = outer + form.m * (k / 32);
                2_f64.powi(load(&wave, row, lane, 8 * byte, 8) as i32 - 127)
            };
            let d = read_d(form, &wave, D, false);
            for (at, found) in d.iter().enumerate() {
                let (i, j) = (at / form.n, at % form.n);
                let terms = (0..form.k).map(|k| {
                    let (a, b) = (problem.a[i * form.k + k], problem.b[k * form.n + j]);
                    f64::from(a * b)
                        * scale(SCALE_A, bytes[0], i, k)
                        * scale(SCALE_B, bytes[1], j, k)
                });
                let sum = f64::from(problem.c[at]) + terms.sum::<f64>();
                assert_eq!(*found, sum, "{} {modifiers} at {i},{j}", form.mnemonic);
            }
        }
    }
}

#[test]
fn a_scale_of_255_is_not_a_number() {
    let form = form_of("v_mfma_scale_f32_16x16x128_f8f6f4", Chip::Gfx950);
    let mut wave = Wave::new(0, 64);
    wave.rows[SCALE_A].0 = [127; 64];
    wave.rows[SCALE_B].0 = [127; 64];
    wave.rows[SCALE_A].0[16 + 5] = 255;
    run(Chip::Gfx950, &text(form, 64, [8; 2], ""), &mut wave);
    for (at, value) in read_d(form, &wave, D, false).iter().enumerate() {
        assert_eq!(value.is_nan(), at / 16 == 5, "row 5 only");
    }
}

#[test]
fn the_mode_register_flushes_singles_and_bounds_results() {
    use crate::wave::mode;
    let filled = |a: u32, b: u32, c: u32, mode: u32| {
        let mut wave = Wave::new(0, 64);
        wave.mode = mode;
        for (first, value) in [(A, a), (B, b), (C, c)] {
            wave.rows[first..first + 16].iter_mut().for_each(|row| row.0 = [value; 64]);
        }
        wave
    };
    let first = |text: &str, mut wave: Wave| {
        run(Chip::Gfx942, text, &mut wave);
        wave.rows[D].0[0]
    };
    // Four products of 2^-127 and 2: 2^-124, or nothing if the denormal is flushed.
    let single = "v_mfma_f32_16x16x4_f32 v[128:131], v0, v32, v[64:67]";
    let tiny = |mode| first(single, filled(0x0040_0000, 0x4000_0000, 0, mode));
    assert_eq!(tiny(mode::DENORM), 0x0180_0000);
    assert_eq!(tiny(0), 0);
    let half = "v_mfma_f32_16x16x16_f16 v[128:131], v[0:1], v[32:33], v[64:67]";
    let brain = "v_mfma_f32_16x16x16_bf16 v[128:131], v[0:1], v[32:33], v[64:67]";
    let large = |mode| first(brain, filled(0x7f00_7f00, 0x4000_4000, 0, mode));
    assert_eq!(large(mode::DENORM), 0x7f80_0000);
    assert_eq!(large(mode::DENORM | mode::FP16_OVFL), 0x7f7f_ffff);
    let infinite = filled(0x7c00_7c00, 0x3c00_3c00, 0, mode::FP16_OVFL);
    assert_eq!(first(half, infinite), 0x7f80_0000, "an infinite operand stays");
    let byte = "v_mfma_i32_16x16x32_i8 v[128:131], v[0:1], v[32:33], v[64:67]";
    let whole = |mode| first(byte, filled(0x0101_0101, 0x0101_0101, 0x7fff_fff0, mode));
    assert_eq!(whole(0), 0x8000_0010);
    assert_eq!(whole(mode::FP16_OVFL), 0x7fff_ffff);
}

#[test]
fn what_a_form_does_not_have_is_a_fault() {
    for (chip, text) in [
        (Chip::Gfx942, "v_mfma_f32_32x32x8_f16 a[0:15], v[0:1], v[2:3], a[0:15] cbsz:1"),
        (Chip::Gfx942, "v_mfma_f32_32x32x8_f16 a[0:15], v[0:1], v[2:3], a[0:15] blgp:1"),
        (Chip::Gfx942, "v_mfma_f32_32x32x4_2b_f16 a[0:31], v[0:1], v[2:3], a[0:31] cbsz:2"),
        (Chip::Gfx942, "v_mfma_f32_16x16x4_4b_f16 a[0:15], v[0:1], v[2:3], a[0:15] cbsz:1 abid:2"),
        (Chip::Gfx942, "v_mfma_f32_32x32x4_2b_f16 a[0:31], v[0:1], v[2:3], a[0:31] abid:1"),
        (Chip::Gfx942, "v_mfma_f32_32x32x8_f16 a[0:15], v[0:3], v[2:3], a[0:15]"),
        (Chip::Gfx942, "v_mfma_f32_32x32x8_f16 a[0:15], v[0:1], v[2:3], s[0:15]"),
        (Chip::Gfx942, "v_mfma_f32_32x32x8_f16 a[0:15], v[0:1], v[2:3]"),
        (Chip::Gfx950, "v_mfma_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[12:19], v[0:3] cbsz:5"),
        (Chip::Gfx950, "v_mfma_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[12:19], v[0:3] cbsz:4"),
        (Chip::Gfx1100, "v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7] clamp"),
        (Chip::Gfx1100, "v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7] op_sel:[0,0,1]"),
        (Chip::Gfx1201, "v_swmmac_i32_16x16x64_iu4 v[0:7], v[8:9], v[16:19], v24 index_key:1"),
    ] {
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let fault = compile(chip, lanes, text).err();
        assert_eq!(fault, Some(Fault::Unknown(asm::parse(text).text)), "{text}");
    }
}
