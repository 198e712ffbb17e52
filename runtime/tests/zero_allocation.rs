//! Nothing is allocated between load and the end of a generation: a counting allocator proves it.
//! One test only, since the counter counts for all threads of the process.
#![allow(unsafe_code)]

mod toy;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use toy::gpu::{emulator, gpu_code, gpu_plan};
use toy::{Toy, continuation, prompt};
use waveloom_runtime::{DeviceKind, GenerateOptions, LoadOptions, Session};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_generation_allocates_nothing() {
    let Some(toy) = Toy::with_plan(|_| {}) else { return };
    let options = LoadOptions { threads: Some(3), ..LoadOptions::default() };
    allocates_nothing(Session::load(&toy.artifact(), options).unwrap());
    if let Some(session) = on_a_gpu() {
        allocates_nothing(session);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    drop(Vec::<u8>::with_capacity(1));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before, "the counter counts");
}

/// The toy model on the emulated GPU. What HIP's library allocates is its own business, and not
/// counted: it has an allocator of its own.
fn on_a_gpu() -> Option<Session> {
    let library = emulator()?.canonicalize().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lib")).unwrap();
    std::os::unix::fs::symlink(library, folder.path().join("lib/libamdhip64.so")).unwrap();
    // SAFETY: the only other thread of this process waits for this one: the session before is gone.
    unsafe {
        std::env::set_var("ROCM_PATH", folder.path());
        std::env::set_var("WAVELOOM_EMU_DEVICE", "gfx942");
    }
    let code = gpu_code(folder.path(), "gfx942")?;
    let place = tempfile::tempdir().unwrap();
    let toy = Toy::write(place, &[gpu_plan("gfx942")], &code, &toy::weights(1));
    let options = LoadOptions { device: DeviceKind::Hip(0), ..LoadOptions::default() };
    Some(Session::load(&toy.artifact(), options).unwrap())
}

/// Generates, with pauses and with logits, too.
fn allocates_nothing(mut session: Session) {
    let prompt = prompt(19);
    let plain = GenerateOptions { max_new_tokens: 20, ..GenerateOptions::default() };
    let options = [
        plain.clone(),
        // Ends with steps in flight, on a device that has some.
        GenerateOptions { stop_tokens: vec![continuation(&prompt, 9, 1)[8]], ..plain.clone() },
        GenerateOptions { logits: true, ..plain.clone() },
        plain,
    ];
    let mut tokens = Vec::with_capacity(100);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for (turn, options) in options.iter().enumerate() {
        tokens.clear();
        session
            .generate(&prompt, options, &mut |event| {
                tokens.push(event.token);
                if turn == 3 {
                    // Long enough that workers fall asleep, which must not allocate either.
                    std::thread::sleep(Duration::from_millis(5));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    session.reset();
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    assert_eq!(after - before, 0, "on {}", session.device());
    assert_eq!(tokens, continuation(&prompt, 20, 1));
}
