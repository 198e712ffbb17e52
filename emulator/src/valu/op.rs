//! From a function of one lane to a function of whole rows, compiled for the host's vector units.
//!
//! `map2(|a: f32, b: f32| a + b)` is an operation: the types of the closure say how registers are read
//! and written, and the closure is compiled for AVX2, FMA, F16C and BMI2 where the host is an x86-64;
//! one without them is refused ([`host_is_fit`]).
//!
//! Shapes: `map1` to `map4` (registers to registers), `mode1` to `mode3` (the closure's first argument
//! is the MODE register), `carry2` and `carry3` (a mask bit in, perhaps a mask bit out), `compare` (registers to
//! a mask), and [`Op::whole`] for a function that handles the rows itself.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use crate::wave::{LANES, Row, Wave, mode};

/// What the bits of an operand mean, for constants and for input modifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 32 bits without a sign bit of their own.
    B32,
    /// 64 bits, likewise.
    B64,
    /// 16 bits in the low half of a register.
    B16,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// Two halves in a register.
    Halves,
    /// IEEE single.
    F32,
    /// IEEE double.
    F64,
    /// Several registers whose bits the operation itself reads.
    Rows(u8),
}

impl Kind {
    /// Registers that an operand takes.
    pub const fn rows(self) -> usize {
        match self {
            Kind::B64 | Kind::F64 => 2,
            Kind::Rows(rows) => rows as usize,
            _ => 1,
        }
    }

    /// Whether it takes half a register.
    pub const fn is_half(self) -> bool {
        matches!(self, Kind::B16 | Kind::F16 | Kind::Bf16)
    }

    /// Whether it is a floating-point number.
    pub const fn is_float(self) -> bool {
        matches!(self, Kind::F16 | Kind::Bf16 | Kind::Halves | Kind::F32 | Kind::F64)
    }

    /// The sign bit in the last register.
    pub fn sign(self) -> u32 {
        match self {
            Kind::F16 | Kind::Bf16 | Kind::B16 => 0x8000,
            _ => 0x8000_0000,
        }
    }

    /// The bits of a floating-point inline constant. LLVM prints 1/(2π) rounded; the bits are
    /// those of the ISA documents.
    pub fn inline_float(self, value: f64) -> u64 {
        let inverse_two_pi = (value - 0.159_154_943_091_895_3).abs() < 1e-4;
        match self {
            Kind::F64 | Kind::B64 if inverse_two_pi => 0x3fc4_5f30_6dc9_c882,
            Kind::F64 | Kind::B64 => value.to_bits(),
            Kind::F16 | Kind::B16 | Kind::Halves if inverse_two_pi => 0x3118,
            Kind::Bf16 if inverse_two_pi => 0x3e22,
            // The other constants (0.5, 1, 2, 4 and their negatives) are exact in every format.
            Kind::F16 | Kind::B16 | Kind::Halves => u64::from(half_bits(value as f32)),
            Kind::Bf16 => u64::from((value as f32).to_bits() >> 16),
            Kind::F32 | Kind::B32 | Kind::Rows(_) if inverse_two_pi => 0x3e22_f983,
            Kind::F32 | Kind::B32 | Kind::Rows(_) => u64::from((value as f32).to_bits()),
        }
    }

    /// The bits of a 32-bit literal: the high half of a double, extended by zeros otherwise.
    pub fn literal(self, bits: u64) -> u64 {
        match self {
            Kind::F64 if bits <= u64::from(u32::MAX) => bits << 32,
            _ => bits,
        }
    }
}

/// Half-precision bits of a power of two that has them.
fn half_bits(value: f32) -> u16 {
    if value == 0.0 {
        return 0;
    }
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    ((bits >> 16 & 0x8000) as u16) | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16
}

/// A type that operands and results of an operation can have.
pub trait Lane: Copy + Default {
    /// How the bits are read.
    const KIND: Kind;
    /// From the low and, if it has two, the high register.
    fn from_bits(low: u32, high: u32) -> Self;
    /// To the low and the high register.
    fn to_bits(self) -> (u32, u32);
}

/// Bits of an IEEE half.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct F16(pub u16);

/// Bits of a bfloat16.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bf16(pub u16);

macro_rules! lane {
    ($type:ty, $kind:ident, |$low:ident, $high:ident| $from:expr, |$value:ident| $to:expr) => {
        impl Lane for $type {
            const KIND: Kind = Kind::$kind;
            #[inline(always)]
            fn from_bits($low: u32, $high: u32) -> $type {
                let _ = $high;
                $from
            }
            #[inline(always)]
            fn to_bits(self) -> (u32, u32) {
                let $value = self;
                $to
            }
        }
    };
}

lane!(u32, B32, |low, high| low, |value| (value, 0));
lane!(i32, B32, |low, high| low as i32, |value| (value as u32, 0));
lane!(f32, F32, |low, high| f32::from_bits(low), |value| (value.to_bits(), 0));
lane!(u16, B16, |low, high| low as u16, |value| (u32::from(value), 0));
lane!(i16, B16, |low, high| low as i16, |value| (u32::from(value as u16), 0));
lane!(F16, F16, |low, high| F16(low as u16), |value| (u32::from(value.0), 0));
lane!(Bf16, Bf16, |low, high| Bf16(low as u16), |value| (u32::from(value.0), 0));
lane!(u64, B64, |low, high| u64::from(low) | u64::from(high) << 32, |value| {
    (value as u32, (value >> 32) as u32)
});
lane!(i64, B64, |low, high| (u64::from(low) | u64::from(high) << 32) as i64, |value| {
    (value as u32, (value >> 32) as u32)
});
lane!(f64, F64, |low, high| f64::from_bits(u64::from(low) | u64::from(high) << 32), |value| {
    (value.to_bits() as u32, (value.to_bits() >> 32) as u32)
});

/// The MODE register, for operations that depend on it beyond what every operation does.
#[derive(Debug, Clone, Copy)]
pub struct Mode(pub u32);

impl Mode {
    /// A clamped NaN is zero.
    #[inline(always)]
    pub fn dx10_clamp(self) -> bool {
        self.0 & mode::DX10_CLAMP != 0
    }

    /// Signaling NaNs are quieted by min and max.
    #[inline(always)]
    pub fn ieee(self) -> bool {
        self.0 & mode::IEEE != 0
    }

    /// Conversions to f16 and fp8 saturate.
    #[inline(always)]
    pub fn fp16_ovfl(self) -> bool {
        self.0 & mode::FP16_OVFL != 0
    }

    /// Rounding of results of a kind: 0 nearest even, 1 up, 2 down, 3 toward zero.
    #[inline(always)]
    pub fn round(self, kind: Kind) -> u32 {
        match kind {
            Kind::F16 | Kind::F64 => self.0 >> 2 & 3,
            _ => self.0 & 3,
        }
    }

    /// Whether denormal operands of a kind are kept.
    #[inline(always)]
    pub fn keeps_inputs(self, kind: Kind) -> bool {
        match kind {
            Kind::F16 | Kind::F64 => self.0 & 0x40 != 0,
            Kind::F32 => self.0 & 0x10 != 0,
            _ => true,
        }
    }

    /// Whether denormal results of a kind are kept.
    #[inline(always)]
    pub fn keeps_outputs(self, kind: Kind) -> bool {
        match kind {
            Kind::F16 | Kind::F64 => self.0 & 0x80 != 0,
            Kind::F32 => self.0 & 0x20 != 0,
            _ => true,
        }
    }
}

/// An operation of a table.
pub struct Op {
    /// What the sources are, hidden ones included.
    pub sources: Vec<Kind>,
    /// What the destination is.
    pub result: Kind,
    /// The function.
    pub core: Core,
    /// The function with `clamp`, where the result is an integer.
    pub saturated: Option<Core>,
    /// Where the last source comes from if it is not in the text.
    pub hidden: Hidden,
    /// The mask that the function reads.
    pub mask_in: MaskIn,
    /// Whether the text has a mask as its second destination.
    pub mask_out: bool,
    /// Denormals pass whatever MODE says (`v_cmp_class`, `v_frexp_mant`, moves).
    pub keeps_denormals: bool,
    /// A comparison whose result becomes the execution mask.
    pub writes_exec: bool,
}

/// Where a source that is not in the text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// There is none.
    None,
    /// The destination's old value (`v_fmac_f32`).
    Destination,
    /// The number of a modifier, zero if it is not there (`bitop3:0x27`).
    Modifier(&'static str),
}

/// The mask that an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskIn {
    /// None.
    None,
    /// The last operand of the text; VCC where the text has none.
    Operand,
    /// VCC, which is not in the text.
    Vcc,
}

/// The shapes of operations.
#[derive(Clone, Copy)]
pub enum Core {
    /// Registers to registers.
    Map(Map),
    /// Registers and a mask to registers and a mask.
    Carry(Carry),
    /// Registers to a mask.
    Compare(Compare),
}

impl Op {
    /// An operation without anything special.
    pub fn new(sources: &[Kind], result: Kind, core: Core) -> Op {
        Op {
            sources: sources.to_vec(),
            result,
            core,
            saturated: None,
            hidden: Hidden::None,
            mask_in: MaskIn::None,
            mask_out: false,
            keeps_denormals: false,
            writes_exec: false,
        }
    }

    /// An operation that handles rows itself: it must write the destination's lanes in the mask
    /// that it is given (not the wave's) and no others, after it has read them all.
    pub fn whole(
        sources: &[Kind],
        result: Kind,
        function: fn(wave: &mut Wave, destination: usize, exec: u64, sources: Sources),
    ) -> Op {
        Op::new(sources, result, Core::Map(Map(function)))
    }

    /// The last source is the destination's old value.
    pub fn accumulate(self) -> Op {
        Op { hidden: Hidden::Destination, ..self }
    }

    /// The last source is the number of a modifier.
    pub fn immediate(self, modifier: &'static str) -> Op {
        Op { hidden: Hidden::Modifier(modifier), ..self }
    }

    /// What an integer operation does instead with `clamp`.
    pub fn saturating(self, op: Op) -> Op {
        Op { saturated: Some(op.core), ..self }
    }

    /// Reads a mask that the text ends with.
    pub fn reads_mask(self) -> Op {
        Op { mask_in: MaskIn::Operand, ..self }
    }

    /// Reads VCC, which the text does not show.
    pub fn reads_vcc(self) -> Op {
        Op { mask_in: MaskIn::Vcc, ..self }
    }

    /// Writes a mask, the second operand of the text.
    pub fn writes_mask(self) -> Op {
        Op { mask_out: true, ..self }
    }

    /// The result is two halves, which `clamp` takes one by one.
    pub fn giving_halves(self) -> Op {
        Op { result: Kind::Halves, ..self }
    }

    /// MODE's treatment of denormals does not apply.
    pub fn keeping_denormals(self) -> Op {
        Op { keeps_denormals: true, ..self }
    }

    /// The comparison's result becomes the execution mask.
    pub fn writing_exec(self) -> Op {
        Op { writes_exec: true, ..self }
    }
}

/// Row numbers of an operation's sources.
pub type Sources = [u16; 4];

/// The body of a [`Map`]: the row of the result, the lanes to write, the rows of the sources.
pub type MapFn = unsafe fn(&mut Wave, usize, u64, Sources);
/// The body of a [`Carry`]: as that of a map, with the mask that is read.
pub type CarryFn = unsafe fn(&mut Wave, usize, u64, Sources, u64) -> u64;
type CompareFn = unsafe fn(&Wave, u64, Sources) -> u64;

/// A function of whole rows: destination and sources are row numbers.
#[derive(Clone, Copy)]
pub struct Map(pub(super) MapFn);

impl Map {
    /// Computes and writes the lanes in `exec`.
    #[inline(always)]
    pub fn call(self, wave: &mut Wave, destination: usize, exec: u64, sources: Sources) {
        // SAFETY: operations are made for hosts that `host_is_fit` only.
        unsafe { (self.0)(wave, destination, exec, sources) }
    }
}

/// A function of whole rows with a bit per lane in and out.
#[derive(Clone, Copy)]
pub struct Carry(pub(super) CarryFn);

impl Carry {
    /// Computes and writes the lanes in `exec`; the bits of other lanes in the answer mean
    /// nothing.
    #[inline(always)]
    pub fn call(
        self,
        wave: &mut Wave,
        destination: usize,
        exec: u64,
        sources: Sources,
        mask: u64,
    ) -> u64 {
        // SAFETY: operations are made for hosts that `host_is_fit` only.
        unsafe { (self.0)(wave, destination, exec, sources, mask) }
    }
}

/// A function of whole rows that gives a mask.
#[derive(Clone, Copy)]
pub struct Compare(CompareFn);

impl Compare {
    /// The mask of the lanes in `exec` for which it holds.
    #[inline(always)]
    pub fn call(self, wave: &Wave, exec: u64, sources: Sources) -> u64 {
        // SAFETY: operations are made for hosts that `host_is_fit` only.
        unsafe { (self.0)(wave, exec, sources) }
    }
}

/// Whether this host has the instructions that operations are compiled for. Nothing is decoded
/// otherwise.
pub fn host_is_fit() -> bool {
    static FIT: OnceLock<bool> = OnceLock::new();
    #[cfg(target_arch = "x86_64")]
    let detect = || {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("bmi2")
    };
    #[cfg(not(target_arch = "x86_64"))]
    let detect = || true;
    *FIT.get_or_init(detect)
}

/// Defines a function that runs its body with the host's vector instructions.
macro_rules! vectorized {
    ($vector:ident, $body:ident, [$($generics:tt)*], [$($arguments:ident),*],
     ($($parameter:ident : $type:ty),*) $(-> $result:ty)?) => {
        #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,f16c,bmi2"))]
        unsafe fn $vector<$($generics)*>($($parameter: $type),*) $(-> $result)? {
            $body::<$($arguments),*>($($parameter),*)
        }
    };
}
pub(super) use vectorized;

/// Lanes that are computed at a time: the compiler unrolls that many, and what is written knows of
/// a full or an empty part of the execution mask.
pub const BLOCK: usize = 32;

/// The lowest bits of bytes as a mask.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn mask_of(bytes: &[u8; BLOCK]) -> u32 {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm256_movemask_epi8, _mm256_slli_epi16};
    // SAFETY: reads 32 bytes; operations are made for hosts that `host_is_fit` only.
    let mask = unsafe {
        let bytes = _mm256_loadu_si256(bytes.as_ptr().cast());
        _mm256_movemask_epi8(_mm256_slli_epi16::<7>(bytes))
    };
    mask as u32
}

/// The lowest bits of bytes as a mask.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn mask_of(bytes: &[u8; BLOCK]) -> u32 {
    // Eight bytes of 0 or 1 to eight bits: the product gathers them in its top byte.
    let (words, _) = bytes.as_chunks::<8>();
    let gather =
        |word: &[u8; 8]| u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    words.iter().rev().fold(0, |mask, word| mask << 8 | gather(word) as u32)
}

/// Writes the first `width` lanes of a register, those in `exec` only.
pub fn blend(out: &mut Row, exec: u64, width: usize, values: &[u32; LANES]) {
    for block in 0..width.min(LANES) / BLOCK {
        let mask = block_of(exec, block);
        if mask != 0 {
            let out = &mut out.0.as_chunks_mut::<BLOCK>().0[block];
            put(out, mask, &values.as_chunks::<BLOCK>().0[block]);
        }
    }
}

/// Writes the lanes of a mask.
#[inline(always)]
fn put(out: &mut [u32; BLOCK], mask: u32, values: &[u32; BLOCK]) {
    if mask == u32::MAX {
        *out = *values;
    } else {
        // SAFETY: operations are made for hosts that `host_is_fit` only.
        unsafe { put_some(out, mask, values) }
    }
}

/// One function for all operations: hundreds of copies would take minutes to compile.
#[inline(never)]
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,f16c,bmi2"))]
unsafe fn put_some(out: &mut [u32; BLOCK], mask: u32, values: &[u32; BLOCK]) {
    for lane in 0..BLOCK {
        let on = (mask >> lane & 1).wrapping_neg();
        out[lane] = values[lane] & on | out[lane] & !on;
    }
}

/// The only value of a closure type without captures.
#[inline(always)]
pub fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "operations capture nothing") };
    // SAFETY: a type of size zero that a value was passed of has a value without bytes.
    unsafe { std::mem::transmute_copy::<(), F>(&()) }
}

/// One block of the registers that hold an operand; the second is the first again where there is
/// only one.
#[inline(always)]
pub fn registers<T: Lane>(rows: &[Row], row: u16, block: usize) -> (&[u32; BLOCK], &[u32; BLOCK]) {
    let row = usize::from(row);
    let part = |row: usize| &rows[row].0.as_chunks::<BLOCK>().0[block];
    (part(row), part(row + T::KIND.rows() - 1))
}

/// Results of the lanes of a block before they are written.
pub struct Block {
    low: MaybeUninit<[u32; BLOCK]>,
    high: MaybeUninit<[u32; BLOCK]>,
}

impl Block {
    /// Computes every lane, executing or not.
    #[inline(always)]
    pub fn compute<R: Lane>(mut value: impl FnMut(usize) -> R) -> Block {
        let mut block = Block { low: MaybeUninit::uninit(), high: MaybeUninit::uninit() };
        let low = block.low.as_mut_ptr().cast::<u32>();
        let high = block.high.as_mut_ptr().cast::<u32>();
        for lane in 0..BLOCK {
            let (low_bits, high_bits) = value(lane).to_bits();
            // SAFETY: the lane is inside of the array.
            unsafe { low.add(lane).write(low_bits) };
            if R::KIND.rows() == 2 {
                // SAFETY: as above.
                unsafe { high.add(lane).write(high_bits) };
            }
        }
        block
    }

    /// One lane's result.
    #[inline(always)]
    pub fn get<R: Lane>(&self, lane: usize) -> R {
        // SAFETY: all lanes were computed, their high halves if results have them.
        unsafe {
            let low = self.low.assume_init_ref()[lane];
            let high = if R::KIND.rows() == 2 { self.high.assume_init_ref()[lane] } else { 0 };
            R::from_bits(low, high)
        }
    }

    /// Replaces one lane's result.
    #[inline(always)]
    pub fn set<R: Lane>(&mut self, lane: usize, value: R) {
        let (low, high) = value.to_bits();
        // SAFETY: all lanes were computed, their high halves if results have them.
        unsafe {
            self.low.assume_init_mut()[lane] = low;
            if R::KIND.rows() == 2 {
                self.high.assume_init_mut()[lane] = high;
            }
        }
    }

    /// Writes the lanes of a mask.
    #[inline(always)]
    pub fn store<R: Lane>(&self, rows: &mut [Row], row: usize, block: usize, mask: u32) {
        // SAFETY: all lanes were computed.
        let low = unsafe { self.low.assume_init_ref() };
        put(&mut rows[row].0.as_chunks_mut().0[block], mask, low);
        if R::KIND.rows() == 2 {
            // SAFETY: all lanes were computed, with their high halves.
            let high = unsafe { self.high.assume_init_ref() };
            put(&mut rows[row + 1].0.as_chunks_mut().0[block], mask, high);
        }
    }
}

/// The lanes of a block in a mask.
#[inline(always)]
pub fn block_of(mask: u64, block: usize) -> u32 {
    (mask >> (BLOCK * block)) as u32
}

/// Defines an operation's constructor, its function, and the versions of that for hosts.
macro_rules! arity {
    ($map:ident, $body:ident, $vector:ident,
     [$($mode:ident)?], $($type:ident $value:ident $index:literal),+) => {
        /// An operation from a function of one lane.
        pub fn $map<$($type: Lane,)+ R: Lane, F>(_: F) -> Op
        where
            F: Fn($($mode,)? $($type),+) -> R + Copy,
        {
            let map = $vector::<$($type,)+ R, F> as MapFn;
            Op::new(&[$($type::KIND),+], R::KIND, Core::Map(Map(map)))
        }

        #[inline(always)]
        fn $body<$($type: Lane,)+ R: Lane, F: Fn($($mode,)? $($type),+) -> R + Copy>(
            wave: &mut Wave, destination: usize, exec: u64, sources: Sources,
        ) {
            let f = conjure::<F>();
            $(let mode = $mode(wave.mode);)?
            for index in 0..LANES / BLOCK {
                let mask = block_of(exec, index);
                if mask == 0 {
                    continue;
                }
                $(let $value = registers::<$type>(&wave.rows, sources[$index], index);)+
                let block = Block::compute(|lane| {
                    f(
                        $({ let m: $mode = mode; m },)?
                        $($type::from_bits($value.0[lane], $value.1[lane])),+
                    )
                });
                block.store::<R>(&mut wave.rows, destination, index, mask);
            }
        }

        vectorized!(
            $vector, $body,
            [$($type: Lane,)+ R: Lane, F: Fn($($mode,)? $($type),+) -> R + Copy],
            [$($type,)+ R, F],
            (wave: &mut Wave, destination: usize, exec: u64, sources: Sources)
        );
    };
}

arity!(map1, map1_body, map1_vector, [], A a 0);
arity!(map2, map2_body, map2_vector, [], A a 0, B b 1);
arity!(map3, map3_body, map3_vector, [], A a 0, B b 1, C c 2);
arity!(map4, map4_body, map4_vector, [], A a 0, B b 1, C c 2, D d 3);
arity!(mode1, mode1_body, mode1_vector, [Mode], A a 0);
arity!(mode2, mode2_body, mode2_vector, [Mode], A a 0, B b 1);
arity!(mode3, mode3_body, mode3_vector, [Mode], A a 0, B b 1, C c 2);

/// A result of one lane, with or without a bit for the mask that is written.
pub trait Carried {
    /// The result.
    type Value: Lane;
    /// Whether there is a bit.
    const HAS_BIT: bool;
    /// The result and the bit.
    fn split(self) -> (Self::Value, bool);
}

impl<R: Lane> Carried for R {
    type Value = R;
    const HAS_BIT: bool = false;
    #[inline(always)]
    fn split(self) -> (R, bool) {
        (self, false)
    }
}

impl<R: Lane> Carried for (R, bool) {
    type Value = R;
    const HAS_BIT: bool = true;
    #[inline(always)]
    fn split(self) -> (R, bool) {
        self
    }
}

/// The same for functions with a bit in and perhaps a bit out.
macro_rules! carry_arity {
    ($carry:ident, $body:ident, $vector:ident,
     $($type:ident $value:ident $index:literal),+) => {
        /// An operation from a function of one lane whose last argument is the lane's bit of the
        /// mask that is read. It may give a second result, the bit of the mask that is written.
        /// Say with [`Op::reads_mask`] and [`Op::writes_mask`] which of them there are.
        pub fn $carry<$($type: Lane,)+ R: Carried, F>(_: F) -> Op
        where
            F: Fn($($type,)+ bool) -> R + Copy,
        {
            let carry = $vector::<$($type,)+ R, F> as CarryFn;
            Op::new(&[$($type::KIND),+], R::Value::KIND, Core::Carry(Carry(carry)))
        }

        #[inline(always)]
        fn $body<$($type: Lane,)+ R: Carried, F: Fn($($type,)+ bool) -> R + Copy>(
            wave: &mut Wave, destination: usize, exec: u64, sources: Sources, mask: u64,
        ) -> u64 {
            let f = conjure::<F>();
            let mut out = 0;
            for index in 0..LANES / BLOCK {
                let (write, read) = (block_of(exec, index), block_of(mask, index));
                if write == 0 {
                    continue;
                }
                let mut bits = [0; BLOCK];
                $(let $value = registers::<$type>(&wave.rows, sources[$index], index);)+
                let block = Block::compute(|lane| {
                    let (value, bit) = f(
                        $($type::from_bits($value.0[lane], $value.1[lane]),)+
                        read >> lane & 1 != 0,
                    ).split();
                    if R::HAS_BIT {
                        bits[lane] = u8::from(bit);
                    }
                    value
                });
                block.store::<R::Value>(&mut wave.rows, destination, index, write);
                if R::HAS_BIT {
                    out |= u64::from(mask_of(&bits)) << (BLOCK * index);
                }
            }
            out
        }

        vectorized!(
            $vector, $body,
            [$($type: Lane,)+ R: Carried, F: Fn($($type,)+ bool) -> R + Copy],
            [$($type,)+ R, F],
            (wave: &mut Wave, destination: usize, exec: u64, sources: Sources, mask: u64) -> u64
        );
    };
}

carry_arity!(carry2, carry2_body, carry2_vector, A a 0, B b 1);
carry_arity!(carry3, carry3_body, carry3_vector, A a 0, B b 1, C c 2);

/// A comparison from a function of one lane.
pub fn compare<A: Lane, B: Lane, F: Fn(A, B) -> bool + Copy>(_: F) -> Op {
    let compare = compare_vector::<A, B, F> as CompareFn;
    Op::new(&[A::KIND, B::KIND], Kind::B32, Core::Compare(Compare(compare)))
}

#[inline(always)]
fn compare_body<A: Lane, B: Lane, F: Fn(A, B) -> bool + Copy>(
    wave: &Wave,
    exec: u64,
    sources: Sources,
) -> u64 {
    let f = conjure::<F>();
    let mut out = 0;
    for index in 0..LANES / BLOCK {
        let mask = block_of(exec, index);
        if mask == 0 {
            continue;
        }
        let a = registers::<A>(&wave.rows, sources[0], index);
        let b = registers::<B>(&wave.rows, sources[1], index);
        let mut holds = [0_u8; BLOCK];
        for lane in 0..BLOCK {
            let (a, b) = (A::from_bits(a.0[lane], a.1[lane]), B::from_bits(b.0[lane], b.1[lane]));
            holds[lane] = u8::from(f(a, b));
        }
        out |= u64::from(mask_of(&holds) & mask) << (BLOCK * index);
    }
    out
}

vectorized!(
    compare_vector, compare_body,
    [A: Lane, B: Lane, F: Fn(A, B) -> bool + Copy], [A, B, F],
    (wave: &Wave, exec: u64, sources: Sources) -> u64
);
