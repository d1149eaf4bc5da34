//! Containers that must not outlive the step that made them.

use bollard::query_parameters::RemoveContainerOptions;

use super::docker::DockerHands;
use super::{Actuator, Probe};
use crate::failure::Failure;

/// Sees to it that a container goes, also when the step is broken off: dropped, it lets the container be removed behind it.
#[must_use]
pub struct Removal {
    docker: Option<DockerHands>,
    name: String,
    probe: Probe,
}

impl Removal {
    /// Removes the container now.
    ///
    /// # Errors
    /// The daemon does not remove it in time.
    pub async fn now(mut self) -> Result<(), Failure> {
        let Some(docker) = &self.docker else { return Ok(()) };
        docker.remove(&self.name).await?;
        self.docker = None;
        Ok(())
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let (Some(docker), Ok(runtime)) = (self.docker.take(), tokio::runtime::Handle::try_current()) else { return };
        let (client, name) = (docker.client.clone(), std::mem::take(&mut self.name));
        self.probe.background.start(move || {
            let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
            let _ = runtime.block_on(client.remove_container(&name, Some(options)));
        });
    }
}

impl Actuator {
    /// Promises that the container of that name, made or not, goes in the end.
    ///
    /// # Errors
    /// As [`Probe::docker`].
    pub fn removal(&self, name: &str) -> Result<Removal, Failure> {
        let docker = Some(self.docker_hands()?);
        Ok(Removal { docker, name: name.to_owned(), probe: (**self).clone() })
    }
}
