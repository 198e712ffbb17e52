//! Nothing is found where nothing is wrong.

use crate::support::{MODELS, first_wrong, model};
use std::time::Instant;
use waveloom_ir::DType;
use waveloom_passes::{PASSES, PassOptions, WeightDtype};

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
