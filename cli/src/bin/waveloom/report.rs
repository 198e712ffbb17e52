//! `compile --report`: what happens in a compilation, kept for the report.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use waveloom_cli::Failure;
use waveloom_cli::output::PendingFile;
use waveloom_cli::report::compilation::{
    Compilation, Graph, GraphInst, GraphValue, KernelOp, KernelTexts, PassRun, Phase, Stage,
};
use waveloom_cli::report::{Report, page};
use waveloom_codegen_hip::KernelDump;
use waveloom_codegen_hip::compile::{CompiledTarget, IMPORT};
use waveloom_codegen_hip::kernels::{Variant, tile_choice};
use waveloom_ir::text::{print_attributes, print_type};
use waveloom_ir::{Function, Module, ValueId};
use waveloom_passes::{PassEvent, Provenance};
use waveloom_plan::Artifact;

/// Keeps what the report will show. Nothing is kept, and nothing costs time, where none is wanted.
pub struct Recorder {
    wanted: Option<Recording>,
}

/// A report in the making.
struct Recording {
    path: PathBuf,
    file: PendingFile,
    /// Targets still to come, the next one last.
    targets: Vec<String>,
    target: String,
    imported: Option<Module>,
    provenance: Option<Provenance>,
    compilation: Compilation,
    /// Functions that are in the compilation, by content.
    known: HashMap<Graph, usize>,
}

impl Recorder {
    /// For a report to `path`, if there is one; `targets` in the order in which they are compiled.
    pub fn new(
        path: Option<&Path>,
        targets: impl DoubleEndedIterator<Item = String>,
    ) -> Result<Recorder, Failure> {
        let Some(path) = path else { return Ok(Recorder { wanted: None }) };
        let wanted = Recording {
            path: path.to_path_buf(),
            file: PendingFile::create(path)?,
            targets: targets.rev().collect(),
            target: String::new(),
            imported: None,
            provenance: None,
            compilation: Compilation::default(),
            known: HashMap::new(),
        };
        Ok(Recorder { wanted: Some(wanted) })
    }

    /// Whether kernels are kept.
    pub fn wants_kernels(&self) -> bool {
        self.wanted.is_some()
    }

    /// The front end's module.
    pub fn import(&mut self, module: &Module) {
        if let Some(recording) = &mut self.wanted {
            recording.stage(None, IMPORT, module, &Provenance::new(module));
            recording.imported = Some(module.clone());
        }
    }

    /// The passes for the next target begin.
    pub fn next_target(&mut self) {
        if let Some(recording) = &mut self.wanted {
            recording.target = recording.targets.pop().unwrap_or_default();
            recording.provenance = recording.imported.as_ref().map(Provenance::new);
        }
    }

    /// A pass ran.
    pub fn pass(&mut self, event: &PassEvent<'_>) {
        if let Some(recording) = &mut self.wanted {
            recording.pass(event);
        }
    }

    /// A kernel was compiled.
    pub fn kernel(&mut self, dump: &KernelDump) {
        if let Some(recording) = &mut self.wanted {
            recording.compilation.kernels.push(KernelTexts {
                target: recording.target.clone(),
                name: dump.name.clone(),
                ops: vec![],
                tiles: None,
                mlir: dump.mlir.clone(),
                llvm_ir: dump.llvm_ir.clone(),
                assembly: dump.assembly.clone(),
            });
        }
    }

    /// A target is complete: its kernels are those of certain instructions.
    pub fn compiled(&mut self, target: &CompiledTarget) {
        if let Some(recording) = &mut self.wanted {
            recording.link(target);
        }
    }

    /// Writes the report of the artifact that was made.
    pub fn finish(
        self,
        output: &Path,
        phases: &[(String, Duration)],
        time: Duration,
    ) -> Result<(), Failure> {
        let Some(recording) = self.wanted else { return Ok(()) };
        let mut compilation = recording.compilation;
        compilation.seconds = time.as_secs_f64();
        let phase = |(name, time): &(String, Duration)| Phase {
            name: name.clone(),
            seconds: time.as_secs_f64(),
        };
        compilation.phases = phases.iter().map(phase).collect();
        // Threads compile kernels in any order.
        compilation.kernels.sort_by(|a, b| (&a.target, &a.name).cmp(&(&b.target, &b.name)));
        let mut report = Report::new(&Artifact::open(output)?)?;
        report.compilation = Some(compilation);
        page::write(&report, recording.file, &recording.path)
    }
}

impl Recording {
    /// Says of each kernel which instructions it computes, and how it is tiled.
    fn link(&mut self, target: &CompiledTarget) {
        let plan = &target.lowered.plan;
        let texts = self.compilation.kernels.iter_mut();
        let mut texts: HashMap<String, &mut KernelTexts> = texts
            .filter(|texts| texts.target == plan.target)
            .map(|texts| (texts.name.clone(), texts))
            .collect();
        for (program, origins) in plan.programs.iter().zip(&target.lowered.origins) {
            let decodes = program.name == plan.programs[plan.decode_loop.decode].name;
            let variant = if decodes { Variant::Decode } else { Variant::Prefill };
            for (launch, step) in program.launches.iter().zip(origins) {
                let Some(step) = step else { continue };
                let Some(texts) = texts.get_mut(&plan.kernels[launch.kernel].name) else {
                    continue;
                };
                let function = &target.module.functions[step.func.index()];
                let op = KernelOp { function: function.name.clone(), inst: step.inst.0 };
                if texts.ops.contains(&op) {
                    continue;
                }
                if texts.ops.is_empty() {
                    // An error would have shown when the kernel was made.
                    let choice =
                        tile_choice(&target.module, function, step.inst, variant, &target.target);
                    let choice = choice.ok().flatten();
                    texts.tiles = choice.and_then(|choice| serde_json::to_value(choice).ok());
                }
                texts.ops.push(op);
            }
        }
    }

    fn pass(&mut self, event: &PassEvent<'_>) {
        self.compilation.passes.push(PassRun {
            target: self.target.clone(),
            name: event.pass.name.to_string(),
            summary: event.pass.summary.to_string(),
            seconds: event.elapsed.as_secs_f64(),
            rewrites: event.report.rewrites.iter().cloned().collect(),
        });
        if let Some(mut provenance) = self.provenance.take() {
            provenance.follow(event);
            self.stage(Some(self.target.clone()), event.pass.name, event.after, &provenance);
            self.provenance = Some(provenance);
        }
    }

    fn stage(
        &mut self,
        target: Option<String>,
        name: &str,
        module: &Module,
        provenance: &Provenance,
    ) {
        let mut functions = vec![];
        for function in &module.functions {
            let graph = graph(module, function, provenance);
            let next = self.compilation.functions.len();
            let index = *self.known.entry(graph.clone()).or_insert(next);
            if index == next {
                self.compilation.functions.push(graph);
            }
            functions.push(index);
        }
        self.compilation.stages.push(Stage { target, name: name.to_string(), functions });
    }
}

fn graph(module: &Module, function: &Function, provenance: &Provenance) -> Graph {
    let ids = |values: &[ValueId]| values.iter().map(|value| value.0).collect::<Vec<u32>>();
    let values = function
        .values
        .iter()
        .map(|value| GraphValue { name: value.name.clone(), ty: print_type(module, &value.ty) });
    let origins = provenance.origins(function);
    let insts = function.insts.iter().zip(origins).map(|(inst, origins)| GraphInst {
        op: inst.op.mnemonic().to_string(),
        attributes: print_attributes(module, &inst.op),
        operands: ids(&inst.operands),
        results: ids(&inst.results),
        origins: origins.into_iter().map(|origin| origin.0).collect(),
    });
    Graph {
        name: function.name.clone(),
        values: values.collect(),
        params: function.params.len(),
        insts: insts.collect(),
        results: ids(&function.results),
    }
}
