//! Tile sizes as a module's text has them, `matrix(rows = 64, …)`, and as generators take them.
//!
//! A generator reckons sizes for an op. Those that the op names itself, because someone edited the text
//! or a tuner chose them, come in their place, and are refused where the generator cannot do them.

use super::KernelError;
use serde::Serialize;
use waveloom_ir::Tiling;

/// The sizes that a generator takes.
pub(crate) trait TileSizes: Sized {
    /// The generator's name.
    const GENERATOR: &'static str;

    /// All sizes, by name.
    fn sizes(&self) -> Vec<(&'static str, u32)>;

    /// Sets the size called `name`; false where there is none.
    fn set(&mut self, name: &str, size: u32) -> bool;

    /// As text.
    fn tiling(&self) -> Tiling {
        let sizes = self.sizes().into_iter().map(|(name, size)| (name.to_string(), size));
        Tiling { generator: Self::GENERATOR.to_string(), sizes: sizes.collect() }
    }

    /// These sizes, but for those that `tiling` names.
    fn with(mut self, tiling: &Tiling) -> Result<Self, KernelError> {
        for (index, (name, size)) in tiling.sizes.iter().enumerate() {
            if tiling.sizes[..index].iter().any(|(other, _)| other == name) {
                return Err(refused(tiling, &format!("`{name}` is given twice")));
            }
            if !self.set(name, *size) {
                let known: Vec<&str> = self.sizes().into_iter().map(|(name, _)| name).collect();
                let problem = format!("there is no size `{name}`; there are {}", known.join(", "));
                return Err(refused(tiling, &problem));
            }
        }
        Ok(self)
    }

    /// That the generator cannot do them, if there is a problem.
    fn check(self, problem: Option<String>) -> Result<Self, KernelError> {
        match problem {
            None => Ok(self),
            Some(problem) => Err(refused(&self.tiling(), &problem)),
        }
    }
}

/// A choice of tiles, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TileChoice {
    /// Generator and sizes.
    pub chosen: String,
    /// Cycles that they should take, where that was reckoned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<f64>,
    /// The best of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<String>,
    /// Its cycles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_up_cycles: Option<f64>,
    /// How many there were.
    pub candidates: usize,
    /// What decided.
    pub why: &'static str,
}

impl TileChoice {
    pub(crate) fn new(
        chosen: &Tiling,
        cycles: Option<f64>,
        runner_up: Option<(Tiling, f64)>,
        candidates: usize,
        why: &'static str,
    ) -> TileChoice {
        TileChoice {
            chosen: spelled(chosen),
            cycles,
            runner_up_cycles: runner_up.as_ref().map(|(_, cycles)| *cycles),
            runner_up: runner_up.map(|(tiling, _)| spelled(&tiling)),
            candidates,
            why,
        }
    }
}

/// Tiles as in the text of a module.
fn spelled(tiling: &Tiling) -> String {
    let sizes = tiling.sizes.iter().map(|(name, size)| format!("{name} = {size}"));
    format!("{}({})", tiling.generator, sizes.collect::<Vec<_>>().join(", "))
}

/// Tiles that cannot be.
pub(crate) fn refused(tiling: &Tiling, problem: &str) -> KernelError {
    KernelError(format!("gemm: the tiles {} cannot be: {problem}", spelled(tiling)))
}

/// Tiles of a generator that the target does not have, or that does not do the op.
pub(crate) fn unknown_generator(tiling: &Tiling, known: &[&str]) -> KernelError {
    refused(tiling, &format!("the generators that could make this kernel are {}", known.join(", ")))
}

/// What is wrong with a size, if it is not within bounds.
pub(crate) fn within(name: &str, size: u32, low: u32, high: u32) -> Option<String> {
    let fits = (low..=high).contains(&size);
    (!fits).then(|| format!("`{name}` must be within {low} and {high}"))
}
