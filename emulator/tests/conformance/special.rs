//! Conversions and other operations whose operands or results are parts of registers, or many.

use waveloom_emulator::Chip;

use crate::exact::{
    BF16, E2M1, E2M3, E3M2, E4M3, E4M3_FNUZ, E5M2, E5M2_FNUZ, F16, F32, Format, Num, Round,
    Special, compare,
};
use crate::machine::{Bench, NAMED, Random, Report, wanted};
use crate::values::T;

/// Bits of the destination, and what they may be.
struct Field {
    /// First bit.
    at: usize,
    /// Bits.
    width: u32,
    /// What they may be; nothing fixes them if there are none.
    any: Vec<u64>,
    /// Every NaN of this format will do for a NaN.
    nan: Option<Format>,
}

/// One instruction with its statement.
struct Case {
    name: &'static str,
    text: String,
    /// First row and count of the destination.
    dst: (usize, usize),
    /// Rows with values of a type.
    src: Vec<(usize, T)>,
    mode: u32,
    f: Box<dyn Fn(&Context<'_>) -> Vec<Field>>,
}

/// What a statement sees.
struct Context<'a> {
    chip: Chip,
    mode: u32,
    rows: &'a dyn Fn(usize) -> u64,
}

impl Context<'_> {
    fn row(&self, row: usize) -> u64 {
        (self.rows)(row)
    }

    /// Bits of the registers from `row` on.
    fn bits(&self, row: usize, at: usize, width: usize) -> u64 {
        let low = self.row(row + at / 32) | self.row(row + at / 32 + 1) << 32;
        low >> (at % 32) & ((1 << width) - 1)
    }
}

const A: usize = 2;
const B: usize = 36;
const C: usize = 70;
const DST: usize = 80;

fn fp8(chip: Chip) -> Format {
    if chip == Chip::Gfx942 { E4M3_FNUZ } else { E4M3 }
}

fn bf8(chip: Chip) -> Format {
    if chip == Chip::Gfx942 { E5M2_FNUZ } else { E5M2 }
}

fn rows_text(row: usize, count: usize) -> String {
    crate::memory::range(row, count)
}

/// What a value may become in a narrow format: what does not fit becomes infinite or NaN, or with
/// FP16_OVFL the largest number; formats of numbers only saturate.
fn narrowed(to: Format, value: Num, ovfl: bool) -> Vec<u64> {
    let plain = to.special != Special::None;
    match value {
        Num::Nan if !plain => Vec::new(),
        Num::Inf(_) if ovfl && plain => {
            vec![to.round(value, Round::Even), to.round_saturating(value, Round::Even)]
        }
        _ if ovfl || !plain => vec![to.round_saturating(value, Round::Even)],
        _ => vec![to.round(value, Round::Even)],
    }
}

/// The same for stochastic rounding: one of the two neighbours; toward zero for random bits that
/// are all zero, and itself if it is a value of the format.
fn stochastic(to: Format, value: Num, random: u64, ovfl: bool) -> Vec<u64> {
    let saturate = ovfl || to.special == Special::None;
    let round = |round: Round| {
        if saturate { to.round_saturating(value, round) } else { to.round(value, round) }
    };
    match value {
        Num::Nan if to.special == Special::None => return Vec::new(),
        Num::Nan | Num::Inf(_) => return narrowed(to, value, ovfl),
        _ => {}
    }
    // What lies a whole step beyond the largest number is too large whatever the random bits are.
    let largest = to.value(to.largest());
    let before = to.value(to.largest() - 1).negate();
    let step = crate::exact::add(largest, before, Round::Even);
    let size = if value.negative() { value.negate() } else { value };
    let excess = crate::exact::add(size, largest.negate(), Round::Even);
    if !excess.negative() && compare(excess, step) != Some(std::cmp::Ordering::Less) {
        return narrowed(to, value, ovfl);
    }
    let (below, above) = (round(Round::Zero), round_away(to, value, saturate));
    if random == 0 || below == above { vec![below] } else { vec![below, above] }
}

fn round_away(to: Format, value: Num, saturate: bool) -> u64 {
    let direction = if value.negative() { Round::Down } else { Round::Up };
    if saturate { to.round_saturating(value, direction) } else { to.round(value, direction) }
}

fn one(at: usize, to: Format, any: Vec<u64>) -> Field {
    let nan = (to.special != Special::None).then_some(to);
    Field { at, width: to.bits(), any, nan }
}

/// The power of two of a scale: the exponent of a single.
fn scale_of(bits: u64) -> i32 {
    (bits >> 23 & 0xff) as i32 - 127
}

/// A source of narrow format scaled up; rounding and denormals as both modes would have them.
fn widened(from: Format, to: Format, bits: u64, power: i32) -> Vec<u64> {
    let value = from.value(bits).scale(power);
    let result = to.round(value, Round::Even);
    let mut any = vec![result];
    if to.is_denormal(result) {
        any.push(result & to.sign());
    }
    any
}

fn eight_bits() -> Vec<Case> {
    let mut list = Vec::new();
    let formats: [(&'static str, fn(Chip) -> Format); 2] = [("fp8", fp8), ("bf8", bf8)];
    for (which, format) in formats {
        let names = |text: &str| -> &'static str {
            let known = [
                "v_cvt_f32_fp8",
                "v_cvt_f32_bf8",
                "v_cvt_pk_f32_fp8",
                "v_cvt_pk_f32_bf8",
                "v_cvt_pk_fp8_f32",
                "v_cvt_pk_bf8_f32",
                "v_cvt_sr_fp8_f32",
                "v_cvt_sr_bf8_f32",
            ];
            known.into_iter().find(|name| *name == text).expect("a name")
        };
        let up = names(&format!("v_cvt_f32_{which}"));
        let up_pair = names(&format!("v_cvt_pk_f32_{which}"));
        let down = names(&format!("v_cvt_pk_{which}_f32"));
        let random = names(&format!("v_cvt_sr_{which}_f32"));
        for byte in 0..4_usize {
            let mut texts = vec![
                format!("{up}_sdwa v{DST}, v{A} src0_sel:BYTE_{byte}"),
                format!("{up}_e64 v{DST}, v{A} byte_sel:{byte}"),
            ];
            if byte == 0 {
                texts.push(format!("{up}_e32 v{DST}, v{A}"));
                texts.push(format!("{up}_e64 v{DST}, v{A}"));
            }
            for text in texts {
                list.push(Case {
                    name: up,
                    text,
                    dst: (DST, 1),
                    src: vec![],
                    mode: 0xf0,
                    f: Box::new(move |x| {
                        let bits = x.row(A) >> (8 * byte) & 0xff;
                        vec![one(0, F32, widened(format(x.chip), F32, bits, 0))]
                    }),
                });
            }
            for text in [
                format!("{random} v{DST}, v{A}, v{B} op_sel:[0,0,{},{}]", byte & 1, byte >> 1),
                format!("{random} v{DST}, v{A}, v{B} byte_sel:{byte}"),
            ] {
                list.push(Case {
                    name: random,
                    text,
                    dst: (DST, 1),
                    src: vec![(A, T::F32)],
                    mode: 0xf0,
                    f: Box::new(move |x| {
                        let to = format(x.chip);
                        let any = stochastic(to, F32.value(x.row(A)), x.row(B), false);
                        vec![one(8 * byte, to, any)]
                    }),
                });
            }
        }
        for word in 0..2_usize {
            let mut texts = vec![
                format!("{up_pair}_sdwa {}, v{A} src0_sel:WORD_{word}", rows_text(DST, 2)),
                format!("{up_pair}_e64 {}, v{A} op_sel:[{word},0]", rows_text(DST, 2)),
            ];
            if word == 0 {
                texts.push(format!("{up_pair}_e32 {}, v{A}", rows_text(DST, 2)));
            }
            for text in texts {
                list.push(Case {
                    name: up_pair,
                    text,
                    dst: (DST, 2),
                    src: vec![],
                    mode: 0xf0,
                    f: Box::new(move |x| {
                        let bits = |index: usize| x.row(A) >> (16 * word + 8 * index) & 0xff;
                        let field = |index: usize| {
                            one(32 * index, F32, widened(format(x.chip), F32, bits(index), 0))
                        };
                        vec![field(0), field(1)]
                    }),
                });
            }
            for mode in [0xf0, 0x80_00f0] {
                list.push(Case {
                    name: down,
                    text: format!("{down} v{DST}, v{A}, v{B} op_sel:[0,0,{word}]"),
                    dst: (DST, 1),
                    src: vec![(A, T::F32), (B, T::F32)],
                    mode,
                    f: Box::new(move |x| {
                        let to = format(x.chip);
                        let ovfl = x.mode >> 23 & 1 == 1;
                        let field = |index: usize, row: usize| {
                            let any = narrowed(to, F32.value(x.row(row)), ovfl);
                            one(16 * word + 8 * index, to, any)
                        };
                        vec![field(0, A), field(1, B)]
                    }),
                });
            }
        }
    }
    list
}

/// Names of wide formats in scaled conversions.
const WIDE: [(&str, Format, T); 3] =
    [("f32", F32, T::F32), ("f16", F16, T::PkF16), ("bf16", BF16, T::PkBf16)];

fn leak(text: String) -> &'static str {
    // A few hundred names that live as long as the tests.
    Box::leak(text.into_boxed_str())
}

/// gfx950's scaled conversions from a narrow format.
fn scaled_up() -> Vec<Case> {
    let mut list = Vec::new();
    let narrow = [("fp8", E4M3), ("bf8", E5M2), ("fp4", E2M1)];
    for (wide_name, to, _) in WIDE {
        for (narrow_name, from) in narrow {
            let rows = if to == F32 { 2 } else { 1 };
            let name = leak(format!("v_cvt_scalef32_pk_{wide_name}_{narrow_name}"));
            let width = from.bits() as usize;
            for part in 0..if narrow_name == "fp4" { 4 } else { 2 } {
                let sel = format!("op_sel:[{},{},0]", part & 1, part >> 1);
                list.push(Case {
                    name,
                    text: format!("{name} {}, v{A}, v{C} {sel}", rows_text(DST, rows)),
                    dst: (DST, rows),
                    src: vec![(C, T::Mask)],
                    mode: 0xf0,
                    f: Box::new(move |x| {
                        let field = |index: usize| {
                            let bits = x.bits(A, (2 * part + index) * width, width);
                            let any = widened(from, to, bits, scale_of(x.row(C)));
                            one(index * to.bits() as usize, to, any)
                        };
                        vec![field(0), field(1)]
                    }),
                });
            }
        }
        for (narrow_name, from) in [("fp6", E2M3), ("bf6", E3M2)] {
            let rows = to.bits() as usize;
            let name = leak(format!("v_cvt_scalef32_pk32_{wide_name}_{narrow_name}"));
            list.push(Case {
                name,
                text: format!("{name} {}, {}, v{C}", rows_text(DST, rows), rows_text(A, 6)),
                dst: (DST, rows),
                src: vec![(C, T::Mask)],
                mode: 0xf0,
                f: Box::new(move |x| {
                    let field = |index: usize| {
                        let bits = x.bits(A, 6 * index, 6);
                        let any = widened(from, to, bits, scale_of(x.row(C)));
                        one(index * to.bits() as usize, to, any)
                    };
                    (0..32).map(field).collect()
                }),
            });
        }
    }
    for (wide_name, to) in [("f32", F32), ("f16", F16)] {
        for (narrow_name, from) in [("fp8", E4M3), ("bf8", E5M2)] {
            let name = leak(format!("v_cvt_scalef32_{wide_name}_{narrow_name}"));
            for part in 0..4_usize {
                for high in 0..if to == F16 { 2_usize } else { 1 } {
                    let sel = format!("op_sel:[{},{},{high}]", part & 1, part >> 1);
                    list.push(Case {
                        name,
                        text: format!("{name} v{DST}, v{A}, v{C} {sel}"),
                        dst: (DST, 1),
                        src: vec![(C, T::Mask)],
                        mode: 0xf0,
                        f: Box::new(move |x| {
                            let bits = x.bits(A, 8 * part, 8);
                            let any = widened(from, to, bits, scale_of(x.row(C)));
                            vec![one(16 * high, to, any)]
                        }),
                    });
                }
            }
        }
    }
    list
}

/// An element of a wide format among the registers of a source.
fn element(x: &Context<'_>, row: usize, format: Format, index: usize) -> Num {
    let width = format.bits() as usize;
    format.value(x.bits(row, index * width, width))
}

/// gfx950's scaled conversions to a narrow format, nearest and stochastic.
fn scaled_down() -> Vec<Case> {
    let mut list = Vec::new();
    for (wide_name, from, t) in WIDE {
        for (narrow_name, to) in [("fp8", E4M3), ("bf8", E5M2), ("fp4", E2M1)] {
            let name = leak(format!("v_cvt_scalef32_pk_{narrow_name}_{wide_name}"));
            let width = to.bits() as usize;
            let parts = 32 / (2 * width);
            for part in 0..parts {
                let sel = match (narrow_name, from == F32) {
                    ("fp4", _) => format!("op_sel:[0,0,{},{}]", part & 1, part >> 1),
                    (_, true) => format!("op_sel:[0,0,0,{part}]"),
                    (_, false) => format!("op_sel:[0,0,{part}]"),
                };
                let sources =
                    if from == F32 { format!("v{A}, v{B}, v{C}") } else { format!("v{A}, v{C}") };
                list.push(Case {
                    name,
                    text: format!("{name} v{DST}, {sources} {sel}"),
                    dst: (DST, 1),
                    src: vec![(A, t), (B, t), (C, T::Mask)],
                    mode: 0xf0,
                    f: Box::new(move |x| {
                        let field = |index: usize| {
                            let value = match (from == F32, index) {
                                (true, 1) => element(x, B, from, 0),
                                _ => element(x, A, from, index),
                            };
                            let value = value.scale(-scale_of(x.row(C)));
                            let mut any = narrowed(to, value, false);
                            // Whether scaled results saturate is not said for 8 bits.
                            any.extend(narrowed(to, value, true));
                            one((2 * part + index) * width, to, any)
                        };
                        vec![field(0), field(1)]
                    }),
                });
            }
        }
        stochastic_down(&mut list, wide_name, from, t);
        sixes_down(&mut list, wide_name, from, t);
    }
    for (narrow_name, to) in [("fp6", E2M3), ("bf6", E3M2)] {
        let name = leak(format!("v_cvt_scalef32_2xpk16_{narrow_name}_f32"));
        let operands =
            [rows_text(DST, 6), rows_text(A, 16), rows_text(B, 16), format!("v{C}")].join(", ");
        let rows = |row: usize| (row..row + 16).map(|row| (row, T::F32));
        list.push(Case {
            name,
            text: format!("{name} {operands}"),
            dst: (DST, 6),
            src: rows(A).chain(rows(B)).chain([(C, T::Mask)]).collect(),
            mode: 0xf0,
            f: Box::new(move |x| {
                let field = |index: usize| {
                    let row = [A, B][index % 2] + index / 2;
                    let value = F32.value(x.row(row)).scale(-scale_of(x.row(C)));
                    one(6 * index, to, narrowed(to, value, true))
                };
                (0..32).map(field).collect()
            }),
        });
    }
    list
}

/// The generator that the next random number of a packed conversion comes from.
fn next_random(bits: u64) -> u64 {
    (bits << 1 ^ if bits >> 31 & 1 == 1 { 197 } else { 0 }) & 0xffff_ffff
}

fn stochastic_down(list: &mut Vec<Case>, wide_name: &str, from: Format, t: T) {
    for (narrow_name, to) in [("fp8", E4M3), ("bf8", E5M2)] {
        let name = leak(format!("v_cvt_scalef32_sr_{narrow_name}_{wide_name}"));
        for part in 0..4_usize {
            let sel = format!("op_sel:[0,0,{},{}]", part & 1, part >> 1);
            list.push(Case {
                name,
                text: format!("{name} v{DST}, v{A}, v{B}, v{C} {sel}"),
                dst: (DST, 1),
                src: vec![(A, t), (C, T::Mask)],
                mode: 0xf0,
                f: Box::new(move |x| {
                    let value = element(x, A, from, 0).scale(-scale_of(x.row(C)));
                    let mut any = stochastic(to, value, x.row(B), false);
                    any.extend(stochastic(to, value, x.row(B), true));
                    vec![one(8 * part, to, any)]
                }),
            });
        }
    }
    let name = leak(format!("v_cvt_scalef32_sr_pk_fp4_{wide_name}"));
    let rows = if from == F32 { 2 } else { 1 };
    for part in 0..4_usize {
        let sel = format!("op_sel:[0,0,{},{}]", part & 1, part >> 1);
        list.push(Case {
            name,
            text: format!("{name} v{DST}, {}, v{B}, v{C} {sel}", rows_text(A, rows)),
            dst: (DST, 1),
            src: vec![(A, t), (A + 1, t), (C, T::Mask)],
            mode: 0xf0,
            f: Box::new(move |x| {
                let field = |index: usize| {
                    let value = element(x, A, from, index).scale(-scale_of(x.row(C)));
                    let random = [x.row(B), next_random(x.row(B))][index];
                    one(8 * part + 4 * index, E2M1, stochastic(E2M1, value, random, true))
                };
                vec![field(0), field(1)]
            }),
        });
    }
}

fn sixes_down(list: &mut Vec<Case>, wide_name: &str, from: Format, t: T) {
    let rows = from.bits() as usize;
    for (narrow_name, to) in [("fp6", E2M3), ("bf6", E3M2)] {
        let src = || -> Vec<(usize, T)> {
            (A..A + rows).map(|row| (row, t)).chain([(C, T::Mask)]).collect()
        };
        let name = leak(format!("v_cvt_scalef32_pk32_{narrow_name}_{wide_name}"));
        list.push(Case {
            name,
            text: format!("{name} {}, {}, v{C}", rows_text(DST, 6), rows_text(A, rows)),
            dst: (DST, 6),
            src: src(),
            mode: 0xf0,
            f: Box::new(move |x| {
                let field = |index: usize| {
                    let value = element(x, A, from, index).scale(-scale_of(x.row(C)));
                    one(6 * index, to, narrowed(to, value, true))
                };
                (0..32).map(field).collect()
            }),
        });
        let name = leak(format!("v_cvt_scalef32_sr_pk32_{narrow_name}_{wide_name}"));
        let random_row = C + 2;
        let operands = [rows_text(DST, 6), rows_text(A, rows)].join(", ");
        list.push(Case {
            name,
            text: format!("{name} {operands}, v{random_row}, v{C}"),
            dst: (DST, 6),
            src: src(),
            mode: 0xf0,
            f: Box::new(move |x| {
                let mut random = x.row(random_row);
                let mut fields = Vec::new();
                for index in 0..32 {
                    let value = element(x, A, from, index).scale(-scale_of(x.row(C)));
                    fields.push(one(6 * index, to, stochastic(to, value, random, true)));
                    random = next_random(random);
                }
                fields
            }),
        });
    }
}

fn stochastic_halves() -> Vec<Case> {
    let mut list = Vec::new();
    for (name, to) in [("v_cvt_sr_f16_f32", F16), ("v_cvt_sr_bf16_f32", BF16)] {
        for high in 0..2_usize {
            list.push(Case {
                name,
                text: format!("{name} v{DST}, v{A}, v{B} op_sel:[0,0,{high}]"),
                dst: (DST, 1),
                src: vec![(A, T::F32)],
                mode: 0xf0,
                f: Box::new(move |x| {
                    let any = stochastic(to, F32.value(x.row(A)), x.row(B), false);
                    vec![one(16 * high, to, any)]
                }),
            });
        }
    }
    list
}

/// The value of a truth table for each bit of three operands.
fn truth(table: u64, a: u64, b: u64, c: u64, width: u32) -> u64 {
    (0..width).fold(0, |all, bit| {
        let index = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | c >> bit & 1;
        all | (table >> index & 1) << bit
    })
}

fn exact(at: usize, width: u32, value: u64) -> Field {
    Field { at, width, any: vec![value], nan: None }
}

fn logic_and_sums() -> Vec<Case> {
    let mut list = Vec::new();
    for table in [0x00_u64, 0x27, 0x96, 0xe8, 0xca, 0xff, 0x80, 0x01] {
        list.push(Case {
            name: "v_bitop3_b32",
            text: format!("v_bitop3_b32 v{DST}, v{A}, v{B}, v{C} bitop3:{table:#x}"),
            dst: (DST, 1),
            src: vec![],
            mode: 0xf0,
            f: Box::new(move |x| {
                vec![exact(0, 32, truth(table, x.row(A), x.row(B), x.row(C), 32))]
            }),
        });
        for sel in 0..4_u64 {
            let bit = move |n: u64| sel >> n & 1;
            // The third source is always low, the destination's half is the first source's.
            let text = format!(
                "v_bitop3_b16 v{DST}, v{A}, v{B}, v{C} bitop3:{table:#x} op_sel:[{},{},0,{}]",
                bit(0),
                bit(1),
                bit(0)
            );
            list.push(Case {
                name: "v_bitop3_b16",
                text,
                dst: (DST, 1),
                src: vec![],
                mode: 0xf0,
                f: Box::new(move |x| {
                    let half = |row: usize, high: u64| x.row(row) >> (16 * high) & 0xffff;
                    let (a, b) = (half(A, bit(0)), half(B, bit(1)));
                    let value = truth(table, a, b, half(C, 0), 16);
                    let other = exact(16 * (1 - bit(0)) as usize, 16, 0);
                    // Whether the other half is kept or cleared is not documented.
                    vec![exact(16 * bit(0) as usize, 16, value), Field { any: vec![], ..other }]
                }),
            });
        }
    }
    list.push(Case {
        name: "v_mqsad_u32_u8",
        text: format!(
            "v_mqsad_u32_u8 {}, {}, v{B}, {}",
            rows_text(DST, 4),
            rows_text(A, 2),
            rows_text(C, 4)
        ),
        dst: (DST, 4),
        src: vec![],
        mode: 0xf0,
        f: Box::new(move |x| {
            let data = x.row(A) | x.row(A + 1) << 32;
            let field = |index: usize| {
                let sum = (0..4).fold(x.row(C + index), |sum, byte| {
                    let reference = x.row(B) >> (8 * byte) & 0xff;
                    let value = data >> (8 * (byte + index)) & 0xff;
                    sum + if reference == 0 { 0 } else { value.abs_diff(reference) }
                });
                exact(32 * index, 32, sum & 0xffff_ffff)
            };
            (0..4).map(field).collect()
        }),
    });
    list
}

fn cases() -> Vec<Case> {
    let mut list = eight_bits();
    list.extend(scaled_up());
    list.extend(scaled_down());
    list.extend(stochastic_halves());
    list.extend(logic_and_sums());
    list
}

/// Lines of this file, for the list of what is covered.
pub fn lines() -> Vec<String> {
    let mut list: Vec<String> = cases().into_iter().map(|case| case.text).collect();
    list.extend(scalar_function_lines());
    list
}

/// A scale: exponents near one, whatever sign and fraction.
fn sample_scale(random: &mut Random) -> u32 {
    (random.bits() as u32) & 0x807f_ffff | (112 + random.below(30) as u32) << 23
}

fn run(bench: &mut Bench, line: usize, case: &Case, random: &mut Random) -> Result<(), String> {
    const ROWS: usize = 128;
    for wave in 0..8 {
        for row in 0..ROWS {
            for lane in 0..64 {
                bench.state.v[row][lane] = random.bits() as u32;
            }
        }
        for (row, t) in &case.src {
            for lane in 0..64 {
                bench.state.v[*row][lane] = match t {
                    T::Mask => sample_scale(random),
                    t => t.sample(random) as u32,
                };
            }
        }
        if wave % 4 == 3 {
            // No random bits at all: stochastic rounding truncates.
            bench.state.v[B] = [0; 64];
        }
        let exec = [u64::MAX, random.bits(), u64::MAX, u64::MAX][wave % 4];
        bench.set_exec(exec);
        bench.state.mode = case.mode;
        bench.sync_rows(0, ROWS);
        bench.sync_scalars();
        bench.step(line)?;
        for lane in 0..bench.state.lanes {
            if bench.state.on(lane) {
                settle(bench, case, lane)?;
            }
        }
        let rows = if wave == 0 { 0..NAMED } else { 0..ROWS };
        if let Some(difference) = bench.difference(rows) {
            return Err(difference);
        }
    }
    Ok(())
}

fn settle(bench: &mut Bench, case: &Case, lane: usize) -> Result<(), String> {
    let state = &bench.state;
    let read = |row: usize| u64::from(state.v[row][lane]);
    let context = Context { chip: state.chip, mode: state.mode, rows: &read };
    let fields = (case.f)(&context);
    let mut changes = Vec::new();
    for field in &fields {
        let row = case.dst.0 + field.at / 32;
        let next = (row + 1).min(NAMED - 1);
        let wide = u64::from(bench.wave.rows[row].0[lane])
            | u64::from(bench.wave.rows[next].0[lane]) << 32;
        let got = wide >> (field.at % 32) & ((1 << field.width) - 1);
        let nan = field.nan.is_some_and(|format| {
            format.is_nan(got) && field.any.iter().any(|bits| format.is_nan(*bits))
        });
        let zero = field.nan.is_some_and(|format| {
            let zero = |bits: u64| {
                compare(format.value(bits), Num::from_f64(0.0)).is_some()
                    && format.value(bits).is_zero()
            };
            zero(got) && field.any.contains(&got)
        });
        if !(field.any.is_empty() || field.any.contains(&got) || nan || zero) {
            let sources: Vec<String> =
                [A, A + 1, B, C].map(|row| format!("{:#x}", read(row))).into();
            return Err(format!(
                "lane {lane} bit {}: {got:#x}, should be one of {:x?}; sources {}",
                field.at,
                field.any,
                sources.join(" ")
            ));
        }
        changes.push((row, field.at % 32, field.width, got));
    }
    for (row, at, width, value) in changes {
        let mask = ((1_u64 << width) - 1) << at;
        let old = bench.state.get(row, 2, lane);
        bench.state.set(row, 2, lane, old & !mask | value << at & mask);
    }
    Ok(())
}

/// gfx12's scalar forms of transcendental functions: within a unit of the host's result.
#[test]
fn scalar_functions() {
    let functions: [(&str, fn(f64) -> f64); 5] = [
        ("exp", f64::exp2),
        ("log", f64::log2),
        ("rcp", |x| 1.0 / x),
        ("rsq", |x| 1.0 / x.sqrt()),
        ("sqrt", f64::sqrt),
    ];
    let lines = scalar_function_lines();
    let mut bench = Bench::new(Chip::Gfx1201, 32, &lines);
    let report = Report::default();
    for (line, text) in lines.iter().enumerate() {
        let name = text.split(' ').next().unwrap_or_default();
        let (_, f) = functions[line / 2];
        let (format, t) = [(F32, T::F32), (F16, T::F16)][line % 2];
        let mut random = Random::of(text);
        for _ in 0..400 {
            let bits = t.sample(&mut random);
            bench.state.s[2] = bits as u32;
            bench.sync_scalars();
            let outcome = bench.step(line).err();
            let got = u64::from(bench.wave.sgpr[10]);
            bench.state.s[10] = got as u32;
            let want = format.round(Num::from_f64(f(format.value(bits).to_f64())), Round::Even);
            let odd = format.is_denormal(bits) || format.is_denormal(want);
            let near = got.abs_diff(want) <= 1;
            let nan = format.is_nan(got) && format.is_nan(want);
            let wrong = outcome
                .or_else(|| bench.difference(0..0))
                .or_else(|| (!(near || nan || odd)).then(|| format!("{got:#x}, not {want:#x}")));
            if let Some(wrong) = wrong {
                report.fail(Chip::Gfx1201, name, || format!("{text} of {bits:#x}: {wrong}"));
                bench.resync();
            }
            report.count();
        }
    }
    report.finish(0);
}

fn scalar_function_lines() -> Vec<String> {
    let names = ["exp", "log", "rcp", "rsq", "sqrt"];
    let both = |name: &str| ["f32", "f16"].map(|t| format!("v_s_{name}_{t} s10, s2"));
    names.iter().flat_map(|name| both(name)).collect()
}

#[test]
fn parts_of_registers() {
    let report = Report::default();
    for chip in Chip::ALL {
        let mut list = cases();
        list.retain(|case| wanted(case.name));
        let lines: Vec<String> = list.iter().map(|case| case.text.clone()).collect();
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let mut bench = Bench::new(chip, lanes, &lines);
        for (line, case) in list.iter().enumerate() {
            if !bench.has(line) {
                continue;
            }
            let mut random = Random::of(&case.text);
            if let Err(text) = run(&mut bench, line, case, &mut random) {
                report.fail(chip, case.name, || format!("{}: {text}", case.text));
                bench.resync();
            }
            report.count();
        }
    }
    report.finish(if std::env::var("CONFORM_ONLY").is_ok() { 0 } else { 150 });
}
