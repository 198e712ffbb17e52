//! The HIP device on the emulated GPU: the whole decode loop, and every way to fail. HIP looks at
//! its environment once, so each scene is a process of its own: this test binary, told which.

mod toy;

use insta::assert_snapshot;
use std::env;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use toy::Toy;
use toy::gpu::{emulator, gpu_code, gpu_plan};
use toy::scenes::{self, SCENE, Stand, say};
use waveloom_plan::Plan;
use waveloom_runtime::{DeviceKind, Session};

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
        let rocm = ("ROCM_PATH", self.rocm.path().display().to_string());
        scenes::watch(scene, &[&self.variables[..], &[rocm]].concat())
    }
}

/// The GPU of this process.
fn stand() -> Stand {
    Stand {
        device: DeviceKind::Hip(0),
        architecture: chip(),
        code: |folder, chip| gpu_code(folder, chip).expect("the test has looked for clang"),
    }
}

/// Not a test by itself: it is one of the scenes where the environment names it.
#[test]
fn scene() {
    let Ok(scene) = env::var(SCENE) else { return };
    match scene.as_str() {
        "choose" => choose(),
        "no code" => say(stand().no_code(b"not a code object")),
        "devices" => say(scenes::listed("hip")),
        "load" => say(stand().load_error("gfx942", DeviceKind::Hip(0), |_| {})),
        "no such device" => say(stand().load_error("gfx942", DeviceKind::Hip(3), |_| {})),
        other => stand().play(other),
    }
}

fn chip() -> String {
    let device = env::var("WAVELOOM_EMU_DEVICE").unwrap_or_else(|_| "gfx942".into());
    device.split(':').next().unwrap().to_string()
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

/// Weights that go up in several pieces arrive in order, at the end as at the beginning.
#[test]
fn large_weights_go_up_in_pieces() {
    if !clang() {
        return;
    }
    let Some(stage) = Stage::new("gfx942") else { return };
    assert_snapshot!(stage.play("large"), @"[33554432, 67108864, 67109120] of 67109120");
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
    say(&Session::load(&toy.artifact(), stand().with(None)).unwrap().plan().target);
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

#[test]
fn devices_are_listed() {
    let Some(stage) = Stage::new("gfx1100:2") else { return };
    let stage = stage.with("WAVELOOM_EMU_MEMORY", "1073741824");
    let found: serde_json::Value = serde_json::from_str(&stage.play("devices")).unwrap();
    for index in 0..2 {
        let device = &found[index];
        assert_eq!(device["name"], format!("hip:{index}"));
        assert_eq!(device["features"], serde_json::json!(["gfx1100"]));
        assert_eq!(device["description"], "AMD Radeon RX 7900 XTX (emulated)");
        assert_eq!(device["gpu"]["architecture"], "gfx1100");
        assert_eq!(device["gpu"]["memory_bytes"], 1 << 30);
        assert!(device["gpu"]["free_bytes"].as_u64().unwrap() <= 1 << 30);
        assert!(device["gpu"]["compute_units"].as_u64().unwrap() > 0);
        assert!(device.get("unavailable").is_none());
    }
    assert_eq!(found.as_array().unwrap().len(), 2);
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
    assert_snapshot!(other.play("load"), @"the artifact was compiled for gfx942, cpu, the device is AMD Radeon RX 7900 XTX (emulated) (gfx1100), hip:0: recompile the model with `--target gfx1100`");
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
