//! Kernels' texts of PTX to one.
//!
//! Each begins with the same directives (`.version`, `.target`, `.address_size`), which a module has
//! once; then come its variable in shared memory, if it has one, which gets the kernel's name, and
//! its entry point.

use crate::lower::PTX_SHARED;
use crate::{CodegenError, CompiledKernel};

/// The last of the directives that all texts begin with.
const LAST_DIRECTIVE: &str = ".address_size 64";

/// One text of all kernels, without comments.
pub(super) fn link(kernels: &[CompiledKernel]) -> Result<Vec<u8>, CodegenError> {
    let mut directives: Option<String> = None;
    let mut bodies = String::new();
    for kernel in kernels {
        let malformed = |what| CodegenError::MalformedObject { kernel: kernel.name.clone(), what };
        let text = std::str::from_utf8(&kernel.object).map_err(|_| malformed("PTX"))?;
        let text = without_comments(text);
        let (before, body) = text.split_once(LAST_DIRECTIVE).ok_or(malformed("PTX"))?;
        let first = directives.get_or_insert_with(|| before.to_string());
        if first != before {
            return Err(malformed("PTX: directives differ from those of other kernels"));
        }
        bodies.push_str(&body.replace(PTX_SHARED, &format!("{}_shared", kernel.name)));
    }
    let directives = directives.unwrap_or_default();
    Ok(format!("{directives}{LAST_DIRECTIVE}\n{bodies}").into_bytes())
}

/// The text without comments to the end of a line, and without empty lines.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or("").trim_end());
    let lines = lines.filter(|line| !line.is_empty());
    lines.flat_map(|line| [line, "\n"]).collect()
}
