//! `file`: a regular file.

use super::content::{Content, Regular, check_validate, regular};
use super::ownership::Ownership;
use super::param::{HostPath, Mode, Owner, Presence};
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::system::{Actuator, Probe};
use crate::value::{Blob, Map};

crate::kind! {
    /// Keeps a file with its content, owner, group and mode.
    ///
    /// The content is replaced atomically: whoever reads the file sees the old one or the new one, also after a power cut.
    /// What is not declared stays as it is. Without `content` and `source` only owner, group and mode are kept, and a missing
    /// file is made empty. A link, a directory or a device at the path is a failure.
    ///
    /// Access lists, capabilities and other extended attributes stay when the content is replaced; where the file system does
    /// not take them over, the step fails. A second name of the file (a hard link) keeps the old content, and a warning says so.
    /// What another program wrote between the look and the replace, for instance while `validate` ran, is never overwritten:
    /// the step fails.
    ///
    /// In a directory that others can write to, a file of another user (neither root's, nor fanli's own, nor of the
    /// directory's owner) is a failure unless `owner` is declared: whoever planted it could change it afterwards. With
    /// `owner` it is made anew.
    pub struct File = "file" {
        /// Where it stands. Its directory must exist.
        path: HostPath,
        /// The whole content, as text.
        content: Option<String>,
        /// A file beside the playbook whose bytes are the content.
        source: Option<Blob>,
        /// Its owner. Not declared: a new file belongs to whom fanli runs as. One that changes its owner is made anew.
        owner: Option<Owner>,
        /// Its group.
        group: Option<Owner>,
        /// Its permissions. Not declared: a new file gets 0644. Where the group or others may not read `source`, they may not read
        /// the file either, 0600 or 0640, as if that were declared.
        mode: Option<Mode>,
        /// A command that must succeed on the new content before it is put in place; `{file}` stands for its path.
        validate: Vec<String> = Vec::new(),
        /// Whether it is to be there.
        state: Presence = Presence::Present,
    }
    example r#"file "/etc/fanli-example.conf" {
  content  = "answer = 42\n"
  owner    = "root"
  mode     = 0640
  validate = ["grep", "-q", "answer", "{file}"]
}"#
}

impl File {
    fn regular(&self) -> Regular<'_> {
        let text = self.content.as_deref().map(Content::Text);
        Regular {
            path: &self.path.0,
            content: text.or(self.source.as_ref().map(Content::Blob)),
            ownership: Ownership { owner: self.owner.as_ref(), group: self.group.as_ref(), mode: self.mode },
            validate: &self.validate,
        }
    }
}

impl Resource for File {
    fn check(&self) -> Result<(), ArgError> {
        if self.content.is_some() && self.source.is_some() {
            return Err(ArgError::new("source", "cannot stand beside `content`: the content has one origin"));
        }
        let declared = [
            ("content", self.content.is_some()),
            ("source", self.source.is_some()),
            ("owner", self.owner.is_some()),
            ("group", self.group.is_some()),
            ("mode", self.mode.is_some()),
        ];
        if let (Presence::Absent, Some((field, _))) = (self.state, declared.iter().find(|(_, given)| *given)) {
            return Err(ArgError::new(*field, "means nothing for a file that is to be `absent`"));
        }
        check_validate(&self.validate)
    }

    fn desired(&self) -> State {
        match self.state {
            Presence::Present => self.regular().desired(),
            Presence::Absent => State::Absent,
        }
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        if self.state == Presence::Absent {
            let found = regular(probe, &self.path.0)?;
            return Ok(found.map_or(State::Absent, |_| State::Present(Fields::new())).into());
        }
        self.regular().observe(probe)
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        self.regular().apply(change, hands).await?;
        Ok(Map::new())
    }
}
