//! `fanli ip adopt`: the book made anew, or mended, from what the hosts show.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use super::{Desk, Reaching, Trouble, request};
use crate::book::compare::{Sides, Sighting, sightings};
use crate::book::redb::FileStore;
use crate::book::rules::holder;
use crate::book::{Bound, Entry, Predecessor, Refused, Spot, State, Store as _, earlier_of};
use crate::cli::exit;
use crate::report::harmless;
use crate::resource::interfaces::{Seen, SeenRecord};
use crate::visible::count;

/// Make the address book anew, or mend it, from what the hosts show
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli ip adopt web-tier.fp --env lab                     what would be written
  fanli ip adopt web-tier.fp --env lab --yes               write it
  fanli ip adopt web-tier.fp --env lab --from .fanli/lab/book.redb --yes
                                                           from the file to the store that is declared now
  fanli ip adopt web-tier.fp --env lab --without lab3 --yes   lab3 is gone for ever

What a host remembers as fanli's, for a container that is there, is bound to its owner again; an
address that is seen and belongs to nobody is kept as foreign. What the book has bound stays bound.
When the book was lost and hosts cannot be reached, nobody knows what they hold: nothing new is given
until they are back and `adopt` is run again, or are given up with --without.
Exit codes: 0 the book is right; 3 something is to be written (without --yes); 4 what the hosts show
contradicts itself; 5 hosts could not be reached.")]
pub(super) struct Adopt {
    #[command(flatten)]
    playbook: request::Playbook,

    /// Write it; else it is only told
    #[arg(long)]
    yes: bool,

    /// Also take over what this older book (a file) has: reservations by hand, and what is bound
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// This host is gone for ever: what it had and no book knows may be given away. May be repeated
    #[arg(long, value_name = "HOST")]
    without: Vec<String>,

    #[command(flatten)]
    reach: Reaching,
}

/// A claim on an address: a host remembers it for an owner.
struct Claim {
    network: String,
    owner: String,
    address: IpAddr,
    bound: Bound,
    revision: u64,
}

/// What is to be written.
enum Work {
    Bind(Claim),
    Keep { network: String, spot: Spot, bound: Bound, note: Option<String>, state: State },
}

pub(super) fn adopt(args: &Adopt) -> Result<(String, u8), Trouble> {
    let desk = Desk::open(&args.playbook)?;
    for host in &args.without {
        if desk.hosts.iter().all(|(name, _)| name != host) && !desk.book.unknown_hosts()?.contains(host) {
            return Err(Trouble::input(&format!("--without {host}: the playbook has no such host"), ""));
        }
    }
    let old = args.from.as_ref().map(|path| older(path, &desk.run)).transpose()?;
    let mut hosts = desk.survey(&[], &args.reach)?;
    hosts.retain(|host, seen| seen.is_ok() || !args.without.contains(host));
    let entries = desk.book.all()?.entries;
    let (store, predecessors) = (desk.book.store().id()?, desk.book.predecessors()?);
    let revision = desk.book.store().revision()?;
    let sides = Sides {
        entries: &entries,
        store: store.as_deref(),
        predecessors: &predecessors,
        survey: &hosts,
        lans: &desk.lans,
    };
    let mut plan =
        Plan { desk: &desk, sides, old: old.as_ref(), work: Vec::new(), trouble: Vec::new(), text: String::new() };
    let more = plan.books(store.as_deref(), revision);
    let unknown = plan.unknown_hosts(&args.without, store.as_deref(), revision)?;
    plan.stale();
    plan.claims();
    plan.older();
    plan.foreign();
    let unreachable = hosts.values().any(Result::is_err);
    let unknown_before = desk.book.unknown_hosts()?;
    let nothing = plan.work.is_empty() && more.is_empty() && unknown == unknown_before;
    let Plan { work, trouble, mut text, .. } = plan;
    if args.yes {
        // First what holds back others, then what they may build on.
        desk.book.set_unknown_hosts(&unknown)?;
        for one in &work {
            write(&desk, one)?;
        }
        desk.book.accept(&more)?;
    }
    for (host, seen) in &hosts {
        if let Err(failure) = seen {
            let kept = entries.iter().filter(|entry| entry.record.host.as_ref() == Some(host)).count();
            let _ = writeln!(
                text,
                "?      {host} is unknown ({}); what the book has of it ({}) stays as it is",
                harmless(&failure.to_string()),
                count(kept, "record")
            );
        }
    }
    for line in &trouble {
        let _ = writeln!(text, "WRONG  {line}");
    }
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        let _ = writeln!(
            text,
            "nobody knows which addresses {names} {}: nothing new is given until `fanli ip adopt` has seen it, or gives it up with `--without HOST`",
            if unknown.len() == 1 { "holds" } else { "hold" }
        );
    }
    let shown = desk.file.display().to_string();
    let shown = shown.strip_prefix("./").unwrap_or(&shown).to_owned();
    if args.from.is_none()
        && desk.file.exists()
        && desk.book.store().place() != desk.file.display().to_string()
        && !args.yes
    {
        let _ =
            writeln!(text, "there is an older book beside the project: --from {shown} takes over what it has as well");
    }
    let hosts = count(hosts.values().filter(|seen| seen.is_ok()).count(), "reachable host");
    let _ = match (nothing, args.yes) {
        (true, _) => writeln!(text, "nothing to write: the book is what {hosts} show"),
        (false, true) => writeln!(text, "{} written, as {hosts} show", count(work.len(), "record")),
        (false, false) => writeln!(text, "nothing was written: add --yes to write {}", count(work.len(), "record")),
    };
    let code = match () {
        () if !trouble.is_empty() => exit::FAILED,
        () if !nothing && !args.yes => exit::WOULD_CHANGE,
        () if unreachable => exit::UNREACHABLE,
        () => exit::OK,
    };
    Ok((text, code))
}

/// An older book.
struct Older {
    store: String,
    revision: u64,
    entries: Vec<Entry>,
}

fn older(path: &std::path::Path, run: &str) -> Result<Older, Trouble> {
    let book = FileStore::new(path, run);
    match book.id()? {
        Some(store) => Ok(Older { store, revision: book.revision()?, entries: book.all()?.entries }),
        None => Err(Trouble::input(&format!("--from {}: there is no address book", path.display()), "")),
    }
}

struct Plan<'a> {
    desk: &'a Desk,
    sides: Sides<'a>,
    old: Option<&'a Older>,
    work: Vec<Work>,
    trouble: Vec<String>,
    text: String,
}

impl<'a> Plan<'a> {
    fn seen(&self) -> impl Iterator<Item = (&'a str, &'a Seen)> + use<'a> {
        self.sides.survey.iter().filter_map(|(host, seen)| Some((host.as_str(), seen.as_ref().ok()?)))
    }

    /// What hosts remember for containers that are there.
    fn records(&self) -> Vec<(&'a str, &'a Seen, &'a SeenRecord)> {
        let lives =
            |seen: &Seen, record: &SeenRecord| seen.containers.iter().any(|found| found.name == record.container);
        let of_host = |(host, seen): (&'a str, &'a Seen)| {
            seen.records.iter().filter(move |record| lives(seen, record)).map(move |record| (host, seen, record))
        };
        self.seen().flat_map(of_host).collect()
    }

    /// What hosts remember for containers that are gone: nothing is written for them. What the book has is kept as it is.
    fn stale(&mut self) {
        let mut lines = String::new();
        for (host, seen) in self.seen() {
            let gone = |record: &&SeenRecord| seen.containers.iter().all(|found| found.name != record.container);
            for record in seen.records.iter().filter(gone) {
                if self.entry(record.address).is_some_and(|entry| entry.record.owner == record.owner) {
                    continue;
                }
                let (address, container) = (record.address, harmless(&record.container));
                let _ = writeln!(
                    lines,
                    "note   {host} remembers {address} of container {container}, which is gone: it binds nobody, and the next \
                     `attach` in network {} there removes it",
                    harmless(&record.network)
                );
            }
        }
        self.text.push_str(&lines);
    }

    /// Books that hosts plugged from and this one has not taken over yet. Also for containers that are gone: what is made anew in their
    /// place meets their records.
    fn books(&mut self, store: Option<&str>, revision: u64) -> Vec<Predecessor> {
        let mut found: BTreeMap<&str, u64> = BTreeMap::new();
        let ours = |record: &&SeenRecord| self.sides.lans.iter().any(|lan| lan.name == record.network);
        for record in self.seen().flat_map(|(_, seen)| &seen.records).filter(ours) {
            let (Some(from), Some(at)) = (&record.store, record.revision) else { continue };
            let newer = Some(from.as_str()) == store && at > revision;
            if newer || (Some(from.as_str()) != store && !self.sides.accepts(record)) {
                let last = found.entry(from).or_default();
                *last = (*last).max(at);
            }
        }
        if let Some(old) = self.old.filter(|old| Some(old.store.as_str()) != store) {
            let known =
                self.sides.predecessors.iter().any(|one| one.store == old.store && one.revision >= old.revision);
            if !known {
                let last = found.entry(&old.store).or_default();
                *last = (*last).max(old.revision);
            }
        }
        for (store, revision) in &found {
            let _ = writeln!(self.text, "adopt  what address book {store} gave, up to its revision {revision}");
        }
        found.into_iter().map(|(store, revision)| Predecessor { store: store.to_owned(), revision }).collect()
    }

    /// Hosts that cannot be reached, of which no book at hand can know what they hold.
    fn unknown_hosts(&self, without: &[String], store: Option<&str>, revision: u64) -> Result<Vec<String>, Trouble> {
        let of_old = |name: &str, at: u64| self.old.is_some_and(|old| old.store == name && at <= old.revision);
        let covered = |record: &SeenRecord| match (&record.store, record.revision) {
            (Some(name), Some(at)) => {
                // What a book took over counts only as far as it was all seen then: that stands in its unknown hosts.
                Some(name.as_str()) == store && at <= revision
                    || of_old(name, at)
                    || self.sides.accepts(record) && Some(name.as_str()) != store
            }
            _ => true,
        };
        let bound = |entries: &[Entry]| entries.iter().any(|entry| entry.record.state == State::Bound);
        let empty = !bound(self.sides.entries) && !self.old.is_some_and(|old| bound(&old.entries));
        let lost = empty || self.records().iter().any(|(_, _, record)| !covered(record));
        let before = self.desk.book.unknown_hosts()?;
        let unreachable = self.sides.survey.iter().filter(|(_, seen)| seen.is_err()).map(|(host, _)| host.clone());
        let unknown: BTreeSet<String> = unreachable.filter(|host| lost || before.contains(host)).collect();
        // A host that has left the playbook was not asked.
        let gone = before.into_iter().filter(|host| !self.sides.survey.contains_key(host));
        Ok(unknown.into_iter().chain(gone).filter(|host| !without.contains(host)).collect())
    }

    fn entry(&self, address: IpAddr) -> Option<&'a Entry> {
        self.sides.entries.iter().find(|entry| entry.record.spot.address() == Some(address))
    }

    /// Whether the owner's group and the network are the playbook's.
    fn known(&self, network: &str, owner: &str) -> bool {
        let group = owner.split_once('/').map_or(owner, |(group, _)| group);
        self.desk.groups.iter().any(|known| known == group) && self.desk.lans.iter().any(|lan| lan.name == network)
    }

    /// Addresses that hosts remember for owners.
    fn claims(&mut self) {
        let mut claims: Vec<Claim> = Vec::new();
        for (host, seen, record) in self.records() {
            let Some(owner) = record.owner.as_ref().filter(|owner| self.known(&record.network, owner)) else {
                continue;
            };
            let links =
                seen.containers.iter().filter(|found| found.name == record.container).flat_map(|found| &found.links);
            let link = links.into_iter().find(|link| link.addresses.iter().any(|net| net.addr() == record.address));
            let mac = link.and_then(|link| link.mac).or(record.mac).map(|mac| mac.to_string());
            let bound = Bound { node: Some(record.container.clone()), host: Some(host.to_owned()), mac };
            let (network, owner, address) = (record.network.clone(), owner.clone(), record.address);
            claims.push(Claim { network, owner, address, bound, revision: record.revision.unwrap_or(0) });
        }
        // The latest word of each owner, and on each address.
        claims.sort_by(|left, right| right.revision.cmp(&left.revision).then_with(|| left.address.cmp(&right.address)));
        let (mut owners, mut addresses): (BTreeMap<(String, String), IpAddr>, BTreeMap<IpAddr, String>) =
            Default::default();
        for claim in claims {
            let place = format!(
                "container {} on {}",
                claim.bound.node.as_deref().unwrap_or_default(),
                claim.bound.host.as_deref().unwrap_or_default()
            );
            if let Some(other) = addresses.get(&claim.address) {
                self.trouble.push(format!(
                    "{} is alive twice: {other} and {place}: stop the one that is too much",
                    claim.address
                ));
                continue;
            }
            let key = (claim.network.clone(), claim.owner.clone());
            if let Some(other) = owners.get(&key) {
                self.trouble.push(format!(
                    "{} has two addresses, {other} and {} ({place}): remove the container that is too much",
                    claim.owner, claim.address
                ));
                let spot = Spot::Address(claim.address);
                if self.entry(claim.address).is_none() {
                    let note = Some(format!("{} has it as well, in {place}", claim.owner));
                    self.work.push(Work::Keep {
                        network: claim.network,
                        spot,
                        bound: claim.bound,
                        note,
                        state: State::Foreign,
                    });
                }
                continue;
            }
            let entry = self.entry(claim.address);
            addresses.insert(claim.address, place.clone());
            if let Some(entry) = entry
                && let Some(booked) = &entry.record.owner
                && entry.record.state == State::Bound
            {
                if earlier_of(booked) == Some(claim.owner.as_str()) {
                    continue;
                }
                if *booked != claim.owner {
                    self.trouble.push(format!(
                        "{} is held by {} in the book, and {place} has it for {}: decide whose it is, then `fanli ip release` the other one",
                        claim.address,
                        holder(&entry.record),
                        claim.owner
                    ));
                    continue;
                }
                let same = entry.record.node == claim.bound.node
                    && entry.record.host == claim.bound.host
                    && (claim.bound.mac.is_none() || entry.record.mac == claim.bound.mac);
                owners.insert(key.clone(), claim.address);
                if same {
                    continue;
                }
            }
            owners.insert(key, claim.address);
            let _ = writeln!(self.text, "bind   {} to {} ({place})", claim.address, claim.owner);
            self.work.push(Work::Bind(claim));
        }
    }

    /// What an older book has and this one lacks.
    fn older(&mut self) {
        let Some(old) = self.old else { return };
        let bound: BTreeSet<IpAddr> = self.work.iter().filter_map(Work::address).collect();
        for entry in &old.entries {
            let record = &entry.record;
            let Some(address) = record.spot.address() else { continue };
            if bound.contains(&address) || self.entry(address).is_some() {
                continue;
            }
            let Bound { node, host, mac } =
                Bound { node: record.node.clone(), host: record.host.clone(), mac: record.mac.clone() };
            let (network, told) = (record.network.clone(), Bound { node, host, mac });
            match (record.state, &record.owner) {
                (State::Bound, Some(owner)) => {
                    let moved = self.work.iter().any(
                        |work| matches!(work, Work::Bind(claim) if claim.owner == *owner && claim.network == network),
                    );
                    let taken = self
                        .sides
                        .entries
                        .iter()
                        .any(|entry| entry.record.owner.as_ref() == Some(owner) && entry.record.network == network);
                    if moved || taken {
                        continue;
                    }
                    let _ = writeln!(self.text, "bind   {address} to {owner} (from the older book)");
                    let claim = Claim { network, owner: owner.clone(), address, bound: told, revision: entry.revision };
                    self.work.push(Work::Bind(claim));
                }
                (state @ (State::Static | State::Foreign), _) => {
                    let _ = writeln!(self.text, "keep   {address} as {} (from the older book)", state.word());
                    let (spot, note) = (record.spot.clone(), record.note.clone());
                    self.work.push(Work::Keep { network, spot, bound: told, note, state });
                }
                _ => {}
            }
        }
    }

    /// What is seen and belongs to nobody.
    fn foreign(&mut self) {
        let done: BTreeSet<IpAddr> = self.work.iter().filter_map(Work::address).collect();
        let mut told = BTreeSet::new();
        for sighting in sightings(self.sides.survey, self.sides.lans) {
            let address = sighting.address;
            let ours = sighting.record.and_then(|record| Some(self.known(&record.network, record.owner.as_deref()?)));
            let free = self
                .entry(address)
                .is_none_or(|entry| matches!(entry.record.state, State::Reserved { .. } | State::Releasing { .. }));
            let may_be_given = self.sides.could_be_given(address, sighting.container.is_none());
            if ours == Some(true) || !free || !may_be_given || done.contains(&address) || !told.insert(address) {
                continue;
            }
            let Some(network) = self.network_of(&sighting) else { continue };
            let note = format!("seen in {}", where_seen(&sighting));
            let _ = writeln!(self.text, "keep   {address} as foreign: {}", sighting.place());
            let mac = sighting.mac.map(|mac| mac.to_string());
            let bound = Bound { node: None, host: Some(sighting.host.to_owned()), mac };
            let spot = Spot::Address(address);
            self.work.push(Work::Keep { network, spot, bound, note: Some(note), state: State::Foreign });
        }
    }

    fn network_of(&self, sighting: &Sighting) -> Option<String> {
        let spot = Spot::Address(sighting.address);
        let fits = |lan: &&crate::book::Lan| match lan.subnet {
            Some(subnet) => subnet.contains(&sighting.address),
            None => lan.candidates().contains(&spot),
        };
        self.desk.lans.iter().find(fits).map(|lan| lan.name.clone())
    }
}

fn where_seen(sighting: &Sighting) -> String {
    match sighting.container {
        Some(container) => format!("container {container} on {}", sighting.host),
        None => format!("{} itself", sighting.host),
    }
}

impl Work {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Bind(claim) => Some(claim.address),
            Self::Keep { spot, .. } => spot.address(),
        }
    }
}

fn write(desk: &Desk, work: &Work) -> Result<(), Trouble> {
    match work {
        Work::Bind(claim) => {
            let spot = Spot::Address(claim.address);
            match desk.book.settle(&claim.network, &claim.owner, &spot, &claim.bound) {
                Ok(_) => Ok(()),
                Err(Refused::Held(record)) => {
                    let message = format!("{spot} was given to {} just now", holder(&record));
                    Err(Trouble::input(&message, "let no run be under way, and adopt again"))
                }
                Err(other) => Err(other.into()),
            }
        }
        Work::Keep { network, spot, bound, note, state } => {
            let there = desk.book.store().of_spots(std::slice::from_ref(spot))?.into_iter().flatten().next();
            if let Some(there) =
                there.filter(|there| there.record.owner.is_some() && there.record.state != State::Bound)
            {
                // Promised or given back, and in use all the same.
                desk.book.lose(&there, bound, note.as_deref().unwrap_or_default())?;
                return Ok(());
            }
            desk.book.keep(network, &[(spot.clone(), bound.clone(), note.clone())], *state)?;
            Ok(())
        }
    }
}
