//! Chunks of weights to factors of matrix operations, in registers.
//!
//! Quantized forms become f16: the quant is put into the mantissa of 1024 (or, in the upper half of
//! a byte, 16 times as large), what is too much is subtracted, exactly, and one packed
//! multiply-add with scale and minimum rounds once. So a factor is the nearest f16 of the weight's
//! exact value: two elements an instruction, and no better in f32.

use crate::mlir::{Builder, Elem, Value};
use crate::target::MatrixType;
use waveloom_ir::DType;

/// 1024 in both halves of a word: what a quant is added to.
pub(super) const BIAS: i32 = 0x6400_6400;

/// The type of factors that a weight is multiplied in.
pub(super) fn factors(dtype: DType) -> Option<MatrixType> {
    match dtype {
        DType::F32 => Some(MatrixType::F32),
        DType::BF16 => Some(MatrixType::Bf16),
        DType::F16 | DType::Q8_0 | DType::Q4_0 | DType::Q4_1 => Some(MatrixType::F16),
        _ => None,
    }
}

/// Order of the four factors of a piece of K.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// 0, 1, 2, 3.
    Natural,
    /// 0, 2, 1, 3: how quants fall out of their words.
    Interleaved,
}

impl Order {
    /// The order that costs least for weights of these dtypes together.
    pub(super) fn of(dtypes: &[DType]) -> Order {
        match dtypes.iter().all(|dtype| dtype.is_block()) {
            true => Order::Interleaved,
            false => Order::Natural,
        }
    }
}

/// What lies around a chunk: its form, its scale (q4_1: and minimum, in one word), the order
/// wanted.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub dtype: DType,
    /// Four words.
    pub words: Value,
    pub scale: Option<Value>,
    pub order: Order,
    /// [`BIAS`], in a register.
    pub bias: Value,
}

impl Chunk {
    /// 16 bytes of factors, part `part` of those that the chunk makes, as four words.
    pub(super) fn factors(&self, k: &mut Builder, part: u32) -> Value {
        let Some(scale) = self.scale else { return self.words };
        match self.dtype {
            DType::Q8_0 => self.bytes(k, part, scale),
            _ => self.nibbles(k, part, scale),
        }
    }

    /// Eight bytes of a q8_0 chunk.
    fn bytes(&self, k: &mut Builder, part: u32, scale: Value) -> Value {
        let words = k.slice(self.words, 2 * part, 2);
        // Two's complement plus 128.
        let sign = k.int(words.ty, 0x8080_8080);
        let words = k.xor(words, sign);
        let [even, odd] = [0, 8].map(|shift| {
            let biased = self.biased(k, words, shift, 0x00ff_00ff);
            let offset = k.float(Elem::F16.vec(4), -(1024.0 + 128.0));
            let quant = k.add(biased, offset);
            let scale = k.splat(scale, 4);
            k.mul(quant, scale)
        });
        self.ordered(k, even, odd)
    }

    /// Eight halves of bytes: of parts 0 and 1 the lower, of 2 and 3 the upper ones.
    fn nibbles(&self, k: &mut Builder, part: u32, scale: Value) -> Value {
        let words = k.slice(self.words, 2 * (part % 2), 2);
        let upper = part >= 2;
        let zero_point = if self.dtype == DType::Q4_0 { 8.0 } else { 0.0 };
        let f16s = Elem::F16.vec(4);
        let [even, odd] = [0, 8].map(|shift| {
            let quant = if upper {
                let biased = self.biased(k, words, shift, 0x00f0_00f0);
                let sixteenth = k.float(f16s, 1.0 / 16.0);
                let offset = k.float(f16s, -64.0 - zero_point);
                k.fma(biased, sixteenth, offset)
            } else {
                let biased = self.biased(k, words, shift, 0x000f_000f);
                let offset = k.float(f16s, -1024.0 - zero_point);
                k.add(biased, offset)
            };
            self.scaled(k, quant, scale)
        });
        self.ordered(k, even, odd)
    }

    fn scaled(&self, k: &mut Builder, quant: Value, scale: Value) -> Value {
        if self.dtype != DType::Q4_1 {
            let scale = k.splat(scale, 4);
            return k.mul(quant, scale);
        }
        let pair = k.bitcast(scale, Elem::F16.vec(2));
        let scale = k.shuffle(pair, pair, &[0; 4]);
        let minimum = k.shuffle(pair, pair, &[1; 4]);
        k.fma(quant, scale, minimum)
    }

    /// Bits of `mask` of two shifted words, as f16 from 1024 on.
    fn biased(&self, k: &mut Builder, words: Value, shift: i64, mask: i64) -> Value {
        let shifted = match shift {
            0 => words,
            shift => {
                let shift = k.int(words.ty, shift);
                k.shr_u(words, shift)
            }
        };
        let mask = k.int(words.ty, mask);
        let bits = k.and(shifted, mask);
        let bias = k.splat(self.bias, words.ty.lanes);
        let bits = k.or(bits, bias);
        k.bitcast(bits, Elem::F16.vec(4))
    }

    /// `even` has elements 0, 2 of two pieces, `odd` 1, 3.
    fn ordered(&self, k: &mut Builder, even: Value, odd: Value) -> Value {
        let lanes = match self.order {
            Order::Interleaved => [0, 1, 4, 5, 2, 3, 6, 7],
            Order::Natural => [0, 4, 1, 5, 2, 6, 3, 7],
        };
        let factors = k.shuffle(even, odd, &lanes);
        k.bitcast(factors, Elem::I32.vec(4))
    }
}
