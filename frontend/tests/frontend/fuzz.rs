//! Damaged files are errors, or are models: never a panic. Seeded, so that a failure comes again.

use crate::fixtures::{copy_tiny, import, small_gguf};
use std::fs;
use std::path::Path;
use waveloom_ir::Weights;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Changes a few bytes, or writes an extreme number, or repeats or removes a stretch, or truncates.
/// Only the first `reach` bytes are touched, where the structure is.
fn mutate(original: &[u8], reach: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let reach = reach.min(bytes.len());
    for _ in 0..=random.below(3) {
        let at = random.below(reach.min(bytes.len()));
        match random.below(8) {
            0..=2 => bytes[at] = random.next() as u8,
            3 => bytes[at] ^= 1 << random.below(8),
            4 => {
                let extremes = [0, 1, u64::MAX, i64::MAX as u64, 1 << 32, 1 << 61, 255];
                let value = extremes[random.below(extremes.len())].to_le_bytes();
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            5 => bytes.truncate(at.max(1)),
            6 => {
                let end = (at + random.below(16)).min(bytes.len());
                let stretch = bytes[at..end].to_vec();
                bytes.splice(at..at, stretch);
            }
            _ => {
                let end = (at + random.below(16)).min(bytes.len() - 1).max(at);
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

/// Imports, and reads every weight of what could be imported. Gives whether it could.
fn survives(path: &Path) -> bool {
    match import(path) {
        Ok(model) => {
            for weight in &model.module.weights {
                assert!(model.weights.bytes(&weight.name).is_some());
            }
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Mutates one file of a model many times; some attempts must fail and, so that the deeper
/// stages are reached, some must not.
fn fuzz(model: &Path, file: &Path, reach: usize, times: usize, seed: u64) {
    let original = fs::read(file).unwrap();
    assert!(survives(model), "the undamaged model imports");
    let mut random = Random(seed);
    let mut imported = 0;
    for _ in 0..times {
        // A new file each time: some file systems flush one that is truncated and written again.
        fs::remove_file(file).unwrap();
        fs::write(file, mutate(&original, reach, &mut random)).unwrap();
        imported += usize::from(survives(model));
    }
    fs::write(file, original).unwrap();
    assert!(imported > 0 && imported < times, "{imported} of {times}");
}

#[test]
fn damaged_gguf_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = small_gguf().write(directory.path());
    fuzz(&path, &path, 1500, 20000, 1);
}

#[test]
fn damaged_sentence_piece_vocabularies() {
    let directory = tempfile::tempdir().unwrap();
    let path = small_gguf()
        .str("tokenizer.ggml.model", "llama")
        .f32s("tokenizer.ggml.scores", &[0.0, 0.0, -1.0, -2.0, 0.0, -3.0, -4.0, -5.0])
        .i32s("tokenizer.ggml.token_type", &[2, 3, 1, 1, 1, 6, 4, 5])
        .write(directory.path());
    fuzz(&path, &path, 1500, 10000, 2);
}

#[test]
fn damaged_safetensors_files() {
    let directory = copy_tiny("qwen2");
    let file = directory.path().join("model.safetensors");
    fuzz(directory.path(), &file, 3000, 2000, 3);
}

#[test]
fn damaged_json_files() {
    let directory = copy_tiny("llama");
    let files = [
        "config.json",
        "model.safetensors.index.json",
        "tokenizer_config.json",
        "generation_config.json",
    ];
    for (seed, name) in files.into_iter().enumerate() {
        let file = directory.path().join(name);
        fuzz(directory.path(), &file, usize::MAX, 1500, 4 + seed as u64);
    }
}

/// Values that parse and make no sense.
#[test]
fn absurd_configurations() {
    for model in ["llama3", "mistral", "qwen3"] {
        let directory = copy_tiny(model);
        let file = directory.path().join("config.json");
        let text = fs::read_to_string(&file).unwrap();
        let absurd = [
            "0",
            "-1",
            "1",
            "3",
            "4294967295",
            "4294967296",
            "18446744073709551615",
            "1e308",
            "-0.5",
            "null",
            "true",
            "\"x\"",
            "[]",
            "{}",
            "[0]",
            "[[]]",
        ];
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((key, _)) = line.split_once(": ") else {
                continue;
            };
            let comma = if line.ends_with(',') { "," } else { "" };
            for value in absurd {
                let changed = format!("{key}: {value}{comma}");
                let mut lines = lines.clone();
                lines[at] = &changed;
                fs::remove_file(&file).unwrap();
                fs::write(&file, lines.join("\n")).unwrap();
                survives(directory.path());
            }
        }
    }
}
