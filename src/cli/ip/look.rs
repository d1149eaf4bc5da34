//! `fanli ip list`, `show` and `find`: nothing is written.

use super::{Desk, Trouble, request, table};
use crate::book::{Entry, Spot};

/// List every record of the address book
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli ip list web-tier.fp --env lab
  fanli ip list web-tier.fp --env lab --network web-lan --json | jq '.[].address'

States: reserved (a run has not begun yet), bound (in use), releasing (given back, kept from others
for a minute), static (kept out by hand), foreign (seen in use by something else). What is not
listed is free.")]
pub(super) struct List {
    #[command(flatten)]
    playbook: request::Playbook,

    /// Only records of this network
    #[arg(long, value_name = "NAME")]
    network: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn list(args: &List) -> Result<String, Trouble> {
    let desk = Desk::open(&args.playbook)?;
    if args.network.is_some() {
        desk.networks(args.network.as_deref())?;
    }
    let mut entries = desk.book.all()?.entries;
    entries.retain(|entry| args.network.as_ref().is_none_or(|network| *network == entry.record.network));
    Ok(shown(&entries, args.json))
}

fn shown(entries: &[Entry], json: bool) -> String {
    match entries {
        entries if json => table::json(entries),
        [] => "the address book is empty: every address is free\n".to_owned(),
        entries => table::table(entries),
    }
}

/// Show one record: by address, owner or node
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli ip show 10.88.8.10 web-tier.fp --env lab
  fanli ip show web/1 web-tier.fp --env lab         the first node of the group `web`
  fanli ip show web08010 web-tier.fp --env lab")]
pub(super) struct Show {
    /// An address (or HOST:PORT), an owner such as web/1, or a node
    #[arg(value_name = "WHAT")]
    what: String,

    #[command(flatten)]
    playbook: request::Playbook,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn show(args: &Show) -> Result<String, Trouble> {
    let desk = Desk::open(&args.playbook)?;
    let entries = desk.meant(&args.what)?;
    if args.json {
        return Ok(table::json(&entries));
    }
    let place = desk.book.store().place();
    Ok(entries.iter().map(|entry| table::details(entry, &place)).collect())
}

/// Find free addresses: the next ones of each pool
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli ip find web-tier.fp --env lab
  fanli ip find web-tier.fp --env lab --network web-lan --count 10

Nothing is reserved: another run may take them.")]
pub(super) struct Find {
    #[command(flatten)]
    playbook: request::Playbook,

    /// Only in this network
    #[arg(long, value_name = "NAME")]
    network: Option<String>,

    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn find(args: &Find) -> Result<String, Trouble> {
    let desk = Desk::open(&args.playbook)?;
    let mut found: Vec<(&str, Spot)> = Vec::new();
    let networks = desk.networks(args.network.as_deref())?;
    for lan in &networks {
        let free = desk.book.free(&lan.candidates(), args.count.into())?;
        found.extend(free.into_iter().map(|spot| (lan.name.as_str(), spot)));
    }
    if args.json {
        let one = |(network, spot): &(&str, Spot)| serde_json::json!({ "network": network, "address": spot });
        return Ok(format!("{:#}\n", serde_json::Value::Array(found.iter().map(one).collect())));
    }
    if found.is_empty() {
        let help = "`fanli ip list` shows who holds what; a network without `pool` gives none";
        return Err(Trouble::input("no address is free", help));
    }
    let line = |text: String, (network, spot): &(&str, Spot)| text + &format!("{spot}  ({network})\n");
    Ok(found.iter().fold(String::new(), line))
}
