//! The report in a browser: what the compiler writes is drawn, in Chromium without a screen.
//!
//! Runs where `chromium` is on the path or `CHROMIUM` names it, and says so elsewhere.

use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const WAVELOOM: &str = env!("CARGO_BIN_EXE_waveloom");
const WAVELOOM_RUN: &str = env!("CARGO_BIN_EXE_waveloom-run");

/// A browser, or a word about its absence.
fn chromium() -> Option<PathBuf> {
    let named = env::var_os("CHROMIUM").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let on_path = env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    let found = named.into_iter().chain(on_path).find(|place| place.exists());
    if found.is_none() {
        println!("skipped: no browser: `chromium` is not on the path, and CHROMIUM names none");
    }
    found
}

/// A page as a browser has drawn it, with the report that it was drawn from.
struct Drawn {
    dom: String,
    report: Value,
}

/// Runs a program that must succeed; what it prints.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn browser(program: &Path, profile: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.args(["--hide-scrollbars", "--virtual-time-budget=5000"]);
    command
}

/// Draws a page. A screenshot is taken, too: it is a PNG of what was drawn.
fn draw(program: &Path, page: &Path, dir: &TempDir) -> Drawn {
    let url = format!("file://{}", page.display());
    let drawn = dom(program, page, dir);
    let picture = dir.path().join("page.png");
    let screenshot = format!("--screenshot={}", picture.display());
    output(browser(program, dir.path()).args(["--window-size=1280,900", &screenshot, &url]));
    let png = fs::read(picture).expect("a screenshot");
    assert!(png.starts_with(b"\x89PNG") && png.len() > 20_000, "{} bytes", png.len());
    drawn
}

/// What becomes of a page.
fn dom(program: &Path, page: &Path, dir: &TempDir) -> Drawn {
    let url = format!("file://{}", page.display());
    let dom = output(browser(program, dir.path()).arg("--dump-dom").arg(&url));
    let text = fs::read_to_string(page).expect("the page");
    let (_, data) = text.split_once("id=\"report\">").expect("the data");
    let (data, _) = data.split_once("</script>").expect("its end");
    Drawn { dom, report: serde_json::from_str(data).expect("it is JSON") }
}

impl Drawn {
    fn count(&self, what: &str) -> usize {
        // The script, with its own quotations of the page, ends the document.
        let (drawn, _) = self.dom.split_once("<script").expect("there is a script");
        drawn.matches(what).count()
    }

    fn has_no_error(&self) {
        assert!(self.dom.contains("data-drawn=\"yes\""), "the script came to its end");
        let hidden = "<p id=\"error\" role=\"alert\" hidden=\"\"></p>";
        assert!(self.dom.contains(hidden), "an error is shown");
    }
}

fn len(value: &Value) -> usize {
    value.as_array().expect("an array").len()
}

/// Compiles a fixture for a target with a report.
fn reported(dir: &TempDir, target: &str) -> (PathBuf, PathBuf) {
    let (artifact, page) = (dir.path().join("model.wlm"), dir.path().join("report.html"));
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama3");
    let mut command = Command::new(WAVELOOM);
    command.arg("compile").arg(model).args(["--target", target, "-o"]).arg(&artifact);
    output(command.arg("--report").arg(&page));
    (artifact, page)
}

#[test]
fn a_browser_draws_the_report() {
    let Some(chromium) = chromium() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (artifact, page) = reported(&dir, "gfx942");
    let drawn = draw(&chromium, &page, &dir);
    drawn.has_no_error();
    let target = &drawn.report["targets"][0];
    let lives = target["lifetimes"].as_array().expect("lifetimes");
    let buffers: usize = lives.iter().map(|program| len(&program["buffers"])).sum();
    assert!(buffers > 0);
    assert_eq!(drawn.count("class=\"mark buffer\""), buffers);
    assert!(drawn.count("class=\"mark kernel\"") >= 8, "a roofline");
    let kernels = len(&target["plan"]["kernels"]);
    assert_eq!(drawn.count("id=\"kernel-") - drawn.count("id=\"kernel-table\""), kernels);
    let decode = &target["plan"]["programs"][1];
    assert_eq!(drawn.count("class=\"mark launch\""), len(&decode["launches"]));
    let compilation = &drawn.report["compilation"];
    assert_eq!(len(&compilation["kernels"]), kernels);
    assert_eq!(drawn.count("class=\"graph\""), 2);
    assert!(drawn.count("class=\"node\"") >= 10, "nodes of two graphs");

    // Each kernel leads to the instructions that it computes, and says how it is tiled and why.
    for kernel in compilation["kernels"].as_array().expect("kernels") {
        let samples = kernel["name"].as_str().is_some_and(|name| name.starts_with("sample"));
        assert_eq!(len(&kernel["ops"]) == 0, samples, "{}", kernel["name"]);
    }
    let clicked = dir.path().join("clicked.html");
    let script = "<script>
        document.querySelectorAll('#kernel-table .toggle').forEach((button) => button.click());
        [...document.querySelectorAll('.detail button.chip')]
            .find((chip) => chip.textContent.includes('gemm')).click();
    </script>";
    let text = fs::read_to_string(&page).expect("the page");
    fs::write(&clicked, text + script).expect("it is written");
    let drawn = dom(&chromium, &clicked, &dir);
    drawn.has_no_error();
    assert!(drawn.count("runner-up") > 0);
    assert_eq!(drawn.count("node picked"), 1);
    assert!(drawn.count(">kernels<") > 0, "the instruction leads back");

    // The same artifact without its compilation: what follows from the file alone.
    let page = dir.path().join("inspect.html");
    output(Command::new(WAVELOOM_RUN).arg("inspect").arg(&artifact).arg("--html").arg(&page));
    let inspected = draw(&chromium, &page, &dir);
    inspected.has_no_error();
    assert_eq!(inspected.count("class=\"mark buffer\""), buffers);
    assert_eq!(inspected.count("class=\"graph\""), 0);
    assert!(inspected.report.get("compilation").is_none());
    let json = output(Command::new(WAVELOOM).arg("inspect").arg(&artifact).arg("--json"));
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json, inspected.report);
}

/// A target without a description of its hardware has no roofline, and says so.
#[test]
fn a_report_of_a_cpu_makes_no_predictions() {
    let Some(chromium) = chromium() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (_, page) = reported(&dir, "cpu-v3");
    let drawn = draw(&chromium, &page, &dir);
    drawn.has_no_error();
    assert_eq!(drawn.count("class=\"mark kernel\""), 0);
    assert_eq!(drawn.count("The plan does not describe the hardware of cpu-v3"), 1);
    assert_eq!(drawn.count("predicted"), 0);
}

/// Where the page cannot be written, that is said before anything is compiled, and nothing is left.
#[test]
fn a_page_that_cannot_be_written_is_an_error_before_the_work() {
    let dir = tempfile::tempdir().expect("a directory");
    let artifact = dir.path().join("model.wlm");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    let mut command = Command::new(WAVELOOM);
    command.arg("compile").arg(model).arg("-o").arg(&artifact);
    let failed = command.args(["--report", "/nowhere/report.html"]).output().expect("it starts");
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr);
    let expected = "error: cannot write `/nowhere/report.html`: No such file or directory";
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(fs::read_dir(dir.path()).expect("it lists").count(), 0);
}
