//! The book beside what the hosts show: every difference, each in one line with the way out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::moves::Predecessor;
use super::rules::holder;
use super::{Entry, Lan, Spot, State};
use crate::failure::Failure;
use crate::resource::interfaces::{Seen, SeenContainer, SeenLink, SeenRecord};
use crate::system::docker_networks::docker_lan_name;
use crate::system::netlink::Mac;

/// What every host showed; an error is a host that nobody could look at.
pub type Survey = BTreeMap<String, Result<Seen, Failure>>;

/// An address that was seen on a link.
#[derive(Clone, Debug)]
pub struct Sighting<'a> {
    /// The host's inventory name.
    pub host: &'a str,
    /// The container; `None` on the host's own links.
    pub container: Option<&'a str>,
    /// The link's name.
    pub link: &'a str,
    /// The address.
    pub address: IpAddr,
    /// The link's MAC address.
    pub mac: Option<Mac>,
    /// The network, where the link is one of fanli's.
    pub network: Option<String>,
    /// What the host remembers of the attachment.
    pub record: Option<&'a SeenRecord>,
}

impl Sighting<'_> {
    /// Where, for people.
    pub fn place(&self) -> String {
        let mac = self.mac.map_or_else(String::new, |mac| format!(" with {mac}"));
        match self.container {
            Some(container) => format!("container {container} on {}{mac}", self.host),
            None => format!("{} itself, on {}{mac}", self.host, self.link),
        }
    }
}

/// Every address on every link of every host that could be looked at, but those that never leave a link.
pub fn sightings<'a>(survey: &'a Survey, lans: &[Lan]) -> Vec<Sighting<'a>> {
    let mut found = Vec::new();
    for (host, seen) in survey {
        let Ok(seen) = seen else { continue };
        for link in &seen.links {
            found.extend(of_link(host, None, link, seen, lans));
        }
        for container in &seen.containers {
            for link in &container.links {
                found.extend(of_link(host, Some(container), link, seen, lans));
            }
        }
    }
    found
}

fn of_link<'a>(
    host: &'a str,
    container: Option<&'a SeenContainer>,
    link: &'a SeenLink,
    seen: &'a Seen,
    lans: &[Lan],
) -> impl Iterator<Item = Sighting<'a>> {
    let local = |address: &IpAddr| {
        let v6 =
            matches!(address, IpAddr::V6(v6) if v6.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80));
        address.is_loopback() || v6
    };
    let by_docker = container.and_then(|container| {
        let lan = lans.iter().find(|lan| container.network_mode == docker_lan_name(&lan.name));
        lan.map(|lan| lan.name.clone())
    });
    let marked = link.alias.strip_prefix("fanli:1:").and_then(|rest| rest.split(':').nth(1)).map(str::to_owned);
    let addresses = link.addresses.iter().map(ipnet::IpNet::addr).filter(move |address| !local(address));
    addresses.map(move |address| {
        let name = container.map(|container| container.name.as_str());
        let own = |record: &&SeenRecord| Some(record.container.as_str()) == name && record.address == address;
        let record = seen.records.iter().find(own).filter(|_| marked.is_some());
        let network =
            record.map(|record| record.network.clone()).or_else(|| marked.clone()).or_else(|| by_docker.clone());
        Sighting { host, container: name, link: &link.name, address, mac: link.mac, network, record }
    })
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What kind: a word for programs.
    pub kind: &'static str,
    /// The address, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whose it is in the book.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The host that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// In one sentence.
    pub text: String,
    /// The way out.
    pub way_out: String,
    /// How grave it is.
    pub weight: Weight,
}

/// How grave a difference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Book and hosts contradict each other.
    Wrong,
    /// Nobody could look.
    Unknown,
    /// Good to know.
    Note,
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// The book's records.
    pub entries: &'a [Entry],
    /// Its own name.
    pub store: Option<&'a str>,
    /// Books that it took over.
    pub predecessors: &'a [Predecessor],
    /// What the hosts show.
    pub survey: &'a Survey,
    /// The playbook's networks.
    pub lans: &'a [Lan],
}

impl Sides<'_> {
    /// Whether an attachment was plugged from this book, or from one that it took over.
    pub fn accepts(&self, record: &SeenRecord) -> bool {
        let Some(store) = &record.store else { return true };
        let taken = |one: &Predecessor| one.store == *store && record.revision.unwrap_or(0) <= one.revision;
        Some(store.as_str()) == self.store || self.predecessors.iter().any(taken)
    }

    /// Whether the address could be given to a node.
    pub fn could_be_given(&self, address: IpAddr, own: bool) -> bool {
        let fits = |lan: &Lan| match lan.pool {
            Some(_) => lan.candidates().contains(&Spot::Address(address)),
            // Without a pool nodes have what they list; a host's own address is none of that.
            None => !own && lan.subnet.is_some() && lan.objection(address).is_none(),
        };
        self.lans.iter().any(fits)
    }

    /// What the network says of an address, by whichever host asked; `None` when none could.
    pub fn answer(&self, address: IpAddr) -> Option<(&str, Option<Mac>)> {
        let answers = self.survey.iter().filter_map(|(host, seen)| {
            let answer = seen.as_ref().ok()?.answers.iter().find(|answer| answer.address == address)?;
            Some((host.as_str(), answer.mac))
        });
        answers.max_by_key(|(_, mac)| mac.is_some())
    }

    fn host(&self, name: Option<&String>) -> Option<&Result<Seen, Failure>> {
        self.survey.get(name?)
    }
}

/// Every difference, the grave ones first, then by address.
pub fn differences(sides: &Sides) -> Vec<Difference> {
    let mut list = List { found: Vec::new() };
    let sightings = sightings(sides.survey, sides.lans);
    let of_spot: BTreeMap<IpAddr, &Entry> =
        sides.entries.iter().filter_map(|entry| Some((entry.record.spot.address()?, entry))).collect();
    for (host, seen) in sides.survey {
        if let Err(failure) = seen {
            list.unreachable(host, failure, sides);
        }
    }
    for entry in sides.entries {
        if let Some(address) = entry.record.spot.address() {
            let seen: Vec<&Sighting> = sightings.iter().filter(|sighting| sighting.address == address).collect();
            list.of_entry(entry, address, &seen, sides);
        }
    }
    for sighting in &sightings {
        let known = of_spot.get(&sighting.address);
        let may_be_given = sides.could_be_given(sighting.address, sighting.container.is_none());
        if known.is_none() && sighting.record.is_none() && may_be_given {
            list.say(
                "unknown",
                Weight::Wrong,
                sighting.address,
                None,
                Some(sighting.host),
                (
                    format!(
                        "{} is in use by {}, and does not stand in the book: it could be given away",
                        sighting.address,
                        sighting.place()
                    ),
                    "`fanli ip adopt` keeps it as foreign".to_owned(),
                ),
            );
        }
    }
    for (host, seen) in sides.survey {
        let Ok(seen) = seen else { continue };
        for record in &seen.records {
            list.of_record(host, seen, record, of_spot.get(&record.address).copied(), sides);
        }
    }
    list.found.sort_by(|left, right| (left.weight, &left.address).cmp(&(right.weight, &right.address)));
    list.found
}

struct List {
    found: Vec<Difference>,
}

impl List {
    fn say(
        &mut self,
        kind: &'static str,
        weight: Weight,
        address: IpAddr,
        owner: Option<&str>,
        host: Option<&str>,
        (text, way_out): (String, String),
    ) {
        let (owner, host) = (owner.map(str::to_owned), host.map(str::to_owned));
        self.found.push(Difference { kind, address: Some(address.to_string()), owner, host, text, way_out, weight });
    }

    fn unreachable(&mut self, host: &str, failure: &Failure, sides: &Sides) {
        let held = sides
            .entries
            .iter()
            .filter(|entry| entry.record.state == State::Bound && entry.record.host.as_deref() == Some(host));
        let held: Vec<String> = held
            .map(|entry| {
                let answers = entry.record.spot.address().and_then(|address| sides.answer(address)?.1);
                let answers = answers.map_or_else(String::new, |mac| format!(" (answers with {mac})"));
                format!("{} of {}{answers}", entry.record.spot, entry.record.owner.as_deref().unwrap_or("nobody"))
            })
            .collect();
        let held = if held.is_empty() {
            "the book has nothing on it".to_owned()
        } else {
            format!("what it holds stays bound: {}", held.join(", "))
        };
        self.found.push(Difference {
            kind: "unreachable",
            address: None,
            owner: None,
            host: Some(host.to_owned()),
            text: format!("{host} is unknown ({failure}); {held}"),
            way_out: "bring it back; when it is gone for ever, `fanli ip release OWNER --fence …`".to_owned(),
            weight: Weight::Unknown,
        });
    }

    /// What the book says of an address, and where it was seen.
    fn of_entry(&mut self, entry: &Entry, address: IpAddr, seen: &[&Sighting], sides: &Sides) {
        let record = &entry.record;
        let owner = record.owner.as_deref();
        let whose = owner.unwrap_or("nobody");
        let first = seen.first().map(|sighting| sighting.host);
        let places = || seen.iter().map(|sighting| sighting.place()).collect::<Vec<_>>().join(" and ");
        let release = format!("`fanli ip release {}`", owner.map_or_else(|| address.to_string(), str::to_owned));
        match record.state {
            State::Bound => self.of_bound(entry, address, seen, sides),
            State::Reserved { .. } if seen.is_empty() => {
                self.say(
                    "reserved",
                    Weight::Note,
                    address,
                    owner,
                    None,
                    (
                        format!("{address} is reserved for {whose} by run {}, which has not bound it", record.run),
                        "nothing to do: it ends by itself within five minutes".to_owned(),
                    ),
                );
            }
            State::Reserved { .. } => self.say(
                "reserved_in_use",
                Weight::Wrong,
                address,
                owner,
                first,
                (
                    format!("{address} is only reserved for {whose}, and {} has it", places()),
                    "`fanli ip adopt` writes down whose it is".to_owned(),
                ),
            ),
            State::Releasing { .. } if !seen.is_empty() => self.say(
                "released_in_use",
                Weight::Wrong,
                address,
                owner,
                first,
                (
                    format!("{address} of {whose} was released, and {} still has it", places()),
                    "remove that container, or `fanli ip adopt` binds it again".to_owned(),
                ),
            ),
            State::Static if !seen.is_empty() => self.say(
                "static_in_use",
                Weight::Wrong,
                address,
                owner,
                first,
                (
                    format!("{address} is kept out by hand{}, and {} has it", note(entry), places()),
                    "take it from there, or release the reservation and run `fanli ip adopt`".to_owned(),
                ),
            ),
            State::Static => {
                if let Some((host, Some(mac))) = sides.answer(address) {
                    self.say(
                        "static_answers",
                        Weight::Note,
                        address,
                        owner,
                        Some(host),
                        (
                            format!("{address}, kept out by hand{}, answers with {mac}", note(entry)),
                            "nothing to do: it is in use, as it was reserved for".to_owned(),
                        ),
                    );
                }
            }
            State::Foreign if seen.is_empty() => {
                if let Some((host, None)) = sides.answer(address) {
                    self.say(
                        "foreign_silent",
                        Weight::Note,
                        address,
                        owner,
                        Some(host),
                        (
                            format!("{address} is kept as foreign{}, and nobody answers for it now", note(entry)),
                            format!("{release} when that machine is gone"),
                        ),
                    );
                }
            }
            State::Foreign | State::Releasing { .. } => {}
        }
    }

    fn of_bound(&mut self, entry: &Entry, address: IpAddr, seen: &[&Sighting], sides: &Sides) {
        let record = &entry.record;
        let owner = record.owner.as_deref();
        let whose = owner.unwrap_or("nobody");
        let (node, host) = (record.node.as_deref(), record.host.as_deref());
        let on = host.map_or_else(String::new, |host| format!(" on {host}"));
        let places: BTreeSet<(&str, Option<&str>)> =
            seen.iter().map(|sighting| (sighting.host, sighting.container)).collect();
        if places.len() > 1 {
            let all = seen.iter().map(|sighting| sighting.place()).collect::<Vec<_>>().join(" and ");
            self.say(
                "two_copies",
                Weight::Wrong,
                address,
                owner,
                None,
                (
                    format!("{address} of {whose} is alive twice: {all}; the book has it{on}"),
                    "stop the container that is too much, or take its interface away".to_owned(),
                ),
            );
            return;
        }
        let Some(sighting) = seen.first() else {
            self.of_unseen(entry, address, sides);
            return;
        };
        if sighting.network.is_none() {
            self.say(
                "not_ours",
                Weight::Wrong,
                address,
                owner,
                Some(sighting.host),
                (
                    format!("{address} of {whose} is on an interface that fanli did not make: {}", sighting.place()),
                    "take it from there, then `fanli play` plugs the node".to_owned(),
                ),
            );
            return;
        }
        if host.is_some_and(|host| host != sighting.host) {
            let way_out = format!(
                "`fanli ip adopt` writes down that it is on {}; or remove it there and run `fanli play`",
                sighting.host
            );
            self.say(
                "other_host",
                Weight::Wrong,
                address,
                owner,
                Some(sighting.host),
                (format!("{address} of {whose} is bound{on}, and seen in {}", sighting.place()), way_out),
            );
        } else if node.is_some() && sighting.container != node {
            self.say(
                "other_container",
                Weight::Wrong,
                address,
                owner,
                Some(sighting.host),
                (
                    format!(
                        "{address} is bound to {whose} (node {}), and seen in {}",
                        node.unwrap_or_default(),
                        sighting.place()
                    ),
                    "`fanli play` gives each node its own address; or `fanli ip adopt` believes the host".to_owned(),
                ),
            );
        }
        let mac = sighting.mac.map(|mac| mac.to_string());
        if let (Some(booked), Some(seen)) = (&record.mac, &mac)
            && booked != seen
        {
            self.say(
                "other_mac",
                Weight::Wrong,
                address,
                owner,
                Some(sighting.host),
                (
                    format!("{address} of {whose} is booked with {booked}, and seen in {}", sighting.place()),
                    "`fanli play` gives the interface its MAC again; or `fanli ip adopt` believes the host".to_owned(),
                ),
            );
        }
    }

    fn of_unseen(&mut self, entry: &Entry, address: IpAddr, sides: &Sides) {
        let record = &entry.record;
        let owner = record.owner.as_deref();
        let whose = owner.unwrap_or("nobody");
        let release = format!("`fanli ip release {whose}`");
        let (name, seen) = match (record.host.as_deref(), sides.host(record.host.as_ref())) {
            (_, Some(Err(_))) => return,
            (Some(name), None) => {
                self.say(
                    "no_such_host",
                    Weight::Wrong,
                    address,
                    owner,
                    Some(name),
                    (
                        format!("{address} of {whose} is bound on {name}, which the playbook does not have"),
                        format!("declare {name} again, or {release} --fence … when it is gone for ever"),
                    ),
                );
                return;
            }
            (None, _) => {
                self.say(
                    "no_host",
                    Weight::Note,
                    address,
                    owner,
                    None,
                    (
                        format!("{address} of {whose} is bound, and the book does not know on which host; none has it"),
                        format!("`fanli play` writes it down; or {release} --fence …"),
                    ),
                );
                return;
            }
            (Some(name), Some(Ok(seen))) => (name, seen),
        };
        let node = record.node.as_deref().unwrap_or(whose);
        let container = seen.containers.iter().find(|container| container.name == node);
        let (kind, text) = match container {
            None => ("no_container", format!("there is no container {node} there")),
            Some(found) if found.unseen.is_some() => return,
            Some(found) if found.status != "running" => ("no_link", format!("container {node} is {}", found.status)),
            Some(_) => ("no_link", format!("container {node} has no interface with it")),
        };
        let way_out = if container.is_none() {
            format!("`fanli play` makes it again; or {release}")
        } else {
            "`fanli play` plugs it again".to_owned()
        };
        let text = format!("{address} of {whose} is bound on {name}, but {text}");
        self.say(kind, Weight::Wrong, address, owner, Some(name), (text, way_out));
    }

    /// What a host remembers of an attachment.
    fn of_record(&mut self, host: &str, seen: &Seen, record: &SeenRecord, entry: Option<&Entry>, sides: &Sides) {
        let address = record.address;
        let lives = seen.containers.iter().any(|container| container.name == record.container);
        let whose = record.owner.as_deref().unwrap_or("nobody");
        if !lives {
            // Where the book has it for the same owner, that there is no container was told with that.
            if entry.is_some_and(|entry| entry.record.owner == record.owner) {
                return;
            }
            self.say(
                "stale_record",
                Weight::Note,
                address,
                record.owner.as_deref(),
                Some(host),
                (
                    format!(
                        "{host} remembers {address} of container {} in network {}, which is gone",
                        record.container, record.network
                    ),
                    "nothing to do: it binds nobody, and the next `attach` on that network removes it".to_owned(),
                ),
            );
            return;
        }
        let Some(owner) = record.owner.as_deref() else { return };
        let from = match &record.store {
            Some(store) if !sides.accepts(record) => format!(", from address book {store}"),
            _ => String::new(),
        };
        let Some(entry) = entry else {
            self.say(
                "not_in_book",
                Weight::Wrong,
                address,
                Some(owner),
                Some(host),
                (
                    format!(
                        "{address} of {whose} (container {} on {host}{from}) does not stand in the book",
                        record.container
                    ),
                    "`fanli ip adopt` writes it down".to_owned(),
                ),
            );
            return;
        };
        let booked = &entry.record;
        if booked.owner.as_deref() != Some(owner) {
            let earlier = booked.owner.as_deref().and_then(super::earlier_of) == Some(owner);
            if !earlier {
                self.say("other_owner", Weight::Wrong, address, booked.owner.as_deref(), Some(host), (
                    format!("{address} is held by {} in the book, and {host} has it for {whose} (container {}{from})", holder(booked), record.container),
                    "decide whose it is: give the other one another address, or release it and run `fanli ip adopt`".to_owned(),
                ));
            }
            return;
        }
        if !sides.accepts(record) {
            let store = record.store.as_deref().unwrap_or_default();
            let kind = if Some(store) == sides.store { "older_book" } else { "other_store" };
            self.say(
                kind,
                Weight::Wrong,
                address,
                Some(owner),
                Some(host),
                (
                    format!("{host} plugged {address} of {whose} from address book {store}, not from this one"),
                    "use that book, or let `fanli ip adopt` take over what it gave".to_owned(),
                ),
            );
        } else if record.store.as_deref() == sides.store && record.revision.unwrap_or(0) > entry.revision {
            self.say("older_book", Weight::Wrong, address, Some(owner), Some(host), (
                format!(
                    "{host} plugged {address} of {whose} from revision {} of this book, which has revision {} of it: the book is older than the host",
                    record.revision.unwrap_or(0),
                    entry.revision
                ),
                "was a backup restored? `fanli ip adopt` takes over what the hosts show".to_owned(),
            ));
        }
    }
}

fn note(entry: &Entry) -> String {
    entry.record.note.as_ref().map_or_else(String::new, |note| format!(" (\"{note}\")"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_container_that_is_gone() {
        let record = SeenRecord {
            container: "web1".to_owned(),
            network: "lan".to_owned(),
            parent: "eth0".to_owned(),
            address: "10.71.0.10".parse().unwrap(),
            mac: None,
            owner: Some("web/1".to_owned()),
            store: Some("another".to_owned()),
            revision: Some(7),
        };
        let mut seen = Seen { records: vec![record], ..Seen::default() };
        let told = |seen: &Seen| {
            let survey = Survey::from([("lab1".to_owned(), Ok(seen.clone()))]);
            let sides = Sides { entries: &[], store: Some("ours"), predecessors: &[], survey: &survey, lans: &[] };
            differences(&sides).iter().map(|one| (one.kind, one.weight)).collect::<Vec<_>>()
        };
        assert_eq!(told(&seen), [("stale_record", Weight::Note)]);
        seen.containers.push(SeenContainer { name: "web1".to_owned(), ..SeenContainer::default() });
        assert_eq!(told(&seen), [("not_in_book", Weight::Wrong)]);
    }
}
