//! `sample`: draws a token from the logits and sets up the next step.
//!
//! The rule is that of `docs/architecture.md`, "The decode loop". Nothing is sorted: the filters
//! keep what is at or above a threshold, and the threshold is found by bisection, as the bits of
//! f32 numbers, read as integers, are in the numbers' order. Weights are
//! e^((x − largest) / temperature) in f32, their sums in f64. Before the bisections, tokens that
//! are surely below the thresholds are left out: what remains is a short list.

use crate::kernels::instance::Draft;
use crate::kernels::{KernelError, KernelSource, SYMBOLS};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use crate::target::CpuTarget;
use waveloom_plan as plan;

/// Tokens whose weights are summed at once when a draw is looked up.
const WALK_BLOCK: i64 = 1024;
/// Vectors of logits whose lanes are groups of tokens: see [`Sampler::least_candidate`].
const GROUPS: usize = 8;

/// The kernel for `vocab` logits: one work item. Buffers: 0 logits `f32[1, V]`, 1 sampling
/// parameters (the words of `SamplingParams`), 2 tokens, 3 positions, 4 last, 5 history. For the
/// drawn token t it writes `tokens[0] = t`, `positions[0] = S`, `last[0] = 0`, `history[S] = t`.
pub fn kernel(vocab: u32, target: &CpuTarget) -> Result<KernelSource, KernelError> {
    if !(1..=i32::MAX as u32 / 4).contains(&vocab) {
        return Err(KernelError(format!("`sample`: a vocabulary of {vocab} tokens")));
    }
    let cache_length = SYMBOLS.iter().position(|name| *name == "S").unwrap_or_default();
    let mut draft = Draft::new("sample");
    let [logits, params, tokens, positions, last, history] =
        [0, 1, 2, 3, 4, 5].map(|index| draft.buffer(index));
    let counter = draft.number(plan::Expr::Symbol(cache_length));
    let k = &mut draft.builder;
    let (first, end) = (k.first(), k.last());
    let sampler = Sampler { vocab, lanes: target.lanes, logits, params, counter };
    let scratch_bytes = sampler.scratch_bytes();
    k.for_loop(first, end, 1, [], |k, _, []| {
        let token = sampler.token(k);
        let position = k.trunc(counter, Elem::I32);
        let zero = k.i32(0);
        k.store(token, tokens);
        k.store(position, positions);
        k.store(zero, last);
        let at = k.element(history, Elem::I32, counter);
        k.store(token, at);
        []
    });
    Ok(draft.finish(format!("sample f32[1,{vocab}]"), plan::Expr::from(1), scratch_bytes))
}

/// The code of the kernel.
struct Sampler {
    vocab: u32,
    lanes: u32,
    logits: Value,
    params: Value,
    counter: Value,
}

impl Sampler {
    fn padded_vocab(&self) -> u32 {
        self.vocab.next_multiple_of(self.lanes)
    }

    /// Tokens that either list in scratch has room for: padding after the last one included.
    fn list_room(&self) -> u32 {
        self.padded_vocab() + self.lanes
    }

    fn scratch_bytes(&self) -> u64 {
        2 * u64::from(self.list_room() * 4)
    }

    /// The address of weight `index` of the list.
    fn weight_at(&self, k: &mut Builder, index: Value) -> Value {
        k.element(k.scratch(), Elem::F32, index)
    }

    /// The address of the token whose weight is weight `index` of the list.
    fn token_at(&self, k: &mut Builder, index: Value) -> Value {
        let tokens = k.offset_const(k.scratch(), i64::from(self.list_room()) * 4);
        k.element(tokens, Elem::I32, index)
    }

    /// Word `index` of the parameters.
    fn param(&self, k: &mut Builder, index: i64, elem: Elem) -> Value {
        let at = k.offset_const(self.params, 4 * index);
        k.load(at, elem)
    }

    /// The token, as i32.
    fn token(&self, k: &mut Builder) -> Value {
        let groups = self.largest_by_group(k);
        let largest = groups[1..].iter().fold(groups[0], |a, &b| k.max(a, b));
        let largest = k.reduce_max(largest);
        let best = self.first_of(k, largest);
        let temperature = self.param(k, 0, Elem::F32);
        let zero = k.f32(0.0);
        let draws = k.cmp(Cmp::Gt, temperature, zero);
        let [token] = k.if_else(
            draws,
            |k| {
                let filters = Filters::new(self, k);
                let least = self.least_candidate(k, &filters, &groups, largest);
                let mass = self.write_weights(k, largest, temperature, least);
                let length = self.write_list(k, &filters, mass);
                let list = List { sampler: self, length };
                let threshold = list.threshold(k, &filters, mass);
                [list.draw(k, threshold, best)]
            },
            |_| [best],
        );
        token
    }

    // ---- over the logits ------------------------------------------------------------------------

    /// Folds vectors of logits with the index of their first lane; lanes after the last token
    /// are −∞.
    fn fold_logits<const N: usize>(
        &self,
        k: &mut Builder,
        start: [Value; N],
        mut body: impl FnMut(&mut Builder, Value, Value, [Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let ty = Elem::F32.vec(self.lanes);
        let rest = self.vocab % self.lanes;
        let (zero, whole) = (k.i64(0), k.i64((self.vocab - rest).into()));
        let folded = k.for_loop(zero, whole, self.lanes.into(), start, |k, index, carried| {
            let at = k.element(self.logits, Elem::F32, index);
            let logits = k.load(at, ty);
            body(k, index, logits, carried)
        });
        if rest == 0 {
            return folded;
        }
        let at = k.element(self.logits, Elem::F32, whole);
        let count = k.i64(rest.into());
        let mask = k.mask_below(count, self.lanes);
        let logits = k.load_masked(at, ty, mask);
        let none = k.float(ty, f64::NEG_INFINITY);
        let logits = k.select(mask, logits, none);
        body(k, whole, logits, folded)
    }

    /// The largest logit of each group of tokens; a group is a lane of one of these vectors.
    fn largest_by_group(&self, k: &mut Builder) -> [Value; GROUPS] {
        let none = k.float(Elem::F32.vec(self.lanes), f64::NEG_INFINITY);
        self.fold_logits(k, [none; GROUPS], |k, _, x, mut groups| {
            groups[0] = k.max(x, groups[0]);
            groups.rotate_left(1);
            groups
        })
    }

    /// The first token with this logit; some token if none has it (NaN), as i32.
    fn first_of(&self, k: &mut Builder, logit: Value) -> Value {
        let ty = Elem::I32.vec(self.lanes);
        let wanted = k.splat(logit, self.lanes);
        let last = k.int(ty, i64::from(self.vocab) - 1);
        let lane = k.iota(Elem::I32, self.lanes);
        let [first] = self.fold_logits(k, [last], |k, index, x, [first]| {
            let index = k.trunc(index, Elem::I32);
            let index = k.splat(index, self.lanes);
            let index = k.add(index, lane);
            let found = k.cmp(Cmp::Eq, x, wanted);
            let index = k.select(found, index, first);
            [k.min(index, first)]
        });
        k.reduce(first, |k, a, b| k.min(a, b))
    }

    /// A logit that the k-th largest is not below; −∞ where top-k is off or k is large. The
    /// k-th largest of the groups' largest will do, as each group has a token of its own.
    fn least_candidate(
        &self,
        k: &mut Builder,
        filters: &Filters,
        groups: &[Value; GROUPS],
        largest: Value,
    ) -> Value {
        let few = k.i64(GROUPS as i64 * i64::from(self.lanes));
        let few = k.cmp(Cmp::Le, filters.top_k, few);
        let searched = k.and(filters.by_top_k, few);
        let lowest = k.f32(f32::NEG_INFINITY);
        let [least] = k.if_else(
            searched,
            |k| {
                let (low, high) = (order_key(k, lowest), order_key(k, largest));
                let key = bisect(k, low, high, |k, key| {
                    let threshold = from_order_key(k, key);
                    let zero = k.zero(Elem::I32.vec(self.lanes));
                    let count =
                        groups.iter().fold(zero, |count, &x| count_from(k, count, x, threshold));
                    let count = k.reduce_add(count);
                    let count = k.sext(count, Elem::I64);
                    k.cmp(Cmp::Ge, count, filters.top_k)
                });
                [from_order_key(k, key)]
            },
            |_| [lowest],
        );
        least
    }

    /// Writes e^((x − largest) / temperature) to scratch; 0 where x is below `least`, and for
    /// padding. Gives their sum, in f64.
    fn write_weights(
        &self,
        k: &mut Builder,
        largest: Value,
        temperature: Value,
        least: Value,
    ) -> Value {
        let [least, largest, temperature] =
            [least, largest, temperature].map(|value| k.splat(value, self.lanes));
        let zero = k.zero(Elem::F32.vec(self.lanes));
        let nothing = k.zero(Elem::F64.vec(self.lanes));
        let [sum] = self.fold_logits(k, [nothing], |k, index, x, [sum]| {
            let kept = k.cmp(Cmp::Ge, x, least);
            let any = k.any(kept);
            let [weight] = k.if_else(
                any,
                |k| {
                    // The difference first: near the largest it is exact.
                    let difference = k.sub(x, largest);
                    let scaled = k.div(difference, temperature);
                    let weight = k.exp(scaled);
                    [k.select(kept, weight, zero)]
                },
                |_| [zero],
            );
            let at = self.weight_at(k, index);
            k.store(weight, at);
            let weight = k.extf(weight, Elem::F64);
            [k.add(sum, weight)]
        });
        k.reduce_add(sum)
    }

    // ---- the list -------------------------------------------------------------------------------

    /// Makes the list: weights and their tokens, in index order, padded with zeros to whole
    /// vectors. Gives its length with the padding. `mass` is that of all tokens.
    fn write_list(&self, k: &mut Builder, filters: &Filters, mass: Value) -> Value {
        let some = k.or(filters.by_top_k, filters.by_top_p);
        let [length] = k.if_else(
            some,
            |k| {
                let least = self.least_weight(k, filters, mass);
                [self.compact(k, least)]
            },
            |k| [self.list_all(k)],
        );
        length
    }

    /// A weight above 0 that the filters' threshold is not below. The tokens with less than
    /// (1 − p) · mass / V have less than (1 − p) · mass together, so top-p drops them all. After
    /// top-k the mass is another, and the candidates are few already.
    fn least_weight(&self, k: &mut Builder, filters: &Filters, mass: Value) -> Value {
        let top_p = k.extf(filters.top_p, Elem::F64);
        let one = k.float(Elem::F64, 1.0);
        let dropped = k.sub(one, top_p);
        let dropped = k.mul(dropped, mass);
        // Half of it, so that no rounding matters.
        let share = k.float(Elem::F64, 0.5 / f64::from(self.vocab));
        let share = k.mul(dropped, share);
        let share = k.truncf(share, Elem::F32);
        let smallest = k.f32(f32::from_bits(1));
        let share = k.max(share, smallest);
        k.select(filters.by_top_k, smallest, share)
    }

    /// The list of the tokens whose weight is at least `least`.
    fn compact(&self, k: &mut Builder, least: Value) -> Value {
        let ty = Elem::F32.vec(self.lanes);
        let wanted = k.splat(least, self.lanes);
        let (zero, end) = (k.i64(0), k.i64(self.padded_vocab().into()));
        let [length] = k.for_loop(zero, end, self.lanes.into(), [zero], |k, index, [length]| {
            let at = self.weight_at(k, index);
            let weights = k.load(at, ty);
            let kept = k.cmp(Cmp::Ge, weights, wanted);
            let any = k.any(kept);
            k.if_else(any, |k| [self.compact_vector(k, index, least, length)], |_| [length])
        });
        let zeros = k.zero(ty);
        let at = self.weight_at(k, length);
        k.store(zeros, at);
        let vectors = k.ceil_div_const(length, self.lanes.into());
        k.mul_const(vectors, self.lanes.into())
    }

    /// Moves what is kept of the vector at `index` to the end of the list, which is not beyond it.
    fn compact_vector(&self, k: &mut Builder, index: Value, least: Value, length: Value) -> Value {
        let (zero, lanes) = (k.i64(0), k.i64(self.lanes.into()));
        let [length] = k.for_loop(zero, lanes, 1, [length], |k, lane, [length]| {
            let index = k.add(index, lane);
            let at = self.weight_at(k, index);
            let weight = k.load(at, Elem::F32);
            let token = k.trunc(index, Elem::I32);
            let at = self.weight_at(k, length);
            k.store(weight, at);
            let at = self.token_at(k, length);
            k.store(token, at);
            // What is not kept is overwritten by the next.
            let kept = k.cmp(Cmp::Ge, weight, least);
            let kept = k.zext(kept, Elem::I64);
            [k.add(length, kept)]
        });
        length
    }

    /// The list of all tokens.
    fn list_all(&self, k: &mut Builder) -> Value {
        let lane = k.iota(Elem::I32, self.lanes);
        let (zero, end) = (k.i64(0), k.i64(self.padded_vocab().into()));
        k.for_loop(zero, end, self.lanes.into(), [], |k, index, []| {
            let first = k.trunc(index, Elem::I32);
            let first = k.splat(first, self.lanes);
            let tokens = k.add(first, lane);
            let at = self.token_at(k, index);
            k.store(tokens, at);
            []
        });
        end
    }

    /// The random number of this position: a multiple of 2⁻²⁴ below 1, as f64.
    fn uniform(&self, k: &mut Builder) -> Value {
        let counter = k.trunc(self.counter, Elem::I32);
        let key = [4, 5].map(|word| self.param(k, word, Elem::I32));
        let word = philox(k, counter, key);
        let shift = k.i32(8);
        let bits = k.shr_u(word, shift);
        let number = k.uitofp(bits, Elem::F64);
        let unit = k.float(Elem::F64, 1.0 / f64::from(1 << 24));
        k.mul(number, unit)
    }
}

/// What is asked of a draw.
struct Filters {
    /// k, as i64, and whether it drops anything.
    top_k: Value,
    by_top_k: Value,
    /// p, and whether it drops anything.
    top_p: Value,
    by_top_p: Value,
    min_p: Value,
}

impl Filters {
    fn new(sampler: &Sampler, k: &mut Builder) -> Filters {
        let top_k = sampler.param(k, 1, Elem::I32);
        let top_k = k.zext(top_k, Elem::I64);
        let (one, vocab) = (k.i64(1), k.i64(sampler.vocab.into()));
        let (some, few) = (k.cmp(Cmp::Ge, top_k, one), k.cmp(Cmp::Lt, top_k, vocab));
        let by_top_k = k.and(some, few);
        let top_p = sampler.param(k, 2, Elem::F32);
        let one = k.f32(1.0);
        let by_top_p = k.cmp(Cmp::Lt, top_p, one);
        Filters { top_k, by_top_k, top_p, by_top_p, min_p: sampler.param(k, 3, Elem::F32) }
    }
}

/// Weights of tokens in index order, followed by zeros up to whole vectors.
struct List<'a> {
    sampler: &'a Sampler,
    length: Value,
}

impl List<'_> {
    fn load(&self, k: &mut Builder, index: Value) -> Value {
        let at = self.sampler.weight_at(k, index);
        k.load(at, Elem::F32.vec(self.sampler.lanes))
    }

    /// The sum, in f64, of weights `from..to` (whole vectors) that are at least `threshold`.
    fn mass_of(&self, k: &mut Builder, from: Value, to: Value, threshold: Value) -> Value {
        let lanes = self.sampler.lanes;
        let threshold = k.splat(threshold, lanes);
        let zero = k.zero(threshold.ty);
        let start = k.zero(Elem::F64.vec(lanes));
        let [sum] = k.for_loop(from, to, lanes.into(), [start], |k, index, [sum]| {
            let weight = self.load(k, index);
            let kept = k.cmp(Cmp::Ge, weight, threshold);
            let weight = k.select(kept, weight, zero);
            let weight = k.extf(weight, Elem::F64);
            [k.add(sum, weight)]
        });
        k.reduce_add(sum)
    }

    fn mass(&self, k: &mut Builder, threshold: Value) -> Value {
        let from = k.i64(0);
        self.mass_of(k, from, self.length, threshold)
    }

    /// The least weight that the filters keep; `mass` is that of all tokens. The largest weight
    /// is 1.
    fn threshold(&self, k: &mut Builder, filters: &Filters, mass: Value) -> Value {
        let (zero, one) = (k.f32(0.0), k.f32(1.0));
        let [threshold, mass] = k.if_else(
            filters.by_top_k,
            |k| {
                let threshold = self.kth_largest(k, filters.top_k);
                [threshold, self.mass(k, threshold)]
            },
            |_| [zero, mass],
        );
        let [threshold] = k.if_else(
            filters.by_top_p,
            |k| {
                let part = k.extf(filters.top_p, Elem::F64);
                let wanted = k.mul(part, mass);
                let (low, high) = (order_key(k, threshold), order_key(k, one));
                let key = bisect(k, low, high, |k, key| {
                    let threshold = from_order_key(k, key);
                    let mass = self.mass(k, threshold);
                    k.cmp(Cmp::Ge, mass, wanted)
                });
                [from_order_key(k, key)]
            },
            |_| [threshold],
        );
        k.max(filters.min_p, threshold)
    }

    /// The k-th largest weight (`count` of them are at least that).
    fn kth_largest(&self, k: &mut Builder, count: Value) -> Value {
        let lanes = self.sampler.lanes;
        let (zero, one) = (k.f32(0.0), k.f32(1.0));
        let (low, high) = (order_key(k, zero), order_key(k, one));
        let key = bisect(k, low, high, |k, key| {
            let threshold = from_order_key(k, key);
            let (from, none) = (k.i64(0), k.zero(Elem::I32.vec(lanes)));
            let [kept] = k.for_loop(from, self.length, lanes.into(), [none], |k, index, [kept]| {
                let weight = self.load(k, index);
                [count_from(k, kept, weight, threshold)]
            });
            let kept = k.reduce_add(kept);
            let kept = k.sext(kept, Elem::I64);
            k.cmp(Cmp::Ge, kept, count)
        });
        from_order_key(k, key)
    }

    /// The first token, in index order, at which the weights kept so far exceed the drawn part
    /// of their sum; `fallback` if there is none (no weight is kept).
    fn draw(&self, k: &mut Builder, threshold: Value, fallback: Value) -> Value {
        let kept = self.mass(k, threshold);
        let part = self.sampler.uniform(k);
        let wanted = k.mul(part, kept);
        let (from, before) = self.block_of(k, threshold, wanted);
        // One by one: the sum before this one, and whether it was reached.
        let reached = k.bool(false);
        let [end, _, reached] = k.while_loop(
            [from, before, reached],
            |k, [index, _, reached]| {
                let left = k.cmp(Cmp::Lt, index, self.length);
                let no = k.bool(false);
                k.select(reached, no, left)
            },
            |k, [index, sum, _]| {
                let at = self.sampler.weight_at(k, index);
                let weight = k.load(at, Elem::F32);
                let is_kept = k.cmp(Cmp::Ge, weight, threshold);
                let zero = k.f32(0.0);
                let weight = k.select(is_kept, weight, zero);
                let weight = k.extf(weight, Elem::F64);
                let sum = k.add(sum, weight);
                let reached = k.cmp(Cmp::Gt, sum, wanted);
                [k.add_const(index, 1), sum, reached]
            },
        );
        let [token] = k.if_else(
            reached,
            |k| {
                let index = k.add_const(end, -1);
                let at = self.sampler.token_at(k, index);
                [k.load(at, Elem::I32)]
            },
            |_| [fallback],
        );
        token
    }

    /// The start of the first block whose end is beyond `wanted`, and the mass before it.
    fn block_of(&self, k: &mut Builder, threshold: Value, wanted: Value) -> (Value, Value) {
        let (zero, nothing) = (k.i64(0), k.zero(Elem::F64));
        let found = k.bool(false);
        let [start, before, _] = k.while_loop(
            [zero, nothing, found],
            |k, [start, _, found]| {
                let left = k.cmp(Cmp::Lt, start, self.length);
                let no = k.bool(false);
                k.select(found, no, left)
            },
            |k, [start, before, _]| {
                let end = k.add_const(start, WALK_BLOCK);
                let end = k.min(end, self.length);
                let block = self.mass_of(k, start, end, threshold);
                let after = k.add(before, block);
                let found = k.cmp(Cmp::Gt, after, wanted);
                let start = k.select(found, start, end);
                let before = k.select(found, before, after);
                [start, before, found]
            },
        );
        (start, before)
    }
}

/// `count`, by lane, with one more where x is at least `threshold`.
fn count_from(k: &mut Builder, count: Value, x: Value, threshold: Value) -> Value {
    let threshold = k.splat(threshold, x.ty.lanes);
    let kept = k.cmp(Cmp::Ge, x, threshold);
    let (zero, one) = (k.zero(count.ty), k.int(count.ty, 1));
    let kept = k.select(kept, one, zero);
    k.add(count, kept)
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

/// The largest of `low..=high` for which `holds`, which is true up to it and false beyond; `low`
/// is taken to hold.
fn bisect(
    k: &mut Builder,
    low: Value,
    high: Value,
    holds: impl FnOnce(&mut Builder, Value) -> Value,
) -> Value {
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
            let holds = holds(k, middle);
            [k.select(holds, middle, low), k.select(holds, high, below)]
        },
    );
    low
}

#[cfg(test)]
mod tests;
