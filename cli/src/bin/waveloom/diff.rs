//! `diff`: what changed between two modules, or two artifacts.

use crate::module;
use object::{Object, ObjectSymbol};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use waveloom_cli::args::DiffArgs;
use waveloom_cli::{Failure, format, output};
use waveloom_plan::Artifact;
use waveloom_plan::diff::Change;

/// The exit code where two things cannot be compared, as that of diff(1).
const TROUBLE: u8 = 2;

/// What changed.
#[derive(Serialize)]
struct Differences {
    old: String,
    new: String,
    equal: bool,
    changes: Vec<Change>,
}

/// Compares; gives whether they are equal.
pub fn run(args: &DiffArgs) -> Result<bool, Failure> {
    let is_module = |path: &Path| path.extension().is_some_and(|extension| extension == "wl");
    let changes = match (is_module(&args.old), is_module(&args.new)) {
        (true, true) => modules(&args.old, &args.new)?,
        (false, false) => artifacts(&args.old, &args.new)?,
        _ => {
            let message = "a module and a compiled file cannot be compared";
            return Err(Failure::new(message).with_help("give two .wl files, or none"));
        }
    };
    let name = |path: &Path| path.display().to_string();
    let (old, new) = (name(&args.old), name(&args.new));
    let differences = Differences { old, new, equal: changes.is_empty(), changes };
    if args.json {
        output::write_json(&differences)?;
    } else {
        output::write(differences.text())?;
    }
    Ok(differences.equal)
}

/// 0 where nothing changed, 1 where something did, 2 with what failed.
pub fn exit_code(result: Result<bool, Failure>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => match waveloom_cli::failure::exit_code(Err(failure)) {
            ExitCode::SUCCESS => ExitCode::SUCCESS,
            _ => ExitCode::from(TROUBLE),
        },
    }
}

impl Differences {
    fn text(&self) -> String {
        let Differences { old, new, .. } = self;
        if self.equal {
            return format!("{old} and {new} are equal\n");
        }
        let count = format::count(self.changes.len() as u64, "difference");
        let mut text = format!("{old} and {new}: {count}\n");
        let mut area = "";
        for change in &self.changes {
            if change.area != area {
                area = change.area;
                text += &format!("\n{area}\n");
            }
            text += &format!("  {}: {}\n", change.place, change.what);
        }
        text
    }
}

fn modules(old: &Path, new: &Path) -> Result<Vec<Change>, Failure> {
    let (old, new) = (module::read(old)?, module::read(new)?);
    let changes = waveloom_ir::diff::diff(&old, &new).into_iter();
    let change = |change: waveloom_ir::diff::Change| Change {
        area: change.area,
        place: change.place,
        what: change.what,
    };
    Ok(changes.map(change).collect())
}

fn artifacts(old: &Path, new: &Path) -> Result<Vec<Change>, Failure> {
    let (old, new) = (Artifact::open(old)?, Artifact::open(new)?);
    let mut changes = vec![];
    for target in old.targets() {
        if !new.targets().contains(target) {
            let (place, what) = (target.clone(), "removed".to_string());
            changes.push(Change { area: "target", place, what });
            continue;
        }
        let of_target = waveloom_plan::diff::diff(&old.plan(target)?, &new.plan(target)?);
        let several = old.targets().len() > 1;
        let of_code = code_sizes(old.code(target)?, new.code(target)?);
        changes.extend(of_target.into_iter().chain(of_code).map(|change| match several {
            true => Change { place: format!("{target}: {}", change.place), ..change },
            false => change,
        }));
    }
    for target in new.targets().iter().filter(|target| !old.targets().contains(target)) {
        let (place, what) = (target.clone(), "added".to_string());
        changes.push(Change { area: "target", place, what });
    }
    changes.extend(sections(&old, &new));
    if changes.is_empty() && old.digest() != new.digest() {
        let (place, what) = ("header".to_string(), "what the file says of itself differs".into());
        changes.push(Change { area: "file", place, what });
    }
    Ok(changes)
}

/// Kernels whose code has another size, where it is ELF. Where a kernel lies changes bytes of its code,
/// so only sizes say which ones were generated in another way.
fn code_sizes(old: &[u8], new: &[u8]) -> Vec<Change> {
    let of = |code| -> BTreeMap<String, u64> {
        let Ok(file) = object::File::parse(code) else { return BTreeMap::new() };
        let sized = file.dynamic_symbols().filter(|symbol| symbol.is_definition());
        let named = sized.filter_map(|symbol| Some((symbol.name().ok()?.into(), symbol.size())));
        named.collect()
    };
    let (old, new) = (of(old), of(new));
    let changed = old.into_iter().filter_map(|(name, bytes)| {
        let size = *new.get(&name).filter(|&&size| size != bytes)?;
        let what = format!("code {} -> {}", format::bytes(bytes), format::bytes(size));
        Some(Change { area: "kernel", place: name, what })
    });
    changed.collect()
}

/// Sections by their digests; the plans' are told already.
fn sections(old: &Artifact, new: &Artifact) -> Vec<Change> {
    let of = |artifact: &Artifact| -> BTreeMap<String, (u64, Vec<String>)> {
        let digests = artifact.manifest().sections.iter();
        let mut digests: BTreeMap<&str, &Vec<String>> =
            digests.map(|section| (section.name.as_str(), &section.blake3)).collect();
        let sections = artifact.sections().filter(|section| !section.name.starts_with("plan."));
        sections
            .map(|section| {
                let digest = digests.remove(section.name).cloned().unwrap_or_default();
                (section.name.to_string(), (section.bytes, digest))
            })
            .collect()
    };
    let (old, new) = (of(old), of(new));
    let mut changes = vec![];
    let mut add = |place: &str, what| {
        changes.push(Change { area: "section", place: place.to_string(), what });
    };
    for (name, (bytes, digest)) in &old {
        match new.get(name) {
            None => add(name, format!("removed: {}", format::bytes(*bytes))),
            Some((size, other)) if other != digest && size == bytes => {
                add(name, format!("other content, {}", format::bytes(*bytes)));
            }
            Some((size, other)) if other != digest => {
                add(name, format!("{} -> {}", format::bytes(*bytes), format::bytes(*size)));
            }
            Some(_) => {}
        }
    }
    for (name, (bytes, _)) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        add(name, format!("added: {}", format::bytes(*bytes)));
    }
    changes
}
