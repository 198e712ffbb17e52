//! Matrix instructions: MFMA, SMFMAC, WMMA and SWMMAC.
//!
//! A form says which element of a matrix each lane holds where. Small integers, whose products and
//! sums are exact in every format, prove that layout together with the identity matrix; random
//! numbers are compared with the exact sum within what any order of accumulation may lose. RDNA 3's
//! sums are not exact even for small integers: they are compared bit by bit with what was measured.

use waveloom_emulator::Chip;

use crate::exact::{
    BF16, E2M1, E2M3, E3M2, E4M3, E4M3_FNUZ, E5M2, E5M2_FNUZ, F16, F32, F64, Format, Num, Round,
};
use crate::machine::{AGPR, Bench, NAMED, Random, Report, wanted};
use crate::measured;
use crate::memory::range;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Float(Format),
    /// Single precision whose fraction may lose bits before it is multiplied.
    Reduced,
    /// Bits and whether they have a sign.
    Int(u32, bool),
}

impl Kind {
    fn bits(self) -> usize {
        match self {
            Kind::Float(format) => format.bits() as usize,
            Kind::Reduced => 32,
            Kind::Int(bits, _) => bits as usize,
        }
    }

    fn value(self, bits: u64) -> f64 {
        match self {
            Kind::Float(format) => format.value(bits).to_f64(),
            Kind::Reduced => F32.value(bits).to_f64(),
            Kind::Int(width, signed) => {
                let negative = signed && bits >> (width - 1) & 1 == 1;
                bits as f64 - if negative { 2_f64.powi(width as i32) } else { 0.0 }
            }
        }
    }

    /// The pattern of a small integer.
    fn pattern(self, value: i64) -> u64 {
        match self {
            Kind::Float(format) => format.round(Num::from_f64(value as f64), Round::Even),
            Kind::Reduced => F32.round(Num::from_f64(value as f64), Round::Even),
            Kind::Int(width, _) => value as u64 & ((1 << width) - 1),
        }
    }

    /// Small integers that the kind has.
    fn small(self, random: &mut Random) -> u64 {
        let low = match self {
            Kind::Int(_, false) => 0,
            _ => -2,
        };
        self.pattern(low + random.below(5) as i64)
    }

    /// A number whose products neither overflow nor vanish.
    fn sample(self, random: &mut Random) -> u64 {
        match self {
            Kind::Int(width, _) => random.bits() & ((1 << width) - 1),
            Kind::Float(_) | Kind::Reduced => {
                let value = random.bits() as i64 as f64 / 2_f64.powi(63);
                let format = match self {
                    Kind::Float(format) => format,
                    _ => F32,
                };
                let spread = 2_f64.powi(random.below(6) as i32 - 3);
                format.round(Num::from_f64(value * spread), Round::Even)
            }
        }
    }
}

/// Where an element of a matrix is: row, column, block.
type At = (usize, usize, usize);

/// The layout and the types of an instruction.
struct Form {
    name: String,
    text: String,
    /// First rows of A, B, C, D and of the index or of the scales.
    rows: [usize; 4],
    extra: [usize; 2],
    /// Rows of A, columns of B, products of a sum, matrices.
    m: usize,
    n: usize,
    k: usize,
    blocks: usize,
    kinds: [Kind; 3],
    /// Elements of A, B and C in a lane.
    count: [usize; 3],
    a: fn(&Form, usize, usize) -> Option<At>,
    b: fn(&Form, usize, usize) -> Option<At>,
    c: fn(&Form, usize, usize) -> At,
    /// Bits between the elements of C: twice their own where only one half is used.
    c_step: usize,
    c_shift: usize,
    /// C is a constant.
    constant: Option<f64>,
    /// Block of A that a block uses instead of its own.
    broadcast: (u32, usize),
    /// Permutation of the lanes of B.
    lanes_of_b: usize,
    clamp: bool,
    /// A has two of every four elements; index bits start here.
    sparse: Option<usize>,
    /// Bytes of the scales of A and of B.
    scales: Option<[usize; 2]>,
    /// Signs of A, B and C; the absolute value of C.
    negate: [bool; 3],
    absolute: bool,
    /// Lanes 16 to 31 (and beyond) hold what lanes 0 to 15 hold.
    duplicated: bool,
}

impl Form {
    fn registers(&self, which: usize) -> usize {
        let bits = match which {
            2 => self.count[2] * self.c_step,
            _ => self.count[which] * self.kinds[which].bits(),
        };
        bits.div_ceil(32)
    }
}

fn groups_a(form: &Form, lane: usize, e: usize) -> Option<At> {
    let group = lane / form.m;
    if form.blocks > 1 {
        return Some((lane % form.m, e, group));
    }
    Some((lane % form.m, group * form.count[0] + e, 0))
}

fn groups_b(form: &Form, lane: usize, e: usize) -> Option<At> {
    let group = lane / form.n;
    if form.blocks > 1 {
        return Some((e, lane % form.n, group));
    }
    Some((group * form.count[1] + e, lane % form.n, 0))
}

/// Two runs of 16 bytes, half of the products apart.
fn runs_a(form: &Form, lane: usize, e: usize) -> Option<At> {
    Some((lane % form.m, lane / form.m * 16 + e % 16 + e / 16 * form.k / 2, 0))
}

fn runs_b(form: &Form, lane: usize, e: usize) -> Option<At> {
    Some((lane / form.n * 16 + e % 16 + e / 16 * form.k / 2, lane % form.n, 0))
}

fn mfma_c(form: &Form, lane: usize, e: usize) -> At {
    match form.m {
        32 => {
            let r = e % 16;
            (8 * (r / 4) + 4 * (lane / 32) + r % 4, lane % 32, e / 16)
        }
        16 => (4 * (lane / 16) + e % 4, lane % 16, e / 4),
        _ => (e, lane % 4, lane / 4),
    }
}

fn double_a(_: &Form, lane: usize, _: usize) -> Option<At> {
    Some((lane % 4, lane / 16, lane / 4 % 4))
}

fn double_b(_: &Form, lane: usize, _: usize) -> Option<At> {
    Some((lane / 16, lane % 4, lane / 4 % 4))
}

fn double_c(form: &Form, lane: usize, e: usize) -> At {
    if form.m == 16 {
        return (4 * e + lane / 16, lane % 16, 0);
    }
    (lane / 16, lane % 4, lane / 4 % 4)
}

/// MFMA by the names of gfx90a, whose blocks are not in the name.
const OLD: &[(&str, usize)] = &[
    ("v_mfma_f32_32x32x1f32", 2),
    ("v_mfma_f32_16x16x1f32", 4),
    ("v_mfma_f32_4x4x1f32", 16),
    ("v_mfma_f32_32x32x2f32", 1),
    ("v_mfma_f32_16x16x4f32", 1),
    ("v_mfma_f32_32x32x4f16", 2),
    ("v_mfma_f32_16x16x4f16", 4),
    ("v_mfma_f32_4x4x4f16", 16),
    ("v_mfma_f32_32x32x8f16", 1),
    ("v_mfma_f32_16x16x16f16", 1),
    ("v_mfma_i32_32x32x4i8", 2),
    ("v_mfma_i32_16x16x4i8", 4),
    ("v_mfma_i32_4x4x4i8", 16),
    ("v_mfma_i32_32x32x8i8", 1),
    ("v_mfma_i32_16x16x16i8", 1),
    ("v_mfma_f32_32x32x4bf16_1k", 2),
    ("v_mfma_f32_16x16x4bf16_1k", 4),
    ("v_mfma_f32_4x4x4bf16_1k", 16),
    ("v_mfma_f32_32x32x8bf16_1k", 1),
    ("v_mfma_f32_16x16x16bf16_1k", 1),
    ("v_mfma_f32_32x32x2bf16", 2),
    ("v_mfma_f32_16x16x2bf16", 4),
    ("v_mfma_f32_4x4x2bf16", 16),
    ("v_mfma_f32_32x32x4bf16", 1),
    ("v_mfma_f32_16x16x8bf16", 1),
    ("v_mfma_f64_16x16x4f64", 1),
    ("v_mfma_f64_4x4x4f64", 4),
];

/// MFMA by the names of gfx942 and gfx950.
const NEW: &[(&str, usize)] = &[
    ("v_mfma_f32_32x32x1_2b_f32", 2),
    ("v_mfma_f32_16x16x1_4b_f32", 4),
    ("v_mfma_f32_4x4x1_16b_f32", 16),
    ("v_mfma_f32_32x32x2_f32", 1),
    ("v_mfma_f32_16x16x4_f32", 1),
    ("v_mfma_f32_32x32x4_2b_f16", 2),
    ("v_mfma_f32_16x16x4_4b_f16", 4),
    ("v_mfma_f32_4x4x4_16b_f16", 16),
    ("v_mfma_f32_32x32x8_f16", 1),
    ("v_mfma_f32_16x16x16_f16", 1),
    ("v_mfma_f32_32x32x4_2b_bf16", 2),
    ("v_mfma_f32_16x16x4_4b_bf16", 4),
    ("v_mfma_f32_4x4x4_16b_bf16", 16),
    ("v_mfma_f32_32x32x8_bf16", 1),
    ("v_mfma_f32_16x16x16_bf16", 1),
    ("v_mfma_i32_32x32x4_2b_i8", 2),
    ("v_mfma_i32_16x16x4_4b_i8", 4),
    ("v_mfma_i32_4x4x4_16b_i8", 16),
    ("v_mfma_i32_32x32x16_i8", 1),
    ("v_mfma_i32_16x16x32_i8", 1),
    ("v_mfma_f32_16x16x8_xf32", 1),
    ("v_mfma_f32_32x32x4_xf32", 1),
    ("v_mfma_f64_16x16x4_f64", 1),
    ("v_mfma_f64_4x4x4_4b_f64", 4),
    ("v_mfma_f32_16x16x32_fp8_fp8", 1),
    ("v_mfma_f32_16x16x32_fp8_bf8", 1),
    ("v_mfma_f32_16x16x32_bf8_fp8", 1),
    ("v_mfma_f32_16x16x32_bf8_bf8", 1),
    ("v_mfma_f32_32x32x16_fp8_fp8", 1),
    ("v_mfma_f32_32x32x16_fp8_bf8", 1),
    ("v_mfma_f32_32x32x16_bf8_fp8", 1),
    ("v_mfma_f32_32x32x16_bf8_bf8", 1),
    ("v_mfma_f32_16x16x32_f16", 1),
    ("v_mfma_f32_32x32x16_f16", 1),
    ("v_mfma_f32_16x16x32_bf16", 1),
    ("v_mfma_f32_32x32x16_bf16", 1),
    ("v_mfma_i32_16x16x64_i8", 1),
    ("v_mfma_i32_32x32x32_i8", 1),
];

/// The same by other names, which LLVM's assembler takes for those of gfx942 and gfx950. On gfx90a
/// some are names of forms with fewer blocks.
const ALIASES: &[(&str, usize)] = &[
    ("v_mfma_f32_32x32x4bf16", 2),
    ("v_mfma_f32_16x16x4bf16", 4),
    ("v_mfma_f32_4x4x4bf16", 16),
    ("v_mfma_f32_32x32x8bf16", 1),
    ("v_mfma_f32_16x16x16bf16", 1),
    ("v_mfma_i32_32x32x16i8", 1),
    ("v_mfma_i32_16x16x32i8", 1),
    ("v_mfma_f32_16x16x8xf32", 1),
    ("v_mfma_f32_32x32x4xf32", 1),
    ("v_mfma_f32_16x16x32f16", 1),
    ("v_mfma_f32_32x32x16f16", 1),
    ("v_mfma_f32_16x16x32bf16", 1),
    ("v_mfma_f32_32x32x16bf16", 1),
    ("v_mfma_i32_16x16x64i8", 1),
    ("v_mfma_i32_32x32x32i8", 1),
];

const SPARSE: &[&str] = &[
    "v_smfmac_f32_16x16x32_f16",
    "v_smfmac_f32_32x32x16_f16",
    "v_smfmac_f32_16x16x32_bf16",
    "v_smfmac_f32_32x32x16_bf16",
    "v_smfmac_i32_16x16x64_i8",
    "v_smfmac_i32_32x32x32_i8",
    "v_smfmac_f32_16x16x64_fp8_fp8",
    "v_smfmac_f32_16x16x64_fp8_bf8",
    "v_smfmac_f32_16x16x64_bf8_fp8",
    "v_smfmac_f32_16x16x64_bf8_bf8",
    "v_smfmac_f32_32x32x32_fp8_fp8",
    "v_smfmac_f32_32x32x32_fp8_bf8",
    "v_smfmac_f32_32x32x32_bf8_fp8",
    "v_smfmac_f32_32x32x32_bf8_bf8",
    "v_smfmac_f32_16x16x64_f16",
    "v_smfmac_f32_32x32x32_f16",
    "v_smfmac_f32_16x16x64_bf16",
    "v_smfmac_f32_32x32x32_bf16",
    "v_smfmac_i32_16x16x128_i8",
    "v_smfmac_i32_32x32x64_i8",
    "v_smfmac_f32_16x16x128_fp8_fp8",
    "v_smfmac_f32_16x16x128_fp8_bf8",
    "v_smfmac_f32_16x16x128_bf8_fp8",
    "v_smfmac_f32_16x16x128_bf8_bf8",
    "v_smfmac_f32_32x32x64_fp8_fp8",
    "v_smfmac_f32_32x32x64_fp8_bf8",
    "v_smfmac_f32_32x32x64_bf8_fp8",
    "v_smfmac_f32_32x32x64_bf8_bf8",
];

fn kind_of(name: &str, chip: Chip) -> Kind {
    let fnuz = chip == Chip::Gfx942;
    match name {
        "f64" => Kind::Float(F64),
        "f32" => Kind::Float(F32),
        "xf32" => Kind::Reduced,
        "f16" => Kind::Float(F16),
        "bf16" => Kind::Float(BF16),
        "fp8" => Kind::Float(if fnuz { E4M3_FNUZ } else { E4M3 }),
        "bf8" => Kind::Float(if fnuz { E5M2_FNUZ } else { E5M2 }),
        "fp6" => Kind::Float(E2M3),
        "bf6" => Kind::Float(E3M2),
        "fp4" => Kind::Float(E2M1),
        "i32" => Kind::Int(32, true),
        "i8" => Kind::Int(8, true),
        "iu8" => Kind::Int(8, false),
        "iu4" => Kind::Int(4, false),
        other => panic!("no kind {other}"),
    }
}

/// `v_mfma_f32_32x32x4_2b_bf16` to its parts.
fn parse(name: &str) -> (String, [usize; 3], String, String) {
    let rest = name.split_once('_').expect("v_").1.split_once('_').expect("a family").1;
    let (result, rest) = rest.split_once('_').expect("a result");
    let mut shape = [0; 3];
    let mut rest = rest;
    for (index, size) in shape.iter_mut().enumerate() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        *size = rest[..digits].parse().expect("a size");
        rest = &rest[digits..];
        if index < 2 {
            rest = &rest[1..];
        }
    }
    let rest = rest.trim_start_matches('_').trim_end_matches("_1k");
    let mut types: Vec<&str> = rest.split('_').filter(|part| !part.ends_with('b')).collect();
    if types.len() == 1 {
        types.push(types[0]);
    }
    (result.to_string(), shape, types[0].to_string(), types[1].to_string())
}

const A: usize = 40;
const B: usize = 60;
const C: usize = 80;
const D: usize = 120;
const EXTRA: [usize; 2] = [30, 32];

fn base_form(name: &str, kinds: [Kind; 3], shape: [usize; 3], blocks: usize) -> Form {
    let [m, n, k] = shape;
    let lanes = 64;
    Form {
        name: name.to_string(),
        text: String::new(),
        rows: [A, B, C, D],
        extra: EXTRA,
        m,
        n,
        k,
        blocks,
        kinds,
        count: [m * k * blocks / lanes, n * k * blocks / lanes, m * n * blocks / lanes],
        a: groups_a,
        b: groups_b,
        c: mfma_c,
        c_step: kinds[2].bits(),
        c_shift: 0,
        constant: None,
        broadcast: (0, 0),
        lanes_of_b: 0,
        clamp: false,
        sparse: None,
        scales: None,
        negate: [false; 3],
        absolute: false,
        duplicated: false,
    }
}

fn mfma_base(name: &str, blocks: usize, chip: Chip) -> Form {
    let (result, shape, a, b) = parse(name);
    let kinds = [kind_of(&a, chip), kind_of(&b, chip), kind_of(&result, chip)];
    let mut form = base_form(name, kinds, shape, blocks);
    if result == "f64" {
        form.c = double_c;
        if shape[0] == 4 {
            (form.a, form.b) = (double_a, double_b);
            form.count = [1, 1, 1];
        }
    }
    form
}

fn operands(form: &Form, c: &str) -> String {
    let [a, b, _, d] = form.rows;
    let text = |row: usize, which: usize| range(row, form.registers(which));
    format!("{} {}, {}, {}, {c}", form.name, text(d, 2), text(a, 0), text(b, 1))
}

fn mfma_forms(chip: Chip) -> Vec<Form> {
    let mut list = Vec::new();
    for (name, blocks) in OLD.iter().chain(NEW).chain(ALIASES) {
        let make = || mfma_base(name, *blocks, chip);
        for variant in 0..5 {
            let mut form = make();
            let c = match variant {
                // C and D are the same registers.
                1 => {
                    form.rows[2] = D;
                    range(D, form.registers(2))
                }
                // Everything in accumulation registers.
                2 => {
                    form.rows = form.rows.map(|row| row + AGPR);
                    range(C + AGPR, form.registers(2))
                }
                3 => {
                    form.constant = Some(0.0);
                    "0".to_string()
                }
                4 => {
                    let integer = matches!(form.kinds[2], Kind::Int(..));
                    form.constant = Some(if integer { -5.0 } else { 2.0 });
                    if integer { "-5".to_string() } else { "2.0".to_string() }
                }
                _ => range(C, form.registers(2)),
            };
            form.text = operands(&form, &c);
            list.push(form);
        }
        if *blocks > 1 && !name.contains("f64") {
            for (cbsz, abid) in [(1_u32, 0), (1, 1), (2, 3)] {
                if 1 << cbsz <= *blocks {
                    let mut form = make();
                    form.broadcast = (cbsz, abid);
                    let c = range(C, form.registers(2));
                    form.text = format!("{} cbsz:{cbsz} abid:{abid}", operands(&form, &c));
                    list.push(form);
                }
            }
        }
        // The patterns of B exist on gfx90a and for single precision and forms of several blocks.
        let patterns = chip == Chip::Gfx90a || *blocks > 1 || name.ends_with("_f32");
        if patterns && !name.contains("f64") && !name.contains("xf32") && !name.contains("8_") {
            for pattern in 1..8 {
                let mut form = make();
                form.lanes_of_b = pattern;
                let c = range(C, form.registers(2));
                form.text = format!("{} blgp:{pattern}", operands(&form, &c));
                list.push(form);
            }
        }
        if name.contains("f64") {
            for signs in 1..8_u32 {
                let mut form = make();
                form.negate = [0, 1, 2].map(|bit| signs >> bit & 1 == 1);
                let c = range(C, form.registers(2));
                let bit = |n: usize| u32::from(form.negate[n]);
                let neg = format!("neg:[{},{},{}]", bit(0), bit(1), bit(2));
                form.text = format!("{} {neg}", operands(&form, &c));
                list.push(form);
            }
        }
    }
    list
}

/// Formats of gfx950's mixed forms in the order of their numbers, with registers of an operand.
const MIXED: [(&str, usize); 5] = [("fp8", 8), ("bf8", 8), ("fp6", 6), ("bf6", 6), ("fp4", 4)];

fn mixed_forms(chip: Chip) -> Vec<Form> {
    let mut list = Vec::new();
    for shape in [[16, 16, 128], [32, 32, 64]] {
        for (a, (a_name, _)) in MIXED.iter().enumerate() {
            for (b, (b_name, _)) in MIXED.iter().enumerate() {
                let kinds = [kind_of(a_name, chip), kind_of(b_name, chip), kind_of("f32", chip)];
                let [m, n, k] = shape;
                let plain = format!("v_mfma_f32_{m}x{n}x{k}_f8f6f4");
                let make = |name: &str| {
                    let mut form = base_form(name, kinds, shape, 1);
                    if kinds[0].bits() == 8 {
                        form.a = runs_a;
                    }
                    if kinds[1].bits() == 8 {
                        form.b = runs_b;
                    }
                    form
                };
                let mut form = make(&plain);
                let c = range(C, form.registers(2));
                form.text = format!("{} cbsz:{a} blgp:{b}", operands(&form, &c));
                list.push(form);
                let scaled = format!("v_mfma_scale_f32_{m}x{n}x{k}_f8f6f4");
                for (x, y) in [(0, 0), (1, 2), (3, 1)] {
                    let mut form = make(&scaled);
                    form.scales = Some([x, y]);
                    let scales = format!("v{}, v{}", EXTRA[0], EXTRA[1]);
                    let sel = format!(
                        "op_sel:[{},{},0] op_sel_hi:[{},{},0]",
                        x & 1,
                        y & 1,
                        x >> 1,
                        y >> 1
                    );
                    form.text =
                        format!("{}, {scales} {sel} cbsz:{a} blgp:{b}", operands(&form, &c));
                    list.push(form);
                }
            }
        }
    }
    list
}

/// Places of a sparse A: two elements of each four, in the order of the elements of B.
fn sparse_a(form: &Form, lane: usize, e: usize) -> Option<At> {
    let group = lane / form.m;
    Some((lane % form.m, 2 * (group * form.count[0] + e / 2 * 2), 0))
}

fn sparse_forms(chip: Chip) -> Vec<Form> {
    let mut list = Vec::new();
    for name in SPARSE {
        let (result, shape, a, b) = parse(name);
        let kinds = [kind_of(&a, chip), kind_of(&b, chip), kind_of(&result, chip)];
        let index_bits = shape[0] * shape[2] / 64;
        for set in 0..32 / index_bits {
            let mut form = base_form(name, kinds, shape, 1);
            form.count[0] /= 2;
            form.a = sparse_a;
            form.rows[2] = D;
            form.sparse = Some(set * index_bits);
            let [a, b, _, d] = form.rows;
            let text = |row: usize, which: usize| range(row, form.registers(which));
            form.text = format!(
                "{name} {}, {}, {}, v{}",
                text(d, 2),
                text(a, 0),
                text(b, 1),
                form.extra[0]
            );
            if set > 0 {
                form.text += &format!(" abid:{set}");
            }
            list.push(form);
        }
    }
    list
}

const WMMA: &[&str] = &[
    "v_wmma_f32_16x16x16_f16",
    "v_wmma_f32_16x16x16_bf16",
    "v_wmma_f16_16x16x16_f16",
    "v_wmma_bf16_16x16x16_bf16",
    "v_wmma_i32_16x16x16_iu8",
    "v_wmma_i32_16x16x16_iu4",
    "v_wmma_i32_16x16x32_iu4",
    "v_wmma_f32_16x16x16_fp8_fp8",
    "v_wmma_f32_16x16x16_fp8_bf8",
    "v_wmma_f32_16x16x16_bf8_fp8",
    "v_wmma_f32_16x16x16_bf8_bf8",
];

const SWMMAC: &[&str] = &[
    "v_swmmac_f32_16x16x32_f16",
    "v_swmmac_f32_16x16x32_bf16",
    "v_swmmac_f16_16x16x32_f16",
    "v_swmmac_bf16_16x16x32_bf16",
    "v_swmmac_i32_16x16x32_iu8",
    "v_swmmac_i32_16x16x32_iu4",
    "v_swmmac_i32_16x16x64_iu4",
    "v_swmmac_f32_16x16x32_fp8_fp8",
    "v_swmmac_f32_16x16x32_fp8_bf8",
    "v_swmmac_f32_16x16x32_bf8_fp8",
    "v_swmmac_f32_16x16x32_bf8_bf8",
];

/// gfx11: each lane has a whole row of A or column of B.
fn row_a(_: &Form, lane: usize, e: usize) -> Option<At> {
    Some((lane % 16, e, 0))
}

fn column_b(_: &Form, lane: usize, e: usize) -> Option<At> {
    Some((e, lane % 16, 0))
}

fn c_gfx11_32(_: &Form, lane: usize, e: usize) -> At {
    (2 * e + lane / 16, lane % 16, 0)
}

fn c_gfx11_64(_: &Form, lane: usize, e: usize) -> At {
    (4 * e + lane / 16, lane % 16, 0)
}

fn c_gfx12_32(_: &Form, lane: usize, e: usize) -> At {
    (8 * (lane / 16) + e, lane % 16, 0)
}

fn c_gfx12_64(_: &Form, lane: usize, e: usize) -> At {
    (8 * (lane / 16 % 2) + 4 * (lane / 32) + e, lane % 16, 0)
}

/// gfx12: products shared out among the groups of 16 lanes. Beyond the last one, lanes are ignored.
fn part_a(form: &Form, lane: usize, e: usize) -> Option<At> {
    let k = lane / 16 * form.count[0] + e;
    (k < form.k).then_some((lane % 16, k, 0))
}

fn part_b(form: &Form, lane: usize, e: usize) -> Option<At> {
    let k = lane / 16 * form.count[1] + e;
    (k < form.k).then_some((k, lane % 16, 0))
}

fn wmma_base(name: &str, chip: Chip, lanes: usize) -> Form {
    let (result, shape, a, b) = parse(name);
    let kinds = [kind_of(&a, chip), kind_of(&b, chip), kind_of(&result, chip)];
    let mut form = base_form(name, kinds, shape, 1);
    let gfx12 = chip == Chip::Gfx1201;
    let elements = 256 / lanes;
    let ab = if gfx12 { (16 * shape[2] / lanes).max(32 / kinds[0].bits()) } else { shape[2] };
    form.count = [ab, ab, elements];
    form.duplicated = !gfx12;
    (form.a, form.b) = (row_a, column_b);
    if gfx12 {
        (form.a, form.b) = (part_a, part_b);
    }
    form.c = match (gfx12, lanes) {
        (false, 32) => c_gfx11_32,
        (false, _) => c_gfx11_64,
        (true, 32) => c_gfx12_32,
        (true, _) => c_gfx12_64,
    };
    if !gfx12 {
        form.c_step = 32;
    }
    form
}

fn wmma_forms(chip: Chip, lanes: usize) -> Vec<Form> {
    let mut list = Vec::new();
    for name in WMMA {
        let make = || wmma_base(name, chip, lanes);
        let integer = name.contains("iu");
        let short = make().kinds[2].bits() == 16;
        for variant in 0..4 {
            let mut form = make();
            let c = match variant {
                1 => {
                    form.rows[2] = D;
                    range(D, form.registers(2))
                }
                2 => {
                    form.constant = Some(0.0);
                    "0".to_string()
                }
                3 => {
                    form.constant = Some(if integer { 7.0 } else { 1.0 });
                    if integer { "7".to_string() } else { "1.0".to_string() }
                }
                _ => range(C, form.registers(2)),
            };
            form.text = operands(&form, &c);
            list.push(form);
        }
        let c = |form: &Form| range(C, form.registers(2));
        if integer {
            for signs in 0..4_u32 {
                for clamp in [false, true] {
                    let mut form = make();
                    for side in 0..2 {
                        let width = form.kinds[side].bits() as u32;
                        form.kinds[side] = Kind::Int(width, signs >> side & 1 == 1);
                    }
                    form.clamp = clamp;
                    let neg = format!("neg_lo:[{},{},0]", signs & 1, signs >> 1);
                    let end = if clamp { " clamp" } else { "" };
                    form.text = format!("{} {neg}{end}", operands(&form, &c(&form)));
                    list.push(form);
                }
            }
        } else if !name.contains("8_") {
            for signs in 1..8_u32 {
                let mut form = make();
                form.negate = [0, 1, 2].map(|bit| signs >> bit & 1 == 1);
                form.absolute = signs % 2 == 0;
                let bit = |n: usize| u32::from(form.negate[n]);
                let neg = format!(
                    "neg_lo:[{},{},{}] neg_hi:[{},{},{}]",
                    bit(0),
                    bit(1),
                    bit(2),
                    bit(0),
                    bit(1),
                    u32::from(form.absolute)
                );
                form.text = format!("{} {neg}", operands(&form, &c(&form)));
                list.push(form);
            }
        }
        if short && chip != Chip::Gfx1201 {
            let mut form = make();
            form.c_shift = 16;
            form.text = format!("{} op_sel:[0,0,1]", operands(&form, &c(&form)));
            list.push(form);
        }
    }
    list
}

fn sparse_part_a(form: &Form, lane: usize, e: usize) -> Option<At> {
    let k = 2 * (lane / 16 * form.count[0] + e / 2 * 2);
    (k < form.k).then_some((lane % 16, k, 0))
}

fn swmmac_forms(chip: Chip, lanes: usize) -> Vec<Form> {
    let mut list = Vec::new();
    for name in SWMMAC {
        // The lanes that a wave of 64 ignores make this form's layout another one.
        if lanes == 64 && name.ends_with("x32_iu4") {
            continue;
        }
        let (_, shape, _, _) = parse(name);
        let index_bits = 16 * shape[2] / lanes;
        for set in 0..32 / index_bits {
            for signs in 0..if name.contains("iu") { 4_u32 } else { 1 } {
                let mut form = wmma_base(name, chip, lanes);
                form.count[0] /= 2;
                form.a = sparse_part_a;
                form.rows[2] = D;
                form.sparse = Some(set * index_bits);
                if name.contains("iu") {
                    for side in 0..2 {
                        let width = form.kinds[side].bits() as u32;
                        form.kinds[side] = Kind::Int(width, signs >> side & 1 == 1);
                    }
                }
                let [a, b, _, d] = form.rows;
                let text = |row: usize, which: usize| range(row, form.registers(which));
                form.text = format!(
                    "{name} {}, {}, {}, v{}",
                    text(d, 2),
                    text(a, 0),
                    text(b, 1),
                    form.extra[0]
                );
                if set > 0 {
                    form.text += &format!(" index_key:{set}");
                }
                if signs > 0 {
                    form.text += &format!(" neg_lo:[{},{},0]", signs & 1, signs >> 1);
                }
                list.push(form);
            }
        }
    }
    list
}

fn read_bits(bench: &Bench, row: usize, lane: usize, at: usize, width: usize) -> u64 {
    let low = u64::from(bench.state.v[row + at / 32][lane]);
    let high = u64::from(bench.state.v[(row + at / 32 + 1).min(NAMED - 1)][lane]);
    let both = low | high << 32;
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    both >> (at % 32) & mask
}

fn write_bits(bench: &mut Bench, row: usize, lane: usize, (at, width): (usize, usize), value: u64) {
    for bit in 0..width {
        let place = &mut bench.state.v[row + (at + bit) / 32][lane];
        let mask = 1 << ((at + bit) % 32);
        *place = if value >> bit & 1 == 1 { *place | mask } else { *place & !mask };
    }
}

/// How a wave's matrices are filled.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    Small,
    Identity,
    Numbers,
}

fn fill(bench: &mut Bench, form: &Form, how: Fill, random: &mut Random) {
    for row in (0..160).chain(AGPR..AGPR + 160) {
        for lane in 0..64 {
            bench.state.v[row][lane] = random.bits() as u32;
        }
    }
    let lanes = bench.state.lanes;
    for which in 0..3 {
        let kind = form.kinds[which];
        let step = if which == 2 { form.c_step } else { kind.bits() };
        let shift = if which == 2 { form.c_shift } else { 0 };
        for lane in 0..lanes {
            for e in 0..form.count[which] {
                let at = if which == 0 { (form.a)(form, lane, e) } else { None };
                let value = match how {
                    Fill::Numbers => kind.sample(random),
                    Fill::Identity if which == 0 => {
                        let on = at.is_some_and(|(i, k, _)| i == k % form.m);
                        kind.pattern(i64::from(on))
                    }
                    _ => kind.small(random),
                };
                let place = (step * e + shift, kind.bits());
                write_bits(bench, form.rows[which], lane, place, value);
            }
        }
        if form.duplicated && which < 2 {
            for lane in 16..lanes {
                for row in form.rows[which]..form.rows[which] + form.registers(which) {
                    bench.state.v[row][lane] = bench.state.v[row][lane % 16];
                }
            }
        }
    }
    for row in form.extra {
        for lane in 0..64 {
            let scales = [0, 1, 2, 3].map(|_| 127 - 3 + random.below(7) as u32);
            let bytes = scales.iter().fold(0, |all, scale| all << 8 | scale);
            if form.scales.is_some() {
                bench.state.v[row][lane] = bytes;
            }
            if form.sparse.is_some() {
                // Two different places of four, the first one first.
                let pairs = [0b0100, 0b1000, 0b1100, 0b1001, 0b1101, 0b1110_u32];
                let bits = (0..8).fold(0, |all, _| all << 4 | random.pick(&pairs));
                bench.state.v[row][lane] = bits;
            }
        }
    }
}

/// A matrix as numbers, with the largest sum of magnitudes beside it.
struct Product {
    sum: Vec<f64>,
    size: Vec<f64>,
    a: Vec<f64>,
    b: Vec<f64>,
}

impl Product {
    /// An element as RDNA 3 sums it up, C included.
    fn measured(&self, form: &Form, (i, j): (usize, usize), formats: [Format; 2], c: f64) -> f64 {
        let part = |matrix: &[f64], at: usize| matrix[at * form.k..][..form.k].to_vec();
        measured::rdna3(formats[0], formats[1], &part(&self.a, i), &part(&self.b, j), c)
    }
}

/// Formats of the factors and of the result, where the sum is what was measured on RDNA 3.
fn measured_formats(chip: Chip, form: &Form) -> Option<[Format; 2]> {
    match (chip, form.kinds) {
        (Chip::Gfx1100 | Chip::Gfx1151, [Kind::Float(from), _, Kind::Float(to)]) => {
            Some([from, to])
        }
        _ => None,
    }
}

/// The value of an element; gfx90a takes denormal halves and bfloat16 as zeros.
fn taken(chip: Chip, kind: Kind, bits: u64) -> f64 {
    match kind {
        Kind::Float(format)
            if chip == Chip::Gfx90a && format.bits() == 16 && format.is_denormal(bits) =>
        {
            0.0
        }
        _ => kind.value(bits),
    }
}

fn scale_value(byte: u64) -> f64 {
    2_f64.powi(byte as i32 - 127)
}

fn multiply(bench: &Bench, form: &Form) -> Product {
    let (m, n, k, blocks) = (form.m, form.n, form.k, form.blocks);
    let mut a = vec![0.0; blocks * m * k];
    let mut b = vec![0.0; blocks * n * k];
    for lane in 0..bench.state.lanes {
        for e in 0..form.count[0] {
            let Some((i, at, block)) = (form.a)(form, lane, e) else { continue };
            let width = form.kinds[0].bits();
            let bits = read_bits(bench, form.rows[0], lane, e * width, width);
            let mut value = taken(bench.state.chip, form.kinds[0], bits);
            let mut at = at;
            if let Some(start) = form.sparse {
                at += read_bits(bench, form.extra[0], lane, start + 2 * e, 2) as usize;
            }
            if let Some([byte, _]) = form.scales {
                // The lane with the scale is that of the block of 32 products.
                let from = i + form.m * (at / 32);
                value *= scale_value(read_bits(bench, form.extra[0], from, 8 * byte, 8));
            }
            a[(block * m + i) * k + at] = if form.negate[0] { -value } else { value };
        }
        for e in 0..form.count[1] {
            let Some((at, j, block)) = (form.b)(form, lane, e) else { continue };
            let from = match form.lanes_of_b {
                0 => lane,
                1 => lane % 32,
                2 => 32 + lane % 32,
                3 => (lane + 16) % 64,
                pattern => 16 * (pattern - 4) + lane % 16,
            };
            let width = form.kinds[1].bits();
            let bits = read_bits(bench, form.rows[1], from, e * width, width);
            let mut value = taken(bench.state.chip, form.kinds[1], bits);
            if let Some([_, byte]) = form.scales {
                let from = j + form.n * (at / 32);
                value *= scale_value(read_bits(bench, form.extra[1], from, 8 * byte, 8));
            }
            b[(block * n + j) * k + at] = if form.negate[1] { -value } else { value };
        }
    }
    let (mut sum, mut size) = (vec![0.0; blocks * m * n], vec![0.0; blocks * m * n]);
    for block in 0..blocks {
        let (bits, chosen) = form.broadcast;
        let from = if bits == 0 { block } else { block >> bits << bits | chosen };
        for i in 0..m {
            for j in 0..n {
                let (row, column) = (&a[(from * m + i) * k..][..k], &b[(block * n + j) * k..][..k]);
                let at = (block * m + i) * n + j;
                for (x, y) in row.iter().zip(column) {
                    sum[at] += x * y;
                    size[at] += (x * y).abs();
                }
            }
        }
    }
    Product { sum, size, a, b }
}

/// What a result may be off by for each unit of the sum's magnitudes.
fn tolerance(form: &Form) -> f64 {
    let kind = form.kinds[2];
    let reduced = form.kinds[0] == Kind::Reduced;
    match kind {
        Kind::Float(F64) => form.k as f64 * 2_f64.powi(-52),
        Kind::Float(F32) if reduced => 2_f64.powi(-9),
        Kind::Float(F32) => form.k as f64 * 2_f64.powi(-23),
        // Short results may be accumulated in their own precision.
        Kind::Float(F16) => form.k as f64 * 2_f64.powi(-11),
        Kind::Float(_) => form.k as f64 * 2_f64.powi(-8),
        _ => 0.0,
    }
}

fn run(
    bench: &mut Bench,
    line: usize,
    form: &Form,
    how: Fill,
    random: &mut Random,
) -> Result<(), String> {
    fill(bench, form, how, random);
    // Lanes that are off take part all the same.
    let exec = if bench.state.chip.is_cdna() { random.bits() } else { u64::MAX };
    bench.set_exec(exec);
    bench.state.mode = 0xf0;
    bench.sync_rows(0, 160);
    bench.sync_rows(AGPR, 160);
    bench.sync_scalars();
    let product = multiply(bench, form);
    let kind = form.kinds[2];
    let measured = measured_formats(bench.state.chip, form);
    let mut results = Vec::new();
    for lane in 0..bench.state.lanes {
        for e in 0..form.count[2] {
            let (i, j, block) = (form.c)(form, lane, e);
            let at = (block * form.m + i) * form.n + j;
            let place = form.c_step * e + form.c_shift;
            let old = read_bits(bench, form.rows[2], lane, place, kind.bits());
            let mut c = form.constant.unwrap_or_else(|| kind.value(old));
            if form.absolute {
                c = c.abs();
            }
            if form.negate[2] {
                c = -c;
            }
            let want = match measured {
                Some(formats) => product.measured(form, (i, j), formats, c),
                None => product.sum[at] + c,
            };
            results.push((lane, e, want, product.size[at] + c.abs()));
        }
    }
    bench.step(line)?;
    for (lane, e, want, size) in results {
        let place = form.c_step * e + form.c_shift;
        let row = form.rows[3] + place / 32;
        let low = u64::from(bench.wave.rows[row].0[lane]);
        let high = u64::from(bench.wave.rows[row + 1].0[lane]);
        let mask = if kind.bits() == 64 { u64::MAX } else { (1 << kind.bits()) - 1 };
        let got = (low | high << 32) >> (place % 32) & mask;
        let want_bits = match kind {
            Kind::Int(..) => integer_result(want, form.clamp),
            Kind::Float(format) => format.round(Num::from_f64(want), Round::Even),
            Kind::Reduced => 0,
        };
        let exact = how != Fill::Numbers || matches!(kind, Kind::Int(..)) || measured.is_some();
        let error = (kind.value(got) - want).abs();
        let near = error <= size * tolerance(form) || kind.value(got) == kind.value(want_bits);
        let same = kind.value(got) == kind.value(want_bits);
        if !(if exact { same } else { near }) {
            let (i, j, block) = (form.c)(form, lane, e);
            return Err(format!(
                "D[{i}][{j}].{block} (lane {lane}, element {e}): {}, should be {want} ({:?})",
                kind.value(got),
                (how == Fill::Numbers).then_some("numbers")
            ));
        }
        write_bits(bench, form.rows[3], lane, (place, kind.bits()), got);
    }
    match bench.difference(0..NAMED) {
        Some(difference) => Err(difference),
        None => Ok(()),
    }
}

fn integer_result(value: f64, clamp: bool) -> u64 {
    let (low, high) = (-(2_f64.powi(31)), 2_f64.powi(31) - 1.0);
    let value = if clamp { value.clamp(low, high) } else { value };
    (value as i64 as u64) & 0xffff_ffff
}

fn check(make: fn(Chip, usize) -> Vec<Form>, at_least: usize) {
    let report = Report::default();
    for chip in Chip::ALL {
        let widths: &[u32] = if chip.is_cdna() { &[64] } else { &[32, 64] };
        for lanes in widths {
            let mut forms = make(chip, *lanes as usize);
            forms.retain(|form| wanted(&form.name));
            let lines: Vec<String> = forms.iter().map(|form| form.text.clone()).collect();
            let mut bench = Bench::new(chip, *lanes, &lines);
            for (line, form) in forms.iter().enumerate() {
                if !bench.has(line) {
                    continue;
                }
                let mut random = Random::of(&form.text);
                for how in [Fill::Small, Fill::Identity, Fill::Numbers] {
                    if let Err(text) = run(&mut bench, line, form, how, &mut random) {
                        report.fail(chip, &form.name, || format!("{}: {text}", form.text));
                        bench.resync();
                    }
                }
                report.count();
            }
        }
    }
    report.finish(if std::env::var("CONFORM_ONLY").is_ok() { 0 } else { at_least });
}

fn cdna(chip: Chip, lanes: usize, make: fn(Chip) -> Vec<Form>) -> Vec<Form> {
    if lanes == 64 && chip.is_cdna() { make(chip) } else { Vec::new() }
}

#[test]
fn matrix_core_forms() {
    check(|chip, lanes| cdna(chip, lanes, mfma_forms), 300);
}

#[test]
fn mixed_and_scaled_forms() {
    check(|chip, lanes| cdna(chip, lanes, mixed_forms), 200);
}

#[test]
fn sparse_matrix_forms() {
    check(|chip, lanes| cdna(chip, lanes, sparse_forms), 60);
}

#[test]
fn wave_matrix_forms() {
    check(|chip, lanes| if chip.is_rdna() { wmma_forms(chip, lanes) } else { Vec::new() }, 200);
}

#[test]
fn sparse_wave_matrix_forms() {
    check(
        |chip, lanes| if chip == Chip::Gfx1201 { swmmac_forms(chip, lanes) } else { Vec::new() },
        40,
    );
}

/// Lines of this file, for the list of what is covered.
pub fn lines(chip: Chip, lanes: usize) -> Vec<String> {
    let mut list = Vec::new();
    if chip.is_cdna() {
        list.extend(mfma_forms(chip));
        list.extend(mixed_forms(chip));
        list.extend(sparse_forms(chip));
    } else {
        list.extend(wmma_forms(chip, lanes));
        list.extend(swmmac_forms(chip, lanes));
    }
    list.into_iter().map(|form| form.text).collect()
}
