//! The promises of docs/network.md and docs/rollout.md: each has tests, and those are there.

use std::fs;
use std::path::Path;

/// Rows of the table: the number, and the names of tests.
fn promises(text: &str) -> Vec<(u32, Vec<String>)> {
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let [number, _, tests] = cells[..] else { return None };
        let names = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some((number.parse().ok()?, names))
    });
    rows.collect()
}

/// Whether a test of that name stands where its name says.
fn is_there(name: &str) -> bool {
    let (folder, path) = name.strip_prefix("main ").map_or(("tests/system", name), |path| ("tests", path));
    let Some((module, test)) = path.rsplit_once("::") else { return false };
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(module.replace("::", "/"));
    let files = [place.with_extension("rs"), place.join("mod.rs")];
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.into_iter().any(|text| text.contains(&format!("#[test]\nfn {test}() {{")))
}

/// The pages that promise something.
const PAGES: [&str; 2] = ["docs/network.md", "docs/rollout.md"];

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn all_of_each_page_have_tests() {
    for name in PAGES {
        let all = promises(&page(name));
        let numbers: Vec<u32> = all.iter().map(|(number, _)| *number).collect();
        let last = u32::try_from(numbers.len()).unwrap();
        assert!(last >= 12 && numbers.iter().copied().eq(1..=last), "{name}: {numbers:?}");
        for (number, tests) in all {
            assert!(!tests.is_empty(), "{name}: promise {number} has no test");
            for test in tests {
                assert!(is_there(&test), "{name}: promise {number}: there is no test `{test}`");
            }
        }
    }
}

#[test]
fn every_test_that_a_page_names_is_there() {
    for name in PAGES {
        let text = page(name);
        let named = text
            .split('`')
            .filter(|word| word.contains("::") && !word.contains(['\n', ' ']) && *word != "change::between");
        let named: Vec<&str> = named.collect();
        assert!(named.len() > 20, "{name}: {named:?}");
        for test in named {
            assert!(is_there(test), "{name}: there is no test `{test}`");
        }
    }
}

#[test]
fn a_test_that_is_gone_is_seen() {
    assert!(is_there("main promises::a_test_that_is_gone_is_seen"));
    assert!(is_there("attach_conflict::rivals_for_one_address_never_both_win"));
    for gone in
        ["attach_conflict::rivals", "attach_conflict::told", "nothing::at_all", "promises", "main promises::is_there"]
    {
        assert!(!is_there(gone), "{gone}");
    }
    assert_eq!(promises("| 3 | x | `a::b`, `main c::d` |"), [(3, vec!["a::b".to_owned(), "main c::d".to_owned()])]);
    assert_eq!(promises("| mode | a node is | x |\n| --- | --- | --- |"), []);
}
