//! The place of a container: a new one is made beside the old one, and then takes it.
//!
//! The old one is kept, stopped, until the new one has proven itself, and is put back otherwise. Docker could not run both: they may
//! publish the same port, or have the same address. A kill at any moment leaves one of these: the old one in its place; the old one
//! aside and nothing in its place, which the next run takes back; or a successor in its place that has not proven itself.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::aside::{Note, aside, is_own, moved};
use super::mounts;
use super::spec::refused_source;
use crate::failure::{Failure, FailureKind};
use crate::resource::attach::Earlier;
use crate::system::container_body::Request;
use crate::system::docker::{Container as Found, Docker, DockerHands, SPEC_LABEL};
use crate::system::docker_networks::docker_lan_name;
use crate::system::{Actuator, Probe};

/// How long a container must have been running before it counts as one that stays up. A program that misses a file or refuses a
/// setting has ended by then; what takes longer to fail is for `healthy`.
const MOMENT: Duration = Duration::from_secs(1);
/// How long one must have been running that Docker has started again: Docker itself takes it for a good start then (moby,
/// `restartmanager`).
const GOOD_START: Duration = Duration::from_secs(10);
/// How long before its program a container's process may begin: `runc create` makes it, `runc start` has it become the program.
const CREATED_BEFORE: Duration = Duration::from_millis(300);
/// The pause between two looks at a container that was just started.
const LOOK: Duration = Duration::from_millis(50);

/// Names that a container has only while another takes its place: the new one and the old one.
pub(in crate::resource) fn leftovers(name: &str) -> [String; 2] {
    [format!("{name}.fanli-new"), format!("{name}.fanli-old")]
}

/// Whether a container of that name is among those of the host, also while it is being made anew and has another name for a moment.
pub(in crate::resource) fn is_among(containers: &BTreeSet<String>, name: &str) -> bool {
    containers.contains(name) || leftovers(name).iter().any(|name| containers.contains(name))
}

/// The new container of that name that a killed run has made and not put into its place. Another's that happens to be called so is none.
pub(super) async fn unfinished(name: &str, docker: &Docker) -> Result<Option<Found>, Failure> {
    let [new_name, _] = leftovers(name);
    Ok(docker.container(&new_name).await?.filter(|left| left.labels.contains_key(SPEC_LABEL)))
}

/// Removes it, where there is one.
pub(in crate::resource) async fn remove_unfinished(name: &str, docker: &DockerHands) -> Result<(), Failure> {
    match unfinished(name, docker).await? {
        Some(left) => docker.remove(&left.id).await,
        None => Ok(()),
    }
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
    /// What stands here. An old one that a killed run moved aside, with nothing in its place, is brought back to its name first.
    pub(in crate::resource) async fn reclaim(
        &self,
        docker: &DockerHands,
        hands: &Actuator,
    ) -> Result<Option<Found>, Failure> {
        if let Some(found) = docker.container(self.name).await? {
            return Ok(Some(found));
        }
        let Some(old) = aside(self.name, docker, hands).await? else { return Ok(None) };
        Note::write(&old, self.name, self.run, hands)?.restore_restart(&old, docker).await?;
        docker.rename(&old.id, self.name).await?;
        docker.container(self.name).await
    }

    /// Makes the new container beside the old one, then lets it take its place: what Docker refuses leaves the old one running. The
    /// old one is stopped then and aside: the caller lets it go, or brings it back.
    pub(in crate::resource) async fn take(
        &self,
        old: Option<&Found>,
        body: Request,
        docker: &DockerHands,
        hands: &Actuator,
    ) -> Result<(), Failure> {
        let [new_name, _] = leftovers(self.name);
        let network = body.host_config.as_ref().and_then(|host| host.network_mode.clone());
        self.refuse_strangers(docker, hands).await?;
        docker.remove(&new_name).await?;
        docker.create(&new_name, body).await?;
        if let Some(old) = old {
            hands.progress(&format!("stopping {}", self.name), None);
            if aside(self.name, docker, hands).await?.is_some() {
                // A successor that never proved itself: the one to go back to is the one aside.
                self.remove(old, network.as_slice(), docker).await?;
            } else {
                let runs = !["exited", "created", "dead"].contains(&old.status.as_str());
                Note::write(old, self.name, runs, hands)?;
                docker.stop(&old.id, self.grace).await?;
                moved(old, self.name, docker).await?;
            }
        }
        docker.rename(&new_name, self.name).await?;
        if self.run { start(self.name, docker, hands).await } else { Ok(()) }
    }

    /// Refuses to begin where somebody else's container has a name that is needed for a moment.
    async fn refuse_strangers(&self, docker: &Docker, probe: &Probe) -> Result<(), Failure> {
        for name in leftovers(self.name) {
            if let Some(found) = docker.container(&name).await?
                && !is_own(&found, self.name, probe)?
            {
                return Err(Failure::new(format!("container {name} exists, and fanli did not make it"))
                    .because(format!("{} has that name for a moment while it is made anew", self.name))
                    .hint(format!("remove it, or give it another name: `docker rename {name} …`")));
            }
        }
        Ok(())
    }

    /// Removes the old container, once its successor has proven itself; of Docker's networks that it was on, those `in_use` stay.
    pub(in crate::resource) async fn let_go(
        &self,
        in_use: &[String],
        docker: &DockerHands,
        hands: &Actuator,
    ) -> Result<(), Failure> {
        if let Some(old) = aside(self.name, docker, hands).await? {
            self.remove(&old, in_use, docker).await?;
        }
        Note::forget(self.name, hands)
    }

    /// Brings the old container back to its place, with what was plugged into it; what stands there goes. Returns whether it runs, and
    /// `None` when there is no old one.
    pub(in crate::resource) async fn bring_back(
        &self,
        docker: &DockerHands,
        hands: &Actuator,
    ) -> Result<Option<bool>, Failure> {
        remove_unfinished(self.name, docker).await?;
        let note = Note::read(self.name, hands)?;
        let there = docker.container(self.name).await?;
        let old = match aside(self.name, docker, hands).await? {
            Some(old) => {
                hands.progress(&format!("putting back {}", self.name), None);
                if let Some(new) = &there {
                    let stays: Vec<String> = old.networks.keys().cloned().collect();
                    self.remove(new, &stays, docker).await?;
                }
                docker.rename(&old.id, self.name).await?;
                old
            }
            // It was not moved yet, or is back already.
            None => match there.filter(|there| note.as_ref().is_some_and(|note| note.id == there.id)) {
                Some(old) => old,
                None => return Ok(None),
            },
        };
        let note = note.filter(|note| note.id == old.id);
        if let Some(note) = &note {
            note.restore_restart(&old, docker).await?;
        }
        let runs = note.as_ref().map_or(self.run, |note| note.running);
        if runs {
            start(self.name, docker, hands).await?;
            // Without a note an older fanli moved it: the host's records are all there is.
            let attachments = note.map_or_else(|| Earlier::of(self.name, hands), |note| Ok(note.attachments))?;
            let plugged = Box::pin(attachments.plug(self.name, hands)).await;
            plugged.map_err(|failure| failure.within("it runs, and what was attached to it is not"))?;
        }
        Note::forget(self.name, hands)?;
        Ok(Some(runs))
    }

    /// Stops and removes a container, and the networks of Docker's macvlan driver that fanli made for it alone.
    pub(in crate::resource) async fn remove(
        &self,
        gone: &Found,
        stays: &[String],
        docker: &DockerHands,
    ) -> Result<(), Failure> {
        docker.stop(&gone.id, self.grace).await?;
        let left = |lan: &&String| lan.starts_with(&docker_lan_name("")) && !stays.contains(lan);
        for lan in gone.networks.keys().filter(left) {
            docker.leave_lan(lan, &gone.name).await?;
        }
        docker.remove(&gone.id).await
    }
}

/// Starts a container, and stops it again when it was given other directories than those that were looked at.
pub(super) async fn start(name: &str, docker: &DockerHands, hands: &Actuator) -> Result<(), Failure> {
    docker.start(name).await?;
    let Some(found) = docker.container(name).await? else { return Ok(()) };
    let Some(failure) = mounts::mistaken(&found, hands)? else { return Ok(()) };
    docker.stop(name, Duration::ZERO).await?;
    Err(failure)
}

/// The real place of a directory that is to be mounted: Docker gets what was looked at, not a link that somebody may turn in between.
pub(in crate::resource) async fn source(path: &str, hands: &Actuator) -> Result<String, Failure> {
    let real = hands.bind_source(path).await?;
    refused_source(&real).map_err(|message| Failure::new(message).within(format!("cannot mount {path}")))?;
    Ok(real)
}

/// Whether Docker has started it again a moment ago, after its program had ended by itself.
pub(super) fn comes_and_goes(found: &Found, probe: &Probe) -> bool {
    let age = || found.pid.and_then(|pid| probe.age_of(pid));
    found.restarts > 0 && age().is_none_or(|age| age < GOOD_START)
}

/// Waits until a container that was just started has been running for a moment; one that runs longer is looked at once.
///
/// # Errors
/// It has ended, or Docker has started it again; with what it said, as it may be replaced before anybody can look.
pub(in crate::resource) async fn stays_up(name: &str, docker: &Docker, probe: &Probe) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        // Before Docker is asked: a slow answer is about a moment that has passed.
        let waited = begun.elapsed();
        let Some(found) = docker.container(name).await? else {
            return Err(Failure::new(format!("container {name} went away while it was being started")));
        };
        if let Some(failure) = down(&found, probe) {
            return Err(with_words(failure, &found, docker).await);
        }
        let age = found.pid.and_then(|pid| probe.age_of(pid)).unwrap_or_default().saturating_sub(CREATED_BEFORE);
        let left = MOMENT.saturating_sub(age.max(waited));
        if left.is_zero() {
            return Ok(());
        }
        sleep(left.min(LOOK)).await;
    }
}

/// Why a container that should run does not.
fn down(found: &Found, probe: &Probe) -> Option<Failure> {
    let again = match found.restarts {
        1 => "Docker has started it again once".to_owned(),
        times => format!("Docker has started it again {times} times"),
    };
    let (code, error) = &found.exit;
    if found.status == "running" {
        let failure = || Failure::new(format!("container {} did not stay up", found.name)).because(again);
        return comes_and_goes(found, probe).then(failure);
    }
    let failure = Failure::new(format!("container {} did not stay up: {}", found.name, found.status))
        .because(format!("exit code {code}"));
    let failure = if found.restarts > 0 { failure.because(again) } else { failure };
    Some(if error.is_empty() { failure } else { failure.because(error) })
}

/// Adds what a container said last.
async fn with_words(failure: Failure, found: &Found, docker: &Docker) -> Failure {
    match docker.last_said(&found.id).await {
        Ok(said) if !said.is_empty() => failure.because(format!("it said last:\n{said}")),
        _ => failure,
    }
}

/// Adds to the failure of a step what the container that was declared says of it: how it ended, and its last lines. It may be replaced
/// before anybody can look.
pub(super) async fn with_state(
    failure: Failure,
    name: &str,
    spec: Option<&String>,
    docker: &Docker,
    probe: &Probe,
) -> Failure {
    let told = failure.message.starts_with(&format!("container {name} did not stay up"));
    let Ok(Some(mut found)) = docker.container(name).await else { return failure };
    if told || found.labels.get(SPEC_LABEL) != spec {
        return failure;
    }
    // Docker learns a moment after others that a program has ended.
    let begun = Instant::now();
    while found.status == "running" && begun.elapsed() < MOMENT {
        sleep(LOOK).await;
        let Ok(Some(again)) = docker.container(name).await else { return failure };
        found = again;
    }
    if found.labels.get(SPEC_LABEL) != spec || found.status == "created" {
        return failure;
    }
    let failure = match down(&found, probe) {
        // That it does not run is the difference that is left.
        Some(down) if failure.kind == FailureKind::DidNotConverge => down,
        Some(down) => failure.because(down),
        None => failure,
    };
    with_words(failure, &found, docker).await
}
