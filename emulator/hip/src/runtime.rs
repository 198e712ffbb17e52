//! The state of the process: the emulated GPUs and everything that handles stand for.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use waveloom_emulator::Chip;

use crate::backend::{Memory, Options};
use crate::blocks::Blocks;
use crate::board::{Board, board};
use crate::capture::Captures;
use crate::context::Context;
use crate::error::{HipError, Result, note};
use crate::event::Event;
use crate::graph::{Exec, Graph};
use crate::handle::{Table, lock};
use crate::module::{Function, Module};
use crate::pool::Pool;
use crate::report;
use crate::stream::{Member, Stream};
use crate::types::Handle;

/// Most devices that can be asked for.
const MAX_DEVICES: usize = 64;
/// Address space for pinned memory of the host, beside that of the devices.
const HOST_BYTES: u64 = 64 << 30;
/// Least address space with which it makes sense to go on.
const LEAST_BYTES: u64 = 1 << 28;

/// The state of the process.
pub struct Runtime {
    /// Which GPU all devices are.
    pub chip: Chip,
    /// Its data.
    pub board: Board,
    /// Memory of all devices.
    pub memory: Arc<Memory>,
    /// How kernels are executed.
    pub options: Options,
    /// The devices.
    pub devices: Vec<Device>,
    /// Allocations.
    pub blocks: Blocks,
    /// Streams that the program created.
    pub streams: Table<Stream>,
    /// Events.
    pub events: Table<Event>,
    /// Modules.
    pub modules: Table<Module>,
    /// Kernels of modules.
    pub functions: Table<Function>,
    /// Contexts.
    pub contexts: Table<Context>,
    /// Memory pools.
    pub pools: Table<Pool>,
    /// Graphs.
    pub graphs: Table<Graph>,
    /// Which graph a node is in.
    pub nodes: Mutex<BTreeMap<Handle, Weak<Graph>>>,
    /// Instantiated graphs.
    pub execs: Table<Exec>,
    /// Stream captures that are under way.
    pub captures: Captures,
    /// Held while work is put into streams, so that all streams agree about its order.
    pub submission: Mutex<()>,
}

/// One emulated GPU.
pub struct Device {
    /// Number of the device.
    pub ordinal: usize,
    /// Bytes of memory.
    pub total: u64,
    /// Bytes allocated.
    pub used: AtomicU64,
    /// `hipSetDeviceFlags`.
    pub flags: AtomicU32,
    /// Retained primary contexts.
    pub retained: AtomicU32,
    /// Whether anything used the device.
    pub active: AtomicBool,
    /// Handle of the primary context.
    pub context: Handle,
    /// The default stream, from its first use on.
    pub default_stream: OnceLock<Arc<Stream>>,
    /// Every stream of the device.
    pub members: Mutex<Vec<Member>>,
    /// The error that made the device unusable.
    pub fault: Mutex<Option<HipError>>,
    /// Devices whose memory kernels may access (`hipDeviceEnablePeerAccess`).
    pub peers: Mutex<Vec<usize>>,
    /// Bytes of stack that kernels are told (`hipLimitStackSize`).
    pub stack_limit: AtomicU64,
    /// The pool that `hipMallocAsync` takes from: the default one unless the program set another.
    pub pool: Mutex<Handle>,
    /// The default pool.
    pub default_pool: Handle,
}

impl Device {
    fn new(ordinal: usize, total: u64) -> Device {
        let default_pool = crate::handle::fresh();
        Device {
            ordinal,
            total,
            used: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            retained: AtomicU32::new(0),
            active: AtomicBool::new(false),
            context: crate::handle::fresh(),
            default_stream: OnceLock::new(),
            members: Mutex::default(),
            fault: Mutex::default(),
            peers: Mutex::default(),
            stack_limit: AtomicU64::new(1024),
            pool: Mutex::new(default_pool),
            default_pool,
        }
    }

    /// The error of a kernel that failed, until the device is reset.
    pub fn check(&self) -> Result {
        lock(&self.fault).map_or(Ok(()), Err)
    }

    /// Makes the device unusable; the first error stays.
    pub fn fail(&self, error: HipError) {
        lock(&self.fault).get_or_insert(error);
    }

    /// Takes `bytes` of the device's memory, if there are as many.
    pub fn take(&self, bytes: u64) -> Result {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.total)
        });
        taken.map(|_| ()).map_err(|_| HipError::OUT_OF_MEMORY)
    }

    /// Gives memory back.
    pub fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The state of the process, made at the first call that needs it.
pub fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Result<Runtime>> = OnceLock::new();
    RUNTIME.get_or_init(Runtime::from_env).as_ref().map_err(|error| *error)
}

impl Runtime {
    fn from_env() -> Result<Runtime> {
        let setting = std::env::var("WAVELOOM_EMU_DEVICE").unwrap_or_default();
        let (chip, count) = parse_device(&setting).map_err(|message| {
            note(&message);
            HipError::NO_DEVICE
        })?;
        let board = board(chip);
        let total = device_memory(board.memory).map_err(|message| {
            note(&message);
            HipError::NO_DEVICE
        })?;
        let memory = Arc::new(reserve(total.saturating_mul(count as u64))?);
        let options = report::options(&memory);
        let runtime = Runtime {
            chip,
            board,
            memory,
            options,
            devices: (0..count).map(|ordinal| Device::new(ordinal, total)).collect(),
            blocks: Blocks::default(),
            streams: Table::default(),
            events: Table::default(),
            modules: Table::default(),
            functions: Table::default(),
            contexts: Table::default(),
            pools: Table::default(),
            graphs: Table::default(),
            nodes: Mutex::default(),
            execs: Table::default(),
            captures: Captures::default(),
            submission: Mutex::default(),
        };
        for device in &runtime.devices {
            runtime.contexts.insert(device.context, Arc::new(Context::primary(device)));
            runtime.pools.insert(device.default_pool, Arc::new(Pool::new(device.ordinal)));
        }
        Ok(runtime)
    }

    /// The device of a number that the program passed.
    pub fn device(&self, ordinal: i32) -> Result<&Device> {
        let index = usize::try_from(ordinal).map_err(|_| HipError::INVALID_DEVICE)?;
        self.devices.get(index).ok_or(HipError::INVALID_DEVICE)
    }

    /// The calling thread's device.
    pub fn current(&self) -> &Device {
        let device = &self.devices[current_ordinal().min(self.devices.len() - 1)];
        device.active.store(true, Ordering::Relaxed);
        device
    }
}

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Number of the calling thread's device.
pub fn current_ordinal() -> usize {
    CURRENT.try_with(Cell::get).unwrap_or(0)
}

/// Chooses the calling thread's device.
pub fn set_current(ordinal: usize) {
    let _ = CURRENT.try_with(|current| current.set(ordinal));
}

/// Reads "gfx942" or "gfx942:4"; empty means one MI300X.
fn parse_device(setting: &str) -> std::result::Result<(Chip, usize), String> {
    let setting = setting.trim();
    let (name, count) = setting.split_once(':').unwrap_or((setting, "1"));
    let name = if name.is_empty() { "gfx942" } else { name };
    let chip = Chip::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Chip::ALL.iter().map(|chip| chip.name()).collect();
        format!("WAVELOOM_EMU_DEVICE: no GPU is called {name:?}; known are {}", known.join(", "))
    })?;
    let count = count.parse().ok().filter(|count| (1..=MAX_DEVICES).contains(count));
    let count = count.ok_or_else(|| {
        format!(
            "WAVELOOM_EMU_DEVICE: {setting:?} must be NAME or NAME:COUNT, at most {MAX_DEVICES}"
        )
    })?;
    Ok((chip, count))
}

/// Bytes of memory of each device: `WAVELOOM_EMU_MEMORY`, or what the board has.
fn device_memory(board: u64) -> std::result::Result<u64, String> {
    let Ok(setting) = std::env::var("WAVELOOM_EMU_MEMORY") else { return Ok(board) };
    let bytes = setting.trim().parse().ok().filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("WAVELOOM_EMU_MEMORY: {setting:?} is not a number of bytes"))
}

/// Reserves address space, less where the host does not give as much. Twice the devices' memory,
/// because what is freed and allocated again leaves holes.
fn reserve(device_bytes: u64) -> Result<Memory> {
    let mut bytes = device_bytes.saturating_mul(2).saturating_add(HOST_BYTES).min(1 << 45);
    loop {
        match Memory::reserve(bytes) {
            Ok(memory) => return Ok(memory),
            Err(_) if bytes > LEAST_BYTES => bytes /= 2,
            Err(error) => {
                note(&format!("cannot reserve address space for device memory: {error}"));
                return Err(HipError::OUT_OF_MEMORY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_settings() {
        assert_eq!(parse_device(""), Ok((Chip::Gfx942, 1)));
        assert_eq!(parse_device("gfx1100"), Ok((Chip::Gfx1100, 1)));
        assert_eq!(parse_device("gfx90a:8"), Ok((Chip::Gfx90a, 8)));
        assert!(parse_device("gfx90a:0").is_err());
        assert!(parse_device("gfx90a:many").is_err());
        let message = parse_device("gfx906").unwrap_err();
        assert!(message.contains("gfx906") && message.contains("gfx90a, gfx942, gfx950"));
    }

    #[test]
    fn the_first_fault_stays() {
        let device = Device::new(0, 100);
        assert_eq!(device.check(), Ok(()));
        device.fail(HipError::ILLEGAL_ADDRESS);
        device.fail(HipError::LAUNCH_FAILURE);
        assert_eq!(device.check(), Err(HipError::ILLEGAL_ADDRESS));
    }

    #[test]
    fn memory_is_limited() {
        let device = Device::new(0, 100);
        assert_eq!(device.take(60), Ok(()));
        assert_eq!(device.take(41), Err(HipError::OUT_OF_MEMORY));
        device.give_back(60);
        assert_eq!(device.take(u64::MAX), Err(HipError::OUT_OF_MEMORY));
        assert_eq!(device.take(100), Ok(()));
    }
}
