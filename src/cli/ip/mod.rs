//! `fanli ip`: the address book.

mod adopt;
mod change;
mod check;
mod import;
mod look;
mod table;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::asking::{FORKS, Reaching};
use super::{complain, exit, print, request};
use crate::book::compare::Survey;
use crate::book::{self, Book, Entry, Lan, Refused, Spot};
use crate::coordinator::ask::survey;
use crate::failure::Failure;
use crate::plan::{self, Connection};
use crate::source::Sources;

/// Look into the address book: who has which address
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli ip list web-tier.fp --env lab                         every record
  fanli ip show web08010 web-tier.fp --env lab                one, by node, owner or address
  fanli ip find web-tier.fp --env lab --count 3               the next free addresses
  fanli ip reserve 10.88.8.50 web-tier.fp --env lab --note printer
  fanli ip release web/3 web-tier.fp --env lab                once its container is gone
  fanli ip import /etc/hosts web-tier.fp --env lab            keep what others use out of the pool
  fanli ip check web-tier.fp --env lab                        the book beside what the hosts show
  fanli ip adopt web-tier.fp --env lab                        mend the book from what they show

The playbook and its environment say which book: docs/addresses.md.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    List(look::List),
    Show(look::Show),
    Find(look::Find),
    Reserve(change::Reserve),
    Release(change::Release),
    Import(import::Import),
    Check(check::Check),
    Adopt(adopt::Adopt),
}

pub(super) fn run(args: &Args) -> ExitCode {
    let done = match &args.command {
        Command::Check(args) => return told(check::check(args)),
        Command::Adopt(args) => return told(adopt::adopt(args)),
        Command::List(args) => look::list(args),
        Command::Show(args) => look::show(args),
        Command::Find(args) => look::find(args),
        Command::Reserve(args) => change::reserve(args),
        Command::Release(args) => change::release(args),
        Command::Import(args) => import::import(args),
    };
    told(done.map(|text| (text, exit::OK)))
}

/// Prints what was found, and ends with its exit code.
fn told(done: Result<(String, u8), Trouble>) -> ExitCode {
    match done {
        Ok((text, code)) => {
            print(&text);
            code.into()
        }
        Err(Trouble { text, code }) => {
            complain(&text);
            code.into()
        }
    }
}

/// What went wrong, ready to be read, and the exit code.
struct Trouble {
    text: String,
    code: u8,
}

impl Trouble {
    /// The command line asks for what cannot be.
    fn input(message: &str, help: &str) -> Self {
        let help = if help.is_empty() { String::new() } else { format!("\nhelp: {help}") };
        Self { text: format!("error: {message}{help}"), code: exit::BAD_INPUT }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let help = failure.hint.as_ref().map_or_else(String::new, |hint| format!("\nhelp: {hint}"));
        Self { text: format!("error: {failure}{help}"), code: exit::INTERNAL }
    }
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self::input(&message, "")
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Store(failure) => failure.into(),
            unknown @ Refused::Unknown(_) => Self::input(
                &unknown.to_string(),
                "`fanli ip adopt` once they can be reached again; `fanli ip adopt --without HOST` gives one up",
            ),
            other => Self::input(&other.to_string(), "`fanli ip show ADDRESS` tells more"),
        }
    }
}

/// The book of a playbook, its networks, its hosts and its groups of nodes.
struct Desk {
    book: Book,
    lans: Vec<Lan>,
    hosts: Vec<(String, Connection)>,
    groups: Vec<String>,
    /// Where the book would be without a `store` block.
    file: PathBuf,
    run: String,
}

impl Desk {
    /// What the hosts show, and what the network says of some addresses.
    fn survey(&self, addresses: &[IpAddr], reaching: &Reaching) -> Result<Survey, Trouble> {
        reaching.ask(|reach| survey(self.hosts.clone(), addresses, reach, FORKS))
    }

    fn open(playbook: &request::Playbook) -> Result<Self, Trouble> {
        let asked = request::request(playbook, &request::Part::default())?;
        let mut sources = Sources::default();
        let (playbook, found) = plan::load(&asked, &mut sources);
        let wrong = |errors: &[_], sources: &Sources| Trouble {
            text: request::errors(errors, sources).trim_end().to_owned(),
            code: exit::BAD_INPUT,
        };
        if !found.is_empty() {
            return Err(wrong(&found, &sources));
        }
        let place = plan::book_of(&playbook, &playbook.set).map_err(|errors| wrong(&errors, &sources))?;
        let lans = plan::lans(&playbook, &playbook.set).map_err(|errors| wrong(&errors, &sources))?;
        let hosts = plan::hosts(&playbook, &playbook.set).map_err(|errors| wrong(&errors, &sources))?;
        let groups = playbook.nodes.iter().map(|group| group.name.text.clone()).collect();
        let file = plan::book_file(&playbook);
        let book = Book::new(book::open(&place, &asked.run)?, &asked.run);
        Ok(Self { book, lans, hosts, groups, file, run: asked.run })
    }

    /// The networks of that name, or all.
    fn networks(&self, name: Option<&str>) -> Result<Vec<&Lan>, Trouble> {
        let Some(name) = name else { return Ok(self.lans.iter().collect()) };
        let found: Vec<&Lan> = self.lans.iter().filter(|lan| lan.name == name).collect();
        if found.is_empty() {
            let names: Vec<&str> = self.lans.iter().map(|lan| lan.name.as_str()).collect();
            let help = match crate::diagnostic::nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the playbook has {}", names.join(", ")),
            };
            return Err(Trouble::input(&format!("there is no network `{name}`"), &help));
        }
        Ok(found)
    }

    /// The network that a spot belongs to: that of the name, else the one whose subnet has it.
    fn network_of(&self, spot: &Spot, name: Option<&str>) -> Result<Option<&Lan>, Trouble> {
        let has = |lan: &&Lan| match (spot.address(), lan.subnet) {
            (Some(address), Some(subnet)) => subnet.contains(&address),
            _ => false,
        };
        Ok(self.networks(name)?.into_iter().find(|lan| name.is_some() && spot.address().is_none() || has(lan)))
    }

    /// The records that a word means: an address, an owner, a node.
    fn meant(&self, word: &str) -> Result<Vec<Entry>, Trouble> {
        let entries = self.book.all()?.entries;
        let spot: Option<Spot> = word.parse().ok();
        let means = |entry: &Entry| {
            let record = &entry.record;
            spot.as_ref() == Some(&record.spot)
                || record.owner.as_deref() == Some(word)
                || record.node.as_deref() == Some(word)
        };
        let found: Vec<Entry> = entries.iter().filter(|entry| means(entry)).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let names = entries.iter().flat_map(|entry| {
            let record = &entry.record;
            [Some(record.spot.to_string()), record.owner.clone(), record.node.clone()].into_iter().flatten()
        });
        let names: Vec<String> = names.collect();
        let near = crate::diagnostic::nearest(word, names.iter().map(String::as_str));
        let help = match near {
            Some(near) if spot.is_none() => format!("did you mean `{near}`?"),
            _ => "`fanli ip list` shows all; what has no record is free".to_owned(),
        };
        Err(Trouble::input(&format!("`{word}` does not stand in the address book"), &help))
    }
}
