//! The list of tokens that may be above the thresholds of top-k and top-p.

use super::{Sampler, elements, workgroup};
use crate::kernels::sampling::{Filters, bisect};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};

/// Logits and weights of some tokens, in no order.
pub(super) struct List<'a> {
    sampler: &'a Sampler<'a>,
    logits: Value,
    weights: Value,
    /// `i32`.
    length: Value,
}

impl<'a> List<'a> {
    /// Lists the tokens whose weight is at least `least`.
    pub fn new(sampler: &'a Sampler<'a>, k: &mut Builder, least: Value) -> List<'a> {
        let (logits, weights) = (sampler.array(k, 2), sampler.array(k, 3));
        let none = k.i32(0);
        let length = sampler.block.shared_word(k, none);
        k.barrier_shared();
        let load = |k: &mut Builder, tokens| {
            [sampler.load_weights(k, tokens), sampler.load_logits(k, tokens)]
        };
        sampler.fold(k, [], load, |k, tokens, [weight, logit], []| {
            let logit = sampler.existing(k, tokens, logit);
            for (weight, logit) in elements(k, weight).into_iter().zip(elements(k, logit)) {
                let listed = k.cmp(Cmp::Ge, weight, least);
                k.if_then(listed, |k| {
                    let one = k.i32(1);
                    let index = k.atomic_add_workgroup(length, one);
                    let at = k.element_u32(logits, Elem::F32, index);
                    k.store(logit, at);
                    let at = k.element_u32(weights, Elem::F32, index);
                    k.store(weight, at);
                });
            }
            []
        });
        k.barrier_all();
        let length = k.load(length, Elem::I32);
        let length = k.first_lane(length);
        List { sampler, logits, weights, length }
    }

    /// Folds logits and weights of this work-item's tokens, and adds up over all work-items.
    fn sum(
        &self,
        k: &mut Builder,
        zero: Value,
        body: impl FnOnce(&mut Builder, Value, Value, Value) -> Value,
    ) -> Value {
        let thread = k.thread();
        let step = workgroup(self.sampler.target).into();
        let [sum] = k.for_loop(thread, self.length, step, [zero], |k, index, [sum]| {
            let [logit, weight] = [self.logits, self.weights].map(|array| {
                let at = k.element_u32(array, Elem::F32, index);
                k.load(at, Elem::F32)
            });
            [body(k, logit, weight, sum)]
        });
        self.sampler.block.sum(k, sum)
    }

    /// The sum, in f64, of the weights that are at least `least`, of logits that are at least
    /// `least_logit`.
    fn mass(&self, k: &mut Builder, least_logit: Value, least: Value) -> Value {
        let zero = k.zero(Elem::F64);
        self.sum(k, zero, |k, logit, weight, sum| {
            let by_logit = k.cmp(Cmp::Ge, logit, least_logit);
            let by_weight = k.cmp(Cmp::Ge, weight, least);
            let kept = k.and(by_logit, by_weight);
            let none = k.f32(0.0);
            let weight = k.select(kept, weight, none);
            let weight = k.extf(weight, Elem::F64);
            k.add(sum, weight)
        })
    }

    /// The least logit that top-k keeps, and the least weight that top-p does; `mass` is that of all
    /// tokens. The largest weight is 1.
    pub fn thresholds(&self, k: &mut Builder, filters: &Filters, mass: Value) -> [Value; 2] {
        let (lowest, highest) = (k.f32(f32::NEG_INFINITY), k.f32(f32::INFINITY));
        let (zero, one) = (k.f32(0.0), k.f32(1.0));
        let [least_logit, mass] = k.if_else(
            filters.by_top_k,
            |k| {
                let least_logit = bisect(k, lowest, highest, |k, threshold| {
                    let none = k.i32(0);
                    let count = self.sum(k, none, |k, logit, _, count| {
                        let kept = k.cmp(Cmp::Ge, logit, threshold);
                        let kept = k.zext(kept, Elem::I32);
                        k.add(count, kept)
                    });
                    let count = k.zext(count, Elem::I64);
                    k.cmp(Cmp::Ge, count, filters.top_k)
                });
                [least_logit, self.mass(k, least_logit, zero)]
            },
            |_| [lowest, mass],
        );
        let [least] = k.if_else(
            filters.by_top_p,
            |k| {
                let part = k.extf(filters.top_p, Elem::F64);
                let wanted = k.mul(part, mass);
                let least = bisect(k, zero, one, |k, threshold| {
                    let mass = self.mass(k, least_logit, threshold);
                    k.cmp(Cmp::Ge, mass, wanted)
                });
                [least]
            },
            |_| [zero],
        );
        [least_logit, least]
    }
}
