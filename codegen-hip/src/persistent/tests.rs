//! How work is divided, which waits stay, and what becomes of a kernel's text. That streams compute
//! what launches do is shown end to end, on the emulator.

use super::DecodeForm;
use super::kernel::Body;
use super::schedule::{Assignment, divide, elide_waits, number_flags};
use crate::kernels::KernelSource;
use crate::kernels::instance::Draft;
use crate::mlir::Elem;
use crate::target::GpuTarget;
use waveloom_plan::persistent::{Instruction, Prefetch, Wait};

fn instruction(launch: u32, waits: &[(u32, u32)]) -> Instruction {
    Instruction {
        launch,
        first: 0,
        count: 2,
        waits: waits.iter().map(|&(flag, value)| Wait { flag, value }).collect(),
        signal: Some(launch),
        prefetches: vec![Prefetch { slot: 0, offset: 0, bytes: 16 }],
    }
}

#[test]
fn forms_have_names() {
    for (text, form) in [
        ("launches", DecodeForm::Launches),
        ("overlapping", DecodeForm::Overlapping),
        ("persistent", DecodeForm::Persistent(None)),
        ("persistent:12", DecodeForm::Persistent(Some(12))),
    ] {
        assert_eq!(text.parse(), Ok(form));
    }
    for text in ["", "persistent:", "persistent:0", "launches:3", "graph"] {
        let error = text.parse::<DecodeForm>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("unknown form of decode `{text}`: give ")), "{error}");
    }
}

#[test]
fn what_is_left_over_goes_to_those_that_moved_least() {
    let four = Assignment { streams: 4, dies: 2 };
    assert_eq!(divide(8, four, &[0.0; 4]), [2, 2, 2, 2]);
    assert_eq!(divide(6, four, &[5.0, 1.0, 7.0, 3.0]), [1, 2, 1, 2]);
    // Of equal ones the first, which are on different dies.
    assert_eq!(divide(2, four, &[0.0; 4]), [1, 1, 0, 0]);
    assert_eq!(divide(1, four, &[1.0, 1.0, 0.0, 0.0]), [0, 0, 1, 0]);
}

#[test]
fn streams_of_a_die_are_neighbours() {
    assert_eq!(Assignment { streams: 7, dies: 3 }.by_die(), [0, 3, 6, 1, 4, 2, 5]);
    assert_eq!(Assignment { streams: 3, dies: 1 }.by_die(), [0, 1, 2]);
}

#[test]
fn a_stream_waits_once_for_the_same() {
    let mut stream =
        vec![instruction(0, &[]), instruction(1, &[(0, 2)]), instruction(2, &[(0, 2), (1, 2)])];
    elide_waits(&mut stream);
    let waits: Vec<usize> = stream.iter().map(|instruction| instruction.waits.len()).collect();
    assert_eq!(waits, [0, 1, 1]);
    // There is nothing to read ahead of where there is no wait.
    let prefetches: Vec<usize> = stream.iter().map(|i| i.prefetches.len()).collect();
    assert_eq!(prefetches, [0, 1, 1]);
}

#[test]
fn only_flags_that_are_waited_on_are_signaled() {
    let mut streams = vec![
        vec![instruction(0, &[]), instruction(2, &[(1, 2)])],
        vec![instruction(1, &[]), instruction(3, &[(2, 2)])],
    ];
    assert_eq!(number_flags(&mut streams, 4), 2);
    let signals: Vec<Option<u32>> = streams.iter().flatten().map(|i| i.signal).collect();
    assert_eq!(signals, [None, Some(1), Some(0), None]);
    assert_eq!(streams[0][1].waits, [Wait { flag: 0, value: 2 }]);
    assert_eq!(streams[1][1].waits, [Wait { flag: 1, value: 2 }]);
}

fn target() -> GpuTarget {
    GpuTarget::from_name("gfx942").unwrap()
}

fn source() -> KernelSource {
    let mut draft = Draft::for_gpu("k", 256, &target());
    let out = draft.buffer(0);
    let k = &mut draft.builder;
    let (thread, group) = (k.thread(), k.workgroup());
    let shared = k.shared(1024);
    let sum = k.add(thread, group);
    let at = k.element_u32(shared, Elem::I32, thread);
    k.store(sum, at);
    k.store(sum, out);
    draft.finish("k".into(), 4.into(), 0)
}

#[test]
fn a_kernel_becomes_a_function_that_asks_no_hardware() {
    let source = source();
    let body = Body::new(3, &source, &target()).unwrap();
    assert_eq!((body.name.as_str(), body.shared_bytes), ("body_3", 1024));
    let head = "  func.func private @body_3(%arg0: !llvm.ptr<1> {llvm.align = 16 : i64, \
                llvm.noundef}, %workgroup: i32, %thread: i32) {\n";
    assert!(body.text.starts_with(head), "{}", body.text);
    assert!(!body.text.contains("amdgcn.work"), "{}", body.text);
    assert!(body.text.ends_with("    func.return\n  }\n"), "{}", body.text);
}

#[test]
fn other_texts_are_refused() {
    let mut source = source();
    source.text.mlir = "module {}\n".into();
    let error = Body::new(0, &source, &target()).err().expect("no function");
    assert_eq!(error, "the text of k is not that of a kernel");
}
