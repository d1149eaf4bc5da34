//! The address book: who has which address, so that no address is ever given twice, whoever runs at the same time.
//!
//! A [`Store`] keeps records and knows one way to change them: all of some writes, or none when another was faster. Two
//! stores do so: a file beside the project ([`redb`]) and etcd for several controllers ([`etcd`]). What the records mean,
//! and who gets what, stands above them in [`rules`], once.

pub mod compare;
pub mod etcd;
mod gateway;
mod moves;
pub mod redb;
pub mod rules;
pub mod spot;
pub mod view;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::failure::{Context as _, Failure, FailureKind};
pub use moves::{Predecessor, earlier_of};
pub use rules::{Asked, Book, Bound, Refused};
pub use spot::{Candidates, Lan, Spot};
pub use view::View;

/// The format of what stores hold; another one is refused.
pub const FORMAT: u32 = 1;

/// Where a book is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file beside the project, for one controller at a time.
    File(PathBuf),
    /// etcd, for any number of controllers.
    Etcd {
        /// `http://10.0.0.5:2379`, one for each member; any of them will do.
        endpoints: Vec<String>,
        /// What every key begins with: `/fanli/shop`.
        prefix: String,
    },
}

/// What stands in the book of one spot. A spot without a record is free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The network's name in the playbook.
    pub network: String,
    /// What is held.
    pub spot: Spot,
    /// Whose it is: a slot such as `web/1`, never a container's id. Manual reservations and foreign addresses have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The host that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its MAC address, where one was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// How sure it is.
    pub state: State,
    /// What people say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The run that wrote it.
    pub run: String,
    /// When it came into this state, in seconds since 1970.
    pub since: u64,
}

/// How sure a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Promised to a run that has not begun yet; free again at that time, in seconds since 1970.
    Reserved {
        /// The time.
        until: u64,
    },
    /// A container may be using it. Never ends by itself.
    Bound,
    /// Given back, and kept from others until then, in seconds since 1970: neighbours may still remember it.
    Releasing {
        /// The time.
        until: u64,
    },
    /// Kept out of the pool by hand.
    Static,
    /// Seen in use by something that is not ours.
    Foreign,
}

impl State {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reserved { .. } => "reserved",
            Self::Bound => "bound",
            Self::Releasing { .. } => "releasing",
            Self::Static => "static",
            Self::Foreign => "foreign",
        }
    }

    /// When it ends by itself, in seconds since 1970.
    pub fn until(self) -> Option<u64> {
        match self {
            Self::Reserved { until } | Self::Releasing { until } => Some(until),
            Self::Bound | Self::Static | Self::Foreign => None,
        }
    }
}

/// A record as a store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// When it was written last: a number that grows with every write to the store, never 0.
    pub revision: u64,
}

/// The name of an owner: unique within its network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKey {
    /// The network.
    pub network: String,
    /// The slot: `web/1`.
    pub owner: String,
}

impl OwnerKey {
    /// The owner of a record.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        record.owner.as_ref().map(|owner| Self { network: record.network.clone(), owner: owner.clone() })
    }

    /// The key under which stores keep it; the network's name cannot end early in it.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.network.replace('%', "%25").replace('/', "%2f"), self.owner)
    }
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whose record.
    pub spot: Spot,
    /// The owner in the record that stands there; of a new one, its own. Whose it is afterwards, the record says.
    pub owner: Option<OwnerKey>,
    /// The revision that must still stand there; 0 when there must be no record. Who becomes an owner must have had nothing before, or
    /// give it away in the same commit.
    pub expect: u64,
    /// What shall stand there; `None` takes it away.
    pub record: Option<Record>,
}

impl Write {
    /// Whose it is afterwards.
    pub(crate) fn heir(&self) -> Option<OwnerKey> {
        self.record.as_ref().and_then(OwnerKey::of)
    }
}

/// Owners that give away what they have in a commit, and may have something else after it.
fn given_away(writes: &[Write]) -> impl Fn(&OwnerKey) -> bool {
    let leave = |write: &&Write| write.expect > 0 && write.heir() != write.owner;
    let gone: Vec<OwnerKey> = writes.iter().filter(leave).filter_map(|write| write.owner.clone()).collect();
    move |owner| gone.contains(owner)
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// All of it was written, at this revision.
    Done(u64),
    /// Another one was faster: nothing was written.
    Conflict,
}

/// The most writes of one commit: etcd takes 128 operations, and a write may be two.
pub const MOST_WRITES: usize = 60;

/// Keeps records. Every method may wait for others, up to a limit that its error names.
///
/// What holds at any instant, for any number of callers that may be killed at any instruction: a spot has at most one record, an owner at
/// most one spot, and both always agree. A reserved or releasing record whose time has come is gone, with its owner's key.
pub trait Store: Send + Sync {
    /// The store's name for itself: random, made once, by the first write.
    fn id(&self) -> Result<Option<String>, Failure>;
    /// The records of some owners, in their order.
    fn of_owners(&self, owners: &[OwnerKey]) -> Result<Vec<Option<Entry>>, Failure>;
    /// The records of some spots, in their order.
    fn of_spots(&self, spots: &[Spot]) -> Result<Vec<Option<Entry>>, Failure>;
    /// Spots that have a record, from one to another (both included), in order, `most` at most.
    fn taken(&self, from: &Spot, to: &Spot, most: usize) -> Result<Vec<Spot>, Failure>;
    /// Every record, in the order of spots, and every owner's key with the spot it leads to.
    fn all(&self) -> Result<Everything, Failure>;
    /// Does all of some writes or none: at most [`MOST_WRITES`], each spot once.
    fn commit(&self, writes: &[Write]) -> Result<Commit, Failure>;
    /// The revision of the last write to it; 0 when there was none.
    fn revision(&self) -> Result<u64, Failure>;
    /// Something that the store remembers beside its records, under a name of letters.
    fn fact(&self, name: &str) -> Result<Option<String>, Failure>;
    /// Remembers that, or forgets it. The last one that says so is right.
    fn set_fact(&self, name: &str, text: Option<&str>) -> Result<(), Failure>;
    /// Where it is, for messages.
    fn place(&self) -> String;
}

/// What a store holds, both ways.
#[derive(Clone, Debug, Default)]
pub struct Everything {
    /// Every record, in the order of spots.
    pub entries: Vec<Entry>,
    /// Every owner's key, as the store writes it, with its spot.
    pub owners: Vec<(String, Spot)>,
}

/// Opens the store of a place; nothing is asked and nothing made yet.
///
/// # Errors
/// An endpoint that cannot be asked.
pub fn open(place: &Place, run: &str) -> Result<Box<dyn Store>, Failure> {
    Ok(match place {
        Place::File(path) => Box::new(redb::FileStore::new(path, run)),
        Place::Etcd { endpoints, prefix } => Box::new(etcd::EtcdStore::new(endpoints, prefix)?),
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// A new random name for a store.
fn new_id() -> Result<String, Failure> {
    let bytes = crate::system::random::random_bytes::<16>().context("cannot read /dev/urandom")?;
    Ok(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

/// A number to wait by, so that those who met do not meet again.
fn jitter() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::from(since.subsec_nanos()) ^ u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn encode(record: &Record) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(record)
        .map_err(|error| Failure::of(FailureKind::Internal, "a record cannot be written").because(error))
}

fn decode(bytes: &[u8], place: &str) -> Result<Record, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::new(format!("the address book at {place} holds a record that cannot be read"))
            .because(error)
            .hint("was it written by a newer fanli, or by hand?")
    })
}

fn other_format(place: &str, found: &str) -> Failure {
    Failure::new(format!("the address book at {place} has format {found}; this fanli knows format {FORMAT}"))
        .hint("use the fanli that wrote it, or a newer one")
}
