//! Lines of log files, as they are printed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufWriter, ErrorKind, IsTerminal as _, Stdout, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use regex::bytes::Regex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::super::play::When;
use super::super::{complain, exit};
use crate::coordinator::read::{Origin, Output};
use crate::failure::{Failure, FailureKind};
use crate::logs::read::{Line, Pattern};
use crate::report::harmless;

/// The colours of names, of the terminal's own palette: not red, which is for what matched.
const COLORS: [&str; 5] = ["36", "33", "32", "35", "34"];

/// What a folder is called.
#[derive(Clone, Debug)]
pub(super) struct Label {
    /// The host, where there may be several.
    pub(super) host: Option<String>,
    pub(super) node: Option<String>,
    pub(super) folder: String,
    /// What its lines begin with.
    pub(super) shown: String,
}

/// What is printed for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The line, behind its node and its site.
    Labelled,
    /// The line.
    Bare,
    /// An object of JSON.
    Json,
}

/// Prints lines, and remembers what went wrong.
pub(super) struct Printer {
    labels: Vec<Vec<Label>>,
    shape: Shape,
    color: bool,
    /// A person looks at it: no byte of a line may draw on the terminal.
    terminal: bool,
    /// What is shown in another colour.
    pattern: Option<Regex>,
    out: BufWriter<Stdout>,
    /// The file of which a piece was printed that does not end its line.
    within: Option<Arc<Origin>>,
    code: u8,
}

impl Printer {
    /// A printer for lines of folders: for each host their labels.
    ///
    /// # Errors
    /// The pattern is none.
    pub(super) fn new(
        labels: Vec<Vec<Label>>,
        shape: Shape,
        color: When,
        pattern: Option<&Pattern>,
    ) -> Result<Self, Failure> {
        let terminal = std::io::stdout().is_terminal();
        let color = shape != Shape::Json && color.color(terminal);
        let shown = pattern.filter(|pattern| color && !pattern.invert);
        Ok(Self {
            labels,
            shape,
            color,
            terminal,
            pattern: shown.map(Pattern::compile).transpose()?,
            out: BufWriter::with_capacity(64 * 1024, std::io::stdout()),
            within: None,
            code: exit::OK,
        })
    }

    /// The exit code that goes with what went wrong.
    pub(super) fn code(&self) -> u8 {
        self.code
    }

    /// Whether it could be written. A reader that went away (`| head`) has enough; anything else is told.
    fn wrote(&mut self, done: std::io::Result<()>) -> bool {
        match done {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
            Err(error) => {
                complain(&format!("error: lines cannot be written: {error}"));
                self.code = exit::FAILED;
                // Not once more when it is dropped.
                self.out = BufWriter::with_capacity(0, std::io::stdout());
                false
            }
        }
    }

    fn label(&self, from: &Origin) -> Option<&Label> {
        self.labels.get(from.host)?.get(from.folder)
    }

    fn print(&mut self, from: &Arc<Origin>, line: &Line) -> std::io::Result<()> {
        let (text, ends) = match line.text.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (line.text.as_slice(), false),
        };
        if self.shape == Shape::Json {
            let object = self.object(from, line.at, text, ends);
            return writeln!(self.out, "{object}");
        }
        let goes_on = self.within.take();
        let is_rest = goes_on.as_ref().is_some_and(|file| file == from);
        if goes_on.is_some() && !is_rest {
            self.out.write_all(b"\n")?;
        }
        if !is_rest && self.shape == Shape::Labelled {
            let label = self.shown(from);
            self.out.write_all(label.as_bytes())?;
        }
        self.text(text)?;
        if ends {
            self.out.write_all(b"\n")?;
        } else {
            self.within = Some(Arc::clone(from));
        }
        Ok(())
    }

    /// Node and site of a line, and what separates them from it.
    fn shown(&self, from: &Origin) -> String {
        let label = self.label(from).map(|label| label.shown.as_str()).unwrap_or_default();
        let words: Vec<String> =
            [label, site(from)].into_iter().filter(|word| !word.is_empty()).map(harmless).collect();
        match words.join(" ") {
            words if words.is_empty() => words,
            words if self.color => format!("\x1b[{}m{words}\x1b[0m  ", color_of(&words)),
            words => format!("{words}  "),
        }
    }

    fn text(&mut self, text: &[u8]) -> std::io::Result<()> {
        let matches: Vec<Range<usize>> =
            self.pattern.iter().flat_map(|pattern| pattern.find_iter(text)).map(|found| found.range()).collect();
        let mut done = 0;
        for found in matches.into_iter().filter(|found| !found.is_empty()) {
            self.plain(text.get(done..found.start).unwrap_or_default())?;
            self.out.write_all(b"\x1b[1;31m")?;
            self.plain(text.get(found.clone()).unwrap_or_default())?;
            self.out.write_all(b"\x1b[0m")?;
            done = found.end;
        }
        self.plain(text.get(done..).unwrap_or_default())
    }

    fn plain(&mut self, text: &[u8]) -> std::io::Result<()> {
        if self.terminal {
            self.out.write_all(harmless(&String::from_utf8_lossy(text)).as_bytes())
        } else {
            self.out.write_all(text)
        }
    }

    fn object(&self, from: &Origin, at: i64, text: &[u8], ends: bool) -> serde_json::Value {
        let at = Timestamp::from_microsecond(at).unwrap_or_default().to_string();
        let label = self.label(from);
        let mut object = json!({
            "at": at,
            "host": label.and_then(|label| label.host.as_deref()),
            "node": label.and_then(|label| label.node.as_deref()),
            "folder": label.map(|label| label.folder.as_str()),
            "site": site(from),
            "file": from.path,
            "line": String::from_utf8_lossy(text),
        });
        if let (false, Some(object)) = (ends, object.as_object_mut()) {
            object.insert("more".to_owned(), true.into());
        }
        object
    }
}

/// The directory of a file below its folder.
fn site(from: &Origin) -> &str {
    Path::new(&from.path).parent().and_then(Path::to_str).unwrap_or_default()
}

/// The same name has the same colour each time.
fn color_of(name: &str) -> &'static str {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let number = usize::try_from(hasher.finish() % 5).unwrap_or(0);
    COLORS.get(number).copied().unwrap_or("36")
}

impl Output for Printer {
    fn line(&mut self, from: &Arc<Origin>, line: &Line) -> bool {
        let done = self.print(from, line);
        self.wrote(done)
    }

    fn failed(&mut self, host: usize, failure: &Failure) {
        let unreached = matches!(failure.kind, FailureKind::Unreachable | FailureKind::Lost | FailureKind::Untrusted);
        let code = if unreached { exit::UNREACHABLE } else { exit::FAILED };
        // Lines may be missing in either case; which host was not reached says more.
        self.code = self.code.max(code);
        // In the order in which things happened.
        let _ = self.out.flush();
        let host = self.labels.get(host).and_then(|labels| labels.first()).and_then(|label| label.host.as_deref());
        let host = host.map_or_else(String::new, |host| format!("{host}: "));
        complain(&harmless(&format!("error: {host}{failure}")));
        if let Some(hint) = &failure.hint {
            complain(&harmless(&format!("help: {hint}")));
        }
    }

    fn flush(&mut self) -> bool {
        let done = self.out.flush();
        self.wrote(done) && has_reader()
    }
}

/// Whether anybody reads standard output: a pipe tells that before anything is written.
fn has_reader() -> bool {
    let stdout = std::io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let answered = poll(&mut asked, Some(&Timespec::default()));
    answered.is_err() || asked.iter().all(|asked| !asked.revents().contains(PollFlags::ERR))
}
