//! The HIP device on the emulated GPU: the whole decode loop, and every way to fail. HIP looks at
//! its environment once, so each scene is a process of its own: this test binary, told which.

mod toy;

use insta::assert_snapshot;
use std::env;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use toy::gpu::{emulator, gpu_code, gpu_plan};
use toy::{CHUNK, CONTEXT, Toy, VOCAB, continuation, prompt};
use waveloom_plan::Plan;
use waveloom_runtime::{
    DeviceKind, FinishReason, GenerateOptions, LoadOptions, SamplingParams, Session, devices,
};

const SCENE: &str = "WAVELOOM_TEST_SCENE";
const CHIPS: [&str; 2] = ["gfx942", "gfx1100"];

/// A process in which HIP is the emulator.
struct Stage {
    rocm: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Stage {
    /// With this GPU; `None` where there is no emulator.
    fn new(device: &str) -> Option<Stage> {
        let rocm = tempfile::tempdir().unwrap();
        std::fs::create_dir(rocm.path().join("lib")).unwrap();
        let library = emulator()?.canonicalize().unwrap();
        symlink(library, rocm.path().join("lib/libamdhip64.so.6")).unwrap();
        let variables = vec![
            ("WAVELOOM_EMU_DEVICE", device.to_string()),
            ("WAVELOOM_EMU_CHECK", "1".into()),
            ("WAVELOOM_EMU_MAX_INSTRUCTIONS", "20000000".into()),
        ];
        Some(Stage { rocm, variables })
    }

    fn with(mut self, name: &'static str, value: &str) -> Stage {
        self.variables.push((name, value.into()));
        self
    }

    /// What the scene says, a line each; standard error must have no report of the emulator.
    fn play(&self, scene: &str) -> String {
        let (said, err) = self.watch(scene);
        assert!(!err.contains("waveloom-emu:"), "{err}");
        said
    }

    fn watch(&self, scene: &str) -> (String, String) {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "scene", "--nocapture", "--test-threads=1"])
            .env("ROCM_PATH", self.rocm.path())
            .env(SCENE, scene)
            .envs(self.variables.iter().cloned())
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{scene}: {out}\n{err}");
        let said = out.lines().filter_map(|line| line.split_once("> ").map(|(_, said)| said));
        (said.collect::<Vec<_>>().join("\n"), err)
    }
}

/// What a scene has to say to its test.
fn say(what: impl std::fmt::Display) {
    println!("\n> {what}");
}

/// Not a test by itself: it is one of the scenes where the environment names it.
#[test]
fn scene() {
    let Ok(scene) = env::var(SCENE) else { return };
    match scene.as_str() {
        "decode" => decode(),
        "slow" => slow(),
        "count" => count(),
        "large" => large(),
        "synthetic" => synthetic(),
        "choose" => choose(),
        "launches" => toy::launches::launch_by_launch(&toy(|_| {}), DeviceKind::Hip(0)),
        "times" => toy::launches::times(&toy(|_| {}), DeviceKind::Hip(0)),
        "devices" => say(listed()),
        "load" => say(load_error(DeviceKind::Hip(0), |_| {})),
        "no such device" => say(load_error(DeviceKind::Hip(3), |_| {})),
        "no kernel" => say(load_error(DeviceKind::Hip(0), |p| p.kernels[1].name = "absent".into())),
        "no code" => say(no_code()),
        "damaged" => say(damaged()),
        "few weights" => say(few_weights()),
        "fault" => run_error(9, |plan| plan.programs[1].launches[2].kernel = 6),
        "fault in prefill" => run_error(9, fault_in_prefill),
        "fault, and no token asked for" => run_error(0, fault_in_prefill),
        "no token" => run_error(9, |plan| plan.programs[1].launches[3].kernel = 7),
        other => panic!("there is no scene {other}"),
    }
}

fn chip() -> String {
    let device = env::var("WAVELOOM_EMU_DEVICE").unwrap();
    device.split(':').next().unwrap().to_string()
}

/// The toy model for the chip of this process, changed.
fn toy(change: impl FnOnce(&mut Plan)) -> Toy {
    let folder = tempfile::tempdir().unwrap();
    let code = gpu_code(folder.path(), &chip()).expect("the test has looked for clang");
    let mut plan = gpu_plan(&chip());
    change(&mut plan);
    Toy::write(folder, &[plan], &code, &toy::weights(1))
}

fn hip(context: Option<u32>) -> LoadOptions {
    LoadOptions { device: DeviceKind::Hip(0), context, ..LoadOptions::default() }
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
                assert_eq!(event.logits, toy::logits(&text, 1));
            }
            tokens.push(event.token);
            ControlFlow::Continue(())
        })
        .unwrap();
    tokens
}

/// Whether clang is there for the toy kernels.
fn clang() -> bool {
    gpu_code(tempfile::tempdir().unwrap().path(), "gfx942").is_some()
}

#[test]
fn the_whole_decode_loop_runs_on_the_device() {
    if !clang() {
        return;
    }
    for chip in CHIPS {
        let Some(stage) = Stage::new(chip) else { return };
        assert_eq!(stage.play("decode"), "done", "{chip}");
    }
}

fn decode() {
    let toy = toy(|_| {});
    let mut pieces = vec![];
    let loaded = Session::load_with_progress(&toy.artifact(), hip(None), &mut |progress| {
        pieces.push((progress.done, progress.total));
    });
    let mut session = loaded.unwrap();
    assert_eq!(pieces, [(256, 256)]);
    assert_eq!(session.allocated_bytes(), session.peak_bytes());
    assert!(session.device().contains(&chip()), "{}", session.device());

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
    let mut short = Session::load(&toy.artifact(), hip(Some(20))).unwrap();
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

/// A decode step is one replay of a graph, and the host waits for no stream while it decodes.
#[test]
fn steps_are_replayed_and_nothing_waits() {
    if !clang() {
        return;
    }
    for chip in CHIPS {
        let Some(stage) = Stage::new(chip) else { return };
        let lib = stage.rocm.path().join("lib");
        std::fs::rename(lib.join("libamdhip64.so.6"), lib.join("libamdhip64.so.5")).unwrap();
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"])
            .arg(lib.join("libamdhip64.so"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/toy/count.c"))
            .arg(lib.join("libamdhip64.so.5"))
            .arg("-Wl,-rpath,$ORIGIN")
            .status();
        assert!(status.unwrap().success());
        // Two prefill chunks of three launches; the two captures launched, too, and all 30 tokens
        // are replays. What waits belongs to loading, and to the end of the session.
        insta::allow_duplicates! { assert_snapshot!(stage.play("count"), @"11 launches, 30 replays, 2 waits") };
    }
}

fn count() {
    let toy = toy(|_| {});
    let mut session = Session::load(&toy.artifact(), hip(None)).unwrap();
    let start = prompt(CHUNK + 1);
    assert_eq!(generate(&mut session, &start, &options(30)), continuation(&start, 30, 1));
}

/// Weights that go up in several pieces arrive in order, at the end as at the beginning.
#[test]
fn launches_run_one_by_one_and_are_timed() {
    if !clang() {
        return;
    }
    for chip in CHIPS {
        let Some(stage) = Stage::new(chip) else { return };
        stage.play("launches");
        stage.play("times");
    }
}

#[test]
fn large_weights_go_up_in_pieces() {
    if !clang() {
        return;
    }
    let Some(stage) = Stage::new("gfx942") else { return };
    assert_snapshot!(stage.play("large"), @"[33554432, 67108864, 67109120] of 67109120");
}

fn large() {
    let folder = tempfile::tempdir().unwrap();
    let code = gpu_code(folder.path(), &chip()).expect("the test has looked for clang");
    let mut plan = gpu_plan(&chip());
    // The weights are the last of them; before, each word is its own index.
    let before = 64 << 20;
    plan.segments.constants = (before + 256).into();
    plan.buffers[0].offset = before.into();
    let filling = (0..before as u32 / 4).flat_map(u32::to_le_bytes);
    let weights: Vec<u8> = filling.chain(toy::weights(1)).collect();
    let toy = Toy::write(folder, &[plan], &code, &weights);
    let (mut pieces, mut all) = (vec![], 0);
    let loaded = Session::load_with_progress(&toy.artifact(), hip(None), &mut |progress| {
        pieces.push(progress.done);
        all = progress.total;
    });
    let start = prompt(5);
    assert_eq!(generate(&mut loaded.unwrap(), &start, &options(6)), continuation(&start, 6, 1));
    say(format!("{pieces:?} of {all}"));
}

/// Synthetic weights are made in the pieces that go up.
#[test]
fn synthetic_weights_go_up_in_pieces() {
    if !clang() {
        return;
    }
    let Some(stage) = Stage::new("gfx942") else { return };
    assert_snapshot!(stage.play("synthetic"), @"[33554432, 67108864, 67109120] of 67109120");
}

fn synthetic() {
    let folder = tempfile::tempdir().unwrap();
    let code = gpu_code(folder.path(), &chip()).expect("the test has looked for clang");
    let mut plan = gpu_plan(&chip());
    let before = 64 << 20;
    plan.segments.constants = (before + 256).into();
    plan.buffers[0].offset = before.into();
    plan.synthetic = Some(toy::synthetic(before as u64, 1));
    let toy = Toy::write(folder, &[plan], &code, &[]);
    let (mut pieces, mut all) = (vec![], 0);
    let loaded = Session::load_with_progress(&toy.artifact(), hip(None), &mut |progress| {
        pieces.push(progress.done);
        all = progress.total;
    });
    let mut session = loaded.unwrap();
    assert_eq!(session.allocated_bytes(), session.peak_bytes());
    let start = prompt(5);
    assert_eq!(generate(&mut session, &start, &options(6)), continuation(&start, 6, 1));
    say(format!("{pieces:?} of {all}"));
}

/// What a plan requires decides, not its name.
#[test]
fn the_plan_for_the_chip_is_chosen() {
    if !clang() {
        return;
    }
    let Some(stage) = Stage::new("gfx942") else { return };
    assert_snapshot!(stage.play("choose"), @"mine");
}

fn choose() {
    let folder = tempfile::tempdir().unwrap();
    let code = gpu_code(folder.path(), "gfx942").expect("the test has looked for clang");
    let named =
        |name: &str, architecture: &str| Plan { target: name.into(), ..gpu_plan(architecture) };
    let plans = [named("gfx942", "gfx1100"), named("mine", "gfx942"), named("gfx90a", "gfx90a")];
    let toy = Toy::write(folder, &plans, &code, &toy::weights(1));
    say(&Session::load(&toy.artifact(), hip(None)).unwrap().plan().target);
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
        assert_eq!(token, (toy::next(&text, 1) + moved) % VOCAB, "step {step}");
        if step % 3 == 1 {
            assert_eq!(session.logits().unwrap(), toy::logits(&text, 1), "step {step}");
        }
        text.push(token);
    }
    assert_eq!(session.cached_tokens() as usize, text.len() - 1);
}

/// The host is far ahead of the device, so that whatever comes too early or too late shows.
#[test]
fn a_slow_device_changes_nothing() {
    if !clang() {
        return;
    }
    for chip in CHIPS {
        let Some(stage) = Stage::new(chip) else { return };
        assert_eq!(stage.play("slow"), "done", "{chip}");
    }
}

fn slow() {
    let toy = toy(|plan| {
        plan.programs[0].launches[1].kernel = 8;
        plan.programs[1].launches[1].kernel = 9;
    });
    let mut session = Session::load(&toy.artifact(), hip(None)).unwrap();
    stops(&mut session);
    steps(&mut session);
    many_inputs(&mut session);
    say("done");
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
        let moved = (toy::next(&start, 1) + 2999) % VOCAB;
        assert_eq!(session.sample().unwrap(), moved, "round {round}");
    }
    session.set_sampling(&SamplingParams::GREEDY).unwrap();
}

#[test]
fn devices_are_listed() {
    let Some(stage) = Stage::new("gfx1100:2") else { return };
    let stage = stage.with("WAVELOOM_EMU_MEMORY", "1073741824");
    let found: serde_json::Value = serde_json::from_str(&stage.play("devices")).unwrap();
    for index in 0..2 {
        let device = &found[index];
        assert_eq!(device["name"], format!("hip:{index}"));
        assert_eq!(device["features"], serde_json::json!(["gfx1100"]));
        assert_eq!(device["gpu"]["architecture"], "gfx1100");
        assert_eq!(device["gpu"]["memory_bytes"], 1 << 30);
        assert!(device["gpu"]["free_bytes"].as_u64().unwrap() <= 1 << 30);
        assert!(device["gpu"]["compute_units"].as_u64().unwrap() > 0);
        assert!(device.get("unavailable").is_none());
    }
    assert_eq!(found.as_array().unwrap().len(), 2);
}

/// What is said about AMD GPUs.
fn listed() -> String {
    let mut devices = devices();
    devices.retain(|device| device.name.starts_with("hip"));
    serde_json::to_string(&devices).unwrap()
}

/// Why the toy model does not load.
fn load_error(device: DeviceKind, change: impl FnOnce(&mut Plan)) -> String {
    let chip = env::var("WAVELOOM_TEST_CHIP").unwrap_or_else(|_| "gfx942".into());
    let folder = tempfile::tempdir().unwrap();
    let code = gpu_code(folder.path(), &chip).expect("the test has looked for clang");
    let mut plan = gpu_plan(&chip);
    change(&mut plan);
    let cpu = toy::plan();
    let toy = Toy::write(folder, &[plan, cpu], &code, &toy::weights(1));
    let options = LoadOptions { device, ..LoadOptions::default() };
    Session::load(&toy.artifact(), options).map(drop).unwrap_err().to_string()
}

fn no_code() -> String {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy::write(folder, &[gpu_plan("gfx942")], b"not a code object", &toy::weights(1));
    Session::load(&toy.artifact(), hip(None)).map(drop).unwrap_err().to_string()
}

/// Weights of which a bit is not what was written.
fn damaged() -> String {
    let toy = toy(|_| {});
    let mut bytes = std::fs::read(&toy.path).unwrap();
    *bytes.last_mut().unwrap() ^= 4;
    std::fs::write(&toy.path, bytes).unwrap();
    told(&toy)
}

fn few_weights() -> String {
    told(&toy(|plan| plan.segments.constants = waveloom_plan::Expr::from(1 << 20)))
}

/// Why an artifact does not load, without the place of its file.
fn told(toy: &Toy) -> String {
    let error = Session::load(&toy.artifact(), hip(None)).map(drop).unwrap_err().to_string();
    error.replace(&format!("{}/", toy.folder.path().display()), "")
}

#[test]
fn what_does_not_load_is_told_why() {
    if !clang() {
        return;
    }
    let stage = |device: &str| Stage::new(device);
    let Some(one) = stage("gfx942") else { return };
    assert_snapshot!(one.play("no such device"), @"there is no device hip:3: HIP finds 1, the first of which is hip:0");
    assert_snapshot!(one.play("no kernel"), @"the code for target gfx942 has no kernel `absent`: recompile the model");
    // The emulator says more than HIP can.
    assert_snapshot!(one.watch("no code").0, @"the code for target gfx942 does not load: device kernel image is invalid (hipErrorInvalidImage)");
    assert_snapshot!(one.play("damaged"), @"section `weights.gpu.w` of `toy.wlm` is damaged: its digest does not match; copy or compile the file again");
    assert_snapshot!(one.play("few weights"), @"`toy.wlm` has 256 bytes of weights for gfx942, its plan needs 1048576: recompile the model");
    let other = stage("gfx1100").unwrap();
    assert_snapshot!(other.play("load"), @"the artifact was compiled for gfx942, cpu, the device is AMD Radeon RX 7900 XTX (gfx1100), hip:0: recompile the model with `--target gfx1100`");
    let small = stage("gfx942").unwrap().with("WAVELOOM_EMU_MEMORY", "4096");
    assert_snapshot!(small.play("load"), @"the model needs 5440 bytes of memory (0.00 GiB), and hip:0 has 4096 free (0.00 GiB): load it with a shorter context, or end what else uses the device");
}

#[test]
fn a_machine_without_gpu_is_told_what_to_check() {
    if !clang() {
        return;
    }
    // A chip that the emulator does not know is none; it says so, too.
    let Some(stage) = Stage::new("gfx1030") else { return };
    assert_snapshot!(stage.watch("load").0, @"HIP finds no AMD GPU: check that its driver (amdgpu) is loaded, that this user may open /dev/kfd and /dev/dri (groups `render` and `video`), and that neither HIP_VISIBLE_DEVICES nor ROCR_VISIBLE_DEVICES hides it");
    assert_snapshot!(stage.watch("devices").0, @r#"[{"name":"hip","description":"AMD GPUs","workers":0,"features":[],"unavailable":"HIP finds no AMD GPU: check that its driver (amdgpu) is loaded, that this user may open /dev/kfd and /dev/dri (groups `render` and `video`), and that neither HIP_VISIBLE_DEVICES nor ROCR_VISIBLE_DEVICES hides it"}]"#);
}

#[test]
fn a_machine_without_the_library_is_told_what_to_install() {
    if !clang() {
        return;
    }
    if Path::new("/opt/rocm/lib").exists() {
        println!("skipped: this machine has ROCm, which cannot be hidden");
        return;
    }
    // Whatever the loader would find is hidden by files of that name that are no libraries.
    let folder = tempfile::tempdir().unwrap();
    for version in ["", ".5", ".6", ".7"] {
        let path = folder.path().join(format!("libamdhip64.so{version}"));
        std::fs::write(path, "no library").unwrap();
    }
    let stage = Stage { rocm: tempfile::tempdir().unwrap(), variables: vec![] };
    let path = folder.path().to_str().unwrap();
    let stage = stage.with("LD_LIBRARY_PATH", path);
    let shown = |text: String| {
        let rocm = stage.rocm.path().display().to_string();
        text.replace(&rocm, "ROCM").replace(path, "DIR")
    };
    assert_snapshot!(shown(stage.play("load")), @"HIP, which AMD GPUs need, is not available: there is no usable libamdhip64.so in `ROCM/lib`, the loader's path, `/opt/rocm/lib`; DIR/libamdhip64.so: file too short; DIR/libamdhip64.so.7: file too short; DIR/libamdhip64.so.6: file too short; DIR/libamdhip64.so.5: file too short: install AMD's ROCm (on Debian and Ubuntu the package libamdhip64-5 is enough), or let ROCM_PATH name the directory that has it in `lib`");
    let listed = stage.play("devices");
    assert!(listed.contains("\"unavailable\":\"HIP, which AMD GPUs need, is not"), "{listed}");
}

fn fault_in_prefill(plan: &mut Plan) {
    plan.programs[0].launches[2] = plan.programs[1].launches[2].clone();
    plan.programs[0].launches[2].kernel = 6;
}

/// Runs a toy model that fails, and says how; and how it fails after that.
fn run_error(count: usize, change: impl FnOnce(&mut Plan)) {
    let toy = toy(change);
    let mut session = Session::load(&toy.artifact(), hip(None)).unwrap();
    for _ in 0..2 {
        let result =
            session.generate(&prompt(5), &options(count), &mut |_| ControlFlow::Continue(()));
        say(result.unwrap_err());
    }
    say(match Session::load(&toy.artifact(), hip(None)) {
        Ok(_) => "another session loads",
        Err(_) => "nothing loads any more",
    });
}

#[test]
fn a_fault_is_an_error_and_no_hang() {
    if !clang() {
        return;
    }
    let Some(stage) = Stage::new("gfx942") else { return };
    for scene in ["fault", "fault in prefill", "fault, and no token asked for"] {
        let (said, err) = stage.watch(scene);
        assert!(err.contains("fault"), "{err}");
        insta::allow_duplicates! {
            assert_snapshot!(said, @r"
            a kernel failed or the device was lost on hip:0: an illegal memory access was encountered (hipErrorIllegalAddress); nothing more can run on it in this process: start again; if it fails again, check the system's log (`dmesg`) for the device, or recompile the model
            a kernel failed or the device was lost on hip:0: an illegal memory access was encountered (hipErrorIllegalAddress); nothing more can run on it in this process: start again; if it fails again, check the system's log (`dmesg`) for the device, or recompile the model
            nothing loads any more
            ")
        };
    }
    assert_snapshot!(stage.play("no token"), @r"
    a step on hip:0 ended without choosing a token: recompile the model
    a step on hip:0 ended without choosing a token: recompile the model
    another session loads
    ");
}
