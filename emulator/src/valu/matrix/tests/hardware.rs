//! Results of gfx1100 and gfx1201 as AMD measured them: a part of the tables in
//! `emulation/rocjitsu/tests/fixtures/float_dot` of github.com/ROCm/rocm-systems.

#![allow(unsafe_code)]

use super::super::form::Type;
use super::super::kernel::{Kernel, Pairs, Quads, SINGLE, Scratch, Shape, Stepwise, WIDTH};
use super::super::simd::{Avx2, Avx512, Plain, Simd};
use super::*;
use crate::number::{bf16_to_f32, f16_to_f32};

/// Two pairs of factors (low halves first), C, and the result of a step on gfx1100 and gfx1201.
type Case = [u32; 5];

#[rustfmt::skip]
const HALVES: [Case; 31] = [
    [0x4800_4200, 0x4400_4800, 0xbf80_0000, 0x425c_0001, 0x425c_0000],
    [0xc800_c200, 0x4400_4800, 0x3f80_0000, 0xc25c_0001, 0xc25c_0000],
    [0x3c00_bc00, 0x3c00_3c00, 0x3f80_0000, 0x3f7f_ffff, 0x3f80_0000],
    [0x3c00_3c00, 0x3c00_3c00, 0xc000_0000, 0x3400_0000, 0x0000_0000],
    [0x3c00_4000, 0x3c00_3c00, 0xc000_0000, 0x3f80_0002, 0x3f80_0000],
    [0x4800_c800, 0x4800_4800, 0x3f80_0000, 0x3f7f_ffc0, 0x3f80_0000],
    [0x3c00_bc00, 0x3c00_0000, 0x0000_0000, 0x3f7f_ffff, 0x3f80_0000],
    [0x3c00_3c00, 0x3c00_0000, 0x8000_0000, 0x3f80_0001, 0x3f80_0000],
    [0x3c00_3c00, 0x3c00_3c00, 0x7f81_2345, 0x7fc1_2345, 0x7fc1_2345],
    [0x3c00_7e01, 0x3c00_3c00, 0x0000_0000, 0xffc0_0a3d, 0xffc0_0a3d],
    [0x3c00_7c00, 0x3c00_0000, 0x0000_0000, 0xffc0_0000, 0xffc0_0000],
    [0xfc00_7c00, 0x3c00_3c00, 0x0000_0000, 0xffc0_0000, 0xffc0_0000],
    [0x7c00_7e01, 0x0000_3c00, 0x7fc1_2345, 0xffc0_0a3d, 0xffc0_0a3d],
    [0x3c00_7c00, 0x3c00_0000, 0x7fc1_2345, 0xffc0_0000, 0xffc0_0000],
    [0x8000_0000, 0x3c00_3c00, 0x0080_0000, 0x0080_0000, 0x0080_0000],
    [0x0000_0001, 0x3c00_3c00, 0x0000_0000, 0x3380_0000, 0x3380_0000],
    [0x0000_0001, 0x3c00_0001, 0x0000_0000, 0x2780_0000, 0x2780_0000],
    [0x0000_0001, 0x3c00_8001, 0x0000_0000, 0xa788_0000, 0xa780_0000],
    [0xeb9b_023d, 0x803b_6249, 0xf96d_2663, 0xf96d_2663, 0xf96d_2663],
    [0x49b3_fce2, 0x573a_122b, 0x246a_3c33, 0xffc0_0a3d, 0xffc0_0a3d],
    [0x058e_f3f3, 0x2b24_1c4a, 0xb8ee_d486, 0xc288_6106, 0xc288_6106],
    [0xcd6c_4d6c, 0x78af_78af, 0x0000_0000, 0xbd00_0000, 0x0000_0000],
    [0xf82e_782e, 0x6a28_6a28, 0x0000_0000, 0xc080_0000, 0x0000_0000],
    [0xb09d_309d, 0x0fe5_0fe5, 0x0000_0000, 0xac00_0000, 0x0000_0000],
    [0x8495_0495, 0x3d28_3d28, 0x8000_0000, 0x2c80_0000, 0x0000_0000],
    [0x3644_b644, 0xc365_c365, 0x8000_0000, 0x3300_0000, 0x0000_0000],
    [0xc3c8_43c8, 0x33fa_33fa, 0x0000_0000, 0xb280_0000, 0x0000_0000],
    [0xbc00_3c00, 0x0001_fbff, 0x7f80_0000, 0x7f80_0000, 0x7f80_0000],
    [0x7c00_0401, 0x8000_0401, 0xff9a_5ce2, 0xffc0_0000, 0xffc0_0000],
    [0x8000_fc00, 0x0401_3c00, 0x0080_0000, 0xff80_0000, 0xff80_0000],
    [0x3c00_3c00, 0x7bff_7e5a, 0xffa6_c1fe, 0xffc0_0a3d, 0xffc0_0a3d],
];

#[rustfmt::skip]
const BRAINS: [Case; 30] = [
    [0x4100_4040, 0x4080_4100, 0xbf80_0000, 0x425c_0001, 0x425c_0000],
    [0x3f80_bf80, 0x3f80_3f80, 0x3f80_0000, 0x3f7f_ffff, 0x3f80_0000],
    [0x3f80_3f80, 0x3f80_3f80, 0xc000_0000, 0x3400_0000, 0x0000_0000],
    [0x3f80_4000, 0x3f80_3f80, 0xc000_0000, 0x3f80_0002, 0x3f80_0000],
    [0x4100_c100, 0x4100_4100, 0x3f80_0000, 0x3f7f_ffc0, 0x3f80_0000],
    [0x3f80_3f80, 0x3f80_0000, 0x8000_0000, 0x3f80_0001, 0x3f80_0000],
    [0x3f80_7fc1, 0x3f80_3f80, 0x0000_0000, 0xffc0_0a3d, 0xffc0_0a3d],
    [0xff80_7f80, 0x3f80_3f80, 0x7fc1_2345, 0xffc0_0000, 0xffc0_0000],
    [0x8000_8000, 0x3f80_3f80, 0x0080_0000, 0x0080_0000, 0x0080_0000],
    [0x0080_0000, 0x3f80_8000, 0x0000_0000, 0x0000_0000, 0x0080_0000],
    [0x0080_0000, 0x3f80_8000, 0x0000_0001, 0x0000_0000, 0x0080_0001],
    [0x0000_0001, 0x3f80_4980, 0x0000_0000, 0x0000_0000, 0x0700_0000],
    [0x0000_0700, 0x3f80_3f80, 0x0000_0000, 0x0700_0000, 0x0700_0000],
    [0x0080_0080, 0x3f00_3f00, 0x0000_0000, 0x0080_0000, 0x0080_0000],
    [0xff7f_7f7f, 0x7f7f_7f7f, 0x0000_0000, 0xff80_0000, 0x0000_0000],
    [0xeb9b_023d, 0x803b_6249, 0xf96d_2663, 0xf96d_2663, 0xf96d_2663],
    [0xf9e2_d6b1, 0xe2ad_f60c, 0xeddb_846f, 0x7f80_0000, 0x7f80_0000],
    [0x49b3_fce2, 0x573a_122b, 0x246a_3c33, 0x6182_0e00, 0x6182_0e00],
    [0x7140_25c9, 0xfdfc_a829, 0x916b_e0f9, 0xff80_0000, 0xff80_0000],
    [0x058e_f3f3, 0x2b24_1c4a, 0xb8ee_d486, 0xd0bf_be00, 0xd0bf_be00],
    [0xc395_629b, 0xd963_3359, 0xdc60_025c, 0x5d50_4185, 0x5d50_4184],
    [0xce35_4e35, 0x7bfd_7bfd, 0x0000_0000, 0xfe00_0000, 0x0000_0000],
    [0xfb75_7b75, 0x6c9e_6c9e, 0x0000_0000, 0xff80_0000, 0x0000_0000],
    [0xafb7_2fb7, 0x0d17_0d17, 0x0000_0000, 0x0000_0000, 0x0000_0000],
    [0x35b3_b5b3, 0xc398_c398, 0x8000_0000, 0x2d80_0000, 0x0000_0000],
    [0xa320_2320, 0xde25_de25, 0x8000_0000, 0x3580_0000, 0x0000_0000],
    [0xc401_4401, 0x3346_3346, 0x0000_0000, 0xab80_0000, 0x0000_0000],
    [0xbf80_3f80, 0x0001_ff7f, 0x7f80_0000, 0x7f80_0000, 0x7f80_0000],
    [0x7f80_0081, 0x8000_0081, 0xff9a_5ce2, 0xffc0_0000, 0xffc0_0000],
    [0x8000_ff80, 0x0081_3f80, 0x0080_0000, 0xff80_0000, 0xff80_0000],
];

/// Cases of gfx1201 alone: C of the smallest singles.
#[rustfmt::skip]
const SMALL_BRAINS: [[u32; 4]; 10] = [
    [0x2061_bc39, 0x96b4_0093, 0x0056_dd77, 0x0055_3463],
    [0x81ff_0e0d, 0x12cc_2d3b, 0x007a_3a08, 0x007a_6d87],
    [0x37d6_ba90, 0x8901_852c, 0x8080_0007, 0x8167_4c04],
    [0x08e7_393d, 0xb7d3_07aa, 0x8080_0005, 0x8006_c205],
    [0x0364_bc8c, 0x3c46_8385, 0x807f_fffe, 0x0069_a402],
    [0x993b_1798, 0x263c_a825, 0x0080_0000, 0x8026_a200],
    [0x8129_061c, 0xbfaa_b964, 0x007f_fffd, 0x017d_b7fe],
    [0x0d04_0199, 0xb3fb_3e6b, 0x807f_fff8, 0x817c_9e7c],
    [0x98ea_1190, 0x2720_af4c, 0x8080_0004, 0x81b7_5001],
    [0x2dd8_1116, 0x924a_aedf, 0x807f_fffa, 0x8156_8cfd],
];

fn shape(k: usize, brain: bool) -> Shape {
    Shape { rows: 4, k, lowest: [if brain { -126 } else { -14 }; 2], saturate: false }
}

/// One step of a kernel in every lane of four rows.
fn step<K: Kernel, S: Simd>(shape: Shape, a: &[f32], b: &[f32], c: u32) -> u32 {
    let a: Vec<f32> = a.repeat(4);
    let b: Vec<[f32; WIDTH]> = b.iter().map(|b| [*b; WIDTH]).collect();
    let mut c = [[c; WIDTH]; 4];
    // SAFETY: `vectors` calls with what this host has.
    unsafe { K::strip::<S>(shape, &a, &b, &mut c, &mut Scratch::new()) };
    assert!(c.as_flattened().iter().all(|bits| *bits == c[0][0]), "all lanes are the same");
    c[0][0]
}

/// The same on every kind of vectors that this host has.
fn vectors<K: Kernel>(shape: Shape, a: &[f32], b: &[f32], c: u32) -> u32 {
    let result = step::<K, Plain>(shape, a, b, c);
    assert_eq!(step::<K, Avx2>(shape, a, b, c), result, "AVX2");
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
        assert_eq!(step::<K, Avx512>(shape, a, b, c), result, "AVX-512");
    }
    result
}

fn halves(brain: bool, word: u32) -> [f32; 2] {
    let one = |bits| if brain { bf16_to_f32(bits) } else { f16_to_f32(bits) };
    [one(word as u16), one((word >> 16) as u16)]
}

fn flushed(values: [f32; 2]) -> [f32; 2] {
    values.map(|value| if value.is_subnormal() { 0_f32.copysign(value) } else { value })
}

fn check(brain: bool, [a, b, c, gfx11, gfx12]: Case) {
    let (a, b) = (halves(brain, a), halves(brain, b));
    let (narrow_a, narrow_b) = if brain { (flushed(a), flushed(b)) } else { (a, b) };
    type Kernel11 = Stepwise<Pairs<SINGLE>, 2>;
    type Kernel12 = Stepwise<Quads<SINGLE>, 4>;
    let found = vectors::<Kernel11>(shape(2, brain), &narrow_a, &narrow_b, c);
    assert_eq!(found, gfx11, "gfx1100: {a:?} · {b:?} + {c:#x} = {found:#x}");
    let (a, b) = ([a[0], a[1], 0.0, 0.0], [b[0], b[1], 0.0, 0.0]);
    let found = vectors::<Kernel12>(shape(4, brain), &a, &b, c);
    assert_eq!(found, gfx12, "gfx1201: {a:?} · {b:?} + {c:#x} = {found:#x}");
}

#[test]
fn steps_of_rdna_are_as_measured() {
    HALVES.iter().for_each(|case| check(false, *case));
    BRAINS.iter().for_each(|case| check(true, *case));
    for [a, b, c, expected] in SMALL_BRAINS {
        let (a, b) = (halves(true, a), halves(true, b));
        let (a, b) = ([a[0], a[1], 0.0, 0.0], [b[0], b[1], 0.0, 0.0]);
        let found = vectors::<Stepwise<Quads<SINGLE>, 4>>(shape(4, true), &a, &b, c);
        assert_eq!(found, expected, "{a:?} · {b:?} + {c:#x} = {found:#x}");
    }
}

/// A row of A, a column of B, C, and the result on gfx1201 in waves of 32 and of 64 lanes.
type Product = ([u16; 16], [u16; 16], u32, [u32; 2]);

#[rustfmt::skip]
const HALF_PRODUCTS: [Product; 5] = [
    ([0xbd53, 0x36b8, 0x2ae6, 0xb1d2, 0xc7a4, 0x52af, 0xd233, 0x4594,
      0x2905, 0x47cd, 0xb74f, 0x56cc, 0x35d2, 0x3da7, 0xac54, 0xab6a],
     [0xc142, 0x4be3, 0xd466, 0x4f40, 0xaf92, 0xc2ba, 0x5479, 0x414f,
      0x3144, 0xa72e, 0xc63b, 0x337d, 0x4661, 0x26c6, 0x5512, 0xb324],
     0x3f47_25a9, [0xc566_65fb, 0xc566_65fb]),
    ([0xcde1, 0xc31a, 0xc66b, 0x3710, 0xa4a1, 0xc2a9, 0xd316, 0x4cd3,
      0x35a2, 0x456e, 0xbce5, 0x2641, 0x2894, 0x33a0, 0xb47a, 0x46be],
     [0x3418, 0x4131, 0xae4d, 0xc800, 0x3dbf, 0xcb88, 0xd634, 0x2497,
      0xb526, 0xc713, 0x3efa, 0x2f4d, 0xcd4e, 0x4276, 0x388a, 0xbfcf],
     0x3d06_2256, [0x45af_2530, 0x45af_2530]),
    ([0xc6e1, 0xb1ea, 0xd31d, 0x2d4f, 0x4a45, 0xd1f1, 0x3362, 0xc244,
      0x4a75, 0x443e, 0x5623, 0x4ec3, 0x57c7, 0xb82e, 0xcf34, 0x3660],
     [0xd36c, 0xc886, 0x2f3d, 0x30a3, 0xd070, 0xb2cb, 0x4759, 0xcf27,
      0x4ed4, 0x3c97, 0xae37, 0xb63f, 0x35f0, 0x3a25, 0xb0d8, 0x405a],
     0xbf6b_a3b9, [0x43df_c44b, 0x43df_c44a]),
    ([0x3d07, 0xa824, 0x3e83, 0xb297, 0xd282, 0xc8a0, 0x387d, 0xb135,
      0x4e18, 0x5517, 0xc60f, 0xbd69, 0x3fde, 0x4493, 0x4bd5, 0xbfae],
     [0xb147, 0xa6e2, 0x2478, 0x2d63, 0xa614, 0xb282, 0xc643, 0x2f06,
      0x32be, 0x5272, 0x403a, 0xc857, 0xba5d, 0xaae6, 0xa872, 0xc700],
     0x3f72_8cd7, [0x4583_b4ed, 0x4583_b4ed]),
    ([0x9844, 0x3f7a, 0x606f, 0xc18c, 0xbe5b, 0x891f, 0xbbfb, 0x93b8,
      0xc3c6, 0x32f2, 0xf44e, 0x15cf, 0x5eeb, 0x2b55, 0x8bef, 0xa075],
     [0x8e88, 0xec18, 0xd3c2, 0xf6ae, 0x0cdb, 0x87c5, 0x4587, 0x5825,
      0x6e7d, 0x8ab5, 0x8773, 0x4108, 0x91c2, 0x3987, 0x62ab, 0xfbad],
     0x48e2_6837, [0x48e6_175e, 0x48e6_175f]),
];

#[rustfmt::skip]
const BRAIN_PRODUCTS: [Product; 5] = [
    ([0xbfaa, 0x3ed7, 0x3d5c, 0xbe3a, 0xc0f4, 0x4255, 0xc246, 0x40b2,
      0x3d20, 0x40f9, 0xbee9, 0x42d9, 0x3eba, 0x3fb4, 0xbd8a, 0xbd6d],
     [0xc028, 0x417c, 0xc28c, 0x41e8, 0xbdf2, 0xc057, 0x428f, 0x4029,
      0x3e28, 0xbce5, 0xc0c7, 0x3e6f, 0x40cc, 0x3cd8, 0x42a2, 0xbe64],
     0x3f47_25a9, [0xc565_bd89, 0xc565_bd8a]),
    ([0xc1bc, 0xc063, 0xc0cd, 0x3ee2, 0xbc94, 0xc055, 0xc262, 0x419a,
      0x3eb4, 0x40ad, 0xbf9c, 0x3cc8, 0x3d12, 0x3e74, 0xbe8f, 0x40d7],
     [0x3e83, 0x4026, 0xbdc9, 0xc100, 0x3fb7, 0xc171, 0xc2c6, 0x3c92,
      0xbea4, 0xc0e2, 0x3fdf, 0x3de9, 0xc1a9, 0x404e, 0x3f11, 0xbff9],
     0x3d06_2256, [0x45ae_21e3, 0x45ae_21e3]),
    ([0xc0dc, 0xbe3d, 0xc263, 0x3da9, 0x4148, 0xc23e, 0x3e6c, 0xc048,
      0x414e, 0x4087, 0x42c4, 0x41d8, 0x42f8, 0xbf05, 0xc1e6, 0x3ecc],
     [0xc26d, 0xc110, 0x3de7, 0x3e14, 0xc20e, 0xbe59, 0x40eb, 0xc1e4,
      0x41da, 0x3f92, 0xbdc6, 0xbec7, 0x3ebe, 0x3f44, 0xbe1b, 0x400b],
     0xbf6b_a3b9, [0x43de_a4e6, 0x43de_a4e7]),
    ([0x9844, 0x3f7a, 0x606f, 0xc18c, 0xbe5b, 0x891f, 0xbbfb, 0x93b8,
      0xc3c6, 0x32f2, 0xf44e, 0x15cf, 0x5eeb, 0x2b55, 0x8bef, 0xa075],
     [0x8e88, 0xec18, 0xd3c2, 0xf6ae, 0x0cdb, 0x87c5, 0x4587, 0x5825,
      0x6e7d, 0x8ab5, 0x8773, 0x4108, 0x91c2, 0x3987, 0x62ab, 0xfbad],
     0x48e2_6837, [0x78bd_8ea7, 0x78bd_8ea7]),
    ([0x8000, 0x0001, 0x8000, 0xffc1, 0xff81, 0x007f, 0x7f81, 0xff81,
      0xbf80, 0x7f81, 0x3f80, 0x0001, 0x007f, 0x0080, 0x007f, 0x7fc1],
     [0xff7f, 0x7fc1, 0xff7f, 0x0081, 0x0080, 0x0080, 0xff80, 0x0001,
      0xff80, 0x8001, 0x0000, 0x7f7f, 0xff81, 0x0080, 0xbf80, 0xbf80],
     0x8000_0000, [0xffc0_0a3d, 0xffc0_0a3d]),
];

/// Every row of A, every column of B and all of C are the same.
fn check_product(mnemonic: &str, lanes: usize, (a, b, c, expected): &Product) {
    let form = form_of(mnemonic, Chip::Gfx1201);
    let mut wave = Wave::new(0, lanes as u32);
    for outer in 0..16 {
        for k in 0..16 {
            // The tables count k in 32-lane waves by the order in a lane's registers.
            let at = if lanes == 32 { 4 * (k / 8) + k % 4 + 8 * (k % 8 / 4) } else { k };
            for (register, is_a, value) in [(A, true, a[k]), (B, false, b[k])] {
                let place = places::input(form, is_a, lanes, 16, outer, at, 0);
                store(&mut wave, register, place.lanes[0], place.bit, 16, value.into());
            }
        }
    }
    wave.rows[C..C + 8].iter_mut().for_each(|row| row.0 = [*c; 64]);
    run(Chip::Gfx1201, &text(form, lanes, [16; 2], ""), &mut wave);
    let expected = expected[lanes / 64];
    assert_eq!(wave.rows[D].0[..lanes], vec![expected; lanes], "{mnemonic} {lanes} {expected:#x}");
}

#[test]
fn products_of_gfx1201_are_as_measured() {
    for lanes in [32, 64] {
        for product in &HALF_PRODUCTS {
            check_product("v_wmma_f32_16x16x16_f16", lanes, product);
        }
        for product in &BRAIN_PRODUCTS {
            check_product("v_wmma_f32_16x16x16_bf16", lanes, product);
        }
    }
}

/// The vector kernels against the arithmetic of single results, on operands for both.
fn compare<const L: usize, T: super::super::kernel::Step<L>>(of: Type, random: &mut Random) {
    for round in 0..2000 {
        let brain = of == Type::Bf16;
        let mut shape = shape(L, brain);
        shape.saturate = round % 2 == 0;
        let mut value = || {
            let bits = super::numerics::element(of, [1, 3, 2, 1][round % 4], random) as u32;
            let [low, _] = halves(brain, bits);
            if low.is_finite() && low.abs() < 1e15 { low } else { 0.0 }
        };
        let a: Vec<f32> = (0..L).map(|_| value()).collect();
        let b: Vec<f32> = (0..L).map(|_| value()).collect();
        let (a, b) = match L {
            2 if brain => {
                let flush = |values: Vec<f32>| flushed([values[0], values[1]]).to_vec();
                (flush(a), flush(b))
            }
            _ => (a, b),
        };
        let c = super::numerics::element(Type::F32, (round / 4 % 4) as u64, random) as u32;
        let narrow = std::any::type_name::<T>().contains("<1>");
        let c = if narrow { f16_to_f32(c as u16).to_bits() } else { c };
        let found = vectors::<Stepwise<T, L>>(shape, &a, &b, c);
        let mut row = [c; WIDTH];
        let b_rows: Vec<[f32; WIDTH]> = b.iter().map(|b| [*b; WIDTH]).collect();
        let (a, b_rows) = (a.first_chunk::<L>(), b_rows.first_chunk::<L>());
        T::exact(a.expect("L values"), b_rows.expect("L rows"), shape, &mut row);
        assert_eq!(found, row[0], "{a:?} {b:?} {c:#x}: {found:#x} and not {:#x}", row[0]);
    }
}

#[test]
fn vectors_agree_with_single_results() {
    use super::super::kernel::{BRAIN, HALF};
    let mut random = Random(12);
    compare::<2, Pairs<SINGLE>>(Type::F16, &mut random);
    compare::<2, Pairs<SINGLE>>(Type::Bf16, &mut random);
    compare::<2, Pairs<HALF>>(Type::F16, &mut random);
    compare::<2, Pairs<BRAIN>>(Type::Bf16, &mut random);
    compare::<4, Quads<SINGLE>>(Type::F16, &mut random);
    compare::<4, Quads<SINGLE>>(Type::Bf16, &mut random);
    compare::<4, Quads<HALF>>(Type::F16, &mut random);
    compare::<4, Quads<BRAIN>>(Type::Bf16, &mut random);
}
