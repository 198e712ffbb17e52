//! `libhiprtc.so` without a compiler: programs that look for the library find it, and every attempt
//! to compile fails with a word about what to do instead.

#![allow(unsafe_code, reason = "every function is exported to C")]
#![allow(non_snake_case, reason = "the functions' names are HIP's")]

use std::ffi::{CStr, c_char};
use std::io::Write;
use std::sync::Once;

/// `hiprtcResult`.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct RtcResult(pub i32);

impl RtcResult {
    /// `HIPRTC_SUCCESS`.
    pub const SUCCESS: RtcResult = RtcResult(0);
    /// `HIPRTC_ERROR_PROGRAM_CREATION_FAILURE`.
    pub const CREATION_FAILURE: RtcResult = RtcResult(2);
    /// `HIPRTC_ERROR_INVALID_INPUT`.
    pub const INVALID_INPUT: RtcResult = RtcResult(3);
    /// `HIPRTC_ERROR_INVALID_PROGRAM`.
    pub const INVALID_PROGRAM: RtcResult = RtcResult(4);
    /// `HIPRTC_ERROR_LINKING`.
    pub const LINKING: RtcResult = RtcResult(100);

    fn name(self) -> &'static CStr {
        match self.0 {
            0 => c"HIPRTC_SUCCESS",
            1 => c"HIPRTC_ERROR_OUT_OF_MEMORY",
            2 => c"HIPRTC_ERROR_PROGRAM_CREATION_FAILURE",
            3 => c"HIPRTC_ERROR_INVALID_INPUT",
            4 => c"HIPRTC_ERROR_INVALID_PROGRAM",
            5 => c"HIPRTC_ERROR_INVALID_OPTION",
            6 => c"HIPRTC_ERROR_COMPILATION",
            7 => c"HIPRTC_ERROR_BUILTIN_OPERATION_FAILURE",
            8 => c"HIPRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION",
            9 => c"HIPRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION",
            10 => c"HIPRTC_ERROR_NAME_EXPRESSION_NOT_VALID",
            11 => c"HIPRTC_ERROR_INTERNAL_ERROR",
            100 => c"HIPRTC_ERROR_LINKING",
            _ => c"Invalid HIPRTC error code",
        }
    }
}

/// Says once why nothing can be compiled.
fn explain() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        // A closed stderr is no reason to fail.
        let _ = writeln!(
            std::io::stderr(),
            "waveloom-emu: hiprtc cannot compile at run time; compile with \
             `clang -x hip --offload-device-only` and load the file with hipModuleLoad"
        );
    });
}

/// Defines functions that fail. They ignore their arguments: with C's calling convention the caller
/// cleans up after them.
macro_rules! failing {
    ($($name:ident = $result:ident;)*) => {$(
        #[doc = concat!("`", stringify!($name), "` fails: there is no compiler.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> RtcResult {
            explain();
            RtcResult::$result
        }
    )*};
}

failing! {
    hiprtcAddNameExpression = INVALID_PROGRAM;
    hiprtcCompileProgram = INVALID_PROGRAM;
    hiprtcCreateProgram = CREATION_FAILURE;
    hiprtcDestroyProgram = INVALID_PROGRAM;
    hiprtcGetBitcode = INVALID_PROGRAM;
    hiprtcGetBitcodeSize = INVALID_PROGRAM;
    hiprtcGetCode = INVALID_PROGRAM;
    hiprtcGetCodeSize = INVALID_PROGRAM;
    hiprtcGetLoweredName = INVALID_PROGRAM;
    hiprtcGetProgramLog = INVALID_PROGRAM;
    hiprtcGetProgramLogSize = INVALID_PROGRAM;
    hiprtcLinkAddData = LINKING;
    hiprtcLinkAddFile = LINKING;
    hiprtcLinkComplete = LINKING;
    hiprtcLinkCreate = LINKING;
    hiprtcLinkDestroy = LINKING;
}

/// Name of a result.
#[unsafe(no_mangle)]
pub extern "C" fn hiprtcGetErrorString(result: RtcResult) -> *const c_char {
    result.name().as_ptr()
}

/// Version of the interface: 9.0, as AMD's library says.
#[unsafe(no_mangle)]
pub extern "C" fn hiprtcVersion(major: Option<&mut i32>, minor: Option<&mut i32>) -> RtcResult {
    let (Some(major), Some(minor)) = (major, minor) else { return RtcResult::INVALID_INPUT };
    (*major, *minor) = (9, 0);
    RtcResult::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_and_cannot_compile() {
        let (mut major, mut minor) = (0, 0);
        assert_eq!(hiprtcVersion(Some(&mut major), Some(&mut minor)), RtcResult::SUCCESS);
        assert_eq!((major, minor), (9, 0));
        assert_eq!(hiprtcVersion(None, None), RtcResult::INVALID_INPUT);
        assert_eq!(hiprtcCreateProgram(), RtcResult::CREATION_FAILURE);
        // SAFETY: a C string with static lifetime.
        let name = unsafe { CStr::from_ptr(hiprtcGetErrorString(RtcResult::CREATION_FAILURE)) };
        assert_eq!(name, c"HIPRTC_ERROR_PROGRAM_CREATION_FAILURE");
    }
}
