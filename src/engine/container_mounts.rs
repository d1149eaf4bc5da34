//! What a run learns of links before its first step: what containers mount writable, where none is followed, and which links
//! the playbook declares, which are.

use std::time::Duration;

use crate::failure::Failure;
use crate::plan::{Arg, Stage, Step, TargetPlan};
use crate::resource::container::writable_sources;
use crate::system::Probe;

/// How long Docker may take to list its containers at the beginning of a stage: limit `docker list`.
const LIST: Duration = Duration::from_secs(20);

fn steps(stages: &[Stage]) -> impl Iterator<Item = &Step> {
    stages.iter().flat_map(|stage| &stage.targets).flat_map(TargetPlan::all_steps)
}

/// The links that the plan declares, each with what it points to.
pub(super) fn links(stages: &[Stage]) -> Vec<(String, String)> {
    let text = |step: &Step, name: &str| match step.args.get(name) {
        Some(Arg::Ready(value)) => value.as_str().map(str::to_owned),
        _ => None,
    };
    let links = steps(stages).filter(|step| step.kind == "link");
    links.filter_map(|step| Some((text(step, "path")?, text(step, "to")?))).collect()
}

/// The directories that the plan's containers mount writable, before they are made.
pub(super) fn declared(stages: &[Stage]) -> Vec<String> {
    let mounts = |step: &Step| match step.args.get("mounts") {
        Some(Arg::Ready(mounts)) if step.kind == "container" => writable_sources(mounts),
        _ => Vec::new(),
    };
    steps(stages).flat_map(mounts).collect()
}

/// Those of the containers that Docker has.
///
/// # Errors
/// The daemon is there and does not answer in time.
pub(super) async fn learn(probe: &Probe) -> Result<(), Failure> {
    match tokio::time::timeout(LIST, probe.learn_container_mounts()).await {
        Ok(learnt) => learnt,
        Err(_) => Err(Failure::timeout("docker list", LIST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Target;
    use crate::plan::Handler;
    use crate::value::{Arrow, Value};

    fn container(mounts: &[(&str, &str)]) -> Step {
        let mount = |(from, flag): &(&str, &str)| {
            let flags = if flag.is_empty() { Vec::new() } else { vec![(*flag).to_owned()] };
            Value::Arrow(Box::new(Arrow { from: (*from).to_owned(), to: "/x".to_owned(), flags }))
        };
        let mounts = Value::List(mounts.iter().map(mount).collect());
        Step::new("container", Value::from("c"), [("mounts".to_owned(), mounts)])
    }

    #[test]
    fn writable_mounts_and_links_of_the_plan_are_known_before_its_first_step() {
        let other = Step { kind: "mount".to_owned(), ..container(&[("/srv/other", "")]) };
        let args =
            [("path", "/srv/now"), ("to", "releases/7")].map(|(name, text)| (name.to_owned(), Value::from(text)));
        let link = Step::new("link", Value::from("/srv/now"), args);
        let steps = vec![container(&[("/srv/logs", ""), ("/srv/conf", "read_only")]), other, link];
        let handlers = vec![Handler {
            name: "again".to_owned(),
            steps: vec![container(&[("/srv/more", "slave")])],
            left_out: false,
        }];
        let target = Target { host: "h".to_owned(), node: None };
        let targets = vec![TargetPlan { target, steps, handlers }];
        let stage = Stage { number: 0, play: 0, title: String::new(), batch: None, rescue: false, targets };
        let stages = [stage];
        assert_eq!(declared(&stages), ["/srv/logs", "/srv/more"]);
        assert_eq!(links(&stages), [("/srv/now".to_owned(), "releases/7".to_owned())]);
    }
}
