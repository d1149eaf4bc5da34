//! What changes hands: an owner that gets another spot, a spot that turns out to be somebody else's; and what a book knows of the
//! books before it.

use serde::{Deserialize, Serialize};

use super::rules::{Book, Refused, owner_key};
use super::{Bound, Commit, Entry, OwnerKey, Record, Spot, State, Write, now};
use crate::failure::{Context as _, Failure};

/// The fact that names the books whose attachments this one takes over.
const ACCEPTS: &str = "accepts";
/// The fact that names hosts of which nobody knows what they hold.
const UNKNOWN_HOSTS: &str = "unknown_hosts";

/// The most names of one owner's earlier spots that are tried.
const MOST_EARLIER: u32 = 100;

/// A book before this one, up to a revision: what hosts plugged from it is this one's now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its own name.
    pub store: String,
    /// The highest revision that was taken over.
    pub revision: u64,
}

/// `STORE@REVISION`.
impl std::fmt::Display for Predecessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.store, self.revision)
    }
}

/// Whose an earlier spot is: `web/1/old` and `web/1/old-2` are of `web/1`. None for any other owner.
pub fn earlier_of(owner: &str) -> Option<&str> {
    let (slot, last) = owner.rsplit_once('/')?;
    let number = last.strip_prefix("old")?;
    let fine = number.is_empty() || number.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok());
    (fine && slot.contains('/')).then_some(slot)
}

impl Book {
    /// The books whose attachments this one takes over.
    ///
    /// # Errors
    /// The store.
    pub fn predecessors(&self) -> Result<Vec<Predecessor>, Failure> {
        self.list(ACCEPTS)
    }

    /// Takes over what hosts plugged from these books.
    ///
    /// # Errors
    /// The store.
    pub fn accept(&self, more: &[Predecessor]) -> Result<(), Failure> {
        let mut all = self.predecessors()?;
        let before = all.clone();
        for one in more {
            match all.iter_mut().find(|known| known.store == one.store) {
                Some(known) => known.revision = known.revision.max(one.revision),
                None => all.push(one.clone()),
            }
        }
        all.sort();
        if all == before { Ok(()) } else { self.tell(ACCEPTS, &all) }
    }

    /// Hosts of which nobody knows what they hold: nothing new is given while there are any.
    ///
    /// # Errors
    /// The store.
    pub fn unknown_hosts(&self) -> Result<Vec<String>, Failure> {
        self.list(UNKNOWN_HOSTS)
    }

    /// Says of which hosts that is so.
    ///
    /// # Errors
    /// The store.
    pub fn set_unknown_hosts(&self, hosts: &[String]) -> Result<(), Failure> {
        if self.unknown_hosts()? == hosts { Ok(()) } else { self.tell(UNKNOWN_HOSTS, hosts) }
    }

    /// Refuses to give anything new while there are hosts of which nobody knows what they hold.
    pub(super) fn refuse_unknown(&self) -> Result<(), Refused> {
        let hosts = self.unknown_hosts()?;
        if hosts.is_empty() { Ok(()) } else { Err(Refused::Unknown(hosts)) }
    }

    fn list<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Vec<T>, Failure> {
        let Some(text) = self.store().fact(name)? else { return Ok(Vec::new()) };
        serde_json::from_str(&text).with_context(|| format!("the address book at {} is damaged", self.store().place()))
    }

    fn tell<T: Serialize>(&self, name: &str, list: &[T]) -> Result<(), Failure> {
        let text = serde_json::to_string(list).context("a fact of the address book cannot be written")?;
        self.store().set_fact(name, (!list.is_empty()).then_some(&text))
    }

    /// Gives an owner a free spot in place of the one it has. The new one is bound at once; the old one stays bound, under a name of its own
    /// ([`earlier_of`]), until somebody knows that no link has it any more. All in one commit; `None` when somebody was faster.
    ///
    /// # Errors
    /// [`Refused::Held`] when the new one is taken; the store.
    pub fn move_to(&self, has: &Entry, spot: &Spot, bound: &Bound) -> Result<Option<(Entry, Entry)>, Refused> {
        if let Some(there) = self.store().of_spots(std::slice::from_ref(spot))?.into_iter().flatten().next() {
            return Err(Refused::Held(Box::new(there.record)));
        }
        self.refuse_unknown()?;
        let Some(owner) = OwnerKey::of(&has.record) else { return Ok(None) };
        let Bound { node, host, mac } = bound.clone();
        let (state, since, run) = (State::Bound, now(), self.run().to_owned());
        let record = Record { spot: spot.clone(), node, host, mac, state, since, run, ..has.record.clone() };
        let earlier = Record { owner: Some(self.earlier(&owner)?), ..has.record.clone() };
        let gives = Write {
            spot: has.record.spot.clone(),
            owner: Some(owner.clone()),
            expect: has.revision,
            record: Some(earlier.clone()),
        };
        let gets = Write { spot: spot.clone(), owner: Some(owner), expect: 0, record: Some(record.clone()) };
        let Commit::Done(revision) = self.store().commit(&[gives, gets])? else { return Ok(None) };
        Ok(Some((Entry { record, revision }, Entry { record: earlier, revision })))
    }

    /// A name for an earlier spot of an owner that nobody has yet.
    fn earlier(&self, owner: &OwnerKey) -> Result<String, Failure> {
        for number in 1..=MOST_EARLIER {
            let name =
                if number == 1 { format!("{}/old", owner.owner) } else { format!("{}/old-{number}", owner.owner) };
            if self.store().of_owners(&[owner_key(&owner.network, &name)])?.into_iter().flatten().next().is_none() {
                return Ok(name);
            }
        }
        Err(Failure::new(format!("`{}` has {MOST_EARLIER} earlier addresses that nobody released", owner.owner))
            .hint("`fanli ip list` shows them; `fanli ip release` gives each back once its container is gone"))
    }

    /// Another machine has the spot: it is kept as foreign, with what is known of that machine, and its owner gets another one when it asks
    /// again. False when the record is another one by now.
    ///
    /// # Errors
    /// The store.
    pub fn lose(&self, seen: &Entry, to: &Bound, note: &str) -> Result<bool, Failure> {
        let Bound { node, host, mac } = to.clone();
        let record = Record {
            owner: None,
            node,
            host,
            mac,
            state: State::Foreign,
            note: Some(note.to_owned()),
            since: now(),
            run: self.run().to_owned(),
            ..seen.record.clone()
        };
        let (spot, owner) = (record.spot.clone(), OwnerKey::of(&seen.record));
        let write = Write { spot, owner, expect: seen.revision, record: Some(record) };
        Ok(self.store().commit(&[write])? != Commit::Conflict)
    }

    /// Writes down what a host shows: the spot is bound to the owner, whatever stood there without one. What the owner had elsewhere stays
    /// bound under another name. False when it stood so before.
    ///
    /// # Errors
    /// [`Refused::Held`] when another owner has it; the store.
    pub fn settle(&self, network: &str, owner: &str, spot: &Spot, bound: &Bound) -> Result<bool, Refused> {
        let key = owner_key(network, owner);
        self.retry(|| {
            let there = self.store().of_spots(std::slice::from_ref(spot))?.into_iter().flatten().next();
            let has = self.store().of_owners(std::slice::from_ref(&key))?.into_iter().flatten().next();
            let Bound { node, host, mac } = bound.clone();
            let record = Record {
                network: network.to_owned(),
                spot: spot.clone(),
                owner: Some(owner.to_owned()),
                node,
                host,
                mac,
                state: State::Bound,
                note: None,
                run: self.run().to_owned(),
                since: now(),
            };
            let mut writes = Vec::new();
            let (before, expect) = match there {
                None => (Some(key.clone()), 0),
                Some(there) => {
                    let of = OwnerKey::of(&there.record);
                    if of.as_ref() == Some(&key) {
                        let old = Record { run: record.run.clone(), since: record.since, ..there.record.clone() };
                        if old == record {
                            return Ok(Some(false));
                        }
                    } else if of.is_some() && there.record.state == State::Bound {
                        return Err(Refused::Held(Box::new(there.record)));
                    }
                    (of, there.revision)
                }
            };
            writes.push(Write { spot: spot.clone(), owner: before, expect, record: Some(record) });
            if let Some(has) = has.filter(|has| has.record.spot != *spot) {
                let kept = match has.record.state {
                    State::Bound => Some(Record { owner: Some(self.earlier(&key)?), ..has.record.clone() }),
                    _ => None,
                };
                let owner = Some(key.clone());
                writes.push(Write { spot: has.record.spot, owner, expect: has.revision, record: kept });
            }
            Ok((self.store().commit(&writes)? != Commit::Conflict).then_some(true))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::earlier_of;

    #[test]
    fn earlier_spots_are_told_by_their_names() {
        assert_eq!(earlier_of("web/1/old"), Some("web/1"));
        assert_eq!(earlier_of("web/1/old-2"), Some("web/1"));
        for other in ["web/1", "web/old", "web", "web/1/older", "web/1/old-x", "old"] {
            assert_eq!(earlier_of(other), None, "{other}");
        }
    }
}
