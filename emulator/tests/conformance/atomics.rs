//! What atomic instructions make of a value in memory.

use waveloom_emulator::Chip;

use crate::exact::{BF16, F16, F32, F64, Format, Round, add, compare};
use crate::machine::Random;
use crate::values::T;

/// An update of a value in memory.
#[derive(Clone, Copy)]
pub struct Update {
    /// 4 or 8.
    pub bytes: usize,
    /// It has a second operand.
    pub second: bool,
    /// The second operand is compared with memory.
    pub compares: bool,
    /// It adds or compares floating-point numbers.
    pub float: bool,
    /// The new value of the old one, the data and the second data.
    pub f: fn(Chip, u64, u64, u64) -> u64,
    /// Values worth trying.
    pub sample: fn(&mut Random) -> u64,
}

fn sample32(random: &mut Random) -> u64 {
    T::B32.sample(random)
}

fn sample64(random: &mut Random) -> u64 {
    T::B64.sample(random)
}

/// Numbers whose sums are neither denormal nor NaN, so that no mode matters; infinities among them.
fn sample_float(format: Format, random: &mut Random) -> u64 {
    let sign = if random.once_in(2) { format.sign() } else { 0 };
    if random.once_in(6) {
        return sign;
    }
    let exponent = (format.bias as u64 + random.below(6) as u64) << format.fraction;
    // Few bits of fraction: a difference is zero or not small.
    let fraction = (random.bits() & 7) << (format.fraction - 3);
    sign | exponent | fraction
}

fn sample_f32(random: &mut Random) -> u64 {
    sample_float(F32, random)
}

fn sample_f64(random: &mut Random) -> u64 {
    sample_float(F64, random)
}

/// Numbers to compare: also denormal ones, infinities and NaNs. NaNs have one payload of each kind,
/// because the documents do not say which of two is the first operand.
fn sample_compared(format: Format, random: &mut Random) -> u64 {
    if !random.once_in(5) {
        return sample_float(format, random);
    }
    let infinity = format.infinity();
    let sign = if random.once_in(2) { format.sign() } else { 0 };
    let denormals = [1, (1 << format.fraction) - 1];
    match random.below(5) {
        0 => infinity | quiet_bit(format),
        1 => infinity | 1,
        2 => infinity | sign,
        _ => random.pick(&denormals) | sign,
    }
}

fn compared_f32(random: &mut Random) -> u64 {
    sample_compared(F32, random)
}

fn compared_f64(random: &mut Random) -> u64 {
    sample_compared(F64, random)
}

fn sample_pk_f16(random: &mut Random) -> u64 {
    sample_float(F16, random) | sample_float(F16, random) << 16
}

fn sample_pk_bf16(random: &mut Random) -> u64 {
    sample_float(BF16, random) | sample_float(BF16, random) << 16
}

type F = fn(Chip, u64, u64, u64) -> u64;

const fn word(f: F) -> Update {
    Update { bytes: 4, second: false, compares: false, float: false, f, sample: sample32 }
}

const fn wide(f: F) -> Update {
    Update { bytes: 8, sample: sample64, ..word(f) }
}

const fn float(f: F, bytes: usize, sample: fn(&mut Random) -> u64) -> Update {
    Update { bytes, float: true, sample, ..word(f) }
}

const fn compared(update: Update) -> Update {
    Update { second: true, compares: true, ..update }
}

fn i32_of(bits: u64) -> i32 {
    bits as u32 as i32
}

fn sum(format: Format, a: u64, b: u64) -> u64 {
    format.round(add(format.value(a), format.value(b), Round::Even), Round::Even)
}

fn sum_halves(format: Format, a: u64, b: u64) -> u64 {
    sum(format, a & 0xffff, b & 0xffff) | sum(format, a >> 16, b >> 16) << 16
}

/// The bit of a NaN that makes it a quiet one.
fn quiet_bit(format: Format) -> u64 {
    1 << (format.fraction - 1)
}

/// The smaller or the larger of memory's number and the data's, by the chapters on float memory
/// atomics: -0 is below +0. Of a number and a NaN it is the number, but before gfx12 a signaling NaN
/// comes out as a quiet one.
fn extreme(chip: Chip, format: Format, memory: u64, data: u64, largest: bool) -> u64 {
    let quiet = quiet_bit(format);
    let signals = |bits| chip != Chip::Gfx1201 && format.is_signaling(bits);
    match (format.is_nan(memory), format.is_nan(data)) {
        _ if signals(memory) => memory | quiet,
        _ if signals(data) => data | quiet,
        (true, true) => data | quiet,
        (true, _) => data,
        (_, true) => memory,
        (false, false) => {
            let negative = memory & format.sign() != 0;
            let data_is_less = match compare(format.value(data), format.value(memory)) {
                Some(std::cmp::Ordering::Equal) => !negative,
                order => order == Some(std::cmp::Ordering::Less),
            };
            if data_is_less != largest { data } else { memory }
        }
    }
}

fn same(format: Format, a: u64, b: u64) -> bool {
    compare(format.value(a), format.value(b)) == Some(std::cmp::Ordering::Equal)
}

const LOW: u64 = 0xffff_ffff;

/// 32-bit and 64-bit forms of the integer updates: name, name of 64 bits, update.
fn integers() -> Vec<(&'static str, [&'static str; 2], [&'static str; 2], Update, Update)> {
    vec![
        (
            "add",
            ["add", "add_x2"],
            ["add_u32", "add_u64"],
            word(|_, m, d, _| (m + d) & LOW),
            wide(|_, m, d, _| m.wrapping_add(d)),
        ),
        (
            "sub",
            ["sub", "sub_x2"],
            ["sub_u32", "sub_u64"],
            word(|_, m, d, _| m.wrapping_sub(d) & LOW),
            wide(|_, m, d, _| m.wrapping_sub(d)),
        ),
        (
            "rsub",
            ["", ""],
            ["rsub_u32", "rsub_u64"],
            word(|_, m, d, _| d.wrapping_sub(m) & LOW),
            wide(|_, m, d, _| d.wrapping_sub(m)),
        ),
        (
            "inc",
            ["inc", "inc_x2"],
            ["inc_u32", "inc_u64"],
            word(|_, m, d, _| if m >= d { 0 } else { m + 1 }),
            wide(|_, m, d, _| if m >= d { 0 } else { m + 1 }),
        ),
        (
            "dec",
            ["dec", "dec_x2"],
            ["dec_u32", "dec_u64"],
            word(|_, m, d, _| if m == 0 || m > d { d } else { m - 1 }),
            wide(|_, m, d, _| if m == 0 || m > d { d } else { m - 1 }),
        ),
        (
            "min signed",
            ["smin", "smin_x2"],
            ["min_i32", "min_i64"],
            word(|_, m, d, _| if i32_of(d) < i32_of(m) { d } else { m }),
            wide(|_, m, d, _| if (d as i64) < m as i64 { d } else { m }),
        ),
        (
            "max signed",
            ["smax", "smax_x2"],
            ["max_i32", "max_i64"],
            word(|_, m, d, _| if i32_of(d) >= i32_of(m) { d } else { m }),
            wide(|_, m, d, _| if d as i64 >= m as i64 { d } else { m }),
        ),
        (
            "min",
            ["umin", "umin_x2"],
            ["min_u32", "min_u64"],
            word(|_, m, d, _| m.min(d)),
            wide(|_, m, d, _| m.min(d)),
        ),
        (
            "max",
            ["umax", "umax_x2"],
            ["max_u32", "max_u64"],
            word(|_, m, d, _| m.max(d)),
            wide(|_, m, d, _| m.max(d)),
        ),
        (
            "and",
            ["and", "and_x2"],
            ["and_b32", "and_b64"],
            word(|_, m, d, _| m & d),
            wide(|_, m, d, _| m & d),
        ),
        (
            "or",
            ["or", "or_x2"],
            ["or_b32", "or_b64"],
            word(|_, m, d, _| m | d),
            wide(|_, m, d, _| m | d),
        ),
        (
            "xor",
            ["xor", "xor_x2"],
            ["xor_b32", "xor_b64"],
            word(|_, m, d, _| m ^ d),
            wide(|_, m, d, _| m ^ d),
        ),
        (
            "swap",
            ["swap", "swap_x2"],
            ["swap_b32", "swap_b64"],
            word(|_, _, d, _| d),
            wide(|_, _, d, _| d),
        ),
        (
            "compare and swap",
            ["cmpswap", "cmpswap_x2"],
            ["cmpswap_b32", "cmpswap_b64"],
            compared(word(|_, m, d, c| if m == c { d } else { m })),
            compared(wide(|_, m, d, c| if m == c { d } else { m })),
        ),
    ]
}

fn floats() -> Vec<(&'static str, Update)> {
    let minimum_f32 = float(|chip, m, d, _| extreme(chip, F32, m, d, false), 4, compared_f32);
    let maximum_f32 = float(|chip, m, d, _| extreme(chip, F32, m, d, true), 4, compared_f32);
    let minimum_f64 = float(|chip, m, d, _| extreme(chip, F64, m, d, false), 8, compared_f64);
    let maximum_f64 = float(|chip, m, d, _| extreme(chip, F64, m, d, true), 8, compared_f64);
    vec![
        ("add_f32", float(|_, m, d, _| sum(F32, m, d), 4, sample_f32)),
        ("add_f64", float(|_, m, d, _| sum(F64, m, d), 8, sample_f64)),
        ("min_f32", minimum_f32),
        ("max_f32", maximum_f32),
        ("min_f64", minimum_f64),
        ("max_f64", maximum_f64),
        ("min_num_f32", minimum_f32),
        ("max_num_f32", maximum_f32),
        ("min_num_f64", minimum_f64),
        ("max_num_f64", maximum_f64),
        ("fmin", minimum_f32),
        ("fmax", maximum_f32),
        ("pk_add_f16", float(|_, m, d, _| sum_halves(F16, m, d), 4, sample_pk_f16)),
        ("pk_add_bf16", float(|_, m, d, _| sum_halves(BF16, m, d), 4, sample_pk_bf16)),
    ]
}

fn float_swap() -> Update {
    compared(float(|_, m, d, c| if same(F32, m, c) { d } else { m }, 4, sample_f32))
}

fn float_swap64() -> Update {
    compared(float(|_, m, d, c| if same(F64, m, c) { d } else { m }, 8, sample_f64))
}

fn clamped_sub() -> Update {
    word(|_, m, d, _| m.saturating_sub(d))
}

fn conditional_sub() -> Update {
    word(|_, m, d, _| if m >= d { m - d } else { m })
}

/// Updates of global, flat and buffer memory, by both generations' names.
pub fn updates() -> Vec<(String, Update)> {
    let mut list = Vec::new();
    for (_, old, new, narrow, wide) in integers() {
        for (name, update) in [(old[0], narrow), (old[1], wide), (new[0], narrow), (new[1], wide)] {
            if !name.is_empty() {
                list.push((name.to_string(), update));
            }
        }
    }
    list.extend(floats().into_iter().map(|(name, update)| (name.to_string(), update)));
    let more = [
        ("cmpswap_f32", float_swap()),
        ("fcmpswap", float_swap()),
        ("csub", clamped_sub()),
        ("csub_u32", clamped_sub()),
        ("sub_clamp_u32", clamped_sub()),
        ("cond_sub_u32", conditional_sub()),
    ];
    list.extend(more.map(|(name, update)| (name.to_string(), update)));
    list
}

/// Updates of LDS with their whole names and whether they give the old value.
pub fn local_updates() -> Vec<(String, Update, bool)> {
    let mut list = Vec::new();
    let mut both = |name: &str, update: Update| {
        // ds_add_u32 and ds_add_rtn_u32; names without a type are of other memories.
        let Some((head, tail)) = name.rsplit_once('_') else { return };
        list.push((format!("ds_{name}"), update, false));
        list.push((format!("ds_{head}_rtn_{tail}"), update, true));
    };
    for (name, _, new, narrow, wide) in integers() {
        if name != "swap" && name != "compare and swap" {
            both(new[0], narrow);
            both(new[1], wide);
        }
    }
    for (name, update) in floats().into_iter().filter(|(name, _)| name.contains('_')) {
        both(name, update);
    }
    both("sub_clamp_u32", clamped_sub());
    both("cond_sub_u32", conditional_sub());
    let swap = |name: &str| integers().into_iter().find(|row| row.0 == name).expect("a row");
    let (_, _, _, narrow, wide) = swap("compare and swap");
    for name in ["cmpst", "cmpstore"] {
        both(&format!("{name}_b32"), narrow);
        both(&format!("{name}_b64"), wide);
        both(&format!("{name}_f32"), float_swap());
        both(&format!("{name}_f64"), float_swap64());
    }
    let masked: F = |_, m, d, e| m & !d | e;
    both("mskor_b32", Update { second: true, ..word(masked) });
    both("mskor_b64", Update { second: true, ..self::wide(masked) });
    let (_, _, _, narrow, wide) = swap("swap");
    for (name, update) in [("wrxchg", narrow), ("storexchg", narrow)] {
        list.push((format!("ds_{name}_rtn_b32"), update, true));
    }
    for (name, update) in [("wrxchg", wide), ("storexchg", wide)] {
        list.push((format!("ds_{name}_rtn_b64"), update, true));
    }
    let wrap: F = |_, m, d, e| {
        if m >= d { m - d } else { (m + e) & LOW }
    };
    list.push(("ds_wrap_rtn_b32".to_string(), Update { second: true, ..word(wrap) }, true));
    let conditional: F = |_, m, d, _| {
        let one = |m: u64, d: u64| if d >> 31 & 1 == 1 { d & 0x7fff_ffff } else { m };
        one(m & LOW, d & LOW) | one(m >> 32, d >> 32) << 32
    };
    list.push(("ds_condxchg32_rtn_b64".to_string(), self::wide(conditional), true));
    list
}
