//! `bench-kernel`: one kernel of a dump by itself, in any of its forms.
//!
//! `NAME.json` beside the kernel is a plan that launches nothing else, with drawn weights. The form is
//! compiled the rest of the way and loaded with that plan as any artifact is. All launches that the
//! kernel has in a step run one after the other, each with its own weights, so that these come from
//! memory as they do in a step.

use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use waveloom_cli::args::BenchKernelArgs;
use waveloom_cli::bench::median;
use waveloom_cli::{Failure, output};
use waveloom_codegen_hip::alone::keep_launches;
use waveloom_codegen_hip::link::link_shared_object;
use waveloom_codegen_hip::{Form, KernelText, Target};
use waveloom_plan::artifact::{code_section, plan_section};
use waveloom_plan::{Artifact, ArtifactInfo, CodeFacts, Plan, Section, Segment, write_artifact};
use waveloom_runtime::{DeviceKind, EMULATED, LoadRequest, LoadedPlan};

/// Length of the KV cache where none is asked for.
const CACHE_LENGTH: i64 = 1024;
/// Most bytes of weights that launches read together: more than any cache holds, and no more of a
/// device's memory than there is.
const MOST_WEIGHTS: i64 = 1 << 30;

/// Measures.
pub fn run(args: &BenchKernelArgs) -> Result<(), Failure> {
    let subject = Subject::read(&args.file)?;
    let measured = subject.measure(args)?;
    if args.json { output::write_json(&measured) } else { output::write(measured.text()) }
}

/// A kernel, and the plan that launches it.
struct Subject {
    plan: Plan,
    target: Target,
    code: Vec<u8>,
    facts: Option<CodeFacts>,
}

impl Subject {
    fn read(path: &Path) -> Result<Subject, Failure> {
        let name = path.display();
        let form = Form::of_file(path).ok_or_else(|| {
            Failure::new(format!("`{name}` is no form of a kernel")).with_help(
                "give a file of `compile --dump-phases-to`: kernels/NAME.mlir, .ll, .s, .ptx or .o",
            )
        })?;
        let read = |path: &Path| {
            fs::read(path)
                .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display())))
        };
        let content = read(path)?;
        let beside = plan_path(path);
        let json = read(&beside).map_err(|failure| {
            failure
                .with_help("it says how the kernel is launched; the dump has it beside the kernel")
        })?;
        let plan = Plan::from_json(&json)
            .map_err(|error| Failure::new(format!("{}: {error}", beside.display())))?;
        let [kernel] = &plan.kernels[..] else {
            return Err(Failure::new(format!("{} is for several kernels", beside.display())));
        };
        let target = Target::from_name(&plan.target)?;
        let text = KernelText {
            name: kernel.name.clone(),
            mlir: String::new(),
            workgroup: kernel.workgroup,
            planned_waves: kernel.facts.as_ref().map_or(0, |facts| facts.planned_waves_per_simd),
            most_registers: None,
            dynamic_shared: kernel.shared_bytes,
        };
        let failed = |error| Failure::new(format!("{name}: {error}"));
        let compiled = form.compile(&content, &text, &target).map_err(failed)?;
        let facts = compiled.facts.clone();
        let code = link_shared_object(&[compiled], &target).map_err(failed)?;
        Ok(Subject { plan, target, code, facts })
    }

    /// The program that launches the kernel: of several the first one, which is prefill.
    fn program(&self) -> Result<usize, Failure> {
        let launches = |index: &usize| !self.plan.programs[*index].launches.is_empty();
        let found = (0..self.plan.programs.len()).find(launches);
        found.ok_or_else(|| Failure::new("no program launches the kernel"))
    }

    fn measure(mut self, args: &BenchKernelArgs) -> Result<Measured, Failure> {
        let program = self.program()?;
        let kind: DeviceKind = args.device.device.parse()?;
        let device = kind.open(args.device.threads.map(|threads| threads as usize))?;
        let describe = device.describe();
        let emulated = describe.contains(EMULATED);
        let most = if emulated { 0 } else { MOST_WEIGHTS };
        keep_launches(&mut self.plan, program, most);
        let symbols = self.symbols(program, args)?;
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::new(format!("no place for a temporary file: {error}")))?;
        let artifact = self.artifact(&folder.path().join("kernel.wlm"))?;
        let plan = device.choose_plan(&artifact)?;
        let layout = plan.layout(symbols[plan.decode_loop.context] as u32)?;
        let mut loaded = device.load(LoadRequest {
            artifact: &artifact,
            plan: &plan,
            layout: &layout,
            progress: &mut |_| {},
        })?;
        fill(&plan, &mut *loaded, &symbols)?;
        let seconds = times(&mut *loaded, &plan, program, &symbols, args.repeat, emulated)?;
        self.measured(args, program, &symbols, describe, loaded.workers(), seconds)
    }

    /// Values of the plan's symbols.
    fn symbols(&self, program: usize, args: &BenchKernelArgs) -> Result<Vec<i64>, Failure> {
        let walk = &self.plan.decode_loop;
        let is_prefill = program == walk.prefill;
        let most = self.plan.symbols[walk.step_tokens].max;
        let tokens = if is_prefill { args.tokens.map_or(most, i64::from) } else { 1 };
        let context = i64::from(self.plan.model.max_context);
        let length = args.cache_length.map_or(CACHE_LENGTH.min(context), i64::from).max(tokens);
        if tokens > most || length > context {
            return Err(Failure::new(format!(
                "a step has up to {most} tokens, and the cache up to {context}"
            )));
        }
        let mut symbols: Vec<i64> = self.plan.symbols.iter().map(|symbol| symbol.min).collect();
        symbols[walk.step_tokens] = tokens;
        symbols[walk.cache_length] = length;
        symbols[walk.context] = length;
        Ok(symbols)
    }

    fn artifact(&self, path: &Path) -> Result<Artifact, Failure> {
        let target = self.target.name();
        let info = ArtifactInfo {
            compiler: concat!("waveloom ", env!("CARGO_PKG_VERSION")).into(),
            model: self.plan.model.name.clone(),
            targets: vec![target.to_string()],
        };
        let sections = vec![
            Section::from_bytes(plan_section(target), self.plan.to_json()),
            Section::from_bytes(code_section(target), &self.code),
        ];
        write_artifact(path, &info, sections)?;
        Ok(Artifact::open(path)?)
    }

    fn measured(
        &self,
        args: &BenchKernelArgs,
        program: usize,
        symbols: &[i64],
        device: String,
        workers: usize,
        seconds: Option<f64>,
    ) -> Result<Measured, Failure> {
        let kernel = &self.plan.kernels[0];
        let (work, machine) = (kernel.work.as_ref(), self.plan.machine);
        let roofline = work.zip(machine).and_then(|(work, machine)| machine.seconds(work, symbols));
        let count = |of: &dyn Fn(&waveloom_plan::Work) -> Option<i64>| {
            work.and_then(of).map(|count| count as f64)
        };
        let bytes = count(&|work| work.bytes.eval(symbols));
        let operations = count(&|work| work.operations.eval(symbols));
        let names = self.plan.symbols.iter().map(|symbol| symbol.name.clone());
        let rate = |count: Option<f64>| Some(count? / seconds?);
        Ok(Measured {
            file: args.file.display().to_string(),
            kernel: kernel.name.clone(),
            summary: kernel.summary.clone(),
            target: self.target.name().to_string(),
            emulated: seconds.is_none(),
            device,
            workers,
            program: self.plan.programs[program].name.clone(),
            symbols: names.zip(symbols.iter().copied()).collect(),
            launches: self.plan.programs[program].launches.len(),
            repeat: args.repeat,
            seconds,
            bytes,
            operations,
            bytes_per_second: rate(bytes),
            operations_per_second: rate(operations),
            roofline_s: roofline,
            roofline_share: roofline.zip(seconds).map(|(least, seconds)| least / seconds),
            facts: self.facts.clone(),
        })
    }
}

/// `NAME.json` of `NAME.ll`, and of `NAME.edited.ll`, too.
fn plan_path(path: &Path) -> PathBuf {
    let json = path.with_extension("json");
    let name =
        path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
    match name {
        Some(name) if !json.exists() => path.with_file_name(format!("{name}.json")),
        _ => json,
    }
}

/// Tokens and positions as a step has them; the choice of a token changes them.
fn write_step(plan: &Plan, loaded: &mut dyn LoadedPlan, symbols: &[i64]) -> Result<(), Failure> {
    let walk = &plan.decode_loop;
    let (tokens, length) = (symbols[walk.step_tokens], symbols[walk.cache_length]);
    let positions: Vec<u32> = (length - tokens..length).map(|position| position as u32).collect();
    let vocab = plan.model.vocab.max(1);
    let ids: Vec<u32> = (0..tokens as u32).map(|token| token.wrapping_mul(7919) % vocab).collect();
    loaded.write(walk.tokens, 0, &ids)?;
    loaded.write(walk.positions, 0, &positions)?;
    Ok(loaded.write(walk.last, 0, &[tokens as u32 - 1])?)
}

/// Numbers that look random in the arena; what is no arena is zero.
fn fill(plan: &Plan, loaded: &mut dyn LoadedPlan, symbols: &[i64]) -> Result<(), Failure> {
    let mut state = 1u32;
    for (id, buffer) in plan.buffers.iter().enumerate() {
        if buffer.segment != Segment::Arena {
            continue;
        }
        let words = buffer.bytes.eval(symbols).unwrap_or(0) / 4;
        let bytes: Vec<u8> = (0..words)
            .flat_map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let number = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
                number.to_le_bytes()
            })
            .collect();
        loaded.write_bytes(id, 0, &bytes)?;
    }
    Ok(())
}

/// Median of the mean time of a launch; none on a device that is emulated, where it runs once.
fn times(
    loaded: &mut dyn LoadedPlan,
    plan: &Plan,
    program: usize,
    symbols: &[i64],
    repeat: u32,
    emulated: bool,
) -> Result<Option<f64>, Failure> {
    let launches = plan.programs[program].launches.len();
    let mut seconds = vec![0.0; launches];
    // The first run counts for nothing.
    let runs = if emulated { 0 } else { repeat };
    let mut means = vec![];
    for run in 0..=runs {
        write_step(plan, loaded, symbols)?;
        loaded.time_launches(program, symbols, &mut seconds)?;
        if run == 0 {
            continue;
        }
        means.push(seconds.iter().sum::<f64>() / launches as f64);
    }
    Ok((!means.is_empty()).then(|| median(&means)))
}

/// What was measured; times and counts are of a launch.
#[derive(Serialize)]
struct Measured {
    file: String,
    kernel: String,
    summary: String,
    target: String,
    device: String,
    /// Whether it is no hardware: then there are no times.
    emulated: bool,
    workers: usize,
    program: String,
    symbols: Vec<(String, i64)>,
    /// Launches that ran one after the other, each with its own weights.
    launches: usize,
    repeat: u32,
    /// Median over the repetitions.
    seconds: Option<f64>,
    /// What a launch cannot do without.
    bytes: Option<f64>,
    operations: Option<f64>,
    bytes_per_second: Option<f64>,
    operations_per_second: Option<f64>,
    /// What the roofline of the target allows, where it is known.
    roofline_s: Option<f64>,
    roofline_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<CodeFacts>,
}

impl Measured {
    fn text(&self) -> String {
        let symbols: Vec<String> =
            self.symbols.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let mut text = format!(
            "{}: {}\n  {}\n  {} for {} on {}, {}, {}\n",
            self.kernel,
            self.summary,
            self.file,
            self.program,
            self.target,
            self.device,
            symbols.join(", "),
            if self.launches == 1 {
                "1 launch".into()
            } else {
                format!("{} launches", self.launches)
            },
        );
        let scaled = |x: Option<f64>, unit: f64, digits: usize| {
            x.map_or("-".to_string(), |x| format!("{:.digits$}", x / unit))
        };
        match self.seconds {
            None => text += "  the device is emulated: times mean nothing and are left out\n",
            Some(seconds) => text += &format!("  {:.2} us a launch\n", seconds * 1e6),
        }
        text += &format!(
            "  {} MB, {} GB/s; {} GFLOP, {} TFLOP/s\n",
            scaled(self.bytes, 1e6, 3),
            scaled(self.bytes_per_second, 1e9, 1),
            scaled(self.operations, 1e9, 3),
            scaled(self.operations_per_second, 1e12, 3),
        );
        match (self.roofline_s, self.roofline_share) {
            (Some(least), Some(share)) => {
                let (least, share) = (least * 1e6, share * 100.0);
                text += &format!("  {share:.1}% of the roofline, which allows {least:.2} us\n");
            }
            (Some(least), None) => {
                text += &format!("  the roofline allows {:.2} us\n", least * 1e6);
            }
            (None, _) => text += "  the target's plan knows no roofline\n",
        }
        text
    }
}
