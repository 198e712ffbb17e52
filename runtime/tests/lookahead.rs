//! The session on a device that works behind the host: steps are queued ahead, as many as are
//! wanted and no more, and nothing that a caller sees depends on it.

mod toy;

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};
use toy::{CHUNK, CONTEXT, Toy, VOCAB, continuation, prompt};
use waveloom_plan::{Artifact, BufferId, DecodeLoop, Plan, Symbols};
use waveloom_runtime::{
    Device, DeviceError, FinishReason, GenerateOptions, LoadRequest, LoadedPlan, SamplingParams,
    Session,
};

/// What the device was asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    /// Decode steps that were queued.
    decodes: usize,
    /// Most of them that were queued and not done at a time.
    most_ahead: usize,
    /// Times that the host waited for all that was queued.
    waits: usize,
}

/// The toy model, computed when somebody reads.
struct Lazy {
    lookahead: usize,
    counts: Arc<Mutex<Counts>>,
}

impl Device for Lazy {
    fn describe(&self) -> String {
        "a lazy device".into()
    }

    fn choose_plan(&self, artifact: &Artifact) -> Result<Plan, DeviceError> {
        Ok(artifact.plan("cpu")?)
    }

    fn load(&self, request: LoadRequest<'_>) -> Result<Box<dyn LoadedPlan>, DeviceError> {
        let layout = request.layout;
        let buffers =
            layout.buffers.iter().map(|buffer| vec![0; buffer.bytes as usize / 4]).collect();
        Ok(Box::new(LazyPlan {
            walk: request.plan.decode_loop.clone(),
            lookahead: self.lookahead,
            counts: self.counts.clone(),
            cache: vec![0; layout.context as usize],
            buffers,
            queue: VecDeque::new(),
        }))
    }
}

enum Task {
    Write(BufferId, usize, Vec<u32>),
    /// Program, T, S.
    Run(usize, usize, usize),
}

struct LazyPlan {
    walk: DecodeLoop,
    lookahead: usize,
    counts: Arc<Mutex<Counts>>,
    /// Tokens by position.
    cache: Vec<u32>,
    buffers: Vec<Vec<u32>>,
    queue: VecDeque<Task>,
}

impl LazyPlan {
    /// Does what is first in the queue.
    fn step(&mut self) {
        match self.queue.pop_front().unwrap() {
            Task::Write(buffer, first, words) => {
                self.buffers[buffer][first..first + words.len()].copy_from_slice(&words);
            }
            Task::Run(program, count, length) => {
                if program != self.walk.sample {
                    self.predict(count, length);
                }
                if program != self.walk.prefill {
                    self.sample();
                }
            }
        }
    }

    fn predict(&mut self, count: usize, length: usize) {
        for i in 0..count {
            let position = self.buffers[self.walk.positions][i] as usize;
            assert!(position < length);
            self.cache[position] = self.buffers[self.walk.tokens][i];
        }
        let last = self.buffers[self.walk.last][0] as usize;
        let end = self.buffers[self.walk.positions][last] as usize + 1;
        let logits = toy::logits(&self.cache[..end], 1);
        let bits = logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        self.buffers[self.walk.logits].copy_from_slice(&bits);
    }

    fn sample(&mut self) {
        let logits = self.buffers[self.walk.logits].iter().map(|bits| f32::from_bits(*bits));
        let best = logits.zip(0u32..).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1;
        let sampling = &self.buffers[self.walk.sampling];
        let drawn = f32::from_bits(sampling[0]) > 0.0;
        let token = if drawn { (best + sampling[4]) % VOCAB } else { best };
        let last = self.buffers[self.walk.last][0] as usize;
        let position = self.buffers[self.walk.positions][last] + 1;
        self.buffers[self.walk.tokens][0] = token;
        self.buffers[self.walk.positions][0] = position;
        self.buffers[self.walk.last][0] = 0;
        self.buffers[self.walk.history][position as usize] = token;
    }

    /// Whether a word of the history will be written yet.
    fn awaited(&self, word: usize) -> bool {
        self.queue.iter().any(|task| match task {
            Task::Write(buffer, first, words) => {
                *buffer == self.walk.history && (*first..first + words.len()).contains(&word)
            }
            Task::Run(program, _, length) => *program != self.walk.prefill && *length == word,
        })
    }
}

impl LoadedPlan for LazyPlan {
    fn allocated_bytes(&self) -> u64 {
        0
    }

    fn workers(&self) -> usize {
        1
    }

    fn lookahead(&self) -> usize {
        self.lookahead
    }

    fn run(&mut self, program: usize, symbols: &Symbols) -> Result<(), DeviceError> {
        let value = |symbol: usize| symbols[symbol] as usize;
        let (count, length) = (value(self.walk.step_tokens), value(self.walk.cache_length));
        self.queue.push_back(Task::Run(program, count, length));
        let is_decode =
            |task: &&Task| matches!(task, Task::Run(program, ..) if *program == self.walk.decode);
        let ahead = self.queue.iter().filter(is_decode).count();
        let mut counts = self.counts.lock().unwrap();
        counts.decodes += usize::from(program == self.walk.decode);
        counts.most_ahead = counts.most_ahead.max(ahead);
        Ok(())
    }

    fn write(&mut self, buffer: BufferId, first: usize, words: &[u32]) -> Result<(), DeviceError> {
        self.queue.push_back(Task::Write(buffer, first, words.to_vec()));
        Ok(())
    }

    fn read(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[u32], DeviceError> {
        if buffer == self.walk.history {
            while words.clone().any(|word| self.awaited(word)) {
                self.step();
            }
        } else {
            self.counts.lock().unwrap().waits += 1;
            while !self.queue.is_empty() {
                self.step();
            }
        }
        Ok(&self.buffers[buffer][words])
    }

    fn read_f32(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[f32], DeviceError> {
        let bits = self.read(buffer, words)?;
        // A test may leak what a device keeps.
        Ok(Vec::leak(bits.iter().map(|bits| f32::from_bits(*bits)).collect()))
    }

    // A session asks for none of these unless it is told to.

    fn run_launch(&mut self, _: usize, _: usize, _: &Symbols) -> Result<(), DeviceError> {
        panic!("a program is run as a whole")
    }

    fn time_program(&mut self, _: usize, _: &Symbols) -> Result<f64, DeviceError> {
        panic!("nobody asked for times")
    }

    fn time_launches(&mut self, _: usize, _: &Symbols, _: &mut [f64]) -> Result<(), DeviceError> {
        panic!("nobody asked for times")
    }

    fn read_bytes(&mut self, _: BufferId, _: u64, _: &mut [u8]) -> Result<(), DeviceError> {
        panic!("words are read, not bytes")
    }

    fn write_bytes(&mut self, _: BufferId, _: u64, _: &[u8]) -> Result<(), DeviceError> {
        panic!("words are written, not bytes")
    }
}

struct Scene {
    session: Session,
    counts: Arc<Mutex<Counts>>,
}

impl Scene {
    fn new(lookahead: usize, context: u32) -> Scene {
        Scene::with_plan(lookahead, context, |_| {})
    }

    fn with_plan(lookahead: usize, context: u32, change: impl FnOnce(&mut Plan)) -> Scene {
        let mut plan = toy::plan();
        change(&mut plan);
        let folder = tempfile::tempdir().unwrap();
        let toy = Toy::write(folder, &[plan], b"no code", &toy::weights(1));
        let counts = Arc::new(Mutex::new(Counts::default()));
        let device = Lazy { lookahead, counts: counts.clone() };
        let session = Session::load_on(&device, &toy.artifact(), Some(context), &mut |_| {});
        Scene { session: session.unwrap(), counts }
    }

    /// What happened since the last time.
    fn counts(&self) -> Counts {
        std::mem::take(&mut self.counts.lock().unwrap())
    }

    fn generate(&mut self, prompt: &[u32], options: &GenerateOptions) -> (FinishReason, Vec<u32>) {
        let mut tokens = vec![];
        let result = self.session.generate(prompt, options, &mut |event| {
            if options.logits {
                let text = [prompt, &tokens].concat();
                assert_eq!(event.logits, toy::logits(&text, 1));
            } else {
                assert!(event.logits.is_empty());
            }
            tokens.push(event.token);
            ControlFlow::Continue(())
        });
        (result.unwrap().finish_reason, tokens)
    }
}

fn options(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens, ..GenerateOptions::default() }
}

#[test]
fn steps_are_queued_ahead_and_none_too_many() {
    for lookahead in [1, 2, 4, 100] {
        let mut scene = Scene::new(lookahead, CONTEXT);
        for count in [1, 2, 3, 4, 5, 9] {
            let start = prompt(CHUNK + 3);
            let found = scene.generate(&start, &options(count));
            assert_eq!(found, (FinishReason::Length, continuation(&start, count, 1)));
            let counts = scene.counts();
            assert_eq!(counts.decodes, count - 1, "the first token comes from the prompt");
            assert_eq!(counts.most_ahead, lookahead.min(count - 1));
            assert_eq!(counts.waits, 0);
        }
    }
}

#[test]
fn a_full_context_bounds_the_queue() {
    let mut scene = Scene::new(8, 20);
    let start = prompt(15);
    let found = scene.generate(&start, &options(100));
    assert_eq!(found, (FinishReason::ContextFull, continuation(&start, 6, 1)));
    assert_eq!(scene.counts(), Counts { decodes: 5, most_ahead: 5, waits: 0 });
}

#[test]
fn what_was_queued_beyond_a_stop_is_forgotten() {
    let start = prompt(5);
    let expected = continuation(&start, 12, 1);
    let stop = expected[3];
    let at = expected.iter().position(|token| *token == stop).unwrap();
    let mut scene = Scene::with_plan(4, CONTEXT, |plan| plan.model.stop_tokens = vec![stop]);
    let found = scene.generate(&start, &options(12));
    assert_eq!(found, (FinishReason::Stop, expected[..=at].to_vec()));
    assert!(scene.counts().decodes > at, "something was queued beyond");

    // A further turn continues behind the stop token, not behind what was queued.
    let turn = [stop, 3, 1, 4];
    let mut more = vec![];
    scene
        .session
        .continue_with(&turn, &options(3), &mut |event| {
            more.push(event.token);
            ControlFlow::Break(())
        })
        .unwrap();
    let text = [&start[..], &expected[..at], &turn].concat();
    assert_eq!(more, continuation(&text, 1, 1));
    assert_eq!(scene.session.cached_tokens() as usize, text.len());
    // And a new conversation begins anew.
    let ignoring = GenerateOptions { ignore_eos: true, ..options(12) };
    assert_eq!(scene.generate(&start, &ignoring), (FinishReason::Length, expected));
}

#[test]
fn logits_are_those_of_the_token_at_hand() {
    let mut scene = Scene::new(4, CONTEXT);
    let start = prompt(6);
    let asking = GenerateOptions { logits: true, ..options(9) };
    assert_eq!(scene.generate(&start, &asking), (FinishReason::Length, continuation(&start, 9, 1)));
    assert_eq!(scene.counts(), Counts { decodes: 8, most_ahead: 1, waits: 9 });

    // Asked for in between, with steps queued: one step is done again, and those are forgotten.
    scene.session.reset();
    scene.session.prefill(&start).unwrap();
    let mut tokens = vec![scene.session.sample().unwrap()];
    tokens.push(scene.session.decode_ahead(9).unwrap());
    let text = [&start[..], &tokens[..1]].concat();
    for _ in 0..2 {
        assert_eq!(scene.session.logits().unwrap(), toy::logits(&text, 1));
    }
    assert_eq!(scene.counts().decodes, 5);
    tokens.extend((0..5).map(|_| scene.session.decode_one().unwrap()));
    assert_eq!(tokens, continuation(&start, 7, 1));
    assert_eq!(scene.counts().decodes, 5);
}

#[test]
fn another_way_to_sample_counts_from_the_next_token_on() {
    let mut scene = Scene::new(4, CONTEXT);
    let start = prompt(6);
    let sampling = SamplingParams { temperature: 1.0, seed: 5, ..SamplingParams::GREEDY };
    let next = |text: &[u32], moved: u32| (toy::next(text, 1) + moved) % VOCAB;
    scene.session.prefill(&start).unwrap();
    let mut text = start.clone();
    text.push(scene.session.sample().unwrap());
    for (step, moved) in [0, 0, 5, 5, 5, 0, 0].into_iter().enumerate() {
        match step {
            2 => scene.session.set_sampling(&sampling).unwrap(),
            5 => scene.session.set_sampling(&SamplingParams::GREEDY).unwrap(),
            _ => {}
        }
        let token = scene.session.decode_ahead(10).unwrap();
        assert_eq!(token, next(&text, moved), "step {step}");
        text.push(token);
    }
    // The last token chosen once more, otherwise, with others on their way.
    scene.session.set_sampling(&sampling).unwrap();
    let before = text[..text.len() - 1].to_vec();
    let again = scene.session.sample().unwrap();
    assert_eq!(again, next(&before, 5));
    let text = [before, vec![again]].concat();
    assert_eq!(scene.session.decode_one().unwrap(), next(&text, 5));
}
