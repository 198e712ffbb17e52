//! One attention, written as different front ends write it: all become the same op.

use crate::support::{one_function, ops, raised, run, tensor_ops};
use waveloom_ir::{
    AttentionAttr, BinaryOp, DType, Dim, F32, FunctionBuilder, InferError, Module, Op, Type,
    UnaryOp, ValueId,
};

const HEADS: u64 = 6;
const KV: u64 = 2;
const GROUP: u64 = HEADS / KV;
const DIM: u64 = 4;

fn attr(scale: f32, window: Option<u32>, softcap: Option<f32>) -> AttentionAttr {
    AttentionAttr {
        heads: HEADS as u32,
        kv_heads: KV as u32,
        head_dim: DIM as u32,
        scale: F32(scale),
        window,
        softcap: softcap.map(F32),
    }
}

/// What every variant is written with.
struct Writer<'a, 'm> {
    b: &'a mut FunctionBuilder<'m>,
    t: Dim,
    s: Dim,
    q: ValueId,
    k_cache: ValueId,
    v_cache: ValueId,
    positions: ValueId,
}

type Built = Result<ValueId, InferError>;

fn c(extent: u64) -> Dim {
    Dim::Const(extent)
}

impl Writer<'_, '_> {
    /// `[T, heads · D]` to `[heads, T, D]`.
    fn query_heads(&mut self) -> Built {
        let q = self.b.reshape(self.q, [self.t, c(HEADS), c(DIM)])?;
        self.b.transpose(q, [1, 0, 2])
    }

    /// `[heads, T, D]` to `[T, heads · D]`.
    fn join_heads(&mut self, x: ValueId) -> Built {
        let x = self.b.transpose(x, [1, 0, 2])?;
        self.b.reshape(x, [self.t, c(HEADS * DIM)])
    }

    /// The rows in use: `[S, kv, D]`.
    fn rows(&mut self, cache: ValueId) -> Built {
        self.b.slice(cache, 0, 0, self.s)
    }

    /// `[S, kv, D]` to `[heads, S, D]`, each KV head repeated.
    fn repeated(&mut self, rows: ValueId) -> Built {
        let x = self.b.transpose(rows, [1, 0, 2])?;
        let x = self.b.reshape(x, [c(KV), c(1), self.s, c(DIM)])?;
        let x = self.b.broadcast(x, [c(KV), c(GROUP), self.s, c(DIM)])?;
        self.b.reshape(x, [c(HEADS), self.s, c(DIM)])
    }

    fn swap_last(&mut self, x: ValueId) -> Built {
        let rank = self.b.ty(x).rank() as u32;
        let mut perm: Vec<u32> = (0..rank).collect();
        perm.swap(rank as usize - 1, rank as usize - 2);
        self.b.transpose(x, perm)
    }

    fn scaled(&mut self, op: BinaryOp, x: ValueId, by: f32) -> Built {
        let by = self.b.scalar(by)?;
        self.b.binary(op, x, by)
    }

    fn int(&mut self, value: i32) -> Built {
        self.b.constant(value as f32, Type::new(DType::I32, []))
    }

    /// p `[T, 1]` and j `[1, S]`.
    fn indices(&mut self) -> Result<(ValueId, ValueId), InferError> {
        let p = self.b.reshape(self.positions, [self.t, c(1)])?;
        let j = self.b.push1(Op::Iota { len: self.s }, &[])?;
        Ok((p, self.b.reshape(j, [c(1), self.s])?))
    }

    fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Built {
        self.b.push1(Op::Select {}, &[condition, a, b])
    }

    /// j ≤ p, else −∞.
    fn causal(&mut self, scores: ValueId) -> Built {
        let (p, j) = self.indices()?;
        let visible = self.b.binary(BinaryOp::Le, j, p)?;
        let hidden = self.b.scalar(f32::NEG_INFINITY)?;
        self.select(visible, scores, hidden)
    }

    fn reduce(&mut self, x: ValueId, max: bool) -> Built {
        let axis = self.b.ty(x).rank() as u32 - 1;
        let op = if max { Op::ReduceMax { axis } } else { Op::ReduceSum { axis } };
        self.b.push1(op, &[x])
    }

    fn softmax(&mut self, z: ValueId) -> Built {
        let max = self.reduce(z, true)?;
        let z = self.b.sub(z, max)?;
        let e = self.b.unary(UnaryOp::Exp, z)?;
        let sum = self.reduce(e, false)?;
        self.b.div(e, sum)
    }

    /// As [`Writer::softmax`] of masked scores, and the product with the values, heads first.
    fn finish(&mut self, scores: ValueId) -> Built {
        let p = self.softmax(scores)?;
        let rows = self.rows(self.v_cache)?;
        let v = self.repeated(rows)?;
        let out = self.b.matmul(p, v)?;
        self.join_heads(out)
    }

    /// q · kᵀ, heads first.
    fn scores(&mut self) -> Built {
        let q = self.query_heads()?;
        let rows = self.rows(self.k_cache)?;
        let k = self.repeated(rows)?;
        let k = self.swap_last(k)?;
        self.b.matmul(q, k)
    }
}

fn attention_of(cache: DType, write: impl FnOnce(&mut Writer<'_, '_>) -> Built) -> Module {
    one_function(|b, [t, s, capacity]| {
        let q = b.param("q", Type::f32([t, c(HEADS * DIM)]));
        let rows = Type::new(cache, [capacity, c(KV), c(DIM)]);
        let k_cache = b.param("k_cache", rows.clone());
        let v_cache = b.param("v_cache", rows);
        let positions = b.param("positions", Type::new(DType::I32, [t]));
        let mut writer = Writer { b, t, s, q, k_cache, v_cache, positions };
        Ok(vec![write(&mut writer)?])
    })
}

/// The variant becomes exactly one `attention` of the parameters.
fn becomes(expected: AttentionAttr, write: impl FnOnce(&mut Writer<'_, '_>) -> Built) {
    let (after, report) = raised(&attention_of(DType::F32, write));
    assert_eq!(ops(&after), [Op::Attention { attr: expected }]);
    let function = &after.functions[0];
    let last = function.insts.last().expect("an instruction");
    assert_eq!(last.operands, function.params, "the operands are the parameters themselves");
    assert!(report.rewrites.iter().any(|(name, _)| name == "raise-attention"));
}

#[test]
fn scores_scaled_and_selected() {
    becomes(attr(0.5, None, None), |w| {
        let scores = w.scores()?;
        let scores = w.scaled(BinaryOp::Mul, scores, 0.5)?;
        let scores = w.causal(scores)?;
        w.finish(scores)
    });
}

/// As Hugging Face's eager attention with a batch of one: everything has rank 4, the mask is added.
#[test]
fn batch_of_one_and_an_additive_mask() {
    becomes(attr(0.5, None, None), |w| {
        let one = c(1);
        let q = w.b.reshape(w.q, [one, w.t, c(HEADS), c(DIM)])?;
        let q = w.b.transpose(q, [0, 2, 1, 3])?;
        let mut repeated = vec![];
        for cache in [w.k_cache, w.v_cache] {
            let x = w.rows(cache)?;
            let x = w.b.reshape(x, [one, w.s, c(KV), c(DIM)])?;
            let x = w.b.transpose(x, [0, 2, 1, 3])?;
            let x = w.b.reshape(x, [one, c(KV), one, w.s, c(DIM)])?;
            let x = w.b.broadcast(x, [one, c(KV), c(GROUP), w.s, c(DIM)])?;
            repeated.push(w.b.reshape(x, [one, c(HEADS), w.s, c(DIM)])?);
        }
        let k = w.swap_last(repeated[0])?;
        let scores = w.b.matmul(q, k)?;
        let scores = w.scaled(BinaryOp::Div, scores, 2.0)?;
        let (p, j) = w.indices()?;
        let hidden = w.b.binary(BinaryOp::Lt, p, j)?;
        let (lowest, zero) = (w.b.scalar(f32::MIN)?, w.b.scalar(0.0)?);
        let mask = w.select(hidden, lowest, zero)?;
        let mask = w.b.reshape(mask, [one, one, w.t, w.s])?;
        let scores = w.b.add(scores, mask)?;
        let p = w.softmax(scores)?;
        let out = w.b.matmul(p, repeated[1])?;
        let out = w.b.transpose(out, [0, 2, 1, 3])?;
        let out = w.b.reshape(out, [one, w.t, c(HEADS * DIM)])?;
        w.b.reshape(out, [w.t, c(HEADS * DIM)])
    });
}

/// Queries in groups, q divided by √d, no maximum, division after the product with the values.
#[test]
fn grouped_queries_and_a_late_division() {
    becomes(attr(0.5, None, None), |w| {
        let q = w.scaled(BinaryOp::Div, w.q, 2.0)?;
        let q = w.b.reshape(q, [w.t, c(KV), c(GROUP), c(DIM)])?;
        let q = w.b.transpose(q, [1, 2, 0, 3])?;
        let k = w.rows(w.k_cache)?;
        let k = w.b.transpose(k, [1, 2, 0])?;
        let k = w.b.reshape(k, [c(KV), c(1), c(DIM), w.s])?;
        let k = w.b.broadcast(k, [c(KV), c(GROUP), c(DIM), w.s])?;
        let scores = w.b.matmul(q, k)?;
        let (p, j) = w.indices()?;
        let visible = w.b.binary(BinaryOp::Le, j, p)?;
        let hidden = w.b.scalar(-1e30)?;
        let scores = w.select(visible, scores, hidden)?;
        let e = w.b.unary(UnaryOp::Exp, scores)?;
        let sum = w.reduce(e, false)?;
        let v = w.rows(w.v_cache)?;
        let v = w.b.reshape(v, [w.s, c(KV), c(1), c(DIM)])?;
        let v = w.b.broadcast(v, [w.s, c(KV), c(GROUP), c(DIM)])?;
        let v = w.b.transpose(v, [1, 2, 0, 3])?;
        let out = w.b.matmul(e, v)?;
        let out = w.b.div(out, sum)?;
        let out = w.b.transpose(out, [2, 0, 1, 3])?;
        w.b.reshape(out, [w.t, c(HEADS * DIM)])
    });
}

/// k scaled, soft cap, window and causality in one condition.
#[test]
fn scaled_keys_soft_cap_and_a_window() {
    becomes(attr(0.5, Some(4), Some(3.0)), |w| {
        let q = w.query_heads()?;
        let k = w.rows(w.k_cache)?;
        let k = w.scaled(BinaryOp::Mul, k, 0.5)?;
        let k = w.repeated(k)?;
        let k = w.swap_last(k)?;
        let scores = w.b.matmul(q, k)?;
        let scores = w.scaled(BinaryOp::Div, scores, 3.0)?;
        let scores = w.b.unary(UnaryOp::Tanh, scores)?;
        let scores = w.scaled(BinaryOp::Mul, scores, 3.0)?;
        let (p, j) = w.indices()?;
        let causal = w.b.binary(BinaryOp::Le, j, p)?;
        let distance = w.b.sub(p, j)?;
        let window = w.int(4)?;
        let near = w.b.binary(BinaryOp::Lt, distance, window)?;
        let visible = w.b.binary(BinaryOp::And, causal, near)?;
        let hidden = w.b.scalar(f32::NEG_INFINITY)?;
        let scores = w.select(visible, scores, hidden)?;
        w.finish(scores)
    });
}

/// Positions compared as real numbers; two indicator masks times a large number; the reciprocal of
/// the sum.
#[test]
fn indicator_masks_and_a_reciprocal() {
    becomes(attr(1.0, Some(5), None), |w| {
        let scores = w.scores()?;
        let (p, j) = w.indices()?;
        let p = w.b.cast(p, DType::F32)?;
        let j = w.b.cast(j, DType::F32)?;
        let visible = w.b.binary(BinaryOp::Le, j, p)?;
        let visible = w.b.cast(visible, DType::F32)?;
        let one = w.b.scalar(1.0)?;
        let hidden = w.b.sub(one, visible)?;
        let causal = w.scaled(BinaryOp::Mul, hidden, -1e9)?;
        // Too far: j + 5 ≤ p.
        let end = w.scaled(BinaryOp::Add, j, 5.0)?;
        let far = w.b.binary(BinaryOp::Le, end, p)?;
        let far = w.b.cast(far, DType::F32)?;
        let window = w.scaled(BinaryOp::Mul, far, -1e9)?;
        let mask = w.b.add(causal, window)?;
        let scores = w.b.add(mask, scores)?;
        let max = w.reduce(scores, true)?;
        let z = w.b.sub(scores, max)?;
        let e = w.b.unary(UnaryOp::Exp, z)?;
        let sum = w.reduce(e, false)?;
        let one = w.b.scalar(1.0)?;
        let inverse = w.b.div(one, sum)?;
        let p = w.b.mul(e, inverse)?;
        let rows = w.rows(w.v_cache)?;
        let v = w.repeated(rows)?;
        let out = w.b.matmul(p, v)?;
        w.join_heads(out)
    });
}

/// Scores in groups, probabilities by head; masks nested, hidden rows named first.
#[test]
fn grouped_scores_and_nested_masks() {
    becomes(attr(0.25, Some(3), None), |w| {
        let q = w.query_heads()?;
        let q = w.b.reshape(q, [c(KV), c(GROUP), w.t, c(DIM)])?;
        let k = w.rows(w.k_cache)?;
        let k = w.b.reshape(k, [w.s, c(KV), c(1), c(DIM)])?;
        let k = w.b.broadcast(k, [w.s, c(KV), c(GROUP), c(DIM)])?;
        let k = w.b.transpose(k, [1, 2, 3, 0])?;
        let scores = w.b.matmul(q, k)?;
        let scores = w.b.reshape(scores, [c(HEADS), w.t, w.s])?;
        let scores = w.scaled(BinaryOp::Mul, scores, 0.25)?;
        let (p, j) = w.indices()?;
        let future = w.b.binary(BinaryOp::Lt, p, j)?;
        let lowest = w.b.scalar(-1e10)?;
        let scores = w.select(future, lowest, scores)?;
        // p − 3 < j sees three positions.
        let three = w.int(3)?;
        let begin = w.b.sub(p, three)?;
        let near = w.b.binary(BinaryOp::Lt, begin, j)?;
        let near = w.b.reshape(near, [c(1), w.t, w.s])?;
        let scores = w.select(near, scores, lowest)?;
        w.finish(scores)
    });
}

/// Converted before or after rows are cut out; `attention` reads what is stored.
#[test]
fn a_cache_in_half_precision_is_read_in_its_stored_form() {
    let before = attention_of(DType::F16, |w| {
        let q = w.query_heads()?;
        let k = w.b.dequantize(w.k_cache)?;
        let k = w.rows(k)?;
        let k = w.repeated(k)?;
        let k = w.swap_last(k)?;
        let scores = w.b.matmul(q, k)?;
        let scores = w.causal(scores)?;
        let p = w.softmax(scores)?;
        let v = w.rows(w.v_cache)?;
        let v = w.b.cast(v, DType::F32)?;
        let v = w.repeated(v)?;
        let out = w.b.matmul(p, v)?;
        w.join_heads(out)
    });
    let (after, _) = raised(&before);
    assert_eq!(ops(&after), [Op::Attention { attr: attr(1.0, None, None) }]);
}

/// A step of one token, fixed when compiling: no axis tells the rows any more.
#[test]
fn a_single_query() {
    let before = one_function(|b, [_, s, capacity]| {
        let t = c(1);
        let q = b.param("q", Type::f32([t, c(HEADS * DIM)]));
        let rows = Type::f32([capacity, c(KV), c(DIM)]);
        let k_cache = b.param("k_cache", rows.clone());
        let v_cache = b.param("v_cache", rows);
        let positions = b.param("positions", Type::new(DType::I32, [t]));
        let mut w = Writer { b, t, s, q, k_cache, v_cache, positions };
        let scores = w.scores()?;
        let scores = w.causal(scores)?;
        Ok(vec![w.finish(scores)?])
    });
    let (after, _) = raised(&before);
    assert_eq!(ops(&after), [Op::Attention { attr: attr(1.0, None, None) }]);
}

/// Query heads that are dealt out to KV heads in turn are brought into the order of `attention`.
#[test]
fn heads_in_another_order_are_not_taken_for_grouped_ones() {
    let before = attention_of(DType::F32, |w| {
        let q = w.query_heads()?;
        let tiled = |w: &mut Writer<'_, '_>, cache| {
            let x = w.rows(cache)?;
            let x = w.b.transpose(x, [1, 0, 2])?;
            w.b.concat(0, &[x; GROUP as usize])
        };
        let k = tiled(w, w.k_cache)?;
        let k = w.swap_last(k)?;
        let scores = w.b.matmul(q, k)?;
        let scores = w.causal(scores)?;
        let p = w.softmax(scores)?;
        let v = tiled(w, w.v_cache)?;
        let out = w.b.matmul(p, v)?;
        w.join_heads(out)
    });
    let (after, _) = run(waveloom_passes::raise::run, &before, crate::support::REASSOCIATED);
    assert_eq!(tensor_ops(&after), ["@f: transpose", "@f: transpose"]);
    assert!(ops(&after).contains(&Op::Attention { attr: attr(1.0, None, None) }));
}

/// What looks like attention and is not stays what it is.
fn stays(write: impl FnOnce(&mut Writer<'_, '_>) -> Built) {
    let before = attention_of(DType::F32, write);
    let (after, _) = run(waveloom_passes::raise::run, &before, crate::support::REASSOCIATED);
    assert!(!ops(&after).iter().any(|op| matches!(op, Op::Attention { .. })));
}

#[test]
fn no_mask_is_not_causal_attention() {
    stays(|w| {
        let scores = w.scores()?;
        w.finish(scores)
    });
}

#[test]
fn a_mask_that_hides_the_diagonal_is_not_causal_attention() {
    stays(|w| {
        let scores = w.scores()?;
        let (p, j) = w.indices()?;
        let visible = w.b.binary(BinaryOp::Lt, j, p)?;
        let hidden = w.b.scalar(-1e9)?;
        let scores = w.select(visible, scores, hidden)?;
        w.finish(scores)
    });
}

#[test]
fn a_mild_penalty_is_not_a_mask() {
    stays(|w| {
        let scores = w.scores()?;
        let (p, j) = w.indices()?;
        let visible = w.b.binary(BinaryOp::Le, j, p)?;
        let penalty = w.b.scalar(-5.0)?;
        let scores = w.select(visible, scores, penalty)?;
        w.finish(scores)
    });
}

#[test]
fn a_softmax_over_queries_is_not_attention() {
    stays(|w| {
        let scores = w.scores()?;
        let scores = w.scaled(BinaryOp::Mul, scores, 0.5)?;
        let (p, j) = w.indices()?;
        let visible = w.b.binary(BinaryOp::Le, j, p)?;
        let hidden = w.b.scalar(-1e9)?;
        let scores = w.select(visible, scores, hidden)?;
        let e = w.b.unary(UnaryOp::Exp, scores)?;
        let sum = w.b.push1(Op::ReduceSum { axis: 1 }, &[e])?;
        let p = w.b.div(e, sum)?;
        let rows = w.rows(w.v_cache)?;
        let v = w.repeated(rows)?;
        let out = w.b.matmul(p, v)?;
        w.join_heads(out)
    });
}

#[test]
fn different_heads_for_keys_and_values_are_not_attention() {
    stays(|w| {
        let scores = w.scores()?;
        let scores = w.causal(scores)?;
        let p = w.softmax(scores)?;
        let x = w.rows(w.v_cache)?;
        let x = w.b.transpose(x, [1, 0, 2])?;
        let v = w.b.concat(0, &[x; GROUP as usize])?;
        let out = w.b.matmul(p, v)?;
        w.join_heads(out)
    });
}
