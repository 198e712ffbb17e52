//! For tests: compiles a kernel, loads it, runs it.
#![allow(unsafe_code)]

use crate::link::link_shared_object;
use crate::target::CpuTarget;
use crate::{CodegenError, KernelText, Target, compile};
use std::alloc::{Layout, alloc_zeroed, dealloc};

type Entry = unsafe extern "C" fn(*const u64, i64, i64, *mut u8);

/// A kernel in this process.
pub(crate) struct Loaded {
    entry: Entry,
    _library: libloading::Library,
}

/// One argument of a launch.
#[derive(Clone, Copy)]
pub(crate) enum Arg {
    Ptr(*const u8),
    I64(i64),
}

/// The address of a slice that a kernel reads.
pub(crate) fn input<T>(slice: &[T]) -> Arg {
    Arg::Ptr(slice.as_ptr().cast())
}

/// The address of a slice that a kernel writes.
pub(crate) fn output<T>(slice: &mut [T]) -> Arg {
    Arg::Ptr(slice.as_mut_ptr().cast_const().cast())
}

/// The targets among `names` that this machine can run; says in words which it cannot.
pub(crate) fn runnable_targets(names: &[&str]) -> Vec<CpuTarget> {
    let host = CpuTarget::host().expect("a host that can run kernels");
    // What other machines with the same vectors run.
    let without_amx = CpuTarget { amx: false, ..host.clone() };
    let without_amx = (host.amx && names.contains(&"cpu")).then_some(without_amx);
    names
        .iter()
        .map(|name| CpuTarget::from_name(name).expect("a known target"))
        .chain(without_amx)
        .filter(|target| {
            let runs = target.requires.iter().all(|feature| host.requires.contains(feature));
            if !runs {
                eprintln!("skipped: this machine cannot run target {}", target.name);
            }
            runs
        })
        .collect()
}

impl Loaded {
    /// Compiles, links and loads.
    pub(crate) fn new(source: &KernelText, target: &CpuTarget) -> Result<Loaded, CodegenError> {
        let kernel = compile(source, &Target::from(target.clone()), false)?;
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("kernel.so");
        std::fs::write(&path, link_shared_object(&[kernel], &Target::from(target.clone()))?)?;
        // SAFETY: the library was linked from a kernel: it has no initializers.
        let library = unsafe { libloading::Library::new(&path) }.expect("the library loads");
        // SAFETY: the symbol is a kernel, which has this type.
        let entry = unsafe { *library.get::<Entry>(source.name.as_bytes()).expect("the symbol") };
        Ok(Loaded { entry, _library: library })
    }

    /// Runs work items `first..last` with `scratch_bytes` of scratch, filled with `0xa5` so that
    /// a kernel that relies on its content is found out.
    pub(crate) fn run(&self, args: &[Arg], first: i64, last: i64, scratch_bytes: usize) {
        let mut scratch = Aligned::new(scratch_bytes);
        scratch.bytes_mut().fill(0xa5);
        self.run_in(args, first, last, &mut scratch);
    }

    /// Runs work items `first..last` in the given scratch.
    pub(crate) fn run_in(&self, args: &[Arg], first: i64, last: i64, scratch: &mut Aligned) {
        let slots: Vec<u64> = args
            .iter()
            .map(|arg| match arg {
                Arg::Ptr(pointer) => *pointer as u64,
                Arg::I64(value) => *value as u64,
            })
            .collect();
        // SAFETY: tests pass arguments that are what the kernel expects, alive during the call.
        unsafe { (self.entry)(slots.as_ptr(), first, last, scratch.pointer) }
    }

    /// Runs `0..grid` in one go and again in uneven parts; gives `read` of either, to compare.
    pub(crate) fn run_whole_and_split<R>(
        &self,
        args: &[Arg],
        grid: i64,
        scratch_bytes: usize,
        mut read: impl FnMut() -> R,
    ) -> (R, R) {
        self.run(args, 0, grid, scratch_bytes);
        let whole = read();
        let cuts = [0, grid / 7, grid / 3, grid / 2, grid];
        for cut in cuts.windows(2).rev() {
            self.run(args, cut[0], cut[1], scratch_bytes);
        }
        (whole, read())
    }
}

/// Zeroed bytes aligned to 64, as the runtime gives them.
pub(crate) struct Aligned {
    pointer: *mut u8,
    layout: Layout,
}

impl Aligned {
    pub(crate) fn new(bytes: usize) -> Aligned {
        let layout = Layout::from_size_align(bytes.max(64), 64).expect("a small size");
        // SAFETY: the size is not zero.
        let pointer = unsafe { alloc_zeroed(layout) };
        assert!(!pointer.is_null());
        Aligned { pointer, layout }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Aligned {
        let mut aligned = Aligned::new(bytes.len());
        aligned.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        aligned
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation has this size and is initialized.
        unsafe { std::slice::from_raw_parts(self.pointer, self.layout.size()) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.layout.size()) }
    }

    pub(crate) fn arg(&self) -> Arg {
        Arg::Ptr(self.pointer)
    }

    pub(crate) fn address(&self) -> u64 {
        self.pointer as u64
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.pointer, self.layout) }
    }
}

/// Numbers that look random, the same in every run: uniform in −1..1.
pub(crate) fn random_f32(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Seconds that this thread has run: what other programs take of the machine does not count.
pub(crate) fn on_cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that the call fills.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
