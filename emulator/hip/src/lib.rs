//! The HIP runtime API over the emulator: `libamdhip64.so` for programs that have no AMD GPU.
//!
//! In come calls of programs that were built against HIP's headers, any version from 5 to 7; out go
//! error codes, and results in memory. Kernels run in the crate `waveloom-emulator`; this crate
//! keeps what is around them: devices, memory, modules, streams, events, graphs. Nothing of AMD's
//! runtime is needed or loaded.
//!
//! One module per topic of HIP's reference, each with the functions of the API at its end. A
//! function that HIP has and this crate does not is in [`missing`]: it says its name once and
//! returns `hipErrorNotSupported`.
//!
//! No call crashes the process for what a device does: panics are caught at the boundary, handles are
//! looked up and not dereferenced, and device addresses are checked before they are used. Addresses
//! of the host's own memory are trusted, as in any C library.
//!
//! Settings: `WAVELOOM_EMU_DEVICE` (`gfx942` or `gfx942:8`), `WAVELOOM_EMU_MEMORY` (bytes),
//! `WAVELOOM_EMU_HIP` (5 or 6), and those of the emulator itself.

#![allow(unsafe_code, reason = "every function is exported to C")]
#![allow(non_snake_case, reason = "the functions' names are HIP's")]
#![allow(missing_docs, reason = "structures, constants and arguments are HIP's")]
#![allow(clippy::too_many_arguments, reason = "the functions' signatures are HIP's")]

// ROCm 5 has the run-time compiler's functions in this library.
pub use hiprtc;

pub mod abi;
pub mod backend;
pub mod blocks;
pub mod board;
pub mod capture;
pub mod context;
pub mod copy;
pub mod device;
pub mod error;
pub mod event;
pub mod ffi;
pub mod graph;
pub mod handle;
pub mod launch;
pub mod memory;
pub mod missing;
pub mod module;
pub mod pool;
pub mod profile;
pub mod register;
pub mod report;
pub mod runtime;
pub mod stream;
pub mod types;
pub mod work;
