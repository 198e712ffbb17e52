//! `sample` on any processor: parameters, penalties, weights, random numbers.
//!
//! The rule, to the bit, is `waveloom_ir::sample`. Filters keep what is at or above a threshold,
//! which is found by bisection, as the bits of f32 numbers, read as integers, are in the numbers'
//! order.

use super::KernelError;
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use waveloom_ir::sample::grid_exponent;

/// Refuses vocabularies whose tokens, or the offsets of whose logits, are no `i32`.
pub(super) fn check_vocab(vocab: u32) -> Result<(), KernelError> {
    match (1..=i32::MAX as u32 / 8).contains(&vocab) {
        true => Ok(()),
        false => Err(KernelError(format!("`sample`: a vocabulary of {vocab} tokens"))),
    }
}

/// The words of `SamplingParams`; those that are counts are `i32` without a sign.
#[derive(Clone, Copy)]
pub(super) struct Parameters {
    pub temperature: Value,
    pub top_k: Value,
    pub top_p: Value,
    pub min_p: Value,
    pub seed: [Value; 2],
    pub repetition: Value,
    pub presence: Value,
    pub frequency: Value,
    pub last_n: Value,
}

impl Parameters {
    /// From the first ten words; `read` loads a number of a type at a number of bytes.
    pub fn load(
        k: &mut Builder,
        mut read: impl FnMut(&mut Builder, i64, Elem) -> Value,
    ) -> Parameters {
        let [temperature, top_p, min_p, repetition, presence, frequency] =
            [0, 2, 3, 6, 7, 8].map(|word: i64| read(k, 4 * word, Elem::F32));
        let [top_k, low, high, last_n] = [1, 4, 5, 9].map(|word: i64| read(k, 4 * word, Elem::I32));
        let seed = [low, high];
        Parameters {
            temperature,
            top_k,
            top_p,
            min_p,
            seed,
            repetition,
            presence,
            frequency,
            last_n,
        }
    }

    /// Whether a token is drawn; otherwise it is the largest.
    pub fn draws(&self, k: &mut Builder) -> Value {
        let zero = k.f32(0.0);
        k.cmp(Cmp::Gt, self.temperature, zero)
    }

    /// Whether a penalty changes anything.
    pub fn penalizes(&self, k: &mut Builder) -> Value {
        let (one, zero, none) = (k.f32(1.0), k.f32(0.0), k.i32(0));
        let repetition = k.cmp(Cmp::Ne, self.repetition, one);
        let presence = k.cmp(Cmp::Ne, self.presence, zero);
        let frequency = k.cmp(Cmp::Ne, self.frequency, zero);
        let some = k.or(repetition, presence);
        let some = k.or(some, frequency);
        let window = k.cmp(Cmp::Ne, self.last_n, none);
        k.and(some, window)
    }

    /// The position, `i64`, of the first token that counts for penalties before `counter`, `i64`.
    pub fn window(&self, k: &mut Builder, counter: Value) -> Value {
        let last_n = k.zext(self.last_n, Elem::I64);
        let first = k.sub(counter, last_n);
        let zero = k.i64(0);
        k.max(first, zero)
    }

    /// Logits `x` of tokens that were seen `count` (`i32`) times.
    pub fn penalized(&self, k: &mut Builder, x: Value, count: Value) -> Value {
        let lanes = x.ty.lanes;
        let [repetition, presence, frequency] =
            [self.repetition, self.presence, self.frequency].map(|value| like(k, value, lanes));
        let (up, down) = (k.mul(x, repetition), k.div(x, repetition));
        let zero = k.zero(x.ty);
        let negative = k.cmp(Cmp::Lt, x, zero);
        let scaled = k.select(negative, up, down);
        let times = k.sitofp(count, Elem::F32);
        let penalty = k.mul(times, frequency);
        let penalty = k.add(penalty, presence);
        let penalized = k.sub(scaled, penalty);
        let none = k.zero(count.ty);
        let seen = k.cmp(Cmp::Gt, count, none);
        k.select(seen, penalized, x)
    }

    /// Which filters drop anything of a vocabulary.
    pub fn filters(&self, k: &mut Builder, vocab: u32) -> Filters {
        let top_k = k.zext(self.top_k, Elem::I64);
        let (one, vocab) = (k.i64(1), k.i64(vocab.into()));
        let (some, few) = (k.cmp(Cmp::Ge, top_k, one), k.cmp(Cmp::Lt, top_k, vocab));
        let by_top_k = k.and(some, few);
        let one = k.f32(1.0);
        let by_top_p = k.cmp(Cmp::Lt, self.top_p, one);
        let zero = k.f32(0.0);
        let top_p = k.max(self.top_p, zero);
        Filters { top_k, by_top_k, top_p, by_top_p, min_p: self.min_p }
    }

    /// The random number for position `counter`, `i32`: a multiple of 2⁻²⁴ below 1, as f64.
    pub fn uniform(&self, k: &mut Builder, counter: Value) -> Value {
        let word = philox(k, counter, self.seed);
        let shift = k.i32(8);
        let bits = k.shr_u(word, shift);
        let number = k.uitofp(bits, Elem::F64);
        let unit = k.float(Elem::F64, 1.0 / f64::from(1 << 24));
        k.mul(number, unit)
    }
}

/// What is asked of a draw.
pub(super) struct Filters {
    /// k, as i64, and whether it drops anything.
    pub top_k: Value,
    pub by_top_k: Value,
    /// p, at least 0, and whether it drops anything.
    pub top_p: Value,
    pub by_top_p: Value,
    pub min_p: Value,
}

impl Filters {
    /// A weight above 0 that the filters' threshold is not below. The tokens with less than
    /// (1 − p) · mass / V have less than (1 − p) · mass together, so top-p drops them all. After
    /// top-k the mass is another, and the candidates are few already.
    pub fn least_weight(&self, k: &mut Builder, mass: Value, vocab: u32) -> Value {
        let top_p = k.extf(self.top_p, Elem::F64);
        let one = k.float(Elem::F64, 1.0);
        let dropped = k.sub(one, top_p);
        let dropped = k.mul(dropped, mass);
        // Half of it, so that no rounding matters.
        let share = k.float(Elem::F64, 0.5 / f64::from(vocab));
        let share = k.mul(dropped, share);
        let share = k.truncf(share, Elem::F32);
        let smallest = k.f32(f32::from_bits(1));
        let share = k.max(share, smallest);
        k.select(self.by_top_k, smallest, share)
    }
}

/// A scalar in as many lanes as `lanes` says (0: as it is).
pub(super) fn like(k: &mut Builder, value: Value, lanes: u32) -> Value {
    if lanes == 0 { value } else { k.splat(value, lanes) }
}

/// The weights of logits `x`, no NaN, of a vocabulary: e^((x − largest) / temperature), rounded
/// such that f64 holds every sum.
pub(super) fn weight(
    k: &mut Builder,
    x: Value,
    largest: Value,
    temperature: Value,
    vocab: u32,
) -> Value {
    let hottest = k.f32(f32::MAX);
    let temperature = k.min(temperature, hottest);
    let [largest, temperature] = [largest, temperature].map(|value| like(k, value, x.ty.lanes));
    // The difference first: near the largest it is exact.
    let difference = k.sub(x, largest);
    let scaled = k.div(difference, temperature);
    let weight = k.exp(scaled);
    let grid = k.float(x.ty, f64::from(grid_exponent(vocab.into())).exp2());
    let shifted = k.add(weight, grid);
    let weight = k.sub(shifted, grid);
    // NaN is the difference of infinite logits, which are the largest.
    let one = k.float(x.ty, 1.0);
    k.min(weight, one)
}

/// The first word of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
/// 3", SC11) for counter (counter, 0, 0, 0).
fn philox(k: &mut Builder, counter: Value, key: [Value; 2]) -> Value {
    let zero = k.i32(0);
    let mut words = [counter, zero, zero, zero];
    let mut key = key;
    let [multiplier0, multiplier1] = [0xD251_1F53_u32, 0xCD9E_8D57].map(u32::cast_signed);
    let [step0, step1] = [0x9E37_79B9_u32, 0xBB67_AE85].map(u32::cast_signed);
    for _ in 0..10 {
        let [multiplier0, multiplier1] = [multiplier0, multiplier1].map(|value| k.i32(value));
        let (low0, high0) = k.mul_extended_u(multiplier0, words[0]);
        let (low1, high1) = k.mul_extended_u(multiplier1, words[2]);
        let first = k.xor(high1, words[1]);
        let third = k.xor(high0, words[3]);
        words = [k.xor(first, key[0]), low1, k.xor(third, key[1]), low0];
        key = [k.add_const(key[0], step0.into()), k.add_const(key[1], step1.into())];
    }
    words[0]
}

/// The largest f32 of `low..=high` for which `holds`, which is true up to it and false beyond;
/// `low` is taken to hold. None is NaN.
pub(super) fn bisect(
    k: &mut Builder,
    low: Value,
    high: Value,
    holds: impl FnOnce(&mut Builder, Value) -> Value,
) -> Value {
    let (low, high) = (order_key(k, low), order_key(k, high));
    let [low, _] = k.while_loop(
        [low, high],
        |k, [low, high]| k.cmp(Cmp::Lt, low, high),
        |k, [low, high]| {
            let one = k.i64(1);
            let width = k.sub(high, low);
            let width = k.add(width, one);
            let half = k.shr_s(width, one);
            let middle = k.add(low, half);
            let below = k.sub(middle, one);
            let threshold = from_order_key(k, middle);
            let holds = holds(k, threshold);
            [k.select(holds, middle, low), k.select(holds, high, below)]
        },
    );
    from_order_key(k, low)
}

/// An f32 (no NaN) as an i64 in the numbers' order: its bits, with those of negative numbers
/// turned over.
fn order_key(k: &mut Builder, value: Value) -> Value {
    let bits = k.bitcast(value, Elem::I32);
    let key = turned(k, bits);
    k.sext(key, Elem::I64)
}

/// The f32 whose [`order_key`] is `key`.
fn from_order_key(k: &mut Builder, key: Value) -> Value {
    let key = k.trunc(key, Elem::I32);
    let bits = turned(k, key);
    k.bitcast(bits, Elem::F32)
}

/// Its own inverse.
fn turned(k: &mut Builder, bits: Value) -> Value {
    let (shift, low) = (k.i32(31), k.i32(i32::MAX));
    let sign = k.shr_s(bits, shift);
    let mask = k.and(sign, low);
    k.xor(bits, mask)
}

#[cfg(test)]
pub(crate) mod testing;
