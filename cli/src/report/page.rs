//! The report as one page that needs nothing but a browser.
//!
//! The page is a template with markers for title, style, script, and the report as JSON, which the
//! script draws. Nothing is fetched: the page's own security policy forbids it.

use super::Report;
use crate::Failure;
use crate::output::PendingFile;
use std::io::Write;
use std::path::Path;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");

/// The script, in the order in which its parts need each other.
const SCRIPT: [&str; 9] = [
    include_str!("page/base.js"),
    include_str!("page/plan.js"),
    include_str!("page/overview.js"),
    include_str!("page/memory.js"),
    include_str!("page/roofline.js"),
    include_str!("page/kernels.js"),
    include_str!("page/layout.js"),
    include_str!("page/compilation.js"),
    include_str!("page/main.js"),
];

/// Where things go in the template.
const MARKERS: [&str; 4] = ["{{title}}", "{{style}}", "{{data}}", "{{script}}"];

/// Writes the report: as JSON alone where the name ends in `.json`, as a page elsewhere.
pub fn write(report: &Report, file: PendingFile, path: &Path) -> Result<(), Failure> {
    let json = path.extension().is_some_and(|extension| extension == "json");
    let text = match json {
        true => serde_json::to_string_pretty(report)? + "\n",
        false => page(report)?,
    };
    file.finish(|file| file.write_all(text.as_bytes()))
}

/// The page.
pub fn page(report: &Report) -> Result<String, Failure> {
    let title = format!("{} · Waveloom", report.model);
    let parts = [
        escaped_html(&title),
        STYLE.to_string(),
        escaped_json(&serde_json::to_string(report)?),
        SCRIPT.join("\n"),
    ];
    let mut page = String::new();
    let mut rest = TEMPLATE;
    for (marker, part) in MARKERS.iter().zip(&parts) {
        let (before, after) = rest.split_once(marker).unwrap_or((rest, ""));
        page += before;
        page += part;
        rest = after;
    }
    Ok(page + rest)
}

/// JSON that means the same and can stand in a `script` element: no `<` begins an end tag or a
/// comment, and no line separator ends a line of older parsers.
fn escaped_json(json: &str) -> String {
    // In JSON these characters occur in strings only.
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn escaped_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_marker_is_in_the_template_once_and_in_order() {
        let places: Vec<_> = MARKERS.iter().map(|marker| TEMPLATE.find(marker)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
        for marker in MARKERS {
            assert_eq!(TEMPLATE.matches(marker).count(), 1, "{marker}");
        }
    }

    #[test]
    fn json_cannot_end_its_element_and_stays_the_same_json() {
        let text = "</script><!-- <b> \u{2028}\u{2029} \\u003c é \"";
        let json = serde_json::to_string(text).unwrap();
        let escaped = escaped_json(&json);
        assert!(!escaped.contains('<') && !escaped.contains('\u{2028}'), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        assert_eq!(escaped_html("a<b> & c"), "a&lt;b&gt; &amp; c");
    }
}
