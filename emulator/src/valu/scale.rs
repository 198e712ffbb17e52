//! CDNA 4's conversions between numbers of 32 and 16 bits and scaled ones of 8, 6 and 4 bits.
//!
//! The scale is the exponent of a float operand, a power of two: narrow numbers times the scale
//! are wide ones. An exponent of 255 makes everything a NaN, or the largest number where the
//! narrow format has no NaN, as in AMD's own definition of these conversions for the host.

use super::op::{Kind, Mode};
use super::operand::Source;
use crate::asm::{Instruction, Operand, Value};
use crate::number::{
    Fp8, Tiny, bf16_to_f32, e8m0_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, flush_f32,
};
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Wave};

/// Wide formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wide {
    F32,
    F16,
    Bf16,
}

/// Narrow formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Narrow {
    Byte(Fp8),
    Tiny(Tiny),
}

impl Wide {
    fn new(name: &str) -> Option<Wide> {
        Some(match name {
            "f32" => Wide::F32,
            "f16" => Wide::F16,
            "bf16" => Wide::Bf16,
            _ => return None,
        })
    }

    /// Numbers in a register.
    fn per_row(self) -> usize {
        if self == Wide::F32 { 1 } else { 2 }
    }

    fn sign(self) -> u32 {
        if self == Wide::F32 { 1 << 31 } else { 1 << 15 }
    }

    /// The number in the low bits of a register. Only denormals of 32 bits can be flushed.
    fn read(self, mode: Mode, bits: u32) -> f32 {
        match self {
            Wide::F32 if !mode.keeps_inputs(Kind::F32) => flush_f32(f32::from_bits(bits)),
            Wide::F32 => f32::from_bits(bits),
            Wide::F16 => f16_to_f32(bits as u16),
            Wide::Bf16 => bf16_to_f32(bits as u16),
        }
    }

    /// The nearest number.
    fn write(self, value: f32) -> u32 {
        let sign = value.to_bits() >> 16 & 0x8000;
        match self {
            Wide::F32 => value.to_bits(),
            _ if value.is_nan() => sign | 0x7fff,
            Wide::F16 => u32::from(f32_to_f16(value)),
            Wide::Bf16 => u32::from(f32_to_bf16(value)),
        }
    }
}

impl Narrow {
    fn new(name: &str) -> Option<Narrow> {
        Some(match name {
            "fp8" => Narrow::Byte(Fp8::E4m3),
            "bf8" => Narrow::Byte(Fp8::E5m2),
            "fp6" => Narrow::Tiny(Tiny::E2m3),
            "bf6" => Narrow::Tiny(Tiny::E3m2),
            "fp4" => Narrow::Tiny(Tiny::E2m1),
            _ => return None,
        })
    }

    fn bits(self) -> usize {
        match self {
            Narrow::Byte(_) => 8,
            Narrow::Tiny(tiny) => tiny.bits() as usize,
        }
    }

    fn read(self, bits: u8) -> f32 {
        match self {
            Narrow::Byte(format) => format.to_f32(bits),
            Narrow::Tiny(format) => format.to_f32(bits),
        }
    }

    fn write(self, mode: Mode, value: f32, seed: Option<u32>) -> u8 {
        match (self, seed) {
            (Narrow::Byte(format), None) => format.from_f32(value, mode.fp16_ovfl()),
            (Narrow::Byte(format), Some(seed)) => {
                format.from_f32_stochastic(value, seed, mode.fp16_ovfl())
            }
            (Narrow::Tiny(format), None) => format.from_f32(value),
            (Narrow::Tiny(format), Some(seed)) => format.from_f32_stochastic(value, seed),
        }
    }
}

/// The next of a row of random numbers, as `v_prng_b32` computes it.
fn next_random(seed: u32) -> u32 {
    seed << 1 ^ if seed >> 31 != 0 { 197 } else { 0 }
}

/// `value` times 2 to the power of `exponent`, exact as far as it matters: what is far out of the
/// reach of narrow formats stays so.
fn scaled(value: f32, exponent: i32) -> f32 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let power = f64::from_bits(((exponent + 1023) as u64) << 52);
    let exact = f64::from(value) * power;
    let magnitude = exact.abs().clamp(2_f64.powi(-100), 2_f64.powi(100));
    magnitude.copysign(exact) as f32
}

/// The exponent field of a float.
fn exponent_field(bits: u32) -> u8 {
    (bits >> 23 & 0xff) as u8
}

/// An operand whose lanes are read one by one.
#[derive(Debug, Clone, Copy)]
struct Input {
    source: Source,
    /// Registers of a vector operand.
    rows: usize,
    and: u32,
    xor: u32,
}

impl Input {
    fn new(operand: &Operand, sign: u32) -> Option<Input> {
        let source = Source::new(operand, Kind::F32)?;
        let rows = match operand.value {
            Value::Vector(_, count) => usize::from(count),
            _ => 1,
        };
        let and = if operand.abs { !sign } else { u32::MAX };
        let xor = if operand.neg { sign } else { 0 };
        (!operand.high && !operand.sext).then_some(Input { source, rows, and, xor })
    }

    fn read(&self, wave: &Wave, row: usize, lane: usize) -> u32 {
        let bits = match self.source {
            Source::Row(first) => wave.rows[usize::from(first) + row].0[lane],
            source => source.uniform(wave) as u32,
        };
        bits & self.and ^ self.xor
    }
}

/// Wide numbers to narrow ones.
struct Encode {
    wide: Wide,
    narrow: Narrow,
    count: usize,
    /// Registers with the numbers; two whose numbers alternate where there are two.
    numbers: Vec<Input>,
    seed: Option<Input>,
    scale: Input,
    destination: usize,
    /// First bit of a result of less than a register.
    shift: usize,
}

impl Encode {
    fn number(&self, wave: &Wave, index: usize, lane: usize) -> u32 {
        match self.numbers.as_slice() {
            [first, second] => [first, second][index % 2].read(wave, index / 2, lane),
            _ => {
                let per_row = self.wide.per_row();
                let bits = self.numbers[0].read(wave, index / per_row, lane);
                bits >> (index % per_row * 16)
            }
        }
    }

    fn lane(&self, wave: &mut Wave, mode: Mode, lane: usize) {
        let scale = exponent_field(self.scale.read(wave, 0, lane));
        let mut seed = self.seed.map(|seed| seed.read(wave, 0, lane));
        let mut out = [0_u32; 6];
        for index in 0..self.count {
            let number = self.wide.read(mode, self.number(wave, index, lane));
            let value = match scale {
                255 => f32::NAN.copysign(number),
                _ => scaled(number, 127 - i32::from(scale)),
            };
            put(&mut out, index * self.narrow.bits(), self.narrow.write(mode, value, seed));
            seed = seed.map(next_random);
        }
        let bits = self.count * self.narrow.bits();
        if bits < 32 {
            let mask = ((1_u32 << bits) - 1) << self.shift;
            let old = &mut wave.rows[self.destination].0[lane];
            *old = *old & !mask | out[0] << self.shift;
            return;
        }
        for (row, word) in out.iter().enumerate() {
            wave.rows[self.destination + row].0[lane] = *word;
        }
    }
}

/// Puts up to 8 bits into words.
fn put(words: &mut [u32; 6], at: usize, value: u8) {
    let wide = u64::from(value) << (at % 32);
    words[at / 32] |= wide as u32;
    if wide >> 32 != 0 {
        words[at / 32 + 1] |= (wide >> 32) as u32;
    }
}

/// Takes up to 8 bits out of words.
fn take(words: &[u32; 6], at: usize, bits: usize) -> u8 {
    let high = words.get(at / 32 + 1).copied().unwrap_or(0);
    let wide = u64::from(words[at / 32]) | u64::from(high) << 32;
    (wide >> (at % 32)) as u8 & (0xff >> (8 - bits))
}

/// Narrow numbers to wide ones.
struct Decode {
    wide: Wide,
    narrow: Narrow,
    count: usize,
    numbers: Input,
    scale: Input,
    destination: usize,
    /// First bit of the numbers in the source's first register.
    from: usize,
    /// First bit of a single half, if that is the result.
    half: Option<usize>,
}

impl Decode {
    fn lane(&self, wave: &mut Wave, lane: usize) {
        let scale = exponent_field(self.scale.read(wave, 0, lane));
        let mut words = [0; 6];
        for row in 0..self.numbers.rows.min(6) {
            words[row] = self.numbers.read(wave, row, lane);
        }
        let number = |index: usize| {
            let bits = self.narrow.bits();
            let value = self.narrow.read(take(&words, self.from + index * bits, bits));
            let exact = f64::from(value) * f64::from(e8m0_to_f32(scale));
            let value = if scale == 255 { f32::NAN.copysign(value) } else { exact as f32 };
            self.wide.write(value)
        };
        if let Some(shift) = self.half {
            let old = &mut wave.rows[self.destination].0[lane];
            *old = *old & !(0xffff << shift) | number(0) << shift;
            return;
        }
        let per_row = self.wide.per_row();
        for row in 0..self.count / per_row {
            let word = match per_row {
                1 => number(row),
                _ => number(2 * row) | number(2 * row + 1) << 16,
            };
            wave.rows[self.destination + row].0[lane] = word;
        }
    }
}

/// The parts of a mnemonic.
struct Name<'a> {
    stochastic: bool,
    form: &'a str,
    to: &'a str,
    from: &'a str,
}

fn parse_name(mnemonic: &str) -> Option<Name<'_>> {
    let name = mnemonic.strip_prefix("v_cvt_scalef32_")?;
    let (name, stochastic) = name.strip_prefix("sr_").map_or((name, false), |rest| (rest, true));
    let forms = ["pk32_", "2xpk16_", "pk_", ""];
    let form = forms.into_iter().find(|form| name.starts_with(form))?;
    let (to, from) = name[form.len()..].split_once('_')?;
    Some(Name { stochastic, form, to, from })
}

/// Compiles a conversion with a scale.
pub fn compile(context: &Context<'_>) -> Compiled {
    let name = parse_name(&context.asm.mnemonic)?;
    let exec = match (Wide::new(name.to), Narrow::new(name.to)) {
        (Some(wide), _) => decode(context.asm, &name, wide),
        (_, Some(narrow)) => encode(context.asm, &name, narrow),
        _ => None,
    };
    Some(exec.ok_or_else(|| context.unknown()))
}

/// The bits of op_sel; four, of which two can stand for a number.
fn op_sel(asm: &Instruction) -> Option<[usize; 4]> {
    if asm.modifiers.iter().any(|modifier| modifier.name != "op_sel") {
        return None;
    }
    let list = asm.list("op_sel").unwrap_or_default();
    Some(std::array::from_fn(|index| list.get(index).map_or(0, |bit| *bit as usize & 1)))
}

fn destination(operand: &Operand, rows: usize) -> Option<usize> {
    match operand.value {
        Value::Vector(row, count) if usize::from(count) == rows => Some(usize::from(row)),
        _ => None,
    }
}

/// How many numbers a form has.
fn count_of(form: &str) -> usize {
    match form {
        "" => 1,
        "pk_" => 2,
        _ => 32,
    }
}

fn encode(asm: &Instruction, name: &Name<'_>, narrow: Narrow) -> Option<Exec> {
    let wide = Wide::new(name.from)?;
    let count = count_of(name.form);
    let select = op_sel(asm)?;
    // Two separate operands: a pair of singles, or two times sixteen.
    let separate =
        name.form == "2xpk16_" || (name.form == "pk_" && wide == Wide::F32 && !name.stochastic);
    let operands = asm.operands.as_slice();
    let (result, rest) = operands.split_first()?;
    let (numbers, rest) = rest.split_at_checked(if separate { 2 } else { 1 })?;
    let (seed, scale) = match (name.stochastic, rest) {
        (true, [seed, scale]) => (Some(seed), scale),
        (false, [scale]) => (None, scale),
        _ => return None,
    };
    let rows = (count / numbers.len()).div_ceil(wide.per_row());
    let numbers: Vec<Input> =
        numbers.iter().map(|operand| Input::new(operand, wide.sign())).collect::<Option<_>>()?;
    let packed = wide != Wide::F32 && count > 1;
    let modified = |input: &Input| input.and != u32::MAX || input.xor != 0;
    if numbers.iter().any(|input| input.rows != rows || (modified(input) && (packed || rows > 1))) {
        return None;
    }
    let bits = count * narrow.bits();
    let (shift, used) = match (bits, operands.len()) {
        (8, _) => (8 * (select[2] + 2 * select[3]), [false, false, true, true]),
        (16, 3) => (16 * select[2], [false, false, true, false]),
        (16, _) => (16 * select[3], [false, false, false, true]),
        _ => (0, [false; 4]),
    };
    if (0..4).any(|index| select[index] != 0 && !used[index]) {
        return None;
    }
    let encode = Encode {
        wide,
        narrow,
        count,
        numbers,
        seed: seed.map(|operand| Input::new(operand, 0)).transpose_option()?,
        scale: Input::new(scale, 1 << 31)?,
        destination: destination(result, bits.div_ceil(32))?,
        shift,
    };
    Some(Box::new(move |wave, _| {
        let (exec, mode) = (wave.exec(), Mode(wave.mode));
        for lane in (0..64).filter(|lane| exec >> lane & 1 != 0) {
            encode.lane(wave, mode, lane);
        }
        Ok(())
    }))
}

/// An optional operand that must be good if it is there.
trait TransposeOption<T> {
    fn transpose_option(self) -> Option<Option<T>>;
}

impl<T> TransposeOption<T> for Option<Option<T>> {
    fn transpose_option(self) -> Option<Option<T>> {
        match self {
            None => Some(None),
            Some(None) => None,
            Some(some) => Some(some),
        }
    }
}

fn decode(asm: &Instruction, name: &Name<'_>, wide: Wide) -> Option<Exec> {
    let narrow = Narrow::new(name.from)?;
    let count = count_of(name.form);
    let select = op_sel(asm)?;
    let [result, numbers, scale] = asm.operands.as_slice() else { return None };
    let numbers = Input::new(numbers, 0)?;
    let bits = count * narrow.bits();
    let single_half = count == 1 && wide != Wide::F32;
    let (from, mut used) = match bits {
        8 => (8 * (select[0] + 2 * select[1]), [true, true, false, false]),
        16 => (16 * select[0], [true, false, false, false]),
        _ => (0, [false; 4]),
    };
    used[2] = single_half;
    let is_used = |index: usize| select[index] == 0 || used[index];
    if name.stochastic || numbers.rows != bits.div_ceil(32) || !(0..4).all(is_used) {
        return None;
    }
    let rows = count.div_ceil(wide.per_row());
    let decode = Decode {
        wide,
        narrow,
        count,
        numbers,
        scale: Input::new(scale, 1 << 31)?,
        destination: destination(result, rows)?,
        from,
        half: single_half.then_some(16 * select[2]),
    };
    Some(Box::new(move |wave, _| {
        let exec = wave.exec();
        for lane in (0..64).filter(|lane| exec >> lane & 1 != 0) {
            decode.lane(wave, lane);
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::Chip;

    /// Runs on a chip with the registers that are given: row and the same value in all lanes.
    fn run(text: &str, rows: &[(usize, u32)]) -> Bench {
        let mut bench = Bench::new(Chip::Gfx950, 64);
        for (row, value) in rows {
            bench.set(*row, |_| *value);
        }
        bench.run(text);
        bench
    }

    fn f(value: f32) -> u32 {
        value.to_bits()
    }

    #[test]
    fn bytes_go_where_op_sel_says() {
        let rows = [(0, 0xdead_beef), (1, f(3.0)), (2, f(-0.75)), (3, f(2.0))];
        // 1.5 and -0.375 in e4m3: 0x3c and 0xac.
        let bench = run("v_cvt_scalef32_pk_fp8_f32 v0, v1, v2, v3", &rows);
        assert_eq!(bench.lane(0, 5), 0xdead_ac3c);
        let bench = run("v_cvt_scalef32_pk_fp8_f32 v0, v1, v2, v3 op_sel:[0,0,0,1]", &rows);
        assert_eq!(bench.lane(0, 63), 0xac3c_beef);
        let bench = run("v_cvt_scalef32_pk_fp8_f32 v0, -v1, |v2|, 2.0", &rows);
        assert_eq!(bench.lane(0, 0), 0xdead_2cbc);
        // 1.5 and -0.5 (from -0.375, which is a tie) in e2m1: 3 and 8 + 1 or 0.
        let bench = run("v_cvt_scalef32_pk_fp4_f32 v0, v1, v2, v3 op_sel:[0,0,1,1]", &rows);
        assert_eq!(bench.lane(0, 0), 0x93ad_beef);
        let rows = [(0, 0xdead_beef), (1, 0x3c00_c000), (3, f(0.5))];
        // -4 and 2 in e5m2.
        let bench = run("v_cvt_scalef32_pk_bf8_f16 v0, v1, v3 op_sel:[0,0,1]", &rows);
        assert_eq!(bench.lane(0, 0), 0x40c4_beef);
    }

    #[test]
    fn narrow_numbers_are_scaled() {
        let rows = [(2, 0x3c38_b8c0), (3, f(4.0)), (0, 0xdead_beef)];
        // Bytes 0xc0 (-2), 0xb8 (-1), 0x38 (1), 0x3c (1.5), times 4.
        let bench = run("v_cvt_scalef32_pk_f32_fp8 v[0:1], v2, v3 op_sel:[1,0,0]", &rows);
        assert_eq!([bench.lane(0, 1), bench.lane(1, 1)], [f(4.0), f(6.0)]);
        let bench = run("v_cvt_scalef32_f32_fp8 v0, v2, v3 op_sel:[1,0,0]", &rows);
        assert_eq!(bench.lane(0, 1), f(-4.0));
        let bench = run("v_cvt_scalef32_f16_fp8 v0, v2, 0.5 op_sel:[0,0,1]", &rows);
        assert_eq!(bench.lane(0, 1), 0xbc00_beef);
        let bench = run("v_cvt_scalef32_pk_bf16_fp8 v0, v2, 1.0", &rows);
        assert_eq!(bench.lane(0, 1), 0xbf80_c000);
        // Nibbles 0xc (-2) and 0x3 (1.5).
        let bench = run("v_cvt_scalef32_pk_f32_fp4 v[0:1], v2, v3 op_sel:[1,1,0]", &rows);
        assert_eq!([bench.lane(0, 1), bench.lane(1, 1)], [f(-8.0), f(6.0)]);
        // A scale of infinity is no number; 2 to the power of 127 overflows.
        let bench = run("v_cvt_scalef32_pk_f16_fp8 v0, v2, v3", &[(2, 0x38), (3, 0x7f80_0000)]);
        assert_eq!(bench.lane(0, 1), 0x7fff_7fff);
        let bench = run("v_cvt_scalef32_f32_fp8 v0, v2, v3", &[(2, 0x7e), (3, 0x7f00_0000)]);
        assert_eq!(bench.lane(0, 1), 0x7f80_0000);
    }

    /// Thirty-two numbers to six bits each and back.
    #[test]
    fn six_bits_are_packed_without_gaps() {
        for (kind, largest) in [("fp6", 7.5_f32), ("bf6", 28.0)] {
            let value = |index: u32| (index as f32 - 16.0) * 0.25;
            let rows: Vec<(usize, u32)> =
                (0..32).map(|index| (64 + index, f(value(index as u32)))).collect();
            let mut bench = run(
                &format!("v_cvt_scalef32_2xpk16_{kind}_f32 v[0:5], v[64:79], v[80:95], 1.0"),
                &rows,
            );
            bench.run(&format!("v_cvt_scalef32_pk32_f32_{kind} v[100:131], v[0:5], 1.0"));
            for index in 0..32_u32 {
                // The two operands alternate.
                let from = if index % 2 == 0 { index / 2 } else { 16 + index / 2 };
                let got = f32::from_bits(bench.lane(100 + index as usize, 7));
                assert!((got - value(from)).abs() <= value(from).abs() / 8.0, "{kind} {index}");
                assert!(got.abs() <= largest);
            }
            let halves: Vec<(usize, u32)> =
                (0..16).map(|index| (64 + index, 0x4000_3c00)).collect();
            let mut bench =
                run(&format!("v_cvt_scalef32_pk32_{kind}_f16 v[0:5], v[64:79], 0.5"), &halves);
            bench.run(&format!("v_cvt_scalef32_pk32_f16_{kind} v[100:115], v[0:5], 0.5"));
            assert!((100..116).all(|row| bench.lane(row, 63) == 0x4000_3c00));
        }
    }

    #[test]
    fn chance_takes_a_new_number_for_each_pass() {
        // 2.5 between 2 (0x4) and 3 (0x5): up if the seed's top bit is set. The next seed is the
        // old one shifted by one.
        let rows = [(2, f(2.5)), (3, f(2.5)), (4, 0x4000_0000), (0, 0)];
        let bench = run("v_cvt_scalef32_sr_pk_fp4_f32 v0, v[2:3], v4, 1.0", &rows);
        assert_eq!(bench.lane(0, 9), 0x54);
        let bench = run("v_cvt_scalef32_sr_fp8_f32 v0, v2, v4, 1.0 op_sel:[0,0,1,0]", &rows);
        assert_eq!(bench.lane(0, 9), 0x4200);
        let mut bench = run("v_cvt_scalef32_sr_pk32_fp6_f32 v[0:5], v[64:95], v4, 1.0", &rows);
        bench.run("v_cvt_scalef32_pk32_f32_fp6 v[100:131], v[0:5], 1.0");
        assert_eq!(bench.lane(131, 0), 0);
    }
}
