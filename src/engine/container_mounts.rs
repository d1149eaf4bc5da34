//! What a run learns of the directories that containers mount writable: no link in one of them is followed.

use std::time::Duration;

use crate::failure::Failure;
use crate::plan::{Arg, Stage, Step};
use crate::resource::container::writable_sources;
use crate::system::Probe;

/// How long Docker may take to list its containers at the beginning of a stage: limit `docker list`.
const LIST: Duration = Duration::from_secs(20);

/// Those that the plan declares, before their containers are made.
pub(super) fn declared(stages: &[Stage]) -> Vec<String> {
    let targets = stages.iter().flat_map(|stage| &stage.targets);
    let steps = targets.flat_map(|target| {
        target.steps.iter().chain(target.handlers.iter().flat_map(|handler: &crate::plan::Handler| &handler.steps))
    });
    let mounts = |step: &Step| match step.args.get("mounts") {
        Some(Arg::Ready(mounts)) if step.kind == "container" => writable_sources(mounts),
        _ => Vec::new(),
    };
    steps.flat_map(mounts).collect()
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::Target;
    use crate::plan::{Handler, TargetPlan};
    use crate::value::{Arrow, Value};

    fn container(mounts: &[(&str, &str)]) -> Step {
        let mount = |(from, flag): &(&str, &str)| {
            let flags = if flag.is_empty() { Vec::new() } else { vec![(*flag).to_owned()] };
            Value::Arrow(Box::new(Arrow { from: (*from).to_owned(), to: "/x".to_owned(), flags }))
        };
        Step {
            id: 0,
            kind: "container".to_owned(),
            title: Arg::Ready(Value::from("c")),
            args: BTreeMap::from([("mounts".to_owned(), Arg::Ready(Value::List(mounts.iter().map(mount).collect())))]),
            when: Vec::new(),
            notify: Vec::new(),
            register: None,
            limit: None,
            ignore_failure: false,
            followers: 0,
            in_rollout: false,
            at: String::new(),
        }
    }

    #[test]
    fn every_writable_mount_of_the_plan_is_known_before_its_first_step() {
        let other = Step { kind: "mount".to_owned(), ..container(&[("/srv/other", "")]) };
        let steps = vec![container(&[("/srv/logs", ""), ("/srv/conf", "read_only")]), other];
        let handlers = vec![Handler {
            name: "again".to_owned(),
            steps: vec![container(&[("/srv/more", "slave")])],
            left_out: false,
        }];
        let target = Target { host: "h".to_owned(), node: None };
        let targets = vec![TargetPlan { target, steps, handlers }];
        let stage = Stage { number: 0, play: 0, title: String::new(), batch: None, rescue: false, targets };
        assert_eq!(declared(&[stage]), ["/srv/logs", "/srv/more"]);
    }
}
