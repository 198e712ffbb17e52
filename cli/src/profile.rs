//! `bench --profile`: what each launch takes, against what it must move and compute.

use crate::bench::median;
use crate::format;
use serde::Serialize;
use serde_json::{Value, json};
use waveloom_plan::{Kernel, Machine, Plan, Work};
use waveloom_runtime::{Session, StepTimes};

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// The model.
    model: String,
    /// The device, for people.
    device: String,
    /// Whether it is no hardware: then times are left out, and counts are all there is.
    emulated: bool,
    /// Every program that ran.
    programs: Vec<ProgramProfile>,
}

/// A program.
#[derive(Clone, Debug, Serialize)]
struct ProgramProfile {
    name: String,
    /// Runs that were timed launch by launch.
    runs: usize,
    /// Median of the program as it is run (a GPU's decode step: as a graph).
    step_s: Option<f64>,
    /// Sum of the launches' medians.
    launches_s: Option<f64>,
    launches: Vec<LaunchProfile>,
}

/// A launch of a program.
#[derive(Clone, Debug, Serialize)]
struct LaunchProfile {
    kernel: String,
    summary: String,
    /// Median of its times.
    seconds: Option<f64>,
    #[serde(flatten)]
    counts: Counts,
}

/// What a launch, or several, cannot do without; means over the runs. None where a plan does not say.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Counts {
    bytes: Option<f64>,
    operations: Option<f64>,
    /// What the roofline allows, where the plan knows the hardware.
    roofline_s: Option<f64>,
}

/// Launches of one kernel, added up.
struct KernelProfile<'a> {
    name: &'a str,
    launches: usize,
    seconds: Option<f64>,
    counts: Counts,
}

impl Profile {
    /// Of programs timed as a whole, and launch by launch.
    pub fn new(session: &Session, wholes: &[StepTimes], launches: &[StepTimes]) -> Profile {
        Profile::of(
            session.plan(),
            session.device().to_string(),
            session.is_emulated(),
            wholes,
            launches,
        )
    }

    fn of(
        plan: &Plan,
        device: String,
        emulated: bool,
        wholes: &[StepTimes],
        launches: &[StepTimes],
    ) -> Profile {
        let program = |index: usize| {
            let of = |times: &[StepTimes]| -> Vec<StepTimes> {
                times.iter().filter(|times| times.program == index).cloned().collect()
            };
            ProgramProfile::new(plan, index, emulated, &of(wholes), &of(launches))
        };
        let programs = (0..plan.programs.len()).map(program).filter(|program| program.runs > 0);
        let model = plan.model.name.clone();
        Profile { model, device, emulated, programs: programs.collect() }
    }

    /// A table of kernels for each program.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.emulated {
            text += "the device is emulated: times mean nothing and are left out\n";
        }
        for program in &self.programs {
            text += &program.text();
        }
        text
    }

    /// A run of each program, launch after launch, as Chrome's trace events: microseconds.
    pub fn trace(&self) -> Value {
        let mut events = vec![
            json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": self.device}}),
            json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": 1,
                   "args": {"name": self.model}}),
        ];
        let mut at = 0.0;
        for program in &self.programs {
            let start = at;
            for (index, launch) in program.launches.iter().enumerate() {
                // What has no time is a unit long, so that it can be seen.
                let duration = launch.seconds.map_or(1.0, |seconds| seconds * 1e6);
                events.push(json!({
                    "name": launch.kernel, "cat": program.name, "ph": "X",
                    "pid": 1, "tid": 1, "ts": at, "dur": duration,
                    "args": {
                        "launch": index, "op": launch.summary, "bytes": launch.counts.bytes,
                        "operations": launch.counts.operations,
                        "roofline_us": launch.counts.roofline_s.map(|s| s * 1e6),
                    },
                }));
                at += duration;
            }
            events.push(json!({
                "name": program.name, "cat": "program", "ph": "X", "pid": 1, "tid": 0,
                "ts": start, "dur": at - start,
            }));
        }
        json!({"traceEvents": events, "displayTimeUnit": "ns"})
    }
}

impl ProgramProfile {
    fn new(
        plan: &Plan,
        index: usize,
        emulated: bool,
        wholes: &[StepTimes],
        runs: &[StepTimes],
    ) -> ProgramProfile {
        let program = &plan.programs[index];
        let launch = |(at, launch): (usize, &waveloom_plan::Launch)| {
            let kernel = &plan.kernels[launch.kernel];
            let times: Vec<f64> =
                runs.iter().filter_map(|run| run.seconds.get(at).copied()).collect();
            LaunchProfile {
                kernel: kernel.name.clone(),
                summary: kernel.summary.clone(),
                seconds: (!emulated).then(|| median(&times)),
                counts: Counts::of(kernel, plan.machine.as_ref(), runs),
            }
        };
        let launches: Vec<LaunchProfile> =
            program.launches.iter().enumerate().map(launch).collect();
        let whole: Vec<f64> = wholes.iter().map(|run| run.seconds.iter().sum()).collect();
        ProgramProfile {
            name: program.name.clone(),
            runs: runs.len(),
            step_s: (!emulated && !whole.is_empty()).then(|| median(&whole)),
            launches_s: launches.iter().map(|launch| launch.seconds).sum(),
            launches,
        }
    }

    /// Its kernels, the slowest first; in the order of their launches without times.
    fn kernels(&self) -> Vec<KernelProfile<'_>> {
        let mut kernels: Vec<KernelProfile<'_>> = vec![];
        for launch in &self.launches {
            match kernels.iter_mut().find(|kernel| kernel.name == launch.kernel) {
                Some(kernel) => {
                    kernel.launches += 1;
                    kernel.seconds = sum(kernel.seconds, launch.seconds);
                    kernel.counts = kernel.counts.plus(launch.counts);
                }
                None => kernels.push(KernelProfile {
                    name: &launch.kernel,
                    launches: 1,
                    seconds: launch.seconds,
                    counts: launch.counts,
                }),
            }
        }
        kernels.sort_by(|a, b| b.seconds.unwrap_or(0.0).total_cmp(&a.seconds.unwrap_or(0.0)));
        kernels
    }

    fn text(&self) -> String {
        let head =
            ["  kernel", "launches", "time", "part", "MB", "GB/s", "GFLOP", "TFLOP/s", "roofline"];
        let mut rows = vec![head.map(String::from).to_vec()];
        rows.extend(self.kernels().iter().map(|kernel| kernel.row(self.launches_s)));
        let mut text = format!("{}, {}", self.name, format::count(self.runs as u64, "run"));
        if let (Some(step), Some(launches)) = (self.step_s, self.launches_s) {
            text += &format!(
                ": {} as it is run, {} as the sum of its launches ({:.2} x)",
                time(step),
                time(launches),
                launches / step
            );
        }
        text + "\n" + &format::table(&rows, &[1, 2, 3, 4, 5, 6, 7, 8])
    }
}

impl KernelProfile<'_> {
    fn row(&self, all: Option<f64>) -> Vec<String> {
        let number = |x: Option<f64>, digits: usize| match x {
            Some(x) if x.is_finite() => format!("{x:.digits$}"),
            _ => "-".into(),
        };
        let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
        let per_second = |count, unit: f64| ratio(count, self.seconds).map(|x| x / unit);
        vec![
            format!("  {}", self.name),
            self.launches.to_string(),
            self.seconds.map_or("-".into(), time),
            ratio(self.seconds, all).map_or("-".into(), |part| format!("{:.1}%", part * 100.0)),
            number(self.counts.bytes.map(|bytes| bytes / 1e6), 3),
            number(per_second(self.counts.bytes, 1e9), 1),
            number(self.counts.operations.map(|operations| operations / 1e9), 3),
            number(per_second(self.counts.operations, 1e12), 3),
            ratio(self.counts.roofline_s, self.seconds)
                .map_or("-".into(), |share| format!("{:.1}%", share * 100.0)),
        ]
    }
}

fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? + b?)
}

/// Seconds for people, in microseconds below a millisecond.
fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1e-3 => format!("{:.1} us", seconds * 1e6),
        seconds => format!("{:.2} ms", seconds * 1e3),
    }
}

impl Counts {
    /// Of a launch of a kernel, the mean over runs.
    fn of(kernel: &Kernel, machine: Option<&Machine>, runs: &[StepTimes]) -> Counts {
        let Some(work) = &kernel.work else { return Counts::default() };
        let mean = |of: &dyn Fn(&[i64]) -> Option<f64>| -> Option<f64> {
            let sum: Option<f64> = runs.iter().map(|run| of(&run.symbols)).sum();
            Some(sum? / runs.len().max(1) as f64)
        };
        let Work { bytes, operations } = work;
        Counts {
            bytes: mean(&|symbols| Some(bytes.eval(symbols)? as f64)),
            operations: mean(&|symbols| Some(operations.eval(symbols)? as f64)),
            roofline_s: mean(&|symbols| machine?.seconds(work, symbols)),
        }
    }

    fn plus(self, other: Counts) -> Counts {
        Counts {
            bytes: sum(self.bytes, other.bytes),
            operations: sum(self.operations, other.operations),
            roofline_s: sum(self.roofline_s, other.roofline_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::tests::small_plan;
    use waveloom_plan::{Expr, Launch, Program, Symbol};

    /// A program of three launches of two kernels, the second without work.
    fn plan() -> Plan {
        let mut plan = small_plan();
        let work = Work { bytes: Expr::from(1000) * Expr::Symbol(0), operations: 5000.into() };
        let kernel = |name: &str, work| Kernel {
            name: name.into(),
            summary: format!("{name} f32[T,4]"),
            workgroup: 0,
            shared_bytes: 0,
            work,
            facts: None,
        };
        plan.kernels = vec![kernel("gemm", Some(work)), kernel("sample", None)];
        let launch = |kernel| Launch { kernel, grid: 1.into(), args: vec![], writes: vec![] };
        let launches = vec![launch(0), launch(0), launch(1)];
        plan.programs = vec![Program { name: "decode".into(), launches }];
        plan.symbols = vec![Symbol { name: "T".into(), min: 1, max: 8 }];
        plan.machine = Some(Machine { bandwidth: 1e9, matrix_rate: 1e12 });
        plan
    }

    fn times(seconds: &[f64]) -> StepTimes {
        StepTimes { program: 0, symbols: vec![2], seconds: seconds.to_vec() }
    }

    fn profile(emulated: bool) -> Profile {
        let wholes = [times(&[9e-6]), times(&[10e-6]), times(&[50e-6])];
        let launches =
            [times(&[4e-6, 6e-6, 1e-3]), times(&[4e-6, 6e-6, 2e-6]), times(&[5e-6, 5e-6, 2e-6])];
        Profile::of(&plan(), "a GPU".into(), emulated, &wholes, &launches)
    }

    #[test]
    fn kernels_are_told_by_program() {
        let expected = "\
decode, 3 runs: 10.0 us as it is run, 12.0 us as the sum of its launches (1.20 x)
  kernel  launches     time   part     MB  GB/s  GFLOP  TFLOP/s  roofline
  gemm           2  10.0 us  83.3%  0.004   0.4  0.000    0.001     40.0%
  sample         1   2.0 us  16.7%      -     -      -        -         -
";
        assert_eq!(profile(false).text(), expected);
    }

    #[test]
    fn an_emulated_device_has_counts_and_no_times() {
        let expected = "\
the device is emulated: times mean nothing and are left out
decode, 3 runs
  kernel  launches  time  part     MB  GB/s  GFLOP  TFLOP/s  roofline
  gemm           2     -     -  0.004     -  0.000        -         -
  sample         1     -     -      -     -      -        -         -
";
        assert_eq!(profile(true).text(), expected);
        let json = serde_json::to_value(profile(true)).unwrap();
        assert_eq!(
            (&json["emulated"], &json["programs"][0]["step_s"]),
            (&json!(true), &Value::Null)
        );
        assert_eq!(json["programs"][0]["launches"][0]["bytes"], 2000.0);
    }

    #[test]
    fn json_has_every_launch() {
        let json = serde_json::to_value(profile(false)).unwrap();
        let program = &json["programs"][0];
        assert_eq!((&program["name"], &program["runs"]), (&json!("decode"), &json!(3)));
        assert_eq!(program["step_s"], 10e-6);
        let launches = program["launches"].as_array().unwrap();
        assert_eq!(launches.len(), 3);
        assert_eq!(launches[1]["seconds"], 6e-6);
        assert_eq!(launches[1]["kernel"], "gemm");
        assert_eq!(
            (&launches[1]["bytes"], &launches[1]["operations"]),
            (&json!(2000.0), &json!(5000.0))
        );
        assert_eq!(launches[1]["roofline_s"], 2e-6);
        assert_eq!(launches[2]["bytes"], Value::Null);
    }

    #[test]
    fn the_trace_has_an_event_per_launch_one_after_the_other() {
        let trace: Value = serde_json::from_str(&profile(false).trace().to_string()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let launches: Vec<&Value> =
            events.iter().filter(|event| event["cat"] == "decode").collect();
        assert_eq!(launches.len(), 3);
        let mut at = 0.0;
        for launch in launches {
            assert_eq!(launch["ph"], "X");
            assert!((launch["ts"].as_f64().unwrap() - at).abs() < 1e-9);
            at += launch["dur"].as_f64().unwrap();
        }
        assert!((at - 12.0).abs() < 1e-9);
        assert!(events.iter().any(|event| event["cat"] == "program" && event["dur"] == at));
    }
}
