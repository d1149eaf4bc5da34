//! `directory`: a directory.

use super::mount::dead;
use super::ownership::Ownership;
use super::param::{HostPath, Mode, Owner, Presence};
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Datum, Fields, State, Verb};
use crate::failure::Failure;
use crate::system::fs::{EntryKind, foreign_owner};
use crate::system::{Actuator, Probe};
use crate::value::Map;

crate::kind! {
    /// Keeps a directory with its owner, group and mode.
    ///
    /// Missing parents are made, with mode 0755 and the owner that fanli runs as. What is not declared stays as it is. What
    /// stands inside is not fanli's business, except that an `absent` directory must be empty, or `force` be set.
    ///
    /// Where a file system of a network or of a program (FUSE) is mounted on it, a directory is there, and only with an owner, group or
    /// mode there is something to look at: these are of what is mounted. One that is dead is taken away then, as `mounted` of the
    /// change tells, and a `mount` task behind this one mounts it again.
    ///
    /// In a directory that others can write to, one of another user is a failure unless `owner` is declared, as with `file`.
    pub struct Directory = "directory" {
        /// Where it stands.
        path: HostPath,
        /// Its owner. Not declared: a new directory belongs to whom fanli runs as.
        owner: Option<Owner>,
        /// Its group.
        group: Option<Owner>,
        /// Its permissions. Not declared: a new directory gets 0755.
        mode: Option<Mode>,
        /// Whether it is to be there.
        state: Presence = Presence::Present,
        /// Whether `absent` also removes what is inside. Mount points below it are never removed.
        force: bool = false,
    }
    example r#"directory "/srv/fanli-example/logs" { owner = 501  mode = 0755 }"#
}

/// The field that tells of a dead file system on the directory.
const MOUNTED: &str = "mounted";

impl Directory {
    fn ownership(&self) -> Ownership<'_> {
        Ownership { owner: self.owner.as_ref(), group: self.group.as_ref(), mode: self.mode }
    }
}

impl Resource for Directory {
    fn check(&self) -> Result<(), ArgError> {
        let declared =
            [("owner", self.owner.is_some()), ("group", self.group.is_some()), ("mode", self.mode.is_some())];
        match (self.state, declared.iter().find(|(_, given)| *given)) {
            (Presence::Absent, Some((field, _))) => {
                Err(ArgError::new(*field, "means nothing for a directory that is to be `absent`"))
            }
            (Presence::Present, _) if self.force => {
                Err(ArgError::new("force", "is for `state = absent` only: what stands in the way is never removed"))
            }
            _ => Ok(()),
        }
    }

    fn desired(&self) -> State {
        match self.state {
            Presence::Present => {
                let mut fields = Fields::new();
                self.ownership().declare(&mut fields);
                if !fields.is_empty() {
                    fields.insert(MOUNTED.to_owned(), Datum::Absent);
                }
                State::Present(fields)
            }
            Presence::Absent => State::Absent,
        }
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let path = &self.path.0;
        if let Some(mount) = dead::far_mount(path, probe)? {
            let State::Present(mut fields) = self.desired() else {
                return Err(Failure::new(format!("{path} cannot be removed: {} is mounted on it", mount.source))
                    .hint("put a `mount` task with `state = absent` before this one"));
            };
            if fields.is_empty() {
                return Ok(State::Present(fields).into());
            }
            if let Some(why) = dead::why(probe, &mount).await? {
                // What lies below is seen once it is gone.
                fields.insert(MOUNTED.to_owned(), format!("dead: {why}").into());
                return Ok(State::Present(fields).into());
            }
            dead::answers(probe, &mount).await?;
        }
        let Some(entry) = probe.stat(path)? else { return Ok(State::Absent.into()) };
        match &entry.kind {
            EntryKind::Directory => {
                if self.state == Presence::Present && self.owner.is_none() && entry.foreign {
                    return Err(foreign_owner(path.as_ref(), entry.uid)
                        .hint("declare its `owner`, or remove it: what is put inside is that user's to change"));
                }
                let mut fields = Fields::new();
                self.ownership().observe(probe, &entry, &mut fields)?;
                Ok(State::Present(fields).into())
            }
            EntryKind::Link(to) => Err(Failure::new(format!("{path} is a link to {}, not a directory", to.display()))
                .hint(
                    "name the directory that it points to, or remove the link with a `link` task and `state = absent`",
                )),
            other => Err(Failure::new(format!("{path} is {}, not a directory", other.show()))
                .hint("fanli does not remove what it did not expect: move it away, or name another path")),
        }
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let path = &self.path.0;
        if change.touches(MOUNTED)
            && let Some(mount) = dead::far_mount(path, hands)?
            && dead::why(hands, &mount).await?.is_some()
        {
            dead::take_away(hands, &mount).await?;
        }
        match change.verb {
            Verb::Create => hands.make_dir(path, self.ownership().attrs(hands, path)?)?,
            Verb::Update => hands.set_attrs(path, self.ownership().attrs(hands, path)?)?,
            Verb::Remove if self.force => hands.remove_tree(path)?,
            Verb::Remove => match hands.list(path)? {
                Some(inside) if !inside.is_empty() => {
                    let first = inside.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                    return Err(Failure::new(format!("{path} is not empty: it holds {} entries", inside.len()))
                        .because(format!("the first is `{first}`"))
                        .hint("`force = true` removes it with everything inside"));
                }
                _ => hands.remove_dir(path)?,
            },
        }
        Ok(Map::new())
    }
}
