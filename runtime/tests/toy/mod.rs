//! A toy model: a plan made by hand, kernels compiled from C, and the same model in Rust.
#![allow(dead_code)]

pub mod gpu;
pub mod launches;
pub mod scenes;

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use waveloom_plan::artifact::{code_section, plan_section, weight_section};
use waveloom_plan::*;

pub const VOCAB: u32 = 64;
pub const CONTEXT: u32 = 40;
pub const CHUNK: u32 = 8;

const T: usize = 0;
const S: usize = 1;
const C: usize = 2;

const WEIGHT: BufferId = 0;
const MIXED: BufferId = 1;
const CACHE: BufferId = 2;
const TOKENS: BufferId = 3;
const POSITIONS: BufferId = 4;
const LAST: BufferId = 5;
const LOGITS: BufferId = 6;
const SAMPLING: BufferId = 7;
const HISTORY: BufferId = 8;

/// Bytes of `count` words, rounded up to 64.
fn words(count: Expr) -> Expr {
    let bytes = Expr::from(4) * count;
    Expr::from(64) * Expr::CeilDiv(Box::new(bytes), Box::new(Expr::from(64)))
}

fn buffers() -> Vec<Buffer> {
    let buffer = |name: &str, segment, offset: i64, bytes: Expr| Buffer {
        name: name.into(),
        segment,
        offset: offset.into(),
        bytes,
    };
    vec![
        buffer("weight", Segment::Constants, 0, (4 * i64::from(VOCAB)).into()),
        buffer("mixed", Segment::Arena, 0, words(Expr::Symbol(C))),
        buffer("cache", Segment::State, 0, words(Expr::Symbol(C))),
        buffer("tokens", Segment::Io, 0, 32.into()),
        buffer("positions", Segment::Io, 64, 32.into()),
        buffer("last", Segment::Io, 128, 4.into()),
        buffer("logits", Segment::Io, 192, 256.into()),
        buffer("sampling", Segment::Io, 448, 64.into()),
        buffer("history", Segment::Io, 512, words(Expr::Symbol(C) + Expr::from(1))),
    ]
}

fn programs() -> Vec<Program> {
    let launch =
        |kernel, grid: Expr, buffers: &[BufferId], scalars: &[Expr], writes: &[BufferId]| {
            let buffers = buffers.iter().map(|id| Arg::Buffer(*id));
            let args = buffers.chain(scalars.iter().cloned().map(Arg::Scalar)).collect();
            Launch { kernel, grid, args, writes: writes.to_vec() }
        };
    let (tokens, length, vocab) = (Expr::Symbol(T), Expr::Symbol(S), Expr::from(i64::from(VOCAB)));
    let model = vec![
        launch(0, tokens, &[TOKENS, POSITIONS, WEIGHT, CACHE], &[], &[CACHE]),
        launch(1, length.clone(), &[CACHE, MIXED], &[], &[MIXED]),
        launch(
            2,
            vocab.clone(),
            &[MIXED, POSITIONS, LAST, LOGITS],
            &[length.clone(), vocab.clone()],
            &[LOGITS],
        ),
    ];
    let sampler = launch(
        3,
        1.into(),
        &[LOGITS, SAMPLING, TOKENS, POSITIONS, LAST, HISTORY],
        &[length, vocab],
        &[TOKENS, POSITIONS, LAST, HISTORY],
    );
    let program = |name: &str, launches| Program { name: name.into(), launches };
    let decode = model.iter().cloned().chain([sampler.clone()]).collect();
    vec![program("prefill", model), program("decode", decode), program("sample", vec![sampler])]
}

/// The plan of the toy model.
pub fn plan() -> Plan {
    let symbol = |name: &str, max: u32| Symbol { name: name.into(), min: 1, max: i64::from(max) };
    let kernel = |name: &str| Kernel {
        name: name.into(),
        summary: "toy".into(),
        workgroup: 0,
        shared_bytes: 0,
        work: None,
        facts: None,
    };
    let model = ModelInfo {
        name: "toy".into(),
        vocab: VOCAB,
        max_context: CONTEXT,
        prefill_chunk: CHUNK,
        stop_tokens: vec![],
        weight_bytes_per_token: 4 * u64::from(VOCAB),
    };
    Plan {
        version: FORMAT_VERSION,
        target: "cpu".into(),
        requires: vec![],
        machine: None,
        weights: "cpu".into(),
        synthetic: None,
        persistent: None,
        model,
        symbols: vec![symbol("T", CHUNK), symbol("S", CONTEXT), symbol("C", CONTEXT)],
        buffers: buffers(),
        segments: Segments {
            constants: (4 * i64::from(VOCAB)).into(),
            arena: words(Expr::Symbol(C)),
            state: words(Expr::Symbol(C)),
            io: Expr::from(512) + words(Expr::Symbol(C) + Expr::from(1)),
        },
        scratch_bytes: 64,
        kernels: ["append", "mix", "predict", "sample"].map(kernel).into(),
        programs: programs(),
        decode_loop: DecodeLoop {
            step_tokens: T,
            cache_length: S,
            context: C,
            tokens: TOKENS,
            positions: POSITIONS,
            last: LAST,
            logits: LOGITS,
            sampling: SAMPLING,
            history: HISTORY,
            prefill: 0,
            decode: 1,
            sample: 2,
        },
        memory: MemoryReport { arena_peak: 192, arena_lower_bound: 192 },
    }
}

/// The weight of a token, times `scale`.
fn weight(token: u32, scale: u32) -> u32 {
    (token * token + 3) * scale
}

/// The weights as bytes.
pub fn weights(scale: u32) -> Vec<u8> {
    (0..VOCAB).flat_map(|token| weight(token, scale).to_le_bytes()).collect()
}

/// What makes up the weights from byte `offset` of the constants segment on, and random bytes before
/// them.
pub fn synthetic(offset: u64, scale: u32) -> Synthetic {
    let weights = weights(scale);
    let fills = vec![
        Fill::range(0, offset.max(1), Content::Bytes),
        Fill::range(offset, weights.len() as u64, Content::Repeat(weights)),
    ];
    Synthetic { seed: 9, fills }
}

/// The kernels as a shared object; `None`, and a word about it, where there is no C compiler.
pub fn code(folder: &Path, flags: &[&str]) -> Option<Vec<u8>> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/toy/kernels.c");
    let object = folder.join("kernels.so");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O2", "-nostdlib", "-o"]).arg(&object).arg(source);
    match command.args(flags).status() {
        Ok(status) => assert!(status.success(), "cc fails on {source}"),
        Err(error) => {
            println!("skipped: no C compiler for the toy kernels: {error}");
            return None;
        }
    }
    Some(std::fs::read(object).unwrap())
}

/// A folder with an artifact.
pub struct Toy {
    pub folder: TempDir,
    pub path: PathBuf,
}

impl Toy {
    /// The toy model with a changed plan.
    pub fn with_plan(change: impl FnOnce(&mut Plan)) -> Option<Toy> {
        let folder = tempfile::tempdir().unwrap();
        let code = code(folder.path(), &[])?;
        let mut plan = plan();
        change(&mut plan);
        Some(Toy::write(folder, &[plan], &code, &weights(1)))
    }

    /// Plans for several targets that share code and weights.
    pub fn write(folder: TempDir, plans: &[Plan], code: &[u8], weights: &[u8]) -> Toy {
        let mut sections = vec![];
        for plan in plans {
            sections.push(Section::from_bytes(plan_section(&plan.target), plan.to_json()));
            sections.push(Section::from_bytes(code_section(&plan.target), code));
        }
        let mut sets: Vec<&String> = plans.iter().map(|plan| &plan.weights).collect();
        sets.dedup();
        for set in sets {
            sections.push(Section::from_bytes(weight_section(set, "w"), weights));
        }
        let info = ArtifactInfo {
            compiler: "test".into(),
            model: "toy".into(),
            targets: plans.iter().map(|plan| plan.target.clone()).collect(),
        };
        let path = folder.path().join("toy.wlm");
        write_artifact(&path, &info, sections).unwrap();
        Toy { folder, path }
    }

    /// The open artifact.
    pub fn artifact(&self) -> Artifact {
        Artifact::open(&self.path).unwrap()
    }
}

/// Logits after `tokens`, by the toy model in Rust.
pub fn logits(tokens: &[u32], scale: u32) -> Vec<f32> {
    let mixed = tokens.iter().zip(0u32..).map(|(&token, position)| {
        let cached = weight(token, scale).wrapping_mul(31).wrapping_add(position);
        cached.wrapping_mul(position + 7)
    });
    let sum = mixed.fold(0u32, u32::wrapping_add);
    (0..VOCAB).map(|v| -(((v * 17).wrapping_add(sum) % VOCAB) as f32)).collect()
}

/// The token after `tokens`.
pub fn next(tokens: &[u32], scale: u32) -> u32 {
    let logits = logits(tokens, scale);
    (0..VOCAB).max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize])).unwrap()
}

/// The `count` tokens after `prompt`.
pub fn continuation(prompt: &[u32], count: usize, scale: u32) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        tokens.push(next(&tokens, scale));
    }
    tokens.split_off(prompt.len())
}

/// A prompt of `count` tokens.
pub fn prompt(count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 11 + 5) % VOCAB).collect()
}
