//! `fanli ip import`: addresses that others use, from a list.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::PathBuf;

use super::{Desk, Trouble, request};
use crate::book::rules::holder;
use crate::book::{Bound, Spot, State};

/// The longest list, in bytes.
const MOST_LIST: u64 = 16 << 20;

/// Import addresses that others use, so that no node gets them
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli ip import used.txt web-tier.fp --env lab     lines `10.88.8.50 printer, room 4`
  fanli ip import used.csv web-tier.fp --env lab     lines `10.88.8.50,printer,room 4`
  fanli ip import /etc/hosts web-tier.fp --env lab   lines `10.88.8.50 printer printer.example.org`

The first word of a line is an address, the rest its note; `#` begins a comment. Addresses outside of
every network of the playbook are counted and left out. A second import changes nothing. When an
owner holds one of them, nothing is written.")]
pub(super) struct Import {
    /// The list; - for stdin
    #[arg(value_name = "LIST")]
    list: PathBuf,

    #[command(flatten)]
    playbook: request::Playbook,
}

/// A line that names an address.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    number: usize,
    address: IpAddr,
    note: Option<String>,
}

pub(super) fn import(args: &Import) -> Result<String, Trouble> {
    let shown = args.list.display();
    let mut text = String::new();
    let read = if args.list.as_os_str() == "-" {
        std::io::stdin().lock().take(MOST_LIST).read_to_string(&mut text)
    } else {
        std::fs::File::open(&args.list).and_then(|file| file.take(MOST_LIST).read_to_string(&mut text))
    };
    read.map_err(|error| Trouble::input(&format!("cannot read {shown}: {}", crate::source::reason(&error)), ""))?;
    let lines = lines(&text).map_err(|wrong| {
        let help = "the first word of a line is an address, the rest its note";
        Trouble::input(&format!("{shown}: {wrong}"), help)
    })?;
    let desk = Desk::open(&args.playbook)?;
    let (mut outside, mut networks): (usize, BTreeMap<String, Vec<&Line>>) = (0, BTreeMap::new());
    for line in &lines {
        match desk.network_of(&Spot::Address(line.address), None)? {
            Some(lan) => networks.entry(lan.name.clone()).or_default().push(line),
            None => outside += 1,
        }
    }
    let mut held = Vec::new();
    for of_network in networks.values() {
        let spots: Vec<Spot> = of_network.iter().map(|line| Spot::Address(line.address)).collect();
        for (line, entry) in of_network.iter().zip(desk.book.store().of_spots(&spots)?) {
            if let Some(entry) = entry.filter(|entry| entry.record.owner.is_some()) {
                held.push(format!("{shown}:{}: {} is held by {}", line.number, line.address, holder(&entry.record)));
            }
        }
    }
    if !held.is_empty() {
        let message = format!("nothing was imported\n  {}", held.join("\n  "));
        return Err(Trouble::input(&message, "take these lines out, or move the nodes first"));
    }
    let (mut written, mut all) = (0, 0);
    for (network, of_network) in &networks {
        let kept: Vec<_> =
            of_network.iter().map(|line| (Spot::Address(line.address), Bound::default(), line.note.clone())).collect();
        written += desk.book.keep(network, &kept, State::Static)?;
        all += kept.len();
    }
    Ok(format!(
        "{shown}: {written} imported, {} stood there already, {outside} outside of every network\n",
        all - written
    ))
}

/// The lines that name an address; each address once, the first line counts. A first line that names none is a head.
fn lines(text: &str) -> Result<Vec<Line>, String> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut first = true;
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let (line, comment) = line.split_once('#').map_or((line, None), |(line, comment)| (line, Some(comment.trim())));
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let end = line.find([' ', '\t', ',', ';']).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let word = word.trim_matches('"');
        let head = std::mem::take(&mut first);
        let Ok(address) = word.parse() else {
            if head {
                continue;
            }
            return Err(format!("line {number}: `{word}` is not an address"));
        };
        let parts =
            rest.split([',', ';', '\t']).map(|part| part.trim().trim_matches('"')).filter(|part| !part.is_empty());
        let note = parts.collect::<Vec<_>>().join(", ");
        let note = Some(note).filter(|note| !note.is_empty()).or_else(|| comment.map(str::to_owned));
        if seen.insert(address) {
            found.push(Line { number, address, note: note.filter(|note| !note.is_empty()) });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::lines;

    fn told(text: &str) -> Vec<String> {
        let show =
            |line: &super::Line| format!("{}:{}:{}", line.number, line.address, line.note.as_deref().unwrap_or("-"));
        lines(text).unwrap().iter().map(show).collect()
    }

    #[test]
    fn lists_hosts_files_and_tables_are_read() {
        assert_eq!(
            told("# used\n10.0.0.5 printer, room 4\n\n10.0.0.6\n"),
            ["2:10.0.0.5:printer, room 4", "4:10.0.0.6:-"]
        );
        assert_eq!(told("Address,Name\n\"10.0.0.5\",\"printer\",\"room 4\"\n"), ["2:10.0.0.5:printer, room 4"]);
        assert_eq!(
            told("127.0.0.1\tlocalhost\n10.0.0.5\tdb db.example.org # old\nfe80::1 x\n"),
            ["1:127.0.0.1:localhost", "2:10.0.0.5:db db.example.org", "3:fe80::1:x"]
        );
        assert_eq!(told("10.0.0.5 # the gateway\n10.0.0.5 again\n"), ["1:10.0.0.5:the gateway"]);
        assert_eq!(told("ip;name\r\n10.0.0.5;a\r\n"), ["2:10.0.0.5:a"]);
        assert!(lines("10.0.0.5 a\n10.0.0.500 b\n").unwrap_err().contains("line 2: `10.0.0.500`"));
    }
}
