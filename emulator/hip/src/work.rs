//! What streams do: one operation each, and how it is run.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::{self, Launch};
use crate::blocks;
use crate::copy::{Copy, Fill};
use crate::error::{HipError, Result, note};
use crate::event::Record;
use crate::module::Function;
use crate::runtime::{Device, Runtime};
use crate::types::{Address, Handle, HostFn, StreamCallback};

/// How often a stream looks at a value that it waits for.
const POLL: Duration = Duration::from_micros(50);

/// A kernel with its grid and arguments.
#[derive(Clone)]
pub struct KernelCall {
    /// The kernel.
    pub function: Arc<Function>,
    /// The grid.
    pub launch: Launch,
    /// Explicit arguments at their offsets.
    pub kernarg: Arc<[u8]>,
}

/// A function of the program.
#[derive(Debug, Clone, Copy)]
pub struct HostCall {
    /// The function.
    pub function: HostFn,
    /// Its argument.
    pub data: Address,
}

/// Comparisons of `hipStreamWaitValue32` and `64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// The difference, as a signed number, is not negative.
    GreaterEqual,
    /// Equal.
    Equal,
    /// A common bit.
    And,
    /// A bit that neither has.
    Nor,
}

/// A value in memory that a stream waits for.
#[derive(Debug, Clone, Copy)]
pub struct ValueWait {
    /// Where.
    pub address: Address,
    /// 4 or 8.
    pub bytes: u32,
    /// The value.
    pub value: u64,
    /// Bits that count.
    pub mask: u64,
    /// How to compare.
    pub compare: Compare,
}

/// One operation.
pub enum Work {
    /// Run a kernel.
    Kernel(KernelCall),
    /// Copy.
    Copy(Copy),
    /// Fill.
    Fill(Fill),
    /// Call the program.
    Host(HostCall),
    /// Call the program and tell it how things went.
    Callback { function: StreamCallback, stream: Handle, data: Address },
    /// Note the time.
    Record(Arc<Record>),
    /// Wait until a time was noted.
    Await(Arc<Record>),
    /// Write a value of 4 or 8 bytes.
    WriteValue { address: Address, bytes: u32, value: u64 },
    /// Wait for a value.
    WaitValue(ValueWait),
    /// Free memory of a pool.
    Free(Address),
    /// Operations one after the other.
    Sequence(Vec<Work>),
    /// Nothing.
    Nothing,
}

impl Work {
    /// Runs the operation on a device. After a fault the device does nothing any more, but whoever
    /// waits is still told.
    pub fn run(self, runtime: &Runtime, device: &Device) {
        let state = device.check();
        match self {
            Work::Record(record) => record.finish(),
            Work::Callback { function, stream, data } => {
                let status = state.err().unwrap_or(HipError::SUCCESS);
                function(stream, status.0, data as *mut c_void);
            }
            Work::Sequence(works) => works.into_iter().for_each(|work| work.run(runtime, device)),
            Work::Free(address) => {
                let _ = blocks::free(runtime, address, blocks::Kind::is_on_device);
            }
            work => {
                if state.is_ok() {
                    let act = || work.act(runtime, device);
                    let acted = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
                        note("a defect of the emulator, please report it with the lines above");
                        Err(HipError::UNKNOWN)
                    });
                    if let Err(error) = acted {
                        device.fail(error);
                    }
                }
            }
        }
    }

    fn act(self, runtime: &Runtime, device: &Device) -> Result {
        match self {
            Work::Kernel(call) => {
                backend::launch(runtime, &call.function.kernel, &call.launch, &call.kernarg)
            }
            Work::Copy(copy) => copy.run(runtime),
            Work::Fill(fill) => fill.run(runtime),
            Work::Host(call) => {
                (call.function)(call.data as *mut c_void);
                Ok(())
            }
            Work::Await(record) => {
                record.wait();
                Ok(())
            }
            Work::WriteValue { address, bytes, value } => {
                write_value(runtime, address, bytes, value)
            }
            Work::WaitValue(wait) => wait.run(runtime, device),
            Work::Record(_)
            | Work::Callback { .. }
            | Work::Sequence(_)
            | Work::Free(_)
            | Work::Nothing => Ok(()),
        }
    }
}

/// Checks that a value of 4 or 8 bytes is in memory that kernels may access, and aligned.
pub fn check_value(runtime: &Runtime, address: Address, bytes: u32) -> Result {
    let found = runtime.memory.find(address as u64).ok_or(HipError::INVALID_VALUE)?;
    let inside = address as u64 - found.base + u64::from(bytes) <= found.size;
    let aligned = address.is_multiple_of(bytes as usize);
    if inside && aligned { Ok(()) } else { Err(HipError::INVALID_VALUE) }
}

fn write_value(runtime: &Runtime, address: Address, bytes: u32, value: u64) -> Result {
    check_value(runtime, address, bytes).map_err(|_| HipError::ILLEGAL_ADDRESS)?;
    if bytes == 4 {
        // SAFETY: `check_value` found four aligned bytes in a live allocation.
        unsafe { AtomicU32::from_ptr(address as *mut u32) }.store(value as u32, Ordering::SeqCst);
    } else {
        // SAFETY: as above, eight bytes.
        unsafe { AtomicU64::from_ptr(address as *mut u64) }.store(value, Ordering::SeqCst);
    }
    Ok(())
}

fn read_value(runtime: &Runtime, address: Address, bytes: u32) -> Result<u64> {
    check_value(runtime, address, bytes).map_err(|_| HipError::ILLEGAL_ADDRESS)?;
    Ok(if bytes == 4 {
        // SAFETY: `check_value` found four aligned bytes in a live allocation.
        u64::from(unsafe { AtomicU32::from_ptr(address as *mut u32) }.load(Ordering::SeqCst))
    } else {
        // SAFETY: as above, eight bytes.
        unsafe { AtomicU64::from_ptr(address as *mut u64) }.load(Ordering::SeqCst)
    })
}

impl ValueWait {
    fn run(&self, runtime: &Runtime, device: &Device) -> Result {
        while !self.holds(read_value(runtime, self.address, self.bytes)?) {
            device.check()?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn holds(&self, found: u64) -> bool {
        let (found, value) = (found & self.mask, self.value & self.mask);
        match self.compare {
            Compare::GreaterEqual if self.bytes == 4 => {
                (found as u32).wrapping_sub(value as u32) as i32 >= 0
            }
            Compare::GreaterEqual => found.wrapping_sub(value) as i64 >= 0,
            Compare::Equal => found == value,
            Compare::And => found & value != 0,
            Compare::Nor => !(found | value) & self.width_mask() != 0,
        }
    }

    fn width_mask(&self) -> u64 {
        self.mask & if self.bytes == 4 { u64::from(u32::MAX) } else { u64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons() {
        let wait = |compare, value, mask| ValueWait { address: 0, bytes: 4, value, mask, compare };
        let all = u64::from(u32::MAX);
        assert!(wait(Compare::GreaterEqual, 5, all).holds(5));
        assert!(!wait(Compare::GreaterEqual, 5, all).holds(4));
        // Counters wrap around: 2 comes after 2^32 - 2.
        assert!(wait(Compare::GreaterEqual, 0xffff_fffe, all).holds(2));
        assert!(wait(Compare::Equal, 0x15, 0xf).holds(0x25));
        assert!(!wait(Compare::And, 0x10, all).holds(0x0f));
        assert!(wait(Compare::Nor, 0xf0, 0xff).holds(0x07));
        assert!(!wait(Compare::Nor, 0xf0, 0xff).holds(0x0f));
    }
}
