//! Model directories in the layout of the Hugging Face hub.

mod config;
mod text;

use crate::checkpoint::{Checkpoint, RopeRows, Tensor};
use crate::decoder::names::WeightName;
use crate::error::{ImportError, Result};
use crate::json::{self, Fields};
use crate::mapped::MappedFile;
use crate::model::{ReadModel, Tensors};
use crate::safetensors;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// Reads the model in directory `dir`.
pub(crate) fn read(dir: &Path) -> Result<ReadModel> {
    let config_file = dir.join("config.json");
    if !config_file.is_file() {
        let path = dir.to_path_buf();
        return Err(ImportError::NotAModel { path });
    }
    let value = json::parse(&config_file, &read_file(&config_file)?)?;
    let fields = Fields::new(&config_file, &value)?;
    let architecture = config::architecture(fields)?;
    let config = config::decoder_config(fields, architecture)?;
    let checkpoint = checkpoint(dir)?;
    let text = text::read(dir, fields, config.vocab)?;
    Ok(ReadModel {
        name: name(dir),
        architecture: architecture.class,
        config,
        tensors: Tensors::Stored { checkpoint, file_name: WeightName::canonical },
        config_file,
        tokenizer_json: text.tokenizer_json,
        chat_template: text.chat_template,
        generation: text.generation,
    })
}

/// Reads a model's `config.json`, whatever it is called, and nothing else.
pub(crate) fn read_config(file: &Path) -> Result<ReadModel> {
    let value = json::parse(file, &read_file(file)?)?;
    let fields = Fields::new(file, &value)?;
    let architecture = config::architecture(fields)?;
    let config = config::decoder_config(fields, architecture)?;
    let dtype = config::dtype(fields)?;
    Ok(ReadModel {
        name: config_name(file),
        architecture: architecture.class,
        generation: text::generation(None, fields, config.vocab)?,
        config,
        tensors: Tensors::Implied(dtype),
        config_file: file.to_path_buf(),
        tokenizer_json: None,
        chat_template: None,
    })
}

/// The name of a model of which there is only this file: its own, or that of its directory if it is
/// called as every other.
fn config_name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    match file.canonicalize() {
        Ok(full) if stem == "config" => name(full.parent().unwrap_or(&full)),
        _ => stem.into_owned(),
    }
}

/// The directory's own name.
fn name(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let name = full.file_name().unwrap_or(OsStr::new("model"));
    name.to_string_lossy().into_owned()
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| ImportError::io(path, error))
}

/// The text of a file that need not be there.
fn read_optional(path: &Path) -> Result<Option<String>> {
    if !path.is_file() {
        return Ok(None);
    }
    String::from_utf8(read_file(path)?)
        .map(Some)
        .map_err(|_| ImportError::malformed(path, "not UTF-8"))
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of one file, or of the shards that the index names.
fn checkpoint(dir: &Path) -> Result<Checkpoint> {
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    let (path, files, tensors) = if single.is_file() {
        let file = MappedFile::open(&single)?;
        let tensors = safetensors::read(&file, 0)?;
        (single, vec![file], tensors)
    } else if index.is_file() {
        let (files, tensors) = shards(dir, &index)?;
        (index, files, tensors)
    } else {
        return Err(ImportError::malformed(
            dir,
            format!("neither `{SINGLE}` nor `{INDEX}` is there; other weight formats are not read"),
        ));
    };
    Ok(Checkpoint {
        path,
        files,
        tensors,
        known_dtypes: safetensors::KNOWN_DTYPES,
        rope_rows: RopeRows::Halves,
    })
}

fn shards(dir: &Path, index: &Path) -> Result<(Vec<MappedFile>, HashMap<String, Tensor>)> {
    let value = json::parse(index, &read_file(index)?)?;
    let map = Fields::new(index, &value)?;
    let map = map.object("weight_map")?.ok_or_else(|| map.missing("weight_map"))?;
    let mut names = BTreeSet::new();
    for tensor in map.keys() {
        names.insert(shard_name(map, tensor)?);
    }
    let (mut files, mut tensors) = (vec![], HashMap::new());
    for name in names {
        let file = MappedFile::open(&dir.join(name))?;
        let mut found = safetensors::read(&file, files.len())?;
        // A tensor counts only in the shard that the index names.
        found.retain(|tensor, _| matches!(map.str(tensor), Ok(Some(shard)) if shard == name));
        tensors.extend(found);
        files.push(file);
    }
    Ok((files, tensors))
}

/// The shard of a tensor: a plain file name, so that an index cannot reach out of its directory.
fn shard_name<'a>(map: Fields<'a>, tensor: &str) -> Result<&'a str> {
    let name = map.str(tensor)?.unwrap_or_default();
    let path = PathBuf::from(name);
    let mut components = path.components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == OsStr::new(name) => Ok(name),
        _ => Err(ImportError::malformed(
            map.file(),
            format!("the shard of `{tensor}` is not a file name: {name:?}"),
        )),
    }
}
