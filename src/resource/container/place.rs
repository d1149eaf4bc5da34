//! The place of a container: a new one is made beside the old one, and then takes it.

use std::time::Duration;

use super::spec::refused_source;
use crate::failure::Failure;
use crate::system::Actuator;
use crate::system::container_body::Request;
use crate::system::docker::{Container as Found, DockerHands};

/// Names of containers that only a run that was killed in the middle leaves behind: the new one and the old one.
pub(in crate::resource) fn leftovers(name: &str) -> [String; 2] {
    [format!("{name}.fanli-new"), format!("{name}.fanli-old")]
}

/// Where a container stands.
pub(in crate::resource) struct Place<'a> {
    /// Its name.
    pub(in crate::resource) name: &'a str,
    /// Whether the new one is started.
    pub(in crate::resource) run: bool,
    /// How long the old one may take to stop.
    pub(in crate::resource) grace: Duration,
}

impl Place<'_> {
    /// What the old container is called until it is removed.
    pub(in crate::resource) fn old_name(&self) -> String {
        let [_, old_name] = leftovers(self.name);
        old_name
    }

    /// Makes the new container beside the old one, then lets it take its place: what Docker refuses leaves the old one running. The
    /// old one is stopped then, under its other name; removing it is the caller's.
    pub(in crate::resource) async fn take(
        &self,
        old: Option<&Found>,
        body: Request,
        docker: &DockerHands,
        hands: &Actuator,
    ) -> Result<(), Failure> {
        let [new_name, old_name] = leftovers(self.name);
        docker.remove(&new_name).await?;
        docker.create(&new_name, body).await?;
        if let Some(old) = old {
            hands.progress(&format!("stopping {}", self.name), None);
            docker.stop(&old.id, self.grace).await?;
            docker.rename(&old.id, &old_name).await?;
        }
        docker.rename(&new_name, self.name).await?;
        if !self.run {
            return Ok(());
        }
        let Err(failure) = docker.start(self.name).await else { return Ok(()) };
        docker.remove(self.name).await?;
        let Some(old) = old else { return Err(failure) };
        docker.rename(&old.id, self.name).await?;
        if old.status == "running" {
            docker.start(&old.id).await?;
        }
        Err(failure.because("the container as it was before has been put back; what was attached to it is not"))
    }
}

/// The real place of a directory that is to be mounted: Docker gets what was looked at, not a link that somebody may turn in between.
pub(in crate::resource) async fn source(path: &str, hands: &Actuator) -> Result<String, Failure> {
    let real = hands.bind_source(path).await?;
    refused_source(&real).map_err(|message| Failure::new(message).within(format!("cannot mount {path}")))?;
    Ok(real)
}

/// Refuses a container that was started and runs no more, with what it said: it may be replaced before somebody can look.
pub(in crate::resource) async fn stays_up(found: &Found, docker: &DockerHands) -> Result<(), Failure> {
    if found.status == "running" {
        return Ok(());
    }
    let (code, error) = &found.exit;
    let mut failure = Failure::new(format!("container {} did not stay up: {}", found.name, found.status))
        .because(format!("exit code {code}"));
    if !error.is_empty() {
        failure = failure.because(error);
    }
    match docker.last_said(&found.id).await {
        Ok(said) if !said.is_empty() => failure = failure.because(format!("it said last:\n{said}")),
        _ => failure = failure.hint(format!("see `docker logs {}`", found.name)),
    }
    Err(failure)
}
