//! Executes a decoded matrix instruction: registers to dense matrices, a kernel, and back.

#![allow(unsafe_code)]

use std::cell::RefCell;

use super::form::Arithmetic;
use super::host;
use super::kernel::{
    self, BRAIN, Chain, Flushed, HALF, Integer, Interleaved, Kernel, Pairs, Quads, Row, SINGLE,
    Scratch, Shape, Stepwise, Truncated,
};
use super::layout::Task;
use super::operand::{ELEMENTS, Input};
use super::simd::{Avx2, Avx512, Simd, WIDTH};
use crate::number::{bf16_to_f32, e8m0_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::wave::{LANES, Wave, mode};

/// Where C comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addend {
    /// Rows of registers.
    Row(usize),
    /// The same bits in every element.
    Constant(u64),
}

/// How elements of C and D lie in a lane's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// One in each register.
    Whole,
    /// One in each pair of registers.
    Double,
    /// 16 bits in each register, in the high half if set; the other half stays.
    Half(bool),
    /// Two in each register.
    Packed,
}

/// What C and D are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// 32 bits, taken as they are, or doubles.
    Bits,
    /// Halves.
    F16,
    /// bfloat16.
    Bf16,
}

/// Which elements a sparse A holds: two bits for each stored one.
#[derive(Debug, Clone, Copy)]
pub struct Index {
    /// Register of the bits.
    pub row: usize,
    /// Bit at which a lane's first element's index is.
    pub first: usize,
}

/// E8M0 scales of A or B: one for each row or column and 32 values of k.
#[derive(Debug, Clone, Copy)]
pub struct Scales {
    /// Register.
    pub row: usize,
    /// Which byte of it.
    pub byte: usize,
    /// Lanes from one run of 32 values to the next.
    pub stride: usize,
}

/// A decoded instruction.
pub struct Plan {
    /// A.
    pub a: Input,
    /// B.
    pub b: Input,
    /// C.
    pub c: Addend,
    /// First row of D.
    pub destination: usize,
    /// Format of C and D.
    pub value: Value,
    /// Layout of C and D.
    pub packing: Packing,
    /// Bits of C to keep, and bits to flip after that.
    pub sign: [u32; 2],
    /// Columns of B, C and D.
    pub columns: usize,
    /// The products.
    pub tasks: Vec<Task>,
    /// Where each strip of a row of C and D lies; see [`strips`].
    pub strips: Vec<Strip>,
    /// Indices of a sparse A.
    pub index: Option<Index>,
    /// Scales of A and B.
    pub scales: Option<[Scales; 2]>,
    /// Integer results.
    pub integer: bool,
    /// Integer results stop at the ends of their range.
    pub clamp: bool,
    /// FP16_OVFL of the mode register makes single results stop at the largest finite ones.
    pub bounded_by_mode: bool,
}

/// A piece of a row of C and D that is computed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strip {
    /// Register, counted from the first.
    pub register: usize,
    /// Bit of the register at which 16-bit elements begin.
    pub shift: u32,
    /// First lane.
    pub lane: usize,
}

/// The strips of all tasks in the order of the dense C: strip by strip, all rows of each.
pub fn strips(tasks: &[Task], columns: usize, packing: Packing) -> Vec<Strip> {
    let mut strips = Vec::new();
    for task in tasks {
        for first in (0..columns).step_by(WIDTH) {
            for offset in &task.c {
                let (register, shift) = packing.place(offset / LANES);
                strips.push(Strip { register, shift, lane: offset % LANES + first });
            }
        }
    }
    strips
}

/// Dense copies of the operands of one instruction.
struct Work {
    /// A and B as they lie in registers.
    a: Box<[f32; ELEMENTS]>,
    b: Box<[f32; ELEMENTS]>,
    /// C, then D, by strips.
    c: Vec<Row<u32>>,
    single: Dense<f32>,
    double: Dense<f64>,
    positions: Vec<usize>,
    scratch: Scratch,
}

struct Dense<T> {
    a: Vec<T>,
    b: Vec<Row<T>>,
}

/// Rows of B, at most.
const DEPTH: usize = 128;

impl Work {
    fn new() -> Work {
        Work {
            a: Box::new([0.0; ELEMENTS]),
            b: Box::new([0.0; ELEMENTS]),
            c: vec![[0; WIDTH]; ELEMENTS / WIDTH],
            single: Dense { a: vec![0.0; ELEMENTS], b: vec![[0.0; WIDTH]; DEPTH] },
            double: Dense { a: vec![0.0; ELEMENTS], b: vec![[0.0; WIDTH]; DEPTH] },
            positions: vec![0; ELEMENTS],
            scratch: Scratch::new(),
        }
    }
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::new(Work::new());
}

/// Executes an instruction on a wave.
#[derive(Debug, Clone, Copy)]
pub struct Runner(unsafe fn(&Plan, &mut Wave, &mut Work));

impl Runner {
    /// Executes `plan`.
    pub fn run(self, plan: &Plan, wave: &mut Wave) {
        let bounded = plan.bounded_by_mode && wave.mode & mode::FP16_OVFL != 0;
        WORK.with_borrow_mut(|work| {
            let mut before = Vec::new();
            if bounded {
                read_c(plan, wave, &mut work.c);
                before.extend_from_slice(&work.c[..plan.strips.len()]);
            }
            // SAFETY: `select` picked a version that this host has the instructions for.
            unsafe { (self.0)(plan, wave, work) };
            if bounded {
                bound(plan, work, &before);
                write_d(plan, wave, &work.c);
            }
        });
    }
}

/// Infinite results of finite operands become the largest finite number.
#[cold]
fn bound(plan: &Plan, work: &mut Work, before: &[Row<u32>]) {
    let mut at = 0;
    for task in &plan.tasks {
        for first in (0..plan.columns).step_by(WIDTH) {
            for row in &task.rows {
                let finite_row = task.a.iter().all(|offset| work.a[offset + row].is_finite());
                for column in 0..plan.columns.min(WIDTH) {
                    let result = &mut work.c[at][column];
                    let infinite = *result & 0x7fff_ffff == 0x7f80_0000;
                    let mut b = task.b.iter().map(|offset| work.b[offset + first + column]);
                    let finite_c = f32::from_bits(before[at][column]).is_finite();
                    if infinite && finite_row && finite_c && b.all(f32::is_finite) {
                        *result = *result & 0x8000_0000 | f32::MAX.to_bits();
                    }
                }
                at += 1;
            }
        }
    }
}

/// The runner of a stage for this host.
fn select<T: Stage>() -> Runner {
    Runner(host::choose(avx2::<T>, avx512::<T>))
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,f16c,bmi2"))]
unsafe fn avx2<T: Stage>(plan: &Plan, wave: &mut Wave, work: &mut Work) {
    // SAFETY: this function's own vector units.
    unsafe { T::run::<Avx2>(plan, wave, work) };
}

#[cfg_attr(
    target_arch = "x86_64",
    target_feature(enable = "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl")
)]
unsafe fn avx512<T: Stage>(plan: &Plan, wave: &mut Wave, work: &mut Work) {
    // SAFETY: this function's own vector units.
    unsafe { T::run::<Avx512>(plan, wave, work) };
}

/// The runner for an arithmetic. `clamp` is for integers.
pub fn runner(arithmetic: Arithmetic, plan: &Plan, clamp: bool) -> Option<Runner> {
    macro_rules! by_result {
        ($kernel:ident, $steps:literal) => {
            match plan.value {
                Value::Bits => select::<Single<Stepwise<$kernel<SINGLE>, $steps>>>(),
                Value::F16 => select::<Single<Stepwise<$kernel<HALF>, $steps>>>(),
                Value::Bf16 => select::<Single<Stepwise<$kernel<BRAIN>, $steps>>>(),
            }
        };
    }
    Some(match arithmetic {
        _ if plan.packing == Packing::Double => select::<Doubles>(),
        _ if plan.index.is_some() && clamp => select::<Sparse<true>>(),
        _ if plan.index.is_some() => select::<Sparse<false>>(),
        Arithmetic::Chain => select::<Single<Chain>>(),
        Arithmetic::Integer if clamp => select::<Single<Integer<true>>>(),
        Arithmetic::Integer => select::<Single<Integer<false>>>(),
        Arithmetic::Flushed(2) => select::<Single<Flushed<2>>>(),
        Arithmetic::Flushed(4) => select::<Single<Flushed<4>>>(),
        Arithmetic::Truncated(4) => select::<Single<Stepwise<Truncated, 4>>>(),
        Arithmetic::Truncated(8) => select::<Single<Stepwise<Truncated, 8>>>(),
        Arithmetic::Interleaved => select::<Single<Stepwise<Interleaved, 16>>>(),
        Arithmetic::Pairs => by_result!(Pairs, 2),
        Arithmetic::Quads => by_result!(Quads, 4),
        Arithmetic::Wide => select::<Widened>(),
        Arithmetic::Flushed(_) | Arithmetic::Truncated(_) => return None,
    })
}

/// The whole of an instruction, for one kind of dense matrices.
trait Stage {
    /// Executes an instruction.
    ///
    /// # Safety
    ///
    /// The host must have the vector units of `S`.
    unsafe fn run<S: Simd>(plan: &Plan, wave: &mut Wave, work: &mut Work);
}

/// A kernel on singles.
struct Single<K>(K);
/// The kernel on doubles, of operands that fit in singles.
struct Widened;
/// Products of a sparse A, in doubles.
struct Sparse<const CLAMP: bool>;
/// Matrices of doubles.
struct Doubles;

impl<K: Kernel> Stage for Single<K> {
    #[inline(always)]
    unsafe fn run<S: Simd>(plan: &Plan, wave: &mut Wave, work: &mut Work) {
        plan.a.unpack(&wave.rows, &mut work.a, wave.mode);
        plan.b.unpack(&wave.rows, &mut work.b, wave.mode);
        read_c(plan, wave, &mut work.c);
        let saturate = wave.mode & mode::FP16_OVFL != 0;
        let mut at = 0;
        for task in &plan.tasks {
            let shape = plan.shape(task, saturate);
            gather_a(task, &work.a, &mut work.single.a);
            let a = &work.single.a[..shape.rows * shape.k];
            for first in (0..plan.columns).step_by(WIDTH) {
                let b = gather_b(plan, task, first, &work.b, &mut work.single.b);
                let c = &mut work.c[at..at + shape.rows];
                // SAFETY: the caller promises the vector units.
                unsafe { K::strip::<S>(shape, a, b, c, &mut work.scratch) };
                at += shape.rows;
            }
        }
        write_d(plan, wave, &work.c);
    }
}

impl Stage for Widened {
    #[inline(always)]
    unsafe fn run<S: Simd>(plan: &Plan, wave: &mut Wave, work: &mut Work) {
        plan.a.unpack(&wave.rows, &mut work.a, wave.mode);
        plan.b.unpack(&wave.rows, &mut work.b, wave.mode);
        read_c(plan, wave, &mut work.c);
        let mut at = 0;
        for task in &plan.tasks {
            let shape = plan.shape(task, false);
            gather_a_wide(task, &work.a, &mut work.double.a);
            if let Some([scales, _]) = &plan.scales {
                scale_a(task, scales, wave, &mut work.double.a);
            }
            let a = &work.double.a[..shape.rows * shape.k];
            for first in (0..plan.columns).step_by(WIDTH) {
                let b = gather_b_wide(plan, task, first, &work.b, &mut work.double.b);
                if let Some([_, scales]) = &plan.scales {
                    scale_b(scales, wave, first, b);
                }
                let c = &mut work.c[at..at + shape.rows];
                // SAFETY: the caller promises the vector units.
                unsafe { kernel::wide_strip::<S>(shape.k, a, b, c) };
                at += shape.rows;
            }
        }
        write_d(plan, wave, &work.c);
    }
}

impl<const CLAMP: bool> Stage for Sparse<CLAMP> {
    #[inline(always)]
    unsafe fn run<S: Simd>(plan: &Plan, wave: &mut Wave, work: &mut Work) {
        let Some(index) = plan.index else { return };
        plan.a.unpack(&wave.rows, &mut work.a, wave.mode);
        plan.b.unpack(&wave.rows, &mut work.b, wave.mode);
        read_c(plan, wave, &mut work.c);
        let mut at = 0;
        for task in &plan.tasks {
            let shape = plan.shape(task, false);
            gather_a_wide(task, &work.a, &mut work.double.a);
            locate(task, index, wave, &mut work.positions);
            for first in (0..plan.columns).step_by(WIDTH) {
                let b = gather_b_wide(plan, task, first, &work.b, &mut work.double.b);
                for row in 0..shape.rows {
                    let stored = row * shape.k..(row + 1) * shape.k;
                    let (a, positions) = (&work.double.a[stored.clone()], &work.positions[stored]);
                    // SAFETY: the caller promises the vector units.
                    unsafe {
                        sparse_row::<S, CLAMP>(plan.integer, a, positions, b, &mut work.c[at])
                    };
                    at += 1;
                }
            }
        }
        write_d(plan, wave, &work.c);
    }
}

/// The row of B for each stored element of A.
#[inline(always)]
fn locate(task: &Task, index: Index, wave: &Wave, positions: &mut [usize]) {
    for (at, row) in task.rows.iter().enumerate() {
        for (k, offset) in task.a.iter().enumerate() {
            let offset = offset + row;
            let bits = wave.rows[index.row].0[offset % LANES];
            let two = bits >> ((index.first + 2 * (offset / LANES)) & 31) & 3;
            positions[at * task.a.len() + k] = 4 * (k / 2) + two as usize;
        }
    }
}

/// As [`kernel::wide_strip`] or [`Integer`], with the row of B that each stored element of A says.
#[inline(always)]
unsafe fn sparse_row<S: Simd, const CLAMP: bool>(
    integer: bool,
    a: &[f64],
    positions: &[usize],
    b: &[Row<f64>],
    c: &mut Row<u32>,
) {
    // SAFETY: the caller promises the vector units; sums of integers are below 2^24.
    unsafe {
        let old = S::load_bits(c);
        let mut sum = S::splat_double(0.0);
        if !integer {
            sum = S::widen(S::from_bits(old));
        }
        for (a, position) in a.iter().zip(positions) {
            sum = S::fma_double(S::splat_double(*a), S::load_double(&b[*position]), sum);
        }
        let result = match integer {
            true => kernel::add_integer::<S, CLAMP>(old, S::truncate_double(sum)),
            false => kernel::canonical_bits::<S>(S::bits(S::narrow(sum))),
        };
        S::store_bits(result, c);
    }
}

impl Plan {
    #[inline(always)]
    fn shape(&self, task: &Task, saturate: bool) -> Shape {
        let lowest = [self.a.format.lowest_exponent(), self.b.format.lowest_exponent()];
        Shape { rows: task.rows.len(), k: task.a.len(), lowest, saturate }
    }
}

impl Scales {
    /// The scale of a row or column in a run of 32 values of k.
    #[inline(always)]
    fn get(&self, wave: &Wave, outer: usize, run: usize) -> f64 {
        let lane = (outer + self.stride * run) % LANES;
        f64::from(e8m0_to_f32((wave.rows[self.row].0[lane] >> (8 * self.byte)) as u8))
    }
}

#[inline(always)]
fn scale_a(task: &Task, scales: &Scales, wave: &Wave, a: &mut [f64]) {
    for (at, row) in task.rows.iter().enumerate() {
        let row_of_a = &mut a[at * task.a.len()..][..task.a.len()];
        for (run, values) in row_of_a.chunks_mut(32).enumerate() {
            let scale = scales.get(wave, *row, run);
            for value in values {
                *value *= scale;
            }
        }
    }
}

#[inline(always)]
fn scale_b(scales: &Scales, wave: &Wave, first: usize, b: &mut [Row<f64>]) {
    for (run, rows) in b.chunks_mut(32).enumerate() {
        let mut scale = [0.0; WIDTH];
        for column in 0..WIDTH {
            scale[column] = scales.get(wave, first + column, run);
        }
        for row in rows {
            for column in 0..WIDTH {
                row[column] *= scale[column];
            }
        }
    }
}

/// A's rows, one after the other.
#[inline(always)]
fn gather_a(task: &Task, from: &[f32; ELEMENTS], out: &mut [f32]) {
    let k = task.a.len();
    for (at, row) in task.rows.iter().enumerate() {
        let out = &mut out[at * k..][..k];
        for column in 0..k {
            out[column] = from[(task.a[column] + row) % ELEMENTS];
        }
    }
}

/// The same as doubles.
#[inline(always)]
fn gather_a_wide(task: &Task, from: &[f32; ELEMENTS], out: &mut [f64]) {
    let k = task.a.len();
    for (at, row) in task.rows.iter().enumerate() {
        let out = &mut out[at * k..][..k];
        for column in 0..k {
            out[column] = f64::from(from[(task.a[column] + row) % ELEMENTS]);
        }
    }
}

/// Columns of B from `first` on, row by row.
#[inline(always)]
fn gather_b<'a>(
    plan: &Plan,
    task: &Task,
    first: usize,
    from: &[f32; ELEMENTS],
    out: &'a mut [Row<f32>],
) -> &'a mut [Row<f32>] {
    let rows = &mut out[..task.b.len()];
    if plan.columns < WIDTH {
        for (row, offset) in rows.iter_mut().zip(&task.b) {
            *row = [0.0; WIDTH];
            row[..plan.columns].copy_from_slice(&from[*offset..][..plan.columns]);
        }
        return rows;
    }
    for (row, offset) in rows.iter_mut().zip(&task.b) {
        row.copy_from_slice(&from[offset + first..][..WIDTH]);
    }
    rows
}

/// The same as doubles.
#[inline(always)]
fn gather_b_wide<'a>(
    plan: &Plan,
    task: &Task,
    first: usize,
    from: &[f32; ELEMENTS],
    out: &'a mut [Row<f64>],
) -> &'a mut [Row<f64>] {
    let rows = &mut out[..task.b.len()];
    let columns = plan.columns.min(WIDTH);
    for (row, offset) in rows.iter_mut().zip(&task.b) {
        let from = &from[offset + first..][..columns];
        if columns < WIDTH {
            *row = [0.0; WIDTH];
        }
        for column in 0..columns {
            row[column] = f64::from(from[column]);
        }
    }
    rows
}

/// C as singles or integers.
#[inline(always)]
fn read_c(plan: &Plan, wave: &Wave, c: &mut [Row<u32>]) {
    let c = &mut c[..plan.strips.len()];
    let columns = plan.columns.min(WIDTH);
    match plan.c {
        Addend::Constant(bits) => c.fill([convert(plan.value, bits as u32); WIDTH]),
        Addend::Row(first) => {
            for (out, strip) in c.iter_mut().zip(&plan.strips) {
                let lanes = &wave.rows[first + strip.register].0[strip.lane..][..columns];
                match plan.value {
                    Value::Bits if columns == WIDTH => out.copy_from_slice(lanes),
                    value => {
                        *out = [0; WIDTH];
                        for (out, bits) in out.iter_mut().zip(lanes) {
                            *out = convert(value, bits >> strip.shift);
                        }
                    }
                }
            }
        }
    }
    let [keep, flip] = plan.sign;
    if [keep, flip] != [u32::MAX, 0] {
        for bits in c.as_flattened_mut() {
            *bits = *bits & keep ^ flip;
        }
    }
}

/// The bits of a single, or of a 32-bit integer, from those of C.
#[inline(always)]
fn convert(value: Value, bits: u32) -> u32 {
    match value {
        Value::Bits => bits,
        Value::F16 => f16_to_f32(bits as u16).to_bits(),
        Value::Bf16 => bf16_to_f32(bits as u16).to_bits(),
    }
}

impl Packing {
    /// Register and bit of an element.
    fn place(self, element: usize) -> (usize, u32) {
        match self {
            Packing::Whole => (element, 0),
            Packing::Double => (2 * element, 0),
            Packing::Half(high) => (element, if high { 16 } else { 0 }),
            Packing::Packed => (element / 2, if element % 2 == 1 { 16 } else { 0 }),
        }
    }
}

#[inline(always)]
fn write_d(plan: &Plan, wave: &mut Wave, c: &[Row<u32>]) {
    let columns = plan.columns.min(WIDTH);
    for (results, strip) in c.iter().zip(&plan.strips) {
        let row = &mut wave.rows[plan.destination + strip.register].0;
        let out = &mut row[strip.lane..][..columns];
        match plan.value {
            Value::Bits if columns == WIDTH => out.copy_from_slice(results),
            Value::Bits => out.copy_from_slice(&results[..columns]),
            value => {
                for (out, bits) in out.iter_mut().zip(results) {
                    let single = f32::from_bits(*bits);
                    let half = match value {
                        Value::F16 => f32_to_f16(single),
                        _ => f32_to_bf16(single),
                    };
                    *out = *out & !(0xffff << strip.shift) | u32::from(half) << strip.shift;
                }
            }
        }
    }
}

impl Stage for Doubles {
    #[inline(always)]
    unsafe fn run<S: Simd>(plan: &Plan, wave: &mut Wave, work: &mut Work) {
        let columns = plan.columns.min(WIDTH);
        let mut results = [[0.0_f64; WIDTH]; 64];
        let mut next = 0;
        for task in &plan.tasks {
            let b = &mut work.double.b[..task.b.len()];
            for (b, offset) in b.iter_mut().zip(&task.b) {
                for column in 0..columns {
                    b[column] = operand(wave, &plan.b, offset + column);
                }
            }
            for (row, offset) in task.rows.iter().zip(&task.c) {
                for column in 0..columns {
                    let bits = match plan.c {
                        Addend::Constant(bits) => bits,
                        Addend::Row(first) => {
                            read_pair(wave, first + 2 * (offset / LANES), offset + column)
                        }
                    };
                    results[next][column] = f64::from_bits(bits ^ u64::from(plan.sign[1]) << 32);
                }
                // SAFETY: the caller promises the vector units.
                unsafe {
                    let mut sum = S::load_double(&results[next]);
                    for (b, a) in b.iter().zip(&task.a) {
                        let a = operand(wave, &plan.a, a + row);
                        sum = S::fma_double(S::splat_double(a), S::load_double(b), sum);
                    }
                    S::store_double(sum, &mut results[next]);
                }
                next += 1;
            }
        }
        let places = plan.tasks.iter().flat_map(|task| &task.c);
        for (offset, sum) in places.zip(&results) {
            let row = plan.destination + 2 * (offset / LANES);
            for column in 0..columns {
                let nan = 0x7ff8_0000_0000_0000;
                let bits = if sum[column].is_nan() { nan } else { sum[column].to_bits() };
                let lane = (offset + column) % LANES;
                wave.rows[row].0[lane] = bits as u32;
                wave.rows[row + 1].0[lane] = (bits >> 32) as u32;
            }
        }
    }
}

/// A lane's double.
#[inline(always)]
fn read_pair(wave: &Wave, row: usize, lane: usize) -> u64 {
    let (low, high) = (wave.rows[row].0[lane % LANES], wave.rows[row + 1].0[lane % LANES]);
    u64::from(low) | u64::from(high) << 32
}

/// An element of A or B, of which each lane has one.
#[inline(always)]
fn operand(wave: &Wave, input: &Input, lane: usize) -> f64 {
    f64::from_bits(read_pair(wave, input.row, lane) ^ u64::from(input.flip[0]) << 32)
}
