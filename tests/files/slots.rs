//! What a generation may hold.

use fanli::resource::rollout::{MOST_FILE, MOST_FILES};
use fanli::value::{Blob, Digest, Map, Value};

use crate::common::{build, refused};

fn slot(files: &[(&str, Value)]) -> Map {
    let files = files.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect();
    crate::args! { "path" => "/srv/fanli-example", "generation" => "0123456789ab", "files" => Value::Map(files) }
}

#[test]
fn what_a_generation_may_not_hold() {
    let text = || Value::from("x");
    let big = |len: u64| Value::Blob(Blob { digest: Digest::of(b""), len });
    let names = ["", "/etc/passwd", "../x", "a/../x", "a//b", "./a", "a/", "a\nb"];
    let mut said: Vec<String> = names.iter().map(|name| refused("slot", slot(&[(name, text())]))).collect();
    let mut not = |files: &[(&str, Value)]| said.push(refused("slot", slot(files)));
    not(&[]);
    not(&[("a", text()), ("a.b", text()), ("a/b", text())]);
    not(&[("a", Value::Int(1))]);
    not(&[(&"a".repeat(256), text())]);
    not(&[(&["a"; 40].join("/"), text())]);
    not(&[("a", big(MOST_FILE + 1))]);
    let paths: Vec<String> = (0..=MOST_FILES).map(|number| number.to_string()).collect();
    let all = |value: &Value, count: usize| -> Vec<(&str, Value)> {
        paths.iter().take(count).map(|path| (path.as_str(), value.clone())).collect()
    };
    not(&all(&big(MOST_FILE), 17));
    not(&all(&text(), MOST_FILES + 1));
    for (field, value) in [
        ("generation", Value::from("0123456789AB")),
        ("path", Value::from("/")),
        ("keep", Value::Int(0)),
        ("modes", Value::Map(crate::args! { "b" => Value::Mode(0o600) })),
        ("modes", Value::Map(crate::args! { "a" => 600i64 })),
    ] {
        let mut args = slot(&[("a", text())]);
        args.insert(field.to_owned(), value);
        said.push(refused("slot", args));
    }
    insta::assert_snapshot!(said.join("\n"));
    build("slot", slot(&[("a", text()), ("b/a", text()), ("b.conf", text()), ("generation", text())]));
    build("slot", slot(&all(&big(MOST_FILE), 16)));
}
