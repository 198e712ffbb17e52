//! `fuse-gemm-inputs`: one `gemm` for all products of one x.
//!
//! The query, key and value projections read the same rows, as do gate and up: as one `gemm` they read
//! (and later normalize, or quantize) x once, and are one launch.

use crate::edit::{Editor, edit_functions};
use crate::gemm::Gemm;
use crate::pass::{PassError, PassOptions, PassReport};
use waveloom_ir::{InstId, Module};

const NAME: &str = "fuse-gemm-inputs";

/// An instruction and its parts.
type Pair = (InstId, Gemm);

/// The pass.
pub fn run(module: Module, options: &PassOptions) -> Result<(Module, PassReport), PassError> {
    edit_functions(NAME, module, options, |editor, report| {
        editor.until_stable(report, |editor, first| match partner(editor, first) {
            Some((a, b)) => merge(editor, a, b).map(Some),
            None => Ok(None),
        })
    })
}

/// The gemm `first` and one of the same x that can be computed together with it.
fn partner(editor: &Editor<'_>, first: InstId) -> Option<(Pair, Pair)> {
    let gemm = |id| Some((id, Gemm::from_inst(editor.inst(id)?)?));
    let a = gemm(first)?;
    let fits = |b: &Pair| {
        b.0 != first
            && (a.1.x, a.1.norm) == (b.1.x, b.1.norm)
            && independent(editor, first, b.0)
            && independent(editor, b.0, first)
    };
    let b = editor.users(a.1.x).into_iter().filter_map(gemm).find(fits)?;
    // In program order, so that outputs stay in the order of the source: query, key, value.
    Some(if editor.comes_before(b.0, a.0) { (b, a) } else { (a, b) })
}

/// Whether no operand of `inst` needs a result of `other`.
fn independent(editor: &Editor<'_>, inst: InstId, other: InstId) -> bool {
    editor.inst(inst).is_some_and(|inst| {
        let mut operands = inst.operands.iter();
        operands.all(|&operand| !editor.depends_on(operand, other))
    })
}

fn merge(
    editor: &mut Editor<'_>,
    (a, mut gemm): Pair,
    (b, other): Pair,
) -> Result<&'static str, PassError> {
    gemm.append(&other);
    let (op, operands) = gemm.into_op();
    let merged = editor.insert(a, op, operands)?;
    let results = |id| editor.inst(id).map(|inst| inst.results.clone());
    let old = [a, b].into_iter().filter_map(results).flatten();
    for (old, new) in old.collect::<Vec<_>>().into_iter().zip(merged) {
        editor.replace(old, new)?;
    }
    Ok("merge-gemms")
}
