//! `selftest`: an artifact's own prompt, launch by launch on the target machine, against the digests
//! that the compiler left in it; then the same as it is run in a generation.
//!
//! Nothing here knows what is computed: the artifact says which launch leaves which value where, what
//! it is called, and how far it may be off.

use crate::device::{Device, DeviceError, LoadProgress, LoadRequest, LoadedPlan};
use crate::error::Error;
use crate::text::TextModel;
use half::f16;
use serde::Serialize;
use waveloom_plan::selftest::{Digest, Element, Place, Probe, TargetTest, View};
use waveloom_plan::{Artifact, Plan, SamplingParams, SelfTest};

/// Names of the two steps.
const STEPS: [&str; 2] = ["prefill", "decode"];

/// How a self-test went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SelfTestReport {
    /// Name of the model.
    pub model: String,
    /// The plan that ran.
    pub target: String,
    /// Where, for people.
    pub device: String,
    /// Tokens of the prompt.
    pub tokens: usize,
    /// Whether nothing was wrong.
    pub passed: bool,
    /// The first value that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Deviation>,
    /// What the tokenizer made of the prompt's text, where that is not the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenized: Option<Vec<u32>>,
    /// Launch by launch.
    pub steps: [StepReport; 2],
    /// As in a generation: all of a step at once, on a GPU as a graph or as one kernel.
    pub whole: [WholeReport; 2],
}

/// A step, launch by launch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// `prefill` or `decode`.
    pub program: String,
    /// Launches that ran.
    pub launches: usize,
    /// Values that were compared.
    pub values: usize,
    /// Of them, those that were wrong.
    pub wrong: usize,
    /// Layers with a wrong value, in order.
    pub wrong_layers: Vec<String>,
    /// The value that was closest to its tolerance, or furthest beyond it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closest: Option<Deviation>,
    /// The token that was chosen at its end.
    pub choice: ChoiceReport,
}

/// A value and how far it is off.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deviation {
    /// Its layer; empty where it is of none.
    pub layer: String,
    /// Its name.
    pub value: String,
    /// The program.
    pub program: String,
    /// Index of the launch that makes it, in the program.
    pub launch: usize,
    /// The launch's kernel.
    pub kernel: String,
    /// What that computes.
    pub summary: String,
    /// How far it is off, relative to its norm.
    pub deviation: f32,
    /// How far it may be.
    pub tolerance: f32,
}

impl Deviation {
    /// Deviation over tolerance.
    pub fn share(&self) -> f32 {
        self.deviation / self.tolerance.max(f32::MIN_POSITIVE)
    }
}

/// The choice of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChoiceReport {
    /// The token that was expected.
    pub expected: u32,
    /// The one that was chosen.
    pub found: u32,
    /// Whether a correct kernel can only choose the expected one.
    pub certain: bool,
}

impl ChoiceReport {
    /// Whether it is not the one that it must be.
    pub fn is_wrong(&self) -> bool {
        self.certain && self.expected != self.found
    }
}

/// A step as it is run in a generation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WholeReport {
    /// `prefill` or `decode`.
    pub program: String,
    /// How far the logits are off, relative to their norm.
    pub deviation: f32,
    /// How far they may be.
    pub tolerance: f32,
    /// The token that was chosen at its end.
    pub choice: ChoiceReport,
}

impl WholeReport {
    /// Whether it did not do what it must.
    pub fn is_wrong(&self) -> bool {
        self.choice.is_wrong() || self.deviation > self.tolerance
    }
}

/// Checks every section of an artifact, then runs its self-test on a device.
pub fn self_test(
    device: &dyn Device,
    artifact: &Artifact,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<SelfTestReport, Error> {
    artifact.verify_all()?;
    let test = artifact.self_test()?;
    let plan = device.choose_plan(artifact)?;
    let places = test.target(&plan)?;
    let layout = plan.layout(test.tokens.len() as u32)?;
    let request = LoadRequest { artifact, plan: &plan, layout: &layout, progress };
    let loaded = device.load(request)?;
    let mut run = Run::new(&plan, &test, places, loaded);
    let steps = [run.step(0)?, run.step(1)?];
    let whole = [run.whole(0)?, run.whole(1)?];
    let tokenized = tokenized(artifact, &test)?;
    let wrong = steps.iter().any(|step| step.wrong > 0 || step.choice.is_wrong());
    Ok(SelfTestReport {
        model: plan.model.name.clone(),
        target: plan.target.clone(),
        device: device.describe(),
        tokens: test.tokens.len(),
        passed: !wrong && tokenized.is_none() && !whole.iter().any(WholeReport::is_wrong),
        first: run.first.take(),
        tokenized,
        steps,
        whole,
    })
}

/// What the tokenizer makes of the prompt's text, if not the prompt.
fn tokenized(artifact: &Artifact, test: &SelfTest) -> Result<Option<Vec<u32>>, Error> {
    let Some(text) = &test.text else { return Ok(None) };
    let tokens = TextModel::load(artifact)?.encode_prompt(text)?;
    Ok((tokens != test.tokens).then_some(tokens))
}

/// A self-test under way.
struct Run<'a> {
    plan: &'a Plan,
    test: &'a SelfTest,
    places: &'a TargetTest,
    loaded: Box<dyn LoadedPlan>,
    symbols: Vec<i64>,
    first: Option<Deviation>,
}

impl<'a> Run<'a> {
    fn new(
        plan: &'a Plan,
        test: &'a SelfTest,
        places: &'a TargetTest,
        loaded: Box<dyn LoadedPlan>,
    ) -> Run<'a> {
        let mut symbols: Vec<i64> = plan.symbols.iter().map(|symbol| symbol.min).collect();
        symbols[plan.decode_loop.context] = test.tokens.len() as i64;
        Run { plan, test, places, loaded, symbols, first: None }
    }

    /// Index of a step's program.
    fn program(&self, step: usize) -> usize {
        let walk = &self.plan.decode_loop;
        if step == 0 { walk.prefill } else { walk.decode }
    }

    /// Puts a step's tokens where its program looks for them.
    fn prepare(&mut self, step: usize) -> Result<(), DeviceError> {
        let walk = &self.plan.decode_loop;
        let split = self.test.tokens.len() - 1;
        let (tokens, first) = match step {
            0 => (&self.test.tokens[..split], 0),
            _ => (&self.test.tokens[split..], split as u32),
        };
        let count = tokens.len() as u32;
        let words = SamplingParams::GREEDY.to_bytes();
        let words: Vec<u32> = words.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let positions: Vec<u32> = (first..first + count).collect();
        self.loaded.write(walk.sampling, 0, &words)?;
        self.loaded.write(walk.tokens, 0, tokens)?;
        self.loaded.write(walk.positions, 0, &positions)?;
        self.loaded.write(walk.last, 0, &[count - 1])?;
        self.loaded.write(walk.history, first as usize, tokens)?;
        self.symbols[walk.step_tokens] = count.into();
        self.symbols[walk.cache_length] = (first + count).into();
        Ok(())
    }

    /// The token after a step, whose program has run. Prefill does not choose it itself.
    fn choice(&mut self, step: usize) -> Result<ChoiceReport, DeviceError> {
        let walk = &self.plan.decode_loop;
        let position = self.test.tokens.len() - 1 + step;
        if step == 0 {
            self.symbols[walk.step_tokens] = 1;
            self.loaded.run(walk.sample, &self.symbols)?;
        }
        let found = self.loaded.read(walk.history, position..position + 1)?;
        let choice = self.test.choices[step];
        Ok(ChoiceReport {
            expected: choice.token,
            found: found.first().copied().unwrap_or_default(),
            certain: choice.is_certain(),
        })
    }

    /// A step, launch by launch.
    fn step(&mut self, step: usize) -> Result<StepReport, DeviceError> {
        let program = self.program(step);
        let launches = self.plan.programs[program].launches.len();
        let mut report = StepReport {
            program: STEPS[step].into(),
            launches,
            values: 0,
            wrong: 0,
            wrong_layers: vec![],
            closest: None,
            choice: ChoiceReport { expected: 0, found: 0, certain: false },
        };
        self.prepare(step)?;
        for launch in 0..launches {
            self.loaded.run_launch(program, launch, &self.symbols)?;
            let places = self.places.places[step].iter().filter(|place| place.launch == launch);
            for place in places {
                let deviation = self.compare(step, place)?;
                report.values += 1;
                self.account(&mut report, deviation);
            }
        }
        report.choice = self.choice(step)?;
        Ok(report)
    }

    fn account(&mut self, report: &mut StepReport, deviation: Deviation) {
        if deviation.deviation > deviation.tolerance {
            report.wrong += 1;
            if report.wrong_layers.last() != Some(&deviation.layer) {
                report.wrong_layers.push(deviation.layer.clone());
            }
            self.first.get_or_insert_with(|| deviation.clone());
        }
        let known = report.closest.as_ref().map_or(-1.0, Deviation::share);
        if deviation.share() > known {
            report.closest = Some(deviation);
        }
    }

    /// How far a value is off that a launch has just made.
    fn compare(&mut self, step: usize, place: &Place) -> Result<Deviation, DeviceError> {
        let Probe { layer, value, digests, width: _ } = &self.test.probes[place.probe];
        let view = &self.places.views[place.view];
        let mut bytes = vec![0; view.bytes() as usize];
        self.loaded.read_bytes(place.buffer, 0, &mut bytes)?;
        let found = Digest::of(elements(view, &bytes), self.test.seed, 0.0);
        let program = &self.plan.programs[self.program(step)];
        let kernel = &self.plan.kernels[program.launches[place.launch].kernel];
        Ok(Deviation {
            layer: layer.clone(),
            value: value.clone(),
            program: STEPS[step].into(),
            launch: place.launch,
            kernel: kernel.name.clone(),
            summary: kernel.summary.clone(),
            deviation: digests[step].deviation(&found),
            tolerance: digests[step].tolerance,
        })
    }

    /// A step as it is run in a generation.
    fn whole(&mut self, step: usize) -> Result<WholeReport, DeviceError> {
        self.prepare(step)?;
        self.loaded.run(self.program(step), &self.symbols)?;
        let walk = &self.plan.decode_loop;
        let logits = self.loaded.read_f32(walk.logits, 0..self.plan.model.vocab as usize)?;
        let logits = logits.iter().map(|x| f64::from(*x));
        let found = Digest::of(logits, self.test.seed, 0.0);
        let mut places = self.places.places[step].iter();
        let place = places.rfind(|place| place.buffer == walk.logits);
        let expected = place.map(|place| self.test.probes[place.probe].digests[step]);
        Ok(WholeReport {
            program: STEPS[step].into(),
            deviation: expected.map_or(0.0, |expected| expected.deviation(&found)),
            tolerance: expected.map_or(0.0, |expected| expected.tolerance),
            choice: self.choice(step)?,
        })
    }
}

/// The elements of a view of a buffer's first bytes.
fn elements<'b>(view: &'b View, bytes: &'b [u8]) -> impl Iterator<Item = f64> + 'b {
    let size = view.element.bytes() as usize;
    view.places().map(move |place| {
        let at = place as usize * size;
        match view.element {
            Element::F32 => {
                let bytes = bytes[at..].first_chunk().copied().unwrap_or_default();
                f32::from_le_bytes(bytes).into()
            }
            Element::F16 => {
                let bytes = bytes[at..].first_chunk().copied().unwrap_or_default();
                f16::from_le_bytes(bytes).to_f64()
            }
        }
    })
}
