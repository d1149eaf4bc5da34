//! Reads a playbook, its environment and all that they import.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::find::{Missing, find, nearest_file, project_root, tidy};
use super::model::{Layer, Playbook};
use super::{names, resolve, set};
use crate::diagnostic::Diagnostic;
use crate::expr;
use crate::source::{Sources, Span, reason};
use crate::syntax::ast::{Ast, Expr, Item, StatementKind};
use crate::syntax::parse;
use crate::value::{Map, Value};

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The playbook.
    pub path: PathBuf,
    /// `--env NAME`; without it `local`, when `env/local.fp` stands beside the playbook.
    pub env: Option<String>,
    /// What `--set` binds, as it was typed; the names count as known.
    pub set: BTreeMap<String, String>,
}

/// The longest source file and all of them together, in bytes.
const MOST_FILE: u64 = 4 * 1024 * 1024;
const MOST_TOTAL: u64 = 64 * 1024 * 1024;

/// How deep imports may stand in imports, and how many files a playbook may have.
const MOST_DEPTH: usize = 32;
const MOST_FILES: usize = 1000;

/// The environment when none is named.
const DEFAULT_ENV: &str = "local";

/// Loads and checks a playbook. Whatever could be read comes back even when there are errors, so that planning can find
/// more of them.
pub fn load(request: &Request, sources: &mut Sources) -> (Playbook, Vec<Diagnostic>) {
    let folder = match request.path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut loader = Loader {
        root: project_root(&folder),
        env: request.env.clone().unwrap_or_else(|| DEFAULT_ENV.to_owned()),
        sources,
        errors: Vec::new(),
        trees: Vec::new(),
        seen: BTreeSet::new(),
        path: Vec::new(),
        bytes: 0,
        torn: false,
    };
    let environment = tidy(&folder.join("env").join(format!("{}.fp", loader.env)));
    if !name_is_plain(&loader.env) {
        let message = format!("--env: `{}` is not a name for an environment", loader.env);
        let error = Diagnostic::new(Span::NOWHERE, message).help("it has letters, digits, `_` and `-`, without `.fp`");
        loader.fail(with_environments(error, &folder));
    } else if environment.is_file() {
        // First, so that the playbook's own import of it finds it loaded, as the environment.
        loader.file(&environment, Layer::Environment, None, 0);
    } else if request.env.is_some() {
        let message = format!("--env: there is no environment `{}`: no file {}", loader.env, environment.display());
        loader.fail(with_environments(Diagnostic::new(Span::NOWHERE, message), &folder));
    }
    loader.file(&request.path, Layer::Playbook, None, 0);
    let Loader { root, env, sources, mut errors, trees, torn, .. } = loader;
    let mut playbook = Playbook { folder, root, env, torn, ..Playbook::default() };
    // With a part missing, what is left would be full of names that nothing binds.
    if !playbook.torn {
        errors.extend(resolve::resolve(&trees, &mut playbook));
    }
    playbook.set = set::values(&playbook, &request.set, &mut errors);
    if !playbook.torn {
        let (wrong, names) = names::check(&playbook, &request.set.keys().cloned().collect(), sources);
        errors.extend(wrong);
        playbook.names = names;
    }
    (playbook, errors)
}

/// One parsed file and the layer that its variables belong to.
pub(super) struct Tree {
    pub(super) ast: Ast,
    pub(super) layer: Layer,
}

struct Loader<'a> {
    root: PathBuf,
    env: String,
    sources: &'a mut Sources,
    errors: Vec<Diagnostic>,
    trees: Vec<Tree>,
    /// Device and inode: one file is one file, however its path is spelled.
    seen: BTreeSet<(u64, u64)>,
    /// The files from the first one to the one that is being read, to see circles.
    path: Vec<((u64, u64), PathBuf)>,
    bytes: u64,
    torn: bool,
}

/// What reading a file gives.
enum Read {
    Text(String, (u64, u64)),
    /// It was read before.
    Known,
}

impl Loader<'_> {
    /// An error that leaves a part of the playbook missing.
    fn fail(&mut self, error: Diagnostic) {
        self.errors.push(error);
        self.torn = true;
    }

    fn file(&mut self, path: &Path, layer: Layer, from: Option<Span>, depth: usize) {
        let at = from.unwrap_or(Span::NOWHERE);
        if depth > MOST_DEPTH || self.seen.len() >= MOST_FILES {
            let limit = if depth > MOST_DEPTH { "32 imports deep" } else { "1000 files" };
            self.fail(Diagnostic::new(at, format!("a playbook may not be more than {limit}")));
            return;
        }
        let (text, id) = match self.read(path, at) {
            Ok(Read::Text(text, id)) => (text, id),
            Ok(Read::Known) => return,
            Err(error) => return self.fail(*error),
        };
        let number = self.sources.add(path, &text);
        let (ast, errors) = parse(number, &text);
        self.errors.extend(errors);
        self.torn |= !ast.whole;
        let imports: Vec<Expr> = ast.body.iter().filter_map(imported).cloned().collect();
        self.path.push((id, path.to_owned()));
        for import in imports {
            self.import(&import, path, layer, depth);
        }
        self.path.pop();
        self.trees.push(Tree { ast, layer });
    }

    /// The text of a file, unless it was read before. `at` is the import that names it.
    fn read(&mut self, path: &Path, at: Span) -> Result<Read, Box<Diagnostic>> {
        let shown = path.display();
        let say = |error: std::io::Error| {
            Box::new(match error.kind() {
                std::io::ErrorKind::NotFound => {
                    let error = Diagnostic::new(at, format!("there is no file {shown}"));
                    match nearest_file(path) {
                        Some(near) => error.help(format!("did you mean {}?", near.display())),
                        None => error,
                    }
                }
                _ => Diagnostic::new(at, format!("cannot read {shown}: {}", reason(&error))),
            })
        };
        let meta = std::fs::metadata(path).map_err(say)?;
        if !meta.is_file() {
            let what = if meta.is_dir() { "a folder" } else { "no regular file" };
            return Err(Box::new(Diagnostic::new(at, format!("{shown} is {what}; a playbook is one file"))));
        }
        let id = (meta.dev(), meta.ino());
        if let Some(start) = self.path.iter().position(|(known, _)| *known == id) {
            let files = self.path.iter().skip(start).map(|(_, path)| path.display().to_string());
            let around: Vec<String> = files.chain([shown.to_string()]).collect();
            let error = Diagnostic::new(at, format!("imports go in a circle: {}", around.join(" -> ")));
            return Err(Box::new(error.help("take what both files need into a third one")));
        }
        if !self.seen.insert(id) {
            return Ok(Read::Known);
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(say)?;
        file.take(MOST_FILE + 1).read_to_end(&mut bytes).map_err(say)?;
        self.bytes += bytes.len() as u64;
        if bytes.len() as u64 > MOST_FILE || self.bytes > MOST_TOTAL {
            let error = Diagnostic::new(at, format!("{shown} is too large: a file may have 4 MiB, a playbook 64 MiB"));
            return Err(Box::new(
                error.help("large contents stand in files of their own: `file \"…\" { source = \"…\" }`"),
            ));
        }
        String::from_utf8(bytes).map(|text| Read::Text(text, id)).map_err(|error| {
            // Notepad and PowerShell write UTF-16, with a mark at its begin.
            let utf16 = [[0xFF, 0xFE], [0xFE, 0xFF]].iter().any(|mark| error.as_bytes().starts_with(mark));
            let from = error.utf8_error().valid_up_to();
            let byte = error.as_bytes().get(from).copied().unwrap_or_default();
            // Shown with a stand-in for what is no character; everything before keeps its place.
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let start = u32::try_from(from).unwrap_or(u32::MAX);
            let span = Span { file: self.sources.add(path, &text), start, end: start + 3 };
            let error = Diagnostic::new(span, format!("the file is not UTF-8: the byte 0x{byte:02X} is no character"));
            let (name, from) = if utf16 { ("UTF-16", "utf-16") } else { ("Latin-1", "latin1") };
            Box::new(error.help(format!("save it as UTF-8; from {name}: `iconv -f {from} -t utf-8`")))
        })
    }

    fn import(&mut self, import: &Expr, importer: &Path, layer: Layer, depth: usize) {
        let scope = Map::from([("env".to_owned(), Value::from(self.env.as_str()))]);
        let relative = match expr::evaluate(import, &scope) {
            Ok(Value::Str(text)) => text,
            Ok(other) => {
                let message = format!("an import takes a path, not a {}", other.type_name());
                self.fail(Diagnostic::new(import.span, message).help("write `import \"roles/web.fp\"`"));
                return;
            }
            Err(error) => {
                let help = "an import can use `env` alone: files are read before anything else is known";
                self.fail(Diagnostic::new(error.span, error.message).help(help));
                return;
            }
        };
        let beside = importer.parent().unwrap_or(Path::new("."));
        match find(&relative, beside, &self.root) {
            Ok(path) => {
                let in_env = path.parent().is_some_and(|parent| parent.ends_with("env"));
                let layer = if in_env { Layer::Environment } else { layer };
                self.file(&path, layer, Some(import.span), depth + 1);
            }
            Err(Missing { message, help }) => {
                let error = Diagnostic::new(import.span, message);
                let error = if relative.starts_with("env/") {
                    with_environments(error, beside)
                } else {
                    help.into_iter().fold(error, Diagnostic::help)
                };
                self.fail(error);
            }
        }
    }
}

fn imported(item: &Item) -> Option<&Expr> {
    match item {
        Item::Statement(statement) => match &statement.kind {
            StatementKind::Import(path) => Some(path),
            _ => None,
        },
        _ => None,
    }
}

fn name_is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Says which environments there are.
fn with_environments(error: Diagnostic, folder: &Path) -> Diagnostic {
    let entries = std::fs::read_dir(folder.join("env")).into_iter().flatten().flatten();
    let mut found: Vec<String> =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".fp")?.to_owned())).collect();
    found.sort();
    if found.is_empty() {
        return error.help("an environment is a file env/NAME.fp beside the playbook, with `hosts` and `vars`");
    }
    error.help(format!("choose one with `--env NAME`; there are: {}", found.join(", ")))
}
