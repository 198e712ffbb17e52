//! The report of the toy plan.

use super::*;
use waveloom_plan::toy;

/// The report of an artifact that has the toy plan only.
fn report() -> Report {
    Report {
        version: VERSION,
        file: "toy.wlm".into(),
        file_bytes: 4096,
        digest: String::new(),
        format: 1,
        compiler: "waveloom 0.1.0".into(),
        model: "toy </script>".into(),
        targets: vec![Target::new(toy::plan()).unwrap()],
        sections: vec![Section { name: "plan.cpu".into(), offset: 1024, bytes: 700 }],
        compilation: None,
    }
}

/// All but the plan itself, whose form `waveloom_plan` tests.
#[test]
fn json_of_the_toy_plan() {
    let mut json = serde_json::to_value(report()).unwrap();
    let plan = json["targets"][0]["plan"].take();
    assert_eq!(plan, serde_json::to_value(toy::plan()).unwrap());
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap());
}

/// What a browser finds in the page's data element is the report.
#[test]
fn the_page_carries_the_report() {
    let page = page::page(&report()).unwrap();
    let (_, data) = page.split_once("<script type=\"application/json\" id=\"report\">").unwrap();
    let (data, rest) = data.split_once("</script>").unwrap();
    let found: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(found, serde_json::to_value(report()).unwrap());
    assert!(page.contains("<title>toy &lt;/script&gt; · Waveloom</title>"));
    assert!(rest.trim_end().ends_with("</html>"));
    for foreign in ["http://", "https://", "src=", "@import", "url("] {
        let own = foreign == "http://";
        let uses = page.matches(foreign).count();
        // The name of SVG's namespace is no address.
        assert_eq!(uses, usize::from(own), "{foreign}");
    }
}

#[test]
fn a_report_that_cannot_be_written_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    std::fs::create_dir(&path).unwrap();
    let file = crate::output::PendingFile::create(&path).unwrap();
    let failed = page::write(&report(), file, &path);
    let Err(Failure::Error { message, .. }) = failed else { panic!("a directory is in the way") };
    assert!(message.starts_with(&format!("cannot write `{}`", path.display())), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let path = folder.path().join("report.json");
    let file = crate::output::PendingFile::create(&path).unwrap();
    page::write(&report(), file, &path).unwrap();
    let written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written["version"], VERSION);
}
