//! What can be wrong with an artifact.

use crate::{PlanError, SelfTestError};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why an artifact cannot be written or read.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The operating system refused to read.
    #[error("cannot read `{path}`: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused to write; nothing is left behind.
    #[error("cannot write `{path}`: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A section's content could not be made; nothing is left behind.
    #[error("cannot write section `{section}` of `{path}`: {source}", path = .path.display())]
    WriteSection {
        /// The file.
        path: PathBuf,
        /// The section.
        section: String,
        /// Why.
        source: io::Error,
    },
    /// The list of sections breaks a rule of the format: a mistake of the caller.
    #[error("section `{section}` cannot be written: {problem}")]
    Sections {
        /// The section.
        section: String,
        /// The rule.
        problem: &'static str,
    },
    /// A file of another kind.
    #[error("`{path}` is not a Waveloom artifact: {problem}; make one with `waveloom compile`", path = .path.display())]
    NotAnArtifact {
        /// The file.
        path: PathBuf,
        /// How it shows.
        problem: String,
    },
    /// The header is damaged.
    #[error("the header of `{path}` is damaged: {problem}; copy or compile the file again", path = .path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// How it shows.
        problem: String,
    },
    /// The file ends too early or too late.
    #[error("`{path}` has {found} bytes, its header says {expected}; copy or compile the file again", path = .path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// Another format version.
    #[error("`{path}` has format version {found}, this program reads {expected}: recompile the model", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// This program's.
        expected: u32,
    },
    /// A section's bytes are not what was written.
    #[error("section `{section}` of `{path}` is damaged: its digest does not match; copy or compile the file again", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The section.
        section: String,
    },
    /// There is no such section.
    #[error("`{path}` has no section `{section}`", path = .path.display())]
    NoSection {
        /// The file.
        path: PathBuf,
        /// The section.
        section: String,
    },
    /// A section that should be text is not.
    #[error("section `{section}` of `{path}` is not UTF-8 text", path = .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The section.
        section: String,
    },
    /// Compiled for other targets.
    #[error("`{path}` was compiled for {found}, not for {target}: recompile the model with `--target {target}`", path = .path.display())]
    NoTarget {
        /// The file.
        path: PathBuf,
        /// The target asked for.
        target: String,
        /// The targets there are.
        found: String,
    },
    /// The plan does not verify.
    #[error("section `plan.{target}` of `{path}`: {source}", path = .path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// The plan's target.
        target: String,
        /// What is wrong.
        source: Box<PlanError>,
    },
    /// The artifact cannot test itself.
    #[error("`{path}` has no self-test: compile the model without `--self-test off`, and with its weights", path = .path.display())]
    NoSelfTest {
        /// The file.
        path: PathBuf,
    },
    /// The self-test is not one of this artifact.
    #[error("section `selftest.json` of `{path}`: {source}", path = .path.display())]
    SelfTest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SelfTestError,
    },
    /// The weights are not as large as the plan says.
    #[error("`{path}` has {found} bytes of weights for {target}, its plan needs {expected}: recompile the model", path = .path.display())]
    Constants {
        /// The file.
        path: PathBuf,
        /// The target.
        target: String,
        /// What is there.
        found: u64,
        /// What the plan needs.
        expected: u64,
    },
}

impl ArtifactError {
    pub(super) fn read(path: &Path, source: io::Error) -> ArtifactError {
        ArtifactError::Read { path: path.into(), source }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> ArtifactError {
        ArtifactError::Write { path: path.into(), source }
    }

    pub(super) fn header(path: &Path, problem: impl Into<String>) -> ArtifactError {
        ArtifactError::Header { path: path.into(), problem: problem.into() }
    }
}
