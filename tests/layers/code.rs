//! Rust text without comments and literals, and the paths that stand in it.

/// One file of `src`.
pub(super) struct File {
    /// Below `src`: `plan/make.rs`.
    pub(super) name: String,
    /// The text with comments, strings and characters blanked out; lines stay where they were.
    pub(super) code: String,
    /// The same without test modules.
    pub(super) product: String,
}

/// A path such as `crate::plan::Late` and the line that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) line: usize,
    pub(super) path: Vec<String>,
}

impl File {
    pub(super) fn new(name: String, text: &str) -> Self {
        let code = blanked(text);
        let product = without_tests(&code);
        Self { name, code, product }
    }

    /// The modules that lead to the file: `["plan", "make"]`, `["plan"]` for `plan/mod.rs`.
    pub(super) fn module(&self) -> Vec<&str> {
        let parts = self.name.trim_end_matches(".rs").split('/');
        let parts: Vec<&str> = parts.collect();
        match parts.split_last() {
            Some((&"mod", folders)) => folders.to_vec(),
            _ => parts,
        }
    }

    /// The room that the file stands in: the first of its modules.
    pub(super) fn room(&self) -> &str {
        self.module()[0]
    }
}

/// Puts blanks in place of comments, strings and characters.
fn blanked(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let word = |c: char| c.is_alphanumeric() || c == '_';
    while at < letters.len() {
        let rest = &letters[at..];
        let begins = |what: &str| rest.iter().zip(what.chars()).filter(|(a, b)| **a == *b).count() == what.len();
        let inside_word = at > 0 && word(letters[at - 1]);
        let length = if begins("//") {
            rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
        } else if begins("/*") {
            block_comment(rest)
        } else if rest[0] == '"' {
            string(rest, 1)
        } else if let Some(length) = raw_string(rest).filter(|_| !inside_word) {
            length
        } else if rest[0] == '\'' {
            character(rest)
        } else {
            out.push(rest[0]);
            at += 1;
            continue;
        };
        out.extend(rest[..length].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at += length;
    }
    out
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(rest.len())
}

fn string(rest: &[char], from: usize) -> usize {
    let mut at = from;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, `br"…"`.
fn raw_string(rest: &[char]) -> Option<usize> {
    let start = rest.iter().take_while(|c| **c == 'b').count();
    if rest.get(start) != Some(&'r') {
        return None;
    }
    let hashes = rest[start + 1..].iter().take_while(|c| **c == '#').count();
    let body = start + 1 + hashes + 1;
    if rest.get(body - 1) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let found = rest[body..].windows(end.len()).position(|window| window == end);
    Some(found.map_or(rest.len(), |found| body + found + end.len()))
}

/// A character; a lifetime's sign alone.
fn character(rest: &[char]) -> usize {
    match (rest.get(1), rest.get(2)) {
        (Some('\\'), _) => rest.iter().skip(3).position(|c| *c == '\'').map_or(rest.len(), |end| end + 4),
        (Some(_), Some('\'')) => 3,
        _ => 1,
    }
}

/// Blanks out `#[cfg(test)] mod … { … }`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let mut depth = 0;
        let end = out[start..].char_indices().find_map(|(at, c)| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (depth == 0 && (c == '}' || c == ';')).then_some(start + at + 1)
        });
        let end = end.unwrap_or(out.len());
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Colons,
    Sign(char),
}

fn tokens(code: &str) -> Vec<(usize, Token)> {
    let (mut found, mut line) = (Vec::new(), 1);
    let mut letters = code.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\n' => line += 1,
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some(next) = letters.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(next);
                }
                found.push((line, Token::Word(word)));
            }
            ':' if letters.next_if_eq(&':').is_some() => found.push((line, Token::Colons)),
            c if c.is_whitespace() => {}
            c => found.push((line, Token::Sign(c))),
        }
    }
    found
}

/// Every path of two parts or more; a group `a::{b, c::d}` gives one path for each of its parts.
pub(super) fn paths(code: &str) -> Vec<Found> {
    let tokens = tokens(code);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = match &tokens[at].1 {
            Token::Word(_) => path(&tokens, at, &[], &mut found),
            _ => at + 1,
        };
    }
    found.retain(|found| found.path.len() > 1);
    found
}

/// Reads one path, and the group at its end; gives where it ends.
fn path(tokens: &[(usize, Token)], mut at: usize, before: &[String], found: &mut Vec<Found>) -> usize {
    let (line, mut path) = (tokens[at].0, before.to_vec());
    while let Some((_, Token::Word(word))) = tokens.get(at) {
        path.push(word.clone());
        at += 1;
        if tokens.get(at).map(|(_, token)| token) != Some(&Token::Colons) {
            break;
        }
        at += 1;
        if let Some((_, Token::Sign('{'))) = tokens.get(at) {
            at += 1;
            while let Some((_, token)) = tokens.get(at) {
                at = match token {
                    Token::Sign('}') => return at + 1,
                    Token::Word(_) => self::path(tokens, at, &path, found),
                    _ => at + 1,
                };
            }
            return at;
        }
    }
    found.push(Found { line, path });
    at
}

#[cfg(test)]
mod tests {
    use super::{File, Found, paths};

    #[test]
    fn groups_are_opened() {
        let all = paths("use a::{b, c::{d, e}, f::*};\nfn g() -> h::i<j> {}");
        let shown: Vec<String> = all.iter().map(|Found { line, path }| format!("{line} {}", path.join("::"))).collect();
        assert_eq!(shown, ["1 a::b", "1 a::c::d", "1 a::c::e", "1 a::f", "2 h::i"]);
    }

    #[test]
    fn what_is_no_code_is_blank() {
        let text = "a /* b /* c */ d */ e \"f\\\"g\" 'h' '\\'' &'i r#\"j\"k\"# br\"l\" m // n\no";
        let words: Vec<String> =
            File::new("x.rs".to_owned(), text).code.split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["a", "e", "&", "i", "m", "o"]);
    }
}
