//! Files in memory: the one place with `unsafe`.

use crate::error::{ImportError, Result};
use memmap2::Mmap;
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A file mapped read-only.
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a regular file.
    pub(crate) fn open(path: &Path) -> Result<MappedFile> {
        let io = |source| ImportError::io(path, source);
        let file = File::open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(ImportError::malformed(path, "not a regular file"));
        }
        // SAFETY: the mapping is private and read-only, and no code of this process writes to the
        // file. Another process that changes the file under us can change the bytes we read, which
        // are plain bytes checked wherever they are interpreted, or, by truncating it, end this
        // process with SIGBUS; that is the same contract as every loader that maps model files.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(MappedFile { path: path.to_path_buf(), map })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
