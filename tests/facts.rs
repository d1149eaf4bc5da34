//! Wrong names of facts are found before any host is asked.

use fanli::diagnostic::render;
use fanli::plan::{load, make};
use fanli::source::Sources;

/// What planning says of a play with that condition; empty when it is fine.
fn errors(condition: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let playbook = folder.path().join("play.fp");
    let text = format!(
        "hosts here {{\n  host \"here\" {{ connection = local }}\n}}\nplay \"facts\" on hosts.here {{\n  \
         link \"/x\" {{ to = \"y\"  when = {condition} }}\n}}\n"
    );
    std::fs::write(&playbook, text).unwrap();
    let request = crate::common::request(playbook);
    let mut sources = Sources::default();
    let (playbook, errors) = load(&request, &mut sources);
    make(&playbook, errors, &request, &mut sources, &mut fanli::book::View::new("tests"))
        .err()
        .map_or_else(String::new, |errors| render(&errors, &sources))
}

#[test]
fn names_are_checked() {
    for good in
        ["facts.os.id == \"debian\"", "facts.cpus > 1", "facts.interfaces.eth0.up", "facts.default_address != null"]
    {
        assert_eq!(errors(good), "", "{good}");
    }
    for (bad, message, help) in [
        ("facts.hostnam == \"a\"", "`facts` has no `hostnam`", "did you mean `hostname`?"),
        ("facts.os.idd == \"a\"", "`facts.os` has no `idd`", "did you mean `id`?"),
        ("facts.zzz == 1", "`facts` has no `zzz`", "it has hostname, os, kernel"),
    ] {
        let said = errors(bad);
        assert!(said.contains(message) && said.contains(help), "{said}");
    }
}
