//! A first look at a text, before pest sees it: characters that may not stand in it, strings that do not end, brackets that
//! do not match, nesting without bound. pest would tell of all of these in the wrong place, or overflow the stack.

use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::visible::is_deceptive;

/// How deep brackets may stand in brackets.
const MOST_OPEN: usize = 64;

/// Operators of one expression, those around it included: each is a step of every walk over its tree.
const MOST_OPERATORS: usize = 200;

/// The most forbidden characters that are told of one file.
const MOST_CHARACTERS: usize = 10;

/// What the scan found.
pub(super) struct Scan {
    /// Errors, in order.
    pub(super) errors: Vec<Diagnostic>,
    /// Whether brackets and strings match, so that pest can be asked.
    pub(super) sound: bool,
    /// The text with forbidden characters blanked; every byte stays in its place.
    pub(super) text: String,
    /// Each line: where it begins and what is open there.
    pub(super) lines: Vec<Line>,
}

/// The beginning of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Its first byte.
    pub(super) start: usize,
    /// How many brackets and strings are open there.
    pub(super) open: usize,
    /// Whether a statement may begin there: in no bracket but braces.
    pub(super) statement: bool,
}

/// Looks over a text.
pub(super) fn scan(file: u32, text: &str) -> Scan {
    let (clean, mut errors) = match characters(file, text) {
        Ok(found) => found,
        Err(errors) => return Scan { errors, sound: false, text: String::new(), lines: Vec::new() },
    };
    let mut scanner = Scanner {
        file,
        text: &clean,
        at: 0,
        open: Vec::new(),
        lines: vec![Line { start: 0, open: 0, statement: true }],
        indent: 0,
        errors: Vec::new(),
        suspect: None,
        operators: 0,
    };
    scanner.run();
    let Scanner { errors: found, lines, .. } = scanner;
    let sound = found.is_empty();
    errors.extend(found);
    Scan { errors, sound, text: clean, lines }
}

/// Blanks what may not stand in a playbook, and says so.
///
/// # Errors
/// The text is none.
fn characters(file: u32, text: &str) -> Result<(String, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut errors: Vec<Diagnostic> = Vec::new();
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        let line_end = c == '\r' && rest.peek().is_some_and(|(_, next)| *next == '\n');
        if !(c.is_control() || is_deceptive(c)) || matches!(c, '\n' | '\t') || line_end {
            clean.push(c);
            continue;
        }
        clean.extend(std::iter::repeat_n(' ', c.len_utf8()));
        if errors.len() == MOST_CHARACTERS {
            continue;
        }
        if c == '\0' {
            // No text at all: whatever else could be told of it is noise.
            let error = Diagnostic::new(span(file, at, at + 1), "a NUL byte: this is no text, or no UTF-8");
            return Err(vec![error.help("save it as UTF-8; from UTF-16: `iconv -f utf-16 -t utf-8`")]);
        }
        let code = format!("U+{:04X}", u32::from(c));
        let (message, help) = match c {
            '\u{FEFF}' if at == 0 => (
                "the file begins with a byte order mark (U+FEFF)".to_owned(),
                "save it as UTF-8 without a byte order mark (BOM)",
            ),
            '\r' => (
                "a carriage return without a line feed".to_owned(),
                "lines end in a line feed, or in carriage return and line feed",
            ),
            c if c.is_control() => (
                format!("the control character {code} cannot stand in a playbook"),
                "delete it, or write the line anew",
            ),
            _ => (
                format!("an invisible character ({code}, {}) cannot stand in a playbook", name(c)),
                "delete it: such characters make a line look like another one",
            ),
        };
        errors.push(Diagnostic::new(span(file, at, at + c.len_utf8()), message).help(help));
    }
    Ok((clean, errors))
}

/// What people find when they look such a character up.
fn name(c: char) -> &'static str {
    match c {
        '\u{200B}' => "zero width space",
        '\u{200C}' | '\u{200D}' => "zero width joiner",
        '\u{200E}' | '\u{200F}' | '\u{061C}' => "direction mark",
        '\u{202A}'..='\u{202E}' => "direction override",
        '\u{2066}'..='\u{2069}' => "direction isolate",
        '\u{FEFF}' => "byte order mark",
        '\u{00AD}' => "soft hyphen",
        '\u{2028}' | '\u{2029}' => "line separator",
        _ => "format character",
    }
}

fn span(file: u32, start: usize, end: usize) -> Span {
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { file, start: offset(start), end: offset(end) }
}

/// What can be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Round,
    Square,
    Curly,
    /// `{{` in a string.
    Computed,
    Plain,
    Block,
}

impl Kind {
    fn opening(self) -> &'static str {
        match self {
            Self::Round => "(",
            Self::Square => "[",
            Self::Curly => "{",
            Self::Computed => "{{",
            Self::Plain => "\"",
            Self::Block => "\"\"\"",
        }
    }

    fn closing(self) -> &'static str {
        match self {
            Self::Round => ")",
            Self::Square => "]",
            Self::Curly => "}",
            Self::Computed => "}}",
            Self::Plain | Self::Block => self.opening(),
        }
    }
}

struct Open {
    kind: Kind,
    at: usize,
    /// The indentation of its line.
    indent: usize,
    /// Operators in the expression around it.
    operators: usize,
}

struct Scanner<'a> {
    file: u32,
    text: &'a str,
    at: usize,
    open: Vec<Open>,
    lines: Vec<Line>,
    /// The indentation of the line.
    indent: usize,
    errors: Vec<Diagnostic>,
    /// A brace whose closing one stands further left than its own line: the one that is missing, in all likelihood.
    suspect: Option<(usize, usize)>,
    /// Operators since the expression began.
    operators: usize,
}

impl Scanner<'_> {
    fn run(&mut self) {
        self.indent = self.indentation();
        while self.at < self.text.len() {
            let ahead = match self.open.last().map(|open| open.kind) {
                Some(Kind::Plain) => self.in_plain(),
                Some(Kind::Block) => self.in_block(),
                _ => self.in_code(),
            };
            if ahead.is_none() {
                return;
            }
        }
        self.end();
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn indentation(&self) -> usize {
        self.rest().bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
    }

    fn newline(&mut self) {
        self.at += 1;
        let statement = self.open.iter().all(|open| open.kind == Kind::Curly);
        self.lines.push(Line { start: self.at, open: self.open.len(), statement });
        self.indent = self.indentation();
        if self.open.last().is_none_or(|open| open.kind == Kind::Curly) {
            self.operators = 0;
        }
        let item = self.rest().trim_start_matches([' ', '\t']).strip_prefix("- ");
        let text =
            item.is_some_and(|item| item.starts_with(|c: char| c == '"' || c == '\'' || c.is_ascii_alphabetic()));
        if text && self.open.last().is_some_and(|open| open.kind == Kind::Square) {
            let dash = self.at + self.indent;
            let error = Diagnostic::new(span(self.file, dash, dash + 1), "items of a list are not written with `-`");
            self.error(error.help("write them with commas: `[\"a\", \"b\"]`, or one a line with a comma at its end"));
        }
    }

    fn push(&mut self, kind: Kind) -> Option<()> {
        if self.open.len() == MOST_OPEN {
            let at = span(self.file, self.at, self.at + kind.opening().len());
            let error = Diagnostic::new(at, format!("brackets stand in brackets more than {MOST_OPEN} deep"));
            self.errors.push(error.help("take a part out: into a variable, or a role"));
            return None;
        }
        self.open.push(Open { kind, at: self.at, indent: self.indent, operators: self.operators });
        self.at += kind.opening().len();
        Some(())
    }

    fn pop(&mut self) {
        if let Some(open) = self.open.pop() {
            self.at += open.kind.closing().len();
            self.operators = open.operators;
        }
    }

    /// Steps over one character.
    fn step(&mut self) {
        self.at += self.rest().chars().next().map_or(1, char::len_utf8);
    }

    fn in_plain(&mut self) -> Option<()> {
        let rest = self.rest();
        match rest.bytes().next() {
            Some(b'"') => self.pop(),
            Some(b'\\') if !rest.starts_with("\\\n") && !rest.starts_with("\\\r") => {
                self.at += 1;
                self.step();
            }
            Some(b'\n' | b'\r') => self.unended(),
            Some(b'{') if rest.starts_with("{{") => return self.push(Kind::Computed),
            _ => self.step(),
        }
        Some(())
    }

    /// A string that comes to the end of its line. It is taken to end there, so that the next one is found too.
    fn unended(&mut self) {
        let Some(open) = self.open.pop() else { return };
        self.operators = open.operators;
        let end = self.text.get(..self.at).map_or(self.at, |head| head.trim_end().len());
        let error = Diagnostic::new(span(self.file, open.at, end), "this text does not end on its line");
        self.errors.push(error.label("the closing `\"` is missing, here or before").help(
            "a quote inside a text is written `\\\"`; a text of several lines stands between `\"\"\"` and `\"\"\"`",
        ));
    }

    fn in_block(&mut self) -> Option<()> {
        let rest = self.rest();
        if rest.starts_with("\"\"\"") {
            self.pop();
        } else if rest.starts_with("{{") {
            return self.push(Kind::Computed);
        } else if rest.starts_with('\n') {
            self.newline();
        } else {
            self.step();
        }
        Some(())
    }

    fn in_code(&mut self) -> Option<()> {
        let rest = self.rest();
        let Some(c) = rest.chars().next() else { return Some(()) };
        match c {
            '\n' => self.newline(),
            '#' => self.at += rest.find('\n').unwrap_or(rest.len()),
            '"' if rest.starts_with("\"\"\"") => return self.push(Kind::Block),
            '"' => return self.push(Kind::Plain),
            '(' => return self.operator(1).and_then(|()| self.push(Kind::Round)),
            '[' => return self.operator(1).and_then(|()| self.push(Kind::Square)),
            '{' => return self.push(Kind::Curly),
            ')' => return self.close(Kind::Round),
            ']' => return self.close(Kind::Square),
            '}' => return self.close(Kind::Curly),
            ',' => {
                self.operators = self.open.last().map_or(0, |open| open.operators);
                self.at += 1;
            }
            c if c.is_alphanumeric() || c == '_' => {
                let word = |c: char| c.is_alphanumeric() || c == '_';
                let word = rest.get(..rest.find(|c| !word(c)).unwrap_or(rest.len())).unwrap_or_default();
                let operator = matches!(word, "and" | "or" | "not" | "in" | "is" | "if" | "else");
                let length = word.len();
                self.operator(usize::from(operator))?;
                self.at += length;
            }
            ' ' | '\t' | '\r' | '=' => self.step(),
            _ => {
                self.operator(1)?;
                self.step();
            }
        }
        Some(())
    }

    fn operator(&mut self, count: usize) -> Option<()> {
        self.operators += count;
        if self.operators <= MOST_OPERATORS {
            return Some(());
        }
        let error = Diagnostic::new(
            span(self.file, self.at, self.at + 1),
            format!("an expression with more than {MOST_OPERATORS} operators"),
        );
        self.errors.push(error.help("give parts of it names in `vars`, or write a list"));
        None
    }

    fn close(&mut self, kind: Kind) -> Option<()> {
        let Some(open) = self.open.last() else {
            self.stray(kind);
            return None;
        };
        if open.kind == kind {
            if kind == Kind::Curly && self.first_on_line() && self.indent < open.indent && self.suspect.is_none() {
                self.suspect = Some((open.at, self.at));
            }
            self.pop();
            return Some(());
        }
        if open.kind == Kind::Computed && kind == Kind::Curly && self.rest().starts_with("}}") {
            self.pop();
            return Some(());
        }
        let (opening, closing) = (open.kind.opening(), open.kind.closing());
        let opened = span(self.file, open.at, open.at + opening.len());
        let here = span(self.file, self.at, self.at + kind.closing().len());
        let error = Diagnostic::new(here, format!("`{}` cannot close `{opening}`", kind.closing()));
        self.error(error.label(format!("`{closing}` is missing before it")).also(opened, "opened here"));
        None
    }

    fn stray(&mut self, kind: Kind) {
        let here = span(self.file, self.at, self.at + kind.closing().len());
        let error =
            Diagnostic::new(here, format!("there is no `{}` that this `{}` closes", kind.opening(), kind.closing()));
        self.error(error.help("delete it, or look above for a bracket that is closed too early"));
    }

    /// Brackets that a string without an end has swallowed are no errors of their own.
    fn error(&mut self, error: Diagnostic) {
        if self.errors.is_empty() {
            self.errors.push(error);
        }
    }

    fn first_on_line(&self) -> bool {
        let head = self.text.get(..self.at).unwrap_or("");
        head.rsplit('\n').next().is_some_and(|line| line.trim().is_empty())
    }

    fn end(&mut self) {
        let Some(open) = self.open.first() else { return };
        let (kind, at) = (open.kind, open.at);
        if let Some(last) = self.open.last().filter(|last| last.kind == Kind::Block) {
            let here = span(self.file, last.at, last.at + 3);
            self.error(Diagnostic::new(here, "this `\"\"\"` is never closed"));
            return;
        }
        if self.open.last().is_some_and(|last| last.kind == Kind::Plain) {
            self.unended();
            return;
        }
        if let (Kind::Curly, Some((open, close))) = (kind, self.suspect) {
            let error = Diagnostic::new(span(self.file, open, open + 1), "this `{` is never closed")
                .also(span(self.file, close, close + 1), "by its indentation this one closes a block further out");
            self.error(error.help("add the `}` before it"));
            return;
        }
        let here = span(self.file, at, at + kind.opening().len());
        let error = Diagnostic::new(here, format!("this `{}` is never closed", kind.opening()));
        self.error(error.help(format!("add the `{}`", kind.closing())));
    }
}
