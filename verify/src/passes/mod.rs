//! Every pass against the reference interpreter: the module before and after it.
//!
//! In: a pass, what it was given and what it made. Out: a [`Finding`], if the values of the module are
//! not what they were, beyond what the pass says it does to numbers ([`values`] says how that is judged).

mod attempt;
mod bisect;
mod finding;
mod inputs;
mod keep;
mod reduce;
mod small;
mod structure;
mod values;

pub use attempt::{Attempt, Fault, Made};
pub use bisect::{Culprit, bisect};
pub use finding::{Difference, Finding};
pub(crate) use inputs::{Case, converted};
pub use keep::keep;
pub use reduce::reduce;
pub use structure::{memory, same_schedule};
pub use values::same_values;

use waveloom_passes::PassEvent;

/// Judges what a pass made, on inputs of a seed.
pub fn judge(event: &PassEvent<'_>, seed: u64) -> Result<(), Finding> {
    same_values(event.before, event.after, &event.report.values, event.numerics, seed)?;
    match event.pass.name {
        "choose-layouts" => structure::layouts(event.after, &event.options.layout),
        _ => Ok(()),
    }
}
