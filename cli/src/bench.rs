//! `bench`: how fast an artifact loads, reads a prompt, and generates.

use crate::args::BenchArgs;
use crate::output::PendingFile;
use crate::profile::Profile;
use crate::{Failure, format, load, output};
use serde::Serialize;
use std::fs;
use std::time::{Duration, Instant};
use waveloom_plan::Artifact;
use waveloom_runtime::{Detail, Session};

/// Tokens of the prompt before the first measurement, which touch the weights and wake the cores.
const WARM_UP_PROMPT: usize = 16;
/// Decode steps before the first measurement.
const WARM_UP_STEPS: u32 = 4;
/// Decode steps of which every launch is timed, in each repetition.
const PROFILED_STEPS: u32 = 16;

/// Measures.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let mut report = Report::new(args);
    for _ in 0..args.repeat {
        measure(args, &mut report)?;
    }
    report.peak_rss_bytes = peak_rss_bytes();
    let Some(file) = &args.profile else {
        return if args.json { output::write_json(&report) } else { output::write(report.text()) };
    };
    let files = [Some(file), args.trace.as_ref()];
    let files = files.into_iter().flatten().map(|path| PendingFile::create(path));
    let mut files = files.collect::<Result<Vec<_>, _>>()?.into_iter();
    let profile = profile(args)?;
    if let Some(file) = files.next() {
        file.finish(|file| serde_json::to_writer_pretty(file, &profile))?;
    }
    if let Some(file) = files.next() {
        file.finish(|file| serde_json::to_writer(file, &profile.trace()))?;
    }
    if args.json {
        output::write_json(&report)
    } else {
        output::write(report.text() + &profile.text())
    }
}

/// Loads once and takes a sample of everything.
fn measure(args: &BenchArgs, report: &mut Report) -> Result<(), Failure> {
    let context = args.prompt_tokens.saturating_add(args.gen_tokens);
    let start = Instant::now();
    let artifact = Artifact::open(&args.file)?;
    let mut session =
        load::session(&artifact, &args.device, context, args.json).map_err(|failure| {
            failure.with_help("lower --prompt-tokens or --gen-tokens if they exceed the context")
        })?;
    report.load_s.push(start.elapsed().as_secs_f64());
    report.device = session.device().to_string();
    report.threads = session.workers();
    let model = &session.plan().model;
    report.model = model.name.clone();
    report.weight_bytes_per_token = model.weight_bytes_per_token;
    // Which tokens does not matter, as long as the model has them.
    let vocab = model.vocab.max(1);
    let prompt: Vec<u32> = (0..args.prompt_tokens).map(|i| (100 + i) % vocab).collect();
    let warm_up = prompt.len().min(WARM_UP_PROMPT);
    generate(&mut session, &prompt[..warm_up], args.gen_tokens.min(WARM_UP_STEPS))?;
    let (prefill, decode, tokens) = generate(&mut session, &prompt, args.gen_tokens)?;
    report.tokens = tokens;
    report.prefill_tok_s.push(f64::from(args.prompt_tokens) / prefill.as_secs_f64());
    report.decode_tok_s.push(f64::from(args.gen_tokens) / decode.as_secs_f64());
    Ok(())
}

/// Loads once more, and times every launch.
fn profile(args: &BenchArgs) -> Result<Profile, Failure> {
    let context = args.prompt_tokens.saturating_add(args.gen_tokens);
    let artifact = Artifact::open(&args.file)?;
    let mut session = load::session(&artifact, &args.device, context, args.json)?;
    let vocab = session.plan().model.vocab.max(1);
    let prompt: Vec<u32> = (0..args.prompt_tokens).map(|i| (100 + i) % vocab).collect();
    let steps = args.gen_tokens.min(PROFILED_STEPS);
    // The first run warms up and counts for nothing.
    session.measure(&prompt, steps, Detail::Programs)?;
    let (mut wholes, mut launches) = (vec![], vec![]);
    for _ in 0..args.repeat {
        wholes.extend(session.measure(&prompt, steps, Detail::Programs)?);
        launches.extend(session.measure(&prompt, steps, Detail::Launches)?);
    }
    Ok(Profile::new(&session, &wholes, &launches))
}

/// Time of the prompt up to its first new token, and of `steps` decode steps after it, and the tokens.
/// Stop tokens do not stop it.
fn generate(
    session: &mut Session,
    prompt: &[u32],
    steps: u32,
) -> Result<(Duration, Duration, Vec<u32>), Failure> {
    session.reset();
    let start = Instant::now();
    session.prefill(prompt)?;
    let mut tokens = vec![session.sample()?];
    let prefill = start.elapsed();
    tokens.reserve(steps as usize);
    let start = Instant::now();
    for step in 0..steps {
        tokens.push(session.decode_ahead((steps - step) as usize)?);
    }
    Ok((prefill, start.elapsed(), tokens))
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    model: String,
    device: String,
    threads: usize,
    prompt_tokens: u32,
    gen_tokens: u32,
    load_s: Samples,
    prefill_tok_s: Samples,
    decode_tok_s: Samples,
    /// Most memory of the process that was resident at a time; null where the system does not say.
    peak_rss_bytes: Option<u64>,
    weight_bytes_per_token: u64,
    /// What was generated, so that measurements of one model can be compared; the same each time.
    tokens: Vec<u32>,
}

/// Measurements of one quantity.
#[derive(Default, Serialize)]
struct Samples {
    median: f64,
    samples: Vec<f64>,
}

impl Samples {
    fn push(&mut self, sample: f64) {
        self.samples.push(sample);
        self.median = median(&self.samples);
    }
}

impl Report {
    fn new(args: &BenchArgs) -> Report {
        Report {
            model: String::new(),
            device: String::new(),
            threads: 0,
            prompt_tokens: args.prompt_tokens,
            gen_tokens: args.gen_tokens,
            load_s: Samples::default(),
            prefill_tok_s: Samples::default(),
            decode_tok_s: Samples::default(),
            peak_rss_bytes: None,
            weight_bytes_per_token: 0,
            tokens: vec![],
        }
    }

    fn text(&self) -> String {
        let per_second = self.weight_bytes_per_token as f64 * self.decode_tok_s.median;
        let row = |name: &str, samples: &Samples, unit: &str, what: String| {
            let (low, high) = range(&samples.samples);
            let digits = if unit == "s" { 3 } else { 1 };
            let value = format!("{:.digits$} {unit}", samples.median);
            let spread = format!("{low:.digits$} to {high:.digits$}");
            vec![format!("  {name}"), value, spread, what]
        };
        let rows = [
            row("load", &self.load_s, "s", String::new()),
            row("prefill", &self.prefill_tok_s, "tok/s", format!("{} tokens", self.prompt_tokens)),
            row(
                "decode",
                &self.decode_tok_s,
                "tok/s",
                format!("{} tokens, {:.1} GB/s of weights", self.gen_tokens, per_second / 1e9),
            ),
        ];
        let mut text = format!("{} on {}; median, range\n", self.model, self.device);
        text += &format::table(&rows, &[1]);
        if let Some(bytes) = self.peak_rss_bytes {
            text += &format!("  peak resident memory {}\n", format::bytes(bytes));
        }
        text
    }
}

/// The middle one, or the mean of the middle two.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        Some(high) if sorted.len() % 2 == 1 => *high,
        Some(high) => (sorted[middle - 1] + high) / 2.0,
        None => 0.0,
    }
}

fn range(samples: &[f64]) -> (f64, f64) {
    let low = samples.iter().copied().reduce(f64::min).unwrap_or(0.0);
    (low, samples.iter().copied().reduce(f64::max).unwrap_or(0.0))
}

/// The process's high-water mark, as Linux counts it.
fn peak_rss_bytes() -> Option<u64> {
    high_water_mark(&fs::read_to_string("/proc/self/status").ok()?)
}

fn high_water_mark(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn the_high_water_mark_is_read() {
        let status = "VmPeak:\t  999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(high_water_mark(status), Some(2 << 20));
        assert_eq!(high_water_mark("VmHWM:\tmuch\n"), None);
        assert!(peak_rss_bytes().is_some_and(|bytes| bytes > 100_000));
    }

    fn report() -> Report {
        let mut report = Report {
            model: "small".into(),
            device: "a processor, 2 threads".into(),
            threads: 2,
            prompt_tokens: 512,
            gen_tokens: 128,
            load_s: Samples::default(),
            prefill_tok_s: Samples::default(),
            decode_tok_s: Samples::default(),
            peak_rss_bytes: Some(3 << 20),
            weight_bytes_per_token: 100_000_000,
            tokens: vec![7, 9],
        };
        for i in [1.0, 3.0, 2.0] {
            report.load_s.push(i / 100.0);
            report.prefill_tok_s.push(i * 1000.0);
            report.decode_tok_s.push(i * 10.0);
        }
        report
    }

    #[test]
    fn json_has_the_agreed_fields() {
        let json = serde_json::to_value(report()).unwrap();
        for name in ["load_s", "prefill_tok_s", "decode_tok_s"] {
            assert!(json[name]["median"].is_f64(), "{name}");
            assert_eq!(json[name]["samples"].as_array().unwrap().len(), 3, "{name}");
        }
        assert_eq!(json["decode_tok_s"]["median"], 20.0);
        assert_eq!(json["peak_rss_bytes"], 3 << 20);
        assert_eq!(json["weight_bytes_per_token"], 100_000_000);
        assert_eq!(json["device"], "a processor, 2 threads");
        assert_eq!(json["tokens"], serde_json::json!([7, 9]));
    }

    #[test]
    fn the_report_is_a_line_per_quantity() {
        let expected = "\
small on a processor, 2 threads; median, range
  load          0.020 s  0.010 to 0.030
  prefill  2000.0 tok/s  1000.0 to 3000.0  512 tokens
  decode     20.0 tok/s  10.0 to 30.0      128 tokens, 2.0 GB/s of weights
  peak resident memory 3.0 MiB
";
        assert_eq!(report().text(), expected);
    }
}
