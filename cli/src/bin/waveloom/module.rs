//! A module in its text form, from a file.

use std::fs;
use std::path::Path;
use waveloom_cli::Failure;
use waveloom_ir::{Module, parse, verify};

/// Reads a module and verifies it.
pub fn read(path: &Path) -> Result<Module, Failure> {
    let name = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read `{name}`: {error}")))?;
    let module = parse(&text).map_err(|error| {
        Failure::in_text(&name, &text, [error.line, error.column], &error.problem)
    })?;
    verify::check(&module).map_err(|error| Failure::new(format!("{name}: {error}")))?;
    Ok(module)
}
