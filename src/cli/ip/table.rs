//! Records as people and machines read them.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::book::{Entry, Record};
use crate::calendar::utc;
use crate::cli::columns;
use crate::visible::visible;

/// `2026-11-25 07:46:01Z`.
pub(super) fn time(seconds: u64) -> String {
    format!("{}Z", utc(seconds))
}

/// Since when, or until when.
fn when(record: &Record) -> String {
    match record.state.until() {
        Some(until) => format!("until {}", time(until)),
        None => format!("since {}", time(record.since)),
    }
}

fn text(field: Option<&String>) -> String {
    field.map_or_else(|| "-".to_owned(), |text| visible(text))
}

/// One line for each record, below a head.
pub(super) fn table(entries: &[Entry]) -> String {
    let head = ["ADDRESS", "STATE", "OWNER", "NODE", "HOST", "SINCE OR UNTIL", "NOTE"].map(str::to_owned);
    let row = |entry: &Entry| {
        let record = &entry.record;
        [
            record.spot.to_string(),
            record.state.word().to_owned(),
            text(record.owner.as_ref()),
            text(record.node.as_ref()),
            text(record.host.as_ref()),
            when(record),
            text(record.note.as_ref()),
        ]
    };
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(entries.iter().map(row)).collect();
    columns(&rows).map(|line| line + "\n").collect()
}

/// Everything about one record.
pub(super) fn details(entry: &Entry, place: &str) -> String {
    let record = &entry.record;
    let mut out = format!("{} is {}\n", record.spot, record.state.word());
    let mut line = |name: &str, value: &str| {
        if value != "-" {
            let _ = writeln!(out, "  {name:9} {value}");
        }
    };
    line("network", &record.network);
    line("owner", &text(record.owner.as_ref()));
    line("node", &text(record.node.as_ref()));
    line("host", &text(record.host.as_ref()));
    line("mac", &text(record.mac.as_ref()));
    line("note", &text(record.note.as_ref()));
    line("since", &time(record.since));
    line("until", &record.state.until().map_or_else(|| "-".to_owned(), time));
    line("run", &record.run);
    line("revision", &entry.revision.to_string());
    line("book", place);
    out
}

/// For machines: every field, times in seconds since 1970.
pub(super) fn json(entries: &[Entry]) -> String {
    let one = |entry: &Entry| {
        let record = &entry.record;
        json!({
            "address": record.spot.to_string(),
            "network": record.network,
            "state": record.state.word(),
            "owner": record.owner,
            "node": record.node,
            "host": record.host,
            "mac": record.mac,
            "note": record.note,
            "since": record.since,
            "until": record.state.until(),
            "run": record.run,
            "revision": entry.revision,
        })
    };
    format!("{:#}\n", Json::Array(entries.iter().map(one).collect()))
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_795_592_761, "2026-11-25 07:46:01Z"),
            (4_107_542_399, "2100-02-28 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
