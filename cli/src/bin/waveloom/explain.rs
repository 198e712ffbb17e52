//! `explain-target`: what a target does with a model.

use crate::compile::{failure, weight_dtype};
use waveloom_cli::args::ExplainArgs;
use waveloom_cli::{Failure, output};
use waveloom_codegen_hip::compile::{CompileOptions, IMPORT, Silent, Source, compile_targets};
use waveloom_codegen_hip::explain::explain;
use waveloom_codegen_hip::{DecodeForm, Target};
use waveloom_frontend::{ImportOptions, import};

/// Compiles the model in memory, and says how it went.
pub fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let target = Target::from_name(&args.target)?;
    let dtype = weight_dtype(&args.dtype)?;
    // No weight is read: a configuration is as good as a model.
    let config_only = args.model.extension().is_some_and(|extension| extension == "json");
    let import_options =
        ImportOptions { max_context: args.max_context, config_only, ..ImportOptions::default() };
    let imported = import(&args.model, import_options).map_err(failure)?;
    let source = Source {
        module: imported.module,
        weights: &imported.weights,
        after: IMPORT,
        synthetic: None,
        stop_tokens: imported.info.stop_tokens,
        sections: vec![],
    };
    let options = CompileOptions { targets: vec![target], dtype, decode: DecodeForm::Launches };
    let mut silent = Silent;
    let (compiled, _) = compile_targets(&source, &options, &mut silent)?;
    let [compiled] = &compiled[..] else { return Err(Failure::new("one target gave no plan")) };
    let explanation = explain(compiled);
    match args.json {
        true => output::write_json(&explanation),
        false => output::write(explanation.text(&args.batch)),
    }
}
