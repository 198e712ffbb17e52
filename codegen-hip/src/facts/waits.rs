//! Whether a kernel waits for the launches before it, on every path through its PTX: what
//! `CodeFacts::waits` promises.

/// What a statement means for that.
enum Step<'a> {
    /// The wait.
    Wait,
    /// Reads or writes what other launches may write or read; or nobody knows.
    Late,
    /// Goes to a label, always or not.
    Jump { label: &'a str, always: bool },
    /// Ends the work-item.
    End,
    /// Nothing.
    Other,
}

/// Loads that may come before the wait: of parameters, of memory that is the workgroup's own, and of
/// weights, as only `Builder::load_streamed` spells them.
const EARLY_LOADS: [&str; 4] = ["ld.param", "ld.shared", "ld.const", WEIGHTS];
const WEIGHTS: &str = "ld.global.nc.L1::no_allocate";

/// Instructions that reach memory by themselves, or go where this does not follow. What they name may
/// be the workgroup's own.
const REACH: [&str; 9] = ["ld", "st", "atom", "red", "cp", "call", "brx", "multimem", "discard"];

/// Whether no path through the statements of one kernel reaches memory of others, or its end, without
/// the wait. Loads by `ld.global.nc` that are not of weights are refused wherever they are: nothing
/// keeps them behind the wait.
pub(super) fn waits(statements: &[String]) -> bool {
    let stale = |text: &String| text.contains("ld.global.nc") && !text.contains(WEIGHTS);
    if statements.iter().any(stale) {
        return false;
    }
    let place = |label: &str| {
        statements.iter().position(|text| text.strip_suffix(':').is_some_and(|own| own == label))
    };
    let mut seen = vec![false; statements.len()];
    let mut open = vec![0];
    while let Some(index) = open.pop() {
        // The end of the text is the end of the kernel.
        let Some(text) = statements.get(index) else { return false };
        if std::mem::replace(&mut seen[index], true) {
            continue;
        }
        match step(text) {
            Step::Wait => {}
            Step::Late | Step::End => return false,
            Step::Jump { label, always } => {
                let Some(target) = place(label) else { return false };
                open.push(target);
                if !always {
                    open.push(index + 1);
                }
            }
            Step::Other => open.push(index + 1),
        }
    }
    statements.iter().any(|text| matches!(step(text), Step::Wait))
}

fn step(text: &str) -> Step<'_> {
    let Some(text) = text.strip_suffix(';') else { return Step::Other };
    let (predicated, text) = match text.strip_prefix('@') {
        Some(rest) => (true, rest.split_once(char::is_whitespace).map_or("", |(_, text)| text)),
        None => (false, text),
    };
    let text = text.trim_start();
    let (mnemonic, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let family = mnemonic.split('.').next().unwrap_or("");
    let own = mnemonic.contains(".shared") && !mnemonic.contains(".global");
    match family {
        "griddepcontrol" if mnemonic == "griddepcontrol.wait" && !predicated => Step::Wait,
        "bra" => Step::Jump { label: operands.trim(), always: !predicated },
        "ret" | "exit" | "trap" => Step::End,
        "ld" if EARLY_LOADS.iter().any(|load| mnemonic.starts_with(load)) => Step::Other,
        _ if REACH.contains(&family) && !own => Step::Late,
        _ => Step::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> bool {
        waits(&text.lines().map(|line| line.trim().to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn every_path_waits_before_it_reaches_memory_or_ends() {
        let loads = "ld.param.b64 %rd1, [p];
            ld.global.nc.L1::no_allocate.v4.b32 {%r1}, [%rd1];
            st.shared.b32 [%r2], %r1;";
        let then = "ld.global.b32 %r1, [%rd1];\nst.global.b32 [%rd1], %r1;\nret;";
        assert!(check(&format!("{loads}\ngriddepcontrol.wait;\n{then}")));
        // In a loop, and on both ways round a branch.
        assert!(check(&format!("{loads}\n$L1:\ngriddepcontrol.wait;\n@%p1 bra $L1;\n{then}")));
        assert!(check(&format!(
            "@%p1 bra $L1;\ngriddepcontrol.wait;\nbra.uni $L2;\n$L1:\ngriddepcontrol.wait;\n$L2:\n{then}"
        )));
        for wrong in [
            // Not at all, on one way, perhaps, in the next round, or at the end only.
            then.to_string(),
            format!("@%p1 bra $L1;\ngriddepcontrol.wait;\n$L1:\n{then}"),
            format!("@%p1 griddepcontrol.wait;\n{then}"),
            format!(
                "$L1:\nld.global.b32 %r1, [%rd1];\ngriddepcontrol.wait;\n@%p1 bra $L1;\n{then}"
            ),
            format!("@%p1 ret;\ngriddepcontrol.wait;\n{then}"),
            "ret;".to_string(),
            "griddepcontrol.launch_dependents;\nret;".to_string(),
            // Before: a store, an atomic, what nobody follows; text that ends or jumps nowhere.
            format!("st.global.b32 [%rd1], %r1;\ngriddepcontrol.wait;\n{then}"),
            format!(
                "atom.relaxed.gpu.global.add.u32 %r1, [%rd1], 1;\ngriddepcontrol.wait;\n{then}"
            ),
            format!("cp.async.cg.shared.global [%r1], [%rd1], 16;\ngriddepcontrol.wait;\n{then}"),
            format!("brx.idx %r1, $table;\ngriddepcontrol.wait;\n{then}"),
            format!("@%p1 bra $L9;\ngriddepcontrol.wait;\n{then}"),
            "@%p1 bra $L1;\ngriddepcontrol.wait;\nret;\n$L1:".to_string(),
            // Loads that the driver's compiler may move, wherever they are.
            format!("griddepcontrol.wait;\nld.global.nc.b32 %r1, [%rd1];\n{then}"),
        ] {
            assert!(!check(&wrong), "{wrong}");
        }
    }
}
