//! The example of every kind: it parses, it is written as `fanli fmt` writes it, and it names its own kind.

use fanli::resource::kinds::schemas;
use fanli::syntax;

#[test]
fn every_example_is_a_formatted_task_of_its_kind() {
    let mut wrong = Vec::new();
    for schema in schemas() {
        let text = format!("{}\n", schema.example.trim_end());
        let (ast, errors) = syntax::parse(0, &text);
        let formatted = syntax::format(&ast);
        if !errors.is_empty() {
            wrong.push(format!("{} does not parse: {errors:?}", schema.name));
        } else if formatted != text {
            wrong.push(format!("{} should be written\n{formatted}", schema.name));
        }
        if !text.lines().any(|line| line.trim_start().starts_with(schema.name)) {
            wrong.push(format!("{} does not show itself", schema.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `fanli doc` shows is right as it stands, in a play of a host, beside what it says that it presumes.
#[test]
fn every_example_passes_a_check() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("templates")).unwrap();
    std::fs::write(folder.path().join("templates/example.conf"), "a line\n").unwrap();
    let mut wrong = Vec::new();
    for schema in schemas() {
        let path = folder.path().join(format!("{}.fp", schema.name));
        let text = format!(
            "hosts web {{ host \"localhost\" {{ connection = local }} }}\n\
             network \"example-lan\" {{ mode = macvlan  parent = \"eth0\"  subnet = 10.77.9.0/24 }}\n\
             play \"example\" on hosts.web {{\n{}\n}}\n",
            schema.example
        );
        std::fs::write(&path, text).unwrap();
        let done = std::process::Command::new(crate::common::fanli()).arg("check").arg(&path).output().unwrap();
        if !done.status.success() {
            wrong.push(String::from_utf8(done.stderr).unwrap());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Shipped playbooks are written as `fanli fmt` writes them, and are right for every environment beside them.
#[test]
fn every_shipped_playbook_is_formatted_and_checked_for_each_environment() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |folder: &str| {
        let found = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        found.filter(|path| path.extension().is_some_and(|end| end == "fp")).collect::<Vec<_>>()
    };
    let fanli = |args: &[&str]| {
        let done = std::process::Command::new(crate::common::fanli()).args(args).current_dir(root).output().unwrap();
        let text = [done.stdout, done.stderr].concat();
        assert!(done.status.success(), "fanli {args:?}: {}", String::from_utf8_lossy(&text));
    };
    let (playbooks, environments) = (files("playbooks"), files("playbooks/env"));
    assert!(!playbooks.is_empty() && environments.len() >= 2);
    for file in playbooks.iter().chain(&environments) {
        fanli(&["fmt", "--check", file.to_str().unwrap()]);
    }
    for playbook in &playbooks {
        for environment in &environments {
            let env = environment.file_stem().unwrap().to_str().unwrap();
            fanli(&["check", playbook.to_str().unwrap(), "--env", env]);
        }
    }
}
