//! What was found, for people and programs.

use serde::Serialize;
use std::cmp::Ordering;

/// How a model's kernels did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// Name of the target.
    pub target: String,
    /// The device, for people.
    pub device: String,
    /// Prompt tokens.
    pub tokens: u32,
    /// Decode steps.
    pub steps: u32,
    /// Seed of the prompt.
    pub seed: u64,
    /// How many runs of passes were checked before and found right, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right_passes: Option<u64>,
    /// Whether every kernel stayed within its bounds.
    pub passed: bool,
    /// Every kernel of the plan, in its order.
    pub kernels: Vec<KernelReport>,
    /// Launches that did not, the first of each kernel.
    pub failures: Vec<Failure>,
}

/// How a kernel did.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    /// Its symbol.
    pub name: String,
    /// The op and its shape.
    pub summary: String,
    /// Launches that were checked.
    pub launches: u64,
    /// Of them, those that were wrong.
    pub wrong: u64,
    /// Numbers that were compared.
    pub elements: u64,
    /// Largest error.
    pub absolute: f64,
    /// Largest error relative to the largest number of its result.
    pub relative: f64,
    /// The number that came closest to its bound, or went furthest beyond.
    pub worst: Option<Worst>,
}

/// A number and where it is.
#[derive(Clone, Debug, Serialize)]
pub struct Worst {
    /// Program, such as `prefill`.
    pub program: String,
    /// How often the program had run before.
    pub step: usize,
    /// Index of the launch.
    pub launch: usize,
    /// Buffer of the result.
    pub result: String,
    /// The number.
    pub element: Element,
}

/// A number that a kernel computed.
#[derive(Clone, Debug, Serialize)]
pub struct Element {
    /// Index of each dimension; of a cache: position, head, element.
    pub index: Vec<u64>,
    /// What the kernel computed.
    pub found: f64,
    /// What is right.
    pub exact: f64,
    /// The difference.
    pub error: f64,
    /// How large it may be.
    pub bound: f64,
}

/// A launch that was wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Its kernel's symbol.
    pub kernel: String,
    /// The op, as spelled in the IR.
    pub op: String,
    /// Program, such as `prefill`.
    pub program: String,
    /// How often the program had run before.
    pub step: usize,
    /// Index of the launch.
    pub launch: usize,
    /// Buffer of the first wrong result.
    pub result: String,
    /// Numbers of that result that are wrong, and all of them.
    pub wrong: u64,
    /// Numbers of that result.
    pub of: u64,
    /// The worst, the furthest beyond its bound first.
    pub elements: Vec<Element>,
    /// The reproducer, if one was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reproducer: Option<String>,
}

impl Element {
    /// Whether it is further off than it may be; what is not even a number is.
    pub fn is_wrong(&self) -> bool {
        !matches!(self.error.partial_cmp(&self.bound), Some(Ordering::Less | Ordering::Equal))
    }

    /// The error as a part of its bound; what should be exact and is not counts as infinitely wrong.
    pub fn share(&self) -> f64 {
        match self.error {
            0.0 => 0.0,
            error if error.is_nan() || self.bound.is_nan() => f64::INFINITY,
            error => error / self.bound,
        }
    }

    fn place(&self) -> String {
        let index: Vec<String> = self.index.iter().map(u64::to_string).collect();
        format!("[{}]", index.join(", "))
    }
}

impl KernelReport {
    fn verdict(&self) -> &'static str {
        match (self.launches, self.wrong) {
            (0, _) => "not run",
            (_, 0) => "ok",
            _ => "WRONG",
        }
    }

    fn row(&self) -> Vec<String> {
        let number = |x: f64| if x == 0.0 { "0".to_string() } else { format!("{x:.1e}") };
        let worst = |f: &dyn Fn(&Worst) -> String| self.worst.as_ref().map_or("-".into(), f);
        vec![
            format!("  {}", self.name),
            self.launches.to_string(),
            number(self.absolute),
            number(self.relative),
            worst(&|w| number(w.element.bound)),
            worst(&|w| percent(w.element.share())),
            self.verdict().to_string(),
            self.summary.clone(),
        ]
    }
}

/// A part of a bound: as percents while it is one.
fn percent(share: f64) -> String {
    match share {
        share if share.is_infinite() => "inf".into(),
        share if share >= 10.0 => format!("{share:.0} x"),
        share => format!("{:.1}%", share * 100.0),
    }
}

impl Failure {
    /// Lines that say what is wrong and where.
    fn text(&self) -> String {
        let mut text = format!(
            "{}: {} of {} numbers of `{}` are wrong ({}, {} {}, launch {})\n",
            self.kernel,
            self.wrong,
            self.of,
            self.result,
            self.op,
            self.program,
            self.step,
            self.launch
        );
        for element in &self.elements {
            text += &format!(
                "  {} is {}, should be {}: off by {:.3e}, may be {:.3e}\n",
                element.place(),
                element.found,
                element.exact,
                element.error,
                element.bound
            );
        }
        if let Some(path) = &self.reproducer {
            text += &format!("  reproducer: {path}\n");
        }
        text
    }
}

impl Report {
    /// The table and what is wrong, as text; `table` lays out rows whose columns at the given indices
    /// are aligned to the right.
    pub fn text(&self, table: impl Fn(&[Vec<String>], &[usize]) -> String) -> String {
        let head = ["  kernel", "launches", "error", "relative", "bound", "of bound", "", ""];
        let rows = [head.map(String::from).to_vec()].into_iter();
        let rows: Vec<_> = rows.chain(self.kernels.iter().map(KernelReport::row)).collect();
        let mut text = format!(
            "{} for {} on {}: {} prompt tokens, {} decode steps\n",
            self.model, self.target, self.device, self.tokens, self.steps
        );
        text += &table(&rows, &[1, 2, 3, 4, 5]);
        for failure in &self.failures {
            text += &failure.text();
        }
        text + &self.conclusion() + "\n"
    }

    /// One line.
    pub fn conclusion(&self) -> String {
        let launches: u64 = self.kernels.iter().map(|kernel| kernel.launches).sum();
        let wrong = self.kernels.iter().filter(|kernel| kernel.wrong > 0);
        let names: Vec<&str> = wrong.map(|kernel| kernel.name.as_str()).collect();
        let passes = self.right_passes.map_or(String::new(), |count| {
            format!("{count} passes keep what the model computes; ")
        });
        match names[..] {
            [] => format!("{passes}{launches} launches are within their bounds"),
            _ => format!("{passes}wrong: {}", names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    fn element(found: f64, bound: f64) -> Element {
        Element { index: vec![2, 17], found, exact: 1.0, error: (found - 1.0).abs(), bound }
    }

    fn kernel(name: &str, element: Element, wrong: u64) -> KernelReport {
        KernelReport {
            name: name.into(),
            summary: "gemm q4_1 [T,64]x[96,64]".into(),
            launches: 4,
            wrong,
            elements: 384,
            absolute: element.error,
            relative: element.error / 2.0,
            worst: Some(Worst {
                program: "decode".into(),
                step: 1,
                launch: 7,
                result: "layer.1.gemm".into(),
                element,
            }),
        }
    }

    fn report() -> Report {
        let idle = KernelReport {
            launches: 0,
            elements: 0,
            absolute: 0.0,
            relative: 0.0,
            worst: None,
            ..kernel("sample", element(1.0, 0.0), 0)
        };
        let failure = Failure {
            kernel: "gemm_1".into(),
            op: "gemm".into(),
            program: "decode".into(),
            step: 1,
            launch: 7,
            result: "layer.1.gemm".into(),
            wrong: 3,
            of: 96,
            elements: vec![element(1.5, 1e-3), element(f64::NAN, 1e-3)],
            reproducer: Some("out/gemm_1-decode-7.wl".into()),
        };
        Report {
            model: "tiny".into(),
            target: "gfx942".into(),
            device: "a GPU".into(),
            tokens: 9,
            steps: 2,
            seed: 1,
            right_passes: Some(9),
            passed: false,
            kernels: vec![
                kernel("gemm", element(1.0 + 1e-5, 1e-3), 0),
                kernel("gemm_1", element(1.5, 1e-3), 3),
                idle,
            ],
            failures: vec![failure],
        }
    }

    fn joined(rows: &[Vec<String>], _: &[usize]) -> String {
        rows.iter().map(|row| row.join(" | ").trim_end().to_string() + "\n").collect()
    }

    #[test]
    fn a_wrong_kernel_is_named_with_its_numbers() {
        assert_snapshot!(report().text(joined), @r"
        tiny for gfx942 on a GPU: 9 prompt tokens, 2 decode steps
          kernel | launches | error | relative | bound | of bound |  |
          gemm | 4 | 1.0e-5 | 5.0e-6 | 1.0e-3 | 1.0% | ok | gemm q4_1 [T,64]x[96,64]
          gemm_1 | 4 | 5.0e-1 | 2.5e-1 | 1.0e-3 | 500 x | WRONG | gemm q4_1 [T,64]x[96,64]
          sample | 0 | 0 | 0 | - | - | not run | gemm q4_1 [T,64]x[96,64]
        gemm_1: 3 of 96 numbers of `layer.1.gemm` are wrong (gemm, decode 1, launch 7)
          [2, 17] is 1.5, should be 1: off by 5.000e-1, may be 1.000e-3
          [2, 17] is NaN, should be 1: off by NaN, may be 1.000e-3
          reproducer: out/gemm_1-decode-7.wl
        9 passes keep what the model computes; wrong: gemm_1
        ");
    }

    #[test]
    fn what_must_be_exact_and_is_not_is_infinitely_wrong() {
        assert_eq!(element(1.0, 0.0).share(), 0.0);
        assert_eq!(element(2.0, 0.0).share(), f64::INFINITY);
        assert_eq!(element(f64::NAN, 1.0).share(), f64::INFINITY);
        assert_eq!(element(1.5, 2.0).share(), 0.25);
    }

    #[test]
    fn json_has_the_agreed_fields() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["passed"], false);
        assert_eq!(json["kernels"][1]["wrong"], 3);
        assert_eq!(json["kernels"][1]["worst"]["element"]["index"], serde_json::json!([2, 17]));
        assert_eq!(json["failures"][0]["reproducer"], "out/gemm_1-decode-7.wl");
        assert_eq!(json["failures"][0]["elements"][0]["bound"], 1e-3);
    }
}
