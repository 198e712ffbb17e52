//! `inspect`: what is inside an artifact.

use crate::args::InspectArgs;
use crate::{Failure, format, output};
use serde::Serialize;
use waveloom_plan::{Artifact, CodeFacts, Layout, Plan, Segment};

/// Shows an artifact, or a part of it.
pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    let artifact = Artifact::open(&args.file)?;
    let targets = artifact.targets().iter().map(|target| Target::new(artifact.plan(target)?));
    let targets: Vec<Target> = targets.collect::<Result<_, Failure>>()?;
    if args.json {
        return output::write_json(&Inspection::new(&artifact, targets));
    }
    let view: fn(&Target) -> String = match args {
        InspectArgs { memory: true, .. } => Target::memory_text,
        InspectArgs { kernels: true, .. } => Target::kernels_text,
        InspectArgs { plan: true, .. } => |target| target.plan.to_string(),
        _ => return output::write(Inspection::new(&artifact, targets).text()),
    };
    let texts: Vec<String> = targets.iter().map(view).collect();
    output::write(texts.join("\n"))
}

/// Everything that an artifact says of itself.
#[derive(Serialize)]
struct Inspection {
    file: String,
    file_bytes: u64,
    format: u32,
    compiler: String,
    model: String,
    targets: Vec<Target>,
    sections: Vec<Section>,
}

/// A piece of the file.
#[derive(Serialize)]
struct Section {
    name: String,
    offset: u64,
    bytes: u64,
}

/// What is there for one target.
#[derive(Serialize)]
struct Target {
    target: String,
    requires: Vec<String>,
    memory: Memory,
    kernels: Vec<Kernel>,
    plan: Plan,
}

/// Bytes at the largest context.
#[derive(Serialize)]
struct Memory {
    context: u32,
    constants: u64,
    arena: u64,
    arena_lower_bound: u64,
    arena_ratio: f64,
    state: u64,
    io: u64,
    scratch_per_worker: u64,
    #[serde(skip)]
    layout: Layout,
}

/// A kernel and how often each program launches it.
#[derive(Serialize)]
struct Kernel {
    name: String,
    summary: String,
    launches: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<CodeFacts>,
    /// Bytes of a launch: of prefill with a whole chunk where a program of that name has it, else
    /// of a decode step, the KV cache half full.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<i64>,
    /// By the roofline of the hardware's nominal figures: predicted, not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_us: Option<f64>,
}

impl Inspection {
    fn new(artifact: &Artifact, targets: Vec<Target>) -> Inspection {
        let manifest = artifact.manifest();
        let sections = artifact.sections().map(|section| Section {
            name: section.name.to_string(),
            offset: section.offset,
            bytes: section.bytes,
        });
        Inspection {
            file: artifact.path().display().to_string(),
            file_bytes: artifact.file_bytes(),
            format: manifest.format,
            compiler: manifest.compiler.clone(),
            model: manifest.model.clone(),
            targets,
            sections: sections.collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}: {}, {}, format {}, compiled by {}\n",
            self.file,
            self.model,
            format::bytes(self.file_bytes),
            self.format,
            self.compiler
        );
        for target in &self.targets {
            text += &target.summary_text();
        }
        let (weights, others): (Vec<_>, Vec<_>) =
            self.sections.iter().partition(|section| section.name.starts_with("weights."));
        let row = |name: &str, bytes| vec![format!("  {name}"), format::bytes(bytes)];
        let mut rows: Vec<_> = others.iter().map(|s| row(&s.name, s.bytes)).collect();
        if !weights.is_empty() {
            let name = format::count(weights.len() as u64, "weight");
            rows.push(row(&name, weights.iter().map(|section| section.bytes).sum()));
        }
        text + "\nsections\n" + &format::table(&rows, &[1])
    }
}

impl Target {
    fn new(plan: Plan) -> Result<Target, Failure> {
        let layout = plan.layout(plan.model.max_context)?;
        let (peak, bound) = (plan.memory.arena_peak, plan.memory.arena_lower_bound);
        let memory = Memory {
            context: layout.context,
            constants: layout.constants,
            arena: layout.arena,
            arena_lower_bound: bound,
            arena_ratio: format::ratio(peak, bound),
            state: layout.state,
            io: layout.io,
            scratch_per_worker: layout.scratch,
            layout,
        };
        let kernels = (0..plan.kernels.len()).map(|kernel| Kernel::new(&plan, kernel)).collect();
        let (target, requires) = (plan.target.clone(), plan.requires.clone());
        Ok(Target { target, requires, memory, kernels, plan })
    }

    fn summary_text(&self) -> String {
        let (model, memory) = (&self.plan.model, &self.memory);
        let stops: Vec<String> = model.stop_tokens.iter().map(u32::to_string).collect();
        let programs = self.plan.programs.iter();
        let launches = programs.map(|p| format!("{} {}", p.name, p.launches.len()));
        let rows = [
            ("needs", self.requires.join(" ")),
            (
                "model",
                format!(
                    "vocabulary {}, context up to {}, prefill chunk {}, stop tokens {}",
                    model.vocab,
                    model.max_context,
                    model.prefill_chunk,
                    stops.join(" ")
                ),
            ),
            ("kernels", self.kernels.len().to_string()),
            ("launches", launches.collect::<Vec<_>>().join(", ")),
            (
                "weights",
                format!(
                    "{}, of which a token reads {}{}",
                    format::bytes(memory.constants),
                    format::bytes(model.weight_bytes_per_token),
                    self.synthetic_text()
                ),
            ),
            (
                "activations",
                format!(
                    "{}, {:.2} x the lower bound",
                    format::bytes(memory.arena),
                    memory.arena_ratio
                ),
            ),
            ("KV cache", format!("{} at context {}", format::bytes(memory.state), memory.context)),
        ];
        let rows: Vec<_> = rows.map(|(name, value)| vec![format!("  {name}"), value]).into();
        format!("\ntarget {}\n", self.target) + &format::table(&rows, &[])
    }

    /// What is to be said of weights that the file does not have.
    fn synthetic_text(&self) -> String {
        let synthetic = self.plan.synthetic.as_ref();
        synthetic.map_or_else(String::new, |synthetic| {
            format!("; synthetic with seed {}: made up at load, not in the file", synthetic.seed)
        })
    }

    fn memory_text(&self) -> String {
        let memory = &self.memory;
        let title = format!(
            "target {}, in bytes at context {}; arena {:.2} x the lower bound of {}\n",
            self.target, memory.context, memory.arena_ratio, memory.arena_lower_bound
        );
        let segments = [
            ("constants", memory.constants),
            ("arena", memory.arena),
            ("state", memory.state),
            ("io", memory.io),
            ("scratch per worker", memory.scratch_per_worker),
        ];
        let segments = segments.map(|(name, bytes)| vec![format!("  {name}"), bytes.to_string()]);
        title
            + &format::table(&segments, &[1])
            + "\nbuffers\n"
            + &format::table(&self.buffer_rows(), &[1, 2])
    }

    /// Buffers by segment and offset. Weights, which `inspect --json` lists, are left out.
    fn buffer_rows(&self) -> Vec<Vec<String>> {
        let placed = self.plan.buffers.iter().zip(&self.memory.layout.buffers);
        let mut rows = vec![];
        for segment in [Segment::Arena, Segment::State, Segment::Io] {
            let mut members: Vec<_> =
                placed.clone().filter(|(_, place)| place.segment == segment).collect();
            members.sort_by_key(|(_, place)| place.offset);
            rows.extend(members.into_iter().map(|(buffer, place)| {
                let (offset, bytes) = (place.offset.to_string(), place.bytes.to_string());
                vec![format!("  {segment}"), offset, bytes, buffer.name.clone()]
            }));
        }
        let title = ["  segment", "offset", "bytes", "holds"].map(str::to_string);
        rows.insert(0, title.into());
        rows
    }

    fn kernels_text(&self) -> String {
        let programs = || self.plan.programs.iter().map(|program| program.name.as_str());
        let gpu = self.plan.machine.is_some();
        let facts: &[&str] = if gpu { &FACTS } else { &[] };
        let columns = facts.iter().copied().chain(["computes"]);
        let title = ["kernel"].into_iter().chain(programs()).chain(columns);
        let mut rows: Vec<Vec<String>> = vec![title.map(str::to_string).collect()];
        for kernel in &self.kernels {
            let launches = programs().map(|program| match kernel.launches.get(program) {
                Some(count) => count.to_string(),
                None => String::new(),
            });
            let name = [kernel.name.clone()].into_iter();
            let facts = if gpu { kernel.fact_columns() } else { vec![] };
            let columns = facts.into_iter().chain([kernel.summary.clone()]);
            rows.push(name.chain(launches).chain(columns).collect());
        }
        let counts: Vec<usize> = (1..=self.plan.programs.len() + facts.len()).collect();
        let text = format!("target {}; launches by program\n", self.target);
        let legend = if gpu { LEGEND } else { "" };
        text + legend + &format::table(&rows, &counts)
    }
}

impl Kernel {
    fn new(plan: &Plan, index: usize) -> Kernel {
        let mut launches = serde_json::Map::new();
        for program in &plan.programs {
            let count = program.launches.iter().filter(|launch| launch.kernel == index).count();
            if count > 0 {
                launches.insert(program.name.clone(), count.into());
            }
        }
        let kernel = &plan.kernels[index];
        let symbols = step_symbols(
            plan,
            launches.contains_key(&plan.programs[plan.decode_loop.prefill].name),
        );
        let work = kernel.work.as_ref();
        Kernel {
            name: kernel.name.clone(),
            summary: kernel.summary.clone(),
            launches,
            facts: kernel.facts.clone(),
            bytes: work.and_then(|work| work.bytes.eval(&symbols)),
            predicted_us: work.zip(plan.machine).and_then(|(work, machine)| {
                machine.seconds(work, &symbols).map(|seconds| seconds * 1e6)
            }),
        }
    }

    /// What [`FACTS`] names.
    fn fact_columns(&self) -> Vec<String> {
        let facts = self.facts.clone().unwrap_or_default();
        let hot = facts.hot_loop.clone().unwrap_or_default();
        // Of PTX the driver decides on registers.
        let known = |number: u32| match facts.vgprs {
            0 => "-".to_string(),
            _ => number.to_string(),
        };
        vec![
            known(facts.vgprs),
            format!("{}", facts.spills + facts.private_bytes),
            facts.lds_bytes.to_string(),
            format!("{}/{}", known(facts.waves_per_simd), facts.planned_waves_per_simd),
            format!("{}/{}", hot.matrix, hot.instructions),
            format!("{}+{}", hot.wide_loads, hot.narrow_loads),
            self.bytes.map(|bytes| bytes.to_string()).unwrap_or_default(),
            self.predicted_us.map(|time| format!("{time:.2}")).unwrap_or_default(),
        ]
    }
}

/// Columns of a GPU's kernels.
const FACTS: [&str; 8] =
    ["vgprs", "spilled", "lds", "waves", "matrix", "loads", "bytes", "predicted us"];

/// What the columns of a GPU's kernels mean.
const LEGEND: &str = "waves: per SIMD, achieved/planned; matrix: matrix operations / \
instructions of the hot loop;\nloads: 16 bytes wide + narrower ones there; bytes: that a launch must move, prefill with a whole \
chunk, the KV cache half full; predicted: by the roofline of nominal figures, not measured\n";

/// Values of the symbols in a step of prefill or decode.
fn step_symbols(plan: &Plan, prefill: bool) -> Vec<i64> {
    let walk = &plan.decode_loop;
    let mut symbols: Vec<i64> = plan.symbols.iter().map(|symbol| symbol.max).collect();
    let tokens = if prefill { i64::from(plan.model.prefill_chunk) } else { 1 };
    symbols[walk.step_tokens] = tokens;
    symbols[walk.cache_length] = tokens.max(i64::from(plan.model.max_context) / 2);
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;
    use waveloom_plan as plan;
    use waveloom_plan::{Buffer, DecodeLoop, Expr, Launch, MemoryReport, ModelInfo, Program};

    /// A plan with a state segment that depends on the context.
    fn small_plan() -> Plan {
        let symbol = |name: &str| plan::Symbol { name: name.into(), min: 1, max: 8 };
        let buffer = |name: &str, segment, offset: i64, bytes: i64| Buffer {
            name: name.into(),
            segment,
            offset: offset.into(),
            bytes: bytes.into(),
        };
        let kernel = |name: &str| plan::Kernel {
            name: name.into(),
            summary: format!("{name}!"),
            workgroup: 0,
            work: None,
            facts: None,
        };
        let launch = |kernel| Launch { kernel, grid: 1.into(), args: vec![], writes: vec![] };
        let program = |name: &str, kernels: &[usize]| Program {
            name: name.into(),
            launches: kernels.iter().map(|&kernel| launch(kernel)).collect(),
        };
        Plan {
            machine: None,
            weights: "cpu".into(),
            synthetic: None,
            persistent: None,
            version: plan::FORMAT_VERSION,
            target: "cpu".into(),
            requires: vec!["avx2".into(), "fma".into()],
            model: ModelInfo {
                name: "small".into(),
                vocab: 10,
                max_context: 8,
                prefill_chunk: 4,
                stop_tokens: vec![2, 3],
                weight_bytes_per_token: 1024,
            },
            symbols: ["T", "S", "C"].map(symbol).into(),
            buffers: vec![
                buffer("second", Segment::Arena, 64, 8),
                buffer("first", Segment::Arena, 0, 16),
                buffer("weight", Segment::Constants, 0, 2048),
            ],
            segments: plan::Segments {
                constants: 2048.into(),
                arena: 72.into(),
                state: Expr::Symbol(2) * Expr::from(64),
                io: 64.into(),
            },
            scratch_bytes: 128,
            kernels: vec![kernel("gemm"), kernel("sample")],
            programs: vec![program("prefill", &[0, 0]), program("decode", &[0, 0, 1])],
            decode_loop: DecodeLoop {
                step_tokens: 0,
                cache_length: 1,
                context: 2,
                tokens: 0,
                positions: 0,
                last: 0,
                logits: 0,
                sampling: 0,
                history: 0,
                prefill: 0,
                decode: 1,
                sample: 1,
            },
            memory: MemoryReport { arena_peak: 72, arena_lower_bound: 60 },
        }
    }

    #[test]
    fn memory_lists_segments_and_buffers_in_order() {
        let text = Target::new(small_plan()).unwrap().memory_text();
        let expected = "\
target cpu, in bytes at context 8; arena 1.20 x the lower bound of 60
  constants           2048
  arena                 72
  state                512
  io                    64
  scratch per worker   128

buffers
  segment  offset  bytes  holds
  arena         0     16  first
  arena        64      8  second
";
        assert_eq!(text, expected);
    }

    #[test]
    fn kernels_count_launches_by_program() {
        let text = Target::new(small_plan()).unwrap().kernels_text();
        let expected = "\
target cpu; launches by program
kernel  prefill  decode  computes
gemm          2       2  gemm!
sample                1  sample!
";
        assert_eq!(text, expected);
    }

    fn inspection() -> Inspection {
        let section = |name: &str, bytes| Section { name: name.into(), offset: 0, bytes };
        Inspection {
            file: "small.wlm".into(),
            file_bytes: 4096,
            format: 1,
            compiler: "waveloom 0.1.0".into(),
            model: "small".into(),
            targets: vec![Target::new(small_plan()).unwrap()],
            sections: vec![section("plan.cpu", 700), section("weights.cpu.w", 2048)],
        }
    }

    #[test]
    fn the_summary_names_everything_once() {
        let expected = "\
small.wlm: small, 4.0 KiB, format 1, compiled by waveloom 0.1.0

target cpu
  needs        avx2 fma
  model        vocabulary 10, context up to 8, prefill chunk 4, stop tokens 2 3
  kernels      2
  launches     prefill 2, decode 3
  weights      2.0 KiB, of which a token reads 1.0 KiB
  activations  72 B, 1.20 x the lower bound
  KV cache     512 B at context 8

sections
  plan.cpu    700 B
  1 weight  2.0 KiB
";
        assert_eq!(inspection().text(), expected);
    }

    #[test]
    fn synthetic_weights_are_named() {
        let mut plan = small_plan();
        plan.synthetic = Some(plan::Synthetic { seed: 7, fills: vec![] });
        let target = Target::new(plan).unwrap();
        let text = target.summary_text();
        let expected = "  weights      2.0 KiB, of which a token reads 1.0 KiB; synthetic with seed 7: made up at load, not in the file\n";
        assert!(text.contains(expected), "{text}");
        let mut inspection = inspection();
        inspection.sections.truncate(1);
        assert!(inspection.text().ends_with("\nsections\n  plan.cpu  700 B\n"));
        assert_eq!(serde_json::to_value(target).unwrap()["plan"]["synthetic"]["seed"], 7);
    }

    #[test]
    fn json_has_the_agreed_fields() {
        let json = serde_json::to_value(inspection()).unwrap();
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let top = ["file", "file_bytes", "format", "compiler", "model", "targets", "sections"];
        assert_eq!(keys(&json), top);
        let target = &json["targets"][0];
        assert_eq!(keys(target), ["target", "requires", "memory", "kernels", "plan"]);
        assert_eq!(target["memory"]["state"], 512);
        assert_eq!(target["kernels"][1]["launches"], serde_json::json!({ "decode": 1 }));
        assert_eq!(target["plan"]["model"]["vocab"], 10);
    }
}
