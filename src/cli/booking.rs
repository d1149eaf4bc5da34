//! A run's addresses: reserved and bound before the first connection, and what the run finds out about them written down after it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use super::{complain, exit, failed, request};
use crate::book::rules::QUARANTINE;
use crate::book::view::Given;
use crate::book::{Bound, Entry, Refused, Spot, State, View, earlier_of};
use crate::diagnostic::Diagnostic;
use crate::event::{Event, EventKind, Outcome};
use crate::failure::Failure;
use crate::plan::{self, PlanRequest, RunPlan};
use crate::playbook::Playbook;
use crate::resource::attach::{FOREIGN_ADDRESS, FOREIGN_MAC};
use crate::source::Sources;

/// How often a run plans again when another one was faster at the address book.
const PLANNINGS: u32 = 8;

/// How many left over addresses are named one by one.
const MOST_NAMED: usize = 10;

/// What a run has of the book.
pub(super) struct Booking {
    view: View,
    writes: bool,
    /// Network, owner and spot of each node that the plan has.
    entries: Vec<Entry>,
    /// What nobody of this playbook needs any more, and owners' earlier addresses.
    left: Vec<Entry>,
    /// Nodes whose interface in a network is as declared, by network.
    attached: BTreeSet<(String, String)>,
    /// Other machines that answered: on which host, for which node, its address, their MAC.
    foreign: Vec<(String, String, Spot, Option<String>)>,
}

/// Makes the plan, with its addresses reserved and bound; when nothing is to be written, as they would be. Says itself what went wrong.
pub(super) fn planned(
    playbook: &Playbook,
    found: &[Diagnostic],
    asked: &PlanRequest,
    sources: &mut Sources,
    writes: bool,
) -> Result<(RunPlan, Booking), ExitCode> {
    let mut view = View::new(&asked.run);
    for _ in 0..PLANNINGS {
        view.again();
        let (mut planned, inventory) = match plan::make(playbook, found.to_vec(), asked, sources, &mut view) {
            Ok(made) => made,
            Err(errors) => {
                complain(&request::errors(&errors, sources));
                return Err(exit::BAD_INPUT.into());
            }
        };
        // Everything is checked by now, and nothing is connected yet.
        let moves = view.moves().map_err(|failure| failed(&failure))?;
        let entries = if writes {
            let holders = plan::holders(&planned, &inventory);
            let key = |given: &Given| (given.network.clone(), given.owner.clone());
            view.keep(|given| holders.get(&key(given)).cloned().unwrap_or_default())
        } else {
            view.standing().map_err(Refused::Store)
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(Refused::Store(failure)) => return Err(failed(&failure)),
            Err(refused @ Refused::Unknown(_)) => {
                let hint = "`fanli ip adopt` once they can be reached again";
                return Err(failed(&Failure::new(refused.to_string()).hint(hint)));
            }
            Err(_) => continue,
        };
        let mut left = Vec::new();
        if let Some(book) = view.book() {
            let known = || Ok((book.store().id()?, book.predecessors()?, book.all()?.entries));
            let (store, predecessors, all) = known().map_err(|failure| failed(&failure))?;
            plan::stamp(&mut planned, &inventory, store.as_deref(), &predecessors, &entries);
            left = plan::left_over(playbook, &inventory, &all);
        }
        for (has, spot) in &moves {
            complain(&moving(has, spot));
        }
        let entries = entries.into_values().collect();
        let (attached, foreign) = Default::default();
        return Ok((planned, Booking { view, writes, entries, left, attached, foreign }));
    }
    Err(failed(&Failure::new(format!("other runs take the addresses of this one: it was planned {PLANNINGS} times"))))
}

/// What becomes of an owner whose address is another one now.
fn moving(has: &Entry, spot: &Spot) -> String {
    let Entry { record, .. } = has;
    let owner = record.owner.as_deref().unwrap_or_default();
    format!(
        "note: {owner} moves from {} to {spot} in `{}`: the new address is bound first, the old one is released once the plug has moved it",
        record.spot, record.network
    )
}

impl Booking {
    /// Hears what concerns addresses.
    pub(super) fn hear(&mut self, event: &Event) {
        let EventKind::StepFinished { step, outcome, .. } = &event.kind else { return };
        let (Some(node), true) = (&step.target.node, step.kind == "attach") else { return };
        match outcome {
            // The title of an `attach` is its network.
            Outcome::Ok | Outcome::Changed(_) => {
                self.attached.insert((step.title.clone(), node.clone()));
            }
            Outcome::Failed(failure, _) | Outcome::Ignored(failure, _) => {
                let spot = failure.facts.get(FOREIGN_ADDRESS).and_then(|text| text.parse().ok());
                let mac = failure.facts.get(FOREIGN_MAC).cloned();
                self.foreign.extend(spot.map(|spot| (event.host.clone(), node.clone(), spot, mac)));
            }
            _ => {}
        }
    }

    /// Writes down what the run found out, and says what is left over.
    pub(super) fn end(mut self) {
        let writes = self.writes;
        let done = if writes { self.write() } else { Ok(()) };
        if let Err(failure) = done {
            complain(&format!("warning: what this run found out is not in the address book: {failure}"));
        }
        let waits = |entry: &&Entry| writes || earlier_of(entry.record.owner.as_deref().unwrap_or_default()).is_none();
        for line in left_lines(&self.left.iter().filter(waits).collect::<Vec<_>>()) {
            complain(&line);
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let Some(book) = self.view.book() else { return Ok(()) };
        for (host, node, spot, mac) in &self.foreign {
            let own = |entry: &&Entry| entry.record.node.as_ref() == Some(node) && entry.record.spot == *spot;
            let Some(entry) = self.entries.iter().find(own) else { continue };
            let owner = entry.record.owner.as_deref().unwrap_or_default();
            let to = Bound { node: None, host: Some(host.clone()), mac: mac.clone() };
            if book.lose(entry, &to, &format!("another machine, heard when {owner} was to get it"))? {
                complain(&format!(
                    "note: {spot} is kept as foreign in the address book; {owner} gets another one in the next run, where its group has `count`"
                ));
            }
        }
        let of_owner: BTreeMap<(&str, &str), &Entry> = self
            .entries
            .iter()
            .filter_map(|entry| Some(((entry.record.network.as_str(), entry.record.owner.as_deref()?), entry)))
            .collect();
        let mut kept = Vec::new();
        for entry in std::mem::take(&mut self.left) {
            let record = &entry.record;
            let owner = record.owner.as_deref().and_then(earlier_of);
            let now = owner.and_then(|owner| of_owner.get(&(record.network.as_str(), owner)));
            // The same interface on the same host, and it has another address by now.
            let moved = now.is_some_and(|now| {
                let node = record.node.clone().unwrap_or_default();
                now.record.node == record.node
                    && now.record.host == record.host
                    && self.attached.contains(&(record.network.clone(), node))
            });
            if !(moved && record.state == State::Bound && book.release(&entry, QUARANTINE)?) {
                kept.push(entry);
            }
        }
        self.left = kept;
        Ok(())
    }
}

/// A line for each address that nobody needs any more; the first of many.
fn left_lines(left: &[&Entry]) -> Vec<String> {
    let line = |entry: &&Entry| {
        let (owner, spot) = (entry.record.owner.as_deref().unwrap_or_default(), &entry.record.spot);
        format!("note: {owner} still holds {spot}: `fanli ip release {owner}` when its container is gone")
    };
    let mut lines: Vec<String> = left.iter().take(MOST_NAMED).map(line).collect();
    if left.len() > MOST_NAMED {
        lines.push(format!("note: and {} more: `fanli ip list` shows them", left.len() - MOST_NAMED));
    }
    lines
}
