//! Tile sizes as a module's text has them, `matrix(rows = 64, …)`, and as generators take them.
//!
//! A generator reckons sizes for an op. Those that the op names itself, because someone edited the text
//! or a tuner chose them, come in their place, and are refused where the generator cannot do them.

use super::KernelError;
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

/// Tiles that cannot be.
pub(crate) fn refused(tiling: &Tiling, problem: &str) -> KernelError {
    let sizes = tiling.sizes.iter().map(|(name, size)| format!("{name} = {size}"));
    let sizes = sizes.collect::<Vec<_>>().join(", ");
    KernelError(format!("gemm: the tiles {}({sizes}) cannot be: {problem}", tiling.generator))
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
