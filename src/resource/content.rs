//! A regular file with declared content: what `file`, `template` and `line` share.

use std::sync::Arc;

use super::ownership::Ownership;
use super::{ArgError, Observed};
use crate::change::{Change, Datum, Fields, State, Verb};
use crate::failure::Failure;
use crate::system::fs::{Attrs, Entry, EntryKind, STAGED, Staged, foreign_owner};
use crate::system::{Actuator, Probe};
use crate::value::{Blob, Digest};

/// Where declared bytes come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// The playbook's text.
    Text(&'a str),
    /// A file or rendered template, by hash.
    Blob(&'a Blob),
}

impl Content<'_> {
    fn blob(self) -> Blob {
        match self {
            Self::Text(text) => Blob { digest: Digest::of(text.as_bytes()), len: text.len() as u64 },
            Self::Blob(blob) => *blob,
        }
    }

    fn datum(self) -> Datum {
        match self {
            Self::Text(text) => Datum::content(text.as_bytes()),
            Self::Blob(blob) => Datum::from(*blob),
        }
    }

    async fn bytes(self, probe: &Probe) -> Result<Arc<[u8]>, Failure> {
        match self {
            Self::Text(text) => Ok(text.as_bytes().into()),
            Self::Blob(blob) => probe.blob(blob).await,
        }
    }
}

/// A regular file as it should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Regular<'a> {
    pub(super) path: &'a str,
    pub(super) content: Option<Content<'a>>,
    pub(super) ownership: Ownership<'a>,
    pub(super) validate: &'a [String],
}

impl Regular<'_> {
    /// The declared fields.
    pub(super) fn desired(&self) -> State {
        let mut fields = Fields::new();
        if let Some(content) = self.content {
            fields.insert("content".to_owned(), content.datum());
        }
        self.ownership.declare(&mut fields);
        State::Present(fields)
    }

    /// The same fields as they are.
    pub(super) fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let Some(entry) = regular(probe, self.path)? else { return Ok(State::Absent.into()) };
        if self.ownership.owner.is_none() && entry.foreign {
            return Err(foreign_owner(self.path.as_ref(), entry.uid)
                .hint("declare its `owner`, and it is made anew for that one; or remove it"));
        }
        let mut fields = Fields::new();
        if let Some(content) = self.content {
            let Some(found) = probe.content(self.path)? else { return Ok(State::Absent.into()) };
            if content.blob() != found.blob {
                warn_of_names(probe, self.path, &entry);
            }
            fields.insert("content".to_owned(), Datum::Content { blob: found.blob, bytes: found.bytes });
        }
        self.ownership.observe(probe, &entry, &mut fields)?;
        Ok(State::Present(fields).into())
    }

    /// Replaces the content, or sets what else differs.
    pub(super) async fn apply(&self, change: &Change, hands: &Actuator) -> Result<(), Failure> {
        let attrs = self.ownership.attrs(hands, self.path)?;
        match (change.verb, self.content) {
            (Verb::Remove, _) => hands.remove_file(self.path),
            (Verb::Create, content) => {
                let bytes = match content {
                    Some(content) => content.bytes(hands).await?,
                    None => Arc::default(),
                };
                put(hands, self.path, &bytes, attrs, self.validate).await
            }
            // Who owned it may still have it open: one that gets another owner is made anew.
            (Verb::Update, Some(content)) if change.touches("content") || change.touches("owner") => {
                put(hands, self.path, &content.bytes(hands).await?, attrs, self.validate).await
            }
            (Verb::Update, _) => hands.set_attrs(self.path, attrs),
        }
    }
}

/// What stands at the path of a file kind: a regular file, or nothing. Everything else is a failure, never removed silently.
pub(super) fn regular(probe: &Probe, path: &str) -> Result<Option<Entry>, Failure> {
    match probe.stat(path)? {
        None => Ok(None),
        Some(entry) => match &entry.kind {
            EntryKind::File => Ok(Some(entry)),
            EntryKind::Link(to) => Err(Failure::new(format!("{path} is a link to {}, not a file", to.display()))
                .hint("name the file that it points to, or remove the link with a `link` task and `state = absent`")),
            other => Err(Failure::new(format!("{path} is {}, not a file", other.show()))
                .hint("fanli does not remove what it did not expect: move it away, or name another path")),
        },
    }
}

/// Stages content, has it validated, puts it in place.
pub(super) async fn put(
    hands: &Actuator,
    path: &str,
    bytes: &[u8],
    attrs: Attrs,
    validate: &[String],
) -> Result<(), Failure> {
    put_staged(hands.stage(path, bytes, attrs)?, path, validate).await
}

/// Has staged content validated, and puts it in place unless something else was put there meanwhile.
pub(super) async fn put_staged(staged: Staged, path: &str, validate: &[String]) -> Result<(), Failure> {
    staged.validate(validate).await.map_err(|failure| failure.within(format!("{path} was not replaced")))?;
    staged.commit_unless_changed()
}

/// Says that a file whose content is to change has other names, which will keep the old content.
pub(super) fn warn_of_names(probe: &Probe, path: &str, entry: &Entry) {
    if entry.nlink > 1 {
        let names = entry.nlink;
        probe.warn(format!(
            "{path} has {names} names (hard links): the new content goes to this one, the others keep the old"
        ));
    }
}

/// A validating command must say where the staged file goes.
pub(super) fn check_validate(validate: &[String]) -> Result<(), ArgError> {
    if validate.is_empty() || validate.iter().skip(1).any(|argument| argument.contains(STAGED)) {
        return Ok(());
    }
    Err(ArgError::new("validate", format!("needs `{STAGED}` in an argument, where the path of the new file goes")))
}
