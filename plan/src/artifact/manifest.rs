//! The manifest: what the file is, and the digests of its sections.

use serde::{Deserialize, Serialize};

/// Content of `waveloom.manifest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`crate::FORMAT_VERSION`]; stays the first field in every version.
    pub format: u32,
    /// Name and version of the compiler.
    pub compiler: String,
    /// Name of the model.
    pub model: String,
    /// Targets that the file has a plan, code and weights for.
    pub targets: Vec<String>,
    /// Digests, in the order of the sections in the file.
    pub sections: Vec<SectionDigests>,
}

/// Digests of one section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionDigests {
    /// The section.
    pub name: String,
    /// BLAKE3 in hexadecimal of each chunk of 4 MiB, of which the last may be shorter;
    /// one, of no bytes, where the section is empty.
    pub blake3: Vec<String>,
}

/// Bytes per digest.
pub const CHUNK: u64 = 4 << 20;

/// Number of digests of a section of `bytes`.
pub fn chunk_count(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK).max(1)
}

/// The digest of one chunk.
pub fn digest(chunk: &[u8]) -> String {
    blake3::hash(chunk).to_hex().to_string()
}
