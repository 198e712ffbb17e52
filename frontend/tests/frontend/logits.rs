//! Logits of the tiny models under the reference interpreter against those of transformers.

use crate::fixtures::{import_tiny, smollm2, tiny};
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use waveloom_frontend::{ImportOptions, Imported};
use waveloom_ir::interp::{Data, Interpreter, Real, Tensor};

/// Largest difference, relative to the largest logit. f32 sums in another order differ by a few
/// 1e-6 here; a wrong angle, mask or norm by 1e-2 and more.
const TOLERANCE: f64 = 1e-4;

/// What transformers computed.
struct Reference {
    prompt: Vec<i32>,
    /// One row per position of the prompt.
    prompt_logits: Vec<Vec<f64>>,
    greedy: Vec<i32>,
    /// Row i is what `greedy[i]` was chosen from.
    greedy_logits: Vec<Vec<f64>>,
}

impl Reference {
    fn read(name: &str) -> Reference {
        let json = fs::read(tiny(&format!("{name}.json"))).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        let tokens = |key: &str| -> Vec<i32> {
            let items = json[key].as_array().unwrap().iter();
            items.map(|id| id.as_i64().unwrap() as i32).collect()
        };
        let file = fs::read(tiny(&format!("{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        let rows = |key: &str| -> Vec<Vec<f64>> {
            let tensor = file.tensor(key).unwrap();
            let (values, _) = tensor.data().as_chunks();
            let values: Vec<f64> = values.iter().map(|&v| f32::from_le_bytes(v).into()).collect();
            values.chunks(tensor.shape()[1]).map(<[f64]>::to_vec).collect()
        };
        Reference {
            prompt: tokens("prompt"),
            prompt_logits: rows("prompt_logits"),
            greedy: tokens("greedy"),
            greedy_logits: rows("greedy_logits"),
        }
    }
}

/// Runs `@step` with the caches that it keeps.
struct Session<'m, R> {
    interpreter: Interpreter<'m, R>,
    model: &'m Imported,
    caches: Vec<Tensor<R>>,
    position: u64,
}

impl<'m, R: Real> Session<'m, R> {
    fn new(model: &'m Imported) -> Self {
        let config = &model.info.config;
        let shape = [model.info.max_context, config.kv_heads, config.head_dim].map(u64::from);
        let count = shape.iter().product::<u64>() as usize;
        let cache = Tensor::reals(shape, vec![R::from_f64(0.0); count]);
        Session {
            interpreter: Interpreter::new(&model.module, &model.weights),
            model,
            caches: vec![cache; 2 * config.layers() as usize],
            position: 0,
        }
    }

    /// Feeds tokens; gives the logits after token `last` of them.
    fn step(&mut self, tokens: &[i32], last: usize) -> Vec<f64> {
        let module = &self.model.module;
        let count = tokens.len() as u64;
        let first = self.position as i32;
        let positions: Vec<i32> = (first..first + tokens.len() as i32).collect();
        self.position += count;
        let mut inputs = vec![
            Tensor::ints([count], tokens),
            Tensor::ints([count], positions),
            Tensor::ints([1], [last as i32]),
        ];
        inputs.append(&mut self.caches);
        let symbol = |name| module.symbol(name).unwrap();
        let bindings = [(symbol("T"), count), (symbol("S"), self.position)];
        let step = module.function("step").unwrap();
        let mut results = self.interpreter.run(step, &inputs, &bindings).unwrap();
        self.caches = results.split_off(1);
        match &results[0].data {
            Data::Real(values) => values.iter().map(|v| v.to_f64()).collect(),
            other => panic!("logits are {other:?}"),
        }
    }
}

/// Largest difference relative to the largest reference value.
fn difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let pairs = found.iter().zip(expected);
    pairs.fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / largest
}

fn argmax(logits: &[f64]) -> i32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.unwrap() as i32
}

/// The prompt in chunks of `chunk`, then the greedy continuation token by token.
fn check<R: Real>(model: &str, reference: &str, chunk: usize) {
    let reference = Reference::read(reference);
    let imported = import_tiny(model);
    let mut session = Session::<R>::new(&imported);
    let mut worst: f64 = 0.0;
    let mut logits = vec![];
    for (i, tokens) in reference.prompt.chunks(chunk).enumerate() {
        logits = session.step(tokens, tokens.len() - 1);
        let row = i * chunk + tokens.len() - 1;
        worst = worst.max(difference(&logits, &reference.prompt_logits[row]));
    }
    for (&token, expected) in reference.greedy.iter().zip(&reference.greedy_logits) {
        worst = worst.max(difference(&logits, expected));
        assert_eq!(argmax(&logits), token, "{model}");
        logits = session.step(&[token], 0);
    }
    eprintln!("{model}, chunks of {chunk}: largest difference {worst:.1e}");
    assert!(worst <= TOLERANCE, "{model}: {worst}");
}

/// Prompts at once, in chunks that do not divide them, and token by token.
fn check_all(model: &str, reference: &str) {
    check::<f32>(model, reference, 24);
    check::<f32>(model, reference, 7);
    check::<f32>(model, reference, 1);
    check::<f64>(model, reference, 24);
}

macro_rules! models {
    ($($test:ident: $model:literal, $reference:literal;)*) => {$(
        #[test]
        fn $test() {
            check_all($model, $reference);
        }
    )*};
}

models! {
    llama: "llama", "llama/reference";
    llama3: "llama3", "llama3/reference";
    mistral: "mistral", "mistral/reference";
    qwen2: "qwen2", "qwen2/reference";
    qwen3: "qwen3", "qwen3/reference";
    gguf_llama: "gguf/llama.gguf", "llama/reference";
    gguf_llama3: "gguf/llama3.gguf", "llama3/reference";
    gguf_qwen2: "gguf/qwen2.gguf", "qwen2/reference";
    gguf_qwen3: "gguf/qwen3.gguf", "qwen3/reference";
    gguf_mixed: "gguf/mixed.gguf", "gguf/mixed.reference";
}

/// Rows other than the last of a step can be asked for, and see nothing of what follows them.
#[test]
fn every_row_of_a_prompt() {
    let reference = Reference::read("mistral/reference");
    let model = import_tiny("mistral");
    for (row, expected) in reference.prompt_logits.iter().enumerate() {
        let logits = Session::<f32>::new(&model).step(&reference.prompt, row);
        assert!(difference(&logits, expected) <= TOLERANCE, "row {row}");
    }
}

/// The real model's first step on the shortest golden prompt: its 16 largest logits.
#[test]
fn real_model() {
    let Some(path) = smollm2() else {
        return;
    };
    let golden: Value = serde_json::from_str(include_str!("smollm2_prompts.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap().iter();
    let tokens = |case: &Value| -> Vec<i32> {
        let ids = case["prompt_ids"].as_array().unwrap().iter();
        ids.map(|id| id.as_i64().unwrap() as i32).collect()
    };
    let case = cases.min_by_key(|case| tokens(case).len()).unwrap();
    let prompt = tokens(case);
    let options = ImportOptions { max_context: Some(64), ..ImportOptions::default() };
    let model = waveloom_frontend::import(&path, options).unwrap();
    let logits = Session::<f32>::new(&model).step(&prompt, prompt.len() - 1);
    assert_eq!(i64::from(argmax(&logits)), case["greedy_ids"][0]);
    let top = case["top16"].as_array().unwrap().iter();
    let (found, expected): (Vec<f64>, Vec<f64>) = top
        .map(|pair| (logits[pair[0].as_u64().unwrap() as usize], pair[1].as_f64().unwrap()))
        .unzip();
    let difference = difference(&found, &expected);
    eprintln!("SmolLM2-135M: largest difference {difference:.1e}");
    assert!(difference <= TOLERANCE, "{difference}");
}

/// The same model as safetensors and as GGUF, in types that keep its values, gives the same logits,
/// bit by bit where both make the same frequencies.
#[test]
fn formats_agree() {
    for name in ["llama", "qwen2", "qwen3"] {
        let logits = |model: &str| {
            let options = ImportOptions::default();
            let model = waveloom_frontend::import(&tiny(model), options).unwrap();
            Session::<f32>::new(&model).step(&[5, 9, 17, 200, 31], 4)
        };
        assert_eq!(logits(name), logits(&format!("gguf/{name}.gguf")), "{name}");
    }
}
