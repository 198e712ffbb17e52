//! Nothing is found where nothing is wrong.

use crate::support::{MODELS, first_wrong, model};
use std::time::Instant;
use waveloom_ir::DType;
use waveloom_passes::{PASSES, PassOptions, WeightDtype, run_pipeline, schedule};
use waveloom_verify::Reproducer;

/// Overhead on a tiny model that is wanted at most, in seconds.
const OVERHEAD: f64 = 5.0;

#[test]
fn the_passes_are_right() {
    for name in MODELS {
        let module = model(name);
        for dtype in
            [WeightDtype::Keep, WeightDtype::Convert(DType::F32), WeightDtype::Convert(DType::Q8_0)]
        {
            let options = PassOptions { dtype, ..PassOptions::default() };
            let start = Instant::now();
            let wrong = first_wrong(PASSES, &module, &options);
            let seconds = start.elapsed().as_secs_f64();
            println!("{name} {dtype}: {seconds:.2} s");
            if let Some((pass, finding, _)) = wrong {
                panic!("{name} {dtype}: {pass}: {finding}");
            }
            assert!(seconds < OVERHEAD, "{name}: {seconds} s");
        }
    }
}

/// The op of every kernel can be kept without a device, read again, and has values on its inputs.
#[test]
fn ops_are_kept_with_inputs_that_are_drawn() {
    let options = PassOptions::default();
    let module = run_pipeline(model("gguf/mixed.gguf"), &options, &mut |_| Ok(()));
    let module = module.expect("it compiles");
    let schedule = schedule(&module).expect("a schedule");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kernel.wl");
    for (program, step) in schedule.steps.iter().take(9).enumerate().map(|(i, s)| (i % 2, s)) {
        let drawn = Reproducer::drawn(&module, &schedule, step, ("cpu", program), 1);
        drawn.expect("it can be drawn").write(&path).expect("it can be written");
        let read = Reproducer::read(&path).expect("it can be read");
        let op = &module.functions[step.func.index()].insts[step.inst.index()].op;
        assert_eq!((read.operation.op(), read.facts.program), (op, program));
    }
}
