//! What the tests of kinds share: a host's two doors without engine and wire, and pictures of a tree to compare.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test binary and module uses its own part"
)]

pub mod chance;
pub mod keeper;
pub mod kept_lab;
pub mod session;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use fanli::change::{Change, between};
use fanli::failure::Failure;
use fanli::resource::Resource;
use fanli::resource::kinds::Kind;
use fanli::system::{Actuator, BlobFuture, BlobSource, Probe};
use fanli::value::{Blob, Digest, Map, Value};

/// The program under test: the release binary when `tests/run` names it, as that is what users get.
pub fn fanli() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| std::env::var("FANLI_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fanli").to_owned()))
}

/// Contents in memory: what the controller would send.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<Digest, Arc<[u8]>>>);

impl BlobSource for Memory {
    fn get(&self, digest: Digest) -> BlobFuture<'_> {
        let found = self.0.lock().unwrap().get(&digest).cloned();
        let missing = move || Failure::new(format!("content {} is not in memory", digest.short()));
        Box::pin(async move { found.ok_or_else(missing) })
    }
}

/// This machine as a kind sees it: a probe, hands, contents, and a state folder that goes away with it.
pub struct Bench {
    pub probe: Probe,
    blobs: Arc<Memory>,
    runtime: tokio::runtime::Runtime,
    _state: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Memory::default());
        let probe = Probe::new(Arc::clone(&blobs) as _, Arc::new(|_, _| {}), state.path().to_owned());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { probe, blobs, runtime, _state: state }
    }

    /// Keeps bytes and gives the value that a parameter of type file or template takes.
    pub fn blob(&self, bytes: &[u8]) -> Value {
        let blob = Blob { digest: Digest::of(bytes), len: bytes.len() as u64 };
        self.blobs.0.lock().unwrap().insert(blob.digest, bytes.into());
        Value::Blob(blob)
    }

    /// Runs a future to its end.
    pub fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Hands: what the engine makes when it applies.
    pub fn hands(&self) -> Actuator {
        Actuator::new(&self.probe)
    }

    /// What check mode does: looks, and compares.
    pub fn plan(&self, kind: &Kind) -> Result<Option<Change>, Failure> {
        let observed = self.block(kind.observe(&self.probe))?;
        Ok(between(&kind.desired(), &observed.state))
    }

    /// Applies a change.
    pub fn apply(&self, kind: &Kind, change: &Change) -> Result<Map, Failure> {
        self.block(kind.apply(change, &self.hands()))
    }

    /// Observe, plan, apply, verify. Gives what was changed; panics when it did not converge.
    pub fn converge(&self, kind: &Kind) -> Result<Option<Change>, Failure> {
        let Some(change) = self.plan(kind)? else { return Ok(None) };
        self.apply(kind, &change)?;
        let left = self.plan(kind)?;
        assert_eq!(left, None, "did not converge: {kind:?}");
        Ok(Some(change))
    }

    /// The names of the fields that differ; `["*create"]` or `["*remove"]` when the whole thing does.
    pub fn drift(&self, kind: &Kind) -> Vec<String> {
        use fanli::change::Verb;
        match self.plan(kind).unwrap() {
            None => Vec::new(),
            Some(Change { verb: Verb::Create, .. }) => vec!["*create".to_owned()],
            Some(Change { verb: Verb::Remove, .. }) => vec!["*remove".to_owned()],
            Some(change) => change.fields.into_iter().map(|change| change.field).collect(),
        }
    }
}

/// A kind from its parameters.
pub fn build(kind: &str, args: Map) -> Kind {
    Kind::build(kind, args).unwrap_or_else(|errors| panic!("{kind}: {errors:?}"))
}

/// The text that a wrong argument gives.
pub fn refused(kind: &str, args: Map) -> String {
    match Kind::build(kind, args) {
        Ok(built) => panic!("accepted: {built:?}"),
        Err(errors) => {
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>().join("\n")
        }
    }
}

/// `args! { "path" => "/x", "mode" => Value::Mode(0o644) }`
#[macro_export]
macro_rules! args {
    ($($name:literal => $value:expr),* $(,)?) => {
        fanli::value::Map::from([$(($name.to_owned(), fanli::value::Value::from($value))),*])
    };
}

/// A picture of everything at and below a path: kind, mode, owner, time, bytes, link target. Two equal pictures: nothing was touched.
pub fn picture(root: &Path) -> String {
    let mut out = String::new();
    paint(root, &mut out);
    out
}

fn paint(path: &Path, out: &mut String) {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
    let _ = write!(out, "{} {mode:o} {uid}:{gid} {}.{:09}", path.display(), meta.mtime(), meta.mtime_nsec());
    if meta.is_symlink() {
        let _ = writeln!(out, " -> {}", std::fs::read_link(path).unwrap().display());
    } else if meta.is_file() {
        let _ = writeln!(out, " {} {}", Digest::of(&std::fs::read(path).unwrap()).short(), meta.nlink());
    } else {
        out.push('\n');
    }
    if meta.is_dir() {
        let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for name in names {
            paint(&name, out);
        }
    }
}

/// Whether this runs as root; changing owners needs it.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A request to plan a playbook, with nothing chosen and check mode on.
pub fn request(playbook: std::path::PathBuf) -> fanli::plan::PlanRequest {
    let (step_limit, lock_wait) = (std::time::Duration::from_secs(60), std::time::Duration::ZERO);
    fanli::plan::PlanRequest {
        playbook,
        env: None,
        set: std::collections::BTreeMap::new(),
        limit: None,
        tags: Vec::new(),
        skip_tags: Vec::new(),
        run: "tests".to_owned(),
        options: fanli::plan::RunOptions { check: true, diff: false, step_limit, lock_wait: Some(lock_wait) },
        part: fanli::plan::Part::All,
    }
}
