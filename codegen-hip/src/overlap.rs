//! Launches of the decode step that may begin while the one before them runs: NVIDIA's programmatic
//! dependent launches.
//!
//! A kernel lets the next launch begin as soon as all of its workgroups have, and waits for the end
//! of the one before it (`griddepcontrol.wait`: ended, and what it wrote seen) before it reads what
//! others may have written, and before it writes. What it does until then costs nothing: addresses, and
//! the first loads of weights, which are on their way meanwhile.
//!
//! Ends are in order although begins are not: whatever the kernel does, each work-item has waited when
//! it ends, so a launch ends after all before it, and whoever waits for it has waited for them too.
//! That also keeps a launch from writing what one further back still reads. The waits are put in here
//! where a kernel says that it reads what others wrote from there on
//! ([`Builder::others_from_here`]), else at its beginning; whether the code that comes of it keeps to all
//! that is read off its PTX (`CodeFacts::waits`), and only such launches overlap.

use crate::lower_schedule::Lowered;
use crate::mlir::Builder;
use crate::target::GpuTarget;

/// Lets the next launch begin when all workgroups have got here.
const LET_NEXT: &str = r#"    llvm.inline_asm has_side_effects "griddepcontrol.launch_dependents;", "" : () -> ()
"#;

/// Waits for the launch before.
const WAIT: &str =
    r#"llvm.inline_asm has_side_effects "griddepcontrol.wait;", "~{memory}" : () -> ()"#;

/// How every kernel ends.
const END: &str = "    func.return\n";

/// Has the kernels of the decode program wait for the launches before them, where the chip can run them
/// so.
pub(crate) fn lower(lowered: &mut Lowered, target: &GpuTarget) {
    if !target.dependent_launches {
        return;
    }
    let decode = &lowered.plan.programs[lowered.plan.decode_loop.decode];
    for (index, kernel) in lowered.kernels.iter_mut().enumerate() {
        if decode.launches.iter().any(|launch| launch.kernel == index) {
            kernel.text.mlir = waiting(&kernel.text.mlir);
        }
    }
}

/// A kernel that waits.
fn waiting(mlir: &str) -> String {
    let (before, rest) = mlir.split_once("  func.func @").unwrap_or((mlir, ""));
    let (signature, body) = rest.split_once(" {\n").unwrap_or((rest, ""));
    let (code, after) = body.rsplit_once(END).unwrap_or((body, ""));
    let [first, last] = match code.contains(Builder::OTHERS) {
        // At its end again: a workgroup may have had no reason to get to the other places.
        true => [String::new(), format!("    {WAIT}\n")],
        false => [format!("    {WAIT}\n"), String::new()],
    };
    let code = code.replace(Builder::OTHERS, WAIT);
    format!("{before}  func.func @{signature} {{\n{LET_NEXT}{first}{code}{last}{END}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;
    use crate::kernels::instance::Draft;
    use crate::mlir::Elem;
    use crate::target::Target;

    /// A kernel that loads a weight, then what another launch wrote, and stores their sum; and what
    /// its PTX says.
    fn kernel(marked: bool) -> (String, bool) {
        let target = Target::from_name("sm_90").unwrap();
        let Target::Gpu(gpu) = &target else { panic!("a GPU") };
        let mut draft = Draft::for_gpu("k", 32, gpu);
        let [weights, x, to] = [0, 1, 2].map(|index| draft.buffer(index));
        let k = &mut draft.builder;
        let thread = k.thread();
        let at = |k: &mut Builder, base| k.element_u32(base, Elem::I32, thread);
        let weight = at(k, weights);
        let weight = k.load_streamed(weight, Elem::I32, 4);
        if marked {
            k.others_from_here();
        }
        let x = at(k, x);
        let x = k.load(x, Elem::I32);
        let sum = k.add(weight, x);
        let to = at(k, to);
        k.store(sum, to);
        let mut text = draft.finish("k".into(), 1.into(), 0).text;
        assert!(!compile(&text, &target, false).unwrap().facts.unwrap().waits);
        text.mlir = waiting(&text.mlir);
        let compiled = compile(&text, &target, false).unwrap();
        (String::from_utf8(compiled.object).unwrap(), compiled.facts.unwrap().waits)
    }

    #[test]
    fn weights_are_on_their_way_before_the_wait() {
        for marked in [false, true] {
            let (ptx, waits) = kernel(marked);
            assert!(waits, "{ptx}");
            let at = |what: &str| ptx.find(what).unwrap_or_else(|| panic!("no {what}: {ptx}"));
            let [wait, weight] = ["griddepcontrol.wait", "ld.global.nc.L1::no_allocate"].map(at);
            assert!(at("griddepcontrol.launch_dependents") < wait);
            assert_eq!(weight < wait, marked, "{ptx}");
            assert!(wait < at("ld.global.b32") && wait < at("st.global"), "{ptx}");
            assert_eq!(ptx.matches("griddepcontrol.wait").count(), 1 + usize::from(marked));
        }
    }
}
