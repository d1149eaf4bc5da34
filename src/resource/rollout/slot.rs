//! `slot`: a generation of a configuration, whole, beside those that a slot has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{IN_PLACE, Record, check_generation, check_keep, one_at_a_time};
use crate::change::{Change, Datum, Fields, State};
use crate::failure::Failure;
use crate::resource::ownership::Ownership;
use crate::resource::param::{HostPath, Mode, Owner};
use crate::resource::{ArgError, Observed, Resource};
use crate::system::fs::{DEEPEST_TREE, FoundEntry, FoundTree, NewTree, TreeEntry};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value, show_size};

/// The most files of a generation.
pub const MOST_FILES: usize = 4096;
/// The most bytes of one file.
pub const MOST_FILE: u64 = 4 << 20;
/// The most bytes of all files together.
pub const MOST_TOTAL: u64 = 64 << 20;
/// The longest path of a file below the generation, in bytes.
const MOST_PATH: usize = 1024;
/// The most differences that one field names.
const MOST_NAMED: usize = 20;

crate::kind! {
    /// Puts a generation of a configuration beside those that a slot has; which one is used stays as it is.
    ///
    /// A slot is a directory on the host that nodes mount: the directory itself, never a file in it. Inside, `generations/ID/` are
    /// whole trees, and `current` is a link to one of them, which `switch` turns. A generation that was edited by hand is found, file
    /// by file, and exchanged for the right one in one step.
    ///
    /// While the generation is not there, it is compared with the current one: the diff is what a switch would change. At most
    /// 4096 files, 4MiB each, 64MiB together, 32 levels deep.
    pub struct Slot = "slot" {
        /// The slot's directory; made when it is missing.
        path: HostPath,
        /// The generation's ID: twelve hex digits of the hash of what it holds.
        generation: String,
        /// Its files by their path in it: text, or a file's bytes. Directories follow from the paths.
        files: Map,
        /// Permissions of files that have others than `mode`, by their path.
        modes: Map = Map::new(),
        /// Permissions of files.
        mode: Mode = Mode(0o644),
        /// Permissions of directories.
        dir_mode: Mode = Mode(0o755),
        /// Whose everything in it is. Not declared: whom fanli runs as.
        owner: Option<Owner>,
        /// Their group.
        group: Option<Owner>,
        /// How many generations stay when a new one comes: the newest, and always the current one and the one before it.
        keep: i64 = 5,
    }
    results {
        "current": "the generation that the slot shows, or null",
        "pending": "whether that is another one than this",
    }
    example r#"slot "/srv/fanli-example/conf" {
  generation = "5891b5b522d5"
  files      = { "httpd.conf" = "Listen 80\n"  "sites/a.conf" = "ServerName a.example\n" }
}"#
}

impl Slot {
    fn mode_of(&self, path: &str) -> u32 {
        match self.modes.get(path) {
            Some(Value::Mode(mode)) => *mode,
            _ => self.mode.0,
        }
    }

    fn ownership(&self) -> Ownership<'_> {
        Ownership { owner: self.owner.as_ref(), group: self.group.as_ref(), mode: None }
    }

    /// Owner and group as numbers; fanli's own where they are not declared.
    fn ids(&self, probe: &Probe) -> Result<(u32, u32), Failure> {
        let (attrs, own) = (self.ownership().attrs(probe, &self.path.0)?, probe.own_ids());
        Ok((attrs.uid.unwrap_or(own.0), attrs.gid.unwrap_or(own.1)))
    }

    /// Every directory that the paths of the files name.
    fn directories(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::from([""]);
        for path in self.files.keys() {
            found.extend(path.match_indices('/').filter_map(|(end, _)| path.get(..end)));
        }
        found
    }

    /// What differs besides contents: attributes, and what should not be there.
    fn strays(&self, tree: &FoundTree, ids: Option<(u32, u32)>) -> (Vec<String>, Vec<String>) {
        let dirs = self.directories();
        let (mut wrong, mut extra) = (Vec::new(), Vec::new());
        for (path, found) in tree {
            let is_dir = dirs.contains(path.as_str());
            if !is_dir && !self.files.contains_key(path) {
                extra.push(path.clone());
                continue;
            }
            let fits = matches!((&found.entry, is_dir), (TreeEntry::Directory, true) | (TreeEntry::File(_), false));
            if !fits {
                // A directory where a file should be, or the other way round, is told once.
                if is_dir {
                    extra.push(path.clone());
                }
                continue;
            }
            let mode = if is_dir { self.dir_mode.0 } else { self.mode_of(path) };
            let shown = if path.is_empty() { "the directory itself" } else { path };
            if found.mode != mode {
                wrong.push(format!("{shown}: mode {:04o}, should be {mode:04o}", found.mode));
            }
            // Without the account that is declared, it belongs to somebody else for sure.
            let owned = ids.is_some_and(|ids| (found.uid, found.gid) == ids);
            if !owned {
                wrong.push(format!("{shown}: owned by {}:{}", found.uid, found.gid));
            }
        }
        (wrong, extra)
    }

    async fn bytes(&self, probe: &Probe) -> Result<BTreeMap<&str, Arc<[u8]>>, Failure> {
        let mut found = BTreeMap::new();
        for (path, value) in &self.files {
            let bytes: Arc<[u8]> = match value {
                Value::Blob(blob) => probe.blob(blob).await?,
                other => other.as_str().unwrap_or_default().as_bytes().into(),
            };
            found.insert(path.as_str(), bytes);
        }
        Ok(found)
    }
}

/// The name of a file's field: its path, unless that is the name of another field.
fn field_of(path: &str) -> String {
    match path {
        "generation" | "attributes" | "extra" | "leftover" => format!("./{path}"),
        _ => path.to_owned(),
    }
}

fn datum_of(found: Option<&FoundEntry>) -> Datum {
    match found.map(|found| &found.entry) {
        None => Datum::Absent,
        Some(TreeEntry::File(bytes)) => Datum::Content { blob: bytes.blob, bytes: bytes.bytes.clone() },
        Some(TreeEntry::Directory) => "a directory".into(),
        Some(TreeEntry::Other(what)) => (*what).into(),
    }
}

/// Some words as a field, `when_none` where there are none.
fn named(mut words: Vec<String>, when_none: Datum) -> Datum {
    let more = words.len().saturating_sub(MOST_NAMED);
    words.truncate(MOST_NAMED);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    if words.is_empty() { when_none } else { Value::List(words.into_iter().map(Value::Str).collect()).into() }
}

/// A file's path below a generation.
fn check_path(path: &str) -> Result<(), String> {
    let odd = |why: &str| Err(format!("`{}` {why}", path.escape_debug()));
    if path.is_empty() {
        return Err("a file has no name".to_owned());
    }
    if path.starts_with('/') {
        return odd("begins with `/`: paths are below the generation");
    }
    if path.contains(char::is_control) {
        return odd("holds a control character");
    }
    if path.len() > MOST_PATH || path.split('/').any(|part| part.len() > 255) {
        return odd("is too long: at most 1024 bytes, 255 between two slashes");
    }
    if path.split('/').count() > DEEPEST_TREE {
        return odd("lies deeper than 32 levels");
    }
    match path.split('/').find(|part| ["", ".", ".."].contains(part)) {
        Some(part) => odd(&format!("holds the part `{part}`: write it plainly")),
        None => Ok(()),
    }
}

impl Resource for Slot {
    fn check(&self) -> Result<(), ArgError> {
        check_generation(&self.generation)?;
        check_keep(self.keep)?;
        let wrong = |message: String| ArgError::new("files", message);
        if self.path.0 == "/" {
            return Err(ArgError::new("path", "`/` is no slot"));
        }
        if self.files.is_empty() {
            return Err(wrong("names no file: a generation holds at least one".to_owned()));
        }
        if self.files.len() > MOST_FILES {
            return Err(wrong(format!("{} files are more than {MOST_FILES}", self.files.len())));
        }
        let mut total = 0;
        let dirs = self.directories();
        for (path, value) in &self.files {
            check_path(path).map_err(wrong)?;
            if dirs.contains(path.as_str()) {
                return Err(wrong(format!("`{path}` is a file and the directory of another one")));
            }
            let len = match value {
                Value::Blob(blob) => blob.len,
                Value::Str(text) => text.len() as u64,
                other => return Err(wrong(format!("`{path}` is text or a file, not {}", other.type_name()))),
            };
            if len > MOST_FILE {
                let (len, most) = (show_size(len), show_size(MOST_FILE));
                return Err(wrong(format!("`{path}` has {len}, more than {most}")));
            }
            total += len;
        }
        if total > MOST_TOTAL {
            return Err(wrong(format!("hold {} together, more than {}", show_size(total), show_size(MOST_TOTAL))));
        }
        for (path, value) in &self.modes {
            if !self.files.contains_key(path) {
                return Err(ArgError::new("modes", format!("there is no file `{path}`")));
            }
            if !matches!(value, Value::Mode(_)) {
                let message = format!("`{path}`: expected a mode such as 0600, found {}", value.type_name());
                return Err(ArgError::new("modes", message));
            }
        }
        Ok(())
    }

    fn desired(&self) -> State {
        let mut fields = Fields::from([
            ("generation".to_owned(), self.generation.as_str().into()),
            ("attributes".to_owned(), IN_PLACE.into()),
            ("extra".to_owned(), Datum::Absent),
            ("leftover".to_owned(), Datum::Absent),
        ]);
        for (path, value) in &self.files {
            let datum = match value {
                Value::Blob(blob) => Datum::from(*blob),
                other => Datum::content(other.as_str().unwrap_or_default().as_bytes()),
            };
            fields.insert(field_of(path), datum);
        }
        State::Present(fields)
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let slot = probe.slot(&self.path.0)?.unwrap_or_default();
        let pending = slot.current.as_ref() != Some(&self.generation);
        let output = Map::from([
            ("current".to_owned(), slot.current.clone().map_or(Value::Null, Value::Str)),
            ("pending".to_owned(), pending.into()),
        ]);
        // What is not there is compared with what a switch would replace.
        let base = if slot.has(&self.generation) { Some(&self.generation) } else { slot.current.as_ref() };
        let tree = match base {
            Some(id) => probe.generation(&self.path.0, id)?.map(|tree| (id, tree)),
            None => None,
        };
        let Some((id, tree)) = tree else { return Ok(Observed { state: State::Absent, output }) };
        let (wrong, extra) = self.strays(&tree, self.ids(probe).ok());
        let leftovers = slot.leftovers.clone();
        let mut fields = Fields::from([
            ("generation".to_owned(), id.as_str().into()),
            ("attributes".to_owned(), named(wrong, IN_PLACE.into())),
            ("extra".to_owned(), named(extra, Datum::Absent)),
            ("leftover".to_owned(), named(leftovers, Datum::Absent)),
        ]);
        fields.extend(self.files.keys().map(|path| (field_of(path), datum_of(tree.get(path)))));
        Ok(Observed { state: State::Present(fields), output })
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let path = &self.path.0;
        let (uid, gid) = self.ids(hands)?;
        let bytes = self.bytes(hands).await?;
        let _lock = one_at_a_time(hands, path).await?;
        if change.fields.iter().any(|field| field.field != "leftover") {
            let files = bytes.iter().map(|(path, bytes)| (*path, (&**bytes, self.mode_of(path)))).collect();
            let tree = NewTree { files, dir_mode: self.dir_mode.0, uid, gid };
            hands.stage_generation(path, &self.generation, &tree)?;
        }
        let record = Record::read(hands, path)?;
        let previous = record.as_ref().and_then(|record| record.previous.as_deref());
        let also: Vec<&str> = [self.generation.as_str()].into_iter().chain(previous).collect();
        let keep = usize::try_from(self.keep).unwrap_or(usize::MAX);
        let surplus = hands.slot(path)?.map(|slot| slot.surplus(keep, &also)).unwrap_or_default();
        hands.prune_generations(path, &surplus)?;
        Ok(Map::new())
    }
}
