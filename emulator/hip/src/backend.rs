//! What this crate needs of the emulator, in the words of HIP.

use std::sync::Arc;

use waveloom_emulator::dispatch;
use waveloom_emulator::object::{Object, ObjectError};
use waveloom_emulator::wave::Fault;

pub use waveloom_emulator::dispatch::{Launch, Options};
pub use waveloom_emulator::memory::Memory;
pub use waveloom_emulator::object::{Argument, Kernel};

use crate::board;
use crate::error::{HipError, Result, note};
use crate::report;
use crate::runtime::Runtime;

/// A code object in device memory.
pub struct Image {
    object: Object,
}

impl Image {
    /// Loads a code object or a bundle; says on stderr why it cannot.
    pub fn load(runtime: &Runtime, bytes: &[u8], what: &str) -> Result<Image> {
        let loaded = Object::load(bytes, runtime.chip, &runtime.memory);
        let object = loaded.map_err(|error| {
            note(&format!("{what}: {error}"));
            match error {
                ObjectError::WrongChip { .. } => HipError::NO_BINARY_FOR_GPU,
                ObjectError::OutOfMemory(_) => HipError::OUT_OF_MEMORY,
                ObjectError::Malformed(_) | ObjectError::Compressed => HipError::INVALID_IMAGE,
            }
        })?;
        Ok(Image { object })
    }

    /// The kernel of a name.
    pub fn kernel(&self, name: &str) -> Option<Arc<Kernel>> {
        self.object.kernel(name)
    }

    /// Number of kernels.
    pub fn kernel_count(&self) -> usize {
        self.object.kernels().count()
    }

    /// Address and size of a global variable.
    pub fn symbol(&self, name: &str) -> Option<(usize, usize)> {
        let (address, size) = self.object.symbol(name)?;
        Some((address as usize, size as usize))
    }
}

/// Runs a kernel to its end; a fault is told on stderr in full.
pub fn launch(runtime: &Runtime, kernel: &Kernel, launch: &Launch, kernarg: &[u8]) -> Result {
    let result = dispatch::launch(kernel, launch, kernarg, &runtime.memory, &runtime.options);
    let error = match result {
        Ok(summary) => {
            report::tell(&summary.reports);
            return Ok(());
        }
        Err(error) => error,
    };
    note(&error.to_string());
    Err(match &error {
        dispatch::LaunchError::Invalid { .. } => HipError::INVALID_CONFIGURATION,
        dispatch::LaunchError::OutOfMemory(_) => HipError::OUT_OF_MEMORY,
        dispatch::LaunchError::Fault(report) => fault_error(&report.fault),
    })
}

/// The error that a device would report.
fn fault_error(fault: &Fault) -> HipError {
    match fault {
        Fault::Address { .. } => HipError::ILLEGAL_ADDRESS,
        Fault::Budget(_) | Fault::Deadlock(_) => HipError::LAUNCH_TIME_OUT,
        Fault::Trap(_) | Fault::Unknown(_) | Fault::Jump(_) | Fault::Illegal(_) => {
            HipError::LAUNCH_FAILURE
        }
    }
}

/// Workgroups that one multiprocessor holds at once.
pub fn occupancy(kernel: &Kernel, block_size: u32, dynamic_lds: u32) -> u32 {
    dispatch::occupancy(kernel, block_size, dynamic_lds)
        * board::compute_units_per_multiprocessor(kernel.chip)
}
