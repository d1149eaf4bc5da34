//! What the kinds that deal with a container's supervisor share.

use std::time::Duration;

use crate::failure::Failure;
use crate::resource::ArgError;
use crate::system::Probe;
use crate::system::docker::{Container, Docker, container_name};
use crate::system::supervisor::{Process, ProcessState};
use crate::value::{Map, Value};

/// A container that must be there and run.
pub(super) async fn running(name: &str, docker: &Docker) -> Result<Container, Failure> {
    let Some(found) = docker.container(name).await? else {
        return Err(Failure::new(format!("there is no container {name} on this host"))
            .hint("declare it with a `container` task before this one"));
    };
    if found.status != "running" {
        return Err(Failure::new(format!("container {name} does not run: it is {}", found.status))
            .hint("declare it with `state = running` before this task"));
    }
    Ok(found)
}

/// As [`running`], with the daemon.
pub(super) async fn look(name: &str, probe: &Probe) -> Result<(Docker, Container), Failure> {
    let docker = probe.docker()?;
    let found = running(name, &docker).await?;
    Ok((docker, found))
}

/// The rules for a container and a program in it.
pub(super) fn check(container: &str, program: Option<(&str, &str)>) -> Result<(), ArgError> {
    container_name(container).map_err(|message| ArgError::new("container", message))?;
    if let Some((field, name)) = program
        && (name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || "*[]".contains(c)))
    {
        let message = format!("`{name}` is not a program of supervisor: write `apache2`, or `group:name`");
        return Err(ArgError::new(field, message));
    }
    Ok(())
}

/// A limit that is one.
pub(super) fn check_limit(field: &str, limit: Duration) -> Result<(), ArgError> {
    if limit.is_zero() { Err(ArgError::new(field, "must be longer than nothing: `30s`")) } else { Ok(()) }
}

/// What several processes are at together, in one word: the worst of it.
pub(super) fn together(processes: &[Process]) -> &'static str {
    use ProcessState::{Backoff, Exited, Fatal, Running, Starting, Stopped, Stopping, Unknown};
    let worst = [Unknown, Fatal, Exited, Backoff, Stopping, Starting, Stopped, Running];
    let found = worst.into_iter().find(|state| processes.iter().any(|process| process.state == *state));
    found.unwrap_or(Unknown).show()
}

/// State and process number for later steps; the number is null unless there is exactly one.
pub(super) fn output(processes: &[Process]) -> Map {
    let pid = match processes {
        [one] => one.pid.map_or(Value::Null, Value::from),
        _ => Value::Null,
    };
    Map::from([("state".to_owned(), Value::from(together(processes))), ("pid".to_owned(), pid)])
}
