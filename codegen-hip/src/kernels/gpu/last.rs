//! Workgroups that share a result: each leaves its part in scratch and counts itself, and the last one
//! combines the parts, in their order, so that results are the same in every run.

use crate::mlir::builder::Cmp;
use crate::mlir::gpu::Scope;
use crate::mlir::{Builder, Elem, Value};

/// Counts this workgroup, whose work-items have stored its part, in `counter`; whether it is the last
/// of `count`, which sets the counter back and may read what the others stored. Uniform. `flag` is an
/// `i32` in the local data share that nothing else uses meanwhile.
pub(super) fn is_last(k: &mut Builder, counter: Value, count: Value, flag: Value) -> Value {
    let (thread, zero, one) = (k.thread(), k.i32(0), k.i32(1));
    // On AMD GPUs the barrier orders the others' stores for this workgroup alone, and on CDNA does not
    // wait for them; the atomic waits for those of the first wave only.
    k.release_of_wave(Scope::Device);
    k.barrier_all();
    let first = k.cmp(Cmp::Eq, thread, zero);
    k.if_then(first, |k| {
        let before = k.atomic_add(counter, one, Scope::Device);
        let now = k.add(before, one);
        let last = k.cmp(Cmp::Eq, now, count);
        k.if_then(last, |k| k.store(zero, counter));
        k.store(now, flag);
    });
    k.barrier_all();
    let now = k.load(flag, Elem::I32);
    let now = k.first_lane(now);
    k.cmp(Cmp::Eq, now, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::instance::Draft;
    use crate::lower::compile;
    use crate::target::Target;

    /// No store of any wave is under way when a workgroup is counted.
    #[test]
    fn every_wave_waits_for_its_stores() {
        let chips = [
            ("gfx90a", "s_waitcnt vmcnt(0)"),
            ("gfx942", "s_waitcnt vmcnt(0)"),
            ("gfx950", "s_waitcnt vmcnt(0)"),
            ("gfx1100", "s_waitcnt_vscnt null, 0x0"),
            ("gfx1151", "s_waitcnt_vscnt null, 0x0"),
            ("gfx1201", "s_wait_storecnt 0x0"),
        ];
        for (chip, wait) in chips {
            let target = Target::from_name(chip).unwrap();
            let Target::Gpu(gpu) = &target else { panic!("{chip} is a GPU") };
            let mut draft = Draft::for_gpu("k", 256, gpu);
            let (part, counter) = (draft.buffer(0), draft.buffer(1));
            let k = &mut draft.builder;
            let thread = k.thread();
            let to = k.element_u32(part, Elem::I32, thread);
            k.store(thread, to);
            let (count, flag) = (k.i32(7), k.shared(4));
            let last = is_last(k, counter, count, flag);
            k.if_then(last, |k| k.store(count, to));
            let text = draft.finish("k".into(), 1.into(), 0).text;
            let assembly = compile(&text, &target, true).unwrap().dump.unwrap().assembly;
            let at = |what: &str| assembly.find(what).unwrap_or_else(|| panic!("{chip}: {what}"));
            let barrier = assembly.find("s_barrier_signal").unwrap_or_else(|| at("s_barrier"));
            let between = &assembly[at("global_store")..barrier];
            assert!(between.contains(wait), "{chip}: {between}");
        }
    }
}
