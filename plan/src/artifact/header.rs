//! The safetensors header: built for the writer, and taken apart defensively for the reader.

use super::manifest::{self, Manifest, chunk_count};
use super::{ALIGNMENT, ArtifactError};
use crate::FORMAT_VERSION;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::ops::Range;
use std::path::Path;

/// Metadata key of the manifest.
const MANIFEST: &str = "waveloom.manifest";
/// Metadata key of the header's own digest.
const DIGEST: &str = "waveloom.header";
/// Characters of a digest.
const HEX: usize = 64;
/// Bytes of the length that opens the file.
pub const LENGTH_BYTES: usize = 8;
/// The safetensors library reads no larger header.
const MAX_HEADER: u64 = 100_000_000;

/// Everything before the data, for sections of `sizes` bytes in the manifest's order.
pub fn encode(manifest: &Manifest, sizes: &[u64]) -> Vec<u8> {
    let mut fields = Map::new();
    let text = json!(manifest).to_string();
    fields.insert("__metadata__".into(), json!({ DIGEST: "0".repeat(HEX), MANIFEST: text }));
    let mut start = 0;
    for (section, bytes) in manifest.sections.iter().zip(sizes) {
        let end = start + bytes;
        let tensor = json!({ "dtype": "U8", "shape": [bytes], "data_offsets": [start, end] });
        fields.insert(section.name.clone(), tensor);
        start = end;
    }
    let json = Value::Object(fields).to_string();
    let total = (LENGTH_BYTES + json.len()).next_multiple_of(ALIGNMENT as usize);
    let mut bytes = ((total - LENGTH_BYTES) as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(total, b' ');
    sign(&mut bytes);
    bytes
}

/// Puts the digest of a header where zeros stand for it.
pub fn sign(bytes: &mut [u8]) {
    let digest = manifest::digest(bytes);
    if let Some(place) = digest_place(bytes) {
        bytes[place].copy_from_slice(digest.as_bytes());
    }
}

/// Where the header's digest stands in the bytes before the data.
pub fn digest_place(bytes: &[u8]) -> Option<Range<usize>> {
    let key = format!("\"{DIGEST}\":\"");
    let start = bytes.windows(key.len()).position(|window| window == key.as_bytes())? + key.len();
    let place = start..start + HEX;
    bytes.get(place.clone())?;
    Some(place)
}

/// A header that hangs together.
pub struct Header {
    /// The manifest.
    pub manifest: Manifest,
    /// The header's digest.
    pub digest: String,
    /// Where each of its sections lies in the file.
    pub ranges: Vec<Range<usize>>,
}

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Takes the header of `file` apart. On success the digest of the header matches, and the
/// sections follow each other without holes up to the end of the file.
pub fn decode(path: &Path, file: &[u8]) -> Result<Header, ArtifactError> {
    let bad = |problem: &str| ArtifactError::header(path, problem);
    let head = split(path, file)?;
    let mut fields: Map<String, Value> = serde_json::from_slice(&head[LENGTH_BYTES..])
        .map_err(|error| ArtifactError::header(path, format!("not JSON: {error}")))?;
    let metadata = fields.remove("__metadata__").unwrap_or_default();
    let Some(manifest) = metadata.get(MANIFEST).and_then(Value::as_str) else {
        let problem = format!("its header has no `{MANIFEST}`");
        return Err(ArtifactError::NotAnArtifact { path: path.into(), problem });
    };
    let written = metadata.get(DIGEST).and_then(Value::as_str).ok_or_else(|| bad("no digest"))?;
    if digest_of(head).as_deref() != Some(written) {
        return Err(bad("its digest does not match"));
    }
    let digest = written.to_string();
    let manifest = parse_manifest(path, manifest)?;
    let ranges = section_ranges(path, &manifest, fields, head.len(), file.len())?;
    Ok(Header { manifest, digest, ranges })
}

/// The bytes before the data.
fn split<'a>(path: &Path, file: &'a [u8]) -> Result<&'a [u8], ArtifactError> {
    let alien = |problem: &str| ArtifactError::NotAnArtifact {
        path: path.into(),
        problem: problem.to_string(),
    };
    let length = file.first_chunk().ok_or_else(|| alien("it has less than eight bytes"))?;
    let length = u64::from_le_bytes(*length);
    if file.get(LENGTH_BYTES).is_some_and(|&byte| byte != b'{') {
        return Err(alien("no header starts at byte 8"));
    }
    if length > MAX_HEADER {
        return Err(alien("it begins with an absurd header length"));
    }
    let total = LENGTH_BYTES + length as usize;
    let short = || {
        ArtifactError::header(path, format!("it needs {total} bytes, the file has {}", file.len()))
    };
    file.get(..total).ok_or_else(short)
}

/// The digest that the header should have.
fn digest_of(head: &[u8]) -> Option<String> {
    let mut zeroed = head.to_vec();
    let place = digest_place(head)?;
    zeroed.get_mut(place)?.fill(b'0');
    Some(manifest::digest(&zeroed))
}

fn parse_manifest(path: &Path, text: &str) -> Result<Manifest, ArtifactError> {
    // The version first: another one may have another manifest.
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let bad = |error| ArtifactError::header(path, format!("its manifest is not readable: {error}"));
    let Versioned { format: found } = serde_json::from_str(text).map_err(bad)?;
    if found != FORMAT_VERSION {
        return Err(ArtifactError::Format { path: path.into(), found, expected: FORMAT_VERSION });
    }
    serde_json::from_str(text).map_err(bad)
}

fn section_ranges(
    path: &Path,
    manifest: &Manifest,
    mut fields: Map<String, Value>,
    data: usize,
    file_bytes: usize,
) -> Result<Vec<Range<usize>>, ArtifactError> {
    let mut ranges = Vec::with_capacity(manifest.sections.len());
    let mut end = 0u64;
    for section in &manifest.sections {
        let name = &section.name;
        let bad =
            |problem: &str| ArtifactError::header(path, format!("section `{name}`: {problem}"));
        let tensor = fields.remove(name).ok_or_else(|| bad("not among the tensors"))?;
        let tensor: Tensor =
            serde_json::from_value(tensor).map_err(|error| bad(&error.to_string()))?;
        let (start, stop) = tensor.data_offsets;
        let bytes = stop.checked_sub(start).ok_or_else(|| bad("ends before it starts"))?;
        if start != end || tensor.dtype != "U8" || tensor.shape != [bytes] {
            return Err(bad("not a vector of U8 that follows the section before it"));
        }
        if section.blake3.len() as u64 != chunk_count(bytes) {
            return Err(bad("wrong number of digests"));
        }
        end = stop;
        // Inside the file once the sum has been compared with its size, below.
        let place = |offset: u64| usize::try_from(offset).ok()?.checked_add(data);
        let range = place(start).zip(place(stop)).ok_or_else(|| bad("beyond all memory"))?;
        ranges.push(range.0..range.1);
    }
    if let Some((name, _)) = fields.iter().next() {
        return Err(ArtifactError::header(path, format!("tensor `{name}` is not in the manifest")));
    }
    let expected = end.saturating_add(data as u64);
    if expected != file_bytes as u64 {
        let found = file_bytes as u64;
        return Err(ArtifactError::Length { path: path.into(), found, expected });
    }
    Ok(ranges)
}
