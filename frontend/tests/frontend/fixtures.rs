//! The committed tiny models, and a GGUF file and a Hugging Face directory made on the spot.

use std::path::{Path, PathBuf};
use waveloom_frontend::{ImportError, ImportOptions, Imported};

/// A file or directory below `tests/fixtures/tiny`.
pub fn tiny(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny");
    root.join(name)
}

/// Imports with default options.
pub fn import(path: &Path) -> Result<Imported, ImportError> {
    waveloom_frontend::import(path, ImportOptions::default())
}

/// Imports a committed model.
pub fn import_tiny(name: &str) -> Imported {
    import(&tiny(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The real model's GGUF file, if `WAVELOOM_SMOLLM2` names it.
pub fn smollm2() -> Option<PathBuf> {
    let path = std::env::var_os("WAVELOOM_SMOLLM2").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: WAVELOOM_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf");
    }
    path
}

/// Writes GGUF files field by field, right or wrong.
#[derive(Clone, Default)]
pub struct GgufWriter {
    metadata: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn string(text: &str) -> Vec<u8> {
    let length = (text.len() as u64).to_le_bytes();
    [&length, text.as_bytes()].concat()
}

impl GgufWriter {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        let entry = [&string(key), &kind.to_le_bytes()[..], value].concat();
        self.metadata.retain(|old| !old.starts_with(&string(key)));
        self.metadata.push(entry);
        self
    }

    /// Leaves a key out.
    pub fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|old| !old.starts_with(&string(key)));
        self
    }

    /// A u32.
    pub fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    /// An f32.
    pub fn f32(self, key: &str, value: f32) -> Self {
        self.entry(key, 6, &value.to_le_bytes())
    }

    /// A boolean.
    pub fn bool(self, key: &str, value: bool) -> Self {
        self.entry(key, 7, &[value.into()])
    }

    /// A string.
    pub fn str(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, &string(value))
    }

    fn array(self, key: &str, kind: u32, items: &[Vec<u8>]) -> Self {
        let count = (items.len() as u64).to_le_bytes();
        let value = [&kind.to_le_bytes()[..], &count, &items.concat()].concat();
        self.entry(key, 9, &value)
    }

    /// An array of strings.
    pub fn strs(self, key: &str, values: &[&str]) -> Self {
        let items: Vec<_> = values.iter().map(|text| string(text)).collect();
        self.array(key, 8, &items)
    }

    /// An array of i32.
    pub fn i32s(self, key: &str, values: &[i32]) -> Self {
        let items: Vec<_> = values.iter().map(|v| v.to_le_bytes().to_vec()).collect();
        self.array(key, 5, &items)
    }

    /// An array of f32.
    pub fn f32s(self, key: &str, values: &[f32]) -> Self {
        let items: Vec<_> = values.iter().map(|v| v.to_le_bytes().to_vec()).collect();
        self.array(key, 6, &items)
    }

    /// A tensor of `bytes` zeros, its shape outermost extent first, its type by ggml's number.
    pub fn tensor(mut self, name: &str, shape: &[u64], kind: u32, bytes: u64) -> Self {
        let shape = shape.iter().rev().copied().collect();
        self.tensors.retain(|(old, ..)| old != name);
        let data = vec![0; bytes as usize];
        self.tensors.push((name.into(), shape, kind, data));
        self
    }

    /// An F32 tensor.
    pub fn f32_tensor(self, name: &str, shape: &[u64]) -> Self {
        self.tensor(name, shape, 0, 4 * shape.iter().product::<u64>())
    }

    /// Leaves a tensor out.
    pub fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|(old, ..)| old != name);
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        out.extend(self.metadata.concat());
        let mut data = vec![];
        for (name, shape, kind, bytes) in &self.tensors {
            out.extend(string(name));
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|extent| out.extend(extent.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }

    /// Writes the file into `directory`.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join("model.gguf");
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }
}

/// The smallest llama: one layer, hidden size 32, 2 heads, 8 tokens.
pub fn small_gguf() -> GgufWriter {
    let tokens = ["<s>", "</s>", "a", "b", "ab", "c", "d", "e"];
    let mut writer = GgufWriter::default()
        .str("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.context_length", 64)
        .u32("llama.embedding_length", 32)
        .u32("llama.feed_forward_length", 32)
        .u32("llama.attention.head_count", 2)
        .u32("llama.attention.head_count_kv", 1)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "gpt-2")
        .strs("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &[3, 3, 1, 1, 1, 1, 1, 1])
        .strs("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 1)
        .f32_tensor("token_embd.weight", &[8, 32])
        .f32_tensor("output_norm.weight", &[32]);
    for (name, shape) in [
        ("attn_norm", &[32][..]),
        ("attn_q", &[32, 32]),
        ("attn_k", &[16, 32]),
        ("attn_v", &[16, 32]),
        ("attn_output", &[32, 32]),
        ("ffn_norm", &[32]),
        ("ffn_gate", &[32, 32]),
        ("ffn_up", &[32, 32]),
        ("ffn_down", &[32, 32]),
    ] {
        writer = writer.f32_tensor(&format!("blk.0.{name}.weight"), shape);
    }
    writer
}

/// Copies a committed model's directory, so that a test can damage it.
pub fn copy_tiny(name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(tiny(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    directory
}
