//! `template`: a regular file whose content is rendered from a template.

use super::content::{Content, Regular, check_validate};
use super::ownership::Ownership;
use super::param::{HostPath, Mode, Owner, Rendered};
use super::{ArgError, Observed, Resource};
use crate::change::{Change, State};
use crate::failure::Failure;
use crate::system::{Actuator, Probe};
use crate::value::Map;

crate::kind! {
    /// Keeps a file whose content is rendered from a template.
    ///
    /// The template is minijinja text beside the playbook, with every variable that the task sees; an undefined name is an error
    /// before anything is sent to a host. Everything else is as with `file`.
    pub struct Template = "template" {
        /// Where the file stands. Its directory must exist.
        path: HostPath,
        /// The template.
        source: Rendered,
        /// The file's owner. Not declared: a new file belongs to whom fanli runs as.
        owner: Option<Owner>,
        /// Its group.
        group: Option<Owner>,
        /// Its permissions. Not declared: a new file gets 0644. Where the group or others may not read `source`, they may not read
        /// the file either, 0600 or 0640, as if that were declared.
        mode: Option<Mode>,
        /// A command that must succeed on the new content before it is put in place; `{file}` stands for its path.
        validate: Vec<String> = Vec::new(),
    }
    example r#"template "/etc/fanli-example.conf" { source = "templates/example.conf"  mode = 0644 }"#
}

impl Template {
    fn regular(&self) -> Regular<'_> {
        Regular {
            path: &self.path.0,
            content: Some(Content::Blob(&self.source.0)),
            ownership: Ownership { owner: self.owner.as_ref(), group: self.group.as_ref(), mode: self.mode },
            validate: &self.validate,
        }
    }
}

impl Resource for Template {
    fn check(&self) -> Result<(), ArgError> {
        check_validate(&self.validate)
    }

    fn desired(&self) -> State {
        self.regular().desired()
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        self.regular().observe(probe)
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        self.regular().apply(change, hands).await?;
        Ok(Map::new())
    }
}
