//! `targets`: what models can be compiled for.

use serde::Serialize;
use waveloom_cli::args::ListArgs;
use waveloom_cli::{Failure, format, output};
use waveloom_codegen_hip::Target;

/// One target.
#[derive(Serialize)]
struct Entry {
    name: &'static str,
    /// Why it cannot be compiled for here, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
    triple: Option<&'static str>,
    description: Option<String>,
    requires: Vec<&'static str>,
}

impl Entry {
    fn new(name: &'static str) -> Entry {
        let empty =
            Entry { name, unavailable: None, triple: None, description: None, requires: vec![] };
        match Target::from_name(name) {
            Ok(target) => Entry {
                triple: Some(target.triple()),
                description: Some(target.to_string()),
                requires: target.requires(),
                ..empty
            },
            Err(error) => Entry { unavailable: Some(error.to_string()), ..empty },
        }
    }

    fn row(&self) -> Vec<String> {
        let what = match (&self.unavailable, &self.description) {
            (Some(why), _) => format!("not available: {why}"),
            (None, description) => description.clone().unwrap_or_default(),
        };
        vec![self.name.to_string(), what, self.requires.join(" ")]
    }
}

/// Lists the targets.
pub fn run(args: &ListArgs) -> Result<(), Failure> {
    let entries: Vec<Entry> = Target::NAMES.iter().map(|name| Entry::new(name)).collect();
    if args.json {
        return output::write_json(&entries);
    }
    let rows: Vec<Vec<String>> = entries.iter().map(Entry::row).collect();
    output::write(format::table(&rows, &[]))
}
