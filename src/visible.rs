//! What can be shown: characters that would deceive a reader are never printed as they are.

use std::fmt::Display;

/// Characters that cannot be seen or that change how the rest of a line is shown (CVE-2021-42574): no source may hold them,
/// no report shows them as they are.
pub fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// A number of things: `1 step`, `2 steps`.
pub fn count(number: impl Copy + Display + From<u8> + PartialEq, what: &str) -> String {
    let end = if number == 1.into() { "" } else { "s" };
    format!("{number} {what}{end}")
}

/// A length in bytes as people say it: `512 B`, `1.2 MB`.
pub fn rough_size(bytes: u64) -> String {
    let units = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.into_iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} B"),
    }
}

/// Returns the first `most` bytes of a text, up to a whole character.
pub fn first_bytes(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or(text)
}

/// Returns the first `most` characters of a text, with `…` where there are more.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Text fit for a message: what cannot be seen, or would move the cursor, is written out.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_deceptive(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
