//! Scenes of the toy model on a GPU, whichever: each is played in a process of its own, since the
//! libraries that drive GPUs look at their environment once.

use super::gpu::gpu_plan;
use super::launches;
use super::{CHUNK, CONTEXT, Toy, VOCAB, continuation, prompt};
use std::env;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use waveloom_plan::Plan;
use waveloom_runtime::{
    DeviceKind, FinishReason, GenerateOptions, LoadOptions, SamplingParams, Session, devices,
};

/// The variable that names the scene to play.
pub const SCENE: &str = "WAVELOOM_TEST_SCENE";

/// Plays a scene of this test binary, whose test `scene` does as the environment says. Gives what
/// the scene says, a line each, and its standard error.
pub fn watch(scene: &str, variables: &[(&'static str, String)]) -> (String, String) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "scene", "--nocapture", "--test-threads=1"])
        .env(SCENE, scene)
        .envs(variables.iter().cloned())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{scene}: {out}\n{err}");
    let said = out.lines().filter_map(|line| line.split_once("> ").map(|(_, said)| said));
    (said.collect::<Vec<_>>().join("\n"), err)
}

/// What a scene has to say to its test.
pub fn say(what: impl std::fmt::Display) {
    println!("\n> {what}");
}

/// What [`devices`] says about devices of this kind.
pub fn listed(kind: &str) -> String {
    let mut devices = devices();
    devices.retain(|device| device.name.starts_with(kind));
    serde_json::to_string(&devices).unwrap()
}

/// The GPU of this process, and how it gets the toy kernels.
pub struct Stand {
    pub device: DeviceKind,
    pub architecture: String,
    pub code: fn(&Path, &str) -> Vec<u8>,
}

impl Stand {
    /// Plays a scene that is the same on every GPU.
    pub fn play(&self, scene: &str) {
        let toy = || self.toy(|_| {});
        let absent = |plan: &mut Plan| plan.kernels[1].name = "absent".into();
        match scene {
            "decode" => self.decode(),
            "slow" => self.slow(),
            "count" => self.count(|_| {}),
            "large" => self.large(),
            "synthetic" => self.synthetic(),
            "launches" => launches::launch_by_launch(&toy(), self.device),
            "times" => launches::times(&toy(), self.device),
            "no kernel" => say(self.load_error(&self.architecture, self.device, absent)),
            "damaged" => say(self.damaged()),
            "few weights" => say(self.few_weights()),
            "fault" => self.run_error(9, |plan| plan.programs[1].launches[2].kernel = 6),
            "fault in prefill" => self.run_error(9, fault_in_prefill),
            "fault, and no token asked for" => self.run_error(0, fault_in_prefill),
            "no token" => self.run_error(9, |plan| plan.programs[1].launches[3].kernel = 7),
            other => panic!("there is no scene {other}"),
        }
    }

    /// Why the toy model for an architecture, and for the CPU, does not load.
    pub fn load_error(
        &self,
        architecture: &str,
        device: DeviceKind,
        change: impl FnOnce(&mut Plan),
    ) -> String {
        let folder = tempfile::tempdir().unwrap();
        let code = (self.code)(folder.path(), architecture);
        let mut plan = gpu_plan(architecture);
        change(&mut plan);
        let plans = [plan, super::plan()];
        let toy = Toy::write(folder, &plans, &code, &super::weights(1));
        let options = LoadOptions { device, ..LoadOptions::default() };
        Session::load(&toy.artifact(), options).map(drop).unwrap_err().to_string()
    }

    /// Why the toy model does not load with this code.
    pub fn no_code(&self, code: &[u8]) -> String {
        let (folder, plan) = (tempfile::tempdir().unwrap(), gpu_plan(&self.architecture));
        self.told(&Toy::write(folder, &[plan], code, &super::weights(1)))
    }

    /// The toy model for this GPU, changed.
    pub fn toy(&self, change: impl FnOnce(&mut Plan)) -> Toy {
        self.toy_with(change, &super::weights(1))
    }

    fn toy_with(&self, change: impl FnOnce(&mut Plan), weights: &[u8]) -> Toy {
        let folder = tempfile::tempdir().unwrap();
        let code = (self.code)(folder.path(), &self.architecture);
        let mut plan = gpu_plan(&self.architecture);
        change(&mut plan);
        Toy::write(folder, &[plan], &code, weights)
    }

    /// This GPU and a context length.
    pub fn with(&self, context: Option<u32>) -> LoadOptions {
        LoadOptions { device: self.device, context, ..LoadOptions::default() }
    }

    /// Why an artifact does not load, without the place of its file.
    pub fn told(&self, toy: &Toy) -> String {
        let loaded = Session::load(&toy.artifact(), self.with(None)).map(drop);
        let error = loaded.unwrap_err().to_string();
        error.replace(&format!("{}/", toy.folder.path().display()), "")
    }

    fn decode(&self) {
        let toy = self.toy(|_| {});
        let mut pieces = vec![];
        let loaded =
            Session::load_with_progress(&toy.artifact(), self.with(None), &mut |progress| {
                pieces.push((progress.done, progress.total));
            });
        let mut session = loaded.unwrap();
        assert_eq!(pieces, [(256, 256)]);
        assert_eq!(session.allocated_bytes(), session.peak_bytes());
        assert!(session.device().ends_with(&self.device.to_string()), "{}", session.device());

        for length in [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            for count in [1, 2, 9] {
                let start = prompt(length);
                assert_eq!(
                    generate(&mut session, &start, &options(count)),
                    continuation(&start, count, 1)
                );
            }
        }
        let start = prompt(7);
        let asking = GenerateOptions { logits: true, ..options(6) };
        assert_eq!(generate(&mut session, &start, &asking), continuation(&start, 6, 1));
        stops(&mut session);
        steps(&mut session);

        // Another context length, moved to another thread; both plans are on the device meanwhile.
        let mut short = Session::load(&toy.artifact(), self.with(Some(20))).unwrap();
        let other = std::thread::spawn(move || {
            let start = prompt(12);
            let mut tokens = vec![];
            let result = short.generate(&start, &options(100), &mut |event| {
                tokens.push(event.token);
                ControlFlow::Continue(())
            });
            assert_eq!(result.unwrap().finish_reason, FinishReason::ContextFull);
            assert_eq!(tokens, continuation(&start, 9, 1));
        });
        let start = prompt(CONTEXT);
        assert_eq!(generate(&mut session, &start, &options(5)), continuation(&start, 1, 1));
        other.join().unwrap();
        say("done");
    }

    /// Generates with a changed plan; says what the runtime has to say of it.
    pub fn count(&self, change: impl FnOnce(&mut Plan)) {
        let toy = self.toy(change);
        let mut session = Session::load(&toy.artifact(), self.with(None)).unwrap();
        session.notice().into_iter().for_each(say);
        let start = prompt(CHUNK + 1);
        assert_eq!(generate(&mut session, &start, &options(30)), continuation(&start, 30, 1));
    }

    /// Weights of several pieces: the last are the model's; before, each word is its own index.
    fn large(&self) {
        let before = 64 << 20;
        let filling = (0..before as u32 / 4).flat_map(u32::to_le_bytes);
        let weights: Vec<u8> = filling.chain(super::weights(1)).collect();
        self.in_pieces(&self.toy_with(|plan| behind(plan, before), &weights));
    }

    /// Synthetic weights of several pieces.
    fn synthetic(&self) {
        let before = 64 << 20;
        let change = |plan: &mut Plan| {
            behind(plan, before);
            plan.synthetic = Some(super::synthetic(before as u64, 1));
        };
        self.in_pieces(&self.toy_with(change, &[]));
    }

    fn in_pieces(&self, toy: &Toy) {
        let (mut pieces, mut all) = (vec![], 0);
        let artifact = toy.artifact();
        let loaded = Session::load_with_progress(&artifact, self.with(None), &mut |progress| {
            pieces.push(progress.done);
            all = progress.total;
        });
        let mut session = loaded.unwrap();
        assert_eq!(session.allocated_bytes(), session.peak_bytes());
        let start = prompt(5);
        assert_eq!(generate(&mut session, &start, &options(6)), continuation(&start, 6, 1));
        say(format!("{pieces:?} of {all}"));
    }

    fn slow(&self) {
        let toy = self.toy(|plan| {
            plan.programs[0].launches[1].kernel = 8;
            plan.programs[1].launches[1].kernel = 9;
        });
        let mut session = Session::load(&toy.artifact(), self.with(None)).unwrap();
        stops(&mut session);
        steps(&mut session);
        many_inputs(&mut session);
        say("done");
    }

    /// Runs a toy model that fails, and says how; and how it fails after that.
    fn run_error(&self, count: usize, change: impl FnOnce(&mut Plan)) {
        let toy = self.toy(change);
        let mut session = Session::load(&toy.artifact(), self.with(None)).unwrap();
        for _ in 0..2 {
            let result =
                session.generate(&prompt(5), &options(count), &mut |_| ControlFlow::Continue(()));
            say(result.unwrap_err());
        }
        say(match Session::load(&toy.artifact(), self.with(None)) {
            Ok(_) => "another session loads",
            Err(_) => "nothing loads any more",
        });
    }

    /// Weights of which a bit is not what was written.
    fn damaged(&self) -> String {
        let toy = self.toy(|_| {});
        let mut bytes = std::fs::read(&toy.path).unwrap();
        *bytes.last_mut().unwrap() ^= 4;
        std::fs::write(&toy.path, bytes).unwrap();
        self.told(&toy)
    }

    fn few_weights(&self) -> String {
        self.told(&self.toy(|plan| plan.segments.constants = waveloom_plan::Expr::from(1 << 20)))
    }
}

/// Puts the weights behind so many bytes.
fn behind(plan: &mut Plan, before: i64) {
    plan.segments.constants = (before + 256).into();
    plan.buffers[0].offset = before.into();
}

fn fault_in_prefill(plan: &mut Plan) {
    plan.programs[0].launches[2] = plan.programs[1].launches[2].clone();
    plan.programs[0].launches[2].kernel = 6;
}

fn options(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens, ..GenerateOptions::default() }
}

fn generate(session: &mut Session, prompt: &[u32], options: &GenerateOptions) -> Vec<u32> {
    let mut tokens = vec![];
    session
        .generate(prompt, options, &mut |event| {
            if options.logits {
                let text = [prompt, &tokens].concat();
                assert_eq!(event.logits, super::logits(&text, 1));
            }
            tokens.push(event.token);
            ControlFlow::Continue(())
        })
        .unwrap();
    tokens
}

/// Steps that were queued beyond the end of a generation disturb nothing.
fn stops(session: &mut Session) {
    let start = prompt(4);
    let expected = continuation(&start, 12, 1);
    for stop in 0..5 {
        let stopping = GenerateOptions { stop_tokens: vec![expected[stop]], ..options(12) };
        let end = expected.iter().position(|token| *token == expected[stop]).unwrap();
        assert_eq!(generate(session, &start, &stopping), &expected[..=end]);
        // A longer prompt overwrites slots that those steps wrote.
        let longer = prompt(4 + 3 * stop as u32);
        assert_eq!(generate(session, &longer, &options(3)), continuation(&longer, 3, 1));
    }
}

/// Step by step, with logits and other sampling in between.
fn steps(session: &mut Session) {
    let start = prompt(9);
    session.reset();
    session.prefill(&start).unwrap();
    let mut text = start.clone();
    text.push(session.sample().unwrap());
    let sampling = SamplingParams { temperature: 1.0, seed: 7, ..SamplingParams::GREEDY };
    for step in 0..8 {
        if step == 4 {
            session.set_sampling(&sampling).unwrap();
        }
        let moved = if step >= 4 { 7 } else { 0 };
        let token = session.decode_ahead(9).unwrap();
        assert_eq!(token, (super::next(&text, 1) + moved) % VOCAB, "step {step}");
        if step % 3 == 1 {
            assert_eq!(session.logits().unwrap(), super::logits(&text, 1), "step {step}");
        }
        text.push(token);
    }
    assert_eq!(session.cached_tokens() as usize, text.len() - 1);
}

/// More inputs than are pinned at a time: none is overwritten before the device has read it.
fn many_inputs(session: &mut Session) {
    let start = prompt(3 * CHUNK);
    for round in 0..2 {
        session.reset();
        session.prefill(&start).unwrap();
        for seed in 0..3000 {
            let sampling = SamplingParams { temperature: 1.0, seed, ..SamplingParams::GREEDY };
            session.set_sampling(&sampling).unwrap();
        }
        let moved = (super::next(&start, 1) + 2999) % VOCAB;
        assert_eq!(session.sample().unwrap(), moved, "round {round}");
    }
    session.set_sampling(&SamplingParams::GREEDY).unwrap();
}
