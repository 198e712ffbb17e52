//! `fuse-prologue`: a `norm` that only `gemm`s read becomes their prologue.
//!
//! The normalized rows then never go to memory. Where several gemms read them, each normalizes for itself:
//! that costs a pass over x, less than a launch of its own.

use crate::edit::{Editor, edit_functions};
use crate::gemm::Gemm;
use crate::pass::{PassError, PassOptions, PassReport};
use waveloom_ir::{InstId, Module, Op, ValueId};

/// The pass.
pub fn run(module: Module, options: &PassOptions) -> Result<(Module, PassReport), PassError> {
    edit_functions("fuse-prologue", module, options, |editor, report| {
        editor.until_stable(report, fuse)
    })
}

fn fuse(editor: &mut Editor<'_>, id: InstId) -> Result<Option<&'static str>, PassError> {
    let Some(norm) = editor.inst(id).cloned() else {
        return Ok(None);
    };
    let Op::Norm { eps } = norm.op else {
        return Ok(None);
    };
    let Some(gemms) = readers(editor, norm.results[0]) else {
        return Ok(None);
    };
    for at in gemms {
        // Taken apart only now: an earlier one's result may be an operand.
        let Some(old) = editor.inst(at).cloned() else {
            continue;
        };
        let Some(mut gemm) = Gemm::from_inst(&old) else {
            continue;
        };
        gemm.x = norm.operands[0];
        gemm.norm = Some((norm.operands[1], eps));
        let (op, operands) = gemm.into_op();
        let new = editor.insert(at, op, operands)?;
        for (old, new) in old.results.into_iter().zip(new) {
            editor.replace(old, new)?;
        }
    }
    Ok(Some("norm-into-gemm"))
}

/// The gemms that read `normed`, a norm's result, as their x, if nothing else reads it.
fn readers(editor: &Editor<'_>, normed: ValueId) -> Option<Vec<InstId>> {
    if editor.ty(normed).rank() != 2 || editor.is_returned(normed) {
        return None;
    }
    let users = editor.users(normed);
    // Each gemm reads it once, as x: not as a residual, and with no norm of its own.
    if users.is_empty() || editor.use_count(normed) != users.len() {
        return None;
    }
    let reads_as_x = |user: &InstId| {
        let gemm = editor.inst(*user).and_then(Gemm::from_inst);
        gemm.is_some_and(|gemm| gemm.x == normed && gemm.norm.is_none())
    };
    users.iter().all(reads_as_x).then_some(users)
}
