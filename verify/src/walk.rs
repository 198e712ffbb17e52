//! The programs of a plan, launch by launch, as a generation runs them.

use crate::check::{Checked, Machine};
use crate::report::{Failure, KernelReport, Report, Worst};
use crate::together::{Whole, persistent};
use crate::{Reproducer, Subject, VerifyError};
use waveloom_plan::SamplingParams;

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Prompt tokens.
    pub tokens: u32,
    /// Decode steps after it; the second of them, and every other, draws with all filters and
    /// penalties on, the others take the most probable token.
    pub steps: u32,
    /// Seed of the prompt, and of draws.
    pub seed: u64,
    /// Most launches of a kernel that are checked in a run of a program; the others only run.
    pub launches_per_kernel: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options { tokens: 20, steps: 4, seed: 0, launches_per_kernel: None }
    }
}

/// Receives what is under way, for people, and failing launches as they can be kept.
pub trait Watcher {
    /// A program begins, and so many launches of it are done of so many.
    fn progress(&mut self, program: &str, done: usize, of: usize);

    /// Whether [`Watcher::keep`] wants reproducers.
    fn wants_reproducers(&self) -> bool;

    /// Keeps a reproducer of a failure; gives the place where it is.
    fn keep(&mut self, failure: &Failure, reproducer: &Reproducer) -> Option<String>;
}

/// Runs a prompt and some decode steps and checks every launch. The machine's symbols are those at
/// load: its context is known.
pub fn verify(
    subject: &Subject<'_>,
    machine: &mut Machine<'_>,
    options: &Options,
    device: String,
    watcher: &mut dyn Watcher,
) -> Result<Report, VerifyError> {
    let plan = subject.plan;
    let context = machine.symbols[plan.decode_loop.context];
    let needed = u64::from(options.tokens) + u64::from(options.steps);
    if options.tokens == 0 || needed > context as u64 {
        let (tokens, steps, context) = (options.tokens, options.steps, context as u32);
        return Err(VerifyError::Context { tokens, steps, needed, context });
    }
    let counted = subject.origins.iter().map(Vec::len);
    if !counted.eq(plan.programs.iter().map(|program| program.launches.len())) {
        return Err(VerifyError::NotOfModule("it has other launches"));
    }
    let mut walk = Walk::new(subject, machine, options, watcher);
    walk.prompt()?;
    for step in 0..options.steps {
        walk.sampling(step % 2 == 1)?;
        walk.set_step(1, options.tokens + step + 1);
        walk.program(plan.decode_loop.decode)?;
    }
    Ok(walk.report(device))
}

impl KernelReport {
    fn new(kernel: &waveloom_plan::Kernel) -> KernelReport {
        KernelReport {
            name: kernel.name.clone(),
            summary: kernel.summary.clone(),
            launches: 0,
            wrong: 0,
            elements: 0,
            absolute: 0.0,
            relative: 0.0,
            worst: None,
        }
    }
}

struct Walk<'w, 'm, 's> {
    subject: &'w Subject<'s>,
    machine: &'w mut Machine<'m>,
    options: &'w Options,
    watcher: &'w mut dyn Watcher,
    kernels: Vec<KernelReport>,
    failures: Vec<Failure>,
    /// How often each program has run.
    runs: Vec<usize>,
}

impl<'w, 'm, 's> Walk<'w, 'm, 's> {
    fn new(
        subject: &'w Subject<'s>,
        machine: &'w mut Machine<'m>,
        options: &'w Options,
        watcher: &'w mut dyn Watcher,
    ) -> Walk<'w, 'm, 's> {
        let kernels = subject.plan.kernels.iter().map(KernelReport::new).collect();
        let runs = vec![0; subject.plan.programs.len()];
        Walk { subject, machine, options, watcher, kernels, failures: vec![], runs }
    }

    fn report(self, device: String) -> Report {
        let plan = self.subject.plan;
        Report {
            model: plan.model.name.clone(),
            target: plan.target.clone(),
            device,
            tokens: self.options.tokens,
            steps: self.options.steps,
            seed: self.options.seed,
            right_passes: None,
            passed: self.failures.is_empty(),
            kernels: self.kernels,
            failures: self.failures,
        }
    }

    /// Prefill, chunk by chunk, and the first token.
    fn prompt(&mut self) -> Result<(), VerifyError> {
        let (plan, walk) = (self.subject.plan, self.subject.plan.decode_loop.clone());
        self.sampling(false)?;
        let tokens = prompt(self.options, plan.model.vocab);
        let mut length = 0;
        for chunk in tokens.chunks(plan.model.prefill_chunk as usize) {
            let count = chunk.len() as u32;
            let loaded = &mut *self.machine.loaded;
            loaded.write(walk.tokens, 0, chunk)?;
            loaded.write(walk.positions, 0, &(length..length + count).collect::<Vec<_>>())?;
            loaded.write(walk.last, 0, &[count - 1])?;
            loaded.write(walk.history, length as usize, chunk)?;
            length += count;
            self.set_step(count, length);
            self.program(walk.prefill)?;
        }
        self.set_step(1, length);
        self.program(walk.sample)
    }

    fn set_step(&mut self, tokens: u32, length: u32) {
        let walk = &self.subject.plan.decode_loop;
        self.machine.symbols[walk.step_tokens] = tokens.into();
        self.machine.symbols[walk.cache_length] = length.into();
    }

    /// How tokens are chosen from now on.
    fn sampling(&mut self, draws: bool) -> Result<(), VerifyError> {
        let drawn = SamplingParams {
            temperature: 0.9,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.01,
            seed: self.options.seed,
            repetition_penalty: 1.1,
            presence_penalty: 0.1,
            frequency_penalty: 0.05,
            penalty_last_n: 64,
        };
        let params = if draws { drawn } else { SamplingParams::GREEDY };
        let words: Vec<u32> =
            params.to_bytes().as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let buffer = self.subject.plan.decode_loop.sampling;
        Ok(self.machine.loaded.write(buffer, 0, &words)?)
    }

    /// Runs a program, and checks each of its launches.
    fn program(&mut self, program: usize) -> Result<(), VerifyError> {
        let plan = self.subject.plan;
        let whole = match persistent(self.subject, self.machine, program) {
            Some(step) => Some((step, Whole::run(self.machine, program)?)),
            None => None,
        };
        let launches = &plan.programs[program].launches;
        let mut checked = vec![0; plan.kernels.len()];
        for (index, launch) in launches.iter().enumerate() {
            let seen = &mut checked[launch.kernel];
            *seen += 1;
            let enough = self.options.launches_per_kernel.is_some_and(|most| *seen > most);
            // What writes no buffer leaves in scratch what the next launch reads there.
            if enough || launch.writes.is_empty() {
                self.machine.loaded.run_launch(program, index, &self.machine.symbols)?;
            } else {
                let checked = verify_launch(self.subject, self.machine, program, index)?;
                self.account(
                    plan.programs[program].launches[index].kernel,
                    program,
                    index,
                    checked,
                )?;
            }
            self.watcher.progress(&plan.programs[program].name, index + 1, launches.len());
        }
        if let Some((step, whole)) = whole {
            let checked = whole.compare(self.machine)?;
            self.account(step.kernel, program, 0, checked)?;
        }
        self.runs[program] += 1;
        Ok(())
    }

    /// Counts what `kernel` did; of a persistent step, all its launches.
    fn account(
        &mut self,
        kernel: usize,
        program: usize,
        launch: usize,
        checked: Checked,
    ) -> Result<(), VerifyError> {
        let plan = self.subject.plan;
        let chosen = plan.programs[program].launches[launch].kernel == kernel;
        let kernel = &mut self.kernels[kernel];
        let (name, step) = (&plan.programs[program].name, self.runs[program]);
        kernel.launches += 1;
        for result in &checked.results {
            kernel.elements += result.of;
            kernel.absolute = kernel.absolute.max(result.absolute);
            kernel.relative = kernel.relative.max(result.relative);
            let Some(element) = result.worst.first() else { continue };
            let known = kernel.worst.as_ref().map_or(-1.0, |worst| worst.element.share());
            if element.share() > known {
                kernel.worst = Some(Worst {
                    program: name.clone(),
                    step,
                    launch,
                    result: plan.buffers[result.buffer].name.clone(),
                    element: element.clone(),
                });
            }
        }
        let Some(wrong) = checked.failure() else { return Ok(()) };
        kernel.wrong += 1;
        if kernel.wrong > 1 {
            return Ok(());
        }
        let mut failure = Failure {
            kernel: kernel.name.clone(),
            op: match &checked.operation {
                Some(operation) => operation.op().mnemonic().into(),
                None if chosen => "sample".into(),
                None => "a step as one kernel".into(),
            },
            program: name.clone(),
            step,
            launch,
            result: plan.buffers[wrong.buffer].name.clone(),
            wrong: wrong.wrong,
            of: wrong.of,
            elements: wrong.worst.iter().filter(|e| e.is_wrong()).cloned().collect(),
            reproducer: None,
        };
        if self.watcher.wants_reproducers()
            && let Some(reproducer) = Reproducer::of(self.subject, self.machine, program, &checked)?
        {
            failure.reproducer = self.watcher.keep(&failure, &reproducer);
        }
        self.failures.push(failure);
        Ok(())
    }
}

/// Runs a reproducer on a plan that was made of [`Reproducer::schedule`].
pub fn verify_reproducer(
    subject: &Subject<'_>,
    machine: &mut Machine<'_>,
    reproducer: &Reproducer,
    device: String,
) -> Result<Report, VerifyError> {
    let program = reproducer.facts.program;
    let Some([Some(step), ..]) = subject.origins.get(program).map(Vec::as_slice) else {
        return Err(VerifyError::NotOneOp);
    };
    reproducer.load(machine, step)?;
    let options = Options { tokens: 0, steps: 0, seed: 0, launches_per_kernel: None };
    let mut unwatched = Unwatched;
    let mut walk = Walk::new(subject, machine, &options, &mut unwatched);
    let checked = verify_launch(subject, walk.machine, program, 0)?;
    walk.account(subject.plan.programs[program].launches[0].kernel, program, 0, checked)?;
    walk.kernels.retain(|kernel| kernel.launches > 0);
    Ok(walk.report(device))
}

/// Watches nothing.
pub struct Unwatched;

impl Watcher for Unwatched {
    fn progress(&mut self, _: &str, _: usize, _: usize) {}
    fn wants_reproducers(&self) -> bool {
        false
    }
    fn keep(&mut self, _: &Failure, _: &Reproducer) -> Option<String> {
        None
    }
}

/// Runs one launch with the machine's symbols, and checks it.
pub fn verify_launch(
    subject: &Subject<'_>,
    machine: &mut Machine<'_>,
    program: usize,
    launch: usize,
) -> Result<Checked, VerifyError> {
    match &subject.origins[program][launch] {
        Some(step) => machine.check(subject, program, launch, step),
        None => machine.check_sample(program, launch),
    }
}

/// Tokens that a seed makes: any of the vocabulary.
fn prompt(options: &Options, vocab: u32) -> Vec<u32> {
    let mut random = crate::drawn::Random::new(options.seed);
    (0..options.tokens).map(|_| (random.next() % u64::from(vocab.max(1))) as u32).collect()
}
