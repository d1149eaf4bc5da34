//! `link`: a symbolic link.

use super::param::{HostPath, Presence};
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Datum, State, Verb};
use crate::failure::Failure;
use crate::system::fs::{EntryKind, foreign_owner};
use crate::system::{Actuator, Probe};
use crate::value::Map;

crate::kind! {
    /// Keeps a symbolic link that points where it should.
    ///
    /// A link that points elsewhere is turned in one step: nobody sees it missing. What it points to need not exist.
    ///
    /// In paths of other tasks fanli follows a link on the way only where the system has its own (below `/etc`, `/usr`, right in
    /// `/srv` and the like) or where a `link` task of the same playbook declares it, and none in a directory that others, or
    /// containers, can write.
    pub struct Link = "link" {
        /// Where the link stands. Its directory must exist.
        path: HostPath,
        /// What it points to; kept as written, so it may be relative to the link's directory.
        to: Option<String>,
        /// Whether it is to be there.
        state: Presence = Presence::Present,
        /// Whether a file or directory in its place (with everything inside) is removed for it.
        force: bool = false,
    }
    example r#"link "/etc/fanli-example" { to = "/srv/releases/7" }"#
}

impl Resource for Link {
    fn check(&self) -> Result<(), ArgError> {
        match (self.state, &self.to) {
            (Presence::Present, None) => Err(ArgError::new("to", "is required: what the link points to")),
            (_, Some(to)) if to.is_empty() || to.contains('\0') || to.len() > 4095 => {
                Err(ArgError::new("to", "is empty, holds a NUL, or is longer than 4095 bytes"))
            }
            (Presence::Absent, Some(_)) => Err(ArgError::new("to", "means nothing for a link that is to be `absent`")),
            (Presence::Absent, None) if self.force => {
                Err(ArgError::new("force", "is for links that are to be there: `absent` removes links only"))
            }
            _ => Ok(()),
        }
    }

    fn desired(&self) -> State {
        match (self.state, &self.to) {
            (Presence::Present, Some(to)) => State::present([("to", to.as_str())]),
            _ => State::Absent,
        }
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let path = &self.path.0;
        let found = probe.stat(path)?;
        let owner = found.as_ref().filter(|entry| entry.foreign).map(|entry| entry.uid);
        match found.map(|entry| entry.kind) {
            None => Ok(State::Absent.into()),
            // A link is turned by a new one, which is fanli's own.
            Some(EntryKind::Link(to)) if self.to.as_ref().is_some_and(|wanted| to.as_os_str() == wanted.as_str()) => {
                match owner {
                    Some(uid) => Err(foreign_owner(path.as_ref(), uid).hint("remove it: that user may turn it")),
                    None => Ok(State::present([("to", to.to_string_lossy().as_ref())]).into()),
                }
            }
            Some(EntryKind::Link(to)) => Ok(State::present([("to", to.to_string_lossy().as_ref())]).into()),
            Some(_) if self.force => Ok(State::present([("to", Datum::Absent)]).into()),
            Some(other) => Err(Failure::new(format!("{path} is {}, not a link", other.show()))
                .hint("`force = true` removes it, with everything inside, to make place for the link")),
        }
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let path = &self.path.0;
        let found = hands.stat(path)?.map(|entry| entry.kind);
        match (change.verb, found) {
            (Verb::Remove, Some(EntryKind::Link(_)) | None) => {
                hands.remove_file(path)?;
                return Ok(Map::new());
            }
            (Verb::Remove, Some(other)) => {
                return Err(Failure::new(format!("{path} is {} by now, not a link", other.show())));
            }
            (_, Some(EntryKind::Directory)) if self.force => hands.remove_tree(path)?,
            (_, Some(EntryKind::File | EntryKind::Other)) if self.force => hands.remove_file(path)?,
            _ => {}
        }
        hands.symlink(path, self.to.as_deref().unwrap_or_default())?;
        Ok(Map::new())
    }
}
