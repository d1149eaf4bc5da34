//! `fanli ip reserve` and `release`: by hand.

use std::net::IpAddr;
use std::time::Duration;

use super::{Desk, Reaching, Trouble, request};
use crate::book::compare::{Sides, sightings};
use crate::book::rules::{QUARANTINE, holder};
use crate::book::{Bound, Candidates, Entry, Spot, State, earlier_of};
use crate::report::harmless;
use crate::value::show_duration;

/// The most addresses that one call keeps out of a pool.
const MOST: usize = 65_536;

/// The sentence that lets go of what may still be in use.
const FENCE: &str = "I know that it is down";

/// Keep addresses out of the pool, by hand
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli ip reserve 10.88.8.50 web-tier.fp --env lab --note 'printer, room 4'
  fanli ip reserve 10.88.8.60-10.88.8.69 web-tier.fp --env lab --note 'DHCP of the office'

The reservation stays until `fanli ip release`. What has an owner is refused.")]
pub(super) struct Reserve {
    /// An address, HOST:PORT, or a range FIRST-LAST
    #[arg(value_name = "ADDRESS")]
    what: String,

    #[command(flatten)]
    playbook: request::Playbook,

    /// What it is for
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    /// The network that it belongs to, where its address does not tell
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

pub(super) fn reserve(args: &Reserve) -> Result<String, Trouble> {
    let desk = Desk::open(&args.playbook)?;
    let spots = spots(&args.what)?;
    let name = args.network.as_deref();
    let mut network = None;
    for spot in &spots {
        let Some(lan) = desk.network_of(spot, name)? else {
            let help = "is it the right environment? `fanli ip find` shows addresses of each network";
            return Err(Trouble::input(&format!("{spot} is in no network of this playbook"), help));
        };
        network = Some(lan.name.clone());
    }
    let network = network.unwrap_or_default();
    let kept: Vec<_> = spots.iter().map(|spot| (spot.clone(), Bound::default(), args.note.clone())).collect();
    let written = desk.book.keep(&network, &kept, State::Static)?;
    let same =
        if written < kept.len() { format!(", {} stood there already", kept.len() - written) } else { String::new() };
    Ok(format!("{}: {written} reserved in `{network}`{same}\n", args.what))
}

/// One spot, or those of a range.
fn spots(text: &str) -> Result<Vec<Spot>, Trouble> {
    if let Ok(spot) = text.parse() {
        return Ok(vec![spot]);
    }
    let ends =
        text.split_once('-').and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    let Some((first, last)) = ends else {
        let message = format!("`{text}` is neither an address, nor HOST:PORT, nor a range");
        return Err(Trouble::input(&message, "write 10.0.0.5, lab1:8080 or 10.0.0.5-10.0.0.9"));
    };
    let range = Candidates::addresses(first, last);
    match range.len() {
        0 => Err(Trouble::input(&format!("`{text}` is empty: the first address comes after the last"), "")),
        len if len > MOST as u128 => Err(Trouble::input(
            &format!("`{text}` has {len} addresses; one call keeps {MOST} at most"),
            "name it in `exclude` of the network",
        )),
        _ => Ok(range.from(0).collect()),
    }
}

/// Give an address back
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli ip release 10.88.8.50 web-tier.fp --env lab       a reservation by hand
  fanli ip release web/3 web-tier.fp --env lab            once its container is gone
  fanli ip release web/3 web-tier.fp --env lab --fence 'I know that it is down'

What is bound may be in use, so its host is asked. Only when it says itself that there is no such
container and no link with the address, and nobody on the network answers for it, it is released;
it is kept from others for a minute after that, as neighbours remember it. A host that cannot be
reached says nothing. When it is gone for ever only you can know: then say so with --fence.")]
pub(super) struct Release {
    /// An address (or HOST:PORT), an owner such as web/3, or a node
    #[arg(value_name = "WHAT")]
    what: String,

    #[command(flatten)]
    playbook: request::Playbook,

    /// For what is bound and cannot be looked at: the sentence 'I know that it is down'
    #[arg(long, value_name = "SENTENCE")]
    fence: Option<String>,

    #[command(flatten)]
    reach: Reaching,
}

pub(super) fn release(args: &Release) -> Result<String, Trouble> {
    if args.fence.as_ref().is_some_and(|sentence| sentence != FENCE) {
        return Err(Trouble::input("--fence takes this very sentence", &format!("--fence '{FENCE}'")));
    }
    let desk = Desk::open(&args.playbook)?;
    let entries = desk.meant(&args.what)?;
    let [entry] = &entries[..] else {
        let spots: Vec<String> = entries.iter().map(|entry| entry.record.spot.to_string()).collect();
        let message = format!("`{}` has several: {}", args.what, spots.join(", "));
        return Err(Trouble::input(&message, "name the address"));
    };
    let record = &entry.record;
    let quarantine = match record.state {
        State::Bound => {
            if args.fence.is_none() {
                refuse_alive(&desk, entry, &args.reach)?;
            }
            QUARANTINE
        }
        State::Releasing { until } => {
            return Ok(format!("{} is being released already: free at {}\n", record.spot, super::table::time(until)));
        }
        State::Reserved { .. } | State::Static | State::Foreign => Duration::ZERO,
    };
    if !desk.book.release(entry, quarantine)? {
        let message = format!("the record of {} changed just now", record.spot);
        return Err(Trouble::input(&message, "look at it again: `fanli ip show`"));
    }
    Ok(if quarantine.is_zero() {
        format!("{} ({}) is free\n", record.spot, record.state.word())
    } else {
        format!("{} of {} is released; free in {}\n", record.spot, holder(record), show_duration(quarantine))
    })
}

/// Refuses unless the host itself says that nothing is left, and the network is silent.
fn refuse_alive(desk: &Desk, entry: &Entry, reaching: &Reaching) -> Result<(), Trouble> {
    let record = &entry.record;
    let (spot, whose) = (&record.spot, holder(record));
    let fence = format!("when it is gone for ever and will not come back: --fence '{FENCE}'");
    let refused = |why: String, help: &str| Err(Trouble::input(&format!("{spot} is bound by {whose}: {why}"), help));
    let Some(host) = &record.host else {
        return refused("the book does not know on which host, so none can be asked".to_owned(), &fence);
    };
    if desk.hosts.iter().all(|(name, _)| name != host) {
        let help = format!("declare the host again; {fence}");
        return refused(format!("the playbook has no host {host} that could be asked"), &help);
    }
    let asked: Vec<IpAddr> = spot.address().into_iter().collect();
    let survey = desk.survey(&asked, reaching)?;
    let seen = match survey.get(host) {
        Some(Ok(seen)) => seen,
        Some(Err(failure)) => {
            return refused(format!("{host} cannot be asked ({})", harmless(&failure.to_string())), &fence);
        }
        None => return refused(format!("{host} did not answer"), &fence),
    };
    let node = record.node.as_deref().or(record.owner.as_deref()).unwrap_or_default();
    if let Some(found) = seen.containers.iter().find(|container| container.name == node && is_its_own(entry)) {
        let help =
            format!("remove it there first: `docker rm -f {node}` on {host}, or `container` with `state = absent`");
        return refused(format!("container {node} is there ({})", found.status), &help);
    }
    let Some(address) = spot.address() else { return Ok(()) };
    if let Some(unseen) = survey.iter().find_map(|(host, seen)| {
        let unseen = seen.as_ref().ok()?.containers.iter().find(|container| container.unseen.is_some())?;
        (host == record.host.as_ref()?).then(|| unseen.name.clone())
    }) {
        return refused(format!("container {unseen} on {host} could not be looked into"), "try again");
    }
    let remembered = seen.records.iter().find(|found| {
        found.address == address && seen.containers.iter().any(|container| container.name == found.container)
    });
    if let Some(found) = remembered {
        let help = format!("remove it there first: `docker rm -f {}` on {host}", found.container);
        return refused(format!("{host} has it for container {}, which is there", found.container), &help);
    }
    let sightings = sightings(&survey, &desk.lans);
    if let Some(sighting) = sightings.iter().find(|sighting| sighting.address == address) {
        let help = "take it from there first; `fanli ip check` shows all that is not as booked";
        return refused(format!("it is alive in {}", sighting.place()), help);
    }
    let sides = Sides { entries: &[], store: None, predecessors: &[], survey: &survey, lans: &desk.lans };
    match sides.answer(address) {
        Some((from, Some(mac))) => {
            let help = "find that machine first: `fanli net list` shows what all hosts have";
            refused(format!("{mac} answers for it, asked from {from}"), help)
        }
        // A tunnel's network is on no wire that a host could ask; there the hosts' own word is all there is.
        Some((_, None)) | None => Ok(()),
    }
}

/// Whether the address is the one that its container has: an earlier one of an owner is not.
fn is_its_own(entry: &Entry) -> bool {
    entry.record.owner.as_deref().is_none_or(|owner| earlier_of(owner).is_none())
}
