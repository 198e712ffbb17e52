//! What is wrong with what a pass made, for people and programs.

use crate::report::Element;
use serde::Serialize;
use std::fmt;
use waveloom_ir::{Function, Inst, ValueId};
use waveloom_passes::Numerics;

/// What is wrong with a module after a pass.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// A function has other results.
    Differs(Box<Difference>),
    /// A function has no results any more.
    NoValue {
        /// The function.
        function: String,
        /// What the interpreter says.
        problem: String,
    },
    /// Functions, weights or symbols are not what they must stay.
    Interface {
        /// What has changed.
        problem: String,
    },
    /// What is fixed by another checker is wrong: layouts, the schedule, the memory plan.
    Structure {
        /// What the checker says.
        problem: String,
    },
}

/// A value that is further off than what the pass may do to numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The function.
    pub function: String,
    /// What computed the value before the pass; an instruction, or a parameter that is returned.
    pub at: String,
    /// What the pass may do to numbers: `exact`, `reassociates` or `lossy`.
    pub numerics: &'static str,
    /// Numbers that are wrong.
    pub wrong: u64,
    /// All of them.
    pub of: u64,
    /// The worst, the furthest beyond its bound first.
    pub elements: Vec<Element>,
    /// Extents of the symbols.
    pub extents: String,
}

/// The word for it.
pub fn numerics_name(numerics: Numerics) -> &'static str {
    match numerics {
        Numerics::Exact => "exact",
        Numerics::Reassociates => "reassociates",
        Numerics::Lossy => "lossy",
    }
}

impl Finding {
    /// The function that it is about.
    pub fn function(&self) -> Option<&str> {
        match self {
            Finding::Differs(difference) => Some(&difference.function),
            Finding::NoValue { function, .. } => Some(function),
            Finding::Interface { .. } | Finding::Structure { .. } => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Differs(difference) => difference.fmt(f),
            Finding::NoValue { function, problem } => {
                write!(f, "@{function} has no value any more: {problem}")
            }
            Finding::Interface { problem } | Finding::Structure { problem } => f.write_str(problem),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numerics = match self.numerics {
            "exact" => "is exact",
            other => other,
        };
        write!(
            f,
            "{} of {} numbers of `{}` in @{} are not what they were, at {}; what was applied {numerics}",
            self.wrong, self.of, self.at, self.function, self.extents,
        )?;
        for element in self.elements.iter().take(3) {
            let index: Vec<String> = element.index.iter().map(u64::to_string).collect();
            write!(
                f,
                "\n  [{}] is {}, was {}: off by {:.3e}, may be {:.3e}",
                index.join(", "),
                element.found,
                element.exact,
                element.error,
                element.bound
            )?;
        }
        Ok(())
    }
}

/// An instruction, without its attributes.
pub(super) fn spelled(function: &Function, inst: &Inst) -> String {
    let name = |value: &ValueId| match &function.values[value.index()].name {
        Some(name) => format!("%{name}"),
        None => value.to_string(),
    };
    let list = |values: &[ValueId]| values.iter().map(name).collect::<Vec<_>>().join(", ");
    format!("{} = {} {}", list(&inst.results), inst.op.mnemonic(), list(&inst.operands))
}
