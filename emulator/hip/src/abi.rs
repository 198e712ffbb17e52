//! Which HIP the program was compiled for.
//!
//! Some numbers changed with HIP 6 (kinds of memory, kinds of graph nodes) and one structure grew,
//! under the same function names. AMD told the two apart by the library's name, and so does this: a
//! program that loaded `libamdhip64.so.5` speaks HIP 5, any other the later one. `WAVELOOM_EMU_HIP`
//! (5 or 6) decides where the name misleads.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Numbers that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// Up to ROCm 5.7; Debian's library is 5.2.
    Hip5,
    /// ROCm 6 and 7.
    Hip6,
}

/// What a pointer points to (`hipMemoryType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryType {
    /// Unknown to the runtime.
    Unregistered,
    /// Pinned memory of the host.
    Host,
    /// Memory of a device.
    Device,
    /// Memory that both own.
    Managed,
    /// An array, for textures.
    Array,
    /// Wherever the address says.
    Unified,
}

impl Abi {
    /// The program's.
    pub fn current() -> Abi {
        static CURRENT: OnceLock<Abi> = OnceLock::new();
        *CURRENT.get_or_init(|| match std::env::var("WAVELOOM_EMU_HIP").as_deref() {
            Ok("5") => Abi::Hip5,
            Ok("6") | Ok("7") => Abi::Hip6,
            _ => library_path().map_or(Abi::Hip6, |path| Abi::of_library(&path.to_string_lossy())),
        })
    }

    /// The one that a library of this name has.
    fn of_library(path: &str) -> Abi {
        let name = path.rsplit('/').next().unwrap_or(path);
        let version = name.split_once(".so.").map_or("", |(_, version)| version);
        if version.split('.').next() == Some("5") { Abi::Hip5 } else { Abi::Hip6 }
    }

    /// `hipRuntimeGetVersion`.
    pub fn version(self) -> i32 {
        match self {
            Abi::Hip5 => 50_221_153,
            Abi::Hip6 => 60_200_000,
        }
    }

    /// The number of a kind of memory.
    pub fn memory_type(self, memory_type: MemoryType) -> u32 {
        use MemoryType::{Array, Device, Host, Managed, Unified, Unregistered};
        match (self, memory_type) {
            (Abi::Hip5, Unregistered | Host) => 0,
            (Abi::Hip5, Device | Managed) => 1,
            (Abi::Hip5, Array) => 2,
            (Abi::Hip5, Unified) => 3,
            (Abi::Hip6, Unregistered) => 0,
            (Abi::Hip6, Host) => 1,
            (Abi::Hip6, Device) => 2,
            (Abi::Hip6, Managed) => 3,
            (Abi::Hip6, Array) => 10,
            (Abi::Hip6, Unified) => 11,
        }
    }

    /// The kind of memory of a number in a copy's description.
    pub fn memory_type_of(self, number: u32) -> Option<MemoryType> {
        use MemoryType::{Array, Device, Host, Managed, Unified};
        [Host, Device, Managed, Array, Unified]
            .into_iter()
            .find(|memory_type| self.memory_type(*memory_type) == number)
    }
}

/// The file that this code was loaded from, under the name it was loaded by.
pub fn library_path() -> Option<PathBuf> {
    let here = library_path as *const () as *const libc::c_void;
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: `info` is valid for writes.
    let found = unsafe { libc::dladdr(here, &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's name of a library that stays loaded while its code runs.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_name_tells() {
        assert_eq!(Abi::of_library("/opt/emu/lib/libamdhip64.so.5"), Abi::Hip5);
        assert_eq!(Abi::of_library("libamdhip64.so.5.2.21153"), Abi::Hip5);
        assert_eq!(Abi::of_library("libamdhip64.so.6"), Abi::Hip6);
        assert_eq!(Abi::of_library("/opt/v.so.5/libamdhip64.so"), Abi::Hip6);
    }

    /// Values of the enumerations in the headers of HIP 5.2 and 6.2.
    #[test]
    fn memory_types_are_those_of_the_headers() {
        assert_eq!(Abi::Hip5.memory_type(MemoryType::Device), 1);
        assert_eq!(Abi::Hip6.memory_type(MemoryType::Device), 2);
        assert_eq!(Abi::Hip5.memory_type_of(1), Some(MemoryType::Device));
        assert_eq!(Abi::Hip6.memory_type_of(1), Some(MemoryType::Host));
        assert_eq!(Abi::Hip6.memory_type_of(11), Some(MemoryType::Unified));
        assert_eq!(Abi::Hip6.memory_type_of(7), None);
    }
}
