//! Arguments that come from C.
//!
//! A pointer to one object is `Option<&T>` or `Option<&mut T>`: null is `None`, and that anything
//! else points to such an object is the caller's part of the contract, as in any C library. The
//! types here are for the rest: lists with a count, strings, and memory of untold size.

use std::ffi::{CStr, c_char};
use std::os::unix::fs::FileExt;

use crate::error::{HipError, Result};
use crate::types::Address;

/// Defines functions of the API: `extern "C"`, not mangled, with a body that returns [`Result`].
macro_rules! api {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: $type),*) -> $crate::error::HipError {
            $crate::error::call(stringify!($name), move || -> $crate::error::Result { $body })
        }
    )*};
}
pub(crate) use api;

/// A place for a result.
pub trait Place<T> {
    /// Writes the result; an error if there is no place.
    fn put(self, value: T) -> Result;
    /// Writes the result if there is a place.
    fn offer(self, value: T);
}

impl<T> Place<T> for Option<&mut T> {
    fn put(self, value: T) -> Result {
        *self.ok_or(HipError::INVALID_VALUE)? = value;
        Ok(())
    }

    fn offer(self, value: T) {
        if let Some(place) = self {
            *place = value;
        }
    }
}

/// An argument that must not be null.
pub fn given<T>(value: Option<T>) -> Result<T> {
    value.ok_or(HipError::INVALID_VALUE)
}

/// The first of several objects, whose number is another argument.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct List<T>(*const T);

impl<T: Copy> List<T> {
    /// No list.
    pub const NULL: List<T> = List(std::ptr::null());

    /// For callers in Rust.
    pub fn new(items: &[T]) -> List<T> {
        List(items.as_ptr())
    }

    /// What lies at an address.
    pub(crate) fn at(address: Address) -> List<T> {
        List(address as *const T)
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Its first `count` objects; a null list has none.
    pub fn read(self, count: usize) -> Result<Vec<T>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if self.0.is_null() || count > isize::MAX as usize / size_of::<T>().max(1) {
            return Err(HipError::INVALID_VALUE);
        }
        // SAFETY: the caller of the API says that there are `count` objects; they are copied
        // without a claim about alignment.
        Ok((0..count).map(|index| unsafe { self.0.add(index).read_unaligned() }).collect())
    }

    /// One of its objects.
    pub fn get(self, index: usize) -> Result<T> {
        if self.0.is_null() {
            return Err(HipError::INVALID_VALUE);
        }
        // SAFETY: as in `read`.
        Ok(unsafe { self.0.wrapping_add(index).read_unaligned() })
    }
}

/// Room for several objects, whose number is another argument.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Room<T>(*mut T);

impl<T: Copy> Room<T> {
    /// No room.
    pub const NULL: Room<T> = Room(std::ptr::null_mut());

    /// For callers in Rust.
    pub fn new(items: &mut [T]) -> Room<T> {
        Room(items.as_mut_ptr())
    }

    /// What lies at an address.
    pub(crate) fn at(address: Address) -> Room<T> {
        Room(address as *mut T)
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// What is left behind `count` objects.
    pub fn skip(self, count: usize) -> Room<T> {
        Room(self.0.wrapping_add(count))
    }

    /// Writes `items` from the start of the room.
    pub fn write(self, items: &[T]) -> Result {
        if self.0.is_null() && !items.is_empty() {
            return Err(HipError::INVALID_VALUE);
        }
        for (index, item) in items.iter().enumerate() {
            // SAFETY: the caller of the API says that there is room for what it asked for, and
            // `items` is no longer than that.
            unsafe { self.0.add(index).write_unaligned(*item) };
        }
        Ok(())
    }
}

/// A C string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    /// For callers in Rust.
    pub fn new(text: &CStr) -> Text {
        Text(text.as_ptr())
    }

    /// As UTF-8; an error if it is null or something else.
    pub fn read<'a>(self) -> Result<&'a str> {
        if self.0.is_null() {
            return Err(HipError::INVALID_VALUE);
        }
        // SAFETY: the caller of the API passes a C string that lives at least as long as the call,
        // and no caller of this function keeps it longer.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| HipError::INVALID_VALUE)
    }
}

/// Copies ranges of the program's memory, one behind the other. The ranges come from a kernel's
/// metadata, which may lie; what is not mapped is an error and no crash.
pub fn gather(ranges: &[(Address, usize)]) -> Result<Vec<u8>> {
    let total = ranges.iter().map(|(_, bytes)| bytes).sum();
    let mut out = Vec::with_capacity(total);
    // More ranges than one call of the kernel takes are taken in several.
    for ranges in ranges.chunks(MAX_RANGES) {
        let remote: Vec<libc::iovec> = ranges
            .iter()
            .map(|(base, bytes)| libc::iovec { iov_base: *base as *mut _, iov_len: *bytes })
            .collect();
        let wanted: usize = ranges.iter().map(|(_, bytes)| bytes).sum();
        let start = out.len();
        out.resize(start + wanted, 0);
        let here = out[start..].as_mut_ptr().cast();
        let local = libc::iovec { iov_base: here, iov_len: wanted };
        // SAFETY: `local` is memory of `out` that nobody else uses; the kernel checks the rest.
        let copied = unsafe {
            let own = libc::getpid();
            libc::process_vm_readv(own, &local, 1, remote.as_ptr(), remote.len() as _, 0)
        };
        if usize::try_from(copied) == Ok(wanted) {
            continue;
        }
        let error = std::io::Error::last_os_error().raw_os_error();
        if copied >= 0 || !matches!(error, Some(libc::ENOSYS | libc::EPERM)) {
            return Err(HipError::INVALID_VALUE);
        }
        // A sandbox forbids the call; then the program is trusted.
        out.truncate(start);
        for (base, bytes) in ranges {
            out.extend(List::<u8>::at(*base).read(*bytes)?);
        }
    }
    Ok(out)
}

/// Most ranges of one call (`IOV_MAX`).
const MAX_RANGES: usize = 1024;

/// Copies up to `bytes` bytes at an address of this process, fewer where the mapping ends. This is
/// for data whose size its own header tells: a header that lies must not crash the program.
pub fn probe_memory(address: Address, bytes: usize) -> Result<Vec<u8>> {
    let memory = std::fs::File::open("/proc/self/mem").map_err(|_| HipError::OPERATING_SYSTEM)?;
    let mut out = vec![0; bytes];
    let mut done = 0;
    while done < bytes {
        // The kernel stops at the first page that is not there, so pieces end at pages.
        let at = address.wrapping_add(done);
        let piece = (PIECE - at % PIECE).min(bytes - done);
        match memory.read_at(&mut out[done..done + piece], at as u64) {
            Ok(0) | Err(_) => break,
            Ok(read) => done += read,
        }
    }
    out.truncate(done);
    Ok(out)
}

/// Bytes that [`probe_memory`] reads at once, whole pages.
const PIECE: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_gathered() {
        let (first, second) = ([1u8, 2, 3], [4u8, 5]);
        let range = |bytes: &[u8]| (bytes.as_ptr() as Address, bytes.len());
        assert_eq!(gather(&[range(&first), range(&second)]), Ok(vec![1, 2, 3, 4, 5]));
        assert_eq!(gather(&[range(&first); 2000]).unwrap().len(), 6000);
        assert_eq!(gather(&[range(&first), (0x10, 8)]), Err(HipError::INVALID_VALUE));
        assert_eq!(gather(&[]), Ok(Vec::new()));
    }
}
