//! Nothing is allocated between load and the end of a generation: a counting allocator proves it.
//! One test only, since the counter counts for all threads of the process.
#![allow(unsafe_code)]

mod toy;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use toy::{Toy, continuation, prompt};
use waveloom_runtime::{GenerateOptions, LoadOptions, Session};

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
    let mut session = Session::load(&toy.artifact(), options).unwrap();
    let prompt = prompt(19);
    let options = GenerateOptions { max_new_tokens: 20, ..GenerateOptions::default() };
    let mut tokens = Vec::with_capacity(100);

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for turn in 0..3 {
        tokens.clear();
        session
            .generate(&prompt, &options, &mut |event| {
                tokens.push(event.token);
                if turn == 2 {
                    // Long enough that workers fall asleep, which must not allocate either.
                    std::thread::sleep(Duration::from_millis(5));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    session.reset();
    let after = ALLOCATIONS.load(Ordering::Relaxed);

    assert_eq!(after - before, 0);
    assert_eq!(tokens, continuation(&prompt, 20, 1));
    drop(Vec::<u8>::with_capacity(1));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > after, "the counter counts");
}
