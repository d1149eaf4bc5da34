//! Unified diffs of contents, made on the host, where both sides are.

use crate::change::{Change, Datum};
use crate::system::Probe;

/// The longest text that is compared line by line, in bytes.
const MOST_TEXT: usize = 256 * 1024;

/// Adds a unified diff to each content field of a change.
pub(super) async fn add(change: &mut Change, probe: &Probe) {
    for field in &mut change.fields {
        let Datum::Content { blob, bytes } = &field.to else { continue };
        let new = match bytes {
            Some(bytes) => bytes.clone(),
            // A diff is a courtesy: when the bytes cannot be had, the hashes still tell.
            None => match probe.blob(blob).await {
                Ok(bytes) => bytes,
                Err(_) => continue,
            },
        };
        let old = match &field.from {
            Datum::Content { bytes: Some(bytes), .. } => bytes.clone(),
            Datum::Content { bytes: None, .. } => continue,
            _ => Vec::new().into(),
        };
        field.diff = Some(unified(&old, &new));
    }
}

fn unified(old: &[u8], new: &[u8]) -> String {
    if old.len() > MOST_TEXT || new.len() > MOST_TEXT {
        return format!("(too long to show: {} -> {} bytes)\n", old.len(), new.len());
    }
    let (Ok(old_text), Ok(new_text)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else {
        return format!("(not text: {} -> {} bytes)\n", old.len(), new.len());
    };
    if old_text.contains('\0') || new_text.contains('\0') {
        return format!("(not text: {} -> {} bytes)\n", old.len(), new.len());
    }
    similar::TextDiff::from_lines(old_text, new_text).unified_diff().context_radius(3).to_string()
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn texts_differ_line_by_line() {
        assert_eq!(unified(b"a\nb\n", b"a\nc\n"), "@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
        assert_eq!(unified(b"", b"a\n"), "@@ -0,0 +1 @@\n+a\n");
        assert!(unified(b"\xff", b"a").starts_with("(not text"));
        assert!(unified(b"a", &vec![b'a'; 300_000]).starts_with("(too long"));
    }
}
