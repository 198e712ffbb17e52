//! The artifact: one safetensors file with plan, code, tokenizer and packed weights.
//!
//! The file is eight bytes of header length, a JSON header padded with spaces so that data starts
//! at a multiple of 64, and the sections: safetensors tensors of `U8`, one after the other
//! without holes. `__metadata__` has two entries: `waveloom.manifest`, a [`Manifest`] as JSON with
//! BLAKE3 digests of every section, and `waveloom.header`, the BLAKE3 digest of everything before
//! the data with this digest itself written as 64 zeros. So every byte of the file is covered by
//! a digest.

mod error;
mod header;
mod manifest;
mod mapped;
mod reader;
mod writer;

pub use error::ArtifactError;
pub use manifest::{Manifest, SectionDigests};
pub use reader::{Artifact, SectionInfo};
pub use writer::{ArtifactInfo, Section, write_artifact};

/// Section with the JSON of the tokenizers library.
pub const TOKENIZER: &str = "tokenizer.json";
/// Section with the Jinja chat template.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// Section with stop tokens, special tokens and sampling defaults.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// Section with the self-test.
pub const SELF_TEST: &str = "selftest.json";

/// Name of the section with the plan for a target.
pub fn plan_section(target: &str) -> String {
    format!("plan.{target}")
}

/// Name of the section with the code object for a target.
pub fn code_section(target: &str) -> String {
    format!("code.{target}")
}

/// Name of the section with a weight as packed for [`crate::Plan::weights`] `set`.
pub fn weight_section(set: &str, weight: &str) -> String {
    format!("{}{weight}", weights_prefix(set))
}

/// What the names of the sections of a set of weights start with.
fn weights_prefix(set: &str) -> String {
    format!("weights.{set}.")
}

/// The set that a section belongs to, if it holds a weight. The names of sets have no dots.
fn weights_set(section: &str) -> Option<&str> {
    section.strip_prefix("weights.")?.split_once('.').map(|(set, _)| set)
}

/// Sections of weights start at multiples of this many bytes and take a multiple of it.
const ALIGNMENT: u64 = 64;

#[cfg(test)]
mod tests;
