//! Copies and fills: what they touch is checked first, then done row by row.

use std::sync::Arc;

use crate::backend::Memory;
use crate::error::{HipError, Result, note};
use crate::runtime::Runtime;
use crate::types::{Address, MemsetParams, kind};

/// Bytes that are copied at once between two places on devices.
const PIECE: usize = 1 << 18;
/// Bytes of pageable memory that an asynchronous copy takes along, so that the program may change
/// them at once; for more the program waits.
pub const STAGED_BYTES: usize = 1 << 20;

/// Where rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Side {
    /// First byte.
    pub address: Address,
    /// Bytes from row to row.
    pub pitch: usize,
    /// Bytes from slice to slice.
    pub slice: usize,
}

impl Side {
    /// The first byte of a row.
    fn row(&self, slice: usize, row: usize) -> Address {
        self.address + slice * self.slice + row * self.pitch
    }

    /// Bytes from the first to the last of all rows.
    fn span(&self, width: usize, height: usize, depth: usize) -> Result<usize> {
        if height > 1 && self.pitch < width {
            return Err(HipError::INVALID_PITCH_VALUE);
        }
        let rows = (height - 1).checked_mul(self.pitch).and_then(|rows| rows.checked_add(width));
        let rows = rows.ok_or(HipError::INVALID_VALUE)?;
        if depth > 1 && self.slice < rows {
            return Err(HipError::INVALID_VALUE);
        }
        let slices = (depth - 1).checked_mul(self.slice).ok_or(HipError::INVALID_VALUE)?;
        let span = slices.checked_add(rows).ok_or(HipError::INVALID_VALUE)?;
        self.address.checked_add(span).map(|_| span).ok_or(HipError::INVALID_VALUE)
    }
}

/// Who knows a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The emulator: kernels may access it.
    Device,
    /// Only the program.
    Program,
}

/// Finds out whose a range is; an error if it leaves its allocation or was never allocated.
pub fn whose(runtime: &Runtime, what: &str, address: Address, bytes: usize) -> Result<Whose> {
    if address == 0 {
        return Err(HipError::INVALID_VALUE);
    }
    let memory = &runtime.memory;
    match memory.find(address as u64) {
        Some(found) => {
            let offset = address as u64 - found.base;
            if bytes as u64 <= found.size - offset {
                return Ok(Whose::Device);
            }
            note(&format!(
                "{what} of {bytes} bytes at {address:#x} leaves {} ({} bytes at {:#x})",
                found.name, found.size, found.base
            ));
            Err(HipError::INVALID_VALUE)
        }
        None if memory.covers(address as u64) => {
            let freed = memory.find_freed(address as u64);
            let freed = freed.map_or("not allocated".into(), |f| format!("in {}, freed", f.name));
            note(&format!("{what} of {bytes} bytes at {address:#x}, which is {freed}"));
            Err(HipError::INVALID_VALUE)
        }
        None => Ok(Whose::Program),
    }
}

/// A copy of rows.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Where to.
    pub dst: Side,
    /// Where from.
    pub src: Side,
    /// Bytes of a row.
    pub width: usize,
    /// Rows of a slice.
    pub height: usize,
    /// Slices.
    pub depth: usize,
    /// `hipMemcpyKind`.
    pub kind: u32,
    /// The bytes, taken along in advance.
    pub staged: Option<Arc<[u8]>>,
}

impl Copy {
    /// A copy of bytes in a row.
    pub fn linear(dst: Address, src: Address, bytes: usize, kind: u32) -> Copy {
        Copy::rows((dst, bytes), (src, bytes), bytes, 1, kind)
    }

    /// A copy of rows; each side is an address and a pitch.
    pub fn rows(
        dst: (Address, usize),
        src: (Address, usize),
        width: usize,
        height: usize,
        kind: u32,
    ) -> Copy {
        let side = |(address, pitch): (Address, usize)| Side { address, pitch, slice: 0 };
        Copy { dst: side(dst), src: side(src), width, height, depth: 1, kind, staged: None }
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }

    /// Bytes that move.
    pub fn bytes(&self) -> usize {
        self.width.saturating_mul(self.height).saturating_mul(self.depth)
    }

    /// Checks both ends; gives whose they are, destination first.
    pub fn check(&self, runtime: &Runtime) -> Result<(Whose, Whose)> {
        if self.is_empty() {
            return Ok((Whose::Program, Whose::Program));
        }
        let (width, height, depth) = (self.width, self.height, self.depth);
        let dst_bytes = self.dst.span(width, height, depth)?;
        let src_bytes = self.src.span(width, height, depth)?;
        let dst = whose(runtime, "copy: destination", self.dst.address, dst_bytes)?;
        let src = match self.staged {
            Some(_) => Whose::Program,
            None => whose(runtime, "copy: source", self.src.address, src_bytes)?,
        };
        let (to_device, from_device) = match self.kind {
            kind::HOST_TO_HOST | kind::DEFAULT => (false, false),
            kind::HOST_TO_DEVICE => (true, false),
            kind::DEVICE_TO_HOST => (false, true),
            kind::DEVICE_TO_DEVICE | kind::DEVICE_TO_DEVICE_NO_CU => (true, true),
            _ => return Err(HipError::INVALID_MEMCPY_DIRECTION),
        };
        let wrong = |end: &str, address: Address| {
            note(&format!("copy: {end} {address:#x} is not memory of a device"));
            Err(HipError::INVALID_VALUE)
        };
        if to_device && dst == Whose::Program {
            return wrong("destination", self.dst.address);
        }
        if from_device && src == Whose::Program {
            return wrong("source", self.src.address);
        }
        Ok((dst, src))
    }

    /// Takes the source's bytes along.
    pub fn stage(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes());
        for slice in 0..self.depth {
            for row in 0..self.height {
                // SAFETY: `check` found that the source is the program's; it says that it may be read.
                let row = unsafe { program_bytes(self.src.row(slice, row), self.width) };
                bytes.extend_from_slice(row);
            }
        }
        self.staged = Some(bytes.into());
    }

    /// Does it.
    pub fn run(&self, runtime: &Runtime) -> Result {
        let (dst, src) = self.check(runtime)?;
        if self.is_empty() {
            return Ok(());
        }
        let packed = self.width * self.height;
        for slice in 0..self.depth {
            for row in 0..self.height {
                let to = self.dst.row(slice, row);
                match &self.staged {
                    Some(bytes) => {
                        let at = slice * packed + row * self.width;
                        put_bytes(&runtime.memory, (to, dst), &bytes[at..at + self.width])?;
                    }
                    None => {
                        let from = self.src.row(slice, row);
                        copy_row(&runtime.memory, (to, dst), (from, src), self.width)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// # Safety
///
/// `bytes` bytes at `address` must be readable memory of the program.
unsafe fn program_bytes<'a>(address: Address, bytes: usize) -> &'a [u8] {
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(address as *const u8, bytes) }
}

fn put_bytes(memory: &Memory, (to, whose): (Address, Whose), bytes: &[u8]) -> Result {
    match whose {
        Whose::Device => memory.write(to as u64, bytes).map_err(|_| HipError::ILLEGAL_ADDRESS),
        Whose::Program => {
            // SAFETY: the program says that the destination may be written; the ranges may overlap.
            unsafe { std::ptr::copy(bytes.as_ptr(), to as *mut u8, bytes.len()) };
            Ok(())
        }
    }
}

fn copy_row(
    memory: &Memory,
    to: (Address, Whose),
    (from, whose): (Address, Whose),
    bytes: usize,
) -> Result {
    if whose == Whose::Program {
        // SAFETY: the program says that the source may be read.
        return put_bytes(memory, to, unsafe { program_bytes(from, bytes) });
    }
    let mut piece = vec![0; bytes.min(PIECE)];
    for at in (0..bytes).step_by(PIECE) {
        let piece = &mut piece[..(bytes - at).min(PIECE)];
        memory.read((from + at) as u64, piece).map_err(|_| HipError::ILLEGAL_ADDRESS)?;
        put_bytes(memory, (to.0 + at, to.1), piece)?;
    }
    Ok(())
}

/// A fill of rows with one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Where.
    pub dst: Side,
    /// Bytes of the value: 1, 2 or 4.
    pub element: u32,
    /// The value.
    pub value: u32,
    /// Values of a row.
    pub width: usize,
    /// Rows of a slice.
    pub height: usize,
    /// Slices.
    pub depth: usize,
}

impl Fill {
    /// A fill of values in a row.
    pub fn linear(address: Address, element: u32, value: u32, count: usize) -> Fill {
        let dst = Side { address, pitch: 0, slice: 0 };
        Fill { dst, element, value, width: count, height: 1, depth: 1 }
    }

    /// As a graph's node describes it.
    pub fn from_params(params: &MemsetParams) -> Result<Fill> {
        if !matches!(params.element_size, 1 | 2 | 4) {
            return Err(HipError::INVALID_VALUE);
        }
        let dst = Side { address: params.dst, pitch: params.pitch, slice: 0 };
        Ok(Fill {
            dst,
            element: params.element_size,
            value: params.value,
            width: params.width,
            height: params.height,
            depth: 1,
        })
    }

    /// As a graph's node is described.
    pub fn params(&self) -> MemsetParams {
        MemsetParams {
            dst: self.dst.address,
            element_size: self.element,
            height: self.height,
            pitch: self.dst.pitch,
            value: self.value,
            width: self.width,
        }
    }

    fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }

    /// Checks the destination.
    pub fn check(&self, runtime: &Runtime) -> Result {
        if self.is_empty() {
            return Ok(());
        }
        let bytes = self.width.checked_mul(self.element as usize);
        let bytes = bytes.ok_or(HipError::INVALID_VALUE)?;
        let span = self.dst.span(bytes, self.height, self.depth)?;
        match whose(runtime, "memset", self.dst.address, span)? {
            Whose::Device => Ok(()),
            Whose::Program => {
                let address = self.dst.address;
                note(&format!("memset: {address:#x} is not memory of a device"));
                Err(HipError::INVALID_VALUE)
            }
        }
    }

    /// Does it.
    pub fn run(&self, runtime: &Runtime) -> Result {
        self.check(runtime)?;
        if self.is_empty() {
            return Ok(());
        }
        let element = self.element as usize;
        let bytes = self.width * element;
        let value = self.value.to_le_bytes();
        let pattern: Vec<u8> =
            value[..element].iter().copied().cycle().take(bytes.min(PIECE)).collect();
        for slice in 0..self.depth {
            for row in 0..self.height {
                let to = self.dst.row(slice, row);
                for at in (0..bytes).step_by(PIECE) {
                    let piece = &pattern[..(bytes - at).min(PIECE)];
                    put_bytes(&runtime.memory, (to + at, Whose::Device), piece)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_checked() {
        let side = Side { address: 0x1000, pitch: 64, slice: 1024 };
        assert_eq!(side.span(10, 1, 1), Ok(10));
        assert_eq!(side.span(10, 3, 1), Ok(138));
        assert_eq!(side.span(10, 3, 2), Ok(1162));
        assert_eq!(side.span(65, 2, 1), Err(HipError::INVALID_PITCH_VALUE));
        assert_eq!(side.span(64, 20, 2), Err(HipError::INVALID_VALUE));
        assert_eq!(side.span(1, usize::MAX, 1), Err(HipError::INVALID_VALUE));
    }
}
