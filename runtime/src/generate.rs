//! Generation: prompt in, tokens out one by one, until something ends it.

use crate::error::Error;
use crate::session::Session;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use thiserror::Error;
use waveloom_plan::SamplingParams;

/// How to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Go on after the model's stop tokens.
    pub ignore_eos: bool,
    /// Tokens that end the generation beside the model's, whatever `ignore_eos` says.
    pub stop_tokens: Vec<u32>,
    /// Hand over the logits of every token. A device that could be ahead of the host then waits.
    pub logits: bool,
}

impl Default for GenerateOptions {
    /// Up to 256 tokens by arg-max.
    fn default() -> Self {
        GenerateOptions {
            max_new_tokens: 256,
            sampling: SamplingParams::GREEDY,
            ignore_eos: false,
            stop_tokens: vec![],
            logits: false,
        }
    }
}

/// A new token.
#[derive(Clone, Copy, Debug)]
pub struct TokenEvent<'a> {
    /// The token.
    pub token: u32,
    /// Whether it ends the generation, and so is not part of the text.
    pub is_stop: bool,
    /// What it was chosen from: a logit per token of the vocabulary; empty unless asked for.
    pub logits: &'a [f32],
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// No room in the KV cache.
    ContextFull,
    /// The caller broke it off.
    Cancelled,
}

impl FinishReason {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ContextFull => "context_full",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// What a generation took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, a stop token included.
    pub new_tokens: usize,
    /// From the start to the first token.
    pub prefill: Duration,
    /// In the decode steps for all further tokens, without the caller's time between them.
    pub decode: Duration,
}

impl Generation {
    /// Prompt tokens per second.
    pub fn prefill_tokens_per_second(&self) -> f64 {
        rate(self.prompt_tokens, self.prefill)
    }

    /// New tokens per second, the first not counted: it comes from the prefill.
    pub fn decode_tokens_per_second(&self) -> f64 {
        rate(self.new_tokens.saturating_sub(1), self.decode)
    }
}

/// Tokens per second; 0 where there are none.
fn rate(tokens: usize, time: Duration) -> f64 {
    if tokens == 0 { 0.0 } else { tokens as f64 / time.as_secs_f64().max(1e-9) }
}

/// A sampling parameter that makes no sense.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{name} is {value}: it must be {rule}")]
pub struct SamplingError {
    name: &'static str,
    value: f32,
    rule: &'static str,
}

/// Fails unless the kernel can work with these parameters.
pub(crate) fn check_sampling(sampling: &SamplingParams) -> Result<(), SamplingError> {
    let probability = |value: f32| (0.0..=1.0).contains(&value);
    let SamplingParams {
        temperature,
        top_k: _,
        top_p,
        min_p,
        seed: _,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        penalty_last_n: _,
    } = *sampling;
    let finite = temperature.is_finite() && temperature >= 0.0;
    let repetition = repetition_penalty.is_finite() && repetition_penalty > 0.0;
    for (name, value, holds, rule) in [
        ("temperature", temperature, finite, "finite and not negative"),
        ("top_p", top_p, probability(top_p), "between 0 and 1"),
        ("min_p", min_p, probability(min_p), "between 0 and 1"),
        ("repetition_penalty", repetition_penalty, repetition, "finite and above 0"),
        ("presence_penalty", presence_penalty, presence_penalty.is_finite(), "finite"),
        ("frequency_penalty", frequency_penalty, frequency_penalty.is_finite(), "finite"),
    ] {
        if !holds {
            return Err(SamplingError { name, value, rule });
        }
    }
    Ok(())
}

impl Session {
    /// Forgets what was before, processes `prompt`, and generates until a stop token, the number
    /// of tokens asked for, a full context, or a break by `on_token`, which gets every new token.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        self.reset();
        self.continue_with(prompt, options, on_token)
    }

    /// As [`Session::generate`], but after what is in the KV cache. A last token that was chosen
    /// and not yet processed is not there: if it belongs to the text, `prompt` begins with it.
    pub fn continue_with(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        self.check_prompt(prompt)?;
        self.set_sampling(&options.sampling)?;
        let start = Instant::now();
        self.prefill(prompt)?;
        let mut result = Generation {
            finish_reason: FinishReason::Length,
            prompt_tokens: prompt.len(),
            new_tokens: 0,
            prefill: start.elapsed(),
            decode: Duration::ZERO,
        };
        if options.max_new_tokens == 0 {
            // Nothing else would wait for the device, and hear of its errors.
            self.logits()?;
            result.prefill = start.elapsed();
            return Ok(result);
        }
        let mut token = self.sample()?;
        result.prefill = start.elapsed();
        loop {
            result.new_tokens += 1;
            if let Some(reason) = self.hand_over(token, &result, options, on_token)? {
                result.finish_reason = reason;
                return Ok(result);
            }
            let start = Instant::now();
            let wanted = options.max_new_tokens - result.new_tokens;
            token = self.decode_ahead(if options.logits { 1 } else { wanted })?;
            result.decode += start.elapsed();
        }
    }

    /// Gives a token to the caller, and says whether the generation ends with it.
    fn hand_over(
        &mut self,
        token: u32,
        so_far: &Generation,
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Option<FinishReason>, Error> {
        let model_stops = !options.ignore_eos && self.plan().model.stop_tokens.contains(&token);
        let is_stop = model_stops || options.stop_tokens.contains(&token);
        let logits = if options.logits { self.logits()? } else { &[] };
        let flow = on_token(TokenEvent { token, is_stop, logits });
        let reasons = [
            (is_stop, FinishReason::Stop),
            (flow.is_break(), FinishReason::Cancelled),
            (so_far.new_tokens >= options.max_new_tokens, FinishReason::Length),
            (self.cached_tokens() >= self.context(), FinishReason::ContextFull),
        ];
        Ok(reasons.into_iter().find(|(ends, _)| *ends).map(|(_, reason)| reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_sampling_is_refused() {
        let error = |params| check_sampling(&params).unwrap_err();
        let greedy = SamplingParams::GREEDY;
        check_sampling(&greedy).unwrap();
        insta::assert_snapshot!(error(SamplingParams { temperature: -1.0, ..greedy }), @"temperature is -1: it must be finite and not negative");
        insta::assert_snapshot!(error(SamplingParams { top_p: f32::NAN, ..greedy }), @"top_p is NaN: it must be between 0 and 1");
        insta::assert_snapshot!(error(SamplingParams { min_p: 1.5, ..greedy }), @"min_p is 1.5: it must be between 0 and 1");
        insta::assert_snapshot!(error(SamplingParams { repetition_penalty: 0.0, ..greedy }), @"repetition_penalty is 0: it must be finite and above 0");
        insta::assert_snapshot!(error(SamplingParams { presence_penalty: f32::NAN, ..greedy }), @"presence_penalty is NaN: it must be finite");
        insta::assert_snapshot!(error(SamplingParams { frequency_penalty: f32::INFINITY, ..greedy }), @"frequency_penalty is inf: it must be finite");
    }

    #[test]
    fn rates_are_finite() {
        let none = Generation {
            finish_reason: FinishReason::Length,
            prompt_tokens: 10,
            new_tokens: 1,
            prefill: Duration::from_secs(2),
            decode: Duration::ZERO,
        };
        assert_eq!(none.prefill_tokens_per_second(), 5.0);
        assert_eq!(none.decode_tokens_per_second(), 0.0);
    }
}
