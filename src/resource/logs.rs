//! `logs`: how a host keeps the log files of a folder.
//!
//! What is declared stands in `STATE/logs/HASH.json`; the watcher reads it and does what it says (`watch::keeper`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::param::{HostPath, Param, Presence, Size};
use super::{ArgError, Declared as _, Observed, ParamType, Resource};
use crate::change::{Change, Datum, Fields, State, Verb};
use crate::failure::{Context as _, Failure};
use crate::logs::codec::Codec;
use crate::logs::policy::{self, Place, Policy, Shipping};
use crate::logs::target::Target;
use crate::system::fs::{Attrs, EntryKind};
use crate::system::{Actuator, Probe};
use crate::value::{Digest, Map, Value};

crate::choice! {
    /// How closed files are compressed.
    pub enum Pack {
        /// gzip: every tool reads it.
        Gzip = "gzip",
        /// Zstandard: several times as fast, and smaller.
        Zstd = "zstd",
    }
}

crate::choice! {
    /// What a limit does to a file of which no copy is stored.
    pub enum Unshipped {
        /// It stays.
        Keep = "keep",
        /// It is removed, after all that are stored.
        Drop = "drop",
    }
}

impl Param for Target {
    const TYPE: ParamType = ParamType::Str;
    fn read(value: Value) -> Result<Self, String> {
        let text = String::read(value)?;
        text.parse().map_err(|why| format!("`{text}` {why}"))
    }
    fn show(&self) -> String {
        format!("\"{self}\"")
    }
    fn value(&self) -> Value {
        Value::Str(self.to_string())
    }
}

crate::kind! {
    /// Keeps the log files that `fanli log-pipe` writes into a folder: compresses them, stores copies elsewhere, and removes what is over a limit.
    ///
    /// What is declared stays on the host, and the host's watcher does it: right after a change, and then every hour, without a run, without the
    /// controller and when the container is gone. `fanli logs plan` on the host tells what it would do now, `fanli status` what it could
    /// not do. Only files with a seal are touched, and none that is being written.
    ///
    /// With `ship` each file has a copy elsewhere once it is closed (and compressed, where `pack` is declared). A copy is compared with the file before it
    /// counts, and no limit removes a file without one, unless `unshipped = drop`.
    ///
    /// Within a folder the oldest file goes first. Where a disk is short of room, the folder that holds most gives, among those that are
    /// declared with the same limits. docs/logs.md tells the rest.
    pub struct Logs = "logs" {
        /// The folder, with all that is below it. It must exist.
        folder: HostPath,
        /// How closed files are compressed. Not declared: they are not.
        pack: Option<Pack>,
        /// How long after the end of its period a file is compressed.
        pack_after: Duration = Duration::from_secs(3600),
        /// How long a file is kept after the end of its period.
        age: Option<Duration>,
        /// The most that the folder's files take on the disk.
        size: Option<Size>,
        /// The most files.
        count: Option<i64>,
        /// What is to stay free on the disk.
        floor: Option<Size>,
        /// Where copies are stored: a directory on another file system, `rsync://HOST/MODULE/PATH`, `USER@HOST:/PATH` by rsync over ssh, or
        /// `s3://BUCKET/PREFIX`.
        ship: Option<Target>,
        /// The file on the host with the private key for ssh, with the password for an rsync daemon, or with the account for S3 (in the format
        /// of `~/.aws/config`).
        ship_key: Option<HostPath>,
        /// The most that is sent in a second.
        ship_rate: Option<Size>,
        /// What a limit does to files without a copy: `keep` by default.
        unshipped: Option<Unshipped>,
        /// Whether it is to be done. `absent` leaves the files as they are.
        state: Presence = Presence::Present,
    }
    example r#"logs "/srv/fanli-example/logs" { pack = zstd  age = 30d }"#
}

/// The parameters that say what is done.
const LIMITS: [&str; 10] =
    ["pack", "pack_after", "age", "size", "count", "floor", "ship", "ship_key", "ship_rate", "unshipped"];

/// The record of one folder.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The arguments of the task.
    args: Map,
}

/// What the keeper of a host has done last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// When: seconds since 1970; 0 before the first time.
    pub at: u64,
    /// How many folders are declared.
    pub folders: usize,
    /// How many files were there afterwards, and what they take on the disk.
    pub files: usize,
    /// See `files`.
    pub bytes: u64,
    /// What could not be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
    /// The copies, where a folder is declared with `ship`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipped: Option<Shipped>,
}

/// What became of copies, when they were made last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// When: seconds since 1970.
    pub at: u64,
    /// How many files had no copy afterwards, and what they take on the disk.
    pub waiting: usize,
    /// See `waiting`.
    pub bytes: u64,
    /// The end of the period of the oldest of them: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<i64>,
    /// What could not be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
}

impl Kept {
    /// Everything that could not be done.
    pub fn all_trouble(&self) -> impl Iterator<Item = &String> {
        self.trouble.iter().chain(self.shipped.iter().flat_map(|shipped| &shipped.trouble))
    }
}

/// The folder of records.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("logs")
}

/// What is declared for this host's folders; each damaged record for itself.
///
/// # Errors
/// The folder of records cannot be read.
pub fn declared(probe: &Probe) -> Result<Vec<Result<Logs, Failure>>, Failure> {
    let place = folder(probe.state_dir());
    let names = probe.record_names(&place)?;
    Ok(names.iter().filter_map(|name| read(probe, &place.join(name)).transpose()).collect())
}

fn read(probe: &Probe, path: &Path) -> Result<Option<Logs>, Failure> {
    let Some(text) = probe.read_small(path)? else { return Ok(None) };
    let damaged = || format!("{} is damaged", path.display());
    let record: Record = serde_json::from_str(&text).with_context(damaged)?;
    let logs = Logs::from_args(record.args)
        .map_err(|errors| errors.into_iter().fold(Failure::new(damaged()), Failure::because));
    logs.map(Some).map_err(|failure| failure.hint("remove it: the next play writes it again"))
}

/// Folders with the same limits, together: where a disk is short of room, the one of them that holds most gives.
pub fn grouped(declared: impl IntoIterator<Item = Logs>) -> Vec<(Policy, Vec<Place>)> {
    let mut groups: Vec<(Policy, Vec<Place>)> = Vec::new();
    for logs in declared {
        let (policy, place) = (logs.policy(), logs.place());
        match groups.iter_mut().find(|(known, _)| *known == policy) {
            Some((_, places)) => places.push(place),
            None => groups.push((policy, vec![place])),
        }
    }
    groups
}

impl Logs {
    /// The folder.
    pub fn path(&self) -> &Path {
        Path::new(&self.folder.0)
    }

    /// What is kept, and how.
    pub fn policy(&self) -> Policy {
        let codec = self.pack.map(|pack| match pack {
            Pack::Gzip => Codec::Gzip,
            Pack::Zstd => Codec::Zstd,
        });
        Policy {
            pack: codec.map(|codec| (codec, self.pack_after)),
            age: self.age,
            size: self.size.map(|size| size.0),
            count: self.count.and_then(|count| usize::try_from(count).ok()),
            floor: self.floor.map(|size| size.0),
        }
    }

    /// The folder, and where its copies are stored.
    pub(super) fn place(&self) -> Place {
        let ship = self.ship.clone().map(|to| Shipping {
            to,
            key: self.ship_key.as_ref().map(|path| path.0.clone().into()),
            rate: self.ship_rate.map(|size| size.0),
            unshipped: match self.unshipped {
                Some(Unshipped::Drop) => policy::Unshipped::Drop,
                Some(Unshipped::Keep) | None => policy::Unshipped::Keep,
            },
        });
        Place { path: self.folder.0.clone().into(), ship }
    }

    /// Refuses what says how copies are made where none are, and what cannot be meant.
    fn check_ship(&self) -> Result<(), ArgError> {
        let with_ship = [
            ("ship_key", self.ship_key.is_some()),
            ("ship_rate", self.ship_rate.is_some()),
            ("unshipped", self.unshipped.is_some()),
        ];
        if self.ship.is_none()
            && let Some((name, _)) = with_ship.into_iter().find(|(_, declared)| *declared)
        {
            return Err(ArgError::new(name, "goes with `ship`, which is not declared"));
        }
        match &self.place().ship {
            Some(ship) => ship.check().map_err(|(name, why)| ArgError::new(name, why)),
            None => Ok(()),
        }
    }

    fn record(&self, probe: &Probe) -> PathBuf {
        let name = Digest::of(self.folder.0.as_bytes()).short();
        folder(probe.state_dir()).join(format!("{name}.json"))
    }

    /// What it says of each limit: the same of the declaration and of the record.
    fn fields(&self) -> Fields {
        let args = self.args();
        let said = |name: &str| args.get(name).filter(|value| **value != Value::Null).cloned();
        LIMITS.iter().map(|name| ((*name).to_owned(), said(name).map_or(Datum::Absent, Datum::Value))).collect()
    }

    /// Refuses a folder that another declaration has above or below it: two would count the same files.
    fn refuse_overlap(&self, probe: &Probe) -> Result<(), Failure> {
        let own = Path::new(&self.folder.0);
        for other in declared(probe)?.into_iter().flatten() {
            let theirs = Path::new(&other.folder.0);
            if own != theirs && (own.starts_with(theirs) || theirs.starts_with(own)) {
                return Err(Failure::new(format!("{} and {} overlap", own.display(), theirs.display()))
                    .because("both are declared as folders of logs on this host, and would count the same files")
                    .hint(format!(
                        "declare one of them, and take the other away: `logs \"{}\" {{ state = absent }}`",
                        theirs.display()
                    )));
            }
        }
        Ok(())
    }
}

impl Resource for Logs {
    fn check(&self) -> Result<(), ArgError> {
        if self.count.is_some_and(|count| count < 0) {
            return Err(ArgError::new("count", "is below 0"));
        }
        self.check_ship()?;
        let says = self.ship.is_some()
            || self.pack.is_some()
            || self.age.is_some()
            || self.size.is_some()
            || self.count.is_some()
            || self.floor.is_some();
        match (self.state, says) {
            (Presence::Present, false) => Err(ArgError::new(
                "",
                "nothing is to be done: declare `ship`, `pack`, `age`, `size`, `count` or `floor`",
            )),
            _ => Ok(()),
        }
    }

    fn desired(&self) -> State {
        match self.state {
            Presence::Present => State::Present(self.fields()),
            Presence::Absent => State::Absent,
        }
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        if self.state == Presence::Present {
            self.refuse_overlap(probe)?;
        }
        Ok(match read(probe, &self.record(probe)) {
            Ok(None) => State::Absent,
            Ok(Some(known)) => State::Present(known.fields()),
            // It is written anew.
            Err(_) => State::Present(Fields::new()),
        }
        .into())
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let record = self.record(hands);
        if change.verb == Verb::Remove {
            hands.remove_file(&record)?;
            return Ok(Map::new());
        }
        let there = hands.stat_following(&self.folder.0)?.is_some_and(|entry| entry.kind == EntryKind::Directory);
        if !there {
            return Err(Failure::new(format!("there is no directory {}", self.folder.0))
                .hint("put a `directory` task for it before this one"));
        }
        hands.own_dirs([hands.state_dir(), &folder(hands.state_dir())])?;
        let text = serde_json::to_vec(&Record { args: self.args() }).context("the record cannot be written")?;
        hands.replace(&record, &text, Attrs::mode(0o600))?;
        Ok(Map::new())
    }
}
