//! `docs/events.md` names every event and field of the JSON stream, and no other.

use std::collections::{BTreeMap, BTreeSet};

use fanli::report::{Detail, Reporter, Style};
use serde_json::Value;

use super::samples;

/// Field names by section, as the document lists them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = include_str!("../../docs/events.md");
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            title.trim_matches('`').clone_into(&mut section);
        } else if let Some(row) = line.strip_prefix("| `") {
            found.entry(section.clone()).or_default().insert(row.split('`').next().unwrap().to_owned());
        }
    }
    found
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

/// The objects inside of events, by the names of the document.
fn objects(event: &Value, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut note = |name: &str, value: &Value| {
        if value.is_object() {
            found.entry(name.to_owned()).or_default().extend(keys(value));
        }
    };
    for name in ["step", "tally", "change", "failure", "batch"] {
        note(name, &event[name]);
    }
    note("failure", &event["stopped"]);
    for target in ["targets", "failed"].iter().flat_map(|name| event[*name].as_array().into_iter().flatten()) {
        note("target", target);
    }
    for field in event["change"]["fields"].as_array().into_iter().flatten() {
        note("field", field);
    }
}

#[test]
fn the_document_and_the_code_agree() {
    let style = Style { terminal: false, color: false, json: true, detail: Detail::Normal };
    let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut words = BTreeSet::new();
    let (mut common, mut names) = (BTreeSet::from(["host".to_owned()]), BTreeSet::new());
    for event in samples::one_of_each() {
        names.insert(samples::name(&event.kind));
        let line = Reporter::new(style).say(&event).json.unwrap();
        let object: Value = serde_json::from_str(&line).unwrap();
        objects(&object, &mut written);
        for word in [&object["outcome"], &object["verdict"], &object["change"]["verb"], &object["failure"]["kind"]] {
            words.extend(word.as_str().map(str::to_owned));
        }
        let mut fields = keys(&object);
        for name in ["event", "host", "index", "at_ms"] {
            if fields.remove(name) {
                common.insert(name.to_owned());
            }
        }
        assert!(
            written
                .insert(object["event"].as_str().unwrap().to_owned(), fields.clone())
                .is_none_or(|known| known == fields)
        );
    }
    assert_eq!(names.len(), samples::KINDS, "a sample of each event");
    written.insert("Every event".to_owned(), common);
    assert_eq!(written, documented());
    let text = include_str!("../../docs/events.md");
    for word in words {
        assert!(text.contains(&format!("`{word}`")), "`{word}` is not documented");
    }
}
