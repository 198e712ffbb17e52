//! GGUF files, the format of llama.cpp.

mod config;
mod metadata;
mod reader;
mod text;
pub(crate) mod tokenizer;

use crate::checkpoint::{Checkpoint, RopeRows};
use crate::decoder::names::WeightName;
use crate::error::{ImportError, Result};
use crate::mapped::MappedFile;
use crate::model::{ReadModel, Tensors};
use metadata::Metadata;
use reader::Gguf;
use std::path::Path;

/// Reads the model in `path`.
pub(crate) fn read(path: &Path) -> Result<ReadModel> {
    let file = MappedFile::open(path)?;
    let mut model = interpret(path, &file)?;
    if let Tensors::Stored { checkpoint, .. } = &mut model.tensors {
        checkpoint.files.push(file);
    }
    Ok(model)
}

/// Everything but the mapped file, which the caller adds.
fn interpret(path: &Path, bytes: &[u8]) -> Result<ReadModel> {
    let Gguf { metadata, tensors } =
        reader::parse(bytes).map_err(|problem| ImportError::malformed(path, problem))?;
    let meta = Metadata { file: path, map: &metadata };
    let architecture = config::architecture(&meta)?;
    let config = config::decoder_config(&meta, architecture, &tensors, bytes)?;
    let text = text::read(&meta, config.vocab)?;
    let tokenizer = tokenizer::read(&meta)?;
    let name = meta.str("general.name")?.map(String::from);
    let rope_rows = match architecture.gguf {
        "llama" => RopeRows::Pairs,
        _ => RopeRows::Halves,
    };
    let checkpoint = Checkpoint {
        path: path.to_path_buf(),
        files: vec![],
        tensors,
        known_dtypes: reader::KNOWN_DTYPES,
        rope_rows,
    };
    Ok(ReadModel {
        name: name.unwrap_or_else(|| file_stem(path)),
        architecture: architecture.class,
        config_file: path.to_path_buf(),
        config,
        tensors: Tensors::Stored { checkpoint, file_name: WeightName::gguf },
        tokenizer_json: tokenizer,
        chat_template: text.chat_template,
        generation: text.generation,
    })
}

fn file_stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    stem.to_string_lossy().into_owned()
}
