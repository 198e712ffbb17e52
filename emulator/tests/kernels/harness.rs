//! Compiles the kernels of `emulator/kernels`, runs them, and compares what they wrote.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use half::{bf16, f16};
use waveloom_emulator::Chip;
use waveloom_emulator::dispatch::{Launch, LaunchError, Options, Summary, launch};
use waveloom_emulator::memory::Memory;
use waveloom_emulator::object::{Kernel, Object};

/// How a file of kernels is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Build {
    /// Name of the source file.
    pub file: &'static str,
    pub chip: Chip,
    /// `-O3`.
    pub level: &'static str,
    /// Code object version.
    pub version: u32,
    /// 32 or 64.
    pub wave: u32,
    /// Debug information.
    pub debug: bool,
}

impl Build {
    /// As a release of HIP would compile it today.
    pub const fn new(file: &'static str, chip: Chip) -> Build {
        let wave = match chip {
            Chip::Gfx90a | Chip::Gfx942 | Chip::Gfx950 => 64,
            Chip::Gfx1100 | Chip::Gfx1151 | Chip::Gfx1201 => 32,
        };
        Build { file, chip, level: "-O3", version: 5, wave, debug: false }
    }

    fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> =
            "-x hip --offload-device-only --no-gpu-bundle-output -nogpulib -nogpuinc -std=c++20"
                .split(' ')
                .map(str::to_string)
                .collect();
        flags.push(format!("--offload-arch={}", self.chip));
        flags.push(self.level.to_string());
        flags.push(format!("-mcode-object-version={}", self.version));
        flags.push(format!("-DWAVE={}", self.wave));
        if self.chip.is_rdna() && self.wave == 64 {
            flags.push("-mwavefrontsize64".to_string());
        }
        if self.version >= 5 {
            flags.push("-DHIDDEN=1".to_string());
        }
        // The kernels of this file are launched with partial workgroups, too.
        if self.file == "machine.hip" {
            flags.push("-fno-offload-uniform-block".to_string());
        }
        if self.debug {
            flags.extend(["-g", "-fhip-kernel-arg-name"].map(str::to_string));
        }
        flags
    }

    /// The code object, compiled once and kept beside the test's other files.
    pub fn object(&self) -> Vec<u8> {
        static LOCKS: OnceLock<Mutex<HashMap<Build, Arc<Mutex<()>>>>> = OnceLock::new();
        let mut locks =
            LOCKS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let lock = locks.entry(*self).or_default().clone();
        drop(locks);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);

        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let read = |name: &str| std::fs::read(sources.join(name)).expect("a kernel source");
        let mut hasher = DefaultHasher::new();
        (self.flags(), read(self.file), read("device.h"), clang()).hash(&mut hasher);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
        let path = directory.join(format!("{}-{:016x}.hsaco", self.chip, hasher.finish()));
        if let Ok(object) = std::fs::read(&path) {
            return object;
        }
        std::fs::create_dir_all(&directory).expect("a directory for code objects");
        let partial = path.with_extension(format!("{}", std::process::id()));
        let output = Command::new(clang())
            .args(self.flags())
            .arg(sources.join(self.file))
            .arg("-o")
            .arg(&partial)
            .output()
            .expect("clang 22 runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?} does not compile:\n{said}");
        std::fs::rename(&partial, &path).expect("a code object");
        std::fs::read(&path).expect("a code object")
    }
}

/// LLVM's own place on Debian, or the search path.
fn clang() -> PathBuf {
    let debian = PathBuf::from("/usr/lib/llvm-22/bin/clang");
    if debian.exists() { debian } else { PathBuf::from("clang-22") }
}

/// A code object in memory.
struct Loaded {
    memory: Arc<Memory>,
    object: Object,
}

fn loaded(build: Build) -> Arc<Loaded> {
    type Slot = Arc<OnceLock<Arc<Loaded>>>;
    static OBJECTS: OnceLock<Mutex<HashMap<Build, Slot>>> = OnceLock::new();
    let mut objects =
        OBJECTS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let slot = objects.entry(build).or_default().clone();
    drop(objects);
    let load = || {
        let memory = Arc::new(Memory::reserve(1 << 30).expect("address space"));
        let object = Object::load(&build.object(), build.chip, &memory).expect("a good object");
        Arc::new(Loaded { memory, object })
    };
    slot.get_or_init(load).clone()
}

/// A device with one code object and the buffers of one test.
pub struct Device {
    pub chip: Chip,
    pub wave: u32,
    loaded: Arc<Loaded>,
    /// Address and bytes of each buffer.
    buffers: RefCell<Vec<(u64, usize)>>,
}

/// An array in device memory.
pub struct Buffer<T> {
    pub address: u64,
    pub len: usize,
    element: PhantomData<T>,
}

impl Device {
    pub fn new(build: Build) -> Device {
        let Build { chip, wave, .. } = build;
        Device { chip, wave, loaded: loaded(build), buffers: RefCell::default() }
    }

    pub fn memory(&self) -> &Arc<Memory> {
        &self.loaded.memory
    }

    pub fn kernel(&self, name: &str) -> Arc<Kernel> {
        self.loaded.object.kernel(name).unwrap_or_else(|| panic!("no kernel {name}"))
    }

    /// Address of a global variable.
    pub fn global(&self, name: &str) -> u64 {
        self.loaded.object.symbol(name).unwrap_or_else(|| panic!("no variable {name}")).0
    }

    /// A buffer with these elements.
    pub fn buffer<T: Element>(&self, values: &[T]) -> Buffer<T> {
        let bytes = to_bytes(values);
        let address = self.memory().allocate(bytes.len() as u64, "test").expect("device memory");
        self.memory().write(address, &bytes).expect("our own memory");
        self.buffers.borrow_mut().push((address, bytes.len()));
        Buffer { address, len: values.len(), element: PhantomData }
    }

    /// A buffer to be written by a kernel; it holds a pattern that no result should look like.
    pub fn output<T: Element>(&self, len: usize) -> Buffer<T> {
        self.buffer(&vec![T::from_bytes(&[0xc5; 8]); len])
    }

    pub fn read<T: Element>(&self, buffer: &Buffer<T>) -> Vec<T> {
        let mut bytes = vec![0; buffer.len * T::SIZE];
        self.memory().read(buffer.address, &mut bytes).expect("our own memory");
        from_bytes(&bytes)
    }

    /// Runs a kernel on one host thread and on two; what it writes must be the same bit for bit.
    pub fn run(&self, name: &str, grid: impl Into<Grid>, arguments: &[Argument]) -> Summary {
        let before = self.snapshot();
        let grid = grid.into();
        let summary = self.run_once(name, grid, arguments, 1);
        let first = self.snapshot();
        for (bytes, (address, _)) in before.iter().zip(self.buffers.borrow().iter()) {
            self.memory().write(*address, bytes).expect("our own memory");
        }
        let again = self.run_once(name, grid, arguments, 2);
        assert!(first == self.snapshot(), "{name} differs between one thread and two");
        assert_eq!(summary.waves, again.waves, "{name}: waves on one thread and on two");
        if std::env::var_os("KERNELS_WITHOUT_CHECKS").is_none() {
            for (bytes, (address, _)) in before.iter().zip(self.buffers.borrow().iter()) {
                self.memory().write(*address, bytes).expect("our own memory");
            }
            self.check(name, grid, arguments);
            assert!(first == self.snapshot(), "{name} differs under checks");
        }
        summary
    }

    /// Runs a kernel under checks, which must find nothing.
    fn check(&self, name: &str, grid: Grid, arguments: &[Argument]) {
        let options = Options { check: true, ..Options::default() };
        let summary = self.try_run(name, grid, arguments, &options);
        let summary = summary.unwrap_or_else(|error| panic!("{error}"));
        let reports: Vec<String> = summary.reports.iter().map(ToString::to_string).collect();
        assert!(reports.is_empty(), "{name} is clean, but checks say:\n{}", reports.join("\n"));
    }

    /// Runs a kernel whose results depend on the order of its workgroups.
    pub fn run_once(
        &self,
        name: &str,
        grid: impl Into<Grid>,
        arguments: &[Argument],
        threads: usize,
    ) -> Summary {
        let options = Options { threads, max_instructions: Some(1 << 31), ..Options::default() };
        self.try_run(name, grid, arguments, &options).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a kernel that may fail.
    pub fn try_run(
        &self,
        name: &str,
        grid: impl Into<Grid>,
        arguments: &[Argument],
        options: &Options,
    ) -> Result<Summary, LaunchError> {
        let kernel = self.kernel(name);
        let mut kernarg = vec![0; kernel.kernarg_size as usize];
        let explicit: Vec<_> = kernel.arguments.iter().filter(|arg| !arg.is_hidden()).collect();
        assert_eq!(explicit.len(), arguments.len(), "arguments of {name}");
        for (place, argument) in explicit.iter().zip(arguments) {
            assert_eq!(place.size as usize, argument.0.len(), "size of an argument of {name}");
            let at = place.offset as usize;
            kernarg[at..at + argument.0.len()].copy_from_slice(&argument.0);
        }
        launch(&kernel, &grid.into().0, &kernarg, self.memory(), options)
    }

    fn snapshot(&self) -> Vec<Vec<u8>> {
        let read = |(address, size): &(u64, usize)| {
            let mut bytes = vec![0; *size];
            self.memory().read(*address, &mut bytes).expect("our own memory");
            bytes
        };
        self.buffers.borrow().iter().map(read).collect()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for (address, _) in self.buffers.borrow().iter() {
            self.loaded.memory.free(*address);
        }
    }
}

/// The shape of a launch.
#[derive(Clone, Copy)]
pub struct Grid(pub Launch);

impl From<(u32, u32)> for Grid {
    /// Workgroups and work-items of each in x.
    fn from((groups, items): (u32, u32)) -> Grid {
        Grid::from(([groups, 1, 1], [items, 1, 1]))
    }
}

impl From<([u32; 3], [u32; 3])> for Grid {
    fn from((grid, block): ([u32; 3], [u32; 3])) -> Grid {
        Grid(Launch { grid, block, ..Launch::default() })
    }
}

impl From<Launch> for Grid {
    fn from(launch: Launch) -> Grid {
        Grid(launch)
    }
}

/// The bytes of an argument.
#[derive(Clone)]
pub struct Argument(Vec<u8>);

impl<T> From<&Buffer<T>> for Argument {
    fn from(buffer: &Buffer<T>) -> Argument {
        Argument(buffer.address.to_le_bytes().to_vec())
    }
}

/// The arguments of a kernel: buffers by reference, numbers by value.
#[macro_export]
macro_rules! args {
    ($($argument:expr),* $(,)?) => { &[$($crate::harness::Argument::from($argument)),*] };
}

/// A number that memory holds, little end first.
pub trait Element: Copy {
    const SIZE: usize;
    fn append(self, bytes: &mut Vec<u8>);
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! elements {
    ($($type:ty)*) => {$(
        impl Element for $type {
            const SIZE: usize = size_of::<$type>();
            fn append(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn from_bytes(bytes: &[u8]) -> $type {
                let bytes = bytes[..size_of::<$type>()].try_into().expect("as many bytes");
                <$type>::from_le_bytes(bytes)
            }
        }
        impl From<$type> for Argument {
            fn from(value: $type) -> Argument {
                Argument(value.to_le_bytes().to_vec())
            }
        }
    )*};
}

elements! { u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 f16 bf16 }

pub fn to_bytes<T: Element>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * T::SIZE);
    values.iter().for_each(|value| value.append(&mut bytes));
    bytes
}

pub fn from_bytes<T: Element>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(T::SIZE).map(T::from_bytes).collect()
}

/// Pseudo-random numbers (SplitMix64), the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// From -1 to 1.
    pub fn real(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// From -`limit` to `limit`.
    pub fn integer(&mut self, limit: i64) -> i64 {
        self.below(2 * limit as u64 + 1) as i64 - limit
    }

    /// Any f32 that is no NaN.
    pub fn any_f32(&mut self) -> f32 {
        loop {
            let value = f32::from_bits(self.bits() as u32);
            if !value.is_nan() {
                return value;
            }
        }
    }

    pub fn list<T>(&mut self, len: usize, mut one: impl FnMut(&mut Random) -> T) -> Vec<T> {
        (0..len).map(|_| one(self)).collect()
    }
}

/// Every result within its own bound of what was expected; NaN matches NaN.
#[track_caller]
pub fn assert_close(got: &[f64], expected: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let close = got == expected || (got - expected).abs() <= bound(index);
        let both_nan = got.is_nan() && expected.is_nan();
        assert!(
            close || both_nan,
            "[{index}]: {got:e}, expected {expected:e} within {:e}",
            bound(index)
        );
    }
}

/// Equal bits; any NaN matches any NaN.
#[track_caller]
pub fn assert_same<T: Element + Into<f64> + std::fmt::Debug>(got: &[T], expected: &[T]) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let (a, b) = (to_bytes(&[*got]), to_bytes(&[*expected]));
        let (x, y): (f64, f64) = ((*got).into(), (*expected).into());
        assert!(a == b || (x.is_nan() && y.is_nan()), "[{index}]: {got:?}, expected {expected:?}");
    }
}

pub fn wide<T: Copy + Into<f64>>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| (*value).into()).collect()
}

/// Distance between neighbouring f32 at a value.
pub fn ulp(value: f64) -> f64 {
    let exponent = (value.abs().max(f64::from(f32::MIN_POSITIVE)).to_bits() >> 52) as i32 - 1023;
    2_f64.powi(exponent - 23)
}

/// One test per chip for each function of a device.
#[macro_export]
macro_rules! chips {
    ($file:literal: $($function:ident),* $(,)?) => {$(
        mod $function {
            $crate::chips!(@one $function $file gfx90a Gfx90a);
            $crate::chips!(@one $function $file gfx942 Gfx942);
            $crate::chips!(@one $function $file gfx950 Gfx950);
            $crate::chips!(@one $function $file gfx1100 Gfx1100);
            $crate::chips!(@one $function $file gfx1151 Gfx1151);
            $crate::chips!(@one $function $file gfx1201 Gfx1201);
        }
    )*};
    (@one $function:ident $file:literal $name:ident $chip:ident) => {
        #[test]
        fn $name() {
            use $crate::harness::{Build, Device};
            let build = Build::new($file, waveloom_emulator::Chip::$chip);
            super::$function(&Device::new(build));
        }
    };
}

/// The same functions on objects compiled in other ways: level, version, wave width, debug.
#[macro_export]
macro_rules! builds {
    ($file:literal: $($name:ident: $chip:ident $level:literal v $version:literal wave $wave:literal
        $(debug $debug:literal)? => [$($function:ident),* $(,)?];)*) => {$(
        #[test]
        fn $name() {
            use $crate::harness::{Build, Device};
            let build = Build {
                level: $level,
                version: $version,
                wave: $wave,
                debug: false $(|| $debug)?,
                ..Build::new($file, waveloom_emulator::Chip::$chip)
            };
            $($function(&Device::new(build));)*
        }
    )*};
}
