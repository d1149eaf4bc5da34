//! Files beside the playbook: found, read once, hashed; templates rendered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::errors::Errors;
use super::ignore::Ignore;
use super::late::{Late, LateSource};
use super::model::{Arg, Contents};
use super::scope::{Known, Scope};
use crate::diagnostic::Diagnostic;
use crate::expr::{render, template_names};
use crate::playbook::{GENERATION, Missing, Playbook, find};
use crate::source::{Sources, Span, reason};
use crate::value::{Blob, Digest, Map, Tree, TreeEntry, TreeEntryKind, Value, kept_mode};

/// The largest file and the most entries of a folder that travel.
const MOST_BYTES: u64 = 1024 * 1024 * 1024;
const MOST_ENTRIES: usize = 100_000;

/// What one rendered tree may hold at most: a file that a generator made too large has taken sites down before.
const MOST_RENDERED: usize = 2000;
const MOST_RENDERED_BYTES: u64 = 16 << 20;

/// Stands for the generation while that is made.
const MARK: &str = "@the-generation-of-this-tree@";

/// Files that were read in this planning.
#[derive(Default)]
pub(super) struct Files {
    blobs: BTreeMap<PathBuf, Blob>,
    /// Folders, and build contexts with the name of their Dockerfile.
    trees: BTreeMap<(PathBuf, Option<String>), Tree>,
    templates: BTreeMap<PathBuf, Template>,
    /// Whether a file of a tree of templates is text: what is not goes as it is.
    texts: BTreeMap<Digest, bool>,
}

#[derive(Clone)]
struct Template {
    file: u32,
    text: Arc<str>,
    names: Arc<BTreeSet<String>>,
}

/// Where a path is written, and what it may find.
pub(super) struct Place<'a> {
    pub(super) playbook: &'a Playbook,
    pub(super) sources: &'a mut Sources,
    pub(super) contents: &'a mut Contents,
    pub(super) span: Span,
}

impl Place<'_> {
    fn look(&self, relative: &str) -> Result<PathBuf, Missing> {
        let beside = self.sources.path(self.span.file).and_then(Path::parent).unwrap_or(&self.playbook.folder);
        find(relative, beside, &self.playbook.root)
    }

    fn find(&self, relative: &str, errors: &mut Errors) -> Option<PathBuf> {
        match self.look(relative) {
            Ok(path) => Some(path),
            Err(Missing { message, help }) => {
                errors.push(help.into_iter().fold(Diagnostic::new(self.span, message), Diagnostic::help));
                None
            }
        }
    }
}

impl Files {
    /// Whether a template that was read uses a name.
    pub(super) fn read(&self, name: &str) -> bool {
        self.templates.values().any(|template| template.names.contains(name))
    }

    /// A file's blob.
    pub(super) fn blob(&mut self, relative: &str, place: &mut Place, errors: &mut Errors) -> Option<Blob> {
        let path = place.find(relative, errors)?;
        if let Some(blob) = self.blobs.get(&path) {
            return Some(*blob);
        }
        match read_blob(&path) {
            Ok(blob) => {
                place.contents.remember(path.clone(), blob);
                self.blobs.insert(path, blob);
                Some(blob)
            }
            Err(message) => {
                errors.push(Diagnostic::new(place.span, message));
                None
            }
        }
    }

    /// The permissions of a file that its group or others may not read: what is made of it is closed to them, too.
    pub(super) fn closed_mode(relative: &str, place: &Place) -> Option<u32> {
        use std::os::unix::fs::PermissionsExt as _;
        let meta = std::fs::metadata(place.look(relative).ok()?).ok()?;
        let mode = kept_mode(meta.permissions().mode()) & 0o644;
        (mode != 0o644).then_some(mode)
    }

    /// A folder's tree.
    pub(super) fn tree(&mut self, relative: &str, place: &mut Place, errors: &mut Errors) -> Option<Tree> {
        let path = place.find(relative, errors)?;
        self.walked((path, None), place, errors)
    }

    /// The tree of a build context, without what its `.dockerignore` leaves out.
    pub(super) fn context(
        &mut self,
        relative: &str,
        dockerfile: &str,
        place: &mut Place,
        errors: &mut Errors,
    ) -> Option<Tree> {
        let path = place.find(relative, errors)?;
        self.walked((path, Some(dockerfile.to_owned())), place, errors)
    }

    /// A folder as it was walked once; with the name of a Dockerfile as a build context.
    fn walked(&mut self, of: (PathBuf, Option<String>), place: &mut Place, errors: &mut Errors) -> Option<Tree> {
        if let Some(tree) = self.trees.get(&of) {
            return Some(tree.clone());
        }
        let (path, dockerfile) = &of;
        let mut entries = Vec::new();
        let ignore = dockerfile.as_ref().map_or_else(|| Ok(Ignore::default()), |name| ignore_of(path, name));
        let walked = ignore.and_then(|ignore| walk(path, "", &ignore, &mut entries, place.contents));
        match walked {
            Ok(()) => {
                entries.sort_by(|left: &TreeEntry, right| left.path.cmp(&right.path));
                let tree = Tree { entries };
                self.trees.insert(of, tree.clone());
                Some(tree)
            }
            Err(message) => {
                errors.push(Diagnostic::new(place.span, message));
                None
            }
        }
    }

    /// A template, rendered now where everything is known, else on the host.
    pub(super) fn template(
        &mut self,
        relative: &str,
        place: &mut Place,
        scope: &mut Scope<'_>,
        at: &str,
        errors: &mut Errors,
    ) -> Option<Arg> {
        let template = self.read_template(relative, place, errors)?;
        let (mut known, mut late) = (Map::new(), BTreeMap::new());
        let mut needs = BTreeSet::new();
        let mut missing = false;
        let mut travels = false;
        for name in &*template.names {
            scope.need(name, place.span, errors);
            if let Some(value) = scope.values.get(name) {
                known.insert(name.clone(), value.clone());
            } else if let Some(expr) = scope.late.get(name) {
                needs.extend(scope.needs(expr));
                late.insert(name.clone(), expr.clone());
                travels = true;
            } else if scope.is_late(name) {
                scope.facts |= name == "facts";
                needs.extend(scope.results.contains(name).then(|| name.clone()));
                travels = true;
            } else if !guarded(&template.text, name) {
                missing = true;
                undefined(&template, name, place.span, scope, errors);
            }
        }
        if missing {
            return None;
        }
        if travels {
            let source =
                LateSource::Template { name: relative.to_owned(), text: template.text.to_string(), scope: known, late };
            return Some(Arg::Late(Box::new(Late { source, needs: needs.into_iter().collect(), at: at.to_owned() })));
        }
        match render(relative, &template.text, &known) {
            Ok(text) => Some(Arg::Ready(Value::Blob(place.contents.hold(text.into_bytes())))),
            Err(error) => {
                let span = Span { file: template.file, ..error.span };
                let found = Diagnostic::new(span, error.message).also(place.span, "the template is used here");
                errors.push(error.help.into_iter().fold(found, Diagnostic::help));
                None
            }
        }
    }

    /// A folder of templates, each rendered; and the tree's generation, which stands in it wherever a template uses that name.
    /// It is made of the tree as it is with a mark in the generation's place: the same input always gives the same one. `modes`
    /// are the declared permissions of some of its files.
    pub(super) fn generation(
        &mut self,
        relative: &str,
        modes: &BTreeMap<String, u32>,
        place: &mut Place,
        scope: &mut Scope<'_>,
        errors: &mut Errors,
    ) -> Option<(Tree, String)> {
        let sources = self.tree(relative, place, errors)?;
        let is_file = |path: &String| {
            sources.entries.iter().any(|entry| entry.path == *path && matches!(entry.kind, TreeEntryKind::File { .. }))
        };
        if let Some(path) = modes.keys().find(|path| !is_file(path)) {
            let error = Diagnostic::new(place.span, format!("`modes`: there is no file `{path}` in {relative}"));
            let paths = sources.entries.iter().map(|entry| entry.path.as_str());
            errors.push(error.suggest(path, paths));
            return None;
        }
        let outer = scope.enter();
        scope.bind(GENERATION, Known::Ready(Value::from(MARK)));
        let mut marked = Tree { entries: Vec::new() };
        let (mut files, mut bytes, mut sound) = (0, 0, true);
        for entry in &sources.entries {
            let path = format!("{}/{}", relative.trim_end_matches('/'), entry.path);
            let kind = match &entry.kind {
                TreeEntryKind::File { blob, mode } => {
                    let text = *self.texts.entry(blob.digest).or_insert_with(|| {
                        place.contents.read(blob.digest).is_ok_and(|bytes| std::str::from_utf8(&bytes).is_ok())
                    });
                    let rendered = if text { self.rendered(&path, place, scope, errors) } else { Some(*blob) };
                    let Some(blob) = rendered else {
                        sound = false;
                        continue;
                    };
                    files += 1;
                    bytes += blob.len;
                    TreeEntryKind::File { blob, mode: modes.get(&entry.path).copied().unwrap_or(*mode) }
                }
                TreeEntryKind::Link(_) => {
                    let error = Diagnostic::new(place.span, format!("{path} is a link"));
                    errors.push(error.help("what is rolled out is files alone: put the file itself there"));
                    sound = false;
                    continue;
                }
                TreeEntryKind::Directory => TreeEntryKind::Directory,
            };
            marked.entries.push(TreeEntry { path: entry.path.clone(), kind });
        }
        scope.leave(&outer);
        if files > MOST_RENDERED || bytes > MOST_RENDERED_BYTES {
            let message =
                format!("{relative} makes {files} files with {bytes} bytes: that is more than a configuration");
            let help = format!("at most {MOST_RENDERED} files, and {} MiB in all", MOST_RENDERED_BYTES >> 20);
            errors.push(Diagnostic::new(place.span, message).help(help));
            sound = false;
        }
        if sound && files == 0 {
            errors.push(Diagnostic::new(place.span, format!("there is no file in {relative}")));
            sound = false;
        }
        if !sound {
            return None;
        }
        let generation = marked.digest().short();
        for entry in &mut marked.entries {
            let TreeEntryKind::File { blob, .. } = &mut entry.kind else { continue };
            if self.texts.get(&blob.digest) == Some(&false) {
                continue;
            }
            let Ok(bytes) = place.contents.read(blob.digest) else { continue };
            if let Ok(text) = std::str::from_utf8(&bytes)
                && text.contains(MARK)
            {
                *blob = place.contents.hold(text.replace(MARK, &generation).into_bytes());
            }
        }
        Some((marked, generation))
    }

    /// A template that must be known now.
    fn rendered(&mut self, path: &str, place: &mut Place, scope: &mut Scope<'_>, errors: &mut Errors) -> Option<Blob> {
        match self.template(path, place, scope, "", errors)? {
            Arg::Ready(Value::Blob(blob)) => Some(blob),
            _ => {
                let message = format!("{path} uses facts or results, which only the host knows");
                let help =
                    "a generation must be the same wherever it is rendered: use variables of hosts or nodes instead";
                errors.push(Diagnostic::new(place.span, message).help(help));
                None
            }
        }
    }

    fn read_template(&mut self, relative: &str, place: &mut Place, errors: &mut Errors) -> Option<Template> {
        let path = place.find(relative, errors)?;
        if let Some(template) = self.templates.get(&path) {
            return Some(template.clone());
        }
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(message) => {
                errors.push(Diagnostic::new(place.span, message));
                return None;
            }
        };
        let file = place.sources.add(&path, &text);
        match template_names(relative, &text) {
            Ok(names) => {
                let template = Template { file, text: text.into(), names: Arc::new(names) };
                self.templates.insert(path, template.clone());
                Some(template)
            }
            Err(error) => {
                let span = Span { file, ..error.span };
                let found = Diagnostic::new(span, error.message).also(place.span, "the template is used here");
                errors.push(error.help.into_iter().fold(found, Diagnostic::help));
                None
            }
        }
    }
}

/// Says that a template uses a name that nothing binds, at the name's first place in it.
fn undefined(template: &Template, name: &str, used: Span, scope: &Scope, errors: &mut Errors) {
    let start = first_use(&template.text, name).unwrap_or(0);
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let span = Span { file: template.file, start: offset(start), end: offset(start + name.len()) };
    let error = Diagnostic::new(span, format!("`{name}` is not defined")).suggest(name, scope.names());
    let error = error.also(used, "the template is used here");
    let help = format!("bind it in `vars {{ {name} = … }}`; where it may be missing: `{name} | default(…)`");
    errors.push(if error.help.is_empty() { error.help(help) } else { error });
}

/// The first place of a name as a whole word inside `{{ }}` or `{% %}`, as far as a plain search can tell.
fn first_use(text: &str, name: &str) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |at: &usize| {
        let before = text.get(..*at).and_then(|head| head.chars().next_back());
        let after = text.get(at + name.len()..).and_then(|tail| tail.chars().next());
        let inside = text.get(..*at).is_some_and(|head| {
            let open = head.rfind("{{").max(head.rfind("{%"));
            let close = head.rfind("}}").max(head.rfind("%}"));
            open > close
        });
        inside && !before.is_some_and(|c| word(c) || c == '.') && !after.is_some_and(word)
    };
    text.match_indices(name).map(|(at, _)| at).find(whole)
}

/// Whether the template says itself that the name may be missing.
fn guarded(text: &str, name: &str) -> bool {
    let squeezed: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    ["is defined", "is undefined", "is not defined", "is not undefined", "| default", "|default", "| d(", "|d("]
        .iter()
        .any(|guard| squeezed.contains(&format!("{name} {guard}")) || squeezed.contains(&format!("{name}{guard}")))
}

fn read_text(path: &Path) -> Result<String, String> {
    if path.is_dir() {
        return Err(format!("{} is a folder, not a template", path.display()));
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {}", path.display(), reason(&error)))
}

fn read_blob(path: &Path) -> Result<Blob, String> {
    let say = |error: std::io::Error| format!("cannot read {}: {}", path.display(), reason(&error));
    let meta = std::fs::metadata(path).map_err(say)?;
    if meta.is_dir() {
        return Err(format!("{} is a folder, not a file", path.display()));
    }
    if !meta.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    if meta.len() > MOST_BYTES {
        return Err(format!("{} is larger than 1 GiB", path.display()));
    }
    let bytes = std::fs::read(path).map_err(say)?;
    Ok(Blob { digest: Digest::of(&bytes), len: bytes.len() as u64 })
}

/// What the `.dockerignore` of a build context leaves out.
fn ignore_of(folder: &Path, dockerfile: &str) -> Result<Ignore, String> {
    let path = folder.join(".dockerignore");
    match std::fs::read(&path) {
        Ok(bytes) => Ignore::parse(&String::from_utf8_lossy(&bytes), dockerfile)
            .map_err(|message| format!("{}: {message}", path.display())),
        // What is no folder is told by the walk.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Ignore::default()),
        Err(error) => Err(format!("cannot read {}: {}", path.display(), reason(&error))),
    }
}

/// Everything below a folder. Links are kept as links, and must stay inside by their text: a context that reaches out would
/// carry files of the controller away.
fn walk(
    folder: &Path,
    below: &str,
    ignore: &Ignore,
    entries: &mut Vec<TreeEntry>,
    contents: &mut Contents,
) -> Result<(), String> {
    let say = |error: std::io::Error| format!("cannot read {}: {}", folder.display(), reason(&error));
    if !std::fs::metadata(folder).map_err(say)?.is_dir() {
        return Err(format!("{} is not a folder", folder.display()));
    }
    for entry in std::fs::read_dir(folder).map_err(say)? {
        let entry = entry.map_err(say)?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| format!("{}: the name {} is not UTF-8", folder.display(), name.to_string_lossy()))?;
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(say)?;
        if ignore.ignores(&path) {
            if kind.is_dir() && !ignore.leaves_all_of(&path) {
                walk(&entry.path(), &path, ignore, entries, contents)?;
            }
            continue;
        }
        if entries.len() >= MOST_ENTRIES {
            return Err(format!("{} has more than 100,000 entries", folder.display()));
        }
        if kind.is_dir() {
            entries.push(TreeEntry { path: path.clone(), kind: TreeEntryKind::Directory });
            walk(&entry.path(), &path, ignore, entries, contents)?;
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).map_err(say)?.to_string_lossy().into_owned();
            let depth = path.matches('/').count();
            let up = target.split('/').take_while(|part| *part == "..").count();
            if target.starts_with('/') || up > depth {
                return Err(format!("{} is a link that leads out of its folder", entry.path().display()));
            }
            entries.push(TreeEntry { path, kind: TreeEntryKind::Link(target) });
        } else if kind.is_file() {
            use std::os::unix::fs::PermissionsExt as _;
            let blob = read_blob(&entry.path())?;
            contents.remember(entry.path(), blob);
            let mode = kept_mode(entry.metadata().map_err(say)?.permissions().mode());
            entries.push(TreeEntry { path, kind: TreeEntryKind::File { blob, mode } });
        } else {
            return Err(format!("{} is neither file, folder nor link", entry.path().display()));
        }
    }
    Ok(())
}
