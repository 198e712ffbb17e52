//! The one place that maps a file into memory.
#![allow(unsafe_code)]

use memmap2::{Advice, Mmap};
use std::fs::File;
use std::io;

/// Maps `file` read-only and asks for its pages to be read ahead.
pub fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only and private to this process. A file that another process
    // shortens or changes while it is mapped is outside what a program can guard against; the
    // compiler itself never writes to an existing artifact, it renames a new file over it.
    let map = unsafe { Mmap::map(file)? };
    // Advice only; where the system refuses it, pages come on demand.
    let _ = map.advise(Advice::WillNeed);
    Ok(map)
}
