//! Finds AMD's library: under `ROCM_PATH`, under `HIP_PATH`, where the loader looks, and where
//! ROCm installs itself.

use super::api::Api;
use crate::gpu::library::Search;
use std::path::PathBuf;

/// The table of AMD's library.
pub fn load() -> Result<Api, String> {
    search(places()).find(Api::resolve)
}

fn search(places: Vec<Option<PathBuf>>) -> Search {
    Search {
        // The newest first.
        names: &["libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"],
        places,
        advice: "install AMD's ROCm (on Debian and Ubuntu the package libamdhip64-5 is enough), \
                 or let ROCM_PATH name the directory that has it in `lib`",
    }
}

fn places() -> Vec<Option<PathBuf>> {
    let named = ["ROCM_PATH", "HIP_PATH"].into_iter().filter_map(std::env::var_os);
    let roots = named.filter(|root| !root.is_empty()).map(PathBuf::from);
    let mut places: Vec<_> = roots.map(|root| Some(root.join("lib"))).collect();
    places.extend([None, Some("/opt/rocm/lib".into())]);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(place: &std::path::Path) -> String {
        let error = search(vec![Some(place.into())]).find(Api::resolve).map(drop).unwrap_err();
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
