//! Strings: escapes of `"…"`, and the common indentation of `"""` blocks.

use super::ast::TextPart;

/// What an escape stands for; `None` for one that does not exist.
pub(super) fn escape(letter: char) -> Option<char> {
    match letter {
        'n' => Some('\n'),
        't' => Some('\t'),
        '"' | '\\' | '{' => Some(letter),
        _ => None,
    }
}

/// Adds plain text to parts, so that no two plain parts stand side by side and none is empty.
pub(super) fn push(parts: &mut Vec<TextPart>, text: &str) {
    if text.is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(TextPart::Plain(last)) => last.push_str(text),
        _ => parts.push(TextPart::Plain(text.to_owned())),
    }
}

/// Why a `"""` block cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BlockError {
    /// Something stands behind the opening quotes on their line.
    Opening,
    /// Something stands before the closing quotes on their line.
    Closing,
}

/// Takes off what belongs to the layout: the line of the opening quotes, the one of the closing quotes, and the indentation
/// that all lines (the closing one too, blank ones not) have in common. Line ends become `\n`.
pub(super) fn dedent(raw: Vec<TextPart>) -> Result<Vec<TextPart>, BlockError> {
    let parts: Vec<TextPart> = raw
        .into_iter()
        .map(|part| match part {
            TextPart::Plain(text) => TextPart::Plain(text.replace("\r\n", "\n")),
            computed @ TextPart::Computed(_) => computed,
        })
        .collect();
    match parts.first() {
        Some(TextPart::Plain(text)) if text.split_once('\n').is_some_and(|(line, _)| line.trim().is_empty()) => {}
        _ => return Err(BlockError::Opening),
    }
    let common = common_indentation(&parts).ok_or(BlockError::Closing)?;
    let (mut out, mut opening) = (Vec::new(), true);
    let count = parts.len();
    for (index, part) in parts.into_iter().enumerate() {
        let TextPart::Plain(text) = part else {
            out.push(part);
            continue;
        };
        let lines: Vec<&str> = text.split('\n').collect();
        for (number, line) in lines.iter().enumerate() {
            let (begins, ends) = (number > 0, number + 1 < lines.len());
            // The last line of a part goes on in a computed part, or is the closing line, which has no text.
            let closing = !ends && index + 1 == count;
            let line = match begins {
                true if ends && line.trim().is_empty() => "",
                true if closing => "",
                true => line.get(common..).unwrap_or(""),
                false if opening => "",
                false => line,
            };
            push(&mut out, line);
            if ends && !std::mem::take(&mut opening) {
                push(&mut out, "\n");
            }
        }
    }
    Ok(out)
}

/// The length of the longest common beginning of blanks; `None` when text stands before the closing quotes.
fn common_indentation(parts: &[TextPart]) -> Option<usize> {
    let mut common: Option<&str> = None;
    let meet = |indent: &str, known: Option<&str>| -> usize {
        known.map_or(indent.len(), |known| known.bytes().zip(indent.bytes()).take_while(|(a, b)| a == b).count())
    };
    for (index, part) in parts.iter().enumerate() {
        let TextPart::Plain(text) = part else { continue };
        let count = text.matches('\n').count();
        for (number, line) in text.split('\n').enumerate().skip(1) {
            let rest = line.trim_start_matches([' ', '\t']);
            let indent = line.get(..line.len() - rest.len()).unwrap_or("");
            let (ends, last) = (number < count, index + 1 == parts.len());
            if ends && rest.is_empty() {
                continue;
            }
            if !ends && last && !rest.is_empty() {
                return None;
            }
            let length = meet(indent, common);
            common = Some(indent.get(..length).unwrap_or(""));
        }
    }
    // A block that ends in a computed part, or has no line of its own for the closing quotes.
    match parts.last() {
        Some(TextPart::Plain(text)) if text.contains('\n') => common.map(str::len),
        _ => None,
    }
}
