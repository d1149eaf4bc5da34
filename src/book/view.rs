//! How planning sees the book: it asks, and nothing is written. What it was told can be reserved and bound afterwards.

use std::collections::BTreeMap;

use super::rules::{Taken, owner_key};
use super::{Asked, Book, Bound, Candidates, Entry, Place, Refused, Spot, State};
use crate::failure::Failure;

/// What planning was told for one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The network.
    pub network: String,
    /// The slot.
    pub owner: String,
    /// What it gets.
    pub spot: Spot,
}

/// A book that only answers. It is opened at the first question: a playbook that gives no addresses needs none.
pub struct View {
    run: String,
    book: Option<(Place, Book)>,
    given: Vec<Given>,
}

impl View {
    /// A view for a run of that name.
    pub fn new(run: &str) -> Self {
        Self { run: run.to_owned(), book: None, given: Vec::new() }
    }

    /// Forgets what was given, for another try at planning.
    pub fn again(&mut self) {
        self.given.clear();
    }

    /// What was given so far.
    pub fn given(&self) -> &[Given] {
        &self.given
    }

    /// The book, when anything was asked of it.
    pub fn book(&self) -> Option<&Book> {
        self.book.as_ref().map(|(_, book)| book)
    }

    fn open(&mut self, place: &Place) -> Result<&Book, Failure> {
        if self.book.as_ref().is_none_or(|(known, _)| known != place) {
            let store = super::open(place, &self.run)?;
            self.book = Some((place.clone(), Book::new(store, &self.run)));
        }
        self.book().ok_or_else(|| Failure::new("no book is open"))
    }

    /// What some owners get, from candidates: each what it has, else the first free one from its start.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn take(
        &mut self,
        place: &Place,
        network: &str,
        asked: &[Asked],
        candidates: &Candidates,
    ) -> Result<Vec<Spot>, Refused> {
        let given: Vec<Spot> = self.given.iter().map(|given| given.spot.clone()).collect();
        let book = self.open(place)?;
        let mut taken = Taken::new(book.store());
        given.into_iter().for_each(|spot| taken.add(spot));
        let spots = book.preview(network, asked, candidates, &mut taken)?;
        let owners: Vec<_> = asked.iter().map(|asked| owner_key(network, &asked.owner)).collect();
        let of_owners = book.store().of_owners(&owners)?;
        let new = |(has, spot): (&Option<Entry>, &Spot)| has.as_ref().is_none_or(|has| has.record.spot != *spot);
        if of_owners.iter().zip(&spots).any(new) {
            book.refuse_unknown()?;
        }
        for (asked, spot) in asked.iter().zip(&spots) {
            let (network, owner) = (network.to_owned(), asked.owner.clone());
            self.given.push(Given { network, owner, spot: spot.clone() });
        }
        Ok(spots)
    }

    /// Asks for these very spots: for each, why its owner cannot have it.
    ///
    /// # Errors
    /// The store.
    pub fn take_these(
        &mut self,
        place: &Place,
        network: &str,
        wanted: &[(String, Spot)],
    ) -> Result<Vec<Option<Refused>>, Failure> {
        let book = self.open(place)?;
        let owners: Vec<_> = wanted.iter().map(|(owner, _)| owner_key(network, owner)).collect();
        let spots: Vec<Spot> = wanted.iter().map(|(_, spot)| spot.clone()).collect();
        let (of_owners, of_spots) = (book.store().of_owners(&owners)?, book.store().of_spots(&spots)?);
        let unknown = book.unknown_hosts()?;
        let mut found = Vec::new();
        for (((owner, spot), has), there) in wanted.iter().zip(of_owners).zip(of_spots) {
            let mine = |entry: &Entry| entry.record.owner.as_ref() == Some(owner) && entry.record.network == network;
            found.push(match (has, there) {
                (_, Some(there)) if !mine(&there) => Some(Refused::Held(Box::new(there.record))),
                (_, None) if !unknown.is_empty() => Some(Refused::Unknown(unknown.clone())),
                // What it has elsewhere is left: see `moves`.
                _ => None,
            });
            self.given.push(Given { network: network.to_owned(), owner: owner.clone(), spot: spot.clone() });
        }
        Ok(found)
    }

    /// Owners that have something else now than they are given, with what they have.
    ///
    /// # Errors
    /// The store.
    pub fn moves(&self) -> Result<Vec<(Entry, Spot)>, Failure> {
        let standing = self.standing()?;
        let has = |given: &Given| standing.get(&(given.network.clone(), given.owner.clone()));
        let leaves = |given: &Given| {
            let has = has(given)?;
            let other = has.record.spot != given.spot && !matches!(has.record.state, State::Reserved { .. });
            other.then(|| (has.clone(), given.spot.clone()))
        };
        Ok(self.given.iter().filter_map(leaves).collect())
    }

    /// Reserves and binds all that was given; `bound` says what is known of an owner. Gives the entries by network and owner. Who has
    /// something else is given the new one, and keeps the old one under another name: see [`Book::move_to`].
    ///
    /// # Errors
    /// [`Refused::Held`] and its like when another run was faster: plan again. The store.
    pub fn keep(&self, bound: impl Fn(&Given) -> Bound) -> Result<BTreeMap<(String, String), Entry>, Refused> {
        let Some(book) = self.book() else { return Ok(BTreeMap::new()) };
        for (has, spot) in self.moves()? {
            let owner = has.record.owner.clone().unwrap_or_default();
            let given = Given { network: has.record.network.clone(), owner, spot: spot.clone() };
            let known = bound(&given);
            if book.move_to(&has, &spot, &known)?.is_none() {
                return Err(Refused::Lost(spot));
            }
        }
        let wanted: Vec<_> =
            self.given.iter().map(|given| (owner_key(&given.network, &given.owner), given.spot.clone())).collect();
        let entries = book.reserve(&wanted)?;
        let reserved: Vec<(Entry, Bound)> = entries.into_iter().zip(self.given.iter().map(bound)).collect();
        let entries = book.bind(&reserved)?;
        Ok(keyed(entries))
    }

    /// What stands in the book for all that was given.
    ///
    /// # Errors
    /// The store.
    pub fn standing(&self) -> Result<BTreeMap<(String, String), Entry>, Failure> {
        let Some(book) = self.book() else { return Ok(BTreeMap::new()) };
        let owners: Vec<_> = self.given.iter().map(|given| owner_key(&given.network, &given.owner)).collect();
        Ok(keyed(book.store().of_owners(&owners)?.into_iter().flatten().collect()))
    }
}

/// Entries by network and owner.
fn keyed(entries: Vec<Entry>) -> BTreeMap<(String, String), Entry> {
    let key = |entry: &Entry| (entry.record.network.clone(), entry.record.owner.clone().unwrap_or_default());
    entries.into_iter().map(|entry| (key(&entry), entry)).collect()
}
