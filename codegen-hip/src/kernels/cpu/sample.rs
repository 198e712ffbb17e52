//! `sample`: draws a token from the logits and sets up the next step.
//!
//! The rule is that of `docs/architecture.md`, "The decode loop", and `kernels::sampling`. Nothing is
//! sorted. Before thresholds are bisected, tokens that are surely below them are left out: what
//! remains is a short list. Penalties work on a copy of the logits.

use crate::kernels::instance::Draft;
use crate::kernels::sampling::{self, Filters, Parameters, bisect};
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
    sampling::check_vocab(vocab)?;
    let cache_length = SYMBOLS.iter().position(|name| *name == "S").unwrap_or_default();
    let mut draft = Draft::new("sample");
    let [logits, params, tokens, positions, last, history] =
        [0, 1, 2, 3, 4, 5].map(|index| draft.buffer(index));
    let counter = draft.number(plan::Expr::Symbol(cache_length));
    let k = &mut draft.builder;
    let (first, end) = (k.first(), k.last());
    let scratch_bytes = Sampler::scratch_bytes(vocab, target.lanes);
    k.for_loop(first, end, 1, [], |k, _, []| {
        let params = Parameters::load(k, |k, bytes, elem| {
            let at = k.offset_const(params, bytes);
            k.load(at, elem)
        });
        let raw = Sampler { vocab, lanes: target.lanes, logits, params, counter };
        let penalizes = params.penalizes(k);
        let [logits] = k.if_else(penalizes, |k| [raw.penalize(k, history)], |_| [logits]);
        let token = Sampler { logits, ..raw }.token(k);
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
    params: Parameters,
    counter: Value,
}

impl Sampler {
    fn padded_vocab(&self) -> u32 {
        self.vocab.next_multiple_of(self.lanes)
    }

    /// Numbers that a list in scratch has room for: padding after the last one included.
    fn list_room(vocab: u32, lanes: u32) -> u32 {
        vocab.next_multiple_of(lanes) + lanes
    }

    fn scratch_bytes(vocab: u32, lanes: u32) -> u64 {
        3 * 4 * u64::from(Self::list_room(vocab, lanes))
    }

    /// The address of list `list` in scratch.
    fn list(&self, k: &mut Builder, list: i64) -> Value {
        let bytes = 4 * i64::from(Self::list_room(self.vocab, self.lanes));
        k.offset_const(k.scratch(), list * bytes)
    }

    /// The address of weight `index` of the list.
    fn weight_at(&self, k: &mut Builder, index: Value) -> Value {
        let weights = self.list(k, 0);
        k.element(weights, Elem::F32, index)
    }

    /// The address of the token whose weight is weight `index` of the list.
    fn token_at(&self, k: &mut Builder, index: Value) -> Value {
        let tokens = self.list(k, 1);
        k.element(tokens, Elem::I32, index)
    }

    /// The address of how often token `index` was seen: before there are tokens of a list.
    fn count_at(&self, k: &mut Builder, index: Value) -> Value {
        self.token_at(k, index)
    }

    /// The address of the logit after penalties of token `index`; later on, of the logit of the
    /// token whose weight is weight `index` of the list.
    fn logit_at(&self, k: &mut Builder, index: Value) -> Value {
        let logits = self.list(k, 2);
        k.element(logits, Elem::F32, index)
    }

    // ---- penalties ------------------------------------------------------------------------------

    /// The address of the logits after penalties.
    fn penalize(&self, k: &mut Builder, history: Value) -> Value {
        let none = k.zero(Elem::I32.vec(self.lanes));
        let (zero, end) = (k.i64(0), k.i64(self.padded_vocab().into()));
        k.for_loop(zero, end, self.lanes.into(), [], |k, index, []| {
            let at = self.count_at(k, index);
            k.store(none, at);
            []
        });
        let first = self.params.window(k, self.counter);
        k.for_loop(first, self.counter, 1, [], |k, position, []| {
            let at = k.element(history, Elem::I32, position);
            let token = k.load(at, Elem::I32);
            let vocab = k.i32(self.vocab.cast_signed());
            let exists = k.cmp(Cmp::Ult, token, vocab);
            k.if_then(exists, |k| {
                let token = k.zext(token, Elem::I64);
                let at = self.count_at(k, token);
                let count = k.load(at, Elem::I32);
                let count = k.add_const(count, 1);
                k.store(count, at);
            });
            []
        });
        self.fold_logits(k, [], |k, index, x, []| {
            let at = self.count_at(k, index);
            let count = k.load(at, none.ty);
            let x = self.params.penalized(k, x, count);
            let at = self.logit_at(k, index);
            k.store(x, at);
            []
        });
        self.logit_at(k, zero)
    }

    /// The token, as i32.
    fn token(&self, k: &mut Builder) -> Value {
        let groups = self.largest_by_group(k);
        let largest = groups[1..].iter().fold(groups[0], |a, &b| k.max(a, b));
        let largest = k.reduce_max(largest);
        let first = self.first_of(k, largest);
        let (lowest, zero) = (k.f32(f32::NEG_INFINITY), k.i32(0));
        let none = k.cmp(Cmp::Eq, largest, lowest);
        let best = k.select(none, zero, first);
        let draws = self.params.draws(k);
        let [token] = k.if_else(
            draws,
            |k| {
                let filters = self.params.filters(k, self.vocab);
                let least = self.least_candidate(k, &filters, &groups, largest);
                let mass = self.write_weights(k, largest, least);
                let (tokens, length) = self.write_list(k, &filters, mass);
                let list = List { sampler: self, tokens, length };
                let threshold = list.threshold(k, &filters, mass);
                [list.draw(k, threshold, best)]
            },
            |_| [best],
        );
        token
    }

    // ---- over the logits ------------------------------------------------------------------------

    /// Folds vectors of logits with the index of their first lane; lanes after the last token
    /// are NaN, which is never drawn.
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
        let none = k.float(ty, f64::NAN);
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

    /// The first token with this logit, the last of all if none has it, as i32.
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
                let least = bisect(k, lowest, largest, |k, threshold| {
                    let zero = k.zero(Elem::I32.vec(self.lanes));
                    let count =
                        groups.iter().fold(zero, |count, &x| count_from(k, count, x, threshold));
                    let count = k.reduce_add(count);
                    let count = k.sext(count, Elem::I64);
                    k.cmp(Cmp::Ge, count, filters.top_k)
                });
                [least]
            },
            |_| [lowest],
        );
        least
    }

    /// Writes weights to scratch; 0 where the logit is below `least`, and for padding. Gives their
    /// sum, in f64.
    fn write_weights(&self, k: &mut Builder, largest: Value, least: Value) -> Value {
        let least = k.splat(least, self.lanes);
        let zero = k.zero(Elem::F32.vec(self.lanes));
        let nothing = k.zero(Elem::F64.vec(self.lanes));
        let [sum] = self.fold_logits(k, [nothing], |k, index, x, [sum]| {
            let kept = k.cmp(Cmp::Ge, x, least);
            let any = k.any(kept);
            let [weight] = k.if_else(
                any,
                |k| {
                    let temperature = self.params.temperature;
                    let weight = sampling::weight(k, x, largest, temperature, self.vocab);
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
    /// vectors. Gives its length without and with the padding. `mass` is that of all tokens.
    fn write_list(&self, k: &mut Builder, filters: &Filters, mass: Value) -> (Value, Value) {
        let some = k.or(filters.by_top_k, filters.by_top_p);
        let [tokens] = k.if_else(
            some,
            |k| {
                let least = filters.least_weight(k, mass, self.vocab);
                [self.compact(k, least)]
            },
            |k| [self.list_all(k)],
        );
        let vectors = k.ceil_div_const(tokens, self.lanes.into());
        (tokens, k.mul_const(vectors, self.lanes.into()))
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
        length
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
}

/// Weights of tokens in index order, followed by zeros up to whole vectors.
struct List<'a> {
    sampler: &'a Sampler,
    /// Tokens.
    tokens: Value,
    /// With the padding.
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
        let [mass] = k.if_else(
            filters.by_top_k,
            |k| {
                self.keep_largest(k, filters.top_k);
                [self.mass(k, zero)]
            },
            |_| [mass],
        );
        let [threshold] = k.if_else(
            filters.by_top_p,
            |k| {
                let part = k.extf(filters.top_p, Elem::F64);
                let wanted = k.mul(part, mass);
                let threshold = bisect(k, zero, one, |k, threshold| {
                    let mass = self.mass(k, threshold);
                    k.cmp(Cmp::Ge, mass, wanted)
                });
                [threshold]
            },
            |_| [zero],
        );
        k.max(filters.min_p, threshold)
    }

    /// Makes the weights of all but the `count` tokens of largest logits, and ties of the last of
    /// them, zero.
    fn keep_largest(&self, k: &mut Builder, count: Value) {
        let lanes = self.sampler.lanes;
        self.gather_logits(k);
        let lowest = k.f32(f32::NEG_INFINITY);
        let highest = k.f32(f32::INFINITY);
        let threshold = bisect(k, lowest, highest, |k, threshold| {
            let (from, none) = (k.i64(0), k.zero(Elem::I32.vec(lanes)));
            let [kept] = k.for_loop(from, self.length, lanes.into(), [none], |k, index, [kept]| {
                let logits = self.load_logits(k, index);
                [count_from(k, kept, logits, threshold)]
            });
            let kept = k.reduce_add(kept);
            let kept = k.sext(kept, Elem::I64);
            k.cmp(Cmp::Ge, kept, count)
        });
        let threshold = k.splat(threshold, lanes);
        let (from, zeros) = (k.i64(0), k.zero(threshold.ty));
        k.for_loop(from, self.length, lanes.into(), [], |k, index, []| {
            let logits = self.load_logits(k, index);
            let kept = k.cmp(Cmp::Ge, logits, threshold);
            let weight = self.load(k, index);
            let weight = k.select(kept, weight, zeros);
            let at = self.sampler.weight_at(k, index);
            k.store(weight, at);
            []
        });
    }

    /// Lists the logits of the tokens, padded with NaN to whole vectors. The list may lie over the
    /// logits themselves: no token is before its place in the list.
    fn gather_logits(&self, k: &mut Builder) {
        let from = k.i64(0);
        k.for_loop(from, self.tokens, 1, [], |k, index, []| {
            let at = self.sampler.token_at(k, index);
            let token = k.load(at, Elem::I32);
            let token = k.zext(token, Elem::I64);
            let at = k.element(self.sampler.logits, Elem::F32, token);
            let logit = k.load(at, Elem::F32);
            let at = self.sampler.logit_at(k, index);
            k.store(logit, at);
            []
        });
        let none = k.float(Elem::F32.vec(self.sampler.lanes), f64::NAN);
        let at = self.sampler.logit_at(k, self.tokens);
        k.store(none, at);
    }

    fn load_logits(&self, k: &mut Builder, index: Value) -> Value {
        let at = self.sampler.logit_at(k, index);
        k.load(at, Elem::F32.vec(self.sampler.lanes))
    }

    /// The first token, in index order, at which the weights kept so far exceed the drawn part
    /// of their sum; `fallback` if there is none (no weight is kept).
    fn draw(&self, k: &mut Builder, threshold: Value, fallback: Value) -> Value {
        let kept = self.mass(k, threshold);
        let counter = k.trunc(self.sampler.counter, Elem::I32);
        let part = self.sampler.params.uniform(k, counter);
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

#[cfg(test)]
mod tests;
