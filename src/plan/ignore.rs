//! `.dockerignore`: what of a build context goes to nobody.
//!
//! Docker's rules (moby, `patternmatcher`), which differ from those of `.gitignore`: every pattern is one of the whole path below the
//! context, a pattern that a directory fits counts for all below it, and the last one that fits decides. The crates for globs know other
//! rules. Dockerfile and `.dockerignore` are always sent; whether they are copied into an image, Docker decides by the same file.

/// The rules of one context, in order.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    rules: Vec<Rule>,
    /// Paths that are sent in any case.
    always: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    /// `!`: what fits it is not ignored.
    exception: bool,
    pattern: Vec<Piece>,
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Char(char),
    /// `?`: any character but a slash.
    One,
    /// `*`: any number of them.
    Some,
    /// `**/`: any number of directories, or none.
    Folders,
    /// `**` at the end: everything.
    Rest,
    /// `[a-z]`, `[^a]`: ranges, and whether they are excluded.
    Class(bool, Vec<(char, char)>),
}

impl Ignore {
    /// Reads the text of a `.dockerignore`.
    ///
    /// # Errors
    /// A pattern that is none; the text names its line.
    pub(super) fn parse(text: &str, dockerfile: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            // Only at the very beginning of a line it is a comment.
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (exception, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            let pattern = clean(pattern);
            if pattern.is_empty() {
                if exception {
                    return Err(format!("line {}: there is nothing behind `!`", number + 1));
                }
                continue;
            }
            let pattern = pieces(&pattern)
                .ok_or_else(|| format!("line {}: `{pattern}` has a `[` without its `]`", number + 1))?;
            rules.push(Rule { exception, pattern });
        }
        Ok(Self { rules, always: vec![clean(dockerfile), ".dockerignore".to_owned()] })
    }

    /// Whether a path below the context is left out.
    pub(super) fn ignores(&self, path: &str) -> bool {
        if self.always.iter().any(|always| always == path) {
            return false;
        }
        let folders = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        let with_folders: Vec<Vec<char>> = folders.chain([path]).map(|part| part.chars().collect()).collect();
        self.rules.iter().fold(false, |ignored, rule| {
            let decides = rule.exception == ignored && with_folders.iter().any(|part| fits(&rule.pattern, part));
            if decides { !rule.exception } else { ignored }
        })
    }

    /// Whether nothing below a directory that is left out can be wanted.
    pub(super) fn leaves_all_of(&self, folder: &str) -> bool {
        let holds = |always: &String| always.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        !self.rules.iter().any(|rule| rule.exception) && !self.always.iter().any(holds)
    }
}

/// A path without `.`, doubled or outer slashes, and with `..` resolved (Go's `filepath.Clean`).
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join("/")
}

fn pieces(pattern: &str) -> Option<Vec<Piece>> {
    let mut chars = pattern.chars().peekable();
    let mut found = Vec::new();
    while let Some(next) = chars.next() {
        found.push(match next {
            '*' if chars.next_if_eq(&'*').is_some() => {
                let _ = chars.next_if_eq(&'/');
                if chars.peek().is_none() { Piece::Rest } else { Piece::Folders }
            }
            '*' => Piece::Some,
            '?' => Piece::One,
            '\\' => Piece::Char(chars.next().unwrap_or('\\')),
            '[' => {
                let excluded = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let from = match chars.next()? {
                        ']' if !ranges.is_empty() => break,
                        '\\' => chars.next()?,
                        from => from,
                    };
                    let to = match chars.next_if_eq(&'-').map(|_| chars.next()) {
                        None => from,
                        Some(to) => match to? {
                            '\\' => chars.next()?,
                            to => to,
                        },
                    };
                    ranges.push((from, to));
                }
                Piece::Class(excluded, ranges)
            }
            other => Piece::Char(other),
        });
    }
    Some(found)
}

/// Whether a pattern fits a whole text. Each piece keeps the set of places that it may have come to, so that no pattern takes long.
fn fits(pattern: &[Piece], text: &[char]) -> bool {
    let mut at = vec![false; text.len() + 1];
    if let Some(start) = at.first_mut() {
        *start = true;
    }
    for piece in pattern {
        at = after(piece, &at, text);
    }
    at.last() == Some(&true)
}

/// The places behind a piece, from those before it: the place `n` is the one before the character `n`.
fn after(piece: &Piece, at: &[bool], text: &[char]) -> Vec<bool> {
    let mut next = vec![false; at.len()];
    let mut open = false;
    for (place, here) in at.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| Some((*at.get(before)?, *text.get(before)?)));
        let step = |takes: &dyn Fn(char) -> bool| before.is_some_and(|(was, sign)| was && takes(sign));
        let value = match piece {
            Piece::Char(wanted) => step(&|sign| sign == *wanted),
            Piece::One => step(&|sign| sign != '/'),
            Piece::Class(excluded, ranges) => {
                step(&|sign| sign != '/' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&sign)) != *excluded)
            }
            Piece::Some => {
                open = *here || open && before.is_some_and(|(_, sign)| sign != '/');
                open
            }
            Piece::Folders => {
                let behind_slash = open && before.is_some_and(|(_, sign)| sign == '/');
                open |= *here;
                *here || behind_slash
            }
            Piece::Rest => {
                open |= *here;
                open
            }
        };
        if let Some(slot) = next.get_mut(place) {
            *slot = value;
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(rules: &str, path: &str) -> bool {
        Ignore::parse(rules, "Dockerfile").unwrap().ignores(path)
    }

    /// From Docker's documentation and `patternmatcher_test.go`.
    #[test]
    fn patterns() {
        for (rules, path, expected) in [
            ("*/temp*", "a/temporary.txt", true),
            ("*/temp*", "a/b/temporary.txt", false),
            ("*/temp*", "a/temp/x", true),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("temp?", "temp/", false),
            ("**/*.go", "x.go", true),
            ("**/*.go", "a/b/x.go", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false),
            ("secret.key", "secret.key", true),
            ("secret.key", "a/secret.key", false),
            ("/secret.key", "secret.key", true),
            ("./a//b/../c/", "a/c/d", true),
            ("node_modules", "node_modules/x/y", true),
            ("node_modules\n!node_modules/keep", "node_modules/keep/x", false),
            ("node_modules\n!node_modules/keep", "node_modules/other", true),
            ("*", "a/b", true),
            ("*\n!a/*.txt", "a/b.txt", false),
            ("*\n!**/*.txt", "a/b/c.txt", false),
            ("**", "a/b", true),
            ("a/**", "a", false),
            ("a/**", "a/b/c", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("**/foo", "foo", true),
            ("**/foo", "xfoo", false),
            ("abc/**/**", "abc/d", true),
            ("# a comment\n  trailing  \n\n", "trailing", true),
            (" # not a comment", "# not a comment", true),
            ("\u{feff}first", "first", true),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[^a]x", "bx", true),
            ("[^a]x", "ax", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a.b", "axb", false),
            ("(x)+{1}$", "(x)+{1}$", true),
            ("Dockerfile\n.dockerignore", "Dockerfile", false),
            ("*", ".dockerignore", false),
            ("ä*", "äö", true),
        ] {
            assert_eq!(ignored(rules, path), expected, "{rules:?} and {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_names_its_line() {
        let wrong = |rules: &str| Ignore::parse(rules, "Dockerfile").unwrap_err();
        assert_eq!(wrong("a\n[b"), "line 2: `[b` has a `[` without its `]`");
        assert_eq!(wrong("!"), "line 1: there is nothing behind `!`");
    }

    #[test]
    fn no_pattern_takes_long() {
        let rules = format!("{}b", "*a".repeat(40));
        assert!(!ignored(&rules, &"a".repeat(2000)));
    }

    #[test]
    fn folders_that_need_not_be_looked_into() {
        let of = |rules: &str, dockerfile: &str| Ignore::parse(rules, dockerfile).unwrap();
        assert!(of("a", "Dockerfile").leaves_all_of("a"));
        assert!(!of("a\n!a/b", "Dockerfile").leaves_all_of("a"));
        assert!(!of("a", "a/Dockerfile").leaves_all_of("a"));
        assert!(!of("a", "./a/Dockerfile").ignores("a/Dockerfile"));
    }
}
