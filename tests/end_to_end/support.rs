//! What the tests share: compiled models, sessions, references.

use safetensors::SafeTensors;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use tempfile::TempDir;
use waveloom_codegen_hip::compile::{
    CompileOptions, CompileReport, IMPORT, Silent, Source, compile,
};
use waveloom_codegen_hip::{DecodeForm, Target};
use waveloom_frontend::{ImportOptions, import};
use waveloom_passes::WeightDtype;
use waveloom_plan::{Artifact, SamplingParams};
use waveloom_runtime::{GenerateOptions, LoadOptions, Session};

/// Context that the tests compile for.
pub const CONTEXT: u32 = 512;

/// A compiled model.
pub struct Compiled {
    /// The artifact.
    pub path: PathBuf,
    /// What the compiler said.
    pub report: CompileReport,
}

/// The model at `path` compiled for `target`, or several with commas between, with weights of `dtype`; compiled once per process.
pub fn compiled(path: &Path, dtype: WeightDtype, target: &str) -> Arc<Compiled> {
    compiled_as(path, dtype, target, DecodeForm::Launches)
}

/// [`compiled`] with a decode step of this form.
pub fn compiled_as(
    path: &Path,
    dtype: WeightDtype,
    target: &str,
    decode: DecodeForm,
) -> Arc<Compiled> {
    type Known = HashMap<(PathBuf, String), Arc<OnceLock<Arc<Compiled>>>>;
    static KNOWN: OnceLock<(TempDir, Mutex<Known>)> = OnceLock::new();
    let (dir, known) =
        KNOWN.get_or_init(|| (tempfile::tempdir().expect("a directory"), Mutex::default()));
    let key = (path.to_path_buf(), format!("{target}-{dtype:?}-{decode:?}"));
    let (slot, index) = {
        let mut known = known.lock().expect("no test panics with this lock");
        let index = known.len();
        (known.entry(key).or_default().clone(), index)
    };
    slot.get_or_init(|| {
        let output = dir.path().join(format!("{index}.wlm"));
        let report = compile_to(path, dtype, target, decode, &output);
        Arc::new(Compiled { path: output, report })
    })
    .clone()
}

/// Compiles to a given file.
pub fn compile_to(
    path: &Path,
    dtype: WeightDtype,
    target: &str,
    decode: DecodeForm,
    output: &Path,
) -> CompileReport {
    let options = ImportOptions { max_context: max_context(path), ..ImportOptions::default() };
    let imported = import(path, options).expect("the model imports");
    let source = Source {
        module: imported.module,
        weights: &imported.weights,
        after: IMPORT,
        synthetic: None,
        stop_tokens: imported.info.stop_tokens,
        sections: vec![],
    };
    let names = target.split(',');
    let targets = names.map(|name| Target::from_name(name).expect("a known target")).collect();
    compile(source, &CompileOptions { targets, dtype, decode }, output, &mut Silent)
        .expect("it compiles")
}

/// The real model has a long context of its own; the tiny ones keep theirs.
fn max_context(path: &Path) -> Option<u32> {
    path.to_string_lossy().contains("SmolLM2").then_some(CONTEXT)
}

/// A session over a compiled model, with the context that it was compiled for.
pub fn session(compiled: &Compiled, threads: usize) -> Session {
    session_with_context(compiled, threads, None)
}

/// A session over a compiled model with a KV cache of `context` positions.
pub fn session_with_context(compiled: &Compiled, threads: usize, context: Option<u32>) -> Session {
    let artifact = Artifact::open(&compiled.path).expect("the artifact opens");
    let options = LoadOptions { threads: Some(threads), context, ..LoadOptions::default() };
    Session::load(&artifact, options).expect("it loads")
}

/// A session over an artifact, with the context that it was compiled for.
pub fn session_of(artifact: &Artifact, threads: usize) -> Session {
    let options = LoadOptions { threads: Some(threads), ..LoadOptions::default() };
    Session::load(artifact, options).expect("it loads")
}

/// Greedy tokens after `prompt`, with the logits that each was chosen from.
pub fn greedy(session: &mut Session, prompt: &[u32], count: usize) -> (Vec<u32>, Vec<Vec<f32>>) {
    generate(session, prompt, count, SamplingParams::GREEDY, true)
}

/// Tokens after `prompt`, and the logits that each was chosen from if they are wanted.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    count: usize,
    sampling: SamplingParams,
    with_logits: bool,
) -> (Vec<u32>, Vec<Vec<f32>>) {
    let (mut tokens, mut logits) = (vec![], vec![]);
    let options = GenerateOptions {
        max_new_tokens: count,
        sampling,
        ignore_eos: true,
        logits: with_logits,
        ..GenerateOptions::default()
    };
    session
        .generate(prompt, &options, &mut |event| {
            tokens.push(event.token);
            logits.push(event.logits.to_vec());
            ControlFlow::Continue(())
        })
        .expect("it generates");
    (tokens, logits)
}

/// Largest absolute difference relative to the largest reference value.
pub fn relative_error(found: &[f32], reference: &[f32]) -> f32 {
    assert_eq!(found.len(), reference.len());
    let scale = reference.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = found.iter().zip(reference).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    worst / scale
}

/// The f32 tensor `name` of a safetensors file.
pub fn f32_tensor(bytes: &[u8], name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(bytes).expect("it parses");
    let tensor = tensors.tensor(name).expect("it has the tensor");
    let floats = tensor.data().chunks_exact(4);
    floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// SmolLM2-135M-Instruct as its GGUF, or a word about its absence.
pub fn smollm2() -> Option<PathBuf> {
    let path = std::env::var_os("WAVELOOM_SMOLLM2").map(PathBuf::from);
    if path.is_none() {
        println!("skipped: WAVELOOM_SMOLLM2 does not name the model; `./x test` does");
    }
    path
}

/// A file of this crate.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
