//! `selftest`: an artifact's own test on a device.

use crate::args::SelfTestArgs;
use crate::{Failure, format, output};
use waveloom_plan::Artifact;
use waveloom_runtime::DeviceKind;
use waveloom_runtime::selftest::{
    ChoiceReport, Deviation, SelfTestReport, StepReport, WholeReport, self_test,
};

/// Runs the self-test.
pub fn run(args: &SelfTestArgs) -> Result<(), Failure> {
    let artifact = Artifact::open(&args.file)?;
    let kind: DeviceKind = args.device.device.parse()?;
    let device = kind.open(args.device.threads.map(|threads| threads as usize))?;
    let report = self_test(&*device, &artifact, &mut |_| {})?;
    match args.json {
        true => output::write_json(&report)?,
        false => output::write(text(&report))?,
    }
    match conclusion(&report) {
        None => Ok(()),
        Some(wrong) => Err(Failure::new(wrong).with_help(
            "the compiled file is whole, so it is the device, its driver, or a kernel; docs/trust.md says how to go on",
        )),
    }
}

/// The report for people.
fn text(report: &SelfTestReport) -> String {
    let SelfTestReport { model, target, device, tokens, .. } = report;
    let mut text = format!("{model} for {target}, on {device}: a prompt of {tokens} tokens\n");
    let title =
        ["step", "launches", "values", "wrong", "deviation", "tolerance", "closest", "token"];
    let mut rows = vec![title.map(str::to_string).to_vec()];
    for step in &report.steps {
        let StepReport { program, launches, values, wrong, closest, choice, .. } = step;
        let number = |x: f32| format!("{x:.1e}");
        let [deviation, tolerance, of] = match closest {
            Some(d) => [number(d.deviation), number(d.tolerance), d.value.clone()],
            None => [const { String::new() }; 3],
        };
        let counts = [launches, values, wrong].map(|count| count.to_string());
        let [launches, values, wrong] = counts;
        let token = told(choice);
        let name = program.clone();
        rows.push(vec![name, launches, values, wrong, deviation, tolerance, of, token]);
    }
    for WholeReport { program, deviation, tolerance, choice } in &report.whole {
        let empty = String::new;
        let (deviation, tolerance) = (format!("{deviation:.1e}"), format!("{tolerance:.1e}"));
        let name = format!("{program}, at once");
        let of = "logits".to_string();
        rows.push(vec![name, empty(), empty(), empty(), deviation, tolerance, of, told(choice)]);
    }
    text += &format::table(&rows, &[1, 2, 3, 4, 5]);
    for step in report.steps.iter().filter(|step| step.wrong > 0) {
        let layers = step.wrong_layers.iter().map(|layer| named(layer));
        let layers: Vec<&str> = layers.collect();
        text += &format!("wrong in {}: {}\n", step.program, layers.join(", "));
    }
    if report.passed {
        text += "every value is within its tolerance\n";
    }
    text
}

/// A layer for people.
fn named(layer: &str) -> &str {
    if layer.is_empty() { "outside of the layers" } else { layer }
}

fn told(choice: &ChoiceReport) -> String {
    let ChoiceReport { expected, found, certain } = choice;
    match (found == expected, certain) {
        (true, _) => format!("{found}"),
        (false, true) => format!("{found}, not {expected}"),
        (false, false) => format!("{found}, or {expected}: too close to tell"),
    }
}

/// What is wrong: the first of it.
fn conclusion(report: &SelfTestReport) -> Option<String> {
    if let Some(first) = &report.first {
        let Deviation { layer, value, program, launch, kernel, summary, .. } = first;
        return Some(format!(
            "the first wrong result is {}: launch {launch} of {program}, kernel `{kernel}` ({summary}): `{value}` is off by {:.1e} of its norm, {:.1e} is allowed",
            match layer.is_empty() {
                true => "outside of the layers".to_string(),
                false => format!("in {layer}"),
            },
            first.deviation,
            first.tolerance,
        ));
    }
    let wrong = |choice: &ChoiceReport| choice.is_wrong();
    if let Some(step) = report.steps.iter().find(|step| wrong(&step.choice)) {
        let ChoiceReport { expected, found, .. } = step.choice;
        return Some(format!(
            "after {} token {found} was chosen, not {expected}, though all logits are right",
            step.program
        ));
    }
    if let Some(whole) = report.whole.iter().find(|whole| whole.is_wrong()) {
        return Some(format!(
            "every launch of {} by itself is right, but not all of them at once: the logits are off by {:.1e} of their norm, {:.1e} is allowed; token {}",
            whole.program,
            whole.deviation,
            whole.tolerance,
            told(&whole.choice)
        ));
    }
    let tokens = report.tokenized.as_ref()?;
    Some(format!("the tokenizer makes other tokens of the prompt: {tokens:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> SelfTestReport {
        let choice = ChoiceReport { expected: 260, found: 260, certain: true };
        let closest = Deviation {
            layer: "layer.3".into(),
            value: "layer.3.gemm.1".into(),
            program: "prefill".into(),
            launch: 17,
            kernel: "gemm_f32_64".into(),
            summary: "gemm f32 [T, 64]".into(),
            deviation: 1.2e-6,
            tolerance: 1.5e-5,
        };
        let step = |program: &str| StepReport {
            program: program.into(),
            launches: 23,
            values: 31,
            wrong: 0,
            wrong_layers: vec![],
            closest: Some(closest.clone()),
            choice,
        };
        let whole = |program: &str| WholeReport {
            program: program.into(),
            deviation: 1e-6,
            tolerance: 2e-5,
            choice,
        };
        SelfTestReport {
            model: "small".into(),
            target: "cpu".into(),
            device: "a processor".into(),
            tokens: 6,
            passed: true,
            first: None,
            tokenized: None,
            steps: [step("prefill"), step("decode")],
            whole: [whole("prefill"), whole("decode")],
        }
    }

    #[test]
    fn a_self_test_that_passes() {
        assert_eq!(conclusion(&report()), None);
        insta::assert_snapshot!(text(&report()));
    }

    #[test]
    fn the_first_wrong_layer_is_named() {
        let mut wrong = report();
        let first = Deviation { deviation: 0.43, ..wrong.steps[0].closest.clone().unwrap() };
        wrong.steps[0] = StepReport {
            wrong: 9,
            wrong_layers: vec!["layer.3".into(), "layer.4".into(), String::new()],
            closest: Some(first.clone()),
            choice: ChoiceReport { expected: 260, found: 7, certain: true },
            ..wrong.steps[0].clone()
        };
        wrong.steps[1].choice = ChoiceReport { expected: 260, found: 7, certain: false };
        (wrong.first, wrong.passed) = (Some(first), false);
        insta::assert_snapshot!(text(&wrong));
        insta::assert_snapshot!(conclusion(&wrong).unwrap(), @"the first wrong result is in layer.3: launch 17 of prefill, kernel `gemm_f32_64` (gemm f32 [T, 64]): `layer.3.gemm.1` is off by 4.3e-1 of its norm, 1.5e-5 is allowed");
    }

    #[test]
    fn what_no_launch_shows_is_told() {
        let mut chosen = report();
        chosen.steps[1].choice.found = 7;
        insta::assert_snapshot!(conclusion(&chosen).unwrap(), @"after decode token 7 was chosen, not 260, though all logits are right");
        let mut whole = report();
        whole.whole[1].deviation = 0.5;
        insta::assert_snapshot!(conclusion(&whole).unwrap(), @"every launch of decode by itself is right, but not all of them at once: the logits are off by 5.0e-1 of their norm, 2.0e-5 is allowed; token 260");
        let tokenized = SelfTestReport { tokenized: Some(vec![1, 2]), ..report() };
        insta::assert_snapshot!(conclusion(&tokenized).unwrap(), @"the tokenizer makes other tokens of the prompt: [1, 2]");
    }
}
