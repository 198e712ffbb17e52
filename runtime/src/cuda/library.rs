//! Finds NVIDIA's driver: where the loader looks, and where containers, WSL and NixOS put it.

use super::api::Api;
use crate::gpu::library::Search;
use std::path::PathBuf;

/// Names the one directory to look in.
const OVERRIDE: &str = "WAVELOOM_CUDA_PATH";

/// The table of the driver's library.
pub fn load() -> Result<Api, String> {
    search(places()).find(Api::resolve)
}

fn search(places: Vec<Option<PathBuf>>) -> Search {
    Search {
        // The second is for developers; beside a toolkit it may be one that only links.
        names: &["libcuda.so.1", "libcuda.so"],
        places,
        advice: "install NVIDIA's driver (on Debian the package nvidia-driver, on Ubuntu what \
                 `ubuntu-drivers install` chooses), or start a container with `--gpus all`; \
                 WAVELOOM_CUDA_PATH can name the directory that has the library",
    }
}

fn places() -> Vec<Option<PathBuf>> {
    match std::env::var_os(OVERRIDE).filter(|place| !place.is_empty()) {
        Some(place) => vec![Some(place.into())],
        None => {
            let known = ["/usr/lib/wsl/lib", "/usr/local/nvidia/lib64", "/run/opengl-driver/lib"];
            std::iter::once(None).chain(known.map(|place| Some(place.into()))).collect()
        }
    }
}
