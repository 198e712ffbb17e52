//! `sample` and `decode_loop`: what the runtime does around a step.

use super::{Data, Extents, Failure, Interpreter, Real, Tensor, ints, reals};
use crate::module::SymbolId;
use crate::op::DecodeLoopAttr;
use crate::sample::{Sampling, draw};
use crate::types::Dim;
use std::rc::Rc;

pub(super) fn sample<R: Real>(args: &[Rc<Tensor<R>>]) -> Result<i32, String> {
    let [logits, params, counter, history] = args else {
        return Err("takes four operands".into());
    };
    let counter = ints(counter)?.first().copied().unwrap_or(0).cast_unsigned();
    let history = ints(history)?;
    let seen = &history[..history.len().min(counter as usize)];
    draw_token(logits, seen, sampling(params)?, counter)
}

fn sampling<R: Real>(params: &Tensor<R>) -> Result<Sampling, String> {
    let words = ints(params)?.try_into().map_err(|_| "sampling parameters are sixteen words")?;
    Ok(Sampling::from_words(words))
}

fn draw_token<R: Real>(
    logits: &Tensor<R>,
    seen: &[i32],
    sampling: Sampling,
    position: u32,
) -> Result<i32, String> {
    let logits: Vec<f32> = reals(logits)?.iter().map(|&x| x.to_f32()).collect();
    let token = draw(&logits, seen, &sampling, position).ok_or("there are no logits")?;
    i32::try_from(token).map_err(|_| "the vocabulary is too large for i32".into())
}

impl<R: Real> Interpreter<'_, R> {
    /// Every token by position; −1 after the end.
    pub(super) fn decode_loop(
        &self,
        attr: &DecodeLoopAttr,
        args: &[Rc<Tensor<R>>],
        extents: &Extents,
    ) -> Result<Vec<i32>, Failure> {
        let [prompt, params] = args else {
            return Err(Failure::Here("takes two operands".into()));
        };
        let (prompt, sampling) = (ints(prompt)?, sampling(params)?);
        let mut run = Generation::new(self, attr, extents)?;
        if prompt.is_empty() || prompt.len() > run.history.len() {
            let (len, context) = (prompt.len(), run.history.len());
            return Err(Failure::Here(format!("a prompt of {len} in a context of {context}")));
        }
        let mut logits = None;
        for chunk in prompt.chunks(run.largest_step) {
            logits = Some(run.step(chunk)?);
        }
        while let Some(row) = logits.take() {
            if run.length == run.history.len() {
                break;
            }
            let seen = &run.history[..run.length];
            let token = draw_token(&row, seen, sampling, run.length as u32)?;
            if attr.stop_tokens.contains(&token.cast_unsigned()) {
                break;
            }
            run.history[run.length] = token;
            // The step that would follow the last position has nowhere to put its token.
            if run.length + 1 == run.history.len() {
                break;
            }
            logits = Some(run.step(&[token])?);
        }
        Ok(run.history)
    }
}

/// A generation under way.
struct Generation<'i, 'm, R> {
    interpreter: &'i Interpreter<'m, R>,
    attr: &'i DecodeLoopAttr,
    extents: Extents<'m>,
    step_tokens: SymbolId,
    cache_length: Option<SymbolId>,
    largest_step: usize,
    caches: Vec<Rc<Tensor<R>>>,
    history: Vec<i32>,
    /// Tokens that have been through a step.
    length: usize,
}

impl<'i, 'm, R: Real> Generation<'i, 'm, R> {
    fn new(
        interpreter: &'i Interpreter<'m, R>,
        attr: &'i DecodeLoopAttr,
        extents: &Extents,
    ) -> Result<Self, Failure> {
        let module = interpreter.module;
        let step = &module.functions[attr.step.index()];
        let mut caches = vec![];
        for ty in step.param_types().skip(3) {
            let shape = extents.shape(&ty.shape)?;
            let zeros = vec![R::default(); shape.iter().product::<u64>() as usize];
            caches.push(Rc::new(Tensor { shape, data: Data::Real(zeros) }));
        }
        let context = caches.first().and_then(|cache| cache.shape.first()).copied().unwrap_or(0);
        let tokens = step.param_types().next().and_then(|ty| ty.shape.first());
        let Some(&Dim::Symbol(step_tokens)) = tokens else {
            return Err(Failure::Here("the step takes a fixed number of tokens".into()));
        };
        Ok(Generation {
            interpreter,
            attr,
            extents: Extents { module, bound: extents.bound.clone() },
            step_tokens,
            cache_length: module.symbol("S"),
            largest_step: module.symbols[step_tokens.index()].max as usize,
            caches,
            history: vec![-1; context as usize],
            length: 0,
        })
    }

    /// Runs the tokens that follow; gives the logits of the last.
    fn step(&mut self, tokens: &[i32]) -> Result<Rc<Tensor<R>>, Failure> {
        let count = tokens.len();
        let end = self.length + count;
        self.history[self.length..end].copy_from_slice(tokens);
        self.extents.bind(self.step_tokens, count as u64)?;
        if let Some(symbol) = self.cache_length {
            self.extents.bind(symbol, end as u64)?;
        }
        let positions: Vec<i32> = (self.length as i32..end as i32).collect();
        let rows = vec![count as u64];
        let mut inputs = vec![
            Rc::new(Tensor::ints(rows.clone(), tokens)),
            Rc::new(Tensor::ints(rows, positions)),
            Rc::new(Tensor::ints([1], [count as i32 - 1])),
        ];
        inputs.append(&mut self.caches);
        let step = &self.interpreter.module.functions[self.attr.step.index()];
        // Cache types may name `T` or `S`, though a cache of a decode loop cannot change its shape.
        self.interpreter.bind_inputs(step, &inputs, &mut self.extents)?;
        let mut results = self.interpreter.eval_function(step, inputs, &self.extents)?;
        self.caches = results.split_off(1);
        self.length = end;
        results.pop().ok_or_else(|| Failure::Here("the step has no logits".into()))
    }
}
