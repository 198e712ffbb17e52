//! The CUDA device on a library that only looks like NVIDIA's driver (`toy/cuda.c`): the decode
//! loop, the cache of compiled code, and every way to fail. It shows that the driver's functions are
//! called in their order and as their manual says, and nothing about a card.

mod toy;

use insta::assert_snapshot;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use toy::gpu::gpu_plan;
use toy::scenes::{self, SCENE, Stand, say};
use toy::{CONTEXT, Toy, VOCAB};
use waveloom_plan::persistent::{Instruction, PERSISTENT_VERSION, Residency, Wait};
use waveloom_plan::{CodeFacts, Expr, Kernel, PersistentStep, Plan};
use waveloom_runtime::{DeviceKind, Session};

/// A process with that library, and a home of its own for the cache.
struct Stage {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Stage {
    /// With a card of this compute capability, or several (`9.0:2`); `None` without a C compiler.
    fn new(card: &str) -> Option<Stage> {
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
            .arg(folder.path().join("libcuda.so.1"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/toy/cuda.c"))
            .status();
        match status {
            Ok(status) => assert!(status.success(), "cc fails on cuda.c"),
            Err(error) => {
                println!("skipped: no C compiler for the library in CUDA's place: {error}");
                return None;
            }
        }
        let path = folder.path().display().to_string();
        let variables = vec![
            ("WAVELOOM_CUDA_PATH", path.clone()),
            ("XDG_CACHE_HOME", format!("{path}/cache")),
            ("FAKE_CUDA", card.into()),
        ];
        Some(Stage { folder, variables })
    }

    fn with(mut self, name: &'static str, value: &str) -> Stage {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.into()));
        self
    }

    /// What the scene says, a line each.
    fn play(&self, scene: &str) -> String {
        let said = scenes::watch(scene, &self.variables).0;
        said.replace(&self.folder.path().display().to_string(), "DIR")
    }

    /// The files of the cache.
    fn cached(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("cache/waveloom/cubin");
        let entries = fs::read_dir(folder).map(|entries| entries.map(|e| e.unwrap().path()));
        entries.map(Iterator::collect).unwrap_or_default()
    }
}

/// What the library takes for PTX of the toy kernels.
fn ptx(_: &Path, architecture: &str) -> Vec<u8> {
    let mut text = format!(".version 8.0\n.target {architecture}\n.address_size 64\n");
    let plan = gpu_plan(architecture);
    for kernel in plan.kernels.iter().map(|kernel| kernel.name.as_str()).chain(["streams"]) {
        text += &format!(".visible .entry {kernel}() {{ ret; }}\n");
    }
    text.into_bytes()
}

/// The GPU of this process, and what runs on any.
fn stand() -> Stand {
    Stand { device: DeviceKind::Cuda(0), architecture: "sm_80".into(), code: ptx }
}

/// Not a test by itself: it is one of the scenes where the environment names it.
#[test]
fn scene() {
    let Ok(scene) = env::var(SCENE) else { return };
    match scene.as_str() {
        "choose" => choose(),
        "overlapping" => stand().count(|plan| plan.kernels.iter_mut().for_each(waits)),
        "persistent" => stand().count(in_streams),
        "no code" => say(stand().no_code(b".version 8.0\n.target sm_80\nnonsense")),
        "devices" => say(scenes::listed("cuda")),
        "load" => say(stand().load_error("sm_90", DeviceKind::Cuda(0), |_| {})),
        "accelerated" => say(stand().load_error("sm_90a", DeviceKind::Cuda(0), |_| {})),
        "no such device" => say(stand().load_error("sm_80", DeviceKind::Cuda(3), |_| {})),
        other => stand().play(other),
    }
}

/// A kernel that waits for the launches before it.
fn waits(kernel: &mut Kernel) {
    kernel.facts = Some(CodeFacts { waits: true, ..CodeFacts::default() });
}

/// The decode step in three streams, of which each waits for another.
fn in_streams(plan: &mut Plan) {
    let facts = CodeFacts { waves_per_simd: 1, ..CodeFacts::default() };
    let streams = Kernel { name: "streams".into(), facts: Some(facts), ..plan.kernels[0].clone() };
    plan.kernels.push(streams);
    let (mixes, predicts) = (CONTEXT.div_ceil(32), VOCAB.div_ceil(32));
    plan.programs[1].launches[1].grid = Expr::from(i64::from(mixes));
    let run = |launch, first, count, waits: &[(u32, u32)], signal| Instruction {
        launch,
        first,
        count,
        waits: waits.iter().map(|&(flag, value)| Wait { flag, value }).collect(),
        signal,
        prefetches: vec![],
    };
    let mixed = [(1, mixes)];
    plan.persistent = Some(PersistentStep {
        version: PERSISTENT_VERSION,
        program: 1,
        launches: 3,
        kernel: plan.kernels.len() - 1,
        bodies: vec![0, 4, 5],
        residency: Residency { units: 108, simds: 1, wave: 32, lds_bytes: 0 },
        flags: 2,
        streams: vec![
            vec![run(0, 0, 1, &[], Some(0)), run(2, 0, 1, &mixed, None)],
            vec![run(1, 0, 1, &[(0, 1)], Some(1)), run(2, 1, predicts - 1, &mixed, None)],
            vec![run(1, 1, mixes - 1, &[(0, 1)], Some(1))],
        ],
    });
}

/// The best of an artifact's plans for this card.
fn choose() {
    let named = |name: &str, requires: &str| Plan { target: name.into(), ..gpu_plan(requires) };
    let plans = [
        named("any", "sm_80"),
        named("sm_90", "sm_90"),
        named("hopper", "sm_90a"),
        named("ada", "sm_89"),
        named("gfx942", "gfx942"),
    ];
    let folder = tempfile::tempdir().unwrap();
    // The library wants PTX of the architecture of the plan; all plans share this one.
    let architecture = env::var("FAKE_CUDA_CODE").unwrap();
    let code = ptx(folder.path(), &architecture);
    let toy = Toy::write(folder, &plans, &code, &toy::weights(1));
    say(&Session::load(&toy.artifact(), stand().with(None)).unwrap().plan().target);
}

#[test]
fn the_whole_decode_loop_runs_on_the_device() {
    for card in ["8.0", "8.6", "9.0", "12.0"] {
        let Some(stage) = Stage::new(card) else { return };
        assert_eq!(stage.play("decode"), "done", "{card}");
        assert_eq!(stage.play("slow"), "done", "{card}");
    }
}

#[test]
fn launches_run_one_by_one_and_are_timed() {
    let Some(stage) = Stage::new("9.0") else { return };
    stage.play("launches");
    stage.play("times");
}

/// A decode step is one replay of a graph, the host waits for no stream while it decodes, the code
/// is compiled once and for all, and everything is given back.
#[test]
fn steps_are_replayed_and_nothing_is_left() {
    let Some(stage) = Stage::new("8.9") else { return };
    let stage = stage.with("FAKE_CUDA_LOG", "1");
    // As on HIP: two prefill chunks of three launches, and the launches of two captures.
    assert_snapshot!(stage.play("count"), @"1 compilations, 11 launches (0 overlapping, 0 together), 30 replays, 2 waits, 0 things left");
    assert_snapshot!(stage.play("count"), @"0 compilations, 11 launches (0 overlapping, 0 together), 30 replays, 2 waits, 0 things left");
}

/// Launches whose kernels wait may begin early, the first of a program aside.
#[test]
fn launches_that_wait_overlap() {
    let Some(stage) = Stage::new("9.0") else { return };
    let stage = stage.with("FAKE_CUDA_LOG", "1");
    assert_snapshot!(stage.play("overlapping"), @"1 compilations, 11 launches (7 overlapping, 0 together), 30 replays, 2 waits, 0 things left");
}

/// The decode step as one cooperative launch; a card that does not hold all of its workgroups runs its
/// launches.
#[test]
fn a_persistent_step_runs_where_it_fits() {
    let Some(stage) = Stage::new("8.0") else { return };
    let stage = stage.with("FAKE_CUDA_LOG", "1");
    assert_snapshot!(stage.play("persistent"), @"1 compilations, 9 launches (0 overlapping, 1 together), 30 replays, 3 waits, 0 things left");
    let stage = stage.with("FAKE_CUDA_RESIDENT", "0");
    assert_snapshot!(stage.play("persistent"), @r"
    the decode step was compiled to run on 3 workgroups at once, and this device has room for 0: it runs launch by launch; recompile the model with `--decode launches`
    0 compilations, 11 launches (0 overlapping, 0 together), 30 replays, 2 waits, 0 things left
    ");
}

#[test]
fn compiled_code_is_kept_by_driver_and_card_and_made_again_if_broken() {
    let Some(stage) = Stage::new("8.9") else { return };
    let stage = stage.with("FAKE_CUDA_LOG", "1");
    let compilations = |stage: &Stage| {
        let said = stage.play("count");
        said.split_once(' ').unwrap().0.parse::<u32>().unwrap()
    };
    assert_eq!(compilations(&stage), 1);
    let [file] = &stage.cached()[..] else { panic!("{:?}", stage.cached()) };
    let whole = fs::read(file).unwrap();

    fs::write(file, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(compilations(&stage), 1);
    assert_eq!(fs::read(file).unwrap(), whole);
    assert_eq!(compilations(&stage), 0);

    let newer = stage.with("FAKE_CUDA_VERSION", "13000");
    assert_eq!(compilations(&newer), 1);
    let other = newer.with("FAKE_CUDA", "9.0");
    assert_eq!(compilations(&other), 1);
    assert_eq!(compilations(&other), 0);
    assert_eq!(other.cached().len(), 3);

    // Where nothing can be kept, all the same works.
    let blocked = other.with("XDG_CACHE_HOME", "/dev/null");
    assert_eq!(compilations(&blocked), 1);
    assert_eq!(compilations(&blocked), 1);
}

/// What is in the cache and no code for this card is made again.
#[test]
fn cached_code_that_does_not_load_is_made_again() {
    let Some(stage) = Stage::new("8.9") else { return };
    let stage = stage.with("FAKE_CUDA_LOG", "1");
    stage.play("count");
    let [file] = &stage.cached()[..] else { panic!("{:?}", stage.cached()) };
    let whole = fs::read(file).unwrap();
    let other = b"an image of another kind";
    let digest = blake3::hash(other);
    fs::write(file, [&whole[..16], digest.as_bytes(), &other[..]].concat()).unwrap();
    assert_snapshot!(stage.play("count"), @"1 compilations, 11 launches (0 overlapping, 0 together), 30 replays, 2 waits, 0 things left");
    assert_eq!(fs::read(file).unwrap(), whole);
}

/// Weights that go up in several pieces arrive in order, at the end as at the beginning.
#[test]
fn large_and_synthetic_weights_go_up_in_pieces() {
    let Some(stage) = Stage::new("9.0") else { return };
    for scene in ["large", "synthetic"] {
        insta::allow_duplicates! {
            assert_snapshot!(stage.play(scene), @"[33554432, 67108864, 67109120] of 67109120")
        };
    }
}

#[test]
fn the_best_plan_for_the_card_is_chosen() {
    let cards = [
        ("8.0", "any", "sm_80"),
        ("8.6", "any", "sm_80"),
        ("8.9", "ada", "sm_89"),
        ("9.0", "hopper", "sm_90a"),
        ("12.0", "sm_90", "sm_90"),
    ];
    for (card, target, architecture) in cards {
        let Some(stage) = Stage::new(card) else { return };
        let stage = stage.with("FAKE_CUDA_CODE", architecture);
        assert_eq!(stage.play("choose"), target, "{card}");
    }
}

#[test]
fn devices_are_listed() {
    let Some(stage) = Stage::new("9.0:2") else { return };
    let stage = stage.with("FAKE_CUDA_MEMORY", "1073741824");
    assert_snapshot!(stage.play("devices"), @r#"[{"name":"cuda:0","description":"Paper GPU 0","workers":1,"features":["sm_90"],"gpu":{"architecture":"sm_90","compute_units":108,"memory_bytes":1073741824,"free_bytes":1073741824,"compute_capability":"9.0","driver_cuda":"12.8"}},{"name":"cuda:1","description":"Paper GPU 1","workers":1,"features":["sm_90"],"gpu":{"architecture":"sm_90","compute_units":108,"memory_bytes":1073741824,"free_bytes":1073741824,"compute_capability":"9.0","driver_cuda":"12.8"}}]"#);
    let busy = stage.with("FAKE_CUDA_FAIL", "cuDevicePrimaryCtxRetain=46");
    let said = busy.play("devices");
    assert!(said.contains(r#""name":"cuda:1""#) && said.contains(r#""unavailable":"#), "{said}");
    assert_snapshot!(busy.play("load"), @"selecting the device failed on cuda:0: CUDA-capable device(s) is/are busy or unavailable (CUDA_ERROR_DEVICE_UNAVAILABLE)");
}

#[test]
fn what_does_not_load_is_told_why() {
    let Some(one) = Stage::new("8.6") else { return };
    assert_snapshot!(one.play("no such device"), @"there is no device cuda:3: CUDA finds 1, the first of which is cuda:0");
    assert_snapshot!(one.play("no kernel"), @"the code for target sm_80 has no kernel `absent`: recompile the model");
    assert_snapshot!(one.play("no code"), @"the code for target sm_80 does not load: a PTX JIT compilation failed (CUDA_ERROR_INVALID_PTX): ptxas application ptx input, line 3; error   : Parsing error near 'nonsense': syntax error; ptxas fatal   : Ptx assembly aborted due to errors");
    assert_snapshot!(one.play("damaged"), @"section `weights.gpu.w` of `toy.wlm` is damaged: its digest does not match; copy or compile the file again");
    assert_snapshot!(one.play("few weights"), @"`toy.wlm` has 256 bytes of weights for sm_80, its plan needs 1048576: recompile the model");
    assert_snapshot!(one.play("load"), @"the artifact was compiled for sm_90, cpu, the device is Paper GPU 0 (sm_86), cuda:0, which runs code for sm_NN up to sm_86: recompile the model with such a `--target`; `targets` lists them");
    assert_snapshot!(one.play("accelerated"), @"the artifact was compiled for sm_90a, cpu, the device is Paper GPU 0 (sm_86), cuda:0, which runs code for sm_NN up to sm_86: recompile the model with such a `--target`; `targets` lists them");
    let small = Stage::new("9.0").unwrap().with("FAKE_CUDA_MEMORY", "4096");
    assert_snapshot!(small.play("load"), @"the model needs 5440 bytes of memory (0.00 GiB), and cuda:0 has 4096 free (0.00 GiB): load it with a shorter context, or end what else uses the device");
}

#[test]
fn a_driver_that_cannot_compile_is_told_why() {
    let Some(card) = Stage::new("9.0") else { return };
    let old = card.with("FAKE_CUDA_PTX", "78").with("FAKE_CUDA_VERSION", "11080");
    assert_snapshot!(old.play("load"), @"the driver of cuda:0 is too old for the code of target sm_90: that is PTX 8.0, which needs a driver for CUDA 12.0, and this one is for CUDA 11.8; install a newer driver");
    let card = old.with("FAKE_CUDA_PTX", "87");
    let without = card.with("FAKE_CUDA_FAIL", "cuLinkAddData_v2=221");
    assert_snapshot!(without.play("load"), @"the code for target sm_90 does not load: PTX JIT compiler library not found (CUDA_ERROR_JIT_COMPILER_NOT_FOUND); the driver's compiler is the library libnvidia-ptxjitcompiler.so.1: install all of the driver");
    let off = without.with("FAKE_CUDA_FAIL", "cuLinkAddData_v2=223");
    assert_snapshot!(off.play("load"), @"the code for target sm_90 does not load: error 223; it is switched off: unset CUDA_DISABLE_PTX_JIT");
    let invalid = off.with("FAKE_CUDA_FAIL", "cuModuleLoadData=200");
    assert_snapshot!(invalid.play("load"), @"the code for target sm_90 does not load: device kernel image is invalid (CUDA_ERROR_INVALID_IMAGE)");
}

/// Whatever fails is said with the card and what was tried, and ends in no panic.
#[test]
fn every_function_may_fail() {
    let Some(mut stage) = Stage::new("9.0") else { return };
    let mut said = String::new();
    for (function, status) in [
        ("cuMemAlloc_v2", 2),
        ("cuMemHostAlloc", 2),
        ("cuMemsetD8Async", 719),
        ("cuMemcpyHtoDAsync_v2", 719),
        ("cuStreamCreate", 999),
        ("cuEventCreate", 999),
        ("cuModuleGetFunction", 999),
        ("cuStreamBeginCapture_v2", 999),
        ("cuStreamEndCapture", 999),
        ("cuLaunchKernel", 999),
        ("cuGraphInstantiateWithFlags", 999),
        ("cuStreamSynchronize", 700),
        ("cuMemGetInfo_v2", 999),
        ("cuDeviceGetAttribute", 999),
    ] {
        stage = stage.with("FAKE_CUDA_FAIL", &format!("{function}={status}"));
        said += &format!("{function}: {}\n", stage.play("load"));
    }
    assert_snapshot!(said, @r"
    cuMemAlloc_v2: the model needs 5440 bytes of memory (0.00 GiB), and cuda:0 has 4294967296 free (4.00 GiB): load it with a shorter context, or end what else uses the device
    cuMemHostAlloc: allocating pinned memory of the host failed on cuda:0: out of memory (CUDA_ERROR_OUT_OF_MEMORY)
    cuMemsetD8Async: a kernel failed or the device was lost on cuda:0: unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED); nothing more can run on it in this process: start again; if it fails again, check the system's log (`dmesg`) for the device, or recompile the model
    cuMemcpyHtoDAsync_v2: a kernel failed or the device was lost on cuda:0: unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED); nothing more can run on it in this process: start again; if it fails again, check the system's log (`dmesg`) for the device, or recompile the model
    cuStreamCreate: creating a stream failed on cuda:0: error 999
    cuEventCreate: creating an event failed on cuda:0: error 999
    cuModuleGetFunction: looking up a kernel failed on cuda:0: error 999
    cuStreamBeginCapture_v2: capturing a step failed on cuda:0: error 999
    cuStreamEndCapture: capturing a step failed on cuda:0: error 999
    cuLaunchKernel: launching a kernel failed on cuda:0: error 999
    cuGraphInstantiateWithFlags: preparing a graph failed on cuda:0: error 999
    cuStreamSynchronize: a kernel failed or the device was lost on cuda:0: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS); nothing more can run on it in this process: start again; if it fails again, check the system's log (`dmesg`) for the device, or recompile the model
    cuMemGetInfo_v2: asking for free memory failed on cuda:0: error 999
    cuDeviceGetAttribute: asking what the device is failed on cuda:0: error 999
    ");
}

#[test]
fn a_machine_without_card_or_driver_is_told_what_to_do() {
    let Some(none) = Stage::new("9.0:0") else { return };
    assert_snapshot!(none.play("load"), @"CUDA finds no NVIDIA GPU: check that `nvidia-smi` lists it, that a container was started with it (`--gpus all`), and that CUDA_VISIBLE_DEVICES does not hide it");
    assert_snapshot!(none.play("devices"), @r#"[{"name":"cuda","description":"NVIDIA GPUs","workers":0,"features":[],"unavailable":"CUDA finds no NVIDIA GPU: check that `nvidia-smi` lists it, that a container was started with it (`--gpus all`), and that CUDA_VISIBLE_DEVICES does not hide it"}]"#);
    let stub = none.with("FAKE_CUDA_FAIL", "cuInit=34");
    assert_snapshot!(stub.play("load"), @"CUDA's driver, which NVIDIA GPUs need, is not available: the driver does not start: CUDA driver is a stub library (CUDA_ERROR_STUB_LIBRARY); the library is the CUDA toolkit's, for linking only: take its `stubs` out of LD_LIBRARY_PATH, and install NVIDIA's driver");
    let updated = stub.with("FAKE_CUDA_FAIL", "cuInit=803");
    assert_snapshot!(updated.play("load"), @"CUDA's driver, which NVIDIA GPUs need, is not available: the driver does not start: system has unsupported display driver / cuda driver combination (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH); the library and the kernel's module are of different versions: restart the machine after an update of the driver");
    // No library, one that is none, and one without the functions.
    let library = updated.folder.path().join("libcuda.so.1");
    fs::remove_file(&library).unwrap();
    assert_snapshot!(updated.play("load"), @"CUDA's driver, which NVIDIA GPUs need, is not available: there is no usable libcuda.so.1 in `DIR`: install NVIDIA's driver (on Debian the package nvidia-driver, on Ubuntu what `ubuntu-drivers install` chooses), or start a container with `--gpus all`; WAVELOOM_CUDA_PATH can name the directory that has the library");
    fs::write(&library, "no library").unwrap();
    assert_snapshot!(updated.play("load"), @"CUDA's driver, which NVIDIA GPUs need, is not available: there is no usable libcuda.so.1 in `DIR`; DIR/libcuda.so.1: file too short: install NVIDIA's driver (on Debian the package nvidia-driver, on Ubuntu what `ubuntu-drivers install` chooses), or start a container with `--gpus all`; WAVELOOM_CUDA_PATH can name the directory that has the library");
    let Ok(other) = fs::canonicalize("/lib/x86_64-linux-gnu/libm.so.6") else {
        println!("skipped: no libm.so.6 to take for a driver");
        return;
    };
    fs::remove_file(&library).unwrap();
    std::os::unix::fs::symlink(other, &library).unwrap();
    assert_snapshot!(updated.play("devices"), @r#"[{"name":"cuda","description":"NVIDIA GPUs","workers":0,"features":[],"unavailable":"CUDA's driver, which NVIDIA GPUs need, is not available: there is no usable libcuda.so.1 in `DIR`; `DIR/libcuda.so.1` has no function cuInit: it is too old: install NVIDIA's driver (on Debian the package nvidia-driver, on Ubuntu what `ubuntu-drivers install` chooses), or start a container with `--gpus all`; WAVELOOM_CUDA_PATH can name the directory that has the library"}]"#);
}

#[test]
fn a_fault_is_an_error_and_no_hang() {
    let Some(stage) = Stage::new("9.0") else { return };
    for scene in ["fault", "fault in prefill", "fault, and no token asked for"] {
        insta::allow_duplicates! { assert_snapshot!(stage.play(scene), @r"
        a kernel failed or the device was lost on cuda:0: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS); nothing more can run on it in this process: start again; if it fails again, check the system's log (`dmesg`) for the device, or recompile the model
        a kernel failed or the device was lost on cuda:0: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS); nothing more can run on it in this process: start again; if it fails again, check the system's log (`dmesg`) for the device, or recompile the model
        nothing loads any more
        ") };
    }
    assert_snapshot!(stage.play("no token"), @r"
    a step on cuda:0 ended without choosing a token: recompile the model
    a step on cuda:0 ended without choosing a token: recompile the model
    another session loads
    ");
}
