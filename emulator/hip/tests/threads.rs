//! Many threads at once.

#![allow(unsafe_code, reason = "the API is C's")]

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use amdhip64::types::*;
use amdhip64::{device, event, memory, module, stream};
use common::*;

/// Threads with streams of their own: their work is done once each and in order.
#[test]
fn many_threads_with_many_streams() {
    setup();
    static DONE: AtomicU32 = AtomicU32::new(0);
    let threads: Vec<_> = (0..8).map(|number| std::thread::spawn(move || work(number))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(DONE.load(Ordering::SeqCst), 8);

    fn work(number: i32) {
        good(device::hipSetDevice(4 + number % 2));
        let module = load();
        let func = function(module, "add");
        let streams = [new_stream(0), new_stream(1), STREAM_PER_THREAD];
        let address = upload(&[0; 64]);
        let mut last = 0;
        good(event::hipEventCreate(Some(&mut last)));
        for round in 0..60u32 {
            let stream = streams[round as usize % 3];
            good(stream::hipStreamWaitEvent(stream, last, 0));
            add(func, stream, address, 1, 64, 0);
            good(event::hipEventRecord(last, stream));
            if round % 20 == 19 {
                // The default stream is everyone's.
                good(memory::hipMemsetAsync(address, 0, 0, 0));
                good(event::hipEventSynchronize(last));
                assert_eq!(download(address, 64), vec![round + 1; 64]);
            }
        }
        for stream in &streams[..2] {
            good(stream::hipStreamDestroy(*stream));
        }
        good(event::hipEventDestroy(last));
        good(memory::hipFree(address));
        good(module::hipModuleUnload(module));
        DONE.fetch_add(1, Ordering::SeqCst);
    }
}
