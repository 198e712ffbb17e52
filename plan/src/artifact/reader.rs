//! Reads an artifact: mapped into memory, every section checked at its first use.

use super::header::{self, Header};
use super::manifest::{self, CHUNK, Manifest, SectionDigests};
use super::{ArtifactError, SELF_TEST, code_section, mapped, plan_section, weights_prefix};
use crate::{Plan, SelfTest};
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// An open artifact; clones share it.
#[derive(Clone, Debug)]
pub struct Artifact {
    file: Arc<Mapped>,
}

#[derive(Debug)]
struct Mapped {
    path: PathBuf,
    map: Mmap,
    manifest: Manifest,
    digest: String,
    ranges: Vec<Range<usize>>,
    /// Sections whose digests have been found right.
    checked: Vec<AtomicBool>,
}

/// Where a section lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its first byte in the file.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

/// A chunk to check: a section's index and the chunk's index in it.
type Chunk = (usize, usize);

impl Artifact {
    /// Opens `path` and checks its header. The sections are checked as they are used.
    pub fn open(path: impl AsRef<Path>) -> Result<Artifact, ArtifactError> {
        let path = path.as_ref();
        let fail = |source| ArtifactError::read(path, source);
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(fail(io::Error::other("it is not a file")));
        }
        if metadata.len() == 0 {
            let problem = "it is empty".to_string();
            return Err(ArtifactError::NotAnArtifact { path: path.into(), problem });
        }
        let map = mapped::map(&file).map_err(fail)?;
        let Header { manifest, digest, ranges } = header::decode(path, &map)?;
        let checked = ranges.iter().map(|_| AtomicBool::new(false)).collect();
        let file = Mapped { path: path.into(), map, manifest, digest, ranges, checked };
        Ok(Artifact { file: Arc::new(file) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Size of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file.map.len() as u64
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.file.manifest
    }

    /// The digest of the whole file, BLAKE3 in hexadecimal: that of its header, which has the
    /// digests of all that follows.
    pub fn digest(&self) -> &str {
        &self.file.digest
    }

    /// Targets that the artifact was compiled for.
    pub fn targets(&self) -> &[String] {
        &self.file.manifest.targets
    }

    /// All sections, in the order of the file.
    pub fn sections(&self) -> impl Iterator<Item = SectionInfo<'_>> {
        let entries = self.file.manifest.sections.iter().zip(&self.file.ranges);
        entries.map(|(section, range)| SectionInfo {
            name: &section.name,
            offset: range.start as u64,
            bytes: range.len() as u64,
        })
    }

    /// Whether there is a section of this name.
    pub fn has(&self, name: &str) -> bool {
        self.index(name).is_some()
    }

    /// A section's bytes, checked.
    pub fn section(&self, name: &str) -> Result<&[u8], ArtifactError> {
        let missing =
            || ArtifactError::NoSection { path: self.file.path.clone(), section: name.into() };
        let index = self.index(name).ok_or_else(missing)?;
        self.check(index..index + 1)?;
        Ok(&self.file.map[self.file.ranges[index].clone()])
    }

    /// A section as text, checked.
    pub fn text(&self, name: &str) -> Result<&str, ArtifactError> {
        let not_text =
            |_| ArtifactError::NotText { path: self.file.path.clone(), section: name.into() };
        std::str::from_utf8(self.section(name)?).map_err(not_text)
    }

    /// The plan for `target`, checked and verified.
    pub fn plan(&self, target: &str) -> Result<Plan, ArtifactError> {
        self.expect_target(target)?;
        let json = self.section(&plan_section(target))?;
        let fail = |source| ArtifactError::Plan {
            path: self.file.path.clone(),
            target: target.into(),
            source: Box::new(source),
        };
        Plan::from_json(json).map_err(fail)
    }

    /// The self-test, checked.
    pub fn self_test(&self) -> Result<SelfTest, ArtifactError> {
        if !self.has(SELF_TEST) {
            return Err(ArtifactError::NoSelfTest { path: self.file.path.clone() });
        }
        let fail = |source| ArtifactError::SelfTest { path: self.file.path.clone(), source };
        SelfTest::from_json(self.section(SELF_TEST)?).map_err(fail)
    }

    /// The code object for `target`, checked.
    pub fn code(&self, target: &str) -> Result<&[u8], ArtifactError> {
        self.expect_target(target)?;
        self.section(&code_section(target))
    }

    /// The constants segment called `weights` in a plan: all its weights, checked. Starts at a
    /// multiple of 64 bytes, in memory and in the file.
    pub fn constants(&self, weights: &str) -> Result<&[u8], ArtifactError> {
        let Some((sections, bytes)) = self.find_constants(weights)? else { return Ok(&[]) };
        self.check(sections)?;
        Ok(&self.file.map[bytes])
    }

    /// The same for who copies them anyway: `copy` gets the weights while they are being checked.
    /// Where they turn out damaged, what it gave is dropped.
    pub fn constants_while_checked<R>(
        &self,
        weights: &str,
        copy: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ArtifactError> {
        let Some((sections, bytes)) = self.find_constants(weights)? else { return Ok(copy(&[])) };
        std::thread::scope(|scope| {
            let check = scope.spawn(|| self.check(sections));
            let copied = copy(&self.file.map[bytes]);
            check.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(copied)
        })
    }

    /// Sections and bytes of a constants segment, if it has any.
    #[allow(clippy::type_complexity)] // two ranges
    fn find_constants(
        &self,
        weights: &str,
    ) -> Result<Option<(Range<usize>, Range<usize>)>, ArtifactError> {
        let prefix = weights_prefix(weights);
        let mine = |section: &SectionDigests| section.name.starts_with(&prefix);
        let sections = &self.file.manifest.sections;
        let Some(first) = sections.iter().position(mine) else { return Ok(None) };
        let count = sections[first..].iter().take_while(|section| mine(section)).count();
        let ranges = &self.file.ranges[first..first + count];
        let bytes = ranges[0].start..ranges[count - 1].end;
        if bytes.start % super::ALIGNMENT as usize != 0 {
            let problem = format!("the weights `{weights}` do not start at a multiple of 64");
            return Err(ArtifactError::header(&self.file.path, problem));
        }
        Ok(Some((first..first + count, bytes)))
    }

    /// Checks every section.
    pub fn verify_all(&self) -> Result<(), ArtifactError> {
        self.check(0..self.file.ranges.len())
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.file.manifest.sections.iter().position(|section| section.name == name)
    }

    fn expect_target(&self, target: &str) -> Result<(), ArtifactError> {
        if self.targets().iter().any(|known| known == target) {
            return Ok(());
        }
        Err(ArtifactError::NoTarget {
            path: self.file.path.clone(),
            target: target.into(),
            found: self.targets().join(", "),
        })
    }

    /// Checks the digests of sections, unless done before; on all processors where that pays.
    fn check(&self, sections: Range<usize>) -> Result<(), ArtifactError> {
        let file = &*self.file;
        let unchecked = |index: &usize| !file.checked[*index].load(Ordering::Relaxed);
        let chunks: Vec<Chunk> = sections
            .clone()
            .filter(unchecked)
            .flat_map(|s| (0..file.manifest.sections[s].blake3.len()).map(move |chunk| (s, chunk)))
            .collect();
        if let Some(section) = file.first_damaged(&chunks) {
            let section = file.manifest.sections[section].name.clone();
            return Err(ArtifactError::Damaged { path: file.path.clone(), section });
        }
        for section in sections {
            file.checked[section].store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Mapped {
    /// The first section one of whose `chunks` is not what was written.
    fn first_damaged(&self, chunks: &[Chunk]) -> Option<usize> {
        let next = AtomicUsize::new(0);
        let damaged = AtomicUsize::new(usize::MAX);
        let work = || {
            while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !self.is_whole(*chunk) {
                    damaged.fetch_min(chunk.0, Ordering::Relaxed);
                }
            }
        };
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        // A thread takes longer to start than a small chunk to check.
        let large = |&&(section, _): &&Chunk| self.ranges[section].len() as u64 > CHUNK / 64;
        let useful = chunks.iter().filter(large).count();
        std::thread::scope(|scope| {
            for _ in 1..processors.min(useful) {
                scope.spawn(work);
            }
            work();
        });
        Some(damaged.into_inner()).filter(|&section| section != usize::MAX)
    }

    fn is_whole(&self, (section, chunk): Chunk) -> bool {
        let bytes = &self.map[self.ranges[section].clone()];
        let start = chunk.saturating_mul(CHUNK as usize);
        let end = bytes.len().min(start.saturating_add(CHUNK as usize));
        let written = self.manifest.sections[section].blake3.get(chunk);
        let found = bytes.get(start..end).map(manifest::digest);
        written == found.as_ref()
    }
}
