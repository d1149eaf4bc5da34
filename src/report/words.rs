//! Words, colours and counts that reports share.

use std::fmt::Write as _;

use crate::visible::is_deceptive;

/// Text from a host made harmless: control bytes are written out, so that no host can draw on the terminal, forge a line
/// of fanli's or a note of Jenkins.
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("    "),
            c if c.is_control() || is_deceptive(c) => {
                let _ = write!(out, "{}", c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}

/// The most lines of one text from a host, its beginning and its end, and the most characters of one line: a console that
/// is flooded hides what matters. All of it is in the events.
const FIRST_LINES: usize = 20;
const LAST_LINES: usize = 40;
const LONGEST: usize = 2_000;

/// The lines of a text from a host, harmless and bounded.
pub(super) fn bounded(text: &str) -> Vec<String> {
    bounded_to(text, FIRST_LINES, LAST_LINES)
}

/// The same, with so many of the first and of the last lines.
pub(super) fn bounded_to(text: &str, most_first: usize, most_last: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let hidden = lines.len().saturating_sub(most_first + most_last);
    let line = |line: &&str| short(line);
    if hidden < 2 {
        return lines.iter().map(line).collect();
    }
    let first = lines.iter().take(most_first).map(line);
    let last = lines.iter().skip(most_first + hidden).map(line);
    first.chain([format!("[… {hidden} lines …]")]).chain(last).collect()
}

/// One line from a host, harmless and bounded.
pub(super) fn short(line: &str) -> String {
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} […]", harmless(line.get(..end).unwrap_or_default())),
        None => harmless(line),
    }
}

/// The colours of a report; the terminal's own palette, nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paint {
    Plain,
    Good,
    Change,
    Bad,
    Dim,
    Strong,
}

/// Paints a text, when colours are wanted.
pub(super) fn paint(color: bool, paint: Paint, text: &str) -> String {
    let code = match paint {
        Paint::Plain => return text.to_owned(),
        Paint::Good => "32",
        Paint::Change => "33",
        Paint::Bad => "31",
        Paint::Dim => "2",
        Paint::Strong => "1",
    };
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `340ms`, `2.4s`, `3m05s`: times for people.
pub(super) fn took(millis: u64) -> String {
    match millis {
        0..=999 => format!("{millis}ms"),
        1_000..=59_999 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{}m{:02}s", millis / 60_000, millis % 60_000 / 1_000),
    }
}
