//! Writes an artifact, section by section, without holding more than a chunk per thread.

use super::manifest::{CHUNK, Manifest, SectionDigests, chunk_count};
use super::{ALIGNMENT, ArtifactError, header, manifest, weights_prefix, weights_set};
use crate::FORMAT_VERSION;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the manifest says beside digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactInfo {
    /// Name and version of the compiler.
    pub compiler: String,
    /// Name of the model.
    pub model: String,
    /// Targets, each of which has a plan, code and weights among the sections.
    pub targets: Vec<String>,
}

/// Writes a section's bytes.
type Produce<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'a>;

/// A section to write.
pub struct Section<'a> {
    name: String,
    bytes: u64,
    produce: Produce<'a>,
}

impl<'a> Section<'a> {
    /// A section of exactly `bytes` bytes, which `produce` writes. Sections are made on several
    /// threads at a time, in no certain order.
    pub fn new(
        name: impl Into<String>,
        bytes: u64,
        produce: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'a,
    ) -> Section<'a> {
        Section { name: name.into(), bytes, produce: Box::new(produce) }
    }

    /// A section with bytes at hand.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Cow<'a, [u8]>>) -> Section<'a> {
        let bytes = bytes.into();
        Section::new(name, bytes.len() as u64, move |out| out.write_all(&bytes))
    }
}

/// Writes an artifact with these sections, in this order, to `path`; gives its size in bytes.
///
/// The weights of a target must follow each other, and each take a multiple of 64 bytes; a section
/// `padding.<n>` is put before weights that would not start at a multiple of 64. The file is
/// written under a temporary name in the same folder and renamed, so that `path` is either whole
/// or untouched. The same sections give the same bytes.
pub fn write_artifact(
    path: &Path,
    info: &ArtifactInfo,
    sections: Vec<Section<'_>>,
) -> Result<u64, ArtifactError> {
    let sections = align_weights(sections);
    check_sections(&sections)?;
    let fail = |source| ArtifactError::write(path, source);
    // Renaming over a device or a folder would replace or miss it.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(fail(io::Error::other("it exists and is not a file")));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // As any new file, readable by whom the umask lets.
    let file = tempfile::Builder::new()
        .prefix(".waveloom-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(|error| fail(plain(error)))?;
    let bytes = write_file(path, file.as_file(), info, sections)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(bytes)
}

/// The operating system's error without the temporary name around it.
fn plain(error: io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error)
}

/// Puts padding before weights that would start elsewhere than at a multiple of 64.
fn align_weights(sections: Vec<Section<'_>>) -> Vec<Section<'_>> {
    let mut aligned: Vec<Section<'_>> = Vec::with_capacity(sections.len() + 1);
    let (mut end, mut paddings) = (0u64, 0);
    for section in sections {
        let missing = end.wrapping_neg() % ALIGNMENT;
        if section.name.starts_with("weights.") && missing != 0 {
            let zeros = vec![0; missing as usize];
            aligned.push(Section::from_bytes(format!("padding.{paddings}"), zeros));
            paddings += 1;
            end = end.wrapping_add(missing);
        }
        end = end.wrapping_add(section.bytes);
        aligned.push(section);
    }
    aligned
}

/// The rules of the format that a list of sections can break.
fn check_sections(sections: &[Section<'_>]) -> Result<(), ArtifactError> {
    let mut names = HashSet::new();
    let mut end = 0u64;
    for section in sections {
        let rule = |holds: bool, problem| {
            let section = section.name.clone();
            if holds { Ok(()) } else { Err(ArtifactError::Sections { section, problem }) }
        };
        rule(names.insert(&section.name), "there are two of this name")?;
        rule(section.name != "__metadata__", "the name is taken by the format")?;
        let weight = section.name.starts_with("weights.");
        rule(!weight || section.bytes % ALIGNMENT == 0, "its size is not a multiple of 64")?;
        let sum = end.checked_add(section.bytes).filter(|&sum| sum <= 1 << 60);
        rule(sum.is_some(), "the file would be absurdly large")?;
        end = sum.unwrap_or(end);
    }
    let mut sets: Vec<Option<&str>> = sections.iter().map(|s| weights_set(&s.name)).collect();
    sets.dedup();
    let mut seen = HashSet::new();
    match sets.into_iter().flatten().find(|set| !seen.insert(*set)) {
        None => Ok(()),
        Some(set) => Err(ArtifactError::Sections {
            section: weights_prefix(set),
            problem: "other sections stand between its weights",
        }),
    }
}

/// Writes header and sections.
fn write_file(
    path: &Path,
    file: &File,
    info: &ArtifactInfo,
    sections: Vec<Section<'_>>,
) -> Result<u64, ArtifactError> {
    let sizes: Vec<u64> = sections.iter().map(|section| section.bytes).collect();
    let mut manifest = unsigned(info, &sections);
    // Digests have a fixed length, so the header's length is known before them.
    let data = header::encode(&manifest, &sizes).len() as u64;
    let digests = write_sections(path, file, data, sections)?;
    for (section, digests) in manifest.sections.iter_mut().zip(digests) {
        section.blake3 = digests;
    }
    let header = header::encode(&manifest, &sizes);
    file.write_all_at(&header, 0).map_err(|source| ArtifactError::write(path, source))?;
    Ok(data + sizes.iter().sum::<u64>())
}

/// The manifest with zeros for digests.
fn unsigned(info: &ArtifactInfo, sections: &[Section<'_>]) -> Manifest {
    let digests = |section: &Section<'_>| SectionDigests {
        name: section.name.clone(),
        blake3: vec!["0".repeat(64); chunk_count(section.bytes) as usize],
    };
    Manifest {
        format: FORMAT_VERSION,
        compiler: info.compiler.clone(),
        model: info.model.clone(),
        targets: info.targets.clone(),
        sections: sections.iter().map(digests).collect(),
    }
}

/// Writes all sections on all processors; gives their digests. Offsets are known beforehand, so
/// the bytes do not depend on who writes what when.
fn write_sections(
    path: &Path,
    file: &File,
    data: u64,
    sections: Vec<Section<'_>>,
) -> Result<Vec<Vec<String>>, ArtifactError> {
    let count = sections.len();
    let mut offset = data;
    let placed = sections.into_iter().map(|section| {
        let start = offset;
        offset += section.bytes;
        (start, section)
    });
    let queue = Mutex::new(placed.collect::<Vec<_>>().into_iter().enumerate());
    let results = Mutex::new((0..count).map(|_| None).collect::<Vec<_>>());
    let failed = AtomicBool::new(false);
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let next = queue.lock().ok().and_then(|mut queue| queue.next());
            let Some((index, (start, section))) = next else { break };
            let digests = write_section(path, file, start, section);
            failed.fetch_or(digests.is_err(), Ordering::Relaxed);
            if let Ok(mut results) = results.lock() {
                results[index] = Some(digests);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(count);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    // A section is missing only after one has failed: the first failure is what counts.
    let results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.into_iter().flatten().collect()
}

/// Writes one section from `start` on; gives its digests.
fn write_section(
    path: &Path,
    file: &File,
    start: u64,
    section: Section<'_>,
) -> Result<Vec<String>, ArtifactError> {
    let Section { name, bytes, produce } = section;
    let mut out = ChunkWriter {
        file,
        offset: start,
        left: bytes,
        buffer: Vec::with_capacity(bytes.min(CHUNK) as usize),
        digests: vec![],
    };
    let written = produce(&mut out).and_then(|()| out.finish());
    written.map_err(|source| ArtifactError::WriteSection {
        path: path.into(),
        section: name,
        source,
    })
}

/// Collects chunks, and writes and digests each.
struct ChunkWriter<'f> {
    file: &'f File,
    offset: u64,
    left: u64,
    buffer: Vec<u8>,
    digests: Vec<String>,
}

impl ChunkWriter<'_> {
    fn write_chunk(&mut self) -> io::Result<()> {
        self.digests.push(manifest::digest(&self.buffer));
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<String>> {
        if self.left > 0 {
            return Err(io::Error::other(format!("{} bytes short of its size", self.left)));
        }
        if !self.buffer.is_empty() || self.digests.is_empty() {
            self.write_chunk()?;
        }
        Ok(self.digests)
    }
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("more bytes than its size"));
        }
        let room = CHUNK as usize - self.buffer.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.buffer.extend_from_slice(taken);
        self.left -= taken.len() as u64;
        if self.buffer.len() as u64 == CHUNK {
            self.write_chunk()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
