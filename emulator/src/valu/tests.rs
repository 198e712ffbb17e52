//! Instructions as LLVM prints them, run on a wave whose registers are known.

#![allow(unsafe_code)]

use std::sync::Arc;

use crate::Chip;
use crate::asm::parse;
use crate::memory::Memory;
use crate::program::Context;
use crate::wave::{Exec, Fault, Group, Row, Step, Wave, mode, scalar};

/// A wave and what is around it.
pub struct Bench {
    chip: Chip,
    pub wave: Wave,
    group: Group,
}

impl Bench {
    pub fn new(chip: Chip, lanes: u32) -> Bench {
        let memory = Arc::new(Memory::reserve(1 << 20).expect("address space"));
        let group = Group::new(chip, 0, memory, [0; 3], 1);
        Bench { chip, wave: Wave::new(0, lanes), group }
    }

    pub fn compile(&self, text: &str) -> Result<Exec, Fault> {
        let asm = parse(text);
        let lanes = self.wave.lanes;
        let context = Context {
            chip: self.chip,
            lanes,
            asm: &asm,
            index_of: &|_| None,
            starts: &Arc::default(),
        };
        super::compile(&context).expect("an instruction of vector arithmetic")
    }

    pub fn try_run(&mut self, text: &str) -> Step {
        let exec = self.compile(text).map_err(Box::new)?;
        exec(&mut self.wave, &mut self.group)
    }

    /// Runs an instruction that must be known.
    pub fn run(&mut self, text: &str) -> &mut Bench {
        if let Err(fault) = self.try_run(text) {
            panic!("{text}: {fault}");
        }
        self
    }

    /// Sets a register, each lane by its number.
    pub fn set(&mut self, row: usize, value: impl Fn(u32) -> u32) -> &mut Bench {
        self.wave.rows[row] = Row(std::array::from_fn(|lane| value(lane as u32)));
        self
    }

    pub fn lane(&self, row: usize, lane: usize) -> u32 {
        self.wave.rows[row].0[lane]
    }
}

fn cdna() -> Bench {
    Bench::new(Chip::Gfx942, 64)
}

fn rdna() -> Bench {
    Bench::new(Chip::Gfx1100, 32)
}

const OLD: u32 = 0xdead_beef;

#[test]
fn masks_constants_and_scalars() {
    let mut bench = cdna();
    bench.wave.sgpr[4] = 7;
    bench.set(0, |_| OLD).set(1, |lane| lane);
    bench.wave.set_exec(0x8000_0000_0000_0005);
    bench.run("v_add_u32_e32 v0, s4, v1");
    assert_eq!([bench.lane(0, 0), bench.lane(0, 2), bench.lane(0, 63)], [7, 9, 70]);
    assert_eq!(bench.lane(0, 1), OLD);
    bench.run("v_mov_b32_e32 v0, 0x12345");
    assert_eq!([bench.lane(0, 0), bench.lane(0, 1)], [0x12345, OLD]);
    bench.run("v_mov_b32_e32 v0, -1");
    assert_eq!(bench.lane(0, 2), u32::MAX);
    bench.wave.set_exec(0);
    bench.run("v_mov_b32_e32 v0, 5");
    assert_eq!(bench.lane(0, 2), u32::MAX);
    // The other half of a 32-lane wave's rows does not exist.
    let mut bench = rdna();
    bench.set(0, |_| OLD);
    bench.run("v_mov_b32_e32 v0, 5");
    assert_eq!([bench.lane(0, 31), bench.lane(0, 32)], [5, OLD]);
}

#[test]
fn carries_chain_and_idle_lanes_carry_nothing() {
    let mut bench = cdna();
    bench.set(0, |_| 0xffff_ffff).set(1, |lane| lane & 1).set(2, |_| 0);
    bench.wave.set_exec(0xffff_ffff_ffff_fff0);
    bench.wave.set_pair(scalar::VCC, u64::MAX);
    bench.run("v_add_co_u32_e32 v3, vcc, v0, v1");
    assert_eq!(bench.wave.pair(scalar::VCC), 0xaaaa_aaaa_aaaa_aaa0);
    bench.run("v_addc_co_u32_e32 v4, vcc, v2, v2, vcc");
    assert_eq!([bench.lane(4, 4), bench.lane(4, 5), bench.lane(4, 1)], [0, 1, 0]);
    assert_eq!(bench.wave.pair(scalar::VCC), 0);
    bench.wave.set_pair(10, 0xf0);
    bench.run("v_subb_co_u32_e64 v5, s[8:9], v2, v2, s[10:11]");
    assert_eq!([bench.lane(5, 4), bench.lane(5, 8)], [u32::MAX, 0]);
    assert_eq!(bench.wave.pair(8), 0xf0);
    bench.run("v_add_co_u32_e64 v5, s[8:9], v0, 1 clamp");
    assert_eq!(bench.lane(5, 4), u32::MAX);
    assert_eq!(bench.wave.pair(8), 0xffff_ffff_ffff_fff0);
    // In a 32-lane wave a mask is one register.
    let mut bench = rdna();
    bench.wave.sgpr[5] = OLD;
    bench.set(0, |_| 5).set(1, |_| 7);
    bench.run("v_sub_co_u32 v2, s4, v0, v1");
    assert_eq!(
        [bench.lane(2, 0), bench.wave.sgpr[4], bench.wave.sgpr[5]],
        [(-2_i32) as u32, u32::MAX, OLD]
    );
    bench.run("v_subrev_co_ci_u32_e64 v2, null, v0, v1, s4");
    assert_eq!(bench.lane(2, 0), 1);
}

#[test]
fn wide_products_carry() {
    let mut bench = cdna();
    bench.set(0, |_| u32::MAX).set(1, |_| u32::MAX).set(2, |_| u32::MAX).set(3, |_| u32::MAX);
    bench.run("v_mad_u64_u32 v[4:5], s[8:9], v0, v1, v[2:3]");
    // (2^32-1)^2 + 2^64-1 = 2^65 - 2^33
    assert_eq!([bench.lane(4, 9), bench.lane(5, 9)], [0, 0xffff_fffe]);
    assert_eq!(bench.wave.pair(8), u64::MAX);
    bench.run("v_mad_i64_i32 v[4:5], s[8:9], v0, v1, v[2:3]");
    assert_eq!([bench.lane(4, 9), bench.lane(5, 9), bench.wave.sgpr[8]], [0, 0, 0]);
    bench.run("v_lshl_add_u64 v[4:5], v[2:3], 3, v[0:1]");
    assert_eq!([bench.lane(4, 0), bench.lane(5, 0)], [0xffff_fff7, 0xffff_ffff]);
    bench.run("v_mul_hi_i32 v4, v0, v1").run("v_mul_hi_u32 v5, v0, v1");
    assert_eq!([bench.lane(4, 0), bench.lane(5, 0)], [0, 0xffff_fffe]);
    bench.set(6, |_| 0x00ff_ffff);
    bench.run("v_mul_i32_i24_e32 v4, v6, v6").run("v_mul_hi_u32_u24_e32 v5, v6, v6");
    assert_eq!([bench.lane(4, 0), bench.lane(5, 0)], [1, 0xffff]);
    bench.run("v_mad_i32_i24 v4, v6, 2, 5").run("v_mad_u32_u24 v5, v6, v6, v0 clamp");
    assert_eq!([bench.lane(4, 0), bench.lane(5, 0)], [3, u32::MAX]);
}

#[test]
fn comparisons_write_masks_and_exec() {
    let mut bench = cdna();
    bench.set(0, |lane| lane.wrapping_sub(32)).set(1, |_| 0);
    bench.run("v_cmp_lt_i32_e32 vcc, v0, v1");
    assert_eq!(bench.wave.pair(scalar::VCC), 0xffff_ffff);
    bench.run("v_cmp_gt_u32_e64 s[4:5], v1, v0");
    assert_eq!(bench.wave.pair(4), 0);
    bench.wave.set_exec(0xff00_ff00);
    bench.run("v_cmp_t_i32_e64 s[4:5], v1, v0");
    assert_eq!(bench.wave.pair(4), 0xff00_ff00);
    bench.run("v_cmpx_ne_u32_e32 vcc, 0xffffffe8, v0");
    assert_eq!([bench.wave.exec(), bench.wave.pair(scalar::VCC)], [0xff00_fe00; 2]);
    let mut bench = rdna();
    bench.wave.sgpr[scalar::VCC] = OLD;
    bench.set(0, |lane| lane);
    bench.run("v_cmpx_gt_u32_e32 3, v0");
    assert_eq!([bench.wave.exec(), u64::from(bench.wave.sgpr[scalar::VCC])], [7, OLD.into()]);
    bench.run("v_cmp_eq_u64_e64 s4, v[0:1], v[2:3]");
    assert_eq!(bench.wave.sgpr[4], 1);
    bench.run("v_cmp_le_u32_e64 null, v0, v0");
    assert_eq!(bench.wave.sgpr[scalar::NULL], 0);
}

#[test]
fn float_comparisons_know_nans_and_signs() {
    let mut bench = cdna();
    // Lanes: NaN, -1, -0, 1.
    let values = [f32::NAN, -1.0, -0.0, 1.0].map(f32::to_bits);
    bench.set(0, |lane| values[lane as usize % 4]).set(1, |_| 0);
    let cases = [
        ("v_cmp_lt_f32_e32 vcc, v0, v1", 0b0010),
        ("v_cmp_nlt_f32_e32 vcc, v0, v1", 0b1101),
        ("v_cmp_ge_f32_e32 vcc, v0, v1", 0b1100),
        ("v_cmp_lg_f32_e32 vcc, v0, v1", 0b1010),
        ("v_cmp_neq_f32_e32 vcc, v0, v1", 0b1011),
        ("v_cmp_nlg_f32_e32 vcc, v0, v1", 0b0101),
        ("v_cmp_o_f32_e32 vcc, v0, v1", 0b1110),
        ("v_cmp_u_f32_e32 vcc, v0, v1", 0b0001),
        ("v_cmp_tru_f32_e32 vcc, v0, v1", 0b1111),
        ("v_cmp_gt_f32_e64 vcc, |v0|, v1", 0b1010),
        ("v_cmp_gt_f32_e64 vcc, -v0, v1", 0b0010),
        ("v_cmp_gt_f32_e64 vcc, -|v0|, v1", 0),
        ("v_cmp_class_f32_e64 vcc, v0, 34", 0b0101),
        ("v_cmp_class_f32_e64 vcc, v0, 2", 0b0001),
        ("v_cmp_class_f32_e64 vcc, v0, 0x108", 0b1010),
    ];
    for (text, expected) in cases {
        bench.run(text);
        assert_eq!(bench.wave.pair(scalar::VCC) & 15, expected, "{text}");
    }
}

#[test]
fn dpp_patterns() {
    // Of lane 20 in a register that holds lane numbers: what it reads, if anything.
    let cases = [
        ("quad_perm:[3,2,1,0]", Some(23)),
        ("row_shl:3", Some(23)),
        ("row_shl:12", None),
        ("row_shr:4", Some(16)),
        ("row_shr:5", None),
        ("row_ror:5", Some(31)),
        ("wave_shl:1", Some(21)),
        ("wave_shr:1", Some(19)),
        ("wave_rol:1", Some(21)),
        ("wave_ror:1", Some(19)),
        ("row_mirror", Some(27)),
        ("row_half_mirror", Some(19)),
        ("row_bcast:15", Some(15)),
        ("row_bcast:31", None),
        ("row_newbcast:7", Some(23)),
    ];
    for (pattern, expected) in cases {
        let mut bench = cdna();
        bench.set(0, |_| OLD).set(1, |lane| lane);
        bench.run(&format!("v_mov_b32_dpp v0, v1 {pattern} row_mask:0xf bank_mask:0xf"));
        assert_eq!(bench.lane(0, 20), expected.unwrap_or(OLD), "{pattern}");
        bench.set(0, |_| OLD);
        bench.run(&format!(
            "v_mov_b32_dpp v0, v1 {pattern} row_mask:0xf bank_mask:0xf bound_ctrl:1"
        ));
        assert_eq!(bench.lane(0, 20), expected.unwrap_or(0), "{pattern}");
    }
    let mut bench = cdna();
    bench.set(1, |lane| lane);
    bench.run("v_mov_b32_dpp v1, v1 wave_ror:1 row_mask:0xf bank_mask:0xf");
    assert_eq!([bench.lane(1, 0), bench.lane(1, 63)], [63, 62]);
    bench.set(1, |lane| lane).set(0, |_| OLD);
    bench.run("v_mov_b32_dpp v0, v1 row_bcast:31 row_mask:0xc bank_mask:0xf");
    assert_eq!([bench.lane(0, 31), bench.lane(0, 32), bench.lane(0, 63)], [OLD, 31, 31]);
    bench.set(0, |_| OLD);
    bench.run("v_mov_b32_dpp v0, v1 quad_perm:[0,1,2,3] row_mask:0x5 bank_mask:0x3");
    let written = |lane: usize| bench.lane(0, lane) != OLD;
    assert_eq!([0, 7, 8, 16, 32, 40].map(written), [true, true, false, false, true, false]);
}

#[test]
fn dpp_sources_that_are_off() {
    let mut bench = rdna();
    bench.set(0, |_| OLD).set(1, |lane| lane + 100);
    bench.wave.set_exec(0xffff_fffd);
    let tail = "row_mask:0xf bank_mask:0xf";
    bench.run(&format!("v_mov_b32_dpp v0, v1 row_shr:1 {tail}"));
    assert_eq!([0, 1, 2, 3].map(|lane| bench.lane(0, lane)), [OLD, OLD, OLD, 102]);
    bench.run(&format!("v_mov_b32_dpp v0, v1 row_shr:1 {tail} bound_ctrl:1"));
    assert_eq!([0, 1, 2, 3].map(|lane| bench.lane(0, lane)), [0, OLD, 0, 102]);
    bench.run(&format!("v_mov_b32_dpp v0, v1 row_shr:1 {tail} bound_ctrl:1 fi:1"));
    assert_eq!([0, 1, 2, 3].map(|lane| bench.lane(0, lane)), [0, OLD, 101, 102]);
    bench.run("v_mov_b32_dpp v0, v1 dpp8:[1,1,1,1,7,6,5,4]");
    assert_eq!([0, 2, 4].map(|lane| bench.lane(0, lane)), [0, 0, 107]);
    bench.run("v_mov_b32_dpp v0, v1 dpp8:[1,1,1,1,7,6,5,4] fi:1");
    assert_eq!([0, 2, 4].map(|lane| bench.lane(0, lane)), [101, 101, 107]);
    // Only the first source moves, before its sign changes.
    bench.wave.set_exec(u64::MAX);
    bench.set(1, |lane| (lane as f32).to_bits()).set(2, |_| 100_f32.to_bits());
    bench.run(&format!("v_add_f32_e64_dpp v0, -v1, v2 row_xmask:1 {tail}"));
    assert_eq!(f32::from_bits(bench.lane(0, 6)), 93.0);
    bench.run(&format!("v_add_f32_e64_dpp v0, v1, v2 row_share:3 {tail}"));
    assert_eq!(f32::from_bits(bench.lane(0, 30)), 119.0);
    bench.set(2, |_| 1).set(1, |lane| lane & 1);
    bench.run(&format!("v_cmp_eq_u32 vcc_lo, v1, v2 row_shr:1 {tail}"));
    assert_eq!(bench.wave.sgpr[scalar::VCC], 0x5554_5554);
}

#[test]
fn sub_dword_parts() {
    let mut bench = cdna();
    bench.set(0, |_| 0x1111_1111).set(1, |_| 0x8281_7f02).set(2, |_| 0x0000_8003);
    bench.run(
        "v_add_u32_sdwa v0, v1, sext(v2) dst_sel:BYTE_1 dst_unused:UNUSED_PRESERVE \
         src0_sel:BYTE_1 src1_sel:BYTE_1",
    );
    assert_eq!(bench.lane(0, 5), 0x1111_ff11);
    bench.run(
        "v_add_u32_sdwa v0, sext(v1), v2 dst_sel:WORD_1 dst_unused:UNUSED_PAD src0_sel:BYTE_3 \
         src1_sel:BYTE_0",
    );
    assert_eq!(bench.lane(0, 5), 0xff85_0000);
    bench.run("v_mov_b32_sdwa v0, v1 dst_sel:BYTE_2 dst_unused:UNUSED_SEXT src0_sel:BYTE_2");
    assert_eq!(bench.lane(0, 5), 0xff81_0000);
    bench.run("v_cmp_eq_u32_sdwa s[4:5], v1, v2 src0_sel:BYTE_0 src1_sel:DWORD");
    assert_eq!(bench.wave.pair(4), 0);
    bench.run("v_cmp_lt_i32_sdwa s[4:5], sext(v1), v2 src0_sel:WORD_1 src1_sel:DWORD");
    assert_eq!(bench.wave.pair(4), u64::MAX);
    bench.wave.set_pair(scalar::VCC, 1);
    bench.run(
        "v_cndmask_b32_sdwa v0, v1, v2, vcc dst_sel:DWORD dst_unused:UNUSED_PAD \
         src0_sel:WORD_0 src1_sel:BYTE_0",
    );
    assert_eq!([bench.lane(0, 0), bench.lane(0, 1)], [3, 0x7f02]);
}

#[test]
fn halves_of_registers() {
    let mut bench = cdna();
    bench.set(0, |_| OLD).set(1, |_| 0xffff_0001).set(2, |_| 0x0003_0002);
    bench.run("v_add_u16_e32 v0, v1, v2");
    assert_eq!(bench.lane(0, 0), 3);
    bench.set(0, |_| OLD);
    bench.run("v_mad_u16 v0, v1, v2, v2 op_sel:[0,1,0,1]");
    assert_eq!(bench.lane(0, 0), 0x0005_beef);
    bench.run("v_mad_i16 v0, v1, v2, 7 op_sel:[1,1,0,0]");
    assert_eq!(bench.lane(0, 0), 0x0005_0004);
    bench.run("v_mad_u16 v0, v1, v1, 7 op_sel:[1,1,0,0] clamp");
    assert_eq!(bench.lane(0, 0), 0x0005_ffff);
    let mut bench = rdna();
    bench.set(0, |_| OLD).set(1, |_| 0xffff_0001).set(2, |_| 0x0003_0002);
    bench.run("v_add_nc_u16 v0.h, v1.l, v2.h op_sel:[0,1,1]");
    assert_eq!(bench.lane(0, 0), 0x0004_beef);
    bench.run("v_mov_b16_e32 v0.l, v2.h");
    assert_eq!(bench.lane(0, 0), 0x0004_0003);
    bench.run("v_cndmask_b16 v0.l, v1.h, v2.l, s3");
    assert_eq!(bench.lane(0, 0), 0x0004_ffff);
    bench.run("v_cmp_eq_u16_e32 vcc_lo, v1.l, v2.h");
    assert_eq!(bench.wave.sgpr[scalar::VCC], 0);
    bench.run("v_swap_b16 v1.l, v2.h");
    assert_eq!([bench.lane(1, 0), bench.lane(2, 0)], [0xffff_0003, 0x0001_0002]);
    bench.run("v_mad_i32_i16 v0, v1.h, v2.l, v2 op_sel:[1,0,0,0]");
    assert_eq!(bench.lane(0, 0), 0x0001_0000);
}

#[test]
fn clamp_and_scale() {
    let mut bench = cdna();
    let values = [-2.0, 0.25, 3.0, f32::NAN].map(f32::to_bits);
    bench.set(1, |lane| values[lane as usize % 4]);
    bench.wave.mode = mode::DENORM | mode::DX10_CLAMP;
    bench.run("v_add_f32_e64 v0, v1, 0 clamp");
    let read = |bench: &Bench| [0, 1, 2, 3].map(|lane| bench.lane(0, lane));
    assert_eq!(read(&bench), [0.0, 0.25, 1.0, 0.0].map(f32::to_bits));
    bench.wave.mode = mode::DENORM;
    bench.run("v_add_f32_e64 v0, v1, 0 clamp");
    assert!(f32::from_bits(bench.lane(0, 3)).is_nan());
    // Where denormal results are kept, a scale is ignored.
    bench.run("v_add_f32_e64 v0, v1, 0 mul:4");
    assert_eq!(f32::from_bits(bench.lane(0, 2)), 3.0);
    bench.wave.mode = 0;
    bench.run("v_add_f32_e64 v0, v1, 0 mul:4");
    assert_eq!(f32::from_bits(bench.lane(0, 0)), -8.0);
    bench.run("v_add_f32_e64 v0, v1, 0 div:2");
    assert_eq!(f32::from_bits(bench.lane(0, 2)), 1.5);
    bench.run("v_add_u32_e64 v0, -1, v1 clamp").run("v_sub_u32_e64 v2, 0, v1 clamp");
    assert_eq!([bench.lane(0, 1), bench.lane(2, 1)], [u32::MAX, 0]);
}

#[test]
fn denormals_and_rounding_follow_the_mode() {
    let mut bench = cdna();
    bench.set(1, |lane| if lane == 0 { 0x8000_0001 } else { 1 }).set(2, |_| 0x0080_0000);
    bench.run("v_add_f32_e32 v0, v1, v1");
    assert_eq!([bench.lane(0, 0), bench.lane(0, 1)], [0x8000_0002, 2]);
    // Operands are flushed, results are kept.
    bench.wave.mode = 0xe0;
    bench.run("v_add_f32_e32 v0, v1, v1").run("v_mul_f32_e32 v3, 0.5, v2");
    assert_eq!([bench.lane(0, 0), bench.lane(0, 1)], [0x8000_0000, 0]);
    assert_eq!(bench.lane(3, 0), 0x0040_0000);
    // And the other way round.
    bench.wave.mode = 0xd0;
    bench.run("v_add_f32_e32 v0, v1, v2").run("v_mul_f32_e32 v3, 0.5, v2");
    assert_eq!([bench.lane(0, 1), bench.lane(3, 0)], [0x0080_0001, 0]);
    bench.wave.mode = 0;
    bench.run("v_mov_b32_e32 v0, v1").run("v_cmp_eq_f32_e64 s[4:5], v1, 0");
    assert_eq!([bench.lane(0, 1), bench.wave.sgpr[4]], [1, u32::MAX]);
    // 1 + 2^-30 and its negative: nearest, up, down, toward zero.
    bench.set(1, |lane| if lane == 0 { 0x3080_0000 } else { 0xb080_0000 });
    bench.set(2, |lane| if lane == 0 { 0x3f80_0000 } else { 0xbf80_0000 });
    let expected = [
        [0x3f80_0000, 0xbf80_0000],
        [0x3f80_0001, 0xbf80_0000],
        [0x3f80_0000, 0xbf80_0001],
        [0x3f80_0000, 0xbf80_0000],
    ];
    for (round, expected) in expected.into_iter().enumerate() {
        bench.wave.mode = mode::DENORM | round as u32;
        bench.run("v_add_f32_e32 v0, v1, v2");
        assert_eq!([bench.lane(0, 0), bench.lane(0, 1)], expected, "{round}");
    }
    bench.wave.mode = mode::DENORM;
    bench.run("v_add_f32_e32 v0, v1, v2");
    assert_eq!(bench.lane(0, 0), 0x3f80_0000);
}

#[test]
fn pairs_read_before_they_write() {
    let mut bench = rdna();
    bench.set(0, |_| 5).set(1, |_| 7);
    bench.run("v_dual_mov_b32 v0, v1 :: v_dual_mov_b32 v1, v0");
    assert_eq!([bench.lane(0, 0), bench.lane(1, 0)], [7, 5]);
    bench.run("v_dual_add_nc_u32 v1, 1, v1 :: v_dual_mov_b32 v0, v1");
    assert_eq!([bench.lane(0, 0), bench.lane(1, 0)], [5, 6]);
    bench.wave.set_exec(1);
    bench.run("v_dual_mov_b32 v0, v1 :: v_dual_add_nc_u32 v1, v0, v1");
    assert_eq!([0, 1].map(|row| [bench.lane(row, 0), bench.lane(row, 1)]), [[6, 5], [11, 6]]);
    bench.wave.set_exec(3);
    bench.wave.sgpr[scalar::VCC] = 1;
    bench.run("v_dual_cndmask_b32 v2, v0, v1 :: v_dual_mov_b32 v3, 2.0");
    assert_eq!([bench.lane(2, 0), bench.lane(2, 1)], [11, 5]);
    assert_eq!(f32::from_bits(bench.lane(3, 1)), 2.0);
}

#[test]
fn lanes_to_scalars_and_back() {
    let mut bench = cdna();
    bench.set(1, |lane| lane * 10);
    bench.wave.sgpr[7] = 64 + 33;
    bench.wave.set_exec(0xffff_0000_0000_0000);
    bench.run("v_readlane_b32 s0, v1, s7").run("v_readfirstlane_b32 s1, v1");
    assert_eq!([bench.wave.sgpr[0], bench.wave.sgpr[1]], [330, 480]);
    bench.run("v_writelane_b32 v1, s7, 2");
    assert_eq!(bench.lane(1, 2), 97);
    bench.wave.set_exec(0);
    bench.run("v_readfirstlane_b32 s1, v1");
    assert_eq!(bench.wave.sgpr[1], 0);
    bench.wave.set_exec(u64::MAX);
    bench.run("v_mbcnt_lo_u32_b32 v2, -1, 0").run("v_mbcnt_hi_u32_b32 v2, -1, v2");
    assert_eq!([0, 1, 32, 63].map(|lane| bench.lane(2, lane)), [0, 1, 32, 63]);
    bench.run("v_pk_mov_b32 v[4:5], v[1:2], v[2:3] op_sel:[1,0]");
    assert_eq!([bench.lane(4, 7), bench.lane(5, 7)], [7, 7]);
    bench.run("v_pk_mov_b32 v[2:3], v[1:2], v[1:2] op_sel:[0,1]");
    assert_eq!([bench.lane(2, 7), bench.lane(3, 7)], [70, 7]);
}

#[test]
fn rows_permute() {
    let mut bench = Bench::new(Chip::Gfx1100, 32);
    bench.set(1, |lane| lane).set(2, |lane| 15 - lane % 16);
    (bench.wave.sgpr[2], bench.wave.sgpr[3]) = (0x0123_4567, 0x89ab_cdef);
    bench.run("v_permlane16_b32 v0, v1, s2, s3");
    assert_eq!([0, 7, 8, 20].map(|lane| bench.lane(0, lane)), [7, 0, 15, 19]);
    bench.run("v_permlanex16_b32 v0, v1, s2, s3");
    assert_eq!([0, 7, 8, 20].map(|lane| bench.lane(0, lane)), [23, 16, 31, 3]);
    bench.wave.set_exec(0xffff_ff7f);
    bench.set(0, |_| OLD);
    bench.run("v_permlane16_b32 v0, v1, s2, s3");
    assert_eq!([bench.lane(0, 0), bench.lane(0, 1)], [OLD, 6]);
    bench.run("v_permlane16_b32 v0, v1, s2, s3 op_sel:[0,1]");
    assert_eq!(bench.lane(0, 0), 0);
    bench.run("v_permlane16_b32 v0, v1, s2, s3 op_sel:[1,0]");
    assert_eq!(bench.lane(0, 0), 7);
    let mut bench = Bench::new(Chip::Gfx1201, 64);
    bench.set(1, |lane| lane).set(2, |lane| 15 - lane % 16);
    bench.run("v_permlanex16_var_b32 v0, v1, v2");
    assert_eq!([0, 16, 35].map(|lane| bench.lane(0, lane)), [31, 15, 60]);
    bench.run("v_permlane64_b32 v1, v1");
    assert_eq!([bench.lane(1, 0), bench.lane(1, 40)], [32, 8]);
    let mut bench = Bench::new(Chip::Gfx950, 64);
    bench.set(0, |lane| lane).set(1, |lane| 100 + lane);
    bench.run("v_permlane32_swap_b32_e32 v0, v1");
    assert_eq!([0, 32, 63].map(|lane| bench.lane(0, lane)), [0, 100, 131]);
    assert_eq!([0, 31, 32].map(|lane| bench.lane(1, lane)), [32, 63, 132]);
    bench.set(0, |lane| lane).set(1, |lane| 100 + lane);
    bench.run("v_permlane16_swap_b32_e32 v0, v1");
    assert_eq!([0, 16, 32, 48].map(|lane| bench.lane(0, lane)), [0, 100, 32, 132]);
    assert_eq!([0, 16, 32, 48].map(|lane| bench.lane(1, lane)), [16, 116, 48, 148]);
    bench.wave.set_exec(1);
    assert!(bench.try_run("v_permlane16_swap_b32_e32 v0, v1").is_err());
}

#[test]
fn computed_register_numbers() {
    let mut bench = rdna();
    bench.set(5, |lane| lane);
    bench.wave.sgpr[scalar::M0] = 3;
    bench.run("v_movrels_b32_e32 v0, v2");
    assert_eq!(bench.lane(0, 9), 9);
    bench.run("v_movreld_b32_e32 v7, v5");
    assert_eq!(bench.lane(10, 9), 9);
    bench.wave.sgpr[scalar::M0] = 300;
    assert!(bench.try_run("v_movrels_b32_e32 v0, v2").is_err());
    // CDNA's index mode, for the source and for the destination.
    let mut bench = cdna();
    bench.set(5, |lane| lane);
    bench.wave.mode |= 1 << 27;
    bench.wave.sgpr[scalar::M0] = 0x1003;
    bench.run("v_mov_b32_e32 v0, v2");
    assert_eq!(bench.lane(0, 9), 9);
    bench.wave.sgpr[scalar::M0] = 0x8003;
    bench.run("v_mov_b32_e32 v7, v5");
    assert_eq!(bench.lane(10, 9), 9);
    bench.wave.sgpr[scalar::M0] = 0x10ff;
    assert!(bench.try_run("v_mov_b32_e32 v0, v2").is_err());
}

#[test]
fn strange_forms_are_unknown() {
    let bench = cdna();
    for text in [
        "v_add_u32_e32 v0, v1, v2 strange:1",
        "v_add_u32_e32 v0, v1",
        "v_add_u32_e32 v0, v1, v2, v3",
        "v_add_u32_e32 v[0:1], v1, v2",
        "v_mov_b32_dpp v0, v1 row_bcast:7 row_mask:0xf bank_mask:0xf",
        "v_and_b32_e64 v0, v1, v2 clamp",
        "v_add_u32_e64 v0, v1, v2 mul:2",
        "v_add_u32_e64 v0, v1, v2 op_sel:[1,0,0]",
        "v_add_u32_e32 v0, src_lds_direct, v1",
    ] {
        assert!(bench.compile(text).is_err(), "{text}");
    }
}

/// Seconds of this thread's processor time.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time to a local variable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let forms = [
        "v_mov_b32_e32 v{0}, v{1}",
        "v_mov_b32_e32 v{0}, s4",
        "v_add_f32_e32 v{0}, v{1}, v{2}",
        "v_fma_f32 v{0}, v{1}, v{2}, v{3}",
        "v_fma_f32 v{0}, v{1}, s4, v{3}",
        "v_fma_f32 v{0}, v{1}, -v{2}, v{3}",
        "v_fmac_f32_e32 v{0}, v{1}, v{2}",
        "v_mul_f32_e32 v{0}, 2.0, v{2}",
        "v_add_u32_e32 v{0}, v{1}, v{2}",
        "v_mul_lo_u32 v{0}, v{1}, v{2}",
        "v_lshlrev_b64 v[{0}:{1}], 3, v[{2}:{3}]",
        "v_add_f64 v[{0}:{1}], v[{2}:{3}], v[{4}:{5}]",
        "v_cmp_lt_f32_e32 vcc, v{0}, v{1}",
        "v_cmp_lt_u64_e32 vcc, v[{0}:{1}], v[{2}:{3}]",
        "v_cndmask_b32_e32 v{0}, v{1}, v{2}, vcc",
        "v_add_co_u32_e32 v{0}, vcc, v{1}, v{2}",
        "v_addc_co_u32_e32 v{0}, vcc, v{1}, v{2}, vcc",
        "v_mad_u64_u32 v[{0}:{1}], s[4:5], v{2}, v{3}, v[{4}:{5}]",
        "v_add_f16_e32 v{0}, v{1}, v{2}",
        "v_mad_u16 v{0}, v{1}, v{2}, v{3} op_sel:[1,0,0,1]",
        "v_mov_b32_dpp v{0}, v{1} row_shr:1 row_mask:0xf bank_mask:0xf",
        "v_add_f32_dpp v{0}, v{1}, v{2} quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf",
        "v_add_u32_sdwa v{0}, v{1}, v{2} dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_1 \
         src1_sel:DWORD",
        "v_bfe_u32 v{0}, v{1}, 8, 8",
        "v_perm_b32 v{0}, v{1}, v{2}, s4",
        "v_cvt_f32_u32_e32 v{0}, v{1}",
    ];
    for form in forms {
        for exec in [u64::MAX, 0x5555_1234_5678_ffff] {
            let mut bench = cdna();
            bench.wave.set_exec(exec);
            for row in 0..64 {
                bench.set(row, |lane| 0x3f80_3c00 + lane);
            }
            let program: Vec<Exec> = (0..16)
                .map(|at| {
                    let number = |index: usize| ((5 * at + 2 * index) % 48).to_string();
                    let pair = |index: usize| ((5 * at % 40) + index).to_string();
                    let wide = form.contains('[') && form.contains("v[");
                    let text = (0..6).fold(form.to_string(), |text, index| {
                        let number = if wide { pair(index) } else { number(index) };
                        text.replace(&format!("{{{index}}}"), &number)
                    });
                    bench.compile(&text).unwrap_or_else(|_| panic!("{text}"))
                })
                .collect();
            let start = processor_seconds();
            let rounds = 50_000;
            for _ in 0..rounds {
                for exec in &program {
                    exec(&mut bench.wave, &mut bench.group).expect("it is known");
                }
            }
            let rate = rounds as f64 * 16.0 / (processor_seconds() - start) / 1e6;
            println!("{rate:8.1} M/s  {form}{}", if exec == u64::MAX { "" } else { "  (masked)" });
        }
    }
}
