//! Broken code objects: an error is fine, a crash is not. They have this process to themselves, as
//! their kernels write wherever memory is.

#![allow(unsafe_code, reason = "the API is C's")]

mod common;

use std::ffi::CString;

use amdhip64::error::HipError;
use amdhip64::ffi::Text;
use amdhip64::types::*;
use amdhip64::{device, memory, module};
use common::*;

/// A generator of numbers that are the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Loads an image and launches what can be launched; gives whether it could be loaded.
fn try_image(bytes: &[u8]) -> bool {
    let mut handle = 0;
    let loaded = module::hipModuleLoadData(Some(&mut handle), bytes.as_ptr() as Address);
    if loaded != HipError::SUCCESS {
        assert!([HipError::INVALID_IMAGE, HipError::NO_BINARY_FOR_GPU].contains(&loaded));
        return false;
    }
    let address = upload(&[1; 256]);
    let value = 3u32;
    for name in ["saxpy", "add", "mixed", "reverse", "count", "times_scale"] {
        let name = CString::new(name).unwrap();
        let mut func = 0;
        let found = module::hipModuleGetFunction(Some(&mut func), handle, Text::new(&name));
        if found == HipError::SUCCESS {
            // No more arguments than the kernels have: where the metadata says otherwise, what lies
            // behind them is taken for addresses.
            let params = [at(&address), at(&address), at(&address), at(&value), at(&address)];
            let _ = launch(func, 1, 64, 0, &params);
            if device::hipDeviceSynchronize() != HipError::SUCCESS {
                good(device::hipDeviceReset());
            }
        }
    }
    let _ = memory::hipFree(address);
    good(module::hipModuleUnload(handle));
    true
}

#[test]
fn broken_code_objects_are_errors() {
    use_device(1);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut loaded = 0;
    for round in 0..400 {
        // Room behind it, as an image in memory may claim more than there is.
        let mut bytes = kernels().to_vec();
        for _ in 0..=round % 8 {
            // The headers and the metadata are the interesting parts.
            let limit = if round % 2 == 0 { bytes.len() } else { 0x800 };
            let place = random.below(limit);
            bytes[place] = match round % 3 {
                0 => random.next() as u8,
                1 => bytes[place] ^ (1 << random.below(8)),
                _ => 0xff,
            };
        }
        loaded += u32::from(try_image(&bytes));
    }
    // The changes are small, so that most of the way is gone.
    assert!(loaded > 100, "{loaded}");
}
