//! Finds AMD's library: under `ROCM_PATH`, under `HIP_PATH`, where the loader looks, and where
//! ROCm installs itself.
#![allow(unsafe_code)]

use super::api::Api;

/// What to do without the library.
#[cfg(not(feature = "link-hip"))]
const ADVICE: &str = "install AMD's ROCm (on Debian and Ubuntu the package libamdhip64-5 is \
                      enough), or let ROCM_PATH name the directory that has it in `lib`";

/// The table of the library that the build linked.
#[cfg(feature = "link-hip")]
pub fn load() -> Result<Api, String> {
    Ok(super::linked::table())
}

/// The table of the first library that is there and has what is needed. An error says where it
/// was looked for, what was wrong with what was found, and what to do.
#[cfg(not(feature = "link-hip"))]
pub fn load() -> Result<Api, String> {
    find(&places())
}

/// The names of the library, the newest first.
#[cfg(not(feature = "link-hip"))]
const NAMES: [&str; 4] =
    ["libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"];

/// Directories to look in; `None` leaves it to the loader.
#[cfg(not(feature = "link-hip"))]
fn places() -> Vec<Option<std::path::PathBuf>> {
    let named = ["ROCM_PATH", "HIP_PATH"].into_iter().filter_map(std::env::var_os);
    let roots = named.filter(|root| !root.is_empty()).map(std::path::PathBuf::from);
    let mut places: Vec<_> = roots.map(|root| Some(root.join("lib"))).collect();
    places.extend([None, Some("/opt/rocm/lib".into())]);
    places
}

#[cfg(not(feature = "link-hip"))]
fn find(places: &[Option<std::path::PathBuf>]) -> Result<Api, String> {
    let mut problems = vec![];
    for place in places {
        for name in NAMES {
            let path = place.as_ref().map_or(name.into(), |folder| folder.join(name));
            if place.is_some() && !path.exists() {
                continue;
            }
            match open(&path) {
                Ok(api) => return Ok(api),
                Err(problem) => problems.push(problem),
            }
        }
    }
    // That the loader finds nothing is no news; what it cannot load is.
    problems.retain(|problem| !problem.contains("No such file or directory"));
    let places = places.iter().map(|place| match place {
        Some(folder) => format!("`{}`", folder.display()),
        None => "the loader's path".into(),
    });
    let places = places.collect::<Vec<_>>().join(", ");
    let problems: String = problems.iter().map(|problem| format!("; {problem}")).collect();
    Err(format!("there is no usable libamdhip64.so in {places}{problems}: {ADVICE}"))
}

/// Opens a library for good: threads of HIP run its code until the process ends.
#[cfg(not(feature = "link-hip"))]
fn open(path: &std::path::Path) -> Result<Api, String> {
    // SAFETY: loading runs the library's initializers. It is AMD's own, or one that the user puts
    // in its place, by the same rule as for any program linked with it.
    let library = unsafe { libloading::Library::new(path) };
    let library = library.map_err(|error| {
        use std::error::Error;
        error.source().map_or_else(|| error.to_string(), ToString::to_string)
    })?;
    let lacks = |name| format!("`{}` has no function {name}: it is too old", path.display());
    Api::resolve(Box::leak(Box::new(library))).map_err(lacks)
}

#[cfg(all(test, not(feature = "link-hip")))]
mod tests {
    use super::*;

    fn error(place: &std::path::Path) -> String {
        let error = find(&[Some(place.into())]).map(drop).unwrap_err();
        error.replace(&place.display().to_string(), "DIR")
    }

    #[test]
    fn says_where_it_looked_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        insta::assert_snapshot!(error(folder.path()), @"there is no usable libamdhip64.so in `DIR`: install AMD's ROCm (on Debian and Ubuntu the package libamdhip64-5 is enough), or let ROCM_PATH name the directory that has it in `lib`");
    }

    #[test]
    fn says_what_is_wrong_with_a_library() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libamdhip64.so.6"), "not a library").unwrap();
        insta::assert_snapshot!(error(folder.path()), @"there is no usable libamdhip64.so in `DIR`; DIR/libamdhip64.so.6: file too short: install AMD's ROCm (on Debian and Ubuntu the package libamdhip64-5 is enough), or let ROCM_PATH name the directory that has it in `lib`");
        // Any library will do: it has none of the functions.
        let libc = std::fs::canonicalize("/lib/x86_64-linux-gnu/libm.so.6");
        let Ok(libc) = libc else {
            println!("skipped: no libm.so.6 to take for a library of HIP");
            return;
        };
        std::fs::remove_file(folder.path().join("libamdhip64.so.6")).unwrap();
        std::os::unix::fs::symlink(libc, folder.path().join("libamdhip64.so")).unwrap();
        insta::assert_snapshot!(error(folder.path()), @"there is no usable libamdhip64.so in `DIR`; `DIR/libamdhip64.so` has no function hipGetDeviceCount: it is too old: install AMD's ROCm (on Debian and Ubuntu the package libamdhip64-5 is enough), or let ROCM_PATH name the directory that has it in `lib`");
    }
}
