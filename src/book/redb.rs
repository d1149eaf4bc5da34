//! The book as a file beside the project, in redb: one controller at a time, each for as long as its transaction takes.
//!
//! A lock file beside the book orders the controllers, and holds a line on who is at it, for the message of those who wait.
//! redb's own lock stands behind it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable as _, TableDefinition, TableError,
};

use super::{
    Commit, Entry, Everything, FORMAT, OwnerKey, Record, Spot, Store, Write, decode, encode, given_away, jitter,
    new_id, now, other_format,
};
use crate::failure::{Context as _, Failure, FailureKind};

/// How long a run waits for another one that is at the book: limit `book_wait`.
pub const BOOK_WAIT: Duration = Duration::from_secs(20);

/// The longest note of a holder that is read, in bytes.
const MOST_NOTE: u64 = 4096;

/// Spot -> revision (8 bytes, big endian), record (JSON).
const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
/// Network and owner -> spot.
const OWNERS: TableDefinition<&str, &str> = TableDefinition::new("owners");
/// What ends by itself, by time.
const ENDS: TableDefinition<(u64, &str), ()> = TableDefinition::new("ends");
/// `format`, `id`, `revision`.
const ABOUT: TableDefinition<&str, &str> = TableDefinition::new("about");

/// A book in a file.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    /// Who this is, for those who wait.
    note: String,
    wait: Duration,
}

/// The lock of the file, for as long as this lives.
struct Held {
    _lock: File,
}

impl FileStore {
    /// The book at a path; nothing is opened or made yet. `run` names this run to others.
    pub fn new(path: &Path, run: &str) -> Self {
        let note = format!("run {run} (process {})", std::process::id());
        Self { path: path.to_owned(), note, wait: BOOK_WAIT }
    }

    /// Waits for others no longer than this, instead of [`BOOK_WAIT`].
    #[must_use]
    pub fn waiting_for(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    fn hold(&self) -> Result<Held, Failure> {
        let path = self.path.with_extension("lock");
        let shown = path.display().to_string();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).with_context(|| format!("cannot open {shown}"))?;
        let until = Instant::now() + self.wait;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_micros(500 + jitter() % 4000));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.take(MOST_NOTE).read_to_string(&mut holder);
                    let holder = Some(holder.trim()).filter(|text| !text.is_empty()).unwrap_or("another process");
                    let message = format!("the address book {} is held by {holder}", self.path.display());
                    let limit = Failure::timeout("book_wait", self.wait).message;
                    return Err(Failure::of(FailureKind::Timeout, message)
                        .because(limit)
                        .hint("several controllers share one book in etcd: `store { etcd = […] }`"));
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {shown}")),
            }
        }
        let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", self.note));
        noted.with_context(|| format!("cannot write {shown}"))?;
        Ok(Held { _lock: file })
    }

    /// The file, for one writing transaction. A new one is made beside its place: whoever is killed meanwhile leaves no half of it.
    fn open(&self, _held: &Held) -> Result<Database, Failure> {
        let say = || format!("cannot open the address book {}", self.path.display());
        if !self.path.exists() {
            let new = self.path.with_extension("new");
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(say),
                _ => {}
            }
            Database::create(&new).and_then(Database::close).with_context(say)?;
            std::fs::rename(&new, &self.path).with_context(say)?;
        }
        Database::open(&self.path).with_context(say)
    }

    /// The file, for reading. One whose writer was killed is mended first, which is writing.
    fn look(&self, held: &Held) -> Result<Box<dyn ReadTransactions>, Failure> {
        match ReadOnlyDatabase::open(&self.path) {
            Ok(database) => Ok(Box::new(database)),
            Err(DatabaseError::RepairAborted) => Ok(Box::new(self.open(held)?)),
            Err(error) => Err(error).with_context(|| format!("cannot open the address book {}", self.path.display())),
        }
    }

    /// Reads; `None` when there is no book yet.
    fn read<T>(&self, read: impl FnOnce(&Reader) -> Result<T, redb::Error>) -> Result<Option<T>, Failure> {
        if !self.path.exists() {
            return Ok(None);
        }
        let held = self.hold()?;
        let database = self.look(&held)?;
        let say = || format!("cannot read the address book {}", self.path.display());
        let transaction = database.begin().with_context(say)?;
        let about = match transaction.open_table(ABOUT) {
            Ok(about) => about,
            // Whoever made it was killed before its first record.
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error).with_context(say),
        };
        let format = about.get("format").with_context(say)?.map_or_else(String::new, |text| text.value().to_owned());
        if format != FORMAT.to_string() {
            return Err(other_format(&self.place(), &format));
        }
        let text = |name: &str| Ok::<_, redb::StorageError>(about.get(name)?.map(|text| text.value().to_owned()));
        let id = text("id").with_context(say)?;
        let revision = text("revision").with_context(say)?.and_then(|text| text.parse().ok()).unwrap_or(0);
        let reader = Reader {
            id,
            revision,
            records: transaction.open_table(RECORDS).with_context(say)?,
            owners: transaction.open_table(OWNERS).with_context(say)?,
            about,
            now: now(),
        };
        read(&reader).map(Some).with_context(say)
    }

    fn write(&self, writes: &[Write], told: Option<(&str, Option<&str>)>) -> Result<Commit, Failure> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.exists()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let held = self.hold()?;
        let database = self.open(&held)?;
        let say = || format!("cannot write the address book {}", self.path.display());
        let id = new_id()?;
        match transact(&database, writes, told, &id).with_context(say)? {
            Ok(commit) => Ok(commit),
            Err(format) => Err(other_format(&self.place(), &format)),
        }
    }

    fn entry(&self, bytes: Option<Vec<u8>>) -> Result<Option<Entry>, Failure> {
        let Some(bytes) = bytes else { return Ok(None) };
        let short = || Failure::new(format!("a record of {} is too short", self.place()));
        let (revision, json) = split(&bytes).ok_or_else(short)?;
        Ok(Some(Entry { record: decode(json, &self.place())?, revision }))
    }
}

/// The name of a fact in the table of all that is no record.
fn fact(name: &str) -> String {
    format!("fact/{name}")
}

/// Either way of having the file open.
trait ReadTransactions {
    fn begin(&self) -> Result<redb::ReadTransaction, redb::TransactionError>;
}

impl<D: ReadableDatabase> ReadTransactions for D {
    fn begin(&self) -> Result<redb::ReadTransaction, redb::TransactionError> {
        self.begin_read()
    }
}

/// What a reading transaction sees.
struct Reader {
    id: Option<String>,
    revision: u64,
    about: redb::ReadOnlyTable<&'static str, &'static str>,
    records: redb::ReadOnlyTable<&'static str, &'static [u8]>,
    owners: redb::ReadOnlyTable<&'static str, &'static str>,
    /// One instant for the whole of it: else a record could end between two looks.
    now: u64,
}

impl Reader {
    /// A record that still counts.
    fn record(&self, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        let bytes = self.records.get(key)?.map(|bytes| bytes.value().to_vec());
        Ok(bytes.filter(|bytes| self.counts(bytes)))
    }

    /// Whether a record, as it stands in the table, still counts.
    fn counts(&self, bytes: &[u8]) -> bool {
        ends(bytes).is_none_or(|until| until > self.now)
    }
}

fn split(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (revision, json) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*revision), json))
}

/// When a stored record ends; one that cannot be read does not.
fn ends(bytes: &[u8]) -> Option<u64> {
    let (_, json) = split(bytes)?;
    serde_json::from_slice::<Record>(json).ok()?.state.until()
}

impl Store for FileStore {
    fn id(&self) -> Result<Option<String>, Failure> {
        Ok(self.read(|reader| Ok(reader.id.clone()))?.flatten())
    }

    fn of_owners(&self, owners: &[OwnerKey]) -> Result<Vec<Option<Entry>>, Failure> {
        let found = self.read(|reader| {
            let record = |owner: &OwnerKey| match reader.owners.get(owner.key().as_str())? {
                Some(spot) => reader.record(spot.value()),
                None => Ok(None),
            };
            owners.iter().map(record).collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let found = found.unwrap_or_else(|| vec![None; owners.len()]);
        found.into_iter().map(|bytes| self.entry(bytes)).collect()
    }

    fn of_spots(&self, spots: &[Spot]) -> Result<Vec<Option<Entry>>, Failure> {
        let found = self.read(|reader| spots.iter().map(|spot| reader.record(&spot.key())).collect())?;
        let found: Vec<Option<Vec<u8>>> = found.unwrap_or_else(|| vec![None; spots.len()]);
        found.into_iter().map(|bytes| self.entry(bytes)).collect()
    }

    fn taken(&self, from: &Spot, to: &Spot, most: usize) -> Result<Vec<Spot>, Failure> {
        let (from, to) = (from.key(), to.key());
        let found = self.read(|reader| {
            let mut found = Vec::new();
            for row in reader.records.range(from.as_str()..=to.as_str())? {
                let (key, bytes) = row?;
                if found.len() < most && reader.counts(bytes.value()) {
                    found.extend(Spot::of_key(key.value()));
                }
                if found.len() == most {
                    break;
                }
            }
            Ok(found)
        })?;
        Ok(found.unwrap_or_default())
    }

    fn all(&self) -> Result<Everything, Failure> {
        let found = self.read(|reader| {
            let (mut records, mut owners) = (Vec::new(), Vec::new());
            for row in reader.records.iter()? {
                let (_, bytes) = row?;
                if reader.counts(bytes.value()) {
                    records.push(bytes.value().to_vec());
                }
            }
            for row in reader.owners.iter()? {
                let (owner, spot) = row?;
                // A key whose record has ended has ended with it.
                let ended = reader.records.get(spot.value())?.is_some_and(|bytes| !reader.counts(bytes.value()));
                if let Some(spot) = Spot::of_key(spot.value()).filter(|_| !ended) {
                    owners.push((owner.value().to_owned(), spot));
                }
            }
            Ok((records, owners))
        })?;
        let (records, owners) = found.unwrap_or_default();
        let entries = records.into_iter().map(|bytes| self.entry(Some(bytes))).collect::<Result<Vec<_>, _>>()?;
        Ok(Everything { entries: entries.into_iter().flatten().collect(), owners })
    }

    fn commit(&self, writes: &[Write]) -> Result<Commit, Failure> {
        self.write(writes, None)
    }

    fn revision(&self) -> Result<u64, Failure> {
        Ok(self.read(|reader| Ok(reader.revision))?.unwrap_or(0))
    }

    fn fact(&self, name: &str) -> Result<Option<String>, Failure> {
        let found =
            self.read(|reader| Ok(reader.about.get(fact(name).as_str())?.map(|text| text.value().to_owned())))?;
        Ok(found.flatten())
    }

    fn set_fact(&self, name: &str, text: Option<&str>) -> Result<(), Failure> {
        self.write(&[], Some((name, text))).map(|_| ())
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// One write transaction; the inner error is the format that stands there instead of ours.
fn transact(
    database: &Database,
    writes: &[Write],
    told: Option<(&str, Option<&str>)>,
    id: &str,
) -> Result<Result<Commit, String>, redb::Error> {
    let transaction = database.begin_write()?;
    let revision = {
        let mut about = transaction.open_table(ABOUT)?;
        let text =
            |about: &redb::Table<&'static str, &'static str>, key: &str| -> Result<Option<String>, redb::Error> {
                Ok(about.get(key)?.map(|value| value.value().to_owned()))
            };
        match text(&about, "format")? {
            None => {
                about.insert("format", FORMAT.to_string().as_str())?;
                about.insert("id", id)?;
            }
            Some(format) if format != FORMAT.to_string() => return Ok(Err(format)),
            Some(_) => {}
        }
        let last: u64 = text(&about, "revision")?.and_then(|text| text.parse().ok()).unwrap_or(0);
        about.insert("revision", (last + 1).to_string().as_str())?;
        match told {
            Some((name, Some(text))) => drop(about.insert(fact(name).as_str(), text)?),
            Some((name, None)) => drop(about.remove(fact(name).as_str())?),
            None => {}
        }
        last + 1
    };
    let done = {
        let mut tables = Tables {
            records: transaction.open_table(RECORDS)?,
            owners: transaction.open_table(OWNERS)?,
            ends: transaction.open_table(ENDS)?,
        };
        tables.purge(now())?;
        let (mut done, given_away) = (true, given_away(writes));
        for write in writes {
            done = done && tables.fits(write, &given_away)?;
        }
        // What goes goes first: an owner may give one away and have another in the same commit.
        for write in writes.iter().filter(|_| done) {
            tables.remove(&write.spot.key())?;
        }
        for write in writes.iter().filter(|_| done) {
            tables.write(write, revision)?;
        }
        done
    };
    if done {
        transaction.commit()?;
        Ok(Ok(Commit::Done(revision)))
    } else {
        transaction.abort()?;
        Ok(Ok(Commit::Conflict))
    }
}

struct Tables<'t> {
    records: redb::Table<'t, &'static str, &'static [u8]>,
    owners: redb::Table<'t, &'static str, &'static str>,
    ends: redb::Table<'t, (u64, &'static str), ()>,
}

impl Tables<'_> {
    /// Takes away what has ended.
    fn purge(&mut self, now: u64) -> Result<(), redb::Error> {
        let mut ended = Vec::new();
        for row in self.ends.range((0, "")..(now.saturating_add(1), ""))? {
            let (key, ()) = {
                let (key, value) = row?;
                (key.value().1.to_owned(), value.value())
            };
            ended.push(key);
        }
        for key in ended {
            self.remove(&key)?;
        }
        Ok(())
    }

    /// Takes a record away, with its owner's key and its end.
    fn remove(&mut self, key: &str) -> Result<(), redb::Error> {
        let Some(bytes) = self.records.remove(key)?.map(|bytes| bytes.value().to_vec()) else { return Ok(()) };
        if let Some(until) = ends(&bytes) {
            self.ends.remove((until, key))?;
        }
        let record = split(&bytes).and_then(|(_, json)| serde_json::from_slice::<Record>(json).ok());
        if let Some(owner) = record.as_ref().and_then(OwnerKey::of) {
            self.owners.remove(owner.key().as_str())?;
        }
        Ok(())
    }

    /// Whether what a write expects is there.
    fn fits(&self, write: &Write, given_away: &impl Fn(&OwnerKey) -> bool) -> Result<bool, redb::Error> {
        let key = write.spot.key();
        let there = self.records.get(key.as_str())?;
        let revision = there.and_then(|bytes| Some(split(bytes.value())?.0)).unwrap_or(0);
        let leads = |owner: &OwnerKey| -> Result<Option<String>, redb::Error> {
            Ok(self.owners.get(owner.key().as_str())?.map(|spot| spot.value().to_owned()))
        };
        let mut fits = revision == write.expect;
        if let Some(owner) = write.owner.as_ref().filter(|_| write.expect > 0) {
            fits = fits && leads(owner)?.as_ref() == Some(&key);
        }
        if let Some(heir) = write.heir().filter(|heir| write.expect == 0 || write.owner.as_ref() != Some(heir)) {
            fits = fits && (given_away(&heir) || leads(&heir)?.is_none());
        }
        Ok(fits)
    }

    fn write(&mut self, write: &Write, revision: u64) -> Result<(), redb::Error> {
        let key = write.spot.key();
        let Some(record) = &write.record else { return Ok(()) };
        let json = encode(record).map_err(|failure| redb::Error::Corrupted(failure.to_string()))?;
        let bytes = [&revision.to_be_bytes(), &json[..]].concat();
        self.records.insert(key.as_str(), &bytes[..])?;
        if let Some(owner) = write.heir() {
            self.owners.insert(owner.key().as_str(), key.as_str())?;
        }
        if let Some(until) = record.state.until() {
            self.ends.insert((until, key.as_str()), ())?;
        }
        Ok(())
    }
}
