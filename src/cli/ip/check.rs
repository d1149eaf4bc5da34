//! `fanli ip check`: the book beside what the hosts show.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Desk, Reaching, Trouble, request};
use crate::book::State;
use crate::book::compare::{Difference, Sides, Weight, differences};
use crate::cli::exit;
use crate::report::harmless;
use crate::visible::count;

/// The most addresses that the network is asked for.
const MOST_ASKED: usize = 64;

/// Compare the address book with what the hosts show, and name every difference
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli ip check web-tier.fp --env lab
  fanli ip check web-tier.fp --env lab --json | jq -r '.[] | select(.weight == \"wrong\") | .text'

Nothing is changed, neither in the book nor on a host. A host that cannot be reached is unknown:
what it holds stays bound. Exit codes: 0 no difference; 4 book and hosts contradict each other;
5 they do not, as far as the hosts could be reached.")]
pub(super) struct Check {
    #[command(flatten)]
    playbook: request::Playbook,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reach: Reaching,
}

pub(super) fn check(args: &Check) -> Result<(String, u8), Trouble> {
    let desk = Desk::open(&args.playbook)?;
    let before = desk.book.all()?.entries;
    let hand_made = before.iter().filter(|entry| {
        matches!(entry.record.state, State::Static | State::Foreign)
            || entry.record.host.as_ref().is_some_and(|host| desk.hosts.iter().all(|(name, _)| name != host))
    });
    let bound = before.iter().filter(|entry| entry.record.state == State::Bound);
    let asked: Vec<IpAddr> =
        hand_made.chain(bound).filter_map(|entry| entry.record.spot.address()).take(MOST_ASKED).collect();
    let survey = desk.survey(&asked, &args.reach)?;
    let entries = desk.book.all()?.entries;
    let (store, predecessors) = (desk.book.store().id()?, desk.book.predecessors()?);
    let sides = Sides {
        entries: &entries,
        store: store.as_deref(),
        predecessors: &predecessors,
        survey: &survey,
        lans: &desk.lans,
    };
    let found = differences(&sides);
    let code = match found.first().map(|one| one.weight) {
        Some(Weight::Wrong) => exit::FAILED,
        Some(Weight::Unknown) => exit::UNREACHABLE,
        Some(Weight::Note) | None => exit::OK,
    };
    if args.json {
        let json = serde_json::to_value(&found).unwrap_or_default();
        return Ok((format!("{json:#}\n"), code));
    }
    let mut text = lines(&found);
    let unknown = desk.book.unknown_hosts()?;
    if !unknown.is_empty() {
        let _ = writeln!(
            text,
            "nothing new is given: the book was lost while {} could not be reached; `fanli ip adopt` once more when they are back",
            unknown.join(", ")
        );
    }
    let number = |weight: Weight| found.iter().filter(|one| one.weight == weight).count();
    let hosts = count(survey.values().filter(|seen| seen.is_ok()).count(), "reachable host");
    let records = count(entries.len(), "record");
    let _ = match (number(Weight::Wrong), number(Weight::Unknown)) {
        (0, 0) => writeln!(text, "no difference between {records} and {hosts}"),
        (0, unknown) => {
            let unknown = count(unknown, "host");
            writeln!(text, "no difference between {records} and {hosts}; {unknown} could not be reached")
        }
        (wrong, _) => writeln!(text, "{} between {records} and {hosts}", count(wrong, "difference")),
    };
    Ok((text, code))
}

/// One line for each difference.
fn lines(found: &[Difference]) -> String {
    let word = |weight: Weight| match weight {
        Weight::Wrong => "WRONG",
        Weight::Unknown => "?",
        Weight::Note => "note",
    };
    let line = |one: &Difference| format!("{:5}  {}: {}\n", word(one.weight), harmless(&one.text), one.way_out);
    found.iter().map(line).collect()
}
