//! For tests: what warpgroups of NVIDIA GPUs do, on an AMD GPU with waves of 32 lanes, as the PTX ISA
//! has it, so that kernels that rely on it run on the emulator. Addresses come from the bits of the
//! descriptors, arrivals and bytes are counted in the local data share.
//!
//! "Register Fragments" of wgmma.mma_async.m64nNk16, with groupID = lane >> 2, threadID_in_group =
//! lane % 4 and w the warp in the warpgroup:
//!
//! ```text
//! A  a0..a7   row = 16·w + groupID for ai where i < 2 || 4 <= i < 6, … + 8 otherwise
//!             col = threadID_in_group * 2 + (i & 1) for ai where i < 4, … + 8 where i >= 4
//! D  di       row = 16·w + groupID for di where i % 4 < 2, … + 8 otherwise
//!             col = i / 4 * 8 + threadID_in_group * 2 + (i & 1)
//! ```
//!
//! "Strides" and "Matrix Descriptor Format", K-major, no swizzle: element (row, k) of 16 bits is at
//! start + row / 8 · stride offset + row % 8 · 16 + k / 8 · leading offset + k % 8 · 2.
//!
//! "Phase Completion of the mbarrier object": a phase ends when no arrival and no byte is pending. A
//! barrier is two words here: its parity at bit 31, pending arrivals from bit 20 on, pending bytes
//! below; then the arrivals of each phase.

use super::Scope;
use super::warpgroup::{
    MBARRIER_BYTES, Multiply, PRODUCT_DEPTH, Rows, WARPGROUP, Warpgroup, Workers,
};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use crate::target::MatrixType;

/// The stand-in.
#[derive(Debug)]
pub(super) struct ByLanes;

/// One arrival in the first word.
const ARRIVAL: i32 = 1 << 20;

impl Warpgroup for ByLanes {
    fn mbarrier_init(&self, k: &mut Builder, at: Value, count: u32) {
        let pending = count as i32 * ARRIVAL;
        for (word, offset) in [(pending, 0), (pending, MBARRIER_BYTES / 2)] {
            let (word, to) = (k.i32(word), k.offset_const(at, offset.into()));
            k.store(word, to);
        }
    }

    fn mbarriers_ready(&self, _: &mut Builder) {}

    fn mbarrier_arrive(&self, k: &mut Builder, at: Value) {
        let nothing = k.i32(0);
        self.mbarrier_expect(k, at, nothing);
    }

    fn mbarrier_expect(&self, k: &mut Builder, at: Value, bytes: Value) {
        let change = k.add_const(bytes, -i64::from(ARRIVAL));
        count(k, at, change);
    }

    fn mbarrier_wait(&self, k: &mut Builder, at: Value, parity: Value) {
        let start = k.i32(0);
        k.while_loop(
            [start],
            |k, _| {
                let present = present_parity(k, at);
                k.cmp(Cmp::Eq, present, parity)
            },
            |_, carried| carried,
        );
        k.acquire(Scope::Workgroup);
    }

    fn copy_bulk(&self, k: &mut Builder, to: Value, from: Value, bytes: Value, at: Value) {
        let zero = k.i32(0);
        k.for_loop(zero, bytes, 16, [], |k, offset, []| {
            let [from, to] = [from, to].map(|address| k.offset_u32(address, offset));
            let words = k.load_aligned(from, Elem::I32.vec(4), 16);
            k.store_aligned(words, to, 16);
            []
        });
        let done = k.sub(zero, bytes);
        count(k, at, done);
    }

    fn registers(&self, _: &mut Builder, _: u32, _: bool) {}

    fn multiply(
        &self,
        k: &mut Builder,
        factors: MatrixType,
        products: &[Multiply],
        sums: &[Vec<Value>],
    ) -> Vec<Vec<Value>> {
        let mut sums = sums.to_vec();
        let lane = Lane::new(k);
        for product in products {
            let set = &mut sums[product.sums];
            let a: [Vec<Value>; 2] = match product.a {
                Rows::Shared(descriptor) => {
                    [0, 8].map(|more| lane.shared_row(k, factors, descriptor, lane.row, more))
                }
                Rows::Registers(words) => lane.register_rows(k, factors, words),
            };
            for (i, sum) in set.iter_mut().enumerate() {
                let i = i as u32;
                let column = i / 4 * 8 + i % 2;
                let b = lane.shared_row(k, factors, product.b, lane.column, column);
                for (a, b) in a[(i % 4 / 2) as usize].iter().zip(b) {
                    *sum = k.fma(*a, b, *sum);
                }
            }
        }
        sums
    }
}

/// Counts at a barrier; who completes a phase begins the next one.
fn count(k: &mut Builder, at: Value, change: Value) {
    let before = k.atomic_add(at, change, Scope::Workgroup);
    let now = k.add(before, change);
    let (pending, zero) = (k.i32(i32::MAX), k.i32(0));
    let pending = k.and(now, pending);
    let complete = k.cmp(Cmp::Eq, pending, zero);
    k.if_then(complete, |k| {
        let each = k.offset_const(at, (MBARRIER_BYTES / 2).into());
        let each = k.load(each, Elem::I32);
        let parity = k.i32(i32::MIN);
        let next = k.or(each, parity);
        k.atomic_add(at, next, Scope::Workgroup);
    });
}

fn present_parity(k: &mut Builder, at: Value) -> Value {
    let word = k.load_polled(at, Scope::Workgroup);
    let shift = k.i32(31);
    k.shr_u(word, shift)
}

/// A barrier of some waves.
pub(super) fn meet(k: &mut Builder, workers: Workers) {
    let thread = k.thread();
    let (mask, zero) = (k.i32(31), k.i32(0));
    let lane = k.and(thread, mask);
    let first = k.cmp(Cmp::Eq, lane, zero);
    // It cannot change before this wave arrives.
    let present = present_parity(k, workers.at);
    let present = k.first_lane(present);
    k.release_of_wave(Scope::Workgroup);
    k.if_then(first, |k| ByLanes.mbarrier_arrive(k, workers.at));
    ByLanes.mbarrier_wait(k, workers.at, present);
}

/// This lane's place.
struct Lane {
    /// First row of A and of D.
    row: Value,
    /// First row of B, column of D.
    column: Value,
    /// First lane of its group of four.
    group: Value,
}

impl Lane {
    fn new(k: &mut Builder) -> Lane {
        let thread = k.thread();
        let masks = [3, 28, 31, WARPGROUP as i32 - 1].map(|mask| k.i32(mask));
        let [in_group, group, lane, in_warpgroup] = masks.map(|mask| k.and(thread, mask));
        let (one, two) = (k.i32(1), k.i32(2));
        // 16 rows for each 32 lanes.
        let warp = k.sub(in_warpgroup, lane);
        let warp = k.shr_u(warp, one);
        let n = k.shr_u(lane, two);
        Lane { row: k.add(warp, n), column: k.shl(in_group, one), group }
    }

    /// The 16 elements of row `row + more` of a factor, as f32.
    fn shared_row(
        &self,
        k: &mut Builder,
        factors: MatrixType,
        descriptor: Value,
        row: Value,
        more: u32,
    ) -> Vec<Value> {
        let field = |k: &mut Builder, first: i64| {
            let (first, mask) = (k.i64(first), k.i64(0x3fff));
            let bits = k.shr_u(descriptor, first);
            let bits = k.and(bits, mask);
            let bits = k.trunc(bits, Elem::I32);
            k.mul_const(bits, 16)
        };
        let [start, leading, stride] = [0, 16, 32].map(|first| field(k, first));
        // Swizzled, with a base offset or with bits that are none: nowhere.
        let others = k.i64(!(0x3fff | 0x3fff << 16 | 0x3fff << 32));
        let others = k.and(descriptor, others);
        let none = k.i64(0);
        let wrong = k.cmp(Cmp::Ne, others, none);
        let nowhere = k.i32(1 << 20);
        let start = k.select(wrong, nowhere, start);
        let row = k.add_const(row, more.into());
        let (three, seven) = (k.i32(3), k.i32(7));
        let group = k.shr_u(row, three);
        let in_group = k.and(row, seven);
        let at = k.mul(group, stride);
        let at = k.add(start, at);
        let in_group = k.mul_const(in_group, 16);
        let at = k.add(at, in_group);
        let mut elements = vec![];
        for chunk in 0..PRODUCT_DEPTH / 8 {
            let before = k.mul_const(leading, chunk.into());
            let at = k.add(at, before);
            let from =
                k.emit(Elem::Shared.scalar(), |t| format!("llvm.inttoptr {at} : i32 to {t}"));
            let words = k.load_aligned(from, Elem::I32.vec(4), 16);
            elements.extend(widened(k, factors, words));
        }
        elements
    }

    /// The elements of this lane's two rows, which four lanes hold.
    fn register_rows(
        &self,
        k: &mut Builder,
        factors: MatrixType,
        words: [Value; 4],
    ) -> [Vec<Value>; 2] {
        [0, 1].map(|other| {
            let mut row = vec![];
            for half in 0..2 {
                for lane in 0..4 {
                    let source = k.add_const(self.group, lane);
                    let word = k.shuffle_lanes(words[2 * half + other], source);
                    let word = k.splat(word, 1);
                    row.extend(widened(k, factors, word));
                }
            }
            row
        })
    }
}

/// Words as numbers, two each.
fn widened(k: &mut Builder, factors: MatrixType, words: Value) -> Vec<Value> {
    let count = 2 * words.ty.lanes;
    let numbers = match factors {
        MatrixType::Bf16 => {
            let bits = k.bitcast(words, Elem::I16.vec(count));
            k.bf16_to_f32(bits)
        }
        _ => {
            let halves = k.bitcast(words, Elem::F16.vec(count));
            k.extf(halves, Elem::F32)
        }
    };
    (0..count).map(|lane| k.extract(numbers, lane)).collect()
}
