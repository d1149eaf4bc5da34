//! Playbooks that something has happened to: whatever it was, reading ends, and each error lies in the text.

use fanli::diagnostic::render;
use fanli::source::Sources;
use fanli::syntax::{format, parse};
use proptest::prelude::*;

const PIECES: [&str; 30] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "\"",
    "\"\"\"",
    "{{",
    "}}",
    "\\",
    "#",
    "\n",
    "\r\n",
    ",",
    "=",
    "==",
    ":",
    "->",
    "-",
    "if",
    "else",
    "not ",
    "for x in ",
    "0755",
    "10.0.0.0/33",
    "é",
    "\u{202e}",
    "\t",
    "import ",
];

fn mutated() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0..40usize, prop::sample::select(&PIECES[..]));
    prop::collection::vec(change, 1..6).prop_map(|changes| {
        let mut text = include_str!("../syntax/cases/web-tier.fp").to_owned();
        for (place, length, piece) in changes {
            let floor = |mut at: usize| {
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let start = floor(place.index(text.len()));
            let end = floor((start + length).min(text.len()));
            text.replace_range(start..end, piece);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn reading_ends_with_a_tree_or_an_error_in_the_text(text in mutated()) {
        let mut sources = Sources::default();
        let file = sources.add("main.fp", &text);
        let (ast, errors) = parse(file, &text);
        prop_assert!(ast.whole || !errors.is_empty());
        for error in &errors {
            let span = error.at.span;
            prop_assert!(span.start <= span.end && span.end as usize <= text.len() + 1, "{:?}", error);
        }
        let said = render(&errors, &sources);
        let bare = said.contains(['\u{202e}', '\r']);
        prop_assert!(!bare, "a bare control character");
        // No name of a grammar's rule.
        prop_assert!(!said.contains("_expr") && !said.contains("_ops"), "{said}");
        if errors.is_empty() {
            let once = format(&ast);
            let (again, errors) = parse(0, &once);
            prop_assert_eq!(errors, Vec::new());
            prop_assert_eq!(format(&again), once);
        }
    }
}
