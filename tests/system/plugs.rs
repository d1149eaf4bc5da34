//! What tests of attachments share: a web server in a container, its interface, a look inside, a message as a snapshot.

use std::time::Duration;

use fanli::value::Value;

use crate::docker_hosts::Host;
use crate::drive::{Task, task};

/// A container with a web server that says which of two images it has: `one`.
pub fn web(name: &str) -> Task {
    let command = ["httpd", "-f", "-h", "/www"].map(Value::from).to_vec();
    task(
        "container",
        [
            ("name", Value::from(name)),
            ("image", Value::from("fanli/example:1")),
            ("command", Value::List(command)),
            ("stop_timeout", Value::Duration(Duration::ZERO)),
        ],
    )
}

/// Its interface on the hosts' network; `more` goes before what stands here.
pub fn attach(container: &str, address: &str, more: &[(&str, Value)]) -> Task {
    let base = [
        ("network", Value::from("lan")),
        ("container", Value::from(container)),
        ("parent", Value::from("eth0")),
        ("subnet", Value::Net("10.99.0.0/24".parse().unwrap())),
        ("address", ip(address)),
    ];
    with(&task("attach", base), more)
}

/// The same task with other arguments.
pub fn with(task: &Task, more: &[(&str, Value)]) -> Task {
    let mut task = task.clone();
    task.args.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    task
}

pub fn ip(text: &str) -> Value {
    Value::Ip(text.parse().unwrap())
}

/// The number of a container's process.
pub fn pid(host: &Host, container: &str) -> String {
    host.must(&format!("docker inspect -f '{{{{.State.Pid}}}}' {container}"))
}

/// Runs a script in the container's network, with the host's programs.
pub fn inside(host: &Host, container: &str, script: &str) -> String {
    host.must(&format!("nsenter -t {} -n sh -ec '{script}'", pid(host, container)))
}

/// Holds a message to its snapshot.
pub fn compare(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
