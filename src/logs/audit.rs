//! Accounts for the segments of a folder: those that are here hold what their seals say, those that are gone were removed by a limit, and the copies
//! are where they were stored.
//!
//! A keeper may be at work meanwhile. It writes into the ledger before a file goes, and the ledger is read after the folder, without the copies that
//! were stored since: so nothing that it does looks like a loss.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::codec::Codec;
use super::folder::{Folder, Segment, State, is_plain_file};
use super::ledger::{Entry, Event, Key, Ledger, key, month};
use super::parcel::Parcel;
use super::policy::{Place, Shipping};
use super::seal::{Seal, Why, sum};
use super::ship::{Known, lengths};
use crate::failure::Failure;
use crate::visible::count;

/// The most findings, events and troubles of a folder that are told one by one, each.
const MOST_TOLD: usize = 100;

/// The most copies that are looked for together, and the most bytes of their paths: what rsync says of them must be kept whole.
const TOGETHER: (usize, usize) = (500, 48 * 1024);

/// What is known of the segments of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The folder.
    pub path: String,
    /// The closed segments that are here and hold what their seals say.
    pub whole: Amount,
    /// How many segments are being written.
    pub writing: usize,
    /// How many segments were left by writers that were killed, and are not closed yet.
    pub left: usize,
    /// How many files have no seal: nothing is known of them.
    pub unsealed: usize,
    /// The lines that writers have left out, by the seals that are here, and their bytes.
    pub dropped_lines: u64,
    /// See `dropped_lines`.
    pub dropped_bytes: u64,
    /// The copies, where the folder has a target for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
    /// What happened to the segment that was asked for, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Happened>,
    /// What is wrong with single segments: the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// How many more there are.
    #[serde(default)]
    pub more_findings: usize,
    /// What could not be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
}

/// Which segments are accounted for; all by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Those whose period ended no longer ago than this.
    pub since: Option<Duration>,
    /// The one of this path below the folder, or of this name.
    pub segment: Option<String>,
}

/// An event of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// The segment's path below the folder.
    pub segment: String,
    /// When, as RFC 3339 has it.
    pub at: String,
    /// What: `begun`, `closed`, `stored` or `removed`.
    pub event: String,
    /// More about it.
    pub detail: String,
}

/// A number of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub files: usize,
    /// How many lines they have.
    pub lines: u64,
}

/// What the ledger says of the segments of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// Where they are stored.
    pub to: String,
    /// The segments of which a copy was stored.
    pub stored: Amount,
    /// How many of these copies were found there; nothing when the storage could not be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<usize>,
    /// The closed segments without a copy that are here.
    pub waiting: Amount,
    /// Those that limits have removed, with a copy.
    pub removed: Amount,
    /// Those that limits have removed without a copy.
    pub lost: Amount,
}

/// What is wrong with a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its path below the folder.
    pub segment: String,
    /// What it is.
    pub wrong: Wrong,
    /// More about it.
    pub why: String,
}

/// What can be wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It does not hold what its seal says, its seal is gone or tells of something else than what was stored, or it cannot be read.
    Changed,
    /// It was here once, and no limit has removed it.
    Gone,
    /// Its copy is not at the storage, or has another length.
    NoCopy,
}

impl Amount {
    fn add(&mut self, lines: u64) {
        self.files += 1;
        self.lines = sum(self.lines, lines);
    }
}

impl Audit {
    /// Reads all that is in a folder, its ledger below `state_dir`, and what the storage has. What cannot be looked at is told in it.
    pub fn of(place: &Place, scope: &Scope, state_dir: &Path) -> Self {
        let mut audit = Self { path: place.path.display().to_string(), ..Self::default() };
        if let Err(failure) = audit.look(place, &Asked::new(scope, &place.path), state_dir) {
            audit.trouble.push(failure.to_string());
        }
        audit
    }

    /// Returns whether every segment is accounted for, and none has lost lines.
    pub fn is_good(&self) -> bool {
        let lost = self.copies.as_ref().is_some_and(|copies| copies.lost.files > 0);
        self.findings.is_empty()
            && self.more_findings == 0
            && self.trouble.is_empty()
            && self.dropped_lines == 0
            && !lost
    }

    /// Leaves out findings that take more than this many bytes, which are counted. Returns how many bytes are left.
    pub fn cut(&mut self, most: usize) -> usize {
        let mut left = most;
        let fits = |finding: &Finding| {
            let bytes = finding.segment.len() + finding.why.len();
            let fits = bytes <= left;
            left = if fits { left - bytes } else { 0 };
            fits
        };
        let kept = self.findings.iter().map(fits).take_while(|fits| *fits).count();
        self.more_findings += self.findings.len() - kept;
        self.findings.truncate(kept);
        left
    }

    fn look(&mut self, place: &Place, asked: &Asked<'_>, state_dir: &Path) -> Result<(), Failure> {
        let begun = Timestamp::now();
        let folder = Folder::look(place, begun.as_second(), state_dir)?;
        self.unsealed = folder.unsealed;
        self.trouble.extend(folder.unread.iter().map(ToString::to_string).take(MOST_TOLD));
        let mut waiting = Amount::default();
        let here = self.read(&folder, asked, &mut waiting);
        let Some(shipping) = &place.ship else { return Ok(()) };
        let copies = Copies { to: shipping.to.to_string(), waiting, ..Copies::default() };
        let ledger = place.ledger(state_dir);
        let mut account = Account {
            begun,
            asked,
            here,
            shipping,
            folder: &folder,
            copies,
            audit: self,
            sought: Vec::new(),
            found: 0,
            away: false,
        };
        let read = ledger.months().and_then(|months| {
            let first = asked.since.map(month);
            let counts = |month: &&String| first.as_ref().is_none_or(|first| *month >= first);
            months.iter().filter(counts).try_for_each(|month| account.month(&ledger, month))
        });
        account.ask();
        // Where there is nothing to look for, nothing is said of the storage.
        let found = (!account.away && account.copies.stored.files > 0).then_some(account.found);
        self.copies = Some(Copies { found, ..account.copies });
        read
    }

    /// Compares what is here with its seals. Returns the keys of all that is closed.
    fn read(&mut self, folder: &Folder, asked: &Asked<'_>, waiting: &mut Amount) -> HashSet<Key> {
        let mut here = HashSet::new();
        for (number, (segment, piece)) in folder.segments.iter().zip(&folder.shelf.pieces).enumerate() {
            let below = folder.below(segment.dir, &segment.name);
            let path = below.to_string_lossy();
            let seal = folder.open(segment.dir).ok().and_then(|dir| Seal::read(&dir, &segment.name));
            let closed = seal.as_ref().and_then(|seal| seal.closed.as_ref());
            here.extend(closed.map(|closed| key(&path, &closed.sha256)));
            if !asked.is_for(&path, seal.as_ref().map(|seal| seal.end)) {
                continue;
            }
            if asked.segment.is_some() && self.events.len() < MOST_TOLD {
                self.events.extend(seal.iter().flat_map(|seal| of_seal(&path, seal)));
            }
            match piece.state {
                State::Writing => self.writing += 1,
                State::Left => self.left += 1,
                State::Closed | State::Packed => {
                    let dropped = closed.map_or((0, 0), |closed| (closed.dropped_lines, closed.dropped_bytes));
                    self.dropped_lines = sum(self.dropped_lines, dropped.0);
                    self.dropped_bytes = sum(self.dropped_bytes, dropped.1);
                    match compare(folder, number, piece.state) {
                        Ok(lines) => {
                            self.whole.add(lines);
                            if !piece.stored {
                                waiting.add(lines);
                            }
                        }
                        // A limit has removed it meanwhile.
                        Err(_) if !folder.holds(&below) => {}
                        Err(Failure { message, causes, .. }) => {
                            let why = if causes.is_empty() { message } else { causes.join(": ") };
                            self.find(&path, Wrong::Changed, why);
                        }
                    }
                }
            }
        }
        here
    }

    fn find(&mut self, segment: &str, wrong: Wrong, why: String) {
        if self.findings.len() < MOST_TOLD {
            self.findings.push(Finding { segment: segment.to_owned(), wrong, why });
        } else {
            self.more_findings += 1;
        }
    }
}

/// Compares a closed segment with its seal, and returns how many lines it has. Where there are two files of it, as a keeper was killed, each must hold
/// the lines.
fn compare(folder: &Folder, number: usize, state: State) -> Result<u64, Failure> {
    let segment = folder.segments.get(number).ok_or_else(|| Failure::new("there is no such segment"))?;
    let lines = |packed: Option<Codec>| Parcel::open_as(folder, number, packed).map(|parcel| parcel.lines);
    if state == State::Packed {
        return lines(segment.packed);
    }
    let plain = match lines(None) {
        Err(failure) if has_plain(folder, segment) => return Err(failure),
        plain => plain,
    };
    match (segment.packed, plain) {
        (Some(codec), _) => lines(Some(codec)),
        (None, Ok(lines)) => Ok(lines),
        // It was compressed meanwhile, or removed.
        (None, Err(failure)) => Codec::ALL.into_iter().find_map(|codec| lines(Some(codec)).ok()).ok_or(failure),
    }
}

/// Whether a segment has a file that is not compressed now.
fn has_plain(folder: &Folder, segment: &Segment) -> bool {
    folder.open(segment.dir).is_ok_and(|dir| is_plain_file(&dir, &segment.name))
}

/// What is asked for.
struct Asked<'a> {
    since: Option<Timestamp>,
    segment: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn new(scope: &'a Scope, folder: &Path) -> Self {
        // Where that is longer than there is time, all are asked for.
        let since = scope.since.and_then(|since| SignedDuration::try_from(since).ok());
        let since = since.and_then(|since| Timestamp::now().checked_sub(since).ok());
        let segment = scope.segment.as_deref().map(|segment| {
            let below = Path::new(segment).strip_prefix(folder).ok().and_then(Path::to_str).unwrap_or(segment);
            let below = below.strip_prefix("./").unwrap_or(below);
            Codec::ALL.into_iter().find_map(|codec| below.strip_suffix(codec.extension())).unwrap_or(below)
        });
        Self { since, segment }
    }

    /// Whether a segment is asked for; `end` is that of its period, or something later.
    fn is_for(&self, path: &str, end: Option<Timestamp>) -> bool {
        let is_it = |segment: &str| path == segment || path.ends_with(&format!("/{segment}"));
        self.segment.is_none_or(is_it) && self.since.zip(end).is_none_or(|(since, end)| end >= since)
    }
}

/// What a seal tells of.
fn of_seal(path: &str, seal: &Seal) -> Vec<Happened> {
    let happened = |at: Timestamp, event: &str, detail: String| Happened {
        segment: path.to_owned(),
        at: at.to_string(),
        event: event.to_owned(),
        detail,
    };
    let tag = seal.tag.as_ref().map_or_else(String::new, |tag| format!(", tag {tag}"));
    let begun = format!("for {} to {}{tag}", seal.begin, seal.end);
    let closed = seal.closed.as_ref().map(|closed| {
        let by = if closed.why == Why::Left { "after its writer was killed, " } else { "" };
        let lines = count(closed.lines, "line");
        let detail = format!("{by}with {lines}, {} bytes, SHA-256 {}", closed.bytes, closed.sha256);
        happened(closed.sealed, "closed", detail)
    });
    [Some(happened(seal.opened.unwrap_or(seal.begin), "begun", begun)), closed].into_iter().flatten().collect()
}

/// What the ledger says of one segment.
#[derive(Default)]
struct Fate {
    lines: u64,
    /// A copy was stored: at the target that is declared now, or at another one.
    stored: Option<bool>,
    /// A limit has removed it, and whether there was a copy.
    removed: Option<bool>,
    /// It was told already.
    told: bool,
}

/// The ledger of a folder, while it is compared with what is here and at the storage.
struct Account<'a> {
    begun: Timestamp,
    asked: &'a Asked<'a>,
    here: HashSet<Key>,
    shipping: &'a Shipping,
    folder: &'a Folder,
    copies: Copies,
    audit: &'a mut Audit,
    /// The copies that are looked for next, and their segments.
    sought: Vec<(String, Known)>,
    /// How many copies are there.
    found: usize,
    /// The storage cannot be looked at.
    away: bool,
}

impl Account<'_> {
    fn month(&mut self, ledger: &Ledger, month: &str) -> Result<(), Failure> {
        let mut fates: HashMap<Key, Fate> = HashMap::new();
        let odd = ledger.each(month, |entry| {
            if self.counts(&entry) {
                if self.asked.segment.is_some() && self.audit.events.len() < MOST_TOLD {
                    self.audit.events.push(of_entry(&entry));
                }
                fates.entry(key(&entry.segment, &entry.sha256)).or_default().add(&entry, &self.copies.to);
            }
        })?;
        if odd > 0 && self.audit.trouble.len() < MOST_TOLD {
            let lines = count(odd, "line");
            self.audit
                .trouble
                .push(format!("{lines} of the ledger's month {month} cannot be read: what they told is not known"));
        }
        for (key, fate) in &fates {
            if fate.stored == Some(true) {
                self.copies.stored.add(fate.lines);
            }
            match fate.removed.filter(|_| !self.here.contains(key)) {
                Some(copied) if copied || fate.stored.is_some() => self.copies.removed.add(fate.lines),
                Some(_) => self.copies.lost.add(fate.lines),
                None => {}
            }
        }
        // Names are only in the ledger: it is read once more, so that not all of them are kept.
        ledger
            .each(month, |entry| {
                let key = key(&entry.segment, &entry.sha256);
                let Some(fate) = fates.get_mut(&key) else { return };
                let Event::Stored { to, path, bytes } = &entry.event else { return };
                // One that was stored at another target is told of by its copy here, where it has one.
                if fate.told || (fate.stored == Some(true) && *to != self.copies.to) || !self.counts(&entry) {
                    return;
                }
                fate.told = true;
                if fate.removed.is_none() && !self.here.contains(&key) {
                    self.missing(&entry.segment, &key, &format!("{path} at {to}"));
                }
                if fate.stored == Some(true) {
                    self.look_for(&entry.segment, Known { path: path.clone(), bytes: *bytes });
                }
            })
            .map(|_| ())
    }

    /// A segment of which a copy was stored, that no limit has removed, and that was not found here with that content.
    fn missing(&mut self, segment: &str, known: &Key, copy: &str) {
        let path = Path::new(segment);
        if !self.folder.holds(path) {
            return self.audit.find(
                segment,
                Wrong::Gone,
                format!("no limit has removed it; its copy was stored as {copy}"),
            );
        }
        // It may have been compressed while it was looked for.
        let why = match self.folder.seal_of(path).and_then(|seal| seal.closed) {
            Some(closed) if key(segment, &closed.sha256) == *known => return,
            Some(_) => format!("its seal tells of other lines than those that were stored as {copy}"),
            None => format!("its seal is gone or cannot be read; its copy was stored as {copy}"),
        };
        self.audit.find(segment, Wrong::Changed, why);
    }

    /// Whether an event is one of those that are asked for. What was stored since the folder was looked at may be of a file that is newer.
    fn counts(&self, entry: &Entry) -> bool {
        let in_time = entry.at < self.begun || matches!(entry.event, Event::Removed { .. });
        in_time && self.asked.is_for(&entry.segment, Some(entry.end.unwrap_or(entry.at)))
    }

    fn look_for(&mut self, segment: &str, copy: Known) {
        let bytes: usize = self.sought.iter().map(|(_, copy)| copy.path.len()).sum();
        if self.sought.len() >= TOGETHER.0 || bytes + copy.path.len() > TOGETHER.1 {
            self.ask();
        }
        self.sought.push((segment.to_owned(), copy));
    }

    /// Looks for the copies that wait for that.
    fn ask(&mut self) {
        let (segments, copies): (Vec<String>, Vec<Known>) = std::mem::take(&mut self.sought).into_iter().unzip();
        if copies.is_empty() || self.away {
            return;
        }
        let found = match lengths(self.shipping, self.folder.shelf.disk, &copies) {
            Ok(found) => found,
            Err(failure) => {
                self.away = true;
                let failure = failure.within(format!("the copies at {} cannot be looked at", self.copies.to));
                return self.audit.trouble.push(failure.to_string());
            }
        };
        for ((segment, copy), length) in segments.iter().zip(&copies).zip(found) {
            let path = &copy.path;
            let why = match length {
                Some(length) if length == copy.bytes => {
                    self.found += 1;
                    continue;
                }
                Some(length) => format!("{path} has {length} bytes at the storage, and had {}", copy.bytes),
                None => format!("{path} is not at the storage any more"),
            };
            self.audit.find(segment, Wrong::NoCopy, why);
        }
    }
}

/// What an event of the ledger tells.
fn of_entry(entry: &Entry) -> Happened {
    let (event, detail) = match &entry.event {
        Event::Stored { to, path, bytes } => ("stored", format!("at {to} as {path}, {bytes} bytes")),
        Event::Removed { why, stored } => {
            ("removed", format!("{why}; {}", if *stored { "its copy is stored" } else { "without a copy" }))
        }
    };
    Happened { segment: entry.segment.clone(), at: entry.at.to_string(), event: event.to_owned(), detail }
}

impl Fate {
    fn add(&mut self, entry: &Entry, target: &str) {
        self.lines = entry.lines;
        match &entry.event {
            Event::Stored { to, .. } => self.stored = Some(to == target || self.stored == Some(true)),
            Event::Removed { stored, .. } => self.removed = Some(*stored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_beyond_a_bound_are_counted() {
        let mut audit = Audit::default();
        for number in 0..150 {
            audit.find(&format!("{number:03}.log"), Wrong::Changed, "x".repeat(93));
        }
        assert_eq!((audit.findings.len(), audit.more_findings), (100, 50));
        let mut cut = audit.clone();
        assert_eq!(cut.cut(20_000), 10_000);
        assert_eq!(cut, audit);
        assert_eq!(cut.cut(350), 0);
        assert_eq!((cut.findings.len(), cut.more_findings), (3, 147));
        cut.cut(0);
        assert!(cut.findings.is_empty() && !cut.is_good());
        assert!(Audit::default().is_good());
    }
}
