//! Who gets what: the rules of the book, the same over every store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::spot::Candidates;
use super::{Commit, Entry, Everything, MOST_WRITES, OwnerKey, Record, Spot, State, Store, Write, jitter, now};
use crate::failure::{Failure, FailureKind};

/// How long a reservation lives before it must be bound.
pub const RESERVATION: Duration = Duration::from_secs(300);

/// How long a released address is kept from others: neighbours remember who had it.
pub const QUARANTINE: Duration = Duration::from_secs(60);

/// How often a change is tried again when others were faster: limit `book_rounds`.
const ROUNDS: u32 = 200;

/// How many taken spots are read at once.
const PAGE: usize = 512;

/// A book: rules over a store.
pub struct Book {
    store: Box<dyn Store>,
    run: String,
    reservation: Duration,
}

/// What an owner asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whose it shall be: `web/1`.
    pub owner: String,
    /// Where to look first among the candidates, from 0: the slot's own number, so that slots seldom meet.
    pub start: u128,
}

impl Asked {
    /// For a slot: `web/1` looks at the first candidate first.
    pub fn slot(group: &str, index: u64) -> Self {
        Self { owner: format!("{group}/{index}"), start: u128::from(index.saturating_sub(1)) }
    }
}

/// What is known of whoever binds a spot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// The node's name.
    pub node: Option<String>,
    /// The host that carries it.
    pub host: Option<String>,
    /// Its MAC address.
    pub mac: Option<String>,
}

/// Why something cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Every candidate is taken.
    Full {
        /// How many candidates there are.
        size: u128,
        /// Who holds how much of them: groups and states, the most first.
        holders: Vec<(String, usize)>,
    },
    /// Somebody else has it.
    Held(Box<Record>),
    /// The owner has another one, which may be in use.
    Elsewhere(Box<Record>),
    /// The reservation has ended, or another run has taken it over.
    Lost(Spot),
    /// Nobody knows what these hosts hold, so nothing new is given.
    Unknown(Vec<String>),
    /// The store failed.
    Store(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Store(failure)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { size, holders } => {
                write!(f, "all {size} are taken")?;
                for (at, (holder, count)) in holders.iter().enumerate() {
                    write!(f, "{}{count} by {holder}", if at == 0 { ": " } else { ", " })?;
                }
                Ok(())
            }
            Self::Held(record) => write!(f, "{} is held by {}", record.spot, holder(record)),
            Self::Elsewhere(record) => write!(f, "{} holds {}", holder(record), record.spot),
            Self::Lost(spot) => write!(f, "the reservation of {spot} has ended, or another run has taken it over"),
            Self::Unknown(hosts) => write!(
                f,
                "nothing new is given: nobody knows which addresses {} {}",
                hosts.join(", "),
                if hosts.len() == 1 { "holds" } else { "hold" }
            ),
            Self::Store(failure) => write!(f, "{failure}"),
        }
    }
}

/// Whose a record is, for people.
pub fn holder(record: &Record) -> String {
    let mut text = match (&record.owner, record.state) {
        (Some(owner), _) => format!("`{owner}`"),
        (None, State::Static) => "a manual reservation".to_owned(),
        (None, _) => "something that is not fanli's".to_owned(),
    };
    let node = record.node.as_ref().map(|node| format!("node {node}"));
    let host = record.host.as_ref().map(|host| format!("on {host}"));
    let mac = record.mac.as_ref().map(|mac| format!("MAC {mac}"));
    let note = record.note.as_ref().map(|note| format!("\"{note}\""));
    let more: Vec<String> = [node, host, mac, note].into_iter().flatten().collect();
    if !more.is_empty() {
        text = format!("{text} ({})", more.join(", "));
    }
    text
}

/// What is known to be taken, read page by page as far as somebody looks.
pub(super) struct Taken<'s> {
    store: &'s dyn Store,
    known: BTreeSet<Spot>,
    read: Vec<(Spot, Spot)>,
}

impl<'s> Taken<'s> {
    pub(super) fn new(store: &'s dyn Store) -> Self {
        Self { store, known: BTreeSet::new(), read: Vec::new() }
    }

    pub(super) fn add(&mut self, spot: Spot) {
        self.known.insert(spot);
    }

    fn has(&mut self, spot: &Spot, candidates: &Candidates) -> Result<bool, Failure> {
        if self.known.contains(spot) {
            return Ok(true);
        }
        if !self.read.iter().any(|(from, to)| from <= spot && spot <= to) {
            let end = candidates.piece_end(spot).unwrap_or_else(|| spot.clone());
            let page = self.store.taken(spot, &end, PAGE)?;
            let to = if page.len() < PAGE { end } else { page.last().cloned().unwrap_or(end) };
            self.known.extend(page);
            self.read.push((spot.clone(), to));
        }
        Ok(self.known.contains(spot))
    }

    /// The first candidate from the start that is free; then it counts as taken.
    pub(super) fn pick(&mut self, candidates: &Candidates, start: u128) -> Result<Option<Spot>, Failure> {
        for spot in candidates.from(start) {
            if !self.has(&spot, candidates)? {
                self.known.insert(spot.clone());
                return Ok(Some(spot));
            }
        }
        Ok(None)
    }
}

impl Book {
    /// A book over a store; `run` names this run in what it writes.
    pub fn new(store: Box<dyn Store>, run: &str) -> Self {
        Self { store, run: run.to_owned(), reservation: RESERVATION }
    }

    /// Reservations that live for another time than [`RESERVATION`].
    #[must_use]
    pub fn reserving_for(mut self, time: Duration) -> Self {
        self.reservation = time;
        self
    }

    /// The run that writes.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// The store below.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn record(&self, network: &str, spot: &Spot, owner: Option<&str>, state: State) -> Record {
        Record {
            network: network.to_owned(),
            spot: spot.clone(),
            owner: owner.map(str::to_owned),
            node: None,
            host: None,
            mac: None,
            state,
            note: None,
            run: self.run.clone(),
            since: now(),
        }
    }

    fn reserved(&self) -> State {
        State::Reserved { until: now().saturating_add(self.reservation.as_secs().max(1)) }
    }

    /// Reserves a spot for each owner, who gets what it had when it asked before. All of them, or none of those that are new.
    ///
    /// # Errors
    /// [`Refused::Full`]; the store.
    pub fn claim(&self, network: &str, asked: &[Asked], candidates: &Candidates) -> Result<Vec<Entry>, Refused> {
        for round in 0..ROUNDS {
            let mut taken = Taken::new(self.store());
            let given = self.preview(network, asked, candidates, &mut taken)?;
            let wanted: Vec<(OwnerKey, Spot)> = asked
                .iter()
                .zip(&given)
                .map(|(asked, spot)| (owner_key(network, &asked.owner), spot.clone()))
                .collect();
            match self.reserve(&wanted) {
                // Of no pool of this call: only `Book::move_to` lets go of it.
                Err(Refused::Elsewhere(record)) if !candidates.contains(&record.spot) => {
                    return Err(Refused::Elsewhere(record));
                }
                Err(Refused::Held(_) | Refused::Elsewhere(_) | Refused::Lost(_)) => back_off(round),
                done => return done,
            }
        }
        Err(self.crowded().into())
    }

    /// What [`Book::claim`] would give just now; writes nothing.
    ///
    /// # Errors
    /// [`Refused::Full`]; the store.
    pub(super) fn preview(
        &self,
        network: &str,
        asked: &[Asked],
        candidates: &Candidates,
        taken: &mut Taken,
    ) -> Result<Vec<Spot>, Refused> {
        let owners: Vec<OwnerKey> = asked.iter().map(|asked| owner_key(network, &asked.owner)).collect();
        let mut given: Vec<Option<Spot>> = Vec::new();
        for entry in self.store.of_owners(&owners)? {
            let Some(Entry { record, .. }) = entry else {
                given.push(None);
                continue;
            };
            // One that is no candidate any more is left: the pool was changed between two runs.
            given.push(candidates.contains(&record.spot).then(|| {
                taken.add(record.spot.clone());
                record.spot
            }));
        }
        let mut spots = Vec::new();
        for (asked, given) in asked.iter().zip(given) {
            let spot = match given {
                Some(spot) => Some(spot),
                None => taken.pick(candidates, asked.start)?,
            };
            match spot {
                Some(spot) => spots.push(spot),
                None => return Err(self.full(candidates)?),
            }
        }
        Ok(spots)
    }

    /// Who holds what of a full pool.
    fn full(&self, candidates: &Candidates) -> Result<Refused, Failure> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for Entry { record, .. } in self.store.all()?.entries {
            if candidates.contains(&record.spot) {
                let name = match &record.owner {
                    Some(owner) => format!("`{}`", owner.rsplit_once('/').map_or(owner.as_str(), |(group, _)| group)),
                    None => format!("{} reservations", record.state.word()),
                };
                let name = match record.state {
                    State::Bound | State::Static | State::Foreign => name,
                    State::Reserved { .. } | State::Releasing { .. } => format!("{name} ({})", record.state.word()),
                };
                *counts.entry(name).or_default() += 1;
            }
        }
        let mut holders: Vec<(String, usize)> = counts.into_iter().collect();
        holders.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
        Ok(Refused::Full { size: candidates.len(), holders })
    }

    /// Reserves these very spots. A spot that its owner has already stays as it is; its reservation is made longer when it
    /// would soon end.
    ///
    /// # Errors
    /// [`Refused::Held`], [`Refused::Elsewhere`]; then none of the new ones of the same part of [`MOST_WRITES`] was
    /// reserved. The store.
    pub fn reserve(&self, wanted: &[(OwnerKey, Spot)]) -> Result<Vec<Entry>, Refused> {
        let mut entries = Vec::new();
        for some in wanted.chunks(MOST_WRITES / 2) {
            entries.extend(self.retry(|| self.reserve_some(some))?);
        }
        Ok(entries)
    }

    fn reserve_some(&self, wanted: &[(OwnerKey, Spot)]) -> Result<Option<Vec<Entry>>, Refused> {
        let owners: Vec<OwnerKey> = wanted.iter().map(|(owner, _)| owner.clone()).collect();
        let spots: Vec<Spot> = wanted.iter().map(|(_, spot)| spot.clone()).collect();
        let (of_owners, of_spots) = (self.store.of_owners(&owners)?, self.store.of_spots(&spots)?);
        let (mut entries, mut writes, mut moved): (Vec<Option<Entry>>, Vec<Write>, Vec<Write>) = Default::default();
        let state = self.reserved();
        for (((owner, spot), has), there) in wanted.iter().zip(of_owners).zip(of_spots) {
            let fresh = self.record(&owner.network, spot, Some(&owner.owner), state);
            let write = |expect, record| Write { spot: spot.clone(), owner: Some(owner.clone()), expect, record };
            match (has, there) {
                (_, Some(entry)) if !is_of(&entry.record, owner) => {
                    return Err(Refused::Held(Box::new(entry.record)));
                }
                (Some(has), _) if has.record.spot != *spot => {
                    if !matches!(has.record.state, State::Reserved { .. }) {
                        return Err(Refused::Elsewhere(Box::new(has.record)));
                    }
                    moved.push(Write {
                        spot: has.record.spot,
                        owner: Some(owner.clone()),
                        expect: has.revision,
                        record: None,
                    });
                }
                (_, Some(entry)) => match entry.record.state {
                    State::Reserved { until } if until > now() + self.reservation.as_secs() / 2 => {
                        entries.push(Some(entry));
                        continue;
                    }
                    State::Reserved { .. } | State::Releasing { .. } => writes.push(write(entry.revision, Some(fresh))),
                    _ => {
                        entries.push(Some(entry));
                        continue;
                    }
                },
                (_, None) => writes.push(write(0, Some(fresh))),
            }
            entries.push(None);
        }
        if !moved.is_empty() {
            // The old one goes first; then this is looked at once more.
            self.store.commit(&moved)?;
            return Ok(None);
        }
        if writes.is_empty() {
            return Ok(Some(entries.into_iter().flatten().collect()));
        }
        if writes.iter().any(|write| write.expect == 0) {
            self.refuse_unknown()?;
        }
        let Commit::Done(revision) = self.store.commit(&writes)? else { return Ok(None) };
        let mut written = writes.into_iter().filter_map(|write| Some(Entry { record: write.record?, revision }));
        Ok(Some(entries.into_iter().filter_map(|entry| entry.or_else(|| written.next())).collect()))
    }

    /// Binds what was reserved, by compare-and-swap on the revisions of the reservations: what has ended meanwhile cannot be bound. A spot
    /// that its owner has bound already is written only when node, host or MAC differ. Gives the entries as they stand then.
    ///
    /// # Errors
    /// [`Refused::Lost`]: then none of the same part of [`MOST_WRITES`] was bound. The store.
    pub fn bind(&self, reserved: &[(Entry, Bound)]) -> Result<Vec<Entry>, Refused> {
        let mut entries = Vec::new();
        for some in reserved.chunks(MOST_WRITES) {
            entries.extend(self.bind_some(some)?);
        }
        Ok(entries)
    }

    fn bind_some(&self, reserved: &[(Entry, Bound)]) -> Result<Vec<Entry>, Refused> {
        let (mut entries, mut writes): (Vec<Option<Entry>>, Vec<Write>) = Default::default();
        for (entry, bound) in reserved {
            if entry.record.state == State::Bound && same(&entry.record, bound) {
                entries.push(Some(entry.clone()));
                continue;
            }
            let record = self.bound(&entry.record, bound);
            let owner = owner_of(&entry.record);
            writes.push(Write { spot: record.spot.clone(), owner, expect: entry.revision, record: Some(record) });
            entries.push(None);
        }
        if writes.is_empty() {
            return Ok(entries.into_iter().flatten().collect());
        }
        if let Commit::Done(revision) = self.store.commit(&writes)? {
            let mut written = writes.into_iter().filter_map(|write| Some(Entry { record: write.record?, revision }));
            return Ok(entries.into_iter().filter_map(|entry| entry.or_else(|| written.next())).collect());
        }
        // Two runs of the same playbook may bind the same: then there is nothing left to do.
        let spots: Vec<Spot> = reserved.iter().map(|(entry, _)| entry.record.spot.clone()).collect();
        let mut found = Vec::new();
        for ((entry, bound), there) in reserved.iter().zip(self.store.of_spots(&spots)?) {
            let there =
                there.filter(|there| there.record.state == State::Bound && there.record.owner == entry.record.owner);
            match there {
                Some(there) if same(&there.record, bound) => found.push(there),
                _ => return Err(Refused::Lost(entry.record.spot.clone())),
            }
        }
        Ok(found)
    }

    fn bound(&self, record: &Record, bound: &Bound) -> Record {
        let Bound { node, host, mac } = bound.clone();
        let since = if record.state == State::Bound { record.since } else { now() };
        Record {
            node,
            host,
            mac: mac.or_else(|| record.mac.clone()),
            state: State::Bound,
            since,
            run: self.run.clone(),
            ..record.clone()
        }
    }

    /// Gives back what a record says, as it was seen. A bound one is kept from others for `quarantine`; whoever calls knows that its link
    /// is gone. False when the record is another one by now: then nothing was done.
    ///
    /// # Errors
    /// The store.
    pub fn release(&self, seen: &Entry, quarantine: Duration) -> Result<bool, Failure> {
        let record = &seen.record;
        if matches!(record.state, State::Releasing { .. }) && !quarantine.is_zero() {
            return Ok(true);
        }
        let kept = (record.state == State::Bound && !quarantine.is_zero()).then(|| Record {
            state: State::Releasing { until: now().saturating_add(quarantine.as_secs().max(1)) },
            since: now(),
            run: self.run.clone(),
            ..record.clone()
        });
        let write = Write { spot: record.spot.clone(), owner: owner_of(record), expect: seen.revision, record: kept };
        Ok(self.store.commit(&[write])? != Commit::Conflict)
    }

    /// Keeps spots out of the pool, by hand (`State::Static`) or because something else was seen there (`State::Foreign`). What stands there
    /// already with the same note stays; a free or static or foreign one is written.
    ///
    /// # Errors
    /// [`Refused::Held`] by an owner; the store. Parts of [`MOST_WRITES`] before it were written.
    pub fn keep(&self, network: &str, spots: &[(Spot, Bound, Option<String>)], state: State) -> Result<usize, Refused> {
        let mut count = 0;
        for some in spots.chunks(MOST_WRITES) {
            count += self.retry(|| self.keep_some(network, some, state))?;
        }
        Ok(count)
    }

    fn keep_some(
        &self,
        network: &str,
        spots: &[(Spot, Bound, Option<String>)],
        state: State,
    ) -> Result<Option<usize>, Refused> {
        let names: Vec<Spot> = spots.iter().map(|(spot, ..)| spot.clone()).collect();
        let mut writes = Vec::new();
        for ((spot, bound, note), there) in spots.iter().zip(self.store.of_spots(&names)?) {
            let Bound { node, host, mac } = bound.clone();
            let record = Record { node, host, mac, note: note.clone(), ..self.record(network, spot, None, state) };
            let expect = match there {
                None => 0,
                Some(there) if there.record.owner.is_some() => return Err(Refused::Held(Box::new(there.record))),
                Some(there) => {
                    let old = Record { run: record.run.clone(), since: record.since, ..there.record.clone() };
                    if old == record {
                        continue;
                    }
                    there.revision
                }
            };
            writes.push(Write { spot: spot.clone(), owner: None, expect, record: Some(record) });
        }
        if writes.is_empty() {
            return Ok(Some(0));
        }
        Ok((self.store.commit(&writes)? != Commit::Conflict).then_some(writes.len()))
    }

    /// Every record.
    ///
    /// # Errors
    /// The store.
    pub fn all(&self) -> Result<Everything, Failure> {
        self.store.all()
    }

    /// The next free candidates, `most` at most.
    ///
    /// # Errors
    /// The store.
    pub fn free(&self, candidates: &Candidates, most: usize) -> Result<Vec<Spot>, Failure> {
        let mut taken = Taken::new(self.store());
        let mut found = Vec::new();
        for spot in candidates.from(0) {
            if found.len() >= most {
                break;
            }
            if !taken.has(&spot, candidates)? {
                found.push(spot);
            }
        }
        Ok(found)
    }

    /// Tries until nobody is faster.
    pub(super) fn retry<T, E: From<Failure>>(&self, mut attempt: impl FnMut() -> Result<Option<T>, E>) -> Result<T, E> {
        for round in 0..ROUNDS {
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            back_off(round);
        }
        Err(self.crowded().into())
    }

    fn crowded(&self) -> Failure {
        let message = format!("others change the address book at {} all the time", self.store.place());
        Failure::of(FailureKind::Timeout, message).because(format!("over its limit `book_rounds` of {ROUNDS}"))
    }
}

/// A little later each time, and not together.
fn back_off(round: u32) {
    let most = 1_000 * u64::from(round.min(40) + 1);
    std::thread::sleep(Duration::from_micros(jitter() % most));
}

/// The key of an owner in a network.
pub fn owner_key(network: &str, owner: &str) -> OwnerKey {
    OwnerKey { network: network.to_owned(), owner: owner.to_owned() }
}

fn owner_of(record: &Record) -> Option<OwnerKey> {
    OwnerKey::of(record)
}

fn is_of(record: &Record, owner: &OwnerKey) -> bool {
    record.owner.as_ref() == Some(&owner.owner) && record.network == owner.network
}

/// Whether a record says the same of its holder; a MAC that nobody tells stays.
fn same(record: &Record, bound: &Bound) -> bool {
    record.node == bound.node && record.host == bound.host && (bound.mac.is_none() || record.mac == bound.mac)
}
