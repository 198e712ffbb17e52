//! `inspect`: what is inside an artifact.

use crate::args::InspectArgs;
use crate::output::PendingFile;
use crate::report::{Kernel, Report, Target, page};
use crate::{Failure, format, output};
use waveloom_plan::{Artifact, Segment};

/// Shows an artifact, or a part of it, or writes its report to a file.
pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    if let Some(path) = &args.html {
        let file = PendingFile::create(path)?;
        return page::write(&report(args)?, file, path);
    }
    let report = report(args)?;
    let view: fn(&Target) -> String = match args {
        InspectArgs { json: true, .. } => return output::write_json(&report),
        InspectArgs { memory: true, .. } => Target::memory_text,
        InspectArgs { kernels: true, .. } => Target::kernels_text,
        InspectArgs { plan: true, .. } => |target| target.plan.to_string(),
        _ => return output::write(report.text()),
    };
    let texts: Vec<String> = report.targets.iter().map(view).collect();
    output::write(texts.join("\n"))
}

fn report(args: &InspectArgs) -> Result<Report, Failure> {
    Report::new(&Artifact::open(&args.file)?)
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!(
            "{}: {}, {}, format {}, compiled by {}\nblake3 {}\n",
            self.file,
            self.model,
            format::bytes(self.file_bytes),
            self.format,
            self.compiler,
            self.digest
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::{Section, VERSION};
    use waveloom_plan as plan;
    use waveloom_plan::{Buffer, DecodeLoop, Expr, Launch, MemoryReport, ModelInfo, Plan, Program};

    /// A plan with a state segment that depends on the context.
    pub(crate) fn small_plan() -> Plan {
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
            shared_bytes: 0,
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

    fn inspection() -> Report {
        let section = |name: &str, bytes| Section { name: name.into(), offset: 0, bytes };
        Report {
            version: VERSION,
            file: "small.wlm".into(),
            file_bytes: 4096,
            digest: "ab12".into(),
            format: 1,
            compiler: "waveloom 0.1.0".into(),
            model: "small".into(),
            targets: vec![Target::new(small_plan()).unwrap()],
            sections: vec![section("plan.cpu", 700), section("weights.cpu.w", 2048)],
            compilation: None,
        }
    }

    #[test]
    fn the_summary_names_everything_once() {
        let expected = "\
small.wlm: small, 4.0 KiB, format 1, compiled by waveloom 0.1.0
blake3 ab12

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
        let top =
            ["version", "file", "file_bytes", "digest", "format", "compiler", "model", "targets"];
        assert_eq!(keys(&json), [&top[..], &["sections"]].concat());
        let target = &json["targets"][0];
        let fields = ["target", "requires", "memory", "contexts", "lifetimes", "kernels", "plan"];
        assert_eq!(keys(target), fields);
        assert_eq!(target["memory"]["state"], 512);
        assert_eq!(target["kernels"][1]["launches"], serde_json::json!({ "decode": 1 }));
        assert_eq!(target["plan"]["model"]["vocab"], 10);
    }
}
