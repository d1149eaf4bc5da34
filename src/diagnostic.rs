//! Errors of a playbook, with their places, and how a person sees them.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

use crate::source::{Sources, Span};
use crate::visible::{count, is_deceptive, visible};

/// One error: what is wrong, where, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong: one line, lower case, names in backticks.
    pub message: String,
    /// Where, with a few words under the carets (may be empty).
    pub at: Label,
    /// Other places that matter: the first definition, the role's call.
    pub also: Vec<Label>,
    /// Ways out, one sentence each.
    pub help: Vec<String>,
    /// What else is to be known: on which hosts.
    pub notes: Vec<String>,
}

/// A place and what to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// A few words to stand under the carets; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// An error at a place.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        let at = Label { span, text: String::new() };
        Self { message: message.into(), at, also: Vec::new(), help: Vec::new(), notes: Vec::new() }
    }

    /// Words under the carets.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.at.text = text.into();
        self
    }

    /// A second place.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.also.push(Label { span, text: text.into() });
        self
    }

    /// A way out.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// "did you mean" from the nearest of `candidates`, when one is near enough.
    #[must_use]
    pub fn suggest<'a>(self, wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, candidates) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

/// The candidate nearest to a wrong name, if any is near enough to be meant.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|name| (strsim::jaro_winkler(wrong, name), name));
    // Ties go to the name that comes first, so that messages are the same on each run.
    let best = scored.fold(None, |best: Option<(f64, &str)>, next| match best {
        Some(known) if known.0 >= next.0 => Some(known),
        _ => Some(next),
    });
    // Two letters in the wrong order weigh too much in short names.
    let slip = |name: &str| wrong.chars().count() > 2 && strsim::osa_distance(wrong, name) == 1;
    best.filter(|(score, name)| *score > 0.8 || slip(name)).map(|(_, name)| name)
}

/// The most errors that are shown; the rest is counted.
const MOST_SHOWN: usize = 50;

/// Renders all errors in the order of their places, each with excerpt, carets and help.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    render_as(diagnostics, sources, "nothing was sent to any host")
}

/// The same, with another last word behind the number of errors.
pub fn render_as(diagnostics: &[Diagnostic], sources: &Sources, end: &str) -> String {
    let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
    sorted.sort_by_key(|diagnostic| diagnostic.at.span);
    sorted.dedup();
    let mut out = String::new();
    for diagnostic in sorted.iter().take(MOST_SHOWN) {
        render_one(&mut out, diagnostic, sources);
        out.push('\n');
    }
    let hidden = sorted.len().saturating_sub(MOST_SHOWN);
    if hidden > 0 {
        let _ = writeln!(out, "and {hidden} more errors, not shown");
    }
    let _ = writeln!(out, "{}: {end}", count(sorted.len(), "error"));
    out
}

fn render_one(out: &mut String, diagnostic: &Diagnostic, sources: &Sources) {
    let _ = writeln!(out, "error: {}", visible(&diagnostic.message));
    let labels = || std::iter::once(&diagnostic.at).chain(&diagnostic.also);
    let line_of = |label: &Label| sources.get(label.span.file).map_or(0, |file| file.position(label.span.start).line);
    let gutter = labels().map(|label| line_of(label).to_string().len()).max().unwrap_or(1);
    for (index, label) in labels().enumerate() {
        let arrow = if index == 0 { "-->" } else { ":::" };
        let Some(file) = sources.get(label.span.file) else { continue };
        let (from, to) = (file.position(label.span.start), file.position(label.span.end));
        let line = file.line(from.line);
        let (shown, lead, width) =
            excerpt(line, from.column, if to.line == from.line { Some(to.column) } else { None });
        let _ = writeln!(out, "{:gutter$}{arrow} {}", "", sources.locate(label.span));
        let _ = writeln!(out, "{:gutter$} |", "");
        let _ = writeln!(out, "{:>gutter$} | {shown}", from.line);
        let mark = if index == 0 { "^" } else { "-" };
        let carets = format!("{:gutter$} | {:lead$}{} {}", "", "", mark.repeat(width), visible(&label.text));
        let _ = writeln!(out, "{}", carets.trim_end());
    }
    for note in &diagnostic.notes {
        let _ = writeln!(out, "{:gutter$} = note: {}", "", visible(note));
    }
    for help in &diagnostic.help {
        let _ = writeln!(out, "{:gutter$} = help: {}", "", visible(help));
    }
}

/// The widest excerpt that is shown, in characters.
const WIDEST: usize = 120;

/// A line fit for showing (tabs as spaces, a stand-in for what cannot be seen, long lines cut around the place), and where the carets go.
fn excerpt(line: &str, column: u32, end: Option<u32>) -> (String, usize, usize) {
    let start = (column as usize).saturating_sub(1);
    let skip = start.saturating_sub(WIDEST * 2 / 3);
    let clean = |c: char| {
        if c == '\t' {
            ' '
        } else if c.is_control() || is_deceptive(c) {
            '\u{FFFD}'
        } else {
            c
        }
    };
    let mut shown: Vec<char> = line.chars().skip(skip).take(WIDEST).map(clean).collect();
    if let Some(first) = shown.first_mut().filter(|_| skip > 0) {
        *first = '…';
    }
    let stop = end.map_or(shown.len(), |end| (end as usize).saturating_sub(1 + skip)).min(shown.len());
    let lead = (start - skip).min(shown.len());
    // Terminals give some characters two columns.
    let columns = |part: &[char]| part.iter().map(|c| c.width().unwrap_or(1)).sum::<usize>();
    let width = columns(shown.get(lead..stop).unwrap_or(&[])).max(1);
    let lead = columns(shown.get(..lead).unwrap_or(&[]));
    (shown.into_iter().collect::<String>().trim_end().to_owned(), lead, width)
}
