//! `run`: text or tokens to more of them.

use crate::args::{RunArgs, SamplingArgs};
use crate::output::PendingFile;
use crate::{Failure, format, load, output};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use waveloom_plan::Artifact;
use waveloom_plan::artifact::{GENERATION_CONFIG, TOKENIZER};
use waveloom_runtime::{
    GenerateOptions, Generation, GenerationConfig, Message, SamplingParams, TextModel, TextStream,
    TokenEvent,
};

/// Generates.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let logits_file = args.logits.as_deref().map(PendingFile::create).transpose()?;
    let artifact = Artifact::open(&args.file)?;
    // Tokens in, tokens out needs no text; where there is a tokenizer, their text is shown.
    let text = match args.tokens.is_none() || artifact.has(TOKENIZER) {
        true => Some(text_model(&artifact)?),
        false => None,
    };
    let prompt = prompt(args, text.as_ref())?;
    let model = load::any_plan(&artifact)?.model;
    let context = context(args, prompt.len(), model.max_context);
    let mut session = load::session(&artifact, &args.device, context, args.json)?;
    let load = start.elapsed();
    let options = GenerateOptions {
        max_new_tokens: args.max_tokens as usize,
        sampling: sampling(&args.sampling, &generation_config(&artifact)?),
        ignore_eos: args.ignore_eos,
        stop_tokens: vec![],
        logits: args.logits.is_some(),
    };
    let mut sink = Sink::new(args, text.as_ref());
    let generation = session.generate(&prompt, &options, &mut |event| sink.take(event))?;
    sink.finish()?;
    let Sink { tokens, text, logits, .. } = sink;
    if let Some(file) = logits_file {
        write_logits(file, &logits, tokens.len(), model.vocab as usize)?;
    }
    let report = Report::new(prompt, tokens, text, &generation, session.peak_bytes(), load);
    if args.json {
        output::write_json(&report)
    } else {
        output::note(report.text(&generation));
        Ok(())
    }
}

fn text_model(artifact: &Artifact) -> Result<TextModel, Failure> {
    let model = TextModel::load(artifact).map_err(Failure::from);
    match artifact.has(TOKENIZER) {
        true => model,
        false => model.map_err(|failure| failure.with_help("--tokens 1,2,3 takes token ids")),
    }
}

fn prompt(args: &RunArgs, text: Option<&TextModel>) -> Result<Vec<u32>, Failure> {
    match (&args.tokens, &args.prompt, text) {
        (Some(tokens), ..) => Ok(tokens.clone()),
        (None, Some(prompt), Some(text)) if args.chat => {
            let system = args.system.iter().map(|system| Message::new("system", system));
            let messages: Vec<Message> = system.chain([Message::new("user", prompt)]).collect();
            Ok(text.encode_chat(&messages)?)
        }
        (None, Some(prompt), Some(text)) => Ok(text.encode_prompt(prompt)?),
        (None, ..) => Err(Failure::new("nothing to continue; give --prompt or --tokens")),
    }
}

/// The KV cache holds what can come, unless the user says otherwise.
fn context(args: &RunArgs, prompt: usize, max: u32) -> u32 {
    let needed = u32::try_from(prompt).unwrap_or(u32::MAX).saturating_add(args.max_tokens);
    args.context.unwrap_or(needed.clamp(1, max))
}

fn generation_config(artifact: &Artifact) -> Result<GenerationConfig, Failure> {
    if !artifact.has(GENERATION_CONFIG) {
        return Ok(GenerationConfig::default());
    }
    Ok(GenerationConfig::from_json(artifact.section(GENERATION_CONFIG)?)?)
}

/// The model's defaults, where the user says nothing. Saying anything of how to draw means to draw;
/// penalties change arg-max, too.
fn sampling(args: &SamplingArgs, config: &GenerationConfig) -> SamplingParams {
    if args.greedy {
        return SamplingParams::GREEDY;
    }
    let filters = args.top_k.is_some() || args.top_p.is_some() || args.min_p.is_some();
    let mut config = config.clone();
    if filters || args.temperature.is_some() {
        config.do_sample = Some(true);
    }
    let defaults = config.sampling(args.seed.unwrap_or(0));
    SamplingParams {
        temperature: args.temperature.unwrap_or(defaults.temperature),
        top_k: args.top_k.unwrap_or(defaults.top_k),
        top_p: args.top_p.unwrap_or(defaults.top_p),
        min_p: args.min_p.unwrap_or(defaults.min_p),
        seed: defaults.seed,
        repetition_penalty: args.repetition_penalty.unwrap_or(defaults.repetition_penalty),
        presence_penalty: args.presence_penalty.unwrap_or(defaults.presence_penalty),
        frequency_penalty: args.frequency_penalty.unwrap_or(defaults.frequency_penalty),
        penalty_last_n: args.penalty_last_n.unwrap_or(defaults.penalty_last_n),
    }
}

/// Takes tokens as they come, and shows them.
struct Sink<'t> {
    stream: Option<TextStream<'t>>,
    silent: bool,
    keep_logits: bool,
    tokens: Vec<u32>,
    /// What they say; nothing without a tokenizer.
    text: Option<String>,
    /// Little-endian f32, one row per token.
    logits: Vec<u8>,
    failure: Option<Failure>,
}

impl<'t> Sink<'t> {
    fn new(args: &RunArgs, text: Option<&'t TextModel>) -> Sink<'t> {
        Sink {
            stream: text.map(TextModel::stream),
            silent: args.json,
            keep_logits: args.logits.is_some(),
            tokens: vec![],
            text: text.map(|_| String::new()),
            logits: vec![],
            failure: None,
        }
    }

    fn take(&mut self, event: TokenEvent<'_>) -> ControlFlow<()> {
        if self.keep_logits {
            self.logits.extend(event.logits.iter().flat_map(|logit| logit.to_le_bytes()));
        }
        self.tokens.push(event.token);
        if event.is_stop {
            return ControlFlow::Continue(());
        }
        match self.show(event.token) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    fn show(&mut self, token: u32) -> Result<(), Failure> {
        let piece = match &mut self.stream {
            Some(stream) => stream.push(token)?,
            None if self.tokens.len() == 1 => token.to_string(),
            None => format!(",{token}"),
        };
        self.put(piece)
    }

    fn put(&mut self, piece: String) -> Result<(), Failure> {
        if !self.silent && !piece.is_empty() {
            output::write(&piece)?;
        }
        if let Some(text) = &mut self.text {
            *text += &piece;
        }
        Ok(())
    }

    /// Shows what is left of the text, or says why a token could not be shown.
    fn finish(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if let Some(stream) = self.stream.take() {
            let rest = stream.finish()?;
            self.put(rest)?;
        }
        if self.silent { Ok(()) } else { output::write("\n") }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    prompt_tokens: usize,
    prompt_ids: Vec<u32>,
    /// The new ones, a stop token included.
    tokens: Vec<u32>,
    text: Option<String>,
    finish_reason: &'static str,
    prefill_tok_s: f64,
    decode_tok_s: f64,
    peak_bytes: u64,
    load_s: f64,
}

impl Report {
    fn new(
        prompt: Vec<u32>,
        tokens: Vec<u32>,
        text: Option<String>,
        generation: &Generation,
        peak_bytes: u64,
        load: Duration,
    ) -> Report {
        Report {
            prompt_tokens: prompt.len(),
            prompt_ids: prompt,
            tokens,
            text,
            finish_reason: generation.finish_reason.as_str(),
            prefill_tok_s: generation.prefill_tokens_per_second(),
            decode_tok_s: generation.decode_tokens_per_second(),
            peak_bytes,
            load_s: load.as_secs_f64(),
        }
    }

    fn text(&self, generation: &Generation) -> String {
        let counted = |count: usize, time: Duration, rate: f64| {
            let time = format::duration(time);
            format!("{} in {time} ({rate:.1} tok/s)", format::count(count as u64, "token"))
        };
        format!(
            "loaded in {}, {}; prompt {}; generated {}; finished: {}",
            format::duration(Duration::from_secs_f64(self.load_s)),
            format::bytes(self.peak_bytes),
            counted(self.prompt_tokens, generation.prefill, self.prefill_tok_s),
            counted(self.tokens.len(), generation.decode, self.decode_tok_s),
            self.finish_reason
        )
    }
}

/// One tensor `logits`, f32 [rows, vocab].
fn write_logits(
    file: PendingFile,
    logits: &[u8],
    rows: usize,
    vocab: usize,
) -> Result<(), Failure> {
    file.finish(|file| {
        let tensor = TensorView::new(Dtype::F32, vec![rows, vocab], logits)?;
        serialize_to_file([("logits", tensor)], None, file.path())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{RunnerCli, RunnerCommand};
    use clap::Parser;
    use safetensors::SafeTensors;
    use waveloom_runtime::FinishReason;

    fn args(line: &str) -> RunArgs {
        let line = format!("waveloom-run run m.wlm {line}");
        match RunnerCli::parse_from(line.split_whitespace()).command {
            RunnerCommand::Run(args) => args,
            other => panic!("not `run`: {other:?}"),
        }
    }

    #[test]
    fn the_context_is_what_can_be_needed() {
        assert_eq!(context(&args("-p a -n 20"), 10, 2048), 30);
        assert_eq!(context(&args("-p a -n 4000"), 10, 2048), 2048);
        assert_eq!(context(&args("-p a -n 0"), 0, 2048), 1);
        assert_eq!(context(&args("-p a -n 20 --context 4096"), 10, 2048), 4096);
        assert_eq!(context(&args("-p a -n 4294967295"), usize::MAX, u32::MAX), u32::MAX);
    }

    #[test]
    fn sampling_comes_from_the_model_or_the_user() {
        let greedy = GenerationConfig::default();
        let drawing = GenerationConfig {
            do_sample: Some(true),
            temperature: Some(0.6),
            top_k: Some(20),
            ..GenerationConfig::default()
        };
        let of = |line: &str, config| sampling(&args(&format!("-p a {line}")).sampling, config);
        assert_eq!(of("", &greedy), SamplingParams::GREEDY);
        assert_eq!(of("--greedy", &drawing), SamplingParams::GREEDY);
        assert_eq!(of("--temperature 0", &drawing).temperature, 0.0);
        let model = of("--seed 7", &drawing);
        assert_eq!((model.temperature, model.top_k, model.seed), (0.6, 20, 7));
        let user = of("--top-p 0.5", &drawing);
        assert_eq!((user.temperature, user.top_k, user.top_p), (0.6, 20, 0.5));
        let user = of("--top-k 3", &greedy);
        assert_eq!((user.temperature, user.top_k, user.top_p, user.min_p), (1.0, 3, 1.0, 0.0));
        let penalizing = GenerationConfig { repetition_penalty: Some(1.1), ..greedy.clone() };
        let model = of("--presence-penalty -0.5", &penalizing);
        assert_eq!((model.temperature, model.repetition_penalty), (0.0, 1.1));
        assert_eq!((model.presence_penalty, model.penalty_last_n), (-0.5, u32::MAX));
        let user =
            of("--repetition-penalty 1 --frequency-penalty 2 --penalty-last-n 64", &penalizing);
        assert_eq!((user.repetition_penalty, user.frequency_penalty), (1.0, 2.0));
        assert_eq!((user.temperature, user.penalty_last_n), (0.0, 64));
    }

    #[test]
    fn a_conversation_needs_a_tokenizer_and_tokens_do_not() {
        assert_eq!(prompt(&args("--tokens 3,4"), None).unwrap(), [3, 4]);
        assert!(prompt(&args("-p a"), None).is_err());
    }

    #[test]
    fn tokens_and_logits_are_kept() {
        let mut sink = Sink::new(&args("--tokens 1 --json --logits x"), None);
        for (token, is_stop) in [(5, false), (6, false), (2, true)] {
            let event = TokenEvent { token, is_stop, logits: &[0.5, -1.0] };
            assert!(sink.take(event).is_continue());
        }
        sink.finish().unwrap();
        assert_eq!((sink.tokens, sink.text, sink.logits.len()), (vec![5, 6, 2], None, 24));
    }

    #[test]
    fn logits_are_a_safetensors_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logits.safetensors");
        let values = [1.0f32, -2.0, 0.5, 8.0, 0.0, -0.25];
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let write = |bytes, rows| write_logits(PendingFile::create(&path).unwrap(), bytes, rows, 3);
        write(&bytes, 2).unwrap();
        let file = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let logits = tensors.tensor("logits").unwrap();
        assert_eq!(
            (logits.dtype(), logits.shape(), logits.data()),
            (Dtype::F32, &[2, 3][..], &bytes[..])
        );
        write(&[], 0).unwrap();
        assert!(write(&bytes, 1).is_err());
    }

    fn generation() -> Generation {
        Generation {
            finish_reason: FinishReason::Stop,
            prompt_tokens: 2,
            new_tokens: 3,
            prefill: Duration::from_millis(10),
            decode: Duration::from_millis(20),
        }
    }

    #[test]
    fn json_has_the_agreed_fields() {
        let report = Report::new(
            vec![1, 2],
            vec![5, 6, 0],
            Some("hi".into()),
            &generation(),
            1 << 20,
            Duration::from_millis(30),
        );
        assert_eq!(
            report.text(&generation()),
            "loaded in 30.0 ms, 1.0 MiB; prompt 2 tokens in 10.0 ms (200.0 tok/s); generated 3 tokens in 20.0 ms (100.0 tok/s); finished: stop"
        );
        let expected = serde_json::json!({
            "prompt_tokens": 2, "prompt_ids": [1, 2], "tokens": [5, 6, 0], "text": "hi",
            "finish_reason": "stop", "prefill_tok_s": 200.0, "decode_tok_s": 100.0,
            "peak_bytes": 1 << 20, "load_s": 0.03,
        });
        assert_eq!(serde_json::to_value(report).unwrap(), expected);
    }
}
