//! `group`: a group of users in `/etc/group`.

use super::account::{check_id, check_name, keep};
use super::param::Presence;
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Fields, State, Verb};
use crate::failure::Failure;
use crate::system::accounts::Group as Found;
use crate::system::process::Program;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

crate::kind! {
    /// Keeps a local group.
    ///
    /// Only `/etc/group` counts, not LDAP or NIS. Who is in it is for `user` tasks to say. When `gid` changes, files that
    /// belong to the old number keep it. A group without its line in `/etc/gshadow` (a killed `groupadd`) counts as missing
    /// and is completed.
    pub struct Group = "group" {
        /// Its name.
        name: String,
        /// Its number. Not declared: a new group gets the next free one.
        gid: Option<i64>,
        /// Whether a new group without `gid` gets its number from the range for system accounts.
        system: bool = false,
        /// Whether it is to be there. A group that is some user's primary one cannot be removed.
        state: Presence = Presence::Present,
    }
    example r#"group "fanli-example" { gid = 7501 }"#
}

impl Group {
    fn gid(&self) -> Option<u32> {
        self.gid.and_then(|gid| u32::try_from(gid).ok())
    }

    /// Whether `/etc/gshadow` lacks a line that the group should have there, or has one that it should not.
    fn half(&self, probe: &Probe, found: Option<&Found>) -> Result<bool, Failure> {
        let Some(shadow) = probe.shadowed_groups()? else { return Ok(false) };
        Ok(match found {
            Some(group) => group.shadowed && !shadow.contains_key(&self.name),
            None => shadow.contains_key(&self.name),
        })
    }

    fn find(&self, groups: &[Found]) -> Option<Found> {
        groups.iter().find(|group| group.name == self.name).cloned()
    }

    fn numbered(&self, program: &str) -> Program {
        let program = Program::new([program]);
        match self.gid() {
            Some(gid) => program.arg("--gid").arg(gid.to_string()),
            None => program,
        }
    }

    async fn run(&self, hands: &Actuator, program: Program) -> Result<(), Failure> {
        keep(hands, &program.arg(&self.name)).await
    }
}

impl Resource for Group {
    fn check(&self) -> Result<(), ArgError> {
        check_name("name", &self.name)?;
        check_id("gid", self.gid)?;
        match self.state {
            Presence::Absent if self.gid.is_some() => {
                Err(ArgError::new("gid", "means nothing for a group that is to be `absent`"))
            }
            Presence::Absent if self.name == "root" => Err(ArgError::new("state", "`root` is never removed")),
            _ => Ok(()),
        }
    }

    fn desired(&self) -> State {
        match self.state {
            Presence::Present => State::present(self.gid().map(|gid| ("gid", Value::from(gid)))),
            Presence::Absent => State::Absent,
        }
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let groups = probe.groups()?;
        let found = self.find(&groups);
        let half = self.half(probe, found.as_ref())?;
        if self.state == Presence::Absent {
            let Some(found) = found else {
                let left = if half { State::Present(Fields::new()) } else { State::Absent };
                return Ok(left.into());
            };
            let users = probe.users()?;
            let primary: Vec<&str> =
                users.iter().filter(|user| user.gid == found.gid).map(|user| user.name.as_str()).collect();
            let shared = groups.iter().any(|group| group.gid == found.gid && group.name != self.name);
            if !primary.is_empty() && !shared {
                let name = &self.name;
                return Err(Failure::new(format!("the group `{name}` cannot go: it is the primary group of users"))
                    .because(primary.join(", "))
                    .hint("remove the users first, or give them another `group`"));
            }
            return Ok(State::Present(Fields::new()).into());
        }
        if let Some(gid) = self.gid().filter(|gid| found.as_ref().is_none_or(|found| found.gid != *gid))
            && let Some(other) = groups.iter().find(|group| group.gid == gid)
        {
            return Err(Failure::new(format!("the number {gid} already belongs to the group `{}`", other.name))
                .hint("choose another `gid`, or remove that group with `state = absent` first"));
        }
        match found {
            Some(found) if !half => Ok(State::present([("gid", Value::from(found.gid))]).into()),
            _ => Ok(State::Absent.into()),
        }
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let found = self.find(&hands.groups()?);
        match (change.verb, &found) {
            (Verb::Remove, Some(_)) => self.run(hands, Program::new(["groupdel"])).await?,
            (Verb::Remove, None) => {}
            (_, None) => {
                let system = self.system.then_some("--system");
                self.run(hands, self.numbered("groupadd").args(system)).await?;
            }
            (_, Some(found)) => {
                if self.gid().is_some_and(|gid| gid != found.gid) {
                    self.run(hands, self.numbered("groupmod")).await?;
                }
            }
        }
        if self.half(hands, self.find(&hands.groups()?).as_ref())? {
            keep(hands, &Program::new(["grpconv"])).await?;
        }
        Ok(Map::new())
    }
}
