//! `former`: what a container was before a rollout changed it, and the way back to that.
//!
//! It stands around the tasks of a rollout's `change`, which know nothing of it: written down before them, brought back after them, or
//! confirmed. So whatever makes a container anew goes back in the same way.

mod record;

use std::time::Duration;

pub use record::{ChangePhase, FormerRecord, NamedFormer, former_records};

use self::record::{Made, one_at_a_time};
use super::halt::refuse_halted;
use super::{check_keep, check_rollout, now};
use crate::change::{Change, Datum, State};
use crate::failure::Failure;
use crate::resource::container::{
    ContainerPlace, aside, mount_source, remove_unfinished, restart_before, short_id, stays_up,
};
use crate::resource::{ArgError, Observed, Resource};
use crate::system::container_body::Request;
use crate::system::docker::{Container, Docker, DockerHands, SPEC_LABEL, container_name};
use crate::system::snapshot::{Identity, Snapshot};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

crate::choice! {
    /// What is to be so of a container's earlier self.
    pub enum FormerState {
        /// It is written down.
        Kept = "kept",
        /// It is not needed any more, but by a person who undoes the run.
        Confirmed = "confirmed",
        /// It is back.
        Back = "back",
    }
}

crate::kind! {
    /// Keeps in mind what a container was before a rollout changes it, and brings that back.
    ///
    /// `kept` writes down what Docker was asked for when the container was made, and the ID of its image. `back` makes it again like that,
    /// from the very same image; a container that this rollout did not change, or that is back already, is left alone, and one that
    /// was not there before goes. What a container had written into its own file system, and not into a mount, does not come back. An
    /// interface is plugged in again by an `attach` after it.
    ///
    /// A rollout puts it around the tasks of `change`. A container that fanli did not make is refused, and so is one that another
    /// rollout has not finished with; `kept` also while the host is halted.
    pub struct Former = "former" {
        /// The container.
        container: String,
        /// The title of the rollout.
        rollout: String,
        /// What is to be so.
        state: FormerState,
        /// With `confirmed`: the run that says so.
        run: Option<String>,
        /// With `back`: a run whose confirmed change goes, too. Where the container is not what that run brought, it is left alone.
        undo: Option<String>,
        /// How many confirmed changes can be undone, one after the other.
        keep: i64 = 5,
    }
    results {
        "running": "whether the container runs",
        "image_id": "the ID of the image that it was made from, or null",
    }
    example r#"former "fanli-example" { rollout = "example"  state = kept }"#
}

/// What fields say when there is nothing to do.
const KEPT: &str = "written down";
const CONFIRMED: &str = "confirmed";
const AS_BEFORE: &str = "as before";

/// `team/web:2 (0123456789ab)`
fn shown(identity: &Identity) -> String {
    format!("{} ({})", identity.image(), short_id(&identity.image_id))
}

/// How a container ended that does not run, or that the daemon starts again and again, with the last lines that it printed.
async fn ended(found: &Container, docker: &Docker) -> String {
    let end = match (found.status.as_str(), found.restarts) {
        ("running", 0) => return String::new(),
        ("running", restarts) => format!("started again {restarts} times"),
        (status, _) => format!("{status} with exit code {}", found.exit.0),
    };
    let said = docker.last_said(&found.id).await.unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    let last: String = lines.get(lines.len().saturating_sub(2)..).unwrap_or_default().join("; ");
    let last: String = last.chars().take(300).collect();
    let said = if last.is_empty() { last } else { format!(" (`{last}`)") };
    format!(", {end}{said}")
}

fn identity(found: &Container) -> Identity {
    Identity { image_id: found.image_id.clone(), spec: found.labels.get(SPEC_LABEL).cloned() }
}

/// What is to be undone: what was there before, and what the record says then.
struct Undo {
    before: Option<Snapshot>,
    after: FormerRecord,
}

impl Former {
    fn record(&self, probe: &Probe) -> Result<Option<FormerRecord>, Failure> {
        FormerRecord::read(probe, &self.container)
    }

    /// Its own unfinished change.
    fn open(&self, probe: &Probe) -> Result<Option<FormerRecord>, Failure> {
        Ok(self.record(probe)?.filter(|record| record.is_open() && record.rollout == self.rollout))
    }

    /// The container; one that a run was replacing when it was killed has another name.
    async fn found(&self, docker: &Docker, probe: &Probe) -> Result<Option<Container>, Failure> {
        if let Some(found) = docker.container(&self.container).await? {
            return Ok(Some(found));
        }
        aside(&self.container, docker, probe).await
    }

    /// Why it must not be changed.
    fn refuse(&self, found: Option<&Container>, probe: &Probe) -> Result<(), Failure> {
        let name = &self.container;
        if let Some(record) = self.record(probe)?.filter(|record| record.is_open() && record.rollout != self.rollout) {
            return Err(Failure::new(format!("container {name} is held by the rollout `{}`", record.rollout))
                .because("that changed it, and has neither confirmed that nor put it back")
                .hint("run that one to its end, or put it back with `fanli rollout rollback`")
                .fact("rollout", &record.rollout));
        }
        if found.is_some_and(|found| !found.labels.contains_key(SPEC_LABEL)) {
            return Err(Failure::new(format!(
                "container {name} was not made by fanli: a rollout could not put it back"
            ))
            .hint("take it over with a play first: `container … { adopt = true }`"));
        }
        refuse_halted(probe, &format!("container {name} is not changed"))
    }

    /// What there is to put back.
    async fn undo(&self, docker: &Docker, probe: &Probe) -> Result<Option<Undo>, Failure> {
        let Some(record) = self.record(probe)?.filter(|record| record.rollout == self.rollout) else { return Ok(None) };
        let back = FormerRecord { phase: ChangePhase::Back, before: None, changed: now(), ..record.clone() };
        if record.is_open() {
            return Ok(Some(Undo { before: record.before, after: back }));
        }
        let Some((last, earlier)) = record.made.split_last() else { return Ok(None) };
        if self.undo.as_ref() != Some(&last.run) {
            return Ok(None);
        }
        // Half-way back it is neither: the one that a killed run had moved aside tells.
        let found = self.found(docker, probe).await?;
        let is_there = found.is_some_and(|found| [&last.brought, &last.before.identity].contains(&&identity(&found)));
        let after = FormerRecord { made: earlier.to_vec(), ..back };
        Ok(is_there.then(|| Undo { before: Some(last.before.clone()), after }))
    }

    async fn keep(&self, hands: &Actuator) -> Result<(), Failure> {
        let docker = hands.docker()?;
        let found = self.found(&docker, hands).await?;
        self.refuse(found.as_ref(), hands)?;
        // What is not confirmed is nothing to go back to.
        if self.open(hands)?.is_some() {
            return Ok(());
        }
        let mut before = match &found {
            Some(found) => docker.snapshot(&found.id).await?,
            None => None,
        };
        // One that was moved aside was stopped for that, and Docker was told not to start it.
        if let Some(before) = before.as_mut().filter(|_| found.is_some_and(|found| found.name != self.container)) {
            before.running = true;
            if let Some(policy) = restart_before(&self.container, hands)? {
                before.set_restart(&policy);
            }
        }
        let made = self.record(hands)?.map_or_else(Vec::new, |record| record.made);
        let (container, rollout, said) = (self.container.clone(), self.rollout.clone(), String::new());
        FormerRecord { container, rollout, phase: ChangePhase::Changing, before, made, said, changed: now() }
            .write(hands)
    }

    async fn confirm(&self, hands: &Actuator) -> Result<(), Failure> {
        let Some(mut record) = self.open(hands)? else { return Ok(()) };
        let found = hands.docker()?.container(&self.container).await?;
        let before = record.before.take();
        if let (Some(before), Some(brought)) = (before, found.as_ref().map(identity))
            && before.identity != brought
        {
            record.made.push(Made { run: self.run.clone().unwrap_or_default(), brought, before });
        }
        let keep = usize::try_from(self.keep).unwrap_or(usize::MAX);
        record.made.drain(..record.made.len().saturating_sub(keep));
        FormerRecord { phase: ChangePhase::Confirmed, changed: now(), ..record }.write(hands)
    }

    async fn back(&self, hands: &Actuator) -> Result<(), Failure> {
        let docker = hands.docker_hands()?;
        let Some(mut undo) = self.undo(&docker, hands).await? else { return Ok(()) };
        if self.open(hands)?.is_some()
            && let Some(found) = docker.container(&self.container).await?
        {
            undo.after.said = docker.last_said(&found.id).await.unwrap_or_default();
        }
        match &undo.before {
            Some(before) => self.make_again(before, &docker, hands).await?,
            None => {
                let place = ContainerPlace { name: &self.container, run: false, grace: Duration::from_secs(10) };
                if let Some(found) = docker.container(&self.container).await? {
                    place.remove(&found, &[], &docker).await?;
                }
                place.let_go(&[], &docker, hands).await?;
            }
        }
        remove_unfinished(&self.container, &docker).await?;
        undo.after.write(hands)
    }

    async fn make_again(&self, before: &Snapshot, docker: &DockerHands, hands: &Actuator) -> Result<(), Failure> {
        let name = &self.container;
        let place = ContainerPlace { name, run: before.running, grace: Duration::from_secs(before.stop_timeout) };
        let kept = aside(name, docker, hands).await?;
        let mut runs_again = false;
        if kept.as_ref().map(identity).as_ref() == Some(&before.identity) {
            // The very one that was there before, with its files.
            runs_again = place.bring_back(docker, hands).await? == Some(true);
        }
        let found = place.reclaim(docker, hands).await?;
        if found.as_ref().map(identity).as_ref() == Some(&before.identity) {
            if before.running && !runs_again {
                // Docker may still be stopping it for a run that was killed: it would run now, and not a second later.
                docker.stop(name, place.grace).await?;
                docker.start(name).await?;
            }
        } else {
            if docker.image(&before.identity.image_id).await?.is_none() {
                let image = shown(&before.identity);
                return Err(Failure::new(format!("container {name} cannot be put back: its earlier image {image} is gone from this host"))
                    .because("it is as the rollout left it")
                    .hint("bring that image back (`docker load`) and run `fanli rollout rollback`, or declare one that works and roll out"));
            }
            let mut request = before.request()?;
            check_mounts(&mut request, hands).await?;
            place.let_go(&[], docker, hands).await?;
            if let Err(failure) = place.take(found.as_ref(), request, docker, hands).await {
                return Err(match place.bring_back(docker, hands).await {
                    Ok(_) => failure.because("it is as the rollout left it; what was attached to it may not be"),
                    Err(wrong) => failure.because(wrong),
                });
            }
        }
        if before.running {
            stays_up(name, docker, hands).await?;
        }
        place.let_go(&[], docker, hands).await
    }
}

/// Somebody may have put a link in the place of a directory since the container was made.
async fn check_mounts(request: &mut Request, hands: &Actuator) -> Result<(), Failure> {
    for mount in request.host_config.iter_mut().flat_map(|host| host.mounts.iter_mut().flatten()) {
        if let Some(from) = mount.source.take() {
            mount.source = Some(mount_source(&from, hands).await?);
        }
    }
    Ok(())
}

impl Resource for Former {
    fn check(&self) -> Result<(), ArgError> {
        container_name(&self.container).map_err(|message| ArgError::new("container", message))?;
        check_rollout(&self.rollout)?;
        check_keep(self.keep)?;
        let only = |field, given: bool, state| {
            let fits = !given || self.state == state;
            let error = || {
                ArgError::new(
                    field,
                    format!("means nothing with `state = {}`", crate::resource::Param::show(&self.state)),
                )
            };
            fits.then_some(()).ok_or_else(error)
        };
        only("run", self.run.is_some(), FormerState::Confirmed)?;
        only("undo", self.undo.is_some(), FormerState::Back)
    }

    fn desired(&self) -> State {
        match self.state {
            FormerState::Kept => State::present([("earlier", KEPT)]),
            FormerState::Confirmed => State::present([("change", CONFIRMED)]),
            FormerState::Back => State::present([("container", AS_BEFORE)]),
        }
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let docker = probe.docker()?;
        let found = self.found(&docker, probe).await?;
        let of = |container: Option<Identity>| container.as_ref().map_or_else(|| "no container".to_owned(), shown);
        let now = of(found.as_ref().map(identity));
        let (field, state): (_, Datum) = match self.state {
            FormerState::Kept => {
                // Also for one that an earlier run has begun with: what is done to it comes behind this.
                self.refuse(found.as_ref(), probe)?;
                let kept = self.open(probe)?.is_some();
                ("earlier", if kept { KEPT.into() } else { format!("{now}, not written down").into() })
            }
            FormerState::Confirmed => match self.open(probe)? {
                None => ("change", CONFIRMED.into()),
                Some(_) => ("change", format!("to {now}, not confirmed").into()),
            },
            FormerState::Back => match self.undo(&docker, probe).await? {
                None => ("container", AS_BEFORE.into()),
                Some(undo) => {
                    let before = of(undo.before.map(|before| before.identity));
                    let end = match &found {
                        Some(found) => ended(found, &docker).await,
                        None => String::new(),
                    };
                    ("container", format!("{now}{end}, before it {before}").into())
                }
            },
        };
        let running = found.as_ref().is_some_and(|found| found.pid.is_some());
        let image = found.map_or(Value::Null, |found| Value::Str(found.image_id));
        let output = Map::from([("running".to_owned(), running.into()), ("image_id".to_owned(), image)]);
        Ok(Observed { state: State::present([(field, state)]), output })
    }

    async fn apply(&self, _change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let _lock = one_at_a_time(hands, &self.container).await?;
        match self.state {
            FormerState::Kept => self.keep(hands).await?,
            FormerState::Confirmed => self.confirm(hands).await?,
            FormerState::Back => self.back(hands).await?,
        }
        Ok(Map::new())
    }
}
