//! Finds a driver's library when a program runs.
#![allow(unsafe_code)]

use libloading::Library;
use std::path::{Path, PathBuf};

/// Which library, where to look for it, and what to do without it.
pub struct Search {
    /// Its names; the first that does is taken.
    pub names: &'static [&'static str],
    /// Directories to look in; `None` leaves it to the loader.
    pub places: Vec<Option<PathBuf>>,
    /// What to do.
    pub advice: &'static str,
}

impl Search {
    /// The table of the first library that is there and has what is needed: `resolve` makes the
    /// table, or says which function is missing. An error says where it was looked for, what was
    /// wrong with what was found, and what to do.
    pub fn find<T>(
        &self,
        resolve: fn(&'static Library) -> Result<T, &'static str>,
    ) -> Result<T, String> {
        let mut problems = vec![];
        for place in &self.places {
            for name in self.names {
                let path = place.as_ref().map_or(name.into(), |folder| folder.join(name));
                if place.is_some() && !path.exists() {
                    continue;
                }
                match open(&path, resolve) {
                    Ok(table) => return Ok(table),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        Err(self.failure(problems))
    }

    fn failure(&self, mut problems: Vec<String>) -> String {
        // That the loader finds nothing is no news; what it cannot load is.
        problems.retain(|problem| !problem.contains("No such file or directory"));
        let places = self.places.iter().map(|place| match place {
            Some(folder) => format!("`{}`", folder.display()),
            None => "the loader's path".into(),
        });
        let places = places.collect::<Vec<_>>().join(", ");
        let problems: String = problems.iter().map(|problem| format!("; {problem}")).collect();
        let name = self.names.first().copied().unwrap_or_default();
        format!("there is no usable {name} in {places}{problems}: {}", self.advice)
    }
}

/// Opens a library for good: threads of a driver run its code until the process ends.
fn open<T>(
    path: &Path,
    resolve: fn(&'static Library) -> Result<T, &'static str>,
) -> Result<T, String> {
    // SAFETY: loading runs the library's initializers. It is the vendor's own, or one that the
    // user puts in its place, by the same rule as for any program linked with it.
    let library = unsafe { Library::new(path) };
    let library = library.map_err(|error| {
        use std::error::Error;
        error.source().map_or_else(|| error.to_string(), ToString::to_string)
    })?;
    let lacks = |name| format!("`{}` has no function {name}: it is too old", path.display());
    resolve(Box::leak(Box::new(library))).map_err(lacks)
}
