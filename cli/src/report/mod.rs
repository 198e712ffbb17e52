//! The report: all that an artifact says of itself and, where it is at hand, how it was made.
//!
//! In: an [`Artifact`], a [`Compilation`] from the compiler. Out: one serializable [`Report`],
//! which `inspect` shows as text or as JSON, and [`page`] as a page. `docs/report.md` documents it.
//! Never: names a crate of the compiler; says anything on the page that is not in the JSON.

pub mod compilation;
mod lifetimes;
pub mod page;
mod target;

pub use compilation::Compilation;
pub use lifetimes::{Lifetime, ProgramLifetimes};
pub use target::{ContextMemory, Kernel, Memory, Target};

use crate::Failure;
use serde::Serialize;
use waveloom_plan::Artifact;

/// Version of the report's JSON. It rises when a field changes its meaning or goes.
pub const VERSION: u32 = 1;

/// Everything that is known of an artifact.
#[derive(Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Path of the artifact.
    pub file: String,
    /// Its size.
    pub file_bytes: u64,
    /// Digest of the whole file, BLAKE3: that of its header, which has the digests of all else.
    pub digest: String,
    /// Version of the artifact's format.
    pub format: u32,
    /// The compiler that made it.
    pub compiler: String,
    /// Name of the model.
    pub model: String,
    /// What is there for each target.
    pub targets: Vec<Target>,
    /// Pieces of the file.
    pub sections: Vec<Section>,
    /// How it was made, in a report of the compiler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compilation: Option<Compilation>,
}

/// A piece of the file.
#[derive(Serialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

impl Report {
    /// What an artifact says of itself.
    pub fn new(artifact: &Artifact) -> Result<Report, Failure> {
        let plans = artifact.targets().iter().map(|target| Target::new(artifact.plan(target)?));
        let manifest = artifact.manifest();
        let sections = artifact.sections().map(|section| Section {
            name: section.name.to_string(),
            offset: section.offset,
            bytes: section.bytes,
        });
        Ok(Report {
            version: VERSION,
            file: artifact.path().display().to_string(),
            file_bytes: artifact.file_bytes(),
            digest: artifact.digest().to_string(),
            format: manifest.format,
            compiler: manifest.compiler.clone(),
            model: manifest.model.clone(),
            targets: plans.collect::<Result<_, Failure>>()?,
            sections: sections.collect(),
            compilation: None,
        })
    }
}

#[cfg(test)]
mod tests;
