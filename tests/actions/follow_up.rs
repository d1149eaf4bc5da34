//! `healthy = command(…)`: what follows a container only waits.

use std::time::Duration;

use fanli::diagnostic::render;
use fanli::plan::{Arg, Step, load, make};
use fanli::source::Sources;
use fanli::value::Value;

/// The steps of a play on this machine, or the rendered errors.
fn steps(tasks: &str) -> Result<Vec<Step>, String> {
    let folder = tempfile::tempdir().unwrap();
    let playbook = folder.path().join("play.fp");
    let text = format!(
        "hosts here {{\n  host \"here\" {{ connection = local }}\n}}\nplay \"p\" on hosts.here {{\n{tasks}\n}}\n"
    );
    std::fs::write(&playbook, text).unwrap();
    let request = crate::common::request(playbook);
    let mut sources = Sources::default();
    let (playbook, errors) = load(&request, &mut sources);
    let (run, _) = make(&playbook, errors, &request, &mut sources, &mut fanli::book::View::new("tests"))
        .map_err(|errors| render(&errors, &sources))?;
    Ok(run.hosts[0].plan.stages[0].targets[0].steps.clone())
}

#[test]
fn a_command_with_within_follows_its_container() {
    let found = steps(
        "container \"db\" {\n  image = \"x:1\"\n  healthy = command([\"docker\", \"exec\", \"db\", \"pg_isready\"], within: 1m)\n}",
    )
    .unwrap();
    let kinds: Vec<&str> = found.iter().map(|step| step.kind.as_str()).collect();
    assert_eq!(kinds, ["container", "command"]);
    assert_eq!(found[1].args["within"], Arg::Ready(Value::Duration(Duration::from_secs(60))));
    assert_eq!(found[1].title, Arg::Ready(Value::from("docker exec db pg_isready")));
}

#[test]
fn a_command_without_within_would_act_and_is_refused() {
    let errors = steps("container \"db\" {\n  image = \"x:1\"\n  healthy = command([\"true\"])\n}").unwrap_err();
    assert!(errors.contains("`healthy` waits, so `command` needs `within` here"), "{errors}");
    assert!(errors.contains("how long to wait for it: `command(…, within: 30s)`"), "{errors}");
    steps("container \"db\" {\n  image = \"x:1\"\n  healthy = http(\"http://10.0.0.1/\")\n}").unwrap();
}
