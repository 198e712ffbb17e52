//! A plan on a device, and the KV cache of one conversation: prefill, sample, decode.
//!
//! A device that works beside the host is given decode steps ahead: they are queued before the
//! token of the one before has been read, so that the device never waits. What was queued and is
//! not wanted any more is forgotten; the next step then tells the device again where it is.
//!
//! Nothing here allocates once [`Session::load`] has returned.

use crate::device::{Device, DeviceKind, EMULATED, LoadProgress, LoadRequest, LoadedPlan};
use crate::error::Error;
use crate::generate::check_sampling;
use thiserror::Error;
use waveloom_plan::{Artifact, Layout, Plan, SamplingParams};

/// How to load an artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Where to run.
    pub device: DeviceKind,
    /// Threads of the CPU, the caller's included; by default one per physical core.
    pub threads: Option<usize>,
    /// Length of the KV cache; by default the largest that the model was compiled for.
    pub context: Option<u32>,
}

/// Why tokens cannot be processed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PromptError {
    /// Nothing to continue.
    #[error("the prompt is empty: give at least one token")]
    Empty,
    /// Not a token of this model.
    #[error("token {token} at position {position} is outside the vocabulary of {vocab} tokens")]
    OutsideVocabulary {
        /// The token.
        token: u32,
        /// Its index in the prompt.
        position: usize,
        /// Size of the vocabulary.
        vocab: u32,
    },
    /// More tokens than the KV cache holds.
    #[error("the prompt has {tokens} tokens and the context length is {context}: {advice}")]
    TooLong {
        /// Tokens, those already in the cache included.
        tokens: usize,
        /// Length of the KV cache.
        context: u32,
        /// What to do.
        advice: String,
    },
    /// A token was to be chosen before anything was processed.
    #[error("there is no token to continue: process a prompt first")]
    NothingPending,
    /// The KV cache has no room for another token.
    #[error(
        "the context of {0} tokens is full: reset the session, or load it with a longer context"
    )]
    ContextFull(u32),
}

/// A loaded artifact with one KV cache.
pub struct Session {
    pub(crate) plan: Plan,
    layout: Layout,
    device: Box<dyn LoadedPlan>,
    description: String,
    /// Values of the plan's symbols, for the next step.
    symbols: Vec<i64>,
    /// Tokens in the KV cache.
    length: u32,
    /// Whether logits of the last token in the cache are there.
    predicted: bool,
    /// The token that was chosen last and is not in the cache yet.
    pending: Option<u32>,
    /// Decode steps that are queued after the one whose token is `pending`.
    ahead: u32,
    /// The device's own token and position are not those of `pending`.
    inputs_stale: bool,
    /// The device's logits are not those of the last token in the cache.
    logits_stale: bool,
    /// Words on their way to the device; room for a chunk.
    staging: Vec<u32>,
    /// What was measured, while something is.
    times: Option<(Detail, Vec<StepTimes>)>,
}

/// What [`Session::measure`] measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Programs as they are run: on a GPU, decode steps as one graph.
    Programs,
    /// Each launch by itself.
    Launches,
}

/// What one run of a program took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTimes {
    /// Index of the program.
    pub program: usize,
    /// Values of the plan's symbols.
    pub symbols: Vec<i64>,
    /// Seconds, of the whole or of each launch.
    pub seconds: Vec<f64>,
}

impl Session {
    /// Checks and loads an artifact, and allocates everything.
    pub fn load(artifact: &Artifact, options: LoadOptions) -> Result<Session, Error> {
        Session::load_with_progress(artifact, options, &mut |_| {})
    }

    /// As [`Session::load`]; `progress` is told how far it is, on a device that takes its time.
    pub fn load_with_progress(
        artifact: &Artifact,
        options: LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Session, Error> {
        let device = options.device.open(options.threads)?;
        Session::load_on(&*device, artifact, options.context, progress)
    }

    /// As [`Session::load`], on a device of any kind; `context` is the length of the KV cache.
    pub fn load_on(
        device: &dyn Device,
        artifact: &Artifact,
        context: Option<u32>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Session, Error> {
        let plan = device.choose_plan(artifact)?;
        let layout = plan.layout(context.unwrap_or(plan.model.max_context))?;
        let loaded =
            device.load(LoadRequest { artifact, plan: &plan, layout: &layout, progress })?;
        let mut symbols: Vec<i64> = plan.symbols.iter().map(|symbol| symbol.min).collect();
        symbols[plan.decode_loop.context] = i64::from(layout.context);
        let chunk = plan.model.prefill_chunk as usize;
        let mut session = Session {
            device: loaded,
            description: device.describe(),
            symbols,
            length: 0,
            predicted: false,
            pending: None,
            ahead: 0,
            inputs_stale: false,
            logits_stale: false,
            staging: Vec::with_capacity(chunk.max(SamplingParams::BYTES / 4)),
            times: None,
            layout,
            plan,
        };
        session.set_sampling(&SamplingParams::GREEDY)?;
        Ok(session)
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The device, for people.
    pub fn device(&self) -> &str {
        &self.description
    }

    /// What whoever loaded it should know: that it runs in another way than it was compiled to.
    pub fn notice(&self) -> Option<&str> {
        self.device.notice()
    }

    /// Workers that share each launch.
    pub fn workers(&self) -> usize {
        self.device.workers()
    }

    /// Length of the KV cache.
    pub fn context(&self) -> u32 {
        self.layout.context
    }

    /// Tokens in the KV cache.
    pub fn cached_tokens(&self) -> u32 {
        self.length
    }

    /// All memory of the session by its plan, weights included; it takes no more at any time.
    pub fn peak_bytes(&self) -> u64 {
        self.layout.peak_bytes(self.workers() as u64)
    }

    /// All memory that was allocated, or mapped for weights: the same number.
    pub fn allocated_bytes(&self) -> u64 {
        self.device.allocated_bytes()
    }

    /// Sets how tokens are chosen from now on; arg-max until then.
    pub fn set_sampling(&mut self, sampling: &SamplingParams) -> Result<(), Error> {
        check_sampling(sampling)?;
        self.forget_ahead();
        let bytes = sampling.to_bytes();
        let words = bytes.chunks_exact(4);
        self.staging.clear();
        self.staging
            .extend(words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
        self.device.write(self.plan.decode_loop.sampling, 0, &self.staging)?;
        Ok(())
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.forget_ahead();
        self.length = 0;
        self.predicted = false;
        self.pending = None;
    }

    /// Processes `tokens` after those in the KV cache. A token that was chosen before and not yet
    /// processed is dropped: if it belongs to the text, it is the first of `tokens`.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.check_prompt(tokens)?;
        self.forget_ahead();
        self.pending = None;
        let chunk = self.plan.model.prefill_chunk as usize;
        for chunk in tokens.chunks(chunk) {
            self.prefill_chunk(chunk)?;
        }
        Ok(())
    }

    /// Chooses the next token from the logits of the last one. It is not in the KV cache yet.
    pub fn sample(&mut self) -> Result<u32, Error> {
        if !self.predicted {
            return Err(PromptError::NothingPending.into());
        }
        self.restore_logits()?;
        if self.pending.is_some() {
            // Choosing it moved the device's position on.
            self.device.write(self.plan.decode_loop.positions, 0, &[self.length - 1])?;
            self.device.write(self.plan.decode_loop.last, 0, &[0])?;
        }
        self.set_step(1, self.length);
        self.run_program(self.plan.decode_loop.sample)?;
        self.inputs_stale = false;
        self.chosen()
    }

    /// Processes the token that was chosen last, and chooses the next.
    pub fn decode_one(&mut self) -> Result<u32, Error> {
        self.decode_ahead(1)
    }

    /// As [`Session::decode_one`], with the promise that `wanted` tokens, this one included, will
    /// most likely be decoded without anything between: a device may begin with the next ones.
    /// That changes no result, but asking for logits in between then costs a step.
    pub fn decode_ahead(&mut self, wanted: usize) -> Result<u32, Error> {
        let Some(pending) = self.pending else {
            return Err(PromptError::NothingPending.into());
        };
        if self.length >= self.layout.context {
            return Err(PromptError::ContextFull(self.layout.context).into());
        }
        if self.inputs_stale {
            self.restore_inputs(self.length, pending)?;
        }
        let room = self.layout.context - self.length;
        let queued = self.device.lookahead().min(wanted).max(1);
        let queued = u32::try_from(queued).unwrap_or(u32::MAX).min(room);
        while self.ahead < queued {
            self.set_step(1, self.length + self.ahead + 1);
            self.run_program(self.plan.decode_loop.decode)?;
            self.ahead += 1;
        }
        self.ahead -= 1;
        self.length += 1;
        self.logits_stale = self.ahead > 0;
        self.chosen()
    }

    /// Logits that the last token was chosen from, or that the next will be.
    pub fn logits(&mut self) -> Result<&[f32], Error> {
        if !self.predicted {
            return Err(PromptError::NothingPending.into());
        }
        self.restore_logits()?;
        let vocab = self.plan.model.vocab as usize;
        Ok(self.device.read_f32(self.plan.decode_loop.logits, 0..vocab)?)
    }

    /// Steps that were queued ahead count for nothing from now on.
    fn forget_ahead(&mut self) {
        if self.ahead > 0 {
            self.ahead = 0;
            self.inputs_stale = true;
            self.logits_stale = true;
        }
    }

    /// Brings back the logits of the last token in the cache, if steps after it have come by:
    /// processes it once more, which gives the same, bit for bit.
    fn restore_logits(&mut self) -> Result<(), Error> {
        self.forget_ahead();
        if !self.logits_stale {
            return Ok(());
        }
        // There is such a token: only decode steps make logits stale, and each adds one.
        let position = self.length - 1;
        let at = position as usize;
        let token = self.device.read(self.plan.decode_loop.history, at..at + 1)?;
        let token = token.first().copied().unwrap_or_default();
        self.restore_inputs(position, token)?;
        self.set_step(1, self.length);
        self.run_program(self.plan.decode_loop.decode)?;
        self.logits_stale = false;
        // Sampling may have changed since the next token was chosen.
        self.inputs_stale = true;
        Ok(())
    }

    /// Tells the device which token the next decode step processes, and where.
    fn restore_inputs(&mut self, position: u32, token: u32) -> Result<(), Error> {
        let walk = &self.plan.decode_loop;
        self.device.write(walk.tokens, 0, &[token])?;
        self.device.write(walk.positions, 0, &[position])?;
        self.device.write(walk.last, 0, &[0])?;
        self.device.write(walk.history, position as usize, &[token])?;
        self.inputs_stale = false;
        Ok(())
    }

    /// Fails unless `tokens` can be processed now.
    pub(crate) fn check_prompt(&self, tokens: &[u32]) -> Result<(), PromptError> {
        if tokens.is_empty() {
            return Err(PromptError::Empty);
        }
        let vocab = self.plan.model.vocab;
        if let Some(position) = tokens.iter().position(|&token| token >= vocab) {
            let token = tokens[position];
            return Err(PromptError::OutsideVocabulary { token, position, vocab });
        }
        let (context, max) = (self.layout.context, self.plan.model.max_context);
        let count = tokens.len().saturating_add(self.length as usize);
        if count > context as usize {
            let advice = if context < max {
                format!("shorten it, or load the model with a context of up to {max}")
            } else {
                "shorten it, or compile the model with a larger `--max-context`".to_string()
            };
            return Err(PromptError::TooLong { tokens: count, context, advice });
        }
        Ok(())
    }

    /// Processes tokens that fit into one step.
    fn prefill_chunk(&mut self, tokens: &[u32]) -> Result<(), Error> {
        let walk = &self.plan.decode_loop;
        // At most a prefill chunk, and no more than the context: both fit in 32 bits.
        let count = tokens.len() as u32;
        self.device.write(walk.tokens, 0, tokens)?;
        self.staging.clear();
        self.staging.extend(self.length..self.length + count);
        self.device.write(walk.positions, 0, &self.staging)?;
        self.device.write(walk.last, 0, &[count - 1])?;
        self.device.write(walk.history, self.length as usize, tokens)?;
        self.set_step(count, self.length + count);
        // Until the step is done, the logits are neither the old nor the new ones.
        self.predicted = false;
        self.run_program(self.plan.decode_loop.prefill)?;
        self.length += count;
        self.predicted = true;
        self.logits_stale = false;
        Ok(())
    }

    /// Runs a program with the symbols of this step, and measures it where that is asked for.
    fn run_program(&mut self, program: usize) -> Result<(), Error> {
        let Some((detail, times)) = &mut self.times else {
            return Ok(self.device.run(program, &self.symbols)?);
        };
        let seconds = match detail {
            Detail::Programs => vec![self.device.time_program(program, &self.symbols)?],
            Detail::Launches => {
                let mut seconds = vec![0.0; self.plan.programs[program].launches.len()];
                self.device.time_launches(program, &self.symbols, &mut seconds)?;
                seconds
            }
        };
        times.push(StepTimes { program, symbols: self.symbols.clone(), seconds });
        Ok(())
    }

    /// Forgets all tokens, processes a prompt and decodes `steps` tokens after it, one step at a time;
    /// gives what each run of a program took where it ran. Allocates, unlike everything else here.
    pub fn measure(
        &mut self,
        prompt: &[u32],
        steps: u32,
        detail: Detail,
    ) -> Result<Vec<StepTimes>, Error> {
        self.reset();
        self.times = Some((detail, vec![]));
        let run = |session: &mut Session| {
            session.prefill(prompt)?;
            session.sample()?;
            (0..steps).try_for_each(|_| session.decode_one().map(|_| ()))
        };
        let done = run(self);
        let times = self.times.take().map(|(_, times)| times).unwrap_or_default();
        done.map(|()| times)
    }

    /// Whether the device is no hardware, so that times mean nothing.
    pub fn is_emulated(&self) -> bool {
        self.description.contains(EMULATED)
    }

    /// Sets the symbols of a step of `tokens` tokens, after which `length` are in the cache.
    fn set_step(&mut self, tokens: u32, length: u32) {
        let walk = &self.plan.decode_loop;
        self.symbols[walk.step_tokens] = i64::from(tokens);
        self.symbols[walk.cache_length] = i64::from(length);
    }

    /// Reads the token that the device has just chosen.
    fn chosen(&mut self) -> Result<u32, Error> {
        let position = self.length as usize;
        let words = self.device.read(self.plan.decode_loop.history, position..position + 1)?;
        let token = words.first().copied().unwrap_or_default();
        self.pending = Some(token);
        Ok(token)
    }
}
