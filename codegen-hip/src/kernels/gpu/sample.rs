//! `sample`: draws a token from the logits and sets up the next step, in one workgroup.
//!
//! The rule is that of `docs/architecture.md`, "The decode loop", and `kernels::sampling`. Each wave
//! has a contiguous part of the vocabulary. Arg-max reads the logits once; a draw reads them again
//! for the weights, and both for the token. Thresholds are bisected over a short list without order
//! of the tokens that are not surely below them: sums are exact, so no order matters.

mod block;
mod list;

use crate::kernels::instance::Draft;
use crate::kernels::sampling::{self, Filters, Parameters, bisect};
use crate::kernels::{KernelError, KernelSource, real};
use crate::mlir::builder::Cmp;
use crate::mlir::gpu::Scope;
use crate::mlir::{Builder, Elem, Value};
use crate::target::{GpuTarget, Platform};
use block::Block;
use list::List;
use waveloom_plan as plan;

/// Work-items of the workgroup: many, as there is no other, but with registers enough for each.
fn workgroup(target: &GpuTarget) -> u32 {
    match target.platform {
        Platform::Amd => 1024,
        Platform::Nvidia => 512,
    }
}

/// Most loads of a wave that are in flight together.
const IN_FLIGHT: u32 = 4;

/// The kernel for `vocab` logits: one workgroup. Buffers: 0 logits `f32[1, V]`, 1 sampling
/// parameters (the words of `SamplingParams`), 2 tokens, 3 positions, 4 last, 5 history. With S =
/// `positions[last[0]] + 1`, for the drawn token t it writes `tokens[0] = t`, `positions[0] = S`,
/// `last[0] = 0` and, after all that and seen by the host, `history[S] = t`.
///
/// `history` is memory of the host. Nothing but penalties reads it.
pub fn kernel(vocab: u32, target: &GpuTarget) -> Result<KernelSource, KernelError> {
    sampling::check_vocab(vocab)?;
    let mut draft = Draft::for_gpu("sample", workgroup(target), target);
    let [logits, params, tokens, positions, last, history] =
        [0, 1, 2, 3, 4, 5].map(|index| draft.buffer(index));
    let scratch = draft.scratch();
    let k = &mut draft.builder;
    let scratch = k.offset_const(scratch, plan::SCRATCH_COUNTERS as i64);
    let params = Parameters::load(k, |k, bytes, elem| {
        let at = k.offset_const(params, bytes);
        load_uniform(k, at, elem)
    });
    let row = load_uniform(k, last, Elem::I32);
    let at = k.element_u32(positions, Elem::I32, row);
    let before = load_uniform(k, at, Elem::I32);
    let counter = k.add_const(before, 1);
    let block = Block::new(k, target, workgroup(target));
    let raw = Sampler { vocab, target, block, logits, scratch, params, counter };
    let penalizes = params.penalizes(k);
    let [logits] = k.if_else(penalizes, |k| [raw.penalize(k, history)], |_| [logits]);
    let sampler = Sampler { logits, ..raw };
    let token = sampler.token(k);
    let (thread, zero) = (k.thread(), k.i32(0));
    let is_first = k.cmp(Cmp::Eq, thread, zero);
    k.barrier_all();
    k.if_then(is_first, |k| {
        k.store(token, tokens);
        k.store(counter, positions);
        k.store(zero, last);
        let at = k.element_u32(history, Elem::I32, counter);
        k.store_release(token, at, Scope::System);
    });
    // There is no other workgroup: all of its waves, and no more.
    k.plan_waves(workgroup(target) / target.wave / target.simds());
    let scratch_bytes = plan::SCRATCH_COUNTERS + sampler.scratch_bytes();
    Ok(draft.finish(format!("sample f32[1,{vocab}]"), plan::Expr::from(1), scratch_bytes))
}

/// A number that is the same for all work-items.
fn load_uniform(k: &mut Builder, at: Value, elem: Elem) -> Value {
    let value = k.load(at, elem);
    k.first_lane(value)
}

/// Some neighbouring tokens of the vocabulary, all of which exist or none.
#[derive(Clone, Copy)]
struct Tokens {
    /// The first, `i32`.
    first: Value,
    /// The first, or if it does not exist another.
    clamped: Value,
    /// Whether they exist.
    exist: Value,
}

/// The code of the kernel.
#[derive(Clone, Copy)]
struct Sampler<'a> {
    vocab: u32,
    target: &'a GpuTarget,
    block: Block<'a>,
    logits: Value,
    scratch: Value,
    params: Parameters,
    /// S, `i32`.
    counter: Value,
}

impl Sampler<'_> {
    /// Tokens that a lane takes at once: 4, or 0 for one as a scalar.
    fn lanes(&self) -> u32 {
        if self.vocab.is_multiple_of(4) { 4 } else { 0 }
    }

    /// Tokens that a wave takes at once.
    fn row(&self) -> u32 {
        self.target.wave * self.lanes().max(1)
    }

    /// Rows of a wave's part of the vocabulary.
    fn rows_of_wave(&self) -> u32 {
        let rows = self.vocab.div_ceil(self.row() * self.block.waves());
        rows.next_multiple_of(self.in_flight())
    }

    /// Loads of a wave that are in flight together.
    fn in_flight(&self) -> u32 {
        self.vocab.div_ceil(self.row() * self.block.waves()).min(IN_FLIGHT)
    }

    /// Tokens of a wave's part of the vocabulary.
    fn part(&self) -> u32 {
        self.rows_of_wave() * self.row()
    }

    fn padded_vocab(&self) -> u32 {
        self.part() * self.block.waves()
    }

    fn scratch_bytes(&self) -> u64 {
        4 * 4 * u64::from(self.padded_vocab())
    }

    /// An array in scratch of a number per token, padding included.
    fn array(&self, k: &mut Builder, index: u32) -> Value {
        k.offset_const(self.scratch, 4 * i64::from(index) * i64::from(self.padded_vocab()))
    }

    /// Weights, by token.
    fn weights(&self, k: &mut Builder) -> Value {
        self.array(k, 0)
    }

    /// How often a token was seen: before there are weights.
    fn counts(&self, k: &mut Builder) -> Value {
        self.array(k, 0)
    }

    /// The logits after penalties.
    fn penalized(&self, k: &mut Builder) -> Value {
        self.array(k, 1)
    }

    // ---- over the vocabulary --------------------------------------------------------------------

    /// The tokens of this lane in the row of its wave that begins `offset` tokens after its part.
    fn tokens(&self, k: &mut Builder, offset: Value) -> Tokens {
        let width = self.lanes().max(1);
        let wave = k.wave(self.target);
        let part = k.mul_const(wave, self.part().into());
        let row = k.add(part, offset);
        let lane = k.lane(self.target);
        let lane = k.mul_const(lane, width.into());
        let first = k.add(row, lane);
        let end = k.i32(self.vocab as i32);
        let exist = k.below(first, end);
        let last = k.i32((self.vocab - width) as i32);
        let clamped = k.min(first, last);
        Tokens { first, clamped, exist }
    }

    /// Folds the tokens of this lane: `load` is called for several before `body` is for the first.
    fn fold<const N: usize, const M: usize>(
        &self,
        k: &mut Builder,
        start: [Value; N],
        load: impl Fn(&mut Builder, Tokens) -> [Value; M],
        body: impl Fn(&mut Builder, Tokens, [Value; M], [Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let (from, to) = (k.i32(0), k.i32(self.part() as i32));
        let step = i64::from(self.row() * self.in_flight());
        k.for_loop(from, to, step, start, |k, offset, mut carried| {
            let loaded: Vec<(Tokens, [Value; M])> = (0..self.in_flight())
                .map(|index| {
                    let offset = k.add_const(offset, (index * self.row()).into());
                    let tokens = self.tokens(k, offset);
                    (tokens, load(k, tokens))
                })
                .collect();
            for (tokens, values) in loaded {
                carried = body(k, tokens, values, carried);
            }
            carried
        })
    }

    /// Their logits; of what does not exist, some others.
    fn load_logits(&self, k: &mut Builder, tokens: Tokens) -> Value {
        let at = k.element_u32(self.logits, Elem::F32, tokens.clamped);
        real::load_whole(k, Elem::F32, at, self.lanes())
    }

    /// Logits, NaN for tokens that do not exist: it compares as false, and is never drawn.
    fn existing(&self, k: &mut Builder, tokens: Tokens, logits: Value) -> Value {
        if self.padded_vocab() == self.vocab {
            return logits;
        }
        let none = k.float(logits.ty, f64::NAN);
        k.select(tokens.exist, logits, none)
    }

    fn load_weights(&self, k: &mut Builder, tokens: Tokens) -> Value {
        let weights = self.weights(k);
        let at = k.element_u32(weights, Elem::F32, tokens.first);
        real::load_whole(k, Elem::F32, at, self.lanes())
    }

    fn store_array(&self, k: &mut Builder, array: Value, tokens: Tokens, values: Value) {
        let at = k.element_u32(array, values.ty.elem, tokens.first);
        k.store_aligned(values, at, values.ty.bytes());
    }

    // ---- penalties ------------------------------------------------------------------------------

    /// The address of the logits after penalties.
    fn penalize(&self, k: &mut Builder, history: Value) -> Value {
        let (counts, penalized) = (self.counts(k), self.penalized(k));
        let none = k.zero(Elem::I32.vec(self.lanes()));
        self.fold(
            k,
            [],
            |_, _| [],
            |k, tokens, [], []| {
                self.store_array(k, counts, tokens, none);
                []
            },
        );
        k.barrier_all();
        let end = k.zext(self.counter, Elem::I64);
        let first = self.params.window(k, end);
        let first = k.trunc(first, Elem::I32);
        let thread = k.thread();
        let first = k.add(first, thread);
        k.for_strided(first, self.counter, workgroup(self.target), |k, position| {
            let at = k.element_u32(history, Elem::I32, position);
            let token = k.load(at, Elem::I32);
            let vocab = k.i32(self.vocab as i32);
            let exists = k.below(token, vocab);
            k.if_then(exists, |k| {
                let at = k.element_u32(counts, Elem::I32, token);
                let one = k.i32(1);
                k.atomic_add_workgroup(at, one);
            });
        });
        k.barrier_all();
        let load = |k: &mut Builder, tokens: Tokens| {
            let at = k.element_u32(counts, Elem::I32, tokens.first);
            [self.load_logits(k, tokens), k.load_aligned(at, none.ty, none.ty.bytes())]
        };
        self.fold(k, [], load, |k, tokens, [logits, count], []| {
            let logits = self.existing(k, tokens, logits);
            let logits = self.params.penalized(k, logits, count);
            self.store_array(k, penalized, tokens, logits);
            []
        });
        k.barrier_all();
        penalized
    }

    // ---- the token ------------------------------------------------------------------------------

    /// The token, `i32`, in the first work-item at least.
    fn token(&self, k: &mut Builder) -> Value {
        let (mine, largest, best) = self.largest(k);
        let draws = self.params.draws(k);
        let [token] = k.if_else(draws, |k| [self.draw(k, mine, largest, best)], |_| [best]);
        token
    }

    /// This work-item's largest logit, that of all, and the first token that has it; the first of
    /// all if none is above −∞.
    fn largest(&self, k: &mut Builder) -> (Value, Value, Value) {
        let ty = Elem::F32.vec(self.lanes());
        let lowest = k.float(ty, f64::NEG_INFINITY);
        let nowhere = k.int(ty.with(Elem::I32), i32::MAX.into());
        let load = |k: &mut Builder, tokens| [self.load_logits(k, tokens)];
        let [values, firsts] =
            self.fold(k, [lowest, nowhere], load, |k, tokens, [logits], [values, firsts]| {
                let logits = self.existing(k, tokens, logits);
                let larger = k.cmp(Cmp::Gt, logits, values);
                let first = sampling::like(k, tokens.first, self.lanes());
                [k.select(larger, logits, values), k.select(larger, first, firsts)]
            });
        let mut pairs: Vec<(Value, Value)> = match self.lanes() {
            0 => vec![(values, firsts)],
            lanes => (0..lanes)
                .map(|lane| {
                    let first = k.extract(firsts, lane);
                    (k.extract(values, lane), k.add_const(first, lane.into()))
                })
                .collect(),
        };
        while pairs.len() > 1 {
            let (a, b) = (pairs.remove(0), pairs.remove(0));
            pairs.push(first_largest(k, a, b));
        }
        let mine = pairs[0].0;
        let [largest, best] = self.block.reduce(k, [mine, pairs[0].1], |k, a, b| {
            let (value, token) = first_largest(k, (a[0], a[1]), (b[0], b[1]));
            [value, token]
        });
        let lowest = k.f32(f32::NEG_INFINITY);
        let none = k.cmp(Cmp::Eq, largest, lowest);
        let zero = k.i32(0);
        (mine, largest, k.select(none, zero, best))
    }

    /// A draw by temperature and filters.
    fn draw(&self, k: &mut Builder, mine: Value, largest: Value, best: Value) -> Value {
        let filters = self.params.filters(k, self.vocab);
        let least = self.least_candidate(k, &filters, mine, largest);
        let mass = self.write_weights(k, largest, least);
        let filtered = k.or(filters.by_top_k, filters.by_top_p);
        let (lowest, zero) = (k.f32(f32::NEG_INFINITY), k.f32(0.0));
        let [least_logit, least_weight] = k.if_else(
            filtered,
            |k| {
                let least = filters.least_weight(k, mass, self.vocab);
                let list = List::new(self, k, least);
                list.thresholds(k, &filters, mass)
            },
            |_| [lowest, zero],
        );
        let least_weight = k.max(filters.min_p, least_weight);
        self.walk(k, least_logit, least_weight, best)
    }

    /// A logit that the k-th largest is not below; −∞ where top-k is off or k is large. The k-th
    /// largest of the work-items' largest will do, as each of them has a token of its own.
    fn least_candidate(
        &self,
        k: &mut Builder,
        filters: &Filters,
        mine: Value,
        largest: Value,
    ) -> Value {
        let few = k.i64(workgroup(self.target).into());
        let few = k.cmp(Cmp::Le, filters.top_k, few);
        let searched = k.and(filters.by_top_k, few);
        let lowest = k.f32(f32::NEG_INFINITY);
        let [least] = k.if_else(
            searched,
            |k| {
                let least = bisect(k, lowest, largest, |k, threshold| {
                    let kept = k.cmp(Cmp::Ge, mine, threshold);
                    let kept = k.zext(kept, Elem::I32);
                    let count = self.block.sum(k, kept);
                    let count = k.zext(count, Elem::I64);
                    k.cmp(Cmp::Ge, count, filters.top_k)
                });
                [least]
            },
            |_| [lowest],
        );
        least
    }

    /// Writes weights; 0 where the logit is below `least`, and for padding. Gives their sum, in f64.
    fn write_weights(&self, k: &mut Builder, largest: Value, least: Value) -> Value {
        let weights = self.weights(k);
        let nothing = k.zero(Elem::F64);
        let load = |k: &mut Builder, tokens| [self.load_logits(k, tokens)];
        let [sum] = self.fold(k, [nothing], load, |k, tokens, [logits], [sum]| {
            let logits = self.existing(k, tokens, logits);
            let least = sampling::like(k, least, self.lanes());
            let kept = k.cmp(Cmp::Ge, logits, least);
            let any = self.any(k, kept);
            let zero = k.zero(logits.ty);
            let [weight] = k.if_else(
                any,
                |k| {
                    let temperature = self.params.temperature;
                    let weight = sampling::weight(k, logits, largest, temperature, self.vocab);
                    [k.select(kept, weight, zero)]
                },
                |_| [zero],
            );
            self.store_array(k, weights, tokens, weight);
            [self.add_all(k, sum, weight)]
        });
        self.block.sum(k, sum)
    }

    /// Whether any of a lane's conditions holds.
    fn any(&self, k: &mut Builder, conditions: Value) -> Value {
        if conditions.ty.is_scalar() { conditions } else { k.any(conditions) }
    }

    /// A sum in f64 with weights added.
    fn add_all(&self, k: &mut Builder, sum: Value, weights: Value) -> Value {
        elements(k, weights).into_iter().fold(sum, |sum, weight| {
            let weight = k.extf(weight, Elem::F64);
            k.add(sum, weight)
        })
    }

    /// The first token at which the weights kept so far exceed the drawn part of their sum; `best`
    /// if there is none (no weight is kept).
    fn walk(&self, k: &mut Builder, least_logit: Value, least: Value, best: Value) -> Value {
        let nothing = k.zero(Elem::F64);
        let load =
            |k: &mut Builder, tokens| [self.load_weights(k, tokens), self.load_logits(k, tokens)];
        let kept = |k: &mut Builder, tokens, [weights, logits]: [Value; 2]| {
            self.kept(k, tokens, weights, logits, least_logit, least)
        };
        let [mine] = self.fold(k, [nothing], load, |k, tokens, loaded, [sum]| {
            let weights = kept(k, tokens, loaded);
            [self.add_all(k, sum, weights)]
        });
        let found = self.block.shared_word(k, best);
        let (before, own, all) = self.block.prefix(k, mine);
        let part = self.params.uniform(k, self.counter);
        let wanted = k.mul(part, all);
        let is_here = contains(k, before, own, wanted);
        k.if_then(is_here, |k| {
            // The row of this wave, then the lane, then the token.
            let (from, step) = (k.i32(0), i64::from(self.row()));
            let to = k.i32(self.part() as i32);
            k.for_loop(from, to, step, [before], |k, offset, [before]| {
                let tokens = self.tokens(k, offset);
                let loaded = load(k, tokens);
                let weights = kept(k, tokens, loaded);
                let mine = self.add_all(k, nothing, weights);
                let row = self.block.sum_of_wave(k, mine);
                let is_here = contains(k, before, row, wanted);
                k.if_then(is_here, |k| {
                    let mut sum = self.block.prefix_of_wave(k, mine);
                    sum = k.add(sum, before);
                    for (index, weight) in elements(k, weights).into_iter().enumerate() {
                        let weight = k.extf(weight, Elem::F64);
                        let is_here = contains(k, sum, weight, wanted);
                        k.if_then(is_here, |k| {
                            let token = k.add_const(tokens.first, index as i64);
                            k.store(token, found);
                        });
                        sum = k.add(sum, weight);
                    }
                });
                [k.add(before, row)]
            });
        });
        k.barrier_shared();
        let token = k.load(found, Elem::I32);
        k.first_lane(token)
    }

    /// Weights, 0 for tokens that are dropped.
    fn kept(
        &self,
        k: &mut Builder,
        tokens: Tokens,
        weights: Value,
        logits: Value,
        least_logit: Value,
        least: Value,
    ) -> Value {
        let logits = self.existing(k, tokens, logits);
        let lanes = self.lanes();
        let [least_logit, least] =
            [least_logit, least].map(|value| sampling::like(k, value, lanes));
        let by_logit = k.cmp(Cmp::Ge, logits, least_logit);
        let by_weight = k.cmp(Cmp::Ge, weights, least);
        let kept = k.and(by_logit, by_weight);
        let zero = k.zero(weights.ty);
        k.select(kept, weights, zero)
    }
}

/// The larger of two logits with their tokens; of equal ones the first token.
fn first_largest(k: &mut Builder, a: (Value, Value), b: (Value, Value)) -> (Value, Value) {
    let larger = k.cmp(Cmp::Gt, b.0, a.0);
    let equal = k.cmp(Cmp::Eq, b.0, a.0);
    let earlier = k.cmp(Cmp::Lt, b.1, a.1);
    let tie = k.and(equal, earlier);
    let second = k.or(larger, tie);
    (k.select(second, b.0, a.0), k.select(second, b.1, a.1))
}

/// Whether `before ≤ wanted < before + width`.
fn contains(k: &mut Builder, before: Value, width: Value, wanted: Value) -> Value {
    let after = k.add(before, width);
    let begins = k.cmp(Cmp::Le, before, wanted);
    let ends = k.cmp(Cmp::Gt, after, wanted);
    k.and(begins, ends)
}

/// The elements of a vector, or a scalar.
fn elements(k: &mut Builder, values: Value) -> Vec<Value> {
    match values.ty.lanes {
        0 => vec![values],
        lanes => (0..lanes).map(|lane| k.extract(values, lane)).collect(),
    }
}

#[cfg(test)]
mod tests;
