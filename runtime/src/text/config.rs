//! The section `generation_config.json`: stop tokens, special tokens and sampling defaults. The
//! front end writes it; see `docs/architecture.md`.

use super::TextError;
use serde::Deserialize;
use waveloom_plan::SamplingParams;

/// Content of `generation_config.json`. What the model does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Tokens that end a generation.
    pub stop_tokens: Vec<u32>,
    /// Special tokens that chat templates name.
    pub special_tokens: SpecialTokens,
    /// Whether to draw tokens; otherwise the most probable one is taken.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f32>,
    /// Keeps the k most probable tokens.
    pub top_k: Option<u32>,
    /// Keeps the most probable tokens up to this mass.
    pub top_p: Option<f32>,
    /// Keeps tokens at least this probable relative to the most probable.
    pub min_p: Option<f32>,
    /// Divides the positive and multiplies the negative logits of tokens seen.
    pub repetition_penalty: Option<f32>,
}

/// Texts of the special tokens that chat templates name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos_token: Option<String>,
    /// Ends a text.
    pub eos_token: Option<String>,
    /// Stands for what cannot be tokenized.
    pub unk_token: Option<String>,
    /// Fills short sequences.
    pub pad_token: Option<String>,
}

impl GenerationConfig {
    /// Reads the section.
    pub fn from_json(json: &[u8]) -> Result<GenerationConfig, TextError> {
        serde_json::from_slice(json).map_err(|error| TextError::Config(error.to_string()))
    }

    /// The sampling that the model's makers mean: arg-max unless they say to draw.
    pub fn sampling(&self, seed: u64) -> SamplingParams {
        let greedy = SamplingParams {
            seed,
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            ..SamplingParams::GREEDY
        };
        if self.do_sample != Some(true) {
            return greedy;
        }
        SamplingParams {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(0),
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            ..greedy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_values_have_defaults() {
        let config = GenerationConfig::from_json(b"{}").unwrap();
        assert_eq!(config.sampling(3), SamplingParams { seed: 3, ..SamplingParams::GREEDY });
        let json = br#"{"stop_tokens":[2],"special_tokens":{"bos_token":"<s>"},"do_sample":true,
            "temperature":0.6,"top_p":0.9,"repetition_penalty":1.05}"#;
        let config = GenerationConfig::from_json(json).unwrap();
        assert_eq!(config.stop_tokens, [2]);
        assert_eq!(config.special_tokens.bos_token.as_deref(), Some("<s>"));
        let sampling = config.sampling(0);
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.6, 0, 0.9));
        assert_eq!(sampling.repetition_penalty, 1.05);
        let error = GenerationConfig::from_json(b"{\"stop_tokens\":7}").unwrap_err();
        insta::assert_snapshot!(error, @"section `generation_config.json` of the artifact is not usable: invalid type: integer `7`, expected a sequence at line 1 column 16");
    }
}
