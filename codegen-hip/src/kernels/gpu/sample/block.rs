//! Sums over the work-items of a workgroup that all of them get.

use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use crate::target::GpuTarget;

/// Bytes of a wave's entry in the local data share.
const ENTRY: u32 = 16;

/// A workgroup, and its place for an entry per wave.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    target: &'a GpuTarget,
    workgroup: u32,
    /// An entry per wave, then a word.
    shared: Value,
}

impl<'a> Block<'a> {
    pub fn new(k: &mut Builder, target: &'a GpuTarget, workgroup: u32) -> Block<'a> {
        let shared = k.shared(ENTRY * (workgroup / target.wave) + ENTRY);
        Block { target, workgroup, shared }
    }

    pub fn waves(&self) -> u32 {
        self.workgroup / self.target.wave
    }

    /// Combines values of all work-items, in any order; the results are uniform.
    pub fn reduce<const N: usize>(
        &self,
        k: &mut Builder,
        values: [Value; N],
        combine: impl Fn(&mut Builder, [Value; N], [Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let of_wave = self.reduce_lanes(k, values, self.target.wave, &combine);
        let of_waves = self.exchange(k, of_wave);
        let all = self.reduce_lanes(k, of_waves, self.waves(), &combine);
        all.map(|value| first_lane(k, value))
    }

    /// The sum over all work-items: uniform.
    pub fn sum(&self, k: &mut Builder, value: Value) -> Value {
        let [sum] = self.reduce(k, [value], |k, [a], [b]| [k.add(a, b)]);
        sum
    }

    /// The sum over the lanes of this wave: uniform.
    pub fn sum_of_wave(&self, k: &mut Builder, value: Value) -> Value {
        let wave = self.target.wave;
        let [sum] = self.reduce_lanes(k, [value], wave, &|k, [a], [b]| [k.add(a, b)]);
        first_lane(k, sum)
    }

    /// The sum over the waves before this one, that of this wave, and that of all: uniform.
    pub fn prefix(&self, k: &mut Builder, value: Value) -> (Value, Value, Value) {
        let own = self.sum_of_wave(k, value);
        let [sums] = self.exchange(k, [own]);
        let lane = k.lane(self.target);
        let mask = k.i32(self.waves() as i32 - 1);
        let (of_wave, wave) = (k.and(lane, mask), k.wave(self.target));
        let is_before = k.cmp(Cmp::Lt, of_wave, wave);
        let zero = k.zero(sums.ty);
        let before = k.select(is_before, sums, zero);
        let add =
            |k: &mut Builder, a: [Value; 2], b: [Value; 2]| [k.add(a[0], b[0]), k.add(a[1], b[1])];
        let [before, all] = self.reduce_lanes(k, [before, sums], self.waves(), &add);
        (first_lane(k, before), own, first_lane(k, all))
    }

    /// The sum over the lanes of this wave before this one.
    pub fn prefix_of_wave(&self, k: &mut Builder, value: Value) -> Value {
        let lane = k.lane(self.target);
        let mut sum = value;
        let mut distance = 1;
        while distance < self.target.wave {
            let source = k.add_const(lane, -i64::from(distance));
            let other = words(k, sum, |k, word| k.shuffle_lanes(word, source));
            let zero = k.i32(0);
            let exists = k.cmp(Cmp::Ge, source, zero);
            let more = k.add(sum, other);
            sum = k.select(exists, more, sum);
            distance *= 2;
        }
        k.sub(sum, value)
    }

    /// A word of the workgroup that holds `value` after the next barrier.
    pub fn shared_word(&self, k: &mut Builder, value: Value) -> Value {
        let at = k.offset_const(self.shared, i64::from(ENTRY * self.waves()));
        let (thread, zero) = (k.thread(), k.i32(0));
        let is_first = k.cmp(Cmp::Eq, thread, zero);
        k.if_then(is_first, |k| k.store(value, at));
        at
    }

    /// Values that are the same in all lanes of a wave, as lane `l` has those of wave `l % waves`.
    fn exchange<const N: usize>(&self, k: &mut Builder, values: [Value; N]) -> [Value; N] {
        let place = |k: &mut Builder, wave: Value| {
            let mut at = k.element_u32(self.shared, Elem::I32, wave);
            let bytes = k.mul_const(wave, i64::from(ENTRY) - 4);
            at = k.offset_u32(at, bytes);
            let mut bytes = 0;
            values.map(|value| {
                let at = k.offset_const(at, bytes);
                bytes += i64::from(value.ty.bytes());
                at
            })
        };
        let wave = k.wave(self.target);
        let to = place(k, wave);
        let (lane, zero) = (k.lane(self.target), k.i32(0));
        let is_first = k.cmp(Cmp::Eq, lane, zero);
        // What was there before has been read.
        k.barrier_shared();
        k.if_then(is_first, |k| {
            for (value, at) in values.into_iter().zip(to) {
                k.store(value, at);
            }
        });
        k.barrier_shared();
        let mask = k.i32(self.waves() as i32 - 1);
        let wave = k.and(lane, mask);
        let from = place(k, wave);
        let mut types = values.iter().map(|value| value.ty);
        from.map(|at| {
            let ty = types.next().expect("as many as places");
            k.load(at, ty)
        })
    }

    /// Combines over groups of `width` neighbouring lanes.
    fn reduce_lanes<const N: usize>(
        &self,
        k: &mut Builder,
        mut values: [Value; N],
        width: u32,
        combine: &impl Fn(&mut Builder, [Value; N], [Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let mut mask = 1;
        while mask < width {
            let others =
                values.map(|value| words(k, value, |k, word| k.lane_xor(word, mask, self.target)));
            values = combine(k, values, others);
            mask *= 2;
        }
        values
    }
}

/// The value of the first lane.
fn first_lane(k: &mut Builder, value: Value) -> Value {
    words(k, value, |k, word| k.first_lane(word))
}

/// Moves a value of 32 or 64 bits word by word.
fn words(
    k: &mut Builder,
    value: Value,
    mut each: impl FnMut(&mut Builder, Value) -> Value,
) -> Value {
    if value.ty.bytes() == 4 {
        return each(k, value);
    }
    let pair = k.bitcast(value, Elem::I32.vec(2));
    let mut moved = pair;
    for index in 0..2 {
        let word = k.extract(pair, index);
        let word = each(k, word);
        moved = k.insert(word, moved, index);
    }
    k.bitcast(moved, value.ty)
}
