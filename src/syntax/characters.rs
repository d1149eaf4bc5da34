//! Characters that look like those of the language, and are others: full-width forms, and letters of other alphabets.

/// Whether a character is the full-width form of one of ASCII (Unicode's block Halfwidth and Fullwidth Forms).
pub(super) fn is_wide(c: char) -> bool {
    ('\u{FF01}'..='\u{FF5E}').contains(&c)
}

/// The same text, with the characters of ASCII in the place of their full-width forms.
pub(super) fn narrow(text: &str) -> String {
    let narrow = |c: char| char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c);
    text.chars().map(|c| if is_wide(c) { narrow(c) } else { c }).collect()
}

/// The Latin letter that a Cyrillic or Greek one looks like.
pub(super) fn looks_like(c: char) -> Option<char> {
    Some(match c {
        '\u{430}' | '\u{3B1}' => 'a',
        '\u{441}' | '\u{3F2}' => 'c',
        '\u{501}' => 'd',
        '\u{435}' => 'e',
        '\u{4BB}' => 'h',
        '\u{456}' | '\u{3B9}' => 'i',
        '\u{458}' => 'j',
        '\u{43A}' | '\u{3BA}' => 'k',
        '\u{43C}' => 'm',
        '\u{43E}' | '\u{3BF}' => 'o',
        '\u{440}' | '\u{3C1}' => 'p',
        '\u{455}' => 's',
        '\u{442}' | '\u{3C4}' => 't',
        '\u{3BD}' => 'v',
        '\u{445}' | '\u{3C7}' => 'x',
        '\u{443}' | '\u{3B3}' => 'y',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_width_text_is_narrowed() {
        assert_eq!(narrow("\u{FF10}\u{FF17}\u{FF15}\u{FF15}"), "0755");
        assert_eq!(narrow("\u{FF02}/srv/a\u{FF02}"), "\"/srv/a\"");
        assert!(!"plain \u{43E}".contains(is_wide));
    }

    #[test]
    fn letters_that_look_alike_are_known() {
        let latin: String = "m\u{43E}de".chars().map(|c| looks_like(c).unwrap_or(c)).collect();
        assert_eq!(latin, "mode");
        assert!(('a'..='z').all(|c| looks_like(c).is_none()));
    }
}
